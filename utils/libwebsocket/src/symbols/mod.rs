//! The interposed functions. Each calls libc's unless the descriptor is a client.
#![cfg_attr(test, allow(dead_code))]

use std::ffi::{c_int, c_void};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::libc::{iovec, size_t, ssize_t};

use crate::arrival::{Decision, decide};
use crate::client::Client;
use crate::limits::PARTS_MAX;
use crate::{leaving, reading, table};

mod by_number;
mod descriptors;
mod read;
mod wait;
#[cfg(any(test, all(target_env = "gnu", target_pointer_width = "32")))]
mod wide;
mod write;

/// Runs the library's own work before or after a call of the server. errno keeps its value.
fn keeping_errno<T>(act: impl FnOnce() -> T) -> T {
    keeping_errno_unless(|_| false, act)
}

/// Runs a call of the server. If it succeeds, errno keeps its value, even if a system call within it has failed:
/// ouistiti's servers keep a client after a read of 0 if errno is EAGAIN.
fn keeping_errno_unless<T>(has_failed: impl FnOnce(&T) -> bool, call: impl FnOnce() -> T) -> T {
    let before = Errno::last_raw();
    let result = call();
    if !has_failed(&result) {
        Errno::set_raw(before);
    }
    result
}

/// A call for a client; None: it is no client, and libc must be called.
fn about_client(call: impl FnOnce() -> Option<ssize_t>) -> Option<ssize_t> {
    keeping_errno_unless(|size| *size == Some(-1), call)
}

/// Converts to a return value and errno.
fn answer(result: Result<usize, Errno>) -> ssize_t {
    match result {
        Ok(size) => size as ssize_t,
        Err(errno) => {
            errno.set();
            -1
        }
    }
}

/// The client to read from; None: libc must be called. Waits here for a late hand-over.
fn reader(fd: RawFd, flags: c_int) -> Option<Result<&'static Client, Errno>> {
    let client = table::client(fd)?;
    while !client.is_handed_over.load(Ordering::Acquire) {
        match decide(fd, client) {
            Ok(Decision::Client) => break,
            Ok(Decision::Plain) => return None,
            Ok(Decision::Open) => {
                if let Err(errno) = reading::wait_for_byte(fd, flags) {
                    return Some(Err(errno));
                }
            }
            Err(errno) => return Some(Err(errno)),
        }
    }
    Some(Ok(client))
}

/// The client to write to, before or after its hand-over; None: libc must be called.
fn writer(fd: RawFd) -> Option<Result<&'static Client, Errno>> {
    let client = table::client(fd)?;
    if client.is_handed_over() {
        return Some(Ok(client));
    }
    match decide(fd, client) {
        Ok(Decision::Client | Decision::Open) => Some(Ok(client)),
        Ok(Decision::Plain) => None,
        Err(errno) => Some(Err(errno)),
    }
}

/// The result for a client; None: the number belongs to another file by now, and libc must be called. A positive size,
/// EAGAIN and EINTR come from the socket itself; other results may come from the library's state.
fn heal(fd: RawFd, result: Result<usize, Errno>) -> Option<ssize_t> {
    match result {
        Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => Some(answer(result)),
        _ if leaving::was_stale(fd) => None,
        _ => Some(answer(result)),
    }
}

/// The server's buffer, to be written.
///
/// # Safety
/// `buffer` is null, or has `size` bytes that are not used otherwise for `'a`.
unsafe fn room<'a>(buffer: *mut c_void, size: size_t) -> Result<&'a mut [u8], Errno> {
    match (buffer.is_null(), size) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Errno::EFAULT),
        // SAFETY: as promised.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), size) }),
    }
}

/// The server's buffer, to be read.
///
/// # Safety
/// `buffer` is null, or has `size` bytes that are not written for `'a`.
unsafe fn bytes<'a>(buffer: *const c_void, size: size_t) -> Result<&'a [u8], Errno> {
    match (buffer.is_null(), size) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Errno::EFAULT),
        // SAFETY: as promised.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(buffer.cast(), size) }),
    }
}

/// The server's vector.
///
/// # Safety
/// `parts` is null, or has `count` elements.
unsafe fn parts<'a>(parts: *const iovec, count: usize) -> Result<&'a [iovec], Errno> {
    match (parts.is_null(), count) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Errno::EFAULT),
        (false, PARTS_MAX..) if count > PARTS_MAX => Err(Errno::EMSGSIZE),
        // SAFETY: as promised.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(parts, count) }),
    }
}

/// The server's vector, to be written.
///
/// # Safety
/// As `parts`, and as `room` for each of them.
unsafe fn rooms<'a>(vector: *const iovec, count: usize) -> Result<Vec<IoSliceMut<'a>>, Errno> {
    // SAFETY: as promised.
    let vector = unsafe { parts(vector, count) }?;
    // SAFETY: as promised.
    vector.iter().map(|part| unsafe { room(part.iov_base, part.iov_len) }.map(IoSliceMut::new)).collect()
}

/// The server's vector, to be read.
///
/// # Safety
/// As `parts`, and as `bytes` for each of them.
unsafe fn slices<'a>(vector: *const iovec, count: usize) -> Result<Vec<IoSlice<'a>>, Errno> {
    // SAFETY: as promised.
    let vector = unsafe { parts(vector, count) }?;
    // SAFETY: as promised.
    vector.iter().map(|part| unsafe { bytes(part.iov_base, part.iov_len) }.map(IoSlice::new)).collect()
}
