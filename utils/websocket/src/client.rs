//! One client: whole messages in, messages out, pings and the closing handshake by themselves.

use std::borrow::Cow;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, recv, send, sendmsg, shutdown, sockopt};
use nix::sys::time::TimeVal;
use rfc6455::close::CloseCode;
use rfc6455::header::{CONTROL_PAYLOAD_SIZE_MAX, Opcode};

use crate::deadline::Deadline;
use crate::error::Error;
use crate::handover::{ClientAddress, HandedOver};
use crate::incoming::{Event, Incoming, Message};
use crate::limits::{COPIED_SIZE_MAX, GATHERED_SIZE_MAX, IDLE_RECEIVES_MAX, KEPT_SIZE_MAX, RECEIVE_SIZE};
use crate::outgoing::Outgoing;

/// Memory for what is received, to be shared by all clients of a thread.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// One as large as a receive is at most (`limits::RECEIVE_SIZE`).
    pub fn new() -> Buffer {
        Buffer(vec![0; RECEIVE_SIZE].into())
    }

    /// The bytes, for `Client::fill` and `Client::take`.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::new()
    }
}

/// A client that the gateway has handed over. It is closed when it is dropped, without a close frame unless `close`
/// was called.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    address: ClientAddress,
    hello: Box<[u8]>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// What a batch that was dropped has left.
    left: Box<[u8]>,
    /// The kernel did not take all that it was offered.
    is_full: bool,
    is_nonblocking: bool,
    /// Messages of the server wait, and not only answers to pings or a close frame.
    has_gathered: bool,
    /// When a call first waited for the message that has not come yet.
    wait_start: Option<Instant>,
    /// So many receives brought nothing of a message, the first bytes of which have this size.
    idle_receives: usize,
    begun_size: usize,
    reports_pongs: bool,
    /// Its last word was heard; what else it sends is dropped.
    is_over: bool,
    is_shut: bool,
}

impl Client {
    /// A client of a hand-over, whose messages may have so many bytes.
    pub fn new(handed: HandedOver, message_size_max: usize) -> Client {
        let HandedOver { socket, address, hello } = handed;
        Client {
            socket,
            address,
            hello,
            incoming: Incoming::new(message_size_max),
            outgoing: Outgoing::new(),
            left: Box::default(),
            is_full: false,
            is_nonblocking: false,
            has_gathered: false,
            wait_start: None,
            idle_receives: 0,
            begun_size: 0,
            reports_pongs: false,
            is_over: false,
            is_shut: false,
        }
    }

