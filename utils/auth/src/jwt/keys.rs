//! The keys of JSON Web Tokens, from files: PEM (RFC 7468), JWKs and sets of them (RFC 7517), or a secret's bytes.

use auth_wire::{JwtAlgorithm, JwtKey, Zeroizing};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use ring::hmac::{self, HMAC_SHA256};
use ring::rand::SystemRandom;
use ring::signature::RsaPublicKeyComponents;
use serde_json::{Map, Value};

use super::{Key, name};
use crate::files;
use crate::json;
use crate::limits::{HMAC_SECRET_SIZE_MAX, HMAC_SECRET_SIZE_MIN, JWT_KEYS_MAX, RSA_BITS_MAX, RSA_BITS_MIN};

/// Bytes of a coordinate of P-256, and of a point of Ed25519.
const POINT_SIZE: usize = 32;
/// The first byte of a point of P-256 that is not compressed (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// AlgorithmIdentifier (RFC 5280 section 4.1.1.2) of an RSA key: rsaEncryption and NULL.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// That of a P-256 key: id-ecPublicKey and prime256v1 (RFC 5480).
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// That of an Ed25519 key (RFC 8410).
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

/// Keys with their ids; at least one.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<(Option<String>, Key)>);

impl Keys {
    /// Reads all files. The error is the operator's sentence.
    pub(crate) fn load(settings: &[JwtKey], warnings: &mut Vec<String>) -> Result<Keys, String> {
        let mut keys = Keys::default();
        for setting in settings {
            let path = setting.path.display();
            let (text, others) = files::read_bytes(&setting.path).map_err(|error| format!("{path}: {error}"))?;
            let (before, mut found) = (keys.0.len(), Vec::new());
            keys.add(setting, &text, &mut found).map_err(|error| format!("{path}: {error}"))?;
            let is_secret = keys.0.iter().skip(before).any(|(_, key)| matches!(key, Key::Hs256(_)));
            if others.may_write {
                found.push("every user of this machine can change it: chmod o-w".to_owned());
            }
            if others.may_read && is_secret {
                found.push("everybody can read the secret: give the file the mode 640".to_owned());
            }
            warnings.extend(found.into_iter().map(|warning| format!("{path}: {warning}")));
        }
        keys.check()?;
        Ok(keys)
    }

    /// Adds the keys of a file. Errors and warnings are sentences after the file's name.
    pub(super) fn add(&mut self, setting: &JwtKey, text: &[u8], warnings: &mut Vec<String>) -> Result<(), String> {
        if text.trim_ascii_start().starts_with(b"{") {
            if setting.id.is_some() {
                return Err("this is a set of keys, which have their own ids: remove the id".to_owned());
            }
            return self.add_set(setting.algorithm, text, warnings);
        }
        let key = match pem(text)? {
            Some((label, der)) => public_key(&label, &der)?,
            None if setting.algorithm == Some(JwtAlgorithm::Hs256) => secret(text)?,
            None => {
                return Err(
                    "this is no public key in PEM and no set of JWKs; if it is a secret, its algorithm has to be \
                            set to HS256"
                        .to_owned(),
                );
            }
        };
        if let Some(algorithm) = setting.algorithm.filter(|algorithm| *algorithm != key.algorithm()) {
            return Err(format!("this is a key of {}, not of {}", name(key.algorithm()), name(algorithm)));
        }
        self.0.push((setting.id.clone(), key));
        Ok(())
    }

    /// Adds the keys of a JWK or of a set. Keys for other purposes are skipped, as RFC 7517 section 5 asks for.
    fn add_set(
        &mut self,
        algorithm: Option<JwtAlgorithm>,
        text: &[u8],
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut set = json::object(text).ok_or("this is no JSON object with unique members")?;
        let added = self.add_jwks(algorithm, &set, warnings);
        set.values_mut().for_each(json::zero);
        added
    }

    fn add_jwks(
        &mut self,
        algorithm: Option<JwtAlgorithm>,
        set: &Map<String, Value>,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let jwks = match set.get("keys") {
            None => vec![set],
            Some(Value::Array(jwks)) => jwks
                .iter()
                .map(Value::as_object)
                .collect::<Option<_>>()
                .ok_or("this has a key that is no JSON object")?,
            Some(_) => return Err("this has keys that are no array".to_owned()),
        };
        let (before, mut skipped) = (self.0.len(), Vec::new());
        for (number, jwk) in (1..).zip(jwks) {
            match jwk_key(jwk) {
                Ok((id, key)) if algorithm.is_none_or(|algorithm| algorithm == key.algorithm()) => {
                    self.0.push((id, key))
                }
                Ok((_, key)) => {
                    skipped.push(format!("key {number} is skipped: it is one of {}", name(key.algorithm())))
                }
                Err(reason) => skipped.push(format!("key {number} is skipped: {reason}")),
            }
        }
        if self.0.len() == before {
            return Err(format!("this has no key that can be used: {}", skipped.join("; ")));
        }
        warnings.append(&mut skipped);
        Ok(())
    }

