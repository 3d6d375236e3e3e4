//! The loop, one poll(2) for all members: a message is sent to the others at once, and queued for those whose socket is
//! full.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags};
use server::limits::CLOSE_MS;
use server::listener::{Accepted, Listener, close_all};
use server::stop;
use websocket::deadline::Deadline;
use websocket::{CloseCode, Opcode};

use crate::Options;
use crate::commands::{self, Command};
use crate::connection::{Buffers, Connection, Departure, Plain};
use crate::framing::{Message, Outgoing};
use crate::names::Names;
use crate::pace::Pace;

pub(crate) struct Chat<'o> {
    options: &'o Options,
    listener: Listener,
    /// By number; a number is never used again.
    members: BTreeMap<u64, Member>,
    newest: u64,
    names: Names,
    /// Departures that the others have not been told of yet.
    departures: Vec<(u64, Departure)>,
    buffers: Buffers,
}

struct Member {
    connection: Connection,
    pace: Pace,
    /// Deadline of the close handshake of one that is a member no longer.
    close_by: Option<Deadline>,
}

impl Member {
    fn interest(&self) -> PollFlags {
        let reads = if self.pace.has_room() { PollFlags::POLLIN } else { PollFlags::empty() };
        let writes = if self.connection.wants_to_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
        reads | writes
    }

    /// When to handle it without an event: messages may be left that exceeded its pace.
    fn deadline(&self) -> Option<Deadline> {
        self.close_by.or_else(|| (!self.pace.has_room()).then(|| self.pace.ends()))
    }
}

