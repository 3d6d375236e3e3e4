//! poll(2) and ppoll(2).

use std::ffi::c_int;

use nix::libc::{self, nfds_t, pollfd, sigset_t, timespec};

use super::{Timeout, Verdict, duration, judge};
use crate::real;
use crate::table;

const READABLE: i16 = libc::POLLIN | libc::POLLRDNORM;

/// Removes read events of clients without payload. Returns the number of entries with events left.
fn correct(fds: &mut [pollfd]) -> c_int {
    let mut count = 0;
    for fd in fds {
        let is_end = fd.revents & (libc::POLLERR | libc::POLLHUP) != 0;
        if is_end || fd.revents & READABLE != 0 {
            match judge(fd.fd, is_end) {
                Verdict::AsReported => {}
                Verdict::Silent => fd.revents &= !(READABLE | libc::POLLRDBAND),
                Verdict::Replaced(is_readable) => fd.revents = if is_readable { fd.events & READABLE } else { 0 },
            }
        }
        count += c_int::from(fd.revents != 0);
    }
    count
}

/// Calls `wait` until an event is left after `correct`, or the timeout has passed.
fn wait(fds: &mut [pollfd], timeout: &Timeout, mut wait: impl FnMut(&mut [pollfd]) -> c_int) -> c_int {
    loop {
        let count = wait(fds);
        if count <= 0 {
            return count;
        }
        let count = correct(fds);
        if count > 0 || timeout.is_over() {
            return count;
        }
    }
}

fn has_client(fds: &[pollfd]) -> bool {
    fds.iter().any(|fd| table::client(fd.fd).is_some())
}

/// poll(2).
pub(crate) fn poll(fds: &mut [pollfd], time_ms: c_int) -> c_int {
    let count = fds.len() as nfds_t;
    if !has_client(fds) {
        // SAFETY: pointer and length are those of the slice.
        return unsafe { real::poll(fds.as_mut_ptr(), count, time_ms) };
    }
    let timeout = Timeout::of_ms(time_ms);
    wait(fds, &timeout, |fds| {
        // SAFETY: pointer and length are those of the slice.
        unsafe { real::poll(fds.as_mut_ptr(), count, timeout.left_ms()) }
    })
}

/// ppoll(2).
pub(crate) fn ppoll(fds: &mut [pollfd], time: Option<&timespec>, signals: *const sigset_t) -> c_int {
    let count = fds.len() as nfds_t;
    if !has_client(fds) {
        let time = time.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: pointer and length are those of the slice; time and signals come from the caller.
        return unsafe { real::ppoll(fds.as_mut_ptr(), count, time, signals) };
    }
    let timeout = Timeout::new(time.map(duration));
    wait(fds, &timeout, |fds| {
        let left = timeout.left_timespec();
        let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: pointer and length are those of the slice, the time lives through the call; signals come from the
        // caller.
        unsafe { real::ppoll(fds.as_mut_ptr(), count, left, signals) }
    })
}
