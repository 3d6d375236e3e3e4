//! The opening handshake's rules (RFC 6455 section 4.2): a request's headers in, an accept key or a refusal out.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::limits::SUBPROTOCOLS_MAX;

/// A request's headers in the order in which they came.
pub type Headers<'a> = [(&'a str, &'a [u8])];

/// Which pages may open a connection (RFC 6455 section 10.2). A request without Origin comes from no page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origins {
    /// Pages of this very host and port only.
    Same,
    /// Every page.
    Any,
    /// Pages of these origins only, written as browsers send them: scheme, host, port unless the default one.
    List(Vec<String>),
}

/// What a good request asks for.
#[derive(PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// The offered subprotocols, in the client's order of preference.
    pub subprotocols: Vec<String>,
}

/// Why a request is refused. Display is the operator's sentence and the reply's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum UpgradeError {
    Method,
    Body,
    HttpVersion,
    Version,
    Key,
    Subprotocols,
    Origin,
}

impl UpgradeError {
    /// The HTTP status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            UpgradeError::Method => 405,
            UpgradeError::Version => 426,
            UpgradeError::Origin => 403,
            UpgradeError::Body | UpgradeError::HttpVersion | UpgradeError::Key | UpgradeError::Subprotocols => 400,
        }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UpgradeError::Method => "a WebSocket handshake is a GET",
            UpgradeError::Body => "a WebSocket handshake has no body",
            UpgradeError::HttpVersion => "a WebSocket handshake needs HTTP/1.1",
            UpgradeError::Version => "only Sec-WebSocket-Version 13 is spoken here",
            UpgradeError::Key => "Sec-WebSocket-Key must be one base64 value of 16 bytes",
            UpgradeError::Subprotocols => "Sec-WebSocket-Protocol must be a list of different tokens",
            UpgradeError::Origin => "the page's origin is not allowed",
        })
    }
}

/// Whether the request wants to become a WebSocket: both tokens, in Upgrade and in Connection.
pub fn is_asked(headers: &Headers) -> bool {
    has_token(headers, "upgrade", "websocket") && has_token(headers, "connection", "upgrade")
}

/// Judges a request that asks for the upgrade. `host` is the request's one Host value.
pub fn check(
    method: &str,
    http_1_1: bool,
    host: &str,
    headers: &Headers,
    origins: &Origins,
) -> Result<Upgrade, UpgradeError> {
    if method != "GET" {
        return Err(UpgradeError::Method);
    }
    if !http_1_1 {
        return Err(UpgradeError::HttpVersion);
    }
    if single(headers, "sec-websocket-version") != Some("13") {
        return Err(UpgradeError::Version);
    }
    let accept = single(headers, "sec-websocket-key").and_then(accept_key).ok_or(UpgradeError::Key)?;
    let subprotocols = subprotocols(headers).ok_or(UpgradeError::Subprotocols)?;
    check_origin(headers, host, origins)?;
    Ok(Upgrade { accept, subprotocols })
}

/// The value that answers a key; None where the key is not 16 bytes of base64.
fn accept_key(key: &str) -> Option<String> {
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    Some(STANDARD.encode(sha1.finalize()))
}

fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
    headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The trimmed value of a header that stands exactly once.
fn single<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a str> {
    let mut all = values(headers, name);
    let value = all.next()?;
    if all.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok().map(str::trim)
}

fn elements<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|element| element.trim_ascii())
        .filter(|element| !element.is_empty())
}

