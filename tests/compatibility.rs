//! Each place where ouistiti was seen to break, which uakari replaces.

use std::io::Write;
use std::thread;

use crate::client::{BINARY, CONTINUATION, Client, Frame, PING, TEXT};
use crate::daemon::Daemon;
use crate::process::{Process, eventually};
use crate::server::Backend;
use crate::wire::{handshake, request};

/// A daemon in the default protocol, with a backend that the test plays.
fn connect() -> (Daemon, Client, Backend) {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let client = daemon.connect("/server");
    let backend = server.accept();
    (daemon, client, backend)
}

/// A daemon with an echo backend that keeps messages as they are.
fn with_echo(options: &[&str]) -> (Daemon, Process) {
    let daemon = Daemon::start(&["--protocol", "frames"]);
    let echo = daemon.echo("echo", &[&["--protocol", "frames"], options].concat());
    (daemon, echo)
}

#[test]
fn two_frames_in_one_segment() {
    let (_daemon, mut client, mut backend) = connect();
    client.send(&[Frame::new(TEXT, b"one"), Frame::new(BINARY, b"two"), Frame::new(PING, b"three")]);
    client.expect_pong(b"three");
    backend.expect(b"onetwo");
}

#[test]
fn a_frame_split_over_segments() {
    let (_daemon, mut client, mut backend) = connect();
    for size in [10, 130] {
        let payload = vec![b'x'; size];
        let bytes = Frame::new(TEXT, &payload).masked().bytes();
        // Each byte is a segment of its own: a page in between shows that the daemon has read it.
        for (at, byte) in bytes.iter().enumerate() {
            client.wire.send([*byte]);
            if at < 16 {
                _daemon.get("/nosuch");
            }
        }
        backend.expect(&payload);
    }
}

#[test]
fn fragmented_messages() {
    let (_daemon, mut client, mut backend) = connect();
    client.send(&[Frame::part(TEXT, b"one "), Frame::part(CONTINUATION, b"two ")]);
    backend.expect(b"one two ");
    client.send(&[Frame::new(CONTINUATION, b"three")]);
    backend.expect(b"three");
}

#[test]
fn client_messages_of_64_kib_and_more() {
    let (_daemon, mut client, mut backend) = connect();
    for size in [65_535, 65_536, 65_537, 1 << 20] {
        let message: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| client.binary(&message));
            backend.expect(&message);
        });
    }
}

#[test]
fn backend_messages_over_65530_bytes() {
    let (daemon, mut client, mut backend) = connect();
    let message: Vec<u8> = (0..200_000).map(|at| 0x80 | (at % 113) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| backend.send(&message));
        let mut got = Vec::new();
        while got.len() < message.len() {
            let (opcode, bytes) = client.message();
            assert_eq!(opcode, BINARY);
            got.extend(bytes);
        }
        assert!(got == message);
    });
    let server = daemon.listen_packets("packets");
    let mut client = daemon.connect("/packets");
    let mut backend = server.accept();
    for size in [65_530, 65_531, 65_535, 65_536] {
        backend.send(&message[..size]);
        client.expect_binary(&message[..size]);
    }
}

#[test]
fn a_pong_echoes_the_payload_of_the_ping() {
    let (_daemon, mut client, mut backend) = connect();
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        client.send(&[Frame::new(PING, payload)]);
        client.expect_pong(payload);
    }
    client.text("and the server sees nothing of it");
    backend.expect("and the server sees nothing of it");
}

#[test]
fn a_close_frame_is_answered_with_the_same_code() {
    for code in [1000, 1001, 1003, 1011, 3000, 4999] {
        let (_daemon, mut client, mut backend) = connect();
        client.close(code);
        // Its end, if it came first, would be the reason.
        backend.expect_end();
        drop(backend);
        client.expect_close(code);
        client.wire.expect_end();
    }
}

