//! The head of an HTTP server's reply to a forwarded request: parsing and validation into a `ResponseHead`. As strict
//! as for requests: a reply that two readers could understand differently is refused.

use std::fmt;
use std::mem::MaybeUninit;

use super::body::Framing;
use super::fields::{Fields, elements, values};
use super::head::{self, HeadError};
use crate::limits::{ANSWER_HEAD_SIZE_MAX, ANSWER_HEADERS_MAX, CONNECTION_OPTIONS_MAX};

/// The head of a reply. It borrows the bytes that it was parsed from.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// The status, from 100 to 599.
    pub status: u16,
    /// The reason phrase, which may be empty and may have bytes beyond ASCII.
    pub reason: &'a [u8],
    /// HTTP/1.1; false for 1.0.
    pub http_1_1: bool,
    /// All header fields. Of a reply without a body, Content-Length may be among them.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// How the body is delimited.
    pub framing: ResponseFraming,
    /// Whether the connection persists after this reply (RFC 9112 section 9.3). False for UntilClose, and for a reply
    /// that has no body and announces one.
    pub keep_alive: bool,
    /// Seconds of idleness after which the server closes the connection (Keep-Alive: timeout=N).
    pub keep_alive_s: Option<u64>,
}

/// How a reply's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseFraming {
    /// No body: after HEAD, with 1xx, 204 or 304, or with a Content-Length of 0.
    Empty,
    /// By Content-Length, which is not 0.
    Sized(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Why a reply is refused. Display is the operator's sentence. The connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ResponseError {
    NotHttp,
    Tls,
    HttpVersion,
    Status,
    TooLarge,
    TooManyHeaders,
    Header,
    Framing,
    Coding,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseError::NotHttp => f.write_str("the reply is not HTTP/1.1"),
            ResponseError::Tls => f.write_str("the reply is TLS: the node expects https or wss"),
            ResponseError::HttpVersion => f.write_str("the reply has a version of HTTP other than 1.1 and 1.0"),
            ResponseError::Status => f.write_str("the reply's status is not from 100 to 599"),
            ResponseError::TooLarge => write!(f, "the reply's head is over {ANSWER_HEAD_SIZE_MAX} bytes"),
            ResponseError::TooManyHeaders => write!(f, "the reply has over {ANSWER_HEADERS_MAX} headers"),
            ResponseError::Header => f.write_str("the reply has a malformed header"),
            ResponseError::Framing => f.write_str("the reply's Content-Length or Transfer-Encoding is ambiguous"),
            ResponseError::Coding => f.write_str("the reply has a Transfer-Encoding other than chunked"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// Returns the size of a head including its empty line; None: it is incomplete. The first `from` bytes were scanned
/// before. What is no reply is refused as soon as that is seen.
pub fn scan(bytes: &[u8], from: usize) -> Result<Option<usize>, ResponseError> {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let size = bytes.len().min(BEGINNING.len());
    if bytes[..size] != BEGINNING[..size] {
        return Err(recognize(bytes));
    }
    let end = head::scan(bytes, from).map_err(|_| ResponseError::Header)?;
    // One more byte would be needed at least.
    let is_over = end.map_or(bytes.len() as u64 >= ANSWER_HEAD_SIZE_MAX, |end| end as u64 > ANSWER_HEAD_SIZE_MAX);
    if is_over { Err(ResponseError::TooLarge) } else { Ok(end) }
}

/// Names what is not a reply of HTTP/1.x by its first bytes.
fn recognize(bytes: &[u8]) -> ResponseError {
    match bytes {
        // A record of type alert or handshake, in any version of TLS (RFC 8446 section 5.1).
        [0x15 | 0x16, ..] => ResponseError::Tls,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => ResponseError::HttpVersion,
        _ => ResponseError::NotHttp,
    }
}

/// Parses a complete head, whose size `scan` returned. `is_head`: it is the reply to a HEAD request.
pub fn parse(bytes: &[u8], is_head: bool) -> Result<ResponseHead<'_>, ResponseError> {
    debug_assert_eq!(scan(bytes, 0), Ok(Some(bytes.len())));
    let mut headers = [const { MaybeUninit::uninit() }; ANSWER_HEADERS_MAX as usize];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, bytes, &mut headers)
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => ResponseError::TooManyHeaders,
            httparse::Error::HeaderName | httparse::Error::HeaderValue => ResponseError::Header,
            httparse::Error::Version => ResponseError::HttpVersion,
            httparse::Error::Status => ResponseError::Status,
            _ => ResponseError::NotHttp,
        })?;
    let whole = matches!(parsed, httparse::Status::Complete(size) if size == bytes.len());
    let (true, Some(status), Some(version)) = (whole, response.code, response.version) else {
        return Err(ResponseError::NotHttp);
    };
    if !(100..=599).contains(&status) {
        return Err(ResponseError::Status);
    }
    let headers: Vec<_> = response.headers.iter().map(|header| (header.name, header.value)).collect();
    if elements(&headers, "connection").nth(CONNECTION_OPTIONS_MAX).is_some() {
        return Err(ResponseError::Header);
    }
    let http_1_1 = version == 1;
    let announced = framing(&headers, http_1_1)?;
    let framing = if is_head || has_no_body(status) { ResponseFraming::Empty } else { announced };
    // Content-Length of a reply to HEAD and of a 304 is that of another reply (RFC 9110 section 8.6). With 1xx and 204
    // it is not allowed, and a body may follow.
    let is_in_doubt = !is_head
        && has_no_body(status)
        && status != 304
        && matches!(announced, ResponseFraming::Sized(_) | ResponseFraming::Chunked);
    Ok(ResponseHead {
        status,
        reason: reason(bytes),
        http_1_1,
        framing,
        keep_alive: framing != ResponseFraming::UntilClose && !is_in_doubt && head::keeps_alive(&headers, http_1_1),
        keep_alive_s: keep_alive_s(&headers),
        headers,
    })
}

