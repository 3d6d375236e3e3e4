//! All limits of the library, with units in their names.

/// How long accept(2) waits for a hand-over from a process that has made none before; the default of
/// `WEBSOCKET_WAIT_MS`. The gateway takes microseconds; a plain client that waits for the server to write first delays
/// accept(2) this long.
pub(crate) const WAIT_MS: u32 = 100;
/// The same for a process that has handed over clients before, since a busy machine may delay it. If it fails once, its
/// next connections get the shorter wait again.
pub(crate) const GATEWAY_WAIT_MS: u32 = 1_000;
/// How long an incomplete UTF-8 character at the end of a write waits for its other bytes.
pub(crate) const CUT_CHARACTER_MS: u64 = 100;
/// Interval at which a thread that waits for a lock checks whether the owner is blocked in a send.
pub(crate) const LOCK_LOOK_MS: nix::libc::c_long = 1;
/// Processes that are remembered as gateways.
pub(crate) const GATEWAYS_MAX: usize = 8;
/// Descriptors from this number on are not served.
pub(crate) const FDS_MAX: usize = 1 << 20;
/// Entries of one page of the descriptor table.
pub(crate) const TABLE_PAGE_ENTRIES: usize = 1 << 10;
/// Clients in the ledger of a server's processes. A client beyond that number gets no close frame at close(2).
pub(crate) const LEDGER_ENTRIES: usize = 1 << 16;
/// Lowest number of the library's own descriptors, out of the way of servers that expect low numbers.
pub(crate) const OWN_FD_MIN: i32 = 1_000;
/// Bytes examined with MSG_PEEK to find out whether there is payload.
pub(crate) const LOOK_SIZE: usize = 1_024;
/// Bytes, headers included, of one MSG_PEEK for the server.
pub(crate) const PEEK_SIZE_MAX: usize = 64 * 1_024;
/// Consecutive receives with only headers and control frames before the result is EAGAIN, so that one client cannot
/// keep a server from its others.
pub(crate) const EMPTY_READS_MAX: usize = 128;
/// Bytes of one message of sendfile(2).
pub(crate) const SENDFILE_SIZE: usize = 16 * 1_024;
/// Bytes written to a connection before its hand-over, which are kept for the client.
pub(crate) const EARLY_SIZE_MAX: usize = 64 * 1_024;
/// Parts of one readv(2) or writev(2) (UIO_MAXIOV).
pub(crate) const PARTS_MAX: usize = 1_024;
