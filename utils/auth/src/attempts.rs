//! Counts failed attempts, without a clock: the time is an argument, in milliseconds that never go back.
//!
//! Attempts of an address with equal credentials that are judged at the same time count as one. There are three counts. Of an
//! address with one user: after a few failures each further one doubles the wait. Of a user from all addresses, within a
//! window: this limit spares addresses that the user succeeded from before, so that nobody else can lock the user out there.
//! In these two an attempt counts as a failure from the moment it begins, so that many at once are no way around a limit, and
//! no longer once it has succeeded. The third is that of an address with any users, within the same window. It counts what
//! has failed: many users behind one address log in at once with right passwords, and must not wait for each other. So
//! `UNIT_PENDING_MAX` attempts that began together may exceed it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;

use auth_wire::Credential;

use crate::limits::{
    ATTEMPTS_MAX, KNOWN_MS, PAIR_FAILURES_MAX, PAIR_FORGET_MS, PAIR_WAIT_MS_MAX, PAIR_WAIT_MS_MIN, UNIT_FAILURES_MAX,
    UNIT_PENDING_MAX, UNIT_PENDING_WAIT_MS, USER_FAILURES_MAX, WINDOW_MS,
};

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which is what one client has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unit {
    /// An IPv4 address, also one within IPv6.
    V4([u8; 4]),
    /// The first half of an IPv6 address.
    V6([u8; 8]),
    /// The clients without an address: those of UNIX sockets.
    Local,
}

impl Unit {
    /// Of the text of an address without a port.
    pub fn of(address: &str) -> Unit {
        match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => Unit::V4(address.octets()),
            Ok(IpAddr::V6(address)) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Unit::V6([a, b, c, d, e, f, g, h])
            }
            Err(_) => Unit::Local,
        }
    }
}

/// What is shown in an attempt, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shown {
    /// The user's name, together with the sources that know it; None: a token.
    user: Option<u64>,
    /// All of the credential, and the sources.
    credential: u64,
}

/// An attempt that has begun. It is given back to `succeed`, `fail` or `forget`.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    unit: Unit,
    /// None: it only has a place among those of the address.
    shown: Option<Shown>,
}

/// Attempts of an address with equal credentials that are being judged. They count once.
#[derive(Debug)]
struct Flight {
    attempts: u32,
    /// When the first one began, if it is in the user's window.
    in_window_ms: Option<u64>,
    /// One of them has succeeded or failed.
    is_judged: bool,
    is_failed: bool,
}

/// The failures of an address with one user.
#[derive(Default, Debug)]
struct Pair {
    failures: u32,
    /// No attempt before this time.
    closed_until_ms: u64,
}

/// The failures of an address.
#[derive(Default, Debug)]
struct Client {
    /// Attempts that are being judged.
    pending: u32,
    failures: Window,
}

/// A success of an address with one user.
#[derive(Default, Debug)]
struct Known;

/// The times of failures, in order.
#[derive(Default, Debug)]
struct Window(VecDeque<u64>);

impl Window {
    fn add(&mut self, now_ms: u64) {
        self.0.push_back(now_ms);
    }

    fn remove(&mut self, time_ms: u64) {
        if let Some(at) = self.0.iter().position(|time| *time == time_ms) {
            self.0.remove(at);
        }
    }

    /// The wait until there are fewer than `max` in the window; None: there are fewer now.
    fn wait_ms(&mut self, max: usize, now_ms: u64) -> Option<u64> {
        while self.0.front().is_some_and(|time| time.saturating_add(WINDOW_MS) <= now_ms) {
            self.0.pop_front();
        }
        let surplus = self.0.len().checked_sub(max)?;
        self.0.get(surplus).map(|time| time.saturating_add(WINDOW_MS).saturating_sub(now_ms))
    }
}

/// All counts. Each table is bounded.
#[derive(Default, Debug)]
pub struct Attempts {
    clients: Table<Unit, Client>,
    pairs: Table<(Unit, u64), Pair>,
    users: Table<u64, Window>,
    /// The addresses that a user succeeded from. Failures make no entries here, so that they drive none out.
    known: Table<(Unit, u64), Known>,
    /// As many as there are questions without an answer, at most.
    flights: HashMap<(Unit, Shown), Flight>,
    /// Its keys are random: names that share a hash cannot be constructed.
    hasher: RandomState,
}

