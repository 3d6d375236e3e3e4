//! All limits of the package, with units in their names.

/// Bytes of a hello record: a header of 16 and a 16-bit length (proxy-protocol.txt section 2.2).
pub(crate) const HELLO_SIZE_MAX: usize = 16 + 65_535;
/// Bytes for ancillary data: SCM_CREDENTIALS if the server enabled SO_PASSCRED, and some descriptors. The kernel closes
/// descriptors that do not fit.
pub(crate) const ANCILLARY_SIZE: usize = 128;
/// Parts of one writev(2) that are sent in one call: IOV_MAX minus the headers and control frames added to them.
pub(crate) const WRITE_PARTS_MAX: usize = 1024 - 6;
/// Initial capacity for gathered messages: small enough for glibc's per-thread cache (up to 1032 bytes).
pub(crate) const GATHERED_SIZE: usize = 1024;
/// Bytes of a client's message, by default; a longer one is closed with 1009.
pub const MESSAGE_SIZE_MAX: usize = 1024 * 1024;
/// Bytes of one receive: a message of 64 KiB and its header.
pub const RECEIVE_SIZE: usize = 64 * 1024 + 14;
/// Consecutive receives without a byte of a message (such as pings only) before a non-blocking call returns
/// `WouldBlock`, so that the server gets to its other clients.
pub(crate) const IDLE_RECEIVES_MAX: usize = 16;
/// Bytes of gathered replies before they are sent.
pub(crate) const GATHERED_SIZE_MAX: usize = 64 * 1024;
/// Bytes of a reply that is gathered; for a longer one a send of its own costs less than the copy.
pub(crate) const COPIED_SIZE_MAX: usize = 16 * 1024;
/// Bytes queued for a client that does not read, before a non-blocking send returns `WouldBlock`.
pub const KEPT_SIZE_MAX: usize = 256 * 1024;
/// The listen(2) backlog, by default.
pub(crate) const BACKLOG_MAX: i32 = 1024;
/// Accepted connections without a hand-over yet; further ones wait in the backlog. A gateway connects for several
/// clients before it hands the first one over.
pub(crate) const SILENT_MAX: usize = 64;
/// From accept(2) to the hand-over. A connection that is silent for longer is a plain local client.
pub(crate) const HANDOVER_MS: u32 = 5_000;

/// Bytes of an incomplete UTF-8 character: at most three of four (RFC 3629 section 3).
pub(crate) const CUT_SIZE_MAX: usize = 3;
/// Bytes of pongs queued for a client that does not read; beyond, only the newest is kept (RFC 6455 section 5.5.3).
pub(crate) const PONGS_SIZE_MAX: usize = 4 * 1024;

const _: () = assert!(RECEIVE_SIZE <= KEPT_SIZE_MAX, "the echo of one receive can wait");
const _: () = assert!(
    GATHERED_SIZE <= COPIED_SIZE_MAX && COPIED_SIZE_MAX <= GATHERED_SIZE_MAX && GATHERED_SIZE_MAX <= KEPT_SIZE_MAX
);
