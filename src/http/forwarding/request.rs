//! The head of a request to a node.

use super::{Kind, Named, PSEUDONYM, put, put_number, size};
use crate::http::authority;
use crate::http::body::Framing;
use crate::http::fields::{Fields, elements, has_token};
use crate::http::head::Head;

/// What a request to a node consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestParts<'a> {
    /// The request of the client. Its framing becomes that of the request to the node.
    pub(crate) head: &'a Head<'a>,
    /// Path and query for the node.
    pub(crate) target: &'a str,
    /// Host for the node.
    pub(crate) host: &'a str,
    /// The host and the port that the client named. Empty: none.
    pub(crate) client_host: &'a str,
    /// The IP address of the client, without brackets and port. Empty: not known, or a client of a UNIX socket.
    pub(crate) client: &'a str,
    /// Whether the client uses https. None: not known, and taken for http.
    pub(crate) is_tls: Option<bool>,
    /// The port that the client has connected to, for an X-Forwarded-Port where `client_host` has none.
    pub(crate) port: Option<u16>,
    /// The admitted user, decoded. Empty: none, or one without a name.
    pub(crate) user: &'a str,
    /// Its groups, separated by commas.
    pub(crate) groups: &'a str,
    /// Whether X-Forwarded-For, -Host, -Port and -Proto are written.
    pub(crate) writes_x_forwarded: bool,
    /// Whether Forwarded is written (RFC 7239).
    pub(crate) writes_forwarded: bool,
    /// Whether Authorization is left out, since the gateway has verified it.
    pub(crate) hides_authorization: bool,
    /// The cookies that are left out, since the gateway has verified them.
    pub(crate) hidden_cookies: &'a [&'a str],
    /// It is a WebSocket handshake (RFC 6455 section 4.1). Without it no field of a handshake is passed on.
    pub(crate) upgrade: bool,
    /// Whether Sec-WebSocket-Extensions is passed on: not where the gateway reads the frames.
    pub(crate) passes_extensions: bool,
}

/// The head of the request to the node, with its empty line.
///
/// The client's fields keep their order and the case of their names. Left out are the fields of the connection, those that
/// Connection names, and all that name a client or a user, also if "-" is spelled otherwise. Connection cannot remove a
/// field that the gateway writes. The fields of the gateway:
/// - X-Forwarded-For is the address of the true client alone. What the client or a proxy before it has sent is not
///   repeated: some nodes read the first address and some the last one, and all of them have to read the same.
/// - X-Forwarded-User and -Groups are percent-encoded (RFC 3986 section 2.1) outside of visible ASCII, and so is "%".
/// - Via tells of the gateway (RFC 9110 section 7.6.3), as a line of its own after those of the client.
/// - Expect is written if the client waits for a 100 and has a body.
pub(crate) fn request_head(parts: &RequestParts<'_>) -> Vec<u8> {
    let fields = &parts.head.headers[..];
    let named = Named::of(fields);
    let mut head =
        Vec::with_capacity(parts.target.len() + size(fields) + OWN_SIZE + parts.user.len() + parts.groups.len());
    for word in [parts.head.method, " ", parts.target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(word.as_bytes());
    }
    put(&mut head, "Host", parts.host.as_bytes());
    let (mut has_length, mut has_te) = (false, false);
    for (name, value) in fields {
        let is_passed = match Kind::of(name) {
            Kind::HopByHop => {
                has_te |= name.eq_ignore_ascii_case("te");
                false
            }
            Kind::Length => {
                has_length = true;
                false
            }
            Kind::Forwarded | Kind::Host | Kind::Expect | Kind::Upgrade => false,
            // Connection cannot break the handshake that the gateway has checked.
            Kind::WebSocket => {
                if parts.upgrade {
                    put(&mut head, name, value);
                }
                continue;
            }
            Kind::Extensions => parts.upgrade && parts.passes_extensions,
            Kind::Authorization => !parts.hides_authorization,
            Kind::Cookie if !parts.hidden_cookies.is_empty() => {
                if !named.has(name) {
                    put_cookies(&mut head, name, value, parts.hidden_cookies);
                }
                continue;
            }
            _ => true,
        };
        if is_passed && !named.has(name) {
            put(&mut head, name, value);
        }
    }
    put_forwarded(&mut head, parts);
    head.extend_from_slice(if parts.head.http_1_1 { b"Via: 1.1 " } else { b"Via: 1.0 " });
    head.extend_from_slice(PSEUDONYM.as_bytes());
    head.extend_from_slice(b"\r\n");
    match parts.head.framing {
        Framing::Sized(size) => put_number(&mut head, "Content-Length", size),
        Framing::Chunked => put(&mut head, "Transfer-Encoding", b"chunked"),
        // A server may demand a length of a method that usually has a body (RFC 9110 section 8.6).
        Framing::Empty if has_length && matches!(parts.head.method, "POST" | "PUT" | "PATCH") => {
            put(&mut head, "Content-Length", b"0");
        }
        Framing::Empty => {}
    }
    if parts.head.expects_continue && parts.head.framing != Framing::Empty {
        put(&mut head, "Expect", b"100-continue");
    }
    let accepts_trailers = has_te && has_token(fields, "te", "trailers");
    match (parts.upgrade, accepts_trailers) {
        (true, _) => head.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        (false, true) => head.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n"),
        (false, false) => {}
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Bytes of the fields that the gateway writes, without hosts and users, about.
const OWN_SIZE: usize = 512;

/// How many times this gateway, or another one of its name, has passed the request on (RFC 9110 section 7.6.3). Beyond
/// `limits::VIA_MAX` the request runs in a loop.
pub(crate) fn via_count(fields: &Fields) -> usize {
    let is_own = |element: &&[u8]| {
        let received_by = element.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).nth(1);
        received_by.is_some_and(|name| name.eq_ignore_ascii_case(PSEUDONYM.as_bytes()))
    };
    elements(fields, "via").filter(is_own).count()
}

/// Writes a Cookie field without these cookies (RFC 6265 section 4.2.1); nothing if none is left.
fn put_cookies(head: &mut Vec<u8>, name: &str, value: &[u8], hidden: &[&str]) {
    let mut is_any = false;
    for pair in value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if hidden.iter().any(|hidden| hidden.as_bytes() == key) {
            continue;
        }
        if is_any {
            head.extend_from_slice(b"; ");
        } else {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
        }
        head.extend_from_slice(pair);
        is_any = true;
    }
    if is_any {
        head.extend_from_slice(b"\r\n");
    }
}

