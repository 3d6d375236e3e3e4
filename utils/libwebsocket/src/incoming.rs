//! The receiving side of one client, without I/O: decodes frames in the server's buffer and moves the payload to its
//! front.
#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::ops::Range;

use nix::errno::Errno;
use rfc6455::close::CloseCode;
use rfc6455::decoder::{Decoder, Piece, Rules};
use rfc6455::header::{Masking, ProtocolError};
use server::tls::Notice;

/// Why no more payload follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A close frame with this code.
    Closed(Option<CloseCode>),
    /// A protocol error.
    Broke(ProtocolError),
    /// A TLS record that is no payload.
    Notice(Notice),
}

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Payload, after this many bytes of headers and control frames.
    Payload(usize),
    /// This many bytes of headers and control frames, without payload.
    Nothing(usize),
    /// A close frame or a protocol error, or one was received before.
    End,
}

/// The decoder's state. No payload is held back, so that select(2), poll(2) and epoll(7) can be correct.
#[derive(Clone, Default, Debug)]
pub(crate) struct Incoming {
    decoder: Decoder,
    ping: Option<Box<[u8]>>,
    end: Option<End>,
    /// An error that the next read returns once, like SO_ERROR: ECONNRESET after a protocol error, or the error of a
    /// call that had bytes to return.
    pub(crate) error: Option<Errno>,
}

impl Incoming {
    /// Why no more payload follows; None: more may follow.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The payload of the last ping, if it was not answered yet.
    pub(crate) fn take_ping(&mut self) -> Option<Box<[u8]>> {
        self.ping.take()
    }

    /// Notes that this TLS record was received. An alert is a reset of the connection.
    pub(crate) fn note(&mut self, notice: Notice) {
        self.end = Some(End::Notice(notice));
        self.error = (notice == Notice::Broken).then_some(Errno::ECONNRESET);
    }

