//! Random numbers, and the connections between the simulated kernel and the actors of a test.

use std::collections::VecDeque;

use crate::driver::TlsRecord;
use crate::types::Address;

/// A small random number generator (splitmix64): the same seed gives the same sequence on all platforms.
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

/// Bytes or packets in transit in one direction.
#[derive(Default)]
pub struct Pipe {
    pub(super) chunks: VecDeque<Vec<u8>>,
    pub(super) size: usize,
    pub(super) capacity: usize,
    /// The writer has ended the stream.
    pub(super) finished: bool,
    /// The reader has closed, or the connection was reset.
    pub(super) broken: bool,
}

impl Pipe {
    /// Joins the first chunks into one until it has `size` bytes.
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

/// A simulated connection between the gateway and an actor of the test.
pub struct Wire {
    /// The direction to the gateway.
    pub to_gateway: Pipe,
    /// The direction from the gateway.
    pub from_gateway: Pipe,
    pub(super) packets: bool,
    /// The client's address.
    pub address: Address,
    /// The address that the client connected to.
    pub local: Address,
    /// The gateway has closed its end.
    pub is_closed: bool,
    /// A backend also holds the gateway's end, and closes it.
    pub is_passed: bool,
    /// Records of the kernel's TLS that are no application data, after all bytes.
    pub records_to_gateway: VecDeque<TlsRecord>,
    /// As `records_to_gateway`, sent by the gateway.
    pub records_from_gateway: Vec<TlsRecord>,
}

impl Wire {
    pub(super) fn new(capacity: usize, packets: bool) -> Wire {
        let pipe = || Pipe { capacity, ..Pipe::default() };
        let (to_gateway, from_gateway) = (pipe(), pipe());
        let (address, local) = (Address::Unix, Address::Unix);
        Wire {
            to_gateway,
            from_gateway,
            packets,
            address,
            local,
            is_closed: false,
            is_passed: false,
            records_to_gateway: VecDeque::new(),
            records_from_gateway: Vec::new(),
        }
    }

    /// The actor writes. Returns the number of bytes that fitted. A packet fits whole or not at all (None).
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

    /// Whether the connection carries packets.
    pub fn has_packets(&self) -> bool {
        self.packets
    }

    /// Number of bytes that the actor wrote and the gateway has not read.
    pub fn unread_size(&self) -> usize {
        self.to_gateway.size
    }

    /// The actor reads a chunk, or a packet.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        let chunk = self.from_gateway.chunks.pop_front()?;
        self.from_gateway.size -= chunk.len();
        Some(chunk)
    }

    /// Whether the actor has read all bytes and the stream has ended.
    pub fn is_at_end(&self) -> bool {
        self.from_gateway.chunks.is_empty() && (self.from_gateway.finished || self.is_closed)
    }

    /// Closes the gateway's end, unless it was passed on.
    pub(super) fn close(&mut self) {
        if std::mem::take(&mut self.is_passed) {
            return;
        }
        self.is_closed = true;
        self.from_gateway.finished = true;
        // A close with unread bytes sends a reset, which may overtake sent bytes.
        self.to_gateway.broken = true;
    }

    /// The holder of a passed end reads the client's bytes; None: no bytes are there.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let chunk = self.to_gateway.chunks.pop_front()?;
        self.to_gateway.size -= chunk.len();
        Some(chunk)
    }

    /// The holder of a passed end writes to the client, without a limit.
    pub fn give(&mut self, bytes: &[u8]) {
        if !self.from_gateway.broken {
            self.from_gateway.chunks.push_back(bytes.to_vec());
            self.from_gateway.size += bytes.len();
        }
    }

    /// Whether the client of a passed end has ended its stream.
    pub fn has_client_left(&self) -> bool {
        self.to_gateway.broken || (self.to_gateway.finished && self.to_gateway.chunks.is_empty())
    }

    /// As `finish`, for the direction to the actor.
    pub fn end_down(&mut self) {
        self.from_gateway.finished = true;
    }

    /// Whether the actor has reset the connection.
    pub fn was_reset(&self) -> bool {
        self.to_gateway.broken
    }

    /// The holder of a passed end closes it.
    pub fn close_passed(&mut self) {
        self.is_passed = false;
        self.close();
    }

    /// The actor ends its stream.
    pub fn finish(&mut self) {
        self.to_gateway.finished = true;
    }

    /// The actor resets the connection: bytes in transit are lost.
    pub fn reset(&mut self) {
        self.to_gateway.broken = true;
        self.from_gateway.broken = true;
    }

    /// The actor closes without a reset: its bytes arrive; writes to it fail.
    pub fn leave(&mut self) {
        self.to_gateway.finished = true;
        self.from_gateway.broken = true;
    }
}
