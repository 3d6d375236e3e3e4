//! WebSocket frames (RFC 6455 section 5): writing headers, masking, incremental reading.

use std::ops::Range;

/// A continuation of the current message.
pub const CONTINUATION: u8 = 0;
/// A binary message.
pub const BINARY: u8 = 2;
/// The close frame.
pub const CLOSE: u8 = 8;
/// A ping, to be answered.
pub const PING: u8 = 9;
/// The answer to a ping.
pub const PONG: u8 = 10;

const HEADER_SIZE_MAX: usize = 14;

/// A frame's header.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Header {
    /// FIN: the message ends with this frame.
    pub fin: bool,
    /// The opcode, not validated.
    pub opcode: u8,
    /// The masking key; None: the payload is not masked.
    pub mask: Option<[u8; 4]>,
    /// The payload's length.
    pub length: u64,
}

impl Header {
    /// The header of an unfragmented frame.
    pub fn whole(opcode: u8, mask: Option<[u8; 4]>, length: usize) -> Header {
        Header { fin: true, opcode, mask, length: length as u64 }
    }

    /// Whether this is a close, ping or pong.
    pub fn is_control(&self) -> bool {
        self.opcode >= 8
    }

    /// Appends the encoded header.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | self.opcode);
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.length {
            0..=125 => out.push(masked | self.length as u8),
            126..=0xffff => {
                out.push(masked | 126);
                out.extend_from_slice(&(self.length as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend_from_slice(&self.length.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Masks or unmasks bytes at `offset` of their frame's payload.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let mut key = key;
    key.rotate_left((offset % 4) as usize);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A result of [`Decoder`].
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// A complete header; payload pieces follow unless its length is 0.
    Header(Header),
    /// A part of the payload.
    Payload {
        /// Its range in the input.
        range: Range<usize>,
        /// Its offset in the frame's payload.
        offset: u64,
        /// The frame's payload ends with it.
        last: bool,
    },
}

/// Finds headers and payloads in a stream that is split at any position. Stores no payload.
#[derive(Default)]
pub struct Decoder {
    head: [u8; HEADER_SIZE_MAX],
    have: usize,
    offset: u64,
    left: u64,
}

impl Decoder {
    /// The next piece of `input` from `at`, which is advanced; None when the input is consumed.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Option<Piece> {
        if self.left > 0 {
            return self.payload(input, at);
        }
        while self.have < self.head_size() {
            let wanted = self.head_size() - self.have;
            let part = &input[*at..input.len().min(*at + wanted)];
            if part.is_empty() {
                return None;
            }
            self.head[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            *at += part.len();
        }
        self.have = 0;
        let header = self.header();
        self.offset = 0;
        self.left = header.length;
        Some(Piece::Header(header))
    }

    fn payload(&mut self, input: &[u8], at: &mut usize) -> Option<Piece> {
        let size = self.left.min((input.len() - *at) as u64);
        if size == 0 {
            return None;
        }
        let range = *at..*at + size as usize;
        let offset = self.offset;
        *at = range.end;
        self.offset += size;
        self.left -= size;
        let last = self.left == 0;
        Some(Piece::Payload { range, offset, last })
    }

    fn head_size(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        2 + self.length_size() + if self.head[1] & 0x80 != 0 { 4 } else { 0 }
    }

    fn length_size(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn header(&self) -> Header {
        let length_size = self.length_size();
        let length = match length_size {
            0 => u64::from(self.head[1] & 0x7f),
            _ => self.head[2..2 + length_size].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let key = &self.head[2 + length_size..][..4];
        Header {
            fin: self.head[0] & 0x80 != 0,
            // The reserved bits stay in the opcode, so that no known opcode matches.
            opcode: self.head[0] & 0x7f,
            mask: (self.head[1] & 0x80 != 0).then(|| [key[0], key[1], key[2], key[3]]),
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All headers and payload bytes, fed in pieces of `step`.
    fn decode(input: &[u8], step: usize) -> (Vec<Header>, Vec<u8>) {
        let (mut headers, mut bytes) = (Vec::new(), Vec::new());
        let mut decoder = Decoder::default();
        for part in input.chunks(step) {
            let mut at = 0;
            while let Some(piece) = decoder.next(part, &mut at) {
                match piece {
                    Piece::Header(header) => headers.push(header),
                    Piece::Payload { range, .. } => bytes.extend_from_slice(&part[range]),
                }
            }
            assert_eq!(at, part.len());
        }
        (headers, bytes)
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        let mut wanted = (Vec::new(), Vec::new());
        for length in [0usize, 1, 125, 126, 127, 65535, 65536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let header = Header::whole(BINARY, mask, length);
                let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
                header.append(&mut wire);
                wire.extend_from_slice(&payload);
                wanted.0.push(header);
                wanted.1.extend_from_slice(&payload);
            }
        }
        for step in [1, 2, 3, 7, 64, 4096, wire.len()] {
            assert!(decode(&wire, step) == wanted, "in steps of {step}");
        }
    }

    #[test]
    fn masks_agree_with_the_naive_one() {
        let key = [0x11, 0x22, 0x44, 0x88];
        for offset in 0..5 {
            for length in 0..40 {
                let mut bytes: Vec<u8> = (0..length).collect();
                let naive: Vec<u8> = (0..length).map(|index| index ^ key[(index as usize + offset) % 4]).collect();
                apply_mask(&mut bytes, key, offset as u64);
                assert_eq!(bytes, naive);
            }
        }
    }
}
