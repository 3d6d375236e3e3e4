//! Slow readers, slow backends, large messages, and the memory that they take.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::client::{BINARY, Client, Frame, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, expect_eq, uninterrupted};
use crate::server::Backend;

const MIB: usize = 1024 * 1024;
/// Bytes sent in all to a peer that does not read.
const FLOOD_SIZE: usize = 64 * MIB;
/// A prime: lost, doubled or reordered bytes are noticed.
const PERIOD: usize = 1_999_993;
/// A peer that takes no byte for this time has stopped reading.
const STALL: Duration = Duration::from_millis(400);
/// The most memory that the daemon may have: its pool alone is 8 MiB.
const RESIDENT_KIB_MAX: u64 = 24 * 1024;

/// Bytes whose place can be checked.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Pattern {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut bytes: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
        bytes.extend_from_within(..MIB);
        Pattern(bytes)
    }

    /// The bytes from `offset` on, at most a MiB.
    fn at(&self, offset: usize, size: usize) -> &[u8] {
        &self.0[offset % PERIOD..][..size.min(MIB)]
    }

    fn check(&self, offset: usize, bytes: &[u8]) {
        for (number, piece) in bytes.chunks(MIB).enumerate() {
            let at = offset + number * MIB;
            assert!(piece == self.at(at, piece.len()), "wrong bytes within the {} from {at} on", piece.len());
        }
    }
}

/// Writes `bytes`, and reports the first time that the peer stops reading.
fn write_slowly(mut stream: impl Write, mut bytes: &[u8], mut on_stall: impl FnMut()) {
    while !bytes.is_empty() {
        match uninterrupted(|| stream.write(bytes)) {
            Ok(size) => bytes = &bytes[size..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => on_stall(),
            Err(error) => panic!("{} bytes were not sent: {error}", bytes.len()),
        }
    }
}

/// The backend floods the client; the bytes sent before the first stall come through the channel.
fn flood(backend: &Backend, pattern: &Pattern, frame: impl Fn(&[u8]) -> Vec<u8>, stalled: impl Fn(usize)) {
    backend.stream().set_write_timeout(Some(STALL)).unwrap();
    let mut offset = 0;
    while offset < FLOOD_SIZE {
        let piece = pattern.at(offset, MIB);
        write_slowly(backend.stream(), &frame(piece), || stalled(offset));
        offset += piece.len();
    }
}

fn expect_stall(stalls: &Receiver<usize>) {
    let sent = stalls.recv_timeout(DEADLINE).expect("the sender should have been held up");
    assert!(sent < FLOOD_SIZE / 2, "{sent} bytes are on the way");
}

fn expect_small(daemon: &Daemon) {
    let resident_kib = daemon.resident_kib();
    assert!(resident_kib < RESIDENT_KIB_MAX, "the daemon has {resident_kib} KiB");
}

fn read_flood(client: &mut Client, pattern: &Pattern) {
    let mut offset = 0;
    while offset < FLOOD_SIZE {
        let (_, message) = client.message();
        pattern.check(offset, &message);
        offset += message.len();
    }
    expect_eq(offset, FLOOD_SIZE, "bytes in all");
}

#[test]
fn backpressure_of_a_client_reaches_the_backend() {
    for flags in [&["--type", "binary"][..], &["--protocol", "frames"]] {
        let is_frames = flags.contains(&"frames");
        let daemon = Daemon::start(flags);
        let server = daemon.listen("server");
        let mut client = daemon.connect("/server");
        let backend = server.accept();
        let pattern = Pattern::new();
        let (sender, stalls) = channel();
        let framed = |bytes: &[u8]| if is_frames { Frame::new(BINARY, bytes).bytes() } else { bytes.to_vec() };
        thread::scope(|scope| {
            scope.spawn(|| flood(&backend, &pattern, framed, |offset| _ = sender.send(offset)));
            expect_stall(&stalls);
            expect_small(&daemon);
            // Others are served.
            expect_eq(daemon.get("/nosuch").status, 404, "a request beside a flood");
            read_flood(&mut client, &pattern);
        });
        expect_small(&daemon);
        client.close(1000);
        drop(backend);
        client.expect_close(1000);
    }
}

#[test]
fn backpressure_of_a_backend_reaches_the_client() {
    for flags in [&[][..], &["--protocol", "frames"]] {
        let is_frames = flags.contains(&"frames");
        let daemon = Daemon::start(flags);
        let server = daemon.listen("server");
        let client = daemon.connect("/server");
        let mut backend = server.accept();
        let pattern = Pattern::new();
        let (sender, stalls) = channel();
        client.wire.stream().set_write_timeout(Some(STALL)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for offset in (0..FLOOD_SIZE).step_by(MIB) {
                    let bytes = Frame::new(BINARY, pattern.at(offset, MIB)).masked().bytes();
                    write_slowly(client.wire.stream(), &bytes, || _ = sender.send(offset));
                }
            });
            expect_stall(&stalls);
            expect_small(&daemon);
            expect_eq(daemon.get("/nosuch").status, 404, "a request beside a flood");
            for offset in (0..FLOOD_SIZE).step_by(MIB) {
                let bytes = if is_frames { backend.message().1 } else { backend.take(MIB) };
                pattern.check(offset, &bytes);
            }
        });
        expect_small(&daemon);
    }
}

