//! What the kernel may still use: the memory of operations that have not completed.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{SockaddrStorage, UnixAddr};

use super::handover::{self, Chain};
use super::results::{kind_of, own, set_blocking};
use crate::driver::{Batch, Completion, Event, OpenFor, Token};
use crate::limits::{OPEN_TRIES_MAX, SEND_SEGMENTS_MAX};

/// An operation whose memory the kernel may still use.
pub(super) enum InFlight {
    Send { token: Token, batch: Batch, _message: Option<Box<Message>> },
    Open { token: Token, purpose: OpenFor, lookup: Lookup },
    Connect { token: Token, socket: OwnedFd, _address: Box<ServerAddress> },
    HandOver { token: Token, chain: Box<Chain> },
}

impl InFlight {
    /// The operation once more, where it failed for a moment only and may be tried again. openat2(2): with
    /// `RESOLVE_BENEATH`, a walk across `..` fails with EAGAIN while anything is renamed or mounted anywhere.
    pub(super) fn again(&mut self, result: Result<usize, Errno>) -> Option<squeue::Entry> {
        match (self, result) {
            (InFlight::Open { lookup, .. }, Err(Errno::EAGAIN | Errno::EINTR)) => {
                lookup.tries_left = lookup.tries_left.checked_sub(1)?;
                Some(lookup.entry())
            }
            _ => None,
        }
    }

    /// Whose it is.
    pub(super) fn token(&self) -> Token {
        match self {
            InFlight::Send { token, .. }
            | InFlight::Open { token, .. }
            | InFlight::Connect { token, .. }
            | InFlight::HandOver { token, .. } => *token,
        }
    }
}

/// A path that is being opened.
pub(super) struct Lookup {
    /// Where it begins. Whoever asked keeps it open until the completion.
    folder: types::Fd,
    path: CString,
    how: Box<types::OpenHow>,
    tries_left: u32,
}

impl Lookup {
    /// One that may be tried `OPEN_TRIES_MAX` times.
    pub(super) fn new(folder: types::Fd, path: CString, how: types::OpenHow) -> Lookup {
        Lookup { folder, path, how: Box::new(how), tries_left: OPEN_TRIES_MAX - 1 }
    }

    /// The operation. It points into this, which has to outlive it.
    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::OpenAt2::new(self.folder, self.path.as_ptr(), &raw const *self.how).build()
    }
}

/// What is connected to.
pub(super) enum ServerAddress {
    Unix(UnixAddr),
    Tcp(SockaddrStorage),
}

pub(super) struct Message {
    pub(super) header: libc::msghdr,
    pub(super) segments: [libc::iovec; SEND_SEGMENTS_MAX],
}

/// What has become of it. `step` counts within a chain, which completes where it ends.
pub(super) fn complete(done: InFlight, step: u8, result: Result<usize, Errno>) -> Completion<OwnedFd> {
    match done {
        InFlight::HandOver { token, chain } => {
            Completion { token, event: Event::HandedOver(handover::end(*chain, step, result)) }
        }
        InFlight::Send { token, batch, .. } => Completion { token, event: Event::Sent { batch, result } },
        InFlight::Open { token, purpose, .. } => {
            let opened = result.map(own).and_then(|fd| kind_of(&fd, purpose).map(|kind| (fd, kind)));
            Completion { token, event: Event::Opened(opened) }
        }
        InFlight::Connect { token, socket, .. } => {
            let connected = result.and_then(|_| set_blocking(&socket)).map(|()| socket);
            Completion { token, event: Event::Connected(connected) }
        }
    }
}
