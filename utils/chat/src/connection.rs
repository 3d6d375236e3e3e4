//! A member's connection: a plain one, on which the gateway relays, or its own, which the gateway has handed over.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockaddrLike, SockaddrStorage, getpeername, recv, send};
use server::options::Protocol;
use server::record::{HelloError, Record};
use server::start::has_hung_up;
use websocket::{Buffer, Client, Error, ProtocolError};

use crate::framing::{Cut, Framing, Message, Parcel};
use crate::limits::{ENTRY_SIZE, LINE_SIZE_MAX, QUEUE_SIZE_MAX, RECEIVE_SIZE};
use crate::options::Options;
use crate::pace::Pace;

/// Memory to receive into, for all members.
pub struct Buffers {
    plain: Box<[u8]>,
    direct: Buffer,
}

impl Buffers {
    /// As large as a receive is at most.
    pub fn new() -> Buffers {
        Buffers { plain: vec![0; RECEIVE_SIZE].into(), direct: Buffer::new() }
    }
}

/// Why a member is one no longer. Display is what the operator is told of those who are dropped.
#[derive(Debug)]
pub enum Gone {
    /// It has left.
    Left,
    /// It has said its last word on a connection of its own, whose end is to be waited for.
    Leaves,
    /// It has not taken what waits for it.
    Slow,
    /// It broke RFC 6455.
    Frame(ProtocolError),
    /// A line has no end.
    Line,
    /// The first record is none.
    Record(HelloError),
    /// The connection broke.
    Broken(Errno),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Left | Gone::Leaves => f.write_str("it has left"),
            Gone::Slow => write!(f, "it does not read: over {QUEUE_SIZE_MAX} bytes wait for it"),
            Gone::Frame(error) => error.fmt(f),
            Gone::Line => write!(f, "a message of over {LINE_SIZE_MAX} bytes without its end"),
            Gone::Record(error) => error.fmt(f),
            Gone::Broken(errno) => f.write_str(errno.desc()),
        }
    }
}

/// A member's connection.
pub enum Connection {
    /// The gateway relays, or somebody on this machine connects.
    Plain(Plain),
    /// The member's own.
    Direct(Box<Client>),
}

impl Connection {
    /// Receives once, unless something is left, and takes the messages that `pace` has room for. Others are left until
    /// it has: poll(2) does not tell of them.
    pub fn hear(&mut self, buffers: &mut Buffers, pace: &mut Pace, said: &mut Vec<Message>) -> Result<(), Gone> {
        match self {
            Connection::Plain(plain) => plain.hear(&mut buffers.plain, pace, said),
            Connection::Direct(client) => hear_client(client, &mut buffers.direct, pace, said),
        }
    }

    /// Sends a message, or lets it wait. `Slow`: too much is waiting already.
    pub fn send(&mut self, parcel: &Parcel) -> Result<(), Gone> {
        match self {
            Connection::Plain(plain) => plain.send(parcel),
            Connection::Direct(client) => match client.gather(parcel.opcode, &parcel.bytes) {
                Err(Error::WouldBlock) => Err(Gone::Slow),
                Err(error) => Err(gone(error)),
                Ok(()) => Ok(()),
            },
        }
    }

    /// Behind all that there was to say for now: messages to a connection of its own leave in one piece, so that who
    /// has fallen behind gets on with fewer system calls. On plain ones each is a send, which keeps them apart.
    pub fn send_gathered(&mut self) -> Result<(), Gone> {
        match self {
            Connection::Direct(client) if !client.wants_to_write() => self.flush(),
            _ => Ok(()),
        }
    }

    /// Whether something waits to be sent.
    pub fn wants_to_write(&self) -> bool {
        match self {
            Connection::Plain(plain) => !plain.queue.is_empty(),
            Connection::Direct(client) => client.wants_to_write(),
        }
    }

    /// Sends what waits, as far as it is taken.
    pub fn flush(&mut self) -> Result<(), Gone> {
        match self {
            Connection::Plain(plain) => plain.flush(),
            Connection::Direct(client) => match client.flush() {
                Ok(()) | Err(Error::WouldBlock) => Ok(()),
                Err(error) => Err(gone(error)),
            },
        }
    }

