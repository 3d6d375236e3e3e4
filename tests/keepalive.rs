//! Clients that are silent, gone or idle, and clients that are only slow.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{BINARY, CLOSE, Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, configuration, uakari_words};
use crate::process::{DEADLINE, Folder, Process, can_unshare, eventually, eventually_eq, has, run, skipped};
use crate::server::{Backend, Listener};
use crate::wire::{Wire, handshake, request};

const SILENT: &str = "the client answered no ping (1006)";

fn pair(daemon: &Daemon, server: &Listener) -> (Client, Backend) {
    let client = daemon.connect("/server");
    (client, server.accept())
}

/// A daemon with short limits, and a backend.
fn start(limits: &str) -> (Daemon, Listener) {
    let daemon = Daemon::start_configured(&configuration(limits, ""));
    let server = daemon.listen("server");
    (daemon, server)
}

/// The next frame is a ping of the gateway's own, which is empty.
fn expect_ping(client: &mut Client) {
    assert_eq!(client.frame(), Frame::new(PING, b""));
}

#[test]
fn a_client_that_answers_pings_stays_connected() {
    let (daemon, server) = start("ping-ms = 150; pong-ms = 20000;");
    let start = Instant::now();
    let (mut client, mut backend) = pair(&daemon, &server);
    // Pings come every ping-ms, although pong-ms is much longer.
    for _ in 0..4 {
        expect_ping(&mut client);
        client.send(&[Frame::new(PONG, b"")]);
    }
    assert!(start.elapsed() < Duration::from_millis(10_000), "{:?}", start.elapsed());
    // Any byte counts as an answer.
    expect_ping(&mut client);
    client.wire.send(&Frame::new(TEXT, b"hello").masked().bytes()[..3]);
    expect_ping(&mut client);
    client.wire.send(&Frame::new(TEXT, b"hello").masked().bytes()[3..]);
    assert!(start.elapsed() >= Duration::from_millis(6 * 150 - 10), "{:?}", start.elapsed());
    backend.expect("hello");
    backend.send("answer");
    let mut frame = client.frame();
    while frame.opcode == PING {
        frame = client.frame();
    }
    assert_eq!(frame, Frame::new(TEXT, b"answer"));
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    for protocol in ["stream", "frames"] {
        let websocket = format!("protocol = \"{protocol}\"; limits = {{ ping-ms = 200; pong-ms = 300; }};");
        let daemon = Daemon::start_configured(&configuration("", &websocket));
        let server = daemon.listen("server");
        let start = Instant::now();
        let (mut client, mut backend) = pair(&daemon, &server);
        client.text("hello");
        expect_ping(&mut client);
        // No close frame. "hello" may have come after the first ping, and have answered it.
        let rest = client.wire.take_rest();
        assert!(rest.is_empty() || rest == Frame::new(PING, b"").bytes(), "{protocol}: {rest:x?}");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(490) && took < DEADLINE / 2, "{took:?}");
        let hello = Frame::new(TEXT, b"hello").bytes();
        backend.expect(if protocol == "frames" { &hello[..] } else { b"hello" });
        backend.expect_end();
        drop(backend);
        daemon.log().wait_for(&["info", "name=\"server\"", "code=1006", SILENT]);
    }
}

