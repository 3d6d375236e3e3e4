//! Stored passwords: their kinds, and verification.
//!
//! Several kinds begin alike. They are told apart by their whole form, and what has none of the forms is an error:
//!
//! - `$2a$`, `$2b$`, `$2y$`: bcrypt, a cost of two digits and 53 characters. `$2x$`, of a faulty implementation, is an
//!   error.
//! - `$5$` and `$6$` with a further `$`: crypt(5), `[rounds=N$]SALT$HASH`. A salt has letters, digits, `.` and `/`.
//! - `$1$`, `$2$`, `$5$`, `$6$` with nothing but padded base64 of exactly the digest's size: ouistiti. The same with an
//!   `a` before the number.
//! - `$5$realm=NAME$BASE64` and the like: ouistiti, for Digest.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};
use auth_wire::{Digest as Response, DigestAlgorithm, Secret};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use md5::Md5;
use sha_crypt::ShaCrypt;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::limits::{
    ARGON2_LANES_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX, ARGON2_WORK_KIB_MIN, BCRYPT_COST_MAX, BCRYPT_COST_MIN,
    PASSWORD_SIZE_MAX, SHA_CRYPT_ROUNDS_MAX, SHA_CRYPT_ROUNDS_MIN,
};

/// A stored password that can be verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored(Kind);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    /// bcrypt, with its cost.
    Bcrypt { text: Secret, cost: u32 },
    /// argon2id (RFC 9106), with KiB times passes.
    Argon2id { text: Secret, work_kib: u64 },
    /// crypt(5) with SHA-256 or SHA-512.
    ShaCrypt { text: Secret, rounds: u32 },
    /// Apache's variant of crypt(5) with MD5: salt and encoded hash.
    Apr1 { salt: String, hash: Secret },
    /// A digest of the password alone, or of user, realm and password.
    Digest { hash: Hash, realm: Option<String>, digest: Secret },
    /// Clear text.
    Clear(Secret),
    /// No password is right.
    None,
}

/// A hash function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hash {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Hash::Md5 => "MD5",
            Hash::Sha1 => "SHA-1",
            Hash::Sha256 => "SHA-256",
            Hash::Sha512 => "SHA-512",
        }
    }

    fn size(self) -> usize {
        match self {
            Hash::Md5 => 16,
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
        }
    }

    /// The digest of these parts, one after the other.
    fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut digest = D::new();
            parts.iter().for_each(|part| digest.update(part));
            digest.finalize().to_vec()
        }
        match self {
            Hash::Md5 => digest::<Md5>(parts),
            Hash::Sha1 => digest::<Sha1>(parts),
            Hash::Sha256 => digest::<Sha256>(parts),
            Hash::Sha512 => digest::<Sha512>(parts),
        }
    }
}

impl Stored {
    /// Reads a hash. The error completes the operator's sentence "the password of X ...".
    pub fn parse(text: &str) -> Result<Stored, String> {
        Stored::kind(text).map(Stored)
    }

    /// Reads a hash or clear text, of a row of ouistiti's or of the configuration. A text that begins with `$` or `{` is
    /// no clear text, so that a hash of an unknown kind is not a password by itself.
    pub fn parse_row(text: &str) -> Result<Stored, String> {
        if text.is_empty() || text.starts_with(['$', '{', '*', '!']) {
            return Stored::parse(text);
        }
        if text.len() > PASSWORD_SIZE_MAX {
            return Err(format!("exceeds {PASSWORD_SIZE_MAX} bytes"));
        }
        Ok(Stored(Kind::Clear(text.into())))
    }

