//! The framing of RFC 6455, without I/O: no file descriptor, no clock, no dependency.
//!
//! The caller owns all bytes. `decoder::Decoder` decodes frames in the caller's buffer, unmasks them in place, and
//! returns pieces of messages as ranges of that buffer. It checks a frame as soon as its header is known, before its
//! payload arrives. `header` and `encoder` write frames. An error is final and has a close code (section 7.4.1).
//!
//! The opening handshake (section 4) is HTTP and not part of this package.
#![forbid(unsafe_code)]

pub mod header;
pub mod mask;

pub mod utf8;

pub mod decoder;

pub mod encoder;

pub mod close;
