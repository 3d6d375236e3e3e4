//! Certificates for clients and servers.

use std::path::PathBuf;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
    SubjectPublicKeyInfo,
};
use time::OffsetDateTime;

use crate::authority::Authority;
use crate::certificate::{Certificate, Serial};
use crate::error::CaError;
use crate::folder::{INDEX, Plan, certificate_of, key_of};
use crate::index::{Entry, Kind};
use crate::limits::{CERTIFICATES_MAX, DAYS, DAYS_MAX, REQUEST_SIZE_MAX, SERVER_DAYS_MAX};
use crate::name::{Host, Name, distinct};
use crate::open::{Locked, Open};
use crate::profile::{common_name, new_key, validity};
use crate::request::Request;

/// A certificate that was signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its name.
    pub name: String,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// The certificate.
    pub certificate_pem: String,
    /// Its last second.
    pub not_after: OffsetDateTime,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub issued: Issued,
    /// Its file.
    pub certificate: PathBuf,
    /// The file of its key. None: the authority does not have it.
    pub key: Option<PathBuf>,
}

/// A certificate to be made.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: Kind,
    /// More names and addresses of a server.
    pub hosts: Vec<Host>,
    /// How long it is valid. None: a year.
    pub days: Option<u32>,
}

/// What is made of a CSR.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The certificate's name. None: the subject's common name.
    pub name: Option<Name>,
    /// What it is for. A server's names and addresses are those of the CSR.
    pub kind: Kind,
    /// How long it is valid. None: a year.
    pub days: Option<u32>,
}

impl Authority {
    /// Makes a key and a certificate.
    pub fn issue(&self, wish: &Wish, now: OffsetDateTime) -> Result<Pair, CaError> {
        let mut open = Locked::existing(self.dir())?.open(now)?;
        open.expect_free(&wish.name, now)?;
        let hosts = hosts_of(&wish.name, wish.kind, &wish.hosts)?;
        let key = new_key()?;
        let issued = open.sign(&wish.name, wish.kind, &hosts, wish.days, &key, now)?;
        open.keep(&wish.name, Some(&key), &issued)
    }

    /// Makes a certificate of a CSR.
    pub fn sign(&self, csr: &[u8], signing: &Signing, now: OffsetDateTime) -> Result<Issued, CaError> {
        let request = Request::parse(csr)?;
        let name = match (&signing.name, &request.common_name) {
            (Some(name), _) => name.clone(),
            (None, Some(common_name)) => Name::new(common_name)?,
            (None, None) => {
                return Err(CaError::Name("the subject has not one common name: give --name NAME".to_owned()));
            }
        };
        let hosts =
            if signing.kind.is_server() { hosts_of(&name, signing.kind, &request.hosts()?)? } else { Vec::new() };
        let mut open = Locked::existing(self.dir())?.open(now)?;
        open.expect_free(&name, now)?;
        open.expect_no_other_key(&name, &request.key_der())?;
        let issued = open.sign(&name, signing.kind, &hosts, signing.days, &request.key, now)?;
        open.keep(&name, None, &issued)?;
        Ok(issued)
    }

    /// Renews a certificate in `issued`: the same key and names, and as many days if none are given. The earlier one
    /// stays valid until its end.
    pub fn renew_issued(&self, name: &Name, days: Option<u32>, now: OffsetDateTime) -> Result<Pair, CaError> {
        let mut open = Locked::existing(self.dir())?.open(now)?;
        let file = certificate_of(name);
        let bytes = open.folder().read(&file)?.ok_or_else(|| CaError::Unknown(name.to_string()))?;
        let earlier = Certificate::parse(&bytes).map_err(|reason| open.folder().damaged(&file, reason))?;
        let entry = open.entry_of(&earlier)?.clone();
        let key = subject_key(&earlier)?;
        let days = days.unwrap_or_else(|| earlier.days(days_max(entry.kind)));
        let issued = open.sign(name, entry.kind, earlier.hosts(), Some(days), &key, now)?;
        open.keep(name, None, &issued)
    }
}

impl Open {
    /// No valid certificate may have this name.
    pub(crate) fn expect_free(&self, name: &Name, now: OffsetDateTime) -> Result<(), CaError> {
        match self.index.valid_with_name(name, now) {
            Some(entry) => Err(CaError::Taken { name: name.to_string(), serial: entry.serial.to_string() }),
            None => Ok(()),
        }
    }

