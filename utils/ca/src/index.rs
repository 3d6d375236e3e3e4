//! The index: every certificate that was signed, and the tokens that are outstanding. It is one text file, so that it is
//! replaced at once.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::certificate::{Serial, from_hex, hex};
use crate::limits::{CERTIFICATES_MAX, INDEX_SIZE_MAX, TOKENS_MAX};
use crate::name::{Host, Name};

/// The first line.
const HEAD: &str = "uakari-ca index 1";

/// What a certificate is for: its extended key usage (RFC 5280 section 4.2.1.12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// clientAuth.
    Client,
    /// serverAuth.
    Server,
    /// Both of them: a server that is a client of others.
    Peer,
}

impl Kind {
    /// Whether servers present it.
    pub fn is_server(self) -> bool {
        self != Kind::Client
    }

    /// Whether clients present it.
    pub(crate) fn is_client(self) -> bool {
        self != Kind::Server
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Client => "client",
            Kind::Server => "server",
            Kind::Peer => "peer",
        })
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Kind, ()> {
        [Kind::Client, Kind::Server, Kind::Peer].into_iter().find(|kind| kind.to_string() == text).ok_or(())
    }
}

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) serial: Serial,
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    pub(crate) not_after: OffsetDateTime,
    /// None: not revoked.
    pub(crate) revoked: Option<OffsetDateTime>,
}

impl Entry {
    /// Neither revoked nor expired.
    pub(crate) fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.revoked.is_none() && now <= self.not_after
    }
}

/// A token that was not used. The index does not have the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenEntry {
    /// SHA-256 of the token.
    pub(crate) hash: [u8; 32],
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    pub(crate) expires: OffsetDateTime,
    /// What the certificate is for.
    pub(crate) hosts: Vec<Host>,
}

/// The content of the index.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Index {
    /// The number of the newest CRL.
    pub(crate) crl_number: u64,
    /// Fingerprint of the authority's certificate in ca.p12 and ca.jks. None: they are to be written.
    pub(crate) exported: Option<[u8; 32]>,
    /// Password of ca.p12 and ca.jks. It protects a certificate, which is public.
    pub(crate) storepass: String,
    pub(crate) certificates: Vec<Entry>,
    /// Serial numbers that only a CRL knew, since the index was restored from a backup, and times of revocation.
    pub(crate) revoked: Vec<(Serial, OffsetDateTime)>,
    pub(crate) tokens: Vec<TokenEntry>,
}

impl Index {
    /// Parses the file. The error is the end of a sentence that begins with the file's name.
    pub fn parse(bytes: &[u8]) -> Result<Index, String> {
        if bytes.len() > INDEX_SIZE_MAX {
            return Err(format!("has more than {INDEX_SIZE_MAX} bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is no text".to_owned())?;
        let Some(text) = text.strip_suffix('\n') else { return Err("ends within a line".to_owned()) };
        let mut lines = text.split('\n').enumerate();
        if lines.next().is_none_or(|(_, head)| head != HEAD) {
            return Err(format!("does not begin with the line {HEAD:?}"));
        }
        let mut index = Index::default();
        for (number, line) in lines {
            let words: Vec<&str> = line.split(' ').collect();
            index.take(&words).ok_or_else(|| format!("has a line {} that is not understood", number + 1))?;
        }
        if index.storepass.is_empty() {
            return Err("lacks the line storepass".to_owned());
        }
        if index.certificates.len() > CERTIFICATES_MAX
            || index.revoked.len() > CERTIFICATES_MAX
            || index.tokens.len() > TOKENS_MAX
        {
            return Err("has too many lines".to_owned());
        }
        Ok(index)
    }

    /// Takes the words of a line. None: they are wrong.
    fn take(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["crl", number] => self.crl_number = number.parse().ok()?,
            ["exported", fingerprint] => self.exported = Some(from_hex(fingerprint)?),
            ["storepass", password] => self.storepass = password.to_owned(),
            ["certificate", serial, kind, name, not_after, ref state @ ..] => {
                let revoked = match *state {
                    ["valid"] => None,
                    ["revoked", at] => Some(parse_time(at)?),
                    _ => return None,
                };
                self.certificates.push(Entry {
                    serial: serial.parse().ok()?,
                    kind: kind.parse().ok()?,
                    name: Name::new(name).ok()?,
                    not_after: parse_time(not_after)?,
                    revoked,
                });
            }
            ["revoked", serial, at] => self.revoked.push((serial.parse().ok()?, parse_time(at)?)),
            ["token", hash, kind, name, expires, ref hosts @ ..] => self.tokens.push(TokenEntry {
                hash: from_hex(hash)?,
                kind: kind.parse().ok()?,
                name: Name::new(name).ok()?,
                expires: parse_time(expires)?,
                hosts: hosts.iter().map(|host| Host::new(host).ok()).collect::<Option<_>>()?,
            }),
            _ => return None,
        }
        Some(())
    }

    /// The content of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\ncrl {}\nstorepass {}\n", self.crl_number, self.storepass);
        // Writing to a String cannot fail.
        if let Some(fingerprint) = &self.exported {
            let _ = writeln!(text, "exported {}", hex(fingerprint));
        }
        for Entry { serial, kind, name, not_after, revoked } in &self.certificates {
            let state = revoked.map_or("valid".to_owned(), |at| format!("revoked {}", format_time(at)));
            let _ = writeln!(text, "certificate {serial} {kind} {name} {} {state}", format_time(*not_after));
        }
        for (serial, at) in &self.revoked {
            let _ = writeln!(text, "revoked {serial} {}", format_time(*at));
        }
        for TokenEntry { hash, kind, name, expires, hosts } in &self.tokens {
            let _ = write!(text, "token {} {kind} {name} {}", hex(hash), format_time(*expires));
            for host in hosts {
                let _ = write!(text, " {host}");
            }
            text.push('\n');
        }
        text
    }

