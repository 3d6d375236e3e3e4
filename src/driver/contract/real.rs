//! The scene of real sockets, files and devices, for drivers whose handles are descriptors.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    SockaddrStorage, UnixAddr, setsockopt, sockopt,
};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, read, write};

use super::{Family, File, Heard, Host, READ_SIZE_MAX, Scene};
use crate::driver::connect::{local_address, set_blocking};
use crate::driver::device::{Device, Direction};
use crate::driver::{Driver, SocketType, Token, rights, tcp};
use crate::types::Address;

/// Bytes of the socket buffers of TCP connections, so that a full one is small.
const BUFFER_SIZE: usize = 64 * 1024;
/// Bytes of a segment to a TCP far end.
const SEGMENT_SIZE: u32 = 1_000;
/// Connections that wait for a backend.
const BACKLOG: i32 = 64;

/// `Uring::watch_signals` or `Epoll::watch_signals`.
type WatchSignals<D> = fn(&mut D, Token, &[Signal]) -> Result<(), Errno>;

/// A driver among real objects.
pub(super) struct Real<D> {
    /// None: dropped by the case.
    driver: Option<D>,
    watch_signals: WatchSignals<D>,
    folder: PathBuf,
    ports: Vec<SocketAddr>,
    /// The listening sockets of backends by their names, and what they accept.
    backends: HashMap<String, (OwnedFd, FarKind)>,
    /// Far ends of devices by their paths, as far as they are open before the driver opens the device.
    devices: BTreeMap<CString, OwnedFd>,
    /// What fills the backlogs.
    held: Vec<OwnedFd>,
}

/// The far end of a connection or a device.
pub(super) struct RealFar {
    fd: OwnedFd,
    kind: FarKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FarKind {
    Stream,
    Packets,
    Device,
}

impl<D> Real<D> {
    pub(super) fn new(driver: D, watch_signals: WatchSignals<D>) -> Real<D> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("uakari-contract-{}-{count}", std::process::id()));
        std::fs::create_dir_all(folder.join("inside")).expect("a folder");
        let (ports, backends, devices, held) = (Vec::new(), HashMap::new(), BTreeMap::new(), Vec::new());
        Real { driver: Some(driver), watch_signals, folder, ports, backends, devices, held }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.join("inside").join(name)
    }

    /// The path of the UNIX socket of a port without a TCP address.
    fn port_path(&self, port: usize) -> PathBuf {
        self.folder.join(format!("port-{port}"))
    }

    fn bind(&self, name: &str, socket_type: SocketType) -> OwnedFd {
        let socket = new_unix(socket_type);
        socket::bind(socket.as_raw_fd(), &self.address(name)).expect("a bound socket");
        socket
    }

    fn address(&self, name: &str) -> UnixAddr {
        UnixAddr::new(&self.place(name)).expect("a short path")
    }
}

fn new_unix(socket_type: SocketType) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket_type = match socket_type {
        SocketType::Stream => SockType::Stream,
        SocketType::SeqPacket => SockType::SeqPacket,
    };
    socket::socket(AddressFamily::Unix, socket_type, flags, None).expect("a socket")
}

fn new_tcp() -> OwnedFd {
    socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket")
}

/// Gives the far end of a connection a small buffer and small segments, before it connects or listens. The loopback device
/// has segments of 64 KiB: of a window with less space the kernel makes no use for 200 ms (RFC 9293 sections 3.8.6.1 and
/// 3.8.6.2.1), so that a send that could not go on has space again although nobody has read.
fn receive_little(socket: &OwnedFd) {
    setsockopt(socket, sockopt::RcvBuf, &BUFFER_SIZE).expect("a small buffer");
    setsockopt(socket, sockopt::TcpMaxSeg, &SEGMENT_SIZE).expect("small segments");
}

fn listen(socket: &OwnedFd, backlog: i32) {
    socket::listen(socket, Backlog::new(backlog).expect("a backlog")).expect("a listening socket");
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the number is the result of an accept, so it is a new descriptor without another owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).ok().map(own)
}

/// Whether the peer of a socket has ended its stream.
fn has_ended(fd: &OwnedFd) -> bool {
    let mut one = [PollFd::new(fd.as_fd(), PollFlags::from_bits_retain(libc::POLLRDHUP))];
    poll(&mut one, PollTimeout::ZERO) == Ok(1)
}

impl<D: Driver<Handle = OwnedFd>> Scene for Real<D> {
    type Driver = D;
    type Far = RealFar;
    const IS_SIMULATED: bool = false;

    fn driver(&mut self) -> &mut D {
        self.driver.as_mut().expect("a driver")
    }

    fn drop_driver(&mut self) {
        self.driver = None;
    }

    fn leaks(&self) -> String {
        // Other tests of the process open descriptors too.
        String::new()
    }

