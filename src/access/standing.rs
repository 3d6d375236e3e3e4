//! How long an open WebSocket stays admitted: until its permission ends, and as long as its credential is valid.

use auth_wire::Verdict;

use super::ask::Ask;
use crate::limits::{AUTH_GRACE_MS, AUTH_LIMITED_MS, AUTH_MS, AUTH_RETRY_MS};
use crate::types::Moment;

/// How long a client stays admitted.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// When the permission ends. None: never.
    until: Option<Moment>,
    /// None: the credential is not verified again.
    recheck: Option<Recheck>,
}

/// The verification of a credential while the WebSocket is open.
#[derive(Debug)]
struct Recheck {
    ask: Ask,
    /// The user that was admitted.
    user: Box<str>,
    /// When it is asked next, or when the answer is given up.
    next: Moment,
    /// The answer is awaited.
    is_asked: bool,
    /// Since when there was no decision. None: the last one has admitted the client.
    in_doubt: Option<Moment>,
    /// Since when there were too many attempts. None: the last answer was another one.
    limited: Option<Moment>,
    /// The state of `spread`.
    seed: u64,
}

/// What is to be done about an admission.
#[derive(Debug)]
pub(crate) enum Lapse {
    /// The permission has ended.
    Expired,
    /// The credential is no longer valid, or that of another user.
    Revoked,
    /// For too long the credential could not be verified.
    Doubtful,
    /// Ask this.
    Ask(Box<Ask>),
    /// The answer is given up.
    GiveUp,
}

impl Standing {
    /// The standing of a client that this question has admitted, as this user, until this Unix time in milliseconds. None:
    /// it stays admitted for ever. `seed` differs between clients, which are then not asked about at the same time.
    pub(crate) fn new(
        ask: Ask,
        user: &str,
        until_ms: Option<u64>,
        (now_ms, unix_ms): (u64, u64),
        mut seed: u64,
    ) -> Option<Box<Standing>> {
        let until = until(until_ms, (now_ms, unix_ms));
        let recheck = (ask.recheck_ms > 0).then(|| Recheck {
            next: Moment::at(now_ms + spread(ask.recheck_ms, &mut seed)),
            ask: Ask { is_recheck: true, ..ask },
            user: user.into(),
            is_asked: false,
            in_doubt: None,
            limited: None,
            seed,
        });
        (until.is_some() || recheck.is_some()).then(|| Box::new(Standing { until, recheck }))
    }

    /// When it is to be looked at, in milliseconds.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.until.into_iter().chain(self.recheck.as_ref().map(|recheck| recheck.next)).map(Moment::ms).min()
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_asked(&self) -> bool {
        self.recheck.as_ref().is_some_and(|recheck| recheck.is_asked)
    }

    /// What is to be done now. None: nothing.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<Lapse> {
        if self.until.is_some_and(|until| until.ms() <= now_ms) {
            return Some(Lapse::Expired);
        }
        let recheck = self.recheck.as_mut().filter(|recheck| recheck.next.ms() <= now_ms)?;
        if recheck.is_asked {
            return Some(recheck.doubt(now_ms).unwrap_or(Lapse::GiveUp));
        }
        (recheck.is_asked, recheck.next) = (true, Moment::at(now_ms + AUTH_MS));
        Some(Lapse::Ask(Box::new(recheck.ask.clone())))
    }

    /// Takes the answer to the question.
    pub(crate) fn answered(&mut self, verdict: &Verdict, (now_ms, unix_ms): (u64, u64)) -> Option<Lapse> {
        let recheck = self.recheck.as_mut().filter(|recheck| recheck.is_asked)?;
        match verdict {
            Verdict::Allow { user, .. } if **user != *recheck.user => Some(Lapse::Revoked),
            Verdict::Allow { until_ms, .. } => {
                (recheck.is_asked, recheck.in_doubt, recheck.limited) = (false, None, None);
                recheck.next = Moment::at(now_ms + spread(recheck.ask.recheck_ms, &mut recheck.seed));
                self.until = until(*until_ms, (now_ms, unix_ms));
                None
            }
            Verdict::Deny | Verdict::Refused { .. } | Verdict::Forbidden => Some(Lapse::Revoked),
            Verdict::Limited { .. } => recheck.put_off(now_ms),
            Verdict::Unavailable { .. } => recheck.doubt(now_ms),
        }
    }

    /// Heap bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Standing>() + self.recheck.as_ref().map_or(0, |recheck| recheck.ask.size() + recheck.user.len())
    }
}

