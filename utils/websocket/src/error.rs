//! Errors of a client.

use std::fmt;

use nix::errno::Errno;
use rfc6455::close::CloseCode;
use rfc6455::header::ProtocolError;

/// Why receiving or sending failed. After all but `WouldBlock`, `Text` and `Argument` the conversation is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The call would block: wait for POLLIN to receive, for POLLOUT to send.
    WouldBlock,
    /// The client sent a close frame, which was answered (RFC 6455 section 5.5.1).
    Closed {
        /// None: the close frame had no code (1005).
        code: Option<CloseCode>,
        /// Often empty.
        reason: Box<str>,
    },
    /// The client violated the protocol, or its message was too long. A close frame was sent.
    Protocol(ProtocolError),
    /// The connection has ended. Without a `Closed` before it, the client sent no close frame.
    Ended,
    /// A text to be sent is not UTF-8.
    Text,
    /// The opcode is neither text nor binary, a ping has more than 125 bytes, or a close code may not be sent.
    Argument,
    /// A system call failed.
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
            // Sending after our close frame.
            Errno::EPIPE => Error::Ended,
            errno => Error::Io(errno),
        }
    }
}
