//! syscall(2), by which some close: libuv, and with it Node and uvloop, since close(2) is a place where a thread may be
//! cancelled (pthreads(7)).

use std::ffi::{c_int, c_long, c_uint};
use std::os::fd::RawFd;

use nix::libc;

use super::descriptors::{before_close, before_shutdown, begin, begin_passed, close_range, controlled, copied};
use super::descriptors::{make_way, take};
use super::keeping_errno;
use crate::real;

/// dup2(2), which younger architectures do not have.
#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm"))]
const DUP2: Option<c_long> = Some(libc::SYS_dup2);
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm")))]
const DUP2: Option<c_long> = None;
/// accept(2), which x86 does not have.
#[cfg(not(target_arch = "x86"))]
const ACCEPT: Option<c_long> = Some(libc::SYS_accept);
#[cfg(target_arch = "x86")]
const ACCEPT: Option<c_long> = None;
/// fcntl(2) with locks of 64 bits.
#[cfg(target_pointer_width = "32")]
const FCNTL: c_long = libc::SYS_fcntl64;
#[cfg(not(target_pointer_width = "32"))]
const FCNTL: c_long = libc::SYS_fcntl;

/// syscall(2): calls that make, copy or close descriptors are noticed; those that read and write go past the library.
/// All others go on at once, and no lock is taken for them: programs build their locks of this function.
///
/// It is variadic in C, which stable Rust cannot define. Six arguments are taken and passed on, whatever the call has:
/// the registers and words of the stack in which variadic integers and pointers are passed are those of fixed ones in
/// the C ABI of Linux on x86, x86-64, ARM, AArch64 and RISC-V. Those that the caller did not give are words of its own
/// frame, which may be read, and which the kernel does not look at.
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
    // The kernel takes descriptors as int.
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
        // Other commands than those that copy may return more than an int has room for.
        FCNTL if matches!(second, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => {
            controlled(fd, second, call() as c_int).into()
        }
        libc::SYS_socket => begin(call() as c_int).into(),
        _ if number == libc::SYS_accept4 || Some(number) == ACCEPT => {
            let flags = if number == libc::SYS_accept4 { d as c_int } else { 0 };
            // SAFETY: the caller's promise; these are pointers.
            unsafe { take(fd, b as *mut _, c as *mut _, flags, || call() as c_int) }.into()
        }
        libc::SYS_recvmsg => {
            let size = call();
            if size >= 0 {
                // SAFETY: it was just received; this is a pointer.
                unsafe { begin_passed(b as *const _) };
            }
            size
        }
        _ => call(),
    }
}
