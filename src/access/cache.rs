//! Admissions that are remembered for a while, so that a page with twenty files takes one verification.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use auth_wire::{Credential, Verdict};
use ring::hmac;
use ring::rand::SystemRandom;

use super::ask::{Ask, Varies};
use crate::limits;

/// The remembered admissions, but for those by a UNIX server, which may revoke them: uakari-auth remembers those. Refusals
/// are not remembered. No credential is kept: a key is an HMAC of all that a decision depends on, with a random key of this
/// process.
pub(crate) struct Verdicts {
    key: Option<hmac::Key>,
    entries: HashMap<[u8; 32], Entry>,
    /// The keys in the order of their insertion, each with the number of its entry: a newer entry has another one.
    order: VecDeque<([u8; 32], u64)>,
    number: u64,
}

struct Entry {
    number: u64,
    generation: u32,
    /// When it was remembered, in milliseconds.
    since_ms: u64,
    /// How long the question that was answered lets it be remembered, in milliseconds.
    cache_ms: u64,
    /// Until when the admission lasts, as Unix time in milliseconds. None: for ever.
    expires_ms: Option<u64>,
    verdict: Verdict,
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verdicts({})", self.entries.len())
    }
}

impl Default for Verdicts {
    /// Without random numbers nothing is remembered.
    fn default() -> Verdicts {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok();
        Verdicts { key, entries: HashMap::new(), order: VecDeque::new(), number: 0 }
    }
}

impl Verdicts {
    /// The remembered admission of such a question. `now_ms` as in `put`; `unix_ms` is the wall clock.
    pub(crate) fn get(&self, ask: &Ask, now_ms: u64, unix_ms: u64) -> Option<&Verdict> {
        if !ask.may_be_remembered() || self.entries.is_empty() {
            return None;
        }
        let entry = self.entries.get(&self.digest(ask)?)?;
        let age_ms = now_ms.saturating_sub(entry.since_ms);
        // Servers with the same rule may let admissions be remembered for different times.
        let has_aged = age_ms >= entry.cache_ms.min(ask.cache_ms);
        let is_over = has_aged || entry.expires_ms.is_some_and(|expires_ms| expires_ms <= unix_ms);
        // A recheck may use that of another connection, which shows the same: its own is older.
        let is_too_old = ask.is_recheck && 2 * age_ms >= ask.recheck_ms;
        (!is_over && !is_too_old).then_some(&entry.verdict)
    }

    /// Remembers an admission, if it may be. The oldest one is forgotten if there are too many. A refusal ends what was
    /// remembered.
    pub(crate) fn put(&mut self, ask: &Ask, verdict: &Verdict, now_ms: u64) {
        let Some(digest) = self.digest(ask) else { return };
        let until_ms = match verdict {
            Verdict::Allow { until_ms, .. } => until_ms,
            // A recheck may find that what was admitted before is not any more.
            Verdict::Deny | Verdict::Refused { .. } | Verdict::Forbidden => return drop(self.entries.remove(&digest)),
            Verdict::Limited { .. } | Verdict::Unavailable { .. } => return,
        };
        if !ask.may_be_remembered() {
            return;
        }
        self.number += 1;
        let entry = Entry {
            number: self.number,
            generation: ask.question.generation,
            since_ms: now_ms,
            cache_ms: ask.cache_ms,
            expires_ms: *until_ms,
            verdict: verdict.clone(),
        };
        self.entries.insert(digest, entry);
        self.order.push_back((digest, self.number));
        while self.entries.len() > limits::AUTH_CACHE_MAX || self.order.len() > 2 * limits::AUTH_CACHE_MAX {
            let Some((digest, number)) = self.order.pop_front() else { break };
            if self.entries.get(&digest).is_some_and(|entry| entry.number == number) {
                self.entries.remove(&digest);
            }
        }
    }

    /// Forgets the admissions by older rules than those of this generation.
    pub(crate) fn forget_before(&mut self, generation: u32) {
        self.entries.retain(|_, entry| entry.generation >= generation);
    }

