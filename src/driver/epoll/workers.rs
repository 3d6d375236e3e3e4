//! Threads for system calls on files that may block. They start when there is something to do, and end when there has
//! been nothing for a while.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::driver::mapping::Mapping;
use crate::driver::opening::{LookupSupport, OpenRequest, open};
use crate::driver::{FileKind, OpenFor};
use crate::limits::{ABORT_MS, POOL_HEADROOM, WORKER_IDLE_MS, WORKER_STACK_SIZE, WORKERS_MAX};

/// A system call to perform.
pub(super) enum Job {
    /// Open a path.
    Open { lookup: OpenRequest, support: LookupSupport, path: CString, purpose: OpenFor },
    /// Read into a buffer, behind its headroom. The caller keeps the file open until the completion.
    Read { fd: RawFd, offset: u64, memory: Mapping },
    /// Close a descriptor; it has no outcome.
    Close(OwnedFd),
}

/// The result of a job.
pub(super) enum Outcome {
    Opened(Result<(OwnedFd, FileKind), Errno>),
    Read { memory: Mapping, result: Result<usize, Errno> },
}

impl Job {
    fn perform(self) -> Option<Outcome> {
        match self {
            Job::Open { lookup, support, path, purpose } => {
                Some(Outcome::Opened(open(&lookup, support, &path, purpose)))
            }
            Job::Read { fd, offset, mut memory } => {
                let result = read_at(fd, &mut memory[POOL_HEADROOM..], offset, None);
                Some(Outcome::Read { memory, result })
            }
            Job::Close(fd) => {
                drop(fd);
                None
            }
        }
    }

    /// The outcome of a job that is not performed.
    pub(super) fn failed(self, errno: Errno) -> Outcome {
        match self {
            Job::Read { memory, .. } => Outcome::Read { memory, result: Err(errno) },
            // A close has no outcome and is never taken back.
            Job::Open { .. } | Job::Close(_) => Outcome::Opened(Err(errno)),
        }
    }
}

/// The key of a job without an outcome.
const NOBODY: usize = usize::MAX;

/// The threads, and their queue.
pub(super) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// There is a job, or the end.
    work: Condvar,
    /// A thread has ended a job.
    done: Condvar,
    /// Readable when a job has finished.
    bell: EventFd,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(usize, Job)>,
    finished: Vec<(usize, Outcome)>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs a job without the lock.
    fn perform(&self, id: usize, job: Job) {
        let outcome = job.perform();
        let mut state = self.lock();
        if let Some(outcome) = outcome {
            if state.finished.is_empty() {
                // A counter that is full is readable too.
                let _ = self.bell.write(1);
            }
            state.finished.push((id, outcome));
        }
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        while !state.is_over {
            if let Some((id, job)) = state.queue.pop_front() {
                drop(state);
                self.perform(id, job);
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, Duration::from_millis(WORKER_IDLE_MS));
            let (back, time) = waited.unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if time.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        self.done.notify_all();
    }
}

impl Workers {
    /// No thread yet.
    pub(super) fn new() -> Result<Workers, Errno> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (state, work, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        Ok(Workers { shared: Arc::new(Shared { state, work, done, bell }) })
    }

    /// Readable when a job has finished.
    pub(super) fn bell(&self) -> &EventFd {
        &self.shared.bell
    }

    /// Begins a job.
    pub(super) fn begin(&self, id: usize, job: Job) {
        let mut state = self.shared.lock();
        if state.idle <= state.queue.len() && state.threads < WORKERS_MAX {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("file".to_owned()).stack_size(WORKER_STACK_SIZE);
            match thread.spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                // Without any thread (pids.max of a cgroup) blocking is better than not serving.
                Err(_) if state.threads == 0 => {
                    drop(state);
                    return self.shared.perform(id, job);
                }
                Err(_) => {}
            }
        }
        state.queue.push_back((id, job));
        drop(state);
        self.shared.work.notify_one();
    }

    /// Closes a descriptor whose close may block.
    pub(super) fn close(&self, fd: OwnedFd) {
        self.begin(NOBODY, Job::Close(fd));
    }

    /// Takes a job back that no thread has begun.
    pub(super) fn cancel(&self, id: usize) -> Option<Job> {
        let mut state = self.shared.lock();
        let index = state.queue.iter().position(|(queued, _)| *queued == id)?;
        state.queue.remove(index).map(|(_, job)| job)
    }

    /// Takes the outcomes of all jobs that have finished.
    pub(super) fn take_finished(&self) -> Vec<(usize, Outcome)> {
        // Empty if another event of this turn took them already.
        let _ = self.shared.bell.read();
        std::mem::take(&mut self.shared.lock().finished)
    }
}

impl Drop for Workers {
    /// Waits for the threads, which use descriptors by their numbers, but at most `ABORT_MS`: a file system may hang.
    fn drop(&mut self) {
        let give_up = Instant::now() + Duration::from_millis(ABORT_MS);
        let mut state = self.shared.lock();
        state.is_over = true;
        state.queue.clear();
        self.shared.work.notify_all();
        while state.threads > 0
            && let Some(left) = give_up.checked_duration_since(Instant::now())
        {
            let waited = self.shared.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Reads from a file at an offset, with the flags of preadv2(2) if there are any. On 32-bit targets the C library's
/// function has a 32-bit offset.
pub(super) fn read_at(fd: RawFd, room: &mut [u8], offset: u64, flags: Option<libc::c_int>) -> Result<usize, Errno> {
    let part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // The kernel joins two longs; where one holds 64 bits the second is ignored.
    let (low, high) = (offset as libc::c_long, (offset >> 32) as libc::c_long);
    let (number, flags) = match flags {
        Some(flags) => (libc::SYS_preadv2, flags),
        None => (libc::SYS_preadv, 0),
    };
    // SAFETY: the segment lies in `room`, which is writable and lives through the call.
    let result = unsafe { libc::syscall(number, fd, &raw const part, 1usize, low, high, flags) };
    Errno::result(result).map(|size| size as usize)
}
