//! The decoder: frames to pieces of messages, unmasked in place and validated, without buffering (RFC 6455 sections 5
//! and 8).

use std::ops::Range;

use crate::close::{self, CloseCode};
use crate::header::{self, HEADER_SIZE_MAX, Header, Masking, Opcode, ProtocolError};
use crate::mask;
use crate::utf8::Validator;

/// What was decoded.
#[derive(PartialEq, Eq, Debug)]
pub enum Piece {
    /// A piece of a data message.
    Data(Data),
    /// A ping with its payload.
    Ping(Box<[u8]>),
    /// A pong. Its payload is dropped.
    Pong,
    /// A close frame: code (None: none) and reason.
    Close(Option<CloseCode>, Box<str>),
}

/// A piece of a data message.
#[derive(PartialEq, Eq, Debug, Clone)]
pub struct Data {
    /// The unmasked bytes in the caller's buffer; may be empty.
    pub range: Range<usize>,
    /// Text or Binary: the type of the message.
    pub opcode: Opcode,
    /// The first piece of its message.
    pub first: bool,
    /// The last piece of its message.
    pub last: bool,
    /// In the last piece of a frame without FIN: the payload size of that frame.
    pub fragment_size: Option<u64>,
}

/// What a decoder accepts. The caller keeps it, so that many connections share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Whether frames must be masked (RFC 6455 section 5.1).
    pub masking: Masking,
    /// Maximum payload of a frame, in bytes.
    pub frame_size_max: u64,
    /// Maximum payload of a message, in bytes.
    pub message_size_max: u64,
}

impl Rules {
    /// Accepts any size.
    pub const fn unlimited(masking: Masking) -> Rules {
        Rules { masking, frame_size_max: u64::MAX, message_size_max: u64::MAX }
    }
}

/// The decoder of one direction of a connection. It keeps an incomplete header (at most 14 bytes), the payload of an
/// incomplete control frame, and no data. Between messages it is a null pointer.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    /// None: between messages.
    amid: Option<Box<Amid>>,
}

/// The state within a header, a frame or a message.
#[derive(Debug, Clone, Default)]
struct Amid {
    /// The first bytes of an incomplete header.
    partial: [u8; HEADER_SIZE_MAX],
    partial_size: u8,
    /// The current frame, and the payload bytes of it that were decoded.
    frame: Option<(Header, u64)>,
    /// The current data message.
    message: Option<Message>,
    utf8: Validator,
    /// The valid start of an invalid text was returned; the next call returns the error.
    is_invalid: bool,
    control: Vec<u8>,
}

impl Amid {
    fn is_nothing(&self) -> bool {
        self.partial_size == 0 && self.frame.is_none() && self.message.is_none()
    }
}

#[derive(Debug, Clone, Copy)]
struct Message {
    opcode: Opcode,
    size: u64,
    started: bool,
}

impl Decoder {
    /// Whether the stream may end here: between messages.
    pub fn is_between_messages(&self) -> bool {
        self.amid.is_none()
    }

    /// Whether a piece of a message was returned, and its last one was not.
    pub fn is_amid_message(&self) -> bool {
        self.amid.as_ref().and_then(|amid| amid.message).is_some_and(|message| message.started)
    }

    /// The next piece of `buffer[*at..end]`; advances `at` past the consumed bytes. None: all were consumed.
    ///
    /// The payload before an error is returned before the error, however the input was split; of a text, its bytes
    /// before the first invalid one. After an error the decoder must not be used again. `rules` are the same in each
    /// call.
    pub fn next(
        &mut self,
        rules: &Rules,
        buffer: &mut [u8],
        at: &mut usize,
        end: usize,
    ) -> Result<Option<Piece>, ProtocolError> {
        if self.amid.is_none()
            && let Some(data) = whole_message(rules, buffer, at, end)
        {
            return Ok(Some(Piece::Data(data)));
        }
        if self.amid.as_ref().is_some_and(|amid| amid.is_invalid) {
            return Err(ProtocolError::InvalidUtf8);
        }
        if *at == end {
            return Ok(None);
        }
        self.any_piece(rules, buffer, at, end)
    }

    /// The general case. Out of line, so that the fast path saves no registers for it.
    #[inline(never)]
    fn any_piece(
        &mut self,
        rules: &Rules,
        buffer: &mut [u8],
        at: &mut usize,
        end: usize,
    ) -> Result<Option<Piece>, ProtocolError> {
        let mut amid = self.amid.take().map_or_else(Amid::default, |amid| *amid);
        let piece = amid.piece(rules, buffer, at, end);
        self.amid = (!amid.is_nothing()).then(|| Box::new(amid));
        piece
    }
}

/// The fast path: a short, complete message in one frame. Anything else, and any error, is left unchanged for
/// `any_piece`.
fn whole_message(rules: &Rules, buffer: &mut [u8], at: &mut usize, end: usize) -> Option<Data> {
    let (header_size, mask_bit) = match rules.masking {
        Masking::Required => (6, 0x80),
        Masking::Forbidden => (2, 0),
    };
    let bytes = buffer.get_mut(*at..end)?;
    let (opcode, length) = match *bytes {
        [0x81, second, ..] => (Opcode::Text, second ^ mask_bit),
        [0x82, second, ..] => (Opcode::Binary, second ^ mask_bit),
        _ => return None,
    };
    let frame = bytes.get_mut(..header_size + length as usize)?;
    if u64::from(length) > header::CONTROL_PAYLOAD_SIZE_MAX.min(rules.message_size_max).min(rules.frame_size_max) {
        return None;
    }
    let (header, payload) = frame.split_at_mut(header_size);
    let key = header.last_chunk::<4>().copied().filter(|_| rules.masking == Masking::Required);
    if let Some(key) = key {
        mask::apply(payload, key, 0);
    }
    if opcode == Opcode::Text && std::str::from_utf8(payload).is_err() {
        if let Some(key) = key {
            mask::apply(payload, key, 0);
        }
        return None;
    }
    let start = *at + header_size;
    *at = start + length as usize;
    Some(Data { range: start..*at, opcode, first: true, last: true, fragment_size: None })
}

