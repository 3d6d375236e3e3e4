//! Messages each way. Frames are decoded in place and leave from the buffer they came in.

use super::{Action, Chunk, Closing, Context, Ending, Input, Phase, Side, send_close};
use crate::limits;
use crate::route::{MessageType, Protocol};
use crate::websocket::close::CloseCode;
use crate::websocket::decoder::{Data, Decoder, Piece};
use crate::websocket::encoder;
use crate::websocket::header::{self, Masking, Opcode, ProtocolError};
use crate::websocket::utf8::{self, Tail};

/// A close frame's code and reason.
type Close = (Option<CloseCode>, Box<str>);

/// Messages each way.
#[derive(Debug)]
pub struct Relay {
    protocol: Protocol,
    message_type: MessageType,
    /// The client's frames.
    up: Decoder,
    /// The server's frames, where its protocol has them.
    down: Option<Box<Decoder>>,
    /// The bytes of a packet that is not whole yet.
    packet: Vec<u8>,
    /// A character cut by the end of the server's last read.
    cut: [u8; 3],
    cut_size: u8,
    is_backend_gone: bool,
    /// The client has said its last; its close frame is sent behind the server's last words.
    parting: Option<Parting>,
}

#[derive(Debug)]
struct Parting {
    frame: Box<[u8]>,
    ending: Ending,
}

impl Relay {
    /// A conversation at its beginning.
    pub fn new(protocol: Protocol, message_type: MessageType) -> Relay {
        let down = Decoder::new(Masking::Forbidden, limits::MESSAGE_SIZE_MAX);
        Relay {
            protocol,
            message_type,
            up: Decoder::new(Masking::Required, protocol.message_size_max()),
            down: (protocol == Protocol::Frames).then(|| Box::new(down)),
            packet: Vec::new(),
            cut: [0; 3],
            cut_size: 0,
            is_backend_gone: false,
            parting: None,
        }
    }

    /// Takes an input; Some: the conversation is over.
    pub fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Phase> {
        if self.parting.is_some() {
            return self.part(input, context);
        }
        match input {
            Input::ClientBytes(chunk) => self.client_bytes(chunk, context),
            Input::BackendBytes(chunk) => self.backend_bytes(chunk, context),
            Input::ClientEnd => Some(self.lose_client(Ending::ClientLeft, context)),
            Input::ClientFailed(errno) => Some(self.lose_client(Ending::ClientFailed(errno), context)),
            Input::BackendEnd => Some(self.backend_end(context)),
            Input::BackendFailed(errno) => {
                self.is_backend_gone = true;
                Some(self.close_client(CloseCode::INTERNAL_ERROR, Ending::ServerFailed(errno), context))
            }
            Input::Deadline => {
                self.send_cut(context);
                None
            }
            Input::Stop => Some(self.close_client(CloseCode::GOING_AWAY, Ending::Stopping, context)),
            _ => None,
        }
    }

    fn client_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Phase> {
        let mut packed = Packed::default();
        let mut at = chunk.start;
        let next = loop {
            match self.up.next(chunk.buffer, &mut at, chunk.end) {
                Ok(None) => break None,
                Ok(Some(Piece::Data(data))) => self.up_data(data, chunk.buffer, &mut packed, context),
                Ok(Some(Piece::Ping(payload))) => pong(Side::Client, &payload, context),
                Ok(Some(Piece::Pong)) => {}
                Ok(Some(Piece::Close(code, reason))) => break Some(Ok((code, reason))),
                Err(error) => break Some(Err(error)),
            }
        };
        packed.forward(Side::Backend, context);
        let (code, reason, ending) = match next? {
            Ok((code, reason)) => (code, reason, Ending::ClientClosed(code)),
            Err(error) => (Some(error.close_code()), error.to_string().into(), Ending::ClientProtocol(error)),
        };
        self.tell_backend(code, &reason, context);
        // A close is answered with its code alone; a failure with what was wrong.
        let frame = match ending {
            Ending::ClientClosed(_) => encoder::close_frame(code, ""),
            _ => encoder::close_frame(code, &reason),
        };
        self.parting = Some(Parting { frame, ending });
        context.out.push(Action::Finish(Side::Backend));
        context.deadline_in(limits::LAST_WORDS_MS);
        None
    }

