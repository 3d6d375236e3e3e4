//! A request head: bytes in, a judged `Head` out. The only file that knows httparse.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::authority::Authority;
use super::body::Framing;
use super::error::HeadError;
use super::fields::{Fields, elements, has_token, values};
use super::target::{self, Target};
use crate::limits::{HEADERS_MAX, Http, TARGET_SIZE_MAX};

type Headers<'a> = [MaybeUninit<httparse::Header<'a>>; HEADERS_MAX.max as usize];

const NO_HEADERS: Headers<'static> = [const { MaybeUninit::uninit() }; HEADERS_MAX.max as usize];

/// A request head within the bytes it was read from.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path of the request target, still percent-encoded. Begins with "/"; "/" for "*" and for CONNECT.
    pub path: &'a str,
    /// The query behind it.
    pub query: Option<&'a str>,
    /// HTTP/1.1 or a later 1.x; false for 1.0.
    pub http_1_1: bool,
    /// The host that is meant: the target's where it names one, else the one Host value; empty where HTTP/1.0 has
    /// neither.
    pub host: &'a str,
    /// All headers.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// Whether the client would stay for a next request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// How the body that follows ends.
    pub framing: Framing,
    /// Whether the client waits for a word before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
}

/// Looks for the end of a head, behind its empty line; `from` bytes were looked at before. None: not yet. A control
/// character, or a CR or LF that is not half of a CRLF, is refused where it stands: that is what requests are
/// smuggled with (RFC 9112 section 2.2, RFC 9110 section 5.5).
pub fn scan(bytes: &[u8], from: usize) -> Result<Option<usize>, HeadError> {
    // A CR at the end of what had come is judged by what follows it.
    let from = from.saturating_sub(1);
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        if (byte >= b' ' && byte != 0x7f) || byte == b'\t' {
            continue;
        }
        let (before, behind) = (&bytes[..at], &bytes[at + 1..]);
        match byte {
            b'\r' if behind.first().is_none_or(|next| *next == b'\n') => {}
            b'\n' if before.ends_with(b"\r\n\r") => return Ok(Some(at + 1)),
            // A line of nothing at the beginning is no request line.
            b'\n' if before.len() > 1 && before.ends_with(b"\r") => {}
            _ => return Err(HeadError::NotHttp),
        }
    }
    Ok(None)
}

/// Names what is no HTTP by its first bytes, where they are known. An empty line before them has been taken away, which is
/// the beginning of the signature of PROXY protocol version 2.
pub fn recognize(bytes: &[u8]) -> HeadError {
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

/// The values of Host in a head that was refused, and the request target, as the log shows them.
pub fn shown_hosts(bytes: &[u8]) -> (String, String) {
    let is_host = |line: &&[u8]| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:"));
    let lines = bytes.split(|byte| *byte == b'\n').filter(is_host);
    let hosts: Vec<_> = lines.map(|line| String::from_utf8_lossy(line[5..].trim_ascii())).collect();
    let target = String::from_utf8_lossy(words(bytes).nth(1).unwrap_or_default());
    (hosts.join(", "), target.into_owned())
}

/// Judges what has come of a head that is not whole: garbage and excess are refused at once.
pub fn check_partial(bytes: &[u8], limits: &Http) -> Result<(), HeadError> {
    let mut headers = NO_HEADERS;
    let mut bytes = Cow::Borrowed(bytes);
    if let Some(at) = later_minor_version(&bytes) {
        bytes.to_mut()[at] = b'1';
    }
    read(&mut httparse::Request::new(&mut []), &bytes, &mut headers, limits).map(drop)
}

/// Reads a whole head of which `scan` found the end, empty line included. The version's minor digit is overwritten
/// where it is above 1.
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
    let Target { authority, path, query } = target::parse(method, target)?;
    Ok(Head {
        method,
        path,
        query,
        http_1_1,
        host: host(&headers, authority, http_1_1)?,
        keep_alive: keeps_alive(&headers, http_1_1),
        framing: framing(&headers, http_1_1)?,
        expects_continue: expects_continue(&headers, http_1_1)?,
        headers,
    })
}

/// Reads a head, whole or not, into places for headers.
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
    let most = limits.headers_max.min(HEADERS_MAX.max);
    // HTTP/1.x that is not taken has something behind it.
    let is_version =
        |word: &[u8]| matches!(word, [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.', b'0'..=b'9']);
    request.parse_with_uninit_headers(bytes, &mut headers[..most as usize]).map_err(|error| match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders(most),
        httparse::Error::Version if words(bytes).nth(2).is_some_and(is_version) => HeadError::HttpVersion,
        _ => HeadError::NotHttp,
    })
}

/// Where the minor digit of HTTP/1.2 to HTTP/1.9 stands in a request line. Such a request is served as HTTP/1.1, the
/// highest minor version that is known here (RFC 9110 section 2.5).
fn later_minor_version(bytes: &[u8]) -> Option<usize> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let (before, minor) = line.split_at_checked(line.len().checked_sub(1)?)?;
    (before.ends_with(b" HTTP/1.") && matches!(minor, [b'2'..=b'9'])).then_some(before.len())
}

/// The words of the request line, whole or not.
fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\r').next().unwrap_or_default().split(|byte| *byte == b' ')
}

/// The host that is meant. A target that names one must name the same as Host does: RFC 9112 section 3.2.2 has the
/// target win, but who else read the request on its way may have believed the other.
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
    let meant = host.map(|host| Authority::parse(host).ok_or(HeadError::Host)).transpose()?;
    let Some((named, port)) = authority else { return Ok(host.unwrap_or_default()) };
    let is_same = |meant: Authority<'_>| Authority::parse(named).is_some_and(|named| named.is_same(&meant, port));
    if meant.is_none_or(is_same) { Ok(named) } else { Err(HeadError::OtherHost) }
}

/// Which body follows; two ways to say how long it is are one too many (RFC 9112 section 6.3).
fn framing(fields: &Fields, http_1_1: bool) -> Result<Framing, HeadError> {
    let (mut lengths, mut codings) = (values(fields, "content-length"), values(fields, "transfer-encoding"));
    match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, _, None, _) => Ok(Framing::Empty),
        (Some(length), None, None, _) => match number(length).ok_or(HeadError::Framing)? {
            0 => Ok(Framing::Empty),
            size => Ok(Framing::Sized(size)),
        },
        // HTTP/1.0 knows no chunks (RFC 9112 section 6.1).
        (None, _, Some(coding), None) if http_1_1 => check_coding(coding).map(|()| Framing::Chunked),
        _ => Err(HeadError::Framing),
    }
}

/// A number of digits alone.
fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    // Else a plus sign would do.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Chunked by itself is read. Behind another coding it is well-formed and unknown; anything else has no end.
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

/// HTTP/1.0 knows no 100 (RFC 9110 section 10.1.1).
fn expects_continue(fields: &Fields, http_1_1: bool) -> Result<bool, HeadError> {
    let mut expectations = elements(fields, "expect").peekable();
    let is_any = expectations.peek().is_some();
    let is_known = expectations.all(|one| one.eq_ignore_ascii_case(b"100-continue"));
    if is_known { Ok(is_any && http_1_1) } else { Err(HeadError::Expectation) }
}

fn keeps_alive(fields: &Fields, http_1_1: bool) -> bool {
    let has = |token| has_token(fields, "connection", token);
    !has("close") && (http_1_1 || has("keep-alive"))
}

#[cfg(test)]
mod tests;
