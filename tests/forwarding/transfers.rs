//! Bodies in both directions.

use std::io::Write;
use std::thread;

use super::node::{Node, Recorder, gateway, head_of, reply, start, start_in};
use crate::daemon::Daemon;
use crate::http::noise;
use crate::process::{Folder, expect_eq};
use crate::wire::{Wire, request};

/// Bytes as chunks of these sizes, which repeat.
fn chunked(mut bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut all = Vec::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (chunk, rest) = bytes.split_at((*size).min(bytes.len()));
        all.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
        bytes = rest;
    }
    all.extend_from_slice(b"0\r\n\r\n");
    all
}

/// The payload of chunks, which are the rest of a connection.
fn payload(wire: &mut Wire) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(wire.take(1));
        }
        let line = String::from_utf8(line).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("a chunk line {line:?}"));
        all.extend(wire.take(size));
        assert_eq!(wire.take(2), b"\r\n");
        if size == 0 {
            return all;
        }
    }
}

/// Sends from another thread, so that neither side waits for the other.
fn send_beside<T>(wire: &mut Wire, bytes: Vec<u8>, act: impl FnOnce(&mut Wire) -> T) -> T {
    let mut stream = wire.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stream.write_all(&bytes).unwrap());
        act(wire)
    })
}

#[test]
fn bodies_arrive_byte_for_byte() {
    let bytes = noise(3 * 1024 * 1024 + 7);
    for (is_chunked_up, is_chunked_down) in [(false, false), (true, false), (false, true), (true, true)] {
        let node = Recorder::answering(move |seen| {
            if is_chunked_down {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                [head, chunked(&seen.body, &[1, 70_000, 3, 16_384])].concat()
            } else {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
                [head.as_bytes(), &seen.body].concat()
            }
        });
        let daemon = start(node.port);
        let mut wire = daemon.wire();
        for round in 0..2 {
            let (field, body) = match is_chunked_up {
                true => ("Transfer-Encoding: chunked".to_owned(), chunked(&bytes, &[5, 1, 100_000, 17])),
                false => (format!("Content-Length: {}", bytes.len()), bytes.clone()),
            };
            wire.send(request("POST", "/echo", &[&field]));
            let response = send_beside(&mut wire, body, Wire::response_head);
            let got = match response.field("Transfer-Encoding") {
                "chunked" => payload(&mut wire),
                _ => wire.take(response.field("Content-Length").parse().unwrap()),
            };
            assert!(got == bytes, "round {round}, chunked {is_chunked_up} {is_chunked_down}: the bytes differ");
        }
        let seen = node.finish(daemon);
        assert!(seen.len() == 2 && seen.iter().all(|seen| seen.body == bytes), "{} requests", seen.len());
    }
}

/// A request whose node the test plays: both connections after the head.
fn asked(daemon: &Daemon, node: &Node, bytes: &str) -> (Wire, Wire, String) {
    let mut wire = daemon.wire();
    wire.send(bytes);
    let mut link = node.accept();
    let head = head_of(&mut link);
    (wire, link, head)
}

#[test]
fn clients_without_chunks() {
    let node = Node::bind();
    let daemon = start(node.port);
    let old = "GET /a HTTP/1.0\r\nHost: gate.example\r\nConnection: keep-alive\r\n\r\n";
    let (mut wire, mut link, head) = asked(&daemon, &node, old);
    assert!(head.starts_with("GET /a HTTP/1.1\r\n") && head.contains("Via: 1.0 uakari\r\n"), "{head}");
    link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n");
    let response = wire.response_head();
    assert_eq!((response.field("Connection"), response.all("Transfer-Encoding").len()), ("close", 0));
    assert_eq!(wire.take_rest(), b"abcde");
    // A length keeps the connection.
    let mut wire = daemon.wire();
    wire.send(old);
    assert!(head_of(&mut link).starts_with("GET /a "));
    link.send(reply("200 OK", "sized"));
    let response = wire.response();
    assert_eq!((response.field("Connection"), response.text().as_str()), ("keep-alive", "sized"));
}

