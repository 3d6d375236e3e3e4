//! What a seed decides before a run begins: the configuration, and what its paths and addresses lead to.

use std::ffi::CString;
use std::net::SocketAddr;
use std::sync::Arc;

use super::pages;
use crate::driver::device::Direction;
use crate::driver::sim::{Handle, Host, Node, Sim};
use crate::driver::{Address, SocketType};
use crate::gateway::entrance::{Endpoint, Folders, Held, Opening};
use crate::gateway::listener::ListenAddress;
use crate::limits;
use crate::permit::Count;
use crate::route::names::Patterns;
use crate::route::{Destination, Link, Protocol, Service, Site, Sites};
use crate::transport::StageKind;

const PROTOCOLS: [Protocol; 5] = [Protocol::Stream, Protocol::Packet, Protocol::Frames, Protocol::Lines, Protocol::Nul];
/// What clients ask for in docroot. The name of a backend says what it does, and three do the same.
const DOCROOT_NAMES: [&str; 10] =
    ["echo", "echo", "echo", "dies", "leaves", "deaf", "dead", "full", "narrow", "outside"];
/// The paths of the folders that are held open.
const DOCROOT: &str = "/srv/docroot";
const WWW: &str = "/srv/www";

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    pub path: &'static str,
    /// How its messages come back.
    pub protocol: Protocol,
}

/// The configuration of a run.
pub struct World {
    pub site: Site,
    pub process: limits::Process,
    pub names: Vec<Name>,
    /// The ports that are listened on.
    pub ports: Vec<usize>,
    /// The clients of the last port send and get records.
    last_has_records: bool,
    /// Backends are told who their clients are.
    pub has_hello: bool,
    /// When the paths of the folders lead elsewhere; the last one stays.
    deployments: Vec<(usize, Option<Node>)>,
}

impl World {
    pub fn draw(seed: u64) -> (Sim, World) {
        let mut sim = Sim::new(seed, 0);
        let buffers = [3, 16, limits::POOL_BUFFERS.default as usize][sim.rng.below(3)];
        let mut sim = Sim::new(sim.rng.draw(), buffers);
        sim.stands_still = true;
        let protocol = PROTOCOLS[sim.rng.below(PROTOCOLS.len())];
        add_backends(&mut sim, protocol);
        pages::add_files(&mut sim);
        let limits = conversation_limits(&mut sim);
        let is_direct = protocol == Protocol::Stream && sim.rng.one_in(2);
        let has_hello = sim.rng.one_in(4);
        let service = Service { protocol, is_direct, hello: has_hello, limits, ..Service::default() };
        // A server that has its clients' sockets sees frames, and so sends back what was sent.
        let seen = if is_direct { Protocol::Frames } else { protocol };
        let mut names: Vec<Name> = DOCROOT_NAMES.map(|path| Name { path, protocol: seen }).into();
        let links = if sim.rng.one_in(2) { links(&mut sim, &service, &mut names) } else { Vec::new() };
        let mut ports = vec![0];
        if sim.rng.one_in(2) {
            ports.extend(["192.0.2.1:80", "[2001:db8::1]:80"].map(|address| sim.port(tcp(address))));
        }
        let site = Site { has_www: true, has_docroot: true, service: Arc::new(service), links, ..Site::default() };
        let process = process_limits(&mut sim);
        let deployments = deployments(&mut sim);
        let last_has_records = sim.rng.one_in(2);
        (sim, World { site, process, names, ports, last_has_records, has_hello, deployments })
    }

    /// Some promises do not hold: clients may be cut off for what they send, or for what others do.
    pub fn is_tight(&self) -> bool {
        let closes = |service: &Service| service.limits.when_over == limits::WhenOver::Close;
        self.process != limits::Process::default() || closes(&self.site.service)
    }

    /// Whether bytes of this port's clients pass the tests' stage.
    pub fn has_records(&self, port: usize) -> bool {
        self.last_has_records && port == 2
    }

