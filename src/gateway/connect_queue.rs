//! Queues of connections waiting for a UNIX socket whose listen backlog is full.
//!
//! The kernel gives no notification when a backlog has room again, so connect(2) must be retried. One waiting
//! connection, the prober, retries for all others, with a backoff that doubles up to `CONNECT_RETRY_MS_MAX`. When the
//! prober is connected, the next connection retries at once. The cost of a slow backend is therefore independent of
//! the number of waiting connections. New connections to the same socket join the queue. Client addresses take turns,
//! so that an address with many clients does not delay the others.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::timers::Owner;
use crate::clients::AddressUnit;
use crate::driver::FileId;
use crate::limits::{CONNECT_RETRY_MS, CONNECT_RETRY_MS_MAX};

/// Queues by socket, in an order that is the same in each run. A connection in its handshake is in at most one queue, once.
#[derive(Default, Debug)]
pub(crate) struct ConnectQueues(BTreeMap<FileId, Queue>);

/// Connections that wait for one socket.
#[derive(Debug)]
struct Queue {
    waiting: VecDeque<(Owner, AddressUnit)>,
    /// The connection that retries now.
    prober: Option<Owner>,
    /// When the next connection may retry, if there is no prober.
    probe_ms: u64,
    pause_ms: u64,
    /// Turn number of each address's last attempt.
    turns: HashMap<AddressUnit, u64>,
    turn: u64,
}

impl ConnectQueues {
    /// Whether connections wait for this socket.
    pub(crate) fn is_full(&self, socket: FileId) -> bool {
        self.0.contains_key(&socket)
    }

    /// Queues a connection that found the backlog full or the queue not empty. A prober that failed
    /// returns to the head of the queue.
    pub(crate) fn wait(&mut self, socket: FileId, owner: Owner, unit: AddressUnit, now_ms: u64) {
        let queue = self.0.entry(socket).or_insert_with(|| Queue {
            waiting: VecDeque::new(),
            prober: None,
            probe_ms: now_ms + CONNECT_RETRY_MS,
            pause_ms: CONNECT_RETRY_MS,
            turns: HashMap::new(),
            turn: 0,
        });
        if queue.prober == Some(owner) {
            queue.prober = None;
            queue.turns.remove(&unit);
            queue.pause_ms = (queue.pause_ms * 2).min(CONNECT_RETRY_MS_MAX);
            queue.probe_ms = now_ms + queue.pause_ms;
            queue.waiting.push_front((owner, unit));
        } else {
            queue.waiting.push_back((owner, unit));
        }
    }

    /// Removes a connection that was connected, refused or closed. If it was the prober, the next connection retries.
    pub(crate) fn leave(&mut self, socket: FileId, owner: Owner, now_ms: u64) {
        let Some(queue) = self.0.get_mut(&socket) else { return };
        if queue.prober == Some(owner) {
            (queue.prober, queue.pause_ms, queue.probe_ms) = (None, CONNECT_RETRY_MS, now_ms);
        } else {
            queue.waiting.retain(|(other, _)| *other != owner);
        }
        if queue.prober.is_none() && queue.waiting.is_empty() {
            self.0.remove(&socket);
        }
    }

    /// When the next retry is due. None: no retry is scheduled.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.0.values().filter(|queue| queue.prober.is_none()).map(|queue| queue.probe_ms).min()
    }

    /// The connections that retry now, at most one per socket.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<Owner> {
        let due = self.0.values_mut().filter(|queue| queue.prober.is_none() && queue.probe_ms <= now_ms);
        due.filter_map(Queue::take_next).collect()
    }

    /// Whether no connection waits.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Queue {
    /// Removes the first connection of the least recently served address.
    fn take_next(&mut self) -> Option<Owner> {
        let turns = &self.turns;
        let last_turn = |(_, unit): &(Owner, AddressUnit)| turns.get(unit).copied().unwrap_or(0);
        let (at, _) = self.waiting.iter().enumerate().min_by_key(|(_, waiter)| last_turn(waiter))?;
        let (owner, unit) = self.waiting.remove(at)?;
        self.turn += 1;
        self.turns.insert(unit, self.turn);
        // An address is kept for at most one round over all waiting connections.
        let oldest = self.turn.saturating_sub(self.waiting.len() as u64 + 1);
        self.turns.retain(|_, turn| *turn >= oldest);
        self.prober = Some(owner);
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: FileId = FileId { file_system: 1, inode: 2, changed_s: 3, changed_ns: 4 };

    fn owner(slot: u32) -> Owner {
        Owner { slot, generation: 1 }
    }

    fn slots(due: Vec<Owner>) -> Vec<u32> {
        due.into_iter().map(|owner| owner.slot).collect()
    }

    #[test]
    fn one_tries_for_all() {
        let mut queues = ConnectQueues::default();
        (0..1_000).for_each(|slot| queues.wait(SOCKET, owner(slot), AddressUnit::Unknown, 0));
        let (mut now_ms, mut probes) = (0, 0);
        while now_ms < 1_000 {
            now_ms = queues.next_ms().unwrap();
            assert_eq!(slots(queues.take_due(now_ms)), [0]);
            assert_eq!((queues.take_due(now_ms).len(), queues.next_ms()), (0, None), "nobody else meanwhile");
            queues.wait(SOCKET, owner(0), AddressUnit::Unknown, now_ms);
            probes += 1;
        }
        assert!(probes < 25, "{probes} in a second");
        // A waiting connection has left. When the prober is connected, the next connection retries at once.
        queues.leave(SOCKET, owner(2), now_ms);
        now_ms = queues.next_ms().unwrap();
        for slot in [0, 1, 3, 4] {
            assert_eq!(queues.next_ms(), Some(now_ms));
            assert_eq!(slots(queues.take_due(now_ms)), [slot]);
            queues.leave(SOCKET, owner(slot), now_ms);
        }
        assert_eq!(slots(queues.take_due(now_ms)), [5]);
        queues.wait(SOCKET, owner(5), AddressUnit::Unknown, now_ms);
        assert_eq!(queues.next_ms(), Some(now_ms + 2 * CONNECT_RETRY_MS), "pauses begin small again");
        (0..1_000).for_each(|slot| queues.leave(SOCKET, owner(slot), now_ms));
        assert!(queues.is_empty());
    }

    #[test]
    fn addresses_have_turns() {
        let mut queues = ConnectQueues::default();
        let unit = |last| AddressUnit::V4([192, 0, 2, last]);
        (0..10).for_each(|slot| queues.wait(SOCKET, owner(slot), unit(1), 0));
        queues.wait(SOCKET, owner(10), unit(2), 0);
        queues.wait(SOCKET, owner(11), unit(3), 0);
        let mut order = Vec::new();
        for _ in 0..5 {
            let due = slots(queues.take_due(5));
            queues.leave(SOCKET, owner(due[0]), 5);
            order.extend(due);
        }
        assert_eq!(order, [0, 10, 11, 1, 2]);
        // An unsuccessful retry does not use up the turn.
        assert_eq!(slots(queues.take_due(5)), [3]);
        queues.wait(SOCKET, owner(3), unit(1), 5);
        assert_eq!(slots(queues.take_due(100)), [3]);
    }
}
