//! Opens listening sockets: TCP over IPv4 and IPv6, and UNIX sockets.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, setsockopt, sockopt,
};

use crate::driver::tcp;
use crate::limits::{BACKLOG_MAX, BIND_PAUSE_MS, Http};
use crate::types::ListenAddress;

/// A failure to listen. Display names the address and the remedy.
#[derive(Debug)]
pub(crate) struct ListenError {
    address: ListenAddress,
    errno: Errno,
}

impl ListenError {
    /// Whether the machine does not have the address yet.
    pub(crate) fn is_without_address(&self) -> bool {
        matches!(self.address, ListenAddress::Tcp(_)) && self.errno == Errno::EADDRNOTAVAIL
    }

    /// Whether the folder of a UNIX socket does not exist yet.
    pub(crate) fn is_without_folder(&self) -> bool {
        matches!(self.address, ListenAddress::Unix(_)) && self.errno == Errno::ENOENT
    }

    /// Whether the IPv6 wildcard address was requested on a machine without IPv6.
    pub(crate) fn is_without_ipv6(&self) -> bool {
        let is_any = matches!(self.address, ListenAddress::Tcp(SocketAddr::V6(v6)) if v6.ip().is_unspecified());
        is_any && matches!(self.errno, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.errno {
            Errno::EADDRINUSE => "another program listens there: stop it or choose another address",
            Errno::EACCES => "ports below 1024 and this path need more rights: start as root with -u USER",
            Errno::EADDRNOTAVAIL => "this machine has no such address",
            Errno::ENOENT => "its folder does not exist",
            Errno::EEXIST => "a file that is not a socket is in the way",
            Errno::EAFNOSUPPORT => "this machine has no IPv6",
            _ => "choose another address",
        };
        write!(f, "cannot listen on {}: {}: {remedy}", self.address, self.errno.desc())
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    /// The socket.
    pub(crate) fd: OwnedFd,
    /// Its address, with the port chosen by the kernel.
    pub(crate) address: ListenAddress,
    /// The socket file of a UNIX listener.
    pub(crate) file: Option<SocketFile>,
}

/// The file of a UNIX listener, removed on drop.
#[derive(Debug)]
pub struct SocketFile {
    path: String,
    /// Device and inode numbers. A file that replaced ours is not removed.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &str) -> Option<SocketFile> {
        identity(path).map(|identity| SocketFile { path: path.to_owned(), identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            // Without permission to remove it, for instance after -u, the file remains and the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &str) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Options for binding an address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Binding {
    /// Whether to bind an address that the machine does not have (IP_FREEBIND, ip(7)).
    pub(crate) has_freebind: bool,
    /// How long to retry an address in use, in ms.
    pub(crate) patience_ms: u64,
}

/// Creates a listening socket.
pub(crate) fn listen(address: &ListenAddress, limits: &Http, binding: Binding) -> Result<ListenSocket, ListenError> {
    let failed = |errno| ListenError { address: address.clone(), errno };
    match address {
        ListenAddress::Tcp(tcp) => {
            let (fd, tcp) = listen_tcp(*tcp, limits, binding).map_err(failed)?;
            Ok(ListenSocket { fd, address: ListenAddress::Tcp(tcp), file: None })
        }
        ListenAddress::Unix(path) => {
            let fd = listen_unix(Path::new(path)).map_err(failed)?;
            Ok(ListenSocket { fd, address: address.clone(), file: SocketFile::of(path) })
        }
    }
}

/// Whether binding may succeed: the machine has the address, or the folder of the UNIX socket exists.
pub(crate) fn may_be_there(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Tcp(tcp) => {
            let family = if tcp.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let mut any_port = *tcp;
            any_port.set_port(0);
            let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
            socket.is_ok_and(|fd| socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(any_port)).is_ok())
        }
        ListenAddress::Unix(path) => Path::new(path).parent().is_some_and(Path::is_dir),
    }
}

fn listen_tcp(address: SocketAddr, limits: &Http, binding: Binding) -> Result<(OwnedFd, SocketAddr), Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Accepted sockets inherit TCP_NODELAY: a message must not wait for the acknowledgement of the previous one.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    tcp::watch_peers(&fd, limits)?;
    tcp::keep_unsent_small(&fd)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if binding.has_freebind {
        // An option at level IPPROTO_IP that also applies to IPv6 sockets.
        setsockopt(&fd, sockopt::IpFreebind, &true)?;
    }
    bind_patiently(&fd, &SockaddrStorage::from(address), binding.patience_ms)?;
    socket::listen(&fd, Backlog::new(BACKLOG_MAX)?)?;
    let bound: SockaddrStorage = socket::getsockname(fd.as_raw_fd())?;
    let port = match (bound.as_sockaddr_in(), bound.as_sockaddr_in6()) {
        (Some(v4), _) => v4.port(),
        (_, Some(v6)) => v6.port(),
        _ => address.port(),
    };
    Ok((fd, SocketAddr::new(address.ip(), port)))
}

/// The port of a killed process stays in use briefly, because the kernel tears its io_uring down asynchronously.
fn bind_patiently(fd: &OwnedFd, address: &SockaddrStorage, patience_ms: u64) -> Result<(), Errno> {
    let give_up = Instant::now() + Duration::from_millis(patience_ms);
    loop {
        match socket::bind(fd.as_raw_fd(), address) {
            Err(Errno::EADDRINUSE) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(BIND_PAUSE_MS))
            }
            result => return result,
        }
    }
}

fn listen_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new(path)?;
    let new_socket = |flags| socket::socket(AddressFamily::Unix, SockType::Stream, flags, None);
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(Errno::EEXIST);
        }
        // A socket with a live listener is not replaced; a stale socket file is.
        let probe = new_socket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        if socket::connect(probe.as_raw_fd(), &address) != Err(Errno::ECONNREFUSED) {
            return Err(Errno::EADDRINUSE);
        }
        std::fs::remove_file(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    }
    let fd = new_socket(SockFlag::SOCK_CLOEXEC)?;
    socket::bind(fd.as_raw_fd(), &address)?;
    socket::listen(&fd, Backlog::new(BACKLOG_MAX)?)?;
    Ok(fd)
}
