//! Handshakes that no library makes: garbage, ClientHellos that are cut, split, weak or too large, and clients that leave.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::{
    ALL, PAGE, Server, TLS_1_2, TLS_1_3, client_config, configuration, first_flight, shake, start, start_configured,
    start_without_deadlines, wire,
};
use crate::daemon::Daemon;
use crate::process::{DEADLINE, eventually, expect_eq};
use crate::wire::{Wire, request};

/// Types of records and of handshake messages, and alerts (RFC 8446 sections 5.1, 4 and 6).
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
pub const FATAL: u8 = 2;
const UNEXPECTED_MESSAGE: u8 = 10;
pub const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const CLOSE_NOTIFY: [u8; 7] = [ALERT, 3, 3, 0, 2, 1, 0];

/// A record with the version that each client of today sends.
pub fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

/// A vector with its size in `width` bytes (RFC 8446 section 3.4).
fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[4 - width..], bytes].concat()
}

fn words(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A ClientHello of this legacy version with these cipher suites and groups, and these versions in supported_versions if
/// there are any.
pub fn hello(version: u16, suites: &[u16], groups: &[u16], versions: &[u16]) -> Vec<u8> {
    // server_name, supported_groups, signature_algorithms, supported_versions.
    let mut extensions = vec![
        (0, vector(2, &[&[0][..], &vector(2, b"localhost")].concat())),
        (10, vector(2, &words(groups))),
        (11, vec![1, 0]),
        (13, vector(2, &words(&[0x0403, 0x0804, 0x0401, 0x0203, 0x0201]))),
    ];
    if !versions.is_empty() {
        extensions.push((43, vector(1, &words(versions))));
    }
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, value): &(u16, Vec<u8>)| [words(&[*kind]), vector(2, value)].concat())
        .collect();
    let body = [words(&[version]), vec![7; 32], vec![0], vector(2, &words(suites)), vec![1, 0], vector(2, &extensions)];
    [vec![CLIENT_HELLO], vector(3, &body.concat())].concat()
}

/// X25519 and P-256.
pub const GROUPS: [u16; 2] = [0x001d, 0x0017];
pub const TLS_1_2_NUMBER: u16 = 0x0303;
/// ECDHE with AES-GCM.
pub const GOOD_SUITES: [u16; 2] = [0xc02b, 0xc02f];

pub fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// All bytes up to the end, which may be a reset where the client has sent more than was read.
pub fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}, after {bytes:x?}"),
        _ => bytes,
    }
}

/// The answer to these bytes up to the end.
fn answer(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(daemon);
    // The gateway may have refused the first of them already.
    let _ = stream.write_all(bytes);
    rest(&stream)
}

/// The alert in clear that the gateway answers these bytes with before it closes.
fn alert(daemon: &Daemon, bytes: &[u8]) -> u8 {
    let got = answer(daemon, bytes);
    match got[..] {
        [ALERT, 3, _, 0, 2, FATAL, description] => description,
        _ => panic!("no fatal alert: {got:x?}"),
    }
}

pub fn expect_served(daemon: &Daemon) {
    expect_eq(wire(daemon.port, client_config(daemon, ALL, None)).get("/").status, 200, "a page");
}

