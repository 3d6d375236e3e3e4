//! The ring: operations in, completions out, tokens that say which is whose.

use crate::buffers::Buffers;
use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use nix::sys::socket::MsgFlags;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use uakari_bench::Result;

const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4096;

/// What a completion is about; a side is 0 for the client and 1 for the backend.
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
    /// A count, or a negative errno.
    pub result: i32,
    /// The buffer that was filled.
    pub buffer: Option<u16>,
    /// Whether a multishot operation goes on.
    pub more: bool,
}

/// The io_uring.
pub struct Ring {
    /// The ring itself, for buffers to be lent to it.
    pub inner: IoUring,
}

impl Ring {
    /// Sets the ring up; all later calls must come from this thread.
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

    /// Submits all that was pushed, waits for a completion, takes all there are.
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

    /// Accepts until told otherwise.
    pub fn accept(&mut self, listener: BorrowedFd) -> Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(nix::sys::socket::SockFlag::SOCK_CLOEXEC.bits())
            .build();
        self.push(entry, Token::Accept)
    }

    /// Receives from a socket until told otherwise; it must stay open until then.
    pub fn receive(&mut self, fd: BorrowedFd, buffers: &Buffers, token: Token) -> Result<()> {
        let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), buffers.group()).build();
        self.push(entry, token)
    }

    /// Sends a lent-out buffer's bytes, all of them unless the connection breaks. Socket and
    /// buffer belong to the kernel until then.
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
