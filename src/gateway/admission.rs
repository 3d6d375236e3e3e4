//! Admission control: limits on clients in total and per address, on connections in their handshake, and on memory
//! held by all connections.

use std::sync::Arc;

use super::endpoint::{Endpoint, StageKind};
use crate::clients::{AddressCounts, AddressUnit, ClientPlace};
use crate::exchange::Full;
use crate::limits::{ABORTED_MS, OVERLOAD_REPLIES_MAX, Process};
use crate::permit::{Count, Permit};
use crate::types::Address;

/// Counts and their limits.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Configured process limits.
    pub(crate) limits: Process,
    /// Clients being refused with an error response. They do not count against other limits.
    pub(super) refused: Arc<Count>,
    /// Clients that have not completed a WebSocket handshake.
    handshakes: Arc<Count>,
    /// Clients that have not completed a TLS handshake. They do not count as handshakes yet.
    tls_handshakes: Arc<Count>,
    /// Bytes that connections hold outside the pool, without those that end.
    held_size: u64,
    /// Bytes that connections aborted for the memory limit hold outside the pool. The driver returns them in the next
    /// waits.
    aborted_size: u64,
    /// When `aborted_size` last grew, in ms.
    aborted_ms: u64,
}

/// Bytes that a connection holds outside the pool, and whether it was aborted for them, in four bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct HeldSize(u32);

impl HeldSize {
    const ABORTED: u32 = 1 << 31;

    /// `size` bytes. More than 2 GiB are counted as 2 GiB.
    pub(crate) fn new(size: usize, is_aborted: bool) -> HeldSize {
        let size = u32::try_from(size).unwrap_or(u32::MAX).min(HeldSize::ABORTED - 1);
        HeldSize(if is_aborted { size | HeldSize::ABORTED } else { size })
    }

    /// The number of bytes.
    pub(crate) fn size(self) -> usize {
        (self.0 & !HeldSize::ABORTED) as usize
    }

    /// The sizes for `held_size` and `aborted_size`.
    fn sizes(self) -> (u64, u64) {
        let size = self.size() as u64;
        if self.0 & HeldSize::ABORTED == 0 { (size, 0) } else { (0, size) }
    }
}

/// Permits of one connection, returned on drop. The permit of its handshake is returned earlier.
#[derive(Debug)]
pub(crate) enum Places<H> {
    /// The connection is served.
    Admitted {
        /// Permit of the endpoint that serves it.
        endpoint: Permit<Endpoint<H>>,
        /// Place of its client's address. None: the connection of a trusted proxy, whose client is not known.
        address: Option<ClientPlace>,
    },
    /// The connection gets an error response only.
    Refused(Box<Refusal<H>>),
}

/// A connection beyond a limit.
#[derive(Debug)]
pub(crate) struct Refusal<H> {
    /// Endpoint that accepted the connection.
    endpoint: Arc<Endpoint<H>>,
    /// The limit that was reached.
    pub(crate) full: Full,
    _permit: Permit<Count>,
}

/// Permit of a connection that has not completed a TLS handshake, or else a WebSocket handshake.
pub(crate) type Handshake = Permit<Count>;

impl<H> Places<H> {
    /// The endpoint that accepted the connection.
    pub(crate) fn endpoint(&self) -> &Endpoint<H> {
        match self {
            Places::Admitted { endpoint, .. } => endpoint,
            Places::Refused(refusal) => &refusal.endpoint,
        }
    }

    /// Refuses a client that was admitted before it was known, which gives its places to others. Like those that are
    /// refused at once, it has a permit of `refused`. False: there is none, and nothing changes.
    pub(crate) fn refuse(&mut self, full: Full, refused: &Arc<Count>) -> bool {
        let Places::Admitted { endpoint, .. } = self else { return true };
        let Some(permit) = Permit::take(refused, OVERLOAD_REPLIES_MAX) else { return false };
        let refusal = Refusal { endpoint: endpoint.shared(), full, _permit: permit };
        *self = Places::Refused(Box::new(refusal));
        true
    }

    /// The limit for which the connection is refused. None: it is served.
    pub(crate) fn full(&self) -> Option<Full> {
        match self {
            Places::Admitted { .. } => None,
            Places::Refused(refusal) => Some(refusal.full),
        }
    }

