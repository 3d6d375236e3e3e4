//! A login: name and password against the database, with the limits of `attempts.rs`.

use std::path::Path;

use jsonrpc_library::Failure;
use jsonrpc_sqlite::sqlite_failure;

use crate::attempts::{self, Client};
use crate::limits::{NAME_SIZE_MAX, PASSWORD_SIZE_MAX};
use crate::passwords::{self, Kind};
use crate::store::{Store, User};

/// A user whose password is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The user's name, as it is stored.
    pub name: String,
    /// Whether the user is a member of the group root.
    pub is_root: bool,
}

/// Why a login is refused.
#[derive(Debug)]
pub enum LoginError {
    /// No such user, or another password: the error does not tell which.
    Wrong,
    /// Too many wrong passwords. The password was not checked.
    Wait {
        /// Milliseconds until the next attempt.
        wait_ms: u64,
    },
    /// The database or the hash failed. The message is for the operator.
    Failed(Failure),
}

/// Checks that a file is a database of users. The error is the operator's sentence.
pub fn check_users(file: &Path) -> Result<(), String> {
    Store::open(file).map(drop).map_err(|failure| failure.message)
}

/// Checks a name and a password. `address` is the client's; None: only the attempts for this user are limited. It takes
/// the time of an argon2id hash, and up to 2 s more while another process writes the database.
pub fn log_in(file: &Path, address: Option<&str>, name: &str, password: &str) -> Result<Login, LoginError> {
    if name.len() > NAME_SIZE_MAX || password.len() > PASSWORD_SIZE_MAX {
        return Err(LoginError::Wrong);
    }
    let store = Store::open(file).map_err(LoginError::Failed)?;
    let user = identify(&store, &mut Client::of(address), name, password)?;
    Ok(Login { is_root: user.is_root(), name: user.name })
}

/// A user by name and password. A password that is not stored as argon2id is stored again.
pub(crate) fn identify(store: &Store, client: &mut Client, name: &str, password: &str) -> Result<User, LoginError> {
    let failed = |error| LoginError::Failed(sqlite_failure(&error));
    let counted = attempts::count(&store.db, client, name, attempts::now_ms()).map_err(failed)?;
    let attempt = counted.map_err(|wait_ms| LoginError::Wait { wait_ms: wait_ms.unsigned_abs() })?;
    let user = store.user(name).map_err(LoginError::Failed)?;
    let stored = user.as_ref().filter(|user| user.may_log_in).and_then(|user| user.stored.as_deref());
    let is_right = passwords::verify(stored, name, password).map_err(LoginError::Failed)?;
    let Some(mut user) = user.filter(|_| is_right) else { return Err(LoginError::Wrong) };
    attempts::uncount(&store.db, client, &attempt).map_err(failed)?;
    if user.stored.as_deref().is_some_and(|stored| Kind::of(stored) != Kind::Argon2id) {
        let stored = passwords::hash(password).map_err(LoginError::Failed)?;
        if store.set_password(&user, &stored).map_err(LoginError::Failed)? {
            user.stored = Some(stored);
        }
    }
    Ok(user)
}
