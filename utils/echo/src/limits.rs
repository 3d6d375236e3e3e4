//! The limits of the echo server, each with its unit in its name.

/// Bytes read at once; a packet is never longer.
pub const READ_SIZE: usize = 64 * 1024;
/// In direct mode, bytes of a message, as the gateway takes where it is not told otherwise.
pub const MESSAGE_SIZE_MAX: usize = 64 * 1024 * 1024;
/// In direct mode, how long a client may take to end a conversation that is over, and all of them at the server's end.
pub const END_MS: u32 = 1_000;
/// In direct mode, events taken at once.
pub const EVENTS_MAX: usize = 64;
