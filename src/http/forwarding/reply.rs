//! The head of a node's reply to a client.

use super::{Kind, Named, Rewrite, put, put_number, size};
use crate::http::date::Date;
use crate::http::fields::{Fields, single};

/// How the body of a reply to a client is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BodyOut {
    /// By Content-Length.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection; `keep_alive` has to be false.
    UntilClose,
    /// There is none: the reply to HEAD, 204 or 304. The node's Content-Length is passed on except with 204.
    None,
}

/// What a reply to a client consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyParts<'a> {
    /// Not 1xx.
    pub(crate) status: u16,
    /// The node's reason phrase; may be empty.
    pub(crate) reason: &'a [u8],
    /// The node's fields.
    pub(crate) headers: &'a Fields<'a>,
    /// Header lines that the gateway adds, each with its CRLF.
    pub(crate) fields: &'a str,
    /// How the body is delimited.
    pub(crate) body: BodyOut,
    /// Whether the client's connection persists.
    pub(crate) keep_alive: bool,
    /// The value of Date, if the node sends none.
    pub(crate) date: &'a Date,
    /// How Location and the paths of cookies are rewritten. None: they are not.
    pub(crate) rewrite: Option<&'a Rewrite<'a>>,
}

/// The head of the reply to the client, with its empty line.
///
/// The node's fields keep their order. Left out are those of the connection, those that Connection names, and Trailer
/// unless the body is chunked. Of a 426 Upgrade is kept. A node's Strict-Transport-Security gives way to that in `fields`.
/// Via is not written: a gateway need not in replies (RFC 9110 section 7.6.3).
pub(crate) fn reply_head(parts: &ReplyParts<'_>) -> Vec<u8> {
    debug_assert!(parts.body != BodyOut::UntilClose || !parts.keep_alive);
    let mut head = start(parts.status, parts.reason, parts.headers, parts.fields.len());
    let named = Named::of(parts.headers);
    let has_hsts =
        parts.fields.split("\r\n").any(|line| Kind::of(line.split(':').next().unwrap_or_default()) == Kind::Hsts);
    let (mut has_date, mut has_upgrade) = (false, false);
    for (name, value) in parts.headers {
        let kind = Kind::of(name);
        let is_passed = match kind {
            Kind::HopByHop | Kind::Length => false,
            Kind::Upgrade if parts.status == 426 => {
                has_upgrade = true;
                put(&mut head, name, value);
                false
            }
            Kind::Upgrade => false,
            Kind::Trailer => parts.body == BodyOut::Chunked,
            Kind::Hsts => !has_hsts,
            _ => true,
        };
        if !is_passed || named.has(name) {
            continue;
        }
        has_date |= kind == Kind::Date;
        let rewritten = parts.rewrite.and_then(|rewrite| match kind {
            Kind::Location => rewrite.location(value),
            Kind::Refresh => rewrite.refresh(value),
            Kind::SetCookie => rewrite.cookie(value),
            _ => None,
        });
        put(&mut head, name, rewritten.as_deref().unwrap_or(value));
    }
    if !has_date {
        put(&mut head, "Date", parts.date.text().as_bytes());
    }
    head.extend_from_slice(parts.fields.as_bytes());
    match parts.body {
        BodyOut::Length(size) => put_number(&mut head, "Content-Length", size),
        BodyOut::Chunked => put(&mut head, "Transfer-Encoding", b"chunked"),
        BodyOut::None if parts.status != 204 => {
            let length = single(parts.headers, "content-length").filter(|value| is_number(value));
            length.inspect(|length| put(&mut head, "Content-Length", length));
        }
        BodyOut::None | BodyOut::UntilClose => {}
    }
    let connection: &[u8] = match (has_upgrade, parts.keep_alive) {
        (true, true) => b"upgrade, keep-alive",
        (true, false) => b"upgrade, close",
        (false, true) => b"keep-alive",
        (false, false) => b"close",
    };
    put(&mut head, "Connection", connection);
    head.extend_from_slice(b"\r\n");
    head
}

