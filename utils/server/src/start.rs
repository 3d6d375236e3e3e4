//! From options to a listening socket: folder, socket file, background, user, signals.

use std::ffi::CString;
use std::fs;
use std::io::{Write, stdout};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::SockType;
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setuid};

use crate::background::Background;
use crate::listener::Listener;
use crate::options::{Options, Protocol};
use crate::stop;

impl<T> Options<T> {
    /// Blocks the stop signals, creates the socket (a stale one is replaced, one that a server listens on is not), goes to
    /// the background and becomes the user if asked to, and prints where the server listens. In the background,
    /// the parent process exits only after that. The error is the operator's sentence.
    pub fn listen(&self) -> Result<Listener, String> {
        raise_fd_limit();
        let (program, path) = (self.program.name, make_folder(&self.root)?.join(&self.name));
        // Before the socket exists: a client that has connected may stop the server, which must then remove its file.
        stop::block()?;
        let kind = if self.protocol == Protocol::Packet { SockType::SeqPacket } else { SockType::Stream };
        let opened = match self.program.direct_message_size_max {
            Some(message_size_max) if self.is_direct => Listener::direct(program, &path, self.mode, message_size_max),
            _ => Listener::plain(program, &path, kind, self.mode),
        };
        let listener = opened.map_err(|error| error.to_string())?;
        let background = if self.daemonize { Some(Background::enter()?) } else { None };
        if background.is_some() {
            listener.listen().map_err(|errno| format!("-D: {}", errno.desc()))?;
        }
        if let Some(user) = &self.user {
            become_user(user)?;
        }
        // A closed standard output does not keep the server from serving. The newline flushes.
        let _ = writeln!(stdout(), "{program}: listening on {}", path.display());
        background.map_or(Ok(()), Background::announce)?;
        Ok(listener)
    }
}

fn make_folder(root: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(root);
    match fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder) {
        // Absolute, since -D changes the working directory.
        Ok(()) => folder.canonicalize().map_err(|error| format!("-R {root}: {error}")),
        Err(error) => Err(format!("-R {root}: {error}: give a folder that can be created")),
    }
}

fn raise_fd_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If it fails there is room for fewer clients; the others wait in the backlog.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Changes to this user, its group and its supplementary groups. The error is the operator's sentence.
pub fn become_user(name: &str) -> Result<(), String> {
    let failed = |errno: Errno| format!("-u {name}: {}: start as root, or leave -u out", errno.desc());
    let user = User::from_name(name).map_err(failed)?.ok_or_else(|| format!("-u {name}: there is no such user"))?;
    if Uid::effective() == user.uid && Gid::effective() == user.gid {
        return Ok(());
    }
    let c_name = CString::new(name).map_err(|_| format!("-u {name:?}: a name has no NUL in it"))?;
    initgroups(&c_name, user.gid).map_err(failed)?;
    setgid(user.gid).map_err(failed)?;
    setuid(user.uid).map_err(failed)
}