/// Bytes that are no ClientHello: a fatal alert answers them.
#[test]
fn garbage() {
    let daemon = start(&[Server::default()]);
    let own = record(HANDSHAKE, &hello(TLS_1_2_NUMBER, &GOOD_SUITES, &GROUPS, &[]));
    for (what, bytes, wanted) in [
        ("zeros", vec![0; 100], UNEXPECTED_MESSAGE),
        ("ones", vec![0xff; 100_000], UNEXPECTED_MESSAGE),
        ("a ClientHello of SSL 2", [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0][..], &[7; 37]].concat(), UNEXPECTED_MESSAGE),
        ("application data first", record(APPLICATION_DATA, &[7; 100]), UNEXPECTED_MESSAGE),
        ("an alert first", CLOSE_NOTIFY.to_vec(), UNEXPECTED_MESSAGE),
        ("a record of an unknown type", record(200, &[7; 100]), UNEXPECTED_MESSAGE),
        ("another version of records", [&[HANDSHAKE, 9, 9, 0, 10][..], &[1; 10]].concat(), DECODE_ERROR),
        ("a record that is too large", [&[HANDSHAKE, 3, 1, 0xff, 0xff][..], &[1; 0xffff]].concat(), DECODE_ERROR),
        ("a message that is too large", record(HANDSHAKE, &[CLIENT_HELLO, 0xff, 0xff, 0xff, 3, 3]), DECODE_ERROR),
        ("another handshake message", record(HANDSHAKE, &[SERVER_HELLO, 0, 0, 2, 3, 3]), DECODE_ERROR),
        ("a ClientHello without a body", record(HANDSHAKE, &[CLIENT_HELLO, 0, 0, 0]), DECODE_ERROR),
        ("a ClientHello of three bytes", record(HANDSHAKE, &[CLIENT_HELLO, 0, 0, 3, 3, 3, 7]), DECODE_ERROR),
        ("two ClientHellos", own.repeat(2), UNEXPECTED_MESSAGE),
        ("application data next", [own, record(APPLICATION_DATA, &[7; 100])].concat(), UNEXPECTED_MESSAGE),
    ] {
        let got = answer(&daemon, &bytes);
        let alert = got.ends_with(&[0, 2, FATAL, wanted]) && got[got.len() - 7] == ALERT;
        assert!(alert, "{what}: no alert {wanted} in {got:x?}");
    }
    expect_served(&daemon);
}

/// A message that never ends is refused once it is too large; what follows takes neither memory nor time without end.
#[test]
fn an_endless_client_hello() {
    let daemon = start(&[Server::default()]);
    for message in [[CLIENT_HELLO, 0xff, 0xff, 0xff], [CLIENT_HELLO, 0, 0xff, 0xff]] {
        let mut stream = connect(&daemon);
        let mut bytes = record(HANDSHAKE, &[&message[..], &[7; 16_000]].concat());
        let (mut sent, start) = (0_u64, Instant::now());
        while stream.write_all(&bytes).is_ok() {
            sent += bytes.len() as u64;
            bytes = record(HANDSHAKE, &[7; 16_000]);
            assert!(start.elapsed() < DEADLINE, "{sent} bytes were taken");
        }
        daemon.log().wait_for(&["a TLS handshake message of the client is too large"]);
    }
    let (bound, peak) = (daemon.bound_kib(), daemon.peak_kib());
    assert!(peak <= bound / 2, "{peak} KiB of {bound} KiB");
    expect_served(&daemon);
}

#[test]
fn plain_http_is_told_to_use_https() {
    let daemon = start(&[Server::default()]);
    for method in ["GET", "POST", "HEAD", "OPTIONS"] {
        let mut wire = daemon.wire();
        wire.send(request(method, "/", &[]));
        let response = if method == "HEAD" { wire.response_head() } else { wire.response() };
        expect_eq(response.status, 400, method);
        assert!(response.field("Content-Type").starts_with("text/plain"), "{response:?}");
        assert!(method == "HEAD" || response.text().contains("https"), "{response:?}");
        wire.expect_end();
    }
    // In pieces, as a handshake, and without a Host.
    let mut wire = daemon.wire();
    for byte in request("GET", "/", &[]).bytes() {
        wire.send([byte]);
    }
    expect_eq(wire.response().status, 400, "bytes of a request");
    expect_eq(daemon.upgrade("/echo", &[]).status, 400, "a handshake");
    let mut wire = daemon.wire();
    wire.send("GET / HTTP/1.0\r\n\r\n");
    expect_eq(wire.response().status, 400, "HTTP/1.0");
    expect_served(&daemon);
}

