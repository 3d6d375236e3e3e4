//! A message body that is passed on: decoded where it was received, and framed again (RFC 9112 sections 6 and 7). No
//! chunk line of one connection reaches the other one.

use std::ops::Range;

use super::body::{BodyDecoder, BodyError, BodyPiece, Counted, Framing};
use super::response::ResponseFraming;

/// The decoder of one body. It holds no payload: the caller owns the receive buffer.
#[derive(Debug)]
pub struct Transfer {
    decoder: BodyDecoder,
    /// Whole lines of trailers that may be forwarded, and the bytes of an incomplete one.
    trailers: Vec<u8>,
    /// Bytes of the whole lines.
    trailers_end: usize,
}

/// What `Transfer::take` found in a buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyPart {
    /// The payload, as offsets in the buffer. It may be empty.
    pub payload: Range<usize>,
    /// Whether the body ends with this payload.
    pub is_last: bool,
}

impl Transfer {
    /// A body before its first byte, with at most `size_max` bytes of payload. A larger Content-Length is
    /// BodyError::TooLarge.
    pub fn new(framing: Framing, size_max: u64) -> Result<Transfer, BodyError> {
        BodyDecoder::new(framing, size_max, Counted::Payload).map(Transfer::of)
    }

    /// A reply's body, of any size, before its first byte.
    pub fn of_reply(framing: ResponseFraming) -> Result<Transfer, BodyError> {
        let framing = match framing {
            ResponseFraming::Empty => Framing::Empty,
            ResponseFraming::Sized(size) => Framing::Sized(size),
            ResponseFraming::Chunked => Framing::Chunked,
            ResponseFraming::UntilClose => return Ok(Transfer::until_close()),
        };
        Transfer::new(framing, u64::MAX)
    }

    /// A reply's body, of any size, that ends with its connection.
    pub fn until_close() -> Transfer {
        Transfer::of(BodyDecoder::until_close())
    }

    fn of(decoder: BodyDecoder) -> Transfer {
        Transfer { decoder, trailers: Vec::new(), trailers_end: 0 }
    }

    /// Whether the last byte of the body was consumed. True at once for a body without payload that is not chunked.
    pub fn is_ended(&self) -> bool {
        self.decoder.is_ended()
    }

    /// Consumes the body's bytes in `buffer[*at..end]` and joins their payload within this range. `at` becomes the
    /// offset of the first byte that does not belong to the body, or `end`. Bytes outside of the range are left as
    /// they are. After an error the body must not be read further.
    pub fn take(&mut self, buffer: &mut [u8], at: &mut usize, end: usize) -> Result<BodyPart, BodyError> {
        let mut payload = *at..*at;
        while !self.decoder.is_ended() {
            let Some(step) = self.decoder.step(&buffer[*at..end])? else { break };
            match step {
                BodyPiece::Payload(size) => payload = join(buffer, payload, *at..*at + size),
                BodyPiece::Trailer => self.trailers.push(buffer[*at]),
                BodyPiece::TrailerEnd => self.end_trailer(),
                BodyPiece::Framing => {}
            }
            *at += step.size();
        }
        Ok(BodyPart { payload, is_last: self.decoder.is_ended() })
    }

    /// Whether the body is complete if its connection ends here. False: it was cut.
    pub fn is_complete_at_end(&self) -> bool {
        self.decoder.is_ended() || self.decoder.is_until_close()
    }

    /// The trailers of a body that has ended, as whole lines with their ends, without those that a recipient might use
    /// as if they were header fields (RFC 9110 section 6.5.1). Usually empty. The second call returns nothing.
    pub fn trailers(&mut self) -> Vec<u8> {
        self.trailers.truncate(self.trailers_end);
        self.trailers_end = 0;
        std::mem::take(&mut self.trailers)
    }

    fn end_trailer(&mut self) {
        let line = &self.trailers[self.trailers_end..];
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if may_forward(name) {
            self.trailers.extend_from_slice(b"\r\n");
            self.trailers_end = self.trailers.len();
        } else {
            self.trailers.truncate(self.trailers_end);
        }
    }
}

