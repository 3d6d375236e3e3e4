//! Clients that sent bytes before the hand-over: the last bytes of each end arrive, whichever end leaves first.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use nix::sys::signal::Signal;

use super::{DIRECT, stopped_slowly};
use crate::client::{Client, Frame};
use crate::daemon::{Daemon, configuration};
use crate::handover::{Given, take};
use crate::server::{Kind, Listener};
use crate::wire::{Wire, handshake};

const EARLY: &[u8] = b"early";

/// A client that is relayed, and its backend.
fn relayed(daemon: &Daemon, server: &Listener) -> (Client, Given) {
    relayed_over(daemon.wire(), server)
}

fn relayed_over(mut wire: Wire, server: &Listener) -> (Client, Given) {
    wire.send([handshake("/echo", &[], &[]).as_bytes(), EARLY].concat());
    assert_eq!(wire.response_head().status, 101);
    let given = take(server);
    (Client::new(wire), given)
}

#[test]
fn a_backend_that_shut_down_writing_still_receives() {
    // A client whose backend has ended has so long to send.
    let limits = "options = \"direct\"; limits = { close-ms = 60000; };";
    let daemon = Daemon::start_configured(&configuration("", limits));
    let (mut client, mut given) = relayed(&daemon, &daemon.listen("echo"));
    given.client.send("all I say");
    given.client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.wire.take(9), b"all I say");
    // More than the kernel buffers for the backend, so that the client's end comes while the gateway holds some.
    let large = vec![b'x'; 3_000_000];
    thread::scope(|scope| {
        let mut out = client.wire.stream();
        scope.spawn(move || {
            out.write_all(&[b'x'; 3_000_000]).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        given.client.expect(EARLY);
        given.client.expect(&large);
    });
    given.client.expect_end();
    client.wire.expect_end();
    daemon.log().wait_for(&["end", "up=3000005B/0", "handed over through a socket pair"]);
}

#[test]
fn a_backend_that_shut_down_reading_still_sends() {
    let daemon = Daemon::start(DIRECT);
    // A client that has unsent bytes when the backend has gone.
    let wire = Wire::new(daemon.narrow_stream(4096));
    let (mut client, given) = relayed_over(wire, &daemon.listen("echo"));
    // A close with unread bytes is a reset after the sent bytes.
    given.client.wait_for_input();
    let last = vec![b'y'; 400_000];
    thread::scope(|scope| {
        // What the kernel buffers without a reader differs from run to run: the client reads meanwhile.
        scope.spawn(|| {
            given.client.stream().write_all(&last).unwrap();
            drop(given);
        });
        assert!(client.wire.take(last.len()) == last);
    });
    client.wire.expect_end();
    daemon.log().wait_for(&["end", "handed over through a socket pair"]);
}

#[test]
fn bytes_before_a_reset_reach_the_backend() {
    let daemon = Daemon::start_configured(
        r#"servers = ({ listen = ("127.0.0.1:0", "unix:@/gate"); websocket = { docroot = "@/run"; options = "direct"; }; });"#,
    );
    let server = daemon.listen("echo");
    let mut stream = crate::server::connect(&daemon.folder().path().join("gate"), Kind::Stream).unwrap();
    stream.write_all(&[handshake("/echo", &[], &[]).as_bytes(), EARLY].concat()).unwrap();
    let mut given = take(&server);
    // A little more than the kernel buffers for the backend.
    let all = vec![b'x'; 300_000];
    stream.write_all(&all).unwrap();
    // Its 101 is unread, so that its close is a reset.
    drop(stream);
    given.client.expect(EARLY);
    given.client.expect(&all);
    given.client.expect_end();
    drop(given);
    daemon.log().wait_for(&["end", "the client's connection broke"]);
}

#[test]
fn the_last_bytes_are_relayed_at_shutdown() {
    let mut daemon = stopped_slowly();
    let (mut client, mut given) = relayed(&daemon, &daemon.listen("echo"));
    given.client.expect(EARLY);
    daemon.signal(Signal::SIGTERM);
    given.client.expect_end();
    // It does not know of the stop. Unread bytes would make the end a reset.
    client.wire.send([b'x'; 10_000]);
    given.client.send_frame(&Frame::close(1001, "so long"));
    drop(given);
    assert_eq!(client.expect_close(1001), "so long");
    client.wire.expect_end();
    assert!(daemon.wait(crate::process::DEADLINE).status.success());
}
