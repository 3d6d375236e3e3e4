//! How connections end, on each side and in the log.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use uakari::limits::LAST_WORDS_MS;

use crate::client::{BINARY, CLOSE, Client, Frame, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, eventually};
use crate::server::Backend;

fn connect(daemon: &Daemon) -> (Client, Backend) {
    let server = daemon.listen("server");
    let client = daemon.connect("/server");
    let backend = server.accept();
    std::fs::remove_file(daemon.socket("server")).unwrap();
    (client, backend)
}

#[test]
fn a_close_by_the_client_ends_the_stream_of_the_backend() {
    let daemon = Daemon::start(&[]);
    for code in [1000, 1001, 3000, 4999] {
        let (mut client, mut backend) = connect(&daemon);
        client.close(code);
        backend.expect_end();
        drop(backend);
        client.expect_close(code);
        client.wire.expect_end();
        daemon.log().wait_for(&["info", "name=\"server\"", &format!("the client closed with {code}")]);
    }
    let (mut client, backend) = connect(&daemon);
    client.send(&[Frame::new(CLOSE, b"")]);
    drop(backend);
    assert_eq!(client.frame(), Frame::new(CLOSE, b""), "a close without a code is answered without one");
    client.wire.expect_end();
    daemon.log().wait_for(&["the client closed without a code (1005)"]);
}

#[test]
fn a_backend_that_stays_open_does_not_delay_the_close() {
    let daemon = Daemon::start_configured(&configuration("close-ms = 60000;", ""));
    let (mut client, mut backend) = connect(&daemon);
    let start = Instant::now();
    client.finish(1000);
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    backend.expect_end();
}

#[test]
fn a_close_by_the_backend_is_1000() {
    let daemon = Daemon::start(&[]);
    let (mut client, mut backend) = connect(&daemon);
    backend.send("last");
    drop(backend);
    client.expect_text("last");
    assert_eq!(client.expect_close_handshake(1000), "");
    daemon.log().wait_for(&["info", "the backend closed", "down=4B/1"]);
}

#[test]
fn a_backend_that_shuts_down_writing_has_closed() {
    let daemon = Daemon::start(&[]);
    let (mut client, mut backend) = connect(&daemon);
    backend.stream().shutdown(Shutdown::Write).unwrap();
    client.expect_close_handshake(1000);
    backend.expect_end();
}

#[test]
fn a_backend_that_dies_in_mid_message_is_1011() {
    let daemon = Daemon::start(&["--protocol", "frames"]);
    let whole = Frame::new(BINARY, b"hello").bytes();
    let part = Frame::part(BINARY, b"hello").bytes();
    for (what, bytes) in [("half a header", &whole[..1]), ("half a frame", &whole[..4]), ("half a message", &part)] {
        let (mut client, mut backend) = connect(&daemon);
        backend.send(bytes);
        drop(backend);
        let mut frame = client.frame();
        while frame.opcode != CLOSE {
            frame = client.frame();
        }
        assert_eq!(frame.close_code().0, 1011, "{what}");
        client.close(1011);
        client.wire.expect_end();
        drop(client);
        daemon.log().wait_for(&["warn", "the backend died in mid-message (1011)"]);
    }
}

#[test]
fn a_backend_that_dies_with_unread_bytes_is_1011() {
    for flags in [&[][..], &["--protocol", "frames"]] {
        let daemon = Daemon::start(flags);
        let (mut client, backend) = connect(&daemon);
        client.text("never read");
        backend.wait_for_input();
        drop(backend);
        client.expect_close_handshake(1011);
        daemon.log().wait_for(&["warn", "the backend died (1011)", "reset"]);
    }
}

#[test]
fn a_killed_backend_is_1000() {
    let daemon = Daemon::start(&["--protocol", "frames"]);
    let mut echo = daemon.echo("echo", &["--protocol", "frames"]);
    let mut client = daemon.connect("/echo");
    client.text("hello");
    client.expect_text("hello");
    echo.signal(Signal::SIGKILL);
    echo.wait(DEADLINE);
    client.expect_close_handshake(1000);
    daemon.log().wait_for(&["the backend closed"]);
}

#[test]
fn an_answer_after_the_close_frame_arrives() {
    for flags in [&[][..], &["--protocol", "frames"]] {
        let daemon = Daemon::start(flags);
        expect_last_words(|| {
            let (mut client, mut backend) = connect(&daemon);
            let start = Instant::now();
            client.send(&[Frame::new(TEXT, b"question"), Frame::close(1000, "")]);
            let answer = if flags.is_empty() {
                backend.expect(b"question");
                backend.expect_end();
                b"answer".to_vec()
            } else {
                assert_eq!(backend.frame(), Frame::new(TEXT, b"question"));
                assert_eq!(backend.frame().close_code().0, 1000);
                backend.expect_end();
                Frame::new(TEXT, b"answer").bytes()
            };
            let _ = backend.stream().write_all(&answer);
            drop(backend);
            (start, client, vec![Frame::new(TEXT, b"answer"), Frame::close(1000, "")])
        });
    }
}

