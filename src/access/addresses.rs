//! Which addresses may come in.

use std::borrow::Cow;

use patterns::Patterns;

use crate::clients::Networks;
use crate::types::Address;

/// Networks that may come in, and networks that may not: the longest matching prefix decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Addresses {
    /// Those that may. Empty: all that are not denied.
    pub allow: Networks,
    /// Those that may not.
    pub deny: Networks,
}

impl Addresses {
    /// Whether a client with this address may come in. Two networks with one prefix: it may not. An address that is not
    /// known may not.
    pub(crate) fn admit(&self, address: Address) -> bool {
        match (self.allow.prefix_of(address), self.deny.prefix_of(address)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty() && address != Address::Unknown,
        }
    }

    /// One of these networks, or a part of it, that `allow` lists and `deny` does not refuse as a whole. None: there is
    /// none, or all addresses are listed.
    pub(crate) fn listed_of(&self, networks: &Networks) -> Option<String> {
        self.allow.common_without(networks, &self.deny).filter(|_| !self.allow.has_everyone())
    }
}

/// ouistiti's `clientfilter`: patterns that are compared with the text of an address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientFilter {
    allow: Patterns,
    deny: Patterns,
}

impl ClientFilter {
    /// Reads two lists of patterns, separated by commas. A pattern of `allow` begins at the address's first character:
    /// ouistiti's would find "127." in 10.127.0.1 too.
    pub fn new(allow: &str, deny: &str) -> ClientFilter {
        let anchored = |element: &str| match element.trim() {
            "" => String::new(),
            element if element.starts_with('^') => element.to_owned(),
            element => format!("^{element}"),
        };
        let allow: Vec<String> = allow.split(',').map(anchored).collect();
        ClientFilter { allow: Patterns::parse(&allow.join(",")), deny: Patterns::parse(deny) }
    }

    /// Whether a client with this address may connect: it does not match `deny`, or it matches `allow`.
    pub(crate) fn admits(&self, address: Address) -> bool {
        let text = shown_ip(address);
        !self.deny.matches(&text) || self.allow.matches(&text)
    }

    /// An address of these networks that `allow` matches. None: none was found.
    pub(crate) fn listed_of(&self, networks: &Networks) -> Option<Address> {
        networks.first_addresses().find(|address| self.allow.matches(&shown_ip(*address)))
    }
}

