//! The effects that an exchange requests from the gateway.

use std::ffi::CString;
use std::ops::Range;
use std::sync::Arc;

use super::ending::Ending;
use crate::access::{Admitted, Ask};
use crate::clients::ClientPlace;
use crate::driver::{OpenFor, SocketType};
use crate::limits::POOL_HEADROOM;
use crate::observe::log::Level;
use crate::route::hello::Hello;
use crate::types::{Address, Demand, End};
use crate::upstream::{Node, NodeLink};

/// Received bytes, with headroom in front for a frame header.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    /// The whole buffer, headroom included.
    pub(crate) buffer: &'a mut [u8],
    /// Offset of the first received byte.
    pub(crate) start: usize,
    /// Offset after the last received byte.
    pub(crate) end: usize,
}

/// The base folder of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Folder {
    /// The folder of the backends' sockets (docroot).
    Docroot,
    /// The folder of the static files (www).
    Www,
    /// No base folder: the path is absolute and comes from a link.
    Anywhere,
}

/// One action for the gateway. Effects are performed in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send this part of the chunk that was just passed in. At most one for each chunk.
    Forward {
        /// The receiving end.
        to: End,
        /// Range within the chunk's buffer.
        range: Range<usize>,
    },
    /// The exchange consumed this chunk only up to `start`: pass the rest in again after other connections had their
    /// turn. Precedes the chunk's `Forward`.
    Later {
        /// The end that sent the chunk.
        from: End,
        /// Offset of the first unconsumed byte within the chunk's buffer.
        start: usize,
    },
    /// As `Later`, for bytes outside of a chunk.
    LaterBytes {
        /// The end that sent the bytes.
        from: End,
        /// `POOL_HEADROOM` unused bytes, then the bytes to pass in.
        buffer: Box<[u8]>,
    },
    /// Send these bytes.
    Send {
        /// The receiving end.
        to: End,
        /// The bytes, in order.
        bytes: Box<[u8]>,
    },
    /// Send these bytes, which end with a close frame, and nothing after them (RFC 6455 section 5.5.1).
    SendLast {
        /// The receiving end.
        to: End,
        /// The bytes, in order.
        bytes: Box<[u8]>,
    },
    /// Send this pong. While the peer accepts no bytes, the latest pong replaces the queued ones (RFC 6455 section
    /// 5.5.3).
    Pong {
        /// The receiving end.
        to: End,
        /// The complete frame.
        bytes: Box<[u8]>,
    },
    /// Open a path; the result is `Input::Opened`. A file that was opened before is closed.
    Open {
        /// The base folder.
        folder: Folder,
        /// The path, relative to `folder`.
        path: CString,
        /// The purpose, which decides the flags of the open.
        purpose: OpenFor,
    },
    /// Connect to the opened socket; the result is `Input::Connected`.
    Connect(SocketType),
    /// Connect to the TCP backend of a link; the result is `Input::Connected`.
    ConnectTcp {
        /// Index of the link in the server's links.
        link: usize,
        /// Index of the address in the link's addresses.
        address: usize,
    },
    /// Connect to a node of an upstream; the result is `Input::Connected`.
    ConnectNode {
        /// The node, which is a TCP server.
        node: Arc<Node>,
        /// Index of the address in the node's addresses.
        address: usize,
    },
    /// Use an idle connection to a node as the backend's; the result is `Input::TookIdle`.
    TakeIdle {
        /// The node.
        link: NodeLink,
        /// How long it may have been idle, in milliseconds.
        idle_ms_max: u64,
    },
    /// The bytes to and from the backend, which was just connected, pass TLS.
    Secure(NodeLink),
    /// The reply of the backend is whole, or it has ended: the connection is idle, or is closed.
    LeaveNode {
        /// The node.
        link: NodeLink,
        /// How long the connection may lie idle, in milliseconds. 0: it is closed.
        idle_ms: u64,
    },
    /// Hand the client over to the opened socket, as soon as no other operation is in flight for the client; the result
    /// is `Input::HandedOver`.
    HandOver {
        /// The complete 101 reply for the client.
        reply: Box<[u8]>,
        /// The record that accompanies the client's descriptor, with the client's address; None: no record.
        hello: Option<Box<Hello>>,
    },
    /// The socket's backlog is full: queue this client, and send `Input::Retry` when it may try again.
    AwaitBacklog,
    /// Cancel the connect or the hand-over in flight. It still completes, with the result of the last step.
    CancelConnect,
    /// Send the backend the record that describes the client, before any other byte.
    Hello(Box<Hello>),
    /// Use the opened device as the backend.
    UseDevice,
    /// Read the opened file; the result is `Input::FileBytes`.
    ReadFile {
        /// Offset in the file, in bytes.
        offset: u64,
    },
    /// Close the opened file.
    CloseFile,
    /// Start, limit or stop receiving from this end.
    Demand(End, Demand),
    /// Shut down the sending half towards this end after its send queue is empty.
    Finish(End),
    /// Drop this end: discard its send queue and stop receiving from it.
    Abandon(End),
    /// The request that is being answered is that of this client of the proxy, or the proxy's own: the address is now
    /// that of the connection, for its log line and the hello record.
    Client {
        /// Its address. Port 0: it is not known.
        address: Address,
        /// Its place, which is held until another client or `NoClient` replaces it. None: the request is the proxy's own,
        /// or it is refused, since all places of its address are taken.
        place: Option<ClientPlace>,
    },
    /// The request of `Client` is answered: its place is given back.
    NoClient,
    /// Ask the helper, or the admissions that are remembered: the result is `Input::Answered`. One question at a time.
    Ask(Box<Ask>),
    /// The answer is no longer needed: none comes.
    CancelAsk,
    /// The client of this request is admitted as this user. None: the next request needs nobody's admission yet.
    Admitted(Option<Box<Admitted>>),
    /// Write one line to the log.
    Log(Level, String),
    /// The exchange is finished.
    Over(Ending),
}

impl Effect {
    /// The effect that opens a name. Names contain no NUL; an empty path is never found.
    pub(crate) fn open(folder: Folder, name: &str, purpose: OpenFor) -> Effect {
        Effect::Open { folder, path: CString::new(name).unwrap_or_default(), purpose }
    }
}

/// A list of effects that is reused, so that its memory is allocated once.
#[derive(Default, Debug)]
pub(crate) struct Effects {
    list: Vec<Effect>,
    /// Number of frames and lines decoded since `take_frames`.
    frames: usize,
}

impl Effects {
    /// Appends an effect.
    pub(crate) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Appends all effects of the iterator.
    pub(crate) fn extend(&mut self, effects: impl Iterator<Item = Effect>) {
        self.list.extend(effects);
    }

    /// Removes all effects, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.list.drain(..)
    }

    /// Moves all effects to `out`. What they forward is in a buffer outside the pool, so it is sent as a copy.
    pub(crate) fn copy_to(&mut self, buffer: &[u8], out: &mut Effects) {
        out.add_frames(self.take_frames());
        out.extend(self.drain().map(|effect| match effect {
            Effect::Forward { to, range } => Effect::Send { to, bytes: buffer[range].into() },
            Effect::Later { from, start } => {
                Effect::LaterBytes { from, buffer: [&[0; POOL_HEADROOM][..], &buffer[start..]].concat().into() }
            }
            other => other,
        }));
    }

    /// Adds to the number of decoded frames and lines.
    pub(crate) fn add_frames(&mut self, frames: usize) {
        self.frames += frames;
    }

    /// Returns the number of decoded frames and lines since the last call.
    pub(crate) fn take_frames(&mut self) -> usize {
        std::mem::take(&mut self.frames)
    }
}
