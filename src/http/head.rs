//! A request head: parsing and validation into a `Head`.

use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;

use super::authority::Authority;
use super::body::Framing;
use super::fields::{Fields, elements, has_token, values};
use super::target::{self, Target};
use crate::limits::{CONNECTION_OPTIONS_MAX, HEADERS_MAX, Http, TARGET_SIZE_MAX};

type Headers<'a> = [MaybeUninit<httparse::Header<'a>>; HEADERS_MAX.max as usize];

const NO_HEADERS: Headers<'static> = [const { MaybeUninit::uninit() }; HEADERS_MAX.max as usize];

/// A request head. It borrows the bytes that it was parsed from.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path of the request target, still percent-encoded. Begins with "/"; "/" for "*" and for CONNECT.
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: Option<&'a str>,
    /// Whether the target has a path; false for "*" and for CONNECT.
    pub has_path: bool,
    /// HTTP/1.1 or a later 1.x; false for 1.0.
    pub http_1_1: bool,
    /// The authority of the target, else the value of Host; empty where an HTTP/1.0 request has neither.
    pub host: &'a str,
    /// All header fields.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// Whether the connection persists (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client waits for a 100 (Continue) before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
}

/// Why a request is refused. Display is the operator's sentence and the reply's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum HeadError {
    NotHttp,
    Tls,
    NotTls,
    ProxyProtocol,
    UntrustedProxy,
    HttpVersion,
    TargetTooLong,
    /// The limit in bytes.
    TooLarge(u64),
    /// The limit on their number.
    TooManyHeaders(u64),
    Host,
    OtherHost,
    Misdirected,
    OtherHostname,
    Forwarded,
    Target,
    Ambiguous,
    Connection,
    Loop,
    Unforwarded,
    /// The limit in bytes.
    BodyTooLarge(u64),
    Framing,
    Coding,
    Chunks,
    Expectation,
}

impl HeadError {
    /// The HTTP status of the refusal.
    pub fn status(self) -> u16 {
        match self {
            HeadError::BodyTooLarge(_) => 413,
            HeadError::TargetTooLong => 414,
            HeadError::Expectation => 417,
            HeadError::Misdirected | HeadError::OtherHostname => 421,
            HeadError::TooLarge(_) | HeadError::TooManyHeaders(_) => 431,
            HeadError::Coding | HeadError::Unforwarded => 501,
            HeadError::HttpVersion => 505,
            HeadError::Loop => 508,
            HeadError::NotHttp
            | HeadError::Tls
            | HeadError::NotTls
            | HeadError::ProxyProtocol
            | HeadError::UntrustedProxy
            | HeadError::Host
            | HeadError::OtherHost
            | HeadError::Forwarded
            | HeadError::Target
            | HeadError::Ambiguous
            | HeadError::Connection
            | HeadError::Framing
            | HeadError::Chunks => 400,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::NotHttp => f.write_str("this is not an HTTP/1.1 request"),
            HeadError::Tls => {
                f.write_str("this is a TLS handshake on a plain port: use http: and ws:, or write tls for this server")
            }
            HeadError::NotTls => f.write_str("this port speaks TLS: write https:// or wss://"),
            HeadError::ProxyProtocol => f.write_str(
                "this is the PROXY protocol, which is not read here: write proxy for this server, or switch it off in the \
                 proxy (send-proxy, proxy_protocol)",
            ),
            HeadError::UntrustedProxy => {
                f.write_str("this is a PROXY header from an address that is not trusted: write it into trusted")
            }
            HeadError::HttpVersion => f.write_str("only HTTP/1.x is spoken here"),
            HeadError::TargetTooLong => write!(f, "the request target is over {TARGET_SIZE_MAX} bytes"),
            HeadError::TooLarge(size_max) => write!(f, "the request head is over {size_max} bytes"),
            HeadError::TooManyHeaders(headers_max) => write!(f, "the request has over {headers_max} headers"),
            HeadError::Host => f.write_str("a request needs exactly one valid Host header"),
            HeadError::OtherHost => f.write_str("the request target names another host than the Host header"),
            HeadError::Misdirected => f.write_str(
                "the Host header names another server than the TLS handshake did (SNI): use a connection of its own",
            ),
            HeadError::OtherHostname => f.write_str("the Host header names none of the hosts of this server (hostnames)"),
            HeadError::Forwarded => {
                f.write_str("the proxy's own part of the Forwarded header is malformed, so that its client is not known")
            }
            HeadError::Target => f.write_str("the request target is not a path"),
            HeadError::Ambiguous => f.write_str(
                "the path has an empty or a dot segment, an encoded slash or a backslash: servers understand it differently",
            ),
            HeadError::Unforwarded => f.write_str("CONNECT and TRACE are not forwarded"),
            HeadError::Connection => write!(f, "the Connection header has over {CONNECTION_OPTIONS_MAX} options"),
            HeadError::Loop => f.write_str("the request has passed this gateway too often: its upstream leads back to it"),
            HeadError::BodyTooLarge(size_max) => {
                write!(f, "the request body is over {size_max} bytes (limits.body-size)")
            }
            HeadError::Framing => f.write_str("the request's Content-Length or Transfer-Encoding is ambiguous"),
            HeadError::Coding => f.write_str("chunked is the only Transfer-Encoding that is read here"),
            HeadError::Chunks => f.write_str("the chunks of the request's body are malformed"),
            HeadError::Expectation => f.write_str("100-continue is the only expectation that is known here"),
        }
    }
}

