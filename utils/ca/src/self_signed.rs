//! An authority and a certificate for this machine, for `uakari --tls-self-signed`.

use std::path::PathBuf;

use rcgen::{KeyPair, PublicKeyData};
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, Founding, Renewal};
use crate::certificate::Certificate;
use crate::error::CaError;
use crate::folder::{CERTIFICATE, certificate_of, key_of};
use crate::host;
use crate::index::Kind;
use crate::limits::{DAYS_MAX, RENEWAL_DAYS, SELF_SIGNED_DAYS_MIN, SERVER_DAYS_MAX};
use crate::name::{Host, Name};
use crate::open::{Locked, Open};
use crate::profile::new_key;

/// The certificate's name.
const NAME: &str = "server";

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the certificate can be used.
    Kept,
    /// A certificate was issued, with the key of the earlier one if there was one.
    Issued,
    /// An authority was made, and a certificate issued.
    Created,
}

/// The certificate for this machine.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// The authority's certificate, for clients to trust.
    pub authority: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What was done.
    pub action: Action,
    /// Its names and addresses.
    pub hosts: Vec<Host>,
    /// What the operator has to do: sentences.
    pub notices: Vec<String>,
}

impl Authority {
    /// Makes what is missing, and renews what ends within 30 days: the authority's certificate with its key, and a
    /// certificate for all names and addresses of this machine. `days` are that one's; None: a year. The authority's is
    /// valid for ten years, since clients import it by hand. What begins later is kept: the clock was not set.
    pub fn self_signed(&self, days: Option<u32>, now: OffsetDateTime) -> Result<SelfSigned, CaError> {
        if let Some(days) = days.filter(|days| !(SELF_SIGNED_DAYS_MIN..=SERVER_DAYS_MAX).contains(days)) {
            return Err(CaError::Value(format!(
                "--days {days} is not valid: write {SELF_SIGNED_DAYS_MIN} to {SERVER_DAYS_MAX}"
            )));
        }
        let name = Name::new(NAME)?;
        let hosts = host::hosts()?;
        let locked = Locked::created(self.dir())?;
        let is_new = !locked.folder.has(CERTIFICATE);
        let founding = Founding { days: Some(DAYS_MAX), name: None };
        let mut open = if is_new { locked.found(&founding, now)? } else { locked.open(now)? };
        let mut notices = Vec::new();
        let end = open.authority.not_after;
        if end - now <= Duration::days(RENEWAL_DAYS) {
            open = open.renew(&Renewal::default(), now)?;
            let when = match now <= end {
                true => format!("before {}, when the earlier one ends", end.date()),
                false => format!("now: the earlier one ended on {}", end.date()),
            };
            let path = open.folder().path(CERTIFICATE);
            notices.push(format!("the authority's certificate was renewed: give {} to clients {when}", path.display()));
        }
        let kept = open.current(&name, &hosts, now)?;
        let action = match &kept {
            Some(_) => Action::Kept,
            None if is_new => Action::Created,
            None => Action::Issued,
        };
        let hosts = match kept {
            Some(certificate) => {
                let begin = certificate.not_before.max(open.authority.not_before);
                if now < begin {
                    notices.push(format!(
                        "the certificates are valid from {} on, which is later than now: set the clock",
                        begin.date()
                    ));
                }
                certificate.hosts().to_vec()
            }
            None => {
                // Years of address changes would fill the index.
                open.index
                    .certificates
                    .retain(|entry| entry.name != name || entry.revoked.is_some() || now <= entry.not_after);
                let earlier = open.key_of(&name)?;
                let made = if earlier.is_none() { Some(new_key()?) } else { None };
                let Some(key) = earlier.as_ref().or(made.as_ref()) else {
                    return Err(CaError::Crypto("no key was made".to_owned()));
                };
                let issued = open.sign(&name, Kind::Server, &hosts, days, key, now)?;
                open.keep(&name, made.as_ref(), &issued)?;
                hosts
            }
        };
        let path = |file: &str| open.folder().path(file);
        let (certificate, key) = (path(&certificate_of(&name)), path(&key_of(&name)));
        Ok(SelfSigned { authority: path(CERTIFICATE), certificate, key, action, hosts, notices })
    }
}

impl Open {
    /// The certificate with this name, if it can be used for these hosts. None: a new one is needed.
    fn current(&self, name: &Name, hosts: &[Host], now: OffsetDateTime) -> Result<Option<Certificate>, CaError> {
        let Some(bytes) = self.folder().read(&certificate_of(name))? else { return Ok(None) };
        let Ok(certificate) = Certificate::parse(&bytes) else { return Ok(None) };
        let key = self.key_of(name)?;
        let is_usable = key.is_some_and(|key| key.subject_public_key_info() == certificate.key_der)
            && certificate.not_after - now > Duration::days(RENEWAL_DAYS)
            && certificate.is_issued_by(&self.authority)
            && self.entry_of(&certificate).is_ok()
            && hosts.iter().all(|host| certificate.hosts().contains(host));
        Ok(Some(certificate).filter(|_| is_usable))
    }

    /// The key in `issued`. None: there is none. One that is not understood may be another program's, and is kept.
    fn key_of(&self, name: &Name) -> Result<Option<KeyPair>, CaError> {
        let Some(text) = self.folder().read_private(&key_of(name))? else { return Ok(None) };
        KeyPair::from_pem(&text).map(Some).map_err(|_| self.folder().damaged(&key_of(name), "is no private key"))
    }
}
