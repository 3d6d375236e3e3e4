//! The frame header (RFC 6455 section 5.2), and the errors that can be detected in it.

use std::fmt;

use crate::close::{CloseCode, CloseError};

/// The longest header: two bytes, a 64-bit length, a masking key.
pub const HEADER_SIZE_MAX: usize = 14;
/// The size of a masking key.
pub const KEY_SIZE: usize = 4;
/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_SIZE_MAX: u64 = 125;

/// The type of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    /// Close, ping or pong (RFC 6455 section 5.5).
    pub fn is_control(self) -> bool {
        self as u8 >= 0x8
    }

    fn from_bits(bits: u8) -> Result<Opcode, ProtocolError> {
        Ok(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(ProtocolError::ReservedOpcode(bits)),
        })
    }
}

/// Whether received frames must be masked (from a client) or must not be (from a server). RFC 6455 section 5.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Masking {
    Required,
    Forbidden,
}

/// A violation of RFC 6455 by the peer. Display is the message for the operator; `close_code` is for the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ProtocolError {
    ReservedBits,
    ReservedOpcode(u8),
    Unmasked,
    Masked,
    ControlFragmented,
    ControlTooLong,
    LengthNotShortest,
    LengthTopBit,
    ContinuationWithoutStart,
    StartInsideMessage,
    FrameTooBig { size: u64, size_max: u64 },
    TooBig { size: u64, size_max: u64 },
    InvalidUtf8,
    Close(CloseError),
}

impl ProtocolError {
    /// The code for the close frame (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::FrameTooBig { .. } | ProtocolError::TooBig { .. } => CloseCode::TOO_BIG,
            ProtocolError::InvalidUtf8 | ProtocolError::Close(CloseError::Reason) => CloseCode::INVALID_PAYLOAD,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::ReservedBits => f.write_str("a reserved bit is set and no extension was agreed"),
            ProtocolError::ReservedOpcode(bits) => write!(f, "reserved opcode {bits}"),
            ProtocolError::Unmasked => f.write_str("a client's frame is not masked"),
            ProtocolError::Masked => f.write_str("a server's frame is masked"),
            ProtocolError::ControlFragmented => f.write_str("a control frame is fragmented"),
            ProtocolError::ControlTooLong => f.write_str("a control frame is longer than 125 bytes"),
            ProtocolError::LengthNotShortest => f.write_str("a length is not in its shortest form"),
            ProtocolError::LengthTopBit => f.write_str("a length has its top bit set"),
            ProtocolError::ContinuationWithoutStart => f.write_str("a continuation without a message"),
            ProtocolError::StartInsideMessage => f.write_str("a message begins inside another"),
            ProtocolError::FrameTooBig { size, size_max } => write!(f, "a frame of {size} bytes, {size_max} at most"),
            ProtocolError::TooBig { size, size_max } => write!(f, "a message of {size} bytes, {size_max} at most"),
            ProtocolError::InvalidUtf8 => f.write_str("a text message is not UTF-8"),
            ProtocolError::Close(CloseError::Short) => f.write_str("a close frame of one byte"),
            ProtocolError::Close(CloseError::Code(code)) => write!(f, "close code {code} may not be sent"),
            ProtocolError::Close(CloseError::Reason) => f.write_str("a close reason is not UTF-8"),
        }
    }
}

/// A frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// FIN: the last frame of its message.
    pub fin: bool,
    /// The frame's type.
    pub opcode: Opcode,
    /// The masking key; None: not masked.
    pub key: Option<[u8; 4]>,
    /// Payload length in bytes.
    pub length: u64,
}

/// Parses the header at the start of `bytes` and returns it with its size. None: incomplete. An error in the bytes
/// present is returned at once, without waiting for the rest of the header.
pub fn parse(bytes: &[u8], masking: Masking) -> Result<Option<(Header, usize)>, ProtocolError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0f)?;
    let fin = first & 0x80 != 0;
    if opcode.is_control() && !fin {
        return Err(ProtocolError::ControlFragmented);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    match (masking, second & 0x80 != 0) {
        (Masking::Required, false) => return Err(ProtocolError::Unmasked),
        (Masking::Forbidden, true) => return Err(ProtocolError::Masked),
        _ => {}
    }
    if opcode.is_control() && second & 0x7f > 125 {
        return Err(ProtocolError::ControlTooLong);
    }
    let Some((length, size)) = parse_length(second & 0x7f, &bytes[2..])? else { return Ok(None) };
    let (key, size) = match masking {
        Masking::Forbidden => (None, 2 + size),
        Masking::Required => match bytes[2 + size..].first_chunk::<4>() {
            Some(key) => (Some(*key), 6 + size),
            None => return Ok(None),
        },
    };
    Ok(Some((Header { fin, opcode, key, length }, size)))
}

