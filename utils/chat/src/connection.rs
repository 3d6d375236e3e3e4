//! A member's connection: a plain one from the gateway, or the member's own, which the gateway has handed over.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use server::options::Protocol;
use server::record::{HelloError, Record, has_hung_up, peer_address};
use websocket::{Buffer, Client, Error, ProtocolError};

use crate::Options;
use crate::framing::{End, Framing, Message, Outgoing};
use crate::limits::{ENTRY_SIZE, LINE_SIZE_MAX, QUEUE_SIZE_MAX, RECEIVE_SIZE};
use crate::pace::Pace;

/// Receive buffers, shared by all members.
pub(crate) struct Buffers {
    plain: Box<[u8]>,
    direct: Buffer,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers { plain: vec![0; RECEIVE_SIZE].into(), direct: Buffer::new() }
    }
}

/// Why a member leaves. Display is the reason for the log.
#[derive(Debug)]
pub(crate) enum Departure {
    /// The connection has ended.
    Left,
    /// A close frame arrived on a direct connection, whose end is still to come.
    Closing,
    /// It does not read: `QUEUE_SIZE_MAX` is exceeded.
    Slow,
    /// It violated RFC 6455.
    Frame(ProtocolError),
    /// A message exceeds `LINE_SIZE_MAX`.
    Line,
    /// The hello record is invalid.
    Record(HelloError),
    /// The connection failed.
    Broken(Errno),
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Departure::Left | Departure::Closing => f.write_str("it has left"),
            Departure::Slow => write!(f, "it does not read: over {QUEUE_SIZE_MAX} bytes are queued for it"),
            Departure::Frame(error) => error.fmt(f),
            Departure::Line => write!(f, "a message of over {LINE_SIZE_MAX} bytes without a terminator"),
            Departure::Record(error) => error.fmt(f),
            Departure::Broken(errno) => f.write_str(errno.desc()),
        }
    }
}

pub(crate) enum Connection {
    /// From the gateway, or from another program on this machine.
    Plain(Plain),
    /// The member's own, handed over by the gateway.
    Direct(Box<Client>),
}

impl Connection {
    /// Takes the messages that `pace` has room for, from what was left before or else from one receive. What exceeds the
    /// pace is left, and poll(2) does not report it.
    pub(crate) fn receive(
        &mut self,
        buffers: &mut Buffers,
        pace: &mut Pace,
        received: &mut Vec<Message>,
    ) -> Result<(), Departure> {
        match self {
            Connection::Plain(plain) => plain.receive(&mut buffers.plain, pace, received),
            Connection::Direct(client) => receive_direct(client, &mut buffers.direct, pace, received),
        }
    }

    /// Sends a message, or queues it. `Slow`: too much is queued already.
    pub(crate) fn send(&mut self, message: &Outgoing) -> Result<(), Departure> {
        match self {
            Connection::Plain(plain) => plain.send(message),
            Connection::Direct(client) => match client.gather(message.opcode, &message.bytes) {
                Err(Error::WouldBlock) => Err(Departure::Slow),
                Err(error) => Err(departure(error)),
                Ok(()) => Ok(()),
            },
        }
    }

    /// Sends all messages that were gathered in this turn, with one system call on a direct connection. On a plain one
    /// `send` has sent each by itself, which keeps them apart.
    pub(crate) fn send_gathered(&mut self) -> Result<(), Departure> {
        match self {
            Connection::Direct(client) if !client.wants_to_write() => self.flush(),
            _ => Ok(()),
        }
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        match self {
            Connection::Plain(plain) => !plain.queue.is_empty(),
            Connection::Direct(client) => client.wants_to_write(),
        }
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Departure> {
        match self {
            Connection::Plain(plain) => plain.flush(),
            Connection::Direct(client) => match client.flush() {
                Ok(()) | Err(Error::WouldBlock) => Ok(()),
                Err(error) => Err(departure(error)),
            },
        }
    }

    /// The member's address, from the hello record or its own connection. None: unknown.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let address = match self {
            Connection::Plain(plain) => plain.address.or_else(|| peer_address(plain.socket.as_fd())),
            Connection::Direct(client) => client.address().map(|address| address.ip()),
        };
        address.map(|address| address.to_canonical())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Plain(plain) => plain.socket.as_fd(),
            Connection::Direct(client) => client.as_fd(),
        }
    }
}

fn departure(error: Error) -> Departure {
    match error {
        Error::Closed { .. } => Departure::Closing,
        Error::Protocol(error) => Departure::Frame(error),
        Error::Io(errno) if !matches!(errno, Errno::ECONNRESET | Errno::EPIPE) => Departure::Broken(errno),
        _ => Departure::Left,
    }
}

/// The end of the connection within its hello record is no error.
fn departure_of_record(error: HelloError) -> Departure {
    match error {
        HelloError::Io(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) if errno != Errno::ECONNRESET => Departure::Broken(errno),
            _ => Departure::Left,
        },
        error => Departure::Record(error),
    }
}

