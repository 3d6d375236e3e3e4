//! A simulated backend: a UNIX socket, a TCP address, or the program at the other end of a device.

use std::collections::VecDeque;

use super::pipes::{Received, source_bytes};
use crate::driver::sim::Sim;
use crate::types::Address;

/// Header size of a PROXY protocol version 2 record (haproxy's proxy-protocol.txt, section 2.2).
const HELLO_HEAD_SIZE: usize = 16;

/// The backend's end of a connection.
pub(super) struct Backend {
    wire: usize,
    /// Bytes received of the PROXY record. None: it was parsed, or none is expected.
    hello: Option<Vec<u8>>,
    /// Data still to be sent, in chunks or packets.
    owed: VecDeque<Vec<u8>>,
    /// Everything that `sink` received.
    got: Vec<u8>,
    /// Whether the gateway was stopped before it had closed this connection.
    is_stopped: bool,
    /// Bytes until it acts as its name says.
    patience: usize,
    name: String,
    is_over: bool,
}

/// Asserts that a PROXY record has the addresses of one of the clients.
pub(super) fn check_hello(sim: &Sim, record: &[u8]) {
    assert!(record.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21"), "no record: {}", record.escape_ascii());
    let told = &record[HELLO_HEAD_SIZE..];
    let is_right = sim.wires.iter().any(|wire| match (wire.address, wire.local, record[13]) {
        (Address::Tcp(client), Address::Tcp(local), 0x11 | 0x21) => {
            let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
            let octets = |address: std::net::SocketAddr| match address.ip() {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            told.starts_with(&[octets(client), octets(local), ports].concat())
        }
        (Address::Tcp(_), ..) => false,
        (_, _, family) => family == 0,
    });
    assert!(is_right, "no client has these addresses: {}", record.escape_ascii());
}

impl Backend {
    /// Creates the backend's end of a new connection.
    pub(super) fn new(sim: &mut Sim, name: String, wire: usize, has_hello: bool) -> Backend {
        let patience = sim.rng.below(2_000);
        let owed = if name == "source" { VecDeque::from([source_bytes()]) } else { VecDeque::new() };
        let hello = (has_hello && name != "source").then(Vec::new);
        Backend { wire, hello, owed, got: Vec::new(), is_stopped: false, patience, name, is_over: false }
    }

    /// Echoes some data, or acts as its name says: `dies` aborts, `leaves` closes, `deaf` reads nothing, `sink` reads,
    /// `source` writes.
    pub(super) fn act(&mut self, sim: &mut Sim) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        if self.name == "deaf" {
            // It notices the end of the connection only when the wire is closed.
            self.is_over = sim.wires[self.wire].is_closed;
            return;
        }
        if sim.rng.one_in(2) && self.owed.len() < 4 {
            self.read(sim);
        }
        let wire = &mut sim.wires[self.wire];
        if let Some(chunk) = self.owed.front_mut()
            && let Some(size) = wire.write(chunk)
        {
            chunk.drain(..size);
            if chunk.is_empty() || wire.has_packets() {
                self.owed.pop_front();
            }
        }
        match self.name.as_str() {
            "dies" if self.patience == 0 => wire.reset(),
            "leaves" if self.patience == 0 => wire.leave(),
            _ if wire.is_at_end() && (wire.is_closed || self.owed.is_empty()) => wire.leave(),
            _ => return,
        }
        self.is_over = true;
    }

    /// Records that the gateway is being stopped.
    pub(super) fn on_stop(&mut self, sim: &Sim) {
        self.is_stopped = !sim.wires[self.wire].is_closed;
    }

    /// Everything that `sink` received, at the end of a run. None: another backend.
    pub(super) fn received(&mut self, sim: &mut Sim) -> Option<Received<'_>> {
        if self.name != "sink" {
            return None;
        }
        // The gateway may end before the backend has read everything.
        while !sim.wires[self.wire].is_at_end() {
            self.read(sim);
        }
        Some(Received { bytes: &self.got, is_cut: self.is_stopped })
    }

    fn read(&mut self, sim: &mut Sim) {
        let Some(mut chunk) = sim.wires[self.wire].read() else { return };
        self.patience = self.patience.saturating_sub(chunk.len().max(1));
        if let Some(hello) = &mut self.hello {
            hello.extend(chunk);
            let size = hello.first_chunk::<HELLO_HEAD_SIZE>().map(|head| u16::from_be_bytes([head[14], head[15]]));
            let Some(end) = size.map(|size| HELLO_HEAD_SIZE + usize::from(size)) else { return };
            if hello.len() < end {
                return;
            }
            chunk = hello.split_off(end);
            check_hello(sim, hello);
            self.hello = None;
            if chunk.is_empty() {
                return;
            }
        }
        match self.name.as_str() {
            "sink" => self.got.extend(chunk),
            _ => self.owed.push_back(chunk),
        }
    }
}
