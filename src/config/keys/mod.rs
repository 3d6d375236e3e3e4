//! Every key that a configuration may have: one table, which the checks work through. The documentation is compared
//! with it by tests.
#![forbid(unsafe_code)]

mod table;

use std::fmt;

use crate::limits::{self, Bounds};

/// The groups that keys stand in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The file itself.
    Top,
    /// An element of `servers`.
    Server,
    /// `document` of a server.
    Document,
    /// An element of `headers` of a document.
    PageHeader,
    /// `websocket` of a server.
    WebSocket,
    /// An element of `links`.
    Link,
    /// `limits` of the file itself.
    TopLimits,
    /// `limits` of a server.
    ServerLimits,
    /// `limits` of `websocket`.
    WebSocketLimits,
    /// `limits` of a link.
    LinkLimits,
}

impl Scope {
    /// All of them, from the outside in.
    const ALL: [Scope; 10] = [
        Scope::Top,
        Scope::Server,
        Scope::Document,
        Scope::PageHeader,
        Scope::WebSocket,
        Scope::Link,
        Scope::TopLimits,
        Scope::ServerLimits,
        Scope::WebSocketLimits,
        Scope::LinkLimits,
    ];

    /// What it is called in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Scope::Top => "the file itself",
            Scope::Server => "a server",
            Scope::Document => "document",
            Scope::PageHeader => "an element of headers",
            Scope::WebSocket => "websocket",
            Scope::Link => "a link",
            Scope::TopLimits => "the file's limits",
            Scope::ServerLimits => "a server's limits",
            Scope::WebSocketLimits => "websocket's limits",
            Scope::LinkLimits => "a link's limits",
        }
    }

    /// The limits of such a group.
    fn limits(self) -> Option<Scope> {
        match self {
            Scope::Top => Some(Scope::TopLimits),
            Scope::Server => Some(Scope::ServerLimits),
            Scope::WebSocket => Some(Scope::WebSocketLimits),
            Scope::Link => Some(Scope::LinkLimits),
            _ => None,
        }
    }
}

/// All limits that are inherited: from the file to its servers, to `websocket`, to links.
#[derive(Clone, Default, Debug)]
pub struct Limits {
    /// Of the whole process.
    pub(crate) process: limits::Process,
    /// Of a server.
    pub(crate) http: limits::Http,
    /// Of the conversations of a docroot or a link.
    pub(crate) websocket: limits::WebSocket,
}

/// What a key may be set to.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string that is not empty.
    Text,
    /// A string that may be empty: a list with commas.
    Commas,
    /// A string, or an array or list of strings.
    Texts,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// An integer.
    Number(Bounds),
    /// An integer, or a string of its digits.
    Digits(Bounds),
    /// An integer that goes into the limits.
    Limit(Bounds, fn(&mut Limits, u64)),
    /// A group.
    Group(Scope),
    /// A list of groups.
    Groups(Scope),
    /// A key of ouistiti's that is left aside with a warning.
    Ignored,
    /// A key that must not be left aside.
    Refused,
    /// A key of ouistiti's that may protect something. Where it does, a server has to name it in `unprotected`.
    Guard,
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// The groups that it may stand in.
    pub scopes: &'static [Scope],
    /// Its name.
    pub name: &'static str,
    /// What it may be set to.
    pub kind: Kind,
    /// What holds without it; empty: the bounds say it.
    pub default: &'static str,
    /// What its number counts.
    pub unit: &'static str,
    /// What it is for, in one sentence. Of one that is not served: what that means.
    pub meaning: &'static str,
}

/// The whole table.
pub fn all() -> impl Iterator<Item = &'static ConfigKey> {
    table::KEYS.iter().chain(table::LIMITS).chain(table::NOT_SERVED)
}

/// The keys of one group.
pub fn of(scope: Scope) -> impl Iterator<Item = &'static ConfigKey> {
    all().filter(move |key| key.scopes.contains(&scope))
}

/// The key of this name in this group.
pub(crate) fn find(scope: Scope, name: &str) -> Option<&'static ConfigKey> {
    of(scope).find(|key| key.name == name)
}

impl Kind {
    /// Whether the key has an effect.
    pub fn is_served(self) -> bool {
        !matches!(self, Kind::Ignored | Kind::Refused | Kind::Guard)
    }
}