impl Attempts {
    /// What a credential shows to sources with this hash; None: nothing.
    pub fn shown(&self, sources: u64, credential: &Credential) -> Option<Shown> {
        let user = match credential {
            Credential::None => return None,
            Credential::Token(_) => None,
            Credential::Password { user, .. } => Some(user),
            Credential::Digest(digest) => Some(&digest.user),
        };
        Some(Shown {
            user: user.map(|user| self.hasher.hash_one((sources, user))),
            credential: self.hasher.hash_one((sources, credential)),
        })
    }

    /// Counts an attempt, or only takes a place. The error is the wait in milliseconds, and counts nothing.
    pub fn begin(&mut self, unit: Unit, shown: Option<Shown>, now_ms: u64) -> Result<Attempt, u64> {
        if let Some(client) = self.clients.get_mut(unit) {
            // Nothing is wrong with a question without a credential.
            let wait_ms = shown.and_then(|_| client.failures.wait_ms(UNIT_FAILURES_MAX, now_ms));
            // Clients without an address are not one client. The queue bounds them.
            let is_full = client.pending >= UNIT_PENDING_MAX && unit != Unit::Local;
            if let Some(wait_ms) = wait_ms.or(is_full.then_some(UNIT_PENDING_WAIT_MS)) {
                return Err(wait_ms);
            }
        }
        if let Some(shown) = shown {
            match self.flights.get_mut(&(unit, shown)) {
                Some(flight) => flight.attempts += 1,
                None => {
                    let in_window_ms = match shown.user {
                        Some(user) => self.count(unit, user, now_ms)?,
                        None => None,
                    };
                    let flight = Flight { attempts: 1, in_window_ms, is_judged: false, is_failed: false };
                    self.flights.insert((unit, shown), flight);
                }
            }
        }
        self.clients.entry(unit, now_ms).pending += 1;
        Ok(Attempt { unit, shown })
    }

    /// Counts an attempt with this user as a failure. Returns its time in the user's window, if it is there.
    fn count(&mut self, unit: Unit, user: u64, now_ms: u64) -> Result<Option<u64>, u64> {
        self.pairs.forget((unit, user), now_ms);
        self.known.forget((unit, user), now_ms);
        let is_known = self.known.get((unit, user)).is_some();
        let user_wait_ms = self.users.get_mut(user).and_then(|failures| failures.wait_ms(USER_FAILURES_MAX, now_ms));
        let pair_wait_ms = self.pairs.get((unit, user)).and_then(|pair| pair.closed_until_ms.checked_sub(now_ms));
        let pair_wait_ms = pair_wait_ms.filter(|wait_ms| *wait_ms > 0);
        if let Some(wait_ms) = pair_wait_ms.max(user_wait_ms.filter(|_| !is_known)) {
            return Err(wait_ms);
        }
        let pair = self.pairs.entry((unit, user), now_ms);
        pair.failures = pair.failures.saturating_add(1);
        if let Some(more) = pair.failures.checked_sub(PAIR_FAILURES_MAX) {
            let wait_ms = (PAIR_WAIT_MS_MIN << more.min(32)).min(PAIR_WAIT_MS_MAX);
            pair.closed_until_ms = now_ms.saturating_add(wait_ms);
        }
        // A known address is not refused, so that its failures must not fill the window.
        if is_known {
            return Ok(None);
        }
        self.users.entry(user, now_ms).add(now_ms);
        Ok(Some(now_ms))
    }

    /// The credential was right, and the user is the one that it names.
    pub fn succeed(&mut self, attempt: Attempt, now_ms: u64) {
        let Attempt { unit, shown } = attempt;
        let Some(shown) = shown else { return self.forget(attempt) };
        if let Some(flight) = self.flights.get_mut(&(unit, shown)) {
            flight.is_judged = true;
            let in_window_ms = flight.in_window_ms.take();
            self.take_back(shown, in_window_ms);
        }
        if let Some(user) = shown.user {
            self.pairs.remove((unit, user));
            self.known.entry((unit, user), now_ms);
        }
        self.forget(attempt);
    }

    /// The credential was wrong.
    pub fn fail(&mut self, attempt: Attempt, now_ms: u64) {
        let Attempt { unit, shown } = attempt;
        if let Some(flight) = shown.and_then(|shown| self.flights.get_mut(&(unit, shown))) {
            flight.is_judged = true;
            // Clients without an address may be all clients of a proxy: one of them must not lock out the others.
            if !std::mem::replace(&mut flight.is_failed, true) && unit != Unit::Local {
                self.clients.entry(unit, now_ms).failures.add(now_ms);
            }
        }
        self.forget(attempt);
    }

