//! Plain connections: one poll(2) loop for all clients.

use std::io::{Write as _, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv, send};
use server::listener::{Accepted, Listener};
use server::options::Protocol;
use server::record::{HelloError, Record, describe, has_hung_up};
use server::stop;

use crate::limits::READ_SIZE;
use crate::{Options, clients_max};

struct Client {
    socket: OwnedFd,
    /// The hello record until it is complete; None: it is, or none is expected.
    record: Option<Record>,
    /// The last receive, as long as it was not sent back. Until then nothing more is read.
    unsent: Vec<u8>,
    sent_size: usize,
    /// `unsent` is a packet, which may be empty.
    has_unsent_packet: bool,
    has_answered: bool,
}

/// Whether a client stays.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Leaves,
}

/// Serves until a stop signal, or with `-t` until one answer was sent. The stop signals have to be blocked.
pub(crate) fn serve(mut listener: Listener, options: &Options) -> Result<(), String> {
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; READ_SIZE];
    while !stop::is_requested() {
        let interest = listener.interest(clients.len() < clients_max(options));
        let mut fds = vec![PollFd::new(listener.as_fd(), interest)];
        fds.extend(clients.iter().map(|client| PollFd::new(client.socket.as_fd(), client.interest())));
        let events = stop::wait(&mut fds, listener.deadline().into_iter())?;
        let mut ready = events[1..].iter();
        let mut has_answered = false;
        clients.retain_mut(|client| {
            let is_ready = ready.next().is_some_and(|events| !events.is_empty());
            let stays = !is_ready || client.turn(&mut buffer, options) == Fate::Stays;
            has_answered |= client.has_answered;
            stays
        });
        if options.own.once && has_answered {
            break;
        }
        if !events[0].is_empty()
            && let Some(Accepted::Plain(socket)) = listener.accept()
        {
            clients.push(Client {
                socket,
                record: options.hello.then(Record::default),
                unsent: Vec::new(),
                sent_size: 0,
                has_unsent_packet: false,
                has_answered: false,
            });
        }
    }
    Ok(())
}

impl Client {
    fn interest(&self) -> PollFlags {
        if self.has_unsent() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn has_unsent(&self) -> bool {
        self.has_unsent_packet || self.sent_size < self.unsent.len()
    }

    /// Receives if everything was sent back, then sends.
    fn turn(&mut self, buffer: &mut [u8], options: &Options) -> Fate {
        let is_packet = options.protocol == Protocol::Packet;
        if self.record.is_some() {
            return self.receive_record(is_packet, options);
        }
        if !self.has_unsent() {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(0) if !is_packet || has_hung_up(self.socket.as_fd()) => return Fate::Leaves,
                Ok(size) => {
                    self.unsent.clear();
                    self.unsent.extend_from_slice(&buffer[..size]);
                    self.sent_size = 0;
                    self.has_unsent_packet = is_packet;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
                Err(_) => return Fate::Leaves,
            }
        }
        self.send()
    }

    fn receive_record(&mut self, is_packet: bool, options: &Options) -> Fate {
        let Some(record) = &mut self.record else { return Fate::Stays };
        match record.receive(self.socket.as_fd(), is_packet) {
            Ok(Some(hello)) => {
                // A closed standard output does not keep the server from serving.
                let _ = writeln!(stdout(), "{}", describe(&hello));
                self.record = None;
            }
            Ok(None) => {}
            Err(HelloError::Io(_)) => return Fate::Leaves,
            Err(error) => {
                options.complain(error);
                return Fate::Leaves;
            }
        }
        Fate::Stays
    }

    fn send(&mut self) -> Fate {
        while self.has_unsent() {
            match send(self.socket.as_raw_fd(), &self.unsent[self.sent_size..], MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => {
                    self.sent_size += size;
                    self.has_unsent_packet = false;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
                Err(_) => return Fate::Leaves,
            }
        }
        self.has_answered = true;
        Fate::Stays
    }
}
