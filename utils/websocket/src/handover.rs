//! The hand-over: what the gateway sends on an accepted connection before it leaves.
//!
//! One message (sendmsg(2)) whose bytes are the client's `struct sockaddr`, and behind it the hello record where the
//! gateway has `hello` switched on; beside the bytes one file descriptor (SCM_RIGHTS, unix(7)): the client's
//! connection. Any other program that may write to the socket file can connect too: such a plain client passes no
//! descriptor.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, recvmsg, sockopt};

use crate::deadline::Deadline;
use crate::limits::{ANCILLARY_SIZE, HELLO_SIZE_MAX};

/// The hello record begins with these bytes (proxy-protocol.txt section 2.2).
const HELLO_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// So many bytes of it tell how many follow.
const HELLO_HEAD_SIZE: usize = 16;
const ADDRESS_SIZE_MAX: usize = size_of::<libc::sockaddr_in6>();
/// The number and the kind in front of ancillary data (cmsg(3)): a `size_t` and two ints.
const CMSG_HEAD_SIZE: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();

/// What came on an accepted connection.
#[derive(Debug)]
pub enum Received {
    /// A client was handed over. The connection it came by is of no further use.
    Client(HandedOver),
    /// A plain local client: what it sent, or its end, is still to be read from the connection.
    Plain,
    /// Nothing has come in time. The gateway sends at once, so that this is most likely a plain local client.
    Nothing,
}

/// A client that the gateway has handed over.
#[derive(Debug)]
pub struct HandedOver {
    /// Its connection: from now on RFC 6455 frames go over it, the client's with masks. Closed on exec.
    pub socket: OwnedFd,
    /// Where it comes from.
    pub address: ClientAddress,
    /// The hello record, for `parse_hello` of `utils/hello`; empty where the gateway sends none.
    pub hello: Box<[u8]>,
}

/// A client's address as accept(2) would give it: the bytes of a `struct sockaddr`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    bytes: [u8; ADDRESS_SIZE_MAX],
    size: usize,
}

/// Why there is no client. The connection is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverError {
    /// A system call failed. EMFILE: this process has no room for the client's descriptor.
    Io(Errno),
    /// The descriptor is a file's, or a socket's that is no stream. A gateway passes none.
    NoStream,
    /// The bytes beside the descriptor are no address.
    Address,
    /// Behind the address comes something that is no hello record.
    Hello,
    /// The hello record was not whole in time, or the connection ended within it.
    Cut,
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandoverError::Io(errno) => write!(f, "the hand-over cannot be received: {}", errno.desc()),
            HandoverError::NoStream => f.write_str("what was handed over is no connection"),
            HandoverError::Address => f.write_str("a descriptor was handed over without its client's address"),
            HandoverError::Hello => f.write_str("behind the client's address comes what is no hello record"),
            HandoverError::Cut => f.write_str("the hello record is cut off"),
        }
    }
}

impl std::error::Error for HandoverError {}

/// Receives what the gateway sends on `connection`, which was just accepted, and waits for it `wait_ms` at most. It
/// does not matter whether the connection blocks. Bytes of a plain client are not taken from it.
pub fn receive(connection: BorrowedFd<'_>, wait_ms: u32) -> Result<Received, HandoverError> {
    let deadline = Deadline::after_ms(wait_ms.into());
    // As much as tells how long the whole is.
    let mut start = [0; ADDRESS_SIZE_MAX + HELLO_HEAD_SIZE];
    let mut was_told = false;
    let (socket, start_size) = loop {
        match peek(connection, &mut start) {
            Ok((Some(socket), size)) => break (socket, size),
            Ok((None, _)) => return Ok(Received::Plain),
            // Of an out-of-band byte (unix(7), MSG_OOB) poll tells for ever, and no look finds it. No gateway sends one.
            Err(Errno::EAGAIN) if was_told => return Ok(Received::Plain),
            Err(Errno::EAGAIN) if deadline.wait(connection, PollFlags::POLLIN).map_err(HandoverError::Io)? => {
                was_told = true;
            }
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(HandoverError::Io(errno)),
        }
    };
    // Servers may not be ready for what else can be passed: epoll(7) refuses files.
    if getsockopt(&socket, sockopt::SockType) != Ok(SockType::Stream) {
        return Err(HandoverError::NoStream);
    }
    let (address, rest) = ClientAddress::split(&start[..start_size]).ok_or(HandoverError::Address)?;
    let mut message = vec![0; address.size + hello_size(rest)?];
    take(connection, &mut message, deadline)?;
    let hello = message.split_off(address.size).into();
    Ok(Received::Client(HandedOver { socket, address, hello }))
}

/// The first bytes and the descriptor beside them, both left where they are: the descriptor is a copy. Looking with
/// room for it, since without room a message that has credentials beside it looks the same.
fn peek(connection: BorrowedFd<'_>, start: &mut [u8]) -> Result<(Option<OwnedFd>, usize), Errno> {
    let mut ancillary = [0; ANCILLARY_SIZE];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [std::io::IoSliceMut::new(start)];
    let (size, was_cut) = {
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut ancillary), flags)?;
        (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC))
    };
    // Read from the bytes, since a library that reports a cut alone would leave open what was installed before it.
    let mut sockets = descriptors(&ancillary).into_iter();
    match sockets.next() {
        // Where no descriptor is free, the kernel tells it by the cut alone.
        None if was_cut => Err(Errno::EMFILE),
        first => Ok((first, size)),
    }
}

/// All descriptors in ancillary data that was zero where the kernel wrote nothing.
fn descriptors(ancillary: &[u8]) -> Vec<OwnedFd> {
    passed_numbers(ancillary).map(own).collect()
}

/// The numbers of the descriptors that were passed in ancillary data as the kernel has written it (SCM_RIGHTS, unix(7)).
pub fn passed_numbers(mut ancillary: &[u8]) -> impl Iterator<Item = RawFd> {
    let parts = std::iter::from_fn(move || {
        let (size, level, kind) = cmsg_head(ancillary)?;
        // The kernel's sizes are right; a zero ends what it wrote.
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

/// How long the record is whose first bytes these are; 0 where there are none.
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

/// Takes the bytes for real. The kernel may have cut a long record into pieces.
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
    /// The `struct sockaddr`, as long as its family is.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// The IP address and port; None of a client that came to a UNIX socket.
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

    /// The address at the start of `bytes`, and what is behind it.
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