    /// All ports. The first ones share what is served there.
    pub fn openings(&self, sim: &mut Sim, listener: impl Fn(&mut Sim, usize) -> Opened) -> Vec<Opening<Handle>> {
        let stage = |port| if self.has_records(port) { StageKind::Records } else { StageKind::Plain };
        let endpoints = [0, 2].map(|port| endpoint(self.site.fresh(), stage(port), sim));
        let open = |&port: &usize| {
            let (address, listener) = listener(sim, port);
            let endpoint = endpoints[port / 2].clone();
            Opening { address, listener, file: None, endpoint }
        };
        self.ports.iter().map(open).collect()
    }

    /// The paths of the folders may lead elsewhere from this turn on.
    pub fn deploy(&self, turn: usize, sim: &mut Sim) {
        for (_, node) in self.deployments.iter().filter(|(at, _)| *at == turn) {
            lead(sim, node.as_ref());
        }
    }
}

/// An address and its listener; none: the one that there is.
type Opened = (ListenAddress, Option<Handle>);

/// The address of a port, with a new listener.
pub fn listening(sim: &mut Sim, port: usize) -> Opened {
    (ListenAddress::Unix(format!("port {port}")), Some(sim.listener_at(port)))
}

/// As after a reload: the same listener or, as if the address had changed, another one.
pub fn listening_again(sim: &mut Sim, port: usize) -> Opened {
    if sim.rng.one_in(2) {
        return (ListenAddress::Unix(format!("port {port}")), None);
    }
    (ListenAddress::Unix(format!("another port {port}")), Some(sim.listener_at(port)))
}

/// Serves a site with the folders that their paths lead to now.
pub fn endpoint(site: Site, stage: StageKind, sim: &mut Sim) -> Arc<Endpoint<Handle>> {
    let mut held = |path: &str| {
        let tree = if let Some(Node::Root(tree)) = sim.paths.get(path) { *tree } else { 0 };
        Some(Held { handle: sim.folder(tree), path: CString::new(path).expect("no NUL") })
    };
    let folders = vec![Folders { docroot: held(DOCROOT), www: held(WWW) }];
    let sites = Sites::new(Arc::new(site), Vec::new());
    Arc::new(Endpoint { sites, folders, stage, clients_max: 1_000, clients: Count::default() })
}

/// Lets the paths of both folders lead to this; None: to nothing.
pub fn lead(sim: &mut Sim, node: Option<&Node>) {
    for path in [DOCROOT, WWW] {
        match node {
            Some(node) => drop(sim.paths.insert(path.into(), node.clone())),
            None => drop(sim.paths.remove(path)),
        }
    }
}

pub fn tcp(address: &str) -> Address {
    Address::Tcp(address.parse().expect("an address"))
}

fn add_backends(sim: &mut Sim, protocol: Protocol) {
    let socket_type = if protocol == Protocol::Packet { SocketType::SeqPacket } else { SocketType::Stream };
    let until_ms = if sim.rng.one_in(2) { u64::MAX } else { 2_000 };
    let docroot = &mut sim.trees[0];
    for name in ["echo", "dies", "leaves", "deaf"] {
        docroot.insert(name.into(), Node::Server(socket_type));
    }
    docroot.insert("dead".into(), Node::Dead);
    docroot.insert("full".into(), Node::Full(until_ms));
    docroot.insert("narrow".into(), Node::Narrow(socket_type));
    docroot.insert("outside".into(), Node::Outside);
    sim.paths.insert("/run/unix".into(), Node::Server(socket_type));
}

