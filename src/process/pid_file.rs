//! The pid file. A lock on it (flock(2)) distinguishes a running daemon from a file that an earlier one left.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Why the pid file could not be created. Display names the file and the remedy.
#[derive(Debug)]
pub struct PidFileError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    /// Another process holds the lock. None: the file does not name it.
    Taken(Option<u32>),
    /// The path is not a regular file.
    NoFile,
    /// The file was replaced while it was opened, twice.
    Replaced,
    Failed(io::Error),
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Taken(Some(id)) => {
                write!(f, "the pid file {path} belongs to process {id}, which runs: stop it, or name another file")
            }
            Fault::Taken(None) => {
                write!(f, "the pid file {path} belongs to another process, which runs: stop it, or name another file")
            }
            Fault::NoFile => write!(f, "the pid file {path} is in the way and is not a regular file: name another one"),
            Fault::Replaced => {
                write!(f, "the pid file {path} was replaced while it was being opened: start again")
            }
            Fault::Failed(cause) => {
                write!(f, "the pid file {path} cannot be written: {cause}: create its folder, or name another file")
            }
        }
    }
}

/// The pid file of this process. Dropping it removes the file.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Writes this process's id to the file, mode 644 less the umask. An unlocked file is stale and is taken over; a
    /// locked file is not changed.
    pub fn create(path: &Path) -> Result<PidFile, PidFileError> {
        // The previous owner may remove the file between open and lock; the second try creates a new one.
        let created = match lock(path) {
            Err(Fault::Replaced) => lock(path),
            created => created,
        };
        created.map_err(|fault| PidFileError { path: path.to_owned(), fault })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Truncated first: in a folder of root's the file stays, and its id may soon be another process's.
        let _ = self.file.set_len(0);
        if is_in_place(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> Result<PidFile, Fault> {
    // Without O_TRUNC: the file may belong to another daemon.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(OFlag::O_NOFOLLOW.bits());
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => return Err(Fault::NoFile),
            _ => return Err(Fault::Failed(error)),
        },
    };
    // A file with a second name may belong to another program.
    let metadata = file.metadata().map_err(Fault::Failed)?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(Fault::NoFile);
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Fault::Taken(number_in(&mut file))),
        Err(TryLockError::Error(error)) => return Err(Fault::Failed(error)),
    }
    if !is_in_place(&file, path) {
        return Err(Fault::Replaced);
    }
    let line = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_all(line.as_bytes())).map_err(Fault::Failed)?;
    Ok(PidFile { file, path: path.to_owned() })
}

/// Whether the path still names this file.
fn is_in_place(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

fn number_in(file: &mut File) -> Option<u32> {
    // A number of 32 bits and its line's end have 11 bytes at most.
    let mut text = String::new();
    file.take(11).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A folder of the test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("uakari-pid-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("uakari.pid")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn own_line() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn it_names_the_process_and_goes_with_it() {
        let folder = Folder::new();
        let held = PidFile::create(&folder.file()).unwrap();
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), own_line());
        let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
        assert!(mode & 0o600 == 0o600 && mode & 0o133 == 0, "{mode:o}");
        drop(held);
        assert!(!folder.file().exists());
    }

    #[test]
    fn a_second_daemon_is_told_of_the_first() {
        let folder = Folder::new();
        let held = PidFile::create(&folder.file()).unwrap();
        let sentence = PidFile::create(&folder.file()).unwrap_err().to_string();
        assert!(sentence.contains(&format!("process {},", std::process::id())), "{sentence}");
        assert!(sentence.contains(folder.file().to_str().unwrap()), "{sentence}");
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), own_line(), "it stays as it is");
        drop(held);
        PidFile::create(&folder.file()).unwrap();
    }

    #[test]
    fn an_old_one_is_taken_over() {
        let folder = Folder::new();
        fs::write(folder.file(), "4194304\nand more than fits into the new line\n").unwrap();
        let _held = PidFile::create(&folder.file()).unwrap();
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), own_line());
    }

    #[test]
    fn one_that_was_replaced_stays() {
        let folder = Folder::new();
        let held = PidFile::create(&folder.file()).unwrap();
        fs::remove_file(folder.file()).unwrap();
        fs::write(folder.file(), "1\n").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(folder.file()).unwrap(), "1\n");
    }

    #[test]
    fn a_file_that_loses_its_place_is_noticed() {
        let folder = Folder::new();
        let file = File::create(folder.file()).unwrap();
        assert!(is_in_place(&file, &folder.file()));
        fs::remove_file(folder.file()).unwrap();
        assert!(!is_in_place(&file, &folder.file()));
        let _other = File::create(folder.file()).unwrap();
        assert!(!is_in_place(&file, &folder.file()));
    }

    #[test]
    fn what_is_in_the_way_is_left_alone() {
        let folder = Folder::new();
        let target = folder.0.join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, folder.file()).unwrap();
        for (path, part) in [
            (folder.file(), "not a regular file"),
            (folder.0.clone(), "not a regular file"),
            (PathBuf::from("/dev/null"), "not a regular file"),
            (folder.0.join("missing/uakari.pid"), "create its folder"),
        ] {
            let sentence = PidFile::create(&path).unwrap_err().to_string();
            assert!(sentence.contains(part) && sentence.contains(path.to_str().unwrap()), "{path:?}: {sentence}");
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
