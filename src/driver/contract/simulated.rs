//! The scene of the simulated kernel, plain: each operation that can complete completes at once.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::net::SocketAddr;

use super::{BUFFERS, Family, File, Heard, Host, Scene};
use crate::driver::device::Device;
use crate::driver::sim::{self, Node, Sim};
use crate::driver::{Errno, SocketType, Token};
use crate::types::Address;

/// Bytes that a connection holds in each direction.
const CAPACITY: usize = 64 * 1024;
/// The folder's path.
const FOLDER: &str = "/folder";

/// The simulated kernel with what surrounds it.
pub(super) struct Simulated {
    sim: Sim,
    /// Clients and ports so far, which number their addresses.
    count: u16,
    /// The addresses of the ports; the first port is the simulated kernel's own.
    ports: Vec<Address>,
    /// Hand-overs: the record, and what was passed, until the case takes them.
    parcels: Vec<Option<(Vec<u8>, SimFar)>>,
    /// The rests of chunks that far ends have read in part, and whether the far end was passed.
    rests: HashMap<(usize, bool), Vec<u8>>,
}

/// The far end of a simulated connection.
pub(super) enum SimFar {
    /// The test's end of a wire.
    Actor(usize),
    /// The driver's end of a wire, which was handed over.
    Passed(usize),
    /// The connection that carried a hand-over, by its number.
    Carrier(usize),
}

impl Simulated {
    pub(super) fn new() -> Simulated {
        let mut sim = Sim::new(1, BUFFERS.into());
        sim.is_plain = true;
        sim.capacity = Some(CAPACITY);
        let root = Node::Root(0);
        sim.paths.insert(FOLDER.to_owned(), root);
        Simulated { sim, count: 0, ports: vec![Address::Unix], parcels: Vec::new(), rests: HashMap::new() }
    }

    fn next_address(&mut self) -> SocketAddr {
        self.count += 1;
        SocketAddr::from(([192, 0, 2, 1], self.count))
    }
}

impl Scene for Simulated {
    type Driver = Sim;
    type Far = SimFar;
    const IS_SIMULATED: bool = true;

    fn driver(&mut self) -> &mut Sim {
        &mut self.sim
    }

    fn drop_driver(&mut self) {
        panic!("the far ends are part of it");
    }

    fn leaks(&self) -> String {
        self.sim.leaks()
    }

    fn listener(&mut self, family: Family) -> (sim::Handle, usize) {
        let address = match family {
            Family::Tcp => Address::Tcp(self.next_address()),
            Family::Unix => Address::Unix,
        };
        self.ports.push(address);
        let port = self.sim.port(address);
        (self.sim.listener_at(port), port)
    }

    fn port_address(&self, port: usize) -> Address {
        self.ports[port]
    }

    fn client(&mut self, port: usize) -> SimFar {
        let address = match self.ports[port] {
            Address::Tcp(_) => Address::Tcp(self.next_address()),
            other => other,
        };
        SimFar::Actor(self.sim.client(port, CAPACITY, address))
    }

    fn client_address(&self, client: &SimFar) -> Address {
        match client {
            SimFar::Actor(wire) => self.sim.wires[*wire].address,
            _ => Address::Unknown,
        }
    }

    fn folder(&mut self) -> sim::Handle {
        self.sim.folder(0)
    }

    fn path(&self, name: &str) -> CString {
        let path = if name.is_empty() { FOLDER.to_owned() } else { format!("{FOLDER}/{name}") };
        CString::new(path).expect("no NUL")
    }

    fn add(&mut self, name: &str, file: File<'_>) {
        let node = match file {
            File::Bytes(bytes) => Node::File(bytes.to_vec()),
            File::Folder => Node::Folder,
            File::Listening(socket_type) => Node::Backend(socket_type),
            File::Refusing => Node::Dead,
            File::Full => Node::Full(u64::MAX),
            File::LinkOut => Node::Outside,
            File::Fifo => Node::Fifo,
            File::Link(_) => panic!("no links"),
        };
        self.sim.trees[0].insert(name.to_owned(), node.clone());
        self.sim.paths.insert(format!("{FOLDER}/{name}"), node);
    }

    fn make_room(&mut self, name: &str) {
        self.add(name, File::Listening(SocketType::Stream));
    }

    fn host(&mut self, host: Host) -> SocketAddr {
        let address = self.next_address();
        let host = match host {
            Host::Answering => sim::Host::Backend(address.to_string()),
            Host::Refusing => sim::Host::Refuses,
            Host::Silent => sim::Host::Silent,
        };
        self.sim.hosts.insert(address, host);
        address
    }

