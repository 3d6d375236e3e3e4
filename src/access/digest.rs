//! Digest challenges and their responses (RFC 7616), with `qop=auth` only.

use std::fmt;

use auth_wire::{Credential, Digest, DigestAlgorithm};
use ring::hmac;
use ring::rand::SystemRandom;

use super::credential::{Parameters, has_control};
use super::error::AccessError;
use crate::limits::NONCE_MS;

/// Hexadecimal digits of the time in a nonce.
const TIME_DIGITS: usize = 16;

/// The key of the nonces of this process. A nonce is the time of its challenge and an HMAC of it, so that none has to be
/// kept.
pub(crate) struct NonceKey(Option<hmac::Key>);

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

impl NonceKey {
    /// A random key. Without random numbers no nonce is accepted.
    pub(crate) fn random() -> NonceKey {
        NonceKey(hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok())
    }

    /// A nonce for a challenge of this realm.
    pub(crate) fn nonce(&self, realm: &str, unix_s: u64) -> String {
        let mut nonce = format!("{unix_s:0TIME_DIGITS$x}");
        if let Some(key) = &self.0 {
            let tag = hmac::sign(key, format!("{nonce} {realm}").as_bytes());
            tag.as_ref().iter().for_each(|byte| nonce.push_str(&format!("{byte:02x}")));
        }
        nonce
    }

    /// Whether a challenge of this realm had this nonce, not too long ago.
    fn accepts(&self, nonce: &str, realm: &str, unix_s: u64) -> bool {
        let Some(made_s) = nonce.get(..TIME_DIGITS).and_then(|time| u64::from_str_radix(time, 16).ok()) else {
            return false;
        };
        let is_ours = self.0.as_ref().is_some_and(|key| {
            let tag = nonce.get(TIME_DIGITS..).and_then(bytes_of_hex).unwrap_or_default();
            let text = format!("{} {realm}", &nonce[..TIME_DIGITS]);
            hmac::verify(key, text.as_bytes(), &tag).is_ok()
        });
        // The wall clock may have been set back a little.
        is_ours && unix_s.abs_diff(made_s) < NONCE_MS / 1000
    }
}

/// Lower-case hexadecimal digits as bytes. None: not such digits.
fn bytes_of_hex(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && digits.len().is_multiple_of(2);
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    is_hex.then(|| (0..digits.len()).step_by(2).map(byte).collect())?
}

/// The name of an algorithm (RFC 7616 section 6.1).
pub(crate) fn algorithm_name(algorithm: DigestAlgorithm) -> &'static str {
    match algorithm {
        DigestAlgorithm::Md5 => "MD5",
        DigestAlgorithm::Sha256 => "SHA-256",
    }
}

/// What a response has to fit to.
pub(crate) struct Challenged<'a> {
    pub(crate) realm: &'a str,
    pub(crate) opaque: &'a str,
    pub(crate) algorithm: DigestAlgorithm,
    /// The path of the request target, as sent, and its query with the question mark.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) nonces: &'a NonceKey,
    pub(crate) unix_s: u64,
}

/// Reads the parameters after "Digest". `Wrong`: they fit to another challenge.
pub(crate) fn response(parameters: &str, expected: &Challenged<'_>) -> Result<Credential, AccessError> {
    let mut found = Parameters::parse(parameters).ok_or(AccessError::Malformed)?;
    let user = match (found.take("username"), found.take("username*")) {
        (Some(user), None) => user,
        (None, Some(user)) => extended(&user).ok_or(AccessError::Malformed)?,
        _ => return Err(AccessError::Malformed),
    };
    let mut needed = |name: &str| found.take(name).ok_or(AccessError::Malformed);
    let (realm, nonce, uri) = (needed("realm")?, needed("nonce")?, needed("uri")?);
    let (nc, cnonce, qop, response) = (needed("nc")?, needed("cnonce")?, needed("qop")?, needed("response")?);
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_valid = nc.len() == 8 && is_hex(&nc) && is_hex(&response) && qop == "auth" && !cnonce.is_empty();
    if !is_valid || has_control(&user) {
        return Err(AccessError::Malformed);
    }
    // A missing algorithm is MD5 (RFC 7616 section 3.4).
    let algorithm = found.take("algorithm").unwrap_or_else(|| "MD5".to_owned());
    let is_same_algorithm = algorithm.eq_ignore_ascii_case(algorithm_name(expected.algorithm));
    let is_same_opaque = found.take("opaque").unwrap_or_default() == expected.opaque;
    let is_hashed = found.take("userhash").is_some_and(|value| !value.eq_ignore_ascii_case("false"));
    let is_fitting = realm == expected.realm && is_same_algorithm && is_same_opaque && !is_hashed;
    if !is_fitting || !is_target(&uri, expected) {
        return Err(AccessError::Wrong);
    }
    if !expected.nonces.accepts(&nonce, expected.realm, expected.unix_s) {
        return Err(AccessError::Stale);
    }
    let response = response.to_ascii_lowercase().into();
    let algorithm = expected.algorithm;
    Ok(Credential::Digest(Digest { user, realm, nonce, uri, nc, cnonce, algorithm, response }))
}

/// Whether a `uri` names the target of the request, character by character: a response for one path must not open
/// another.
fn is_target(uri: &str, expected: &Challenged<'_>) -> bool {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    path == expected.path && query == expected.query
}

/// The text of an extended value (RFC 8187 section 3.2) in UTF-8. None: not valid.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    let is_valid = charset.eq_ignore_ascii_case("utf-8");
    is_valid.then(|| percent_encoding::percent_decode_str(text).decode_utf8().ok())?.map(Into::into)
}

