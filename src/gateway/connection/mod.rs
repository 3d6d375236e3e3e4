//! One connection: its exchange, its two peers, and what is in flight for them.

mod apply;
mod handover;

use super::World;
use super::admission::{Places, Source as Origin, source_of};
use super::devices::Place;
use super::entrance::Endpoint;
use super::file::File;
use super::inbox::Arrival;
use super::peer::{Peer, SendResult};
use super::timers::Owner;
use crate::driver::{Address, Batch, Driver, Errno, FileId, FileKind, Kind, Lease, Received, Share, Token};
use crate::exchange::{Chunk, CloseTimeouts, Ending, Exchange, Input, Surroundings};
use crate::http::date::Date;
use crate::limits;
use crate::observe::log::{self, Access};
use crate::types::End;
use apply::Source;
use handover::Parcel;

/// One connection.
#[derive(Debug)]
pub struct Connection<H> {
    id: u64,
    owner: Owner,
    address: Address,
    places: Places<H>,
    started_ms: u64,
    exchange: Exchange,
    client: Peer<H>,
    backend: Peer<H>,
    file: File<H>,
    /// A hand-over that waits until nothing else is in flight for its client.
    handover: Option<Box<Parcel>>,
    /// The socket that it connects to, and whether it waits for it.
    socket: Option<FileId>,
    is_queued: bool,
    /// The hand-over that is in flight is to be watched.
    is_watched: bool,
    /// At the device that is its server.
    place: Option<Place>,
    /// When a peer last took something.
    moved_ms: u64,
    /// It is in one of the gateway's lists already.
    pub is_listed: bool,
    /// It is in the gateway's backlog.
    pub is_backlogged: bool,
    /// It is in one of the gateway's queues for buffers of the pool.
    pub is_starved: bool,
    /// It is in the gateway's list of connections with data that the exchange may not take.
    pub is_hoarding: bool,
    /// Its last visit left something, or took what an earlier one had left.
    is_heavy: bool,
    /// Since when its deadline is put off because something has just come from it.
    put_off_ms: Option<u64>,
    /// When the earliest timer of this connection fires.
    timer_ms: Option<u64>,
    ending: Option<Ending>,
    /// What it held outside the pool when it was last settled.
    held_size: usize,
}

impl<H> Connection<H> {
    /// A connection that was just accepted.
    pub fn new(
        id: u64,
        owner: Owner,
        client: H,
        address: Address,
        places: Places<H>,
        started_ms: u64,
    ) -> Connection<H> {
        Connection {
            id,
            owner,
            address,
            places,
            started_ms,
            exchange: Exchange::default(),
            client: Peer::new(client),
            backend: Peer::default(),
            file: File::default(),
            handover: None,
            socket: None,
            is_queued: false,
            is_watched: false,
            place: None,
            moved_ms: started_ms,
            is_listed: false,
            is_backlogged: false,
            is_starved: false,
            is_hoarding: false,
            is_heavy: false,
            put_off_ms: None,
            timer_ms: None,
            ending: None,
            held_size: 0,
        }
    }

    /// What counts as the one address that it comes from.
    pub fn source(&self) -> Origin {
        source_of(self.address)
    }

    /// When a peer last took something, or else when it came.
    pub fn moved_ms(&self) -> u64 {
        self.moved_ms
    }

    /// Whether it has received data that its exchange may take.
    pub fn has_backlog(&self) -> bool {
        [End::Client, End::Backend].into_iter().any(|end| self.peer_of(end).has_arrivals() && self.may_deliver(end))
    }

    /// Whether it has received data that its exchange may not take for now.
    pub fn has_hoard(&self) -> bool {
        let is_kept = |end| self.peer_of(end).has_arrivals() && !self.may_deliver(end);
        is_kept(End::Client) || is_kept(End::Backend)
    }

