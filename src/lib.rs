//! uakari, a WebSocket gateway daemon. The modules in the order in which a byte meets them.

/// Every limit, in one place.
pub mod limits;

/// Plain words that several modules use.
pub mod types;

/// Counting by permits.
pub mod permit;

/// What was typed.
pub mod cli;

/// What the daemon is to do.
pub mod config;

/// From a configuration to listeners and folders, and what signals ask for.
pub mod daemon;

/// The mechanism: operations to the kernel and completions from it.
pub mod driver;

/// The shell: where driver and exchanges meet.
pub mod gateway;

/// One file descriptor: what is received, what waits to be sent, how it is shut.
mod transport;

/// The core: one exchange, from its request to its last byte, without I/O.
pub mod exchange;

/// HTTP heads, replies, files.
pub mod http;

/// From a path to a server.
pub mod route;

/// The daemon as a process: its rights, its pid file, the service manager.
pub mod process;

/// What the operator sees.
pub mod observe;
