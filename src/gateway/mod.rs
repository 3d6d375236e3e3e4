//! The shell: where driver and sessions meet. One switch over completions, then one settling of all that they
//! touched, then one submission.

pub mod connection;
pub mod listener;
pub mod peer;
mod timers;

#[cfg(test)]
mod simulation;

use slab::Slab;

use crate::driver::{Address, Completion, Driver, Errno, Event, Kind, Received, Token};
use crate::limits;
use crate::observe::log::{self, Level};
use crate::route::Site;
use crate::session::{Actions, Input};
use connection::Connection;
use peer::give_back;
use timers::{Owner, Timers};

/// Slots from here on are listeners', not connections'.
const LISTENER_SLOTS: u32 = 0xffff_0000;

/// The folders that requests lead to.
pub struct Folders<H> {
    /// The servers' sockets.
    pub docroot: Option<H>,
    /// The pages.
    pub www: Option<H>,
}

/// What a connection finds around it.
pub struct World<D: Driver> {
    /// The kernel.
    pub driver: D,
    /// What is served.
    pub site: Site,
    /// Where it lies.
    pub folders: Folders<D::Handle>,
    /// The time of this turn.
    pub now_ms: u64,
    /// What a session asks for; empty between inputs.
    actions: Actions,
}

/// The gateway on a driver.
pub struct Gateway<D: Driver> {
    world: World<D>,
    listeners: Vec<D::Handle>,
    connections: Slab<Connection<D::Handle>>,
    timers: Timers,
    /// Connections that this turn touched.
    touched: Vec<Owner>,
    /// Connections whose receive found the pool empty.
    starved: Vec<Owner>,
    clients_max: usize,
    /// Listeners that stopped for want of file descriptors, and when they go on.
    paused: Vec<u32>,
    resume_ms: Option<u64>,
    next_id: u64,
    /// When those who are still there are no longer waited for.
    give_up_ms: Option<u64>,
    is_aborting: bool,
}

impl<D: Driver> Gateway<D> {
    /// A gateway that serves `site` on these listeners, for so many clients at most.
    pub fn new(
        driver: D,
        site: Site,
        folders: Folders<D::Handle>,
        listeners: Vec<D::Handle>,
        clients_max: usize,
    ) -> Gateway<D> {
        let now_ms = driver.now_ms();
        let mut gateway = Gateway {
            world: World { driver, site, folders, now_ms, actions: Actions::default() },
            listeners,
            connections: Slab::new(),
            timers: Timers::default(),
            touched: Vec::new(),
            starved: Vec::new(),
            clients_max,
            paused: Vec::new(),
            resume_ms: None,
            next_id: 1,
            give_up_ms: None,
            is_aborting: false,
        };
        for index in 0..gateway.listeners.len() {
            gateway.accept(index as u32);
        }
        gateway
    }

    /// Serves until a signal asks it to stop and all clients have been told.
    pub fn run(&mut self) -> Result<(), Errno> {
        let mut completions = Vec::new();
        while !self.is_over() {
            self.turn(&mut completions)?;
        }
        Ok(())
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        self.give_up_ms.is_some_and(|ms| self.connections.is_empty() || self.world.now_ms >= ms + limits::ABORT_MS)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The driver, for those who look at it from outside.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.world.driver
    }

    /// One turn of the loop. `completions` is empty before and after; it only keeps its memory.
    pub fn turn(&mut self, completions: &mut Vec<Completion<D::Handle>>) -> Result<(), Errno> {
        self.world.driver.wait(self.timeout_ms(), completions)?;
        self.world.now_ms = self.world.driver.now_ms();
        self.world.site.date.set(self.world.driver.unix_s());
        for Completion { token, event } in completions.drain(..) {
            self.on_completion(token, event);
        }
        self.fire_timers();
        self.settle();
        Ok(())
    }

    /// Tells every client that the gateway stops, and takes no more of them. Asked again, it ends at once.
    pub fn stop(&mut self) {
        if self.give_up_ms.is_some() {
            self.give_up_ms = Some(self.world.now_ms);
            return;
        }
        self.give_up_ms = Some(self.world.now_ms + limits::DRAIN_MS);
        for index in 0..self.listeners.len() {
            self.world.driver.cancel(listener_token(index as u32));
        }
        for (_, connection) in &mut self.connections {
            connection.handle(Input::Stop, &mut self.world);
            list(connection, &mut self.touched);
        }
    }

    fn timeout_ms(&self) -> Option<u64> {
        // A buffer that came free behind a starved connection's turn must not wait for somebody else's event.
        if !self.starved.is_empty() && self.world.driver.buffers_free() > 0 {
            return Some(0);
        }
        let abort_ms = if self.is_aborting { limits::ABORT_MS } else { 0 };
        let due = [self.timers.next_ms(), self.resume_ms, self.give_up_ms.map(|ms| ms + abort_ms)];
        let due_ms = due.into_iter().flatten().min()?;
        Some(due_ms.saturating_sub(self.world.driver.now_ms()))
    }

