//! Waiting for a socket with a timeout.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The end of a wait; may be never.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// In `wait_ms` milliseconds. If that overflows the clock: never.
    pub fn after_ms(wait_ms: u64) -> Deadline {
        Deadline(Instant::now().checked_add(Duration::from_millis(wait_ms)))
    }

    /// At `end`.
    pub fn at(end: Instant) -> Deadline {
        Deadline(Some(end))
    }

    /// No deadline.
    pub fn never() -> Deadline {
        Deadline(None)
    }

    /// Whether the deadline has passed.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|end| end <= Instant::now())
    }

    /// The time left, for poll(2). Rounded up to milliseconds, so that the last fraction is not a busy loop.
    pub fn timeout(self) -> PollTimeout {
        let Some(end) = self.0 else { return PollTimeout::NONE };
        let left_ms = end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        i32::try_from(left_ms).ok().and_then(|left_ms| PollTimeout::try_from(left_ms).ok()).unwrap_or(PollTimeout::MAX)
    }

    /// Waits for `events`, POLLERR or POLLHUP. False: the deadline has passed. EINTR is retried.
    pub fn wait(self, socket: BorrowedFd<'_>, events: PollFlags) -> Result<bool, Errno> {
        loop {
            match poll(&mut [PollFd::new(socket, events)], self.timeout()) {
                Ok(0) if self.is_over() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno),
            }
        }
    }
}
