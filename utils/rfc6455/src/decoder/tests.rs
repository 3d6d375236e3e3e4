//! The decoder's golden inputs, each fed whole, byte by byte and cut at every place.

use super::*;
use crate::encoder::masked_frame;

/// What the bytes mean, however they were cut: messages whole, control frames as they are.
#[derive(PartialEq, Debug, Default, Clone)]
struct Outcome {
    messages: Vec<(bool, Vec<u8>)>,
    /// The payload of a message that is not whole.
    begun: Vec<u8>,
    controls: Vec<String>,
    error: Option<ProtocolError>,
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, payload, [0x37, 0xfa, 0x21, 0x3d])
}

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let rules = Rules { message_size_max: 1 << 20, ..Rules::unlimited(Masking::Required) };
    let mut decoder = Decoder::default();
    let mut outcome = Outcome::default();
    for bytes in pieces {
        let mut buffer = bytes.to_vec();
        let mut at = 0;
        loop {
            match decoder.next(&rules, &mut buffer, &mut at, bytes.len()) {
                Ok(None) => break,
                Ok(Some(Piece::Data(data))) => {
                    assert_eq!(data.first, outcome.begun.is_empty() && data.first);
                    outcome.begun.extend_from_slice(&buffer[data.range.clone()]);
                    if data.last {
                        outcome.messages.push((data.opcode == Opcode::Text, std::mem::take(&mut outcome.begun)));
                    }
                }
                Ok(Some(control)) => outcome.controls.push(format!("{control:?}")),
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
        assert_eq!(at, bytes.len());
    }
    outcome
}

fn golden() -> Vec<(&'static str, Vec<u8>)> {
    let join = |frames: &[Vec<u8>]| frames.concat();
    vec![
        ("two messages", join(&[frame(0x81, b"Hello"), frame(0x82, &[0, 255, 7])])),
        ("empty messages", join(&[frame(0x81, b""), frame(0x82, b""), frame(0x81, b"x")])),
        ("lengths", join(&[frame(0x82, &[1; 125]), frame(0x82, &[2; 126]), frame(0x82, &[3; 300])])),
        ("a ping between fragments", join(&[frame(0x01, b"fra"), frame(0x89, b"?"), frame(0x80, b"gment")])),
        ("empty fragments", join(&[frame(0x01, b""), frame(0x00, b"a"), frame(0x00, b""), frame(0x80, b"")])),
        ("a character over fragments", join(&[frame(0x01, b"\xce"), frame(0x80, b"\xba")])),
        ("a character cut off", frame(0x81, b"abc\xce")),
        ("a text that turns bad", join(&[frame(0x01, b"good \xe4"), frame(0x80, b"\xb8\xff and more")])),
        ("bad text", join(&[frame(0x81, b"ok"), frame(0x81, b"\xed\xa0\x80")])),
        ("close with a reason", join(&[frame(0x81, b"last"), frame(0x88, b"\x03\xe8bye")])),
        ("close without a code", frame(0x88, b"")),
        ("close with a bad code", frame(0x88, b"\x03\xed")),
        ("close with a bad reason", frame(0x88, b"\x03\xe8\xff")),
        ("pong", frame(0x8a, &[9; 125])),
        ("a continuation alone", frame(0x80, b"x")),
        ("a start inside a message", join(&[frame(0x01, b"a"), frame(0x81, b"b")])),
        ("a reserved bit", join(&[frame(0x82, b"good"), frame(0xc2, b"bad")])),
        ("an unmasked frame", vec![0x81, 0x02, b'h', b'i']),
        ("too big", vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]),
    ]
}

#[test]
fn decoding_is_the_same_at_every_cut() {
    for (name, bytes) in golden() {
        let whole = decode([&bytes[..]].into_iter());
        assert_eq!(decode(bytes.chunks(1)), whole, "{name}, byte by byte");
        for cut in 0..bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(decode([a, b].into_iter()), whole, "{name}, cut at {cut}");
        }
    }
}

