//! Where log lines go: a file or standard error. A write never waits.

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
pub struct LogError {
    path: String,
    errno: Errno,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.errno {
            Errno::ENOENT => "make its folder",
            Errno::EACCES | Errno::EPERM => "let the daemon's user write to the file and its folder",
            Errno::EISDIR => "name a file in this folder",
            Errno::ENOSPC | Errno::EDQUOT => "make room for it",
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
            _ => "name a file that can be written",
        };
        write!(f, "{}: cannot be opened: {}: {remedy}", self.path, self.errno.desc())
    }
}

/// Where lines go.
pub struct Sink {
    to: To,
    is_journal: bool,
    /// The last byte that was written was no newline.
    is_line_open: bool,
}

enum To {
    /// Shared with other processes, so that its flags are left alone.
    StandardError(Stderr),
    File(OwnedFd),
}

impl Sink {
    /// Standard error.
    pub fn standard_error() -> Sink {
        let to = stderr();
        // Device and inode of the file that systemd connected to the journal (systemd.exec(5)).
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let is_journal = fstat(&to).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino));
        Sink { to: To::StandardError(to), is_journal, is_line_open: false }
    }

    /// The end of a file, which is made where it is not there.
    pub fn open(path: &str) -> Result<Sink, LogError> {
        let making = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        // Where a pointer has 32 bits, a log would end at 2 GiB without the last.
        let flags = making | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_LARGEFILE;
        // Others than owner and group have no business with clients' addresses.
        let file = open(path, flags, Mode::from_bits_truncate(0o640));
        file.map(Sink::from).map_err(|errno| LogError { path: path.to_owned(), errno })
    }

    /// Takes the place of another sink. It may be the same file once more, so that a line that was broken off is
    /// ended first; an empty line in a new file is the lesser evil.
    pub fn follow(&mut self, before: &Sink) {
        self.is_line_open = before.is_line_open;
    }

    /// Whether lines go to the journal.
    pub fn is_journal(&self) -> bool {
        self.is_journal
    }

    /// Writes lines, at most `LOG_WRITE_SIZE_MAX - 1` bytes of them, and gives the number of bytes that were taken.
    /// `is_rest`: they begin inside the line that was broken off last; otherwise that line is ended first. EAGAIN:
    /// it would have to wait.
    pub fn write(&mut self, lines: &[u8], is_rest: bool) -> Result<usize, Errno> {
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

/// Whether a write would not wait; a broken pipe does not either. A pipe that is writable takes `PIPE_BUF` bytes
/// at once (pipe(7)); only a terminal that is nearly full could hold a write back.
fn is_writable(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_broken_line_is_ended() {
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
    fn what_cannot_be_opened_is_named() {
        let folder = std::env::temp_dir();
        let folder = folder.to_str().unwrap();
        for (path, parts) in [
            (folder.to_owned(), &["Is a directory", "name a file in this folder"][..]),
            (format!("{folder}/no/such/file"), &["No such file or directory", "make its folder"]),
            ("/dev/null/log".to_owned(), &["Not a directory", "name a file that can be written"]),
        ] {
            let error = Sink::open(&path).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}: cannot be opened: ")), "{error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
