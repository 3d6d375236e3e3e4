//! Splits a file and its includes into tokens.

use std::fmt;
use std::path::Path;

use super::Read;
use crate::config::problem::{Location, Problems};
use crate::limits::{CONFIG_NAME_SIZE_MAX, CONFIG_SIZE_MAX, INCLUDE_DEPTH_MAX, INCLUDES_MAX};

/// A pair of brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bracket {
    /// `{ }`
    Group,
    /// `( )`
    List,
    /// `[ ]`
    Array,
}

impl Bracket {
    /// Its opening and closing character.
    pub(crate) fn pair(self) -> (char, char) {
        match self {
            Bracket::Group => ('{', '}'),
            Bracket::List => ('(', ')'),
            Bracket::Array => ('[', ']'),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum SyntaxToken {
    /// `[A-Za-z*][-A-Za-z0-9_*]*`, but neither `true` nor `false`.
    Name(String),
    /// `=` or `:`
    Equals,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// An opening bracket.
    Open(Bracket),
    /// A closing bracket.
    Close(Bracket),
    /// `true` or `false`, case-insensitive.
    Bool(bool),
    /// With an optional suffix L or LL.
    Integer(i64),
    /// With a point or an exponent; finite.
    Float(f64),
    /// One quoted string, escapes replaced.
    Text(Vec<u8>),
    /// Not a token, and the remedy.
    Junk(String, &'static str),
    /// End of the input.
    End,
}

impl fmt::Display for SyntaxToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxToken::Name(text) | SyntaxToken::Junk(text, _) => write!(f, "{text:?}"),
            SyntaxToken::Equals => f.write_str("="),
            SyntaxToken::Comma => f.write_str("a comma"),
            SyntaxToken::Semicolon => f.write_str("a semicolon"),
            SyntaxToken::Open(bracket) => write!(f, "{}", bracket.pair().0),
            SyntaxToken::Close(bracket) => write!(f, "{}", bracket.pair().1),
            SyntaxToken::Bool(value) => write!(f, "{value}"),
            SyntaxToken::Integer(_) | SyntaxToken::Float(_) => f.write_str("a number"),
            SyntaxToken::Text(_) => f.write_str("a string"),
            SyntaxToken::End => f.write_str("the end of the file"),
        }
    }
}

/// A file and the position in it.
struct Source {
    bytes: Vec<u8>,
    at: usize,
    location: Location,
}

impl Source {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, count: usize) {
        let end = self.bytes.len().min(self.at + count);
        self.location.line += self.bytes[self.at..end].iter().filter(|byte| **byte == b'\n').count() as u32;
        self.at = end;
    }

    /// Consumes bytes while `belongs` holds. Its arguments are the bytes consumed so far, and the next one.
    fn run(&mut self, belongs: impl Fn(&[u8], u8) -> bool) -> String {
        let rest = self.rest();
        let end = (0..rest.len()).find(|at| !belongs(&rest[..*at], rest[*at])).unwrap_or(rest.len());
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.skip(end);
        text
    }
}

/// Yields the tokens of a file. Included files are read where they are included.
pub(crate) struct Lexer<'a, 'r> {
    read: &'a mut Read<'r>,
    /// The files being read, the innermost include last.
    stack: Vec<Source>,
    size: usize,
    files: usize,
    /// Location of the end of the last file.
    end: Location,
}

impl<'a, 'r> Lexer<'a, 'r> {
    pub(crate) fn new(name: &str, read: &'a mut Read<'r>, problems: &mut Problems) -> Lexer<'a, 'r> {
        let end = problems.add_source(name);
        let mut lexer = Lexer { read, stack: Vec::new(), size: 0, files: 0, end };
        if let Err(reason) = lexer.open(name, end) {
            problems.broken(end, reason);
        }
        lexer
    }

