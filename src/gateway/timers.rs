//! Deadlines. A connection has at most one valid timer. A timer that fires early is set again, so that postponing a
//! deadline, the usual case, costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Identity of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Owner {
    /// Index in the connection table.
    pub(crate) slot: u32,
    /// Distinguishes successive connections in one slot.
    pub(crate) generation: u32,
}

/// All timers, the earliest first.
#[derive(Default, Debug)]
pub(crate) struct Timers(BinaryHeap<Reverse<(u64, Owner)>>);

/// Size of a timer in bytes.
#[cfg(test)]
pub(super) const TIMER_SIZE: usize = size_of::<Reverse<(u64, Owner)>>();

impl Timers {
    /// Adds a timer that expires at `at_ms`.
    pub(crate) fn add(&mut self, at_ms: u64, owner: Owner) {
        self.0.push(Reverse((at_ms, owner)));
    }

    /// Number of timers, including those of closed connections.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops the timers that are no longer valid.
    pub(crate) fn retain(&mut self, mut is_wanted: impl FnMut(u64, Owner) -> bool) {
        self.0.retain(|Reverse((at_ms, owner))| is_wanted(*at_ms, *owner));
    }

    /// When the earliest timer is due, in ms. None: there is none.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Removes an expired timer and returns its time and owner. None: no timer has expired.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<(u64, Owner)> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.0.pop().map(|Reverse(timer)| timer)
    }
}
