//! Where a reply of a node leads to: Location, Refresh and the paths of cookies, as the client has to see them.

use crate::http::authority::{Authority, default_port};

/// How the paths of a node become those of the client: what nginx calls proxy_redirect and proxy_cookie_path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite<'a> {
    /// The authorities that are the node: its address, and the Host that was sent to it.
    pub(crate) authorities: &'a [&'a str],
    /// Whether the node is reached by https. A URL with the other scheme is not rewritten: a node that leads from http to
    /// https would lead to itself.
    pub(crate) is_tls: bool,
    /// The path at the node. Empty or "/": all paths.
    pub(crate) from: &'a str,
    /// The path at the client in its place.
    pub(crate) to: &'a str,
}

impl Rewrite<'_> {
    /// The value for the client of a Location or a Content-Location. A URL of the node becomes a path. None: it is passed
    /// on as it is, since it leads elsewhere, or is relative.
    pub(crate) fn location(&self, value: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(value).ok()?.trim();
        let path = match text.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                self.path_of(scheme, rest)?
            }
            _ if is_path(text) => text,
            _ => return None,
        };
        self.path(path).map(String::into_bytes)
    }

    /// The value of a Refresh for the client: seconds, then `url=` and a reference. None: it is passed on as it is.
    pub(crate) fn refresh(&self, value: &[u8]) -> Option<Vec<u8>> {
        let at = value.windows(4).position(|word| word.eq_ignore_ascii_case(b"url="))? + 4;
        let (before, reference) = value.split_at(at);
        Some([before, &self.location(reference)?].concat())
    }

    /// The value of a Set-Cookie for the client, whose Path is at the client (RFC 6265 section 4.1.2.4). None: it is passed
    /// on as it is.
    pub(crate) fn cookie(&self, value: &[u8]) -> Option<Vec<u8>> {
        // Browsers accept such a cookie for the path "/" only.
        if value.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"__Host-")) {
            return None;
        }
        let mut rewritten = Vec::with_capacity(value.len() + self.to.len());
        let mut is_other = false;
        for (i, attribute) in value.split(|byte| *byte == b';').enumerate() {
            if i > 0 {
                rewritten.push(b';');
            }
            match path_of_attribute(attribute).filter(|_| i > 0).and_then(|path| self.path(path)) {
                Some(path) => {
                    is_other = true;
                    rewritten.extend_from_slice(b" Path=");
                    rewritten.extend_from_slice(path.as_bytes());
                }
                None => rewritten.extend_from_slice(attribute),
            }
        }
        is_other.then_some(rewritten)
    }

    /// The path with query and fragment of a URL of the node; "/" if it has none. None: it is the URL of another server.
    fn path_of<'t>(&self, scheme: &str, rest: &'t str) -> Option<&'t str> {
        let own = if self.is_tls { "https" } else { "http" };
        let port = default_port(own).filter(|_| scheme.eq_ignore_ascii_case(own))?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = Authority::parse(authority)?;
        let is_node = |node: &&str| Authority::parse(node).is_some_and(|node| node.is_same(&authority, port));
        if !self.authorities.iter().any(is_node) || path.starts_with('\\') {
            return None;
        }
        Some(if path.is_empty() { "/" } else { path })
    }

    /// The path at the client. None: it is not below `from`.
    fn path(&self, path: &str) -> Option<String> {
        let from = self.from.strip_suffix('/').unwrap_or(self.from);
        let rest = path.strip_prefix(from)?;
        if !rest.is_empty() && !rest.starts_with(['/', '?', '#', ';']) {
            return None;
        }
        let to = self.to.strip_suffix('/').unwrap_or(self.to);
        let joined = format!("{to}{rest}");
        // Two slashes at the beginning lead to another host; browsers take a backslash for a slash, and skip tabs.
        let after = joined.trim_start_matches(['/', '\\', '\t']);
        Some(format!("/{after}"))
    }
}

/// Whether a reference is a path with a slash in front, and not one with an authority (RFC 3986 section 4.2).
fn is_path(reference: &str) -> bool {
    let mut rest = reference.bytes().filter(|byte| *byte != b'\t');
    rest.next() == Some(b'/') && !matches!(rest.next(), Some(b'/' | b'\\'))
}

/// The value of a Path attribute. None: it is another attribute, or not a path.
fn path_of_attribute(attribute: &[u8]) -> Option<&str> {
    let (name, value) = std::str::from_utf8(attribute).ok()?.split_once('=')?;
    Some(value.trim()).filter(|value| name.trim().eq_ignore_ascii_case("path") && value.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite<'a>(from: &'a str, to: &'a str) -> Rewrite<'a> {
        Rewrite { authorities: &["10.0.0.1:8080", "gate.example"], is_tls: false, from, to }
    }

    #[test]
    fn locations() {
        for (from, to, value, expected) in [
            ("/app", "/web", "/app/x?y#z", Some("/web/x?y#z")),
            ("/app/", "/web/", "/app", Some("/web")),
            ("/app", "/web", "/application", None),
            ("/app", "/web", "x", None),
            ("/app", "/web", "http://10.0.0.1:8080/app/x", Some("/web/x")),
            ("/app", "/web", "HTTP://Gate.example:80/app", Some("/web")),
            ("/app", "/web", "http://10.0.0.1:8081/app/x", None),
            ("/app", "/web", "https://gate.example/app/x", None),
            ("/app", "/web", "http://evil.example/app/x", None),
            ("/app", "/web", "http://user@gate.example/app/x", None),
            ("/", "/web", "http://gate.example", Some("/web/")),
            ("", "/web", "/x", Some("/web/x")),
            ("/app", "/", "/app//evil.example", Some("/evil.example")),
            ("/app", "/", "/app/\\evil.example", Some("/evil.example")),
            ("/app", "/", "/app/\t/evil.example", Some("/evil.example")),
            ("/", "/", "http://gate.example//evil.example", Some("/evil.example")),
            ("/", "/", "//evil.example/", None),
            ("/", "/", "/\t/evil.example/", None),
        ] {
            let value = rewrite(from, to).location(value.as_bytes()).map(|value| String::from_utf8(value).unwrap());
            assert_eq!(value.as_deref(), expected, "{from} {to}");
        }
    }

    #[test]
    fn refresh_and_cookies() {
        let own = rewrite("/app", "/");
        assert_eq!(own.refresh(b"5; URL=/app/x").as_deref(), Some(&b"5; URL=/x"[..]));
        assert_eq!(own.refresh(b"5"), None);
        for (value, expected) in [
            ("a=b; Path=/app; Secure", Some("a=b; Path=/; Secure")),
            ("a=b;path = /app/x", Some("a=b; Path=/x")),
            ("path=/app", None),
            ("a=b; Path=/application", None),
            ("__Host-a=b; Path=/app", None),
        ] {
            let value = own.cookie(value.as_bytes()).map(|value| String::from_utf8(value).unwrap());
            assert_eq!(value.as_deref(), expected);
        }
    }
}
