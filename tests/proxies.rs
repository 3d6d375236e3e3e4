//! Behind proxies: the address, scheme and host of the true client, as real proxies tell them.
//!
//! Clients have addresses of their own in the loopback network, and the proxies have 127.0.0.1.

/// Real proxies.
pub mod programs;

/// PROXY headers byte by byte.
mod headers;

/// X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and Forwarded.
mod fields;

/// The hosts for which a server answers.
mod hosts;

/// Several gateways behind two proxies, one behind the other.
mod nodes;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::client::Client;
use crate::daemon::{Daemon, configuration};
use crate::hello::parser::{Hello, read_hello};
use crate::limits::stream_from;
use crate::probes::{checked_by_haproxy, is_up};
use crate::process::{Folder, Process, eventually, expect_eq};
use crate::server::{Backend, Listener};
use crate::tls::{authority, shake, trusting};
use crate::wire::{Response, Wire, handshake};

/// Believes the proxies of these tests.
const TRUSTED: &str = "trusted = \"127.0.0.1\";";
/// Believes others.
const STRANGERS: &str = "trusted = \"192.0.2.1\";";

/// A configuration with these keys of `limits` and of its server, whose backends get the hello record.
pub fn gateway(limits: &str, keys: &str) -> String {
    configuration(limits, "hello = true;").replacen("document", &format!("{keys} document"), 1)
}

/// An address of a client.
fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// A connection of such a client to this port.
fn wire_from(last: u8, port: u16) -> Wire {
    Wire::new(stream_from(address(last), port, None))
}

/// The record of the next client.
fn hello_of(server: &Listener) -> (Hello, Backend) {
    let backend = server.accept();
    let hello = read_hello(&mut backend.stream()).unwrap();
    (hello, backend)
}

/// What a proxy tells, and what the gateway needs for it.
#[derive(Clone, Copy)]
struct Told {
    /// Keys of the gateway.
    keys: &'static str,
    /// It sends a PROXY header, which has both ports.
    has_header: bool,
    /// Clients use TLS.
    is_tls: bool,
    /// It tells whether they do.
    has_scheme: bool,
}

/// A proxy that sets X-Forwarded-For and X-Forwarded-Proto.
const FIELDS: Told = Told { keys: "", has_header: false, is_tls: false, has_scheme: true };
/// A proxy that sends PROXY headers.
const HEADERS: Told = Told { keys: "proxy = \"required\";", has_header: true, is_tls: false, has_scheme: false };

/// A running proxy.
pub struct Proxy {
    pub process: Process,
    pub port: u16,
    /// How its clients use TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Proxy {
    /// A proxy without TLS.
    pub fn plain((process, port): (Process, u16)) -> Proxy {
        Proxy { process, port, tls: None }
    }

    /// A proxy with the certificate in this folder of `proxy_folder`.
    pub fn secure((process, port): (Process, u16), folder: &Folder) -> Proxy {
        Proxy { process, port, tls: Some(trusting(authority::path(folder, "root.crt"))) }
    }

    /// The scheme of its pages.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A connection from this address, 127.0.0.LAST.
    pub fn wire(&self, last: u8) -> Wire {
        let stream = stream_from(address(last), self.port, None);
        match &self.tls {
            Some(config) => Wire::over_tls(shake(stream, config, "127.0.0.1").unwrap()),
            None => Wire::new(stream),
        }
    }

    /// A handshake from this address, of a client that claims another address and the other scheme.
    fn ask(&self, last: u8, origin: &str) -> (Wire, Response) {
        let mut wire = self.wire(last);
        let claim = format!("X-Forwarded-Proto: {}", if self.tls.is_some() { "http" } else { "https" });
        let fields = [&claim, "X-Forwarded-For: 198.51.100.7", "Forwarded: for=198.51.100.7", origin];
        wire.send(handshake("/who", &[], &fields[..if origin.is_empty() { 3 } else { 4 }]));
        let response = wire.response();
        (wire, response)
    }

    /// The status of such a handshake.
    fn status(&self, last: u8, origin: &str) -> u16 {
        self.ask(last, origin).1.status
    }

    /// A WebSocket and what its backend learns.
    fn join(&self, server: &Listener, last: u8) -> (Client, Hello, Backend) {
        let (wire, response) = self.ask(last, "");
        expect_eq(response.status, 101, &response);
        let (hello, backend) = hello_of(server);
        (Client::new(wire), hello, backend)
    }
}

/// A folder for a proxy, with certificates in `tls`. `gate.pem` there has the gateway's chain and key, as haproxy needs
/// them.
pub fn proxy_folder() -> Folder {
    let folder = Folder::new();
    authority::issue(&folder);
    let parts = ["server-chain.crt", "server.key"].map(|name| std::fs::read(authority::path(&folder, name)).unwrap());
    std::fs::write(authority::path(&folder, "gate.pem"), parts.concat()).unwrap();
    folder
}

