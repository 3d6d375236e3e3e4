//! The receive pool: provided buffers that the ring fills.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, opcode, squeue};

use crate::driver::mapping::Mapping;
use crate::driver::{Lease, Share};
use crate::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM};

/// How buffers are provided to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Supply {
    /// Through a shared buffer ring (io_uring_register_buf_ring(3)).
    Ring,
    /// Through one operation per buffer (io_uring_prep_provide_buffers(3)).
    Operations,
}

impl Supply {
    /// The method for this target. A 32-bit kernel may place the shared memory where it has no kernel address: 6.1 then
    /// crashes with a null pointer at the first receive, other versions reject such a ring.
    pub(super) const HERE: Supply = if cfg!(target_pointer_width = "32") { Supply::Operations } else { Supply::Ring };
}

/// Bit in a buffer ID: the buffer belongs to `Share::Requests`.
const REQUESTS_BIT: u16 = 0x8000;

/// The share and the index of a buffer ID.
pub(super) fn buffer_of(number: u16) -> (Share, u16) {
    let share = if number & REQUESTS_BIT == 0 { Share::Messages } else { Share::Requests };
    (share, number & !REQUESTS_BIT)
}

/// One share of the receive pool: a fixed number of buffers of a fixed size. Their memory is allocated on first use.
pub(super) struct Pool {
    memory: Mapping,
    /// The shared buffer ring; None: buffers are provided through operations.
    ring: Option<Mapping>,
    share: Share,
    /// Number of buffers.
    buffers: u16,
    tail: u16,
    lent: usize,
    /// File reads in flight: each takes its buffer when it is submitted.
    pub(super) reads: usize,
}

fn memory_size(buffers: u16) -> usize {
    buffers as usize * POOL_BUFFER_SIZE
}

/// Entries of the buffer ring: the number of buffers, rounded up to a power of two.
fn ring_entries(buffers: u16) -> u16 {
    buffers.next_power_of_two()
}

fn ring_size(buffers: u16) -> usize {
    ring_entries(buffers) as usize * size_of::<BufRingEntry>()
}

impl Pool {
    /// Maps a share of `buffers` buffers. They are to be provided as the buffer group with the share's number.
    pub(super) fn new(
        submitter: &Submitter<'_>,
        supply: Supply,
        share: Share,
        buffers: u16,
    ) -> Result<Pool, std::io::Error> {
        let memory = Mapping::new(memory_size(buffers))?;
        let mut pool = Pool { memory, ring: None, share, buffers, tail: 0, lent: buffers as usize, reads: 0 };
        if supply == Supply::Ring {
            let ring = Mapping::new(ring_size(buffers))?;
            let start = ring.start().as_ptr() as u64;
            pool.ring = Some(ring);
            // SAFETY: the ring's memory is page-aligned, of the right size, and lives until the pool is dropped,
            // which is after the operations that use it have ended (`Uring`'s drop).
            unsafe { submitter.register_buf_ring_with_flags(start, ring_entries(buffers), share as u16, 0) }?;
        }
        Ok(pool)
    }

    /// The lease of a buffer that the kernel has filled with `size` bytes.
    pub(super) fn lend(&mut self, buffer: u16, size: usize) -> Lease {
        self.lent += 1;
        Lease { share: self.share, buffer, start: POOL_HEADROOM as u32, end: (POOL_HEADROOM + size) as u32 }
    }

    /// Pointer to the valid bytes of a lease, for the kernel to read.
    pub(super) fn bytes(&self, lease: &Lease) -> *const u8 {
        self.at(lease.buffer, lease.start as usize).as_ptr()
    }

