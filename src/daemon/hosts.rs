//! Resolves the hosts of links and of nodes in threads, since getaddrinfo(3) may block for long. Those of nodes are looked
//! up again and again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Config, Host};
use crate::limits::LOOKUPS_MAX;
use crate::observe::log::Level;
use crate::route::{Destination, distinct};
use crate::upstream::{Cluster, Node, NodePlace, TcpPlace};

/// The consequence of a failed lookup, for the log.
pub(crate) const UNKNOWN: &str = "it will be tried again; until then its clients get a 502";

/// A host and the port of its backend.
type Name = (Box<str>, u16);

/// The result for one host; the error is the resolver's.
struct Answer {
    name: Name,
    found: Result<Box<[SocketAddr]>, String>,
}

/// Lookups in progress.
pub(crate) struct HostLookup {
    answers: Receiver<Answer>,
    /// The resolver's error for each host that failed.
    failures: BTreeMap<Name, String>,
}

impl HostLookup {
    /// Starts to resolve all hosts without addresses. None: all hosts have some. The threads call `wake` after each answer,
    /// and after the last one has ended.
    pub(crate) fn begin(config: &Config, wake: fn()) -> Option<HostLookup> {
        let hosts = unknown(config).map(|(_, host)| (host.name.clone(), host.port));
        let names: BTreeSet<Name> = hosts.chain(unknown_nodes(config).map(|(_, _, place)| name_of(place))).collect();
        Some(HostLookup { answers: begin(names, wake)?, failures: BTreeMap::new() })
    }

    /// Applies the answers that have arrived, without waiting.
    pub(crate) fn take(&mut self, config: &mut Config) -> Found {
        let mut found = Found::default();
        loop {
            match self.answers.try_recv() {
                Ok(answer) => self.put(answer, config, &mut found),
                Err(TryRecvError::Empty) => return found,
                Err(TryRecvError::Disconnected) => return Found { is_over: true, ..found },
            }
        }
    }

    /// Applies answers until all have arrived or the time has passed.
    pub(crate) fn wait(&mut self, config: &mut Config, timeout_ms: u64) {
        let give_up = Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            match self.answers.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(answer) => self.put(answer, config, &mut Found::default()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A log line for each host that still has no addresses. `end` is the consequence.
    pub(crate) fn complaints(&self, config: &Config, end: &str) -> Vec<String> {
        let complaint = |(_, Host { name, port, place, .. }): (usize, &Host)| {
            let reason = self.failures.get(&(name.clone(), *port)).map_or("there is no answer yet", String::as_str);
            format!("{place}: {name:?} cannot be looked up: {reason}: {end}")
        };
        let node_complaint = |(cluster, node, place): (&Cluster, &Node, &TcpPlace)| {
            let reason = self.failures.get(&name_of(place)).map_or("there is no answer yet", String::as_str);
            let (cluster, node, host) = (&cluster.name, &node.name, &place.host);
            format!("upstream {cluster}: {node}: {host:?} cannot be looked up: {reason}: {end}")
        };
        unknown(config).map(complaint).chain(unknown_nodes(config).map(node_complaint)).collect()
    }

    fn put(&mut self, Answer { name, found: answer }: Answer, config: &mut Config, found: &mut Found) {
        match answer {
            Ok(addresses) => {
                found.is_of_link |= give(config, &name, &addresses);
                found.lines.push(format!("{:?} has been looked up: {}", name.0, list(&addresses)));
            }
            Err(reason) => drop(self.failures.insert(name, reason)),
        }
    }
}

/// What a lookup has found.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// A log line for each resolved host.
    pub(crate) lines: Vec<String>,
    /// Whether it resolved a host of a link, which the gateway has to be configured with. Nodes have it at once.
    pub(crate) is_of_link: bool,
    /// Whether the lookup has ended.
    pub(crate) is_over: bool,
}

/// The lookups of hosts of nodes that have been resolved before.
#[derive(Default)]
pub(crate) struct Refresh {
    /// Those in progress.
    answers: Option<Receiver<Answer>>,
    /// Hosts whose last lookup has failed.
    failing: BTreeSet<Name>,
}

impl Refresh {
    /// Starts to look the hosts up, unless lookups are in progress. `wake` is called as by `HostLookup`.
    pub(crate) fn begin(&mut self, config: &Config, wake: fn()) {
        let is_known = |place: &TcpPlace| !place.addresses().is_empty();
        let names: BTreeSet<Name> =
            named(config).map(|(.., place)| place).filter(|place| is_known(place)).map(name_of).collect();
        self.failing.retain(|name| names.contains(name));
        if self.answers.is_none() {
            self.answers = begin(names, wake);
        }
    }