    fn kind(text: &str) -> Result<Kind, String> {
        if text.is_empty() || text.starts_with(['*', '!']) {
            return Ok(Kind::None);
        }
        if let Some(base64) = text.strip_prefix("{SHA}") {
            return digest(Hash::Sha1, None, base64);
        }
        let Some((id, rest)) = text.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
            return Err("is neither a hash of a known kind nor in a row with a group".to_owned());
        };
        match id {
            "2a" | "2b" | "2y" => bcrypt(text),
            "2x" => Err("is a $2x$ hash, which a faulty program made: set the password again".to_owned()),
            "argon2id" => argon2id(text),
            "argon2i" | "argon2d" => Err("is no argon2id: set the password again".to_owned()),
            "apr1" => apr1(rest),
            "1" if rest.contains('$') && !rest.starts_with("realm=") => {
                Err("is the MD5 hash of crypt(5), which is not supported: set the password again".to_owned())
            }
            "5" | "6" if rest.contains('$') && !rest.starts_with("realm=") => sha_crypt(id, rest),
            "1" | "a1" => ouistiti(Hash::Md5, rest),
            "2" | "a2" => ouistiti(Hash::Sha1, rest),
            "5" | "a5" => ouistiti(Hash::Sha256, rest),
            "6" | "a6" => ouistiti(Hash::Sha512, rest),
            _ => Err("is a hash of an unknown kind".to_owned()),
        }
    }

    /// Why the hash is weak; None: it is not. Completes the sentence "the password of X ...".
    pub fn weakness(&self) -> Option<String> {
        match &self.0 {
            Kind::Bcrypt { cost, .. } if *cost < BCRYPT_COST_MIN => {
                Some(format!("has a weak hash: bcrypt with the cost {cost}; htpasswd -B -C 12 makes a better one"))
            }
            Kind::Argon2id { work_kib, .. } if *work_kib < ARGON2_WORK_KIB_MIN => {
                Some("has a weak hash: argon2id with too little memory or too few passes".to_owned())
            }
            Kind::ShaCrypt { rounds, .. } if *rounds < SHA_CRYPT_ROUNDS_MIN => {
                Some(format!("has a weak hash: SHA-crypt with {rounds} rounds"))
            }
            Kind::Apr1 { .. } => Some("has a weak hash: $apr1$".to_owned()),
            Kind::Digest { hash, .. } => Some(format!("has a weak hash: one round of {}", hash.name())),
            Kind::Clear(_) => Some("is in clear text".to_owned()),
            Kind::Bcrypt { .. } | Kind::Argon2id { .. } | Kind::ShaCrypt { .. } | Kind::None => None,
        }
    }

    /// The time that a verification takes, roughly, in microseconds of an ordinary machine. It orders kinds by their
    /// expense.
    pub fn work_us(&self) -> u64 {
        match &self.0 {
            Kind::Bcrypt { cost, .. } => 50 << cost,
            Kind::Argon2id { work_kib, .. } => *work_kib * 7 / 10,
            Kind::ShaCrypt { rounds, .. } => u64::from(*rounds) / 2,
            Kind::Apr1 { .. } => 300,
            Kind::Digest { .. } | Kind::Clear(_) => 1,
            Kind::None => 0,
        }
    }

    /// Whether this is the password of this user. One that is too long or has a NUL is not.
    pub fn verify(&self, user: &str, password: &str) -> bool {
        if password.len() > PASSWORD_SIZE_MAX || password.contains('\0') {
            return false;
        }
        #[cfg(test)]
        tests::count(self);
        let bytes = password.as_bytes();
        match &self.0 {
            Kind::Bcrypt { text, .. } => bcrypt::verify(bytes, text.reveal()).unwrap_or(false),
            Kind::Argon2id { text, .. } => PasswordHash::new(text.reveal())
                .is_ok_and(|hash| Argon2::default().verify_password(bytes, &hash).is_ok()),
            Kind::ShaCrypt { text, .. } => ShaCrypt::default().verify_password(bytes, text.reveal()).is_ok(),
            Kind::Apr1 { salt, hash } => is_same(apr1_hash(bytes, salt).as_bytes(), hash.reveal().as_bytes()),
            Kind::Digest { hash, realm, digest } => {
                let computed = match realm {
                    Some(realm) => hash.of(&[user.as_bytes(), b":", realm.as_bytes(), b":", bytes]),
                    None => hash.of(&[bytes]),
                };
                is_same(&hex(&computed), digest.reveal().as_bytes())
            }
            // The digests have one size, so that the time does not depend on the length.
            Kind::Clear(clear) => is_same(&Hash::Sha256.of(&[bytes]), &Hash::Sha256.of(&[clear.reveal().as_bytes()])),
            Kind::None => false,
        }
    }

    /// Whether this is the response to a Digest challenge (RFC 7616 section 3.4.1, `qop=auth`). It needs clear text, or
    /// the digest of user, realm and password by the same algorithm and for the same realm.
    pub fn verify_digest(&self, response: &Response, method: &str) -> bool {
        let hash = match response.algorithm {
            DigestAlgorithm::Md5 => Hash::Md5,
            DigestAlgorithm::Sha256 => Hash::Sha256,
        };
        let (user, realm) = (response.user.as_bytes(), response.realm.as_bytes());
        let first = match &self.0 {
            Kind::Clear(clear) => hex(&hash.of(&[user, b":", realm, b":", clear.reveal().as_bytes()])),
            Kind::Digest { hash: stored, realm: Some(of), digest } if *stored == hash && of == &response.realm => {
                digest.reveal().as_bytes().to_vec()
            }
            _ => return false,
        };
        let second = hex(&hash.of(&[method.as_bytes(), b":", response.uri.as_bytes()]));
        let computed = hash.of(&[
            &first,
            b":",
            response.nonce.as_bytes(),
            b":",
            response.nc.as_bytes(),
            b":",
            response.cnonce.as_bytes(),
            b":auth:",
            &second,
        ]);
        is_same(&hex(&computed), response.response.reveal().to_ascii_lowercase().as_bytes())
    }
}

