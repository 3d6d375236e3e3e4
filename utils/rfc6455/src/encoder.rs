//! Frames that the gateway itself writes: pongs and close frames, never masked.

use crate::close::CloseCode;
use crate::header::{self, Opcode};

/// A whole control frame. The payload is at most 125 bytes long (RFC 6455 section 5.5).
pub fn control_frame(opcode: Opcode, payload: &[u8]) -> Box<[u8]> {
    debug_assert!(opcode.is_control() && payload.len() <= header::CONTROL_PAYLOAD_SIZE_MAX as usize);
    let size = header::size_of(payload.len());
    let mut frame = vec![0; size + payload.len()];
    frame[size..].copy_from_slice(payload);
    header::write_before(&mut frame, size, true, opcode, payload.len());
    frame.into()
}

/// A close frame; without a code its payload is empty. The reason is cut at 123 bytes, on a character's border.
pub fn close_frame(code: Option<CloseCode>, reason: &str) -> Box<[u8]> {
    let Some(code) = code else { return control_frame(Opcode::Close, &[]) };
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut payload = code.0.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    control_frame(Opcode::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_frames() {
        assert_eq!(*close_frame(None, "unused"), [0x88, 0]);
        assert_eq!(*close_frame(Some(CloseCode::NORMAL), "ok"), [0x88, 4, 3, 0xe8, b'o', b'k']);
        let long = close_frame(Some(CloseCode::NORMAL), &"\u{e9}".repeat(100));
        assert_eq!(long.len(), 2 + 2 + 122, "cut before the character that does not fit");
    }
}
