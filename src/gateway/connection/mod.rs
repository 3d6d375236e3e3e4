//! One exchange with its two transports and its opened file.

mod apply;
mod handover;
mod open_file;
mod proxied;

use std::net::{SocketAddr, SocketAddrV4};

use super::World;
use super::admission::{Admission, Handshake, HeldSize, Places};
use super::endpoint::Endpoint;
use super::opened::Opened;
use super::slots::{Key, Slots};
use super::timers::Owner;
use crate::access::{Admitted, NonceKey, Revocations};
use crate::clients::{AddressCounts, AddressUnit};
use crate::driver::{Batch, Driver, Errno, Lease, Op, Received, Share, Token};
use crate::exchange::{Chunk, CloseTimeouts, Drained, Ending, Exchange, Input, Proxied, Security, Surroundings};
use crate::http::date::Date;
use crate::limits;
use crate::observe::log::{self, AccessLine, Level, Quoted};
use crate::tls::{ClientFacts, TlsFacts};
use crate::transport::{Arrival, Opposite, SendResult, Settled, Transport};
use crate::types::{Address, Demand, End, Moment, U48};
use apply::Source;
pub(super) use proxied::ProxyFacts;
use rfc6455::mask::MaskKeys;

#[derive(Debug)]
pub(super) struct Connection<H> {
    id: U48,
    /// Index in the connection table.
    slot: u32,
    /// What it held outside the pool when last counted.
    held: HeldSize,
    /// The client's address. None: not IPv4, see `rare`.
    address: Option<SocketAddrV4>,
    places: Places<H>,
    exchange: Exchange,
    /// Slots of the transports. None: not open.
    client: Option<Key>,
    backend: Option<Key>,
    /// None: all of it has its default value.
    rare: Option<Box<Rare<H>>>,
    started: Moment,
    /// When a peer last received data.
    moved: Moment,
    /// Whether it is already listed for settling.
    pub(super) is_listed: bool,
    /// Whether it is in the gateway's backlog.
    pub(super) is_backlogged: bool,
    /// Whether it is in the gateway's queue for steps of TLS handshakes.
    pub(super) is_stepping: bool,
    /// Whether it is in a gateway queue for pool buffers.
    pub(super) is_starved: bool,
    /// Whether it is in the gateway's list of connections with data that the exchange may not take.
    pub(super) is_hoarding: bool,
    /// Whether the last visit left data, or consumed data left by an earlier visit.
    is_heavy: bool,
}

/// State that an idle conversation of an IPv4 client without a user does not need. Other clients keep this box, but not
/// `busy`.
#[derive(Debug)]
struct Rare<H> {
    /// The client's address. None: IPv4.
    address: Option<Address>,
    /// The user as whom the client was admitted. None: it did not have to be.
    admitted: Option<Box<Admitted>>,
    busy: Option<Box<Busy<H>>>,
}

/// State of a connection in its handshake, while a page is sent, or at its end.
#[derive(Debug)]
struct Busy<H> {
    /// None: the handshake is over.
    handshake: Option<Handshake>,
    /// None: not a connection of a trusted proxy, or the handshake is over.
    proxied: Option<Box<ProxyFacts>>,
    opened: Option<Opened<H>>,
    /// Since when the deadline is postponed because of recent activity. None: not postponed.
    put_off: Option<Moment>,
    /// What the exchange is to be told at the end of the turn.
    told: Option<Told>,
    /// How it ends. None: it has not ended.
    ending: Option<Ending>,
}

/// The result of an effect that has no completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Whether an idle connection was taken.
    TookIdle(bool),
    /// The node has no such address.
    NoAddress,
}

impl<H> Default for Rare<H> {
    fn default() -> Rare<H> {
        Rare { address: None, admitted: None, busy: None }
    }
}

impl<H> Default for Busy<H> {
    fn default() -> Busy<H> {
        Busy { handshake: None, proxied: None, opened: None, put_off: None, told: None, ending: None }
    }
}

/// Whether a connection has to be settled after a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settling {
    Needed,
    NotNeeded,
}

