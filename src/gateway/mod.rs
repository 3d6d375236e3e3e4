//! The gateway's event loop, which connects the driver to the exchanges. A turn dispatches all completions, then
//! settles every connection they touched, then submits once.

mod admission;
mod arrivals;
mod asking;
#[cfg(any(test, feature = "sim"))]
mod carrier;
mod clock;
mod connect_queue;
mod connection;
mod devices;
pub mod endpoint;
mod fair;
mod folders;
mod health;
pub(crate) mod listen_socket;
pub mod listener;
mod opened;
mod pool;
mod slots;
mod timers;
mod watches;

#[cfg(test)]
mod simulation;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;

use slab::Slab;

use crate::access::NonceKey;
use crate::clients::{AddressCounts, AddressUnit};
use crate::driver::native::Native;
use crate::driver::{Completion, Driver, Errno, Event, Op, Received, RecordSuites, Rest, Share, Token};
use crate::exchange::{Effects, Ending, Input};
use crate::http::date::Date;
use crate::limits;
use crate::permit::Count;
use crate::route::distinct;
use crate::transport::{give_back, is_short};
use crate::types::ListenAddress;
use crate::upstream::Cluster;
use admission::Admission;
use asking::Questions;
use clock::Clock;
use connect_queue::ConnectQueues;
use connection::{Connection, Kept, Settling};
use devices::Devices;
use fair::FairQueue;
use folders::Watch;
use health::Checks;
use listener::{Listener, ListenerSetup};
use pool::IdlePool;
use rfc6455::mask::MaskKeys;
use slots::{Slots, User};
use timers::{Owner, Timers};
use watches::Watches;

pub(crate) use asking::HelperRules;

/// State shared by all connections.
pub(crate) struct World<D: Driver> {
    /// The I/O driver.
    driver: D,
    /// Descriptors with operations in flight, and their owners.
    slots: Slots<D::Handle>,
    /// Time of this turn in ms.
    now_ms: u64,
    /// Data received before this time in ms has been read, unless its connection is paused. Deadlines up to this time
    /// have expired.
    taken_ms: u64,
    /// Earliest arrival time in ms of data received in this turn.
    since_ms: u64,
    /// Wall-clock date of this turn.
    date: Date,
    /// Remaining work units of this turn (`WORK_PER_TURN_MAX`). At zero, received data is deferred to the next turn.
    work: usize,
    /// Salt in the entity tags of files without usable timestamps. It changes with each process and each replaced
    /// folder.
    tag_salt: u64,
    /// The key of the nonces of Digest.
    nonces: NonceKey,
    /// The masking keys of frames to nodes.
    masks: MaskKeys,
    /// Number of clients per address.
    counts: AddressCounts,
    /// Clients being refused with an error response, as `Admission` counts them.
    refused: Arc<Count>,
    /// Use counts of devices.
    devices: Devices,
    /// Connections waiting for backends with a full listen backlog.
    queues: ConnectQueues,
    /// Idle connections to nodes.
    pool: IdlePool,
    /// Hand-overs being watched.
    watches: Watches<D::Handle>,
    /// Questions to uakari-auth.
    asking: Questions,
    /// Health checks of nodes.
    checks: Checks<D::Handle>,
    /// Output of an exchange. Empty between inputs.
    effects: Effects,
}

impl<D: Driver> World<D> {
    /// Charges a visit's work: decoded frames and delivered bytes.
    fn spend(&mut self, bytes: usize) {
        let frames = self.effects.take_frames();
        self.work = self.work.saturating_sub(1 + frames + bytes / limits::WORK_UNIT_SIZE);
    }
}