impl Recheck {
    /// There is no decision. It is asked again soon.
    fn doubt(&mut self, now_ms: u64) -> Option<Lapse> {
        let since = *self.in_doubt.get_or_insert(Moment::at(now_ms));
        self.limited = None;
        self.retry(now_ms);
        (now_ms >= since.ms() + AUTH_GRACE_MS).then_some(Lapse::Doubtful)
    }

    /// There were too many attempts, which says nothing about this client. It is asked again soon.
    fn put_off(&mut self, now_ms: u64) -> Option<Lapse> {
        let since = *self.limited.get_or_insert(Moment::at(now_ms));
        self.retry(now_ms);
        (now_ms >= since.ms() + AUTH_LIMITED_MS).then_some(Lapse::Doubtful)
    }

    fn retry(&mut self, now_ms: u64) {
        (self.is_asked, self.next) = (false, Moment::at(now_ms + spread(AUTH_RETRY_MS, &mut self.seed)));
    }
}

/// A time that is up to a fifth shorter or longer, so that many clients are not asked about at once after a restart.
fn spread(ms: u64, seed: &mut u64) -> u64 {
    // The multiplier and the increment are those of Knuth's MMIX.
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ms - ms / 5 + 2 * (ms / 5) * (*seed >> 56) / 255
}

/// A Unix time as a moment; one that has passed is now.
fn until(until_ms: Option<u64>, (now_ms, unix_ms): (u64, u64)) -> Option<Moment> {
    // A moment has 48 bits: later ones are as good as never.
    let left_ms = until_ms?.saturating_sub(unix_ms);
    (left_ms < 1 << 46).then(|| Moment::at(now_ms + left_ms))
}

#[cfg(test)]
mod tests {
    use auth_wire::Question;

    use super::super::ask::Varies;
    use super::*;

    const TIME: (u64, u64) = (1_000, 5_000_000);

    fn ask(recheck_ms: u64) -> Ask {
        Ask {
            question: Question::default(),
            cache_ms: 9,
            recheck_ms,
            server: None,
            varies: Varies::No,
            is_recheck: false,
        }
    }

    fn allow(until_ms: Option<u64>) -> Verdict {
        Verdict::Allow { user: "ann".to_owned(), groups: Vec::new(), until_ms, headers: Vec::new() }
    }

    #[test]
    fn a_permission_ends() {
        assert!(Standing::new(ask(0), "ann", None, TIME, 0).is_none(), "nothing has to be kept");
        assert!(Standing::new(ask(0), "ann", Some(u64::MAX), TIME, 0).is_none());
        for (until_ms, end_ms) in [(5_000_500, 1_500), (4_000_000, 1_000)] {
            let mut standing = Standing::new(ask(0), "ann", Some(until_ms), TIME, 0).unwrap();
            assert_eq!(standing.next_ms(), Some(end_ms));
            assert!(end_ms == 1_000 || standing.take_due(end_ms - 1).is_none());
            assert!(matches!(standing.take_due(end_ms), Some(Lapse::Expired)), "{until_ms}");
        }
    }

    #[test]
    fn a_credential_is_verified_again() {
        let mut standing = Standing::new(ask(100), "ann", Some(5_000_500), TIME, 0).unwrap();
        let next_ms = |standing: &Standing| standing.next_ms().unwrap();
        assert!((1_080..=1_120).contains(&next_ms(&standing)));
        assert!(standing.answered(&Verdict::Deny, TIME).is_none(), "it was not asked");
        let Some(Lapse::Ask(asked)) = standing.take_due(next_ms(&standing)) else { panic!() };
        assert!(asked.is_recheck && standing.is_asked() && standing.take_due(1_120).is_none());
        assert!(standing.answered(&allow(Some(5_000_900)), (1_150, 5_000_150)).is_none() && !standing.is_asked());
        assert!((1_230..=1_270).contains(&next_ms(&standing)));
        assert!(standing.answered(&Verdict::Deny, TIME).is_none(), "a late answer");
        assert!(matches!(standing.take_due(1_300), Some(Lapse::Ask(_))));
        for verdict in [Verdict::Deny, Verdict::Refused { reason: String::new() }, Verdict::Forbidden] {
            assert!(matches!(standing.answered(&verdict, (1_300, 5_000_300)), Some(Lapse::Revoked)));
        }
        assert!(matches!(standing.take_due(1_900), Some(Lapse::Expired)), "the new end");
    }

