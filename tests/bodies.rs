//! Requests with bodies, which are read and dropped, and bodies that hide another request.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, configuration};
use crate::http::{INDEX, daemon, expect_too_slow, noise, put};
use crate::process::eventually;
use crate::wire::{handshake, request};

/// Bodies that the gateway reads and drops, each as header lines and bytes.
fn bodies() -> Vec<(String, Vec<u8>)> {
    let trap = request("GET", "/trap", &[]).into_bytes();
    let large = vec![b'\n'; 64 * 1024];
    let chunk = |size: usize| format!("{size:x}\r\n").into_bytes();
    let length = |body: &[u8]| format!("Content-Length: {}", body.len());
    vec![
        (length(&trap), trap.clone()),
        (length(&large), large.clone()),
        ("Transfer-Encoding: chunked".into(), b"0\r\n\r\n".to_vec()),
        ("Transfer-Encoding: chunked".into(), [&chunk(trap.len()), &trap, &b"\r\n0\r\n\r\n"[..]].concat()),
        (
            "transfer-encoding: Chunked".into(),
            b"3;name=\"value\"\r\nabc\r\nA \t;x\r\n0123456789\r\n00\r\nX-Trailer: 1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        ("Transfer-Encoding: chunked".into(), [&chunk(65_000), &large[..65_000], b"\r\n0\r\n\r\n"].concat()),
    ]
}

#[test]
fn a_body_is_read_and_the_next_request_follows() {
    let daemon = daemon();
    let next = request("GET", "/style.css", &[]);
    for (field, body) in bodies() {
        // Some old clients send an empty line after a body (RFC 9112 section 2.2).
        for (method, status, between) in [("GET", 200, ""), ("GET", 200, "\r\n"), ("POST", 405, ""), ("HEAD", 200, "")]
        {
            let mut wire = daemon.wire();
            let head = request(method, "/", &[&field]);
            wire.send([head.as_bytes(), &body, between.as_bytes(), next.as_bytes()].concat());
            let response = if method == "HEAD" { wire.response_head() } else { wire.response() };
            let got = (response.status, response.field("Connection"));
            assert_eq!(got, (status, "keep-alive"), "{method} {field}: {response:?}");
            assert_eq!(wire.response().text(), "body {}", "{method} {field}");
        }
    }
}

#[test]
fn a_body_may_arrive_byte_by_byte() {
    let daemon = daemon();
    for (field, body) in bodies().into_iter().filter(|(_, body)| body.len() < 1000) {
        let mut wire = daemon.wire();
        let all = [request("POST", "/", &[&field]).as_bytes(), &body, request("GET", "/", &[]).as_bytes()].concat();
        for byte in all {
            wire.send([byte]);
        }
        assert_eq!((wire.response().status, wire.response().text().as_str()), (405, INDEX), "{field}");
    }
}

#[test]
fn an_unread_body_ends_the_connection_after_the_reply() {
    let daemon = daemon();
    let large = noise(5 * 1024 * 1024);
    put(&daemon, "large.bin", &large);
    let body = vec![b'x'; 4 * 1024 * 1024];
    let length = format!("Content-Length: {}", body.len());
    let chunks = [b"400000\r\n", &body[..], b"\r\n0\r\n\r\n"].concat();
    let many = b"1\r\nx\r\n".repeat(body.len() / 6);
    for (method, path, status, field, body) in [
        ("GET", "/large.bin", 200, length.as_str(), &body),
        ("POST", "/large.bin", 405, length.as_str(), &body),
        ("GET", "/large.bin", 200, "Transfer-Encoding: chunked", &chunks),
        ("PUT", "/", 405, "Transfer-Encoding: chunked", &many),
    ] {
        let mut wire = daemon.wire();
        // All of it is sent before a byte of the reply is read: more than the sockets hold.
        let all = [request(method, path, &[field]).as_bytes(), body].concat();
        let sent = wire.stream().write_all(&all);
        // A client that is answered early may find the connection closed.
        assert!(sent.is_ok() || status == 405, "{method} {field}: {sent:?}");
        let response = wire.response();
        let got = (response.status, response.field("Connection"));
        assert_eq!(got, (status, "close"), "{method} {field}: {response:?}");
        assert!(status != 200 || response.body == large, "{method} {field}: the bytes differ");
        wire.expect_end();
    }
}

#[test]
fn an_unread_body_takes_no_memory() {
    let daemon = daemon();
    put(&daemon, "large.bin", noise(16 * 1024 * 1024));
    let mut wire = daemon.wire();
    // The reply exceeds the sockets' buffers, so that the whole body arrives before it is taken.
    let body = vec![b'x'; 64 * 1024 * 1024];
    wire.send(request("GET", "/large.bin", &[&format!("Content-Length: {}", body.len())]));
    assert_eq!(wire.response_head().status, 200);
    let before_kib = daemon.resident_kib();
    wire.send(body);
    let grown_kib = daemon.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 16 * 1024, "64 MiB took {grown_kib} KiB");
}

