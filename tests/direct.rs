//! Direct mode: the client's own socket goes to its backend.

/// Clients that sent bytes with the handshake.
mod tunnel;

/// Backends that do not receive the clients' sockets.
mod watched;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};

use crate::client::{Client, Frame, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::handover::{Given, receive, take};
use crate::process::{DEADLINE, close, eventually, measured};
use crate::server::{Kind, Listener};
use crate::wire::{Wire, handshake};

const DIRECT: &[&str] = &["--options", "direct"];

/// The client's address as the backend must be given it (ip(7), ipv6(7)).
pub fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => [&2u16.to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => [&10u16.to_ne_bytes()[..], &port, &[0; 4], &v6.ip().octets(), &[0; 4]].concat(),
    }
}

/// A daemon that waits for its backends at a stop for longer than a test does.
fn stopped_slowly() -> Daemon {
    Daemon::start_configured(&configuration("drain-ms = 3600000;", "options = \"direct\";"))
}

/// A message each way.
pub fn converse(client: &mut Client, given: &mut Given) {
    client.text("to the server");
    given.client.expect(Frame::new(TEXT, b"to the server").masked().bytes());
    given.client.send_frame(&Frame::new(TEXT, b"to the client"));
    client.expect_text("to the client");
}

#[test]
fn the_message_byte_by_byte() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let daemon = Daemon::start(&[DIRECT, &["--listen", listen]].concat());
        let server = daemon.listen("echo");
        let ip = listen.trim_end_matches(":0");
        let stream = TcpStream::connect(format!("{ip}:{}", daemon.port)).unwrap();
        let address = stream.local_addr().unwrap();
        let mut wire = Wire::new(stream);
        wire.send(handshake("/echo", &[], &[]));
        assert_eq!(wire.response_head().status, 101);
        let mut client = Client::new(wire);
        let mut given = take(&server);
        assert_eq!(given.record, sockaddr(address), "{listen}");
        assert_eq!(given.record.len(), if ip.starts_with('[') { 28 } else { 16 });
        let socket = given.client.stream();
        let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK), "the socket must wait, as one from accept(2) does");
        assert!(getsockopt(&socket.as_fd(), sockopt::TcpNoDelay).unwrap());
        converse(&mut client, &mut given);
        daemon.log().wait_for(&["end", "status=101", "handed over to the backend"]);
    }
}

#[test]
fn addresses_of_unix_clients_contain_only_the_family() {
    let daemon = Daemon::start_configured(
        r#"servers = ({ listen = ("127.0.0.1:0", "unix:@/gate"); websocket = { docroot = "@/run"; options = "direct"; }; });"#,
    );
    let server = daemon.listen("echo");
    let mut stream = crate::server::connect(&daemon.folder().path().join("gate"), Kind::Stream).unwrap();
    stream.write_all(handshake("/echo", &[], &[]).as_bytes()).unwrap();
    let mut given = take(&server);
    assert_eq!(given.record, 1u16.to_ne_bytes());
    given.client.send("after the 101");
    drop(given);
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 101 ") && all.ends_with("\r\n\r\nafter the 101"), "{all}");
}

