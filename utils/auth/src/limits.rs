//! Every limit of the helper, with its unit in its name.

// Files.

/// Bytes of a file with passwords, tokens or keys.
pub(crate) const FILE_SIZE_MAX: usize = 1024 * 1024;
/// Users of a file.
pub(crate) const USERS_MAX: usize = 10_000;
/// Problems of a file that are listed.
pub(crate) const PROBLEMS_MAX: usize = 20;
/// Milliseconds between two looks at whether the files of a rule have changed.
pub(crate) const LOOK_MS: u64 = 1_000;

// Names.

/// Bytes of a user's name.
pub(crate) const USER_SIZE_MAX: usize = 255;
/// Bytes of a group's name.
pub(crate) const GROUP_SIZE_MAX: usize = 255;
/// Groups of a user.
pub(crate) const GROUPS_MAX: usize = 64;

// Passwords.

/// Bytes of a password that a client sends.
pub(crate) const PASSWORD_SIZE_MAX: usize = 256;
/// bcrypt's cost, the logarithm of its rounds: 2^14 take a second on a small machine.
pub(crate) const BCRYPT_COST_MAX: u32 = 14;
/// A lower cost is reported as weak. htpasswd(1) has 5 as its default.
pub(crate) const BCRYPT_COST_MIN: u32 = 10;
/// Memory that a hash of argon2id may ask for, in KiB.
pub(crate) const ARGON2_MEMORY_KIB_MAX: u32 = 128 * 1024;
/// Passes over that memory.
pub(crate) const ARGON2_PASSES_MAX: u32 = 16;
/// Lanes of that memory.
pub(crate) const ARGON2_LANES_MAX: u32 = 4;
/// KiB times passes; less is reported as weak. It is the least of OWASP's Password Storage Cheat Sheet.
pub(crate) const ARGON2_WORK_KIB_MIN: u64 = 12 * 1024 * 3;
/// Rounds of SHA-crypt.
pub(crate) const SHA_CRYPT_ROUNDS_MAX: u32 = 500_000;
/// Fewer rounds are reported as weak: they are fewer than crypt(5) has by default.
pub(crate) const SHA_CRYPT_ROUNDS_MIN: u32 = 5_000;

// Attempts.

/// Failures of an address with one user before it has to wait.
pub(crate) const PAIR_FAILURES_MAX: u32 = 5;
/// The first wait. Each further failure doubles it.
pub(crate) const PAIR_WAIT_MS_MIN: u64 = 1_000;
/// The longest wait.
pub(crate) const PAIR_WAIT_MS_MAX: u64 = 900_000;
/// An address's failures with one user are forgotten after this time without another.
pub(crate) const PAIR_FORGET_MS: u64 = 3_600_000;
/// Failures of an address, with any users, within `WINDOW_MS`.
pub(crate) const UNIT_FAILURES_MAX: usize = 20;
/// Attempts of an address that are being judged, so that one address does not fill the queue. The gateway asks 16 questions
/// about requests of an address at a time, and 16 about open WebSockets, which may be of the same one.
pub(crate) const UNIT_PENDING_MAX: u32 = 32;
/// What an address has to wait that has reached `UNIT_PENDING_MAX`.
pub(crate) const UNIT_PENDING_WAIT_MS: u64 = 1_000;
/// Failures with a user, from all addresses, within `WINDOW_MS`: more are refused where the user was not known before.
pub(crate) const USER_FAILURES_MAX: usize = 100;
/// The time for which failures of an address or of a user count.
pub(crate) const WINDOW_MS: u64 = 600_000;
/// The time for which a success of a user makes an address known.
pub(crate) const KNOWN_MS: u64 = 30 * 24 * 3_600_000;
/// Entries of each table of attempts. One with the fewest failures makes room.
pub(crate) const ATTEMPTS_MAX: usize = 4_096;
const _: () = assert!(PAIR_WAIT_MS_MAX < PAIR_FORGET_MS);
const _: () = assert!(PAIR_FAILURES_MAX > 0 && UNIT_FAILURES_MAX > PAIR_FAILURES_MAX as usize);

// The process.

