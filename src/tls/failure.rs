//! Why a TLS connection failed.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a TLS connection failed. Display is the operator's sentence about a client; that about a node is `NodeFailure`'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsFailure {
    /// The first bytes are neither TLS nor HTTP.
    NotTls,
    /// The peer left before the handshake was complete.
    Left,
    /// The node ended its stream without a close_notify (RFC 8446 section 6.1).
    Truncated,
    /// The client supports neither TLS 1.2 nor TLS 1.3.
    Version,
    /// The client supports none of the cipher suites, groups or signature algorithms.
    Incompatible,
    /// ALPN (RFC 7301) offered no protocol that is served.
    Protocol,
    /// The client presented no certificate, although one is required.
    NoCertificate,
    /// The peer's certificate is refused.
    Certificate(CertificateFault),
    /// The client sent this alert (RFC 8446 section 6).
    Alert(u8),
    /// A record could not be decrypted.
    Decrypt,
    /// A handshake message is larger than `TLS_PARTIAL_SIZE_MAX`.
    TooLarge,
    /// The client violated the protocol.
    Misbehaved,
    /// The keys of the connection have encrypted as many records as they may.
    Exhausted,
    /// The client changed its keys, which the kernel's records do not support.
    KeyUpdate,
    /// The kernel did not take the keys.
    Kernel,
    /// The handshake failed for a reason of the gateway's own.
    Internal,
}

impl TlsFailure {
    /// The error of a connection.
    pub(crate) fn of(error: &Error) -> TlsFailure {
        match error {
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13,
            ) => TlsFailure::Version,
            Error::PeerIncompatible(_) => TlsFailure::Incompatible,
            Error::NoApplicationProtocol => TlsFailure::Protocol,
            Error::NoCertificatesPresented => TlsFailure::NoCertificate,
            Error::InvalidCertificate(error) => TlsFailure::Certificate(CertificateFault::of(error)),
            Error::InvalidCertRevocationList(_) => TlsFailure::Certificate(CertificateFault::BadList),
            Error::AlertReceived(alert) => TlsFailure::Alert((*alert).into()),
            Error::DecryptError => TlsFailure::Decrypt,
            Error::PeerSentOversizedRecord | Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
                TlsFailure::TooLarge
            }
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_) => TlsFailure::Misbehaved,
            _ => TlsFailure::Internal,
        }
    }
}

/// Why a certificate is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateFault {
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// A list says that it is revoked.
    Revoked,
    /// No authority that is trusted has signed it.
    UnknownIssuer,
    /// No list is that of its authority.
    NoList,
    /// A list is not valid.
    BadList,
    /// It is not valid for the name that was expected.
    OtherName,
    /// Its extended key usage does not fit (RFC 5280 section 4.2.1.12).
    Purpose,
    /// Its signature is wrong.
    Signature,
    /// It cannot be read.
    Malformed,
    /// Another reason.
    Other,
}

impl CertificateFault {
    fn of(error: &CertificateError) -> CertificateFault {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CertificateFault::NotYetValid
            }
            CertificateError::Revoked => CertificateFault::Revoked,
            CertificateError::UnknownIssuer => CertificateFault::UnknownIssuer,
            CertificateError::UnknownRevocationStatus => CertificateFault::NoList,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                CertificateFault::OtherName
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                CertificateFault::Purpose
            }
            CertificateError::BadSignature => CertificateFault::Signature,
            CertificateError::BadEncoding => CertificateFault::Malformed,
            _ => CertificateFault::Other,
        }
    }

    /// The reason, about the certificate of a client.
    fn of_client(self) -> &'static str {
        match self {
            CertificateFault::Expired => "it has expired",
            CertificateFault::NotYetValid => "it is not valid yet",
            CertificateFault::Revoked => "it is revoked",
            CertificateFault::UnknownIssuer => "no authority in clientca has signed it",
            CertificateFault::NoList => "no list in crlfile is that of its authority",
            CertificateFault::BadList => "the revocation list is not valid",
            CertificateFault::Purpose => "it is not meant for clients (extended key usage)",
            CertificateFault::Signature => "its signature is wrong",
            CertificateFault::Malformed => "it cannot be read",
            CertificateFault::OtherName | CertificateFault::Other => "it is not valid",
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsFailure::NotTls => f.write_str("the client speaks neither TLS nor HTTP"),
            TlsFailure::Left => f.write_str("the client left in its TLS handshake"),
            TlsFailure::Truncated => f.write_str("the client ended its TLS stream without a close_notify"),
            TlsFailure::Version => f.write_str("the client supports neither TLS 1.2 nor TLS 1.3"),
            TlsFailure::Incompatible => {
                f.write_str("the client has no cipher suite or group in common with the gateway")
            }
            TlsFailure::Protocol => f.write_str("the client's ALPN does not offer http/1.1"),
            TlsFailure::NoCertificate => f.write_str("the client presented no certificate"),
            TlsFailure::Certificate(fault) => write!(f, "the client's certificate is refused: {}", fault.of_client()),
            TlsFailure::Alert(alert) => match AlertDescription::from(*alert) {
                AlertDescription::UnknownCA => {
                    f.write_str("the client does not trust the server's certificate (alert 48, unknown_ca)")
                }
                AlertDescription::CertificateExpired => {
                    f.write_str("the client finds the server's certificate expired (alert 45, certificate_expired)")
                }
                AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                    write!(f, "the client refuses the server's certificate (alert {alert})")
                }
                description => write!(f, "the client sent the TLS alert {alert} ({description:?})"),
            },
            TlsFailure::Decrypt => f.write_str("a TLS record of the client cannot be decrypted"),
            TlsFailure::TooLarge => f.write_str("a TLS handshake message of the client is too large"),
            TlsFailure::Misbehaved => f.write_str("the client violated the TLS protocol"),
            TlsFailure::Exhausted => f.write_str("the keys of TLS 1.2 have encrypted as many records as they may"),
            TlsFailure::KeyUpdate => {
                f.write_str("the client changed its TLS keys, which TLS of the kernel does not support")
            }
            TlsFailure::Kernel => f.write_str("the kernel did not take the keys of the TLS connection"),
            TlsFailure::Internal => f.write_str("the TLS connection failed"),
        }
    }
}

