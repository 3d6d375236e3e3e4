//! Where clients come in: the gateway connects to the server's socket file, and hands one over with each connection.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{SockFlag, SockType, accept4};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::handover::{self, HandoverError, Received};
use crate::limits::{BACKLOG_MAX, HANDOVER_MS, MESSAGE_SIZE_MAX, SILENT_MAX};
use crate::place::{self, PlaceError};

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

/// A server's socket. Dropped, it takes its file away, unless the file is another's by now.
#[derive(Debug)]
pub struct Listener {
    /// The socket and the silent connections, so that one descriptor tells of all of them.
    epoll: Epoll,
    socket: OwnedFd,
    /// Accepted, but the gateway's message has not come yet; the oldest first.
    silent: VecDeque<(OwnedFd, Deadline)>,
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
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        let file = fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let silent = VecDeque::new();
        Ok(Listener { epoll, socket, silent, options: *options, is_nonblocking: false, path: path.to_owned(), file })
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
            if let Some(client) = self.one_of_the_silent()? {
                return Ok(client);
            }
            match self.accept_connection() {
                Ok(Some(client)) => return Ok(client),
                Ok(None) => {}
                Err(AcceptError::WouldBlock) if !self.is_nonblocking => self.wait()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// None: the connection is silent, and waits with the others.
    fn accept_connection(&mut self) -> Result<Option<Client>, AcceptError> {
        let connection = match accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            Ok(number) => own(number),
            Err(Errno::EINTR | Errno::ECONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let client = self.take_over(&connection)?;
        if client.is_none() {
            self.epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
            self.silent.push_back((connection, Deadline::after_ms(HANDOVER_MS.into())));
        }
        Ok(client)
    }

    fn one_of_the_silent(&mut self) -> Result<Option<Client>, AcceptError> {
        let mut index = 0;
        while let Some((connection, deadline)) = self.silent.get(index) {
            match self.take_over(connection) {
                Ok(None) if deadline.is_over() || self.silent.len() > SILENT_MAX => {
                    self.silent.remove(index);
                    return Err(AcceptError::Plain);
                }
                Ok(None) => index += 1,
                other => {
                    // Closed, it leaves the epoll set.
                    self.silent.remove(index);
                    return other;
                }
            }
        }
        Ok(None)
    }

    /// None: nothing has come yet.
    fn take_over(&self, connection: &OwnedFd) -> Result<Option<Client>, AcceptError> {
        match handover::receive(connection.as_fd(), 0).map_err(AcceptError::Handover)? {
            Received::Client(handed) => Ok(Some(Client::new(handed, self.options.message_size_max))),
            Received::Plain => Err(AcceptError::Plain),
            Received::Nothing => Ok(None),
        }
    }

    /// Until somebody comes, something comes from the silent, or the time of the oldest of them is over.
    fn wait(&self) -> Result<(), AcceptError> {
        let deadline = self.silent.front().map_or(Deadline::never(), |(_, deadline)| *deadline);
        deadline.wait(self.as_fd(), nix::poll::PollFlags::POLLIN)?;
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
