//! Conditional and range requests: what to send of a file (RFC 9110 sections 13 and 14).

use super::date;
use super::fields::{Fields, single, values};
use super::range::{self, ByteRange, Part};
use super::representation::Representation;

/// The preconditions and the range of a GET or HEAD.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Conditions {
    /// Lists of entity tags, unparsed.
    if_match: Option<Box<[u8]>>,
    if_none_match: Option<Box<[u8]>>,
    /// Dates in seconds since 1970.
    if_unmodified_since: Option<u64>,
    if_modified_since: Option<u64>,
    /// An entity tag or a date, unparsed.
    if_range: Option<Box<[u8]>>,
    range: Option<ByteRange>,
}

/// The response that the conditions select.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// 200 with the whole file.
    Whole,
    /// 206 with the bytes from first to last, inclusive.
    Part(u64, u64),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

impl Conditions {
    /// Parses a request's fields. Range applies to GET only (RFC 9110 section 14.2). An invalid or repeated date is
    /// ignored; an invalid list of tags matches nothing.
    pub fn read(fields: &Fields, is_head: bool) -> Conditions {
        let range = if is_head { None } else { single(fields, "range").and_then(range::parse) };
        // A repeated If-Range matches nothing.
        let if_range = values(fields, "if-range").next().map(|_| single(fields, "if-range").unwrap_or_default().into());
        Conditions {
            if_match: joined(fields, "if-match"),
            if_none_match: joined(fields, "if-none-match"),
            if_unmodified_since: single(fields, "if-unmodified-since").and_then(date::parse),
            if_modified_since: single(fields, "if-modified-since").and_then(date::parse),
            if_range,
            range,
        }
    }

    /// Evaluates the preconditions in the order of RFC 9110 section 13.2.2. `now_s`: seconds since 1970.
    pub fn select(&self, file: &Representation, now_s: u64) -> Selection {
        let is_newer_than = |date: Option<u64>| Some(file.modified_s? > date?);
        let fails = match &self.if_match {
            Some(list) => !names(list, &file.etag, false),
            None => is_newer_than(self.if_unmodified_since) == Some(true),
        };
        if fails {
            return Selection::PreconditionFailed;
        }
        let is_known = match &self.if_none_match {
            Some(list) => names(list, &file.etag, true),
            None => is_newer_than(self.if_modified_since) == Some(false),
        };
        if is_known {
            return Selection::NotModified;
        }
        match self.range.filter(|_| self.is_for_this(file, now_s)).map_or(Part::Whole, |range| range.of(file.size)) {
            Part::Whole => Selection::Whole,
            Part::Bytes(first, last) => Selection::Part(first, last),
            Part::Unsatisfiable => Selection::Unsatisfiable,
        }
    }

    /// If-Range (RFC 9110 section 13.1.5): matches a strong tag or a date that is a strong validator. The date of a file
    /// modified in the current second is not: the file may change again within it.
    fn is_for_this(&self, file: &Representation, now_s: u64) -> bool {
        let Some(value) = &self.if_range else { return true };
        if value.starts_with(b"\"") {
            return **value == *file.etag.as_bytes();
        }
        let is_its_date = |modified_s: u64| modified_s < now_s && date::parse(value) == Some(modified_s);
        file.modified_s.is_some_and(is_its_date)
    }
}

/// All lines of a list field, joined by commas.
fn joined(fields: &Fields, name: &str) -> Option<Box<[u8]>> {
    let all: Vec<&[u8]> = values(fields, name).collect();
    (!all.is_empty()).then(|| all.join(&b',').into())
}

