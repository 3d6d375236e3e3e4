//! The keys of a configuration: one table, which the check reads. Tests compare the documentation with it.
#![forbid(unsafe_code)]

mod table;

use std::fmt;

use crate::limits::{self, Bounds};

/// The kinds of groups. A group defines which keys are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The file itself.
    Top,
    /// An element of `upstreams`.
    Upstream,
    /// An element of `servers` of an upstream.
    Node,
    /// `sticky` of an upstream.
    Sticky,
    /// `health` of an upstream.
    Health,
    /// An element of `servers`.
    Server,
    /// `tls` of a server.
    Tls,
    /// `redirect` of a server.
    Redirect,
    /// `document` of a server.
    Document,
    /// An element of `headers` of a document.
    PageHeader,
    /// An element of `links` of a document.
    PageLink,
    /// `websocket` of a server.
    WebSocket,
    /// An element of `links` of `websocket`.
    Link,
    /// `tls` of an upstream, or of a link to nodes.
    UpstreamTls,
    /// `auth`, or one of its elements.
    Auth,
    /// An element of `keys` of `auth`.
    AuthKey,
    /// An element of `paths`.
    AccessPath,
    /// `addresses`.
    Addresses,
    /// `userfilter` of a server.
    UserFilter,
    /// `clientfilter` of a server.
    ClientFilter,
    /// `limits` of the file itself.
    TopLimits,
    /// `limits` of a server.
    ServerLimits,
    /// `limits` of `document`.
    DocumentLimits,
    /// `limits` of a link of `document`.
    PageLinkLimits,
    /// `limits` of `websocket`.
    WebSocketLimits,
    /// `limits` of a link of `websocket`.
    LinkLimits,
}

impl Scope {
    /// Outermost first.
    const ALL: [Scope; 26] = [
        Scope::Top,
        Scope::Upstream,
        Scope::Node,
        Scope::Sticky,
        Scope::Health,
        Scope::Server,
        Scope::Tls,
        Scope::Redirect,
        Scope::Document,
        Scope::PageHeader,
        Scope::PageLink,
        Scope::WebSocket,
        Scope::Link,
        Scope::UpstreamTls,
        Scope::Auth,
        Scope::AuthKey,
        Scope::AccessPath,
        Scope::Addresses,
        Scope::UserFilter,
        Scope::ClientFilter,
        Scope::TopLimits,
        Scope::ServerLimits,
        Scope::DocumentLimits,
        Scope::PageLinkLimits,
        Scope::WebSocketLimits,
        Scope::LinkLimits,
    ];

    /// The group's name in reported problems.
    pub fn title(self) -> &'static str {
        match self {
            Scope::Top => "the file itself",
            Scope::Upstream => "an upstream",
            Scope::Node => "a server of an upstream",
            Scope::Sticky => "sticky",
            Scope::Health => "health",
            Scope::Server => "a server",
            Scope::Tls => "tls",
            Scope::Redirect => "redirect",
            Scope::Document => "document",
            Scope::PageHeader => "an element of headers",
            Scope::PageLink => "a link of document",
            Scope::WebSocket => "websocket",
            Scope::Link => "a link",
            Scope::UpstreamTls => "tls of an upstream",
            Scope::Auth => "auth",
            Scope::AuthKey => "an element of keys",
            Scope::AccessPath => "an element of paths",
            Scope::Addresses => "addresses",
            Scope::UserFilter => "userfilter",
            Scope::ClientFilter => "clientfilter",
            Scope::TopLimits => "the file's limits",
            Scope::ServerLimits => "a server's limits",
            Scope::DocumentLimits => "document's limits",
            Scope::PageLinkLimits => "a document link's limits",
            Scope::WebSocketLimits => "websocket's limits",
            Scope::LinkLimits => "a link's limits",
        }
    }

    /// The group `limits` of this group. None: it has none.
    fn limits(self) -> Option<Scope> {
        match self {
            Scope::Top => Some(Scope::TopLimits),
            Scope::Server => Some(Scope::ServerLimits),
            Scope::Document => Some(Scope::DocumentLimits),
            Scope::PageLink => Some(Scope::PageLinkLimits),
            Scope::WebSocket => Some(Scope::WebSocketLimits),
            Scope::Link => Some(Scope::LinkLimits),
            _ => None,
        }
    }
}

/// The limits, which are inherited from the file to its servers, to `document` and `websocket`, and to links.
#[derive(Clone, Default, Debug)]
pub struct Limits {
    pub(crate) process: limits::Process,
    /// Of a server's HTTP connections.
    pub(crate) http: limits::Http,
    /// Of a docroot's or a link's WebSockets.
    pub(crate) websocket: limits::WebSocket,
    /// Of the requests of a link to nodes.
    pub(crate) upstream: limits::Forwarding,
}

