//! What a server writes to a client: each call is a message.

use std::io::IoSlice;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{self, c_int};

use crate::arrival::{Decision, decide};
use crate::client::Client;
use crate::limits::SENDFILE_SIZE;
use crate::real::safe;
use crate::table;

/// sendmsg(2) for a client: one message of all parts. Where the kernel takes fewer bytes than there are, the next
/// calls' bytes complete it. EPIPE, and SIGPIPE with it: nothing goes behind a close frame.
pub fn send(fd: RawFd, client: &'static Client, parts: &[IoSlice<'_>], flags: c_int) -> Result<usize, Errno> {
    if !client.is_here()
        && let Some(result) = send_early(fd, client, parts, flags)
    {
        return result;
    }
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    // As if there were no memory for it: the server copies then (Documentation/networking/msg_zerocopy.rst).
    if flags & libc::MSG_ZEROCOPY != 0 {
        return Err(Errno::ENOBUFS);
    }
    let result = {
        let mut outgoing = client.outgoing.lock()?;
        if !table::is_at(fd, client) {
            return Err(Errno::EBADF);
        }
        outgoing.write(client.opcode(), parts, |parts| safe::send(fd, parts, flags | libc::MSG_NOSIGNAL))
    };
    client.settle(fd);
    signal(result, flags)
}

/// What write(2) does to a process that writes where nobody reads.
fn signal(result: Result<usize, Errno>, flags: c_int) -> Result<usize, Errno> {
    if result == Err(Errno::EPIPE) && flags & libc::MSG_NOSIGNAL == 0 {
        // SAFETY: no memory is named.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    result
}

/// The same while nobody is there yet: it goes to who connected, who may be a plain client. None: it is there now.
fn send_early(fd: RawFd, client: &'static Client, parts: &[IoSlice<'_>], flags: c_int) -> Option<Result<usize, Errno>> {
    // Until this is written, nobody comes.
    let outgoing = match client.outgoing.lock() {
        Ok(outgoing) if !client.is_here() => outgoing,
        Ok(_) => return None,
        Err(errno) => return Some(Err(errno)),
    };
    let sent = safe::send(fd, parts, flags | libc::MSG_NOSIGNAL);
    if let (Ok(size), Ok(mut early), true) = (sent, client.early.lock(), table::is_at(fd, client)) {
        early.note(parts, size);
    }
    drop(outgoing);
    // The gateway closes behind the hand-over.
    if matches!(sent, Err(Errno::EPIPE | Errno::ECONNRESET)) && decide(fd, client) == Ok(Decision::Client) {
        return None;
    }
    Some(signal(sent, flags))
}

/// sendfile(2) for a client: a message of what is read of the file at this offset, which may be less than was asked
/// for.
pub fn send_file(fd: RawFd, client: &'static Client, from: RawFd, offset: i64, size: usize) -> Result<usize, Errno> {
    let mut buffer = [0; SENDFILE_SIZE];
    let room = &mut buffer[..size.min(SENDFILE_SIZE)];
    // SAFETY: the buffer is as long as is said.
    let read = unsafe { libc::pread64(from, room.as_mut_ptr().cast(), room.len(), offset) };
    let size = usize::try_from(read).map_err(|_| Errno::last())?;
    send(fd, client, &[IoSlice::new(&buffer[..size])], 0)
}
