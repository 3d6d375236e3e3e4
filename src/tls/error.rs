//! Errors and warnings about the files of the group `tls`. Display is the rest of a sentence that begins with the file.

use std::fmt;

use der::DateTime;

use super::x509::KeyKind;
use crate::limits::CERTIFICATES_MAX;

/// A file of the group `tls`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileRole {
    /// `crtfile`.
    Certificate,
    /// `keyfile`.
    Key,
    /// `cachain`.
    Chain,
    /// `clientca`; of an upstream, `cafile`.
    ClientCa,
    /// `crlfile`.
    Crl,
}

impl FileRole {
    /// All of them.
    pub const ALL: [FileRole; 5] =
        [FileRole::Certificate, FileRole::Key, FileRole::Chain, FileRole::ClientCa, FileRole::Crl];
}

/// Why the files cannot be used, and which of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaterialError {
    /// The file to correct.
    pub file: FileRole,
    /// The cause.
    pub cause: MaterialCause,
}

/// What is wrong with a file. Display is the end of a sentence for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MaterialCause {
    /// It is not PEM; the parser's reason.
    NotPem(&'static str),
    /// It contains no certificate.
    NoCertificate,
    /// It contains more than `CERTIFICATES_MAX` certificates.
    TooManyCertificates,
    /// The certificate with this number, counted from 1, is malformed.
    BadCertificate(usize),
    /// It contains no private key.
    NoKey,
    /// Its private key is encrypted.
    EncryptedKey,
    /// Its private key has this type, which is not supported.
    UnsupportedKey(KeyKind),
    /// Its private key is malformed.
    BadKey,
    /// Its private key belongs to none of the certificates.
    OtherKey,
    /// The certificate with this number, counted from 1, cannot be an authority.
    BadAuthority(usize),
    /// It contains no revocation list.
    NoRevocationList,
    /// The revocation list with this number, counted from 1, cannot be used: the verifier's reason.
    BadRevocationList(usize, &'static str),
    /// TLS cannot be set up for another reason.
    Failed(String),
}

impl fmt::Display for MaterialCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaterialCause::NotPem(reason) => write!(f, "is not PEM: {reason}: copy or convert it again"),
            MaterialCause::NoCertificate => {
                f.write_str("has no certificate: name a PEM file with BEGIN CERTIFICATE in it")
            }
            MaterialCause::TooManyCertificates => {
                write!(f, "has more than {CERTIFICATES_MAX} certificates: name a file with those that are needed")
            }
            MaterialCause::BadCertificate(number) => write!(f, "certificate {number} is malformed: copy it again"),
            MaterialCause::NoKey => f.write_str(
                "has no private key: name a PEM file with BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY in it",
            ),
            MaterialCause::EncryptedKey => f.write_str(
                "the private key is encrypted, and a daemon cannot ask for its password: decrypt it with openssl pkey -in ENCRYPTED -out DECRYPTED",
            ),
            MaterialCause::UnsupportedKey(kind) => write!(
                f,
                "the private key is {kind}, which is not supported: use P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits"
            ),
            MaterialCause::BadKey => f.write_str(
                "the private key is malformed, or in an unusual form: copy it again, or convert it with openssl pkey",
            ),
            MaterialCause::OtherKey => {
                f.write_str("the private key does not belong to the certificate of crtfile: name the two that belong together")
            }
            MaterialCause::BadAuthority(number) => {
                write!(f, "certificate {number} cannot be used as an authority: remove it, or copy it again")
            }
            MaterialCause::NoRevocationList => {
                f.write_str("has no revocation list: name a PEM file with BEGIN X509 CRL in it")
            }
            MaterialCause::BadRevocationList(number, reason) => {
                write!(f, "revocation list {number} cannot be used: {reason}: let its authority make a complete list")
            }
            MaterialCause::Failed(reason) => write!(f, "TLS cannot be set up: {reason}"),
        }
    }
}

/// What an operator may want to correct, and in which file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaterialWarning {
    /// The file.
    pub file: FileRole,
    /// What is noticed.
    pub notice: MaterialNotice,
}

/// What is noticed in a file that can be used. Display is the end of a sentence for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MaterialNotice {
    /// The certificate with this number, counted from 1, expired at this time, in seconds since 1970.
    Expired(usize, u64),
    /// It is not valid before this time.
    NotYetValid(usize, u64),
    /// It expires at this time, after this number of seconds.
    ExpiresSoon(usize, u64, u64),
    /// The certificates are not in the order of the chain.
    WrongOrder,
    /// This number of certificates does not belong to the chain. Whether they are sent to clients nevertheless.
    NotOfChain(usize, bool),
    /// The certificate does not cover the server's host name. The names that it covers.
    OtherNames(String, Vec<String>),
    /// The private key may be read by every user.
    KeyIsPublic,
    /// The revocation list with this number, counted from 1, expired at this time.
    ListExpired(usize, u64),
}

impl fmt::Display for MaterialNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaterialNotice::Expired(number, unix_s) => {
                write!(f, "certificate {number} expired on {}: clients refuse it: renew it", Day(*unix_s))
            }
            MaterialNotice::NotYetValid(number, unix_s) => write!(
                f,
                "certificate {number} is not valid before {}: clients refuse it: check this machine's clock",
                Day(*unix_s)
            ),
            MaterialNotice::ExpiresSoon(number, unix_s, left_s) => {
                let days = left_s / (24 * 3600);
                let plural = if days == 1 { "" } else { "s" };
                write!(f, "certificate {number} expires on {}, in {days} day{plural}: renew it", Day(*unix_s))
            }
            MaterialNotice::WrongOrder => f.write_str(
                "the certificates are not in the order of the chain, in which they are sent: write the server's first, then each one's issuer",
            ),
            MaterialNotice::NotOfChain(count, is_sent) => {
                let sent = if *is_sent { "sent nevertheless" } else { "not sent" };
                write!(f, "certificates outside the chain of the server's own: {count}, {sent}: remove them")
            }
            MaterialNotice::OtherNames(hostname, names) => {
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                write!(f, "the certificate is not for the hostname {hostname}, but for {names}: name another one")
            }
            MaterialNotice::KeyIsPublic => {
                f.write_str("every user of this machine may read the private key: chmod o= the file")
            }
            MaterialNotice::ListExpired(number, unix_s) => write!(
                f,
                "revocation list {number} expired on {}, and is still enforced: certificates revoked since then are accepted: get the current list",
                Day(*unix_s)
            ),
        }
    }
}

/// A day, as in 2027-01-31; of times that cannot be expressed, "a day after 9999".
pub(crate) struct Day(pub(crate) u64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(std::time::Duration::from_secs(self.0)) {
            Ok(date) => write!(f, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
            Err(_) => f.write_str("a day after 9999"),
        }
    }
}
