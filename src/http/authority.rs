//! Hosts, ports and origins, parsed, normalised and compared by the rules of URIs (RFC 3986 sections
//! 3.2 and 6.2, RFC 9110 section 4.2.3, RFC 6454). Every comparison of a Host or an Origin is made here.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A host and an optional port; a user is not part of it (RFC 9110 section 4.2.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority<'a> {
    /// In normal form: lower case, unreserved characters decoded, no dot at the end, IPv6 as in RFC 5952.
    host: Cow<'a, str>,
    /// The digits without leading zeros. None: missing or empty, so that the scheme's default port applies.
    port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// Parses an authority. None: not valid, has a user or an empty host.
    pub fn parse(text: &'a str) -> Option<Authority<'a>> {
        let (host, digits) = split_port(text)?;
        let host = match unbracket(host) {
            Some(address) => literal(address)?.into(),
            None => registered_name(host)?,
        };
        let digits = digits.unwrap_or_default();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // 0080 is 80, and 000 is 0.
        let significant = digits.trim_start_matches('0');
        let port = if significant.is_empty() { digits.get(..1) } else { Some(significant) };
        Some(Authority { host, port })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the port is given and in 1..=65535.
    pub(crate) fn has_port(&self) -> bool {
        self.port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    }

    /// Whether both name the same host and port; a missing port is the default port.
    pub(crate) fn is_same(&self, other: &Authority<'_>, default_port: &str) -> bool {
        self.host == other.host && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// Splits `host:port`, `[address]:port` or a host alone. The host keeps its brackets. The port is the text after the
/// colon, unchecked; None without a colon. Returns None if a bracket is not closed, or is followed by text without a
/// colon.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    match text.split_at(end) {
        (host, "") => Some((host, None)),
        (host, rest) => Some((host, Some(rest.strip_prefix(':')?))),
    }
}

/// The address between brackets (RFC 3986 section 3.2.2), unchecked. None: the host is not in brackets.
pub(crate) fn unbracket(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// The default port of a lower-case scheme. None: unknown scheme.
pub(crate) fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some("80"),
        "https" | "wss" => Some("443"),
        _ => None,
    }
}

/// Normalises an origin as browsers do (RFC 6454 section 6.2): scheme, host, and the port unless it is the scheme's
/// default. None: not a single origin, for example "null" or a list.
pub(crate) fn origin(text: &str) -> Option<String> {
    let (scheme, authority) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let Authority { host, port } = Authority::parse(authority)?;
    let port = port.filter(|port| default_port(&scheme) != Some(port));
    Some(format!("{scheme}://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
}

/// Whether a normalised origin has the same host and port as this Host value. `is_tls` is whether the client uses https,
/// which is then the scheme of the origin. None: not known, since a proxy in front may terminate TLS: the scheme is
/// either, and a port missing in Host is its default.
pub(crate) fn is_origin_of(origin: &str, host: &str, is_tls: Option<bool>) -> bool {
    let Some((scheme @ ("http" | "https"), authority)) = origin.split_once("://") else { return false };
    if is_tls.is_some_and(|is_tls| is_tls != (scheme == "https")) {
        return false;
    }
    match (Authority::parse(authority), Authority::parse(host), default_port(scheme)) {
        (Some(page), Some(host), Some(port)) => page.is_same(&host, port),
        _ => false,
    }
}

/// Normalises the text between the brackets of an IP literal (RFC 3986 section 3.2.2); the result has brackets. A zone
/// (RFC 6874) is local to the client's machine and is removed.
fn literal(text: &str) -> Option<String> {
    let is_future_byte = |byte: u8| is_unreserved(byte) || is_sub_delimiter(byte) || byte == b':';
    if let Some((version, address)) = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) {
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_good = is_version && !address.is_empty() && address.bytes().all(is_future_byte);
        return is_good.then(|| format!("[{}]", text.to_ascii_lowercase()));
    }
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let is_zone = |zone: &str| !zone.is_empty() && zone.bytes().all(|byte| is_unreserved(byte) || byte == b'%');
    let address: Ipv6Addr = address.parse().ok()?;
    zone.is_none_or(is_zone).then(|| format!("[{address}]"))
}

/// Normalises a name or an IPv4 address (RFC 3986 sections 3.2.2 and 6.2.2). A trailing dot marks a fully qualified
/// name and is removed.
fn registered_name(name: &str) -> Option<Cow<'_, str>> {
    let is_plain = |byte: u8| is_unreserved(byte) || is_sub_delimiter(byte);
    let is_normal = name.bytes().all(|byte| is_plain(byte) && !byte.is_ascii_uppercase());
    let name = if is_normal { Cow::Borrowed(name) } else { Cow::Owned(decode(name, is_plain)?) };
    let name = match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.strip_suffix('.').unwrap_or(name)),
        Cow::Owned(name) => Cow::Owned(name.strip_suffix('.').unwrap_or(&name).to_owned()),
    };
    (!name.is_empty()).then_some(name)
}

