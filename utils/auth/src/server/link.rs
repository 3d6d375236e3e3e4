//! A connection to a server: messages in packets or in lines. It never blocks.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use auth_wire::Zeroizing;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};

use super::ServerError;
use crate::limits::SERVER_ANSWER_SIZE_MAX;

/// Packets or bytes that are read at once, so that a server that sends without end does not keep the thread busy.
const READS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    /// A message is a packet, not a line.
    has_packets: bool,
    /// To be sent.
    output: VecDeque<Zeroizing<Vec<u8>>>,
    /// An incomplete line.
    input: Vec<u8>,
}

impl Link {
    /// Connects by packets, or by lines if the server's socket is a stream.
    pub(super) fn connect(address: &UnixAddr) -> Result<Link, Errno> {
        let open = |kind| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Unix, kind, flags, None)?;
            connect(socket.as_raw_fd(), address)?;
            Ok(socket)
        };
        let (socket, has_packets) = match open(SockType::SeqPacket) {
            Err(Errno::EPROTOTYPE) => (open(SockType::Stream)?, false),
            other => (other?, true),
        };
        Ok(Link { socket, has_packets, output: VecDeque::new(), input: Vec::new() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What poll(2) is to wait for.
    pub(super) fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }

    /// Takes a message that has no newline.
    pub(super) fn queue(&mut self, text: &str) {
        let end: &[u8] = if self.has_packets { b"" } else { b"\n" };
        self.output.push_back(Zeroizing::new([text.as_bytes(), end].concat()));
    }

    /// Messages that are not sent yet.
    pub(super) fn queued(&self) -> usize {
        self.output.len()
    }

    /// Sends what the socket takes.
    pub(super) fn write(&mut self) -> Result<(), Errno> {
        while let Some(bytes) = self.output.front_mut() {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                // A packet is sent as a whole.
                Ok(count) if count < bytes.len() => drop(bytes.drain(..count)),
                Ok(_) => drop(self.output.pop_front()),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Messages that have arrived, also if the connection has ended after them, and whether there may be more.
    pub(super) fn read(&mut self) -> (Vec<Vec<u8>>, Result<bool, ServerError>) {
        let mut messages = Vec::new();
        let result = self.read_into(&mut messages);
        (messages, result)
    }

    fn read_into(&mut self, messages: &mut Vec<Vec<u8>>) -> Result<bool, ServerError> {
        let mut buffer = [0; SERVER_ANSWER_SIZE_MAX];
        // The size of a whole packet, even if it is larger than the buffer.
        let flags = if self.has_packets { MsgFlags::MSG_TRUNC } else { MsgFlags::empty() };
        for _ in 0..READS_MAX {
            match recv(self.socket.as_raw_fd(), &mut buffer, flags) {
                Ok(0) => return Err(ServerError::Closed),
                Ok(count) if self.has_packets => {
                    messages.push(buffer.get(..count).ok_or(ServerError::AnswerTooLong)?.to_vec());
                }
                Ok(count) => {
                    self.input.extend(buffer.iter().take(count));
                    while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = self.input.drain(..=end).collect();
                        if line.len() > SERVER_ANSWER_SIZE_MAX {
                            return Err(ServerError::AnswerTooLong);
                        }
                        messages.push(line);
                    }
                    if self.input.len() >= SERVER_ANSWER_SIZE_MAX {
                        return Err(ServerError::AnswerTooLong);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(false),
                // A server that closes before it has read all resets the connection. Of packets, that is told once, before
                // those that it has sent.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(ServerError::Failed(errno)),
            }
        }
        Ok(true)
    }
}
