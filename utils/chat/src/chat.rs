//! The loop, one poll(2) for all members: what one says is sent on to the others at once, and waits for those who do
//! not take it yet.

use std::collections::BTreeMap;
use std::io::{Write as _, stderr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use server::limits::ACCEPT_PAUSE_MS;
use server::start::{self, Entrance, is_shortage};
use server::stop;
use websocket::deadline::Deadline;
use websocket::{AcceptError, CloseCode, Opcode};

use crate::commands::{self, Command};
use crate::connection::{Buffers, Connection, Gone, Plain};
use crate::framing::{Message, Parcel};
use crate::limits::END_MS;
use crate::names::Names;
use crate::options::Options;
use crate::pace::Pace;

/// The chat and all who are in it.
pub struct Chat<'o> {
    options: &'o Options,
    entrance: Entrance,
    /// No file descriptor was left for a member: until then none is accepted.
    pause: Option<Deadline>,
    /// By their numbers, which are never used again.
    members: BTreeMap<u64, Member>,
    newest: u64,
    names: Names,
    /// Who is not among the members any more, but the others do not know yet.
    parted: Vec<(u64, Gone)>,
    buffers: Buffers,
}

struct Member {
    connection: Connection,
    pace: Pace,
    /// It is no member any more, and its connection is given so long to end.
    leaves: Option<Deadline>,
}

impl Member {
    fn interest(&self) -> PollFlags {
        let reads = if self.pace.has_room() { PollFlags::POLLIN } else { PollFlags::empty() };
        let writes = if self.connection.wants_to_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
        reads | writes
    }

    /// When to look at it without being asked: something may be left that was too much for its pace.
    fn deadline(&self) -> Option<Deadline> {
        self.leaves.or_else(|| (!self.pace.has_room()).then(|| self.pace.ends()))
    }
}

impl<'o> Chat<'o> {
    /// With nobody in it.
    pub fn new(mut entrance: Entrance, options: &'o Options) -> Chat<'o> {
        if let Entrance::Direct(listener) = &mut entrance {
            listener.set_nonblocking(true);
        }
        Chat {
            options,
            entrance,
            pause: None,
            members: BTreeMap::new(),
            newest: 0,
            names: Names::default(),
            parted: Vec::new(),
            buffers: Buffers::new(),
        }
    }

    /// Serves until a signal says stop. The signals are blocked already.
    pub fn serve(mut self) -> Result<(), String> {
        while !stop::is_asked() {
            let (comes, ready) = self.wait().map_err(|errno| format!("poll: {}", errno.desc()))?;
            // First, so that those who have come already hear what is said now.
            while comes && self.has_place() && self.accept() {}
            for number in ready {
                self.hear(number);
                self.tell_who_parted();
            }
            self.send_gathered();
        }
        self.end();
        Ok(())
    }

    /// Waits for whatever may go on: whether somebody comes, and the members that there is something to do for.
    fn wait(&mut self) -> Result<(bool, Vec<u64>), Errno> {
        self.pause = self.pause.filter(|pause| !pause.is_over());
        let accepts = if self.has_place() { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.entrance.as_fd(), accepts)];
        // Who is waited for in no way is left out, since poll(2) would tell of its end all the same, again and again.
        let watched = self.members.iter().filter(|(_, member)| !member.interest().is_empty());
        let numbers: Vec<u64> = watched.clone().map(|(number, _)| *number).collect();
        fds.extend(watched.map(|(_, member)| PollFd::new(member.connection.as_fd(), member.interest())));
        let deadlines = self.members.values().filter_map(Member::deadline).chain(self.pause);
        let left_ms = deadlines.map(|deadline| deadline.timeout().as_millis()).min().flatten();
        let time = left_ms.map(|left_ms| TimeSpec::from(Duration::from_millis(left_ms.into())));
        // Signals are let in here only, so that none is lost between the look at the flag and the wait.
        match ppoll(&mut fds, time, Some(SigSet::empty())) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let has_event = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let comes = has_event(&fds[0]);
        let mut ready: Vec<u64> =
            numbers.into_iter().zip(&fds[1..]).filter(|(_, fd)| has_event(fd)).map(|(number, _)| number).collect();
        let is_due = |member: &Member| member.deadline().is_some_and(Deadline::is_over);
        ready.extend(self.members.iter().filter(|(_, member)| is_due(member)).map(|(number, _)| *number));
        Ok((comes, ready))
    }

    /// Whether another may come in; else it waits in the backlog.
    fn has_place(&self) -> bool {
        self.members.len() < self.options.clients_max && self.pause.is_none()
    }

    /// Takes in one who comes. False: nobody does.
    fn accept(&mut self) -> bool {
        let connection = match &mut self.entrance {
            Entrance::Plain(listener) => match start::accept(listener.as_fd()) {
                Ok(socket) => Ok(Connection::Plain(Plain::new(socket, self.options))),
                Err(errno) => Err(AcceptError::Io(errno)),
            },
            Entrance::Direct(listener) => listener.accept().map(|mut client| {
                client.set_nonblocking(true);
                Connection::Direct(Box::new(client))
            }),
        };
        match connection {
            Ok(connection) => {
                self.newest += 1;
                self.members.insert(self.newest, Member { connection, pace: Pace::new(), leaves: None });
            }
            Err(AcceptError::Io(errno)) if is_shortage(errno) => self.pause = Some(Deadline::after_ms(ACCEPT_PAUSE_MS)),
            Err(AcceptError::WouldBlock | AcceptError::Io(_)) => return false,
            Err(error) => drop(writeln!(stderr(), "websocket_chat: {error}")),
        }
        true
    }

