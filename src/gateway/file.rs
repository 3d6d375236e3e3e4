//! What a connection opened last: a page that is read, or a socket that is connected to; and what is in flight for
//! it.

use crate::driver::{Driver, Share, Token};

/// The opened file.
#[derive(Debug)]
pub struct File<H> {
    handle: Option<H>,
    is_kept: bool,
    /// Opens, reads and connects; it is not closed before they have ended.
    in_flight: u8,
    /// Where the next read begins, if one waits to be asked for.
    read_from: Option<u64>,
    /// Where the last one began.
    last_offset: u64,
    /// A TCP connection is being made, which may take long.
    is_connecting: bool,
}

impl<H> Default for File<H> {
    fn default() -> File<H> {
        File { handle: None, is_kept: false, in_flight: 0, read_from: None, last_offset: 0, is_connecting: false }
    }
}

impl<H> File<H> {
    /// The handle, while it is open.
    pub fn handle(&self) -> Option<&H> {
        self.handle.as_ref()
    }

    /// Whether nothing is in flight for it.
    pub fn is_still(&self) -> bool {
        self.in_flight == 0
    }

    /// An operation has been asked for.
    pub fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A TCP connection is being made.
    pub fn begin_connecting(&mut self) {
        self.begin();
        self.is_connecting = true;
    }

    /// An operation has ended.
    pub fn end(&mut self) {
        self.in_flight -= 1;
        self.is_connecting = false;
    }

    /// Takes the handle out, to be used for something else.
    pub fn take(&mut self) -> Option<H> {
        self.handle.take()
    }

    /// It is not wanted any more, nor is the connection that is being made.
    pub fn give_up<D: Driver<Handle = H>>(&mut self, connect: Token, driver: &mut D) {
        self.is_kept = false;
        if std::mem::take(&mut self.is_connecting) {
            driver.cancel(connect);
        }
    }

    /// It is wanted, or not any more.
    pub fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// A newly opened one takes the place of the one before.
    pub fn set<D: Driver<Handle = H>>(&mut self, handle: Option<H>, driver: &mut D) {
        if let Some(old) = std::mem::replace(&mut self.handle, handle) {
            driver.close(old);
        }
    }

    /// Asks for a buffer full from this place on.
    pub fn want_read(&mut self, offset: u64) {
        self.read_from = Some(offset);
    }

    /// A read has ended; one that found the pool empty is asked for again.
    pub fn on_read(&mut self, is_starved: bool) {
        self.end();
        if is_starved {
            self.want_read(self.last_offset);
        }
    }

    /// Asks the driver for what is wanted, or closes. Some: a read waits for a buffer of this share.
    pub fn settle<D: Driver<Handle = H>>(&mut self, token: Token, driver: &mut D) -> Option<Share> {
        if !self.is_kept && self.is_still() {
            self.set(None, driver);
        }
        let (Some(handle), Some(offset), true) = (&self.handle, self.read_from, self.is_kept) else { return None };
        if driver.buffers_free(Share::Requests) == 0 {
            return Some(Share::Requests);
        }
        self.read_from = None;
        self.last_offset = offset;
        self.in_flight += 1;
        driver.read(token, handle, offset);
        None
    }
}