/// The payload length, and the bytes of its extended field; None: incomplete.
fn parse_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    let (length, size, shortest) = match short {
        126 => match bytes.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2, 126),
            None => return Ok(None),
        },
        127 => match bytes.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8, 65_536),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0, 0),
    };
    if length >> 63 != 0 {
        return Err(ProtocolError::LengthTopBit);
    }
    if length < shortest {
        return Err(ProtocolError::LengthNotShortest);
    }
    Ok(Some((length, size)))
}

/// The size of an unmasked header for a payload of `length` bytes.
pub fn size_of(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

/// Writes an unmasked header that ends at `payload_start`, and returns the start of the frame. The buffer must have
/// `size_of(length)` bytes before `payload_start`.
pub fn write_before(buffer: &mut [u8], payload_start: usize, fin: bool, opcode: Opcode, length: usize) -> usize {
    let size = size_of(length);
    let start = payload_start - size;
    let header = &mut buffer[start..payload_start];
    header[0] = if fin { 0x80 } else { 0 } | opcode as u8;
    match size {
        2 => header[1] = length as u8,
        4 => {
            header[1] = 126;
            header[2..].copy_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
    start
}

/// As `write_before`, with the masking key of a client's frame in the header, which is `KEY_SIZE` bytes longer. The
/// payload is masked by the caller.
pub fn write_masked_before(
    buffer: &mut [u8],
    payload_start: usize,
    fin: bool,
    opcode: Opcode,
    length: usize,
    key: [u8; KEY_SIZE],
) -> usize {
    let key_start = payload_start - KEY_SIZE;
    buffer[key_start..payload_start].copy_from_slice(&key);
    let start = write_before(buffer, key_start, fin, opcode, length);
    buffer[start + 1] |= 0x80;
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_header_alone_tells() {
        use ProtocolError::*;
        let cases: &[(&[u8], ProtocolError)] = &[
            (&[0xc1], ReservedBits),
            (&[0xa1], ReservedBits),
            (&[0x91], ReservedBits),
            (&[0x83], ReservedOpcode(3)),
            (&[0x87], ReservedOpcode(7)),
            (&[0x8b], ReservedOpcode(11)),
            (&[0x8f], ReservedOpcode(15)),
            (&[0x08], ControlFragmented),
            (&[0x09], ControlFragmented),
            (&[0x81, 0x05], Unmasked),
            (&[0x89, 0xfe], ControlTooLong),
            (&[0x82, 0xfe, 0, 125], LengthNotShortest),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], LengthNotShortest),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], LengthTopBit),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse(bytes, Masking::Required), Err(*error), "{bytes:x?}");
            for short in 0..bytes.len() {
                assert_eq!(parse(&bytes[..short], Masking::Required), Ok(None), "{bytes:x?} cut at {short}");
            }
        }
        assert_eq!(parse(&[0x81, 0x85], Masking::Forbidden), Err(Masked));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            let mut buffer = [0; HEADER_SIZE_MAX];
            let start = write_before(&mut buffer, HEADER_SIZE_MAX, true, Opcode::Binary, length);
            let header = Header { fin: true, opcode: Opcode::Binary, key: None, length: length as u64 };
            assert_eq!(parse(&buffer[start..], Masking::Forbidden), Ok(Some((header, size_of(length)))));
            let key = [1, 2, 3, 4];
            let start = write_masked_before(&mut buffer, HEADER_SIZE_MAX, true, Opcode::Binary, length, key);
            let header = Header { key: Some(key), ..header };
            assert_eq!(parse(&buffer[start..], Masking::Required), Ok(Some((header, size_of(length) + KEY_SIZE))));
        }
    }
}
