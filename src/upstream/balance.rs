//! The choice of a node, and what requests and health checks tell about nodes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::state::Change;
use super::{Cluster, Node, NodePermit};
use crate::limits;
use crate::observe::log::Quoted;
use crate::types::Address;

/// How a node is chosen for a request without a session.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Balance {
    /// In turn, as often as their weights say.
    #[default]
    RoundRobin,
    /// By the IP address of the client: the whole one of IPv4, the first 64 bits of IPv6. A client keeps its node while the
    /// nodes that may be used are the same; when one of them is left, only its clients go to others. Clients without an
    /// address are served in turn.
    IpHash,
    /// The one that has the fewest requests and WebSockets for its weight; in turn among equal ones.
    LeastBusy,
    /// The less busy one of two that are drawn by lot.
    RandomTwo,
}

/// The state of `Balance`, besides `Node::turn`.
#[derive(Default, Debug)]
pub(crate) struct Turn {
    /// Lots drawn so far. It is the only seed, so that a simulation can be repeated.
    lots: AtomicU64,
}

impl Turn {
    /// A number from 0 to `end - 1`; `end` is not 0.
    fn lot(&self, end: u64) -> u64 {
        mix(self.lots.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)) % end
    }
}

/// A request for which a node is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choosing<'a> {
    /// The client.
    pub(crate) client: Address,
    /// The route that its session names. None: it has none.
    pub(crate) route: Option<&'a str>,
    /// The nodes that this request has tried, a bit for each index.
    pub(crate) tried: u64,
    /// The time in milliseconds.
    pub(crate) now_ms: u64,
}

/// What a request tells about its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeOutcome {
    /// It has answered.
    Answered,
    /// It could not be connected, or it ended or was silent in place of an answer.
    Failed,
}

impl Cluster {
    /// Chooses a node, which counts as busy until the permit is dropped. None: all nodes have been tried.
    ///
    /// The order: the node of the session if it is up, even a backup; by `balance` one that is up and no backup; by
    /// `balance` a backup that is up; if all are down, the one that has had no request for the longest time. A node whose
    /// host has no addresses yet is the last of all.
    pub(crate) fn choose(&self, choosing: &Choosing<'_>) -> Option<(usize, NodePermit)> {
        let Choosing { client, route, tried, now_ms } = *choosing;
        let is_up = |node: &Node| node.state.is_usable(now_ms) && node.place.is_resolved();
        let up = self.set(!tried, is_up);
        let bound = route.map_or(0, |route| self.set(up, |node| node.route.as_deref() == Some(route)));
        let main = self.set(up, |node| !node.is_backup);
        let chosen = match (bound, main, up) {
            (0, 0, 0) => self
                .members(!tried)
                .min_by_key(|(_, node)| (!node.place.is_resolved(), node.state.since_ms()))
                .map(|(index, _)| index),
            (0, 0, backups) => self.balanced(backups, client),
            (0, main, _) => self.balanced(main, client),
            (bound, ..) => self.members(bound).next().map(|(index, _)| index),
        };
        let index = chosen?;
        let node = &self.nodes[index];
        node.state.choose(now_ms, node.fail_ms);
        Some((index, NodePermit::take(node, u64::MAX)?))
    }

    /// Takes note of what a request tells about a node. Some: a line for the log. The only node of a cluster is never left.
    pub(crate) fn note(&self, node: usize, outcome: NodeOutcome, now_ms: u64) -> Option<String> {
        let node = self.nodes.get(node).filter(|_| self.nodes.len() > 1)?;
        self.line(node, node.state.note(outcome, now_ms, node.max_fails, node.fail_ms))
    }

    /// Takes note of the result of a health check of a node. Some: a line for the log.
    pub(crate) fn note_health(&self, node: usize, is_good: bool, now_ms: u64) -> Option<String> {
        let node = self.nodes.get(node)?;
        self.line(node, node.state.note_health(is_good, now_ms))
    }

    /// A node is no longer checked: it counts as up until requests tell otherwise.
    pub(crate) fn forget_health(&self, node: usize, now_ms: u64) {
        (0..limits::HEALTH_RISES_MAX).for_each(|_| drop(self.note_health(node, true, now_ms)));
    }

