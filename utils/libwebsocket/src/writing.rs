//! What a server writes to a client: each call is a message.

use std::io::IoSlice;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{self, c_int, off_t};

use crate::client::Client;
use crate::limits::SENDFILE_SIZE;
use crate::real::safe;

/// sendmsg(2) for a client: one message of all parts. Where the kernel takes fewer bytes than there are, the next
/// calls' bytes complete it. EPIPE, and SIGPIPE with it: nothing goes behind a close frame.
pub fn send(fd: RawFd, client: &'static Client, parts: &[IoSlice<'_>], flags: c_int) -> Result<usize, Errno> {
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    // As if there were no memory for it: the server copies then (Documentation/networking/msg_zerocopy.rst).
    if flags & libc::MSG_ZEROCOPY != 0 {
        return Err(Errno::ENOBUFS);
    }
    let result = {
        let mut outgoing = client.outgoing.lock()?;
        if !client.is_at(fd) {
            return Err(Errno::EBADF);
        }
        outgoing.write(client.opcode(), parts, |parts| safe::send(fd, parts, flags | libc::MSG_NOSIGNAL))
    };
    client.settle(fd);
    if result == Err(Errno::EPIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        // SAFETY: what write(2) does to a process that writes where nobody reads.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    result
}

/// sendfile(2) for a client: a message of what is read of the file at this offset, which may be less than was asked
/// for.
pub fn send_file(fd: RawFd, client: &'static Client, from: RawFd, offset: off_t, size: usize) -> Result<usize, Errno> {
    let mut buffer = [0; SENDFILE_SIZE];
    let room = &mut buffer[..size.min(SENDFILE_SIZE)];
    // SAFETY: the buffer is as long as is said.
    let read = unsafe { libc::pread(from, room.as_mut_ptr().cast(), room.len(), offset) };
    let size = usize::try_from(read).map_err(|_| Errno::last())?;
    send(fd, client, &[IoSlice::new(&buffer[..size])], 0)
}
