//! The facts of a TLS connection, for the hello record and the log.

use ring::digest;
use rustls::pki_types::CertificateDer;

use super::x509::{self, Certificate};
use crate::limits::CLIENT_NAME_SIZE_MAX;

/// The facts of a TLS connection after its handshake.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFacts {
    /// Index of the server that the client's SNI selected.
    pub site: u16,
    /// The protocol version, such as "TLSv1.3".
    pub version: &'static str,
    /// The IANA name of the cipher suite, such as "TLS_AES_128_GCM_SHA256".
    pub cipher: &'static str,
    /// The host that the client named (SNI, RFC 6066 section 3). Empty: none.
    pub sni: Box<str>,
    /// The application protocol that ALPN selected (RFC 7301). Empty: none.
    pub alpn: Box<str>,
    /// The session was resumed from a ticket.
    pub is_resumed: bool,
    /// The verified certificate of the client. None: it has presented none.
    pub client: Option<ClientFacts>,
}

impl TlsFacts {
    /// The size of all values on the heap, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.sni.len() + self.alpn.len() + self.client.as_ref().map_or(0, ClientFacts::size)
    }
}

/// What a client's certificate says. A value is empty if it cannot be read, or exceeds `CLIENT_NAME_SIZE_MAX`: a part of a
/// name could be taken for another name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientFacts {
    /// The subject as a string (RFC 4514).
    pub subject: Box<str>,
    /// The most specific common name of the subject. Empty: none.
    pub common_name: Box<str>,
    /// The serial number, in lower-case hexadecimal digits.
    pub serial: Box<str>,
    /// SHA-256 of the certificate, in lower-case hexadecimal digits.
    pub fingerprint: Box<str>,
}

impl ClientFacts {
    fn size(&self) -> usize {
        [&self.subject, &self.common_name, &self.serial, &self.fingerprint].iter().map(|value| value.len()).sum()
    }

    /// The facts of a verified certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> ClientFacts {
        let fields = Certificate::read(certificate);
        let value = |text: Option<String>| text.filter(|text| text.len() <= CLIENT_NAME_SIZE_MAX).unwrap_or_default();
        let subject = fields.and_then(|fields| x509::name_string(fields.subject));
        let common_name = fields.and_then(|fields| x509::common_name(fields.subject));
        let serial = fields.map(|fields| x509::hex(fields.serial));
        let fingerprint = digest::digest(&digest::SHA256, certificate);
        ClientFacts {
            subject: value(subject).into(),
            common_name: value(common_name).into(),
            serial: value(serial).into(),
            fingerprint: x509::hex(fingerprint.as_ref()).into(),
        }
    }
}

/// How a client's connection is protected. Not told to a conversation, which does not depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Security<'a> {
    /// It is not: its address has no TLS.
    Plain,
    /// Its TLS handshake is not complete.
    Handshaking,
    /// It is not, although its address has TLS: the client has begun with plain HTTP.
    HttpOnTlsPort,
    /// By TLS.
    Tls(&'a TlsFacts),
}
