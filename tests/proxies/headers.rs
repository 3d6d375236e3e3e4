//! PROXY headers, versions 1 and 2, byte by byte.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};

use super::{STRANGERS, TRUSTED, address, gateway, hello_of, wire_from};
use crate::client::{Client, Frame, TEXT};
use crate::daemon::{Daemon, configuration, uakari};
use crate::direct::sockaddr;
use crate::handover::take;
use crate::limits::{stream_from, timed};
use crate::process::{Folder, eventually, expect_eq};
use crate::server::Backend;
use crate::standstill::while_stopped;
use crate::tls::{ALL, authority, client_config, first_flight, shake};
use crate::wire::{TlsStream, Wire, handshake, request};

const REQUIRED: &str = "proxy = \"required\";";
const OPTIONAL: &str = "proxy = \"optional\";";

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with a command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// A family with a transport.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;

/// A header of version 2.
fn v2(command: u8, family: u8, block: impl AsRef<[u8]>) -> Vec<u8> {
    let block = block.as_ref();
    [&SIGNATURE[..], &[command, family], &(block.len() as u16).to_be_bytes(), block].concat()
}

/// The addresses of a header of version 2.
fn addresses(client: &str, local: &str) -> Vec<u8> {
    let [client, local] = [client, local].map(|address| address.parse::<SocketAddr>().unwrap());
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    [octets(client.ip()), octets(local.ip()), ports].concat()
}

/// Addresses of IPv4, and these bytes after them.
fn addresses_and(values: &[u8]) -> Vec<u8> {
    [&addresses("203.0.113.7:4711", "192.0.2.1:443"), values].concat()
}

/// A header of this client.
fn of(client: &str) -> Vec<u8> {
    let local = if client.starts_with('[') { "[2001:db8::1]:443" } else { "192.0.2.1:443" };
    v2(PROXY, if client.starts_with('[') { TCP6 } else { TCP4 }, addresses(client, local))
}

/// Headers that haproxy 2.6 has sent, with checksums.
const OF_HAPROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xcb\0\x71\x07\xc0\0\x02\x01\x12\x67\x01\xbb\
    \x03\0\x04\xe6\x4b\x5e\x87";
const CHECK_OF_HAPROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x07\x03\0\x04\xa9\xb8\x7e\x8f";

/// Each form, at once and byte by byte; the request follows at once.
#[test]
fn each_form_of_header() {
    const V4: Option<(&str, &str)> = Some(("203.0.113.7:4711", "192.0.2.1:443"));
    const V6: Option<(&str, &str)> = Some(("[2001:db8::7]:4711", "[2001:db8::1]:443"));
    let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {REQUIRED}")));
    let server = daemon.listen("who");
    let [v4, v6] = [V4, V6].map(|both| both.map(|(client, local)| addresses(client, local)).unwrap());
    let noop = [&b"\x04\x01\0"[..], &[0; 256]].concat();
    for (header, told) in [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec(), V4),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec(), V6),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 4711 443\r\n".to_vec(), V4),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec(), None),
        (v2(PROXY, TCP4, &v4), V4),
        (v2(PROXY, TCP6, &v6), V6),
        (v2(PROXY, TCP6, addresses("[::ffff:203.0.113.7]:4711", "[::ffff:192.0.2.1]:443")), V4),
        (v2(PROXY, TCP4, addresses_and(&noop)), V4),
        (OF_HAPROXY.to_vec(), V4),
        (CHECK_OF_HAPROXY.to_vec(), None),
        (v2(LOCAL, UNSPECIFIED, b""), None),
        (v2(LOCAL, TCP4, &v4), None),
        (v2(LOCAL, 0xff, b"any bytes"), None),
        (v2(PROXY, UNSPECIFIED, b""), None),
        (v2(PROXY, UNSPECIFIED, &noop), None),
        (v2(PROXY, UNIX, [b'/'; 216]), None),
    ] {
        for is_slow in [false, true] {
            let what = (header.escape_ascii().to_string(), is_slow);
            let mut wire = wire_from(1, daemon.port);
            let bytes = [&header[..], handshake("/who", &[], &[]).as_bytes()].concat();
            if is_slow {
                bytes.iter().for_each(|byte| wire.send([*byte]));
            } else {
                wire.send(bytes);
            }
            expect_eq(wire.response().status, 101, &what);
            let (hello, backend) = hello_of(&server);
            let own = (wire.stream().local_addr().unwrap(), wire.stream().peer_addr().unwrap());
            let told = told.map_or(own, |(client, local)| (client.parse().unwrap(), local.parse().unwrap()));
            expect_eq((hello.client, hello.local), (Some(told.0), Some(told.1)), &what);
            drop(backend);
            Client::new(wire).expect_close_handshake(1000);
            daemon.log().wait_for(&[&format!("{} end client={} ", hello.id, told.0), "status=101"]);
        }
    }
}

