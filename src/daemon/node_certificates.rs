//! The files of TLS to nodes, and the rules that they make: read with those of servers, and again when they change.

use std::env;
use std::path::Path;
use std::sync::Arc;

use super::certificates::{add_new, read_file, sentence};
use crate::config::{Config, TextSetting};
use crate::limits::{NODE_SESSION_SIZE, NODE_SESSIONS_MAX, TLS_FILE_MEMORY_MAX, TLS_FILE_SIZE_MAX};
use crate::route::Destination;
use crate::tls::{
    CurrentNodeRules, FileRole, Fingerprints, Material, MaterialNotice, NodeRules, UpstreamFile, UpstreamTls,
};

/// The variable with the path of the system's authorities, as OpenSSL knows it.
const SYSTEM_VARIABLE: &str = "SSL_CERT_FILE";
/// Where distributions have their authorities: Debian and Alpine, Fedora, openSUSE.
const SYSTEM_PATHS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The rules for the nodes of upstreams with the same settings, and what they were made from.
#[derive(Clone)]
pub(super) struct NodeCertificates {
    settings: Arc<UpstreamTls>,
    files: NodeFiles,
    fingerprints: Fingerprints,
    memory_size: u64,
    current: Arc<CurrentNodeRules>,
}

/// The files to read.
#[derive(Clone)]
struct NodeFiles {
    authorities: TextSetting,
    /// The authorities are those of the system.
    is_system: bool,
    /// The certificate and its key. None: the gateway has none.
    identity: Option<[TextSetting; 2]>,
}

/// Rules made from files.
pub(super) struct BuiltRules {
    rules: NodeRules,
    fingerprints: Fingerprints,
    memory_size: u64,
    /// A line for each.
    warnings: Vec<String>,
}

impl NodeCertificates {
    /// Reads the files of a configuration's upstreams, and has these use the rules. Where `old` has the same settings, its
    /// rules are replaced, so that upstreams that outlive a reload have the new ones. Adds to warnings and errors.
    pub(super) fn load(
        config: &Config,
        old: &[NodeCertificates],
        warnings: &mut Vec<String>,
        errors: &mut Vec<String>,
    ) -> Vec<NodeCertificates> {
        let mut all: Vec<NodeCertificates> = Vec::new();
        for settings in settings_of(config) {
            if let Some(known) = all.iter().find(|known| known.settings == settings) {
                settings.use_rules(&known.current);
                continue;
            }
            let files = NodeFiles::new(&settings);
            let BuiltRules { rules, fingerprints, memory_size, warnings: more } = match files.build() {
                Ok(built) => built,
                Err(more) => {
                    add_new(errors, more);
                    continue;
                }
            };
            add_new(warnings, more);
            let known = old.iter().find(|known| known.settings == settings);
            let current = match known {
                // Sessions can still be resumed.
                Some(known) if known.fingerprints == fingerprints => known.current.clone(),
                Some(known) => {
                    known.current.set(rules);
                    known.current.clone()
                }
                None => Arc::new(CurrentNodeRules::new(rules)),
            };
            settings.use_rules(&current);
            all.push(NodeCertificates { settings, files, fingerprints, memory_size, current });
        }
        all
    }

    /// Upper bound of the memory of the rules in bytes, with the sessions that can be resumed.
    pub(super) fn memory_size(&self) -> u64 {
        self.memory_size
    }

    /// The paths of the files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.settings().map(|(_, setting)| &*setting.value)
    }

    /// The errors of the files that this process cannot read now.
    pub(super) fn unreadable(&self) -> Vec<String> {
        self.files.read().err().unwrap_or_default()
    }

    /// Reads the files again. None: they have not changed. The error lists all that is wrong.
    pub(super) fn read_again(&self) -> Result<Option<BuiltRules>, Vec<String>> {
        let (material, warnings) = self.files.read()?;
        if material.fingerprints() == self.fingerprints {
            return Ok(None);
        }
        self.files.build_from(&material, warnings).map(Some)
    }

    /// Uses new rules for new handshakes. Returns a line about them, and the warnings.
    pub(super) fn renew(&mut self, built: BuiltRules) -> (String, Vec<String>) {
        let changed: Vec<String> = self
            .files
            .settings()
            .filter(|(file, _)| self.fingerprints.differ(&built.fingerprints, *file))
            .map(|(_, setting)| format!("{} {}", setting.place, setting.value))
            .collect();
        self.current.set(built.rules);
        (self.fingerprints, self.memory_size) = (built.fingerprints, built.memory_size);
        (format!("{}: new handshakes with nodes use what has changed", changed.join(", ")), built.warnings)
    }
}

