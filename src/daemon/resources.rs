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

use crate::config::{Config, Server};
use crate::driver::tcp;
use crate::gateway::entrance::{self, Endpoint, Folders, Opening};
use crate::gateway::listener::{self, Binding, ListenAddress, ListenError, Listener};
use crate::limits;
use crate::observe::log::{self, Level};
use crate::permit::Count;
use crate::process::inherited::Inherited;
use crate::route::Sites;

/// How to treat resources that cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Missing resources are retried; other failures are errors.
    Start,
    /// Resources that were retried before still are; other failures are errors. At least one address must be open.
    Reload,
    /// All failures are retried.
    Retry,
}

/// A missing resource that is retried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// The folder at this path.
    Folder(String),
    /// A listening address.
    Address(ListenAddress),
}

impl Awaited {
    /// Whether a retry may succeed.
    pub(crate) fn may_be_there(&self) -> bool {
        match self {
            Awaited::Folder(path) => open_folder(path).is_ok(),
            Awaited::Address(address) => listener::may_be_there(address),
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Folder(path) => write!(f, "the folder {path}"),
            Awaited::Address(address) => address.fmt(f),
        }
    }
}

/// A missing resource and its error.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The resource.
    pub(crate) awaited: Awaited,
    /// The place in the configuration and the error, for the log.
    pub(crate) sentence: String,
}

/// The opened resources of a configuration.
#[derive(Default)]
pub(crate) struct OpenedResources {
    /// For the gateway.
    pub(crate) openings: Vec<Opening<OwnedFd>>,
    /// The addresses bound, with the actual ports.
    pub(crate) bound: Vec<ListenAddress>,
    /// Inherited addresses in use.
    pub(crate) inherited: Vec<ListenAddress>,
    /// Missing resources to retry.
    pub(crate) waiting: Vec<Waiting>,
    /// The folders, by their paths.
    pub(crate) folders: OpenFolders,
}

/// Open folders by path. They are kept over a reload: the user may lack the permission to open what root opened.
pub(crate) type OpenFolders = BTreeMap<String, OwnedFd>;

/// Resources of the running daemon that a new configuration may reuse.
#[derive(Clone, Copy)]
pub(crate) struct Reusable<'a> {
    /// Addresses with a listener.
    pub(crate) known: &'a [ListenAddress],
    /// Inherited listening sockets.
    pub(crate) inherited: &'a [Inherited],
    /// Open folders, for a retry that cannot open them again.
    pub(crate) folders: &'a OpenFolders,
    /// Missing resources that are retried already.
    pub(crate) awaited: &'a [Awaited],
}

/// What could not be opened.
struct Failures<'a> {
    mode: Mode,
    awaited: &'a [Awaited],
    errors: Vec<String>,
    waiting: Vec<Waiting>,
}

impl Failures<'_> {
    /// Adds a failure once. `may_come`: the resource is missing and may appear.
    fn add(&mut self, place: &str, awaited: Awaited, may_come: bool, error: &dyn fmt::Display) {
        let sentence = format!("{place}: {error}");
        let is_awaited = match self.mode {
            Mode::Start => may_come,
            Mode::Reload => may_come && self.awaited.contains(&awaited),
            Mode::Retry => true,
        };
        if !is_awaited {
            if !self.errors.contains(&sentence) {
                self.errors.push(sentence);
            }
        } else if self.waiting.iter().all(|waiting| waiting.awaited != awaited) {
            self.waiting.push(Waiting { awaited, sentence });
        }
    }

    /// The end: what was opened, or all that keeps it from being used.
    fn finish(mut self, mut opened: OpenedResources) -> Result<OpenedResources, Vec<String>> {
        if opened.openings.is_empty() && self.mode != Mode::Retry {
            // A start waits where all addresses of this machine may still come.
            let ends = |waiting: &&Waiting| match &waiting.awaited {
                Awaited::Folder(_) => false,
                Awaited::Address(ListenAddress::Tcp(_)) => self.mode == Mode::Reload,
                Awaited::Address(ListenAddress::Unix(_)) => true,
            };
            self.errors.extend(self.waiting.iter().filter(ends).map(|waiting| waiting.sentence.clone()));
        }
        opened.waiting = self.waiting;
        if self.errors.is_empty() { Ok(opened) } else { Err(self.errors) }
    }
}

