//! For tests: a TCP connection whose server end is a client in the table.

use std::io::{IoSliceMut, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::libc;
use rfc6455::encoder::masked_frame;
use server::outgoing::WriteType;

use crate::client::Client;
use crate::reading;
use crate::table::{self, Entry};

/// Both ends of a connection after its hand-over.
pub(crate) struct Conversation {
    /// The WebSocket client's end.
    pub(crate) client: TcpStream,
    server: TcpStream,
    /// The library's state for the server's end.
    pub(crate) known: &'static Client,
}

impl Conversation {
    /// A new connection, with binary messages to the client. `is_blocking` is the mode of the server's end.
    pub(crate) fn start(is_blocking: bool) -> Conversation {
        Conversation::of(WriteType::Binary, is_blocking)
    }

    /// Like `start`, with this message type.
    pub(crate) fn of(kind: WriteType, is_blocking: bool) -> Conversation {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let server = listener.accept().unwrap().0;
        server.set_nonblocking(!is_blocking).unwrap();
        let known = Client::new(kind);
        known.set_socket(server.as_raw_fd());
        known.is_handed_over.store(true, Ordering::Release);
        table::put(server.as_raw_fd(), Entry::Client(known));
        Conversation { client, server, known }
    }

    /// The server's file descriptor.
    pub(crate) fn fd(&self) -> RawFd {
        self.server.as_raw_fd()
    }

    /// Sends bytes and waits until they were received (TIOCOUTQ).
    pub(crate) fn say(&self, bytes: &[u8]) {
        (&self.client).write_all(bytes).unwrap();
        let mut waiting: libc::c_int = 1;
        while waiting > 0 {
            // SAFETY: the command writes a number there.
            let result = unsafe { libc::ioctl(self.client.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
            assert_eq!(result, 0, "{}", Errno::last());
        }
    }

    /// Shuts down the client's sending half and waits until the server's end sees it.
    pub(crate) fn end(&self) {
        self.client.shutdown(Shutdown::Write).unwrap();
        let mut set = libc::pollfd { fd: self.fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: there is one entry.
        assert_eq!(unsafe { libc::poll(&raw mut set, 1, 60_000) }, 1);
    }

    /// The server's end.
    pub(crate) fn server(&self) -> &TcpStream {
        &self.server
    }

    /// A client's frame with this first byte.
    pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        masked_frame(first, payload, [0x37, 0xfa, 0x21, 0x3d])
    }

    /// All payload that the server can read without waiting. Then Ok: end of file; EAGAIN: more may follow.
    pub(crate) fn read_all(&self) -> (Vec<u8>, Result<(), Errno>) {
        let mut came = Vec::new();
        loop {
            let mut buffer = [0; 64];
            let parts = &mut [IoSliceMut::new(&mut buffer)];
            match reading::receive(self.fd(), self.known, parts, libc::MSG_DONTWAIT) {
                Ok(0) => return (came, Ok(())),
                Ok(size) => came.extend_from_slice(&buffer[..size]),
                Err(errno) => return (came, Err(errno)),
            }
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        table::put(self.fd(), Entry::Unknown);
        self.known.release();
    }
}
