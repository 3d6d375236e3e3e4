//! The keys that are no limits.

use super::Scope::{Document, Link, PageHeader, Server, ServerLimits, Top, TopLimits, WebSocket, WebSocketLimits};
use super::{Key, Kind, Scope};
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
) -> Key {
    Key { scopes, name, kind, default, unit: "", meaning }
}

/// They stand in the order of the documentation.
pub const KEYS: &[Key] = &[
    key(&[Top], "user", Kind::Text, "none", "The user to become once the addresses are taken."),
    key(&[Top], "pid-file", Kind::Text, "none", "The file that the number of the process is written to."),
    key(&[Top], "log-file", Kind::Text, "standard error", "The file that the log is written to."),
    key(
        &[Top],
        "log-level",
        Kind::Word(&values::LEVEL_NAMES),
        "\"info\"",
        "What is logged: this level and those before it.",
    ),
    key(&[Top], "log-format", Kind::Word(&values::FORMAT_NAMES), "\"text\"", "How a line of the log is written."),
    key(
        &[Top],
        "limits",
        Kind::Group(TopLimits),
        "none",
        "The limits of the process, and those that all servers have.",
    ),
    key(&[Top], "servers", Kind::Groups(Server), "required", "The servers: where each listens, and what it serves."),
    key(
        &[Top],
        "server",
        Kind::Groups(Server),
        "none",
        "The same, in the place of servers; a group { } is one server.",
    ),
    key(
        &[Top],
        "config_d",
        Kind::Text,
        "none",
        "A folder: the servers of each file there whose name ends in .conf are added; or one file.",
    ),
    key(
        &[Server],
        "hostname",
        Kind::Text,
        "any",
        "The name that clients ask for in Host; it chooses between servers that share an address.",
    ),
    key(&[Server], "addr", Kind::Text, "0.0.0.0 and ::", "The IP address to listen on."),
    Key {
        unit: "",
        ..key(&[Server], "port", Kind::Number(PORT), "", "The TCP port to listen on; 0 takes a free one.")
    },
    key(
        &[Server],
        "listen",
        Kind::Texts,
        "addr and port",
        "Where to listen, in place of addr and port: \"ADDR:PORT\", \"[ADDR6]:PORT\" or \"unix:PATH\".",
    ),
    key(
        &[Server],
        "freebind",
        Kind::Flag,
        "false",
        "Whether addresses that this machine does not have yet are listened on (IP_FREEBIND, ip(7)).",
    ),
    Key {
        unit: "s",
        ..key(
            &[Server],
            "keepalivetimeout",
            Kind::Number(KEEPALIVE),
            "",
            "How long a connection without a next request is kept; keepalive-ms of limits in seconds.",
        )
    },
    Key {
        unit: "clients",
        ..key(
            &[Server],
            "maxclients",
            Kind::Number(CLIENTS_MAX),
            "none",
            "Clients of this server at once; the same as clients of its limits.",
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
        "Keys of ouistiti's that protect and are not served, such as \"auth\": the server does without.",
    ),
    key(&[Document], "docroot", Kind::Text, "required", "The folder of the pages."),
    key(&[Document], "allow", Kind::Commas, "\"*\"", "Patterns of the files that are sent."),
    key(&[Document], "deny", Kind::Commas, "\"\"", "Patterns of the files that are refused, asked before allow."),
    key(
        &[Document],
        "denylast",
        Kind::Flag,
        "false",
        "Whether allow is asked before deny, so that a file that matches both is sent; needs allow.",
    ),
    key(
        &[Document],
        "options",
        Kind::Commas,
        "\"\"",
        "ouistiti's: \"range\" and \"sendfile\" hold always; \"dirlisting\", \"rest\" and \"home\" are not served.",
    ),
    key(&[Document], "cache-control", Kind::Text, "\"no-cache\"", "The Cache-Control header that pages are sent with."),
    key(&[Document], "headers", Kind::Groups(PageHeader), "none", "Headers that some pages are sent with."),
    key(&[PageHeader], "path", Kind::Commas, "\"*\"", "Patterns of the files that are sent with it."),
    key(
        &[PageHeader],
        "name",
        Kind::Text,
        "required",
        "The name of the header; none of those that uakari sets itself.",
    ),
    key(&[PageHeader], "value", Kind::Text, "required", "The value of the header."),
    key(
        &[WebSocket],
        "docroot",
        Kind::Text,
        "none",
        "The folder of the UNIX servers' sockets; not required where there are links.",
    ),
    key(&[WebSocket], "allow", Kind::Commas, "\"*\"", "Patterns of the names that are served."),
    key(&[WebSocket], "deny", Kind::Commas, "\"\"", "Patterns of the names that are refused, asked before allow."),
    key(
        &[WebSocket],
        "denylast",
        Kind::Flag,
        "false",
        "Whether allow is asked before deny, so that a name that matches both is served.",
    ),
    key(
        &[WebSocket],
        "options",
        Kind::Commas,
        "\"\"",
        "\"direct\": servers get the clients' own sockets; \"follow\": symbolic links may lead out of docroot.",
    ),
    key(
        &[WebSocket],
        "protocol",
        Kind::Word(&values::PROTOCOL_NAMES),
        "\"stream\"",
        "How messages travel to and from the servers; a SOCK_SEQPACKET socket is found by itself.",
    ),
    key(
        &[WebSocket],
        "type",
        Kind::Word(&values::TYPE_NAMES),
        "\"auto\"",
        "What messages are sent as that come from a server without message types; auto: text where they are UTF-8.",
    ),
    key(
        &[WebSocket],
        "message-type",
        Kind::Word(&values::TYPE_NAMES),
        "type",
        "The same, under the name that links have for it.",
    ),
    key(&[WebSocket], "hello", Kind::Flag, "false", "Whether a first record tells the server who the client is."),
    key(
        &[WebSocket],
        "origins",
        Kind::Texts,
        "\"same\"",
        "The pages that may connect: \"same\", \"*\", or origins such as \"https://app.example:8443\".",
    ),
    key(&[WebSocket], "links", Kind::Groups(Link), "none", "Names that are served by something else than docroot."),
    key(&[WebSocket], "limits", Kind::Group(WebSocketLimits), "the server's", "The limits of its conversations."),
    key(&[Link], "origin", Kind::Commas, "required", "Patterns of the names that the link serves."),
    key(&[Link], "type", Kind::Word(&values::LINK_NAMES), "required", "What the link leads to."),
    key(
        &[Link],
        "destination",
        Kind::Text,
        "required",
        "The absolute path of a socket, line or pipe; of tcp, \"HOST:PORT\" or \"[ADDR6]:PORT\".",
    ),
    key(&[Link], "port", Kind::Digits(PORT), "in destination", "The port, where the destination of tcp has none."),
    Key {
        unit: "bits a second",
        ..key(&[Link], "baud", Kind::Digits(values::BAUD), "", "The speed of a tty, one of those of termios(3).")
    },
    key(
        &[Link],
        "direction",
        Kind::Word(&values::DIRECTION_NAMES),
        "\"read\"",
        "Whether messages come out of a fifo or go into it.",
    ),
    key(
        &[Link],
        "protocol",
        Kind::Word(&values::PROTOCOL_NAMES),
        "websocket's",
        "How messages travel to and from it; packet needs type = \"unix\".",
    ),
    key(
        &[Link],
        "message-type",
        Kind::Word(&values::TYPE_NAMES),
        "websocket's",
        "What messages are sent as that come from it without a type; the type of a link is another.",
    ),
    key(
        &[Link],
        "hello",
        Kind::Flag,
        "websocket's; of a tty or fifo, false",
        "Whether a first record tells it who the client is.",
    ),
    key(
        &[Link],
        "options",
        Kind::Commas,
        "websocket's",
        "\"direct\": the server gets the clients' own sockets; needs type = \"unix\" and protocol = \"stream\".",
    ),
    key(&[Link], "limits", Kind::Group(Scope::LinkLimits), "websocket's", "The limits of its conversations."),
];