/// Converts to lower case and decodes percent-encoded unreserved characters.
fn decode(name: &str, is_plain: impl Fn(u8) -> bool) -> Option<String> {
    let mut decoded = String::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            is_plain(byte).then(|| decoded.push(char::from(byte)))?;
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = (digit()? * 16 + digit()?) as u8;
        if is_unreserved(value) {
            decoded.push(char::from(value));
        } else {
            decoded.push_str(&format!("%{value:02x}"));
        }
    }
    decoded.make_ascii_lowercase();
    Some(decoded)
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 section 2.2.
fn is_sub_delimiter(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        // RFC section, authority, its host in normal form and its port. None: not valid.
        for (section, text, expected) in [
            ("3986 1.1.2", "www.ietf.org", Some(("www.ietf.org", None))),
            ("3986 1.1.2", "[2001:db8::7]", Some(("[2001:db8::7]", None))),
            ("3986 1.1.2", "192.0.2.16:80", Some(("192.0.2.16", Some("80")))),
            ("3986 3", "example.com:8042", Some(("example.com", Some("8042")))),
            ("3986 3.2.2", "[v1.fe80::a+en1]", Some(("[v1.fe80::a+en1]", None))),
            ("3986 3.2.2", "[V1.A:b]:1", Some(("[v1.a:b]", Some("1")))),
            ("3986 3.2.2", "[::FFFF:129.144.52.38]:80", Some(("[::ffff:129.144.52.38]", Some("80")))),
            ("3986 3.2.2", "[1080:0:0:0:8:800:200C:417A]", Some(("[1080::8:800:200c:417a]", None))),
            ("3986 3.2.2", "a-b._~!$&'()*+,;=", Some(("a-b._~!$&'()*+,;=", None))),
            ("3986 3.2.2", "example.com.", Some(("example.com", None))),
            ("3986 3.2.2", "%E3%82%A2.example", Some(("%e3%82%a2.example", None))),
            ("3986 3.2.3", "h:", Some(("h", None))),
            ("3986 3.2.3", "[::1]:", Some(("[::1]", None))),
            ("3986 3.2.3", "h:0080", Some(("h", Some("80")))),
            ("3986 3.2.3", "h:00", Some(("h", Some("0")))),
            ("3986 6.2.2.1", "HTTP.Example", Some(("http.example", None))),
            ("3986 6.2.2.2", "%41%2e%7Ea", Some(("a.~a", None))),
            ("5952 4", "[2001:DB8:0:0::1]", Some(("[2001:db8::1]", None))),
            ("6874 2", "[fe80::1%25eth0]", Some(("[fe80::1]", None))),
            ("6874 3", "[fe80::1%eth0]:80", Some(("[fe80::1]", Some("80")))),
            ("9110 7.2", "www.example.org", Some(("www.example.org", None))),
            ("9112 3.2.4", "www.example.org:8001", Some(("www.example.org", Some("8001")))),
            ("6455 1.2", "server.example.com", Some(("server.example.com", None))),
            // A host is required (RFC 9110 section 4.2.1), a user is refused (section 4.2.4).
            ("9110 4.2.1", "", None),
            ("9110 4.2.1", ":80", None),
            ("9110 4.2.1", ".", None),
            ("9110 4.2.4", "user@h", None),
            ("9110 4.2.4", "user:word@h:80", None),
            ("3986 3.2.2", "[]", None),
            ("3986 3.2.2", "[::1", None),
            ("3986 3.2.2", "::1", None),
            ("3986 3.2.2", "[::1]x", None),
            ("3986 3.2.2", "[::1]x:1", None),
            ("3986 3.2.2", "[1.2.3.4]", None),
            ("3986 3.2.2", "[::g]", None),
            ("3986 3.2.2", "[1::2::3]", None),
            ("3986 3.2.2", "[v1]", None),
            ("3986 3.2.2", "[v.a]", None),
            ("3986 3.2.2", "[v1.]", None),
            ("3986 3.2.2", "a b", None),
            ("3986 3.2.2", "a/b", None),
            ("3986 3.2.2", "a\\b", None),
            ("3986 3.2.2", "caf\u{e9}", None),
            ("3986 2.1", "a%4", None),
            ("3986 2.1", "a%zz", None),
            ("3986 2.1", "%", None),
            ("3986 3.2.3", "h:x", None),
            ("3986 3.2.3", "h:+1", None),
            ("3986 3.2.3", "h:1:1", None),
            ("3986 3.2.3", "h: 1", None),
            ("6874 2", "[fe80::1%]", None),
            ("6874 2", "[fe80::1%a/b]", None),
        ] {
            let parsed = Authority::parse(text);
            let got = parsed.as_ref().map(|authority| (authority.host(), authority.port));
            assert_eq!(got, expected, "RFC {section}: {text}");
        }
    }

    #[test]
    fn same_authorities() {
        for (section, one, other, port, is_same) in [
            ("9110 4.2.3", "example.com:80", "EXAMPLE.com", "80", true),
            ("9110 4.2.3", "EXAMPLE.com", "EXAMPLE.com:", "80", true),
            ("3986 6.2.3", "example.com:", "example.com:80", "80", true),
            ("3986 6.2.3", "example.com:80", "example.com:443", "80", false),
            ("3986 6.2.3", "example.com", "example.com:80", "443", false),
            ("3986 6.2.3", "example.com", "example.com:8080", "80", false),
            ("3986 6.2.2.2", "ex%61mple.com", "example.com", "80", true),
            ("3986 6.2.2.2", "%C3%80.example", "%c3%80.example", "80", true),
            ("3986 3.2.2", "example.com.", "example.com:80", "80", true),
            ("3986 3.2.2", "example.com", "example.org", "80", false),
            ("3986 3.2.3", "h:0", "h", "80", false),
            ("3986 3.2.3", "h:080", "h", "80", true),
            ("5952 1", "[0:0::1]", "[::1]:80", "80", true),
            ("5952 1", "[::1]", "[::2]", "80", false),
            ("5952 1", "[::1]:80", "[::1]:81", "80", false),
            // RFC 3986 section 7.4: other spellings of an IPv4 address are names.
            ("3986 7.4", "127.0.0.1", "127.1", "80", false),
            ("3986 7.4", "127.0.0.1", "0177.0.0.1", "80", false),
        ] {
            let (one, other) = (Authority::parse(one).unwrap(), Authority::parse(other).unwrap());
            assert_eq!(one.is_same(&other, port), is_same, "RFC {section}: {one:?} {other:?}");
            assert_eq!(other.is_same(&one, port), is_same, "RFC {section}: {other:?} {one:?}");
        }
    }

    #[test]
    fn origins() {
        for (section, text, expected) in [
            ("6454 4", "http://example.com", Some("http://example.com")),
            ("6454 4", "http://example.com:80", Some("http://example.com")),
            ("6454 4", "https://example.com:443", Some("https://example.com")),
            ("6454 4", "http://example.com:8080", Some("http://example.com:8080")),
            ("6454 4", "http://www.example.com", Some("http://www.example.com")),
            ("6454 4", "https://example.com:80", Some("https://example.com:80")),
            ("6454 4", "HTTPS://Example.COM:", Some("https://example.com")),
            ("6454 6.2", "http://[0::1]:080", Some("http://[::1]")),
            ("6454 6.2", "app+x://id:80", Some("app+x://id:80")),
            ("3986 3.2.2", "https://example.com.", Some("https://example.com")),
            ("6455 3", "ws://example.com:80", Some("ws://example.com")),
            ("6455 3", "wss://example.com:443", Some("wss://example.com")),
            ("6454 7.1", "null", None),
            ("6454 7.1", "", None),
            ("6454 7.1", "http://a http://b", None),
            ("6454 6.2", "http://example.com/", None),
            ("6454 6.2", "http://example.com/path", None),
            ("6454 6.2", "http://user@example.com", None),
            ("6454 6.2", "http://", None),
            ("6454 6.2", "://example.com", None),
            ("6454 6.2", "example.com", None),
            ("6454 6.2", "http:example.com", None),
            ("6454 6.2", "http://caf\u{e9}.example", None),
            ("6454 6.2", "1http://example.com", None),
        ] {
            assert_eq!(origin(text).as_deref(), expected, "RFC {section}: {text}");
        }
    }

    #[test]
    fn origins_of_hosts() {
        for (text, host, is_same, over_tls) in [
            ("http://gate.example:8080", "gate.example:8080", true, false),
            ("http://GATE.example", "gate.example", true, false),
            ("https://gate.example", "gate.example", true, true),
            ("http://gate.example", "gate.example:80", true, false),
            ("http://gate.example", "gate.example:", true, false),
            ("https://gate.example", "GATE.example:443", true, true),
            ("https://gate.example", "gate.example.", true, true),
            ("http://gate.example.", "gate.example", true, false),
            ("http://gate.example:", "gate.example", true, false),
            ("http://[::1]:8080", "[0:0::1]:8080", true, false),
            ("http://[::1]", "[::1]", true, false),
            ("https://gate.example:8443", "gate.example:8443", true, true),
            ("http://gate.example:443", "gate.example:443", true, false),
            ("http://gate.example:443", "gate.example", false, false),
            ("https://gate.example:8443", "gate.example", false, false),
            ("https://gate.example", "gate.example:8443", false, false),
            ("https://gate.example", "gate.example:80", false, false),
            ("http://gate.example", "gate.example:443", false, false),
            ("http://gate.example.evil", "gate.example", false, false),
            ("http://evil-gate.example", "gate.example", false, false),
            ("http://gate.example:81", "gate.example", false, false),
            ("http://gate.example", "gate.example:0", false, false),
            ("http://[::1]", "[::2]", false, false),
            ("ftp://gate.example", "gate.example", false, false),
            ("ws://gate.example", "gate.example", false, false),
            ("http://gate.example", "", false, false),
        ] {
            let page = origin(text).unwrap();
            assert_eq!(is_origin_of(&page, host, None), is_same, "{text} at {host}");
            assert_eq!(is_origin_of(&page, host, Some(true)), over_tls, "{text} at {host} over TLS");
            let over_plain = is_origin_of(&page, host, Some(false));
            assert_eq!(over_plain, is_same && !over_tls, "{text} at {host} without TLS");
        }
    }
}
