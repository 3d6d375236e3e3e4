//! One file descriptor that bytes come from and go to: a client's or a backend's socket, or a device. It knows what is
//! received and sent, when it is paused and how it is shut; it knows no request.
//!
//! A transport has one state for its life. What may be in flight in each:
//!
//! | life | receives | sends | may be queued |
//! |---|---|---|---|
//! | Open | one | one | anything |
//! | Last | one | one | nothing: the last bytes are queued |
//! | Finishing | one | one | nothing; the sending half ends when the queue is empty |
//! | Shut | one | none | nothing |
//! | Abandoned | what was begun, until it has ended | the same | nothing; it is closed when nothing is in flight |
//!
//! A transport that is lent for a hand-over has neither receives nor sends in flight.

mod incoming;
mod outgoing;
mod stage;

use crate::driver::{Batch, Driver, Errno, Lease, Op, Receive, Segment, Sending, Share, Token};
use crate::limits::{PAGE_KEPT_SIZE, POOL_BUFFER_SIZE, POOL_HEADROOM, QUEUE_SIZE_MAX, SEND_SEGMENTS_MAX};
use crate::types::Demand;
pub(crate) use incoming::Arrival;
use incoming::Incoming;
use outgoing::Outgoing;
pub(crate) use outgoing::{give_back, is_short, part_of};
#[cfg(test)]
pub(crate) use stage::Records;
use stage::Stage;
pub use stage::StageKind;

/// Bytes of a receive that filled its buffer.
const FULL: usize = POOL_BUFFER_SIZE - POOL_HEADROOM;

/// How far a transport's life has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Life {
    Open,
    /// The last bytes that may be sent are queued: a close frame (RFC 6455 section 5.5.1), or the peer takes no more.
    Last,
    /// The sending half ends when the queue is empty.
    Finishing,
    /// The sending half has ended.
    Shut,
    /// Nothing is wanted from it any more.
    Abandoned,
}

/// The receive that is in flight, or why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiving {
    No,
    /// A receive is wanted, and the pool has no buffer for it.
    Starved,
    Once,
    Multishot,
    /// Its end was asked for.
    Cancelling,
    /// The stream has ended, or failed.
    Ended,
}

/// The send that is in flight, or why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SendState {
    No,
    /// The peer took less than all: the next send waits for room.
    Blocked,
    InFlight,
    /// Its end was asked for.
    Cancelling,
    /// A hand-over has the handle.
    Lent,
}

/// One file descriptor.
#[derive(Debug)]
pub(crate) struct Transport<H> {
    handle: H,
    /// Above so much waiting at the opposite transport this one is not read; below a quarter of it, it is again.
    queue_size_max: u32,
    life: Life,
    receiving: Receiving,
    sending: SendState,
    demand: Demand,
    /// No socket, but a terminal line or a pipe.
    is_device: bool,
    /// The opposite transport does not take what this one sends (hysteresis between the two marks).
    is_paused: bool,
    /// Much is coming: buffer by buffer, so that no burst outruns the marks.
    is_bulk: bool,
    incoming: Incoming,
    outgoing: Outgoing,
    stage: Stage,
}

/// What a send's completion means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendResult {
    /// Something is still queued.
    Waiting,
    /// Nothing is queued any more.
    Drained,
    /// The connection failed.
    Failed(Errno),
}

impl<H> Transport<H> {
    /// A connected socket.
    pub(crate) fn new(handle: H) -> Transport<H> {
        Transport {
            handle,
            queue_size_max: QUEUE_SIZE_MAX.default as u32,
            life: Life::Open,
            receiving: Receiving::No,
            sending: SendState::No,
            demand: Demand::Nothing,
            is_device: false,
            is_paused: false,
            is_bulk: false,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            stage: Stage::default(),
        }
    }

    /// A connected socket whose bytes pass a stage.
    pub(crate) fn with_stage(handle: H, kind: StageKind) -> Transport<H> {
        Transport { stage: Stage::new(kind), ..Transport::new(handle) }
    }

    /// An opened device.
    pub(crate) fn device(handle: H) -> Transport<H> {
        Transport { is_device: true, ..Transport::new(handle) }
    }

    /// Whether it is no socket.
    pub(crate) fn is_device(&self) -> bool {
        self.is_device
    }

    /// Whether it is a device to which all was written that there was for it.
    pub(crate) fn is_drained_device(&self) -> bool {
        self.is_device && self.life == Life::Finishing && self.outgoing.is_empty() && !self.is_sending()
    }

