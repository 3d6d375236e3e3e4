//! Names and addresses of this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::unistd::gethostname;

use crate::error::CaError;
use crate::limits::HOSTS_MAX;
use crate::name::{Host, distinct};

/// The host name. None: it has none, or one that is no text.
pub(crate) fn name() -> Option<String> {
    gethostname().ok()?.into_string().ok().filter(|name| !name.is_empty())
}

/// What clients may call this machine: localhost, the host name, its longer names in /etc/hosts, the loopback addresses,
/// and those of interfaces that are up. Link-local addresses of IPv6 are left out: they need a zone. A name server is
/// not asked, since it may not answer.
pub(crate) fn hosts() -> Result<Vec<Host>, CaError> {
    let mut hosts = vec![Host::Dns("localhost".to_owned())];
    if let Some(name) = name() {
        let table = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        hosts.extend(
            [name.clone()].into_iter().chain(longer_names(&name, &table)).filter_map(|name| Host::new(&name).ok()),
        );
    }
    hosts.push(Host::Address(Ipv4Addr::LOCALHOST.into()));
    hosts.push(Host::Address(Ipv6Addr::LOCALHOST.into()));
    let room = HOSTS_MAX.saturating_sub(hosts.len());
    hosts.extend(addresses()?.into_iter().take(room).map(Host::Address));
    distinct(hosts)
}

/// Names in a table such as hosts(5) that begin with this one and a dot.
fn longer_names(name: &str, table: &str) -> Vec<String> {
    let begin = format!("{name}.");
    let lines = table.lines().map(|line| line.split('#').next().unwrap_or_default());
    let names: BTreeSet<&str> = lines.flat_map(|line| line.split_whitespace().skip(1)).collect();
    names.into_iter().filter(|longer| longer.starts_with(&begin)).take(HOSTS_MAX / 4).map(str::to_owned).collect()
}

/// In order, so that the same machine has the same list.
fn addresses() -> Result<BTreeSet<IpAddr>, CaError> {
    let failed = |errno: nix::errno::Errno| CaError::File { path: "getifaddrs".into(), error: errno.into() };
    let mut found = BTreeSet::new();
    for interface in getifaddrs().map_err(failed)? {
        let Some(address) = interface.address.filter(|_| interface.flags.contains(InterfaceFlags::IFF_UP)) else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            found.insert(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip)
            && !v6.is_unicast_link_local()
        {
            found.insert(IpAddr::V6(v6));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_names_are_of_this_host_alone() {
        let table =
            "127.0.0.1 localhost\n10.0.0.1 gate.example.org gate # gate.comment\n10.0.0.2 gateway.example.org\n";
        assert_eq!(longer_names("gate", table), ["gate.example.org"]);
        assert!(longer_names("other", table).is_empty());
    }

    #[test]
    fn this_host_is_localhost() {
        let hosts = hosts().unwrap();
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(hosts.contains(&Host::new(name).unwrap()), "{hosts:?}");
        }
        assert!(!hosts.iter().any(|host| host.to_string().starts_with("fe80:")), "{hosts:?}");
    }
}
