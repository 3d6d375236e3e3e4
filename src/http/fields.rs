//! Header fields of one request: look-up by name, lists and tokens (RFC 9110 section 5).

/// Names and values in the order received; a name may repeat.
pub type Fields<'a> = [(&'a str, &'a [u8])];

/// The values of a field, one for each line that has it.
pub(crate) fn values<'a>(fields: &Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The value of a field that occurs exactly once.
pub fn single<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a [u8]> {
    let mut all = values(fields, name);
    all.next().filter(|_| all.next().is_none())
}

/// As [`single`], as text without surrounding whitespace. None also if the value is not UTF-8.
pub(crate) fn single_text<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a str> {
    single(fields, name).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim)
}

/// The elements of a comma-separated field over all its lines. Empty elements are skipped (RFC 9110 section 5.6.1).
pub(crate) fn elements<'a>(fields: &Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    values(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether a comma-separated field has this token, in any case.
pub(crate) fn has_token(fields: &Fields, name: &str, token: &str) -> bool {
    elements(fields, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// A character of a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