/// The gateway, generic over its driver.
pub struct Gateway<D: Driver> {
    world: World<D>,
    listeners: Slab<Listener<D::Handle>>,
    connections: Slab<Connection<D::Handle>>,
    /// Sockets that carry several exchanges.
    #[cfg(any(test, feature = "sim"))]
    carriers: Slab<carrier::Carrier<D::Handle>>,
    admission: Admission,
    timers: Timers,
    watch: Watch,
    clock: Clock,
    /// Consecutive turns without a deadline check, because the kernel may have had more completions.
    full_turns: u32,
    /// Whether any client has a rate limit.
    has_rates: bool,
    /// Connections to settle in this turn.
    touched: Vec<Owner>,
    /// Connections waiting for a pool buffer to read a request or a page.
    starved_requests: FairQueue,
    /// Connections waiting for a pool buffer to receive messages.
    starved: FairQueue,
    /// Connections with received data that their exchange may take.
    backlog: FairQueue,
    /// Connections with received bytes of a TLS handshake.
    stepping: FairQueue,
    /// Connections with received data that their exchange may not take now.
    hoarding: Vec<Owner>,
    /// When listeners paused by a lack of file descriptors resume, in ms. None: none is paused.
    resume_ms: Option<u64>,
    /// Received signals not yet taken by the caller.
    signals: Vec<i32>,
    /// Watched files have changed, which the caller does not know yet.
    has_changed_files: bool,
    /// Calls of `watch_files`.
    file_watches: u32,
    next_id: u64,
    /// Drain deadline in ms. None: the gateway is not stopping.
    give_up_ms: Option<u64>,
    /// When remaining clients are sent a close, shortly before the drain deadline, in ms.
    last_call_ms: Option<u64>,
    /// Deadline in ms for aborted connections to be closed.
    abort_ms: Option<u64>,
}

impl<D: Driver> Gateway<D> {
    /// Creates a gateway without listeners.
    pub fn new(driver: D, limits: limits::Process) -> Gateway<D> {
        let now_ms = driver.now_ms();
        let admission = Admission::new(limits);
        Gateway {
            world: World {
                driver,
                slots: Slots::default(),
                now_ms,
                taken_ms: now_ms,
                since_ms: now_ms,
                date: Date::default(),
                work: limits::WORK_PER_TURN_MAX,
                tag_salt: tag_salt(),
                nonces: NonceKey::random(),
                masks: MaskKeys::default(),
                counts: AddressCounts::new(admission.limits.clients_per_address_max),
                refused: admission.refused.clone(),
                devices: Devices::default(),
                queues: ConnectQueues::default(),
                pool: IdlePool::default(),
                watches: Watches::default(),
                asking: Questions::default(),
                checks: Checks::default(),
                effects: Effects::default(),
            },
            listeners: Slab::new(),
            connections: Slab::new(),
            #[cfg(any(test, feature = "sim"))]
            carriers: Slab::new(),
            admission,
            timers: Timers::default(),
            watch: Watch::default(),
            clock: Clock::new(now_ms),
            full_turns: 0,
            has_rates: false,
            touched: Vec::new(),
            starved_requests: FairQueue::default(),
            starved: FairQueue::default(),
            backlog: FairQueue::default(),
            stepping: FairQueue::default(),
            hoarding: Vec::new(),
            resume_ms: None,
            signals: Vec::new(),
            has_changed_files: false,
            file_watches: 0,
            next_id: 1,
            give_up_ms: None,
            last_call_ms: None,
            abort_ms: None,
        }
    }

    /// Sets the complete list of listeners. Existing connections keep their configuration; new connections get the new
    /// one.
    pub fn configure(&mut self, limits: limits::Process, setups: Vec<ListenerSetup<D::Handle>>) {
        self.world.counts.clients_per_address_max = limits.clients_per_address_max;
        self.admission.limits = limits;
        for (_, listener) in &mut self.listeners {
            listener.is_leaving = true;
            if !setups.iter().any(|setup| Arc::ptr_eq(&setup.endpoint, &listener.endpoint)) {
                listener.endpoint.sites.replace();
            }
        }
        let clusters = distinct(setups.iter().flat_map(|setup| setup.endpoint.sites.clusters()));
        self.world.configure_checks(&clusters);
        let is_used = |cluster: &Cluster| clusters.iter().any(|used| ptr::eq(Arc::as_ptr(used), cluster));
        let World { pool, slots, driver, .. } = &mut self.world;
        pool.retain(is_used, slots, driver);
        for ListenerSetup { address, socket, file, endpoint } in setups {
            self.has_rates |= endpoint.sites.have_rates();
            let known = self.listeners.iter_mut().map(|(_, listener)| listener).find(|known| known.address == address);
            match (known, socket) {
                (Some(known), None) => {
                    known.is_leaving = false;
                    known.endpoint = endpoint;
                }
                (_, Some(socket)) => {
                    let entry = self.listeners.vacant_entry();
                    let index = entry.key();
                    let key = self.world.slots.insert_listener(index);
                    let (is_leaving, is_paused) = (false, false);
                    entry.insert(Listener { address, socket, key, _file: file, endpoint, is_leaving, is_paused });
                    self.accept(index);
                }
                (None, None) => {}
            }
        }
        let leaving: Vec<usize> =
            self.listeners.iter().filter(|(_, listener)| listener.is_leaving).map(|(index, _)| index).collect();
        leaving.into_iter().for_each(|index| self.leave(index));
        self.world.tag_salt = tag_salt();
        self.watch_folders();
    }

