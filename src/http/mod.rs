//! HTTP/1.1 as far as a gateway needs it (RFC 9110, RFC 9112): heads in, replies and files out.
#![forbid(unsafe_code)]

pub mod error;

pub mod authority;

pub mod target;

pub mod fields;

pub mod head;

/// The opening handshake of RFC 6455 section 4.
pub mod upgrade;

pub mod body;

pub mod conditions;

pub mod range;

pub mod coding;

pub mod representation;

pub mod files;

pub mod date;

pub mod reply;

#[cfg(test)]
mod examples;
