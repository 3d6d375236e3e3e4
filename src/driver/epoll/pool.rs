//! One share of the receive pool.

use nix::errno::Errno;

use crate::driver::mapping::Mapping;
use crate::driver::{Lease, Share};
use crate::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM};

/// A fixed number of buffers of a fixed size. The buffer that was returned last is lent first, so that few are ever
/// touched.
pub(super) struct BufferPool {
    share: Share,
    /// None: a thread has the memory.
    buffers: Vec<Option<Mapping>>,
    free: Vec<u16>,
}

impl BufferPool {
    /// A share of `buffers` buffers, all free.
    pub(super) fn new(share: Share, buffers: usize) -> Result<BufferPool, Errno> {
        let memory = (0..buffers).map(|_| Mapping::new(POOL_BUFFER_SIZE).map(Some));
        Ok(BufferPool { share, buffers: memory.collect::<Result<_, _>>()?, free: (0..buffers as u16).rev().collect() })
    }

    /// Takes a free buffer; None: all are lent. The lease is empty.
    pub(super) fn take(&mut self) -> Option<Lease> {
        let buffer = self.free.pop()?;
        Some(Lease { share: self.share, buffer, start: POOL_HEADROOM as u32, end: POOL_HEADROOM as u32 })
    }

    /// The whole buffer of a lease.
    pub(super) fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        self.buffers[lease.buffer as usize].as_deref_mut().unwrap_or_default()
    }

    /// The valid bytes of a lease.
    pub(super) fn bytes(&self, lease: &Lease) -> &[u8] {
        self.buffers[lease.buffer as usize].as_deref().map_or(&[], |memory| &memory[lease.range()])
    }

    /// Takes the memory of a lease out of the pool, for a thread.
    pub(super) fn lend_memory(&mut self, lease: &Lease) -> Option<Mapping> {
        self.buffers[lease.buffer as usize].take()
    }

    /// Puts the memory of a lease back.
    pub(super) fn return_memory(&mut self, lease: &Lease, memory: Mapping) {
        self.buffers[lease.buffer as usize] = Some(memory);
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