    /// An HMAC of all that the decision depends on: each text with its length in front, so that no two questions are
    /// the same bytes.
    fn digest(&self, ask: &Ask) -> Option<[u8; 32]> {
        let question = &ask.question;
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        let mut add = |text: &str| {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        };
        add(&question.generation.to_string());
        add(&question.rule.to_string());
        match &question.credential {
            Credential::None => add("none"),
            Credential::Password { user, password } => {
                ["password", user, password.reveal()].into_iter().for_each(&mut add);
            }
            Credential::Token(token) => ["token", token.reveal()].into_iter().for_each(&mut add),
            Credential::Digest(_) => return None,
        }
        if ask.varies != Varies::No {
            [&question.method, &question.path].into_iter().for_each(|text| add(text));
        }
        if ask.varies == Varies::All {
            [&question.query, &question.host, &question.address].into_iter().for_each(|text| add(text));
            question.headers.iter().for_each(|(name, value)| {
                add(name);
                add(value);
            });
        }
        context.sign().as_ref().try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use auth_wire::{Digest, DigestAlgorithm, Question};

    use super::*;

    fn ask(user: &str, password: &str) -> Ask {
        let credential = Credential::Password { user: user.to_owned(), password: password.into() };
        let texts = ["GET", "h", "/a", "q"].map(str::to_owned);
        let [method, host, path, query] = texts;
        let address = "192.0.2.1".to_owned();
        let question =
            Question { generation: 1, rule: 2, credential, method, host, path, query, address, ..Question::default() };
        Ask { question, cache_ms: 1_000, recheck_ms: 0, server: None, varies: Varies::No, is_recheck: false }
    }

    fn allow(user: &str, until_ms: Option<u64>) -> Verdict {
        Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms, headers: Vec::new() }
    }

    #[test]
    fn admissions_are_remembered_for_their_time() {
        let (mut verdicts, ask) = (Verdicts::default(), ask("ann", "secret"));
        assert_eq!(verdicts.get(&ask, 0, 0), None);
        for verdict in [
            Verdict::Deny,
            Verdict::Refused { reason: String::new() },
            Verdict::Forbidden,
            Verdict::Limited { wait_ms: 1 },
        ] {
            verdicts.put(&ask, &verdict, 0);
            assert_eq!(verdicts.get(&ask, 0, 0), None, "refusals are not");
        }
        verdicts.put(&ask, &allow("ann", Some(500)), 100);
        assert_eq!(verdicts.get(&ask, 1_099, 499), Some(&allow("ann", Some(500))));
        assert_eq!(verdicts.get(&ask, 1_100, 499), None, "too long ago");
        assert_eq!(verdicts.get(&ask, 100, 500), None, "the permission has ended");
        let recheck = Ask { is_recheck: true, recheck_ms: 400, ..ask.clone() };
        assert_eq!(verdicts.get(&recheck, 299, 0), Some(&allow("ann", Some(500))));
        assert_eq!(verdicts.get(&recheck, 300, 0), None, "too old for a recheck");
        let mut other = Verdicts::default();
        other.put(&Ask { cache_ms: 0, ..ask.clone() }, &allow("ann", None), 0);
        assert_eq!(other.get(&ask, 0, 0), None);
        assert!(!format!("{ask:?} {verdicts:?}").contains("secret"));
    }

    /// Equal rules of two servers have one number, whatever their times.
    #[test]
    fn the_shorter_time_counts() {
        for (put_ms, get_ms, recheck_ms, age_ms, is_found) in [
            (60_000, 1_000, 0, 999, true),
            (60_000, 1_000, 0, 1_000, false),
            (1_000, 60_000, 0, 999, true),
            (1_000, 60_000, 0, 1_000, false),
            (60_000, 1_000, 4_000, 999, true),
            (1_000, 60_000, 1_000, 499, true),
            (1_000, 60_000, 1_000, 500, false),
            (60_000, 50_000, 10_000, 4_999, true),
            (60_000, 50_000, 10_000, 5_000, false),
        ] {
            let (mut verdicts, ask) = (Verdicts::default(), ask("ann", "secret"));
            verdicts.put(&Ask { cache_ms: put_ms, ..ask.clone() }, &allow("ann", None), 7);
            let later = Ask { cache_ms: get_ms, recheck_ms, is_recheck: recheck_ms > 0, ..ask };
            let found = verdicts.get(&later, 7 + age_ms, 0).is_some();
            assert_eq!(found, is_found, "{put_ms} {get_ms} {recheck_ms} {age_ms}");
        }
    }

