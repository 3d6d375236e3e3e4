//! Every limit of the daemon. Names end in the unit; sizes are in bytes.
//!
//! A [`Bounds`] is a limit that the configuration may set; the structs below carry what it set. A size is in bytes,
//! a time in milliseconds. Memory is bounded by these numbers: the pool of receive buffers, what all connections
//! together may hold beside it (`QUEUED_SIZE_MAX`), and a fixed part for each connection.

/// A limit that the configuration may set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The default.
    pub default: u64,
    /// The lowest value allowed.
    pub min: u64,
    /// The highest value allowed.
    pub max: u64,
}

const fn bounds(default: u64, min: u64, max: u64) -> Bounds {
    assert!(min <= default && default <= max);
    Bounds { default, min, max }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// Concurrent clients; further ones get a 503 (RFC 9110 section 15.6.4).
pub const CLIENTS_MAX: Bounds = bounds(2_048, 1, 1_000_000);
/// Concurrent clients of one address, or of one IPv6 /64. 0: no limit.
pub const CLIENTS_PER_ADDRESS_MAX: Bounds = bounds(1_024, 0, 1_000_000);
/// Concurrent clients before their 101: reading requests, sending files, connecting backends. More than the limit of one
/// address, so that it cannot exclude others; fewer than all clients, so that WebSockets have room.
pub const HANDSHAKES_MAX: Bounds = bounds(1_536, 1, 1_000_000);
/// Concurrent clients whose TLS handshake is not complete. More than the limit of one address, as above.
pub const TLS_HANDSHAKES_MAX: Bounds = bounds(1_536, 1, 1_000_000);
/// Bytes that all connections together may hold beside the pool: heads, what is queued, packets and lines that are
/// not whole. Beyond it the connection that holds most is closed.
pub const QUEUED_SIZE_MAX: Bounds = bounds(16 * MIB, MIB, 1024 * 1024 * MIB);
/// Receive buffers in the pool, shared by all connections. The kernel's buffer ring requires a power of two.
pub const POOL_BUFFERS: Bounds = bounds(128, 16, 4_096);
/// File descriptors. 0: computed from the number of clients.
pub const FDS_MAX: Bounds = bounds(0, 0, 4_000_000);
/// Drain deadline after SIGTERM.
pub const DRAIN_MS: Bounds = bounds(5 * SECOND, 0, HOUR);

/// Bytes of a request head: request line and all headers.
pub const HEAD_SIZE_MAX: Bounds = bounds(16 * KIB, KIB, 60 * KIB);
/// Headers of a request.
pub const HEADERS_MAX: Bounds = bounds(64, 8, 128);
/// From accept to the end of the PROXY header, before TLS.
pub const PROXY_MS: Bounds = bounds(5 * SECOND, 100, HOUR);
/// From accept, or from the end of the PROXY header, to the end of the TLS handshake.
pub const TLS_MS: Bounds = bounds(10 * SECOND, 100, HOUR);
/// From accept or the end of the PROXY header (with TLS, from the end of its handshake), or from a next request's first
/// byte, to the end of the request's head.
pub const HEAD_MS: Bounds = bounds(10 * SECOND, 100, HOUR);
/// From the same moment to the 101 of a WebSocket.
pub const HANDSHAKE_MS: Bounds = bounds(15 * SECOND, 100, HOUR);
/// A kept-alive connection without a next request. Each takes a place, so this is short; a proxy that keeps connections to
/// the gateway longer wants it above its own time.
pub const KEEPALIVE_MS: Bounds = bounds(5 * SECOND, 0, HOUR);
/// A peer that takes no bytes of a response, or of the output left at the end.
pub const STALL_MS: Bounds = bounds(30 * SECOND, SECOND, HOUR);
/// Idle time before TCP keepalive probes to a client (tcp(7), TCP_KEEPIDLE).
/// 0: never.
pub const TCP_KEEPALIVE_MS: Bounds = bounds(60 * SECOND, 0, DAY);
/// Bytes sent to a client that its kernel has not acknowledged for this long break the connection (tcp(7),
/// TCP_USER_TIMEOUT). 0: the kernel's default.
pub const TCP_USER_TIMEOUT_MS: Bounds = bounds(60 * SECOND, 0, DAY);

/// From the request to the backend's connect.
pub const CONNECT_MS: Bounds = bounds(5 * SECOND, 1, HOUR);
/// A WebSocket without a message in either direction. 0: no limit.
pub const IDLE_MS: Bounds = bounds(0, 0, 30 * DAY);
/// Silence of a client after which it gets a ping (RFC 6455 section 5.5.2). 0: no pings. Many proxies and NATs cut a
/// connection that is idle for 30 s: a ping has to go out earlier.
pub const PING_MS: Bounds = bounds(25 * SECOND, 0, DAY);
/// From that ping to any byte of the client.
pub const PONG_MS: Bounds = bounds(20 * SECOND, 100, DAY);
/// The closing handshake, from the last byte that was sent to the end of the connection (RFC 6455 section 7.1.1).
pub const CLOSE_MS: Bounds = bounds(3 * SECOND, 1, HOUR);
/// Bytes of a frame's payload (close code 1009 beyond).
pub const FRAME_SIZE_MAX: Bounds = bounds(64 * MIB, 125, 1 << 62);
/// Bytes of a message, whole or fragmented (close code 1009 beyond). Messages stream: this is no buffer's size.
pub const MESSAGE_SIZE_MAX: Bounds = bounds(64 * MIB, 1, 1 << 62);
/// Bytes queued for a peer above which the other side is not read; reading resumes below a quarter.
pub const QUEUE_SIZE_MAX: Bounds = bounds(128 * KIB, 4 * KIB, 64 * MIB);
/// Messages a second from a client. 0: no limit.
pub const MESSAGES_PER_SECOND_MAX: Bounds = bounds(0, 0, 1_000_000_000);
/// Bytes a second from a client, including frame headers. 0: no limit.
pub const BYTES_PER_SECOND_MAX: Bounds = bounds(0, 0, 1 << 62);

/// Requests of a link to HTTP servers that are in progress; further ones get a 503.
pub const REQUESTS_MAX: Bounds = bounds(1_024, 1, 1_000_000);
/// Silence of an HTTP server that owes a reply, or the rest of one (504).
pub const ANSWER_MS: Bounds = bounds(60 * SECOND, 100, DAY);
/// Silence of a client in the middle of a request body that an HTTP server is to get (408).
pub const BODY_MS: Bounds = bounds(30 * SECOND, 100, HOUR);
/// Bytes of a request body that an HTTP server is to get (413).
pub const BODY_SIZE_MAX: Bounds = bounds(64 * MIB, 0, 1 << 62);
/// Idle connections that are kept to the nodes of an upstream.
pub const UPSTREAM_KEEPALIVE_MAX: Bounds = bounds(32, 0, 10_000);
/// How long an idle connection to an HTTP server is kept. Many servers close theirs after 5 s: a request that meets that
/// close may have to be refused.
pub const UPSTREAM_KEEPALIVE_MS: Bounds = bounds(4 * SECOND, 1, HOUR);
/// Parts into which the time for connecting is divided if there are several nodes: a node that does not answer leaves time
/// for the others.
pub const NODE_SHARES_MAX: usize = 3;
/// Interval at which idle connections are looked through for those whose time is over.
pub const POOL_LOOK_MS: u64 = 100;
/// How long a connection may have been idle at most that is used for a request which cannot be repeated.
pub const REUSE_UNSAFE_MS: u64 = SECOND;
/// Failures of a node, within the time that it is left for then. 0: they do not count.
pub const NODE_FAILS_MAX: Bounds = bounds(1, 0, 1_000);
/// How long a node is left that has failed too often.
pub const NODE_FAIL_MS: Bounds = bounds(10 * SECOND, 100, DAY);
/// Share of the requests of a node.
pub const NODE_WEIGHT_MAX: Bounds = bounds(1, 1, 1_000);
/// Interval of health checks.
pub const HEALTH_MS: Bounds = bounds(5 * SECOND, 100, DAY);
/// How long a health check may take.
pub const HEALTH_TIMEOUT_MS: Bounds = bounds(2 * SECOND, 10, HOUR);
/// Health checks in a row that fail until a node counts as down.
pub const HEALTH_FALLS_MAX: u32 = 3;
/// Health checks in a row that succeed until a node that is down counts as up.
pub const HEALTH_RISES_MAX: u32 = 2;

/// The limits of the whole process.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Process {
    pub clients_max: u64,
    pub clients_per_address_max: u64,
    pub handshakes_max: u64,
    pub tls_handshakes_max: u64,
    pub queued_size_max: u64,
    pub pool_buffers: u64,
    pub fds_max: u64,
    pub drain_ms: u64,
    /// At least one server has TLS.
    pub has_tls: bool,
    /// Connections to nodes of upstreams without a client: those that are kept idle, and those of health checks.
    pub upstream_idle_max: u64,
    /// Those of them that may have TLS.
    pub upstream_idle_tls_max: u64,
    /// At least one link has TLS to its nodes.
    pub has_upstream_tls: bool,
}

