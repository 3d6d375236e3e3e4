//! What reads: read(2), readv(2), recv(2) and their like, and the names that a hardened build calls them by.

use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSliceMut;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{self, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

use super::{about_client, beside, heal, reader, room, rooms};
use crate::limits::{LOOK_SIZE, PARTS_MAX};
use crate::{reading, real};

/// Reads of a client into one buffer; None: it is none.
///
/// # Safety
/// As recv(2).
unsafe fn receive(fd: RawFd, buffer: *mut c_void, size: size_t, flags: c_int) -> Option<ssize_t> {
    // Errors of the socket are none of the stream's.
    if flags & libc::MSG_ERRQUEUE != 0 {
        return None;
    }
    about_client(|| {
        let client = reader(fd, flags)?;
        let mut nowhere = [0; LOOK_SIZE];
        let result = client.and_then(|client| {
            let room = if buffer.is_null() && flags & libc::MSG_TRUNC != 0 {
                &mut nowhere[..size.min(LOOK_SIZE)]
            } else {
                // SAFETY: as promised.
                unsafe { room(buffer, size) }?
            };
            reading::receive(fd, client, &mut [IoSliceMut::new(room)], flags)
        });
        heal(fd, result)
    })
}

/// Reads of a client into many; None: it is none.
///
/// # Safety
/// As readv(2).
unsafe fn receive_parts(fd: RawFd, vector: *const iovec, count: usize, flags: c_int) -> Option<ssize_t> {
    if flags & libc::MSG_ERRQUEUE != 0 {
        return None;
    }
    about_client(|| {
        let result = reader(fd, flags)?.and_then(|client| {
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
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive(fd, buffer, size, 0) };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::read(fd, buffer, size) })
}

/// read(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __read_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t) -> ssize_t {
    // SAFETY: the caller's promise; a size beyond the room is libc's to deal with.
    let of_client = if size <= room { unsafe { receive(fd, buffer, size, 0) } } else { None };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::__read_chk(fd, buffer, size, room) })
}

/// readv(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let of_client = match usize::try_from(count) {
        // SAFETY: the caller's promise.
        Ok(count @ 0..=PARTS_MAX) => unsafe { receive_parts(fd, parts, count, 0) },
        _ => None,
    };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::readv(fd, parts, count) })
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
    // SAFETY: the caller's promise; a size beyond the room is libc's to deal with.
    let of_client = if size <= room { unsafe { receive(fd, buffer, size, flags) } } else { None };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::__recv_chk(fd, buffer, size, room, flags) })
}

/// Of a stream there is no address, as the kernel says it too.
///
/// # Safety
/// The size is null, or may be written.
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
    // SAFETY: the caller's promise; a size beyond the room is libc's to deal with.
    let of_client = if size <= room { unsafe { receive(fd, buffer, size, flags) } } else { None };
    // SAFETY: the caller's promise.
    let of_client = unsafe { no_name(of_client, from_size) };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::__recvfrom_chk(fd, buffer, size, room, flags, from, from_size) })
}

/// A message of a client; None: it is none.
///
/// # Safety
/// As recvmsg(2).
pub(super) unsafe fn receive_message(fd: RawFd, message: *mut msghdr, flags: c_int) -> Option<ssize_t> {
    // SAFETY: as promised.
    let message = unsafe { message.as_mut() }?;
    // SAFETY: as promised.
    let size = unsafe { receive_parts(fd, message.msg_iov, message.msg_iovlen as _, flags) }?;
    if size >= 0 {
        (message.msg_namelen, message.msg_controllen, message.msg_flags) = (0, 0, 0);
    }
    Some(size)
}

/// recvmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let of_client = unsafe { receive_message(fd, message, flags) };
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::recvmsg(fd, message, flags) })
}

/// Messages of a client, of which one's parts are filled at a time; None: it is none.
///
/// # Safety
/// As recvmmsg(2).
pub(super) unsafe fn receive_messages(fd: RawFd, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> Option<c_int> {
    match (beside(|| reader(fd, flags)), count) {
        (Some(Ok(_)), 1..) => {}
        (Some(Err(errno)), 1..) => {
            errno.set();
            return Some(-1);
        }
        _ => return None,
    }
    // SAFETY: as promised, and there is one at least.
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
    // SAFETY: the caller's promise.
    of_client.unwrap_or_else(|| unsafe { real::recvmmsg(fd, messages, count, flags, time) })
}
