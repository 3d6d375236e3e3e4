//! `authrpc.so`: users for `websocket_jsonrpc`, in an SQLite database that `-C` names. A connection logs in with `auth`.
//! Only the root group may add, remove and change other users; a user with its password may change that, or remove
//! itself. Messages for callers have ouistiti's wording.
//!
//! Another program of the same machine checks logins with [`log_in`], or looks users up with [`Store::open_read_only`].

mod attempts;
mod limits;
mod login;
mod passwords;
mod store;

pub use crate::attempts::group;
pub use crate::login::{Login, LoginError, check_users, log_in};
pub use crate::store::{Store, User};

use jsonrpc_library::{Failure, Methods, Peer, abi};
use jsonrpc_sqlite::{Settings, failure, params};
use serde_json::{Map, Value, json};

use crate::attempts::Client;
use crate::limits::{HOME_SIZE_MAX, NAME_SIZE_MAX, PASSWORD_SIZE_MAX};
use crate::passwords::Kind;
use crate::store::USERS;

/// No such user, or another password: the error does not tell which.
const NOT_FOUND: i32 = 1;
/// Only the root group may do this.
const NOT_ALLOWED: i32 = 2;
/// Too many wrong passwords; the data has the milliseconds to wait.
const WAIT: i32 = 3;
/// The user exists, the group does not, or the change would leave no user who can add others.
const CONFLICT: i32 = 4;

struct Auth {
    store: Store,
    client: Client,
    session: Option<User>,
}

jsonrpc_library::export!(Auth);

impl Methods for Auth {
    fn start(config: &str) -> Result<(), Failure> {
        let settings = Settings::read(config, &[])?;
        store::create(&settings.file, &mut std::io::stderr())?;
        Store::open(&settings.file).map(|_| ())
    }

    fn open(config: &str, peer: &Peer) -> Result<Auth, Failure> {
        let store = Settings::read(config, &[]).and_then(|settings| Store::open(&settings.file));
        let store = store.map_err(jsonrpc_sqlite::for_clients)?;
        Ok(Auth { store, client: Client::of(peer.address.as_deref()), session: None })
    }

    fn call(&mut self, method: &str, text: Option<&str>) -> Result<String, Failure> {
        match method {
            "auth" => self.auth(&params(text)?),
            "passwd" => self.passwd(&params(text)?),
            "adduser" => self.add(&params(text)?),
            "rmuser" => self.remove(&params(text)?),
            _ => Err(Failure::method_not_found()),
        }
    }
}

impl Auth {
    fn auth(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let (name, password) =
            (required(params, "user", NAME_SIZE_MAX)?, required(params, "passwd", PASSWORD_SIZE_MAX)?);
        let user = self.identify(name, password)?;
        let mut result = Map::new();
        let algorithm = Kind::of(user.stored.as_deref().unwrap_or_default()).name();
        for (key, value) in [
            ("algorithm", Some(algorithm)),
            ("group", user.group.as_deref()),
            ("home", user.home.as_deref()),
            ("user", Some(&user.name)),
        ] {
            result.extend(value.map(|value| (key.to_owned(), Value::from(value))));
        }
        self.session = Some(user);
        Ok(Value::Object(result).to_string())
    }

    fn passwd(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let name = required(params, "user", NAME_SIZE_MAX)?;
        let old = optional(params, "old", PASSWORD_SIZE_MAX)?;
        let new = required(params, "new", PASSWORD_SIZE_MAX)?;
        if required(params, "confirm", PASSWORD_SIZE_MAX)? != new {
            return Err(failure(abi::INVALID_PARAMS, "confirm new password"));
        }
        let user = self.user_for(name, old)?;
        let stored = passwords::hash(new)?;
        if !self.store.set_password(&user, &stored)? {
            return Err(not_found());
        }
        self.store.activate(&user)?;
        // This connection stays logged in; others of the user do not.
        if let Some(session) = self.session.as_mut().filter(|session| session.id == user.id) {
            session.stored = Some(stored);
        }
        message("password changed")
    }

    fn add(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        self.need_root()?;
        let (name, password) =
            (required(params, "user", NAME_SIZE_MAX)?, required(params, "passwd", PASSWORD_SIZE_MAX)?);
        let group = optional(params, "group", NAME_SIZE_MAX)?.unwrap_or(USERS);
        let home = optional(params, "home", HOME_SIZE_MAX)?;
        if name.trim() != name || name.chars().any(char::is_control) {
            return Err(failure(abi::INVALID_PARAMS, "invalid name: spaces around it, or control characters"));
        }
        let group = self.store.group(group)?.ok_or_else(|| failure(CONFLICT, "group not found"))?;
        if self.store.add(name, group, home, &passwords::hash(password)?)? {
            message("user added")
        } else {
            Err(failure(CONFLICT, "user exists"))
        }
    }

    fn remove(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let name = required(params, "user", NAME_SIZE_MAX)?;
        let user = self.user_for(name, optional(params, "passwd", PASSWORD_SIZE_MAX)?)?;
        if self.store.remove(&user)? {
            message("user removed")
        } else {
            Err(failure(CONFLICT, "the last of the root group stays"))
        }
    }

    /// The user to change: authenticated by its password, or by a session of the root group.
    fn user_for(&mut self, name: &str, password: Option<&str>) -> Result<User, Failure> {
        match password {
            Some(password) => self.identify(name, password),
            None => {
                self.need_root()?;
                self.store.user(name)?.ok_or_else(not_found)
            }
        }
    }

    /// The session's user is looked up each time, since it may be removed, moved to another group or given another
    /// password while it is logged in.
    fn need_root(&mut self) -> Result<(), Failure> {
        if let Some(session) = &self.session
            && let Some(user) = self.store.user(&session.name)?
            && (user.id, &user.stored) == (session.id, &session.stored)
            && user.may_log_in
        {
            return if user.is_root() { Ok(()) } else { Err(not_allowed()) };
        }
        self.session = None;
        Err(not_allowed())
    }

    fn identify(&mut self, name: &str, password: &str) -> Result<User, Failure> {
        Ok(login::identify(&self.store, &mut self.client, name, password)?)
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Failure {
        match error {
            LoginError::Wrong => not_found(),
            LoginError::Wait { wait_ms } => Failure {
                data: json!({ "wait": wait_ms }).to_string(),
                ..Failure::new(WAIT, &format!("too many attempts: wait {} s", wait_ms.div_ceil(1_000)))
            },
            LoginError::Failed(failure) => failure,
        }
    }
}

/// A parameter that has to be a non-empty string.
fn required<'p>(params: &'p Map<String, Value>, key: &str, size_max: usize) -> Result<&'p str, Failure> {
    optional(params, key, size_max)?.ok_or_else(|| failure(abi::INVALID_PARAMS, "incomplete command"))
}

/// A parameter that may be missing. An empty string, which pages send, is the same as missing.
fn optional<'p>(params: &'p Map<String, Value>, key: &str, size_max: usize) -> Result<Option<&'p str>, Failure> {
    match params.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > size_max => {
            Err(failure(abi::INVALID_PARAMS, &format!("{key} has more than {size_max} bytes")))
        }
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(failure(abi::INVALID_PARAMS, &format!("{key} is not a string"))),
    }
}

fn message(text: &str) -> Result<String, Failure> {
    Ok(json!({ "message": text }).to_string())
}

fn not_found() -> Failure {
    failure(NOT_FOUND, "user or password not found")
}

fn not_allowed() -> Failure {
    failure(NOT_ALLOWED, "only the root group may do that")
}

#[cfg(test)]
mod tests;
