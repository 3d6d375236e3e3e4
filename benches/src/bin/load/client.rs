//! One client: connect, upgrade, echo, close, with every answer checked.

use crate::Options;
use crate::connection::{Connection, Received};
use nix::sys::epoll::EpollFlags;
use rustls::HandshakeKind;
use std::collections::VecDeque;
use std::time::Instant;
use uakari_bench::Result;
use uakari_bench::frame::{self, Decoder, Header, Piece};
use uakari_bench::handshake;
use uakari_bench::pattern::{Pattern, Random};

/// The state of a client, in chronological order.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Stage {
    /// TCP connect is in progress.
    Connecting,
    /// The request is sent; waits for the 101.
    Upgrading,
    /// Messages flow.
    Open,
    /// The close frame is sent; waits for the server's close frame and end of file.
    Closing,
    /// Ended without error.
    Closed,
}

/// State shared by all clients.
pub struct Context<'a> {
    /// The command line.
    pub options: &'a Options,
    /// The contents of messages.
    pub pattern: Pattern,
    /// The generator of masks and keys.
    pub random: Random,
    /// Nanoseconds from message to answer, for the answers found in this turn.
    pub latencies: Vec<u64>,
    /// The receive time of the current bytes: one clock reading for all answers in them.
    pub now: Instant,
}

/// One client.
pub struct Client {
    /// The number of messages that it may send in total.
    pub limit: u64,
    /// The number of correct answers received.
    pub answered: u64,
    /// The current state.
    pub stage: Stage,
    /// It has been counted as settled.
    pub settled: bool,
    /// The time of connect.
    pub born: Instant,
    connection: Connection,
    id: u32,
    nonce: [u8; 16],
    decoder: Decoder,
    header: Header,
    /// A partial HTTP head, later the payload of a control frame.
    carry: Vec<u8>,
    /// An answer has begun and not ended.
    in_message: bool,
    /// The offset of the next byte in the expected answer.
    offset: usize,
    sent: u64,
    sent_at: VecDeque<Instant>,
    close_received: bool,
}

