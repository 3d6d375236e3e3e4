//! What is asked of the helper, and what is known of an admitted client.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth_wire::{Credential, Digest, Question};

/// A question about a request. The gateway gives it its id (`Question::id`), and asks the helper or the cache.
#[derive(Clone)]
pub(crate) struct Ask {
    /// The question, with its generation and rule.
    pub(crate) question: Question,
    /// How long an admission is remembered, in milliseconds. 0: it is not.
    pub(crate) cache_ms: u64,
    /// Interval in milliseconds at which a WebSocket is asked about again. 0: it is not.
    pub(crate) recheck_ms: u64,
    /// The path of the UNIX server that decides. None: none does.
    pub(crate) server: Option<Arc<Path>>,
    /// What the decision depends on beside the credential.
    pub(crate) varies: Varies,
    /// The client has an open WebSocket, about which it is asked again: only what was remembered in the last half of the
    /// interval counts.
    pub(crate) is_recheck: bool,
}

/// What a decision depends on beside the credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Varies {
    /// Nothing.
    No,
    /// Method and path.
    Path,
    /// All that a UNIX server is told.
    All,
}

// A question contains the credential.
impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { generation, rule, .. } = self.question;
        write!(f, "Ask {{ generation: {generation}, rule: {rule}, is_recheck: {} }}", self.is_recheck)
    }
}

impl Ask {
    /// Whether an admission may be remembered. Each response of Digest has a count of its own.
    pub(crate) fn may_be_remembered(&self) -> bool {
        self.cache_ms > 0 && !matches!(self.question.credential, Credential::Digest(_))
    }

    /// Heap bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        let Question { credential, address, method, host, path, query, headers, .. } = &self.question;
        let credential = match credential {
            Credential::None => 0,
            Credential::Password { user, password } => user.len() + password.reveal().len(),
            Credential::Token(token) => token.reveal().len(),
            Credential::Digest(digest) => {
                let Digest { user, realm, nonce, uri, nc, cnonce, response, .. } = digest;
                [user, realm, nonce, uri, nc, cnonce].map(String::len).iter().sum::<usize>() + response.reveal().len()
            }
        };
        let pair = size_of::<(String, String)>();
        let headers: usize = headers.iter().map(|(name, value)| pair + name.len() + value.len()).sum();
        let texts: usize = [address, method, host, path, query].map(String::len).iter().sum();
        size_of::<Ask>() + credential + texts + headers
    }
}

/// An admitted client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Admitted {
    /// The user; empty: one without a name.
    pub(crate) user: Box<str>,
    /// Its groups, separated by commas.
    pub(crate) groups: Box<str>,
    /// The path of the UNIX server that admitted it. None: none did.
    pub(crate) server: Option<Arc<Path>>,
}

/// What UNIX servers have revoked (`auth_wire::ToDaemon::Revoked`): users, by the paths of the servers. It is the same
/// server in each configuration that has its path.
#[derive(Debug, Default)]
pub(crate) struct Revocations(HashMap<PathBuf, HashSet<String>>);

impl Revocations {
    pub(crate) fn add(&mut self, server: PathBuf, user: String) {
        self.0.entry(server).or_default().insert(user);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one is about the user whom this server has admitted.
    pub(crate) fn contains(&self, server: Option<&Path>, user: &str) -> bool {
        server.and_then(|server| self.0.get(server)).is_some_and(|users| users.contains(user))
    }
}
