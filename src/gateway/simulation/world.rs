//! The random configuration of a run, and the targets of its paths and addresses.

use std::ffi::CString;
use std::net::SocketAddr;
use std::sync::Arc;

use super::codec::{self, Codec};
use super::pages;
use crate::driver::SocketType;
use crate::driver::device::Direction;
use crate::driver::sim::{Handle, Host, Node, Rng, Sim};
use crate::gateway::endpoint::{Endpoint, Folders, Held};
use crate::gateway::listener::ListenerSetup;
use crate::limits;
use crate::permit::Count;
use crate::route::names::Patterns;
use crate::route::{Destination, Link, Protocol, Service, Site, Sites};
use crate::transport::{Records, StageKind};
use crate::types::{Address, ListenAddress};

const PROTOCOLS: [Protocol; 5] = [Protocol::Stream, Protocol::Packet, Protocol::Frames, Protocol::Lines, Protocol::Nul];
/// Names that clients request in docroot. A backend's name states its behaviour; `echo` is three times as likely.
const DOCROOT_NAMES: [&str; 10] =
    ["echo", "echo", "echo", "dies", "leaves", "deaf", "dead", "full", "narrow", "outside"];
/// Paths of the folders held open.
const DOCROOT: &str = "/srv/docroot";
const WWW: &str = "/srv/www";

/// A name that a client may request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) path: &'static str,
    /// Protocol that determines how its messages return.
    pub(super) protocol: Protocol,
}

/// Configuration of a run.
pub(super) struct World {
    pub(super) site: Site,
    pub(super) process: limits::Process,
    pub(super) names: Vec<Name>,
    /// The ports with a listener.
    pub(super) ports: Vec<usize>,
    /// The port whose sockets carry several clients. None: there is none in this run.
    pub(super) trunk_port: Option<usize>,
    /// The stage of the last port.
    last_stage: StageKind,
    /// Whether backends receive a PROXY record with the client's address.
    pub(super) has_hello: bool,
    /// Turns at which the folder paths change their target. The last target remains.
    deployments: Vec<(usize, Option<Node>)>,
}

impl World {
    pub(super) fn draw(seed: u64) -> (Sim, World) {
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
        // A backend in direct mode sees frames and echoes them unchanged.
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
        let last_stage = match sim.rng.below(4) {
            0 => StageKind::Plain,
            1 => StageKind::Records,
            _ => StageKind::Tls(codec::hosts()),
        };
        // A stream has no descriptor to hand over.
        let has_trunk = !is_direct && sim.rng.one_in(2);
        let trunk_port = has_trunk.then(|| sim.port(tcp("[2001:db8::1]:81")));
        (sim, World { site, process, names, ports, trunk_port, last_stage, has_hello, deployments })
    }

    /// One whose WebSockets have this name, at the first port.
    pub(super) fn of_name(name: Name, process: limits::Process) -> World {
        World {
            site: Site::default(),
            process,
            names: vec![name],
            ports: vec![0],
            trunk_port: None,
            last_stage: StageKind::Plain,
            has_hello: false,
            deployments: Vec::new(),
        }
    }

    /// Whether limits are so tight that clients may be cut off for what they or other clients send.
    pub(super) fn is_tight(&self) -> bool {
        let closes = |service: &Service| service.limits.when_over == limits::WhenOver::Close;
        self.process != limits::Process::default() || closes(&self.site.service)
    }

    fn stage(&self, port: usize) -> StageKind {
        if port == 2 { self.last_stage.clone() } else { StageKind::Plain }
    }

    /// What the bytes of a client of this port pass.
    pub(super) fn codec(&self, port: usize, rng: &mut Rng) -> Codec {
        match self.stage(port) {
            StageKind::Records => Codec::Records(Records::default(), Vec::new()),
            StageKind::Tls(_) => Codec::tls(rng, self.is_tight()),
            StageKind::Plain | StageKind::Streams => Codec::Plain,
        }
    }

    /// The listeners of all ports. The first ports share an endpoint.
    pub(super) fn setups(
        &self,
        sim: &mut Sim,
        listen: impl Fn(&mut Sim, usize) -> Listening,
    ) -> Vec<ListenerSetup<Handle>> {
        let endpoints = [0, 2].map(|port| endpoint(self.site.fresh(), self.stage(port), sim));
        let trunk = endpoint(self.site.fresh(), StageKind::Streams, sim);
        let mut open = |port: usize, endpoint: &Arc<Endpoint<Handle>>| {
            let (address, socket) = listen(sim, port);
            ListenerSetup { address, socket, file: None, endpoint: endpoint.clone() }
        };
        let mut setups: Vec<_> = self.ports.iter().map(|port| open(*port, &endpoints[*port / 2])).collect();
        setups.extend(self.trunk_port.map(|port| open(port, &trunk)));
        setups
    }