/// The limits of a server's HTTP connections.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Http {
    pub clients_max: u64,
    pub head_size_max: u64,
    pub headers_max: u64,
    pub proxy_ms: u64,
    pub tls_ms: u64,
    pub head_ms: u64,
    pub handshake_ms: u64,
    pub keepalive_ms: u64,
    pub stall_ms: u64,
    pub tcp_keepalive_ms: u64,
    pub tcp_user_timeout_ms: u64,
}

/// The limits of the WebSockets of a docroot or a link.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct WebSocket {
    pub clients_max: u64,
    pub connect_ms: u64,
    pub idle_ms: u64,
    pub ping_ms: u64,
    pub pong_ms: u64,
    pub close_ms: u64,
    pub stall_ms: u64,
    pub frame_size_max: u64,
    pub message_size_max: u64,
    pub queue_size_max: u64,
    pub messages_per_second_max: u64,
    pub bytes_per_second_max: u64,
    pub when_over: WhenOver,
}

/// The limits of the requests of a link to HTTP servers.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Forwarding {
    pub requests_max: u64,
    pub connect_ms: u64,
    pub answer_ms: u64,
    pub body_ms: u64,
    pub body_size_max: u64,
    pub queue_size_max: u64,
}

/// The action on a client over its rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenOver {
    /// It is read more slowly.
    Slow,
    /// It is closed with 1008.
    Close,
}

impl Process {
    /// Upper bound of the memory of the process, in bytes. The pool counts twice: one settling may copy all of it to the
    /// heap before the first connection is aborted for it. Bytes queued by a visit are counted when it ends, and a turn
    /// does no more work while the total is over its limit, that of aborted connections included, so that
    /// `VISIT_SIZE_MAX` covers the rest.
    pub fn memory_size_max(&self) -> u64 {
        let has_any_tls = self.has_tls || self.has_upstream_tls;
        // A client may have TLS on both sides.
        let sides = u64::from(self.has_tls) + u64::from(self.has_upstream_tls);
        let tls_connections = sides * self.clients_max + self.upstream_idle_tls_max;
        let tls_size = if has_any_tls { TLS_SIZE + tls_connections * TLS_CLIENT_SIZE } else { 0 };
        let connections_size = (self.clients_max + self.upstream_idle_max) * CLIENT_SIZE;
        PROGRAM_SIZE + self.pool_size() + self.held_size_max() + connections_size + tls_size
    }

