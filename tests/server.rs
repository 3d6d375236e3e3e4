//! UNIX servers that the test plays: it decides when to accept.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::client::{CLOSE, Frame, PONG};
use crate::process::{DEADLINE, uninterrupted};

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Stream,
    Packets,
}

impl Kind {
    fn new_socket(self) -> OwnedFd {
        let socket_type = if self == Kind::Stream { SockType::Stream } else { SockType::SeqPacket };
        socket::socket(AddressFamily::Unix, socket_type, SockFlag::SOCK_CLOEXEC, None).unwrap()
    }
}

/// An address through its open folder, so that the path may exceed sun_path.
fn at_path<T>(path: &Path, act: impl FnOnce(&UnixAddr) -> nix::Result<T>) -> nix::Result<T> {
    let folder = open(path.parent().unwrap(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let name = path.file_name().unwrap().to_str().unwrap();
    act(&UnixAddr::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).as_str())?)
}

/// Whether a server listens there (/proc/net/unix of proc(5)), without connecting.
pub fn listens(path: &Path) -> bool {
    const SO_ACCEPTCON: &str = "00010000";
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, SO_ACCEPTCON, _, _, _, name] if Path::new(name) == path)
    })
}

/// Connects to a server without the gateway.
pub fn connect(path: &Path, kind: Kind) -> Result<UnixStream, Errno> {
    let socket = kind.new_socket();
    at_path(path, |address| socket::connect(socket.as_raw_fd(), address))?;
    let stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Ok(stream)
}

/// The process that listens at the other end.
pub fn listener_of(stream: &UnixStream) -> Pid {
    Pid::from_raw(socket::getsockopt(stream, socket::sockopt::PeerCredentials).unwrap().pid())
}

/// Waits until there is a connection or input.
fn wait_for_input(fd: impl AsFd, what: &str) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let time = PollTimeout::try_from(DEADLINE.as_millis() as u32).unwrap();
    assert_eq!(poll(&mut fds, time), Ok(1), "{what} did not happen within {DEADLINE:?}");
}

/// A listening socket.
pub struct Listener(UnixListener);

impl Listener {
    /// Listens at a path, whose folders are made.
    pub fn bind(path: &Path, kind: Kind) -> Listener {
        Listener::bind_with_backlog(path, kind, 1024)
    }

    /// As `bind`; one connection more than `backlog` fits, as the kernel counts.
    pub fn bind_with_backlog(path: &Path, kind: Kind, backlog: i32) -> Listener {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = kind.new_socket();
        at_path(path, |address| socket::bind(socket.as_raw_fd(), address)).unwrap();
        socket::listen(&socket, Backlog::new(backlog).unwrap()).unwrap();
        Listener(UnixListener::from(socket))
    }

    /// The next connection.
    pub fn accept(&self) -> Backend {
        wait_for_input(&self.0, "a connection");
        Backend::new(self.0.accept().unwrap().0)
    }

    /// Whether no client has connected so far.
    pub fn is_idle(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }
}

/// The server's end of a connection.
pub struct Backend(UnixStream);

impl Backend {
    /// A connection that exists.
    pub fn new(stream: UnixStream) -> Backend {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Backend(stream)
    }

    /// The stream itself.
    pub fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Sends all these bytes; of packets, one.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// The bytes of one read; one packet.
    pub fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 256 * 1024];
        let size = uninterrupted(|| self.0.read(&mut bytes));
        let size = size.unwrap_or_else(|error| panic!("nothing came for {DEADLINE:?}: {error}"));
        bytes.truncate(size);
        bytes
    }

    /// The next bytes.
    pub fn take(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{size} bytes were due: {error}"));
        bytes
    }

    /// The next bytes must be these.
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let got = self.take(bytes.len());
        assert!(got == bytes, "got {}, expected {}", got.escape_ascii(), bytes.escape_ascii());
    }

    /// Expects the end, without another byte.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end after {DEADLINE:?}: {error}"),
            _ => assert!(rest.is_empty(), "bytes where the end was due: {}", rest.escape_ascii()),
        }
    }

    /// Waits until there is a connection or input.
    pub fn wait_for_input(&self) {
        wait_for_input(&self.0, "input");
    }

    /// Sends a frame without mask.
    pub fn send_frame(&mut self, frame: &Frame) {
        self.send(frame.bytes());
    }

    /// The next frame, which must have no mask.
    pub fn frame(&mut self) -> Frame {
        Frame::read(|size| self.take(size))
    }

    /// The next message, put together from its frames.
    pub fn message(&mut self) -> (u8, Vec<u8>) {
        Frame::read_message(|| self.frame())
    }

    /// Expects the end; pongs and a close frame may precede it.
    pub fn expect_end_of_frames(&mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        for frame in Frame::all(&rest) {
            assert!(matches!(frame.opcode, PONG | CLOSE), "{frame:?} where the end was due");
        }
    }
}
