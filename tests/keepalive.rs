//! Clients that are silent, gone or idle, and clients that are only slow.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{BINARY, CLOSE, Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, configuration, uakari_words};
use crate::limits::join;
use crate::process::{DEADLINE, Folder, Process, can_unshare, eventually, has, run, skipped, uninterrupted};
use crate::server::{Backend, Listener};
use crate::standstill::{Pace, frame_or_end, until_in_time};
use crate::wire::{handshake, request};

const SILENT: &str = "the client answered no ping (1006)";

fn pair(daemon: &Daemon, server: &Listener) -> (Client, Backend) {
    let client = daemon.connect("/server");
    (client, server.accept())
}

/// As `pair`. The client sends these frames with its handshake, so that it is never silent before them.
fn pair_after(daemon: &Daemon, server: &Listener, frames: &[Frame]) -> (Client, Backend) {
    let frames = frames.iter().flat_map(|frame| frame.clone().masked().bytes());
    let mut wire = daemon.wire();
    wire.send(handshake("/server", &[], &[]).into_bytes().into_iter().chain(frames).collect::<Vec<u8>>());
    assert_eq!(wire.response_head().status, 101);
    (Client::new(wire), server.accept())
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
    let (daemon, server) = start("ping-ms = 150; pong-ms = 60000;");
    let start = Instant::now();
    let (mut client, mut backend) = pair(&daemon, &server);
    // Pings come every ping-ms, although pong-ms is much longer.
    for _ in 0..4 {
        expect_ping(&mut client);
        client.send(&[Frame::new(PONG, b"")]);
    }
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
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
        let (mut client, mut backend) = pair_after(&daemon, &server, &[Frame::new(TEXT, b"hello")]);
        expect_ping(&mut client);
        // No close frame.
        let rest = client.wire.take_rest();
        assert!(rest.is_empty(), "{protocol}: {rest:x?}");
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
    assert_eq!(quiet.frame(), Frame::new(TEXT, b"the first that comes"));
}

/// Writes until the peer stops reading. Returns the bytes written. None: the gateway has closed the connection, because
/// this test was suspended and the client was silent for a second or more since this instant.
fn write_until_stalled(mut stream: &TcpStream, bytes: &[u8], since: Instant) -> Option<usize> {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut done = 0;
    loop {
        match uninterrupted(|| stream.write(&bytes[done % bytes.len()..])) {
            Ok(size) => done += size,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Some(done),
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
                    && since.elapsed() >= Duration::from_secs(1) =>
            {
                return None;
            }
            Err(error) => panic!("after {done} bytes: {error}"),
        }
    }
}

/// A client that is not read, because its backend does not read, cannot answer pings.
#[test]
fn backpressure_on_a_client_does_not_count_as_a_lost_connection() {
    until_in_time(|| {
        let (daemon, server) = start("ping-ms = 150; pong-ms = 1000;");
        let since = Instant::now();
        let (client, backend) = pair(&daemon, &server);
        let message = Frame::new(BINARY, &[7; 64 * 1024]).masked().bytes();
        let (mut stream, mut from_gateway) = (client.wire.stream(), backend.stream());
        let Some(sent) = write_until_stalled(stream, &message, since) else { return false };
        // Silent clients are closed one after the other, which takes longer than this client's pong-ms.
        for _ in 0..3 {
            let (silent, mut its_backend) = pair(&daemon, &server);
            its_backend.expect_end();
            drop(silent);
        }
        eventually("they are lost", || daemon.log().text().matches(SILENT).count() >= 3);
        assert!(!daemon.log().text().contains("c1 end"), "it was lost");
        // The backend reads again, and the client sends the rest of the message.
        let released = Instant::now();
        let rest = (message.len() - sent % message.len()) % message.len();
        let messages = (sent + rest) / message.len();
        let (is_sent, is_read) = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                client.wire.stream().set_write_timeout(Some(DEADLINE)).unwrap();
                client.wire.stream().write_all(&message[message.len() - rest..]).is_ok()
            });
            let is_read = (0..messages).all(|number| {
                let mut bytes = vec![0; 64 * 1024];
                let is_read = from_gateway.read_exact(&mut bytes).is_ok();
                assert!(!is_read || bytes == [7; 64 * 1024], "message {number} of {messages} is another");
                is_read
            });
            (sender.join().unwrap(), is_read)
        });
        let is_answered = from_gateway.write_all(b"answer").is_ok();
        let mut frame = frame_or_end(&mut stream);
        while frame == Some(Frame::new(PING, b"")) {
            frame = frame_or_end(&mut stream);
        }
        // Once it is read, its silence counts: then the connection has ended.
        if frame.is_none() && released.elapsed() >= Duration::from_millis(800) {
            return false;
        }
        assert_eq!((is_sent, is_read, is_answered, frame), (true, true, true, Some(Frame::new(TEXT, b"answer"))));
        true
    });
}

