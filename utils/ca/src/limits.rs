//! Every limit of the authority, with its unit in its name.

/// Longest name of a certificate.
pub const NAME_SIZE_MAX: usize = 64;
/// Longest DNS name (RFC 1035 section 2.3.4, as text).
pub const HOST_SIZE_MAX: usize = 253;
/// Names and addresses of one certificate.
pub const HOSTS_MAX: usize = 256;
/// Longest common name of an authority (RFC 5280 appendix A, ub-common-name).
pub const COMMON_NAME_SIZE_MAX: usize = 64;
/// Longest CSR or certificate that is parsed.
pub const REQUEST_SIZE_MAX: usize = 64 * 1024;
/// Longest file that is read from the authority's folder, the index excepted.
pub const FILE_SIZE_MAX: usize = 1024 * 1024;
/// Longest index: `CERTIFICATES_MAX` lines, and tokens.
pub const INDEX_SIZE_MAX: usize = 32 * 1024 * 1024;
/// Longest wait for another process that changes the folder.
pub(crate) const LOCK_MS: u64 = if cfg!(test) { 2_000 } else { 20_000 };
/// Time between two attempts to lock the folder.
pub(crate) const LOCK_RETRY_MS: u64 = 10;
/// Certificates in an index, since the beginning.
pub const CERTIFICATES_MAX: usize = 100_000;
/// Valid certificates with one name, of those that its owner renews: nobody fills the index alone.
pub(crate) const NAME_CERTIFICATES_MAX: usize = 16;
/// Tokens that are neither used nor expired.
pub const TOKENS_MAX: usize = 1000;
/// Validity of a token if none is given.
pub const TOKEN_HOURS: u32 = 24;
/// Longest validity of a token: 30 days.
pub const TOKEN_HOURS_MAX: u32 = 30 * 24;
/// Random bytes of a token.
pub(crate) const TOKEN_SIZE: usize = 32;
/// Validity of the authority's certificate and of others if none is given.
pub const DAYS: u32 = 365;
/// Longest validity: ten years.
pub const DAYS_MAX: u32 = 3650;
/// Longest validity of a server's certificate. Browsers refuse more (Baseline Requirements section 6.3.2 before 2026).
pub const SERVER_DAYS_MAX: u32 = 397;
/// Shortest validity of the certificate for this machine, which is renewed `RENEWAL_DAYS` before its end.
pub(crate) const SELF_SIGNED_DAYS_MIN: u32 = 60;
const _: () = assert!(SELF_SIGNED_DAYS_MIN as i64 > RENEWAL_DAYS);
/// A certificate is to be renewed when its end is nearer than this.
pub const RENEWAL_DAYS: i64 = 30;
/// Certificates are valid from this time before their making on, since clocks differ.
pub(crate) const CLOCK_SKEW_MINUTES: i64 = 10;
/// Shortest time until the next CRL is due, for an authority that is about to expire.
pub(crate) const CRL_DAYS_MIN: i64 = 30;
/// Shortest and longest password of a trust store; keytool refuses shorter ones.
pub const STOREPASS_SIZE_MIN: usize = 6;
/// See `STOREPASS_SIZE_MIN`.
pub const STOREPASS_SIZE_MAX: usize = 64;
