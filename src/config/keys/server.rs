//! The keys that are no limits.

use super::Scope::{Document, Link, PageHeader, Server, ServerLimits, Top, TopLimits, WebSocket, WebSocketLimits};
use super::{ConfigKey, Kind, Scope};
use crate::config::values;
use crate::limits::{Bounds, CLIENTS_MAX, KEEPALIVE_MS};

const PORT: Bounds = Bounds { default: 80, min: 0, max: 65_535 };
const KEEPALIVE: Bounds =
    Bounds { default: KEEPALIVE_MS.default / 1000, min: KEEPALIVE_MS.min / 1000, max: KEEPALIVE_MS.max / 1000 };

const fn key(
    scopes: &'static [Scope],
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> ConfigKey {
    ConfigKey { scopes, name, kind, default, unit: "", meaning }
}

/// They stand in the order of the documentation.
pub(crate) const KEYS: &[ConfigKey] = &[
    key(&[Top], "user", Kind::Text, "none", "The user to run as once the addresses are bound."),
    key(&[Top], "pid-file", Kind::Text, "none", "The file that holds the process id."),
    key(&[Top], "log-file", Kind::Text, "standard error", "The log file."),
    key(
        &[Top],
        "log-level",
        Kind::Word(&values::LEVEL_NAMES),
        "\"info\"",
        "Messages of this level and of those before it are logged.",
    ),
    key(&[Top], "log-format", Kind::Word(&values::FORMAT_NAMES), "\"text\"", "The format of a log line."),
    key(
        &[Top],
        "limits",
        Kind::Group(TopLimits),
        "none",
        "The limits of the process, and the defaults for all servers.",
    ),
    key(&[Top], "servers", Kind::Groups(Server), "required", "The servers: the addresses of each, and what it serves."),
    key(&[Top], "server", Kind::Groups(Server), "none", "Another name of servers; a group { } is one server."),
    key(
        &[Top],
        "config_d",
        Kind::Text,
        "none",
        "A folder: adds the servers of each file in it whose name ends in .conf; or a single file.",
    ),
    key(
        &[Server],
        "hostname",
        Kind::Text,
        "any",
        "The name in the Host header that selects this server among those that share an address.",
    ),
    key(&[Server], "addr", Kind::Text, "0.0.0.0 and ::", "The IP address to listen on."),
    ConfigKey {
        unit: "",
        ..key(&[Server], "port", Kind::Number(PORT), "", "The TCP port to listen on; 0 takes a free one.")
    },
    key(
        &[Server],
        "listen",
        Kind::Texts,
        "addr and port",
        "Addresses to listen on, in place of addr and port: \"ADDR:PORT\", \"[ADDR6]:PORT\" or \"unix:PATH\".",
    ),
    key(
        &[Server],
        "freebind",
        Kind::Flag,
        "false",
        "Listen on addresses that this machine does not have yet (IP_FREEBIND, ip(7)).",
    ),
    ConfigKey {
        unit: "s",
        ..key(
            &[Server],
            "keepalivetimeout",
            Kind::Number(KEEPALIVE),
            "",
            "How long an idle HTTP connection is kept; keepalive-ms of limits, in seconds.",
        )
    },
    ConfigKey {
        unit: "clients",
        ..key(
            &[Server],
            "maxclients",
            Kind::Number(CLIENTS_MAX),
            "none",
            "Maximum number of clients of this server; the same as clients of its limits.",
        )
    },
    key(&[Server], "document", Kind::Group(Document), "no pages", "The pages."),
    key(&[Server], "websocket", Kind::Group(WebSocket), "no WebSockets", "The UNIX servers and the links."),
    key(&[Server], "limits", Kind::Group(ServerLimits), "the file's", "The limits of this server."),
    key(
        &[Server],
        "unprotected",
        Kind::Texts,
        "none",
        "Protecting keys of ouistiti's, such as \"auth\", that this server consents to run without.",
    ),
    key(&[Document], "docroot", Kind::Text, "required", "The folder of the pages."),
    key(&[Document], "allow", Kind::Commas, "\"*\"", "Patterns of the files that are sent."),
    key(&[Document], "deny", Kind::Commas, "\"\"", "Patterns of the files that are refused; evaluated before allow."),
    key(
        &[Document],
        "denylast",
        Kind::Flag,
        "false",
        "Evaluate allow before deny, so that a file that matches both is sent; needs allow.",
    ),
    key(
        &[Document],
        "options",
        Kind::Commas,
        "\"\"",
        "ouistiti's options: \"range\" and \"sendfile\" are always on; \"dirlisting\", \"rest\" and \"home\" are not served.",
    ),
    key(&[Document], "cache-control", Kind::Text, "\"no-cache\"", "The Cache-Control header of the pages."),
    key(&[Document], "headers", Kind::Groups(PageHeader), "none", "Additional headers for some pages."),
    key(&[PageHeader], "path", Kind::Commas, "\"*\"", "Patterns of the files that get the header."),
    key(&[PageHeader], "name", Kind::Text, "required", "The name of the header; not one that uakari sets itself."),
    key(&[PageHeader], "value", Kind::Text, "required", "The value of the header."),
    key(
        &[WebSocket],
        "docroot",
        Kind::Text,
        "none",
        "The folder of the UNIX servers' sockets; optional if there are links.",
    ),
    key(&[WebSocket], "allow", Kind::Commas, "\"*\"", "Patterns of the names that are served."),
    key(&[WebSocket], "deny", Kind::Commas, "\"\"", "Patterns of the names that are refused; evaluated before allow."),
    key(
        &[WebSocket],
        "denylast",
        Kind::Flag,
        "false",
        "Evaluate allow before deny, so that a name that matches both is served.",
    ),
    key(
        &[WebSocket],
        "options",
        Kind::Commas,
        "\"\"",
        "\"direct\": backends receive the clients' own sockets; \"follow\": symbolic links may lead out of docroot.",
    ),
    key(
        &[WebSocket],
        "protocol",
        Kind::Word(&values::PROTOCOL_NAMES),
        "\"stream\"",
        "How messages are delimited to and from backends; a SOCK_SEQPACKET socket is detected.",
    ),
    key(
        &[WebSocket],
        "type",
        Kind::Word(&values::TYPE_NAMES),
        "\"auto\"",
        "The type of messages from backends that do not set it themselves; auto: text if valid UTF-8.",
    ),
    key(
        &[WebSocket],
        "message-type",
        Kind::Word(&values::TYPE_NAMES),
        "type",
        "The same, under the name that links use.",
    ),
    key(&[WebSocket], "hello", Kind::Flag, "false", "Send each backend a first record that describes the client."),
    key(
        &[WebSocket],
        "origins",
        Kind::Texts,
        "\"same\"",
        "Origins whose pages may connect: \"same\", \"*\", or a list such as \"https://app.example:8443\".",
    ),
    key(&[WebSocket], "links", Kind::Groups(Link), "none", "Names that lead to a backend outside docroot."),
    key(
        &[WebSocket],
        "limits",
        Kind::Group(WebSocketLimits),
        "the server's",
        "The limits of its WebSocket conversations.",
    ),
    key(&[Link], "origin", Kind::Commas, "required", "Patterns of the names that the link serves."),
    key(&[Link], "type", Kind::Word(&values::LINK_NAMES), "required", "The kind of backend."),
    key(
        &[Link],
        "destination",
        Kind::Text,
        "required",
        "The absolute path of a socket, terminal line or pipe; for tcp, \"HOST:PORT\" or \"[ADDR6]:PORT\".",
    ),
    key(&[Link], "port", Kind::Digits(PORT), "in destination", "The port, if the destination of tcp has none."),
    ConfigKey {
        unit: "bits a second",
        ..key(&[Link], "baud", Kind::Digits(values::BAUD), "", "The speed of a tty: one of the speeds of termios(3).")
    },
    key(
        &[Link],
        "direction",
        Kind::Word(&values::DIRECTION_NAMES),
        "\"read\"",
        "Whether messages are read from a fifo or written to it.",
    ),
    key(
        &[Link],
        "protocol",
        Kind::Word(&values::PROTOCOL_NAMES),
        "websocket's",
        "How messages are delimited to and from it; packet needs type = \"unix\".",
    ),
    key(
        &[Link],
        "message-type",
        Kind::Word(&values::TYPE_NAMES),
        "websocket's",
        "The type of messages from it that have none of their own (type of a link is its kind).",
    ),
    key(
        &[Link],
        "hello",
        Kind::Flag,
        "websocket's; of a tty or fifo, false",
        "Send it a first record that describes the client.",
    ),
    key(
        &[Link],
        "options",
        Kind::Commas,
        "websocket's",
        "\"direct\": the backend receives the clients' own sockets; needs type = \"unix\" and protocol = \"stream\".",
    ),
    key(&[Link], "limits", Kind::Group(Scope::LinkLimits), "websocket's", "The limits of its WebSocket conversations."),
];
