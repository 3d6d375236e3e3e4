//! Examples and prohibitions of RFC 3986, 9110 and 9112 that apply to requests. Each row begins with the section.
//! Handshakes (RFC 6455) and authorities have tests of their own.

use super::body::{Body, BodyError, Framing};
use super::coding::{Coding, Codings};
use super::conditions::{Conditions, Selection};
use super::date;
use super::head::{self, Head, HeadError};
use super::range::{self, Part};
use super::representation::Representation;
use crate::limits::Http;

/// Parses a head that has these lines.
fn read(lines: &[&str]) -> Result<Head<'static>, HeadError> {
    let bytes = [&lines.join("\r\n"), "\r\n\r\n"].concat().into_bytes();
    match head::scan(&bytes, 0)? {
        Some(end) => head::parse(bytes[..end].to_vec().leak(), &Http::default()),
        None => Err(HeadError::NotHttp),
    }
}

/// RFC section, the lines of a request; its host, path and query, or the error.
type Case =
    (&'static str, &'static [&'static str], Result<(&'static str, &'static str, Option<&'static str>), HeadError>);

const REQUESTS: &[Case] = &[
    ("9112 2.1", &["GET /hello.txt HTTP/1.1", "Host: www.example.com"], Ok(("www.example.com", "/hello.txt", None))),
    (
        "9110 3.9",
        &["GET /hello.txt HTTP/1.1", "User-Agent: curl/7.64.1", "Host: www.example.com", "Accept-Language: en, mi"],
        Ok(("www.example.com", "/hello.txt", None)),
    ),
    (
        "9112 3.2.1",
        &["GET /where?q=now HTTP/1.1", "Host: www.example.org"],
        Ok(("www.example.org", "/where", Some("q=now"))),
    ),
    (
        "9112 3.2.2",
        &["GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1", "Host: www.example.org"],
        Ok(("www.example.org", "/pub/WWW/TheProject.html", None)),
    ),
    (
        "9112 3.2.3",
        &["CONNECT www.example.com:80 HTTP/1.1", "Host: www.example.com"],
        Ok(("www.example.com", "/", None)),
    ),
    (
        "9110 9.3.6",
        &["CONNECT server.example.com:80 HTTP/1.1", "Host: server.example.com"],
        Ok(("server.example.com", "/", None)),
    ),
    ("9112 3.2.4", &["OPTIONS * HTTP/1.1", "Host: www.example.org:8001"], Ok(("www.example.org:8001", "/", None))),
    (
        "9112 3.2.4",
        &["OPTIONS http://www.example.org:8001 HTTP/1.1", "Host: www.example.org:8001"],
        Ok(("www.example.org:8001", "/", None)),
    ),
    (
        "9112 3.3",
        &["GET /pub/WWW/TheProject.html HTTP/1.1", "Host: www.example.org:8080"],
        Ok(("www.example.org:8080", "/pub/WWW/TheProject.html", None)),
    ),
    ("9110 7.2", &["GET /pub/WWW/ HTTP/1.1", "Host: www.example.org"], Ok(("www.example.org", "/pub/WWW/", None))),
    (
        "9110 7.8",
        &[
            "GET /hello HTTP/1.1",
            "Host: www.example.com",
            "Connection: upgrade",
            "Upgrade: websocket, IRC/6.9, RTA/x11",
        ],
        Ok(("www.example.com", "/hello", None)),
    ),
    (
        "9110 10.1.1",
        &[
            "PUT /somewhere/fun HTTP/1.1",
            "Host: origin.example.com",
            "Content-Type: video/h264",
            "Content-Length: 1234567890987",
            "Expect: 100-continue",
        ],
        Ok(("origin.example.com", "/somewhere/fun", None)),
    ),
    (
        "9110 10.1.4",
        &["GET / HTTP/1.1", "Host: h", "TE: trailers, deflate;q=0.5", "Connection: TE"],
        Ok(("h", "/", None)),
    ),
    ("9110 2.5", &["GET / HTTP/1.2", "Host: h"], Ok(("h", "/", None))),
    ("9110 2.5", &["GET / HTTP/1.9", "Host: h"], Ok(("h", "/", None))),
    ("9110 2.5", &["GET / HTTP/2.0", "Host: h"], Err(HeadError::HttpVersion)),
    ("9112 2.3", &["GET / http/1.1", "Host: h"], Err(HeadError::NotHttp)),
    // Three spellings of one resource.
    (
        "9110 4.2.3",
        &["GET http://example.com:80/~smith/home.html HTTP/1.1", "Host: example.com"],
        Ok(("example.com:80", "/~smith/home.html", None)),
    ),
    (
        "9110 4.2.3",
        &["GET http://EXAMPLE.com/%7Esmith/home.html HTTP/1.1", "Host: example.com:80"],
        Ok(("EXAMPLE.com", "/%7Esmith/home.html", None)),
    ),
    (
        "9110 4.2.3",
        &["GET http://EXAMPLE.com:/%7esmith/home.html HTTP/1.1", "Host: example.com"],
        Ok(("EXAMPLE.com:", "/%7esmith/home.html", None)),
    ),
    ("3986 6.2.3", &["GET http://example.com HTTP/1.1", "Host: example.com:"], Ok(("example.com", "/", None))),
    ("3986 6.2.3", &["GET http://example.com/ HTTP/1.1", "Host: EXAMPLE.COM"], Ok(("example.com", "/", None))),
    ("3986 6.2.3", &["GET http://example.com:80/ HTTP/1.1", "Host: example.com."], Ok(("example.com:80", "/", None))),
    ("3986 6.2.3", &["GET https://example.com/ HTTP/1.1", "Host: example.com:443"], Ok(("example.com", "/", None))),
    ("3986 6.2.3", &["GET https://example.com/ HTTP/1.1", "Host: example.com:80"], Err(HeadError::OtherHost)),
    (
        "3986 3.2.2",
        &["GET http://[2001:DB8::7]/ HTTP/1.1", "Host: [2001:db8:0:0::7]"],
        Ok(("[2001:DB8::7]", "/", None)),
    ),
    ("9112 3.2.2", &["GET http://www.example.org/ HTTP/1.0"], Ok(("www.example.org", "/", None))),
    ("9112 3.2.2", &["GET http://www.example.org/ HTTP/1.1", "Host: www.example.com"], Err(HeadError::OtherHost)),
    ("9112 3.2", &["GET / HTTP/1.1"], Err(HeadError::Host)),
    ("9112 3.2", &["GET / HTTP/1.1", "Host: a", "Host: a"], Err(HeadError::Host)),
    ("9112 3.2", &["GET / HTTP/1.1", "Host: a b"], Err(HeadError::Host)),
    ("9110 4.2.1", &["GET / HTTP/1.1", "Host:"], Err(HeadError::Host)),
    ("9110 4.2.1", &["GET http:///x HTTP/1.1", "Host: h"], Err(HeadError::Target)),
    ("9110 4.2.4", &["GET http://user:word@h/ HTTP/1.1", "Host: h"], Err(HeadError::Target)),
    ("9112 3.2.1", &["GET where?q=now HTTP/1.1", "Host: h"], Err(HeadError::Target)),
    ("9112 3.2.4", &["GET * HTTP/1.1", "Host: h"], Err(HeadError::Target)),
    ("9110 7.1", &["GET /a#b HTTP/1.1", "Host: h"], Err(HeadError::Target)),
    // URIs of other schemes.
    ("3986 1.1.2", &["GET ftp://ftp.is.co.za/rfc/rfc1808.txt HTTP/1.1", "Host: ftp.is.co.za"], Err(HeadError::Target)),
    (
        "3986 1.1.2",
        &["GET ldap://[2001:db8::7]/c=GB?objectClass?one HTTP/1.1", "Host: [2001:db8::7]"],
        Err(HeadError::Target),
    ),
    ("3986 1.1.2", &["GET mailto:John.Doe@example.com HTTP/1.1", "Host: example.com"], Err(HeadError::Target)),
    (
        "3986 1.1.2",
        &["GET urn:oasis:names:specification:docbook:dtd:xml:4.1.2 HTTP/1.1", "Host: h"],
        Err(HeadError::Target),
    ),
    ("6455 3", &["GET ws://h/chat HTTP/1.1", "Host: h"], Err(HeadError::Target)),
    (
        "3986 3",
        &["GET http://example.com:8042/over/there?name=ferret HTTP/1.1", "Host: example.com:8042"],
        Ok(("example.com:8042", "/over/there", Some("name=ferret"))),
    ),
    ("3986 3.4", &["GET /a?b?c/d HTTP/1.1", "Host: h"], Ok(("h", "/a", Some("b?c/d")))),
    // Malformed lines, and values of unknown fields.
    ("9112 2.2", &["GET / HTTP/1.1", " Host: h"], Err(HeadError::NotHttp)),
    ("9112 5.1", &["GET / HTTP/1.1", "Host : h"], Err(HeadError::NotHttp)),
    ("9112 5.2", &["GET / HTTP/1.1", "Host: h", "X: a", " folded"], Err(HeadError::NotHttp)),
    ("9112 5.2", &["GET / HTTP/1.1", "Host: h", "X: a", "\tfolded"], Err(HeadError::NotHttp)),
    ("9112 3", &["GET  / HTTP/1.1", "Host: h"], Err(HeadError::NotHttp)),
    ("9112 3", &["GET / HTTP/1.1 ", "Host: h"], Err(HeadError::NotHttp)),
    ("9112 3", &["GET /", "Host: h"], Err(HeadError::NotHttp)),
    ("9110 5.5", &["GET / HTTP/1.1", "Host: h", "X: \0"], Err(HeadError::NotHttp)),
    ("9110 5.6.4", &["GET / HTTP/1.1", "Host: h", "X: \"quoted \\\"text\\\", with a comma\""], Ok(("h", "/", None))),
    ("9110 5.6.5", &["GET / HTTP/1.1", "Host: h", "X: text (a comment (within))"], Ok(("h", "/", None))),
];