    fn line(&self, node: &Node, change: Change) -> Option<String> {
        let of = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let what = match change {
            Change::None => return None,
            Change::Left(fails) if node.fail_ms.is_multiple_of(1_000) => {
                format!("is left for {} s after {}", node.fail_ms / 1_000, of(fails, "failure"))
            }
            Change::Left(fails) => format!("is left for {} ms after {}", node.fail_ms, of(fails, "failure")),
            Change::Used => "is used again".to_owned(),
            Change::Down(checks) => format!("is down after {}", of(checks, "failed health check")),
            Change::Up(checks) => format!("is up after {}", of(checks, "good health check")),
        };
        Some(format!("upstream {}: node {} {what}", Quoted(&self.name), Quoted(&node.name)))
    }

    /// The nodes of a set, a bit for each index.
    fn members(&self, set: u64) -> impl Iterator<Item = (usize, &Node)> {
        let nodes = self.nodes.iter().take(limits::NODES_MAX).enumerate();
        nodes.filter(move |(index, _)| set & (1 << index) != 0).map(|(index, node)| (index, &**node))
    }

    /// The nodes of a set that are as asked for.
    fn set(&self, of: u64, is_in: impl Fn(&Node) -> bool) -> u64 {
        self.members(of).filter(|(_, node)| is_in(node)).fold(0, |set, (index, _)| set | 1 << index)
    }

    /// One of a set that is not empty.
    fn balanced(&self, set: u64, client: Address) -> Option<usize> {
        match (self.balance, client) {
            (Balance::IpHash, Address::Tcp(address)) => self.hashed(set, address.ip()),
            (Balance::RoundRobin | Balance::IpHash, _) => self.next(set),
            (Balance::LeastBusy, _) => {
                let (_, least) = self.members(set).min_by(|(_, one), (_, two)| one.load().cmp(&two.load()))?;
                let least = least.load();
                self.next(self.set(set, |node| node.load() == least))
            }
            (Balance::RandomTwo, _) => {
                let one = self.drawn(set)?;
                let two = self.drawn(set & !(1 << one)).unwrap_or(one);
                Some(if self.nodes[two].load() < self.nodes[one].load() { two } else { one })
            }
        }
    }

    /// Smooth weighted round-robin: each node gains its weight, and the one that has most pays what all have gained. A node
    /// of weight 3 beside two of weight 1 is chosen first, third and fourth of five, not three times in a row.
    fn next(&self, set: u64) -> Option<usize> {
        let mut sum = 0;
        let mut best: Option<(usize, &Node, i64)> = None;
        for (index, node) in self.members(set) {
            let weight = i64::from(node.weight);
            let gained = node.turn.fetch_add(weight, Relaxed) + weight;
            sum += weight;
            if best.is_none_or(|(_, _, most)| gained > most) {
                best = Some((index, node, gained));
            }
        }
        let (index, node, _) = best?;
        node.turn.fetch_sub(sum, Relaxed);
        Some(index)
    }

    /// Rendezvous hashing: the node with the least -ln(h) / weight, where h is a hash of client and node in (0, 1). The hash
    /// is of the node's name, so that the order of the nodes does not matter.
    fn hashed(&self, set: u64, client: IpAddr) -> Option<usize> {
        let client = match client.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => mix((address.to_bits() >> 64) as u64),
        };
        let cost = |node: &Node| {
            let hash = mix(mix(client) ^ hash_of(&node.name));
            -(((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64).ln() / f64::from(node.weight)
        };
        let costs = self.members(set).map(|(index, node)| (index, cost(node)));
        costs.min_by(|(_, one), (_, two)| one.total_cmp(two)).map(|(index, _)| index)
    }

    /// One that is drawn by lot, as often as the weights say. None: the set is empty.
    fn drawn(&self, set: u64) -> Option<usize> {
        let sum: u64 = self.members(set).map(|(_, node)| u64::from(node.weight)).sum();
        let mut lot = if sum == 0 { return None } else { self.turn.lot(sum) };
        for (index, node) in self.members(set) {
            match lot.checked_sub(u64::from(node.weight)) {
                Some(rest) => lot = rest,
                None => return Some(index),
            }
        }
        None
    }
}

impl Node {
    /// Its requests and WebSockets for its weight.
    fn load(&self) -> Load {
        Load { held: self.busy.held(), weight: u64::from(self.weight) }
    }
}

/// A fraction, compared without division.
#[derive(Clone, Copy)]
struct Load {
    held: u64,
    weight: u64,
}

impl PartialEq for Load {
    fn eq(&self, other: &Load) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Load) -> std::cmp::Ordering {
        self.held.saturating_mul(other.weight).cmp(&other.held.saturating_mul(self.weight))
    }
}

