//! Rate limit of wrong passwords. The counts are in the database, shared by all processes and connections. An attempt is
//! counted before its password is checked and uncounted if that is right, so that simultaneous attempts are limited too.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits::{
    ATTEMPTS_MAX, CLIENT_FAILURES_MAX, CLIENT_WAIT_MS_MAX, FORGET_MS, USER_FAILURES_MAX, USER_WAIT_MS_MAX, WAIT_MS_MIN,
};
use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior};
use sha2::{Digest, Sha256};

/// Times are milliseconds since 1970.
pub(crate) const TABLE: &str = "create table if not exists attempts (
    key TEXT PRIMARY KEY, failures INTEGER NOT NULL, at INTEGER NOT NULL) without rowid";

/// Failures without a wait, and the longest wait.
#[derive(Clone, Copy, Debug)]
struct Rule {
    failures_max: u32,
    wait_ms_max: i64,
}

const CLIENT: Rule = Rule { failures_max: CLIENT_FAILURES_MAX, wait_ms_max: CLIENT_WAIT_MS_MAX };
const USER: Rule = Rule { failures_max: USER_FAILURES_MAX, wait_ms_max: USER_WAIT_MS_MAX };

/// Consecutive failures, and the time of the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    failures: u32,
    at: i64,
}

impl Count {
    /// The count without expired failures. A time in the future, after a clock was set back, becomes `now`: the wait would
    /// be endless.
    fn now(self, now: i64) -> Count {
        if now - self.at >= FORGET_MS { Count::default() } else { Count { at: self.at.min(now), ..self } }
    }

    fn wait_ms(self, rule: Rule, now: i64) -> i64 {
        let Some(doublings) = self.failures.checked_sub(rule.failures_max) else { return 0 };
        let wait = WAIT_MS_MIN.checked_shl(doublings.min(30)).unwrap_or(rule.wait_ms_max).min(rule.wait_ms_max);
        (self.at + wait - now).max(0)
    }
}

/// The clients that are counted together.
#[derive(Debug)]
pub(crate) enum Client {
    /// All connections from an address.
    Address(String),
    /// This connection alone, as its address is unknown.
    Connection(ConnectionCount),
}

#[derive(Debug, Default)]
pub(crate) struct ConnectionCount(Count);

impl Client {
    /// From an address as text.
    pub(crate) fn of(address: Option<&str>) -> Client {
        address
            .map_or_else(|| Client::Connection(ConnectionCount::default()), |address| Client::Address(group(address)))
    }
}

/// The key of the addresses that count as this one: IPv6 addresses of one /64, as a client usually has all of them.
/// A text that is no address is its own key.
pub fn group(address: &str) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Err(_) => address.to_owned(),
    }
}

/// A counted attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The client's count before the attempt.
    before: Count,
    user: String,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|time| i64::try_from(time.as_millis()).ok()).unwrap_or(0)
}

/// Counts an attempt. The inner error is the time to wait in milliseconds; such an attempt is not counted.
pub(crate) fn count(db: &Connection, client: &mut Client, user: &str, now: i64) -> Result<Result<Attempt, i64>, Error> {
    let user = user_key(user);
    // Immediate, since it reads and then writes.
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    let users = read(&transaction, &user)?.now(now);
    let before = match client {
        Client::Address(address) => read(&transaction, address)?.now(now),
        Client::Connection(ConnectionCount(count)) => count.now(now),
    };
    let wait = users.wait_ms(USER, now).max(before.wait_ms(CLIENT, now));
    if wait > 0 {
        // Written only after a clock was set back: a flood of attempts would wear out flash memory.
        if read(&transaction, &user)?.at > now {
            write(&transaction, &user, users)?;
        }
        if let Client::Address(address) = client
            && read(&transaction, address)?.at > now
        {
            write(&transaction, address, before)?;
        }
        transaction.commit()?;
        return Ok(Err(wait));
    }
    let next = |count: Count| Count { failures: count.failures + 1, at: now };
    write(&transaction, &user, next(users))?;
    match client {
        Client::Address(address) => write(&transaction, address, next(before))?,
        Client::Connection(ConnectionCount(count)) => *count = next(before),
    }
    prune(&transaction, now)?;
    transaction.commit()?;
    Ok(Ok(Attempt { before, user }))
}

/// Uncounts an attempt with the right password. The user's failures are deleted. The client's return to the count before,
/// since a client that knows one password could otherwise guess others without limit.
pub(crate) fn uncount(db: &Connection, client: &mut Client, attempt: &Attempt) -> Result<(), Error> {
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    transaction.execute("delete from attempts where key = ?1", [&attempt.user])?;
    match client {
        Client::Address(address) => {
            let count = read(&transaction, address)?;
            let failures = count.failures.saturating_sub(1);
            // Other connections of this address may have failed meanwhile.
            let at = if failures == attempt.before.failures { attempt.before.at } else { count.at };
            write(&transaction, address, Count { failures, at })?;
        }
        Client::Connection(ConnectionCount(count)) => *count = attempt.before,
    }
    transaction.commit()
}

