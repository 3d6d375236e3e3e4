//! HTTP and WebSocket servers as nodes of clusters, and what real proxies make of them.

/// Nodes in Python, Node.js and Java.
pub mod nodes;

/// Requests and replies with streamed bodies.
pub mod exchange;

/// A cluster of two nodes behind nginx, Apache and uakari.
mod cluster;

/// uakari before single nodes, and before nodes that fail.
mod gateway;

use std::os::unix::net::UnixStream;

use crate::client::Client;
use crate::process::{Folder, expect_eq};
use crate::wire::{Wire, handshake};
use exchange::{Upload, exchange, head, reply, send_body, sum_of};
use nodes::Node;

/// The size of bodies here: more than one block of theirs, and no multiple.
const SIZE: u64 = 1_000_000;

/// What all nodes do alike.
fn expect_node(node: &Node, name: &str) {
    let mut wire = Wire::connect(node.port);
    // The server of the JDK cannot read trailers.
    let uploads = [Upload::None, Upload::Sized(SIZE), Upload::Chunked(SIZE)];
    for upload in uploads.into_iter().take(if node.port == node.websocket_port { 3 } else { 2 }) {
        let method = if upload == Upload::None { "GET" } else { "POST" };
        let got = exchange(&mut wire, method, "/echo/a%2Fb?x=%20", &["X-Some: thing"], upload);
        expect_eq((got.status(), got.response.field("X-Node")), (200, name), &got);
        expect_eq((&*got.told("method"), &*got.told("target")), (method, "/echo/a%2Fb?x=%20"), &got);
        expect_eq(got.field_told("X-Some"), vec!["thing".to_owned()], &got);
        let (size, hash) = sum_of(if upload == Upload::None { 0 } else { SIZE });
        expect_eq((got.told("size"), got.told("sha256")), (size.to_string(), hash), &got);
    }
    for target in ["/bytes/1000000", "/bytes/1000000?mode=chunked", "/bytes/1000000?mode=chunked&trailers=1"] {
        let got = exchange(&mut wire, "GET", target, &[], Upload::None);
        expect_eq((got.size, &got.hash), (SIZE, &sum_of(SIZE).1), target);
    }
    let got = exchange(&mut wire, "HEAD", "/bytes/1000000", &[], Upload::None);
    expect_eq((got.response.field("Content-Length"), got.size), ("1000000", 0), &got);
    expect_eq(exchange(&mut wire, "GET", "/status/404", &[], Upload::None).status(), 404, name);

    for (path, first) in [("/websocket", "hello".to_owned()), ("/websocket_client", format!("{name}: hello"))] {
        let mut wire = Wire::connect(node.websocket_port);
        let response = wire.upgrade(path, &["Sec-WebSocket-Protocol: one, two"]);
        expect_eq((response.status, response.field("X-Node")), (101, name), &response);
        expect_eq(response.field("Sec-WebSocket-Protocol"), "two", &response);
        let mut client = Client::new(wire);
        client.text("hello");
        client.expect_text(&first);
        client.binary(&vec![7; 1 << 20]);
        client.expect_binary(&vec![7; 1 << 20]);
        client.finish(1000);
    }
}

#[test]
#[ignore = "needs python3"]
fn a_node_in_python() {
    expect_node(&nodes::python_on_tcp("nodeID1"), "nodeID1");
}

#[test]
#[ignore = "needs node"]
fn a_node_in_node_js() {
    expect_node(&nodes::node_js_on_tcp("nodeID1"), "nodeID1");
}

#[test]
#[ignore = "needs java"]
fn a_node_in_java() {
    expect_node(&nodes::java("nodeID1"), "nodeID1");
}

/// Both may have a UNIX socket.
#[test]
#[ignore = "needs python3 and node"]
fn nodes_on_unix_sockets() {
    let folder = Folder::new();
    for (name, start) in [("python", nodes::python as fn(&str, &str) -> _), ("node", nodes::node_js)] {
        let path = folder.join(name);
        let _process = start(name, &format!("unix:{path}"));
        let mut stream = UnixStream::connect(path).unwrap();
        let request = head("GET", "/", &["Connection: close"], Upload::None);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let text = std::io::read_to_string(stream).unwrap();
        assert!(text.ends_with(&format!("page of {name}\n")), "{text}");
    }
}

/// What the node in Python does wrong, as its clients see it.
#[test]
#[ignore = "needs python3"]
fn faults_of_the_node_in_python() {
    let node = nodes::python_on_tcp("nodeID1");
    let rest_of = |method: &str, target: &str| {
        let mut wire = Wire::connect(node.port);
        wire.send(head(method, target, &[], Upload::None));
        (String::from_utf8(wire.take_rest()).unwrap(), wire.end())
    };
    for (target, end, size) in [
        ("/half-head", "Content-Le", None),
        ("/half-body", "aaa", Some(500)),
        ("/half-body?mode=chunked", "aaa", Some(505)),
        ("/garbage", "220 mail.example ESMTP\r\n", None),
        ("/both", "0\r\n\r\n", None),
        ("/late-close", "closed after this\n", None),
    ] {
        let (text, how) = rest_of("GET", target);
        assert!(text.ends_with(end), "{target}: {text:?}");
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        assert!(size.is_none() || body == size, "{target}: {body:?}");
        expect_eq(how, "the end of the stream", target);
    }
    expect_eq(rest_of("GET", "/reset").1, "a reset", "/reset");

    let mut wire = Wire::connect(node.port);
    wire.send(head("POST", "/early", &[], Upload::Sized(SIZE)));
    expect_eq(reply(&mut wire, "POST").status(), 413, "before the body");
    let mut wire = Wire::connect(node.port);
    wire.send(head("POST", "/continue", &["Expect: 100-continue"], Upload::Sized(SIZE)));
    expect_eq(wire.response_head().status, 100, "before the body");
    let (size, hash) = send_body(&mut wire, Upload::Sized(SIZE));
    expect_eq(reply(&mut wire, "POST").response.text(), format!("{size} {hash}\n"), "after it");
    expect_eq(exchange(&mut wire, "GET", "/hints", &[], Upload::None).interim, vec![103], "hints");
    // Pipelined.
    wire.send([head("GET", "/one", &[], Upload::None), head("GET", "/two", &[], Upload::None)].concat());
    for target in ["/one", "/two"] {
        expect_eq(reply(&mut wire, "GET").response.field("X-Target"), target, target);
    }
    // Opened by another connection.
    wire.send(head("GET", "/slow?gate=here", &[], Upload::None));
    exchange(&mut Wire::connect(node.port), "POST", "/open?gate=here", &[], Upload::None);
    expect_eq(reply(&mut wire, "GET").response.text(), "opened\n".to_owned(), "/slow");

    for (fault, accept, upgrade) in [("accept", false, "websocket"), ("upgrade", true, "h2c")] {
        let mut wire = Wire::connect(node.port);
        wire.send(handshake(&format!("/websocket?fault={fault}"), &[], &[]));
        let response = wire.response_head();
        let is_right = response.field("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        expect_eq((is_right, response.field("Upgrade")), (accept, upgrade), &response);
    }
}