/// Threads that verify.
pub(crate) const WORKERS: usize = 2;
/// Questions that the verification of one credential answers.
pub(crate) const JOINED_MAX: usize = 256;
/// Credentials that wait for a thread.
pub(crate) const QUEUE_MAX: usize = 64;
/// A failure is answered this time after it arrived, or later: if the rule has a password whose verification takes more
/// than half of it, after twice the time of that.
pub(crate) const FAILURE_MS: u64 = 250;
/// Failures that wait for that time; more are answered at once.
pub(crate) const DUE_MAX: usize = 4_096;
/// Generations of rules that are kept.
pub(crate) const GENERATIONS_MAX: usize = 2;
/// Bytes that are read at once.
pub(crate) const RECEIVE_SIZE: usize = 64 * 1024;
/// Bytes that wait for the daemon to read them. With more, neither questions nor reports of servers are taken.
pub(crate) const SEND_QUEUE_SIZE_MAX: usize = 1024 * 1024;
/// Reports of servers that wait for the main thread. With more, the servers' threads wait, and take nothing from their
/// servers.
pub(crate) const REPORTS_MAX: usize = 256;
/// Sentences of a message.
pub(crate) const SENTENCES_MAX: usize = 100;
/// Bytes of a sentence of a message.
pub(crate) const SENTENCE_SIZE_MAX: usize = 500;
const _: () = assert!(UNIT_PENDING_MAX < QUEUE_MAX as u32);
const _: () = assert!((SENTENCES_MAX + 1) * (SENTENCE_SIZE_MAX + 32) < auth_wire::limits::FRAME_SIZE_MAX);

// Tokens.

/// Bytes of a listed token: 128 bits, if they are random and all values of a byte were used.
pub(crate) const TOKEN_SIZE_MIN: usize = 16;
/// Bytes of a listed token.
pub(crate) const TOKEN_SIZE_MAX: usize = 4 * 1024;
/// Bytes of a line of a file with tokens.
pub(crate) const TOKEN_LINE_SIZE_MAX: usize = 8 * 1024;
/// Tokens of a file.
pub(crate) const TOKENS_MAX: usize = 10_000;

// JSON Web Tokens.

/// Bytes of a token.
pub(crate) const JWT_SIZE_MAX: usize = 8 * 1024;
/// Keys of a rule.
pub(crate) const JWT_KEYS_MAX: usize = 64;
/// Difference of the clocks of issuer and helper for which `exp`, `nbf` and `iat` allow (RFC 7519 section 4.1.4).
pub(crate) const JWT_LEEWAY_S: u64 = 30;
/// The last second of the year 9999. A later time is probably in milliseconds.
pub(crate) const JWT_TIME_S_MAX: u64 = 253_402_300_799;
/// Bytes of a secret of HS256 (RFC 7518 section 3.2).
pub(crate) const HMAC_SECRET_SIZE_MIN: usize = 32;
/// Bytes of a secret of HS256.
pub(crate) const HMAC_SECRET_SIZE_MAX: usize = 1024;
/// Bits of the modulus of an RSA key (RFC 7518 section 3.3).
pub(crate) const RSA_BITS_MIN: usize = 2048;
/// Bits of the modulus of an RSA key: above it, a verification takes too long.
pub(crate) const RSA_BITS_MAX: usize = 8192;

// Databases.

/// Rules of a userfilter that apply to a request.
pub(crate) const RULES_MAX: u32 = 10_000;
/// Characters of the pattern of a rule of a userfilter; longer ones match nothing.
pub(crate) const EXPRESSION_SIZE_MAX: u32 = 1024;

// Servers that decide.

/// Questions to a server without an answer.
pub(crate) const SERVER_QUESTIONS_MAX: usize = 64;
/// Bytes of a question to a server.
pub(crate) const SERVER_QUESTION_SIZE_MAX: usize = 16 * 1024;
/// Bytes of a message of a server.
pub(crate) const SERVER_ANSWER_SIZE_MAX: usize = 4 * 1024;
/// Bytes that are taken of a connection that is to end: more than its socket holds.
pub(crate) const SERVER_LAST_SIZE_MAX: usize = 1024 * 1024;
/// Questions and cancellations that are taken before a server is heard again.
pub(crate) const SERVER_COMMANDS_MAX: usize = 64;
/// Time of a server for an answer.
pub(crate) const SERVER_ANSWER_MS: u64 = 5_000;
/// Time between two connections to a server that failed. It doubles each time.
pub(crate) const SERVER_RETRY_MS_MIN: u64 = 100;
/// The longest time between two connections to a server.
pub(crate) const SERVER_RETRY_MS_MAX: u64 = 5_000;
/// Answers of a server that are kept.
pub(crate) const SERVER_CACHE_MAX: usize = 1_024;
/// Time for which an answer is kept: a server that asks for more gets this.
pub(crate) const SERVER_CACHE_S_MAX: u64 = 300;
/// Names of an answer's `vary`.
pub(crate) const SERVER_VARY_MAX: usize = 16;
/// The longest `wait` of an answer.
pub(crate) const SERVER_WAIT_S_MAX: u64 = 3_600;
