//! glibc's 64-bit time functions on 32-bit systems: servers built with `_TIME_BITS=64` (feature_test_macros(7)) call
//! these, and some distributions build all programs that way.
#![allow(clippy::useless_conversion, reason = "the usual times have 64 bits where this is only tested")]

use std::ffi::{c_int, c_long, c_uint, c_ulong};

use nix::libc::{
    epoll_event, fd_set, mmsghdr, msghdr, nfds_t, pollfd, sigset_t, size_t, ssize_t, time_t, timespec, timeval,
};

use super::descriptors::{begin_passed, fcntl64};
use super::read::{begin_all_passed, receive_message, receive_messages};
use super::wait::{epoll_pwait2, ppoll, pselect, select};
use super::write::{sendmmsg, sendmsg};
use crate::real;

/// `struct __timespec64`. The padding is before the nanoseconds on big-endian systems.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LongTime {
    seconds: i64,
    #[cfg(all(target_endian = "big", target_pointer_width = "32"))]
    _filling: c_long,
    nanoseconds: c_long,
    #[cfg(all(target_endian = "little", target_pointer_width = "32"))]
    _filling: c_long,
}

/// `struct __timeval64`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LongInterval {
    seconds: i64,
    microseconds: i64,
}

/// Clamps seconds to `time_t`. Negative ones stay negative, so that the kernel rejects them.
fn nearest(seconds: i64) -> time_t {
    time_t::try_from(seconds.clamp(time_t::MIN.into(), time_t::MAX.into())).unwrap_or(time_t::MAX)
}

/// Converts a timeout, clamped to 68 years; None: no timeout.
///
/// # Safety
/// `time` is null, or points to a time.
unsafe fn short(time: *const LongTime) -> Option<timespec> {
    // SAFETY: as promised.
    let time = unsafe { time.as_ref() }?;
    Some(timespec { tv_sec: nearest(time.seconds), tv_nsec: time.nanoseconds })
}

fn place(time: &Option<timespec>) -> *const timespec {
    time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)
}

/// ppoll(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __ppoll64(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const LongTime,
    signals: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let time = unsafe { short(time) };
    // SAFETY: the caller's promise.
    unsafe { ppoll(fds, count, place(&time), signals) }
}

/// ppoll(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __ppoll64_chk(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const LongTime,
    signals: *const sigset_t,
    _size: size_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { __ppoll64(fds, count, time, signals) }
}

/// select(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __select64(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    exceptions: *mut fd_set,
    time: *mut LongInterval,
) -> c_int {
    // SAFETY: the caller's promise.
    let Some(time) = (unsafe { time.as_mut() }) else {
        // SAFETY: the caller's promise.
        return unsafe { select(count, reads, writes, exceptions, std::ptr::null_mut()) };
    };
    // As in glibc, microseconds above a second are carried.
    let seconds = time.seconds.saturating_add(time.microseconds.div_euclid(1_000_000));
    let microseconds = time.microseconds.rem_euclid(1_000_000);
    let mut left = timeval { tv_sec: nearest(seconds), tv_usec: microseconds as _ };
    // SAFETY: the caller's promise; the time lives through the call.
    let result = unsafe { select(count, reads, writes, exceptions, &raw mut left) };
    *time = LongInterval { seconds: left.tv_sec.into(), microseconds: left.tv_usec.into() };
    result
}

/// pselect(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __pselect64(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    exceptions: *mut fd_set,
    time: *const LongTime,
    signals: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let time = unsafe { short(time) };
    // SAFETY: the caller's promise.
    unsafe { pselect(count, reads, writes, exceptions, place(&time), signals) }
}

/// epoll_pwait2(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __epoll_pwait2_time64(
    instance: c_int,
    events: *mut epoll_event,
    count: c_int,
    time: *const LongTime,
    signals: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let time = unsafe { short(time) };
    // SAFETY: the caller's promise.
    unsafe { epoll_pwait2(instance, events, count, place(&time), signals) }
}

/// recvmsg(2), whose ancillary data may contain times.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __recvmsg64(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive_message(fd, message, flags) };
    of_client.unwrap_or_else(|| {
        // SAFETY: the caller's promise.
        let size = unsafe { real::__recvmsg64(fd, message, flags) };
        if size >= 0 {
            // SAFETY: recvmsg(2) has just filled the message.
            unsafe { begin_passed(message) };
        }
        size
    })
}

/// recvmmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __recvmmsg64(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    time: *mut LongTime,
) -> c_int {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive_messages(fd, messages, count, flags) };
    of_client.unwrap_or_else(|| {
        // SAFETY: the caller's promise.
        let received = unsafe { real::__recvmmsg64(fd, messages, count, flags, time.cast()) };
        // SAFETY: recvmmsg(2) has just filled this number of messages.
        unsafe { begin_all_passed(messages, received) };
        received
    })
}

/// sendmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __sendmsg64(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { sendmsg(fd, message, flags) }
}

/// sendmmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __sendmmsg64(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { sendmmsg(fd, messages, count, flags) }
}

/// fcntl(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __fcntl_time64(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's promise; glibc has one function for both names.
    unsafe { fcntl64(fd, command, argument) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_time() {
        for (given, nearest_to_it) in [(0, 0), (1_800_000_000, 1_800_000_000), (-1, -1)] {
            assert_eq!(i64::from(nearest(given)), nearest_to_it, "{given}");
        }
        for (given, nearest_to_it) in [(i64::MAX, time_t::MAX), (i64::MIN, time_t::MIN)] {
            assert_eq!(nearest(given), nearest_to_it, "{given}");
        }
    }

    #[test]
    fn select_waits_and_tells_what_is_left() {
        let nobody = std::ptr::null_mut();
        let mut time = LongInterval { seconds: 0, microseconds: 1_000 };
        // SAFETY: there is a time, and there are no sets.
        assert_eq!(unsafe { __select64(0, nobody, nobody, nobody, &raw mut time) }, 0);
        assert_eq!((time.seconds, time.microseconds), (0, 0));
        time.seconds = -1;
        // SAFETY: there is a time, and there are no sets.
        assert_eq!(unsafe { __select64(0, nobody, nobody, nobody, &raw mut time) }, -1);
    }

    #[test]
    fn ppoll_waits() {
        // SAFETY: a time may be all zeros.
        let mut time: LongTime = unsafe { std::mem::zeroed() };
        time.nanoseconds = 1_000_000;
        // SAFETY: there is a time, and there is nothing to poll.
        assert_eq!(unsafe { __ppoll64(std::ptr::null_mut(), 0, &raw const time, std::ptr::null()) }, 0);
    }
}