    /// Its IP address and port; None where it came to a UNIX socket of the gateway.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.ip()
    }

    /// Its address as accept(2) would give it.
    pub fn raw_address(&self) -> &ClientAddress {
        &self.address
    }

    /// The record of who it is and what it asked for; empty where the gateway has `hello` switched off. To be read
    /// with `parse_hello` of `utils/hello`.
    pub fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// Whether calls return `WouldBlock` where they would have to wait. The descriptor itself stays as it is. A client
    /// that sends nothing but control frames, as fast as they are received, is a `WouldBlock` too from time to time; what
    /// it has sent more is told by the next poll(2).
    ///
    /// Otherwise they wait for a message to come, and for the client to take the server's messages; as long as
    /// SO_RCVTIMEO and SO_SNDTIMEO of the descriptor say (socket(7)), where they are set, and then it is a `WouldBlock`.
    /// Answers to pings and close frames are never waited for: what cannot go goes before the next message.
    pub fn set_nonblocking(&mut self, is_nonblocking: bool) {
        self.is_nonblocking = is_nonblocking;
    }

    /// Whether pongs are reported as messages with their opcode, and no payload. Unless asked for they are dropped.
    pub fn set_pongs_reported(&mut self, reports_pongs: bool) {
        self.reports_pongs = reports_pongs;
    }

    /// Receives once. What came may have several messages in it, or none that is whole.
    pub fn receive<'b>(&mut self, buffer: &'b mut Buffer) -> Result<Batch<'_, 'b>, Error> {
        let size = self.fill(buffer.bytes_mut())?;
        Ok(Batch { client: self, rest: &mut buffer.0[..size] })
    }

    /// Whether messages may be there that a dropped `Batch` has left, which no poll(2) tells of.
    pub fn has_buffered(&self) -> bool {
        !self.left.is_empty()
    }

    /// The lower half of `receive`, for those who keep what was received themselves: receives once, and says how many
    /// bytes. `buffer` is at least `limits::RECEIVE_SIZE` long.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.has_buffered()
            && let Some(start) = buffer.get_mut(..self.left.len())
        {
            start.copy_from_slice(&std::mem::take(&mut self.left));
            return Ok(start.len());
        }
        loop {
            if self.is_nonblocking && self.idle_receives == IDLE_RECEIVES_MAX {
                self.idle_receives = 0;
                return Err(Error::WouldBlock);
            }
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(Error::Ended),
                Ok(size) => {
                    self.idle_receives = IDLE_RECEIVES_MAX.min(self.idle_receives + 1);
                    if !self.is_over {
                        return Ok(size);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if !self.is_nonblocking => self.wait_for_message()?,
                Err(errno) => {
                    self.idle_receives = 0;
                    return Err(errno.into());
                }
            }
        }
    }

    /// The upper half: the next message in `bytes`, from which it is taken. None: all was taken, and what was gathered
    /// is sent. `bytes` are what `fill` brought, whole and in order. Who takes no further has to `flush`, where
    /// `has_pong` says so.
    pub fn take<'b>(&mut self, bytes: &mut &'b mut [u8]) -> Result<Option<Message<'b>>, Error> {
        while !self.is_over {
            match self.incoming.next(bytes) {
                // Behind our own close frame nothing can be answered (RFC 6455 section 1.4).
                Ok(Some(Event::Message(message))) if !self.outgoing.is_closing() => {
                    (self.idle_receives, self.wait_start) = (0, None);
                    return Ok(Some(message));
                }
                Ok(Some(event)) => {
                    if let Some(pong) = self.hear(event, bytes)? {
                        return Ok(Some(pong));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    *bytes = &mut [];
                    self.end(Some(error.close_code()), &error.to_string());
                    return Err(Error::Protocol(error));
                }
            }
        }
        *bytes = &mut [];
        if self.begun_size != self.incoming.begun_size() {
            (self.idle_receives, self.begun_size) = (0, self.incoming.begun_size());
        }
        self.push()?;
        Ok(None)
    }

    /// All but messages that can be answered; apart, so that those are taken in a few instructions.
    #[cold]
    fn hear<'b>(&mut self, event: Event<'b>, bytes: &mut &'b mut [u8]) -> Result<Option<Message<'b>>, Error> {
        match event {
            Event::Ping(payload) => self.outgoing.pong(&payload),
            Event::Pong if self.reports_pongs && !self.outgoing.is_closing() => {
                return Ok(Some(Message { opcode: Opcode::Pong, payload: Cow::Borrowed(&[]) }));
            }
            Event::Close(code, reason) => {
                *bytes = &mut [];
                self.end(code, "");
                return Err(Error::Closed { code, reason });
            }
            Event::Pong | Event::Message(_) => {}
        }
        Ok(None)
    }

    /// Sends a message, a text or a binary one, with what was gathered before it. It is taken whole: what the
    /// connection does not take at once waits here where the client does not block, and is sent by `flush`.
    /// `WouldBlock`: it was not taken, since too much is waiting.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        check(opcode, payload)?;
        self.send_frame(opcode, payload)
    }

    /// As `send`, but a message that is not long may wait for those behind it, until `flush` or `send`. `Batch::send`
    /// does it by itself.
    pub fn gather(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        self.gather_before(opcode, payload, 0)
    }

    /// `further_size`: about so many bytes may be gathered behind it.
    fn gather_before(&mut self, opcode: Opcode, payload: &[u8], further_size: usize) -> Result<(), Error> {
        check(opcode, payload)?;
        if payload.len() > COPIED_SIZE_MAX || self.outgoing.kept_size() + payload.len() > GATHERED_SIZE_MAX {
            return self.send_frame(opcode, payload);
        }
        self.outgoing.gather(opcode, payload, further_size)?;
        self.has_gathered = true;
        Ok(())
    }

    /// Asks the client for a pong (RFC 6455 section 5.5.2). The payload has 125 bytes at most.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() as u64 > CONTROL_PAYLOAD_SIZE_MAX {
            return Err(Error::Argument);
        }
        self.send_frame(Opcode::Ping, payload)
    }

    /// Sends a close frame behind all that was sent; its reason is cut at 123 bytes. It does not wait: what cannot go at
    /// once, `finish` sends. The conversation is over when
    /// `receive` says `Closed` or `Ended`; messages that still come are dropped. `finish` waits for that.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        if !code.may_be_sent() {
            return Err(Error::Argument);
        }
        self.outgoing.close(Some(code), reason);
        match self.flush_or_wait(false) {
            Err(Error::WouldBlock) => Ok(()),
            other => other,
        }
    }

    /// Waits until the client has closed too, or the connection has ended, but `wait_ms` at most, and closes. True:
    /// the client has ended it. Closing a connection whose client still sends would break it off, and the client
    /// might not hear the last words; so this is also the way to leave after an error of the client.
    pub fn finish(mut self, wait_ms: u32) -> bool {
        let deadline = Deadline::after_ms(wait_ms.into());
        let mut buffer = Buffer::new();
        self.set_nonblocking(true);
        loop {
            let fate = match self.flush() {
                Ok(()) | Err(Error::WouldBlock) => self.receive(&mut buffer).and_then(|mut batch| {
                    while batch.take()?.is_some() {}
                    Ok(())
                }),
                broken => broken,
            };
            let events = if self.wants_to_write() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            match fate {
                _ if deadline.is_over() && fate != Err(Error::Ended) => return false,
                Ok(()) | Err(Error::Closed { .. } | Error::Protocol(_)) => {}
                Err(Error::WouldBlock) if deadline.wait(self.as_fd(), events) == Ok(true) => {}
                fate => return fate == Err(Error::Ended),
            }
        }
    }

    /// Whether the answer to a ping waits for what goes with it.
    pub fn has_pong(&self) -> bool {
        self.outgoing.has_pong()
    }

    /// Whether something waits for the connection to take it: watch for POLLOUT and call `flush`. A server that answers
    /// does well not to receive meanwhile. What is only gathered does not count.
    pub fn wants_to_write(&self) -> bool {
        self.is_full
    }

    /// Sends what waits. `WouldBlock`: some of it waits still.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.flush_or_wait(!self.is_nonblocking)
    }

    fn flush_or_wait(&mut self, waits: bool) -> Result<(), Error> {
        let mut sender = Sender::new(self.socket.as_fd(), waits);
        let flushed = self.outgoing.flush(|parts| sender.send(parts));
        self.is_full = self.outgoing.wants_to_write();
        flushed?;
        self.has_gathered = false;
        if self.is_over && !self.is_shut {
            self.is_shut = true;
            // It may have gone already.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        }
        Ok(())
    }

    /// As `flush`, where it is no error that something waits still. Only messages of the server are waited for: a client
    /// that sends pings and takes no answers would keep the server from all others.
    pub fn push(&mut self) -> Result<(), Error> {
        match self.flush_or_wait(!self.is_nonblocking && self.has_gathered) {
            Err(Error::WouldBlock) => Ok(()),
            other => other,
        }
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        let waits = !self.is_nonblocking;
        let mut sender = Sender::new(self.socket.as_fd(), waits);
        // Of a server that waits something is left only where its time was over.
        let kept_size_max = if waits && !self.is_full { usize::MAX } else { KEPT_SIZE_MAX };
        let sent = self.outgoing.send(opcode, payload, kept_size_max, |parts| sender.send(parts));
        let flushed = if waits && sent.is_ok() { self.outgoing.flush(|parts| sender.send(parts)) } else { Ok(()) };
        self.is_full = self.outgoing.wants_to_write();
        self.has_gathered &= self.is_full;
        sent?;
        match flushed {
            // It was taken.
            Err(Errno::EAGAIN) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Says the last word and hears no other. That it cannot be sent matters no more.
    fn end(&mut self, code: Option<CloseCode>, reason: &str) {
        self.outgoing.close(code, reason);
        self.is_over = true;
        let _ = self.push();
    }

    /// SO_RCVTIMEO is the limit of all waits for one message: a client that sends control frames alone gets no more.
    fn wait_for_message(&mut self) -> Result<(), Error> {
        let start = *self.wait_start.get_or_insert_with(Instant::now);
        let limit = getsockopt(&self.socket, sockopt::ReceiveTimeout).map_or(None, duration);
        let deadline = limit.map_or(Deadline::never(), |limit| Deadline::at(start + limit));
        if !deadline.is_over() && deadline.wait(self.socket.as_fd(), PollFlags::POLLIN)? {
            return Ok(());
        }
        self.wait_start = None;
        Err(Error::WouldBlock)
    }
}

impl AsFd for Client {
    /// For poll(2) and the like. Reading and writing is the library's. Take it out of an epoll set before the client is
    /// dropped: the gateway may have its copy of the connection a moment longer, and as long as it has, closing alone
    /// does not end the events (epoll(7), Q6).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn check(opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
    match opcode {
        Opcode::Text if std::str::from_utf8(payload).is_err() => Err(Error::Text),
        Opcode::Text | Opcode::Binary => Ok(()),
        _ => Err(Error::Argument),
    }
}

/// A socket's limit; None: there is none.
fn duration(time: TimeVal) -> Option<Duration> {
    let seconds = Duration::from_secs(time.tv_sec().try_into().ok()?);
    let limit = seconds + Duration::from_micros(time.tv_usec().try_into().ok()?);
    (!limit.is_zero()).then_some(limit)
}

/// Sends within one call of the server's, which waits for the client or does not.
struct Sender<'s> {
    socket: BorrowedFd<'s>,
    waits: bool,
    /// When the call's time is over (SO_SNDTIMEO); None: it has not waited yet.
    deadline: Option<Deadline>,
}

impl<'s> Sender<'s> {
    fn new(socket: BorrowedFd<'s>, waits: bool) -> Sender<'s> {
        Sender { socket, waits, deadline: None }
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            let sent = match parts {
                // What was gathered: the kernel has less to look at.
                [part] => send(self.socket.as_raw_fd(), part, flags),
                parts => sendmsg::<()>(self.socket.as_raw_fd(), parts, &[], flags, None),
            };
            match sent {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.waits && self.wait()? => {}
                other => return other,
            }
        }
    }

    /// False: the time is over.
    fn wait(&mut self) -> Result<bool, Errno> {
        let socket = self.socket;
        let deadline = *self.deadline.get_or_insert_with(|| {
            let limit = getsockopt(&socket, sockopt::SendTimeout).map_or(None, duration);
            limit.map_or(Deadline::never(), |limit| Deadline::at(Instant::now() + limit))
        });
        if deadline.is_over() { Ok(false) } else { deadline.wait(socket, PollFlags::POLLOUT) }
    }
}

/// The messages of one receive. Replies are gathered, and sent together when there is no further message or the batch
/// is dropped. Messages that were not taken until then stay with the client, for its next `receive`.
pub struct Batch<'c, 'b> {
    client: &'c mut Client,
    rest: &'b mut [u8],
}

impl<'b> Batch<'_, 'b> {
    /// The next message; None: there is no other, and the replies were sent. `Error::Closed` and `Error::Protocol`
    /// come here.
    pub fn take(&mut self) -> Result<Option<Message<'b>>, Error> {
        self.client.take(&mut self.rest)
    }

    /// Replies. `WouldBlock`: the message was not taken, since the client has not taken those before.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        // Answers are often as long as what they answer.
        self.client.gather_before(opcode, payload, self.rest.len().min(COPIED_SIZE_MAX))
    }

    /// The client.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }
}

impl Drop for Batch<'_, '_> {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            self.client.left = std::mem::take(&mut self.rest).to_vec().into();
        }
        // What went wrong is told by the next call.
        let _ = self.client.push();
    }
}

#[cfg(test)]
mod tests;
