//! The files of the groups `tls`, and the identities that they make: for a start, a reload, `--check`, and when a file
//! changes. Those of TLS to nodes are in `node_certificates`.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::node_certificates::{BuiltRules, NodeCertificates};
use crate::config::{Config, TextSetting, TlsFiles};
use crate::driver::unix_s;
use crate::limits::{CRL_MEMORY_MAX, TLS_FILE_MEMORY_MAX, TLS_FILE_SIZE_MAX};
use crate::tls::{
    CurrentIdentity, Day, FileRole, Fingerprints, Hosts, Identity, Material, MaterialError, MaterialNotice, Tickets,
    Verify,
};
use crate::types::{ListenAddress, reason_of};

/// The identities of a configuration's servers, and the rules for the nodes of its upstreams.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    /// In the order of `Config::servers`. None: the server has no TLS.
    servers: Vec<Option<ServerIdentity>>,
    nodes: Vec<NodeCertificates>,
}

/// The identity of a server, and what it was made from.
#[derive(Clone)]
struct ServerIdentity {
    files: TlsFiles,
    hostname: Option<Box<str>>,
    listen: Vec<ListenAddress>,
    tickets: Tickets,
    fingerprints: Fingerprints,
    memory_size: u64,
    current: Arc<CurrentIdentity>,
}

/// The files of a server or of an upstream, read again.
pub(super) struct ReadAgain {
    /// The index in `Certificates::servers` or `Certificates::nodes`.
    index: usize,
    /// What the files make. None: none of them has changed. The error lists all that is wrong.
    result: Result<Option<BuiltAgain>, Vec<String>>,
}

/// What files make that were read again.
enum BuiltAgain {
    Server(Box<Built>),
    Nodes(Box<BuiltRules>),
}

/// An identity made from the files of a server.
struct Built {
    identity: Identity,
    tickets: Tickets,
    fingerprints: Fingerprints,
    /// Upper bound of its memory in bytes.
    memory_size: u64,
    /// A line for each.
    warnings: Vec<String>,
}

