//! From options to a socket that listens, as the user that was asked for.

use std::fs;
use std::io::{Write, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, MsgFlags, SockFlag, SockType, accept4, listen, recv};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setuid};
use websocket::Listener;
use websocket::place::listen_at;

use crate::background::Background;
use crate::limits::BACKLOG_MAX;
use crate::stop;

/// What the options say.
#[derive(Clone, Copy, Debug)]
pub struct Start<'o> {
    /// The program's name, for the line that says where it listens.
    pub program: &'o str,
    /// Folder of the socket, made if missing.
    pub root: &'o str,
    /// Name of the socket.
    pub name: &'o str,
    /// Access rights of the socket.
    pub mode: u32,
    /// User to become.
    pub user: Option<&'o str>,
    /// Whether to run in the background.
    pub daemonize: bool,
    /// How clients come.
    pub way: Way,
}

/// How clients come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// As plain connections, of the gateway or of others on this machine.
    Plain(SockType),
    /// The gateway hands their own connections over. Their messages have so many bytes at most.
    Direct(usize),
}

/// Where clients come in.
pub enum Entrance {
    /// A socket of `Way::Plain`; it does not block.
    Plain(OwnedFd),
    /// A listener of `Way::Direct`.
    Direct(Listener),
}

impl AsFd for Entrance {
    /// To wait for clients. Of a listener it is not the socket, which does not tell of a hand-over that comes late.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Entrance::Plain(socket) => socket.as_fd(),
            Entrance::Direct(listener) => listener.as_fd(),
        }
    }
}

impl Entrance {
    fn start_listening(&self) -> Result<(), Errno> {
        let socket = match self {
            Entrance::Plain(socket) => socket.as_fd(),
            Entrance::Direct(listener) => listener.socket(),
        };
        listen(&socket, Backlog::new(BACKLOG_MAX)?)
    }
}

/// The file of a plain socket, which is removed when this is dropped. A listener takes its own away.
#[derive(Debug)]
pub struct SocketFile(Option<PathBuf>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may have been removed already.
            let _ = fs::remove_file(path);
        }
    }
}

impl Start<'_> {
    /// Takes the socket's place (a stale socket is replaced, a live one is not stolen), goes to the background and
    /// becomes the user, as asked for, blocks the signals that stop a server, and says where it listens. Only then does
    /// the process that was started end, if this one is in the background. The error is the operator's sentence.
    pub fn start(&self) -> Result<(Entrance, SocketFile), String> {
        raise_fd_limit();
        let path = make_folder(self.root)?.join(self.name);
        let opened = match self.way {
            Way::Plain(socket_type) => listen_at(&path, socket_type, self.mode, BACKLOG_MAX).map(Entrance::Plain),
            Way::Direct(message_size_max) => {
                let how = websocket::Options { mode: self.mode, backlog: BACKLOG_MAX, message_size_max };
                Listener::bind(&path, &how).map(Entrance::Direct)
            }
        };
        let entrance = opened.map_err(|error| error.to_string())?;
        let file = SocketFile(matches!(entrance, Entrance::Plain(_)).then(|| path.clone()));
        let background = if self.daemonize { Some(Background::enter()?) } else { None };
        if background.is_some() {
            // Once more, so that SO_PEERCRED names this process and not the parent that ends.
            entrance.start_listening().map_err(|errno| format!("-D: {}", errno.desc()))?;
        }
        if let Some(user) = self.user {
            become_user(user)?;
        }
        stop::block()?;
        // Standard output that nobody reads is no reason not to serve. A line is flushed at its end.
        let _ = writeln!(stdout(), "{}: listening on {}", self.program, path.display());
        background.map_or(Ok(()), Background::announce)?;
        Ok((entrance, file))
    }
}

/// Takes the next client of a plain socket. It does not block.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just made this fd, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether there is no room for another client, who would come again at once: accept none for `ACCEPT_PAUSE_MS`.
pub fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
}

/// Tells the end of the packets from an empty packet, where recv(2) has returned 0.
pub fn has_hung_up(packets: BorrowedFd<'_>) -> bool {
    // A packet behind the empty one tells that it was no end, whatever the peer did since.
    if !matches!(recv(packets.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT), Ok(0)) {
        return false;
    }
    let peer_ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    let mut fds = [PollFd::new(packets, peer_ended)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

fn make_folder(root: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(root);
    match fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder) {
        // Absolute, since -D goes to another folder.
        Ok(()) => folder.canonicalize().map_err(|error| format!("-R {root}: {error}")),
        Err(error) => Err(format!("-R {root}: {error}: name a folder that may be made")),
    }
}

fn raise_fd_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it there is room for fewer clients; the others wait.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Gives up the rights of the user who started the server for those of this one. The error is the operator's sentence.
pub fn become_user(name: &str) -> Result<(), String> {
    let failed = |errno: Errno| format!("-u {name}: {}: start as root, or leave it out", errno.desc());
    let user = User::from_name(name).map_err(failed)?.ok_or_else(|| format!("-u {name}: there is no such user"))?;
    if Uid::effective() == user.uid && Gid::effective() == user.gid {
        return Ok(());
    }
    let c_name = std::ffi::CString::new(name).map_err(|_| format!("-u {name:?} has a NUL in it"))?;
    initgroups(&c_name, user.gid).map_err(failed)?;
    setgid(user.gid).map_err(failed)?;
    setuid(user.uid).map_err(failed)
}
