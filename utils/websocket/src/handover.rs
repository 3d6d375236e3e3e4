//! The hand-over: the message that the gateway sends on an accepted connection before it closes it.
//!
//! One sendmsg(2) with the client's connection as a file descriptor (SCM_RIGHTS, unix(7)). Its bytes are the client's
//! `struct sockaddr`, followed by the hello record if the gateway's `hello` is on. Other programs with write access to
//! the socket file can connect too; such a plain client passes no descriptor.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, recvmsg, sockopt};

use crate::deadline::Deadline;
use crate::limits::{ANCILLARY_SIZE, HELLO_SIZE_MAX};

/// The first bytes of a hello record (proxy-protocol.txt section 2.2).
const HELLO_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the record's header, the length field included.
const HELLO_HEAD_SIZE: usize = 16;
const ADDRESS_SIZE_MAX: usize = size_of::<libc::sockaddr_in6>();
/// Bytes of a `struct cmsghdr` (cmsg(3)): a `size_t` and two ints.
const CMSG_HEAD_SIZE: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();

/// What an accepted connection turned out to be.
#[derive(Debug)]
pub enum Received {
    /// A client was handed over. The connection it arrived on can be closed.
    Client(HandedOver),
    /// A plain local client. Its bytes, or its end of file, are still unread.
    Plain,
    /// Nothing arrived in time. The gateway sends at once, so this is most likely a plain local client.
    Nothing,
}

/// A client that the gateway has handed over.
#[derive(Debug)]
pub struct HandedOver {
    /// The client's connection, after the opening handshake. Close-on-exec.
    pub socket: OwnedFd,
    /// The client's address.
    pub address: ClientAddress,
    /// The hello record, for `parse_hello` of `utils/hello`; empty if the gateway sent none.
    pub hello: Box<[u8]>,
}

/// A client's address as accept(2) would return it: the bytes of a `struct sockaddr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    bytes: [u8; ADDRESS_SIZE_MAX],
    size: usize,
}

/// Why the hand-over failed. The caller should close the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverError {
    /// A system call failed. EMFILE: this process has no free descriptor for the client.
    Io(Errno),
    /// The descriptor is not a stream socket. A gateway never passes one.
    NoStream,
    /// The message does not begin with an address.
    Address,
    /// The bytes after the address are no hello record.
    Hello,
    /// The hello record was incomplete at the deadline or at the end of the connection.
    Cut,
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandoverError::Io(errno) => write!(f, "the hand-over cannot be received: {}", errno.desc()),
            HandoverError::NoStream => f.write_str("the descriptor handed over is not a connection"),
            HandoverError::Address => f.write_str("a descriptor was handed over without its client's address"),
            HandoverError::Hello => f.write_str("the data after the client's address is not a hello record"),
            HandoverError::Cut => f.write_str("the hello record is cut off"),
        }
    }
}

impl std::error::Error for HandoverError {}

/// Receives the hand-over on a connection that was just accepted, and waits at most `wait_ms` for it. The connection
/// may be blocking or not. Bytes of a plain client stay unread.
pub fn receive(connection: BorrowedFd<'_>, wait_ms: u32) -> Result<Received, HandoverError> {
    let deadline = Deadline::after_ms(wait_ms.into());
    // Enough to compute the length of the message.
    let mut start = [0; ADDRESS_SIZE_MAX + HELLO_HEAD_SIZE];
    let mut was_readable = false;
    let (socket, start_size) = loop {
        match peek(connection, &mut start) {
            Ok((Some(socket), size)) => break (socket, size),
            Ok((None, _)) => return Ok(Received::Plain),
            // poll(2) reports an out-of-band byte (unix(7), MSG_OOB) that MSG_PEEK does not return. No gateway sends
            // one.
            Err(Errno::EAGAIN) if was_readable => return Ok(Received::Plain),
            Err(Errno::EAGAIN) if deadline.wait(connection, PollFlags::POLLIN).map_err(HandoverError::Io)? => {
                was_readable = true;
            }
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(HandoverError::Io(errno)),
        }
    };
    // Servers do not expect other descriptors: epoll(7) fails with EPERM for regular files.
    if getsockopt(&socket, sockopt::SockType) != Ok(SockType::Stream) {
        return Err(HandoverError::NoStream);
    }
    let (address, rest) = ClientAddress::split(&start[..start_size]).ok_or(HandoverError::Address)?;
    let mut message = vec![0; address.size + hello_size(rest)?];
    take(connection, &mut message, deadline)?;
    let hello = message.split_off(address.size).into();
    Ok(Received::Client(HandedOver { socket, address, hello }))
}

