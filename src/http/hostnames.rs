//! The hosts that a server answers for, against pages that have their own name lead to its address (DNS rebinding).

use super::authority::{Authority, split_port};

/// The allowed hosts. Without any, every host is allowed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hostnames {
    /// Hosts in normal form, IPv6 in brackets.
    hosts: Vec<Box<str>>,
    /// Domains in normal form with a dot before them, of which the names below are allowed.
    domains: Vec<Box<str>>,
}

impl Hostnames {
    /// Adds a name, an IPv4 address, an IPv6 address in brackets, or "*." and a domain. The error is the sentence after
    /// the key for the operator.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (name, is_domain) = text.strip_prefix("*.").map_or((text, false), |domain| (domain, true));
        let has_only_host = matches!(split_port(name), Some((_, None))) && !name.contains('*');
        let authority = Authority::parse(name).filter(|_| has_only_host && !(is_domain && name.starts_with('[')));
        let Some(authority) = authority else {
            return Err(format!("{text:?} is not a host name: write one such as app.example, *.example, or [::1]"));
        };
        let (list, entry) = match is_domain {
            true => (&mut self.domains, format!(".{}", authority.host())),
            false => (&mut self.hosts, authority.host().to_owned()),
        };
        if let Err(at) = list.binary_search_by(|known| (**known).cmp(&entry)) {
            list.insert(at, entry.into());
        }
        Ok(())
    }

    /// Whether nothing is listed, so that every host is allowed.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.domains.is_empty()
    }

    /// Whether the host is allowed, whatever its port. One that is not valid is not, if anything is listed.
    pub fn has(&self, host: &str) -> bool {
        let is_listed = |host: &str| {
            let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|labels| !labels.is_empty());
            self.hosts.iter().any(|own| **own == *host) || self.domains.iter().any(|domain| is_below(domain))
        };
        self.is_empty() || Authority::parse(host).is_some_and(|authority| is_listed(authority.host()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_a_list() {
        for (list, allowed, others) in [
            ("", "a.example 192.0.2.1 [::1] a/b", ""),
            (
                "app.example",
                "app.example APP.example:8443 app.example. app%2eexample",
                "example xapp.example a.app.example",
            ),
            ("App.Example.", "app.example", "app.example.evil"),
            ("*.example", "a.example A.B.example:80", "example .example xexample a.example.evil example.evil"),
            ("example *.example", "example a.example", "xexample"),
            (
                "a.example",
                "a.example",
                "192.0.2.1 [::1] localhost a.example@evil evil@a.example a.example/ a.example:x",
            ),
            ("192.0.2.1 [0:0::1]", "192.0.2.1:8080 [::1]:80 [0::1]", "192.0.2.2 [::2] ::1"),
            ("localhost", "localhost:1", "localhost.evil.example"),
        ] {
            let mut hostnames = Hostnames::default();
            list.split(' ').filter(|name| !name.is_empty()).for_each(|name| hostnames.add(name).unwrap());
            assert_eq!(hostnames.is_empty(), list.is_empty());
            for (hosts, is_allowed) in [(allowed, true), (others, false)] {
                for host in hosts.split(' ').filter(|host| !host.is_empty()) {
                    assert_eq!(hostnames.has(host), is_allowed, "{host} of {list}");
                }
            }
            assert_eq!(hostnames.has(""), list.is_empty());
        }
    }

    #[test]
    fn mistakes() {
        for text in [
            "",
            "*",
            "*.",
            "*.*",
            "*.*.example",
            "a.*.example",
            "*a.example",
            "a.example:80",
            "a.example:",
            "user@a",
            "a/b",
            "http://a",
            "a b",
            "[::1",
            "::1",
            "*.[::1]",
            "**.example",
        ] {
            let mut hostnames = Hostnames::default();
            let sentence = format!("{text:?} is not a host name: write one such as app.example, *.example, or [::1]");
            assert_eq!(hostnames.add(text), Err(sentence));
            assert!(hostnames.is_empty());
        }
    }
}
