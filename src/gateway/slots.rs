//! One slot for each descriptor that has operations in flight, and whose it is. A token names a slot; only this table
//! says what the descriptor is for.

use std::num::NonZeroU32;

use slab::Slab;

use crate::driver::{Op, Token};
use crate::transport::Transport;
use crate::types::End;

/// A slot's place in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key(NonZeroU32);

impl Key {
    fn new(index: usize) -> Option<Key> {
        NonZeroU32::new(index as u32 + 1).map(Key)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A path that is being opened again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Which of the folders.
    pub(super) index: usize,
    /// Of which configuration.
    pub(super) epoch: u32,
}

/// What a descriptor is for.
#[derive(Debug)]
pub(super) enum User<H> {
    /// The socket of this listener accepts.
    Listener(usize),
    /// A folder's path is opened again.
    Folder(Look),
    /// The connection that brought a client to its backend is watched.
    Watch(usize),
    /// This end of a connection.
    Transport {
        /// The connection's place in its table.
        connection: u32,
        end: End,
        transport: Transport<H>,
    },
    /// What this connection opens, reads from, or connects to.
    File {
        /// The connection's place in its table.
        connection: u32,
    },
}

#[derive(Debug)]
struct Slot<H> {
    generation: u32,
    user: User<H>,
}

/// All slots. A slot is used again only when nothing is in flight for it, and then has another generation.
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
    /// Gives a descriptor a slot. Err: there are as many as a token can name.
    pub(super) fn insert(&mut self, user: User<H>) -> Result<Key, User<H>> {
        let entry = self.slots.vacant_entry();
        let Some(key) = Key::new(entry.key()) else { return Err(user) };
        self.generation = self.generation.wrapping_add(1) & Token::GENERATION_MASK;
        entry.insert(Slot { generation: self.generation, user });
        Ok(key)
    }

    /// Frees a slot, for which nothing is in flight.
    pub(super) fn remove(&mut self, key: Key) -> Option<User<H>> {
        self.slots.try_remove(key.index()).map(|slot| slot.user)
    }

    /// As `remove`, for the end of a connection.
    pub(super) fn remove_transport(&mut self, key: Key) -> Option<Transport<H>> {
        match self.remove(key)? {
            User::Transport { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// The name of an operation.
    pub(super) fn token(&self, key: Key, op: Op) -> Token {
        let generation = self.slots.get(key.index()).map_or(0, |slot| slot.generation);
        Token { slot: key.index() as u32, generation, op }
    }

    /// Whose operation it was. None: the slot's owner has gone.
    pub(super) fn user(&self, token: Token) -> Option<&User<H>> {
        let slot = self.slots.get(token.slot as usize)?;
        (slot.generation == token.generation).then_some(&slot.user)
    }

    /// The slot that a token names.
    pub(super) fn key(&self, token: Token) -> Option<Key> {
        self.user(token).and_then(|_| Key::new(token.slot as usize))
    }

    /// The transport in a slot.
    pub(super) fn transport(&self, key: Option<Key>) -> Option<&Transport<H>> {
        match &self.slots.get(key?.index())?.user {
            User::Transport { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// The transport in a slot, to be changed.
    pub(super) fn transport_mut(&mut self, key: Option<Key>) -> Option<&mut Transport<H>> {
        match &mut self.slots.get_mut(key?.index())?.user {
            User::Transport { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// Whether no descriptor of a connection has a slot.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_no_connection(&self) -> bool {
        let is_other = |user: &User<H>| matches!(user, User::Listener(_) | User::Folder(_) | User::Watch(_));
        self.slots.iter().all(|(_, slot)| is_other(&slot.user))
    }
}

/// Bytes of a slot.
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
        let key = slots.insert(User::Watch(1)).unwrap();
        let token = slots.token(key, Op::Receive);
        assert!(matches!(slots.user(token), Some(User::Watch(1))));
        slots.remove(key);
        assert!(slots.user(token).is_none());
        let next = slots.insert(User::Watch(2)).unwrap();
        assert_eq!((next, slots.user(token).is_none()), (key, true));
    }
}