/// The keys that `unprotected` may name.
pub(crate) fn guards() -> impl Iterator<Item = &'static ConfigKey> {
    all().filter(|key| matches!(key.kind, Kind::Guard))
}

/// What to say about a name that is no key of this group, and the key that it may stand for.
pub(crate) fn unknown(scope: Scope, name: &str) -> (String, Option<&'static str>) {
    let belongs_in = |other: &Scope| find(*other, name).is_some_and(|key| key.kind.is_served());
    if scope.limits().is_some_and(|limits| belongs_in(&limits)) {
        return ("unknown key here: it belongs in limits = { }".to_owned(), None);
    }
    let others: Vec<&str> = Scope::ALL.into_iter().filter(belongs_in).map(Scope::title).collect();
    if !others.is_empty() {
        return (format!("unknown key here: it belongs in {}", others.join(" or ")), None);
    }
    let near = |key: &'static ConfigKey| (distance(key.name, name), key.name);
    match of(scope).filter(|key| key.kind.is_served()).map(near).min() {
        Some((distance, nearest)) if distance <= 1 + nearest.len().min(name.len()) / 4 => {
            (format!("unknown key: did you mean {nearest:?}?"), Some(nearest))
        }
        _ => ("unknown key: leave it out".to_owned(), None),
    }
}

impl ConfigKey {
    /// What holds without it.
    pub fn default_text(&self) -> String {
        match self.kind {
            Kind::Number(bounds) | Kind::Digits(bounds) | Kind::Limit(bounds, _) if self.default.is_empty() => {
                bounds.default.to_string()
            }
            _ => self.default.to_owned(),
        }
    }
}

/// What may be written.
impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Text | Kind::Commas => f.write_str("a string"),
            Kind::Texts => f.write_str("a string or a list of strings"),
            Kind::Word(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                f.write_str(&quoted.join(", "))
            }
            Kind::Flag => f.write_str("true or false"),
            Kind::Number(bounds) | Kind::Digits(bounds) | Kind::Limit(bounds, _) => {
                let gap = if self.unit.is_empty() { "" } else { " " };
                write!(f, "{} to {}{gap}{}", bounds.min, bounds.max, self.unit)
            }
            Kind::Group(_) => f.write_str("a group { }"),
            Kind::Groups(_) => f.write_str("a list of groups ( { }, { } )"),
            Kind::Ignored | Kind::Refused | Kind::Guard => f.write_str("nothing"),
        }
    }
}

/// How many letters have to be changed, added, left out or exchanged with their neighbour (Damerau's distance).
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    // The rows of the table for the last two letters of `one`, and for the present one.
    let (mut before, mut last) = (Vec::new(), (0..=other.len()).collect::<Vec<usize>>());
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("port", "port", 0),
            ("protocl", "protocol", 1),
            ("prot", "port", 1),
            ("pors", "port", 1),
            ("opirgin", "origin", 2),
            ("orgiin", "origin", 1),
            ("idle_ms", "idle-ms", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn unknown_keys() {
        for (scope, name, said) in [
            (Scope::WebSocket, "protocl", "unknown key: did you mean \"protocol\"?"),
            (Scope::Link, "destinaton", "unknown key: did you mean \"destination\"?"),
            (Scope::Top, "sevrers", "unknown key: did you mean \"servers\"?"),
            (Scope::TopLimits, "idle_ms", "unknown key: did you mean \"idle-ms\"?"),
            (Scope::Server, "docroot", "unknown key here: it belongs in document or websocket"),
            (Scope::Server, "idle-ms", "unknown key here: it belongs in limits = { }"),
            (Scope::LinkLimits, "head-ms", "unknown key here: it belongs in the file's limits or a server's limits"),
            (Scope::Server, "colour", "unknown key: leave it out"),
        ] {
            assert_eq!(unknown(scope, name).0, said, "{name}");
        }
    }

    #[test]
    fn the_table_is_well_made() {
        for scope in Scope::ALL {
            let mut names: Vec<&str> = of(scope).map(|key| key.name).collect();
            assert!(!names.is_empty(), "{scope:?}");
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{scope:?}: a name stands twice");
        }
        for key in all() {
            assert!(key.meaning.ends_with('.') && !key.scopes.is_empty(), "{}", key.name);
            assert_eq!(key.default_text().is_empty(), !key.kind.is_served(), "{}", key.name);
        }
    }
}
