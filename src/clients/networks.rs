//! Networks in CIDR notation (RFC 4632), for lists of trusted proxies and of clients.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::decimal;
use crate::types::Address;

/// Networks, and whether clients of UNIX sockets are among them. Two lists of the same networks are equal, whatever
/// their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Networks {
    /// Sorted, without duplicates.
    networks: Vec<Network>,
    has_unix: bool,
}

/// The address, whose bits after the leading `bits` are zero. It is not an IPv4 address mapped to IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Networks {
    /// Parses "10.0.0.0/8", "2001:db8::/32", one address, or "unix:", and adds it. The error is the sentence after
    /// the key for the operator.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text == "unix:" {
            self.has_unix = true;
            return Ok(());
        }
        let network = Network::parse(text)?;
        if let Err(at) = self.networks.binary_search(&network) {
            self.networks.insert(at, network);
        }
        Ok(())
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.has_unix
    }

    /// Whether all IPv4 or all IPv6 addresses are listed, by one network or by several together.
    pub fn has_everyone(&self) -> bool {
        [32, 128].into_iter().any(|bits_max| self.has_all(bits_max))
    }

    /// Whether all addresses of the family with these bits are listed.
    fn has_all(&self, bits_max: u32) -> bool {
        let end = u128::MAX >> (128 - bits_max);
        // The first address that is not among the networks up to here.
        let mut next = 0;
        for network in self.networks.iter().filter(|network| bits_of(network.address) == bits_max) {
            let first = match network.address {
                IpAddr::V4(v4) => v4.to_bits().into(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            let last = first | u128::MAX.checked_shr(128 - (bits_max - network.bits)).unwrap_or(0);
            if first > next {
                return false;
            }
            if last == end {
                return true;
            }
            next = next.max(last + 1);
        }
        false
    }

    /// Whether the address is listed. An IPv4 address mapped to IPv6 is that IPv4 address.
    pub fn has(&self, address: Address) -> bool {
        match address {
            Address::Tcp(address) => self.has_ip(address.ip()),
            Address::Unix => self.has_unix,
            Address::Unknown => false,
        }
    }

    /// The bits of the longest network that has the address; 0 for a client of a UNIX socket. None: it is not listed.
    pub(crate) fn prefix_of(&self, address: Address) -> Option<u32> {
        let Address::Tcp(address) = address else { return self.has(address).then_some(0) };
        let ip = address.ip().to_canonical();
        self.networks.iter().filter(|network| network.has(ip)).map(|network| network.bits).max()
    }

    /// The first address of each network, with port 0.
    pub(crate) fn first_addresses(&self) -> impl Iterator<Item = Address> {
        let firsts = self.networks.iter().map(|network| Address::Tcp(SocketAddr::new(network.address, 0)));
        firsts.chain(self.has_unix.then_some(Address::Unix))
    }

    /// A network, or "unix:", that is part of these and of `others`, as a configuration has it. One that `denied` has as a
    /// whole, in a network as long as that of these or longer, does not count.
    pub(crate) fn common_without(&self, others: &Networks, denied: &Networks) -> Option<String> {
        let of_pair = |(own, other): (&Network, &Network)| {
            let common = [own, other].into_iter().max_by_key(|network| network.bits)?;
            let is_denied = |network: &Network| network.bits >= own.bits && network.contains(common);
            let is_common = own.contains(common) && other.contains(common);
            (is_common && !denied.networks.iter().any(is_denied)).then(|| common.to_string())
        };
        let mut pairs = self.networks.iter().flat_map(|own| others.networks.iter().map(move |other| (own, other)));
        let has_unix = self.has_unix && others.has_unix && !denied.has_unix;
        pairs.find_map(of_pair).or(has_unix.then(|| "unix:".to_owned()))
    }

    /// As `has`.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.has(ip))
    }
}

impl Network {
    /// The error is a sentence for the operator.
    fn parse(text: &str) -> Result<Network, String> {
        let unknown =
            || format!("{text:?} is not a network: write one such as 10.0.0.0/8, 2001:db8::/32, 192.0.2.1 or unix:");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let written: IpAddr = address.parse().map_err(|_| unknown())?;
        let bits_max = bits_of(written);
        let bits = match bits {
            None => bits_max,
            Some(bits) => decimal(bits).filter(|bits| *bits <= bits_max).ok_or_else(unknown)?,
        };
        let Network { address, .. } = Network::of(written, bits);
        if address != written {
            return Err(format!("{text:?} has bits beyond its prefix: write {address}/{bits}"));
        }
        // Of ::ffff:10.0.0.0/104 the prefix of 96 bits is left out. A shorter one has no address mapped to IPv6.
        let address = written.to_canonical();
        Ok(Network { address, bits: bits - (bits_max - bits_of(address)) })
    }

    /// The network of this address.
    fn of(ip: IpAddr, bits: u32) -> Network {
        // All bits of an empty prefix are shifted out.
        let address = match ip {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into()),
        };
        Network { address, bits }
    }

    fn contains(&self, other: &Network) -> bool {
        self.bits <= other.bits && self.has(other.address)
    }

    fn has(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.address.is_ipv4() && Network::of(ip, self.bits) == *self
    }
}

impl fmt::Display for Network {
    /// In CIDR notation; one address alone without its bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.bits < bits_of(self.address) { write!(f, "/{}", self.bits) } else { Ok(()) }
    }
}