    #[test]
    fn doubts_last_for_a_while() {
        for is_answered in [true, false] {
            let mut standing = Standing::new(ask(100), "ann", None, (0, 0), 0).unwrap();
            let mut now_ms = standing.next_ms().unwrap();
            let (began_ms, mut asked) = (now_ms, 0);
            let ended_ms = loop {
                assert_eq!(standing.next_ms(), Some(now_ms));
                let Some(Lapse::Ask(_)) = standing.take_due(now_ms) else { panic!("{now_ms}") };
                asked += 1;
                let lapse = match is_answered {
                    true => standing.answered(&Verdict::Unavailable { sentence: String::new() }, (now_ms, 0)),
                    false => {
                        now_ms = standing.next_ms().unwrap();
                        standing.take_due(now_ms)
                    }
                };
                match lapse {
                    Some(Lapse::Doubtful) => break now_ms,
                    Some(Lapse::GiveUp) => assert!(!is_answered),
                    other => assert!(is_answered && other.is_none(), "{other:?}"),
                }
                now_ms = standing.next_ms().unwrap();
            };
            let first_ms = if is_answered { began_ms } else { began_ms + AUTH_MS };
            assert!(ended_ms >= first_ms + AUTH_GRACE_MS && asked > 5, "{ended_ms} {asked}");
            assert!(ended_ms < first_ms + AUTH_GRACE_MS + AUTH_MS + 2 * AUTH_RETRY_MS, "{ended_ms}");
        }
        let mut standing = Standing::new(ask(100), "ann", None, (0, 0), 0).unwrap();
        let unclear = Verdict::Unavailable { sentence: String::new() };
        for now_ms in [200, AUTH_GRACE_MS, 2 * AUTH_GRACE_MS] {
            assert!(matches!(standing.take_due(now_ms), Some(Lapse::Ask(_))));
            assert!(standing.answered(&unclear, (now_ms, 0)).is_none(), "{now_ms}");
            let later_ms = standing.next_ms().unwrap();
            assert!(matches!(standing.take_due(later_ms), Some(Lapse::Ask(_))));
            assert!(standing.answered(&allow(None), (later_ms, 0)).is_none(), "the doubt is over");
        }
    }

    /// Too many attempts, which others may have made, do not end what is open; but not for ever, since the client itself
    /// may have made them.
    #[test]
    fn too_many_attempts_are_no_doubt() {
        let mut standing = Standing::new(ask(100), "ann", None, (0, 0), 0).unwrap();
        let first_ms = standing.next_ms().unwrap();
        let ended_ms = loop {
            let now_ms = standing.next_ms().unwrap();
            assert!(matches!(standing.take_due(now_ms), Some(Lapse::Ask(_))));
            match standing.answered(&Verdict::Limited { wait_ms: 1 }, (now_ms, 0)) {
                None => {}
                Some(Lapse::Doubtful) => break now_ms,
                other => panic!("{other:?}"),
            }
        };
        let lasted_ms = ended_ms - first_ms;
        assert!((AUTH_LIMITED_MS..AUTH_LIMITED_MS + 2 * AUTH_RETRY_MS).contains(&lasted_ms), "{lasted_ms}");
    }

    #[test]
    fn clients_are_not_asked_about_at_once() {
        let next_ms =
            |seed: u64| Standing::new(ask(1_000), "ann", None, (0, 0), seed << 50).unwrap().next_ms().unwrap();
        let mut all: Vec<u64> = (0..1_000).map(next_ms).collect();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 100 && all[0] >= 800 && *all.last().unwrap() <= 1_200, "{all:?}");
        let mut seed = 0;
        assert!((0..1_000).all(|_| (800..=1_200).contains(&spread(1_000, &mut seed)) && spread(0, &mut seed) == 0));
    }

    #[test]
    fn the_user_stays_the_same() {
        for (user, is_same) in [("ann", true), ("bob", false), ("", false), ("Ann", false)] {
            let mut standing = Standing::new(ask(100), "ann", None, (0, 0), 0).unwrap();
            standing.take_due(120);
            let user = user.to_owned();
            let verdict = Verdict::Allow { user, groups: Vec::new(), until_ms: None, headers: Vec::new() };
            let lapse = standing.answered(&verdict, (120, 0));
            assert_eq!(lapse.is_none(), is_same, "{verdict:?}");
            assert!(is_same || matches!(lapse, Some(Lapse::Revoked)));
        }
    }
}
