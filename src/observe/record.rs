//! Log records, independent of the output format.

use std::fmt;

use crate::limits::LOG_VALUE_SIZE_MAX;

/// Severity. A level includes all levels above it in this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[repr(u8)]
pub enum Level {
    /// The daemon cannot do what was requested.
    Error,
    /// The operator may want to correct something.
    Warn,
    /// Start, stop, and the end of each connection.
    #[default]
    Info,
    /// Every step.
    Debug,
}

impl Level {
    /// The name that `--log-level` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The journal's priority (sd-daemon(3)).
    pub(crate) fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        }
    }
}

/// The values of a connection's access line, which is logged when the connection ends.
pub(crate) struct AccessLine<'a> {
    /// Severity of the ending.
    pub(crate) level: Level,
    /// The connection's number.
    pub(crate) id: u64,
    /// The client's address.
    pub(crate) client: &'a dyn fmt::Display,
    /// The hostname of the server; omitted where empty.
    pub(crate) host: &'a str,
    /// The requested name.
    pub(crate) name: &'a str,
    /// The user that was admitted; omitted where empty.
    pub(crate) user: &'a str,
    /// The status of the last response, 101 for a WebSocket; 0: none was sent, and the field is omitted.
    pub(crate) status: u16,
    /// The close code of a WebSocket, including the reserved codes 1005 and 1006 (RFC 6455 section 7.4.1).
    pub(crate) code: Option<u16>,
    /// Time since accept(2).
    pub(crate) lasted_ms: u64,
    /// Payload bytes from the client to the backend.
    pub(crate) up_bytes: u64,
    /// Messages from the client to the backend.
    pub(crate) up_messages: u64,
    /// Payload bytes from the backend to the client.
    pub(crate) down_bytes: u64,
    /// Messages from the backend to the client.
    pub(crate) down_messages: u64,
    /// Why it ended.
    pub(crate) ending: &'a dyn fmt::Display,
}

/// A value from a peer: quoted, escaped, truncated to LOG_VALUE_SIZE_MAX.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.floor_char_boundary(LOG_VALUE_SIZE_MAX)];
        let more = if cut.len() < self.0.len() { "..." } else { "" };
        write!(f, "\"{}{more}\"", cut.escape_default())
    }
}

/// One log line.
pub(crate) enum Record<'a> {
    /// An event.
    Event {
        /// Severity.
        level: Level,
        /// None: the event concerns no single connection.
        connection: Option<u64>,
        /// The sentence.
        what: fmt::Arguments<'a>,
    },
    /// A connection ended.
    End(&'a AccessLine<'a>),
}

impl Record<'_> {
    /// Severity.
    pub(crate) fn level(&self) -> Level {
        match self {
            Record::Event { level, .. } => *level,
            Record::End(access) => access.level,
        }
    }

    /// The connection's number. None: the event concerns no single connection.
    pub(crate) fn connection(&self) -> Option<u64> {
        match self {
            Record::Event { connection, .. } => *connection,
            Record::End(access) => Some(access.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(Quoted("a\r\nb\"\u{1b}").to_string(), r#""a\r\nb\"\u{1b}""#);
        assert!(Quoted(&"x".repeat(1000)).to_string().len() < LOG_VALUE_SIZE_MAX + 10);
    }
}
