//! A simulated UNIX server.

use std::collections::VecDeque;

use crate::driver::sim::Sim;

/// A server's connection.
pub struct Backend {
    wire: usize,
    /// What is still to be sent back: chunks or packets.
    owed: VecDeque<Vec<u8>>,
    /// Bytes until it does what its name says.
    patience: usize,
    name: String,
    packets: bool,
    is_over: bool,
}

impl Backend {
    /// The server behind a new connection.
    pub fn new(sim: &mut Sim, name: String, wire: usize, packets: bool) -> Backend {
        let patience = sim.rng.below(2_000);
        Backend { wire, owed: VecDeque::new(), patience, name, packets, is_over: false }
    }

    /// Echoes a little, or does what it is named for: `dies` vanishes, `leaves` closes, `deaf` reads nothing.
    pub fn act(&mut self, sim: &mut Sim) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        if self.name == "deaf" {
            // It notices that it is alone when its client is gone.
            self.is_over = sim.wires[self.wire].is_closed;
            return;
        }
        if sim.rng.one_in(2)
            && self.owed.len() < 4
            && let Some(chunk) = sim.wires[self.wire].read()
        {
            self.patience = self.patience.saturating_sub(chunk.len().max(1));
            self.owed.push_back(chunk);
        }
        let wire = &mut sim.wires[self.wire];
        if let Some(chunk) = self.owed.front_mut()
            && let Some(size) = wire.write(chunk)
        {
            chunk.drain(..size);
            if chunk.is_empty() || self.packets {
                self.owed.pop_front();
            }
        }
        match self.name.as_str() {
            "dies" if self.patience == 0 => wire.reset(),
            "leaves" if self.patience == 0 => wire.leave(),
            _ if wire.is_at_end() && self.owed.is_empty() => wire.leave(),
            _ => return,
        }
        self.is_over = true;
    }
}
