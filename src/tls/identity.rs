//! What a server shows in its handshakes, and what it asks of clients.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, crypto, version};

use super::clients::ClientVerifier;
use super::error::{FileRole, MaterialCause, MaterialError, MaterialNotice, MaterialWarning};
use super::material::{Dated, Fingerprints, Material, Offload, Verify, name_warning};
use crate::limits::EXPIRY_WARNING_MS;

/// The certificate, the key and the rules of a server's handshakes.
#[derive(Debug)]
pub struct Identity {
    /// For `rustls`.
    pub(crate) config: Arc<ServerConfig>,
    /// Whose records the kernel makes.
    pub(crate) offload: Offload,
    /// The verifier of clients' certificates. None: clients are not asked for one.
    clients: Option<Arc<ClientVerifier>>,
    /// The certificates that are sent; the server's own is the first one.
    dates: Vec<Dated>,
}

impl Identity {
    /// Builds an identity from the contents of its files. `hostname`: of the server. The error has all errors; warnings
    /// that depend on the time are those of `warnings_at`.
    pub fn new(
        material: &Material,
        hostname: Option<&str>,
        tickets: &Tickets,
    ) -> Result<(Identity, Vec<MaterialWarning>), Vec<MaterialError>> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut errors = Vec::new();
        let key = material.read_key(&provider).map_err(|error| errors.push(error)).ok();
        let chain = material.read_chain(key.as_deref()).map_err(|more| errors.extend(more)).ok();
        let clients = ClientVerifier::new(material, &provider).map_err(|error| errors.push(error)).ok();
        let (Some(key), Some(chain), Some(clients)) = (key, chain, clients) else { return Err(errors) };
        let mut warnings = chain.warnings;
        let name = hostname.and_then(|hostname| name_warning(chain.certificates.first()?, hostname));
        warnings.extend(name.map(|notice| MaterialWarning { file: FileRole::Certificate, notice }));
        let failed = |error: rustls::Error| {
            vec![MaterialError { file: FileRole::Certificate, cause: MaterialCause::Failed(error.to_string()) }]
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(failed)?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
            None => builder.with_no_client_auth(),
        };
        let resolver = SingleCertAndKey::from(CertifiedKey::new(chain.certificates, key));
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets.ticketer.clone();
        // Early data can be replayed (RFC 8446 section 8).
        config.max_early_data_size = 0;
        // The keys leave rustls for the kernel.
        config.enable_secret_extraction = material.offload != Offload::Off;
        let (config, offload) = (Arc::new(config), material.offload);
        Ok((Identity { config, offload, clients, dates: chain.dates }, warnings))
    }

    /// When the server's own certificate expires, in seconds since 1970.
    pub fn expires_s(&self) -> u64 {
        self.dates.first().map_or(0, |own| own.validity.not_after_s)
    }

    /// The warnings at this time, in seconds since 1970: certificates and revocation lists that are not valid, or not
    /// for long.
    pub fn warnings_at(&self, now_s: u64) -> Vec<MaterialWarning> {
        let certificates = self.dates.iter().filter_map(|dated| {
            let Dated { file, number, validity } = *dated;
            let notice = match validity.not_after_s {
                _ if now_s < validity.not_before_s => MaterialNotice::NotYetValid(number, validity.not_before_s),
                end_s if end_s < now_s => MaterialNotice::Expired(number, end_s),
                end_s if end_s - now_s <= EXPIRY_WARNING_MS / 1000 => {
                    MaterialNotice::ExpiresSoon(number, end_s, end_s - now_s)
                }
                _ => return None,
            };
            Some(MaterialWarning { file, notice })
        });
        let lists = self.clients.iter().flat_map(|clients| clients.expired_lists(now_s));
        let lists = lists.map(|(number, end_s)| MaterialNotice::ListExpired(number, end_s));
        certificates.chain(lists.map(|notice| MaterialWarning { file: FileRole::Crl, notice })).collect()
    }

    /// Verifies the certificates of a client again, since a ticket resumes a session without that.
    pub(crate) fn still_valid(&self, certificates: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        match (&self.clients, certificates) {
            (Some(clients), [own, others @ ..]) => clients.verify(own, others, now).map(drop),
            (Some(clients), []) if clients.client_auth_mandatory() => Err(rustls::Error::NoCertificatesPresented),
            _ => Ok(()),
        }
    }
}

/// The keys of a server's session tickets. They outlive its identity, unless the rules for clients change: a ticket
/// resumes a session with the client's certificate in it.
#[derive(Clone, Debug)]
pub struct Tickets {
    ticketer: Arc<dyn ProducesTickets>,
    /// Which clients they may be used with.
    verify: Verify,
    fingerprints: Fingerprints,
}

impl Tickets {
    /// New keys.
    pub fn new(material: &Material) -> Result<Tickets, MaterialError> {
        let failed = |error: rustls::Error| MaterialError {
            file: FileRole::Key,
            cause: MaterialCause::Failed(error.to_string()),
        };
        let ticketer = crypto::ring::Ticketer::new().map_err(failed)?;
        Ok(Tickets { ticketer, verify: material.verify, fingerprints: material.fingerprints() })
    }

    /// Whether they may be used with these rules for clients: `verify`, the authorities and the revocation lists.
    pub fn fit(&self, material: &Material) -> bool {
        let other = material.fingerprints();
        let is_same = |file| !self.fingerprints.differ(&other, file);
        self.verify == material.verify
            && (self.verify == Verify::None || is_same(FileRole::ClientCa) && is_same(FileRole::Crl))
    }
}

/// The identity that a server's next handshakes use. It is replaced when a file changes; connections keep theirs.
#[derive(Debug)]
pub struct CurrentIdentity(RwLock<Arc<Identity>>);

impl CurrentIdentity {
    /// Begins with this identity.
    pub fn new(identity: Identity) -> CurrentIdentity {
        CurrentIdentity(RwLock::new(Arc::new(identity)))
    }

    /// The identity for a new handshake.
    pub(crate) fn get(&self) -> Arc<Identity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the identity.
    pub fn set(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }
}