/// Opens the resources of a configuration. The error lists all that cannot be opened.
pub(crate) fn open_all(config: &Config, held: Reusable<'_>, mode: Mode) -> Result<OpenedResources, Vec<String>> {
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
    let mut failures = Failures { mode, awaited: held.awaited, errors: Vec::new(), waiting: Vec::new() };
    let mut patience_ms = if mode == Mode::Retry { 0 } else { limits::BIND_RETRY_MS };
    for (address, servers) in servers_at {
        let Some(first) = servers.first().and_then(|first| config.servers.get(*first)) else { continue };
        let open =
            || open_endpoint(&config.servers, &servers, held.folders, &mut opened.folders, &mut failures).map(Arc::new);
        let endpoint = endpoints.entry(servers.clone()).or_insert_with(open).clone();
        let has_freebind = servers.iter().any(|index| config.servers.get(*index).is_some_and(|one| one.has_freebind));
        let binding = Binding { has_freebind, patience_ms };
        let source = match source_of(address, held, &first.site.limits, binding) {
            Ok(source) => source,
            // Without addr a server listens on all addresses of IPv6 too, if there is such a thing here.
            Err(NoListener::Listen(error))
                if error.is_without_ipv6() && config.servers.iter().any(|server| has_another(server, address)) =>
            {
                log::event(Level::Warn, format_args!("{}: {error}: left out", first.places.listen));
                continue;
            }
            Err(error) => {
                let may_come = error.may_come() && !first.places.by_flag.listen;
                if !may_come {
                    // Those that are taken as well had as much time to become free.
                    patience_ms = 0;
                }
                failures.add(&first.places.listen, Awaited::Address(address.clone()), may_come, &error);
                continue;
            }
        };
        let (listener, file) = match source {
            ListenerSource::Known => (None, None),
            ListenerSource::Inherited(copy) => {
                opened.inherited.push(address.clone());
                (Some(copy), None)
            }
            ListenerSource::Bound(Listener { fd, address: at, file }) => {
                opened.bound.push(at);
                (Some(fd), file)
            }
        };
        if let Some(endpoint) = endpoint {
            opened.openings.push(Opening { address: address.clone(), listener, file, endpoint });
        }
    }
    failures.finish(opened)
}

/// The listener of an address.
enum ListenerSource {
    /// The existing listener.
    Known,
    /// A copy of an inherited one, since it may stand for an address of IPv4 and one of IPv6.
    Inherited(OwnedFd),
    /// A new listener.
    Bound(Listener),
}

/// Why there is none. Display is the operator's sentence.
enum NoListener {
    Copy(ListenAddress, Errno),
    /// One of the daemon's own keeps it from being made.
    InTheWay(ListenAddress, ListenAddress),
    Listen(ListenError),
}

impl NoListener {
    /// Whether the address, or the folder of a UNIX socket, is not there yet.
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
    listener::listen(address, limits, binding).map(ListenerSource::Bound).map_err(NoListener::Listen)
}

fn copy_of(given: &Inherited, limits: &limits::Http) -> Result<OwnedFd, Errno> {
    let copy = given.fd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    if let ListenAddress::Tcp(_) = given.address {
        tcp::watch_peers(&copy, limits)?;
        tcp::keep_unsent_small(&copy)?;
    }
    Ok(copy)
}

