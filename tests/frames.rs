//! Messages as frames: RFC 6455 without masks, which keeps opcodes and fragments.

use crate::client::{BINARY, CLOSE, CONTINUATION, Client, Frame, PING, PONG, TEXT};
use crate::daemon::Daemon;
use crate::server::{Backend, Listener};

struct Setup {
    daemon: Daemon,
    server: Listener,
}

impl Setup {
    fn new() -> Setup {
        let daemon = Daemon::start(&["--protocol", "frames"]);
        let server = daemon.listen("server");
        Setup { daemon, server }
    }

    fn connect(&self) -> (Client, Backend) {
        let client = self.daemon.connect("/server");
        (client, self.server.accept())
    }
}

#[test]
fn opcodes_and_empty_messages_are_kept() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    let messages = [(TEXT, &b"text"[..]), (BINARY, b"bytes \xff"), (TEXT, b""), (BINARY, b""), (TEXT, b"last")];
    client.send(&messages.map(|(opcode, payload)| Frame::new(opcode, payload)));
    for (opcode, payload) in messages {
        assert_eq!(backend.frame(), Frame::new(opcode, payload));
    }
    let bytes: Vec<u8> = messages.iter().flat_map(|(opcode, payload)| Frame::new(*opcode, payload).bytes()).collect();
    backend.send(bytes);
    for (opcode, payload) in messages {
        assert_eq!(client.frame(), Frame::new(opcode, payload));
    }
}

#[test]
fn messages_of_every_size() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    for size in [1, 125, 126, 127, 65_535, 65_536, 70_000, 1 << 20] {
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| client.binary(&payload));
            assert!(backend.message() == (BINARY, payload.clone()), "{size} to the server");
        });
        std::thread::scope(|scope| {
            scope.spawn(|| backend.send_frame(&Frame::new(BINARY, &payload)));
            assert!(client.message() == (BINARY, payload.clone()), "{size} to the client");
        });
    }
}

#[test]
fn fragments_in_both_directions() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    let parts = [
        Frame::part(TEXT, b"frag"),
        Frame::part(CONTINUATION, b""),
        Frame::part(CONTINUATION, "m\u{e9}n".as_bytes()),
        Frame::new(CONTINUATION, b"ted"),
    ];
    let whole = (TEXT, "fragm\u{e9}nted".as_bytes().to_vec());
    client.send(&parts);
    assert_eq!(backend.message(), whole);
    // One by one, with a ping in between, which the gateway answers.
    for (number, part) in parts.iter().enumerate() {
        client.send(&[part.clone(), Frame::new(PING, &[number as u8])]);
        client.expect_pong(&[number as u8]);
    }
    assert_eq!(backend.message(), whole);
    for part in &parts {
        backend.send_frame(part);
    }
    assert_eq!(client.message(), whole);
}

#[test]
fn a_message_is_forwarded_before_it_is_complete() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    let bytes = Frame::new(BINARY, &[7; 50_000]).masked().bytes();
    client.wire.send(&bytes[..20_000]);
    let first = backend.frame();
    assert!(first.opcode == BINARY && !first.fin && !first.payload.is_empty(), "{first:?}");
    client.wire.send(&bytes[20_000..]);
    let mut payload = first.payload;
    loop {
        let next = backend.frame();
        assert_eq!(next.opcode, CONTINUATION);
        payload.extend(next.payload);
        if next.fin {
            break;
        }
    }
    assert!(payload == [7; 50_000], "{} bytes", payload.len());
}

#[test]
fn a_ping_of_the_backend_is_answered() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    for payload in [&b""[..], b"x", &[9; 125]] {
        backend.send_frame(&Frame::new(PING, payload));
        assert_eq!(backend.frame(), Frame::new(PONG, payload));
    }
    // Within a message too; an unsolicited pong is ignored.
    backend.send_frame(&Frame::part(TEXT, b"be"));
    backend.send_frame(&Frame::new(PING, b"between"));
    assert_eq!(backend.frame(), Frame::new(PONG, b"between"));
    backend.send_frame(&Frame::new(PONG, b"unasked"));
    backend.send_frame(&Frame::new(CONTINUATION, b"gin"));
    client.expect_text("begin");
}

#[test]
fn a_ping_of_the_client_is_answered_by_the_gateway() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    client.send(&[Frame::new(PING, b"hello"), Frame::new(PONG, b"unasked"), Frame::new(TEXT, b"text")]);
    client.expect_pong(b"hello");
    assert_eq!(backend.frame(), Frame::new(TEXT, b"text"));
}