/// Whether a list of entity tags contains this one; `takes_weak` selects weak comparison (RFC 9110 section 8.8.3.2).
/// Elements after a syntax error are ignored.
fn names(list: &[u8], etag: &str, takes_weak: bool) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    let mut rest = list;
    loop {
        let start = rest.iter().position(|byte| !is_between(byte)).unwrap_or(rest.len());
        rest = &rest[start..];
        let (is_weak, tag) = rest.strip_prefix(b"W/").map_or((false, rest), |tag| (true, tag));
        let Some(inner) = tag.strip_prefix(b"\"") else { return false };
        let Some(end) = inner.iter().position(|byte| *byte == b'"') else { return false };
        if tag[..end + 2] == *etag.as_bytes() && (takes_weak || !is_weak) {
            return true;
        }
        rest = &tag[end + 2..];
        if !rest.first().is_none_or(is_between) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Selection::*;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const MODIFIED_S: u64 = 784_111_777;

    fn file() -> Representation {
        Representation { size: 100, etag: "\"own\"".to_owned(), modified_s: Some(MODIFIED_S), coding: None }
    }

    fn select(fields: &[(&str, &str)]) -> Selection {
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Conditions::read(&fields, false).select(&file(), MODIFIED_S + 60)
    }

    #[test]
    fn single_conditions() {
        for (name, value, selection) in [
            ("If-Match", "\"own\"", Whole),
            ("If-Match", "*", Whole),
            ("If-Match", " * ", Whole),
            ("If-Match", "\"a\", \"own\"", Whole),
            ("If-Match", ",\t,\"a\" , ,\"own\",", Whole),
            ("If-Match", "\"other\"", PreconditionFailed),
            ("If-Match", "W/\"own\"", PreconditionFailed),
            ("If-Match", "", PreconditionFailed),
            ("If-Match", "own", PreconditionFailed),
            ("If-Match", "\"own", PreconditionFailed),
            ("If-Match", "\"a\" \"own\"", Whole),
            ("If-Match", "\"a\"\"own\"", PreconditionFailed),
            ("If-Match", "\"a,\", \"own\"", Whole),
            ("If-Match", "\"a, \"own\"", PreconditionFailed),
            ("If-Match", "*, \"a\"", PreconditionFailed),
            ("If-Unmodified-Since", MODIFIED, Whole),
            ("If-Unmodified-Since", AFTER, Whole),
            ("If-Unmodified-Since", BEFORE, PreconditionFailed),
            ("If-Unmodified-Since", "yesterday", Whole),
            ("If-None-Match", "\"own\"", NotModified),
            ("If-None-Match", "W/\"own\"", NotModified),
            ("If-None-Match", "w/\"own\"", Whole),
            ("If-None-Match", "\"a\", W/\"b\", \"own\"", NotModified),
            ("If-None-Match", "*", NotModified),
            ("If-None-Match", "\"other\"", Whole),
            ("If-None-Match", "own", Whole),
            ("If-None-Match", "\"\"", Whole),
            ("If-Modified-Since", MODIFIED, NotModified),
            ("If-Modified-Since", AFTER, NotModified),
            ("If-Modified-Since", BEFORE, Whole),
            ("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified),
            ("If-Modified-Since", "Sun Nov  6 08:49:36 1994", Whole),
            ("If-Modified-Since", "0", Whole),
            ("Range", "bytes=10-19", Part(10, 19)),
            ("Range", "bytes=100-", Unsatisfiable),
            ("Range", "bytes=1-2,4-5", Whole),
            ("Range", "nonsense", Whole),
            ("If-Range", "\"own\"", Whole),
        ] {
            assert_eq!(select(&[(name, value)]), selection, "{name}: {value}");
        }
    }

    /// The order of evaluation (RFC 9110 section 13.2.2).
    #[test]
    fn precedence() {
        let range = ("Range", "bytes=0-0");
        let cases: &[(&[(&str, &str)], Selection)] = &[
            // If there is an entity tag, the date is ignored.
            (&[("If-Match", "\"own\""), ("If-Unmodified-Since", BEFORE)], Whole),
            (&[("If-Match", "\"other\""), ("If-Unmodified-Since", AFTER)], PreconditionFailed),
            (&[("If-None-Match", "\"other\""), ("If-Modified-Since", AFTER)], Whole),
            (&[("If-None-Match", "\"own\""), ("If-Modified-Since", BEFORE)], NotModified),
            // If-Match and If-Unmodified-Since come before If-None-Match and If-Modified-Since.
            (&[("If-Match", "\"other\""), ("If-None-Match", "\"own\"")], PreconditionFailed),
            (&[("If-Match", "\"own\""), ("If-None-Match", "\"own\"")], NotModified),
            (&[("If-Unmodified-Since", BEFORE), ("If-Modified-Since", MODIFIED)], PreconditionFailed),
            (&[("If-Unmodified-Since", MODIFIED), ("If-Modified-Since", MODIFIED)], NotModified),
            // Range comes last.
            (&[("If-Match", "\"other\""), range], PreconditionFailed),
            (&[("If-None-Match", "\"own\""), range], NotModified),
            (&[("If-None-Match", "\"own\""), ("Range", "bytes=100-")], NotModified),
            (&[("If-Match", "\"own\""), range], Part(0, 0)),
            (&[("If-Modified-Since", BEFORE), range], Part(0, 0)),
            // If-Range affects Range only.
            (&[("If-Range", "\"own\""), range], Part(0, 0)),
            (&[("If-Range", "\"other\""), range], Whole),
            (&[("If-Range", "W/\"own\""), range], Whole),
            (&[("If-Range", "\"own\", \"own\""), range], Whole),
            (&[("If-Range", MODIFIED), range], Part(0, 0)),
            (&[("If-Range", BEFORE), range], Whole),
            (&[("If-Range", AFTER), range], Whole),
            (&[("If-Range", "nonsense"), range], Whole),
            (&[("If-Range", ""), range], Whole),
            (&[("If-Range", "\"own\""), ("If-Range", "\"own\""), range], Whole),
            (&[("If-Range", "\"other\""), ("Range", "bytes=100-")], Whole),
            (&[("If-Range", "\"own\""), ("Range", "bytes=100-")], Unsatisfiable),
            // A list may have several field lines; a repeated date or range is ignored.
            (&[("If-None-Match", "\"a\""), ("if-none-match", "\"own\"")], NotModified),
            (&[("If-Match", "\"a\""), ("If-Match", "\"own\"")], Whole),
            (&[("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)], Whole),
            (&[range, range], Whole),
        ];
        for (fields, selection) in cases {
            assert_eq!(select(fields), *selection, "{fields:?}");
        }
    }

    #[test]
    fn range_applies_to_get_only() {
        let fields: [(&str, &[u8]); 1] = [("Range", b"bytes=100-")];
        assert_eq!(Conditions::read(&fields, true).select(&file(), 0), Whole);
    }

    #[test]
    fn a_date_is_a_weak_validator_in_its_own_second() {
        let fields: [(&str, &[u8]); 2] = [("Range", b"bytes=1-"), ("If-Range", MODIFIED.as_bytes())];
        let conditions = Conditions::read(&fields, false);
        for (now_s, selection) in
            [(MODIFIED_S - 1, Whole), (MODIFIED_S, Whole), (MODIFIED_S + 1, Part(1, 99)), (u64::MAX, Part(1, 99))]
        {
            assert_eq!(conditions.select(&file(), now_s), selection, "{now_s}");
        }
    }

    #[test]
    fn date_conditions_are_ignored_if_the_file_has_no_date() {
        let file = Representation { modified_s: None, ..file() };
        for name in ["If-Modified-Since", "If-Unmodified-Since", "If-Range"] {
            let fields = [(name, MODIFIED.as_bytes()), ("Range", &b"bytes=0-0"[..])];
            let expected = if name == "If-Range" { Whole } else { Part(0, 0) };
            assert_eq!(Conditions::read(&fields, false).select(&file, u64::MAX), expected, "{name}");
        }
    }
}
