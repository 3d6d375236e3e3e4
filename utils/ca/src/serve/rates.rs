//! Rate limits, without a clock: of requests, of refused enrolments, and of signatures. Times are milliseconds from any
//! start.

use std::collections::HashMap;

use super::limits::{
    ADDRESSES_MAX, FORGET_MS, RATE_MS, REQUESTS_MAX, SIGNATURES_MAX, SIGNATURES_OF_ADDRESS_MAX, WAIT_MS_MAX,
    WAIT_MS_MIN, WRONG_TOKENS_MAX,
};

/// The connections that are counted together.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Party {
    /// All connections from an address, or from one /64 of IPv6.
    Address(String),
    /// One connection, as its address is unknown.
    Connection(u64),
}

/// What a request costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// No signature.
    Request,
    /// A signature.
    Signature,
    /// A signature, and an attempt with a token.
    Enrolment,
}

/// How an admitted request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was fulfilled.
    Done,
    /// It was refused: the client is at fault.
    Refused,
    /// The authority failed, or had no time.
    Failed,
}

/// A rate: the time at which all events so far would have been permitted one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rate(u64);

impl Rate {
    /// Milliseconds until another event is permitted, of `most` in `RATE_MS`.
    fn wait_ms(self, most: u64, now_ms: u64) -> u64 {
        (self.0.max(now_ms) + RATE_MS / most).saturating_sub(now_ms + RATE_MS)
    }

    fn spend(&mut self, most: u64, now_ms: u64) {
        self.0 = self.0.max(now_ms) + RATE_MS / most;
    }

    fn give_back(&mut self, most: u64) {
        self.0 = self.0.saturating_sub(RATE_MS / most);
    }

    /// Counts an event if it is permitted.
    pub(crate) fn take(&mut self, most: u64, now_ms: u64) -> bool {
        let is_permitted = self.wait_ms(most, now_ms) == 0;
        if is_permitted {
            self.spend(most, now_ms);
        }
        is_permitted
    }
}

/// Refused enrolments, and the time of the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Failures {
    count: u32,
    at_ms: u64,
    /// Enrolments in progress, which count as refused meanwhile, and the time of the last one.
    pending: u32,
    pending_at_ms: u64,
}

impl Failures {
    fn is_forgotten(self, now_ms: u64) -> bool {
        self.count == 0 || now_ms.saturating_sub(self.at_ms) >= FORGET_MS
    }

    fn wait_ms(self, now_ms: u64) -> u64 {
        let count = self.count.saturating_add(self.pending);
        let at_ms = if self.pending > 0 { self.pending_at_ms } else { self.at_ms };
        let Some(doublings) = count.checked_sub(WRONG_TOKENS_MAX) else { return 0 };
        let wait_ms = WAIT_MS_MIN.checked_shl(doublings.min(30)).unwrap_or(WAIT_MS_MAX).min(WAIT_MS_MAX);
        (at_ms + wait_ms).saturating_sub(now_ms)
    }

    fn begin(&mut self, now_ms: u64) {
        (self.pending, self.pending_at_ms) = (self.pending.saturating_add(1), now_ms);
    }

