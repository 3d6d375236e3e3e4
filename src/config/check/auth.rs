//! The check of `auth`, one kind of credential.

use std::path::{Path, PathBuf};

use auth_wire::{DigestAlgorithm, Jwt, JwtAlgorithm, JwtKey, Rule, Source};

use super::access::AccessCheck;
use super::group::Group;
use crate::access::{Auth, AuthKind};
use crate::config::problem::Problems;
use crate::config::values::{self, AuthType};
use crate::http::fields::is_token_byte;
use crate::limits::{AUTH_HEADERS_MAX, AUTH_KEYS_MAX, AUTH_NAMES_MAX, AUTH_REALM_SIZE_MAX, AUTH_RECHECK_MS_MIN};
use crate::route::names::Patterns;

/// The name of a cookie or a parameter with a token.
const DEFAULT_NAME: &str = "token";

/// The types whose credential is a user's password.
const PASSWORDS: &[AuthType] = &[AuthType::Basic, AuthType::Digest];
/// The types whose credential is a token.
const TOKENS: &[AuthType] = &[AuthType::Bearer, AuthType::Cookie, AuthType::Query];
/// The types that uakari-auth decides about.
const ASKED: &[AuthType] =
    &[AuthType::Basic, AuthType::Digest, AuthType::Bearer, AuthType::Cookie, AuthType::Query, AuthType::Unix];
/// The types whose users are found in a source.
const WITH_USERS: &[AuthType] =
    &[AuthType::Basic, AuthType::Digest, AuthType::Bearer, AuthType::Cookie, AuthType::Query];

/// Keys that some types have. With other types they have no effect, and a warning.
const KEYS_OF_TYPES: [(&str, &[AuthType]); 18] = [
    ("file", PASSWORDS),
    ("dbname", PASSWORDS),
    ("passwd", PASSWORDS),
    ("user", WITH_USERS),
    ("group", WITH_USERS),
    ("tokens", TOKENS),
    ("token", TOKENS),
    ("key", TOKENS),
    ("keys", TOKENS),
    ("audience", TOKENS),
    ("user-claim", TOKENS),
    ("name", &[AuthType::Cookie, AuthType::Query]),
    ("path", &[AuthType::Unix]),
    ("headers", &[AuthType::Unix]),
    ("opaque", &[AuthType::Digest]),
    ("algorithm", &[AuthType::Digest, AuthType::Bearer, AuthType::Cookie, AuthType::Query]),
    ("cache-ms", WITH_USERS),
    ("recheck-ms", ASKED),
];

