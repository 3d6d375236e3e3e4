//! Direct mode over TLS: where the kernel has TLS, a backend gets the client's own socket; elsewhere the gateway relays.
//! The backends here know neither.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use super::{
    ALL, PAGE, Server, TLS_1_2, TLS_1_3, certificate, client_config, configuration, shake, start, start_configured,
    wire,
};
use crate::client::{Client, Frame, TEXT};
use crate::daemon::Daemon;
use crate::direct_api::compile;
use crate::handover::{Given, take, tcp_pair};
use crate::process::{DEADLINE, Folder, Process, close, eventually, skipped};
use crate::reload::{TAKEN, reload};
use crate::server::{Kind, Listener, listens};
use crate::wire::{TlsStream, Wire, handshake};

/// The end of the log line of a client whose backend has its socket, and of one that is relayed.
const HANDED_OVER: &str = "handed over to the backend, TLS to the kernel";
const RELAYED: &str = "handed over through a socket pair";

const DIRECT: Server = Server {
    listen: "127.0.0.1:0",
    certificate: "server",
    tls: "",
    keys: "",
    websocket: "options = \"direct\";",
    www: "@/www",
};

/// Whether the kernel has TLS. If not, the same clients are relayed.
fn kernel_has_tls() -> bool {
    setsockopt(&tcp_pair().0, sockopt::TcpUlp::default(), b"tls").is_ok()
}

/// How a client is served that could be handed over.
fn expected() -> &'static str {
    if kernel_has_tls() { HANDED_OVER } else { RELAYED }
}