    /// The credential was not judged. An entry that holds nothing any more is removed, so that such attempts drive none
    /// out.
    pub fn forget(&mut self, attempt: Attempt) {
        let Attempt { unit, shown } = attempt;
        if let Some(client) = self.clients.get_mut(unit) {
            client.pending = client.pending.saturating_sub(1);
            self.clients.remove_empty(unit);
        }
        let Some(shown) = shown else { return };
        let Some(flight) = self.flights.get_mut(&(unit, shown)) else { return };
        flight.attempts = flight.attempts.saturating_sub(1);
        if flight.attempts > 0 {
            return;
        }
        let (is_judged, in_window_ms) = (flight.is_judged, flight.in_window_ms);
        self.flights.remove(&(unit, shown));
        if is_judged {
            return;
        }
        self.take_back(shown, in_window_ms);
        let Some(user) = shown.user else { return };
        if let Some(pair) = self.pairs.get_mut((unit, user)) {
            pair.failures = pair.failures.saturating_sub(1);
            if pair.failures < PAIR_FAILURES_MAX {
                pair.closed_until_ms = 0;
            }
            self.pairs.remove_empty((unit, user));
        }
    }

    /// Removes a failure from the user's window, if it is there.
    fn take_back(&mut self, shown: Shown, in_window_ms: Option<u64>) {
        if let Some((user, time_ms)) = shown.user.zip(in_window_ms)
            && let Some(failures) = self.users.get_mut(user)
        {
            failures.remove(time_ms);
            self.users.remove_empty(user);
        }
    }
}

/// What a table holds.
trait Entry: Default {
    /// The time without use after which it means nothing.
    const FORGET_MS: u64;

    /// What is counted in it. The entry with least makes room for another.
    fn held(&self) -> usize;
}

impl Entry for Pair {
    const FORGET_MS: u64 = PAIR_FORGET_MS;

    fn held(&self) -> usize {
        self.failures as usize
    }
}

impl Entry for Client {
    const FORGET_MS: u64 = WINDOW_MS;

    fn held(&self) -> usize {
        self.failures.held() + self.pending as usize
    }
}

impl Entry for Window {
    const FORGET_MS: u64 = WINDOW_MS;

    fn held(&self) -> usize {
        self.0.len()
    }
}

impl Entry for Known {
    const FORGET_MS: u64 = KNOWN_MS;

    fn held(&self) -> usize {
        1
    }
}

