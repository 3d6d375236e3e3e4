//! Splits the bytes of a plain connection into messages, and marks messages for sending.

use std::rc::Rc;

use crate::limits::{LINE_SIZE_MAX, MESSAGE_SIZE_MAX};
use rfc6455::decoder::{Decoder, Piece, Rules};
use rfc6455::encoder::close_frame;
use rfc6455::header::{self, Masking};
use server::options::Protocol;
use websocket::{Opcode, ProtocolError};

/// A message of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    /// Text or Binary; Text where the protocol does not tell.
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// A message to members, marked as the protocol has it and shared by all of them.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) opcode: Opcode,
    /// The payload, framed or with its terminator.
    pub(crate) bytes: Rc<[u8]>,
}

impl Outgoing {
    /// In direct mode the protocol is `Stream`, and the package `websocket` frames the message.
    pub(crate) fn new(protocol: Protocol, opcode: Opcode, payload: &[u8]) -> Outgoing {
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
        Outgoing { opcode, bytes }
    }
}

/// Why there are no more messages. The bytes are a close frame to send.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A close frame arrived (RFC 6455 section 5.5.1).
    Closed(Box<[u8]>),
    /// A frame is invalid, or its message too long.
    Frame(ProtocolError, Box<[u8]>),
    /// No newline, or no NUL, within `LINE_SIZE_MAX` bytes.
    Line,
}

/// Splits the bytes of one connection into messages.
#[derive(Debug)]
pub(crate) struct Framing {
    kind: Kind,
    /// The received part of an incomplete message.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    /// Each receive is a message.
    Whole,
    /// This byte ends a message.
    Until(u8),
    Frames(Decoder),
}

/// The frames of the gateway.
const RULES: Rules = Rules {
    masking: Masking::Forbidden,
    frame_size_max: MESSAGE_SIZE_MAX as u64,
    message_size_max: MESSAGE_SIZE_MAX as u64,
};

impl Framing {
    pub(crate) fn new(protocol: Protocol) -> Framing {
        let kind = match protocol {
            Protocol::Stream | Protocol::Packet => Kind::Whole,
            Protocol::Lines => Kind::Until(b'\n'),
            Protocol::Nul => Kind::Until(0),
            Protocol::Frames => Kind::Frames(Decoder::default()),
        };
        Framing { kind, partial: Vec::new() }
    }

    /// The next message in `bytes[*at..]`; `at` is moved after the consumed bytes. None: all were consumed, and an
    /// incomplete message is stored.
    pub(crate) fn next(&mut self, bytes: &mut [u8], at: &mut usize) -> Result<Option<Message>, End> {
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
                    return Err(End::Line);
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

/// The type of the next complete message. Pings and pongs are ignored: the gateway answers them.
fn next_of_frames(
    decoder: &mut Decoder,
    partial: &mut Vec<u8>,
    bytes: &mut [u8],
    at: &mut usize,
) -> Result<Option<Opcode>, End> {
    let invalid = |error: ProtocolError| End::Frame(error, close_frame(Some(error.close_code()), ""));
    while let Some(piece) = decoder.next(&RULES, bytes, at, bytes.len()).map_err(invalid)? {
        match piece {
            Piece::Data(data) => {
                partial.extend_from_slice(&bytes[data.range]);
                if data.last {
                    return Ok(Some(data.opcode));
                }
            }
            Piece::Close(code, _) => return Err(End::Closed(close_frame(code, ""))),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages in these bytes, the same however they are split.
    fn messages(protocol: Protocol, bytes: &[u8]) -> Result<Vec<Message>, End> {
        let split = |step: usize| {
            let (mut framing, mut found) = (Framing::new(protocol), Vec::new());
            for part in bytes.chunks(step) {
                let (mut part, mut at) = (part.to_vec(), 0);
                while at < part.len() {
                    found.extend(framing.next(&mut part, &mut at)?);
                }
            }
            Ok(found)
        };
        let whole = split(bytes.len());
        for step in 1..bytes.len().min(200) {
            assert_eq!(split(step), whole, "{protocol:?}, {step} at a time");
        }
        whole
    }

    #[test]
    fn marked_messages_are_split() {
        let texts = ["hello", "", "two words", &"long ".repeat(1000)];
        for protocol in [Protocol::Lines, Protocol::Nul, Protocol::Frames] {
            for opcode in [Opcode::Text, Opcode::Binary] {
                let sent = texts.map(|text| Outgoing::new(protocol, opcode, text.as_bytes()).bytes).concat();
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
    fn unmarked_receives_are_messages() {
        for protocol in [Protocol::Stream, Protocol::Packet] {
            let (mut framing, mut at) = (Framing::new(protocol), 0);
            let got = framing.next(&mut b"one\ntwo\0".to_vec(), &mut at).unwrap().unwrap();
            assert_eq!((&got.payload[..], at), (&b"one\ntwo\0"[..], 8));
            assert_eq!(*Outgoing::new(protocol, Opcode::Text, b"one\n").bytes, *b"one\n");
        }
    }

    #[test]
    fn fragments_and_a_close_frame() {
        let parts = b"\x01\x03Gr\xc3\x8a\0\x80\x01\xbc\x88\x02\x03\xe8\x81\0";
        let (mut framing, mut bytes, mut at) = (Framing::new(Protocol::Frames), parts.to_vec(), 0);
        let text = framing.next(&mut bytes, &mut at).unwrap().unwrap();
        assert_eq!(text, Message { opcode: Opcode::Text, payload: "Gr\u{fc}".into() });
        assert_eq!(framing.next(&mut bytes, &mut at), Err(End::Closed(b"\x88\x02\x03\xe8"[..].into())));
        assert_eq!(messages(Protocol::Frames, b"\x88\0"), Err(End::Closed(b"\x88\0"[..].into())));
        let masked = messages(Protocol::Frames, b"\x81\x80");
        assert_eq!(masked, Err(End::Frame(ProtocolError::Masked, b"\x88\x02\x03\xea"[..].into())));
    }

    #[test]
    fn messages_have_a_maximum_size() {
        let line = |size: usize| [vec![b'x'; size], b"\n".to_vec()].concat();
        let mut framing = Framing::new(Protocol::Lines);
        assert!(framing.next(&mut line(LINE_SIZE_MAX), &mut 0).unwrap().is_some());
        assert_eq!(framing.next(&mut line(LINE_SIZE_MAX + 1), &mut 0), Err(End::Line));
        let frame = |size: usize| Outgoing::new(Protocol::Frames, Opcode::Binary, &vec![0; size]).bytes.to_vec();
        let mut framing = Framing::new(Protocol::Frames);
        assert!(framing.next(&mut frame(MESSAGE_SIZE_MAX), &mut 0).unwrap().is_some());
        let size = MESSAGE_SIZE_MAX + 1;
        let error = ProtocolError::TooBig { size: size as u64, size_max: MESSAGE_SIZE_MAX as u64 };
        let last = b"\x88\x02\x03\xf1"[..].into();
        assert_eq!(framing.next(&mut frame(size), &mut 0), Err(End::Frame(error, last)));
    }
}
