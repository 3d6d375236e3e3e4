//! What the gateway does in direct mode, played by the test: it gives a client's connection to a server.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::client::Client;
use crate::server::{self, Kind};
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
    let SocketAddr::V4(address) = address else { panic!("{address} is none of IPv4") };
    let family = (libc::AF_INET as u16).to_ne_bytes();
    [&family[..], &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]].concat()
}

/// Sends the one message of a hand-over.
pub fn hand_over(connection: &UnixStream, address: &[u8], socket: RawFd) {
    let rights = [ControlMessage::ScmRights(&[socket])];
    let parts = [IoSlice::new(address)];
    let sent = sendmsg::<()>(connection.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(sent, address.len());
}

/// A client whose connection the server at this path has got.
pub fn give(path: &Path) -> Client {
    give_late(path, || {})
}

/// As `give`, with the copy of the connection that the gateway has for a moment longer.
pub fn give_and_keep(path: &Path) -> (Client, TcpStream) {
    let (near, far) = tcp_pair();
    let connection = server::connect(path, Kind::Stream).unwrap();
    hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
    (Client::new(Wire::new(near)), far)
}

/// As `give`; something happens between the connection and the hand-over.
pub fn give_late(path: &Path, between: impl FnOnce()) -> Client {
    let (near, far) = tcp_pair();
    let connection = server::connect(path, Kind::Stream).unwrap();
    between();
    hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
    Client::new(Wire::new(near))
}
