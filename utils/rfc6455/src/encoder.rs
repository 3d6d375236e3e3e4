//! Whole frames in memory of their own: a server's control frames, and frames of a client.

use crate::close::CloseCode;
use crate::header::{self, Opcode};
use crate::mask;

/// An unmasked control frame. The payload has at most 125 bytes (RFC 6455 section 5.5).
pub fn control_frame(opcode: Opcode, payload: &[u8]) -> Box<[u8]> {
    debug_assert!(opcode.is_control() && payload.len() <= header::CONTROL_PAYLOAD_SIZE_MAX as usize);
    let size = header::size_of(payload.len());
    let mut frame = vec![0; size + payload.len()];
    frame[size..].copy_from_slice(payload);
    header::write_before(&mut frame, size, true, opcode, payload.len());
    frame.into()
}

/// An unmasked close frame; without a code its payload is empty. The reason is cut to 123 bytes, at a character
/// boundary.
pub fn close_frame(code: Option<CloseCode>, reason: &str) -> Box<[u8]> {
    let Some(code) = code else { return control_frame(Opcode::Close, &[]) };
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut payload = code.0.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    control_frame(Opcode::Close, &payload)
}

/// A masked frame, as a client sends it. `first` is its first byte (FIN, reserved bits and opcode), unchecked, so that
/// tests can send invalid frames.
pub fn masked_frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let size = header::size_of(payload.len()) + key.len();
    let mut frame = vec![0; size];
    header::write_masked_before(&mut frame, size, true, Opcode::Binary, payload.len(), key);
    frame[0] = first;
    frame.extend_from_slice(payload);
    mask::apply(&mut frame[size..], key, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 5.7: a single-frame masked text message.
    #[test]
    fn masked_frames() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(masked_frame(0x81, b"Hello", key), hello);
        assert_eq!(masked_frame(0xf2, &[0; 300], key)[..4], [0xf2, 0xfe, 1, 44]);
    }

    #[test]
    fn close_frames() {
        assert_eq!(*close_frame(None, "unused"), [0x88, 0]);
        assert_eq!(*close_frame(Some(CloseCode::NORMAL), "ok"), [0x88, 4, 3, 0xe8, b'o', b'k']);
        let long = close_frame(Some(CloseCode::NORMAL), &"\u{e9}".repeat(100));
        assert_eq!(long.len(), 2 + 2 + 122, "cut before the character that does not fit");
    }
}
