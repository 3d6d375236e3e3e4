//! Opening the folders of docroot and www.

use std::fmt::{self, Write as _};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// A folder that cannot be opened. Display names the path and the remedy.
#[derive(Debug)]
pub(crate) struct FolderError {
    path: String,
    errno: Errno,
}

impl FolderError {
    /// Whether the path does not exist, so that it is worth waiting for.
    pub(crate) fn is_missing(&self) -> bool {
        self.errno == Errno::ENOENT
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.errno {
            Errno::ENOENT => "make it, or name another one",
            Errno::EACCES => "let the daemon's user into it and into the folders above it",
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
            _ => "name another one",
        };
        f.write_str("the folder ")?;
        for character in self.path.chars() {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => f.write_char(character)?,
            }
        }
        write!(f, " cannot be opened: {}: {remedy}", self.errno.desc())
    }
}

/// Opens a folder as the root of path lookups (openat2(2), RESOLVE_BENEATH).
pub(crate) fn open_folder(path: &str) -> Result<OwnedFd, FolderError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| FolderError { path: path.to_owned(), errno })
}