/// Versions and cipher suites that no `openssl` offers any more. SSL 3, TLS 1.0 and 1.1; RC4, 3DES, CBC, no encryption, no
/// forward secrecy.
#[test]
fn old_versions_and_suites() {
    let daemon = start(&[Server::default()]);
    for version in [0x0300, 0x0301, 0x0302] {
        let bytes = record(HANDSHAKE, &hello(version, &GOOD_SUITES, &GROUPS, &[]));
        expect_eq(alert(&daemon, &bytes), PROTOCOL_VERSION, version);
        let bytes = record(HANDSHAKE, &hello(TLS_1_2_NUMBER, &GOOD_SUITES, &GROUPS, &[version]));
        expect_eq(alert(&daemon, &bytes), PROTOCOL_VERSION, version);
    }
    for suite in [
        0x0000, 0x0001, 0x0004, 0x0005, 0x0009, 0x000a, 0x0016, 0x002f, 0x0035, 0x003c, 0x009c, 0x009e, 0xc007, 0xc008,
        0xc009, 0xc00a, 0xc011, 0xc012, 0xc013, 0xc014, 0xc023, 0xc027, 0xc028, 0xc0ac,
    ] {
        let bytes = record(HANDSHAKE, &hello(TLS_1_2_NUMBER, &[suite], &GROUPS, &[]));
        expect_eq(alert(&daemon, &bytes), HANDSHAKE_FAILURE, format!("{suite:04x}"));
    }
}

/// A client of TLS 1.2 is told that the server has TLS 1.3, so that a downgrade is noticed (RFC 8446 section 4.1.3).
#[test]
fn the_downgrade_marker() {
    let daemon = start(&[Server::default()]);
    let mut stream = connect(&daemon);
    stream.write_all(&record(HANDSHAKE, &hello(TLS_1_2_NUMBER, &GOOD_SUITES, &GROUPS, &[]))).unwrap();
    let mut got = [0; 43];
    stream.read_exact(&mut got).unwrap();
    assert_eq!((got[0], got[5]), (HANDSHAKE, SERVER_HELLO), "{got:x?}");
    assert_eq!(got[35..].escape_ascii().to_string(), "DOWNGRD\\x01", "{got:x?}");
}

/// The rest of a handshake whose first bytes are sent, and a page.
fn continue_with(client: ClientConnection, stream: TcpStream) {
    let mut wire = Wire::over_tls(StreamOwned::new(client, stream));
    expect_eq(wire.get("/").status, 200, "a page");
}

/// A ClientHello byte by byte, in records of few bytes (RFC 8446 section 5.1), and in two parts.
#[test]
fn a_client_hello_in_pieces() {
    let daemon = start(&[Server::default()]);
    for versions in [TLS_1_2, TLS_1_3] {
        let (client, bytes) = first_flight(&daemon, versions);
        let mut stream = connect(&daemon);
        bytes.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
        continue_with(client, stream);

        for size in [1, 2, 3, 5, 64, 1000] {
            let (client, bytes) = first_flight(&daemon, versions);
            let pieces: Vec<u8> = bytes[5..].chunks(size).flat_map(|piece| record(HANDSHAKE, piece)).collect();
            let mut stream = connect(&daemon);
            stream.write_all(&pieces).unwrap();
            continue_with(client, stream);
        }
        for at in (1..bytes.len()).step_by(7).chain([2, 3, 4, 5, 6, bytes.len() - 1]) {
            let (client, bytes) = first_flight(&daemon, versions);
            let mut stream = connect(&daemon);
            stream.write_all(&bytes[..at]).unwrap();
            std::thread::yield_now();
            stream.write_all(&bytes[at..]).unwrap();
            continue_with(client, stream);
        }
    }
}

/// Writes one byte at a time.
struct Trickle(TcpStream);

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Trickle {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let size = bytes.len().min(3);
        self.0.read(&mut bytes[..size])
    }
}

