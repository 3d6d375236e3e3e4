//! The contents of the files of the group `tls`, parsed: the chain of the server's certificate, its private key, the
//! authorities of clients and their revocation lists.

use std::sync::Arc;

use ring::digest;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls::{CertificateError, client};

use super::error::{FileRole, MaterialCause, MaterialError, MaterialNotice, MaterialWarning};
use super::x509::{self, Certificate, RevocationList, Validity};
use crate::limits::{CERTIFICATES_MAX, CHAIN_MAX};

/// Whether clients present a certificate of their own in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// They are not asked for one.
    #[default]
    None,
    /// They are asked; one that is presented must be valid.
    Optional,
    /// A handshake without a valid certificate fails.
    Required,
}

/// Whose TLS records the kernel makes and opens, where it can (`tls-offload`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Offload {
    /// Those of clients that are handed over to a backend.
    #[default]
    Direct,
    /// Those of all clients with a WebSocket.
    All,
    /// None.
    Off,
}

/// The contents of the files of the group `tls`, in PEM or DER, and the settings of handshakes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Material {
    /// The server's certificate, and possibly intermediate ones.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Further intermediate certificates.
    pub chain: Option<Vec<u8>>,
    /// The authorities that sign the certificates of clients, or of nodes. Those of clients are not used unless they are
    /// asked for certificates.
    pub client_ca: Option<Vec<u8>>,
    /// Their revocation lists. Not used unless clients are asked for certificates.
    pub crl: Option<Vec<u8>>,
    /// Whether clients are asked for certificates.
    pub verify: Verify,
    /// Whose records the kernel makes.
    pub offload: Offload,
}

/// Digests of the files, in the order of `FileRole::ALL`. None: there is no such file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprints([Option<[u8; 32]>; 5]);

impl Fingerprints {
    /// Whether a file differs from another one.
    pub fn differ(&self, other: &Fingerprints, file: FileRole) -> bool {
        self.0[file as usize] != other.0[file as usize]
    }
}

/// A certificate of a file, with its number in the file, counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dated {
    pub(super) file: FileRole,
    pub(super) number: usize,
    pub(super) validity: Validity,
}

/// The server's certificate and its chain, in the order in which they are sent.
pub(super) struct ServerChain {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) dates: Vec<Dated>,
    pub(super) warnings: Vec<MaterialWarning>,
}

