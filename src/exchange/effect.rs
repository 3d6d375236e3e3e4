//! What an exchange asks of the gateway.

use std::ffi::CString;
use std::ops::Range;

use super::ending::Ending;
use crate::driver::{OpenFor, SocketType};
use crate::observe::log::Level;
use crate::route::hello::Hello;
use crate::types::{Demand, End};

/// Received bytes, with room before them for a header.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The whole buffer.
    pub buffer: &'a mut [u8],
    /// The first received byte.
    pub start: usize,
    /// Behind the last received byte.
    pub end: usize,
}

/// Which folder a path is opened in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Folder {
    /// The servers' sockets.
    Docroot,
    /// The pages.
    Www,
    /// None: the path is absolute, and a link's.
    Anywhere,
}

/// What the gateway is to do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send this part of the chunk that was just handed in. At most one each time that a chunk is handed in.
    Forward {
        /// To whom.
        to: End,
        /// Which bytes of the chunk's buffer.
        range: Range<usize>,
    },
    /// The exchange took this chunk only as far as `start`: hand the rest of it in again when others have had their turn.
    /// It comes before the chunk's `Forward`.
    Later {
        /// Where the chunk came from.
        from: End,
        /// The first byte of the rest, within the chunk's buffer.
        start: usize,
    },
    /// As `Later`, for bytes that are in no chunk.
    LaterBytes {
        /// Where they came from.
        from: End,
        /// `POOL_HEADROOM` bytes without meaning, then the bytes to be handed in.
        buffer: Box<[u8]>,
    },
    /// Send these bytes.
    Send {
        /// To whom.
        to: End,
        /// What.
        bytes: Box<[u8]>,
    },
    /// Send these bytes and never anything behind them: a close frame (RFC 6455 section 5.5.1).
    SendLast {
        /// To whom.
        to: End,
        /// What.
        bytes: Box<[u8]>,
    },
    /// Send this pong; where the peer takes nothing, the latest one replaces those before it (RFC 6455 section
    /// 5.5.3).
    Pong {
        /// To whom.
        to: End,
        /// The whole frame.
        bytes: Box<[u8]>,
    },
    /// Open a path; answered by `Input::Opened`. What was opened before is closed.
    Open {
        /// Where.
        folder: Folder,
        /// The path within it.
        path: CString,
        /// What for.
        purpose: OpenFor,
    },
    /// Connect to the opened socket; answered by `Input::Connected`.
    Connect(SocketType),
    /// Connect to a link's TCP server; answered by `Input::Connected`.
    ConnectTcp {
        /// Which of the site's links.
        link: usize,
        /// Which of its addresses.
        address: usize,
    },
    /// Hand the client over to the opened socket, as soon as nothing else is in flight for it; answered by
    /// `Input::HandedOver`.
    HandOver {
        /// The 101.
        reply: Box<[u8]>,
        /// What the server is told with the client's address.
        hello: Option<Box<Hello>>,
    },
    /// The socket's backlog is full: tell with `Input::Retry` when this client is to try again.
    AwaitBacklog,
    /// What connects, or hands over, is to end now; its answer tells how far it came.
    CancelConnect,
    /// Tell the server who its client is, before anything else.
    Hello(Box<Hello>),
    /// What was opened is the server from here on.
    UseDevice,
    /// Read the opened file; answered by `Input::FileBytes`.
    ReadFile {
        /// From this byte on.
        offset: u64,
    },
    /// The opened file is not needed any more.
    CloseFile,
    /// Receive from a end, or not.
    Demand(End, Demand),
    /// Send no more to this end, once all that is queued is sent.
    Finish(End),
    /// Forget this end: nothing is queued for it or wanted from it.
    Abandon(End),
    /// One line for the operator.
    Log(Level, String),
    /// The exchange is over.
    Over(Ending),
}

impl Effect {
    /// Opens a name; names have no NUL in them, and an empty path is found nowhere.
    pub fn open(folder: Folder, name: &str, purpose: OpenFor) -> Effect {
        Effect::Open { folder, path: CString::new(name).unwrap_or_default(), purpose }
    }
}

/// A list of effects that keeps its memory.
#[derive(Default, Debug)]
pub struct Effects {
    list: Vec<Effect>,
    /// Frames and lines that were decoded for these effects.
    frames: usize,
}

impl Effects {
    /// Adds one.
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Adds many.
    pub fn extend(&mut self, effects: impl Iterator<Item = Effect>) {
        self.list.extend(effects);
    }

    /// Takes them out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.list.drain(..)
    }

    /// Counts frames or lines that were decoded.
    pub fn add_frames(&mut self, frames: usize) {
        self.frames += frames;
    }

    /// How many were counted since this was asked last.
    pub fn take_frames(&mut self) -> usize {
        std::mem::take(&mut self.frames)
    }
}