#[test]
fn the_hello_record_follows_the_address() {
    let daemon = Daemon::start(&[DIRECT, &["--hello"]].concat());
    let server = daemon.listen("echo");
    let client = daemon.connect("/echo?a=b");
    let given = take(&server);
    let address = sockaddr(client.wire.stream().local_addr().unwrap());
    assert!(given.record.starts_with(&address), "{:x?}", given.record);
    let hello = &given.record[address.len()..];
    assert!(hello.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11"), "{}", hello.escape_ascii());
    let text = hello.escape_ascii().to_string();
    assert!(text.contains("/echo") && text.contains("a=b"), "{text}");
}

/// A client that does not read delays its own 101, and not the backend: accept(2) and recvmsg(2) would wait for the
/// descriptor.
#[test]
fn a_client_that_does_not_read_does_not_block_the_backend() {
    let page = vec![b'p'; 60_000];
    let start = |connect_ms| {
        let limits = format!("options = \"direct\"; limits = {{ connect-ms = {connect_ms}; }};");
        let daemon = Daemon::start_configured(&configuration("", &limits));
        std::fs::write(daemon.folder().path().join("www/page"), &page).unwrap();
        let server = daemon.listen("echo");
        (daemon, server)
    };
    let (daemon, server) = start(60_000);
    let ask = |stream: &mut TcpStream| {
        let get = crate::wire::request("GET", "/page", &[]);
        stream.write_all([get, handshake("/echo", &[], &[])].concat().as_bytes()).unwrap();
    };
    // It reads at last, and is served.
    let mut slow = daemon.narrow_stream(4096);
    ask(&mut slow);
    let mut other = daemon.connect("/echo");
    converse(&mut other, &mut take(&server));
    let mut wire = Wire::new(slow);
    assert_eq!(wire.response().body, page);
    assert_eq!(wire.response_head().status, 101);
    converse(&mut Client::new(wire), &mut take(&server));
    // It never reads, and times out.
    let (daemon, server) = start(1_000);
    let mut deaf = daemon.narrow_stream(4096);
    ask(&mut deaf);
    daemon.log().wait_for(&["c1 end", "the client takes nothing of its reply"]);
    converse(&mut daemon.connect("/echo"), &mut take(&server));
    assert!(server.is_idle(), "the client that was given up has reached the server");
}

/// The kernel splits a record that exceeds one buffer: the descriptor comes with the first part.
#[test]
fn the_longest_hello_record() {
    let daemon = Daemon::start_configured(&configuration(
        "head-size = 61440;",
        r#"options = "direct"; hello = true; origins = "*";"#,
    ));
    let server = daemon.listen("echo");
    let (query, origin) = ("q".repeat(8 * 1024 - 6), format!("https://{}", "o".repeat(25_000)));
    let subprotocol = "s".repeat(25_000);
    let fields = [format!("Origin: {origin}"), format!("Sec-WebSocket-Protocol: {subprotocol}")];
    let mut wire = daemon.wire();
    wire.send(handshake(&format!("/echo?{query}"), &[], &fields.each_ref().map(String::as_str)));
    let mut connection = server.accept();
    connection.wait_for_input();
    let mut given = receive(&connection).unwrap().expect("a descriptor with the first part");
    let size = 16 + 16 + usize::from(u16::from_be_bytes([given.record[30], given.record[31]]));
    given.record.extend(connection.take(size - given.record.len()));
    connection.expect_end();
    let end = [&b"\xe1\x1f\xfa"[..], query.as_bytes(), b"\xe2\x61\xb0", origin.as_bytes(), b"\xe3\x61\xa8"].concat();
    assert!(given.record.ends_with(&[end, subprotocol.into_bytes()].concat()), "{} bytes", size);
    assert_eq!(wire.response_head().status, 101);
    converse(&mut Client::new(wire), &mut given);
}

#[test]
fn pipelined_bytes_are_not_lost() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let mut wire = daemon.wire();
    let early = Frame::new(TEXT, b"early").masked().bytes();
    wire.send([handshake("/echo", &[], &[]).into_bytes(), early.clone()].concat());
    assert_eq!(wire.response_head().status, 101);
    let mut client = Client::new(wire);
    let mut given = take(&server);
    assert_eq!(given.record, sockaddr(client.wire.stream().local_addr().unwrap()));
    given.client.expect(early);
    converse(&mut client, &mut given);
    // Large messages both ways, and each direction ends by itself, as on a socket.
    let large = vec![b'x'; 3_000_000];
    std::thread::scope(|scope| {
        let mut out = client.wire.stream().try_clone().unwrap();
        scope.spawn(move || {
            out.write_all(&vec![b'x'; 3_000_000]).unwrap();
            out.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = given.client.stream().try_clone().unwrap();
        scope.spawn(move || back.write_all(&vec![b'x'; 3_000_000]).unwrap());
        scope.spawn(|| assert!(client.wire.take(3_000_000) == large));
        given.client.expect(&large);
    });
    given.client.expect_end();
    given.client.send("last words");
    drop(given);
    assert_eq!(client.wire.take(10), b"last words");
    client.wire.expect_end();
    daemon.log().wait_for(&["end", "handed over through a socket pair"]);
}

#[test]
fn relayed_connections_end_at_shutdown() {
    let mut daemon = stopped_slowly();
    let server = daemon.listen("echo");
    let mut wire = daemon.wire();
    wire.send([handshake("/echo", &[], &[]).into_bytes(), vec![0x89, 0x80, 0, 0, 0, 0]].concat());
    assert_eq!(wire.response_head().status, 101);
    let mut given = take(&server);
    given.client.expect([0x89, 0x80, 0, 0, 0, 0]);
    daemon.signal(Signal::SIGTERM);
    given.client.expect_end();
    given.client.send_frame(&Frame::close(1001, "so long"));
    drop(given);
    assert_eq!(Client::new(wire).expect_close(1001), "so long");
    assert!(daemon.wait(DEADLINE).status.success());
}

#[test]
fn a_served_client_leaks_no_descriptor() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let files = daemon.open_files();
    let mut all: Vec<_> = (0..64).map(|_| (daemon.connect("/echo"), take(&server))).collect();
    eventually("no descriptor is left", || daemon.open_files() == files);
    all.iter_mut().for_each(|(client, given)| converse(client, given));
    // A look at the folders may have come late.
    eventually("no descriptor is left after that", || daemon.open_files() == files);
}

#[test]
fn refused_clients_leak_no_descriptor() {
    let daemon = Daemon::start_configured(&configuration(
        "",
        r#"options = "direct"; links = (
            { origin = "^/full$"; type = "unix"; destination = "@/run/full"; limits = { connect-ms = 100; }; });"#,
    ));
    let server = daemon.listen("echo");
    close(daemon.listen("dead"));
    let _packets = daemon.listen_packets("packets");
    let (_server, _first) = full(&daemon.socket("full"));
    let files = daemon.open_files();
    // Once with a client that waits for its answer, once with one that sends at once.
    for early in ["", "early"] {
        for (path, status) in [("/dead", 502), ("/packets", 502), ("/full", 504), ("/echo", 101)] {
            let mut wire = daemon.wire();
            wire.send(handshake(path, &[], &[]) + early);
            assert_eq!(wire.response_head().status, status, "{path}");
            if status == 101 {
                drop(wire);
                drop(take(&server));
            }
        }
    }
    eventually("no descriptor is left", || daemon.open_files() == files);
}

