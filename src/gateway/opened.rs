//! What a connection opened last: a page that is read, or a socket that is connected to; what is in flight for it, and
//! what it is waited for. It is there while a page is sent and while a backend is looked for.

use super::devices::Place;
use super::slots::Key;
use crate::driver::{Driver, FileId, Share, Token};
use crate::route::hello::Hello;

/// The opened file.
#[derive(Debug)]
pub(super) struct Opened<H> {
    /// The slot of its operations.
    pub(super) key: Key,
    handle: Option<H>,
    is_kept: bool,
    /// Opens, reads and connects; it is not closed before they have ended.
    in_flight: u8,
    /// Where the next read begins, if one waits to be asked for.
    read_from: Option<u64>,
    /// Where the last one began.
    last_offset: u64,
    /// A connect that may take long is in flight.
    is_connecting: bool,
    /// The socket that it is.
    pub(super) socket: Option<FileId>,
    /// The place at the device that it is: as long as the device is the backend.
    pub(super) place: Option<Place>,
    /// It waits for room in the socket's backlog.
    pub(super) is_queued: bool,
    /// A hand-over that waits until nothing else is in flight for its client.
    pub(super) handover: Option<Parcel>,
    /// The hand-over that is in flight is to be watched.
    pub(super) is_watched: bool,
}

/// What goes along with a client's socket.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) reply: Box<[u8]>,
    pub(super) hello: Option<Box<Hello>>,
}

impl<H> Opened<H> {
    /// Nothing is open yet.
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
        }
    }

    /// The handle, while it is open.
    pub(super) fn handle(&self) -> Option<&H> {
        self.handle.as_ref()
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight == 0 && self.handle.is_none() && !self.is_kept && !self.is_queued && self.place.is_none()
    }

    /// An operation has been asked for.
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A connect that may take long has been asked for.
    pub(super) fn begin_connecting(&mut self) {
        self.begin();
        self.is_connecting = true;
    }

    /// An operation has ended.
    pub(super) fn end(&mut self) {
        self.in_flight -= 1;
        self.is_connecting = false;
    }

    /// Takes the handle out, to be used for something else.
    pub(super) fn take(&mut self) -> Option<H> {
        self.handle.take()
    }

    /// It is not wanted any more, nor is the connection that is being made. `connect` is the token of that.
    pub(super) fn give_up<D: Driver<Handle = H>>(&mut self, connect: Token, driver: &mut D) {
        self.is_kept = false;
        self.handover = None;
        if std::mem::take(&mut self.is_connecting) {
            driver.cancel(connect);
        }
    }

    /// It is wanted, or not any more.
    pub(super) fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// A newly opened one takes the place of the one before.
    pub(super) fn set<D: Driver<Handle = H>>(&mut self, handle: Option<H>, driver: &mut D) {
        if let Some(old) = std::mem::replace(&mut self.handle, handle) {
            driver.close(old);
        }
    }

    /// Asks for a buffer full from this place on.
    pub(super) fn want_read(&mut self, offset: u64) {
        self.read_from = Some(offset);
    }

    /// A read has ended; one that found the pool empty is asked for again.
    pub(super) fn on_read(&mut self, is_starved: bool) {
        self.end();
        if is_starved {
            self.want_read(self.last_offset);
        }
    }

    /// Asks the driver for what is wanted, or closes. Some: a read waits for a buffer of this share.
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
