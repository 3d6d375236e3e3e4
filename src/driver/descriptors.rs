//! Ownership of descriptors that system calls return by number, their replacement, and signalfd(2).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Takes ownership of a descriptor that the kernel has just created.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass the result of a call that creates a descriptor, which has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Reads these signals, which must be blocked (signalfd(2)).
pub(super) fn signals(signals: &[Signal]) -> Result<SignalFd, Errno> {
    let mask = SigSet::from_iter(signals.iter().copied());
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Lets `old` refer to the file of `new`. Its number stays the same, so operations that name it remain valid.
pub(super) fn replace(old: &OwnedFd, new: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: both descriptors are open, and `old` stays owned by the caller: only the file that it refers to changes.
    Errno::result(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}