    /// Upper bound of the bytes that all connections together hold outside the pool.
    pub(crate) fn held_size_max(&self) -> u64 {
        self.queued_size_max + self.pool_size() + VISIT_SIZE_MAX
    }

    fn pool_size(&self) -> u64 {
        self.pool_buffers * POOL_BUFFER_SIZE as u64
    }
}

impl Default for Process {
    fn default() -> Process {
        Process {
            clients_max: CLIENTS_MAX.default,
            clients_per_address_max: CLIENTS_PER_ADDRESS_MAX.default,
            handshakes_max: HANDSHAKES_MAX.default,
            tls_handshakes_max: TLS_HANDSHAKES_MAX.default,
            queued_size_max: QUEUED_SIZE_MAX.default,
            pool_buffers: POOL_BUFFERS.default,
            fds_max: FDS_MAX.default,
            drain_ms: DRAIN_MS.default,
            has_tls: false,
            upstream_idle_max: 0,
            upstream_idle_tls_max: 0,
            has_upstream_tls: false,
        }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http {
            clients_max: CLIENTS_MAX.max,
            head_size_max: HEAD_SIZE_MAX.default,
            headers_max: HEADERS_MAX.default,
            proxy_ms: PROXY_MS.default,
            tls_ms: TLS_MS.default,
            head_ms: HEAD_MS.default,
            handshake_ms: HANDSHAKE_MS.default,
            keepalive_ms: KEEPALIVE_MS.default,
            stall_ms: STALL_MS.default,
            tcp_keepalive_ms: TCP_KEEPALIVE_MS.default,
            tcp_user_timeout_ms: TCP_USER_TIMEOUT_MS.default,
        }
    }
}

impl Default for WebSocket {
    fn default() -> WebSocket {
        WebSocket {
            clients_max: CLIENTS_MAX.max,
            connect_ms: CONNECT_MS.default,
            idle_ms: IDLE_MS.default,
            ping_ms: PING_MS.default,
            pong_ms: PONG_MS.default,
            close_ms: CLOSE_MS.default,
            stall_ms: STALL_MS.default,
            frame_size_max: FRAME_SIZE_MAX.default,
            message_size_max: MESSAGE_SIZE_MAX.default,
            queue_size_max: QUEUE_SIZE_MAX.default,
            messages_per_second_max: MESSAGES_PER_SECOND_MAX.default,
            bytes_per_second_max: BYTES_PER_SECOND_MAX.default,
            when_over: WhenOver::Slow,
        }
    }
}

impl Default for Forwarding {
    fn default() -> Forwarding {
        Forwarding {
            requests_max: REQUESTS_MAX.default,
            connect_ms: CONNECT_MS.default,
            answer_ms: ANSWER_MS.default,
            body_ms: BODY_MS.default,
            body_size_max: BODY_SIZE_MAX.default,
            queue_size_max: QUEUE_SIZE_MAX.default,
        }
    }
}

/// Bytes of one pool buffer, headroom included: a 64 KiB message and its header arrive in one piece.
pub const POOL_BUFFER_SIZE: usize = 66 * 1024;
/// Bytes kept free before the received bytes, so that a frame header can be written in front of them, and the records of
/// TLS, which are longer than their payload.
pub const POOL_HEADROOM: usize = 256;
/// With fewer free buffers than half of a share of the pool, or than this, queued segments are copied out of the pool.
pub const POOL_FREE_MIN: usize = 2;
/// Parts of the pool: one is for requests and pages, the others are for messages.
pub const POOL_PARTS: usize = 4;
/// Bytes of the last read that stay queued when the pool is short and a page's client receives nothing. The others are
/// dropped, and read again when the client has received these.
pub const PAGE_KEPT_SIZE: usize = 1024;

/// Frames, or lines of a backend, that one visit decodes. The rest waits until other connections had their turn. The unit
/// tests, the simulation included, use a small number.
pub const FRAMES_PER_VISIT_MAX: usize = if cfg!(test) { 3 } else { 512 };
/// Units of work in one turn of the loop; the rest waits for the next turn. A frame or a line is a unit, and so are
/// `WORK_UNIT_SIZE` bytes.
pub const WORK_PER_TURN_MAX: usize = if cfg!(test) { 32 } else { 16 * 1024 };
/// The same in a turn that begins with work left from the previous one, or without room. Smaller, since a request takes
/// several turns.
pub const WORK_PER_BUSY_TURN_MAX: usize = WORK_PER_TURN_MAX / 16;
/// Light connections of an address that are visited between two heavy ones.
pub const LIGHT_VISITS_MAX: usize = 8;
/// Bytes that cost about as much as a frame.
pub const WORK_UNIT_SIZE: usize = 512;
/// Pings that a visit answers one by one; of the following ones it answers only the last (RFC 6455 section 5.5.3).
pub const PONGS_PER_VISIT_MAX: usize = 16;
/// A fragment of fewer bytes counts as a message where messages are counted (`MESSAGES_PER_SECOND_MAX`).
pub const FRAGMENT_SIZE_MIN: u64 = 1024;