/// Bits of an address of this family.
fn bits_of(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &str) -> Networks {
        let mut networks = Networks::default();
        list.split(' ').filter(|text| !text.is_empty()).for_each(|text| networks.add(text).unwrap());
        networks
    }

    #[test]
    fn addresses_in_networks() {
        for (list, inside, outside) in [
            ("", "", "0.0.0.0 127.0.0.1 :: ::1"),
            ("10.0.0.0/8", "10.0.0.0 10.255.255.255 ::ffff:10.1.2.3", "9.255.255.255 11.0.0.0 ::10.0.0.1 a00::"),
            ("192.0.2.1", "192.0.2.1 ::ffff:192.0.2.1", "192.0.2.0 192.0.2.2"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.0 192.0.2.2"),
            ("192.0.2.2/31", "192.0.2.2 192.0.2.3", "192.0.2.1 192.0.2.4"),
            ("0.0.0.0/0", "0.0.0.0 255.255.255.255 ::ffff:1.2.3.4", ":: ::1 2001:db8::1"),
            ("::/0", ":: 2001:db8::1 ffff:ffff::", "1.2.3.4 ::ffff:1.2.3.4"),
            ("::ffff:10.0.0.0/104", "10.1.2.3 ::ffff:10.1.2.3", "11.0.0.0 ::"),
            ("::ffff:0:0/96", "10.1.2.3", "::1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::/80", "::1 ::fffe:1.2.3.4", "10.0.0.1 0:0:0:0:1::"),
            ("2001:db8::/33", "2001:db8:7fff:: 2001:db8::1", "2001:db8:8000:: 2001:db7:ffff::"),
            ("2001:db8::1 10.0.0.0/8", "2001:db8::1 10.0.0.1", "2001:db8::2 fe80::1"),
        ] {
            let networks = networks(list);
            for (ips, is_inside) in [(inside, true), (outside, false)] {
                for ip in ips.split(' ').filter(|ip| !ip.is_empty()) {
                    let ip: IpAddr = ip.parse().unwrap();
                    assert_eq!(networks.has_ip(ip), is_inside, "{ip} in {list}");
                    assert_eq!(networks.has(Address::Tcp((ip, 80).into())), is_inside, "{ip} in {list}");
                }
            }
            assert!(!networks.has(Address::Unix) && !networks.has(Address::Unknown), "{list}");
            assert_eq!(networks.is_empty(), list.is_empty());
            assert_eq!(networks.has_everyone(), list.ends_with("/0") || list == "::ffff:0:0/96", "{list}");
        }
        let unix = networks("unix:");
        assert!(unix.has(Address::Unix) && !unix.has(Address::Unknown) && !unix.is_empty() && !unix.has_everyone());
        assert!(!unix.has_ip([127, 0, 0, 1].into()));
    }

    #[test]
    fn lists_of_everyone() {
        for (list, is_everyone) in [
            ("0.0.0.0/1 128.0.0.0/1", true),
            ("128.0.0.0/1 64.0.0.0/2 0.0.0.0/2 10.0.0.0/8", true),
            ("0.0.0.0/1 10.0.0.0/8 128.0.0.0/1 255.255.255.255", true),
            ("::/1 8000::/1", true),
            ("::/2 4000::/2 8000::/1 10.0.0.0/8", true),
            ("0.0.0.0/1 128.0.0.0/2", false),
            ("0.0.0.0/2 128.0.0.0/1", false),
            ("0.0.0.0/1 129.0.0.0/8 128.0.0.0/8 255.255.255.255", false),
            ("128.0.0.0/1", false),
            ("0.0.0.0/1 8000::/1", false),
            ("::/1 8000::/2", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 255.255.255.255", false),
        ] {
            assert_eq!(networks(list).has_everyone(), is_everyone, "{list}");
        }
    }

    #[test]
    fn the_order_of_a_list_does_not_matter() {
        let list = networks("10.0.0.0/8 ::1 10.0.0.0/9 unix: 192.0.2.1");
        assert_eq!(list, networks("::1 192.0.2.1/32 unix: 10.0.0.0/9 ::ffff:10.0.0.0/104 ::1"));
        assert_ne!(list, networks("10.0.0.0/8 ::1 10.0.0.0/9 192.0.2.1"));
        assert_ne!(list, networks("10.0.0.0/8 ::1 unix: 192.0.2.1"));
    }

    #[test]
    fn mistakes() {
        let beyond =
            |text: &str, network: &str| (text.to_owned(), format!("has bits beyond its prefix: write {network}"));
        let unknown = |text: &str| {
            let sentence = "is not a network: write one such as 10.0.0.0/8, 2001:db8::/32, 192.0.2.1 or unix:";
            (text.to_owned(), sentence.to_owned())
        };
        for (text, sentence) in [
            beyond("10.0.0.1/8", "10.0.0.0/8"),
            beyond("1.2.3.4/0", "0.0.0.0/0"),
            beyond("2001:db8::1/64", "2001:db8::/64"),
            beyond("::ffff:0:0/90", "::ffc0:0:0/90"),
            unknown(""),
            unknown("/8"),
            unknown("10.0.0.0/"),
            unknown("10.0.0.0/33"),
            unknown("10.0.0.0/08"),
            unknown("10.0.0.0/+8"),
            unknown("10.0.0.0/-1"),
            unknown("10.0.0.0/255.0.0.0"),
            unknown("10.0.0.0/8/8"),
            unknown("10.0.0/8"),
            unknown("010.0.0.0/8"),
            unknown("::/129"),
            unknown("[::1]"),
            unknown("fe80::1%eth0"),
            unknown("127.0.0.1:80"),
            unknown("localhost"),
            unknown("*"),
            unknown("unix"),
            unknown("unix:/run/uakari.sock"),
        ] {
            let mut networks = Networks::default();
            assert_eq!(networks.add(&text), Err(format!("{text:?} {sentence}")));
            assert!(networks.is_empty(), "{text}");
        }
    }
}