    /// Sets the rules of uakari-auth for the endpoints to come, before they are configured. Connections keep those that
    /// they have, as long as they are the ones before these and uakari-auth can use them.
    pub(crate) fn set_auth_rules(&mut self, rules: HelperRules) {
        self.world.set_auth_rules(rules);
    }

    /// Takes the gateway's end of the channel to a new uakari-auth; there is none, or `take_helper_end` has told its end.
    pub(crate) fn connect_helper(&mut self, handle: D::Handle) {
        self.world.connect_helper(handle);
    }

    /// Whether the channel to uakari-auth was closed since the last call: it has ended, or is to be ended.
    pub(crate) fn take_helper_end(&mut self) -> bool {
        self.world.asking.take_end()
    }

    /// Closes the channel to uakari-auth, for the end of a simulation.
    #[cfg(any(test, feature = "sim"))]
    pub fn disconnect_helper(&mut self) {
        self.world.disconnect_helper();
        self.world.settle_helper();
    }

    /// The addresses with an active listener.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.listeners.iter().filter(|(_, listener)| !listener.is_leaving).map(|(_, listener)| &listener.address)
    }

    /// Time of this turn in ms.
    pub(crate) fn now_ms(&self) -> u64 {
        self.world.now_ms
    }

    /// Removes and returns the signals received since the last call.
    pub(crate) fn take_signals(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.signals)
    }

    /// Whether watched files have changed since the last call.
    pub(crate) fn take_changed_files(&mut self) -> bool {
        std::mem::take(&mut self.has_changed_files)
    }

    /// Whether no work remains, so that the process may exit.
    pub fn is_over(&self) -> bool {
        let World { watches, pool, checks, .. } = &self.world;
        let is_empty = self.connections.is_empty() && watches.is_empty() && pool.is_empty() && checks.is_empty();
        #[cfg(any(test, feature = "sim"))]
        let is_empty = is_empty && self.carriers.is_empty();
        self.give_up_ms.is_some() && (is_empty || self.abort_ms.is_some_and(|ms| self.world.now_ms >= ms))
    }

    /// Whether all counts match the existing objects.
    #[cfg(any(test, feature = "sim"))]
    pub fn has_empty_counts(&self) -> bool {
        let World { slots, counts, devices, queues, pool, watches, asking, checks, .. } = &self.world;
        self.connections.is_empty()
            && self.carriers.is_empty()
            && slots.has_no_connection()
            && self.admission.is_empty()
            && counts.is_empty()
            && self.timers.is_empty()
            && devices.is_empty()
            && queues.is_empty()
            && pool.is_empty()
            && watches.is_idle()
            && asking.is_idle()
            && checks.is_idle()
    }

    /// The bytes that all connections hold outside the pool.
    #[cfg(test)]
    pub(crate) fn held_size(&self) -> u64 {
        self.admission.held_size()
    }

    /// The driver, for tests.
    #[cfg(any(test, feature = "sim"))]
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.world.driver
    }

    /// Runs one turn of the event loop, waiting at most `wait_ms`. `completions` is empty before and after the call;
    /// passing it reuses its allocation.
    pub fn turn(&mut self, wait_ms: Option<u64>, completions: &mut Vec<Completion<D::Handle>>) -> Result<(), Errno> {
        self.world.taken_ms = self.clock.advance(self.world.driver.now_ms(), Some(0));
        let look_ms = (self.has_rates && !self.connections.is_empty()).then_some(limits::LOOK_AROUND_MS);
        let timeout_ms = [self.timeout_ms(), wait_ms, look_ms].into_iter().flatten().min();
        let rest = self.world.driver.wait(timeout_ms, completions)?;
        self.world.now_ms = self.clock.advance(self.world.driver.now_ms(), timeout_ms);
        self.world.since_ms = self.clock.since_ms();
        self.world.date.set(self.world.driver.unix_s());
        // If a backlog remains from the last turn, new data joins it, to keep the round-robin order by address. Without room
        // it waits there, too.
        let may_work = self.backlog.is_empty() && self.admission.has_room(self.world.now_ms);
        self.world.work = if may_work { limits::WORK_PER_TURN_MAX } else { 0 };
        let is_busy = self.world.work == 0;
        let is_full = rest == Rest::Possible && self.full_turns < limits::FULL_TURNS_MAX;
        for Completion { token, event } in completions.drain(..) {
            self.on_completion(token, event);
        }
        if is_busy {
            self.visit_backlog();
        }
        self.step_handshakes();
        self.full_turns = if is_full { self.full_turns + 1 } else { 0 };
        if !is_full {
            self.fire_timers();
        }
        self.look_at_folders();
        self.resume_listeners();
        self.probe_backlogs();
        self.world.resend_auth_rules();
        self.deliver_answers();
        self.settle();
        Ok(())
    }

    /// Begins a graceful stop: notifies every client and accepts no more. A second call shortens the drain to
    /// `LAST_CALL_MS`.
    pub fn stop(&mut self) {
        let now_ms = self.world.now_ms;
        if let Some(give_up_ms) = self.give_up_ms {
            self.give_up_ms = Some(give_up_ms.min(now_ms + limits::LAST_CALL_MS));
            self.last_call_ms = self.last_call_ms.map(|_| now_ms);
            return;
        }
        let give_up_ms = now_ms + self.admission.limits.drain_ms;
        self.give_up_ms = Some(give_up_ms);
        self.last_call_ms = Some(give_up_ms.saturating_sub(limits::LAST_CALL_MS));
        let all: Vec<usize> = self.listeners.iter().map(|(index, _)| index).collect();
        all.into_iter().for_each(|index| self.leave(index));
        self.stop_watching();
        self.world.watches.stop(&mut self.world.driver);
        let World { pool, slots, driver, .. } = &mut self.world;
        pool.stop(slots, driver);
        self.world.stop_checks();
        for (_, connection) in &mut self.connections {
            connection.handle(Input::Stop, &mut self.world);
            list(connection, &mut self.touched);
        }
    }

    fn timeout_ms(&self) -> Option<u64> {
        // A buffer released after a starved connection's turn must not wait for an unrelated event.
        let driver = &self.world.driver;
        let can_feed = |queue: &FairQueue, share| !queue.is_empty() && driver.buffers_free(share) > 0;
        if !self.backlog.is_empty()
            || !self.stepping.is_empty()
            || self.world.asking.has_due()
            || (self.world.asking.is_starved() || self.world.checks.is_starved())
                && driver.buffers_free(Share::Messages) > 0
            || can_feed(&self.starved_requests, Share::Requests)
            || can_feed(&self.starved, Share::Messages)
        {
            return Some(0);
        }
        let end_ms = self.abort_ms.or(self.give_up_ms);
        let (probe_ms, folders_ms) = (self.world.queues.next_ms(), self.folders_due_ms());
        let (watch_ms, rules_ms) = (self.world.watches.due_ms(), self.world.asking.resend_ms());
        let (pool_ms, checks_ms) = (self.world.pool.look_ms(), self.world.checks.due_ms());
        let due = [self.timers.next_ms(), pool_ms, checks_ms, probe_ms, folders_ms, watch_ms, rules_ms];
        let own = [self.resume_ms, self.last_call_ms, end_ms];
        let due_ms = due.into_iter().chain(own).flatten().min()?;
        Some(due_ms.saturating_sub(self.world.taken_ms))
    }

    /// Dispatches a completion to the owner of its operation. This is the only place that resolves tokens.
    fn on_completion(&mut self, token: Token, event: Event<D::Handle>) {
        match event {
            Event::Signal(number) => return self.signals.push(number),
            Event::FilesChanged => return self.has_changed_files = true,
            _ => {}
        }
        let (slot, end) = match self.world.slots.user(token) {
            Some(User::Transport(connection, end)) => (connection, Some(end)),
            Some(User::File(connection)) => (connection, None),
            user => return self.on_other(user, token, event),
        };
        let Some(connection) = self.connections.get_mut(slot as usize) else { return self.drop_stale(event) };
        match (event, end) {
            (Event::Received { result, more }, Some(end)) => connection.on_received(end, result, more, &mut self.world),
            (Event::Received { result, .. }, None) => connection.on_read(result, &mut self.world),
            (Event::Sent { batch, result }, Some(end)) => {
                if connection.on_sent(end, batch, result, &mut self.world) == Settling::NotNeeded {
                    return;
                }
            }
            (Event::Opened(result), _) => connection.on_opened(result, &mut self.world),
            (Event::Connected(result), _) => connection.on_connected(result, &mut self.world),
            (Event::HandedOver(result), _) => connection.on_handed_over(result, &mut self.world),
            (other, _) => return self.drop_stale(other),
        }
        list(connection, &mut self.touched);
        let kept = connection.kept(&self.world);
        list_backlog(connection, kept, &mut self.backlog);
        list_step(connection, kept, &mut self.stepping);
        count_held(connection, kept, &mut self.admission, &mut self.world);
    }

    /// Handles a completion for a descriptor that does not belong to a connection.
    fn on_other(&mut self, user: Option<User>, token: Token, event: Event<D::Handle>) {
        match (user, event) {
            (Some(User::Listener(index)), Event::Accepted { result, more }) => self.on_accepted(index, result, more),
            #[cfg(any(test, feature = "sim"))]
            (Some(User::Carrier(index)), event) => self.on_carrier(index, event),
            (Some(User::Folder(look)), Event::Opened(result)) => {
                self.free_slot(token);
                self.on_folder(look, result);
            }
            (Some(User::Watch(index)), Event::Received { result, .. }) => {
                self.free_slot(token);
                self.world.watches.on_received(index, result, &mut self.world.driver);
            }
            (Some(User::Idle(index)), Event::Received { result, more }) => {
                let World { pool, slots, driver, .. } = &mut self.world;
                pool.on_received(index, (result, more), slots, driver);
            }
            (Some(User::Idle(index)), Event::Sent { batch, result }) => {
                let World { pool, slots, driver, .. } = &mut self.world;
                pool.on_sent(index, (batch, result), slots, driver);
            }
            (Some(User::Check(index)), event) => self.world.on_check(index, event),
            (Some(User::Helper), Event::Received { result, more }) => self.world.on_helper_received(result, more),
            (Some(User::Helper), Event::Sent { batch, result }) => self.world.on_helper_sent(batch, result),
            // A slot is reused only when it has no operation in flight, so a stale completion is an internal bug.
            (_, event) => {
                debug_assert!(false, "a completion for nobody: {token:?}");
                self.drop_stale(event);
            }
        }
    }

    fn free_slot(&mut self, token: Token) {
        if let Some(key) = self.world.slots.key(token) {
            self.world.slots.remove(key);
        }
    }

    /// Visits the connections in the backlog until this turn's work units are used up.
    fn visit_backlog(&mut self) {
        let has_room = self.admission.has_room(self.world.now_ms);
        self.world.work = if has_room { limits::WORK_PER_BUSY_TURN_MAX } else { 0 };
        while self.world.work > 0
            && let Some(owner) = self.backlog.pop()
        {
            let Some(connection) = find(&mut self.connections, owner) else { continue };
            connection.visit(&mut self.world);
            connection.is_backlogged = false;
            let kept = connection.kept(&self.world);
            if kept.has_backlog && connection.has_rest(&self.world) {
                connection.is_backlogged = true;
                self.backlog.push_front(connection.address_unit(), owner);
            }
            list_backlog(connection, kept, &mut self.backlog);
            list(connection, &mut self.touched);
            count_held(connection, kept, &mut self.admission, &mut self.world);
        }
    }

    /// Continues some TLS handshakes.
    fn step_handshakes(&mut self) {
        for _ in 0..limits::TLS_STEPS_PER_TURN_MAX {
            let Some(owner) = self.stepping.pop() else { return };
            let Some(connection) = find(&mut self.connections, owner) else { continue };
            connection.is_stepping = false;
            connection.step(&self.admission, &mut self.world);
            let kept = connection.kept(&self.world);
            list_backlog(connection, kept, &mut self.backlog);
            list(connection, &mut self.touched);
            count_held(connection, kept, &mut self.admission, &mut self.world);
        }
    }

    /// Releases the resources of an event without a recipient.
    fn drop_stale(&mut self, event: Event<D::Handle>) {
        match event {
            Event::Received { result: Received::Data(lease), .. } => self.world.driver.release(lease),
            Event::Sent { batch, .. } => {
                batch.into_segments().for_each(|segment| give_back(segment, &mut self.world.driver));
            }
            Event::Accepted { result: Ok((handle, _)), .. }
            | Event::Opened(Ok((handle, _)))
            | Event::Connected(Ok(handle))
            | Event::HandedOver(Ok(Some(handle))) => self.world.driver.close(handle),
            _ => {}
        }
    }

    /// Lets one connection per full listen backlog retry its connect, if the retry is due.
    fn probe_backlogs(&mut self) {
        for owner in self.world.queues.take_due(self.world.now_ms) {
            if let Some(connection) = find(&mut self.connections, owner) {
                connection.handle(Input::Retry, &mut self.world);
                list(connection, &mut self.touched);
            }
        }
    }

    /// Passes the answers of uakari-auth to the exchanges, and then the revocations, which may be about what they allow. A
    /// client whose admission follows the revocation in the same turn is refused too, and has to ask again.
    fn deliver_answers(&mut self) {
        for (owner, decision) in self.world.asking.take_due() {
            if let Some(connection) = find(&mut self.connections, owner).filter(|connection| !connection.is_ending()) {
                connection.handle(decision.input(), &mut self.world);
                list(connection, &mut self.touched);
            }
        }
        let revoked = self.world.asking.take_revoked();
        if !revoked.is_empty() {
            for (_, connection) in self.connections.iter_mut().filter(|(_, one)| one.has_lost(&revoked)) {
                connection.handle(Input::Revoked, &mut self.world);
                list(connection, &mut self.touched);
            }
        }
    }

    /// Resumes the listeners that were paused by a lack of file descriptors.
    fn resume_listeners(&mut self) {
        if self.resume_ms.is_some_and(|ms| ms <= self.world.now_ms) {
            self.resume_ms = None;
            let paused: Vec<usize> =
                self.listeners.iter().filter(|(_, listener)| listener.is_paused).map(|(index, _)| index).collect();
            paused.into_iter().for_each(|index| self.accept(index));
        }
    }

    /// Fires the timers that had expired before this turn began to read.
    fn fire_timers(&mut self) {
        let taken_ms = self.world.taken_ms;
        if self.last_call_ms.is_some_and(|ms| ms <= taken_ms) {
            self.last_call_ms = None;
            // The last call may be late. Extend the drain deadline so that its data can still be sent.
            let least_ms = self.world.now_ms + limits::LAST_CALL_MS.min(self.admission.limits.drain_ms);
            self.give_up_ms = self.give_up_ms.map(|ms| ms.max(least_ms));
            for (_, connection) in &mut self.connections {
                connection.handle(Input::LastCall, &mut self.world);
                list(connection, &mut self.touched);
            }
        }
        if self.give_up_ms.is_some_and(|ms| ms <= taken_ms) && self.abort_ms.is_none() {
            self.abort_ms = Some(self.world.now_ms + limits::ABORT_MS);
            for (_, connection) in &mut self.connections {
                connection.break_off(Ending::Stopping);
                list(connection, &mut self.touched);
            }
        }
        self.world.watches.on_time(taken_ms, &mut self.world.driver);
        let World { pool, slots, driver, .. } = &mut self.world;
        pool.expire(taken_ms, slots, driver);
        self.world.advance_checks();
        let mut put_off = Vec::new();
        while let Some(slot) = self.timers.pop_due(taken_ms) {
            let Some(connection) = self.connections.get_mut(slot as usize) else { continue };
            match connection.put_off_timer(&self.world) {
                Some(until_ms) => put_off.push((slot, until_ms)),
                None => {
                    connection.on_timer(&mut self.world);
                    list(connection, &mut self.touched);
                }
            }
        }
        put_off.into_iter().for_each(|(slot, until_ms)| self.timers.set(slot, until_ms));
    }

    /// Settles every touched connection: sends queued data, submits wanted operations, frees closed connections.
    fn settle(&mut self) {
        // Before connections take the buffers that it waits for.
        self.world.settle_helper();
        self.world.settle_checks();
        self.list_starved();
        self.settle_touched();
        #[cfg(any(test, feature = "sim"))]
        {
            self.settle_carriers();
            self.settle_touched();
        }
        self.spill_hoards();
        while self.admission.holds_too_much() && self.break_greediest() {
            self.settle_touched();
        }
        // The questions of this turn.
        self.world.settle_helper();
    }

    /// If the pool is short, copies to the heap received data that exchanges may not take now.
    fn spill_hoards(&mut self) {
        if self.hoarding.is_empty() || !is_short(&self.world.driver, Share::Messages) {
            return;
        }
        for owner in std::mem::take(&mut self.hoarding) {
            let Some(connection) = find(&mut self.connections, owner) else { continue };
            connection.is_hoarding = false;
            connection.spill_hoard(&mut self.world);
            let kept = connection.kept(&self.world);
            count_held(connection, kept, &mut self.admission, &mut self.world);
        }
    }

    /// Lists one starved connection per free buffer, ahead of all others; requests precede messages.
    fn list_starved(&mut self) {
        if self.starved_requests.is_empty() && self.starved.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        let queues = [(&mut self.starved_requests, Share::Requests), (&mut self.starved, Share::Messages)];
        for (queue, share) in queues {
            for owner in std::iter::from_fn(|| queue.pop()).take(self.world.driver.buffers_free(share)) {
                if let Some(connection) = find(&mut self.connections, owner) {
                    connection.is_starved = false;
                    connection.is_listed = true;
                    self.touched.push(owner);
                }
            }
        }
        // Settling a connection twice is harmless.
        self.touched.extend(touched);
    }

    /// Aborts one connection to free memory. A connection's weight is the memory it holds, increasing with the time
    /// since its peers last received data. Selects the address with the largest total weight, then its heaviest
    /// connection. False: no connection can be aborted.
    fn break_greediest(&mut self) -> bool {
        let now_ms = self.world.now_ms;
        let weight = |one: &Connection<D::Handle>| {
            one.held_size() as u64 * (limits::HELD_UNWEIGHED_MS + now_ms.saturating_sub(one.moved_ms()))
        };
        let mut weights: HashMap<AddressUnit, u64> = HashMap::new();
        for (_, connection) in self.connections.iter().filter(|(_, one)| !one.is_ending()) {
            *weights.entry(connection.address_unit()).or_default() += weight(connection);
        }
        let Some((greediest, _)) = weights.into_iter().max_by_key(|(_, weight)| *weight) else { return false };
        let all = self.connections.iter_mut().map(|(_, connection)| connection);
        let own = all.filter(|one| !one.is_ending() && one.address_unit() == greediest);
        let Some(connection) = own.max_by_key(|one| weight(one)) else { return false };
        connection.break_off(Ending::HeldTooMuch);
        list(connection, &mut self.touched);
        true
    }

    fn settle_touched(&mut self) {
        // Remove closed connections here, because the pool may never be short.
        if self.hoarding.len() > self.connections.len() {
            self.hoarding.retain(|owner| find(&mut self.connections, *owner).is_some());
        }
        let mut touched = std::mem::take(&mut self.touched);
        for owner in touched.drain(..) {
            let Some(connection) = find(&mut self.connections, owner) else { continue };
            connection.is_listed = false;
            let queue = match connection.settle(&mut self.world) {
                None => None,
                Some(Share::Requests) => Some(&mut self.starved_requests),
                Some(Share::Messages) => Some(&mut self.starved),
            };
            if let Some(queue) = queue
                && !std::mem::replace(&mut connection.is_starved, true)
            {
                queue.push(connection.address_unit(), owner, connection.is_heavy());
            }
            let kept = connection.kept(&self.world);
            list_backlog(connection, kept, &mut self.backlog);
            if kept.has_hoard && !connection.is_hoarding {
                connection.is_hoarding = true;
                self.hoarding.push(owner);
            }
            if let Some(at_ms) = connection.timer_to_set(self.timers.at_ms(owner.slot)) {
                self.timers.set(owner.slot, at_ms);
            }
            count_held(connection, kept, &mut self.admission, &mut self.world);
            if connection.is_over() {
                connection.log_end(self.world.now_ms);
                self.world.cancel_question(owner);
                self.connections.remove(owner.slot as usize);
                self.timers.clear(owner.slot);
            }
        }
        touched.append(&mut self.touched);
        self.touched = touched;
    }
}