/// A valid hash of which nobody knows the password.
const EXPENSIVE: &str =
    "$argon2id$v=19$m=12288,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What a failure with an unknown user costs: a hash as authrpc makes them, whose password is not known.
pub fn expensive() -> Stored {
    Stored(Kind::Argon2id { text: EXPENSIVE.into(), work_kib: ARGON2_WORK_KIB_MIN })
}

fn bcrypt(text: &str) -> Result<Kind, String> {
    // It accepts a sign before the cost.
    let has_digits = text.get(4..6).is_some_and(|cost| cost.bytes().all(|byte| byte.is_ascii_digit()));
    let parts = text.parse::<HashParts>().ok().filter(|_| has_digits).ok_or("is no valid bcrypt hash")?;
    let cost = parts.get_cost();
    if !(4..=BCRYPT_COST_MAX).contains(&cost) {
        return Err(format!("is a bcrypt hash with the cost {cost}; it can be 4 to {BCRYPT_COST_MAX}"));
    }
    Ok(Kind::Bcrypt { text: text.into(), cost })
}

fn argon2id(text: &str) -> Result<Kind, String> {
    let invalid = "is no valid argon2id hash";
    let hash = PasswordHash::new(text).map_err(|_| invalid)?;
    let params = Params::try_from(&hash).map_err(|_| invalid)?;
    if hash.version != Some(19) || hash.salt.is_none() || hash.hash.is_none() {
        return Err(invalid.to_owned());
    }
    if params.m_cost() > ARGON2_MEMORY_KIB_MAX
        || params.t_cost() > ARGON2_PASSES_MAX
        || params.p_cost() > ARGON2_LANES_MAX
    {
        return Err(format!(
            "is an argon2id hash with {}; it can be m={ARGON2_MEMORY_KIB_MAX},t={ARGON2_PASSES_MAX},p={ARGON2_LANES_MAX} at most",
            hash.params
        ));
    }
    let work_kib = u64::from(params.m_cost()) * u64::from(params.t_cost());
    Ok(Kind::Argon2id { text: text.into(), work_kib })
}

