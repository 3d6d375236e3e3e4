//! Health checks: nodes of clusters with `health` are sent a request at intervals, and the cluster takes note of each
//! result. A check has one connection, for one request; only the status line of the reply is read.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use slab::Slab;

use super::World;
use super::slots::Key;
use crate::driver::{Batch, Driver, Errno, Event, FileKind, Op, OpenFor, Reach, Received, Segment, SocketType};
use crate::limits::{self, HEALTH_CHECKS_MAX, HEALTH_LINE_SIZE_MAX, HEALTH_SPREAD_MS, POOL_HEADROOM};
use crate::observe::log::{self, Level};
use crate::transport::{Arrival, Opposite, SendResult, Settled, Transport};
use crate::types::Demand;
use crate::upstream::{Cluster, Health, Node, NodePlace};

/// Nothing is passed on.
const OPPOSITE: Opposite = Opposite { queued_size: 0, queue_size_max: usize::MAX };

/// Why a node is not good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    /// Its host has no address.
    Unresolved,
    /// Its path leads to something else.
    NoSocket,
    /// It could not be connected.
    Unreachable(Errno),
    /// The connection failed.
    Broken(Errno),
    /// TLS failed.
    Tls,
    /// It closed the connection before its status line.
    Ended,
    /// It sent no status line of HTTP/1.
    Malformed,
    /// The status of its reply.
    Status(u16),
    /// It was not connected, or sent no status line, in time.
    Late,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unresolved => f.write_str("its host has no address"),
            Failure::NoSocket => f.write_str("its path does not lead to a socket"),
            Failure::Unreachable(errno) => write!(f, "it cannot be connected: {}", errno.desc()),
            Failure::Broken(errno) => write!(f, "its connection failed: {}", errno.desc()),
            Failure::Tls => f.write_str("TLS failed"),
            Failure::Ended => f.write_str("it closed the connection without a reply"),
            Failure::Malformed => f.write_str("its reply is not HTTP/1"),
            Failure::Status(status) => write!(f, "it answered {status}"),
            Failure::Late => f.write_str("it did not answer in time"),
        }
    }
}

/// What a check is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Opens the path of a UNIX socket.
    Opening,
    /// Connects.
    Connecting,
    /// Has a connection.
    Talking,
}

/// A check in progress.
#[derive(Debug)]
struct Attempt<H> {
    key: Key,
    step: Step,
    /// The opened UNIX socket that is being connected.
    file: Option<H>,
    /// The addresses of a TCP server.
    addresses: Arc<[SocketAddr]>,
    /// The index of the address that is being connected.
    address: usize,
    /// What was received.
    head: Vec<u8>,
    /// Whether it has its result, and only ends what is in flight.
    is_over: bool,
}

/// The checks of one node.
#[derive(Debug)]
struct Check<H> {
    cluster: Arc<Cluster>,
    /// Its index in the cluster.
    node: usize,
    /// When the next attempt begins; during an attempt, its deadline. In ms.
    at_ms: u64,
    /// None: it waits for the next one.
    attempt: Option<Attempt<H>>,
    /// Whether the last result was good.
    is_good: bool,
    /// Whether its cluster is configured no more.
    is_leaving: bool,
}

/// All checks.
#[derive(Debug)]
pub(super) struct Checks<H> {
    list: Slab<Check<H>>,
    /// When attempts begin, in ms, and the indices of their checks.
    starts: BTreeSet<(u64, usize)>,
    /// Deadlines of attempts without a result, in ms, and the indices of their checks.
    deadlines: BTreeSet<(u64, usize)>,
    /// Attempts in progress.
    running: usize,
    /// Checks whose connections are to be settled. After that, those that wait for a pool buffer.
    touched: Vec<usize>,
    is_stopping: bool,
    /// The results so far.
    #[cfg(test)]
    results: Vec<(usize, Result<(), Failure>)>,
}

impl<H> Default for Checks<H> {
    fn default() -> Checks<H> {
        Checks {
            list: Slab::new(),
            starts: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            running: 0,
            touched: Vec::new(),
            is_stopping: false,
            #[cfg(test)]
            results: Vec::new(),
        }
    }
}

