//! The opening handshake: origins, subprotocols, and backends that cannot be reached.

use crate::client::{BINARY, CLOSE, Client, Frame, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::close;
use crate::server::{Kind, Listener, connect};
use crate::wire::handshake;

/// The flag reaches the check, whose cases are in `http::upgrade::tests::allowed_origins`.
#[test]
fn pages_of_other_origins_are_refused() {
    type Flags = &'static [&'static str];
    let cases: &[(Flags, &[(&str, u16)])] = &[
        (&[], &[("http://GATE.example:80", 101), ("http://evil.example", 403), ("null", 403)]),
        (&["--origins", "*"], &[("http://evil.example", 101), ("null", 101)]),
        (
            &["--origins", "https://app.example, http://other.example:81"],
            &[("https://app.example", 101), ("http://other.example:081", 101), ("http://gate.example", 403)],
        ),
    ];
    for (flags, origins) in cases {
        let daemon = Daemon::start(flags);
        let _server = daemon.listen("echo");
        for (origin, status) in *origins {
            let response = daemon.upgrade("/echo", &[&format!("Origin: {origin}")]);
            assert_eq!(response.status, *status, "{flags:?}: {origin}");
        }
        assert_eq!(daemon.upgrade("/echo", &[]).status, 101, "{flags:?}: no page");
        let two = daemon.upgrade("/echo", &["Origin: http://gate.example", "Origin: http://gate.example"]);
        assert_eq!(two.status, if flags.contains(&"*") { 101 } else { 403 }, "{flags:?}: two origins");
    }
}

#[test]
fn extensions_are_declined() {
    let daemon = Daemon::start(&[]);
    let _server = daemon.listen("echo");
    for offered in ["permessage-deflate; client_max_window_bits", "x-unknown; a=1, x-other"] {
        let response = daemon.upgrade("/echo", &[&format!("Sec-WebSocket-Extensions: {offered}")]);
        assert_eq!((response.status, response.field("Sec-WebSocket-Extensions")), (101, ""), "{offered}");
    }
}

#[test]
fn one_subprotocol_is_chosen() {
    let daemon = Daemon::start(&["--deny", "^/secret,^/sub/secret"]);
    let servers = ["echo", "chat", "secret", "sub/echo2", "sub/secret"].map(|name| (name, daemon.listen(name)));
    // Path and offer; then the backend and the subprotocol chosen, or the refusal.
    for (path, offer, expected) in [
        ("/echo", "", Ok(("echo", ""))),
        ("/echo", "json", Ok(("echo", "json"))),
        ("/echo", "json, chat", Ok(("echo", "json"))),
        ("/nosuch", "echo", Ok(("echo", "echo"))),
        ("/nosuch", "other, chat, echo", Ok(("chat", "chat"))),
        ("/nosuch", "other", Err(404)),
        ("/", "echo", Ok(("echo", "echo"))),
        ("/", "", Err(404)),
        ("/sub", "echo2", Ok(("sub/echo2", "echo2"))),
        ("/sub/", "other, echo2", Ok(("sub/echo2", "echo2"))),
        ("/sub", "echo", Err(404)),
        ("/sub", "", Err(404)),
        ("/nosuch", "secret", Err(403)),
        ("/nosuch", "secret, echo", Ok(("echo", "echo"))),
        ("/sub", "secret", Err(403)),
        ("/secret", "echo", Err(403)),
        ("/nosuch", "..", Err(404)),
        ("/sub", "..", Err(404)),
        ("/sub", ".", Err(404)),
        ("/nosuch", "sub", Err(404)),
        ("/echo", "a b", Err(400)),
        ("/echo", "chat, chat", Err(400)),
    ] {
        let what = format!("{path} offering {offer:?}");
        let field = format!("Sec-WebSocket-Protocol: {offer}");
        let fields = if offer.is_empty() { vec![] } else { vec![field.as_str()] };
        let response = daemon.upgrade(path, &fields);
        match expected {
            Err(status) => assert_eq!(response.status, status, "{what}"),
            Ok((name, chosen)) => {
                assert_eq!((response.status, response.field("Sec-WebSocket-Protocol")), (101, chosen), "{what}");
                servers.iter().find(|(other, _)| *other == name).unwrap().1.accept();
            }
        }
        for (name, server) in &servers {
            assert!(server.is_idle(), "{what} reached {name}");
        }
    }
}

