//! Send queue of a transport, with its size accounting.

use std::collections::VecDeque;

use super::stage::Stage;
use crate::driver::{Batch, Driver, Lease, Segment, Share};
use crate::limits::{
    ALLOCATION_EXTRA_SIZE, ALLOCATION_SIZE_MIN, POOL_BUFFER_SIZE, POOL_FREE_MIN, SEAL_SIZE_MAX, SEGMENT_SIZE,
};

/// Queued segments. The sizes include segments in flight. None: nothing is queued or in flight.
#[derive(Default, Debug)]
pub(super) struct Outgoing(Option<Box<Queue>>);

#[derive(Default, Debug)]
struct Queue {
    /// The first segment is inline: the usual case of one segment needs no further allocation.
    first: Option<Segment>,
    rest: VecDeque<Segment>,
    size: usize,
    heap_size: usize,
    /// The latest pong that was received while the queue was too long.
    pong: Option<Box<[u8]>>,
    /// Number of segments at the head of the queue that have passed the stage.
    sealed: usize,
}

impl Outgoing {
    /// Whether no segment is queued. Segments may still be in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.first.is_none())
    }

    /// Bytes queued or in flight.
    pub(super) fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.size)
    }

    /// Bytes queued or in flight that are outside the pool.
    pub(super) fn heap_size(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.heap_size)
    }

    /// Appends a segment.
    pub(super) fn push(&mut self, segment: Segment) {
        self.0.get_or_insert_default().push(segment);
    }

    /// Queues a segment that has passed the stage: after those that have, before all others.
    pub(super) fn push_sealed(&mut self, segment: Segment) {
        self.0.get_or_insert_default().push_sealed(segment);
    }

    /// Whether something is queued that has passed the stage.
    pub(super) fn has_sealed(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| queue.sealed > 0)
    }

    /// Whether nothing is queued and no pong is kept.
    pub(super) fn has_nothing(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.size == 0 && queue.pong.is_none())
    }

    /// Replaces the kept pong and returns the previous one.
    pub(super) fn set_pong(&mut self, frame: Option<Box<[u8]>>) -> Option<Box<[u8]>> {
        match (&mut self.0, frame) {
            (None, None) => None,
            (queue, frame) => std::mem::replace(&mut queue.get_or_insert_default().pong, frame),
        }
    }

    /// Removes the segments of one send, which have passed the stage. Their size remains counted until `settle` returns the
    /// batch. None: there are none, or the stage can take none now.
    pub(super) fn take_batch<D: Driver>(
        &mut self,
        segments_max: usize,
        stage: Option<&mut Stage>,
        driver: &mut D,
    ) -> Option<Batch> {
        let queue = self.0.as_mut()?;
        match stage.filter(|stage| !stage.is_clear()) {
            Some(stage) => queue.take_sealed(segments_max, stage, driver),
            None => {
                queue.sealed = 0;
                queue.take_batch(segments_max)
            }
        }
    }

    /// Returns a batch of which `taken` bytes were sent; None drops the whole batch. Unsent data returns to the head
    /// of the queue. True: unsent data remains.
    pub(super) fn settle<D: Driver>(
        &mut self,
        batch: Batch,
        taken: Option<usize>,
        is_sent: bool,
        driver: &mut D,
    ) -> bool {
        let queue = self.0.get_or_insert_default();
        let left = queue.settle(batch, taken, is_sent, driver);
        queue.sealed += left;
        self.forget_empty();
        left > 0
    }

    /// Releases the queued segments that have not passed the stage, and the kept pong.
    pub(super) fn drop_unsealed<D: Driver>(&mut self, driver: &mut D) {
        if let Some(queue) = &mut self.0 {
            queue.drop_unsealed(driver);
        }
        self.forget_empty();
    }

    /// Releases all queued segments and the kept pong.
    pub(super) fn clear<D: Driver>(&mut self, driver: &mut D) {
        if let Some(queue) = &mut self.0 {
            queue.clear(driver);
        }
        self.forget_empty();
    }

    /// If the pool is short, copies queued segments to the heap, so that a slow peer cannot starve the others.
    pub(super) fn spill<D: Driver>(&mut self, driver: &mut D) {
        if let Some(queue) = &mut self.0 {
            queue.spill(driver);
        }
    }

    /// If the last segment is in the pool and longer than `kept` bytes, copies its first `kept` bytes to the heap and
    /// drops the rest. Returns the number of bytes dropped.
    pub(super) fn drop_last<D: Driver>(&mut self, kept: usize, driver: &mut D) -> usize {
        self.0.as_mut().map_or(0, |queue| queue.drop_last(kept, driver))
    }

    fn forget_empty(&mut self) {
        if self.has_nothing() {
            self.0 = None;
        }
    }
}

