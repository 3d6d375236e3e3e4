//! Tokens that are listed in a file or in the configuration. A token is kept and compared as its SHA-256 hash, which is
//! enough for a random text.

use std::collections::HashMap;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::ConstantTimeEq;

use crate::identity::Identity;
use crate::limits::{PROBLEMS_MAX, TOKEN_LINE_SIZE_MAX, TOKEN_SIZE_MAX, TOKEN_SIZE_MIN, TOKENS_MAX};
use crate::users::{check_name, groups_of};

/// What a hexadecimal hash begins with, in place of the token. No token has an equals sign before its end.
const HASHED: &str = "sha256=";
/// Fewer different characters are a word that was repeated, not a random text: 32 random hexadecimal digits have as few
/// with a probability below 10^-12.
const CHARACTERS_MIN: usize = 6;

type Hash = [u8; SHA256_OUTPUT_LEN];

/// Tokens of a rule, as their SHA-256 hashes.
#[derive(Debug, Default)]
pub struct Tokens(Vec<(Hash, Identity)>);

impl Tokens {
    /// Reads the text of a file: lines `token:user:group,group`, or `sha256=HASH:user:group,group`. Groups may be missing;
    /// empty lines and those that begin with # are skipped. Returns warnings too. The errors are the operator's sentences,
    /// with line numbers but without the file's name.
    pub fn parse(text: &str) -> Result<(Tokens, Vec<String>), Vec<String>> {
        let (mut tokens, mut warnings, mut problems) = (Tokens::default(), Vec::new(), Vec::new());
        let mut lines: HashMap<Hash, usize> = HashMap::new();
        let rows = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        for (number, line) in rows {
            if problems.len() == PROBLEMS_MAX {
                problems.push("and possibly more".to_owned());
                break;
            }
            if tokens.0.len() >= TOKENS_MAX {
                problems.push(format!("line {number}: more than {TOKENS_MAX} tokens"));
                break;
            }
            let at = |sentence: String| format!("line {number}: {sentence}");
            match row(line) {
                Ok((hash, identity, warning)) => {
                    if let Some(first) = lines.insert(hash, number) {
                        problems.push(at(format!("this is the token of line {first}")));
                    }
                    warnings.extend(warning.map(|warning| at(warning.to_owned())));
                    tokens.0.push((hash, identity));
                }
                Err(problem) => problems.push(at(problem)),
            }
        }
        if problems.is_empty() { Ok((tokens, warnings)) } else { Err(problems) }
    }

    /// One token of the configuration, or its hash as in a file. The error is the operator's sentence.
    pub fn of_one(token: &str, user: &str, groups: &[String]) -> Result<Tokens, String> {
        let (hash, _) = hash_of(token)?;
        Ok(Tokens(vec![(hash, identity(user, groups.to_vec())?)]))
    }

    /// The user of a token.
    pub fn find(&self, token: &str) -> Option<Identity> {
        // A hash in the file may be that of a shorter text.
        if !(TOKEN_SIZE_MIN..=TOKEN_SIZE_MAX).contains(&token.len()) {
            return None;
        }
        let hash = hash(token);
        // All are compared, so that the time does not depend on the one that is equal.
        let found = self.0.iter().fold(None, |found, (other, identity)| match other.ct_eq(&hash).into() {
            true => Some(identity),
            false => found,
        });
        found.cloned()
    }
}

/// Hash and user of a line, and a warning.
fn row(line: &str) -> Result<(Hash, Identity, Option<&'static str>), String> {
    if line.len() > TOKEN_LINE_SIZE_MAX {
        return Err(format!("more than {TOKEN_LINE_SIZE_MAX} bytes"));
    }
    let mut fields = line.split(':');
    let (token, user) = (fields.next().unwrap_or_default(), fields.next());
    let user = user.ok_or("a user is missing: write token:user:groups")?;
    let groups = groups_of(fields.next().unwrap_or_default())?;
    if fields.next().is_some() {
        return Err("more than three fields: write token:user:groups".to_owned());
    }
    let (hash, warning) = hash_of(token)?;
    Ok((hash, identity(user, groups)?, warning))
}

fn identity(user: &str, groups: Vec<String>) -> Result<Identity, String> {
    check_name(user)?;
    Ok(Identity { user: user.to_owned(), groups, ..Identity::default() })
}

/// The hash of a token, or the one that a text gives, and a warning.
fn hash_of(token: &str) -> Result<(Hash, Option<&'static str>), String> {
    if let Some(digits) = token.strip_prefix(HASHED) {
        let hash = from_hex(digits).ok_or("a SHA-256 hash has 64 hexadecimal digits")?;
        return Ok((hash, None));
    }
    if token.len() < TOKEN_SIZE_MIN {
        return Err(format!("the token has fewer than {TOKEN_SIZE_MIN} bytes: make one with openssl rand -hex 16"));
    }
    if token.len() > TOKEN_SIZE_MAX {
        return Err(format!("the token has more than {TOKEN_SIZE_MAX} bytes"));
    }
    // b64token of RFC 6750 section 2.1.
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let body = token.trim_end_matches('=');
    if body.is_empty() || !body.bytes().all(is_valid) {
        return Err("a token consists of letters, digits and -._~+/, and ends with = at most (RFC 6750)".to_owned());
    }
    let mut characters = token.as_bytes().to_vec();
    characters.sort_unstable();
    characters.dedup();
    let is_weak = characters.len() < CHARACTERS_MIN;
    Ok((hash(token), is_weak.then_some("the token is easy to guess: make one with openssl rand -hex 16")))
}

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

