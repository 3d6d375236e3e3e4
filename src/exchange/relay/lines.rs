//! Messages that end with a delimiter: lines, or strings that end with a NUL. A frame header may be longer than the
//! delimiter that it replaces, so these messages are copied.

use crate::limits::{FRAMES_PER_VISIT_MAX, LINE_SIZE_MAX};
use crate::route::{MessageType, Protocol};
use rfc6455::header::{self, Opcode};

/// Why the bytes of a backend are not valid messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LineError {
    /// No delimiter within `LINE_SIZE_MAX` bytes.
    TooLong,
    /// The type is text and the message is not UTF-8.
    NotUtf8,
}

/// The delimiter of a protocol; None: the protocol has no delimiter.
pub(crate) fn delimiter(protocol: Protocol) -> Option<u8> {
    match protocol {
        Protocol::Lines => Some(b'\n'),
        Protocol::Nul => Some(0),
        Protocol::Stream | Protocol::Packet | Protocol::Frames => None,
    }
}

/// Frames of complete messages, one after another.
#[derive(Default, Debug)]
pub(crate) struct Framed {
    /// The encoded frames.
    pub(crate) bytes: Vec<u8>,
    /// Number of messages.
    pub(crate) messages: u64,
    /// Number of payload bytes.
    pub(crate) payload_size: u64,
}

impl Framed {
    /// Encodes received messages as frames; `partial` holds the incomplete message before and after the call. Returns
    /// the number of consumed bytes, which is less than the input if it has more than `FRAMES_PER_VISIT_MAX` messages.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        partial: &mut Vec<u8>,
        delimiter: u8,
        message_type: MessageType,
    ) -> Result<usize, LineError> {
        let size = bytes.len();
        let messages_max = self.messages + FRAMES_PER_VISIT_MAX as u64;
        while let Some(at) = bytes.iter().position(|byte| *byte == delimiter) {
            if self.messages == messages_max {
                return Ok(size - bytes.len());
            }
            let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
            if partial.is_empty() {
                self.add(line, delimiter, message_type)?;
            } else {
                partial.extend_from_slice(line);
                self.add(&std::mem::take(partial), delimiter, message_type)?;
            }
            bytes = rest;
        }
        partial.extend_from_slice(bytes);
        // A CR may be the first half of a CR LF.
        if end_cut(partial, delimiter).len() > LINE_SIZE_MAX { Err(LineError::TooLong) } else { Ok(size) }
    }

    /// Appends a message as a frame. A line may end with CR LF: the CR is not part of the message.
    pub(crate) fn add(&mut self, message: &[u8], delimiter: u8, message_type: MessageType) -> Result<(), LineError> {
        let message = end_cut(message, delimiter);
        if message.len() > LINE_SIZE_MAX {
            return Err(LineError::TooLong);
        }
        let is_text = message_type != MessageType::Binary && std::str::from_utf8(message).is_ok();
        if !is_text && message_type == MessageType::Text {
            return Err(LineError::NotUtf8);
        }
        let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
        let payload = self.bytes.len() + header::size_of(message.len());
        self.bytes.resize(payload, 0);
        header::write_before(&mut self.bytes, payload, true, opcode, message.len());
        self.bytes.extend_from_slice(message);
        self.messages += 1;
        self.payload_size += message.len() as u64;
        Ok(())
    }
}

/// Strips the CR of a line's CR LF.
fn end_cut(message: &[u8], delimiter: u8) -> &[u8] {
    match message {
        [line @ .., b'\r'] if delimiter == b'\n' => line,
        message => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(pieces: &[&[u8]], delimiter: u8, message_type: MessageType) -> (Vec<u8>, Vec<u8>) {
        let (mut framed, mut partial) = (Framed::default(), Vec::new());
        for piece in pieces {
            framed.take(piece, &mut partial, delimiter, message_type).unwrap();
        }
        (framed.bytes, partial)
    }

    #[test]
    fn messages_end_where_the_byte_is() {
        type Case = (&'static [u8], u8, &'static [u8], &'static [u8]);
        let cases: [Case; 5] = [
            (b"one\ntwo\nrest", b'\n', b"\x81\x03one\x81\x03two", b"rest"),
            (b"\n\n", b'\n', b"\x81\x00\x81\x00", b""),
            (b"$GPGGA,1*2\r\n", b'\n', b"\x81\x0a$GPGGA,1*2", b""),
            (b"a\r\0b\n\0", 0, b"\x81\x02a\r\x81\x02b\n", b""),
            (b"\xff\n\xc3\xa9\n", b'\n', b"\x82\x01\xff\x81\x02\xc3\xa9", b""),
        ];
        for (bytes, delimiter, frames, rest) in cases {
            for cut in 0..=bytes.len() {
                let pieces = [&bytes[..cut], &bytes[cut..]];
                let expected = (frames.to_vec(), rest.to_vec());
                assert_eq!(feed(&pieces, delimiter, MessageType::Auto), expected, "{bytes:?} cut at {cut}");
            }
        }
        assert_eq!(feed(&[b"x\n"], b'\n', MessageType::Binary).0, b"\x82\x01x");
    }

    /// One visit takes a limited number of messages; the next visit takes the rest.
    #[test]
    fn many_short_messages_are_taken_in_parts() {
        let bytes = [b'\n'; 2 * FRAMES_PER_VISIT_MAX + 1];
        let (mut at, mut messages) = (0, Vec::new());
        while at < bytes.len() {
            let mut framed = Framed::default();
            at += framed.take(&bytes[at..], &mut Vec::new(), b'\n', MessageType::Auto).unwrap();
            messages.push(framed.messages as usize);
        }
        assert_eq!(messages, [FRAMES_PER_VISIT_MAX, FRAMES_PER_VISIT_MAX, 1]);
    }

    #[test]
    fn what_is_no_message() {
        let (mut framed, mut partial) = (Framed::default(), Vec::new());
        let long = vec![b'x'; LINE_SIZE_MAX];
        assert_eq!(framed.take(&long, &mut partial, b'\n', MessageType::Auto), Ok(LINE_SIZE_MAX));
        assert_eq!(framed.take(b"\n", &mut partial, b'\n', MessageType::Auto), Ok(1));
        assert_eq!((framed.messages, framed.payload_size), (1, LINE_SIZE_MAX as u64));
        assert_eq!(framed.take(&long, &mut partial, b'\n', MessageType::Auto), Ok(LINE_SIZE_MAX));
        assert_eq!(framed.take(b"x", &mut partial, b'\n', MessageType::Auto), Err(LineError::TooLong));
        partial.clear();
        let with_cr = [&long[..], b"\r"].concat();
        assert_eq!(framed.take(&with_cr, &mut partial, b'\n', MessageType::Auto), Ok(with_cr.len()));
        assert_eq!(framed.take(b"\n", &mut partial, b'\n', MessageType::Auto), Ok(1));
        assert_eq!(framed.take(&with_cr, &mut partial, 0, MessageType::Auto), Err(LineError::TooLong));
        partial.clear();
        assert_eq!(framed.take(b"\xff\n", &mut partial, b'\n', MessageType::Text), Err(LineError::NotUtf8));
    }
}