/// A client that offers the suites of one cipher alone.
fn config_of(daemon: &Daemon, version: &[&'static SupportedProtocolVersion], cipher: &str) -> ClientConfig {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite().as_str().is_some_and(|name| name.contains(cipher)));
    let mut roots = RootCertStore::empty();
    roots.add(certificate(daemon, "root")).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(version).unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

/// Opens a WebSocket; the backend takes its client.
fn join(mut wire: Wire, server: &Listener) -> (Client, Given) {
    assert_eq!(wire.upgrade("/server", &[]).status, 101);
    (Client::new(wire), take(server))
}

/// A message each way.
fn converse(client: &mut Client, given: &mut Given) {
    client.text("to the server");
    given.client.expect(Frame::new(TEXT, b"to the server").masked().bytes());
    given.client.send_frame(&Frame::new(TEXT, b"to the client"));
    client.expect_text("to the client");
}

/// Bytes of which no record or buffer holds all.
fn large() -> Vec<u8> {
    (0..=255).cycle().take(700_001).collect()
}

/// Large messages each way at once.
fn exchange_much(client: &mut Client, given: &mut Given) {
    let large = large();
    thread::scope(|scope| {
        scope.spawn(|| {
            given.client.expect(&large);
            given.client.send(&large);
        });
        client.wire.send(&large);
        assert!(client.wire.take(large.len()) == large);
    });
}

#[test]
fn each_suite() {
    let daemon = start(&[DIRECT]);
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        for cipher in ["AES_128_GCM", "AES_256_GCM", "CHACHA20_POLY1305"] {
            let (mut client, mut given) = join(wire(daemon.port, config_of(&daemon, version, cipher)), &server);
            converse(&mut client, &mut given);
            exchange_much(&mut client, &mut given);
            converse(&mut client, &mut given);
            drop(given);
            // A backend that knows no TLS ends without a close_notify.
            assert!(client.wire.take_rest().is_empty(), "{cipher}");
            drop(client);
            daemon.log().wait_for(&["end", "status=101", expected()]);
        }
    }
}

/// The first bytes of a client that knows its backend may come at once with its handshake, or right after the 101.
#[test]
fn pipelined_bytes() {
    let daemon = start(&[DIRECT]);
    let server = daemon.listen("server");
    let early = Frame::new(TEXT, b"early").masked().bytes();
    for version in [TLS_1_2, TLS_1_3] {
        let mut wire = wire(daemon.port, client_config(&daemon, version, None));
        wire.send([handshake("/server", &[], &[]).as_bytes(), &early].concat());
        assert_eq!(wire.response_head().status, 101);
        let (mut client, mut given) = (Client::new(wire), take(&server));
        given.client.expect(&early);
        converse(&mut client, &mut given);
        close(given);
        client.wire.expect_end();
        daemon.log().wait_for(&["end", "status=101", RELAYED]);
    }
}

/// A request and the close_notify in one write, after the client's last flight of the handshake or together with it.
#[test]
fn a_client_that_ends_with_its_request() {
    for keys in ["", "tls-offload = \"off\";"] {
        let daemon = start(&[Server { keys, ..DIRECT }]);
        let server = daemon.listen("server");
        let mut number = 0;
        for (version, with_handshake) in [(TLS_1_2, false), (TLS_1_2, true), (TLS_1_3, false), (TLS_1_3, true)] {
            let config = Arc::new(client_config(&daemon, version, None));
            // With TLS 1.2 the client's flight is the last one in a resumed session alone.
            let is_resumed = version == TLS_1_2 && with_handshake;
            if is_resumed {
                assert_eq!(wire(daemon.port, (*config).clone()).get("/").status, 200);
                number += 1;
            }
            let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut connection = ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap();
            while connection.is_handshaking() {
                while connection.wants_write() {
                    connection.write_tls(&mut stream).unwrap();
                }
                connection.read_tls(&mut stream).unwrap();
                connection.process_new_packets().unwrap();
            }
            assert_eq!(connection.handshake_kind() == Some(HandshakeKind::Resumed), is_resumed);
            if !with_handshake && connection.wants_write() {
                connection.write_tls(&mut stream).unwrap();
            }
            connection.writer().write_all(handshake("/server", &[], &[]).as_bytes()).unwrap();
            connection.send_close_notify();
            connection.write_tls(&mut stream).unwrap();
            let mut wire = Wire::over_tls(TlsStream { conn: connection, sock: stream });
            let mut given = take(&server);
            given.client.expect_end();
            assert_eq!(wire.response_head().status, 101);
            given.client.send(b"to the client");
            assert_eq!(wire.take(13), b"to the client");
            close(given);
            wire.expect_end();
            number += 1;
            daemon.log().wait_for(&[&format!("c{number} end"), "status=101", RELAYED]);
        }
    }
}

/// A hand-over that fails after the kernel has the keys: the reply and the close_notify are the kernel's records.
#[test]
fn a_backend_that_is_not_there() {
    let daemon = start(&[DIRECT]);
    close(daemon.listen("gone"));
    for version in [TLS_1_2, TLS_1_3] {
        let before = kernel_sessions();
        let mut first = wire(daemon.port, client_config(&daemon, version, None));
        assert_eq!(first.get("/").body, PAGE.as_bytes());
        assert_eq!(first.upgrade("/gone", &[]).status, 502);
        first.expect_end();
        assert!(!kernel_has_tls() || kernel_sessions() > before);
        // The gateway notices the end of a client that says nothing more.
        let mut second = wire(daemon.port, client_config(&daemon, version, None));
        assert_eq!(second.upgrade("/gone", &[]).status, 502);
        drop(second);
    }
    eventually("all connections are closed", || daemon.log().text().matches(" end ").count() == 4);
}

/// A client's TLS, to which the tests speak themselves.
fn bare(daemon: &Daemon, config: ClientConfig) -> TlsStream {
    let stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    shake(stream, &Arc::new(config), "127.0.0.1").unwrap()
}

/// Changes the client's keys, and asks the gateway to do the same (RFC 8446 section 4.6.3).
fn update_keys(stream: &mut TlsStream) {
    stream.conn.refresh_traffic_keys().unwrap();
    stream.flush().unwrap();
}

/// Keys that were changed before the hand-over are those that the kernel gets.
#[test]
fn changed_keys_before_a_hand_over() {
    let daemon = start(&[DIRECT]);
    let server = daemon.listen("server");
    for gets_answer in [false, true] {
        let mut stream = bare(&daemon, client_config(&daemon, TLS_1_3, None));
        update_keys(&mut stream);
        let mut wire = Wire::over_tls(stream);
        if gets_answer {
            assert_eq!(wire.get("/").body, PAGE.as_bytes());
        }
        let (mut client, mut given) = join(wire, &server);
        converse(&mut client, &mut given);
        exchange_much(&mut client, &mut given);
        drop((client, given));
        // The gateway's own change is sent with the next bytes, which rustls has to make.
        daemon.log().wait_for(&["end", "status=101", if gets_answer { expected() } else { RELAYED }]);
    }
}

/// What a backend that knows no TLS reads when its client ends TLS: an error from the kernel, the end from the gateway.
#[test]
fn the_end_as_a_plain_backend_reads_it() {
    let daemon = start(&[DIRECT]);
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        let (mut client, mut given) = join(wire(daemon.port, client_config(&daemon, version, None)), &server);
        converse(&mut client, &mut given);
        client.close(1000);
        given.client.expect(Frame::close(1000, "").masked().bytes());
        client.wire.close_tls();
        let result = given.client.stream().read(&mut [0; 10]);
        match kernel_has_tls() {
            true => assert_eq!(result.unwrap_err().raw_os_error(), Some(nix::libc::EIO)),
            false => assert_eq!(result.unwrap(), 0),
        }
    }
}

