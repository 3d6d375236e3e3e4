//! The limits of a configuration, end to end.

/// One address, and its effect on another.
mod fairness;

/// Bytes and messages: queue sizes and rates.
mod flow;

/// Memory, and the bound that the log names.
mod memory;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};

use crate::client::{BINARY, CONTINUATION, Client, Frame};
use crate::daemon::{Daemon, configuration, patient};
use crate::process::{DEADLINE, eventually};
use crate::server::{Backend, Kind, Listener, connect};
use crate::standstill::{until_in_time, while_stopped};
use crate::wire::{Response, Wire, handshake, request};

/// A client and its backend; connected one after the other, so that they belong together.
pub fn pair(daemon: &Daemon, server: &Listener) -> (Client, Backend) {
    let client = daemon.connect("/server");
    (client, server.accept())
}

/// A message each way.
pub fn exchange((client, backend): &mut (Client, Backend)) {
    client.text("question");
    backend.expect("question");
    backend.send("answer");
    client.expect_text("answer");
}

/// A connection from this address of the loopback network.
fn wire_from(address: Ipv4Addr, port: u16) -> Wire {
    Wire::new(stream_from(address, port, None))
}

/// As `wire_from`, with SO_RCVBUF.
pub fn stream_from(address: Ipv4Addr, port: u16, receive_size: Option<usize>) -> TcpStream {
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    if let Some(size) = receive_size {
        setsockopt(&fd, sockopt::RcvBuf, &size).unwrap();
    }
    let from = SocketAddr::from((address, 0));
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    TcpStream::from(fd)
}

/// Makes a connection a WebSocket, and reads no byte beyond the 101.
pub fn join(mut stream: TcpStream, path: &str) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(handshake(path, &[], &[]).as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {}", head.escape_ascii()));
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream
}

/// A client over the limit gets a 503 before its request.
fn expect_full(wire: &mut Wire, reason: &str) {
    let response = wire.response();
    assert_eq!(response.status, 503, "{response:?}");
    assert_ne!(response.field("Retry-After"), "", "{response:?}");
    assert!(response.text().contains(reason), "{response:?}");
}

#[test]
fn clients_in_total() {
    let daemon = Daemon::start_configured(&configuration("clients = 5;", ""));
    let server = daemon.listen("server");
    let mut pairs: Vec<_> = (0..5).map(|_| pair(&daemon, &server)).collect();
    for _ in 0..3 {
        expect_full(&mut daemon.wire(), "limits.clients");
    }
    pairs.iter_mut().for_each(exchange);
    daemon.log().wait_for(&["warn", "refused with 503: too many clients (limits.clients)"]);
    // One leaves, and the next fits.
    drop(pairs.pop());
    eventually("there is a place", || daemon.upgrade("/nosuch", &[]).status == 404);
    pairs.iter_mut().for_each(exchange);
}

/// Few clients over the limit get a 503; the others are closed, and existing ones are not affected.
#[test]
fn many_clients_beyond_the_limit() {
    until_in_time(|| {
        let daemon = Daemon::start_configured(&configuration("clients = 2;", ""));
        let server = daemon.listen("server");
        let mut pairs = [pair(&daemon, &server), pair(&daemon, &server)];
        let start = Instant::now();
        let mut crowd: Vec<Wire> = (0..200).map(|_| daemon.wire()).collect();
        let told = crowd.iter_mut().filter_map(|wire| wire.fill().then(|| expect_full(wire, "limits.clients"))).count();
        // After CLOSE_MS (3 s) those who were told make room for others.
        if told > 64 && start.elapsed() >= Duration::from_secs(3) {
            return false;
        }
        assert!((1..=64).contains(&told), "{told} were told");
        pairs.iter_mut().for_each(exchange);
        true
    });
}

