//! A request head: bytes in, a judged `Head` out. The only file that knows httparse.

use std::fmt;

use crate::limits::{self, TARGET_SIZE_MAX};

const HEAD_SIZE_MAX: usize = limits::HEAD_SIZE_MAX.default as usize;
const HEADERS_MAX: usize = limits::HEADERS_MAX.default as usize;

/// A request head within the bytes it was read from.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path of the request target, query cut off, still percent-encoded. Begins with "/".
    pub path: &'a str,
    /// HTTP/1.1; false for 1.0.
    pub http_1_1: bool,
    /// The one Host value; empty where HTTP/1.0 sent none.
    pub host: &'a str,
    /// All headers, in order.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// Whether the connection stays open for a next request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether a body follows, which the gateway does not read: the connection ends behind the reply.
    pub has_body: bool,
}

/// Why a head is refused. Display is the operator's sentence and the reply's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum HeadError {
    NotHttp,
    HttpVersion,
    TargetTooLong,
    TooLarge,
    TooManyHeaders,
    Host,
    Target,
    Framing,
}

impl HeadError {
    /// The HTTP status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            HeadError::TargetTooLong => 414,
            HeadError::TooLarge | HeadError::TooManyHeaders => 431,
            HeadError::HttpVersion => 505,
            HeadError::NotHttp | HeadError::Host | HeadError::Target | HeadError::Framing => 400,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::NotHttp => f.write_str("this is not an HTTP/1.1 request"),
            HeadError::HttpVersion => f.write_str("only HTTP/1.1 and 1.0 are spoken here"),
            HeadError::TargetTooLong => write!(f, "the request target is over {TARGET_SIZE_MAX} bytes"),
            HeadError::TooLarge => write!(f, "the request head is over {HEAD_SIZE_MAX} bytes"),
            HeadError::TooManyHeaders => write!(f, "the request has over {HEADERS_MAX} headers"),
            HeadError::Host => f.write_str("a request needs exactly one valid Host header"),
            HeadError::Target => f.write_str("the request target is not a path"),
            HeadError::Framing => f.write_str("the request's Content-Length or Transfer-Encoding is ambiguous"),
        }
    }
}

/// Where the head ends in `bytes`, looking from `from` on: behind its empty line. None: not yet.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3);
    bytes[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

/// Judges what has come of a head that is not whole: garbage and excess are refused at once.
pub fn check_partial(bytes: &[u8]) -> Result<(), HeadError> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if target_size(line) > TARGET_SIZE_MAX {
        return Err(HeadError::TargetTooLong);
    }
    if bytes.len() > HEAD_SIZE_MAX {
        return Err(HeadError::TooLarge);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    httparse::Request::new(&mut headers).parse(bytes).map(|_| ()).map_err(from_httparse)
}

/// Reads a whole head, empty line included.
pub fn parse(bytes: &[u8]) -> Result<Head<'_>, HeadError> {
    check_partial(bytes)?;
    if has_bare_line_end(bytes) {
        return Err(HeadError::NotHttp);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let whole = matches!(request.parse(bytes), Ok(httparse::Status::Complete(size)) if size == bytes.len());
    let (true, Some(method), Some(target), Some(version)) = (whole, request.method, request.path, request.version)
    else {
        return Err(HeadError::NotHttp);
    };
    let headers: Vec<_> = request.headers.iter().map(|header| (header.name, header.value)).collect();
    let http_1_1 = version == 1;
    let host = host(&headers, http_1_1)?;
    let has_body = has_body(&headers)?;
    let keep_alive = keeps_alive(&headers, http_1_1) && !has_body;
    Ok(Head { method, path: path(target)?, http_1_1, host, headers, keep_alive, has_body })
}

fn from_httparse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::Version => HeadError::HttpVersion,
        _ => HeadError::NotHttp,
    }
}

/// The size of the second word of a request line, whole or not.
fn target_size(line: &[u8]) -> usize {
    line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len)
}

/// A CR or an LF that is not half of a CRLF: what requests are smuggled with (RFC 9112 section 2.2).
fn has_bare_line_end(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|i| match bytes[i] {
        b'\n' => i == 0 || bytes[i - 1] != b'\r',
        b'\r' => bytes.get(i + 1) != Some(&b'\n'),
        _ => false,
    })
}