/// A byte now and then does not extend the time of a request.
#[test]
fn a_slow_body_times_out() {
    let daemon = Daemon::start_configured(&configuration("head-ms = 2000;", ""));
    expect_too_slow(&daemon, &request("POST", "/", &["Content-Length: 1000"]));
    daemon.log().wait_for(&["the request body was too slow"]);
}

#[test]
fn a_client_that_closes_after_an_unread_body_is_answered_at_once() {
    // A busy machine may take as long once, but not every time.
    eventually("it ends before CLOSE_MS", || {
        let daemon = daemon();
        let start = Instant::now();
        let mut wire = daemon.wire();
        wire.send(request("GET", "/", &["Content-Length: 70000"]) + &"x".repeat(70_000));
        wire.stream().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(wire.response().text(), INDEX);
        wire.expect_end();
        daemon.log().wait_for(&["end client=", ": answered"]);
        start.elapsed() < Duration::from_millis(2_500)
    });
}

#[test]
fn a_client_that_expects_100_continue_gets_the_answer() {
    let daemon = daemon();
    for (method, fields, status) in [
        ("GET", &["Expect: 100-continue", "Content-Length: 5"][..], 200),
        ("POST", &["Expect: 100-Continue", "Content-Length: 5"], 405),
        ("POST", &["Expect: 100-continue", "Transfer-Encoding: chunked"], 405),
        ("GET", &["Expect: 100-continue", "Content-Length: 5", "Content-Length: 5"], 400),
        ("GET", &["Expect: cake", "Content-Length: 5"], 417),
        ("GET", &["Expect: cake"], 417),
    ] {
        let mut wire = daemon.wire();
        wire.send(request(method, "/", fields));
        let response = wire.response();
        assert_eq!((response.status, response.field("Connection")), (status, "close"), "{method} {fields:?}");
        wire.expect_end();
    }
    // Without a body there is nothing to wait for.
    let mut wire = daemon.wire();
    wire.send(request("GET", "/", &["Expect: 100-continue"]));
    assert_eq!(wire.response().field("Connection"), "keep-alive");
    assert_eq!(wire.get("/style.css").text(), "body {}");
}

#[test]
fn request_smuggling_is_refused() {
    let daemon = daemon();
    let smuggled = request("GET", "/style.css", &[]);
    for fields in [
        &["Content-Length: 5", "Content-Length: 6"][..],
        &["Content-Length: 5", "Content-Length: 5"],
        &["Content-Length: 5", "Transfer-Encoding: chunked"],
        &["Content-Length: 99999999999999999999"],
        // What follows is no chunk.
        &["Transfer-Encoding: chunked"],
        &["Transfer-Encoding: identity"],
    ] {
        let mut wire = daemon.wire();
        wire.send(request("GET", "/", fields) + &smuggled);
        let response = wire.response();
        assert_eq!((response.status, response.field("Connection")), (400, "close"), "{fields:?}");
        wire.expect_end();
    }
    let length = format!("Content-Length: {}", smuggled.len());
    let mut wire = daemon.wire();
    wire.send(handshake("/", &[], &[&length]) + &smuggled);
    assert_eq!(wire.response().status, 400);
    wire.expect_end();
}

#[test]
fn one_empty_line_may_precede_a_request() {
    let daemon = daemon();
    let get = request("GET", "/style.css", &[]);
    let mut wire = daemon.wire();
    wire.send(format!("\r\n{get}\r\n{get}"));
    assert_eq!((wire.response().text().as_str(), wire.response().text().as_str()), ("body {}", "body {}"));
    for before in ["\r\n\r\n", "\n", "\r", " \r\n", "\r\n\n"] {
        let mut wire = daemon.wire();
        wire.send(format!("{before}{get}"));
        assert_eq!(wire.response().status, 400, "{before:?}");
        wire.expect_end();
    }
}