/// Closed without a reply, and the log has the reason.
#[test]
fn malformed_headers() {
    let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {REQUIRED}")));
    let server = daemon.listen("who");
    let line = |line: &str| format!("{line}\r\n").into_bytes();
    let values = |values: &[u8]| v2(PROXY, TCP4, addresses_and(values));
    let mut wrong = OF_HAPROXY.to_vec();
    wrong[16] ^= 1;
    let mut wrong_check = CHECK_OF_HAPROXY.to_vec();
    *wrong_check.last_mut().unwrap() ^= 1;
    let checksum = &OF_HAPROXY[28..];
    for (number, (header, said)) in [
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 04711 443"), "malformed"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 +4711 443"), "malformed"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 65536 443"), "malformed"),
        (line("PROXY TCP4 203.0.113.7  192.0.2.1 4711 443"), "malformed"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443 "), "malformed"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711"), "malformed"),
        (line("PROXY TCP4 2001:db8::7 2001:db8::1 4711 443"), "malformed"),
        (line("PROXY TCP6 203.0.113.7 192.0.2.1 4711 443"), "malformed"),
        (line("PROXY UDP4 203.0.113.7 192.0.2.1 4711 443"), "malformed"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\n\r\n".to_vec(), "malformed"),
        (line(&format!("PROXY UNKNOWN {}", "x".repeat(100))), "107 bytes"),
        (v2(0x11, TCP4, addresses_and(b"")), "neither of version 1 nor 2"),
        (v2(0x22, TCP4, addresses_and(b"")), "command"),
        (v2(PROXY, UDP4, addresses_and(b"")), "datagrams"),
        (v2(PROXY, 0x41, addresses_and(b"")), "family"),
        (v2(PROXY, 0x13, addresses_and(b"")), "family"),
        (v2(PROXY, TCP4, [0; 11]), "too short for its addresses"),
        (v2(PROXY, TCP6, addresses_and(b"")), "too short for its addresses"),
        (v2(PROXY, UNIX, [0; 215]), "too short for its addresses"),
        (v2(PROXY, TCP4, vec![0; 5000]), "bytes"),
        (values(b"\x04"), "values"),
        (values(b"\x04\0"), "values"),
        (values(b"\x04\0\x01"), "values"),
        (values(b"\x04\xff\xffx"), "values"),
        (values(b"\x03\0\x03xxx"), "alues"),
        (values(b"\x20\0\x04\x01\0\0\0"), "values"),
        (wrong, "checksum"),
        (wrong_check, "checksum"),
        (values(&[checksum, checksum].concat()), ""),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "does not begin with a PROXY header"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), "does not begin with a PROXY header"),
        (b"\r\n\r\n\0\r\nQUIX\n".to_vec(), "does not begin with a PROXY header"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = wire_from(1, daemon.port);
        // The rest may meet a closed socket, which would lose its end.
        wire.send([&header[..], handshake("/who", &[], &[]).as_bytes()].concat());
        expect_eq(wire.take_rest(), Vec::new(), header.escape_ascii().to_string());
        let line = daemon.log().wait_for(&["warn", &format!(" c{} end client=127.0.0.1:", number + 1)]);
        assert!(line.contains("PROXY header") && line.contains(said), "{said:?} is not in {line}");
    }
    assert!(server.is_idle(), "a backend was connected");
}

