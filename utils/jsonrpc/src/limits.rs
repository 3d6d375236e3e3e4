//! Limits of the server and its worker processes, with the unit in each name.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes of one read.
pub(crate) const READ_SIZE: usize = 64 * KIB;
/// Bytes of a request or a batch: the gateway's default for a message.
pub(crate) const MESSAGE_SIZE_MAX: usize = 64 * MIB;
/// Bytes of the answer to a request, or of all answers to a batch.
pub(crate) const ANSWER_SIZE_MAX: usize = 64 * MIB;
/// Bytes stored for all clients together; beyond it the client with most is dropped.
pub(crate) const HELD_SIZE_MAX: usize = 128 * MIB;
/// Nesting depth of arrays and objects.
pub(crate) const NESTING_MAX: usize = 128;
/// Requests in a batch.
pub(crate) const BATCH_MAX: usize = 4_096;
/// Bytes of a method's name that the log quotes.
pub(crate) const SHOWN_SIZE_MAX: usize = 100;

/// Default of `--call-ms`.
pub(crate) const CALL_MS: u64 = 5_000;
/// Maximum of `--call-ms`.
pub(crate) const CALL_MS_MAX: u64 = 3_600_000;
/// All calls of a batch; the rest are not made. At least as long as one call may take.
pub(crate) const BATCH_MS: u64 = 60_000;
/// The library's check of its configuration, before the server listens.
pub(crate) const START_MS: u64 = 60_000;
/// Time for a library after its connection has ended, in addition to its current call.
pub(crate) const END_MS: u64 = 1_000;
/// Between the starts of two worker processes of a connection.
pub(crate) const RESTART_MS: u64 = 250;
/// Between two checks of ending processes.
pub(crate) const REAP_MS: u64 = 50;

/// Default of `--memory-mib`, the private memory of a worker process (setrlimit(2), RLIMIT_DATA): enough for the longest
/// request and its answer.
pub(crate) const PROCESS_MIB: u64 = 256;
/// Minimum and maximum of `--memory-mib`.
pub(crate) const PROCESS_MIB_MIN: u64 = 16;
pub(crate) const PROCESS_MIB_MAX: u64 = 65_536;
/// A worker process that uses this share of its memory is replaced after its answer, before a call runs out of memory.
pub(crate) const PROCESS_HIGH_PERCENT: u64 = 75;
/// Address space (RLIMIT_AS) as a multiple of the memory. Threads and mapped files take much of the first and little of
/// the second.
pub(crate) const PROCESS_SPACE_FACTOR: u64 = 8;
/// File descriptors of a worker process: as many as select(2) can watch.
pub(crate) const PROCESS_FDS_MAX: u64 = 1_024;