    /// Copies that data to the heap.
    pub fn spill_hoard<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        for end in [End::Client, End::Backend] {
            if !self.may_deliver(end) {
                self.peer(end).spill_arrivals(driver);
            }
        }
    }

    /// Whether it sends more at once than one visit takes.
    pub fn is_heavy(&self) -> bool {
        self.is_heavy
    }

    /// Whether a visit left a part of a receive. Finishing it soon frees its buffer.
    pub fn has_rest(&self) -> bool {
        self.client.has_rest() || self.backend.has_rest()
    }

    fn may_deliver(&self, end: End) -> bool {
        let (peer, opposite) = match end {
            End::Client => (&self.client, &self.backend),
            End::Backend => (&self.backend, &self.client),
        };
        peer.may_deliver(opposite.queued_size())
    }

    /// Whether its end has begun for good.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Bytes that it held outside the pool when it was last settled.
    pub fn held_size(&self) -> usize {
        self.held_size
    }

    /// Measures what it holds outside the pool: what that was, and what it is. What is in flight for one that ends
    /// comes back with the next turn, and is no reason to break off another one.
    pub fn update_held_size(&mut self) -> (usize, usize) {
        let held_size = match self.is_ending() {
            true => 0,
            false => self.client.heap_size() + self.backend.heap_size() + self.exchange.held_size(),
        };
        (std::mem::replace(&mut self.held_size, held_size), held_size)
    }

    /// Its place in the table.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether nothing of it is left: no handle, nothing in flight.
    pub fn is_over(&self) -> bool {
        self.ending.is_some() && self.client.is_closed() && self.backend.is_closed() && self.file.is_still()
    }

    /// The timer that is to be set, if its deadline is earlier than the timers it has.
    pub fn timer_to_set(&mut self) -> Option<u64> {
        let deadline_ms = self.exchange.deadline_ms()?;
        let is_put_off = self.put_off_ms.is_some();
        if self.timer_ms.is_some_and(|timer_ms| timer_ms <= deadline_ms || is_put_off) {
            return None;
        }
        self.timer_ms = Some(deadline_ms);
        Some(deadline_ms)
    }

    /// Whether its timer is the one that was set for this time; an earlier one may have taken its place since.
    pub fn has_timer(&self, at_ms: u64) -> bool {
        self.timer_ms == Some(at_ms)
    }

    /// Hands an input to the exchange and does what it asks for.
    pub fn handle<D: Driver<Handle = H>>(&mut self, input: Input<'_>, world: &mut World<D>) {
        let around = around(self.places.endpoint(), &world.date, (world.since_ms, world.now_ms), world.tag_salt);
        self.exchange.handle(around, input, &mut world.effects);
        self.apply(Source::Nothing, world);
    }

    /// Ends it without another word.
    pub fn break_off(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    /// Whether a timer that is due has to wait, and until when: what is missing may have come and not have been read, or
    /// may wait here for its turn.
    pub fn put_off_timer(&mut self, taken_ms: u64) -> Option<u64> {
        let is_due = self.exchange.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= taken_ms);
        // At a connection's end what comes has no meaning: a client that sends on does not put it off.
        let waits_here = self.is_backlogged && self.exchange.timeouts().is_none();
        let is_unread = waits_here || self.is_starved || self.client.is_starved() || self.backend.is_starved();
        let (put_off_ms, until_ms) = match (is_due, is_unread) {
            (false, _) => (0, 0),
            (true, true) => (taken_ms, taken_ms + limits::UNREAD_LOOK_MS),
            // One that is listed has had news in this turn, behind which there may be more.
            (true, false) if self.is_listed => (self.put_off_ms.unwrap_or(taken_ms), taken_ms),
            // One that could not be read until now has a moment to be.
            (true, false) => match self.put_off_ms {
                Some(put_off_ms) => (put_off_ms, taken_ms + limits::UNREAD_LOOK_MS),
                None => return None,
            },
        };
        if !is_due || taken_ms >= put_off_ms + limits::CATCH_UP_MS {
            self.put_off_ms = None;
            return None;
        }
        (self.put_off_ms, self.timer_ms) = (Some(put_off_ms), Some(until_ms));
        Some(until_ms)
    }

    /// A timer fired; the deadline may have moved since.
    pub fn on_timer<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        self.timer_ms = None;
        if self.exchange.deadline_ms().is_none_or(|deadline_ms| deadline_ms > world.taken_ms) {
            return;
        }
        // In a reply and at the end, time runs from the last byte that went out; one who is still owed bytes gets more of it.
        if let Some(CloseTimeouts { since_ms, close_ms, stall_ms }) = self.exchange.timeouts() {
            let is_owed = self.client.queued_size() + self.backend.queued_size() > 0;
            let until_ms = self.moved_ms.max(since_ms) + if is_owed { stall_ms } else { close_ms };
            if world.now_ms < until_ms {
                return self.exchange.put_off(until_ms.min(world.now_ms + close_ms));
            }
        }
        match (self.client.is_unread(), self.client.queued_size()) {
            (false, _) => {}
            (true, 0) => self.exchange.on_client_unread(),
            // What waits for it tells as well, and must not grow by a ping after the other.
            (true, _) => self.exchange.excuse_client(world.now_ms),
        }
        let around = around(self.places.endpoint(), &world.date, (world.since_ms, world.taken_ms), world.tag_salt);
        self.exchange.handle(around, Input::Deadline, &mut world.effects);
        self.apply(Source::Nothing, world);
    }

    /// A receive or a read from a file completed.
    pub fn on_received<D: Driver<Handle = H>>(
        &mut self,
        kind: Kind,
        result: Received,
        more: bool,
        world: &mut World<D>,
    ) {
        let size = match &result {
            Received::Data(lease) => Some(lease.len()),
            _ => None,
        };
        let is_starved = matches!(result, Received::Failed(Errno::ENOBUFS));
        match kind {
            Kind::FileRead => self.file.on_read(is_starved),
            Kind::ClientReceive => self.client.on_received(size, more, is_starved),
            _ => self.backend.on_received(size, more, is_starved),
        }
        let end = match kind {
            Kind::ClientReceive => End::Client,
            Kind::BackendReceive => End::Backend,
            _ => {
                return match result {
                    Received::Data(lease) => self.handle_lease(lease, kind, world),
                    Received::Failed(Errno::ENOBUFS) => {}
                    Received::End | Received::Failed(_) => self.handle_nothing(kind, world),
                };
            }
        };
        let arrival = match result {
            Received::Failed(Errno::ENOBUFS | Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN) => return,
            Received::Data(lease) => Arrival::Lease(lease),
            Received::End => Arrival::End,
            Received::Failed(errno) => Arrival::Failed(errno),
        };
        if self.must_wait(end, &arrival, world) {
            self.peer(end).keep(arrival, &mut world.driver);
        } else {
            self.deliver(end, arrival, world);
            self.is_heavy = self.has_rest();
        }
    }

    /// Whether an arrival has to wait: for an earlier one, for the opposite queue to drain, or for the next turn.
    fn must_wait<D: Driver<Handle = H>>(&self, end: End, arrival: &Arrival, world: &World<D>) -> bool {
        let is_data = matches!(arrival, Arrival::Lease(_));
        let has_room = || world.work > 0 && self.may_deliver(end);
        let peer = self.peer_of(end);
        let is_awaited = self.exchange.is_conversation() && !peer.is_abandoned();
        is_awaited && (peer.has_arrivals() || is_data && !has_room())
    }

    /// Hands the exchange the first arrival of each end.
    pub fn visit<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        for end in [End::Client, End::Backend] {
            if !self.may_deliver(end) {
                continue;
            }
            let is_rest = self.peer_of(end).has_rest();
            if let Some(arrival) = self.peer(end).take_arrival() {
                self.deliver(end, arrival, world);
                self.is_heavy = is_rest || self.has_rest();
            }
        }
    }

    fn deliver<D: Driver<Handle = H>>(&mut self, end: End, arrival: Arrival, world: &mut World<D>) {
        let kind = match end {
            End::Client => Kind::ClientReceive,
            End::Backend => Kind::BackendReceive,
        };
        match (arrival, end) {
            (Arrival::Lease(lease), _) => self.handle_lease(lease, kind, world),
            (Arrival::Copy(bytes), _) => self.handle_copy(bytes, kind, world),
            (Arrival::End, End::Client) => {
                self.client.on_end();
                self.handle(Input::Ended(End::Client), world);
            }
            (Arrival::Failed(errno), End::Client) => {
                self.client.on_end();
                self.handle(Input::Failed(End::Client, errno), world);
            }
            (Arrival::End, End::Backend) => {
                self.backend.on_end();
                self.handle(Input::Ended(End::Backend), world);
            }
            (Arrival::Failed(errno), End::Backend) => {
                self.backend.on_end();
                self.handle(Input::Failed(End::Backend, errno), world);
            }
        }
    }

    /// A send completed.
    pub fn on_sent<D: Driver<Handle = H>>(
        &mut self,
        kind: Kind,
        batch: Batch,
        result: Result<usize, Errno>,
        world: &mut World<D>,
    ) {
        let is_client = kind == Kind::ClientSend;
        if result.is_ok_and(|taken| taken > 0) {
            self.moved_ms = world.now_ms;
        }
        let peer = if is_client { &mut self.client } else { &mut self.backend };
        match (peer.on_sent(batch, result, &mut world.driver), is_client) {
            // A ping may wait behind much else for a client that takes it all, but slowly.
            (SendResult::Waiting, true) if self.moved_ms == world.now_ms => self.exchange.excuse_client(world.now_ms),
            (SendResult::Waiting, _) => {}
            (SendResult::Drained, true) if self.exchange.wants_drained() => self.handle(Input::Drained, world),
            (SendResult::Drained, _) => {}
            (SendResult::Failed(errno), true) => self.handle(Input::Failed(End::Client, errno), world),
            // Of a pipe that is only written nothing else will tell.
            (SendResult::Failed(errno), false) if self.backend.is_device() => {
                self.handle(Input::Failed(End::Backend, errno), world);
            }
            // What the server has sent may still be on its way: its own receive tells how it ended.
            (SendResult::Failed(_), false) => self.backend.mute(&mut world.driver),
        }
    }

    /// A path was opened, or not.
    pub fn on_opened<D: Driver<Handle = H>>(&mut self, result: Result<(H, FileKind), Errno>, world: &mut World<D>) {
        self.file.end();
        let kind = result.and_then(|(handle, kind)| {
            if let (FileKind::Device(id, device), Some(clients_max)) = (kind, self.exchange.server_clients_max()) {
                self.place = world.devices.enter(id, clients_max);
                let ready = self.place.as_ref().ok_or(Errno::EBUSY).and_then(|_| world.driver.prepare(&handle, device));
                if let Err(errno) = ready {
                    world.driver.close(handle);
                    return Err(errno);
                }
            }
            self.file.set(Some(handle), &mut world.driver);
            Ok(kind)
        });
        self.leave_queue(world);
        self.socket = if let Ok(FileKind::Socket(id)) = kind { Some(id) } else { None };
        // A page's lookup of the same name waits for no server.
        let is_full = self.exchange.is_opening() && self.socket.is_some_and(|socket| world.queues.is_full(socket));
        let input = if is_full { Input::OpenedFull } else { Input::Opened(kind) };
        self.handle_opening(input, world);
    }

    /// The backlog of its server is full: it waits for its turn.
    fn await_backlog<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        if let Some(socket) = self.socket {
            world.queues.wait(socket, self.owner, self.source(), world.now_ms);
            self.is_queued = true;
        }
    }

    /// It does not wait for its server any more.
    fn leave_queue<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        if let (true, Some(socket)) = (std::mem::take(&mut self.is_queued), self.socket) {
            world.queues.leave(socket, self.owner, world.now_ms);
        }
    }

    /// The server was connected, or not.
    pub fn on_connected<D: Driver<Handle = H>>(&mut self, result: Result<H, Errno>, world: &mut World<D>) {
        self.file.end();
        let connected = result.map(|handle| match self.ending {
            None => self.backend = Peer::new(handle),
            Some(_) => world.driver.close(handle),
        });
        self.handle_opening(Input::Connected(connected), world);
    }

    /// The end of a turn. Some: a receive, or a read from a file, waits for a buffer of this share.
    pub fn settle<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) -> Option<Share> {
        // A device tells no end: it is there as soon as all is written.
        if self.backend.is_drained_device() && self.exchange.timeouts().is_some() {
            self.handle(Input::Ended(End::Backend), world);
        }
        if self.exchange.wants_both_drained() && self.client.queued_size() + self.backend.queued_size() == 0 {
            self.handle(Input::Drained, world);
        }
        if self.ending.is_some() {
            self.client.abandon(&mut world.driver);
            self.backend.abandon(&mut world.driver);
            self.file.give_up(self.token(Kind::Connect), &mut world.driver);
        }
        // What a page's client does not take is read again when it does.
        if self.exchange.sends_page() {
            let dropped = self.client.drop_page(&mut world.driver);
            self.exchange.take_back_page(dropped as u64);
        }
        let (up, down) = (self.backend.queued_size(), self.client.queued_size());
        let (receive, send) = (self.token(Kind::ClientReceive), self.token(Kind::ClientSend));
        let was_paused = self.client.is_paused();
        let client_starved = self.client.settle(receive, send, up, &mut world.driver);
        if was_paused && !self.client.is_paused() {
            self.exchange.excuse_client(world.now_ms);
        }
        let (receive, send) = (self.token(Kind::BackendReceive), self.token(Kind::BackendSend));
        let backend_starved = self.backend.settle(receive, send, down, &mut world.driver);
        self.settle_handover(world);
        if self.ending.is_some() || !self.exchange.is_handshake() {
            self.places.end_handshake();
        }
        if self.ending.is_some() || !self.exchange.is_opening() {
            self.leave_queue(world);
        }
        let file_starved = self.file.settle(self.token(Kind::FileRead), &mut world.driver);
        client_starved.or(backend_starved).or(file_starved)
    }

    /// The one line at the end.
    pub fn log_end(&self, now_ms: u64) {
        let Some(ending) = self.ending else { return };
        let traffic = self.exchange.traffic();
        let status = self.exchange.status();
        let site = self.places.endpoint().sites.get(self.exchange.site());
        log::access(&Access {
            level: ending.level(),
            id: self.id,
            client: &self.address,
            host: site.hostname.as_deref().unwrap_or_default(),
            name: self.exchange.name(),
            status,
            code: (status == 101 && !ending.is_handed_over()).then(|| ending.close_code().0),
            lasted_ms: now_ms - self.started_ms,
            up_bytes: traffic.up_bytes,
            up_messages: traffic.up_messages,
            down_bytes: traffic.down_bytes,
            down_messages: traffic.down_messages,
            ending: &ending,
        });
    }

    fn token(&self, kind: Kind) -> Token {
        Token { slot: self.owner.slot, generation: self.owner.generation, kind }
    }

    fn handle_lease<D: Driver<Handle = H>>(&mut self, lease: Lease, kind: Kind, world: &mut World<D>) {
        let (start, end) = (lease.start as usize, lease.end as usize);
        let chunk = Chunk { buffer: world.driver.buffer(&lease), start, end };
        let around = around(self.places.endpoint(), &world.date, (world.since_ms, world.now_ms), world.tag_salt);
        self.exchange.handle(around, input_of(kind, chunk), &mut world.effects);
        world.spend(end - start);
        self.apply(Source::Lease(lease), world);
    }

    /// As `handle_lease`, for bytes that were moved out of the pool.
    fn handle_copy<D: Driver<Handle = H>>(&mut self, mut buffer: Box<[u8]>, kind: Kind, world: &mut World<D>) {
        let (start, end) = (limits::POOL_HEADROOM, buffer.len());
        let chunk = Chunk { buffer: &mut buffer, start, end };
        let around = around(self.places.endpoint(), &world.date, (world.since_ms, world.now_ms), world.tag_salt);
        self.exchange.handle(around, input_of(kind, chunk), &mut world.effects);
        world.spend(end - start);
        self.apply(Source::Copy(buffer), world);
    }

    /// As `handle_lease`, for no bytes at all.
    fn handle_nothing<D: Driver<Handle = H>>(&mut self, kind: Kind, world: &mut World<D>) {
        let mut buffer = [0; limits::POOL_HEADROOM];
        let chunk = Chunk { start: buffer.len(), end: buffer.len(), buffer: &mut buffer };
        let around = around(self.places.endpoint(), &world.date, (world.since_ms, world.now_ms), world.tag_salt);
        self.exchange.handle(around, input_of(kind, chunk), &mut world.effects);
        self.apply(Source::Bytes(&buffer), world);
    }

    /// As `handle`, for what may begin a conversation, which has limits of its own.
    fn handle_opening<D: Driver<Handle = H>>(&mut self, input: Input<'_>, world: &mut World<D>) {
        self.handle(input, world);
        if let Some(service) = self.exchange.service() {
            let size = service.limits.queue_size_max;
            self.client.set_queue_size_max(size);
            self.backend.set_queue_size_max(size);
        }
    }

    fn peer_of(&self, end: End) -> &Peer<H> {
        match end {
            End::Client => &self.client,
            End::Backend => &self.backend,
        }
    }

    fn peer(&mut self, end: End) -> &mut Peer<H> {
        match end {
            End::Client => &mut self.client,
            End::Backend => &mut self.backend,
        }
    }
}

/// What an exchange finds around it at this time, when what is handed in may have waited since that other one.
fn around<'a, H>(
    endpoint: &'a Endpoint<H>,
    date: &'a Date,
    (since_ms, now_ms): (u64, u64),
    tag_salt: u64,
) -> Surroundings<'a> {
    Surroundings { now_ms, since_ms, date, sites: &endpoint.sites, tag_salt }
}

fn input_of(kind: Kind, chunk: Chunk<'_>) -> Input<'_> {
    match kind {
        Kind::ClientReceive => Input::Bytes(End::Client, chunk),
        Kind::BackendReceive => Input::Bytes(End::Backend, chunk),
        _ => Input::FileBytes(chunk),
    }
}
