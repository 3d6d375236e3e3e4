//! Which epoll instances watch a client.
//!
//! An instance names a descriptor by a number of the server's choice, so the library remembers which client has which number.
//! An instance keeps watching a closed socket while another process has it open. The gateway keeps a client's socket
//! open for a moment longer than the server does, so watches are removed here before the server closes it.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc::{self, epoll_event};

use crate::real::{self, safe};

/// Number of watches whose events are filtered. It is 0 in non-blocking servers, whose calls then go straight to libc.
static FILTERED: AtomicUsize = AtomicUsize::new(0);

/// Whether any watch is filtered.
pub(crate) fn has_filtered() -> bool {
    FILTERED.load(Ordering::Relaxed) > 0
}

/// An epoll instance's interest in a file descriptor (epoll_ctl(2)).
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    /// The epoll instance.
    pub(crate) epoll: RawFd,
    pub(crate) fd: RawFd,
    /// The server's events and data.
    pub(crate) event: epoll_event,
    /// Read events without payload are not reported.
    pub(crate) is_filtered: bool,
}

impl Watch {
    fn end(&self) {
        // SAFETY: EPOLL_CTL_DEL takes no event. ENOENT is ignored.
        let _ = unsafe { real::epoll_ctl(self.epoll, libc::EPOLL_CTL_DEL, self.fd, std::ptr::null_mut()) };
    }

    fn is_edge_triggered(&self) -> bool {
        const ONCE: u32 = (libc::EPOLLET | libc::EPOLLONESHOT) as u32;
        let events = self.event.events;
        events & ONCE == libc::EPOLLET as u32
    }

    /// epoll_ctl(2) with the server's event. Errors are ignored: the instance may have been closed.
    pub(crate) fn control(&self, command: i32) {
        let mut event = self.event;
        // SAFETY: the event lives through the call.
        let _ = unsafe { real::epoll_ctl(self.epoll, command, self.fd, &raw mut event) };
    }
}

/// The watches of one client's file descriptors.
#[derive(Default)]
pub(crate) struct Watches(Vec<Watch>);

impl Watches {
    /// No watches.
    pub(crate) const fn new() -> Watches {
        Watches(Vec::new())
    }

    /// Adds a watch, or replaces that of the same instance and descriptor.
    pub(crate) fn add(&mut self, watch: Watch) {
        self.remove(watch.epoll, watch.fd);
        FILTERED.fetch_add(usize::from(watch.is_filtered), Ordering::Relaxed);
        self.0.push(watch);
    }

    /// Removes the watch of this instance and descriptor.
    pub(crate) fn remove(&mut self, epoll: RawFd, fd: RawFd) {
        self.retain(|watch| (watch.epoll, watch.fd) != (epoll, fd));
    }

    /// Removes all watches.
    pub(crate) fn clear(&mut self) {
        self.retain(|_| false);
    }

    fn retain(&mut self, stays: impl Fn(&Watch) -> bool) {
        let looks = self.0.iter().filter(|watch| !stays(watch) && watch.is_filtered).count();
        FILTERED.fetch_sub(looks, Ordering::Relaxed);
        self.0.retain(stays);
    }

    /// The filtered watch whose events have this data.
    pub(crate) fn named(&self, epoll: RawFd, data: u64) -> Option<Watch> {
        let is_it = |watch: &&Watch| watch.is_filtered && watch.epoll == epoll && { watch.event.u64 } == data;
        self.0.iter().find(is_it).copied()
    }

    /// Called before the client's last descriptor in any process of the server is closed.
    pub(crate) fn end(&mut self) {
        self.0.iter().for_each(Watch::end);
        self.clear();
    }

    /// Called before a late hand-over replaces `fd`. If a forked process has the old connection open, the instance
    /// would otherwise report its end forever.
    pub(crate) fn pause(&self, fd: RawFd) {
        self.0.iter().filter(|watch| watch.fd == fd).for_each(Watch::end);
    }

    /// Called after a late hand-over replaced `fd`: adds the new socket to the instances.
    pub(crate) fn resume(&mut self, fd: RawFd) {
        for watch in self.0.iter_mut().filter(|watch| watch.fd == fd) {
            if watch.is_filtered && !safe::is_blocking(fd) {
                watch.is_filtered = false;
                FILTERED.fetch_sub(1, Ordering::Relaxed);
            }
            watch.control(libc::EPOLL_CTL_ADD);
        }
    }

    /// Re-arms all edge-triggered watches: there are bytes that were not reported, or a write that failed with EAGAIN may
    /// succeed now.
    pub(crate) fn rearm(&self) {
        self.0.iter().filter(|watch| watch.is_edge_triggered()).for_each(|watch| watch.control(libc::EPOLL_CTL_MOD));
    }
}