    /// What the client sent before its end is still answered; then comes the close frame (RFC 6455 section 5.5.1
    /// lets it wait for messages under way).
    fn part(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Phase> {
        let is_said = match input {
            Input::ClientEnd | Input::ClientFailed(_) => {
                let ending = self.parting.take()?.ending;
                return Some(self.lose_client(ending, context));
            }
            Input::BackendBytes(chunk) => self.last_words(chunk, context),
            Input::BackendEnd | Input::BackendFailed(_) => {
                self.is_backend_gone = true;
                true
            }
            Input::Deadline | Input::Stop => true,
            _ => false,
        };
        if !is_said {
            return None;
        }
        self.send_cut(context);
        let Parting { frame, ending } = self.parting.take()?;
        context.out.push(Action::SendLast { to: Side::Client, bytes: frame });
        Some(Phase::Closing(Box::new(Closing::after_close(!self.is_backend_gone, ending, context))))
    }

    /// Passes bytes on; true: the server has closed too, or makes no sense any more.
    fn last_words(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
        if self.down.is_some() { self.down_frames(chunk, context).is_some() } else { !self.down_bytes(chunk, context) }
    }

    fn up_data(&mut self, data: Data, buffer: &mut [u8], packed: &mut Packed, context: &mut Context<'_>) {
        context.traffic.up_bytes += data.range.len() as u64;
        context.traffic.up_messages += u64::from(data.last);
        match self.protocol {
            Protocol::Stream => packed.add_payload(buffer, data),
            Protocol::Frames => packed.add_frame(buffer, data),
            Protocol::Packet => {
                self.packet.extend_from_slice(&buffer[data.range]);
                if data.last {
                    let bytes = std::mem::take(&mut self.packet).into();
                    context.out.push(Action::Send { to: Side::Backend, bytes });
                }
            }
        }
    }

    fn backend_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Phase> {
        if self.down.is_none() {
            return match self.down_bytes(chunk, context) {
                true => None,
                false => Some(self.close_client(CloseCode::INTERNAL_ERROR, Ending::ServerNotUtf8, context)),
            };
        }
        Some(match self.down_frames(chunk, context)? {
            Ok((code, reason)) => {
                send_close(code, &reason, context);
                self.close(Ending::ServerClosed(code), context)
            }
            Err(error) => self.close_client(CloseCode::INTERNAL_ERROR, Ending::ServerProtocol(error), context),
        })
    }

    /// One read is one message. False: it should be text and cannot be.
    fn down_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
        let Chunk { buffer, mut start, mut end } = chunk;
        // The cut character goes in front: the headroom has space for it and for the header.
        let cut_size = std::mem::take(&mut self.cut_size) as usize;
        start -= cut_size;
        buffer[start..start + cut_size].copy_from_slice(&self.cut[..cut_size]);
        let opcode = match (self.message_type, self.tail(&buffer[start..end])) {
            (MessageType::Binary, _) | (MessageType::Auto, Tail::Invalid) => Opcode::Binary,
            (MessageType::Text, Tail::Invalid) => return false,
            (_, Tail::Whole) => Opcode::Text,
            (_, Tail::Cut(size)) => {
                end -= size;
                self.cut[..size].copy_from_slice(&buffer[end..end + size]);
                self.cut_size = size as u8;
                if self.parting.is_none() && self.message_type == MessageType::Auto {
                    context.deadline_in(limits::CUT_CHARACTER_MS);
                }
                if start == end {
                    return true;
                }
                Opcode::Text
            }
        };
        context.traffic.down_bytes += (end - start) as u64;
        context.traffic.down_messages += 1;
        let start = header::write_before(buffer, start, true, opcode, end - start);
        context.out.push(Action::Forward { to: Side::Client, range: start..end });
        true
    }

    /// How a read ends; a packet is whole, so that a cut character in it is just invalid.
    fn tail(&self, bytes: &[u8]) -> Tail {
        if self.message_type == MessageType::Binary {
            return Tail::Whole;
        }
        match utf8::tail(bytes) {
            Tail::Cut(_) if self.protocol == Protocol::Packet => Tail::Invalid,
            tail => tail,
        }
    }

