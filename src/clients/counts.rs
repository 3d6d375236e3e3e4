//! How many clients each address has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::permit::{Count, Permit};
use crate::types::Address;

/// Unit of per-address limits: an IPv4 address or an IPv6 /64 prefix, the usual allocation of one customer (RFC 6177).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub(crate) enum AddressUnit {
    V4([u8; 4]),
    V6([u8; 8]),
    /// All clients without an IP address, such as those of a UNIX socket.
    Unknown,
}

impl AddressUnit {
    /// The unit of a client's address.
    pub(crate) fn of(address: Address) -> AddressUnit {
        let Address::Tcp(address) = address else { return AddressUnit::Unknown };
        match address.ip().to_canonical() {
            IpAddr::V4(v4) => AddressUnit::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                AddressUnit::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// One place among those of a client's address, returned on drop.
pub(crate) type ClientPlace = Permit<Count>;

/// The clients of each address, shared by the gateway and the exchanges of its one thread.
#[derive(Debug)]
pub(crate) struct AddressCounts {
    /// Maximum for each address; 0: no limit.
    pub(crate) clients_per_address_max: u64,
    counts: RefCell<HashMap<AddressUnit, Arc<Count>>>,
}

impl AddressCounts {
    /// Creates empty counts.
    pub(crate) fn new(clients_per_address_max: u64) -> AddressCounts {
        AddressCounts { clients_per_address_max, counts: RefCell::default() }
    }

    /// A place of this unit. None: all of them are taken. Clients without an IP address are not limited.
    pub(crate) fn take(&self, unit: AddressUnit) -> Option<ClientPlace> {
        self.take_after(None, unit)
    }

    /// As `take`, for the next client of a connection that gives back a place of the unit `given_back` at the same time.
    pub(crate) fn take_after(&self, given_back: Option<AddressUnit>, unit: AddressUnit) -> Option<ClientPlace> {
        let places_max = match unit {
            AddressUnit::Unknown => u64::MAX,
            _ if self.clients_per_address_max == 0 => u64::MAX,
            _ => self.clients_per_address_max,
        };
        let places_max = places_max.saturating_add(u64::from(given_back == Some(unit)));
        let mut counts = self.counts.borrow_mut();
        // Removes addresses without clients before the table would grow.
        if counts.len() == counts.capacity() {
            counts.retain(|_, count| count.held() > 0);
        }
        Permit::take(counts.entry(unit).or_default(), places_max)
    }

    /// Whether no place is taken.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.borrow().values().all(|count| count.held() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> AddressUnit {
        AddressUnit::of(Address::Tcp((text.parse::<IpAddr>().unwrap(), 1).into()))
    }

    #[test]
    fn units_of_addresses() {
        for (one, other, is_same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            assert_eq!(unit(one) == unit(other), is_same, "{one} {other}");
        }
        assert_eq!(AddressUnit::of(Address::Unix), AddressUnit::of(Address::Unknown));
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let counts = AddressCounts::new(2);
        let (first, second) = (unit("10.0.0.1"), unit("10.0.0.2"));
        let mut places = vec![counts.take(first).unwrap(), counts.take(first).unwrap()];
        assert!(counts.take(first).is_none() && counts.take(second).is_some());
        assert!(!counts.is_empty());

        // The same connection, whose client changes: its old place is dropped after the new one is taken.
        assert!(counts.take_after(Some(second), first).is_none(), "another address gives its place back");
        let next = counts.take_after(Some(first), first).unwrap();
        assert!(counts.take_after(Some(first), first).is_none(), "one place too many at most");
        places[0] = next;
        assert!(counts.take(first).is_none());
        places.clear();
        assert!(counts.is_empty() && counts.take(first).is_some());

        let (unlimited, mut there) = (AddressCounts::new(0), Vec::new());
        for _ in 0..3 {
            there.extend(unlimited.take(first));
        }
        let only = AddressCounts::new(1);
        for _ in 0..3 {
            there.extend(only.take(AddressUnit::Unknown));
        }
        assert_eq!(there.len(), 6, "neither is limited");
    }

    /// A client with a whole network of addresses does not fill the memory.
    #[test]
    fn addresses_without_clients_are_forgotten() {
        let counts = AddressCounts::new(1);
        let held = counts.take(unit("192.0.2.1")).unwrap();
        for number in 0_u32..10_000 {
            drop(counts.take(AddressUnit::V4(number.to_be_bytes())));
        }
        let size = counts.counts.borrow().capacity();
        assert!(size < 100, "{size}");
        assert!(counts.take(unit("192.0.2.1")).is_none(), "a held place is not forgotten");
        drop(held);
    }
}