impl Certificates {
    /// Reads the files of a configuration. Session tickets of `old` stay valid where a server is the same. Also returns
    /// the warnings. The error lists all that is wrong.
    pub(crate) fn load(config: &Config, old: &Certificates) -> Result<(Certificates, Vec<String>), Vec<String>> {
        let (mut all, mut warnings, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for server in &config.servers {
            let Some(files) = &server.tls else {
                all.push(None);
                continue;
            };
            let hostname = &server.site.hostname;
            let is_same = |old: &&ServerIdentity| old.hostname == *hostname && old.listen == server.listen;
            let tickets = old.servers.iter().flatten().find(is_same).map(|old| &old.tickets);
            match read(files).and_then(|read| build(files, read, hostname.as_deref(), tickets)) {
                Ok(built) => {
                    add_new(&mut warnings, built.warnings);
                    all.push(Some(ServerIdentity {
                        files: files.clone(),
                        hostname: hostname.clone(),
                        listen: server.listen.clone(),
                        tickets: built.tickets,
                        fingerprints: built.fingerprints,
                        memory_size: built.memory_size,
                        current: Arc::new(CurrentIdentity::new(built.identity)),
                    }));
                }
                Err(more) => add_new(&mut errors, more),
            }
        }
        let nodes = NodeCertificates::load(config, &old.nodes, &mut warnings, &mut errors);
        if errors.is_empty() { Ok((Certificates { servers: all, nodes }, warnings)) } else { Err(errors) }
    }

    /// Whether neither a server nor an upstream has TLS.
    pub(crate) fn is_empty(&self) -> bool {
        self.servers.iter().all(Option::is_none) && self.nodes.is_empty()
    }

    /// Upper bound of the memory of all identities and rules in bytes, which depends on the sizes of their files.
    pub(crate) fn memory_size_max(&self) -> u64 {
        let servers = self.servers.iter().flatten().map(|server| server.memory_size);
        servers.chain(self.nodes.iter().map(NodeCertificates::memory_size)).sum()
    }

    /// The identities of these servers, which share an address. None: they have no TLS.
    pub(crate) fn hosts(&self, servers: &[usize]) -> Option<Hosts> {
        let host = |index: &usize| {
            let identity = self.servers.get(*index)?.as_ref()?;
            Some((identity.hostname.clone(), identity.current.clone()))
        };
        Hosts::new(servers.iter().map(host).collect::<Option<_>>()?)
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let servers = self.servers.iter().flatten();
        let servers = servers.flat_map(|server| used_settings(&server.files).map(|(_, setting)| &*setting.value));
        servers.chain(self.nodes.iter().flat_map(NodeCertificates::paths))
    }

    /// The errors of each server and upstream whose files this process cannot read now.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for server in self.servers.iter().flatten() {
            add_new(&mut lines, read(&server.files).err().unwrap_or_default());
        }
        for nodes in &self.nodes {
            add_new(&mut lines, nodes.unreadable());
        }
        lines
    }

    /// Reads all files again.
    pub(super) fn read_again(&self) -> Vec<ReadAgain> {
        let servers = self.servers.iter().enumerate().filter_map(|(index, server)| {
            let built =
                server.as_ref()?.read_again().map(|built| built.map(|built| BuiltAgain::Server(Box::new(built))));
            Some(ReadAgain { index, result: built })
        });
        let nodes = self.nodes.iter().enumerate().map(|(index, nodes)| {
            let result = nodes.read_again().map(|built| built.map(|built| BuiltAgain::Nodes(Box::new(built))));
            ReadAgain { index, result }
        });
        servers.chain(nodes).collect()
    }

    /// Uses what the files of a server or an upstream make, if they have changed, for new handshakes. Returns a line about
    /// it, and the warnings.
    pub(super) fn renew(&mut self, read: ReadAgain) -> Result<Option<(String, Vec<String>)>, Vec<String>> {
        Ok(match read.result? {
            Some(BuiltAgain::Server(built)) => {
                let server = self.servers.get_mut(read.index).and_then(Option::as_mut);
                server.map(|server| server.renew(*built))
            }
            Some(BuiltAgain::Nodes(built)) => self.nodes.get_mut(read.index).map(|nodes| nodes.renew(*built)),
            None => None,
        })
    }

    /// The warnings that depend on the time: what has expired, or will soon.
    pub(crate) fn dated_warnings(&self, now_s: u64) -> Vec<String> {
        let mut lines = Vec::new();
        // The authority of a certificate renews it, or says daily why it cannot.
        for server in self.servers.iter().flatten().filter(|server| server.files.authority.is_none()) {
            add_new(&mut lines, dated_warnings(&server.files, &server.current.get(), now_s));
        }
        lines
    }
}

impl ServerIdentity {
    /// Reads the files again. None: they have not changed. The error lists all that is wrong.
    fn read_again(&self) -> Result<Option<Built>, Vec<String>> {
        let read = read(&self.files)?;
        if read.material.fingerprints() == self.fingerprints {
            return Ok(None);
        }
        build(&self.files, read, self.hostname.as_deref(), Some(&self.tickets)).map(Some)
    }

    fn renew(&mut self, built: Built) -> (String, Vec<String>) {
        let changed: Vec<String> = used_settings(&self.files)
            .filter(|(file, _)| self.fingerprints.differ(&built.fingerprints, *file))
            .map(|(_, setting)| format!("{} {}", setting.place, setting.value))
            .collect();
        let expires = Day(built.identity.expires_s());
        let line = format!(
            "{}: new handshakes use what has changed; the certificate expires on {expires}",
            changed.join(", ")
        );
        self.current.set(built.identity);
        (self.tickets, self.fingerprints, self.memory_size) = (built.tickets, built.fingerprints, built.memory_size);
        (line, built.warnings)
    }
}

/// The files of a server, read.
struct ReadFiles {
    material: Material,
    /// A line for each.
    warnings: Vec<String>,
}

/// Reads the files of a server. The error lists all files that cannot be read.
fn read(files: &TlsFiles) -> Result<ReadFiles, Vec<String>> {
    read_those(files, |_| true)
}

