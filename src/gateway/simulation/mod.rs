//! The whole gateway on the simulated kernel, against a shadow model: each byte arrives once and in order, or the
//! connection ends with a reason; no slot, buffer or handle leaks; every run ends.
//!
//! `UAKARI_SEED=7 cargo test simulation` replays one seed, `UAKARI_SEEDS=20000` runs that many.

mod backend;
mod client;
mod pages;

use super::{Folders, Gateway};
use crate::driver::SocketType;
use crate::driver::sim::{Node, Sim};
use crate::limits;
use crate::observe::log::{self, Level};
use crate::route::{Protocol, Site};
use backend::Backend;
use client::{Client, Manner};

const SEEDS: u64 = 256;
/// Turns after which a run is said not to end.
const TURNS_MAX: usize = 1_000_000;
const NAMES: [&str; 9] = ["echo", "echo", "echo", "dies", "leaves", "deaf", "dead", "full", "outside"];

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
    log::set_level(Level::Error);
    match number("UAKARI_SEED") {
        Some(seed) => run(seed),
        None => (0..number("UAKARI_SEEDS").unwrap_or(SEEDS)).for_each(run),
    }
}

fn world(seed: u64) -> (Sim, Site) {
    let mut sim = Sim::new(seed, 0);
    let buffers = [3, 16, limits::POOL_BUFFERS as usize][sim.rng.below(3)];
    let mut sim = Sim::new(sim.rng.draw(), buffers);
    let protocol = [Protocol::Stream, Protocol::Packet, Protocol::Frames][sim.rng.below(3)];
    let socket_type = if protocol == Protocol::Packet { SocketType::SeqPacket } else { SocketType::Stream };
    for name in ["echo", "dies", "leaves", "deaf"] {
        sim.nodes.insert(name.into(), Node::Server(socket_type));
    }
    sim.nodes.insert("dead".into(), Node::Dead);
    let until_ms = if sim.rng.one_in(2) { u64::MAX } else { 2_000 };
    sim.nodes.insert("full".into(), Node::Full(until_ms));
    sim.nodes.insert("outside".into(), Node::Outside);
    pages::add_files(&mut sim);
    let cache_control = Some("no-cache".into());
    let site = Site { has_www: true, has_docroot: true, protocol, cache_control, ..Site::default() };
    (sim, site)
}

fn run(seed: u64) {
    let seed = Seed(seed);
    let (mut sim, site) = world(seed.0);
    let protocol = site.protocol;
    let count = 1 + sim.rng.below(12);
    let clients_max = if sim.rng.one_in(8) { 1 } else { limits::CLIENTS_MAX };
    // Some runs are stopped in the middle, the others when all clients have had their say.
    let stop_at = if sim.rng.one_in(4) { sim.rng.below(3_000) } else { usize::MAX };
    let mut clients: Vec<Client> = (0..count).map(|_| Client::new(&mut sim, protocol, &NAMES)).collect();
    let mut backends: Vec<Backend> = Vec::new();
    let (listener, docroot, www) = (sim.listener(), sim.folder(), sim.folder());
    let folders = Folders { docroot: Some(docroot), www: Some(www) };
    let mut gateway = Gateway::new(sim, site, folders, vec![listener], clients_max);
    let mut completions = Vec::new();
    let (mut turns, mut was_stopped) = (0, false);
    while !gateway.is_over() {
        let sim = gateway.driver_mut();
        clients.iter_mut().for_each(|client| client.act(sim));
        backends.iter_mut().for_each(|backend| backend.act(sim));
        for (name, wire) in std::mem::take(&mut sim.connected) {
            backends.push(Backend::new(sim, name, wire, protocol == Protocol::Packet));
        }
        gateway.turn(&mut completions).expect("the simulated kernel does not fail");
        turns += 1;
        assert!(turns < TURNS_MAX, "the run does not end");
        let waits = |client: &Client| match client.manner {
            Manner::Stalls => false,
            Manner::Dawdles | Manner::Browses => !client.is_over,
            _ => !client.is_over && client.name != "deaf",
        };
        let is_done = turns >= stop_at || (!clients.iter().any(waits) && gateway.driver_mut().waiting.is_empty());
        if is_done && !std::mem::replace(&mut was_stopped, true) {
            gateway.stop();
        }
    }
    let is_stopped = stop_at != usize::MAX || clients_max == 1;
    clients.iter().for_each(|client| client.check_end(is_stopped));
    assert_eq!(gateway.connections(), 0, "connections outlive the deadline");
    assert_eq!(gateway.driver_mut().leaks(), "", "leaks");
}
