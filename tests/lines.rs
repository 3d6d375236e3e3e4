//! Messages as lines, and as text that ends with a NUL.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::client::{BINARY, CONTINUATION, Client, Frame, PING, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::endings::expect_last_words;
use crate::foreign;
use crate::process::{Process, eventually};
use crate::server::Backend;

/// The longest message of a backend (docs/backends.md).
const LINE_SIZE_MAX: usize = 65_536;

/// A typical backend: it answers each line with repr() and the length.
const PYTHON_LINES: &str = "
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    connection, _ = server.accept()
    with connection, connection.makefile('rwb') as stream:
        while line := stream.readline():
            stream.write(b'%d %a\\r\\n' % (len(line), line[:20]))
            stream.flush()
";

/// The same for text that ends with a NUL.
const PYTHON_NUL: &str = "
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    connection, _ = server.accept()
    with connection:
        rest = b''
        while part := connection.recv(1000):
            *messages, rest = (rest + part).split(b'\\0')
            for message in messages:
                connection.sendall(b'%d %a\\0' % (len(message), message[:20]))
";

/// A daemon with these flags, a client, and the backend's end of its connection.
fn connect(flags: &[&str]) -> (Daemon, Client, Backend) {
    let daemon = Daemon::start(flags);
    let server = daemon.listen("server");
    let client = daemon.connect("/server");
    let backend = server.accept();
    (daemon, client, backend)
}

/// A daemon, a Python backend and a client.
fn with_python(protocol: &str, program: &str) -> (Daemon, Process, Client) {
    let daemon = Daemon::start(&["--protocol", protocol]);
    let path = daemon.socket("server");
    let server = Process::start(foreign::command("python3").arg("-c").arg(program).arg(&path));
    eventually("the server listens", || crate::server::connect(&path, crate::server::Kind::Stream).is_ok());
    let client = daemon.connect("/server");
    (daemon, server, client)
}

#[test]
#[ignore = "needs python3"]
fn a_python_backend_of_lines() {
    let (_daemon, _server, mut client) = with_python("lines", PYTHON_LINES);
    client.text("one");
    client.expect_text("4 b'one\\n'");
    client.binary(b"\xff\x00");
    client.expect_text("3 b'\\xff\\x00\\n'");
    client.text("");
    client.expect_text("1 b'\\n'");
    client.text("$GPGGA\r");
    client.expect_text("8 b'$GPGGA\\r\\n'");
    // A line end within a message makes two lines.
    client.text("two\nthree");
    client.expect_text("4 b'two\\n'");
    client.expect_text("6 b'three\\n'");
    client.text(&"x".repeat(1_000_000));
    client.expect_text("1000001 b'xxxxxxxxxxxxxxxxxxxx'");
    client.finish(1000);
}

#[test]
#[ignore = "needs python3"]
fn a_python_backend_of_nul() {
    let (_daemon, _server, mut client) = with_python("nul", PYTHON_NUL);
    client.text("{\n}\r\n");
    client.expect_text("5 b'{\\n}\\r\\n'");
    client.text("");
    client.expect_text("0 b''");
    client.send(&[Frame::new(TEXT, b"one"), Frame::new(PING, b"?"), Frame::new(BINARY, b"a\0b")]);
    client.expect_pong(b"?");
    client.expect_text("3 b'one'");
    client.expect_text("1 b'a'");
    client.expect_text("1 b'b'");
    client.binary(&vec![0xff; 1_000_000]);
    client.expect_text("1000000 b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff'");
    client.finish(1000);
}

#[test]
fn fragments_become_one_message() {
    for (protocol, end) in [("lines", b'\n'), ("nul", 0)] {
        let (_daemon, mut client, mut backend) = connect(&["--protocol", protocol]);
        client.send(&[Frame::part(TEXT, b"th"), Frame::new(PING, b""), Frame::part(CONTINUATION, b"")]);
        client.expect_pong(b"");
        client.send(&[Frame::part(CONTINUATION, b"r"), Frame::new(CONTINUATION, b"ee"), Frame::new(TEXT, b"four")]);
        backend.expect([b"three", &[end][..], b"four", &[end]].concat());
        client.send(&[Frame::part(BINARY, b""), Frame::new(CONTINUATION, b"")]);
        backend.expect([end]);
        // Byte by byte, so that the end of a message comes alone.
        for byte in Frame::new(TEXT, b"five").masked().bytes() {
            client.wire.send([byte]);
        }
        backend.expect([b"five", &[end][..]].concat());
        client.finish(1000);
        backend.expect_end();
    }
}

