//! write(2), writev(2), send(2), sendto(2), sendmsg(2), sendmmsg(2), sendfile(2), splice(2).

use std::ffi::{c_int, c_uint, c_void};
use std::io::IoSlice;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{self, iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t};

use super::{about_client, answer, bytes, heal, keeping_errno, slices, writer};
use crate::client::Client;
use crate::limits::{PARTS_MAX, SENDFILE_SIZE};
use crate::{leaving, real, table, writing};

/// Writes a buffer to a client; None: no client.
///
/// # Safety
/// As send(2).
unsafe fn transmit(fd: RawFd, buffer: *const c_void, size: size_t, flags: c_int) -> Option<ssize_t> {
    about_client(|| {
        let result = writer(fd)?.and_then(|client| {
            // SAFETY: as promised.
            let bytes = unsafe { bytes(buffer, size) }?;
            writing::send(fd, client, &[IoSlice::new(bytes)], flags)
        });
        heal(fd, result)
    })
}

/// Writes a vector to a client; None: no client.
///
/// # Safety
/// As writev(2).
unsafe fn transmit_parts(fd: RawFd, vector: *const iovec, count: usize, flags: c_int) -> Option<ssize_t> {
    about_client(|| {
        let result = writer(fd)?.and_then(|client| {
            // SAFETY: as promised.
            let parts = unsafe { slices(vector, count) }?;
            writing::send(fd, client, &parts, flags)
        });
        heal(fd, result)
    })
}

/// write(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    let to_client = unsafe { transmit(fd, buffer, size, 0) };
    // SAFETY: the caller's promise.
    to_client.unwrap_or_else(|| unsafe { real::write(fd, buffer, size) })
}

/// writev(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let to_client = match usize::try_from(count) {
        // SAFETY: the caller's promise.
        Ok(count @ 0..=PARTS_MAX) => unsafe { transmit_parts(fd, parts, count, 0) },
        _ => None,
    };
    // SAFETY: the caller's promise.
    to_client.unwrap_or_else(|| unsafe { real::writev(fd, parts, count) })
}

/// send(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn send(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let to_client = unsafe { transmit(fd, buffer, size, flags) };
    // SAFETY: the caller's promise.
    to_client.unwrap_or_else(|| unsafe { real::send(fd, buffer, size, flags) })
}

/// sendto(2): the address is ignored for a client.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_size: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise.
    let to_client = unsafe { transmit(fd, buffer, size, flags) };
    // SAFETY: the caller's promise.
    to_client.unwrap_or_else(|| unsafe { real::sendto(fd, buffer, size, flags, to, to_size) })
}

/// Whether a message with ancillary data is sent before the hand-over: then the peer is a plain client, and libc sends
/// it.
fn is_for_plain_client(fd: RawFd, message: &msghdr) -> bool {
    let client = table::client(fd).filter(|client| message.msg_controllen > 0 && !client.is_handed_over());
    if let Some(mut early) = client.and_then(|client| client.early.lock().ok()) {
        early.give_up();
    }
    client.is_some()
}

/// sendmsg(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let to_client =
        unsafe { message.as_ref() }.filter(|message| !is_for_plain_client(fd, message)).and_then(|message| {
            // SAFETY: the caller's promise.
            unsafe { transmit_parts(fd, message.msg_iov, message.msg_iovlen as _, flags) }
        });
    // SAFETY: the caller's promise.
    to_client.unwrap_or_else(|| unsafe { real::sendmsg(fd, message, flags) })
}

/// sendmmsg(2): each element is sent to a client as a message of its own.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    if table::client(fd).is_none() || messages.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { real::sendmmsg(fd, messages, count, flags) };
    }
    // SAFETY: the caller's promise.
    let messages = unsafe { std::slice::from_raw_parts_mut(messages, count as usize) };
    let mut sent = 0;
    for message in messages {
        // SAFETY: the caller's promise.
        let size = unsafe { sendmsg(fd, &raw const message.msg_hdr, flags) };
        if size < 0 {
            return if sent > 0 { sent } else { -1 };
        }
        message.msg_len = size as c_uint;
        sent += 1;
    }
    sent
}

/// Sends bytes of a file to a client, from `offset` or from the file's own offset, which is advanced.
fn send_file<Offset: Copy + TryFrom<i64> + Into<i64>>(
    to: RawFd,
    client: &'static Client,
    from: RawFd,
    offset: Option<&mut Offset>,
    size: usize,
) -> Result<usize, Errno> {
    let Some(offset) = offset else {
        // SAFETY: no memory is named.
        let start = Errno::result(unsafe { libc::lseek64(from, 0, libc::SEEK_CUR) })?;
        let sent = writing::send_file(to, client, from, start, size)?;
        // SAFETY: no memory is named.
        Errno::result(unsafe { libc::lseek64(from, start + sent as i64, libc::SEEK_SET) })?;
        return Ok(sent);
    };
    let start: i64 = (*offset).into();
    // EOVERFLOW if the new offset does not fit the caller's type, as in the kernel.
    let end = |size: usize| Offset::try_from(start.saturating_add(size as i64)).map_err(|_| Errno::EOVERFLOW);
    end(size.min(SENDFILE_SIZE))?;
    let sent = writing::send_file(to, client, from, start, size)?;
    *offset = end(sent)?;
    Ok(sent)
}

/// sendfile(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, size: size_t) -> ssize_t {
    let Some(client) = keeping_errno(|| writer(to)) else {
        // SAFETY: the caller's promise.
        return unsafe { real::sendfile(to, from, offset, size) };
    };
    // SAFETY: the caller's promise.
    let own_offset = unsafe { offset.as_mut() };
    about_client(|| heal(to, client.and_then(|client| send_file(to, client, from, own_offset, size))))
        // SAFETY: the caller's promise.
        .unwrap_or_else(|| unsafe { real::sendfile(to, from, offset, size) })
}

/// sendfile(2) with a 64-bit offset.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut i64, size: size_t) -> ssize_t {
    let Some(client) = keeping_errno(|| writer(to)) else {
        // SAFETY: the caller's promise.
        return unsafe { real::sendfile64(to, from, offset, size) };
    };
    // SAFETY: the caller's promise.
    let own_offset = unsafe { offset.as_mut() };
    about_client(|| heal(to, client.and_then(|client| send_file(to, client, from, own_offset, size))))
        // SAFETY: the caller's promise.
        .unwrap_or_else(|| unsafe { real::sendfile64(to, from, offset, size) })
}

/// splice(2): EINVAL for a client, whose bytes must pass through the library.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut i64,
    to: c_int,
    to_offset: *mut i64,
    size: size_t,
    flags: c_uint,
) -> ssize_t {
    if [from, to]
        .into_iter()
        .any(|fd| keeping_errno(|| writer(fd)).is_some() && !keeping_errno(|| leaving::was_stale(fd)))
    {
        return answer(Err(Errno::EINVAL));
    }
    // SAFETY: the caller's promise.
    unsafe { real::splice(from, from_offset, to, to_offset, size, flags) }
}
