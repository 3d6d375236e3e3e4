//! Every limit of the chat, with its unit in its name.

/// Bytes of a message in RFC 6455 frames, the gateway's or a direct client's: close code 1009 beyond.
pub(crate) const MESSAGE_SIZE_MAX: usize = websocket::limits::MESSAGE_SIZE_MAX;
/// Bytes of a line, or before a NUL: the gateway sends no longer ones.
pub(crate) const LINE_SIZE_MAX: usize = 64 * 1024;

/// Bytes of one receive; a packet is never longer, and on a stream each receive is a message.
pub(crate) const RECEIVE_SIZE: usize = 64 * 1024;
/// Bytes that wait for a member who does not read. It is dropped when another message comes while more are waiting.
pub(crate) const QUEUE_SIZE_MAX: usize = websocket::limits::KEPT_SIZE_MAX;
/// Bytes that each waiting message counts in addition to its own, so that the number of short ones is limited too.
pub(crate) const ENTRY_SIZE: usize = 64;

/// Bytes of a name, including the number that makes it unique.
pub(crate) const NAME_SIZE_MAX: usize = 64;

/// Messages of a member in `PACE_MS`.
pub(crate) const PACE_MESSAGES_MAX: usize = 1_000;
/// Bytes of a member in `PACE_MS`, except that the last message may exceed it.
pub(crate) const PACE_SIZE_MAX: usize = 4 * 1024 * 1024;
/// The period of the rate limits, in milliseconds.
pub(crate) const PACE_MS: u64 = 1_000;
