//! Resolves the hosts of links in threads, since getaddrinfo(3) may block for long.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Config, Host};
use crate::limits::LOOKUPS_MAX;
use crate::route::Destination;

/// The consequence of a failed lookup, for the log.
pub(crate) const UNKNOWN: &str = "it will be tried again; until then clients of the link get a 502";

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
        let mut names: VecDeque<Name> = VecDeque::new();
        for (_, host) in unknown(config) {
            let name = (host.name.clone(), host.port);
            if !names.contains(&name) {
                names.push_back(name);
            }
        }
        if names.is_empty() {
            return None;
        }
        let threads = names.len().min(LOOKUPS_MAX);
        let names = Arc::new(Mutex::new(names));
        let (sender, answers) = channel();
        for _ in 0..threads {
            let (names, sender) = (names.clone(), sender.clone());
            // If the thread cannot start, the next lookup tries again.
            let _ = thread::Builder::new().name("lookup".to_owned()).spawn(move || look_up(&names, sender, wake));
        }
        Some(HostLookup { answers, failures: BTreeMap::new() })
    }

    /// Applies the answers that have arrived, without waiting. Returns a log line for each resolved host, and whether the
    /// lookup has ended.
    pub(crate) fn take(&mut self, config: &mut Config) -> (Vec<String>, bool) {
        let mut found = Vec::new();
        loop {
            match self.answers.try_recv() {
                Ok(answer) => found.extend(self.put(answer, config)),
                Err(TryRecvError::Empty) => return (found, false),
                Err(TryRecvError::Disconnected) => return (found, true),
            }
        }
    }

    /// Applies answers until all have arrived or the time has passed.
    pub(crate) fn wait(&mut self, config: &mut Config, timeout_ms: u64) {
        let give_up = Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            match self.answers.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(answer) => drop(self.put(answer, config)),
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
        unknown(config).map(complaint).collect()
    }

    fn put(&mut self, Answer { name, found }: Answer, config: &mut Config) -> Option<String> {
        match found {
            Ok(addresses) => {
                give(config, &name, &addresses);
                let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
                Some(format!("{:?} has been looked up: {}", name.0, addresses.join(", ")))
            }
            Err(reason) => {
                self.failures.insert(name, reason);
                None
            }
        }
    }
}

/// Copies addresses from an older configuration to hosts that have none.
pub(crate) fn keep_known(config: &mut Config, old: &Config) {
    for server in &old.servers {
        for host in &server.hosts {
            if let Some(Destination::Tcp(addresses)) = server.site.links.get(host.link).map(|link| &link.destination)
                && !addresses.is_empty()
            {
                give(config, &(host.name.clone(), host.port), addresses);
            }
        }
    }
}

/// Whether at least one host has no addresses.
pub(crate) fn has_unknown(config: &Config) -> bool {
    unknown(config).next().is_some()
}

/// Whether all hosts without addresses had none in an older configuration either.
pub(crate) fn are_old(config: &Config, old: &Config) -> bool {
    let is_same = |one: &Host, other: &Host| (&one.name, one.port) == (&other.name, other.port);
    unknown(config).all(|(_, host)| unknown(old).any(|(_, other)| is_same(host, other)))
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

/// Sets the addresses of a host in all links where they are missing.
fn give(config: &mut Config, name: &Name, addresses: &[SocketAddr]) {
    let wanted: Vec<(usize, usize)> = unknown(config)
        .filter(|(_, host)| (&host.name, host.port) == (&name.0, name.1))
        .map(|(server, host)| (server, host.link))
        .collect();
    for (server, link) in wanted {
        if let Some(link) = config.servers.get_mut(server).and_then(|server| server.site.links.get_mut(link)) {
            link.destination = Destination::Tcp(addresses.into());
        }
    }
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::load;

    fn config(destinations: &[&str]) -> Config {
        let path =
            std::env::temp_dir().join(format!("uakari-hosts-{}-{}.conf", std::process::id(), destinations.len()));
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
}
