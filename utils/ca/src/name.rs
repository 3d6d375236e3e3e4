//! Names of certificates, and the hosts that they are for.

use std::fmt;
use std::net::IpAddr;

use rcgen::SanType;

use crate::error::CaError;
use crate::limits::{HOST_SIZE_MAX, HOSTS_MAX, NAME_SIZE_MAX};

/// The name of a certificate: its common name, and its file in `issued`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// A name has 1 to 64 letters, digits, dots, underscores and hyphens, and begins with a letter, a digit or an
    /// underscore: no path leads out of a folder by it, and no command takes it for a flag.
    pub fn new(name: &str) -> Result<Name, CaError> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_good = !name.starts_with(['.', '-']) && name.bytes().all(is_part);
        if name.is_empty() || name.len() > NAME_SIZE_MAX || !is_good {
            return Err(CaError::Name(format!(
                "{:?} cannot name a certificate: write 1 to {NAME_SIZE_MAX} letters, digits, dots, underscores and \
                 hyphens, the first no dot or hyphen",
                shorten(name)
            )));
        }
        Ok(Name(name.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A DNS name in lower case, perhaps with `*` as its first label.
    Dns(String),
}

impl Host {
    /// Parses a DNS name or an address.
    pub fn new(text: &str) -> Result<Host, CaError> {
        if let Ok(address) = text.parse() {
            return Ok(Host::Address(address));
        }
        let refused = || {
            let shown = shorten(text);
            CaError::Name(format!("{shown:?} is no host: write a DNS name such as gate.example, or an IP address"))
        };
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.starts_with('-')
                && !label.ends_with('-')
                && (1..=63).contains(&label.len())
                && label.bytes().all(is_inner)
        };
        // A name whose last label is numeric would be an address to browsers (WHATWG URL, ends in a number).
        let is_numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if text.len() > HOST_SIZE_MAX || is_numeric || !name.split('.').all(is_label) {
            return Err(refused());
        }
        Ok(Host::Dns(text.to_ascii_lowercase()))
    }

    /// As a subjectAltName (RFC 5280 section 4.2.1.6).
    pub(crate) fn subject_alt_name(&self) -> Result<SanType, CaError> {
        match self {
            Host::Address(address) => Ok(SanType::IpAddress(*address)),
            Host::Dns(name) => {
                let name = name.as_str().try_into().map_err(|error: rcgen::Error| CaError::Name(error.to_string()))?;
                Ok(SanType::DnsName(name))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => write!(f, "{address}"),
            Host::Dns(name) => f.write_str(name),
        }
    }
}

/// Without repetitions, in the given order.
pub(crate) fn distinct(hosts: impl IntoIterator<Item = Host>) -> Result<Vec<Host>, CaError> {
    let mut kept: Vec<Host> = Vec::new();
    for host in hosts {
        if !kept.contains(&host) {
            kept.push(host);
        }
        if kept.len() > HOSTS_MAX {
            return Err(CaError::Name(format!("a certificate has at most {HOSTS_MAX} names and addresses")));
        }
    }
    Ok(kept)
}

/// The beginning of a foreign text, for messages.
fn shorten(text: &str) -> String {
    text.chars().take(NAME_SIZE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "phone-1", "gate.example", "_x", "10.0.0.1", &"a".repeat(64)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "../a", "a/b", "-v", "a b", "a\n", "a\0", "ä", "*.a", &"a".repeat(65)] {
            let error = Name::new(bad).unwrap_err();
            assert!(error.is_refusal() && error.to_string().contains("cannot name a certificate"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn hosts() {
        for (text, shown) in [
            ("localhost", "localhost"),
            ("Gate.Example", "gate.example"),
            ("*.example.org", "*.example.org"),
            ("127.0.0.1", "127.0.0.1"),
            ("0:0::1", "::1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(Host::new(text).unwrap().to_string(), shown);
        }
        let long = format!("{}.example", "a".repeat(64));
        let longer = format!("{}a", "a.".repeat(127));
        for bad in [
            "", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "a b", "*", "*.", "a.*", "*.*.a", "1.2.3", "ä", &long,
            &longer,
        ] {
            assert!(Host::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn repeated_and_many_hosts() {
        let host = |number: usize| Host::new(&format!("h{number}.example")).unwrap();
        assert_eq!(distinct([host(1), host(0), host(1)]).unwrap(), [host(1), host(0)]);
        assert_eq!(distinct((0..HOSTS_MAX).map(host)).unwrap().len(), HOSTS_MAX);
        assert!(distinct((0..=HOSTS_MAX).map(host)).is_err());
    }
}
