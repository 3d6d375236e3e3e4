//! The opening handshake: origins, subprotocols, and servers that cannot be reached.

use std::time::Instant;

use crate::client::{CLOSE, Client, Frame, TEXT};
use crate::daemon::Daemon;
use crate::server::{Kind, Listener, connect};
use crate::wire::handshake;

#[test]
fn pages_of_other_origins_are_refused() {
    type Flags = &'static [&'static str];
    let cases: &[(Flags, &[(&str, u16)])] = &[
        (
            &[],
            &[
                ("http://gate.example", 101),
                ("http://GATE.example:80", 101),
                ("http://gate.example:8080", 403),
                ("http://gate.example.evil", 403),
                ("http://evil.example", 403),
                ("null", 403),
            ],
        ),
        (&["--origins", "*"], &[("http://evil.example", 101), ("null", 101)]),
        (
            &["--origins", "https://app.example, http://other.example:81"],
            &[
                ("https://app.example", 101),
                ("http://other.example:81", 101),
                ("https://app.example.evil", 403),
                ("http://app.example", 403),
                ("http://gate.example", 403),
            ],
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
fn one_subprotocol_is_chosen() {
    let daemon = Daemon::start(&["--deny", "^/secret,^/sub/secret"]);
    let servers = ["echo", "chat", "secret", "sub/echo2", "sub/secret"].map(|name| (name, daemon.listen(name)));
    // Path, what is offered; which server gets it and what is answered, or the refusal.
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
fn a_file_that_is_no_socket_is_404() {
    let daemon = Daemon::start(&[]);
    std::fs::write(daemon.socket("file"), "").unwrap();
    assert_eq!(daemon.upgrade("/file", &[]).status, 404);
    daemon.log().wait_for(&["warn", "name=\"file\"", "not a socket"]);
}

#[test]
fn a_socket_that_nobody_listens_on_is_502() {
    let daemon = Daemon::start(&[]);
    drop(daemon.listen("stale"));
    assert_eq!(daemon.upgrade("/stale", &[]).status, 502);
    daemon.log().wait_for(&["warn", "name=\"stale\"", "502", "Connection refused"]);
}

#[test]
fn a_server_that_does_not_accept_is_504() {
    let daemon = Daemon::start(&[]);
    let path = daemon.socket("full");
    let _server = Listener::bind_with_backlog(&path, Kind::Stream, 0);
    let _filler = connect(&path, Kind::Stream).unwrap();
    let start = Instant::now();
    assert_eq!(daemon.upgrade("/full", &[]).status, 504);
    let waited = start.elapsed();
    assert!((4_500..9_000).contains(&waited.as_millis()), "{waited:?}");
    daemon.log().wait_for(&["warn", "name=\"full\"", "504"]);
}

#[test]
fn a_server_that_accepts_late_is_waited_for() {
    let daemon = Daemon::start(&[]);
    let path = daemon.socket("late");
    let server = Listener::bind_with_backlog(&path, Kind::Stream, 0);
    let _filler = connect(&path, Kind::Stream).unwrap();
    let mut wire = daemon.wire();
    wire.send(handshake("/late", &[], &[]));
    // The gateway has to look a second time, since at first the backlog is full.
    daemon.get("/nosuch");
    server.accept();
    assert_eq!(wire.response().status, 101);
    server.accept();
}

#[test]
fn what_follows_the_handshake_at_once_is_not_lost() {
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
fn a_client_that_leaves_while_it_waits_is_forgotten() {
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
    // Whoever connected in between must not be in the way of one who stays.
    let mut wire = daemon.wire();
    let hello = Frame::new(TEXT, b"I stay").masked().bytes();
    wire.send([handshake("/full", &[], &[]).as_bytes(), &hello].concat());
    let is_reached = (0..4).any(|_| server.accept().read() == b"I stay");
    assert!(is_reached);
    assert_eq!(wire.response().status, 101);
}

#[test]
fn one_client_too_many_is_told_so() {
    // Two descriptors a client, and 64 that are kept for other things.
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

/// Its bytes would be taken for frames.
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
fn another_version_is_told_the_right_one() {
    let daemon = Daemon::start(&[]);
    let mut wire = daemon.wire();
    wire.send(handshake("/server", &["Sec-WebSocket-Version"], &["Sec-WebSocket-Version: 8"]));
    let response = wire.response();
    assert_eq!((response.status, response.field("Sec-WebSocket-Version")), (426, "13"));
    assert_eq!((response.field("Upgrade"), response.field("Connection")), ("websocket", "upgrade, close"));
}
