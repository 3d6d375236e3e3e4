//! What a `struct ws_listener` is.

use std::os::fd::AsRawFd;
use std::path::Path;

use server::place::PlaceError;
use server::{Listener, Options};

use crate::arrival;
use crate::table::{self, Entry};

/// A listener of the package `websocket`.
pub struct WsListener {
    pub inner: Listener,
}

impl WsListener {
    /// A backlog of 0 or less is the usual one.
    pub fn bind(path: &Path, mode: u32, backlog: i32) -> Result<WsListener, PlaceError> {
        let usual = Options::default();
        let backlog = if backlog > 0 { backlog } else { usual.backlog };
        let options = Options { mode: mode & 0o777, backlog, ..usual };
        // The listener accepts through the very functions that this library stands in for.
        arrival::leave_alone();
        let inner = Listener::bind(path, &options)?;
        table::put(inner.socket().as_raw_fd(), Entry::Left);
        Ok(WsListener { inner })
    }
}
