//! Wrong passwords are counted, and who has had too many waits. The counts are in the database, so that all processes
//! and all connections share them. An attempt is counted before its password is looked at and forgiven when that was
//! right, so that many at once are no way around it.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior};
use sha2::{Digest, Sha256};

use crate::limits::{
    ATTEMPTS_MAX, CLIENT_FAILURES_MAX, CLIENT_WAIT_MS_MAX, FORGET_MS, USER_FAILURES_MAX, USER_WAIT_MS_MAX, WAIT_MS_MIN,
};

/// The table. Times are milliseconds since 1970.
pub const TABLE: &str = "create table if not exists attempts (
    key TEXT PRIMARY KEY, failures INTEGER NOT NULL, at INTEGER NOT NULL) without rowid";

/// How many failures are free, and how long one waits at most.
#[derive(Clone, Copy, Debug)]
struct Rule {
    failures_max: u32,
    wait_ms_max: i64,
}

const CLIENT: Rule = Rule { failures_max: CLIENT_FAILURES_MAX, wait_ms_max: CLIENT_WAIT_MS_MAX };
const USER: Rule = Rule { failures_max: USER_FAILURES_MAX, wait_ms_max: USER_WAIT_MS_MAX };

/// Failures in a row, and when the last one was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    failures: u32,
    at: i64,
}

impl Count {
    /// As it is now: forgotten after a while. A clock that was set back would make the wait endless.
    fn now(self, now: i64) -> Count {
        if now - self.at >= FORGET_MS { Count::default() } else { Count { at: self.at.min(now), ..self } }
    }

    /// How long to wait yet.
    fn wait_ms(self, rule: Rule, now: i64) -> i64 {
        let Some(doublings) = self.failures.checked_sub(rule.failures_max) else { return 0 };
        let wait = WAIT_MS_MIN.checked_shl(doublings.min(30)).unwrap_or(rule.wait_ms_max).min(rule.wait_ms_max);
        (self.at + wait - now).max(0)
    }
}

/// Whose attempts are counted with a connection's.
#[derive(Debug)]
pub enum Client {
    /// All that come from an address.
    Address(String),
    /// This connection alone, as its address is not known.
    Connection(ConnectionCount),
}

/// A connection's own count.
#[derive(Debug, Default)]
pub struct ConnectionCount(Count);

impl Client {
    /// By an address as text. Of IPv6 the first 64 bits count, as whoever has one address has all of these.
    pub fn of(address: Option<&str>) -> Client {
        match address.map(|text| (text, text.parse::<IpAddr>().map(|address| address.to_canonical()))) {
            None => Client::Connection(ConnectionCount::default()),
            Some((_, Ok(IpAddr::V4(address)))) => Client::Address(address.to_string()),
            Some((_, Ok(IpAddr::V6(address)))) => {
                let [a, b, c, d, ..] = address.segments();
                Client::Address(format!("{a:x}:{b:x}:{c:x}:{d:x}::/64"))
            }
            Some((text, Err(_))) => Client::Address(text.to_owned()),
        }
    }
}

/// An attempt that was counted.
#[derive(Debug)]
pub struct Attempt {
    /// The client's count before.
    before: Count,
    user: String,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|time| i64::try_from(time.as_millis()).ok()).unwrap_or(0)
}

