//! The file or socket that a connection opened last: a page to read, or a backend to connect to. It exists while a
//! page is sent or a backend is being connected.

use super::devices::Place;
use super::slots::Key;
use crate::driver::{Driver, FileId, Share, Token};
use crate::route::hello::Hello;

/// State of an opened file and its operations.
#[derive(Debug)]
pub(super) struct Opened<H> {
    /// Slot of its operations.
    pub(super) key: Key,
    handle: Option<H>,
    is_kept: bool,
    /// Number of opens, reads and connects in flight. The handle is closed after all have completed.
    in_flight: u8,
    /// Offset of a read to submit. None: no read is wanted.
    read_from: Option<u64>,
    /// Offset of the last read.
    last_offset: u64,
    /// Whether a connect of unbounded duration is in flight.
    is_connecting: bool,
    /// Identity of the UNIX socket. None: not a UNIX socket.
    pub(super) socket: Option<FileId>,
    /// Permit of the device, held while the device is the backend. None: not a device.
    pub(super) place: Option<Place>,
    /// Whether it waits for room in the socket's listen backlog.
    pub(super) is_queued: bool,
    /// A hand-over to begin when nothing is in flight for the client.
    pub(super) handover: Option<Parcel>,
    /// Whether the hand-over in flight is to be watched.
    pub(super) is_watched: bool,
    /// The reply to a client whose bytes pass a stage: it is queued when the backend has its end of a socketpair(2).
    pub(super) late_reply: Option<Box<[u8]>>,
}

/// Data sent with a client socket.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) reply: Box<[u8]>,
    pub(super) hello: Option<Box<Hello>>,
}

impl<H> Opened<H> {
    /// Creates the state before the open completes.
    pub(super) fn new(key: Key) -> Opened<H> {
        Opened {
            key,
            handle: None,
            is_kept: false,
            in_flight: 0,
            read_from: None,
            last_offset: 0,
            is_connecting: false,
            socket: None,
            place: None,
            is_queued: false,
            handover: None,
            is_watched: false,
            late_reply: None,
        }
    }

    /// The handle. None: not open.
    pub(super) fn handle(&self) -> Option<&H> {
        self.handle.as_ref()
    }

    /// Whether it can be freed: nothing is open, in flight, wanted or queued.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight == 0 && self.handle.is_none() && !self.is_kept && !self.is_queued && self.place.is_none()
    }

    /// Counts a submitted operation.
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// Counts a submitted connect of unbounded duration.
    pub(super) fn begin_connecting(&mut self) {
        self.begin();
        self.is_connecting = true;
    }

    /// Counts a completed operation.
    pub(super) fn end(&mut self) {
        self.in_flight -= 1;
        self.is_connecting = false;
    }

    /// Removes the handle, so that it is not closed here.
    pub(super) fn take(&mut self) -> Option<H> {
        self.handle.take()
    }

    /// Releases the file and cancels a connect in flight. `connect` is the token of that connect.
    pub(super) fn give_up<D: Driver<Handle = H>>(&mut self, connect: Token, driver: &mut D) {
        self.is_kept = false;
        self.handover = None;
        if std::mem::take(&mut self.is_connecting) {
            driver.cancel(connect);
        }
    }

    /// Sets whether the file is still wanted.
    pub(super) fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// Replaces the handle and closes the previous one.
    pub(super) fn set<D: Driver<Handle = H>>(&mut self, handle: Option<H>, driver: &mut D) {
        if let Some(old) = std::mem::replace(&mut self.handle, handle) {
            driver.close(old);
        }
    }

    /// Requests a read of one pool buffer at `offset`.
    pub(super) fn want_read(&mut self, offset: u64) {
        self.read_from = Some(offset);
    }

    /// Handles a completed read. A read that failed because the pool was empty is requested again.
    pub(super) fn on_read(&mut self, is_starved: bool) {
        self.end();
        if is_starved {
            self.want_read(self.last_offset);
        }
    }

    /// Submits a wanted read, or closes an unwanted file. Some: a read waits for a pool buffer of this share.
    pub(super) fn settle<D: Driver<Handle = H>>(&mut self, read: Token, driver: &mut D) -> Option<Share> {
        if !self.is_kept && self.in_flight == 0 {
            self.set(None, driver);
        }
        let (Some(handle), Some(offset), true) = (&self.handle, self.read_from, self.is_kept) else { return None };
        if driver.buffers_free(Share::Requests) == 0 {
            return Some(Share::Requests);
        }
        self.read_from = None;
        self.last_offset = offset;
        self.in_flight += 1;
        driver.read(read, handle, offset);
        None
    }
}
