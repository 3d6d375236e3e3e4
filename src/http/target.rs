//! What a request asks for and from whom: its target and its Host (RFC 9112 section 3).

use super::authority::{Authority, default_port};
use super::error::HeadError;

/// A request target in origin-form or absolute-form (RFC 9112 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// The authority of an absolute-form, and its scheme's port.
    pub authority: Option<(&'a str, &'static str)>,
    /// The path, still percent-encoded. Begins with "/".
    pub path: &'a str,
    /// What stands behind the first question mark, if there is one.
    pub query: Option<&'a str>,
}

/// Reads a target: visible ASCII alone, a path or an http URL without user and fragment.
pub fn parse(target: &str) -> Result<Target<'_>, HeadError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(HeadError::Target);
    }
    let (before, query) = target.split_once('?').map_or((target, None), |(before, query)| (before, Some(query)));
    if before.starts_with('/') {
        return Ok(Target { authority: None, path: before, query });
    }
    let (scheme, rest) = before.split_once("://").ok_or(HeadError::Target)?;
    let scheme = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    let port = scheme.and_then(default_port).ok_or(HeadError::Target)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Authority::parse(authority).ok_or(HeadError::Target)?;
    Ok(Target { authority: Some((authority, port)), path: if path.is_empty() { "/" } else { path }, query })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_targets() {
        for (target, authority, path, query) in [
            ("/", None, "/", None),
            ("/a%20b?q=1?2", None, "/a%20b", Some("q=1?2")),
            ("/?", None, "/", Some("")),
            ("//h/x", None, "//h/x", None),
            ("/x:y@z://", None, "/x:y@z://", None),
            ("http://h", Some(("h", "80")), "/", None),
            ("http://h/x?y", Some(("h", "80")), "/x", Some("y")),
            ("HTTP://H:8080?x=/y", Some(("H:8080", "80")), "/", Some("x=/y")),
            ("https://[::1]:8443/", Some(("[::1]:8443", "443")), "/", None),
            ("http://h://x", Some(("h:", "80")), "//x", None),
        ] {
            assert_eq!(parse(target), Ok(Target { authority, path, query }), "{target}");
        }
    }

    #[test]
    fn bad_targets() {
        for target in [
            "",
            "*",
            "h:1",
            "x",
            "x/y",
            "?x",
            "/x#y",
            "/x?y#z",
            "/caf\u{e9}",
            "/x?\u{e9}",
            "/\x7f",
            "/a b",
            "ftp://h/",
            "http:/h",
            "http:h",
            "http://",
            "http:///x",
            "http://:80/",
            "http://user@h/",
            "http://user:word@h/",
            "http://h:x/",
            "http://h:1:2/",
            "http://[::1/",
            "http://::1/",
            "://h/",
        ] {
            assert_eq!(parse(target), Err(HeadError::Target), "{target}");
        }
    }
}
