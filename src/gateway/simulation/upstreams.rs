//! Requests and WebSockets that are passed on to nodes, which may fail at any time. Each reply is whole and belongs to its
//! request, or it is one of the gateway's, or it is cut where a node has failed. No node receives a request twice that
//! may not be repeated, nor a byte of another one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::client::{Client, Manner};
use super::codec::Codec;
use super::nodes::{Asked, Dechunker, NodeEnd, content, field, in_chunks, take_head};
use super::world::{Name, World, endpoint, lead, listening, listening_again, tcp};
use super::*;
use crate::driver::SocketType;
use crate::driver::sim::{Host, Node as File, Rng};
use crate::gateway::listener::ListenerSetup;
use crate::permit::Count;
use crate::route::names::Patterns;
use crate::route::{Destination, Link, Protocol, Service, Site};
use crate::transport::StageKind;
use crate::upstream::{Balance, ClientFields, Cluster, Node, NodePlace, TcpPlace, Upstream};

/// What happens in some run; each of these must happen in at least one of the first `SEEDS` runs.
const EVENTS: [&str; 11] =
    ["400", "408", "413", "502", "503", "504", "websocket", "reuse", "retry", "cut reply", "early reply"];
/// The manners of clients of WebSockets.
const WEBSOCKET_MANNERS: [Manner; 6] =
    [Manner::Polite, Manner::Hasty, Manner::Vanishes, Manner::Breaks, Manner::Stalls, Manner::Silent];

/// How a client that sends requests behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Conduct {
    /// It waits for all replies, and leaves.
    Polite,
    /// It ends its stream after its last request, and waits for all replies.
    Finishes,
    /// It leaves at a random point.
    Vanishes,
    /// It stops reading and writing at a random point.
    Stalls,
    /// It stops writing at a random point.
    Dawdles,
}

const CONDUCTS: [Conduct; 8] = [
    Conduct::Polite,
    Conduct::Polite,
    Conduct::Polite,
    Conduct::Polite,
    Conduct::Finishes,
    Conduct::Vanishes,
    Conduct::Stalls,
    Conduct::Dawdles,
];

/// When a part of a request is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// After what is before it: a body, or the rest of a head.
    Open,
    /// After this number of replies: a head.
    Replies(usize),
    /// After an interim reply to this request, or some turns.
    Continue(usize),
}

/// A reply that is being read.
struct Delivery {
    id: usize,
    /// The bytes of its body. None: it is the gateway's own.
    expected: Option<Vec<u8>>,
    body: Vec<u8>,
    length: BodyLength,
    closes: bool,
}

enum BodyLength {
    Bytes(usize),
    Chunks(Dechunker),
    UntilClose,
}

/// A client that sends requests, and its model of the replies.
struct Asker {
    wire: usize,
    conduct: Conduct,
    /// See `Scene::is_calm`.
    is_calm: bool,
    pieces: VecDeque<(Gate, Vec<u8>)>,
    /// Bytes to write before it acts as its conduct says.
    patience: usize,
    /// Turns that it still waits at a gate for an interim reply.
    gate_turns: usize,
    received: Vec<u8>,
    /// The ids of the requests without a reply, and whether they are of HTTP/1.1.
    awaited: VecDeque<(usize, bool)>,
    replies: usize,
    /// Interim replies to the first of them.
    interims: usize,
    delivery: Option<Delivery>,
    /// The last reply was to close the connection.
    was_closed: bool,
    /// The last reply was cut.
    was_cut: bool,
    is_over: bool,
}

impl Asker {
    fn new(scene: &Scene, sim: &mut Sim, asked: &mut Vec<Asked>) -> Asker {
        let capacity = 1 << (8 + sim.rng.below(10));
        let (host, own) = (1 + sim.rng.below(3), 1_000 + sim.wires.len());
        let wire = sim.client(scene.port, capacity, tcp(&format!("127.0.0.{host}:{own}")));
        let rng = &mut sim.rng;
        let mut asker = Asker {
            wire,
            conduct: CONDUCTS[rng.below(CONDUCTS.len())],
            is_calm: scene.is_calm,
            pieces: VecDeque::new(),
            patience: usize::MAX,
            gate_turns: 0,
            received: Vec::new(),
            awaited: VecDeque::new(),
            replies: 0,
            interims: 0,
            delivery: None,
            was_closed: false,
            was_cut: false,
            is_over: false,
        };
        let count = 1 + rng.below(6);
        let waits = rng.one_in(2);
        for number in 0..count {
            asker.ask(scene, waits, number + 1 == count, rng, asked);
        }
        let size: usize = asker.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        if matches!(asker.conduct, Conduct::Vanishes | Conduct::Stalls | Conduct::Dawdles) {
            asker.patience = rng.below(size + 1);
        }
        asker
    }

