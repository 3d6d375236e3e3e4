//! What a server writes to a connection of which it is not known yet whether a client will be handed over by it.
//!
//! A plain client gets it at once, since it may wait for the server to speak. The gateway does not read it, so a copy is
//! kept: where a client comes after all, it gets the same messages as if it had been there.
#![forbid(unsafe_code)]

use std::io::IoSlice;

use crate::limits::EARLY_SIZE_MAX;

/// What was written so far.
#[derive(Default, Debug)]
pub struct Early {
    messages: Vec<Box<[u8]>>,
    size: usize,
    /// It was too much, or not for a client: who comes now begins with what is written next.
    is_given_up: bool,
    /// The server has ended its sending half.
    pub is_ended: bool,
}

impl Early {
    /// Notes a write, of which so many bytes were taken.
    pub fn note(&mut self, parts: &[IoSlice<'_>], size: usize) {
        if self.is_given_up || size == 0 {
            return;
        }
        if self.size + size > EARLY_SIZE_MAX {
            self.give_up();
            return;
        }
        let bytes = parts.iter().flat_map(|part| part.iter().copied());
        self.messages.push(bytes.take(size).collect());
        self.size += size;
    }

    /// From now on nothing is kept.
    pub fn give_up(&mut self) {
        *self = Early { is_given_up: true, is_ended: self.is_ended, ..Early::default() };
    }

    /// The messages, in order.
    pub fn take(&mut self) -> Vec<Box<[u8]>> {
        self.size = 0;
        std::mem::take(&mut self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(early: &mut Early, parts: &[&[u8]], size: usize) {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        early.note(&parts, size);
    }

    #[test]
    fn each_write_is_a_message_and_too_much_is_none() {
        let mut early = Early::default();
        note(&mut early, &[b"one ", b"two"], 7);
        note(&mut early, &[], 0);
        note(&mut early, &[b"three", b"four"], 6);
        assert_eq!(early.take(), [b"one two"[..].into(), b"threef"[..].into()]);
        assert!(early.take().is_empty());
        let half = vec![7; EARLY_SIZE_MAX / 2];
        note(&mut early, &[&half], half.len());
        note(&mut early, &[&half], half.len());
        note(&mut early, &[b"more"], 4);
        note(&mut early, &[b"and more"], 8);
        assert!(early.take().is_empty());
        assert!(!early.is_ended);
    }
}
