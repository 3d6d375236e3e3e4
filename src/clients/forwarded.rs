//! X-Forwarded-For, -Proto and -Host, and Forwarded (RFC 7239), read from the right: a proxy adds its element to the right
//! of those that it has received, which are not to be trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Networks, decimal};
use crate::http::authority::Authority;
use crate::http::fields::{Fields, is_token_byte};
use crate::http::head::HeadError;
use crate::limits::{FORWARDED_ADDRESS_SIZE_MAX, FORWARDED_MAX};
use crate::types::Address;

/// The fields of requests of trusted proxies that are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ForwardedFields {
    /// X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host, each if true.
    XForwarded {
        /// X-Forwarded-For gives the client's address.
        for_: bool,
        /// X-Forwarded-Proto gives the scheme.
        proto: bool,
        /// X-Forwarded-Host gives the host.
        host: bool,
    },
    /// Forwarded (RFC 7239) alone.
    Forwarded,
    /// None of them.
    #[default]
    None,
}

/// What the fields of one request give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forwarded<'h> {
    /// The client. Port 0: it is not known. None: the peer itself.
    pub client: Option<SocketAddr>,
    /// Whether the client uses https or wss. None: not known.
    pub is_tls: Option<bool>,
    /// The host that the client has asked for: a valid authority, in the form in which it was sent. None: not known.
    pub host: Option<&'h str>,
}

/// Reads the fields of a request that `peer`, a trusted proxy (or the source that its PROXY header gives), has sent.
/// Nothing is read if `peer` is not among `proxies`. The error is `HeadError::Forwarded`: what the peer itself has written
/// into Forwarded is malformed, so that its client is not known, and could have no limit.
pub fn read<'h>(
    fields: ForwardedFields,
    proxies: &Networks,
    peer: Address,
    headers: &Fields<'h>,
) -> Result<Forwarded<'h>, HeadError> {
    if !proxies.has(peer) {
        return Ok(Forwarded::default());
    }
    Ok(match fields {
        ForwardedFields::XForwarded { for_, proto, host } => {
            let last = |is_believed: bool, name| is_believed.then(|| from_the_right(headers, name).next()).flatten();
            Forwarded {
                client: if for_ { walk(proxies, from_the_right(headers, "x-forwarded-for")) } else { None },
                is_tls: last(proto, "x-forwarded-proto").and_then(is_tls),
                host: last(host, "x-forwarded-host").and_then(valid_host),
            }
        }
        ForwardedFields::Forwarded => walk_forwarded(proxies, headers)?,
        ForwardedFields::None => Forwarded::default(),
    })
}

/// The elements of a list in all its lines, the last one first. Empty ones are skipped (RFC 9110 section 5.6.1).
fn from_the_right<'h>(headers: &Fields<'h>, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = lines_from_the_last(headers, name).flat_map(|value| value.rsplit(|byte| *byte == b','));
    lines.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

fn lines_from_the_last<'h>(headers: &Fields<'h>, name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().rev().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The client of X-Forwarded-For: the first address that is no proxy, or the last one before what is no address.
fn walk<'h>(proxies: &Networks, elements: impl Iterator<Item = &'h [u8]>) -> Option<SocketAddr> {
    let mut client = None;
    for element in elements.take(FORWARDED_MAX) {
        let Some(address) = text_of(element).and_then(address) else { break };
        client = Some(address);
        if !proxies.has_ip(address.ip()) {
            break;
        }
    }
    client
}

/// As `walk`, for Forwarded. Scheme and host are those of the element with which the walk ends: who has added it has
/// received the client's request.
fn walk_forwarded<'h>(proxies: &Networks, headers: &Fields<'h>) -> Result<Forwarded<'h>, HeadError> {
    let mut read = Forwarded::default();
    let elements = lines_from_the_last(headers, "forwarded").flat_map(elements_from_the_right);
    for (number, element) in elements.take(FORWARDED_MAX).enumerate() {
        let element = match parse_element(element) {
            Some((element, [])) => element,
            // The first one is that of the peer.
            _ if number == 0 => return Err(HeadError::Forwarded),
            _ => break,
        };
        read.is_tls = element.proto.and_then(is_tls);
        read.host = element.host.and_then(valid_host);
        let Some(client) = element.node.and_then(text_of).and_then(node) else { break };
        read.client = Some(client);
        if !proxies.has_ip(client.ip()) {
            break;
        }
    }
    Ok(read)
}

