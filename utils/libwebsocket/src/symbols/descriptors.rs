//! Functions that create, duplicate, shut down or close file descriptors.

use std::ffi::{c_int, c_uint, c_ulong};
use std::os::fd::RawFd;

use nix::libc::{self, FILE, msghdr, sa_family_t, sockaddr, sockaddr_un, socklen_t};
use server::handover::{ClientAddress, passed_numbers};

use super::keeping_errno;
use crate::arrival::{Arrival, arrive, served};
use crate::table::{self, Entry};
use crate::{leaving, ledger, real};

/// Protocol number for text messages (WS_PROTOCOL_TEXT).
const PROTOCOL_TEXT: c_int = 153;

/// Called with the result of a call that creates a descriptor.
pub(super) fn begin(fd: c_int) -> c_int {
    keeping_errno(|| leaving::begin(fd));
    fd
}

/// socket(2): protocol 153 means text messages; the kernel gets 0.
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
        // SAFETY: socketpair(2) has just written two numbers there.
        let fds = unsafe { std::slice::from_raw_parts(fds, 2) };
        keeping_errno(|| fds.iter().for_each(|fd| leaving::begin(*fd)));
    }
    result
}

/// Drops stale entries of the descriptors passed with a received message.
///
/// # Safety
/// recvmsg(2) has just filled it.
pub(super) unsafe fn begin_passed(message: *const msghdr) {
    // SAFETY: as promised.
    let Some(message) = (unsafe { message.as_ref() }) else { return };
    if message.msg_controllen == 0 || message.msg_control.is_null() {
        return;
    }
    // SAFETY: as promised.
    let ancillary = unsafe { std::slice::from_raw_parts(message.msg_control.cast(), message.msg_controllen as _) };
    keeping_errno(|| passed_numbers(ancillary).for_each(leaving::begin));
}

/// The address that accept(2) returns. A server with a buffer of exactly a `struct sockaddr_un` expects the listener's
/// family and may treat another one as an error. It gets the address of an unnamed socket (unix(7)), and can get the
/// other with getpeername(2).
fn shown(client: &ClientAddress, room: socklen_t) -> &[u8] {
    if is_for_unix(room) { &UNNAMED } else { client.as_bytes() }
}

/// The address of an unnamed socket.
const UNNAMED: [u8; size_of::<sa_family_t>()] = (libc::AF_UNIX as sa_family_t).to_ne_bytes();

fn is_for_unix(room: socklen_t) -> bool {
    room as usize == size_of::<sockaddr_un>()
}

/// Writes an address as accept(2) does: truncated to `room`, with its full size at `size`.
///
/// # Safety
/// As accept(2), which has just written an address; `room` is the value at `size` before that call.
unsafe fn put_address(bytes: &[u8], address: *mut sockaddr, size: *mut socklen_t, room: socklen_t) {
    // SAFETY: `address` has `room` bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast(), bytes.len().min(room as usize)) };
    // SAFETY: accept(2) has just written there.
    unsafe { *size = bytes.len() as socklen_t };
}

