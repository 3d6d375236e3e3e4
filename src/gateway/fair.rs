//! A queue of connections that is fair between client addresses: round-robin by address.

use std::collections::{HashMap, VecDeque};

use super::timers::Owner;
use crate::clients::AddressUnit;
use crate::limits::LIGHT_VISITS_MAX;

/// Waiting connections. An address with many connections delays only its own.
///
/// Within an address, light connections (one visit consumes all their received data) precede heavy ones: many clients
/// may share an address, and a flooding client must not delay the others.
#[derive(Default, Debug)]
pub(crate) struct FairQueue {
    /// Addresses with waiting connections, in order of service.
    turns: VecDeque<AddressUnit>,
    waiting: HashMap<AddressUnit, Waiting>,
}

/// The waiting connections of one address.
#[derive(Default, Debug)]
struct Waiting {
    light: VecDeque<Owner>,
    heavy: VecDeque<Owner>,
    /// Light connections served since the last heavy one.
    lights: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty()
    }

    fn pop(&mut self) -> Option<Owner> {
        let is_heavys_turn = self.lights >= LIGHT_VISITS_MAX;
        let light = if is_heavys_turn && !self.heavy.is_empty() { None } else { self.light.pop_front() };
        self.lights = if light.is_some() { self.lights + 1 } else { 0 };
        light.or_else(|| self.heavy.pop_front())
    }
}

impl FairQueue {
    /// Whether no connection waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Appends a connection to those of its address and weight.
    pub(crate) fn push(&mut self, unit: AddressUnit, owner: Owner, is_heavy: bool) {
        let waiting = self.of(unit);
        let line = if is_heavy { &mut waiting.heavy } else { &mut waiting.light };
        line.push_back(owner);
    }

    /// Inserts a connection before the heavy ones of its address. The address keeps its place in the rotation.
    pub(crate) fn push_front(&mut self, unit: AddressUnit, owner: Owner) {
        self.of(unit).heavy.push_front(owner);
    }

    /// Removes the next connection and moves its address to the end of the rotation.
    pub(crate) fn pop(&mut self) -> Option<Owner> {
        let unit = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&unit)?;
        let owner = waiting.pop();
        if waiting.is_empty() {
            self.waiting.remove(&unit);
        } else {
            self.turns.push_back(unit);
        }
        owner
    }

    fn of(&mut self, unit: AddressUnit) -> &mut Waiting {
        let waiting = self.waiting.entry(unit).or_default();
        if waiting.is_empty() {
            self.turns.push_back(unit);
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_turns() {
        let unit = |last| AddressUnit::V4([127, 0, 0, last]);
        let owner = |slot| Owner { slot, generation: 0 };
        let mut queue = FairQueue::default();
        for slot in 0..4 {
            queue.push(unit(1), owner(slot), false);
        }
        queue.push(unit(2), owner(10), false);
        queue.push(unit(3), owner(20), false);
        queue.push(unit(3), owner(21), false);
        let first: Vec<u32> = (0..4).filter_map(|_| queue.pop()).map(|owner| owner.slot).collect();
        assert_eq!(first, [0, 10, 20, 1]);
        // A connection queued again is the last one of its address.
        queue.push(unit(2), owner(10), false);
        queue.push(unit(1), owner(0), false);
        queue.push_front(unit(1), owner(1));
        let rest: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|owner| owner.slot).collect();
        assert_eq!(rest, [21, 2, 10, 3, 0, 1]);
        assert!(queue.is_empty() && queue.waiting.is_empty(), "{queue:?}");
    }

    #[test]
    fn the_heavy_come_behind_the_light_and_come_all_the_same() {
        let (unit, owner) = (AddressUnit::Unknown, |slot| Owner { slot, generation: 0 });
        let mut queue = FairQueue::default();
        queue.push(unit, owner(100), true);
        queue.push(unit, owner(101), true);
        queue.push_front(unit, owner(102));
        (0..LIGHT_VISITS_MAX as u32 + 2).for_each(|slot| queue.push(unit, owner(slot), false));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|owner| owner.slot).collect();
        let (first, rest) = order.split_at(LIGHT_VISITS_MAX);
        assert!(first.iter().all(|slot| *slot < 100), "{order:?}");
        assert_eq!((rest[0], &rest[3..]), (102, &[100, 101][..]), "{order:?}");
    }
}
