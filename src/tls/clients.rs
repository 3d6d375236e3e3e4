//! The verification of clients' certificates.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientCertVerifierBuilder, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertRevocationListError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::error::{FileRole, MaterialCause, MaterialError};
use super::material::{DatedList, Material, Verify};

/// Verifies the certificates of clients. With revocation lists, a client's own certificate must be known to be unrevoked,
/// so that a missing list is noticed; an intermediate certificate must not be known to be revoked, so that the list of
/// the issuing authority suffices. A list that has expired is still enforced.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    own: Arc<dyn ClientCertVerifier>,
    /// The check of intermediate certificates. None: there are no revocation lists.
    intermediates: Option<Arc<dyn ClientCertVerifier>>,
    /// The number of each revocation list that expires, and the time in seconds since 1970.
    expiries: Vec<(usize, u64)>,
}

impl ClientVerifier {
    /// The verifier. None: clients are not asked for certificates.
    pub(super) fn new(
        material: &Material,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<ClientVerifier>>, MaterialError> {
        if material.verify == Verify::None {
            return Ok(None);
        }
        let authorities = Arc::new(material.read_authorities()?);
        let lists = material.read_lists()?;
        let begin = |lists: &[DatedList]| {
            let builder = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone());
            let builder = builder.with_crls(lists.iter().map(|dated| dated.list.clone()));
            if material.verify == Verify::Optional { builder.allow_unauthenticated() } else { builder }
        };
        let build = |builder: ClientCertVerifierBuilder| {
            builder.build().map_err(|error| {
                let is_bad = |dated: &&DatedList| begin(std::slice::from_ref(*dated)).build().is_err();
                let number = lists.iter().find(is_bad).map_or(0, |dated| dated.number);
                MaterialError { file: FileRole::Crl, cause: MaterialCause::BadRevocationList(number, reason(&error)) }
            })
        };
        let own = build(begin(&lists).only_check_end_entity_revocation())?;
        let of_chain = (!lists.is_empty()).then(|| build(begin(&lists).allow_unknown_revocation_status()));
        let expiries = lists.iter().filter_map(|dated| Some((dated.number, dated.fields.next_update_s?))).collect();
        Ok(Some(Arc::new(ClientVerifier { own, intermediates: of_chain.transpose()?, expiries })))
    }

    /// Verifies a client's certificate, and those that lead to its authority.
    pub(super) fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.own.verify_client_cert(own, others, now)?;
        match &self.intermediates {
            Some(intermediates) if !others.is_empty() => intermediates.verify_client_cert(own, others, now),
            _ => Ok(verified),
        }
    }

    /// The revocation lists that have expired: their numbers, and when.
    pub(super) fn expired_lists(&self, now_s: u64) -> impl Iterator<Item = (usize, u64)> {
        self.expiries.iter().copied().filter(move |(_, end_s)| *end_s < now_s)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.own.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.own.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}

/// Why a revocation list cannot be used.
fn reason(error: &VerifierBuilderError) -> &'static str {
    let VerifierBuilderError::InvalidCrl(error) = error else { return "it is malformed" };
    match error {
        CertRevocationListError::UnsupportedCrlVersion => "it is not of version 2",
        CertRevocationListError::UnsupportedDeltaCrl => "it is a list of changes (a delta list)",
        CertRevocationListError::UnsupportedIndirectCrl => "it is for certificates of other authorities (indirect)",
        CertRevocationListError::UnsupportedCriticalExtension => "it has an unknown critical extension",
        _ => "it is malformed",
    }
}
