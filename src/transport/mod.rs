//! One byte-stream or packet file descriptor: a client socket, a backend socket or a device. The transport tracks
//! receives, sends, backpressure and shutdown. It has no knowledge of requests.
//!
//! A transport is in exactly one life state. Operations permitted in each state:
//!
//! | life | receives | sends | may be queued |
//! |---|---|---|---|
//! | Open | one | one | anything |
//! | Last | one | one | nothing: the final segment is queued |
//! | Finishing | one | one | nothing; the write side is shut down when the queue is empty |
//! | Shut | one | none | nothing |
//! | Abandoned | only one already in flight | one already in flight, or the last records of TLS | nothing; closed when nothing is in flight |
//!
//! While a transport is lent for a hand-over it has neither a receive nor a send in flight.
//!
//! With TLS, the close_notify is sent before the write side is shut down; with TLS of the kernel, in place of that. An
//! abandoned transport sends it, or an alert, if that needs no waiting.

mod header;
mod incoming;
mod offload;
mod outgoing;
mod stage;
mod tls;

use crate::clients::HeaderUse;
use crate::driver::{Batch, Driver, Errno, Lease, Op, Receive, Received, Segment, Sending, Share, Token};
use crate::limits::{PAGE_KEPT_SIZE, POOL_BUFFER_SIZE, POOL_HEADROOM, SEND_SEGMENTS_MAX};
use crate::tls::{Security, UpstreamTls};
use crate::types::Demand;
pub(crate) use header::Introduction;
pub(crate) use incoming::Arrival;
use incoming::Incoming;
use outgoing::Outgoing;
pub(crate) use outgoing::{give_back, is_short, part_of};
#[cfg(test)]
pub(crate) use stage::Records;
use stage::Stage;
pub use stage::StageKind;
use tls::{Session, Taken};

/// Size in bytes of a receive that filled its buffer.
const FULL: usize = POOL_BUFFER_SIZE - POOL_HEADROOM;

/// Size in bytes of an alert (RFC 8446 section 6).
const CLOSE_NOTIFY_SIZE: usize = 2;

/// Life state of a transport. The order is the order of transitions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Life {
    Open,
    /// The final segment is queued: a close frame (RFC 6455 section 5.5.1), or the peer has stopped receiving.
    Last,
    /// The write side is shut down when the queue is empty.
    Finishing,
    /// The write side is shut down.
    Shut,
    /// All further input and output is discarded.
    Abandoned,
}

/// State of the receive operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiving {
    No,
    /// A receive is wanted, but the buffer pool is empty.
    Starved,
    Once,
    Multishot,
    /// Cancellation was requested.
    Cancelling,
    /// End of stream or receive error.
    Ended,
}

/// State of the send operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SendState {
    No,
    /// The last send was short: wait until the descriptor is writable.
    Blocked,
    InFlight,
    /// Cancellation was requested.
    Cancelling,
    /// The handle is lent to a hand-over.
    Lent,
}

/// A demand and three flags in one byte, so that a slot has no padding.
#[derive(Clone, Copy, Default, Debug)]
struct Mode(u8);

impl Mode {
    /// The descriptor is a terminal line or a pipe, not a socket.
    const DEVICE: u8 = 1 << 2;
    /// Reading is paused because the opposite send queue is too long (hysteresis between two marks).
    const PAUSED: u8 = 1 << 3;
    /// High input rate: receive one buffer at a time, so that a burst cannot overshoot the high-water mark.
    const BULK: u8 = 1 << 4;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: u8, is_set: bool) {
        self.0 = if is_set { self.0 | flag } else { self.0 & !flag };
    }

    fn demand(self) -> Demand {
        match self.0 & 3 {
            0 => Demand::Nothing,
            1 => Demand::Once,
            2 => Demand::Flow,
            _ => Demand::Packets,
        }
    }

    fn set_demand(&mut self, demand: Demand) {
        self.0 = self.0 & !3 | demand as u8;
    }
}

/// The send queue of the opposite transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opposite {
    /// Bytes queued.
    pub(crate) queued_size: usize,
    /// High-water mark in bytes: above it a transport is not read. Reading resumes below a quarter of the mark.
    pub(crate) queue_size_max: usize,
}

