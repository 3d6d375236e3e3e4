//! How a path is opened, and the type of what was opened.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::SFlag;

use super::status::status_of;
use super::{FileId, FileKind, FileStatus, OpenFor, Reach, device};

/// The arguments of an openat2(2) beside its path.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenRequest {
    /// The base folder. The caller keeps it open until the completion.
    pub(super) folder: RawFd,
    pub(super) flags: OFlag,
    pub(super) resolve: u64,
}

impl OpenRequest {
    pub(super) fn new(reach: &Reach<'_, OwnedFd>, purpose: OpenFor) -> OpenRequest {
        // O_LARGEFILE permits files of 2 GiB and more on 32-bit targets.
        let flags = match purpose {
            OpenFor::Reading => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_LARGEFILE,
            OpenFor::Connecting => OFlag::O_PATH,
            OpenFor::Speaking(device) => device::open_flags(device),
        };
        let (folder, resolve) = match reach {
            Reach::Beneath(folder) => (folder.as_raw_fd(), libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS),
            Reach::From(folder) => (folder.as_raw_fd(), libc::RESOLVE_NO_MAGICLINKS),
            Reach::Anywhere => (libc::AT_FDCWD, 0),
        };
        OpenRequest { folder, flags: flags | OFlag::O_CLOEXEC, resolve }
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