    /// Applies the answers that have arrived, without waiting. Returns lines for the log: one for each host whose addresses
    /// have changed, and one when lookups of a host begin to fail, and when they cease to.
    pub(crate) fn take(&mut self, config: &Config) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        while let Some(answers) = &self.answers {
            match answers.try_recv() {
                Ok(answer) => lines.extend(self.put(answer, config)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.answers = None,
            }
        }
        lines
    }

    fn put(&mut self, Answer { name, found }: Answer, config: &Config) -> Option<(Level, String)> {
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(reason) => {
                let line = format!("{:?} cannot be looked up: {reason}: its addresses stay as they are", name.0);
                return self.failing.insert(name).then_some((Level::Warn, line));
            }
        };
        let mut is_changed = false;
        for (.., place) in named(config).filter(|(.., place)| name_of(place) == name) {
            // Many name servers answer in another order each time.
            if !are_same(&place.addresses(), &addresses) {
                place.resolve(&addresses);
                is_changed = true;
            }
        }
        let was_failing = self.failing.remove(&name);
        let what = if is_changed { "has changed" } else { "can be looked up again" };
        (is_changed || was_failing).then(|| (Level::Info, format!("{:?} {what}: {}", name.0, list(&addresses))))
    }
}

/// Copies addresses from an older configuration to hosts that have none.
pub(crate) fn keep_known(config: &mut Config, old: &Config) {
    for server in &old.servers {
        for host in &server.hosts {
            if let Some(Destination::Tcp(addresses)) = server.site.links.get(host.link).map(|link| &link.destination)
                && !addresses.is_empty()
            {
                let _ = give(config, &(host.name.clone(), host.port), addresses);
            }
        }
    }
    for (.., known) in named(old) {
        let addresses = known.addresses();
        for (.., place) in unknown_nodes(config).filter(|(.., place)| *place == known) {
            place.resolve(&addresses);
        }
    }
}

/// The clusters of a configuration, each once.
pub(crate) fn clusters(config: &Config) -> Vec<&Arc<Cluster>> {
    distinct(config.servers.iter().flat_map(|server| server.site.clusters()))
}

/// Whether nodes have names that are looked up.
pub(crate) fn has_names(config: &Config) -> bool {
    named(config).next().is_some()
}

/// Whether at least one host has no addresses.
pub(crate) fn has_unknown(config: &Config) -> bool {
    unknown(config).next().is_some() || unknown_nodes(config).next().is_some()
}

/// Whether all hosts without addresses had none in an older configuration either.
pub(crate) fn are_old(config: &Config, old: &Config) -> bool {
    let is_same = |one: &Host, other: &Host| (&one.name, one.port) == (&other.name, other.port);
    unknown(config).all(|(_, host)| unknown(old).any(|(_, other)| is_same(host, other)))
        && unknown_nodes(config).all(|(.., place)| unknown_nodes(old).any(|(.., other)| place == other))
}

/// The nodes with names that are looked up.
fn named(config: &Config) -> impl Iterator<Item = (&Cluster, &Node, &TcpPlace)> {
    let nodes = clusters(config).into_iter().flat_map(|cluster| cluster.nodes.iter().map(move |node| (cluster, node)));
    nodes.filter_map(|(cluster, node)| match &node.place {
        NodePlace::Tcp(place) if place.is_name => Some((&**cluster, &**node, place)),
        _ => None,
    })
}

/// The nodes without addresses.
fn unknown_nodes(config: &Config) -> impl Iterator<Item = (&Cluster, &Node, &TcpPlace)> {
    named(config).filter(|(.., place)| place.addresses().is_empty())
}

fn name_of(place: &TcpPlace) -> Name {
    (place.host.clone(), place.port)
}

/// Whether both have the same addresses, in whatever order.
fn are_same(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    let set = |addresses: &[SocketAddr]| addresses.iter().copied().collect::<BTreeSet<SocketAddr>>();
    set(one) == set(other)
}

/// Addresses for the log.
fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<String>>().join(", ")
}

/// The hosts without addresses, each with the number of its server.
fn unknown(config: &Config) -> impl Iterator<Item = (usize, &Host)> {
    config.servers.iter().enumerate().flat_map(|(number, server)| {
        let is_unknown = |host: &&Host| {
            let destination = server.site.links.get(host.link).map(|link| &link.destination);
            matches!(destination, Some(Destination::Tcp(addresses)) if addresses.is_empty())
        };
        server.hosts.iter().filter(is_unknown).map(move |host| (number, host))
    })
}

