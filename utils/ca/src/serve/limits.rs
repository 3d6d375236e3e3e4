//! Every limit of the enrolment server, with its unit in its name.

/// Bytes of a message: a certificate and a request with a key of RSA 4096 and some dozens of names.
pub const MESSAGE_SIZE_MAX: usize = 32 * 1024;

/// Bytes of a request's head over HTTP: the longest that the gateway sends.
pub(crate) const HEAD_SIZE_MAX: usize = 64 * 1024;

/// Time of a client for its hello record and its next message, and for reading an answer.
pub(crate) const CLIENT_MS: u64 = 30_000;
/// Messages of one client that are answered before the other clients' turn.
pub(crate) const MESSAGES_OF_TURN_MAX: usize = 8;
/// Share of `--maxclients` that one address may have connected.
pub(crate) const CONNECTIONS_OF_ADDRESS_PERCENT: usize = 25;
/// Logins that wait for the one that is checked, which takes up to a second on a slow machine.
pub(crate) const LOGINS_QUEUED_MAX: usize = 8;
/// Logins of one address that wait or are checked.
pub(crate) const LOGINS_OF_ADDRESS_MAX: usize = 2;
/// Time for the requests in progress when the server stops.
pub(crate) const STOP_MS: u64 = 5_000;
/// What a client is told to wait while queues are full.
pub(crate) const BUSY_MS: u64 = 1_000;

const MINUTE_MS: u64 = 60_000;
/// The period of the rates below, in milliseconds.
pub const RATE_MS: u64 = MINUTE_MS;
/// Requests of an address in `RATE_MS`.
pub const REQUESTS_MAX: u64 = 60;
/// Certificates that are signed in `RATE_MS`.
pub const SIGNATURES_MAX: u64 = 120;
/// Certificates that are signed in `RATE_MS` for one address.
pub const SIGNATURES_OF_ADDRESS_MAX: u64 = 30;
const _: () = assert!(SIGNATURES_OF_ADDRESS_MAX < SIGNATURES_MAX, "one address leaves signatures for others");

/// Refused enrolments of an address before it has to wait. Each further one doubles the wait.
pub const WRONG_TOKENS_MAX: u32 = 10;
/// The first wait.
pub(crate) const WAIT_MS_MIN: u64 = 1_000;
/// The longest wait.
pub(crate) const WAIT_MS_MAX: u64 = 15 * MINUTE_MS;
/// Refused enrolments are forgotten after this time without another.
pub(crate) const FORGET_MS: u64 = 60 * MINUTE_MS;
const _: () = assert!(WAIT_MS_MAX < FORGET_MS);
/// Addresses whose rates are stored.
pub const ADDRESSES_MAX: usize = 10_000;

/// Lines of the log about refusals in `RATE_MS`. Others are counted.
pub(crate) const REFUSAL_LINES_MAX: u64 = 120;
