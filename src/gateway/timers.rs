//! Deadlines: a binary heap with at most one timer for each connection. A timer that fires early is set again, so that
//! postponing a deadline, the usual case, costs nothing.

use crate::types::Moment;

/// Identity of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Owner {
    /// Index in the connection table.
    pub(crate) slot: u32,
    /// Distinguishes successive connections in one slot.
    pub(crate) generation: u32,
}

/// All timers.
#[derive(Default, Debug)]
pub(crate) struct Timers {
    /// A binary heap, the earliest timer first.
    heap: Vec<Timer>,
    /// For each slot, one more than the place of its timer in `heap`; 0: no timer is set.
    places: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    at: Moment,
    slot: u32,
}

/// Size in bytes of a timer and its place.
pub(super) const TIMER_SIZE: usize = size_of::<Timer>() + size_of::<u32>();

impl Timers {
    /// Sets the timer of the connection in `slot`. It replaces an earlier setting.
    pub(crate) fn set(&mut self, slot: u32, at_ms: u64) {
        self.clear(slot);
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, 0);
        }
        self.heap.push(Timer { at: Moment::at(at_ms), slot });
        self.rise(self.heap.len() - 1);
    }

    /// Removes the timer of the connection in `slot`, if it is set.
    pub(crate) fn clear(&mut self, slot: u32) {
        if let Some(at) = self.place(slot) {
            self.places[slot as usize] = 0;
            self.heap.swap_remove(at);
            if at < self.heap.len() {
                self.sink(at);
                self.rise(at);
            }
        }
    }

    /// When the timer of the connection in `slot` is due, in ms. None: it is not set.
    pub(crate) fn at_ms(&self, slot: u32) -> Option<u64> {
        self.place(slot).map(|at| self.heap[at].at.ms())
    }

    /// When the earliest timer is due, in ms. None: no timer is set.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.heap.first().map(|timer| timer.at.ms())
    }

    /// Removes an expired timer and returns the slot of its connection. None: no timer has expired.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<u32> {
        let first = self.heap.first().filter(|timer| timer.at.ms() <= now_ms)?;
        let slot = first.slot;
        self.clear(slot);
        Some(slot)
    }

    /// Whether no timer is set.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn place(&self, slot: u32) -> Option<usize> {
        (*self.places.get(slot as usize)? as usize).checked_sub(1)
    }

    /// Moves the timer at `at` towards the front until its parent is not later.
    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].at <= self.heap[at].at {
                break;
            }
            self.swap(parent, at);
            at = parent;
        }
        self.note(at);
    }

    /// Moves the timer at `at` towards the back until its children are not earlier.
    fn sink(&mut self, mut at: usize) {
        loop {
            let children = [2 * at + 1, 2 * at + 2];
            let earlier = children.into_iter().filter(|child| *child < self.heap.len());
            match earlier.min_by_key(|child| self.heap[*child].at) {
                Some(child) if self.heap[child].at < self.heap[at].at => {
                    self.swap(child, at);
                    at = child;
                }
                _ => break,
            }
        }
        self.note(at);
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.note(one);
        self.note(other);
    }

    fn note(&mut self, at: usize) {
        self.places[self.heap[at].slot as usize] = at as u32 + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Compares the heap with an ordered map through many settings, removals and expiries.
    #[test]
    fn the_earliest_fires_first() {
        let (mut timers, mut expected) = (Timers::default(), BTreeMap::<u32, u64>::new());
        let mut number = 7_u64;
        let mut below = |max: u64| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) % max
        };
        for step in 0..20_000 {
            let (slot, at_ms) = (below(100) as u32, below(1_000));
            match below(4) {
                0 | 1 => {
                    timers.set(slot, at_ms);
                    expected.insert(slot, at_ms);
                }
                2 => {
                    timers.clear(slot);
                    expected.remove(&slot);
                }
                _ => {
                    let due = timers.pop_due(at_ms);
                    let earliest = expected.values().copied().min().filter(|earliest| *earliest <= at_ms);
                    assert_eq!(due.map(|slot| expected[&slot]), earliest, "step {step}");
                    due.map(|slot| expected.remove(&slot));
                }
            }
            assert_eq!(timers.next_ms(), expected.values().copied().min(), "step {step}");
            assert_eq!(timers.at_ms(slot), expected.get(&slot).copied(), "step {step}");
        }
    }
}
