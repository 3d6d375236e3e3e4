//! Certificate signing requests (RFC 2986): what the authority takes from one, and nothing else of it.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;

use crate::certificate::{der_of, hosts_of};
use crate::error::CaError;
use crate::name::{Host, distinct};

/// A request whose signature is that of its key.
#[derive(Debug)]
pub struct Request {
    /// The common name of its subject, if it has exactly one.
    pub(crate) common_name: Option<String>,
    /// Names and addresses of its subjectAltName, unless one of them is none. Requests of clients may have others.
    hosts: Result<Vec<Host>, String>,
    pub(crate) key: SubjectPublicKeyInfo,
}

impl Request {
    /// Parses PEM or DER, and verifies the signature.
    pub fn parse(bytes: &[u8]) -> Result<Request, CaError> {
        let der =
            der_of(bytes, &["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"]).map_err(|reason| refused(&reason))?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| refused("is none"))?;
        if !rest.is_empty() {
            return Err(refused("has more bytes behind its end"));
        }
        // ring verifies signatures with SHA-1 for keys of RSA from 1024 bits on, all others from 2048 bits on.
        let algorithm = &request.signature_algorithm.algorithm;
        if *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA {
            return Err(refused("is signed with SHA-1: sign it with SHA-256"));
        }
        request.verify_signature().map_err(|_| {
            refused("has no good signature of its own key, or its key is not P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits")
        })?;
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|_| refused("has a key that is not P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits"))?;
        let mut common_names = info.subject.iter_common_name();
        let common_name = match (common_names.next(), common_names.next()) {
            (Some(name), None) => name.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let names: Vec<&GeneralName> = request
            .requested_extensions()
            .into_iter()
            .flatten()
            .filter_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            })
            .flatten()
            .collect();
        let hosts = hosts_of(names).and_then(distinct).map_err(|error| error.to_string());
        Ok(Request { common_name, hosts, key })
    }

    /// Names and addresses of its subjectAltName.
    pub fn hosts(&self) -> Result<Vec<Host>, CaError> {
        self.hosts.clone().map_err(CaError::Request)
    }

    /// The SubjectPublicKeyInfo of its key, in DER.
    pub(crate) fn key_der(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }
}

fn refused(reason: &str) -> CaError {
    CaError::Request(format!("the certificate signing request {reason}"))
}