impl Gateway<Native> {
    /// Reports changes of files (`take_changed_files`) until the next call. None: they are not watched.
    pub(crate) fn watch_files(&mut self, inotify: Option<OwnedFd>) -> Result<(), Errno> {
        self.file_watches = (self.file_watches + 1) & Token::GENERATION_MASK;
        let token = Token { slot: 0, generation: self.file_watches, op: Op::Files };
        self.world.driver.watch_files(token, inotify)
    }

    /// Sets the suites of which the kernel is to make TLS records.
    pub(crate) fn set_record_suites(&mut self, suites: RecordSuites) {
        self.world.driver.set_record_suites(suites);
    }
}

/// Updates the memory held by a connection outside the pool. Above the process limit, the turn does no more work.
fn count_held<D: Driver>(
    connection: &mut Connection<D::Handle>,
    kept: Kept,
    admission: &mut Admission,
    world: &mut World<D>,
) {
    let (before, now) = connection.update_held(kept);
    if before != now {
        admission.hold(before, now, world.now_ms);
        if !admission.has_room(world.now_ms) {
            world.work = 0;
        }
    }
}

/// A number that is unique with high probability: the keys of `RandomState` are random bytes from the kernel.
fn tag_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Adds a connection to a list of connections to settle, once.
fn list<H>(connection: &mut Connection<H>, owners: &mut Vec<Owner>) {
    if !std::mem::replace(&mut connection.is_listed, true) {
        owners.push(connection.owner());
    }
}

