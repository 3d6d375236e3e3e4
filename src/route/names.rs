//! Names and the patterns that allow or deny them (docs/backends.md).

use std::fmt;

use percent_encoding::percent_decode_str;

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

/// A list of patterns, separated by commas. An element is searched for in "/" + name: "^" anchors its start,
/// "$" its end, "*" stands for any run of characters, slashes included.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Pattern {
    /// The literal runs between the stars.
    runs: Vec<String>,
    at_start: bool,
    at_end: bool,
}

impl Patterns {
    /// Reads a list; blanks around an element are trimmed, an empty element matches nothing.
    pub fn parse(list: &str) -> Patterns {
        Patterns(list.split(',').map(str::trim).filter(|one| !one.is_empty()).map(Pattern::parse).collect())
    }

    /// As `parse`, for paths of files: "^" may be followed by a path without its first slash, as in older versions of
    /// ouistiti.
    pub(crate) fn parse_paths(list: &str) -> Patterns {
        let mut patterns = Patterns::parse(list);
        for Pattern { runs, at_start, .. } in &mut patterns.0 {
            let is_path = runs.len() > 1 || !runs.concat().is_empty();
            if let Some(first) = runs.first_mut().filter(|first| *at_start && is_path && !first.starts_with('/')) {
                first.insert(0, '/');
            }
        }
        patterns
    }

    /// Whether any element is found in `subject`.
    pub fn matches(&self, subject: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_found_in(subject))
    }
}

impl Pattern {
    fn parse(element: &str) -> Pattern {
        let element = element.replace("\\*", "*");
        let (at_start, element) = element.strip_prefix('^').map_or((false, &element[..]), |rest| (true, rest));
        let (at_end, element) = element.strip_suffix('$').map_or((false, element), |rest| (true, rest));
        Pattern { runs: element.split('*').map(str::to_owned).collect(), at_start, at_end }
    }

    /// Searches each run after the previous one. The leftmost match suffices, since a star matches any text between, so
    /// the cost of each run is linear in the subject.
    fn is_found_in(&self, subject: &str) -> bool {
        let Some((last, before)) = self.runs.split_last() else { return false };
        let mut rest = subject;
        for (i, run) in before.iter().enumerate() {
            rest = match (i == 0 && self.at_start, rest.find(run.as_str())) {
                (true, _) => match rest.strip_prefix(run.as_str()) {
                    Some(rest) => rest,
                    None => return false,
                },
                (false, Some(at)) => &rest[at + run.len()..],
                (false, None) => return false,
            };
        }
        match (before.is_empty() && self.at_start, self.at_end) {
            (true, true) => rest == last,
            (true, false) => rest.starts_with(last.as_str()),
            (false, true) => rest.ends_with(last.as_str()),
            (false, false) => rest.contains(last.as_str()),
        }
    }
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
    fn patterns() {
        for (list, subject, found) in [
            ("echo", "/echo", true),
            ("echo", "/echo2", true),
            ("echo", "/sub/echo", true),
            ("echo", "/ech", false),
            ("^/echo$", "/echo", true),
            ("^/echo$", "/echo2", false),
            ("^/echo$", "/sub/echo", false),
            ("*", "/anything/at/all", true),
            ("\\*", "/x", true),
            ("", "/x", false),
            ("a,", "/x", false),
            (" ^/ws_ , chat$ ", "/ws_gps", true),
            (" ^/ws_ , chat$ ", "/webchat", true),
            ("chat$", "/chats", false),
            ("^/a*c", "/abbbc", true),
            ("^/a*c$", "/abcbd", false),
            ("^/a*c$", "/abcbc", true),
            ("a*b*c", "/xaybzc", true),
            ("a*a", "/a", false),
            ("^/a*a$", "/aa", true),
            ("^", "/x", true),
            ("$", "/x", true),
            ("^/*/x$", "/a/b/x", true),
            ("^*x", "/ax", true),
            ("ab*ab$", "/ab", false),
            ("^/ab*ab$", "/abab", true),
        ] {
            assert_eq!(Patterns::parse(list).matches(subject), found, "{list:?} in {subject}");
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
}
