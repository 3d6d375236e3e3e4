//! How a path is opened, and the type of what was opened.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::sys::stat::{Mode, SFlag};

use super::status::status_of;
use super::walk::walk;
use super::{FileId, FileKind, FileStatus, OpenFor, Reach, descriptors, device};
use crate::limits::OPEN_TRIES_MAX;

/// The arguments of an openat2(2) beside its path.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenRequest {
    /// The base folder. The caller keeps it open until the completion.
    pub(super) folder: RawFd,
    pub(super) flags: OFlag,
    /// RESOLVE_BENEATH and the like; 0: the path is absolute, and may lead anywhere.
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

/// What the kernel offers to resolve paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LookupSupport {
    /// openat2(2) with RESOLVE_CACHED (Linux 5.12).
    Cached,
    /// openat2(2) (Linux 5.6).
    Plain,
    /// Neither, or a seccomp profile forbids it.
    None,
}

impl LookupSupport {
    /// Finds out by trying.
    pub(super) fn find() -> LookupSupport {
        match openat2(libc::AT_FDCWD, c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, libc::RESOLVE_CACHED) {
            Ok(_) | Err(Errno::EAGAIN) => LookupSupport::Cached,
            Err(Errno::EINVAL) => LookupSupport::Plain,
            Err(_) => LookupSupport::None,
        }
    }
}

/// Opens a path and waits as long as it takes.
pub(super) fn open(
    lookup: &OpenRequest,
    support: LookupSupport,
    path: &CStr,
    purpose: OpenFor,
) -> Result<(OwnedFd, FileKind), Errno> {
    let OpenRequest { folder, flags, resolve } = *lookup;
    let attempt = || match support {
        LookupSupport::None if resolve == 0 => fcntl::open(path, flags, Mode::empty()),
        LookupSupport::None => {
            // SAFETY: the caller of `Driver::open` keeps the folder open until the completion.
            let folder = unsafe { BorrowedFd::borrow_raw(folder) };
            walk(folder, path, flags, resolve & libc::RESOLVE_BENEATH != 0)
        }
        _ => openat2(folder, path, flags, resolve),
    };
    let is_transient = |result: &Result<OwnedFd, Errno>| matches!(result, Err(Errno::EAGAIN | Errno::EINTR));
    let mut result = attempt();
    // With `RESOLVE_BENEATH`, a ".." component fails with EAGAIN while any rename or mount is in progress (openat2(2)).
    for _ in 1..OPEN_TRIES_MAX {
        if !is_transient(&result) {
            break;
        }
        result = attempt();
    }
    with_kind(result?, purpose)
}

/// openat2(2), relative to a folder that the caller keeps open, or to AT_FDCWD.
pub(super) fn openat2(folder: RawFd, path: &CStr, flags: OFlag, resolve: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: an open_how of zeros asks for nothing.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    (how.flags, how.resolve) = (flags.bits() as u64, resolve);
    let (name, size) = (path.as_ptr(), size_of::<libc::open_how>());
    // SAFETY: the path is NUL-terminated, and the kernel reads one open_how of that size.
    let result = unsafe { libc::syscall(libc::SYS_openat2, folder, name, &raw const how, size) };
    Errno::result(result).map(|number| descriptors::own(number as RawFd))
}

/// An opened file with its type.
pub(super) fn with_kind(fd: OwnedFd, purpose: OpenFor) -> Result<(OwnedFd, FileKind), Errno> {
    kind_of(&fd, purpose).map(|kind| (fd, kind))
}

/// The type of an opened file. Fails if it does not fit its purpose.
fn kind_of(fd: &OwnedFd, purpose: OpenFor) -> Result<FileKind, Errno> {
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
