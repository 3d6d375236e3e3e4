//! One client: receives and sends whole messages, answers pings, does the closing handshake.

use std::borrow::Cow;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, c_int};
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
use crate::tls::{self, Notice};

/// A receive buffer. All clients of a thread can share one.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A buffer of `limits::RECEIVE_SIZE` bytes.
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

/// A client handed over by the gateway. Dropping it closes the connection, without a close frame unless `close` was
/// called.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    address: ClientAddress,
    hello: Box<[u8]>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Received bytes left over when a `Batch` was dropped.
    left: Box<[u8]>,
    /// The last send was partial: bytes wait for POLLOUT.
    is_full: bool,
    is_nonblocking: bool,
    /// Data messages wait to be sent, not only pongs or a close frame.
    has_gathered: bool,
    /// When waiting for the current message began; None: not waiting.
    wait_start: Option<Instant>,
    /// Consecutive receives without a byte of a message.
    idle_receives: usize,
    /// Bytes of the incomplete message after the last receive.
    begun_size: usize,
    reports_pongs: bool,
    /// A close frame or a protocol error was received; further input is dropped.
    is_over: bool,
    /// The client ended the connection by a TLS record; nothing more is read.
    is_ended: bool,
    /// shutdown(2) of the sending half was called.
    is_shut: bool,
    /// The kernel does TLS on the socket.
    is_tls: bool,
}