#[test]
fn conversations_outlive_the_gateway() {
    let mut daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let (mut client, mut given) = (daemon.connect("/echo"), take(&server));
    client.wire.send(&Frame::new(TEXT, b"cut in two").masked().bytes()[..7]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait(DEADLINE);
    client.wire.send(&Frame::new(TEXT, b"cut in two").masked().bytes()[7..]);
    given.client.expect(Frame::new(TEXT, b"cut in two").masked().bytes());
    converse(&mut client, &mut given);
    // The backend's end reaches the client.
    drop(given);
    client.wire.expect_end();
}

#[test]
fn missing_backends() {
    let daemon = Daemon::start(DIRECT);
    close(daemon.listen("dead"));
    let _packets = daemon.listen_packets("packets");
    let _datagrams = UnixDatagram::bind(daemon.socket("datagrams")).unwrap();
    std::fs::write(daemon.socket("file"), "").unwrap();
    for (path, status) in [("/dead", 502), ("/packets", 502), ("/datagrams", 502), ("/file", 404), ("/none", 404)] {
        assert_eq!(daemon.upgrade(path, &[]).status, status, "{path}");
    }
}

/// A listener with a full backlog, and the connection that fills it.
fn full(path: &Path) -> (Listener, std::os::unix::net::UnixStream) {
    let server = Listener::bind_with_backlog(path, Kind::Stream, 0);
    let first = crate::server::connect(path, Kind::Stream).unwrap();
    (server, first)
}

#[test]
fn a_full_backlog_is_waited_for() {
    let daemon = Daemon::start_configured(
        r#"servers = ({ listen = "127.0.0.1:0"; websocket = { docroot = "@/run"; options = "direct"; limits = { connect-ms = 300; }; }; });"#,
    );
    let (_server, _first) = full(&daemon.socket("never"));
    assert_eq!(daemon.upgrade("/never", &[]).status, 504);
    let daemon = Daemon::start(DIRECT);
    let (server, _first) = full(&daemon.socket("late"));
    let mut wire = daemon.wire();
    wire.send(handshake("/late", &[], &[]));
    // The connection that fills the backlog is accepted first.
    drop(server.accept());
    let mut given = take(&server);
    assert_eq!(wire.response_head().status, 101);
    converse(&mut Client::new(wire), &mut given);
}

#[test]
fn backends_that_end_before_they_receive_the_client() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("stops");
    let mut waiting = daemon.connect("/stops");
    // The 101 is sent before the descriptor is passed.
    daemon.log().wait_for(&["c1 end", "handed over to the backend"]);
    drop(server);
    waiting.wire.expect_end();
    let server = daemon.listen("closes");
    let mut client = daemon.connect("/closes");
    drop(take(&server));
    client.wire.expect_end();
    let server = daemon.listen("ignores");
    let mut client = daemon.connect("/ignores");
    let connection = server.accept();
    // A backend that closes before the descriptor is passed did not take its client: the client gets a 1011.
    connection.wait_for_input();
    drop(connection);
    client.wire.expect_end();
}

