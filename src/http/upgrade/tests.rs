//! Handshakes: the examples of RFC 6455, invalid requests, and origins.

use super::*;

const GOOD: [(&str, &[u8]); 5] = [
    ("Host", b"gate.example:8080"),
    ("Upgrade", b"WebSocket"),
    ("Connection", b"keep-alive, Upgrade"),
    ("Sec-WebSocket-Version", b"13"),
    ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
];

fn with<'a>(name: &'a str, value: &'a [u8]) -> Vec<(&'a str, &'a [u8])> {
    let mut headers: Vec<_> = GOOD.iter().filter(|(other, _)| *other != name).copied().collect();
    headers.push((name, value));
    headers
}

fn judge(headers: &Fields) -> Result<Upgrade, UpgradeError> {
    check("GET", true, "gate.example:8080", None, headers, &Origins::Same)
}

/// The example of RFC 6455 section 1.2. Its Origin is not that of its Host.
#[test]
fn the_handshake_of_the_rfc() {
    let headers: [(&str, &[u8]); 7] = [
        ("Host", b"server.example.com"),
        ("Upgrade", b"websocket"),
        ("Connection", b"Upgrade"),
        ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", b"http://example.com"),
        ("Sec-WebSocket-Protocol", b"chat, superchat"),
        ("Sec-WebSocket-Version", b"13"),
    ];
    assert!(is_asked(&headers));
    let check = |origins| check("GET", true, "server.example.com", None, &headers, &origins);
    let upgrade = check(Origins::List(vec!["http://example.com".into()])).unwrap();
    assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(upgrade.subprotocols, ["chat", "superchat"]);
    assert_eq!(check(Origins::Same), Err(UpgradeError::Origin));
}

/// RFC section, a header that replaces the valid one, and whether the request asks for the upgrade.
#[test]
fn requests_for_the_upgrade() {
    for (section, name, value, is_one) in [
        ("6455 4.2.1", "Upgrade", "websocket", true),
        ("6455 4.2.1", "Upgrade", "WEBSOCKET", true),
        ("9110 7.8", "Upgrade", "websocket, IRC/6.9, RTA/x11", true),
        ("9110 7.8", "Upgrade", "HTTP/2.0, SHTTP/1.3, IRC/6.9, RTA/x11", false),
        ("9110 5.6.1", "Upgrade", ", ,websocket ,", true),
        ("6455 4.1", "Upgrade", "\"websocket\"", false),
        ("6455 4.1", "Upgrade", "websockets", false),
        ("6455 4.1", "Upgrade", "", false),
        ("6455 4.1", "Connection", "keep-alive, Upgrade", true),
        ("9110 7.8", "Connection", "upgrade", true),
        ("9110 5.6.1", "Connection", ",,Upgrade\t,", true),
        ("9110 7.6.1", "Connection", "keep-alive", false),
        ("9110 7.6.1", "Connection", "keep-alive Upgrade", false),
    ] {
        assert_eq!(is_asked(&with(name, value.as_bytes())), is_one, "RFC {section}: {name}: {value}");
    }
}

