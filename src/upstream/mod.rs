//! HTTP and WebSocket servers behind the gateway: what a link leads to, the nodes of a cluster, the choice among them, and
//! how they do. Without I/O and without a clock.
#![forbid(unsafe_code)]

mod balance;
mod error;
mod state;
mod sticky;

use std::net::SocketAddr;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};

use crate::limits;
use crate::permit::{Count, Permit};
use crate::tls::UpstreamTls;

pub use balance::Balance;
pub(crate) use balance::{Choosing, NodeOutcome};
pub use error::UpstreamError;
pub use state::NodeState;
pub use sticky::Sticky;

/// Where a link of type http, https, ws or wss leads to.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// Index of the only node that is used. None: the cluster chooses.
    pub node: Option<usize>,
    /// TLS to the nodes. None: plain HTTP.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Takes the place of the part of a request's path that `origin` of the link has matched. None: the path is kept.
    pub path: Option<Box<str>>,
    /// The Host of requests to the nodes. None: that of the client's request.
    pub host: Option<Box<str>>,
    /// The fields that name the client.
    pub forwarded: ClientFields,
    /// Whether Location, and Path of Set-Cookie, lead to `origin` where they lead to `path`.
    pub rewrites_replies: bool,
    /// Whether nodes get the credentials that the gateway has verified.
    pub passes_credentials: bool,
    /// Of a WebSocket: whether the bytes after the handshake are passed on as they are. Otherwise frames are relayed.
    pub is_tunnel: bool,
    /// The limits of each request.
    pub limits: limits::Forwarding,
    /// The requests in progress.
    pub requests: Count,
}

/// A permit for one request of a link (`limits.requests`).
pub(crate) type RequestPermit = Permit<Upstream>;

impl AsRef<Count> for Upstream {
    fn as_ref(&self) -> &Count {
        &self.requests
    }
}

/// Which fields name the client to the nodes. Those that the client has sent are always removed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ClientFields {
    /// X-Forwarded-For, -Proto, -Host and -Port.
    #[default]
    XForwarded,
    /// Forwarded (RFC 7239).
    Forwarded,
    /// The fields of both kinds.
    Both,
    /// No such field.
    None,
}

/// Nodes among which one is chosen for each request: an element of `upstreams`, or the destination of one link.
#[derive(Debug)]
pub struct Cluster {
    /// Its name in the configuration; the destination, if it is that of one link.
    pub name: Box<str>,
    /// In the order of the configuration; at most `limits::NODES_MAX`.
    pub nodes: Box<[Arc<Node>]>,
    /// How a node is chosen for a request without a session.
    pub balance: Balance,
    /// How the node of a session is known. None: there are no sessions.
    pub sticky: Option<Sticky>,
    /// How nodes are watched. None: by the requests of clients alone.
    pub health: Option<Health>,
    /// Idle connections that are kept to all nodes together.
    pub keepalive_max: u64,
    /// How long an idle connection is kept, in milliseconds.
    pub keepalive_ms: u64,
    /// Idle connections that are kept now.
    pub idle: Count,
    /// The state of `balance`.
    pub(crate) turn: balance::Turn,
}

impl Cluster {
    /// The host of requests whose client has named none.
    pub(crate) fn host(&self) -> &str {
        if self.name.contains('/') { "localhost" } else { &self.name }
    }
}

impl AsRef<Count> for Cluster {
    fn as_ref(&self) -> &Count {
        &self.idle
    }
}

/// How nodes are watched: requests whose reply has to be 2xx or 3xx.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// The target of the requests.
    pub path: Box<str>,
    /// The Host of the requests. None: the address of the node.
    pub host: Option<Box<str>>,
    /// From the end of a check to the next one, in milliseconds.
    pub interval_ms: u64,
    /// How long a check may take, in milliseconds.
    pub timeout_ms: u64,
    /// TLS to the nodes. None: plain HTTP.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// One server of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Its address as configured, for the log.
    pub name: Box<str>,
    /// Where it is.
    pub place: NodePlace,
    /// Its share of the requests; at least 1.
    pub weight: u32,
    /// The route by which sessions name it. None: no session is bound to it.
    pub route: Option<Box<str>>,
    /// It is used only while no other node is.
    pub is_backup: bool,
    /// Failures within `fail_ms` after which it is not used for `fail_ms`. 0: they do not count.
    pub max_fails: u32,
    /// See `max_fails`; in milliseconds.
    pub fail_ms: u64,
    /// How it does.
    pub state: NodeState,
    /// The requests and WebSockets that it has now.
    pub busy: Count,
    /// What it has gained of its turns, by weight.
    pub(crate) turn: AtomicI64,
}

impl Cluster {
    /// A cluster of these nodes, in turn, without sessions and health checks, that keeps idle connections by default.
    pub fn new(name: &str, nodes: Vec<Node>) -> Cluster {
        Cluster {
            name: name.into(),
            nodes: nodes.into_iter().map(Arc::new).collect(),
            balance: Balance::default(),
            sticky: None,
            health: None,
            keepalive_max: limits::UPSTREAM_KEEPALIVE_MAX.default,
            keepalive_ms: limits::UPSTREAM_KEEPALIVE_MS.default,
            idle: Count::default(),
            turn: balance::Turn::default(),
        }
    }
}

