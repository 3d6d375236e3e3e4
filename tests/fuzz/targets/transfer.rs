//! Replies and bodies that are passed on, cut where the fuzzer wants: they mean the same wherever they are cut, and
//! what is framed again is what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uakari::http::body::{Body, BodyError, Framing};
use uakari::http::response::{self, ResponseError, ResponseFraming};
use uakari::http::transfer::{Transfer, last_chunk, write_chunk_before};
use uakari::limits::{ANSWER_HEAD_SIZE_MAX, ANSWER_HEADERS_MAX, POOL_HEADROOM};
use uakari_fuzz::choices::{Choices, cut};
use uakari_fuzz::request::chunks_end;

/// Bytes around the received ones that nobody may touch.
const GUARD: &[u8] = &[0xa5; 32];

/// A body: its payload in the pieces that it came in, its end (None: it has not ended), and its trailers.
#[derive(Debug)]
struct Read {
    payloads: Vec<Vec<u8>>,
    end: Option<usize>,
    trailers: Vec<u8>,
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let way = choices.byte();
    let cuts = choices.counted();
    let bytes = choices.rest();
    let size_max = if way & 4 == 0 { u64::MAX } else { u64::from(way >> 3) };
    match way & 3 {
        0 => check_body(bytes, cuts, || Transfer::new(Framing::Chunked, size_max), Some(Framing::Chunked)),
        1 => {
            let framing = Framing::Sized(u64::from(way >> 2) + 1);
            check_body(bytes, cuts, || Transfer::new(framing, size_max), Some(framing));
        }
        _ => check_reply(bytes, cuts, way & 4 != 0),
    }
});

fn check_reply(bytes: &[u8], cuts: &[u8], is_head: bool) {
    let whole = response::scan(bytes, 0);
    assert_eq!(gather(bytes, cuts), whole);
    let Ok(Some(end)) = whole else { return };
    let (head, rest) = bytes.split_at(end);
    let head = match response::parse(head, is_head) {
        Ok(head) => head,
        Err(error) => return assert!(error.to_string().starts_with("the reply")),
    };
    assert!((100..=599).contains(&head.status) && head.headers.len() as u64 <= ANSWER_HEADERS_MAX);
    assert!(end as u64 <= ANSWER_HEAD_SIZE_MAX);
    let is_text = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    assert!(head.reason.iter().copied().all(is_text), "{:?}", head.reason);
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
    for (name, value) in &head.headers {
        assert!(!name.is_empty() && name.bytes().all(is_token), "{name:?}");
        assert!(value.iter().copied().all(is_text), "{value:?}");
    }
    let count = |name: &str| head.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
    let framing_fields = count("content-length") + count("transfer-encoding");
    assert!(framing_fields <= 1, "two readers could see two ends");
    let has_no_body = is_head || head.status < 200 || matches!(head.status, 204 | 304);
    match head.framing {
        ResponseFraming::Empty => assert!(has_no_body || count("content-length") == 1),
        ResponseFraming::Sized(size) => assert!(!has_no_body && size > 0 && count("content-length") == 1),
        ResponseFraming::Chunked => assert!(!has_no_body && head.http_1_1 && count("transfer-encoding") == 1),
        ResponseFraming::UntilClose => assert!(!has_no_body && framing_fields == 0 && !head.keep_alive),
    }
    check_body(rest, cuts, || Transfer::of_reply(head.framing), None);
}

/// Looks for the end of a head that comes in pieces.
fn gather(bytes: &[u8], cuts: &[u8]) -> Result<Option<usize>, ResponseError> {
    let (mut scanned, mut there) = (0, 0);
    for piece in cut(bytes, cuts) {
        there += piece.len();
        if let Some(end) = response::scan(&bytes[..there], scanned)? {
            return Ok(Some(end));
        }
        scanned = there;
    }
    Ok(None)
}

/// `framing`: of a request, whose body could be discarded instead.
fn check_body(bytes: &[u8], cuts: &[u8], new: impl Fn() -> Result<Transfer, BodyError>, framing: Option<Framing>) {
    let whole = new().and_then(|transfer| read(transfer, &[bytes]));
    let pieces = new().and_then(|transfer| read(transfer, &cut(bytes, cuts)));
    let (whole, pieces) = match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => (whole, pieces),
        (whole, pieces) => return assert_eq!(whole.err(), pieces.err()),
    };
    let payload = whole.payloads.concat();
    assert_eq!((&payload, whole.end, &whole.trailers), (&pieces.payloads.concat(), pieces.end, &pieces.trailers));
    let Some(end) = whole.end else { return };
    match framing {
        Some(Framing::Sized(size)) => assert_eq!((payload.len() as u64, end as u64), (size, size)),
        Some(Framing::Chunked) => assert_eq!(Some(end), chunks_end(bytes)),
        _ => {}
    }
    if let Some(framing) = framing {
        let discarded = Body::new(framing).and_then(|mut body| body.read(bytes));
        assert!(matches!(discarded, Ok(Some(other)) if other == end), "{discarded:?}, not {end}");
    }
    // Framed again in the pieces that it came in.
    let (mut framed, mut is_first) = (Vec::new(), true);
    for payload in pieces.payloads.iter().filter(|payload| !payload.is_empty()) {
        let mut buffer = [&[0; POOL_HEADROOM], &payload[..]].concat();
        let start = write_chunk_before(&mut buffer, POOL_HEADROOM, payload.len(), is_first);
        framed.extend_from_slice(&buffer[start..]);
        is_first = false;
    }
    framed.extend_from_slice(&last_chunk(is_first, &whole.trailers));
    assert_eq!(chunks_end(&framed), Some(framed.len()));
    let transfer = Transfer::new(Framing::Chunked, payload.len() as u64).expect("no size is known");
    let again = read(transfer, &cut(&framed, cuts)).expect("what was framed here is read here");
    assert_eq!((again.payloads.concat(), again.end, again.trailers), (payload, Some(framed.len()), whole.trailers));
}

fn read(mut transfer: Transfer, pieces: &[&[u8]]) -> Result<Read, BodyError> {
    let (mut payloads, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut buffer = [GUARD, piece, GUARD].concat();
        let (mut at, end) = (GUARD.len(), GUARD.len() + piece.len());
        let taken = transfer.take(&mut buffer, &mut at, end)?;
        assert!(buffer.starts_with(GUARD) && buffer.ends_with(GUARD));
        assert_eq!(buffer[at..end], piece[at - GUARD.len()..], "what follows the body is as it was");
        assert!(taken.payload.start >= GUARD.len() && taken.payload.end <= at);
        payloads.push(buffer[taken.payload].to_vec());
        before += at - GUARD.len();
        assert_eq!(taken.is_last, transfer.is_ended());
        if taken.is_last {
            return Ok(Read { payloads, end: Some(before), trailers: transfer.trailers() });
        }
        assert_eq!(at, end);
    }
    Ok(Read { payloads, end: None, trailers: Vec::new() })
}