    /// Replaces the place of the client's address; the one before is returned. A refused connection has none.
    pub(crate) fn set_client(&mut self, place: Option<ClientPlace>) {
        if let Places::Admitted { address, .. } = self {
            *address = place;
        }
    }
}

impl Admission {
    /// Creates empty counts.
    pub(crate) fn new(limits: Process) -> Admission {
        Admission {
            limits,
            refused: Arc::default(),
            handshakes: Arc::default(),
            tls_handshakes: Arc::default(),
            held_size: 0,
            aborted_size: 0,
            aborted_ms: 0,
        }
    }

    /// Admits or refuses a new connection. `client` is the address of which it takes a place of `counts`; None: a trusted
    /// proxy, which takes none. `there` is the number of existing connections, admitted or refused. None: not even a
    /// refusal is possible, so close the socket. A refused connection has no handshake permit.
    pub(crate) fn enter<H>(
        &self,
        client: Option<Address>,
        counts: &AddressCounts,
        endpoint: &Arc<Endpoint<H>>,
        there: u64,
    ) -> Option<(Places<H>, Option<Handshake>)> {
        let full = match self.admit(client, counts, endpoint, there) {
            Ok((places, handshake)) => return Some((places, Some(handshake))),
            Err(full) => full,
        };
        let permit = Permit::take(&self.refused, OVERLOAD_REPLIES_MAX)?;
        let refusal = Refusal { endpoint: endpoint.clone(), full, _permit: permit };
        Some((Places::Refused(Box::new(refusal)), None))
    }

    fn admit<H>(
        &self,
        client: Option<Address>,
        counts: &AddressCounts,
        endpoint: &Arc<Endpoint<H>>,
        there: u64,
    ) -> Result<(Places<H>, Handshake), Full> {
        if there - self.refused.held() >= self.limits.clients_max {
            return Err(Full::Clients);
        }
        let address = match client {
            Some(client) => Some(counts.take(AddressUnit::of(client)).ok_or(Full::Address)?),
            None => None,
        };
        let endpoint = Permit::take(endpoint, endpoint.clients_max).ok_or(Full::Server)?;
        let handshake = match endpoint.stage {
            StageKind::Tls(_) => {
                Permit::take(&self.tls_handshakes, self.limits.tls_handshakes_max).ok_or(Full::TlsHandshakes)?
            }
            _ => self.take_handshake()?,
        };
        Ok((Places::Admitted { endpoint, address }, handshake))
    }

    fn take_handshake(&self) -> Result<Handshake, Full> {
        Permit::take(&self.handshakes, self.limits.handshakes_max).ok_or(Full::Handshakes)
    }

    /// Exchanges the permit of a TLS handshake, which is complete, for that of a handshake.
    pub(crate) fn secure(&self, handshake: &mut Handshake) -> Result<(), Full> {
        *handshake = self.take_handshake()?;
        Ok(())
    }

    /// Whether any client has not completed a WebSocket handshake.
    pub(crate) fn has_handshakes(&self) -> bool {
        self.handshakes.held() + self.tls_handshakes.held() > 0
    }

    /// Updates what one connection holds from `before` to `now`.
    pub(crate) fn hold(&mut self, before: HeldSize, now: HeldSize, now_ms: u64) {
        let ((held_before, aborted_before), (held, aborted)) = (before.sizes(), now.sizes());
        self.held_size = self.held_size + held - held_before;
        self.aborted_size = self.aborted_size + aborted - aborted_before;
        if aborted > aborted_before {
            self.aborted_ms = now_ms;
        }
    }

    /// Whether the connections that do not end exceed the memory limit, so that one of them must.
    pub(crate) fn holds_too_much(&self) -> bool {
        self.held_size > self.limits.queued_size_max
    }

    /// Whether more may be held now. The memory of aborted connections counts for a while, since it is free soon.
    pub(crate) fn has_room(&self, now_ms: u64) -> bool {
        let counts_aborted = now_ms.saturating_sub(self.aborted_ms) < ABORTED_MS;
        let size = self.held_size + if counts_aborted { self.aborted_size } else { 0 };
        size <= self.limits.queued_size_max
    }

    /// The bytes that all connections hold outside the pool.
    #[cfg(test)]
    pub(crate) fn held_size(&self) -> u64 {
        self.held_size + self.aborted_size
    }