/// The whole connection of a client that sends byte by byte, and reads three bytes at a time.
#[test]
fn a_connection_byte_by_byte() {
    let daemon = start(&[Server::default()]);
    for versions in [TLS_1_2, TLS_1_3] {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let client = ClientConnection::new(Arc::new(client_config(&daemon, versions, None)), name).unwrap();
        let mut stream = StreamOwned::new(client, Trickle(connect(&daemon)));
        stream.write_all(request("GET", "/", &["Connection: close"]).as_bytes()).unwrap();
        stream.flush().unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with(PAGE), "{got}");
    }
}

/// Clients that leave: within the ClientHello, behind it, and after the gateway's part. No deadline ends them in time.
#[test]
fn a_client_that_leaves_in_its_handshake() {
    let daemon = start_without_deadlines();
    expect_served(&daemon);
    let files = daemon.open_files();
    for versions in [TLS_1_2, TLS_1_3] {
        let (_, bytes) = first_flight(&daemon, versions);
        for size in [0, 1, 4, 5, 6, 50, bytes.len() - 1, bytes.len()] {
            // The end of the stream, and a reset.
            let mut stream = connect(&daemon);
            stream.write_all(&bytes[..size]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            rest(&stream);
            let mut stream = connect(&daemon);
            stream.write_all(&bytes[..size]).unwrap();
            if size == bytes.len() {
                // The rest is unread, so that the kernel resets the connection.
                stream.read_exact(&mut [0]).unwrap();
            }
            drop(stream);
        }
        // Close_notify behind a record with a part of the ClientHello, behind it, and a handshake after that. An alert in
        // clear proves nothing, so it may be ignored; the end of the stream is none of it.
        let part = record(HANDSHAKE, &bytes[5..bytes.len() / 2]);
        for begin in [part, bytes.clone()] {
            for more in [&[][..], &bytes] {
                let mut stream = connect(&daemon);
                stream.write_all(&[&begin[..], &CLOSE_NOTIFY, more].concat()).unwrap();
                // The gateway may have refused it already.
                let _ = stream.shutdown(Shutdown::Write);
                rest(&stream);
            }
        }
    }
    eventually("no file is left open", || daemon.open_files() <= files);
    expect_served(&daemon);
}

/// The deadline counts from the beginning, however the bytes arrive.
#[test]
fn the_deadline_of_the_handshake() {
    let daemon = start_configured(&configuration("tls-ms = 300;", &[Server::default()]));
    for versions in [TLS_1_2, TLS_1_3] {
        let (_, bytes) = first_flight(&daemon, versions);
        for size in [0, 1, 100, bytes.len()] {
            let start = Instant::now();
            answer(&daemon, &bytes[..size]);
            let time = start.elapsed();
            assert!(time >= Duration::from_millis(290), "{size} bytes: {time:?}");
        }
    }
    // A byte each 20 ms puts nothing off. All of them would take 80 s.
    let bytes = record(HANDSHAKE, &[&[CLIENT_HELLO, 0, 0x10, 0][..], &[7; 4_000]].concat());
    let mut stream = connect(&daemon);
    let are_taken = bytes.iter().all(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&[*byte]).is_ok()
    });
    assert!(!are_taken, "the gateway has taken {} bytes", bytes.len());
    // A connection whose handshake is complete has other deadlines.
    let daemon = start_configured(&configuration("tls-ms = 2000;", &[Server::default()]));
    let config = Arc::new(client_config(&daemon, ALL, None));
    let shaken_in_time = || {
        let start = Instant::now();
        let shaken = shake(connect(&daemon), &config, "127.0.0.1");
        let time = start.elapsed();
        if time < Duration::from_secs(2) {
            return Some(shaken.unwrap());
        }
        eprintln!("the handshake took {time:?}, once more");
        None
    };
    let stream = (0..20).find_map(|_| shaken_in_time()).expect("a handshake within 2 s");
    std::thread::sleep(Duration::from_millis(2_500));
    expect_eq(Wire::over_tls(stream).get("/").status, 200, "a page");
}
