//! The end of a message body, found by its framing (RFC 9112 sections 6 and 7), and request bodies that are discarded:
//! the next request follows them.

use super::fields::is_token_byte;
use crate::limits::{BODY_DRAIN_SIZE_MAX, CHUNK_DIGITS_MAX, CHUNK_EXTENSIONS_SIZE_MAX, TRAILERS_SIZE_MAX};

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// No body.
    Empty,
    /// By Content-Length, which is not 0.
    Sized(u64),
    /// By the chunked coding.
    Chunked,
}

/// Why reading a body failed. Its end is unknown, so the connection must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// Exceeds the limit on its size, or a chunk size has more than CHUNK_DIGITS_MAX digits.
    TooLarge,
    /// Violates RFC 9112 section 7.1, or exceeds the limits of extensions or trailers.
    Malformed,
}

/// A request body that is parsed to find its end and discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Body(BodyDecoder);

impl Body {
    /// A body before its first byte. Fails if Content-Length exceeds BODY_DRAIN_SIZE_MAX.
    pub fn new(framing: Framing) -> Result<Body, BodyError> {
        BodyDecoder::new(framing, BODY_DRAIN_SIZE_MAX as u64, Counted::All).map(Body)
    }

    /// Consumes bytes. Some: the body ends after this number of them. None: it has not ended.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, BodyError> {
        let mut at = 0;
        while !self.0.is_ended() {
            let Some(step) = self.0.step(&bytes[at..])? else { return Ok(None) };
            at += step.size();
        }
        Ok(Some(at))
    }
}

/// What the limit on a body's size counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    /// Payload alone.
    Payload,
    /// Payload and the framing of chunks.
    All,
}

/// What the next bytes of a body are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyPiece {
    /// This number of bytes of payload, at least 1.
    Payload(usize),
    /// One byte of chunk framing.
    Framing,
    /// One byte of a trailer's name or value, or the colon between them.
    Trailer,
    /// The CR after a trailer.
    TrailerEnd,
}

impl BodyPiece {
    /// Number of bytes.
    pub(super) fn size(self) -> usize {
        match self {
            BodyPiece::Payload(size) => size,
            BodyPiece::Framing | BodyPiece::Trailer | BodyPiece::TrailerEnd => 1,
        }
    }
}

/// Parser state of one body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BodyDecoder {
    state: State,
    counted: Counted,
    /// Bytes left within the limits on the whole body, on chunk extensions and on trailers.
    left: u64,
    extensions_left: usize,
    trailers_left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Bytes left of a body with Content-Length.
    Sized(u64),
    /// Data until the end of the connection.
    UntilClose,
    /// A chunk size so far, and the number of its digits.
    Size(u64, usize),
    /// Blanks after a chunk size, before an extension.
    Blank(u64),
    /// Blanks before an extension's name, or its name (RFC 9112 section 7.1.1).
    ExtensionStart(u64),
    ExtensionName(u64),
    /// Blanks after the name.
    ExtensionNamed(u64),
    ExtensionEquals(u64),
    ExtensionValue(u64),
    ExtensionQuoted(u64),
    ExtensionEscape(u64),
    ExtensionUnquoted(u64),
    /// Expects the LF after a chunk size.
    SizeEnd(u64),
    /// Bytes left of a chunk's data.
    Data(u64),
    DataCr,
    DataLf,
    /// The first byte of a trailer field, or the CR of the final empty line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

impl BodyDecoder {
    /// A body before its first byte. Fails if Content-Length exceeds `size_max`.
    pub(super) fn new(framing: Framing, size_max: u64, counted: Counted) -> Result<BodyDecoder, BodyError> {
        let state = match framing {
            Framing::Empty => State::End,
            Framing::Sized(size) if size > size_max => return Err(BodyError::TooLarge),
            Framing::Sized(0) => State::End,
            Framing::Sized(size) => State::Sized(size),
            Framing::Chunked => State::Size(0, 0),
        };
        Ok(BodyDecoder::at(state, size_max, counted))
    }

