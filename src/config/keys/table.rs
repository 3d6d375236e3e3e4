//! The table of keys: name, groups, type, bounds, default and meaning of each.

use super::Scope::{
    Document, Link, LinkLimits, PageHeader, Redirect, Server, ServerLimits, Tls, Top, TopLimits, WebSocket,
    WebSocketLimits,
};
use super::{ConfigKey, Kind, Limits, Scope};
use crate::config::values;
use crate::limits::*;

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

/// Keys with an effect, except limits, in the order of the documentation.
pub(super) const KEYS: &[ConfigKey] = &[
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
        "driver",
        Kind::Word(&values::DRIVER_NAMES),
        "\"auto\"",
        "The kernel interface for I/O; auto: io_uring where it can be set up, else epoll.",
    ),
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
    key(&[Server], "port", Kind::Number(PORT), "80; with tls 443", "The TCP port to listen on; 0 takes a free one."),
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
    key(&[Server], "tls", Kind::Group(Tls), "none", "TLS with this certificate: https and wss instead of http and ws."),
    key(&[Server], "mbedtls", Kind::Group(Tls), "none", "Another name of tls."),
    key(&[Server], "openssl", Kind::Group(Tls), "none", "Another name of tls."),
    key(&[Server], "wolfssl", Kind::Group(Tls), "none", "Another name of tls."),
    key(
        &[Server],
        "tls-offload",
        Kind::Word(&values::OFFLOAD_NAMES),
        "\"direct\"",
        "Whose TLS records the kernel makes, where it can: clients in direct mode, all WebSockets, or none.",
    ),
    key(&[Server], "redirect", Kind::Group(Redirect), "none", "The redirection of requests to https."),
    key(&[Server], "document", Kind::Group(Document), "no pages", "The pages."),
    key(&[Server], "static_file", Kind::Group(Document), "none", "Another name of document."),
    key(
        &[Server],
        "websocket",
        Kind::Group(WebSocket),
        "no WebSockets",
        "The backends of WebSockets: docroot and links.",
    ),
    key(&[Server], "limits", Kind::Group(ServerLimits), "the file's", "The limits of this server."),
    key(
        &[Server],
        "unprotected",
        Kind::Texts,
        "none",
        "Protecting keys of ouistiti, such as \"auth\", without which this server may run.",
    ),
    key(&[Tls], "crtfile", Kind::Text, "required", "The PEM file of the certificate; intermediate ones may follow it."),
    key(
        &[Tls],
        "keyfile",
        Kind::Text,
        "crtfile",
        "The PEM file of the private key: PKCS#8, PKCS#1 or SEC1, not encrypted.",
    ),
    key(&[Tls], "pemfile", Kind::Text, "none", "Another name of keyfile."),
    key(&[Tls], "cachain", Kind::Text, "none", "The PEM file of further intermediate certificates."),
    key(
        &[Tls],
        "clientca",
        Kind::Text,
        "none",
        "The PEM file of the authorities whose certificates clients may present.",
    ),
    key(&[Tls], "crlfile", Kind::Text, "none", "The PEM file of the revocation lists of these authorities."),
    key(
        &[Tls],
        "verify",
        Kind::Word(&values::VERIFY_NAMES),
        "\"none\"; with clientca \"required\"",
        "A client is not asked for a certificate, may present one, or must.",
    ),
    key(
        &[Tls],
        "self-signed",
        Kind::Flag,
        "false",
        "In place of crtfile: uakari-ca makes an authority, and a certificate for the names and addresses of this host.",
    ),
    key(
        &[Tls],
        "dir",
        Kind::Text,
        "none",
        "The folder of this authority, which self-signed requires; created if missing.",
    ),
    key(
        &[Redirect],
        "options",
        Kind::Commas,
        "\"\"",
        "\"hsts\": without tls, every request is redirected to https; with tls, Strict-Transport-Security is sent.",
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
        "The folder of the backends' sockets; optional if there are links.",
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
        "The type of messages from it that do not set it themselves (type of a link is its kind).",
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
    key(&[Link], "limits", Kind::Group(LinkLimits), "websocket's", "The limits of its WebSocket conversations."),
];

