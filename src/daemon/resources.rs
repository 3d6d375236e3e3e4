//! Opens the listeners and folders of a configuration, and raises RLIMIT_NOFILE for its clients.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::{self, fstat};

use super::certificates::Certificates;
use crate::config::{Config, Server};
use crate::driver::tcp;
use crate::gateway::endpoint::{Endpoint, Folders, Held, StageKind};
use crate::gateway::listen_socket::{self, Binding, ListenError, ListenSocket};
use crate::gateway::listener::ListenerSetup;
use crate::limits;
use crate::observe::log::{self, Level};
use crate::permit::Count;
use crate::process::inherited::Inherited;
use crate::route::Sites;
use crate::types::ListenAddress;

/// The treatment of resources that cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Missing resources are retried; other failures are errors.
    Start,
    /// Resources that were retried before still are; other failures are errors. At least one address must be open.
    Reload,
    /// All failures are retried.
    Retry,
}

/// A resource that a configuration names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ResourceName {
    /// The folder at this path.
    Folder(String),
    /// A listening address.
    Address(ListenAddress),
}

impl ResourceName {
    /// Whether a retry may succeed. Opens and binds nothing that remains.
    pub(crate) fn may_be_there(&self) -> bool {
        match self {
            ResourceName::Folder(path) => open_folder(path).is_ok(),
            ResourceName::Address(address) => listen_socket::may_be_there(address),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourceName::Folder(path) => write!(f, "the folder {path}"),
            ResourceName::Address(address) => address.fmt(f),
        }
    }
}

/// A missing resource and the error of the last attempt.
#[derive(Clone, Debug)]
pub(crate) struct MissingResource {
    /// The resource.
    pub(crate) name: ResourceName,
    /// Where the configuration names it, and the error: a line for the log.
    pub(crate) sentence: String,
}

/// The opened resources of a configuration.
#[derive(Default)]
pub(crate) struct OpenedResources {
    /// For the gateway.
    pub(crate) setups: Vec<ListenerSetup<OwnedFd>>,
    /// The addresses bound, with the actual ports.
    pub(crate) bound: Vec<ServedAddress>,
    /// Inherited addresses in use.
    pub(crate) inherited: Vec<ServedAddress>,
    /// Missing resources to retry.
    pub(crate) missing: Vec<MissingResource>,
    /// The folders, by their paths.
    pub(crate) folders: OpenFolders,
}

/// An address and its scheme. Display is what is announced.
pub(crate) struct ServedAddress {
    /// The address.
    pub(crate) address: ListenAddress,
    /// Whether its servers have TLS.
    pub(crate) has_tls: bool,
}

impl fmt::Display for ServedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address.url(self.has_tls))
    }
}

/// Open folders by path. They are kept over a reload: the user may lack the permission to open what root opened.
pub(crate) type OpenFolders = BTreeMap<String, OwnedFd>;

/// State of the running daemon that matters when resources are opened.
#[derive(Clone, Copy)]
pub(crate) struct Reusable<'a> {
    /// Addresses with a listener.
    pub(crate) known: &'a [ListenAddress],
    /// Inherited listening sockets.
    pub(crate) inherited: &'a [Inherited],
    /// Open folders, for a retry that cannot open them again.
    pub(crate) folders: &'a OpenFolders,
    /// Missing resources that are retried already.
    pub(crate) missing: &'a [ResourceName],
}

/// Resources that could not be opened.
struct Failures<'a> {
    mode: Mode,
    was_missing: &'a [ResourceName],
    errors: Vec<String>,
    missing: Vec<MissingResource>,
}

