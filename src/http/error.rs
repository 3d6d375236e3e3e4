//! Errors of request heads.

use std::fmt;

use crate::limits::TARGET_SIZE_MAX;

/// Why a request is refused. Display is the operator's sentence and the reply's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum HeadError {
    NotHttp,
    Tls,
    ProxyProtocol,
    HttpVersion,
    TargetTooLong,
    /// The limit in bytes.
    TooLarge(u64),
    /// The limit.
    TooManyHeaders(u64),
    Host,
    OtherHost,
    Target,
    Framing,
    Coding,
    Chunks,
    Expectation,
}

impl HeadError {
    /// The HTTP status of the refusal.
    pub fn status(self) -> u16 {
        match self {
            HeadError::TargetTooLong => 414,
            HeadError::Expectation => 417,
            HeadError::TooLarge(_) | HeadError::TooManyHeaders(_) => 431,
            HeadError::Coding => 501,
            HeadError::HttpVersion => 505,
            HeadError::NotHttp
            | HeadError::Tls
            | HeadError::ProxyProtocol
            | HeadError::Host
            | HeadError::OtherHost
            | HeadError::Target
            | HeadError::Framing
            | HeadError::Chunks => 400,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::NotHttp => f.write_str("this is not an HTTP/1.1 request"),
            HeadError::Tls => {
                f.write_str("this is a TLS handshake on a plain port: use http: and ws:, or put a TLS proxy in front")
            }
            HeadError::ProxyProtocol => f.write_str(
                "this is the PROXY protocol, which is not read here: switch it off in the proxy (send-proxy, proxy_protocol)",
            ),
            HeadError::HttpVersion => f.write_str("only HTTP/1.x is spoken here"),
            HeadError::TargetTooLong => write!(f, "the request target is over {TARGET_SIZE_MAX} bytes"),
            HeadError::TooLarge(most) => write!(f, "the request head is over {most} bytes"),
            HeadError::TooManyHeaders(most) => write!(f, "the request has over {most} headers"),
            HeadError::Host => f.write_str("a request needs exactly one valid Host header"),
            HeadError::OtherHost => f.write_str("the request target names another host than the Host header"),
            HeadError::Target => f.write_str("the request target is not a path"),
            HeadError::Framing => f.write_str("the request's Content-Length or Transfer-Encoding is ambiguous"),
            HeadError::Coding => f.write_str("chunked is the only Transfer-Encoding that is read here"),
            HeadError::Chunks => f.write_str("the chunks of the request's body are malformed"),
            HeadError::Expectation => f.write_str("100-continue is the only expectation that is known here"),
        }
    }
}