    fn listener(&mut self, family: Family) -> (OwnedFd, usize) {
        let port = self.ports.len();
        match family {
            Family::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
                self.ports.push(listener.local_addr().expect("an address"));
                // Accepted sockets inherit it.
                setsockopt(&listener, sockopt::SndBuf, &BUFFER_SIZE).expect("a small buffer");
                (listener.into(), port)
            }
            Family::Unix => {
                let listener = UnixListener::bind(self.port_path(port)).expect("a listener");
                self.ports.push(SocketAddr::from(([0, 0, 0, 0], 0)));
                (listener.into(), port)
            }
        }
    }

    fn port_address(&self, port: usize) -> Address {
        match self.ports[port] {
            address if address.port() == 0 => Address::Unix,
            address => Address::Tcp(address),
        }
    }

    fn client(&mut self, port: usize) -> RealFar {
        let fd = match self.port_address(port) {
            Address::Tcp(address) => {
                let socket = new_tcp();
                receive_little(&socket);
                socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).expect("a connection");
                socket
            }
            _ => {
                let socket = new_unix(SocketType::Stream);
                let address = UnixAddr::new(&self.port_path(port)).expect("a short path");
                socket::connect(socket.as_raw_fd(), &address).expect("a connection");
                socket
            }
        };
        RealFar { fd, kind: FarKind::Stream }
    }

    fn client_address(&self, client: &RealFar) -> Address {
        local_address(&client.fd)
    }

    fn folder(&mut self) -> OwnedFd {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&self.folder.join("inside"), flags, Mode::empty()).expect("the folder")
    }

    fn path(&self, name: &str) -> CString {
        CString::new(self.place(name).as_os_str().as_bytes()).expect("no NUL")
    }

    fn add(&mut self, name: &str, file: File<'_>) {
        let place = self.place(name);
        match file {
            File::Bytes(bytes) => std::fs::write(place, bytes).expect("a file"),
            File::Folder => std::fs::create_dir(place).expect("a folder"),
            File::Listening(socket_type) => {
                let socket = self.bind(name, socket_type);
                listen(&socket, BACKLOG);
                let kind = if socket_type == SocketType::Stream { FarKind::Stream } else { FarKind::Packets };
                self.backends.insert(name.to_owned(), (socket, kind));
            }
            File::Refusing => self.held.push(self.bind(name, SocketType::Stream)),
            File::Full => {
                let socket = self.bind(name, SocketType::Stream);
                listen(&socket, 0);
                loop {
                    let client = new_unix(SocketType::Stream);
                    match socket::connect(client.as_raw_fd(), &self.address(name)) {
                        Ok(()) => self.held.push(client),
                        Err(Errno::EAGAIN) => break,
                        Err(errno) => panic!("{errno}"),
                    }
                }
                self.backends.insert(name.to_owned(), (socket, FarKind::Stream));
            }
            File::LinkOut => {
                std::fs::write(self.folder.join("outside"), b"outside").expect("a file");
                std::os::unix::fs::symlink("../outside", place).expect("a link");
            }
            File::Link(target) => std::os::unix::fs::symlink(target, place).expect("a link"),
            File::Fifo => mkfifo(&place, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe"),
        }
    }

    fn make_room(&mut self, name: &str) {
        while accept(&self.backends[name].0).is_some() {}
    }

    fn host(&mut self, host: Host) -> SocketAddr {
        let socket = new_tcp();
        let any = SockaddrStorage::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        receive_little(&socket);
        socket::bind(socket.as_raw_fd(), &any).expect("a bound socket");
        let Address::Tcp(address) = local_address(&socket) else { panic!("no address") };
        set_blocking(&socket, false).expect("O_NONBLOCK");
        match host {
            Host::Answering => listen(&socket, BACKLOG),
            // A port that is bound and does not listen is nobody else's.
            Host::Refusing => {}
            Host::Silent => {
                listen(&socket, 0);
                // One connection fills the queue; further ones get no answer.
                let client = new_tcp();
                socket::connect(client.as_raw_fd(), &SockaddrStorage::from(address)).expect("a connection");
                self.held.push(client);
            }
        }
        self.backends.insert(address.to_string(), (socket, FarKind::Stream));
        address
    }

    fn arrived(&mut self, backend: &str) -> Option<RealFar> {
        let (listener, kind) = &self.backends[backend];
        accept(listener).map(|fd| RealFar { fd, kind: *kind })
    }

    fn parcel(&mut self, connection: &RealFar) -> Option<(Vec<u8>, Vec<RealFar>)> {
        let mut record = [0; 1024];
        let mut parts = [IoSliceMut::new(&mut record)];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = socket::recvmsg::<()>(connection.fd.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let mut fars = Vec::new();
        for one in message.cmsgs().expect("whole control data") {
            let ControlMessageOwned::ScmRights(all) = one else { panic!("{one:?}") };
            fars.extend(all.into_iter().map(|fd| RealFar { fd: own(fd), kind: FarKind::Stream }));
        }
        let size = message.bytes;
        Some((record[..size].to_vec(), fars))
    }

    fn device(&mut self, device: Device) -> CString {
        match device {
            Device::Tty { .. } => {
                let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
                let far = posix_openpt(flags).expect("a pseudoterminal");
                grantpt(&far).and_then(|()| unlockpt(&far)).expect("an open line");
                let path = CString::new(ptsname_r(&far).expect("its name")).expect("no NUL");
                self.devices.insert(path.clone(), far.into());
                path
            }
            Device::Fifo(direction) => {
                let name = format!("pipe-{}", self.devices.len());
                self.add(&name, File::Fifo);
                let path = self.path(&name);
                let far = match direction {
                    // A writer that is open for reading too does not have to wait for a reader.
                    Direction::Read => OFlag::O_RDWR,
                    Direction::Write => OFlag::O_RDONLY,
                };
                let far = open(&self.place(&name), far | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty());
                self.devices.insert(path.clone(), far.expect("a pipe"));
                path
            }
        }
    }

    fn device_far(&mut self, path: &CStr) -> RealFar {
        // The number of devices names the next one, so the entry stays.
        let fd = self.devices[path].try_clone().expect("a descriptor");
        let null = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).expect("/dev/null");
        self.devices.insert(path.to_owned(), null);
        RealFar { fd, kind: FarKind::Device }
    }

    fn write(&mut self, far: &RealFar, bytes: &[u8]) -> Option<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match far.kind {
            FarKind::Device => write(&far.fd, bytes).ok(),
            FarKind::Stream | FarKind::Packets => socket::send(far.fd.as_raw_fd(), bytes, flags).ok(),
        }
    }

    fn read(&mut self, far: &RealFar, size_max: usize) -> Heard {
        let mut room = vec![0; size_max.min(READ_SIZE_MAX)];
        let result = match far.kind {
            FarKind::Device => read(&far.fd, &mut room),
            // The flag of the file is shared with the driver's process if the socket was passed.
            FarKind::Stream | FarKind::Packets => socket::recv(far.fd.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT),
        };
        match result {
            Ok(0) if far.kind == FarKind::Packets && !has_ended(&far.fd) => Heard::Bytes(Vec::new()),
            // A line whose other end is closed.
            Ok(0) | Err(Errno::EIO) => Heard::End,
            Ok(size) => Heard::Bytes(room[..size].to_vec()),
            Err(Errno::EAGAIN | Errno::EINTR) => Heard::Nothing,
            Err(Errno::ECONNRESET) => Heard::Reset,
            Err(errno) => panic!("{errno}"),
        }
    }

    fn finish(&mut self, far: &RealFar) {
        socket::shutdown(far.fd.as_raw_fd(), Shutdown::Write).expect("a connection");
    }

    fn leave(&mut self, far: RealFar) {
        drop(far);
    }

    fn reset(&mut self, far: RealFar) {
        // A close with unread bytes is a reset (unix(7), RFC 1122 section 4.2.2.13).
        drop(far);
    }

    fn keep_small(&mut self, handle: &OwnedFd) {
        setsockopt(handle, sockopt::SndBuf, &BUFFER_SIZE).expect("a small buffer");
    }

    fn urge(&mut self, far: &RealFar) {
        let sent = socket::send(far.fd.as_raw_fd(), b"!", MsgFlags::MSG_OOB | MsgFlags::MSG_NOSIGNAL);
        assert_eq!(sent, Ok(1));
    }

    fn write_with_descriptor(&mut self, far: &RealFar, bytes: &[u8]) -> RealFar {
        let (passed, other) = rights::new_pair().expect("a pair");
        let all = [passed.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&all)];
        let parts = [IoSlice::new(bytes)];
        let sent = socket::sendmsg::<()>(far.fd.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None);
        assert_eq!(sent, Ok(bytes.len()));
        RealFar { fd: other, kind: FarKind::Stream }
    }

    fn has_name(&self, handle: &OwnedFd) -> bool {
        !socket::getsockname::<UnixAddr>(handle.as_raw_fd()).expect("an address").is_unnamed()
    }

    fn limit_unsent(&mut self, client: &OwnedFd) {
        tcp::keep_unsent_small(client).expect("an option");
    }

    fn unsent_size_max(&self, client: &OwnedFd) -> u32 {
        socket::getsockopt(client, tcp::NotSentLowat).expect("an option")
    }

    fn has_keepalive(&self, handle: &OwnedFd) -> bool {
        socket::getsockopt(handle, sockopt::KeepAlive).expect("an option")
    }

    fn watch_signal(&mut self, token: Token) -> Result<i32, Errno> {
        SigSet::from_iter([Signal::SIGUSR1]).thread_block()?;
        let watch_signals = self.watch_signals;
        watch_signals(self.driver(), token, &[Signal::SIGUSR1])?;
        Ok(libc::SIGUSR1)
    }

    fn raise_signal(&mut self) {
        raise(Signal::SIGUSR1).expect("a signal");
    }
}

impl<D> Drop for Real<D> {
    fn drop(&mut self) {
        // What another process removed is gone, too.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