impl Node {
    /// A node of the default weight and patience, without a route; no backup.
    pub fn new(name: &str, place: NodePlace) -> Node {
        Node {
            name: name.into(),
            place,
            weight: limits::NODE_WEIGHT_MAX.default as u32,
            route: None,
            is_backup: false,
            max_fails: limits::NODE_FAILS_MAX.default as u32,
            fail_ms: limits::NODE_FAIL_MS.default,
            state: NodeState::default(),
            busy: Count::default(),
            turn: AtomicI64::new(0),
        }
    }
}

impl Node {
    /// The host of its address, for TLS. Empty: it is a UNIX socket.
    pub(crate) fn host(&self) -> &str {
        match &self.place {
            NodePlace::Tcp(place) => &place.host,
            NodePlace::Unix(_) => "",
        }
    }
}

impl AsRef<Count> for Node {
    fn as_ref(&self) -> &Count {
        &self.busy
    }
}

/// A permit for one request or WebSocket of a node. All of them count, without a limit.
pub(crate) type NodePermit = Permit<Node>;

/// A node, as one link reaches it.
#[derive(Clone, Debug)]
pub(crate) struct NodeLink {
    /// What the link leads to.
    pub(crate) upstream: Arc<Upstream>,
    /// The node.
    pub(crate) node: Arc<Node>,
}

impl Upstream {
    /// Chooses a node, which counts as busy until the permit is dropped. None: all that may be used have been tried.
    pub(crate) fn choose(&self, choosing: &Choosing<'_>) -> Option<(usize, NodePermit)> {
        let Some(index) = self.node else { return self.cluster.choose(choosing) };
        let is_tried = choosing.tried & (1 << index) != 0;
        let node = self.cluster.nodes.get(index).filter(|_| !is_tried)?;
        Some((index, NodePermit::take(node, u64::MAX)?))
    }
}

/// Where a node is.
#[derive(Debug)]
pub enum NodePlace {
    /// The socket at this absolute path.
    Unix(Box<str>),
    /// A TCP server.
    Tcp(TcpPlace),
}

impl NodePlace {
    /// Whether it can be connected: a name has addresses only after it has been looked up.
    pub(crate) fn is_resolved(&self) -> bool {
        match self {
            NodePlace::Unix(_) => true,
            NodePlace::Tcp(place) => !place.addresses.read().unwrap_or_else(PoisonError::into_inner).is_empty(),
        }
    }
}

/// The host and the port of a TCP server, and its addresses.
#[derive(Debug)]
pub struct TcpPlace {
    /// The name, or the address as text.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Whether `host` is a name, whose addresses are looked up.
    pub is_name: bool,
    /// Empty: not resolved yet.
    addresses: RwLock<Arc<[SocketAddr]>>,
}

impl TcpPlace {
    /// A server with these addresses; without any, `host` is a name that has to be looked up.
    pub fn new(host: &str, port: u16, addresses: &[SocketAddr]) -> TcpPlace {
        TcpPlace { host: host.into(), port, is_name: addresses.is_empty(), addresses: RwLock::new(addresses.into()) }
    }

    /// The addresses, in the order in which they are tried.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the addresses of a name.
    pub fn resolve(&self, addresses: &[SocketAddr]) {
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses.into();
    }
}

impl PartialEq for TcpPlace {
    fn eq(&self, other: &TcpPlace) -> bool {
        let own = (&self.host, self.port, self.is_name);
        own == (&other.host, other.port, other.is_name)
    }
}

impl Eq for TcpPlace {}

impl PartialEq for NodePlace {
    fn eq(&self, other: &NodePlace) -> bool {
        match (self, other) {
            (NodePlace::Unix(one), NodePlace::Unix(two)) => one == two,
            (NodePlace::Tcp(one), NodePlace::Tcp(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for NodePlace {}

/// Whether both are configured alike.
impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        let own = (&self.place, self.weight, &self.route, self.is_backup, self.max_fails, self.fail_ms);
        own == (&other.place, other.weight, &other.route, other.is_backup, other.max_fails, other.fail_ms)
    }
}

impl Eq for Node {}

/// Whether both are configured alike.
impl PartialEq for Cluster {
    fn eq(&self, other: &Cluster) -> bool {
        let own = (&self.name, &self.nodes, self.balance, &self.sticky, &self.health);
        own == (&other.name, &other.nodes, other.balance, &other.sticky, &other.health)
            && (self.keepalive_max, self.keepalive_ms) == (other.keepalive_max, other.keepalive_ms)
    }
}

impl Eq for Cluster {}

/// Whether both are configured alike.
impl PartialEq for Upstream {
    fn eq(&self, other: &Upstream) -> bool {
        let own = (&self.cluster, self.node, &self.tls, &self.path, &self.host, self.forwarded);
        own == (&other.cluster, other.node, &other.tls, &other.path, &other.host, other.forwarded)
            && (self.rewrites_replies, self.passes_credentials) == (other.rewrites_replies, other.passes_credentials)
            && (self.is_tunnel, &self.limits) == (other.is_tunnel, &other.limits)
    }
}

impl Eq for Upstream {}