/// `[rounds=N$]SALT$HASH` after `$5$` or `$6$`.
fn sha_crypt(id: &str, rest: &str) -> Result<Kind, String> {
    let invalid = || "is no valid SHA-crypt hash".to_owned();
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or_else(invalid)?;
            // As crypt(5) writes it: without leading zeros or a sign.
            let number = rounds.parse().ok().filter(|number: &u32| number.to_string() == rounds).ok_or_else(invalid)?;
            (number, rest)
        }
        None => (SHA_CRYPT_ROUNDS_MIN, rest),
    };
    let (salt, hash) = rest.split_once('$').ok_or_else(invalid)?;
    let hash_size = if id == "5" { 43 } else { 86 };
    if salt.is_empty() || salt.len() > 16 || !is_itoa64(salt) || hash.len() != hash_size || !is_itoa64(hash) {
        return Err(invalid());
    }
    if !(1_000..=SHA_CRYPT_ROUNDS_MAX).contains(&rounds) {
        return Err(format!("is a SHA-crypt hash with {rounds} rounds; it can be 1000 to {SHA_CRYPT_ROUNDS_MAX}"));
    }
    Ok(Kind::ShaCrypt { text: format!("${id}$rounds={rounds}${salt}${hash}").into(), rounds })
}

/// `SALT$HASH` after `$apr1$`.
fn apr1(rest: &str) -> Result<Kind, String> {
    let parts = rest
        .split_once('$')
        .filter(|(salt, hash)| (1..=8).contains(&salt.len()) && is_itoa64(salt) && hash.len() == 22 && is_itoa64(hash));
    let (salt, hash) = parts.ok_or("is no valid $apr1$ hash")?;
    Ok(Kind::Apr1 { salt: salt.to_owned(), hash: hash.into() })
}

/// `BASE64` or `realm=NAME$BASE64` after the kind.
fn ouistiti(hash: Hash, rest: &str) -> Result<Kind, String> {
    match rest.rsplit_once('$') {
        None => digest(hash, None, rest),
        Some((realm, base64)) => match realm.strip_prefix("realm=") {
            Some(realm) if !realm.is_empty() && !realm.contains('$') => digest(hash, Some(realm), base64),
            _ => Err("is a hash with an option that is not known; realm=NAME is".to_owned()),
        },
    }
}

fn digest(hash: Hash, realm: Option<&str>, base64: &str) -> Result<Kind, String> {
    let digest = STANDARD.decode(base64).ok().filter(|digest| digest.len() == hash.size());
    let digest = digest.ok_or_else(|| format!("is no base64 of {} bytes, the size of {}", hash.size(), hash.name()))?;
    let digest = String::from_utf8_lossy(&hex(&digest)).into_owned().into();
    Ok(Kind::Digest { hash, realm: realm.map(str::to_owned), digest })
}

/// The digits of crypt(5)'s base64.
const ITOA64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn is_itoa64(text: &str) -> bool {
    text.bytes().all(|byte| ITOA64.contains(&byte))
}

/// Apache's apr_md5_encode: 1,000 rounds of MD5 as in FreeBSD's crypt(3), with another magic.
fn apr1_hash(password: &[u8], salt: &str) -> String {
    let salt = salt.as_bytes();
    let inner = Hash::Md5.of(&[password, salt, password]);
    let mut parts: Vec<&[u8]> = vec![password, b"$apr1$", salt];
    parts.extend((0..password.len()).step_by(16).map(|done| &inner[..(password.len() - done).min(16)]));
    let mut left = password.len();
    while left > 0 {
        // The first byte of the password, or a NUL.
        parts.push(if left & 1 == 1 { &[0] } else { &password[..1] });
        left >>= 1;
    }
    let mut digest = Hash::Md5.of(&parts);
    for round in 0..1_000 {
        let (one, other) = if round % 2 == 1 { (password, &digest[..]) } else { (&digest[..], password) };
        let salt = if round % 3 == 0 { &[] } else { salt };
        let middle = if round % 7 == 0 { &[] } else { password };
        digest = Hash::Md5.of(&[one, salt, middle, other]);
    }
    let mut text = String::with_capacity(22);
    let triples = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)];
    for (one, two, three) in triples {
        let group = u32::from(digest[one]) << 16 | u32::from(digest[two]) << 8 | u32::from(digest[three]);
        push_itoa64(&mut text, group, 4);
    }
    push_itoa64(&mut text, u32::from(digest[11]), 2);
    text
}