/// A client under back-pressure is not read: only a send shows that it has left.
#[test]
fn a_disconnect_is_detected_under_backpressure() {
    for reads_first in [true, false] {
        until_in_time(|| {
            let (daemon, server) = start("ping-ms = 150; pong-ms = 1000; stall-ms = 1000;");
            let since = Instant::now();
            let (client, _backend) = pair(&daemon, &server);
            let message = Frame::new(BINARY, &[7; 64 * 1024]).masked().bytes();
            if write_until_stalled(client.wire.stream(), &message, since).is_none() {
                return false;
            }
            if reads_first {
                // It closes without a reset, unless another ping comes meanwhile.
                let mut stream = client.wire.stream();
                stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
                while stream.read(&mut [0; 64]).is_ok_and(|size| size > 0) {}
            }
            drop(client);
            daemon.log().wait_for(&["c1 end", "the client's connection broke (1006)"]);
            true
        });
    }
}

/// The same for a client over its rate.
#[test]
fn a_disconnect_is_detected_under_a_rate_limit() {
    let (daemon, server) = start("ping-ms = 150; pong-ms = 1000; messages-per-second = 1;");
    let (mut client, mut backend) = pair_after(&daemon, &server, &vec![Frame::new(BINARY, b"x"); 500]);
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
    // A reader that pauses for longer, by this test's own fault, may be closed.
    const PAUSE_MAX: Duration = Duration::from_millis(600);
    until_in_time(|| {
        let (daemon, server) = start("ping-ms = 150; pong-ms = 1500; stall-ms = 1000;");
        fs::write(daemon.folder().join("www/large"), vec![7; COUNT * SIZE]).unwrap();
        thread::scope(|scope| {
            let page = scope.spawn(|| {
                let (mut pace, mut got, mut piece) = (Pace::start(), Vec::new(), vec![0; SIZE]);
                let mut stream = daemon.narrow_stream(SIZE);
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.write_all(request("GET", "/large", &["Connection: close"]).as_bytes()).unwrap();
                for number in 0..COUNT {
                    let result = stream.read_exact(&mut piece);
                    pace.step();
                    let is_late = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                    if result.is_err() && !is_late && pace.longest() >= PAUSE_MAX {
                        return false;
                    }
                    result.unwrap_or_else(|error| panic!("piece {number} of the page: {error}"));
                    got.extend_from_slice(&piece);
                    thread::sleep(Duration::from_millis(150));
                }
                let is_held_up = pace.longest() >= PAUSE_MAX;
                let result = stream.read_to_end(&mut got);
                let is_whole = got.starts_with(b"HTTP/1.1 200 ") && got.ends_with(&[7; COUNT * SIZE]);
                assert!(is_whole || is_held_up, "{} bytes, {result:?}", got.len());
                is_whole
            });
            let (start, mut pace, mut got) = (Instant::now(), Pace::start(), 0);
            let mut stream = join(daemon.narrow_stream(SIZE), "/server");
            let backend = server.accept();
            let server = scope.spawn(move || {
                let (mut stream, mut said) = (backend.stream(), [0; 4]);
                let is_sent = (0..COUNT).all(|_| stream.write_all(&[7; SIZE]).is_ok());
                is_sent && stream.read_exact(&mut said).is_ok() && said == *b"done"
            });
            while got < COUNT * SIZE {
                let frame = frame_or_end(&mut stream);
                pace.step();
                let Some(frame) = frame else { break };
                if frame.opcode == PING {
                    assert!(start.elapsed() < 3 * DEADLINE, "nothing but pings after {got} bytes");
                    let _ = stream.write_all(&Frame::new(PONG, b"").masked().bytes());
                    continue;
                }
                got += frame.payload.len();
                thread::sleep(Duration::from_millis(frame.payload.len() as u64 * 150 / SIZE as u64));
            }
            let _ = stream.write_all(&Frame::new(TEXT, b"done").masked().bytes());
            let is_held_up = pace.longest() >= PAUSE_MAX;
            let is_done = server.join().unwrap();
            assert!(is_done || is_held_up, "the client was lost after {got} bytes");
            page.join().unwrap() && is_done
        })
    });
}

#[test]
fn idle_conversations_are_closed() {
    // Pings and pongs are no messages.
    let limits = "idle-ms = 600; ping-ms = 100; pong-ms = 2000; close-ms = 60000;";
    let daemon = Daemon::start_configured(&configuration(limits, "protocol = \"frames\";"));
    let server = daemon.listen("server");
    // A busy machine may hold the test up until the time is over.
    until_in_time(|| a_conversation_is_idle_at_its_end(&daemon, &server));
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
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    drop(backend);
    daemon.log().wait_for(&["the client's connection broke (1006)", "timed out"]);
}