impl Failures<'_> {
    /// Adds a failure once. `may_come`: the resource is missing and may appear.
    fn add(&mut self, place: &str, name: ResourceName, may_come: bool, error: &dyn fmt::Display) {
        let sentence = format!("{place}: {error}");
        let is_retried = match self.mode {
            Mode::Start => may_come,
            Mode::Reload => may_come && self.was_missing.contains(&name),
            Mode::Retry => true,
        };
        if !is_retried {
            if !self.errors.contains(&sentence) {
                self.errors.push(sentence);
            }
        } else if self.missing.iter().all(|missing| missing.name != name) {
            self.missing.push(MissingResource { name, sentence });
        }
    }

    /// The opened resources, or all errors.
    fn finish(mut self, mut opened: OpenedResources) -> Result<OpenedResources, Vec<String>> {
        if opened.setups.is_empty() && self.mode != Mode::Retry {
            // A start without any listener continues if a TCP address may still appear.
            let ends = |missing: &&MissingResource| match &missing.name {
                ResourceName::Folder(_) => false,
                ResourceName::Address(ListenAddress::Tcp(_)) => self.mode == Mode::Reload,
                ResourceName::Address(ListenAddress::Unix(_)) => true,
            };
            self.errors.extend(self.missing.iter().filter(ends).map(|missing| missing.sentence.clone()));
        }
        opened.missing = self.missing;
        if self.errors.is_empty() { Ok(opened) } else { Err(self.errors) }
    }
}

/// Opens the resources of a configuration, whose certificates were loaded. The error lists all that cannot be opened.
pub(crate) fn open_all(
    config: &Config,
    certificates: &Certificates,
    held: Reusable<'_>,
    mode: Mode,
) -> Result<OpenedResources, Vec<String>> {
    // Servers with the same addresses share an endpoint.
    let mut servers_at: Vec<(&ListenAddress, Vec<usize>)> = Vec::new();
    for (index, server) in config.servers.iter().enumerate() {
        for address in &server.listen {
            match servers_at.iter_mut().find(|(other, _)| *other == address) {
                Some((_, servers)) => servers.push(index),
                None => servers_at.push((address, vec![index])),
            }
        }
    }
    let mut endpoints: BTreeMap<Vec<usize>, Option<Arc<Endpoint<OwnedFd>>>> = BTreeMap::new();
    let mut opened = OpenedResources::default();
    let mut failures = Failures { mode, was_missing: held.missing, errors: Vec::new(), missing: Vec::new() };
    let mut patience_ms = if mode == Mode::Retry { 0 } else { limits::BIND_RETRY_MS };
    for (address, servers) in servers_at {
        let Some(first) = servers.first().and_then(|first| config.servers.get(*first)) else { continue };
        let stage = certificates.hosts(&servers).map_or(StageKind::Plain, |hosts| StageKind::Tls(Arc::new(hosts)));
        let has_tls = matches!(stage, StageKind::Tls(_));
        let open = || {
            let folders = (held.folders, &mut opened.folders);
            let mut endpoint = open_endpoint(&config.servers, &servers, stage, folders, &mut failures)?;
            endpoint.sites.generation = config.auth_generation;
            Some(Arc::new(endpoint))
        };
        let endpoint = endpoints.entry(servers.clone()).or_insert_with(open).clone();
        let has_freebind = servers.iter().any(|index| config.servers.get(*index).is_some_and(|one| one.has_freebind));
        let binding = Binding { has_freebind, patience_ms };
        let source = match source_of(address, held, &first.site.limits, binding) {
            Ok(source) => source,
            // The default addresses include [::], which a machine without IPv6 lacks.
            Err(NoListener::Listen(error))
                if error.is_without_ipv6() && config.servers.iter().any(|server| has_another(server, address)) =>
            {
                log::event(Level::Warn, format_args!("{}: {error}: left out", first.places.listen));
                continue;
            }
            Err(error) => {
                let may_come = error.may_come() && !first.places.by_flag.listen;
                if !may_come {
                    // Other busy addresses have had the same time to become free.
                    patience_ms = 0;
                }
                failures.add(&first.places.listen, ResourceName::Address(address.clone()), may_come, &error);
                continue;
            }
        };
        let (socket, file) = match source {
            ListenerSource::Known => (None, None),
            ListenerSource::Inherited(copy) => {
                opened.inherited.push(ServedAddress { address: address.clone(), has_tls });
                (Some(copy), None)
            }
            ListenerSource::Bound(ListenSocket { fd, address: at, file }) => {
                opened.bound.push(ServedAddress { address: at, has_tls });
                (Some(fd), file)
            }
        };
        if let Some(endpoint) = endpoint {
            opened.setups.push(ListenerSetup { address: address.clone(), socket, file, endpoint });
        }
    }
    failures.finish(opened)
}