/// The lowest six bits first.
fn push_itoa64(text: &mut String, mut group: u32, digits: usize) {
    for _ in 0..digits {
        text.push(char::from(ITOA64[(group & 63) as usize]));
        group >>= 6;
    }
}

/// Hexadecimal, in lower case.
fn hex(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static VERIFIED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn count(stored: &Stored) {
        VERIFIED.with_borrow_mut(|verified| verified.push(stored.work_us()));
    }

    /// The work of each verification of this thread since the last call.
    pub(crate) fn verified() -> Vec<u64> {
        VERIFIED.take()
    }

    const PASSWORD: &str = "pa55w\u{f6}rd x";
    const ARGON2ID: &str = "$argon2id$v=19$m=64,t=1,p=1$";

    fn argon2id_of(password: &str) -> String {
        use argon2::PasswordHasher;
        let hasher =
            Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let hash: PasswordHash = hasher.hash_password_with_salt(password.as_bytes(), &[7; 16]).unwrap();
        hash.to_string()
    }

    /// Made by openssl passwd, crypt(3) of libxcrypt, and Python's hashlib.
    #[test]
    fn every_kind_is_verified() {
        let argon2id = argon2id_of(PASSWORD);
        assert!(argon2id.starts_with(ARGON2ID));
        for (text, weakness) in [
            ("$2b$04$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy", Some("bcrypt with the cost 4")),
            ("$2y$04$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy", Some("bcrypt with the cost 4")),
            ("$2a$04$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy", Some("bcrypt with the cost 4")),
            (&argon2id, Some("too little memory")),
            ("$5$saltsalt$dB11ImkC0f.j3hCFoGB0MFsyanvkYcMO3Yg0eSPjc9/", None),
            (
                "$6$saltsalt$xJl9nQbVP2HlcHtO2hv2DsyFyB/T1AywDlrGlRVAHPME815/wMUWyD0qGPrUHPsVT4VeQo0I7tNNG2QogD5jE1",
                None,
            ),
            ("$5$rounds=1000$a$oeHv72ysVulHMEKQNrJEXBc6pTjOVldbH829VOeDHw5", Some("SHA-crypt with 1000 rounds")),
            (
                "$6$rounds=1000$abc$40bkPPTLlUtkxgcqjfeyGcmwcDL3WI4Hvk4DXJhnFm1Jf0FAtBfeurp8F7j.7b71F2LRL5CdUNkJ2DTYwOX1y.",
                Some("SHA-crypt with 1000 rounds"),
            ),
            ("$apr1$saltsalt$8bATevyqVlR2ysK6y9Drd.", Some("$apr1$")),
            ("{SHA}IONDKY6crD6BvscPCv+LP42WUMo=", Some("SHA-1")),
            ("$1$VrTAfSMRXQU5IxS04ZM4CQ==", Some("MD5")),
            ("$a1$realm=here$plrYS2H2+64DmsgQOPs8ug==", Some("MD5")),
            ("$2$IONDKY6crD6BvscPCv+LP42WUMo=", Some("SHA-1")),
            ("$a2$realm=here$+MyX7mmlCKpy7ELaPJqhZaWKNQc=", Some("SHA-1")),
            ("$5$FeD/y9oPHxkU0keUtBn8N7U6d1v6Bm+d9B/alyOaSGs=", Some("SHA-256")),
            ("$a5$FeD/y9oPHxkU0keUtBn8N7U6d1v6Bm+d9B/alyOaSGs=", Some("SHA-256")),
            ("$5$realm=here$9OtiTiBWWc5LbQx4X3p6xbRUONao4d6XIHJ+HkrG268=", Some("SHA-256")),
            (
                "$6$N7oM3o42hZir5t5CGLJNeLQY/3GyiwNNM3fv8b4Nl5TEy+xAOzRzesjqFPCi1D0XcvrcUIgZAjPksjJgzhhJIg==",
                Some("SHA-512"),
            ),
            (
                "$a6$realm=here$nbCgOT4OLcRhoF663rtF7jVtGTcRnWeuqhi/Vwc35+4lPBgSKJ8slgudJELjNmAjB2pfxv/OxEjDOzrBr5tqpA==",
                Some("SHA-512"),
            ),
            (PASSWORD, Some("clear text")),
        ] {
            let stored = Stored::parse_row(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(stored.verify("ann", PASSWORD), "{text}");
            let long = "x".repeat(PASSWORD_SIZE_MAX);
            for wrong in ["", "pa55w\u{f6}rd", "pa55w\u{f6}rd y", "pa55w\u{f6}rd x ", text, &long] {
                assert!(wrong == PASSWORD || !stored.verify("ann", wrong), "{text}: {wrong}");
            }
            match weakness {
                Some(part) => assert!(stored.weakness().is_some_and(|weakness| weakness.contains(part)), "{text}"),
                None => assert_eq!(stored.weakness(), None, "{text}"),
            }
            if text.contains("realm=") {
                assert!(!stored.verify("bob", PASSWORD), "{text}");
            }
        }
    }

    #[test]
    fn apr1_of_all_lengths() {
        for (password, text) in [
            ("a", "$apr1$saltsalt$OEnK0QmmvoDzFw9W2yFYT/"),
            ("0123456789abcdef0123", "$apr1$saltsalt$7hmIwpCHNzgQaYVDtspj30"),
        ] {
            assert!(Stored::parse(text).unwrap().verify("", password), "{text}");
        }
        assert_eq!(apr1_hash(b"", "x").len(), 22, "an empty password is no panic");
    }

    #[test]
    fn passwords_have_limits() {
        let stored = Stored::parse("$5$rounds=1000$a$3MFO/lmAzQG/QoFiigN64N..34hk.MP5XyqT6XCHXW2").unwrap();
        assert!(stored.verify("", &"x".repeat(256)));
        verified();
        assert!(!stored.verify("", &"x".repeat(257)) && !stored.verify("", "x\0"));
        assert_eq!(verified(), [0_u64; 0], "they are not hashed");
        // The first 72 bytes count.
        let stored = Stored::parse("$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i").unwrap();
        assert!(stored.verify("", &("x".repeat(72) + "z")) && !stored.verify("", &"x".repeat(71)));
    }

    #[test]
    fn what_is_no_hash_is_an_error() {
        let bcrypt = |start: &str| format!("{start}abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy");
        let argon2id = argon2id_of("a");
        let argon2 = |old: &str, new: &str| argon2id.replacen(old, new, 1);
        let sha = "dB11ImkC0f.j3hCFoGB0MFsyanvkYcMO3Yg0eSPjc9/";
        for (text, part) in [
            ("geheim".to_owned(), "neither a hash"),
            ("rqXexS6ZhobKA".to_owned(), "neither a hash"),
            (bcrypt("$2x$10$"), "faulty program"),
            (bcrypt("$2$10$"), "option"),
            (bcrypt("$2b$15$"), "cost 15"),
            (bcrypt("$2b$03$"), "cost 3"),
            (bcrypt("$2b$+4$"), "no valid bcrypt"),
            (bcrypt("$2b$04$") + "a", "no valid bcrypt"),
            (bcrypt("$2b$04$").replace('/', "\u{e4}"), "no valid bcrypt"),
            (argon2("argon2id", "argon2i"), "no argon2id"),
            (argon2("v=19$", ""), "no valid argon2id"),
            (argon2("v=19", "v=16"), "no valid argon2id"),
            (argon2("m=64", "m=131073"), "m=131073"),
            (argon2("t=1", "t=17"), "t=17"),
            (argon2("p=1", "p=5"), "p=5"),
            (ARGON2ID.to_owned(), "no valid argon2id"),
            ("$argon2id$v=19$m=64,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw".to_owned(), "no valid argon2id"),
            ("$apr1$$8bATevyqVlR2ysK6y9Drd.".to_owned(), "no valid $apr1$"),
            ("$apr1$saltsalts$8bATevyqVlR2ysK6y9Drd.".to_owned(), "no valid $apr1$"),
            ("$apr1$saltsalt$8bATevyqVlR2ysK6y9Drd".to_owned(), "no valid $apr1$"),
            ("$1$saltsalt$8bATevyqVlR2ysK6y9Drd.".to_owned(), "MD5 hash of crypt(5)"),
            (format!("$5$$%{sha}"), "no valid SHA-crypt"),
            (format!("$5$salt=$%{sha}"), "no valid SHA-crypt"),
            (format!("$5$12345678901234567${sha}"), "no valid SHA-crypt"),
            (format!("$5$salt${sha}a"), "no valid SHA-crypt"),
            (format!("$6$salt${sha}"), "no valid SHA-crypt"),
            (format!("$5$rounds=999$salt${sha}"), "999 rounds"),
            (format!("$5$rounds=500001$salt${sha}"), "500001 rounds"),
            (format!("$5$rounds=01000$salt${sha}"), "no valid SHA-crypt"),
            (format!("$5$rounds=1000${sha}"), "no valid SHA-crypt"),
            (format!("$5$rounds=99999999999$salt${sha}"), "no valid SHA-crypt"),
            (format!("$7$salt${sha}"), "unknown kind"),
            ("$a3$AAAA".to_owned(), "unknown kind"),
            ("$a5$".to_owned(), "no base64 of 32 bytes"),
            ("$5$FeD/y9oPHxkU0keUtBn8N7U6d1v6Bm+d9B/alyOaSGs".to_owned(), "no base64 of 32 bytes"),
            ("$5$FeD_y9oPHxkU0keUtBn8N7U6d1v6Bm-d9B_alyOaSGs=".to_owned(), "no base64 of 32 bytes"),
            ("$6$FeD/y9oPHxkU0keUtBn8N7U6d1v6Bm+d9B/alyOaSGs=".to_owned(), "no base64 of 64 bytes"),
            ("$a5$realm=$9OtiTiBWWc5LbQx4X3p6xbRUONao4d6XIHJ+HkrG268=".to_owned(), "option"),
            ("$a5$realm=a$b$9OtiTiBWWc5LbQx4X3p6xbRUONao4d6XIHJ+HkrG268=".to_owned(), "option"),
            ("$a5$salt=here$9OtiTiBWWc5LbQx4X3p6xbRUONao4d6XIHJ+HkrG268=".to_owned(), "option"),
            ("{SHA}IONDKY6crD6BvscPCv+LP42WUMo".to_owned(), "no base64 of 20 bytes"),
            ("{SSHA}IONDKY6crD6BvscPCv+LP42WUMo=".to_owned(), "neither a hash"),
            ("$".to_owned(), "neither a hash"),
        ] {
            let error = Stored::parse(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("geheim") && !error.contains(sha), "{error}");
            // In a row too, except for what looks like clear text.
            assert_eq!(Stored::parse_row(&text).is_ok(), !text.starts_with(['$', '{']), "{text}");
        }
        for text in ["", "*", "!", "!!", "*LK*"] {
            let stored = Stored::parse_row(text).unwrap();
            assert!(!stored.verify("ann", text) && !stored.verify("ann", ""), "{text}");
        }
        assert!(Stored::parse_row(&"x".repeat(257)).is_err());
    }

    #[test]
    fn dearer_kinds_cost_more() {
        let work = |text: &str| Stored::parse_row(text).unwrap().work_us();
        let bcrypt = |cost: &str| work(&format!("$2b${cost}$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy"));
        let sha_crypt = work("$5$saltsalt$dB11ImkC0f.j3hCFoGB0MFsyanvkYcMO3Yg0eSPjc9/");
        let apr1 = work("$apr1$saltsalt$8bATevyqVlR2ysK6y9Drd.");
        let order = [work("*"), work("clear"), apr1, sha_crypt, expensive().work_us(), bcrypt("10"), bcrypt("14")];
        assert!(order.is_sorted() && order[0] < order[1], "{order:?}");
        assert!(!expensive().verify("ann", "x") && expensive().weakness().is_none());
        assert_eq!(Stored::parse(EXPENSIVE), Ok(expensive()), "it is a valid hash");
    }

    fn response(algorithm: DigestAlgorithm, response: &str) -> Response {
        // RFC 7616 section 3.9.1.
        Response {
            user: "Mufasa".to_owned(),
            realm: "http-auth@example.org".to_owned(),
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v".to_owned(),
            uri: "/dir/index.html".to_owned(),
            nc: "00000001".to_owned(),
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ".to_owned(),
            algorithm,
            response: response.into(),
        }
    }

    #[test]
    fn digest_responses() {
        let clear = Stored::parse_row("Circle of Life").unwrap();
        let of = |kind: &str, hash: Hash, realm: &str| {
            let digest = hash.of(&[format!("Mufasa:{realm}:Circle of Life").as_bytes()]);
            Stored::parse(&format!("${kind}$realm={realm}${}", STANDARD.encode(digest))).unwrap()
        };
        let realm = "http-auth@example.org";
        let (md5, sha256) = (of("a1", Hash::Md5, realm), of("a5", Hash::Sha256, realm));
        let good_md5 = response(DigestAlgorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec");
        let good_sha256 =
            response(DigestAlgorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
        for (name, stored, response, method, expected) in [
            ("clear text, MD5", &clear, &good_md5, "GET", true),
            ("clear text, SHA-256", &clear, &good_sha256, "GET", true),
            ("MD5", &md5, &good_md5, "GET", true),
            ("SHA-256", &sha256, &good_sha256, "GET", true),
            ("the other algorithm", &md5, &good_sha256, "GET", false),
            ("another realm", &of("a1", Hash::Md5, "x"), &good_md5, "GET", false),
            ("another method", &md5, &good_md5, "POST", false),
            (
                "a hash of the password alone",
                &Stored::parse("$1$VrTAfSMRXQU5IxS04ZM4CQ==").unwrap(),
                &good_md5,
                "GET",
                false,
            ),
            ("an empty response", &md5, &Response { response: "".into(), ..good_md5.clone() }, "GET", false),
            (
                "upper case",
                &md5,
                &Response { response: "8CA523F5E9506FED4657C9700EEBDBEC".into(), ..good_md5.clone() },
                "GET",
                true,
            ),
            ("another count", &md5, &Response { nc: "00000002".to_owned(), ..good_md5.clone() }, "GET", false),
            ("another nonce", &md5, &Response { nonce: "x".to_owned(), ..good_md5.clone() }, "GET", false),
            ("another target", &md5, &Response { uri: "/".to_owned(), ..good_md5.clone() }, "GET", false),
        ] {
            assert_eq!(stored.verify_digest(response, method), expected, "{name}");
        }
    }
}
