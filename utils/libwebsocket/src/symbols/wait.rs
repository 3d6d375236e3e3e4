//! poll(2), ppoll(2), select(2), pselect(2), epoll(7), and their names with `_FORTIFY_SOURCE`.

use std::ffi::c_int;
use std::ptr::null;

use nix::libc::{self, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, suseconds_t, timespec, timeval};

use super::{keeping_errno, keeping_errno_unless};
use crate::waiting::select::{Set, Sets};
use crate::waiting::{self, epoll};
use crate::{real, watches};

/// Runs a call; if it succeeds, errno keeps its value.
fn wait(call: impl FnOnce() -> c_int) -> c_int {
    keeping_errno_unless(|count| *count < 0, call)
}

/// The caller's poll set; None: null.
///
/// # Safety
/// As poll(2).
unsafe fn poll_set<'a>(fds: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    // SAFETY: as promised.
    (!fds.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(fds, count as usize) })
}

/// poll(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, time_ms: c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { poll_set(fds, count) } {
        Some(fds) => wait(|| waiting::poll::poll(fds, time_ms)),
        // SAFETY: the caller's promise.
        None => unsafe { real::poll(fds, count, time_ms) },
    }
}

/// poll(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __poll_chk(fds: *mut pollfd, count: nfds_t, time_ms: c_int, _size: size_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { poll(fds, count, time_ms) }
}

/// ppoll(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const timespec,
    signals: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { poll_set(fds, count) } {
        // SAFETY: the caller's promise.
        Some(fds) => wait(|| waiting::poll::ppoll(fds, unsafe { time.as_ref() }, signals)),
        // SAFETY: the caller's promise.
        None => unsafe { real::ppoll(fds, count, time, signals) },
    }
}

/// ppoll(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const timespec,
    signals: *const sigset_t,
    _size: size_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ppoll(fds, count, time, signals) }
}

/// The caller's three sets.
///
/// # Safety
/// As select(2).
unsafe fn sets<'a>(count: c_int, reads: *mut fd_set, writes: *mut fd_set, exceptions: *mut fd_set) -> Sets<'a> {
    let count = waiting::select::looked_at(count);
    let [reads, writes, exceptions] = [reads, writes, exceptions].map(|set| {
        // SAFETY: as promised.
        unsafe { Set::new(set, count) }
    });
    Sets { count, reads, writes, exceptions }
}

/// Carries microseconds above a second, as glibc's select(2) does.
fn timespec_of(time: &timeval) -> timespec {
    const SECOND_US: suseconds_t = 1_000_000;
    let tv_sec = time.tv_sec.saturating_add(time.tv_usec / SECOND_US);
    timespec { tv_sec, tv_nsec: time.tv_usec % SECOND_US * 1_000 }
}

/// select(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn select(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    exceptions: *mut fd_set,
    time: *mut timeval,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut sets = unsafe { sets(count, reads, writes, exceptions) };
    if !sets.have_client() {
        // SAFETY: the caller's promise.
        return unsafe { real::select(count, reads, writes, exceptions, time) };
    }
    // SAFETY: the caller's promise.
    let time = unsafe { time.as_mut() };
    let wanted = time.as_ref().map(|time| timespec_of(time));
    let (result, left) = keeping_errno_unless(|(count, _)| *count < 0, || sets.wait(wanted.as_ref(), null()));
    // select(2) of Linux writes back the time left.
    if let (Some(time), Some(left)) = (time, left) {
        *time = timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1_000 };
    }
    result
}

/// pselect(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pselect(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    exceptions: *mut fd_set,
    time: *const timespec,
    signals: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut sets = unsafe { sets(count, reads, writes, exceptions) };
    if !sets.have_client() {
        // SAFETY: the caller's promise.
        return unsafe { real::pselect(count, reads, writes, exceptions, time, signals) };
    }
    // SAFETY: the caller's promise.
    wait(|| sets.wait(unsafe { time.as_ref() }, signals).0)
}

/// epoll_ctl(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn epoll_ctl(instance: c_int, command: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    // SAFETY: the caller's promise.
    let result = unsafe { real::epoll_ctl(instance, command, fd, event) };
    if result == 0 {
        let is_wanted = command != libc::EPOLL_CTL_DEL;
        // SAFETY: epoll_ctl(2) has just read it.
        let event = if is_wanted { unsafe { event.as_ref() }.copied() } else { None };
        keeping_errno(|| epoll::note(instance, command, fd, event));
    }
    result
}

/// epoll_wait(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn epoll_wait(instance: c_int, events: *mut epoll_event, count: c_int, time_ms: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let ask = |time_ms| unsafe { real::epoll_wait(instance, events, count, time_ms) };
    if !watches::has_filtered() {
        return ask(time_ms);
    }
    // SAFETY: the kernel has written the number of events that it returns.
    wait(|| unsafe { epoll::wait(instance, events, time_ms, ask) })
}

/// epoll_pwait(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn epoll_pwait(
    instance: c_int,
    events: *mut epoll_event,
    count: c_int,
    time_ms: c_int,
    signals: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let ask = |time_ms| unsafe { real::epoll_pwait(instance, events, count, time_ms, signals) };
    if !watches::has_filtered() {
        return ask(time_ms);
    }
    // SAFETY: the kernel has written the number of events that it returns.
    wait(|| unsafe { epoll::wait(instance, events, time_ms, ask) })
}

/// epoll_pwait2(2): with filtered watches, its timeout has a resolution of milliseconds.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn epoll_pwait2(
    instance: c_int,
    events: *mut epoll_event,
    count: c_int,
    time: *const timespec,
    signals: *const sigset_t,
) -> c_int {
    if !watches::has_filtered() {
        // SAFETY: the caller's promise.
        return unsafe { real::epoll_pwait2(instance, events, count, time, signals) };
    }
    // SAFETY: the caller's promise.
    let time_ms = waiting::ms_of(unsafe { time.as_ref() });
    // SAFETY: the caller's promise.
    let ask = |time_ms| unsafe { real::epoll_pwait(instance, events, count, time_ms, signals) };
    // SAFETY: the kernel has written the number of events that it returns.
    wait(|| unsafe { epoll::wait(instance, events, time_ms, ask) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_of_more_than_a_second() {
        for ((tv_sec, tv_usec), wanted) in
            [((1, 5), (1, 5_000)), ((0, 5_000_001), (5, 1_000)), ((2, 2_147_483_647), (2_149, 483_647_000))]
        {
            let time = timespec_of(&timeval { tv_sec, tv_usec });
            assert_eq!((time.tv_sec, time.tv_nsec), wanted, "{tv_sec} {tv_usec}");
        }
    }
}
