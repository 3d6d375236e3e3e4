//! The listening socket: the gateway connects to the server's socket file once for each client that it hands over.

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

/// Epoll data of the socket and the timer; connections that wait for their hand-over have higher numbers.
const SOCKET: u64 = 0;
const TIMER: u64 = 1;

/// Options of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Mode of the socket file: write permission is needed to connect.
    pub mode: u32,
    /// The listen(2) backlog.
    pub backlog: i32,
    /// Bytes of a client's message; a longer one is closed with 1009.
    pub message_size_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { mode: 0o777, backlog: BACKLOG_MAX, message_size_max: MESSAGE_SIZE_MAX }
    }
}

/// Why accepting a client failed. The listener remains usable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptError {
    /// No client: wait until the listener is readable.
    WouldBlock,
    /// A plain local client connected and passed no descriptor. Its connection was closed.
    Plain,
    /// The hand-over was invalid.
    Handover(HandoverError),
    /// A system call failed. EMFILE, ENFILE, ENOMEM and ENOBUFS will repeat at once: pause.
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

/// An accepted connection without a hand-over yet.
#[derive(Debug)]
struct Silent {
    number: u64,
    connection: OwnedFd,
    deadline: Deadline,
}

/// A server's listening socket. Dropping it removes its file, unless the file was replaced.
#[derive(Debug)]
pub struct Listener {
    /// Watches the socket, the silent connections and the timer, so that one descriptor becomes readable for all.
    epoll: Epoll,
    socket: OwnedFd,
    /// Connections without a hand-over yet, oldest first, so in the order of their numbers.
    silent: Vec<Silent>,
    /// The number of the newest connection.
    newest: u64,
    /// Expires at the deadline of the oldest silent connection.
    timer: TimerFd,
    /// The socket is not watched: new connections wait in the backlog.
    is_full: bool,
    options: Options,
    is_nonblocking: bool,
    path: PathBuf,
    /// Device and inode of the socket file; None: it was already gone.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Creates the socket file `path` and listens. A stale file is replaced; one with a listening server is not.
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

    /// In non-blocking mode, `accept` returns `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&mut self, is_nonblocking: bool) {
        self.is_nonblocking = is_nonblocking;
    }

    /// Sets the message limit, in bytes, of clients accepted from now on.
    pub fn set_message_size_max(&mut self, message_size_max: usize) {
        self.options.message_size_max = message_size_max;
    }

    /// The listening socket, for example to call listen(2) again after fork(2). For poll(2) use the listener itself.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next client, in blocking mode even if the listener is non-blocking. While a connection waits for its
    /// hand-over, others are accepted. One without a hand-over after 5 s is refused as a plain local client.
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

    /// The next event's number. The kernel's ready list is fair: a reported descriptor moves to its end.
    fn next_event(&self) -> Result<Option<u64>, AcceptError> {
        let mut events = [EpollEvent::empty()];
        match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => Ok(Some(events[0].data())),
            Err(errno) => Err(errno.into()),
        }
    }

    /// None: the connection is gone, or has no hand-over yet.
    fn accept_connection(&mut self) -> Result<Option<Client>, AcceptError> {
        let connection = match accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            Ok(number) => own(number),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        self.newest += 1;
        self.take_over(self.newest, connection, Deadline::after_ms(HANDOVER_MS.into()))
    }

    /// A silent connection is readable. Closing it removes it from the epoll set.
    fn end_of_silence(&mut self, number: u64) -> Result<Option<Client>, AcceptError> {
        match self.silent.iter().position(|silent| silent.number == number) {
            Some(place) => {
                let Silent { connection, deadline, .. } = self.silent.remove(place);
                self.take_over(number, connection, deadline)
            }
            None => Ok(None),
        }
    }

    /// None: no hand-over yet; the connection is kept. It is also kept if no descriptor is free for the client, and
    /// then accepting stops, so that no new connection takes the next free one.
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

    /// The timer has expired. If the connection it was set for is gone, it is set for the next.
    fn refuse_the_oldest(&mut self) -> Result<Option<Client>, AcceptError> {
        let is_over = self.silent.first().is_some_and(|oldest| oldest.deadline.is_over());
        let refused = is_over.then(|| self.silent.remove(0));
        self.set_full(self.silent.len() >= SILENT_MAX)?;
        self.set_timer()?;
        refused.map_or(Ok(None), |_| Err(AcceptError::Plain))
    }

    /// Sets the timer for the oldest connection. Setting it clears the expiration.
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
    /// For poll(2), select(2) and epoll(7): readable when `accept` would not block. It is not the socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if now.is_some() && now == self.file {
            // Fails if the process has dropped its privileges.
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
