//! Sockets that are to be connected, and to where.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

use super::{SocketType, tcp};
use crate::limits::Http;

/// For the socket that was opened. Through the opened inode: a long path works, and nothing can be swapped behind the
/// check.
pub(super) fn to_unix(file: &OwnedFd, socket_type: SocketType) -> Result<(OwnedFd, UnixAddr), Errno> {
    let has_packets = socket_type == SocketType::SeqPacket;
    let socket_type = if has_packets { SockType::SeqPacket } else { SockType::Stream };
    // Non-blocking, so that a full backlog is an EAGAIN at once and not a parked kernel thread.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, socket_type, flags, None)?;
    if has_packets {
        // Each packet then has a control message and the end has none, which tells an empty packet from the end.
        // SO_PASSCRED would do so too, but it gives the socket an abstract name, which the server sees (unix(7)).
        socket::setsockopt(&socket, socket::sockopt::ReceiveTimestamp, &true)?;
    }
    let address = UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str())?;
    Ok((socket, address))
}

/// For a TCP server.
pub(super) fn to_tcp(address: SocketAddr, limits: &Http) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&socket, socket::sockopt::TcpNoDelay, &true)?;
    tcp::watch_peers(&socket, limits)?;
    Ok(socket)
}
