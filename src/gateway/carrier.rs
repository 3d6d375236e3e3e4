//! Carriers: one socket whose bytes belong to several exchanges.
//!
//! A socket of HTTP/1 carries one exchange at a time, and needs no carrier: its slot names the connection. The slot of a
//! socket with streams names a carrier. The client's end of each of its exchanges is a transport without a descriptor:
//! the carrier passes received bytes in and pulls queued bytes out. Permits, timers, limits, the backend and the log line
//! of an exchange are the same in both cases.
//!
//! The only carrier so far is that of the tests, with a protocol of its own; the streams of HTTP/2 belong here.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::slots::Key;
use super::timers::Owner;
use super::{Gateway, count_held, find, list, list_backlog};
use crate::driver::{Driver, Errno, Event, Op, Segment};
use crate::limits::POOL_HEADROOM;
use crate::transport::{Arrival, Opposite, SendResult, Settled, Transport};
use crate::types::{Address, Demand, End};

/// Streams of a carrier.
pub(crate) const STREAMS: usize = 3;
/// Maximum data of a record, in bytes.
pub(crate) const RECORD_SIZE_MAX: usize = 10_000;
/// Bytes queued for the socket above which the streams keep theirs.
const QUEUED_SIZE_MAX: usize = 32 * 1024;

/// A socket with `STREAMS` streams.
#[derive(Debug)]
pub(super) struct Carrier<H> {
    socket: Key,
    address: Address,
    endpoint: Arc<Endpoint<H>>,
    streams: [Stream; STREAMS],
    records: Records,
    /// The client has ended the socket's stream, or the socket has failed.
    has_ended: bool,
}

#[derive(Clone, Copy, Default, Debug)]
struct Stream {
    /// None: no byte was received.
    owner: Option<Owner>,
    /// The record of its end was sent.
    has_ended: bool,
    /// A record of data was received, and its credit was not sent.
    owes_credit: bool,
}

/// A part of a stream.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Data(Vec<u8>),
    /// The sender sends no more in this stream.
    End,
    /// The sender drops this stream.
    Reset,
    /// The client may send one more record of data in this stream: a stream that is not read does not hold up others.
    Credit,
}

/// Decoder of records: number of the stream, kind, size in two bytes, data.
#[derive(Default, Debug)]
pub(crate) struct Records(Vec<u8>);

impl Records {
    /// Appends received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl Iterator for Records {
    type Item = (usize, Record);

    fn next(&mut self) -> Option<(usize, Record)> {
        let [number, kind, high, low] = *self.0.first_chunk()?;
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        if self.0.len() < end {
            return None;
        }
        let data = self.0.drain(..end).skip(4).collect();
        let record = match kind {
            0 => Record::Data(data),
            1 => Record::End,
            2 => Record::Reset,
            _ => Record::Credit,
        };
        Some((number.into(), record))
    }
}

impl Record {
    /// The bytes of data, in one or more records.
    pub(crate) fn encode_data(number: usize, data: &[u8]) -> Vec<u8> {
        let records = data.chunks(RECORD_SIZE_MAX).map(|part| Record::encode(number, 0, part));
        records.flatten().collect()
    }

    /// The bytes of an end.
    pub(crate) fn encode_end(number: usize) -> Vec<u8> {
        Record::encode(number, 1, &[])
    }

    /// The bytes of a reset.
    pub(crate) fn encode_reset(number: usize) -> Vec<u8> {
        Record::encode(number, 2, &[])
    }

    fn encode_credit(number: usize) -> Vec<u8> {
        Record::encode(number, 3, &[])
    }

    fn encode(number: usize, kind: u8, data: &[u8]) -> Vec<u8> {
        let [high, low] = (data.len() as u16).to_be_bytes();
        [&[number as u8, kind, high, low], data].concat()
    }
}

impl<D: Driver> Gateway<D> {
    /// Adds the carrier of an accepted socket.
    pub(super) fn add_carrier(&mut self, handle: D::Handle, address: Address, endpoint: Arc<Endpoint<D::Handle>>) {
        let entry = self.carriers.vacant_entry();
        let mut transport = Transport::new(handle);
        transport.set_demand(Demand::Flow);
        let socket = self.world.slots.insert_carrier(entry.key(), transport);
        let (streams, records) = Default::default();
        entry.insert(Carrier { socket, address, endpoint, streams, records, has_ended: false });
    }

