//! Where clients come in: a listener, and what is served to those who come through it.

use std::ffi::CString;
use std::sync::Arc;

use super::listener::{ListenAddress, SocketFile};
use super::slots::Key;
use crate::driver::Reach;
use crate::exchange::Folder;
use crate::permit::Count;
use crate::route::Sites;
pub use crate::transport::StageKind;

/// A folder that is held open.
#[derive(Debug)]
pub struct Held<H> {
    /// The folder.
    pub handle: H,
    /// The path that it was opened by, which may come to lead to another one. Empty: it is never looked at again.
    pub path: CString,
}

/// The folders that a site's requests lead to.
#[derive(Debug)]
pub struct Folders<H> {
    /// The servers' sockets.
    pub docroot: Option<Held<H>>,
    /// The pages.
    pub www: Option<Held<H>>,
}

/// What is served at one or more addresses. Each connection holds the one that it came to, so that a reload changes
/// nothing for it.
#[derive(Debug)]
pub struct Endpoint<H> {
    /// The servers.
    pub sites: Sites,
    /// Their folders, in the same order.
    pub folders: Vec<Folders<H>>,
    /// What stands between its clients' sockets and their exchanges.
    pub stage: StageKind,
    /// Clients at once.
    pub clients_max: u64,
    /// Its clients, those that are refused left out.
    pub clients: Count,
}

impl<H> AsRef<Count> for Endpoint<H> {
    fn as_ref(&self) -> &Count {
        &self.clients
    }
}

impl<H> Endpoint<H> {
    /// Where a path of a site begins; None: the site has no such folder.
    pub fn reach(&self, site: u16, folder: Folder) -> Option<Reach<'_, H>> {
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

    /// All its folders, always in the same order.
    pub fn held(&self) -> impl Iterator<Item = &Held<H>> {
        self.folders.iter().flat_map(|folders| folders.docroot.iter().chain(&folders.www))
    }
}

/// An address that is to be listened on.
pub struct Opening<H> {
    /// The address as it was asked for.
    pub address: ListenAddress,
    /// Its listener; none: the one that there is goes on.
    pub listener: Option<H>,
    /// The listener's file, if it has one of ours.
    pub file: Option<SocketFile>,
    /// What is served there.
    pub endpoint: Arc<Endpoint<H>>,
}

/// An address that is listened on.
#[derive(Debug)]
pub struct Entrance<H> {
    /// The address as it was asked for.
    pub address: ListenAddress,
    /// Its listener.
    pub listener: H,
    /// The slot of its accept.
    pub(super) key: Key,
    /// Its file, which goes with it.
    pub file: Option<SocketFile>,
    /// What is served there.
    pub endpoint: Arc<Endpoint<H>>,
    /// No more clients are wanted; it is closed when its accept has ended.
    pub is_leaving: bool,
    /// It stopped for want of file descriptors.
    pub is_paused: bool,
}
