//! Random numbers, and the connections between the simulated kernel and the actors of a test.

use std::collections::VecDeque;

use crate::driver::Address;

/// A small generator (splitmix64): the same seed gives the same run everywhere.
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `below` - 1.
    pub fn below(&mut self, below: usize) -> usize {
        (self.draw() % below.max(1) as u64) as usize
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Bytes or packets on their way in one direction.
#[derive(Default)]
pub struct Pipe {
    pub(super) chunks: VecDeque<Vec<u8>>,
    pub(super) size: usize,
    pub(super) capacity: usize,
    /// The writer sends no more.
    pub(super) finished: bool,
    /// The reader is gone, or the connection was reset.
    pub(super) broken: bool,
}

impl Pipe {
    /// Makes one chunk of the first ones, until it has `size` bytes.
    pub(super) fn join(&mut self, size: usize) {
        let Some(mut first) = self.chunks.pop_front() else { return };
        while first.len() < size
            && let Some(next) = self.chunks.pop_front()
        {
            first.extend(next);
        }
        self.chunks.push_front(first);
    }
}

/// One end of a simulated connection, for the other side of which an actor of the test speaks.
pub struct Wire {
    /// What the gateway reads.
    pub to_gateway: Pipe,
    /// What the gateway writes.
    pub from_gateway: Pipe,
    pub(super) packets: bool,
    /// The client's address.
    pub address: Address,
    /// The address that the client connected to.
    pub local: Address,
    /// The gateway has closed its end.
    pub is_closed: bool,
    /// A server has the gateway's end too, and closes it.
    pub is_passed: bool,
}

impl Wire {
    pub(super) fn new(capacity: usize, packets: bool) -> Wire {
        let pipe = || Pipe { capacity, ..Pipe::default() };
        let (to_gateway, from_gateway) = (pipe(), pipe());
        let (address, local) = (Address::Unix, Address::Unix);
        Wire { to_gateway, from_gateway, packets, address, local, is_closed: false, is_passed: false }
    }

    /// The actor writes; returns how much there was room for. A packet fits whole or not at all (None).
    pub fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        let pipe = &mut self.to_gateway;
        let room = pipe.capacity.saturating_sub(pipe.size);
        let fits = if self.packets { pipe.chunks.is_empty() || bytes.len() <= room } else { room > 0 };
        if !fits || pipe.finished || pipe.broken {
            return None;
        }
        let size = if self.packets { bytes.len() } else { bytes.len().min(room) };
        pipe.chunks.push_back(bytes[..size].to_vec());
        pipe.size += size;
        Some(size)
    }

    /// Whether it carries packets.
    pub fn has_packets(&self) -> bool {
        self.packets
    }

    /// What the actor wrote and the gateway has not read.
    pub fn unread_size(&self) -> usize {
        self.to_gateway.size
    }

    /// The actor reads a chunk, or a packet.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let chunk = self.from_gateway.chunks.pop_front()?;
        self.from_gateway.size -= chunk.len();
        Some(chunk)
    }

    /// The actor has read all, and nothing more will come.
    pub fn is_at_end(&self) -> bool {
        self.from_gateway.chunks.is_empty() && (self.from_gateway.finished || self.is_closed)
    }

    /// The gateway's end is closed, unless it has been passed on.
    pub(super) fn close(&mut self) {
        if std::mem::take(&mut self.is_passed) {
            return;
        }
        self.is_closed = true;
        self.from_gateway.finished = true;
        // Unread bytes make a close a reset, which may overtake what was sent.
        self.to_gateway.broken = true;
    }

    /// Who was given the gateway's end reads what the client sends; None: nothing is there.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let chunk = self.to_gateway.chunks.pop_front()?;
        self.to_gateway.size -= chunk.len();
        Some(chunk)
    }

    /// Who was given the gateway's end writes to the client, without a limit.
    pub fn give(&mut self, bytes: &[u8]) {
        if !self.from_gateway.broken {
            self.from_gateway.chunks.push_back(bytes.to_vec());
            self.from_gateway.size += bytes.len();
        }
    }

    /// Whether the client of a passed end sends no more.
    pub fn has_client_left(&self) -> bool {
        self.to_gateway.broken || (self.to_gateway.finished && self.to_gateway.chunks.is_empty())
    }

    /// Who was given the gateway's end closes it.
    pub fn close_passed(&mut self) {
        self.is_passed = false;
        self.close();
    }

    /// The actor sends no more.
    pub fn finish(&mut self) {
        self.to_gateway.finished = true;
    }

    /// The actor vanishes: what is on its way is lost.
    pub fn reset(&mut self) {
        self.to_gateway.broken = true;
        self.from_gateway.broken = true;
    }

    /// The actor goes in order: what it sent arrives, what is sent to it breaks.
    pub fn leave(&mut self) {
        self.to_gateway.finished = true;
        self.from_gateway.broken = true;
    }
}
