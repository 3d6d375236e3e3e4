//! Names and the patterns that allow or deny them (docs/backends.md).

use std::fmt;

pub use patterns::Patterns;
use percent_encoding::percent_decode_str;

use crate::http::forwarding::path::plain_name;

/// A path that is not a valid name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path is not percent-encoded UTF-8, or has a NUL in it")
    }
}

/// The name of a path: percent-decoded, without empty and dot segments, without a slash at either end. `..` at the root
/// is dropped: no name leads out of the folder.
pub fn from_path(path: &str) -> Result<String, NameError> {
    let is_encoded = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !path.split('%').skip(1).all(is_encoded) {
        return Err(NameError);
    }
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| NameError)?;
    if decoded.contains('\0') {
        return Err(NameError);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    Ok(segments.join("/"))
}

/// Which names may be requested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Names to accept.
    pub allow: Patterns,
    /// Names to refuse.
    pub deny: Patterns,
    /// `allow` is checked before `deny`: a name that matches both is accepted.
    pub deny_last: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { allow: Patterns::parse("*"), deny: Patterns::default(), deny_last: false }
    }
}

impl Rules {
    /// Whether a name may be requested: it matches `allow`, and not `deny` unless `deny_last` is set.
    pub(crate) fn permit(&self, name: &str) -> bool {
        let subject = format!("/{name}");
        self.permit_any(&[&subject])
    }

    /// Whether a page may be sent. The patterns are applied to its name, to its name with a final slash if the request
    /// has one, and to the path of its file. A precompressed variant is denied with the file whose content it has.
    pub(crate) fn permit_page(&self, name: &str, has_slash: bool, file: &str) -> bool {
        let requested = format!("/{name}");
        let folder = if has_slash { format!("{}/", requested.trim_end_matches('/')) } else { requested.clone() };
        let file = format!("/{file}");
        let plain = file.strip_suffix(".gz").or_else(|| file.strip_suffix(".br")).unwrap_or(&file);
        self.permit_any(&[&requested, &folder, &file]) && !self.denies(plain)
    }

