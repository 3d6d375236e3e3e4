//! The Range header field (RFC 9110 section 14).

/// A byte range as requested, independent of the file's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// From first to last, inclusive; without last, to the end.
    From {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: Option<u64>,
    },
    /// The number of bytes at the end.
    Suffix(u64),
}

/// A range applied to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The whole file.
    Whole,
    /// First and last byte, inclusive, both within the file.
    Bytes(u64, u64),
    /// No byte of the file.
    Unsatisfiable,
}

/// Parses a Range value. None: to be ignored, because it is invalid, its unit is not bytes, or it has several ranges,
/// which a server may ignore (RFC 9110 section 14.2).
pub fn parse(value: &[u8]) -> Option<ByteRange> {
    let at = value.iter().position(|byte| *byte == b'=')?;
    let (unit, set) = (&value[..at], &value[at + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    // Empty elements of a list are skipped (RFC 9110 section 5.6.1.2).
    let mut specs = set.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty());
    let range = parse_spec(specs.next()?)?;
    specs.next().is_none().then_some(range)
}

impl ByteRange {
    /// The part of a file of `size` bytes.
    pub fn of(self, size: u64) -> Part {
        match self {
            ByteRange::From { first, .. } if first >= size => Part::Unsatisfiable,
            ByteRange::From { first, last } => Part::Bytes(first, last.unwrap_or(u64::MAX).min(size - 1)),
            ByteRange::Suffix(0) => Part::Unsatisfiable,
            // A suffix of an empty file is satisfiable, but Content-Range cannot express it.
            ByteRange::Suffix(_) if size == 0 => Part::Whole,
            ByteRange::Suffix(count) => Part::Bytes(size.saturating_sub(count), size - 1),
        }
    }
}

fn parse_spec(spec: &[u8]) -> Option<ByteRange> {
    let at = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&spec[..at], &spec[at + 1..]);
    match (first.is_empty(), last.is_empty()) {
        (true, _) => Some(ByteRange::Suffix(number(last)?)),
        (false, true) => Some(ByteRange::From { first: number(first)?, last: None }),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::From { first, last: Some(last) })
        }
    }
}

/// A decimal number without a sign. On overflow it is u64::MAX, which exceeds the size of every file.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value: u64, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_files() {
        use Part::*;
        let large = 5 << 32;
        for (value, size, part) in [
            ("bytes=0-0", 10, Bytes(0, 0)),
            ("bytes=0-9", 10, Bytes(0, 9)),
            ("bytes=0-10", 10, Bytes(0, 9)),
            ("bytes=3-", 10, Bytes(3, 9)),
            ("bytes=9-", 10, Bytes(9, 9)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-1", 10, Bytes(9, 9)),
            ("bytes=-10", 10, Bytes(0, 9)),
            ("bytes=-11", 10, Bytes(0, 9)),
            ("bytes=-0", 10, Unsatisfiable),
            ("Bytes=2-4", 10, Bytes(2, 4)),
            ("bytes= 2-4 ", 10, Bytes(2, 4)),
            ("bytes=,2-4,\t,", 10, Bytes(2, 4)),
            ("bytes=007-8", 10, Bytes(7, 8)),
            ("bytes=2-99999999999999999999999", 10, Bytes(2, 9)),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=-99999999999999999999999", 10, Bytes(0, 9)),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=21474836479-", large, Bytes(large - 1, large - 1)),
            ("bytes=4294967296-4294967299", large, Bytes(1 << 32, (1 << 32) + 3)),
            ("bytes=18446744073709551615-", u64::MAX, Unsatisfiable),
            ("bytes=0-18446744073709551615", u64::MAX, Bytes(0, u64::MAX - 1)),
        ] {
            let range = parse(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(range.of(size), part, "{value} of {size}");
        }
    }

    #[test]
    fn ignored_values() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=--1",
            "bytes=5-4",
            "bytes=1-2-3",
            "bytes=a-b",
            "bytes=0x1-2",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=1",
            "bytes =1-2",
            "lines=1-2",
            "1-2",
            // Several ranges are allowed; the answer is the whole file.
            "bytes=0-1,3-4",
            "bytes=0-1,x",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value:?}");
        }
    }
}
