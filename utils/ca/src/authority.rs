//! An authority: its making, its renewal, revocations, exports.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SerialNumber};
use time::OffsetDateTime;

use crate::certificate::{Certificate, Serial, hex, random};
use crate::error::CaError;
use crate::export::{STOREPASS, check_storepass};
use crate::folder::{CERTIFICATE, CRL, Folder, INDEX, JKS, KEY, NEW_KEY, PKCS12, Plan};
use crate::host;
use crate::index::{Entry, Index};
use crate::limits::{COMMON_NAME_SIZE_MAX, DAYS, DAYS_MAX};
use crate::name::Name;
use crate::open::{Locked, Open, read_certificate, read_index};
use crate::profile::{common_name, new_key, validity};
use crate::status::Status;

/// A folder with a certificate authority. Each call locks and reads it, since other processes change it too.
#[derive(Clone, Debug)]
pub struct Authority {
    dir: PathBuf,
}

/// An authority to be made.
#[derive(Clone, Debug, Default)]
pub struct Founding {
    /// How long its certificate is valid. None: a year.
    pub days: Option<u32>,
    /// Its common name. None: one that no other authority has.
    pub name: Option<String>,
}

/// A renewal of the authority's certificate.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// How long it is valid. None: as long as the earlier one was.
    pub days: Option<u32>,
    /// Make a new key and a new common name. Certificates that were given out are then no longer trusted.
    pub new_key: bool,
}

/// The files to give to others.
#[derive(Clone, Debug)]
pub struct Exports {
    /// PEM.
    pub certificate: PathBuf,
    /// PKCS#12.
    pub pkcs12: PathBuf,
    /// JKS.
    pub jks: PathBuf,
}

