//! A cluster of two nodes behind nginx, Apache and uakari, each configured as its operators do, and the same requests
//! through all three. The table says where they differ; docs/cluster.md says why.

use std::any::Any;
use std::cell::Cell;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::ClientConfig;

use super::exchange::{Reply, Upload, exchange, head, reply, sum_of};
use super::nodes::{self, Node};
use crate::client::Client;
use crate::daemon::{Daemon, patient, project, shown_in};
use crate::limits::stream_from;
use crate::process::{Folder, Process, eventually, expect_eq, free_port};
use crate::proxies::programs;
use crate::tls::{authority, shake, trusting};
use crate::wire::{Response, Wire, handshake};

/// A proxy before both nodes.
struct Cluster {
    /// Runs until this is dropped.
    _proxy: Box<dyn Any>,
    nodes: [Node; 2],
    port: u16,
    /// Port 80 of the configuration.
    plain_port: u16,
    tls: Arc<ClientConfig>,
    column: Column,
}

/// Which proxy it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Nginx,
    Apache,
    Uakari,
}

/// How the nodes of requests without a session are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Balance {
    /// By the address in nginx. Apache has no such way: by requests.
    Default,
    /// The node with the fewest requests.
    Busyness,
}

/// A configuration with other texts, each of which must occur.
fn configured(name: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(project().join("tests/upstreams").join(name)).unwrap();
    for (from, to) in pairs {
        assert!(text.contains(from), "no {from:?} in {name}");
        text = text.replace(from, to);
    }
    text
}

impl Cluster {
    fn start(column: Column, folder: &Folder, balance: Balance) -> Cluster {
        let nodes = ["nodeID1", "nodeID2"].map(nodes::python_on_tcp);
        authority::issue(folder);
        let [certificate, key] = ["server-chain.crt", "server.key"].map(|name| authority::path(folder, name));
        let [one, two] = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
        let plain_port = Cell::new(0);
        let common = [
            ("10.0.0.1:8080", &*one),
            ("10.0.0.2:8080", &two),
            ("/etc/ssl/server.crt", &certificate),
            ("/etc/ssl/server.key", &key),
        ];
        let (proxy, port): (Box<dyn Any>, u16) = match column {
            Column::Nginx => boxed(programs::nginx(folder, |port| {
                plain_port.set(free_port("127.0.0.1"));
                let ports = [plain_port.get(), port].map(|port| format!("listen 127.0.0.1:{port}"));
                let own = [("listen 80", &*ports[0]), ("listen 443", &ports[1])];
                let ways = [("ip_hash;", if balance == Balance::Busyness { "least_conn;" } else { "ip_hash;" })];
                configured("nginx.conf", &[&common[..], &own, &ways].concat())
            })),
            Column::Apache => {
                let modules = [
                    "alias",
                    "headers",
                    "lbmethod_bybusyness",
                    "lbmethod_byrequests",
                    "proxy_balancer",
                    "proxy_wstunnel",
                    "slotmem_shm",
                    "socache_shmcb",
                    "ssl",
                ];
                boxed(programs::apache(folder, &modules, |port| {
                    plain_port.set(free_port("127.0.0.1"));
                    let [plain, secure] = [plain_port.get(), port].map(|port| format!("127.0.0.1:{port}"));
                    let listen = format!("Listen {plain}\nDefaultRuntimeDir {}", folder.join(""));
                    let hosts = [("*:80", &*plain), ("*:443", &secure), ("Listen 80", &listen)];
                    let way = if balance == Balance::Busyness { "lbmethod=bybusyness" } else { "lbmethod=byrequests" };
                    configured("apache.conf", &[&common[..], &hosts, &[("lbmethod=byrequests", way)]].concat())
                }))
            }
            Column::Uakari => {
                // The redirection has the port of the file.
                let port = free_port("127.0.0.1");
                let way = if balance == Balance::Busyness { "\"least-busy\"" } else { "\"ip-hash\"" };
                let own = [
                    ("port = 80;", "listen = \"127.0.0.1:0\";"),
                    ("port = 443;", &format!("listen = \"127.0.0.1:{port}\";")),
                    ("user = \"www-data\";", &format!("limits = {{ {} }};", patient(""))),
                    ("\"ip-hash\"", way),
                ];
                let daemon = Daemon::start_configured(&configured("uakari.conf", &[&common[..], &own].concat()));
                plain_port.set(daemon.port);
                (Box::new(daemon), port)
            }
        };
        let tls = trusting(authority::path(folder, "root.crt"));
        Cluster { _proxy: proxy, nodes, port, plain_port: plain_port.get(), tls, column }
    }

