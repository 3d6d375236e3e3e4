//! The server's limits, each with its unit in its name.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes read at once.
pub const READ_SIZE: usize = 64 * KIB;
/// Bytes of a request or a batch, as many as the gateway takes where it is not told otherwise.
pub const MESSAGE_SIZE_MAX: usize = 64 * MIB;
/// Bytes of the answer to a request, or of all answers to a batch.
pub const ANSWER_SIZE_MAX: usize = 64 * MIB;
/// Bytes that all clients together may hold; beyond it the one that holds most is let go.
pub const HELD_SIZE_MAX: usize = 128 * MIB;
/// Arrays and objects within each other.
pub const NESTING_MAX: usize = 128;
/// Requests in a batch.
pub const BATCH_MAX: usize = 4_096;
/// Bytes of a method's name that the log quotes.
pub const SHOWN_SIZE_MAX: usize = 100;

/// A call, where `--call-ms` says nothing.
pub const CALL_MS: u64 = 5_000;
/// The most that it may say.
pub const CALL_MS_MAX: u64 = 3_600_000;
/// All calls of a batch; those that are left then are not made. At least as long as one call may take.
pub const BATCH_MS: u64 = 60_000;
/// The library's look at its configuration, before the server serves.
pub const START_MS: u64 = 60_000;
/// What a library may do once its connection has ended, beside the call that it is in.
pub const END_MS: u64 = 1_000;
/// From the start of a connection's process to that of the next in its place.
pub const RESTART_MS: u64 = 250;
/// A look at processes that are to end.
pub const REAP_MS: u64 = 50;

/// Memory that a connection's process may have for its own (setrlimit(2), RLIMIT_DATA), where `--memory-mib` says
/// nothing: room for the longest request and its answer.
pub const PROCESS_MIB: u64 = 256;
/// The least and the most that it may say.
pub const PROCESS_MIB_MIN: u64 = 16;
pub const PROCESS_MIB_MAX: u64 = 65_536;
/// A process that has come to so many hundredths of it is replaced behind its answer, before a call fails for want of
/// memory.
pub const PROCESS_HIGH_PERCENT: u64 = 75;
/// Address space (RLIMIT_AS), as so many times the memory. Threads and files take much of that and little memory.
pub const PROCESS_SPACE_FACTOR: u64 = 8;
/// File descriptors that it may have, as many as select(2) takes.
pub const PROCESS_FDS_MAX: u64 = 1_024;