    /// Adds a request.
    fn ask(&mut self, scene: &Scene, waits: bool, is_last: bool, rng: &mut Rng, asked: &mut Vec<Asked>) {
        let id = asked.len();
        let method = ["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"][rng.below(8)];
        let http_1_1 = !rng.one_in(10);
        let may_have_body = matches!(method, "POST" | "PUT") || rng.one_in(20);
        let size = match rng.below(8) {
            _ if !may_have_body => 0,
            0 => 0,
            1 => rng.below(200_000),
            _ => rng.below(5_000),
        };
        let is_chunked = http_1_1 && may_have_body && rng.one_in(2);
        let is_broken = is_chunked && size > 0 && rng.one_in(12);
        let may_complete = !is_broken && size as u64 <= scene.body_size_max;
        let link = ["p", "p", "one", "unix"][rng.below(4)];
        let mut head = format!("{method} /{link}/{id} HTTP/1.{}\r\nHost: h\r\n", u8::from(http_1_1));
        let mut fields = vec!["Connection: X-Hop\r\nX-Hop: 1\r\n".to_owned(), "X-Other: 1\r\n".to_owned()];
        let expects = http_1_1 && size > 0 && rng.one_in(3);
        if expects {
            fields.push("Expect: 100-continue\r\n".to_owned());
        }
        if is_chunked {
            fields.push("Transfer-Encoding: chunked\r\n".to_owned());
        } else if size > 0 || may_have_body {
            fields.push(format!("Content-Length: {size}\r\n"));
        }
        match http_1_1 {
            true if is_last && rng.one_in(2) => fields.push("Connection: close\r\n".to_owned()),
            false if !is_last || rng.one_in(2) => fields.push("Connection: keep-alive\r\n".to_owned()),
            _ => {}
        }
        while !fields.is_empty() {
            head.push_str(&fields.swap_remove(rng.below(fields.len())));
        }
        head.push_str("\r\n");
        let body = content(id as u64, size);
        let mut bytes = match is_chunked {
            true => {
                let trailer = if rng.one_in(3) { format!("X-Trailer: {id}\r\n") } else { String::new() };
                in_chunks(rng, &body, &trailer)
            }
            false => body,
        };
        if is_broken {
            // The sizes of chunks are the first bytes.
            bytes = [format!("{size:x};x=").into_bytes(), b"\0\r\n".to_vec(), bytes].concat();
        }
        let gate = Gate::Replies(if waits { self.awaited.len() } else { 0 });
        self.pieces.push_back((gate, head.into_bytes()));
        if !bytes.is_empty() {
            self.pieces.push_back((if expects { Gate::Continue(id) } else { Gate::Open }, bytes));
        }
        self.awaited.push_back((id, http_1_1));
        let is_repeatable = size == 0 && !is_chunked && method != "POST";
        asked.push(Asked { method, size, may_complete, is_repeatable, arrivals: Vec::new(), was_cut: false });
    }