    /// Whether all counts are zero, as expected after shutdown.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.refused.held() == 0 && !self.has_handshakes() && self.held_size + self.aborted_size == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Sites;

    fn address(text: &str) -> Address {
        Address::Tcp(text.parse().unwrap())
    }

    /// The admission, and the counts of addresses.
    struct Entrance(Admission, AddressCounts);

    impl Entrance {
        fn new(limits: Process) -> Entrance {
            let counts = AddressCounts::new(limits.clients_per_address_max);
            Entrance(Admission::new(limits), counts)
        }

        fn enter(
            &self,
            client: impl Into<Option<Address>>,
            endpoint: &Arc<Endpoint<()>>,
            there: u64,
        ) -> Option<(Places<()>, Option<Handshake>)> {
            self.0.enter(client.into(), &self.1, endpoint, there)
        }

        fn is_empty(&self) -> bool {
            self.0.is_empty() && self.1.is_empty()
        }
    }

    fn admission(clients_max: u64, clients_per_address_max: u64, handshakes_max: u64) -> Entrance {
        Entrance::new(Process { clients_max, clients_per_address_max, handshakes_max, ..Process::default() })
    }

    fn endpoint(clients_max: u64) -> Arc<Endpoint<()>> {
        let sites = Sites::new(Arc::default(), Vec::new());
        Arc::new(Endpoint {
            sites,
            folders: Vec::new(),
            stage: StageKind::Plain,
            clients_max,
            clients: Count::default(),
        })
    }

    /// The limit that was reached. None: admitted.
    fn reached(entered: &Option<(Places<()>, Option<Handshake>)>) -> Option<Full> {
        entered.as_ref().expect("a refusal is possible").0.full()
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let (admission, endpoint, mut there) = (admission(100, 2, 100), endpoint(100), Vec::new());
        for (from, full) in [
            ("10.0.0.1:1", None),
            ("10.0.0.1:2", None),
            ("10.0.0.1:3", Some(Full::Address)),
            ("[::ffff:10.0.0.1]:4", Some(Full::Address)),
            ("10.0.0.2:1", None),
            ("[2001:db8:0:1::1]:1", None),
            ("[2001:db8:0:1:ffff::2]:1", None),
            ("[2001:db8:0:1::3]:1", Some(Full::Address)),
            ("[2001:db8:0:2::1]:1", None),
        ] {
            let places = admission.enter(address(from), &endpoint, there.len() as u64);
            assert_eq!(reached(&places), full, "{from}");
            there.push(places);
        }
        there.remove(0);
        assert_eq!(reached(&admission.enter(address("10.0.0.1:5"), &endpoint, there.len() as u64)), None);
    }

    /// A trusted proxy has the connections of many clients, each of which takes its place once it is known.
    #[test]
    fn a_proxy_takes_no_place_of_an_address() {
        let (admission, endpoint) = (admission(100, 1, 100), endpoint(100));
        let mut proxies: Vec<_> = (0..3).map(|number| admission.enter(None, &endpoint, number)).collect();
        assert!(proxies.iter().all(|places| reached(places).is_none()));
        let client = AddressUnit::of(address("10.0.0.1:1"));
        let (places, _) = proxies[0].as_mut().unwrap();
        places.set_client(admission.1.take(client));
        assert_eq!(reached(&admission.enter(address("10.0.0.1:2"), &endpoint, 3)), Some(Full::Address));
        let (places, _) = proxies[0].as_mut().unwrap();
        places.set_client(None);
        assert_eq!(reached(&admission.enter(address("10.0.0.1:2"), &endpoint, 3)), None);
    }

    /// A client that is refused once it is known has no other place than those that are refused at once.
    #[test]
    fn clients_refused_after_their_header_are_in_nobodys_way() {
        let (admission, endpoint) = (admission(2, 1, 9), endpoint(1));
        let mut refused = Vec::new();
        for number in 0..OVERLOAD_REPLIES_MAX {
            let mut entered = admission.enter(None, &endpoint, number);
            assert_eq!(reached(&entered), None, "after {number} others");
            let (places, handshake) = entered.as_mut().unwrap();
            *handshake = None;
            assert!(places.refuse(Full::Address, &admission.0.refused));
            assert_eq!(reached(&entered), Some(Full::Address));
            refused.push(entered);
        }
        let mut entered = admission.enter(None, &endpoint, OVERLOAD_REPLIES_MAX);
        let (places, _) = entered.as_mut().unwrap();
        assert!(!places.refuse(Full::Address, &admission.0.refused) && places.full().is_none());
        drop((entered, refused));
        assert!(admission.is_empty() && endpoint.permits_held() == 0);
    }

