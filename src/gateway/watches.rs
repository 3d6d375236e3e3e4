//! Verification of hand-overs (docs/backends.md, direct mode). A backend that does not receive descriptors
//! (SCM_RIGHTS) loses its clients without the gateway noticing. So the connection that carried a client is kept open
//! briefly, one at a time per socket, until a hand-over to that socket is seen to succeed. A backend that receives its
//! client closes that connection. A backend that reads the record with read(2) may answer it, or close with the record
//! unread.

use std::collections::HashSet;
use std::fmt;

use slab::Slab;

use super::slots::Slots;
use crate::driver::{Driver, Errno, FileId, Op, Receive, Received, Share};
use crate::limits::{RECEIVERS_KNOWN_MAX, WATCH_MS, WATCHES_MAX};
use crate::observe::log::{self, Level, Quoted};

/// A hand-over whose connection to the backend was kept.
#[derive(Debug)]
pub(crate) struct Watched<H> {
    /// The gateway's end of the connection.
    pub(crate) handle: H,
    /// The backend's socket.
    pub(crate) socket: FileId,
    /// Number of the client's connection, for the log.
    pub(crate) id: u64,
    /// Requested name, for the log.
    pub(crate) name: Box<str>,
}

/// All watched hand-overs and the results so far.
#[derive(Debug)]
pub(crate) struct Watches<H> {
    list: Slab<Entry<H>>,
    /// Sockets with a hand-over that is watched or in flight to be watched.
    busy: HashSet<FileId>,
    /// Sockets whose backends are known to receive descriptors.
    known: HashSet<FileId>,
    is_stopping: bool,
}

#[derive(Debug)]
struct Entry<H> {
    watched: Watched<H>,
    until_ms: u64,
    /// Whether the gateway shut the connection down: end of stream then says nothing about the backend.
    is_given_up: bool,
}

/// How a backend treated a client handed to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Received,
    /// The backend wrote to the connection that carried the client, which a correct receiver never does.
    Answered,
    /// The backend closed the connection without reading the record.
    Unread,
    Unknown,
}

impl<H> Default for Watches<H> {
    fn default() -> Watches<H> {
        Watches { list: Slab::new(), busy: HashSet::new(), known: HashSet::new(), is_stopping: false }
    }
}

impl<H> Watches<H> {
    /// Whether no hand-over is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether no hand-over is watched or in flight to be watched.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.list.is_empty() && self.busy.is_empty()
    }

    /// When the next watch times out, in ms. None: there is none.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.list.iter().filter(|(_, entry)| !entry.is_given_up).map(|(_, entry)| entry.until_ms).min()
    }

    /// Reserves a watch of the next hand-over to this socket. True: `begin` or `cancel` must follow.
    pub(crate) fn reserve(&mut self, socket: FileId) -> bool {
        let has_room = self.busy.len() < WATCHES_MAX && !self.is_stopping;
        has_room && !self.known.contains(&socket) && self.busy.insert(socket)
    }

    /// Releases the reservation after a failed hand-over.
    pub(crate) fn cancel(&mut self, socket: FileId) {
        self.busy.remove(&socket);
    }

    /// Begins to watch a completed hand-over, or closes its connection. In both cases the backend sees end of stream
    /// after the record.
    pub(crate) fn begin<D: Driver<Handle = H>>(
        &mut self,
        watched: Watched<H>,
        now_ms: u64,
        slots: &mut Slots<H>,
        driver: &mut D,
    ) {
        if self.is_stopping || !driver.may_receive(Share::Messages) {
            self.cancel(watched.socket);
            return driver.close(watched.handle);
        }
        let entry = self.list.vacant_entry();
        let key = slots.insert_watch(entry.key());
        driver.shutdown(&watched.handle, false);
        driver.receive(slots.token(key, Op::Receive), &watched.handle, Receive::Once);
        entry.insert(Entry { watched, until_ms: now_ms + WATCH_MS, is_given_up: false });
    }

    /// Handles a completed receive on a watched connection.
    pub(crate) fn on_received<D: Driver<Handle = H>>(&mut self, index: usize, received: Received, driver: &mut D) {
        let outcome = Outcome::of(&received);
        if let Received::Data(lease) = received {
            driver.release(lease);
        }
        let Some(Entry { watched, is_given_up, .. }) = self.list.try_remove(index) else { return };
        let Watched { handle, socket, id, name } = watched;
        driver.close(handle);
        self.busy.remove(&socket);
        match outcome {
            Outcome::Received if !is_given_up => self.learn(socket),
            Outcome::Answered | Outcome::Unread => {
                log::connection_event(Level::Warn, id, format_args!("{}: {outcome}", Quoted(&name)));
            }
            Outcome::Received | Outcome::Unknown => {}
        }
    }

    /// Gives up watches that have timed out.
    pub(crate) fn on_time<D: Driver<Handle = H>>(&mut self, now_ms: u64, driver: &mut D) {
        for (_, entry) in self.list.iter_mut().filter(|(_, entry)| entry.until_ms <= now_ms) {
            entry.give_up(driver);
        }
    }

    /// Gives up all watches and begins no more.
    pub(crate) fn stop<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        self.is_stopping = true;
        self.list.iter_mut().for_each(|(_, entry)| entry.give_up(driver));
    }

    /// Records a socket as known. If the table is full, forgets all others, which are then watched again.
    fn learn(&mut self, socket: FileId) {
        if self.known.len() >= RECEIVERS_KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(socket);
    }
}

impl<H> Entry<H> {
    /// Ends the receive, whose completion closes the handle.
    fn give_up<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if !std::mem::replace(&mut self.is_given_up, true) {
            driver.shutdown(&self.watched.handle, true);
        }
    }
}

impl Outcome {
    fn of(received: &Received) -> Outcome {
        match received {
            Received::Data(_) => Outcome::Answered,
            Received::End => Outcome::Received,
            Received::Failed(Errno::ECONNRESET) => Outcome::Unread,
            Received::Failed(_) => Outcome::Unknown,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Received => "the backend received its client",
            Outcome::Answered => {
                "the backend answered the hand-over's record: it does not receive descriptors (recvmsg(2)), and its \
                 client is lost (1006): preload libwebsocket.so.1, use websocket.h, or leave direct out of options"
            }
            Outcome::Unread => {
                "the backend closed its connection before it had read all of the hand-over's record: its client is lost \
                 (1006) unless it has received the descriptor (recvmsg(2)): preload libwebsocket.so.1, use websocket.h, \
                 or leave direct out of options"
            }
            Outcome::Unknown => "it is unknown whether the backend received its client",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded() {
        let mut watches = Watches::<()>::default();
        let socket = |inode| FileId { inode, ..FileId::default() };
        for inode in 0..RECEIVERS_KNOWN_MAX as u64 {
            assert!(watches.reserve(socket(inode)) && !watches.reserve(socket(inode)), "one at a time");
            watches.cancel(socket(inode));
            watches.learn(socket(inode));
            assert!(!watches.reserve(socket(inode)), "it is known");
        }
        watches.learn(socket(u64::MAX));
        assert_eq!(watches.known.len(), 1);
        for inode in 0..WATCHES_MAX as u64 {
            assert!(watches.reserve(socket(inode)));
        }
        assert!(!watches.reserve(socket(1_000)), "too many at once");
    }
}
