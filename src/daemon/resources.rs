//! What a configuration names, opened: listeners, folders, as many file descriptors as its clients need.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::config::{Config, Server};
use crate::driver::tcp;
use crate::gateway::entrance::{Endpoint, Folders, Opening};
use crate::gateway::listener::{self, ListenAddress, ListenError, Listener};
use crate::limits;
use crate::observe::log::{self, Level};
use crate::process::inherited::Inherited;
use crate::route::Sites;
use crate::route::docroot::open_folder;

/// What a configuration names, opened.
pub struct Opened {
    /// For the gateway.
    pub openings: Vec<Opening<OwnedFd>>,
    /// The addresses that were taken, with the ports that they got.
    pub bound: Vec<ListenAddress>,
    /// Addresses that the service manager had taken already.
    pub inherited: Vec<ListenAddress>,
}

/// Opens what a configuration names. Addresses that are `known` go on with the listeners that they have, those that
/// are `inherited` with the ones that the service manager made. An address that is taken is tried again for
/// `patience_ms`. The error is all that cannot be opened.
pub fn open_all(
    config: &Config,
    known: &[ListenAddress],
    inherited: &[Inherited],
    patience_ms: u64,
) -> Result<Opened, Vec<String>> {
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
    let mut opened = Opened { openings: Vec::new(), bound: Vec::new(), inherited: Vec::new() };
    let mut errors = Vec::new();
    let mut patience_ms = patience_ms;
    for (address, servers) in servers_at {
        let Some(first) = servers.first().and_then(|first| config.servers.get(*first)) else { continue };
        let open = || open_endpoint(&config.servers, &servers, &mut errors).map(Arc::new);
        let endpoint = endpoints.entry(servers.clone()).or_insert_with(open).clone();
        let source = match source_of(address, known, inherited, &first.site.limits, patience_ms) {
            Ok(source) => source,
            // Without addr a server listens on all addresses of IPv6 too, if there is such a thing here.
            Err(SourceError::Listen(error))
                if error.is_without_ipv6() && config.servers.iter().any(|server| has_another(server, address)) =>
            {
                log::event(Level::Warn, format_args!("{}: {error}: left out", first.places.listen));
                continue;
            }
            Err(error) => {
                // Those that are taken as well had as much time to become free.
                patience_ms = 0;
                errors.push(format!("{}: {error}", first.places.listen));
                continue;
            }
        };
        let (listener, file) = match source {
            Source::Known => (None, None),
            Source::Inherited(copy) => {
                opened.inherited.push(address.clone());
                (Some(copy), None)
            }
            Source::Bound(Listener { fd, address: at, file }) => {
                opened.bound.push(at);
                (Some(fd), file)
            }
        };
        if let Some(endpoint) = endpoint {
            opened.openings.push(Opening { address: address.clone(), listener, file, endpoint });
        }
    }
    if errors.is_empty() { Ok(opened) } else { Err(errors) }
}

/// Where the clients of an address come from.
enum Source {
    /// A listener that is there.
    Known,
    /// A copy of an inherited one, since it may stand for an address of IPv4 and one of IPv6.
    Inherited(OwnedFd),
    /// One that was just made.
    Bound(Listener),
}

/// Why there is none. Display is the operator's sentence.
enum SourceError {
    Copy(ListenAddress, Errno),
    /// One of the daemon's own keeps it from being made.
    InTheWay(ListenAddress, ListenAddress),
    Listen(ListenError),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Copy(address, errno) => {
                write!(f, "cannot use the inherited {address}: {}: correct its socket unit", errno.desc())
            }
            SourceError::InTheWay(address, own) => {
                write!(f, "cannot listen on {address}: this daemon listens on {own}: restart it")
            }
            SourceError::Listen(error) => error.fmt(f),
        }
    }
}

fn source_of(
    address: &ListenAddress,
    known: &[ListenAddress],
    inherited: &[Inherited],
    limits: &limits::Http,
    patience_ms: u64,
) -> Result<Source, SourceError> {
    if known.contains(address) {
        return Ok(Source::Known);
    }
    if let Some(given) = inherited.iter().find(|given| given.is_for(address)) {
        let failed = |errno| SourceError::Copy(address.clone(), errno);
        return copy_of(given, limits).map(Source::Inherited).map_err(failed);
    }
    if let Some(own) = in_the_way(address, known) {
        return Err(SourceError::InTheWay(address.clone(), own.clone()));
    }
    listener::listen(address, limits, patience_ms).map(Source::Bound).map_err(SourceError::Listen)
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

/// The folders of servers that share an address. What cannot be opened is noted once, however many addresses they
/// have.
fn open_endpoint(all: &[Server], indices: &[usize], errors: &mut Vec<String>) -> Option<Endpoint<OwnedFd>> {
    let servers: Vec<&Server> = indices.iter().filter_map(|index| all.get(*index)).collect();
    let mut is_whole = true;
    let mut open = |path: &Option<String>, place: &str| {
        let error = match open_folder(path.as_ref()?) {
            Ok(folder) => return Some(folder),
            Err(error) => format!("{place}: {error}"),
        };
        is_whole = false;
        if !errors.contains(&error) {
            errors.push(error);
        }
        None
    };
    let mut folders = Vec::new();
    for server in &servers {
        let docroot = open(&server.docroot, &server.places.docroot);
        let www = open(&server.www, &server.places.www);
        folders.push(Folders { docroot, www });
    }
    let mut sites = servers.iter().map(|server| Arc::new(server.site.fresh()));
    let first = sites.next().filter(|_| is_whole)?;
    let clients_max = servers.iter().map(|server| server.site.limits.clients_max).max().unwrap_or(0);
    Some(Endpoint { sites: Sites::new(first, sites.collect()), folders, clients_max })
}

/// Sees to it that the clients can have their file descriptors: two each, a third while they are connected. Where
/// the system allows fewer, there are fewer clients.
#[allow(clippy::useless_conversion, reason = "a limit of the system has 32 bits on some machines")]
pub fn raise_descriptors(limits: &mut limits::Process) {
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
