//! Splits a byte stream into JSON texts (RFC 8259), however the stream is divided into reads. Each byte is checked as it
//! arrives, so that an invalid text is reported at once, and only an incomplete text is stored. UTF-8 and the values of
//! strings are checked later, in `request.rs`.

use std::mem;

use server::options::Protocol;

use crate::limits::{MESSAGE_SIZE_MAX, NESTING_MAX};

/// What separates texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Separator {
    /// Nothing: texts follow each other.
    None,
    /// This byte, which makes an incomplete text invalid.
    Byte(u8),
}

/// The separator of requests.
pub(crate) fn separator(protocol: Protocol) -> Separator {
    match protocol {
        Protocol::Lines => Separator::Byte(b'\n'),
        Protocol::Nul => Separator::Byte(0),
        _ => Separator::None,
    }
}

/// The byte that ends an answer.
pub(crate) fn terminator(protocol: Protocol) -> u8 {
    if protocol == Protocol::Nul { 0 } else { b'\n' }
}

/// A text in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// A complete text.
    Text(Vec<u8>),
    /// Invalid JSON, or nested too deeply. The rest of it is skipped.
    Invalid,
    /// Longer than `MESSAGE_SIZE_MAX`. The start of the next text is unknown.
    TooLong,
}

/// What is expected next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The start of a text.
    Between,
    /// After an error: skips to a separator, or to the end of the read.
    Skip,
    /// In the next read after an error: skips to an array or object.
    SkipToStart,
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After a comma in an object.
    Key,
    /// After `{`.
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    String {
        is_key: bool,
    },
    /// In a string after a backslash.
    Escape {
        is_key: bool,
    },
    /// In a string, with `left` hexadecimal digits to come.
    Hex {
        is_key: bool,
        left: u8,
    },
    /// The rest of true, false or null.
    Word(&'static [u8]),
    Number(Number),
}

/// The last byte of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Minus,
    /// A leading zero, which no digit may follow.
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

