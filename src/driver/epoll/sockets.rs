//! The table of descriptors, by their numbers: which operation reads, which waits to write, and the readiness that the
//! kernel reported.

use std::os::fd::RawFd;

use crate::driver::{Op, Receive, Token};

/// What a descriptor is, as far as its readiness depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum SocketKind {
    /// A UNIX socket, or not known.
    #[default]
    Unix,
    /// A TCP socket.
    Tcp,
    /// A listening socket.
    Listener,
    /// A terminal line or a named pipe.
    Device,
    /// A regular file whose open or read was left to a thread.
    SlowFile,
}

/// The interest that the kernel has registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Registration {
    /// None.
    #[default]
    None,
    /// Input alone.
    Input,
    /// Input and output.
    Both,
    /// The file cannot be polled, and is always ready (epoll_ctl(2), EPERM).
    Unpollable,
}

/// The operation that reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Reading {
    /// None.
    #[default]
    Nothing,
    /// Connections.
    Accept,
    /// Bytes or packets.
    Receive(Receive),
}

/// A descriptor's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Socket {
    /// Slot of the operation that reads.
    slot: u32,
    /// Generation of the operation that reads.
    generation: u32,
    /// WaitingKey of the send or connect that waits.
    pub(super) waiting: Option<WaitingKey>,
    pub(super) reading: Reading,
    pub(super) registration: Registration,
    pub(super) kind: SocketKind,
    /// Data, the end of the stream or an error may be there.
    pub(super) is_readable: bool,
    /// A short receive does not show that nothing is left.
    pub(super) is_greedy: bool,
    /// It is in the list of due descriptors.
    pub(super) is_due: bool,
}

/// A key in the table of waiting operations, plus one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WaitingKey(std::num::NonZeroU32);

impl WaitingKey {
    pub(super) fn new(index: usize) -> WaitingKey {
        WaitingKey(std::num::NonZeroU32::MIN.saturating_add(index as u32))
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Socket {
    /// Begins an operation that reads.
    pub(super) fn arm(&mut self, token: Token, reading: Reading) {
        debug_assert_eq!(self.reading, Reading::Nothing, "two receives at once would mix up the stream");
        (self.slot, self.generation, self.reading) = (token.slot, token.generation, reading);
    }

    /// Whether the operation that reads has this token.
    pub(super) fn is_read_by(&self, token: Token) -> bool {
        self.reading != Reading::Nothing && (self.slot, self.generation) == (token.slot, token.generation)
    }

    /// Whether the operation that reads can go on.
    pub(super) fn has_reading_to_do(&self) -> bool {
        self.is_readable && self.reading != Reading::Nothing
    }

    /// The token of the operation that reads.
    pub(super) fn token(&self) -> Token {
        let op = if self.reading == Reading::Accept { Op::Accept } else { Op::Receive };
        Token { slot: self.slot, generation: self.generation, op }
    }
}

/// All descriptors.
#[derive(Default)]
pub(super) struct Sockets {
    by_fd: Vec<Socket>,
    /// The descriptor of the slot's operations.
    by_slot: Vec<RawFd>,
}

impl Sockets {
    /// The state of an open descriptor.
    pub(super) fn at(&mut self, fd: RawFd) -> &mut Socket {
        let index = fd as usize;
        extend(&mut self.by_fd, index, Socket::default());
        &mut self.by_fd[index]
    }

    /// Begins with a new descriptor.
    pub(super) fn begin(&mut self, fd: RawFd, kind: SocketKind) {
        *self.at(fd) = Socket { kind, ..Socket::default() };
    }

    /// Forgets a descriptor that is closed.
    pub(super) fn end(&mut self, fd: RawFd) {
        self.begin(fd, SocketKind::default());
    }

    /// Remembers the descriptor of a slot's operations.
    pub(super) fn remember(&mut self, slot: u32, fd: RawFd) {
        let index = slot as usize;
        extend(&mut self.by_slot, index, -1);
        self.by_slot[index] = fd;
    }

    /// The descriptor of a slot's operations.
    pub(super) fn of_slot(&self, slot: u32) -> Option<RawFd> {
        self.by_slot.get(slot as usize).copied().filter(|fd| *fd >= 0)
    }
}

/// Extends a table to an index. It grows by an eighth, not by doubling: every idle client has a place.
fn extend<T: Clone>(table: &mut Vec<T>, index: usize, value: T) {
    if index >= table.len() {
        table.reserve_exact(index + 1 + index / 8 - table.len());
        table.resize(index + 1, value);
    }
}