/// The elements of one line of Forwarded, the last one first. Empty ones are skipped. An element does not depend on what
/// is to the left of it: a client may have sent a part of a quoted-string, to which the proxy has added.
fn elements_from_the_right(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    let elements = std::iter::from_fn(move || {
        let list = rest?;
        let (before, element) = split_last(list);
        rest = before;
        Some(element)
    });
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The last element of a list, and what is before its comma. A comma in a quoted-string does not count.
fn split_last(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut is_quoted = false;
    for (at, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' => is_quoted = !is_quoted || is_escaped(&list[..at]),
            b',' if !is_quoted => return (Some(&list[..at]), &list[at + 1..]),
            _ => {}
        }
    }
    (None, list)
}

/// Whether what follows these bytes in a quoted-string is escaped by a backslash, which is not escaped itself.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The values of one forwarded-element (RFC 7239 section 4). None: it has no such parameter.
#[derive(Clone, Copy, Default)]
struct Element<'h> {
    /// The parameter `for`.
    node: Option<&'h [u8]>,
    proto: Option<&'h [u8]>,
    host: Option<&'h [u8]>,
}

/// One element, and what follows it. The grammar allows no blanks beside a semicolon, but some proxies write them.
fn parse_element(mut rest: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let mut element = Element::default();
    loop {
        let (name, after) = split_token(rest)?;
        let (value, after) = split_value(after.strip_prefix(b"=")?)?;
        let place = [("for", &mut element.node), ("proto", &mut element.proto), ("host", &mut element.host)]
            .into_iter()
            .find_map(|(known, place)| name.eq_ignore_ascii_case(known.as_bytes()).then_some(place));
        // Each parameter at most once.
        if place.is_some_and(|place| place.replace(value).is_some()) {
            return None;
        }
        rest = skip_blanks(after);
        if !rest.starts_with(b";") {
            return Some((element, rest));
        }
        // A pair may be empty.
        while let Some(after) = rest.strip_prefix(b";") {
            rest = skip_blanks(after);
        }
        if matches!(rest, [] | [b',', ..]) {
            return Some((element, rest));
        }
    }
}

/// A token, and what follows it. None: there is none.
fn split_token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(bytes.len());
    (end > 0).then(|| bytes.split_at(end))
}

/// A token, or the contents of a quoted-string with its backslashes, which no valid value has, and what follows it.
fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else { return split_token(bytes) };
    let mut is_escaped = false;
    for (at, byte) in quoted.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some((&quoted[..at], &quoted[at + 1..])),
            _ => {}
        }
    }
    None
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}

/// The text of an address that is not too long.
fn text_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.len() <= FORWARDED_ADDRESS_SIZE_MAX)
}

/// An address in X-Forwarded-For: with or without a port, IPv6 in brackets or, without a port, not.
fn address(text: &str) -> Option<SocketAddr> {
    match text.parse::<Ipv6Addr>() {
        Ok(ip) => Some(SocketAddr::new(IpAddr::V6(ip).to_canonical(), 0)),
        Err(_) => node(text),
    }
}

/// An address in Forwarded (RFC 7239 section 6): with or without a port, which may be obfuscated; IPv6 in brackets. None:
/// "unknown", an obfuscated address, or none.
fn node(text: &str) -> Option<SocketAddr> {
    let (ip, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (IpAddr::V4(text[..end].parse::<Ipv4Addr>().ok()?), &text[end..])
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 0,
        None => return None,
        Some(port) if is_obfuscated(port) => 0,
        Some(port) => decimal(port)?,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// Whether this is a name that a proxy has made up (RFC 7239 section 6.3).
fn is_obfuscated(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_part))
}

fn is_tls(scheme: &[u8]) -> Option<bool> {
    let is_one_of = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name.as_bytes()));
    match () {
        _ if is_one_of(["https", "wss"]) => Some(true),
        _ if is_one_of(["http", "ws"]) => Some(false),
        _ => None,
    }
}

