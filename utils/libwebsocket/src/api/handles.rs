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
    /// A backlog of 0 or less: the default.
    pub(crate) fn bind(path: &Path, mode: u32, backlog: i32) -> Result<WsListener, PlaceError> {
        let usual = Options::default();
        let backlog = if backlog > 0 { backlog } else { usual.backlog };
        let options = Options { mode: mode & 0o777, backlog, ..usual };
        // The listener's own accept4(2) is interposed too.
        arrival::leave_alone();
        let inner = Listener::bind(path, &options)?;
        table::put(inner.socket().as_raw_fd(), Entry::Left);
        Ok(WsListener { inner })
    }
}

/// WS_MORE of websocket.h.
const MORE: c_int = 1;

thread_local! {
    /// A receive buffer for the next client of the thread. Only a client with unread messages owns one.
    static SPARE: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// A client of the package `websocket` that returns one message a call.
pub struct WsClient {
    pub(crate) inner: Client,
    /// Received messages that were not returned yet: a buffer, their start and their end.
    buffer: Option<(Buffer, usize, usize)>,
    /// A message that did not fit into the caller's buffer.
    refused: Option<(Opcode, Box<[u8]>)>,
    close_code: CloseCode,
    close_reason: CString,
}

impl WsClient {
    pub(crate) fn new(inner: Client) -> WsClient {
        let close_code = CloseCode::ABNORMAL;
        WsClient { inner, buffer: None, refused: None, close_code, close_reason: CString::default() }
    }

    /// Passes the next message to `deliver`, which returns false if it does not fit. Returns its opcode and size.
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

    /// A message that was received before.
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
                // Send the pong now; the next call returns a persistent error.
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

    /// 1005: the close frame had no code; 1006: no close frame was received.
    pub(crate) fn close_code(&self) -> u16 {
        self.close_code.0
    }

    pub(crate) fn close_reason(&self) -> &CStr {
        &self.close_reason
    }

    /// The error's number. Keeps the code and the reason of a close frame for later calls.
    fn note(&mut self, error: &Error) -> c_int {
        if let Error::Closed { code, reason } = error {
            self.close_code = code.unwrap_or(CloseCode::NO_STATUS);
            let upto_nul = reason.split('\0').next().unwrap_or_default();
            self.close_reason = CString::new(upto_nul).unwrap_or_default();
        }
        error.number()
    }
}

/// Keeps the buffer for the thread's next client, unless the thread is ending.
fn give_back(buffer: Buffer) {
    let _ = SPARE.try_with(|spare| spare.set(Some(buffer)));
}
