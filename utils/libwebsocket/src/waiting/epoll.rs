//! epoll(7). It names file descriptors as the server likes, so that it has to be remembered which name is whose.

use std::ffi::c_int;
use std::os::fd::RawFd;

use nix::libc::{self, epoll_event};

use super::{Patience, Verdict, judge};
use crate::real::safe;
use crate::watches::Watch;
use crate::{leaving, table};

/// An epoll instance was told this of `fd` by a command of epoll_ctl(2); None: to watch it no more.
pub fn note(epoll: RawFd, command: c_int, fd: RawFd, event: Option<epoll_event>) {
    let is_new = command == libc::EPOLL_CTL_ADD;
    let Some(client) = (if is_new { leaving::confirmed_client(fd) } else { table::client(fd) }) else { return };
    let Ok(mut watches) = client.watches.lock() else { return };
    match event {
        Some(event) => {
            let is_looked_at = !client.is_here() || safe::is_blocking(fd);
            watches.add(Watch { epoll, fd, event, is_looked_at });
        }
        None => watches.remove(epoll, fd),
    }
}

/// Whose event it is, as far as that is remembered.
fn watch_of(epoll: RawFd, data: u64) -> Option<Watch> {
    table::clients().find_map(|(_, client)| client.watches.lock().ok()?.named(epoll, data))
}

/// Whether the server is to hear of this event, which is changed to what is so.
fn is_so(epoll: RawFd, event: &mut epoll_event) -> bool {
    const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM) as u32;
    let is_end = event.events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
    if !is_end && event.events & READABLE == 0 {
        return true;
    }
    let Some(watch) = watch_of(epoll, event.u64) else { return true };
    match judge(watch.fd, is_end) {
        Verdict::Told => return true,
        Verdict::Silent => event.events &= !READABLE,
        // Where there is something, the epoll instance tells it of the new socket.
        Verdict::Replaced(_) => return false,
    }
    if event.events == 0 && { watch.event.events } & libc::EPOLLONESHOT as u32 != 0 {
        // It was not the one event that was wanted.
        watch.tell(libc::EPOLL_CTL_MOD);
    }
    event.events != 0
}

/// Waits by `wait`, which gets the milliseconds that are left and returns how many events it put at `events`, until one
/// is to be told, or the time is over.
///
/// # Safety
/// There are as many events as `wait` says.
pub unsafe fn wait(
    epoll: RawFd,
    events: *mut epoll_event,
    time_ms: c_int,
    mut wait: impl FnMut(c_int) -> c_int,
) -> c_int {
    let patience = Patience::of_ms(time_ms);
    loop {
        let count = wait(patience.left_ms());
        let Ok(size @ 1..) = usize::try_from(count) else { return count };
        // SAFETY: as promised.
        let events = unsafe { std::slice::from_raw_parts_mut(events, size) };
        let mut kept = 0;
        for index in 0..size {
            let mut event = events[index];
            if is_so(epoll, &mut event) {
                events[kept] = event;
                kept += 1;
            }
        }
        if kept > 0 || patience.is_over() {
            return kept as c_int;
        }
    }
}
