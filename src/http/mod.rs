//! HTTP/1.1 as far as a gateway needs it (RFC 9110, RFC 9112): heads in, replies and files out.
#![forbid(unsafe_code)]

pub mod head;

pub mod reply;

pub mod files;
