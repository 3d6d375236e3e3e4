//! Queue of received data that is not yet delivered to the exchange.

use std::collections::VecDeque;

use super::header::Introduction;
use super::outgoing::{give_back, heap_cost};
use crate::driver::{Driver, Errno, Lease, Segment};
use crate::limits::POOL_HEADROOM;
use crate::tls::TlsFailure;

/// A receive result.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// What the connection of a trusted proxy begins with. It precedes all bytes.
    Header(Introduction),
    /// Bytes in a pool buffer.
    Lease(Lease),
    /// Bytes on the heap, after `POOL_HEADROOM` unused bytes.
    Copy(Box<[u8]>),
    /// The end of the stream.
    End,
    /// The connection failed.
    Failed(Errno),
    /// TLS failed, and its alert is queued.
    Broken(TlsFailure),
}

impl Arrival {
    /// Bytes, copied to the heap.
    pub(crate) fn copy(bytes: &[u8]) -> Arrival {
        Arrival::Copy([&[0; POOL_HEADROOM], bytes].concat().into())
    }
}

/// Arrivals in order.
#[derive(Default, Debug)]
pub(super) struct Incoming {
    arrivals: VecDeque<Arrival>,
    heap_size: usize,
    /// The first arrival was partly consumed.
    has_rest: bool,
}

impl Incoming {
    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Bytes held outside the pool.
    pub(super) fn heap_size(&self) -> usize {
        self.heap_size
    }

    /// Appends an arrival.
    pub(super) fn push(&mut self, arrival: Arrival) {
        self.heap_size += cost(&arrival);
        self.arrivals.push_back(arrival);
    }

    /// Puts the unconsumed rest of an arrival at the front.
    pub(super) fn put_back(&mut self, arrival: Arrival) {
        self.heap_size += cost(&arrival);
        self.arrivals.push_front(arrival);
        self.has_rest = true;
    }

    /// Whether the first arrival was partly consumed.
    pub(super) fn has_rest(&self) -> bool {
        self.has_rest
    }

    /// Whether the first arrival is a failure of TLS.
    pub(super) fn begins_with_failure(&self) -> bool {
        matches!(self.arrivals.front(), Some(Arrival::Broken(_)))
    }

    /// Removes the first arrival.
    pub(super) fn take(&mut self) -> Option<Arrival> {
        let arrival = self.arrivals.pop_front()?;
        self.heap_size -= cost(&arrival);
        self.has_rest = false;
        Some(arrival)
    }

    /// Drops all arrivals and releases their buffers.
    pub(super) fn clear<D: Driver>(&mut self, driver: &mut D) {
        for arrival in std::mem::take(self).arrivals {
            if let Arrival::Lease(lease) = arrival {
                give_back(Segment::Pool(lease), driver);
            }
        }
    }

    /// Copies all arrivals to the heap and releases their buffers.
    pub(super) fn spill<D: Driver>(&mut self, driver: &mut D) {
        for arrival in &mut self.arrivals {
            let Arrival::Lease(lease) = arrival else { continue };
            let copy = Arrival::copy(&driver.buffer(lease)[lease.range()]);
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
        Arrival::Header(_) | Arrival::Lease(_) | Arrival::End | Arrival::Failed(_) | Arrival::Broken(_) => 0,
    }
}