    #[test]
    fn a_refusal_ends_an_admission() {
        let ask = ask("ann", "secret");
        let recheck = Ask { is_recheck: true, ..ask.clone() };
        let unavailable = Verdict::Unavailable { sentence: String::new() };
        for (verdict, is_kept) in [
            (Verdict::Deny, false),
            (Verdict::Forbidden, false),
            (Verdict::Limited { wait_ms: 1 }, true),
            (unavailable, true),
        ] {
            let mut verdicts = Verdicts::default();
            verdicts.put(&ask, &allow("ann", None), 0);
            verdicts.put(&recheck, &verdict, 1);
            assert_eq!(verdicts.get(&ask, 2, 0).is_some(), is_kept, "{verdict:?}");
        }
    }

    #[test]
    fn what_decisions_depend_on() {
        type Change = fn(&mut Question);
        let changes: [(&str, Change, [bool; 3]); 10] = [
            ("generation", |question| question.generation = 9, [true, true, true]),
            ("rule", |question| question.rule = 9, [true, true, true]),
            ("password", |question| question.credential = ask("ann", "x").question.credential, [true, true, true]),
            ("moved", |question| question.credential = ask("anns", "ecret").question.credential, [true, true, true]),
            ("kind", |question| question.credential = Credential::Token("secret".into()), [true, true, true]),
            ("method", |question| question.method = "HEAD".to_owned(), [false, true, true]),
            ("path", |question| question.path = "/b".to_owned(), [false, true, true]),
            ("query", |question| question.query = "r".to_owned(), [false, false, true]),
            ("address", |question| question.address = "192.0.2.2".to_owned(), [false, false, true]),
            ("field", |question| question.headers.push(("a".to_owned(), String::new())), [false, false, true]),
        ];
        for (what, change, are_other) in changes {
            for (varies, is_other) in [Varies::No, Varies::Path, Varies::All].into_iter().zip(are_other) {
                let mut verdicts = Verdicts::default();
                let mut ask = Ask { varies, ..ask("ann", "secret") };
                verdicts.put(&ask, &allow("ann", None), 0);
                change(&mut ask.question);
                assert_eq!(verdicts.get(&ask, 0, 0).is_none(), is_other, "{what} {varies:?}");
            }
        }
    }

    #[test]
    fn a_response_of_digest_is_not_remembered() {
        let text = String::new;
        let mut ask = ask("ann", "secret");
        ask.question.credential = Credential::Digest(Digest {
            user: "ann".to_owned(),
            realm: text(),
            nonce: text(),
            uri: text(),
            nc: text(),
            cnonce: text(),
            algorithm: DigestAlgorithm::Md5,
            response: "".into(),
        });
        let mut verdicts = Verdicts::default();
        verdicts.put(&ask, &allow("ann", None), 0);
        assert_eq!(verdicts.get(&ask, 0, 0), None);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut verdicts = Verdicts::default();
        let of = |i: usize| ask("ann", &i.to_string());
        for i in 0..limits::AUTH_CACHE_MAX {
            verdicts.put(&of(i), &allow("ann", None), 0);
        }
        // Remembered again, the first one is no longer the oldest.
        verdicts.put(&of(0), &allow("ann", None), 0);
        verdicts.put(&of(limits::AUTH_CACHE_MAX), &allow("ann", None), 0);
        assert!(verdicts.get(&of(1), 0, 0).is_none() && verdicts.get(&of(0), 0, 0).is_some());
        for _ in 0..3 * limits::AUTH_CACHE_MAX {
            verdicts.put(&of(0), &allow("ann", None), 0);
        }
        assert!(verdicts.order.len() <= 2 * limits::AUTH_CACHE_MAX && verdicts.get(&of(0), 0, 0).is_some());
    }

    #[test]
    fn reloads() {
        let (mut verdicts, ask) = (Verdicts::default(), ask("ann", "a"));
        verdicts.put(&ask, &allow("ann", None), 0);
        verdicts.forget_before(1);
        assert!(verdicts.get(&ask, 0, 0).is_some());
        verdicts.forget_before(2);
        assert!(verdicts.get(&ask, 0, 0).is_none());
    }
}
