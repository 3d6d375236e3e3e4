//! HTTP/1.1 (RFC 9110, RFC 9112) for GET, HEAD, OPTIONS and the WebSocket handshake (RFC 6455). No I/O: the caller
//! owns the bytes, the files and the clock.
#![forbid(unsafe_code)]

pub mod authority;

pub mod hostnames;

pub mod target;

pub mod fields;

pub mod head;

/// The opening handshake of RFC 6455 section 4.
pub mod upgrade;

pub mod body;

pub mod transfer;

pub mod response;

pub mod conditions;

pub mod range;

pub mod coding;

pub mod representation;

pub mod files;

pub mod date;

pub mod redirect;

pub(crate) mod reply;

pub(crate) mod forwarding;

#[cfg(test)]
mod examples;
