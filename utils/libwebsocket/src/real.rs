//! The next definition of each interposed function: libc's, or that of another preloaded library.
//!
//! All are looked up in the constructor; a library that is initialized earlier may call one before that.

use std::ffi::{CStr, c_int, c_long, c_uint, c_ulong, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::libc::{
    self, epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, off_t, pollfd, sigset_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec, timeval,
};

/// dlsym(3) with RTLD_NEXT, cached in `place`; null: no such function.
fn look_up(place: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = place.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the name ends with a NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    place.store(found, Ordering::Relaxed);
    found
}

macro_rules! real {
    ($(
        $(#[$condition:meta])?
        fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;
    )*) => {
        /// The cached addresses.
        mod place {
            $($(#[$condition])?
            #[allow(non_upper_case_globals)]
            pub(crate) static $name: super::AtomicPtr<super::c_void> = super::AtomicPtr::new(super::null_mut());)*
        }

        fn name_of(name: &'static [u8]) -> &'static CStr {
            CStr::from_bytes_with_nul(name).unwrap_or_default()
        }

        /// Looks up all functions.
        pub(crate) fn look_up_all() {
            $($(#[$condition])?
            look_up(&place::$name, name_of(concat!(stringify!($name), "\0").as_bytes()));)*
            look_up(&SYSCALL, c"syscall");
        }

        $(
            $(#[$condition])?
            /// The next function of this name; ENOSYS: this system has none.
            ///
            /// # Safety
            /// As the function.
            pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
                let found = look_up(&place::$name, name_of(concat!(stringify!($name), "\0").as_bytes()));
                if found.is_null() {
                    Errno::ENOSYS.set();
                    return -1;
                }
                // SAFETY: this is the type of the function with this name.
                let function: unsafe extern "C" fn($($type),*) -> $result = unsafe { transmute(found) };
                // SAFETY: guaranteed by the caller.
                unsafe { function($($argument),*) }
            }
        )*
    };
}

real! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int;
    fn accept(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int;
    fn accept4(fd: c_int, address: *mut sockaddr, size: *mut socklen_t, flags: c_int) -> c_int;
    fn read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t;
    fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    fn recv(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> ssize_t;
    fn recvfrom(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int, from: *mut sockaddr, from_size: *mut socklen_t) -> ssize_t;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, time: *mut timespec) -> c_int;
    #[cfg(any(test, all(target_env = "gnu", target_pointer_width = "32")))]
    fn __recvmsg64(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    #[cfg(any(test, all(target_env = "gnu", target_pointer_width = "32")))]
    fn __recvmmsg64(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, time: *mut c_void) -> c_int;
    fn __read_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t) -> ssize_t;
    fn __recv_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t, flags: c_int) -> ssize_t;
    fn __recvfrom_chk(fd: c_int, buffer: *mut c_void, size: size_t, room: size_t, flags: c_int, from: *mut sockaddr, from_size: *mut socklen_t) -> ssize_t;
    fn write(fd: c_int, buffer: *const c_void, size: size_t) -> ssize_t;
    fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    fn send(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int) -> ssize_t;
    fn sendto(fd: c_int, buffer: *const c_void, size: size_t, flags: c_int, to: *const sockaddr, to_size: socklen_t) -> ssize_t;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    fn sendfile(to: c_int, from: c_int, offset: *mut off_t, size: size_t) -> ssize_t;
    fn sendfile64(to: c_int, from: c_int, offset: *mut i64, size: size_t) -> ssize_t;
    fn splice(from: c_int, from_offset: *mut i64, to: c_int, to_offset: *mut i64, size: size_t, flags: c_uint) -> ssize_t;
    fn dup(fd: c_int) -> c_int;
    fn dup2(fd: c_int, to: c_int) -> c_int;
    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn getsockname(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int;
    fn getpeername(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn fclose(stream: *mut libc::FILE) -> c_int;
    fn poll(fds: *mut pollfd, count: nfds_t, time_ms: c_int) -> c_int;
    fn ppoll(fds: *mut pollfd, count: nfds_t, time: *const timespec, signals: *const sigset_t) -> c_int;
    fn select(count: c_int, reads: *mut fd_set, writes: *mut fd_set, exceptions: *mut fd_set, time: *mut timeval) -> c_int;
    fn pselect(count: c_int, reads: *mut fd_set, writes: *mut fd_set, exceptions: *mut fd_set, time: *const timespec, signals: *const sigset_t) -> c_int;
    fn epoll_ctl(epoll: c_int, command: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut epoll_event, count: c_int, time_ms: c_int) -> c_int;
    fn epoll_pwait(epoll: c_int, events: *mut epoll_event, count: c_int, time_ms: c_int, signals: *const sigset_t) -> c_int;
    fn epoll_pwait2(epoll: c_int, events: *mut epoll_event, count: c_int, time: *const timespec, signals: *const sigset_t) -> c_int;
}

static SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// syscall(2), which is variadic.
///
/// # Safety
/// As the system call.
pub(crate) unsafe fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let found = look_up(&SYSCALL, c"syscall");
    if found.is_null() {
        Errno::ENOSYS.set();
        return -1;
    }
    // SAFETY: this is the type of syscall(2).
    let function: unsafe extern "C" fn(c_long, ...) -> c_long = unsafe { transmute(found) };
    // SAFETY: guaranteed by the caller; pointers among the arguments are not dereferenced here.
    unsafe { function(number, a, b, c, d, e, f) }
}

/// Safe wrappers of the functions that the library itself calls on a client's socket.
pub(crate) mod safe {
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::{BorrowedFd, RawFd};
    use std::time::Duration;

    use nix::sys::socket::{getsockopt, sockopt};

    use server::tls::{self, Notice};

    use super::*;

    fn size(result: ssize_t) -> Result<usize, Errno> {
        usize::try_from(result).map_err(|_| Errno::last())
    }

    /// recvmsg(2) without a name and without ancillary data.
    pub(crate) fn receive(fd: RawFd, parts: &mut [IoSliceMut<'_>], flags: c_int) -> Result<usize, Errno> {
        // SAFETY: a msghdr may be all zeros.
        let mut message: msghdr = unsafe { std::mem::zeroed() };
        // IoSliceMut has the layout of an iovec (its documentation).
        message.msg_iov = parts.as_mut_ptr().cast();
        message.msg_iovlen = parts.len() as _;
        // SAFETY: the message names memory that may be written to, and lives through the call.
        size(unsafe { recvmsg(fd, &raw mut message, flags) })
    }

    /// sendmsg(2) without a name and without ancillary data.
    pub(crate) fn send(fd: RawFd, parts: &[IoSlice<'_>], flags: c_int) -> Result<usize, Errno> {
        // SAFETY: a msghdr may be all zeros.
        let mut message: msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len() as _;
        // SAFETY: the message names memory that is only read, and lives through the call.
        size(unsafe { sendmsg(fd, &raw const message, flags) })
    }

    /// Receives a TLS record that is no payload, without waiting, after a receive that was an EIO.
    pub(crate) fn receive_notice(fd: RawFd) -> Result<Notice, Errno> {
        // SAFETY: the message names memory that may be written to, and lives through the call.
        tls::receive_notice(&mut |message| unsafe { recvmsg(fd, message, libc::MSG_DONTWAIT) })
    }

    /// Sends close_notify, without waiting. The socket must have TLS.
    pub(crate) fn send_close_notify(fd: RawFd) {
        const FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the message names memory that is only read, and lives through the call.
        tls::send_close_notify(&mut |message| unsafe { sendmsg(fd, message, FLAGS) });
    }

    /// Whether the kernel does TLS on this socket.
    pub(crate) fn is_tls(fd: RawFd) -> bool {
        // SAFETY: borrowed for this call only; a closed descriptor is an EBADF.
        tls::is_tls(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// fcntl(2) with a number for an argument.
    pub(crate) fn control(fd: RawFd, command: c_int, argument: c_int) -> Result<c_int, Errno> {
        // SAFETY: the commands used here take no pointer.
        Errno::result(unsafe { fcntl(fd, command, argument as c_ulong) })
    }

    /// Whether O_NONBLOCK is not set.
    pub(crate) fn is_blocking(fd: RawFd) -> bool {
        control(fd, libc::F_GETFL, 0).is_ok_and(|flags| flags & libc::O_NONBLOCK == 0)
    }

    /// SO_RCVTIMEO; None: no timeout.
    pub(crate) fn receive_limit(fd: RawFd) -> Option<Duration> {
        // SAFETY: borrowed for this call only, during a read of the server, which keeps it open.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let time = getsockopt(&socket, sockopt::ReceiveTimeout).ok()?;
        let limit = Duration::new(time.tv_sec().try_into().ok()?, 0) + Duration::from_micros(time.tv_usec() as u64);
        (!limit.is_zero()).then_some(limit)
    }

    /// poll(2) for bytes or end of file. False: timeout.
    pub(crate) fn poll_readable(fd: RawFd, time_ms: c_int) -> Result<bool, Errno> {
        let mut set = pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one entry, which lives through the call.
        Errno::result(unsafe { poll(&raw mut set, 1, time_ms) }).map(|count| count > 0)
    }

    /// The inode of a socket; None: closed, or no socket. Inodes of sockfs have 32 bits.
    pub(crate) fn socket_inode(fd: RawFd) -> Option<usize> {
        // SAFETY: a `struct stat` may be all zeros.
        let mut status: libc::stat64 = unsafe { std::mem::zeroed() };
        // SAFETY: the `struct stat` lives through the call.
        let result = unsafe { libc::fstat64(fd, &raw mut status) };
        (result == 0 && status.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(status.st_ino as usize)
    }

    /// dup3(2).
    pub(crate) fn replace(fd: RawFd, to: RawFd, flags: c_int) -> Result<c_int, Errno> {
        // SAFETY: `to` is the server's connection, which the hand-over replaces.
        Errno::result(unsafe { dup3(fd, to, flags) })
    }

    /// shutdown(2).
    pub(crate) fn end(fd: RawFd, how: c_int) {
        // SAFETY: no memory is named.
        let _ = unsafe { shutdown(fd, how) };
    }

    /// close(2).
    pub(crate) fn close_fd(fd: RawFd) -> Result<c_int, Errno> {
        // SAFETY: the caller owns the descriptor and does not use it again.
        Errno::result(unsafe { close(fd) })
    }
}
