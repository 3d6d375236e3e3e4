//! The configuration: read from a file, from flags or from both, checked, and converted to types.

/// The table of all keys.
pub mod keys;

/// Errors and warnings.
pub mod problem;

/// libconfig's syntax.
pub mod syntax;

/// Command-line flags.
pub mod flags;

mod check;

mod merge;

mod values;

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use crate::clients::Trust;
use crate::driver::Choice;
use crate::limits;
use crate::observe::log;
use crate::route::{Destination, Site};
use crate::tls::{Offload, UpstreamTls, Verify};
use crate::types::{ListenAddress, reason_of};
use crate::upstream::{Cluster, Upstream};
use flags::Flag;
use problem::{Location, Problem, Problems};

/// A value and where it was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TextSetting {
    pub(crate) value: String,
    /// File, line and key, or the flag: the beginning of an error.
    pub(crate) place: String,
}

/// A checked configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The user to switch to after the addresses are bound.
    pub(crate) user: Option<TextSetting>,
    pub(crate) pid_file: Option<TextSetting>,
    pub(crate) log: log::Settings,
    /// Where `log-file` was set, as in [`TextSetting`].
    pub(crate) log_place: String,
    /// Which driver the daemon uses.
    pub driver: Choice,
    /// Where `driver` was set, as in [`TextSetting`]; the whole file if it was not.
    pub driver_place: String,
    /// Limits of the process.
    pub limits: limits::Process,
    /// At least one server lacks a protection that ouistiti gives it.
    pub(crate) is_unprotected: bool,
    /// The rules of all servers, for uakari-auth.
    pub(crate) auth_rules: Vec<auth_wire::Rule>,
    /// Where each of them was set, as in [`TextSetting`].
    pub(crate) auth_places: Vec<String>,
    /// The number of these rules, which the daemon sets: it grows when they change.
    pub(crate) auth_generation: u32,
    /// The elements of `upstreams`, and the single nodes that links have as destinations.
    pub upstreams: Vec<Arc<Cluster>>,
    /// TLS to their nodes, as far as links use it.
    pub(crate) upstream_tls: Vec<UpstreamTlsFiles>,
    /// Never empty.
    pub servers: Vec<Server>,
}

/// Where settings of a server were set, as in [`TextSetting`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SettingPlaces {
    pub(crate) listen: String,
    pub(crate) docroot: String,
    pub(crate) www: String,
    /// Which of them flags set. A resource that a flag names must exist at the start; others are retried.
    pub(crate) by_flag: SetByFlag,
}

/// The settings of a server that flags set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SetByFlag {
    pub(crate) listen: bool,
    pub(crate) docroot: bool,
    pub(crate) www: bool,
}

/// The group `tls` of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TlsFiles {
    /// The file of the server's certificate, and possibly of intermediate certificates after it (`crtfile`).
    pub(crate) certificate: TextSetting,
    /// The file of its private key (`keyfile`).
    pub(crate) key: TextSetting,
    /// The file of further intermediate certificates (`cachain`).
    pub(crate) chain: Option<TextSetting>,
    /// The file of the authorities that sign clients' certificates (`clientca`).
    pub(crate) client_ca: Option<TextSetting>,
    /// The file of revocation lists (`crlfile`).
    pub(crate) crl: Option<TextSetting>,
    /// Whether clients present a certificate (`verify`).
    pub(crate) verify: Verify,
    /// The folder of the authority that makes certificate and key (`dir`). None: the operator does (not `self-signed`).
    pub(crate) authority: Option<TextSetting>,
    /// Whose records the kernel makes (`tls-offload` of the server).
    pub(crate) offload: Offload,
}

/// The group `tls` of an upstream, or of a link to a single node.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamTlsFiles {
    /// The name of the cluster.
    pub(crate) cluster: Box<str>,
    /// What links and health checks have of it.
    pub(crate) tls: Arc<UpstreamTls>,
}

impl UpstreamTlsFiles {
    /// Whether both are configured alike, wherever that is.
    fn is_alike(&self, other: &UpstreamTlsFiles) -> bool {
        (&self.cluster, &self.tls) == (&other.cluster, &other.tls)
    }
}

/// One element of `servers`.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) places: SettingPlaces,
    /// The addresses to listen on; never empty.
    pub listen: Vec<ListenAddress>,
    /// Listen on addresses that the machine does not have (IP_FREEBIND, ip(7)).
    pub(crate) has_freebind: bool,
    /// The folder of the pages.
    pub www: Option<String>,
    /// The folder of the backends' sockets.
    pub docroot: Option<String>,
    /// What it believes about its clients. Servers of one address have the same.
    pub(crate) trust: Trust,
    /// Certificate and key. None: it serves without TLS.
    pub(crate) tls: Option<TlsFiles>,
    /// Rules, links and limits.
    pub site: Site,
    /// The hosts of its links, to be resolved.
    pub(crate) hosts: Vec<Host>,
}

/// The host of a TCP link. The link's destination has no addresses until the host is resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    /// Index into `Site::links`.
    pub(crate) link: usize,
    /// Its name.
    pub(crate) name: Box<str>,
    /// The port of the backend.
    pub(crate) port: u16,
    /// Where it was set, as in [`TextSetting`].
    pub(crate) place: String,
}