#[test]
fn sessions_are_resumed() {
    let daemon = start(&[DIRECT]);
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        let config = client_config(&daemon, version, None);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (mut client, mut given) = join(wire(daemon.port, config.clone()), &server);
            assert_eq!(client.wire.tls().handshake_kind(), Some(kind));
            converse(&mut client, &mut given);
        }
    }
}

/// Clients that wait at once for room in a backlog.
const WAITING: usize = 5;

#[test]
fn a_full_backlog() {
    let daemon = start(&[DIRECT]);
    let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
    let mut wires: Vec<Wire> = (0..WAITING).map(|_| wire(daemon.port, client_config(&daemon, ALL, None))).collect();
    wires.iter_mut().for_each(|wire| wire.send(handshake("/server", &[], &[])));
    thread::scope(|scope| {
        let taking = scope.spawn(|| (0..WAITING).map(|_| take(&server)).collect::<Vec<_>>());
        wires.iter_mut().for_each(|wire| assert_eq!(wire.response_head().status, 101));
        let mut all = taking.join().unwrap();
        // They may come in another order.
        for given in &mut all {
            given.client.send_frame(&Frame::new(TEXT, b"to the client"));
        }
        wires.into_iter().for_each(|wire| Client::new(wire).expect_text("to the client"));
    });
}

/// A 101 that is longer than a record may be sent in part: such a client is relayed.
#[test]
fn a_long_reply() {
    let daemon = start_configured(&configuration("head-size = 61440;", &[DIRECT]));
    let server = daemon.listen("server");
    for (size, end) in [(16_000, expected()), (25_000, RELAYED)] {
        let mut wire = wire(daemon.port, client_config(&daemon, ALL, None));
        let subprotocol = "s".repeat(size);
        let response = wire.upgrade("/server", &[&format!("Sec-WebSocket-Protocol: {subprotocol}")]);
        assert!(response.status == 101 && response.field("Sec-WebSocket-Protocol") == subprotocol);
        let (mut client, mut given) = (Client::new(wire), take(&server));
        converse(&mut client, &mut given);
        drop((client, given));
        daemon.log().wait_for(&["end", "status=101", end]);
    }
}

/// Nothing is left to the kernel, until a reload says so.
#[test]
fn off() {
    let daemon = start(&[Server { keys: "tls-offload = \"off\";", ..DIRECT }]);
    let server = daemon.listen("server");
    let (mut client, mut given) = join(wire(daemon.port, client_config(&daemon, ALL, None)), &server);
    converse(&mut client, &mut given);
    close(given);
    client.wire.expect_end();
    daemon.log().wait_for(&["end", "status=101", RELAYED]);
    assert!(!daemon.log().text().contains("direct mode"), "{}", daemon.log().text());
    reload(&daemon, &configuration("", &[DIRECT]), TAKEN);
    daemon
        .log()
        .wait_for(&["direct mode", if kernel_has_tls() { "hands clients with TLS over" } else { "modprobe tls" }]);
    let (mut client, mut given) = join(wire(daemon.port, client_config(&daemon, ALL, None)), &server);
    converse(&mut client, &mut given);
    drop((client, given));
    daemon.log().wait_for(&["c2 end", "status=101", expected()]);
}

/// The number of connections for which the kernel has made records since it booted (/proc/net/tls_stat).
pub fn kernel_sessions() -> u64 {
    let text = std::fs::read_to_string("/proc/net/tls_stat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TlsTxSw"));
    line.and_then(|line| line.split_whitespace().nth(1)).map_or(0, |number| number.parse().unwrap())
}

/// Proxied clients too.
#[test]
fn all() {
    let daemon = start(&[Server { keys: "tls-offload = \"all\";", ..Server::default() }]);
    let maker = if kernel_has_tls() { "the kernel makes the records of" } else { "the gateway makes the records of" };
    daemon.log().wait_for(&[maker, "with TLS"]);
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        let before = kernel_sessions();
        let mut wire = wire(daemon.port, client_config(&daemon, version, None));
        assert_eq!(wire.get("/").body, PAGE.as_bytes());
        assert_eq!(wire.upgrade("/server", &[]).status, 101);
        let (mut client, mut backend) = (Client::new(wire), server.accept());
        client.text("hello");
        backend.expect("hello");
        let large = large();
        thread::scope(|scope| {
            scope.spawn(|| {
                backend.expect(&large);
                backend.send(&large);
            });
            client.binary(&large);
            let mut received = 0;
            while received < large.len() {
                received += client.message().1.len();
            }
        });
        assert!(!kernel_has_tls() || kernel_sessions() > before);
        close(backend);
        client.expect_close_handshake(1000);
        client.wire.expect_end();
    }
}