/// Reads the first bytes and a duplicate of the descriptor with MSG_PEEK. There must be room for ancillary data:
/// without it, MSG_CTRUNC is also set for a message that has only credentials.
fn peek(connection: BorrowedFd<'_>, start: &mut [u8]) -> Result<(Option<OwnedFd>, usize), Errno> {
    let mut ancillary = [0; ANCILLARY_SIZE];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [std::io::IoSliceMut::new(start)];
    let (size, was_cut) = {
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut ancillary), flags)?;
        (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC))
    };
    // Parsed here: nix reports only ENOBUFS for truncated data, and the descriptors already installed would leak.
    let mut sockets = descriptors(&ancillary).into_iter();
    match sockets.next() {
        // With no free descriptor the kernel only sets MSG_CTRUNC.
        None if was_cut => Err(Errno::EMFILE),
        first => Ok((first, size)),
    }
}

/// Takes ownership of all descriptors in ancillary data, which must have been zeroed before recvmsg(2).
fn descriptors(ancillary: &[u8]) -> Vec<OwnedFd> {
    passed_numbers(ancillary).map(own).collect()
}

/// The descriptor numbers in ancillary data written by the kernel (SCM_RIGHTS, unix(7)).
pub fn passed_numbers(mut ancillary: &[u8]) -> impl Iterator<Item = RawFd> {
    let parts = std::iter::from_fn(move || {
        let (size, level, kind) = cmsg_head(ancillary)?;
        // The kernel's sizes are valid; a size of zero is the end.
        let data = ancillary.get(CMSG_HEAD_SIZE..size)?;
        ancillary = ancillary.get(size.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        Some(if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) { data } else { &[] })
    });
    parts.flat_map(|data| data.as_chunks().0.iter().map(|number| RawFd::from_ne_bytes(*number)))
}

fn cmsg_head(bytes: &[u8]) -> Option<(usize, libc::c_int, libc::c_int)> {
    let (size, rest) = bytes.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    Some((usize::from_ne_bytes(*size), libc::c_int::from_ne_bytes(*level), libc::c_int::from_ne_bytes(*kind)))
}

fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for this process, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The size of the hello record that begins with `start`; 0 if `start` is empty.
fn hello_size(start: &[u8]) -> Result<usize, HandoverError> {
    if start.is_empty() {
        return Ok(0);
    }
    let head = start.first_chunk::<HELLO_HEAD_SIZE>().ok_or(HandoverError::Hello)?;
    if !head.starts_with(HELLO_SIGNATURE) {
        return Err(HandoverError::Hello);
    }
    let size = HELLO_HEAD_SIZE + usize::from(u16::from_be_bytes([head[14], head[15]]));
    debug_assert!(size <= HELLO_SIZE_MAX);
    Ok(size)
}

/// Consumes the bytes of the message. The kernel may have split a long record.
fn take(connection: BorrowedFd<'_>, mut message: &mut [u8], deadline: Deadline) -> Result<(), HandoverError> {
    while !message.is_empty() {
        match recv(connection.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(HandoverError::Cut),
            Ok(size) => message = &mut message[size..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if deadline.wait(connection, PollFlags::POLLIN).map_err(HandoverError::Io)? => {}
            Err(Errno::EAGAIN) => return Err(HandoverError::Cut),
            Err(errno) => return Err(HandoverError::Io(errno)),
        }
    }
    Ok(())
}

impl ClientAddress {
    /// The `struct sockaddr` of the address family's size.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// IP address and port; None: AF_UNIX.
    pub fn ip(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes([self.bytes[2], self.bytes[3]]);
        match i32::from(self.family()) {
            libc::AF_INET => {
                let ip = <[u8; 4]>::try_from(&self.bytes[4..8]).ok()?;
                Some(SocketAddrV4::new(ip.into(), port).into())
            }
            libc::AF_INET6 => {
                let word = |at: usize| self.bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
                let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&self.bytes[8..24]).ok()?);
                Some(SocketAddrV6::new(ip, port, word(4)?, word(24)?).into())
            }
            _ => None,
        }
    }

    fn family(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The address at the start of `bytes`, and the bytes after it.
    fn split(bytes: &[u8]) -> Option<(ClientAddress, &[u8])> {
        let family = u16::from_ne_bytes(*bytes.first_chunk()?);
        let size = match i32::from(family) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => ADDRESS_SIZE_MAX,
            libc::AF_UNIX => size_of::<libc::sa_family_t>(),
            _ => return None,
        };
        let (own, rest) = bytes.split_at_checked(size)?;
        let mut address = ClientAddress { bytes: [0; ADDRESS_SIZE_MAX], size };
        address.bytes[..size].copy_from_slice(own);
        Some((address, rest))
    }
}

#[cfg(test)]
mod tests;
