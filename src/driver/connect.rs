//! Sockets for outgoing connections, and their addresses.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

use super::{SocketType, tcp};
use crate::limits::Http;

/// A socket for an opened UNIX socket file, and its address. The address goes through the opened descriptor, so that a
/// long path works and the file cannot be replaced after the check.
pub(super) fn to_unix(file: &OwnedFd, socket_type: SocketType) -> Result<(OwnedFd, UnixAddr), Errno> {
    let has_packets = socket_type == SocketType::SeqPacket;
    let socket_type = if has_packets { SockType::SeqPacket } else { SockType::Stream };
    // Non-blocking, so that a full backlog fails with EAGAIN at once and does not block a kernel thread.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, socket_type, flags, None)?;
    if has_packets {
        // With a timestamp each packet has a control message and the end of stream has none, which distinguishes an
        // empty packet from the end. SO_PASSCRED would do the same, but gives the socket an abstract name, which the
        // backend sees (unix(7)).
        socket::setsockopt(&socket, socket::sockopt::ReceiveTimestamp, &true)?;
    }
    let address = UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str())?;
    Ok((socket, address))
}

/// A socket for a TCP backend.
pub(super) fn to_tcp(address: SocketAddr, limits: &Http) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&socket, socket::sockopt::TcpNoDelay, &true)?;
    tcp::watch_peers(&socket, limits)?;
    Ok(socket)
}