    /// The server's frames, checked; Some: its close frame or its mistake.
    fn down_frames(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Result<Close, ProtocolError>> {
        let down = self.down.as_mut()?;
        let mut packed = Packed::default();
        let mut at = chunk.start;
        let end = loop {
            match down.next(chunk.buffer, &mut at, chunk.end) {
                Ok(None) => break None,
                Ok(Some(Piece::Data(data))) => {
                    context.traffic.down_bytes += data.range.len() as u64;
                    context.traffic.down_messages += u64::from(data.last);
                    packed.add_frame(chunk.buffer, data);
                }
                Ok(Some(Piece::Ping(payload))) => pong(Side::Backend, &payload, context),
                Ok(Some(Piece::Pong)) => {}
                Ok(Some(Piece::Close(code, reason))) => break Some(Ok((code, reason))),
                Err(error) => break Some(Err(error)),
            }
        };
        packed.forward(Side::Client, context);
        end
    }

    fn backend_end(&mut self, context: &mut Context<'_>) -> Phase {
        self.is_backend_gone = true;
        if self.down.as_ref().is_some_and(|down| !down.is_between_messages()) {
            return self.close_client(CloseCode::INTERNAL_ERROR, Ending::ServerCutShort, context);
        }
        self.send_cut(context);
        self.close_client(CloseCode::NORMAL, Ending::ServerClosed(None), context)
    }

    /// A character that was cut off for good goes out as the bytes that it is.
    fn send_cut(&mut self, context: &mut Context<'_>) {
        *context.deadline_ms = None;
        let cut = &self.cut[..std::mem::take(&mut self.cut_size) as usize];
        if !cut.is_empty() {
            let size = header::size_of(cut.len());
            let mut bytes = vec![0; size];
            header::write_before(&mut bytes, size, true, Opcode::Binary, cut.len());
            bytes.extend_from_slice(cut);
            context.traffic.down_bytes += cut.len() as u64;
            context.traffic.down_messages += 1;
            context.out.push(Action::Send { to: Side::Client, bytes: bytes.into() });
        }
    }

    /// Begins the closing handshake from the server's side.
    fn close_client(&mut self, code: CloseCode, ending: Ending, context: &mut Context<'_>) -> Phase {
        let reason = match ending {
            Ending::ServerClosed(_) => String::new(),
            Ending::Stopping => "the gateway stops".to_owned(),
            _ => ending.to_string(),
        };
        send_close(Some(code), &reason, context);
        self.close(ending, context)
    }

    /// Waits for the client's close frame; its messages are read with the decoder that is in the midst of them.
    fn close(&mut self, ending: Ending, context: &mut Context<'_>) -> Phase {
        let fresh = Decoder::new(Masking::Required, 0);
        let up = std::mem::replace(&mut self.up, fresh);
        if matches!(ending, Ending::Stopping) {
            self.tell_backend(Some(CloseCode::GOING_AWAY), "", context);
        }
        Phase::Closing(Box::new(Closing::after_servers_close(up, !self.is_backend_gone, ending, context)))
    }

    fn lose_client(&mut self, ending: Ending, context: &mut Context<'_>) -> Phase {
        Phase::Closing(Box::new(Closing::without_client(ending, context)))
    }

    /// A server that speaks frames learns why the conversation is over.
    fn tell_backend(&mut self, code: Option<CloseCode>, reason: &str, context: &mut Context<'_>) {
        if self.protocol == Protocol::Frames {
            context.out.push(Action::SendLast { to: Side::Backend, bytes: encoder::close_frame(code, reason) });
        }
    }
}

fn pong(to: Side, payload: &[u8], context: &mut Context<'_>) {
    context.out.push(Action::Pong { to, bytes: encoder::control_frame(Opcode::Pong, payload) });
}

/// What one receive leaves to be sent: pieces moved together, so that all of them go out in one send. What is
/// written never outgrows what was read, since a header without a mask is shorter than one with, and the first
/// has the headroom.
#[derive(Default)]
struct Packed {
    start: usize,
    end: usize,
}

impl Packed {
    fn add_payload(&mut self, buffer: &mut [u8], data: Data) {
        if self.start == self.end {
            (self.start, self.end) = (data.range.start, data.range.end);
        } else {
            let size = data.range.len();
            buffer.copy_within(data.range, self.end);
            self.end += size;
        }
    }

    /// Every piece becomes a frame of its own, so that between receives there is always room for a control frame.
    fn add_frame(&mut self, buffer: &mut [u8], data: Data) {
        let size = data.range.len();
        let opcode = if data.first { data.opcode } else { Opcode::Continuation };
        if self.start == self.end {
            self.start = header::write_before(buffer, data.range.start, data.last, opcode, size);
            self.end = data.range.end;
        } else {
            let payload = self.end + header::size_of(size);
            debug_assert!(payload <= data.range.start);
            if payload != data.range.start {
                buffer.copy_within(data.range, payload);
            }
            header::write_before(buffer, payload, data.last, opcode, size);
            self.end = payload + size;
        }
    }

    fn forward(&self, to: Side, context: &mut Context<'_>) {
        if self.start != self.end {
            context.out.push(Action::Forward { to, range: self.start..self.end });
        }
    }
}

/// Reads on through a client's messages for its close frame.
pub fn find_close(up: &mut Decoder, chunk: &mut Chunk<'_>) -> Result<bool, ProtocolError> {
    let mut at = chunk.start;
    while let Some(piece) = up.next(chunk.buffer, &mut at, chunk.end)? {
        if matches!(piece, Piece::Close(..)) {
            return Ok(true);
        }
    }
    Ok(false)
}
