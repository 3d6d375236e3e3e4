//! The direction from the backend to the client.

use super::coalescer::Coalescer;
use super::lines::{Framed, LineError, delimiter};
use super::{Close, Pongs, Relay};
use crate::exchange::ending::Leave;
use crate::exchange::{Chunk, Context, Effect, Ending, send_close};
use crate::limits;
use crate::route::{MessageType, Protocol};
use crate::types::End;
use rfc6455::close::CloseCode;
use rfc6455::decoder::{Piece, Rules};
use rfc6455::header::{self, Masking, Opcode, ProtocolError};
use rfc6455::utf8::{self, Tail};

impl Relay {
    /// Handles bytes of the backend. Some: the relay closes.
    pub(super) fn backend_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Leave> {
        self.keepalive.on_message(context.now_ms);
        if self.protocol != Protocol::Frames {
            let ending = self.down_messages(chunk, context)?;
            return Some(self.close_client(CloseCode::INTERNAL_ERROR, ending, context));
        }
        Some(match self.down_frames(chunk, context)? {
            Ok((code, reason)) => {
                send_close(code, &reason, context);
                // A node's close frame is answered with the same code and no reason. The backends of a docroot have no
                // closing handshake.
                if self.traits.masks() {
                    self.tell_backend(code, "", context);
                }
                Leave::CloseSent(Ending::BackendClosed(code))
            }
            Err(error) => self.close_client(CloseCode::INTERNAL_ERROR, Ending::BackendProtocol(error), context),
        })
    }

    /// Relays the backend's remaining bytes during a close. True: the backend has closed too, or violated its protocol.
    pub(crate) fn last_words(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
        self.extra_mut().is_last = true;
        match self.protocol {
            Protocol::Frames => self.down_frames(chunk, context).is_some(),
            _ => self.down_messages(chunk, context).is_some(),
        }
    }

    /// Sends incomplete input when the time is over: a truncated character, and the last unterminated line of a backend
    /// that has ended. `is_cut`: that line may answer a part of a message, and is dropped.
    pub(crate) fn send_rest(&mut self, is_cut: bool, context: &mut Context<'_>) {
        self.send_cut(context);
        let rest = self.extra.as_mut().map_or_else(Vec::new, |extra| std::mem::take(&mut extra.partial));
        if let (Some(delimiter), true) = (delimiter(self.protocol), self.is_backend_gone())
            && !is_cut
            && !rest.is_empty()
        {
            let mut framed = Framed::default();
            // A line that is not valid text is dropped.
            if framed.add(&rest, delimiter, self.message_type).is_ok() {
                send_framed(framed, context);
            }
        }
    }