#[test]
fn the_close_code_of_the_backend_reaches_the_client() {
    let setup = Setup::new();
    for (code, reason) in [(1000, ""), (1001, "moving"), (1008, "no"), (3000, "r\u{e9}ason"), (4999, "bye")] {
        let (mut client, mut backend) = setup.connect();
        backend.send_frame(&Frame::new(TEXT, b"last"));
        backend.send_frame(&Frame::close(code, reason));
        client.expect_text("last");
        assert_eq!(client.expect_close_handshake(code), reason);
        backend.expect_end();
        drop(backend);
        setup.daemon.log().wait_for(&[&format!("the backend closed with {code}")]);
    }
    let (mut client, mut backend) = setup.connect();
    backend.send_frame(&Frame::new(CLOSE, b""));
    client.expect_close(1005);
}

#[test]
fn the_close_code_of_the_client_reaches_the_backend() {
    let setup = Setup::new();
    for (code, reason) in [(1000, ""), (1001, "leaving"), (4000, "bye")] {
        let (mut client, mut backend) = setup.connect();
        client.send(&[Frame::new(TEXT, b"last"), Frame::close(code, reason)]);
        assert_eq!(backend.frame(), Frame::new(TEXT, b"last"));
        assert_eq!(backend.frame().close_code(), (code, reason.to_owned()));
        backend.expect_end();
        drop(backend);
        assert_eq!(client.expect_close(code), "");
        client.wire.expect_end();
        setup.daemon.log().wait_for(&[&format!("the client closed with {code}")]);
    }
}

#[test]
fn the_backend_is_notified_of_a_lost_client() {
    let setup = Setup::new();
    let (client, mut backend) = setup.connect();
    drop(client);
    // With or without a close frame the stream ends.
    backend.expect_end_of_frames();
    drop(backend);
    setup.daemon.log().wait_for(&["the client left without a close frame (1006)"]);
}

#[test]
fn protocol_errors_of_the_backend_are_1011() {
    let setup = Setup::new();
    let long_ping = Frame::new(PING, &[0; 126]).bytes();
    let rsv = Frame { rsv: 4, ..Frame::new(TEXT, b"x") }.bytes();
    let cases: &[(&str, Vec<u8>)] = &[
        ("a mask", Frame::new(TEXT, b"x").masked().bytes()),
        ("RSV1", rsv),
        ("a reserved opcode", Frame::new(3, b"x").bytes()),
        ("a reserved control opcode", Frame::new(11, b"x").bytes()),
        ("a continuation of nothing", Frame::new(CONTINUATION, b"x").bytes()),
        ("a message within a message", [Frame::part(TEXT, b"x"), Frame::new(TEXT, b"x")].map(|f| f.bytes()).concat()),
        ("a fragmented ping", Frame::part(PING, b"x").bytes()),
        ("a long ping", long_ping),
        ("a length written too long", vec![0x82, 126, 0, 1, b'x']),
        ("a length of 2^63", vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("text that is none", Frame::new(TEXT, b"\xff").bytes()),
        ("a forbidden close code", Frame::close(1005, "").bytes()),
        ("half a close code", Frame::new(CLOSE, b"\x03").bytes()),
    ];
    for (what, bytes) in cases {
        let (mut client, mut backend) = setup.connect();
        backend.send(bytes);
        // Frames before the mistake may have been passed on.
        let mut frame = client.frame();
        while frame.opcode != CLOSE {
            frame = client.frame();
        }
        let (code, _) = frame.close_code();
        assert_eq!(code, 1011, "{what}");
        client.close(1011);
        client.wire.expect_end();
        backend.expect_end_of_frames();
    }
    setup.daemon.log().wait_for(&["warn", "the backend broke the frames protocol (1011)"]);
}

#[test]
fn protocol_errors_of_the_client_are_reported_to_the_backend() {
    let setup = Setup::new();
    let (mut client, mut backend) = setup.connect();
    client.send(&[Frame::new(TEXT, b"good"), Frame::new(CONTINUATION, b"bad")]);
    assert_eq!(backend.frame(), Frame::new(TEXT, b"good"));
    assert_eq!(backend.frame().close_code().0, 1002);
    backend.expect_end();
    drop(backend);
    client.expect_close(1002);
    client.wire.expect_end();
}
