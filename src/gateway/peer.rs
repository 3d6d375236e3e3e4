//! One end of a connection, the client or the server alike: a handle, a receive's state, a bounded send queue.

use super::inbox::{Arrival, Inbox};
use super::queue::{Queue, give_back, is_short};
use crate::driver::{Batch, Driver, Errno, Kind, Receive, Segment, Sending, Share, Token};
use crate::exchange::Demand;
use crate::limits::{PAGE_KEPT_SIZE, POOL_BUFFER_SIZE, POOL_HEADROOM, QUEUE_SIZE_MAX, SEND_SEGMENTS_MAX};

/// Bytes of a receive that filled its buffer.
const FULL: usize = POOL_BUFFER_SIZE - POOL_HEADROOM;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiving {
    No,
    Once,
    Multishot,
    /// A multishot whose end was asked for.
    Cancelling,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Peer<H> {
    handle: Option<H>,
    /// It is no socket, but a terminal line or a pipe.
    is_device: bool,
    demand: Demand,
    receiving: Receiving,
    /// What came and waits until the exchange takes it.
    inbox: Inbox,
    /// A receive is wanted, and the pool has no buffer for it.
    is_starved: bool,
    /// The opposite end does not take what this one sends (hysteresis between the two marks).
    is_paused: bool,
    /// Much is coming: buffer by buffer, so that no burst outruns the marks.
    is_bulk: bool,
    /// The stream has ended, or failed.
    is_ended: bool,
    queue: Queue,
    /// Above so much waiting at the other end this one is not read; below a quarter of it, it is again.
    queue_size_max: u32,
    is_sending: bool,
    /// A hand-over uses the handle.
    is_lent: bool,
    /// The peer took less than all: the next send waits for room.
    is_blocked: bool,
    /// The latest pong that found the queue too long.
    pong: Option<Box<[u8]>>,
    /// What was queued last is the last.
    has_last: bool,
    finish: Finish,
    /// Nothing is wanted any more; closed as soon as nothing is in flight.
    is_abandoned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finish {
    No,
    WhenDrained,
    Done,
}

/// What a send's completion means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendResult {
    /// Something is still queued.
    Waiting,
    /// Nothing is queued any more.
    Drained,
    /// The connection broke.
    Failed(Errno),
}

impl<H> Default for Peer<H> {
    fn default() -> Peer<H> {
        Peer {
            handle: None,
            is_device: false,
            demand: Demand::Nothing,
            receiving: Receiving::No,
            inbox: Inbox::default(),
            is_starved: false,
            is_paused: false,
            is_bulk: false,
            is_ended: false,
            queue: Queue::default(),
            queue_size_max: QUEUE_SIZE_MAX.default as u32,
            is_sending: false,
            is_lent: false,
            is_blocked: false,
            pong: None,
            has_last: false,
            finish: Finish::No,
            is_abandoned: false,
        }
    }
}

impl<H> Peer<H> {
    /// A connected peer.
    pub fn new(handle: H) -> Peer<H> {
        Peer { handle: Some(handle), ..Peer::default() }
    }

    /// An opened device.
    pub fn device(handle: H) -> Peer<H> {
        Peer { handle: Some(handle), is_device: true, ..Peer::default() }
    }

    /// Whether it is no socket.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Whether it is a device to which all was written that there was for it.
    pub fn is_drained_device(&self) -> bool {
        let has_all = self.queue.is_empty() && !self.is_sending;
        self.is_device && has_all && self.finish == Finish::WhenDrained && !self.is_abandoned
    }

    /// The handle, while it is open.
    pub fn handle(&self) -> Option<&H> {
        self.handle.as_ref()
    }

    /// The handle for a hand-over, which ends with `take_back`. None: something else is queued or in flight for it.
    pub fn lend(&mut self) -> Option<&H> {
        if self.is_in_flight() || !self.queue.is_empty() || self.is_abandoned {
            return None;
        }
        self.is_lent = self.handle.is_some();
        self.handle.as_ref()
    }

    /// The hand-over has ended.
    pub fn take_back(&mut self) {
        self.is_lent = false;
    }

    /// Whether it is closed, or never was open.
    pub fn is_closed(&self) -> bool {
        self.handle.is_none()
    }

    /// Sets what is to be received.
    pub fn set_demand(&mut self, demand: Demand) {
        self.demand = demand;
    }

    /// Packets keep their borders: each is sent by itself.
    pub fn has_packets(&self) -> bool {
        self.demand == Demand::Packets
    }

    /// Bytes that wait to be sent, those in flight included.
    pub fn queued_size(&self) -> usize {
        self.queue.size()
    }

    /// Bytes that it holds outside the pool.
    pub fn heap_size(&self) -> usize {
        self.queue.heap_size() + self.inbox.heap_size()
    }

    /// Sets how much may wait for a peer before the other one is not read any more.
    pub fn set_queue_size_max(&mut self, size: u64) {
        self.queue_size_max = size.min(QUEUE_SIZE_MAX.max) as u32;
    }

    /// Whether nothing is read from it because the other end does not take what it sends.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether something that it sent may not have been read: the other end does not take it, it was too fast, or others
    /// come first.
    pub fn is_unread(&self) -> bool {
        self.is_paused || self.demand == Demand::Nothing || self.is_starved || !self.inbox.is_empty()
    }

    /// Whether a receive waits for a buffer.
    pub fn is_starved(&self) -> bool {
        self.is_starved
    }

    /// Whether the exchange may be handed what came, with so much waiting at the other end.
    pub fn may_deliver(&self, opposite: usize) -> bool {
        !self.is_paused && self.demand != Demand::Nothing && opposite <= self.queue_size_max as usize
    }

    /// Whether a part of what came first was taken already.
    pub fn has_rest(&self) -> bool {
        self.inbox.has_rest()
    }

    /// Whether something waits that came before.
    pub fn has_arrivals(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Keeps what came until the exchange takes it. An abandoned peer keeps nothing.
    pub fn keep<D: Driver<Handle = H>>(&mut self, arrival: Arrival, driver: &mut D) {
        self.inbox.push(arrival);
        if self.is_abandoned {
            self.inbox.clear(driver);
        }
    }

    /// As `keep`, for what the exchange did not take to its end.
    pub fn put_back<D: Driver<Handle = H>>(&mut self, arrival: Arrival, driver: &mut D) {
        self.inbox.put_back(arrival);
        if self.is_abandoned {
            self.inbox.clear(driver);
        }
    }

    /// Moves what waits out of the pool.
    pub fn spill_arrivals<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        self.inbox.spill(driver);
    }

    /// Takes out what came first.
    pub fn take_arrival(&mut self) -> Option<Arrival> {
        self.inbox.take()
    }

    /// Whether nothing more will be queued or received.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// Where the pool is short and the peer takes nothing: drops what waits of a page's piece but for its beginning. How
    /// many bytes were dropped.
    pub fn drop_page<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> usize {
        match self.is_blocked && !self.is_sending && is_short(driver, Share::Requests) {
            true => self.queue.drop_last(PAGE_KEPT_SIZE, driver),
            false => 0,
        }
    }

    fn low_size(&self) -> usize {
        self.queue_size_max as usize / 4
    }

    /// Queues bytes to be sent; for an abandoned peer they go back to where they came from.
    pub fn enqueue<D: Driver<Handle = H>>(&mut self, segment: Segment, driver: &mut D) {
        if self.is_abandoned || self.has_last || self.handle.is_none() || self.finish == Finish::Done {
            return give_back(segment, driver);
        }
        self.queue.push(segment);
    }

    /// Queues what nothing may follow.
    pub fn enqueue_last<D: Driver<Handle = H>>(&mut self, frame: Box<[u8]>, driver: &mut D) {
        self.enqueue(Segment::heap(frame), driver);
        self.pong = None;
        self.has_last = true;
    }

    /// Queues a pong, or keeps the latest where the queue is long already.
    pub fn enqueue_pong<D: Driver<Handle = H>>(&mut self, frame: Box<[u8]>, driver: &mut D) {
        if self.queue.size() < self.low_size() {
            // A kept one would come behind this one, out of order.
            self.pong = None;
            self.enqueue(Segment::heap(frame), driver);
        } else if !self.has_last {
            self.pong = Some(frame);
        }
    }

    /// Ends the sending half once all is sent.
    pub fn finish(&mut self) {
        if self.finish == Finish::No {
            self.finish = Finish::WhenDrained;
        }
    }

    /// Forgets the peer: what is queued is given back, what is in flight is ended.
    pub fn abandon<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if std::mem::replace(&mut self.is_abandoned, true) {
            return;
        }
        self.demand = Demand::Nothing;
        // Nothing is to be received any more, so that nothing waits for a buffer: its deadline counts.
        self.is_starved = false;
        self.pong = None;
        self.queue.clear(driver);
        self.inbox.clear(driver);
        // Who is being handed over may be somebody else's already.
        if let (Some(handle), true, false) = (&self.handle, self.is_in_flight(), self.is_lent) {
            driver.shutdown(handle, true);
        }
    }

    /// The peer takes nothing any more, although it may still send: what waits for it is dropped.
    pub fn mute<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        self.queue.clear(driver);
        self.pong = None;
        self.has_last = true;
    }

    /// Notes a receive's completion. `size` is what it brought, if anything; a starved one is asked for again.
    pub fn on_received(&mut self, size: Option<usize>, more: bool, is_starved: bool) {
        if !more {
            self.receiving = Receiving::No;
        }
        if self.demand == Demand::Once && !is_starved {
            self.demand = Demand::Nothing;
        }
        match size {
            Some(size) if size >= FULL => self.is_bulk = true,
            Some(size) if size < FULL / 2 && !more => self.is_bulk = false,
            _ => {}
        }
    }

    /// Notes that nothing more will come.
    pub fn on_end(&mut self) {
        self.is_ended = true;
    }

    /// Notes a send's completion; what was not taken goes back to the head of the queue.
    pub fn on_sent<D: Driver<Handle = H>>(
        &mut self,
        batch: Batch,
        result: Result<usize, Errno>,
        driver: &mut D,
    ) -> SendResult {
        self.is_sending = false;
        let (taken, error) = match result {
            Ok(taken) => (taken, None),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => (0, None),
            Err(errno) => (0, Some(errno)),
        };
        let is_dropped = error.is_some() || self.is_abandoned;
        self.is_blocked = self.queue.settle(batch, (!is_dropped).then_some(taken), result.is_ok(), driver);
        match error {
            Some(errno) => SendResult::Failed(errno),
            None if self.queue.is_empty() => SendResult::Drained,
            None => SendResult::Waiting,
        }
    }

    /// The end of a turn: what is queued is sent, and what should be received is asked for. `opposite` is how
    /// much waits at the other end. Some: a receive waits for a buffer of this share.
    pub fn settle<D: Driver<Handle = H>>(
        &mut self,
        receive: Token,
        send: Token,
        opposite: usize,
        driver: &mut D,
    ) -> Option<Share> {
        if self.is_abandoned {
            self.settle_abandoned(receive, driver);
            return None;
        }
        self.settle_sending(send, driver);
        self.settle_receiving(receive, opposite, driver)
    }

    fn is_in_flight(&self) -> bool {
        self.is_sending || self.is_lent || self.receiving != Receiving::No
    }

    fn settle_abandoned<D: Driver<Handle = H>>(&mut self, receive: Token, driver: &mut D) {
        self.cancel_receive(receive, driver);
        // A socket's send ends with its shutdown, which a device has not.
        if self.is_device && self.is_sending && self.finish != Finish::Done {
            self.finish = Finish::Done;
            driver.cancel(Token { kind: Kind::BackendWritable, ..receive });
        }
        if !self.is_in_flight()
            && let Some(handle) = self.handle.take()
        {
            driver.close(handle);
        }
    }

    fn settle_sending<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) {
        if self.queue.is_empty()
            && !self.is_sending
            && let Some(frame) = self.pong.take()
        {
            self.enqueue(Segment::heap(frame), driver);
        }
        if self.is_blocked || self.is_sending {
            self.queue.spill(driver);
        }
        let Some(handle) = &self.handle else { return };
        if self.is_sending {
            return;
        }
        let most = if self.has_packets() { 1 } else { SEND_SEGMENTS_MAX };
        match self.queue.take_batch(most) {
            Some(batch) => {
                self.is_sending = true;
                let how = match (self.is_device, self.is_blocked) {
                    (true, _) => Sending::Device,
                    (false, true) => Sending::Wait,
                    (false, false) => Sending::Now,
                };
                driver.send(token, handle, batch, how);
            }
            None if self.finish == Finish::WhenDrained && !self.is_device => {
                self.finish = Finish::Done;
                driver.shutdown(handle, false);
            }
            None => {}
        }
    }

    fn settle_receiving<D: Driver<Handle = H>>(
        &mut self,
        token: Token,
        opposite: usize,
        driver: &mut D,
    ) -> Option<Share> {
        if opposite > self.queue_size_max as usize {
            self.is_paused = true;
        } else if opposite < self.low_size() {
            self.is_paused = false;
        }
        self.is_starved = false;
        let is_wanted = self.may_deliver(opposite) && self.inbox.is_empty() && !self.is_ended;
        let is_one_by_one = self.is_bulk && self.demand != Demand::Packets;
        if self.receiving == Receiving::Multishot && (!is_wanted || is_one_by_one) {
            self.cancel_receive(token, driver);
        }
        let (Some(handle), Receiving::No, true) = (&self.handle, self.receiving, is_wanted) else { return None };
        let share = if self.demand == Demand::Once { Share::Requests } else { Share::Messages };
        if !driver.may_receive(share) {
            self.is_starved = true;
            return Some(share);
        }
        let (how, receiving) = match self.demand {
            _ if self.is_device => (Receive::Device, Receiving::Once),
            Demand::Packets => (Receive::Packets, Receiving::Multishot),
            Demand::Once => (Receive::Request, Receiving::Once),
            Demand::Flow if !self.is_bulk => (Receive::Multishot, Receiving::Multishot),
            _ => (Receive::Once, Receiving::Once),
        };
        driver.receive(token, handle, how);
        self.receiving = receiving;
        None
    }

    fn cancel_receive<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) {
        if matches!(self.receiving, Receiving::Multishot | Receiving::Once) {
            let kind = if self.is_device { Kind::BackendReadable } else { token.kind };
            driver.cancel(Token { kind, ..token });
            self.receiving = Receiving::Cancelling;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sim::Sim;

    /// Its deadline would be put off for ever otherwise.
    #[test]
    fn an_abandoned_peer_waits_for_no_buffer() {
        let mut sim = Sim::new(1, 2);
        let mut peer = Peer::new(sim.listener());
        peer.is_starved = true;
        peer.abandon(&mut sim);
        assert!(!peer.is_starved());
    }
}
