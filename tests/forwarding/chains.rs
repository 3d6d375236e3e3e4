//! Requests through several gateways in a row.

use super::node::{Recorder, Seen, gateway, reply, start, start_in};
use crate::client::Frame;
use crate::daemon::Daemon;
use crate::http::noise;
use crate::process::{Folder, Process, expect_eq};
use crate::proxies::programs;
use crate::wire::{Wire, handshake, request};

/// The last gateway believes the proxy before it.
const TRUSTED: &str = "trusted = \"127.0.0.1\";";

/// What stands before the last gateway, and its first port.
struct Chain {
    _folder: Folder,
    _proxy: Process,
    _first: Option<Daemon>,
    port: u16,
}

/// uakari, nginx.
fn nginx(gate: u16) -> Chain {
    let folder = Folder::new();
    let (proxy, port) = programs::nginx(&folder, |port| {
        format!(
            "server {{ listen 127.0.0.1:{port}; client_max_body_size 0; merge_slashes off;
             location / {{
                 proxy_pass http://127.0.0.1:{gate}; proxy_http_version 1.1; proxy_set_header Host $http_host;
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
             }} }}"
        )
    });
    let first = start(port);
    let port = first.port;
    Chain { _folder: folder, _proxy: proxy, _first: Some(first), port }
}

/// haproxy alone.
fn haproxy(gate: u16) -> Chain {
    let folder = Folder::new();
    let (proxy, port) = programs::haproxy(&folder, |port| {
        format!(
            "{}frontend web\n    bind 127.0.0.1:{port}\n    default_backend gate\n\
             backend gate\n    option forwardfor\n    server gate 127.0.0.1:{gate}\n",
            programs::haproxy_defaults("http")
        )
    });
    Chain { _folder: folder, _proxy: proxy, _first: None, port }
}

fn expect_chain(start_chain: impl Fn(u16) -> Chain) {
    let node = Recorder::answering(|seen| {
        if seen.line().contains("/chunked") {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            let chunk = format!("{:x}\r\n", seen.body.len()).into_bytes();
            return [head, chunk, seen.body.clone(), b"\r\n0\r\n\r\n".to_vec()].concat();
        }
        if seen.line().contains("/bad") {
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
        }
        if seen.line().contains("/ws") {
            return reply("403 Forbidden", "refused").into_bytes();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        [head.as_bytes(), &seen.body].concat()
    });
    let last = start_in(Folder::new(), &gateway(node.port, "", TRUSTED, ""));
    let chain = start_chain(last.port);
    let connect = || Wire::connect(chain.port);
    // Bodies, by every byte.
    let bytes = noise(1_000_003);
    for path in ["/sized", "/chunked"] {
        let mut wire = connect();
        wire.send(request("POST", path, &[&format!("Content-Length: {}", bytes.len()), "Connection: close"]));
        wire.send(&bytes);
        let response = wire.response_head();
        expect_eq(response.status, 200, path);
        let rest = wire.take_rest();
        match response.field("Transfer-Encoding") {
            "chunked" => assert!(rest.len() > bytes.len() && rest.ends_with(b"\r\n0\r\n\r\n"), "{path}"),
            _ => assert!(rest == bytes, "{path}: the bytes differ"),
        }
    }
    // Requests that hide others.
    let hidden = request("GET", "/hidden", &[]);
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Transfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        "Content-Length: 5\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut wire = connect();
        wire.send(format!("POST /bait HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n{lines}{hidden}"));
        let rest = String::from_utf8_lossy(&wire.take_rest()).into_owned();
        assert!(rest.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count() <= 1, "{lines:?}: {rest}");
    }
    // HTTP/2 over cleartext, and lies.
    let mut wire = connect();
    let fields = ["Connection: close, X-Forwarded-For, Host", "Upgrade: h2c", "X-Forwarded-User: root", "Proxy: evil"];
    wire.send(request("GET", "/lies", &fields));
    expect_eq(wire.response().status, 200, "lies");
    // A refused handshake is no tunnel.
    let mut wire = connect();
    wire.send(handshake("/ws", &[], &[]));
    let response = wire.response_head();
    expect_eq(response.status, 403, "a refused handshake");
    expect_eq(wire.take(7), b"refused".to_vec(), "the body");
    wire.send(Frame::new(1, b"frame").masked().bytes());
    // A reply that is ambiguous.
    let mut wire = connect();
    wire.send(request("GET", "/bad", &["Connection: close"]));
    expect_eq(wire.response_head().status, 502, "an ambiguous reply");

    drop(chain);
    let seen = node.finish(last);
    for one in &seen {
        let head = one.head.to_lowercase();
        assert!(!head.contains("h2c") && !head.contains("root") && !head.contains("evil"), "{one:?}");
        assert!(!head.contains("/hidden") && !one.body.ends_with(hidden.as_bytes()), "{one:?}");
        expect_eq(one.all("x-forwarded-for").len(), 1, one);
        expect_eq(one.all("host").len(), 1, one);
    }
    let whole: Vec<&Seen> = seen.iter().filter(|seen| !seen.is_cut && seen.body.len() > 100).collect();
    assert!(whole.len() == 2 && whole.iter().all(|seen| seen.body == bytes), "{} large bodies", whole.len());
}

#[test]
#[ignore = "needs nginx"]
fn between_two_gateways() {
    expect_chain(nginx);
}

#[test]
#[ignore = "needs haproxy"]
fn before_a_gateway() {
    expect_chain(haproxy);
}
