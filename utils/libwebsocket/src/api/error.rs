//! Error numbers of the C interface: negative errno(3) numbers, and numbers below -4095 of its own.

use std::ffi::{CStr, c_int};

use nix::errno::Errno;
use server::place::PlaceError;
use server::{AcceptError, Error};

/// WS_ECLOSED.
pub(crate) const CLOSED: c_int = -5001;
/// WS_EPROTOCOL.
pub(crate) const PROTOCOL: c_int = -5002;
/// WS_EENDED.
pub(crate) const ENDED: c_int = -5003;
/// WS_EPLAIN.
pub(crate) const PLAIN: c_int = -5004;
/// WS_EHANDOVER.
pub(crate) const HANDOVER: c_int = -5005;
/// WS_ETEXT.
pub(crate) const TEXT: c_int = -5006;

/// An error with a number for C callers.
pub(crate) trait Number {
    fn number(&self) -> c_int;
}

/// The number of an errno(3).
pub(crate) fn errno(errno: Errno) -> c_int {
    -(errno as c_int)
}

/// 0, or an error's number.
pub(crate) fn result_of(result: Result<(), Error>) -> c_int {
    result.map_or_else(|error| error.number(), |()| 0)
}

/// The message of one of our own numbers; None: not one of them.
pub(crate) fn sentence(number: c_int) -> Option<&'static CStr> {
    Some(match number {
        CLOSED => c"the client has closed the conversation",
        PROTOCOL => c"the client broke the protocol, or its message was too long",
        ENDED => c"the connection has ended",
        PLAIN => c"a plain local client was refused, since it passed no connection",
        HANDOVER => c"the descriptor handed over is not a client",
        TEXT => c"a text is not UTF-8",
        _ => return None,
    })
}

impl Number for Error {
    fn number(&self) -> c_int {
        match self {
            Error::WouldBlock => errno(Errno::EAGAIN),
            Error::Closed { .. } => CLOSED,
            Error::Protocol(_) => PROTOCOL,
            Error::Ended => ENDED,
            Error::Text => TEXT,
            Error::Argument => errno(Errno::EINVAL),
            Error::Io(number) => errno(*number),
        }
    }
}

impl Number for AcceptError {
    fn number(&self) -> c_int {
        match self {
            AcceptError::WouldBlock => errno(Errno::EAGAIN),
            AcceptError::Plain => PLAIN,
            AcceptError::Handover(_) => HANDOVER,
            AcceptError::Io(number) => errno(*number),
        }
    }
}

impl Number for PlaceError {
    fn number(&self) -> c_int {
        match self {
            PlaceError::Io(_, number) => errno(*number),
            PlaceError::NoSocket(_) => errno(Errno::ENOTSOCK),
            PlaceError::Taken(_) => errno(Errno::EADDRINUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_numbers_have_sentences_and_no_others() {
        for number in [CLOSED, PROTOCOL, ENDED, PLAIN, HANDOVER, TEXT] {
            assert!(sentence(number).is_some() && number < -4095, "{number} could be one of errno(3)");
        }
        for number in [0, -11, -5000, -5007, c_int::MIN] {
            assert_eq!(sentence(number), None);
        }
    }
}
