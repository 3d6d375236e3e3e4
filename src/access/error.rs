//! Why a request is not admitted.

use std::fmt;

/// Why a request is not admitted. Display is the operator's sentence and the reply's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum AccessError {
    /// `clientfilter` or `addresses` refuse the address.
    Address,
    /// No credential of a kind that is asked for.
    Missing,
    /// The credential is wrong.
    Wrong,
    /// The nonce of a Digest response is too old, or not of this process.
    Stale,
    /// The user may not do this.
    Forbidden,
    /// Too many failures: seconds after which another attempt is judged.
    Limited(u64),
    /// It cannot be decided.
    Unavailable,
    /// The decision took too long.
    TimedOut,
    /// Too many other credentials are being verified.
    Busy,
    /// Authorization has no valid value, or more than one line.
    Malformed,
    /// The token is given twice.
    Ambiguous,
    /// A credential, or the fields for a UNIX server, are too long.
    TooLarge,
}

impl AccessError {
    /// The HTTP status of the refusal.
    pub(crate) fn status(self) -> u16 {
        match self {
            AccessError::Malformed | AccessError::Ambiguous => 400,
            AccessError::Missing | AccessError::Wrong | AccessError::Stale => 401,
            AccessError::Address | AccessError::Forbidden => 403,
            AccessError::Limited(_) => 429,
            AccessError::TooLarge => 431,
            AccessError::Unavailable | AccessError::TimedOut | AccessError::Busy => 503,
        }
    }

    /// Too many failures, with this time of waiting.
    pub(crate) fn limited(wait_ms: u64) -> AccessError {
        AccessError::Limited(wait_ms.div_ceil(1000).max(1))
    }

    /// Of the refusals of two alternatives the one that the client is told: nobody can decide, the user is known, the
    /// credential is old.
    pub(crate) fn worse(self, other: AccessError) -> AccessError {
        let order = [AccessError::Unavailable, AccessError::Forbidden, AccessError::Stale, AccessError::Wrong];
        order.into_iter().find(|error| *error == self || *error == other).unwrap_or(self)
    }

    /// Whether it is worth a log line of its own. A request without a credential is no attack: browsers begin so.
    pub(crate) fn is_logged(self) -> bool {
        self != AccessError::Missing
    }

    /// Whether the reply has challenges (RFC 9110 section 11.6.1).
    pub(crate) fn is_challenge(self) -> bool {
        self.status() == 401
    }
}

impl AccessError {
    /// The operator's sentence and the reply's body.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            AccessError::Address => "clients with this address are not admitted",
            AccessError::Missing => "a credential is needed",
            AccessError::Wrong => "the credential is not valid",
            AccessError::Stale => "the credential is too old",
            AccessError::Forbidden => "this user may not do this",
            AccessError::Limited(_) => "too many attempts: try again later",
            AccessError::Unavailable => "the credential cannot be verified now",
            AccessError::TimedOut => "the credential could not be verified in time",
            AccessError::Busy => "too many credentials are being verified: try again later",
            AccessError::Malformed => "a request needs at most one valid Authorization header",
            AccessError::Ambiguous => "the request has two different tokens",
            AccessError::TooLarge => "the credential is too long",
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}