    fn on_completion(&mut self, token: Token, event: Event<D::Handle>) {
        match event {
            Event::Accepted { result, more } => return self.on_accepted(token.slot - LISTENER_SLOTS, result, more),
            Event::Signal(number) => {
                log::event(Level::Info, format_args!("stopping on signal {number}"));
                return self.stop();
            }
            _ => {}
        }
        // A slot is reused only when nothing is in flight for it, so that a stale completion is a bug of ours.
        let owner = Owner { slot: token.slot, generation: token.generation };
        let Some(connection) = find(&mut self.connections, owner) else {
            debug_assert!(false, "a completion for nobody: {token:?}");
            return self.drop_stale(event);
        };
        match event {
            Event::Received { result, more } => connection.on_received(token.kind, result, more, &mut self.world),
            Event::Sent { batch, result } => connection.on_sent(token.kind, batch, result, &mut self.world),
            Event::Opened(result) => connection.on_opened(result, &mut self.world),
            Event::Connected(result) => connection.on_connected(result, &mut self.world),
            Event::Accepted { .. } | Event::Signal(_) => {}
        }
        list(connection, &mut self.touched);
    }

    /// Gives back what an event holds that reaches nobody.
    fn drop_stale(&mut self, event: Event<D::Handle>) {
        match event {
            Event::Received { result: Received::Data(lease), .. } => self.world.driver.release(lease),
            Event::Sent { batch, .. } => {
                batch.into_segments().for_each(|segment| give_back(segment, &mut self.world.driver));
            }
            Event::Opened(Ok((handle, _))) | Event::Connected(Ok(handle)) => self.world.driver.close(handle),
            _ => {}
        }
    }

    fn accept(&mut self, index: u32) {
        self.world.driver.accept(listener_token(index), &self.listeners[index as usize]);
    }

    fn on_accepted(&mut self, index: u32, result: Result<(D::Handle, Address), Errno>, more: bool) {
        let is_failure = match result {
            Ok((handle, address)) => {
                self.admit(handle, address);
                false
            }
            Err(Errno::ECANCELED | Errno::ECONNABORTED) => false,
            Err(errno) => {
                log::event(Level::Warn, format_args!("cannot accept: {}", errno.desc()));
                true
            }
        };
        if more || self.give_up_ms.is_some() {
            return;
        }
        if is_failure {
            self.paused.push(index);
            self.resume_ms = Some(self.world.now_ms + limits::ACCEPT_PAUSE_MS);
        } else {
            self.accept(index);
        }
    }

    fn admit(&mut self, handle: D::Handle, address: Address) {
        let excess = (self.connections.len() + 1).saturating_sub(self.clients_max);
        if self.give_up_ms.is_some() || excess > limits::OVERLOAD_REPLIES_MAX {
            return self.world.driver.close(handle);
        }
        let entry = self.connections.vacant_entry();
        let generation = self.next_id as u32 & Token::GENERATION_MASK;
        let owner = Owner { slot: entry.key() as u32, generation };
        let connection = entry.insert(Connection::new(self.next_id, owner, handle, address, self.world.now_ms));
        self.next_id += 1;
        connection.handle(if excess > 0 { Input::Overload } else { Input::Accepted }, &mut self.world);
        list(connection, &mut self.touched);
    }

    fn fire_timers(&mut self) {
        if self.resume_ms.is_some_and(|ms| ms <= self.world.now_ms) {
            self.resume_ms = None;
            for index in std::mem::take(&mut self.paused) {
                self.accept(index);
            }
        }
        if self.give_up_ms.is_some_and(|ms| ms <= self.world.now_ms) && !self.is_aborting {
            self.is_aborting = true;
            for (_, connection) in &mut self.connections {
                connection.abort();
                list(connection, &mut self.touched);
            }
        }
        while let Some(owner) = self.timers.pop_due(self.world.now_ms) {
            if let Some(connection) = find(&mut self.connections, owner) {
                connection.on_timer(&mut self.world);
                list(connection, &mut self.touched);
            }
        }
    }

    /// Brings every touched connection in order: sends what is queued, asks for what is wanted, frees what is over.
    fn settle(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.append(&mut self.starved);
        for owner in touched.drain(..) {
            let Some(connection) = find(&mut self.connections, owner) else { continue };
            connection.is_listed = false;
            if connection.settle(&mut self.world) {
                list(connection, &mut self.starved);
            }
            if let Some(at_ms) = connection.timer_to_set() {
                self.timers.add(at_ms, owner);
            }
            if connection.is_over() {
                connection.log_end(self.world.now_ms);
                self.connections.remove(owner.slot as usize);
            }
        }
        self.touched = touched;
        if self.timers.len() > limits::TIMERS_SPARE_MAX + 4 * self.connections.len() {
            self.timers.retain(|owner| find(&mut self.connections, owner).is_some());
        }
    }
}

fn listener_token(index: u32) -> Token {
    Token { slot: LISTENER_SLOTS + index, generation: 0, kind: Kind::Accept }
}

/// Adds a connection to a list of those to be settled, once.
fn list<H>(connection: &mut Connection<H>, owners: &mut Vec<Owner>) {
    if !std::mem::replace(&mut connection.is_listed, true) {
        owners.push(connection.owner());
    }
}

/// The connection that an owner names, unless its slot belongs to another one by now.
fn find<H>(connections: &mut Slab<Connection<H>>, owner: Owner) -> Option<&mut Connection<H>> {
    connections.get_mut(owner.slot as usize).filter(|connection| connection.owner() == owner)
}
