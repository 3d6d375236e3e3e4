//! The ring: operations, completions, and tokens that identify them.

use crate::buffers::Buffers;
use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use nix::sys::socket::MsgFlags;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use uakari_bench::Result;

const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4096;

/// The operation that a completion belongs to. Side 0 is the client, 1 the backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token {
    Accept,
    Close,
    Receive { slot: usize, side: usize },
    Send { slot: usize, side: usize },
}

/// A completion.
#[derive(Clone, Copy)]
pub struct Done {
    pub token: Token,
    /// A byte count, or a negative errno.
    pub result: i32,
    /// The buffer that was filled; None: no buffer was used.
    pub buffer: Option<u16>,
    /// The multishot operation continues.
    pub more: bool,
}

/// The io_uring.
pub struct Ring {
    /// The ring, for registering buffers.
    pub inner: IoUring,
}

impl Ring {
    /// Creates the ring. All later calls must be made by this thread.
    pub fn new() -> Result<Ring> {
        let inner = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(|error| format!("io_uring: {error} (see also ulimit -l)"))?;
        Ok(Ring { inner })
    }

    /// Submits all pushed operations, waits for a completion, and returns all that are available.
    pub fn turn(&mut self, done: &mut Vec<Done>) -> Result<()> {
        match self.inner.submit_and_wait(1) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => drop(other?),
        }
        done.extend(self.inner.completion().map(|entry| Done {
            token: Token::from_bits(entry.user_data()),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        }));
        Ok(())
    }

    /// Starts a multishot accept.
    pub fn accept(&mut self, listener: BorrowedFd) -> Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(nix::sys::socket::SockFlag::SOCK_CLOEXEC.bits())
            .build();
        self.push(entry, Token::Accept)
    }

    /// Starts a multishot receive. The socket must stay open until it ends.
    pub fn receive(&mut self, fd: BorrowedFd, buffers: &Buffers, token: Token) -> Result<()> {
        let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), buffers.group()).build();
        self.push(entry, token)
    }

    /// Sends all bytes of a received buffer, unless the connection breaks. Socket and buffer must
    /// stay untouched until the completion.
    pub fn send(&mut self, fd: BorrowedFd, bytes: (*const u8, u32), token: Token) -> Result<()> {
        let flags = MsgFlags::MSG_WAITALL | MsgFlags::MSG_NOSIGNAL;
        let entry = opcode::Send::new(Fd(fd.as_raw_fd()), bytes.0, bytes.1).flags(flags.bits()).build();
        self.push(entry, token)
    }

    /// Closes a socket on which nothing is in flight.
    pub fn close(&mut self, fd: OwnedFd) -> Result<()> {
        let entry = opcode::Close::new(Fd(fd.into_raw_fd())).build();
        self.push(entry, Token::Close)
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) -> Result<()> {
        let entry = entry.user_data(token.to_bits());
        if self.inner.submission().is_full() {
            self.inner.submit()?;
        }
        // SAFETY: the operations above name sockets and buffers that the ring's user keeps until
        // their completion, and the listener, which lives as long as the ring.
        let pushed = unsafe { self.inner.submission().push(&entry) };
        Ok(pushed?)
    }
}

impl Token {
    fn to_bits(self) -> u64 {
        let (kind, slot, side) = match self {
            Token::Accept => (0, 0, 0),
            Token::Close => (1, 0, 0),
            Token::Receive { slot, side } => (2, slot, side),
            Token::Send { slot, side } => (3, slot, side),
        };
        (slot as u64) << 3 | (side as u64) << 2 | kind
    }

    fn from_bits(bits: u64) -> Token {
        let slot = (bits >> 3) as usize;
        let side = (bits >> 2 & 1) as usize;
        match bits & 3 {
            0 => Token::Accept,
            1 => Token::Close,
            2 => Token::Receive { slot, side },
            _ => Token::Send { slot, side },
        }
    }
}