#[test]
fn a_header_that_is_never_finished() {
    for (keys, beginning) in
        [(REQUIRED, &b""[..]), (REQUIRED, b"PROXY TCP4 203"), (REQUIRED, b"\r\n\r\n\0"), (OPTIONAL, b"PROXY TCP4 203")]
    {
        let daemon = Daemon::start_configured(&gateway("proxy-ms = 700;", &format!("{TRUSTED} {keys}")));
        timed(700, || {
            let mut wire = while_stopped(&daemon, || {
                let mut wire = wire_from(1, daemon.port);
                wire.send(beginning);
                wire
            });
            wire.expect_end();
        });
        daemon.log().wait_for(&["c1 end client=127.0.0.1:", "PROXY header was too slow"]);
    }
    // A header in time is followed by a request that takes its own time.
    let daemon =
        Daemon::start_configured(&gateway("proxy-ms = 700; head-ms = 1400;", &format!("{TRUSTED} {REQUIRED}")));
    timed(1400, || {
        let mut wire = while_stopped(&daemon, || {
            let mut wire = wire_from(1, daemon.port);
            wire.send([&of("203.0.113.7:1")[..], b"GET / HTTP/1.1\r\n"].concat());
            wire
        });
        expect_eq(wire.response().status, 408, "a slow head");
    });
    daemon.log().wait_for(&["c1 end client=203.0.113.7:1 ", "408"]);
}

/// What `proxy` says, for a trusted peer and for another one.
#[test]
fn each_use_of_headers() {
    let header = of("203.0.113.7:4711");
    for (keys, peer, with_header, outcome) in [
        ("", 1, true, Some(400)),
        ("", 1, false, Some(404)),
        ("proxy = \"off\";", 1, true, Some(400)),
        (OPTIONAL, 1, true, Some(404)),
        (OPTIONAL, 1, false, Some(404)),
        (OPTIONAL, 9, true, Some(400)),
        (OPTIONAL, 9, false, Some(404)),
        (REQUIRED, 1, true, Some(404)),
        (REQUIRED, 1, false, None),
        (REQUIRED, 9, true, None),
        (REQUIRED, 9, false, None),
    ] {
        let what = format!("{keys} 127.0.0.{peer} header={with_header}");
        let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {keys}")));
        // A peer that is closed at once may see a reset if it sends first.
        let mut wire = while_stopped(&daemon, || {
            let mut wire = wire_from(peer, daemon.port);
            let header = if with_header { &header[..] } else { b"" };
            wire.send([header, request("GET", "/nosuch", &["Connection: close"]).as_bytes()].concat());
            wire
        });
        match outcome {
            Some(status) => {
                let response = wire.response();
                expect_eq(response.status, status, &what);
                let is_believed = with_header && status == 404;
                let client = if is_believed { "203.0.113.7:4711 ".to_owned() } else { format!("127.0.0.{peer}:") };
                let said = match status {
                    404 => ": answered",
                    _ if keys == OPTIONAL => "not trusted",
                    _ => "PROXY protocol",
                };
                drop(wire);
                daemon.log().wait_for(&[&format!(" end client={client}"), &format!("status={status}"), said]);
            }
            None => {
                expect_eq(wire.take_rest(), Vec::new(), &what);
                let said =
                    if peer == 1 { "does not begin with a PROXY header" } else { "no PROXY header of it is trusted" };
                daemon.log().wait_for(&[&format!("127.0.0.{peer}"), said]);
            }
        }
    }
}