#[test]
fn many_stalled_clients_leave_buffers_for_others() {
    let daemon = Daemon::start(&["--type", "binary"]);
    let server = daemon.listen("server");
    // Each holds a few buffers, together more than the pool has.
    let stuck: Vec<_> = (0..40).map(|_| (daemon.connect("/server"), server.accept())).collect();
    let bytes = vec![0xff; 16 * MIB];
    thread::scope(|scope| {
        let writers: Vec<_> = stuck
            .iter()
            .map(|(_, backend)| {
                let (stream, bytes) = (backend.stream(), &bytes);
                stream.set_write_timeout(Some(STALL)).unwrap();
                scope.spawn(move || {
                    let mut stream = stream;
                    bytes.chunks(MIB / 4).all(|piece| stream.write_all(piece).is_ok())
                })
            })
            .collect();
        let finished = writers.into_iter().map(|writer| writer.join().unwrap()).filter(|is_done| *is_done).count();
        expect_eq(finished, 0, "floods that were not held up");
    });
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    for _ in 0..20 {
        client.text("hello");
        backend.expect("hello");
        backend.send("world");
        client.expect_binary(b"world");
    }
    let resident_kib = daemon.resident_kib();
    assert!(resident_kib < 2 * RESIDENT_KIB_MAX, "the daemon has {resident_kib} KiB");
}

#[test]
fn a_message_of_16_mib_in_both_directions() {
    let daemon = Daemon::start(&["--protocol", "frames"]);
    let _echo = daemon.echo("echo", &["--protocol", "frames"]);
    let mut client = daemon.connect("/echo");
    let pattern = Pattern::new();
    let message: Vec<u8> = (0..16).flat_map(|number| pattern.at(number * MIB, MIB).to_vec()).collect();
    let bytes = Frame::new(BINARY, &message).masked().bytes();
    for _ in 0..2 {
        let mut sender = client.wire.stream().try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&bytes).unwrap());
            client.expect_binary(&message);
        });
        expect_small(&daemon);
    }
    client.finish(1000);
}

#[test]
fn a_message_beyond_the_limit_is_1009() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    // The header alone is refused.
    let size = (64 * MIB as u64 + 1).to_be_bytes();
    client.wire.send([&[0x82, 0xff][..], &size, &[0; 4]].concat());
    client.expect_close(1009);
    client.wire.expect_end();
    backend.expect_end();
}

#[test]
fn pings_whose_pongs_are_not_read() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let mut client = daemon.connect("/server");
    let _backend = server.accept();
    let ping = Frame::new(9, &[7; 125]).masked().bytes();
    let pings = ping.repeat(64 * 1024 / ping.len());
    client.wire.stream().set_write_timeout(Some(STALL)).unwrap();
    // 32 MiB of pings: whether the sender is not read or pongs are dropped, the memory does not grow.
    let mut stream = client.wire.stream();
    for _ in 0..512 {
        if stream.write_all(&pings).is_err() {
            break;
        }
    }
    expect_small(&daemon);
    assert_eq!(client.frame(), Frame::new(10, &[7; 125]));
}