/// How a client ends a proxied conversation whose keys the kernel has.
#[test]
fn ends_of_all() {
    let daemon = start(&[Server { keys: "tls-offload = \"all\";", ..Server::default() }]);
    let server = daemon.listen("server");
    let text = Frame::new(TEXT, b"last").masked().bytes();
    for version in [TLS_1_2, TLS_1_3] {
        let open = || {
            let mut wire = wire(daemon.port, client_config(&daemon, version, None));
            assert_eq!(wire.upgrade("/server", &[]).status, 101);
            (Client::new(wire), server.accept())
        };
        let (mut client, mut backend) = open();
        client.finish(1000);
        backend.expect_end();
        client.wire.expect_end();
        // The last message and the close_notify may arrive together.
        let (mut client, mut backend) = open();
        client.wire.send(&text);
        client.wire.close_tls();
        backend.expect("last");
        backend.expect_end();
        close(backend);
        client.wire.take_rest();
        // TCP ends without TLS.
        let (mut client, mut backend) = open();
        client.wire.send(&text);
        client.wire.stream().shutdown(Shutdown::Write).unwrap();
        backend.expect("last");
        backend.expect_end();
    }
}

/// A client that receives slowly loses nothing at the end of a proxied conversation: the kernel holds a part of a record.
#[test]
fn the_last_bytes_of_all() {
    let daemon = start(&[Server { keys: "tls-offload = \"all\";", ..Server::default() }]);
    let server = daemon.listen("server");
    for version in [TLS_1_2, TLS_1_3] {
        let config = Arc::new(client_config(&daemon, version, None));
        let stream = shake(daemon.narrow_stream(4096), &config, "127.0.0.1").unwrap();
        let mut wire = Wire::over_tls(stream);
        assert_eq!(wire.upgrade("/server", &[]).status, 101);
        let (mut client, mut backend) = (Client::new(wire), server.accept());
        let large = large();
        thread::scope(|scope| {
            scope.spawn(|| {
                backend.send(&large);
                close(backend);
            });
            let mut received = 0;
            while received < large.len() {
                received += client.message().1.len();
            }
            assert_eq!(received, large.len());
        });
        client.expect_close_handshake(1000);
        client.wire.expect_end();
    }
}

/// The same in direct mode: a server that blocks in its calls, and closes at once.
#[test]
fn the_last_bytes_of_direct_mode() {
    let daemon = start(&[DIRECT]);
    let folder = Folder::new();
    let program = compile(&folder, "speak", "c");
    let server = Process::start(Command::new(program).arg(daemon.socket("server")));
    eventually("the server listens", || listens(&daemon.socket("server")));
    for version in [TLS_1_2, TLS_1_3] {
        let config = Arc::new(client_config(&daemon, version, None));
        let stream = shake(daemon.narrow_stream(4096), &config, "127.0.0.1").unwrap();
        let mut wire = Wire::over_tls(stream);
        assert_eq!(wire.upgrade("/server", &[]).status, 101);
        let size = Client::new(wire).rest_size();
        server.out.wait_for(&[&format!("spoken {size}")]);
    }
}

/// A KeyUpdate ends a proxied conversation whose keys the kernel has.
#[test]
fn all_with_changed_keys() {
    let daemon = start(&[Server { keys: "tls-offload = \"all\";", ..Server::default() }]);
    let server = daemon.listen("server");
    let mut stream = bare(&daemon, client_config(&daemon, TLS_1_3, None));
    stream.write_all(handshake("/server", &[], &[]).as_bytes()).unwrap();
    let mut backend = server.accept();
    backend.send("hello");
    let mut text = Vec::new();
    while !text.ends_with(b"hello") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1);
        text.extend(byte);
    }
    update_keys(&mut stream);
    let mut frame = Frame::new(TEXT, b"still").masked().bytes();
    stream.write_all(&frame).unwrap();
    if kernel_has_tls() {
        let error = stream.read(&mut frame).unwrap_err();
        assert!(error.to_string().contains("InternalError"), "{error}");
        backend.expect_end();
    } else {
        backend.expect("still");
    }
}

/// Clients live on without the gateway, once it has handed them over.
#[test]
fn a_killed_gateway() {
    if !kernel_has_tls() {
        return skipped("the kernel has no TLS");
    }
    let mut daemon = start(&[DIRECT]);
    let server = daemon.listen("server");
    let configs = [TLS_1_2, TLS_1_3].map(|version| client_config(&daemon, version, None));
    let mut all: Vec<(Client, Given)> =
        (0..100).map(|number| join(wire(daemon.port, configs[number % 2].clone()), &server)).collect();
    eventually("all were handed over", || daemon.log().text().matches(HANDED_OVER).count() == all.len());
    daemon.signal(Signal::SIGKILL);
    daemon.wait(DEADLINE);
    for (client, given) in &mut all {
        converse(client, given);
    }
    for (client, given) in all.iter_mut().take(10) {
        exchange_much(client, given);
    }
}
