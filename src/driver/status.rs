//! File status through statx(2), whose fields have 64 bits on all targets. On 32-bit targets fstat(2) fails for files
//! of 2 GiB and more and for inode numbers that exceed 32 bits, and its times end in 2038.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, makedev};
use nix::sys::stat::{Mode, SFlag};

use super::FolderId;

/// Requests a mount ID that is never reused (statx(2), STATX_MNT_ID_UNIQUE). Kernels before 6.8 ignore the flag.
const STATX_MNT_ID_UNIQUE: libc::c_uint = 0x4000;

/// The fields of struct statx that this crate uses.
pub(super) struct Status {
    /// The file type: `S_IFREG`, `S_IFDIR` and so on.
    pub(super) kind: SFlag,
    /// The permission bits, with the sticky bit.
    pub(super) permissions: Mode,
    /// User ID of the owner.
    pub(super) owner: u32,
    /// Size in bytes.
    pub(super) size: u64,
    /// Modification time (mtime), in whole seconds since 1970; negative before 1970.
    pub(super) modified_s: i64,
    /// Nanoseconds within that second.
    pub(super) modified_ns: u32,
    /// Change time (ctime), in whole seconds since 1970.
    pub(super) changed_s: i64,
    /// Nanoseconds within that second.
    pub(super) changed_ns: u32,
    /// Inode number.
    pub(super) inode: u64,
    /// Device number of the file system (st_dev).
    pub(super) file_system: u64,
    /// Mount ID of the path used; 0: the kernel does not report it.
    pub(super) mount: u64,
    /// Device number of a device file (st_rdev).
    pub(super) device: u64,
}

/// The status of an open file, also of one that was opened with `O_PATH`.
pub(super) fn status_of(fd: impl AsFd) -> Result<Status, Errno> {
    ask(fd.as_fd(), libc::AT_STATX_SYNC_AS_STAT)
}

/// The identity of a folder; None: the kernel does not report it. Cached attributes are sufficient
/// (AT_STATX_DONT_SYNC): a network file system may be slow or unreachable.
pub(super) fn identity_of(folder: &OwnedFd) -> Option<FolderId> {
    let Status { file_system, inode, mount, .. } = ask(folder.as_fd(), libc::AT_STATX_DONT_SYNC).ok()?;
    Some(FolderId { file_system, inode, mount })
}

fn ask(fd: BorrowedFd<'_>, sync: libc::c_int) -> Result<Status, Errno> {
    // SAFETY: all zeros is a valid struct statx.
    let mut told: libc::statx = unsafe { std::mem::zeroed() };
    let (empty, room) = (c"".as_ptr(), &raw mut told);
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
    // SAFETY: the empty path is NUL-terminated, and `told` has space for one struct statx.
    let result = unsafe { libc::statx(fd.as_raw_fd(), empty, libc::AT_EMPTY_PATH | sync, mask, room) };
    Errno::result(result)?;
    Ok(Status {
        kind: SFlag::from_bits_truncate(told.stx_mode.into()) & SFlag::S_IFMT,
        permissions: Mode::from_bits_truncate(told.stx_mode.into()),
        owner: told.stx_uid,
        size: told.stx_size,
        modified_s: told.stx_mtime.tv_sec,
        modified_ns: told.stx_mtime.tv_nsec,
        changed_s: told.stx_ctime.tv_sec,
        changed_ns: told.stx_ctime.tv_nsec,
        inode: told.stx_ino,
        file_system: makedev(told.stx_dev_major, told.stx_dev_minor),
        mount: told.stx_mnt_id,
        device: makedev(told.stx_rdev_major, told.stx_rdev_minor),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// First size in bytes, and first time in seconds, that exceeds 32 bits.
    const BEYOND: u64 = 1 << 32;

    #[test]
    fn a_file_beyond_32_bits() {
        let path = std::env::temp_dir().join(format!("uakari-status-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let modified = UNIX_EPOCH + Duration::new(BEYOND + 7, 8_000);
        file.set_len(BEYOND + 5).and_then(|()| file.set_times(FileTimes::new().set_modified(modified))).unwrap();
        let status = status_of(OwnedFd::from(file)).unwrap();
        assert!(status.kind == SFlag::S_IFREG);
        assert!(status.changed_s > 0 && status.changed_s < BEYOND as i64, "no program sets it");
        assert_eq!(status.size, BEYOND + 5);
        assert_eq!((status.modified_s as u64, status.modified_ns), (BEYOND + 7, 8_000));
    }

    #[test]
    fn a_device() {
        let null = status_of(File::open("/dev/null").unwrap()).unwrap();
        assert!(null.kind == SFlag::S_IFCHR && null.device == makedev(1, 3));
    }
}