/// The one of these whose listener keeps this address from being bound beside it: all addresses and one of them,
/// with the same port.
fn in_the_way<'a>(address: &ListenAddress, known: &'a [ListenAddress]) -> Option<&'a ListenAddress> {
    let ListenAddress::Tcp(wanted) = address else { return None };
    known.iter().find(|known| {
        let ListenAddress::Tcp(here) = known else { return false };
        let is_any = here.ip().is_unspecified() || wanted.ip().is_unspecified();
        is_any && here.is_ipv4() == wanted.is_ipv4() && here.port() == wanted.port() && wanted.port() != 0
    })
}

/// Whether a server listens here and somewhere else too.
fn has_another(server: &Server, address: &ListenAddress) -> bool {
    server.listen.contains(address) && server.listen.len() > 1
}

/// The folders of servers that share an address. A server whose folder is not there is served without it.
fn open_endpoint(
    all: &[Server],
    indices: &[usize],
    old: &OpenFolders,
    new: &mut OpenFolders,
    failures: &mut Failures<'_>,
) -> Option<Endpoint<OwnedFd>> {
    let mut open = |path: &Option<String>, place: &str, is_by_flag: bool| {
        let path = path.as_ref()?;
        let watched = |handle| Some(entrance::Held { handle, path: CString::new(path.as_str()).ok()? });
        match open_folder(path) {
            Ok(folder) => {
                new.insert(path.clone(), folder.try_clone().ok()?);
                watched(folder)
            }
            Err(error) => {
                let held = old.get(path).filter(|folder| failures.mode == Mode::Retry && is_there(folder));
                if held.is_none() {
                    failures.add(place, Awaited::Folder(path.clone()), error.is_missing() && !is_by_flag, &error);
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
    Some(Endpoint {
        sites: Sites::new(first, sites.collect()),
        folders,
        stage: entrance::StageKind::Plain,
        clients_max,
        clients: Count::default(),
    })
}

/// A folder that cannot be opened. Display names the path and the remedy.
#[derive(Debug)]
pub(crate) struct FolderError {
    path: String,
    errno: Errno,
}

impl FolderError {
    /// Whether the path does not exist, so that it is worth waiting for.
    pub(crate) fn is_missing(&self) -> bool {
        self.errno == Errno::ENOENT
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.errno {
            Errno::ENOENT => "make it, or name another one",
            Errno::EACCES => "let the daemon's user into it and into the folders above it",
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

/// Whether a folder still has a name.
fn is_there(folder: &OwnedFd) -> bool {
    fstat(folder).is_ok_and(|status| status.st_nlink > 0)
}

/// Raises RLIMIT_NOFILE to the need of the clients: two descriptors each, a third while connecting. Where the hard limit
/// is lower, the number of clients is reduced.
#[allow(clippy::useless_conversion, reason = "a limit of the system has 32 bits on some machines")]
pub(crate) fn raise_descriptors(limits: &mut limits::Process) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let handshakes = limits.handshakes_max.min(limits.clients_max);
    let needed = 2 * limits.clients_max + handshakes + limits::FDS_RESERVED;
    let wanted = if limits.fds_max > 0 { limits.fds_max } else { needed };
    let fds = rlim_t::try_from(wanted).unwrap_or(rlim_t::MAX).min(hard);
    // What the configuration names is a limit, also where the system would allow more.
    let is_enough = fds <= soft && limits.fds_max == 0;
    let fds = if is_enough || setrlimit(Resource::RLIMIT_NOFILE, fds, hard).is_ok() { fds } else { soft };
    let fds = u64::from(fds);
    if fds < needed {
        let clients_max = (fds.saturating_sub(limits::FDS_RESERVED) / 2).max(1);
        if clients_max < limits.clients_max {
            let whose = if fds == limits.fds_max { "limits.files" } else { "ulimit -n" };
            log::event(Level::Warn, format_args!("{fds} file descriptors ({whose}) allow {clients_max} clients only"));
            limits.clients_max = clients_max;
        }
    }
}
