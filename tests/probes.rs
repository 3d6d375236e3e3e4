//! Health checks of proxies, and connections without a request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::socket::{setsockopt, sockopt};

use crate::daemon::{Daemon, configuration, patient};
use crate::foreign::tool;
use crate::process::{Process, eventually};
use crate::proxies::programs::haproxy_defaults;
use crate::wire::handshake;

#[test]
fn options_requests_are_answered_for_any_name() {
    let websockets = format!(
        "limits = {{ {} }};
         servers = ({{ listen = \"127.0.0.1:0\"; websocket = {{ docroot = \"@/run\"; deny = \"^/denied\"; }}; }});",
        patient("")
    );
    for text in [configuration("", "deny = \"^/denied\";"), websockets] {
        let daemon = Daemon::start_configured(&text);
        let _servers = ["echo", "denied"].map(|name| daemon.listen(name));
        let mut wire = daemon.wire();
        for target in ["/", "*", "/nosuch", "/echo", "/denied", "/.hidden", "http://h", "/?q"] {
            wire.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            let response = wire.response();
            assert_eq!((response.status, response.field("Allow")), (204, "GET, HEAD, OPTIONS"), "{target}");
            assert_eq!(response.field("Content-Length"), "", "{target}: RFC 9110 section 8.6");
        }
        // The body is read, and the next request follows.
        wire.send("OPTIONS / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!((wire.response().status, wire.get("/nosuch").status), (204, 404));
        let mut wire = daemon.wire();
        wire.send("OPTIONS / HTTP/1.0\r\n\r\n");
        let response = wire.response();
        assert_eq!((response.status, response.field("Connection")), (204, "close"));
        wire.expect_end();
    }
}

/// A later minor version is served as 1.1 (RFC 9110 section 2.5).
#[test]
fn later_versions_of_http_1() {
    let daemon = Daemon::start(&[]);
    let server = daemon.listen("echo");
    let mut wire = daemon.wire();
    for (version, status) in [("1.2", 404), ("1.9", 404)] {
        wire.send(format!("GET /nosuch HTTP/{version}\r\nHost: h\r\n\r\n"));
        assert_eq!(wire.response().status, status, "{version}");
    }
    wire.send(handshake("/echo", &[], &[]).replace("HTTP/1.1", "HTTP/1.2"));
    assert_eq!(wire.response().status, 101);
    server.accept();
}

const BACKENDS: &str = "
backend http
    option httpchk
    server gate GATE check inter 100ms rise 1 fall 1
backend http_1_1
    option httpchk
    http-check send meth OPTIONS uri * ver HTTP/1.1 hdr Host gate.example
    server gate GATE check inter 100ms rise 1 fall 1
backend tcp
    server gate GATE check inter 100ms rise 1 fall 1
";

/// Starts haproxy with these backends, in which GATE stands for the daemon's address and PORT for its port. Its statistics
/// are served at the socket, which is returned.
pub fn checked_by_haproxy(daemon: &Daemon, backends: &str) -> (Process, String) {
    let (socket, file) = (daemon.folder().join("numbers"), daemon.folder().join("haproxy.cfg"));
    let port = daemon.port.to_string();
    let backends = backends.replace("GATE", &format!("127.0.0.1:{port}")).replace("PORT", &port);
    let frontend = format!("frontend numbers\n    bind unix@{socket}\n    stats enable\n    stats uri /");
    std::fs::write(&file, format!("{}{frontend}{backends}", haproxy_defaults("http"))).unwrap();
    let haproxy = Process::start(Command::new(tool("bin/haproxy")).args(["-db", "-f", &file]));
    eventually("haproxy listens", || UnixStream::connect(&socket).is_ok());
    (haproxy, socket)
}

/// Whether the server `gate` of this backend of haproxy is up by a check with this result. `socket` serves haproxy's
/// statistics.
pub fn is_up(socket: &str, backend: &str, check: &str) -> bool {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /;csv HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let seen = text.lines().find(|line| line.starts_with(&format!("{backend},gate,"))).unwrap();
    // Before its first check a server counts as up, and has no result. A running check is starred.
    seen.contains(",UP,") && seen.contains(&format!(",{check},"))
}

#[test]
#[ignore = "needs haproxy"]
fn the_health_checks_of_haproxy_succeed_and_are_not_logged() {
    let daemon = Daemon::start(&[]);
    let (_haproxy, socket) = checked_by_haproxy(&daemon, BACKENDS);
    for (backend, check) in [("http", "L7OK,204"), ("http_1_1", "L7OK,204"), ("tcp", "L4OK,")] {
        // A check that was held up may have failed.
        eventually(&format!("{backend} is up by {check}"), || is_up(&socket, backend, check));
    }
    daemon.get("/nosuch");
    daemon.log().wait_for(&["status=404"]);
    let ends = daemon.log().text().matches(" end client=").count();
    assert_eq!(ends, 1, "{}", daemon.log().text());
}

/// A connection without a request is logged at debug level; the outcome of a request as usual.
#[test]
fn connections_without_a_request() {
    for (level, told) in [("info", false), ("debug", true)] {
        let daemon = Daemon::start(&["--log-level", level]);
        drop(daemon.wire());
        let reset = daemon.wire();
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(reset.stream(), sockopt::Linger, &linger).unwrap();
        drop(reset);
        for text in ["OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS / HTTP/1.0\r\n\r\n"] {
            let mut wire = daemon.wire();
            wire.send(text);
            assert_eq!(wire.response().status, 204);
            drop(wire);
        }
        let mut wire = daemon.wire();
        wire.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!((wire.response().status, wire.get("/nosuch").status), (204, 404));
        drop(wire);
        daemon.log().wait_for(&["c5 end", "status=404", ": answered"]);
        let mut wire = daemon.wire();
        wire.send("GET");
        drop(wire);
        daemon.log().wait_for(&["c6 end", "left before its request was answered"]);
        for (id, sentence) in
            [(1, "left without a byte"), (2, "left without a byte"), (3, "probed with"), (4, "probed with")]
        {
            let parts = [&format!(" c{id} end"), sentence];
            if told {
                daemon.log().wait_for(&parts);
            }
            let text = daemon.log().text();
            let is_told = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            assert_eq!(is_told, told, "{level}: c{id}: {text}");
        }
    }
}
