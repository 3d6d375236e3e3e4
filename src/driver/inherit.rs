//! Sockets inherited through LISTEN_FDS.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname};

/// The first inherited descriptor (SD_LISTEN_FDS_START of sd_listen_fds(3)).
const FIRST: RawFd = 3;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes ownership of `count` sockets from descriptor `FIRST` on, and sets close-on-exec. Later calls return an empty
/// list. The caller knows from the process's environment that they are open, and calls this before the process opens
/// any descriptor itself. An error names the descriptor that is not a socket.
pub fn take_sockets(count: u16) -> Result<Vec<OwnedFd>, (RawFd, Errno)> {
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    (FIRST..FIRST + RawFd::from(count)).map(|number| take_socket(number).map_err(|errno| (number, errno))).collect()
}

fn take_socket(number: RawFd) -> Result<OwnedFd, Errno> {
    // Check first: a descriptor that is not open must not be owned.
    getsockname::<SockaddrStorage>(number)?;
    // SAFETY: the number is open, was opened for this process before it began, and is handed out only once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}
