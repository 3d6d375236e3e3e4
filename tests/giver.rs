//! The gateway's part of direct mode, played by the test: a client whose handshake is done, handed over to a server.

use std::io::IoSlice;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::client::Client;
use crate::server::{Kind, connect};
use crate::wire::Wire;

/// The message of a client that came to a UNIX socket of the gateway: the family alone.
pub const UNIX_ADDRESS: [u8; 2] = (libc::AF_UNIX as u16).to_ne_bytes();

/// A client over TCP, handed over to the server that listens at this path, with this hello record or none.
pub fn give(server: &Path, hello: &[u8]) -> Client {
    let (client, ours) = tcp_pair();
    give_socket(&connect(server, Kind::Stream).unwrap(), ours.as_fd_and_address(), hello);
    Client::new(Wire::new(client))
}

/// Two ends of a TCP connection.
pub fn tcp_pair() -> (TcpStream, Given) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, address) = listener.accept().unwrap();
    ours.set_nodelay(true).unwrap();
    (client, Given { ours, address })
}

/// The gateway's end of a client's connection.
pub struct Given {
    ours: TcpStream,
    address: SocketAddr,
}

impl Given {
    /// What is handed over of it.
    pub fn as_fd_and_address(&self) -> (BorrowedFd<'_>, Vec<u8>) {
        (std::os::fd::AsFd::as_fd(&self.ours), sockaddr(self.address))
    }
}

/// Hands a socket over on a connection to a server, in one message.
pub fn give_socket(connection: &UnixStream, (socket, address): (BorrowedFd<'_>, Vec<u8>), hello: &[u8]) {
    let parts = [IoSlice::new(&address), IoSlice::new(hello)];
    let sockets = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&sockets)];
    let sent = sendmsg::<()>(connection.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(sent, address.len() + hello.len());
}

/// A `struct sockaddr_in` or `sockaddr_in6` as it lies in memory.
pub fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(v4) => [&(libc::AF_INET as u16).to_ne_bytes()[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => [
            &(libc::AF_INET6 as u16).to_ne_bytes()[..],
            &port,
            &v6.flowinfo().to_ne_bytes(),
            &v6.ip().octets(),
            &v6.scope_id().to_ne_bytes(),
        ]
        .concat(),
    }
}