#[test]
fn a_file_that_is_not_a_socket_is_404() {
    let daemon = Daemon::start(&[]);
    std::fs::write(daemon.socket("file"), "").unwrap();
    assert_eq!(daemon.upgrade("/file", &[]).status, 404);
    daemon.log().wait_for(&["warn", "name=\"file\"", "not a socket"]);
}

#[test]
fn a_socket_without_a_listener_is_502() {
    let daemon = Daemon::start(&[]);
    close(daemon.listen("stale"));
    assert_eq!(daemon.upgrade("/stale", &[]).status, 502);
    daemon.log().wait_for(&["warn", "name=\"stale\"", "502", "Connection refused"]);
}

#[test]
fn the_gateway_waits_for_a_backend_that_accepts_late() {
    let daemon = Daemon::start(&[]);
    let path = daemon.socket("late");
    let server = Listener::bind_with_backlog(&path, Kind::Stream, 0);
    let _filler = connect(&path, Kind::Stream).unwrap();
    let mut wire = daemon.wire();
    wire.send(handshake("/late", &[], &[]));
    // The backlog is full at first: the gateway must try again.
    daemon.get("/nosuch");
    server.accept();
    assert_eq!(wire.response().status, 101);
    server.accept();
}

#[test]
fn bytes_pipelined_after_the_handshake_are_not_lost() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("echo");
    let mut wire = daemon.wire();
    let hello = Frame::new(TEXT, b"hello").masked().bytes();
    wire.send([handshake("/echo", &[], &[]).as_bytes(), &hello, &Frame::close(1000, "").masked().bytes()].concat());
    let mut backend = server.accept();
    backend.expect(b"hello");
    backend.expect_end();
    drop(backend);
    assert_eq!(wire.response().status, 101);
    let mut client = Client::new(wire);
    assert_eq!(client.expect_close(1000), "");
    client.wire.expect_end();
}

#[test]
fn a_client_that_disconnects_while_it_waits_is_dropped() {
    let daemon = Daemon::start(&[]);
    let path = daemon.socket("full");
    let server = Listener::bind_with_backlog(&path, Kind::Stream, 0);
    let filler = connect(&path, Kind::Stream).unwrap();
    for _ in 0..3 {
        let mut wire = daemon.wire();
        wire.send(handshake("/full", &[], &[]));
    }
    drop(server.accept());
    drop(filler);
    // Connections made meanwhile do not block it.
    let mut wire = daemon.wire();
    let hello = Frame::new(TEXT, b"I stay").masked().bytes();
    wire.send([handshake("/full", &[], &[]).as_bytes(), &hello].concat());
    let is_reached = (0..4).any(|_| server.accept().read() == b"I stay");
    assert!(is_reached);
    assert_eq!(wire.response().status, 101);
}

#[test]
fn one_client_beyond_the_limit_receives_503() {
    // Two descriptors for each client, and 64 in reserve.
    let daemon = Daemon::start_with_few_fds(64 + 2 * 12, &[]);
    let server = daemon.listen("echo");
    let mut clients: Vec<_> = (0..12).map(|_| (daemon.connect("/echo"), server.accept())).collect();
    let response = daemon.upgrade("/echo", &[]);
    assert_eq!(response.status, 503);
    assert_ne!(response.field("Retry-After"), "");
    daemon.log().wait_for(&["warn", "503"]);
    let (mut client, mut backend) = clients.pop().unwrap();
    client.close(1000);
    backend.expect_end();
    drop(backend);
    assert_eq!(client.frame().opcode, CLOSE);
    client.wire.expect_end();
    drop(client);
    daemon.log().wait_for(&["the client closed with 1000"]);
    daemon.connect("/echo");
}

/// A body would be parsed as frames.
#[test]
fn a_handshake_has_no_body() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    for field in ["Content-Length: 6", "Transfer-Encoding: chunked"] {
        assert_eq!(daemon.upgrade("/server", &[field]).status, 400, "{field}");
    }
    assert!(server.is_idle(), "the server was connected all the same");
}