    /// A connection from an address of its own network: nginx hashes the first three bytes.
    fn wire(&self, network: u8) -> Wire {
        let stream = stream_from(Ipv4Addr::new(127, 0, network, 1), self.port, None);
        Wire::over_tls(shake(stream, &self.tls, "127.0.0.1").unwrap())
    }

    fn get(&self, target: &str, fields: &[&str]) -> Reply {
        exchange(&mut self.wire(7), "GET", target, fields, Upload::None)
    }
}

fn boxed((process, port): (Process, u16)) -> (Box<dyn Any>, u16) {
    (Box::new(process), port)
}

/// The node of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// This one.
    Node(&'static str),
    /// One that the balance chooses.
    Any,
    /// It is the proxy's own.
    Proxy,
}

/// What one request has to have.
#[derive(Clone, Copy, Debug)]
struct Expected {
    status: u16,
    from: From,
    /// The target that the node saw; "" for the client's.
    target: &'static str,
}

const fn seen(status: u16, from: From, target: &'static str) -> Expected {
    Expected { status, from, target }
}

const ONE: Expected = seen(200, From::Node("nodeID1"), "");
const TWO: Expected = seen(200, From::Node("nodeID2"), "");
const ANY: Expected = seen(200, From::Any, "");
const BAD: Expected = seen(400, From::Proxy, "");

const fn socket(from: From, target: &'static str) -> Expected {
    seen(101, from, target)
}

/// Sessions: target, cookie, nginx, Apache, uakari. nginx looks for each name in the path, then in cookies, and the route
/// follows the last dot. Apache splits the names at the first "|": cookies have the first name, and the rest is the name of
/// one parameter of the path. Its route follows the first dot. uakari looks for each name in cookies, query and path, and
/// the route follows the last dot.
const SESSIONS: &[(&str, &str, [Expected; 3])] = &[
    ("/rpc", "", [ANY, ANY, ANY]),
    ("/rpc", "rpcid=1.nodeID1", [ONE, ONE, ONE]),
    ("/rpc?a=b", "rpcid=1.nodeID2", [TWO, TWO, TWO]),
    ("/rpc", "a=b; rpcid=1.nodeID2; c=d", [TWO, TWO, TWO]),
    ("/rpc", "JSESSIONID=1.nodeID2", [TWO, ANY, TWO]),
    ("/rpc", "jsessionid=1.nodeID1", [ONE, ANY, ONE]),
    ("/rpc;rpcid=1.nodeID1", "", [ONE, ANY, ONE]),
    ("/rpc;JSESSIONID=1.nodeID2", "", [TWO, ANY, TWO]),
    ("/rpc;jsessionid=1.nodeID1?a=b", "", [ONE, ANY, ONE]),
    ("/rpc;JSESSIONID|jsessionid=1.nodeID2", "", [ANY, TWO, ANY]),
    ("/rpc;jsessionid=1.nodeID1", "rpcid=1.nodeID2", [ONE, TWO, TWO]),
    ("/rpc?rpcid=1.nodeID1", "", [ANY, ANY, ONE]),
    ("/rpc?a=b&jsessionid=1.nodeID2", "", [ANY, ANY, TWO]),
    ("/rpc", "rpcid=1.2.nodeID1", [ONE, ANY, ONE]),
    ("/rpc", "rpcid=1.nodeID3", [ANY, ANY, ANY]),
    ("/rpc", "rpcid=nodeID1", [ANY, ANY, ANY]),
    ("/rpc", "xrpcid=1.nodeID1", [ANY, ANY, ANY]),
];

