//! `hostnames`: a server answers for the listed hosts alone.

use super::{TRUSTED, gateway, wire_from};
use crate::daemon::Daemon;
use crate::http::put;
use crate::process::expect_eq;
use crate::wire::Wire;

const HOSTNAMES: &str = "hostnames = (\"gate.example\", \"*.app.example\", \"127.0.0.1\", \"[::1]\");";

/// The status of a request with this line and Host, sent from this address.
fn status(daemon: &Daemon, last: u8, line: &str, host: &str, fields: &str) -> u16 {
    let mut wire: Wire = wire_from(last, daemon.port);
    wire.send(format!("{line}\r\n{host}{fields}\r\n"));
    wire.response().status
}

#[test]
fn other_hosts_are_misdirected() {
    let daemon = Daemon::start_configured(&gateway("", HOSTNAMES));
    put(&daemon, "page", "the page");
    let server = daemon.listen("who");
    let get = "GET /page HTTP/1.1";
    for (line, host, wanted) in [
        (get, "Host: gate.example\r\n", 200),
        (get, "Host: gate.example:8080\r\n", 200),
        (get, "Host: GATE.Example\r\n", 200),
        (get, "Host: a.app.example\r\n", 200),
        (get, "Host: a.b.APP.example:1\r\n", 200),
        (get, "Host: 127.0.0.1\r\n", 200),
        (get, "Host: 127.0.0.1:8080\r\n", 200),
        (get, "Host: [::1]:8080\r\n", 200),
        (get, "Host: app.example\r\n", 421),
        (get, "Host: xapp.example\r\n", 421),
        (get, "Host: .app.example\r\n", 421),
        (get, "Host: gate.example.evil.example\r\n", 421),
        (get, "Host: evil.example\r\n", 421),
        (get, "Host: 127.0.0.2\r\n", 421),
        (get, "Host: [::2]\r\n", 421),
        (get, "Host: localhost\r\n", 421),
        (get, "Host:\r\n", 400),
        (get, "", 400),
        (get, "Host: a b\r\n", 400),
        // The target in absolute form wins, if it does not contradict (RFC 9112 section 3.2.2).
        ("GET http://gate.example/page HTTP/1.1", "Host: gate.example\r\n", 200),
        ("GET http://evil.example/page HTTP/1.1", "Host: evil.example\r\n", 421),
        ("GET http://evil.example/page HTTP/1.1", "Host: gate.example\r\n", 400),
        ("GET http://gate.example/page HTTP/1.1", "Host: evil.example\r\n", 400),
        // Health checks of proxies.
        ("OPTIONS / HTTP/1.0", "", 204),
        ("GET /page HTTP/1.0", "", 200),
        ("OPTIONS / HTTP/1.0", "Host: evil.example\r\n", 421),
        ("OPTIONS * HTTP/1.1", "Host: evil.example\r\n", 421),
        // Handshakes, and an origin of the other host.
        ("GET /who HTTP/1.1", "Host: evil.example\r\n", 421),
        ("GET /nosuch HTTP/1.1", "Host: evil.example\r\n", 421),
    ] {
        expect_eq(status(&daemon, 2, line, host, ""), wanted, (line, host));
    }
    for (host, origin, wanted) in [
        ("gate.example", "http://gate.example", 101),
        ("gate.example", "http://evil.example", 403),
        // The attack that `same` cannot see (DNS rebinding).
        ("evil.example", "http://evil.example", 421),
        ("evil.example:8080", "http://evil.example:8080", 421),
    ] {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let fields = format!("Connection: upgrade\r\nUpgrade: websocket\r\n{key}Origin: {origin}\r\n");
        let got = status(&daemon, 2, "GET /who HTTP/1.1", &format!("Host: {host}\r\n"), &fields);
        expect_eq(got, wanted, (host, origin));
    }
    drop(server.accept());
    assert!(server.is_idle(), "a backend was connected for another host");
    daemon.log().wait_for(&["refused: Host is \"evil.example\"", "hostnames"]);
    daemon.log().wait_for(&["end client=127.0.0.2:", "status=421", "(hostnames)"]);
}

/// Without the key each Host is served.
#[test]
fn each_host_is_served_without_the_key() {
    let daemon = Daemon::start_configured(&gateway("", ""));
    put(&daemon, "page", "the page");
    for host in ["Host: evil.example\r\n", "Host: 127.0.0.9:1\r\n"] {
        expect_eq(status(&daemon, 2, "GET /page HTTP/1.1", host, ""), 200, host);
    }
}

/// The host that a trusted proxy tells is the one that counts, and a refusal precedes a redirection.
#[test]
fn the_host_that_a_proxy_tells() {
    let keys = format!(
        "{TRUSTED} {HOSTNAMES} forwarded = (\"x-forwarded-proto\", \"x-forwarded-host\");
         redirect = {{ options = \"hsts\"; }};"
    );
    let daemon = Daemon::start_configured(&gateway("", &keys));
    put(&daemon, "page", "the page");
    let https = "X-Forwarded-Proto: https\r\n";
    let told = |host: &str| format!("{https}X-Forwarded-Host: {host}\r\n");
    let get = "GET /page HTTP/1.1";
    for (last, host, fields, wanted) in [
        (1, "10.0.0.1:8080", told("gate.example"), 200),
        (1, "10.0.0.1:8080", told("evil.example, gate.example"), 200),
        (1, "gate.example", told("evil.example"), 421),
        (1, "gate.example", https.to_owned(), 200),
        (1, "gate.example", String::new(), 301),
        (1, "evil.example", String::new(), 421),
        (2, "10.0.0.1:8080", told("gate.example"), 421),
        (2, "gate.example", told("evil.example"), 301),
    ] {
        let got = status(&daemon, last, get, &format!("Host: {host}\r\n"), &fields);
        expect_eq(got, wanted, (last, host, &fields));
    }
    daemon.log().wait_for(&["refused: Host is \"evil.example\"", "hostnames"]);
}
