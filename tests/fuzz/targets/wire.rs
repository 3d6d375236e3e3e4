//! What the gateway and uakari-auth say to each other: a stream of either direction, cut where the fuzzer wants.
#![no_main]

use std::fmt::Debug;

use auth_wire::{Decoder, Message, ToDaemon, ToHelper, WireError, encode};
use libfuzzer_sys::fuzz_target;
use uakari_fuzz::choices::{Choices, cut};

/// Bytes of a frame's length.
const LENGTH_SIZE: usize = 4;
/// Types of fields, and one that no message has.
const FIELDS: usize = 34;
const KINDS: [u8; 8] = [0x01, 0x02, 0x03, 0x81, 0x82, 0x83, 0x84, 0x7f];
/// Levels of fields in fields: a rule, its source, the key of that, and one more.
const DEPTH_MAX: u32 = 4;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let how = choices.byte();
    let cuts = choices.counted();
    let bytes = if how & 2 == 0 { choices.rest().to_vec() } else { frames(&mut choices) };
    match how & 1 {
        0 => check::<ToHelper>(&bytes, cuts),
        _ => check::<ToDaemon>(&bytes, cuts),
    }
});

/// Frames whose lengths, and those of their fields, are right.
fn frames(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !choices.is_empty() {
        let mut frame = vec![choices.one_of(&KINDS)];
        put_fields(choices, DEPTH_MAX, &mut frame);
        put_counted(&frame, &mut bytes);
    }
    bytes
}

fn put_fields(choices: &mut Choices<'_>, depth: u32, out: &mut Vec<u8>) {
    for _ in 0..choices.below(16) {
        let kind = choices.byte();
        out.push((usize::from(kind) % FIELDS) as u8);
        if depth > 0 && kind & 0x80 != 0 {
            let mut value = Vec::new();
            put_fields(choices, depth - 1, &mut value);
            put_counted(&value, out);
        } else {
            put_counted(choices.counted(), out);
        }
    }
}

fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// The messages of a stream, what is left of it, and the first error.
fn read<M: Message>(pieces: &[&[u8]]) -> (Vec<M>, usize, Option<WireError>) {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, 0, Some(error)),
            }
        }
    }
    // What it shows is the number of bytes alone.
    let shown = format!("{decoder:?}");
    let left = shown.strip_prefix("Decoder(").and_then(|rest| rest.strip_suffix(" bytes)"));
    (messages, left.and_then(|left| left.parse().ok()).expect("the number of bytes"), None)
}

/// The cuts change nothing, no byte is lost, and each message is the same when it is encoded and decoded again.
fn check<M: Message + PartialEq + Debug>(bytes: &[u8], cuts: &[u8]) {
    let whole = read::<M>(&[bytes]);
    assert!(read::<M>(&cut(bytes, cuts)) == whole, "the cuts change what is read");
    let (messages, left, error) = whole;
    let mut again = Vec::new();
    for message in &messages {
        let start = again.len();
        assert_eq!(encode(message, &mut again), Ok(()), "{message:?}");
        let length = again[start..].first_chunk::<LENGTH_SIZE>().map(|length| u32::from_be_bytes(*length) as usize);
        assert_eq!(length, Some(again.len() - start - LENGTH_SIZE), "{message:?}");
    }
    // A value has one size, in whatever order the fields are.
    assert!(error.is_some() || again.len() + left == bytes.len(), "{} and {left} of {}", again.len(), bytes.len());
    assert!(again.len() <= bytes.len());
    let (decoded, left, none) = read::<M>(&[&again]);
    assert!(decoded == messages && left == 0 && none.is_none(), "{messages:?} is {decoded:?} after {none:?}");
    let mut third = Vec::new();
    assert!(decoded.iter().all(|message| encode(message, &mut third) == Ok(())) && third == again);
    if let Some(error) = error {
        assert!(!error.to_string().is_empty());
    }
}
