//! JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, verified as RFC 8725 advises. The key alone says which
//! algorithm is used, and no claim is read before the signature was verified.

use std::fmt;

use auth_wire::{Jwt, JwtAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};

use crate::identity::Identity;
use crate::json;
use crate::limits::{GROUPS_MAX, JWT_LEEWAY_S, JWT_SIZE_MAX, JWT_TIME_S_MAX};
use crate::names;

pub(crate) mod keys;

use keys::Keys;

/// The claim that names the user, unless the rule names another.
const USER_CLAIM: &str = "sub";
/// The claims with groups: a name, names separated by commas, or an array of names.
const GROUP_CLAIMS: [&str; 2] = ["groups", "roles"];

/// Why a token is refused. No variant holds anything of the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JwtError {
    /// More bytes than `JWT_SIZE_MAX`.
    TooLong,
    /// Not three parts: no token, or an encrypted one (RFC 7516).
    Parts,
    /// A part is no base64url without padding (RFC 7515 section 2).
    Base64,
    /// The header is no JSON object, or has a member twice.
    Header,
    /// `crit`, `b64`, `zip` or `enc`: an extension that is not known.
    Extension,
    /// `typ` or `cty` says that this is another kind of token.
    Type,
    /// No key for the token's `kid`, or no `kid` although there are several keys.
    Key,
    /// `alg` is not that of the key.
    Algorithm,
    /// The signature is wrong.
    Signature,
    /// The claims are no JSON object, or have a member twice.
    Claims,
    /// `exp` is missing or no time.
    NoExpiry,
    /// `exp` is over.
    Expired,
    /// `nbf` or `iat` is in the future, or no time.
    TooEarly,
    /// `iss` is missing or not the one of the rule.
    Issuer,
    /// `aud` is missing or does not contain the one of the rule.
    Audience,
    /// The claim with the user is missing, or no valid name.
    User,
    /// The claims with groups are not names, or too many.
    Groups,
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            JwtError::TooLong => return write!(f, "the token has more than {JWT_SIZE_MAX} bytes"),
            JwtError::Parts => "the token does not have three parts",
            JwtError::Base64 => "the token is not in base64url without padding",
            JwtError::Header => "the token's header is no JSON object with unique members",
            JwtError::Extension => "the token's header has crit, b64, zip or enc, which are not supported",
            JwtError::Type => "the token's header has a typ other than JWT and at+jwt, or a cty",
            JwtError::Key => "no key is configured for the token's kid",
            JwtError::Algorithm => "the token's alg is not that of the key",
            JwtError::Signature => "the token's signature is wrong",
            JwtError::Claims => "the token's claims are no JSON object with unique members",
            JwtError::NoExpiry => "the token has no valid exp in seconds",
            JwtError::Expired => "the token has expired",
            JwtError::TooEarly => "the token is not valid yet: compare the clocks of its issuer and of this machine",
            JwtError::Issuer => "the token has another issuer",
            JwtError::Audience => "the token is for another audience",
            JwtError::User => "the token names no user",
            JwtError::Groups => "the token's groups are not valid names, or too many",
        };
        f.write_str(reason)
    }
}

impl std::error::Error for JwtError {}

/// A key with its algorithm.
#[derive(Debug)]
enum Key {
    Hs256(hmac::Key),
    /// Modulus and exponent, big-endian without leading zeros.
    Rs256(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point.
    Es256(UnparsedPublicKey<Vec<u8>>),
    EdDsa(UnparsedPublicKey<Vec<u8>>),
}

impl Key {
    fn algorithm(&self) -> JwtAlgorithm {
        match self {
            Key::Hs256(_) => JwtAlgorithm::Hs256,
            Key::Rs256(_) => JwtAlgorithm::Rs256,
            Key::Es256(_) => JwtAlgorithm::Es256,
            Key::EdDsa(_) => JwtAlgorithm::EdDsa,
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
            Key::Rs256(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok(),
            Key::Es256(key) | Key::EdDsa(key) => key.verify(message, signature).is_ok(),
        }
    }

    fn of_p256(point: Vec<u8>) -> Key {
        Key::Es256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point))
    }

    fn of_ed25519(point: Vec<u8>) -> Key {
        Key::EdDsa(UnparsedPublicKey::new(&ED25519, point))
    }
}

/// The `alg` of an algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1).
fn name(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::Hs256 => "HS256",
        JwtAlgorithm::Rs256 => "RS256",
        JwtAlgorithm::Es256 => "ES256",
        JwtAlgorithm::EdDsa => "EdDSA",
    }
}

/// The keys and conditions of a rule.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    user_claim: String,
}

impl Verifier {
    /// Reads the key files. Returns warnings too. The error is the operator's sentence.
    pub fn load(settings: &Jwt) -> Result<(Verifier, Vec<String>), String> {
        let mut warnings = Vec::new();
        let keys = Keys::load(&settings.keys, &mut warnings)?;
        Ok((Verifier::new(keys, settings), warnings))
    }