    fn end(&mut self, end: End) {
        self.pending = self.pending.saturating_sub(1);
        if end == End::Refused {
            (self.count, self.at_ms) = (self.count.saturating_add(1), self.pending_at_ms);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    requests: Rate,
    signatures: Rate,
    failures: Failures,
}

impl Standing {
    /// Whether it says the same as a new one.
    fn is_neutral(&self, now_ms: u64) -> bool {
        self.requests.0 <= now_ms
            && self.signatures.0 <= now_ms
            && self.failures.pending == 0
            && self.failures.is_forgotten(now_ms)
    }
}

/// The rates of all parties.
#[derive(Debug, Default)]
pub struct Rates {
    standings: HashMap<Party, Standing>,
    signatures: Rate,
}

impl Rates {
    /// Counts a request, its signature and its attempt. The error is the time to wait in milliseconds. Simultaneous
    /// attempts are limited too, since each counts as refused until [`Rates::settle`].
    pub fn admit(&mut self, party: &Party, cost: Cost, now_ms: u64) -> Result<(), u64> {
        if !self.standings.contains_key(party) {
            self.make_room(now_ms);
        }
        let standing = self.standings.entry(party.clone()).or_default();
        if standing.failures.is_forgotten(now_ms) {
            (standing.failures.count, standing.failures.at_ms) = (0, 0);
        }
        refuse_if(standing.requests.wait_ms(REQUESTS_MAX, now_ms))?;
        standing.requests.spend(REQUESTS_MAX, now_ms);
        if cost == Cost::Request {
            return Ok(());
        }
        if cost == Cost::Enrolment {
            refuse_if(standing.failures.wait_ms(now_ms))?;
        }
        refuse_if(standing.signatures.wait_ms(SIGNATURES_OF_ADDRESS_MAX, now_ms))?;
        refuse_if(self.signatures.wait_ms(SIGNATURES_MAX, now_ms))?;
        standing.signatures.spend(SIGNATURES_OF_ADDRESS_MAX, now_ms);
        self.signatures.spend(SIGNATURES_MAX, now_ms);
        if cost == Cost::Enrolment {
            standing.failures.begin(now_ms);
        }
        Ok(())
    }

    /// Reports how an admitted request ended. A signature that was not made is given back. An enrolment that succeeded
    /// or failed is no refused one and leaves count and time of those, since one good token would hide many wrong ones.
    pub fn settle(&mut self, party: &Party, cost: Cost, end: End) {
        if cost == Cost::Request {
            return;
        }
        let mut standing = self.standings.get_mut(party);
        if end != End::Done {
            self.signatures.give_back(SIGNATURES_MAX);
            if let Some(standing) = &mut standing {
                standing.signatures.give_back(SIGNATURES_OF_ADDRESS_MAX);
            }
        }
        if let (Cost::Enrolment, Some(standing)) = (cost, standing) {
            standing.failures.end(end);
        }
    }

    /// Forgets a connection that has ended.
    pub(crate) fn forget(&mut self, party: &Party) {
        if matches!(party, Party::Connection(_)) {
            self.standings.remove(party);
        }
    }

    /// Parties that are stored.
    pub fn count(&self) -> usize {
        self.standings.len()
    }

    /// Removes parties that say nothing if there are too many, and then those with the fewest refused enrolments.
    fn make_room(&mut self, now_ms: u64) {
        if self.standings.len() < ADDRESSES_MAX {
            return;
        }
        self.standings.retain(|_, standing| !standing.is_neutral(now_ms));
        if self.standings.len() < ADDRESSES_MAX {
            return;
        }
        let rank = |standing: &Standing| {
            let Failures { count, at_ms, pending, pending_at_ms } = standing.failures;
            (count.saturating_add(pending), at_ms.max(pending_at_ms))
        };
        let mut ranks: Vec<_> = self.standings.values().map(rank).collect();
        ranks.sort_unstable();
        let Some(median) = ranks.get(ranks.len() / 2).copied() else { return };
        // Of those with the median's rank only as many as fit.
        let above = ranks.iter().filter(|rank| **rank > median).count();
        let mut left = (ADDRESSES_MAX / 2).saturating_sub(above);
        self.standings.retain(|_, standing| {
            let is_kept = rank(standing) > median || rank(standing) == median && left > 0;
            left -= usize::from(is_kept && rank(standing) == median);
            is_kept
        });
    }
}

fn refuse_if(wait_ms: u64) -> Result<(), u64> {
    if wait_ms > 0 { Err(wait_ms) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> Party {
        Party::Address(format!("192.0.2.{number}"))
    }

    /// Counts requests until one has to wait. Returns their number and the wait.
    fn exhaust(rates: &mut Rates, party: &Party, cost: Cost, end: End, now_ms: u64) -> (u64, u64) {
        for count in 0.. {
            match rates.admit(party, cost, now_ms) {
                Ok(()) => rates.settle(party, cost, end),
                Err(wait_ms) => return (count, wait_ms),
            }
        }
        unreachable!()
    }

    #[test]
    fn requests_of_an_address_are_limited() {
        let mut rates = Rates::default();
        assert_eq!(exhaust(&mut rates, &address(1), Cost::Request, End::Refused, 7), (REQUESTS_MAX, 1_000));
        assert_eq!(exhaust(&mut rates, &address(1), Cost::Request, End::Refused, 1_006), (0, 1));
        assert_eq!(exhaust(&mut rates, &address(1), Cost::Request, End::Refused, 1_007).0, 1);
        assert_eq!(exhaust(&mut rates, &address(2), Cost::Request, End::Refused, 7).0, REQUESTS_MAX);
        assert_eq!(exhaust(&mut rates, &address(1), Cost::Request, End::Refused, 200_000).0, REQUESTS_MAX);
    }

    #[test]
    fn one_address_leaves_signatures_for_others() {
        let mut rates = Rates::default();
        for number in 0..4 {
            let signed = exhaust(&mut rates, &address(number), Cost::Signature, End::Done, 0);
            assert_eq!(signed, (SIGNATURES_OF_ADDRESS_MAX, 2_000), "{number}");
        }
        assert_eq!(
            exhaust(&mut rates, &address(9), Cost::Signature, End::Done, 0),
            (0, 500),
            "all are limited together"
        );
        assert_eq!(exhaust(&mut rates, &address(9), Cost::Request, End::Done, 0).0, REQUESTS_MAX - 1);
    }

    #[test]
    fn what_is_not_signed_is_given_back() {
        let mut rates = Rates::default();
        let refused = exhaust(&mut rates, &address(1), Cost::Signature, End::Refused, 0);
        assert_eq!(refused.0, REQUESTS_MAX, "only requests are limited");
        assert_eq!((rates.signatures, rates.standings[&address(1)].signatures), (Rate(0), Rate(0)));
    }

    #[test]
    fn wrong_tokens_wait_longer_and_longer() {
        let mut rates = Rates::default();
        let (wrong, mut now_ms) = (address(1), 0);
        let wrong_max = u64::from(WRONG_TOKENS_MAX);
        assert_eq!(exhaust(&mut rates, &wrong, Cost::Enrolment, End::Refused, 0), (wrong_max, 1_000));
        for wait_ms in [1_000, 2_000, 4_000] {
            now_ms += wait_ms;
            assert_eq!(exhaust(&mut rates, &wrong, Cost::Enrolment, End::Refused, now_ms), (1, 2 * wait_ms));
        }
        assert!(rates.admit(&address(2), Cost::Enrolment, now_ms).is_ok(), "others enrol meanwhile");
        assert!(rates.admit(&wrong, Cost::Signature, now_ms).is_ok(), "a renewal needs no token");
        for _ in 0..30 {
            now_ms += WAIT_MS_MAX;
            exhaust(&mut rates, &wrong, Cost::Enrolment, End::Refused, now_ms);
        }
        assert_eq!(
            exhaust(&mut rates, &wrong, Cost::Enrolment, End::Refused, now_ms),
            (0, WAIT_MS_MAX),
            "the wait is limited"
        );
        assert_eq!(
            exhaust(&mut rates, &wrong, Cost::Enrolment, End::Refused, now_ms + FORGET_MS).0,
            wrong_max,
            "and expires"
        );
    }

    #[test]
    fn good_tokens_do_not_hide_wrong_ones() {
        let mut rates = Rates::default();
        let mut now_ms = 0;
        for _ in 0..WRONG_TOKENS_MAX {
            rates.admit(&address(1), Cost::Enrolment, now_ms).unwrap();
            rates.settle(&address(1), Cost::Enrolment, End::Refused);
            now_ms += 10_000;
        }
        assert_eq!(rates.admit(&address(1), Cost::Enrolment, now_ms - 10_000), Err(1_000));
        rates.admit(&address(1), Cost::Enrolment, now_ms).unwrap();
        rates.settle(&address(1), Cost::Enrolment, End::Done);
        assert_eq!(rates.standings[&address(1)].failures.count, WRONG_TOKENS_MAX);
        // Nor does a good token or a fault of the authority make the wait of wrong ones longer.
        for end in [End::Done, End::Failed] {
            rates.admit(&address(1), Cost::Enrolment, now_ms).unwrap();
            rates.settle(&address(1), Cost::Enrolment, end);
        }
        rates.admit(&address(1), Cost::Enrolment, now_ms).unwrap();
        assert_eq!(rates.admit(&address(1), Cost::Enrolment, now_ms), Err(2_000), "one that is not settled counts");
    }

    #[test]
    fn the_table_is_limited() {
        let mut rates = Rates::default();
        rates.admit(&address(0), Cost::Enrolment, 0).unwrap();
        for number in 1..=3 * ADDRESSES_MAX {
            rates.admit(&address(number), Cost::Request, 1).unwrap();
            assert!(rates.count() <= ADDRESSES_MAX);
        }
        assert!(rates.standings.contains_key(&address(0)), "refused enrolments are kept longest");
        rates.admit(&Party::Connection(1), Cost::Request, 1).unwrap();
        rates.forget(&Party::Connection(1));
        rates.forget(&address(0));
        assert!(!rates.standings.contains_key(&Party::Connection(1)) && rates.standings.contains_key(&address(0)));
    }
}
