//! The whole gateway on the simulated kernel, against a shadow model: each byte arrives once and in order, or the
//! connection ends with a reason; no slot, buffer or handle leaks; every run ends.
//!
//! `UAKARI_SEED=7 cargo test simulation` replays one seed, `UAKARI_SEEDS=20000` runs that many.

mod backend;
mod client;
mod fairness;
mod pages;
mod receiver;

use std::ffi::CString;
use std::sync::Arc;

use super::Gateway;
use super::entrance::{Endpoint, Folders, Held, Opening};
use super::listener::ListenAddress;
use crate::driver::SocketType;
use crate::driver::sim::{Handle, Node, Sim};
use crate::limits;
use crate::observe::log::{self, Level};
use crate::permit::Count;
use crate::route::{Protocol, Service, Site, Sites};
use backend::Backend;
use client::{Client, Manner};
use receiver::Receiver;

const SEEDS: u64 = 256;
const PROTOCOLS: [Protocol; 5] = [Protocol::Stream, Protocol::Packet, Protocol::Frames, Protocol::Lines, Protocol::Nul];
/// Turns after which a run is said not to end.
const TURNS_MAX: usize = 1_000_000;
const NAMES: [&str; 10] = ["echo", "echo", "echo", "dies", "leaves", "deaf", "dead", "full", "narrow", "outside"];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Names the seed when a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the run failed; replay it with UAKARI_SEED={}", self.0);
        }
    }
}