#[test]
fn clients_of_a_server() {
    let server_of = |address: &str, keys: &str| {
        format!("{{ listen = \"{address}:0\"; {keys} websocket = {{ docroot = \"@/run\"; }}; }}")
    };
    for full in ["maxclients = 2;", "limits = { clients = 2; };"] {
        let daemon = Daemon::start_configured(&format!(
            "limits = {{ {} }}; servers = ({}, {});",
            patient(""),
            server_of("127.0.0.1", full),
            server_of("127.0.0.2", "")
        ));
        let lines = daemon.announced().wait(|lines| (lines.len() == 2).then(|| lines.to_vec())).unwrap();
        let other: u16 = lines[1].rsplit(':').next().unwrap().parse().unwrap();
        let server = daemon.listen("server");
        let mut pairs = [pair(&daemon, &server), pair(&daemon, &server)];
        expect_full(&mut daemon.wire(), "maxclients");
        // The other backend has room.
        for _ in 0..4 {
            let mut wire = Wire::new(TcpStream::connect(("127.0.0.2", other)).unwrap());
            assert_eq!(wire.upgrade("/nosuch", &[]).status, 404, "{full}");
        }
        pairs.iter_mut().for_each(exchange);
    }
}

#[test]
fn clients_of_a_name() {
    let links = "links = ({ origin = \"^/server$\"; type = \"unix\"; destination = \"@/run/server\";
                            limits = { clients = 2; }; });";
    let daemon = Daemon::start_configured(&configuration("", links));
    let server = daemon.listen("server");
    let mut pairs = [pair(&daemon, &server), pair(&daemon, &server)];
    let response = daemon.upgrade("/server", &[]);
    assert_eq!(response.status, 503);
    assert_ne!(response.field("Retry-After"), "", "{response:?}");
    assert_eq!(daemon.upgrade("/nosuch", &[]).status, 404);
    pairs.iter_mut().for_each(exchange);
}

#[test]
fn clients_of_an_address() {
    let text = configuration("clients-per-address = 3;", "").replace("127.0.0.1:0", "0.0.0.0:0");
    let daemon = Daemon::start_configured(&text);
    let server = daemon.listen("server");
    let mut pairs: Vec<_> = (0..3).map(|_| pair(&daemon, &server)).collect();
    expect_full(&mut daemon.wire(), "limits.clients-per-address");
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let mut others: Vec<_> = (0..3)
        .map(|_| {
            let mut wire = wire_from(other, daemon.port);
            assert_eq!(wire.upgrade("/server", &[]).status, 101);
            (Client::new(wire), server.accept())
        })
        .collect();
    expect_full(&mut wire_from(other, daemon.port), "limits.clients-per-address");
    others.iter_mut().chain(&mut pairs).for_each(exchange);
    drop(others.pop());
    eventually("there is a place", || {
        let mut wire = wire_from(other, daemon.port);
        wire.upgrade("/nosuch", &[]).status == 404
    });
}

/// Clients refused for their address do not count among all clients.
#[test]
fn one_address_does_not_exhaust_the_limit_of_others() {
    let daemon = Daemon::start_configured(&configuration("clients = 8; clients-per-address = 2;", ""));
    let server = daemon.listen("server");
    let crowd: Vec<Wire> = (0..100).map(|_| wire_from(Ipv4Addr::new(127, 0, 0, 2), daemon.port)).collect();
    let mut others = Vec::new();
    for last in 3..9 {
        let mut wire = wire_from(Ipv4Addr::new(127, 0, 0, last), daemon.port);
        assert_eq!(wire.upgrade("/server", &[]).status, 101, "127.0.0.{last}");
        others.push((Client::new(wire), server.accept()));
    }
    others.iter_mut().for_each(exchange);
    drop(crowd);
}

