//! Every limit that the sample servers share, with its unit in its name.

/// Connections waiting to be accepted.
pub(crate) const BACKLOG_MAX: i32 = 1024;
/// A pause of accepting, after file descriptors or memory ran out.
pub(crate) const ACCEPT_PAUSE_MS: u64 = 100;
/// How long a client of direct mode may take for its close handshake, and all of them together when the server ends.
pub const CLOSE_MS: u64 = 1_000;