    /// Whether a stage stands between the socket and its exchange, so that nobody else can use the socket.
    pub(crate) fn is_staged(&self) -> bool {
        !self.stage.is_plain()
    }

    /// What received bytes mean; None: nothing that is whole yet.
    pub(crate) fn open<D: Driver<Handle = H>>(&mut self, lease: Lease, driver: &mut D) -> Option<Arrival> {
        self.stage.open(lease, driver)
    }

    /// Bytes that are sent past the queue, as they are to be sent.
    pub(crate) fn seal(&mut self, bytes: Box<[u8]>) -> Box<[u8]> {
        self.stage.seal(bytes)
    }

    /// The handle.
    pub(crate) fn handle(&self) -> &H {
        &self.handle
    }

    /// Whether it may be lent for a hand-over: nothing is queued or in flight for it.
    pub(crate) fn may_lend(&self) -> bool {
        !self.is_in_flight() && self.outgoing.is_empty() && self.life != Life::Abandoned
    }

    /// The handle for a hand-over, which ends with `take_back`.
    pub(crate) fn lend(&mut self) -> &H {
        debug_assert!(self.may_lend(), "lent with something queued or in flight");
        self.sending = SendState::Lent;
        &self.handle
    }

    /// The hand-over has ended.
    pub(crate) fn take_back(&mut self) {
        if self.sending == SendState::Lent {
            self.sending = SendState::No;
        }
    }

    /// Sets what is to be received.
    pub(crate) fn set_demand(&mut self, demand: Demand) {
        if self.life != Life::Abandoned {
            self.demand = demand;
        }
    }

    /// Bytes that wait to be sent, those in flight included.
    pub(crate) fn queued_size(&self) -> usize {
        self.outgoing.size()
    }

    /// Bytes that it holds outside the pool.
    pub(crate) fn heap_size(&self) -> usize {
        self.outgoing.heap_size() + self.incoming.heap_size()
    }

    /// Sets how much may wait here before the opposite transport is not read any more.
    pub(crate) fn set_queue_size_max(&mut self, size: u64) {
        self.queue_size_max = size.min(QUEUE_SIZE_MAX.max) as u32;
    }