/// Adds a connection to the backlog if it has received data that its exchange may take.
fn list_backlog<H>(connection: &mut Connection<H>, kept: Kept, backlog: &mut FairQueue) {
    if kept.has_backlog && !connection.is_backlogged {
        connection.is_backlogged = true;
        backlog.push(connection.address_unit(), connection.owner(), connection.is_heavy());
    }
}

/// Adds a connection to the queue for steps of TLS handshakes if bytes of one wait.
fn list_step<H>(connection: &mut Connection<H>, kept: Kept, stepping: &mut FairQueue) {
    if kept.awaits_step && !std::mem::replace(&mut connection.is_stepping, true) {
        stepping.push(connection.address_unit(), connection.owner(), false);
    }
}

/// The connection of an owner. None: its slot has been reused.
fn find<H>(connections: &mut Slab<Connection<H>>, owner: Owner) -> Option<&mut Connection<H>> {
    connections.get_mut(owner.slot as usize).filter(|connection| connection.owner() == owner)
}

/// What an idle proxied WebSocket takes, in bytes, without the overhead of the allocator: two transports in their slots,
/// the connection with its exchange and relay, and a timer.
const IDLE_WEBSOCKET_PARTS: [usize; 3] =
    [2 * slots::slot_size::<OwnedFd>(), size_of::<Connection<OwnedFd>>(), timers::TIMER_SIZE];

const _: () = {
    let [transports, connection, timer] = IDLE_WEBSOCKET_PARTS;
    // The stage and the carrier of the tests take more.
    let is_for_tests = cfg!(any(test, feature = "sim"));
    assert!(is_for_tests || transports + connection + timer <= limits::IDLE_WEBSOCKET_SIZE_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory budget of docs/performance.md.
    #[test]
    fn what_an_idle_websocket_owns() {
        let [transports, connection, timer] = IDLE_WEBSOCKET_PARTS;
        println!("transports {transports} bytes, connection {connection} bytes, timer {timer} bytes");
        // In each transport the tests' carrier takes 8 bytes.
        let total = transports + connection + timer - 2 * 8;
        assert!(total <= limits::IDLE_WEBSOCKET_SIZE_MAX, "{total} bytes");
    }
}
