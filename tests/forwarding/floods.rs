//! Bodies that are not taken, and what they hold.

use std::io::{ErrorKind, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::node::{Node, head_of, reply, start};
use crate::daemon::Daemon;
use crate::http::noise;
use crate::process::{DEADLINE, uninterrupted};
use crate::wire::{Wire, request};

const MIB: usize = 1024 * 1024;
const FLOOD_SIZE: usize = 64 * MIB;
/// A peer that takes no byte for this time has stopped reading.
const STALL: Duration = Duration::from_millis(400);
/// The most memory that the daemon may have: its pool alone is 8 MiB.
const RESIDENT_KIB_MAX: u64 = 24 * 1024;

/// Sends the flood, which repeats `piece`, and reports the first bytes that were held up.
fn flood(wire: &Wire, piece: &[u8], stalled: impl Fn(usize)) {
    let mut stream = wire.stream();
    stream.set_write_timeout(Some(STALL)).unwrap();
    let mut sent = 0;
    while sent < FLOOD_SIZE {
        match uninterrupted(|| stream.write(&piece[sent % MIB..])) {
            Ok(size) => sent += size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => stalled(sent),
            Err(error) => panic!("{sent} bytes were sent: {error}"),
        }
    }
}

/// The sender is held up, and the daemon is small meanwhile; others are served.
fn expect_held_up(daemon: &Daemon, node: &Node, stalls: &Receiver<usize>) {
    let sent = stalls.recv_timeout(DEADLINE).expect("the sender should have been held up");
    assert!(sent < FLOOD_SIZE / 2, "{sent} bytes are on the way");
    let resident_kib = daemon.resident_kib();
    assert!(resident_kib < RESIDENT_KIB_MAX, "the daemon has {resident_kib} KiB");
    let mut wire = daemon.wire();
    wire.send(request("GET", "/other", &["Connection: close"]));
    let mut link = node.accept();
    head_of(&mut link);
    link.send(reply("200 OK", "other"));
    assert_eq!(wire.response().text(), "other");
}

/// Takes the flood.
fn expect_flood(wire: &mut Wire, piece: &[u8]) {
    for number in 0..FLOOD_SIZE / MIB {
        assert!(wire.take(MIB) == piece, "wrong bytes in MiB {number}");
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_the_node() {
    let node = Node::bind();
    let daemon = start(node.port);
    let piece = noise(MIB);
    let mut wire = daemon.wire();
    wire.send(request("GET", "/large", &["Connection: close"]));
    let mut link = node.accept();
    head_of(&mut link);
    let (sender, stalls) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            link.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD_SIZE}\r\n\r\n"));
            flood(&link, &piece, |sent| _ = sender.send(sent));
        });
        expect_held_up(&daemon, &node, &stalls);
        assert_eq!(wire.response_head().field("Content-Length"), FLOOD_SIZE.to_string());
        expect_flood(&mut wire, &piece);
    });
    wire.expect_end();
}

#[test]
fn a_node_that_does_not_read_holds_up_the_client() {
    let node = Node::bind();
    let daemon = start(node.port);
    let piece = noise(MIB);
    let mut wire = daemon.wire();
    wire.send(request("PUT", "/large", &[&format!("Content-Length: {FLOOD_SIZE}")]));
    let mut link = node.accept();
    head_of(&mut link);
    let (sender, stalls) = channel();
    thread::scope(|scope| {
        scope.spawn(|| flood(&wire, &piece, |sent| _ = sender.send(sent)));
        expect_held_up(&daemon, &node, &stalls);
        expect_flood(&mut link, &piece);
    });
    link.send(reply("201 Created", "stored"));
    let response = wire.response();
    assert_eq!((response.status, response.field("Connection")), (201, "keep-alive"));
}
