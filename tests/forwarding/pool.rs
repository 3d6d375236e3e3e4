//! Connections to nodes that are used again.

use super::node::{Node, head_of, reply, start};
use crate::daemon::Daemon;
use crate::process::{eventually, expect_eq};
use crate::wire::{Wire, request};

/// A connection of the pool.
fn pooled(daemon: &Daemon, node: &Node) -> Wire {
    let mut wire = daemon.wire();
    wire.send(request("GET", "/first", &[]));
    let mut link = node.accept();
    head_of(&mut link);
    link.send(reply("200 OK", "first"));
    assert_eq!(wire.response().text(), "first");
    link
}

#[test]
fn a_connection_is_used_again() {
    let node = Node::bind();
    let daemon = start(node.port);
    let mut link = pooled(&daemon, &node);
    for _ in 0..3 {
        let mut wire = daemon.wire();
        wire.send(request("GET", "/again", &["Connection: close"]));
        assert!(head_of(&mut link).starts_with("GET /again "));
        link.send(reply("200 OK", "again"));
        assert_eq!(wire.response().text(), "again");
        wire.expect_end();
    }
    assert!(node.poll().is_none());
    // A node that closes after its reply says so.
    let mut wire = daemon.wire();
    wire.send(request("GET", "/last", &[]));
    assert!(head_of(&mut link).starts_with("GET /last "));
    link.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.response().field("Connection"), "keep-alive");
    link.expect_end();
}

/// An idle connection that the node closes is not used, or the request is sent again.
#[test]
fn a_node_that_closes_idle_connections() {
    let node = Node::bind();
    let daemon = start(node.port);
    for method in ["GET", "POST", "HEAD", "PUT"] {
        drop(pooled(&daemon, &node));
        let mut wire = daemon.wire();
        wire.send(request(method, "/next", &["Connection: close", "Content-Length: 0"]));
        let mut next = None;
        // A POST may have met the end of the connection, and is not sent again.
        eventually("the request arrives, or is refused", || {
            next = node.poll();
            next.is_some() || wire.stream().set_nonblocking(true).is_ok() && wire.stream().peek(&mut [0]).is_ok()
        });
        wire.stream().set_nonblocking(false).unwrap();
        let Some(mut link) = next.or_else(|| node.poll()) else {
            expect_eq((wire.response().status, method), (502, "POST"), "only a POST may be refused");
            continue;
        };
        assert!(head_of(&mut link).starts_with(method));
        link.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!(wire.response_head().status, 204, "{method}");
    }
}

/// A node that closes when the request is on its way: it may have handled it.
#[test]
fn what_is_sent_a_second_time() {
    for (method, fields, body, is_repeated) in [
        ("GET", &[][..], "", true),
        ("HEAD", &[], "", true),
        ("OPTIONS", &[], "", true),
        ("DELETE", &[], "", true),
        ("PUT", &["Content-Length: 0"], "", true),
        ("POST", &[], "", false),
        ("POST", &["Content-Length: 5"], "hello", false),
        ("PATCH", &["Content-Length: 0"], "", false),
        ("GET", &["Content-Length: 5"], "hello", false),
        ("PUT", &["Transfer-Encoding: chunked"], "0\r\n\r\n", false),
        ("PROPFIND", &[], "", false),
    ] {
        let node = Node::bind();
        let daemon = start(node.port);
        let link = pooled(&daemon, &node);
        let mut wire = daemon.wire();
        wire.send(request(method, "/next", fields) + body);
        // The request comes on the idle connection unless it was idle for too long to be safe.
        let mut other = None;
        eventually("the request arrives", || {
            other = node.poll();
            link.stream().set_nonblocking(true).unwrap();
            other.is_some() || link.stream().peek(&mut [0]).is_ok_and(|size| size > 0)
        });
        link.stream().set_nonblocking(false).unwrap();
        let is_reused = other.is_none();
        let mut link = other.unwrap_or(link);
        let head = head_of(&mut link);
        link.take(body.len());
        drop(link);
        if is_repeated && is_reused {
            let mut link = node.accept();
            expect_eq(head_of(&mut link), head, "the same request");
            link.send(reply("200 OK", ""));
            expect_eq(wire.response_head().status, 200, method);
        } else {
            expect_eq(wire.response_head().status, 502, (method, fields));
            // Another request comes next, and not this one.
            let mut wire = daemon.wire();
            wire.send(request("GET", "/other", &[]));
            let mut link = node.accept();
            assert!(head_of(&mut link).starts_with("GET /other "), "{method} was sent twice");
            link.send(reply("200 OK", ""));
            assert_eq!(wire.response().status, 200);
        }
    }
}

/// The second connection ends as the first one did: that is enough.
#[test]
fn a_request_is_repeated_once() {
    let node = Node::bind();
    let daemon = start(node.port);
    let mut link = pooled(&daemon, &node);
    let mut wire = daemon.wire();
    wire.send(request("GET", "/next", &[]));
    head_of(&mut link);
    drop(link);
    let mut link = node.accept();
    head_of(&mut link);
    drop(link);
    assert_eq!(wire.response().status, 502);
    assert!(node.poll().is_none());
    // Nor is it repeated after a part of a reply.
    let mut link = pooled(&daemon, &node);
    let mut wire = daemon.wire();
    wire.send(request("GET", "/next", &[]));
    head_of(&mut link);
    link.send("HTTP/1.1 200 OK\r\nX-");
    drop(link);
    assert_eq!(wire.response().status, 502);
    assert!(node.poll().is_none());
}