    /// Decodes the first `size` bytes of `parts` in place. Returns the number of payload bytes, which are moved to the
    /// front.
    pub(crate) fn decode(&mut self, parts: &mut [IoSliceMut<'_>], mut size: usize) -> usize {
        let mut filled = Cursor::default();
        for index in 0..parts.len() {
            let (end, mut at) = (size.min(parts[index].len()), 0);
            size -= end;
            while let Some(range) = self.next(&mut parts[index], &mut at, end) {
                filled.fill(parts, index, range);
            }
        }
        filled.size
    }

    /// Decodes bytes that were received with MSG_PEEK. Changes the bytes, but not the decoder.
    pub(crate) fn look(&self, bytes: &mut [u8]) -> Next {
        if self.end.is_some() {
            return Next::End;
        }
        let (mut copy, mut at, end) = (self.clone(), 0, bytes.len());
        while let Some(range) = copy.next(bytes, &mut at, end) {
            if !range.is_empty() {
                return Next::Payload(range.start);
            }
        }
        if copy.end.is_some() { Next::End } else { Next::Nothing(end) }
    }

    /// The next piece of payload; handles headers and control frames before it.
    fn next(&mut self, buffer: &mut [u8], at: &mut usize, end: usize) -> Option<Range<usize>> {
        while self.end.is_none() {
            match self.decoder.next(&Rules::unlimited(Masking::Required), buffer, at, end) {
                Ok(Some(Piece::Data(data))) => return Some(data.range),
                Ok(Some(Piece::Ping(payload))) => self.ping = Some(payload),
                Ok(Some(Piece::Pong)) => {}
                Ok(Some(Piece::Close(code, _))) => self.end = Some(End::Closed(code)),
                Ok(None) => return None,
                Err(error) => (self.end, self.error) = (Some(End::Broke(error)), Some(Errno::ECONNRESET)),
            }
        }
        None
    }
}

/// Where the next payload byte is moved to: at or before its own position.
#[derive(Default)]
struct Cursor {
    part: usize,
    at: usize,
    size: usize,
}

impl Cursor {
    fn fill(&mut self, parts: &mut [IoSliceMut<'_>], from: usize, mut range: Range<usize>) {
        self.size += range.len();
        while !range.is_empty() {
            if self.at == parts[self.part].len() {
                (self.part, self.at) = (self.part + 1, 0);
                continue;
            }
            let size = range.len().min(parts[self.part].len() - self.at);
            let moved = range.start..range.start + size;
            if self.part == from {
                if self.at != moved.start {
                    parts[from].copy_within(moved, self.at);
                }
            } else {
                let (before, behind) = parts.split_at_mut(from);
                before[self.part][self.at..self.at + size].copy_from_slice(&behind[0][moved]);
            }
            self.at += size;
            range.start += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use rfc6455::header::Opcode;

    use super::*;
    use crate::conversation::Conversation;

    /// A name, a client's bytes, the payload in them, the last ping's payload, and the end.
    type Golden = (&'static str, Vec<u8>, Vec<u8>, Option<&'static [u8]>, Option<End>);

    fn golden() -> Vec<Golden> {
        let (text, binary) = (0x80 | Opcode::Text as u8, 0x80 | Opcode::Binary as u8);
        let long = vec![b'x'; 300];
        let huge = vec![7; 70_000];
        let frame = Conversation::frame;
        let closed = Some(End::Closed(Some(CloseCode(1000))));
        vec![
            ("a text", frame(text, b"Hello"), b"Hello".to_vec(), None, None),
            ("two binaries", [frame(binary, b"\0\x01"), frame(binary, b"\x02")].concat(), vec![0, 1, 2], None, None),
            (
                "an empty one between",
                [frame(text, b"a"), frame(text, b""), frame(text, b"b")].concat(),
                b"ab".to_vec(),
                None,
                None,
            ),
            ("16 bits of length", frame(binary, &long), long.clone(), None, None),
            ("64 bits of length, cut off", frame(binary, &huge)[..214].to_vec(), huge[..200].to_vec(), None, None),
            (
                "fragments with a ping and a pong between",
                [
                    frame(0x01, b"fr\xc3"),
                    frame(0x89, b"ping"),
                    frame(0x00, b"\xa4g"),
                    frame(0x8a, b"pong"),
                    frame(0x80, b"!"),
                ]
                .concat(),
                b"fr\xc3\xa4g!".to_vec(),
                Some(b"ping"),
                None,
            ),
            ("pings alone", [frame(0x89, b"1"), frame(0x89, b"22")].concat(), vec![], Some(b"22"), None),
            (
                "a close",
                [frame(text, b"bye"), frame(0x88, b"\x03\xe8ok"), frame(text, b"late")].concat(),
                b"bye".to_vec(),
                None,
                closed,
            ),
            ("a close without a code", frame(0x88, b""), vec![], None, Some(End::Closed(None))),
            (
                "no mask",
                [frame(text, b"a"), vec![0x81, 1, b'b']].concat(),
                b"a".to_vec(),
                None,
                Some(End::Broke(ProtocolError::Unmasked)),
            ),
            (
                "a text that turns bad",
                [frame(0x01, b"good \xe4"), frame(0x80, b"\xb8\xff and more")].concat(),
                b"good \xe4\xb8".to_vec(),
                None,
                Some(End::Broke(ProtocolError::InvalidUtf8)),
            ),
            ("no UTF-8", frame(text, b"\xff"), vec![], None, Some(End::Broke(ProtocolError::InvalidUtf8))),
            (
                "a length of 64 bits",
                vec![binary, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
                vec![],
                None,
                Some(End::Broke(ProtocolError::LengthTopBit)),
            ),
        ]
    }

    /// As a server that reads `read_size` bytes at once, after `cut` others.
    fn read(bytes: &[u8], cut: usize, read_size: usize, parts_of: usize) -> (Vec<u8>, Incoming) {
        let (mut incoming, mut came) = (Incoming::default(), Vec::new());
        let (before, behind) = bytes.split_at(cut);
        for piece in before.chunks(read_size).chain(behind.chunks(read_size)) {
            let mut buffer = piece.to_vec();
            let mut parts: Vec<_> = buffer.chunks_mut(parts_of).map(IoSliceMut::new).collect();
            let size = incoming.decode(&mut parts, piece.len());
            came.extend_from_slice(&buffer[..size]);
        }
        (came, incoming)
    }

    #[test]
    fn cut_anywhere_and_read_by_any_length_the_bytes_are_the_same() {
        for (name, bytes, payload, ping, end) in golden() {
            for cut in 0..=bytes.len() {
                for read_size in (1..=bytes.len()).filter(|size| *size < 24 || cut % 16 == 0) {
                    for parts_of in [1, 3, usize::MAX] {
                        let (came, mut incoming) = read(&bytes, cut, read_size, parts_of);
                        let place = format!("{name}, cut at {cut}, read by {read_size}, parts of {parts_of}");
                        assert_eq!(came, payload, "{place}");
                        assert_eq!(incoming.end(), end, "{place}");
                        assert_eq!(incoming.take_ping().as_deref(), ping, "{place}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_look_finds_the_first_byte_of_payload_and_changes_nothing() {
        for (name, bytes, payload, _, end) in golden() {
            for cut in 0..bytes.len() {
                let (before, mut incoming) = read(&bytes[..cut], 0, 7, usize::MAX);
                let mut copy = bytes[cut..].to_vec();
                match incoming.look(&mut copy) {
                    Next::Payload(skipped) => {
                        let mut rest = bytes[cut..].to_vec();
                        assert_eq!(incoming.decode(&mut [IoSliceMut::new(&mut rest[..skipped])], skipped), 0, "{name}");
                        assert_eq!(incoming.decode(&mut [IoSliceMut::new(&mut rest[skipped..=skipped])], 1), 1);
                        assert_eq!(rest[skipped], payload[before.len()], "{name}, cut at {cut}");
                    }
                    Next::Nothing(size) => {
                        assert_eq!((size, before.len()), (bytes.len() - cut, payload.len()), "{name}, cut at {cut}");
                        assert_eq!(end, None);
                    }
                    Next::End => assert!(end.is_some(), "{name}, cut at {cut}"),
                }
            }
        }
    }
}
