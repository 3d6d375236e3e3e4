//! Why a node gave no reply, or no whole one.

use std::fmt;

use crate::driver::SystemError;
use crate::http::response::ResponseError;
use crate::tls::{NodeFailure, TlsFailure};

/// What went wrong with a node. Display is the operator's sentence, without the node's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum UpstreamError {
    Unresolved,
    NotASocket,
    Unreachable(SystemError),
    ConnectTimeout,
    NoDescriptors,
    Ended,
    Failed(SystemError),
    Tls(TlsFailure),
    Silent,
    TakesNothing,
    Response(ResponseError),
    Chunks,
    TooManyInterims,
    NoHandshake,
    Cut,
}

impl UpstreamError {
    /// The HTTP status of the refusal that the client gets.
    pub fn status(self) -> u16 {
        match self {
            UpstreamError::ConnectTimeout | UpstreamError::Silent | UpstreamError::TakesNothing => 504,
            UpstreamError::NoDescriptors => 503,
            _ => 502,
        }
    }

    /// The sentence that the client gets, which tells nothing about the node's place.
    pub fn sentence(self) -> &'static str {
        match self {
            UpstreamError::Unresolved
            | UpstreamError::NotASocket
            | UpstreamError::Unreachable(_)
            | UpstreamError::Tls(_) => "the server cannot be connected",
            UpstreamError::ConnectTimeout => "the server does not accept",
            UpstreamError::NoDescriptors => "out of file descriptors",
            UpstreamError::Ended | UpstreamError::Failed(_) => "the server ended the connection without a reply",
            UpstreamError::Silent => "the server does not reply",
            UpstreamError::TakesNothing => "the server does not take the request",
            UpstreamError::Response(_) | UpstreamError::Chunks | UpstreamError::TooManyInterims => {
                "the server's reply is malformed"
            }
            UpstreamError::NoHandshake => "the server's reply does not complete the WebSocket handshake",
            UpstreamError::Cut => "the server's reply is incomplete",
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::Unresolved => f.write_str("its host has not been looked up yet"),
            UpstreamError::NotASocket => f.write_str("its path is not that of a socket"),
            UpstreamError::Unreachable(error) => write!(f, "it cannot be connected: {error}"),
            UpstreamError::ConnectTimeout => f.write_str("it does not accept in time (connect-ms)"),
            UpstreamError::NoDescriptors => f.write_str("out of file descriptors (ulimit -n)"),
            UpstreamError::Ended => f.write_str("it ended the connection without a reply"),
            UpstreamError::Failed(error) => write!(f, "its connection broke before the reply: {error}"),
            UpstreamError::Tls(failure) => NodeFailure { failure: *failure, name: None }.fmt(f),
            UpstreamError::Silent => f.write_str("it is silent for too long (answer-ms)"),
            UpstreamError::TakesNothing => f.write_str("it takes nothing of the request (stall-ms)"),
            UpstreamError::Response(error) => error.fmt(f),
            UpstreamError::Chunks => f.write_str("the chunks of its reply are malformed"),
            UpstreamError::TooManyInterims => f.write_str("it sent too many interim replies (1xx)"),
            UpstreamError::NoHandshake => {
                f.write_str("its reply does not complete the WebSocket handshake (RFC 6455 section 4.1)")
            }
            UpstreamError::Cut => f.write_str("it ended in the middle of its reply"),
        }
    }
}
