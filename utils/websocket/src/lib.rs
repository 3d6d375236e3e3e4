//! For servers behind uakari's direct mode: the gateway does the handshake and hands the client's own connection
//! over; from then on server and client talk without it. The modules in the order in which a client meets them.
//!
//! A server that sends everything back:
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
//! It has one client at a time. One that has many sets listener and clients to non-blocking, gives their
//! descriptors to poll(2) or epoll(7) and reads each client that is readable: `utils/echo` is such a server.

pub mod limits;

pub mod deadline;

/// The socket file of a server.
pub mod place;

pub mod handover;

mod listener;

mod incoming;

pub mod outgoing;

mod error;

mod client;

#[cfg(test)]
mod played;

pub use client::{Batch, Buffer, Client};
pub use error::Error;
pub use incoming::Message;
pub use listener::{AcceptError, Listener, Options};
pub use rfc6455::close::CloseCode;
pub use rfc6455::header::{Opcode, ProtocolError};