/// The type and bounds of a key's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A non-empty string.
    Text,
    /// A comma-separated list in a string, which may be empty.
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
    /// An integer, and the function that stores it.
    Limit(Bounds, fn(&mut Limits, u64)),
    /// A group.
    Group(Scope),
    /// A list of groups.
    Groups(Scope),
    /// A group, or a list of groups.
    OneOrMore(Scope),
    /// A key of ouistiti that is ignored with a warning.
    Ignored,
    /// A key that ouistiti has renamed to this: an error, unless the new name is set too.
    Renamed(&'static str),
    /// A key of ouistiti that may protect a server: an error if it does and `unprotected` does not list this name.
    Guard(&'static str),
}

/// A key. Display tells the values that it accepts.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// The groups in which it is known.
    pub scopes: &'static [Scope],
    /// The name as it is written in a file.
    pub name: &'static str,
    /// The values that it accepts.
    pub kind: Kind,
    /// The default in the documentation. Empty: the default of the bounds.
    pub default: &'static str,
    /// The unit of a number; may be empty.
    pub unit: &'static str,
    /// One sentence for the documentation. Of a key that is not served: the consequence.
    pub meaning: &'static str,
}

/// The names of the group `tls`, its own first. ouistiti has used the others.
pub(crate) const TLS_GROUPS: [&str; 4] = ["tls", "mbedtls", "openssl", "wolfssl"];

/// The same for the group `document`.
pub(crate) const DOCUMENT_GROUPS: [&str; 2] = ["document", "static_file"];

/// The keys that restrict who may come in. They are served, unless `auth` or `userfilter` need what is not served and
/// `unprotected` lists them.
pub(crate) const ACCESS_KEYS: [&str; 3] = ["auth", "userfilter", "clientfilter"];

/// The words of `unprotected`.
pub(crate) fn consents() -> impl Iterator<Item = &'static str> {
    ACCESS_KEYS.into_iter().chain(guards().map(|(_, consent)| consent))
}

/// The whole table.
pub fn all() -> impl Iterator<Item = &'static ConfigKey> {
    table::KEYS.iter().chain(table::LIMITS).chain(table::NOT_SERVED)
}

/// The keys of one group.
pub fn of(scope: Scope) -> impl Iterator<Item = &'static ConfigKey> {
    all().filter(move |key| key.scopes.contains(&scope))
}

/// None: the group has no key of this name.
pub(crate) fn find(scope: Scope, name: &str) -> Option<&'static ConfigKey> {
    of(scope).find(|key| key.name == name)
}

impl Kind {
    /// Whether the key has an effect.
    pub fn is_served(self) -> bool {
        !matches!(self, Kind::Ignored | Kind::Renamed(_) | Kind::Guard(_))
    }
}

/// The keys of a server and its `redirect` that may protect it, each with its name in `unprotected`.
pub(crate) fn guards() -> impl Iterator<Item = (&'static ConfigKey, &'static str)> {
    all().filter_map(|key| match key.kind {
        Kind::Guard(consent) if key.scopes != [Scope::Auth] => Some((key, consent)),
        _ => None,
    })
}

/// The error for an unknown key, and the known key that it resembles.
pub(crate) fn unknown(scope: Scope, name: &str) -> (String, Option<&'static str>) {
    let belongs_in = |other: &Scope| find(*other, name).is_some_and(|key| key.kind.is_served());
    if scope.limits().is_some_and(|limits| belongs_in(&limits)) {
        return ("unknown key here: it belongs in limits = { }".to_owned(), None);
    }
    let others: Vec<&str> = Scope::ALL.into_iter().filter(belongs_in).map(Scope::title).collect();
    if !others.is_empty() {
        return (format!("unknown key here: it belongs in {}", others.join(" or ")), None);
    }
    match nearest(name, of(scope).filter(|key| key.kind.is_served()).map(|key| key.name)) {
        Some(nearest) => (format!("unknown key: did you mean {nearest:?}?"), Some(nearest)),
        None => ("unknown key: leave it out".to_owned(), None),
    }
}

/// The known name that an unknown one resembles. None: it resembles none of them.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let (distance, nearest) = known.map(|known| (distance(known, name), known)).min()?;
    (distance <= 1 + nearest.len().min(name.len()) / 4).then_some(nearest)
}

impl ConfigKey {
    /// The default in the documentation.
    pub fn default_text(&self) -> String {
        match self.kind {
            Kind::Number(bounds) | Kind::Digits(bounds) | Kind::Limit(bounds, _) if self.default.is_empty() => {
                bounds.default.to_string()
            }
            _ => self.default.to_owned(),
        }
    }
}

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
            Kind::OneOrMore(_) => f.write_str("a group { } or a list of groups ( { }, { } )"),
            Kind::Ignored | Kind::Renamed(_) | Kind::Guard(_) => f.write_str("nothing"),
        }
    }
}

/// Edit distance with substitutions, insertions, deletions and transpositions of neighbours (Damerau-Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    // The two previous rows of the distance matrix.
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
    fn keys_are_unique_and_documented() {
        for scope in Scope::ALL {
            let mut names: Vec<&str> = of(scope).map(|key| key.name).collect();
            assert!(!names.is_empty(), "{scope:?}");
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{scope:?}: a name occurs twice");
        }
        for key in all() {
            assert!(key.meaning.ends_with('.') && !key.scopes.is_empty(), "{}", key.name);
            assert_eq!(key.default_text().is_empty(), !key.kind.is_served(), "{}", key.name);
        }
    }
}
