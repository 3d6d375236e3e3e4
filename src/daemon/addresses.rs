//! Changes of the host's addresses, which rtnetlink(7) reports.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, socket,
};

use crate::limits::NETLINK_READS_MAX;

/// A netlink socket, and the addresses at its last message.
pub(crate) struct AddressEvents {
    socket: OwnedFd,
    known: BTreeSet<IpAddr>,
}

impl AddressEvents {
    /// Every later change is an event.
    pub(crate) fn new() -> Result<AddressEvents, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
        Ok(AddressEvents { socket, known: addresses() })
    }

    /// For a poll.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the addresses have changed since the last call. Most messages renew the lifetime of
    /// an address, or are about the state of a link.
    pub(crate) fn take(&mut self) -> bool {
        let mut has_messages = false;
        for _ in 0..NETLINK_READS_MAX {
            // What a message says does not matter, nor how much of it fits.
            match recv(self.socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT) {
                // ENOBUFS: messages were lost.
                Ok(_) | Err(Errno::ENOBUFS) => has_messages = true,
                Err(_) => break,
            }
        }
        if !has_messages {
            return false;
        }
        let now = addresses();
        let has_changed = now != self.known;
        self.known = now;
        has_changed
    }
}

/// The addresses that uakari-ca certifies: those of interfaces that are up, without link-local ones of IPv6.
fn addresses() -> BTreeSet<IpAddr> {
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| v6.ip()).filter(|v6| !v6.is_unicast_link_local());
        v4.or(v6.map(IpAddr::V6))
    };
    let interfaces = getifaddrs().into_iter().flatten();
    let up = interfaces.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    up.filter_map(|interface| interface.address.and_then(ip)).collect()
}