    /// A body of any size that ends with its connection.
    pub(super) fn until_close() -> BodyDecoder {
        BodyDecoder::at(State::UntilClose, u64::MAX, Counted::Payload)
    }

    fn at(state: State, size_max: u64, counted: Counted) -> BodyDecoder {
        BodyDecoder {
            state,
            counted,
            left: size_max,
            extensions_left: CHUNK_EXTENSIONS_SIZE_MAX,
            trailers_left: TRAILERS_SIZE_MAX,
        }
    }

    /// Whether the last byte of the body was consumed.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::End
    }

    /// Whether the end of the connection ends the body.
    pub(super) fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Consumes bytes of a body that has not ended, all of a kind. None: there are no bytes. After an error it must
    /// not be called again.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Option<BodyPiece>, BodyError> {
        let Some(&byte) = bytes.first() else { return Ok(None) };
        // Data is skipped as a whole.
        let size = match self.state {
            State::Sized(left) | State::Data(left) => left.min(bytes.len() as u64) as usize,
            State::UntilClose => bytes.len(),
            _ => 0,
        };
        let counted = if size > 0 { size as u64 } else { u64::from(self.counted == Counted::All) };
        self.left = self.left.checked_sub(counted).ok_or(BodyError::TooLarge)?;
        self.state = self.next(byte, size as u64)?;
        Ok(Some(match self.state {
            _ if size > 0 => BodyPiece::Payload(size),
            State::TrailerName | State::TrailerValue => BodyPiece::Trailer,
            State::TrailerLf => BodyPiece::TrailerEnd,
            _ => BodyPiece::Framing,
        }))
    }

    /// The state after this byte, or after `size` bytes of data.
    fn next(&mut self, byte: u8, size: u64) -> Result<State, BodyError> {
        use State::*;
        Ok(match (self.state, byte) {
            (Sized(left), _) if left == size => End,
            (Sized(left), _) => Sized(left - size),
            (UntilClose, _) => UntilClose,
            (Size(chunk, digits), _) if byte.is_ascii_hexdigit() => {
                let chunk = add_digit(chunk, byte)?;
                // Zeros in front could go on forever.
                Size(chunk, if digits < CHUNK_DIGITS_MAX { digits + 1 } else { return Err(BodyError::TooLarge) })
            }
            (Size(chunk, 1..), b'\r') => SizeEnd(self.check_size(chunk)?),
            (Size(chunk, 1..), b';') => ExtensionStart(self.check_size(chunk)?),
            (Size(chunk, 1..), b' ' | b'\t') => {
                take(&mut self.extensions_left)?;
                Blank(chunk)
            }
            (SizeEnd(0), b'\n') => Trailer,
            (SizeEnd(chunk), b'\n') => Data(chunk),
            (Data(left), _) if left == size => DataCr,
            (Data(left), _) => Data(left - size),
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size(0, 0),
            (Trailer, b'\r') => EndLf,
            (Trailer | TrailerName, _) if is_token_byte(byte) => {
                take(&mut self.trailers_left)?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if is_text(byte) => {
                take(&mut self.trailers_left)?;
                TrailerValue
            }
            (TrailerLf, b'\n') => Trailer,
            (EndLf, b'\n') => End,
            (state, _) => {
                take(&mut self.extensions_left)?;
                return self.next_of_extension(state, byte);
            }
        })
    }

    /// As `next`, within chunk extensions: `*( BWS ";" BWS name [ BWS "=" BWS value ] )`.
    fn next_of_extension(&self, state: State, byte: u8) -> Result<State, BodyError> {
        use State::*;
        Ok(match (state, byte) {
            (ExtensionName(chunk) | ExtensionValue(chunk) | ExtensionUnquoted(chunk), b'\r') => SizeEnd(chunk),
            (Blank(chunk), b';') => ExtensionStart(self.check_size(chunk)?),
            (ExtensionName(chunk) | ExtensionNamed(chunk), b';') => ExtensionStart(chunk),
            (ExtensionValue(chunk) | ExtensionUnquoted(chunk), b';') => ExtensionStart(chunk),
            (ExtensionName(chunk) | ExtensionNamed(chunk), b'=') => ExtensionEquals(chunk),
            (ExtensionName(chunk), b' ' | b'\t') => ExtensionNamed(chunk),
            (ExtensionValue(chunk) | ExtensionUnquoted(chunk), b' ' | b'\t') => Blank(chunk),
            (Blank(_) | ExtensionStart(_) | ExtensionNamed(_) | ExtensionEquals(_), b' ' | b'\t') => state,
            (ExtensionStart(chunk) | ExtensionName(chunk), _) if is_token_byte(byte) => ExtensionName(chunk),
            (ExtensionEquals(chunk), b'"') => ExtensionQuoted(chunk),
            (ExtensionEquals(chunk) | ExtensionValue(chunk), _) if is_token_byte(byte) => ExtensionValue(chunk),
            (ExtensionQuoted(chunk), b'"') => ExtensionUnquoted(chunk),
            (ExtensionQuoted(chunk), b'\\') => ExtensionEscape(chunk),
            (ExtensionQuoted(chunk) | ExtensionEscape(chunk), _) if is_text(byte) => ExtensionQuoted(chunk),
            _ => return Err(BodyError::Malformed),
        })
    }

    /// Refuses a chunk larger than the remaining limit before its data arrives.
    fn check_size(&self, chunk: u64) -> Result<u64, BodyError> {
        if chunk > self.left { Err(BodyError::TooLarge) } else { Ok(chunk) }
    }
}