    /// A token is to name one key.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Err("JSON Web Tokens need a key".to_owned());
        }
        if self.0.len() > JWT_KEYS_MAX {
            return Err(format!("JSON Web Tokens have {} keys; at most {JWT_KEYS_MAX} are possible", self.0.len()));
        }
        for (at, (id, _)) in self.0.iter().enumerate() {
            if self.0.iter().skip(at + 1).any(|(other, _)| other == id) {
                return Err(match id {
                    Some(id) => format!("two keys of JSON Web Tokens have the id {id:?}"),
                    None => "two keys of JSON Web Tokens have no id".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The key for a token's `kid`. A single key without an id is for any token.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (self.0.as_slice(), id) {
            ([(None, key)], _) | ([(_, key)], None) => Some(key),
            (keys, id) => keys.iter().find(|(other, _)| other.as_deref() == id).map(|(_, key)| key),
        }
    }
}

/// A secret of HS256. A newline that an editor has added at the end is not part of it.
fn secret(text: &[u8]) -> Result<Key, String> {
    let secret = text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
    if secret.len() < HMAC_SECRET_SIZE_MIN {
        return Err(format!(
            "the secret has {} bytes; HS256 needs {HMAC_SECRET_SIZE_MIN} (RFC 7518), for example of openssl rand -hex 32",
            secret.len()
        ));
    }
    // Its holder would be everybody.
    if ["ssh-", "ecdsa-sha2-"].iter().any(|prefix| secret.starts_with(prefix.as_bytes())) {
        return Err("this is a public key of SSH, not a secret".to_owned());
    }
    if secret.len() > HMAC_SECRET_SIZE_MAX {
        return Err(format!("the secret has more than {HMAC_SECRET_SIZE_MAX} bytes"));
    }
    Ok(Key::Hs256(hmac::Key::new(HMAC_SHA256, secret)))
}

/// Label and DER of a PEM text (RFC 7468); None: it is none.
fn pem(text: &[u8]) -> Result<Option<(String, Vec<u8>)>, String> {
    const BEGIN: &str = "-----BEGIN ";
    if !text.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes()) {
        return Ok(None);
    }
    let invalid = || "this is not valid PEM".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| invalid())?;
    let (_, rest) = text.split_once(BEGIN).ok_or_else(invalid)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(invalid)?;
    let (body, rest) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(invalid)?;
    if rest.contains(BEGIN) {
        return Err("this has more than one key: give each its own file and id, or write a set of JWKs".to_owned());
    }
    let body: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    Ok(Some((label.to_owned(), STANDARD.decode(body).map_err(|_| invalid())?)))
}

/// The key of a PEM text.
fn public_key(label: &str, der: &[u8]) -> Result<Key, String> {
    match label {
        "PUBLIC KEY" => {}
        "RSA PUBLIC KEY" => return pkcs1(der),
        "CERTIFICATE" => {
            return Err("this is a certificate: extract its key with openssl x509 -noout -pubkey".to_owned());
        }
        _ if label.ends_with("PRIVATE KEY") => {
            return Err(
                "this is a private key, which only the issuer needs: give the public key, of openssl pkey -pubout"
                    .to_owned(),
            );
        }
        _ => return Err("this is no public key".to_owned()),
    }
    let invalid = || "this is not a valid public key".to_owned();
    // SubjectPublicKeyInfo (RFC 5280 section 4.1).
    let (algorithm, bits) = element(der, SEQUENCE)
        .filter(|(_, rest)| rest.is_empty())
        .and_then(|(content, _)| element(content, SEQUENCE))
        .and_then(|(algorithm, rest)| {
            Some((algorithm, element(rest, BIT_STRING).filter(|(_, rest)| rest.is_empty())?.0))
        })
        .ok_or_else(invalid)?;
    let key = bits.strip_prefix(&[0]).ok_or_else(invalid)?;
    match algorithm {
        RSA => pkcs1(key),
        P256 => p256(key.to_vec()),
        ED25519 => ed25519(key.to_vec()),
        _ => Err("this is a key that is not supported: use RSA, EC with P-256, or Ed25519".to_owned()),
    }
}

