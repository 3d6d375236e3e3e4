//! uakari, a WebSocket gateway daemon. The modules are in data-flow order. `gateway` connects the driver, which does
//! the I/O, with the exchanges, which do none. docs/architecture.md is the guide.

/// Every limit on size, count and time.
pub mod limits;

/// Plain words that several modules use.
pub mod types;

/// Counting by permits.
pub mod permit;

/// The command line.
pub mod cli;

/// The configuration: files and flags, parsed and checked.
pub mod config;

/// Start, reload and stop: opens what the configuration names, and acts on signals.
pub mod daemon;

/// The mechanism: operations to the kernel and completions from it.
pub mod driver;

/// The shell: where driver and exchanges meet.
pub mod gateway;

/// TLS without I/O: certificates, keys, client authentication.
pub mod tls;

/// One file descriptor: what is received, what waits to be sent, how it is shut.
mod transport;

/// Clients behind proxies: the PROXY protocol, forwarded fields, trusted networks, counts of each address.
pub mod clients;

/// Who may come in: rules of addresses and credentials, and what requests show to meet them.
pub mod access;

/// The core: one exchange, from its request to its last byte, without I/O.
mod exchange;

/// HTTP/1.1: request heads, the WebSocket handshake, replies, conditional and range requests.
pub mod http;

/// From a request's path to the backend that serves it.
pub mod route;

/// HTTP and WebSocket servers behind the gateway: nodes, clusters, choice, sessions.
pub mod upstream;

/// The process: privileges, pid file, service manager.
pub(crate) mod process;

/// The log.
pub mod observe;
