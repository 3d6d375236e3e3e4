//! What makes, copies and closes file descriptors.

use std::ffi::{c_int, c_uint, c_ulong};
use std::os::fd::RawFd;

use nix::libc::{self, FILE, sockaddr, socklen_t};

use super::beside;
use crate::arrival::{Arrival, arrive, served};
use crate::table::{self, Entry};
use crate::{leaving, ledger, process, real};

/// A server's clients want text.
const PROTOCOL_TEXT: c_int = 153;

fn begin(fd: c_int) -> c_int {
    beside(|| leaving::begin(fd));
    fd
}

/// socket(2): with the protocol 153, messages are text; the kernel does not know that protocol.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let is_text = domain == libc::AF_UNIX && protocol == PROTOCOL_TEXT;
    // SAFETY: no memory is named.
    let fd = begin(unsafe { real::socket(domain, kind, if is_text { 0 } else { protocol }) });
    if is_text && fd >= 0 {
        table::put(fd, Entry::Text);
    }
    fd
}

/// socketpair(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    let result = unsafe { real::socketpair(domain, kind, protocol, fds) };
    if result == 0 {
        // SAFETY: the kernel has just written two numbers there.
        let fds = unsafe { std::slice::from_raw_parts(fds, 2) };
        beside(|| fds.iter().for_each(|fd| leaving::begin(*fd)));
    }
    result
}

/// Accepts by `accept`, and puts a client that is handed over into the connection's place.
///
/// # Safety
/// As accept(2).
unsafe fn take(
    listener: RawFd,
    address: *mut sockaddr,
    size: *mut socklen_t,
    flags: c_int,
    accept: impl FnOnce() -> c_int,
) -> c_int {
    let served = beside(|| served(listener));
    // What the kernel writes there is less than the room.
    // SAFETY: the caller's promise.
    let room = unsafe { size.as_ref() }.copied();
    let fd = begin(accept());
    let (Some(kind), 0..) = (served, fd) else { return fd };
    let Arrival::Client(client) = beside(|| arrive(fd, flags, kind)) else { return fd };
    let bytes = client.as_bytes();
    if let (false, Some(room)) = (address.is_null(), room) {
        // SAFETY: the caller has room for so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast(), bytes.len().min(room as usize)) };
        // SAFETY: it was read before.
        unsafe { *size = bytes.len() as socklen_t };
    }
    fd
}

/// accept(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn accept(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    let accept = || unsafe { real::accept(fd, address, size) };
    // SAFETY: the caller's promise.
    unsafe { take(fd, address, size, 0, accept) }
}

/// accept4(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn accept4(fd: c_int, address: *mut sockaddr, size: *mut socklen_t, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let accept = || unsafe { real::accept4(fd, address, size, flags) };
    // SAFETY: the caller's promise.
    unsafe { take(fd, address, size, flags, accept) }
}

fn copied(fd: RawFd, new: c_int) -> c_int {
    if new >= 0 && new != fd {
        beside(|| leaving::copy(fd, new));
    }
    new
}

/// `to` becomes another number of `fd`: what it was is left, if that will come to be.
fn make_way(fd: RawFd, to: RawFd) {
    let is_known = !matches!(table::get(to), Entry::Unknown);
    if is_known && fd != to && real::safe::control(fd, libc::F_GETFD, 0).is_ok() {
        leaving::leave(to);
    }
}

/// dup(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: no memory is named.
    copied(fd, unsafe { real::dup(fd) })
}

/// dup2(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    beside(|| make_way(fd, to));
    // SAFETY: no memory is named.
    copied(fd, unsafe { real::dup2(fd, to) })
}

/// dup3(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    beside(|| make_way(fd, to));
    // SAFETY: no memory is named.
    copied(fd, unsafe { real::dup3(fd, to, flags) })
}

fn controlled(fd: RawFd, command: c_int, result: c_int) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => copied(fd, result),
        _ => result,
    }
}

/// fcntl(2). What is behind the command is a number or a pointer, or nothing, which is as good.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's promise.
    controlled(fd, command, unsafe { real::fcntl(fd, command, argument) })
}

/// fcntl(2), with locks of 64 bits.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's promise.
    controlled(fd, command, unsafe { real::fcntl64(fd, command, argument) })
}

/// shutdown(2): what ends the sending ends it with a close frame.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    if let (Some(client), libc::SHUT_WR | libc::SHUT_RDWR) = (table::client(fd), how) {
        beside(|| leaving::end_sending(fd, client));
    }
    // SAFETY: no memory is named.
    unsafe { real::shutdown(fd, how) }
}

/// close(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    // A server that closes all there is means its own.
    if fd >= 0 && fd == ledger::fd() && !process::is_borrowed() {
        return 0;
    }
    beside(|| leaving::leave(fd));
    // SAFETY: no memory is named.
    unsafe { real::close(fd) }
}

/// close_range(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    if flags & CLOSE_RANGE_CLOEXEC == 0 && first <= last {
        beside(|| table::known().filter(|fd| (first..=last).contains(&(*fd as c_uint))).for_each(leaving::leave));
        if let Ok(kept) = c_uint::try_from(ledger::fd())
            && (first..=last).contains(&kept)
            && !process::is_borrowed()
        {
            // SAFETY: no memory is named.
            let before = if first < kept { unsafe { real::close_range(first, kept - 1, flags) } } else { 0 };
            // SAFETY: no memory is named.
            let behind = if kept < last { unsafe { real::close_range(kept + 1, last, flags) } } else { 0 };
            return before.min(behind);
        }
    }
    // SAFETY: no memory is named.
    unsafe { real::close_range(first, last, flags) }
}

/// closefrom(3)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: no memory is named.
    unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
}

/// fclose(3), which closes past close(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fclose(stream: *mut FILE) -> c_int {
    // SAFETY: the caller's promise.
    let fd = unsafe { libc::fileno(stream) };
    if table::client(fd).is_some() {
        beside(|| leaving::leave(fd));
    }
    // SAFETY: the caller's promise.
    unsafe { real::fclose(stream) }
}
