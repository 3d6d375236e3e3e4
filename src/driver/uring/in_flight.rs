//! The memory of operations that have not completed, which the kernel may still use.

use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{SockaddrStorage, UnixAddr};

use super::handover::{self, Chain};
use crate::driver::opening::{self, with_kind};
use crate::driver::{Batch, Completion, Event, OpenFor, Token, connect, descriptors};
use crate::limits::{OPEN_TRIES_MAX, SEND_SEGMENTS_MAX};

/// An operation whose memory the kernel may still use.
pub(super) enum InFlight {
    Send { token: Token, batch: Batch, _message: Option<Box<Message>> },
    Open { token: Token, purpose: OpenFor, lookup: Lookup },
    Connect { token: Token, socket: OwnedFd, _address: Box<BackendAddress> },
    HandOver { token: Token, chain: Box<Chain> },
}

impl InFlight {
    /// The operation again, if it failed with a transient error and has tries left. openat2(2): with `RESOLVE_BENEATH`,
    /// a ".." component fails with EAGAIN while any rename or mount is in progress on the system.
    pub(super) fn again(&mut self, result: Result<usize, Errno>) -> Option<squeue::Entry> {
        match (self, result) {
            (InFlight::Open { lookup, .. }, Err(Errno::EAGAIN | Errno::EINTR)) => {
                lookup.tries_left = lookup.tries_left.checked_sub(1)?;
                Some(lookup.entry())
            }
            _ => None,
        }
    }

    /// The token of the operation.
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
    /// The base folder. The caller keeps it open until the completion.
    folder: types::Fd,
    path: CString,
    how: Box<types::OpenHow>,
    tries_left: u32,
}

impl Lookup {
    /// A lookup with `OPEN_TRIES_MAX` tries.
    pub(super) fn new(path: CString, lookup: opening::OpenRequest) -> Lookup {
        let opening::OpenRequest { folder, flags, resolve } = lookup;
        let how = types::OpenHow::new().flags(flags.bits() as u64).resolve(resolve);
        Lookup { folder: types::Fd(folder), path, how: Box::new(how), tries_left: OPEN_TRIES_MAX - 1 }
    }

    /// The submission entry. It points into this value, which must outlive the operation.
    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::OpenAt2::new(self.folder, self.path.as_ptr(), &raw const *self.how).build()
    }
}

/// The address of a backend.
pub(super) enum BackendAddress {
    Unix(UnixAddr),
    Tcp(SockaddrStorage),
}

pub(super) struct Message {
    pub(super) header: libc::msghdr,
    pub(super) segments: [libc::iovec; SEND_SEGMENTS_MAX],
}

/// The completion of an operation. `step`: number of the completed operation within a chain.
pub(super) fn complete(done: InFlight, step: u8, result: Result<usize, Errno>) -> Completion<OwnedFd> {
    match done {
        InFlight::HandOver { token, chain } => {
            Completion { token, event: Event::HandedOver(handover::end(*chain, step, result)) }
        }
        InFlight::Send { token, batch, .. } => Completion { token, event: Event::Sent { batch, result } },
        InFlight::Open { token, purpose, .. } => {
            let opened = result.map(|fd| descriptors::own(fd as RawFd)).and_then(|fd| with_kind(fd, purpose));
            Completion { token, event: Event::Opened(opened) }
        }
        InFlight::Connect { token, socket, .. } => {
            let connected = result.and_then(|_| connect::set_blocking(&socket, true)).map(|()| socket);
            Completion { token, event: Event::Connected(connected) }
        }
    }
}