/// Calls `accept`, and replaces the connection with the client that is handed over on it.
///
/// # Safety
/// As accept(2).
pub(super) unsafe fn take(
    listener: RawFd,
    address: *mut sockaddr,
    size: *mut socklen_t,
    flags: c_int,
    accept: impl FnOnce() -> c_int,
) -> c_int {
    let served = keeping_errno(|| served(listener));
    // Read before the call, which overwrites it.
    // SAFETY: the caller's promise.
    let room = unsafe { size.as_ref() }.copied();
    let fd = begin(accept());
    let (Some(kind), 0..) = (served, fd) else { return fd };
    let Arrival::Client(client) = keeping_errno(|| arrive(fd, flags, kind)) else { return fd };
    if let (false, Some(room)) = (address.is_null(), room) {
        // SAFETY: the caller's promise.
        unsafe { put_address(shown(&client, room), address, size, room) };
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

/// getpeername(2): for a client the address from the hand-over; its socket may be a socketpair of the gateway.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn getpeername(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    let client = table::client(fd).and_then(|_| keeping_errno(|| leaving::confirmed_client(fd)));
    // Read before the call, which overwrites it.
    // SAFETY: the caller's promise.
    let room = client.and_then(|_| unsafe { size.as_ref() }.copied());
    // SAFETY: the caller's promise.
    let result = unsafe { real::getpeername(fd, address, size) };
    let peer = client.and_then(|client| keeping_errno(|| *client.address.lock().ok()?));
    if let (0, Some(peer), Some(room)) = (result, peer, room) {
        // SAFETY: the caller's promise.
        unsafe { put_address(peer.as_bytes(), address, size, room) };
    }
    result
}

/// getsockname(2): a server with a buffer of exactly a `struct sockaddr_un` gets the address of an unnamed socket, as
/// from accept(2). Java calls it for each client.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn getsockname(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int {
    let client = table::client(fd).and_then(|_| keeping_errno(|| leaving::confirmed_client(fd)));
    // SAFETY: the caller's promise.
    let room = client.and_then(|client| unsafe { size.as_ref() }.copied().filter(|_| client.is_handed_over()));
    // SAFETY: the caller's promise.
    let result = unsafe { real::getsockname(fd, address, size) };
    if let (0, Some(room)) = (result, room.filter(|room| is_for_unix(*room))) {
        // SAFETY: the caller's promise.
        unsafe { put_address(&UNNAMED, address, size, room) };
    }
    result
}

pub(super) fn copied(fd: RawFd, new: c_int) -> c_int {
    if new >= 0 && new != fd {
        keeping_errno(|| leaving::copy(fd, new));
    }
    new
}

/// Called before dup2(2) and dup3(2): drops the entry of `to`, unless the call will fail.
pub(super) fn make_way(fd: RawFd, to: RawFd) {
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
    keeping_errno(|| make_way(fd, to));
    // SAFETY: no memory is named.
    copied(fd, unsafe { real::dup2(fd, to) })
}

/// dup3(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    keeping_errno(|| make_way(fd, to));
    // SAFETY: no memory is named.
    copied(fd, unsafe { real::dup3(fd, to, flags) })
}

pub(super) fn controlled(fd: RawFd, command: c_int, result: c_int) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => copied(fd, result),
        _ => result,
    }
}

/// fcntl(2). The variadic argument is a number, a pointer or missing; it is passed on in any case.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's promise.
    controlled(fd, command, unsafe { real::fcntl(fd, command, argument) })
}

/// fcntl(2) with 64-bit file locks.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's promise.
    controlled(fd, command, unsafe { real::fcntl64(fd, command, argument) })
}

/// shutdown(2): sends a close frame before the sending half is shut down.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    before_shutdown(fd, how);
    // SAFETY: no memory is named.
    unsafe { real::shutdown(fd, how) }
}

pub(super) fn before_shutdown(fd: RawFd, how: c_int) {
    if matches!(how, libc::SHUT_WR | libc::SHUT_RDWR) && table::client(fd).is_some() {
        keeping_errno(|| leaving::end_sending(fd));
    }
}

/// close(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if !before_close(fd) {
        return 0;
    }
    // SAFETY: no memory is named.
    unsafe { real::close(fd) }
}

/// Whether close(2) must be called. The ledger stays open: a server that closes all descriptors means its own.
pub(super) fn before_close(fd: RawFd) -> bool {
    if fd >= 0 && fd == ledger::fd() && !table::is_vfork_child() {
        return false;
    }
    keeping_errno(|| leaving::leave(fd));
    true
}

/// close_range(2)
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    if flags & CLOSE_RANGE_CLOEXEC == 0 && first <= last {
        keeping_errno(|| {
            table::known().filter(|fd| (first..=last).contains(&(*fd as c_uint))).for_each(leaving::leave)
        });
        if let Ok(kept) = c_uint::try_from(ledger::fd())
            && (first..=last).contains(&kept)
            && !table::is_vfork_child()
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

/// fclose(3), which does not call the interposed close(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fclose(stream: *mut FILE) -> c_int {
    // SAFETY: the caller's promise.
    let fd = unsafe { libc::fileno(stream) };
    if table::client(fd).is_some() {
        keeping_errno(|| leaving::leave(fd));
    }
    // SAFETY: the caller's promise.
    unsafe { real::fclose(stream) }
}