    /// Handles a completion of a carrier's socket.
    pub(super) fn on_carrier(&mut self, index: usize, event: Event<D::Handle>) {
        let Some(carrier) = self.carriers.get_mut(index) else { return self.drop_stale(event) };
        let Some(transport) = self.world.slots.transport_mut(Some(carrier.socket)) else {
            return self.drop_stale(event);
        };
        let driver = &mut self.world.driver;
        let mut end = None;
        match event {
            Event::Received { result, more } => match transport.on_received(result, more, driver) {
                Some(Arrival::Lease(lease)) => {
                    carrier.records.push(&driver.buffer(&lease)[lease.range()]);
                    driver.release(lease);
                }
                Some(Arrival::Copy(bytes)) => carrier.records.push(&bytes[POOL_HEADROOM..]),
                other => end = other,
            },
            Event::Sent { batch, result } => {
                if let SendResult::Failed(errno) = transport.on_sent(batch, result, driver) {
                    end = Some(Arrival::Failed(errno));
                }
            }
            other => return self.drop_stale(other),
        }
        if end.is_some() {
            transport.on_end();
        }
        while let Some((number, record)) = self.carriers.get_mut(index).and_then(|carrier| carrier.records.next()) {
            self.on_record(index, number, record);
        }
        if let Some(end) = end {
            self.on_carrier_end(index, &end);
        }
    }

    fn on_record(&mut self, index: usize, number: usize, record: Record) {
        let Some(carrier) = self.carriers.get_mut(index) else { return };
        let Some(stream) = carrier.streams.get(number) else { return };
        let owner = match (stream.owner, &record) {
            (Some(owner), _) => owner,
            (None, Record::Data(_)) => {
                let (address, endpoint) = (carrier.address, carrier.endpoint.clone());
                let Ok(owner) = self.begin(address, &endpoint, Transport::stream()) else {
                    return self.send_end(index, number, &Record::encode_reset(number));
                };
                owner
            }
            (None, _) => return,
        };
        if let Some(carrier) = self.carriers.get_mut(index) {
            let stream = &mut carrier.streams[number];
            (stream.owner, stream.owes_credit) = (Some(owner), matches!(record, Record::Data(_)));
        }
        let arrival = match record {
            Record::Data(data) => Arrival::copy(&data),
            Record::End => Arrival::End,
            Record::Reset | Record::Credit => Arrival::Failed(Errno::ECONNRESET),
        };
        self.pass(owner, arrival);
    }

    fn on_carrier_end(&mut self, index: usize, end: &Arrival) {
        let Some(carrier) = self.carriers.get_mut(index) else { return };
        carrier.has_ended = true;
        let is_failed = matches!(end, Arrival::Failed(_));
        if is_failed && let Some(transport) = self.world.slots.transport_mut(Some(carrier.socket)) {
            transport.abandon(&mut self.world.driver);
        }
        for owner in carrier.streams.map(|stream| stream.owner).into_iter().flatten() {
            self.pass(owner, if is_failed { Arrival::Failed(Errno::ECONNRESET) } else { Arrival::End });
        }
    }

    /// Passes bytes of a stream to its exchange.
    fn pass(&mut self, owner: Owner, arrival: Arrival) {
        let Some(connection) = find(&mut self.connections, owner) else { return };
        connection.on_stream(arrival, &mut self.world);
        list(connection, &mut self.touched);
        let kept = connection.kept(&self.world);
        list_backlog(connection, kept, &mut self.backlog);
        count_held(connection, kept, &mut self.admission, &mut self.world);
    }

    fn send_end(&mut self, index: usize, number: usize, record: &[u8]) {
        if let Some(carrier) = self.carriers.get_mut(index) {
            carrier.streams[number].has_ended = true;
        }
        self.send(index, record);
    }

    fn send(&mut self, index: usize, record: &[u8]) {
        let Some(carrier) = self.carriers.get(index) else { return };
        if let Some(transport) = self.world.slots.transport_mut(Some(carrier.socket)) {
            transport.enqueue(Segment::heap(record.into()), &mut self.world.driver);
        }
    }

    /// Runs at the end of a turn: moves what the exchanges have queued to the sockets, and closes carriers.
    pub(super) fn settle_carriers(&mut self) {
        let all: Vec<usize> = self.carriers.iter().map(|(index, _)| index).collect();
        for index in all {
            while (0..STREAMS).filter(|number| self.pull(index, *number)).count() > 0 {}
            self.end_streams(index);
            self.give_credit(index);
            self.settle_carrier(index);
        }
    }

