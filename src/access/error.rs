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
    /// No certificate, and only certificates are accepted.
    NoCertificate,
    /// The credential is wrong.
    Wrong,
    /// The nonce of a Digest response is too old, or not of this process.
    Stale,
    /// As `Stale`, and another credential of the request is wrong.
    WrongAndStale,
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
    /// A server may take the path for another one, for which more is needed.
    Spelling,
}

impl AccessError {
    /// The HTTP status of the refusal.
    pub(crate) fn status(self) -> u16 {
        match self {
            AccessError::Malformed | AccessError::Ambiguous | AccessError::Spelling => 400,
            AccessError::Missing | AccessError::Wrong | AccessError::Stale | AccessError::WrongAndStale => 401,
            AccessError::Address | AccessError::NoCertificate | AccessError::Forbidden => 403,
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
        if matches!((self, other), (AccessError::Stale, AccessError::Wrong) | (AccessError::Wrong, AccessError::Stale))
        {
            return AccessError::WrongAndStale;
        }
        let order = [
            AccessError::Unavailable,
            AccessError::Forbidden,
            AccessError::WrongAndStale,
            AccessError::Stale,
            AccessError::Wrong,
        ];
        order.into_iter().find(|error| *error == self || *error == other).unwrap_or(self)
    }

    /// Whether it is worth a log line of its own. A request without a credential is no attack: browsers begin so. With
    /// Digest they continue with an old nonce, and repeat the request with a new one. A nonce that anyone can make up
    /// hides no other guess.
    pub(crate) fn is_logged(self) -> bool {
        !matches!(self, AccessError::Missing | AccessError::NoCertificate | AccessError::Stale)
    }

    /// Whether a Digest response with a new nonce may be right.
    pub(crate) fn is_stale(self) -> bool {
        matches!(self, AccessError::Stale | AccessError::WrongAndStale)
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
            AccessError::NoCertificate => "a certificate of the client is needed",
            AccessError::Wrong | AccessError::WrongAndStale => "the credential is not valid",
            AccessError::Stale => "the credential is too old",
            AccessError::Forbidden => "this user may not do this",
            AccessError::Limited(_) => "too many attempts: try again later",
            AccessError::Unavailable => "the credential cannot be verified now",
            AccessError::TimedOut => "the credential could not be verified in time",
            AccessError::Busy => "too many credentials are being verified: try again later",
            AccessError::Malformed => "a request needs at most one valid Authorization header",
            AccessError::Ambiguous => "the request has two different tokens",
            AccessError::TooLarge => "the credential is too long",
            AccessError::Spelling => "the path is spelled so that a rule for it could be missed",
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::AccessError::{Forbidden, Missing, Stale, Unavailable, Wrong, WrongAndStale};

    #[test]
    fn refusals_of_two_alternatives() {
        for (one, other, told) in [
            (Wrong, Stale, WrongAndStale),
            (WrongAndStale, Wrong, WrongAndStale),
            (WrongAndStale, Stale, WrongAndStale),
            (Stale, Stale, Stale),
            (Missing, Wrong, Wrong),
            (Forbidden, WrongAndStale, Forbidden),
            (Forbidden, Stale, Forbidden),
            (Unavailable, Forbidden, Unavailable),
            (Missing, Missing, Missing),
        ] {
            assert_eq!((one.worse(other), other.worse(one)), (told, told));
        }
    }

    /// A made-up nonce hides no guess of another credential.
    #[test]
    fn guesses_are_logged() {
        assert!(Wrong.is_logged() && WrongAndStale.is_logged() && !Stale.is_logged() && !Missing.is_logged());
    }
}