/// Sets the addresses of a host in all links and nodes where they are missing. True: there was such a link.
fn give(config: &mut Config, name: &Name, addresses: &[SocketAddr]) -> bool {
    for (.., place) in unknown_nodes(config).filter(|(.., place)| name_of(place) == *name) {
        place.resolve(addresses);
    }
    let wanted: Vec<(usize, usize)> = unknown(config)
        .filter(|(_, host)| (&host.name, host.port) == (&name.0, name.1))
        .map(|(server, host)| (server, host.link))
        .collect();
    let is_wanted = !wanted.is_empty();
    for (server, link) in wanted {
        if let Some(link) = config.servers.get_mut(server).and_then(|server| server.site.links.get_mut(link)) {
            link.destination = Destination::Tcp(addresses.into());
        }
    }
    is_wanted
}

/// Starts threads that look names up. None: there is none.
fn begin(names: BTreeSet<Name>, wake: fn()) -> Option<Receiver<Answer>> {
    if names.is_empty() {
        return None;
    }
    let threads = names.len().min(LOOKUPS_MAX);
    let names = Arc::new(Mutex::new(names.into_iter().collect()));
    let (sender, answers) = channel();
    for _ in 0..threads {
        let (names, sender) = (names.clone(), sender.clone());
        // If the thread cannot start, the next lookup tries again.
        let _ = thread::Builder::new().name("lookup".to_owned()).spawn(move || look_up(&names, sender, wake));
    }
    Some(answers)
}