impl Client {
    /// A client from a hand-over. A message longer than `message_size_max` bytes is closed with 1009.
    pub fn new(handed: HandedOver, message_size_max: usize) -> Client {
        let HandedOver { socket, address, hello } = handed;
        let is_tls = tls::is_tls(socket.as_fd());
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
            is_ended: false,
            is_shut: false,
            is_tls,
        }
    }

    /// IP address and port; None: it connected to a UNIX socket of the gateway.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.ip()
    }

    /// The address as accept(2) would return it.
    pub fn raw_address(&self) -> &ClientAddress {
        &self.address
    }

    /// The hello record (peer address and request), for `parse_hello` of `utils/hello`. Empty if the gateway's `hello`
    /// is off.
    pub fn hello(&self) -> &[u8] {
        &self.hello
    }

    /// In non-blocking mode, calls return `WouldBlock` instead of waiting. O_NONBLOCK of the descriptor is not changed.
    /// A client that sends only control frames, as fast as they are received, also causes a `WouldBlock` from time to
    /// time; the next poll(2) reports the rest.
    ///
    /// In blocking mode, calls wait for a message, and for the client to read the server's messages. SO_RCVTIMEO and
    /// SO_SNDTIMEO (socket(7)) limit the wait; after that the result is `WouldBlock`. Pongs and close frames are never
    /// waited for: if they do not fit into the socket buffer, they are sent before the next message.
    pub fn set_nonblocking(&mut self, is_nonblocking: bool) {
        self.is_nonblocking = is_nonblocking;
    }

    /// Whether `receive` reports pongs, as messages with `Opcode::Pong` and no payload. By default they are dropped.
    pub fn set_pongs_reported(&mut self, reports_pongs: bool) {
        self.reports_pongs = reports_pongs;
    }

    /// Calls recv(2) once. The batch may contain several messages, or only a part of one.
    pub fn receive<'b>(&mut self, buffer: &'b mut Buffer) -> Result<Batch<'_, 'b>, Error> {
        let size = self.fill(buffer.bytes_mut())?;
        Ok(Batch { client: self, rest: &mut buffer.0[..size] })
    }

    /// Whether a dropped `Batch` left received bytes. poll(2) does not report them.
    pub fn has_buffered(&self) -> bool {
        !self.left.is_empty()
    }

    /// The first half of `receive`, for callers with their own buffer: calls recv(2) once and returns the number of
    /// bytes. `buffer` must have at least `limits::RECEIVE_SIZE` bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.has_buffered()
            && let Some(start) = buffer.get_mut(..self.left.len())
        {
            start.copy_from_slice(&std::mem::take(&mut self.left));
            return Ok(start.len());
        }
        loop {
            if self.is_ended {
                return Err(Error::Ended);
            }
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
                Err(Errno::EIO) if self.is_tls => return Err(self.end_by_notice()),
                Err(errno) => {
                    self.idle_receives = 0;
                    return Err(errno.into());
                }
            }
        }
    }

    /// The second half of `receive`: removes the next message from the front of `bytes`, which must be all bytes
    /// returned by `fill`, in order. None: `bytes` is used up, and gathered messages were sent. A caller that stops
    /// earlier must call `flush` if `has_pong`.
    pub fn take<'b>(&mut self, bytes: &mut &'b mut [u8]) -> Result<Option<Message<'b>>, Error> {
        while !self.is_over {
            match self.incoming.next(bytes) {
                // After our own close frame nothing more may be sent (RFC 6455 section 5.5.1).
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

    /// Handles control frames, and messages received after our close frame. Out of line, to keep the path of messages
    /// short.
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

    /// Receives a TLS record that is no payload, which ends the conversation.
    #[cold]
    fn end_by_notice(&mut self) -> Error {
        let socket = self.socket.as_raw_fd();
        // SAFETY: the message names memory that may be written to, and lives through the call.
        let received =
            tls::receive_notice(&mut |message| unsafe { libc::recvmsg(socket, message, libc::MSG_DONTWAIT) });
        let notice = match received {
            Ok(notice) => notice,
            Err(errno) => return errno.into(),
        };
        self.is_ended = true;
        if let Some(code) = notice.close_code() {
            self.end(Some(code), "");
        }
        if notice == Notice::Broken { Errno::ECONNRESET.into() } else { Error::Ended }
    }

    /// Sends a text or binary message, after all gathered ones. It is accepted as a whole or not at all: in
    /// non-blocking mode, bytes that do not fit into the socket buffer are kept here for `flush`. `WouldBlock`: not
    /// accepted, because too many bytes wait (`limits::KEPT_SIZE_MAX`).
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        check(opcode, payload)?;
        self.send_frame(opcode, payload)
    }

    /// Like `send`, but a short message may be kept until the next `send` or `flush`, so that several leave in one
    /// system call. `Batch::send` does this.
    pub fn gather(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        self.gather_before(opcode, payload, 0)
    }

    /// `further_size`: an estimate of the bytes that will be gathered after this message.
    fn gather_before(&mut self, opcode: Opcode, payload: &[u8], further_size: usize) -> Result<(), Error> {
        check(opcode, payload)?;
        if payload.len() > COPIED_SIZE_MAX || self.outgoing.kept_size() + payload.len() > GATHERED_SIZE_MAX {
            return self.send_frame(opcode, payload);
        }
        self.outgoing.gather(opcode, payload, further_size)?;
        self.has_gathered = true;
        Ok(())
    }

    /// Sends a ping (RFC 6455 section 5.5.2) with at most 125 bytes of payload.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() as u64 > CONTROL_PAYLOAD_SIZE_MAX {
            return Err(Error::Argument);
        }
        self.send_frame(Opcode::Ping, payload)
    }

    /// Sends a close frame after all messages; its reason is cut to 123 bytes. Does not wait: `finish` sends what
    /// remains. The conversation is over when `receive` returns `Closed` or `Ended`, which `finish` waits for; messages
    /// received until then are dropped.
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

    /// Waits at most `wait_ms` until the client ends the connection, then closes it. True: the client has ended it.
    /// close(2) on a connection with unread input sends a reset, and the client may lose our close frame; so use this
    /// after a protocol error of the client, too.
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

    /// Whether a pong is queued.
    pub fn has_pong(&self) -> bool {
        self.outgoing.has_pong()
    }

    /// Whether bytes did not fit into the socket buffer: wait for POLLOUT and call `flush`. A server that answers
    /// messages should not receive meanwhile. Gathered messages do not count.
    pub fn wants_to_write(&self) -> bool {
        self.is_full
    }

    /// Sends all queued bytes. `WouldBlock`: some are still queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.flush_or_wait(!self.is_nonblocking)
    }

    fn flush_or_wait(&mut self, waits: bool) -> Result<(), Error> {
        let mut sender = Sender::new(self.socket.as_fd(), waits, self.is_tls);
        let flushed = self.outgoing.flush(|parts| sender.send(parts));
        self.is_full = self.outgoing.wants_to_write();
        flushed?;
        self.has_gathered = false;
        if self.is_over && !self.is_shut { self.shut_down(waits) } else { Ok(()) }
    }

    /// Ends the sending half after the close frame. Out of line, to keep the path of messages short.
    #[cold]
    fn shut_down(&mut self, waits: bool) -> Result<(), Error> {
        let socket = self.socket.as_fd();
        let deadline =
            || if waits { Sender::new(socket, waits, true).deadline() } else { Deadline::at(Instant::now()) };
        // The kernel drops a TLS record that was accepted but did not fit into the socket buffer.
        if self.is_tls && !deadline().wait(socket, PollFlags::POLLOUT)? {
            self.is_full = true;
            return Err(Error::WouldBlock);
        }
        self.announce_end();
        // The client may have closed the connection already.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        Ok(())
    }

    /// Sends close_notify to a TLS client, once, without waiting.
    fn announce_end(&mut self) {
        let socket = self.socket.as_raw_fd();
        if self.is_tls && !self.is_shut {
            const FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the message names memory that is only read, and lives through the call.
            tls::send_close_notify(&mut |message| unsafe { libc::sendmsg(socket, message, FLAGS) });
        }
        self.is_shut = true;
    }

    /// Like `flush`, but bytes that remain queued are no error. Only data messages are waited for: otherwise a client
    /// that sends pings and reads no pongs would block the server.
    pub fn push(&mut self) -> Result<(), Error> {
        match self.flush_or_wait(!self.is_nonblocking && self.has_gathered) {
            Err(Error::WouldBlock) => Ok(()),
            other => other,
        }
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        let waits = !self.is_nonblocking;
        let mut sender = Sender::new(self.socket.as_fd(), waits, self.is_tls);
        // In blocking mode, bytes remain only after SO_SNDTIMEO.
        let kept_size_max = if waits && !self.is_full { usize::MAX } else { KEPT_SIZE_MAX };
        let sent = self.outgoing.send(opcode, payload, kept_size_max, |parts| sender.send(parts));
        let flushed = if waits && sent.is_ok() { self.outgoing.flush(|parts| sender.send(parts)) } else { Ok(()) };
        self.is_full = self.outgoing.wants_to_write();
        self.has_gathered &= self.is_full;
        sent?;
        match flushed {
            // The message was accepted; the rest of it is queued.
            Err(Errno::EAGAIN) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Sends a close frame and drops all further input. A send error is ignored: the connection is over anyway.
    fn end(&mut self, code: Option<CloseCode>, reason: &str) {
        self.outgoing.close(code, reason);
        self.is_over = true;
        let _ = self.push();
    }

    /// SO_RCVTIMEO limits all waits for one message together: control frames do not restart it.
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

impl Drop for Client {
    /// A TLS client is told that the stream ends, unless it ends within a conversation: then another process may go on
    /// with it.
    fn drop(&mut self) {
        if self.outgoing.is_closing() || self.is_ended {
            self.announce_end();
        }
    }
}

impl AsFd for Client {
    /// For poll(2), select(2) and epoll(7) only; do not read or write it. Remove it from an epoll set before the client
    /// is dropped: the gateway may have a duplicate of the descriptor a moment longer, and until that is closed,
    /// closing this one does not remove it from the set (epoll(7), Q6).
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

/// A socket timeout; None: no timeout.
fn duration(time: TimeVal) -> Option<Duration> {
    let seconds = Duration::from_secs(time.tv_sec().try_into().ok()?);
    let limit = seconds + Duration::from_micros(time.tv_usec().try_into().ok()?);
    (!limit.is_zero()).then_some(limit)
}

/// The sends of one call.
struct Sender<'s> {
    socket: BorrowedFd<'s>,
    waits: bool,
    is_tls: bool,
    /// End of SO_SNDTIMEO; None: the call has not waited yet.
    deadline: Option<Deadline>,
}

impl<'s> Sender<'s> {
    fn new(socket: BorrowedFd<'s>, waits: bool, is_tls: bool) -> Sender<'s> {
        Sender { socket, waits, is_tls, deadline: None }
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let mut flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            // A send that does not block may leave a part of a TLS record for later, which close(2) would drop.
            flags.set(MsgFlags::MSG_DONTWAIT, !(self.is_tls && self.waits && !self.deadline().is_over()));
            let sent = match parts {
                // send(2) is cheaper than sendmsg(2).
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

    /// False: SO_SNDTIMEO has passed.
    fn wait(&mut self) -> Result<bool, Errno> {
        let deadline = self.deadline();
        if deadline.is_over() { Ok(false) } else { deadline.wait(self.socket, PollFlags::POLLOUT) }
    }

    /// The end of SO_SNDTIMEO, which begins with the first call.
    fn deadline(&mut self) -> Deadline {
        let socket = self.socket;
        *self.deadline.get_or_insert_with(|| {
            let limit = getsockopt(&socket, sockopt::SendTimeout).map_or(None, duration);
            limit.map_or(Deadline::never(), |limit| Deadline::at(Instant::now() + limit))
        })
    }
}

/// The messages of one receive. Replies are gathered and sent together after the last message, or when the batch is
/// dropped. Messages not taken by then stay with the client for its next `receive`.
pub struct Batch<'c, 'b> {
    client: &'c mut Client,
    rest: &'b mut [u8],
}

impl<'b> Batch<'_, 'b> {
    /// The next message; None: no more, and the replies were sent. Reports `Error::Closed` and `Error::Protocol`.
    pub fn take(&mut self) -> Result<Option<Message<'b>>, Error> {
        self.client.take(&mut self.rest)
    }

    /// Gathers a reply. `WouldBlock`: not accepted, because too many bytes wait for the client to read them.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        // A reply is often as long as its request.
        self.client.gather_before(opcode, payload, self.rest.len().min(COPIED_SIZE_MAX))
    }

    /// The client whose messages these are.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }
}

impl Drop for Batch<'_, '_> {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            self.client.left = std::mem::take(&mut self.rest).to_vec().into();
        }
        // The next call reports a persistent error.
        let _ = self.client.push();
    }
}

#[cfg(test)]
mod tests;
