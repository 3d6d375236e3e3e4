//! Hashes of passwords: argon2id (RFC 9106) in PHC strings, and those of ouistiti.

use crate::limits::{
    GENERATED_SIZE, HASH_LANES, HASH_MEMORY_SIZE, HASH_MEMORY_SIZE_MAX, HASH_PASSES, HASH_PASSES_MAX, SALT_SIZE,
};
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonrpc_library::Failure;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// 32 characters that do not look alike.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// How a password is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// With the current parameters or stronger ones.
    Argon2id,
    /// argon2id with weaker parameters.
    WeakArgon2id,
    /// ouistiti's `$a1$`.
    Md5,
    /// ouistiti's `$a5$`.
    Sha256,
    /// ouistiti's `$a6$`.
    Sha512,
    /// Plain text: ouistiti's initial passwords.
    Plain,
    /// Matches no password.
    None,
}

impl Kind {
    /// Name of the algorithm for clients.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Argon2id | Kind::WeakArgon2id => "argon2id",
            Kind::Md5 => "MD5",
            Kind::Sha256 => "SHA-256",
            Kind::Sha512 => "SHA-512",
            Kind::Plain | Kind::None => "none",
        }
    }

    pub(crate) fn of(stored: &str) -> Kind {
        if stored.starts_with("$argon2id$") {
            return match PasswordHash::new(stored).ok().and_then(|hash| Params::try_from(&hash).ok()) {
                Some(params) if is_too_expensive(&params) => Kind::None,
                Some(params) if params.m_cost() < HASH_MEMORY_SIZE / 1024 || params.t_cost() < HASH_PASSES => {
                    Kind::WeakArgon2id
                }
                Some(_) => Kind::Argon2id,
                None => Kind::None,
            };
        }
        // ouistiti accepts both forms, with and without the "a".
        match stored.strip_prefix('$').map(|rest| rest.strip_prefix('a').unwrap_or(rest)) {
            Some(rest) if rest.starts_with("1$") => Kind::Md5,
            Some(rest) if rest.starts_with("5$") => Kind::Sha256,
            Some(rest) if rest.starts_with("6$") => Kind::Sha512,
            Some(_) => Kind::None,
            // "*" disables the login.
            None if stored.is_empty() || stored == "*" => Kind::None,
            None => Kind::Plain,
        }
    }
}

fn is_too_expensive(params: &Params) -> bool {
    params.m_cost() > HASH_MEMORY_SIZE_MAX / 1024 || params.t_cost() > HASH_PASSES_MAX
}

/// Whether a password matches the stored one. A wrong password takes the time of an argon2id hash, whatever is stored
/// and whether the user exists; so does a right one of an old kind, as it is then hashed again.
pub(crate) fn verify(stored: Option<&str>, user: &str, password: &str) -> Result<bool, Failure> {
    let stored = stored.unwrap_or_default();
    let kind = Kind::of(stored);
    let is_right = match kind {
        Kind::Argon2id | Kind::WeakArgon2id => {
            let hash = PasswordHash::new(stored).map_err(|error| failed(&error))?;
            hasher()?.verify_password(password.as_bytes(), &hash).is_ok()
        }
        Kind::Md5 => is_digest::<Md5>(stored, user, password),
        Kind::Sha256 => is_digest::<Sha256>(stored, user, password),
        Kind::Sha512 => is_digest::<Sha512>(stored, user, password),
        Kind::Plain => is_same(stored.as_bytes(), password.as_bytes()),
        Kind::None => false,
    };
    if !is_right && kind != Kind::Argon2id {
        hash_with(&[0; SALT_SIZE], password)?;
    }
    Ok(is_right)
}

/// The hash to store for a password, with a new salt.
pub(crate) fn hash(password: &str) -> Result<String, Failure> {
    let mut salt = [0; SALT_SIZE];
    getrandom::fill(&mut salt).map_err(|error| failed(&error))?;
    hash_with(&salt, password)
}