/// Many short messages in one receive: the header's place has room for the line end.
#[test]
fn many_short_messages_in_one_segment() {
    let (_daemon, mut client, mut backend) = connect(&["--protocol", "lines"]);
    let (count, numbers) = (20_000, 0..20_000);
    let frames: Vec<u8> =
        numbers.clone().flat_map(|number| Frame::new(TEXT, text(number).as_bytes()).masked().bytes()).collect();
    let lines: String = numbers.map(|number| text(number) + "\n").collect();
    thread::scope(|scope| {
        scope.spawn(|| client.wire.send(&frames));
        backend.expect(&lines);
    });
    thread::scope(|scope| {
        scope.spawn(|| backend.send(&lines));
        (0..count).for_each(|number| client.expect_text(&text(number)));
    });
    client.finish(1000);
}

fn text(number: u32) -> String {
    "x".repeat(number as usize % 3) + &(number % 7).to_string().repeat(number as usize % 2)
}

#[test]
fn several_lines_in_one_write_and_one_line_in_several_writes() {
    for (protocol, written, messages) in [
        (
            "lines",
            &b"one\ntwo\n\nthree\r\n\r\nCR\rLF\n\0\n"[..],
            &[&b"one"[..], b"two", b"", b"three", b"", b"CR\rLF", b"\0"][..],
        ),
        ("nul", b"one\0two\0\0three\r\n\0\r\0", &[b"one", b"two", b"", b"three\r\n", b"\r"]),
    ] {
        let (daemon, mut client, mut backend) = connect(&["--protocol", protocol]);
        for cut in 0..=written.len() {
            backend.send(&written[..cut]);
            // A page shows that the daemon has read the first part.
            daemon.get("/nosuch");
            backend.send(&written[cut..]);
            for message in messages {
                assert_eq!(client.message(), (TEXT, message.to_vec()), "{protocol} cut at {cut}");
            }
        }
        client.finish(1000);
    }
}

#[test]
fn the_longest_line() {
    for (protocol, end) in [("lines", &b"\n"[..]), ("lines", b"\r\n"), ("nul", b"\0")] {
        let (daemon, mut client, mut backend) = connect(&["--protocol", protocol]);
        let longest = vec![b'x'; LINE_SIZE_MAX];
        for cut in [0, 1, 40_000, LINE_SIZE_MAX, LINE_SIZE_MAX + end.len() - 1] {
            let bytes = [&longest, end].concat();
            backend.send(&bytes[..cut]);
            daemon.get("/nosuch");
            backend.send(&bytes[cut..]);
            assert!(client.message() == (TEXT, longest.clone()), "{protocol} {end:?} cut at {cut}");
        }
        // The line before it is still passed on.
        backend.send([b"last", end].concat());
        backend.send([&longest, &b"x"[..]].concat());
        client.expect_text("last");
        let reason = client.expect_close_handshake(1011);
        assert!(reason.contains("65536 bytes"), "{reason}");
        backend.expect_end();
        drop(backend);
        daemon.log().wait_for(&["warn", "65536 bytes without an end of message", "1011"]);
    }
}

/// A complete line that arrives in one read is too long as well.
#[test]
fn one_byte_over_the_longest_line() {
    for (protocol, end) in [("lines", &b"\n"[..]), ("lines", b"\r\n"), ("nul", b"\0")] {
        let (_daemon, mut client, mut backend) = connect(&["--protocol", protocol]);
        backend.send([&vec![b'x'; LINE_SIZE_MAX + 1], end].concat());
        client.expect_close_handshake(1011);
    }
}

#[test]
fn the_last_line_needs_no_terminator() {
    for protocol in ["lines", "nul"] {
        let (daemon, mut client, backend) = connect(&["--protocol", protocol]);
        let mut backend = backend;
        backend.send(if protocol == "nul" { &b"one\0two"[..] } else { b"one\ntwo\r" });
        drop(backend);
        client.expect_text("one");
        client.expect_text("two");
        client.expect_close_handshake(1000);
        daemon.log().wait_for(&["down=6B/2", "the backend closed"]);
    }
    // Nothing after the last end is no further message.
    let (_daemon, mut client, mut backend) = connect(&["--protocol", "lines"]);
    backend.send("one\n");
    drop(backend);
    client.expect_text("one");
    client.expect_close_handshake(1000);
}