/// The path of an origin-form or absolute-form target (RFC 9112 section 3.2).
fn path(target: &str) -> Result<&str, HeadError> {
    let target = target.split('?').next().unwrap_or(target);
    let path = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    if !path.starts_with('/') || path.contains('#') {
        return Err(HeadError::Target);
    }
    Ok(path)
}

fn named<'a>(headers: &[(&str, &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
}

fn host<'a>(headers: &[(&str, &'a [u8])], http_1_1: bool) -> Result<&'a str, HeadError> {
    let is_host_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte);
    match named(headers, "host")[..] {
        [host] if !host.is_empty() && host.iter().all(is_host_byte) => {
            std::str::from_utf8(host).map_err(|_| HeadError::Host)
        }
        [] if !http_1_1 => Ok(""),
        _ => Err(HeadError::Host),
    }
}

/// Whether a body follows; two ways to say how long it is are one too many (RFC 9112 section 6.3).
fn has_body(headers: &[(&str, &[u8])]) -> Result<bool, HeadError> {
    let lengths = named(headers, "content-length");
    let encodings = named(headers, "transfer-encoding");
    match (&lengths[..], &encodings[..]) {
        ([], []) => Ok(false),
        ([], [_]) => Ok(true),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            Ok(length.iter().any(|digit| *digit != b'0'))
        }
        _ => Err(HeadError::Framing),
    }
}

fn keeps_alive(headers: &[(&str, &[u8])], http_1_1: bool) -> bool {
    let has = |token: &[u8]| {
        named(headers, "connection")
            .iter()
            .any(|value| value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(token)))
    };
    if http_1_1 { !has(b"close") } else { has(b"keep-alive") && !has(b"close") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_heads() {
        let head = parse(b"GET /a%20b?q=1 HTTP/1.1\r\nHost: h:80\r\nX: y\r\n\r\n").unwrap();
        assert_eq!((head.method, head.path, head.host, head.keep_alive), ("GET", "/a%20b", "h:80", true));
        assert_eq!(parse(b"GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().path, "/x");
        assert_eq!(parse(b"GET http://h?x=/y HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().path, "/");
        assert!(!parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(!parse(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n").unwrap().keep_alive);
        let body = parse(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n").unwrap();
        assert!(body.has_body && !body.keep_alive);
        assert!(!parse(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").unwrap().has_body);
    }

    #[test]
    fn refusals() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(TARGET_SIZE_MAX));
        let large = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(HEAD_SIZE_MAX));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX));
        let cases: &[(&[u8], HeadError)] = &[
            (b"\x16\x03\x01\x02\x00\r\n\r\n", HeadError::NotHttp),
            (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", HeadError::HttpVersion),
            (b"GET / HTTP/1.1\r\n\r\n", HeadError::Host),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::Host),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadError::Host),
            (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", HeadError::Host),
            (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Target),
            (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", HeadError::Target),
            (b"GET / HTTP/1.1\nHost: h\r\n\r\n", HeadError::NotHttp),
            (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", HeadError::NotHttp),
            (b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", HeadError::NotHttp),
            (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", HeadError::Framing),
            (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n", HeadError::Framing),
            (
                b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadError::Framing,
            ),
            (long.as_bytes(), HeadError::TargetTooLong),
            (large.as_bytes(), HeadError::TooLarge),
            (many.as_bytes(), HeadError::TooManyHeaders),
        ];
        for (bytes, error) in cases {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
            assert_eq!(parse(bytes).map(|_| ()), Err(*error), "{shown}");
        }
    }

    #[test]
    fn the_end_is_found_wherever_the_cuts_are() {
        let bytes = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
        for from in 0..=26 {
            assert_eq!(end(bytes, from), Some(27), "{from}");
        }
        assert_eq!(end(&bytes[..26], 0), None);
        assert_eq!(check_partial(b"\x16\x03\x01"), Err(HeadError::NotHttp));
        assert_eq!(check_partial(b"GET / HT"), Ok(()));
    }
}