fn add_digit(size: u64, digit: u8) -> Result<u64, BodyError> {
    let value = char::from(digit).to_digit(16).ok_or(BodyError::Malformed)?;
    size.checked_mul(16).map(|size| size + u64::from(value)).ok_or(BodyError::Malformed)
}

fn take(left: &mut usize) -> Result<(), BodyError> {
    *left = left.checked_sub(1).ok_or(BodyError::Malformed)?;
    Ok(())
}

/// A byte of a chunk extension or of a trailer's value: no control character but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;
    use BodyError::*;

    /// Reads a body in these pieces; returns its size if it ends.
    fn read(framing: Framing, pieces: &[&[u8]]) -> Result<Option<usize>, BodyError> {
        let mut body = Body::new(framing)?;
        let mut before = 0;
        for piece in pieces {
            if let Some(used) = body.read(piece)? {
                return Ok(Some(before + used));
            }
            before += piece.len();
        }
        Ok(None)
    }

    /// Expects the same result for the bytes as a whole, byte by byte, and cut in two at every offset.
    fn expect(framing: Framing, bytes: &[u8], expected: Result<Option<usize>, BodyError>) {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!(read(framing, &[bytes]), expected, "whole: {shown:?}");
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(framing, &each), expected, "byte by byte: {shown:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(read(framing, &[first, second]), expected, "cut at {cut}: {shown:?}");
        }
    }

    #[test]
    fn bodies_by_length() {
        expect(Framing::Empty, b"GET", Ok(Some(0)));
        expect(Framing::Sized(3), b"abc", Ok(Some(3)));
        expect(Framing::Sized(3), b"abcGET", Ok(Some(3)));
        expect(Framing::Sized(3), b"ab", Ok(None));
        let bytes = vec![b'\n'; BODY_DRAIN_SIZE_MAX + 1];
        let pieces: Vec<&[u8]> = bytes.chunks(1000).collect();
        let framing = Framing::Sized(BODY_DRAIN_SIZE_MAX as u64);
        assert_eq!(read(framing, &pieces), Ok(Some(BODY_DRAIN_SIZE_MAX)));
        for size in [BODY_DRAIN_SIZE_MAX as u64 + 1, u64::MAX] {
            assert_eq!(Body::new(Framing::Sized(size)), Err(TooLarge));
        }
    }

    #[test]
    fn good_chunks() {
        // A bar marks the end of the body.
        for text in [
            "0\r\n\r\n|",
            "0\r\n\r\n|GET / HTTP/1.1",
            "3\r\nabc\r\n0\r\n\r\n|0\r\n\r\n",
            "3\r\n\r\n0\r\n0\r\n\r\n|",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n|x",
            "0003\r\nabc\r\n0\r\n\r\n|",
            "3;name=value;other=\"a;b\"\r\nabc\r\n0;last\r\n\r\n|",
            "3 \t; name\r\nabc\r\n0\r\n\r\n|",
            "3;a\t;\tb = \"\\\"\" ;c=d\r\nabc\r\n0\r\n\r\n|",
            "0\r\nX-Sum: 1\r\nX-Empty:\r\n\r\n|",
        ] {
            let (body, _) = text.split_once('|').unwrap();
            expect(Framing::Chunked, text.replace('|', "").as_bytes(), Ok(Some(body.len())));
            for size in 0..body.len() {
                expect(Framing::Chunked, &body.as_bytes()[..size], Ok(None));
            }
        }
    }

    #[test]
    fn bad_chunks() {
        let extension = format!("1;{}\r\n", "x".repeat(CHUNK_EXTENSIONS_SIZE_MAX + 1));
        let extensions = "1;x\r\n.\r\n".repeat(CHUNK_EXTENSIONS_SIZE_MAX + 1);
        let blanks = format!("1{}", " ".repeat(CHUNK_EXTENSIONS_SIZE_MAX + 1));
        let trailer = format!("0\r\nX:{}\r\n", "x".repeat(TRAILERS_SIZE_MAX + 1));
        let trailers = format!("0\r\n{}", "X:\r\n".repeat(TRAILERS_SIZE_MAX + 1));
        for text in [
            "x",
            "\r\n",
            ";x\r\n",
            " 3\r\n",
            "-1\r\n",
            "+3\r\n",
            "0x3\r\n",
            "3\n",
            "3\rabc",
            "3 \r\n",
            "3 3\r\n",
            "3;x\n",
            "3;\r\n",
            "3;x \r\n",
            "3;x=\"y\r\n",
            "3;x\0\r\n",
            "3;x\x7f",
            "3\r\nabc0",
            "3\r\nabc\n",
            "3\r\nabc\r0",
            "3\r\nabcd\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\n\rG",
            "0\r\nX\r\n",
            "0\r\n: y\r\n",
            "0\r\n folded\r\n",
            "0\r\nX : y\r\n",
            "0\r\nX: y\n",
            "0\r\nX: y\rz",
            "0\r\nX: \0",
            "0\r\nX: y\r\n folded\r\n",
            &extension,
            &blanks,
            &trailer,
        ] {
            expect(Framing::Chunked, text.as_bytes(), Err(Malformed));
        }
        for text in [extensions, trailers] {
            assert_eq!(read(Framing::Chunked, &[text.as_bytes()]), Err(Malformed));
        }
    }

    #[test]
    fn chunks_without_end_are_too_large() {
        let (one, size) = (b"1\r\nx\r\n", BODY_DRAIN_SIZE_MAX);
        let many = one.repeat(size / one.len() + 1);
        assert_eq!(read(Framing::Chunked, &[&many]), Err(TooLarge));
        assert_eq!(read(Framing::Chunked, &many.chunks(1).collect::<Vec<_>>()), Err(TooLarge));
        let zeros = vec![b'0'; size + 1];
        assert_eq!(read(Framing::Chunked, &[&zeros]), Err(TooLarge));
        for text in ["10000\r\n", "10000;", "ffffffffffffffff\r\n"] {
            expect(Framing::Chunked, text.as_bytes(), Err(TooLarge));
        }
        // The limit includes the framing of the chunks.
        let data = vec![b'x'; size - "ffff\r\n".len() - "\r\n0\r\n\r\n".len()];
        let whole = [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n0\r\n\r\n"].concat();
        assert_eq!(read(Framing::Chunked, &[&whole]), Ok(Some(size)));
    }
}
