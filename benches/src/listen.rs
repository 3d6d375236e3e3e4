//! Listening sockets of the servers.

use crate::Result;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A killed io_uring process keeps its port for a moment, so bind(2) is retried.
const BIND_RETRY_MAX: Duration = Duration::from_secs(2);
const BIND_PAUSE: Duration = Duration::from_millis(10);
const BACKLOG: i32 = 4096;

/// Listens at `HOST:PORT` (std sets SO_REUSEADDR), and retries while the port is in use.
/// Accepted sockets send small replies at once (TCP_NODELAY).
pub fn bind(address: &str) -> Result<TcpListener> {
    let begun = Instant::now();
    let listener = loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < BIND_RETRY_MAX => {
                std::thread::sleep(BIND_PAUSE);
            }
            other => break other.map_err(|error| format!("{address}: {error}"))?,
        }
    };
    listen(&listener, Backlog::new(BACKLOG)?)?;
    // Accepted sockets inherit TCP_NODELAY.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    Ok(listener)
}