impl<H> Checks<H> {
    /// Whether no node is checked.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether no check is in progress.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Whether a receive waits for a pool buffer.
    pub(super) fn is_starved(&self) -> bool {
        !self.touched.is_empty()
    }

    /// When the next attempt begins or is given up, in ms. None: there is none.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let start = self.starts.first().filter(|_| self.running < HEALTH_CHECKS_MAX);
        start.into_iter().chain(self.deadlines.first()).map(|(ms, _)| *ms).min()
    }

    fn attempt_mut(&mut self, index: usize) -> Option<&mut Attempt<H>> {
        self.list.get_mut(index)?.attempt.as_mut()
    }
}

impl<D: Driver> World<D> {
    /// Sets the clusters that are checked. Those that were checked before keep their times.
    pub(super) fn configure_checks(&mut self, clusters: &[&Arc<Cluster>]) {
        for index in self.check_indices() {
            if let Some(check) = self.checks.list.get_mut(index) {
                check.is_leaving = !clusters.iter().any(|cluster| Arc::ptr_eq(cluster, &check.cluster));
            }
            self.leave_check(index);
        }
        // The next turn may be long after this.
        self.settle_checks();
        if self.checks.is_stopping {
            return;
        }
        let is_known =
            |cluster: &Arc<Cluster>| self.checks.list.iter().any(|(_, check)| Arc::ptr_eq(&check.cluster, cluster));
        let has_checks = |cluster: &&&Arc<Cluster>| {
            // Connections of TLS are made by `Transport`.
            cluster.health.is_some() && !is_known(cluster)
        };
        let new: Vec<Arc<Cluster>> = clusters.iter().filter(has_checks).map(|cluster| Arc::clone(cluster)).collect();
        let count = new.iter().map(|cluster| cluster.nodes.len()).sum::<usize>() as u64;
        let nodes = new.iter().flat_map(|cluster| (0..cluster.nodes.len()).map(move |node| (cluster, node)));
        for (number, (cluster, node)) in nodes.enumerate() {
            let interval_ms = cluster.health.as_ref().map_or(0, |health| health.interval_ms);
            let at_ms = self.now_ms + interval_ms.min(HEALTH_SPREAD_MS) * number as u64 / count;
            let cluster = cluster.clone();
            let check = Check { cluster, node, at_ms, attempt: None, is_good: true, is_leaving: false };
            let index = self.checks.list.insert(check);
            self.checks.starts.insert((at_ms, index));
        }
    }

    /// Ends all checks, and begins no more.
    pub(super) fn stop_checks(&mut self) {
        self.checks.is_stopping = true;
        self.checks.list.iter_mut().for_each(|(_, check)| check.is_leaving = true);
        self.check_indices().into_iter().for_each(|index| self.leave_check(index));
        // The next turn may be long after this.
        self.settle_checks();
    }

    /// Gives up the attempts whose time is over, and begins those that are due.
    pub(super) fn advance_checks(&mut self) {
        let taken_ms = self.taken_ms;
        while let Some((at_ms, index)) = self.checks.deadlines.first().copied()
            && at_ms <= taken_ms
        {
            let attempt = self.checks.attempt_mut(index);
            let key = attempt.filter(|attempt| attempt.step == Step::Talking).map(|attempt| attempt.key);
            // What the node has sent may be unread.
            let is_starved = self.slots.transport(key).is_some_and(Transport::is_starved);
            self.conclude(index, (!is_starved).then_some(Err(Failure::Late)));
        }
        while self.checks.running < HEALTH_CHECKS_MAX
            && let Some((at_ms, index)) = self.checks.starts.first().copied()
            && at_ms <= taken_ms
        {
            self.checks.starts.pop_first();
            self.begin_check(index);
        }
    }