/// Checks a group `auth`. None: it is wrong, or not served and `unprotected` consents to that.
pub(crate) fn auth(group: &Group<'_>, check: &mut AccessCheck<'_>, problems: &mut Problems) -> Option<Auth> {
    group.require(problems, "type");
    let kind = match group.text("type")?.to_ascii_lowercase().as_str() {
        "oauth2" | "wwwform" => {
            check.lose(group, "type", "neither OAuth nor a form asks clients for a password", problems);
            return None;
        }
        word => match values::word(&values::AUTH_TYPES, word) {
            Some(kind) => kind,
            None => {
                let known = values::AUTH_TYPE_NAMES.join(", ");
                let sentence = format!("{:?} is not known: write one of {known}", group.text("type")?);
                group.error(problems, "type", sentence);
                return None;
            }
        },
    };
    let left_out = left_out(group, kind, check, problems);
    for (name, types) in KEYS_OF_TYPES {
        if !types.contains(&kind) {
            group.warn(problems, name, format_args!("has no effect with type = \"{}\"", kind.name()));
        }
    }
    // As in ouistiti, the issuer of a password is its realm.
    let name = if PASSWORDS.contains(&kind) && !group.has("realm") { "issuer" } else { "realm" };
    let realm = group.parsed(problems, name, realm).unwrap_or_else(|| check.realm.to_owned());
    let (users, groups) = (names(group, "users", problems), names(group, "groups", problems));
    for name in restrictions_without_effect(kind) {
        if group.has(name) {
            // Without it, others may come in too.
            let sentence = format_args!("cannot be used with type = \"{}\": leave it out", kind.name());
            group.error(problems, name, sentence);
        }
    }
    let paths = |name| group.text(name).filter(|list| !list.trim().is_empty()).map(Patterns::parse_paths);
    let (protect, unprotect) = (paths("protect"), paths("unprotect"));
    if protect.is_some() && unprotect.is_none() {
        group.warn(problems, "protect", "has no effect without unprotect: all paths need a credential");
    }
    let sources = sources(group, kind, &left_out, problems);
    if sources.is_empty() && left_out.any {
        return None;
    }
    let kind = match kind {
        AuthType::Basic => AuthKind::Basic,
        AuthType::Digest => AuthKind::Digest {
            opaque: group.parsed(problems, "opaque", opaque).unwrap_or_default(),
            algorithm: group.parsed(problems, "algorithm", digest_algorithm).unwrap_or(DigestAlgorithm::Sha256),
        },
        AuthType::Bearer => AuthKind::Bearer,
        AuthType::Cookie => {
            AuthKind::Cookie { name: group.parsed(problems, "name", cookie_name).unwrap_or(DEFAULT_NAME.into()) }
        }
        AuthType::Query => AuthKind::Query { name: group.text("name").unwrap_or(DEFAULT_NAME).into() },
        AuthType::Unix => AuthKind::Unix { server: server(&sources).into(), headers: headers(group, problems) },
        AuthType::ClientCert => {
            if !check.has_client_certificates {
                let sentence = "\"clientcert\" needs the authorities of the clients' certificates: write tls = { \
                    clientca = \"FILE\"; };";
                group.error(problems, "type", sentence);
            }
            AuthKind::ClientCert { users: users.iter().map(|user| user.as_str().into()).collect() }
        }
        AuthType::None => AuthKind::None,
    };
    let is_asked = !matches!(kind, AuthKind::ClientCert { .. } | AuthKind::None);
    let mut auth = Auth::new(0, &realm, kind);
    if is_asked {
        let filter = check.filter.clone().filter(|_| !matches!(auth.kind, AuthKind::Unix { .. }));
        auth.has_filter = filter.is_some();
        let place = group.describe(problems, &["file", "dbname", "tokens", "key", "keys", "path", "type"]);
        let realm = if matches!(auth.kind, AuthKind::Digest { .. }) { realm } else { String::new() };
        auth.rule = check.rules.add(Rule { sources, users, groups, filter, realm }, place);
    }
    (auth.protect, auth.unprotect) = (protect, unprotect);
    if !matches!(auth.kind, AuthKind::Unix { .. }) {
        auth.cache_ms = group.number("cache-ms").unwrap_or(auth.cache_ms);
    }
    auth.recheck_ms = group.number("recheck-ms").unwrap_or(auth.recheck_ms);
    if (1..AUTH_RECHECK_MS_MIN).contains(&auth.recheck_ms) {
        let sentence = format_args!("{} ms is too short: write 0 or at least {AUTH_RECHECK_MS_MIN}", auth.recheck_ms);
        group.error(problems, "recheck-ms", sentence);
    }
    Some(auth)
}

/// Keys that restrict who may come in, and that a type does not serve.
fn restrictions_without_effect(kind: AuthType) -> &'static [&'static str] {
    match kind {
        AuthType::Unix | AuthType::None => &["users", "groups"],
        AuthType::ClientCert => &["groups"],
        _ => &[],
    }
}

/// The sources of a group that are not served, to which `unprotected` consents or an error was reported.
#[derive(Default)]
struct LeftOut {
    /// One of the two below, or a source that no key names.
    any: bool,
    /// `user`, with its password or token.
    user: bool,
    /// `file`.
    file: bool,
}

