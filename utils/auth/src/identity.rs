//! The user that a credential belongs to.

/// A user whose credential was verified.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// The name.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
    /// The home folder, of ouistiti's rows; empty: none.
    pub home: String,
    /// Unix time in milliseconds at which the credential expires; None: never.
    pub until_ms: Option<u64>,
}
