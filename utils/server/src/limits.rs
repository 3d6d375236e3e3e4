//! The limits that all sample servers have, each with its unit in its name.

/// Connections waiting to be accepted.
pub const BACKLOG_MAX: i32 = 1024;
/// A pause of accepting where file descriptors ran out.
pub const ACCEPT_PAUSE_MS: u64 = 100;