    /// A key in `issued` with this name must be this one, since it would not fit the certificate, and may be needed.
    pub(crate) fn expect_no_other_key(&self, name: &Name, key_der: &[u8]) -> Result<(), CaError> {
        let file = key_of(name);
        let Some(text) = self.folder().read_private(&file)? else { return Ok(()) };
        match KeyPair::from_pem(&text) {
            Ok(key) if key.subject_public_key_info() == key_der => Ok(()),
            _ => Err(CaError::KeyThere(self.folder().path(&file))),
        }
    }

    /// The entry of a certificate of this authority's, which must not be revoked.
    pub(crate) fn entry_of(&self, certificate: &Certificate) -> Result<&Entry, CaError> {
        let entry = certificate.serial.and_then(|serial| self.index.find(serial));
        if let Some(serial) = certificate.serial.filter(|serial| self.index.has_revoked(*serial)) {
            return Err(CaError::Revoked(serial.to_string()));
        }
        let entry = entry.ok_or_else(|| CaError::Unknown("the certificate".to_owned()))?;
        match entry.revoked {
            Some(_) => Err(CaError::Revoked(entry.serial.to_string())),
            None => Ok(entry),
        }
    }

    /// Signs a certificate and adds it to the index in memory. It must not be given out before the index is written.
    pub(crate) fn sign(
        &mut self,
        name: &Name,
        kind: Kind,
        hosts: &[Host],
        days: Option<u32>,
        key: &impl PublicKeyData,
        now: OffsetDateTime,
    ) -> Result<Issued, CaError> {
        self.expect_current(now)?;
        if self.index.certificates.len() >= CERTIFICATES_MAX {
            return Err(CaError::Full(self.folder().path(INDEX)));
        }
        let serial = Serial::random()?;
        let (not_before, not_after) = validity(days.unwrap_or(DAYS), days_max(kind), now)?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial.bytes()));
        (params.not_before, params.not_after) = (not_before, not_after);
        params.distinguished_name = common_name(name.as_str());
        params.subject_alt_names = hosts.iter().map(Host::subject_alt_name).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let usages = [
            (kind.is_server(), ExtendedKeyUsagePurpose::ServerAuth),
            (kind.is_client(), ExtendedKeyUsagePurpose::ClientAuth),
        ];
        params.extended_key_usages =
            usages.into_iter().filter(|(is_used, _)| *is_used).map(|(_, usage)| usage).collect();
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(key, &self.issuer()?).map_err(|error| CaError::Crypto(error.to_string()))?;
        if signed.pem().len() > REQUEST_SIZE_MAX {
            return Err(CaError::Name(format!("{name}: the certificate is too long: give it fewer or shorter names")));
        }
        self.index.certificates.push(Entry { serial, kind, name: name.clone(), not_after, revoked: None });
        Ok(Issued { name: name.to_string(), serial: serial.to_string(), certificate_pem: signed.pem(), not_after })
    }

    /// Writes the index, then the certificate, with a new key before both of them.
    pub(crate) fn keep(&self, name: &Name, key: Option<&KeyPair>, issued: &Issued) -> Result<Pair, CaError> {
        let folder = self.folder();
        let plan = Plan::new(folder);
        let plan = match key {
            Some(key) => plan.write(key_of(name), key.serialize_pem()),
            None => plan,
        };
        plan.write(INDEX, self.index_text()?).publish(certificate_of(name), issued.certificate_pem.clone()).run()?;
        let key = Some(key_of(name)).filter(|file| folder.has(file)).map(|file| folder.path(&file));
        Ok(Pair { issued: issued.clone(), certificate: folder.path(&certificate_of(name)), key })
    }
}

/// The hosts of a certificate: its name, if it is one, and more. Clients have none.
pub(crate) fn hosts_of(name: &Name, kind: Kind, more: &[Host]) -> Result<Vec<Host>, CaError> {
    if !kind.is_server() {
        return match more.first() {
            Some(_) => Err(CaError::Value(
                "only certificates of servers have names and addresses: give --server too".to_owned(),
            )),
            None => Ok(Vec::new()),
        };
    }
    let hosts = distinct(Host::new(name.as_str()).into_iter().chain(more.iter().cloned()))?;
    if hosts.is_empty() {
        return Err(CaError::Name(format!("{name} is no host: give the server's names and addresses")));
    }
    Ok(hosts)
}

/// Longest validity in days of a certificate of this kind.
pub(crate) fn days_max(kind: Kind) -> u32 {
    if kind.is_server() { SERVER_DAYS_MAX } else { DAYS_MAX }
}

/// The key of a certificate.
pub(crate) fn subject_key(certificate: &Certificate) -> Result<SubjectPublicKeyInfo, CaError> {
    SubjectPublicKeyInfo::from_der(&certificate.key_der).map_err(|error| CaError::Crypto(error.to_string()))
}