    /// Whether nothing is read from it because the opposite transport does not take what it sends.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether something that its peer sent may not have been read: the opposite transport does not take it, it was too
    /// fast, or others come first.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_paused || self.demand == Demand::Nothing || self.is_starved() || !self.incoming.is_empty()
    }

    /// Whether a receive waits for a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.receiving == Receiving::Starved
    }

    /// Whether its exchange may be handed what came, with so much waiting at the opposite transport.
    pub(crate) fn may_deliver(&self, opposite: usize) -> bool {
        !self.is_paused && self.demand != Demand::Nothing && opposite <= self.queue_size_max as usize
    }

    /// Whether a part of what came first was taken already.
    pub(crate) fn has_rest(&self) -> bool {
        self.incoming.has_rest()
    }

    /// Whether something that came waits.
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Keeps what came until the exchange takes it. An abandoned transport keeps nothing.
    pub(crate) fn keep<D: Driver<Handle = H>>(&mut self, arrival: Arrival, driver: &mut D) {
        self.incoming.push(arrival);
        if self.life == Life::Abandoned {
            self.incoming.clear(driver);
        }
    }

    /// As `keep`, for what the exchange did not take to its end.
    pub(crate) fn put_back<D: Driver<Handle = H>>(&mut self, arrival: Arrival, driver: &mut D) {
        self.incoming.put_back(arrival);
        if self.life == Life::Abandoned {
            self.incoming.clear(driver);
        }
    }

    /// Moves what waits out of the pool.
    pub(crate) fn spill_arrivals<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        self.incoming.spill(driver);
    }

    /// Takes out what came first.
    pub(crate) fn take_arrival(&mut self) -> Option<Arrival> {
        self.incoming.take()
    }

    /// Whether nothing more will be queued or received.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.life == Life::Abandoned
    }

    /// Where the pool is short and the peer takes nothing: drops what waits of a page's piece but for its beginning. How
    /// many bytes were dropped.
    pub(crate) fn drop_page<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> usize {
        match self.sending == SendState::Blocked && !self.is_staged() && is_short(driver, Share::Requests) {
            true => self.outgoing.drop_last(PAGE_KEPT_SIZE, driver),
            false => 0,
        }
    }

    fn low_size(&self) -> usize {
        self.queue_size_max as usize / 4
    }

    /// Queues bytes to be sent; where nothing may be queued any more they go back to where they came from.
    pub(crate) fn enqueue<D: Driver<Handle = H>>(&mut self, segment: Segment, driver: &mut D) {
        if self.life != Life::Open {
            return give_back(segment, driver);
        }
        self.outgoing.push(segment);
    }

    /// Queues what nothing may follow.
    pub(crate) fn enqueue_last<D: Driver<Handle = H>>(&mut self, frame: Box<[u8]>, driver: &mut D) {
        self.enqueue(Segment::heap(frame), driver);
        self.outgoing.set_pong(None);
        self.life = self.life.max(Life::Last);
    }

    /// Queues a pong, or keeps the latest where the queue is long already (RFC 6455 section 5.5.3).
    pub(crate) fn enqueue_pong<D: Driver<Handle = H>>(&mut self, frame: Box<[u8]>, driver: &mut D) {
        if self.outgoing.size() < self.low_size() {
            // A kept one would follow this one, out of order.
            self.outgoing.set_pong(None);
            self.enqueue(Segment::heap(frame), driver);
        } else if self.life == Life::Open {
            self.outgoing.set_pong(Some(frame));
        }
    }

    /// Ends the sending half once all is sent.
    pub(crate) fn finish(&mut self) {
        self.life = self.life.max(Life::Finishing);
    }

    /// Forgets the peer: what is queued is given back, what is in flight is ended.
    pub(crate) fn abandon<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if self.life == Life::Abandoned {
            return;
        }
        self.life = Life::Abandoned;
        self.demand = Demand::Nothing;
        // Nothing is to be received any more, so that nothing waits for a buffer: its deadline counts.
        if self.receiving == Receiving::Starved {
            self.receiving = Receiving::No;
        }
        self.outgoing.clear(driver);
        self.incoming.clear(driver);
        // A lent handle may already belong to the backend: do not shut it down.
        if self.is_in_flight() && self.sending != SendState::Lent {
            driver.shutdown(&self.handle, true);
        }
    }

    /// The peer takes nothing any more, although it may still send: what waits for it is dropped.
    pub(crate) fn mute<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        self.outgoing.clear(driver);
        self.life = self.life.max(Life::Last);
    }

    /// Notes a receive's completion. `size` is what it brought, if anything; a starved one is asked for again.
    pub(crate) fn on_received(&mut self, size: Option<usize>, more: bool, is_starved: bool) {
        if !more && self.receiving != Receiving::Ended {
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

    /// Notes that nothing more will come: the end of the stream, or its failure, was handed to the exchange.
    pub(crate) fn on_end(&mut self) {
        // A packet that is too large is a failure, and its multishot receive goes on.
        match self.is_receiving() {
            true => self.demand = Demand::Nothing,
            false => self.receiving = Receiving::Ended,
        }
    }

    /// Notes a send's completion; what was not taken goes back to the head of the queue.
    pub(crate) fn on_sent<D: Driver<Handle = H>>(
        &mut self,
        batch: Batch,
        result: Result<usize, Errno>,
        driver: &mut D,
    ) -> SendResult {
        debug_assert!(self.is_sending(), "{:?}", self.sending);
        let (taken, error) = match result {
            Ok(taken) => (taken, None),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => (0, None),
            Err(errno) => (0, Some(errno)),
        };
        let is_dropped = error.is_some() || self.life == Life::Abandoned;
        let is_left = self.outgoing.settle(batch, (!is_dropped).then_some(taken), result.is_ok(), driver);
        self.sending = if is_left { SendState::Blocked } else { SendState::No };
        match error {
            Some(errno) => SendResult::Failed(errno),
            None if self.outgoing.is_empty() => SendResult::Drained,
            None => SendResult::Waiting,
        }
    }

    /// The end of a turn: what is queued is sent, and what should be received is asked for. `opposite` is how much waits
    /// at the opposite transport. `token` names its slot.
    pub(crate) fn settle<D: Driver<Handle = H>>(&mut self, token: Token, opposite: usize, driver: &mut D) -> Settled {
        if self.life == Life::Abandoned {
            return self.settle_abandoned(token, driver);
        }
        self.settle_sending(token, driver);
        self.settle_receiving(token, opposite, driver)
    }

    fn is_receiving(&self) -> bool {
        matches!(self.receiving, Receiving::Once | Receiving::Multishot | Receiving::Cancelling)
    }

    fn is_sending(&self) -> bool {
        matches!(self.sending, SendState::InFlight | SendState::Cancelling)
    }

    fn is_in_flight(&self) -> bool {
        self.is_receiving() || self.is_sending() || self.sending == SendState::Lent
    }

    fn settle_abandoned<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) -> Settled {
        self.cancel_receive(token, driver);
        // A socket's send ends with its shutdown, which a device has not.
        if self.is_device && self.sending == SendState::InFlight {
            driver.cancel(Token { op: Op::Writable, ..token });
            self.sending = SendState::Cancelling;
        }
        if self.is_in_flight() { Settled::Done } else { Settled::Closable }
    }

    fn settle_sending<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) {
        if !self.is_sending()
            && self.outgoing.is_empty()
            && let Some(frame) = self.outgoing.set_pong(None)
        {
            self.enqueue(Segment::heap(frame), driver);
        }
        if matches!(self.sending, SendState::Blocked | SendState::InFlight) {
            self.outgoing.spill(driver);
        }
        if matches!(self.sending, SendState::InFlight | SendState::Lent) {
            return;
        }
        // Packets keep their borders: each is sent by itself.
        let most = if self.demand == Demand::Packets { 1 } else { SEND_SEGMENTS_MAX };
        match self.outgoing.take_batch(most, &mut self.stage, driver) {
            Some(batch) => {
                let how = match (self.is_device, self.sending) {
                    (true, _) => Sending::Device,
                    (false, SendState::Blocked) => Sending::Wait,
                    (false, _) => Sending::Now,
                };
                self.sending = SendState::InFlight;
                driver.send(Token { op: Op::Send, ..token }, &self.handle, batch, how);
            }
            None if self.life == Life::Finishing && !self.is_device => {
                self.life = Life::Shut;
                driver.shutdown(&self.handle, false);
            }
            None => {}
        }
    }

    fn settle_receiving<D: Driver<Handle = H>>(&mut self, token: Token, opposite: usize, driver: &mut D) -> Settled {
        if opposite > self.queue_size_max as usize {
            self.is_paused = true;
        } else if opposite < self.low_size() {
            self.is_paused = false;
        }
        if self.receiving == Receiving::Starved {
            self.receiving = Receiving::No;
        }
        let is_wanted = self.may_deliver(opposite) && self.incoming.is_empty();
        let is_one_by_one = self.is_bulk && self.demand != Demand::Packets;
        if self.receiving == Receiving::Multishot && (!is_wanted || is_one_by_one) {
            self.cancel_receive(token, driver);
        }
        if self.receiving != Receiving::No || !is_wanted || self.sending == SendState::Lent {
            return Settled::Done;
        }
        let share = if self.demand == Demand::Once { Share::Requests } else { Share::Messages };
        if !driver.may_receive(share) {
            self.receiving = Receiving::Starved;
            return Settled::Starved(share);
        }
        let (how, receiving) = match self.demand {
            _ if self.is_device => (Receive::Device, Receiving::Once),
            Demand::Packets => (Receive::Packets, Receiving::Multishot),
            Demand::Once => (Receive::Request, Receiving::Once),
            Demand::Flow if !self.is_bulk => (Receive::Multishot, Receiving::Multishot),
            _ => (Receive::Once, Receiving::Once),
        };
        driver.receive(Token { op: Op::Receive, ..token }, &self.handle, how);
        self.receiving = receiving;
        Settled::Done
    }

    fn cancel_receive<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) {
        if matches!(self.receiving, Receiving::Multishot | Receiving::Once) {
            let op = if self.is_device { Op::Readable } else { Op::Receive };
            driver.cancel(Token { op, ..token });
            self.receiving = Receiving::Cancelling;
        }
    }

    /// Gives the handle up to be closed.
    pub(crate) fn into_handle(self) -> H {
        debug_assert!(!self.is_in_flight(), "closed with something in flight");
        self.handle
    }
}

/// How a transport stands at the end of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    Done,
    /// A receive waits for a buffer of this share.
    Starved(Share),
    /// It is abandoned and nothing is in flight: it is to be closed.
    Closable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sim::Sim;

    /// Its deadline would be put off for ever otherwise.
    #[test]
    fn an_abandoned_transport_waits_for_no_buffer() {
        let mut sim = Sim::new(1, 2);
        let mut transport = Transport::new(sim.listener());
        transport.receiving = Receiving::Starved;
        transport.abandon(&mut sim);
        assert!(!transport.is_starved());
    }
}