/// The head of an interim reply (RFC 9110 section 15.2), 100 to 199 except 101, with its empty line.
pub(crate) fn interim_head(status: u16, reason: &[u8], headers: &Fields) -> Vec<u8> {
    debug_assert!((100..200).contains(&status) && status != 101);
    let mut head = start(status, reason, headers, 0);
    let named = Named::of(headers);
    for (name, value) in headers {
        let is_of_connection =
            matches!(Kind::of(name), Kind::HopByHop | Kind::Length | Kind::Upgrade | Kind::Trailer | Kind::Hsts);
        if !is_of_connection && !named.has(name) {
            put(&mut head, name, value);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The head of the 101 of a WebSocket that is passed through, with its empty line. The gateway has verified
/// Sec-WebSocket-Accept. Extensions are passed on only if `passes_extensions`; `rewrite` changes the paths of cookies.
pub(crate) fn switching_head(headers: &Fields, passes_extensions: bool, rewrite: Option<&Rewrite<'_>>) -> Vec<u8> {
    let mut head = start(101, b"Switching Protocols", headers, 0);
    head.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    let named = Named::of(headers);
    for (name, value) in headers {
        let kind = Kind::of(name);
        let is_passed = match kind {
            Kind::HopByHop | Kind::Length | Kind::Upgrade | Kind::Trailer | Kind::Hsts => false,
            // Connection cannot break the handshake.
            Kind::WebSocket => true,
            Kind::Extensions => passes_extensions,
            _ => !named.has(name),
        };
        if is_passed {
            let rewritten = rewrite.filter(|_| kind == Kind::SetCookie).and_then(|rewrite| rewrite.cookie(value));
            put(&mut head, name, rewritten.as_deref().unwrap_or(value));
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The status line, in a buffer for the whole head. Control characters of the reason become blanks.
fn start(status: u16, reason: &[u8], headers: &Fields, more_size: usize) -> Vec<u8> {
    debug_assert!((100..1000).contains(&status));
    let mut head = Vec::with_capacity(OWN_SIZE + reason.len() + size(headers) + more_size);
    head.extend_from_slice(b"HTTP/1.1 ");
    let digit = |value: u16| b'0' + (value % 10) as u8;
    head.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
    head.extend(reason.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }));
    head.extend_from_slice(b"\r\n");
    head
}

/// Bytes of the fields that the gateway writes, about.
const OWN_SIZE: usize = 256;

fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &Fields<'static> = &[
        ("Connection", b"close, X-One"),
        ("x-one", b"1"),
        ("Transfer-Encoding", b"chunked"),
        ("Trailer", b"t"),
        ("Upgrade", b"h2c"),
        ("Content-Length", b"7"),
        ("Set-Cookie", b"a=b; Path=/app"),
        ("Strict-Transport-Security", b"max-age=1"),
        ("Location", b"/app/x"),
    ];

    fn head(status: u16, fields: &str, body: BodyOut, keep_alive: bool, has_rewrite: bool) -> String {
        let rewrite = Rewrite { authorities: &[], is_tls: false, from: "/app", to: "/web" };
        let (date, rewrite) = (Date::default(), Some(&rewrite).filter(|_| has_rewrite));
        let reason = b"O\rK\n";
        let parts = ReplyParts { status, reason, headers: NODE, fields, body, keep_alive, date: &date, rewrite };
        String::from_utf8(reply_head(&parts)).unwrap()
    }

    #[test]
    fn replies() {
        const DATE: &str = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        const HSTS: &str = "Strict-Transport-Security: max-age=1\r\n";
        let plain = format!("Set-Cookie: a=b; Path=/app\r\n{HSTS}Location: /app/x\r\n{DATE}");
        let changed =
            format!("Set-Cookie: a=b; Path=/web\r\nLocation: /web/x\r\n{DATE}strict-transport-security: x\r\n");
        for (reply, expected) in [
            (
                head(200, "", BodyOut::Chunked, true, false),
                format!(
                    "200 O K \r\nTrailer: t\r\n{plain}Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
                ),
            ),
            (
                head(200, "strict-transport-security: x\r\n", BodyOut::Length(9), false, true),
                format!("200 O K \r\n{changed}Content-Length: 9\r\nConnection: close\r\n\r\n"),
            ),
            (
                head(304, "", BodyOut::None, true, false),
                format!("304 O K \r\n{plain}Content-Length: 7\r\nConnection: keep-alive\r\n\r\n"),
            ),
            (head(204, "", BodyOut::None, true, false), format!("204 O K \r\n{plain}Connection: keep-alive\r\n\r\n")),
            (
                head(426, "", BodyOut::UntilClose, false, false),
                format!("426 O K \r\nUpgrade: h2c\r\n{plain}Connection: upgrade, close\r\n\r\n"),
            ),
        ] {
            assert_eq!(reply, format!("HTTP/1.1 {expected}"));
        }
    }

    #[test]
    fn interim_and_switching() {
        let text = |head: Vec<u8>| String::from_utf8(head).unwrap();
        let early: &Fields = &[("Link", b"</x>"), ("Connection", b"x"), ("X", b"1"), ("Content-Length", b"1")];
        assert_eq!(text(interim_head(103, b"Early Hints", early)), "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        let node: &Fields = &[
            ("Upgrade", b"WebSocket"),
            ("Connection", b"upgrade, Sec-WebSocket-Accept"),
            ("Sec-WebSocket-Accept", b"a"),
            ("Sec-WebSocket-Extensions", b"e"),
            ("Set-Cookie", b"a=b"),
            ("Content-Length", b"5"),
        ];
        let start = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n";
        for (passes, extensions) in [(true, "Sec-WebSocket-Extensions: e\r\n"), (false, "")] {
            let expected = format!("{start}{extensions}Set-Cookie: a=b\r\n\r\n");
            assert_eq!(text(switching_head(node, passes, None)), expected);
        }
    }
}