    /// Sends a member what waits for it, and does what it says.
    fn hear(&mut self, number: u64) {
        let Some(member) = self.members.get_mut(&number) else { return };
        member.pace.renew();
        let mut said = Vec::new();
        let flushed = if member.connection.wants_to_write() { member.connection.flush() } else { Ok(()) };
        let heard = flushed.and_then(|()| match member.pace.has_room() {
            true => member.connection.hear(&mut self.buffers, &mut member.pace, &mut said),
            false => Ok(()),
        });
        if let Some(deadline) = member.leaves {
            // Its last word was heard; only the end of the connection is missing.
            if heard.is_err() || deadline.is_over() {
                self.members.remove(&number);
            }
            return;
        }
        for message in said {
            self.obey(number, &message);
        }
        if let Err(gone) = heard {
            self.part(number, gone);
        }
    }

    /// An empty message says nothing to anybody.
    fn obey(&mut self, number: u64, message: &Message) {
        let Message { opcode, payload } = message;
        let command = if self.options.has_commands { commands::parse(payload) } else { Command::Say };
        match command {
            Command::Say if payload.is_empty() => {}
            Command::Say => self.tell_others(number, *opcode, payload),
            Command::Hello(name) => {
                let given = self.names.give(number, name);
                self.tell(number, Opcode::Text, commands::welcome(&given.name).as_bytes());
                if let Some(freed) = given.freed {
                    self.tell_others(number, Opcode::Text, commands::goodbye(&freed).as_bytes());
                }
            }
            Command::Private(name, text) => {
                if let Some(member) = self.names.member(name) {
                    self.tell(member, *opcode, text);
                }
            }
            Command::Whois(name) => {
                let member = self.names.member(name).and_then(|member| self.members.get(&member));
                let what = match member.map(|member| member.connection.address()) {
                    None => "undefined".to_owned(),
                    Some(None) => "network error".to_owned(),
                    Some(Some(address)) => address.to_string(),
                };
                self.tell(number, Opcode::Text, commands::is(name, &what).as_bytes());
            }
            Command::Nothing => {}
        }
    }

    fn tell(&mut self, number: u64, opcode: Opcode, text: &[u8]) {
        let parcel = Parcel::new(self.options.protocol, opcode, text);
        let Some(member) = self.members.get_mut(&number).filter(|member| member.leaves.is_none()) else { return };
        if let Err(gone) = member.connection.send(&parcel) {
            self.part(number, gone);
        }
    }

    fn tell_others(&mut self, number: u64, opcode: Opcode, text: &[u8]) {
        let parcel = Parcel::new(self.options.protocol, opcode, text);
        let others = self.members.iter_mut().filter(|(other, member)| **other != number && member.leaves.is_none());
        let failed: Vec<(u64, Gone)> =
            others.filter_map(|(other, member)| Some((*other, member.connection.send(&parcel).err()?))).collect();
        for (other, gone) in failed {
            self.part(other, gone);
        }
    }

    /// Ends the turn. Who is found gone now is told of to the others, which is gathered as well.
    fn send_gathered(&mut self) {
        loop {
            let members = self.members.iter_mut().filter(|(_, member)| member.leaves.is_none());
            let failed: Vec<(u64, Gone)> = members
                .filter_map(|(number, member)| Some((*number, member.connection.send_gathered().err()?)))
                .collect();
            if failed.is_empty() {
                return;
            }
            for (number, gone) in failed {
                self.part(number, gone);
            }
            self.tell_who_parted();
        }
    }

    /// Lets a member go. Those who leave with a close frame on a connection of their own are given time to end it.
    fn part(&mut self, number: u64, gone: Gone) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let is_direct = matches!(member.connection, Connection::Direct(_));
        if is_direct && matches!(gone, Gone::Leaves | Gone::Frame(_)) {
            member.leaves = Some(Deadline::after_ms(END_MS.into()));
        } else {
            self.members.remove(&number);
        }
        self.parted.push((number, gone));
    }

    /// Telling may be too much for others, who then part as well.
    fn tell_who_parted(&mut self) {
        while let Some((number, gone)) = self.parted.pop() {
            let name = self.names.free(number);
            if !matches!(gone, Gone::Left | Gone::Leaves) {
                // Members choose their names, and terminals obey some characters.
                let who = name.as_deref().unwrap_or("a member without a name").escape_debug();
                let _ = writeln!(stderr(), "websocket_chat: {who} is dropped: {gone}");
            }
            if let Some(name) = name {
                self.tell_others(number, Opcode::Text, commands::goodbye(&name).as_bytes());
            }
        }
    }

    /// Says goodbye to those who are on connections of their own, then waits for them. To the others the gateway does.
    fn end(self) {
        let deadline = Deadline::after_ms(END_MS.into());
        let mut clients = Vec::new();
        for member in self.members.into_values() {
            if let Connection::Direct(mut client) = member.connection {
                // Who has gone needs no goodbye.
                let _ = client.close(CloseCode::GOING_AWAY, "");
                clients.push(client);
            }
        }
        for client in clients {
            client.finish(deadline.timeout().as_millis().unwrap_or_default());
        }
    }
}