fn has_token(headers: &Headers, name: &str, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

fn subprotocols(headers: &Headers) -> Option<Vec<String>> {
    let mut offered: Vec<String> = Vec::new();
    for element in elements(headers, "sec-websocket-protocol") {
        let token = std::str::from_utf8(element).ok().filter(|token| token.bytes().all(is_token_byte))?;
        if offered.len() == SUBPROTOCOLS_MAX || offered.iter().any(|other| other == token) {
            return None;
        }
        offered.push(token.to_owned());
    }
    Some(offered)
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn check_origin(headers: &Headers, host: &str, origins: &Origins) -> Result<(), UpgradeError> {
    if *origins == Origins::Any || values(headers, "origin").next().is_none() {
        return Ok(());
    }
    let origin = single(headers, "origin").ok_or(UpgradeError::Origin)?;
    let good = match origins {
        Origins::Any => true,
        Origins::Same => is_same_origin(origin, host),
        Origins::List(list) => list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
    };
    if good { Ok(()) } else { Err(UpgradeError::Origin) }
}

/// Compares host and port exactly; a missing port means the scheme's own.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let (authority, port) = match origin.split_once("://") {
        Some(("http", authority)) => (authority, "80"),
        Some(("https", authority)) => (authority, "443"),
        _ => return false,
    };
    let split = |authority: &'_ str| -> (String, String) {
        match authority.rsplit_once(':') {
            Some((name, digits)) if !digits.contains(']') => (name.to_ascii_lowercase(), digits.to_owned()),
            _ => (authority.to_ascii_lowercase(), port.to_owned()),
        }
    };
    split(authority) == split(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &[u8]); 5] = [
        ("Host", b"gate.example:8080"),
        ("Upgrade", b"WebSocket"),
        ("Connection", b"keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", b"13"),
        ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn with<'a>(name: &'a str, value: &'a [u8]) -> Vec<(&'a str, &'a [u8])> {
        let mut headers: Vec<_> = GOOD.iter().filter(|(other, _)| *other != name).copied().collect();
        headers.push((name, value));
        headers
    }

    fn judge(headers: &Headers) -> Result<Upgrade, UpgradeError> {
        check("GET", true, "gate.example:8080", headers, &Origins::Same)
    }

    #[test]
    fn the_sample_of_the_rfc() {
        assert!(is_asked(&GOOD));
        let upgrade = judge(&GOOD).unwrap();
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(upgrade.subprotocols.is_empty());
    }

    #[test]
    fn refusals() {
        let origins = Origins::Same;
        assert_eq!(check("POST", true, "h", &GOOD, &origins), Err(UpgradeError::Method));
        assert_eq!(check("GET", false, "h", &GOOD, &origins), Err(UpgradeError::HttpVersion));
        let cases: &[(&str, &[u8], UpgradeError)] = &[
            ("Sec-WebSocket-Version", b"12", UpgradeError::Version),
            ("Sec-WebSocket-Version", b"13, 12", UpgradeError::Version),
            ("Sec-WebSocket-Key", b"", UpgradeError::Key),
            ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25j", UpgradeError::Key),
            ("Sec-WebSocket-Key", b"not base64 at all!!!!!!!", UpgradeError::Key),
            ("Sec-WebSocket-Protocol", b"chat, chat", UpgradeError::Subprotocols),
            ("Sec-WebSocket-Protocol", b"a b", UpgradeError::Subprotocols),
            ("Origin", b"http://evil.example", UpgradeError::Origin),
            ("Origin", b"null", UpgradeError::Origin),
        ];
        for (name, value, error) in cases {
            assert_eq!(judge(&with(name, value)), Err(*error), "{name}: {value:?}");
        }
        let mut twice = GOOD.to_vec();
        twice.push(GOOD[4]);
        assert_eq!(judge(&twice), Err(UpgradeError::Key));
        assert!(!is_asked(&with("Upgrade", b"h2c")));
        assert!(!is_asked(&with("Connection", b"close")));
    }

    #[test]
    fn subprotocols_in_order() {
        let upgrade = judge(&with("Sec-WebSocket-Protocol", b"chat , superchat,,echo")).unwrap();
        assert_eq!(upgrade.subprotocols, ["chat", "superchat", "echo"]);
    }

    #[test]
    fn origins_are_compared_exactly() {
        let list = Origins::List(vec!["https://app.example".into()]);
        let cases: &[(&Origins, &str, &str, bool)] = &[
            (&Origins::Same, "http://gate.example:8080", "gate.example:8080", true),
            (&Origins::Same, "http://GATE.example", "gate.example", true),
            (&Origins::Same, "https://gate.example", "gate.example", true),
            (&Origins::Same, "http://gate.example", "gate.example:80", true),
            (&Origins::Same, "https://gate.example", "gate.example:80", false),
            (&Origins::Same, "http://gate.example.evil", "gate.example", false),
            (&Origins::Same, "http://gate.example:81", "gate.example", false),
            (&Origins::Same, "http://[::1]:8080", "[::1]:8080", true),
            (&Origins::Same, "http://[::1]", "[::1]", true),
            (&Origins::Same, "ftp://gate.example", "gate.example", false),
            (&list, "https://app.example", "x", true),
            (&list, "https://app.example.evil", "x", false),
            (&list, "http://app.example", "x", false),
            (&Origins::Any, "https://anything", "x", true),
        ];
        for (origins, origin, host, good) in cases {
            let result = check_origin(&[("Origin", origin.as_bytes())], host, origins);
            assert_eq!(result.is_ok(), *good, "{origin} at {host} with {origins:?}");
        }
    }
}
