//! Parsers of structured values. An error begins with the value; the caller prepends the key or flag.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::access::Satisfy;
use crate::clients::{ForwardedFields, HeaderUse};
use crate::driver::Choice;
use crate::driver::device::{BAUD_RATES, Direction};
use crate::http::authority;
use crate::http::fields::is_token_byte;
use crate::http::forwarding::path::is_unambiguous;
use crate::http::upgrade::Origins;
use crate::limits::{Bounds, WhenOver};
use crate::observe::log::{Format, Level};
use crate::route::{MessageType, Protocol};
use crate::tls::{Offload, Verify};
use crate::upstream::{self, Balance};

/// Keywords and their meanings.
type Words<T, const N: usize> = [(&'static str, T); N];

/// Values of `protocol`.
pub(crate) const PROTOCOLS: Words<Protocol, 5> = [
    ("stream", Protocol::Stream),
    ("packet", Protocol::Packet),
    ("lines", Protocol::Lines),
    ("nul", Protocol::Nul),
    ("frames", Protocol::Frames),
];
/// Values of `message-type`.
pub(crate) const TYPES: Words<MessageType, 3> =
    [("auto", MessageType::Auto), ("text", MessageType::Text), ("binary", MessageType::Binary)];
/// Values of `log-level`.
pub(crate) const LEVELS: Words<Level, 4> =
    [("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug)];
/// Values of `log-format`.
pub(crate) const FORMATS: Words<Format, 2> = [("text", Format::Text), ("json", Format::Json)];
/// Values of `driver`.
pub(crate) const DRIVERS: Words<Choice, 3> =
    [("auto", Choice::Auto), ("uring", Choice::Uring), ("epoll", Choice::Epoll)];
/// Values of `when-over`.
pub(crate) const WHEN_OVERS: Words<WhenOver, 2> = [("slow", WhenOver::Slow), ("close", WhenOver::Close)];
/// Values of `tls-offload`.
pub(crate) const OFFLOADS: Words<Offload, 3> =
    [("direct", Offload::Direct), ("all", Offload::All), ("off", Offload::Off)];
/// Values of `verify`.
pub(crate) const VERIFIES: Words<Verify, 3> =
    [("none", Verify::None), ("optional", Verify::Optional), ("required", Verify::Required)];

/// Values of `proxy`.
pub(crate) const PROXIES: Words<HeaderUse, 3> =
    [("off", HeaderUse::Off), ("optional", HeaderUse::Optional), ("required", HeaderUse::Required)];

/// Values of `satisfy`.
pub(crate) const SATISFY: Words<Satisfy, 2> = [("all", Satisfy::All), ("any", Satisfy::Any)];

/// The kind of a credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AuthType {
    Basic,
    Digest,
    Bearer,
    Cookie,
    Query,
    Unix,
    ClientCert,
    None,
}

/// Values of `type` of `auth`, in lower case: ouistiti accepts them in any.
pub(crate) const AUTH_TYPES: Words<AuthType, 8> = [
    ("basic", AuthType::Basic),
    ("digest", AuthType::Digest),
    ("bearer", AuthType::Bearer),
    ("cookie", AuthType::Cookie),
    ("query", AuthType::Query),
    ("unix", AuthType::Unix),
    ("clientcert", AuthType::ClientCert),
    ("none", AuthType::None),
];

impl AuthType {
    /// The word of a configuration.
    pub(crate) fn name(self) -> &'static str {
        AUTH_TYPES.iter().find(|(_, other)| *other == self).map_or("", |(name, _)| name)
    }
}

/// The kind of a link's backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkKind {
    Unix,
    Tcp,
    Tty,
    Fifo,
    /// WebSocket servers, with TLS or without.
    Ws(NodeScheme),
}

/// How nodes are spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeScheme {
    Plain,
    Tls,
}

/// Values of the `type` of a link of `websocket`.
pub(crate) const LINKS: Words<LinkKind, 6> = [
    ("unix", LinkKind::Unix),
    ("tcp", LinkKind::Tcp),
    ("tty", LinkKind::Tty),
    ("fifo", LinkKind::Fifo),
    ("ws", LinkKind::Ws(NodeScheme::Plain)),
    ("wss", LinkKind::Ws(NodeScheme::Tls)),
];

/// Values of the `type` of a link of `document`.
pub(crate) const PAGE_LINKS: Words<NodeScheme, 2> = [("http", NodeScheme::Plain), ("https", NodeScheme::Tls)];

