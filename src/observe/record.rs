//! What the log tells of, whatever its lines look like.

use std::fmt;

use crate::limits::LOG_VALUE_SIZE_MAX;

/// How much an event matters; a level shows itself and all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[repr(u8)]
pub enum Level {
    /// The daemon cannot do what it was asked to.
    Error,
    /// Something that the operator may want to mend.
    Warn,
    /// Beginnings and ends.
    #[default]
    Info,
    /// Every step.
    Debug,
}

impl Level {
    /// The name that `--log-level` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The priority that the journal knows it by (sd-daemon(3)).
    pub fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        }
    }
}

/// What is told of a connection at its end.
pub struct Access<'a> {
    /// How much the ending matters.
    pub level: Level,
    /// The connection's number.
    pub id: u64,
    /// Where the client came from.
    pub client: &'a dyn fmt::Display,
    /// The hostname of the server that was meant; empty: it has none, and this is left out.
    pub host: &'a str,
    /// The name that the client asked for.
    pub name: &'a str,
    /// The status of the last HTTP reply, 101 for a WebSocket; 0: there was none, and it is left out.
    pub status: u16,
    /// The close code of a WebSocket, or what stands for one that was never sent (RFC 6455 section 7.4.1).
    pub code: Option<u16>,
    /// From accept to the end.
    pub lasted_ms: u64,
    /// Payload bytes from the client to the server.
    pub up_bytes: u64,
    /// Messages from the client to the server.
    pub up_messages: u64,
    /// Payload bytes from the server to the client.
    pub down_bytes: u64,
    /// Messages from the server to the client.
    pub down_messages: u64,
    /// Why it ended.
    pub ending: &'a dyn fmt::Display,
}

/// A value that a peer chose: quoted, escaped, cut at a limit.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.floor_char_boundary(LOG_VALUE_SIZE_MAX)];
        let more = if cut.len() < self.0.len() { "..." } else { "" };
        write!(f, "\"{}{more}\"", cut.escape_default())
    }
}

/// What a line tells.
pub enum Record<'a> {
    /// Something happened, to one connection or to none.
    Event {
        /// How much it matters.
        level: Level,
        /// The connection's number.
        connection: Option<u64>,
        /// The sentence.
        what: fmt::Arguments<'a>,
    },
    /// A connection ended.
    End(&'a Access<'a>),
}

impl Record<'_> {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Record::Event { level, .. } => *level,
            Record::End(access) => access.level,
        }
    }

    /// The connection's number, if it is about one.
    pub fn connection(&self) -> Option<u64> {
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