#[test]
fn a_reply_until_the_end_of_the_connection() {
    let node = Node::bind();
    let daemon = start(node.port);
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nServer: old\r\n\r\n"] {
        let (mut wire, mut link, _) = asked(&daemon, &node, &request("GET", "/a", &[]));
        link.send(head.to_owned() + "abc");
        assert_eq!(wire.response_head().field("Transfer-Encoding"), "chunked");
        // The end of a chunk precedes the next one.
        assert_eq!(wire.take(6), b"3\r\nabc");
        link.send("de");
        drop(link);
        assert_eq!(wire.take(2), b"\r\n");
        assert_eq!(payload(&mut wire), b"de");
        // The client's connection persists.
        wire.send(request("GET", "/b", &[]));
        let mut link = node.accept();
        head_of(&mut link);
        link.send(reply("200 OK", "b"));
        assert_eq!(wire.response().text(), "b");
        drop(link);
    }
}

#[test]
fn expectations() {
    let node = Node::bind();
    let daemon = start(node.port);
    let fields = ["Expect: 100-continue", "Content-Length: 5"];
    // With a 100 of the node.
    let (mut wire, mut link, head) = asked(&daemon, &node, &request("POST", "/a", &fields));
    assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
    link.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(wire.response_head().status, 100);
    wire.send("hello");
    assert_eq!(link.take(5), b"hello");
    link.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndone");
    assert_eq!(wire.response().text(), "done");
    // A final reply in its place: both connections end, since the body may follow or not.
    link.expect_end();
    let (mut wire, mut link, _) = asked(&daemon, &node, &request("POST", "/b", &fields));
    link.send(reply("417 Expectation Failed", "no"));
    let response = wire.response();
    assert_eq!((response.status, response.text().as_str(), response.field("Connection")), (417, "no", "close"));
    expect_eq(link.take_rest(), Vec::new(), "no body");
    wire.expect_end();
}

#[test]
fn trailers_in_both_directions() {
    let node = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 9\r\n\
          Set-Cookie: a=b\r\nContent-Length: 5\r\n\r\n"
            .to_vec()
    });
    let daemon = start(node.port);
    let mut wire = daemon.wire();
    let fields = ["Transfer-Encoding: chunked", "TE: trailers", "Connection: TE", "Trailer: X-Hash"];
    let trailers = "0\r\nX-Hash: 7\r\nX-Forwarded-User: root\r\nHost: evil.example\r\nCookie: a\r\n\r\n";
    wire.send(request("POST", "/a", &fields) + "2\r\nhi\r\n" + trailers);
    let response = wire.response_head();
    assert_eq!((response.status, response.field("Trailer")), (200, "X-Sum"));
    let expected = "2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n";
    assert_eq!(String::from_utf8(wire.take(expected.len())).unwrap(), expected);
    let seen = node.finish(daemon);
    assert_eq!((&*seen[0].trailers, &seen[0].body[..]), ("X-Hash: 7\r\n", &b"hi"[..]));
    assert_eq!(seen[0].all("te"), ["trailers"]);
}