/// Whether a reply of this status never has a body (RFC 9112 section 6.3).
fn has_no_body(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// The rest of the status line, after "HTTP/1.1 200 ".
fn reason(bytes: &[u8]) -> &[u8] {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.get(13..).unwrap_or_default()
}

/// The framing that the header fields announce. It must be unambiguous even if there is no body.
fn framing(fields: &Fields, http_1_1: bool) -> Result<ResponseFraming, ResponseError> {
    let is_absent = |name| values(fields, name).next().is_none();
    match head::framing(fields, http_1_1) {
        Ok(Framing::Empty) if is_absent("content-length") => Ok(ResponseFraming::UntilClose),
        Ok(Framing::Empty) => Ok(ResponseFraming::Empty),
        Ok(Framing::Sized(size)) => Ok(ResponseFraming::Sized(size)),
        Ok(Framing::Chunked) => Ok(ResponseFraming::Chunked),
        Err(HeadError::Coding) => Err(ResponseError::Coding),
        Err(_) => Err(ResponseError::Framing),
    }
}

/// The timeout of Keep-Alive, the smallest if there are several. One that is not a number is ignored.
fn keep_alive_s(fields: &Fields) -> Option<u64> {
    let timeout = |parameter: &[u8]| {
        let (name, value) = parameter.split_at_checked("timeout=".len())?;
        name.eq_ignore_ascii_case(b"timeout=").then(|| head::number(value))?
    };
    elements(fields, "keep-alive").filter_map(timeout).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResponseFraming::*;

    /// Scans for the end of a head that comes in these pieces. The error of an incomplete head is NotHttp.
    fn end_of(pieces: &[&[u8]]) -> Result<usize, ResponseError> {
        let (mut bytes, mut scanned) = (Vec::new(), 0);
        for piece in pieces {
            bytes.extend_from_slice(piece);
            if let Some(end) = scan(&bytes, scanned)? {
                return Ok(end);
            }
            scanned = bytes.len();
        }
        Err(ResponseError::NotHttp)
    }

    /// Reads a head that is cut everywhere.
    fn read(bytes: &[u8], is_head: bool) -> Result<ResponseHead<'_>, ResponseError> {
        let whole = end_of(&[bytes]);
        assert_eq!(end_of(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        if bytes.len() < 1_000 {
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(end_of(&[first, second]), whole, "cut at {cut}");
            }
        }
        parse(&bytes[..whole?], is_head)
    }

    #[test]
    fn good_heads() {
        let head = read(b"HTTP/1.1 404 Not  Found\xe4\r\nX-A:\tb \r\nx-a: \xff\r\n\r\nbody", false).unwrap();
        assert_eq!((head.status, head.reason, head.http_1_1), (404, &b"Not  Found\xe4"[..], true));
        assert_eq!(head.headers, [("X-A", &b"b"[..]), ("x-a", b"\xff")]);
        assert_eq!((head.framing, head.keep_alive, head.keep_alive_s), (UntilClose, false, None));
        for line in ["HTTP/1.0 200", "HTTP/1.0 200 "] {
            let text = format!("{line}\r\n\r\n");
            let head = read(text.as_bytes(), false).unwrap();
            assert_eq!((head.status, head.reason, head.http_1_1), (200, &b""[..], false), "{line:?}");
            assert!(head.headers.is_empty());
        }
    }

    #[test]
    fn framing_and_response_smuggling() {
        let digits = u64::MAX.to_string();
        let largest = format!("Content-Length: {digits}\r\n");
        let overflow = format!("Content-Length: {digits}0\r\n");
        let cases: &[(&str, Result<ResponseFraming, ResponseError>)] = &[
            ("", Ok(UntilClose)),
            ("Content-Length: 0\r\n", Ok(Empty)),
            ("content-length:  3\t\r\n", Ok(Sized(3))),
            (&largest, Ok(Sized(u64::MAX))),
            ("Transfer-Encoding: chunked\r\n", Ok(Chunked)),
            ("transfer-encoding: Chunked\r\n", Ok(Chunked)),
            (&overflow, Err(ResponseError::Framing)),
            ("Content-Length:\r\n", Err(ResponseError::Framing)),
            ("Content-Length: +3\r\n", Err(ResponseError::Framing)),
            ("Content-Length: -3\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 0x3\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 3 3\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 3, 3\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 3,\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 3\r\nContent-Length: 3\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 3\r\ncontent-length: 4\r\n", Err(ResponseError::Framing)),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: chunked, gzip\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: gzip\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: identity\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: xchunked\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: chunked;x=1\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding:\r\n", Err(ResponseError::Framing)),
            ("Transfer-Encoding: \x0bchunked\r\n", Err(ResponseError::Header)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(ResponseError::Coding)),
        ];
        for (lines, expected) in cases {
            for status in [200, 205, 206, 301, 404, 500] {
                let text = format!("HTTP/1.1 {status} x\r\n{lines}\r\n");
                assert_eq!(read(text.as_bytes(), false).map(|head| head.framing), *expected, "{text:?}");
            }
            // An ambiguous head is refused even where there is no body.
            for (status, is_head) in [(200, true), (100, false), (101, false), (103, false), (204, false), (304, false)]
            {
                let text = format!("HTTP/1.1 {status} x\r\n{lines}\r\n");
                let read = read(text.as_bytes(), is_head).map(|head| head.framing);
                assert_eq!(read, expected.map(|_| Empty), "{text:?}");
            }
        }
        for (lines, expected) in
            [("Content-Length: 3\r\n", Ok(Sized(3))), ("Transfer-Encoding: chunked\r\n", Err(ResponseError::Framing))]
        {
            let text = format!("HTTP/1.0 200 x\r\n{lines}\r\n");
            assert_eq!(read(text.as_bytes(), false).map(|head| head.framing), expected, "{text:?}");
        }
    }

    #[test]
    fn persistence() {
        let sized = "Content-Length: 3\r\n";
        for (line, is_head, lines, stays) in [
            ("1.1 200", false, sized, true),
            ("1.1 200", false, "Content-Length: 3\r\nConnection: x, Close\r\n", false),
            ("1.1 200", false, "Content-Length: 3\r\nConnection: x\r\nConnection: close\r\n", false),
            ("1.1 200", false, "Transfer-Encoding: chunked\r\n", true),
            ("1.0 200", false, sized, false),
            ("1.0 200", false, "Content-Length: 3\r\nConnection: Keep-Alive\r\n", true),
            ("1.0 200", false, "Content-Length: 3\r\nConnection: keep-alive, close\r\n", false),
            // The end of the connection is the end of the body.
            ("1.1 200", false, "Connection: keep-alive\r\n", false),
            ("1.1 200", true, "", true),
            ("1.1 200", true, sized, true),
            ("1.1 204", false, "", true),
            ("1.1 204", false, "Content-Length: 0\r\n", true),
            ("1.1 304", false, "", true),
            ("1.1 304", false, sized, true),
            // A body could follow although there must be none.
            ("1.1 204", false, sized, false),
            ("1.1 204", false, "Transfer-Encoding: chunked\r\n", false),
            ("1.1 100", false, sized, false),
        ] {
            let text = format!("HTTP/{line} x\r\n{lines}\r\n");
            assert_eq!(read(text.as_bytes(), is_head).unwrap().keep_alive, stays, "{text:?}");
        }
        for (value, expected) in [
            ("timeout=5", Some(5)),
            ("max=100, Timeout=5", Some(5)),
            ("timeout=5, timeout=3", Some(3)),
            ("timeout=0", Some(0)),
            ("timeout", None),
            ("timeout=", None),
            ("timeout=-1", None),
            ("timeout=x", None),
            ("\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}", None),
            ("timeout=99999999999999999999", None),
        ] {
            let text = format!("HTTP/1.1 204 x\r\nKeep-Alive: {value}\r\n\r\n");
            assert_eq!(read(text.as_bytes(), false).unwrap().keep_alive_s, expected, "{value:?}");
        }
    }

    #[test]
    fn bad_heads() {
        use ResponseError::*;
        let long = format!("HTTP/1.1 200 x\r\nX: {}\r\n\r\n", "x".repeat(ANSWER_HEAD_SIZE_MAX as usize));
        let many = format!("HTTP/1.1 200 x\r\n{}\r\n", "X: y\r\n".repeat(ANSWER_HEADERS_MAX as usize + 1));
        for (text, expected) in [
            ("<html>", NotHttp),
            ("ICY 200 OK\r\n\r\n", NotHttp),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotHttp),
            ("\0\0\x12\x04\0", NotHttp),
            ("\r\nHTTP/1.1 200 x\r\n\r\n", NotHttp),
            (" HTTP/1.1 200 x\r\n\r\n", NotHttp),
            ("http/1.1 200 x\r\n\r\n", NotHttp),
            ("SSH-2.0-x\r\n", NotHttp),
            ("\x15\x03\x01", Tls),
            ("HTTP/2 200\r\n\r\n", HttpVersion),
            ("HTTP/0.9 200\r\n\r\n", HttpVersion),
            ("HTTP/1.2 200 x\r\n\r\n", HttpVersion),
            ("HTTP/1.10 200 x\r\n\r\n", HttpVersion),
            ("HTTP/1.1 099 x\r\n\r\n", Status),
            ("HTTP/1.1 600 x\r\n\r\n", Status),
            ("HTTP/1.1 20 x\r\n\r\n", Status),
            ("HTTP/1.1 2000 x\r\n\r\n", Status),
            ("HTTP/1.1 +20 x\r\n\r\n", Status),
            ("HTTP/1.1  200 x\r\n\r\n", Status),
            ("HTTP/1.1\t200 x\r\n\r\n", HttpVersion),
            ("HTTP/1.1 200\tx\r\n\r\n", Status),
            ("HTTP/1.1 200 x\n\n", Header),
            ("HTTP/1.1 200 x\rX: y\r\n\r\n", Header),
            ("HTTP/1.1 200 x\0\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX: y\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX: y\rz\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX: y\0\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX: y\x7f\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX: y\r\n folded\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\n X: y\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX : y\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX\t: y\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\n: y\r\n\r\n", Header),
            ("HTTP/1.1 200 x\r\nX\u{fc}: y\r\n\r\n", Header),
            (&long, TooLarge),
            (&long[..ANSWER_HEAD_SIZE_MAX as usize], TooLarge),
            (&many, TooManyHeaders),
        ] {
            let shown = &text[..text.len().min(60)];
            let error = read(text.as_bytes(), false).expect_err(shown);
            assert_eq!(error, expected, "{shown:?}");
            assert!(error.to_string().starts_with("the reply"));
        }
        let most = "X: y\r\n".repeat(ANSWER_HEADERS_MAX as usize);
        let size = ANSWER_HEAD_SIZE_MAX as usize - "HTTP/1.1 200 \r\n\r\n".len() - most.len();
        let text = format!("HTTP/1.1 200 {}\r\n{most}\r\n", "x".repeat(size));
        assert_eq!(read(text.as_bytes(), false).unwrap().headers.len() as u64, ANSWER_HEADERS_MAX);
    }
}
