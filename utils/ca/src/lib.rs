//! A certificate authority in one folder: it makes, renews and revokes certificates of a gateway, its clients and
//! other servers.
//!
//! The modules, bottom up: `limits.rs`; `error.rs`; `name.rs`, what a certificate may be made for; `request.rs` and
//! `certificate.rs` parse foreign bytes; `index.rs`, the record of all certificates and tokens; `crl.rs`; `folder.rs` reads and
//! replaces files; `open.rs`, the locked folder; `export.rs`, trust stores; `status.rs`; `authority.rs`,
//! `issuance.rs`, `enrolment.rs` and `self_signed.rs`, the operations; `host.rs`, what this machine is called; `serve/`, the
//! server through which devices enrol.

mod authority;
mod certificate;
mod crl;
mod enrolment;
mod error;
mod export;
mod folder;
mod host;
mod index;
mod issuance;
pub mod limits;
mod name;
mod open;
mod profile;
mod request;
mod self_signed;
pub mod serve;
mod status;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Exports, Founding, Renewal};
pub use certificate::Certificate;
pub use enrolment::{Invitation, Token};
pub use error::CaError;
pub use index::{Index, Kind};
pub use issuance::{Issued, Pair, Signing, Wish};
pub use name::{Host, Name};
pub use request::Request;
pub use self_signed::{Action, SelfSigned};
pub use status::{State, Status};
