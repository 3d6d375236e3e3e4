//! Runs the whole gateway on a simulated kernel against a shadow model. Each byte arrives once and in order, or the
//! connection ends with a reason; no slot, buffer or handle leaks; every run terminates.
//!
//! `UAKARI_SEED=7 cargo test simulation` replays one seed; `UAKARI_SEEDS=20000` sets the number of seeds.

mod auth;
mod backend;
mod client;
mod codec;
mod fairness;
mod folders;
mod memory;
mod nodes;
mod pages;
mod pipes;
mod proxy;
mod receiver;
mod trunk;
mod upstreams;
mod world;

use super::Gateway;
use crate::driver::sim::Sim;
use crate::gateway::carrier::STREAMS;
use crate::limits;
use crate::observe::log::{self, Level};
use backend::Backend;
use client::{Client, Manner};
use receiver::Receiver;
use trunk::Trunk;
use world::{World, listening, listening_again};

const SEEDS: u64 = 256;
/// Turns after which a run counts as non-terminating.
const TURNS_MAX: usize = 1_000_000;
/// Maximum turns for reopening a folder.
const LOOK_TURNS_MAX: usize = 100;
/// Each of these must have a conversation in at least one of the first `SEEDS` runs.
const BACKENDS: [&str; 10] = ["echo", "dies", "leaves", "narrow", "unix", "tcp", "tty", "line", "source", "sink"];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Prints the seed when a run fails.
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
    if let Some(seed) = number("UAKARI_SEED") {
        run(seed);
        return;
    }
    let (seeds, mut missing) = (number("UAKARI_SEEDS").unwrap_or(SEEDS), BACKENDS.to_vec());
    let mut full_trunks = 0;
    for seed in 0..seeds {
        let outcome = run(seed);
        missing.retain(|name| !outcome.opened.contains(name));
        full_trunks += usize::from(outcome.has_full_trunk);
    }
    assert!(seeds < SEEDS || missing.is_empty(), "no conversation with {missing:?}");
    assert!(seeds < SEEDS || full_trunks > 0, "no socket carried three conversations");
}

#[test]
fn a_seed_gives_the_same_run() {
    log::set_level(Level::Error);
    for seed in 0..8 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// Result of a run, compared to verify determinism.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    turns: usize,
    end_ms: u64,
    /// A random number drawn at the end: equal if equal runs drew equally many.
    random: u64,
    /// Names of the conversations that were opened.
    opened: Vec<&'static str>,
    /// Whether all clients of a trunk opened a conversation.
    has_full_trunk: bool,
}