fn hash_with(salt: &[u8], password: &str) -> Result<String, Failure> {
    let hash = hasher()?.hash_password_with_salt(password.as_bytes(), salt);
    hash.map(|hash: PasswordHash| hash.to_string()).map_err(|error| failed(&error))
}

/// A random password, in groups of five characters.
pub(crate) fn generate() -> Result<String, Failure> {
    let mut bytes = [0; GENERATED_SIZE];
    getrandom::fill(&mut bytes).map_err(|error| failed(&error))?;
    let characters: Vec<u8> = bytes.iter().map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()]).collect();
    Ok(String::from_utf8_lossy(&characters.chunks(5).collect::<Vec<_>>().join(&b'-')).into_owned())
}

fn hasher() -> Result<Argon2<'static>, Failure> {
    let params = Params::new(HASH_MEMORY_SIZE / 1024, HASH_PASSES, HASH_LANES, None).map_err(|error| failed(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::internal(&format!("the password cannot be hashed: {error}"))
}

/// Compares with `$a5$BASE64`, a digest of the password, or `$a5$realm=NAME$BASE64`, one of user, realm and password as
/// in RFC 7616.
fn is_digest<D: Digest>(stored: &str, user: &str, password: &str) -> bool {
    let Some((head, text)) = stored.rsplit_once('$') else { return false };
    let mut digest = D::new();
    if let Some((_, realm)) = head.split_once("realm=") {
        digest.update(format!("{user}:{realm}:"));
    }
    digest.update(password);
    let Ok(wanted) = STANDARD.decode(text) else { return false };
    is_same(&wanted, &digest.finalize())
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_verified() {
        let new = hash("geheim").unwrap();
        assert!(new.starts_with("$argon2id$v=19$m=12288,t=3,p=1$"), "{new}");
        assert_ne!(new, hash("geheim").unwrap(), "each has its own salt");
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let weak: PasswordHash = cheap.hash_password_with_salt(b"geheim", &[7; SALT_SIZE]).unwrap();
        let weak = weak.to_string();
        for (stored, kind) in [
            (new.as_str(), Kind::Argon2id),
            (weak.as_str(), Kind::WeakArgon2id),
            ("$a1$6GNuoBPmgvr2H1bOHLGrXA==", Kind::Md5),
            ("$a5$rdsPXngmyFfXN20b2bwzwMVEeQourJYUSoryKxKYyUA=", Kind::Sha256),
            ("$5$rdsPXngmyFfXN20b2bwzwMVEeQourJYUSoryKxKYyUA=", Kind::Sha256),
            ("$a5$realm=here$0+8IgIMR2ISJwj7uumJzjU8XSix0ghsMKxhbi2292Z4=", Kind::Sha256),
            (
                "$a6$jYR+AdIrqpafcfo2K03iHJ4Tx4grzqE7pcaorg1x/IyXAMguAIemXIs3vSn1NnR/KMlnK+wcrndi0snza2AT8g==",
                Kind::Sha512,
            ),
            ("geheim", Kind::Plain),
        ] {
            assert_eq!(Kind::of(stored), kind, "{stored}");
            assert!(!verify(Some(stored), "alice", "Geheim").unwrap(), "{stored}");
            assert!(verify(Some(stored), "alice", "geheim").unwrap(), "{stored}");
        }
    }

    #[test]
    fn invalid_hashes_match_nothing() {
        for stored in
            ["", "*", "$", "$a7$x", "$x$", "$argon2id$", "$argon2id$v=19$m=999999999,t=1,p=1$c2FsdHNhbHQ$AAAA"]
        {
            assert_eq!(Kind::of(stored), Kind::None, "{stored}");
            for password in ["", "*", stored] {
                assert!(!verify(Some(stored), "alice", password).unwrap(), "{stored}");
            }
        }
        assert!(!verify(None, "alice", "").unwrap());
        assert!(!verify(Some("$a5$"), "alice", "").unwrap(), "an empty digest is no digest");
    }

    #[test]
    fn passwords_are_generated() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), GENERATED_SIZE + 3);
        assert!(one.bytes().all(|byte| byte == b'-' || ALPHABET.contains(&byte)), "{one}");
    }
}
