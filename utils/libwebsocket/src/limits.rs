//! Every limit of the library, with its unit in its name.

/// How long accept waits for the hand-over of a process that has made none before, unless `WEBSOCKET_WAIT_MS` says
/// otherwise. The gateway takes microseconds; a plain client that waits for the server to speak holds it up so long.
pub(crate) const WAIT_MS: u32 = 100;
/// The same for a process that has handed clients over before: it will again, on a busy machine a moment later. Where
/// it does not, the next of its connections are waited for as anybody's.
pub(crate) const GATEWAY_WAIT_MS: u32 = 1_000;
/// How long the first bytes of a character that the end of a write cut wait for the others.
pub(crate) const CUT_CHARACTER_MS: u64 = uakari::limits::CUT_CHARACTER_MS;
/// How often a thread that may not wait for a client looks whether the owner of a lock has begun to.
pub(crate) const LOCK_LOOK_MS: nix::libc::c_long = 1;
/// So many such processes are remembered.
pub(crate) const GATEWAYS_MAX: usize = 8;
/// File descriptors below this number are served.
pub(crate) const FDS_MAX: usize = 1 << 20;
/// Entries of one page of the table of file descriptors.
pub(crate) const TABLE_PAGE_ENTRIES: usize = 1 << 10;
/// Clients whose end all processes of a server know of; of more, the close frame is left out.
pub(crate) const LEDGER_ENTRIES: usize = 1 << 16;
/// Where the library's own file descriptors go, out of the way of servers that count on low numbers.
pub(crate) const OWN_FD_MIN: i32 = 1_000;
/// Bytes that are looked at to find out whether there is payload among them.
pub(crate) const LOOK_SIZE: usize = 1_024;
/// Bytes, headers among them, that one MSG_PEEK looks at.
pub(crate) const PEEK_SIZE_MAX: usize = 64 * 1_024;
/// Reads in a row that bring headers and control frames alone, before a server that does not wait is told that there is
/// nothing: no client may keep it from its others.
pub(crate) const EMPTY_READS_MAX: usize = 128;
/// Bytes of one piece, and one message, of sendfile(2).
pub(crate) const SENDFILE_SIZE: usize = 16 * 1_024;
/// Bytes that a server writes to a connection before it is known whether a client will be handed over by it, and that
/// are kept for that client.
pub(crate) const EARLY_SIZE_MAX: usize = 64 * 1_024;
/// Parts of one readv(2) or writev(2), as the kernel has it (`UIO_MAXIOV`).
pub(crate) const PARTS_MAX: usize = 1_024;