impl Authority {
    /// The authority in this folder, which need not exist.
    pub fn at(dir: impl Into<PathBuf>) -> Authority {
        Authority { dir: dir.into() }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a process of root that of the folder's owner for good, and is to be called before all else. Nothing
    /// happens if the folder is this user's, or is not there.
    pub fn become_owner(&self) -> Result<(), CaError> {
        Folder::new(&self.dir).become_owner()
    }

    /// Whether its folder is that of another user than root, who runs this.
    pub(crate) fn is_to_become_owner(&self) -> bool {
        Uid::effective().is_root() && Folder::new(&self.dir).other_owner().is_some()
    }

    /// Whether a process of this user may use its folder.
    pub(crate) fn expect_owner(&self, user: &str) -> Result<(), CaError> {
        Folder::new(&self.dir).expect_owner(user)
    }

    /// Whether it can be locked, read and changed.
    pub(crate) fn expect_usable(&self, now: OffsetDateTime) -> Result<(), CaError> {
        Locked::existing(&self.dir)?.open(now)?.folder().expect_writable()
    }

    /// Its state. A folder that is missing or broken is invalid.
    pub fn status(&self, now: OffsetDateTime) -> Status {
        Status::read(&Folder::new(&self.dir), now)
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> Result<String, CaError> {
        let folder = Folder::new(&self.dir);
        folder.check()?;
        read_certificate(&folder).map(|(_, text)| text)
    }

    /// The file of its certificate.
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join(CERTIFICATE)
    }

    /// Makes an authority.
    pub fn init(&self, founding: &Founding, now: OffsetDateTime) -> Result<Status, CaError> {
        let locked = Locked::created(&self.dir)?;
        if locked.folder.has(CERTIFICATE) {
            return Err(CaError::Exists(self.dir.clone()));
        }
        locked.found(founding, now)?;
        Ok(self.status(now))
    }

    /// Renews its certificate. Certificates that were given out stay valid, unless it gets a new key.
    pub fn renew(&self, renewal: &Renewal, now: OffsetDateTime) -> Result<Status, CaError> {
        Locked::existing(&self.dir)?.open(now)?.renew(renewal, now)?;
        Ok(self.status(now))
    }

    /// Revokes the certificate with this serial number and all other valid ones with its name, which have its key; or
    /// all valid ones with this name. Returns the serial numbers.
    pub fn revoke(&self, which: &str, now: OffsetDateTime) -> Result<Vec<String>, CaError> {
        let mut open = Locked::existing(&self.dir)?.open(now)?;
        let serial: Option<Serial> = which.parse().ok();
        if let Some(serial) = serial.filter(|serial| open.index.has_revoked(*serial)) {
            return Err(CaError::Revoked(serial.to_string()));
        }
        let serials: Vec<Serial> = match serial.and_then(|serial| open.index.find(serial)) {
            Some(entry) if entry.revoked.is_some() => return Err(CaError::Revoked(entry.serial.to_string())),
            Some(entry) => {
                let is_revoked =
                    |other: &&Entry| other.serial == entry.serial || other.name == entry.name && other.is_valid(now);
                open.index.certificates.iter().filter(is_revoked).map(|other| other.serial).collect()
            }
            None => {
                let named: Vec<_> =
                    open.index.certificates.iter().filter(|entry| entry.name.as_str() == which).collect();
                let valid: Vec<_> =
                    named.iter().filter(|entry| entry.is_valid(now)).map(|entry| entry.serial).collect();
                match named.iter().rev().find(|entry| entry.revoked.is_some()) {
                    Some(revoked) if valid.is_empty() => return Err(CaError::Revoked(revoked.serial.to_string())),
                    _ if valid.is_empty() => return Err(CaError::Unknown(which.escape_debug().to_string())),
                    _ => valid,
                }
            }
        };
        for entry in &mut open.index.certificates {
            if serials.contains(&entry.serial) {
                entry.revoked = Some(now);
            }
        }
        open.index.crl_number = open.index.crl_number.saturating_add(1);
        let list = open.crl(now)?;
        Plan::new(open.folder()).write(INDEX, open.index_text()?).publish(CRL, list).run()?;
        Ok(serials.iter().map(Serial::to_string).collect())
    }

    /// Withdraws all tokens with this name. Returns how many.
    pub fn withdraw(&self, name: &Name, now: OffsetDateTime) -> Result<usize, CaError> {
        let mut open = Locked::existing(&self.dir)?.open(now)?;
        let before = open.index.tokens.len();
        open.index.tokens.retain(|token| token.name != *name);
        let count = before - open.index.tokens.len();
        Plan::new(open.folder()).write(INDEX, open.index_text()?).run()?;
        Ok(count)
    }

    /// Writes the trust stores again, with this password. None: the one that they have.
    pub fn export(&self, storepass: Option<&str>, now: OffsetDateTime) -> Result<Exports, CaError> {
        storepass.map_or(Ok(()), check_storepass)?;
        let mut open = Locked::existing(&self.dir)?.open(now)?;
        if let Some(storepass) = storepass {
            open.index.storepass = storepass.to_owned();
        }
        // Until the stores are written, the index says that they are to be written.
        open.index.exported = None;
        let before = open.index_text()?;
        open.index.exported = Some(open.authority.fingerprint());
        let plan = Plan::new(open.folder()).write(INDEX, before);
        open.plan_exports(plan, now)?.write(INDEX, open.index_text()?).run()?;
        let path = |name| open.folder().path(name);
        Ok(Exports { certificate: path(CERTIFICATE), pkcs12: path(PKCS12), jks: path(JKS) })
    }
}

impl Locked {
    /// Makes an authority in this folder, whose certificate is missing. A key and an index that are there are kept: they
    /// are of an interrupted `init`. If certificates were given out, the authority's was lost.
    pub(crate) fn found(self, founding: &Founding, now: OffsetDateTime) -> Result<Open, CaError> {
        let folder = &self.folder;
        let name = match &founding.name {
            Some(name) => checked_common_name(name)?,
            None => unique_common_name()?,
        };
        let kept = folder.read_private(KEY)?;
        let key = match &kept {
            Some(text) => KeyPair::from_pem(text).map_err(|_| folder.damaged(KEY, "is no private key"))?,
            None => new_key()?,
        };
        let mut index = if folder.has(INDEX) { read_index(folder)? } else { Index::default() };
        if !index.certificates.is_empty() {
            return Err(folder.damaged(CERTIFICATE, "is missing, and certificates were given out"));
        }
        if index.storepass.is_empty() {
            index.storepass = STOREPASS.to_owned();
        }
        let (authority, authority_pem) = make_certificate(&name, founding.days.unwrap_or(DAYS), &key, now)?;
        let mut open = Open { locked: self, authority, authority_pem, key, index };
        open.index.exported = Some(open.authority.fingerprint());
        open.index.crl_number = open.index.crl_number.saturating_add(1);
        let plan = Plan::new(open.folder());
        let plan = if kept.is_some() { plan } else { plan.write(KEY, open.key.serialize_pem()) };
        let plan = open.plan_exports(plan, now)?.publish(CRL, open.crl(now)?).write(INDEX, open.index_text()?);
        // The certificate is last: without it there is no authority yet.
        plan.publish(CERTIFICATE, &*open.authority_pem).run()?;
        Ok(open)
    }
}

impl Open {
    /// See `Authority::renew`.
    pub(crate) fn renew(mut self, renewal: &Renewal, now: OffsetDateTime) -> Result<Open, CaError> {
        // A clock that was not set would make a certificate of the past.
        if now < self.authority.not_before {
            return Err(CaError::NotYetValid);
        }
        let days = renewal.days.unwrap_or_else(|| self.authority.days(DAYS_MAX));
        let name = self.authority.common_name.clone();
        let name = name.ok_or_else(|| self.folder().damaged(CERTIFICATE, "has not one common name"))?;
        let (name, key) = match renewal.new_key {
            true => (changed_common_name(&name)?, Some(new_key()?)),
            false => (name, None),
        };
        let signer = key.as_ref().unwrap_or(&self.key);
        (self.authority, self.authority_pem) = make_certificate(&name, days, signer, now)?;
        let new_key = key.as_ref().map(KeyPair::serialize_pem);
        if let Some(key) = key {
            self.key = key;
        }
        self.index.exported = Some(self.authority.fingerprint());
        self.index.crl_number = self.index.crl_number.saturating_add(1);
        let plan = Plan::new(self.folder());
        // The index is last: as long as it names the earlier certificate, `open` writes the files that follow from it.
        let plan = match new_key {
            Some(key) => plan.write(NEW_KEY, key).publish(CERTIFICATE, &*self.authority_pem).rename(NEW_KEY, KEY),
            None => plan.publish(CERTIFICATE, &*self.authority_pem),
        };
        self.plan_exports(plan, now)?.publish(CRL, self.crl(now)?).write(INDEX, self.index_text()?).run()?;
        Ok(self)
    }
}

/// A certificate of an authority, signed by its own key, and its PEM. Its subject key identifier follows from the key alone, so that
/// it is the same after a renewal.
fn make_certificate(
    name: &str,
    days: u32,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<(Certificate, String), CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(Serial::random()?.bytes()));
    (params.not_before, params.not_after) = validity(days, DAYS_MAX, now)?;
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signed = params.self_signed(key).map_err(|error| CaError::Crypto(error.to_string()))?;
    Ok((Certificate::parse(signed.der()).map_err(CaError::Crypto)?, signed.pem()))
}

