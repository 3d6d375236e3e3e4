//! Trust stores of Java: the authority's certificate alone, never its key.

use std::time::{Duration, UNIX_EPOCH};

use jks::{Certificate as JksCertificate, KeyStore as Jks, TrustedCertificateEntry};
use p12_keystore::{Certificate as P12Certificate, KeyStore as Pkcs12, KeyStoreEntry};
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::error::CaError;
use crate::limits::{STOREPASS_SIZE_MAX, STOREPASS_SIZE_MIN};

/// Java's own password of trust stores.
pub const STOREPASS: &str = "changeit";

/// The entry's name in the store.
const ALIAS: &str = "uakari";

/// Whether this can be the password of both kinds of stores, and a word of the index.
pub(crate) fn check_storepass(password: &str) -> Result<(), CaError> {
    let is_sized = (STOREPASS_SIZE_MIN..=STOREPASS_SIZE_MAX).contains(&password.len());
    if !is_sized || !password.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CaError::Value(format!(
            "--storepass: write {STOREPASS_SIZE_MIN} to {STOREPASS_SIZE_MAX} printable ASCII characters without blanks"
        )));
    }
    Ok(())
}

/// A PKCS#12 store (RFC 7292). Its entry has the attribute trustedKeyUsage of Java, 2.16.840.1.113894.746875.1.1.
pub(crate) fn pkcs12(authority: &Certificate, password: &str) -> Result<Vec<u8>, CaError> {
    let failed = |error: p12_keystore::error::Error| CaError::Crypto(error.to_string());
    let mut store = Pkcs12::new();
    let certificate = P12Certificate::from_der(authority.der()).map_err(failed)?;
    store.add_entry(ALIAS, KeyStoreEntry::Certificate(certificate));
    store.writer(password).write().map_err(failed)
}

/// A JKS store.
pub(crate) fn jks(authority: &Certificate, password: &str, now: OffsetDateTime) -> Result<Vec<u8>, CaError> {
    let failed = |error: jks::KeyStoreError| CaError::Crypto(error.to_string());
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let entry = TrustedCertificateEntry {
        creation_time: UNIX_EPOCH + Duration::from_secs(seconds),
        certificate: JksCertificate { cert_type: "X.509".to_owned(), content: authority.der().to_vec() },
    };
    let mut store = Jks::new();
    store.set_trusted_certificate_entry(ALIAS, entry).map_err(failed)?;
    let mut bytes = Vec::new();
    store.store(&mut bytes, password.as_bytes()).map_err(failed)?;
    Ok(bytes)
}
