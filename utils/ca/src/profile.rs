//! What all certificates have: a key of one kind, a subject with a common name alone, a validity in days.

use rcgen::{DistinguishedName, DnType, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::error::CaError;
use crate::limits::CLOCK_SKEW_MINUTES;

/// A key of the curve P-256.
pub(crate) fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate().map_err(|error| CaError::Crypto(error.to_string()))
}

/// A subject that has a common name alone.
pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// The first and the last second of a certificate that is made now.
pub(crate) fn validity(
    days: u32,
    days_max: u32,
    now: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
    if days == 0 || days > days_max {
        return Err(CaError::Value(format!("--days {days} is not valid: write 1 to {days_max}")));
    }
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let begin = now.checked_sub(Duration::minutes(CLOCK_SKEW_MINUTES));
    let end = now.checked_add(Duration::days(days.into()));
    begin.zip(end).ok_or_else(|| CaError::Value("the clock is wrong: set it first".to_owned()))
}
