//! The keys of `limits`. Their bounds and defaults are those of src/limits.rs.

use super::Scope::{LinkLimits, ServerLimits, TopLimits, WebSocketLimits};
use super::{Key, Kind, Limits, Scope};
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
) -> Key {
    Key { scopes, name, kind: Kind::Limit(bounds, set), default: "", unit, meaning }
}

/// They stand in the order of the documentation.
pub const KEYS: &[Key] = &[
    limit(
        PROCESS,
        "clients",
        CLIENTS_MAX,
        "clients",
        |limits, value| limits.process.clients_max = value,
        "Clients at once, in all; one more gets a 503.",
    ),
    limit(
        PROCESS,
        "clients-per-address",
        CLIENTS_PER_ADDRESS_MAX,
        "clients",
        |limits, value| limits.process.clients_per_address_max = value,
        "Clients at once from one address, of IPv6 from one /64; 0: as many as there may be.",
    ),
    limit(
        PROCESS,
        "handshakes",
        HANDSHAKES_MAX,
        "clients",
        |limits, value| limits.process.handshakes_max = value,
        "Clients at once that are no WebSockets yet; with more than clients-per-address, no address takes all of them.",
    ),
    limit(
        PROCESS,
        "queued-size",
        QUEUED_SIZE_MAX,
        "bytes",
        |limits, value| limits.process.queued_size_max = value,
        "What all connections together may hold beside the pool; beyond it one is closed, of the address that holds most.",
    ),
    limit(
        PROCESS,
        "pool-buffers",
        POOL_BUFFERS,
        "buffers",
        |limits, value| limits.process.pool_buffers = value,
        "Receive buffers of 66 KiB, a quarter of them for requests and pages, the others for messages; a power of two.",
    ),
    limit(
        PROCESS,
        "files",
        FDS_MAX,
        "file descriptors",
        |limits, value| limits.process.fds_max = value,
        "File descriptors that the process may have; 0: as many as the clients need.",
    ),
    limit(
        PROCESS,
        "drain-ms",
        DRAIN_MS,
        "ms",
        |limits, value| limits.process.drain_ms = value,
        "How long servers may still answer, and clients are waited for, when the daemon stops.",
    ),
    Key {
        default: "none",
        ..limit(
            &[ServerLimits],
            "clients",
            CLIENTS_MAX,
            "clients",
            |limits, value| limits.http.clients_max = value,
            "Clients of this server at once; one more gets a 503.",
        )
    },
    limit(
        HTTP,
        "head-size",
        HEAD_SIZE_MAX,
        "bytes",
        |limits, value| limits.http.head_size_max = value,
        "A request's head: its first line and all headers.",
    ),
    limit(
        HTTP,
        "headers",
        HEADERS_MAX,
        "headers",
        |limits, value| limits.http.headers_max = value,
        "Headers of a request.",
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
        "From the same moment to the 101 of a WebSocket.",
    ),
    limit(
        HTTP,
        "keepalive-ms",
        KEEPALIVE_MS,
        "ms",
        |limits, value| limits.http.keepalive_ms = value,
        "How long a connection without a next request is kept.",
    ),
    limit(
        HTTP,
        "tcp-keepalive-ms",
        TCP_KEEPALIVE_MS,
        "ms",
        |limits, value| limits.http.tcp_keepalive_ms = value,
        "Silence of a client's TCP connection after which the kernel asks whether it is there; 0: never.",
    ),
    limit(
        HTTP,
        "tcp-user-timeout-ms",
        TCP_USER_TIMEOUT_MS,
        "ms",
        |limits, value| limits.http.tcp_user_timeout_ms = value,
        "How long sent bytes may stay unacknowledged before the connection is broken; 0: as long as the kernel likes.",
    ),
    Key {
        default: "none",
        ..limit(
            &[WebSocketLimits, LinkLimits],
            "clients",
            CLIENTS_MAX,
            "clients",
            |limits, value| limits.websocket.clients_max = value,
            "WebSockets at once, of docroot or of the link; of a tty or fifo the default is 1 and the most 1024.",
        )
    },
    limit(
        CONVERSATION,
        "connect-ms",
        CONNECT_MS,
        "ms",
        |limits, value| limits.websocket.connect_ms = value,
        "From the request to the server's acceptance.",
    ),
    limit(
        CONVERSATION,
        "idle-ms",
        IDLE_MS,
        "ms",
        |limits, value| limits.websocket.idle_ms = value,
        "A conversation without a message in either direction; 0: it may last for ever.",
    ),
    limit(
        CONVERSATION,
        "ping-ms",
        PING_MS,
        "ms",
        |limits, value| limits.websocket.ping_ms = value,
        "Silence of a client after which it gets a ping; 0: no pings.",
    ),
    limit(
        CONVERSATION,
        "pong-ms",
        PONG_MS,
        "ms",
        |limits, value| limits.websocket.pong_ms = value,
        "From that ping to any byte of the client.",
    ),
    limit(
        CONVERSATION,
        "close-ms",
        CLOSE_MS,
        "ms",
        |limits, value| limits.websocket.close_ms = value,
        "The closing handshake, from the last byte that was sent to the end of the connection.",
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
        "A peer that takes nothing of a page, or of what is left for it at the end.",
    ),
    limit(
        CONVERSATION,
        "frame-size",
        FRAME_SIZE_MAX,
        "bytes",
        |limits, value| limits.websocket.frame_size_max = value,
        "The payload of a frame.",
    ),
    limit(
        CONVERSATION,
        "message-size",
        MESSAGE_SIZE_MAX,
        "bytes",
        |limits, value| limits.websocket.message_size_max = value,
        "A message, whole or in fragments; with packet no more than 65536.",
    ),
    limit(
        CONVERSATION,
        "queue-size",
        QUEUE_SIZE_MAX,
        "bytes",
        |limits, value| limits.websocket.queue_size_max = value,
        "What waits for one side before the other is not read any more.",
    ),
    limit(
        CONVERSATION,
        "messages-per-second",
        MESSAGES_PER_SECOND_MAX,
        "messages",
        |limits, value| limits.websocket.messages_per_second_max = value,
        "Messages a second that a client may send; pings, pongs and fragments under 1 KiB count too; 0: any number.",
    ),
    limit(
        CONVERSATION,
        "bytes-per-second",
        BYTES_PER_SECOND_MAX,
        "bytes",
        |limits, value| limits.websocket.bytes_per_second_max = value,
        "Bytes a second that a client may send, frame headers included; 0: any number.",
    ),
    Key {
        scopes: CONVERSATION,
        name: "when-over",
        kind: Kind::Word(&values::WHEN_OVER_NAMES),
        default: "\"slow\"",
        unit: "",
        meaning: "What becomes of a client that sends more a second: it is read more slowly, or closed with 1008.",
    },
];
