//! A client and its backend, with their operations in flight and queued chunks.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The client's side.
pub const CLIENT: usize = 0;
/// The backend's side.
pub const BACKEND: usize = 1;

/// Bytes from one side to the other, in a buffer of the side that they came from.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub buffer: u16,
    pub size: u32,
    pub sent: u32,
}

/// One end of a pair.
pub struct Side {
    fd: OwnedFd,
    /// A multishot receive is armed.
    pub receiving: bool,
    /// A send of the queue's first chunk is in flight.
    pub sending: bool,
    /// It has sent its end of file.
    pub ended: bool,
    /// The chunks to send to it, in order.
    pub queue: VecDeque<Chunk>,
}

/// A client and its backend.
pub struct Pair {
    pub sides: [Side; 2],
    /// A side has failed: no new operation is started; waits for those in flight.
    pub broken: bool,
    /// The number of sides that wait for a receive buffer.
    pub starving: usize,
}

impl Pair {
    /// A pair with nothing in flight.
    pub fn new(client: OwnedFd, backend: OwnedFd) -> Pair {
        Pair {
            sides: [client, backend].map(|fd| Side {
                fd,
                receiving: false,
                sending: false,
                ended: false,
                queue: VecDeque::new(),
            }),
            broken: false,
            starving: 0,
        }
    }

    /// True if the pair is finished and nothing is in flight: it can be closed.
    pub fn is_over(&self) -> bool {
        let [client, backend] = &self.sides;
        let idle = |side: &Side| !side.receiving && !side.sending;
        let finished = |side: &Side| side.ended && side.queue.is_empty();
        let over = self.broken || finished(client) && finished(backend);
        over && idle(client) && idle(backend)
    }

    /// Both sockets.
    pub fn into_fds(self) -> [OwnedFd; 2] {
        self.sides.map(|side| side.fd)
    }

    /// Shuts down both connections, so that the operations in flight complete.
    pub fn break_off(&mut self) {
        self.broken = true;
        for side in &self.sides {
            // Ignore an error: it may be shut down already.
            let _ = nix::sys::socket::shutdown(side.fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }

    /// Passes an end of file on to `side`, unless both ends are about to be closed anyway.
    pub fn pass_end_to(&self, side: usize) {
        if !self.sides[side].ended {
            let fd = self.sides[side].fd.as_raw_fd();
            let _ = nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Write);
        }
    }
}

impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