    /// Handles a completion of a check.
    pub(super) fn on_check(&mut self, index: usize, event: Event<D::Handle>) {
        match event {
            Event::Opened(result) => self.on_check_opened(index, result),
            Event::Connected(result) => self.on_check_connected(index, result),
            Event::Received { result, more } => self.on_check_received(index, result, more),
            Event::Sent { batch, result } => self.on_check_sent(index, batch, result),
            _ => debug_assert!(false, "a check does nothing else"),
        }
    }

    /// Submits what the connections have to send and to receive. Closes those that have ended.
    pub(super) fn settle_checks(&mut self) {
        for index in std::mem::take(&mut self.checks.touched) {
            let Some(attempt) = self.checks.attempt_mut(index) else { continue };
            let key = attempt.key;
            let token = self.slots.token(key, Op::Receive);
            let Some(transport) = self.slots.transport_mut(Some(key)) else { continue };
            match transport.settle(token, OPPOSITE, &mut self.driver) {
                Settled::Starved(_) => self.checks.touched.push(index),
                Settled::Closable => {
                    if let Some(transport) = self.slots.remove_transport(key) {
                        transport.close(&mut self.driver);
                    }
                    self.end_check(index);
                }
                _ => {}
            }
        }
    }

    fn check_indices(&self) -> Vec<usize> {
        self.checks.list.iter().map(|(index, _)| index).collect()
    }

    /// Ends a check whose cluster is configured no more. The cluster may still have connections: for them the node is as
    /// good as their requests tell.
    fn leave_check(&mut self, index: usize) {
        let Some(check) = self.checks.list.get_mut(index).filter(|check| check.is_leaving) else { return };
        if !std::mem::replace(&mut check.is_good, true) {
            check.cluster.forget_health(check.node, self.now_ms);
        }
        let (at_ms, is_waiting) = (check.at_ms, check.attempt.is_none());
        if is_waiting {
            self.checks.starts.remove(&(at_ms, index));
            self.checks.list.remove(index);
        } else {
            self.conclude(index, None);
        }
    }

    fn begin_check(&mut self, index: usize) {
        let Some(check) = self.checks.list.get_mut(index) else { return };
        let (Some(node), Some(health)) = (check.cluster.nodes.get(check.node), &check.cluster.health) else { return };
        check.at_ms = self.now_ms + health.timeout_ms;
        let key = self.slots.insert_check(index);
        let mut attempt = Attempt {
            key,
            step: Step::Connecting,
            file: None,
            addresses: [].into(),
            address: 0,
            head: Vec::new(),
            is_over: false,
        };
        let path = match &node.place {
            NodePlace::Tcp(place) => {
                attempt.addresses = place.addresses();
                None
            }
            NodePlace::Unix(path) => {
                attempt.step = Step::Opening;
                Some(CString::new(&**path).unwrap_or_default())
            }
        };
        check.attempt = Some(attempt);
        self.checks.running += 1;
        self.checks.deadlines.insert((check.at_ms, index));
        match path {
            Some(path) => {
                self.driver.open(self.slots.token(key, Op::Open), Reach::Anywhere, path, OpenFor::Connecting);
            }
            None => self.connect_check(index, Failure::Unresolved),
        }
    }

    /// Connects to the current address. Without one, the check has failed.
    fn connect_check(&mut self, index: usize, failure: Failure) {
        let Some(attempt) = self.checks.attempt_mut(index) else { return };
        match attempt.addresses.get(attempt.address) {
            Some(address) => {
                let token = self.slots.token(attempt.key, Op::Connect);
                self.driver.connect_tcp(token, *address, &limits::Http::default());
            }
            None => self.fail_check(index, failure),
        }
    }

    fn on_check_opened(&mut self, index: usize, result: Result<(D::Handle, FileKind), Errno>) {
        let Some(attempt) = self.checks.attempt_mut(index) else { return };
        match result {
            Ok((handle, FileKind::Socket(_))) if !attempt.is_over => {
                attempt.step = Step::Connecting;
                let token = self.slots.token(attempt.key, Op::Connect);
                self.driver.connect(token, attempt.file.insert(handle), SocketType::Stream);
            }
            Ok((handle, _)) => {
                self.driver.close(handle);
                self.fail_check(index, Failure::NoSocket);
            }
            Err(errno) => self.fail_check(index, Failure::Unreachable(errno)),
        }
    }