    /// Reads and writes some data, or nothing.
    fn act(&mut self, sim: &mut Sim, asked: &[Asked], events: &mut Vec<&'static str>) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        if self.patience == 0 && self.conduct != Conduct::Dawdles {
            if self.conduct == Conduct::Vanishes {
                match sim.rng.one_in(2) {
                    true => sim.wires[self.wire].reset(),
                    false => sim.wires[self.wire].leave(),
                }
                self.is_over = true;
            }
            return;
        }
        self.write(sim);
        while let Some(chunk) = sim.wires[self.wire].read() {
            self.received.extend(chunk);
            if sim.rng.one_in(2) {
                break;
            }
        }
        while self.take(asked, events) {}
        let has_all = self.pieces.is_empty() && self.awaited.is_empty();
        let stops_between = self.patience == 0 && matches!(self.pieces.front(), None | Some((Gate::Replies(_), _)));
        let wire = &mut sim.wires[self.wire];
        if has_all || self.conduct == Conduct::Finishes && self.pieces.is_empty() || stops_between {
            wire.finish();
        }
        if wire.is_at_end() {
            wire.finish();
            self.end(asked, events);
        }
    }

    fn write(&mut self, sim: &mut Sim) {
        let most = 1 + sim.rng.below(100_000);
        let Some((gate, bytes)) = self.pieces.front_mut() else { return };
        let is_open = match gate {
            Gate::Open => true,
            Gate::Replies(count) => self.replies >= *count,
            Gate::Continue(id) => {
                let is_asked = self.awaited.front().is_some_and(|(awaited, _)| awaited == id);
                self.gate_turns += usize::from(is_asked);
                is_asked && (self.interims > 0 || self.gate_turns > 60)
            }
        };
        if !is_open || self.was_closed {
            return;
        }
        *gate = Gate::Open;
        let most = most.min(bytes.len()).min(self.patience);
        if most > 0
            && let Some(size) = sim.wires[self.wire].write(&bytes[..most])
        {
            bytes.drain(..size);
            self.patience -= size;
            if bytes.is_empty() {
                self.pieces.pop_front();
                self.gate_turns = 0;
            }
        }
    }

    /// Handles a part of what was received. False: more is needed.
    fn take(&mut self, asked: &[Asked], events: &mut Vec<&'static str>) -> bool {
        let Some(delivery) = &mut self.delivery else { return self.begin(asked, events) };
        let before = delivery.body.len();
        let is_whole = match &mut delivery.length {
            BodyLength::Bytes(size) => {
                let size = (*size - before).min(self.received.len());
                delivery.body.extend(self.received.drain(..size));
                matches!(delivery.length, BodyLength::Bytes(size) if size == delivery.body.len())
            }
            BodyLength::Chunks(chunks) => chunks.take(&mut self.received, delivery.id, &mut delivery.body),
            BodyLength::UntilClose => {
                delivery.body.append(&mut self.received);
                false
            }
        };
        if let Some(expected) = &delivery.expected {
            let is_right = expected.get(before..).is_some_and(|rest| rest.starts_with(&delivery.body[before..]));
            assert!(is_right, "the reply to request {}: other bytes after {before}", delivery.id);
            // The end of a node's connection may be the end of the body.
            let is_complete = delivery.body.len() == expected.len() || asked[delivery.id].was_cut;
            assert!(!is_whole || is_complete, "the reply to {} is short", delivery.id);
        }
        if is_whole {
            self.finish_reply();
        }
        is_whole
    }

    fn finish_reply(&mut self) {
        let Some(delivery) = self.delivery.take() else { return };
        self.awaited.pop_front();
        (self.replies, self.interims) = (self.replies + 1, 0);
        self.was_closed = delivery.closes;
        let has_rest = matches!(self.pieces.front(), Some((Gate::Continue(id), _)) if *id == delivery.id);
        assert!(!has_rest || delivery.closes, "the body of {} would be read as a request", delivery.id);
    }

    /// Handles the head of a reply.
    fn begin(&mut self, asked: &[Asked], events: &mut Vec<&'static str>) -> bool {
        // Of a head that was too slow, the method may not have arrived: its refusal has a body.
        if self.was_closed && self.received.starts_with(b"408 ") {
            self.received.clear();
        }
        assert!(self.received.is_empty() || !self.was_closed, "bytes after the last reply: {:?}", text(&self.received));
        let Some(head) = take_head(&mut self.received) else { return false };
        let &(id, http_1_1) = self.awaited.front().expect("a reply that nobody asked for");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status").to_owned();
        assert!(field(&head, "X-Hop").is_none(), "{head}");
        if status.starts_with('1') {
            assert!(http_1_1 && (status == "100" || status == "103"), "{head}");
            let of = field(&head, "Link").map_or(id.to_string(), |link| link[2..link.len() - 1].to_owned());
            assert!(of == id.to_string() || asked[id].was_cut, "an interim reply to request {of}, not {id}");
            self.interims += usize::from(status == "100");
            return true;
        }
        assert!(head.contains("\r\nDate: "), "no date: {head}");
        let asked_for = &asked[id];
        let closes = match field(&head, "Connection") {
            Some("close") => true,
            Some("keep-alive") => false,
            other => panic!("{other:?}: {head}"),
        };
        let has_body = asked_for.method != "HEAD" && status != "204" && status != "304";
        let length = match (field(&head, "Content-Length"), field(&head, "Transfer-Encoding")) {
            _ if !has_body => BodyLength::Bytes(0),
            (Some(size), None) => BodyLength::Bytes(size.parse().expect("a number")),
            (None, Some("chunked")) if http_1_1 => BodyLength::Chunks(Dechunker::default()),
            (None, None) if !http_1_1 && closes => BodyLength::UntilClose,
            other => panic!("{other:?}: {head}"),
        };
        let expected = match field(&head, "X-Id") {
            Some(own) => {
                assert_eq!(own, id.to_string(), "the reply to another request: {head}");
                assert!(!asked_for.arrivals.is_empty(), "the reply to a request that no node has: {head}");
                let [seed, size] =
                    ["X-Seed", "X-Body"].map(|name| field(&head, name).expect("a number").parse::<u64>());
                let (seed, size) = (seed.expect("a number"), size.expect("a number"));
                Some(content(seed ^ id as u64, if has_body { size as usize } else { 0 }))
            }
            None => {
                let is_right = match &*status {
                    "400" => !asked_for.may_complete,
                    "413" => !asked_for.may_complete,
                    "408" => asked_for.size > 0 || !asked_for.may_complete || self.conduct == Conduct::Dawdles,
                    // A connection that was idle may end while a request is sent that may not be repeated.
                    "502" => !self.is_calm || !asked_for.is_repeatable,
                    "503" => true,
                    // A process that is suspended, or has no buffer, sees a reply too late.
                    "504" => true,
                    _ => false,
                };
                assert!(
                    is_right && closes,
                    "request {id}, {} bytes, {} pieces left: {head}",
                    asked_for.size,
                    self.pieces.len()
                );
                events.extend(EVENTS.iter().filter(|event| **event == status));
                None
            }
        };
        if matches!(self.pieces.front(), Some((Gate::Continue(_), _))) && expected.is_some() {
            events.push("early reply");
        }
        self.delivery = Some(Delivery { id, expected, body: Vec::new(), length, closes });
        true
    }

    /// The gateway has closed the connection.
    fn end(&mut self, asked: &[Asked], events: &mut Vec<&'static str>) {
        self.is_over = true;
        let Some(delivery) = &self.delivery else {
            // A refusal that is still queued is dropped when its client ends.
            let is_lost = self.conduct == Conduct::Finishes;
            assert!(self.received.is_empty() || is_lost, "half a head: {:?}", text(&self.received));
            return;
        };
        let is_whole = matches!(delivery.length, BodyLength::UntilClose)
            && delivery.expected.as_ref().is_some_and(|expected| expected.len() == delivery.body.len());
        if is_whole {
            return self.finish_reply();
        }
        self.was_cut = true;
        if asked[delivery.id].was_cut {
            events.push("cut reply");
        }
    }

    /// Asserts at the end of a run what the gateway guarantees to this client.
    fn check_end(&self, is_stopped: bool, asked: &[Asked]) {
        if is_stopped || matches!(self.conduct, Conduct::Vanishes | Conduct::Stalls) {
            return;
        }
        let context = format!(
            "{:?}: {} replies, awaited {:?}, {} pieces left, {} bytes received",
            self.conduct,
            self.replies,
            self.awaited,
            self.pieces.len(),
            self.received.len()
        );
        assert!(self.is_over, "{context}");
        if let Some(delivery) = &self.delivery {
            let id = delivery.id;
            // The gateway stops to read a body that is too large or malformed, or does not arrive.
            let is_own_fault = !asked[id].may_complete || self.patience == 0;
            assert!(asked[id].was_cut || is_own_fault, "the reply to {id} is cut; {context}");
        } else if self.conduct != Conduct::Dawdles {
            // A client that has ended its stream does not always get the gateway's own reply.
            let may_miss = self.conduct == Conduct::Finishes && !self.is_calm;
            assert!(self.awaited.is_empty() || self.was_closed || may_miss, "{context}");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The configuration of a run.
struct Scene {
    port: usize,
    /// Nodes fail only as every server may, and all can be connected.
    is_calm: bool,
    body_size_max: u64,
    process: limits::Process,
    site: Site,
    nodes: usize,
    /// When nodes begin to refuse connections, or accept them again: the turn, the node, and whether it is there.
    changes: Vec<(usize, usize, bool)>,
}

impl Scene {
    fn draw(sim: &mut Sim) -> Scene {
        let port = sim.port(tcp("192.0.2.1:80"));
        let is_calm = sim.rng.one_in(3);
        let count = 1 + sim.rng.below(3);
        let nodes = (0..count).map(|index| node(index, is_calm, sim)).collect();
        let unix = unix_node(count, is_calm, sim);
        let rng = &mut sim.rng;
        let mut cluster = Cluster::new("pool", nodes);
        cluster.balance = [Balance::RoundRobin, Balance::IpHash, Balance::LeastBusy, Balance::RandomTwo][rng.below(4)];
        cluster.keepalive_max = [0, 1, 2, 32][rng.below(4)];
        cluster.keepalive_ms = [50, 4_000][rng.below(2)];
        let (cluster, single) = (Arc::new(cluster), Arc::new(Cluster::new("single", vec![unix])));
        let body_size_max = if rng.one_in(4) { 10_000 } else { u64::MAX };
        let mut limits = limits::Forwarding { body_size_max, ..limits::Forwarding::default() };
        let mut http = limits::Http { keepalive_ms: limits::KEEPALIVE_MS.max, ..limits::Http::default() };
        if !is_calm {
            limits.answer_ms = 200 + rng.below(2_000) as u64;
            limits.connect_ms = 100 + rng.below(2_000) as u64;
            limits.body_ms = 1_000 + rng.below(5_000) as u64;
            http.stall_ms = 1_000 + rng.below(5_000) as u64;
            limits.requests_max = if rng.one_in(8) { 1 } else { limits.requests_max };
        }
        if rng.one_in(4) {
            limits.queue_size_max = limits::QUEUE_SIZE_MAX.min;
        }
        let upstream = |cluster: &Arc<Cluster>, node, is_tunnel, path: Option<&str>| {
            Destination::Upstream(Arc::new(Upstream {
                cluster: cluster.clone(),
                node,
                tls: None,
                path: path.map(Into::into),
                host: None,
                forwarded: ClientFields::Both,
                rewrites_replies: path.is_some(),
                passes_credentials: false,
                is_tunnel,
                limits: limits.clone(),
                requests: Count::default(),
            }))
        };
        let link = |origin: &str, destination| Link {
            origin: Patterns::parse(origin),
            destination,
            service: Arc::new(Service { protocol: Protocol::Frames, ..Service::default() }),
            access: None,
        };
        let page_links = vec![
            link("^/p/", upstream(&cluster, None, false, None)),
            link("^/one/", upstream(&cluster, Some(rng.below(count)), false, Some("/a/b/"))),
            link("^/unix/", upstream(&single, None, false, Some("/"))),
        ];
        let links = vec![link("^/ws,^/wild", upstream(&cluster, None, rng.one_in(2), Some("/ws")))];
        let site = Site { page_links, links, limits: http, ..Site::default() };
        let mut changes = Vec::new();
        if !is_calm && rng.one_in(2) {
            let (index, at) = (rng.below(count), rng.below(400));
            changes.push((at, index, false));
            changes.push((at + rng.below(400), index, true));
        }
        let process = limits::Process::default();
        Scene { port, is_calm, body_size_max, process, site, nodes: count, changes }
    }

    /// The listener, with an endpoint of its own.
    fn setup(&self, sim: &mut Sim, is_first: bool) -> ListenerSetup<crate::driver::sim::Handle> {
        let endpoint = endpoint(self.site.fresh(), StageKind::Plain, sim);
        let (address, socket) = if is_first { listening(sim, self.port) } else { listening_again(sim, self.port) };
        ListenerSetup { address, socket, file: None, endpoint }
    }

    /// Asserts that no request was sent too often.
    fn check_arrivals(&self, asked: &[Asked], events: &mut Vec<&'static str>) {
        for (id, asked) in asked.iter().enumerate() {
            let of_node = |node| asked.arrivals.iter().filter(|arrival| **arrival == node).count();
            let (count, most) = (asked.arrivals.len(), (0..=self.nodes).map(of_node).max().unwrap_or(0));
            match asked.is_repeatable {
                false => assert!(count <= 1, "request {id} ({}) was sent {count} times", asked.method),
                true => assert!(count <= self.nodes + 1 && most <= 2, "request {id}: {:?}", asked.arrivals),
            }
            if count > 1 {
                events.push("retry");
            }
        }
    }
}

fn address_of(node: usize) -> SocketAddr {
    ([192, 0, 2, 10 + node as u8], 80).into()
}

fn host_of(node: usize) -> Host {
    Host::Backend(format!("n{node}"))
}

fn node(index: usize, is_calm: bool, sim: &mut Sim) -> Node {
    let host = match sim.rng.below(8) {
        0 if !is_calm => Host::Refuses,
        1 if !is_calm => Host::Silent,
        _ => host_of(index),
    };
    sim.hosts.insert(address_of(index), host);
    let mut addresses = vec![address_of(index)];
    if sim.rng.one_in(4) {
        // Without a host.
        addresses.insert(0, ([192, 0, 2, 99], 80).into());
    }
    let place = NodePlace::Tcp(TcpPlace::new(&format!("n{index}"), 80, &addresses));
    let mut node = Node::new(&format!("n{index}"), place);
    node.weight = 1 + sim.rng.below(4) as u32;
    node.max_fails = sim.rng.below(3) as u32;
    node.fail_ms = 100 + sim.rng.below(1_000) as u64;
    node.is_backup = index > 0 && sim.rng.one_in(6);
    node
}

fn unix_node(index: usize, is_calm: bool, sim: &mut Sim) -> Node {
    let path = format!("/run/n{index}");
    let file = match sim.rng.below(8) {
        0 if !is_calm => File::Dead,
        1 if !is_calm => File::Full(2_000),
        2 if !is_calm => File::Narrow(SocketType::Stream),
        _ => File::Backend(SocketType::Stream),
    };
    sim.paths.insert(path.clone(), file);
    Node::new(&format!("unix:{path}"), NodePlace::Unix(path.into()))
}

fn websocket(scene: &Scene, sim: &mut Sim) -> Client {
    let name = Name { path: if scene.is_calm { "ws" } else { "wild" }, protocol: Protocol::Frames };
    let world = World::of_name(name, scene.process.clone());
    let capacity = 1 << (10 + sim.rng.below(8));
    let own = 1_000 + sim.wires.len();
    let wire = sim.client(scene.port, capacity, tcp(&format!("127.0.0.9:{own}")));
    let manner = WEBSOCKET_MANNERS[sim.rng.below(WEBSOCKET_MANNERS.len())];
    Client::on_wire(wire, manner, Codec::Plain, sim, &world)
}

#[test]
fn seeds() {
    log::set_level(if number("UAKARI_SEED").is_some() { Level::Debug } else { Level::Error });
    if let Some(seed) = number("UAKARI_SEED") {
        forward(seed);
        return;
    }
    let (seeds, mut missing) = (number("UAKARI_SEEDS").unwrap_or(SEEDS), EVENTS.to_vec());
    for seed in 0..seeds {
        let outcome = forward(seed);
        missing.retain(|event| !outcome.events.contains(event));
    }
    assert!(seeds < SEEDS || missing.is_empty(), "never: {missing:?}");
}

#[test]
fn a_seed_gives_the_same_run() {
    log::set_level(Level::Error);
    for seed in 0..8 {
        assert_eq!(forward(seed), forward(seed), "seed {seed}");
    }
}

/// Result of a run, compared to verify determinism.
#[derive(PartialEq, Eq, Debug)]
struct Forwarded {
    turns: usize,
    end_ms: u64,
    random: u64,
    events: Vec<&'static str>,
}

fn forward(seed: u64) -> Forwarded {
    let seed = Seed(seed);
    let mut sim = Sim::new(seed.0 ^ 0x75_70_73_74, 0);
    let buffers = [3, 16, limits::POOL_BUFFERS.default as usize][sim.rng.below(3)];
    let mut sim = Sim::new(sim.rng.draw(), buffers);
    sim.stands_still = sim.rng.one_in(2);
    lead(&mut sim, Some(&File::Root(0)));
    let scene = Scene::draw(&mut sim);
    let (mut asked, mut events) = (Vec::new(), Vec::new());
    let count = 1 + sim.rng.below(8);
    let mut askers: Vec<Asker> = (0..count).map(|_| Asker::new(&scene, &mut sim, &mut asked)).collect();
    let websockets = sim.rng.below(4);
    let mut clients: Vec<Client> = (0..websockets).map(|_| websocket(&scene, &mut sim)).collect();
    let stop_at = if sim.rng.one_in(6) { sim.rng.below(2_000) } else { usize::MAX };
    let reload_at = if sim.rng.one_in(4) { sim.rng.below(500) } else { usize::MAX };
    let setup = scene.setup(&mut sim, true);
    let mut endpoints = vec![setup.endpoint.clone()];
    let mut gateway = Gateway::new(sim, scene.process.clone());
    gateway.configure(scene.process.clone(), vec![setup]);
    let (mut ends, mut completions): (Vec<NodeEnd>, _) = (Vec::new(), Vec::new());
    let (mut turns, mut was_stopped) = (0, false);
    while !gateway.is_over() {
        let sim = gateway.driver_mut();
        askers.iter_mut().for_each(|asker| asker.act(sim, &asked, &mut events));
        clients.iter_mut().for_each(|client| client.act(sim));
        ends.iter_mut().for_each(|end| end.act(sim, &mut asked));
        for (name, wire) in std::mem::take(&mut sim.connected) {
            let node = name[1..].parse().expect("a node");
            ends.push(NodeEnd::new(sim, node, wire, scene.is_calm));
        }
        for (_, node, is_there) in scene.changes.iter().filter(|(at, ..)| *at == turns) {
            sim.hosts.insert(address_of(*node), if *is_there { host_of(*node) } else { Host::Refuses });
            let its = ends.iter_mut().filter(|end| end.node == *node && !is_there);
            its.for_each(|end| end.die(sim, &mut asked));
        }
        if turns == reload_at && !was_stopped {
            let setup = scene.setup(sim, false);
            endpoints.push(setup.endpoint.clone());
            gateway.configure(scene.process.clone(), vec![setup]);
        }
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        turns += 1;
        let waits = |asker: &&Asker| match asker.conduct {
            Conduct::Stalls => false,
            _ => !asker.is_over,
        };
        let waits_too = |client: &&Client| match client.manner {
            Manner::Stalls => false,
            Manner::Silent => client.was_pinged && !client.is_over,
            _ => !client.is_over,
        };
        if turns >= TURNS_MAX {
            let waiting: Vec<String> = askers
                .iter()
                .filter(waits)
                .map(|asker| format!("{:?}, awaited {:?}", asker.conduct, asker.awaited))
                .chain(clients.iter().filter(waits_too).map(Client::progress))
                .collect();
            panic!("the run does not end: {}", waiting.join("; "));
        }
        let is_served = !gateway.driver_mut().has_waiting() && !askers.iter().any(|asker| waits(&asker));
        let is_done = turns >= stop_at || is_served && !clients.iter().any(|client| waits_too(&client));
        if is_done && !std::mem::replace(&mut was_stopped, true) {
            gateway.stop();
        }
    }
    let is_stopped = stop_at != usize::MAX;
    askers.iter().for_each(|asker| asker.check_end(is_stopped, &asked));
    clients.iter().for_each(|client| client.check_end(is_stopped, reload_at < turns));
    scene.check_arrivals(&asked, &mut events);
    assert!(gateway.has_empty_counts(), "connections outlive the deadline, or something is counted that is not there");
    let held = endpoints.iter().map(|endpoint| endpoint.permits_held()).sum::<u64>();
    assert_eq!(held, 0, "permits outlive their connections");
    assert_eq!(leaks(&mut gateway), "", "leaks");
    _ = log::take_access_lines();
    if clients.iter().any(Client::has_opened) {
        events.push("websocket");
    }
    if ends.iter().any(|end| end.served > 1) {
        events.push("reuse");
    }
    let sim = gateway.driver_mut();
    Forwarded { turns, end_ms: sim.now_ms, random: sim.rng.draw(), events }
}
