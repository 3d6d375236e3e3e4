//! Both sides of a hand-over in direct mode: the gateway, which passes a client's socket on, and a backend, which
//! receives it with recvmsg(2) alone.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::client::Client;
use crate::records::{Route, secure_pair};
use crate::server::{self, Backend, Kind, Listener};
use crate::wire::Wire;

/// Both ends of a new TCP connection.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// The bytes of a `struct sockaddr_in`.
pub fn sockaddr_in(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("{address} is no IPv4 address") };
    let family = (libc::AF_INET as u16).to_ne_bytes();
    [&family[..], &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]].concat()
}

/// Sends the message that passes a socket on.
pub fn hand_over(connection: &UnixStream, address: &[u8], socket: RawFd) {
    let rights = [ControlMessage::ScmRights(&[socket])];
    let parts = [IoSlice::new(address)];
    let sent = sendmsg::<()>(connection.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(sent, address.len());
}

/// A client that was handed over to the backend at this path.
pub fn give(path: &Path) -> Client {
    give_late(path, || {})
}

/// As `give`, and returns the copy of the socket that the gateway keeps open for a moment.
pub fn give_and_keep(path: &Path) -> (Client, TcpStream) {
    let (near, far) = tcp_pair();
    let connection = server::connect(path, Kind::Stream).unwrap();
    hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
    (Client::new(Wire::new(near)), far)
}

/// As `give`; calls `between` after connect(2) and before the message.
pub fn give_late(path: &Path, between: impl FnOnce()) -> Client {
    let (near, far) = tcp_pair();
    let connection = server::connect(path, Kind::Stream).unwrap();
    between();
    hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
    Client::new(Wire::new(near))
}

/// As `give`, for a client with TLS in the kernel. None: the kernel has none.
pub fn give_secure(path: &Path, route: Route) -> Option<Client> {
    let (near, far) = secure_pair(route)?;
    let connection = server::connect(path, Kind::Stream).unwrap();
    hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
    Some(Client::new(Wire::over_records(near)))
}

/// A client that was received.
pub struct Given {
    /// Its socket, or one end of a socket pair.
    pub client: Backend,
    /// The bytes of the message.
    pub record: Vec<u8>,
}

/// Accepts a connection that passes one client on and ends.
pub fn take(listener: &Listener) -> Given {
    let mut connection = listener.accept();
    connection.wait_for_input();
    let given = receive(&connection).expect("a message").expect("a descriptor");
    connection.expect_end();
    given
}

/// One recvmsg(2) without waiting; None if the message has no descriptor.
pub fn receive(connection: &Backend) -> Result<Option<Given>, Errno> {
    let mut record = [0; 64 * 1024];
    let mut control = cmsg_space!([RawFd; 4]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut record)];
    let message = recvmsg::<()>(connection.stream().as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let size = message.bytes;
    let mut fds = Vec::new();
    for one in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(all) = one {
            // SAFETY: the kernel has just made these descriptors for this process alone.
            fds.extend(all.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    assert!(fds.len() < 2, "{} descriptors in place of one", fds.len());
    let given =
        fds.pop().map(|fd| Given { client: Backend::new(UnixStream::from(fd)), record: record[..size].to_vec() });
    Ok(given)
}
