//! What select(2) and its like say of clients: readable is one whose next read has payload, or its end.
//!
//! The kernel sees headers and control frames as bytes. A server that blocks would be told of them, read, and wait there
//! instead of where it meant to; some that do not block take an EAGAIN where they were promised bytes for the end. So
//! these bytes are taken before the server hears of them. Only epoll(7) tells of clients that do not block what the
//! kernel says: servers that use it so are made for an EAGAIN, and spared the look.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::libc;

use crate::arrival::{Decision, decide};
use crate::reading::{self, Found};
use crate::table;

pub(crate) mod epoll;
pub(crate) mod poll;
pub(crate) mod select;

/// What is to become of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is as the kernel says.
    AsReported,
    /// There is nothing to read.
    Silent,
    /// It is about a connection that has become a client's socket meanwhile: all that is known of it is whether there
    /// is something to read.
    Replaced(bool),
}

/// Judges an event of `fd`; `is_end`: an error or a hang-up is told as well, which a server hears of whatever there is
/// to read.
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
    // Errors are for the read to tell.
    if matches!(reading::look(fd, client), Ok(Found::Nothing)) { Verdict::Silent } else { Verdict::AsReported }
}

/// How long a server wants to wait, and what is left of it.
struct Timeout {
    /// None: for ever.
    end: Option<Instant>,
}

impl Timeout {
    fn new(time: Option<Duration>) -> Timeout {
        Timeout { end: time.and_then(|time| Instant::now().checked_add(time)) }
    }

    fn of_ms(time_ms: i32) -> Timeout {
        Timeout::new(u64::try_from(time_ms).ok().map(Duration::from_millis))
    }

    /// What is left; None: for ever.
    fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// In milliseconds, rounded up; -1: for ever.
    fn left_ms(&self) -> i32 {
        self.left().map_or(-1, |left| i32::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX))
    }

    fn left_timespec(&self) -> Option<libc::timespec> {
        let seconds = |left: Duration| libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX);
        self.left().map(|left| libc::timespec { tv_sec: seconds(left), tv_nsec: left.subsec_nanos() as _ })
    }
}

/// In milliseconds, rounded up; -1: for ever.
pub(crate) fn ms_of(time: Option<&libc::timespec>) -> i32 {
    Timeout::new(time.map(duration)).left_ms()
}

/// A time as the kernel takes it; a null pointer means for ever, and so does what is no time, which the kernel refuses
/// before.
fn duration(time: &libc::timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
