//! A futex lock that works in signal handlers and after fork(2).
//!
//! A mutex of the standard library knows neither its owner nor fork(2). With this lock, a signal handler that
//! interrupts the owner gets EAGAIN instead of a deadlock, and in the child of a fork a lock that another thread held
//! is lost: its value is never used again.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::ptr::null;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;

use crate::limits::LOCK_LOOK_MS;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and another thread may be waiting.
const AWAITED: u32 = 2;
/// Held by a thread that is not in this process.
const LOST: u32 = 3;

/// A value that one thread at a time can use.
pub(crate) struct Lock<T> {
    state: AtomicU32,
    /// pthread_self(3) of the owner; 0: none.
    owner: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only accessed through a guard, and at most one guard exists at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Access to the locked value. Dropping it unlocks.
pub(crate) struct Guard<'a, T>(&'a Lock<T>);

fn this_thread() -> usize {
    // SAFETY: it takes nothing and cannot fail.
    let thread = unsafe { libc::pthread_self() };
    thread as usize
}

impl<T> Lock<T> {
    /// An unlocked lock.
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock { state: AtomicU32::new(FREE), owner: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    /// Locks it if it is free.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(self.own())
    }

    /// Waits for the lock. EAGAIN: the caller is a signal handler that interrupted the owner. EIO: lost in a fork.
    pub(crate) fn lock(&self) -> Result<Guard<'_, T>, Errno> {
        self.acquire(None)
    }

    /// Like `lock`, but waits only while `may_wait`; then the result is EAGAIN.
    pub(crate) fn lock_while(&self, may_wait: impl Fn() -> bool) -> Result<Guard<'_, T>, Errno> {
        self.acquire(Some(&may_wait))
    }

    fn acquire(&self, may_wait: Option<&dyn Fn() -> bool>) -> Result<Guard<'_, T>, Errno> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        if self.owner.load(Ordering::Relaxed) == this_thread() {
            return Err(Errno::EAGAIN);
        }
        loop {
            match self.state.load(Ordering::Relaxed) {
                LOST => return Err(Errno::EIO),
                // Others may be waiting too, so the next unlock must wake one.
                FREE => {
                    if self.state.compare_exchange(FREE, AWAITED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                        return Ok(self.own());
                    }
                }
                _ if may_wait.is_some_and(|may_wait| !may_wait()) => return Err(Errno::EAGAIN),
                HELD => drop(self.state.compare_exchange(HELD, AWAITED, Ordering::Relaxed, Ordering::Relaxed)),
                _ => self.wait(may_wait.is_some()),
            }
        }
    }

    /// In the child of a fork: marks a held lock as lost, since its owner does not exist here.
    pub(crate) fn lose(&self) {
        if self.state.load(Ordering::Relaxed) != FREE {
            self.state.store(LOST, Ordering::Relaxed);
        }
    }

    fn own(&self) -> Guard<'_, T> {
        self.owner.store(this_thread(), Ordering::Relaxed);
        Guard(self)
    }

    /// Leaves it locked without a guard, until `unlock_kept`.
    pub(crate) fn keep(guard: Guard<'_, T>) {
        let _kept = std::mem::ManuallyDrop::new(guard);
    }

    /// Unlocks it if this thread has locked it with `keep`.
    pub(crate) fn unlock_kept(&self) {
        if self.state.load(Ordering::Relaxed) != FREE && self.owner.load(Ordering::Relaxed) == this_thread() {
            drop(Guard(self));
        }
    }

    /// Waits for FUTEX_WAKE, a signal or, if `is_short`, `LOCK_LOOK_MS`.
    fn wait(&self, is_short: bool) {
        let command = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let time = libc::timespec { tv_sec: 0, tv_nsec: LOCK_LOOK_MS * 1_000_000 };
        let time = if is_short { &raw const time } else { null() };
        // SAFETY: the futex word lives as long as the lock, the time until the end of the call.
        unsafe { libc::syscall(libc::SYS_futex, self.state.as_ptr(), command, AWAITED, time) };
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: at most one guard exists.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: at most one guard exists, and it is mutably borrowed.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.owner.store(0, Ordering::Relaxed);
        if self.0.state.swap(FREE, Ordering::Release) == AWAITED {
            let command = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the futex word lives as long as the lock.
            unsafe { libc::syscall(libc::SYS_futex, self.0.state.as_ptr(), command, 1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn one_at_a_time() {
        let count = Arc::new(Lock::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let count = Arc::clone(&count);
                thread::spawn(move || (0..20_000).for_each(|_| *count.lock().unwrap() += 1))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*count.lock().unwrap(), 80_000);
    }

    #[test]
    fn an_owner_is_waited_for_while_that_is_wanted() {
        let (lock, is_short) = (Lock::new(()), std::sync::atomic::AtomicBool::new(true));
        let guard = lock.lock().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| lock.lock_while(|| is_short.load(Ordering::Relaxed)).err());
            is_short.store(false, Ordering::Relaxed);
            assert_eq!(waiting.join().unwrap(), Some(Errno::EAGAIN));
        });
        drop(guard);
        assert!(lock.lock_while(|| false).is_ok(), "it is free");
        Lock::keep(lock.lock().unwrap());
        assert!(lock.try_lock().is_none());
        thread::scope(|scope| scope.spawn(|| lock.unlock_kept()).join().unwrap());
        assert!(lock.try_lock().is_none(), "another thread's");
        lock.unlock_kept();
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn its_owner_is_told_and_the_lost_stays_lost() {
        let lock = Lock::new(());
        let guard = lock.lock().unwrap();
        assert_eq!(lock.lock().err(), Some(Errno::EAGAIN));
        assert!(lock.try_lock().is_none());
        drop(guard);
        lock.lose();
        let guard = lock.lock().unwrap();
        lock.lose();
        let errno = thread::scope(|scope| scope.spawn(|| lock.lock().err()).join().unwrap());
        assert_eq!(errno, Some(Errno::EIO));
        drop(guard);
    }
}
