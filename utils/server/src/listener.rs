//! The listening socket of a server: accepted plain connections, or connections that the gateway hands over.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{Backlog, SockFlag, SockType, accept4, listen};
use websocket::deadline::Deadline;
use websocket::place::{PlaceError, listen_at};
use websocket::{AcceptError, Client, CloseCode};

use crate::limits::{ACCEPT_PAUSE_MS, BACKLOG_MAX, CLOSE_MS};
use crate::options::complain;

/// A socket that listens. Its file is removed when this is dropped.
pub struct Listener {
    program: &'static str,
    socket: Socket,
    pause: Option<Deadline>,
}

enum Socket {
    Plain(OwnedFd, PathBuf),
    Direct(websocket::Listener),
}

/// A new client.
pub enum Accepted {
    /// A connection of the gateway, or of another program on this machine. It does not block.
    Plain(OwnedFd),
    /// A client's own connection, handed over by the gateway. It does not block.
    Direct(Box<Client>),
}

impl Listener {
    /// Listens for plain connections.
    pub(crate) fn plain(program: &'static str, path: &Path, kind: SockType, mode: u32) -> Result<Listener, PlaceError> {
        let socket = listen_at(path, kind, mode, BACKLOG_MAX)?;
        Ok(Listener { program, socket: Socket::Plain(socket, path.to_owned()), pause: None })
    }

    /// Listens for connections that the gateway hands over.
    pub(crate) fn direct(
        program: &'static str,
        path: &Path,
        mode: u32,
        message_size_max: usize,
    ) -> Result<Listener, PlaceError> {
        let options = websocket::Options { mode, backlog: BACKLOG_MAX, message_size_max };
        let mut listener = websocket::Listener::bind(path, &options)?;
        listener.set_nonblocking(true);
        Ok(Listener { program, socket: Socket::Direct(listener), pause: None })
    }

    /// Calls listen(2) again, so that SO_PEERCRED names this process after a fork(2).
    pub(crate) fn listen(&self) -> Result<(), Errno> {
        let socket = match &self.socket {
            Socket::Plain(socket, _) => socket.as_fd(),
            Socket::Direct(listener) => listener.socket(),
        };
        listen(&socket, Backlog::new(BACKLOG_MAX)?)
    }

    /// End of a pause of accepting, after file descriptors or memory ran out. Clients wait in the backlog until then.
    pub fn deadline(&self) -> Option<Deadline> {
        self.pause.filter(|pause| !pause.is_over())
    }

    /// Events to wait for. `has_room`: the server can serve another client.
    pub fn interest(&self, has_room: bool) -> PollFlags {
        if has_room && self.deadline().is_none() { PollFlags::POLLIN } else { PollFlags::empty() }
    }

    /// Accepts the next client without blocking. None: there is none now, or the pause begins. An invalid hand-over is
    /// reported on standard error.
    pub fn accept(&mut self) -> Option<Accepted> {
        loop {
            let accepted = match &mut self.socket {
                Socket::Plain(socket, _) => accept(socket.as_fd()).map(Accepted::Plain).map_err(AcceptError::Io),
                Socket::Direct(listener) => listener.accept().map(|mut client| {
                    client.set_nonblocking(true);
                    Accepted::Direct(Box::new(client))
                }),
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(AcceptError::Io(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
                    self.pause = Some(Deadline::after_ms(ACCEPT_PAUSE_MS));
                    return None;
                }
                Err(AcceptError::WouldBlock | AcceptError::Io(_)) => return None,
                Err(error) => complain(self.program, error),
            }
        }
    }
}

impl AsFd for Listener {
    /// The descriptor to wait for. In direct mode it is not the socket, which does not report a late hand-over.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Plain(socket, _) => socket.as_fd(),
            Socket::Direct(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A listener of direct mode removes its own file.
        if let Socket::Plain(_, path) = &self.socket {
            // Another program may have removed it already.
            let _ = fs::remove_file(path);
        }
    }
}

fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let fd = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just returned this fd, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a close frame to each client, then waits for all close handshakes, for `CLOSE_MS` at most.
pub fn close_all(mut clients: Vec<Box<Client>>, code: CloseCode) {
    let deadline = Deadline::after_ms(CLOSE_MS);
    for client in &mut clients {
        // It fails where the client has already gone.
        let _ = client.close(code, "");
    }
    for client in clients {
        client.finish(deadline.timeout().as_millis().unwrap_or_default());
    }
}