/// Entries with the time of their last use, at most `ATTEMPTS_MAX`.
#[derive(Debug)]
struct Table<K, V>(HashMap<K, (u64, V)>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash, V: Entry> Table<K, V> {
    fn get(&self, key: K) -> Option<&V> {
        self.0.get(&key).map(|(_, value)| value)
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.0.get_mut(&key).map(|(_, value)| value)
    }

    /// The entry of this key, a new one if there is none. It takes the place of one that means nothing any more, or else of
    /// the one that holds least, and of those of the one that was unused for the longest time: new names drive out no
    /// entry with more failures than they have.
    fn entry(&mut self, key: K, now_ms: u64) -> &mut V {
        if self.0.len() >= ATTEMPTS_MAX && !self.0.contains_key(&key) {
            let rank = |used_ms: u64, value: &V| {
                let is_over = used_ms.saturating_add(V::FORGET_MS) <= now_ms;
                (if is_over { 0 } else { value.held() }, used_ms)
            };
            let least = self.0.iter().min_by_key(|(_, (used_ms, value))| rank(*used_ms, value)).map(|(key, _)| *key);
            least.map(|key| self.0.remove(&key));
        }
        let entry = self.0.entry(key).or_default();
        entry.0 = now_ms;
        &mut entry.1
    }

    fn remove(&mut self, key: K) {
        self.0.remove(&key);
    }

    /// Removes the entry if it holds nothing.
    fn remove_empty(&mut self, key: K) {
        if self.get(key).is_some_and(|value| value.held() == 0) {
            self.0.remove(&key);
        }
    }

    /// Removes the entry if it means nothing any more.
    fn forget(&mut self, key: K, now_ms: u64) {
        if self.0.get(&key).is_some_and(|(used_ms, _)| used_ms.saturating_add(V::FORGET_MS) <= now_ms) {
            self.0.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SECOND: u64 = 1_000;

    fn unit(number: u16) -> Unit {
        let [high, low] = number.to_be_bytes();
        Unit::V4([192, 0, high, low])
    }

    /// An attempt with a credential that no other has.
    fn begin(attempts: &mut Attempts, unit: Unit, user: Option<&str>, now_ms: u64) -> Result<Attempt, u64> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let text = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        with(attempts, unit, user, &text, now_ms)
    }

    /// An attempt with this password or token.
    fn with(
        attempts: &mut Attempts,
        unit: Unit,
        user: Option<&str>,
        secret: &str,
        now_ms: u64,
    ) -> Result<Attempt, u64> {
        let credential = match user {
            Some(user) => Credential::Password { user: user.to_owned(), password: secret.into() },
            None => Credential::Token(secret.into()),
        };
        let shown = attempts.shown(1, &credential);
        attempts.begin(unit, shown, now_ms)
    }

    /// A failed attempt; the error is the wait.
    fn fail(attempts: &mut Attempts, unit: Unit, user: &str, now_ms: u64) -> Result<(), u64> {
        begin(attempts, unit, Some(user), now_ms).map(|attempt| attempts.fail(attempt, now_ms))
    }

    #[test]
    fn units() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("", "unix", true),
            ("", "127.0.0.1", false),
        ] {
            assert_eq!(Unit::of(one) == Unit::of(other), is_same, "{one} {other}");
        }
    }

    #[test]
    fn waits_double() {
        let mut attempts = Attempts::default();
        let mut now_ms = 7;
        for _ in 0..PAIR_FAILURES_MAX {
            assert_eq!(fail(&mut attempts, Unit::Local, "ann", now_ms), Ok(()));
        }
        for wait_s in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900] {
            let wait_ms = wait_s * SECOND;
            for passed_ms in [0, wait_ms / 2, wait_ms - 1] {
                let refused = fail(&mut attempts, Unit::Local, "ann", now_ms + passed_ms);
                assert_eq!(refused, Err(wait_ms - passed_ms), "{wait_s} s, after {passed_ms} ms");
            }
            // Other users and addresses go on meanwhile.
            assert_eq!(fail(&mut attempts, Unit::Local, &format!("{wait_s}"), now_ms), Ok(()));
            now_ms += wait_ms;
            assert_eq!(fail(&mut attempts, Unit::Local, "ann", now_ms), Ok(()), "after {wait_s} s");
        }
        assert_eq!(fail(&mut attempts, Unit::Local, "ann", now_ms + PAIR_FORGET_MS), Ok(()));
        assert_eq!(fail(&mut attempts, Unit::Local, "ann", now_ms + PAIR_FORGET_MS), Ok(()), "all is forgotten");
    }

    #[test]
    fn a_success_ends_the_count_of_a_user() {
        let mut attempts = Attempts::default();
        for _ in 0..3 {
            for _ in 1..PAIR_FAILURES_MAX {
                assert_eq!(fail(&mut attempts, Unit::Local, "ann", 0), Ok(()));
            }
            let attempt = begin(&mut attempts, Unit::Local, Some("ann"), 0).unwrap();
            attempts.succeed(attempt, 0);
        }
    }

    #[test]
    fn attempts_count_while_they_are_judged() {
        let mut attempts = Attempts::default();
        let begun: Vec<Attempt> =
            (0..PAIR_FAILURES_MAX).map(|_| begin(&mut attempts, unit(1), Some("ann"), 5).unwrap()).collect();
        assert_eq!(begin(&mut attempts, unit(1), Some("ann"), 5).unwrap_err(), SECOND);
        // One that was not judged makes room.
        attempts.forget(begun[0]);
        let again = begin(&mut attempts, unit(1), Some("ann"), 5).unwrap();
        assert_eq!(begin(&mut attempts, unit(1), Some("ann"), 5).unwrap_err(), SECOND);
        attempts.succeed(again, 6);
        assert!(begin(&mut attempts, unit(1), Some("ann"), 6).is_ok());
    }

    #[test]
    fn an_address_has_a_window() {
        let mut attempts = Attempts::default();
        for number in 0..UNIT_FAILURES_MAX as u64 {
            let good = begin(&mut attempts, unit(1), Some("good"), number * SECOND).unwrap();
            attempts.succeed(good, number * SECOND);
            let user = format!("user{number}");
            assert_eq!(fail(&mut attempts, unit(1), &user, number * SECOND), Ok(()));
        }
        let now_ms = UNIT_FAILURES_MAX as u64 * SECOND;
        for user in [Some("new"), Some("good"), None] {
            assert_eq!(begin(&mut attempts, unit(1), user, now_ms).unwrap_err(), WINDOW_MS - now_ms, "{user:?}");
        }
        assert_eq!(fail(&mut attempts, unit(2), "new", now_ms), Ok(()), "another address");
        assert_eq!(fail(&mut attempts, unit(1), "new", WINDOW_MS), Ok(()), "the first one has left the window");
        assert_eq!(fail(&mut attempts, unit(1), "new", WINDOW_MS), Err(SECOND), "the second one has not");
        // Tokens count too.
        for _ in 0..UNIT_FAILURES_MAX {
            let attempt = begin(&mut attempts, unit(3), None, 0).unwrap();
            attempts.fail(attempt, 0);
        }
        assert_eq!(begin(&mut attempts, unit(3), None, 0).unwrap_err(), WINDOW_MS);
    }

    #[test]
    fn an_address_has_some_places() {
        let mut attempts = Attempts::default();
        let mut begun: Vec<Attempt> = (0..UNIT_PENDING_MAX)
            .map(|number| begin(&mut attempts, unit(1), Some(&format!("user{number}")), 0).unwrap())
            .collect();
        assert_eq!(begin(&mut attempts, unit(1), Some("ann"), 0).unwrap_err(), UNIT_PENDING_WAIT_MS);
        assert!(begin(&mut attempts, unit(2), Some("ann"), 0).is_ok());
        for (at, end) in
            [Attempts::succeed, Attempts::fail, |attempts: &mut Attempts, attempt, _| attempts.forget(attempt)]
                .into_iter()
                .enumerate()
        {
            end(&mut attempts, begun.pop().unwrap(), 0);
            assert!(begin(&mut attempts, unit(1), Some("ann"), 0).is_ok(), "{at}");
            assert!(begin(&mut attempts, unit(1), Some("ann"), 0).is_err(), "{at}");
        }
    }

    #[test]
    fn a_user_is_not_locked_out_where_it_is_known() {
        let mut attempts = Attempts::default();
        let attempt = begin(&mut attempts, unit(1), Some("ann"), 0).unwrap();
        attempts.succeed(attempt, 0);
        for number in 0..USER_FAILURES_MAX {
            assert_eq!(fail(&mut attempts, unit(1_000 + number as u16), "ann", SECOND), Ok(()));
        }
        assert_eq!(fail(&mut attempts, unit(2), "ann", 2 * SECOND), Err(WINDOW_MS - SECOND));
        assert_eq!(fail(&mut attempts, unit(2), "bob", 2 * SECOND), Ok(()));
        for _ in 1..PAIR_FAILURES_MAX {
            let attempt = begin(&mut attempts, unit(1), Some("ann"), 2 * SECOND).unwrap();
            attempts.fail(attempt, 2 * SECOND);
        }
        let attempt = begin(&mut attempts, unit(1), Some("ann"), 2 * SECOND).unwrap();
        attempts.succeed(attempt, 2 * SECOND);
        assert_eq!(fail(&mut attempts, unit(2), "ann", WINDOW_MS + SECOND), Ok(()), "the window has passed");
    }

    #[test]
    fn success_is_remembered_for_a_time() {
        for (passed_ms, expected) in [(KNOWN_MS - 1, true), (KNOWN_MS, false)] {
            let mut attempts = Attempts::default();
            let attempt = begin(&mut attempts, unit(1), Some("ann"), 0).unwrap();
            attempts.succeed(attempt, 0);
            for number in 0..USER_FAILURES_MAX {
                assert_eq!(fail(&mut attempts, unit(1_000 + number as u16), "ann", passed_ms), Ok(()));
            }
            assert_eq!(begin(&mut attempts, unit(1), Some("ann"), passed_ms).is_ok(), expected, "after {passed_ms} ms");
        }
    }

    #[test]
    fn tables_are_bounded() {
        let mut attempts = Attempts::default();
        let attempt = begin(&mut attempts, unit(1), Some("ann"), 0).unwrap();
        attempts.succeed(attempt, 0);
        for number in 0..10_000 {
            let now_ms = u64::from(number);
            assert_eq!(fail(&mut attempts, unit(number), &format!("user{number}"), now_ms), Ok(()));
        }
        let sizes = [attempts.clients.0.len(), attempts.pairs.0.len(), attempts.users.0.len()];
        assert_eq!(sizes, [ATTEMPTS_MAX; 3]);
        assert_eq!(attempts.known.0.len(), 1, "failures do not drive out successes");
        assert!(attempts.clients.0.contains_key(&unit(9_999)) && !attempts.clients.0.contains_key(&unit(2)));
    }

    #[test]
    fn equal_credentials_count_once() {
        let mut attempts = Attempts::default();
        let many = |attempts: &mut Attempts| -> Vec<Attempt> {
            (0..PAIR_FAILURES_MAX * 2).map(|_| with(attempts, unit(1), Some("ann"), "x", 0).unwrap()).collect()
        };
        let failures = |attempts: &Attempts| {
            let pair = attempts.pairs.0.values().next().map_or(0, |(_, pair)| pair.failures);
            let client = attempts.clients.0.values().next().map_or(0, |(_, client)| client.failures.held());
            (pair, attempts.users.0.values().next().map_or(0, |(_, window)| window.held()), client)
        };
        many(&mut attempts).into_iter().for_each(|attempt| attempts.forget(attempt));
        assert_eq!(failures(&attempts), (0, 0, 0));
        let mut begun = many(&mut attempts);
        attempts.forget(begun.pop().unwrap());
        assert_eq!(failures(&attempts), (1, 1, 0), "leaving does not take back the count of others");
        let last = begun.pop().unwrap();
        begun.into_iter().for_each(|attempt| attempts.fail(attempt, 1));
        attempts.forget(last);
        assert_eq!(failures(&attempts), (1, 1, 1));
        // They end with the last one.
        fail(&mut attempts, unit(1), "ann", 2).unwrap();
        assert_eq!(failures(&attempts), (2, 2, 2));
        many(&mut attempts).into_iter().for_each(|attempt| attempts.succeed(attempt, 3));
        assert_eq!(failures(&attempts), (0, 2, 2), "a success takes back itself only");
        assert!(attempts.flights.is_empty());
    }

    #[test]
    fn other_names_drive_out_no_failures() {
        let mut attempts = Attempts::default();
        let mut guesses = 0;
        for round in 1..4 {
            while fail(&mut attempts, Unit::Local, "ann", round).is_ok() {
                guesses += 1;
            }
            for number in 0..=ATTEMPTS_MAX {
                fail(&mut attempts, Unit::Local, &format!("{round} {number}"), round).unwrap();
            }
        }
        assert_eq!(guesses, PAIR_FAILURES_MAX);
        // What was given back is not there at all.
        let sizes = |attempts: &Attempts| [attempts.pairs.0.len(), attempts.users.0.len(), attempts.clients.0.len()];
        let mut attempts = Attempts::default();
        fail(&mut attempts, unit(1), "ann", 0).unwrap();
        for number in 0..10 {
            let attempt = begin(&mut attempts, unit(2), Some(&number.to_string()), 1).unwrap();
            attempts.forget(attempt);
        }
        assert_eq!(sizes(&attempts), [1; 3]);
        // What is over makes room first.
        for number in 0..ATTEMPTS_MAX {
            fail(&mut attempts, unit(1_000 + number as u16), &format!("{number}"), PAIR_FORGET_MS).unwrap();
        }
        assert!(!attempts.clients.0.contains_key(&unit(1)));
    }

    #[test]
    fn clients_without_an_address_have_no_window() {
        let mut attempts = Attempts::default();
        for _ in 0..2 * UNIT_FAILURES_MAX {
            let attempt = begin(&mut attempts, Unit::Local, None, 5).unwrap();
            attempts.fail(attempt, 5);
        }
        assert!(attempts.clients.0.is_empty(), "it does not grow");
    }

    #[test]
    fn a_success_takes_back_no_failure_of_others() {
        let mut attempts = Attempts::default();
        for (from, is_right) in [(unit(1), true), (unit(2), false), (unit(1), true)] {
            let attempt = begin(&mut attempts, from, Some("ann"), 7).unwrap();
            if is_right { attempts.succeed(attempt, 7) } else { attempts.fail(attempt, 7) }
        }
        assert_eq!(attempts.users.0.values().map(|(_, window)| window.held()).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn places_without_a_credential() {
        let mut attempts = Attempts::default();
        for _ in 0..UNIT_FAILURES_MAX {
            let attempt = begin(&mut attempts, unit(1), None, 0).unwrap();
            attempts.fail(attempt, 0);
        }
        let begun: Vec<Attempt> = (0..UNIT_PENDING_MAX).map(|_| attempts.begin(unit(1), None, 0).unwrap()).collect();
        assert_eq!(attempts.begin(unit(1), None, 0).unwrap_err(), UNIT_PENDING_WAIT_MS);
        begun.into_iter().for_each(|attempt| attempts.forget(attempt));
        assert!(attempts.begin(unit(1), None, 0).is_ok());
    }
}
