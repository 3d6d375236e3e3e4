//! Certificates that exist: what the authority reads of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::error::CaError;
use crate::limits::REQUEST_SIZE_MAX;
use crate::name::Host;

/// The serial number of a certificate: 126 random bits, and always 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Serial([u8; 16]);

impl Serial {
    /// A new number. It is positive and has no leading zeros (RFC 5280 section 4.1.2.2).
    pub(crate) fn random() -> Result<Serial, CaError> {
        let mut bytes = random::<16>()?;
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Ok(Serial(bytes))
    }

    /// None: it is none of this authority's.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Serial> {
        bytes.try_into().ok().map(Serial)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Random bytes of the kernel.
pub(crate) fn random<const SIZE: usize>() -> Result<[u8; SIZE], CaError> {
    let mut bytes = [0; SIZE];
    getrandom::fill(&mut bytes).map_err(|error| CaError::Crypto(error.to_string()))?;
    Ok(bytes)
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Serial {
    type Err = ();

    /// 32 hexadecimal digits; colons between them are ignored.
    fn from_str(text: &str) -> Result<Serial, ()> {
        from_hex(&text.replace(':', "")).map(Serial).ok_or(())
    }
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// None: not exactly this many bytes in hexadecimal.
pub(crate) fn from_hex<const SIZE: usize>(text: &str) -> Option<[u8; SIZE]> {
    if text.len() != 2 * SIZE || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; SIZE];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    /// None: it has not exactly one.
    pub(crate) common_name: Option<String>,
    /// None: it is none of this authority's.
    pub(crate) serial: Option<Serial>,
    pub(crate) not_before: OffsetDateTime,
    /// Its last second.
    pub(crate) not_after: OffsetDateTime,
    hosts: Vec<Host>,
    /// Its SubjectPublicKeyInfo.
    pub(crate) key_der: Vec<u8>,
    pub(crate) is_authority: bool,
}

impl Certificate {
    /// Parses PEM or DER. The error is the end of a sentence that begins with the file's name.
    pub fn parse(bytes: &[u8]) -> Result<Certificate, String> {
        let der = der_of(bytes, &["CERTIFICATE"])?;
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|_| "is no certificate".to_owned())?;
        if !rest.is_empty() {
            return Err("has more bytes behind its certificate".to_owned());
        }
        let mut common_names = parsed.subject().iter_common_name();
        let common_name = match (common_names.next(), common_names.next()) {
            (Some(name), None) => name.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let names = parsed.subject_alternative_name().map_err(|_| "has a bad subjectAltName".to_owned())?;
        let names: Vec<&GeneralName> = names.iter().flat_map(|names| &names.value.general_names).collect();
        let is_authority = matches!(parsed.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
        Ok(Certificate {
            common_name,
            serial: Serial::from_bytes(parsed.raw_serial()),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            hosts: hosts_of(names).map_err(|error| error.to_string())?,
            key_der: parsed.public_key().raw.to_vec(),
            is_authority,
            der: der.clone(),
        })
    }

    /// Its DER encoding.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Names and addresses of its subjectAltName.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Its SHA-256 fingerprint.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, &self.der).as_ref());
        fingerprint
    }

    /// Whether this authority's key has signed it, and it names this authority.
    pub(crate) fn is_issued_by(&self, authority: &Certificate) -> bool {
        let (Ok((_, own)), Ok((_, issuer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        own.issuer().as_raw() == issuer.subject().as_raw() && own.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// How long it is valid, for another one that is valid as long, and at most for `most` days.
    pub(crate) fn days(&self, most: u32) -> u32 {
        u32::try_from((self.not_after - self.not_before).whole_days()).unwrap_or(most).clamp(1, most)
    }

    /// Whether it is valid at this time.
    pub(crate) fn is_current(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// DER, or the first PEM block, which must have one of these labels. The error is the end of a sentence.
pub(crate) fn der_of(bytes: &[u8], labels: &[&str]) -> Result<Vec<u8>, String> {
    if bytes.len() > REQUEST_SIZE_MAX {
        return Err(format!("has more than {REQUEST_SIZE_MAX} bytes"));
    }
    // A SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(bytes.to_vec());
    }
    match Pem::read(std::io::Cursor::new(bytes)) {
        Ok((pem, _)) if labels.contains(&pem.label.as_str()) => Ok(pem.contents),
        _ => Err(format!("has no PEM block BEGIN {}", labels.first().unwrap_or(&""))),
    }
}

/// DNS names and addresses; other kinds of names are left out.
pub(crate) fn hosts_of(names: Vec<&GeneralName>) -> Result<Vec<Host>, CaError> {
    let mut hosts = Vec::new();
    for name in names {
        match name {
            GeneralName::DNSName(name) => hosts.push(Host::new(name)?),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                let address = address.map_err(|_| CaError::Name("an IP address has 4 or 16 bytes".to_owned()))?;
                hosts.push(Host::Address(address));
            }
            _ => {}
        }
    }
    Ok(hosts)
}