/// Returns the size of a head including its empty line; None: it is incomplete. The first `from` bytes were scanned
/// before. Control characters and a bare CR or LF are refused at once, against request smuggling (RFC 9112 section 2.2,
/// RFC 9110 section 5.5).
pub fn scan(bytes: &[u8], from: usize) -> Result<Option<usize>, HeadError> {
    // A CR at the end of the previous bytes is checked together with the byte that follows it.
    let from = from.saturating_sub(1);
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        if (byte >= b' ' && byte != 0x7f) || byte == b'\t' {
            continue;
        }
        let (before, after) = (&bytes[..at], &bytes[at + 1..]);
        match byte {
            b'\r' if after.first().is_none_or(|next| *next == b'\n') => {}
            b'\n' if before.ends_with(b"\r\n\r") => return Ok(Some(at + 1)),
            // An empty first line is not a request line.
            b'\n' if before.len() > 1 && before.ends_with(b"\r") => {}
            _ => return Err(HeadError::NotHttp),
        }
    }
    Ok(None)
}

/// Recognises other protocols by their first bytes. The caller has removed a leading empty line, with which the signature
/// of PROXY protocol version 2 begins.
pub(crate) fn recognize(bytes: &[u8]) -> HeadError {
    const SIGNATURE: &[u8] = b"\r\n\0\r\nQUIT\n";
    // A record of type handshake, in any version of TLS (RFC 8446 section 5.1).
    if bytes.starts_with(b"\x16\x03") {
        HeadError::Tls
    } else if bytes.starts_with(b"PROXY ") || bytes.starts_with(SIGNATURE) {
        HeadError::ProxyProtocol
    } else {
        HeadError::NotHttp
    }
}

/// The Host values and the request target of a refused head, for the log. The query is left out: it may have a token.
pub(crate) fn shown_hosts(bytes: &[u8]) -> (String, String) {
    let is_host = |line: &&[u8]| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:"));
    let lines = bytes.split(|byte| *byte == b'\n').filter(is_host);
    let hosts: Vec<_> = lines.map(|line| String::from_utf8_lossy(line[5..].trim_ascii())).collect();
    let target = words(bytes).nth(1).and_then(|target| target.split(|byte| *byte == b'?').next());
    let target = String::from_utf8_lossy(target.unwrap_or_default());
    (hosts.join(", "), target.into_owned())
}

/// Validates an incomplete head, so that malformed and oversized heads are refused early.
pub fn check_partial(bytes: &[u8], limits: &Http) -> Result<(), HeadError> {
    let mut headers = NO_HEADERS;
    let mut bytes = Cow::Borrowed(bytes);
    if let Some(at) = later_minor_version(&bytes) {
        bytes.to_mut()[at] = b'1';
    }
    read(&mut httparse::Request::new(&mut []), &bytes, &mut headers, limits).map(drop)
}

/// Parses a complete head, whose size `scan` returned. A minor version above 1 is overwritten with 1.
pub fn parse<'a>(bytes: &'a mut [u8], limits: &Http) -> Result<Head<'a>, HeadError> {
    debug_assert_eq!(scan(bytes, 0), Ok(Some(bytes.len())));
    if let Some(at) = later_minor_version(bytes) {
        bytes[at] = b'1';
    }
    let bytes: &'a [u8] = bytes;
    let mut headers = NO_HEADERS;
    let mut request = httparse::Request::new(&mut []);
    let parsed = read(&mut request, bytes, &mut headers, limits)?;
    let whole = matches!(parsed, httparse::Status::Complete(size) if size == bytes.len());
    let (true, Some(method), Some(target), Some(version)) = (whole, request.method, request.path, request.version)
    else {
        return Err(HeadError::NotHttp);
    };
    let headers: Vec<_> = request.headers.iter().map(|header| (header.name, header.value)).collect();
    let http_1_1 = version == 1;
    let Target { authority, path, query } = target::parse(method, target).ok_or(HeadError::Target)?;
    Ok(Head {
        method,
        path,
        query,
        has_path: method != "CONNECT" && target != "*",
        http_1_1,
        host: host(&headers, authority, http_1_1)?,
        keep_alive: keeps_alive(&headers, http_1_1),
        framing: framing(&headers, http_1_1)?,
        expects_continue: expects_continue(&headers, http_1_1)?,
        headers,
    })
}

