//! epoll(7). It names file descriptors as the server likes, so that it has to be remembered which name is whose.
//!
//! It also goes on watching a socket that was closed, as long as another process has it. The gateway has a client's
//! for a moment longer than its server knows of; so that a fast server hears nothing of those it has closed, they are
//! taken out here.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc::{self, epoll_event};

use super::{Patience, Verdict, judge};
use crate::client::{Client, Watch};
use crate::real::{self, safe};
use crate::table;

/// How many watches there are whose events have to be looked at. Zero, as for all servers that do not block, spares
/// every look.
static LOOKS: AtomicUsize = AtomicUsize::new(0);

/// An epoll instance was told something of `fd`; None: to watch it no more.
pub fn note(epoll: RawFd, fd: RawFd, event: Option<epoll_event>) {
    let Some(client) = table::client(fd) else { return };
    let Ok(mut watches) = client.watches.lock() else { return };
    remove(&mut watches, |watch| (watch.epoll, watch.fd) == (epoll, fd));
    if let Some(event) = event {
        let is_looked_at = !client.is_here() || safe::is_blocking(fd);
        watches.push(Watch { epoll, fd, event, is_looked_at });
        if is_looked_at {
            LOOKS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn remove(watches: &mut Vec<Watch>, is_it: impl Fn(&Watch) -> bool) {
    let looks = watches.iter().filter(|watch| is_it(watch) && watch.is_looked_at).count();
    LOOKS.fetch_sub(looks, Ordering::Relaxed);
    watches.retain(|watch| !is_it(watch));
}

/// Nobody watches it any more.
pub fn clear(watches: &mut Vec<Watch>) {
    remove(watches, |_| true);
}

/// The server is about to close the client, of which no other process of its own knows.
pub fn forget(client: &Client) {
    let Some(mut watches) = client.watches.try_lock() else { return };
    watches.iter().for_each(end_watch);
    clear(&mut watches);
}

fn end_watch(watch: &Watch) {
    // SAFETY: no event is needed to end a watch; the kernel says itself where there is none.
    let _ = unsafe { real::epoll_ctl(watch.epoll, libc::EPOLL_CTL_DEL, watch.fd, std::ptr::null_mut()) };
}

/// `fd` is about to become the socket of a client that came late. Where a forked process has the connection too, its
/// end would be told for ever otherwise.
pub fn unwatch(fd: RawFd, client: &Client) {
    let Ok(watches) = client.watches.lock() else { return };
    watches.iter().filter(|watch| watch.fd == fd).for_each(end_watch);
}

/// `fd` has become the socket of a client that came late, of which no epoll instance knows.
pub fn watch_again(fd: RawFd, client: &Client) {
    let Ok(mut watches) = client.watches.lock() else { return };
    for watch in watches.iter_mut().filter(|watch| watch.fd == fd) {
        if watch.is_looked_at && !safe::is_blocking(fd) {
            watch.is_looked_at = false;
            LOOKS.fetch_sub(1, Ordering::Relaxed);
        }
        let mut event = watch.event;
        // SAFETY: the event lives through the call.
        let _ = unsafe { real::epoll_ctl(watch.epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    }
}

/// There are bytes of `fd` which the server was not told of. Where it hears of each byte once (EPOLLET), it is told again.
pub fn tell_again(fd: RawFd, client: &Client) {
    const ONCE: u32 = (libc::EPOLLET | libc::EPOLLONESHOT) as u32;
    let Ok(watches) = client.watches.lock() else { return };
    for watch in watches.iter().filter(|watch| watch.fd == fd && { watch.event.events } & ONCE == libc::EPOLLET as u32)
    {
        let mut event = watch.event;
        // SAFETY: the event lives through the call.
        let _ = unsafe { real::epoll_ctl(watch.epoll, libc::EPOLL_CTL_MOD, fd, &raw mut event) };
    }
}

/// Whose event it is, as far as that is remembered.
fn watch_of(epoll: RawFd, data: u64) -> Option<Watch> {
    let is_it = |watch: &&Watch| watch.is_looked_at && watch.epoll == epoll && { watch.event.u64 } == data;
    table::clients().find_map(|(_, client)| client.watches.lock().ok()?.iter().find(is_it).copied())
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
        let mut again = watch.event;
        // SAFETY: the event lives through the call.
        let _ = unsafe { real::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, watch.fd, &raw mut again) };
    }
    event.events != 0
}

/// Whether anything has to be looked at.
pub fn has_looks() -> bool {
    LOOKS.load(Ordering::Relaxed) > 0
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
