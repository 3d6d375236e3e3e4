//! Tokens in cookies (RFC 6265).

use super::error::AccessError;
use crate::http::fields::{Fields, values};

/// The value of a cookie, without the quotes around it. Two cookies of one name with different values are refused: which
/// of them a page set, and which a page of another host below the same domain, cannot be told. None: there is none, or it
/// is not text.
pub(crate) fn find<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<&'a str>, AccessError> {
    let pairs = values(fields, "cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    let mut found: Option<&[u8]> = None;
    for pair in pairs {
        let pair = pair.trim_ascii();
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = (pair[..at].trim_ascii_end(), pair[at + 1..].trim_ascii_start());
        if key != name.as_bytes() {
            continue;
        }
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        let value = unquoted.unwrap_or(value);
        if found.is_some_and(|known| known != value) {
            return Err(AccessError::Ambiguous);
        }
        found = Some(value);
    }
    Ok(found.and_then(|value| std::str::from_utf8(value).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies() {
        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&["token=x"], Ok(Some("x"))),
            (&["a=b; token=x; c=d"], Ok(Some("x"))),
            (&["a=b;token=x"], Ok(Some("x"))),
            (&["token=\"x\""], Ok(Some("x"))),
            (&["token=\"x"], Ok(Some("\"x"))),
            (&["token=a.b-c_d=="], Ok(Some("a.b-c_d=="))),
            (&["token="], Ok(Some(""))),
            (&["Token=x"], Ok(None)),
            (&["xtoken=x; tokenx=y"], Ok(None)),
            (&["token"], Ok(None)),
            // A cookie without a name, which a page of another host may have set.
            (&["=token=x"], Ok(None)),
            (&["a=\"; token=x"], Ok(Some("x"))),
            (&["token=x; token=y"], Err(AccessError::Ambiguous)),
            (&["token=x", "token=y"], Err(AccessError::Ambiguous)),
            (&["token=x; token=x"], Ok(Some("x"))),
            (&["token=x", "token=\"x\""], Ok(Some("x"))),
            (&["token=; token=x"], Err(AccessError::Ambiguous)),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| ("cookie", line.as_bytes())).collect();
            assert_eq!(find(&fields, "token"), expected, "{lines:?}");
        }
        assert_eq!(find(&[("Cookie", b"token=\xff")], "token"), Ok(None));
    }
}
