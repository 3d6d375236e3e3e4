//! The destination of log lines: a file or standard error. Writes do not block.

use std::fmt;
use std::io::{IoSlice, Stderr, stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat};
use nix::sys::uio::writev;

/// A log file that cannot be opened. Display names the path and the remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogError {
    path: String,
    errno: Errno,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.errno {
            Errno::ENOENT => "create its folder",
            Errno::EACCES | Errno::EPERM => "let the daemon's user write to the file and its folder",
            Errno::EISDIR => "name a file in this folder",
            Errno::ENOSPC | Errno::EDQUOT => "free space for it",
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
            _ => "name a file that can be written",
        };
        write!(f, "{}: cannot be opened: {}: {remedy}", self.path, self.errno.desc())
    }
}

/// An open destination.
pub(crate) struct Sink {
    to: To,
    is_journal: bool,
    /// The last byte written was not a newline.
    is_line_open: bool,
}

enum To {
    /// O_NONBLOCK is not set, since other processes share the file description.
    StandardError(Stderr),
    File(OwnedFd),
}

impl Sink {
    /// Standard error.
    pub(crate) fn standard_error() -> Sink {
        let to = stderr();
        // Device and inode of the file that systemd connected to the journal (systemd.exec(5)).
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let is_journal = fstat(&to).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino));
        Sink { to: To::StandardError(to), is_journal, is_line_open: false }
    }

    /// Opens a file for appending, and creates it if necessary.
    pub(crate) fn open(path: &str) -> Result<Sink, LogError> {
        let making = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        // Without O_LARGEFILE, a log on 32-bit systems is limited to 2 GiB.
        let flags = making | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_LARGEFILE;
        // Clients' addresses are not world-readable.
        let file = open(path, flags, Mode::from_bits_truncate(0o640));
        file.map(Sink::from).map_err(|errno| LogError { path: path.to_owned(), errno })
    }

    /// Takes over the state of the sink that this one replaces, which may be the same file: an incomplete last line is ended
    /// first. In a new file that leaves an empty line.
    pub(crate) fn follow(&mut self, before: &Sink) {
        self.is_line_open = before.is_line_open;
    }

    /// Whether lines go to the journal.
    pub(crate) fn is_journal(&self) -> bool {
        self.is_journal
    }

    /// Writes lines, at most `LOG_WRITE_SIZE_MAX - 1` bytes; returns the number of bytes written. `is_rest`: the bytes
    /// continue the line written incompletely last; otherwise that line is ended first. EAGAIN: the write would block.
    pub(crate) fn write(&mut self, lines: &[u8], is_rest: bool) -> Result<usize, Errno> {
        let fd = match &self.to {
            To::StandardError(to) => to.as_fd(),
            To::File(fd) => fd.as_fd(),
        };
        if !is_writable(fd)? {
            return Err(Errno::EAGAIN);
        }
        let newline: &[u8] = if self.is_line_open && !is_rest { b"\n" } else { b"" };
        let written = writev(fd, &[IoSlice::new(newline), IoSlice::new(lines)])?;
        let taken = written.saturating_sub(newline.len());
        if written > 0 {
            self.is_line_open = lines[..taken.min(lines.len())].last().is_some_and(|last| *last != b'\n');
        }
        Ok(taken)
    }
}

impl From<OwnedFd> for Sink {
    fn from(fd: OwnedFd) -> Sink {
        Sink { to: To::File(fd), is_journal: false, is_line_open: false }
    }
}

/// Whether a write would not block. True of a broken pipe, whose write fails. A writable pipe accepts `PIPE_BUF` bytes
/// (pipe(7)); only a nearly full terminal could block.
fn is_writable(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_incomplete_line_is_ended() {
        for (writes, expected) in [
            (&[("one\n", false), ("two\n", false)][..], "one\ntwo\n"),
            (&[("one\ntw", false), ("three\n", false)], "one\ntw\nthree\n"),
            (&[("one\ntw", false), ("o\nthree\n", true), ("four\n", false)], "one\ntwo\nthree\nfour\n"),
            (&[("o", false), ("n", true), ("e", true), ("two\n", false)], "one\ntwo\n"),
            (&[("one", false), ("two", false), ("three", false)], "one\ntwo\nthree"),
        ] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut sink = Sink::from(OwnedFd::from(writer));
            for (bytes, is_rest) in writes {
                assert_eq!(sink.write(bytes.as_bytes(), *is_rest), Ok(bytes.len()));
            }
            drop(sink);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn errors_name_path_and_remedy() {
        let folder = std::env::temp_dir();
        let folder = folder.to_str().unwrap();
        for (path, parts) in [
            (folder.to_owned(), &["Is a directory", "name a file in this folder"][..]),
            (format!("{folder}/no/such/file"), &["No such file or directory", "create its folder"]),
            ("/dev/null/log".to_owned(), &["Not a directory", "name a file that can be written"]),
        ] {
            let error = Sink::open(&path).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}: cannot be opened: ")), "{error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
