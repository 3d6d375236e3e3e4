//! Decodes the ring's completions.

use std::os::fd::{OwnedFd, RawFd};

use io_uring::cqueue;
use nix::errno::Errno;

use crate::driver::{Event, connect, descriptors};

/// The result of an operation.
pub(super) fn result_of(entry: &cqueue::Entry) -> Result<usize, Errno> {
    match entry.result() {
        result if result < 0 => Err(Errno::from_raw(-result)),
        result => Ok(result as usize),
    }
}

/// A new connection and its peer address.
pub(super) fn accepted(entry: &cqueue::Entry) -> Event<OwnedFd> {
    let result = result_of(entry).map(|fd| {
        let fd = descriptors::own(fd as RawFd);
        let address = connect::peer_address(&fd);
        (fd, address)
    });
    Event::Accepted { result, more: cqueue::more(entry.flags()) }
}
