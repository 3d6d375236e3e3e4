//! The keys of `limits`. Their bounds and defaults are those of src/limits.rs.

use super::Scope::{LinkLimits, ServerLimits, TopLimits, WebSocketLimits};
use super::{ConfigKey, Kind, Limits, Scope};
use crate::config::values;
use crate::limits::*;

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

/// They stand in the order of the documentation.
pub(crate) const KEYS: &[ConfigKey] = &[
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
        "head-ms",
        HEAD_MS,
        "ms",
        |limits, value| limits.http.head_ms = value,
        "From accept, or from a next request's first byte, to the end of the request's head.",
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
