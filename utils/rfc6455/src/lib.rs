//! The framing of RFC 6455, without I/O: no file descriptor, no clock, no dependency.
//!
//! The caller owns all bytes. `decoder::Decoder` reads frames where they lie in the caller's buffer, unmasks them there,
//! and hands out pieces of messages as ranges of that buffer; it judges a frame from its header, before any payload is
//! waited for. `header` and `encoder` write frames. An error is final and carries its close code (section 7.4.1).
//!
//! The opening handshake (section 4) is HTTP, and is not here.
#![forbid(unsafe_code)]

pub mod header;
pub mod mask;

pub mod utf8;

pub mod decoder;

pub mod encoder;

pub mod close;
