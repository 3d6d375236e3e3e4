//! Why a client gives or takes no message.

use std::fmt;

use nix::errno::Errno;
use rfc6455::close::CloseCode;
use rfc6455::header::ProtocolError;

/// Why a client gives or takes no message. But for `WouldBlock`, `Text` and `Argument` the conversation is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not now: wait until the client is readable, or writable where something was to be sent.
    WouldBlock,
    /// The client sent a close frame, which was answered (RFC 6455 section 5.5.1).
    Closed {
        /// Its code; None where it had none.
        code: Option<CloseCode>,
        /// Its reason, often empty.
        reason: Box<str>,
    },
    /// The client broke the protocol, or its message was too long, and was told so by a close frame.
    Protocol(ProtocolError),
    /// The connection has ended. Before a `Closed` it ended without a word.
    Ended,
    /// A text to be sent is not UTF-8.
    Text,
    /// Neither text nor binary was to be sent, more than 125 bytes in a ping, or a close code that may not be sent.
    Argument,
    /// The connection broke.
    Io(Errno),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::WouldBlock => f.write_str("the client is to be waited for"),
            Error::Closed { code: Some(code), reason } => write!(f, "the client closed with {code} {reason:?}"),
            Error::Closed { code: None, .. } => f.write_str("the client closed without a code"),
            Error::Protocol(error) => write!(f, "the client broke the protocol: {error}"),
            Error::Ended => f.write_str("the connection has ended"),
            Error::Text => f.write_str("a text to be sent is not UTF-8"),
            Error::Argument => f.write_str("this cannot be sent"),
            Error::Io(errno) => write!(f, "the connection broke: {}", errno.desc()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        match errno {
            Errno::EAGAIN => Error::WouldBlock,
            // Asked for after a close frame was.
            Errno::EPIPE => Error::Ended,
            errno => Error::Io(errno),
        }
    }
}
