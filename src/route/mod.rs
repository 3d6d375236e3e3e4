//! From a request's path to the server that serves it.

pub mod names;

pub mod docroot;

use crate::http::date::Date;
use crate::limits;
use crate::websocket::upgrade::Origins;
use names::Rules;

/// How messages travel on the UNIX socket (docs/backends.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The payloads' bytes alone; one read is one message.
    Stream,
    /// SOCK_SEQPACKET: one packet is one message.
    Packet,
    /// RFC 6455 frames without masks.
    Frames,
}

/// What a message from a server without message types is sent as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageType {
    /// Text where the bytes are UTF-8, else binary.
    Auto,
    /// Always text.
    Text,
    /// Always binary.
    Binary,
}

/// What the gateway serves and how: the same for every connection.
#[derive(Clone, Debug)]
pub struct Site {
    /// Whether files are served.
    pub has_www: bool,
    /// Whether UNIX servers are served.
    pub has_docroot: bool,
    /// Which names may be asked for.
    pub rules: Rules,
    /// How messages travel to the servers.
    pub protocol: Protocol,
    /// What their messages are sent as.
    pub message_type: MessageType,
    /// Which pages may connect.
    pub origins: Origins,
    /// What pages are sent with as Cache-Control (RFC 9111 section 5.2): a header's value, so without control
    /// characters. None: each browser decides by itself how often it asks whether a page has changed.
    pub cache_control: Option<Box<str>>,
    /// The wall clock of this turn, which the shell keeps right.
    pub date: Date,
}

impl Default for Site {
    fn default() -> Site {
        Site {
            has_www: false,
            has_docroot: false,
            rules: Rules::default(),
            protocol: Protocol::Stream,
            message_type: MessageType::Auto,
            origins: Origins::Same,
            cache_control: None,
            date: Date::default(),
        }
    }
}

impl Protocol {
    /// The largest message that this protocol carries from a client.
    pub fn message_size_max(self) -> u64 {
        match self {
            Protocol::Packet => limits::PACKET_SIZE_MAX,
            Protocol::Stream | Protocol::Frames => limits::MESSAGE_SIZE_MAX,
        }
    }
}
