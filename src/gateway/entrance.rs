//! Where clients come in: a listener, and what is served to those who come through it.

use std::sync::Arc;

use super::listener::ListenAddress;
use crate::route::Sites;

/// The folders that a site's requests lead to.
#[derive(Debug)]
pub struct Folders<H> {
    /// The servers' sockets.
    pub docroot: Option<H>,
    /// The pages.
    pub www: Option<H>,
}

/// What is served at one or more addresses. Each connection holds the one that it came to, so that a reload changes
/// nothing for it.
#[derive(Debug)]
pub struct Endpoint<H> {
    /// The servers.
    pub sites: Sites,
    /// Their folders, in the same order.
    pub folders: Vec<Folders<H>>,
    /// Clients at once.
    pub clients_max: u64,
}

/// An address that is to be listened on.
pub struct Opening<H> {
    /// The address as it was asked for.
    pub address: ListenAddress,
    /// Its listener; none: the one that there is goes on.
    pub listener: Option<H>,
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
    /// What is served there.
    pub endpoint: Arc<Endpoint<H>>,
    /// No more clients are wanted; it is closed when its accept has ended.
    pub is_leaving: bool,
    /// It stopped for want of file descriptors.
    pub is_paused: bool,
}
