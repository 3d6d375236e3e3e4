//! Messages as plain bytes, the default: payloads to the backend, and one message for each read.

use std::time::{Duration, Instant};

use crate::client::{BINARY, CONTINUATION, Client, Frame, PING, TEXT};
use crate::daemon::Daemon;
use crate::server::Backend;

/// A daemon with these flags, a client, and the backend's end of its connection.
fn connect(flags: &[&str]) -> (Daemon, Client, Backend) {
    let daemon = Daemon::start(flags);
    let server = daemon.listen("server");
    let client = daemon.connect("/server");
    let backend = server.accept();
    (daemon, client, backend)
}

#[test]
fn the_backend_receives_only_payloads() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    client.text("text");
    client.binary(b"\x00\xff");
    client.send(&[Frame::new(PING, b"ping"), Frame::new(TEXT, b"one"), Frame::new(BINARY, b"two")]);
    client.send(&[Frame::part(TEXT, b"th"), Frame::part(CONTINUATION, b""), Frame::new(CONTINUATION, b"ree")]);
    backend.expect(b"text\x00\xffonetwothree");
    client.expect_pong(b"ping");
    client.finish(1000);
    backend.expect_end();
}

#[test]
fn an_empty_message_sends_nothing() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    client.send(&[
        Frame::new(TEXT, b""),
        Frame::new(BINARY, b""),
        Frame::part(TEXT, b""),
        Frame::new(CONTINUATION, b""),
    ]);
    client.text("x");
    backend.expect(b"x");
    client.close(1000);
    backend.expect_end();
}

#[test]
fn one_read_is_one_message() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    for text in ["one", "two\n", "\0", "Gr\u{fc}\u{df}e \u{1f412}"] {
        backend.send(text);
        client.expect_text(text);
    }
}

#[test]
fn valid_utf8_is_text_and_anything_else_is_binary() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    for (bytes, opcode) in [
        (&b"plain"[..], TEXT),
        ("\u{1f412}\u{fffd}\u{10ffff}".as_bytes(), TEXT),
        (b"\xff", BINARY),
        (b"text\xc3(", BINARY),
        (b"\xed\xa0\x80", BINARY),
        (b"\xc0\x80", BINARY),
        (b"\xf4\x90\x80\x80", BINARY),
        (b"\x80", BINARY),
        (b"text again", TEXT),
    ] {
        backend.send(bytes);
        assert_eq!(client.message(), (opcode, bytes.to_vec()), "{}", bytes.escape_ascii());
    }
}

/// Sends bytes, of which this beginning is text, and then others. False: on a busy machine these were sent so late that
/// the cut character was not held any more.
fn continues_in_time(client: &mut Client, backend: &mut Backend, first: (&[u8], &[u8]), then: &[u8]) -> bool {
    let start = Instant::now();
    backend.send(first.0);
    // It shows that the first bytes were read.
    client.expect_text(std::str::from_utf8(first.1).unwrap());
    backend.send(then);
    start.elapsed() < Duration::from_millis(80)
}

#[test]
fn a_split_character_is_held_until_it_is_complete() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    let text = "a\u{e9}\u{20ac}\u{1f412}".as_bytes();
    for cut in 1..text.len() {
        let whole = (0..=cut).rev().find(|at| std::str::from_utf8(&text[..*at]).is_ok()).unwrap();
        let rest = &text[whole..];
        while !continues_in_time(&mut client, &mut backend, (&text[..cut], &text[..whole]), &text[cut..]) {
            let mut late = Vec::new();
            while late.len() < rest.len() {
                late.extend(client.message().1);
            }
            assert_eq!(late, rest);
        }
        client.expect_text(std::str::from_utf8(rest).unwrap());
    }
}

#[test]
fn an_invalid_split_character_becomes_binary() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    while !continues_in_time(&mut client, &mut backend, (b"a\xe2\x82", b"a"), b"b") {
        let late = client.message().1;
        assert!(late == b"\xe2\x82b" || late == b"\xe2\x82" && client.message().1 == b"b", "{late:x?}");
    }
    client.expect_binary(b"\xe2\x82b");
    backend.send(b"c\xf0\x9f");
    client.expect_text("c");
    // At the end it is sent as binary.
    drop(backend);
    client.expect_binary(b"\xf0\x9f");
    client.expect_close_handshake(1000);
}

#[test]
fn type_text_is_text_or_an_error() {
    let (daemon, mut client, mut backend) = connect(&["--type", "text"]);
    backend.send("\u{e9}");
    client.expect_text("\u{e9}");
    backend.send(b"\xff");
    client.expect_close_handshake(1011);
    backend.expect_end();
    drop(backend);
    daemon.log().wait_for(&["warn", "not UTF-8", "1011", "use auto or binary"]);
}

#[test]
fn type_binary_is_always_binary() {
    let (_daemon, mut client, mut backend) = connect(&["--type", "binary"]);
    for bytes in [&b"text"[..], b"\xff\xfe", "cut \u{e9}".as_bytes(), b"cut \xc3"] {
        backend.send(bytes);
        client.expect_binary(bytes);
    }
}

#[test]
fn a_fragmented_text_is_checked_as_a_whole() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    let text = "\u{20ac}\u{1f412}".as_bytes();
    let last = text.len() - 1;
    let mut frames: Vec<Frame> = (0..=last).map(|at| Frame::part(CONTINUATION, &text[at..=at])).collect();
    frames[0].opcode = TEXT;
    frames[last].fin = true;
    client.send(&frames);
    backend.expect(text);
    client.send(&[Frame::part(TEXT, b"\xe2\x82"), Frame::new(CONTINUATION, b"x")]);
    client.expect_close(1007);
}

#[test]
fn messages_of_every_size_reach_the_backend() {
    let (_daemon, mut client, mut backend) = connect(&[]);
    for size in [1, 125, 126, 127, 1000, 65_535, 65_536, 67_000, 200_000] {
        let message: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        client.binary(&message);
        backend.expect(&message);
        // A large answer may come as several messages: the backend's write is read in parts.
        std::thread::scope(|scope| {
            scope.spawn(|| backend.send(&message));
            let mut answer = Vec::new();
            while answer.len() < message.len() {
                answer.extend(client.message().1);
            }
            assert!(answer == message, "{size}");
        });
    }
}