/// Submission entries of the ring; the completion queue has four times as many.
pub const RING_ENTRIES: u32 = 256;
/// The smallest ring to run with when RLIMIT_MEMLOCK is low.
pub const RING_ENTRIES_MIN: u32 = 32;
/// Events that one epoll_wait(2) returns. Few, so that what is received is sent while the processor's caches have it:
/// with 256 a message of 64 KiB costs a twentieth more.
pub const EPOLL_EVENTS_MAX: usize = 16;
/// Packets that the epoll driver receives from one backend in one `wait`, so that they are sent together; further ones
/// wait for the next `wait`, as what does not fit into one buffer of a stream does.
pub const PACKETS_PER_WAIT_MAX: usize = 8;
/// Connections that the epoll driver accepts from one listener in one `wait`.
pub const ACCEPTS_PER_WAIT_MAX: usize = 64;
/// Threads of the epoll driver for what a file system may delay, and as many for devices. Their queues hold at most one
/// open or read of each connection, and the closes of descriptors.
pub const WORKERS_MAX: usize = 4;
/// Bytes of such a thread's stack.
pub const WORKER_STACK_SIZE: usize = 128 * 1024;
/// Time without work after which such a thread ends.
pub const WORKER_IDLE_MS: u64 = 5_000;
/// Segments gathered into one send.
pub const SEND_SEGMENTS_MAX: usize = 64;

/// Bytes that are encrypted together, unless a single segment has more.
pub const SEAL_SIZE_MAX: usize = 64 * 1024;
/// Bytes of a pool buffer that are encrypted in place. Fewer are encrypted into a new buffer.
pub const SEAL_IN_PLACE_SIZE_MIN: usize = 4 * 1024;
/// Bytes of an incomplete TLS handshake message or record that a connection keeps: a record, and the certificates of a
/// client.
pub const TLS_PARTIAL_SIZE_MAX: usize = 32 * 1024;
/// Bytes of the payload of a TLS record at most (RFC 8446 section 5.1).
pub const TLS_PAYLOAD_SIZE_MAX: usize = 1 << 14;
/// As `TLS_PAYLOAD_SIZE_MAX`, with an encrypted content type (RFC 8446 section 5.2).
pub const TLS_RECORD_SIZE_MAX: usize = TLS_PAYLOAD_SIZE_MAX + 256;
/// Wait in ms for a connection to the process itself, over which the TLS of the kernel is tried.
pub const TLS_TRIAL_MS: u64 = 1_000;
/// Memory of the TLS state of a client in bytes, of which rustls takes 3.2 KB. Not counted here are incomplete records,
/// records to be sent and certificates of the client (`QUEUED_SIZE_MAX`).
pub const TLS_CLIENT_SIZE: u64 = 5 * KIB;
/// Memory that TLS takes beside clients and the files of servers, in bytes: code, and the replaced files of one server.
pub const TLS_SIZE: u64 = 2 * MIB;
/// TLS sessions with nodes that an upstream keeps to resume them, 8 for each name.
pub const NODE_SESSIONS_MAX: usize = 128;
/// Memory of such a session in bytes: ticket, keys and the node's certificates.
pub const NODE_SESSION_SIZE: u64 = 8 * KIB;
/// Steps of TLS handshakes in one turn of the loop. Each may sign and verify, which takes as long as hundreds of
/// messages; the others wait for the next turn.
pub const TLS_STEPS_PER_TURN_MAX: usize = 2;

/// Concurrent 503 responses to clients over a limit; further clients are closed without a response.
pub const OVERLOAD_REPLIES_MAX: u64 = 64;
/// File descriptors kept for what is not a connection: logs, listeners, files being served.
pub const FDS_RESERVED: u64 = 64;
/// Connections waiting in a listener's backlog.
pub const BACKLOG_MAX: i32 = 4096;
/// Attempts of one openat2(2) that fails with EAGAIN because of a concurrent rename.
pub const OPEN_TRIES_MAX: u32 = 100;
/// Symbolic links in one path, as in the kernel (path_resolution(7)), where openat2(2) is missing.
pub const OPEN_LINKS_MAX: u32 = 40;
/// Folders below the base that one lookup without openat2(2) holds open, each with a file descriptor. A deeper path
/// fails.
pub const OPEN_DEPTH_MAX: usize = 32;
/// Interval between keepalive probes (tcp(7), TCP_KEEPINTVL).
pub const TCP_KEEPALIVE_INTERVAL_MS: u64 = 10 * SECOND;
/// Unanswered keepalive probes that end the connection (tcp(7), TCP_KEEPCNT).
pub const TCP_KEEPALIVE_PROBES_MAX: u32 = 6;
/// Unsent bytes in a client's socket buffer (tcp(7), TCP_NOTSENT_LOWAT).
pub const TCP_UNSENT_SIZE: u32 = 128 * 1024;
/// Pause of accepting after EMFILE or ENFILE.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Time over which bind(2) is retried after EADDRINUSE.
pub const BIND_RETRY_MS: u64 = 1_000;
/// Pause between these retries.
pub const BIND_PAUSE_MS: u64 = 20;

/// A step of the loop that takes this much longer than expected was a standstill of the process, whose time does not
/// count. No client can cause a step of this length.
pub const STANDSTILL_MS: u64 = 1_000;
/// How long the memory of connections that were aborted for `QUEUED_SIZE_MAX` still counts. It is free within some waits.
pub const ABORTED_MS: u64 = SECOND;
/// How long after a standstill received data may have been sent during it, at most. A deadline of a connection that has
/// just received data is postponed no longer than this.
pub const CATCH_UP_MS: u64 = 1_000;
/// Interval at which the loop wakes if rates are limited, so that a standstill is noticed.
pub const LOOK_AROUND_MS: u64 = 1_000;
/// A turn with this many completions of the ring may have left some in the kernel, which returns 20 at a time (since
/// 6.13).
pub const TURN_FULL_MIN: usize = 16;
/// Full turns after which deadlines are checked in any case.
pub const FULL_TURNS_MAX: u32 = 256;
/// Interval at which the deadline is checked of a connection that waits for a buffer, or whose data waits for its turn.
pub const UNREAD_LOOK_MS: u64 = 10;

