//! TLS without I/O: certificates, keys, client authentication, and the facts of a connection. The bytes of connections
//! pass `transport::tls`.
#![forbid(unsafe_code)]

mod clients;
mod error;
mod facts;
mod failure;
mod hosts;
mod identity;
mod material;
#[cfg(test)]
mod tests;
mod upstream;
mod x509;

pub(crate) use error::Day;
pub use error::{FileRole, MaterialCause, MaterialError, MaterialNotice, MaterialWarning};
pub(crate) use facts::Security;
pub use facts::{ClientFacts, TlsFacts};
pub(crate) use failure::NodeFailure;
pub use failure::{CertificateFault, TlsFailure};
pub use hosts::Hosts;
pub use identity::{CurrentIdentity, Identity, Tickets};
pub(crate) use material::fingerprint;
pub use material::{Fingerprints, Material, Offload, Verify};
pub use upstream::{CurrentNodeRules, NodeRules, UpstreamFile, UpstreamTls};