#[test]
fn requests_as_printed() {
    for (section, lines, expected) in REQUESTS {
        let got = read(lines);
        let got = got.as_ref().map(|head| (head.host, head.path, head.query)).map_err(|error| *error);
        assert_eq!(got, *expected, "RFC {section}: {lines:?}");
    }
}

/// Body framing (RFC 9112 section 6). Ambiguous framing is refused, also where the RFC leaves a choice.
#[test]
fn framing_as_printed() {
    for (section, line, expected) in [
        ("9110 8.6", "Content-Length: 3495", Ok(Framing::Sized(3495))),
        ("9110 8.6", "Content-Length: 0", Ok(Framing::Empty)),
        ("9110 8.6", "Content-Length: 42, 42", Err(HeadError::Framing)),
        ("9110 8.6", "Content-Length: 42, 43", Err(HeadError::Framing)),
        ("9110 8.6", "Content-Length: -1", Err(HeadError::Framing)),
        ("9112 6.1", "Transfer-Encoding: chunked", Ok(Framing::Chunked)),
        ("9112 7", "Transfer-Encoding: Chunked", Ok(Framing::Chunked)),
        ("9112 6.1", "Transfer-Encoding: gzip, chunked", Err(HeadError::Coding)),
        ("9112 6.3", "Transfer-Encoding: chunked, gzip", Err(HeadError::Framing)),
        ("9112 6.3", "Transfer-Encoding: gzip", Err(HeadError::Framing)),
        ("9112 7", "Transfer-Encoding: chunked;x=1", Err(HeadError::Framing)),
        ("9112 6.1", "Transfer-Encoding: chunked, chunked", Err(HeadError::Framing)),
    ] {
        let got = read(&["POST / HTTP/1.1", "Host: h", line]).map(|head| head.framing);
        assert_eq!(got, expected, "RFC {section}: {line}");
    }
    let both = read(&["POST / HTTP/1.1", "Host: h", "Content-Length: 6", "Transfer-Encoding: chunked"]);
    assert_eq!(both.map(drop), Err(HeadError::Framing), "RFC 9112 6.1");
    let old = read(&["POST / HTTP/1.0", "Transfer-Encoding: chunked"]);
    assert_eq!(old.map(drop), Err(HeadError::Framing), "RFC 9112 6.1");
}

