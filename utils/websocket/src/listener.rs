//! Where clients come in: the gateway connects to the server's socket file, and hands one over with each connection.

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{SockFlag, SockType, accept4};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::handover::{self, HandoverError, Received};
use crate::limits::{BACKLOG_MAX, HANDOVER_MS, MESSAGE_SIZE_MAX, SILENT_MAX};
use crate::place::{self, PlaceError};

/// The numbers of the socket and of the timer in the epoll set; those of silent connections begin behind them.
const SOCKET: u64 = 0;
const TIMER: u64 = 1;

/// How to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Access rights of the socket file: who may write to it may be a client.
    pub mode: u32,
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// Bytes of a client's message; who sends a longer one is closed with 1009.
    pub message_size_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { mode: 0o777, backlog: BACKLOG_MAX, message_size_max: MESSAGE_SIZE_MAX }
    }
}

/// Why there is no client. The listener is as good as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptError {
    /// Nobody is there: wait until the listener is readable.
    WouldBlock,
    /// A plain local client came, which passed no connection. It was closed: here is WebSocket alone.
    Plain,
    /// Something was handed over that is no client.
    Handover(HandoverError),
    /// The kernel gives no client. With EMFILE and the like it would come again at once: pause.
    Io(Errno),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptError::WouldBlock => f.write_str("no client is there"),
            AcceptError::Plain => f.write_str("a plain local client was refused: is this server's mode not direct?"),
            AcceptError::Handover(error) => error.fmt(f),
            AcceptError::Io(errno) => write!(f, "no client can be accepted: {}", errno.desc()),
        }
    }
}

impl std::error::Error for AcceptError {}

impl From<Errno> for AcceptError {
    fn from(errno: Errno) -> AcceptError {
        match errno {
            Errno::EAGAIN => AcceptError::WouldBlock,
            errno => AcceptError::Io(errno),
        }
    }
}

/// A connection on which nothing has come yet.
#[derive(Debug)]
struct Silent {
    number: u64,
    connection: OwnedFd,
    deadline: Deadline,
}

/// A server's socket. Dropped, it takes its file away, unless the file is another's by now.
#[derive(Debug)]
pub struct Listener {
    /// The socket, the silent connections and the timer, so that one descriptor tells of all of them.
    epoll: Epoll,
    socket: OwnedFd,
    /// Accepted, but the gateway's message has not come yet: the oldest first, so that their numbers rise.
    silent: Vec<Silent>,
    /// The number of the newest.
    newest: u64,
    /// When the oldest has been silent for too long.
    timer: TimerFd,
    /// Whoever comes now waits in the backlog.
    is_full: bool,
    options: Options,
    is_nonblocking: bool,
    path: PathBuf,
    /// The device and the number of the file.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Makes the socket file `path` and listens. A file that a server left is replaced; one that a server listens on
    /// is not.
    pub fn bind(path: &Path, options: &Options) -> Result<Listener, PlaceError> {
        let socket = place::listen_at(path, SockType::Stream, options.mode, options.backlog)?;
        Listener::new(socket, path, options).map_err(|errno| PlaceError::Io(path.to_owned(), errno))
    }

