//! HTTP/1.1 requests, read the slow and plain way (RFC 9112): line by line, for those that were found to be good.

/// A good request's head.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its first line: method, target, version.
    pub line: [&'a [u8]; 3],
    /// Names and values.
    pub fields: Vec<(&'a [u8], &'a [u8])>,
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// At once.
    Empty,
    /// After this number of bytes.
    Sized(u64),
    /// Behind its last chunk.
    Chunked,
    /// Nobody can tell.
    Unknown,
}

impl<'a> Request<'a> {
    /// Takes a head apart, empty line included.
    pub fn of(head: &'a [u8]) -> Request<'a> {
        let text = head.strip_suffix(b"\r\n\r\n").expect("an empty line");
        let mut lines = split(text, b"\r\n").into_iter();
        let line = split(lines.next().expect("a first line"), b" ").try_into().expect("three words");
        let field = |line: &'a [u8]| {
            let at = line.iter().position(|byte| *byte == b':').expect("a colon");
            (&line[..at], trim(&line[at + 1..]))
        };
        Request { line, fields: lines.map(field).collect() }
    }

    /// All values of a header.
    pub fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let is_named = |other: &[u8]| other.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(|(other, _)| is_named(other)).map(|(_, value)| *value).collect()
    }

    /// How the body ends (RFC 9112 section 6.3).
    pub fn ends(&self) -> Ends {
        match (&self.values("content-length")[..], &self.values("transfer-encoding")[..]) {
            ([], []) => Ends::Empty,
            ([size], []) if size.iter().all(u8::is_ascii_digit) => match std::str::from_utf8(size).map(str::parse) {
                Ok(Ok(0)) => Ends::Empty,
                Ok(Ok(size)) => Ends::Sized(size),
                _ => Ends::Unknown,
            },
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ends::Chunked,
            _ => Ends::Unknown,
        }
    }

    /// Whether Connection has this option.
    pub fn has_option(&self, option: &str) -> bool {
        let all = self.values("connection").join(&b',');
        split(&all, b",").into_iter().any(|one| trim(one).eq_ignore_ascii_case(option.as_bytes()))
    }
}

/// Where a body in chunks ends (RFC 9112 section 7.1); None: it has no end, or is none.
pub fn chunks_end(body: &[u8]) -> Option<usize> {
    let mut rest = body;
    loop {
        let line = take_line(&mut rest)?;
        let digits = split(line, b";")[0];
        let size = usize::from_str_radix(std::str::from_utf8(trim(digits)).ok()?, 16).ok()?;
        if size == 0 {
            while !take_line(&mut rest)?.is_empty() {}
            return Some(body.len() - rest.len());
        }
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let at = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..at];
    *rest = &rest[at + 2..];
    Some(line)
}

fn split<'a>(mut bytes: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = bytes.windows(separator.len()).position(|window| window == separator) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + separator.len()..];
    }
    parts.push(bytes);
    parts
}

/// Without the blanks at both ends.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
