//! WebSocket servers for uakari's direct mode: the gateway does the opening handshake and passes the client's
//! connection to the server (SCM_RIGHTS); after that, server and client exchange RFC 6455 frames without it.
//!
//! An echo server:
//!
//! ```no_run
//! use websocket::{Buffer, Client, Error, Listener, Options};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut listener = Listener::bind("/tmp/websocket/direct".as_ref(), &Options::default())?;
//!     let mut buffer = Buffer::new();
//!     loop {
//!         match listener.accept() {
//!             Ok(mut client) => println!("{:?}: {}", client.address(), serve(&mut client, &mut buffer).unwrap_err()),
//!             Err(error) => eprintln!("{error}"),
//!         }
//!     }
//! }
//!
//! fn serve(client: &mut Client, buffer: &mut Buffer) -> Result<(), Error> {
//!     loop {
//!         let mut batch = client.receive(buffer)?;
//!         while let Some(message) = batch.take()? {
//!             batch.send(message.opcode, &message.payload)?;
//!         }
//!     }
//! }
//! ```
//!
//! It serves one client at a time. For many, set listener and clients non-blocking, wait for their descriptors with
//! poll(2) or epoll(7) and read each client that is readable, as `utils/echo` does.

pub mod limits;

pub mod deadline;

/// Creating and binding the socket file.
pub mod place;

pub mod handover;

pub mod tls;

mod listener;

mod incoming;

pub mod outgoing;

mod error;

mod client;

#[cfg(test)]
mod doubles;

pub use client::{Batch, Buffer, Client};
pub use error::Error;
pub use incoming::Message;
pub use listener::{AcceptError, Listener, Options};
pub use rfc6455::close::CloseCode;
pub use rfc6455::header::{Opcode, ProtocolError};
