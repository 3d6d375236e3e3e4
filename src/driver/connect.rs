//! Sockets for outgoing connections, and the addresses and modes of all connections.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, UnixAddr};

use super::{SocketType, tcp};
use crate::limits::Http;
use crate::types::Address;

/// Space for the control message of a packet, its timestamp (cmsg(3), socket(7)). No descriptor from a backend fits
/// after it: the kernel would install the descriptor in this process, and closes it if there is no space.
pub(super) const PACKET_CONTROL_SIZE: usize = 32;

/// Bytes of a buffer that packets leave free: the header that the ring writes before a packet
/// (io_uring_prep_recvmsg_multishot(3)). epoll needs none, but is to receive packets of the same sizes.
pub(super) const PACKET_PREFIX_SIZE: usize = 4 * size_of::<u32>() + PACKET_CONTROL_SIZE;

const _: () = {
    let head_size = size_of::<libc::cmsghdr>();
    let stamp_size = head_size + size_of::<libc::timeval>();
    assert!(PACKET_CONTROL_SIZE >= stamp_size);
    assert!(PACKET_CONTROL_SIZE < stamp_size + head_size + size_of::<libc::c_int>());
};

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

/// Clears or sets O_NONBLOCK.
pub(super) fn set_blocking(socket: &OwnedFd, is_blocking: bool) -> Result<(), Errno> {
    let flags = if is_blocking { OFlag::empty() } else { OFlag::O_NONBLOCK };
    fcntl(socket, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Shuts down a connection's sending half, or both halves.
pub(super) fn shutdown(socket: &OwnedFd, both: bool) {
    let how = if both { socket::Shutdown::Both } else { socket::Shutdown::Write };
    // A disconnected peer needs no shutdown.
    let _ = socket::shutdown(socket.as_raw_fd(), how);
}

/// The peer's address of an accepted connection.
pub(super) fn peer_address(client: &OwnedFd) -> Address {
    address_of(socket::getpeername(client.as_raw_fd()))
}

/// The local address of a connection.
pub(super) fn local_address(client: &OwnedFd) -> Address {
    address_of(socket::getsockname(client.as_raw_fd()))
}

fn address_of(told: Result<SockaddrStorage, Errno>) -> Address {
    let Ok(address) = told else { return Address::Unknown };
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Address::Tcp(std::net::SocketAddrV4::from(*v4).into()),
        (_, Some(v6)) => Address::Tcp(std::net::SocketAddrV6::from(*v6).into()),
        _ => Address::Unix,
    }
}