/// A link to each kind of destination, and what these destinations are.
fn links(sim: &mut Sim, service: &Service, names: &mut Vec<Name>) -> Vec<Link> {
    for (path, node) in [
        ("/dev/tty", Node::Tty),
        ("/dev/dies", Node::Tty),
        ("/run/source", Node::Fifo),
        ("/run/sink", Node::Fifo),
        ("/run/file", Node::File(Vec::new())),
    ] {
        sim.paths.insert(path.into(), node);
    }
    let tty = |path: &str| Destination::Tty { path: path.into(), baud: 9_600 };
    let fifo = |path: &str, direction| Destination::Fifo { path: path.into(), direction };
    let mut found = Vec::new();
    for (name, destination) in [
        ("unix", Destination::Unix("/run/unix".into())),
        ("absent", Destination::Unix("/run/absent".into())),
        ("tcp", Destination::Tcp(addresses(sim, Some("tcp")))),
        ("refused", Destination::Tcp(addresses(sim, None))),
        ("tty", tty("/dev/tty")),
        ("line", tty("/dev/dies")),
        ("file", tty("/run/file")),
        ("source", fifo("/run/source", Direction::Read)),
        ("sink", fifo("/run/sink", Direction::Write)),
    ] {
        let mut service = service.clone();
        match &destination {
            Destination::Unix(_) => {}
            // A pipe's messages are looked at as bytes; the other end of one that is read can be told nothing.
            Destination::Fifo { direction, .. } => {
                service.protocol = Protocol::Stream;
                service.hello &= *direction == Direction::Write;
            }
            _ if service.protocol == Protocol::Packet => service.protocol = Protocol::Lines,
            _ => {}
        }
        let is_unix = matches!(destination, Destination::Unix(_));
        service.is_direct &= is_unix;
        if matches!(destination, Destination::Tty { .. } | Destination::Fifo { .. }) {
            service.limits.clients_max = 1;
        }
        let protocol = if service.is_direct { Protocol::Frames } else { service.protocol };
        names.push(Name { path: name, protocol });
        let origin = Patterns::parse(&format!("^/{name}$"));
        found.push(Link { origin, destination, service: Arc::new(service) });
    }
    found
}

/// Addresses that do not accept, and behind them maybe one that does.
fn addresses(sim: &mut Sim, name: Option<&str>) -> Box<[SocketAddr]> {
    let mut hosts = Vec::new();
    for _ in 0..sim.rng.below(3) {
        hosts.push([Some(Host::Refuses), Some(Host::Silent), None][sim.rng.below(3)].clone());
    }
    hosts.push(Some(name.map_or(Host::Refuses, |name| Host::Server(name.into()))));
    let mut all = Vec::new();
    for host in hosts {
        let port = 1_000 + sim.hosts.len() as u16 + all.len() as u16;
        let address =
            if sim.rng.one_in(2) { ([192, 0, 2, 9], port).into() } else { ([0, 0, 0, 0, 0, 0, 0, 1], port).into() };
        if let Some(host) = host {
            sim.hosts.insert(address, host);
        }
        all.push(address);
    }
    all.into()
}

/// Limits of time and rate, some of them so tight that they are met.
fn conversation_limits(sim: &mut Sim) -> limits::WebSocket {
    let mut limits = limits::WebSocket::default();
    if sim.rng.one_in(2) {
        (limits.ping_ms, limits.pong_ms) = (100 + sim.rng.below(1_000) as u64, 5_000);
    }
    if sim.rng.one_in(4) {
        limits.queue_size_max = limits::QUEUE_SIZE_MAX.min;
    }
    if sim.rng.one_in(4) {
        limits.messages_per_second_max = 5 + sim.rng.below(100) as u64;
        limits.bytes_per_second_max = 10_000 + sim.rng.below(1_000_000) as u64;
        limits.when_over = if sim.rng.one_in(3) { limits::WhenOver::Close } else { limits::WhenOver::Slow };
    }
    limits
}

/// Limits of the process; mostly wide enough for all.
fn process_limits(sim: &mut Sim) -> limits::Process {
    let mut limits = limits::Process::default();
    match sim.rng.below(24) {
        0 | 1 => limits.clients_max = 1,
        2 => limits.handshakes_max = 2,
        3 => limits.queued_size_max = 20_000,
        _ => {}
    }
    limits
}

/// In some runs another release of the folders takes the place of the first one, at once or after a while without any.
fn deployments(sim: &mut Sim) -> Vec<(usize, Option<Node>)> {
    sim.trees.push(sim.trees[0].clone());
    pages::add_second_release(&mut sim.trees[1]);
    lead(sim, Some(&Node::Root(0)));
    let at = sim.rng.below(500);
    match sim.rng.below(4) {
        0 => vec![(at, Some(Node::Root(1)))],
        1 => vec![(at, None), (at + 1 + sim.rng.below(500), Some(Node::Root(1)))],
        _ => Vec::new(),
    }
}