/// A common name for an authority. Browsers refuse two authorities that have one name and different keys.
fn unique_common_name() -> Result<String, CaError> {
    let begin = format!("uakari authority {}", hex(&random::<4>()?));
    let name = match host::name() {
        Some(host) => format!("{begin} ({host})"),
        None => begin.clone(),
    };
    Ok(if name.len() <= COMMON_NAME_SIZE_MAX { name } else { begin })
}

/// A name with other random digits: those of `unique_common_name`, or new ones at its end.
fn changed_common_name(name: &str) -> Result<String, CaError> {
    let digits = hex(&random::<4>()?);
    let is_digits = |word: &str| word.len() == digits.len() && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut words: Vec<&str> = name.split(' ').collect();
    match words.iter().rposition(|word| is_digits(word)) {
        Some(at) => words[at] = &digits,
        None => words.push(&digits),
    }
    let mut changed = words.join(" ");
    if changed.len() > COMMON_NAME_SIZE_MAX {
        changed = format!("uakari authority {digits}");
    }
    Ok(changed)
}

fn checked_common_name(name: &str) -> Result<String, CaError> {
    if name.trim().is_empty() || name.len() > COMMON_NAME_SIZE_MAX || name.chars().any(char::is_control) {
        return Err(CaError::Value(format!(
            "--name: write 1 to {COMMON_NAME_SIZE_MAX} bytes without control characters"
        )));
    }
    Ok(name.to_owned())
}
