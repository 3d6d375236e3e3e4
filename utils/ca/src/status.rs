//! The state of an authority.

use std::fmt;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::certificate::{Certificate, hex};
use crate::error::CaError;
use crate::folder::Folder;
use crate::index::{Index, format_time};
use crate::limits::RENEWAL_DAYS;
use crate::open::{read_certificate, read_index, read_key};

const SECONDS_OF_DAY: i64 = 24 * 60 * 60;

/// Whether an authority can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// For more than 30 days.
    Valid,
    /// For 30 days or less.
    Expiring,
    /// The reason.
    Invalid(String),
}

/// The state of an authority, and what it has given out.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it can be used.
    pub state: State,
    /// Its certificate. None: it cannot be read.
    pub certificate: Option<Certificate>,
    /// Days until the certificate ends, the last one begun; 0 or less: it has ended.
    pub days_left: Option<i64>,
    /// Certificates that are neither revoked nor expired.
    pub valid: usize,
    /// Those of them that end within 30 days.
    pub expiring: usize,
    /// Certificates that are expired and not revoked.
    pub expired: usize,
    /// Certificates that are revoked.
    pub revoked: usize,
    /// Tokens that can still be used.
    pub tokens: usize,
}

impl Status {
    /// Reads the folder without changing it.
    pub(crate) fn read(folder: &Folder, now: OffsetDateTime) -> Status {
        let invalid = |error: CaError| State::Invalid(error.to_string());
        let mut status = Status {
            state: State::Valid,
            certificate: None,
            days_left: None,
            valid: 0,
            expiring: 0,
            expired: 0,
            revoked: 0,
            tokens: 0,
        };
        if let Err(error) = folder.check() {
            status.state = invalid(error);
            return status;
        }
        let _lock = match folder.lock_shared() {
            Ok(lock) => lock,
            Err(error) => {
                status.state = invalid(error);
                return status;
            }
        };
        let index = read_index(folder).map(|index| status.count(&index, now));
        let (certificate, _) = match read_certificate(folder) {
            Ok(read) => read,
            Err(error) => {
                status.state = invalid(error);
                return status;
            }
        };
        let days = days_between(now, certificate.not_after);
        let key = read_key(folder, &certificate).map(|_| ());
        status.state = match key.and(index) {
            Err(error) => invalid(error),
            Ok(()) if now > certificate.not_after => {
                State::Invalid(format!("expired on {}", date(certificate.not_after)))
            }
            Ok(()) if now < certificate.not_before => {
                State::Invalid(format!("not valid before {}", date(certificate.not_before)))
            }
            Ok(()) if days <= RENEWAL_DAYS => State::Expiring,
            Ok(()) => State::Valid,
        };
        (status.certificate, status.days_left) = (Some(certificate), Some(days));
        status
    }

    fn count(&mut self, index: &Index, now: OffsetDateTime) {
        for entry in &index.certificates {
            match () {
                () if entry.revoked.is_some() => self.revoked += 1,
                () if now > entry.not_after => self.expired += 1,
                () => {
                    self.valid += 1;
                    self.expiring += usize::from(days_between(now, entry.not_after) <= RENEWAL_DAYS);
                }
            }
        }
        self.revoked += index.revoked.len();
        self.tokens = index.tokens.iter().filter(|token| now <= token.expires).count();
    }

    /// The status as JSON, with the names of docs/authority.md.
    pub fn json(&self) -> Value {
        let (state, reason) = match &self.state {
            State::Valid => ("valid", None),
            State::Expiring => ("expiring", None),
            State::Invalid(reason) => ("invalid", Some(reason)),
        };
        let certificate = self.certificate.as_ref();
        json!({
            "state": state,
            "reason": reason,
            "name": certificate.and_then(|certificate| certificate.common_name.as_ref()),
            "serial": certificate.and_then(|certificate| certificate.serial).map(|serial| serial.to_string()),
            "fingerprint": certificate.map(|certificate| hex(&certificate.fingerprint())),
            "not_before": certificate.map(|certificate| format_time(certificate.not_before)),
            "not_after": certificate.map(|certificate| format_time(certificate.not_after)),
            "days_left": self.days_left,
            "certificates": {
                "valid": self.valid, "expiring": self.expiring, "expired": self.expired, "revoked": self.revoked,
            },
            "tokens": self.tokens,
        })
    }

    /// The exit status of `uakari-ca status`.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            State::Valid => 0,
            State::Expiring => 1,
            State::Invalid(_) => 2,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.days_left.unwrap_or_default();
        let days = if days == 1 { "1 day left".to_owned() } else { format!("{days} days left") };
        match &self.state {
            State::Valid => write!(f, "valid, {days}")?,
            State::Expiring => write!(f, "{days}: run uakari-ca renew")?,
            State::Invalid(reason) => write!(f, "invalid: {reason}")?,
        }
        if let Some(certificate) = &self.certificate {
            let name = certificate.common_name.as_deref().unwrap_or_default();
            write!(f, "\nname: {}", name.escape_debug())?;
            write!(f, "\nvalid until: {}", format_time(certificate.not_after))?;
            // As browsers and openssl print it.
            let bytes = certificate.fingerprint().map(|byte| format!("{byte:02X}"));
            write!(f, "\nSHA-256 fingerprint: {}", bytes.join(":"))?;
        }
        write!(
            f,
            "\ncertificates: {} valid, {} of them for 30 days or less, {} expired, {} revoked",
            self.valid, self.expiring, self.expired, self.revoked
        )?;
        write!(f, "\ntokens: {}", self.tokens)
    }
}

/// Days from one time to another, the last one begun.
fn days_between(from: OffsetDateTime, to: OffsetDateTime) -> i64 {
    let seconds = (to - from).whole_seconds();
    seconds.div_euclid(SECONDS_OF_DAY) + i64::from(seconds.rem_euclid(SECONDS_OF_DAY) > 0)
}

/// The day of a time.
fn date(time: OffsetDateTime) -> String {
    time.date().to_string()
}
