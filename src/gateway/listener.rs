//! A listener: a listening socket, and the configuration served to the clients that it accepts.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::listen_socket::SocketFile;
use super::slots::Key;
use crate::types::ListenAddress;

/// An address to listen on, for `Gateway::configure`.
pub struct ListenerSetup<H> {
    /// The address as configured.
    pub address: ListenAddress,
    /// The listening socket. None: keep the existing one.
    pub socket: Option<H>,
    /// The UNIX socket file created by this process, if any.
    pub file: Option<SocketFile>,
    /// Configuration to serve.
    pub endpoint: Arc<Endpoint<H>>,
}

/// An active listener.
#[derive(Debug)]
pub(super) struct Listener<H> {
    /// The address as configured.
    pub(super) address: ListenAddress,
    /// The listening socket.
    pub(super) socket: H,
    /// Slot of its accept operation.
    pub(super) key: Key,
    /// UNIX socket file, removed with the listener.
    pub(super) _file: Option<SocketFile>,
    /// Configuration to serve.
    pub(super) endpoint: Arc<Endpoint<H>>,
    /// Whether it accepts no more clients and closes when its accept has completed.
    pub(super) is_leaving: bool,
    /// Whether it is paused by a lack of file descriptors.
    pub(super) is_paused: bool,
}