/// Mixes all bits of a number (the last step of splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A hash of a name (FNV-1a).
fn hash_of(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::super::{NodePlace, TcpPlace};
    use super::*;

    /// A node of this weight.
    fn node(name: &str, weight: u32) -> Node {
        let mut node = Node::new(name, NodePlace::Unix(format!("/{name}").into()));
        (node.weight, node.route) = (weight, Some(format!("r-{name}").into()));
        node
    }

    fn cluster(balance: Balance, weights: &[u32]) -> Cluster {
        let nodes = weights.iter().enumerate().map(|(index, weight)| node(&format!("n{index}"), *weight));
        let mut cluster = Cluster::new("pool", nodes.collect());
        cluster.balance = balance;
        cluster
    }

    const REQUEST: Choosing<'static> = Choosing { client: Address::Unix, route: None, tried: 0, now_ms: 0 };

    fn of_client(number: u32) -> Choosing<'static> {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + number);
        Choosing { client: Address::Tcp(SocketAddr::new(address.into(), 1_024)), ..REQUEST }
    }

    fn index(cluster: &Cluster, choosing: &Choosing<'_>) -> Option<usize> {
        cluster.choose(choosing).map(|(index, _)| index)
    }

    /// How many of 10,000 short requests each node gets.
    fn shares(cluster: &Cluster) -> Vec<usize> {
        let mut shares = vec![0; cluster.nodes.len()];
        (0..10_000).for_each(|number| shares[index(cluster, &of_client(number)).unwrap()] += 1);
        shares
    }

    #[test]
    fn weights_give_shares() {
        let turns = shares(&cluster(Balance::RoundRobin, &[1, 2, 3]));
        assert_eq!(turns, [1_667, 3_333, 5_000]);
        // None is busy.
        assert_eq!(shares(&cluster(Balance::LeastBusy, &[1, 2, 3])), turns);
        let near = |shares: &[usize], wanted: &[usize]| {
            let is_near = shares.iter().zip(wanted).all(|(share, wanted)| share.abs_diff(*wanted) < 200);
            assert!(is_near, "{shares:?} instead of {wanted:?}");
        };
        near(&shares(&cluster(Balance::RandomTwo, &[1, 2, 3])), &turns);
        near(&shares(&cluster(Balance::RandomTwo, &[1, 1, 1, 1])), &[2_500; 4]);
        near(&shares(&cluster(Balance::IpHash, &[1, 2, 3])), &turns);
        near(&shares(&cluster(Balance::IpHash, &[1; 5])), &[2_000; 5]);
    }

    #[test]
    fn turns_are_smooth() {
        let cluster = cluster(Balance::RoundRobin, &[5, 1, 1]);
        let turns: Vec<usize> = (0..7).map(|_| index(&cluster, &REQUEST).unwrap()).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn busy_nodes_get_less() {
        for balance in [Balance::LeastBusy, Balance::RandomTwo] {
            let cluster = cluster(balance, &[1, 2, 3]);
            let held: Vec<_> = (0..600).map(|_| cluster.choose(&REQUEST).unwrap()).collect();
            let busy = || cluster.nodes.iter().map(|node| node.busy.held()).collect::<Vec<_>>();
            let is_even = busy().iter().zip([100_u64, 200, 300]).all(|(busy, wanted)| busy.abs_diff(wanted) <= 20);
            assert!(is_even, "{balance:?}: {:?}", busy());
            if balance == Balance::LeastBusy {
                assert_eq!(busy(), [100, 200, 300]);
                // Long requests of one node keep further ones away from it.
                let (long, short): (Vec<_>, Vec<_>) = held.into_iter().partition(|(index, _)| *index == 0);
                drop(short);
                let next: Vec<_> = (0..300).map(|_| cluster.choose(&REQUEST).unwrap()).collect();
                assert_eq!(busy(), [100, 120, 180]);
                drop((long, next));
            }
        }
    }

    #[test]
    fn clients_keep_their_nodes() {
        let cluster = cluster(Balance::IpHash, &[1, 1, 1, 2]);
        let nodes = |tried| -> Vec<usize> {
            (0..10_000).map(|number| index(&cluster, &Choosing { tried, ..of_client(number) }).unwrap()).collect()
        };
        let before = nodes(0);
        assert_eq!(nodes(0), before);
        let after = nodes(1 << 1);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(before, _)| *before == 1));
        let mut gained = [0; 4];
        moved.for_each(|(_, after)| gained[*after] += 1);
        let gone = before.iter().filter(|before| **before == 1).count();
        assert_eq!(gained.iter().sum::<usize>(), gone);
        // Its clients, a fifth of all, are shared by weight among the others.
        for (gained, wanted) in gained.into_iter().zip([500_usize, 0, 500, 1_000]) {
            assert!(gained.abs_diff(wanted) < 120, "{gained} instead of {wanted}");
        }

        let of = |address: &str| {
            let client = Address::Tcp(address.parse().unwrap());
            (0..100).map(|_| index(&cluster, &Choosing { client, ..REQUEST })).collect::<Vec<_>>()
        };
        assert_eq!(of("10.1.2.3:1"), of("[::ffff:10.1.2.3]:2"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:2"));
    }

    #[test]
    fn sessions_and_backups() {
        let mut nodes = vec![node("a", 1), node("b", 1), node("c", 1), node("d", 1)];
        (nodes[2].is_backup, nodes[3].is_backup) = (true, true);
        let cluster = Cluster::new("pool", nodes);
        let choose = |route, tried, now_ms| index(&cluster, &Choosing { route, tried, now_ms, ..REQUEST });
        assert_eq!(choose(Some("r-b"), 0, 0), Some(1));
        assert_eq!(choose(Some("r-b"), 0, 0), Some(1));
        assert_eq!(choose(Some("r-d"), 0, 0), Some(3));
        assert_eq!(choose(Some("r-b"), 0b0010, 0), Some(0));
        assert!(choose(Some("unknown"), 0, 0).is_some_and(|index| index < 2));
        assert!(choose(None, 0b0011, 0).is_some_and(|index| index >= 2));
        assert_eq!(choose(Some("r-a"), 0b1111, 0), None);

        // The node of a session is down.
        let line = "upstream \"pool\": node \"b\" is left for 10 s after 1 failure";
        assert_eq!(cluster.note(1, NodeOutcome::Failed, 100).as_deref(), Some(line));
        assert_eq!(choose(Some("r-b"), 0, 200), Some(0));
        // The trial, and its answer.
        assert_eq!(choose(Some("r-b"), 0, 10_100), Some(1));
        assert_eq!(choose(Some("r-b"), 0, 10_100), Some(0));
        let line = "upstream \"pool\": node \"b\" is used again";
        assert_eq!(cluster.note(1, NodeOutcome::Answered, 10_200).as_deref(), Some(line));
        assert_eq!(choose(Some("r-b"), 0, 10_300), Some(1));

        // All of them are down: each is tried, the one that was left first before the others.
        for (time, node) in [1, 0, 3, 2].into_iter().enumerate() {
            assert!(cluster.note(node, NodeOutcome::Failed, 11_000 + time as u64).is_some());
        }
        let tried: Vec<_> = (0..5).map(|time| choose(None, 0, 11_100 + time).unwrap()).collect();
        assert_eq!(tried, [1, 0, 3, 2, 1]);
        assert_eq!(choose(None, 0b0010, 11_200), Some(0));
        assert!(cluster.note(0, NodeOutcome::Answered, 11_300).is_some());
        assert_eq!(choose(Some("r-b"), 0, 11_400), Some(0));
    }

    #[test]
    fn only_nodes_and_unresolved_ones() {
        let single = cluster(Balance::LeastBusy, &[1]);
        assert_eq!(single.note(0, NodeOutcome::Failed, 0), None);
        assert_eq!(index(&single, &REQUEST), Some(0));
        (0..limits::HEALTH_FALLS_MAX - 1).for_each(|_| assert_eq!(single.note_health(0, false, 0), None));
        let line = "upstream \"pool\": node \"n0\" is down after 3 failed health checks";
        assert_eq!(single.note_health(0, false, 0).as_deref(), Some(line));
        assert_eq!(index(&single, &REQUEST), Some(0));
        single.forget_health(0, 0);
        assert!(single.nodes[0].state.is_usable(0));

        let named = Node::new("x:80", NodePlace::Tcp(TcpPlace::new("x", 80, &[])));
        let cluster = Cluster::new("pool", vec![named, node("b", 1)]);
        assert_eq!((0..10).filter(|_| index(&cluster, &REQUEST) == Some(0)).count(), 0);
        assert!(cluster.note(1, NodeOutcome::Failed, 0).is_some());
        assert_eq!(index(&cluster, &REQUEST), Some(1));
        assert_eq!(index(&cluster, &Choosing { tried: 0b10, ..REQUEST }), Some(0));
        let NodePlace::Tcp(place) = &cluster.nodes[0].place else { panic!() };
        place.resolve(&["192.0.2.1:80".parse().unwrap()]);
        assert_eq!(index(&cluster, &REQUEST), Some(0));
    }

    /// Random requests, outcomes and checks: no node is tried twice, none that is down is chosen while another is up.
    #[test]
    fn random_walks() {
        for seed in 0..256_u64 {
            let lots = Turn { lots: AtomicU64::new(seed << 32) };
            let balances = [Balance::RoundRobin, Balance::IpHash, Balance::LeastBusy, Balance::RandomTwo];
            let weights: Vec<u32> = (0..1 + lots.lot(8)).map(|_| 1 + lots.lot(5) as u32).collect();
            let mut cluster = cluster(balances[lots.lot(4) as usize], &weights);
            for node in &mut cluster.nodes {
                let node = std::sync::Arc::get_mut(node).unwrap();
                (node.is_backup, node.max_fails, node.fail_ms) = (lots.lot(4) == 0, lots.lot(4) as u32, 100);
            }
            let all = (1_u64 << weights.len()) - 1;
            let (mut now_ms, mut held) = (0, Vec::new());
            for step in 0..1_000 {
                now_ms += lots.lot(20);
                let tried = lots.lot(all + 1);
                let route = format!("r-n{}", lots.lot(10));
                let route = (lots.lot(3) == 0).then_some(&*route);
                let choosing = Choosing { tried, route, now_ms, ..of_client(lots.lot(1_000) as u32) };
                let up = cluster.set(!tried, |node| node.state.is_usable(now_ms));
                let main = cluster.set(up, |node| !node.is_backup);
                match cluster.choose(&choosing) {
                    None => assert_eq!(tried, all, "seed {seed}, step {step}"),
                    Some((index, permit)) => {
                        let bit = 1 << index;
                        assert!(tried & bit == 0 && (up & bit != 0 || up == 0), "seed {seed}, step {step}");
                        let is_bound = route == permit.route.as_deref();
                        assert!(main == 0 || main & bit != 0 || is_bound, "seed {seed}, step {step}");
                        held.push((index, permit));
                    }
                }
                if !held.is_empty() && lots.lot(2) == 0 {
                    let (index, _permit) = held.swap_remove(lots.lot(held.len() as u64) as usize);
                    let outcome = if lots.lot(3) == 0 { NodeOutcome::Failed } else { NodeOutcome::Answered };
                    cluster.note(index, outcome, now_ms);
                }
                cluster.note_health(lots.lot(weights.len() as u64) as usize, lots.lot(2) == 0, now_ms);
                let busy: u64 = cluster.nodes.iter().map(|node| node.busy.held()).sum();
                assert_eq!(busy, held.len() as u64, "seed {seed}, step {step}");
            }
            drop(held);
            assert!(cluster.nodes.iter().all(|node| node.busy.held() == 0), "seed {seed}");
        }
    }
}
