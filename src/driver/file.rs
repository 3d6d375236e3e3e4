//! What lies behind a path.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

/// What is opened beneath a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenFor {
    /// To read it.
    Reading,
    /// To know what it is, and to connect to it if it is a socket.
    Connecting,
}

/// What was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular(FileStatus),
    /// A folder.
    Folder,
    /// A UNIX socket.
    Socket,
    /// Something that is not served.
    Other,
}

/// A regular file as it was when it was opened (stat(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Its bytes.
    pub size: u64,
    /// When it was last modified, in whole seconds since 1970; negative before.
    pub modified_s: i64,
    /// The nanoseconds beyond those seconds.
    pub modified_ns: u32,
    /// Its number in its file system.
    pub inode: u64,
}

/// Looks at what was opened.
pub(super) fn kind_of(fd: &OwnedFd) -> Result<FileKind, Errno> {
    let status = fstat(fd)?;
    Ok(match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileKind::Regular(FileStatus {
            size: status.st_size as u64,
            modified_s: status.st_mtime as i64,
            modified_ns: status.st_mtime_nsec as u32,
            inode: status.st_ino as u64,
        }),
        SFlag::S_IFDIR => FileKind::Folder,
        SFlag::S_IFSOCK => FileKind::Socket,
        _ => FileKind::Other,
    })
}