fn look_up(names: &Mutex<VecDeque<Name>>, sender: Sender<Answer>, wake: fn()) {
    loop {
        let next = names.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(name) = next else { break };
        let found = match (&*name.0, name.1).to_socket_addrs() {
            Ok(addresses) => Ok(addresses.collect::<Box<[SocketAddr]>>()),
            Err(error) => Err(error.to_string()),
        };
        let found = found.and_then(|all| if all.is_empty() { Err("it has no address".to_owned()) } else { Ok(all) });
        if sender.send(Answer { name, found }).is_err() {
            return;
        }
        wake();
    }
    // The lookup ends when the last sender is dropped. Dropped before the wake-up, so that the daemon sees the end.
    drop(sender);
    wake();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::config::load;
    use crate::limits;
    use crate::permit::Count;
    use crate::upstream::{ClientFields, Upstream};

    fn config(destinations: &[&str]) -> Config {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("uakari-hosts-{}-{number}.conf", std::process::id()));
        let link = |destination| format!("{{ origin = \"a\"; type = \"tcp\"; destination = \"{destination}\"; }}");
        let links: Vec<String> = destinations.iter().map(link).collect();
        std::fs::write(&path, format!("servers = ({{ websocket = {{ links = ({}); }}; }});", links.join(","))).unwrap();
        let loaded = load(path.to_str(), &[]);
        std::fs::remove_file(&path).unwrap();
        loaded.unwrap().config
    }

    /// Nothing wakes the daemon after the last wake-up, so it must find the lookup ended then.
    #[test]
    fn the_lookup_has_ended_at_the_last_wake_up() {
        static ANSWERS: Mutex<Option<Receiver<Answer>>> = Mutex::new(None);
        static HAS_ENDED: AtomicBool = AtomicBool::new(false);
        let (sender, receiver) = channel();
        *ANSWERS.lock().unwrap() = Some(receiver);
        look_up(&Mutex::default(), sender, || {
            let end = ANSWERS.lock().unwrap().as_ref().map(Receiver::try_recv);
            HAS_ENDED.store(matches!(end, Some(Err(TryRecvError::Disconnected))), Ordering::Relaxed);
        });
        assert!(HAS_ENDED.load(Ordering::Relaxed));
    }

    #[test]
    fn known_and_unknown_hosts() {
        let mut one = config(&["127.0.0.1:1", "localhost:2", "no-such-host.invalid:3", "localhost:2"]);
        assert_eq!(unknown(&one).count(), 3);
        let mut lookup = HostLookup::begin(&one, || ()).unwrap();
        lookup.wait(&mut one, 60_000);
        let complaints = lookup.complaints(&one, UNKNOWN);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains(".links[2].destination: \"no-such-host.invalid\" cannot be looked up: "));
        assert!(has_unknown(&one));
        let mut two = config(&["localhost:2", "localhost:3"]);
        keep_known(&mut two, &one);
        assert_eq!(unknown(&two).count(), 1, "another port is another server");
        assert!(HostLookup::begin(&config(&["127.0.0.1:1"]), || ()).is_none());
    }

    /// A configuration with a link to a cluster of nodes with these names.
    fn clustered(names: &[&str]) -> Config {
        let node = |name: &&str| Node::new(name, NodePlace::Tcp(TcpPlace::new(name, 80, &[])));
        let cluster = Cluster::new("pool", names.iter().map(node).collect());
        let upstream = Upstream {
            cluster: Arc::new(cluster),
            node: None,
            tls: None,
            path: None,
            host: None,
            forwarded: ClientFields::default(),
            rewrites_replies: false,
            passes_credentials: false,
            is_tunnel: false,
            limits: limits::Forwarding::default(),
            requests: Count::default(),
        };
        let mut config = config(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"]);
        let site = &mut config.servers[0].site;
        // Two links share the cluster.
        let upstream = Destination::Upstream(Arc::new(upstream));
        site.links.iter_mut().take(2).for_each(|link| link.destination = upstream.clone());
        config
    }

    #[test]
    fn names_of_nodes() {
        let mut one = clustered(&["localhost", "no-such-host.invalid"]);
        assert_eq!((clusters(&one).len(), unknown_nodes(&one).count()), (1, 2));
        let mut lookup = HostLookup::begin(&one, || ()).unwrap();
        lookup.wait(&mut one, 60_000);
        let complaints = lookup.complaints(&one, UNKNOWN);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        let start = "upstream pool: no-such-host.invalid: \"no-such-host.invalid\" cannot be looked up: ";
        assert!(complaints[0].starts_with(start), "{complaints:?}");
        let mut two = clustered(&["localhost", "no-such-host.invalid"]);
        assert!(are_old(&one, &two) && !are_old(&two, &one));
        keep_known(&mut two, &one);
        assert_eq!(unknown_nodes(&two).count(), 1);
        assert!(are_old(&two, &one) && has_unknown(&two) && has_names(&two));
    }

    #[test]
    fn names_are_looked_up_again() {
        let config = clustered(&["one", "two"]);
        let places: Vec<&TcpPlace> = named(&config).map(|(.., place)| place).collect();
        let mut refresh = Refresh::default();
        let (a, b) = ("192.0.2.1:80", "192.0.2.2:80");
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Box<[SocketAddr]>>();
        places.iter().for_each(|place| place.resolve(&addresses(&[a])));
        for (found, line, expected) in [
            (Some(&[a][..]), None, &[a][..]),
            (Some(&[a, b]), Some("\"one\" has changed: 192.0.2.1:80, 192.0.2.2:80"), &[a, b]),
            (Some(&[b, a]), None, &[a, b]),
            (None, Some("\"one\" cannot be looked up: lost: its addresses stay as they are"), &[a, b]),
            (None, None, &[a, b]),
            (Some(&[a, b]), Some("\"one\" can be looked up again: 192.0.2.1:80, 192.0.2.2:80"), &[a, b]),
            (None, Some("\"one\" cannot be looked up: lost: its addresses stay as they are"), &[a, b]),
            (Some(&[b]), Some("\"one\" has changed: 192.0.2.2:80"), &[b]),
        ] {
            let name = ("one".into(), 80);
            let found = found.map(addresses).ok_or_else(|| "lost".to_owned());
            let told = refresh.put(Answer { name, found }, &config).map(|(_, line)| line);
            assert_eq!(told.as_deref(), line);
            assert_eq!(*places[0].addresses(), *addresses(expected));
            assert_eq!(*places[1].addresses(), *addresses(&[a]), "another name");
        }
    }

    #[test]
    fn a_lookup_again_ends() {
        let config = clustered(&["localhost", "unknown"]);
        let place = named(&config).next().unwrap().2;
        place.resolve(&["192.0.2.1:80".parse().unwrap()]);
        let mut refresh = Refresh::default();
        refresh.begin(&config, || ());
        let mut lines = Vec::new();
        while refresh.answers.is_some() {
            lines.extend(refresh.take(&config));
            thread::yield_now();
        }
        assert_eq!(lines.len(), 1, "a name without addresses is another lookup's: {lines:?}");
        assert!(place.addresses().iter().all(|address| address.ip().is_loopback()));
    }
}
