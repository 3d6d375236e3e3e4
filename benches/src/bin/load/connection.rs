//! A non-blocking TCP connection with bytes waiting to be sent.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, connect, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use uakari_bench::Result;

/// The result of one receive.
pub enum Received {
    /// The number of bytes received.
    Bytes(usize),
    /// Nothing to receive (EAGAIN).
    Nothing,
    /// The peer has ended its side.
    End,
}

/// The connection; `out` is sent by [`Connection::flush`], from `out_at` on.
pub struct Connection {
    stream: TcpStream,
    pub out: Vec<u8>,
    out_at: usize,
}

impl Connection {
    /// Begins to connect; epoll reports it writable when that is done.
    pub fn begin(address: SocketAddr) -> Result<Connection> {
        let address = SockaddrStorage::from(address);
        let family = address.family().unwrap_or(AddressFamily::Inet);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(format!("connect: {error}").into()),
        }
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        Ok(Connection { stream, out: Vec::new(), out_at: 0 })
    }

    /// The outcome of connecting, once epoll has reported something.
    pub fn check_connected(&self) -> Result<()> {
        match self.stream.take_error()? {
            None => Ok(()),
            Some(error) => Err(format!("connect: {error}").into()),
        }
    }

    /// Receives what fits into `buffer`.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(size) => return Ok(Received::Bytes(size)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receive: {error}").into()),
            }
        }
    }

    /// Sends queued bytes until the socket is full; the rest is sent when epoll reports it writable.
    pub fn flush(&mut self) -> Result<()> {
        while self.out_at < self.out.len() {
            match self.stream.write(&self.out[self.out_at..]) {
                Ok(size) => self.out_at += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("send: {error}").into()),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(())
    }

    /// Shuts down the sending half; the peer reads an end of file.
    pub fn end(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