#[test]
fn half_open_handshakes() {
    let daemon = Daemon::start_configured(&configuration("handshakes = 4;", ""));
    let server = daemon.listen("server");
    // A WebSocket does not count as a handshake.
    let mut pairs: Vec<_> = (0..6).map(|_| pair(&daemon, &server)).collect();
    let mut half_open: Vec<Wire> = (0..4).map(|_| daemon.wire()).collect();
    half_open.iter_mut().for_each(|wire| wire.send("GET /server HTTP/1.1\r\nHo"));
    expect_full(&mut daemon.wire(), "limits.handshakes");
    pairs.iter_mut().for_each(exchange);
    drop(half_open.pop());
    eventually("there is a place", || {
        let mut wire = daemon.wire();
        let is_in = wire.upgrade("/server", &[]).status == 101;
        pairs.extend(is_in.then(|| (Client::new(wire), server.accept())));
        is_in
    });
    // A slow client within the limit is served.
    let mut late = half_open.pop().unwrap();
    late.send("st: gate.example\r\n\r\n");
    assert_eq!(late.response().status, 426);
    pairs.iter_mut().for_each(exchange);
}

/// The response to a request with this number of headers and bytes.
fn request_of(daemon: &Daemon, headers: usize, size: usize) -> Response {
    let mut request = "GET /nosuch HTTP/1.1\r\nHost: gate.example\r\n".to_owned();
    (2..headers).for_each(|number| request += &format!("X-{number}: x\r\n"));
    let filler = size - request.len() - "X-Filler: \r\n\r\n".len();
    request += &format!("X-Filler: {}\r\n\r\n", "x".repeat(filler));
    assert_eq!((request.matches(':').count(), request.len()), (headers, size));
    let mut wire = daemon.wire();
    wire.send(request);
    wire.response()
}

#[test]
fn heads() {
    let daemon = Daemon::start_configured(&configuration("head-size = 2000; headers = 10;", ""));
    for (headers, size, status) in [(10, 2000, 404), (10, 2001, 431), (11, 2000, 431), (2, 50_000, 431)] {
        assert_eq!(request_of(&daemon, headers, size).status, status, "{headers} headers, {size} bytes");
    }
    // Refused before the end has come.
    for (begin, status) in [("GET /nosuch HTTP/1.1\r\nX: ", 431), ("GET /", 414)] {
        let mut wire = daemon.wire();
        wire.send(begin.to_owned() + &"x".repeat(20_000));
        assert_eq!(wire.response().status, status, "{begin:?}");
    }
    // Limits above the defaults hold too.
    let daemon = Daemon::start_configured(&configuration("head-size = 60000; headers = 128;", ""));
    for (headers, size, status) in [(128, 60_000, 404), (128, 60_001, 431), (129, 4_000, 431)] {
        assert_eq!(request_of(&daemon, headers, size).status, status, "{headers} headers, {size} bytes");
    }
}

/// Takes at least this long.
pub fn timed(least_ms: u64, act: impl FnOnce()) {
    let start = Instant::now();
    act();
    expect_took(start, least_ms);
}

/// It took at least this long; either clock counts whole milliseconds.
fn expect_took(start: Instant, least_ms: u64) {
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(least_ms - 2) && took < DEADLINE / 2,
        "{took:?} where {least_ms} ms were due"
    );
}

/// A connection whose first bytes are there when it is accepted: no time passes between the two.
fn wire_after(daemon: &Daemon, bytes: impl AsRef<[u8]>) -> Wire {
    while_stopped(daemon, || {
        let mut wire = daemon.wire();
        wire.send(bytes);
        wire
    })
}

#[test]
fn a_slow_head_is_408() {
    let daemon = Daemon::start_configured(&configuration("head-ms = 1000;", ""));
    timed(1_000, || {
        let mut first = wire_after(&daemon, "GET / HTTP/1.1\r\n");
        assert_eq!(first.response().status, 408);
    });
    // The next request has the same time, from its first byte on.
    let mut second = wire_after(&daemon, request("GET", "/nosuch", &[]));
    assert_eq!(second.response().status, 404);
    timed(1_000, || {
        second.send("G");
        assert_eq!(second.response().status, 408);
    });
    drop(second);
    daemon.log().wait_for(&["the request head was too slow (408)"]);
    // A client that sends nothing is closed without a reply.
    timed(1_000, || daemon.wire().expect_end());
}

