//! Frames of either side, cut where the fuzzer wants: they mean what RFC 6455 says, wherever they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rfc6455::close::{self, CloseCode};
use rfc6455::decoder::{Decoder, Piece, Rules};
use rfc6455::encoder;
use rfc6455::header::{self, Masking, Opcode, ProtocolError};
use rfc6455::mask;
use rfc6455::utf8::Validator;
use uakari_fuzz::choices::{Choices, cut};
use uakari_fuzz::reference::{Event, Reading, Sizes, frame};

/// Bytes around the received ones that nobody may touch.
const GUARD: &[u8] = &[0xa5; 16];
/// Bytes of generated frames, which keeps a run short.
const GENERATED_SIZE_MAX: usize = 100_000;
/// Bytes that are looked at again and again.
const FEW: usize = 512;

const SIZES: [Sizes; 4] = [
    Sizes::ANY,
    Sizes { frame_max: 125, message_max: 300 },
    Sizes { frame_max: 70_000, message_max: 70_000 },
    Sizes { frame_max: 10, message_max: 5 },
];

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let way = choices.byte();
    let (is_masked, sizes) = (way & 1 != 0, SIZES[usize::from(way >> 1) % SIZES.len()]);
    let cuts = choices.counted();
    let bytes = if way & 8 == 0 { choices.rest().to_vec() } else { generate(choices, is_masked) };
    let mut expected = Reading::of(&bytes, is_masked, sizes);
    if expected.fault.is_some() {
        // How much the decoder tells of a message before its mistake depends on the cuts.
        expected.open = None;
    }
    let (whole, error) = decode(&[&bytes], is_masked, sizes);
    assert_eq!(whole, expected, "whole");
    assert_eq!(decode(&cut(&bytes, cuts), is_masked, sizes), (whole, error), "cut");
    let few = &bytes[..bytes.len().min(FEW)];
    check_close(few);
    check_mask(few);
    check_text(few, cuts);
});

/// What the decoder makes of a stream that comes in these pieces, and its own word for what is wrong.
fn decode(pieces: &[&[u8]], is_masked: bool, sizes: Sizes) -> (Reading, Option<ProtocolError>) {
    let masking = if is_masked { Masking::Required } else { Masking::Forbidden };
    let rules = Rules { masking, frame_size_max: sizes.frame_max, message_size_max: sizes.message_max };
    let mut decoder = Decoder::default();
    let mut reading = Reading::default();
    for piece in pieces {
        let mut buffer = [GUARD, piece, GUARD].concat();
        let (mut at, end) = (GUARD.len(), GUARD.len() + piece.len());
        let mut read_to = at;
        loop {
            match decoder.next(&rules, &mut buffer, &mut at, end) {
                Ok(None) => break,
                Ok(Some(piece)) => read_to = take(&mut reading, piece, &buffer[..at], read_to),
                Err(error) => {
                    reading.fault = Some(error.close_code().0);
                    assert!(error.close_code().may_be_sent() && !error.to_string().is_empty());
                    return (Reading { open: None, ..reading }, Some(error));
                }
            }
            assert!(at <= end, "read behind the end");
        }
        assert_eq!(at, end, "something was left");
        assert!(buffer.starts_with(GUARD) && buffer[end..] == *GUARD, "a byte outside was changed");
    }
    reading.is_between = decoder.is_between_messages();
    (reading, None)
}

/// Adds a piece; where it ends in the buffer.
fn take(reading: &mut Reading, piece: Piece, read: &[u8], read_to: usize) -> usize {
    let event = match piece {
        Piece::Data(data) => {
            let range = data.range;
            assert!(read_to <= range.start && range.start <= range.end && range.end <= read.len(), "{range:?}");
            assert_eq!(data.first, reading.open.is_none());
            let is_text = data.opcode == Opcode::Text;
            let (was_text, mut message) = reading.open.take().unwrap_or((is_text, Vec::new()));
            assert_eq!(is_text, was_text);
            message.extend_from_slice(&read[range.clone()]);
            if data.last {
                reading.events.push(Event::Message(is_text, message));
            } else {
                reading.open = Some((is_text, message));
            }
            return range.end;
        }
        Piece::Ping(payload) => Event::Ping(payload.into()),
        Piece::Pong => Event::Pong,
        Piece::Close(code, reason) => Event::Close(code.map(|code| code.0), reason.into()),
    };
    reading.events.push(event);
    read.len()
}

