//! Bytes and messages: queue sizes and rates.

use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::{exchange, pair};
use crate::client::{BINARY, CLOSE, CONTINUATION, Client, Frame, PING};
use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, expect_eq, uninterrupted};
use crate::server::Backend;
use crate::wire::Wire;

const MIB: usize = 1024 * 1024;
/// A peer that takes no byte for this time has stopped reading.
const STALL: Duration = Duration::from_secs(2);

/// Writes until the peer stops reading, at most `size_max`. Returns the bytes written.
fn write_until_stalled(mut stream: impl Write, size_max: usize) -> usize {
    let bytes = vec![7; 64 * 1024];
    let mut done = 0;
    while done < size_max {
        match uninterrupted(|| stream.write(&bytes[..bytes.len().min(size_max - done)])) {
            Ok(size) => done += size,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("after {done} bytes: {error}"),
        }
    }
    done
}

/// Writes to a client that does not read, until it stalls. The gateway must take the least amount, however slowly.
fn flood(backend: &Backend, least: usize) -> usize {
    expect_eq(write_until_stalled(backend.stream(), least), least, "bytes that should be taken");
    backend.stream().set_write_timeout(Some(STALL)).unwrap();
    let sent = least + write_until_stalled(backend.stream(), 64 * MIB - least);
    backend.stream().set_write_timeout(Some(DEADLINE)).unwrap();
    sent
}

/// The bytes in flight, apart from the kernel's buffers, follow the limit.
#[test]
fn queue_size() {
    let sent = thread::scope(|scope| {
        let floods = [("4096", 0), ("25165824", 24 * MIB)].map(|(size, least)| {
            scope.spawn(move || {
                let limits = format!("queued-size = 67108864; queue-size = {size};");
                let daemon = Daemon::start_configured(&configuration(&limits, "type = \"binary\";"));
                let server = daemon.listen("server");
                let (mut client, backend) = pair(&daemon, &server);
                let sent = flood(&backend, least);
                // What was held back arrives.
                let mut got = 0;
                while got < sent {
                    got += client.message().1.len();
                }
                expect_eq(got, sent, "bytes that arrived");
                exchange_binary(&mut client, backend);
                sent
            })
        });
        floods.map(|flood| flood.join().unwrap())
    });
    // The kernel's buffers may differ by a few MiB from one run to the other.
    assert!(sent[0] < 16 * MIB, "{sent:?} bytes were taken");
    assert!(sent[1] < 48 * MIB, "{sent:?} bytes were taken");
}

fn exchange_binary(client: &mut Client, mut backend: Backend) {
    client.text("question");
    backend.expect("question");
    backend.send("answer");
    client.expect_binary(b"answer");
}

/// A client must have been throttled since `start`: its last message arrives after this time at the earliest. A standstill
/// of the gateway allows what could have arrived meanwhile, so `start` precedes the gateway's own start.
fn expect_throttled(mut pair: (Client, Backend), start: Instant, least_ms: u64) {
    pair.0.text("last");
    pair.1.expect("last");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(least_ms) && took < DEADLINE / 2, "{took:?}");
    exchange(&mut pair);
}

/// A client over its rate is read more slowly: all arrives, and late.
#[test]
fn a_fast_client_is_throttled() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            let daemon = Daemon::start_configured(&configuration("", "limits = { messages-per-second = 50; };"));
            let server = daemon.listen("server");
            let (mut client, mut backend) = pair(&daemon, &server);
            // One second's messages may come at once; the others are due at 50 a second.
            client.send(&vec![Frame::new(BINARY, b"x"); 125]);
            backend.expect("x".repeat(125));
            expect_throttled((client, backend), start, 1_490);
        });
        scope.spawn(|| {
            let start = Instant::now();
            let daemon = Daemon::start_configured(&configuration("bytes-per-second = 200000;", ""));
            let server = daemon.listen("server");
            let (mut client, mut backend) = pair(&daemon, &server);
            let message: Vec<u8> = (0..600_000).map(|at| (at % 251) as u8).collect();
            thread::scope(|scope| {
                scope.spawn(|| client.binary(&message));
                assert!(backend.take(message.len()) == message, "other bytes than were sent");
            });
            expect_throttled((client, backend), start, 1_990);
        });
    });
}