fn valid_host(host: &[u8]) -> Option<&str> {
    std::str::from_utf8(host).ok().filter(|host| Authority::parse(host).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: ForwardedFields = ForwardedFields::XForwarded { for_: true, proto: true, host: true };
    /// What is configured by default.
    const DEFAULT: ForwardedFields = ForwardedFields::XForwarded { for_: true, proto: true, host: false };

    fn proxies() -> Networks {
        let mut networks = Networks::default();
        ["10.0.0.0/8", "2001:db8:a::/48"].iter().for_each(|text| networks.add(text).unwrap());
        networks
    }

    /// What these lines, separated by newlines, give in a request of the proxy 10.0.0.1.
    fn read_lines(fields: ForwardedFields, lines: &str) -> Forwarded<'_> {
        try_lines(fields, lines).expect(lines)
    }

    fn try_lines(fields: ForwardedFields, lines: &str) -> Result<Forwarded<'_>, HeadError> {
        let headers: Vec<(&str, &[u8])> = lines
            .lines()
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name, value.trim().as_bytes()))
            .collect();
        read(fields, &proxies(), Address::Tcp("10.0.0.1:1".parse().unwrap()), &headers)
    }

    fn client_of(fields: ForwardedFields, lines: &str) -> String {
        read_lines(fields, lines).client.map_or_else(String::new, |client| client.to_string())
    }

    #[test]
    fn the_client_of_x_forwarded_for() {
        let many = |address: &str, count| vec![address; count].join(",");
        let (all_read, one_too_many) = (many("10.0.0.9", 31), many("10.0.0.9", 32));
        let long = format!("{}1.2.3.4", "0".repeat(64));
        for (value, client) in [
            ("", ""),
            (", ,", ""),
            ("1.2.3.4", "1.2.3.4:0"),
            ("1.2.3.4:5678", "1.2.3.4:5678"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("::ffff:1.2.3.4", "1.2.3.4:0"),
            ("[::ffff:1.2.3.4]:1", "1.2.3.4:1"),
            // What a client has made up is to the left of what the proxy adds.
            ("127.0.0.1, 1.2.3.4", "1.2.3.4:0"),
            ("10.0.0.1, 1.2.3.4", "1.2.3.4:0"),
            ("127.0.0.1,10.0.0.3,1.2.3.4,10.0.0.2", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4, ::ffff:10.0.0.2", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4, 2001:db8:a::9 , 10.0.0.2", "1.2.3.4:0"),
            ("6.6.6.6, 1.2.3.4,, ", "1.2.3.4:0"),
            // A chain of proxies alone: the request is that of the first one.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3:0"),
            // The walk ends before what is no address.
            ("1.2.3.4, unknown", ""),
            ("1.2.3.4, unknown, 10.0.0.2", "10.0.0.2:0"),
            ("1.2.3.4, _hidden, 10.0.0.2", "10.0.0.2:0"),
            ("1.2.3.4, evil\", 10.0.0.2", "10.0.0.2:0"),
            ("1.2.3.4, 1.2.3, 10.0.0.2", "10.0.0.2:0"),
            ("1.2.3.4, 1.2.3.4:99999", ""),
            ("1.2.3.4, 1.2.3.4:+1", ""),
            ("1.2.3.4, 1.2.3.4:", ""),
            ("1.2.3.4, 1.2.3.04", ""),
            ("1.2.3.4, [2001:db8::1", ""),
            ("1.2.3.4, [2001:db8::1]80", ""),
            ("1.2.3.4, [1.2.3.4]", ""),
            ("1.2.3.4, fe80::1%eth0", ""),
            ("1.2.3.4, \"1.2.3.4\"", ""),
            ("1.2.3.4, 1.2.3.4 5.6.7.8", ""),
            ("1.2.3.4; 5.6.7.8", ""),
            (&format!("1.2.3.4, {long}, 10.0.0.2"), "10.0.0.2:0"),
            (&format!("1.2.3.4, {all_read}"), "1.2.3.4:0"),
            (&format!("1.2.3.4, {one_too_many}"), "10.0.0.9:0"),
        ] {
            assert_eq!(client_of(DEFAULT, &format!("X-Forwarded-For: {value}")), client, "{value}");
            let lines: Vec<_> = value.split(',').map(|element| format!("x-forwarded-for:{element}")).collect();
            assert_eq!(client_of(DEFAULT, &lines.join("\nHost: h\n")), client, "in lines: {value}");
        }
        for lines in ["X-Real-IP: 1.2.3.4", "X_Forwarded_For: 1.2.3.4", "Forwarded: for=1.2.3.4", "Client-IP: 1.2.3.4"]
        {
            assert_eq!(read_lines(ALL, lines), Forwarded::default());
        }
    }

    #[test]
    fn scheme_and_host_of_x_forwarded_fields() {
        for (lines, is_tls, host) in [
            ("X-Forwarded-Proto: https\nX-Forwarded-Host: a.example", Some(true), Some("a.example")),
            ("X-Forwarded-Proto: HTTP\nX-Forwarded-Host: a.example:8443", Some(false), Some("a.example:8443")),
            ("X-Forwarded-Proto: wss", Some(true), None),
            ("X-Forwarded-Proto: ws\nX-Forwarded-Host: [::1]:80", Some(false), Some("[::1]:80")),
            // The rightmost one is that of the proxy.
            ("X-Forwarded-Proto: https, http\nX-Forwarded-Host: evil, a.example", Some(false), Some("a.example")),
            ("X-Forwarded-Proto: http\nX-Forwarded-Host: evil\nX-Forwarded-Proto: https", Some(true), Some("evil")),
            ("X-Forwarded-Proto: https, ftp\nX-Forwarded-Host: a.example, user@evil", None, None),
            ("X-Forwarded-Proto: on\nX-Forwarded-Host: a b", None, None),
            ("X-Forwarded-Proto: \"https\"\nX-Forwarded-Host: a/b", None, None),
            ("X-Forwarded-Proto:\nX-Forwarded-Host:", None, None),
            ("X-Forwarded-Ssl: on\nFront-End-Https: on\nX-Forwarded-Scheme: https\nX-Forwarded-Server: a", None, None),
        ] {
            let read = read_lines(ALL, lines);
            assert_eq!((read.is_tls, read.host), (is_tls, host), "{lines}");
            assert_eq!(read_lines(DEFAULT, lines).host, None, "{lines}");
        }
        let none = ForwardedFields::XForwarded { for_: false, proto: false, host: false };
        let lines = "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nX-Forwarded-Host: a\nForwarded: for=1.2.3.4";
        for fields in [none, ForwardedFields::None] {
            assert_eq!(read_lines(fields, lines), Forwarded::default());
        }
        let only = |for_, proto, host| read_lines(ForwardedFields::XForwarded { for_, proto, host }, lines);
        let client = Some("1.2.3.4:0".parse().unwrap());
        assert_eq!(only(true, false, false), Forwarded { client, ..Forwarded::default() });
        assert_eq!(only(false, true, false), Forwarded { is_tls: Some(true), ..Forwarded::default() });
        assert_eq!(only(false, false, true), Forwarded { host: Some("a"), ..Forwarded::default() });
    }

    #[test]
    fn elements_of_forwarded() {
        for (value, client, is_tls, host) in [
            ("for=1.2.3.4", "1.2.3.4:0", None, None),
            ("For=1.2.3.4;PROTO=https;hosT=a.example", "1.2.3.4:0", Some(true), Some("a.example")),
            ("for=\"1.2.3.4:5678\";by=203.0.113.43;proto=http", "1.2.3.4:5678", Some(false), None),
            ("for=\"[2001:db8::17]:4711\"", "[2001:db8::17]:4711", None, None),
            ("for=\"[2001:db8::17]\";host=\"a.example:8443\"", "[2001:db8::17]:0", None, Some("a.example:8443")),
            ("for=\"1.2.3.4:_x\"", "1.2.3.4:0", None, None),
            ("proto=https;for=1.2.3.4;secret=\"a,b;c\\\"d\"", "1.2.3.4:0", Some(true), None),
            ("for=1.2.3.4;, ,", "1.2.3.4:0", None, None),
            ("for=1.2.3.4;;proto=https", "1.2.3.4:0", Some(true), None),
            ("for=1.2.3.4 ; proto=https", "1.2.3.4:0", Some(true), None),
            // Scheme and host are those of the element of the client.
            (
                "for=6.6.6.6;proto=http;host=evil, for=1.2.3.4;proto=https;host=a, for=10.0.0.2;proto=http;host=b",
                "1.2.3.4:0",
                Some(true),
                Some("a"),
            ),
            ("for=6.6.6.6;host=evil , for=1.2.3.4", "1.2.3.4:0", None, None),
            ("for=10.0.0.3;proto=https, for=10.0.0.2;proto=http", "10.0.0.3:0", Some(true), None),
            // The client is not known, but what it asks for is.
            ("for=6.6.6.6;proto=http, for=unknown;proto=https;host=a", "", Some(true), Some("a")),
            ("for=6.6.6.6, proto=https;host=a", "", Some(true), Some("a")),
            ("for=6.6.6.6, for=_hidden;host=a, for=10.0.0.2;host=b", "10.0.0.2:0", None, Some("a")),
            ("for=6.6.6.6, for=\"_hidden:80\", for=10.0.0.2", "10.0.0.2:0", None, None),
            ("for=6.6.6.6, for=\"2001:db8::17\"", "", None, None),
            ("for=6.6.6.6, for=\"1.2.3.4:99999\"", "", None, None),
            ("for=1.2.3.4;proto=ftp;host=\"user@a\"", "1.2.3.4:0", None, None),
            ("for=\"1.2.3.\\4\";host=\"\\a\"", "", None, None),
            // A client's part is malformed, but not that of the proxy.
            ("for=\", for=1.2.3.4", "1.2.3.4:0", None, None),
            ("for=@, for=1.2.3.4", "1.2.3.4:0", None, None),
            ("@, for=\"[2001:db8::17]:4711\";proto=https", "[2001:db8::17]:4711", Some(true), None),
            ("for=6.6.6.6;x=\", for=1.2.3.4;by=\"10.0.0.1:80\"", "1.2.3.4:0", None, None),
            ("for=6.6.6.6;x=\"\\, for=1.2.3.4;x=\"\\\",\\\\\";host=a", "1.2.3.4:0", None, Some("a")),
            ("for=6.6.6.6, for=, for=10.0.0.2", "10.0.0.2:0", None, None),
        ] {
            let lines = format!("X-Forwarded-For: 9.9.9.9\nForwarded: {value}\nX-Forwarded-Proto: https");
            let read = read_lines(ForwardedFields::Forwarded, &lines);
            let shown = read.client.map_or_else(String::new, |client| client.to_string());
            assert_eq!((&*shown, read.is_tls, read.host), (client, is_tls, host), "{value}");
        }
        for value in [
            "for=1.2.3.4;for=5.6.7.8",
            "for=1.2.3.4;host=a;host=b",
            "for=1.2.3.4:80",
            "for=[2001:db8::17]",
            "for = 1.2.3.4",
            "for=1.2.3.4 proto=https",
            "for=",
            "for",
            "=1.2.3.4",
            "1.2.3.4",
            "for=\"",
            "for=\"1.2.3.4\\\"",
            "for=\"1.2.3.4\"x",
        ] {
            for before in ["", "for=6.6.6.6, ", "for=6.6.6.6\nForwarded: "] {
                let lines = format!("Forwarded: {before}{value}");
                assert_eq!(try_lines(ForwardedFields::Forwarded, &lines), Err(HeadError::Forwarded), "{lines}");
            }
        }
    }

    /// A line of the client's own does not hide that of the proxy.
    #[test]
    fn lines_of_forwarded() {
        for (lines, client) in [
            ("Forwarded: for=\"\nForwarded: for=1.2.3.4", "1.2.3.4:0"),
            ("Forwarded: for=6.6.6.6\nForwarded: for=1.2.3.4, for=10.0.0.2", "1.2.3.4:0"),
            ("Forwarded: for=1.2.3.4\nForwarded: for=10.0.0.3, for=10.0.0.2", "1.2.3.4:0"),
            ("Forwarded: for=6.6.6.6\nForwarded: for=\nForwarded: for=10.0.0.2", "10.0.0.2:0"),
            ("Forwarded: for=6.6.6.6\nForwarded: for=unknown", ""),
            ("Forwarded: for=6.6.6.6\nForwarded:", "6.6.6.6:0"),
        ] {
            assert_eq!(client_of(ForwardedFields::Forwarded, lines), client, "{lines}");
        }
        for (count, client) in [(31, "1.2.3.4:0"), (32, "10.0.0.9:0")] {
            let lines = format!("Forwarded: for=1.2.3.4\nForwarded: {}", vec!["for=10.0.0.9"; count].join(","));
            assert_eq!(client_of(ForwardedFields::Forwarded, &lines), client, "{count}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let headers: [(&str, &[u8]); 3] =
            [("X-Forwarded-For", b"1.2.3.4"), ("X-Forwarded-Proto", b"https"), ("Forwarded", b"for=1.2.3.4;host=a")];
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for (peer, is_believed) in [
            (tcp("10.255.0.1:1"), true),
            (tcp("[::ffff:10.0.0.1]:1"), true),
            (tcp("[2001:db8:a::]:1"), true),
            (tcp("11.0.0.1:1"), false),
            (tcp("127.0.0.1:1"), false),
            (Address::Unix, false),
            (Address::Unknown, false),
        ] {
            for fields in [ALL, ForwardedFields::Forwarded] {
                let read = read(fields, &proxies(), peer, &headers).unwrap();
                assert_eq!(read != Forwarded::default(), is_believed, "{peer} {fields:?}");
                assert_eq!(read.client.is_some(), is_believed, "{peer} {fields:?}");
            }
        }
        let mut unix = Networks::default();
        unix.add("unix:").unwrap();
        assert!(read(ALL, &unix, Address::Unix, &headers).unwrap().client.is_some());
        assert_eq!(read(ALL, &Networks::default(), Address::Unix, &headers), Ok(Forwarded::default()));
    }
}