/// The reply that names the version also names Upgrade in Connection (RFC 9110 section 7.8).
#[test]
fn an_unsupported_version_is_answered_with_version_13() {
    let daemon = Daemon::start(&[]);
    let mut wire = daemon.wire();
    wire.send(handshake("/server", &["Sec-WebSocket-Version"], &["Sec-WebSocket-Version: 8"]));
    let response = wire.response();
    assert_eq!((response.status, response.field("Sec-WebSocket-Version")), (426, "13"));
    assert_eq!((response.field("Upgrade"), response.field("Connection")), ("websocket", "upgrade, close"));
}

/// A handshake whose Upgrade or Connection was removed by a proxy gets the answer of a handshake, except for the 101.
#[test]
fn a_handshake_whose_upgrade_was_removed() {
    let links = "links = ({ origin = \"^/link$\"; type = \"unix\"; destination = \"@/run/sub/echo\"; });";
    let daemon = Daemon::start_configured(&configuration("", &format!("deny = \"^/denied\"; {links}")));
    let servers = ["echo", "denied", "sub/echo"].map(|name| daemon.listen(name));
    // A page of the same name is not the answer.
    for name in ["index.html", "echo"] {
        std::fs::write(daemon.folder().path().join("www").join(name), "page").unwrap();
    }
    for (path, fields, status) in [
        ("/echo", "", 426),
        ("/link", "", 426),
        ("/sub", "Sec-WebSocket-Protocol: echo", 426),
        ("/", "Sec-WebSocket-Protocol: nosuch, echo", 426),
        ("/denied", "", 403),
        ("/denied2", "", 403),
        ("/nosuch", "", 404),
        ("/sub", "", 404),
        ("/echo", "Origin: http://evil.example", 403),
        ("/nosuch", "Origin: http://evil.example", 403),
    ] {
        let fields = if fields.is_empty() { vec![] } else { vec![fields] };
        let whole = handshake(path, &["Upgrade", "Connection"], &fields);
        for head in [
            whole.clone(),
            whole.replace("HTTP/1.1", "HTTP/1.0"),
            handshake(path, &["Upgrade"], &fields),
            handshake(path, &["Connection"], &[&fields[..], &["Connection: keep-alive"]].concat()),
        ] {
            let mut wire = daemon.wire();
            wire.send(&head);
            let response = wire.response();
            assert_eq!(response.status, status, "{head}: {response:?}");
            if status == 426 {
                let got = ["Upgrade", "Sec-WebSocket-Version", "Connection"].map(|name| response.field(name));
                assert_eq!(got, ["websocket", "13", "upgrade, close"], "{head}");
                assert!(response.text().contains("a proxy in front must speak HTTP/1.1"), "{response:?}");
            }
        }
    }
    assert!(servers.iter().all(|server| server.is_idle()), "a server was connected");
    daemon.log().wait_for(&["warn", "name=\"echo\"", "status=426", "lost its Upgrade", "pass both on"]);
}

/// A backend's name without a page is a 426, or a 404 if it is denied.
#[test]
fn a_get_for_the_name_of_a_backend() {
    let links = "links = ({ origin = \"^/link$\"; type = \"unix\"; destination = \"@/run/echo\"; });";
    let websocket = format!("deny = \"^/denied\"; {links}");
    let sockets_alone =
        format!("servers = ({{ listen = \"127.0.0.1:0\"; websocket = {{ docroot = \"@/run\"; {websocket} }}; }});");
    for (text, with_page) in [(configuration("", &websocket), 200), (sockets_alone, 426)] {
        let daemon = Daemon::start_configured(&text);
        let servers = ["echo", "page", "denied", "sub/echo", ".hidden"].map(|name| daemon.listen(name));
        std::fs::write(daemon.folder().path().join("www/page"), "page").unwrap();
        std::fs::write(daemon.socket("file"), "").unwrap();
        let mut wire = daemon.wire();
        for (path, status) in [
            ("/echo", 426),
            ("/echo/", 426),
            ("/sub/echo", 426),
            ("/.hidden", 426),
            ("/link", 426),
            ("/page", with_page),
            ("/nosuch", 404),
            ("/sub", 404),
            ("/", 404),
            ("/file", 404),
            ("/denied", 404),
            ("/denied2", 404),
            ("/echo/x", 404),
        ] {
            let response = wire.get(path);
            assert_eq!(response.status, status, "{path}: {response:?}");
            if status == 426 {
                let got = ["Upgrade", "Sec-WebSocket-Version", "Connection"].map(|name| response.field(name));
                assert_eq!(got, ["websocket", "13", "upgrade, keep-alive"], "{path}");
            }
        }
        let (there, not_there) = (wire.get("/denied"), wire.get("/denied2"));
        assert_eq!((there.head, there.body), (not_there.head, not_there.body));
        assert_eq!(wire.upgrade("/echo", &[]).status, 101);
        servers[0].accept();
        assert!(servers.iter().all(|server| server.is_idle()), "a server was connected");
    }
}

