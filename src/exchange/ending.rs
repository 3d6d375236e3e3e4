//! Why a connection ended, and the sentence that the log shows. A normal end is a reason, not an error.

use std::fmt;

use crate::access::AccessError;
use crate::clients::header::HeaderError;
use crate::driver::{ConnectCause, ConnectError, OpenCause, OpenError, SystemError};
use crate::http::head::HeadError;
use crate::http::upgrade::UpgradeError;
use crate::limits::LINE_SIZE_MAX;
use crate::observe::log::Level;
use crate::tls::{NodeFailure, TlsFailure};
use crate::upstream::UpstreamError;
use rfc6455::close::CloseCode;
use rfc6455::header::ProtocolError;

/// The step that timed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Step {
    Header,
    Tls,
    Head,
    Body,
    Request,
    Reply,
    Connect,
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Ending {
    Served,
    Probed,
    SaidNothing,
    HttpClientLeft,
    ClientClosed(Option<CloseCode>),
    ClientLeft,
    ClientFailed(SystemError),
    Header(HeaderError),
    Tls(TlsFailure),
    BackendClosed(Option<CloseCode>),
    BackendFailed(SystemError),
    BackendTls(TlsFailure),
    BackendCutShort,
    /// A node ended its connection without a close frame.
    BackendLeft,
    BackendNotUtf8,
    ClientProtocol(ProtocolError),
    BackendProtocol(ProtocolError),
    Head(HeadError),
    Upgrade(UpgradeError),
    Access(AccessError),
    Filtered,
    Expired,
    Revoked,
    Doubtful,
    Outdated,
    /// A reload has replaced the configuration of a connection that was kept open for the handshake.
    Replaced,
    Method,
    Name,
    Denied,
    NoSuchBackend,
    NotASocket,
    Outside,
    NoLookUp(OpenError),
    Refused(SystemError),
    UnknownHost,
    Upstream(UpstreamError),
    NotTaken(ConnectError),
    HandedOver {
        /// The kernel makes its TLS records.
        has_kernel_tls: bool,
    },
    Tunnelled,
    PassedOn,
    FileCutShort,
    BackendLineTooLong,
    ClientSilent,
    Idle,
    TooFast,
    TakesNothing,
    HeldTooMuch,
    TimedOut(Step),
    Overload(Full),
    Stopping,
}

/// Why a relay or a tunnel closes.
#[derive(Debug)]
pub(crate) enum Leave {
    /// The client sent a close frame or violated the protocol, or the gateway stops: the backend's remaining messages
    /// are relayed, then this close frame is sent.
    LastWords(Box<[u8]>, Ending),
    /// The gateway sent a close frame and awaits the client's.
    CloseSent(Ending),
    /// The client's connection ended or failed.
    ClientLost(Ending),
    /// Neither end is awaited.
    Over(Ending),
}

/// The limit that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Full {
    Clients,
    Address,
    Handshakes,
    TlsHandshakes,
    Server,
    Name,
    Requests,
    Descriptors,
    Untaken,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Clients => "too many clients (limits.clients)",
            Full::Address => "too many clients from this address (limits.clients-per-address)",
            Full::Handshakes => "too many clients that are no WebSockets yet (limits.handshakes)",
            Full::TlsHandshakes => "too many clients in their TLS handshake (limits.tls-handshakes)",
            Full::Server => "too many clients of this server (maxclients)",
            Full::Name => "too many clients of this name (limits.clients of its websocket or link)",
            Full::Requests => "too many requests of this name (limits.requests of its link)",
            Full::Descriptors => "out of file descriptors (ulimit -n)",
            Full::Untaken => "too many clients that backends in direct mode do not take (ulimit -n)",
        })
    }
}

impl Ending {
    /// The log level: Warn if the operator may need to act, Debug for health checks.
    pub(crate) fn level(self) -> Level {
        match self {
            Ending::Probed | Ending::SaidNothing => Level::Debug,
            Ending::BackendFailed(_)
            | Ending::BackendTls(_)
            | Ending::BackendCutShort
            | Ending::BackendNotUtf8
            | Ending::BackendProtocol(_)
            | Ending::NotASocket
            | Ending::Outside
            | Ending::NoLookUp(_)
            | Ending::Refused(_)
            | Ending::UnknownHost
            | Ending::Upstream(_)
            | Ending::NotTaken(_)
            | Ending::FileCutShort
            | Ending::TimedOut(Step::Connect)
            | Ending::BackendLineTooLong
            | Ending::HeldTooMuch
            | Ending::Header(_)
            | Ending::TimedOut(Step::Header)
            | Ending::Head(HeadError::ProxyProtocol | HeadError::UntrustedProxy)
            | Ending::Doubtful
            | Ending::Access(AccessError::Unavailable | AccessError::TimedOut)
            | Ending::Upgrade(UpgradeError::Lost | UpgradeError::HttpVersion)
            | Ending::Overload(_) => Level::Warn,
            _ => Level::Info,
        }
    }
}

