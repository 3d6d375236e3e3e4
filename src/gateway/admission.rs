//! Who may come in: clients in all and from each address, those that are no WebSockets yet, and the memory that all
//! of them hold.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use crate::driver::Address;
use crate::exchange::Full;
use crate::limits::{OVERLOAD_REPLIES_MAX, Process};

/// What counts as one address: an IPv4 address, or the first 64 bits of an IPv6 one, of which a single customer
/// usually has all (RFC 6177).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
    /// All clients without a known address, such as those of a UNIX socket.
    Unknown,
}

/// The counts.
#[derive(Debug)]
pub struct Admission {
    /// What is allowed.
    pub limits: Process,
    sources: HashMap<Source, u64>,
    /// Those who are being told that there is no room, by entrance. They take nobody's place.
    refused: HashMap<usize, u64>,
    clients: u64,
    handshakes: u64,
    held_size: u64,
}

/// What becomes of a client that comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is served.
    Welcome,
    /// It is told that there is no room.
    Refused(Full),
    /// There is no room even to tell it.
    Dropped,
}

impl Admission {
    /// Nobody is there yet.
    pub fn new(limits: Process) -> Admission {
        Admission { limits, sources: HashMap::new(), refused: HashMap::new(), clients: 0, handshakes: 0, held_size: 0 }
    }

    /// Judges one who comes to an entrance, and counts it unless it is dropped. So many clients are there already,
    /// with those who are being refused; so many may be there without them.
    pub fn enter(&mut self, address: Address, entrance: usize, clients_there: u64, clients_there_max: u64) -> Verdict {
        let source = source_of(address);
        let from_there = self.sources.get(&source).copied().unwrap_or(0);
        let per_address_max = match source {
            Source::Unknown => 0,
            _ => self.limits.clients_per_address_max,
        };
        let refused_there = self.refused.get(&entrance).copied().unwrap_or(0);
        let full = if self.clients >= self.limits.clients_max {
            Full::Clients
        } else if per_address_max > 0 && from_there >= per_address_max {
            Full::Address
        } else if clients_there.saturating_sub(refused_there) >= clients_there_max {
            Full::Server
        } else if self.handshakes >= self.limits.handshakes_max {
            Full::Handshakes
        } else {
            self.clients += 1;
            self.handshakes += 1;
            *self.sources.entry(source).or_default() += 1;
            return Verdict::Welcome;
        };
        if self.refused.values().sum::<u64>() >= OVERLOAD_REPLIES_MAX {
            return Verdict::Dropped;
        }
        *self.refused.entry(entrance).or_default() += 1;
        Verdict::Refused(full)
    }

    /// One of those who were welcome has gone.
    pub fn leave(&mut self, address: Address) {
        self.clients -= 1;
        take_one(&mut self.sources, source_of(address));
    }

    /// One of those who were refused at an entrance has gone.
    pub fn leave_refused(&mut self, entrance: usize) {
        take_one(&mut self.refused, entrance);
    }

    /// Whether there are clients that are no WebSockets, or not yet.
    pub fn has_handshakes(&self) -> bool {
        self.handshakes > 0
    }

    /// One has become a WebSocket, or is at its end.
    pub fn end_handshake(&mut self) {
        self.handshakes -= 1;
    }

    /// A connection held so many bytes and now holds so many.
    pub fn hold(&mut self, before: usize, now: usize) {
        self.held_size = self.held_size + now as u64 - before as u64;
    }

    /// Whether all together hold more than they may.
    pub fn holds_too_much(&self) -> bool {
        self.held_size > self.limits.queued_size_max
    }

    /// Whether nobody and nothing is counted, as at the end.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let is_nobody = self.clients == 0 && self.sources.is_empty() && self.refused.is_empty();
        is_nobody && self.handshakes == 0 && self.held_size == 0
    }
}