impl<H> Busy<H> {
    /// Whether nothing of it needs attention at the end of a turn.
    fn is_calm(&self) -> bool {
        self.handshake.is_none() && self.opened.is_none() && self.told.is_none() && self.ending.is_none()
    }

    /// Whether it may be dropped.
    fn is_nothing(&self) -> bool {
        self.is_calm() && self.put_off.is_none()
    }
}

impl<H> Connection<H> {
    /// Creates the connection of an accepted client.
    pub(super) fn new(
        id: u64,
        slot: u32,
        client: Key,
        address: Address,
        (places, handshake): (Places<H>, Option<Handshake>),
        proxied: Option<Box<ProxyFacts>>,
        now_ms: u64,
    ) -> Connection<H> {
        let (v4, other) = split(address);
        let busy = Busy { handshake, proxied, ..Busy::default() };
        Connection {
            id: U48::new(id),
            slot,
            held: HeldSize::default(),
            address: v4,
            places,
            exchange: Exchange::default(),
            client: Some(client),
            backend: None,
            rare: Some(Box::new(Rare { address: other, admitted: None, busy: Some(Box::new(busy)) })),
            started: Moment::at(now_ms),
            moved: Moment::at(now_ms),
            is_listed: false,
            is_backlogged: false,
            is_stepping: false,
            is_starved: false,
            is_hoarding: false,
            is_heavy: false,
        }
    }

    /// The client's address.
    fn address(&self) -> Address {
        match (self.address, &self.rare) {
            (Some(v4), _) => Address::Tcp(v4.into()),
            (None, Some(rare)) => rare.address.unwrap_or(Address::Unknown),
            (None, None) => Address::Unknown,
        }
    }

    /// The user as whom the client of its latest request was admitted. None: it did not have to be.
    pub(super) fn admitted(&self) -> Option<&Admitted> {
        self.rare.as_ref()?.admitted.as_deref()
    }

    fn busy(&self) -> Option<&Busy<H>> {
        self.rare.as_ref()?.busy.as_deref()
    }

    fn busy_mut(&mut self) -> Option<&mut Busy<H>> {
        self.rare.as_mut()?.busy.as_deref_mut()
    }

    fn busy_or_new(&mut self) -> &mut Busy<H> {
        self.rare.get_or_insert_default().busy.get_or_insert_default()
    }