#[test]
fn refusals_are_logged_with_their_reason() {
    let daemon = Daemon::start(&[]);
    daemon.upgrade("/echo", &["Origin: http://evil.example"]);
    daemon.log().wait_for(&["info", "c1 ", "Origin is \"http://evil.example", "the Host, \"gate.example\""]);
    daemon.upgrade("/echo", &["Origin: null", "Origin: \"a\""]);
    daemon.log().wait_for(&["c2 ", "Origin is \"null, \\\"a\\\"\""]);
    let long = format!("Origin: http://{}", "x".repeat(1000));
    daemon.upgrade("/echo", &[&long]);
    let line = daemon.log().wait_for(&["c3 ", "Origin is \"http://xxx", "...\""]);
    assert!(line.len() < 400, "{line}");
    for (head, parts) in [
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ["Host is \"a b\"", "target \"/\""]),
        ("GET / HTTP/1.1\r\nhost:a\r\nHOST: b\u{e9}\r\n\r\n", ["Host is \"a, b\\u{e9}\"", "target \"/\""]),
        ("GET http://c/ HTTP/1.1\r\nHost: a\r\n\r\n", ["Host is \"a\"", "target \"http://c/\""]),
    ] {
        let mut wire = daemon.wire();
        wire.send(head);
        assert_eq!(wire.response().status, 400, "{head:?}");
        daemon.log().wait_for(&parts);
    }
    let listed = Daemon::start(&["--origins", "https://app.example"]);
    listed.upgrade("/echo", &["Origin: http://app.example"]);
    listed.log().wait_for(&["Origin is \"http://app.example\", which is not one of origins"]);
}

/// Bytes of other protocols are named in the log.
#[test]
fn other_protocols_are_logged_by_name() {
    let daemon = Daemon::start(&[]);
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let v1 = format!("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{request}");
    let unknown = format!("PROXY UNKNOWN\r\n{request}");
    let v2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let tls = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let (proxy, other) = ("PROXY protocol", "not an HTTP/1.1 request");
    for (number, (bytes, sentence)) in [
        (v1.as_bytes(), proxy),
        (unknown.as_bytes(), proxy),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", proxy),
        (v2, proxy),
        (tls, "TLS handshake on a plain port"),
        (b"SSH-2.0-x\r\n\r\n", other),
        (b"\r\n\r\n", other),
        (b"\x15\x03\x01", other),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = daemon.wire();
        wire.send(bytes);
        let response = wire.response();
        assert_eq!(response.status, 400, "{}", bytes.escape_ascii());
        assert!(response.text().contains(sentence), "{}: {response:?}", bytes.escape_ascii());
        wire.expect_end();
        let level = if sentence == proxy { "warn" } else { "info" };
        daemon.log().wait_for(&[level, &format!("c{} end", number + 1), sentence]);
    }
}