/// Counts one less, and forgets what nobody is counted for.
fn take_one<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// What counts as the one address that a client comes from.
pub fn source_of(address: Address) -> Source {
    let Address::Tcp(address) = address else { return Source::Unknown };
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => Source::V4(v4.octets()),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            Source::V6([a, b, c, d, e, f, g, h])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::Tcp(text.parse().unwrap())
    }

    fn admission(clients_max: u64, clients_per_address_max: u64, handshakes_max: u64) -> Admission {
        Admission::new(Process { clients_max, clients_per_address_max, handshakes_max, ..Process::default() })
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let mut admission = admission(100, 2, 100);
        for (from, verdict) in [
            ("10.0.0.1:1", Verdict::Welcome),
            ("10.0.0.1:2", Verdict::Welcome),
            ("10.0.0.1:3", Verdict::Refused(Full::Address)),
            ("[::ffff:10.0.0.1]:4", Verdict::Refused(Full::Address)),
            ("10.0.0.2:1", Verdict::Welcome),
            ("[2001:db8:0:1::1]:1", Verdict::Welcome),
            ("[2001:db8:0:1:ffff::2]:1", Verdict::Welcome),
            ("[2001:db8:0:1::3]:1", Verdict::Refused(Full::Address)),
            ("[2001:db8:0:2::1]:1", Verdict::Welcome),
        ] {
            assert_eq!(admission.enter(address(from), 7, 0, 100), verdict, "{from}");
        }
        admission.leave(address("10.0.0.1:9"));
        assert_eq!(admission.enter(address("10.0.0.1:5"), 7, 0, 100), Verdict::Welcome);
    }

    /// As nothing is configured, half-open requests of one address leave places for others.
    #[test]
    fn one_address_does_not_take_all_places_of_handshakes() {
        let mut admission = Admission::new(Process::default());
        while admission.enter(address("10.0.0.1:1"), 7, 0, u64::MAX) == Verdict::Welcome {}
        assert_eq!(admission.enter(address("10.0.0.2:1"), 7, 0, u64::MAX), Verdict::Welcome);
    }

    #[test]
    fn each_limit_has_its_reason() {
        assert_eq!(admission(0, 0, 9).enter(Address::Unix, 7, 0, 9), Verdict::Refused(Full::Clients));
        assert_eq!(admission(9, 0, 9).enter(Address::Unix, 7, 2, 2), Verdict::Refused(Full::Server));
        assert_eq!(admission(9, 0, 0).enter(Address::Unix, 7, 0, 9), Verdict::Refused(Full::Handshakes));
        let mut full = admission(1, 0, 1_000);
        assert_eq!(full.enter(Address::Unix, 7, 0, 9), Verdict::Welcome);
        for _ in 0..OVERLOAD_REPLIES_MAX {
            assert_eq!(full.enter(Address::Unix, 7, 0, 9), Verdict::Refused(Full::Clients));
        }
        assert_eq!(full.enter(Address::Unix, 7, 0, 9), Verdict::Dropped);
    }

    /// Those who are being refused take nobody's place, neither in all nor at their entrance.
    #[test]
    fn the_refused_are_in_nobodys_way() {
        let mut admission = admission(4, 1, 9);
        assert_eq!(admission.enter(address("10.0.0.1:1"), 7, 0, 2), Verdict::Welcome);
        for there in 1..=OVERLOAD_REPLIES_MAX {
            assert_eq!(admission.enter(address("10.0.0.1:2"), 7, there, 2), Verdict::Refused(Full::Address));
        }
        let there = OVERLOAD_REPLIES_MAX + 1;
        assert_eq!(admission.enter(address("10.0.0.1:2"), 7, there, 2), Verdict::Dropped);
        assert_eq!(admission.enter(address("10.0.0.2:1"), 7, there, 2), Verdict::Welcome);
        (0..OVERLOAD_REPLIES_MAX).for_each(|_| admission.leave_refused(7));
        assert_eq!(admission.enter(address("10.0.0.3:1"), 7, 2, 2), Verdict::Refused(Full::Server));
        admission.leave_refused(7);
        for from in ["10.0.0.1:1", "10.0.0.2:1"] {
            admission.leave(address(from));
            admission.end_handshake();
        }
        assert!(admission.is_empty(), "{admission:?}");
    }
}
