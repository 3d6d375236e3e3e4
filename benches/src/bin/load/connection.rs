//! A non-blocking TCP connection, plain or with TLS, with bytes waiting to be sent.

use crate::secure::Security;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, connect, socket};
use rustls::{ClientConnection, HandshakeKind};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use uakari_bench::Result;

/// Bytes that stay free below received records, so that they can be decrypted into the same buffer: more than the
/// incomplete record that rustls keeps.
const RECORD_SIZE_MAX: usize = 32 * 1024;

/// The result of one receive.
pub enum Received {
    /// The number of bytes received, and whether the socket may hold more.
    Bytes(usize, bool),
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
    tls: Option<Box<ClientConnection>>,
    ends: bool,
}

impl Connection {
    /// Begins to connect; epoll reports it writable when that is done.
    pub fn begin(address: SocketAddr, security: Option<&Security>) -> Result<Connection> {
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
        let tls = security.map(Security::connect).transpose()?;
        Ok(Connection { stream, out: Vec::new(), out_at: 0, tls, ends: false })
    }

    /// The outcome of connecting, once epoll has reported something.
    pub fn check_connected(&self) -> Result<()> {
        match self.stream.take_error()? {
            None => Ok(()),
            Some(error) => Err(format!("connect: {error}").into()),
        }
    }

    /// The kind of the TLS handshake; None: it is not complete, or the connection is plain.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.tls.as_ref()?.handshake_kind()
    }

    /// Receives what fits into `buffer`. With TLS that may be no byte.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        let start = if self.tls.is_some() { RECORD_SIZE_MAX } else { 0 };
        let size = loop {
            match self.stream.read(&mut buffer[start..]) {
                Ok(0) => return Ok(Received::End),
                Ok(size) => break size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receive: {error}").into()),
            }
        };
        let may_be_more = start + size == buffer.len();
        match &mut self.tls {
            Some(tls) => Ok(Received::Bytes(decrypt(tls, buffer, start + size)?, may_be_more)),
            None => Ok(Received::Bytes(size, may_be_more)),
        }
    }

    /// Sends queued bytes until the socket is full; the rest is sent when epoll reports it writable.
    pub fn flush(&mut self) -> Result<()> {
        let sent = match &mut self.tls {
            Some(tls) => {
                if !tls.is_handshaking() {
                    tls.writer().write_all(&self.out)?;
                    self.out.clear();
                    if self.ends {
                        tls.send_close_notify();
                    }
                }
                send(|| Ok(tls.wants_write() && tls.write_tls(&mut self.stream)? > 0))?
            }
            None => {
                let (out, at) = (&self.out, &mut self.out_at);
                let sent = send(|| {
                    if *at == out.len() {
                        return Ok(false);
                    }
                    *at += self.stream.write(&out[*at..])?;
                    Ok(true)
                })?;
                if sent {
                    self.out.clear();
                    self.out_at = 0;
                }
                sent
            }
        };
        if sent && self.ends && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking()) {
            self.ends = false;
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Ends the sending half after what is queued; the peer reads an end of file.
    pub fn end(&mut self) -> Result<()> {
        self.ends = true;
        self.flush()
    }
}

/// Sends until `part` reports that nothing is left. False: the socket is full.
fn send(mut part: impl FnMut() -> std::io::Result<bool>) -> Result<bool> {
    loop {
        match part() {
            Ok(true) => {}
            Ok(false) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("send: {error}").into()),
        }
    }
}

/// Decrypts the records from `RECORD_SIZE_MAX` to `end` to the beginning of the buffer. Returns their payload's size.
fn decrypt(tls: &mut ClientConnection, buffer: &mut [u8], end: usize) -> Result<usize> {
    let (mut start, mut size) = (RECORD_SIZE_MAX, 0);
    while start < end {
        start += tls.read_tls(&mut &buffer[start..end])?;
        let payload = tls.process_new_packets()?.plaintext_bytes_to_read();
        tls.reader().read_exact(&mut buffer[size..size + payload])?;
        size += payload;
    }
    Ok(size)
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
