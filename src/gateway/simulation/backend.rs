//! A simulated backend: a UNIX server, a TCP server, or the program at the other end of a device.

use std::collections::VecDeque;

use super::client::Client;
use crate::driver::Address;
use crate::driver::sim::Sim;

/// Bytes that each client of `source` gets.
const SOURCE_SIZE: usize = 3_000;
/// The head of a record of the PROXY protocol (haproxy's proxy-protocol.txt, section 2.2).
const HELLO_HEAD_SIZE: usize = 16;

/// A backend's connection.
pub struct Backend {
    wire: usize,
    /// What has come of the first record; None: it was taken, or there is none.
    hello: Option<Vec<u8>>,
    /// What is still to be sent: chunks or packets.
    owed: VecDeque<Vec<u8>>,
    /// All that `sink` got.
    got: Vec<u8>,
    /// The gateway was told to stop before it had closed this connection.
    is_stopped: bool,
    /// Bytes until it does what its name says.
    patience: usize,
    name: String,
    is_over: bool,
}

/// What `source` sends: byte `i` is `i`, without what is UTF-8 only with others.
pub fn source_bytes() -> Vec<u8> {
    (0..SOURCE_SIZE).map(|i| i as u8 & 0x7f).collect()
}

/// Asserts that `sink` got what its clients said. One that closed in order said it all before.
pub fn check_sinks(backends: &mut [Backend], clients: &[Client], is_stopped: bool, sim: &mut Sim) {
    let said: Vec<(&[u8], bool)> = clients.iter().filter(|client| client.name == "sink").map(Client::said).collect();
    let mut got = Vec::new();
    for sink in backends.iter_mut().filter(|backend| backend.name == "sink") {
        // The gateway may be over before all is read.
        while !sim.wires[sink.wire].is_at_end() {
            sink.read(sim);
        }
        assert!(said.iter().any(|(bytes, _)| bytes.starts_with(&sink.got)), "nobody said these bytes");
        got.push((&sink.got[..], sink.is_stopped));
    }
    for (bytes, _) in said.iter().filter(|(_, is_whole)| *is_whole && !is_stopped) {
        // The client is gone before all is written, and the gateway may stop then.
        let is_whole = got.iter().any(|(got, is_cut)| got == bytes || *is_cut && bytes.starts_with(got));
        assert!(is_whole, "{} bytes did not come whole", bytes.len());
    }
}

/// Asserts that a hello record has the addresses of some client.
pub fn check_hello(sim: &Sim, record: &[u8]) {
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
    /// The backend of a new connection.
    pub fn new(sim: &mut Sim, name: String, wire: usize, has_hello: bool) -> Backend {
        let patience = sim.rng.below(2_000);
        let owed = if name == "source" { VecDeque::from([source_bytes()]) } else { VecDeque::new() };
        let hello = (has_hello && name != "source").then(Vec::new);
        Backend { wire, hello, owed, got: Vec::new(), is_stopped: false, patience, name, is_over: false }
    }

    /// Echoes a little, or does what it is named for: `dies` vanishes, `leaves` closes, `deaf` reads nothing, `sink`
    /// reads, `source` writes.
    pub fn act(&mut self, sim: &mut Sim) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        if self.name == "deaf" {
            // It notices that it is alone when its client is gone.
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

    /// The gateway is told to stop.
    pub fn on_stop(&mut self, sim: &Sim) {
        self.is_stopped = !sim.wires[self.wire].is_closed;
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
