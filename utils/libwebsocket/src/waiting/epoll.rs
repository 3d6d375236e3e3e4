//! epoll(7): which events of an instance are passed on.

use std::ffi::c_int;
use std::os::fd::RawFd;

use nix::libc::{self, epoll_event};

use super::{Timeout, Verdict, judge};
use crate::real::safe;
use crate::watches::Watch;
use crate::{leaving, table};

/// Notes a successful epoll_ctl(2). `event` is None for EPOLL_CTL_DEL.
pub(crate) fn note(epoll: RawFd, command: c_int, fd: RawFd, event: Option<epoll_event>) {
    let is_new = command == libc::EPOLL_CTL_ADD;
    let Some(client) = (if is_new { leaving::confirmed_client(fd) } else { table::client(fd) }) else { return };
    let Ok(mut watches) = client.watches.lock() else { return };
    match event {
        Some(event) => {
            let is_filtered = !client.is_handed_over() || safe::is_blocking(fd);
            watches.add(Watch { epoll, fd, event, is_filtered });
        }
        None => watches.remove(epoll, fd),
    }
}

/// The filtered watch of an event; None: not filtered.
fn watch_of(epoll: RawFd, data: u64) -> Option<Watch> {
    table::clients().find_map(|(_, client)| client.watches.lock().ok()?.named(epoll, data))
}

/// Removes read events of a client without payload. False: do not report the event.
fn filter(epoll: RawFd, event: &mut epoll_event) -> bool {
    const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM) as u32;
    let is_end = event.events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
    if !is_end && event.events & READABLE == 0 {
        return true;
    }
    let Some(watch) = watch_of(epoll, event.u64) else { return true };
    match judge(watch.fd, is_end) {
        Verdict::AsReported => return true,
        Verdict::Silent => event.events &= !READABLE,
        // If the new socket is readable, the instance will report it.
        Verdict::Replaced(_) => return false,
    }
    if event.events == 0 && { watch.event.events } & libc::EPOLLONESHOT as u32 != 0 {
        // The event was not reported: re-arm the one-shot watch.
        watch.control(libc::EPOLL_CTL_MOD);
    }
    event.events != 0
}

/// Calls `wait` until an event is left after `filter`, or the timeout has passed. `wait` gets the milliseconds left and
/// returns the number of events at `events`.
///
/// # Safety
/// `events` has as many events as `wait` returns.
pub(crate) unsafe fn wait(
    epoll: RawFd,
    events: *mut epoll_event,
    time_ms: c_int,
    mut wait: impl FnMut(c_int) -> c_int,
) -> c_int {
    let timeout = Timeout::of_ms(time_ms);
    loop {
        let count = wait(timeout.left_ms());
        let Ok(size @ 1..) = usize::try_from(count) else { return count };
        // SAFETY: as promised.
        let events = unsafe { std::slice::from_raw_parts_mut(events, size) };
        let mut kept = 0;
        for index in 0..size {
            let mut event = events[index];
            if filter(epoll, &mut event) {
                events[kept] = event;
                kept += 1;
            }
        }
        if kept > 0 || timeout.is_over() {
            return kept as c_int;
        }
    }
}
