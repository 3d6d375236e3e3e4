//! The driver of a running daemon: io_uring or epoll.

use std::ffi::CString;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::device::Device;
use super::epoll::Epoll;
use super::uring::{StartError, Uring};
use super::{
    Batch, Choice, Completion, Driver, FolderId, Handover, Lease, OpenFor, Reach, Receive, RecordKey, RecordSuite,
    RecordSuites, Rest, Sending, Share, SocketType, TlsRecord, Token,
};
use crate::limits::Http;
use crate::types::Address;

/// The same call on either driver.
macro_rules! either {
    ($native:expr, $driver:ident => $call:expr) => {
        match $native {
            Native::Uring($driver) => $call,
            Native::Epoll($driver) => $call,
        }
    };
}

/// Either driver.
pub enum Native {
    /// io_uring.
    Uring(Uring),
    /// epoll.
    Epoll(Epoll),
}

/// Why no driver can be set up. Display names the cause and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub enum NativeError {
    /// io_uring was chosen and cannot be used.
    Uring(StartError),
    /// epoll cannot be used.
    Epoll(Errno),
}

impl fmt::Display for NativeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NativeError::Uring(error) => error.fmt(f),
            NativeError::Epoll(errno) => {
                let remedy = match errno {
                    Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
                    Errno::ENOMEM => "lower limits.pool-buffers, or give the daemon more memory",
                    _ => "run a kernel with epoll(7) and eventfd(2), and allow both",
                };
                write!(f, "epoll cannot be set up: {}: {remedy}", errno.desc())
            }
        }
    }
}

impl Native {
    /// Sets a driver up with a pool of `buffers` buffers. The error beside it tells why it is not io_uring although
    /// that was to be tried.
    pub fn new(choice: Choice, buffers: u16) -> Result<(Native, Option<StartError>), NativeError> {
        let refusal = match choice {
            Choice::Epoll => None,
            Choice::Auto | Choice::Uring => match Uring::new(buffers) {
                Ok(uring) => return Ok((Native::Uring(uring), None)),
                Err(error) if choice == Choice::Uring => return Err(NativeError::Uring(error)),
                Err(error) => Some(error),
            },
        };
        Epoll::new(buffers).map(|epoll| (Native::Epoll(epoll), refusal)).map_err(NativeError::Epoll)
    }

    /// The name of the kernel interface.
    pub fn name(&self) -> &'static str {
        match self {
            Native::Uring(_) => "io_uring",
            Native::Epoll(_) => "epoll",
        }
    }

    /// Reports these signals, which must be blocked, as events with `token`.
    pub fn watch_signals(&mut self, token: Token, signals: &[Signal]) -> Result<(), Errno> {
        either!(self, driver => driver.watch_signals(token, signals))
    }

    /// Reports as events with `token` that an inotify instance is readable; each token is used once. The caller reads it
    /// before the next `wait`. None: none is watched any more.
    pub(crate) fn watch_files(&mut self, token: Token, inotify: Option<OwnedFd>) -> Result<(), Errno> {
        either!(self, driver => driver.watch_files(token, inotify))
    }

    /// Sets the suites of which the kernel is to make records.
    pub(crate) fn set_record_suites(&mut self, suites: RecordSuites) {
        either!(self, driver => driver.record_suites = suites);
    }
}

impl Driver for Native {
    type Handle = OwnedFd;

    fn now_ms(&self) -> u64 {
        either!(self, driver => driver.now_ms())
    }

    fn unix_s(&self) -> u64 {
        either!(self, driver => driver.unix_s())
    }

    fn accept(&mut self, token: Token, listener: &OwnedFd) {
        either!(self, driver => driver.accept(token, listener));
    }

    fn receive(&mut self, token: Token, socket: &OwnedFd, how: Receive) {
        either!(self, driver => driver.receive(token, socket, how));
    }

    fn send(&mut self, token: Token, socket: &OwnedFd, batch: Batch, how: Sending) {
        either!(self, driver => driver.send(token, socket, batch, how));
    }

    fn open(&mut self, token: Token, reach: Reach<'_, OwnedFd>, path: CString, purpose: OpenFor) {
        either!(self, driver => driver.open(token, reach, path, purpose));
    }

    fn prepare(&mut self, file: &OwnedFd, device: Device) -> Result<(), Errno> {
        either!(self, driver => driver.prepare(file, device))
    }

    fn connect(&mut self, token: Token, file: &OwnedFd, socket_type: SocketType) {
        either!(self, driver => driver.connect(token, file, socket_type));
    }

    fn connect_tcp(&mut self, token: Token, address: SocketAddr, limits: &Http) {
        either!(self, driver => driver.connect_tcp(token, address, limits));
    }

