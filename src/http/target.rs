//! What a request asks for and from whom: its target and its Host (RFC 9112 section 3).

use super::error::HeadError;

/// A request target in origin-form or absolute-form (RFC 9112 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// The authority of an absolute-form, and the port that its scheme means where it names none.
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
    let port = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => "80",
        _ if scheme.eq_ignore_ascii_case("https") => "443",
        _ => return Err(HeadError::Target),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !is_authority(authority) {
        return Err(HeadError::Target);
    }
    Ok(Target { authority: Some((authority, port)), path: if path.is_empty() { "/" } else { path }, query })
}

/// Whether this is a host and maybe a port, without a user (RFC 3986 section 3.2).
pub fn is_authority(text: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_address_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:!$&'()*+,;=%".contains(&byte);
        let is_rest = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return !address.is_empty() && address.bytes().all(is_address_byte) && is_rest;
    }
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    !host.is_empty() && host.bytes().all(is_name_byte) && is_port(port)
}

/// Whether two authorities name the same host and port.
pub fn is_same(one: &str, other: &str, default_port: &str) -> bool {
    let (one_host, one_port) = split(one, default_port);
    let (other_host, other_port) = split(other, default_port);
    one_host.eq_ignore_ascii_case(other_host) && one_port == other_port
}

fn split<'a>(authority: &'a str, default_port: &'a str) -> (&'a str, &'a str) {
    match authority.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((host, port)) if !port.contains(']') => (host, if port.is_empty() { default_port } else { port }),
        _ => (authority, default_port),
    }
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

    #[test]
    fn authorities() {
        for good in ["h", "h:", "h:80", "1.2.3.4:1", "[::1]", "[::1]:80", "a-b.c_d", "%41"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["", ":80", "h:x", "h:+1", "h 1", "a@b", "a/b", "[]", "[::1", "[::1]x", "[::1]x:1", "::1", "h:1:1"] {
            assert!(!is_authority(bad), "{bad}");
        }
        for (one, other, is_equal) in [
            ("h", "H", true),
            ("h", "h:80", true),
            ("h:", "h", true),
            ("h:8080", "h:8080", true),
            ("h", "h:8080", false),
            ("h", "i", false),
            ("h:80", "h:443", false),
            ("[::1]", "[::1]:80", true),
            ("[::1]", "[::2]", false),
            ("[::1]:80", "[::1]:81", false),
        ] {
            assert_eq!(is_same(one, other, "80"), is_equal, "{one} {other}");
        }
    }
}