#[test]
fn no_pings_when_they_are_disabled() {
    let links = "limits = { ping-ms = 50; pong-ms = 100; };
        links = ({ origin = \"^/quiet$\"; type = \"unix\"; destination = \"@/run/quiet\"; limits = { ping-ms = 0; }; });";
    let daemon = Daemon::start_configured(&configuration("", links));
    let (server, quiet_server) = (daemon.listen("server"), daemon.listen("quiet"));
    let mut quiet = daemon.connect("/quiet");
    let mut quiet_backend = quiet_server.accept();
    let (_client, mut backend) = pair(&daemon, &server);
    backend.expect_end();
    drop(backend);
    daemon.log().wait_for(&[SILENT]);
    quiet_backend.send("the first that comes");
    quiet.expect_text("the first that comes");
}

/// Writes until the peer stops reading. Returns the bytes written.
fn write_until_stalled(mut stream: &TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut done = 0;
    loop {
        match stream.write(&bytes[done % bytes.len()..]) {
            Ok(size) => done += size,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return done,
            Err(error) => panic!("after {done} bytes: {error}"),
        }
    }
}

/// A client that is not read, because its backend does not read, cannot answer pings.
#[test]
fn backpressure_on_a_client_does_not_count_as_a_lost_connection() {
    let (daemon, server) = start("ping-ms = 150; pong-ms = 1000;");
    let (mut client, mut backend) = pair(&daemon, &server);
    let message = Frame::new(BINARY, &[7; 64 * 1024]).masked().bytes();
    let sent = write_until_stalled(client.wire.stream(), &message);
    // Silent clients are closed one after the other, which takes longer than this client's pong-ms.
    for _ in 0..3 {
        let (silent, mut its_backend) = pair(&daemon, &server);
        its_backend.expect_end();
        drop(silent);
    }
    // The backend reads again, and the client sends the rest of the message.
    let rest = (message.len() - sent % message.len()) % message.len();
    let messages = (sent + rest) / message.len();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.wire.stream().set_write_timeout(Some(DEADLINE)).unwrap();
            client.wire.stream().write_all(&message[message.len() - rest..]).unwrap();
        });
        for number in 0..messages {
            assert!(backend.take(64 * 1024) == [7; 64 * 1024], "message {number} of {messages} is another");
        }
    });
    backend.send("answer");
    let mut frame = client.frame();
    while frame.opcode == PING {
        client.send(&[Frame::new(PONG, b"")]);
        frame = client.frame();
    }
    assert_eq!(frame, Frame::new(TEXT, b"answer"));
    eventually_eq(|| daemon.log().text().matches(SILENT).count(), &3, "clients that were lost");
}

/// A client under back-pressure is not read: only a send shows that it has left.
#[test]
fn a_disconnect_is_detected_under_backpressure() {
    for reads_first in [true, false] {
        let (daemon, server) = start("ping-ms = 150; pong-ms = 1000; stall-ms = 1000;");
        let (client, _backend) = pair(&daemon, &server);
        let message = Frame::new(BINARY, &[7; 64 * 1024]).masked().bytes();
        write_until_stalled(client.wire.stream(), &message);
        if reads_first {
            // It closes without a reset, unless another ping comes meanwhile.
            let mut stream = client.wire.stream();
            stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            while stream.read(&mut [0; 64]).is_ok_and(|size| size > 0) {}
        }
        drop(client);
        daemon.log().wait_for(&["c1 end", "the client's connection broke (1006)"]);
    }
}

/// The same for a client over its rate.
#[test]
fn a_disconnect_is_detected_under_a_rate_limit() {
    let (daemon, server) = start("ping-ms = 150; pong-ms = 1000; messages-per-second = 1;");
    let (mut client, mut backend) = pair(&daemon, &server);
    client.send(&vec![Frame::new(BINARY, b"x"); 500]);
    backend.expect("x".repeat(500));
    // While it is connected it gets pings, and no pong is expected.
    (0..4).for_each(|_| expect_ping(&mut client));
    drop(client);
    daemon.log().wait_for(&["c1 end", "the client's connection broke (1006)"]);
}

/// A slow reader with much data in flight: a ping is delayed, and so is a page.
#[test]
fn a_slow_reader_does_not_count_as_a_lost_connection() {
    const SIZE: usize = 64 * 1024;
    const COUNT: usize = 64;
    let (daemon, server) = start("ping-ms = 150; pong-ms = 1500; stall-ms = 1000;");
    fs::write(daemon.folder().join("www/large"), vec![7; COUNT * SIZE]).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = Wire::new(daemon.narrow_stream(SIZE));
            wire.send(request("GET", "/large", &[]));
            assert_eq!(wire.response_head().status, 200);
            for number in 0..COUNT {
                assert_eq!(wire.take(SIZE), [7; SIZE], "{number}");
                thread::sleep(Duration::from_millis(150));
            }
        });
        let mut wire = Wire::new(daemon.narrow_stream(SIZE));
        assert_eq!(wire.upgrade("/server", &[]).status, 101);
        let (mut client, mut backend) = (Client::new(wire), server.accept());
        scope.spawn(move || {
            (0..COUNT).for_each(|_| backend.send([7; SIZE]));
            backend.expect("done");
        });
        let mut got = 0;
        while got < COUNT * SIZE {
            let frame = client.frame();
            if frame.opcode == PING {
                client.send(&[Frame::new(PONG, b"")]);
                continue;
            }
            got += frame.payload.len();
            thread::sleep(Duration::from_millis(frame.payload.len() as u64 * 150 / SIZE as u64));
        }
        client.text("done");
    });
}