fn receive_direct(
    client: &mut Client,
    buffer: &mut Buffer,
    pace: &mut Pace,
    received: &mut Vec<Message>,
) -> Result<(), Departure> {
    let mut batch = match client.receive(buffer) {
        Err(Error::WouldBlock) => return Ok(()),
        other => other.map_err(departure)?,
    };
    while pace.has_room() {
        let Some(message) = batch.take().map_err(departure)? else { break };
        pace.spend(message.payload.len());
        received.push(Message { opcode: message.opcode, payload: message.payload.into_owned() });
    }
    Ok(())
}

pub(crate) struct Plain {
    socket: OwnedFd,
    is_packet: bool,
    /// The hello record until it is complete; None: it is, or none is expected.
    record: Option<Record>,
    /// The address in the hello record.
    address: Option<IpAddr>,
    framing: Framing,
    /// Received, but beyond the pace.
    left: Vec<u8>,
    /// Messages to send, the first of them after `sent_size` bytes.
    queue: VecDeque<Rc<[u8]>>,
    sent_size: usize,
    queue_size: usize,
    /// Sending has failed. What the member has sent before is still to be received.
    is_write_closed: bool,
}

impl Plain {
    /// An accepted socket that does not block.
    pub(crate) fn new(socket: OwnedFd, options: &Options) -> Plain {
        Plain {
            socket,
            is_packet: options.protocol == Protocol::Packet,
            record: options.hello.then(Record::default),
            address: None,
            framing: Framing::new(options.protocol),
            left: Vec::new(),
            queue: VecDeque::new(),
            sent_size: 0,
            queue_size: 0,
            is_write_closed: false,
        }
    }

    fn receive(&mut self, buffer: &mut [u8], pace: &mut Pace, received: &mut Vec<Message>) -> Result<(), Departure> {
        if !self.left.is_empty() {
            let mut left = std::mem::take(&mut self.left);
            return self.split(&mut left, pace, received);
        }
        if let Some(record) = &mut self.record {
            if let Some(hello) = record.receive(self.socket.as_fd(), self.is_packet).map_err(departure_of_record)? {
                self.address = hello.client.map(|client| client.ip());
                self.record = None;
            }
            return Ok(());
        }
        let size = match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) if !self.is_packet || has_hung_up(self.socket.as_fd()) => return Err(Departure::Left),
            Ok(size) => size,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(Errno::ECONNRESET) => return Err(Departure::Left),
            Err(errno) => return Err(Departure::Broken(errno)),
        };
        self.split(&mut buffer[..size], pace, received)
    }

    fn split(&mut self, bytes: &mut [u8], pace: &mut Pace, received: &mut Vec<Message>) -> Result<(), Departure> {
        let mut at = 0;
        while at < bytes.len() {
            if !pace.has_room() {
                self.left = bytes[at..].to_vec();
                break;
            }
            match self.framing.next(bytes, &mut at) {
                Ok(Some(message)) => {
                    pace.spend(message.payload.len());
                    received.push(message);
                }
                Ok(None) => {}
                Err(End::Closed(frame)) => return Err(self.send_close(&frame, Departure::Left)),
                Err(End::Frame(error, frame)) => return Err(self.send_close(&frame, Departure::Frame(error))),
                Err(End::Line) => return Err(Departure::Line),
            }
        }
        Ok(())
    }

    /// Sends a close frame unless other messages are queued before it.
    fn send_close(&mut self, frame: &[u8], why: Departure) -> Departure {
        if self.queue.is_empty() {
            // If the socket does not take it, the connection ends without.
            let _ = send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
        }
        why
    }

    fn send(&mut self, message: &Outgoing) -> Result<(), Departure> {
        if self.is_write_closed {
            return Ok(());
        }
        if self.queue_size > QUEUE_SIZE_MAX {
            return Err(Departure::Slow);
        }
        self.queue_size += message.bytes.len() + ENTRY_SIZE;
        self.queue.push_back(Rc::clone(&message.bytes));
        if self.queue.len() == 1 { self.flush() } else { Ok(()) }
    }

    /// One send(2) for each message, which keeps unmarked ones apart.
    fn flush(&mut self) -> Result<(), Departure> {
        while let Some(first) = self.queue.front() {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.socket.as_raw_fd(), &first[self.sent_size..], flags) {
                Ok(size) => self.sent_size += size,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.is_write_closed = true;
                    self.queue.clear();
                    return Ok(());
                }
                Err(errno) => return Err(Departure::Broken(errno)),
            }
            if self.sent_size == first.len() {
                self.queue_size -= first.len() + ENTRY_SIZE;
                self.sent_size = 0;
                self.queue.pop_front();
            }
        }
        Ok(())
    }
}