impl Queue {
    fn push(&mut self, segment: Segment) {
        self.count(&segment);
        match &self.first {
            Some(_) => self.rest.push_back(segment),
            None => self.first = Some(segment),
        }
    }

    fn take_batch(&mut self, segments_max: usize) -> Option<Batch> {
        let first = self.first.take()?;
        let rest = self.rest.drain(..self.rest.len().min(segments_max - 1)).collect();
        self.first = self.rest.pop_front();
        Some(Batch { first, rest })
    }

    fn push_sealed(&mut self, segment: Segment) {
        self.count(&segment);
        match self.sealed.checked_sub(1) {
            Some(index) => self.rest.insert(index, segment),
            None => self.put_first(segment),
        }
        self.sealed += 1;
    }

    fn put_first(&mut self, segment: Segment) {
        if let Some(second) = self.first.replace(segment) {
            self.rest.push_front(second);
        }
    }

    /// As `take_batch`, past the stage: the segments that have passed it, then one segment of what has not.
    fn take_sealed<D: Driver>(&mut self, segments_max: usize, stage: &mut Stage, driver: &mut D) -> Option<Batch> {
        if self.sealed == 0 {
            return self.seal_next(stage, driver).map(|first| Batch { first, rest: Vec::new() });
        }
        let ready = self.sealed.min(segments_max);
        self.sealed -= ready;
        let mut batch = self.take_batch(ready)?;
        if ready < segments_max {
            batch.rest.extend(self.seal_next(stage, driver));
        }
        Some(batch)
    }

    /// Passes the first segment through the stage, joined with those that follow. None: there is none, or the stage
    /// cannot take it.
    fn seal_next<D: Driver>(&mut self, stage: &mut Stage, driver: &mut D) -> Option<Segment> {
        let first = if stage.may_seal() { self.take_first()? } else { return None };
        self.discount(&first);
        let sealed = if self.may_join(first.len()) {
            let mut bytes = Vec::new();
            let mut next = Some(first);
            while let Some(segment) = next {
                segment.append_to(driver, &mut bytes);
                give_back(segment, driver);
                next = if self.may_join(bytes.len()) { self.take_first() } else { None };
                next.iter().for_each(|segment| self.discount(segment));
            }
            stage.seal(&bytes).map(Segment::heap)
        } else {
            seal_one(first, stage, driver)
        };
        let Some(sealed) = sealed else {
            self.clear(driver);
            return None;
        };
        self.count(&sealed);
        Some(sealed)
    }

    /// Whether the first segment may be joined with `size` bytes before it.
    fn may_join(&self, size: usize) -> bool {
        self.first.as_ref().is_some_and(|next| size + next.len() <= SEAL_SIZE_MAX)
    }

    fn take_first(&mut self) -> Option<Segment> {
        std::mem::replace(&mut self.first, self.rest.pop_front())
    }

    fn release<D: Driver>(&mut self, segment: Segment, driver: &mut D) {
        self.discount(&segment);
        give_back(segment, driver);
    }

    /// Returns the number of segments that are left.
    fn settle<D: Driver>(&mut self, batch: Batch, taken: Option<usize>, is_sent: bool, driver: &mut D) -> usize {
        let mut left = Vec::new();
        let (mut taken, is_dropped) = (taken.unwrap_or(0), taken.is_none());
        for mut segment in batch.into_segments() {
            let size = segment.len();
            self.discount(&segment);
            // An empty packet counts as sent when its send has succeeded; its size does not reduce `taken`.
            if is_dropped || (is_sent && size <= taken && left.is_empty()) {
                taken -= size.min(taken);
                give_back(segment, driver);
            } else {
                segment.advance(taken);
                self.count(&segment);
                taken = 0;
                left.push(segment);
            }
        }
        let count = left.len();
        left.into_iter().rev().for_each(|segment| self.put_first(segment));
        count
    }

