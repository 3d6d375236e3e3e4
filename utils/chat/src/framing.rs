//! Where a message ends and another begins, on plain connections.

use std::rc::Rc;

use server::options::Protocol;
use uakari::websocket::decoder::{Decoder, Piece};
use uakari::websocket::encoder::close_frame;
use uakari::websocket::header::{self, Masking};
use websocket::{Opcode, ProtocolError};

use crate::limits::{LINE_SIZE_MAX, MESSAGE_SIZE_MAX};

/// What a member said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Text or Binary, where that is known.
    pub opcode: Opcode,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A message as it goes to members: made once for all of them.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Text or Binary.
    pub opcode: Opcode,
    /// Its bytes, with what marks its end.
    pub bytes: Rc<[u8]>,
}

impl Parcel {
    /// As this protocol has it. Direct mode frames its messages itself, and has them as a stream does.
    pub fn new(protocol: Protocol, opcode: Opcode, payload: &[u8]) -> Parcel {
        let bytes = match protocol {
            Protocol::Stream | Protocol::Packet => payload.into(),
            Protocol::Lines => [payload, b"\n"].concat().into(),
            Protocol::Nul => [payload, b"\0"].concat().into(),
            Protocol::Frames => {
                let size = header::size_of(payload.len());
                let mut frame = vec![0; size];
                frame.extend_from_slice(payload);
                header::write_before(&mut frame, size, true, opcode, payload.len());
                frame.into()
            }
        };
        Parcel { opcode, bytes }
    }
}

/// Why there are no more messages. The bytes are a last word.
#[derive(PartialEq, Eq, Debug)]
pub enum Cut {
    /// The member closed (RFC 6455 section 5.5.1).
    Closed(Box<[u8]>),
    /// A frame is wrong, or too long.
    Frame(ProtocolError, Box<[u8]>),
    /// No end of a line, or no NUL, for `LINE_SIZE_MAX` bytes.
    Line,
}

/// Cuts the bytes of one member into messages.
#[derive(Debug)]
pub struct Framing {
    kind: Kind,
    /// What has come of a message.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    /// Each receive is a message.
    Whole,
    /// Each message ends with this byte.
    Until(u8),
    Frames(Box<Decoder>),
}

impl Framing {
    /// At the beginning of a connection.
    pub fn new(protocol: Protocol) -> Framing {
        let size_max = MESSAGE_SIZE_MAX as u64;
        let kind = match protocol {
            Protocol::Stream | Protocol::Packet => Kind::Whole,
            Protocol::Lines => Kind::Until(b'\n'),
            Protocol::Nul => Kind::Until(0),
            Protocol::Frames => Kind::Frames(Box::new(Decoder::new(Masking::Forbidden, size_max, size_max))),
        };
        Framing { kind, partial: Vec::new() }
    }

    /// The next message from `bytes[*at..]`; `at` moves behind what was consumed. None: all was, and what it began is
    /// kept here.
    pub fn next(&mut self, bytes: &mut [u8], at: &mut usize) -> Result<Option<Message>, Cut> {
        let opcode = match &mut self.kind {
            Kind::Whole => {
                self.partial.extend_from_slice(&bytes[*at..]);
                *at = bytes.len();
                Opcode::Text
            }
            Kind::Until(end) => {
                let rest = &bytes[*at..];
                let size = rest.iter().position(|byte| byte == end);
                let line = &rest[..size.unwrap_or(rest.len())];
                *at += line.len() + usize::from(size.is_some());
                if self.partial.len() + line.len() > LINE_SIZE_MAX {
                    return Err(Cut::Line);
                }
                self.partial.extend_from_slice(line);
                if size.is_none() {
                    return Ok(None);
                }
                Opcode::Text
            }
            Kind::Frames(decoder) => match next_of_frames(decoder, &mut self.partial, bytes, at)? {
                Some(opcode) => opcode,
                None => return Ok(None),
            },
        };
        Ok(Some(Message { opcode, payload: std::mem::take(&mut self.partial) }))
    }
}