#[test]
fn seeds() {
    log::set_level(if number("UAKARI_SEED").is_some() { Level::Debug } else { Level::Error });
    match number("UAKARI_SEED") {
        Some(seed) => run(seed),
        None => (0..number("UAKARI_SEEDS").unwrap_or(SEEDS)).for_each(run),
    }
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

fn world(seed: u64) -> (Sim, Site) {
    let mut sim = Sim::new(seed, 0);
    let buffers = [3, 16, limits::POOL_BUFFERS.default as usize][sim.rng.below(3)];
    let mut sim = Sim::new(sim.rng.draw(), buffers);
    sim.stands_still = true;
    let protocol = PROTOCOLS[sim.rng.below(PROTOCOLS.len())];
    let socket_type = if protocol == Protocol::Packet { SocketType::SeqPacket } else { SocketType::Stream };
    for name in ["echo", "dies", "leaves", "deaf"] {
        sim.nodes.insert(name.into(), Node::Server(socket_type));
    }
    sim.nodes.insert("dead".into(), Node::Dead);
    let until_ms = if sim.rng.one_in(2) { u64::MAX } else { 2_000 };
    sim.nodes.insert("full".into(), Node::Full(until_ms));
    sim.nodes.insert("narrow".into(), Node::Narrow(socket_type));
    sim.nodes.insert("outside".into(), Node::Outside);
    pages::add_files(&mut sim);
    let limits = conversation_limits(&mut sim);
    let is_direct = protocol == Protocol::Stream && sim.rng.one_in(2);
    let service = Arc::new(Service { protocol, is_direct, limits, ..Service::default() });
    let site = Site { has_www: true, has_docroot: true, service, ..Site::default() };
    (sim, site)
}

fn endpoint_of(site: Site, docroot: Handle, www: Handle) -> Endpoint<Handle> {
    let held = |handle| Some(Held { handle, path: CString::default() });
    let folders = vec![Folders { docroot: held(docroot), www: held(www) }];
    Endpoint { sites: Sites::new(Arc::new(site), Vec::new()), folders, clients_max: 100, clients: Count::default() }
}

fn endpoint(site: Site, docroot: Handle, www: Handle) -> Arc<Endpoint<Handle>> {
    Arc::new(endpoint_of(site, docroot, www))
}

/// The same configuration again, through the same listener or, as if its address had changed, through another one.
fn reload(gateway: &mut Gateway<Sim>, process: &limits::Process, site: Site, address: &ListenAddress) {
    let sim = gateway.driver_mut();
    let is_other = sim.rng.one_in(2);
    let (docroot, www, listener) = (sim.folder(), sim.folder(), is_other.then(|| sim.listener()));
    let address = if is_other { ListenAddress::Unix("another".into()) } else { address.clone() };
    let endpoint = endpoint(site, docroot, www);
    gateway.configure(process.clone(), vec![Opening { address, listener, file: None, endpoint }]);
}

fn run(seed: u64) {
    let seed = Seed(seed);
    let (mut sim, site) = world(seed.0);
    // A server that has its clients' sockets sees frames, and so sends back what was sent.
    let protocol = if site.service.is_direct { Protocol::Frames } else { site.service.protocol };
    let count = 1 + sim.rng.below(12);
    let process = process_limits(&mut sim);
    let is_tight = process != limits::Process::default() || site.service.limits.when_over == limits::WhenOver::Close;
    // Some runs are stopped in the middle, the others when all clients have had their say.
    let stop_at = if sim.rng.one_in(4) { sim.rng.below(3_000) } else { usize::MAX };
    let mut clients: Vec<Client> = (0..count).map(|_| Client::new(&mut sim, protocol, &NAMES)).collect();
    clients.iter_mut().for_each(|client| client.may_be_cut = is_tight);
    let (mut backends, mut receivers): (Vec<Backend>, Vec<Receiver>) = Default::default();
    let (listener, docroot, www) = (sim.listener(), sim.folder(), sim.folder());
    let endpoint = endpoint(site.fresh(), docroot, www);
    // Some runs get a new configuration in the middle: what is there must not notice.
    let reload_at = if sim.rng.one_in(3) { sim.rng.below(500) } else { usize::MAX };
    let mut gateway = Gateway::new(sim, process.clone());
    let address = ListenAddress::Unix("simulated".into());
    gateway.configure(
        process.clone(),
        vec![Opening { address: address.clone(), listener: Some(listener), file: None, endpoint }],
    );
    let mut completions = Vec::new();
    let (mut turns, mut was_stopped) = (0, false);
    while !gateway.is_over() {
        let sim = gateway.driver_mut();
        clients.iter_mut().for_each(|client| client.act(sim));
        backends.iter_mut().for_each(|backend| backend.act(sim));
        receivers.iter_mut().for_each(|receiver| receiver.act(sim));
        for (name, wire, is_relayed) in std::mem::take(&mut sim.handed_over) {
            receivers.push(Receiver::new(sim, name, wire, is_relayed));
        }
        for (name, wire) in std::mem::take(&mut sim.connected) {
            backends.push(Backend::new(sim, name, wire, protocol == Protocol::Packet));
        }
        if turns == reload_at && !was_stopped {
            reload(&mut gateway, &process, site.fresh(), &address);
        }
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        turns += 1;
        let waits = |client: &Client| match client.manner {
            Manner::Stalls => false,
            // Where there are pings, the gateway ends it by itself, unless it is not read and cannot be heard.
            Manner::Silent => client.was_pinged && !client.is_over && client.name != "deaf",
            Manner::Dawdles | Manner::Browses => !client.is_over,
            _ => !client.is_over && client.name != "deaf",
        };
        if turns >= TURNS_MAX {
            let waiting: Vec<String> = clients.iter().filter(|client| waits(client)).map(Client::progress).collect();
            panic!("the run does not end: {}", waiting.join("; "));
        }
        let is_done = turns >= stop_at || (!clients.iter().any(waits) && gateway.driver_mut().waiting.is_empty());
        if is_done && !std::mem::replace(&mut was_stopped, true) {
            gateway.stop();
        }
    }
    let is_stopped = stop_at != usize::MAX || is_tight;
    clients.iter().for_each(|client| client.check_end(is_stopped));
    assert!(gateway.has_empty_counts(), "connections outlive the deadline, or something is counted that is not there");
    assert_eq!(gateway.driver_mut().leaks(), "", "leaks");
}
