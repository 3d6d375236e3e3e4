//! Tokens in the query (RFC 6750 section 2.3). Parameters are separated by "&", their names are percent-encoded.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::AccessError;

/// The decoded value of a parameter. Two with different values are refused. None: there is none, or it is not UTF-8.
pub(crate) fn find(query: &str, name: &str) -> Result<Option<String>, AccessError> {
    let mut found: Option<Cow<'_, [u8]>> = None;
    for parameter in query.split('&').filter(|parameter| has_name(parameter, name)) {
        let value = parameter.split_once('=').map_or("", |(_, value)| value);
        let value: Cow<'_, [u8]> = percent_decode_str(value).into();
        if found.is_some_and(|known| known != value) {
            return Err(AccessError::Ambiguous);
        }
        found = Some(value);
    }
    Ok(found.and_then(|value| String::from_utf8(value.into_owned()).ok()))
}

/// The query without the parameters of these names.
pub(crate) fn strip<'a>(query: &'a str, names: &[&str]) -> Cow<'a, str> {
    let is_secret = |parameter: &str| names.iter().any(|name| has_name(parameter, name));
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let rest: Vec<&str> = query.split('&').filter(|parameter| !is_secret(parameter)).collect();
    Cow::Owned(rest.join("&"))
}

/// Whether a parameter has this name, however it is encoded.
fn has_name(parameter: &str, name: &str) -> bool {
    let key = parameter.split_once('=').map_or(parameter, |(key, _)| key);
    percent_decode_str(key).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_and_stripped() {
        for (query, token, rest) in [
            ("", Ok(None), ""),
            ("a=b", Ok(None), "a=b"),
            ("token=x", Ok(Some("x")), ""),
            ("a=b&token=x&c=d", Ok(Some("x")), "a=b&c=d"),
            ("%74o%6Ben=x&a", Ok(Some("x")), "a"),
            ("token=%78%2B", Ok(Some("x+")), ""),
            ("token=x+y", Ok(Some("x+y")), ""),
            ("token=a=b", Ok(Some("a=b")), ""),
            ("token", Ok(Some("")), ""),
            ("token=&&a", Ok(Some("")), "&a"),
            ("Token=x", Ok(None), "Token=x"),
            ("%2574oken=x", Ok(None), "%2574oken=x"),
            ("tokens=x&atoken=y", Ok(None), "tokens=x&atoken=y"),
            ("a=token=x", Ok(None), "a=token=x"),
            // One parameter: the token of a parser that separates by semicolons is not ours.
            ("a=b;token=x", Ok(None), "a=b;token=x"),
            ("token=%ff", Ok(None), ""),
            ("token=x&a=b&token=x", Ok(Some("x")), "a=b"),
            ("token=x&%74oken=%78", Ok(Some("x")), ""),
            ("token=x&a&token=y", Err(AccessError::Ambiguous), "a"),
            ("token=x&token=", Err(AccessError::Ambiguous), ""),
        ] {
            assert_eq!(find(query, "token"), token.map(|token| token.map(str::to_owned)), "{query}");
            assert_eq!(strip(query, &["token"]), rest, "{query}");
        }
        assert_eq!(strip("a=1&b=2&c=3", &["a", "c"]), "b=2");
        assert_eq!(strip("a=1", &[]), "a=1");
    }
}