/// Joins two parts of a payload, which has other bytes between them. The smaller part is moved.
fn join(buffer: &mut [u8], first: Range<usize>, second: Range<usize>) -> Range<usize> {
    if first.end == second.start || first.is_empty() {
        second.start - first.len()..second.end
    } else if first.len() < second.len() {
        let start = second.start - first.len();
        buffer.copy_within(first, start);
        start..second.end
    } else {
        let size = second.len();
        buffer.copy_within(second, first.end);
        first.start..first.end + size
    }
}

/// Writes the line of a chunk in front of its data, which begins at `start` and has `size` bytes, at least 1, and the
/// end of the chunk before it unless this is the first one. Returns the new start, at most CHUNK_DIGITS_MAX + 4 bytes
/// before.
pub fn write_chunk_before(buffer: &mut [u8], start: usize, size: usize, is_first: bool) -> usize {
    debug_assert!(size > 0, "a chunk without data is the last one");
    let mut at = start - 2;
    buffer[at..start].copy_from_slice(b"\r\n");
    let mut left = size;
    while left > 0 {
        at -= 1;
        buffer[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    if !is_first {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(b"\r\n");
    }
    at
}

/// The end of a chunked body, with these lines of trailers. `is_first`: no chunk went before.
pub fn last_chunk(is_first: bool, trailers: &[u8]) -> Box<[u8]> {
    debug_assert!(trailers.is_empty() || trailers.ends_with(b"\r\n"));
    let end: &[u8] = if is_first { b"" } else { b"\r\n" };
    [end, b"0\r\n", trailers, b"\r\n"].concat().into()
}

/// Names that are no trailers: fields of framing, routing, authentication, request modifiers, response controls and
/// content format (RFC 9110 section 6.5.1), and what proxies write.
const HEADERS_ONLY: &[&str] = &[
    "accept",
    "age",
    "allow",
    "alt-svc",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "expires",
    "forwarded",
    "from",
    "front-end-https",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-frame-options",
    "x-xss-protection",
];

/// Beginnings of such names.
const HEADERS_ONLY_PREFIXES: &[&str] = &[
    "accept-",
    "access-control-",
    "client-",
    "content-",
    "cross-origin-",
    "if-",
    "proxy-",
    "remote-",
    "sec-",
    "ssl-",
    "x-accel-",
    "x-auth",
    "x-client-",
    "x-content-",
    "x-forwarded",
    "x-http-method",
    "x-method-",
    "x-original-",
    "x-proxy",
    "x-real-",
    "x-remote-",
    "x-rewrite-",
    "x-sendfile",
    "x-ssl-",
    "x-user",
];

/// Exceptions from the beginnings: checksums, which are known after the content (RFC 9530).
const TRAILERS: &[&str] = &["content-digest", "content-md5"];

/// Whether a trailer of this name is forwarded. Servers that give headers to programs as variables (CGI) write "_" for
/// "-", so that the two are one name here.
fn may_forward(name: &[u8]) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let is = |other: &str| name.len() == other.len() && begins(name, other, fold);
    let is_header = HEADERS_ONLY.iter().any(|other| is(other))
        || HEADERS_ONLY_PREFIXES.iter().any(|prefix| begins(name, prefix, fold));
    !is_header || TRAILERS.iter().any(|other| is(other))
}

/// Whether a name begins with this lower-case text.
fn begins(name: &[u8], text: &str, fold: fn(u8) -> u8) -> bool {
    name.len() >= text.len() && name.iter().zip(text.as_bytes()).all(|(byte, other)| fold(*byte) == *other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CHUNK_DIGITS_MAX, CHUNK_EXTENSIONS_SIZE_MAX, POOL_HEADROOM, TRAILERS_SIZE_MAX};
    use BodyError::*;

    /// Bytes around the received ones, which must not change.
    const GUARD: [u8; 40] = [0xa5; 40];

    /// A decoded body: its payload, the bytes before its end (None: it has not ended) and its trailers.
    type Decoded = (Vec<u8>, Option<usize>, Vec<u8>);

    fn decode(mut transfer: Transfer, pieces: &[&[u8]]) -> Result<Decoded, BodyError> {
        let (mut payload, mut before) = (Vec::new(), 0);
        for piece in pieces {
            let mut buffer = [&GUARD[..], piece, &GUARD].concat();
            let (mut at, end) = (GUARD.len(), GUARD.len() + piece.len());
            let taken = transfer.take(&mut buffer, &mut at, end)?;
            assert!(buffer.starts_with(&GUARD) && buffer.ends_with(&GUARD), "bytes outside of the range were written");
            assert_eq!(buffer[at..end], piece[at - GUARD.len()..], "bytes after the body were changed");
            assert!(taken.payload.start >= GUARD.len() && taken.payload.end <= at, "{taken:?} of {at}");
            payload.extend_from_slice(&buffer[taken.payload]);
            before += at - GUARD.len();
            if taken.is_last {
                assert!(transfer.is_ended() && transfer.is_complete_at_end());
                let trailers = transfer.trailers();
                assert_eq!(transfer.trailers(), b"");
                return Ok((payload, Some(before), trailers));
            }
            assert_eq!(at, end, "bytes were left");
        }
        Ok((payload, None, Vec::new()))
    }

    /// Expects the same result for the bytes as a whole, byte by byte, and cut in two at every offset.
    fn expect(new: impl Fn() -> Transfer, bytes: &[u8], expected: &Result<Decoded, BodyError>) {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!(&decode(new(), &[bytes]), expected, "whole: {shown:?}");
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(&decode(new(), &each), expected, "byte by byte: {shown:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(&decode(new(), &[first, second]), expected, "cut at {cut}: {shown:?}");
        }
    }

    fn chunked(size_max: u64) -> Transfer {
        Transfer::new(Framing::Chunked, size_max).unwrap()
    }

    #[test]
    fn bodies_without_chunks() {
        let empty = || Transfer::new(Framing::Empty, 0).unwrap();
        assert!(empty().is_ended());
        expect(empty, b"GET", &Ok((vec![], Some(0), vec![])));
        let sized = || Transfer::new(Framing::Sized(3), 3).unwrap();
        assert!(!sized().is_ended() && !sized().is_complete_at_end());
        expect(sized, b"abcGET", &Ok((b"abc".to_vec(), Some(3), vec![])));
        expect(sized, b"ab", &Ok((b"ab".to_vec(), None, vec![])));
        for size in [4, u64::MAX] {
            assert_eq!(Transfer::new(Framing::Sized(size), 3).err(), Some(TooLarge));
        }
        assert!(Transfer::of_reply(ResponseFraming::Sized(u64::MAX)).is_ok());
        assert!(Transfer::of_reply(ResponseFraming::Empty).unwrap().is_ended());
        let until_close = || Transfer::of_reply(ResponseFraming::UntilClose).unwrap();
        assert!(until_close().is_complete_at_end() && !until_close().is_ended());
        expect(until_close, b"0\r\n\r\n", &Ok((b"0\r\n\r\n".to_vec(), None, vec![])));
    }

    #[test]
    fn good_chunks() {
        // A bar marks the end of the body.
        for (text, payload, trailers) in [
            ("0\r\n\r\n|GET / HTTP/1.1", "", ""),
            ("3\r\nabc\r\n0\r\n\r\n|0\r\n\r\n", "abc", ""),
            ("3\r\n\r\n0\r\n0\r\n\r\n|", "\r\n0", ""),
            (
                "1\r\na\r\n2\r\nbc\r\n1\r\nd\r\nB;x=y\r\n0123456789x\r\n5\r\nefghi\r\n0\r\n\r\n|z",
                "abcd0123456789xefghi",
                "",
            ),
            ("0000000000000003 \t;a = \"b\"\r\nabc\r\n00;c\r\n\r\n|x", "abc", ""),
            ("1\r\na\r\n0\r\nX-Sum: 1\r\nETag:\r\n\r\n|", "a", "X-Sum: 1\r\nETag:\r\n"),
            ("0\r\nContent-Length: 3\r\nA:b\r\nhost: x\r\n\r\n|abc", "", "A:b\r\n"),
        ] {
            let (body, _) = text.split_once('|').unwrap();
            let expected = (payload.as_bytes().to_vec(), Some(body.len()), trailers.as_bytes().to_vec());
            expect(|| chunked(payload.len() as u64), text.replace('|', "").as_bytes(), &Ok(expected));
            for size in 0..body.len() {
                let (_, end, _) = decode(chunked(99), &[&body.as_bytes()[..size]]).unwrap();
                assert_eq!(end, None, "{size} bytes of {body:?}");
            }
        }
    }

    #[test]
    fn bad_chunks() {
        for text in [
            "x",
            "3\n",
            "3\r\nabcd",
            "-1\r\n",
            "0\r\n\n",
            "0\r\nX : y\r\n",
            "0\r\nX: y\n",
            "0\r\n folded",
            "0\r\nX: \0",
        ] {
            expect(|| chunked(99), text.as_bytes(), &Err(Malformed));
        }
        expect(|| chunked(99), b"10000000000000000\r\n", &Err(Malformed));
        for text in ["4\r\n", "4;", "ffffffffffffffff\r\n", "1\r\nx\r\n3\r\n"] {
            expect(|| chunked(3), text.as_bytes(), &Err(TooLarge));
        }
        let zeros = "0".repeat(CHUNK_DIGITS_MAX + 1);
        expect(|| chunked(u64::MAX), zeros.as_bytes(), &Err(TooLarge));
    }

    /// A body of any size has no more than this of extensions and trailers: its framing is bounded by its payload.
    #[test]
    fn framing_is_bounded() {
        let extensions = "1;x\r\n.\r\n".repeat(CHUNK_EXTENSIONS_SIZE_MAX);
        let trailers = format!("0\r\n{}", "X:\r\n".repeat(TRAILERS_SIZE_MAX + 1));
        for text in [extensions, trailers] {
            assert_eq!(decode(chunked(u64::MAX), &[text.as_bytes()]), Err(Malformed));
            assert_eq!(decode(chunked(u64::MAX), &text.as_bytes().chunks(1).collect::<Vec<_>>()), Err(Malformed));
        }
        let plain = "1\r\n.\r\n".repeat(100_000);
        assert_eq!(decode(chunked(100_000), &[plain.as_bytes()]).unwrap().0.len(), 100_000);
    }

    #[test]
    fn trailers_that_look_like_headers_are_dropped() {
        for (name, is_kept) in [
            ("X-Sum", true),
            ("ETag", true),
            ("Grpc-Status", true),
            ("Server-Timing", true),
            ("x-amz-checksum-crc32", true),
            ("Content-Digest", true),
            ("Content", true),
            ("Hosts", true),
            ("Transfer-Encoding", false),
            ("transfer_encoding", false),
            ("CONTENT-LENGTH", false),
            ("Content_Length", false),
            ("Content-Type", false),
            ("Content-Encoding", false),
            ("Content-Range", false),
            ("Host", false),
            ("Connection", false),
            ("Keep-Alive", false),
            ("Trailer", false),
            ("TE", false),
            ("Upgrade", false),
            ("Proxy-Authorization", false),
            ("Proxy_Connection", false),
            ("Authorization", false),
            ("Cookie", false),
            ("Set-Cookie", false),
            ("Cache-Control", false),
            ("Location", false),
            ("Forwarded", false),
            ("X-Forwarded-For", false),
            ("X_Forwarded-Proto", false),
            ("X-Real-IP", false),
            ("Sec-WebSocket-Accept", false),
            ("If-Match", false),
            ("Access-Control-Allow-Origin", false),
        ] {
            assert_eq!(may_forward(name.as_bytes()), is_kept, "{name}");
            let line = format!("{name}: v\r\n");
            let text = format!("0\r\nA: 1\r\n{line}B: 2\r\n\r\n");
            let kept = if is_kept { line } else { String::new() };
            let (_, end, trailers) = decode(chunked(0), &[text.as_bytes()]).unwrap();
            assert_eq!((end, trailers), (Some(text.len()), format!("A: 1\r\n{kept}B: 2\r\n").into_bytes()));
        }
    }

    #[test]
    fn payload_stays_where_it_is_if_it_can() {
        // Of two parts the smaller one is moved, so that a chunk that fills the buffer is not.
        let large = vec![b'x'; 0x1000];
        let mut buffer = [b"1\r\na\r\n1000\r\n", &large[..], b"\r\n1\r\nb\r\n"].concat();
        let (mut at, end) = (0, buffer.len());
        let mut transfer = chunked(u64::MAX);
        let BodyPart { payload, is_last } = transfer.take(&mut buffer, &mut at, end).unwrap();
        assert_eq!((payload.clone(), is_last, at), (11..11 + 1 + 0x1000 + 1, false, end));
        assert_eq!(buffer[payload], [b"a", &large[..], b"b"].concat());
        let (mut at, end) = (0, 5);
        let taken = transfer.take(&mut b"0\r\n\r\n".to_vec(), &mut at, end).unwrap();
        assert_eq!((taken, at), (BodyPart { payload: 0..0, is_last: true }, 5));
        assert_eq!(transfer.trailers.capacity(), 0, "no trailers, no allocation");
    }

    #[test]
    fn lines_of_chunks() {
        let mut buffer = [b'.'; POOL_HEADROOM];
        for (size, is_first, expected) in [
            (1, true, "1\r\n"),
            (1, false, "\r\n1\r\n"),
            (15, false, "\r\nf\r\n"),
            (16, true, "10\r\n"),
            (0xabc0, false, "\r\nabc0\r\n"),
            (usize::MAX, false, "\r\nffffffffffffffff\r\n"),
        ] {
            let start = write_chunk_before(&mut buffer, POOL_HEADROOM, size, is_first);
            assert_eq!(buffer[start..], *expected.as_bytes());
            assert_eq!(buffer[start - 1], b'.');
            buffer.fill(b'.');
        }
        assert_eq!(*last_chunk(true, b""), *b"0\r\n\r\n");
        assert_eq!(*last_chunk(false, b"A: b\r\n"), *b"\r\n0\r\nA: b\r\n\r\n");
    }

    #[test]
    fn payload_survives_any_chunks() {
        // A linear congruential generator.
        let mut seed = 16_u64;
        let mut below = |end: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % end
        };
        for round in 0..300 {
            let payload: Vec<u8> = (0..below(3_000)).map(|_| b"\r\n0;a\xff"[below(6)]).collect();
            let size_max = 1 + below(if round % 2 == 0 { 2_000 } else { 10 });
            let (mut left, mut body, mut is_first) = (&payload[..], Vec::new(), true);
            while !left.is_empty() {
                let (data, rest) = left.split_at((1 + below(size_max)).min(left.len()));
                let mut buffer = [&[0; POOL_HEADROOM], data].concat();
                let start = write_chunk_before(&mut buffer, POOL_HEADROOM, data.len(), is_first);
                body.extend_from_slice(&buffer[start..]);
                (left, is_first) = (rest, false);
            }
            let trailers: &[u8] = if round % 3 == 0 { b"A: b\r\n" } else { b"" };
            body.extend_from_slice(&last_chunk(is_first, trailers));
            let end = body.len();
            body.extend_from_slice(b"0\r\n\r\n");
            let (mut pieces, mut left) = (Vec::new(), &body[..]);
            while !left.is_empty() {
                let (piece, rest) = left.split_at((1 + below(size_max * 2)).min(left.len()));
                pieces.push(piece);
                left = rest;
            }
            let transfer = chunked(payload.len() as u64);
            assert_eq!(decode(transfer, &pieces), Ok((payload, Some(end), trailers.to_vec())), "round {round}");
        }
    }
}