    /// Frees what holds nothing.
    fn forget_busy(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.busy.take_if(|busy| busy.is_nothing());
        }
        self.rare.take_if(|rare| rare.busy.is_none() && rare.address.is_none() && rare.admitted.is_none());
    }

    fn ending(&self) -> Option<Ending> {
        self.busy()?.ending
    }

    fn opened(&self) -> Option<&Opened<H>> {
        self.busy()?.opened.as_ref()
    }

    fn opened_mut(&mut self) -> Option<&mut Opened<H>> {
        self.busy_mut()?.opened.as_mut()
    }

    /// The unit of per-address limits that the client belongs to.
    pub(super) fn address_unit(&self) -> AddressUnit {
        AddressUnit::of(self.address())
    }

    /// The address of which it has a place. None: it has none.
    #[cfg(test)]
    pub(super) fn place(&self) -> Option<Address> {
        let has_place = matches!(&self.places, Places::Admitted { address: Some(_), .. });
        has_place.then(|| self.address())
    }

    /// When a peer last received data, in ms; initially the time of accept.
    pub(super) fn moved_ms(&self) -> u64 {
        self.moved.ms()
    }

    /// Summary of the data queued at its transports.
    pub(super) fn kept<D: Driver<Handle = H>>(&self, world: &World<D>) -> Kept {
        let (client, backend) = (self.transport(End::Client, world), self.transport(End::Backend, world));
        let (up, down) = (self.opposite(End::Client, world), self.opposite(End::Backend, world));
        let mut kept = Kept::default();
        for (transport, opposite) in [(client, up), (backend, down)] {
            let Some(transport) = transport else { continue };
            kept.heap_size += transport.heap_size();
            kept.awaits_step |= transport.awaits_step();
            if transport.has_arrivals() {
                let may_deliver = transport.may_deliver(opposite);
                kept.has_backlog |= may_deliver;
                kept.has_hoard |= !may_deliver;
            }
        }
        kept
    }

    /// Copies to the heap received data that its exchange may not take now.
    pub(super) fn spill_hoard<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        for end in End::BOTH {
            if !self.may_deliver(end, world)
                && let Some(transport) = world.slots.transport_mut(self.key(end))
            {
                transport.spill_arrivals(&mut world.driver);
            }
        }
    }

    /// Whether it sends more at once than one visit consumes.
    pub(super) fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    /// Whether a visit left part of a receive. Consuming the rest soon releases its buffer.
    pub(super) fn has_rest<D: Driver<Handle = H>>(&self, world: &World<D>) -> bool {
        End::BOTH.into_iter().any(|end| self.transport(end, world).is_some_and(Transport::has_rest))
    }

    fn may_deliver<D: Driver<Handle = H>>(&self, end: End, world: &World<D>) -> bool {
        let opposite = self.opposite(end, world);
        self.transport(end, world).is_some_and(|transport| transport.may_deliver(opposite))
    }

    /// The send queue of the transport opposite to `end`.
    fn opposite<D: Driver<Handle = H>>(&self, end: End, world: &World<D>) -> Opposite {
        let queue_size_max = self.exchange.wants().queue_size_max as usize;
        Opposite { queued_size: self.queued_size(end.opposite(), world), queue_size_max }
    }

    fn queued_size<D: Driver<Handle = H>>(&self, end: End, world: &World<D>) -> usize {
        self.transport(end, world).map_or(0, Transport::queued_size)
    }

    /// Whether closing has begun irrevocably.
    pub(super) fn is_ending(&self) -> bool {
        self.busy().is_some_and(|busy| busy.ending.is_some())
    }

    /// Whether the admission of its client was revoked.
    pub(super) fn has_lost(&self, revoked: &Revocations) -> bool {
        let is_revoked = |Admitted { user, server, .. }: &Admitted| revoked.contains(server.as_deref(), user);
        !self.is_ending() && self.admitted().is_some_and(is_revoked)
    }

    /// Bytes held outside the pool when last settled.
    pub(super) fn held_size(&self) -> usize {
        self.held.size()
    }

    /// Updates what is held outside the pool, and returns the old and the new value. A connection that ends counts only
    /// if it was aborted for its memory, until it is over.
    pub(super) fn update_held(&mut self, kept: Kept) -> (HeldSize, HeldSize) {
        let is_aborted = matches!(self.ending(), Some(Ending::HeldTooMuch));
        let counts = !self.is_ending() || is_aborted && !self.is_over();
        let size = if counts { kept.heap_size + self.exchange.wants().held_size } else { 0 };
        let now = HeldSize::new(size, is_aborted);
        (std::mem::replace(&mut self.held, now), now)
    }

    /// Its slot and generation.
    pub(super) fn owner(&self) -> Owner {
        Owner { slot: self.slot, generation: self.id.get() as u32 & Token::GENERATION_MASK }
    }

    /// Whether it can be freed: no descriptor is open and nothing is in flight.
    pub(super) fn is_over(&self) -> bool {
        self.is_ending() && self.client.is_none() && self.backend.is_none() && self.opened().is_none()
    }

    /// Returns the time of a timer to set, in ms; `timer_ms` is that of the timer that is set. None: no deadline, or the
    /// timer is early enough.
    pub(super) fn timer_to_set(&self, timer_ms: Option<u64>) -> Option<u64> {
        let deadline_ms = self.exchange.wants().deadline_ms?;
        let is_put_off = self.busy().is_some_and(|busy| busy.put_off.is_some());
        let is_early = timer_ms.is_some_and(|timer_ms| timer_ms <= deadline_ms || is_put_off);
        (!is_early).then_some(deadline_ms)
    }

    /// Passes an input to the exchange and applies the effects.
    pub(super) fn handle<D: Driver<Handle = H>>(&mut self, input: Input<'_>, world: &mut World<D>) {
        let around = around(
            self.places.endpoint(),
            (&world.date, world.tag_salt, &world.nonces, &world.masks),
            (world.since_ms, world.now_ms),
            self.security(&world.slots),
            self.origin(&world.counts),
        );
        self.exchange.handle(around, input, &mut world.effects);
        self.apply(Source::Nothing, world);
    }

    /// Aborts the connection without a close handshake.
    pub(super) fn break_off(&mut self, ending: Ending) {
        self.busy_or_new().ending.get_or_insert(ending);
    }

    /// Returns the time in ms until which an expired timer is postponed, because the awaited data may be unread in the
    /// kernel or queued here. None: not postponed.
    pub(super) fn put_off_timer<D: Driver<Handle = H>>(&mut self, world: &World<D>) -> Option<u64> {
        let taken_ms = world.taken_ms;
        let wants = self.exchange.wants();
        let is_due = wants.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= taken_ms);
        // During closing, received data is ignored and does not postpone the deadline.
        let is_closing = wants.timeouts.is_some() && !wants.is_forwarding();
        let waits_here = (self.is_backlogged || self.is_stepping) && !is_closing;
        let is_starved = |end| self.transport(end, world).is_some_and(Transport::is_starved);
        let is_unread = waits_here || self.is_starved || is_starved(End::Client) || is_starved(End::Backend);
        let put_off = self.busy().and_then(|busy| busy.put_off);
        let (put_off_ms, until_ms) = match (is_due, is_unread) {
            (false, _) => (0, 0),
            (true, true) => (taken_ms, taken_ms + limits::UNREAD_LOOK_MS),
            // A listed connection had activity in this turn, and more may follow.
            (true, false) if self.is_listed => (put_off.map_or(taken_ms, Moment::ms), taken_ms),
            // A connection that could not be read until now gets a short grace period.
            (true, false) => match put_off {
                Some(put_off) => (put_off.ms(), taken_ms + limits::UNREAD_LOOK_MS),
                None => return None,
            },
        };
        if !is_due || taken_ms >= put_off_ms + limits::CATCH_UP_MS {
            if let Some(busy) = self.busy_mut() {
                busy.put_off = None;
                self.forget_busy();
            }
            return None;
        }
        self.busy_or_new().put_off = Some(Moment::at(put_off_ms));
        Some(until_ms)
    }

    /// Handles a fired timer. The deadline may have moved since the timer was set.
    pub(super) fn on_timer<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        let wants = self.exchange.wants();
        let is_forwarding = wants.is_forwarding();
        if wants.deadline_ms.is_none_or(|deadline_ms| deadline_ms > world.taken_ms) {
            return;
        }
        // A proxy that may omit the header, and is silent, is waited for as others are.
        if world.slots.transport_mut(self.client).is_some_and(Transport::give_up_header) {
            return self.on_header(Ok(None), world);
        }
        let queued = self.queued_size(End::Client, world);
        // During a reply and during closing, the timeout runs from the last byte sent. It is longer while bytes are
        // queued for a peer.
        if let Some(CloseTimeouts { since_ms, close_ms, stall_ms }) = wants.timeouts {
            let is_owed = queued + self.queued_size(End::Backend, world) > 0;
            let until_ms = self.moved.ms().max(since_ms) + if is_owed { stall_ms } else { close_ms };
            if world.now_ms < until_ms {
                return self.handle(Input::PutOff(until_ms.min(world.now_ms + close_ms)), world);
            }
        }
        match (self.transport(End::Client, world).is_none_or(Transport::is_unread), queued) {
            (false, _) => {}
            (true, 0) => self.handle(Input::Unread, world),
            // Queued data also tests whether the peer is alive. Do not add further pings to the queue.
            (true, _) => self.handle(Input::Excused, world),
        }
        let input = match is_forwarding {
            true if queued > 0 => Input::Stalled(End::Client),
            true if self.queued_size(End::Backend, world) > 0 => Input::Stalled(End::Backend),
            _ => Input::Deadline,
        };
        let around = around(
            self.places.endpoint(),
            (&world.date, world.tag_salt, &world.nonces, &world.masks),
            (world.since_ms, world.taken_ms),
            self.security(&world.slots),
            self.origin(&world.counts),
        );
        self.exchange.handle(around, input, &mut world.effects);
        self.apply(Source::Nothing, world);
    }

    /// Handles a completed receive.
    pub(super) fn on_received<D: Driver<Handle = H>>(
        &mut self,
        end: End,
        result: Received,
        more: bool,
        world: &mut World<D>,
    ) {
        let Some(transport) = world.slots.transport_mut(self.key(end)) else { return };
        let asks_once = transport.asks_once();
        let Some(arrival) = transport.on_received(result, more, &mut world.driver) else { return };
        if !self.must_wait(end, &arrival, world) {
            self.deliver(end, arrival, world);
            self.is_heavy = self.has_rest(world);
        } else if let Some(transport) = world.slots.transport_mut(self.key(end)) {
            transport.keep(arrival, &mut world.driver);
            // What was asked for has not been delivered.
            if asks_once {
                transport.set_demand(Demand::Once);
            }
        }
    }

    /// Handles bytes or the end of a stream, which the carrier received for this connection's client.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn on_stream<D: Driver<Handle = H>>(&mut self, arrival: Arrival, world: &mut World<D>) {
        let must_wait = self.must_wait(End::Client, &arrival, world);
        let Some(transport) = world.slots.transport_mut(self.client) else { return };
        transport.keep(arrival, &mut world.driver);
        if !must_wait && let Some(arrival) = transport.take_arrival() {
            self.deliver(End::Client, arrival, world);
        }
    }

    /// Slot of the client's transport. None: it is closed.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn client(&self) -> Option<Key> {
        self.client
    }

    /// Whether an arrival must be queued: behind an earlier arrival, until the opposite send queue drains, or until
    /// the next turn. A stream also queues what is not wanted yet, which a socket leaves in the kernel.
    fn must_wait<D: Driver<Handle = H>>(&self, end: End, arrival: &Arrival, world: &World<D>) -> bool {
        let Some(transport) = self.transport(end, world).filter(|transport| !transport.is_abandoned()) else {
            return false;
        };
        // It is first, although what follows it may be queued already.
        if matches!(arrival, Arrival::Header(_)) {
            return false;
        }
        let is_data = matches!(arrival, Arrival::Lease(_) | Arrival::Copy(_));
        let has_room = || world.work > 0 && self.may_deliver(end, world);
        match transport.is_stream() {
            true => transport.has_arrivals() || !has_room(),
            // After a forwarded request the next head may still be queued: what follows it must not overtake it.
            false => transport.has_arrivals() || self.exchange.wants().is_streaming() && is_data && !has_room(),
        }
    }

    /// Passes the first arrival of each end to the exchange.
    pub(super) fn visit<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        for end in End::BOTH {
            if !self.may_deliver(end, world) {
                continue;
            }
            let Some(transport) = world.slots.transport_mut(self.key(end)) else { continue };
            let is_rest = transport.has_rest();
            if let Some(arrival) = transport.take_arrival() {
                self.deliver(end, arrival, world);
                self.is_heavy = is_rest || self.has_rest(world);
            }
        }
    }

    /// Continues the TLS handshake of the client, or that with a node. `admission` counts the clients' handshakes.
    pub(super) fn step<D: Driver<Handle = H>>(&mut self, admission: &Admission, world: &mut World<D>) {
        let awaits_step = |end: &End| self.transport(*end, world).is_some_and(Transport::awaits_step);
        let Some(end) = End::BOTH.into_iter().find(awaits_step) else { return };
        let Some(transport) = world.slots.transport_mut(self.key(end)) else { return };
        transport.step(&mut world.driver);
        if end == End::Client && !matches!(transport.security(), Security::Handshaking) {
            self.secure(admission, world);
        }
        self.visit(world);
    }

    /// The client's next bytes are HTTP: its place among TLS handshakes becomes one among handshakes.
    fn secure<D: Driver<Handle = H>>(&mut self, admission: &Admission, world: &mut World<D>) {
        let client = world.slots.transport(self.client).map_or(Security::Plain, Transport::security);
        if let Security::Tls(TlsFacts { client: Some(ClientFacts { subject, serial, fingerprint, .. }), .. }) = client {
            let subject = Quoted(subject);
            let line = format_args!("presents the certificate {subject}, serial {serial}, SHA-256 {fingerprint}");
            log::connection_event(Level::Info, self.id.get(), line);
        }
        let Some(place) = self.busy_mut().and_then(|busy| busy.handshake.as_mut()) else { return };
        let full = admission.secure(place).err();
        self.handle(full.map_or(Input::Secured, Input::Overload), world);
    }

    fn deliver<D: Driver<Handle = H>>(&mut self, end: End, arrival: Arrival, world: &mut World<D>) {
        let input = match arrival {
            Arrival::Header(introduction) => {
                self.on_header(introduction, world);
                // What has been received after it.
                return self.visit(world);
            }
            Arrival::Lease(lease) => return self.handle_lease(lease, Some(end), world),
            Arrival::Copy(bytes) => return self.handle_copy(bytes, end, world),
            Arrival::End => Input::Ended(end),
            Arrival::Failed(errno) => Input::Failed(end, errno.into()),
            // The end of the stream is still to be received.
            Arrival::Broken(error) => return self.handle(Input::Broken(end, error), world),
        };
        if let Some(transport) = world.slots.transport_mut(self.key(end)) {
            transport.on_end();
        }
        self.handle(input, world);
    }

    /// Handles a completed send.
    pub(super) fn on_sent<D: Driver<Handle = H>>(
        &mut self,
        end: End,
        batch: Batch,
        result: Result<usize, Errno>,
        world: &mut World<D>,
    ) -> Settling {
        if result.is_ok_and(|taken| taken > 0) {
            self.moved = Moment::at(world.now_ms);
        }
        let Some(transport) = world.slots.transport_mut(self.key(end)) else { return Settling::Needed };
        let (sent, is_device) = (transport.on_sent(batch, result, &mut world.driver), transport.is_device());
        match (sent, end) {
            // A ping may be queued after much other data for a client that receives slowly but continuously.
            (SendResult::Waiting, End::Client) if self.moved == Moment::at(world.now_ms) => {
                self.handle(Input::Excused, world)
            }
            (SendResult::Drained, End::Client) if self.exchange.wants().drained == Drained::Client => {
                self.handle(Input::Drained, world);
            }
            (SendResult::Drained, _) if self.flows_on(end, world) => return Settling::NotNeeded,
            (SendResult::Waiting | SendResult::Drained, _) => {}
            (SendResult::Failed(errno), End::Client) => self.handle(Input::Failed(end, errno.into()), world),
            // A write-only pipe reports errors by its sends only.
            (SendResult::Failed(errno), End::Backend) if is_device => {
                self.handle(Input::Failed(end, errno.into()), world);
            }
            // Data that the backend has sent may still be unread. Its receive reports how the backend ended.
            (SendResult::Failed(_), End::Backend) => {
                if let Some(transport) = world.slots.transport_mut(self.key(end)) {
                    transport.mute(&mut world.driver);
                }
            }
        }
        Settling::Needed
    }

    /// Whether messages flow, and the drained queue to `end` leaves nothing to do: no memory to count, no receive to
    /// resume, no pong or end to send.
    fn flows_on<D: Driver<Handle = H>>(&self, end: End, world: &World<D>) -> bool {
        let is_sent = self.transport(end, world).is_some_and(Transport::has_nothing_to_send);
        let is_read = self.transport(end.opposite(), world).is_some_and(|other| !other.is_unread());
        let is_calm = self.busy().is_none_or(Busy::is_calm);
        let idle_size = || self.transport(End::Client, world).map_or(0, Transport::idle_size);
        (self.held.size() == 0 || self.held.size() == idle_size())
            && is_sent
            && is_read
            && is_calm
            && self.exchange.wants().is_flowing()
    }

    /// Runs at the end of a turn. Some: a receive or a file read waits for a pool buffer of this share.
    pub(super) fn settle<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) -> Option<Share> {
        // Fast path: messages are flowing.
        let is_calm = self.busy().is_none_or(Busy::is_calm);
        let is_flowing = is_calm && self.exchange.wants().is_flowing();
        if !is_flowing {
            self.settle_exchange(world);
        }
        let (up, down) = (self.opposite(End::Client, world), self.opposite(End::Backend, world));
        let was_paused = self.transport(End::Client, world).is_some_and(Transport::is_paused);
        let client_starved = self.settle_transport(End::Client, up, world);
        if was_paused && self.transport(End::Client, world).is_some_and(|client| !client.is_paused()) {
            self.handle(Input::Excused, world);
        }
        let backend_starved = self.settle_transport(End::Backend, down, world);
        let opened_starved = if is_flowing { None } else { self.settle_opened(world) };
        client_starved.or(backend_starved).or(opened_starved)
    }

    fn settle_exchange<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        self.settle_ends(world);
        if self.is_ending() {
            self.give_all_up(world);
        }
        // Page data that the client does not receive is dropped and read again later.
        if self.exchange.wants().is_page
            && let Some(client) = world.slots.transport_mut(self.client)
        {
            let dropped = client.drop_page(&mut world.driver);
            if dropped > 0 {
                self.handle(Input::TakenBack(dropped as u64), world);
            }
        }
    }

    /// Reports to the exchange an end or a drained queue for which there is no completion.
    fn settle_ends<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        while let Some(told) = self.busy_mut().and_then(|busy| busy.told.take()) {
            self.handle(told.input(), world);
        }
        let wants = self.exchange.wants();
        // A device has no end of stream: its end is reached once everything is written.
        let is_drained = || self.transport(End::Backend, world).is_some_and(Transport::is_drained_device);
        if wants.timeouts.is_some() && is_drained() {
            return self.handle(Input::Ended(End::Backend), world);
        }
        let is_empty = || self.queued_size(End::Client, world) + self.queued_size(End::Backend, world) == 0;
        if wants.drained == Drained::Both && is_empty() {
            self.handle(Input::Drained, world);
        }
    }

    fn give_all_up<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        self.exchange.drop_input();
        for key in [self.client, self.backend] {
            if let Some(transport) = world.slots.transport_mut(key) {
                transport.abandon(&mut world.driver);
            }
        }
        if let Some(opened) = self.opened_mut() {
            opened.give_up(world.slots.token(opened.key, Op::Connect), &mut world.driver);
        }
    }

    fn settle_transport<D: Driver<Handle = H>>(
        &mut self,
        end: End,
        opposite: Opposite,
        world: &mut World<D>,
    ) -> Option<Share> {
        let key = self.key(end)?;
        // The transport chooses the operation.
        let token = world.slots.token(key, Op::Receive);
        match world.slots.transport_mut(Some(key))?.settle(token, opposite, &mut world.driver) {
            Settled::Done => None,
            Settled::Starved(share) => Some(share),
            Settled::Closable => {
                if let Some(transport) = world.slots.remove_transport(key) {
                    transport.close(&mut world.driver);
                }
                match end {
                    End::Client => self.client = None,
                    End::Backend => self.backend = None,
                }
                None
            }
        }
    }

    /// Writes the connection's log line.
    pub(super) fn log_end(&self, now_ms: u64) {
        let Some(ending) = self.ending() else { return };
        let facts = self.exchange.facts();
        let site = self.places.endpoint().sites.get(facts.site);
        log::access(&AccessLine {
            level: ending.level(),
            id: self.id.get(),
            client: &self.address(),
            host: site.hostname.as_deref().unwrap_or_default(),
            name: self.exchange.name(),
            user: self.admitted().map_or("", |admitted| &admitted.user),
            status: facts.status,
            code: (facts.status == 101 && !ending.is_handed_over()).then(|| ending.close_code().0),
            lasted_ms: now_ms - self.started.ms(),
            up_bytes: facts.traffic.up_bytes.get(),
            up_messages: facts.traffic.up_messages.get(),
            down_bytes: facts.traffic.down_bytes.get(),
            down_messages: facts.traffic.down_messages.get(),
            ending: &ending,
        });
    }

    /// Passes received bytes to the exchange. `from` is None for bytes of the opened file.
    fn handle_lease<D: Driver<Handle = H>>(&mut self, lease: Lease, from: Option<End>, world: &mut World<D>) {
        let (start, end) = (lease.start as usize, lease.end as usize);
        let chunk = Chunk { buffer: world.driver.buffer(&lease), start, end };
        let around = around(
            self.places.endpoint(),
            (&world.date, world.tag_salt, &world.nonces, &world.masks),
            (world.since_ms, world.now_ms),
            self.security(&world.slots),
            self.origin(&world.counts),
        );
        let input = match from {
            Some(from) => Input::Bytes(from, chunk),
            None => Input::FileBytes(chunk),
        };
        self.exchange.handle(around, input, &mut world.effects);
        world.spend(end - start);
        self.apply(Source::Lease(lease), world);
    }

    /// As `handle_lease`, for bytes copied out of the pool.
    fn handle_copy<D: Driver<Handle = H>>(&mut self, mut buffer: Box<[u8]>, from: End, world: &mut World<D>) {
        let (start, end) = (limits::POOL_HEADROOM, buffer.len());
        let chunk = Chunk { buffer: &mut buffer, start, end };
        let around = around(
            self.places.endpoint(),
            (&world.date, world.tag_salt, &world.nonces, &world.masks),
            (world.since_ms, world.now_ms),
            self.security(&world.slots),
            self.origin(&world.counts),
        );
        self.exchange.handle(around, Input::Bytes(from, chunk), &mut world.effects);
        world.spend(end - start);
        self.apply(Source::Copy(buffer), world);
    }

    /// As `handle_lease`, for the end of the opened file.
    fn handle_nothing<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        self.handle(Input::FileBytes(Chunk { start: 0, end: 0, buffer: &mut [] }), world);
    }

    /// The security of the client's connection, for a request.
    fn security<'w>(&self, slots: &'w Slots<H>) -> Security<'w> {
        match self.exchange.wants().is_conversation() {
            true => Security::Plain,
            false => slots.transport(self.client).map_or(Security::Plain, Transport::security),
        }
    }

    /// The client's address and the proxy that has made its connection, for a request. Conversations do not have them.
    fn origin<'w>(&self, counts: &'w AddressCounts) -> (Address, Option<Proxied<'w>>) {
        match self.busy() {
            Some(busy) => (self.address(), busy.proxied.as_ref().map(|proxied| proxied.told(counts))),
            None => (Address::Unknown, None),
        }
    }

    fn key(&self, end: End) -> Option<Key> {
        match end {
            End::Client => self.client,
            End::Backend => self.backend,
        }
    }

    fn transport<'w, D: Driver<Handle = H>>(&self, end: End, world: &'w World<D>) -> Option<&'w Transport<H>> {
        world.slots.transport(self.key(end))
    }
}