/// WebSockets: target, nginx, Apache, uakari. A location of nginx is a prefix; ProxyPass of Apache and a link with `path`
/// are whole segments.
const WEBSOCKETS: &[(&str, [Expected; 3])] = &[
    ("/websocket/nodeID1", [socket(From::Node("nodeID1"), "/websocket"); 3]),
    ("/websocket/nodeID2", [socket(From::Node("nodeID2"), "/websocket"); 3]),
    ("/websocket/nodeID2?a=b%20c", [socket(From::Node("nodeID2"), "/websocket?a=b%20c"); 3]),
    ("/websocket_client/nodeID1", [socket(From::Node("nodeID1"), "/websocket_client"); 3]),
    ("/websocket_client/nodeID2", [socket(From::Node("nodeID2"), "/websocket_client"); 3]),
    ("/websocket", [socket(From::Any, ""); 3]),
    ("/websocket_client", [socket(From::Any, ""); 3]),
    (
        "/websocket/nodeID10",
        [socket(From::Node("nodeID1"), "/websocket0"), socket(From::Any, ""), socket(From::Any, "")],
    ),
    ("/upgrade-refused", [seen(403, From::Any, ""); 3]),
];

/// Pages: method, target, nginx, Apache, uakari. All pass the target on as it was sent; uakari refuses targets that a node
/// could read in two ways.
const PAGES: &[(&str, &str, [Expected; 3])] = &[
    ("GET", "/", [ANY; 3]),
    ("GET", "/echo/a?x=%20&y=%2f", [ANY; 3]),
    ("GET", "/echo/a%2Fb", [ANY, ANY, BAD]),
    ("GET", "/echo/%41%7e", [ANY; 3]),
    ("GET", "/echo//two", [ANY, ANY, BAD]),
    ("GET", "/echo/./here", [ANY, ANY, BAD]),
    ("GET", "/echo/x/../y", [ANY, ANY, BAD]),
    ("GET", "/../x", [BAD; 3]),
    ("OPTIONS", "/echo", [ANY; 3]),
    ("DELETE", "/echo", [ANY; 3]),
    ("PUT", "/echo", [ANY; 3]),
    ("HEAD", "/bytes/100000", [ANY; 3]),
    ("GET", "/status/204", [seen(204, From::Any, ""); 3]),
    ("GET", "/status/304", [seen(304, From::Any, ""); 3]),
    ("GET", "/status/404", [seen(404, From::Any, ""); 3]),
    ("GET", "/status/500", [seen(500, From::Any, ""); 3]),
    ("GET", "/redirect?to=/there?a=b", [seen(302, From::Any, ""); 3]),
];

/// Requests that a row is sent: enough to see that the balance chooses.
const REPEATS: usize = 4;
/// As `REPEATS`, until each node has had one.
const REPEATS_MAX: usize = 100;

impl Cluster {
    /// Expects this of a request that is sent several times. `ask` returns the response.
    fn expect(&self, what: &str, target: &str, expected: Expected, mut ask: impl FnMut() -> Response) {
        let mut names = Vec::new();
        let goes_round = self.column == Column::Apache && expected.from == From::Any;
        for _ in 0..if goes_round { REPEATS_MAX } else { REPEATS } {
            // It evens out what sessions have sent to one node before.
            if goes_round && names.iter().any(|name| *name != names[0]) {
                break;
            }
            let response = ask();
            expect_eq(response.status, expected.status, (self.column, what, &response));
            names.push(response.field("X-Node").to_owned());
            let seen = response.field("X-Target");
            let wanted = if expected.target.is_empty() { target } else { expected.target };
            expect_eq(seen, if expected.from == From::Proxy { "" } else { wanted }, (self.column, what));
        }
        names.sort();
        names.dedup();
        match expected.from {
            From::Node(name) => expect_eq(names, vec![name.to_owned()], (self.column, what)),
            From::Proxy => expect_eq(names, vec![String::new()], (self.column, what)),
            // A client stays at a node of ip_hash, and goes round otherwise.
            From::Any => expect_eq(names.len(), if self.column == Column::Apache { 2 } else { 1 }, (self.column, what)),
        }
    }