/// Pings and pongs are the gateway's business.
fn next_of_frames(
    decoder: &mut Decoder,
    partial: &mut Vec<u8>,
    bytes: &mut [u8],
    at: &mut usize,
) -> Result<Option<Opcode>, Cut> {
    let wrong = |error: ProtocolError| Cut::Frame(error, close_frame(Some(error.close_code()), ""));
    while let Some(piece) = decoder.next(bytes, at, bytes.len()).map_err(wrong)? {
        match piece {
            Piece::Data(data) => {
                partial.extend_from_slice(&bytes[data.range]);
                if data.last {
                    return Ok(Some(data.opcode));
                }
            }
            Piece::Close(code, _) => return Err(Cut::Closed(close_frame(code, ""))),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of these bytes, however they are cut.
    fn messages(protocol: Protocol, bytes: &[u8]) -> Result<Vec<Message>, Cut> {
        let cut = |step: usize| {
            let (mut framing, mut found) = (Framing::new(protocol), Vec::new());
            for part in bytes.chunks(step) {
                let (mut part, mut at) = (part.to_vec(), 0);
                while at < part.len() {
                    found.extend(framing.next(&mut part, &mut at)?);
                }
            }
            Ok(found)
        };
        let whole = cut(bytes.len());
        for step in 1..bytes.len().min(200) {
            assert_eq!(cut(step), whole, "{protocol:?}, {step} at a time");
        }
        whole
    }

    #[test]
    fn marked_messages_are_found_again() {
        let texts = ["hello", "", "two words", &"long ".repeat(1000)];
        for protocol in [Protocol::Lines, Protocol::Nul, Protocol::Frames] {
            for opcode in [Opcode::Text, Opcode::Binary] {
                let sent = texts.map(|text| Parcel::new(protocol, opcode, text.as_bytes()).bytes).concat();
                let got = messages(protocol, &sent).unwrap();
                assert_eq!(
                    got.iter().map(|message| &message.payload[..]).collect::<Vec<_>>(),
                    texts.map(str::as_bytes)
                );
                let keeps_types = protocol == Protocol::Frames;
                let wanted = if keeps_types { opcode } else { Opcode::Text };
                assert!(got.iter().all(|message| message.opcode == wanted), "{protocol:?}");
            }
        }
    }

    #[test]
    fn receives_are_messages_where_nothing_marks_them() {
        for protocol in [Protocol::Stream, Protocol::Packet] {
            let (mut framing, mut at) = (Framing::new(protocol), 0);
            let got = framing.next(&mut b"one\ntwo\0".to_vec(), &mut at).unwrap().unwrap();
            assert_eq!((&got.payload[..], at), (&b"one\ntwo\0"[..], 8));
            assert_eq!(*Parcel::new(protocol, Opcode::Text, b"one\n").bytes, *b"one\n");
        }
    }

    #[test]
    fn frames_in_parts_and_their_end() {
        let parts = b"\x01\x03Gr\xc3\x8a\0\x80\x01\xbc\x88\x02\x03\xe8\x81\0";
        let (mut framing, mut bytes, mut at) = (Framing::new(Protocol::Frames), parts.to_vec(), 0);
        let text = framing.next(&mut bytes, &mut at).unwrap().unwrap();
        assert_eq!(text, Message { opcode: Opcode::Text, payload: "Gr\u{fc}".into() });
        assert_eq!(framing.next(&mut bytes, &mut at), Err(Cut::Closed(b"\x88\x02\x03\xe8"[..].into())));
        assert_eq!(messages(Protocol::Frames, b"\x88\0"), Err(Cut::Closed(b"\x88\0"[..].into())));
        let masked = messages(Protocol::Frames, b"\x81\x80");
        assert_eq!(masked, Err(Cut::Frame(ProtocolError::Masked, b"\x88\x02\x03\xea"[..].into())));
    }

    #[test]
    fn messages_have_a_largest_size() {
        let line = |size: usize| [vec![b'x'; size], b"\n".to_vec()].concat();
        let mut framing = Framing::new(Protocol::Lines);
        assert!(framing.next(&mut line(LINE_SIZE_MAX), &mut 0).unwrap().is_some());
        assert_eq!(framing.next(&mut line(LINE_SIZE_MAX + 1), &mut 0), Err(Cut::Line));
        let frame = |size: usize| Parcel::new(Protocol::Frames, Opcode::Binary, &vec![0; size]).bytes.to_vec();
        let mut framing = Framing::new(Protocol::Frames);
        assert!(framing.next(&mut frame(MESSAGE_SIZE_MAX), &mut 0).unwrap().is_some());
        let size = MESSAGE_SIZE_MAX + 1;
        let error = ProtocolError::TooBig { size: size as u64, size_max: MESSAGE_SIZE_MAX as u64 };
        let last = b"\x88\x02\x03\xf1"[..].into();
        assert_eq!(framing.next(&mut frame(size), &mut 0), Err(Cut::Frame(error, last)));
    }
}