    /// Applies the folder changes scheduled for this turn.
    pub(super) fn deploy(&self, turn: usize, sim: &mut Sim) {
        for (_, node) in self.deployments.iter().filter(|(at, _)| *at == turn) {
            lead(sim, node.as_ref());
        }
    }
}

/// An address and its socket. None: keep the existing one.
type Listening = (ListenAddress, Option<Handle>);

/// The address of a port with a new listener.
pub(super) fn listening(sim: &mut Sim, port: usize) -> Listening {
    (ListenAddress::Unix(format!("port {port}")), Some(sim.listener_at(port)))
}

/// After a reload: the same listener or, as if the address had changed, a new one.
pub(super) fn listening_again(sim: &mut Sim, port: usize) -> Listening {
    if sim.rng.one_in(2) {
        return (ListenAddress::Unix(format!("port {port}")), None);
    }
    (ListenAddress::Unix(format!("another port {port}")), Some(sim.listener_at(port)))
}

/// An endpoint for a site, with the folders that its paths lead to now.
pub(super) fn endpoint(site: Site, stage: StageKind, sim: &mut Sim) -> Arc<Endpoint<Handle>> {
    let mut held = |path: &str| {
        let tree = if let Some(Node::Root(tree)) = sim.paths.get(path) { *tree } else { 0 };
        Some(Held { handle: sim.folder(tree), path: CString::new(path).expect("no NUL") })
    };
    let folders = vec![Folders { docroot: held(DOCROOT), www: held(WWW) }];
    let sites = Sites::new(Arc::new(site), Vec::new());
    Arc::new(Endpoint { sites, folders, stage, clients_max: 1_000, clients: Count::default() })
}

/// Sets the target of both folder paths. None: they do not exist.
pub(super) fn lead(sim: &mut Sim, node: Option<&Node>) {
    for path in [DOCROOT, WWW] {
        match node {
            Some(node) => drop(sim.paths.insert(path.into(), node.clone())),
            None => drop(sim.paths.remove(path)),
        }
    }
}

pub(super) fn tcp(address: &str) -> Address {
    Address::Tcp(address.parse().expect("an address"))
}

fn add_backends(sim: &mut Sim, protocol: Protocol) {
    let socket_type = if protocol == Protocol::Packet { SocketType::SeqPacket } else { SocketType::Stream };
    let until_ms = if sim.rng.one_in(2) { u64::MAX } else { 2_000 };
    let docroot = &mut sim.trees[0];
    for name in ["echo", "dies", "leaves", "deaf"] {
        docroot.insert(name.into(), Node::Backend(socket_type));
    }
    docroot.insert("dead".into(), Node::Dead);
    docroot.insert("full".into(), Node::Full(until_ms));
    docroot.insert("narrow".into(), Node::Narrow(socket_type));
    docroot.insert("outside".into(), Node::Outside);
    sim.paths.insert("/run/unix".into(), Node::Backend(socket_type));
}

/// Creates a link to each kind of destination, and the destinations.
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
            // Messages of a pipe are compared as bytes. A read-only pipe cannot pass anything to its other end.
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
        found.push(Link { origin, destination, service: Arc::new(service), access: None });
    }
    found
}

/// Addresses that refuse connections, possibly followed by an address that accepts.
fn addresses(sim: &mut Sim, name: Option<&str>) -> Box<[SocketAddr]> {
    let mut hosts = Vec::new();
    for _ in 0..sim.rng.below(3) {
        hosts.push([Some(Host::Refuses), Some(Host::Silent), None][sim.rng.below(3)].clone());
    }
    hosts.push(Some(name.map_or(Host::Refuses, |name| Host::Backend(name.into()))));
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

/// Timeouts and rate limits, some of them tight enough to be reached.
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

/// Process limits, mostly wide enough for all clients.
fn process_limits(sim: &mut Sim) -> limits::Process {
    let mut limits = limits::Process::default();
    match sim.rng.below(24) {
        0 | 1 => limits.clients_max = 1,
        2 => limits.handshakes_max = 2,
        3 => limits.queued_size_max = 20_000,
        4 => limits.tls_handshakes_max = 2,
        _ => {}
    }
    limits
}

/// In some runs a second release replaces the folders, immediately or after a period without any folder.
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