const PROCESS: &[Scope] = &[TopLimits];
const HTTP: &[Scope] = &[TopLimits, ServerLimits];
const CONVERSATION: &[Scope] = &[TopLimits, ServerLimits, WebSocketLimits, LinkLimits];

const fn limit(
    scopes: &'static [Scope],
    name: &'static str,
    bounds: Bounds,
    unit: &'static str,
    set: fn(&mut Limits, u64),
    meaning: &'static str,
) -> ConfigKey {
    ConfigKey { scopes, name, kind: Kind::Limit(bounds, set), default: "", unit, meaning }
}

/// Keys of `limits`, in the order of the documentation.
pub(super) const LIMITS: &[ConfigKey] = &[
    limit(
        PROCESS,
        "clients",
        CLIENTS_MAX,
        "clients",
        |limits, value| limits.process.clients_max = value,
        "Maximum number of clients in total; the next one gets a 503.",
    ),
    limit(
        PROCESS,
        "clients-per-address",
        CLIENTS_PER_ADDRESS_MAX,
        "clients",
        |limits, value| limits.process.clients_per_address_max = value,
        "Maximum number of clients from one address (IPv6: one /64); 0: no limit of its own.",
    ),
    limit(
        PROCESS,
        "handshakes",
        HANDSHAKES_MAX,
        "clients",
        |limits, value| limits.process.handshakes_max = value,
        "Maximum number of clients before their 101; keep it above clients-per-address, so that no address takes all.",
    ),
    limit(
        PROCESS,
        "tls-handshakes",
        TLS_HANDSHAKES_MAX,
        "clients",
        |limits, value| limits.process.tls_handshakes_max = value,
        "Maximum number of clients whose TLS handshake is not complete; keep it above clients-per-address.",
    ),
    limit(
        PROCESS,
        "queued-size",
        QUEUED_SIZE_MAX,
        "bytes",
        |limits, value| limits.process.queued_size_max = value,
        "Memory of all connections outside the pool; above it, a connection of the address that holds most is closed.",
    ),
    limit(
        PROCESS,
        "pool-buffers",
        POOL_BUFFERS,
        "buffers",
        |limits, value| limits.process.pool_buffers = value,
        "Receive buffers of 66 KiB: a quarter for requests and pages, the others for messages; a power of two.",
    ),
    limit(
        PROCESS,
        "files",
        FDS_MAX,
        "file descriptors",
        |limits, value| limits.process.fds_max = value,
        "Maximum number of file descriptors of the process; 0: as many as the clients need.",
    ),
    limit(
        PROCESS,
        "drain-ms",
        DRAIN_MS,
        "ms",
        |limits, value| limits.process.drain_ms = value,
        "Drain deadline at a stop: how long backends may still answer and clients may take to close.",
    ),
    ConfigKey {
        default: "none",
        ..limit(
            &[ServerLimits],
            "clients",
            CLIENTS_MAX,
            "clients",
            |limits, value| limits.http.clients_max = value,
            "Maximum number of clients of this server; the next one gets a 503.",
        )
    },
    limit(
        HTTP,
        "head-size",
        HEAD_SIZE_MAX,
        "bytes",
        |limits, value| limits.http.head_size_max = value,
        "Size of a request's head: its first line and all headers.",
    ),
    limit(
        HTTP,
        "headers",
        HEADERS_MAX,
        "headers",
        |limits, value| limits.http.headers_max = value,
        "Number of headers of a request.",
    ),
    limit(
        HTTP,
        "tls-ms",
        TLS_MS,
        "ms",
        |limits, value| limits.http.tls_ms = value,
        "From accept to the end of the TLS handshake.",
    ),
    limit(
        HTTP,
        "head-ms",
        HEAD_MS,
        "ms",
        |limits, value| limits.http.head_ms = value,
        "From accept, the end of the TLS handshake, or a next request's first byte, to the end of the request's head.",
    ),
    limit(
        HTTP,
        "handshake-ms",
        HANDSHAKE_MS,
        "ms",
        |limits, value| limits.http.handshake_ms = value,
        "From the same start to the 101 of a WebSocket.",
    ),
    limit(
        HTTP,
        "keepalive-ms",
        KEEPALIVE_MS,
        "ms",
        |limits, value| limits.http.keepalive_ms = value,
        "How long an idle HTTP connection is kept.",
    ),
    limit(
        HTTP,
        "tcp-keepalive-ms",
        TCP_KEEPALIVE_MS,
        "ms",
        |limits, value| limits.http.tcp_keepalive_ms = value,
        "Silence of a client's TCP connection after which the kernel sends keepalive probes; 0: never.",
    ),
    limit(
        HTTP,
        "tcp-user-timeout-ms",
        TCP_USER_TIMEOUT_MS,
        "ms",
        |limits, value| limits.http.tcp_user_timeout_ms = value,
        "How long sent bytes may stay unacknowledged before the connection is closed; 0: the kernel's default.",
    ),
    ConfigKey {
        default: "none",
        ..limit(
            &[WebSocketLimits, LinkLimits],
            "clients",
            CLIENTS_MAX,
            "clients",
            |limits, value| limits.websocket.clients_max = value,
            "Maximum number of WebSockets of docroot or of the link; for a tty or fifo default 1, at most 1024.",
        )
    },
    limit(
        CONVERSATION,
        "connect-ms",
        CONNECT_MS,
        "ms",
        |limits, value| limits.websocket.connect_ms = value,
        "From the request to the established connection to the backend.",
    ),
    limit(
        CONVERSATION,
        "idle-ms",
        IDLE_MS,
        "ms",
        |limits, value| limits.websocket.idle_ms = value,
        "Time without a message in either direction after which a conversation is closed; 0: no limit.",
    ),
    limit(
        CONVERSATION,
        "ping-ms",
        PING_MS,
        "ms",
        |limits, value| limits.websocket.ping_ms = value,
        "Silence of a client after which it is sent a ping; 0: no pings.",
    ),
    limit(
        CONVERSATION,
        "pong-ms",
        PONG_MS,
        "ms",
        |limits, value| limits.websocket.pong_ms = value,
        "From that ping to any byte from the client.",
    ),
    limit(
        CONVERSATION,
        "close-ms",
        CLOSE_MS,
        "ms",
        |limits, value| limits.websocket.close_ms = value,
        "The closing handshake, from the last byte sent to the end of the connection.",
    ),
    limit(
        CONVERSATION,
        "stall-ms",
        STALL_MS,
        "ms",
        |limits, value| {
            limits.http.stall_ms = value;
            limits.websocket.stall_ms = value;
        },
        "Time in which a peer must take a byte of a page, or of the data queued for it at the end.",
    ),
    limit(
        CONVERSATION,
        "frame-size",
        FRAME_SIZE_MAX,
        "bytes",
        |limits, value| limits.websocket.frame_size_max = value,
        "Payload size of a frame.",
    ),
    limit(
        CONVERSATION,
        "message-size",
        MESSAGE_SIZE_MAX,
        "bytes",
        |limits, value| limits.websocket.message_size_max = value,
        "Size of a message, whole or in fragments; with packet at most 65536.",
    ),
    limit(
        CONVERSATION,
        "queue-size",
        QUEUE_SIZE_MAX,
        "bytes",
        |limits, value| limits.websocket.queue_size_max = value,
        "Bytes queued for one side above which the other side is no longer read.",
    ),
    limit(
        CONVERSATION,
        "messages-per-second",
        MESSAGES_PER_SECOND_MAX,
        "messages",
        |limits, value| limits.websocket.messages_per_second_max = value,
        "Messages per second from a client; pings, pongs and fragments under 1 KiB count too; 0: no limit.",
    ),
    limit(
        CONVERSATION,
        "bytes-per-second",
        BYTES_PER_SECOND_MAX,
        "bytes",
        |limits, value| limits.websocket.bytes_per_second_max = value,
        "Bytes per second from a client, frame headers included; 0: no limit.",
    ),
    ConfigKey {
        scopes: CONVERSATION,
        name: "when-over",
        kind: Kind::Word(&values::WHEN_OVER_NAMES),
        default: "\"slow\"",
        unit: "",
        meaning: "What happens to a client above its rate: it is read more slowly, or closed with 1008.",
    },
];