    fn new(socket: OwnedFd, path: &Path, options: &Options) -> Result<Listener, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let file = fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        Ok(Listener {
            epoll,
            socket,
            silent: Vec::new(),
            newest: TIMER,
            timer,
            is_full: false,
            options: *options,
            is_nonblocking: false,
            path: path.to_owned(),
            file,
        })
    }

    /// Whether `accept` returns `WouldBlock` where it would have to wait.
    pub fn set_nonblocking(&mut self, is_nonblocking: bool) {
        self.is_nonblocking = is_nonblocking;
    }

    /// How many bytes a message of those may have who are accepted from now on.
    pub fn set_message_size_max(&mut self, message_size_max: usize) {
        self.options.message_size_max = message_size_max;
    }

    /// The listening socket itself, for example to listen(2) again after fork(2). For poll(2) use the listener.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next client. It blocks, whatever the listener does. Between connection and hand-over a moment may pass, in
    /// which other clients are accepted; a connection that is silent for 5 s is a plain local client.
    pub fn accept(&mut self) -> Result<Client, AcceptError> {
        loop {
            let client = match self.next_event()? {
                Some(SOCKET) => self.accept_connection()?,
                Some(TIMER) => self.refuse_the_oldest()?,
                Some(number) => self.end_of_silence(number)?,
                None if self.is_nonblocking => return Err(AcceptError::WouldBlock),
                None => {
                    Deadline::never().wait(self.as_fd(), PollFlags::POLLIN)?;
                    None
                }
            };
            if let Some(client) = client {
                return Ok(client);
            }
        }
    }

    /// What the epoll set has to tell. It takes turns: what it told of comes behind all else.
    fn next_event(&self) -> Result<Option<u64>, AcceptError> {
        let mut events = [EpollEvent::empty()];
        match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => Ok(Some(events[0].data())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// None: nobody is there any more, or the connection is silent, and waits with the others.
    fn accept_connection(&mut self) -> Result<Option<Client>, AcceptError> {
        let connection = match accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            Ok(number) => own(number),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        self.newest += 1;
        self.take_over(self.newest, connection, Deadline::after_ms(HANDOVER_MS.into()))
    }

    /// Something came, or the end. Closed, the connection leaves the epoll set.
    fn end_of_silence(&mut self, number: u64) -> Result<Option<Client>, AcceptError> {
        match self.silent.iter().position(|silent| silent.number == number) {
            Some(place) => {
                let Silent { connection, deadline, .. } = self.silent.remove(place);
                self.take_over(number, connection, deadline)
            }
            None => Ok(None),
        }
    }

    /// None: nothing has come yet, and the connection waits with the other silent ones. So does one whose client
    /// finds no descriptor free, and then none is accepted that might take the next.
    fn take_over(
        &mut self,
        number: u64,
        connection: OwnedFd,
        deadline: Deadline,
    ) -> Result<Option<Client>, AcceptError> {
        let mut is_starved = false;
        let result = match handover::receive(connection.as_fd(), 0) {
            Ok(Received::Client(handed)) => Ok(Some(Client::new(handed, self.options.message_size_max))),
            Ok(Received::Plain) => Err(AcceptError::Plain),
            Ok(Received::Nothing) => self.keep(number, connection, deadline).map(|()| None),
            Err(HandoverError::Io(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS))) => {
                is_starved = true;
                self.keep(number, connection, deadline).and(Err(errno.into()))
            }
            Err(error) => Err(AcceptError::Handover(error)),
        };
        self.set_full(is_starved || self.silent.len() >= SILENT_MAX)?;
        result
    }

    fn keep(&mut self, number: u64, connection: OwnedFd, deadline: Deadline) -> Result<(), AcceptError> {
        match self.epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, number)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let place = self.silent.partition_point(|silent| silent.number < number);
        self.silent.insert(place, Silent { number, connection, deadline });
        if self.silent.len() == 1 {
            self.set_timer()?;
        }
        Ok(())
    }

    fn set_full(&mut self, is_full: bool) -> Result<(), AcceptError> {
        if is_full != self.is_full {
            let events = if is_full { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
            self.epoll.modify(&self.socket, &mut EpollEvent::new(events, SOCKET))?;
            self.is_full = is_full;
        }
        Ok(())
    }

    /// The oldest may have spoken since the timer was set: then it is set for the next.
    fn refuse_the_oldest(&mut self) -> Result<Option<Client>, AcceptError> {
        let is_over = self.silent.first().is_some_and(|oldest| oldest.deadline.is_over());
        let refused = is_over.then(|| self.silent.remove(0));
        self.set_full(self.silent.len() >= SILENT_MAX)?;
        self.set_timer()?;
        refused.map_or(Ok(None), |_| Err(AcceptError::Plain))
    }

    /// Setting it takes back what it has told.
    fn set_timer(&self) -> Result<(), AcceptError> {
        match self.silent.first() {
            Some(oldest) => {
                let left = Duration::from_millis(oldest.deadline.timeout().as_millis().unwrap_or(0).max(1).into());
                self.timer.set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty())?;
            }
            None => self.timer.unset()?,
        }
        Ok(())
    }
}

impl AsFd for Listener {
    /// For poll(2) and the like: readable when `accept` has something to say. It is not the socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if now.is_some() && now == self.file {
            // Who became another user may not.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn own(number: i32) -> OwnedFd {
    // SAFETY: accept4 has just made this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests;