#[test]
fn bytes_before_the_end_of_the_backend_reach_a_slow_client() {
    let daemon = Daemon::start(&["--type", "binary"]);
    let server = daemon.listen("server");
    let mut client = daemon.connect("/server");
    let mut backend = server.accept();
    let pattern = Pattern::new();
    // As much as the gateway and the kernel take while the client does not read.
    backend.send(pattern.at(0, 300 * 1024));
    drop(backend);
    daemon.get("/nosuch");
    let mut offset = 0;
    while offset < 300 * 1024 {
        let frame = client.frame();
        pattern.check(offset, &frame.payload);
        offset += frame.payload.len();
    }
    client.expect_close_handshake(1000);
}

#[test]
fn many_small_messages_keep_their_order() {
    let daemon = Daemon::start(&["--protocol", "frames"]);
    let _echo = daemon.echo("echo", &["--protocol", "frames"]);
    let mut client = daemon.connect("/echo");
    let messages: Vec<Frame> = (0..20_000).map(|number| Frame::new(TEXT, format!("{number}").as_bytes())).collect();
    let bytes: Vec<u8> = messages.iter().flat_map(|frame| frame.clone().masked().bytes()).collect();
    let mut sender = client.wire.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&bytes).unwrap());
        for message in &messages {
            assert_eq!(client.message(), (TEXT, message.payload.clone()));
        }
    });
    client.finish(1000);
}

#[test]
fn a_backend_that_reads_byte_by_byte_loses_nothing() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let mut client = daemon.connect("/server");
    let backend = server.accept();
    let text = "0123456789".repeat(500);
    client.text(&text);
    client.close(1000);
    let mut got = Vec::new();
    let mut byte = [0];
    while uninterrupted(|| backend.stream().read(&mut byte)).unwrap() == 1 {
        got.push(byte[0]);
    }
    expect_eq(String::from_utf8(got).unwrap(), text, "what was read");
}

/// Empty packets have no bytes, and still take memory.
#[test]
fn backpressure_applies_to_empty_messages() {
    let daemon = Daemon::start(&["--protocol", "packet"]);
    let server = daemon.listen_packets("server");
    let client = daemon.connect("/server");
    let _deaf = server.accept();
    client.wire.stream().set_write_timeout(Some(STALL)).unwrap();
    let frames = Frame::new(BINARY, b"").masked().bytes().repeat(10_000);
    let is_held_up = (0..500).any(|_| client.wire.stream().write_all(&frames).is_err());
    assert!(is_held_up, "{} empty messages were taken in", 500 * 10_000);
    expect_small(&daemon);
}

/// Writes until the peer stops reading, or all is written. Returns the bytes written.
fn write_until_stalled(mut stream: &UnixStream, pattern: &Pattern, size_max: usize) -> usize {
    stream.set_write_timeout(Some(STALL)).unwrap();
    let mut done = 0;
    while done < size_max {
        match uninterrupted(|| stream.write(pattern.at(done, (size_max - done).min(16 * 1024)))) {
            Ok(size) => done += size,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("after {done} bytes: {error}"),
        }
    }
    done
}

/// All that a backend sent before its end arrives, however late a client begins to read.
#[test]
fn a_late_reader_receives_the_last_bytes_of_a_closed_backend() {
    // The clients are read one after the other.
    let daemon = Daemon::start_configured(&configuration("stall-ms = 600000;", "type = \"binary\";"));
    let server = daemon.listen("server");
    let pattern = Pattern::new();
    let _first = daemon.connect("/server");
    let most = write_until_stalled(server.accept().stream(), &pattern, FLOOD_SIZE);
    // Some of these amounts end in the gateway's queue: read, and not sent yet.
    let late: Vec<(Client, usize)> = (1..=8)
        .map(|number| {
            let mut client = daemon.connect("/server");
            let size = write_until_stalled(server.accept().stream(), &pattern, most.saturating_sub(number * 48 * 1024));
            if number % 2 == 0 {
                // The backend has gone, which must not drop what is on its way.
                client.text("are you still there?");
            }
            (client, size)
        })
        .collect();
    // Longer than CLOSE_MS: the pause itself is tested.
    thread::sleep(Duration::from_millis(4_000));
    for (mut client, size) in late {
        let mut got = 0;
        while got < size {
            let (_, message) = client.message();
            pattern.check(got, &message);
            got += message.len();
        }
        client.expect_close_handshake(1000);
    }
}
