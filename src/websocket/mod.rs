//! RFC 6455 on its own: no gateway, no file descriptor, no clock. In the order in which a byte meets them.
#![forbid(unsafe_code)]

pub mod upgrade;

pub mod header;
pub mod mask;

pub mod utf8;

pub mod decoder;

pub mod encoder;

pub mod close;