/// Memory of an idle proxied WebSocket in bytes, without the overhead of the allocator. Asserted when the gateway is
/// compiled.
pub const IDLE_WEBSOCKET_SIZE_MAX: usize = 256;

/// Bytes of a request target.
pub const TARGET_SIZE_MAX: usize = 8 * 1024;
/// Bytes of a PROXY header, version 2 (haproxy's proxy-protocol.txt): addresses, and the values of one TLS connection.
pub const PROXY_HEADER_SIZE_MAX: usize = 4 * 1024;
/// Elements of X-Forwarded-For or Forwarded that are read, one for each proxy on the way.
pub const FORWARDED_MAX: usize = 32;
/// Bytes of one of their addresses: IPv6 with a port takes 47.
pub const FORWARDED_ADDRESS_SIZE_MAX: usize = 64;
/// Bytes of a header line's value that a log line may quote.
pub const LOG_VALUE_SIZE_MAX: usize = 200;
/// Bytes of the subject in the hello record, and of the common name: a client chooses its certificate, which may have
/// 32 KiB. Longer names are left out before (`CLIENT_NAME_SIZE_MAX`).
pub const HELLO_SUBJECT_SIZE_MAX: usize = 1024;
/// Bytes of each other TLS value in the hello record. Names of hosts and of protocols are shorter (RFC 1035 section 3.1,
/// RFC 7301 section 3.1).
pub const HELLO_TLS_VALUE_SIZE_MAX: usize = 255;
/// Subprotocols a client may offer.
pub const SUBPROTOCOLS_MAX: usize = 16;

/// Minimum time that each of several addresses of a TCP backend has to answer, if `connect-ms` allows it.
pub const CONNECT_SHARE_MS_MIN: u64 = 100;
/// The first pause before a full backlog is tried again; it doubles up to `CONNECT_RETRY_MS_MAX`.
pub const CONNECT_RETRY_MS: u64 = 1;
/// The longest pause before a full backlog is tried again.
pub const CONNECT_RETRY_MS_MAX: u64 = 64;
/// How long a UTF-8 character cut by the end of a read from a backend waits for its remaining bytes.
pub const CUT_CHARACTER_MS: u64 = 100;
/// The burst of a rate limit, as time.
pub const RATE_BURST_MS: u64 = 1_000;
/// From a client's close frame to the gateway's own: time of the backend to answer earlier messages. When the gateway
/// stops, a backend has its `close-ms`; a device has this, since it does not end.
pub const LAST_WORDS_MS: u64 = 500;
/// At the end of `drain-ms`, close frames that wait for a backend's last messages have this long to be sent.
pub const LAST_CALL_MS: u64 = 250;
/// Then the remaining connections are aborted within this time; so are the ring's operations, or epoll's threads.
pub const ABORT_MS: u64 = 1_000;

/// How long the connection to a direct-mode backend is watched after a hand-over, until it is known that the backend
/// receives its clients.
pub const WATCH_MS: u64 = 1_000;
/// Hand-overs that are watched at once, each with a file descriptor of `FDS_RESERVED`.
pub const WATCHES_MAX: usize = 16;
/// Backends of direct mode that are known to receive their clients.
pub const RECEIVERS_KNOWN_MAX: usize = 256;

/// Bytes of a message to a SOCK_SEQPACKET backend: one packet.
pub const PACKET_SIZE_MAX: u64 = 64 * 1024;
/// If the total is over its limit, the bytes that a connection holds count once for each period of this length in which
/// its peers received nothing, and once more.
pub const HELD_UNWEIGHED_MS: u64 = 1_000;
/// Bytes that a queued segment counts beside its data, so that empty packets count too: its place in a queue, which
/// grows by doubling.
pub const SEGMENT_SIZE: usize = 64;
/// Overhead of an allocation, as in the common allocators.
pub const ALLOCATION_EXTRA_SIZE: usize = 16;
/// Minimum size of an allocation.
pub const ALLOCATION_SIZE_MIN: usize = 32;
/// Heap memory of one visit that is not counted before the visit ends: a segment for each frame, the effects that ask
/// for them, and twice a receive for vectors that grow by doubling.
pub const VISIT_SIZE_MAX: u64 = (FRAMES_PER_VISIT_MAX * 256 + 4 * POOL_BUFFER_SIZE) as u64;