/// A case of each class of mistake; the unit tests of the codec have the others. A header is judged before its payload
/// has come; that of a message over the limit is in `pressure::a_message_beyond_the_limit_is_1009`.
#[test]
fn frames_that_break_the_protocol_are_refused() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let text = Frame::new(TEXT, b"x");
    let part_of_text = [&[0x81, 0xfe, 0x03, 0xe8][..], &[0; 4], b"\xff"].concat();
    for (what, bytes, expected) in [
        ("no mask", text.bytes(), 1002),
        ("RSV1", Frame { rsv: 4, ..text.clone() }.masked().bytes(), 1002),
        ("a reserved opcode", Frame::new(3, b"x").masked().bytes(), 1002),
        ("a continuation of nothing", Frame::new(CONTINUATION, b"x").masked().bytes(), 1002),
        ("the header of a ping of 126 bytes", vec![0x89, 0xfe], 1002),
        ("the header of a length of 2^63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("a close code that may not be sent", Frame::close(1005, "").masked().bytes(), 1002),
        ("text that is not UTF-8, the rest unsent", part_of_text, 1007),
    ] {
        let mut client = daemon.connect("/server");
        let mut backend = server.accept();
        client.wire.send(bytes);
        backend.expect_end();
        // The gateway waits for the backend's last bytes until it closes.
        drop(backend);
        let (code, reason) = client.frame().close_code();
        assert_eq!(code, expected, "{what}: {reason}");
        client.wire.expect_end();
    }
}

#[test]
fn version_key_method_and_http_version_are_checked() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let good = handshake("/server", &[], &[]);
    let (version, key) = ("Sec-WebSocket-Version", "Sec-WebSocket-Key");
    for (what, head, status) in [
        ("no version", handshake("/server", &[version], &[]), 426),
        ("version 8", handshake("/server", &[version], &["Sec-WebSocket-Version: 8"]), 426),
        ("no key", handshake("/server", &[key], &[]), 400),
        ("a key of 15 bytes", handshake("/server", &[key], &["Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1"]), 400),
        (
            "a key that is no base64",
            handshake("/server", &[key], &["Sec-WebSocket-Key: ######################=="]),
            400,
        ),
        ("two keys", handshake("/server", &[], &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="]), 400),
        ("POST", good.replacen("GET", "POST", 1), 405),
        ("HTTP/1.0", good.replacen("HTTP/1.1", "HTTP/1.0", 1), 400),
        ("HTTP/2.0", good.replacen("HTTP/1.1", "HTTP/2.0", 1), 505),
        ("no Host", good.replacen("Host: gate.example\r\n", "", 1), 400),
        ("no Upgrade", handshake("/server", &["Upgrade"], &[]), 426),
        ("no Connection", handshake("/server", &["Connection"], &[]), 426),
        ("no handshake at all", request("GET", "/server", &[]), 426),
    ] {
        let mut wire = daemon.wire();
        wire.send(head);
        let response = wire.response();
        assert_eq!(response.status, status, "{what}: {response:?}");
        if status == 426 {
            assert_eq!(response.field(version), "13", "{what}");
        }
        assert!(server.is_idle(), "{what}");
    }
}

#[test]
fn data_after_the_handshake() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("server");
    let mut wire = daemon.wire();
    // More bytes than a head may have follow at once.
    let message = vec![b'x'; 50_000];
    let frame = Frame::new(TEXT, &message).masked().bytes();
    wire.send([handshake("/server", &[], &[]).as_bytes(), &frame].concat());
    let mut backend = server.accept();
    backend.expect(&message);
    assert_eq!(wire.response().status, 101);
}

#[test]
fn the_11th_client() {
    let (daemon, _echo) = with_echo(&["-m", "200"]);
    let mut clients: Vec<Client> = (0..100).map(|_| daemon.connect("/echo")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.text(&format!("client {number}"));
    }
    for (number, client) in clients.iter_mut().enumerate().rev() {
        client.expect_text(&format!("client {number}"));
        client.finish(1000);
    }
}

#[test]
fn a_connection_needs_little_memory_and_no_process() {
    let (daemon, echo) = with_echo(&["-m", "1000"]);
    let talk = |count| -> Vec<Client> {
        (0..count)
            .map(|_| {
                let mut client = daemon.connect("/echo");
                client.text("hello");
                client.expect_text("hello");
                client
            })
            .collect()
    };
    let first = talk(10);
    let before_kib = daemon.resident_kib();
    let more = talk(200);
    let grown_kib = daemon.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 200 * 8, "200 connections took {grown_kib} KiB");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
    assert_eq!(children, "", "processes of the daemon");
    drop((first, more));
    eventually("the echo server has no clients any more", || echo.open_files().len() < 10);
}

#[test]
fn a_slow_backend_loses_nothing() {
    let (_daemon, client, mut backend) = connect();
    let message: Vec<u8> = (0..4 << 20).map(|at| (at % 251) as u8).collect();
    let bytes = Frame::new(BINARY, &message).masked().bytes();
    thread::scope(|scope| {
        let mut stream = client.wire.stream();
        scope.spawn(move || stream.write_all(&bytes).unwrap());
        for piece in message.chunks(4096) {
            // Slow: it yields before each read.
            thread::yield_now();
            backend.expect(piece);
        }
    });
}
