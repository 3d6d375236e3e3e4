//! Finds JSON texts (RFC 8259) in a stream of bytes, however it is cut or joined. It judges each byte as it comes, so
//! that a mistake is told at once and not waited behind for ever, and keeps nothing but the text that is not whole.
//! What only a whole text shows (UTF-8, what its strings mean) is left to others.

use std::mem;

use server::options::Protocol;

use crate::limits::{MESSAGE_SIZE_MAX, NESTING_MAX};

/// Where texts end beside their own last bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Border {
    /// Nowhere: texts follow each other.
    None,
    /// At this byte: what is not whole there never will be.
    Byte(u8),
}

/// What separates requests.
pub fn separator(protocol: Protocol) -> Border {
    match protocol {
        Protocol::Lines => Border::Byte(b'\n'),
        Protocol::Nul => Border::Byte(0),
        _ => Border::None,
    }
}

/// What ends an answer.
pub fn end(protocol: Protocol) -> u8 {
    if protocol == Protocol::Nul { 0 } else { b'\n' }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A whole text.
    Text(Vec<u8>),
    /// What is no JSON, or is nested too deeply. What belongs to it is left out.
    Fault,
    /// A text that is too long. There is no telling where the next one begins.
    TooLong,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A text.
    Between,
    /// Behind a mistake: anything up to a border, or to the end of what was read.
    Lost,
    /// Behind that: the rest of it, up to an array or object.
    Astray,
    /// A value.
    Value,
    /// Behind `[`.
    ValueOrEnd,
    /// Behind a comma in an object.
    Key,
    /// Behind `{`.
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// In a string, which is a key or a value.
    String {
        is_key: bool,
    },
    /// In a string behind a backslash.
    Escape {
        is_key: bool,
    },
    /// In a string, with so many hexadecimal digits to come.
    Hex {
        is_key: bool,
        left: u8,
    },
    /// The rest of true, false or null.
    Word(&'static [u8]),
    Number(Number),
}

/// What a number's last byte was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Minus,
    /// A leading zero, which no digit follows.
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// A search for texts.
#[derive(Debug)]
pub struct Splitter {
    border: Border,
    state: State,
    /// What is open: true is an object.
    open: Vec<bool>,
    text: Vec<u8>,
    /// Bytes of the text so far, those of one that is not kept too.
    size: usize,
    is_too_deep: bool,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl Splitter {
    /// Nothing has come yet.
    pub fn new(border: Border) -> Splitter {
        let (state, open, text) = (State::Between, Vec::new(), Vec::new());
        Splitter { border, state, open, text, size: 0, is_too_deep: false }
    }

    /// Bytes that it keeps.
    pub fn held_size(&self) -> usize {
        self.text.len() + self.open.capacity()
    }

    /// The next text in these bytes, from `at` on, which moves behind what was looked at. None: all of it was.
    pub fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<Found> {
        let mut kept = *at;
        while let Some(byte) = bytes.get(*at).copied() {
            if self.is_border(byte) {
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
                // The byte may be the next text's border.
                *at += usize::from(!self.is_end(byte));
                return Some(self.lose(State::Lost));
            };
            *at += usize::from(is_taken);
            self.size += usize::from(is_taken);
            if was_outside {
                kept = *at - usize::from(!self.is_outside());
                self.size = *at - kept;
            }
            if self.size > MESSAGE_SIZE_MAX {
                self.lose(State::Lost);
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

    /// There is a border here, or nothing more will come.
    pub fn end(&mut self) -> Option<Found> {
        match self.state {
            State::Between | State::Lost | State::Astray => {
                self.state = State::Between;
                None
            }
            State::Number(number) if self.open.is_empty() && number.may_end() => Some(self.found()),
            _ => Some(self.lose(State::Between)),
        }
    }

    /// All that could be read at once was looked at. Where nothing else separates texts, that is the best guess at
    /// where what is wrong ends, and a number that stands alone.
    pub fn pause(&mut self) -> Option<Found> {
        match self.state {
            State::Lost if self.border == Border::None => {
                self.state = State::Astray;
                None
            }
            State::Number(_) if self.border == Border::None && self.open.is_empty() => self.end(),
            _ => None,
        }
    }

    /// A byte that ends a text wherever it stands.
    fn is_border(&self, byte: u8) -> bool {
        self.border == Border::Byte(byte)
    }

    /// A byte that ends what is wrong.
    fn is_end(&self, byte: u8) -> bool {
        self.is_border(byte) || self.border == Border::None && matches!(byte, b'\n' | 0)
    }

    fn is_outside(&self) -> bool {
        matches!(self.state, State::Between | State::Lost | State::Astray)
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
        if mem::take(&mut self.is_too_deep) { Found::Fault } else { Found::Text(text) }
    }

    fn lose(&mut self, state: State) -> Found {
        *self = Splitter { state, ..Splitter::new(self.border) };
        Found::Fault
    }

    /// Judges a byte. False: it was not taken, since a number ends before it.
    fn step(&mut self, byte: u8) -> Result<bool, ()> {
        self.state = match self.state {
            // Programs for ouistiti end their requests with a NUL.
            State::Between if is_blank(byte) || byte == 0 => State::Between,
            State::Lost | State::Astray if self.is_end(byte) => State::Between,
            State::Lost => State::Lost,
            State::Astray if !matches!(byte, b'{' | b'[') => State::Astray,
            State::Value | State::ValueOrEnd | State::Key | State::KeyOrEnd | State::Colon | State::CommaOrEnd
                if is_blank(byte) =>
            {
                self.state
            }
            State::ValueOrEnd if byte == b']' => self.close(false)?,
            State::Between | State::Astray | State::Value | State::ValueOrEnd => self.begin(byte)?,
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

    /// What this byte makes of it; None: it is none of the number's.
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
