//! The certificate revocation list (RFC 5280 section 5), which follows from the index.

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::certificate::{Certificate, Serial};
use crate::error::CaError;
use crate::index::Index;
use crate::limits::{CLOCK_SKEW_MINUTES, CRL_DAYS_MIN};

/// Signs the list with this number. It is due again when the authority's certificate ends.
pub(crate) fn make(
    index: &Index,
    authority: &Certificate,
    issuer: &Issuer<'_, &KeyPair>,
    now: OffsetDateTime,
) -> Result<String, CaError> {
    let failed = |error: rcgen::Error| CaError::Crypto(error.to_string());
    let soonest = now.checked_add(Duration::days(CRL_DAYS_MIN)).unwrap_or(now);
    let revoked_certs = index.all_revoked().map(|(serial, revocation_time)| {
        let serial_number = SerialNumber::from_slice(serial.bytes());
        RevokedCertParams { serial_number, revocation_time, reason_code: None, invalidity_date: None }
    });
    let params = CertificateRevocationListParams {
        // As certificates are, since clocks differ.
        this_update: now.checked_sub(Duration::minutes(CLOCK_SKEW_MINUTES)).unwrap_or(now),
        next_update: authority.not_after.max(soonest),
        crl_number: SerialNumber::from(index.crl_number),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).map_err(failed)?.pem().map_err(failed)
}

/// What a list says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    pub(crate) next_update: OffsetDateTime,
    /// Serial numbers and times of revocation.
    pub(crate) revoked: Vec<(Serial, OffsetDateTime)>,
}

/// What a list of this authority says. None: it is none.
pub(crate) fn facts(bytes: &[u8], authority: &Certificate) -> Option<Facts> {
    let (pem, _) = Pem::read(std::io::Cursor::new(bytes)).ok()?;
    let (_, list) = CertificateRevocationList::from_der(&pem.contents).ok()?;
    let (_, issuer) = X509Certificate::from_der(authority.der()).ok()?;
    list.verify_signature(issuer.public_key()).ok()?;
    let number = u64::try_from(list.crl_number()?).ok()?;
    let next_update = list.next_update()?.to_datetime();
    let revoked = list.iter_revoked_certificates().map(|revoked| {
        let serial = Serial::from_bytes(revoked.raw_serial())?;
        Some((serial, revoked.revocation_date.to_datetime()))
    });
    Some(Facts { number, next_update, revoked: revoked.collect::<Option<_>>()? })
}
