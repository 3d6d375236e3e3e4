//! Every limit that the sample servers share, with its unit in its name.

/// Connections waiting to be accepted.
pub(crate) const BACKLOG_MAX: i32 = 1024;
/// A pause of accepting, after file descriptors or memory ran out.
pub(crate) const ACCEPT_PAUSE_MS: u64 = 100;
/// Longest close handshake of a client in direct mode, and of all clients together when the server stops.
pub const CLOSE_MS: u64 = 1_000;