/// Why a TLS connection to a node failed. Display is the operator's sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeFailure<'a> {
    /// The failure.
    pub(crate) failure: TlsFailure,
    /// The name that the node's certificate has to have. None: the sentence does not tell it.
    pub(crate) name: Option<&'a str>,
}

impl fmt::Display for NodeFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure {
            TlsFailure::NotTls => f.write_str("the node does not speak TLS"),
            TlsFailure::Left => f.write_str("the node left in the TLS handshake"),
            TlsFailure::Truncated => f.write_str("the node ended its TLS stream without a close_notify"),
            TlsFailure::Version => f.write_str("the node supports neither TLS 1.2 nor TLS 1.3"),
            TlsFailure::Incompatible => f.write_str("the node has no cipher suite or group in common with the gateway"),
            TlsFailure::Protocol => f.write_str("the node's ALPN does not accept http/1.1"),
            TlsFailure::NoCertificate => f.write_str("the node presented no certificate"),
            TlsFailure::Certificate(fault) => match (fault, self.name) {
                (CertificateFault::OtherName, Some(name)) => {
                    write!(f, "the node's certificate is not valid for {name}")
                }
                (CertificateFault::OtherName, None) => {
                    f.write_str("the node's certificate is not valid for the name of the node (servername)")
                }
                (CertificateFault::UnknownIssuer, _) => {
                    f.write_str("the node's certificate is signed by an unknown authority (cafile)")
                }
                (CertificateFault::Expired, _) => f.write_str("the node's certificate has expired"),
                (CertificateFault::NotYetValid, _) => f.write_str("the node's certificate is not valid yet"),
                (CertificateFault::Revoked, _) => f.write_str("the node's certificate is revoked"),
                (CertificateFault::Purpose, _) => {
                    f.write_str("the node's certificate is not meant for servers (extended key usage)")
                }
                (CertificateFault::Signature, _) => f.write_str("the signature of the node's certificate is wrong"),
                (CertificateFault::Malformed, _) => f.write_str("the node's certificate cannot be read"),
                (CertificateFault::NoList | CertificateFault::BadList | CertificateFault::Other, _) => {
                    f.write_str("the node's certificate is not valid")
                }
            },
            TlsFailure::Alert(alert) => match AlertDescription::from(alert) {
                AlertDescription::CertificateRequired => {
                    f.write_str("the node requires a client certificate (alert 116, certificate_required)")
                }
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired => {
                    write!(f, "the node refuses the client certificate of crtfile (alert {alert})")
                }
                AlertDescription::UnrecognisedName => {
                    f.write_str("the node does not know the server name (alert 112, unrecognized_name)")
                }
                description => write!(f, "the node sent the TLS alert {alert} ({description:?})"),
            },
            TlsFailure::Decrypt => f.write_str("a TLS record of the node cannot be decrypted"),
            TlsFailure::TooLarge => f.write_str("a TLS handshake message of the node is too large"),
            TlsFailure::Misbehaved => f.write_str("the node violated the TLS protocol"),
            TlsFailure::Exhausted | TlsFailure::KeyUpdate | TlsFailure::Kernel | TlsFailure::Internal => {
                f.write_str("the TLS connection to the node failed")
            }
        }
    }
}
