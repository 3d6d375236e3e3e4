//! Rare calls, one by one.

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Server, expect_data};
use crate::client::{Client, Frame, PING, TEXT};
use crate::process::DEADLINE;

fn start(call: &str) -> (Server, Client) {
    let server = Server::patient("calls", &[call]);
    let client = server.client();
    (server, client)
}

impl Server {
    fn said(&self, lines: &[&str]) {
        for line in lines {
            self.process.out.wait(|said| said.iter().any(|one| one == line).then_some(())).unwrap_or_else(|| {
                panic!("{line:?} was not said, but:\n{}", self.process.out.text());
            });
        }
    }
}

/// The server closes: a close frame and the end.
fn expect_goodbye(client: &mut Client) {
    client.expect_close(1000);
    client.wire.expect_end();
}

#[test]
fn msg_peek_changes_nothing() {
    let (server, mut client) = start("peek");
    client.send(&[Frame::new(PING, b""), Frame::part(TEXT, b"He"), Frame::new(0, b"llo")]);
    server.said(&["peek: 3 Hel", "peek again: 5 Hello", "read: 5 Hello", "read more: EAGAIN"]);
    client.expect_pong(b"");
    expect_goodbye(&mut client);
}

/// Bytes before a client's mistake are payload, and MSG_PEEK takes none.
#[test]
fn msg_peek_before_a_protocol_error_changes_nothing() {
    let (server, mut client) = start("peek mistake");
    client.send(&[Frame::new(TEXT, b"good\xffbad")]);
    server.said(&["peek: 4 good", "read: 4 good", "peek error: ECONNRESET", "error: ECONNRESET", "end: 0 "]);
    client.expect_close(1007);
    client.wire.expect_end();
}

#[test]
fn msg_waitall_fills_the_buffer() {
    let (server, mut client) = start("all");
    // In one segment, for MSG_TRUNC to drop some.
    client.send(&["one", "two", "three", "fourth"].map(|text| Frame::new(TEXT, text.as_bytes())));
    server.said(&["all: 10 onetwothre", "truncated: 2 on", "rest: 5 ourth"]);
    expect_goodbye(&mut client);
}

#[test]
fn byte_by_byte() {
    let (server, mut client) = start("bytes");
    client.send(&[
        Frame::new(TEXT, b"Hello "),
        Frame::new(PING, b"between"),
        Frame::new(TEXT, "gr\u{fc}\u{df}e".as_bytes()),
    ]);
    server.said(&["bytes: 12 Hello gr\u{fc}\u{df}"]);
    client.expect_pong(b"between");
}

/// Servers made for ouistiti's library, which ended each text with a NUL, read C strings.
#[test]
fn read_data_is_nul_terminated_when_space_remains() {
    let (server, mut client) = start("string");
    for (text, said) in [("Hello world", "string: 11 Hello world"), ("Hi", "string: 2 Hi"), ("Hi!", "string: 3 Hi!")] {
        client.text(text);
        server.said(&[said]);
    }
    // A full buffer: the byte after it is not touched.
    let bytes = Frame::new(TEXT, "0123456789abcdef".repeat(2).as_bytes()).masked().bytes();
    client.wire.send([Frame::new(PING, b"").masked().bytes(), bytes[..6].to_vec()].concat());
    client.expect_pong(b"");
    client.wire.send(&bytes[6..]);
    server.said(&["string: 40 0123456789abcdef0123456789abcdefxxxxxxxx"]);
    client.finish(1000);
}

#[test]
fn duplicated_descriptors() {
    let (_server, mut client) = start("dup");
    expect_data(&mut client, b"still hereand here");
    expect_goodbye(&mut client);
}

#[test]
fn the_last_message_precedes_the_close_of_the_client() {
    let (server, mut client) = start("shutdown");
    expect_data(&mut client, b"bye");
    client.expect_close(1000);
    client.text("you too");
    client.close(1000);
    server.said(&["send: EPIPE", "read: 7 you too", "end: 0 "]);
    client.wire.expect_end();
}

#[test]
fn writing_after_the_close_raises_sigpipe() {
    let (mut server, mut client) = start("pipe");
    client.expect_close(1000);
    let status = server.process.wait(DEADLINE).status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGPIPE as i32));
}

#[test]
fn a_protocol_error_is_reported_once_before_the_end_of_file() {
    let (server, mut client) = start("mistake");
    client.send(&[Frame::new(TEXT, b"good"), Frame::new(3, b"bad")]);
    client.expect_close(1002);
    server.said(&["read: 4 good", "error: ECONNRESET", "end: 0 "]);
    client.wire.expect_end();
}

