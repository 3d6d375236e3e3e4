//! The limits of the chat, each with its unit in its name. All that one member can make the server keep is bounded:
//! one message that is not whole yet, one receive that is not told yet, and what waits for it.

/// Bytes of a message as RFC 6455 frames, the gateway's or a client's own: close code 1009 beyond.
pub const MESSAGE_SIZE_MAX: usize = websocket::limits::MESSAGE_SIZE_MAX;
/// Bytes of a line, or of what stands before a NUL: the gateway takes no longer ones.
pub const LINE_SIZE_MAX: usize = 64 * 1024;
/// Bytes received at once; a packet is never longer, and of a stream each receive is a message.
pub const RECEIVE_SIZE: usize = 64 * 1024;
/// Bytes that wait for a member who takes nothing. Where there are more when another message comes, it is dropped.
pub const QUEUE_SIZE_MAX: usize = websocket::limits::KEPT_SIZE_MAX;
/// Bytes that each waiting message counts beside its own, so that short ones are bounded too.
pub const ENTRY_SIZE: usize = 64;
/// Bytes of a name, the number behind it included.
pub const NAME_SIZE_MAX: usize = 64;
/// Messages of one member in a `PACE_MS`. What is more stays in its connection until the next, so that a flood holds up
/// its sender, and not those who are to read it.
pub const PACE_MESSAGES_MAX: usize = 1_000;
/// Bytes of one member in a `PACE_MS`, but for the last message.
pub const PACE_SIZE_MAX: usize = 4 * 1024 * 1024;
/// What the pace is counted in.
pub const PACE_MS: u64 = 1_000;
/// How long a member of direct mode may take to end a conversation that is over, and all of them at the server's end.
pub const END_MS: u32 = 1_000;