fn from_hex(digits: &str) -> Option<Hash> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * SHA256_OUTPUT_LEN {
        return None;
    }
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GROUPS_MAX;

    const TOKEN: &str = "d4f1a9c07be2583661fa0c9db48e7532";
    /// Of sha256sum.
    const TOKEN_HASH: &str = "aa4a23d9d086107e68ad6c8f754864c86b7cb7ee181d7fb7ff1f52009e2a2bd7";

    fn user(user: &str, groups: &[&str]) -> Option<Identity> {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Some(Identity { user: user.to_owned(), groups, ..Identity::default() })
    }

    #[test]
    fn tokens_are_found() {
        let text = format!(
            "# comment\n\n{TOKEN}:alice:users, staff\r\n  \nsha256={}:bob\nabcdefghijklmn==:carol:\n0000000000000000:dave\n",
            TOKEN_HASH.to_uppercase().replacen('A', "a", 1),
        );
        // The hash is that of the first token.
        assert_eq!(Tokens::parse(&text).unwrap_err(), ["line 5: this is the token of line 3"]);
        let text = text.replacen(TOKEN, "AbCdEf-._~+/0123==", 1);
        let (tokens, warnings) = Tokens::parse(&text).unwrap();
        assert_eq!(warnings, ["line 7: the token is easy to guess: make one with openssl rand -hex 16"]);
        for (token, found) in [
            ("AbCdEf-._~+/0123==", user("alice", &["users", "staff"])),
            (TOKEN, user("bob", &[])),
            ("abcdefghijklmn==", user("carol", &[])),
            ("0000000000000000", user("dave", &[])),
            ("abcdefghijklmn=", None),
            ("ABCDEFGHIJKLMN==", None),
            ("", None),
            // A hash that is read in the file is no token.
            (TOKEN_HASH, None),
            (&format!("sha256={TOKEN_HASH}"), None),
            (&"x".repeat(100_000), None),
        ] {
            assert_eq!(tokens.find(token), found, "{token}");
        }
        assert_eq!(Tokens::default().find(TOKEN), None);
        let shown = format!("{tokens:?}");
        assert!(!shown.contains("abcdefghij"), "{shown}");
    }

    #[test]
    fn lines_that_are_refused() {
        let groups: Vec<String> = (0..=GROUPS_MAX).map(|number| number.to_string()).collect();
        for (line, part) in [
            (TOKEN, "a user is missing"),
            ("short-token:alice", "fewer than 16 bytes"),
            ("this is no token at all:alice", "consists of letters"),
            ("ab=cdefghijklmnopq:alice", "consists of letters"),
            ("====================:alice", "consists of letters"),
            ("t\u{f6}ken-t\u{f6}ken-t\u{f6}ken:alice", "consists of letters"),
            (&format!("{}:alice", "x".repeat(TOKEN_SIZE_MAX + 1)), "more than 4096 bytes"),
            (&format!("{TOKEN}:"), "user's name is empty"),
            (&format!("{TOKEN}:al\tice"), "control character"),
            (&format!("{TOKEN}:alice:a\u{7f}b"), "group's name"),
            (&format!("{TOKEN}:alice:{}", groups.join(",")), "more than 64 groups"),
            (&format!("{TOKEN}:alice:users:/home"), "more than three fields"),
            (&format!("{TOKEN}:alice:{}", "x".repeat(TOKEN_LINE_SIZE_MAX)), "more than 8192 bytes"),
            ("sha256=12:alice", "64 hexadecimal digits"),
            (&format!("sha256=+{}:alice", &TOKEN_HASH[1..]), "64 hexadecimal digits"),
            (&format!("sha256={TOKEN_HASH}0:alice"), "64 hexadecimal digits"),
        ] {
            let problems = Tokens::parse(&format!("#\n{line}\n{TOKEN}:bob")).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with("line 2: "), "{line}: {problems:?}");
            assert!(problems[0].contains(part), "{line}: {problems:?}");
            assert!(!problems[0].contains(TOKEN) && !problems[0].contains("token-"), "no token is shown: {problems:?}");
        }
        let many: String = (0..=TOKENS_MAX).map(|number| format!("{number:032}:user\n")).collect();
        let problems = Tokens::parse(&many).unwrap_err();
        assert_eq!(problems, ["line 10001: more than 10000 tokens"]);
        let problems = Tokens::parse(&"short\n".repeat(100)).unwrap_err();
        assert_eq!((problems.len(), problems.last().unwrap().as_str()), (PROBLEMS_MAX + 1, "and possibly more"));
    }

    #[test]
    fn hashes_of_short_texts() {
        let row = |text: &str, user: &str| {
            let digits: String = hash(text).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256={digits}:{user}\n")
        };
        let texts = ["", "1", &TOKEN[..TOKEN_SIZE_MIN - 1], &TOKEN[..TOKEN_SIZE_MIN]];
        let (tokens, _) = Tokens::parse(&texts.map(|text| row(text, "bob")).concat()).unwrap();
        assert_eq!(texts.map(|text| tokens.find(text).is_some()), [false, false, false, true]);
    }

    #[test]
    fn a_token_of_the_configuration() {
        let groups = ["users".to_owned()];
        for token in [TOKEN, &format!("sha256={TOKEN_HASH}")] {
            assert_eq!(Tokens::of_one(token, "alice", &groups).unwrap().find(TOKEN), user("alice", &["users"]));
        }
        assert!(Tokens::of_one("short", "alice", &groups).is_err());
        assert!(Tokens::of_one(TOKEN, "", &groups).is_err());
    }
}