/// Where the listener of an address comes from.
enum ListenerSource {
    /// The existing listener.
    Known,
    /// A copy of an inherited listener, which may serve both an IPv4 and an IPv6 address.
    Inherited(OwnedFd),
    /// A new listener.
    Bound(ListenSocket),
}

/// Why an address has no listener. Display is the operator's sentence.
enum NoListener {
    Copy(ListenAddress, Errno),
    /// The address, and a listener of this daemon that conflicts with it.
    InTheWay(ListenAddress, ListenAddress),
    Listen(ListenError),
}

impl NoListener {
    /// Whether the address, or the folder of a UNIX socket, does not exist yet.
    fn may_come(&self) -> bool {
        matches!(self, NoListener::Listen(error) if error.is_without_address() || error.is_without_folder())
    }
}

impl fmt::Display for NoListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoListener::Copy(address, errno) => {
                write!(f, "cannot use the inherited {address}: {}: correct its socket unit", errno.desc())
            }
            NoListener::InTheWay(address, own) => {
                write!(f, "cannot listen on {address}: this daemon listens on {own}: restart it")
            }
            NoListener::Listen(error) => error.fmt(f),
        }
    }
}

fn source_of(
    address: &ListenAddress,
    Reusable { known, inherited, .. }: Reusable<'_>,
    limits: &limits::Http,
    binding: Binding,
) -> Result<ListenerSource, NoListener> {
    if known.contains(address) {
        return Ok(ListenerSource::Known);
    }
    if let Some(given) = inherited.iter().find(|given| given.is_for(address)) {
        let failed = |errno| NoListener::Copy(address.clone(), errno);
        return copy_of(given, limits).map(ListenerSource::Inherited).map_err(failed);
    }
    if let Some(own) = in_the_way(address, known) {
        return Err(NoListener::InTheWay(address.clone(), own.clone()));
    }
    listen_socket::listen(address, limits, binding).map(ListenerSource::Bound).map_err(NoListener::Listen)
}

fn copy_of(given: &Inherited, limits: &limits::Http) -> Result<OwnedFd, Errno> {
    let copy = given.fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    if let ListenAddress::Tcp(_) = given.address {
        tcp::watch_peers(&copy, limits)?;
        tcp::keep_unsent_small(&copy)?;
    }
    Ok(copy)
}

/// The listener that conflicts with an address: one is the wildcard address of the other's family, with the same port.
fn in_the_way<'a>(address: &ListenAddress, known: &'a [ListenAddress]) -> Option<&'a ListenAddress> {
    let ListenAddress::Tcp(wanted) = address else { return None };
    known.iter().find(|known| {
        let ListenAddress::Tcp(here) = known else { return false };
        let is_any = here.ip().is_unspecified() || wanted.ip().is_unspecified();
        is_any && here.is_ipv4() == wanted.is_ipv4() && here.port() == wanted.port() && wanted.port() != 0
    })
}

/// Whether a server listens on this address and on another one.
fn has_another(server: &Server, address: &ListenAddress) -> bool {
    server.listen.contains(address) && server.listen.len() > 1
}

