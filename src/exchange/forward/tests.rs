//! Requests to nodes, step by step.

use std::sync::Arc;

use crate::driver::{ConnectCause, ConnectError, SystemError};
use crate::exchange::{Chunk, Effect, Effects, Exchange, Input, Progress, Surroundings};
use crate::http::date::Date;
use crate::limits::{self, POOL_HEADROOM};
use crate::permit::Count;
use crate::route::names::Patterns;
use crate::route::{Destination, Link, Protocol, Service, Site, Sites};
use crate::types::End;
use crate::upstream::{ClientFields, Cluster, Node, NodePlace, TcpPlace, Upstream};

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn site() -> Site {
    let node = |name: &str| {
        let address = name.parse().unwrap();
        Node::new(name, NodePlace::Tcp(TcpPlace::new("192.0.2.1", 80, &[address])))
    };
    let cluster = Arc::new(Cluster::new("pair", vec![node("192.0.2.1:80"), node("192.0.2.2:80")]));
    let upstream = Upstream {
        cluster,
        node: None,
        tls: None,
        path: None,
        host: None,
        forwarded: ClientFields::None,
        rewrites_replies: false,
        passes_credentials: false,
        is_tunnel: false,
        limits: limits::Forwarding { body_size_max: 1_000, ..limits::Forwarding::default() },
        requests: Count::default(),
    };
    let link = |protocol| Link {
        origin: Patterns::parse("^/"),
        destination: Destination::Upstream(Arc::new(upstream.clone())),
        service: Arc::new(Service { protocol, ..Service::default() }),
        access: None,
    };
    Site { page_links: vec![link(Protocol::Stream)], links: vec![link(Protocol::Frames)], ..Site::default() }
}

/// One connection. What it does is written down, one word for each effect.
struct Wire {
    exchange: Exchange,
    date: Date,
    sites: Sites,
    now_ms: u64,
    said: Vec<String>,
    to_client: String,
    to_node: String,
}

impl Wire {
    fn new() -> Wire {
        let sites = Sites::new(Arc::new(site()), Vec::new());
        let (date, said) = (Date::default(), Vec::new());
        let (to_client, to_node) = (String::new(), String::new());
        Wire { exchange: Exchange::default(), date, sites, now_ms: 1, said, to_client, to_node }
    }

    fn put(&mut self, to: End, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        match to {
            End::Client => self.to_client.push_str(text),
            End::Backend => self.to_node.push_str(text),
        }
    }

    fn handle(&mut self, input: Input<'_>, buffer: &[u8]) {
        let mut effects = Effects::default();
        let around = Surroundings { now_ms: self.now_ms, ..Surroundings::plain(&self.date, &self.sites) };
        self.exchange.handle(around, input, &mut effects);
        self.note(effects, buffer);
    }

    fn note(&mut self, mut effects: Effects, buffer: &[u8]) {
        for effect in effects.drain().collect::<Vec<_>>() {
            match effect {
                Effect::Send { to, bytes } => self.put(to, &bytes),
                Effect::Forward { to, range } => self.put(to, &buffer[range]),
                Effect::TakeIdle { idle_ms_max, .. } if idle_ms_max == u64::MAX => self.said.push("take any".into()),
                Effect::TakeIdle { .. } => self.said.push("take fresh".into()),
                Effect::ConnectNode { node, .. } => self.said.push(format!("connect {}", node.name)),
                Effect::LeaveNode { idle_ms: 0, .. } => self.said.push("close".into()),
                Effect::LeaveNode { .. } => self.said.push("keep".into()),
                Effect::CancelConnect => self.said.push("cancel".into()),
                Effect::Over(ending) => self.said.push(format!("over: {ending}")),
                _ => {}
            }
        }
    }

    fn bytes(&mut self, from: End, text: &str) {
        let mut buffer = vec![0; POOL_HEADROOM];
        buffer.extend_from_slice(text.as_bytes());
        let mut effects = Effects::default();
        let around = Surroundings { now_ms: self.now_ms, ..Surroundings::plain(&self.date, &self.sites) };
        let chunk = Chunk { start: POOL_HEADROOM, end: buffer.len(), buffer: &mut buffer };
        self.exchange.handle(around, Input::Bytes(from, chunk), &mut effects);
        self.note(effects, &buffer);
    }