/// Writes the fields that name the client and its user.
fn put_forwarded(head: &mut Vec<u8>, parts: &RequestParts<'_>) {
    let scheme = if parts.is_tls == Some(true) { "https" } else { "http" };
    if parts.writes_x_forwarded {
        if !parts.client.is_empty() {
            put(head, "X-Forwarded-For", parts.client.as_bytes());
        }
        put(head, "X-Forwarded-Proto", scheme.as_bytes());
        if !parts.client_host.is_empty() {
            put(head, "X-Forwarded-Host", parts.client_host.as_bytes());
        }
        let named = authority::split_port(parts.client_host).and_then(|(_, port)| port).filter(|port| !port.is_empty());
        match (named, parts.port) {
            (Some(port), _) => put(head, "X-Forwarded-Port", port.as_bytes()),
            (None, Some(port)) => put_number(head, "X-Forwarded-Port", port.into()),
            (None, None) => {}
        }
    }
    if parts.writes_forwarded {
        // An IPv6 address is in brackets, and quoted (RFC 7239 section 6).
        let (before, client, after) = match parts.client {
            "" => ("", "unknown", ""),
            client if client.contains(':') => ("\"[", client, "]\""),
            client => ("", client, ""),
        };
        for part in ["Forwarded: for=", before, client, after, ";proto=", scheme] {
            head.extend_from_slice(part.as_bytes());
        }
        if !parts.client_host.is_empty() {
            for part in [";host=\"", parts.client_host, "\""] {
                head.extend_from_slice(part.as_bytes());
            }
        }
        head.extend_from_slice(b"\r\n");
    }
    for (name, value) in [("X-Forwarded-User: ", parts.user), ("X-Forwarded-Groups: ", parts.groups)] {
        if !parts.user.is_empty() && !value.is_empty() {
            head.extend_from_slice(name.as_bytes());
            put_encoded(head, value);
            head.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes text, percent-encoded outside of visible ASCII. So no name of a user can end its line.
fn put_encoded(head: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            head.push(byte);
        } else {
            head.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head;
    use crate::limits::Http;

    /// The lines of the head for the node, without the first two and the empty ones. `lines` are fields of the client.
    fn lines(method: &str, lines: &str, change: impl Fn(&mut RequestParts)) -> Vec<String> {
        let mut bytes = format!("{method} /x HTTP/1.1\r\nHost: gate.example\r\n{lines}\r\n").into_bytes();
        let head = head::parse(&mut bytes, &Http::default()).unwrap();
        let mut parts = RequestParts {
            head: &head,
            target: "/y",
            host: "node:1",
            client_host: head.host,
            client: "192.0.2.1",
            is_tls: None,
            port: None,
            user: "",
            groups: "",
            writes_x_forwarded: false,
            writes_forwarded: false,
            hides_authorization: false,
            hidden_cookies: &[],
            upgrade: false,
            passes_extensions: false,
        };
        change(&mut parts);
        let text = String::from_utf8(request_head(&parts)).unwrap();
        let start = format!("{method} /y HTTP/1.1\r\nHost: node:1\r\n");
        let rest = text.strip_prefix(&start).unwrap().strip_suffix("\r\n\r\n").unwrap();
        rest.split("\r\n").map(str::to_owned).collect()
    }

    const VIA: &str = "Via: 1.1 uakari";

    #[test]
    fn fields_of_clients() {
        for (method, client, expected) in [
            ("GET", "b-C: 1\r\nA: 2\r\n", &["b-C: 1", "A: 2", VIA][..]),
            ("GET", "Connection: close, X-One\r\nX-one: 1\r\nKeep-Alive: 5\r\n", &[VIA]),
            ("GET", "Proxy-Connection: x\r\nProxy-Authorization: x\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\n", &[VIA]),
            ("GET", "X_Forwarded_User: root\r\nX-FORWARDED-USER: root\r\nForwarded: for=x\r\nX-Real-IP: x\r\n", &[VIA]),
            ("GET", "Proxy: http://evil\r\nX-Original-URL: /admin\r\nX_Rewrite_URL: /admin\r\n", &[VIA]),
            ("GET", "Content_Length: 5\r\nTransfer_Encoding: chunked\r\n", &[VIA]),
            ("GET", "TE: trailers\r\nConnection: TE\r\n", &[VIA, "TE: trailers", "Connection: TE"]),
            ("GET", "TE: gzip\r\nConnection: TE\r\n", &[VIA]),
            ("GET", "Via: 1.0 a\r\n", &["Via: 1.0 a", VIA]),
            ("POST", "Content-Length: 5\r\nConnection: Content-Length, Host\r\n", &[VIA, "Content-Length: 5"]),
            ("POST", "Content-Length: 0\r\n", &[VIA, "Content-Length: 0"]),
            ("POST", "X: y\r\n", &["X: y", VIA]),
            ("GET", "Content-Length: 0\r\n", &[VIA]),
            (
                "POST",
                "Transfer-Encoding: CHUNKED\r\nTrailer: x\r\nExpect: 100-continue\r\n",
                &["Trailer: x", VIA, "Transfer-Encoding: chunked", "Expect: 100-continue"],
            ),
            ("GET", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Extensions: x\r\n", &[VIA]),
        ] {
            assert_eq!(lines(method, client, |_| ()), expected, "{client}");
        }
    }

    #[test]
    fn credentials_that_are_hidden() {
        let hide = |parts: &mut RequestParts| {
            parts.hides_authorization = true;
            parts.hidden_cookies = &["token", "t"];
        };
        for (client, expected) in [
            ("Authorization: x\r\nCookie: token=1\r\n", &[VIA][..]),
            ("Cookie: a=1; token=1;b=2 ; t = 3\r\n", &["Cookie: a=1; b=2", VIA]),
            ("Cookie: Token=1; x=token=1\r\ncookie: t\r\n", &["Cookie: Token=1; x=token=1", VIA]),
        ] {
            assert_eq!(lines("GET", client, hide), expected, "{client}");
        }
        let kept = ["Authorization: x", "Cookie: token=1;t=2", VIA];
        assert_eq!(lines("GET", "Authorization: x\r\nCookie: token=1;t=2\r\n", |_| ()), kept);
    }

    #[test]
    fn clients_are_named() {
        let spoof = "X-Forwarded-For: 1.1.1.1\r\nConnection: X-Forwarded-For, X-Forwarded-Proto, Via, Forwarded\r\n";
        let x = |parts: &mut RequestParts| {
            parts.writes_x_forwarded = true;
            parts.client = "2001:db8::1";
            parts.is_tls = Some(true);
            parts.port = Some(8443);
            parts.user = "Zo\u{eb} 100%\r\nX: y";
            parts.groups = "a,b";
        };
        let expected = [
            "X-Forwarded-For: 2001:db8::1",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: gate.example",
            "X-Forwarded-Port: 8443",
            "X-Forwarded-User: Zo%C3%AB%20100%25%0D%0AX:%20y",
            "X-Forwarded-Groups: a,b",
            VIA,
        ];
        assert_eq!(lines("GET", spoof, x), expected);
        for (client, host, expected) in [
            ("2001:db8::1", "h:81", "Forwarded: for=\"[2001:db8::1]\";proto=http;host=\"h:81\""),
            ("192.0.2.1", "", "Forwarded: for=192.0.2.1;proto=http"),
            ("", "h", "Forwarded: for=unknown;proto=http;host=\"h\""),
        ] {
            let all = lines("GET", spoof, |parts| {
                parts.writes_forwarded = true;
                (parts.client, parts.client_host) = (client, host);
            });
            assert_eq!(all, [expected, VIA]);
        }
    }

    #[test]
    fn handshakes() {
        let client = "Upgrade: websocket\r\nConnection: Upgrade, Sec-WebSocket-Key\r\nSec-WebSocket-Key: k\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: x\r\n";
        for (passes, extensions) in [(true, &["Sec-WebSocket-Extensions: x"][..]), (false, &[])] {
            let all = lines("GET", client, |parts| (parts.upgrade, parts.passes_extensions) = (true, passes));
            let own = [&["Sec-WebSocket-Key: k", "Sec-WebSocket-Version: 13"], extensions].concat();
            assert_eq!(all, [&own[..], &[VIA, "Upgrade: websocket", "Connection: Upgrade"]].concat());
        }
    }

    #[test]
    fn loops_are_counted() {
        let fields: [(&str, &[u8]); 3] =
            [("Via", b"1.1 uakari, 1.0  UAKARI (x) ,1.1 nginx"), ("X", b"1.1 uakari"), ("via", b"HTTP/1.1 uakari,")];
        assert_eq!(via_count(&fields), 3);
    }
}
