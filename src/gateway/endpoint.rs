//! The configuration served at an address: sites, folders and limits.

use std::ffi::CString;
#[cfg(any(test, feature = "sim"))]
use std::sync::Arc;

use crate::driver::Reach;
use crate::exchange::Folder;
use crate::permit::Count;
#[cfg(any(test, feature = "sim"))]
use crate::route::Destination;
use crate::route::Sites;
pub(crate) use crate::transport::StageKind;
#[cfg(any(test, feature = "sim"))]
use crate::upstream::Upstream;

/// A folder held open by file descriptor.
#[derive(Debug)]
pub struct Held<H> {
    /// Descriptor of the folder.
    pub handle: H,
    /// The path that it was opened by, which may later lead to another folder. Empty: never reopened.
    pub path: CString,
}

/// The folders of one site.
#[derive(Debug)]
pub struct Folders<H> {
    /// Links and sockets of the backends.
    pub docroot: Option<Held<H>>,
    /// Static pages.
    pub www: Option<Held<H>>,
}

/// The configuration served at one or more addresses. Each connection keeps the endpoint that accepted it, so a reload
/// does not affect it.
#[derive(Debug)]
pub struct Endpoint<H> {
    /// The configured servers (virtual hosts).
    pub sites: Sites,
    /// Folders of the servers, in the same order.
    pub folders: Vec<Folders<H>>,
    /// The stage between the sockets of its clients and their exchanges.
    pub stage: StageKind,
    /// Maximum number of concurrent clients.
    pub clients_max: u64,
    /// Number of clients, without those being refused.
    pub clients: Count,
}

impl<H> AsRef<Count> for Endpoint<H> {
    fn as_ref(&self) -> &Count {
        &self.clients
    }
}

impl<H> Endpoint<H> {
    /// Permits that clients hold of the endpoint, of the services of its sites and of the upstreams of their links, and the
    /// idle connections to these.
    #[cfg(any(test, feature = "sim"))]
    pub fn permits_held(&self) -> u64 {
        let sites = || (0..self.folders.len() as u16).map(|index| self.sites.get(index));
        let services =
            sites().flat_map(|site| std::iter::once(&site.service).chain(site.links.iter().map(|link| &link.service)));
        let links = sites().flat_map(|site| site.links.iter().chain(&site.page_links));
        let upstreams = links.filter_map(|link| match &link.destination {
            Destination::Upstream(upstream) => Some(upstream),
            _ => None,
        });
        let of_upstream = |upstream: &Arc<Upstream>| {
            let cluster = &upstream.cluster;
            let busy = cluster.nodes.iter().map(|node| node.busy.held()).sum::<u64>();
            upstream.requests.held() + cluster.idle.held() + busy
        };
        self.clients.held()
            + services.map(|service| service.conversations.held()).sum::<u64>()
            + upstreams.map(of_upstream).sum::<u64>()
    }

    /// The starting folder for paths of a site. None: the site has no such folder.
    pub(crate) fn reach(&self, site: u16, folder: Folder) -> Option<Reach<'_, H>> {
        let folders = self.folders.get(site as usize);
        match folder {
            Folder::Anywhere => Some(Reach::Anywhere),
            Folder::Www => folders?.www.as_ref().map(|held| Reach::Beneath(&held.handle)),
            Folder::Docroot => {
                let folder = &folders?.docroot.as_ref()?.handle;
                let may_leave = self.sites.get(site).follows_symlinks;
                Some(if may_leave { Reach::From(folder) } else { Reach::Beneath(folder) })
            }
        }
    }

    /// All folders, in a stable order.
    pub(super) fn held(&self) -> impl Iterator<Item = &Held<H>> {
        self.folders.iter().flat_map(|folders| folders.docroot.iter().chain(&folders.www))
    }
}