    /// A step, by its name.
    fn step(&mut self, step: &str) {
        match step.split_once(' ').map_or((step, ""), |(word, rest)| (word, rest)) {
            ("client", text) => self.bytes(End::Client, text),
            ("node", text) => self.bytes(End::Backend, text),
            ("none", _) => self.handle(Input::TookIdle(false), &[]),
            ("took", _) => self.handle(Input::TookIdle(true), &[]),
            ("connected", _) => self.handle(Input::Connected(Ok(())), &[]),
            ("refused", _) => {
                let error = ConnectError { cause: ConnectCause::Other, error: SystemError::BROKEN_PIPE };
                self.handle(Input::Connected(Err(error)), &[]);
            }
            ("end", _) => self.handle(Input::Ended(End::Backend), &[]),
            ("broken", _) => self.handle(Input::Failed(End::Backend, SystemError::BROKEN_PIPE), &[]),
            ("left", _) => self.handle(Input::Ended(End::Client), &[]),
            ("drained", _) => self.handle(Input::Drained, &[]),
            ("stop", _) => self.handle(Input::Stop, &[]),
            ("deadline", ms) => {
                self.now_ms += ms.parse::<u64>().unwrap();
                self.handle(Input::Deadline, &[]);
            }
            ("stalled", _) => self.handle(Input::Stalled(End::Backend), &[]),
            (other, _) => panic!("{other}"),
        }
    }
}

/// Steps; what is done, one after the other; the beginning of what the client gets; and whether what the node gets ends with
/// this.
type Case = (&'static [&'static str], &'static str, &'static str, &'static str);