/// Where headers are optional, a request may begin with the first bytes of one.
#[test]
fn requests_that_begin_like_headers() {
    let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {OPTIONAL}")));
    for (beginning, status) in [("PROPFIND", 405), ("POST", 405), ("\r\nGET", 404), ("GET", 404)] {
        let mut wire = wire_from(1, daemon.port);
        let text = format!("{beginning} /nosuch HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        text.bytes().for_each(|byte| wire.send([byte]));
        expect_eq(wire.response().status, status, beginning);
        expect_eq(wire.get("/nosuch").status, 404, beginning);
    }
    let mut wire = wire_from(1, daemon.port);
    wire.send("PROXX / HTTP/1.1\r\nHost: h\r\n\r\n");
    expect_eq(wire.response().status, 405, "an unknown method");
}

/// A stop does not wait for headers, nor for the requests of a kept connection.
#[test]
fn a_stop_closes_connections_without_a_header() {
    let mut daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {OPTIONAL}")));
    let mut wires = [&b""[..], b"PROXY TCP4 2", b"\r\n\r\n\0", &of("203.0.113.7:4711")].map(|bytes| {
        let mut wire = wire_from(1, daemon.port);
        wire.send(bytes);
        wire
    });
    // Sent later, and answered: the others have arrived.
    let mut kept = wire_from(1, daemon.port);
    kept.send([of("203.0.113.7:4711"), request("GET", "/nosuch", &[]).into_bytes()].concat());
    expect_eq(kept.response().status, 404, "a request");
    daemon.stop();
    wires.iter_mut().chain([&mut kept]).for_each(|wire| expect_eq(wire.take_rest(), Vec::new(), "a reply"));
}

/// A listener with TLS: the header precedes the handshake.
#[test]
fn headers_before_tls() {
    let folder = Folder::new();
    authority::issue(&folder);
    let tls = "tls = { crtfile = \"@/tls/server-chain.crt\"; keyfile = \"@/tls/server.key\"; };";
    let text = gateway("", &format!("{TRUSTED} {REQUIRED} {tls}"));
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let server = daemon.listen("who");
    let header = of("203.0.113.7:4711");
    // Separately, in one segment, and with the first half of the ClientHello.
    for way in 0..3 {
        let (client, flight) = first_flight(&daemon, ALL);
        let mut stream = stream_from(address(1), daemon.port, None);
        stream.set_nodelay(true).unwrap();
        let tls = if way == 0 {
            stream.write_all(&header).unwrap();
            shake(stream, &Arc::new(client_config(&daemon, ALL, None)), "127.0.0.1").unwrap()
        } else {
            let cut = if way == 1 { flight.len() } else { flight.len() / 2 };
            stream.write_all(&[&header[..], &flight[..cut]].concat()).unwrap();
            stream.write_all(&flight[cut..]).unwrap();
            finish(client, stream)
        };
        let mut wire = Wire::over_tls(tls);
        wire.send(handshake("/who", &[], &["Origin: https://gate.example"]));
        expect_eq(wire.response().status, 101, way);
        let (hello, backend) = hello_of(&server);
        let told = (hello.client.map(|client| client.to_string()), hello.local.map(|local| local.to_string()));
        expect_eq(told, (Some("203.0.113.7:4711".to_owned()), Some("192.0.2.1:443".to_owned())), way);
        expect_eq(&*hello.tls_version, "TLSv1.3", way);
        drop(backend);
        Client::new(wire).expect_close_handshake(1000);
        daemon.log().wait_for(&[&format!("{} end client=203.0.113.7:4711 ", hello.id), "status=101"]);
    }
    // No header, and a header after TLS.
    let (_client, flight) = first_flight(&daemon, ALL);
    let mut wire = wire_from(1, daemon.port);
    wire.send(flight);
    expect_eq(wire.take_rest(), Vec::new(), "no header");
    daemon.log().wait_for(&["end client=127.0.0.1:", "does not begin with a PROXY header"]);
}

/// The log says what arrives at a TLS port instead of TLS.
#[test]
fn unread_headers_before_tls() {
    let tls = "tls = { crtfile = \"@/tls/server-chain.crt\"; keyfile = \"@/tls/server.key\"; };";
    for (keys, reason) in
        [(String::new(), "which is not read here"), (format!("{STRANGERS} {OPTIONAL}"), "that is not trusted")]
    {
        let folder = Folder::new();
        authority::issue(&folder);
        let daemon = Daemon::start_configured_by(folder, &gateway("", &format!("{keys} {tls}")), uakari());
        for header in [of("203.0.113.7:1"), b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n".to_vec()] {
            let mut wire = wire_from(1, daemon.port);
            wire.send(header);
            expect_eq(wire.response().status, 400, reason);
            daemon.log().wait_for(&["warn", "end client=127.0.0.1:", "400", reason]);
        }
    }
}

/// Continues a handshake whose first flight was sent.
fn finish(mut client: ClientConnection, mut stream: TcpStream) -> TlsStream {
    while client.is_handshaking() {
        client.complete_io(&mut stream).unwrap();
    }
    StreamOwned::new(client, stream)
}

/// After a header of the proxy's own, and from a client that is no proxy, fields are not read.
#[test]
fn fields_after_a_header() {
    let trusted = "trusted = (\"127.0.0.1\", \"10.0.0.0/8\");";
    let daemon = Daemon::start_configured(&gateway("", &format!("{trusted} {REQUIRED}")));
    let server = daemon.listen("who");
    let fields = ["X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https", "Origin: http://gate.example"];
    for (header, client) in [
        (v2(LOCAL, UNSPECIFIED, b""), None),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (of("203.0.113.7:4711"), Some("203.0.113.7")),
        (of("[2001:db8::7]:4711"), Some("2001:db8::7")),
    ] {
        let what = header.escape_ascii().to_string();
        let mut wire = wire_from(1, daemon.port);
        wire.send([&header[..], handshake("/who", &[], &fields).as_bytes()].concat());
        expect_eq(wire.response().status, 101, &what);
        let told = hello_of(&server).0.client.map(|client| client.ip());
        expect_eq(told, Some(client.unwrap_or("127.0.0.1").parse().unwrap()), &what);
    }
    // Of a proxy before the proxy they are.
    let ask = |fields: &[&str]| {
        let mut wire = wire_from(1, daemon.port);
        wire.send([&of("10.0.0.7:4711")[..], handshake("/who", &[], fields).as_bytes()].concat());
        (wire.response().status, wire)
    };
    expect_eq(ask(&fields).0, 403, "a page of http, and a client of https");
    let (status, _wire) = ask(&fields[..2]);
    expect_eq(status, 101, "a client of https");
    let told = hello_of(&server).0.client.map(|client| client.ip());
    expect_eq(told, Some("198.51.100.7".parse().unwrap()), "the client of the proxy before");
}

/// TLS that a header tells of (PP2_TYPE_SSL): pages have https then.
#[test]
fn tls_in_a_header() {
    let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {REQUIRED}")));
    let _server = daemon.listen("who");
    for (values, http, https) in [
        (&b""[..], 101, 101),
        (b"\x20\0\x05\x01\0\0\0\0", 403, 101),
        (b"\x20\0\x0f\x05\0\0\0\0\x21\0\x07TLSv1.3", 403, 101),
        (b"\x20\0\x05\0\0\0\0\0", 101, 403),
    ] {
        for (scheme, wanted) in [("http", http), ("https", https)] {
            let mut wire = wire_from(1, daemon.port);
            let origin = format!("Origin: {scheme}://gate.example");
            let header = v2(PROXY, TCP4, addresses_and(values));
            wire.send([&header[..], handshake("/who", &[], &[&origin]).as_bytes()].concat());
            let what = (values.escape_ascii().to_string(), scheme);
            expect_eq(wire.response().status, wanted, what);
        }
    }
}

/// Each address has its places, and the proxy itself has all that it wants.
#[test]
fn places_of_addresses() {
    let daemon = Daemon::start_configured(&gateway("clients-per-address = 1;", &format!("{TRUSTED} {REQUIRED}")));
    let server = daemon.listen("who");
    let idle: Vec<Wire> = (0..3).map(|_| wire_from(1, daemon.port)).collect();
    let ask = |header: &[u8]| {
        let mut wire = wire_from(1, daemon.port);
        wire.send([header, handshake("/who", &[], &[]).as_bytes()].concat());
        let response = wire.response();
        (response.status, wire)
    };
    let own: Vec<_> = (0..3).map(|_| ask(CHECK_OF_HAPROXY)).collect();
    assert!(own.iter().all(|(status, _)| *status == 101));
    let clients = ["203.0.113.7:1", "203.0.113.8:1", "[2001:db8::7]:1", "[2001:db8:0:1::7]:1", "127.0.0.1:1"];
    let members = clients.map(|client| ask(&of(client)));
    assert!(members.iter().all(|(status, _)| *status == 101));
    // A port makes no other client, and an IPv6 client has all addresses of its network.
    for client in ["203.0.113.7:2", "203.0.113.8:1", "[2001:db8::8]:2", "[::ffff:203.0.113.7]:3"] {
        expect_eq(ask(&of(client)).0, 503, client);
    }
    daemon.log().wait_for(&["warn", "client=203.0.113.7:2 ", "503", "too many clients from this address"]);
    drop((idle, own, members));
    for _ in 0..8 {
        drop(server.accept());
    }
    for client in clients {
        eventually("there is a place", || ask(&of(client)).0 == 101);
    }
}

/// Clients that are refused for their address take no place of others, although they stay, and over TLS they do not
/// begin a handshake that they never finish.
#[test]
fn clients_over_their_limit_take_no_places() {
    let folder = Folder::new();
    authority::issue(&folder);
    let tls = "tls = { crtfile = \"@/tls/server-chain.crt\"; keyfile = \"@/tls/server.key\"; };";
    let text = gateway("clients-per-address = 1;", &format!("{TRUSTED} {REQUIRED} maxclients = 3; {tls}"));
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let _server = daemon.listen("who");
    let open = |client: &str| {
        let mut stream = stream_from(address(1), daemon.port, None);
        stream.write_all(&of(client)).unwrap();
        stream
    };
    let join = |client: &str| {
        let config = Arc::new(client_config(&daemon, ALL, None));
        let mut wire = Wire::over_tls(shake(open(client), &config, "127.0.0.1").unwrap());
        wire.send(handshake("/who", &[], &["Origin: https://gate.example"]));
        expect_eq(wire.response().status, 101, client);
        wire
    };
    let _member = join("203.0.113.7:1");
    let mut refused: Vec<Wire> = (2..8).map(|port| Wire::new(open(&format!("203.0.113.7:{port}")))).collect();
    for wire in &mut refused {
        expect_eq(wire.take_rest().first().copied(), Some(21), "the type of an alert");
    }
    let _other = join("203.0.113.8:1");
    drop(refused);
    daemon.log().wait_for(&["warn", "client=203.0.113.7:2 ", "503", "too many clients from this address"]);
}

/// Direct mode passes the client's address on, not that of the socket.
#[test]
fn direct_mode() {
    let text = configuration("", "options = \"direct\";");
    for (keys, header, fields, client) in [
        (REQUIRED, of("203.0.113.7:4711"), &[][..], "203.0.113.7:4711"),
        (REQUIRED, of("[2001:db8::7]:4711"), &[], "[2001:db8::7]:4711"),
        ("", Vec::new(), &["X-Forwarded-For: 203.0.113.7"], "203.0.113.7:0"),
        ("", Vec::new(), &["X-Forwarded-For: 2001:db8::7"], "[2001:db8::7]:0"),
    ] {
        let daemon = Daemon::start_configured(&text.replacen("document", &format!("{TRUSTED} {keys} document"), 1));
        let server = daemon.listen("echo");
        let mut wire = wire_from(1, daemon.port);
        wire.send([&header[..], handshake("/echo", &[], fields).as_bytes()].concat());
        let mut given = take(&server);
        expect_eq(given.record, sockaddr(client.parse().unwrap()), client);
        expect_eq(wire.response_head().status, 101, client);
        // No byte of the header is left in the socket.
        let mut member = Client::new(wire);
        member.text("text");
        given.client.expect(Frame::new(TEXT, b"text").masked().bytes());
        daemon.log().wait_for(&["end client=", client.rsplit_once(':').unwrap().0, "status=101", "handed over"]);
    }
}

/// A proxy on the same machine connects to a UNIX socket.
#[test]
fn headers_on_a_unix_socket() {
    let text = gateway("", &format!("trusted = \"unix:\"; {REQUIRED}"));
    let daemon = Daemon::start_configured(&text.replacen("127.0.0.1:0", "unix:@/gate", 1));
    let server = daemon.listen("who");
    for (header, client) in [(of("203.0.113.7:4711"), Some("203.0.113.7:4711")), (CHECK_OF_HAPROXY.to_vec(), None)] {
        let mut peer = Backend::new(UnixStream::connect(daemon.folder().join("gate")).unwrap());
        peer.send([&header[..], handshake("/who", &[], &["X-Forwarded-For: 198.51.100.7"]).as_bytes()].concat());
        peer.expect("HTTP/1.1 101 ");
        let (hello, backend) = hello_of(&server);
        expect_eq(hello.client.map(|client| client.to_string()).as_deref(), client, "the client");
        expect_eq(
            hello.local.map(|local| local.to_string()),
            client.map(|_| "192.0.2.1:443".to_owned()),
            "the address",
        );
        drop((backend, peer));
        daemon.log().wait_for(&[&format!("{} end client={} ", hello.id, client.unwrap_or("unix")), "status=101"]);
    }
}