impl Config {
    /// Replaces upstreams that an older configuration has alike by those: they keep their connections, and what is known
    /// about their nodes. So is TLS to them, whose files may have changed. Links are new.
    pub(crate) fn adopt(&mut self, old: &Config) {
        let mut left: Vec<&Arc<Cluster>> = old.upstreams.iter().collect();
        for cluster in &mut self.upstreams {
            let Some(at) = left.iter().position(|old| *old == cluster) else { continue };
            let adopted = left.remove(at).clone();
            replace_cluster(&mut self.servers, cluster, &adopted);
            *cluster = adopted;
        }
        let mut left: Vec<&UpstreamTlsFiles> = old.upstream_tls.iter().collect();
        for files in &mut self.upstream_tls {
            let Some(at) = left.iter().position(|old| old.is_alike(files)) else { continue };
            let adopted = left.remove(at).tls.clone();
            for upstream in upstreams_of(&mut self.servers) {
                if upstream.tls.as_ref().is_some_and(|tls| Arc::ptr_eq(tls, &files.tls)) {
                    Arc::make_mut(upstream).tls = Some(adopted.clone());
                }
            }
            files.tls = adopted;
        }
    }
}

/// Replaces a cluster in all links that lead to it.
fn replace_cluster(servers: &mut [Server], old: &Arc<Cluster>, new: &Arc<Cluster>) {
    for upstream in upstreams_of(servers) {
        if Arc::ptr_eq(&upstream.cluster, old) {
            Arc::make_mut(upstream).cluster = new.clone();
        }
    }
}

/// The destinations of all links to nodes.
fn upstreams_of(servers: &mut [Server]) -> impl Iterator<Item = &mut Arc<Upstream>> {
    let links = servers.iter_mut().flat_map(|server| server.site.links.iter_mut().chain(&mut server.site.page_links));
    links.filter_map(|link| match &mut link.destination {
        Destination::Upstream(upstream) => Some(upstream),
        _ => None,
    })
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Warnings, ordered by file and line.
    pub warnings: Vec<Problem>,
}

/// Reads a file and its includes, applies the flags and checks the result. None: flags alone. Resources that the
/// configuration names are not opened. The error has errors and warnings, ordered and limited by [`Problems::finish`].
pub fn load(file: Option<&str>, flags: &[Flag]) -> Result<Loaded, Vec<Problem>> {
    load_through(&mut read, &mut list, file, flags)
}

fn load_through(
    read: &mut syntax::Read<'_>,
    list: &mut merge::List<'_>,
    file: Option<&str>,
    flags: &[Flag],
) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut settings = match file {
        Some(name) => {
            let mut settings = syntax::parse(name, read, &mut problems);
            merge::merge(&mut settings, name, read, list, &mut problems);
            settings
        }
        None => {
            problems.add_source("the flags");
            Vec::new()
        }
    };
    if problems.is_broken() {
        return Err(problems.finish());
    }
    let whole = Location { source: 0, line: 0 };
    flags::apply(&mut settings, flags, whole, &mut problems);
    let config = check::check(&settings, whole, &mut problems);
    if problems.has_errors() { Err(problems.finish()) } else { Ok(Loaded { config, warnings: problems.finish() }) }
}

/// The bytes of a file, at most `CONFIG_SIZE_MAX + 1`, so that the caller sees a file that is too large.
fn read(name: &str) -> Result<Vec<u8>, String> {
    let failed = |error| format!("cannot be read: {}: name a file that this user may read", reason_of(&error));
    // Opening a named pipe would block until it has a writer.
    if !std::fs::metadata(name).map_err(failed)?.is_file() {
        return Err("is not a regular file: name another one".to_owned());
    }
    let mut bytes = Vec::new();
    let most = limits::CONFIG_SIZE_MAX as u64 + 1;
    File::open(name).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The files of `config_d`, sorted: the files `*.conf` of a folder, or one file. A relative path is resolved in the
/// working directory, else in /, the working directory of ouistiti's packages.
fn list(path: &str) -> Result<Vec<String>, String> {
    let reason = |error| format!("cannot be read: {}", reason_of(&error));
    let is_there = path.starts_with('/') || std::fs::metadata(path).is_ok();
    let path = if is_there { path.to_owned() } else { format!("/{path}") };
    if std::fs::metadata(&path).map_err(reason)?.is_file() {
        return Ok(vec![path]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(reason)? {
        let Ok(name) = entry.map_err(reason)?.file_name().into_string() else { continue };
        let file = format!("{}/{name}", path.trim_end_matches('/'));
        // A hidden file may be an editor's lock file, a dangling link.
        if !name.ends_with(".conf") || name.starts_with('.') {
            continue;
        }
        match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) if metadata.is_file() => files.push(file),
            Ok(_) => return Err(format!("contains {name}, which is not a regular file")),
            // As in ouistiti, a dangling link is skipped.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("contains {name}, which {}", reason(error))),
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
