//! What failed, in the words of those who have to decide something; the kernel's own number is kept for the log.

use std::fmt;

use super::Errno;

/// An error of a system call. Display is its description (errno(3)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemError(Errno);

impl SystemError {
    /// A packet was larger than the buffer (recv(2), EMSGSIZE).
    pub const MESSAGE_TOO_LARGE: SystemError = SystemError(Errno::EMSGSIZE);
    /// The peer has closed (send(2), EPIPE).
    pub const BROKEN_PIPE: SystemError = SystemError(Errno::EPIPE);
}

impl From<Errno> for SystemError {
    fn from(errno: Errno) -> SystemError {
        SystemError(errno)
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.desc())
    }
}

/// Why a path could not be opened (openat2(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenError {
    /// What it means.
    pub cause: OpenCause,
    /// What the kernel said.
    pub error: SystemError,
}

/// What a failed open means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenCause {
    /// Nothing has this name.
    NotFound,
    /// It is a socket, or a pipe without a reader, and was to be read or written.
    NoPeer,
    /// The path leads out of its folder, or may not be opened.
    Forbidden,
    /// There are no file descriptors left.
    NoDescriptors,
    /// It failed for a moment, several times.
    TryAgain,
    /// Somebody else has it.
    Busy,
    /// Anything else.
    Other,
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        let cause = match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => OpenCause::NotFound,
            Errno::ENXIO => OpenCause::NoPeer,
            Errno::EXDEV | Errno::ELOOP | Errno::EACCES | Errno::EPERM => OpenCause::Forbidden,
            Errno::EMFILE | Errno::ENFILE => OpenCause::NoDescriptors,
            Errno::EAGAIN | Errno::EINTR => OpenCause::TryAgain,
            Errno::EBUSY => OpenCause::Busy,
            _ => OpenCause::Other,
        };
        OpenError { cause, error: errno.into() }
    }
}

/// Why a backend could not be connected, or a client not be handed over (connect(2), send(2), unix(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectError {
    /// What it means.
    pub cause: ConnectCause,
    /// What the kernel said.
    pub error: SystemError,
}

/// What a failed connect or hand-over means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectCause {
    /// The socket is of the other type.
    WrongType,
    /// There is no room: in the socket's backlog, or for the reply to the client.
    NoRoom,
    /// There are no file descriptors left.
    NoDescriptors,
    /// It was ended before it was done.
    Cancelled,
    /// Too many descriptors were passed and not received (unix(7), ETOOMANYREFS).
    TooManyUntaken,
    /// Anything else.
    Other,
}

impl From<Errno> for ConnectError {
    fn from(errno: Errno) -> ConnectError {
        let cause = match errno {
            Errno::EPROTOTYPE => ConnectCause::WrongType,
            Errno::EAGAIN => ConnectCause::NoRoom,
            Errno::EMFILE | Errno::ENFILE => ConnectCause::NoDescriptors,
            Errno::ECANCELED => ConnectCause::Cancelled,
            Errno::ETOOMANYREFS => ConnectCause::TooManyUntaken,
            _ => ConnectCause::Other,
        };
        ConnectError { cause, error: errno.into() }
    }
}
