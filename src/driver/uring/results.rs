//! Decodes the ring's completions.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::cqueue;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{self, SockaddrStorage};
use nix::sys::stat::SFlag;

use crate::driver::status::status_of;
use crate::driver::{Event, FileId, FileKind, FileStatus, OpenFor, device};
use crate::types::Address;

/// The result of an operation.
pub(super) fn result_of(entry: &cqueue::Entry) -> Result<usize, Errno> {
    match entry.result() {
        result if result < 0 => Err(Errno::from_raw(-result)),
        result => Ok(result as usize),
    }
}

/// Takes ownership of a descriptor that the kernel has just created.
pub(super) fn own(fd: usize) -> OwnedFd {
    // SAFETY: the number is the result of an accept or an open, so it is a new descriptor without another owner.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// A new connection and its peer address.
pub(super) fn accepted(entry: &cqueue::Entry) -> Event<OwnedFd> {
    let result = result_of(entry).map(|fd| {
        let fd = own(fd);
        let address = address_of(socket::getpeername(fd.as_raw_fd()));
        (fd, address)
    });
    Event::Accepted { result, more: cqueue::more(entry.flags()) }
}

/// Converts the result of getpeername(2) or getsockname(2).
pub(super) fn address_of(told: Result<SockaddrStorage, Errno>) -> Address {
    let Ok(address) = told else { return Address::Unknown };
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Address::Tcp(std::net::SocketAddrV4::from(*v4).into()),
        (_, Some(v6)) => Address::Tcp(std::net::SocketAddrV6::from(*v6).into()),
        _ => Address::Unix,
    }
}

/// The type of an opened file, prepared for its purpose.
pub(super) fn kind_of(fd: &OwnedFd, purpose: OpenFor) -> Result<FileKind, Errno> {
    if let OpenFor::Speaking(device) = purpose {
        return device::identify(fd, device).map(|id| FileKind::Device(id, device));
    }
    let status = status_of(fd)?;
    Ok(match status.kind {
        SFlag::S_IFREG => FileKind::Regular(FileStatus {
            size: status.size,
            modified_s: status.modified_s,
            modified_ns: status.modified_ns,
            changed_s: status.changed_s,
            changed_ns: status.changed_ns,
            inode: status.inode,
            file_system: status.file_system,
            mount: status.mount,
        }),
        SFlag::S_IFDIR => FileKind::Folder,
        SFlag::S_IFSOCK => FileKind::Socket(FileId {
            file_system: status.file_system,
            inode: status.inode,
            changed_s: status.changed_s,
            changed_ns: status.changed_ns,
        }),
        _ => FileKind::Other,
    })
}

/// Clears O_NONBLOCK: the ring waits on a blocking socket; on a non-blocking one its operations fail at once.
pub(super) fn set_blocking(socket: &OwnedFd) -> Result<(), Errno> {
    fcntl(socket, FcntlArg::F_SETFL(OFlag::empty())).map(drop)
}