    /// With default limits, half-open requests of one address leave handshake permits for other addresses.
    #[test]
    fn one_address_does_not_take_all_places_of_handshakes() {
        let (admission, endpoint) = (Entrance::new(Process::default()), endpoint(u64::MAX));
        let mut there = Vec::new();
        loop {
            let places = admission.enter(address("10.0.0.1:1"), &endpoint, there.len() as u64);
            if reached(&places).is_some() {
                break;
            }
            there.push(places);
        }
        assert_eq!(reached(&admission.enter(address("10.0.0.2:1"), &endpoint, there.len() as u64)), None);
    }

    #[test]
    fn the_memory_of_aborted_connections_counts_for_a_while() {
        let limits = Process { queued_size_max: 100, ..Process::default() };
        let mut admission = Admission::new(limits);
        let (none, living, aborted) = (HeldSize::default(), HeldSize::new(80, false), HeldSize::new(80, true));
        admission.hold(none, living, 1);
        assert!(admission.has_room(1) && !admission.holds_too_much());
        admission.hold(none, living, 1);
        assert!(!admission.has_room(1) && admission.holds_too_much());
        admission.hold(living, aborted, 2);
        assert!(!admission.holds_too_much(), "no other connection has to be aborted");
        for (now_ms, has_room) in [(2, false), (1 + ABORTED_MS, false), (2 + ABORTED_MS, true)] {
            assert_eq!(admission.has_room(now_ms), has_room, "at {now_ms} ms");
        }
        admission.hold(aborted, none, 3);
        admission.hold(living, none, 3);
        assert!(admission.has_room(3) && admission.is_empty());
        assert_eq!(HeldSize::new(usize::MAX, true).size(), (1 << 31) - 1);
    }

    #[test]
    fn each_limit_has_its_reason() {
        let (some, none) = (endpoint(9), endpoint(0));
        assert_eq!(reached(&admission(0, 0, 9).enter(Address::Unix, &some, 0)), Some(Full::Clients));
        assert_eq!(reached(&admission(9, 0, 9).enter(Address::Unix, &none, 0)), Some(Full::Server));
        assert_eq!(reached(&admission(9, 0, 0).enter(Address::Unix, &some, 0)), Some(Full::Handshakes));
        let full = admission(1, 0, 1_000);
        let mut there = vec![full.enter(Address::Unix, &some, 0)];
        for _ in 0..OVERLOAD_REPLIES_MAX {
            let places = full.enter(Address::Unix, &some, there.len() as u64);
            assert_eq!(reached(&places), Some(Full::Clients));
            there.push(places);
        }
        assert!(full.enter(Address::Unix, &some, there.len() as u64).is_none());
    }

    /// Refused clients take no permit of the process or of their endpoint.
    #[test]
    fn the_refused_are_in_nobodys_way() {
        let (admission, endpoint) = (admission(4, 1, 9), endpoint(2));
        let mut there = vec![admission.enter(address("10.0.0.1:1"), &endpoint, 0)];
        let mut refused = Vec::new();
        for _ in 0..OVERLOAD_REPLIES_MAX {
            let count = (there.len() + refused.len()) as u64;
            refused.push(admission.enter(address("10.0.0.1:2"), &endpoint, count));
            assert_eq!(reached(&refused[refused.len() - 1]), Some(Full::Address));
        }
        let count = OVERLOAD_REPLIES_MAX + 1;
        assert!(admission.enter(address("10.0.0.1:2"), &endpoint, count).is_none());
        there.push(admission.enter(address("10.0.0.2:1"), &endpoint, count));
        assert_eq!(reached(&there[1]), None);
        refused.clear();
        assert_eq!(reached(&admission.enter(address("10.0.0.3:1"), &endpoint, 2)), Some(Full::Server));
        assert!(!admission.is_empty());
        there.clear();
        assert!(admission.is_empty() && endpoint.clients.held() == 0);
    }
}
