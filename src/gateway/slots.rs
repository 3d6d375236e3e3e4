//! One slot per descriptor with operations in flight. A token names a slot; this table alone maps the slot to its
//! owner.

use std::num::NonZeroU32;

use slab::Slab;

use crate::driver::{Op, Token};
use crate::limits::FDS_MAX;
use crate::transport::Transport;
use crate::types::End;

/// A connection has a slot for each descriptor, and one for a path that is being opened.
const _: () = assert!(4 * FDS_MAX.max < u32::MAX as u64);

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
#[derive(Debug)]
pub(super) enum User<H> {
    /// The accept of this listener.
    Listener(usize),
    /// The reopening of a folder's path.
    Folder(Look),
    /// The watched backend connection of a hand-over.
    Watch(usize),
    /// One end of a connection.
    Transport {
        /// Index in the connection table.
        connection: u32,
        end: End,
        transport: Transport<H>,
    },
    /// The file or socket that a connection opens, reads or connects to.
    File {
        /// Index in the connection table.
        connection: u32,
    },
}

#[derive(Debug)]
struct Slot<H> {
    generation: u32,
    user: User<H>,
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
    /// Assigns a slot. There are enough of them for all descriptors (asserted above).
    pub(super) fn insert(&mut self, user: User<H>) -> Key {
        self.generation = self.generation.wrapping_add(1) & Token::GENERATION_MASK;
        Key::new(self.slots.insert(Slot { generation: self.generation, user }))
    }

    /// Frees a slot. Nothing may be in flight for it.
    pub(super) fn remove(&mut self, key: Key) -> Option<User<H>> {
        self.slots.try_remove(key.index()).map(|slot| slot.user)
    }

    /// As `remove`, for a transport. None: the slot is not a transport's.
    pub(super) fn remove_transport(&mut self, key: Key) -> Option<Transport<H>> {
        match self.remove(key)? {
            User::Transport { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// The token of an operation.
    pub(super) fn token(&self, key: Key, op: Op) -> Token {
        let generation = self.slots.get(key.index()).map_or(0, |slot| slot.generation);
        Token { slot: key.index() as u32, generation, op }
    }

    /// The owner of a token's slot. None: the slot has been freed or reused.
    pub(super) fn user(&self, token: Token) -> Option<&User<H>> {
        let slot = self.slots.get(token.slot as usize)?;
        (slot.generation == token.generation).then_some(&slot.user)
    }

    /// The slot named by a token. None: it has been freed or reused.
    pub(super) fn key(&self, token: Token) -> Option<Key> {
        self.user(token).map(|_| Key::new(token.slot as usize))
    }

    pub(super) fn transport(&self, key: Option<Key>) -> Option<&Transport<H>> {
        match &self.slots.get(key?.index())?.user {
            User::Transport { transport, .. } => Some(transport),
            _ => None,
        }
    }

    pub(super) fn transport_mut(&mut self, key: Option<Key>) -> Option<&mut Transport<H>> {
        match &mut self.slots.get_mut(key?.index())?.user {
            User::Transport { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// Whether no slot belongs to a connection.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_no_connection(&self) -> bool {
        let is_other = |user: &User<H>| matches!(user, User::Listener(_) | User::Folder(_) | User::Watch(_));
        self.slots.iter().all(|(_, slot)| is_other(&slot.user))
    }
}

/// Size of a slot in bytes.
#[cfg(test)]
pub(super) const fn slot_size<H>() -> usize {
    size_of::<Slot<H>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_token_reaches_nobody() {
        let mut slots = Slots::<()>::default();
        let key = slots.insert(User::Watch(1));
        let token = slots.token(key, Op::Receive);
        assert!(matches!(slots.user(token), Some(User::Watch(1))));
        slots.remove(key);
        assert!(slots.user(token).is_none());
        let next = slots.insert(User::Watch(2));
        assert_eq!((next, slots.user(token).is_none()), (key, true));
    }
}