#[test]
fn direct_mode_of_a_single_link() {
    let daemon = Daemon::start_configured(
        r#"servers = ({ listen = "127.0.0.1:0"; websocket = { docroot = "@/run"; options = "direct"; links = (
            { origin = "^/proxied$"; type = "unix"; destination = "@/run/plain"; options = ""; },
            { origin = "^/lines$"; type = "unix"; destination = "@/run/plain"; protocol = "lines"; },
            { origin = "^/inherits$"; type = "unix"; destination = "@/run/own"; }); }; },
          { listen = "unix:@/other"; websocket = { links = (
            { origin = "^/a$"; type = "unix"; destination = "@/run/own"; options = "direct"; }); }; });"#,
    );
    let (plain, own) = (daemon.listen("plain"), daemon.listen("own"));
    for (path, bytes) in [("/proxied", "hello"), ("/lines", "hello\n")] {
        let mut client = daemon.connect(path);
        client.text("hello");
        plain.accept().expect(bytes);
    }
    let mut client = daemon.connect("/inherits");
    converse(&mut client, &mut take(&own));
    let mut other = crate::server::connect(&daemon.folder().path().join("other"), Kind::Stream).unwrap();
    other.write_all(handshake("/a", &[], &[]).as_bytes()).unwrap();
    assert_eq!(take(&own).record, 1u16.to_ne_bytes());
}

/// ouistiti's receiver calls recvmsg(2) once, right after accept(2), without waiting.
#[test]
fn ten_thousand_hand_overs() {
    const ALL: usize = 10_000;
    const AT_ONCE: usize = 64;
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let files = daemon.open_files();
    let mut at_once = 0;
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut at_once = 0;
            for _ in 0..ALL {
                let connection = server.accept();
                let given = match receive(&connection) {
                    Ok(given) => {
                        at_once += 1;
                        given
                    }
                    Err(_) => {
                        connection.wait_for_input();
                        receive(&connection).unwrap()
                    }
                };
                let mut given = given.expect("a descriptor");
                given.client.send_frame(&Frame::new(TEXT, b"taken"));
            }
            at_once
        });
        let ends: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let daemon = &daemon;
                scope.spawn(move || {
                    for _ in (number..ALL).step_by(AT_ONCE) {
                        let mut client = daemon.connect("/echo");
                        client.expect_text("taken");
                        client.wire.expect_end();
                    }
                })
            })
            .collect();
        ends.into_iter().for_each(|end| end.join().unwrap());
        at_once = taker.join().unwrap();
    });
    eventually("no descriptor is left", || daemon.open_files() <= files + 1);
    // Not asserted: it depends on the machine's load, and on epoll the backend runs beside the gateway's next call.
    measured(&format!("{at_once} of {ALL} descriptors were there when accept(2) returned, on {}", daemon.driver()));
}
