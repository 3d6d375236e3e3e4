//! One slot per descriptor with operations in flight. A token names a slot; this table alone maps the slot to its
//! owner.

use std::num::NonZeroU32;

use slab::Slab;

use crate::driver::{Op, Token};
use crate::limits::{FDS_MAX, NODES_MAX, UPSTREAMS_MAX};
use crate::transport::Transport;
use crate::types::End;

/// A connection has a slot for each descriptor, and one for a path that is being opened.
const _: () = assert!(4 * FDS_MAX.max < IDLE as u64);

/// Index of a slot in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key(NonZeroU32);

impl Key {
    fn new(index: usize) -> Key {
        Key(NonZeroU32::MIN.saturating_add(index as u32))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A reopening of a folder in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Index of the watched folder.
    pub(super) index: usize,
    /// Configuration number.
    pub(super) epoch: u32,
}

/// Owner of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum User {
    /// The accept of this listener.
    Listener(usize),
    /// The reopening of a folder's path.
    Folder(Look),
    /// The watched backend connection of a hand-over.
    Watch(usize),
    /// One end of a connection, by its index in the connection table.
    Transport(u32, End),
    /// The file or socket that a connection opens, reads or connects to, by its index in the connection table.
    File(u32),
    /// The channel to uakari-auth.
    Helper,
    /// An idle connection to a node, by its index in the pool.
    Idle(usize),
    /// The health check with this index.
    Check(usize),
    /// The socket of a carrier.
    #[cfg(any(test, feature = "sim"))]
    Carrier(usize),
}

/// The index of the channel to uakari-auth: no connection has it, since there are fewer (asserted above).
const HELPER: u32 = u32::MAX;

/// The first index of an idle connection of the pool: connections have smaller ones.
const IDLE: u32 = 1 << 31;
/// The index of the transport of the first health check: no connection has it or a greater one.
const CHECKS: u32 = 3 << 30;

const _: () = assert!(2 * FDS_MAX.max < CHECKS as u64 && ((UPSTREAMS_MAX * NODES_MAX) as u32) < HELPER - CHECKS);

/// A slot. `User` is stored in two parts, so that a slot of a transport has no padding.
#[derive(Debug)]
struct Slot<H> {
    generation: u32,
    /// Index in the owner's table. For a transport: twice the index, plus one for the backend's end; or `HELPER`; or `IDLE`
    /// plus the index in the pool, or `CHECKS` plus that of a health check.
    index: u32,
    kind: Kind<H>,
}

#[derive(Debug)]
enum Kind<H> {
    Listener,
    Folder {
        epoch: u32,
    },
    Watch,
    Transport(Transport<H>),
    File,
    Check,
    #[cfg(any(test, feature = "sim"))]
    Carrier(Transport<H>),
}

impl<H> Slot<H> {
    fn user(&self) -> User {
        let index = self.index as usize;
        match &self.kind {
            Kind::Listener => User::Listener(index),
            Kind::Folder { epoch } => User::Folder(Look { index, epoch: *epoch }),
            Kind::Watch => User::Watch(index),
            Kind::Transport(_) if self.index == HELPER => User::Helper,
            Kind::Transport(_) if self.index >= CHECKS => User::Check((self.index - CHECKS) as usize),
            Kind::Transport(_) if self.index >= IDLE => User::Idle((self.index - IDLE) as usize),
            Kind::Transport(_) if self.index.is_multiple_of(2) => User::Transport(self.index / 2, End::Client),
            Kind::Transport(_) => User::Transport(self.index / 2, End::Backend),
            Kind::File => User::File(self.index),
            Kind::Check => User::Check(index),
            #[cfg(any(test, feature = "sim"))]
            Kind::Carrier(_) => User::Carrier(index),
        }
    }
}

/// All slots. A slot is reused only when nothing is in flight for it, and then gets a new generation.
#[derive(Debug)]
pub(super) struct Slots<H> {
    slots: Slab<Slot<H>>,
    generation: u32,
}

impl<H> Default for Slots<H> {
    fn default() -> Slots<H> {
        Slots { slots: Slab::new(), generation: 0 }
    }
}

impl<H> Slots<H> {
    /// Assigns a slot to a transport. There are enough slots for all descriptors (asserted above).
    pub(super) fn insert_transport(&mut self, connection: u32, end: End, transport: Transport<H>) -> Key {
        self.add(2 * connection + u32::from(end == End::Backend), Kind::Transport(transport))
    }