fn run(seed: u64) -> Outcome {
    let seed = Seed(seed);
    let (mut sim, world) = World::draw(seed.0);
    // At most 12 clients, those of a trunk included: more take too many turns where messages are cut into single bytes.
    let count = 1 + sim.rng.below(if world.trunk_port.is_some() { 12 - STREAMS } else { 12 });
    // Some runs are stopped midway, the others after all clients are done.
    let stop_at = if sim.rng.one_in(4) { sim.rng.below(3_000) } else { usize::MAX };
    let mut clients: Vec<Client> = (0..count).map(|_| Client::new(&mut sim, &world)).collect();
    let mut trunk = world.trunk_port.map(|port| Trunk::new(port, &mut sim, &world, &mut clients));
    let (mut backends, mut receivers): (Vec<Backend>, Vec<Receiver>) = Default::default();
    // Some runs reload the configuration midway. Existing connections must not be affected.
    let reload_at = if sim.rng.one_in(3) { sim.rng.below(500) } else { usize::MAX };
    let setups = world.setups(&mut sim, listening);
    let mut endpoints: Vec<_> = setups.iter().map(|setup| setup.endpoint.clone()).collect();
    let mut gateway = Gateway::new(sim, world.process.clone());
    gateway.configure(world.process.clone(), setups);
    let mut completions = Vec::new();
    let (mut turns, mut was_stopped) = (0, false);
    while !gateway.is_over() {
        let sim = gateway.driver_mut();
        clients.iter_mut().for_each(|client| client.act(sim));
        trunk.iter_mut().for_each(|trunk| trunk.act(sim));
        backends.iter_mut().for_each(|backend| backend.act(sim));
        receivers.iter_mut().for_each(|receiver| receiver.act(sim));
        for client in std::mem::take(&mut sim.handed_over) {
            receivers.push(Receiver::new(sim, client, world.has_hello));
        }
        for (name, wire) in std::mem::take(&mut sim.connected) {
            backends.push(Backend::new(sim, name, wire, world.has_hello));
        }
        world.deploy(turns, sim);
        if turns == reload_at && !was_stopped {
            let setups = world.setups(sim, listening_again);
            endpoints.extend(setups.iter().map(|setup| setup.endpoint.clone()));
            gateway.configure(world.process.clone(), setups);
        }
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        turns += 1;
        let waits = |client: &Client| match client.manner {
            Manner::Stalls => false,
            // The run ends only when the gateway has closed each client that answers no ping, unless a backend that does not read has paused it.
            Manner::Silent => client.was_pinged && !client.is_over && client.name != "deaf",
            Manner::Dawdles | Manner::Browses => !client.is_over,
            _ => !client.is_over && client.name != "deaf",
        };
        if turns >= TURNS_MAX {
            let waiting: Vec<String> = clients.iter().filter(|client| waits(client)).map(Client::progress).collect();
            panic!("the run does not end: {}", waiting.join("; "));
        }
        let sim = gateway.driver_mut();
        let is_received = !sim.has_waiting() && trunk.iter().all(|trunk| trunk.is_received(sim));
        let is_done = turns >= stop_at || is_received && !clients.iter().any(waits);
        if is_done && !std::mem::replace(&mut was_stopped, true) {
            gateway.stop();
            backends.iter_mut().for_each(|backend| backend.on_stop(gateway.driver_mut()));
        }
    }
    let is_stopped = stop_at != usize::MAX || world.is_tight();
    let was_reloaded = reload_at < turns;
    clients.iter().for_each(|client| client.check_end(is_stopped, was_reloaded));
    assert!(gateway.has_empty_counts(), "connections outlive the deadline, or something is counted that is not there");
    let held = endpoints.iter().map(|endpoint| endpoint.permits_held()).sum::<u64>();
    assert_eq!(held, 0, "permits outlive their connections");
    assert_eq!(leaks(&mut gateway), "", "leaks");
    // A client that waits for its accept when the gateway is stopped has no access line.
    let access_lines = log::take_access_lines().len();
    let exchanges = clients.len() - trunk.as_ref().map_or(0, Trunk::idle_streams);
    let is_complete = access_lines == exchanges || stop_at != usize::MAX && access_lines < exchanges;
    assert!(is_complete, "{access_lines} access lines of {exchanges} exchanges");
    let sim = gateway.driver_mut();
    let sent: Vec<_> = clients.iter().filter_map(Client::sent).collect();
    let received: Vec<_> = backends.iter_mut().filter_map(|backend| backend.received(sim)).collect();
    pipes::check_sink(&sent, &received, is_stopped);
    let opened = clients.iter().filter(|client| client.has_opened()).map(|client| client.name).collect();
    let have_all_opened = |trunk: &Trunk| clients[trunk.clients()].iter().all(Client::has_opened);
    let has_full_trunk = trunk.as_ref().is_some_and(have_all_opened);
    Outcome { turns, end_ms: sim.now_ms, random: sim.rng.draw(), opened, has_full_trunk }
}

/// What the kernel counts as leaks after a run. The reopening of a folder may be in flight at its end.
fn leaks(gateway: &mut Gateway<Sim>) -> String {
    let (mut looks, mut completions) = (0, Vec::new());
    while !gateway.driver_mut().leaks().is_empty() && looks < LOOK_TURNS_MAX {
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        looks += 1;
    }
    gateway.driver_mut().leaks()
}