/// Values of `balance`.
pub(crate) const BALANCES: Words<Balance, 4> = [
    ("round-robin", Balance::RoundRobin),
    ("ip-hash", Balance::IpHash),
    ("least-busy", Balance::LeastBusy),
    ("random-two", Balance::RandomTwo),
];

/// Values of `forwarded-headers`.
pub(crate) const FORWARDED_HEADERS: Words<upstream::ClientFields, 4> = [
    ("x-forwarded", upstream::ClientFields::XForwarded),
    ("forwarded", upstream::ClientFields::Forwarded),
    ("both", upstream::ClientFields::Both),
    ("none", upstream::ClientFields::None),
];

/// Values of `upgrade`: whether the bytes after the handshake are passed on as they are.
pub(crate) const UPGRADES: Words<bool, 2> = [("relay", false), ("pass", true)];

/// Values of a link's `direction`.
pub(crate) const DIRECTIONS: Words<Direction, 2> = [("read", Direction::Read), ("write", Direction::Write)];

pub(crate) const PROTOCOL_NAMES: [&str; 5] = names(&PROTOCOLS);
pub(crate) const TYPE_NAMES: [&str; 3] = names(&TYPES);
pub(crate) const LEVEL_NAMES: [&str; 4] = names(&LEVELS);
pub(crate) const FORMAT_NAMES: [&str; 2] = names(&FORMATS);
pub(crate) const DRIVER_NAMES: [&str; 3] = names(&DRIVERS);
pub(crate) const WHEN_OVER_NAMES: [&str; 2] = names(&WHEN_OVERS);
pub(crate) const OFFLOAD_NAMES: [&str; 3] = names(&OFFLOADS);
pub(crate) const VERIFY_NAMES: [&str; 3] = names(&VERIFIES);
pub(crate) const PROXY_NAMES: [&str; 3] = names(&PROXIES);
pub(crate) const AUTH_TYPE_NAMES: [&str; 8] = names(&AUTH_TYPES);
pub(crate) const SATISFY_NAMES: [&str; 2] = names(&SATISFY);
pub(crate) const LINK_NAMES: [&str; 6] = names(&LINKS);
pub(crate) const PAGE_LINK_NAMES: [&str; 2] = names(&PAGE_LINKS);
pub(crate) const BALANCE_NAMES: [&str; 4] = names(&BALANCES);
pub(crate) const FORWARDED_HEADER_NAMES: [&str; 4] = names(&FORWARDED_HEADERS);
pub(crate) const UPGRADE_NAMES: [&str; 2] = names(&UPGRADES);
pub(crate) const DIRECTION_NAMES: [&str; 2] = names(&DIRECTIONS);

/// The speed of a terminal line in bits a second. Not each number within the bounds is a speed.
pub(crate) const BAUD: Bounds =
    Bounds { default: 9_600, min: BAUD_RATES[0].0 as u64, max: BAUD_RATES[BAUD_RATES.len() - 1].0 as u64 };

const fn names<T: Copy, const N: usize>(words: &Words<T, N>) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = words[at].0;
        at += 1;
    }
    names
}

/// None: the word is unknown.
pub(crate) fn word<T: Copy>(words: &[(&str, T)], value: &str) -> Option<T> {
    words.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning)
}

/// Parses `origins`: `same`, `*`, or a comma-separated list.
pub(crate) fn origins(list: &str) -> Result<Origins, String> {
    match list.trim() {
        "same" => return Ok(Origins::Same),
        "*" => return Ok(Origins::Any),
        _ => {}
    }
    let mut origins = Vec::new();
    for one in elements(list) {
        if matches!(one, "same" | "*") {
            return Err(format!("{one:?} cannot be combined with other origins: write it alone, or list origins only"));
        }
        let origin = authority::origin(one).filter(|origin| !origin.contains('*')).ok_or_else(|| {
            format!(
                "{one:?} is not an origin: write same, *, or origins such as https://app.example:8443 without a path"
            )
        })?;
        origins.push(origin);
    }
    if origins.is_empty() {
        return Err("is empty: write same, * or a list of origins".to_owned());
    }
    Ok(Origins::List(origins))
}