    fn drop_unsealed<D: Driver>(&mut self, driver: &mut D) {
        self.pong = None;
        while usize::from(self.first.is_some()) + self.rest.len() > self.sealed
            && let Some(segment) = self.rest.pop_back().or_else(|| self.first.take())
        {
            self.release(segment, driver);
        }
    }

    fn clear<D: Driver>(&mut self, driver: &mut D) {
        (self.pong, self.sealed) = (None, 0);
        for segment in self.first.take().into_iter().chain(std::mem::take(&mut self.rest)) {
            self.release(segment, driver);
        }
    }

    fn spill<D: Driver>(&mut self, driver: &mut D) {
        for segment in self.first.iter_mut().chain(&mut self.rest) {
            if let Segment::Pool(lease) = segment
                && is_short(driver, lease.share)
            {
                let bytes = driver.buffer(lease)[lease.range()].into();
                let copy = Segment::heap(bytes);
                self.heap_size += cost_outside(&copy);
                give_back(std::mem::replace(segment, copy), driver);
            }
        }
    }

    fn drop_last<D: Driver>(&mut self, kept: usize, driver: &mut D) -> usize {
        let Some(segment) = self.rest.pop_back().or_else(|| self.first.take()) else { return 0 };
        self.discount(&segment);
        let (segment, dropped) = match segment {
            Segment::Pool(lease) if lease.len() > kept => {
                let start = lease.start as usize;
                let copy = Segment::heap(driver.buffer(&lease)[start..start + kept].into());
                let dropped = lease.len() - kept;
                driver.release(lease);
                (copy, dropped)
            }
            segment => (segment, 0),
        };
        self.push(segment);
        dropped
    }

    fn count(&mut self, segment: &Segment) {
        self.size += cost(segment);
        self.heap_size += cost_outside(segment);
    }

    fn discount(&mut self, segment: &Segment) {
        self.size -= cost(segment);
        self.heap_size -= cost_outside(segment);
    }
}

/// Passes a segment through the stage. None: nothing can be sent any more.
fn seal_one<D: Driver>(segment: Segment, stage: &mut Stage, driver: &mut D) -> Option<Segment> {
    let segment = match segment {
        Segment::Pool(lease) => match stage.seal_in_place(lease, driver) {
            Ok(sealed) => return sealed.map(Segment::Pool),
            Err(lease) => Segment::Pool(lease),
        },
        heap => heap,
    };
    let sealed = match &segment {
        Segment::Pool(lease) => stage.seal(&driver.buffer(lease)[lease.range()]),
        Segment::Heap { bytes, start } => stage.seal(&bytes[*start..]),
    };
    give_back(segment, driver);
    sealed.map(Segment::heap)
}

/// Whether the free buffers of a share are so few that a peer that does not receive may hold none.
pub(crate) fn is_short<D: Driver>(driver: &D, share: Share) -> bool {
    driver.buffers_free(share) < (driver.buffers(share) / 2).max(POOL_FREE_MIN)
}

/// Heap bytes of a queued segment with a payload of `size` bytes.
pub(crate) fn heap_cost(size: usize) -> usize {
    SEGMENT_SIZE + (size + ALLOCATION_EXTRA_SIZE).max(ALLOCATION_SIZE_MIN)
}

fn cost(segment: &Segment) -> usize {
    SEGMENT_SIZE + segment.len()
}

/// A partly sent heap segment still occupies its whole allocation.
fn cost_outside(segment: &Segment) -> usize {
    match segment {
        Segment::Pool(_) => 0,
        Segment::Heap { bytes, .. } => heap_cost(bytes.len()),
    }
}

/// Releases the pool buffer of a segment, if it has one.
pub(crate) fn give_back<D: Driver>(segment: Segment, driver: &mut D) {
    if let Segment::Pool(lease) = segment {
        driver.release(lease);
    }
}

/// The range of a lease to send, as a segment.
pub(crate) fn part_of(mut lease: Lease, range: std::ops::Range<usize>) -> Segment {
    debug_assert!(range.start <= range.end && range.end <= POOL_BUFFER_SIZE);
    (lease.start, lease.end) = (range.start as u32, range.end as u32);
    Segment::Pool(lease)
}