    /// Where the member is: the gateway has told, or its own connection does. None: nobody knows.
    pub fn address(&self) -> Option<IpAddr> {
        let address = match self {
            Connection::Plain(plain) => plain.address(),
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

fn gone(error: Error) -> Gone {
    match error {
        Error::Closed { .. } => Gone::Leaves,
        Error::Protocol(error) => Gone::Frame(error),
        Error::Io(errno) if !matches!(errno, Errno::ECONNRESET | Errno::EPIPE) => Gone::Broken(errno),
        _ => Gone::Left,
    }
}

fn hear_client(client: &mut Client, buffer: &mut Buffer, pace: &mut Pace, said: &mut Vec<Message>) -> Result<(), Gone> {
    let mut batch = match client.receive(buffer) {
        Err(Error::WouldBlock) => return Ok(()),
        other => other.map_err(gone)?,
    };
    while pace.has_room() {
        let Some(message) = batch.take().map_err(gone)? else { break };
        pace.spend(message.payload.len());
        said.push(Message { opcode: message.opcode, payload: message.payload.into_owned() });
    }
    Ok(())
}

/// A plain connection.
pub struct Plain {
    socket: OwnedFd,
    is_packet: bool,
    /// What has come of the first record, where one is awaited.
    record: Option<Record>,
    /// What the record said.
    told: Option<IpAddr>,
    framing: Framing,
    /// Received, but there was no room for it in the pace.
    left: Vec<u8>,
    /// What waits to be sent; of the first, so many bytes were.
    queue: VecDeque<Rc<[u8]>>,
    sent_size: usize,
    queue_size: usize,
    /// It takes nothing more, but what it said before may not be heard yet.
    is_deaf: bool,
}

impl Plain {
    /// A connection that was just accepted, and does not block.
    pub fn new(socket: OwnedFd, options: &Options) -> Plain {
        Plain {
            socket,
            is_packet: options.protocol == Protocol::Packet,
            record: options.hello.then(Record::new),
            told: None,
            framing: Framing::new(options.protocol),
            left: Vec::new(),
            queue: VecDeque::new(),
            sent_size: 0,
            queue_size: 0,
            is_deaf: false,
        }
    }

    fn hear(&mut self, buffer: &mut [u8], pace: &mut Pace, said: &mut Vec<Message>) -> Result<(), Gone> {
        if !self.left.is_empty() {
            let mut left = std::mem::take(&mut self.left);
            return self.cut(&mut left, pace, said);
        }
        let is_packet = self.is_packet;
        let size = self.record.as_ref().filter(|_| !is_packet).map_or(buffer.len(), Record::missing_size);
        let bytes = &mut buffer[..size.min(RECEIVE_SIZE)];
        let size = match recv(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) if !is_packet || has_hung_up(self.socket.as_fd()) => return Err(Gone::Left),
            Ok(size) => size,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(Errno::ECONNRESET) => return Err(Gone::Left),
            Err(errno) => return Err(Gone::Broken(errno)),
        };
        let Some(record) = &mut self.record else { return self.cut(&mut bytes[..size], pace, said) };
        match record.take(&bytes[..size]).map_err(Gone::Record)? {
            Some(whole) => {
                self.told = whole.hello().client.map(|client| client.ip());
                self.record = None;
            }
            None if is_packet => return Err(Gone::Record(HelloError::Cut)),
            None => {}
        }
        Ok(())
    }

    fn cut(&mut self, bytes: &mut [u8], pace: &mut Pace, said: &mut Vec<Message>) -> Result<(), Gone> {
        let mut at = 0;
        while at < bytes.len() {
            if !pace.has_room() {
                self.left = bytes[at..].to_vec();
                break;
            }
            match self.framing.next(bytes, &mut at) {
                Ok(Some(message)) => {
                    pace.spend(message.payload.len());
                    said.push(message);
                }
                Ok(None) => {}
                Err(Cut::Closed(last)) => return Err(self.end(&last, Gone::Left)),
                Err(Cut::Frame(error, last)) => return Err(self.end(&last, Gone::Frame(error))),
                Err(Cut::Line) => return Err(Gone::Line),
            }
        }
        Ok(())
    }

    /// Says a last word, where nothing waits before it.
    fn end(&mut self, last: &[u8], why: Gone) -> Gone {
        if self.queue.is_empty() {
            // Who does not take it goes without.
            let _ = send(self.socket.as_raw_fd(), last, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
        }
        why
    }

    fn send(&mut self, parcel: &Parcel) -> Result<(), Gone> {
        if self.is_deaf {
            return Ok(());
        }
        if self.queue_size > QUEUE_SIZE_MAX {
            return Err(Gone::Slow);
        }
        self.queue_size += parcel.bytes.len() + ENTRY_SIZE;
        self.queue.push_back(Rc::clone(&parcel.bytes));
        if self.queue.len() == 1 { self.flush() } else { Ok(()) }
    }

    /// One send for each message, since that is what keeps them apart where nothing marks them.
    fn flush(&mut self) -> Result<(), Gone> {
        while let Some(first) = self.queue.front() {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.socket.as_raw_fd(), &first[self.sent_size..], flags) {
                Ok(size) => self.sent_size += size,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.is_deaf = true;
                    self.queue.clear();
                    return Ok(());
                }
                Err(errno) => return Err(Gone::Broken(errno)),
            }
            if self.sent_size == first.len() {
                self.queue_size -= first.len() + ENTRY_SIZE;
                self.sent_size = 0;
                self.queue.pop_front();
            }
        }
        Ok(())
    }

    /// What the record said; without one, what the socket says, which libwebsocket.so may have put there.
    fn address(&self) -> Option<IpAddr> {
        self.told.or_else(|| {
            let peer: SockaddrStorage = getpeername(self.socket.as_raw_fd()).ok()?;
            match peer.family()? {
                AddressFamily::Inet => Some(peer.as_sockaddr_in()?.ip().into()),
                AddressFamily::Inet6 => Some(peer.as_sockaddr_in6()?.ip().into()),
                _ => None,
            }
        })
    }
}