#[test]
fn the_types_of_lines() {
    for (message_type, types) in [("auto", [TEXT, BINARY, TEXT]), ("binary", [BINARY; 3])] {
        let (_daemon, mut client, mut backend) = connect(&["--protocol", "lines", "--type", message_type]);
        backend.send(b"text\n\xff\xfe\ntext \xe2\x82\xac\n");
        for (opcode, message) in types.into_iter().zip([&b"text"[..], b"\xff\xfe", "text \u{20ac}".as_bytes()]) {
            assert_eq!(client.message(), (opcode, message.to_vec()), "{message_type}");
        }
        // A character that two writes split is whole in its line.
        backend.send(b"\xe2\x82");
        backend.send(b"\xac\n");
        assert_eq!(client.message(), (types[0], "\u{20ac}".into()));
    }
    let (daemon, mut client, mut backend) = connect(&["--protocol", "lines", "--type", "text"]);
    backend.send(b"text\n\xff\nlost\n");
    client.expect_text("text");
    client.expect_close_handshake(1011);
    drop(backend);
    daemon.log().wait_for(&["warn", "not UTF-8", "1011", "use auto or binary"]);
}

/// After the client's close frame complete lines of the backend are still sent; an incomplete one only if the backend
/// has ended.
#[test]
fn lines_after_a_close_frame() {
    let daemon = Daemon::start(&["--protocol", "lines"]);
    let server = daemon.listen("server");
    expect_last_words(|| {
        let (mut client, mut backend) = (daemon.connect("/server"), server.accept());
        let start = Instant::now();
        client.text("bye");
        client.close(1000);
        backend.expect("bye\n");
        backend.expect_end();
        let _ = backend.stream().write_all(b"so long\nand th");
        let _ = backend.stream().write_all(b"anks");
        drop(backend);
        (start, client, vec![Frame::new(TEXT, b"so long"), Frame::new(TEXT, b"and thanks"), Frame::close(1000, "")])
    });
    let mut open = Vec::new();
    expect_last_words(|| {
        let (mut client, backend) = (daemon.connect("/server"), server.accept());
        let start = Instant::now();
        client.close(4000);
        let _ = backend.stream().write_all(b"whole\ncut");
        open.push(backend);
        (start, client, vec![Frame::new(TEXT, b"whole"), Frame::close(4000, "")])
    });
}

/// When the gateway stops, a line that the backend has not ended may answer the first part of a message, and is
/// dropped. Where the backend was sent no such part, it is the backend's last line.
#[test]
fn the_last_line_when_the_gateway_stops() {
    let half_a_ping = &Frame::new(PING, b"more").masked().bytes()[..1];
    let half_a_header = &Frame::new(TEXT, b"question").masked().bytes()[..3];
    let half_a_message = Frame::part(TEXT, b"ques").masked().bytes();
    for (begun, is_dropped) in [(half_a_ping, false), (half_a_header, false), (&half_a_message, true)] {
        // On a busy machine the backend may take long to answer.
        let limits = "drain-ms = 60000; close-ms = 60000;";
        let daemon = Daemon::start_configured(&configuration(limits, "protocol = \"lines\";"));
        let server = daemon.listen("server");
        let (mut client, mut backend) = (daemon.connect("/server"), server.accept());
        client.wire.send([&Frame::new(PING, b"").masked().bytes(), begun].concat());
        client.expect_pong(b"");
        daemon.signal(Signal::SIGTERM);
        backend.expect(if is_dropped { "ques" } else { "" });
        backend.expect_end();
        backend.send("whole\nand the rest");
        drop(backend);
        client.expect_text("whole");
        if !is_dropped {
            client.expect_text("and the rest");
        }
        client.expect_close(1001);
    }
}

#[test]
fn packet_sockets_are_refused_in_line_mode() {
    let daemon = Daemon::start(&["--protocol", "lines"]);
    let _server = daemon.listen_packets("packets");
    assert_eq!(daemon.upgrade("/packets", &[]).status, 502);
    daemon.log().wait_for(&["502", "Protocol wrong type for socket"]);
}

/// A backend is not read while its client does not read, and no line is lost.
#[test]
fn a_late_reader_receives_every_line() {
    let (daemon, mut client, mut backend) = connect(&["--protocol", "lines"]);
    let line = |number: u32| format!("{number:0>200}");
    let (count, a_write) = (100_000, 100);
    let before = daemon.resident_kib();
    let written = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for first in (0..count).step_by(a_write as usize) {
                let lines: String = (first..first + a_write).map(|number| line(number) + "\n").collect();
                backend.send(lines);
                written.fetch_add(a_write, Ordering::Relaxed);
            }
            drop(backend);
        });
        // 20 MB exceed all buffers between a backend and its client.
        let (mut last, mut unchanged) = (0, 0);
        eventually("the server's writes come to a halt", || {
            daemon.get("/nosuch");
            let now = written.load(Ordering::Relaxed);
            unchanged = if now == last { unchanged + 1 } else { 0 };
            last = now;
            unchanged == 20
        });
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(last < count && grown < 12 * 1024, "{last} lines are written, and the daemon has {grown} KiB more");
        (0..count).for_each(|number| client.expect_text(&line(number)));
        client.expect_close_handshake(1000);
    });
}