impl<'o> Chat<'o> {
    pub(crate) fn new(listener: Listener, options: &'o Options) -> Chat<'o> {
        Chat {
            options,
            listener,
            members: BTreeMap::new(),
            newest: 0,
            names: Names::default(),
            departures: Vec::new(),
            buffers: Buffers::new(),
        }
    }

    /// Serves until a stop signal. The stop signals have to be blocked.
    pub(crate) fn serve(mut self) -> Result<(), String> {
        while !stop::is_requested() {
            let (can_accept, ready) = self.wait()?;
            // First, so that new members receive the messages of this turn.
            while can_accept && self.has_room() && self.accept() {}
            for number in ready {
                self.handle(number);
                self.announce_departures();
            }
            self.send_gathered();
        }
        // The gateway sends close frames on plain connections.
        let connections = self.members.into_values().map(|member| member.connection);
        let direct = connections.filter_map(|connection| match connection {
            Connection::Direct(client) => Some(client),
            Connection::Plain(_) => None,
        });
        close_all(direct.collect(), CloseCode::GOING_AWAY);
        Ok(())
    }

    /// Waits. Tells whether a client connects, and which members have an event or a deadline that is over.
    fn wait(&self) -> Result<(bool, Vec<u64>), String> {
        let mut fds = vec![PollFd::new(self.listener.as_fd(), self.listener.interest(self.has_room()))];
        // Members with nothing to wait for are left out, since poll(2) would report their end each time.
        let watched = self.members.iter().filter(|(_, member)| !member.interest().is_empty());
        fds.extend(watched.clone().map(|(_, member)| PollFd::new(member.connection.as_fd(), member.interest())));
        let deadlines = self.members.values().filter_map(Member::deadline).chain(self.listener.deadline());
        let events = stop::wait(&mut fds, deadlines)?;
        let ready = watched.zip(&events[1..]).filter(|(_, events)| !events.is_empty()).map(|(member, _)| member);
        let due = self.members.iter().filter(|(_, member)| member.deadline().is_some_and(Deadline::is_over));
        Ok((!events[0].is_empty(), ready.chain(due).map(|(number, _)| *number).collect()))
    }

    /// Whether another member is accepted. Others wait in the backlog.
    fn has_room(&self) -> bool {
        self.members.len() < self.options.clients_max
    }

    /// Accepts a member. False: there is none.
    fn accept(&mut self) -> bool {
        let connection = match self.listener.accept() {
            Some(Accepted::Plain(socket)) => Connection::Plain(Plain::new(socket, self.options)),
            Some(Accepted::Direct(client)) => Connection::Direct(client),
            None => return false,
        };
        self.newest += 1;
        self.members.insert(self.newest, Member { connection, pace: Pace::new(), close_by: None });
        true
    }

    /// Sends what is queued for a member, and handles its messages.
    fn handle(&mut self, number: u64) {
        let Some(member) = self.members.get_mut(&number) else { return };
        member.pace.renew();
        let mut messages = Vec::new();
        let flushed = if member.connection.wants_to_write() { member.connection.flush() } else { Ok(()) };
        let received = flushed.and_then(|()| match member.pace.has_room() {
            true => member.connection.receive(&mut self.buffers, &mut member.pace, &mut messages),
            false => Ok(()),
        });
        if let Some(deadline) = member.close_by {
            if received.is_err() || deadline.is_over() {
                self.members.remove(&number);
            }
            return;
        }
        for message in messages {
            self.obey(number, &message);
        }
        if let Err(departure) = received {
            self.depart(number, departure);
        }
    }

    /// An empty message is not sent on.
    fn obey(&mut self, number: u64, message: &Message) {
        let Message { opcode, payload } = message;
        let command = if self.options.own.has_commands { commands::parse(payload) } else { Command::Say };
        match command {
            Command::Say if payload.is_empty() => {}
            Command::Say => self.send_others(number, *opcode, payload),
            Command::Hello(name) => {
                let given = self.names.give(number, name);
                self.send(number, Opcode::Text, commands::welcome(&given.name).as_bytes());
                if let Some(freed) = given.freed {
                    self.send_others(number, Opcode::Text, commands::goodbye(&freed).as_bytes());
                }
            }
            Command::Private(name, text) => {
                if let Some(member) = self.names.member(name) {
                    self.send(member, *opcode, text);
                }
            }
            Command::Whois(name) => {
                let member = self.names.member(name).and_then(|member| self.members.get(&member));
                let what = match member.map(|member| member.connection.address()) {
                    None => "undefined".to_owned(),
                    Some(None) => "network error".to_owned(),
                    Some(Some(address)) => address.to_string(),
                };
                self.send(number, Opcode::Text, commands::is(name, &what).as_bytes());
            }
            Command::Nothing => {}
        }
    }

    fn send(&mut self, number: u64, opcode: Opcode, text: &[u8]) {
        let message = Outgoing::new(self.options.protocol, opcode, text);
        let Some(member) = self.members.get_mut(&number).filter(|member| member.close_by.is_none()) else { return };
        if let Err(departure) = member.connection.send(&message) {
            self.depart(number, departure);
        }
    }

    fn send_others(&mut self, number: u64, opcode: Opcode, text: &[u8]) {
        let message = Outgoing::new(self.options.protocol, opcode, text);
        let others = self.members.iter_mut().filter(|(other, member)| **other != number && member.close_by.is_none());
        let failed: Vec<(u64, Departure)> =
            others.filter_map(|(other, member)| Some((*other, member.connection.send(&message).err()?))).collect();
        for (other, departure) in failed {
            self.depart(other, departure);
        }
    }

    /// Sends what was gathered in this turn, and the departures which that finds.
    fn send_gathered(&mut self) {
        loop {
            let members = self.members.iter_mut().filter(|(_, member)| member.close_by.is_none());
            let failed: Vec<(u64, Departure)> = members
                .filter_map(|(number, member)| Some((*number, member.connection.send_gathered().err()?)))
                .collect();
            if failed.is_empty() {
                return;
            }
            for (number, departure) in failed {
                self.depart(number, departure);
            }
            self.announce_departures();
        }
    }

    /// Removes a member, after its close handshake if it is on a direct connection.
    fn depart(&mut self, number: u64, departure: Departure) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let is_direct = matches!(member.connection, Connection::Direct(_));
        if is_direct && matches!(departure, Departure::Closing | Departure::Frame(_)) {
            member.close_by = Some(Deadline::after_ms(CLOSE_MS));
        } else {
            self.members.remove(&number);
        }
        self.departures.push((number, departure));
    }

    /// Sending may exceed the queue of others, who then depart as well.
    fn announce_departures(&mut self) {
        while let Some((number, departure)) = self.departures.pop() {
            let name = self.names.free(number);
            if !matches!(departure, Departure::Left | Departure::Closing) {
                // Members choose their names: no control characters to a terminal.
                let who = name.as_deref().unwrap_or("a member without a name").escape_debug();
                self.options.complain(format_args!("{who} is dropped: {departure}"));
            }
            if let Some(name) = name {
                self.send_others(number, Opcode::Text, commands::goodbye(&name).as_bytes());
            }
        }
    }
}