/// What a transport sends to and receives from.
#[derive(Debug)]
enum Port<H> {
    /// A file descriptor.
    Descriptor(H),
    /// A stream of a carrier (`gateway::carrier`), which passes bytes in and pulls bytes out.
    #[cfg(any(test, feature = "sim"))]
    Stream,
}

impl<H> Port<H> {
    fn handle(&self) -> Option<&H> {
        match self {
            Port::Descriptor(handle) => Some(handle),
            #[cfg(any(test, feature = "sim"))]
            Port::Stream => None,
        }
    }
}

/// State of one file descriptor, or of one stream of a carrier.
#[derive(Debug)]
pub(crate) struct Transport<H> {
    port: Port<H>,
    life: Life,
    receiving: Receiving,
    sending: SendState,
    mode: Mode,
    outgoing: Outgoing,
    /// None: no stage, and nothing has arrived that waits.
    extra: Option<Box<Extra>>,
}

/// What most transports do not need.
#[derive(Default, Debug)]
struct Extra {
    stage: Stage,
    incoming: Incoming,
}

/// Result of a send completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendResult {
    /// The queue is not empty.
    Waiting,
    /// The queue is empty.
    Drained,
    /// The connection failed.
    Failed(Errno),
}

impl<H> Transport<H> {
    /// Creates the transport of a connected socket.
    pub(crate) fn new(handle: H) -> Transport<H> {
        Transport::of(Port::Descriptor(handle))
    }

    fn of(port: Port<H>) -> Transport<H> {
        Transport {
            port,
            life: Life::Open,
            receiving: Receiving::No,
            sending: SendState::No,
            mode: Mode::default(),
            outgoing: Outgoing::default(),
            extra: None,
        }
    }

    /// A connected socket whose bytes pass a stage, after a PROXY header if `header_use` says so.
    pub(crate) fn with_stage(handle: H, kind: &StageKind, header_use: HeaderUse) -> Transport<H> {
        let mut transport = Transport::new(handle);
        let stage = Stage::after_header(kind, header_use);
        if !stage.is_plain() {
            transport.extra = Some(Box::new(Extra { stage, incoming: Incoming::default() }));
        }
        transport
    }

    /// A socket that is connected to a node, whose bytes pass TLS with the gateway as the client. The ClientHello is sent
    /// at the next `settle`, and what is queued after it once the handshake is complete. `host` is that of the node's
    /// address; the files of `tls` were read. Without them, or if `host` is no name, the connection fails.
    pub(crate) fn with_client_tls(handle: H, tls: &UpstreamTls, host: &str) -> Transport<H> {
        let mut transport = Transport::new(handle);
        transport.secure(tls, host);
        transport
    }

    /// The bytes of a connected socket, to which nothing was sent yet, pass TLS to a node.
    pub(crate) fn secure(&mut self, tls: &UpstreamTls, host: &str) {
        self.extra = Some(Box::new(Extra { stage: Stage::to_node(tls, host), incoming: Incoming::default() }));
        self.take_output();
    }

    /// Refuses a client of TLS before its handshake: it gets an alert. Of other clients nothing changes.
    pub(crate) fn refuse_handshake(&mut self) {
        if let Some(stage) = self.stage_mut()
            && stage.is_tls()
        {
            *stage = Stage::refused();
            self.take_output();
        }
    }

