//! Fairness under load: many connections of one address send as fast as possible, and another address measures the
//! latency. Between a request and its answer the gateway must do a bounded amount of work.

use std::sync::Arc;

use super::world::{endpoint, listening};
use super::*;
use crate::driver::sim::{Handle, Node};
use crate::driver::{Completion, SocketType};
use crate::gateway::listener::ListenerSetup;
use crate::route::{Protocol, Service, Site};
use crate::transport::StageKind;
use crate::types::Address;

const FLOODING: usize = 300;
/// A flooding client's write: ten pings, the most that one receive returns.
const PINGS: [u8; 60] = {
    let mut bytes = [0; 60];
    let mut at = 0;
    while at < bytes.len() {
        (bytes[at], bytes[at + 1]) = (0x89, 0x80);
        at += 6;
    }
    bytes
};
const REQUEST: &[u8] = b"GET /small.html HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const HANDSHAKE: &[u8] = b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// Maximum turns from a request to its answer. Each step may be delayed at random.
const TURNS_MAX: usize = 200;
const TURN_MS: u64 = 20;
/// Maximum bytes of the flood read per turn, on average: a few visits with the limits of the tests. Without limits it
/// would be the pool's capacity, thousands of bytes.
const READ_PER_TURN_MAX: usize = 64;

struct Flood {
    gateway: Gateway<Sim>,
    wires: Vec<usize>,
    backends: Vec<Backend>,
    completions: Vec<Completion<Handle>>,
    /// Bytes of the flood that the gateway has read, and the number of turns.
    read_size: usize,
    turns: usize,
}

fn host(last: u8) -> Address {
    Address::Tcp(([127, 0, 0, last], 1).into())
}

impl Flood {
    fn start(seed: u64) -> Flood {
        let mut sim = Sim::new(seed, limits::POOL_BUFFERS.default as usize);
        sim.trees[0].insert("echo".into(), Node::Backend(SocketType::Stream));
        pages::add_files(&mut sim);
        let service = Arc::new(Service { protocol: Protocol::Stream, ..Service::default() });
        let site = Site { has_www: true, has_docroot: true, service, ..Site::default() };
        let endpoint = endpoint(site, StageKind::Plain, &mut sim);
        let (address, socket) = listening(&mut sim, 0);
        let wires: Vec<usize> = (0..FLOODING).map(|_| sim.client(0, 1 << 16, host(1))).collect();
        wires.iter().for_each(|wire| _ = sim.wires[*wire].write(HANDSHAKE));
        let process = limits::Process::default();
        let mut gateway = Gateway::new(sim, process.clone());
        gateway.configure(process, vec![ListenerSetup { address, socket, file: None, endpoint }]);
        let mut flood = Flood { gateway, wires, backends: Vec::new(), completions: Vec::new(), read_size: 0, turns: 0 };
        (0..2_000).for_each(|_| flood.turn(false));
        (0..200).for_each(|_| flood.turn(true));
        flood
    }

    fn turn(&mut self, is_flooding: bool) {
        let sim = self.gateway.driver_mut();
        sim.now_ms += TURN_MS;
        for wire in &self.wires {
            let wire = &mut sim.wires[*wire];
            while wire.read().is_some() {}
            while is_flooding && wire.unread_size() < 8 * PINGS.len() && wire.write(&PINGS).is_some() {}
        }
        self.backends.iter_mut().for_each(|backend| backend.act(sim));
        for (name, wire) in std::mem::take(&mut sim.connected) {
            self.backends.push(Backend::new(sim, name, wire, false));
        }
        let before = self.unread_size();
        self.gateway.turn(None, &mut self.completions).expect("the simulated kernel does not fail");
        self.read_size += before - self.unread_size();
        self.turns += 1;
    }

    fn unread_size(&mut self) -> usize {
        let sim = self.gateway.driver_mut();
        self.wires.iter().map(|wire| sim.wires[*wire].unread_size()).sum()
    }

    /// Sends bytes from another address and returns the response up to the point where `is_whole` holds.
    fn ask(&mut self, wire: usize, bytes: &[u8], is_whole: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        assert_eq!(self.gateway.driver_mut().wires[wire].write(bytes), Some(bytes.len()));
        let mut answer = Vec::new();
        for _ in 0..TURNS_MAX {
            self.turn(true);
            while let Some(chunk) = self.gateway.driver_mut().wires[wire].read() {
                answer.extend(chunk);
            }
            if is_whole(&answer) {
                return answer;
            }
        }
        panic!("no answer after {TURNS_MAX} turns: {}", answer.escape_ascii());
    }
}

#[test]
fn a_flood_of_one_address_is_not_felt_by_another() {
    log::set_level(Level::Error);
    for seed in 0..4 {
        let _seed = Seed(seed);
        let mut flood = Flood::start(seed);
        // The flood holds all buffers available to it. From here on it gets one only when it has released one.
        (flood.read_size, flood.turns) = (0, 0);
        for _ in 0..10 {
            let wire = flood.gateway.driver_mut().client(0, 1 << 16, host(2));
            let is_whole = |answer: &[u8]| {
                // Opening the page may fail for lack of file descriptors.
                let is_refused = answer.starts_with(b"HTTP/1.1 503 ");
                let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
                is_refused || head.is_some_and(|at| answer.len() == at + 4 + 1_000)
            };
            flood.ask(wire, REQUEST, is_whole);
        }
        let wire = flood.gateway.driver_mut().client(0, 1 << 16, host(3));
        let head = flood.ask(wire, HANDSHAKE, |answer| answer.ends_with(b"\n"));
        if head.starts_with(b"HTTP/1.1 101 ") {
            for _ in 0..10 {
                flood.ask(wire, b"\x81\x85\0\0\0\0hello", |answer| answer.ends_with(b"o"));
            }
        }
        // Each turn does the work of one busy turn, independent of the sender.
        let per_turn = flood.read_size / flood.turns;
        let is_limited = (1..=READ_PER_TURN_MAX).contains(&per_turn);
        assert!(is_limited, "{per_turn} bytes of the flood were read in a turn, of {READ_PER_TURN_MAX} at most");
    }
}
