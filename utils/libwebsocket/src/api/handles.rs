//! What `struct ws_listener` and `struct ws_client` point to.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_int};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use server::place::PlaceError;
use server::{Buffer, Client, CloseCode, Error, Listener, Opcode, Options};

use super::error::{self, Number, errno};
use crate::arrival;
use crate::table::{self, Entry};

/// A listener of the package `websocket`.
pub struct WsListener {
    pub(crate) inner: Listener,
}

impl WsListener {
    /// A backlog of 0 or less is the usual one.
    pub(crate) fn bind(path: &Path, mode: u32, backlog: i32) -> Result<WsListener, PlaceError> {
        let usual = Options::default();
        let backlog = if backlog > 0 { backlog } else { usual.backlog };
        let options = Options { mode: mode & 0o777, backlog, ..usual };
        // The listener accepts through the very functions that this library stands in for.
        arrival::leave_alone();
        let inner = Listener::bind(path, &options)?;
        table::put(inner.socket().as_raw_fd(), Entry::Left);
        Ok(WsListener { inner })
    }
}

/// WS_MORE.
const MORE: c_int = 1;

thread_local! {
    /// A buffer for whichever client of the thread receives next: those for whom nothing waits own none.
    static SPARE: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// A client of the package `websocket`, for callers who take one message at a time.
pub struct WsClient {
    pub(crate) inner: Client,
    /// What was received and not taken: from the first number to the second.
    buffer: Option<(Buffer, usize, usize)>,
    /// A message that did not fit where the caller wanted it.
    refused: Option<(Opcode, Box<[u8]>)>,
    close_code: CloseCode,
    close_reason: CString,
}

impl WsClient {
    pub(crate) fn new(inner: Client) -> WsClient {
        let close_code = CloseCode::ABNORMAL;
        WsClient { inner, buffer: None, refused: None, close_code, close_reason: CString::default() }
    }

    /// The next message, given to `deliver`, which says whether it had room for it. What it is, and its size.
    pub(crate) fn receive(&mut self, deliver: impl Fn(&[u8]) -> bool) -> Result<(Opcode, usize), c_int> {
        if let Some((opcode, payload)) = self.refused.take() {
            if deliver(&payload) {
                return Ok((opcode, payload.len()));
            }
            self.refused = Some((opcode, payload));
            return Err(errno(Errno::EMSGSIZE));
        }
        loop {
            if let Some(received) = self.take(&deliver)? {
                return Ok(received);
            }
            let mut buffer = SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default();
            match self.inner.fill(buffer.bytes_mut()) {
                Ok(size) => self.buffer = Some((buffer, 0, size)),
                Err(error) => {
                    give_back(buffer);
                    return Err(self.note(&error));
                }
            }
        }
    }

    /// One of the messages that are there already.
    fn take(&mut self, deliver: impl Fn(&[u8]) -> bool) -> Result<Option<(Opcode, usize)>, c_int> {
        let Some((mut buffer, start, end)) = self.buffer.take() else { return Ok(None) };
        let mut rest = buffer.bytes_mut().get_mut(start..end).unwrap_or_default();
        let taken = self.inner.take(&mut rest).map(|message| {
            message.map(|message| {
                let is_delivered = deliver(&message.payload);
                let size = message.payload.len();
                let refused = (!is_delivered).then(|| message.payload.into_owned());
                (message.opcode, size, refused)
            })
        });
        let left = rest.len();
        if left > 0 {
            self.buffer = Some((buffer, end - left, end));
        } else {
            give_back(buffer);
            if self.inner.has_pong() {
                // A ping's answer does not wait for the next call; what is wrong that one will tell.
                let _ = self.inner.push();
            }
        }
        match taken {
            Ok(Some((opcode, size, None))) => Ok(Some((opcode, size))),
            Ok(Some((opcode, _, Some(payload)))) => {
                self.refused = Some((opcode, payload.into()));
                Err(errno(Errno::EMSGSIZE))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(self.note(&error)),
        }
    }

    pub(crate) fn send(&mut self, opcode: c_int, payload: &[u8], flags: c_int) -> c_int {
        let opcode = match opcode {
            1 => Opcode::Text,
            2 => Opcode::Binary,
            _ => return errno(Errno::EINVAL),
        };
        match flags {
            0 => error::result_of(self.inner.send(opcode, payload)),
            MORE => error::result_of(self.inner.gather(opcode, payload)),
            _ => errno(Errno::EINVAL),
        }
    }

    pub(crate) fn next_size(&self) -> usize {
        self.refused.as_ref().map_or(0, |(_, payload)| payload.len())
    }

    pub(crate) fn has_buffered(&self) -> bool {
        self.buffer.is_some() || self.refused.is_some()
    }

    /// 1005: its close frame had none; 1006: there was no close frame.
    pub(crate) fn close_code(&self) -> u16 {
        self.close_code.0
    }

    pub(crate) fn close_reason(&self) -> &CStr {
        &self.close_reason
    }

    /// The number, after what the caller may ask for later was noted.
    fn note(&mut self, error: &Error) -> c_int {
        if let Error::Closed { code, reason } = error {
            self.close_code = code.unwrap_or(CloseCode::NO_STATUS);
            let upto_nul = reason.split('\0').next().unwrap_or_default();
            self.close_reason = CString::new(upto_nul).unwrap_or_default();
        }
        error.number()
    }
}

/// To the thread, unless it has one, or ends.
fn give_back(buffer: Buffer) {
    let _ = SPARE.try_with(|spare| spare.set(Some(buffer)));
}