/// Bearer tokens offered as subprotocols (RFC 6750) are neither chosen nor passed on.
#[test]
fn bearer_tokens_are_not_subprotocols() {
    let daemon = Daemon::start(&["--hello", "--log-level", "debug"]);
    let servers = ["echo", "bearer.SECRET", "SECRET", "json"].map(|name| (name, daemon.listen(name)));
    for (path, offer, expected) in [
        ("/echo", "bearer.SECRET, json", Ok(("echo", "json"))),
        ("/echo", "base64url.bearer.authorization.k8s.io.SECRET, v4.channel.k8s.io", Ok(("echo", "v4.channel.k8s.io"))),
        ("/echo", "Base64URL.Bearer.SECRET, json", Ok(("echo", "json"))),
        ("/echo", "access_token, SECRET", Ok(("echo", "access_token"))),
        ("/echo", "json, access_token, SECRET", Ok(("echo", "json"))),
        ("/echo", "Bearer, SECRET, json", Ok(("echo", "Bearer"))),
        ("/echo", "bearer.SECRET", Ok(("echo", ""))),
        ("/echo", "bearers.x, SECRET", Ok(("echo", "bearers.x"))),
        ("/nosuch", "bearer.SECRET", Err(404)),
        ("/nosuch", "bearer, SECRET", Err(404)),
        ("/nosuch", "bearer, SECRET, json", Ok(("json", "json"))),
        ("/", "access_token, SECRET, json", Ok(("json", "json"))),
        ("/nosuch", "bearer.SECRET, bearer.SECRET", Err(400)),
    ] {
        let mut wire = daemon.wire();
        let response = wire.upgrade(path, &[&format!("Sec-WebSocket-Protocol: {offer}")]);
        assert!(!response.head.contains("SECRET"), "{offer}: {response:?}");
        match expected {
            Err(status) => assert_eq!(response.status, status, "{path} {offer}"),
            Ok((name, chosen)) => {
                let got = (response.status, response.field("Sec-WebSocket-Protocol"));
                assert_eq!(got, (101, chosen), "{path} {offer}");
                let mut client = Client::new(wire);
                client.text("end");
                let mut server = servers.iter().find(|(other, _)| *other == name).unwrap().1.accept();
                let mut record = Vec::new();
                while !record.ends_with(b"end") {
                    record.extend(server.read());
                }
                assert!(!String::from_utf8_lossy(&record).contains("SECRET"), "{offer}: {}", record.escape_ascii());
            }
        }
    }
    assert!(servers.iter().all(|(_, server)| server.is_idle()));
    assert!(!daemon.log().text().contains("SECRET"), "{}", daemon.log().text());
}

/// The subprotocol `binary` has binary frames regardless of `type`: noVNC reads nothing else. `base64` would need an
/// encoder and is never chosen.
#[test]
fn the_subprotocol_binary() {
    for flags in [&[][..], &["--type", "text"], &["--protocol", "lines"], &["--protocol", "packet"]] {
        let daemon = Daemon::start(flags);
        let is_packet = flags.contains(&"packet");
        let server = if is_packet { daemon.listen_packets("vnc") } else { daemon.listen("vnc") };
        let by_name = if is_packet { daemon.listen_packets("binary") } else { daemon.listen("binary") };
        for (path, offer, chosen, opcode) in [
            ("/vnc", "binary", "binary", BINARY),
            ("/vnc", "base64, binary", "binary", BINARY),
            ("/nosuch", "binary", "binary", BINARY),
            ("/vnc", "base64", "", TEXT),
            ("/vnc", "json, binary", "json", TEXT),
            ("/vnc", "BINARY", "BINARY", TEXT),
        ] {
            let mut wire = daemon.wire();
            let response = wire.upgrade(path, &[&format!("Sec-WebSocket-Protocol: {offer}")]);
            assert_eq!((response.status, response.field("Sec-WebSocket-Protocol")), (101, chosen), "{flags:?} {offer}");
            let mut client = Client::new(wire);
            let mut backend = if path == "/vnc" { server.accept() } else { by_name.accept() };
            backend.send("RFB 003.008\n");
            assert_eq!(client.message().0, opcode, "{flags:?} {path} {offer}");
            if opcode == BINARY && !flags.contains(&"lines") {
                backend.send(b"\xff\xfe");
                assert_eq!(client.message(), (BINARY, b"\xff\xfe".to_vec()), "{flags:?} {path} {offer}");
            }
        }
    }
}
