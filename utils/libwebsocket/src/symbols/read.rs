//! read(2), readv(2), recv(2), recvfrom(2), recvmsg(2), recvmmsg(2), and their names with `_FORTIFY_SOURCE`.

use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSliceMut;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{self, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

use super::descriptors::begin_passed;
use super::{about_client, heal, keeping_errno, parts, reader, room, rooms};
use crate::client::Client;
use crate::limits::PARTS_MAX;
use crate::{reading, real};

/// The client for a read with these flags; None: libc must be called.
fn reader_for(fd: RawFd, flags: c_int) -> Option<Result<&'static Client, Errno>> {
    if flags & libc::MSG_ERRQUEUE == 0 {
        return reader(fd, flags);
    }
    // MSG_ERRQUEUE reads the socket's error queue, not the stream, and never blocks. Before the hand-over the queue is
    // empty, and libc's recvmsg(2) must not take the hand-over.
    reader(fd, flags | libc::MSG_DONTWAIT)?.err().map(Err)
}

/// Reads from a client into one buffer; None: no client.
///
/// # Safety
/// As recv(2).
unsafe fn receive(fd: RawFd, buffer: *mut c_void, size: size_t, flags: c_int) -> Option<ssize_t> {
    about_client(|| {
        let result = reader_for(fd, flags)?.and_then(|client| {
            if flags & libc::MSG_TRUNC != 0 {
                return reading::discard(fd, client, size, flags);
            }
            // SAFETY: as promised.
            let room = unsafe { room(buffer, size) }?;
            reading::receive(fd, client, &mut [IoSliceMut::new(room)], flags)
        });
        heal(fd, result)
    })
}

/// Reads from a client into a vector; None: no client.
///
/// # Safety
/// As readv(2).
unsafe fn receive_parts(fd: RawFd, vector: *const iovec, count: usize, flags: c_int) -> Option<ssize_t> {
    about_client(|| {
        let result = reader_for(fd, flags)?.and_then(|client| {
            if flags & libc::MSG_TRUNC != 0 {
                // SAFETY: as promised.
                let parts = unsafe { parts(vector, count) }?;
                let wanted_size = parts.iter().fold(0, |size: usize, part| size.saturating_add(part.iov_len));
                return reading::discard(fd, client, wanted_size, flags);
            }
            // SAFETY: as promised.
            let mut parts = unsafe { rooms(vector, count) }?;
            reading::receive(fd, client, &mut parts, flags)
        });
        heal(fd, result)
    })
}

/// read(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t {
    // With a size of 0, read(2) does not block, unlike recv(2): the kernel handles it.
    // SAFETY: the caller's promise.
    let of_client = if size > 0 { unsafe { receive(fd, buffer, size, 0) } } else { None };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::read(fd, buffer, size) })
}

/// read(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __read_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t) -> ssize_t {
    // SAFETY: the caller's promise; libc aborts if the size exceeds the room.
    let of_client = if (1..=room).contains(&size) { unsafe { receive(fd, buffer, size, 0) } } else { None };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::__read_chk(fd, buffer, size, room) })
}

/// readv(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn readv(fd: c_int, vector: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let wants_bytes =
        |count| unsafe { parts(vector, count) }.is_ok_and(|parts| parts.iter().any(|part| part.iov_len > 0));
    let of_client = match usize::try_from(count) {
        // SAFETY: the caller's promise.
        Ok(count @ 0..=PARTS_MAX) if wants_bytes(count) => unsafe { receive_parts(fd, vector, count, 0) },
        _ => None,
    };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::readv(fd, vector, count) })
}

/// recv(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive(fd, buffer, size, flags) };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::recv(fd, buffer, size, flags) })
}

/// recv(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's promise; libc aborts if the size exceeds the room.
    let of_client = if size <= room { unsafe { receive(fd, buffer, size, flags) } } else { None };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::__recv_chk(fd, buffer, size, room, flags) })
}

/// Sets the address size to 0, as the kernel does for streams.
///
/// # Safety
/// `from_size` is null, or may be written.
unsafe fn no_name(of_client: Option<ssize_t>, from_size: *mut socklen_t) -> Option<ssize_t> {
    if of_client.is_some_and(|size| size >= 0) {
        // SAFETY: as promised.
        if let Some(from_size) = unsafe { from_size.as_mut() } {
            *from_size = 0;
        }
    }
    of_client
}

/// recvfrom(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_size: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive(fd, buffer, size, flags) };
    // SAFETY: the caller's promise.
    let of_client = unsafe { no_name(of_client, from_size) };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::recvfrom(fd, buffer, size, flags, from, from_size) })
}

/// recvfrom(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_size: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise; libc aborts if the size exceeds the room.
    let of_client = if size <= room { unsafe { receive(fd, buffer, size, flags) } } else { None };
    // SAFETY: the caller's promise.
    let of_client = unsafe { no_name(of_client, from_size) };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::__recvfrom_chk(fd, buffer, size, room, flags, from, from_size) })
}

