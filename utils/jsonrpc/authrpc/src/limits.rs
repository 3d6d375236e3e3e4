//! Every limit of authrpc, with its unit in its name.

/// Bytes of the name of a user or group.
pub(crate) const NAME_SIZE_MAX: usize = 64;
/// Bytes of a password.
pub(crate) const PASSWORD_SIZE_MAX: usize = 256;
/// Bytes of the path of a home folder.
pub(crate) const HOME_SIZE_MAX: usize = 4_096;

/// Memory of one hash. With `HASH_PASSES` it is one of the sets that OWASP's Password Storage Cheat Sheet treats as
/// equal: the one whose memory a router with 64 MiB can spare for several connections, in well under a second.
pub(crate) const HASH_MEMORY_SIZE: u32 = 12 * 1024 * 1024;
/// Passes over that memory.
pub(crate) const HASH_PASSES: u32 = 3;
/// Lanes: one, as there may be no second processor.
pub(crate) const HASH_LANES: u32 = 1;
/// Maximum memory that a stored hash may ask for.
pub(crate) const HASH_MEMORY_SIZE_MAX: u32 = 128 * 1024 * 1024;
/// Maximum number of passes that a stored hash may ask for.
pub(crate) const HASH_PASSES_MAX: u32 = 16;
/// Bytes of a salt (RFC 9106 section 3.1).
pub(crate) const SALT_SIZE: usize = 16;
/// Characters of a generated password, each one of 32: 100 bits.
pub(crate) const GENERATED_SIZE: usize = 20;

const SECOND: i64 = 1_000;
/// Consecutive wrong passwords of a client before it has to wait. Each further one doubles the wait.
pub(crate) const CLIENT_FAILURES_MAX: u32 = 5;
/// The longest wait of a client.
pub(crate) const CLIENT_WAIT_MS_MAX: i64 = 900 * SECOND;
/// Consecutive wrong passwords for one user from all clients. More than for a client, whose limit is to apply first.
pub(crate) const USER_FAILURES_MAX: u32 = 20;
/// The longest wait for a user: long for an attacker, short for the user whom the attacker locks out.
pub(crate) const USER_WAIT_MS_MAX: i64 = 60 * SECOND;
/// The first wait.
pub(crate) const WAIT_MS_MIN: i64 = SECOND;
/// Failures expire after this time without another.
pub(crate) const FORGET_MS: i64 = 3_600 * SECOND;
/// Clients and users with failures that are stored.
pub(crate) const ATTEMPTS_MAX: u32 = 10_000;
const _: () = assert!(CLIENT_FAILURES_MAX < USER_FAILURES_MAX);
const _: () = assert!(CLIENT_WAIT_MS_MAX < FORGET_MS && USER_WAIT_MS_MAX < FORGET_MS);