/// Bytes of a message from a backend with protocol lines or nul.
pub const LINE_SIZE_MAX: usize = 64 * 1024;
/// Clients of a tty or a FIFO: readers would steal each other's bytes.
pub const DEVICE_CLIENTS_MAX: Bounds = bounds(1, 1, 1_024);
/// Upstreams in one configuration.
pub const UPSTREAMS_MAX: usize = 64;
/// Nodes of one upstream.
pub const NODES_MAX: usize = 64;
/// Names of cookies and parameters by which sessions are known.
pub const STICKY_NAMES_MAX: usize = 8;
/// Bytes of the head of an HTTP server's reply.
pub const ANSWER_HEAD_SIZE_MAX: u64 = 60 * KIB;
/// Header fields of an HTTP server's reply.
pub const ANSWER_HEADERS_MAX: u64 = 128;
/// Options in the Connection fields of a message that is passed on.
pub const CONNECTION_OPTIONS_MAX: usize = 32;
/// Interim replies (1xx) of an HTTP server before its reply.
pub const INTERIM_REPLIES_MAX: u32 = 16;
/// Times that a request may have passed gateways of this name (RFC 9110 section 7.6.3) before it counts as a loop.
pub const VIA_MAX: usize = 10;
/// Health checks in progress at once, each with a file descriptor of `FDS_RESERVED`. Others wait.
pub const HEALTH_CHECKS_MAX: usize = 16;
/// Bytes of the status line of the reply to a health check.
pub const HEALTH_LINE_SIZE_MAX: usize = 4096;
/// The first checks after a start or a reload are distributed over this time, at most.
pub const HEALTH_SPREAD_MS: u64 = 1_000;
/// Interval at which the hosts of upstreams are looked up again.
pub const LOOKUP_AGAIN_MS: u64 = 30_000;

/// Servers in one configuration.
pub const SERVERS_MAX: usize = 256;
/// Links of one server.
pub const LINKS_MAX: usize = 256;
/// Headers of the pages of one server that the configuration may name.
pub const PAGE_HEADERS_MAX: usize = 64;
/// Bytes of all their names and values, which each reply may hold.
pub const PAGE_HEADERS_SIZE_MAX: usize = 8 * 1024;
/// Addresses that one server listens on.
pub const LISTEN_MAX: usize = 64;
/// How long an admission is remembered, if the server does not say another time. 0: it is not.
pub const AUTH_CACHE_MS: Bounds = bounds(60 * SECOND, 0, 300 * SECOND);
/// Interval at which the credential of an open WebSocket is verified again. 0: it is not.
pub const AUTH_RECHECK_MS: Bounds = bounds(0, 0, DAY);
/// The shortest interval.
pub const AUTH_RECHECK_MS_MIN: u64 = SECOND;
/// Admissions that are remembered.
pub const AUTH_CACHE_MAX: usize = 4_096;
/// How long a request waits for the decision about its credential. The helper gives a UNIX server 5 s.
pub const AUTH_MS: u64 = 7 * SECOND;
/// How long a WebSocket stays open while its credential cannot be verified again.
pub const AUTH_GRACE_MS: u64 = 60 * SECOND;
/// The same while it is not verified since there were too many attempts: another client may have caused these.
pub const AUTH_LIMITED_MS: u64 = 600 * SECOND;
/// Interval of its verifications in that time.
pub const AUTH_RETRY_MS: u64 = 5 * SECOND;
/// How long a nonce of Digest is accepted.
pub const NONCE_MS: u64 = 300 * SECOND;
/// Bytes of a token, or of user and password.
pub const CREDENTIAL_SIZE_MAX: usize = 8 * 1024;
/// Parameters of a credential, such as those of a Digest response, which has at most 13 (RFC 7616 section 3.4).
pub const CREDENTIAL_PARAMETERS_MAX: usize = 32;
/// Bytes of the fields of a request that a UNIX server gets to decide about it.
pub const AUTH_HEADERS_SIZE_MAX: usize = 16 * 1024;
/// Bytes of the name of a user in the hello record; a longer one is left out.
pub const HELLO_USER_SIZE_MAX: usize = 255;
/// Rules with paths of one server.
pub const ACCESS_RULES_MAX: usize = 64;
/// Users of one `auth`, and groups.
pub const AUTH_NAMES_MAX: usize = 64;
/// Files of keys of one `auth`.
pub const AUTH_KEYS_MAX: usize = 16;
/// Names of headers that a UNIX server gets.
pub const AUTH_HEADERS_MAX: usize = 16;
/// Bytes of a realm, and of `opaque`.
pub const AUTH_REALM_SIZE_MAX: usize = 255;
/// Alternatives of one `auth`.
pub const AUTH_ALTERNATIVES_MAX: usize = 8;
/// Networks of trusted proxies of one server.
pub const TRUSTED_MAX: usize = 64;
/// Hosts that one server answers.
pub const HOSTNAMES_MAX: usize = 64;
/// Bytes of a configuration, all included files together.
pub const CONFIG_SIZE_MAX: usize = 1024 * 1024;
/// Bytes of a key in a configuration.
pub const CONFIG_NAME_SIZE_MAX: usize = 200;
/// Nesting depth of a configuration.
pub const CONFIG_DEPTH_MAX: usize = 32;
/// Depth of includes.
pub const INCLUDE_DEPTH_MAX: usize = 10;
/// Included files of a configuration.
pub const INCLUDES_MAX: usize = 256;
/// Files of `config_d`.
pub const CONFIG_FILES_MAX: usize = 256;
/// Problems of a configuration that are printed.
pub const PROBLEMS_MAX: usize = 100;
/// Bytes of one of them.
pub const PROBLEM_SIZE_MAX: usize = 1_000;