#[test]
fn chunks_as_described() {
    use BodyError::Malformed;
    for (section, text, expected) in [
        ("9112 7.1", "4\r\nWiki\r\n0\r\n\r\n", Ok(Some(14))),
        ("9112 7.1", "1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n", Ok(Some(37))),
        ("9112 7.1", "0000\r\n\r\n", Ok(Some(8))),
        ("9112 7.1.1", "1;a\r\nx\r\n0;b=c;d=\"e;\\\"f\"\r\n\r\n", Ok(Some(27))),
        ("9112 7.1.1", "1 ; a = b ;c\r\nx\r\n0\r\n\r\n", Ok(Some(22))),
        ("9112 7.1.2", "0\r\nExpires: never\r\nX:\r\n\r\n", Ok(Some(25))),
        ("9112 7.1", "0x1\r\nx\r\n", Err(Malformed)),
        ("9112 7.1", "1 \r\nx\r\n", Err(Malformed)),
        ("9112 7.1", "1\r\nxy\r\n", Err(Malformed)),
        ("9112 7.1", "1\nx\n", Err(Malformed)),
        ("9112 7.1.1", "1;\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;;a\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;a=\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;=b\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;a=\"b\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;a=\"b\"c\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;a b\r\n", Err(Malformed)),
        ("9112 7.1.1", "1;a \r\n", Err(Malformed)),
        ("9112 7.1.2", "0\r\nX: a\r\n folded\r\n\r\n", Err(Malformed)),
    ] {
        let read = Body::new(Framing::Chunked).and_then(|mut body| body.read(text.as_bytes()));
        assert_eq!(read, expected, "RFC {section}: {text:?}");
    }
}