#[test]
fn idle_conversations_are_closed() {
    // Pings and pongs are no messages.
    let limits = "idle-ms = 600; ping-ms = 100; pong-ms = 2000;";
    let daemon = Daemon::start_configured(&configuration(limits, "protocol = \"frames\";"));
    let server = daemon.listen("server");
    // A busy machine may hold the test up until the time is over.
    let is_in_time = |_| a_conversation_is_idle_at_its_end(&daemon, &server);
    assert!((0..3).any(is_in_time));
    daemon.log().wait_for(&["info", "code=1001", "idle for too long (1001)"]);
}

/// False: it was idle before its end, by this test's own fault.
fn a_conversation_is_idle_at_its_end(daemon: &Daemon, server: &Listener) -> bool {
    const IDLE: Duration = Duration::from_millis(600);
    let (mut client, mut backend) = pair(daemon, server);
    let mut last = Instant::now();
    let is_late = |frame: &Frame, last: Instant| frame.opcode == CLOSE && last.elapsed() >= IDLE;
    // A message in either direction restarts the time.
    for number in 0..4 {
        for _ in 0..2 {
            let frame = client.frame();
            if is_late(&frame, last) {
                return false;
            }
            assert_eq!(frame, Frame::new(PING, b""), "after {:?}", last.elapsed());
            client.send(&[Frame::new(PONG, b"")]);
        }
        let before = std::mem::replace(&mut last, Instant::now());
        let text = ["up", "down"][number % 2];
        let frame = if text == "up" {
            client.text(text);
            backend.frame()
        } else {
            backend.send_frame(&Frame::new(TEXT, text.as_bytes()));
            std::iter::repeat_with(|| client.frame()).find(|frame| frame.opcode != PING).unwrap()
        };
        if is_late(&frame, before) {
            return false;
        }
        assert_eq!((frame.opcode, &*frame.payload), (TEXT, text.as_bytes()));
    }
    let mut frame = client.frame();
    while frame.opcode == PING {
        client.send(&[Frame::new(PONG, b"")]);
        frame = client.frame();
    }
    assert_eq!(frame.close_code(), (1001, "idle for too long".to_owned()));
    assert!(last.elapsed() >= IDLE - Duration::from_millis(10), "{:?}", last.elapsed());
    client.close(1001);
    assert_eq!(backend.frame().close_code().0, 1001);
    backend.expect_end();
    drop(backend);
    client.wire.expect_end();
    true
}

/// The options of accepted sockets, as ss(8) shows them.
#[test]
fn tcp_keepalive_is_enabled() {
    if !has("ss") {
        return skipped("there is no ss (iproute2)");
    }
    for (limits, timer) in [("tcp-keepalive-ms = 90000;", Some("keepalive,1min")), ("tcp-keepalive-ms = 0;", None)] {
        let (daemon, server) = start(limits);
        let (mut client, mut backend) = pair(&daemon, &server);
        // The retransmission timer runs instead while bytes are unacknowledged.
        client.text("hello");
        backend.expect("hello");
        let shown = || {
            let port = format!(":{}", daemon.port);
            run(Command::new("ss").args(["-tnoH", "state", "established", "sport", "=", &port]), DEADLINE).out
        };
        eventually(&format!("{limits} {timer:?}"), || match timer {
            Some(timer) => shown().contains(timer),
            None => !shown().is_empty() && !shown().contains("timer:"),
        });
    }
}

/// A link that is cut without a FIN or RST, in a network namespace.
#[test]
fn a_client_whose_network_link_is_down_is_closed() {
    if !can_unshare(&["--net"]) || !has("nsenter") || !has("ip") {
        return skipped("only root with nsenter and ip (iproute2) can cut a link");
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).args(uakari_words());
    let text = configuration("tcp-user-timeout-ms = 500; ping-ms = 0;", "");
    let daemon = Daemon::start_configured_by(Folder::new(), &text, command);
    let server = daemon.listen("server");
    let within = |program: &str| {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &daemon.pid().to_string(), program]);
        command
    };
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{} && printf '%s' \"$0\" >&3 && cat <&3", daemon.port);
    let client = Process::start(within("bash").args(["-c", &connect, &handshake("/server", &[], &[])]));
    client.out.wait_for(&["101 Switching"]);
    let mut backend = server.accept();
    assert!(run(within("ip").args(["link", "set", "lo", "down"]), DEADLINE).status.success());
    let start = Instant::now();
    backend.send("is anybody there?");
    let mut rest = Vec::new();
    backend.stream().read_to_end(&mut rest).unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(backend);
    daemon.log().wait_for(&["the client's connection broke (1006)", "timed out"]);
}
