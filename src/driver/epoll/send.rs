//! Sends and TCP connects. Both are attempted at once, and wait for their descriptor to be writable if they have to.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, MsgFlags, SockaddrStorage, sockopt};

use super::Epoll;
use super::sockets::{Registration, SocketKind, WaitingKey};
use crate::driver::{Batch, Event, Op, Segment, Sending, Token, connect};
use crate::limits::{Http, SEND_SEGMENTS_MAX};

/// An operation that waits until its descriptor is writable.
pub(super) enum Waiting {
    Send { token: Token, batch: Batch, how: Sending },
    Connect { token: Token, socket: OwnedFd },
}

impl Waiting {
    /// Whether the operation is cancelled by this token.
    fn is_cancelled_by(&self, token: Token) -> bool {
        let (own, op) = match self {
            Waiting::Send { token, how: Sending::Device, .. } => (token, Op::Writable),
            Waiting::Send { token, .. } => (token, Op::Send),
            Waiting::Connect { token, .. } => (token, Op::Connect),
        };
        token == Token { op, ..*own }
    }
}

impl Epoll {
    /// Sends what fits. A send that may wait does so if nothing fits.
    pub(super) fn begin_send(&mut self, token: Token, socket: &OwnedFd, batch: Batch, how: Sending) {
        let fd = socket.as_raw_fd();
        if how == Sending::Device {
            self.sockets.at(fd).kind = SocketKind::Device;
        }
        match self.attempt_send(fd, &batch, how) {
            Err(Errno::EAGAIN) if how != Sending::Now => {
                self.wait_to_write(fd, token.slot, Waiting::Send { token, batch, how });
            }
            result => self.push(token, Event::Sent { batch, result }),
        }
    }

    /// Begins to connect to a TCP address.
    pub(super) fn begin_connect_tcp(&mut self, token: Token, address: SocketAddr, limits: &Http) {
        let made = connect::to_tcp(address, limits);
        let made = made.and_then(|socket| connect::set_blocking(&socket, false).map(|()| socket));
        let socket = match made {
            Ok(socket) => socket,
            Err(errno) => return self.push(token, Event::Connected(Err(errno))),
        };
        let fd = socket.as_raw_fd();
        let connected = socket::connect(fd, &SockaddrStorage::from(address));
        if let Ok(()) | Err(Errno::EINPROGRESS) = connected {
            self.sockets.begin(fd, SocketKind::Tcp);
        }
        match connected {
            Err(Errno::EINPROGRESS) => self.wait_to_write(fd, token.slot, Waiting::Connect { token, socket }),
            Err(errno) => self.push(token, Event::Connected(Err(errno))),
            Ok(()) => self.push(token, Event::Connected(Ok(socket))),
        }
    }

    fn wait_to_write(&mut self, fd: RawFd, slot: u32, waiting: Waiting) {
        let key = WaitingKey::new(self.waiting.insert(waiting));
        self.sockets.at(fd).waiting = Some(key);
        self.sockets.remember(slot, fd);
        match self.register(fd, true) {
            // No event would follow.
            Ok(()) if self.sockets.at(fd).registration == Registration::Unpollable => {
                self.end_waiting(fd, Err(Errno::EAGAIN));
            }
            Ok(()) => {}
            Err(errno) => self.end_waiting(fd, Err(errno)),
        }
    }

    /// Attempts the operation that waits for a descriptor which is writable now.
    pub(super) fn try_waiting(&mut self, fd: RawFd) {
        let socket = self.sockets.at(fd);
        let Some(waiting) = socket.waiting.and_then(|key| self.waiting.get(key.index())) else { return };
        let result = match waiting {
            Waiting::Send { batch, how, .. } => self.attempt_send(fd, batch, *how),
            Waiting::Connect { socket, .. } => match socket::getsockopt(socket, sockopt::SocketError) {
                Ok(0) => Ok(0),
                Ok(error) => Err(Errno::from_raw(error)),
                Err(errno) => Err(errno),
            },
        };
        if result != Err(Errno::EAGAIN) {
            self.end_waiting(fd, result);
        }
    }

    /// Completes the operation that waits for a descriptor.
    fn end_waiting(&mut self, fd: RawFd, result: Result<usize, Errno>) {
        let Some(key) = self.sockets.at(fd).waiting.take() else { return };
        self.forget_output(fd);
        match self.waiting.remove(key.index()) {
            Waiting::Send { token, batch, .. } => self.push(token, Event::Sent { batch, result }),
            Waiting::Connect { token, socket } => {
                if result.is_err() {
                    self.sockets.end(fd);
                }
                self.push(token, Event::Connected(result.map(|_| socket)));
            }
        }
    }

    /// Cancels the operation that waits with this token.
    pub(super) fn cancel_waiting(&mut self, token: Token) {
        let Some(fd) = self.sockets.of_slot(token.slot) else { return };
        let key = self.sockets.at(fd).waiting;
        if key.and_then(|key| self.waiting.get(key.index())).is_some_and(|one| one.is_cancelled_by(token)) {
            self.end_waiting(fd, Err(Errno::ECANCELED));
        }
    }

    fn attempt_send(&self, fd: RawFd, batch: &Batch, how: Sending) -> Result<usize, Errno> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        if batch.rest.is_empty() && how != Sending::Device {
            return socket::send(fd, self.bytes(&batch.first), flags);
        }
        let mut parts = [IoSlice::new(&[]); SEND_SEGMENTS_MAX];
        let segments = std::iter::once(&batch.first).chain(&batch.rest);
        for (part, segment) in parts.iter_mut().zip(segments) {
            *part = IoSlice::new(self.bytes(segment));
        }
        let parts = &parts[..(1 + batch.rest.len()).min(SEND_SEGMENTS_MAX)];
        if how != Sending::Device {
            return socket::sendmsg::<()>(fd, parts, &[], flags, None);
        }
        // SAFETY: an IoSlice has the layout of an iovec, and the segments live through the call.
        let result = unsafe { libc::writev(fd, parts.as_ptr().cast(), parts.len() as libc::c_int) };
        Errno::result(result).map(|size| size as usize)
    }

    /// The bytes of a segment to send.
    fn bytes<'a>(&'a self, segment: &'a Segment) -> &'a [u8] {
        match segment {
            Segment::Pool(lease) => self.pools[lease.share as usize].bytes(lease),
            Segment::Heap { bytes, start } => &bytes[*start..],
        }
    }
}