    fn on_check_connected(&mut self, index: usize, result: Result<D::Handle, Errno>) {
        let Some(check) = self.checks.list.get_mut(index) else { return };
        let (Some(node), Some(health)) = (check.cluster.nodes.get(check.node), &check.cluster.health) else { return };
        let Some(attempt) = &mut check.attempt else { return };
        if let Some(file) = attempt.file.take() {
            self.driver.close(file);
        }
        match result {
            Ok(handle) if attempt.is_over => {
                self.driver.close(handle);
                self.fail_check(index, Failure::Late);
            }
            Ok(handle) => {
                let mut transport = match &health.tls {
                    Some(tls) => Transport::with_client_tls(handle, tls, node.host()),
                    None => Transport::new(handle),
                };
                transport.set_demand(Demand::Flow);
                transport.enqueue(Segment::heap(request(node, health).into()), &mut self.driver);
                self.slots.remove(attempt.key);
                attempt.key = self.slots.insert_check_transport(index, transport);
                attempt.step = Step::Talking;
                self.checks.touched.push(index);
            }
            Err(errno) if attempt.is_over || is_own_lack(errno) => {
                self.fail_check(index, Failure::Unreachable(errno));
            }
            Err(errno) => {
                attempt.address += 1;
                self.connect_check(index, Failure::Unreachable(errno));
            }
        }
    }

    fn on_check_received(&mut self, index: usize, result: Received, more: bool) {
        let Some(attempt) = self.checks.attempt_mut(index) else { return };
        let Some(transport) = self.slots.transport_mut(Some(attempt.key)) else { return };
        let mut next = transport.on_received(result, more, &mut self.driver);
        let mut result = None;
        loop {
            let Some(arrival) = next.take().or_else(|| transport.take_arrival()) else {
                if !transport.awaits_step() {
                    break;
                }
                transport.step(&mut self.driver);
                continue;
            };
            match arrival {
                Arrival::Lease(lease) => {
                    let range = lease.range();
                    attempt.take(&self.driver.buffer(&lease)[range]);
                    self.driver.release(lease);
                }
                Arrival::Copy(bytes) => attempt.take(bytes.get(POOL_HEADROOM..).unwrap_or_default()),
                Arrival::End => {
                    transport.on_end();
                    result = Some(Err(Failure::Ended));
                }
                Arrival::Failed(errno) => {
                    transport.on_end();
                    result = Some(Err(Failure::Broken(errno)));
                }
                Arrival::Broken(_) => result = Some(Err(Failure::Tls)),
                Arrival::Header(_) => {}
            }
        }
        let result = judge(&attempt.head).or(result);
        self.checks.touched.push(index);
        if result.is_some() {
            self.conclude(index, result);
        }
    }

    fn on_check_sent(&mut self, index: usize, batch: Batch, result: Result<usize, Errno>) {
        let Some(attempt) = self.checks.attempt_mut(index) else { return };
        let Some(transport) = self.slots.transport_mut(Some(attempt.key)) else { return };
        if let SendResult::Failed(_) = transport.on_sent(batch, result, &mut self.driver) {
            // It may have replied before; the receive tells.
            transport.mute(&mut self.driver);
        }
        self.checks.touched.push(index);
    }

    /// Takes the result of an attempt, if it has none yet, and ends what is in flight for it. None: it tells nothing about
    /// the node.
    fn conclude(&mut self, index: usize, result: Option<Result<(), Failure>>) {
        let Some(check) = self.checks.list.get_mut(index) else { return };
        self.checks.deadlines.remove(&(check.at_ms, index));
        let Some(attempt) = check.attempt.as_mut().filter(|attempt| !attempt.is_over) else { return };
        attempt.is_over = true;
        match attempt.step {
            Step::Opening => {}
            // A connect to a UNIX socket does not wait.
            Step::Connecting if attempt.file.is_some() => {}
            Step::Connecting => self.driver.cancel(self.slots.token(attempt.key, Op::Connect)),
            Step::Talking => {
                if let Some(transport) = self.slots.transport_mut(Some(attempt.key)) {
                    transport.abandon(&mut self.driver);
                }
                self.checks.touched.push(index);
            }
        }
        let Some(result) = result else { return };
        check.is_good = result.is_ok();
        #[cfg(test)]
        self.checks.results.push((check.node, result));
        if let Some(line) = check.cluster.note_health(check.node, check.is_good, self.now_ms) {
            match result {
                Ok(()) => log::event(Level::Info, format_args!("{line}")),
                Err(failure) => log::event(Level::Warn, format_args!("{line}: {failure}")),
            }
        }
    }