    /// As `permit_page`, for a request to a node, which may ignore the case of letters or the parameters of segments: what
    /// `deny` has in any such reading is refused. `allow` has to have the name as it is, with and without parameters.
    pub(crate) fn permit_node(&self, name: &str, has_slash: bool) -> bool {
        let plain = plain_name(name);
        let is_denied = |name: &str| {
            let content = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".br")).unwrap_or(name);
            let folder = if has_slash { format!("/{name}/") } else { String::new() };
            let subjects = [format!("/{name}"), format!("/{content}"), folder];
            subjects.iter().any(|subject| !subject.is_empty() && self.deny.matches_ignoring_case(subject))
        };
        let is_denied = !self.deny_last && (is_denied(name) || is_denied(&plain));
        let is_allowed = |name: &str| self.permit_page(name, has_slash, name);
        !is_denied && is_allowed(name) && (*plain == *name || is_allowed(&plain))
    }

    /// Whether a precompressed variant of a page that may be sent is sent in its place: only `deny` has to let its own
    /// path pass.
    pub(crate) fn permit_variant(&self, file: &str) -> bool {
        !self.denies(&format!("/{file}"))
    }

    fn permit_any(&self, subjects: &[&str]) -> bool {
        let is_allowed = subjects.iter().any(|subject| self.allow.matches(subject));
        is_allowed && !subjects.iter().any(|subject| self.denies(subject))
    }

    fn denies(&self, subject: &str) -> bool {
        !self.deny_last && self.deny.matches(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_paths() {
        for (path, name) in [
            ("/echo", Ok("echo")),
            ("/%65cho", Ok("echo")),
            ("//echo", Ok("echo")),
            ("/sub/../echo", Ok("echo")),
            ("/sub/echo2", Ok("sub/echo2")),
            ("/echo/", Ok("echo")),
            ("/./echo/.", Ok("echo")),
            ("/", Ok("")),
            ("/../../etc/passwd", Ok("etc/passwd")),
            ("/%2e%2e/x", Ok("x")),
            ("/a%2f..%2fb", Ok("b")),
            ("/%00", Err(NameError)),
            ("/%ff", Err(NameError)),
            ("/caf%c3%a9", Ok("caf\u{e9}")),
            ("/%zz", Err(NameError)),
            ("/%4", Err(NameError)),
        ] {
            assert_eq!(from_path(path).as_deref(), name.as_ref().copied(), "{path}");
        }
    }

    /// Equivalent paths have the same name: the examples of RFC 3986, 6455 and 9110. Each row begins with the section.
    #[test]
    fn equivalent_paths() {
        for (section, path, name) in [
            ("3986 5.2.4", "/a/b/c/./../../g", "a/g"),
            ("3986 5.2.4", "/mid/content=5/../6", "mid/6"),
            // The references of section 5.4, unresolved: a client may send "../../../g" as "/b/c/../../../g".
            ("3986 5.4.1", "/b/c/./g", "b/c/g"),
            ("3986 5.4.1", "/b/c/g/", "b/c/g"),
            ("3986 5.4.1", "/b/c/;x", "b/c/;x"),
            ("3986 5.4.1", "/b/c/g;x", "b/c/g;x"),
            ("3986 5.4.1", "/b/c/.", "b/c"),
            ("3986 5.4.1", "/b/c/./", "b/c"),
            ("3986 5.4.1", "/b/c/..", "b"),
            ("3986 5.4.1", "/b/c/../", "b"),
            ("3986 5.4.1", "/b/c/../g", "b/g"),
            ("3986 5.4.1", "/b/c/../..", ""),
            ("3986 5.4.1", "/b/c/../../g", "g"),
            ("3986 5.4.2", "/b/c/../../../g", "g"),
            ("3986 5.4.2", "/b/c/../../../../g", "g"),
            ("3986 5.4.2", "/./g", "g"),
            ("3986 5.4.2", "/../g", "g"),
            ("3986 5.4.2", "/b/c/g.", "b/c/g."),
            ("3986 5.4.2", "/b/c/.g", "b/c/.g"),
            ("3986 5.4.2", "/b/c/g..", "b/c/g.."),
            ("3986 5.4.2", "/b/c/..g", "b/c/..g"),
            ("3986 5.4.2", "/b/c/./../g", "b/g"),
            ("3986 5.4.2", "/b/c/./g/.", "b/c/g"),
            ("3986 5.4.2", "/b/c/g/./h", "b/c/g/h"),
            ("3986 5.4.2", "/b/c/g/../h", "b/c/h"),
            ("3986 5.4.2", "/b/c/g;x=1/./y", "b/c/g;x=1/y"),
            ("3986 5.4.2", "/b/c/g;x=1/../y", "b/c/y"),
            ("3986 6.2.2", "/b/c/%7Bfoo%7D", "b/c/{foo}"),
            ("3986 6.2.2", "/./b/../b/%63/%7bfoo%7d", "b/c/{foo}"),
            ("9110 4.2.3", "/%7Esmith/home.html", "~smith/home.html"),
            ("9110 4.2.3", "/%7esmith/home.html", "~smith/home.html"),
            ("3986 2.5", "/%E3%82%A2", "\u{30a2}"),
            ("3986 2.5", "/%C3%80", "\u{c0}"),
            ("3986 3.3", "/name;v=1.1/name,1.1", "name;v=1.1/name,1.1"),
            // A file name cannot contain a slash: an encoded slash is a separator.
            ("3986 2.2", "/a%2Fb", "a/b"),
            ("6455 3", "/chat%23x", "chat#x"),
        ] {
            assert_eq!(from_path(path).as_deref(), Ok(name), "RFC {section}: {path}");
        }
        for path in ["/%", "/%4", "/%zz", "/%E3%82", "/%00"] {
            assert!(from_path(path).is_err(), "RFC 3986 2.1: {path}");
        }
    }

    #[test]
    fn deny_comes_first_unless_last() {
        let mut rules =
            Rules { allow: Patterns::parse("^/ws_"), deny: Patterns::parse("^/ws_internal"), deny_last: false };
        assert!(rules.permit("ws_gps") && !rules.permit("ws_internal") && !rules.permit("echo"));
        rules.deny_last = true;
        assert!(rules.permit("ws_gps") && rules.permit("ws_internal") && !rules.permit("echo"));
        assert!(Rules::default().permit("echo"));
    }

    #[test]
    fn pages() {
        let rules = |allow, deny| Rules {
            allow: Patterns::parse_paths(allow),
            deny: Patterns::parse_paths(deny),
            deny_last: false,
        };
        for (allow, deny, name, has_slash, file, permitted) in [
            ("*", "", "", true, "index.html", true),
            ("*", "index.html", "", true, "index.html", false),
            (".html", "", "sub", true, "sub/index.html", true),
            (".html", "", "sub", false, "sub", false),
            (".html", "", "a.css", false, "a.css", false),
            ("*.html", "", "a.html", false, "a.html", true),
            ("^/$", "", "", true, "index.html", true),
            ("*", "^/$", "", true, "index.html", false),
            ("*", "^/private/", "private", true, "private/index.html", false),
            ("*", "^private/*", "private/a", false, "private/a", false),
            ("*", "^private/*", "public/private/a", false, "public/private/a", true),
            ("*", "^.htaccess,.php", "sub/a.php", false, "sub/a.php", false),
            ("*", "^*.php", "sub/a.php", false, "sub/a.php", false),
            ("", "", "a", false, "a", false),
            ("*", "^/s.js$", "s.js.gz", false, "s.js.gz", false),
            ("*", "^/s.js$", "s.js.br", false, "s.js.br", false),
            ("*", "^/s.js$", "s.js.map", false, "s.js.map", true),
            ("^/a.html$", "", "a.html.gz", false, "a.html.gz", false),
            ("^/a.html$", "", "a.html", false, "a.html.gz", true),
        ] {
            let is_permitted = rules(allow, deny).permit_page(name, has_slash, file);
            assert_eq!(is_permitted, permitted, "{allow:?} {deny:?} {name:?}");
        }
    }

    #[test]
    fn pages_of_nodes() {
        for (allow, deny, deny_last, name, has_slash, permitted) in [
            ("*", "", false, "Admin", false, true),
            ("*", "^/admin", false, "admin", false, false),
            ("*", "^/admin", false, "ADMIN", false, false),
            ("*", "^/admin$", false, "admin;x", false, false),
            ("*", "^/admin$", false, "Admin;x", false, false),
            ("*", "^/admin/secret$", false, "admin;x/secret", false, false),
            ("*", "^/admin/", false, "admin", true, false),
            ("*", "/$", false, "admin", false, true),
            ("*", "^/admin$", false, "admin", true, false),
            ("*", "^/Admin", false, "admin", false, false),
            ("*", ".php$", false, "a.PHP", false, false),
            ("*", ".php$", false, "a.php;x", false, false),
            ("*", "^/admin", true, "admin", false, true),
            ("^/api/", "", false, "api/x", false, true),
            ("^/api/", "", false, "api", true, true),
            ("^/api/", "", false, "API/x", false, false),
            ("^/api$", "", false, "api;x", false, false),
        ] {
            let (allow, deny) = (Patterns::parse_paths(allow), Patterns::parse_paths(deny));
            let rules = Rules { allow, deny, deny_last };
            assert_eq!(rules.permit_node(name, has_slash), permitted, "{rules:?} {name}");
        }
    }

    #[test]
    fn variants() {
        for (allow, deny, deny_last, file, permitted) in [
            ("*", "", false, "db.sql.gz", true),
            ("*", ".gz$", false, "db.sql.gz", false),
            ("*", ".gz$", false, "db.sql.br", true),
            ("*", ".gz$", true, "db.sql.gz", true),
            ("*", "^/db.sql.gz$", false, "db.sql.gz", false),
            ("*", "^db.sql.gz$", false, "sub/db.sql.gz", true),
            // `allow` is about the page.
            (".sql$", "", false, "db.sql.gz", true),
        ] {
            let (allow, deny) = (Patterns::parse_paths(allow), Patterns::parse_paths(deny));
            let rules = Rules { allow, deny, deny_last };
            assert_eq!(rules.permit_variant(file), permitted, "{rules:?} {file}");
        }
    }
}
