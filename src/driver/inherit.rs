//! Sockets that the process was born with, left open for it by whoever started it.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname};

/// The first of them (SD_LISTEN_FDS_START of sd_listen_fds(3)).
const FIRST: RawFd = 3;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the sockets from `FIRST` on, so many of them, and closes them on exec from now on. They can be taken once:
/// after that there are none. The caller has the word of the one who started the process that they are there, and
/// asks before the process opens anything itself. An error names the number that is no socket.
pub fn take_sockets(count: u16) -> Result<Vec<OwnedFd>, (RawFd, Errno)> {
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    (FIRST..FIRST + RawFd::from(count)).map(|number| take_socket(number).map_err(|errno| (number, errno))).collect()
}

fn take_socket(number: RawFd) -> Result<OwnedFd, Errno> {
    // Asked first: what is not open may not be owned.
    getsockname::<SockaddrStorage>(number)?;
    // SAFETY: the number is open, was opened for this process before it began, and is handed out only once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}