/// RFC section, a header that replaces the valid one, and the result.
#[test]
fn headers_of_handshakes() {
    use UpgradeError::*;
    let cases: &[(&str, &str, &str, Result<(), UpgradeError>)] = &[
        ("6455 4.1", "Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC==", Ok(())),
        ("6455 4.1", "Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==", Ok(())),
        ("6455 4.2.2", "Sec-WebSocket-Key", " dGhlIHNhbXBsZSBub25jZQ==\t", Ok(())),
        ("6455 4.2.1", "Sec-WebSocket-Key", "", Err(Key)),
        ("6455 4.2.1", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j", Err(Key)),
        ("6455 4.2.1", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ", Err(Key)),
        ("6455 4.2.1", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=", Err(Key)),
        ("6455 4.2.1", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWU=", Err(Key)),
        ("6455 4.2.1", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==, x", Err(Key)),
        ("6455 4.2.1", "Sec-WebSocket-Key", "not base64 at all!!!!!!!", Err(Key)),
        ("4648 5", "Sec-WebSocket-Key", "____________________-w==", Err(Key)),
        ("6455 4.4", "Sec-WebSocket-Version", "25", Err(Version)),
        ("6455 4.4", "Sec-WebSocket-Version", "12", Err(Version)),
        ("6455 4.4", "Sec-WebSocket-Version", "13, 8, 7", Err(Version)),
        ("6455 4.3", "Sec-WebSocket-Version", "013", Err(Version)),
        ("6455 4.3", "Sec-WebSocket-Version", "", Err(Version)),
        ("6455 1.9", "Sec-WebSocket-Protocol", "chat.example.com, v2.bookings.example.net", Ok(())),
        ("9110 5.6.1", "Sec-WebSocket-Protocol", "foo ,bar,charlie", Ok(())),
        ("9110 5.6.1", "Sec-WebSocket-Protocol", "foo , ,bar,charlie", Ok(())),
        ("9110 5.6.1", "Sec-WebSocket-Protocol", ",   ,", Ok(())),
        ("6455 4.1", "Sec-WebSocket-Protocol", "chat, chat", Err(Subprotocols)),
        ("6455 4.1", "Sec-WebSocket-Protocol", "a b", Err(Subprotocols)),
        ("6455 4.1", "Sec-WebSocket-Protocol", "a/b", Err(Subprotocols)),
        ("6455 4.1", "Sec-WebSocket-Protocol", "\"chat\"", Err(Subprotocols)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "bar; baz=2", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo, bar; baz=2", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "deflate-stream", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "mux; max-channels=4; flow-control, deflate-stream", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "private-extension", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "bar;baz = \"2\" ;x", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "bar; baz=\"\\a\\b\"", Ok(())),
        ("7692 7.1", "Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits", Ok(())),
        (
            "7692 7",
            "Sec-WebSocket-Extensions",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            Ok(()),
        ),
        ("9110 5.6.1", "Sec-WebSocket-Extensions", ", foo ,,bar,", Ok(())),
        ("9110 5.6.1", "Sec-WebSocket-Extensions", "", Ok(())),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo bar", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo;", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; ;a", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; a=", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; a=1 2", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; a=\"1", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; a=\"\"", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; a=\"1 2\"", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "foo; a=\"\\\"\"", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "=a", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "a/b", Err(Extensions)),
        ("6455 9.1", "Sec-WebSocket-Extensions", "\u{e9}", Err(Extensions)),
        ("6454 7.1", "Origin", "http://gate.example:8080", Ok(())),
        ("6454 7.1", "Origin", "http://evil.example", Err(Origin)),
        ("6454 7.3", "Origin", "null", Err(Origin)),
        ("6454 7.1", "Origin", "", Err(Origin)),
        ("6454 7.1", "Origin", "http://gate.example:8080 http://gate.example:8080", Err(Origin)),
    ];
    for (section, name, value, expected) in cases {
        let judged = judge(&with(name, value.as_bytes())).map(drop);
        assert_eq!(judged, *expected, "RFC {section}: {name}: {value}");
    }
}

#[test]
fn refusals() {
    let origins = Origins::Same;
    assert_eq!(check("POST", true, "h", None, &GOOD, &origins), Err(UpgradeError::Method));
    assert_eq!(check("GET", false, "h", None, &GOOD, &origins), Err(UpgradeError::HttpVersion));
    let mut twice = GOOD.to_vec();
    twice.push(GOOD[4]);
    assert_eq!(judge(&twice), Err(UpgradeError::Key));
}

#[test]
fn subprotocols_in_order() {
    let upgrade = judge(&with("Sec-WebSocket-Protocol", b"chat , superchat,,echo")).unwrap();
    assert_eq!(upgrade.subprotocols, ["chat", "superchat", "echo"]);
}

/// The comparison of hosts and ports is tested in `authority`.
#[test]
fn allowed_origins() {
    let list = Origins::List(vec!["https://app.example".into(), "chrome-extension://id".into()]);
    let cases: &[(&Origins, &str, &str, bool, bool)] = &[
        (&Origins::Same, "http://gate.example:8080", "gate.example:8080", true, false),
        (&Origins::Same, "https://gate.example", "GATE.example.:", true, true),
        (&Origins::Same, "http://gate.example.evil", "gate.example", false, false),
        (&Origins::List(vec!["http://app.example".into()]), "http://app.example", "x", true, true),
        (&list, "https://app.example", "x", true, true),
        (&list, "HTTPS://APP.example.:443", "x", true, true),
        (&list, "https://app.example:", "x", true, true),
        (&list, "chrome-extension://id", "x", true, true),
        (&list, "https://app.example:80", "x", false, false),
        (&list, "https://app.example.evil", "x", false, false),
        (&list, "https://app.example@evil", "x", false, false),
        (&list, "http://app.example", "x", false, false),
        (&list, "https://app.example/", "x", false, false),
        (&list, "null", "x", false, false),
        (&Origins::Any, "https://anything", "x", true, true),
        (&Origins::Any, "null", "x", true, true),
    ];
    for (origins, origin, host, good, over_tls) in cases {
        let over_plain = *good && !(*over_tls && **origins == Origins::Same);
        for (is_tls, good) in [(None, *good), (Some(true), *over_tls), (Some(false), over_plain)] {
            let result = check_origin(&[("Origin", origin.as_bytes())], host, is_tls, origins);
            assert_eq!(result.is_ok(), good, "{origin} at {host} with {origins:?}, TLS: {is_tls:?}");
        }
    }
}

#[test]
fn handshakes_without_upgrade() {
    let without = |name: &str| GOOD.iter().filter(|(other, _)| *other != name).copied().collect::<Vec<_>>();
    for (headers, lost) in [
        (GOOD.to_vec(), false),
        (without("Upgrade"), true),
        (without("Connection"), true),
        (with("Connection", b"keep-alive"), true),
        (with("Upgrade", b"h2c"), true),
        (GOOD[3..].to_vec(), true),
        (GOOD[..4].to_vec(), false),
        (GOOD[..1].to_vec(), false),
    ] {
        assert_eq!(is_lost("GET", &headers), lost, "{headers:?}");
        assert!(!is_lost("POST", &headers));
    }
    let headers = without("Upgrade");
    for http_1_1 in [true, false] {
        let judged = check("GET", http_1_1, "gate.example:8080", None, &headers, &Origins::Same);
        assert!(judged.is_ok_and(|upgrade| upgrade.is_lost), "HTTP/1.1: {http_1_1}");
    }
}

#[test]
fn bearer_tokens() {
    for (offer, names, preferred) in [
        ("bearer.x, json", &["json"][..], Some("json")),
        ("json, bearer.x", &["json"], Some("json")),
        (
            "base64url.bearer.authorization.k8s.io.x, v4.channel.k8s.io",
            &["v4.channel.k8s.io"],
            Some("v4.channel.k8s.io"),
        ),
        ("BEARER.x, Base64Url.Bearer.y, json", &["json"], Some("json")),
        ("access_token, x", &["access_token"], Some("access_token")),
        ("Access_Token, x, json", &["Access_Token", "json"], Some("Access_Token")),
        ("json, bearer, x, y", &["json", "bearer", "y"], Some("json")),
        ("bearer, access_token, x", &["bearer"], Some("bearer")),
        ("bearer", &["bearer"], Some("bearer")),
        ("bearer.x", &[], None),
        ("bearerx, abearer.y", &["bearerx", "abearer.y"], Some("bearerx")),
        ("base64, binary", &["base64", "binary"], Some("binary")),
        ("base64", &["base64"], None),
    ] {
        let upgrade = judge(&with("Sec-WebSocket-Protocol", offer.as_bytes())).unwrap();
        assert_eq!(
            (&upgrade.subprotocols[..], upgrade.preferred()),
            (&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], preferred),
            "{offer}"
        );
    }
    // A list may have several field lines.
    let mut lines = with("Sec-WebSocket-Protocol", b"json, bearer");
    lines.push(("sec-websocket-protocol", b"x, y"));
    assert_eq!(judge(&lines).unwrap().subprotocols, ["json", "bearer", "y"]);
}
