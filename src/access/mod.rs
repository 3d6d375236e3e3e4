//! Who may come in: the rules of a server, and what a request shows to meet them. Without I/O and without a clock. The
//! helper `uakari-auth` verifies credentials; here they are found, sent to it, and remembered for a while.
#![forbid(unsafe_code)]

mod addresses;
mod ask;
mod cache;
mod challenge;
mod cookie;
mod credential;
mod demand;
mod digest;
mod error;
mod query;
mod standing;

pub(crate) use addresses::shown_ip;
pub use addresses::{Addresses, ClientFilter};
#[cfg(test)]
pub(crate) use ask::Varies;
pub(crate) use ask::{Admitted, Ask, Revocations};
pub(crate) use cache::Verdicts;
pub(crate) use challenge::challenges;
pub(crate) use credential::has_bearer;
pub(crate) use demand::{Decision, Demanded, Inquiry, Request, Subjects, demand, demand_of_node};
pub(crate) use digest::NonceKey;
pub use error::AccessError;
pub(crate) use query::strip;
pub(crate) use standing::{Lapse, Standing};

pub use auth_wire::DigestAlgorithm;

use std::path::Path;
use std::sync::Arc;

use crate::limits::AUTH_CACHE_MS;
use patterns::Patterns;

/// Who may come in to a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// ouistiti's filter of addresses. None: every address may connect.
    pub filter: Option<ClientFilter>,
    /// The first rule whose path matches a name holds for it. The server's own is the last one and has no path. Empty:
    /// every request is served.
    pub rules: Vec<AccessRule>,
    /// The parameters of queries that are tokens for any of the rules. Sorted, without duplicates.
    query_names: Vec<Box<str>>,
}

/// What requests for some paths need.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessRule {
    /// The paths: patterns searched for in "/" + name. None: all of them.
    pub path: Option<Patterns>,
    /// The addresses of the clients. None: any.
    pub addresses: Option<Addresses>,
    /// Whether both are needed, the address and the credential, or one of them.
    pub satisfy: Satisfy,
    /// The credentials, of which one is needed. Empty: none is.
    pub auth: Vec<Auth>,
    /// The rule is the server's without its userfilter, for the paths of `userfilter.allow`. As an exemption it holds
    /// only for requests whose names all match.
    pub spares_filter: bool,
}

/// How addresses and credentials of a rule go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Satisfy {
    /// Both are needed.
    #[default]
    All,
    /// One of them is.
    Any,
}

/// A kind of credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// Index of the rule of `auth_wire` that verifies it. Not used by `ClientCert` and `None`.
    pub rule: u32,
    /// The realm of the challenges, without control characters.
    pub realm: Box<str>,
    /// Where the credential is.
    pub kind: AuthKind,
    /// Paths that need it although `unprotect` has them. None: no such paths.
    pub protect: Option<Patterns>,
    /// Paths that do not need it. None: all paths do.
    pub unprotect: Option<Patterns>,
    /// Whether the decision depends on method and path too, since the rule has a userfilter.
    pub has_filter: bool,
    /// How long an admission is remembered, in milliseconds. 0: it is not. Always 0 with `AuthKind::Unix`.
    pub cache_ms: u64,
    /// Interval in milliseconds at which the credential of an open WebSocket is verified again. 0: it is not.
    pub recheck_ms: u64,
}

/// Where a credential is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthKind {
    /// User and password in Authorization (RFC 7617).
    Basic,
    /// A response to a challenge, in Authorization (RFC 7616).
    Digest {
        /// The value of `opaque` in challenges; empty: left out.
        opaque: Box<str>,
        /// The algorithm of the challenges, and the only one that is accepted.
        algorithm: DigestAlgorithm,
    },
    /// A token in Authorization (RFC 6750).
    Bearer,
    /// A token in a cookie.
    Cookie {
        /// The name of the cookie.
        name: Box<str>,
    },
    /// A token in the query. Backends and logs do not get it.
    Query {
        /// The name of the parameter, decoded.
        name: Box<str>,
    },
    /// A UNIX server decides, with or without a credential.
    Unix {
        /// Its path, as in the rule of `auth_wire`.
        server: Arc<Path>,
        /// The fields of the request that it gets.
        headers: Vec<Box<str>>,
    },
    /// The certificate of a TLS client, which the server's `clientca` has verified.
    ClientCert {
        /// The common names that may come in. Empty: all.
        users: Vec<Box<str>>,
    },
    /// Nothing: every request is admitted.
    None,
}

impl Auth {
    /// An authentication by this rule of `auth_wire` with defaults for all else.
    pub fn new(rule: u32, realm: &str, kind: AuthKind) -> Auth {
        // The answer of a UNIX server says itself how long it holds, which uakari-auth follows.
        let cache_ms = if matches!(kind, AuthKind::Unix { .. }) { 0 } else { AUTH_CACHE_MS.default };
        Auth {
            rule,
            realm: realm.into(),
            kind,
            protect: None,
            unprotect: None,
            has_filter: false,
            cache_ms,
            recheck_ms: 0,
        }
    }
}

impl Access {
    /// The access of a server with this filter and these rules.
    pub fn new(filter: Option<ClientFilter>, rules: Vec<AccessRule>) -> Access {
        let mut query_names: Vec<Box<str>> = rules.iter().flat_map(AccessRule::query_names).map(Into::into).collect();
        query_names.sort_unstable();
        query_names.dedup();
        Access { filter, rules, query_names }
    }

    /// The parameters of queries that are tokens here, whatever the path, each once.
    pub(crate) fn query_names<'a>(&'a self, of_links: &[&'a AccessRule]) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.query_names.iter().map(|name| &**name).collect();
        for name in of_links.iter().flat_map(|rule| rule.query_names()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

impl AccessRule {
    /// The parameters of queries that are tokens for this rule.
    fn query_names(&self) -> impl Iterator<Item = &str> {
        self.auth.iter().filter_map(|auth| match &auth.kind {
            AuthKind::Query { name } => Some(&**name),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are compared with each parameter of each query.
    #[test]
    fn each_name_of_a_token_is_known_once() {
        let rule = |names: &[&str]| {
            let kind = |name: &&str| AuthKind::Query { name: (*name).into() };
            let auth = names.iter().map(|name| Auth::new(0, "R", kind(name))).collect();
            AccessRule { auth, ..AccessRule::default() }
        };
        let access = Access::new(None, vec![rule(&["b", "a", "b"]), rule(&[]), rule(&["a"])]);
        assert_eq!(access.query_names(&[]), ["a", "b"]);
        assert_eq!(access.query_names(&[&rule(&["b", "c", "c"])]), ["a", "b", "c"]);
    }
}