    /// Assigns a slot to the socket of a carrier.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn insert_carrier(&mut self, index: usize, transport: Transport<H>) -> Key {
        self.add(index as u32, Kind::Carrier(transport))
    }

    /// Assigns a slot to the channel to uakari-auth.
    pub(super) fn insert_helper(&mut self, transport: Transport<H>) -> Key {
        self.add(HELPER, Kind::Transport(transport))
    }

    /// Assigns a slot to the open and the connects of a health check.
    pub(super) fn insert_check(&mut self, index: usize) -> Key {
        self.add(index as u32, Kind::Check)
    }

    /// Assigns a slot to the connection of a health check.
    pub(super) fn insert_check_transport(&mut self, index: usize, transport: Transport<H>) -> Key {
        self.add(CHECKS + index as u32, Kind::Transport(transport))
    }

    /// Assigns a slot to an accept.
    pub(super) fn insert_listener(&mut self, index: usize) -> Key {
        self.add(index as u32, Kind::Listener)
    }

    /// Assigns a slot to the reopening of a folder.
    pub(super) fn insert_folder(&mut self, look: Look) -> Key {
        self.add(look.index as u32, Kind::Folder { epoch: look.epoch })
    }

    /// Assigns a slot to a watched backend connection.
    pub(super) fn insert_watch(&mut self, index: usize) -> Key {
        self.add(index as u32, Kind::Watch)
    }

    /// Assigns a slot to the opened file of a connection.
    pub(super) fn insert_file(&mut self, connection: u32) -> Key {
        self.add(connection, Kind::File)
    }

    /// Makes the transport of a backend an idle connection of the pool. Operations in flight stay in flight.
    pub(super) fn give_to_pool(&mut self, key: Key, index: usize) {
        self.change(key, IDLE + index as u32);
    }

    /// Makes an idle connection of the pool the transport of a connection's backend.
    pub(super) fn give_to_connection(&mut self, key: Key, connection: u32) {
        self.change(key, 2 * connection + 1);
    }

    fn change(&mut self, key: Key, index: u32) {
        if let Some(slot) = self.slots.get_mut(key.index()) {
            slot.index = index;
        }
    }

    fn add(&mut self, index: u32, kind: Kind<H>) -> Key {
        self.generation = self.generation.wrapping_add(1) & Token::GENERATION_MASK;
        Key::new(self.slots.insert(Slot { generation: self.generation, index, kind }))
    }

    /// Frees a slot. Nothing may be in flight for it.
    pub(super) fn remove(&mut self, key: Key) {
        self.slots.try_remove(key.index());
    }

    /// As `remove`; returns the transport. None: the slot is not a transport's.
    pub(super) fn remove_transport(&mut self, key: Key) -> Option<Transport<H>> {
        match self.slots.try_remove(key.index())?.kind {
            Kind::Transport(transport) => Some(transport),
            #[cfg(any(test, feature = "sim"))]
            Kind::Carrier(transport) => Some(transport),
            _ => None,
        }
    }

    /// The token of an operation.
    pub(super) fn token(&self, key: Key, op: Op) -> Token {
        let generation = self.slots.get(key.index()).map_or(0, |slot| slot.generation);
        Token { slot: key.index() as u32, generation, op }
    }

    /// The owner of a token's slot. None: the slot has been freed or reused.
    pub(super) fn user(&self, token: Token) -> Option<User> {
        let slot = self.slots.get(token.slot as usize)?;
        (slot.generation == token.generation).then(|| slot.user())
    }

    /// The slot named by a token. None: it has been freed or reused.
    pub(super) fn key(&self, token: Token) -> Option<Key> {
        self.user(token).map(|_| Key::new(token.slot as usize))
    }

    pub(super) fn transport(&self, key: Option<Key>) -> Option<&Transport<H>> {
        match &self.slots.get(key?.index())?.kind {
            Kind::Transport(transport) => Some(transport),
            #[cfg(any(test, feature = "sim"))]
            Kind::Carrier(transport) => Some(transport),
            _ => None,
        }
    }

    pub(super) fn transport_mut(&mut self, key: Option<Key>) -> Option<&mut Transport<H>> {
        match &mut self.slots.get_mut(key?.index())?.kind {
            Kind::Transport(transport) => Some(transport),
            #[cfg(any(test, feature = "sim"))]
            Kind::Carrier(transport) => Some(transport),
            _ => None,
        }
    }

    /// Whether no slot belongs to a connection.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_no_connection(&self) -> bool {
        let is_other =
            |user| matches!(user, User::Listener(_) | User::Folder(_) | User::Watch(_) | User::Helper | User::Idle(_));
        self.slots.iter().all(|(_, slot)| is_other(slot.user()))
    }
}

/// Size of a slot in bytes.
pub(super) const fn slot_size<H>() -> usize {
    size_of::<Slot<H>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_token_reaches_nobody() {
        let mut slots = Slots::<()>::default();
        let key = slots.insert_watch(1);
        let token = slots.token(key, Op::Receive);
        assert!(matches!(slots.user(token), Some(User::Watch(1))));
        slots.remove(key);
        assert!(slots.user(token).is_none());
        let next = slots.insert_watch(2);
        assert_eq!((next, slots.user(token).is_none()), (key, true));
    }
}
