//! Files that are read again when they change.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use auth_wire::{Secret, Zeroizing};
use nix::libc::O_NONBLOCK;

use crate::limits::FILE_SIZE_MAX;

/// What tells two versions of a file apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Of the inode, which tools cannot set back.
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file at this path now; None: it cannot be examined.
    pub fn of(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().map(|metadata| Stamp::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file's contents.
#[derive(Debug)]
pub struct Contents {
    /// The text.
    pub text: Secret,
    /// What users other than the owner and the group may do with it.
    pub others: Others,
}

/// What users other than a file's owner and its group may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Others {
    /// They may read it.
    pub may_read: bool,
    /// They may write it.
    pub may_write: bool,
}

/// Reads a regular file of at most `FILE_SIZE_MAX` bytes of UTF-8. The error is the operator's sentence, without the
/// file's name.
pub fn read(path: &Path) -> Result<Contents, String> {
    let (mut bytes, others) = read_bytes(path)?;
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        let valid_size = error.utf8_error().valid_up_to();
        let bytes = Zeroizing::new(error.into_bytes());
        let line = bytes[..valid_size].iter().filter(|byte| **byte == b'\n').count();
        format!("line {} is no UTF-8", line + 1)
    })?;
    Ok(Contents { text: text.into(), others })
}

/// As `read`, for any bytes.
pub fn read_bytes(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Others), String> {
    let failed = |error: io::Error| error.to_string();
    // A FIFO without a writer does not delay the open.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    let bytes = read_bounded(&file, metadata.len()).map_err(failed)?;
    if bytes.len() > FILE_SIZE_MAX {
        return Err(format!("exceeds {FILE_SIZE_MAX} bytes"));
    }
    let mode = metadata.permissions().mode();
    Ok((bytes, Others { may_read: mode & 0o004 != 0, may_write: mode & 0o002 != 0 }))
}

/// One byte more than the limit shows that the file exceeds it. The memory does not move, which would leave copies, unless
/// the file grows meanwhile.
fn read_bounded(file: &File, size: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let size_max = FILE_SIZE_MAX as u64;
    // With a byte left the end is found without more memory.
    let capacity = usize::try_from(size.min(size_max)).unwrap_or(FILE_SIZE_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(size_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_small_regular_files_of_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (bytes, expected) in [
            (b"a:b\n".to_vec(), Ok("a:b\n")),
            (Vec::new(), Ok("")),
            (b"a\nb\n\xff\n".to_vec(), Err("line 3 is no UTF-8")),
            (vec![b'a'; FILE_SIZE_MAX + 1], Err("exceeds 1048576 bytes")),
        ] {
            fs::write(&path, &bytes).unwrap();
            let read = read(&path);
            assert_eq!(read.as_ref().map(|contents| contents.text.reveal()).map_err(String::as_str), expected);
        }
        fs::write(&path, vec![b'a'; FILE_SIZE_MAX]).unwrap();
        assert_eq!(read(&path).unwrap().text.reveal().len(), FILE_SIZE_MAX);
        assert_eq!(read(folder.path()).unwrap_err(), "is no regular file");
        assert!(read(&folder.path().join("none")).unwrap_err().contains("No such file"));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read(&fifo).unwrap_err(), "is no regular file");
    }

    #[test]
    fn public_files_and_versions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "a").unwrap();
        for (mode, may_read, may_write) in [
            (0o600, false, false),
            (0o660, false, false),
            (0o644, true, false),
            (0o602, false, true),
            (0o666, true, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).unwrap().others, Others { may_read, may_write }, "{mode:o}");
        }
        let one = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path), Some(one));
        fs::write(folder.path().join("new"), "a").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(Stamp::of(&path), Some(one), "a file that takes its place");
        let two = Stamp::of(&path).unwrap();
        fs::write(&path, "ab").unwrap();
        assert_ne!(Stamp::of(&path), Some(two), "another size");
    }
}
