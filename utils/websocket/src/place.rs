//! The socket file of a server. A stale one is replaced; one with a listening server is not.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, SFlag, fstat};

/// Why the socket file could not be created. Display is the message for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlaceError {
    /// A system call failed for this path.
    Io(PathBuf, Errno),
    /// The path exists and is not a socket.
    NoSocket(PathBuf),
    /// A server is listening on it.
    Taken(PathBuf),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::Io(path, errno) => write!(f, "{}: {}", path.display(), errno.desc()),
            PlaceError::NoSocket(path) => {
                write!(f, "{}: a file that is not a socket is in the way: choose another name", path.display())
            }
            PlaceError::Taken(path) => {
                write!(f, "{}: another server listens there: choose another name", path.display())
            }
        }
    }
}

impl std::error::Error for PlaceError {}

/// Creates the socket file with exactly `mode`, whatever the umask is, and listens. The socket is close-on-exec and
/// non-blocking. The directory must exist.
pub fn listen_at(path: &Path, socket_type: SockType, mode: u32, backlog: i32) -> Result<OwnedFd, PlaceError> {
    let failed = |errno: Errno| PlaceError::Io(path.to_owned(), errno);
    let file_failed = |error: std::io::Error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let new_socket = || socket(AddressFamily::Unix, socket_type, flags, None).map_err(failed);
    let backlog = Backlog::new(backlog).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(failed)?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(PlaceError::NoSocket(path.to_owned())),
        Ok(_) => match connect(new_socket()?.as_raw_fd(), &address) {
            Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(file_failed)?,
            _ => return Err(PlaceError::Taken(path.to_owned())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(file_failed(error)),
    }
    let listener = new_socket()?;
    bind(listener.as_raw_fd(), &address).map_err(failed)?;
    // No connect(2) succeeds before listen(2), so the mode is in force from the first one.
    set_mode(path, mode)?;
    listen(&listener, backlog).map_err(failed)?;
    Ok(listener)
}

/// Does not follow links: another user with write access to the directory may have replaced the socket by a link, and
/// chmod(2) would change the mode of its target.
fn set_mode(path: &Path, mode: u32) -> Result<(), PlaceError> {
    let failed = |errno: Errno| PlaceError::Io(path.to_owned(), errno);
    let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    let status = fstat(&file).map_err(failed)?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Err(PlaceError::NoSocket(path.to_owned()));
    }
    // A new socket has one link.
    if status.st_nlink > 1 {
        return Err(PlaceError::Taken(path.to_owned()));
    }
    // fchmod(2) fails on O_PATH descriptors.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let result = fs::set_permissions(own, fs::Permissions::from_mode(mode));
    result.map_err(|error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Root may start a server in a directory that other users may write to.
    #[test]
    fn what_took_the_sockets_place_keeps_its_rights() {
        let folder = std::env::temp_dir().join(format!("websocket-place-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (file, socket, path) = (folder.join("file"), folder.join("socket"), folder.join("echo"));
        fs::write(&file, "precious").unwrap();
        let _another = UnixListener::bind(&socket).unwrap();
        let link: fn(&Path, &Path) -> std::io::Result<()> = |from, to| symlink(from, to);
        let second_name: fn(&Path, &Path) -> std::io::Result<()> = |from, to| fs::hard_link(from, to);
        let mut results = Vec::new();
        for (put, target) in [(link, &file), (link, &socket), (second_name, &file), (second_name, &socket)] {
            fs::set_permissions(target, fs::Permissions::from_mode(0o600)).unwrap();
            put(target, &path).unwrap();
            results.push((set_mode(&path, 0o777), fs::metadata(target).unwrap().permissions().mode() & 0o777));
            fs::remove_file(&path).unwrap();
        }
        fs::remove_dir_all(&folder).unwrap();
        let no_socket = (Err(PlaceError::NoSocket(path.clone())), 0o600);
        assert_eq!(results, [no_socket.clone(), no_socket.clone(), no_socket, (Err(PlaceError::Taken(path)), 0o600)]);
    }
}
