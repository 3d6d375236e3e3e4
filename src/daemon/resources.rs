//! What a configuration names, opened: listeners, folders, as many file descriptors as its clients need.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, Server};
use crate::driver::tcp;
use crate::gateway::entrance::{Endpoint, Folders, Opening};
use crate::gateway::listener::{self, ListenAddress, Listener};
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
/// are `inherited` with the ones that the service manager made. An address that is
/// taken is tried again for `patience_ms`.
pub fn open_all(
    config: &Config,
    known: &[ListenAddress],
    inherited: &[Inherited],
    patience_ms: u64,
) -> Result<Opened, String> {
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
    let mut endpoints: BTreeMap<Vec<usize>, Arc<Endpoint<OwnedFd>>> = BTreeMap::new();
    let mut opened = Opened { openings: Vec::new(), bound: Vec::new(), inherited: Vec::new() };
    for (address, servers) in servers_at {
        let endpoint = match endpoints.get(&servers) {
            Some(endpoint) => endpoint.clone(),
            None => Arc::new(open_endpoint(&config.servers, &servers)?),
        };
        endpoints.insert(servers.clone(), endpoint.clone());
        let place = || {
            let first = servers.first().and_then(|first| config.servers.get(*first));
            first.map_or("", |server| &server.places.listen)
        };
        let limits = &endpoint.sites.get(0).limits;
        let (listener, file) = if known.contains(address) {
            (None, None)
        } else if let Some(given) = inherited.iter().find(|given| given.is_for(address)) {
            let copy = copy_of(given, limits).map_err(|cause| format!("{}: {address}: {cause}", place()))?;
            opened.inherited.push(address.clone());
            (Some(copy), None)
        } else if let Some(own) = in_the_way(address, known) {
            let sentence = format!("cannot listen on {address}: this daemon listens on {own}: restart it");
            return Err(format!("{}: {sentence}", place()));
        } else {
            match listener::listen(address, limits, patience_ms) {
                Ok(Listener { fd, address: at, file }) => {
                    opened.bound.push(at);
                    (Some(fd), file)
                }
                // Without addr a server listens on all addresses of IPv6 too, if there is such a thing here.
                Err(error)
                    if error.is_without_ipv6() && config.servers.iter().any(|server| has_another(server, address)) =>
                {
                    log::event(Level::Warn, format_args!("{}: {error}: left out", place()));
                    continue;
                }
                Err(error) => return Err(format!("{}: {error}", place())),
            }
        };
        opened.openings.push(Opening { address: address.clone(), listener, file, endpoint });
    }
    Ok(opened)
}

/// A copy of an inherited socket, since one may stand for an address of IPv4 and one of IPv6.
fn copy_of(given: &Inherited, limits: &limits::Http) -> Result<OwnedFd, String> {
    let copy = given.fd.try_clone().map_err(|error| error.to_string())?;
    if let ListenAddress::Tcp(_) = given.address {
        let told = tcp::watch_peers(&copy, limits).and_then(|()| tcp::keep_unsent_small(&copy));
        told.map_err(|errno| errno.desc().to_owned())?;
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

fn open_endpoint(all: &[Server], indices: &[usize]) -> Result<Endpoint<OwnedFd>, String> {
    let servers: Vec<&Server> = indices.iter().filter_map(|index| all.get(*index)).collect();
    let open = |path: &Option<String>| path.as_ref().map(|path| open_folder(path)).transpose();
    let mut folders = Vec::new();
    for server in &servers {
        let docroot = open(&server.docroot).map_err(|error| format!("{}: {error}", server.places.docroot))?;
        let www = open(&server.www).map_err(|error| format!("{}: {error}", server.places.www))?;
        folders.push(Folders { docroot, www });
    }
    let mut sites = servers.iter().map(|server| Arc::new(server.site.fresh()));
    let first = sites.next().ok_or("there is no server")?;
    let clients_max = servers.iter().map(|server| server.site.limits.clients_max).max().unwrap_or(0);
    Ok(Endpoint { sites: Sites::new(first, sites.collect()), folders, clients_max })
}

/// Sees to it that the clients can have their file descriptors: two each, a third while they are connected. Where
/// the system allows fewer, there are fewer clients.
pub fn raise_descriptors(limits: &mut limits::Process) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let handshakes = limits.handshakes_max.min(limits.clients_max);
    let needed = 2 * limits.clients_max + handshakes + limits::FDS_RESERVED;
    let wanted = if limits.fds_max > 0 { limits.fds_max } else { needed };
    let fds = wanted.min(hard);
    // What the configuration names is a limit, also where the system would allow more.
    let is_enough = fds <= soft && limits.fds_max == 0;
    let fds = if is_enough || setrlimit(Resource::RLIMIT_NOFILE, fds, hard).is_ok() { fds } else { soft };
    if fds < needed {
        let clients_max = (fds.saturating_sub(limits::FDS_RESERVED) / 2).max(1);
        if clients_max < limits.clients_max {
            let whose = if fds == limits.fds_max { "limits.files" } else { "ulimit -n" };
            log::event(Level::Warn, format_args!("{fds} file descriptors ({whose}) allow {clients_max} clients only"));
            limits.clients_max = clients_max;
        }
    }
}
