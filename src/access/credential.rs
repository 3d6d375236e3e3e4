//! Credentials in Authorization (RFC 9110 section 11.6.2): Basic (RFC 7617), Bearer (RFC 6750), and the parameters of
//! others.

use auth_wire::Credential;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::AccessError;
use crate::http::fields::{Fields, is_token_byte, values};
use crate::limits::{CREDENTIAL_PARAMETERS_MAX, CREDENTIAL_SIZE_MAX};

/// The scheme of Authorization and what follows it. Two fields are ambiguous: another program on the way may use the
/// other one.
pub(crate) fn authorization<'a>(fields: &Fields<'a>) -> Result<Option<(&'a str, &'a str)>, AccessError> {
    let mut all = values(fields, "authorization");
    let value = match (all.next(), all.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => std::str::from_utf8(value).map_err(|_| AccessError::Malformed)?.trim(),
        (Some(_), Some(_)) => return Err(AccessError::Malformed),
    };
    if value.len() > CREDENTIAL_SIZE_MAX {
        return Err(AccessError::TooLarge);
    }
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(is_token_byte);
    is_scheme.then_some(Some((scheme, rest.trim_matches(' ')))).ok_or(AccessError::Malformed)
}

/// Whether a request has a bearer token in Authorization.
pub(crate) fn has_bearer(fields: &Fields<'_>) -> bool {
    matches!(authorization(fields), Ok(Some((scheme, _))) if scheme.eq_ignore_ascii_case("Bearer"))
}

/// User and password: base64 with its padding and nothing else, UTF-8 without control characters (RFC 7617 section 2).
pub(crate) fn basic(text: &str) -> Result<Credential, AccessError> {
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.filter(|decoded| !has_control(decoded)).ok_or(AccessError::Malformed)?;
    let (user, password) = decoded.split_once(':').ok_or(AccessError::Malformed)?;
    Ok(Credential::Password { user: user.to_owned(), password: password.into() })
}

/// A token (RFC 6750 section 2.1): `b64token`.
pub(crate) fn bearer(text: &str) -> Result<Credential, AccessError> {
    let body = text.trim_end_matches('=');
    let is_valid =
        !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
    is_valid.then(|| Credential::Token(text.into())).ok_or(AccessError::Malformed)
}

/// A token of a cookie or of the query: visible ASCII. None: it is no token, as when a page has deleted it.
pub(crate) fn token(text: &str) -> Result<Option<Credential>, AccessError> {
    if text.len() > CREDENTIAL_SIZE_MAX {
        return Err(AccessError::TooLarge);
    }
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(is_token.then(|| Credential::Token(text.into())))
}

/// Whether a text has control characters.
pub(crate) fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// The parameters of a scheme: `name=value` or `name="value"`, separated by commas.
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses them strictly. None: not valid, too many, or a name occurs twice.
    pub(crate) fn parse(text: &str) -> Option<Parameters> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut rest = text.trim_matches(is_blank);
        loop {
            let (name, after) = rest.split_once('=')?;
            let name = name.trim_matches(is_blank).to_ascii_lowercase();
            let (value, after) = value(after.trim_start_matches(is_blank))?;
            // Each name is compared with all before it.
            let is_new = found.len() < CREDENTIAL_PARAMETERS_MAX && found.iter().all(|(known, _)| *known != name);
            if !is_new || name.is_empty() || !name.bytes().all(is_token_byte) {
                return None;
            }
            found.push((name, value));
            match after.trim_start_matches(is_blank) {
                "" => return Some(Parameters(found)),
                after => rest = after.strip_prefix(',')?.trim_start_matches(is_blank),
            }
        }
    }

    /// Removes a parameter and returns its value.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

fn is_blank(letter: char) -> bool {
    letter == ' ' || letter == '\t'
}

