//! Why a TLS connection failed.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a TLS connection failed. Display is the operator's sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsFailure {
    /// The first bytes are neither TLS nor HTTP.
    NotTls,
    /// The client left before the handshake was complete.
    Left,
    /// The client supports neither TLS 1.2 nor TLS 1.3.
    Version,
    /// The client supports none of the cipher suites, groups or signature algorithms.
    Incompatible,
    /// ALPN (RFC 7301) offered no protocol that is served.
    Protocol,
    /// The client presented no certificate, although one is required.
    NoCertificate,
    /// The client's certificate is refused for this reason.
    Certificate(&'static str),
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
            Error::InvalidCertificate(error) => TlsFailure::Certificate(reason(error)),
            Error::InvalidCertRevocationList(_) => TlsFailure::Certificate("the revocation list is not valid"),
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

fn reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::Revoked => "it is revoked",
        CertificateError::UnknownIssuer => "no authority in clientca has signed it",
        CertificateError::UnknownRevocationStatus => "no list in crlfile is that of its authority",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not meant for clients (extended key usage)"
        }
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::BadEncoding => "it cannot be read",
        _ => "it is not valid",
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsFailure::NotTls => f.write_str("the client speaks neither TLS nor HTTP"),
            TlsFailure::Left => f.write_str("the client left in its TLS handshake"),
            TlsFailure::Version => f.write_str("the client supports neither TLS 1.2 nor TLS 1.3"),
            TlsFailure::Incompatible => {
                f.write_str("the client has no cipher suite or group in common with the gateway")
            }
            TlsFailure::Protocol => f.write_str("the client's ALPN does not offer http/1.1"),
            TlsFailure::NoCertificate => f.write_str("the client presented no certificate"),
            TlsFailure::Certificate(reason) => write!(f, "the client's certificate is refused: {reason}"),
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
