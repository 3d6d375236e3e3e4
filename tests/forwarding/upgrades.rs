//! WebSocket handshakes with nodes.

use super::node::{CLOSE, Node, Recorder, head_of, replies_in, reply, start};
use crate::client::{Client, Frame, TEXT};
use crate::daemon::Daemon;
use crate::process::expect_eq;
use crate::wire::{Wire, handshake, request};

/// The accept value of the handshakes of these tests (RFC 6455 section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// What a client sends in one go with its handshake.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: gate.example\r\n\r\n";

fn accepting(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// The connection to the node ends without a byte more.
fn expect_nothing_more(mut link: Wire, what: &str) {
    let rest = link.take_rest();
    assert!(rest.is_empty(), "{what}: the node has received {}", rest.escape_ascii());
}

#[test]
fn frames_wait_for_the_101() {
    let node = Node::bind();
    let daemon = start(node.port);
    let mut wire = daemon.wire();
    wire.send([handshake("/ws", &[], &[]).as_bytes(), &Frame::new(TEXT, b"early").masked().bytes()].concat());
    let mut link = node.accept();
    head_of(&mut link);
    link.stream().set_nonblocking(true).unwrap();
    let peeked = link.stream().peek(&mut [0]);
    assert!(peeked.is_err(), "a byte before the 101: {peeked:?}");
    link.stream().set_nonblocking(false).unwrap();
    link.send(accepting(ACCEPT));
    let response = wire.response();
    assert_eq!((response.status, response.field("Sec-WebSocket-Accept")), (101, ACCEPT));
    // A client's frame stays masked (RFC 6455 section 5.3).
    assert_eq!(link.take(2), [0x81, 0x85]);
    let mask = link.take(4);
    let payload: Vec<u8> = link.take(5).iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!(payload, b"early");
    let mut client = Client::new(wire);
    link.send(b"\x81\x04late");
    client.expect_text("late");
}

/// "WebSocket smuggling": a gateway that takes the connection for a tunnel although the node refused.
#[test]
fn a_refused_upgrade_is_no_tunnel() {
    for (status, fields, body) in [
        ("403 Forbidden", "", "no"),
        ("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\n", "13"),
        ("400 Bad Request", "Connection: keep-alive\r\n", ""),
        ("302 Found", "Location: /login\r\n", ""),
        ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "who"),
    ] {
        let node = Node::bind();
        let daemon = start(node.port);
        let mut wire = daemon.wire();
        wire.send(handshake("/ws", &[], &[]) + HIDDEN + HIDDEN);
        let mut link = node.accept();
        head_of(&mut link);
        link.send(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()));
        let replies = replies_in(&wire.take_rest());
        expect_eq(replies, vec![(status[..3].parse().unwrap(), body.to_owned())], status);
        expect_nothing_more(link, status);
        assert!(node.poll().is_none(), "{status}: a second connection");
        // What is not a tunnel is not a pooled connection either.
        let mut wire = daemon.wire();
        wire.send(request("GET", "/next", &[CLOSE]));
        let mut link = node.accept();
        assert!(head_of(&mut link).starts_with("GET /next "));
        link.send(reply("200 OK", "next"));
        assert_eq!(wire.response().text(), "next");
    }
}

#[test]
fn a_refused_upgrade_with_a_long_body() {
    let node = Node::bind();
    let daemon = start(node.port);
    let (mut wire, mut link) = begin_alone(&daemon, &node);
    link.send("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = "x".repeat(100_000);
    link.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let head = wire.response_head();
    assert_eq!((head.status, head.field("Transfer-Encoding"), head.field("Connection")), (403, "chunked", "close"));
    let rest = String::from_utf8(wire.take_rest()).unwrap();
    assert_eq!(rest.matches('x').count(), body.len());
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{}", &rest[rest.len() - 20..]);
    expect_nothing_more(link, "after the body");
}

fn begin_alone(daemon: &Daemon, node: &Node) -> (Wire, Wire) {
    let mut wire = daemon.wire();
    wire.send(handshake("/ws", &[], &[]));
    let mut link = node.accept();
    head_of(&mut link);
    (wire, link)
}

#[test]
fn a_101_that_is_not_one() {
    for reply in [
        accepting("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        accepting(&ACCEPT.to_lowercase()),
        accepting(""),
        accepting(ACCEPT).replace("Sec-WebSocket-Accept", "X"),
        accepting(ACCEPT).replace("Upgrade: websocket\r\n", ""),
        accepting(ACCEPT).replace("Connection: Upgrade\r\n", ""),
        accepting(ACCEPT).replace("Upgrade: websocket", "Upgrade: h2c"),
        accepting(ACCEPT).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        accepting(ACCEPT).replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        accepting(ACCEPT).replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n")),
    ] {
        let node = Node::bind();
        let daemon = start(node.port);
        let mut wire = daemon.wire();
        wire.send(handshake("/ws", &[], &[]) + HIDDEN);
        let mut link = node.accept();
        head_of(&mut link);
        link.send(&reply);
        let replies = replies_in(&wire.take_rest());
        expect_eq(replies.len(), 1, &reply);
        expect_eq(replies[0].0, 502, &reply);
        expect_nothing_more(link, &reply);
        daemon.log().wait_for(&["warn", "node \"127.0.0.1:", "does not complete"]);
    }
}

/// A 101 would make the gateway a tunnel for what follows.
#[test]
fn a_101_to_a_plain_request() {
    for fields in [&[][..], &["Connection: Upgrade", "Upgrade: h2c"], &["Upgrade: websocket"]] {
        let node = Node::bind();
        let daemon = start(node.port);
        let mut wire = daemon.wire();
        wire.send(request("GET", "/a", fields) + HIDDEN);
        let mut link = node.accept();
        let head = head_of(&mut link);
        assert!(!head.contains("Upgrade") && !head.contains("h2c"), "{head}");
        link.send(accepting(ACCEPT));
        let replies = replies_in(&wire.take_rest());
        expect_eq((replies.len(), replies[0].0), (1, 502), fields);
        expect_nothing_more(link, "a 101");
    }
}

/// A handshake that the gateway refuses does not reach a node.
#[test]
fn malformed_handshakes_reach_no_node() {
    let node = Recorder::start();
    let daemon = start(node.port);
    for (without, more, status) in [
        ("Sec-WebSocket-Key", "X: y", 400),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: short", 400),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 1338", 426),
        ("Sec-WebSocket-Version", "X: y", 426),
        ("-", "Content-Length: 5", 400),
        ("-", "Transfer-Encoding: chunked", 400),
        ("-", "Origin: https://evil.example", 403),
    ] {
        let mut wire = daemon.wire();
        wire.send(handshake("/ws", &[without], &[more]) + HIDDEN);
        let replies = replies_in(&wire.take_rest());
        expect_eq((replies.len(), replies[0].0), (1, status), (without, more));
    }
    assert_eq!(node.finish(daemon), []);
}