/// Fixed memory of the process: code, ring, tables.
pub const PROGRAM_SIZE: u64 = 4 * MIB;
/// Memory of a client beyond its queued bytes.
pub const CLIENT_SIZE: u64 = 2 * KIB;
/// Interval at which folders are reopened by path, to notice replacements.
pub const FOLDER_LOOK_MS: u64 = 500;
/// Consecutive failures before a missing folder is logged: between two renames the path may be absent.
pub const FOLDER_MISSES_MAX: u32 = 3;
/// Interval of retries for missing folders and addresses.
pub const WAIT_RETRY_MS: u64 = 1_000;
/// How long a start waits for the addresses of host names. Its listeners are bound already, and clients wait.
pub const LOOKUP_START_MS: u64 = 1_000;
/// How long a reload or `--check` waits for them.
pub const LOOKUP_WAIT_MS: u64 = 5_000;
/// From a lookup of host names that failed to the next one; it doubles up to `LOOKUP_RETRY_MS_MAX`.
pub const LOOKUP_RETRY_MS: u64 = 1_000;
/// The longest pause between two lookups.
pub const LOOKUP_RETRY_MS_MAX: u64 = 30_000;
/// Concurrent host lookups, one thread each.
pub const LOOKUPS_MAX: usize = 8;

/// Bytes of a file with certificates, a private key or revocation lists. In a list a revoked certificate takes 35 bytes,
/// in PEM 47. The signature of a list is verified with each certificate of a client, which takes a time in proportion to
/// its size.
pub const TLS_FILE_SIZE_MAX: usize = 1024 * 1024;
/// Memory for each byte of a file with revocation lists.
pub const CRL_MEMORY_MAX: u64 = 16;
/// Memory for each byte of the other files of a server's certificates, which is parsed and kept in several forms.
pub const TLS_FILE_MEMORY_MAX: u64 = 4;
/// Certificates in one file.
pub const CERTIFICATES_MAX: usize = 512;
/// Certificates that a server sends, if some of them do not belong to the chain of its own.
pub const CHAIN_MAX: usize = 16;
/// Bytes of a name, or of a number, in a client's certificate.
pub const CLIENT_NAME_SIZE_MAX: usize = HELLO_SUBJECT_SIZE_MAX;
/// From the last change of a certificate's files to the look at them: several files change one after the other.
pub const TLS_QUIET_MS: u64 = 200;
/// From the first change to that look, if further changes follow.
pub const TLS_QUIET_MS_MAX: u64 = 1_000;
/// From a failed look to the next one: a new certificate and its old key do not match.
pub const TLS_RETRY_MS: u64 = 500;
/// How long looks may fail before that is reported.
pub const TLS_RETRY_MS_MAX: u64 = 10_000;
/// Interval of looks at files that are watched: inotify(7) does not see changes on a file server.
pub const TLS_LOOK_MS: u64 = HOUR;
/// The same for files that cannot be watched.
pub const TLS_UNWATCHED_LOOK_MS: u64 = 10_000;
/// Interval of warnings about certificates that have expired or will soon.
pub const TLS_DATES_MS: u64 = DAY;
/// How long uakari-ca may take to make a certificate: an old processor without a good source of random numbers.
pub const AUTHORITY_RUN_MS: u64 = 30_000;
/// Bytes of what it prints.
pub const AUTHORITY_OUTPUT_SIZE_MAX: usize = 16 * 1024;
/// Interval of looks whether it has ended after it has closed its output.
pub const AUTHORITY_END_MS: u64 = 5;
/// Reads of changes in one turn of the event loop.
pub const INOTIFY_READS_MAX: usize = 16;
/// Messages about addresses that are read in one turn of the event loop.
pub const NETLINK_READS_MAX: usize = 256;
/// Time before the expiry of a certificate from which on it is warned about.
pub const EXPIRY_WARNING_MS: u64 = 30 * DAY;

// Log.

/// Bytes of a log line, its newline included; a longer one is cut.
pub const LOG_LINE_SIZE_MAX: usize = 4000;
/// Bytes of the log buffer.
pub const LOG_BUFFER_SIZE: usize = 64 * 1024;
/// Bytes of the log buffer reserved for errors.
pub const LOG_BUFFER_RESERVED: usize = 8 * 1024;
/// Bytes of one write: atomic on a pipe (`PIPE_BUF`, pipe(7)).
pub const LOG_WRITE_SIZE_MAX: usize = 4096;
/// Rate limit of lines of one level, per second.
pub const LOG_LINES_PER_SECOND_MAX: u64 = 1_000;
/// Burst of lines of one level: many clients may end at the same time.
pub const LOG_LINES_BURST_MAX: u64 = 10_000;
/// Interval between reports of dropped lines.
pub const LOG_TELL_MS: u64 = 1_000;

/// Bytes of a request body that are read and discarded to keep the connection open. A larger body ends the connection
/// after the response.
pub const BODY_DRAIN_SIZE_MAX: usize = 64 * 1024;
/// Digits of the size of a chunk, zeros in front included.
pub const CHUNK_DIGITS_MAX: usize = 16;
/// Bytes of all extensions of a body's chunks.
pub const CHUNK_EXTENSIONS_SIZE_MAX: usize = 1024;
/// Bytes of the names and values of the trailers after a body's chunks.
pub const TRAILERS_SIZE_MAX: usize = 4 * 1024;

// uakari-auth.

