//! What the gateway daemon and its helper `uakari-auth` say to each other: types, and a codec without I/O.
//!
//! A frame is a length (u32, big-endian) and that many bytes: a kind, then fields, each a type (u8), a length (u32,
//! big-endian) and its value. The codec is strict: an unknown kind or field, a field twice, a missing one, or bytes
//! after the last one are errors.

#![forbid(unsafe_code)]

mod codec;
mod fields;
pub mod limits;
mod messages;
mod secret;
mod types;

pub use codec::{Decoder, Message, WireError, encode};
pub use fields::Fields;
pub use secret::Secret;
pub use types::{
    Answer, Credential, Digest, DigestAlgorithm, Jwt, JwtAlgorithm, JwtKey, Layout, Problem, Question, Rule, Source,
    ToDaemon, ToHelper, Verdict,
};
pub use zeroize::Zeroizing;