/// The client receives these frames and the end. `speak` lets the backend speak after the client's close frame, and
/// returns the instant before that frame. It is called again if it took longer than the gateway waits.
pub fn expect_last_words(mut speak: impl FnMut() -> (Instant, Client, Vec<Frame>)) {
    eventually("the backend speaks in time", || {
        let (start, mut client, expected) = speak();
        let took = start.elapsed();
        let mut got = Vec::new();
        while got.last().is_none_or(|frame: &Frame| frame.opcode != CLOSE) {
            got.push(client.frame());
        }
        client.wire.expect_end();
        let is_late = took >= Duration::from_millis(LAST_WORDS_MS - 10);
        assert!(got == expected || is_late, "got {got:?}, expected {expected:?}");
        eprintln!("the backend spoke {took:?} after the close frame, and the client got {got:?}");
        got == expected
    });
}

#[test]
fn a_late_answer_does_not_delay_the_close() {
    let daemon = Daemon::start_configured(&configuration("close-ms = 60000;", ""));
    let (mut client, mut backend) = connect(&daemon);
    let start = Instant::now();
    client.send(&[Frame::new(TEXT, b"question"), Frame::close(1000, "")]);
    client.expect_close(1000);
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    client.wire.expect_end();
    backend.expect(b"question");
    backend.expect_end();
}

#[test]
fn a_client_that_disconnects_without_a_close_frame() {
    let daemon = Daemon::start(&[]);
    let half = Frame::new(TEXT, b"half a frame").masked().bytes();
    for (what, bytes) in [("nothing", &[][..]), ("half a header", &half[..3]), ("half a frame", &half[..10])] {
        let (mut client, mut backend) = connect(&daemon);
        client.wire.send(bytes);
        drop(client);
        let rest = backend.read();
        assert!(b"half a frame".starts_with(&rest), "{what}");
        if !rest.is_empty() {
            backend.expect_end();
        }
        drop(backend);
        daemon.log().wait_for(&["info", "the client left without a close frame (1006)"]);
    }
    let (client, mut backend) = connect(&daemon);
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(client.wire.stream(), sockopt::Linger, &linger).unwrap();
    drop(client);
    backend.expect_end();
    drop(backend);
    daemon.log().wait_for(&["info", "the client's connection broke (1006)", "reset"]);
    // A client that closes its sending half alone has left as well.
    let (mut client, mut backend) = connect(&daemon);
    client.wire.stream().shutdown(Shutdown::Write).unwrap();
    backend.expect_end();
    drop(backend);
    client.wire.take_rest();
}

#[test]
fn the_last_messages_of_the_client_reach_the_backend() {
    let daemon = Daemon::start(&[]);
    let (mut client, mut backend) = connect(&daemon);
    client.text("last words");
    drop(client);
    backend.expect(b"last words");
    backend.expect_end();
}

#[test]
fn a_client_that_does_not_answer_the_close_times_out() {
    let daemon = Daemon::start(&[]);
    let (mut client, backend) = connect(&daemon);
    let start = Instant::now();
    drop(backend);
    client.expect_close(1000);
    assert_eq!(client.wire.take_rest(), b"");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(2_900) && waited < DEADLINE / 2, "{waited:?}");
    daemon.log().wait_for(&["the backend closed"]);
}

#[test]
fn bytes_after_a_close_frame_are_ignored() {
    let daemon = Daemon::start(&[]);
    let (mut client, mut backend) = connect(&daemon);
    client.send(&[Frame::close(1000, ""), Frame::new(TEXT, b"too late")]);
    backend.expect_end();
    drop(backend);
    client.expect_close(1000);
    client.wire.expect_end();
}

#[test]
fn the_log_has_the_byte_counts() {
    let daemon = Daemon::start(&[]);
    let (mut client, mut backend) = connect(&daemon);
    client.text("12345");
    client.binary(b"678");
    backend.expect(b"12345678");
    backend.send("abc");
    client.expect_text("abc");
    client.close(1000);
    backend.expect_end();
    drop((client, backend));
    daemon.log().wait_for(&["client=127.0.0.1:", "name=\"server\"", "up=8B/2 down=3B/1: the client closed with 1000"]);
}

#[test]
fn sigterm_closes_every_connection() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start(&["--protocol", "frames"]);
        let server = daemon.listen("server");
        let mut pairs: Vec<_> = (0..3).map(|_| (daemon.connect("/server"), server.accept())).collect();
        let mut idle = daemon.wire();
        assert_eq!(idle.get("/nosuch").status, 404);
        let mut slow = daemon.wire();
        slow.send("GET / HT");
        daemon.signal(signal);
        for (client, backend) in &mut pairs {
            client.expect_close_handshake(1001);
            assert_eq!(backend.frame().close_code().0, 1001);
            backend.expect_end();
        }
        drop(pairs);
        idle.expect_end();
        // Half a request gets no answer; the end may be a reset, since bytes may be unread.
        assert_eq!(slow.take_rest(), b"");
        let finished = daemon.wait(DEADLINE);
        assert_eq!(finished.status.code(), Some(0), "{signal}: {}", finished.err);
        assert!(finished.err.contains("stopped"), "{}", finished.err);
    }
}

#[test]
fn sigterm_ends_the_daemon_whatever_the_peers_do() {
    let mut daemon = Daemon::start(&[]);
    // Neither end answers or closes.
    let (_client, _backend) = connect(&daemon);
    let start = Instant::now();
    let finished = daemon.stop();
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    assert!(finished.err.contains("the gateway stops (1001)"), "{}", finished.err);
}