/// The gateway knows the clients of a trusted proxy, and those of another one have the proxy's address. `start` starts
/// the proxy before this port.
fn expect_told(told: Told, start: impl Fn(&Folder, u16) -> (Process, u16)) {
    let folder = proxy_folder();
    let start = |daemon: &Daemon| {
        let started = start(&folder, daemon.port);
        if told.is_tls { Proxy::secure(started, &folder) } else { Proxy::plain(started) }
    };
    expect_believed(told, &start);
    expect_disbelieved(told, &start);
}

fn expect_believed(told: Told, start: &impl Fn(&Daemon) -> Proxy) {
    let daemon = Daemon::start_configured(&gateway("clients-per-address = 2;", &format!("{TRUSTED} {}", told.keys)));
    let server = daemon.listen("who");
    let proxy = start(&daemon);
    let (mut first, hello, backend) = proxy.join(&server, 2);
    let own = first.wire.stream().local_addr().unwrap();
    let client = hello.client.expect("an address");
    expect_eq(client.ip(), own.ip(), "the client's address");
    if told.has_header {
        let near = first.wire.stream().peer_addr().unwrap();
        expect_eq((client, hello.local), (own, Some(near)), "the client's addresses");
    } else {
        expect_eq(hello.local, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.port))), "the gateway's address");
    }
    expect_eq(&*hello.host, "gate.example", "the host");
    // Each address has two places, and the proxy has them all.
    let second = proxy.join(&server, 2);
    // The line follows the end of the connection.
    let (_, response) = proxy.ask(2, "");
    expect_eq(response.status, 503, &response);
    assert!(response.text().contains("limits.clients-per-address"), "{response:?}");
    daemon.log().wait_for(&["warn", "client=127.0.0.2", "status=503", "too many clients from this address"]);
    let others = [3, 3, 4].map(|last| proxy.join(&server, last));
    drop(backend);
    first.expect_close_handshake(1000);
    let line = daemon.log().wait_for(&["end client=127.0.0.2", "name=\"who\"", "status=101"]);
    assert!(!told.has_header || line.contains(&format!("client={own} ")), "{line}");
    eventually("there is a place", || proxy.status(2, "") == 101);
    drop((second, others));

    let schemes = ["http", "https"].map(|scheme| format!("Origin: {scheme}://gate.example"));
    for (is_tls, origin) in [false, true].into_iter().zip(&schemes) {
        let is_same = !told.has_scheme || is_tls == told.is_tls;
        expect_eq(proxy.status(5, origin), if is_same { 101 } else { 403 }, origin);
    }
    expect_eq(proxy.status(6, "Origin: https://evil.example"), 403, "another origin");
}

fn expect_disbelieved(told: Told, start: &impl Fn(&Daemon) -> Proxy) {
    let text = gateway("clients-per-address = 2;", &format!("{STRANGERS} {}", told.keys));
    let daemon = Daemon::start_configured(&text);
    let server = daemon.listen("who");
    let proxy = start(&daemon);
    if told.has_header {
        expect_eq(proxy.wire(2).take_rest(), Vec::new(), "what is sent to a stranger");
        daemon.log().wait_for(&["closed a connection of 127.0.0.1:", "no PROXY header of it is trusted"]);
        assert!(server.is_idle());
        return;
    }
    let pairs = [2, 3].map(|last| proxy.join(&server, last));
    for (_, hello, _) in &pairs {
        expect_eq(hello.client.map(|client| client.ip()), Some(IpAddr::from(Ipv4Addr::LOCALHOST)), "the address");
    }
    expect_eq(proxy.status(4, ""), 503, "the proxy has two places");
    daemon.log().wait_for(&["warn", "client=127.0.0.1:", "503"]);
    drop(pairs);
    for scheme in ["http", "https"] {
        let origin = format!("Origin: {scheme}://gate.example");
        eventually("a client of either scheme is let in", || proxy.status(5, &origin) == 101);
    }
    daemon.log().wait_for(&["end client=127.0.0.1:", "status=101"]);
    assert!(!daemon.log().text().contains("client=127.0.0.2"), "{}", daemon.log().text());
}

/// The lines of nginx that pass a request on to a gateway.
const NGINX: &str = "
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;";

#[test]
#[ignore = "needs nginx"]
fn nginx() {
    expect_told(FIELDS, |folder, gate| {
        programs::nginx(folder, |port| {
            format!(
                "server {{ listen 127.0.0.1:{port}; {NGINX} location / {{ proxy_pass http://127.0.0.1:{gate}; }} }}"
            )
        })
    });
}