    /// Drops what is queued if the stage has failed.
    fn drop_after_failure<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if self.tls().is_some_and(Session::is_closed) {
            self.outgoing.drop_unsealed(driver);
        }
    }

    fn stage(&self) -> Option<&Stage> {
        self.extra.as_ref().map(|extra| &extra.stage)
    }

    fn stage_mut(&mut self) -> Option<&mut Stage> {
        self.extra.as_mut().map(|extra| &mut extra.stage)
    }

    fn tls(&self) -> Option<&Session> {
        self.stage()?.tls()
    }

    fn incoming(&self) -> Option<&Incoming> {
        self.extra.as_ref().map(|extra| &extra.incoming)
    }

    fn incoming_mut(&mut self) -> &mut Incoming {
        &mut self.extra.get_or_insert_default().incoming
    }

    /// Frees what holds nothing.
    fn forget_extra(&mut self) {
        self.extra.take_if(|extra| extra.stage.is_plain() && extra.incoming.is_empty());
    }

    /// How the connection is protected.
    pub(crate) fn security(&self) -> Security<'_> {
        self.stage().map_or(Security::Plain, Stage::security)
    }

    /// No longer awaits a PROXY header that may be absent, and of which nothing was received. False: it is not so.
    pub(crate) fn give_up_header(&mut self) -> bool {
        let is_given_up = self.stage_mut().is_some_and(Stage::give_up_header);
        self.forget_extra();
        is_given_up
    }

    /// Whether the PROXY header is incomplete.
    pub(crate) fn awaits_header(&self) -> bool {
        matches!(self.stage(), Some(Stage::Header(_)))
    }

    /// Whether received bytes of a handshake wait for a step.
    pub(crate) fn awaits_step(&self) -> bool {
        self.tls().is_some_and(Session::is_waiting)
    }

    /// Continues a handshake. What it leads to is queued.
    pub(crate) fn step<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        let Some(session) = self.stage_mut().and_then(Stage::tls_mut) else { return };
        let Taken { bytes, end, .. } = session.step();
        self.take_output();
        self.drop_after_failure(driver);
        for arrival in bytes.into_iter().chain(end) {
            self.keep(arrival, driver);
        }
    }

    /// Queues the records that the stage has made by itself.
    fn take_output(&mut self) {
        if let Some(output) = self.stage_mut().and_then(Stage::tls_mut).and_then(Session::take_output)
            && self.life < Life::Shut
        {
            self.outgoing.push_sealed(Segment::heap(output));
        }
    }

    /// Creates the transport of a stream.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn stream() -> Transport<H> {
        Transport::of(Port::Stream)
    }

    /// Whether it is a stream of a carrier.
    pub(crate) fn is_stream(&self) -> bool {
        self.handle().is_none()
    }

    /// Whether nothing more is sent: the carrier sends the end of the stream.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_shut(&self) -> bool {
        self.life >= Life::Shut
    }

    /// Removes queued bytes of a stream, which the carrier sends. `on_sent` must be called with the batch. None: no bytes
    /// are queued.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn pull<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> Option<(Batch, Vec<u8>)> {
        debug_assert!(self.is_stream() && !self.is_sending(), "{:?}", self.sending);
        let batch = self.take_batch(SEND_SEGMENTS_MAX, driver)?;
        let mut bytes = Vec::new();
        for segment in std::iter::once(&batch.first).chain(&batch.rest) {
            segment.append_to(driver, &mut bytes);
        }
        self.sending = SendState::InFlight;
        Some((batch, bytes))
    }

    /// Creates the transport of an open device.
    pub(crate) fn device(handle: H) -> Transport<H> {
        let mut transport = Transport::new(handle);
        transport.mode.set(Mode::DEVICE, true);
        transport
    }

    pub(crate) fn is_device(&self) -> bool {
        self.mode.has(Mode::DEVICE)
    }

    /// Whether this is a finishing device whose queue has been written completely.
    pub(crate) fn is_drained_device(&self) -> bool {
        self.is_device() && self.life == Life::Finishing && self.outgoing.is_empty() && !self.is_sending()
    }

    /// Whether a stage stands between the socket and its exchange, so that the socket cannot be handed over.
    pub(crate) fn is_staged(&self) -> bool {
        self.stage().is_some_and(|stage| !stage.is_clear())
    }

    fn take_batch<D: Driver<Handle = H>>(&mut self, segments_max: usize, driver: &mut D) -> Option<Batch> {
        self.outgoing.take_batch(segments_max, self.extra.as_mut().map(|extra| &mut extra.stage), driver)
    }

    /// The handle. None: a stream.
    pub(crate) fn handle(&self) -> Option<&H> {
        self.port.handle()
    }

    /// Whether it may be lent for a hand-over: it has a descriptor, and nothing is queued or in flight for it.
    pub(crate) fn may_lend(&self) -> bool {
        !self.is_stream() && !self.is_in_flight() && self.outgoing.is_empty() && self.life != Life::Abandoned
    }

    /// Lends the handle to a hand-over, which must end with `take_back`. None: it may not be lent.
    pub(crate) fn lend(&mut self) -> Option<&H> {
        if !self.may_lend() {
            return None;
        }
        self.sending = SendState::Lent;
        self.handle()
    }

    /// Returns the handle after a hand-over.
    pub(crate) fn take_back(&mut self) {
        if self.sending == SendState::Lent {
            self.sending = SendState::No;
        }
    }

    /// Sets the kind of data to receive.
    pub(crate) fn set_demand(&mut self, demand: Demand) {
        if self.life != Life::Abandoned {
            self.mode.set_demand(demand);
        }
    }

    /// Whether one piece of data is wanted.
    pub(crate) fn asks_once(&self) -> bool {
        self.mode.demand() == Demand::Once
    }

    /// Bytes in the send queue, including those in flight, and a close_notify for which the kernel has no room yet.
    pub(crate) fn queued_size(&self) -> usize {
        let owes_end = self.life == Life::Finishing && self.outgoing.is_empty() && self.owes_close_notify();
        self.outgoing.size() + if owes_end { CLOSE_NOTIFY_SIZE } else { 0 }
    }

    /// Bytes held outside the pool.
    pub(crate) fn heap_size(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| extra.incoming.heap_size() + extra.stage.heap_size());
        self.outgoing.heap_size() + extra
    }

    /// The part of `heap_size` that an idle connection holds.
    pub(crate) fn idle_size(&self) -> usize {
        self.tls().map_or(0, Session::idle_size)
    }

    /// Whether nothing is to be sent, neither data, nor a kept pong, nor an end.
    pub(crate) fn has_nothing_to_send(&self) -> bool {
        self.life == Life::Open && self.outgoing.has_nothing()
    }

    /// Whether it may lie idle: it is open and read without limits, and nothing is queued or in flight but its receive.
    pub(crate) fn may_idle(&self) -> bool {
        let is_read = self.mode.demand() == Demand::Flow && !self.is_paused() && self.receiving != Receiving::Ended;
        self.has_nothing_to_send() && self.sending == SendState::No && is_read && !self.has_arrivals()
    }

    /// Whether reading is paused because the opposite send queue is too long.
    pub(crate) fn is_paused(&self) -> bool {
        self.mode.has(Mode::PAUSED)
    }

    /// Whether received data may be unread: reading is paused, nothing is demanded, no buffer is free, or arrivals are
    /// queued.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_paused() || self.mode.demand() == Demand::Nothing || self.is_starved() || self.has_arrivals()
    }

    /// Whether a receive waits for a buffer.
    pub(crate) fn is_starved(&self) -> bool {
        self.receiving == Receiving::Starved
    }

    /// Whether arrivals may be delivered to the exchange.
    pub(crate) fn may_deliver(&self, opposite: Opposite) -> bool {
        // What else was to be sent is lost, so that nothing else would end the connection.
        if self.incoming().is_some_and(Incoming::begins_with_failure) {
            return true;
        }
        !self.is_paused() && self.mode.demand() != Demand::Nothing && opposite.queued_size <= opposite.queue_size_max
    }

    /// Whether the first arrival was partly consumed.
    pub(crate) fn has_rest(&self) -> bool {
        self.incoming().is_some_and(Incoming::has_rest)
    }

    /// Whether arrivals are queued.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.incoming().is_some_and(|incoming| !incoming.is_empty())
    }

    /// Queues an arrival until the exchange takes it. An abandoned transport drops it.
    pub(crate) fn keep<D: Driver<Handle = H>>(&mut self, arrival: Arrival, driver: &mut D) {
        self.incoming_mut().push(arrival);
        if self.life == Life::Abandoned {
            self.clear_incoming(driver);
        }
    }

    /// As `keep`, but at the front, for the unconsumed rest of an arrival.
    pub(crate) fn put_back<D: Driver<Handle = H>>(&mut self, arrival: Arrival, driver: &mut D) {
        self.incoming_mut().put_back(arrival);
        if self.life == Life::Abandoned {
            self.clear_incoming(driver);
        }
    }

    /// Copies queued arrivals to the heap and releases their pool buffers.
    pub(crate) fn spill_arrivals<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if let Some(extra) = &mut self.extra {
            extra.incoming.spill(driver);
        }
    }

    fn clear_incoming<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if let Some(extra) = &mut self.extra {
            extra.incoming.clear(driver);
        }
        self.forget_extra();
    }

    /// Removes the first arrival.
    pub(crate) fn take_arrival(&mut self) -> Option<Arrival> {
        let arrival = self.extra.as_mut()?.incoming.take()?;
        self.forget_extra();
        if self.mode.demand() == Demand::Once {
            self.mode.set_demand(Demand::Nothing);
        }
        Some(arrival)
    }

    /// Whether the transport is abandoned: nothing more is queued or received.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.life == Life::Abandoned
    }

    /// If the pool is short and the peer is not receiving, drops all but the beginning of a queued page segment.
    /// Returns the number of bytes dropped.
    pub(crate) fn drop_page<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> usize {
        match self.sending == SendState::Blocked && !self.is_staged() && is_short(driver, Share::Requests) {
            true => self.outgoing.drop_last(PAGE_KEPT_SIZE, driver),
            false => 0,
        }
    }

    /// Queues bytes to send. If the life state forbids it, the segment is released.
    pub(crate) fn enqueue<D: Driver<Handle = H>>(&mut self, segment: Segment, driver: &mut D) {
        if self.life != Life::Open || self.tls().is_some_and(Session::is_closed) {
            return give_back(segment, driver);
        }
        self.outgoing.push(segment);
    }

    /// Queues the final frame. Nothing can be queued after it.
    pub(crate) fn enqueue_last<D: Driver<Handle = H>>(&mut self, frame: Box<[u8]>, driver: &mut D) {
        self.enqueue(Segment::heap(frame), driver);
        self.outgoing.set_pong(None);
        self.life = self.life.max(Life::Last);
    }

    /// Queues a pong. If the queue is long, keeps only the latest pong (RFC 6455 section 5.5.3). `queue_size_max` is the
    /// high-water mark of this queue in bytes.
    pub(crate) fn enqueue_pong<D: Driver<Handle = H>>(
        &mut self,
        frame: Box<[u8]>,
        queue_size_max: usize,
        driver: &mut D,
    ) {
        if self.outgoing.size() < queue_size_max / 4 {
            // An older kept pong would be sent after this one, out of order.
            self.outgoing.set_pong(None);
            self.enqueue(Segment::heap(frame), driver);
        } else if self.life == Life::Open {
            self.outgoing.set_pong(Some(frame));
        }
    }

    /// Shuts the write side down once the queue is empty.
    pub(crate) fn finish(&mut self) {
        self.life = self.life.max(Life::Finishing);
    }

    /// Abandons the transport: releases queued data and ends operations in flight.
    pub(crate) fn abandon<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        let before = std::mem::replace(&mut self.life, Life::Abandoned);
        if before == Life::Abandoned {
            return;
        }
        self.mode.set_demand(Demand::Nothing);
        // A receive is no longer wanted. A starved state would postpone the connection's deadline.
        if self.receiving == Receiving::Starved {
            self.receiving = Receiving::No;
        }
        let has_farewell = before < Life::Shut && self.keep_farewell(driver);
        if !has_farewell {
            self.outgoing.clear(driver);
        }
        self.clear_incoming(driver);
        // A lent handle may already belong to the backend: do not shut it down.
        if !has_farewell
            && self.is_in_flight()
            && self.sending != SendState::Lent
            && let Some(handle) = self.handle()
        {
            driver.shutdown(handle, true);
        }
        self.check_invariants();
    }

    /// Keeps the last records of the stage in the queue, an alert or the close_notify, if they can be sent without waiting.
    /// False: there are none.
    fn keep_farewell<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> bool {
        if self.sending != SendState::No || self.tls().is_none() {
            return false;
        }
        self.outgoing.drop_unsealed(driver);
        self.close_session(driver);
        if let Some(output) = self.stage_mut().and_then(Stage::tls_mut).and_then(Session::take_output) {
            self.outgoing.push_sealed(Segment::heap(output));
        }
        !self.outgoing.is_empty()
    }

    /// Drops the send queue after the peer stopped receiving. The peer may still send.
    pub(crate) fn mute<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        self.outgoing.clear(driver);
        self.life = self.life.max(Life::Last);
    }

    /// Handles a receive completion. Returns what was received; None: nothing, or no bytes are complete. A receive that
    /// found no free buffer, or that completed no bytes, is requested again.
    pub(crate) fn on_received<D: Driver<Handle = H>>(
        &mut self,
        result: Received,
        more: bool,
        driver: &mut D,
    ) -> Option<Arrival> {
        let size = if let Received::Data(lease) = &result { Some(lease.len()) } else { None };
        let is_end = matches!(result, Received::End);
        // A receive that was cancelled for an earlier demand completes after the next one.
        let is_nothing =
            matches!(result, Received::Failed(Errno::ENOBUFS | Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN));
        let is_record = matches!(result, Received::Failed(Errno::EIO)) && self.is_offloaded();
        let arrival = match result {
            Received::Failed(Errno::ENOBUFS | Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN) => None,
            Received::Data(lease) => self.pass_stage(lease, driver),
            Received::End => self.stage_mut().map_or(Some(Arrival::End), Stage::receive_end),
            Received::Failed(errno) if self.is_offloaded() => self.receive_record(errno, driver),
            Received::Failed(errno) => self.stage().and_then(Stage::cut_header).or(Some(Arrival::Failed(errno))),
        };
        let is_incomplete = is_nothing || (size.is_some() || is_record) && arrival.is_none();
        if !more && self.receiving != Receiving::Ended {
            // An end that the stage has told before is not delivered.
            self.receiving = if is_end && arrival.is_none() { Receiving::Ended } else { Receiving::No };
        }
        if self.mode.demand() == Demand::Once && !is_incomplete {
            self.mode.set_demand(Demand::Nothing);
        }
        match size {
            Some(size) if size >= FULL => self.mode.set(Mode::BULK, true),
            Some(size) if size < FULL / 2 && !more => self.mode.set(Mode::BULK, false),
            _ => {}
        }
        self.check_invariants();
        arrival
    }

    /// Passes received bytes through the stage. If their end is known too, both are queued, and so are those after a
    /// PROXY header.
    fn pass_stage<D: Driver<Handle = H>>(&mut self, lease: Lease, driver: &mut D) -> Option<Arrival> {
        let Some(stage) = self.stage_mut() else { return Some(Arrival::Lease(lease)) };
        if stage.is_plain() {
            return Some(Arrival::Lease(lease));
        }
        let taken = stage.receive(lease, driver);
        self.take_output();
        self.drop_after_failure(driver);
        match taken {
            Taken { introduction: Some(introduction), bytes, end } => {
                for arrival in bytes.into_iter().chain(end) {
                    self.keep(arrival, driver);
                }
                self.forget_extra();
                Some(Arrival::Header(introduction))
            }
            Taken { bytes: Some(bytes), end: Some(end), .. } => {
                self.keep(bytes, driver);
                self.keep(end, driver);
                None
            }
            Taken { bytes, end, .. } => bytes.or(end),
        }
    }

    /// Handles end of stream or a receive error, after delivery to the exchange.
    pub(crate) fn on_end(&mut self) {
        // An oversized packet is an error, but its multishot receive stays armed.
        match self.is_receiving() {
            true => self.mode.set_demand(Demand::Nothing),
            false => self.receiving = Receiving::Ended,
        }
    }

    /// Handles a send completion. Unsent bytes return to the head of the queue.
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
        self.check_invariants();
        match error {
            Some(errno) => SendResult::Failed(errno),
            None if self.outgoing.is_empty() => SendResult::Drained,
            None => SendResult::Waiting,
        }
    }

    /// Runs at the end of a turn: submits a send for queued data and a receive if one is wanted. `token` names this
    /// transport's slot.
    pub(crate) fn settle<D: Driver<Handle = H>>(
        &mut self,
        token: Token,
        opposite: Opposite,
        driver: &mut D,
    ) -> Settled {
        let settled = match self.life {
            Life::Abandoned => self.settle_abandoned(token, driver),
            _ => {
                self.settle_offload(driver);
                self.settle_sending(token, driver);
                self.settle_receiving(token, opposite, driver)
            }
        };
        self.check_invariants();
        settled
    }

    /// Asserts the table at the top of this file, in debug builds.
    fn check_invariants(&self) {
        let has_shut = self.life == Life::Shut;
        debug_assert!(
            !has_shut || self.outgoing.is_empty() && !self.is_sending(),
            "a send after the end: {:?}",
            self.sending
        );
        let is_abandoned = self.life == Life::Abandoned;
        let is_silent = self.outgoing.is_empty() || self.tls().is_some();
        let is_empty = is_silent && !self.has_arrivals() && self.mode.demand() == Demand::Nothing;
        debug_assert!(!is_abandoned || is_empty, "an abandoned transport keeps something");
        let is_lent = self.sending == SendState::Lent;
        debug_assert!(!is_lent || !self.is_receiving(), "a receive while lent: {:?}", self.receiving);
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
        // A socket's send is ended by its shutdown. Devices have no shutdown and need a cancellation.
        if self.is_device() && self.sending == SendState::InFlight {
            driver.cancel(Token { op: Op::Writable, ..token });
            self.sending = SendState::Cancelling;
        }
        if self.sending == SendState::No
            && let Some(batch) = self.take_batch(SEND_SEGMENTS_MAX, driver)
            && let Some(handle) = self.port.handle()
        {
            self.sending = SendState::InFlight;
            driver.send(Token { op: Op::Send, ..token }, handle, batch, Sending::Now);
        }
        if self.is_in_flight() { Settled::Done } else { Settled::Closable }
    }

    fn settle_sending<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) {
        if !self.is_sending()
            && self.outgoing.is_empty()
            && let Some(frame) = self.outgoing.set_pong(None)
        {
            // The peer may be finished, but nothing that a pong may not follow was queued: that drops the pong.
            self.outgoing.push(Segment::heap(frame));
        }
        if matches!(self.sending, SendState::Blocked | SendState::InFlight) {
            self.outgoing.spill(driver);
        }
        if matches!(self.sending, SendState::InFlight | SendState::Lent) {
            return;
        }
        if self.is_stream() {
            // The carrier pulls what is queued.
            if self.life == Life::Finishing && self.outgoing.is_empty() {
                self.life = Life::Shut;
            }
            return;
        }
        // Packet boundaries must be preserved: send one packet per operation.
        let most = if self.mode.demand() == Demand::Packets { 1 } else { SEND_SEGMENTS_MAX };
        let batch = match self.take_batch(most, driver) {
            None if self.life == Life::Finishing => self.take_close_notify(driver),
            batch => batch,
        };
        if let Some(failure) = self.stage_mut().and_then(Stage::tls_mut).and_then(Session::take_failure) {
            self.keep(failure, driver);
        }
        let Some(handle) = self.port.handle() else { return };
        match batch {
            Some(batch) => {
                let how = match (self.is_device(), self.sending) {
                    (true, _) => Sending::Device,
                    (false, SendState::Blocked) => Sending::Wait,
                    (false, _) => Sending::Now,
                };
                self.sending = SendState::InFlight;
                driver.send(Token { op: Op::Send, ..token }, handle, batch, how);
            }
            None if self.has_said_all() && !self.is_device() => {
                self.life = Life::Shut;
                // The kernel drops what waits of a record when TCP's stream ends: its close_notify has ended the stream.
                if !self.is_offloaded() {
                    driver.shutdown(handle, false);
                }
            }
            None => {}
        }
    }

    /// The close_notify as the last batch. None: it was sent, or something else waits for the handshake to be complete.
    fn take_close_notify<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> Option<Batch> {
        if !self.outgoing.is_empty() {
            return None;
        }
        self.close_session(driver);
        self.take_output();
        self.take_batch(SEND_SEGMENTS_MAX, driver)
    }

    /// Whether the write side is to be shut down: the queue is empty, and nothing more can be queued or sealed.
    fn has_said_all(&self) -> bool {
        let is_closed = self.tls().is_some_and(Session::is_closed);
        // The close_notify of the kernel may wait for room.
        let is_last = is_closed || self.life == Life::Finishing && !self.is_offloaded();
        is_last && self.outgoing.is_empty()
    }

    fn settle_receiving<D: Driver<Handle = H>>(&mut self, token: Token, opposite: Opposite, driver: &mut D) -> Settled {
        if opposite.queued_size > opposite.queue_size_max {
            self.mode.set(Mode::PAUSED, true);
        } else if opposite.queued_size < opposite.queue_size_max / 4 {
            self.mode.set(Mode::PAUSED, false);
        }
        if self.receiving == Receiving::Starved {
            self.receiving = Receiving::No;
        }
        if self.is_stream() {
            return Settled::Done;
        }
        let is_wanted = self.may_deliver(opposite) && !self.has_arrivals() && !self.awaits_step();
        let (demand, is_bulk) = (self.mode.demand(), self.mode.has(Mode::BULK));
        let is_one_by_one = is_bulk && demand != Demand::Packets;
        if self.receiving == Receiving::Multishot && (!is_wanted || is_one_by_one) {
            self.cancel_receive(token, driver);
        }
        if self.receiving != Receiving::No || !is_wanted || self.sending == SendState::Lent {
            return Settled::Done;
        }
        let share = if demand == Demand::Once { Share::Requests } else { Share::Messages };
        if !driver.may_receive(share) {
            self.receiving = Receiving::Starved;
            return Settled::Starved(share);
        }
        let (how, receiving) = match demand {
            _ if self.is_device() => (Receive::Device, Receiving::Once),
            Demand::Packets => (Receive::Packets, Receiving::Multishot),
            Demand::Once => (Receive::Request, Receiving::Once),
            Demand::Flow if !is_bulk => (Receive::Multishot, Receiving::Multishot),
            _ => (Receive::Once, Receiving::Once),
        };
        if let Some(handle) = self.port.handle() {
            driver.receive(Token { op: Op::Receive, ..token }, handle, how);
            self.receiving = receiving;
        }
        Settled::Done
    }

    fn cancel_receive<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) {
        if matches!(self.receiving, Receiving::Multishot | Receiving::Once) {
            let op = if self.is_device() { Op::Readable } else { Op::Receive };
            driver.cancel(Token { op, ..token });
            self.receiving = Receiving::Cancelling;
        }
    }

    /// Closes the handle. Nothing may be in flight.
    pub(crate) fn close<D: Driver<Handle = H>>(self, driver: &mut D) {
        debug_assert!(!self.is_in_flight(), "closed with something in flight");
        match self.port {
            Port::Descriptor(handle) => driver.close(handle),
            #[cfg(any(test, feature = "sim"))]
            Port::Stream => {}
        }
    }
}

/// Result of `settle`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    Done,
    /// A receive waits for a pool buffer of this share.
    Starved(Share),
    /// The transport is abandoned and idle: the caller must close it.
    Closable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sim::Sim;

    /// A starved state would postpone the connection's deadline indefinitely.
    #[test]
    fn an_abandoned_transport_waits_for_no_buffer() {
        let mut sim = Sim::new(1, 2);
        let mut transport = Transport::new(sim.listener());
        transport.receiving = Receiving::Starved;
        transport.abandon(&mut sim);
        assert!(!transport.is_starved());
    }

    #[test]
    fn a_kept_pong_is_sent_before_the_end() {
        let mut sim = Sim::new(1, 2);
        let mut transport = Transport::new(sim.listener());
        assert!(transport.has_nothing_to_send());
        transport.outgoing.set_pong(Some([0x8a, 0].into()));
        assert!(!transport.has_nothing_to_send(), "the connection has to be settled again");
        transport.finish();
        let token = Token { slot: 0, generation: 1, op: Op::Receive };
        transport.settle(token, Opposite { queued_size: 0, queue_size_max: 1 }, &mut sim);
        assert_eq!((transport.sending, transport.life), (SendState::InFlight, Life::Finishing));
    }
}