    fn new(keys: Keys, settings: &Jwt) -> Verifier {
        Verifier {
            keys,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            user_claim: settings.user_claim.clone().unwrap_or_else(|| USER_CLAIM.to_owned()),
        }
    }

    /// The user of a token that is valid at this Unix time. It expires `JWT_LEEWAY_S` after `exp`: until then the token
    /// is accepted.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Identity, JwtError> {
        let payload = payload(token, &self.keys)?;
        let claims = json::object(&payload).ok_or(JwtError::Claims)?;
        let until_s = lifetime(&claims, now_s)?;
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(JwtError::Issuer);
        }
        if let Some(audience) = &self.audience {
            is_for(&claims, audience).then_some(()).ok_or(JwtError::Audience)?;
        }
        let user = claims.get(&self.user_claim).and_then(Value::as_str).filter(|user| names::is_user(user));
        Ok(Identity {
            user: user.ok_or(JwtError::User)?.to_owned(),
            groups: groups(&claims)?,
            home: String::new(),
            until_ms: Some(until_s * 1_000),
        })
    }
}

/// The payload of a token whose signature is right (RFC 7515 section 5.2).
fn payload(token: &str, keys: &Keys) -> Result<Vec<u8>, JwtError> {
    if token.len() > JWT_SIZE_MAX {
        return Err(JwtError::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Parts)?;
    let (header, payload) = message.split_once('.').ok_or(JwtError::Parts)?;
    if payload.contains('.') {
        return Err(JwtError::Parts);
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Base64);
    let key = key(&json::object(&decode(header)?).ok_or(JwtError::Header)?, keys)?;
    if !key.verify(message.as_bytes(), &decode(signature)?) {
        return Err(JwtError::Signature);
    }
    decode(payload)
}

/// The key for a header. Keys and places of keys in the header itself (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
fn key<'k>(header: &Map<String, Value>, keys: &'k Keys) -> Result<&'k Key, JwtError> {
    if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err(JwtError::Extension);
    }
    // Other kinds of tokens of the same issuer are no credentials (RFC 8725 section 3.11).
    let is_jwt = match header.get("typ") {
        None => true,
        Some(Value::String(text)) => {
            let text = text.to_ascii_lowercase();
            ["jwt", "at+jwt"].contains(&text.strip_prefix("application/").unwrap_or(&text))
        }
        Some(_) => false,
    };
    if !is_jwt || header.contains_key("cty") {
        return Err(JwtError::Type);
    }
    let id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(JwtError::Key),
    };
    let key = keys.find(id).ok_or(JwtError::Key)?;
    if header.get("alg").and_then(Value::as_str) == Some(name(key.algorithm())) {
        Ok(key)
    } else {
        Err(JwtError::Algorithm)
    }
}

/// The Unix time up to which the claims are valid, if they are valid at `now_s`.
fn lifetime(claims: &Map<String, Value>, now_s: u64) -> Result<u64, JwtError> {
    let until_s = claims.get("exp").and_then(time).ok_or(JwtError::NoExpiry)?.saturating_add(JWT_LEEWAY_S);
    if now_s >= until_s {
        return Err(JwtError::Expired);
    }
    for begin in ["nbf", "iat"].iter().filter_map(|name| claims.get(*name)) {
        let begin_s = time(begin).ok_or(JwtError::TooEarly)?;
        if begin_s > now_s.saturating_add(JWT_LEEWAY_S) {
            return Err(JwtError::TooEarly);
        }
    }
    Ok(until_s)
}

/// A NumericDate, which may have a fraction (RFC 7519 section 2), in whole seconds.
fn time(value: &Value) -> Option<u64> {
    let seconds = value.as_u64().or_else(|| {
        // The cast saturates.
        value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)
    });
    seconds.filter(|seconds| *seconds <= JWT_TIME_S_MAX)
}

/// Whether `aud`, a string or an array, contains an audience (RFC 7519 section 4.1.3).
fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(text)) => text == audience,
        Some(Value::Array(texts)) => {
            texts.iter().all(Value::is_string) && texts.iter().any(|text| text.as_str() == Some(audience))
        }
        _ => false,
    }
}

fn groups(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let mut groups: Vec<String> = Vec::new();
    for value in GROUP_CLAIMS.iter().filter_map(|name| claims.get(*name)) {
        let found: Vec<&str> = match value {
            Value::Null => Vec::new(),
            Value::String(text) => text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
            Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<_>>().ok_or(JwtError::Groups)?,
            _ => return Err(JwtError::Groups),
        };
        for group in found {
            if !names::is_group(group) {
                return Err(JwtError::Groups);
            }
            if !groups.iter().any(|other| other == group) {
                groups.push(group.to_owned());
            }
        }
    }
    if groups.len() > GROUPS_MAX { Err(JwtError::Groups) } else { Ok(groups) }
}

#[cfg(test)]
mod tests;
