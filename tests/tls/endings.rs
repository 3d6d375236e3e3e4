//! How TLS connections end: close_notify of either side (RFC 8446 section 6.1), and ends without it.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::{
    ALL, Server, TLS_1_2, TLS_1_3, client_config, configuration, start, start_configured, start_without_deadlines, wire,
};
use crate::client::{BINARY, CLOSE, Client, Frame, TEXT};
use crate::process::{eventually, expect_eq};
use crate::server::{Backend, Listener};
use crate::wire::{Wire, request};

/// Expects close_notify, then the end of TCP, without another byte.
fn expect_end(wire: &mut Wire) {
    let rest = wire.take_rest();
    assert!(rest.is_empty(), "bytes where the end was due: {}", rest.escape_ascii());
    expect_tcp_end(wire);
}

/// The gateway has sent close_notify; expects the end of TCP, then closes this side.
fn expect_tcp_end(wire: &mut Wire) {
    assert_eq!(wire.end(), "the end of the stream");
    let mut rest = Vec::new();
    wire.stream().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "bytes after close_notify: {rest:x?}");
    wire.expect_end();
}

fn join(server: &Listener, mut wire: Wire) -> (Client, Backend) {
    assert_eq!(wire.upgrade("/server", &[]).status, 101);
    (Client::new(wire), server.accept())
}

/// A WebSocket's closing handshake by either side, a page with `Connection: close`, and an idle connection.
#[test]
fn the_gateway_announces_each_end() {
    let daemon = start_configured(&configuration("keepalive-ms = 300;", &[Server::default()]));
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        let new = || wire(daemon.port, client_config(&daemon, version, None));
        let (mut client, backend) = join(&server, new());
        client.close(1000);
        drop(backend);
        client.expect_close(1000);
        expect_end(&mut client.wire);

        let (mut client, backend) = join(&server, new());
        drop(backend);
        client.expect_close(1000);
        client.close(1000);
        expect_end(&mut client.wire);

        let mut closing = new();
        closing.send(request("GET", "/", &["Connection: close"]));
        expect_eq(closing.response().status, 200, "a page");
        expect_end(&mut closing);

        let mut idle = new();
        expect_eq(idle.get("/").status, 200, "a page");
        expect_end(&mut idle);

        let mut bad = new();
        bad.send("no request\r\n\r\n");
        expect_eq(bad.response().status, 400, "no request");
        expect_end(&mut bad);
    }
}

/// Long messages arrive whole before the end.
#[test]
fn nothing_is_lost_before_the_end() {
    const SIZE: usize = 8 * 1024 * 1024;
    let daemon = start(&[Server { websocket: "protocol = \"frames\";", ..Server::default() }]);
    let server = daemon.listen("server");
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    for version in [TLS_1_2, TLS_1_3] {
        let (mut client, mut backend) = join(&server, wire(daemon.port, client_config(&daemon, version, None)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                backend.send_frame(&Frame::new(TEXT, &[b'x'; SIZE]));
                backend.send_frame(&Frame::new(BINARY, &bytes));
                backend.send_frame(&Frame::close(1001, ""));
                let _ = backend.stream().shutdown(Shutdown::Write);
            });
            assert!(client.message().1 == [b'x'; SIZE], "another text");
            client.expect_binary(&bytes);
            client.expect_close(1001);
            client.close(1001);
            expect_end(&mut client.wire);
        });
    }
}

/// The client keeps TCP open: the gateway ends the connection, and none of its deadlines does.
#[test]
fn close_notify_of_a_client_is_answered() {
    let daemon = start_without_deadlines();
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        let new = || wire(daemon.port, client_config(&daemon, version, None));
        // Before a request, between two requests, and in a conversation.
        for requests in 0..2 {
            let mut wire = new();
            for _ in 0..requests {
                expect_eq(wire.get("/").status, 200, "a page");
            }
            wire.close_tls();
            expect_end(&mut wire);
        }
        let (mut client, mut backend) = join(&server, new());
        client.text("hello");
        client.wire.close_tls();
        backend.expect("hello");
        backend.expect_end();
        drop(backend);
        let rest = client.wire.take_rest();
        assert!(rest.is_empty() || rest[0] & 0xf == CLOSE, "{rest:x?}");
        expect_tcp_end(&mut client.wire);
    }
}

/// A request and close_notify in one go: the client waits for the response.
#[test]
fn close_notify_behind_a_request() {
    let daemon = start(&[Server::default()]);
    for version in [TLS_1_2, TLS_1_3] {
        let mut wire = wire(daemon.port, client_config(&daemon, version, None));
        wire.send(request("GET", "/", &[]));
        wire.close_tls();
        expect_eq(wire.response().status, 200, "a page");
        expect_end(&mut wire);
    }
}

/// A connection that is cut: the backend sees the end, and the daemon keeps no file.
#[test]
fn an_end_without_close_notify() {
    let daemon = start(&[Server::default()]);
    let server = daemon.listen("server");
    expect_eq(wire(daemon.port, client_config(&daemon, ALL, None)).get("/").status, 200, "a page");
    let files = daemon.open_files();
    for cut in 0..3 {
        let (mut client, mut backend) = join(&server, wire(daemon.port, client_config(&daemon, ALL, None)));
        client.text("hello");
        backend.expect("hello");
        match cut {
            0 => client.wire.stream().shutdown(Shutdown::Both).unwrap(),
            // A record that stops in its header, and one in its payload.
            1 => client.wire.stream().write_all(&[23, 3]).unwrap(),
            _ => client.wire.stream().write_all(&[23, 3, 3, 1, 0, 7, 7, 7]).unwrap(),
        }
        drop(client);
        backend.expect_end();
    }
    eventually("no file is left open", || daemon.open_files() <= files);
}