/// Reads some files of a server.
fn read_those(files: &TlsFiles, is_read: fn(FileRole) -> bool) -> Result<ReadFiles, Vec<String>> {
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    let mut material = Material { verify: files.verify, offload: files.offload, ..Material::default() };
    for (file, setting) in used_settings(files).filter(|(file, _)| is_read(*file)) {
        match read_file(&setting.value, TLS_FILE_SIZE_MAX) {
            Ok((bytes, mode)) => {
                if file == FileRole::Key && mode & 0o007 != 0 {
                    warnings.push(sentence(setting, &MaterialNotice::KeyIsPublic));
                }
                match file {
                    FileRole::Certificate => material.certificate = bytes,
                    FileRole::Key => material.key = bytes,
                    FileRole::Chain => material.chain = Some(bytes),
                    FileRole::ClientCa => material.client_ca = Some(bytes),
                    FileRole::Crl => material.crl = Some(bytes),
                }
            }
            Err(error) => errors.push(sentence(setting, &error)),
        }
    }
    if errors.is_empty() { Ok(ReadFiles { material, warnings }) } else { Err(errors) }
}

/// Checks the files about clients' certificates of a server whose own certificate does not exist yet. The error lists all
/// that is wrong.
pub(super) fn examine_clients(files: &TlsFiles) -> Result<(), Vec<String>> {
    let is_about_clients = |file| matches!(file, FileRole::ClientCa | FileRole::Crl);
    let ReadFiles { material, .. } = read_those(files, is_about_clients)?;
    let describe = |error: &MaterialError| describe(files, error.file, &error.cause);
    let tickets = Tickets::new(&material).map_err(|error| vec![describe(&error)])?;
    let found = Identity::new(&material, None, &tickets).err().unwrap_or_default();
    let errors: Vec<String> = found.iter().filter(|error| is_about_clients(error.file)).map(describe).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Whether the certificate and the key of these files can be used, whatever is wrong with the others.
pub(super) fn has_usable_pair(files: &TlsFiles) -> bool {
    let pair = TlsFiles { chain: None, client_ca: None, crl: None, verify: Verify::None, ..files.clone() };
    read(&pair).and_then(|read| build(&pair, read, None, None)).is_ok()
}

/// Builds the identity of a server. Tickets that were valid before stay valid if they may.
fn build(
    files: &TlsFiles,
    read: ReadFiles,
    hostname: Option<&str>,
    tickets: Option<&Tickets>,
) -> Result<Built, Vec<String>> {
    let ReadFiles { material, mut warnings } = read;
    let tickets = match tickets.filter(|tickets| tickets.fit(&material)) {
        Some(tickets) => tickets.clone(),
        None => Tickets::new(&material).map_err(|error| vec![describe(files, error.file, &error.cause)])?,
    };
    let (identity, noticed) = Identity::new(&material, hostname, &tickets)
        .map_err(|errors| errors.iter().map(|error| describe(files, error.file, &error.cause)).collect::<Vec<_>>())?;
    warnings.extend(noticed.iter().map(|warning| describe(files, warning.file, &warning.notice)));
    warnings.extend(dated_warnings(files, &identity, unix_s()));
    Ok(Built {
        identity,
        tickets,
        fingerprints: material.fingerprints(),
        memory_size: memory_size_max(&material),
        warnings,
    })
}

/// Upper bound of the memory of an identity, in bytes.
fn memory_size_max(material: &Material) -> u64 {
    let Material { certificate, key, chain, client_ca, crl, .. } = material;
    let size = |file: &Option<Vec<u8>>| file.as_ref().map_or(0, Vec::len);
    let files = certificate.len() + key.len() + size(chain) + size(client_ca);
    files as u64 * TLS_FILE_MEMORY_MAX + size(crl) as u64 * CRL_MEMORY_MAX
}

fn dated_warnings(files: &TlsFiles, identity: &Identity, now_s: u64) -> Vec<String> {
    let warnings = identity.warnings_at(now_s);
    warnings.iter().map(|warning| describe(files, warning.file, &warning.notice)).collect()
}

/// The files that a server's identity is made from.
fn used_settings(files: &TlsFiles) -> impl Iterator<Item = (FileRole, &TextSetting)> {
    let is_used = |file| files.verify != Verify::None || !matches!(file, FileRole::ClientCa | FileRole::Crl);
    let all = FileRole::ALL.into_iter().filter(move |file| is_used(*file));
    all.filter_map(|file| Some((file, setting(files, file)?)))
}

fn setting(files: &TlsFiles, file: FileRole) -> Option<&TextSetting> {
    match file {
        FileRole::Certificate => Some(&files.certificate),
        FileRole::Key => Some(&files.key),
        FileRole::Chain => files.chain.as_ref(),
        FileRole::ClientCa => files.client_ca.as_ref(),
        FileRole::Crl => files.crl.as_ref(),
    }
}

fn describe(files: &TlsFiles, file: FileRole, text: &dyn fmt::Display) -> String {
    setting(files, file).map_or_else(|| text.to_string(), |setting| sentence(setting, text))
}

/// The warning about a file that is in use and cannot be read again.
pub(crate) fn needs_restart(error: &str) -> String {
    format!("{error}; until then, a new certificate needs a restart")
}

/// A line about a file.
pub(super) fn sentence(setting: &TextSetting, text: &dyn fmt::Display) -> String {
    format!("{} {}: {text}", setting.place, setting.value)
}

/// Adds lines, each of them once: several servers may have the same files.
pub(super) fn add_new(lines: &mut Vec<String>, more: Vec<String>) {
    for line in more {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

/// Why a file cannot be read. Display is the end of a sentence for the operator.
#[derive(Debug)]
pub(super) enum FileError {
    NotRegular,
    TooLarge(usize),
    Failed(io::Error),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::NotRegular => f.write_str("is not a regular file: name another one"),
            FileError::TooLarge(size_max) => write!(f, "is larger than {size_max} bytes: name another file"),
            FileError::Failed(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("does not exist: create it, or name another file")
            }
            FileError::Failed(error) if error.kind() == io::ErrorKind::PermissionDenied => f.write_str(
                "the daemon's user may not read it: let a deploy hook make a copy that its group may read \
                 (certbot-deploy-hook, docs/operations.md), and name the copy",
            ),
            FileError::Failed(error) => {
                write!(f, "cannot be read: {}: name another file", reason_of(error))
            }
        }
    }
}

/// The bytes of a file and its mode.
pub(super) fn read_file(path: &str, size_max: usize) -> Result<(Vec<u8>, u32), FileError> {
    // Opening a named pipe would block until it has a writer.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(FileError::Failed)?;
    let status = file.metadata().map_err(FileError::Failed)?;
    if !status.is_file() {
        return Err(FileError::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(size_max as u64 + 1).read_to_end(&mut bytes).map_err(FileError::Failed)?;
    if bytes.len() > size_max { Err(FileError::TooLarge(size_max)) } else { Ok((bytes, status.mode())) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::sys::stat::Mode;
    use nix::unistd::{mkdtemp, mkfifo};

    use super::*;

    #[test]
    fn files_that_are_not_read() {
        let folder = mkdtemp(&std::env::temp_dir().join("uakari-files-XXXXXX")).unwrap();
        mkfifo(&folder.join("pipe"), Mode::S_IRWXU).unwrap();
        std::fs::write(folder.join("large"), [0; 11]).unwrap();
        std::fs::write(folder.join("good"), [0; 10]).unwrap();
        for (name, part) in [
            ("missing", Some("does not exist")),
            (".", Some("is not a regular file")),
            ("pipe", Some("is not a regular file")),
            ("large", Some("is larger than 10 bytes")),
            ("good/file", Some("cannot be read: Not a directory")),
            ("good", None),
        ] {
            let read = read_file(folder.join(name).to_str().unwrap(), 10);
            match (&read, part) {
                (Ok((bytes, _)), None) => assert_eq!(bytes.len(), 10),
                (Err(error), Some(part)) => assert!(error.to_string().starts_with(part), "{name}: {error}"),
                _ => panic!("{name}: {read:?}"),
            }
        }
        assert!(matches!(read_file("/dev/null", 10), Err(FileError::NotRegular)));
        std::fs::remove_dir_all(Path::new(&folder)).unwrap();
    }
}
