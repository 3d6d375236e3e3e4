//! Errors by cause, for the code that has to decide; the errno is kept for the log.

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
    /// The cause that decides the reaction.
    pub cause: OpenCause,
    /// The error of the system call, for the log.
    pub error: SystemError,
}

/// The cause of a failed open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenCause {
    /// No file has this name.
    NotFound,
    /// A socket, or a pipe without a reader, was opened for reading or writing (open(2), ENXIO).
    NoPeer,
    /// The path leads out of its folder, or permissions forbid the open.
    Forbidden,
    /// The limit of open file descriptors is reached.
    NoDescriptors,
    /// A transient failure, after several tries.
    TryAgain,
    /// The device is in exclusive use (EBUSY).
    Busy,
    /// Any other error.
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

/// Why a backend could not be connected, or a client could not be handed over (connect(2), send(2), unix(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectError {
    /// The cause that decides the reaction.
    pub cause: ConnectCause,
    /// The error of the system call, for the log.
    pub error: SystemError,
}

/// The cause of a failed connect or hand-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectCause {
    /// The socket has the other type: stream instead of packets, or the reverse (EPROTOTYPE).
    WrongType,
    /// No space in the socket's backlog, or in the send buffer for the reply to the client.
    NoRoom,
    /// The limit of open file descriptors is reached.
    NoDescriptors,
    /// The operation was cancelled.
    Cancelled,
    /// Too many descriptors were passed and not received (unix(7), ETOOMANYREFS).
    TooManyUntaken,
    /// Any other error.
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