    fn arrived(&mut self, backend: &str) -> Option<SimFar> {
        if let Some(index) = self.sim.connected.iter().position(|(name, _)| name == backend) {
            return Some(SimFar::Actor(self.sim.connected.remove(index).1));
        }
        let index = self.sim.handed_over.iter().position(|one| one.name == backend)?;
        let sim::HandedOverClient { wire, is_relayed, record, .. } = self.sim.handed_over.remove(index);
        let passed = if is_relayed { SimFar::Actor(wire) } else { SimFar::Passed(wire) };
        self.parcels.push(Some((record, passed)));
        Some(SimFar::Carrier(self.parcels.len() - 1))
    }

    fn parcel(&mut self, connection: &SimFar) -> Option<(Vec<u8>, Vec<SimFar>)> {
        let SimFar::Carrier(number) = connection else { panic!("no parcels come this way") };
        self.parcels[*number].take().map(|(record, far)| (record, vec![far]))
    }

    fn device(&mut self, device: Device) -> CString {
        let path = format!("/dev/{}", self.sim.paths.len());
        let node = if matches!(device, Device::Tty { .. }) { Node::Tty } else { Node::Fifo };
        self.sim.paths.insert(path.clone(), node);
        CString::new(path).expect("no NUL")
    }

    fn device_far(&mut self, path: &CStr) -> SimFar {
        let name = path.to_str().expect("UTF-8").rsplit('/').next().expect("a name");
        self.arrived(name).expect("a device that is prepared")
    }

    fn write(&mut self, far: &SimFar, bytes: &[u8]) -> Option<usize> {
        match far {
            SimFar::Actor(wire) => self.sim.wires[*wire].write(bytes),
            SimFar::Passed(wire) => {
                self.sim.wires[*wire].give(bytes);
                Some(bytes.len())
            }
            SimFar::Carrier(_) => None,
        }
    }

    fn read(&mut self, far: &SimFar, size_max: usize) -> Heard {
        let key = match far {
            SimFar::Actor(wire) => (*wire, false),
            SimFar::Passed(wire) | SimFar::Carrier(wire) => (*wire, true),
        };
        if let Some(mut bytes) = self.rests.remove(&key) {
            if bytes.len() > size_max {
                self.rests.insert(key, bytes.split_off(size_max));
            }
            return Heard::Bytes(bytes);
        }
        let (bytes, has_ended) = match far {
            SimFar::Actor(wire) => {
                let wire = &mut self.sim.wires[*wire];
                (wire.read(), wire.is_at_end())
            }
            SimFar::Passed(wire) => {
                let wire = &mut self.sim.wires[*wire];
                (wire.take(), wire.has_client_left())
            }
            SimFar::Carrier(number) => (None, self.parcels[*number].is_none()),
        };
        match bytes {
            Some(mut bytes) => {
                if bytes.len() > size_max {
                    self.rests.insert(key, bytes.split_off(size_max));
                }
                Heard::Bytes(bytes)
            }
            None if has_ended => Heard::End,
            None => Heard::Nothing,
        }
    }

    fn finish(&mut self, far: &SimFar) {
        match far {
            SimFar::Actor(wire) => self.sim.wires[*wire].finish(),
            SimFar::Passed(wire) => self.sim.wires[*wire].end_down(),
            SimFar::Carrier(_) => {}
        }
    }

    fn leave(&mut self, far: SimFar) {
        match far {
            SimFar::Actor(wire) => self.sim.wires[wire].leave(),
            SimFar::Passed(wire) => self.sim.wires[wire].close_passed(),
            SimFar::Carrier(_) => {}
        }
    }

    fn reset(&mut self, far: SimFar) {
        match far {
            SimFar::Actor(wire) => self.sim.wires[wire].reset(),
            _ => panic!("only an actor resets"),
        }
    }

    fn keep_small(&mut self, _: &sim::Handle) {}

    fn urge(&mut self, _: &SimFar) {
        panic!("no urgent data");
    }

    fn write_with_descriptor(&mut self, _: &SimFar, _: &[u8]) -> SimFar {
        panic!("no descriptors");
    }

    fn has_name(&self, _: &sim::Handle) -> bool {
        panic!("no names");
    }

    fn limit_unsent(&mut self, _: &sim::Handle) {
        panic!("no options");
    }

    fn unsent_size_max(&self, _: &sim::Handle) -> u32 {
        panic!("no options");
    }

    fn has_keepalive(&self, _: &sim::Handle) -> bool {
        panic!("no options");
    }

    fn watch_signal(&mut self, _: Token) -> Result<i32, Errno> {
        panic!("no signals");
    }

    fn raise_signal(&mut self) {
        panic!("no signals");
    }
}