#[test]
fn golden_outcomes() {
    let meaning = |name: &str| {
        let (_, bytes) = golden().into_iter().find(|(other, _)| *other == name).unwrap();
        decode([&bytes[..]].into_iter())
    };
    assert_eq!(meaning("two messages").messages, [(true, b"Hello".to_vec()), (false, vec![0, 255, 7])]);
    assert_eq!(meaning("empty messages").messages.len(), 3);
    let between = meaning("a ping between fragments");
    assert_eq!(between.messages, [(true, b"fragment".to_vec())]);
    assert_eq!(between.controls, ["Ping([63])"]);
    assert_eq!(meaning("close with a reason").controls, ["Close(Some(CloseCode(1000)), \"bye\")"]);
    assert_eq!(meaning("a text that turns bad").begun, b"good \xe4\xb8");
    assert_eq!(meaning("a character cut off").begun, b"abc");
    for (name, error) in [
        ("a text that turns bad", ProtocolError::InvalidUtf8),
        ("a character cut off", ProtocolError::InvalidUtf8),
        ("bad text", ProtocolError::InvalidUtf8),
        ("close with a bad code", ProtocolError::Close(close::CloseError::Code(1005))),
        ("a continuation alone", ProtocolError::ContinuationWithoutStart),
        ("a start inside a message", ProtocolError::StartInsideMessage),
        ("a reserved bit", ProtocolError::ReservedBits),
        ("an unmasked frame", ProtocolError::Unmasked),
        ("too big", ProtocolError::TooBig { size: 1 << 32, size_max: 1 << 20 }),
    ] {
        assert_eq!(meaning(name).error, Some(error), "{name}");
    }
}

#[test]
fn fragments_count_against_the_message_limit() {
    let mut bytes = frame(0x02, &vec![0; 1 << 19]);
    bytes.extend(frame(0x00, &vec![0; 1 << 19]));
    bytes.extend(frame(0x80, &[0]));
    let size = (1 << 20) + 1;
    assert_eq!(decode([&bytes[..]].into_iter()).error, Some(ProtocolError::TooBig { size, size_max: 1 << 20 }));
}

/// Random bytes, made likelier to be frames: most headers are good, lengths are short.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let mut bytes = Vec::new();
    for _ in 0..12 {
        let first = [0x81, 0x82, 0x01, 0x80, 0x00, 0x89, 0x8a, 0x88, 0x02, draw()][draw() as usize % 10];
        let length = if draw() % 8 == 0 { draw() % 126 } else { draw() % 20 };
        bytes.extend([first, 0x80 | length]);
        let size = if draw() % 16 == 0 { draw() } else { 4 + length };
        bytes.extend((0..size).map(|_| if draw() % 2 == 0 { b'a' } else { draw() }));
    }
    bytes
}

#[test]
fn random_bytes_decode_the_same_at_every_cut() {
    for seed in 1..300 {
        let bytes = noise(seed);
        let whole = decode([&bytes[..]].into_iter());
        assert_eq!(decode(bytes.chunks(1)), whole, "seed {seed}, byte by byte");
        for cut in (0..bytes.len()).step_by(7) {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(decode([a, b].into_iter()), whole, "seed {seed}, cut at {cut}");
        }
    }
}

/// RFC 6455 section 5.7: the frames of a client are masked, those of a server are not.
#[test]
fn the_frames_of_the_rfc() {
    let text = |payload: &str| Outcome { messages: vec![(true, payload.into())], ..Outcome::default() };
    let masked: [&[u8]; 2] = [
        &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
        &[0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
    ];
    assert_eq!(decode(masked[..1].iter().copied()), text("Hello"));
    assert_eq!(decode(masked[1..].iter().copied()).controls, ["Pong"]);
    let unmasked: [(&[u8], usize); 5] = [
        (&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], 5),
        (&[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f], 5),
        (&[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], 5),
        (&[0x82, 0x7e, 0x01, 0x00], 256),
        (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
    ];
    for (head, size) in unmasked {
        let mut bytes = head.to_vec();
        if size > 5 {
            bytes.resize(head.len() + size, 0);
        }
        let (rules, mut decoder) = (Rules::unlimited(Masking::Forbidden), Decoder::default());
        let (mut at, end, mut got) = (0, bytes.len(), 0);
        while let Some(piece) = decoder.next(&rules, &mut bytes, &mut at, end).unwrap() {
            got += match piece {
                Piece::Data(data) => data.range.len(),
                Piece::Ping(payload) => payload.len(),
                _ => 0,
            };
        }
        assert_eq!(got, size, "{head:x?}");
        // A client may not send any of them, nor a server what is masked.
        assert!(decode([&bytes[..]].into_iter()).error.is_some(), "{head:x?}");
    }
    let rules = Rules::unlimited(Masking::Forbidden);
    assert!(Decoder::default().next(&rules, &mut masked[0].to_vec(), &mut 0, 11).is_err());
}