const GET: &str = "client GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &str = "client POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
const CHUNKED: &str = "client POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
const OLD: &str = "client GET /x HTTP/1.0\r\nHost: h\r\n\r\n";
const OK: &str = "node HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const CASES: &[Case] = &[
    // A reply, and the next request on both connections.
    (&[GET, "none", "connected", OK, "drained"], "take any,connect 192.0.2.1:80,keep", "HTTP/1.1 200 OK", "\r\n\r\n"),
    (&[GET, "took", OK, "drained", GET, "took"], "take any,keep,take any", "HTTP/1.1 200 OK", "\r\n\r\n"),
    // The other node.
    (
        &[GET, "none", "refused", "none", "connected", OK],
        "take any,connect 192.0.2.1:80,take any,connect 192.0.2.2:80,keep",
        "HTTP/1.1 200",
        "\r\n\r\n",
    ),
    (
        &[GET, "none", "refused", "none", "refused"],
        "take any,connect 192.0.2.1:80,take any,connect 192.0.2.2:80",
        "HTTP/1.1 502",
        "",
    ),
    // An idle connection that has ended before the request was sent: whatever the request is.
    (&[GET, "end", "took", "connected", OK], "take any,close,connect 192.0.2.1:80,keep", "HTTP/1.1 200", ""),
    (&[POST, "broken", "took", "connected"], "take fresh,close,connect 192.0.2.1:80", "", "Content-Length: 3\r\n\r\n"),
    // One that ends in place of a reply.
    (&[GET, "took", "end", "connected", OK], "take any,close,connect 192.0.2.1:80,keep", "HTTP/1.1 200", ""),
    (&[POST, "took", "client abc", "end"], "take fresh,close", "HTTP/1.1 502", "abc"),
    (&[GET, "took", "node HTTP/1.1 2", "end"], "take any,close", "HTTP/1.1 502", ""),
    // A request that ends nodes is sent to two of them at most.
    (
        &[GET, "none", "connected", "end", "none", "connected", "end"],
        "take any,connect 192.0.2.1:80,close,take any,connect 192.0.2.2:80,close",
        "HTTP/1.1 502",
        "",
    ),
    // Bodies.
    (&[POST, "took", "client abc", OK, "drained"], "take fresh,keep", "HTTP/1.1 200", "abc"),
    (&[CHUNKED, "took", "client 3\r\nabc\r\n", "client 0\r\n\r\n"], "take fresh", "", "3\r\nabc\r\n0\r\n\r\n"),
    (&[CHUNKED, "took", "client zz\r\n"], "take fresh", "HTTP/1.1 400", ""),
    (&[CHUNKED, "took", "client 3e9\r\n"], "take fresh", "HTTP/1.1 413", ""),
    (&[POST, "took", "deadline 40000"], "take fresh", "HTTP/1.1 408", ""),
    // A reply before the body is whole: both connections end with it, and nothing is written into it.
    (&[POST, "took", OK], "take fresh,close", "HTTP/1.1 200", ""),
    (
        &[CHUNKED, "took", "node HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "client zz\r\n"],
        "take fresh",
        "HTTP/1.1 200",
        "",
    ),
    // Silence.
    (&[GET, "took", "deadline 70000"], "take any", "HTTP/1.1 504", ""),
    (&[POST, "took", "stalled"], "take fresh", "HTTP/1.1 504", ""),
    // The end of the connection is that of the body, for a client that knows no chunks too.
    (&[GET, "took", "node HTTP/1.1 200 OK\r\n\r\nok", "end"], "take any,close", "HTTP/1.1 200", ""),
    (&[OLD, "took", "node HTTP/1.1 200 OK\r\n\r\nok", "end"], "take any,close", "HTTP/1.1 200", ""),
    // Bytes after a reply.
    (&[GET, "took", "node HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n"], "take any,close", "HTTP/1.1 204", ""),
    // A reply that ends too early.
    (&[GET, "took", "node HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "end"], "take any", "HTTP/1.1 200", ""),
    // A gateway that stops.
    (&[GET, "took", "stop", OK, "drained"], "take any,keep", "HTTP/1.1 200", ""),
    // Replies that are none.
    (&[GET, "took", "node HTTP/1.1 101 Switching Protocols\r\n\r\n"], "take any", "HTTP/1.1 502", ""),
    (&[GET, "took", "node SSH-2.0\r\n"], "take any", "HTTP/1.1 502", ""),
    (&[GET, "took", "node HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"], "take any", "HTTP/1.1 103", ""),
];

#[test]
fn requests_and_replies() {
    for (steps, said, reply, request) in CASES {
        let mut wire = Wire::new();
        steps.iter().for_each(|step| wire.step(step));
        assert_eq!(wire.said.join(","), *said, "{steps:#?}");
        let is_right = wire.to_client.starts_with(reply) && wire.to_node.ends_with(request);
        assert!(is_right, "{steps:#?}\nclient: {:?}\nnode: {:?}", wire.to_client, wire.to_node);
        let heads = wire.to_client.matches("HTTP/1.1 ").count();
        let asked = steps.iter().filter(|step| step.starts_with("client ") && step.contains(" HTTP/1.")).count();
        assert!(heads <= asked, "{steps:#?}: {:?}", wire.to_client);
    }
}

/// Each field is compared with each of them.
#[test]
fn many_connection_options() {
    let options = |count: usize| format!("Connection: {}\r\n", vec!["a"; count].join(","));
    for (request, reply, status) in [(33, 1, "400"), (32, 1, "200"), (1, 32, "200"), (1, 33, "502")] {
        let mut wire = Wire::new();
        wire.step(&format!("client GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", options(request)));
        wire.step("took");
        wire.step(&format!("node HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", options(reply)));
        assert!(wire.to_client.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {reply}: {:?}", wire.to_client);
    }
}

/// A request that waits longer than a connect may take has as much time for another node as for the first one.
#[test]
fn another_node_has_time_of_its_own() {
    let mut wire = Wire::new();
    [GET, "none", "connected"].iter().for_each(|step| wire.step(step));
    wire.now_ms += 2 * limits::CONNECT_MS.default;
    ["end", "none"].iter().for_each(|step| wire.step(step));
    let deadline_ms = wire.exchange.wants().deadline_ms.unwrap();
    assert!(deadline_ms > wire.now_ms + limits::CONNECT_SHARE_MS_MIN, "{deadline_ms} at {}", wire.now_ms);
}

/// A reply whose end is that of the connection is whole without a further byte, and so without a completed send.
#[test]
fn the_end_of_a_reply_without_a_byte() {
    let mut wire = Wire::new();
    [OLD, "took", "node HTTP/1.1 200 OK\r\n\r\nok", "end"].iter().for_each(|step| wire.step(step));
    assert_eq!(wire.exchange.wants().progress, Progress::Closing);
}

#[test]
fn handshakes() {
    let asked = format!("client GET /x HTTP/1.1\r\nHost: h\r\n{HANDSHAKE}\r\n");
    let early = format!("{asked}EARLY");
    let accepted = format!("node HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{ACCEPT}\r\n");
    let wrong = accepted.replace("s3pP", "S3pP");
    let other = accepted.replace(ACCEPT, &format!("{ACCEPT}Sec-WebSocket-Protocol: other\r\n"));
    let refused = "node HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let page = "node HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (steps, status, progress) in [
        (vec![&*asked, "took", &accepted], "101", Progress::Relay),
        (vec![&asked, "took", &wrong], "502", Progress::Closing),
        (vec![&asked, "took", &other], "502", Progress::Closing),
        (vec![&asked, "took", page], "502", Progress::Closing),
        (vec![&asked, "took", refused, "drained"], "403", Progress::Closing),
        (vec![&early, "took", refused, "drained"], "403", Progress::Closing),
        (vec![&early, "took", "stop"], "503", Progress::Closing),
        (vec![&early, "took", "end", "connected", "end", "connected", "end"], "502", Progress::Closing),
        (vec![&early, "took", "deadline 20000"], "504", Progress::Closing),
    ] {
        let mut wire = Wire::new();
        steps.iter().for_each(|step| wire.step(step));
        assert!(wire.to_client.starts_with(&format!("HTTP/1.1 {status} ")), "{steps:#?}: {:?}", wire.to_client);
        assert_eq!(wire.exchange.wants().progress, progress, "{steps:#?}");
        assert!(!wire.to_node.contains("EARLY"), "{steps:#?}: {:?}", wire.to_node);
        assert!(!wire.said.contains(&"keep".to_owned()), "{steps:#?}: the connection must not be used again");
    }
}
