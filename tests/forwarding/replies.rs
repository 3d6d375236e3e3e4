//! Replies of nodes: good, malformed, cut.

use std::net::Shutdown;

use super::node::{Node, head_of, reply, start};
use crate::process::expect_eq;
use crate::wire::{Wire, request};

/// A reply that a client must not see as one.
const HIDDEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";

/// Replies that two readers could understand in two ways, or none: a 502, and the connection is not used again.
#[test]
fn malformed_replies() {
    let node = Node::bind();
    let daemon = start(node.port);
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(61 * 1024));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(61 * 1024));
    let fields = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(128));
    let interims = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(17) + HIDDEN;
    let mut cases = vec![large, endless, fields];
    cases.extend(
        [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\rSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\0\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 20 Low\r\nContent-Length: 0\r\n\r\n",
            "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "<html>a server of HTTP/0.9</html>",
            "\x15\x03\x01\0\x02\x02\x46",
        ]
        .map(String::from),
    );
    cases.push(interims);
    for case in &cases {
        let mut wire = daemon.wire();
        wire.send(request("GET", "/a", &[]));
        let mut link = node.accept();
        head_of(&mut link);
        link.send(case);
        let shown: String = case.escape_default().take(200).collect();
        let mut response = wire.response_head();
        while response.status == 103 {
            response = wire.response_head();
        }
        expect_eq((response.status, response.field("Connection")), (502, "close"), &shown);
        let rest = String::from_utf8(wire.take_rest()).unwrap();
        expect_eq(rest.len(), response.field("Content-Length").parse().unwrap(), &shown);
        assert!(!rest.contains("hidden"), "{shown}: {rest}");
        expect_no_request(link, &shown);
    }
    let is_fault = |line: &&String| line.contains(" warn ") && line.contains("of \"nodes\"");
    let lines = daemon.log().wait(|lines| (lines.iter().filter(is_fault).count() == cases.len()).then_some(()));
    assert!(lines.is_some(), "not {} lines of the node's faults", cases.len());
}

/// The gateway has closed a node's connection, and sent no second request.
fn expect_no_request(mut link: Wire, what: &str) {
    let rest = link.take_rest();
    assert!(rest.is_empty(), "{what}: {}", rest.escape_ascii());
}

/// A chunk that is malformed ends the client's connection: the body is never taken for a whole one.
#[test]
fn malformed_chunks_of_a_reply() {
    let node = Node::bind();
    let daemon = start(node.port);
    for chunks in [
        "5\r\nhello\r\nx\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\nX: y\r\n\r\n",
        "5\r\nhello\r\n10000000000000000\r\n",
        "5\r\nhello\r\n-1\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    ] {
        let mut wire = daemon.wire();
        wire.send(request("GET", "/a", &[]));
        let mut link = node.accept();
        head_of(&mut link);
        link.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let response = wire.response_head();
        assert_eq!((response.status, response.field("Transfer-Encoding")), (200, "chunked"));
        expect_eq(wire.take(8), b"5\r\nhello".to_vec(), chunks);
        link.send(chunks.to_owned() + HIDDEN);
        let rest = String::from_utf8_lossy(&wire.take_rest()).into_owned();
        assert!(!rest.ends_with("0\r\n\r\n") && !rest.contains("hidden"), "{chunks:?}: {rest:?}");
        expect_no_request(link, chunks);
    }
    daemon.log().wait_for(&["warn", "the chunks of its reply are malformed"]);
}