/// A token or a quoted string (RFC 9110 section 5.6.4), and the text after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    loop {
        match letters.next()? {
            (at, '"') => return Some((value, &quoted[at + 1..])),
            (_, '\\') => value.push(letters.next()?.1),
            (_, letter) => value.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Option<(String, String)>, AccessError> {
        let fields: Vec<_> = lines.iter().map(|line| ("Authorization", line.as_bytes())).collect();
        let found = authorization(&fields)?;
        Ok(found.map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned())))
    }

    #[test]
    fn fields_of_authorization() {
        let found = |scheme: &str, rest: &str| Ok(Some((scheme.to_owned(), rest.to_owned())));
        let long = format!("Bearer {}", "x".repeat(CREDENTIAL_SIZE_MAX));
        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&["Basic eA=="], found("Basic", "eA==")),
            (&["basic   eA==  "], found("basic", "eA==")),
            (&["Negotiate"], found("Negotiate", "")),
            (&["Basic eA==", "Basic eA=="], Err(AccessError::Malformed)),
            (&["Basic eA==", "Bearer x"], Err(AccessError::Malformed)),
            (&["", "Basic eA=="], Err(AccessError::Malformed)),
            (&[""], Err(AccessError::Malformed)),
            (&["Basic:x y"], Err(AccessError::Malformed)),
            (&["Basic\tx"], Err(AccessError::Malformed)),
            (&[&long], Err(AccessError::TooLarge)),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
        assert_eq!(authorization(&[("authorization", b"Basic \xff")]), Err(AccessError::Malformed));
    }

    #[test]
    fn users_and_passwords() {
        for (text, expected) in [
            // The examples of RFC 7617 sections 2 and 2.1.
            ("QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("dGVzdDoxMjPCow==", Some(("test", "123\u{a3}"))),
            ("YTo=", Some(("a", ""))),
            ("Og==", Some(("", ""))),
            ("YTpiOmM=", Some(("a", "b:c"))),
            ("", None),
            ("YQ==", None),
            ("YTo", None),
            ("YTo=\n", None),
            ("YTo= ", None),
            ("YTo==", None),
            ("YTo=YTo=", None),
            // Bits after the last byte.
            ("YTp=", None),
            // Of the alphabet for URLs.
            ("YTo_Pz8_", None),
            // ISO 8859-1.
            ("dGVzdDoxMjOj", None),
            // A NUL, a newline, DEL.
            ("YToA", None),
            ("YTpiCg==", None),
            ("YTp/", None),
        ] {
            let found = match basic(text) {
                Ok(Credential::Password { user, password }) => Some((user, password.reveal().to_owned())),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error, AccessError::Malformed, "{text}");
                    None
                }
            };
            let expected = expected.map(|(user, password): (&str, &str)| (user.to_owned(), password.to_owned()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn tokens() {
        for (text, is_bearer, is_token) in [
            ("mF_9.B5f-4.1JqM", true, true),
            ("a+/~==", true, true),
            ("", false, false),
            ("==", false, true),
            ("a=b", false, true),
            ("a b", false, false),
            ("a,b", false, true),
            ("a\"", false, true),
            ("\u{e9}", false, false),
            ("a\0", false, false),
        ] {
            assert_eq!(bearer(text).is_ok(), is_bearer, "{text}");
            assert_eq!(token(text).unwrap().is_some(), is_token, "{text}");
        }
        assert!(token(&"x".repeat(CREDENTIAL_SIZE_MAX)).is_ok());
        assert_eq!(token(&"x".repeat(CREDENTIAL_SIZE_MAX + 1)), Err(AccessError::TooLarge));
    }

    #[test]
    fn parameters() {
        for (text, expected) in [
            ("a=b", Some(&[("a", "b")][..])),
            ("A = \"b\" ,\tc=d", Some(&[("a", "b"), ("c", "d")])),
            ("a=\"x\\\"\\\\,=y\"", Some(&[("a", "x\"\\,=y")])),
            ("a=\"\"", Some(&[("a", "")])),
            ("a*=UTF-8''x", Some(&[("a*", "UTF-8''x")])),
            ("", None),
            ("a", None),
            ("a=", None),
            ("a=b,", None),
            (",a=b", None),
            ("a=b c=d", None),
            ("a=b,a=c", None),
            ("a=b,A=c", None),
            ("a=\"b", None),
            ("a=\"b\\", None),
            ("a=\"b\"c", None),
            ("a b=c", None),
            ("=c", None),
        ] {
            let found = Parameters::parse(text).map(|found| found.0);
            let expected = expected
                .map(|list| list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn too_many_parameters() {
        let of = |count: usize| (0..count).map(|number| format!("p{number}=x")).collect::<Vec<_>>().join(",");
        for (count, is_valid) in [(CREDENTIAL_PARAMETERS_MAX, true), (CREDENTIAL_PARAMETERS_MAX + 1, false)] {
            assert_eq!(Parameters::parse(&of(count)).is_some(), is_valid, "{count}");
        }
    }
}
