//! Waiting for a socket, but not for ever.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The moment at which waiting ends.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// From now on so many milliseconds. What the clock cannot count is for ever.
    pub fn after_ms(wait_ms: u64) -> Deadline {
        Deadline(Instant::now().checked_add(Duration::from_millis(wait_ms)))
    }

    /// At this moment.
    pub fn at(end: Instant) -> Deadline {
        Deadline(Some(end))
    }

    /// There is none.
    pub fn never() -> Deadline {
        Deadline(None)
    }

    /// Whether it has come.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|end| end <= Instant::now())
    }

    /// What is left, for poll(2). Rounded up, so that a rest of less than a millisecond is waited for without spinning.
    pub fn timeout(self) -> PollTimeout {
        let Some(end) = self.0 else { return PollTimeout::NONE };
        let left_ms = end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        i32::try_from(left_ms).ok().and_then(|left_ms| PollTimeout::try_from(left_ms).ok()).unwrap_or(PollTimeout::MAX)
    }

    /// Waits for one of `events`, for an error or for the end of the connection. False: the deadline came first.
    /// A signal does not end the wait.
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
