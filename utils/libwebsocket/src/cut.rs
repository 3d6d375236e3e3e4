//! An incomplete UTF-8 character at the end of a write, which waits for its other bytes.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::real::safe;

/// The deadline, and a duplicate of the client's descriptor, which is closed on drop.
#[derive(Debug)]
pub(crate) struct Cut {
    /// When the bytes are sent as they are.
    pub(crate) end: Instant,
    /// The duplicate, which is not in the table.
    pub(crate) socket: RawFd,
    inode: Option<usize>,
}

impl Cut {
    /// Takes ownership of `socket`.
    pub(crate) fn new(end: Instant, socket: RawFd) -> Cut {
        Cut { end, socket, inode: safe::socket_inode(socket) }
    }

    /// Whether `socket` still refers to the client's socket: the server may have closed all descriptors.
    pub(crate) fn is_open(&self) -> bool {
        self.inode.is_some() && safe::socket_inode(self.socket) == self.inode
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if self.is_open() {
            let _ = safe::close_fd(self.socket);
        }
    }
}
