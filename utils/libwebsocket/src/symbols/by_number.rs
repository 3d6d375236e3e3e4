//! syscall(2). libuv, and so Node and uvloop, close descriptors with it, since close(2) is a cancellation point
//! (pthreads(7)).

use std::ffi::{c_int, c_long, c_uint};
use std::os::fd::RawFd;

use nix::libc;

use super::descriptors::{before_close, before_shutdown, begin, begin_passed, close_range, controlled, copied};
use super::descriptors::{make_way, take};
use super::keeping_errno;
use crate::real;

/// dup2(2); None: newer architectures do not have it.
#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm"))]
const DUP2: Option<c_long> = Some(libc::SYS_dup2);
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm")))]
const DUP2: Option<c_long> = None;
/// accept(2); None: x86 does not have it.
#[cfg(not(target_arch = "x86"))]
const ACCEPT: Option<c_long> = Some(libc::SYS_accept);
#[cfg(target_arch = "x86")]
const ACCEPT: Option<c_long> = None;
/// fcntl(2) with 64-bit file locks; None: 64-bit architectures have only SYS_fcntl.
#[cfg(target_pointer_width = "32")]
const FCNTL64: Option<c_long> = Some(libc::SYS_fcntl64);
#[cfg(not(target_pointer_width = "32"))]
const FCNTL64: Option<c_long> = None;

/// syscall(2): handles calls that create, duplicate or close descriptors. Reads and writes are not interposed. All
/// other calls are passed on at once and take no lock: programs implement their own locks with futex(2).
///
/// The C function is variadic, which stable Rust cannot define. This one always passes six arguments on: in the C ABI
/// of Linux on x86, x86-64, ARM, AArch64 and RISC-V, variadic integers and pointers use the same registers and stack
/// words as fixed ones. Arguments that the caller did not pass are words of its own frame, which may be read and which
/// the kernel ignores.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: the caller's promise.
    let call = || unsafe { real::syscall(number, a, b, c, d, e, f) };
    // The kernel truncates descriptors to int.
    let (fd, second) = (a as RawFd, b as RawFd);
    match number {
        libc::SYS_close if !before_close(fd) => 0,
        libc::SYS_close => call(),
        // SAFETY: no memory is named.
        libc::SYS_close_range => unsafe { close_range(a as c_uint, b as c_uint, c as c_int) }.into(),
        libc::SYS_shutdown => {
            before_shutdown(fd, second);
            call()
        }
        libc::SYS_dup => copied(fd, call() as c_int).into(),
        _ if number == libc::SYS_dup3 || Some(number) == DUP2 => {
            keeping_errno(|| make_way(fd, second));
            copied(fd, call() as c_int).into()
        }
        // Other commands may return more than an int can hold.
        _ if (number == libc::SYS_fcntl || Some(number) == FCNTL64)
            && matches!(second, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) =>
        {
            controlled(fd, second, call() as c_int).into()
        }
        libc::SYS_socket => begin(call() as c_int).into(),
        _ if number == libc::SYS_accept4 || Some(number) == ACCEPT => {
            let flags = if number == libc::SYS_accept4 { d as c_int } else { 0 };
            // SAFETY: the caller's promise; these arguments are pointers.
            unsafe { take(fd, b as *mut _, c as *mut _, flags, || call() as c_int) }.into()
        }
        libc::SYS_recvmsg => {
            let size = call();
            if size >= 0 {
                // SAFETY: recvmsg(2) has just filled the message that this argument points to.
                unsafe { begin_passed(b as *const _) };
            }
            size
        }
        _ => call(),
    }
}