/// Parses `forwarded`: fields of the X-Forwarded- family, `forwarded` alone, or `none`. The families are not mixed: a
/// proxy that writes one of them passes a client's own fields of the other one on.
pub(crate) fn forwarded(list: &str) -> Result<ForwardedFields, String> {
    let (mut for_, mut proto, mut host) = (false, false, false);
    let mut alone = None;
    for one in elements(list) {
        match one.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => for_ = true,
            "x-forwarded-proto" => proto = true,
            "x-forwarded-host" => host = true,
            "forwarded" if alone != Some("none") => alone = Some("forwarded"),
            "none" if alone != Some("forwarded") => alone = Some("none"),
            "forwarded" | "none" => return Err("\"forwarded\" and \"none\" are both set: keep one of them".to_owned()),
            _ => {
                return Err(format!(
                    "{one:?} is not read: write x-forwarded-for, x-forwarded-proto and x-forwarded-host as the proxy \
                     sends them, or forwarded, or none"
                ));
            }
        }
    }
    match (alone, for_ || proto || host) {
        (Some(word), true) => Err(format!("{word:?} cannot be combined with other headers: write it alone")),
        (Some("forwarded"), false) => Ok(ForwardedFields::Forwarded),
        (Some(_), false) => Ok(ForwardedFields::None),
        (None, true) => Ok(ForwardedFields::XForwarded { for_, proto, host }),
        (None, false) => Err("is empty: write names of headers, or none".to_owned()),
    }
}

/// Parsed `options` of a docroot or a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// Symbolic links may lead out of docroot.
    pub(crate) follow: bool,
    /// Direct mode: backends receive the clients' sockets.
    pub(crate) direct: bool,
}

/// The error of `protocol` for a protocol that direct mode does not support.
pub(crate) const DIRECT_PROTOCOL: &str =
    "options has \"direct\", which needs protocol = \"stream\": write that, or leave \"direct\" out";

pub(crate) fn options(list: &str) -> Result<Options, String> {
    let mut options = Options::default();
    for one in elements(list) {
        match one {
            "follow" => options.follow = true,
            "direct" => options.direct = true,
            other => return Err(format!("{other:?} is not known: write \"direct\", \"follow\" or nothing")),
        }
    }
    Ok(options)
}

/// The non-empty elements of a comma-separated list.
pub(crate) fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|one| !one.is_empty())
}

/// Parses a host without a port. A trailing dot is removed; an IPv6 address is normalised (RFC 5952).
pub(crate) fn hostname(name: &str) -> Result<Box<str>, String> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match authority::unbracket(name).map(str::parse::<Ipv6Addr>) {
        Some(Ok(address)) => Ok(format!("[{address}]").into()),
        None if !bare.is_empty() && bare.bytes().all(is_in_name) => Ok(bare.into()),
        _ => Err(format!("{name:?} is not a host name: write one such as app.example, without a port")),
    }
}

/// Validates a field value (RFC 9110 section 5.5), ASCII only.
pub(crate) fn header(value: &str) -> Result<Box<str>, String> {
    let is_good = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
    if is_good {
        Ok(value.into())
    } else {
        Err(format!("{value:?} is not a valid header value: write one such as \"no-cache\""))
    }
}

/// Response fields that the configuration may not set: uakari sets them, or they control framing and the connection
/// (RFC 9110 sections 6.6 and 7.6, RFC 9112 section 6). Cache-Control may be set.
const OWN_HEADERS: [&str; 24] = [
    "Accept-Ranges",
    "Allow",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Keep-Alive",
    "Last-Modified",
    "Location",
    "Proxy-Authenticate",
    "Proxy-Connection",
    "Retry-After",
    "Server",
    "Set-Cookie",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Vary",
    "WWW-Authenticate",
    "X-Content-Type-Options",
];

/// Validates the name of a response field for pages.
pub(crate) fn page_header_name(name: &str) -> Result<Box<str>, String> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(format!("{name:?} is not a valid header name: write one such as \"Cache-Control\""));
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("sec-websocket-") || OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!("{name:?} is set by uakari itself: leave it out"));
    }
    Ok(name.into())
}

/// Validates an absolute path.
pub(crate) fn path(path: &str) -> Result<Box<str>, String> {
    if path.starts_with('/') { Ok(path.into()) } else { Err(format!("{path:?} is not absolute: write the full path")) }
}

/// A TCP backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TcpBackend {
    /// An IP address and port.
    Address(SocketAddr),
    /// A host to resolve, and a port.
    Host(Box<str>, u16),
}

