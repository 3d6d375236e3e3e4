//! Test doubles: the gateway that hands a client over, and the client.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rfc6455::encoder::masked_frame;

/// A client's frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, payload, [1, 2, 3, 4])
}

/// The address of a client of a UNIX socket.
pub(crate) fn sockaddr_un() -> Vec<u8> {
    (libc::AF_UNIX as u16).to_ne_bytes().to_vec()
}

/// Sends the hand-over message: `bytes`, with `sockets` as SCM_RIGHTS.
pub(crate) fn give(gateway: &UnixStream, bytes: &[u8], sockets: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(sockets)];
    let sent = sendmsg::<()>(gateway.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Sends frames.
pub(crate) fn say(mut client: &UnixStream, frames: &[Vec<u8>]) {
    client.write_all(&frames.concat()).unwrap();
}

/// Receives exactly these bytes.
pub(crate) fn expect(mut client: &UnixStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    client.read_exact(&mut came).unwrap();
    assert_eq!(came, bytes);
}
