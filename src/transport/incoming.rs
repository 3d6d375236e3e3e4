//! Queue of received data that is not yet delivered to the exchange.

use std::collections::VecDeque;

use super::outgoing::{give_back, heap_cost};
use crate::driver::{Driver, Errno, Lease, Segment};
use crate::limits::POOL_HEADROOM;

/// A receive result.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Bytes in a pool buffer.
    Lease(Lease),
    /// Bytes on the heap, after `POOL_HEADROOM` unused bytes.
    Copy(Box<[u8]>),
    /// The end of the stream.
    End,
    /// The connection failed.
    Failed(Errno),
}

/// Arrivals in order. None: the queue is empty.
#[derive(Default, Debug)]
pub(super) struct Incoming(Option<Box<Queue>>);

#[derive(Default, Debug)]
struct Queue {
    arrivals: VecDeque<Arrival>,
    heap_size: usize,
    /// The first arrival was partly consumed.
    has_rest: bool,
}

impl Incoming {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes held outside the pool.
    pub(super) fn heap_size(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.heap_size)
    }

    /// Appends an arrival.
    pub(super) fn push(&mut self, arrival: Arrival) {
        let queue = self.0.get_or_insert_default();
        queue.heap_size += cost(&arrival);
        queue.arrivals.push_back(arrival);
    }

    /// Puts the unconsumed rest of an arrival at the front.
    pub(super) fn put_back(&mut self, arrival: Arrival) {
        let queue = self.0.get_or_insert_default();
        queue.heap_size += cost(&arrival);
        queue.arrivals.push_front(arrival);
        queue.has_rest = true;
    }

    /// Whether the first arrival was partly consumed.
    pub(super) fn has_rest(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.has_rest)
    }

    /// Removes the first arrival.
    pub(super) fn take(&mut self) -> Option<Arrival> {
        let queue = self.0.as_mut()?;
        let arrival = queue.arrivals.pop_front()?;
        queue.heap_size -= cost(&arrival);
        queue.has_rest = false;
        if queue.arrivals.is_empty() {
            self.0 = None;
        }
        Some(arrival)
    }

    /// Drops all arrivals and releases their buffers.
    pub(super) fn clear<D: Driver>(&mut self, driver: &mut D) {
        for arrival in self.0.take().into_iter().flat_map(|queue| queue.arrivals) {
            if let Arrival::Lease(lease) = arrival {
                give_back(Segment::Pool(lease), driver);
            }
        }
    }

    /// Copies all arrivals to the heap and releases their buffers.
    pub(super) fn spill<D: Driver>(&mut self, driver: &mut D) {
        let Some(queue) = &mut self.0 else { return };
        for arrival in &mut queue.arrivals {
            let Arrival::Lease(lease) = arrival else { continue };
            let bytes = &driver.buffer(lease)[lease.range()];
            let copy = Arrival::Copy([&[0; POOL_HEADROOM], bytes].concat().into());
            queue.heap_size += cost(&copy);
            if let Arrival::Lease(lease) = std::mem::replace(arrival, copy) {
                give_back(Segment::Pool(lease), driver);
            }
        }
    }
}

fn cost(arrival: &Arrival) -> usize {
    match arrival {
        Arrival::Copy(bytes) => heap_cost(bytes.len()),
        Arrival::Lease(_) | Arrival::End | Arrival::Failed(_) => 0,
    }
}
