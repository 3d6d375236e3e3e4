//! One share of the receive pool.

use crate::driver::{Lease, Share};
use crate::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM};

/// A fixed number of buffers of a fixed size. The memory of a buffer is allocated when it is first lent, and the buffer
/// that was returned last is lent first, so that few are ever touched.
pub(super) struct Pool {
    share: Share,
    buffers: Vec<Box<[u8]>>,
    free: Vec<u16>,
}

impl Pool {
    /// A share of `buffers` buffers, all free.
    pub(super) fn new(share: Share, buffers: usize) -> Pool {
        Pool { share, buffers: vec![Box::default(); buffers], free: (0..buffers as u16).rev().collect() }
    }

    /// Takes a free buffer; None: all are lent. The lease is empty.
    pub(super) fn take(&mut self) -> Option<Lease> {
        let buffer = self.free.pop()?;
        let memory = &mut self.buffers[buffer as usize];
        if memory.is_empty() {
            *memory = vec![0; POOL_BUFFER_SIZE].into();
        }
        Some(Lease { share: self.share, buffer, start: POOL_HEADROOM as u32, end: POOL_HEADROOM as u32 })
    }

    /// The whole buffer of a lease.
    pub(super) fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        &mut self.buffers[lease.buffer as usize]
    }

    /// The valid bytes of a lease.
    pub(super) fn bytes(&self, lease: &Lease) -> &[u8] {
        &self.buffers[lease.buffer as usize][lease.range()]
    }

    /// Takes the memory of a lease out of the pool, for a thread.
    pub(super) fn lend_memory(&mut self, lease: &Lease) -> Box<[u8]> {
        std::mem::take(&mut self.buffers[lease.buffer as usize])
    }

    /// Puts the memory of a lease back.
    pub(super) fn return_memory(&mut self, lease: &Lease, memory: Box<[u8]>) {
        self.buffers[lease.buffer as usize] = memory;
    }

    /// Returns a buffer.
    pub(super) fn release(&mut self, lease: Lease) {
        debug_assert!(!self.free.contains(&lease.buffer), "a buffer was returned twice");
        self.free.push(lease.buffer);
    }

    /// Number of buffers.
    pub(super) fn size(&self) -> usize {
        self.buffers.len()
    }

    /// Number of buffers that are not lent.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }
}
