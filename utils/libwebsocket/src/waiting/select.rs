//! select(2) and pselect(2).

use std::ffi::{c_int, c_ulong};
use std::os::fd::RawFd;
use std::ptr::{null, null_mut};

use nix::libc::{self, fd_set, sigset_t, timespec};

use super::{Timeout, Verdict, duration, judge};
use crate::real;
use crate::table;

/// The caller's set, which may be longer than an `fd_set`: as many words as the count needs.
pub(crate) struct Set<'a>(Option<&'a mut [c_ulong]>);

/// Limits the count to the size of the kernel's descriptor table, as the kernel does. Some servers pass
/// getdtablesize(3) with sets of only `FD_SETSIZE` bits.
pub(crate) fn looked_at(count: c_int) -> c_int {
    if count <= libc::FD_SETSIZE as c_int {
        return count;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok());
    count.min(size.unwrap_or(libc::FD_SETSIZE as c_int))
}

const WORD_BITS: usize = c_ulong::BITS as usize;

impl<'a> Set<'a> {
    /// The set at this address, for numbers below `count`.
    ///
    /// # Safety
    /// It is null, or has at least `count` bits.
    pub(crate) unsafe fn new(set: *mut fd_set, count: c_int) -> Set<'a> {
        let size = usize::try_from(count).unwrap_or(0).div_ceil(WORD_BITS);
        // SAFETY: as promised.
        Set((!set.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(set.cast(), size) }))
    }

    fn words(&self) -> &[c_ulong] {
        self.0.as_deref().unwrap_or_default()
    }

    fn pointer(&mut self) -> *mut fd_set {
        self.0.as_mut().map_or(null_mut(), |words| words.as_mut_ptr().cast())
    }

    fn numbers(&self) -> impl Iterator<Item = RawFd> {
        let words = self.words().iter().enumerate();
        words.flat_map(|(index, word)| {
            let bits = (0..WORD_BITS).filter(move |bit| word >> bit & 1 != 0);
            bits.map(move |bit| (index * WORD_BITS + bit) as RawFd)
        })
    }

    fn remove(&mut self, number: RawFd) {
        if let Some(words) = &mut self.0 {
            words[number as usize / WORD_BITS] &= !(1 << (number as usize % WORD_BITS));
        }
    }

    fn put_back(&mut self, words: &[c_ulong]) {
        if let Some(own) = &mut self.0 {
            own.copy_from_slice(words);
        }
    }
}

fn is_silent(number: RawFd) -> bool {
    matches!(judge(number, false), Verdict::Silent | Verdict::Replaced(false))
}

/// The arguments of a call.
pub(crate) struct Sets<'a> {
    /// The sets have numbers below this.
    pub(crate) count: c_int,
    pub(crate) reads: Set<'a>,
    pub(crate) writes: Set<'a>,
    pub(crate) exceptions: Set<'a>,
}

impl Sets<'_> {
    /// Whether the read set has a client.
    pub(crate) fn have_client(&self) -> bool {
        self.reads.numbers().any(|number| table::client(number).is_some())
    }

    /// pselect(2); select(2) if `signals` is null. Also returns the time left.
    pub(crate) fn wait(&mut self, time: Option<&timespec>, signals: *const sigset_t) -> (c_int, Option<timespec>) {
        let timeout = Timeout::new(time.map(duration));
        let asked = [&self.reads, &self.writes, &self.exceptions].map(|set| set.words().to_vec());
        loop {
            let left = timeout.left_timespec();
            let left = left.as_ref().map_or(null(), std::ptr::from_ref);
            let (reads, writes, exceptions) = (self.reads.pointer(), self.writes.pointer(), self.exceptions.pointer());
            // SAFETY: the sets have `count` bits, the time lives through the call; signals come from the caller.
            let count = unsafe { real::pselect(self.count, reads, writes, exceptions, left, signals) };
            if count <= 0 {
                return (count, timeout.left_timespec());
            }
            let silent: Vec<RawFd> = self.reads.numbers().filter(|number| is_silent(*number)).collect();
            silent.iter().for_each(|number| self.reads.remove(*number));
            let count = count - silent.len() as c_int;
            if count > 0 || timeout.is_over() {
                return (count, timeout.left_timespec());
            }
            for (set, words) in [&mut self.reads, &mut self.writes, &mut self.exceptions].into_iter().zip(&asked) {
                set.put_back(words);
            }
        }
    }
}
