//! Patterns that allow or deny paths and names, in ouistiti's syntax (docs/backends.md), for the gateway and its helper
//! `uakari-auth`.
#![forbid(unsafe_code)]

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

    /// As `parse`, for paths: see `below_root`.
    pub fn parse_paths(list: &str) -> Patterns {
        Patterns::parse(list).below_root()
    }

    /// The same patterns for paths: "^" may be followed by a path without its first slash, as in older versions of
    /// ouistiti.
    pub fn below_root(mut self) -> Patterns {
        for Pattern { runs, at_start, .. } in &mut self.0 {
            let is_path = runs.len() > 1 || !runs.concat().is_empty();
            if let Some(first) = runs.first_mut().filter(|first| *at_start && is_path && !first.starts_with('/')) {
                first.insert(0, '/');
            }
        }
        self
    }

    /// Replaces the texts between the stars: what is put in has no special characters. An element is dropped if `fill`
    /// returns None for one of its texts.
    pub fn fill(mut self, fill: impl Fn(&str) -> Option<String>) -> Patterns {
        self.0.retain_mut(|Pattern { runs, .. }| match runs.iter().map(|run| fill(run)).collect() {
            Some(filled) => {
                *runs = filled;
                true
            }
            None => false,
        });
        self
    }

    /// A path for each element that is found in it.
    pub fn samples(&self) -> impl Iterator<Item = String> {
        let of = |pattern: &Pattern| {
            let start = if pattern.at_start { "" } else { "/x" };
            let end = if pattern.at_end { "" } else { "x" };
            format!("{start}{}{end}", pattern.runs.join("x"))
        };
        self.0.iter().map(of).filter(|sample| sample.starts_with('/'))
    }

    /// Whether any element is found in `subject`.
    pub fn matches(&self, subject: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_found_in(subject))
    }

    /// As `matches`, whatever the case of the letters.
    pub fn matches_ignoring_case(&self, subject: &str) -> bool {
        let subject = fold(subject);
        self.0.iter().any(|pattern| {
            let runs = pattern.runs.iter().map(|run| fold(run)).collect();
            Pattern { runs, ..*pattern }.is_found_in(&subject)
        })
    }

    /// The beginning of `subject` that an element stands for: the first one found in it that begins with "^", has no star
    /// and ends with a segment. None: no such element is found.
    pub fn matched<'s>(&self, subject: &'s str) -> Option<&'s str> {
        let ends_segment = |run: &str| {
            let rest = subject.get(run.len()..).unwrap_or_default();
            rest.is_empty() || run.ends_with('/') || rest.starts_with(['/', ';'])
        };
        let literal = |pattern: &Pattern| match &pattern.runs[..] {
            [run] if pattern.at_start && pattern.is_found_in(subject) && ends_segment(run) => subject.get(..run.len()),
            _ => None,
        };
        self.0.iter().find_map(literal)
    }
}

/// The letters without their case. Some have one capital in common, such as "s" and the long s.
fn fold(text: &str) -> String {
    match text.is_ascii() {
        true => text.to_ascii_lowercase(),
        false => text.to_uppercase().to_lowercase(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn case_is_ignored() {
        for (list, subject, found) in [
            ("^/Admin", "/admin", true),
            ("^/admin$", "/ADMIN", true),
            ("^/admin$", "/ADMINS", false),
            ("^/a*C$", "/AbbbC", true),
            ("\u{fc}ber", "/\u{dc}BER", true),
            // The Kelvin sign and the long s.
            ("^/keys", "/\u{212a}ey\u{17f}", true),
            ("^/\u{17f}", "/s", true),
            ("", "/x", false),
        ] {
            assert_eq!(Patterns::parse(list).matches_ignoring_case(subject), found, "{list:?} in {subject}");
        }
    }

    #[test]
    fn literal_beginnings() {
        for (list, subject, expected) in [
            ("^/websocket", "/websocket/x", Some("/websocket")),
            ("^/websocket", "/websocket;a=b", Some("/websocket")),
            ("^/websocket", "/websockets", None),
            ("^/websockets, ^/websocket", "/websockets/x", Some("/websockets")),
            ("^/websocket/", "/websocket", None),
            ("^/x$", "/x", Some("/x")),
            ("^/x$", "/x/y", None),
            ("^", "/x", Some("")),
            ("^/a*b, ^/a", "/a/cb", Some("/a")),
            ("^/a*b", "/acb", None),
            ("*", "/x", None),
            ("x", "/x", None),
            ("^/b, ^/x/y, ^/x", "/x/y/z", Some("/x/y")),
            ("", "/x", None),
        ] {
            assert_eq!(Patterns::parse(list).matched(subject), expected, "{list:?} in {subject}");
        }
    }

    #[test]
    fn samples_match() {
        let patterns = Patterns::parse("^/a$,.js$,^/b/,*,^/c*d$,x,^e");
        let samples: Vec<String> = patterns.samples().collect();
        assert_eq!(samples, ["/a", "/x.js", "/b/x", "/xxx", "/cxd", "/xxx"]);
        assert!(samples.iter().all(|sample| patterns.matches(sample)));
    }

    #[test]
    fn patterns_are_filled() {
        let fill = |run: &str| (!run.contains("%x")).then(|| run.replace("%u", "a*,$"));
        for (list, subject, found) in [
            ("^/%u/*", "/a*,$/b", true),
            ("^/%u/*", "/ab/b", false),
            ("%u$", "/a*,$", true),
            ("%u$", "/a", false),
            ("^/%x,^/b", "/b", true),
            ("^/%x*b", "/b", false),
            ("%x", "/", false),
            ("^b/*", "/b/c", true),
        ] {
            let patterns = Patterns::parse(list).fill(fill).below_root();
            assert_eq!(patterns.matches(subject), found, "{list:?} in {subject}");
        }
    }
}
