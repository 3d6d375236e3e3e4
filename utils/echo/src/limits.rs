//! Every limit of the echo server, with its unit in its name.

/// Bytes of one receive; a packet is never longer.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// Bytes of a message in direct mode: the gateway's default.
pub(crate) const MESSAGE_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Events of one epoll_wait(2).
pub(crate) const EVENTS_MAX: usize = 64;