#[test]
fn a_fast_client_is_closed() {
    // The amounts of 20 s, received at once: a gateway that stood still allows what it could not read meanwhile.
    const COUNT: usize = 400;
    for (limits, frames) in [
        ("messages-per-second = 20;", vec![Frame::new(BINARY, b"x"); COUNT]),
        ("messages-per-second = 20;", vec![Frame::new(PING, b"x"); COUNT]),
        ("messages-per-second = 20;", {
            // An endless message of empty fragments.
            let mut fragments = vec![Frame::part(CONTINUATION, b""); COUNT];
            fragments[0].opcode = BINARY;
            fragments
        }),
        ("bytes-per-second = 1000;", vec![Frame::new(BINARY, &[b'x'; 20_000])]),
    ] {
        let websocket = format!("limits = {{ when-over = \"close\"; {limits} }};");
        let daemon = Daemon::start_configured(&configuration("", &websocket));
        let server = daemon.listen("server");
        let mut quiet = pair(&daemon, &server);
        let (mut client, mut backend) = pair(&daemon, &server);
        client.send(&frames);
        // What was received is passed on, then the backend sees the end.
        let sizes = frames.iter().filter(|frame| frame.opcode == BINARY).map(|frame| frame.payload.len());
        backend.expect("x".repeat(sizes.sum()));
        backend.expect_end();
        drop(backend);
        let mut frame = client.frame();
        while frame.opcode != CLOSE {
            frame = client.frame();
        }
        expect_eq(frame.close_code().0, 1008, limits);
        client.wire.expect_end();
        daemon.log().wait_for(&["info", "the client sent more a second than it may (1008)"]);
        exchange(&mut quiet);
    }
}

/// Fragments of 1 KiB count as bytes: only shorter ones count as messages.
#[test]
fn fragments_count_as_one_message() {
    let limits = "limits = { when-over = \"close\"; messages-per-second = 20; };";
    let daemon = Daemon::start_configured(&configuration("", limits));
    let server = daemon.listen("server");
    let (mut client, mut backend) = pair(&daemon, &server);
    let mut fragments = vec![Frame::part(CONTINUATION, &[b'x'; 1024]); 100];
    fragments[0].opcode = BINARY;
    fragments.push(Frame::new(CONTINUATION, b"end"));
    client.send(&fragments);
    backend.expect("x".repeat(100 * 1024) + "end");
    exchange(&mut (client, backend));
}

/// Over the budget the heaviest connection is closed, and no other.
#[test]
fn the_heaviest_connection_is_closed() {
    let limits =
        "queued-size = 1048576; pool-buffers = 16; queue-size = 4194304; head-ms = 60000; handshake-ms = 60000;";
    let daemon = Daemon::start_configured(&configuration(limits, "type = \"binary\";"));
    let server = daemon.listen("server");
    let (mut quiet, quiet_backend) = pair(&daemon, &server);
    // These hold less.
    let mut modest: Vec<Wire> = (0..8).map(|_| daemon.wire()).collect();
    modest.iter_mut().for_each(|wire| wire.send(format!("GET /nosuch HTTP/1.1\r\nX: {}", "x".repeat(12_000))));
    let (_greedy, greedy_backend) = pair(&daemon, &server);
    let (mut stream, bytes) = (greedy_backend.stream(), vec![7; 64 * 1024]);
    let fault = (0..1024).find_map(|_| stream.write_all(&bytes).err());
    let kind = fault.map(|error| error.kind());
    let is_broken_off = matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
    assert!(is_broken_off, "{kind:?} after {} MiB", bytes.len() * 1024 / MIB);
    daemon.log().wait_for(&["warn", "broken off (1006): it held most"]);
    exchange_binary(&mut quiet, quiet_backend);
    for mut wire in modest {
        wire.send("\r\nHost: gate.example\r\n\r\n");
        assert_eq!(wire.response().status, 404);
    }
    expect_eq(daemon.log().text().matches("held most").count(), 1, "those who were broken off");
}