    /// The next token and its location.
    pub(crate) fn next(&mut self, problems: &mut Problems) -> (Location, SyntaxToken) {
        loop {
            let Some(source) = self.stack.last_mut() else { return (self.end, SyntaxToken::End) };
            if let Err(begin) = skip_blanks(source) {
                problems.broken(begin, "the comment that begins here is not terminated: write */");
            }
            let Some(first) = source.peek() else {
                self.end = source.location;
                self.stack.pop();
                continue;
            };
            if source.rest().starts_with(b"@include") {
                self.include(problems);
                continue;
            }
            let location = source.location;
            return (location, token(source, first, problems));
        }
    }

    fn include(&mut self, problems: &mut Problems) {
        let Some(source) = self.stack.last_mut() else { return };
        let location = source.location;
        source.skip("@include".len());
        while matches!(source.peek(), Some(b' ' | b'\t')) {
            source.skip(1);
        }
        let path = if source.peek() == Some(b'"') { text(source, problems) } else { Vec::new() };
        let path = String::from_utf8_lossy(&path).into_owned();
        if path.is_empty() {
            return problems.broken(location, "@include names no file: write @include \"FILE\"");
        }
        let folder = Path::new(problems.source(location)).parent().unwrap_or(Path::new(""));
        let name = folder.join(path).to_string_lossy().into_owned();
        let opened = if self.stack.len() > INCLUDE_DEPTH_MAX {
            Err(format!("@include: files are nested more than {INCLUDE_DEPTH_MAX} deep: does one include itself?"))
        } else if self.files > INCLUDES_MAX {
            Err(format!("@include: more than {INCLUDES_MAX} files are included"))
        } else {
            let whole = problems.add_source(&name);
            self.open(&name, whole).map_err(|reason| format!("@include: {name} {reason}"))
        };
        if let Err(reason) = opened {
            problems.broken(location, reason);
        }
    }

    fn open(&mut self, name: &str, whole: Location) -> Result<(), String> {
        let mut bytes = (self.read)(name)?;
        self.files += 1;
        self.size += bytes.len();
        if self.size > CONFIG_SIZE_MAX {
            return Err(format!("is too large: a configuration has {CONFIG_SIZE_MAX} bytes at most"));
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            return Err(format!("has a NUL byte in line {line}: save the file as UTF-8"));
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        self.stack.push(Source { bytes, at: 0, location: Location { line: 1, ..whole } });
        Ok(())
    }
}

/// Skips white space and comments. The error is the location of an unterminated comment.
fn skip_blanks(source: &mut Source) -> Result<(), Location> {
    while let Some(first) = source.peek() {
        let rest = source.rest();
        let length = if (7..=13).contains(&first) || first == b' ' {
            1
        } else if first == b'#' || rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            let Some(end) = rest.get(2..).and_then(|rest| rest.windows(2).position(|pair| pair == b"*/")) else {
                let begin = source.location;
                source.skip(usize::MAX - source.at);
                return Err(begin);
            };
            end + 4
        } else {
            return Ok(());
        };
        source.skip(length);
    }
    Ok(())
}

fn token(source: &mut Source, first: u8, problems: &mut Problems) -> SyntaxToken {
    let single = match first {
        b'=' | b':' => SyntaxToken::Equals,
        b',' => SyntaxToken::Comma,
        b';' => SyntaxToken::Semicolon,
        b'{' => SyntaxToken::Open(Bracket::Group),
        b'(' => SyntaxToken::Open(Bracket::List),
        b'[' => SyntaxToken::Open(Bracket::Array),
        b'}' => SyntaxToken::Close(Bracket::Group),
        b')' => SyntaxToken::Close(Bracket::List),
        b']' => SyntaxToken::Close(Bracket::Array),
        b'"' => return SyntaxToken::Text(text(source, problems)),
        b'+' | b'-' | b'.' | b'0'..=b'9' => return number(source.run(is_in_number)),
        _ if first.is_ascii_alphabetic() || first == b'*' => return word(source.run(|_, byte| is_in_name(byte))),
        _ => return SyntaxToken::Junk(source.run(is_in_junk), "write strings in double quotes"),
    };
    source.skip(1);
    single
}

fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*')
}

