//! The request target (RFC 9112 section 3.2).

use super::authority::{Authority, default_port};

/// A request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// The authority of an absolute-form and the default port of its scheme.
    pub authority: Option<(&'a str, &'static str)>,
    /// The path, percent-encoded. Begins with "/"; "/" for the forms without a path.
    pub path: &'a str,
    /// The text after the first question mark. None: without a question mark.
    pub(crate) query: Option<&'a str>,
}

/// Parses a target: a path or an http URL without user and fragment; "*" for OPTIONS; host and port for CONNECT. All
/// visible ASCII is accepted: browsers send characters such as `|`, which RFC 3986 requires to be encoded. None: not a
/// valid target.
pub fn parse<'a>(method: &str, target: &'a str) -> Option<Target<'a>> {
    let without_path = Target { authority: None, path: "/", query: None };
    match method {
        "OPTIONS" if target == "*" => return Some(without_path),
        // Host may omit the port, so the two are not compared (RFC 9112 section 3.2.3).
        "CONNECT" => return Authority::parse(target).filter(Authority::has_port).map(|_| without_path),
        _ => {}
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    let (before, query) = target.split_once('?').map_or((target, None), |(before, query)| (before, Some(query)));
    if before.starts_with('/') {
        return Some(Target { authority: None, path: before, query });
    }
    let (scheme, rest) = before.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    let port = scheme.and_then(default_port)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Authority::parse(authority)?;
    Some(Target { authority: Some((authority, port)), path: if path.is_empty() { "/" } else { path }, query })
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
            assert_eq!(parse("GET", target), Some(Target { authority, path, query }), "{target}");
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
            assert_eq!(parse("GET", target), None, "{target}");
        }
    }

    #[test]
    fn targets_without_a_path() {
        for (method, target, is_good) in [
            ("OPTIONS", "*", true),
            ("OPTIONS", "**", false),
            ("OPTIONS", "h:80", false),
            ("options", "*", false),
            ("CONNECT", "www.example.com:80", true),
            ("CONNECT", "[::1]:443", true),
            ("CONNECT", "h", false),
            ("CONNECT", "h:", false),
            ("CONNECT", "h:0", false),
            ("CONNECT", "h:65536", false),
            ("CONNECT", "/", false),
            ("CONNECT", "*", false),
            ("CONNECT", "http://h:80/", false),
        ] {
            let expected = is_good.then_some("/");
            assert_eq!(parse(method, target).map(|target| target.path), expected, "{method} {target}");
        }
    }
}