impl Told {
    fn input(self) -> Input<'static> {
        match self {
            Told::TookIdle(is_taken) => Input::TookIdle(is_taken),
            Told::NoAddress => Input::Connected(Err(Errno::EADDRNOTAVAIL.into())),
        }
    }
}

/// Summary of the data queued at a connection's transports.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kept {
    /// Received data that the exchange may take.
    pub(super) has_backlog: bool,
    /// Received data that the exchange may not take now.
    pub(super) has_hoard: bool,
    /// Received bytes of a TLS handshake, which wait for a step.
    pub(super) awaits_step: bool,
    /// Bytes outside the pool.
    heap_size: usize,
}

/// An IPv4 address, or another one.
fn split(address: Address) -> (Option<SocketAddrV4>, Option<Address>) {
    match address {
        Address::Tcp(SocketAddr::V4(v4)) => (Some(v4), None),
        other => (None, Some(other)),
    }
}

/// The context of an exchange: the time now, and since when the input may have been waiting.
fn around<'a, H>(
    endpoint: &'a Endpoint<H>,
    (date, tag_salt, nonces, masks): (&'a Date, u64, &'a NonceKey, &'a MaskKeys),
    (since_ms, now_ms): (u64, u64),
    security: Security<'a>,
    (client, proxied): (Address, Option<Proxied<'a>>),
) -> Surroundings<'a> {
    Surroundings { now_ms, since_ms, date, sites: &endpoint.sites, tag_salt, security, client, proxied, nonces, masks }
}