#[derive(Debug)]
pub(crate) struct Splitter {
    separator: Separator,
    state: State,
    /// Open arrays and objects, the innermost last; true: an object.
    open: Vec<bool>,
    text: Vec<u8>,
    /// Bytes of the text so far, also of one that is too deep and not stored.
    size: usize,
    is_too_deep: bool,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl Splitter {
    pub(crate) fn new(separator: Separator) -> Splitter {
        let (state, open, text) = (State::Between, Vec::new(), Vec::new());
        Splitter { separator, state, open, text, size: 0, is_too_deep: false }
    }

    /// Bytes of memory.
    pub(crate) fn held_size(&self) -> usize {
        self.text.len() + self.open.capacity()
    }

    /// The next text in `bytes[*at..]`; `at` is moved after the consumed bytes. None: all were consumed.
    pub(crate) fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<Found> {
        let mut kept = *at;
        while let Some(byte) = bytes.get(*at).copied() {
            if self.is_separator(byte) {
                self.keep(&bytes[kept..*at]);
                *at += 1;
                kept = *at;
                match self.end() {
                    None => continue,
                    found => return found,
                }
            }
            let was_outside = self.is_outside();
            let Ok(is_taken) = self.step(byte) else {
                // The byte may be the separator.
                *at += usize::from(!self.is_end(byte));
                return Some(self.fail(State::Skip));
            };
            *at += usize::from(is_taken);
            self.size += usize::from(is_taken);
            if was_outside {
                kept = *at - usize::from(!self.is_outside());
                self.size = *at - kept;
            }
            if self.size > MESSAGE_SIZE_MAX {
                self.fail(State::Skip);
                return Some(Found::TooLong);
            }
            if self.state == State::Between && !was_outside {
                self.keep(&bytes[kept..*at]);
                return Some(self.found());
            }
        }
        if !self.is_outside() {
            self.keep(&bytes[kept..*at]);
        }
        None
    }

    /// Handles a separator, or the end of the stream.
    pub(crate) fn end(&mut self) -> Option<Found> {
        match self.state {
            State::Between | State::Skip | State::SkipToStart => {
                self.state = State::Between;
                None
            }
            State::Number(number) if self.open.is_empty() && number.may_end() => Some(self.found()),
            _ => Some(self.fail(State::Between)),
        }
    }

    /// Handles the end of a read. Without a separator it ends a number outside an array, and most likely an invalid text.
    pub(crate) fn end_of_read(&mut self) -> Option<Found> {
        match self.state {
            State::Skip if self.separator == Separator::None => {
                self.state = State::SkipToStart;
                None
            }
            State::Number(_) if self.separator == Separator::None && self.open.is_empty() => self.end(),
            _ => None,
        }
    }

    /// Whether the byte ends any text.
    fn is_separator(&self, byte: u8) -> bool {
        self.separator == Separator::Byte(byte)
    }

    /// Whether the byte ends an invalid text.
    fn is_end(&self, byte: u8) -> bool {
        self.is_separator(byte) || self.separator == Separator::None && matches!(byte, b'\n' | 0)
    }

    fn is_outside(&self) -> bool {
        matches!(self.state, State::Between | State::Skip | State::SkipToStart)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !self.is_too_deep {
            self.text.extend_from_slice(bytes);
        }
    }

    fn found(&mut self) -> Found {
        self.state = State::Between;
        self.size = 0;
        let text = mem::take(&mut self.text);
        if mem::take(&mut self.is_too_deep) { Found::Invalid } else { Found::Text(text) }
    }

    fn fail(&mut self, state: State) -> Found {
        *self = Splitter { state, ..Splitter::new(self.separator) };
        Found::Invalid
    }

    /// Checks a byte. False: it was not consumed, since a number ends before it.
    fn step(&mut self, byte: u8) -> Result<bool, ()> {
        self.state = match self.state {
            // ouistiti's clients end requests with a NUL.
            State::Between if is_space(byte) || byte == 0 => State::Between,
            State::Skip | State::SkipToStart if self.is_end(byte) => State::Between,
            State::Skip => State::Skip,
            State::SkipToStart if !matches!(byte, b'{' | b'[') => State::SkipToStart,
            State::Value | State::ValueOrEnd | State::Key | State::KeyOrEnd | State::Colon | State::CommaOrEnd
                if is_space(byte) =>
            {
                self.state
            }
            State::ValueOrEnd if byte == b']' => self.close(false)?,
            State::Between | State::SkipToStart | State::Value | State::ValueOrEnd => self.begin(byte)?,
            State::KeyOrEnd if byte == b'}' => self.close(true)?,
            State::Key | State::KeyOrEnd if byte == b'"' => State::String { is_key: true },
            State::Key | State::KeyOrEnd => return Err(()),
            State::Colon if byte == b':' => State::Value,
            State::Colon => return Err(()),
            State::CommaOrEnd => self.continue_or_close(byte)?,
            State::String { is_key } => match byte {
                b'"' if is_key => State::Colon,
                b'"' => self.after_value(),
                b'\\' => State::Escape { is_key },
                0x20.. => State::String { is_key },
                _ => return Err(()),
            },
            State::Escape { is_key } => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::String { is_key },
                b'u' => State::Hex { is_key, left: 4 },
                _ => return Err(()),
            },
            State::Hex { is_key, left } if byte.is_ascii_hexdigit() => match left {
                1 => State::String { is_key },
                _ => State::Hex { is_key, left: left - 1 },
            },
            State::Hex { .. } => return Err(()),
            State::Word(rest) => match rest {
                [only] if *only == byte => self.after_value(),
                [first, rest @ ..] if *first == byte => State::Word(rest),
                _ => return Err(()),
            },
            State::Number(number) => match number.next(byte) {
                Some(number) => State::Number(number),
                None if number.may_end() => {
                    self.state = self.after_value();
                    return Ok(false);
                }
                None => return Err(()),
            },
        };
        Ok(true)
    }

    fn begin(&mut self, byte: u8) -> Result<State, ()> {
        Ok(match byte {
            b'{' | b'[' => {
                let is_object = byte == b'{';
                self.open.push(is_object);
                if self.open.len() > NESTING_MAX {
                    self.is_too_deep = true;
                    self.text = Vec::new();
                }
                if is_object { State::KeyOrEnd } else { State::ValueOrEnd }
            }
            b'"' => State::String { is_key: false },
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            _ => return Err(()),
        })
    }

    fn close(&mut self, is_object: bool) -> Result<State, ()> {
        if self.open.pop() == Some(is_object) { Ok(self.after_value()) } else { Err(()) }
    }

    fn continue_or_close(&mut self, byte: u8) -> Result<State, ()> {
        match (byte, self.open.last()) {
            (b',', Some(true)) => Ok(State::Key),
            (b',', Some(false)) => Ok(State::Value),
            (b'}', _) => self.close(true),
            (b']', _) => self.close(false),
            _ => Err(()),
        }
    }

    fn after_value(&self) -> State {
        if self.open.is_empty() { State::Between } else { State::CommaOrEnd }
    }
}

impl Number {
    fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::Exponent)
    }

    /// The state after this byte; None: it is not part of the number.
    fn next(self, byte: u8) -> Option<Number> {
        match (self, byte) {
            (Number::Minus, b'0') => Some(Number::Zero),
            (Number::Minus | Number::Integer, b'0'..=b'9') => Some(Number::Integer),
            (Number::Zero | Number::Integer, b'.') => Some(Number::Point),
            (Number::Point | Number::Fraction, b'0'..=b'9') => Some(Number::Fraction),
            (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Some(Number::E),
            (Number::E, b'+' | b'-') => Some(Number::Sign),
            (Number::E | Number::Sign | Number::Exponent, b'0'..=b'9') => Some(Number::Exponent),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