#[test]
fn dates_as_printed() {
    for (section, text, unix_s) in [
        ("9110 5.6.7", "Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
        ("9110 5.6.7", "Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
        ("9110 5.6.7", "Sun Nov  6 08:49:37 1994", Some(784_111_777)),
        ("9110 6.6.1", "Tue, 15 Nov 1994 08:12:31 GMT", Some(784_887_151)),
        ("9110 8.8.2", "Tue, 15 Nov 1994 12:45:26 GMT", Some(784_903_526)),
        ("9110 10.2.3", "Fri, 31 Dec 1999 23:59:59 GMT", Some(946_684_799)),
        ("9110 13.1.3", "Sat, 29 Oct 1994 19:43:31 GMT", Some(783_459_811)),
        ("9110 5.6.7", "sun, 06 nov 1994 08:49:37 gmt", None),
        ("9110 5.6.7", "Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("9110 5.6.7", "Sun, 06 Nov 1994 08:49:37 +0000", None),
        ("9110 5.6.7", "Sun, 06 Nov 1994", None),
    ] {
        assert_eq!(date::parse(text.as_bytes()), unix_s, "RFC {section}: {text}");
    }
}

/// A file with this tag that was modified at the date of section 13.1.3.
fn file(etag: &str) -> Representation {
    Representation { size: 10_000, etag: etag.to_owned(), modified_s: Some(783_459_811), coding: None }
}

#[test]
fn conditions_as_printed() {
    use Selection::*;
    let date = "Sat, 29 Oct 1994 19:43:31 GMT";
    for (section, etag, name, value, expected) in [
        ("9110 13.1.1", "\"xyzzy\"", "If-Match", "\"xyzzy\"", Whole),
        ("9110 13.1.1", "\"c3piozzzz\"", "If-Match", "\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", Whole),
        ("9110 13.1.1", "\"a\"", "If-Match", "\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", PreconditionFailed),
        ("9110 13.1.1", "\"a\"", "If-Match", "*", Whole),
        ("9110 13.1.2", "\"xyzzy\"", "If-None-Match", "\"xyzzy\"", NotModified),
        ("9110 13.1.2", "\"xyzzy\"", "If-None-Match", "W/\"xyzzy\"", NotModified),
        ("9110 13.1.2", "\"r2d2xxxx\"", "If-None-Match", "\"xyzzy\", \"r2d2xxxx\", \"c3piozzzz\"", NotModified),
        ("9110 13.1.2", "\"r2d2xxxx\"", "If-None-Match", "W/\"xyzzy\", W/\"r2d2xxxx\", W/\"c3piozzzz\"", NotModified),
        ("9110 13.1.2", "\"a\"", "If-None-Match", "W/\"xyzzy\", W/\"r2d2xxxx\", W/\"c3piozzzz\"", Whole),
        ("9110 13.1.2", "\"a\"", "If-None-Match", "*", NotModified),
        ("9110 13.1.3", "\"a\"", "If-Modified-Since", date, NotModified),
        ("9110 13.1.4", "\"a\"", "If-Unmodified-Since", date, Whole),
        // Weak and strong comparison.
        ("9110 8.8.3.2", "\"1\"", "If-None-Match", "W/\"1\"", NotModified),
        ("9110 8.8.3.2", "\"1\"", "If-Match", "W/\"1\"", PreconditionFailed),
        ("9110 8.8.3.2", "\"1\"", "If-None-Match", "W/\"2\"", Whole),
        ("9110 8.8.3", "\"\"", "If-None-Match", "\"\"", NotModified),
        ("9110 8.8.3", "\"1\"", "If-None-Match", "w/\"1\"", Whole),
        ("9110 8.8.3", "\"1\"", "If-None-Match", "1", Whole),
    ] {
        let fields = [(name, value.as_bytes())];
        let got = Conditions::read(&fields, false).select(&file(etag), 1_000_000_000);
        assert_eq!(got, expected, "RFC {section}: {name}: {value} for {etag}");
    }
}

/// Ranges of a file of 10000 bytes, as in section 14.1.2. None: the whole file is sent.
#[test]
fn ranges_as_printed() {
    for (section, value, expected) in [
        ("9110 14.1.2", "bytes=0-499", Some(Part::Bytes(0, 499))),
        ("9110 14.1.2", "bytes=500-999", Some(Part::Bytes(500, 999))),
        ("9110 14.1.2", "bytes=-500", Some(Part::Bytes(9500, 9999))),
        ("9110 14.1.2", "bytes=9500-", Some(Part::Bytes(9500, 9999))),
        ("9110 14.1.2", "bytes=0-0,-1", None),
        ("9110 14.1.2", "bytes= 0-0, -2", None),
        ("9110 14.1.2", "bytes= 0-999, 4500-5499, -1000", None),
        ("9110 14.1.2", "bytes=500-600,601-999", None),
        ("9110 14.1.2", "bytes=500-700,601-999", None),
        ("9110 14.1.1", "bytes=0-99999", Some(Part::Bytes(0, 9999))),
        ("9110 14.1.1", "bytes=10000-", Some(Part::Unsatisfiable)),
        ("9110 14.1.1", "bytes=500-499", None),
        ("9110 14.1", "1-2", None),
        ("9110 14.1", "seconds=0-499", None),
        ("9110 14.1", "exampleunit=1.2-4.3", None),
    ] {
        let got = range::parse(value.as_bytes()).map(|range| range.of(10_000));
        assert_eq!(got, expected, "RFC {section}: {value}");
    }
}

#[test]
fn codings_as_printed() {
    let (gzip, both) = (&[Coding::Gzip][..], &[Coding::Brotli, Coding::Gzip][..]);
    for (section, value, expected, takes_plain) in [
        ("9110 12.5.3", "compress, gzip", gzip, true),
        ("9110 12.5.3", "", &[], true),
        ("9110 12.5.3", "*", both, true),
        ("9110 12.5.3", "compress;q=0.5, gzip;q=1.0", gzip, true),
        ("9110 12.5.3", "gzip;q=1.0, identity; q=0.5, *;q=0", gzip, true),
    ] {
        let mut codings = Codings::read(&[("Accept-Encoding", value.as_bytes())]);
        assert_eq!(codings.takes_plain, takes_plain, "RFC {section}: {value}");
        assert_eq!(std::iter::from_fn(|| codings.pop()).collect::<Vec<_>>(), expected, "RFC {section}: {value}");
    }
}

/// Persistent connections (RFC 9112 section 9.3).
#[test]
fn persistence_as_described() {
    for (section, version, line, stays) in [
        ("9112 9.3", "1.1", "X: y", true),
        ("9112 9.3", "1.2", "X: y", true),
        ("9112 9.6", "1.1", "Connection: close", false),
        ("9110 7.6.1", "1.1", "Connection: TE, CLOSE", false),
        ("9110 5.6.1", "1.1", "Connection: , ,close,", false),
        ("9112 9.3", "1.1", "Connection: \"close\"", true),
        ("9112 9.3", "1.0", "X: y", false),
        ("9112 9.3", "1.0", "Connection: keep-alive", true),
        ("9112 C.2.2", "1.0", "Connection: Keep-Alive, close", false),
    ] {
        let got = read(&[&format!("GET / HTTP/{version}"), "Host: h", line]).map(|head| head.keep_alive);
        assert_eq!(got, Ok(stays), "RFC {section}: HTTP/{version} {line}");
    }
}