/// Parses a TCP backend; `port` is the separate key. Names are not resolved.
pub(crate) fn tcp(destination: &str, port: Option<u16>) -> Result<TcpBackend, String> {
    let wrong =
        || format!("{destination:?} is not a TCP address: write \"127.0.0.1:7000\", \"[::1]:7000\" or \"host:7000\"");
    let (host, digits) = authority::split_port(destination).ok_or_else(wrong)?;
    let written = digits.map(str::parse::<u16>).transpose().map_err(|_| wrong())?;
    let port = match (written, port) {
        (Some(_), Some(_)) => {
            return Err(format!("{destination:?} has a port, and the key port is set too: keep one of them"));
        }
        (Some(port), None) | (None, Some(port)) => port,
        (None, None) => return Err(wrong()),
    };
    if port == 0 {
        return Err(format!("{destination:?} has port 0, which cannot be connected to: write the port of the backend"));
    }
    if let Some(address) = authority::unbracket(host) {
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        return Ok(TcpBackend::Address(SocketAddr::from((address, port))));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(TcpBackend::Address(SocketAddr::from((address, port))));
    }
    if hostname(host).is_err() {
        return Err(wrong());
    }
    Ok(TcpBackend::Host(host.into(), port))
}

/// The place of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NodeAddress {
    /// The absolute path of a socket.
    Unix(Box<str>),
    Tcp(TcpBackend),
}

/// Parses the address of a node. Names are not resolved.
pub(crate) fn node_address(text: &str) -> Result<NodeAddress, String> {
    let wrong = || {
        format!(
            "{text:?} is not the address of a server: write \"127.0.0.1:8080\", \"[::1]:8080\", \"host:8080\" or \
             \"unix:/run/app.sock\""
        )
    };
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Ok(NodeAddress::Unix(path.into())),
        Some(_) => Err(wrong()),
        None if authority::split_port(text).is_some_and(|(_, port)| port == Some("0")) => {
            Err(format!("{text:?} has port 0, which cannot be connected to: write the port of the server"))
        }
        None => tcp(text, None).map(NodeAddress::Tcp).map_err(|_| wrong()),
    }
}

/// A word without the characters that addresses have: the name of an upstream, or a route.
pub(crate) fn label(word: &str) -> Result<Box<str>, String> {
    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        Ok(word.into())
    } else {
        Err(format!("{word:?} is not a word of letters, digits, - _ and dots: write one such as \"node1\""))
    }
}

/// The name of a cookie or a parameter.
pub(crate) fn session_name(name: &str) -> Result<Box<str>, String> {
    if !name.is_empty() && name.bytes().all(is_token_byte) {
        Ok(name.into())
    } else {
        Err(format!("{name:?} is not the name of a cookie: write one such as \"JSESSIONID\""))
    }
}

/// A character that divides a path or the value of a session.
pub(crate) fn delimiter(text: &str) -> Result<char, String> {
    match text.as_bytes() {
        [byte] if b"!$&'()*+,;:@.-_~|".contains(byte) => Ok(char::from(*byte)),
        _ => Err(format!("{text:?} is not one of ! $ & ' ( ) * + , ; : @ . - _ ~ |: write \";\" or \".\"")),
    }
}

/// The path of a request to a node.
pub(crate) fn request_path(path: &str) -> Result<Box<str>, String> {
    let is_good = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if is_unambiguous(path) && path.bytes().all(is_good) {
        Ok(path.into())
    } else {
        Err(format!("{path:?} is not a path: write one such as \"/app/\", percent-encoded and without a query"))
    }
}

/// The target of a health check: a path, and possibly a query.
pub(crate) fn request_target(target: &str) -> Result<Box<str>, String> {
    if target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        Ok(target.into())
    } else {
        Err(format!("{target:?} is not a path: write one such as \"/health\", percent-encoded"))
    }
}

