//! The client's side of a carrier: three clients on one socket.

use std::ops::Range;

use super::client::Client;
use super::world::{World, tcp};
use crate::driver::sim::Sim;
use crate::gateway::carrier::{RECORD_SIZE_MAX, Record, Records, STREAMS};

/// A socket that carries the bytes of several clients. Each client has a wire of its own that ends here.
pub(super) struct Trunk {
    /// Index of its first client.
    first: usize,
    /// The wire to the gateway.
    wire: usize,
    streams: Vec<Stream>,
    records: Records,
    /// Records that did not fit into the wire yet.
    out: Vec<u8>,
    is_over: bool,
}

struct Stream {
    /// The wire to the client.
    wire: usize,
    /// Bytes of the client that are not in a record yet.
    pending: Vec<u8>,
    /// A record of data may be sent.
    has_credit: bool,
    /// A record of data was sent.
    has_begun: bool,
    /// The end or reset of the client was sent.
    has_ended: bool,
}

impl Trunk {
    /// Creates the trunk of a port, and its clients at the end of `clients`.
    pub(super) fn new(port: usize, sim: &mut Sim, world: &World, clients: &mut Vec<Client>) -> Trunk {
        let address = tcp("[2001:db8:0:9::1]:999");
        let first = clients.len();
        clients.extend((0..STREAMS).map(|_| Client::on_stream(sim, world, address)));
        // Large bodies of all clients must arrive within the request timeout.
        let capacity = 1 << (13 + sim.rng.below(5));
        let wire = sim.client(port, capacity, address);
        let stream = |client: &Client| Stream {
            wire: client.wire,
            pending: Vec::new(),
            has_credit: true,
            has_begun: false,
            has_ended: false,
        };
        let streams = clients[first..].iter().map(stream).collect();
        Trunk { first, wire, streams, records: Records::default(), out: Vec::new(), is_over: false }
    }

    /// Indexes of its clients.
    pub(super) fn clients(&self) -> Range<usize> {
        self.first..self.first + STREAMS
    }

    /// Whether the gateway has received all that was sent, so that each stream with a byte has its exchange.
    pub(super) fn is_received(&self, sim: &Sim) -> bool {
        self.is_over || self.out.is_empty() && sim.wires[self.wire].unread_size() == 0
    }

    /// Number of streams without a byte: they have no exchange.
    pub(super) fn idle_streams(&self) -> usize {
        self.streams.iter().filter(|stream| !stream.has_begun).count()
    }

    /// Moves some bytes in both directions.
    pub(super) fn act(&mut self, sim: &mut Sim) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        for (number, stream) in self.streams.iter_mut().enumerate() {
            stream.write(number, &mut self.out, sim);
        }
        if !self.out.is_empty() {
            let written = sim.wires[self.wire].write(&self.out).unwrap_or(0);
            self.out.drain(..written);
        }
        while let Some(chunk) = sim.wires[self.wire].read() {
            self.records.push(&chunk);
            for (number, record) in self.records.by_ref() {
                let stream = &mut self.streams[number];
                let wire = &mut sim.wires[stream.wire];
                match record {
                    Record::Data(data) => wire.give(&data),
                    Record::End => wire.end_down(),
                    Record::Reset => wire.close_passed(),
                    Record::Credit => stream.has_credit = true,
                }
            }
        }
        if sim.wires[self.wire].is_at_end() {
            self.streams.iter().for_each(|stream| sim.wires[stream.wire].close_passed());
            sim.wires[self.wire].finish();
            self.is_over = true;
        }
        // When all clients have ended, so does the socket.
        if self.out.is_empty() && self.streams.iter().all(|stream| stream.has_ended) {
            sim.wires[self.wire].finish();
        }
    }
}

impl Stream {
    /// Appends records of what the client has written to `out`.
    fn write(&mut self, number: usize, out: &mut Vec<u8>, sim: &mut Sim) {
        let wire = &mut sim.wires[self.wire];
        if self.pending.is_empty()
            && let Some(bytes) = wire.take()
        {
            self.pending = bytes;
        }
        if self.has_credit && !self.pending.is_empty() {
            let size = self.pending.len().min(RECORD_SIZE_MAX);
            out.extend(Record::encode_data(number, &self.pending[..size]));
            self.pending.drain(..size);
            (self.has_credit, self.has_begun) = (false, true);
        }
        let is_reset = wire.was_reset();
        let has_left = is_reset || wire.has_client_left() && self.pending.is_empty();
        if has_left && !std::mem::replace(&mut self.has_ended, true) {
            out.extend(if is_reset { Record::encode_reset(number) } else { Record::encode_end(number) });
        }
    }
}