    /// Moves one batch of a stream to the socket. False: nothing was moved.
    fn pull(&mut self, index: usize, number: usize) -> bool {
        let Some(Carrier { socket, streams, .. }) = self.carriers.get(index) else { return false };
        let Some(owner) = streams[number].owner else { return false };
        if self.world.slots.transport(Some(*socket)).is_none_or(|socket| socket.queued_size() >= QUEUED_SIZE_MAX) {
            return false;
        }
        let Some(connection) = find(&mut self.connections, owner) else { return false };
        let Some(stream) = self.world.slots.transport_mut(connection.client()) else { return false };
        let Some((batch, bytes)) = stream.pull(&mut self.world.driver) else { return false };
        if let Some(socket) = self.world.slots.transport_mut(Some(*socket)) {
            let records = Record::encode_data(number, &bytes);
            socket.enqueue(Segment::heap(records.into()), &mut self.world.driver);
        }
        connection.on_sent(End::Client, batch, Ok(bytes.len()), &mut self.world);
        list(connection, &mut self.touched);
        true
    }

    /// Sends the end of each stream whose exchange sends no more.
    fn end_streams(&mut self, index: usize) {
        for number in 0..STREAMS {
            let Some(stream) = self.carriers.get(index).map(|carrier| carrier.streams[number]) else { return };
            let Some(owner) = stream.owner.filter(|_| !stream.has_ended) else { continue };
            let client = find(&mut self.connections, owner).and_then(|connection| connection.client());
            if self.world.slots.transport(client).is_none_or(Transport::is_shut) {
                self.send_end(index, number, &Record::encode_end(number));
            }
        }
    }

    /// Asks for more data of each stream whose exchange has taken all.
    fn give_credit(&mut self, index: usize) {
        for number in 0..STREAMS {
            let Some(stream) = self.carriers.get_mut(index).map(|carrier| &mut carrier.streams[number]) else { return };
            let client = stream.owner.and_then(|owner| find(&mut self.connections, owner)).and_then(|one| one.client());
            let has_taken = !self.world.slots.transport(client).is_some_and(Transport::has_arrivals);
            if has_taken && std::mem::take(&mut stream.owes_credit) {
                self.send(index, &Record::encode_credit(number));
            }
        }
    }

    fn settle_carrier(&mut self, index: usize) {
        let Some(Carrier { socket, streams, has_ended, .. }) = self.carriers.get(index) else { return };
        let (key, has_ended, owners) = (*socket, *has_ended, streams.map(|stream| stream.owner));
        let is_over = owners.into_iter().flatten().all(|owner| find(&mut self.connections, owner).is_none());
        let is_late = self.give_up_ms.is_some_and(|ms| self.world.now_ms >= ms);
        let Some(transport) = self.world.slots.transport_mut(Some(key)) else { return };
        let may_end = has_ended || self.give_up_ms.is_some();
        if is_over && may_end && (transport.queued_size() == 0 || is_late) {
            transport.abandon(&mut self.world.driver);
        }
        let token = self.world.slots.token(key, Op::Receive);
        let Some(transport) = self.world.slots.transport_mut(Some(key)) else { return };
        let opposite = Opposite { queued_size: 0, queue_size_max: usize::MAX };
        if transport.settle(token, opposite, &mut self.world.driver) == Settled::Closable {
            if let Some(transport) = self.world.slots.remove_transport(key) {
                transport.close(&mut self.world.driver);
            }
            self.carriers.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_cut() {
        let ends = [Record::encode_end(0), Record::encode_reset(1), Record::encode_credit(2)].concat();
        let sent = [Record::encode_data(2, b"data"), ends].concat();
        for cut in 0..=sent.len() {
            let mut records = Records::default();
            records.push(&sent[..cut]);
            let mut found: Vec<_> = records.by_ref().collect();
            records.push(&sent[cut..]);
            found.extend(records.by_ref());
            let data = Record::Data(b"data".to_vec());
            let expected = [(2, data), (0, Record::End), (1, Record::Reset), (2, Record::Credit)];
            assert_eq!((&found[..], records.0.len()), (&expected[..], 0), "cut at {cut}");
        }
    }
}