#[test]
fn bodies_that_are_too_large() {
    let node = Recorder::start();
    let daemon = start_in(Folder::new(), &gateway(node.port, "", "", "limits = { body-size = 10; };"));
    for (field, body, status) in [
        ("Content-Length: 10", "0123456789", 200),
        ("Content-Length: 11", "0123456789a", 413),
        ("Content-Length: 18446744073709551615", "", 413),
        ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked", "b\r\n", 413),
    ] {
        let mut wire = daemon.wire();
        wire.send(request("POST", "/a", &[field, "Connection: close"]) + body);
        expect_eq(wire.response().status, status, (field, body));
        wire.expect_end();
    }
    let whole = node.finish(daemon).into_iter().filter(|seen| !seen.is_cut);
    assert_eq!(whole.map(|seen| seen.body.len()).collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn a_slow_body_is_408() {
    let node = Node::bind();
    let daemon = start_in(Folder::new(), &gateway(node.port, "", "", "limits = { body-ms = 300; };"));
    for (field, part) in [("Content-Length: 10", "01234"), ("Transfer-Encoding: chunked", "a\r\n0123")] {
        let (mut wire, mut link, _) = asked(&daemon, &node, &(request("POST", "/a", &[field]) + part));
        let response = wire.response();
        assert_eq!((response.status, response.field("Connection")), (408, "close"), "{field}");
        let rest = link.take_rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "an incomplete body was ended: {}", rest.escape_ascii());
        wire.expect_end();
    }
    daemon.log().wait_for(&["the request body was too slow"]);
}

#[test]
fn nodes_that_fail() {
    let node = Node::bind();
    let daemon = start_in(Folder::new(), &gateway(node.port, "", "", "limits = { answer-ms = 500; };"));
    // Silent.
    let (mut wire, link, _) = asked(&daemon, &node, &request("GET", "/a", &[]));
    let response = wire.response();
    assert_eq!((response.status, response.text().contains("does not reply")), (504, true), "{response:?}");
    daemon.log().wait_for(&["warn", "node \"127.0.0.1:", "of \"nodes\"", "it is silent for too long (answer-ms)"]);
    drop(link);
    let daemon = start(node.port);
    // No head, half a head.
    for (part, said) in [("", "without a reply"), ("HTTP/1.1 200 OK\r\nContent-Le", "without a reply")] {
        let (mut wire, mut link, _) = asked(&daemon, &node, &request("GET", "/a", &[]));
        link.send(part);
        drop(link);
        let response = wire.response();
        assert_eq!((response.status, response.text().contains(said)), (502, true), "{part:?}: {response:?}");
        assert!(node.poll().is_none(), "{part:?}");
    }
    daemon.log().wait_for(&["warn", "node \"127.0.0.1:", "of \"nodes\"", "ended the connection without a reply"]);
    // Half a body: a client must not take it for a whole one.
    let head = "HTTP/1.1 200 OK\r\n";
    for (fields, part) in [
        ("Content-Length: 10\r\n\r\n", "01234"),
        ("Transfer-Encoding: chunked\r\n\r\n", "5\r\n01234"),
        ("Transfer-Encoding: chunked\r\n\r\n", "5\r\n01234\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "5\r\n01234\r\n0\r\n"),
    ] {
        let (mut wire, mut link, _) = asked(&daemon, &node, &request("GET", "/a", &[]));
        link.send(head.to_owned() + fields + part);
        drop(link);
        let response = wire.response_head();
        assert_eq!(response.status, 200, "{part:?}");
        let rest = String::from_utf8(wire.take_rest()).unwrap();
        assert!(rest.contains("01234") && !rest.contains("0\r\n\r\n") && rest.len() < 10, "{part:?}: {rest:?}");
    }
    daemon.log().wait_for(&["warn", "node \"127.0.0.1:", "it ended in the middle of its reply"]);
    // A port where nothing listens.
    let (port, _) = (node.port, drop(node));
    let daemon = start(port);
    let response = daemon.get("/a");
    assert_eq!(response.status, 502, "{response:?}");
    assert!(!response.text().contains("127.0.0.1"), "{response:?}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = Recorder::start();
    let daemon = start(node.port);
    let mut wire = daemon.wire();
    let paths: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    let bytes = |path: &String| match path.len() {
        2 => request("GET", path, &[]),
        _ => request("POST", path, &["Transfer-Encoding: chunked"]) + "1\r\nx\r\n0\r\n\r\n",
    };
    wire.send(paths.iter().map(bytes).collect::<String>());
    for path in &paths {
        assert_eq!(&wire.response().text(), path);
    }
    let seen = node.finish(daemon);
    assert_eq!(seen.len(), paths.len());
    assert!(seen.iter().all(|seen| !seen.is_cut), "{seen:?}");
}

/// A client that leaves frees the connection of the node, which no other request gets.
#[test]
fn a_client_that_leaves() {
    let node = Node::bind();
    let daemon = start(node.port);
    // In the middle of its body, and of the reply.
    let (wire, mut link, _) = asked(&daemon, &node, &(request("POST", "/a", &["Content-Length: 10"]) + "01234"));
    drop(wire);
    assert_eq!(link.take_rest(), b"01234");
    let (wire, mut link, _) = asked(&daemon, &node, &request("GET", "/a", &[]));
    link.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    drop(wire);
    // A client that has shut down its sending half alone would get the rest.
    while link.stream().write_all(&[b'x'; 10_000]).is_ok() {}
    let (mut wire, mut link, _) = asked(&daemon, &node, &request("GET", "/b", &[]));
    link.send(reply("200 OK", "b"));
    assert_eq!(wire.response().text(), "b");
}
