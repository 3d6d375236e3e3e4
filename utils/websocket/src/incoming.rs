//! Assembles whole messages from a client's frames: in the receive buffer if possible, else in memory of its own.

use std::borrow::Cow;
use std::ops::Range;

use rfc6455::close::CloseCode;
use rfc6455::decoder::{Data, Decoder, Piece, Rules};
use rfc6455::header::{Masking, Opcode, ProtocolError};

/// A complete message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'b> {
    /// Text or Binary; Pong only if `Client::set_pongs_reported` was called.
    pub opcode: Opcode,
    /// Valid UTF-8 if it is a text. Borrowed from the receive buffer if one receive brought the whole message.
    pub payload: Cow<'b, [u8]>,
}

/// A message or a control frame.
#[derive(PartialEq, Debug)]
pub(crate) enum Event<'b> {
    Message(Message<'b>),
    Ping(Box<[u8]>),
    Pong,
    Close(Option<CloseCode>, Box<str>),
}

/// The receiving side of one client.
#[derive(Debug)]
pub(crate) struct Incoming {
    decoder: Decoder,
    rules: Rules,
    /// Payload of the current message from earlier receives.
    partial: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new(message_size_max: usize) -> Incoming {
        let size_max = u64::try_from(message_size_max).unwrap_or(u64::MAX);
        let rules = Rules { masking: Masking::Required, frame_size_max: size_max, message_size_max: size_max };
        Incoming { decoder: Decoder::default(), rules, partial: Vec::new() }
    }

    /// Bytes kept of the incomplete message.
    pub(crate) fn begun_size(&self) -> usize {
        self.partial.len()
    }

    /// Removes the next event from the front of `bytes`. None: `bytes` is used up; an incomplete message is kept here.
    pub(crate) fn next<'b>(&mut self, bytes: &mut &'b mut [u8]) -> Result<Option<Event<'b>>, ProtocolError> {
        let (mut at, end) = (0, bytes.len());
        // The payload of the current message in `bytes`: fragments are moved together.
        let mut held = 0..0;
        loop {
            match self.decoder.next(&self.rules, bytes, &mut at, end)? {
                Some(Piece::Data(data)) => {
                    join(bytes, &mut held, &data.range);
                    if data.last {
                        return Ok(Some(Event::Message(self.whole(bytes, at, held, &data))));
                    }
                }
                None => {
                    self.partial.extend_from_slice(&bytes[held]);
                    take_front(bytes, at);
                    return Ok(None);
                }
                Some(control) => {
                    self.partial.extend_from_slice(&bytes[held]);
                    take_front(bytes, at);
                    return Ok(Some(match control {
                        Piece::Close(code, reason) => Event::Close(code, reason),
                        Piece::Ping(payload) => Event::Ping(payload),
                        _ => Event::Pong,
                    }));
                }
            }
        }
    }

    fn whole<'b>(&mut self, bytes: &mut &'b mut [u8], at: usize, held: Range<usize>, last: &Data) -> Message<'b> {
        let front = take_front(bytes, at);
        let payload = if self.partial.is_empty() {
            Cow::Borrowed(&front[held])
        } else {
            self.partial.extend_from_slice(&front[held]);
            Cow::Owned(std::mem::take(&mut self.partial))
        };
        Message { opcode: last.opcode, payload }
    }
}

/// Moves `piece` to the end of `held`.
fn join(bytes: &mut [u8], held: &mut Range<usize>, piece: &Range<usize>) {
    if held.start == held.end {
        *held = piece.clone();
    } else {
        bytes.copy_within(piece.clone(), held.end);
        held.end += piece.len();
    }
}

fn take_front<'b>(bytes: &mut &'b mut [u8], size: usize) -> &'b [u8] {
    let (front, rest) = std::mem::take(bytes).split_at_mut(size);
    *bytes = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doubles::frame;

    fn golden() -> Vec<u8> {
        [
            frame(0x81, b"hello"),
            frame(0x81, b""),
            frame(0x01, "Gr\u{fc}".as_bytes()),
            frame(0x00, b""),
            frame(0x89, b"ping"),
            frame(0x00, &"\u{df}e".as_bytes()[..1]),
            frame(0x80, &"\u{df}e".as_bytes()[1..]),
            frame(0x82, &[0xff; 300]),
            frame(0x8a, b"unasked"),
            frame(0x02, &[1; 200]),
            frame(0x80, &[2; 200]),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat()
    }

    fn feed(incoming: &mut Incoming, bytes: &[u8], heard: &mut Vec<String>) {
        let mut buffer = bytes.to_vec();
        let mut rest = &mut buffer[..];
        while let Some(event) = incoming.next(&mut rest).unwrap() {
            heard.push(match event {
                Event::Message(Message { opcode, payload }) => format!("{opcode:?} {payload:x?}"),
                other => format!("{other:?}"),
            });
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn every_cut_gives_the_same_messages() {
        let bytes = golden();
        let (mut whole, mut incoming) = (Vec::new(), Incoming::new(1000));
        feed(&mut incoming, &bytes, &mut whole);
        assert_eq!(whole.len(), 8, "{whole:?}");
        assert_eq!(whole[3], format!("Text {:x?}", "Gr\u{fc}\u{df}e".as_bytes()));
        for cut in 0..=bytes.len() {
            for second in [cut, cut + 1, cut + 7, bytes.len()] {
                let second = second.min(bytes.len());
                let (mut heard, mut incoming) = (Vec::new(), Incoming::new(1000));
                for piece in [&bytes[..cut], &bytes[cut..second], &bytes[second..]] {
                    feed(&mut incoming, piece, &mut heard);
                }
                assert_eq!(heard, whole, "cut at {cut} and {second}");
            }
        }
        let (mut heard, mut incoming) = (Vec::new(), Incoming::new(1000));
        bytes.iter().for_each(|byte| feed(&mut incoming, &[*byte], &mut heard));
        assert_eq!(heard, whole);
    }

    #[test]
    fn what_came_at_once_is_not_copied() {
        let mut buffer = [frame(0x81, b"one"), frame(0x01, b"tw"), frame(0x80, b"o")].concat();
        let (mut rest, mut incoming) = (&mut buffer[..], Incoming::new(1000));
        for text in ["one", "two"] {
            match incoming.next(&mut rest) {
                Ok(Some(Event::Message(Message { payload: Cow::Borrowed(payload), .. }))) => {
                    assert_eq!(payload, text.as_bytes());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn mistakes() {
        for (bytes, error) in [
            (frame(0x82, &[0; 11]), ProtocolError::TooBig { size: 11, size_max: 10 }),
            ([frame(0x02, &[0; 6]), frame(0x80, &[0; 5])].concat(), ProtocolError::TooBig { size: 11, size_max: 10 }),
            (frame(0x81, &[0xff]), ProtocolError::InvalidUtf8),
            (vec![0x81, 1, b'a'], ProtocolError::Unmasked),
            (frame(0x80, b""), ProtocolError::ContinuationWithoutStart),
        ] {
            let (mut buffer, mut incoming) = (bytes.clone(), Incoming::new(10));
            assert_eq!(incoming.next(&mut &mut buffer[..]), Err(error), "{bytes:x?}");
        }
    }
}