/// Checks what ouistiti has beside passwords, and reports what is not served.
fn left_out(group: &Group<'_>, kind: AuthType, check: &mut AccessCheck<'_>, problems: &mut Problems) -> LeftOut {
    let mut left_out = LeftOut::default();
    for name in ["options", "mode"] {
        for word in group.text(name).into_iter().flat_map(values::elements) {
            match word.to_ascii_lowercase().as_str() {
                "home" => check.lose(group, name, "each user may request the paths of the others", problems),
                _ => group.warn(problems, name, format_args!("{word:?} is not served: clients send the credential")),
            }
        }
    }
    match group.text("authz").map(str::to_ascii_lowercase).as_deref() {
        Some("totp") => {
            check.lose(group, "authz", "one-time passwords are not verified", problems);
            (left_out.any, left_out.user) = (true, true);
        }
        Some("unix") => {
            check.lose(group, "authz", SHADOW, problems);
            (left_out.any, left_out.user) = (true, !group.has("passwd"));
        }
        _ => {}
    }
    if group.text("file") == Some("shadow") {
        check.lose(group, "file", SHADOW, problems);
        (left_out.any, left_out.file) = (true, true);
    }
    if group.text("status").is_some_and(|status| !status.eq_ignore_ascii_case("activated")) {
        check.lose(group, "status", "a user has no state, and this one is left out", problems);
        (left_out.any, left_out.user) = (true, true);
    }
    if group.has("secret") && TOKENS.contains(&kind) && !group.means("key") && !group.means("keys") {
        let sentence = "is not read here: write it to a file, and write key = \"FILE\"; algorithm = \"HS256\"; user-claim = \"user\";";
        group.error(problems, "secret", sentence);
    } else {
        group.warn(problems, "secret", "is not served: no tokens are issued");
    }
    left_out
}

const SHADOW: &str = "passwords of this machine's users are not verified";

/// Where users and tokens are looked up. At least one, or an error is reported, unless something was left out.
fn sources(group: &Group<'_>, kind: AuthType, left_out: &LeftOut, problems: &mut Problems) -> Vec<Source> {
    let mut sources = Vec::new();
    let path = |name| group.text(name).map(absolute);
    let user = group.text("user").filter(|_| !left_out.user);
    let groups = || group.text("group").into_iter().flat_map(values::elements).map(str::to_owned).collect::<Vec<_>>();
    let (names, remedy): (&[&str], _) = match kind {
        AuthType::Basic | AuthType::Digest => {
            if let Some(user) = user {
                group.require(problems, "passwd");
                let passwd = group.text("passwd").unwrap_or_default().into();
                sources.push(Source::User { user: user.to_owned(), passwd, groups: groups() });
            } else if group.has("passwd") && !group.has("user") {
                group.error(problems, "passwd", "needs a user: write user = \"NAME\";");
            }
            sources.extend(path("file").filter(|_| !left_out.file).map(Source::PasswordFile));
            sources.extend(path("dbname").map(|path| Source::Database { path, layout: None }));
            (
                &["file", "dbname", "user"],
                "users: write file = \"FILE\"; of htpasswd, dbname = \"FILE\"; or user and passwd",
            )
        }
        AuthType::Bearer | AuthType::Cookie | AuthType::Query => {
            if let Some(token) = group.text("token").filter(|_| !left_out.user) {
                group.require(problems, "user");
                let user = user.unwrap_or_default().to_owned();
                sources.push(Source::Token { token: token.into(), user, groups: groups() });
            } else if group.has("user") && !left_out.user {
                group.error(problems, "user", "needs a token: write token = \"TOKEN\"; or a line of a file of tokens");
            }
            sources.extend(path("tokens").map(Source::TokenFile));
            sources.extend(jwt(group, problems).map(Source::Jwt));
            let remedy = "tokens: write tokens = \"FILE\"; token = \"TOKEN\"; or key = \"FILE\"; for JSON Web Tokens";
            (&["tokens", "token", "key", "keys", "secret"], remedy)
        }
        AuthType::Unix => {
            sources.extend(path("path").map(Source::Server));
            (&["path"], "the server that decides: write path = \"SOCKET\";")
        }
        AuthType::ClientCert | AuthType::None => return sources,
    };
    if sources.is_empty() && !left_out.any && !names.iter().any(|name| group.means(name)) {
        group.error(problems, "type", format_args!("\"{}\" needs {remedy}", kind.name()));
    }
    sources
}