#[test]
fn poll_reports_payload_and_the_end_of_file() {
    let (server, mut client) = start("poll");
    let bytes = Frame::new(TEXT, b"payload").masked().bytes();
    client.wire.send([Frame::new(PING, b"!").masked().bytes(), bytes[..6].to_vec()].concat());
    client.expect_pong(b"!");
    client.expect_close(1000);
    server.said(&["nothing: 0 "]);
    client.wire.send(&bytes[6..]);
    client.close(1000);
    server.process.out.wait_for(&["something: 1"]);
    server.said(&["read: 7 payload", "read: 0 "]);
}

#[test]
fn sendfile_sends_a_message() {
    let (server, mut client) = start("file");
    expect_data(&mut client, b"2345789");
    server.said(&["sendfile: 4 ", "sendfile: 3 ", "offset 6, place 10", "splice: EINVAL"]);
}

#[test]
fn one_thread_reads_while_another_writes() {
    let (server, mut client) = start("threads");
    for number in 0..100u8 {
        client.send(&[Frame::new(PING, &[number])]);
    }
    let mut control = expect_data(&mut client, "tick".repeat(1000).as_bytes());
    client.text("enough");
    server.said(&["read: 6 enough"]);
    // The newest ping is answered; earlier ones if there is room.
    while control.last().is_none_or(|frame| frame.payload != [99]) {
        control.push(client.frame());
    }
    expect_goodbye(&mut client);
}

#[test]
fn empty_frames_do_not_starve_the_server() {
    let (server, mut client) = start("flood");
    let pings = Frame::new(PING, b"").masked().bytes().repeat(1000);
    client.wire.send([pings, Frame::new(TEXT, b"x").masked().bytes()].concat());
    server.said(&["flood: EAGAIN", "read: 1 x"]);
    // The last of several pings is answered.
    client.expect_pong(b"");
}

#[test]
fn select_with_descriptors_beyond_fd_setsize() {
    let (server, mut client) = start("select");
    client.send(&[Frame::new(PING, b"!")]);
    client.expect_pong(b"!");
    client.text("Hello");
    server.said(&["select: 1 ", "read: 5 Hello"]);
    expect_goodbye(&mut client);
}

#[test]
fn close_preserves_errno() {
    let (server, client) = start("errno");
    server.said(&["write: 9 "]);
    // A reset, so that no close frame can be sent.
    setsockopt(client.wire.stream(), sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(client);
    server.said(&["close: ERANGE"]);
}

/// One of the two sends the close frame.
#[test]
fn a_parent_and_its_child_close_simultaneously() {
    let (server, mut client) = start("both");
    expect_goodbye(&mut client);
    for _ in 0..1000 {
        expect_goodbye(&mut server.client());
    }
}

/// The last process to close answers with the client's code, whichever process has read it.
#[test]
fn a_process_that_did_not_read_the_close_echoes_its_code() {
    for call in ["child", "parent"] {
        let (_server, mut client) = start(call);
        client.text("to be read");
        client.finish(4000);
    }
}

/// A server that reads 0 and finds EAGAIN in errno may retry for ever.
#[test]
fn successful_calls_preserve_errno() {
    let (server, mut client) = start("spare");
    for wake in [0, 1, 6] {
        let bytes = Frame::new(TEXT, b"Hello").masked().bytes();
        client.wire.send([Frame::new(PING, b"!").masked().bytes(), bytes[..wake].to_vec()].concat());
        client.expect_pong(b"!");
        client.wire.send(&bytes[wake..]);
        client.expect_text("Hello");
    }
    client.send(&[Frame::new(PING, b"!")]);
    client.expect_pong(b"!");
    client.close(1000);
    server.said(&["end: ERANGE"]);
    let said = server.process.out.text();
    assert!(said.lines().all(|line| line.ends_with(": ERANGE")), "{said}");
}

#[test]
fn an_exit_sends_a_close_frame_and_a_crash_does_not() {
    let (_server, mut client) = start("exit");
    expect_goodbye(&mut client);
    let (_server, mut client) = start("crash");
    client.wire.expect_end();
}

#[test]
fn child_programs_do_not_keep_the_connection_open() {
    let (server, mut client) = start("program");
    expect_goodbye(&mut client);
    server.said(&["system: 0 "]);
}
