//! epoll(7): which epoll instances watch a client, and which of their events are passed on.
//!
//! An instance names a descriptor by a number of the server's choice, so the library remembers which number is whose. An
//! instance keeps watching a closed socket while another process has it open. The gateway keeps a client's socket open
//! for a moment longer than the server does, so watches are removed here before the server closes it.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc::{self, epoll_event};

use super::{Timeout, Verdict, judge};
use crate::real::{self, safe};
use crate::{leaving, table};

/// How many watches there are whose events have to be looked at. Zero, as for all servers that do not block, spares
/// every look.
static FILTERED: AtomicUsize = AtomicUsize::new(0);

/// Whether any event has to be looked at before a server hears of it.
pub(crate) fn has_filtered() -> bool {
    FILTERED.load(Ordering::Relaxed) > 0
}

/// How an epoll instance was told to watch a file descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    /// The epoll instance.
    pub(crate) epoll: RawFd,
    /// What it watches.
    pub(crate) fd: RawFd,
    /// For what, and how it names it.
    pub(crate) event: epoll_event,
    /// Its events are looked at before the server hears of them.
    pub(crate) is_filtered: bool,
}

impl Watch {
    fn end(&self) {
        // SAFETY: no event is needed to end a watch; the kernel says itself where there is none.
        let _ = unsafe { real::epoll_ctl(self.epoll, libc::EPOLL_CTL_DEL, self.fd, std::ptr::null_mut()) };
    }

    fn is_edge_triggered(&self) -> bool {
        const ONCE: u32 = (libc::EPOLLET | libc::EPOLLONESHOT) as u32;
        let events = self.event.events;
        events & ONCE == libc::EPOLLET as u32
    }

    /// Tells the instance this event of it. Whether it knows of the file descriptor, the kernel says itself.
    pub(crate) fn control(&self, command: i32) {
        let mut event = self.event;
        // SAFETY: the event lives through the call.
        let _ = unsafe { real::epoll_ctl(self.epoll, command, self.fd, &raw mut event) };
    }
}

/// Who watches the file descriptors of one client.
#[derive(Default)]
pub(crate) struct Watches(Vec<Watch>);

impl Watches {
    /// An empty list.
    pub(crate) const fn new() -> Watches {
        Watches(Vec::new())
    }

    /// An instance watches this from now on.
    pub(crate) fn add(&mut self, watch: Watch) {
        self.remove(watch.epoll, watch.fd);
        FILTERED.fetch_add(usize::from(watch.is_filtered), Ordering::Relaxed);
        self.0.push(watch);
    }

    /// An instance watches this file descriptor no more.
    pub(crate) fn remove(&mut self, epoll: RawFd, fd: RawFd) {
        self.retain(|watch| (watch.epoll, watch.fd) != (epoll, fd));
    }

    /// Nobody watches it any more.
    pub(crate) fn clear(&mut self) {
        self.retain(|_| false);
    }

    fn retain(&mut self, stays: impl Fn(&Watch) -> bool) {
        let looks = self.0.iter().filter(|watch| !stays(watch) && watch.is_filtered).count();
        FILTERED.fetch_sub(looks, Ordering::Relaxed);
        self.0.retain(stays);
    }

    /// The one whose events have this name, among those that are looked at.
    pub(crate) fn named(&self, epoll: RawFd, data: u64) -> Option<Watch> {
        let is_it = |watch: &&Watch| watch.is_filtered && watch.epoll == epoll && { watch.event.u64 } == data;
        self.0.iter().find(is_it).copied()
    }

    /// The server is about to close the client, of which no other process of its own knows.
    pub(crate) fn end(&mut self) {
        self.0.iter().for_each(Watch::end);
        self.clear();
    }

    /// `fd` is about to become the socket of a client that came late. Where a forked process has the connection too, its
    /// end would be told for ever otherwise.
    pub(crate) fn pause(&self, fd: RawFd) {
        self.0.iter().filter(|watch| watch.fd == fd).for_each(Watch::end);
    }

    /// `fd` has become the socket of a client that came late, of which no epoll instance knows.
    pub(crate) fn resume(&mut self, fd: RawFd) {
        for watch in self.0.iter_mut().filter(|watch| watch.fd == fd) {
            if watch.is_filtered && !safe::is_blocking(fd) {
                watch.is_filtered = false;
                FILTERED.fetch_sub(1, Ordering::Relaxed);
            }
            watch.control(libc::EPOLL_CTL_ADD);
        }
    }

    /// Writing may succeed again for a server that was told once that it would not. Where it hears of each change once
    /// (EPOLLET), it is told.
    pub(crate) fn rearm_all(&self) {
        self.0.iter().filter(|watch| watch.is_edge_triggered()).for_each(|watch| watch.control(libc::EPOLL_CTL_MOD));
    }

    /// There are bytes of `fd` which the server was not told of. Where it hears of each byte once (EPOLLET), it is told
    /// again.
    pub(crate) fn rearm(&self, fd: RawFd) {
        let is_edge_triggered = |watch: &&Watch| watch.fd == fd && watch.is_edge_triggered();
        self.0.iter().filter(is_edge_triggered).for_each(|watch| watch.control(libc::EPOLL_CTL_MOD));
    }
}

/// An epoll instance was told this of `fd` by a command of epoll_ctl(2); None: to watch it no more.
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

/// Whose event it is, as far as that is remembered.
fn watch_of(epoll: RawFd, data: u64) -> Option<Watch> {
    table::clients().find_map(|(_, client)| client.watches.lock().ok()?.named(epoll, data))
}

/// Whether the server is to hear of this event, which is changed to what is so.
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
        // Where there is something, the epoll instance tells it of the new socket.
        Verdict::Replaced(_) => return false,
    }
    if event.events == 0 && { watch.event.events } & libc::EPOLLONESHOT as u32 != 0 {
        // It was not the one event that was wanted.
        watch.control(libc::EPOLL_CTL_MOD);
    }
    event.events != 0
}

/// Waits by `wait`, which gets the milliseconds that are left and returns how many events it put at `events`, until one
/// is to be told, or the time is over.
///
/// # Safety
/// There are as many events as `wait` says.
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
