//! Writes of the server to a connection before its hand-over.
//!
//! A plain client gets the bytes at once, since it may wait for the server to write first. The gateway does not read
//! them; a copy is kept here, and is sent to the client after a late hand-over.
#![forbid(unsafe_code)]

use std::io::IoSlice;

use crate::limits::EARLY_SIZE_MAX;

/// The copies, one for each write.
#[derive(Default, Debug)]
pub(crate) struct EarlyWrites {
    messages: Vec<Box<[u8]>>,
    size: usize,
    /// Too many bytes, or a descriptor was passed: a late client gets only what is written after the hand-over.
    is_given_up: bool,
    /// The server has shut down its sending half.
    pub(crate) is_ended: bool,
}

impl EarlyWrites {
    /// Copies the first `size` bytes of a write: those that were sent.
    pub(crate) fn note(&mut self, parts: &[IoSlice<'_>], size: usize) {
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

    /// Drops all bytes, and keeps no more.
    pub(crate) fn give_up(&mut self) {
        *self = EarlyWrites { is_given_up: true, is_ended: self.is_ended, ..EarlyWrites::default() };
    }

    /// Removes the messages, in order.
    pub(crate) fn take(&mut self) -> Vec<Box<[u8]>> {
        self.size = 0;
        std::mem::take(&mut self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(early: &mut EarlyWrites, parts: &[&[u8]], size: usize) {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        early.note(&parts, size);
    }

    #[test]
    fn each_write_is_a_message_and_too_much_is_none() {
        let mut early = EarlyWrites::default();
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
