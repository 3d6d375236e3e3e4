//! Buffers for multishot receives, lent to the kernel in a provided-buffer ring.

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use uakari_bench::Result;

/// The size of one buffer.
pub const BUFFER_SIZE: usize = 64 * 1024;

/// A group of buffers. It is never freed: the kernel may write to it until the process ends.
pub struct Buffers {
    group: u16,
    count: u16,
    tail: u16,
    entries: NonNull<BufRingEntry>,
    storage: NonNull<u8>,
}

impl Buffers {
    /// Maps `count` (a power of two) buffers and lends them all to `ring` as group `group`.
    pub fn lend(ring: &IoUring, group: u16, count: u16) -> Result<Buffers> {
        let entries_size = usize::from(count) * size_of::<BufRingEntry>();
        let mut buffers = Buffers {
            group,
            count,
            tail: 0,
            entries: map(entries_size)?.cast(),
            storage: map(usize::from(count) * BUFFER_SIZE)?,
        };
        let address = buffers.entries.as_ptr() as u64;
        // SAFETY: `entries` is page-aligned, has room for `count` entries, is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, group, 0) }?;
        (0..count).for_each(|buffer| buffers.give_back(buffer));
        Ok(buffers)
    }

    /// The number of the group, used in receive operations.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// The address of `offset` in this buffer. The buffer must not be lent to the kernel.
    pub fn address(&self, buffer: u16, offset: u32) -> *const u8 {
        let at = usize::from(buffer) * BUFFER_SIZE + offset as usize;
        assert!(buffer < self.count && offset as usize <= BUFFER_SIZE);
        // SAFETY: asserted just now to be within the mapping.
        unsafe { self.storage.as_ptr().add(at) }
    }

    /// Lends the buffer to the kernel again.
    pub fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer, 0) as u64;
        let slot = usize::from(self.tail % self.count);
        // SAFETY: `slot` is below `count`, the number of entries mapped.
        let entry = unsafe { self.entries.as_ptr().add(slot) };
        // SAFETY: in the mapping and aligned; the kernel reads an entry only below the tail,
        // which is moved after this, and we hold no other reference.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.publish();
    }

    fn publish(&self) {
        // SAFETY: `entries` is the base of the ring; mapped memory is initialized to zero.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: aligned, mapped for ever, and only ever written by atomic stores.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed, page-aligned memory; pages are allocated at first use.
fn map(size: usize) -> Result<NonNull<u8>> {
    let size = NonZeroUsize::new(size).ok_or("no buffers")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let memory = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE) }?;
    Ok(memory.cast())
}
