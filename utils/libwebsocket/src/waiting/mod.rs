//! poll(2), select(2) and epoll(7): a client is readable only if a read returns payload or the end.
//!
//! To the kernel, headers and control frames are readable bytes. A blocking server would then block in read(2); some
//! non-blocking servers take an EAGAIN after POLLIN for the end. So these bytes are consumed before the event is
//! reported. Events of epoll(7) for non-blocking clients are not filtered: such servers expect EAGAIN.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::libc;

use crate::arrival::{Decision, decide};
use crate::reading::{self, Found};
use crate::table;

pub(crate) mod epoll;
pub(crate) mod poll;
pub(crate) mod select;

/// What to do with an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Report it unchanged.
    AsReported,
    /// Not readable: remove the read events.
    Silent,
    /// A late hand-over has just replaced the socket that the event was for; whether the new one is readable.
    Replaced(bool),
}

/// Judges an event of `fd`. `is_end`: it includes an error or a hang-up, which is always reported.
fn judge(fd: RawFd, is_end: bool) -> Verdict {
    let Some(client) = table::client(fd) else { return Verdict::AsReported };
    if !client.is_handed_over() {
        return match decide(fd, client) {
            Ok(Decision::Open) => Verdict::Silent,
            Ok(Decision::Client) => Verdict::Replaced(!matches!(reading::look(fd, client), Ok(Found::Nothing))),
            Ok(Decision::Plain) | Err(_) => Verdict::AsReported,
        };
    }
    if is_end {
        return Verdict::AsReported;
    }
    // Errors are reported by the read.
    if matches!(reading::look(fd, client), Ok(Found::Nothing)) { Verdict::Silent } else { Verdict::AsReported }
}

/// The timeout of a call.
struct Timeout {
    /// None: no timeout.
    end: Option<Instant>,
}

impl Timeout {
    fn new(time: Option<Duration>) -> Timeout {
        Timeout { end: time.and_then(|time| Instant::now().checked_add(time)) }
    }

    fn of_ms(time_ms: i32) -> Timeout {
        Timeout::new(u64::try_from(time_ms).ok().map(Duration::from_millis))
    }

    /// The time left; None: no timeout.
    fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// The time left in milliseconds, rounded up; -1: no timeout.
    fn left_ms(&self) -> i32 {
        self.left().map_or(-1, |left| i32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX))
    }

    fn left_timespec(&self) -> Option<libc::timespec> {
        let seconds = |left: Duration| libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX);
        self.left().map(|left| libc::timespec { tv_sec: seconds(left), tv_nsec: left.subsec_nanos() as _ })
    }
}

/// Milliseconds, rounded up; -1: no timeout.
pub(crate) fn ms_of(time: Option<&libc::timespec>) -> i32 {
    Timeout::new(time.map(duration)).left_ms()
}

/// A `struct timespec` as a duration. The kernel has already rejected invalid ones.
fn duration(time: &libc::timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
