//! The folder while an operation uses it: locked, recovered from a crash, and read.

use std::fs::File;
use std::path::Path;

use rcgen::{Issuer, KeyPair, PublicKeyData};
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::crl;
use crate::error::CaError;
use crate::export;
use crate::folder::{CERTIFICATE, CRL, Folder, INDEX, JKS, KEY, NEW_KEY, PKCS12, Plan};
use crate::index::Index;
use crate::limits::INDEX_SIZE_MAX;

/// A folder that no other process changes.
pub(crate) struct Locked {
    pub(crate) folder: Folder,
    _lock: File,
}

impl Locked {
    /// The folder of an authority.
    pub(crate) fn existing(dir: &Path) -> Result<Locked, CaError> {
        let folder = Folder::new(dir);
        folder.check()?;
        if !folder.has(CERTIFICATE) {
            return Err(CaError::NoAuthority(dir.to_owned()));
        }
        let _lock = folder.lock()?;
        Ok(Locked { folder, _lock })
    }

    /// A folder that is created if it is not there.
    pub(crate) fn created(dir: &Path) -> Result<Locked, CaError> {
        let folder = Folder::new(dir);
        folder.create()?;
        let _lock = folder.lock()?;
        Ok(Locked { folder, _lock })
    }

    /// Reads the authority. What a crash has left undone is done first.
    pub(crate) fn open(self, now: OffsetDateTime) -> Result<Open, CaError> {
        self.folder.clear();
        let (authority, authority_pem) = read_certificate(&self.folder)?;
        let (key, place) = read_key(&self.folder, &authority)?;
        let index = read_index(&self.folder)?;
        let mut open = Open { locked: self, authority, authority_pem, key, index };
        open.settle_key(place)?;
        open.settle_exports(now)?;
        open.settle_crl(now)?;
        Ok(open)
    }
}

/// An authority that no other process changes.
pub(crate) struct Open {
    pub(crate) locked: Locked,
    pub(crate) authority: Certificate,
    pub(crate) authority_pem: String,
    pub(crate) key: KeyPair,
    pub(crate) index: Index,
}

impl Open {
    pub(crate) fn folder(&self) -> &Folder {
        &self.locked.folder
    }

    /// The content of the index, which must not be too long to be read again.
    pub(crate) fn index_text(&self) -> Result<String, CaError> {
        let text = self.index.to_text();
        match text.len() <= INDEX_SIZE_MAX {
            true => Ok(text),
            false => Err(CaError::Full(self.folder().path(INDEX))),
        }
    }

    /// What signs.
    pub(crate) fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, CaError> {
        Issuer::from_ca_cert_pem(&self.authority_pem, &self.key).map_err(|error| CaError::Crypto(error.to_string()))
    }

    /// The authority's certificate must be valid, or else what it signs is not.
    pub(crate) fn expect_current(&self, now: OffsetDateTime) -> Result<(), CaError> {
        match () {
            () if now < self.authority.not_before => Err(CaError::NotYetValid),
            () if now > self.authority.not_after => Err(CaError::Expired),
            () => Ok(()),
        }
    }

    /// A renewal with a new key may have ended before or after its certificate was written.
    fn settle_key(&self, place: &str) -> Result<(), CaError> {
        let folder = self.folder();
        match () {
            () if place == NEW_KEY => Plan::new(folder).rename(NEW_KEY, KEY).run(),
            () if folder.has(NEW_KEY) => Plan::new(folder).remove(NEW_KEY).run(),
            () => Ok(()),
        }
    }

    fn settle_exports(&mut self, now: OffsetDateTime) -> Result<(), CaError> {
        let folder = self.folder();
        let fingerprint = self.authority.fingerprint();
        if self.index.exported == Some(fingerprint) && folder.has(PKCS12) && folder.has(JKS) {
            return Ok(());
        }
        self.index.exported = Some(fingerprint);
        let folder = self.folder();
        let plan = self.plan_exports(Plan::new(folder), now)?;
        plan.write(INDEX, self.index_text()?).run()
    }

    /// The trust stores of the current certificate.
    pub(crate) fn plan_exports<'a>(&self, plan: Plan<'a>, now: OffsetDateTime) -> Result<Plan<'a>, CaError> {
        let password = &self.index.storepass;
        let jks = export::jks(&self.authority, password, now)?;
        Ok(plan.publish(PKCS12, export::pkcs12(&self.authority, password)?).publish(JKS, jks))
    }

    /// The list may be older than the index, the authority's certificate, or newer than the index.
    fn settle_crl(&mut self, now: OffsetDateTime) -> Result<(), CaError> {
        let facts =
            self.folder().read_up_to(CRL, INDEX_SIZE_MAX)?.and_then(|bytes| crl::facts(&bytes, &self.authority));
        // An index that was restored from a backup un-revokes nothing.
        let is_older = facts.as_ref().is_some_and(|facts| self.index.take_revoked(&facts.revoked));
        let is_current = |facts: &crl::Facts| {
            facts.number == self.index.crl_number
                && facts.revoked.len() == self.index.all_revoked().count()
                && facts.next_update >= self.authority.not_after
        };
        if !is_older && facts.as_ref().is_some_and(is_current) {
            return Ok(());
        }
        let number = facts.map_or(0, |facts| facts.number).max(self.index.crl_number);
        self.index.crl_number = number.saturating_add(1);
        let list = self.crl(now)?;
        Plan::new(self.folder()).write(INDEX, self.index_text()?).publish(CRL, list).run()
    }

    /// The list that follows from the index.
    pub(crate) fn crl(&self, now: OffsetDateTime) -> Result<String, CaError> {
        crl::make(&self.index, &self.authority, &self.issuer()?, now)
    }
}

/// The authority's certificate, and its file.
pub(crate) fn read_certificate(folder: &Folder) -> Result<(Certificate, String), CaError> {
    let missing = || CaError::NoAuthority(folder.path(""));
    let bytes = folder.read(CERTIFICATE)?.ok_or_else(missing)?;
    let certificate = Certificate::parse(&bytes).map_err(|reason| folder.damaged(CERTIFICATE, reason))?;
    if !certificate.is_authority {
        return Err(folder.damaged(CERTIFICATE, "is no certificate of an authority"));
    }
    let text = String::from_utf8(bytes).map_err(|_| folder.damaged(CERTIFICATE, "is no text"))?;
    Ok((certificate, text))
}

/// The key that fits the certificate, and its file's name.
pub(crate) fn read_key(folder: &Folder, authority: &Certificate) -> Result<(KeyPair, &'static str), CaError> {
    let mut fault = "is missing";
    for name in [KEY, NEW_KEY] {
        let Some(text) = folder.read_private(name)? else { continue };
        match KeyPair::from_pem(&text) {
            Ok(key) if key.subject_public_key_info() == authority.key_der => return Ok((key, name)),
            Ok(_) => fault = "does not fit ca.pem",
            Err(_) if name == KEY => fault = "is no private key",
            Err(_) => {}
        }
    }
    Err(folder.damaged(KEY, fault))
}

pub(crate) fn read_index(folder: &Folder) -> Result<Index, CaError> {
    let bytes = folder.read_up_to(INDEX, INDEX_SIZE_MAX)?.ok_or_else(|| folder.damaged(INDEX, "is missing"))?;
    Index::parse(&bytes).map_err(|reason| folder.damaged(INDEX, reason))
}
