//! What the kernel is told about TCP connections (tcp(7)).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use crate::limits::{Http, TCP_KEEPALIVE_INTERVAL_MS, TCP_KEEPALIVE_PROBES_MAX, TCP_UNSENT_SIZE};

sockopt_impl!(
    /// Bytes that may wait in the kernel without having been sent once (tcp(7), TCP_NOTSENT_LOWAT).
    NotSentLowat,
    Both,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// The kernel finds out about peers that vanish. Accepted sockets inherit this from their listener.
pub fn watch_peers(fd: &OwnedFd, limits: &Http) -> Result<(), Errno> {
    if limits.tcp_keepalive_ms > 0 {
        setsockopt(fd, sockopt::KeepAlive, &true)?;
        setsockopt(fd, sockopt::TcpKeepIdle, &seconds(limits.tcp_keepalive_ms))?;
        setsockopt(fd, sockopt::TcpKeepInterval, &seconds(TCP_KEEPALIVE_INTERVAL_MS))?;
        setsockopt(fd, sockopt::TcpKeepCount, &TCP_KEEPALIVE_PROBES_MAX)?;
    }
    // 0 is the kernel's own default.
    setsockopt(fd, sockopt::TcpUserTimeout, &(limits.tcp_user_timeout_ms as u32))
}

/// The kernel takes little more than it can send, so that a slow client is seen to take bytes, and a ping does not
/// wait behind megabytes. Accepted sockets inherit this from their listener.
pub fn keep_unsent_small(fd: &OwnedFd) -> Result<(), Errno> {
    setsockopt(fd, NotSentLowat, &TCP_UNSENT_SIZE)
}

/// As it was made: for a client that goes to another process.
pub(super) fn forget_unsent(fd: &OwnedFd) {
    // The kernel's own default; a socket that is none of TCP's has nothing to forget.
    let _ = setsockopt(fd, NotSentLowat, &0);
}

/// Whether the peer has taken all that was sent to it: its TCP has acknowledged it (tcp(7), SIOCOUTQ), or its program has
/// read it from a UNIX socket. The send buffer is empty then.
pub(super) fn has_taken_all(fd: &OwnedFd) -> bool {
    let mut unsent: libc::c_int = 0;
    // SAFETY: the command stores one int, for which there is room.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
    // A connection that broke has nothing to wait for: the next send tells.
    result != 0 || unsent == 0
}

/// The kernel counts in seconds here; it takes no less than one and no more than 32767.
fn seconds(ms: u64) -> u32 {
    ms.div_ceil(1000).clamp(1, 32_767) as u32
}