#[test]
#[ignore = "needs nginx"]
fn nginx_with_tls() {
    expect_told(Told { is_tls: true, ..FIELDS }, |folder, gate| {
        let [certificate, key] = ["server-chain.crt", "server.key"].map(|name| authority::path(folder, name));
        programs::nginx(folder, |port| {
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
                 {NGINX} location / {{ proxy_pass http://127.0.0.1:{gate}; }} }}"
            )
        })
    });
}

/// Version 1 of the PROXY protocol.
#[test]
#[ignore = "needs nginx"]
fn nginx_stream() {
    expect_told(HEADERS, |folder, gate| {
        programs::nginx_stream(folder, |port| {
            format!("server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{gate}; proxy_protocol on; }}")
        })
    });
}

/// `proxy` names a way to the gateway, which is before this port.
fn apache_told(modules: &[&str], proxy: &str) {
    expect_told(FIELDS, |folder, gate| {
        programs::apache(folder, &[modules, &["headers"]].concat(), |port| {
            format!(
                "<VirtualHost 127.0.0.1:{port}>\nProxyPreserveHost On\nRequestHeader set X-Forwarded-Proto http\n\
                 {}\n</VirtualHost>\n",
                proxy.replace("GATE", &format!("127.0.0.1:{gate}"))
            )
        })
    });
}

#[test]
#[ignore = "needs apache2"]
fn apache() {
    apache_told(&[], "ProxyPass \"/\" \"http://GATE/\" upgrade=websocket");
}

#[test]
#[ignore = "needs apache2"]
fn apache_wstunnel() {
    apache_told(&["proxy_wstunnel"], "ProxyPass \"/\" \"ws://GATE/\"");
}

/// haproxy in this mode, whose bind, frontend and server have these words more. It checks the gateway.
fn haproxy_told(told: Told, mode: &str, bind: &str, frontend: &str, server: &str) {
    expect_told(told, |folder, gate| {
        let bind = bind.replace("TLS", &authority::path(folder, "gate.pem"));
        programs::haproxy(folder, |port| {
            format!(
                "{}frontend web\n    bind 127.0.0.1:{port} {bind}\n    {frontend}\n    default_backend gate\n\
                 backend gate\n    server gate 127.0.0.1:{gate} {server}\n",
                programs::haproxy_defaults(mode)
            )
        })
    });
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy() {
    let frontend = "option forwardfor\n    http-request set-header X-Forwarded-Proto http";
    haproxy_told(FIELDS, "http", "", frontend, "");
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_with_tls() {
    let frontend = "option forwardfor\n    http-request set-header X-Forwarded-Proto https";
    haproxy_told(Told { is_tls: true, ..FIELDS }, "http", "ssl crt TLS", frontend, "");
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_send_proxy() {
    haproxy_told(HEADERS, "tcp", "", "", "send-proxy");
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_send_proxy_v2() {
    haproxy_told(HEADERS, "tcp", "", "", "send-proxy-v2");
    let secret = Told { is_tls: true, has_scheme: true, ..HEADERS };
    haproxy_told(secret, "tcp", "ssl crt TLS", "", "send-proxy-v2-ssl");
}

const CHECKS: &str = "
backend v1
    option httpchk
    server gate GATE send-proxy check inter 100ms rise 1 fall 1
backend v2
    option httpchk
    server gate GATE send-proxy-v2 check inter 100ms rise 1 fall 1
backend checksum
    option httpchk
    server gate GATE send-proxy-v2 proxy-v2-options crc32c check inter 100ms rise 1 fall 1
backend port
    option httpchk
    server gate GATE send-proxy-v2 check port PORT check-send-proxy inter 100ms rise 1 fall 1
backend tcp
    server gate GATE send-proxy-v2 check inter 100ms rise 1 fall 1
";

/// Checks have headers of the proxy's own (LOCAL, UNKNOWN), and are not limited.
#[test]
#[ignore = "needs haproxy"]
fn haproxy_checks() {
    let text = gateway("clients-per-address = 1;", &format!("{TRUSTED} {}", HEADERS.keys));
    let daemon = Daemon::start_configured(&format!("log-level = \"debug\"; {text}"));
    let (_haproxy, socket) = checked_by_haproxy(&daemon, CHECKS);
    for (backend, check) in
        [("v1", "L7OK,204"), ("v2", "L7OK,204"), ("checksum", "L7OK,204"), ("port", "L7OK,204"), ("tcp", "L4OK,")]
    {
        eventually(&format!("{backend} is up by {check}"), || is_up(&socket, backend, check));
    }
    daemon.log().wait_for(&["debug", "end client=127.0.0.1:", "status=204", "probed with OPTIONS"]);
    daemon.log().wait_for(&["debug", "end client=127.0.0.1:", "the client left without a byte"]);
    let text = daemon.log().text();
    assert!(!text.contains("status=503") && !text.contains("PROXY header:"), "{text}");
}

/// It sends version 1 before what was in TLS, and tells nothing of TLS.
#[test]
#[ignore = "needs stunnel"]
fn stunnel() {
    expect_told(Told { is_tls: true, ..HEADERS }, |folder, gate| {
        let pem = authority::path(folder, "gate.pem");
        programs::stunnel(folder, |port| {
            format!("[web]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{gate}\ncert = {pem}\nprotocol = proxy\n")
        })
    });
}