const fn ignored(scopes: &'static [Scope], name: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { scopes, name, kind: Kind::Ignored, default: "", unit: "", meaning }
}

const fn renamed(scopes: &'static [Scope], name: &'static str, to: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { scopes, name, kind: Kind::Renamed(to), default: "", unit: "", meaning }
}

const fn guard(name: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { scopes: &[Server], name, kind: Kind::Guard(name), default: "", unit: "", meaning }
}

/// Keys of ouistiti that are not served. The meaning follows "is not served: " in a warning.
pub(super) const NOT_SERVED: &[ConfigKey] = &[
    ignored(&[Top], "init_d", "start those programs by other means."),
    ignored(&[Top], "mimetypes", "the types of pages are built in."),
    ignored(&[Top], "maxservers", "the maximum is 256 servers."),
    guard("auth", "clients are not asked for a password."),
    ignored(&[Server], "authmngt", "there are no users to manage."),
    guard("userfilter", "every client may request every path."),
    guard("clientfilter", "every address may connect."),
    ignored(&[Server], "unlock_groups", "there are no groups of users."),
    ignored(&[Server], "security", "X-Content-Type-Options is sent; set other headers with headers of document."),
    ignored(&[Server], "signature", "pages are not signed."),
    ignored(&[Server], "cors", "pages of other sites may not read responses; see origins for WebSockets."),
    guard("cgi", "scripts are not run."),
    guard("python", "scripts are not run."),
    ignored(&[Server], "webstream", "such streams are not sent."),
    ignored(&[Server], "upgrade", "connections are upgraded to WebSocket only."),
    ignored(&[Server], "forward", "requests are not forwarded."),
    ConfigKey {
        scopes: &[Redirect],
        name: "links",
        ..guard("redirect", "requests for single names are not redirected.")
    },
    ignored(&[Server], "redirect404", "a missing page is answered with 404."),
    ignored(&[Server], "error_redirection", "a missing page is answered with 404."),
    ignored(&[Server], "vhost", "write a server with the same port and another hostname."),
    ignored(&[Server], "vhosts", "write a server with the same port and another hostname."),
    ignored(&[Server], "filestorage", "files cannot be uploaded; document serves files."),
    ignored(&[Server], "methodlock", "pages accept GET, HEAD and OPTIONS only."),
    ignored(&[Server], "tinysvcmdns", "the server is not announced by mDNS."),
    ignored(&[Server], "service", "no service of that name is announced."),
    ignored(&[Server], "server", "the Server header is uakari."),
    ignored(&[Server], "version", "HTTP/1.1 and 1.0 are supported."),
    ignored(&[Server], "chunksize", "buffers have fixed sizes; see pool-buffers."),
    ignored(&[Server], "keepalive", "keepalivetimeout sets the time."),
    ignored(&[Server], "root", "write full paths for docroot."),
    ignored(&[Tls], "dhmfile", "finite-field Diffie-Hellman is not used."),
    ignored(&[Tls], "pers", "the kernel seeds the random numbers."),
    renamed(&[Document], "accepted_ext", "allow", "ouistiti renamed it to allow: write allow instead."),
    renamed(&[Document], "ignored_ext", "deny", "ouistiti renamed it to deny: write deny instead."),
    ignored(&[Document], "transfer_type", "there is one way to send files."),
    ignored(&[Document], "transfert_type", "there is one way to send files."),
    ignored(&[Document], "defaultpage", "the page of a folder is index.html."),
    ignored(&[Document], "dochome", "users have no folders of their own."),
    renamed(&[WebSocket], "services", "allow", "ouistiti renamed it to allow: write allow instead."),
    renamed(&[WebSocket], "protocols", "allow", "ouistiti renamed it to allow: write allow instead."),
    ignored(&[WebSocket], "mode", "write options instead."),
    renamed(&[WebSocket], "accepted_ext", "allow", "ouistiti renamed it to allow: write allow instead."),
    renamed(&[WebSocket], "ignored_ext", "deny", "ouistiti renamed it to deny: write deny instead."),
];