/// Frames that are right for the most part: those of the gateway where they are not masked.
fn generate(mut choices: Choices<'_>, is_masked: bool) -> Vec<u8> {
    let mut all = Vec::new();
    while !choices.is_empty() && all.len() < GENERATED_SIZE_MAX {
        let first = choices.one_of(&[0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a]);
        let payload = match choices.byte() {
            size @ 0..250 => choices.bytes(size.into()).to_vec(),
            size => vec![b'x'; [125, 126, 127, 65_535, 65_536, 70_000][usize::from(size) - 250]],
        };
        let key = is_masked.then(|| *choices.bytes(4).first_chunk().unwrap_or(&[0, 1, 2, 3]));
        let by_gateway = (!is_masked).then(|| encode(first, &payload)).flatten();
        let by_hand = frame(first, &payload, key);
        assert!(by_gateway.is_none_or(|frame| frame == by_hand), "the gateway writes another frame");
        all.extend(by_hand);
    }
    all
}

/// The frame as the gateway writes it; None: it never writes one like that.
fn encode(first: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        _ => Opcode::Pong,
    };
    if opcode.is_control() {
        return (payload.len() <= 125).then(|| encoder::control_frame(opcode, payload).into());
    }
    let start = header::HEADER_SIZE_MAX;
    let mut buffer = vec![0; start];
    buffer.extend_from_slice(payload);
    let begin = header::write_before(&mut buffer, start, first & 0x80 != 0, opcode, payload.len());
    assert_eq!(start - begin, header::size_of(payload.len()));
    Some(buffer.split_off(begin))
}

/// A close payload is what the frame with it says, and what the gateway writes is read back.
fn check_close(payload: &[u8]) {
    let payload = &payload[..payload.len().min(125)];
    let reading = Reading::of(&frame(0x88, payload, None), false, Sizes::ANY);
    let expected = match reading.events.first() {
        Some(Event::Close(code, reason)) => Ok(code.map(|code| (CloseCode(code), reason.as_str()))),
        _ => Err(()),
    };
    assert_eq!(close::parse(payload).map_err(drop), expected);
    let code = payload.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes) % 5_100);
    let reading = Reading::of(&frame(0x88, &code.to_be_bytes(), None), false, Sizes::ANY);
    assert_eq!(CloseCode(code).may_be_sent(), reading.fault.is_none(), "{code}");
    let reason = String::from_utf8_lossy(payload);
    let written = Reading::of(&encoder::close_frame(Some(CloseCode::NORMAL), &reason), false, Sizes::ANY);
    let [Event::Close(Some(1000), read)] = &written.events[..] else { panic!("{written:?}") };
    let left_out = reason.strip_prefix(read.as_str()).expect("another reason");
    assert!(left_out.chars().next().is_none_or(|next| read.len() + next.len_utf8() > 123), "cut too early");
}

/// Unmasking undoes masking, in one piece or in two, and a byte meets its own byte of the key.
fn check_mask(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let key = *choices.bytes(4).first_chunk().unwrap_or(&[1, 2, 3, 4]);
    let (offset, split) = (u64::from(choices.byte()), usize::from(choices.byte()));
    let payload = choices.rest();
    let mut masked = payload.to_vec();
    mask::apply(&mut masked, key, offset);
    let plain = |(at, byte): (usize, &u8)| byte ^ key[(offset as usize + at) % 4];
    assert!(masked.iter().copied().eq(payload.iter().enumerate().map(plain)));
    let split = split.min(masked.len());
    mask::apply(&mut masked[..split], key, offset);
    mask::apply(&mut masked[split..], key, offset + split as u64);
    assert_eq!(masked, payload);
}

/// A text in pieces is UTF-8 if it is UTF-8 whole, and a byte that cannot be right is refused with its piece.
fn check_text(bytes: &[u8], cuts: &[u8]) {
    let mut validator = Validator::default();
    let mut before = 0;
    for piece in cut(bytes, cuts) {
        let end = before + piece.len();
        let is_possible = std::str::from_utf8(&bytes[..end]).map_or_else(|error| error.error_len().is_none(), |_| true);
        assert_eq!(validator.feed(piece).is_ok(), is_possible);
        if !is_possible {
            return;
        }
        before = end;
    }
    assert_eq!(validator.finish().is_ok(), std::str::from_utf8(bytes).is_ok());
}