impl Amid {
    fn piece(
        &mut self,
        rules: &Rules,
        buffer: &mut [u8],
        at: &mut usize,
        end: usize,
    ) -> Result<Option<Piece>, ProtocolError> {
        loop {
            let Some((header, done)) = self.frame else {
                if *at == end || !self.read_header(rules, buffer, at, end)? {
                    return Ok(None);
                }
                continue;
            };
            let take = (header.length - done).min((end - *at) as u64) as usize;
            if take == 0 && done < header.length {
                return Ok(None);
            }
            let range = *at..*at + take;
            *at += take;
            if let Some(key) = header.key {
                mask::apply(&mut buffer[range.clone()], key, done);
            }
            let whole = done + take as u64 == header.length;
            self.frame = if whole { None } else { Some((header, done + take as u64)) };
            if header.opcode.is_control() {
                if let Some(piece) = self.control_piece(header.opcode, &buffer[range], whole)? {
                    return Ok(Some(piece));
                }
            } else {
                let fragment_size = (whole && !header.fin).then_some(header.length);
                return self.data_piece(buffer, range, whole && header.fin, fragment_size).map(Some);
            }
        }
    }

    /// Reads a header, which may have begun in an earlier buffer. False: still incomplete.
    fn read_header(&mut self, rules: &Rules, buffer: &[u8], at: &mut usize, end: usize) -> Result<bool, ProtocolError> {
        let kept = self.partial_size as usize;
        let parsed = if kept == 0 {
            header::parse(&buffer[*at..end], rules.masking)?
        } else {
            let take = (HEADER_SIZE_MAX - kept).min(end - *at);
            self.partial[kept..kept + take].copy_from_slice(&buffer[*at..*at + take]);
            header::parse(&self.partial[..kept + take], rules.masking)?
        };
        let Some((header, size)) = parsed else {
            if kept == 0 {
                self.partial[..end - *at].copy_from_slice(&buffer[*at..end]);
            }
            self.partial_size = (kept + end - *at) as u8;
            *at = end;
            return Ok(false);
        };
        self.partial_size = 0;
        *at += size - kept;
        self.judge(rules, &header)?;
        self.frame = Some((header, 0));
        Ok(true)
    }

    /// Checks that need no payload: the order of fragments and the size limits.
    fn judge(&mut self, rules: &Rules, header: &Header) -> Result<(), ProtocolError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let message = match (header.opcode, &mut self.message) {
            (Opcode::Continuation, None) => return Err(ProtocolError::ContinuationWithoutStart),
            (Opcode::Continuation, Some(message)) => message,
            (_, Some(_)) => return Err(ProtocolError::StartInsideMessage),
            (opcode, message) => message.insert(Message { opcode, size: 0, started: false }),
        };
        message.size = message.size.saturating_add(header.length);
        if message.size > rules.message_size_max {
            return Err(ProtocolError::TooBig { size: message.size, size_max: rules.message_size_max });
        }
        if header.length > rules.frame_size_max {
            return Err(ProtocolError::FrameTooBig { size: header.length, size_max: rules.frame_size_max });
        }
        Ok(())
    }

    fn data_piece(
        &mut self,
        buffer: &[u8],
        range: Range<usize>,
        last: bool,
        fragment_size: Option<u64>,
    ) -> Result<Piece, ProtocolError> {
        let Some(message) = &mut self.message else { return Err(ProtocolError::ContinuationWithoutStart) };
        let first = !message.started;
        let mut piece = Data { range: range.clone(), opcode: message.opcode, first, last, fragment_size };
        message.started = true;
        if piece.opcode == Opcode::Text
            && let Err(valid_size) = self.check_text(&buffer[range], last)
        {
            if valid_size == 0 {
                return Err(ProtocolError::InvalidUtf8);
            }
            self.is_invalid = true;
            (piece.range.end, piece.last) = (piece.range.start + valid_size, false);
            return Ok(Piece::Data(piece));
        }
        if last {
            self.message = None;
        }
        Ok(Piece::Data(piece))
    }

    /// Err: the number of bytes before the first invalid one.
    fn check_text(&mut self, bytes: &[u8], last: bool) -> Result<(), usize> {
        self.utf8.feed(bytes).map_err(|invalid| invalid.at)?;
        if last && self.utf8.finish().is_err() {
            // The character is incomplete: its last byte is the invalid one.
            return Err(bytes.len().saturating_sub(1));
        }
        Ok(())
    }

    fn control_piece(&mut self, opcode: Opcode, part: &[u8], whole: bool) -> Result<Option<Piece>, ProtocolError> {
        self.control.extend_from_slice(part);
        if !whole {
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.control);
        Ok(Some(match opcode {
            Opcode::Ping => Piece::Ping(payload.into()),
            Opcode::Close => match close::parse(&payload).map_err(ProtocolError::Close)? {
                Some((code, reason)) => Piece::Close(Some(code), reason.into()),
                None => Piece::Close(None, "".into()),
            },
            _ => Piece::Pong,
        }))
    }
}

#[cfg(test)]
mod tests;