    fn hand_over(&mut self, token: Token, file: &OwnedFd, client: &OwnedFd, handover: Handover) {
        either!(self, driver => driver.hand_over(token, file, client, handover));
    }

    fn begin_records(&mut self, client: &OwnedFd, suite: RecordSuite) -> Result<(), Errno> {
        either!(self, driver => driver.begin_records(client, suite))
    }

    fn set_record_keys(&mut self, client: &OwnedFd, sending: &RecordKey, receiving: &RecordKey) -> Result<(), Errno> {
        either!(self, driver => driver.set_record_keys(client, sending, receiving))
    }

    fn receive_record(&mut self, client: &OwnedFd) -> Result<TlsRecord, Errno> {
        either!(self, driver => driver.receive_record(client))
    }

    fn send_record(&mut self, client: &OwnedFd, kind: u8, bytes: &[u8]) -> Result<(), Errno> {
        either!(self, driver => driver.send_record(client, kind, bytes))
    }

    fn read(&mut self, token: Token, file: &OwnedFd, offset: u64) {
        either!(self, driver => driver.read(token, file, offset));
    }

    fn cancel(&mut self, token: Token) {
        either!(self, driver => driver.cancel(token));
    }

    fn shutdown(&mut self, socket: &OwnedFd, both: bool) {
        either!(self, driver => driver.shutdown(socket, both));
    }

    fn close(&mut self, handle: OwnedFd) {
        either!(self, driver => driver.close(handle));
    }

    fn wait(&mut self, timeout_ms: Option<u64>, completions: &mut Vec<Completion<OwnedFd>>) -> Result<Rest, Errno> {
        either!(self, driver => driver.wait(timeout_ms, completions))
    }

    fn local_address(&self, client: &OwnedFd) -> Address {
        either!(self, driver => driver.local_address(client))
    }

    fn identity(&self, folder: &OwnedFd) -> Option<FolderId> {
        either!(self, driver => driver.identity(folder))
    }

    fn replace(&mut self, old: &OwnedFd, new: OwnedFd) -> Result<(), Errno> {
        either!(self, driver => driver.replace(old, new))
    }

    fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        either!(self, driver => driver.buffer(lease))
    }

    fn release(&mut self, lease: Lease) {
        either!(self, driver => driver.release(lease));
    }

    fn may_receive(&self, share: Share) -> bool {
        either!(self, driver => driver.may_receive(share))
    }

    fn buffers(&self, share: Share) -> usize {
        either!(self, driver => driver.buffers(share))
    }

    fn buffers_free(&self, share: Share) -> usize {
        either!(self, driver => driver.buffers_free(share))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;
    use crate::driver::{Event, Op};

    /// An inotify instance is reported while it is watched, once for each time that it was read.
    #[test]
    fn changes_of_files() {
        let folder = std::env::temp_dir().join(format!("uakari-changes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for choice in [Choice::Uring, Choice::Epoll] {
            let mut driver = Native::new(choice, 2).unwrap().0;
            let new = || {
                let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
                inotify.add_watch(&folder, AddWatchFlags::IN_CLOSE_WRITE).unwrap();
                inotify
            };
            let watched = |inotify: &Inotify| Some(inotify.as_fd().try_clone_to_owned().unwrap());
            let change = || std::fs::write(folder.join("file"), "").unwrap();
            let token = |generation| Token { slot: 0, generation, op: Op::Files };
            // The generations of the events of two waits: a driver may poll in every second one only.
            let events = |driver: &mut Native, ms| {
                let mut completions = Vec::new();
                for _ in 0..2 {
                    let wait_ms = if completions.is_empty() { ms } else { 0 };
                    driver.wait(Some(wait_ms), &mut completions).unwrap();
                }
                assert!(completions.iter().all(|one| matches!(one.event, Event::FilesChanged)), "{completions:?}");
                completions.iter().map(|one| one.token.generation).collect::<Vec<_>>()
            };
            let first = new();
            driver.watch_files(token(1), watched(&first)).unwrap();
            assert_eq!(events(&mut driver, 20), []);
            for _ in 0..3 {
                change();
                assert!(events(&mut driver, 10_000).contains(&1));
                assert!(!first.read_events().unwrap().is_empty());
                // One more event may precede the read.
                events(&mut driver, 0);
                assert_eq!(events(&mut driver, 20), []);
            }
            let second = new();
            driver.watch_files(token(2), watched(&second)).unwrap();
            change();
            assert!(events(&mut driver, 10_000).iter().all(|generation| *generation == 2));
            second.read_events().unwrap();
            driver.watch_files(token(3), None).unwrap();
            events(&mut driver, 0);
            change();
            assert_eq!(events(&mut driver, 20), []);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