#[test]
fn a_backend_that_does_not_accept_is_504() {
    for (limits, least_ms) in [
        ("connect-ms = 200; handshake-ms = 60000;", 200),
        ("connect-ms = 60000; handshake-ms = 300; head-ms = 60000;", 300),
    ] {
        let daemon = Daemon::start_configured(&configuration(limits, ""));
        let path = daemon.socket("full");
        let _server = Listener::bind_with_backlog(&path, Kind::Stream, 0);
        let _filler = connect(&path, Kind::Stream).unwrap();
        timed(least_ms, || {
            let mut wire = wire_after(&daemon, handshake("/full", &[], &[]));
            assert_eq!(wire.response().status, 504, "{limits}");
        });
        daemon.log().wait_for(&["warn", "name=\"full\"", "504"]);
    }
}

#[test]
fn an_idle_persistent_connection_times_out() {
    for (before, after, least_ms) in [
        ("document", "limits = { keepalive-ms = 1500; }; document", 1_500),
        ("document", "keepalivetimeout = 1; document", 1_000),
    ] {
        let daemon = Daemon::start_configured(&configuration("", "").replacen(before, after, 1));
        until_in_time(|| {
            let mut wire = daemon.wire();
            let mut asked = Instant::now();
            for _ in 0..3 {
                let before = std::mem::replace(&mut asked, Instant::now());
                wire.send(request("GET", "/nosuch", &[]));
                // It may have been idle for too long before this request.
                if before.elapsed() >= Duration::from_millis(least_ms) {
                    return false;
                }
                assert_eq!(wire.response().status, 404);
            }
            wire.expect_end();
            expect_took(asked, least_ms);
            true
        });
        daemon.log().wait_for(&["info", "idle: no request came"]);
    }
}

#[test]
fn frames_and_messages() {
    let daemon = Daemon::start_configured(&configuration("frame-size = 1000; message-size = 2000;", ""));
    let server = daemon.listen("server");
    let bytes = [7; 2001];
    let thirds = |last: usize| {
        [
            Frame::part(BINARY, &bytes[..1000]),
            Frame::part(CONTINUATION, &bytes[..0]),
            Frame::new(CONTINUATION, &bytes[..last]),
        ]
    };
    let (mut client, mut backend) = pair(&daemon, &server);
    client.send(&[Frame::new(BINARY, &bytes[..1000])]);
    client.send(&thirds(1000));
    backend.expect(&bytes[..1000]);
    backend.expect(&bytes[..2000]);
    client.finish(1000);
    for (said, frames) in [
        ("a frame of 1001 bytes, 1000 at most", vec![Frame::new(BINARY, &bytes[..1001])]),
        ("a message of 2001 bytes, 2000 at most", {
            let mut frames = thirds(1000).to_vec();
            frames[2].fin = false;
            frames.push(Frame::new(CONTINUATION, &bytes[..1]));
            frames
        }),
    ] {
        let (mut client, backend) = pair(&daemon, &server);
        client.send(&frames);
        // It sees the end, and does not precede it with its own.
        backend.stream().read_to_end(&mut Vec::new()).unwrap();
        drop(backend);
        let reason = client.expect_close(1009);
        assert_eq!(reason, said);
        client.wire.expect_end();
    }
    daemon.log().wait_for(&["info", "the client broke the protocol (1009)"]);
}

#[test]
fn file_descriptors() {
    // 64 are in reserve, and each client may need two.
    let daemon = Daemon::start_configured(&configuration("files = 84;", ""));
    daemon.log().wait_for(&["warn", "84 file descriptors (limits.files)", "10 clients only"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("84"), "{limits}");
    let server = daemon.listen("server");
    let mut pairs: Vec<_> = (0..10).map(|_| pair(&daemon, &server)).collect();
    expect_full(&mut daemon.wire(), "limits.clients");
    pairs.iter_mut().for_each(exchange);
    assert!(daemon.open_files() <= 84, "{} files are open", daemon.open_files());
}