    /// Handles bytes of a backend that does not speak frames. Some: the bytes are not valid messages.
    fn down_messages(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Ending> {
        let Some(delimiter) = delimiter(self.protocol) else {
            return if self.down_bytes(chunk, context) { None } else { Some(Ending::BackendNotUtf8) };
        };
        let mut framed = Framed::default();
        let bytes = &chunk.buffer[chunk.start..chunk.end];
        let mut partial = self.extra.as_mut().map_or_else(Vec::new, |extra| std::mem::take(&mut extra.partial));
        let result = framed.take(bytes, &mut partial, delimiter, self.message_type);
        if !partial.is_empty() {
            self.extra_mut().partial = partial;
        }
        context.out.add_frames(framed.messages as usize);
        if let Ok(taken) = result
            && chunk.start + taken < chunk.end
        {
            context.out.push(Effect::Later { from: End::Backend, start: chunk.start + taken });
        }
        send_framed(framed, context);
        match result {
            Ok(_) => None,
            Err(LineError::NotUtf8) => Some(Ending::BackendNotUtf8),
            Err(LineError::TooLong) => Some(Ending::BackendLineTooLong),
        }
    }

    /// Sends one read as one message. False: the type is text and the bytes are not UTF-8.
    fn down_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
        let Chunk { buffer, mut start, mut end } = chunk;
        // The truncated character of the last read is placed in front: the headroom has space for it and for the
        // header.
        if let Some(extra) = &mut self.extra {
            let cut_size = std::mem::take(&mut extra.cut_size) as usize;
            start -= cut_size;
            buffer[start..start + cut_size].copy_from_slice(&extra.cut[..cut_size]);
        }
        let opcode = match (self.message_type, self.tail(&buffer[start..end])) {
            (MessageType::Binary, _) | (MessageType::Auto, Tail::Invalid) => Opcode::Binary,
            (MessageType::Text, Tail::Invalid) => return false,
            (_, Tail::Whole) => Opcode::Text,
            (_, Tail::Cut(size)) => {
                end -= size;
                let (may_wait, extra) = (self.message_type == MessageType::Auto, self.extra_mut());
                extra.cut[..size].copy_from_slice(&buffer[end..end + size]);
                extra.cut_size = size as u8;
                if may_wait && !extra.is_last {
                    extra.alarms.set_cut(Some(context.now_ms + limits::CUT_CHARACTER_MS));
                    self.set_deadline(context);
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
        context.out.push(Effect::Forward { to: End::Client, range: start..end });
        true
    }

    /// Whether a read ends within a character. A packet is complete, so a truncated character in it is invalid.
    fn tail(&self, bytes: &[u8]) -> Tail {
        if self.message_type == MessageType::Binary {
            return Tail::Whole;
        }
        match utf8::tail(bytes) {
            Tail::Cut(_) if self.protocol == Protocol::Packet => Tail::Invalid,
            tail => tail,
        }
    }

    /// Relays the backend's frames after validation. Some: its close frame or its protocol error.
    fn down_frames(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Result<Close, ProtocolError>> {
        let size_max = self.seat.limits.message_size_max;
        let rules = Rules { masking: Masking::Forbidden, frame_size_max: size_max, message_size_max: size_max };
        let mut coalescer = Coalescer::default();
        let mut pongs = Pongs::default();
        let (mut at, mut frames) = (chunk.start, 0);
        let (mut bytes, mut messages) = (0, 0);
        let end = loop {
            if frames == limits::FRAMES_PER_VISIT_MAX && at < chunk.end {
                context.out.push(Effect::Later { from: End::Backend, start: at });
                break None;
            }
            frames += 1;
            match self.down.next(&rules, chunk.buffer, &mut at, chunk.end) {
                Ok(None) => break None,
                Ok(Some(Piece::Data(data))) => {
                    (bytes, messages) = (bytes + data.range.len() as u64, messages + u64::from(data.last));
                    coalescer.add_frame(chunk.buffer, data, None);
                }
                // No frame follows the close frame to a node (RFC 6455 section 5.5.1).
                Ok(Some(Piece::Ping(payload))) if self.traits.takes_messages() && !self.is_node_told() => {
                    pongs.answer(End::Backend, payload, self.traits.masks(), context);
                }
                Ok(Some(Piece::Ping(_) | Piece::Pong)) => {}
                Ok(Some(Piece::Close(code, reason))) => break Some(Ok((code, reason))),
                Err(error) => break Some(Err(error)),
            }
        };
        context.traffic.down_bytes += bytes;
        context.traffic.down_messages += messages;
        context.out.add_frames(frames);
        pongs.end(End::Backend, self.traits.masks(), context);
        coalescer.forward(End::Client, context);
        end
    }

    /// Sends a truncated character, which will not be completed, as a binary message.
    pub(super) fn send_cut(&mut self, context: &mut Context<'_>) {
        let Some(extra) = &mut self.extra else { return };
        extra.alarms.set_cut(None);
        let cut = &extra.cut[..std::mem::take(&mut extra.cut_size) as usize];
        if !cut.is_empty() {
            let size = header::size_of(cut.len());
            let mut bytes = vec![0; size];
            header::write_before(&mut bytes, size, true, Opcode::Binary, cut.len());
            bytes.extend_from_slice(cut);
            context.traffic.down_bytes += cut.len() as u64;
            context.traffic.down_messages += 1;
            context.out.push(Effect::Send { to: End::Client, bytes: bytes.into() });
        }
    }
}

fn send_framed(framed: Framed, context: &mut Context<'_>) {
    context.traffic.down_bytes += framed.payload_size;
    context.traffic.down_messages += framed.messages;
    if !framed.bytes.is_empty() {
        context.out.push(Effect::Send { to: End::Client, bytes: framed.bytes.into() });
    }
}