fn jwt(group: &Group<'_>, problems: &mut Problems) -> Option<Jwt> {
    group.exclude(problems, "key", "keys");
    let algorithm = group.parsed(problems, "algorithm", jwt_algorithm);
    let mut keys = Vec::new();
    keys.extend(group.text("key").map(|path| JwtKey { path: absolute(path), id: None, algorithm }));
    for key in group.groups("keys", AUTH_KEYS_MAX, problems) {
        key.require(problems, "file");
        let algorithm = key.parsed(problems, "algorithm", jwt_algorithm).or(algorithm);
        let Some(path) = key.text("file").map(absolute) else { continue };
        keys.push(JwtKey { path, id: key.text("id").map(str::to_owned), algorithm });
    }
    if keys.is_empty() {
        for name in ["algorithm", "issuer", "audience", "user-claim"] {
            group.warn(problems, name, "has no effect without key");
        }
        return None;
    }
    let text = |name| group.text(name).map(str::to_owned);
    Some(Jwt { keys, issuer: text("issuer"), audience: text("audience"), user_claim: text("user-claim") })
}

/// The path of the server that decides. A missing one is an error of its own.
fn server(sources: &[Source]) -> &Path {
    match sources {
        [Source::Server(path)] => path,
        _ => Path::new(""),
    }
}

/// A relative path is one of the working directory, as that of a docroot is.
pub(crate) fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

fn names(group: &Group<'_>, key: &str, problems: &mut Problems) -> Vec<String> {
    let mut names = Vec::new();
    if group.has(key) {
        group.each(key, AUTH_NAMES_MAX, problems, |name| {
            names.push(name.to_owned());
            Ok(())
        });
    }
    names
}

fn headers(group: &Group<'_>, problems: &mut Problems) -> Vec<Box<str>> {
    let mut headers: Vec<Box<str>> = Vec::new();
    group.each("headers", AUTH_HEADERS_MAX, problems, |name| {
        if !name.bytes().all(is_token_byte) {
            return Err(format!("{name:?} is not the name of a header: write one such as \"cookie\""));
        }
        if name.eq_ignore_ascii_case("authorization") {
            return Err(format!("{name:?} is not passed on: the server gets the credential itself: leave it out"));
        }
        headers.push(name.to_ascii_lowercase().into());
        Ok(())
    });
    headers
}

fn realm(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) || text.len() > AUTH_REALM_SIZE_MAX {
        return Err(format!("is not a realm: write at most {AUTH_REALM_SIZE_MAX} bytes without control characters"));
    }
    Ok(text.to_owned())
}

fn opaque(text: &str) -> Result<Box<str>, String> {
    let is_good = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte));
    if is_good && text.len() <= AUTH_REALM_SIZE_MAX {
        Ok(text.into())
    } else {
        Err("is not the opaque of a challenge: write at most 255 letters, digits and signs but \" and \\".to_owned())
    }
}

fn cookie_name(name: &str) -> Result<Box<str>, String> {
    if name.bytes().all(is_token_byte) {
        Ok(name.into())
    } else {
        Err(format!("{name:?} is not the name of a cookie: write one such as \"token\""))
    }
}

fn digest_algorithm(name: &str) -> Result<DigestAlgorithm, String> {
    match name.to_ascii_lowercase().as_str() {
        "md5" => Ok(DigestAlgorithm::Md5),
        "sha-256" => Ok(DigestAlgorithm::Sha256),
        _ => Err(format!("{name:?} is not served: write \"SHA-256\" or \"MD5\"")),
    }
}

fn jwt_algorithm(name: &str) -> Result<JwtAlgorithm, String> {
    match name {
        "HS256" => Ok(JwtAlgorithm::Hs256),
        "RS256" => Ok(JwtAlgorithm::Rs256),
        "ES256" => Ok(JwtAlgorithm::Es256),
        "EdDSA" => Ok(JwtAlgorithm::EdDsa),
        _ => Err(format!("{name:?} is not accepted: write \"HS256\", \"RS256\", \"ES256\" or \"EdDSA\"")),
    }
}
