//! What a file is. Of statx(2), whose numbers have 64 bits everywhere: where a pointer has 32, fstat(2) fails for files
//! of 2 GiB and for inode numbers of 32 bits and more, and its times end in 2038.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, makedev};
use nix::sys::stat::SFlag;

/// The part of a file's status that somebody here asks for.
pub(super) struct Status {
    /// `S_IFREG`, `S_IFDIR` and the like.
    pub(super) kind: SFlag,
    /// Bytes.
    pub(super) size: u64,
    /// When it was changed last, in seconds since 1970 ...
    pub(super) modified_s: i64,
    /// ... and in nanoseconds of that second.
    pub(super) modified_ns: u32,
    /// Its number in its file system.
    pub(super) inode: u64,
    /// Its file system.
    pub(super) file_system: u64,
    /// The device that it stands for.
    pub(super) device: u64,
    /// Its names; a folder that was removed has none.
    pub(super) links: u32,
}

/// The status of an open file, also of one that was opened with `O_PATH`.
pub(super) fn status_of(fd: &OwnedFd) -> Result<Status, Errno> {
    // SAFETY: a struct statx may be all zeros.
    let mut told: libc::statx = unsafe { std::mem::zeroed() };
    let (empty, room) = (c"".as_ptr(), &raw mut told);
    // SAFETY: the empty name ends with a NUL, and there is room for the status.
    let result = unsafe { libc::statx(fd.as_raw_fd(), empty, libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS, room) };
    Errno::result(result)?;
    Ok(Status {
        kind: SFlag::from_bits_truncate(told.stx_mode.into()) & SFlag::S_IFMT,
        size: told.stx_size,
        modified_s: told.stx_mtime.tv_sec,
        modified_ns: told.stx_mtime.tv_nsec,
        inode: told.stx_ino,
        file_system: makedev(told.stx_dev_major, told.stx_dev_minor),
        device: makedev(told.stx_rdev_major, told.stx_rdev_minor),
        links: told.stx_nlink,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Bytes behind which, and seconds after which, 32 bits are too few.
    const BEYOND: u64 = 1 << 32;

    #[test]
    fn a_file_beyond_32_bits() {
        let path = std::env::temp_dir().join(format!("uakari-status-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let modified = UNIX_EPOCH + Duration::new(BEYOND + 7, 8_000);
        file.set_len(BEYOND + 5).and_then(|()| file.set_times(FileTimes::new().set_modified(modified))).unwrap();
        let status = status_of(&file.into()).unwrap();
        assert!(status.kind == SFlag::S_IFREG && status.links == 0);
        assert_eq!(status.size, BEYOND + 5);
        assert_eq!((status.modified_s as u64, status.modified_ns), (BEYOND + 7, 8_000));
    }

    #[test]
    fn a_device() {
        let null = status_of(&File::open("/dev/null").unwrap().into()).unwrap();
        assert!(null.kind == SFlag::S_IFCHR && null.device == makedev(1, 3) && null.links > 0);
    }
}