/// Counts an attempt, or tells how many milliseconds to wait before the next one. Waiting is not counted.
pub fn count(db: &Connection, client: &mut Client, user: &str, now: i64) -> Result<Result<Attempt, i64>, Error> {
    let user = user_key(user);
    // Reads and then writes: no other process may come between.
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    let users = read(&transaction, &user)?.now(now);
    let before = match client {
        Client::Address(address) => read(&transaction, address)?.now(now),
        Client::Connection(ConnectionCount(count)) => count.now(now),
    };
    let wait = users.wait_ms(USER, now).max(before.wait_ms(CLIENT, now));
    if wait > 0 {
        // A clock that was set back is noted. Else nothing is written: a flood of attempts would wear a flash out.
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
    forget(&transaction, now)?;
    transaction.commit()?;
    Ok(Ok(Attempt { before, user }))
}

/// The password was right. The user's failures are forgotten; the client's are as they were before, since else whoever
/// knows one password could guess another for ever.
pub fn forgive(db: &Connection, client: &mut Client, attempt: &Attempt) -> Result<(), Error> {
    let transaction = Transaction::new_unchecked(db, TransactionBehavior::Immediate)?;
    transaction.execute("delete from attempts where key = ?1", [&attempt.user])?;
    match client {
        Client::Address(address) => {
            let count = read(&transaction, address)?;
            let failures = count.failures.saturating_sub(1);
            // Others of this address may have failed meanwhile.
            let at = if failures == attempt.before.failures { attempt.before.at } else { count.at };
            write(&transaction, address, Count { failures, at })?;
        }
        Client::Connection(ConnectionCount(count)) => *count = attempt.before,
    }
    transaction.commit()
}

/// Names that people type may be passwords in the wrong field: they are not stored as they are.
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

/// What is old goes, and where there is too much, those who failed least.
fn forget(db: &Connection, now: i64) -> Result<(), Error> {
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

    /// Tries wrong passwords until one has to wait; how many, and how long.
    fn exhaust(db: &Connection, mut client: impl FnMut() -> Client, user: &str, now: i64) -> (u32, i64) {
        for tries in 0.. {
            if let Err(wait) = count(db, &mut client(), user, now).unwrap() {
                return (tries, wait);
            }
        }
        unreachable!()
    }

    #[test]
    fn clients_wait_longer_and_longer() {
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
        assert_eq!(exhaust(&db, client, "bob", now), (0, CLIENT_WAIT_MS_MAX), "it ends somewhere");
        assert_eq!(exhaust(&db, client, "carol", now + FORGET_MS).0, CLIENT_FAILURES_MAX, "and is forgotten");
    }

    #[test]
    fn a_user_is_guarded_from_many_clients() {
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
    fn addresses_and_what_stands_for_them() {
        let same = |one: &str, other: &str| match (Client::of(Some(one)), Client::of(Some(other))) {
            (Client::Address(one), Client::Address(other)) => one == other,
            _ => false,
        };
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
    fn what_was_right_is_forgiven_once() {
        let db = database();
        for address in [Some("192.0.2.7"), None] {
            let mut client = Client::of(address);
            for _ in 1..CLIENT_FAILURES_MAX {
                count(&db, &mut client, "alice", 7).unwrap().unwrap();
            }
            for _ in 0..100 {
                let attempt = count(&db, &mut client, "mallory", 7).unwrap().unwrap();
                forgive(&db, &mut client, &attempt).unwrap();
            }
            count(&db, &mut client, "alice", 7).unwrap().unwrap();
            assert!(count(&db, &mut client, "alice", 7).unwrap().is_err(), "the own password helps with no other");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let db = database();
        let client = || Client::of(Some("192.0.2.7"));
        exhaust(&db, client, "alice", 1_000_000_000);
        assert_eq!(exhaust(&db, client, "alice", 1_000), (0, 1_000));
        assert_eq!(exhaust(&db, client, "alice", 2_000).0, 1);
    }

    #[test]
    fn the_table_stays_small() {
        let db = database();
        let transaction = Transaction::new_unchecked(&db, TransactionBehavior::Immediate).unwrap();
        for number in 0..=ATTEMPTS_MAX {
            write(&transaction, &format!("n{number}"), Count { failures: 1, at: 7 }).unwrap();
        }
        write(&transaction, "guesser", Count { failures: 9, at: 6 }).unwrap();
        forget(&transaction, 8).unwrap();
        let rows: u32 = transaction.query_row("select count(*) from attempts", [], |row| row.get(0)).unwrap();
        assert_eq!((rows, read(&transaction, "guesser").unwrap().failures), (ATTEMPTS_MAX / 2, 9));
    }
}