/// recvmsg(2) for a client; None: no client.
///
/// # Safety
/// As recvmsg(2).
pub(super) unsafe fn receive_message(fd: RawFd, message: *mut msghdr, flags: c_int) -> Option<ssize_t> {
    // SAFETY: as promised.
    let message = unsafe { message.as_mut() }?;
    // SAFETY: as promised.
    let size = unsafe { receive_parts(fd, message.msg_iov, message.msg_iovlen as _, flags) }?;
    if size >= 0 {
        (message.msg_namelen, message.msg_controllen) = (0, 0);
        // No descriptor arrives with a client's bytes; the kernel returns this flag anyway.
        message.msg_flags = flags & libc::MSG_CMSG_CLOEXEC;
    }
    Some(size)
}

/// recvmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive_message(fd, message, flags) };
    of_client.unwrap_or_else(|| {
        // SAFETY: the caller's promise.
        let size = unsafe { real::recvmsg(fd, message, flags) };
        if size >= 0 {
            // SAFETY: recvmsg(2) has just filled the message.
            unsafe { begin_passed(message) };
        }
        size
    })
}

/// recvmmsg(2) for a client, which fills one message a call; None: no client.
///
/// # Safety
/// As recvmmsg(2).
pub(super) unsafe fn receive_messages(fd: RawFd, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> Option<c_int> {
    match (keeping_errno(|| reader_for(fd, flags)), count) {
        (Some(Ok(_)), 1..) => {}
        (Some(Err(errno)), 1..) => {
            errno.set();
            return Some(-1);
        }
        _ => return None,
    }
    // SAFETY: as promised; `count` is at least 1.
    let Some(message) = (unsafe { messages.as_mut() }) else {
        Errno::EFAULT.set();
        return Some(-1);
    };
    // SAFETY: as promised.
    let size = unsafe { recvmsg(fd, &raw mut message.msg_hdr, flags & !libc::MSG_WAITFORONE) };
    if size < 0 {
        return Some(-1);
    }
    message.msg_len = size as c_uint;
    Some(1)
}

/// recvmmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    time: *mut timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive_messages(fd, messages, count, flags) };
    of_client.unwrap_or_else(|| {
        // SAFETY: the caller's promise.
        let received = unsafe { real::recvmmsg(fd, messages, count, flags, time) };
        // SAFETY: recvmmsg(2) has just filled this number of messages.
        unsafe { begin_all_passed(messages, received) };
        received
    })
}