    fn expect_pages(&self) {
        for &(method, target, expected) in PAGES {
            self.expect(target, target, expected[self.column as usize], || {
                exchange(&mut self.wire(7), method, target, &[], Upload::None).response
            });
        }
        for &(target, cookie, expected) in SESSIONS {
            let field = format!("Cookie: {cookie}");
            let fields = if cookie.is_empty() { &[][..] } else { &[&*field] };
            let what = format!("{target} {cookie}");
            self.expect(&what, target, expected[self.column as usize], || self.get(target, fields).response);
        }
        expect_eq(self.get("/redirect?to=/there", &[]).response.field("Location"), "/there", self.column);
    }

    fn expect_bodies(&self) {
        let size = 3_000_000;
        let mut wire = self.wire(7);
        for mode in ["length", "chunked", "chunked&trailers=1", "close"] {
            let got = exchange(&mut wire, "GET", &format!("/bytes/{size}?mode={mode}"), &[], Upload::None);
            expect_eq((got.size, &got.hash), (size, &sum_of(size).1), (self.column, mode));
        }
        for upload in [Upload::Sized(size), Upload::Chunked(size)] {
            let got = exchange(&mut wire, "POST", "/sink", &[], upload);
            let (size, hash) = sum_of(size);
            expect_eq(got.response.text(), format!("{size} {hash}\n"), (self.column, upload));
        }
        // Content-Length of 3 GiB, and not one byte of them: Apache waits for the first ones.
        if self.column == Column::Apache {
            return;
        }
        let mut wire = self.wire(7);
        wire.send(head("POST", "/sink", &["Expect: 100-continue"], Upload::Sized(3 << 30)));
        expect_eq(reply(&mut wire, "POST").status(), 413, self.column);
    }

    fn expect_websockets(&self) {
        for &(target, expected) in WEBSOCKETS {
            let expected = expected[self.column as usize];
            self.expect(target, target, expected, || self.converse(target, expected));
        }
    }

    /// Opens a WebSocket and talks, if the node lets it.
    fn converse(&self, target: &str, expected: Expected) -> Response {
        let mut wire = self.wire(7);
        if expected.status != 101 {
            wire.send(handshake(target, &[], &[]));
            let reply = reply(&mut wire, "GET");
            expect_eq(reply.response.text(), "no WebSocket here\n".to_owned(), target);
            return reply.response;
        }
        let response = wire.upgrade(target, &[]);
        if response.status != 101 {
            return response;
        }
        let name = response.field("X-Node");
        let mut client = Client::new(wire);
        client.text("hello");
        let is_named = response.field("X-Target").starts_with("/websocket_client");
        client.expect_text(&if is_named { format!("{name}: hello") } else { "hello".to_owned() });
        let large: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 7) as u8).collect();
        client.binary(&large);
        client.expect_binary(&large);
        client.close(4000);
        client.expect_close(4000);
        response
    }

    fn expect_redirect(&self) {
        let mut wire = Wire::connect(self.plain_port);
        let got = exchange(&mut wire, "GET", "/page?a=b", &[], Upload::None);
        let location = got.response.field("Location");
        // The redirection of uakari leads to the port of the other server of the file, here not 443.
        let host = if self.column == Column::Uakari {
            format!("www.example.org:{}", self.port)
        } else {
            "www.example.org".to_owned()
        };
        expect_eq((got.status(), location), (301, &*format!("https://{host}/page?a=b")), self.column);
    }

    /// The fields that nodes get. Host is the client's, as configured.
    fn expect_fields(&self) {
        let got = self.get("/echo", &["X-Forwarded-For: 192.0.2.1", "Connection: X-Hop", "X-Hop: 1", "TE: trailers"]);
        let told = |name: &str| got.field_told(name).join(", ");
        expect_eq(told("Host"), "www.example.org".to_owned(), &got);
        // Only uakari drops what a client that is no trusted proxy says.
        let is_uakari = self.column == Column::Uakari;
        let client = if is_uakari { "127.0.7.1" } else { "192.0.2.1, 127.0.7.1" };
        expect_eq(told("X-Forwarded-For"), client.to_owned(), &got);
        expect_eq(told("X-Forwarded-Proto"), "https".to_owned(), &got);
        let is_nginx = self.column == Column::Nginx;
        expect_eq(told("X-Forwarded-Host"), if is_nginx { "" } else { "www.example.org" }.to_owned(), &got);
        expect_eq(told("X-Forwarded-Server").is_empty(), self.column != Column::Apache, &got);
        // nginx passes a field on that Connection names.
        expect_eq(told("X-Hop"), if is_nginx { "1" } else { "" }.to_owned(), &got);
    }
}