impl Ending {
    /// Whether the backend has the client's socket, and therefore the close code too.
    pub(crate) fn is_handed_over(self) -> bool {
        matches!(self, Ending::HandedOver { .. } | Ending::Tunnelled | Ending::PassedOn)
    }

    /// The close code of this ending, if it ended a WebSocket (RFC 6455 section 7.4.1).
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Ending::ClientClosed(code) => code.unwrap_or(CloseCode::NO_STATUS),
            Ending::BackendClosed(Some(code)) => code,
            Ending::BackendClosed(None) => CloseCode::NORMAL,
            Ending::ClientProtocol(error) => error.close_code(),
            Ending::BackendFailed(_)
            | Ending::BackendTls(_)
            | Ending::BackendCutShort
            | Ending::BackendLeft
            | Ending::BackendNotUtf8
            | Ending::BackendLineTooLong
            | Ending::NotTaken(_)
            | Ending::BackendProtocol(_) => CloseCode::INTERNAL_ERROR,
            Ending::TooFast | Ending::Expired | Ending::Revoked | Ending::Doubtful => CloseCode::POLICY_VIOLATION,
            Ending::Outdated => CloseCode::SERVICE_RESTART,
            Ending::TakesNothing => CloseCode::UNSUPPORTED_DATA,
            Ending::Idle | Ending::Stopping => CloseCode::GOING_AWAY,
            _ => CloseCode::ABNORMAL,
        }
    }

    /// The reason in the close frame that the gateway sends on behalf of the backend or on its own. Clients may compare
    /// these texts, so they keep the word "server" where the log says "backend".
    pub(crate) fn close_reason(self) -> String {
        match self {
            Ending::BackendClosed(_) => String::new(),
            Ending::BackendFailed(SystemError::MESSAGE_TOO_LARGE) => {
                "the server sent a packet that is larger than a receive buffer (1011)".to_owned()
            }
            Ending::BackendFailed(error) => format!("the server died (1011): {error}"),
            // Names and authorities are not the client's business.
            Ending::BackendTls(_) => "the server died (1011)".to_owned(),
            Ending::BackendCutShort => "the server died in mid-message (1011)".to_owned(),
            Ending::BackendLeft => "the server left without a close frame (1011)".to_owned(),
            Ending::BackendNotUtf8 => {
                "the server sent bytes that are not UTF-8 although type is text (1011): use auto or binary".to_owned()
            }
            Ending::BackendProtocol(error) => format!("the server broke the frames protocol (1011): {error}"),
            Ending::BackendLineTooLong => {
                format!("the server sent over {LINE_SIZE_MAX} bytes without an end of message (1011)")
            }
            Ending::Idle => "idle for too long".to_owned(),
            Ending::Expired => "credentials expired".to_owned(),
            Ending::Revoked => "access revoked".to_owned(),
            Ending::Doubtful => "access cannot be verified".to_owned(),
            Ending::Outdated => "the configuration has changed: connect again".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Served => f.write_str("answered"),
            Ending::Probed => f.write_str("probed with OPTIONS"),
            Ending::SaidNothing => f.write_str("the client left without a byte"),
            Ending::HttpClientLeft => f.write_str("the client left before its request was answered"),
            Ending::ClientClosed(Some(code)) => write!(f, "the client closed with {code}"),
            Ending::ClientClosed(None) => f.write_str("the client closed without a code (1005)"),
            Ending::ClientLeft => f.write_str("the client left without a close frame (1006)"),
            Ending::Header(error) => write!(f, "closed: {error}"),
            Ending::Tls(error) => error.fmt(f),
            Ending::ClientFailed(error) => write!(f, "the client's connection broke (1006): {}", error),
            Ending::BackendClosed(Some(code)) => write!(f, "the backend closed with {code}"),
            Ending::BackendClosed(None) => f.write_str("the backend closed"),
            Ending::BackendFailed(SystemError::MESSAGE_TOO_LARGE) => {
                f.write_str("the backend sent a packet that is larger than a receive buffer (1011)")
            }
            Ending::BackendFailed(error) => write!(f, "the backend died (1011): {}", error),
            Ending::BackendTls(failure) => NodeFailure { failure: *failure, name: None }.fmt(f),
            Ending::BackendCutShort => f.write_str("the backend died in mid-message (1011)"),
            Ending::BackendLeft => f.write_str("the backend left without a close frame (1011)"),
            Ending::BackendNotUtf8 => f.write_str(
                "the backend sent bytes that are not UTF-8 although type is text (1011): use auto or binary",
            ),
            Ending::ClientProtocol(error) => {
                write!(f, "the client broke the protocol ({}): {error}", error.close_code())
            }
            Ending::BackendProtocol(error) => write!(f, "the backend broke the frames protocol (1011): {error}"),
            Ending::Head(error) => write!(f, "refused with {}: {error}", error.status()),
            Ending::Upgrade(error) => write!(f, "refused with {}: {error}", error.status()),
            Ending::Access(error) => write!(f, "refused with {}: {error}", error.status()),
            Ending::Filtered => f.write_str("closed: clients with this address may not connect (clientfilter)"),
            Ending::Expired => f.write_str("the client's permission has ended (1008)"),
            Ending::Revoked => f.write_str("the client's credential is no longer valid (1008)"),
            Ending::Doubtful => f.write_str("for too long the client's credential could not be verified (1008)"),
            Ending::Outdated => f.write_str("the rule that admitted the client was replaced by reloads (1012)"),
            Ending::Replaced => {
                f.write_str("refused with 503: a reload has replaced the configuration of the connection")
            }
            Ending::Method => f.write_str("refused with 405: only GET, HEAD and OPTIONS are served"),
            Ending::Name => f.write_str("refused with 400: the path names nothing"),
            Ending::Denied => f.write_str("refused with 403: the name is not allowed"),
            Ending::NoSuchBackend => f.write_str("refused with 404: no backend has this name"),
            Ending::NotASocket => f.write_str("refused with 404: what has this name is not a socket"),
            Ending::Outside => f.write_str("refused with 403: the name leads out of docroot, or may not be opened"),
            Ending::NoLookUp(OpenError { cause: OpenCause::TryAgain, error }) => {
                write!(f, "refused with 503: docroot cannot be searched now: {}", error)
            }
            Ending::NoLookUp(OpenError { error, .. }) => {
                write!(f, "refused with 500: docroot cannot be searched: {}", error)
            }
            Ending::NotTaken(ConnectError { cause: ConnectCause::TooManyUntaken, .. }) => {
                write!(f, "not handed over (1011): {}", Full::Untaken)
            }
            Ending::NotTaken(ConnectError { error, .. }) => {
                write!(f, "the backend did not take its client (1011): {}", error)
            }
            Ending::HandedOver { has_kernel_tls: false } => f.write_str("handed over to the backend"),
            Ending::HandedOver { has_kernel_tls: true } => f.write_str("handed over to the backend, TLS to the kernel"),
            Ending::Tunnelled => {
                f.write_str("handed over through a socket pair, since the client has TLS or spoke before it could be")
            }
            Ending::PassedOn => f.write_str("passed on to the node as it was, frames unread"),
            Ending::Refused(error) => write!(f, "refused with 502: the backend cannot be connected: {}", error),
            Ending::UnknownHost => f.write_str("refused with 502: the host of the link has not been looked up yet"),
            Ending::Upstream(error @ (UpstreamError::Cut | UpstreamError::Chunks)) => write!(f, "cut: {error}"),
            Ending::Upstream(error) => write!(f, "refused with {}: the node's fault: {error}", error.status()),
            Ending::FileCutShort => f.write_str("the file became shorter while it was sent"),
            Ending::TimedOut(Step::Header) => f.write_str("timed out: the PROXY header was too slow"),
            Ending::TimedOut(Step::Tls) => f.write_str("timed out: the TLS handshake was too slow"),
            Ending::TimedOut(Step::Head) => f.write_str("timed out: the request head was too slow (408)"),
            Ending::TimedOut(Step::Body) => f.write_str("timed out: the request body was too slow (408)"),
            Ending::TimedOut(Step::Request) => f.write_str("idle: no request came"),
            Ending::TimedOut(Step::Reply) => f.write_str("timed out: the client takes nothing of its reply"),
            Ending::TimedOut(Step::Connect) => f.write_str("refused with 504: the backend does not accept"),
            Ending::BackendLineTooLong => {
                write!(f, "the backend sent over {LINE_SIZE_MAX} bytes without an end of message (1011)")
            }
            Ending::ClientSilent => f.write_str("the client answered no ping (1006)"),
            Ending::Idle => f.write_str("idle for too long (1001)"),
            Ending::TooFast => f.write_str("the client sent more a second than it may (1008)"),
            Ending::TakesNothing => f.write_str("this name takes no messages (1003)"),
            Ending::HeldTooMuch => {
                f.write_str("broken off (1006): it held most when all held more than limits.queued-size")
            }
            Ending::Overload(full) => write!(f, "refused with 503: {full}"),
            Ending::Stopping => f.write_str("the gateway stops (1001)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts on the wire and those of the log differ in one word only.
    #[test]
    fn close_reasons_say_server_and_the_log_says_backend() {
        let endings = [
            Ending::BackendFailed(SystemError::MESSAGE_TOO_LARGE),
            Ending::BackendCutShort,
            Ending::BackendLeft,
            Ending::BackendNotUtf8,
            Ending::BackendLineTooLong,
        ];
        for ending in endings {
            let reason = ending.close_reason();
            assert!(reason.starts_with("the server "), "{reason}");
            assert_eq!(reason.replace("the server ", "the backend "), ending.to_string());
        }
        assert_eq!(Ending::BackendClosed(None).close_reason(), "");
        assert_eq!(Ending::TakesNothing.close_reason(), Ending::TakesNothing.to_string());
    }
}