/// An RSAPublicKey (RFC 8017 appendix A.1.1).
fn pkcs1(der: &[u8]) -> Result<Key, String> {
    let numbers = element(der, SEQUENCE).filter(|(_, rest)| rest.is_empty()).and_then(|(content, _)| {
        let (n, rest) = element(content, INTEGER)?;
        let (e, rest) = element(rest, INTEGER)?;
        rest.is_empty().then_some((n, e))
    });
    let (n, e) = numbers.ok_or("this is not a valid RSA key")?;
    rsa(n, e)
}

/// An RSA key of a modulus and an exponent, which may have zeros in front.
fn rsa(n: &[u8], e: &[u8]) -> Result<Key, String> {
    let strip = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (n, e) = (strip(n), strip(e));
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(format!("this is an RSA key of {bits} bits: {RSA_BITS_MIN} to {RSA_BITS_MAX} are possible"));
    }
    // The range of FIPS 186-5 begins with 65537; older keys have 3. The upper limit is ring's.
    let exponent = e.iter().fold(0u64, |number, byte| number.saturating_mul(256).saturating_add(u64::from(*byte)));
    if !(3..1 << 33).contains(&exponent) || exponent % 2 == 0 || n.last().is_none_or(|byte| byte % 2 == 0) {
        return Err("this is not a valid RSA key".to_owned());
    }
    Ok(Key::Rs256(RsaPublicKeyComponents { n, e }))
}

fn p256(point: Vec<u8>) -> Result<Key, String> {
    let failed = |_| "this is not a valid key of P-256, or a compressed one".to_owned();
    // An agreement checks that the point is on the curve.
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(failed)?;
    let public = agreement::UnparsedPublicKey::new(&ECDH_P256, &point);
    agreement::agree_ephemeral(private, &public, |_| ()).map_err(failed)?;
    Ok(Key::of_p256(point))
}

fn ed25519(point: Vec<u8>) -> Result<Key, String> {
    if point.len() == POINT_SIZE {
        Ok(Key::of_ed25519(point))
    } else {
        Err("this is not a valid key of Ed25519".to_owned())
    }
}

/// Id and key of a JWK (RFC 7518 section 6, RFC 8037 section 2). The error says why it is not used.
fn jwk_key(jwk: &Map<String, Value>) -> Result<(Option<String>, Key), String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let decoded = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        decoded.ok_or_else(|| format!("{name} is missing, or not in base64url without padding"))
    };
    if jwk.contains_key("d") {
        return Err("this is a private key, which only the issuer needs: remove it from the file".to_owned());
    }
    if jwk.get("use").is_some_and(|usage| usage.as_str() != Some("sig")) {
        return Err("its use is not sig".to_owned());
    }
    if let Some(operations) = jwk.get("key_ops")
        && !operations.as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == Some("verify")))
    {
        return Err("verify is not one of its key_ops".to_owned());
    }
    let key = match (text("kty"), text("crv")) {
        (Some("oct"), _) => secret_of_jwk(&Zeroizing::new(bytes("k")?))?,
        (Some("RSA"), _) => rsa(&bytes("n")?, &bytes("e")?)?,
        (Some("EC"), Some("P-256")) => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != POINT_SIZE || y.len() != POINT_SIZE {
                return Err("this is not a valid key of P-256".to_owned());
            }
            p256([&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat())?
        }
        (Some("OKP"), Some("Ed25519")) => ed25519(bytes("x")?)?,
        _ => return Err("its kty or crv is not supported".to_owned()),
    };
    // RFC 9864 has a name of its own for Ed25519.
    let is_ed25519 = key.algorithm() == JwtAlgorithm::EdDsa && text("alg") == Some("Ed25519");
    if jwk.contains_key("alg") && text("alg") != Some(name(key.algorithm())) && !is_ed25519 {
        return Err(format!("its alg is not {}", name(key.algorithm())));
    }
    match jwk.get("kid") {
        None => Ok((None, key)),
        Some(Value::String(id)) => Ok((Some(id.clone()), key)),
        Some(_) => Err("its kid is not a string".to_owned()),
    }
}

fn secret_of_jwk(secret: &[u8]) -> Result<Key, String> {
    if !(HMAC_SECRET_SIZE_MIN..=HMAC_SECRET_SIZE_MAX).contains(&secret.len()) {
        return Err(format!("k has {} bytes; HS256 needs {HMAC_SECRET_SIZE_MIN} (RFC 7518)", secret.len()));
    }
    Ok(Key::Hs256(hmac::Key::new(HMAC_SHA256, secret)))
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// Content of the DER element (X.690) that a text begins with, and the rest. None: it has another tag, or is cut.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (size, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(size, rest)| (usize::from(*size), rest))?,
        0x82 => rest.split_first_chunk().map(|(size, rest)| (usize::from(u16::from_be_bytes(*size)), rest))?,
        _ => return None,
    };
    (found == tag && size <= rest.len()).then(|| rest.split_at(size))
}
