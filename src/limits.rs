//! Every limit of the daemon, in one place, with its unit in its name.
//!
//! Memory is bounded by these numbers: the receive pool is `POOL_BUFFERS x POOL_BUFFER_SIZE`, a connection
//! that nobody reads from holds at most one burst beyond `QUEUE_HIGH_SIZE`, and an idle one holds no buffer.

/// Receive buffers in the pool, shared by all connections. A power of two, as the kernel's ring wants it.
pub const POOL_BUFFERS: u16 = 128;
/// Bytes of one pool buffer, headroom included: a 64 KiB message and its header arrive in one piece.
pub const POOL_BUFFER_SIZE: usize = 66 * 1024;
/// Bytes kept free before the received bytes, so that a frame header can be written in front of them.
pub const POOL_HEADROOM: usize = 32;
/// With fewer free buffers than this, what a peer does not take at once is copied out of the pool.
pub const POOL_FREE_LOW: usize = POOL_BUFFERS as usize / 2;

/// Submission entries of the ring; the completion queue has four times as many.
pub const RING_ENTRIES: u32 = 256;
/// The smallest ring that is still worth running on, when memory that may be locked is short.
pub const RING_ENTRIES_MIN: u32 = 32;
/// Segments gathered into one send.
pub const SEND_SEGMENTS_MAX: usize = 64;

/// Clients at once; one more gets a 503 (RFC 9110 section 15.6.4).
pub const CLIENTS_MAX: usize = 10_000;
/// Clients beyond `CLIENTS_MAX` that are told so at once; those beyond them are closed without a word.
pub const OVERLOAD_REPLIES_MAX: usize = 64;
/// File descriptors kept for what is not a connection: logs, listeners, files being served.
pub const FDS_RESERVED: u64 = 64;
/// Connections waiting in a listener's backlog.
pub const BACKLOG_MAX: i32 = 4096;
/// A pause of accepting after the kernel ran out of file descriptors.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// How long a listening address may stay busy after its last owner was killed.
pub const BIND_RETRY_MS: u64 = 1_000;
/// A pause between two tries of that.
pub const BIND_PAUSE_MS: u64 = 20;

/// Timers kept beyond four for each connection: those of connections that ended before their deadlines.
pub const TIMERS_SPARE_MAX: usize = 1024;

/// Bytes of a request head: request line and all headers.
pub const HEAD_SIZE_MAX: usize = 16 * 1024;
/// Bytes of a request target.
pub const TARGET_SIZE_MAX: usize = 8 * 1024;
/// Headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of a header line's value that a log line may quote.
pub const LOG_VALUE_SIZE_MAX: usize = 200;
/// Subprotocols a client may offer.
pub const SUBPROTOCOLS_MAX: usize = 16;

/// From accept, or from a next request's first byte, to the end of the request's head.
pub const HEAD_MS: u64 = 10_000;
/// A kept-alive connection without a next request.
pub const KEEPALIVE_MS: u64 = 5_000;
/// A peer that takes nothing of a reply, or of what is left for it at the end.
pub const STALL_MS: u64 = 30_000;
/// From the request to the backend's acceptance.
pub const CONNECT_MS: u64 = 5_000;
/// The first pause before a full backlog is tried again; it doubles up to `CONNECT_RETRY_MS_MAX`.
pub const CONNECT_RETRY_MS: u64 = 1;
/// The longest pause before a full backlog is tried again.
pub const CONNECT_RETRY_MS_MAX: u64 = 64;
/// How long a character that the end of a server's read cut waits for its other bytes.
pub const CUT_CHARACTER_MS: u64 = 100;
/// From a client's close frame to the gateway's own: what a server may still take to answer earlier messages.
pub const LAST_WORDS_MS: u64 = 500;
/// The closing handshake, from the last byte that was sent to the end of the connection (RFC 6455 section 7.1.1).
pub const CLOSE_MS: u64 = 3_000;
/// From a SIGTERM on, clients are waited for this long.
pub const DRAIN_MS: u64 = 5_000;
/// Then the connections that are left are broken off, which takes no longer than this; nor does the ring's end.
pub const ABORT_MS: u64 = 1_000;

/// Bytes of a message, whole or fragmented (close code 1009 beyond). Messages stream: this is no buffer's size.
pub const MESSAGE_SIZE_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a message for a SOCK_SEQPACKET server, where one packet has to hold it.
pub const PACKET_SIZE_MAX: u64 = 64 * 1024;
/// What a queued piece counts beside its bytes, so that empty packets count too.
pub const SEGMENT_SIZE: usize = 64;
/// Bytes waiting for a peer above which nothing more is read for it.
pub const QUEUE_HIGH_SIZE: usize = 128 * 1024;
/// Bytes waiting for a peer below which reading for it goes on.
pub const QUEUE_LOW_SIZE: usize = 32 * 1024;

/// Bytes of a request's body that are read for nothing, so that the connection can stay. Behind the reply to a
/// request with a larger one it ends.
pub const BODY_DRAIN_SIZE_MAX: usize = 64 * 1024;
/// Bytes of all extensions of a body's chunks.
pub const CHUNK_EXTENSIONS_SIZE_MAX: usize = 1024;
/// Bytes of the names and values of the trailers behind a body's chunks.
pub const TRAILERS_SIZE_MAX: usize = 4 * 1024;

const _: () = assert!(CHUNK_EXTENSIONS_SIZE_MAX + TRAILERS_SIZE_MAX < BODY_DRAIN_SIZE_MAX);
const _: () = assert!(POOL_BUFFERS.is_power_of_two());
const _: () = assert!(POOL_HEADROOM >= 14 + 3, "a header and a cut UTF-8 character go before the payload");
const _: () = assert!(POOL_BUFFER_SIZE - POOL_HEADROOM >= 65_536 + 14);
const _: () = assert!(PACKET_SIZE_MAX as usize <= POOL_BUFFER_SIZE - POOL_HEADROOM);
const _: () = assert!(HEAD_SIZE_MAX + 1 < POOL_BUFFER_SIZE - POOL_HEADROOM && TARGET_SIZE_MAX < HEAD_SIZE_MAX);
const _: () = assert!(QUEUE_LOW_SIZE < QUEUE_HIGH_SIZE);
const _: () = assert!(RING_ENTRIES_MIN <= RING_ENTRIES);
const _: () = assert!(CLOSE_MS < DRAIN_MS);