/// A hash, since people may type a password in the field of the name.
fn user_key(user: &str) -> String {
    let digest = Sha256::digest(user.as_bytes());
    digest.iter().take(16).fold("user:".to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

fn read(db: &Connection, key: &str) -> Result<Count, Error> {
    let row = db.query_row("select failures, at from attempts where key = ?1", [key], |row| {
        Ok(Count { failures: row.get(0)?, at: row.get(1)? })
    });
    Ok(row.optional()?.unwrap_or_default())
}

fn write(db: &Connection, key: &str, count: Count) -> Result<(), Error> {
    if count.failures == 0 {
        db.execute("delete from attempts where key = ?1", [key])?;
    } else {
        db.execute("replace into attempts values (?1, ?2, ?3)", (key, count.failures, count.at))?;
    }
    Ok(())
}

/// Deletes expired counts if there are too many, and then those with the fewest failures.
fn prune(db: &Connection, now: i64) -> Result<(), Error> {
    let count: u32 = db.query_row("select count(*) from attempts", [], |row| row.get(0))?;
    if count > ATTEMPTS_MAX {
        db.execute("delete from attempts where at <= ?1", [now - FORGET_MS])?;
        db.execute(
            "delete from attempts where key in \
             (select key from attempts order by failures desc, at desc limit -1 offset ?1)",
            [ATTEMPTS_MAX / 2],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(TABLE).unwrap();
        db
    }

    /// Counts attempts until one has to wait. Returns their number and the wait.
    fn exhaust(db: &Connection, mut client: impl FnMut() -> Client, user: &str, now: i64) -> (u32, i64) {
        for tries in 0.. {
            if let Err(wait) = count(db, &mut client(), user, now).unwrap() {
                return (tries, wait);
            }
        }
        unreachable!()
    }

    #[test]
    fn the_wait_of_a_client_doubles() {
        let db = database();
        let client = || Client::of(Some("192.0.2.7"));
        let mut now = 1_000_000;
        assert_eq!(exhaust(&db, client, "alice", now), (CLIENT_FAILURES_MAX, 1_000));
        assert_eq!(exhaust(&db, client, "another", now).0, 0, "whatever the user");
        assert_eq!(exhaust(&db, || Client::of(Some("192.0.2.8")), "another", now).0, CLIENT_FAILURES_MAX);
        for wait in [1_000, 2_000, 4_000, 8_000] {
            assert_eq!(exhaust(&db, client, "alice", now + wait - 1), (0, 1));
            now += wait;
            assert_eq!(exhaust(&db, client, "alice", now), (1, 2 * wait));
        }
        for _ in 0..40 {
            now += CLIENT_WAIT_MS_MAX;
            exhaust(&db, client, "bob", now);
        }
        assert_eq!(exhaust(&db, client, "bob", now), (0, CLIENT_WAIT_MS_MAX), "the wait is limited");
        assert_eq!(exhaust(&db, client, "carol", now + FORGET_MS).0, CLIENT_FAILURES_MAX, "and expires");
    }

    #[test]
    fn many_clients_of_one_user_are_limited() {
        let db = database();
        let mut last = 0;
        let mut stranger = || {
            last += 1;
            Client::of(Some(&format!("192.0.2.{last}")))
        };
        assert_eq!(exhaust(&db, &mut stranger, "alice", 5), (USER_FAILURES_MAX, 1_000));
        assert_eq!(exhaust(&db, &mut stranger, "alice", 5 + FORGET_MS - 1), (1, 2_000));
        assert!(count(&db, &mut stranger(), "bob", 5).unwrap().is_ok());
        let stored: Vec<String> = db
            .prepare("select key from attempts")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .flatten()
            .collect();
        assert!(!stored.is_empty() && stored.iter().all(|key| !key.contains("alice")), "{stored:?}");
    }

    #[test]
    fn addresses_are_grouped() {
        let same = |one: &str, other: &str| group(one) == group(other);
        assert!(same("2001:db8::1", "2001:db8::2:3"));
        assert!(same("192.0.2.7", "::ffff:192.0.2.7"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.7", "192.0.2.8"));
        let db = database();
        let mut alone = Client::of(None);
        for _ in 0..CLIENT_FAILURES_MAX {
            assert!(count(&db, &mut alone, "alice", 9).unwrap().is_ok());
        }
        assert_eq!(count(&db, &mut alone, "bob", 9).unwrap().unwrap_err(), 1_000);
        assert!(count(&db, &mut Client::of(None), "bob", 9).unwrap().is_ok(), "another connection has its own count");
    }

    #[test]
    fn a_right_password_is_uncounted_once() {
        let db = database();
        for address in [Some("192.0.2.7"), None] {
            let mut client = Client::of(address);
            for _ in 1..CLIENT_FAILURES_MAX {
                count(&db, &mut client, "alice", 7).unwrap().unwrap();
            }
            for _ in 0..100 {
                let attempt = count(&db, &mut client, "mallory", 7).unwrap().unwrap();
                uncount(&db, &mut client, &attempt).unwrap();
            }
            count(&db, &mut client, "alice", 7).unwrap().unwrap();
            assert!(
                count(&db, &mut client, "alice", 7).unwrap().is_err(),
                "one's own password does not reset the count"
            );
        }
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_the_wait() {
        let db = database();
        let client = || Client::of(Some("192.0.2.7"));
        exhaust(&db, client, "alice", 1_000_000_000);
        assert_eq!(exhaust(&db, client, "alice", 1_000), (0, 1_000));
        assert_eq!(exhaust(&db, client, "alice", 2_000).0, 1);
    }

    #[test]
    fn the_table_is_limited() {
        let db = database();
        let transaction = Transaction::new_unchecked(&db, TransactionBehavior::Immediate).unwrap();
        for number in 0..=ATTEMPTS_MAX {
            write(&transaction, &format!("n{number}"), Count { failures: 1, at: 7 }).unwrap();
        }
        write(&transaction, "guesser", Count { failures: 9, at: 6 }).unwrap();
        prune(&transaction, 8).unwrap();
        let rows: u32 = transaction.query_row("select count(*) from attempts", [], |row| row.get(0)).unwrap();
        assert_eq!((rows, read(&transaction, "guesser").unwrap().failures), (ATTEMPTS_MAX / 2, 9));
    }
}
