//! TLS to the nodes of an upstream: the gateway is the client.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, crypto, version};

use super::error::{FileRole, MaterialCause, MaterialError, MaterialWarning};
use super::material::{Material, certificates};
use crate::limits::NODE_SESSIONS_MAX;

/// A file that was set in the configuration. Files are equal if their paths are.
#[derive(Clone, Debug)]
pub struct UpstreamFile {
    /// Its path.
    pub path: Box<str>,
    /// File, line and key where it was set: the beginning of an error.
    pub place: Box<str>,
}

impl PartialEq for UpstreamFile {
    fn eq(&self, other: &UpstreamFile) -> bool {
        self.path == other.path
    }
}

impl Eq for UpstreamFile {}

/// How the nodes of an upstream are verified, and what the gateway shows them. Equal if configured alike.
#[derive(Clone, Default, Debug)]
pub struct UpstreamTls {
    /// The name that a node's certificate has to have, and that is sent to it (SNI). None: the host of its address.
    pub server_name: Option<Box<str>>,
    /// The authorities that sign the nodes' certificates (`cafile`). None: those of the system.
    pub authorities: Option<UpstreamFile>,
    /// The gateway's own certificate (`crtfile`) and its key (`keyfile`). None: it has none.
    pub identity: Option<(UpstreamFile, UpstreamFile)>,
    /// The rules of the next handshakes. Empty: the files were not read.
    current: OnceLock<Arc<CurrentNodeRules>>,
}

impl UpstreamTls {
    /// Settings whose files are still to be read.
    pub fn new(
        server_name: Option<&str>,
        authorities: Option<UpstreamFile>,
        identity: Option<(UpstreamFile, UpstreamFile)>,
    ) -> UpstreamTls {
        let server_name = server_name.map(Into::into);
        UpstreamTls { server_name, authorities, identity, current: OnceLock::new() }
    }

    /// Whether a certificate can be for this name: a host name or an IP address.
    pub fn is_server_name(name: &str) -> bool {
        NodeRules::server_name(name).is_some()
    }

    /// The name that the certificate of a node must have. `host`: of its address.
    pub fn name_of<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(host)
    }

    /// Uses these rules for handshakes, and those that replace them later. Only the first call counts.
    pub fn use_rules(&self, rules: &Arc<CurrentNodeRules>) {
        // Of equal settings all get the same ones.
        let _ = self.current.set(rules.clone());
    }

    /// The rules for a new handshake. None: the files were not read.
    pub(crate) fn rules(&self) -> Option<Arc<NodeRules>> {
        self.current.get().map(|current| current.get())
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &UpstreamTls) -> bool {
        let own = (&self.server_name, &self.authorities, &self.identity);
        own == (&other.server_name, &other.authorities, &other.identity)
    }
}

impl Eq for UpstreamTls {}

/// The rules of handshakes with nodes. Nodes are always verified; sessions are resumed as long as the rules live.
#[derive(Debug)]
pub struct NodeRules {
    config: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl NodeRules {
    /// Builds the rules from the contents of the files: the authorities are `client_ca`, and there is no client
    /// certificate if `certificate` is empty. `is_system`: the authorities are those of the system, of which unusable ones
    /// are left out. The error has all errors.
    pub fn new(material: &Material, is_system: bool) -> Result<(NodeRules, Vec<MaterialWarning>), Vec<MaterialError>> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut errors = Vec::new();
        let authorities = match is_system {
            true => system_authorities(material.client_ca.as_deref().unwrap_or_default()),
            false => material.read_authorities(),
        };
        let authorities = authorities.map_err(|error| errors.push(error)).ok();
        let identity = read_identity(material, &provider).map_err(|more| errors.extend(more)).ok();
        let (Some(authorities), Some((identity, warnings))) = (authorities, identity) else { return Err(errors) };
        let failed =
            |reason: String| vec![MaterialError { file: FileRole::ClientCa, cause: MaterialCause::Failed(reason) }];
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
        let verifier = verifier.build().map_err(|error| failed(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| failed(error.to_string()))?
            .with_webpki_verifier(verifier.clone());
        let mut config = match identity {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(NODE_SESSIONS_MAX);
        Ok((NodeRules { config: Arc::new(config), verifier }, warnings))
    }

    /// For `rustls`.
    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// A name as `rustls` has it. None: it is neither a host name nor an IP address.
    pub(crate) fn server_name(name: &str) -> Option<ServerName<'static>> {
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        ServerName::try_from(address.unwrap_or(name).to_owned()).ok()
    }

    /// Verifies the certificates of a node again, since a ticket resumes a session without that.
    pub(crate) fn still_valid(&self, certificates: &[CertificateDer<'_>], name: &str) -> Result<(), rustls::Error> {
        let [own, others @ ..] = certificates else { return Err(rustls::Error::NoCertificatesPresented) };
        let failed = |reason: &str| rustls::Error::General(reason.to_owned());
        let name = NodeRules::server_name(name).ok_or_else(|| failed("the name is malformed"))?;
        let now = self.config.time_provider.current_time().ok_or_else(|| failed("there is no time"))?;
        self.verifier.verify_server_cert(own, others, &name, &[], now).map(drop)
    }
}

/// The gateway's own certificate and key. None: it has none.
fn read_identity(
    material: &Material,
    provider: &CryptoProvider,
) -> Result<(Option<CertifiedKey>, Vec<MaterialWarning>), Vec<MaterialError>> {
    if material.certificate.is_empty() && material.key.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut errors = Vec::new();
    let key = material.read_key(provider).map_err(|error| errors.push(error)).ok();
    let chain = material.read_chain(key.as_deref()).map_err(|more| errors.extend(more)).ok();
    let (Some(key), Some(chain)) = (key, chain) else { return Err(errors) };
    Ok((Some(CertifiedKey::new(chain.certificates, key)), chain.warnings))
}

/// The authorities of the system, without those that cannot be used.
fn system_authorities(bytes: &[u8]) -> Result<RootCertStore, MaterialError> {
    let error = |cause| MaterialError { file: FileRole::ClientCa, cause };
    let mut authorities = RootCertStore::empty();
    match authorities.add_parsable_certificates(certificates(bytes).map_err(error)?) {
        (0, _) => Err(error(MaterialCause::BadAuthority(1))),
        _ => Ok(authorities),
    }
}

/// The rules that the next handshakes with nodes use. They are replaced when a file changes; connections keep theirs.
#[derive(Debug)]
pub struct CurrentNodeRules(RwLock<Arc<NodeRules>>);

impl CurrentNodeRules {
    /// Begins with these rules.
    pub fn new(rules: NodeRules) -> CurrentNodeRules {
        CurrentNodeRules(RwLock::new(Arc::new(rules)))
    }

    /// The rules for a new handshake.
    fn get(&self) -> Arc<NodeRules> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the rules.
    pub fn set(&self, rules: NodeRules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}
