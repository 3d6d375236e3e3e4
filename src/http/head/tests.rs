//! Valid heads, and the refusal of each kind of invalid head.

use super::*;

const HEAD_SIZE_MAX: u64 = 1024;

/// Limits that differ from the defaults.
fn limits() -> Http {
    Http { head_size_max: HEAD_SIZE_MAX, headers_max: 9, ..Http::default() }
}

/// Scans for the end of the head, then parses the head, as the exchange does.
fn read(bytes: &[u8]) -> Result<Head<'static>, HeadError> {
    match scan(bytes, 0)? {
        Some(end) => parse(bytes[..end].to_vec().leak(), &limits()),
        None => Err(check_partial(bytes, &limits()).err().unwrap_or(HeadError::NotHttp)),
    }
}

/// A GET with these header lines after Host.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

#[test]
fn good_heads() {
    let head = read(b"GET /a%20b?q=1 HTTP/1.1\r\nHost: h:80\r\nX: y\r\n\r\n").unwrap();
    assert_eq!((head.method, head.path, head.query), ("GET", "/a%20b", Some("q=1")));
    assert_eq!((head.host, head.keep_alive, head.framing), ("h:80", true, Framing::Empty));
    let head = read(b"GET HTTP://H:80/x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((head.host, head.path), ("H:80", "/x"));
    let head = read(b"get / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((head.method, head.host, head.http_1_1, head.keep_alive), ("get", "", false, false));
    assert_eq!(read(b"GET http://h/ HTTP/1.0\r\n\r\n").unwrap().host, "h");
    // A value may have bytes beyond ASCII (obs-text, RFC 9110 section 5.5).
    assert_eq!(read(b"GET / HTTP/1.1\r\nHost:\th \r\nX: a\tb\xff\r\n\r\n").unwrap().headers[1].1, b"a\tb\xff");
}

#[test]
fn persistence() {
    for (version, lines, stays) in [
        ("1.1", "", true),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n");
        assert_eq!(read(text.as_bytes()).unwrap().keep_alive, stays, "{text:?}");
    }
}

#[test]
fn framing_and_request_smuggling() {
    let digits = u64::MAX.to_string();
    let largest = format!("Content-Length: {digits}\r\n");
    let overflow = format!("Content-Length: {digits}0\r\n");
    let cases: &[(&str, Result<Framing, HeadError>)] = &[
        ("", Ok(Framing::Empty)),
        ("Content-Length: 0\r\n", Ok(Framing::Empty)),
        ("content-length:  3\t\r\n", Ok(Framing::Sized(3))),
        ("Content-Length: 003\r\n", Ok(Framing::Sized(3))),
        (&largest, Ok(Framing::Sized(u64::MAX))),
        (&overflow, Err(HeadError::Framing)),
        ("Content-Length: 18446744073709551616\r\n", Err(HeadError::Framing)),
        ("Content-Length:\r\n", Err(HeadError::Framing)),
        ("Content-Length: +3\r\n", Err(HeadError::Framing)),
        ("Content-Length: -3\r\n", Err(HeadError::Framing)),
        ("Content-Length: 0x3\r\n", Err(HeadError::Framing)),
        ("Content-Length: 3 3\r\n", Err(HeadError::Framing)),
        ("Content-Length: 3, 3\r\n", Err(HeadError::Framing)),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", Err(HeadError::Framing)),
        ("Content-Length: 3\r\ncontent-length: 4\r\n", Err(HeadError::Framing)),
        ("Content-Length: \u{663}\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
        ("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", Err(HeadError::Framing)),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::Framing)),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: chunked, gzip, chunked\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: chunked, identity\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(HeadError::Coding)),
        ("Transfer-Encoding: , chunked\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: gzip\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: identity\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: xchunked\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: chunked;q=1\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding: \"chunked\"\r\n", Err(HeadError::Framing)),
        ("Transfer-Encoding:\r\n", Err(HeadError::Framing)),
    ];
    for (lines, expected) in cases {
        assert_eq!(read(with(lines).as_bytes()).map(|head| head.framing), *expected, "{lines:?}");
    }
    let old = with("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(read(old.as_bytes()).map(|head| head.framing), Err(HeadError::Framing));
}

#[test]
fn expectations() {
    for (lines, expected) in [
        ("", Ok(false)),
        ("Expect: 100-Continue\r\n", Ok(true)),
        ("Expect: 100-continue, 100-continue\r\n", Ok(true)),
        ("Expect: 200-ok\r\n", Err(HeadError::Expectation)),
        ("Expect: 100-continue\r\nExpect: x\r\n", Err(HeadError::Expectation)),
        ("Expect: 100-continue, x\r\n", Err(HeadError::Expectation)),
        ("Expect: \"100-continue\"\r\n", Err(HeadError::Expectation)),
        // Empty elements of a list are skipped (RFC 9110 section 5.6.1.2).
        ("Expect: , 100-continue ,\r\n", Ok(true)),
        ("Expect:\r\n", Ok(false)),
    ] {
        assert_eq!(read(with(lines).as_bytes()).map(|head| head.expects_continue), expected, "{lines:?}");
    }
}

#[test]
fn invalid_request_lines() {
    use HeadError::*;
    let long = format!("GET /{} HTTP/1.1", "a".repeat(TARGET_SIZE_MAX));
    let cases: &[(&str, HeadError)] = &[
        ("GARBAGE", NotHttp),
        ("GET /", NotHttp),
        ("GET  / HTTP/1.1", NotHttp),
        ("GET /  HTTP/1.1", NotHttp),
        ("GET / HTTP/1.1 ", NotHttp),
        (" GET / HTTP/1.1", NotHttp),
        ("GET\t/ HTTP/1.1", NotHttp),
        ("GET /\tHTTP/1.1", NotHttp),
        ("GET / a HTTP/1.1", NotHttp),
        ("G\u{e9}T / HTTP/1.1", NotHttp),
        ("G(T / HTTP/1.1", NotHttp),
        ("GET / http/1.1", NotHttp),
        ("GET / HTTP/1.10", NotHttp),
        ("GET / HTTP/01.1", NotHttp),
        ("GET / HTTP/11", NotHttp),
        ("GET / HTTP/1,1", NotHttp),
        ("GET / HTTP/x.y", NotHttp),
        ("GET / ICY/1.1", NotHttp),
        ("GET / HTTP/0.9", HttpVersion),
        ("GET / HTTP/1.12", NotHttp),
        ("GET / HTTP/1.2 ", NotHttp),
        ("GET / HTTP/0.2", HttpVersion),
        ("GET / HTTP/2.0", HttpVersion),
        ("GET / HTTP/2.2", HttpVersion),
        ("PRI * HTTP/2.0", HttpVersion),
        ("GET * HTTP/1.1", Target),
        ("CONNECT h HTTP/1.1", Target),
        ("GET /#x HTTP/1.1", Target),
        ("GET /?x#y HTTP/1.1", Target),
        ("GET /caf\u{e9} HTTP/1.1", Target),
        ("GET http://user@h/ HTTP/1.1", Target),
        ("GET http:/// HTTP/1.1", Target),
        ("GET http://other/ HTTP/1.1", OtherHost),
        ("GET http://h:8080/ HTTP/1.1", OtherHost),
        (&long, TargetTooLong),
    ];
    for (line, error) in cases {
        let text = format!("{line}\r\nHost: h\r\n\r\n");
        assert_eq!(read(text.as_bytes()).map(drop), Err(*error), "{:?}", &line[..line.len().min(60)]);
    }
}

#[test]
fn invalid_headers() {
    use HeadError::*;
    let large = with(&format!("X: {}\r\n", "a".repeat(HEAD_SIZE_MAX as usize)));
    let many = with(&"X: y\r\n".repeat(9));
    let cases: &[(&[u8], HeadError)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", Host),
        (b"GET http://h/ HTTP/1.1\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Host),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Host),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\tfolded\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\xe9: z\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7f\r\n\r\n", NotHttp),
        (large.as_bytes(), TooLarge(HEAD_SIZE_MAX)),
        (many.as_bytes(), TooManyHeaders(9)),
    ];
    for (bytes, error) in cases {
        assert_eq!(read(bytes).map(drop), Err(*error), "{}", bytes[..bytes.len().min(80)].escape_ascii());
    }
}

/// A bare CR, a bare LF and other control characters are refused as soon as they are scanned.
#[test]
fn control_characters_are_refused_at_once() {
    let good = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for at in 0..good.len() {
        for byte in (0..0x20).chain([0x7f]).filter(|byte| *byte != b'\t') {
            let mut bytes = good.to_vec();
            bytes.insert(at, byte);
            if bytes.starts_with(good) {
                continue;
            }
            assert_eq!(scan(&bytes, 0), Err(HeadError::NotHttp), "{}", bytes.escape_ascii());
            assert_eq!(scan_in_steps(&bytes), Err(HeadError::NotHttp), "{}", bytes.escape_ascii());
        }
    }
    assert_eq!(scan(b"\r\nGET", 0), Err(HeadError::NotHttp));
}

/// Scans byte by byte.
fn scan_in_steps(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    for size in 1..=bytes.len() {
        if let Some(end) = scan(&bytes[..size], size - 1)? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

#[test]
fn the_end_is_found_wherever_the_bytes_are_cut() {
    let bytes = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest\n";
    for from in 0..=26 {
        assert_eq!(scan(&bytes[..from], 0), Ok(None), "{from}");
        assert_eq!(scan(bytes, from), Ok(Some(27)), "{from}");
    }
    assert_eq!(scan_in_steps(bytes), Ok(Some(27)));
    for (part, expected) in [
        (&b"\x16\x03\x01"[..], Err(HeadError::NotHttp)),
        (b"GET / HT", Ok(())),
        (b"GET / HTTP/1.2", Ok(())),
        (b"GET / HTTP/1.9\r\nHost: ", Ok(())),
        (b"GET / HTTP/1.2x", Err(HeadError::NotHttp)),
        (b"GET / HTTP/2.0", Err(HeadError::HttpVersion)),
        (b"{}", Err(HeadError::NotHttp)),
    ] {
        assert_eq!(check_partial(part, &limits()), expected, "{}", part.escape_ascii());
    }
}
