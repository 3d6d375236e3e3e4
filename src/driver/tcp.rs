//! Socket options of TCP connections (tcp(7)).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use crate::limits::{Http, TCP_KEEPALIVE_INTERVAL_MS, TCP_KEEPALIVE_PROBES_MAX, TCP_UNSENT_SIZE};

sockopt_impl!(
    /// The largest number of unsent bytes in the kernel's send queue (tcp(7), TCP_NOTSENT_LOWAT).
    NotSentLowat,
    Both,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// Enables keepalive and the user timeout, so that the kernel detects peers that vanish. Accepted sockets inherit this
/// from their listener.
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

/// Limits the unsent bytes in the kernel, so that progress of a slow client is visible and a ping does not wait for
/// megabytes. Accepted sockets inherit this from their listener.
pub fn keep_unsent_small(fd: &OwnedFd) -> Result<(), Errno> {
    setsockopt(fd, NotSentLowat, &TCP_UNSENT_SIZE)
}

/// Resets the limit of unsent bytes for a client that is passed to another process.
pub(super) fn forget_unsent(fd: &OwnedFd) {
    // 0 is the kernel's default; a socket that is not TCP fails here and needs no reset.
    let _ = setsockopt(fd, NotSentLowat, &0);
}

/// Whether the peer has received all sent bytes: its TCP has acknowledged them (tcp(7), SIOCOUTQ), or its program has
/// read them from a UNIX socket. The send buffer is then empty.
pub(super) fn has_taken_all(fd: &OwnedFd) -> bool {
    let mut unsent: libc::c_int = 0;
    // SAFETY: the command stores one int, for which there is room.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
    // A broken connection has nothing to wait for: the next send reports it.
    result != 0 || unsent == 0
}

/// Converts to seconds, which these options use; the kernel accepts 1 to 32767.
fn seconds(ms: u64) -> u32 {
    ms.div_ceil(1000).clamp(1, 32_767) as u32
}
