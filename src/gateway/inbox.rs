//! Received data that is not handed to the exchange yet, in order.

use std::collections::VecDeque;

use super::queue::{give_back, heap_cost};
use crate::driver::{Driver, Errno, Lease, Segment};
use crate::limits::POOL_HEADROOM;

/// Something that came from a peer.
#[derive(Debug)]
pub enum Arrival {
    /// Bytes in a buffer of the pool.
    Lease(Lease),
    /// Bytes on the heap, after `POOL_HEADROOM` unused bytes.
    Copy(Box<[u8]>),
    /// The end of the stream.
    End,
    /// The connection broke.
    Failed(Errno),
}

/// Arrivals in order.
#[derive(Default, Debug)]
pub struct Inbox {
    arrivals: VecDeque<Arrival>,
    heap_size: usize,
    /// The first arrival is the rest of one.
    has_rest: bool,
}

impl Inbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Bytes that it holds outside the pool.
    pub fn heap_size(&self) -> usize {
        self.heap_size
    }

    /// Adds what came last.
    pub fn push(&mut self, arrival: Arrival) {
        self.heap_size += cost(&arrival);
        self.arrivals.push_back(arrival);
    }

    /// Puts back the rest of an arrival that the exchange took in part.
    pub fn put_back(&mut self, arrival: Arrival) {
        self.heap_size += cost(&arrival);
        self.arrivals.push_front(arrival);
        self.has_rest = true;
    }

    /// Whether the first arrival is the rest of one.
    pub fn has_rest(&self) -> bool {
        self.has_rest
    }

    /// Takes out what came first.
    pub fn take(&mut self) -> Option<Arrival> {
        let arrival = self.arrivals.pop_front()?;
        self.heap_size -= cost(&arrival);
        self.has_rest = false;
        if self.arrivals.is_empty() {
            self.arrivals = VecDeque::new();
        }
        Some(arrival)
    }

    /// Drops everything.
    pub fn clear<D: Driver>(&mut self, driver: &mut D) {
        for arrival in std::mem::take(&mut self.arrivals) {
            if let Arrival::Lease(lease) = arrival {
                give_back(Segment::Pool(lease), driver);
            }
        }
        (self.heap_size, self.has_rest) = (0, false);
    }

    /// Copies everything to the heap and releases the buffers.
    pub fn spill<D: Driver>(&mut self, driver: &mut D) {
        for arrival in &mut self.arrivals {
            let Arrival::Lease(lease) = arrival else { continue };
            let bytes = &driver.buffer(lease)[lease.start as usize..lease.end as usize];
            let copy = Arrival::Copy([&[0; POOL_HEADROOM], bytes].concat().into());
            self.heap_size += cost(&copy);
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
