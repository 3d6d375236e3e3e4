//! Descriptors closed by syscall(2) or without the library, and addresses.

use super::Server;
use crate::client::{Client, Frame, TEXT};
use crate::handover::give_late;
use crate::process::{Lines, eventually};
use crate::wire::{Wire, handshake};

fn start(call: &str) -> (Server, Client) {
    let server = Server::patient("descriptors", &[call]);
    let client = server.client();
    (server, client)
}

fn expect_lines(out: &Lines, lines: &[&str]) {
    for line in lines {
        out.wait(|said| said.iter().any(|one| one == line).then_some(()))
            .unwrap_or_else(|| panic!("{line:?} was not said, but:\n{}", out.text()));
    }
}

/// The server closes: a close frame and the end.
fn expect_goodbye(client: &mut Client) {
    client.expect_close(1000);
    client.wire.expect_end();
}

#[test]
fn closed_by_descriptor_number() {
    let (server, mut client) = start("number");
    client.expect_text("bye");
    expect_goodbye(&mut client);
    expect_lines(&server.process.out, &["close: 0 ", "again: EBADF"]);
}

#[test]
fn duplicated_to_a_descriptor_number() {
    let (server, mut client) = start("copies");
    client.expect_text("still here");
    client.expect_close(1000);
    client.text("you too");
    client.close(1000);
    expect_lines(&server.process.out, &["dup3: 1 ", "fcntl: 1 ", "fcntl64: 1 ", "shutdown: 0 ", "read: 7 you too"]);
    client.wire.expect_end();
    server.process.out.wait_for(&["close_range: 0"]);
}

#[test]
fn other_calls_receive_all_their_arguments() {
    let (server, mut client) = start("arguments");
    expect_lines(&server.process.out, &["mmap: 1 ", "tgkill: 0 ", "nothing: ENOSYS"]);
    expect_goodbye(&mut client);
}

#[test]
fn a_file_that_reuses_the_descriptor_of_a_client() {
    let (server, mut client) = start("file");
    client.close(1000);
    client.expect_close(1000);
    client.wire.expect_end();
    expect_lines(&server.process.out, &["same number: 1", "send: ENOTSOCK", "in the file: 10 0123456789"]);
    let (server, _client) = start("copy");
    expect_lines(&server.process.out, &["same number: 1"]);
    expect_lines(&server.process.out, &["in the file: 10 0123456789"]);
}

#[test]
fn a_received_socket_that_reuses_the_descriptor_of_a_client() {
    let (server, mut client) = start("passed");
    expect_lines(&server.process.out, &["same number: 1", "read: 3 raw"]);
    client.expect_text("served");
    expect_goodbye(&mut client);
}

/// The library inspects a new client by a descriptor of its own, which it closes.
#[test]
fn a_descriptor_closed_outside_the_library_may_be_reused_by_another_client() {
    let (server, mut client) = start("next");
    server.process.out.wait_for(&["other: 1"]);
    client.wire.expect_end();
    let mut next = server.client();
    next.text("Hello");
    next.expect_text("Hello");
    next.finish(1000);
}

#[test]
fn a_late_hand_over_does_not_replace_a_file() {
    let server = Server::compiled_with("descriptors", &["late"], &[("WEBSOCKET_WAIT_MS", "0")]);
    let mut client = give_late(&server.path, || {
        // The first client was the test's probe of the listener.
        server.process.out.wait_for(&["client 2"]);
    });
    client.text("late");
    server.process.out.wait_for(&["read: 4 late"]);
    eventually("both have been served", || {
        let text = server.process.out.text();
        let files: Vec<_> = text.lines().filter(|line| line.starts_with("in the file: ")).collect();
        files == ["in the file: 8 01234567"; 2]
    });
    expect_goodbye(&mut client);
}

/// A server with a buffer of exactly `struct sockaddr_un` trusts its listener's family.
#[test]
fn accept_getsockname_and_getpeername_return_addresses() {
    let (unix, inet) = ("accept: family 1 size 2", "accept: family 2 size 16 127.0.0.1:");
    for (call, accepted) in [("address", unix), ("peer", inet)] {
        let server = Server::patient("descriptors", &[call]);
        let mut client = server.client();
        let port = client.wire.stream().local_addr().unwrap().port();
        client.text("me");
        server.process.out.wait_for(&["read: 2 me"]);
        let accepted = if call == "peer" { format!("{accepted}{port}") } else { accepted.to_owned() };
        let asked = format!("getpeername: family 2 size 16 127.0.0.1:{port}");
        let own = if call == "peer" { "getsockname: family 2" } else { "getsockname: family 1" };
        expect_lines(&server.process.out, &[&accepted, &asked, own]);
        expect_goodbye(&mut client);
    }
}

/// Its bytes come through a socket pair, which has no address.
#[test]
fn getpeername_returns_the_address_of_a_relayed_client() {
    let server = Server::patient("descriptors", &["peer"]);
    let mut wire: Wire = server.daemon.wire();
    let port = wire.stream().local_addr().unwrap().port();
    wire.send([handshake("/server", &[], &[]).as_bytes(), &Frame::new(TEXT, b"early").masked().bytes()].concat());
    assert_eq!(wire.response_head().status, 101);
    server.process.out.wait_for(&["read: 5 early"]);
    server.process.out.wait_for(&[&format!("getpeername: family 2 size 16 127.0.0.1:{port}")]);
    let mut client = Client::new(wire);
    expect_goodbye(&mut client);
}