/// Bytes after a reply would be the reply to the next request (response queue poisoning).
#[test]
fn bytes_after_a_reply_are_of_nobody() {
    let node = Node::bind();
    let daemon = start(node.port);
    let ok = reply("200 OK", "hello");
    for (method, replies, status, body) in [
        ("GET", ok.clone() + HIDDEN, 200, "hello"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned() + HIDDEN,
            200,
            "",
        ),
        ("GET", reply("200 OK", "") + "x", 200, ""),
        // Replies without a body, which have one.
        ("HEAD", ok.clone(), 200, ""),
        ("HEAD", ok.clone() + HIDDEN, 200, ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 200, ""),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".to_owned(), 204, ""),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned() + HIDDEN, 204, ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello".to_owned(), 304, ""),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 204, ""),
    ] {
        let shown = format!("{method} {replies:?}");
        let mut wire = daemon.wire();
        wire.send(request(method, "/a", &[]));
        let mut link = node.accept();
        head_of(&mut link);
        link.send(&replies);
        let response = wire.response_head();
        expect_eq(response.status, status, &shown);
        match response.field("Transfer-Encoding") {
            "chunked" if method != "HEAD" => expect_eq(wire.take(15), b"5\r\nhello\r\n0\r\n\r\n".to_vec(), &shown),
            _ => expect_eq(wire.take(body.len()), body.as_bytes().to_vec(), &shown),
        }
        assert!(status != 204 || response.all("Content-Length").is_empty(), "{shown}: {response:?}");
        expect_no_request(link, &shown);
        // The next request of the same client has a connection of its own, and a reply of its own.
        wire.send(request("GET", "/next", &["Connection: close"]));
        let mut link = node.accept();
        expect_eq(head_of(&mut link).lines().next().unwrap(), "GET /next HTTP/1.1", &shown);
        link.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext");
        expect_eq(wire.response().text(), "next".to_owned(), &shown);
        wire.expect_end();
    }
}

/// What comes while a connection lies idle is noticed before the next request is sent.
#[test]
fn bytes_of_an_idle_node_are_of_nobody() {
    let node = Node::bind();
    let daemon = start(node.port);
    let mut wire = daemon.wire();
    wire.send(request("GET", "/a", &[]));
    let mut link = node.accept();
    head_of(&mut link);
    link.send(reply("200 OK", "a"));
    assert_eq!(wire.response().text(), "a");
    link.send(HIDDEN);
    expect_no_request(link, "an idle connection with bytes");
    wire.send(request("GET", "/b", &[]));
    let mut link = node.accept();
    head_of(&mut link);
    link.send(reply("200 OK", "b"));
    assert_eq!(wire.response().text(), "b");
}

/// Fields of the node's connection, and those that it names, are not the client's.
#[test]
fn fields_of_a_reply() {
    let node = Node::bind();
    let daemon = start(node.port);
    let mut wire = daemon.wire();
    wire.send(request("GET", "/a", &[]));
    let mut link = node.accept();
    head_of(&mut link);
    link.send(
        "HTTP/1.1 200 Fine  \tindeed\r\nConnection: keep-alive, X-Named, Content-Length, Set-Cookie2\r\n\
         Keep-Alive: timeout=50\r\nX-Named: no\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\
         X-Kept: yes\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok",
    );
    let response = wire.response();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    for name in ["Keep-Alive", "X-Named", "Proxy-Authenticate", "Upgrade", "Transfer-Encoding"] {
        assert!(response.all(name).is_empty(), "{name}: {response:?}");
    }
    assert_eq!((response.field("X-Kept"), response.field("Connection")), ("yes", "keep-alive"));
    assert_eq!(response.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(wire.stream().shutdown(Shutdown::Write).ok(), Some(()));
    wire.expect_end();
}

/// Interim replies go to clients that know them.
#[test]
fn interim_replies() {
    let node = Node::bind();
    let daemon = start(node.port);
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-A\r\nX-A: b\r\n\r\n";
    for (version, count) in [("1.1", 2), ("1.0", 0)] {
        let mut wire = daemon.wire();
        wire.send(format!("GET /a HTTP/{version}\r\nHost: gate.example\r\nConnection: close\r\n\r\n"));
        let mut link = node.accept();
        head_of(&mut link);
        // A 100 that nobody has asked for goes no further.
        link.send(
            hint.to_owned()
                + "HTTP/1.1 100 Continue\r\n\r\n"
                + hint
                + "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nend",
        );
        for _ in 0..count {
            let response = wire.response_head();
            assert_eq!((response.status, response.field("Link")), (103, "</a.css>"), "{version}");
            assert!(response.all("X-A").is_empty(), "{response:?}");
        }
        drop(link);
        assert_eq!(wire.response_head().status, 200, "{version}");
        let end = if version == "1.1" { "3\r\nend\r\n0\r\n\r\n" } else { "end" };
        assert_eq!(String::from_utf8(wire.take_rest()).unwrap(), end);
    }
}