    /// The certificate with this serial number.
    pub(crate) fn find(&self, serial: Serial) -> Option<&Entry> {
        self.certificates.iter().find(|entry| entry.serial == serial)
    }

    /// All serial numbers that are revoked, with the times.
    pub(crate) fn all_revoked(&self) -> impl Iterator<Item = (Serial, OffsetDateTime)> + '_ {
        let known = self.certificates.iter().filter_map(|entry| Some((entry.serial, entry.revoked?)));
        known.chain(self.revoked.iter().copied())
    }

    /// Whether this serial number is one that only a revocation list knew.
    pub(crate) fn has_revoked(&self, serial: Serial) -> bool {
        self.revoked.iter().any(|(revoked, _)| *revoked == serial)
    }

    /// Takes over revocations. False: all of them were there.
    pub(crate) fn take_revoked(&mut self, list: &[(Serial, OffsetDateTime)]) -> bool {
        let there: HashSet<Serial> = self.all_revoked().map(|(serial, _)| serial).collect();
        let mut new: HashMap<Serial, OffsetDateTime> =
            list.iter().filter(|(serial, _)| !there.contains(serial)).copied().collect();
        let is_changed = !new.is_empty();
        for entry in &mut self.certificates {
            if let Some(at) = new.remove(&entry.serial) {
                entry.revoked = Some(at);
            }
        }
        // In the order of the list.
        self.revoked.extend(list.iter().filter(|(serial, _)| new.contains_key(serial)));
        is_changed
    }

    /// The newest valid certificate with this name.
    pub(crate) fn valid_with_name(&self, name: &Name, now: OffsetDateTime) -> Option<&Entry> {
        self.certificates.iter().rev().find(|entry| entry.name == *name && entry.is_valid(now))
    }

    /// Removes the token, and expired ones. None: it was not among them.
    pub(crate) fn use_token(&mut self, token: &str, now: OffsetDateTime) -> Option<TokenEntry> {
        self.tokens.retain(|entry| now <= entry.expires);
        let hash = hash_of(token);
        let at = self.tokens.iter().position(|entry| entry.hash == hash)?;
        Some(self.tokens.remove(at))
    }
}

/// The SHA-256 hash of a token.
pub(crate) fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Of the form that `format_time` writes alone.
fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().filter(|time| format_time(*time) == text)
}

/// As in RFC 3339, in whole seconds.
pub(crate) fn format_time(time: OffsetDateTime) -> String {
    let seconds = time.replace_nanosecond(0).unwrap_or(time);
    // A year beyond 9999 has no such form, and cannot be reached.
    seconds.format(&Rfc3339).unwrap_or_default()
}