impl NodeFiles {
    fn new(settings: &UpstreamTls) -> NodeFiles {
        let setting = |file: &UpstreamFile| TextSetting { value: file.path.to_string(), place: file.place.to_string() };
        NodeFiles {
            authorities: settings.authorities.as_ref().map_or_else(system_authorities, setting),
            is_system: settings.authorities.is_none(),
            identity: settings.identity.as_ref().map(|(certificate, key)| [setting(certificate), setting(key)]),
        }
    }

    fn settings(&self) -> impl Iterator<Item = (FileRole, &TextSetting)> {
        let roles = [FileRole::Certificate, FileRole::Key];
        let own = self.identity.iter().flat_map(move |files| roles.into_iter().zip(files));
        std::iter::once((FileRole::ClientCa, &self.authorities)).chain(own)
    }

    /// Reads the files. Also returns warnings. The error lists all files that cannot be read.
    fn read(&self) -> Result<(Material, Vec<String>), Vec<String>> {
        let (mut material, mut warnings, mut errors) = (Material::default(), Vec::new(), Vec::new());
        for (file, setting) in self.settings() {
            match read_file(&setting.value, TLS_FILE_SIZE_MAX) {
                Ok((bytes, mode)) => match file {
                    FileRole::Certificate => material.certificate = bytes,
                    FileRole::Key => {
                        if mode & 0o007 != 0 {
                            warnings.push(sentence(setting, &MaterialNotice::KeyIsPublic));
                        }
                        material.key = bytes;
                    }
                    _ => material.client_ca = Some(bytes),
                },
                Err(error) => errors.push(sentence(setting, &error)),
            }
        }
        if errors.is_empty() { Ok((material, warnings)) } else { Err(errors) }
    }

    fn build(&self) -> Result<BuiltRules, Vec<String>> {
        let (material, warnings) = self.read()?;
        self.build_from(&material, warnings)
    }

    fn build_from(&self, material: &Material, mut warnings: Vec<String>) -> Result<BuiltRules, Vec<String>> {
        let describe = |file: FileRole, text: &dyn std::fmt::Display| {
            let setting = self.settings().find(|(role, _)| *role == file);
            setting.map_or_else(|| text.to_string(), |(_, setting)| sentence(setting, text))
        };
        // Without this, an empty file would mean that there is none.
        if let Some([certificate, _]) = self.identity.as_ref()
            && material.certificate.is_empty()
            && material.key.is_empty()
        {
            return Err(vec![sentence(certificate, &crate::tls::MaterialCause::NoCertificate)]);
        }
        let (rules, noticed) = NodeRules::new(material, self.is_system)
            .map_err(|errors| errors.iter().map(|error| describe(error.file, &error.cause)).collect::<Vec<_>>())?;
        warnings.extend(noticed.iter().map(|warning| describe(warning.file, &warning.notice)));
        let size = material.certificate.len() + material.key.len() + material.client_ca.as_ref().map_or(0, Vec::len);
        let memory_size = size as u64 * TLS_FILE_MEMORY_MAX + NODE_SESSIONS_MAX as u64 * NODE_SESSION_SIZE;
        Ok(BuiltRules { rules, fingerprints: material.fingerprints(), memory_size, warnings })
    }
}

/// The settings of TLS to nodes, of requests and of health checks.
fn settings_of(config: &Config) -> impl Iterator<Item = Arc<UpstreamTls>> {
    let links = config.servers.iter().flat_map(|server| server.site.links.iter().chain(&server.site.page_links));
    let upstreams = links.filter_map(|link| match &link.destination {
        Destination::Upstream(upstream) => Some(upstream),
        _ => None,
    });
    upstreams.flat_map(|upstream| {
        let health = upstream.cluster.health.as_ref().and_then(|health| health.tls.clone());
        upstream.tls.clone().into_iter().chain(health)
    })
}

/// The file of the system's authorities.
fn system_authorities() -> TextSetting {
    let of_variable = env::var(SYSTEM_VARIABLE).ok().filter(|path| !path.is_empty());
    match of_variable {
        Some(value) => TextSetting { value, place: SYSTEM_VARIABLE.to_owned() },
        None => {
            let [default, ..] = SYSTEM_PATHS;
            let found = SYSTEM_PATHS.into_iter().find(|path| Path::new(path).exists());
            let place = "the authorities of the system, where no cafile is set:".to_owned();
            TextSetting { value: found.unwrap_or(default).to_owned(), place }
        }
    }
}