/// The Host of requests to a node.
pub(crate) fn host_header(host: &str) -> Result<Box<str>, String> {
    let is_good = host.bytes().all(|byte| byte.is_ascii_graphic()) && authority::Authority::parse(host).is_some();
    if is_good {
        Ok(host.into())
    } else {
        Err(format!("{host:?} is not a host: write one such as \"app.example\" or \"app.example:8080\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert!(LEVELS.iter().all(|(name, level)| level.name() == *name));
        assert_eq!(PROTOCOL_NAMES, ["stream", "packet", "lines", "nul", "frames"]);
        assert_eq!(word(&DRIVERS, "auto"), Some(Choice::default()));
        assert_eq!(word(&LINKS, "tty"), Some(LinkKind::Tty));
        assert_eq!(word(&LINKS, "TTY"), None);
        assert!(BAUD_RATES.is_sorted_by_key(|(bits, _)| *bits));
        assert!(BAUD_RATES.iter().any(|(bits, _)| u64::from(*bits) == BAUD.default));
    }

    #[test]
    fn lists_of_origins() {
        assert_eq!(origins(" same "), Ok(Origins::Same));
        assert_eq!(origins("*"), Ok(Origins::Any));
        let list = vec!["https://a.example".to_owned(), "http://b:1".to_owned()];
        assert_eq!(origins("https://a.example:443,http://b:1"), Ok(Origins::List(list.clone())));
        assert_eq!(origins("https://a.example, http://b:1,"), Ok(Origins::List(list.clone())));
        assert_eq!(origins("HTTPS://A.example.:, http://b:01"), Ok(Origins::List(list)));
        for (wrong, said) in [
            ("a.example", "\"a.example\" is not an origin"),
            ("https://a/", "without a path"),
            // Browsers send the name in ASCII.
            ("https://caf\u{e9}.example", "is not an origin"),
            ("same, https://a", "\"same\" cannot be combined"),
            ("https://a,*", "\"*\" cannot be combined"),
            ("https://*.a", "is not an origin"),
            ("https://user@a", "is not an origin"),
            ("https://a:b", "is not an origin"),
            ("://a", "is not an origin"),
            (" , ", "is empty"),
        ] {
            assert!(origins(wrong).unwrap_err().contains(said), "{wrong}");
        }
    }

    #[test]
    fn options_of_a_docroot() {
        assert_eq!(options(" , "), Ok(Options::default()));
        assert_eq!(options("follow,"), Ok(Options { follow: true, direct: false }));
        assert_eq!(options("follow, direct"), Ok(Options { follow: true, direct: true }));
        assert!(options("fast").unwrap_err().starts_with("\"fast\" is not known"));
    }

    #[test]
    fn hosts_and_headers() {
        for good in ["app.example", "a_b-c", "127.0.0.1", "[::1]"] {
            assert_eq!(hostname(good), Ok(good.into()));
        }
        for (written, meant) in
            [("app.example.", "app.example"), ("[0:0::1]", "[::1]"), ("[2001:DB8::]", "[2001:db8::]")]
        {
            assert_eq!(hostname(written), Ok(meant.into()));
        }
        for wrong in ["", ".", "a:80", "::1", "[a]", "a b", "http://a", "caf\u{e9}"] {
            assert!(hostname(wrong).is_err(), "{wrong}");
        }
        assert_eq!(header("public, max-age=60").as_deref(), Ok("public, max-age=60"));
        for name in ["Cache-Control", "cache-control", "X-Frame-Options", "Content-Security-Policy", "Expires"] {
            assert_eq!(page_header_name(name).as_deref(), Ok(name));
        }
        for name in ["", "A B", "A:", "A\r\nB", "\u{e9}"] {
            assert!(page_header_name(name).unwrap_err().contains("not a valid header name"), "{name:?}");
        }
        for name in ["Content-Length", "transfer-encoding", "CONNECTION", "Date", "Upgrade", "Sec-WebSocket-Accept"] {
            assert!(page_header_name(name).unwrap_err().contains("set by uakari itself"), "{name:?}");
        }
        for wrong in ["a\r\nb: c", " a", "\u{e9}"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tcp_backends() {
        let one = |text: &str| TcpBackend::Address(text.parse().unwrap());
        assert_eq!(tcp("127.0.0.1:7000", None), Ok(one("127.0.0.1:7000")));
        assert_eq!(tcp("[::1]:7000", None), Ok(one("[::1]:7000")));
        assert_eq!(tcp("[::1]", Some(7000)), Ok(one("[::1]:7000")));
        assert_eq!(tcp("127.0.0.1", Some(1)), Ok(one("127.0.0.1:1")));
        assert_eq!(tcp("localhost:7000", None), Ok(TcpBackend::Host("localhost".into(), 7000)));
        assert_eq!(tcp("plc", Some(1)), Ok(TcpBackend::Host("plc".into(), 1)));
        for (wrong, port, said) in [
            ("127.0.0.1", None, "is not a TCP address"),
            ("127.0.0.1:x", None, "is not a TCP address"),
            ("127.0.0.1:70000", None, "is not a TCP address"),
            ("::1:7000", None, "is not a TCP address"),
            ("[::g]:7000", None, "is not a TCP address"),
            (":7000", None, "is not a TCP address"),
            ("a b:7000", None, "is not a TCP address"),
            ("/run/socket", Some(1), "is not a TCP address"),
            ("127.0.0.1:1", Some(2), "keep one of them"),
            ("127.0.0.1:0", None, "port 0"),
        ] {
            assert!(tcp(wrong, port).is_err_and(|error| error.contains(said)), "{wrong}: {:?}", tcp(wrong, port));
        }
    }
}