fn expect_cluster(column: Column) {
    let folder = Folder::new();
    let cluster = Cluster::start(column, &folder, Balance::Default);
    cluster.expect_redirect();
    cluster.expect_fields();
    cluster.expect_pages();
    cluster.expect_bodies();
    cluster.expect_websockets();
}

#[test]
#[ignore = "needs nginx and python3"]
fn nginx() {
    expect_cluster(Column::Nginx);
}

#[test]
#[ignore = "needs apache2 and python3"]
fn apache() {
    expect_cluster(Column::Apache);
}

#[test]
#[ignore = "needs python3"]
fn uakari() {
    expect_cluster(Column::Uakari);
}

/// While one node has a request that does not end, the other one gets the others.
fn expect_by_busyness(column: Column) {
    let folder = Folder::new();
    let cluster = Cluster::start(column, &folder, Balance::Busyness);
    // A session names the node in Apache, so that several can wait at one.
    let (held, fields) = match column {
        Column::Nginx | Column::Uakari => (1, &[][..]),
        Column::Apache => (3, &["Cookie: rpcid=1.nodeID1"][..]),
    };
    let mut slow: Vec<Wire> = (0..held).map(|_| cluster.wire(7)).collect();
    slow.iter_mut().for_each(|wire| wire.send(head("GET", "/slow?gate=open", fields, Upload::None)));
    let has_it = |node: &Node| {
        let got = exchange(&mut Wire::connect(node.port), "GET", "/counts", &[], Upload::None);
        got.response.text().contains(&format!("waiting: {held}\n"))
    };
    let mut busy = None;
    eventually("a node has the request", || {
        busy = cluster.nodes.iter().position(has_it);
        busy.is_some()
    });
    let other = ["nodeID2", "nodeID1"][busy.unwrap()];
    let mut wire = cluster.wire(7);
    let mut ask = || exchange(&mut wire, "GET", "/", &[], Upload::None).response.field("X-Node").to_owned();
    let names: Vec<_> = (0..12).map(|_| ask()).collect();
    assert!(names.iter().filter(|name| *name == other).count() > 8, "{column:?}: {names:?}, not {other}");
    for node in &cluster.nodes {
        exchange(&mut Wire::connect(node.port), "POST", "/open?gate=open", &[], Upload::None);
    }
    for mut wire in slow {
        expect_eq(reply(&mut wire, "GET").response.text(), "opened\n".to_owned(), column);
    }
}

#[test]
#[ignore = "needs nginx and python3"]
fn nginx_by_busyness() {
    expect_by_busyness(Column::Nginx);
}

#[test]
#[ignore = "needs python3"]
fn uakari_by_busyness() {
    expect_by_busyness(Column::Uakari);
}

/// docs/cluster.md shows the configurations that are tested.
#[test]
fn documented_configurations_are_these() {
    for (language, name) in [("nginx", "nginx.conf"), ("apache", "apache.conf"), ("libconfig", "uakari.conf")] {
        let text = fs::read_to_string(project().join("tests/upstreams").join(name)).unwrap();
        expect_eq(shown_in("docs/cluster.md", language, ""), text, name);
    }
}