/// The endpoint of servers that share an address. A server whose folder is missing is served without it.
fn open_endpoint(
    all: &[Server],
    indices: &[usize],
    stage: StageKind,
    (old, new): (&OpenFolders, &mut OpenFolders),
    failures: &mut Failures<'_>,
) -> Option<Endpoint<OwnedFd>> {
    let mut open = |path: &Option<String>, place: &str, is_by_flag: bool| {
        let path = path.as_ref()?;
        let watched = |handle| Some(Held { handle, path: CString::new(path.as_str()).ok()? });
        match open_folder(path) {
            Ok(folder) => {
                new.insert(path.clone(), folder.try_clone().ok()?);
                watched(folder)
            }
            Err(error) => {
                let held = old.get(path).filter(|folder| failures.mode == Mode::Retry && is_there(folder));
                if held.is_none() {
                    failures.add(place, ResourceName::Folder(path.clone()), error.is_missing() && !is_by_flag, &error);
                }
                let (one, other) = (held?.try_clone().ok()?, held?.try_clone().ok()?);
                new.insert(path.clone(), one);
                watched(other)
            }
        }
    };
    let servers: Vec<&Server> = indices.iter().filter_map(|index| all.get(*index)).collect();
    let (mut folders, mut sites) = (Vec::new(), Vec::new());
    for server in &servers {
        let docroot = open(&server.docroot, &server.places.docroot, server.places.by_flag.docroot);
        let www = open(&server.www, &server.places.www, server.places.by_flag.www);
        let mut site = server.site.fresh();
        (site.has_docroot, site.has_www) = (docroot.is_some(), www.is_some());
        folders.push(Folders { docroot, www });
        sites.push(Arc::new(site));
    }
    let mut sites = sites.into_iter();
    let first = sites.next()?;
    let clients_max = servers.iter().map(|server| server.site.limits.clients_max).max().unwrap_or(0);
    let mut sites = Sites::new(first, sites.collect());
    // The check has compared them.
    sites.trust = servers.first().map(|server| server.trust.clone()).unwrap_or_default();
    Some(Endpoint { sites, folders, stage, clients_max, clients: Count::default() })
}

/// A folder that cannot be opened. Display names the path and the remedy.
#[derive(Debug)]
pub(crate) struct FolderError {
    path: String,
    errno: Errno,
}

impl FolderError {
    /// Whether the path does not exist, so that opening it may be retried.
    pub(crate) fn is_missing(&self) -> bool {
        self.errno == Errno::ENOENT
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.errno {
            Errno::ENOENT => "create it, or name another one",
            Errno::EACCES => "give the daemon's user access to it and to the folders above it",
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
            _ => "name another one",
        };
        f.write_str("the folder ")?;
        for character in self.path.chars() {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => f.write_char(character)?,
            }
        }
        write!(f, " cannot be opened: {}: {remedy}", self.errno.desc())
    }
}

/// Opens a folder as the root of path lookups (openat2(2), RESOLVE_BENEATH).
pub(crate) fn open_folder(path: &str) -> Result<OwnedFd, FolderError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    fcntl::open(path, flags, stat::Mode::empty()).map_err(|errno| FolderError { path: path.to_owned(), errno })
}

/// Whether a folder has not been removed.
fn is_there(folder: &OwnedFd) -> bool {
    fstat(folder).is_ok_and(|status| status.st_nlink > 0)
}

/// Raises RLIMIT_NOFILE to what the clients need: two descriptors each, a third one during the handshake;
/// and to what connections to nodes without a client need. If the hard
/// limit is lower, reduces the number of clients.
#[allow(clippy::useless_conversion, reason = "a limit of the system has 32 bits on some machines")]
pub(crate) fn raise_descriptors(limits: &mut limits::Process) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let handshakes = limits.handshakes_max.min(limits.clients_max);
    let reserved = limits::FDS_RESERVED + limits.upstream_idle_max;
    let needed = 2 * limits.clients_max + handshakes + reserved;
    let wanted = if limits.fds_max > 0 { limits.fds_max } else { needed };
    let fds = rlim_t::try_from(wanted).unwrap_or(rlim_t::MAX).min(hard);
    // `limits.files` is applied even if it is below the soft limit.
    let is_enough = fds <= soft && limits.fds_max == 0;
    let fds = if is_enough || setrlimit(Resource::RLIMIT_NOFILE, fds, hard).is_ok() { fds } else { soft };
    let fds = u64::from(fds);
    if fds < needed {
        let clients_max = (fds.saturating_sub(reserved) / 2).max(1);
        if clients_max < limits.clients_max {
            let whose = if fds == limits.fds_max { "limits.files" } else { "ulimit -n" };
            log::event(Level::Warn, format_args!("{fds} file descriptors ({whose}) allow {clients_max} clients only"));
            limits.clients_max = clients_max;
        }
    }
}