/// Questions to uakari-auth without an answer. It verifies passwords one after the other on two threads.
pub const AUTH_QUESTIONS_MAX: usize = 64;
/// Those of them that are kept for open WebSockets whose credentials are verified again.
pub const AUTH_RECHECKS_MAX: usize = 16;
/// Those of one address, without those about open WebSockets, so that it does not take all. Clients without an IP address
/// are not limited.
pub const AUTH_QUESTIONS_PER_ADDRESS_MAX: usize = 16;
/// What a client has to wait whose address has reached this number.
pub const AUTH_ADDRESS_WAIT_MS: u64 = SECOND;
/// Bytes of questions that wait for uakari-auth to read them.
pub const AUTH_QUEUE_SIZE_MAX: usize = 1024 * 1024;
/// Configurations whose rules uakari-auth has: connections keep theirs over a reload.
pub const AUTH_GENERATIONS_MAX: usize = 2;
/// Bytes of the name of a user or a group.
pub const AUTH_USER_SIZE_MAX: usize = 255;
/// Rules of one configuration.
pub const AUTH_RULES_MAX: usize = 1_024;
/// Bytes of uakari-auth that are read at once while it reads new rules.
pub const AUTH_RECEIVE_SIZE: usize = 16 * 1024;
/// From the end of uakari-auth to its next start; it doubles up to `AUTH_RESTART_MS_MAX`.
pub const AUTH_RESTART_MS: u64 = 100;
/// The longest pause before a start of uakari-auth. One that has run longer is started without a pause.
pub const AUTH_RESTART_MS_MAX: u64 = 10_000;
/// Killed processes of uakari-auth that the kernel has not ended yet. With these, no other one is started.
pub const AUTH_LEAVING_MAX: usize = 4;
/// How long the end of a killed child is waited for, but not in the loop. One that the kernel does not end, since it waits
/// for a file system, is left, and reaped later.
pub const CHILD_END_MS: u64 = 10_000;
/// How long uakari-auth may take to read all files of the rules at a start, a reload or `--check`.
pub const AUTH_READY_MS: u64 = 30_000;
/// Interval at which a running uakari-auth is given rules again whose files it could not use.
pub const AUTH_RULES_RETRY_MS: u64 = 10_000;
/// Silence of uakari-auth after which it is ended, if it also left `AUTH_LATE_MAX` questions without an answer.
pub const AUTH_SILENCE_MS: u64 = 30_000;
/// Questions without an answer at their deadline, one after the other, for the same.
pub const AUTH_LATE_MAX: u32 = 3;
/// Bytes of the texts of an admission that is remembered.
pub const AUTH_CACHE_ENTRY_SIZE_MAX: usize = 1024;
/// Memory for uakari-auth in this process, in bytes: questions and answers, those of one turn twice, and what is remembered.
pub const AUTH_SIZE: u64 = (2 * (AUTH_QUEUE_SIZE_MAX + AUTH_QUESTIONS_MAX * auth_wire::limits::FRAME_SIZE_MAX)
    + AUTH_CACHE_MAX * (AUTH_CACHE_ENTRY_SIZE_MAX + 256)) as u64;

const _: () = assert!(AUTH_QUESTIONS_PER_ADDRESS_MAX < AUTH_QUESTIONS_MAX - AUTH_RECHECKS_MAX);
const _: () = assert!(AUTH_QUEUE_SIZE_MAX > auth_wire::limits::FRAME_SIZE_MAX);
const _: () = assert!(CHUNK_EXTENSIONS_SIZE_MAX + TRAILERS_SIZE_MAX < BODY_DRAIN_SIZE_MAX);
const _: () = assert!(PING_MS.default <= 25 * SECOND, "before a proxy's 30 s are over");
const _: () = assert!(POOL_BUFFERS.default.is_power_of_two());
const _: () = assert!(POOL_BUFFERS.max <= 32_768, "the kernel's rings of buffers are no longer");
const _: () = assert!(POOL_HEADROOM >= 14 + 3, "a header and a cut UTF-8 character go before the payload");
const _: () =
    assert!(POOL_HEADROOM >= CHUNK_DIGITS_MAX + 4, "a chunk's size between two line ends goes before its data");
const _: () = assert!(POOL_BUFFER_SIZE - POOL_HEADROOM >= 65_536 + 14);
const _: () = assert!(PACKET_SIZE_MAX as usize <= POOL_BUFFER_SIZE - POOL_HEADROOM);
const _: () = assert!(HEAD_SIZE_MAX.max < (POOL_BUFFER_SIZE - POOL_HEADROOM) as u64);
const _: () = assert!(PROXY_HEADER_SIZE_MAX <= POOL_BUFFER_SIZE - POOL_HEADROOM);
const _: () = assert!(TARGET_SIZE_MAX < HEAD_SIZE_MAX.default as usize);
const _: () = assert!(RING_ENTRIES_MIN <= RING_ENTRIES);
const _: () =
    assert!(2 * (WORKERS_MAX * WORKER_STACK_SIZE) as u64 <= PROGRAM_SIZE / 2, "the memory bound counts stacks");
const _: () = assert!(CLIENTS_PER_ADDRESS_MAX.default < HANDSHAKES_MAX.default);
const _: () = assert!(CLIENTS_PER_ADDRESS_MAX.default < TLS_HANDSHAKES_MAX.default);
const _: () = assert!(HANDSHAKES_MAX.default < CLIENTS_MAX.default);
const _: () = assert!(CLOSE_MS.default < DRAIN_MS.default);
const _: () = assert!((WATCHES_MAX + HEALTH_CHECKS_MAX) as u64 <= FDS_RESERVED / 2);
const _: () = assert!(AUTHORITY_RUN_MS <= u16::MAX as u64, "a time of poll(2) here");
const _: () = assert!(LOG_LINE_SIZE_MAX < LOG_WRITE_SIZE_MAX, "a newline may go before a line");
const _: () = assert!(LOG_BUFFER_SIZE > LOG_BUFFER_RESERVED && LOG_BUFFER_RESERVED > LOG_LINE_SIZE_MAX);
const _: () = assert!(5 * LOG_VALUE_SIZE_MAX + 400 < LOG_LINE_SIZE_MAX, "four values and the numbers fit into JSON");
const _: () = assert!(LOG_LINES_PER_SECOND_MAX <= LOG_LINES_BURST_MAX);
