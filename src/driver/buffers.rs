//! Bytes in transit: buffers lent from the receive pool, and batches of segments to send. This module has no memory
//! mapping and no ring.

use std::ops::Range;

use super::Driver;
use crate::limits::POOL_PARTS;

/// The two parts of the pool. Each part is a buffer group of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Messages of clients and backends.
    Messages,
    /// Requests and file bytes, so that a flood of messages does not prevent new clients from being read.
    Requests,
}

impl Share {
    /// Both shares.
    pub const ALL: [Share; 2] = [Share::Messages, Share::Requests];

    /// Number of buffers in this share of a pool of `buffers`.
    pub fn size(self, buffers: usize) -> usize {
        let requests = (buffers / POOL_PARTS).max(1);
        match self {
            Share::Messages => buffers.saturating_sub(requests),
            Share::Requests => requests,
        }
    }
}

/// A lent pool buffer and the range of its valid bytes. It has one owner, which passes it to a send or returns it to
/// the driver.
#[derive(Debug)]
pub struct Lease {
    /// The share that the buffer belongs to.
    pub share: Share,
    pub(super) buffer: u16,
    /// Offset of the first valid byte, from the start of the whole buffer.
    pub start: u32,
    /// Offset after the last valid byte.
    pub end: u32,
}

impl Lease {
    /// Where the valid bytes are in the buffer.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Number of valid bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether no byte is valid.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// A contiguous range of bytes to send.
#[derive(Debug)]
pub enum Segment {
    /// Bytes in a pool buffer.
    Pool(Lease),
    /// Bytes on the heap.
    Heap {
        /// The whole allocation.
        bytes: Box<[u8]>,
        /// Offset of the first unsent byte.
        start: usize,
    },
}

impl Segment {
    /// Appends the bytes to send to `out`.
    pub fn append_to<D: Driver>(&self, driver: &mut D, out: &mut Vec<u8>) {
        match self {
            Segment::Pool(lease) => out.extend_from_slice(&driver.buffer(lease)[lease.range()]),
            Segment::Heap { bytes, start } => out.extend_from_slice(&bytes[*start..]),
        }
    }

    /// A heap segment with all bytes unsent.
    pub fn heap(bytes: Box<[u8]>) -> Segment {
        Segment::Heap { bytes, start: 0 }
    }

    /// Number of unsent bytes.
    pub fn len(&self) -> usize {
        match self {
            Segment::Pool(lease) => lease.len(),
            Segment::Heap { bytes, start } => bytes.len() - start,
        }
    }

    /// Whether no byte is unsent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Skips the first `size` unsent bytes after they were sent.
    pub fn advance(&mut self, size: usize) {
        match self {
            Segment::Pool(lease) => lease.start += size as u32,
            Segment::Heap { start, .. } => *start += size,
        }
    }
}

/// Segments of one send. A single segment, the usual case, needs no allocation.
#[derive(Debug)]
pub struct Batch {
    /// The first segment.
    pub first: Segment,
    /// The further segments.
    pub rest: Vec<Segment>,
}

impl Batch {
    /// Total number of unsent bytes.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Segment::len).sum::<usize>()
    }

    /// Whether the batch has no unsent bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Consumes the batch and returns its segments in order.
    pub fn into_segments(self) -> impl Iterator<Item = Segment> {
        std::iter::once(self.first).chain(self.rest)
    }
}