    /// The whole buffer of a lease.
    pub(super) fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        let start = self.at(lease.buffer, 0);
        // SAFETY: the lease is the only owner of this buffer while it is lent: the kernel has returned the buffer, and
        // no send holds it, since a send owns its lease.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), POOL_BUFFER_SIZE) }
    }

    /// Returns a buffer to the kernel, as `provide`.
    pub(super) fn release(&mut self, lease: Lease) -> Option<squeue::Entry> {
        self.provide(lease.buffer)
    }

    /// Number of buffers.
    pub(super) fn size(&self) -> usize {
        self.buffers as usize
    }

    /// The buffer ID of a buffer.
    fn number(&self, buffer: u16) -> u16 {
        match self.share {
            Share::Messages => buffer,
            Share::Requests => buffer | REQUESTS_BIT,
        }
    }

    /// Number of buffers that the kernel holds, without those reserved for file reads in flight.
    pub(super) fn free(&self) -> usize {
        (self.buffers as usize).saturating_sub(self.lent + self.reads)
    }

    fn at(&self, buffer: u16, offset: usize) -> NonNull<u8> {
        debug_assert!(buffer < self.buffers && offset <= POOL_BUFFER_SIZE);
        // SAFETY: the buffer's number is below `buffers`, so the place lies within the mapping.
        unsafe { self.memory.start().add(buffer as usize * POOL_BUFFER_SIZE + offset) }
    }

    /// Provides a buffer to the kernel: at once, or, if an entry is returned, when the entry is submitted.
    pub(super) fn provide(&mut self, buffer: u16) -> Option<squeue::Entry> {
        self.lent -= 1;
        let (address, size) = (self.at(buffer, POOL_HEADROOM).as_ptr(), POOL_BUFFER_SIZE - POOL_HEADROOM);
        let Some(ring) = self.ring.as_ref().map(|ring| ring.start().cast::<BufRingEntry>()) else {
            let provide = opcode::ProvideBuffers::new(address, size as i32, 1, self.share as u16, self.number(buffer));
            return Some(provide.build().flags(squeue::Flags::SKIP_SUCCESS));
        };
        let index = (self.tail & (ring_entries(self.buffers) - 1)) as usize;
        // SAFETY: the index is below the ring's length.
        let mut entry = unsafe { ring.add(index) };
        // SAFETY: the kernel reads an entry only below the tail, and this one is at the tail.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address as u64);
        entry.set_len(size as u32);
        entry.set_bid(self.number(buffer));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's base is its first entry, mapped and initialised.
        let tail = unsafe { BufRingEntry::tail(ring.as_ptr()) };
        // SAFETY: the tail is a u16 that only this thread writes and the kernel reads atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        None
    }
}

/// A raw descriptor for a submission entry: the only place where a descriptor is neither owned nor borrowed.
pub(super) fn raw(fd: &impl std::os::fd::AsRawFd) -> io_uring::types::Fd {
    let raw: RawFd = fd.as_raw_fd();
    io_uring::types::Fd(raw)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use io_uring::{IoUring, cqueue, opcode};

    use super::*;

    fn submit(ring: &mut IoUring, entry: &squeue::Entry) {
        // SAFETY: the pool outlives the ring's operations.
        unsafe { ring.submission().push(entry) }.unwrap();
    }

    /// More receives than buffers: each buffer is returned. Three buffers do not fill their ring, which has four
    /// entries.
    #[test]
    fn buffers_come_round() {
        let supplies = [Supply::Ring, Supply::Operations];
        for (supply, share) in supplies.into_iter().flat_map(|supply| Share::ALL.map(|share| (supply, share))) {
            let mut ring = IoUring::new(8).unwrap();
            let mut pool = Pool::new(&ring.submitter(), supply, share, 3).unwrap();
            let (mut near, far) = UnixStream::pair().unwrap();
            assert_eq!(pool.free(), 0);
            let given: Vec<squeue::Entry> = (0..3).filter_map(|buffer| pool.provide(buffer)).collect();
            given.iter().for_each(|entry| submit(&mut ring, entry));
            assert_eq!((pool.free(), given.len()), (3, if supply == Supply::Ring { 0 } else { 3 }));
            for turn in 0..9 {
                near.write_all(&[turn; 3]).unwrap();
                let receive = opcode::Recv::new(raw(&far), std::ptr::null_mut(), 100).buf_group(share as u16).build();
                submit(&mut ring, &receive.flags(squeue::Flags::BUFFER_SELECT).user_data(1));
                ring.submit_and_wait(1).unwrap();
                let entry = ring.completion().next().unwrap();
                assert_eq!((entry.user_data(), entry.result()), (1, 3), "{supply:?} {turn}");
                let (from, buffer) = buffer_of(cqueue::buffer_select(entry.flags()).unwrap());
                assert_eq!(from, share);
                let lease = pool.lend(buffer, 3);
                assert_eq!(pool.buffer(&lease)[lease.start as usize..lease.end as usize], [turn; 3]);
                assert_eq!(pool.free(), 2);
                if let Some(entry) = pool.release(lease) {
                    submit(&mut ring, &entry);
                }
            }
        }
    }
}
