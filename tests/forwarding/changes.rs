//! Reloads and stops while requests are in progress.

use nix::sys::signal::Signal;

use super::node::{Node, gateway, head_of, reply, start, start_in};
use crate::process::{DEADLINE, Folder, expect_eq};
use crate::reload::reload;
use crate::wire::request;

const BEGUN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";

/// Requests in progress keep the nodes of before; the next ones have those of after.
#[test]
fn a_reload_with_requests_in_progress() {
    let (node, other) = (Node::bind(), Node::bind());
    let daemon = start(node.port);
    let mut down = daemon.wire();
    down.send(request("GET", "/down", &[]));
    let mut down_link = node.accept();
    head_of(&mut down_link);
    down_link.send(BEGUN);
    assert_eq!(down.response_head().status, 200);
    let mut up = daemon.wire();
    up.send(request("POST", "/up", &["Content-Length: 10"]) + "01234");
    let mut up_link = node.accept();
    head_of(&mut up_link);
    assert_eq!(up_link.take(5), b"01234");
    let mut idle = daemon.wire();
    idle.send(request("GET", "/idle", &[]));
    let mut idle_link = node.accept();
    head_of(&mut idle_link);
    idle_link.send(reply("200 OK", ""));
    assert_eq!(idle.response().field("Connection"), "keep-alive");

    let text = gateway(other.port, "", "", "").replace('@', &daemon.folder().join(""));
    reload(&daemon, &text, "configuration");
    down_link.send("56789");
    assert_eq!(down.take(10), b"0123456789");
    up.send("56789");
    assert_eq!(up_link.take(5), b"56789");
    up_link.send(reply("200 OK", "up"));
    let response = up.response();
    assert_eq!((response.text().as_str(), response.field("Connection")), ("up", "close"));
    up.expect_end();
    let mut wire = daemon.wire();
    wire.send(request("GET", "/after", &[]));
    let mut link = other.accept();
    assert!(head_of(&mut link).starts_with("GET /after "));
    link.send(reply("200 OK", "after"));
    assert_eq!(wire.response().text(), "after");
}

/// A request in progress is completed within `drain-ms`; the lines tell its node.
#[test]
fn a_stop_with_requests_in_progress() {
    let node = Node::bind();
    let mut daemon = start_in(Folder::new(), &gateway(node.port, "drain-ms = 60000;", "", ""));
    let mut asked = daemon.wire();
    asked.send(request("GET", "/asked", &[]));
    let mut asked_link = node.accept();
    head_of(&mut asked_link);
    let mut begun = daemon.wire();
    begun.send(request("GET", "/begun", &[]));
    let mut begun_link = node.accept();
    head_of(&mut begun_link);
    begun_link.send(BEGUN);
    assert_eq!(begun.response_head().status, 200);
    daemon.signal(Signal::SIGTERM);
    daemon.log().wait_for(&["stopping"]);
    asked_link.send(reply("200 OK", "asked"));
    let response = asked.response();
    assert_eq!((response.text().as_str(), response.field("Connection")), ("asked", "close"));
    asked.expect_end();
    begun_link.send("56789");
    assert_eq!(begun.take_rest(), b"0123456789");
    expect_eq(daemon.wait(DEADLINE).status.success(), true, "the end");
    let name = format!("node \"127.0.0.1:{}\"", node.port);
    daemon.log().wait_for(&["debug", "GET 200 of ", &name]);
    daemon.log().wait_for(&["end client=127.0.0.1:", "name=\"asked\"", "status=200"]);
}

/// A node that never answers holds up the end for no longer than `drain-ms`.
#[test]
fn a_stop_with_a_silent_node() {
    let node = Node::bind();
    let mut daemon = start_in(Folder::new(), &gateway(node.port, "drain-ms = 100;", "", ""));
    let mut wire = daemon.wire();
    wire.send(request("GET", "/a", &[]));
    let mut link = node.accept();
    head_of(&mut link);
    daemon.signal(Signal::SIGTERM);
    expect_eq(daemon.wait(DEADLINE / 2).status.success(), true, "the end");
    assert_eq!(link.take_rest(), b"");
    wire.take_rest();
}