/// A sign is the first character, or follows the e of an exponent. A hexadecimal number has an x as its second or third
/// character, and its e is a digit.
fn is_in_number(before: &[u8], byte: u8) -> bool {
    let has_x = || before.iter().take(3).any(|byte| matches!(byte, b'x' | b'X'));
    let is_exponent = || matches!(before, [.., b'e' | b'E']) && !has_x();
    match byte {
        b'+' | b'-' => before.is_empty() || is_exponent(),
        _ => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'),
    }
}

fn is_in_junk(_: &[u8], byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b";,{}()[]=\"#".contains(&byte)
}

fn word(text: String) -> SyntaxToken {
    match () {
        () if text.eq_ignore_ascii_case("true") => SyntaxToken::Bool(true),
        () if text.eq_ignore_ascii_case("false") => SyntaxToken::Bool(false),
        () if text.len() > CONFIG_NAME_SIZE_MAX => SyntaxToken::Junk(text, "write a shorter name"),
        () => SyntaxToken::Name(text),
    }
}

fn number(text: String) -> SyntaxToken {
    let lower = text.to_ascii_lowercase();
    let radix = match lower.as_bytes() {
        [b'0', b'x', ..] => 16,
        [b'0', b'b', ..] => 2,
        [b'0', b'o' | b'q', ..] => 8,
        _ => 10,
    };
    let is_integer = |digits: &str| !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    // As in the C library, the suffix is in upper case only.
    let whole = text.strip_suffix("LL").or(text.strip_suffix('L')).unwrap_or(&text);
    let parsed = if radix == 10 {
        is_integer(whole.strip_prefix(['+', '-']).unwrap_or(whole)).then(|| whole.parse())
    } else {
        whole.get(2..).filter(|digits| is_integer(digits)).map(|digits| i64::from_str_radix(digits, radix))
    };
    match parsed {
        Some(Ok(integer)) => return SyntaxToken::Integer(integer),
        Some(Err(_)) => return SyntaxToken::Junk(text, "an integer has 64 bits at most"),
        None => {}
    }
    let is_float = lower.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte));
    match lower.parse::<f64>() {
        Ok(float) if is_float && float.is_finite() => SyntaxToken::Float(float),
        _ if lower.starts_with(|first: char| first.is_ascii_digit()) && lower.ends_with(char::is_alphabetic) => {
            SyntaxToken::Junk(text, "write numbers without a unit, and strings in double quotes")
        }
        _ => SyntaxToken::Junk(text, "write strings in double quotes"),
    }
}

/// The text between quotes. A backslash that begins no known escape sequence is literal.
fn text(source: &mut Source, problems: &mut Problems) -> Vec<u8> {
    let begin = source.location;
    source.skip(1);
    let mut bytes = Vec::new();
    loop {
        let hex = |at| source.rest().get(at).and_then(|byte: &u8| char::from(*byte).to_digit(16));
        let (byte, length) = match (source.peek(), source.rest().get(1).copied()) {
            (None, _) => {
                problems.broken(begin, "the string that begins here is not terminated: write \"");
                return bytes;
            }
            (Some(b'"'), _) => {
                source.skip(1);
                return bytes;
            }
            (Some(b'\\'), Some(b'a')) => (7, 2),
            (Some(b'\\'), Some(b'b')) => (8, 2),
            (Some(b'\\'), Some(b't')) => (b'\t', 2),
            (Some(b'\\'), Some(b'n')) => (b'\n', 2),
            (Some(b'\\'), Some(b'v')) => (11, 2),
            (Some(b'\\'), Some(b'f')) => (12, 2),
            (Some(b'\\'), Some(b'r')) => (b'\r', 2),
            (Some(b'\\'), Some(escaped @ (b'\\' | b'"'))) => (escaped, 2),
            (Some(b'\\'), Some(b'x' | b'X')) => match (hex(2), hex(3)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, 4),
                _ => (b'\\', 1),
            },
            (Some(other), _) => (other, 1),
        };
        bytes.push(byte);
        source.skip(length);
    }
}