    /// Ends an attempt that has no connection, and nothing in flight.
    fn fail_check(&mut self, index: usize, failure: Failure) {
        let Some(check) = self.checks.list.get_mut(index) else { return };
        let Some(attempt) = &mut check.attempt else { return };
        let key = attempt.key;
        // Nothing is left to be ended.
        attempt.step = Step::Opening;
        let is_own = matches!(failure, Failure::Unreachable(errno) if is_own_lack(errno));
        self.conclude(index, (!is_own).then_some(Err(failure)));
        self.slots.remove(key);
        self.end_check(index);
    }

    /// Forgets an attempt whose slot is free, and schedules the next one.
    fn end_check(&mut self, index: usize) {
        self.conclude(index, None);
        let Some(check) = self.checks.list.get_mut(index) else { return };
        check.attempt = None;
        self.checks.running -= 1;
        if check.is_leaving {
            self.checks.list.remove(index);
            return;
        }
        check.at_ms = self.now_ms + check.cluster.health.as_ref().map_or(0, |health| health.interval_ms);
        self.checks.starts.insert((check.at_ms, index));
    }
}

impl<H> Attempt<H> {
    /// Keeps received bytes up to the longest status line.
    fn take(&mut self, bytes: &[u8]) {
        let room = HEALTH_LINE_SIZE_MAX - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Whether an error is about the gateway, not about the node.
fn is_own_lack(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
}

/// The request of a check.
fn request(node: &Node, health: &Health) -> Vec<u8> {
    let host = match (&health.host, &node.place) {
        (Some(host), _) => host.to_string(),
        (None, NodePlace::Unix(_)) => "localhost".to_owned(),
        (None, NodePlace::Tcp(place)) if place.host.contains(':') => format!("[{}]:{}", place.host, place.port),
        (None, NodePlace::Tcp(place)) => format!("{}:{}", place.host, place.port),
    };
    let path = &health.path;
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: uakari\r\nConnection: close\r\n\r\n").into_bytes()
}

/// What the beginning of a reply tells (RFC 9112 section 4). None: the status line is incomplete.
fn judge(head: &[u8]) -> Option<Result<(), Failure>> {
    const VERSION: &[u8] = b"HTTP/1.";
    let size = head.len().min(VERSION.len());
    if head[..size] != VERSION[..size] {
        return Some(Err(Failure::Malformed));
    }
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return (head.len() >= HEALTH_LINE_SIZE_MAX).then_some(Err(Failure::Malformed));
    };
    let line = head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]);
    Some(match &line[VERSION.len().min(line.len())..] {
        [minor, b' ', a @ b'1'..=b'9', b, c, rest @ ..]
            if [minor, b, c].iter().all(|byte| byte.is_ascii_digit()) && matches!(rest, [] | [b' ', ..]) =>
        {
            let digit = |byte: &u8| u16::from(byte - b'0');
            match 100 * digit(a) + 10 * digit(b) + digit(c) {
                200..400 => Ok(()),
                status => Err(Failure::Status(status)),
            }
        }
        _ => Err(Failure::Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Gateway;
    use super::*;
    use crate::driver::sim::{Host, Node as File, Sim};
    use crate::upstream::TcpPlace;

    const INTERVAL_MS: u64 = 5_000;
    const TIMEOUT_MS: u64 = 2_000;

    fn tcp(host: &str, addresses: &[&str]) -> NodePlace {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        NodePlace::Tcp(TcpPlace::new(host, 80, &addresses))
    }

    fn cluster(places: Vec<NodePlace>) -> Arc<Cluster> {
        let node = |place| Node::new("node", place);
        let health = Health {
            path: "/health?a".into(),
            host: None,
            interval_ms: INTERVAL_MS,
            timeout_ms: TIMEOUT_MS,
            tls: None,
        };
        Arc::new(Cluster { health: Some(health), ..Cluster::new("pool", places.into_iter().map(node).collect()) })
    }

    /// A gateway, and the nodes that have accepted its connections.
    struct Farm {
        gateway: Gateway<Sim>,
        /// The kind of each node, its wire, and what it has received.
        wires: Vec<(String, usize, String)>,
        /// When each connection was made, in ms, and the kind of the node.
        times: Vec<(u64, String)>,
    }

    impl Farm {
        fn new(clusters: &[&Arc<Cluster>]) -> Farm {
            let mut sim = Sim::new(1, limits::POOL_BUFFERS.default as usize);
            (sim.is_plain, sim.capacity) = (true, Some(1 << 16));
            for (address, host) in [
                ("192.0.2.1:80", Host::Backend("good".to_owned())),
                ("192.0.2.2:80", Host::Refuses),
                ("192.0.2.3:80", Host::Silent),
                ("192.0.2.4:80", Host::Backend("500".to_owned())),
                ("192.0.2.5:80", Host::Backend("garbage".to_owned())),
                ("192.0.2.6:80", Host::Backend("never".to_owned())),
                ("192.0.2.7:80", Host::Backend("leaves".to_owned())),
                ("192.0.2.8:80", Host::Backend("resets".to_owned())),
                ("192.0.2.9:80", Host::Backend("slow".to_owned())),
                ("192.0.2.10:80", Host::Backend("endless".to_owned())),
            ] {
                sim.hosts.insert(address.parse().unwrap(), host);
            }
            sim.paths.insert("/run/good".into(), File::Backend(SocketType::Stream));
            sim.paths.insert("/run/dead".into(), File::Dead);
            sim.paths.insert("/run/full".into(), File::Full(u64::MAX));
            sim.paths.insert("/run/file".into(), File::File(Vec::new()));
            let gateway = Gateway::new(sim, limits::Process::default());
            let mut farm = Farm { gateway, wires: Vec::new(), times: Vec::new() };
            farm.gateway.world.configure_checks(clusters);
            farm
        }

        fn turn(&mut self) {
            self.gateway.turn(None, &mut Vec::new()).unwrap();
            let sim = self.gateway.driver_mut();
            for (name, wire) in std::mem::take(&mut sim.connected) {
                let name = name.rsplit('/').next().unwrap_or_default().to_owned();
                self.times.push((sim.now_ms, name.clone()));
                match &*name {
                    "leaves" => sim.wires[wire].leave(),
                    "resets" => sim.wires[wire].reset(),
                    _ => {}
                }
                self.wires.push((name, wire, String::new()));
            }
            for (name, wire, text) in &mut self.wires {
                let wire = &mut sim.wires[*wire];
                if text.ends_with("\r\n\r\n") {
                    if name == "endless" {
                        wire.write(&[b'a'; 100]);
                    }
                    if name == "slow" {
                        wire.write(b" OK\r\n");
                    }
                    continue;
                }
                while let Some(chunk) = wire.read() {
                    text.push_str(std::str::from_utf8(&chunk).unwrap());
                }
                if !text.ends_with("\r\n\r\n") {
                    continue;
                }
                wire.write(match &**name {
                    "good" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                    "500" => b"HTTP/1.1 500 No\r\n\r\n",
                    "garbage" => b"SSH-2.0-x\r\n",
                    "slow" => b"HTTP/1.0 200",
                    "endless" => b"HTTP/1.1 200 a",
                    _ => continue,
                });
            }
        }

        /// The results after this number of checks.
        fn results(&mut self, count: usize) -> Vec<(usize, Result<(), Failure>)> {
            while self.gateway.world.checks.results.len() < count {
                self.turn();
            }
            std::mem::take(&mut self.gateway.world.checks.results)
        }

        /// Stops the gateway: nothing is left.
        fn stop(mut self) {
            self.gateway.stop();
            while !self.gateway.is_over() {
                self.turn();
            }
            assert!(self.gateway.has_empty_counts());
            assert_eq!(self.gateway.driver_mut().leaks(), "");
            assert!(self.wires.iter().all(|(_, wire, _)| self.gateway.driver_mut().wires[*wire].is_closed));
        }
    }

    #[test]
    fn results_of_nodes() {
        let unix = |path: &str| NodePlace::Unix(path.into());
        let unreachable = |errno| Err(Failure::Unreachable(errno));
        for (place, expected) in [
            (tcp("192.0.2.1", &["192.0.2.1:80"]), Ok(())),
            (tcp("several", &["192.0.2.2:80", "192.0.2.1:80"]), Ok(())),
            (tcp("192.0.2.2", &["192.0.2.2:80"]), unreachable(Errno::ECONNREFUSED)),
            (tcp("192.0.2.3", &["192.0.2.3:80"]), Err(Failure::Late)),
            (tcp("192.0.2.4", &["192.0.2.4:80"]), Err(Failure::Status(500))),
            (tcp("192.0.2.5", &["192.0.2.5:80"]), Err(Failure::Malformed)),
            (tcp("192.0.2.6", &["192.0.2.6:80"]), Err(Failure::Late)),
            (tcp("192.0.2.7", &["192.0.2.7:80"]), Err(Failure::Ended)),
            (tcp("192.0.2.8", &["192.0.2.8:80"]), Err(Failure::Broken(Errno::ECONNRESET))),
            (tcp("192.0.2.9", &["192.0.2.9:80"]), Ok(())),
            (tcp("192.0.2.10", &["192.0.2.10:80"]), Err(Failure::Malformed)),
            (tcp("192.0.2.99", &["192.0.2.99:80"]), unreachable(Errno::ENETUNREACH)),
            (tcp("unknown", &[]), Err(Failure::Unresolved)),
            (unix("/run/good"), Ok(())),
            (unix("/run/dead"), unreachable(Errno::ECONNREFUSED)),
            (unix("/run/full"), unreachable(Errno::EAGAIN)),
            (unix("/run/none"), unreachable(Errno::ENOENT)),
            (unix("/run/file"), Err(Failure::NoSocket)),
        ] {
            let name = format!("{place:?}");
            let cluster = cluster(vec![place]);
            let mut farm = Farm::new(&[&cluster]);
            assert_eq!(farm.results(2), [(0, expected), (0, expected)], "{name}");
            farm.stop();
        }
    }

    #[test]
    fn requests_of_checks() {
        let node = |place| cluster(vec![place]).nodes[0].clone();
        let health = cluster(Vec::new()).health.clone().unwrap();
        let named = Health { host: Some("www.example".into()), ..health.clone() };
        for (place, health, host) in [
            (NodePlace::Unix("/run/good".into()), &health, "localhost"),
            (tcp("::1", &["[::1]:80"]), &health, "[::1]:80"),
            (tcp("node", &[]), &health, "node:80"),
            (tcp("node", &[]), &named, "www.example"),
        ] {
            let text = String::from_utf8(request(&node(place), health)).unwrap();
            let expected =
                format!("GET /health?a HTTP/1.1\r\nHost: {host}\r\nUser-Agent: uakari\r\nConnection: close\r\n\r\n");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn times_of_checks() {
        let nodes = || cluster(vec![tcp("192.0.2.1", &["192.0.2.1:80"]), NodePlace::Unix("/run/good".into())]);
        let (one, two) = (nodes(), nodes());
        let mut farm = Farm::new(&[&one]);
        let start_ms = farm.gateway.now_ms();
        farm.results(4);
        let times: Vec<u64> = farm.times.iter().map(|(ms, _)| ms - start_ms).collect();
        // The simulated kernel takes some ms for each step.
        for (time, expected) in
            times.iter().zip([0, HEALTH_SPREAD_MS / 2, INTERVAL_MS, INTERVAL_MS + HEALTH_SPREAD_MS / 2])
        {
            assert!((expected..expected + 200).contains(time), "{times:?}");
        }
        // A cluster that stays keeps its times; the new one begins now.
        farm.times.clear();
        let (reload_ms, due_ms) = (farm.gateway.now_ms(), farm.gateway.world.checks.due_ms());
        farm.gateway.world.configure_checks(&[&one, &two]);
        assert_eq!(farm.gateway.world.checks.list.len(), 4);
        farm.results(2);
        assert!(farm.times.iter().all(|(ms, _)| *ms < reload_ms + HEALTH_SPREAD_MS), "{:?}", farm.times);
        farm.gateway.world.configure_checks(&[&one]);
        // The last check may be ending.
        while !farm.gateway.world.checks.is_idle() {
            farm.turn();
        }
        assert_eq!((farm.gateway.world.checks.list.len(), farm.gateway.world.checks.due_ms()), (2, due_ms));
        farm.stop();
    }

    #[test]
    fn a_cluster_leaves_during_checks() {
        let all = ["192.0.2.3:80", "192.0.2.6:80", "192.0.2.1:80"];
        let cluster = cluster(all.map(|address| tcp(address, &[address])).into());
        for turns in 0..40 {
            let mut farm = Farm::new(&[&cluster]);
            (0..turns).for_each(|_| farm.turn());
            farm.gateway.world.configure_checks(&[]);
            farm.gateway.world.checks.results.clear();
            while !farm.gateway.world.checks.is_empty() {
                farm.turn();
            }
            assert_eq!(farm.gateway.world.checks.results, [], "after {turns} turns");
            assert_eq!(farm.gateway.world.checks.due_ms(), None);
            farm.stop();
            let mut farm = Farm::new(&[&cluster]);
            (0..turns).for_each(|_| farm.turn());
            farm.stop();
        }
    }

    #[test]
    fn few_checks_are_in_progress() {
        let silent = cluster((0..3 * HEALTH_CHECKS_MAX).map(|_| tcp("192.0.2.6", &["192.0.2.6:80"])).collect());
        let mut farm = Farm::new(&[&silent]);
        let mut most = 0;
        while farm.gateway.world.checks.results.len() < 2 * silent.nodes.len() {
            farm.turn();
            most = most.max(farm.gateway.world.checks.running);
        }
        assert_eq!(most, HEALTH_CHECKS_MAX);
        let mut nodes: Vec<usize> = farm.results(0).iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        let expected: Vec<usize> = (0..silent.nodes.len()).flat_map(|node| [node, node]).collect();
        assert_eq!(nodes, expected, "all in turn");
        farm.stop();
    }

    #[test]
    fn status_lines() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(Ok(()))),
            ("HTTP/1.0 399\n", Some(Ok(()))),
            ("HTTP/1.1 204 \r\nA: b", Some(Ok(()))),
            ("HTTP/1.1 100 Continue\r\n", Some(Err(Failure::Status(100)))),
            ("HTTP/1.1 404 Not Found\r\n", Some(Err(Failure::Status(404)))),
            ("HTTP/1.1 2000 OK\r\n", Some(Err(Failure::Malformed))),
            ("HTTP/1.1 000 OK\r\n", Some(Err(Failure::Malformed))),
            ("HTTP/1.1  200 OK\r\n", Some(Err(Failure::Malformed))),
            ("HTTP/1.1\r\n", Some(Err(Failure::Malformed))),
            ("HTTP/2 200\r\n", Some(Err(Failure::Malformed))),
            ("\r\nHTTP/1.1 200 OK\r\n", Some(Err(Failure::Malformed))),
            ("HTTP/1.1 200 OK", None),
            ("", None),
        ] {
            assert_eq!(judge(text.as_bytes()), expected, "{text:?}");
            // An incomplete line has no result, or the one of the whole line.
            for size in 0..text.len() {
                let part = judge(&text.as_bytes()[..size]);
                assert!(part.is_none() || part == expected, "{text:?} cut at {size}: {part:?}");
            }
        }
    }
}
