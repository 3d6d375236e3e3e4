//! Incremental UTF-8 validation (RFC 6455 section 8.1). At most three bytes are kept between pieces.

/// How a piece of text ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// With a complete character.
    Whole,
    /// With this many bytes of an incomplete character that may still become valid.
    Cut(usize),
    /// The bytes are not UTF-8, whatever follows.
    Invalid,
}

/// How `bytes` end. They must begin with a character.
pub fn tail(bytes: &[u8]) -> Tail {
    match std::str::from_utf8(bytes) {
        Ok(_) => Tail::Whole,
        Err(error) if error.error_len().is_none() => Tail::Cut(bytes.len() - error.valid_up_to()),
        Err(_) => Tail::Invalid,
    }
}

/// The position of the first byte that makes the bytes invalid, whatever follows.
fn impossible_at(bytes: &[u8]) -> usize {
    let Err(error) = std::str::from_utf8(bytes) else { return bytes.len() };
    let start = error.valid_up_to();
    // An invalid sequence may begin with bytes that are valid in another one.
    (start..bytes.len()).find(|at| tail(&bytes[start..=*at]) == Tail::Invalid).unwrap_or(bytes.len())
}

/// The bytes are not UTF-8, whatever follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidUtf8 {
    /// The position in the piece of the first invalid byte.
    pub at: usize,
}

/// Validates a text piece by piece. Fails at the first byte that makes it invalid.
#[derive(Clone, Copy, Default, Debug)]
pub struct Validator {
    carried: [u8; 3],
    carried_size: u8,
}

impl Validator {
    /// Validates the next piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let mut at = 0;
        while self.carried_size > 0 {
            let Some(&byte) = piece.get(at) else { return Ok(()) };
            self.complete_carried(byte, at)?;
            at += 1;
        }
        let rest = &piece[at..];
        match tail(rest) {
            Tail::Whole => Ok(()),
            Tail::Invalid => Err(InvalidUtf8 { at: at + impossible_at(rest) }),
            Tail::Cut(size) => {
                self.carried[..size].copy_from_slice(&rest[rest.len() - size..]);
                self.carried_size = size as u8;
                Ok(())
            }
        }
    }

    /// Ends the text; an incomplete character is an error. The validator can be used for the next text.
    pub fn finish(&mut self) -> Result<(), InvalidUtf8> {
        match std::mem::take(&mut self.carried_size) {
            0 => Ok(()),
            _ => Err(InvalidUtf8 { at: 0 }),
        }
    }

    /// Bytes of an incomplete character at the end of the last piece.
    pub fn cut_size(&self) -> usize {
        self.carried_size.into()
    }

    fn complete_carried(&mut self, byte: u8, at: usize) -> Result<(), InvalidUtf8> {
        let size = self.carried_size as usize;
        let mut character = [0; 4];
        character[..size].copy_from_slice(&self.carried[..size]);
        character[size] = byte;
        match tail(&character[..=size]) {
            Tail::Whole => self.carried_size = 0,
            Tail::Invalid => return Err(InvalidUtf8 { at }),
            Tail::Cut(_) => {
                self.carried[size] = byte;
                self.carried_size += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&[u8]; 13] = [
        b"",
        b"plain",
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes(),
        "\u{10ffff}\u{7ff}\u{800}\u{ffff}".as_bytes(),
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"a\xff",
        b"\xce",
        b"\xf0\x9f\x98",
        b"\x80",
        b"\xf0\x9f\x98\x80\xf0\x9f",
    ];

    fn whole(text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok()
    }

    #[test]
    fn agrees_with_std_at_every_cut() {
        for text in TEXTS {
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut validator = Validator::default();
                    let good = [&text[..first], &text[first..second], &text[second..]]
                        .iter()
                        .all(|piece| validator.feed(piece).is_ok())
                        && validator.finish().is_ok();
                    assert_eq!(good, whole(text), "{text:x?} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn fails_at_the_first_impossible_byte() {
        for (prefix, bad) in [(&b"\xf4"[..], 0x90), (b"\xed", 0xa0), (b"\xe0", 0x80), (b"ab\xce\xba", 0xff)] {
            let mut validator = Validator::default();
            for byte in prefix {
                validator.feed(&[*byte]).unwrap();
            }
            assert_eq!(validator.feed(&[bad]), Err(InvalidUtf8 { at: 0 }), "{prefix:x?} {bad:x}");
            for cut in 0..=prefix.len() {
                let mut validator = Validator::default();
                validator.feed(&prefix[..cut]).unwrap();
                let rest = [&prefix[cut..], &[bad], b"more"].concat();
                let at = prefix.len() - cut;
                assert_eq!(validator.feed(&rest), Err(InvalidUtf8 { at }), "{prefix:x?} {bad:x}, cut at {cut}");
            }
        }
    }
}
