//! The memory bound: clients that never read, while their backends send as fast as possible.

use std::sync::Arc;

use super::world::{endpoint, listening};
use super::*;
use crate::driver::SocketType;
use crate::driver::sim::Node;
use crate::gateway::listener::ListenerSetup;
use crate::route::{Protocol, Service, Site};
use crate::transport::StageKind;
use crate::types::Address;

const CLIENTS: u8 = 250;
const HANDSHAKE: &[u8] = b"GET /server HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// Room for the response to the handshake, and for little else.
const CLIENT_CAPACITY: usize = 1_000;
/// A driver may return other completions first.
const LATENESS: usize = 100;
const TURNS: usize = 3_000;

/// Connections that are broken off hold their bytes in flight until the driver returns them, which takes some waits.
#[test]
fn clients_that_never_read_stay_below_the_bound() {
    log::set_level(Level::Error);
    let process = limits::Process {
        queued_size_max: limits::QUEUED_SIZE_MAX.min,
        pool_buffers: limits::POOL_BUFFERS.min,
        ..limits::Process::default()
    };
    for seed in 0..4 {
        let _seed = Seed(seed);
        let mut sim = Sim::new(seed, process.pool_buffers as usize);
        sim.is_plain = seed == 0;
        sim.capacity = Some(1 << 20);
        sim.lateness = LATENESS;
        sim.trees[0].insert("server".into(), Node::Backend(SocketType::Stream));
        let service = Arc::new(Service { protocol: Protocol::Stream, ..Service::default() });
        let site = Site { has_docroot: true, service, ..Site::default() };
        let endpoint = endpoint(site, StageKind::Plain, &mut sim);
        let (address, socket) = listening(&mut sim, 0);
        for number in 0..CLIENTS {
            let wire = sim.client(0, CLIENT_CAPACITY, Address::Tcp(([127, 0, 0, number], 1).into()));
            sim.wires[wire].write(HANDSHAKE);
        }
        let mut gateway = Gateway::new(sim, process.clone());
        gateway.configure(process.clone(), vec![ListenerSetup { address, socket, file: None, endpoint }]);
        let (mut backends, mut completions, mut most) = (Vec::new(), Vec::new(), 0);
        for _ in 0..TURNS {
            let sim = gateway.driver_mut();
            backends.extend(std::mem::take(&mut sim.connected).into_iter().map(|(_, wire)| wire));
            for wire in &backends {
                while sim.wires[*wire].write(&[b'x'; 16 * 1024]).is_some() {}
            }
            gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
            most = most.max(gateway.held_size());
        }
        let bound = process.held_size_max();
        let broken_off = gateway.driver_mut().wires.iter().filter(|wire| wire.is_closed).count();
        println!("{broken_off} connections were broken off, {most} bytes were held, {bound} at most");
        assert!(broken_off > 0, "the limit was not reached");
        assert!(most <= bound, "{most} bytes were held where {bound} should be the most");
    }
}
