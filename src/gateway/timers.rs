//! Deadlines. A connection has at most one; a timer that fires early is set anew, so that moving a deadline
//! later, the usual case, costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Whose deadline it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owner {
    /// The place in the table.
    pub slot: u32,
    /// The owner of that place.
    pub generation: u32,
}

/// All deadlines, the earliest first.
#[derive(Default, Debug)]
pub struct Timers(BinaryHeap<Reverse<(u64, Owner)>>);

/// Bytes of a timer.
#[cfg(test)]
pub(super) const TIMER_SIZE: usize = size_of::<Reverse<(u64, Owner)>>();

impl Timers {
    /// Adds a timer.
    pub fn add(&mut self, at_ms: u64, owner: Owner) {
        self.0.push(Reverse((at_ms, owner)));
    }

    /// How many there are, those of ended connections included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops the timers that nobody waits for any more.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(u64, Owner) -> bool) {
        self.0.retain(|Reverse((at_ms, owner))| is_wanted(*at_ms, *owner));
    }

    /// When the earliest is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Takes out one that is due, and when it was.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<(u64, Owner)> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.0.pop().map(|Reverse(timer)| timer)
    }
}