#[cfg(test)]
impl NonceKey {
    /// The key of tests.
    pub(crate) fn fixed() -> &'static NonceKey {
        static KEY: std::sync::LazyLock<NonceKey> =
            std::sync::LazyLock::new(|| NonceKey(Some(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]))));
        &KEY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn expected() -> Challenged<'static> {
        Challenged {
            realm: "R",
            opaque: "",
            algorithm: DigestAlgorithm::Sha256,
            path: "/a%20b",
            query: Some("q=1"),
            nonces: NonceKey::fixed(),
            unix_s: NOW_S,
        }
    }

    fn line(nonce: &str, changes: &[(&str, &str)]) -> String {
        let fields = [
            ("username", "\"ann\""),
            ("realm", "\"R\""),
            ("nonce", nonce),
            ("uri", "\"/a%20b?q=1\""),
            ("algorithm", "SHA-256"),
            ("nc", "00000001"),
            ("cnonce", "\"x\\\"y\""),
            ("qop", "auth"),
            ("response", "\"AB12\""),
        ];
        let value = |name: &str, value: &str| {
            let value = changes.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, value)| value);
            (!value.is_empty()).then(|| format!("{name}={value}"))
        };
        let own = fields.iter().filter_map(|(name, text)| value(name, text));
        let added = changes.iter().filter(|(name, _)| fields.iter().all(|(known, _)| known != name));
        let added = added.map(|(name, value)| format!("{name}={value}"));
        own.chain(added).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn responses() {
        let nonce = format!("\"{}\"", NonceKey::fixed().nonce("R", NOW_S - 299));
        let Ok(Credential::Digest(digest)) = response(&line(&nonce, &[]), &expected()) else { panic!() };
        assert_eq!((&*digest.user, &*digest.cnonce, digest.response.reveal()), ("ann", "x\"y", "ab12"));
        assert!(!format!("{digest:?}").contains("ab12"));
        let old = format!("\"{}\"", NonceKey::fixed().nonce("R", NOW_S - 300));
        let future = format!("\"{}\"", NonceKey::fixed().nonce("R", NOW_S + 300));
        let of_other_realm = format!("\"{}\"", NonceKey::fixed().nonce("S", NOW_S));
        let of_other_key = format!("\"{}\"", NonceKey::random().nonce("R", NOW_S));
        let without_tag = format!("\"{NOW_S:016x}\"");
        for (changes, error) in [
            (&[("username", "")][..], Some(AccessError::Malformed)),
            (&[("username", ""), ("username*", "UTF-8''%c3%a9")], None),
            (&[("username*", "UTF-8''a")], Some(AccessError::Malformed)),
            (&[("username", ""), ("username*", "latin1''a")], Some(AccessError::Malformed)),
            (&[("username", "\"a\\\tb\"")], Some(AccessError::Malformed)),
            (&[("realm", "\"S\"")], Some(AccessError::Wrong)),
            (&[("uri", "\"/a%20b\"")], Some(AccessError::Wrong)),
            (&[("uri", "\"/a b?q=1\"")], Some(AccessError::Wrong)),
            (&[("uri", "\"/A%20b?q=1\"")], Some(AccessError::Wrong)),
            (&[("uri", "\"/a%20b?q=1?\"")], Some(AccessError::Wrong)),
            (&[("uri", "")], Some(AccessError::Malformed)),
            (&[("algorithm", "MD5")], Some(AccessError::Wrong)),
            (&[("algorithm", "")], Some(AccessError::Wrong)),
            (&[("algorithm", "sha-256")], None),
            (&[("algorithm", "SHA-256-sess")], Some(AccessError::Wrong)),
            (&[("opaque", "\"x\"")], Some(AccessError::Wrong)),
            (&[("userhash", "true")], Some(AccessError::Wrong)),
            (&[("userhash", "false")], None),
            (&[("qop", "\"auth\"")], None),
            (&[("qop", "auth-int")], Some(AccessError::Malformed)),
            (&[("qop", "")], Some(AccessError::Malformed)),
            (&[("nc", "1")], Some(AccessError::Malformed)),
            (&[("nc", "0000000g")], Some(AccessError::Malformed)),
            (&[("response", "\"xy\"")], Some(AccessError::Malformed)),
            (&[("more", "1"), ("more", "2")], Some(AccessError::Malformed)),
            (&[("nonce", &old)], Some(AccessError::Stale)),
            (&[("nonce", &future)], Some(AccessError::Stale)),
            (&[("nonce", &of_other_realm)], Some(AccessError::Stale)),
            (&[("nonce", &of_other_key)], Some(AccessError::Stale)),
            (&[("nonce", &without_tag)], Some(AccessError::Stale)),
            (&[("nonce", "\"\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}0\"")], Some(AccessError::Stale)),
            (&[("nonce", "x")], Some(AccessError::Stale)),
        ] {
            let found = response(&line(&nonce, changes), &expected());
            assert_eq!(found.err(), error, "{changes:?}");
        }
        for text in ["", "x", "username=\"a", "=a", "username=a b", ",,", "username==a"] {
            assert_eq!(response(text, &expected()).err(), Some(AccessError::Malformed), "{text}");
        }
    }

    #[test]
    fn opaque_is_returned() {
        let nonce = format!("\"{}\"", NonceKey::fixed().nonce("R", NOW_S));
        let expected = Challenged { opaque: "o", ..expected() };
        assert_eq!(response(&line(&nonce, &[]), &expected).err(), Some(AccessError::Wrong));
        assert!(response(&line(&nonce, &[("opaque", "\"o\"")]), &expected).is_ok());
    }
}
