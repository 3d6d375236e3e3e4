//! Folders whose paths change their target: responses must come from the current target.

use super::world::{endpoint, lead, listening};
use super::{pages, *};
use crate::driver::Completion;
use crate::driver::sim::{Handle, Node};
use crate::gateway::listener::ListenerSetup;
use crate::limits::FOLDER_LOOK_MS;
use crate::route::Site;
use crate::transport::StageKind;
use crate::types::Address;

const REQUEST: &[u8] = b"GET /release HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

struct Server {
    gateway: Gateway<Sim>,
    completions: Vec<Completion<Handle>>,
}

impl Server {
    fn start() -> Server {
        let mut sim = Sim::new(0, 16);
        sim.is_plain = true;
        pages::add_files(&mut sim);
        sim.trees.push(sim.trees[0].clone());
        pages::add_second_release(&mut sim.trees[1]);
        lead(&mut sim, Some(&Node::Root(0)));
        let endpoint = endpoint(Site { has_www: true, ..Site::default() }, StageKind::Plain, &mut sim);
        let (address, socket) = listening(&mut sim, 0);
        let mut gateway = Gateway::new(sim, limits::Process::default());
        let setup = ListenerSetup { address, socket, file: None, endpoint };
        gateway.configure(limits::Process::default(), vec![setup]);
        Server { gateway, completions: Vec::new() }
    }

    fn turn(&mut self) {
        self.gateway.turn(Some(10), &mut self.completions).expect("the simulated kernel does not fail");
    }

    /// Lets time pass with a connected client, so that the gateway reopens its folders.
    fn pass(&mut self, ms: u64) {
        let wire = self.gateway.driver_mut().client(0, 1 << 16, Address::Unix);
        let until_ms = self.gateway.driver_mut().now_ms + ms;
        while self.gateway.driver_mut().now_ms < until_ms {
            self.turn();
        }
        self.gateway.driver_mut().wires[wire].finish();
        (0..10).for_each(|_| self.turn());
    }

    /// Requests the page and returns its last byte.
    fn ask(&mut self) -> u8 {
        let wire = self.gateway.driver_mut().client(0, 1 << 16, Address::Unix);
        self.gateway.driver_mut().wires[wire].write(REQUEST);
        let mut answer = Vec::new();
        while !self.gateway.driver_mut().wires[wire].is_at_end() {
            self.turn();
            answer.extend(std::iter::from_fn(|| self.gateway.driver_mut().wires[wire].read()).flatten());
        }
        self.gateway.driver_mut().wires[wire].finish();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
        answer.last().copied().expect("a page")
    }
}

#[test]
fn another_release_is_served_once_its_path_leads_there() {
    log::set_level(Level::Error);
    let mut server = Server::start();
    let first = server.ask();
    for (node, is_first) in [
        (Some(Node::Root(1)), false),
        // If the new target is unusable, the old folder stays in use.
        (None, false),
        (Some(Node::File(Vec::new())), false),
        (Some(Node::Root(0)), true),
    ] {
        lead(server.gateway.driver_mut(), node.as_ref());
        server.pass(4 * FOLDER_LOOK_MS);
        assert_eq!(server.ask() == first, is_first);
    }
    server.gateway.stop();
    while !server.gateway.is_over() {
        server.turn();
    }
    assert_eq!(server.gateway.driver_mut().leaks(), "");
}