impl Client {
    /// Begins to connect a client that may send `limit` messages.
    pub fn begin(id: u32, limit: u64, context: &mut Context) -> Result<Client> {
        let nonce = [context.random.next_u64(), context.random.next_u64()];
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&nonce[0].to_le_bytes());
        bytes[8..].copy_from_slice(&nonce[1].to_le_bytes());
        Ok(Client {
            limit,
            answered: 0,
            stage: Stage::Connecting,
            settled: false,
            born: Instant::now(),
            connection: Connection::begin(context.options.address, context.options.tls.as_ref())?,
            id,
            nonce: bytes,
            decoder: Decoder::default(),
            header: Header::default(),
            carry: Vec::new(),
            in_message: false,
            offset: 0,
            sent: 0,
            sent_at: VecDeque::new(),
            close_received: false,
        })
    }

    /// The connection, for epoll.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Handles the events of epoll, then sends everything that is due in one write.
    pub fn ready(&mut self, flags: EpollFlags, buffer: &mut [u8], context: &mut Context) -> Result<()> {
        if self.stage == Stage::Connecting {
            self.connection.check_connected()?;
            self.upgrade(context)?;
        }
        let ended = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if flags.intersects(EpollFlags::EPOLLIN | ended) {
            self.receive(flags.intersects(ended), buffer, context)?;
        }
        self.send_due(context)
    }

    /// Sends messages up to the number in flight, after the bytes that are queued.
    pub fn send_due(&mut self, context: &mut Context) -> Result<()> {
        if self.stage == Stage::Open && self.sent < self.limit {
            let due = context.options.inflight - (self.sent - self.answered);
            let due = due.min(self.limit - self.sent);
            let now = Instant::now();
            for _ in 0..due {
                self.queue_message(context);
                self.sent_at.push_back(now);
            }
        }
        self.connection.flush()
    }

    /// Stops sending messages.
    pub fn stop_sending(&mut self) {
        self.limit = self.sent;
    }

    /// True if messages are unanswered.
    pub fn is_waiting(&self) -> bool {
        self.answered < self.sent
    }

    /// Begins the close handshake (raw: ends our side).
    pub fn close(&mut self, context: &mut Context) -> Result<()> {
        self.stage = Stage::Closing;
        if context.options.raw {
            return self.connection.end();
        }
        self.queue_control(frame::CLOSE, &1000u16.to_be_bytes(), context);
        self.connection.flush()
    }

    fn upgrade(&mut self, context: &mut Context) -> Result<()> {
        if context.options.handshakes {
            self.stage = Stage::Closing;
            return self.connection.end();
        }
        if context.options.raw {
            self.stage = Stage::Open;
            return Ok(());
        }
        let options = context.options;
        let request = handshake::request(&options.path, &options.host, self.nonce);
        self.connection.out.extend_from_slice(request.as_bytes());
        self.stage = Stage::Upgrading;
        Ok(())
    }

    fn queue_message(&mut self, context: &mut Context) {
        let sequence = self.sent;
        self.sent += 1;
        let out = &mut self.connection.out;
        if context.options.raw {
            context.pattern.append(self.id, sequence, out);
            return;
        }
        let key = (context.random.next_u64() as u32).to_ne_bytes();
        Header::whole(frame::BINARY, Some(key), context.options.size).append(out);
        let begin = out.len();
        context.pattern.append(self.id, sequence, out);
        rfc6455::mask::apply(&mut out[begin..], key, 0);
    }

    fn queue_control(&mut self, opcode: u8, payload: &[u8], context: &mut Context) {
        let key = (context.random.next_u64() as u32).to_ne_bytes();
        let out = &mut self.connection.out;
        Header::whole(opcode, Some(key), payload.len()).append(out);
        let begin = out.len();
        out.extend_from_slice(payload);
        rfc6455::mask::apply(&mut out[begin..], key, 0);
    }

    /// Receives until the socket is empty. epoll is edge-triggered: a short read means empty,
    /// unless an end of file may follow.
    fn receive(&mut self, until_end: bool, buffer: &mut [u8], context: &mut Context) -> Result<()> {
        loop {
            match self.connection.receive(buffer)? {
                Received::Nothing => return Ok(()),
                Received::End => return self.on_end(context),
                Received::Bytes(size, may_be_more) => {
                    context.now = Instant::now();
                    self.on_bytes(&buffer[..size], context)?;
                    if !may_be_more && !until_end {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn on_end(&mut self, context: &Context) -> Result<()> {
        let options = context.options;
        let agreed = options.raw || options.handshakes || self.close_received;
        if self.stage < Stage::Closing || !agreed {
            return self.fail("the server ended the connection");
        }
        // The first clients have no ticket yet.
        let resumes = options.resume && self.id as usize >= options.clients;
        if options.tls.is_some() && self.connection.handshake_kind() != Some(expected_kind(resumes)) {
            return self.fail(&format!("the handshake is {:?}", self.connection.handshake_kind()));
        }
        self.stage = Stage::Closed;
        Ok(())
    }

    fn on_bytes(&mut self, bytes: &[u8], context: &mut Context) -> Result<()> {
        if context.options.raw {
            self.on_raw(bytes, context)
        } else if self.stage == Stage::Upgrading {
            self.on_head(bytes, context)
        } else {
            self.on_frames(bytes, context)
        }
    }

    fn on_head(&mut self, bytes: &[u8], context: &mut Context) -> Result<()> {
        self.carry.extend_from_slice(bytes);
        let Some(size) = handshake::head_size(&self.carry) else {
            return Ok(());
        };
        let carry = std::mem::take(&mut self.carry);
        let head = String::from_utf8_lossy(&carry[..size]);
        let accept = handshake::header(&head, "sec-websocket-accept");
        if !head.starts_with("HTTP/1.1 101 ") || accept != Some(handshake::accept_of_nonce(self.nonce).as_str()) {
            return self.fail(&format!("not upgraded:\n{head}"));
        }
        self.stage = Stage::Open;
        self.on_frames(&carry[size..], context)
    }

    fn on_raw(&mut self, mut bytes: &[u8], context: &mut Context) -> Result<()> {
        while !bytes.is_empty() {
            let size = bytes.len().min(context.options.size - self.offset);
            self.on_content(&bytes[..size], context)?;
            bytes = &bytes[size..];
            if self.offset == context.options.size {
                self.on_answer(context)?;
            }
        }
        Ok(())
    }

    fn on_frames(&mut self, bytes: &[u8], context: &mut Context) -> Result<()> {
        let mut at = 0;
        while let Some(piece) = self.decoder.next(bytes, &mut at) {
            let complete = match piece {
                Piece::Header(header) => {
                    self.on_header(header)?;
                    header.length == 0
                }
                Piece::Payload { range, last, .. } => {
                    self.on_payload(&bytes[range], context)?;
                    last
                }
            };
            if complete {
                self.on_frame_end(context)?;
            }
        }
        Ok(())
    }

    fn on_header(&mut self, header: Header) -> Result<()> {
        let expected = match header.opcode {
            frame::BINARY => !self.in_message,
            frame::CONTINUATION => self.in_message,
            frame::CLOSE => self.stage == Stage::Closing,
            frame::PING | frame::PONG => true,
            _ => false,
        };
        let sound = !header.is_control() || (header.fin && header.length <= 125);
        if !expected || !sound || header.mask.is_some() || self.close_received {
            return self.fail(&format!("unexpected frame {header:?}"));
        }
        self.in_message |= !header.is_control();
        self.header = header;
        Ok(())
    }

    fn on_payload(&mut self, bytes: &[u8], context: &mut Context) -> Result<()> {
        if self.header.is_control() {
            self.carry.extend_from_slice(bytes);
            return Ok(());
        }
        if context.options.stream {
            return self.on_raw(bytes, context);
        }
        self.on_content(bytes, context)
    }

    fn on_frame_end(&mut self, context: &mut Context) -> Result<()> {
        if self.header.is_control() {
            let payload = std::mem::take(&mut self.carry);
            match self.header.opcode {
                frame::PING => self.queue_control(frame::PONG, &payload, context),
                frame::CLOSE => self.close_received = true,
                _ => {}
            }
        } else if self.header.fin {
            self.in_message = false;
            if !context.options.stream {
                self.on_answer(context)?;
            }
        }
        Ok(())
    }

    fn on_content(&mut self, bytes: &[u8], context: &Context) -> Result<()> {
        let (id, sequence) = (self.id, self.answered);
        if self.answered == self.sent {
            return self.fail("an answer to no message");
        }
        if !context.pattern.matches(id, sequence, self.offset, bytes) {
            return self.fail("wrong bytes");
        }
        self.offset += bytes.len();
        Ok(())
    }

    fn on_answer(&mut self, context: &mut Context) -> Result<()> {
        if self.offset != context.options.size {
            return self.fail("a message of the wrong length");
        }
        let Some(sent_at) = self.sent_at.pop_front() else {
            return self.fail("an answer to no message");
        };
        self.offset = 0;
        self.answered += 1;
        let latency = context.now - sent_at;
        context.latencies.push(latency.as_nanos() as u64);
        Ok(())
    }

    fn fail(&self, what: &str) -> Result<()> {
        let Client { id, stage, answered, offset, .. } = self;
        Err(format!("client {id}, {stage:?}, message {answered}, byte {offset}: {what}").into())
    }
}

fn expected_kind(resumes: bool) -> HandshakeKind {
    if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full }
}
