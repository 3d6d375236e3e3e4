//! The limits that both libraries have, each with its unit in its name.

const MIB: usize = 1024 * 1024;

/// How long a statement waits for another process that writes. Less than a call may take.
pub const BUSY_MS: u64 = 2_000;
/// Pages of a database that a connection keeps.
pub const CACHE_SIZE: usize = MIB / 2;
/// All that SQLite keeps in a process; a query that needs more fails.
pub const HEAP_SIZE_MAX: usize = 32 * MIB;