/// The address without its port, as patterns and questions have it. A client of a UNIX socket has none, but its text is
/// not empty for patterns.
pub(crate) fn shown_ip(address: Address) -> Cow<'static, str> {
    match address {
        Address::Tcp(address) => address.ip().to_canonical().to_string().into(),
        Address::Unix => "unix".into(),
        Address::Unknown => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &str) -> Networks {
        let mut networks = Networks::default();
        list.split(' ').filter(|text| !text.is_empty()).for_each(|text| networks.add(text).unwrap());
        networks
    }

    fn address(text: &str) -> Address {
        match text {
            "unix" => Address::Unix,
            "unknown" => Address::Unknown,
            v6 if v6.contains(':') => Address::Tcp(format!("[{v6}]:80").parse().unwrap()),
            v4 => Address::Tcp(format!("{v4}:80").parse().unwrap()),
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        for (allow, deny, admitted, refused) in [
            ("", "", "1.2.3.4 ::1 unix", "unknown"),
            ("10.0.0.0/8", "", "10.1.2.3 ::ffff:10.1.2.3", "11.0.0.0 ::1 unix unknown"),
            ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.1 10.2.0.0", "10.1.0.0 10.1.255.255 11.0.0.1 unix"),
            ("10.1.0.0/16", "10.0.0.0/8", "10.1.0.1", "10.2.0.1 11.0.0.1"),
            ("10.0.0.0/8", "10.0.0.0/8", "", "10.0.0.1 11.0.0.1"),
            ("10.0.0.0/8 10.1.2.3", "10.1.0.0/16", "10.1.2.3 10.2.0.1", "10.1.2.4"),
            ("", "10.0.0.0/8", "11.0.0.1 ::1 unix", "10.0.0.1 ::ffff:10.0.0.1 unknown"),
            ("", "0.0.0.0/0", "::1 unix", "1.2.3.4"),
            ("192.0.2.1", "0.0.0.0/0 ::/0", "192.0.2.1", "192.0.2.2 ::1 unix"),
            ("2001:db8::/32", "2001:db8:1::/48", "2001:db8::1", "2001:db8:1::1 ::1 1.2.3.4"),
            ("unix:", "", "unix", "127.0.0.1 ::1 unknown"),
            ("", "unix:", "127.0.0.1", "unix unknown"),
            ("unix:", "unix:", "", "unix"),
        ] {
            let addresses = Addresses { allow: networks(allow), deny: networks(deny) };
            for (list, is_admitted) in [(admitted, true), (refused, false)] {
                for text in list.split(' ').filter(|text| !text.is_empty()) {
                    assert_eq!(addresses.admit(address(text)), is_admitted, "{text}: {allow} but {deny}");
                }
            }
        }
    }

    #[test]
    fn addresses_of_proxies() {
        for (allow, deny, proxies, found) in [
            ("127.0.0.1 ::1", "", "127.0.0.1", "127.0.0.1"),
            ("10.0.0.0/8", "", "10.0.0.1", "10.0.0.1"),
            ("10.1.0.0/16", "", "10.0.0.0/8", "10.1.0.0/16"),
            ("unix:", "", "127.0.0.1 unix:", "unix:"),
            ("unix:", "unix:", "unix:", ""),
            ("10.0.0.0/8", "10.0.0.1", "10.0.0.1", ""),
            ("10.0.0.0/8", "10.0.0.0", "10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/8", ""),
            ("10.0.0.0/8 10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "10.1.0.0/16"),
            ("10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "10.1.2.3"),
            ("10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", ""),
            ("2001:db8::/32", "", "10.0.0.1 2001:db8:1::/48", "2001:db8:1::/48"),
            ("10.0.0.0/8", "", "127.0.0.1", ""),
            ("10.0.0.0/8", "", "", ""),
            ("", "10.0.0.0/8", "127.0.0.1", ""),
            ("0.0.0.0/0", "", "127.0.0.1", ""),
        ] {
            let addresses = Addresses { allow: networks(allow), deny: networks(deny) };
            let listed = addresses.listed_of(&networks(proxies)).unwrap_or_default();
            assert_eq!(listed, found, "{allow} but {deny}: {proxies}");
        }
        let filter = ClientFilter::new("127.*", "*");
        assert_eq!(filter.listed_of(&networks("10.0.0.1 127.0.0.1")).map(shown_ip).as_deref(), Some("127.0.0.1"));
        assert_eq!(filter.listed_of(&networks("10.0.0.1")), None);
    }

    #[test]
    fn patterns_of_addresses() {
        for (allow, deny, admitted, refused) in [
            ("127.*", "*", "127.0.0.1 ::ffff:127.0.0.1", "10.127.0.1 192.0.2.1 ::1 unix unknown"),
            ("", "192.0.2.*", "10.0.0.1 ::1 unix", "192.0.2.1 192.0.2.255"),
            ("", "", "10.0.0.1 unknown", ""),
            ("^10.,::1$", "*", "10.0.0.1 ::1", "110.0.0.1 ::1234"),
            ("10.1.*, unix", "*", "10.1.2.3 unix", "10.2.1.1"),
            ("*", "*", "10.0.0.1 ::1 unix", ""),
            ("10.*", "", "10.0.0.1 11.0.0.1", ""),
            // A denied pattern is searched for everywhere, which refuses more.
            ("", "2.1", "10.0.0.1", "192.0.2.1 2.1.0.0"),
        ] {
            let filter = ClientFilter::new(allow, deny);
            for (list, is_admitted) in [(admitted, true), (refused, false)] {
                for text in list.split(' ').filter(|text| !text.is_empty()) {
                    assert_eq!(filter.admits(address(text)), is_admitted, "{text}: {allow} but {deny}");
                }
            }
        }
    }
}