impl Material {
    /// The private key.
    pub(super) fn read_key(&self, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, MaterialError> {
        let error = |cause| MaterialError { file: FileRole::Key, cause };
        let key = private_key(&self.key).map_err(error)?;
        let kind = match &key {
            PrivateKeyDer::Pkcs8(key) => x509::kind_of_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => x509::kind_of_pkcs1(key.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(key) => x509::kind_of_sec1(key.secret_sec1_der()),
            _ => None,
        };
        provider.key_provider.load_private_key(key).map_err(|_| {
            error(match kind {
                Some(kind) if !kind.is_supported() => MaterialCause::UnsupportedKey(kind),
                _ => MaterialCause::BadKey,
            })
        })
    }

    /// The certificates of `crtfile` and `cachain`, each of them once: the one that the key belongs to first, then the
    /// issuers.
    pub(super) fn read_chain(&self, key: Option<&dyn SigningKey>) -> Result<ServerChain, Vec<MaterialError>> {
        let mut all: Vec<(FileRole, usize, CertificateDer<'static>)> = Vec::new();
        let mut errors = Vec::new();
        for (file, bytes) in [(FileRole::Certificate, Some(&self.certificate)), (FileRole::Chain, self.chain.as_ref())]
        {
            match bytes.map(|bytes| certificates(bytes)).transpose() {
                Ok(found) => {
                    for (index, certificate) in found.into_iter().flatten().enumerate() {
                        if all.iter().all(|(_, _, other)| *other != certificate) {
                            all.push((file, index + 1, certificate));
                        }
                    }
                }
                Err(cause) => errors.push(MaterialError { file, cause }),
            }
        }
        let mut read = Vec::new();
        for (file, number, certificate) in &all {
            match Certificate::read(certificate) {
                Some(fields) => read.push(fields),
                None => errors.push(MaterialError { file: *file, cause: MaterialCause::BadCertificate(*number) }),
            }
        }
        // An error of the key is reported already.
        let (true, Some(key)) = (errors.is_empty(), key) else { return Err(errors) };
        let key_info = key.public_key();
        let key_info = key_info.as_ref().and_then(|info| x509::sequence_contents(info));
        let Some(leaf) = read.iter().position(|one| Some(one.key_info) == key_info) else {
            return Err(vec![MaterialError { file: FileRole::Key, cause: MaterialCause::OtherKey }]);
        };
        let mut order = order_of_chain(&read, leaf);
        let mut warnings = Vec::new();
        if !order.is_sorted() {
            warnings.push(MaterialWarning { file: all[leaf].0, notice: MaterialNotice::WrongOrder });
        }
        let others: Vec<usize> = (0..all.len()).filter(|index| !order.contains(index)).collect();
        if let Some(first) = others.first() {
            // A client that knows more may need them (RFC 8446 section 4.4.2). A bundle of authorities is too much.
            let is_sent = all.len() <= CHAIN_MAX;
            warnings.push(MaterialWarning {
                file: all[*first].0,
                notice: MaterialNotice::NotOfChain(others.len(), is_sent),
            });
            if is_sent {
                order.extend(others);
            }
        }
        let dates = order.iter().map(|index| {
            let (file, number, _) = all[*index];
            Dated { file, number, validity: read[*index].validity }
        });
        Ok(ServerChain {
            dates: dates.collect(),
            certificates: order.iter().map(|index| all[*index].2.clone()).collect(),
            warnings,
        })
    }

    /// The authorities of clients.
    pub(super) fn read_authorities(&self) -> Result<RootCertStore, MaterialError> {
        let error = |cause| MaterialError { file: FileRole::ClientCa, cause };
        let mut authorities = RootCertStore::empty();
        let found = certificates(self.client_ca.as_deref().unwrap_or_default()).map_err(error)?;
        for (index, certificate) in found.into_iter().enumerate() {
            authorities.add(certificate).map_err(|_| error(MaterialCause::BadAuthority(index + 1)))?;
        }
        Ok(authorities)
    }

    /// The revocation lists with their numbers in the file, the newest first: the verifier uses the first one of an
    /// authority.
    pub(super) fn read_lists(&self) -> Result<Vec<DatedList>, MaterialError> {
        let error = |cause| MaterialError { file: FileRole::Crl, cause };
        let Some(bytes) = &self.crl else { return Ok(Vec::new()) };
        let found: Vec<CertificateRevocationListDer<'static>> = sections(bytes).map_err(error)?;
        if found.is_empty() {
            return Err(error(MaterialCause::NoRevocationList));
        }
        let mut lists = Vec::new();
        for (index, list) in found.into_iter().enumerate() {
            let malformed = || error(MaterialCause::BadRevocationList(index + 1, "it is malformed"));
            let fields = RevocationList::read(&list).ok_or_else(malformed)?;
            lists.push(DatedList { number: index + 1, fields, list });
        }
        lists.sort_by_key(|list| std::cmp::Reverse(list.fields.this_update_s));
        Ok(lists)
    }

    /// The digests of all files.
    pub fn fingerprints(&self) -> Fingerprints {
        let Material { certificate, key, chain, client_ca, crl, .. } = self;
        let files = [Some(certificate), Some(key), chain.as_ref(), client_ca.as_ref(), crl.as_ref()];
        Fingerprints(files.map(|bytes| {
            let digest = digest::digest(&digest::SHA256, bytes?);
            digest.as_ref().try_into().ok()
        }))
    }
}

/// The SHA-256 digest of the first certificate in PEM, as browsers and openssl show it. None: there is none.
pub(crate) fn fingerprint(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let digest = digest::digest(&digest::SHA256, &certificate);
    Some(digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"))
}

/// A revocation list, with its number in the file, counted from 1.
pub(super) struct DatedList {
    pub(super) number: usize,
    pub(super) fields: RevocationList,
    pub(super) list: CertificateRevocationListDer<'static>,
}

/// The warning that a certificate does not cover the server's host name.
pub(super) fn name_warning(leaf: &CertificateDer<'_>, hostname: &str) -> Option<MaterialNotice> {
    let name = ServerName::try_from(hostname).ok()?;
    let parsed = ParsedCertificate::try_from(leaf).ok()?;
    let names = match client::verify_server_name(&parsed, &name) {
        Ok(()) => return None,
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })) => presented,
        Err(_) => Vec::new(),
    };
    // The verifier writes DnsName("example.org").
    let plain = |name: &String| {
        let name = name.strip_prefix("DnsName(\"").or(name.strip_prefix("IpAddress("))?;
        Some(name.trim_end_matches(['"', ')']).to_owned())
    };
    Some(MaterialNotice::OtherNames(hostname.to_owned(), names.iter().filter_map(plain).collect()))
}

/// The certificates that lead from `leaf` to its authority, in order: each one's issuers follow it. If an issuer has
/// several certificates (cross-signed), all of them follow.
fn order_of_chain(certificates: &[Certificate<'_>], leaf: usize) -> Vec<usize> {
    let mut order = vec![leaf];
    let mut at = 0;
    while let Some(index) = order.get(at) {
        let issuer = certificates[*index].issuer;
        let is_next = |index: &usize| certificates[*index].subject == issuer && !order.contains(index);
        let next: Vec<usize> = (0..certificates.len()).filter(is_next).collect();
        order.extend(next);
        at += 1;
    }
    order
}

/// The certificates of a file, in PEM or one in DER.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialCause> {
    let certificates: Vec<CertificateDer<'static>> = sections(bytes)?;
    match certificates.len() {
        0 => Err(MaterialCause::NoCertificate),
        count if count > CERTIFICATES_MAX => Err(MaterialCause::TooManyCertificates),
        _ => Ok(certificates),
    }
}

/// The first private key of a file.
fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, MaterialCause> {
    if is_der(bytes) {
        return PrivateKeyDer::try_from(bytes.to_vec()).map_err(|_| MaterialCause::NoKey);
    }
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    match PrivateKeyDer::from_pem_slice(without_mark(bytes)) {
        Ok(key) => Ok(key),
        Err(_) if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => {
            Err(MaterialCause::EncryptedKey)
        }
        Err(pem::Error::NoItemsFound) => Err(MaterialCause::NoKey),
        Err(error) => Err(not_pem(&error)),
    }
}

/// All sections of a type in PEM, or the whole file if it is in DER.
fn sections<T: PemObject + From<Vec<u8>>>(bytes: &[u8]) -> Result<Vec<T>, MaterialCause> {
    if is_der(bytes) {
        return Ok(vec![T::from(bytes.to_vec())]);
    }
    T::pem_slice_iter(without_mark(bytes)).collect::<Result<_, _>>().map_err(|error| not_pem(&error))
}

fn is_der(bytes: &[u8]) -> bool {
    x509::sequence_contents(bytes).is_some()
}

/// Without the byte order mark that some editors write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn not_pem(error: &pem::Error) -> MaterialCause {
    MaterialCause::NotPem(match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is incomplete",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be parsed",
    })
}
