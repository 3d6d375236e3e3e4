//! Bytes on their way: buffers lent from the receive pool, and batches of segments to send. No memory and no ring.

use crate::limits::POOL_PARTS;

/// The two parts of the pool. Each is a buffer group of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// For messages of clients and servers.
    Messages,
    /// For requests and the bytes of pages, so that no flood of messages keeps a newcomer from being read.
    Requests,
}

impl Share {
    /// Both.
    pub const ALL: [Share; 2] = [Share::Messages, Share::Requests];

    /// How many of all buffers are in this part.
    pub fn size(self, buffers: usize) -> usize {
        let requests = (buffers / POOL_PARTS).max(1);
        match self {
            Share::Messages => buffers.saturating_sub(requests),
            Share::Requests => requests,
        }
    }
}

/// A pool buffer on loan and which of its bytes count. It has one owner, who gives it to a send or back to
/// the driver.
#[derive(Debug)]
pub struct Lease {
    /// Which part of the pool it is from.
    pub share: Share,
    pub(super) buffer: u16,
    /// The first byte that counts, from the start of the whole buffer.
    pub start: u32,
    /// Behind the last byte that counts.
    pub end: u32,
}

impl Lease {
    /// How many bytes count.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether none counts.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Bytes to send, in one piece.
#[derive(Debug)]
pub enum Segment {
    /// In a pool buffer.
    Pool(Lease),
    /// On the heap, from `start` on.
    Heap {
        /// All the bytes.
        bytes: Box<[u8]>,
        /// The first that is still to be sent.
        start: usize,
    },
}

impl Segment {
    /// A heap segment, none of it sent yet.
    pub fn heap(bytes: Box<[u8]>) -> Segment {
        Segment::Heap { bytes, start: 0 }
    }

    /// How many bytes are to be sent.
    pub fn len(&self) -> usize {
        match self {
            Segment::Pool(lease) => lease.len(),
            Segment::Heap { bytes, start } => bytes.len() - start,
        }
    }

    /// Whether nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `size` bytes, which were sent.
    pub fn advance(&mut self, size: usize) {
        match self {
            Segment::Pool(lease) => lease.start += size as u32,
            Segment::Heap { start, .. } => *start += size,
        }
    }
}

/// Segments that go out in one send. A single one, the usual case, costs no allocation.
#[derive(Debug)]
pub struct Batch {
    /// The first segment.
    pub first: Segment,
    /// Those behind it.
    pub rest: Vec<Segment>,
}

impl Batch {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Segment::len).sum::<usize>()
    }

    /// Whether there are no bytes in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segments in order, taken out.
    pub fn into_segments(self) -> impl Iterator<Item = Segment> {
        std::iter::once(self.first).chain(self.rest)
    }
}
