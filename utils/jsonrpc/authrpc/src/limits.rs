//! The library's limits, each with its unit in its name.

const SECOND: i64 = 1_000;

/// Bytes of a user's or a group's name.
pub const NAME_SIZE_MAX: usize = 64;
/// Bytes of a password.
pub const PASSWORD_SIZE_MAX: usize = 256;
/// Bytes of a home folder's path.
pub const HOME_SIZE_MAX: usize = 4_096;

/// Memory that one password takes to hash. With `HASH_PASSES` it is one of the sets that OWASP's Password Storage Cheat
/// Sheet holds equal; of those it takes the memory that a router with 64 MiB can still spare for several connections,
/// and well under a second of its processor.
pub const HASH_MEMORY_SIZE: u32 = 12 * 1024 * 1024;
/// Passes over that memory.
pub const HASH_PASSES: u32 = 3;
/// Lanes of it: one, as there may be no second processor.
pub const HASH_LANES: u32 = 1;
/// The most memory that a stored hash may ask for.
pub const HASH_MEMORY_SIZE_MAX: u32 = 128 * 1024 * 1024;
/// The most passes that it may ask for.
pub const HASH_PASSES_MAX: u32 = 16;
/// Bytes of a hash's salt (RFC 9106 section 3.1).
pub const SALT_SIZE: usize = 16;
/// Characters of a password that is made up, of 32 different ones: 100 bits.
pub const MADE_UP_SIZE: usize = 20;

/// Wrong passwords in a row of one client before it has to wait. Each further one doubles the wait, from a second on.
pub const CLIENT_FAILURES_MAX: u32 = 5;
/// The longest wait of a client.
pub const CLIENT_WAIT_MS_MAX: i64 = 900 * SECOND;
/// Wrong passwords in a row for one user, of whomever. More than a client has: who guesses meets his own limit first.
pub const USER_FAILURES_MAX: u32 = 20;
/// The longest wait for a user: long for who guesses, short for who was locked out by him.
pub const USER_WAIT_MS_MAX: i64 = 60 * SECOND;
/// The first wait.
pub const WAIT_MS_MIN: i64 = SECOND;
/// Failures are forgotten after so much time without another.
pub const FORGET_MS: i64 = 3_600 * SECOND;
/// Clients and users whose failures are remembered.
pub const ATTEMPTS_MAX: u32 = 10_000;

const _: () = assert!(CLIENT_FAILURES_MAX < USER_FAILURES_MAX);
const _: () = assert!(CLIENT_WAIT_MS_MAX < FORGET_MS && USER_WAIT_MS_MAX < FORGET_MS);