/// `begin_passed` for all messages of recvmmsg(2).
///
/// # Safety
/// recvmmsg(2) has just returned `received` for these messages.
pub(super) unsafe fn begin_all_passed(messages: *const mmsghdr, received: c_int) {
    let Ok(count @ 1..) = usize::try_from(received) else { return };
    // SAFETY: as promised.
    for message in unsafe { std::slice::from_raw_parts(messages, count) } {
        // SAFETY: as promised.
        unsafe { begin_passed(&raw const message.msg_hdr) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Conversation;

    const NO_WAIT: c_int = libc::MSG_DONTWAIT;

    /// A call's result, the buffer's bytes, and msg_flags if the call has them.
    type Result = (std::result::Result<usize, Errno>, Vec<u8>, c_int);

    fn result(size: ssize_t, buffer: &[u8], flags: c_int) -> Result {
        match usize::try_from(size) {
            // With MSG_TRUNC the size may exceed the buffer.
            Ok(size) => (Ok(size), buffer[..size.min(buffer.len())].to_vec(), flags),
            Err(_) => (Err(Errno::last()), Vec::new(), 0),
        }
    }

    fn by_recv(fd: RawFd, size: usize, flags: c_int) -> Result {
        let mut buffer = vec![b'-'; size];
        // SAFETY: the buffer has `size` bytes.
        let received = unsafe { recv(fd, buffer.as_mut_ptr().cast(), size, flags) };
        result(received, &buffer, 0)
    }

    fn by_recvfrom(fd: RawFd, size: usize, flags: c_int) -> Result {
        let mut buffer = vec![b'-'; size];
        let mut name_size: socklen_t = 16;
        let place = &raw mut name_size;
        // SAFETY: the buffer has `size` bytes; the address pointer is null.
        let received = unsafe { recvfrom(fd, buffer.as_mut_ptr().cast(), size, flags, std::ptr::null_mut(), place) };
        assert_eq!(name_size, if received < 0 { 16 } else { 0 });
        result(received, &buffer, 0)
    }

    fn by_recvmsg(fd: RawFd, size: usize, flags: c_int) -> Result {
        let mut buffer = vec![b'-'; size];
        let (one, two) = buffer.split_at_mut(size / 2);
        let part = |bytes: &mut [u8]| iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut parts = [part(one), part(two)];
        // SAFETY: a `struct msghdr` may be all zeros.
        let mut message: msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen, message.msg_flags) = (parts.as_mut_ptr(), 2, -1);
        // SAFETY: the parts are slices of the buffer.
        let received = unsafe { recvmsg(fd, &raw mut message, flags) };
        result(received, &buffer, message.msg_flags)
    }

    /// A flag's name and value, the buffer's size, the call's result and bytes, and the payload left unread.
    type Row = (&'static str, c_int, usize, std::result::Result<usize, Errno>, &'static [u8], &'static [u8]);

    /// Each flag with each call, blocking and non-blocking: what is returned, and what is left unread.
    #[test]
    fn flags() {
        const NOTHING: &[u8] = b"";
        // One message in two frames, with a ping before it and one within.
        let come = [
            Conversation::frame(0x89, b"?"),
            Conversation::frame(0x01, b"good "),
            Conversation::frame(0x89, b"!"),
            Conversation::frame(0x80, b"day"),
        ]
        .concat();
        let table: &[Row] = &[
            ("none", 0, 100, Ok(8), b"good day", NOTHING),
            // The last receive takes three bytes: one of a header and two of payload.
            ("none, little room", 0, 3, Ok(2), b"go", b"od day"),
            ("MSG_DONTWAIT", NO_WAIT, 100, Ok(8), b"good day", NOTHING),
            ("MSG_PEEK", libc::MSG_PEEK, 100, Ok(8), b"good day", b"good day"),
            ("MSG_PEEK, little room", libc::MSG_PEEK, 6, Ok(6), b"good d", b"good day"),
            ("MSG_PEEK, no room", libc::MSG_PEEK, 0, Ok(0), NOTHING, b"good day"),
            ("MSG_WAITALL", libc::MSG_WAITALL, 7, Ok(7), b"good da", b"y"),
            ("MSG_WAITALL and MSG_PEEK", libc::MSG_WAITALL | libc::MSG_PEEK, 8, Ok(8), b"good day", b"good day"),
            ("MSG_TRUNC", libc::MSG_TRUNC, 6, Ok(6), b"------", b"ay"),
            ("MSG_TRUNC, much", libc::MSG_TRUNC, 100, Ok(8), b"--------", NOTHING),
            ("MSG_TRUNC and MSG_PEEK", libc::MSG_TRUNC | libc::MSG_PEEK, 6, Ok(6), b"------", b"good day"),
            ("MSG_TRUNC and MSG_WAITALL", libc::MSG_TRUNC | libc::MSG_WAITALL, 7, Ok(7), b"-------", b"y"),
            ("MSG_OOB", libc::MSG_OOB, 100, Err(Errno::EINVAL), NOTHING, b"good day"),
            ("MSG_OOB and MSG_PEEK", libc::MSG_OOB | libc::MSG_PEEK, 1, Err(Errno::EINVAL), NOTHING, b"good day"),
            ("MSG_OOB and MSG_TRUNC", libc::MSG_OOB | libc::MSG_TRUNC, 1, Err(Errno::EINVAL), NOTHING, b"good day"),
            ("MSG_ERRQUEUE", libc::MSG_ERRQUEUE, 100, Err(Errno::EAGAIN), NOTHING, b"good day"),
            ("MSG_CMSG_CLOEXEC", libc::MSG_CMSG_CLOEXEC, 100, Ok(8), b"good day", NOTHING),
        ];
        for (call, receive) in
            [("recv", by_recv as fn(RawFd, usize, c_int) -> Result), ("recvfrom", by_recvfrom), ("recvmsg", by_recvmsg)]
        {
            for is_blocking in [true, false] {
                for (name, flags, size, expected, bytes, left) in table {
                    let what = format!("{call}, {name}, blocking: {is_blocking}");
                    let conversation = Conversation::start(is_blocking);
                    conversation.say(&come);
                    let (received, buffer, message_flags) = receive(conversation.fd(), *size, *flags);
                    assert_eq!((received, &buffer[..]), (*expected, *bytes), "{what}");
                    if call == "recvmsg" {
                        assert_eq!(message_flags, flags & libc::MSG_CMSG_CLOEXEC, "{what}");
                    }
                    assert_eq!(conversation.read_all(), (left.to_vec(), Err(Errno::EAGAIN)), "{what}");
                    // Nothing is left: each flag returns EAGAIN with MSG_DONTWAIT.
                    let (none, ..) = receive(conversation.fd(), *size, flags | NO_WAIT);
                    let expected = if *expected == Err(Errno::EINVAL) { Errno::EINVAL } else { Errno::EAGAIN };
                    assert_eq!(none, Err(expected), "{what}, when nothing has come");
                }
            }
        }
    }

    #[test]
    fn where_nothing_is_wanted_read_does_not_wait_and_recv_does() {
        let conversation = Conversation::start(false);
        let nowhere = std::ptr::null_mut();
        // SAFETY: nothing is written anywhere.
        assert_eq!(unsafe { read(conversation.fd(), nowhere, 0) }, 0);
        // SAFETY: nothing is written anywhere.
        assert_eq!(unsafe { recv(conversation.fd(), nowhere, 0, 0) }, -1);
        conversation.say(&Conversation::frame(0x81, b"x"));
        // SAFETY: nothing is written anywhere.
        assert_eq!(unsafe { recv(conversation.fd(), nowhere, 0, 0) }, 0);
        assert_eq!(conversation.read_all().0, b"x");
    }
}
