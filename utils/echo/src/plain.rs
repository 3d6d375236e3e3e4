//! Plain connections: one poll(2) loop for all clients.

use std::io::{Write as _, stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use server::limits::ACCEPT_PAUSE_MS;
use server::options::Protocol;
use server::record::Record;
use server::{start, stop};

use crate::limits::READ_SIZE;
use crate::options::Options;

/// One client: what it sent and has not got back yet. Nothing more is read from it until that is gone, so this
/// never grows beyond one read.
struct Client {
    socket: OwnedFd,
    /// What has come of its first record, where one is awaited.
    record: Option<Record>,
    /// Packets keep their borders, so that each read is an answer of its own.
    owed: Vec<u8>,
    owed_start: usize,
    owes_packet: bool,
    has_answered: bool,
}

/// Whether a client stays.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Leaves,
}

/// Serves until a signal says stop, or with `-t` until one answer was given. The signals are blocked already.
pub fn serve(listener: &OwnedFd, options: &Options) -> Result<(), String> {
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; READ_SIZE];
    let mut can_accept = true;
    while !stop::is_asked() {
        let events = wait(listener, &clients, can_accept, options)?;
        let (accepts, ready) = (events[0], &events[1..]);
        let mut answered = false;
        let mut index = 0;
        // The events are those of the clients before any of them leaves.
        clients.retain_mut(|client| {
            let event = ready.get(index).copied().unwrap_or(PollFlags::empty());
            index += 1;
            let stays = event.is_empty() || client.turn(&mut buffer, options.protocol) == Fate::Stays;
            answered |= client.has_answered;
            stays
        });
        if options.once && answered {
            return Ok(());
        }
        can_accept = accepts.is_empty() || accept(listener, &mut clients, options.hello);
    }
    Ok(())
}

/// Waits for whatever may go on: reading where nothing is owed, writing where something is, accepting where
/// there is room.
fn wait(listener: &OwnedFd, clients: &[Client], can_accept: bool, options: &Options) -> Result<Vec<PollFlags>, String> {
    let room = if options.once { 1 } else { options.clients_max };
    let accepts = if clients.len() < room && can_accept { PollFlags::POLLIN } else { PollFlags::empty() };
    let mut fds = vec![PollFd::new(listener.as_fd(), accepts)];
    fds.extend(clients.iter().map(|client| PollFd::new(client.socket.as_fd(), client.interest())));
    let time = if can_accept { None } else { Some(TimeSpec::from(Duration::from_millis(ACCEPT_PAUSE_MS))) };
    // Signals are let in here only, so that none is lost between the look at the flag and the wait.
    match ppoll(&mut fds, time, Some(SigSet::empty())) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(format!("poll: {}", errno.desc())),
    }
    Ok(fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect())
}

/// False: there is no file descriptor for another client, and it would come again at once.
fn accept(listener: &OwnedFd, clients: &mut Vec<Client>, hello: bool) -> bool {
    match start::accept(listener.as_fd()) {
        Ok(socket) => {
            clients.push(Client {
                socket,
                record: hello.then(Record::new),
                owed: Vec::new(),
                owed_start: 0,
                owes_packet: false,
                has_answered: false,
            });
        }
        Err(errno) if start::is_shortage(errno) => return false,
        Err(_) => {}
    }
    true
}

impl Client {
    fn interest(&self) -> PollFlags {
        if self.owes() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn owes(&self) -> bool {
        self.owes_packet || self.owed_start < self.owed.len()
    }

    /// Reads if nothing is owed, then writes what is.
    fn turn(&mut self, buffer: &mut [u8], protocol: Protocol) -> Fate {
        if self.record.is_some() {
            return self.take_record(buffer, protocol);
        }
        if !self.owes() {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(0) if protocol != Protocol::Packet || start::has_hung_up(self.socket.as_fd()) => {
                    return Fate::Leaves;
                }
                Ok(size) => {
                    self.owed.clear();
                    self.owed.extend_from_slice(&buffer[..size]);
                    self.owed_start = 0;
                    self.owes_packet = protocol == Protocol::Packet;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
                Err(_) => return Fate::Leaves,
            }
        }
        self.write()
    }

    /// Receives of the first record what is missing, of packets a whole one.
    fn take_record(&mut self, buffer: &mut [u8], protocol: Protocol) -> Fate {
        let Some(record) = &mut self.record else { return Fate::Stays };
        let is_packet = protocol == Protocol::Packet;
        let size = if is_packet { buffer.len() } else { record.missing_size().min(buffer.len()) };
        let size = match recv(self.socket.as_raw_fd(), &mut buffer[..size], MsgFlags::empty()) {
            Ok(size @ 1..) => size,
            Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
            Ok(0) | Err(_) => return Fate::Leaves,
        };
        match record.take(&buffer[..size]) {
            Ok(Some(whole)) => {
                // A server is no worse where nobody reads what it tells.
                let _ = writeln!(stdout(), "{whole}");
                self.record = None;
                Fate::Stays
            }
            Ok(None) if !is_packet => Fate::Stays,
            Ok(None) => Fate::Leaves,
            Err(error) => {
                let _ = writeln!(stderr(), "websocket_echo: {error}");
                Fate::Leaves
            }
        }
    }

    fn write(&mut self) -> Fate {
        while self.owes() {
            match send(self.socket.as_raw_fd(), &self.owed[self.owed_start..], MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => {
                    self.owed_start += size;
                    self.owes_packet = false;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
                Err(_) => return Fate::Leaves,
            }
        }
        self.has_answered = true;
        Fate::Stays
    }
}