/// Runs httparse on a complete or incomplete head, and checks the limits.
fn read<'h, 'b>(
    request: &mut httparse::Request<'h, 'b>,
    bytes: &'b [u8],
    headers: &'h mut Headers<'b>,
    limits: &Http,
) -> Result<httparse::Status<usize>, HeadError> {
    let is_too_long = |target: &[u8]| target.len() > TARGET_SIZE_MAX;
    if words(bytes).nth(1).is_some_and(is_too_long) {
        return Err(HeadError::TargetTooLong);
    }
    if bytes.len() as u64 > limits.head_size_max {
        return Err(HeadError::TooLarge(limits.head_size_max));
    }
    let headers_max = limits.headers_max.min(HEADERS_MAX.max);
    // A valid HTTP/1.x version that httparse rejects has trailing bytes: not a version error.
    let is_version =
        |word: &[u8]| matches!(word, [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.', b'0'..=b'9']);
    request.parse_with_uninit_headers(bytes, &mut headers[..headers_max as usize]).map_err(|error| match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders(headers_max),
        httparse::Error::Version if words(bytes).nth(2).is_some_and(is_version) => HeadError::HttpVersion,
        _ => HeadError::NotHttp,
    })
}

/// The offset of the minor digit where the request line has HTTP/1.2 to HTTP/1.9. Such a request is processed as
/// HTTP/1.1, the highest minor version implemented here (RFC 9110 section 2.5).
fn later_minor_version(bytes: &[u8]) -> Option<usize> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let (before, minor) = line.split_at_checked(line.len().checked_sub(1)?)?;
    (before.ends_with(b" HTTP/1.") && matches!(minor, [b'2'..=b'9'])).then_some(before.len())
}

/// The space-separated words of the request line, which may be incomplete.
fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\r').next().unwrap_or_default().split(|byte| *byte == b' ')
}

/// The requested authority. The authority of a target must equal Host: RFC 9112 section 3.2.2 gives the target
/// precedence, but a proxy in front may have used Host.
fn host<'a>(
    fields: &Fields<'a>,
    authority: Option<(&'a str, &'static str)>,
    http_1_1: bool,
) -> Result<&'a str, HeadError> {
    let mut all = values(fields, "host");
    let host = match (all.next(), all.next()) {
        (Some(host), None) => Some(std::str::from_utf8(host).map_err(|_| HeadError::Host)?),
        (None, _) if !http_1_1 => None,
        _ => return Err(HeadError::Host),
    };
    let parsed = host.map(|host| Authority::parse(host).ok_or(HeadError::Host)).transpose()?;
    let Some((target, port)) = authority else { return Ok(host.unwrap_or_default()) };
    let is_same = |host: Authority<'_>| Authority::parse(target).is_some_and(|target| target.is_same(&host, port));
    if parsed.is_none_or(is_same) { Ok(target) } else { Err(HeadError::OtherHost) }
}

/// Body framing. Content-Length together with Transfer-Encoding is refused (RFC 9112 section 6.3).
pub(super) fn framing(fields: &Fields, http_1_1: bool) -> Result<Framing, HeadError> {
    let (mut lengths, mut codings) = (values(fields, "content-length"), values(fields, "transfer-encoding"));
    match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, _, None, _) => Ok(Framing::Empty),
        (Some(length), None, None, _) => match number(length).ok_or(HeadError::Framing)? {
            0 => Ok(Framing::Empty),
            size => Ok(Framing::Sized(size)),
        },
        // HTTP/1.0 has no chunked coding (RFC 9112 section 6.1).
        (None, _, Some(coding), None) if http_1_1 => check_coding(coding).map(|()| Framing::Chunked),
        _ => Err(HeadError::Framing),
    }
}

/// A decimal number without a sign.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // u64's parser accepts a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Accepts chunked alone. Another coding before a final chunked is valid but not implemented (501); without a final
/// chunked the body has no end (400).
fn check_coding(value: &[u8]) -> Result<(), HeadError> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut codings = value.split(|byte| *byte == b',').rev().map(<[u8]>::trim_ascii);
    if !codings.next().is_some_and(is_chunked) {
        return Err(HeadError::Framing);
    }
    if !value.contains(&b',') {
        return Ok(());
    }
    let are_others = codings.all(|coding| !coding.is_empty() && !is_chunked(coding));
    Err(if are_others { HeadError::Coding } else { HeadError::Framing })
}

/// Expect in an HTTP/1.0 request is ignored (RFC 9110 section 10.1.1).
fn expects_continue(fields: &Fields, http_1_1: bool) -> Result<bool, HeadError> {
    let mut expectations = elements(fields, "expect").peekable();
    let is_any = expectations.peek().is_some();
    let is_known = expectations.all(|one| one.eq_ignore_ascii_case(b"100-continue"));
    if is_known { Ok(is_any && http_1_1) } else { Err(HeadError::Expectation) }
}

/// Whether the connection persists (RFC 9112 section 9.3).
pub(super) fn keeps_alive(fields: &Fields, http_1_1: bool) -> bool {
    let has = |token| has_token(fields, "connection", token);
    !has("close") && (http_1_1 || has("keep-alive"))
}

#[cfg(test)]
mod tests;
