//! What a session asks of the gateway.

use std::ffi::CString;
use std::ops::Range;

use super::ending::Ending;
use crate::driver::{OpenFor, SocketType};
use crate::observe::log::Level;
use crate::route::hello::Hello;

/// One of the two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The browser, app or device.
    Client,
    /// The UNIX server.
    Backend,
}

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

/// What a session wants to receive from a side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// Nothing for now.
    Nothing,
    /// One receive, then Nothing again.
    Once,
    /// All that comes.
    Flow,
    /// All that comes, packet by packet.
    Packets,
}

/// What the gateway is to do, in order.
#[derive(Debug)]
pub enum Action {
    /// Send this part of the chunk that was just handed in. At most one each time that a chunk is handed in.
    Forward {
        /// To whom.
        to: Side,
        /// Which bytes of the chunk's buffer.
        range: Range<usize>,
    },
    /// The session took this chunk only as far as `start`: hand the rest of it in again when others have had their turn.
    /// It comes before the chunk's `Forward`.
    Later {
        /// Where the chunk came from.
        from: Side,
        /// The first byte of the rest, within the chunk's buffer.
        start: usize,
    },
    /// As `Later`, for bytes that are in no chunk.
    LaterBytes {
        /// Where they came from.
        from: Side,
        /// `POOL_HEADROOM` bytes without meaning, then the bytes to be handed in.
        buffer: Box<[u8]>,
    },
    /// Send these bytes.
    Send {
        /// To whom.
        to: Side,
        /// What.
        bytes: Box<[u8]>,
    },
    /// Send these bytes and never anything behind them: a close frame (RFC 6455 section 5.5.1).
    SendLast {
        /// To whom.
        to: Side,
        /// What.
        bytes: Box<[u8]>,
    },
    /// Send this pong; where the peer takes nothing, the latest one replaces those before it (RFC 6455 section
    /// 5.5.3).
    Pong {
        /// To whom.
        to: Side,
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
    /// Receive from a side, or not.
    Demand(Side, Demand),
    /// Send no more to this side, once all that is queued is sent.
    Finish(Side),
    /// Forget this side: nothing is queued for it or wanted from it.
    Abandon(Side),
    /// One line for the operator.
    Log(Level, String),
    /// The connection is over.
    End(Ending),
}

impl Action {
    /// Opens a name; names have no NUL in them, and an empty path is found nowhere.
    pub fn open(folder: Folder, name: &str, purpose: OpenFor) -> Action {
        Action::Open { folder, path: CString::new(name).unwrap_or_default(), purpose }
    }
}

/// A list of actions that keeps its memory.
#[derive(Default, Debug)]
pub struct Actions {
    list: Vec<Action>,
    /// Frames and lines that were decoded for these actions.
    frames: usize,
}

impl Actions {
    /// Adds one.
    pub fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// Adds many.
    pub fn extend(&mut self, actions: impl Iterator<Item = Action>) {
        self.list.extend(actions);
    }

    /// Takes them out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Action> + '_ {
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
