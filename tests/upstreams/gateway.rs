//! uakari before nodes in Python, Node.js and Java, before and behind other proxies, and before nodes that end, stand still
//! and come back under load.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use super::exchange::{Sum, Upload, exchange, head, reply, sum_of};
use super::nodes::{self, Node};
use crate::client::Client;
use crate::daemon::{Daemon, patient};
use crate::limits::stream_from;
use crate::process::{Folder, eventually, expect_eq, measured};
use crate::proxies::programs;
use crate::tls::authority;
use crate::wire::Wire;

const SIZE: u64 = 1_000_000;

/// Bodies by their hashes, and WebSockets, relayed and passed on.
fn expect_behind_uakari(name: &str, http: &str, websocket: &str, reads_trailers: bool) {
    let daemon = Daemon::start_configured(&format!(
        "limits = {{ {} }}; servers = ({{ listen = \"127.0.0.1:0\";
             document = {{ links = ({{ origin = \"^/\"; type = \"http\"; destination = \"{http}\"; }}); }};
             websocket = {{ links = (
                 {{ origin = \"^/pass\"; type = \"ws\"; destination = \"{websocket}\"; path = \"/\"; upgrade = \"pass\"; }},
                 {{ origin = \"^/\"; type = \"ws\"; destination = \"{websocket}\"; }}); }};
         }});",
        patient("")
    ));
    let mut wire = daemon.wire();
    let uploads = [Upload::None, Upload::Sized(SIZE), Upload::Chunked(SIZE)];
    for upload in uploads.into_iter().take(if reads_trailers { 3 } else { 2 }) {
        let method = if upload == Upload::None { "GET" } else { "POST" };
        let got = exchange(&mut wire, method, "/echo/a;b?x=%20", &[], upload);
        expect_eq((got.status(), got.response.field("X-Node")), (200, name), &got);
        expect_eq((&*got.told("method"), &*got.told("target")), (method, "/echo/a;b?x=%20"), &got);
        let (size, hash) = sum_of(if upload == Upload::None { 0 } else { SIZE });
        expect_eq((got.told("size"), got.told("sha256")), (size.to_string(), hash), &got);
    }
    for target in ["/bytes/1000000", "/bytes/1000000?mode=chunked", "/bytes/1000000?mode=chunked&trailers=1"] {
        let got = exchange(&mut wire, "GET", target, &[], Upload::None);
        expect_eq((got.size, &got.hash), (SIZE, &sum_of(SIZE).1), (name, target));
    }
    let got = exchange(&mut wire, "HEAD", "/bytes/1000000", &[], Upload::None);
    expect_eq((got.response.field("Content-Length"), got.size), ("1000000", 0), &got);
    expect_eq(exchange(&mut wire, "GET", "/status/404", &[], Upload::None).status(), 404, name);

    for path in ["/websocket", "/pass/websocket"] {
        expect_websocket(daemon.wire(), path);
    }
}

fn expect_websocket(mut wire: Wire, path: &str) {
    let response = wire.upgrade(path, &["Sec-WebSocket-Protocol: one, two"]);
    expect_eq((response.status, response.field("Sec-WebSocket-Protocol")), (101, "two"), &response);
    let mut client = Client::new(wire);
    client.text("hello");
    client.expect_text("hello");
    client.binary(&vec![7; 1 << 20]);
    client.expect_binary(&vec![7; 1 << 20]);
    client.finish(1000);
}

/// Bodies in both directions.
fn expect_bodies(port: u16) {
    let mut wire = Wire::connect(port);
    let (size, hash) = sum_of(SIZE);
    for mode in ["length", "chunked"] {
        let got = exchange(&mut wire, "GET", &format!("/bytes/{SIZE}?mode={mode}"), &[], Upload::None);
        expect_eq((got.status(), got.size, &got.hash), (200, size, &hash), mode);
    }
    for upload in [Upload::Sized(SIZE), Upload::Chunked(SIZE)] {
        let got = exchange(&mut wire, "POST", "/sink", &[], upload);
        expect_eq(got.response.text(), format!("{size} {hash}\n"), upload);
    }
}

/// https and wss to this port of this machine, with these keys of `tls`.
fn start_with_tls(port: u16, keys: &str) -> Daemon {
    let link = |kind: &str| {
        format!(
            "{{ links = ({{ origin = \"^/\"; type = \"{kind}\"; destination = \"127.0.0.1:{port}\"; \
             tls = {{ {keys} }}; }}); }}"
        )
    };
    Daemon::start_configured(&format!(
        "limits = {{ {} }}; servers = ({{ listen = \"127.0.0.1:0\"; document = {}; websocket = {}; }});",
        patient(""),
        link("https"),
        link("wss"),
    ))
}

/// nginx demands a certificate. Wrong names and authorities are a 502, and the log says why.
#[test]
#[ignore = "needs nginx and python3"]
fn tls_to_nginx() {
    let folder = Folder::new();
    authority::issue(&folder);
    let path = |name: &str| authority::path(&folder, name);
    let node = nodes::python_on_tcp("nodeID1");
    let (_nginx, port) = programs::nginx(&folder, |port| {
        format!(
            "map $http_upgrade $connection_upgrade {{ default upgrade; \"\" \"\"; }}
             server {{ listen 127.0.0.1:{port} ssl; client_max_body_size 0;
                 ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on;
                 location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
                     proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }} }}",
            path("server-chain.crt"),
            path("server.key"),
            path("members.crt"),
            node.port
        )
    });
    let root = format!("cafile = \"{}\";", path("root.crt"));
    let identity = format!("crtfile = \"{}\"; keyfile = \"{}\";", path("client.crt"), path("client.key"));
    let good = start_with_tls(port, &format!("{root} {identity}"));
    expect_bodies(good.port);
    expect_websocket(good.wire(), "/websocket");
    for (keys, status, sentence) in [
        // What nginx says.
        (root.clone(), 400, ""),
        (
            format!("{root} {identity} servername = \"other.example\";"),
            502,
            "the node's certificate is not valid for the name of the node",
        ),
        (
            format!("cafile = \"{}\"; {identity}", path("foreign.crt")),
            502,
            "the node's certificate is signed by an unknown authority",
        ),
    ] {
        let daemon = start_with_tls(port, &keys);
        let got = exchange(&mut daemon.wire(), "GET", "/", &[], Upload::None);
        expect_eq(got.status(), status, &keys);
        daemon.log().wait_for(&[sentence]);
    }
}

#[test]
#[ignore = "needs stunnel and python3"]
fn tls_to_stunnel() {
    let folder = Folder::new();
    authority::issue(&folder);
    let node = nodes::python_on_tcp("nodeID1");
    let [certificate, key, root] =
        ["server-chain.crt", "server.key", "root.crt"].map(|name| authority::path(&folder, name));
    let (_stunnel, port) = programs::stunnel(&folder, |port| {
        let (accept, connect) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", node.port));
        format!("[node]\naccept = {accept}\nconnect = {connect}\ncert = {certificate}\nkey = {key}\n")
    });
    let daemon = start_with_tls(port, &format!("cafile = \"{root}\";"));
    expect_bodies(daemon.port);
    expect_websocket(daemon.wire(), "/websocket");
}

/// haproxy, then uakari, then a node; and Apache before uakari.
#[test]
#[ignore = "needs haproxy, apache2 and python3"]
fn behind_other_proxies() {
    let nodes = ["nodeID1", "nodeID2"].map(nodes::python_on_tcp);
    let daemon = before(&nodes, "round-robin");
    let folders = [Folder::new(), Folder::new()];
    let (_haproxy, port) = programs::haproxy(&folders[0], |port| {
        format!(
            "{}frontend web\n    bind 127.0.0.1:{port}\n    default_backend gateway\n\
             backend gateway\n    server uakari 127.0.0.1:{}\n",
            programs::haproxy_defaults("http"),
            daemon.port
        )
    });
    expect_bodies(port);
    expect_websocket(Wire::connect(port), "/one/websocket");
    let (_apache, port) =
        programs::apache(&folders[1], &[], |_| format!("ProxyPass \"/\" \"http://127.0.0.1:{}/\"\n", daemon.port));
    expect_bodies(port);
}

fn expect_node(node: &Node, name: &str) {
    let [http, websocket] = [node.port, node.websocket_port].map(|port| format!("127.0.0.1:{port}"));
    // The server of the JDK cannot read trailers.
    expect_behind_uakari(name, &http, &websocket, http == websocket);
}

#[test]
#[ignore = "needs python3"]
fn python() {
    expect_node(&nodes::python_on_tcp("nodeID1"), "nodeID1");
}

#[test]
#[ignore = "needs node"]
fn node_js() {
    expect_node(&nodes::node_js_on_tcp("nodeID1"), "nodeID1");
}

#[test]
#[ignore = "needs java"]
fn java() {
    expect_node(&nodes::java("nodeID1"), "nodeID1");
}

#[test]
#[ignore = "needs python3 and node"]
fn unix_sockets() {
    let folder = Folder::new();
    for (name, start) in [("python", nodes::python as fn(&str, &str) -> _), ("node", nodes::node_js)] {
        let address = format!("unix:{}", folder.join(name));
        let _process = start(name, &address);
        expect_behind_uakari(name, &address, &address, true);
    }
}

/// A gateway before these nodes.
fn before(nodes: &[Node; 2], balance: &str) -> Daemon {
    let [one, two] = nodes.each_ref().map(|node| node.port);
    Daemon::start_configured(&format!(
        "limits = {{ {} }};
         upstreams = ({{ name = \"cluster\"; balance = \"{balance}\"; servers = (
             {{ address = \"127.0.0.1:{one}\"; route = \"nodeID1\"; fail-ms = 100; }},
             {{ address = \"127.0.0.1:{two}\"; route = \"nodeID2\"; fail-ms = 100; }}); }});
         servers = ({{ listen = \"127.0.0.1:0\";
             document = {{ links = ({{ origin = \"^/\"; type = \"http\"; destination = \"cluster\"; }}); }};
             websocket = {{ links = (
                 {{ origin = \"^/one\"; type = \"ws\"; destination = \"cluster\"; route = \"nodeID1\"; path = \"/\"; }}); }};
         }});",
        patient("")
    ))
}

/// What clients have seen.
#[derive(Default, Debug)]
struct Counts {
    whole: usize,
    /// Bodies that ended before their length.
    cut: usize,
    /// Replies with 502 or 504.
    errors: usize,
}

/// Ends the load, also if the test fails.
struct LoadEnd<'a>(&'a AtomicBool);

impl Drop for LoadEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Requests, each on a connection of its own, until this is set.
fn load(port: u16, is_over: &AtomicBool) -> Counts {
    let (size, hash) = sum_of(100_000);
    let mut counts = Counts::default();
    while !is_over.load(Ordering::Relaxed) {
        let mut wire = Wire::connect(port);
        wire.send(head("GET", "/bytes/100000", &["Connection: close"], Upload::None));
        let bytes = wire.take_rest();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
        let status = head.split(' ').nth(1).unwrap_or_default();
        if ["502", "504"].contains(&status) {
            counts.errors += 1;
            continue;
        }
        expect_eq(status, "200", &head);
        if (body.len() as u64) < size {
            counts.cut += 1;
            continue;
        }
        let mut sum = Sum::new();
        sum.add(body);
        expect_eq(sum.end(), (size, hash.clone()), &head);
        counts.whole += 1;
    }
    counts
}

/// One node is killed, comes back, stands still and goes on, again and again. Bodies are right or cut, and a WebSocket of the
/// other node is not torn.
#[test]
#[ignore = "needs python3"]
fn a_flapping_node_under_load() {
    let mut nodes = ["nodeID1", "nodeID2"].map(nodes::python_on_tcp);
    let daemon = before(&nodes, "round-robin");
    let mut client = daemon.connect("/one/websocket");
    let mut talk = |what: &str| {
        client.text(what);
        client.expect_text(what);
    };
    talk("before");
    let is_over = AtomicBool::new(false);
    let all: Vec<Counts> = thread::scope(|scope| {
        let end = LoadEnd(&is_over);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| load(daemon.port, &is_over))).collect();
        for _ in 0..3 {
            nodes[1].process.signal(Signal::SIGSTOP);
            talk("the other node stands still");
            nodes[1].process.signal(Signal::SIGCONT);
            talk("it goes on");
            nodes[1].process.signal(Signal::SIGSTOP);
            nodes[1].process.signal(Signal::SIGKILL);
            talk("it is killed");
            let address = format!("127.0.0.1:{}", nodes[1].port);
            nodes[1].process = nodes::python("nodeID2", &address);
            eventually("it is used again", || {
                let got = exchange(&mut daemon.wire(), "GET", "/", &[], Upload::None);
                got.status() == 200 && got.response.field("X-Node") == "nodeID2"
            });
            talk("it is back");
        }
        drop(end);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(all.iter().all(|counts| counts.whole > 0), "{all:?}");
    measured(&format!("requests while a node of two flaps: {all:?}"));
    client.finish(1000);
}

/// Requests in progress are divided evenly.
#[test]
#[ignore = "needs python3"]
fn the_distribution_of_least_busy() {
    let nodes = ["nodeID1", "nodeID2"].map(nodes::python_on_tcp);
    let daemon = before(&nodes, "least-busy");
    let mut slow: Vec<Wire> = (0..20).map(|_| daemon.wire()).collect();
    slow.iter_mut().for_each(|wire| wire.send(head("GET", "/slow?gate=open", &[], Upload::None)));
    let mut waiting = Vec::new();
    eventually("all wait", || {
        let count = |node: &Node| {
            let got = exchange(&mut Wire::connect(node.port), "GET", "/counts", &[], Upload::None);
            got.told("waiting").parse::<usize>().unwrap()
        };
        waiting = nodes.iter().map(count).collect();
        waiting.iter().sum::<usize>() == 20
    });
    measured(&format!("20 requests in progress by least-busy: {waiting:?}"));
    expect_eq(waiting, vec![10, 10], "least-busy");
    for node in &nodes {
        exchange(&mut Wire::connect(node.port), "POST", "/open?gate=open", &[], Upload::None);
    }
    slow.iter_mut().for_each(|wire| expect_eq(reply(wire, "GET").status(), 200, "opened"));
}

/// An address stays at a node, and addresses are divided.
#[test]
#[ignore = "needs python3"]
fn the_distribution_of_ip_hash() {
    let nodes = ["nodeID1", "nodeID2"].map(nodes::python_on_tcp);
    let daemon = before(&nodes, "ip-hash");
    let mut counts = [0; 2];
    for network in 1..=64 {
        let ask = || {
            let mut wire = Wire::new(stream_from(Ipv4Addr::new(127, 0, network, 1), daemon.port, None));
            exchange(&mut wire, "GET", "/", &[], Upload::None).response.field("X-Node").to_owned()
        };
        let name = ask();
        expect_eq(ask(), name.clone(), network);
        counts[usize::from(name == "nodeID2")] += 1;
    }
    measured(&format!("64 addresses by ip-hash: {counts:?}"));
    assert!(counts.iter().all(|count| *count > 8), "{counts:?}");
}
