//! The check of `upstreams`, and of links to their nodes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::access;
use super::group::Group;
use super::text_setting;
use crate::config::keys::{self, Limits};
use crate::config::problem::{Location, Problems};
use crate::config::values::{self, NodeAddress, NodeScheme, TcpBackend};
use crate::config::{Server, TextSetting, UpstreamTlsFiles, replace_cluster};
use crate::limits::{
    self, HEALTH_MS, HEALTH_TIMEOUT_MS, NODE_FAIL_MS, NODE_FAILS_MAX, NODE_WEIGHT_MAX, NODES_MAX, STICKY_NAMES_MAX,
    UPSTREAM_KEEPALIVE_MAX, UPSTREAM_KEEPALIVE_MS, UPSTREAMS_MAX,
};
use crate::permit::Count;
use crate::route::names::Patterns;
use crate::route::{Destination, Link, Service};
use crate::tls::{UpstreamFile, UpstreamTls};
use crate::upstream::{Balance, Cluster, Health, Node, NodePlace, Sticky, TcpPlace, Upstream};

/// What precedes a parameter of the path, by default.
const PATH_DELIMITER: char = ';';

/// What precedes the route in the value of a session, by default.
const ROUTE_SEPARATOR: char = '.';

/// The upstreams of a configuration, and the single nodes of links.
#[derive(Default)]
pub(crate) struct Upstreams {
    named: Vec<Named>,
    single: Vec<Arc<Cluster>>,
    /// TLS to the single nodes.
    tls: Vec<UpstreamTlsFiles>,
}

/// An element of `upstreams`.
struct Named {
    location: Location,
    /// The key in reported problems.
    path: String,
    cluster: Arc<Cluster>,
    tls: UpstreamTlsFiles,
    /// Where `tls` is set.
    tls_set: Option<(Location, String)>,
    has_plain_links: bool,
    has_tls_links: bool,
}

/// Where a link leads to.
struct Nodes {
    cluster: Arc<Cluster>,
    /// The only node that is used.
    node: Option<usize>,
    tls: Option<Arc<UpstreamTls>>,
}

impl Upstreams {
    /// Checks the key `upstreams` of the file.
    pub(crate) fn read(top: &Group<'_>, problems: &mut Problems) -> Upstreams {
        let mut upstreams = Upstreams::default();
        for group in top.groups("upstreams", UPSTREAMS_MAX, problems) {
            let named = named(&group, problems);
            let name = &named.cluster.name;
            if let Some(other) = upstreams.named.iter().find(|other| other.cluster.name == *name && !name.is_empty()) {
                let sentence = format_args!("{name:?} is the name of {} too: give it another one", other.path);
                group.error(problems, "name", sentence);
            }
            upstreams.named.push(named);
        }
        upstreams
    }

    /// Reports upstreams without links, decides whether health checks use TLS, and sets the limits that count connections.
    /// Returns all clusters, and the TLS settings that links use.
    pub(crate) fn finish(
        self,
        servers: &mut [Server],
        limits: &mut limits::Process,
        problems: &mut Problems,
    ) -> (Vec<Arc<Cluster>>, Vec<UpstreamTlsFiles>) {
        let Upstreams { named, single, tls: tls_of_single } = self;
        let mut all_tls = Vec::new();
        let mut clusters = Vec::new();
        for named in named {
            let Named { location, path, mut cluster, tls, tls_set, has_plain_links, has_tls_links } = named;
            if !has_plain_links && !has_tls_links && !problems.has_errors() {
                let sentence = "no link leads to it: write its name as destination of a link, or leave it out";
                problems.warn(location, &path, sentence);
            } else if let Some((location, path)) = tls_set.as_ref().filter(|_| !has_tls_links) {
                let sentence = "has no effect: no link of type \"https\" or \"wss\" leads to this upstream";
                problems.warn(*location, path, sentence);
            }
            if has_tls_links && tls.tls.server_name.is_none() && cluster.nodes.iter().any(|node| is_unix(&node.place)) {
                problems.error(location, &path, NEEDS_SERVER_NAME);
            }
            let checks_tls = has_tls_links && (tls_set.is_some() || !has_plain_links);
            if let Some(health) = cluster.health.clone().filter(|_| checks_tls) {
                let health = Health { tls: Some(tls.tls.clone()), ..health };
                let with_tls = Arc::new(with_health(&cluster, health));
                replace_cluster(servers, &cluster, &with_tls);
                cluster = with_tls;
            }
            let checks = cluster.health.as_ref().map_or(0, |_| cluster.nodes.len() as u64);
            let idle = cluster.keepalive_max + checks;
            limits.upstream_idle_max += idle;
            if has_tls_links {
                limits.upstream_idle_tls_max += idle;
                all_tls.push(tls);
            }
            clusters.push(cluster);
        }
        for cluster in single {
            limits.upstream_idle_max += cluster.keepalive_max;
            clusters.push(cluster);
        }
        all_tls.extend(tls_of_single);
        limits.has_upstream_tls = !all_tls.is_empty();
        (clusters, all_tls)
    }

    /// Checks the keys of a link that are about its nodes. `origin` are its patterns as they are written. `keepalive_max`
    /// is for a single node.
    pub(crate) fn of_link(
        &mut self,
        group: &Group<'_>,
        scheme: NodeScheme,
        keepalive_max: u64,
        limits: limits::Forwarding,
        problems: &mut Problems,
    ) -> Option<Upstream> {
        let path = group.parsed(problems, "path", values::request_path);
        if group.has("path") && !group.text("origin").is_none_or(may_be_replaced) {
            let sentence = "needs patterns in origin that begin with \"^/\" and have no \"*\": write such patterns";
            group.error(problems, "path", sentence);
        }
        let host = group.parsed(problems, "host", values::host_header);
        let rewrites_replies = group.flag("rewrite").unwrap_or(path.is_some());
        if rewrites_replies && !group.has("path") {
            group.warn(problems, "rewrite", "has no effect without path, which changes nothing in requests");
        }
        if scheme == NodeScheme::Plain && group.has("tls") {
            let sentence = "is for links of type \"https\" or \"wss\": write one of them, or leave it out";
            group.error(problems, "tls", sentence);
        }
        let destination = group.text("destination")?;
        let Nodes { cluster, node, tls } = match destination.contains([':', '/']) {
            true => self.single(group, scheme, keepalive_max, problems)?,
            false => self.named(group, destination, scheme, problems)?,
        };
        Some(Upstream {
            cluster,
            node,
            tls,
            path,
            host,
            forwarded: group.word("forwarded-headers", &values::FORWARDED_HEADERS).unwrap_or_default(),
            rewrites_replies,
            passes_credentials: group.flag("pass-credentials").unwrap_or(false),
            is_tunnel: group.word("upgrade", &values::UPGRADES).unwrap_or(false),
            limits,
            requests: Count::default(),
        })
    }

    /// The upstream that a link names, and the index of its only node.
    fn named(&mut self, group: &Group<'_>, name: &str, scheme: NodeScheme, problems: &mut Problems) -> Option<Nodes> {
        let Some(named) = self.named.iter_mut().find(|named| *named.cluster.name == *name) else {
            let known = self.named.iter().map(|named| &*named.cluster.name).filter(|name| !name.is_empty());
            let remedy = match keys::nearest(name, known) {
                Some(nearest) => format!("did you mean {nearest:?}?"),
                None => "write the name of an upstream, \"HOST:PORT\", \"[ADDR6]:PORT\" or \"unix:PATH\"".to_owned(),
            };
            group.error(problems, "destination", format_args!("there is no upstream {name:?}: {remedy}"));
            return None;
        };
        match scheme {
            NodeScheme::Plain => named.has_plain_links = true,
            NodeScheme::Tls => named.has_tls_links = true,
        }
        if scheme == NodeScheme::Tls && group.has("tls") {
            let sentence = format_args!("belongs to {}, the upstream of this link: write it there", named.path);
            group.error(problems, "tls", sentence);
        }
        let node = group.text("route").and_then(|route| {
            let has_route = |node: &Arc<Node>| node.route.as_deref() == Some(route);
            let node = named.cluster.nodes.iter().position(has_route);
            if node.is_none() {
                let known = named.cluster.nodes.iter().filter_map(|node| node.route.as_deref());
                let remedy = match keys::nearest(route, known) {
                    Some(nearest) => format!("did you mean {nearest:?}?"),
                    None => format!("write route = {route:?}; in that server of it"),
                };
                let sentence = format_args!("no server of the upstream {name:?} has the route {route:?}: {remedy}");
                group.error(problems, "route", sentence);
            }
            node
        });
        let tls = (scheme == NodeScheme::Tls).then(|| named.tls.tls.clone());
        Some(Nodes { cluster: named.cluster.clone(), node, tls })
    }

    /// The single node whose address a link has as its destination.
    fn single(
        &mut self,
        group: &Group<'_>,
        scheme: NodeScheme,
        keepalive_max: u64,
        problems: &mut Problems,
    ) -> Option<Nodes> {
        if group.has("route") {
            let sentence = "needs the name of an upstream as destination: write that, or leave it out";
            group.error(problems, "route", sentence);
        }
        let address = group.parsed(problems, "destination", values::node_address)?;
        let name = group.text("destination")?;
        // There is no other node that could be used in its place.
        let node = Node { max_fails: 0, ..Node::new(name, place(address)) };
        let tls = (scheme == NodeScheme::Tls).then(|| tls_files(group, name, problems));
        if tls.as_ref().is_some_and(|tls| tls.tls.server_name.is_none()) && is_unix(&node.place) {
            group.error(problems, "destination", NEEDS_SERVER_NAME);
        }
        let cluster = Arc::new(Cluster {
            name: name.into(),
            nodes: [Arc::new(node)].into(),
            balance: Balance::default(),
            sticky: None,
            health: None,
            keepalive_max,
            keepalive_ms: UPSTREAM_KEEPALIVE_MS.default,
            idle: Count::default(),
            turn: Default::default(),
        });
        self.single.push(cluster.clone());
        let shared = tls.as_ref().map(|files| files.tls.clone());
        self.tls.extend(tls);
        Some(Nodes { cluster, node: None, tls: shared })
    }
}

/// The error of TLS to a UNIX socket.
const NEEDS_SERVER_NAME: &str =
    "TLS to a UNIX socket needs the name of the certificate: write tls = { servername = \"NAME\"; };";

/// Checks an element of `links` of `document`. `limits` are those of `document`.
pub(crate) fn page_link(
    group: &Group<'_>,
    limits: &Limits,
    access: &mut access::AccessCheck<'_>,
    upstreams: &mut Upstreams,
    problems: &mut Problems,
) -> Option<Link> {
    for name in ["origin", "type", "destination"] {
        group.require(problems, name);
    }
    let origin = group.parsed(problems, "origin", |list| match values::elements(list).next() {
        Some(_) => Ok(Patterns::parse(list)),
        None => Err("is empty: write patterns such as \"^/app/\"".to_owned()),
    });
    let mut limits = limits.clone();
    group.limits(&mut limits, problems);
    let access = access.of_link(group, false, problems);
    let scheme = group.word("type", &values::PAGE_LINKS)?;
    let upstream = upstreams.of_link(group, scheme, UPSTREAM_KEEPALIVE_MAX.default, limits.upstream, problems)?;
    let destination = Destination::Upstream(Arc::new(upstream));
    Some(Link { origin: origin?, destination, service: Arc::new(Service::default()), access })
}

/// Whether what each of these patterns matches is the beginning of the path, and nothing but the pattern itself.
fn may_be_replaced(origin: &str) -> bool {
    values::elements(origin).all(|pattern| pattern.starts_with("^/") && !pattern.contains('*'))
}

fn is_unix(place: &NodePlace) -> bool {
    matches!(place, NodePlace::Unix(_))
}

fn place(address: NodeAddress) -> NodePlace {
    match address {
        NodeAddress::Unix(path) => NodePlace::Unix(path),
        NodeAddress::Tcp(TcpBackend::Address(address)) => tcp_place(address),
        NodeAddress::Tcp(TcpBackend::Host(host, port)) => NodePlace::Tcp(TcpPlace::new(&host, port, &[])),
    }
}

fn tcp_place(address: SocketAddr) -> NodePlace {
    NodePlace::Tcp(TcpPlace::new(&address.ip().to_string(), address.port(), &[address]))
}

/// A copy with other health checks and a new state.
fn with_health(cluster: &Cluster, health: Health) -> Cluster {
    Cluster {
        name: cluster.name.clone(),
        nodes: cluster.nodes.clone(),
        balance: cluster.balance,
        sticky: cluster.sticky.clone(),
        health: Some(health),
        keepalive_max: cluster.keepalive_max,
        keepalive_ms: cluster.keepalive_ms,
        idle: Count::default(),
        turn: Default::default(),
    }
}

fn named(group: &Group<'_>, problems: &mut Problems) -> Named {
    for name in ["name", "servers"] {
        group.require(problems, name);
    }
    let name = group.parsed(problems, "name", values::label).unwrap_or_default();
    let sticky = group.group("sticky", problems).map(|group| sticky(&group, problems));
    let health = group.group("health", problems).and_then(|group| health(&group, problems));
    let servers = group.groups("servers", NODES_MAX, problems);
    if group.has("servers") && servers.is_empty() && group.data("servers").is_some() {
        group.error(problems, "servers", "is empty: write servers = ({ address = \"HOST:PORT\"; });");
    }
    let nodes: Vec<Arc<Node>> = servers.iter().filter_map(|group| node(group, problems)).map(Arc::new).collect();
    if !nodes.is_empty() && nodes.len() == servers.len() && nodes.iter().all(|node| node.is_backup) {
        group.error(problems, "servers", "has backups only: leave backup out of one of them");
    }
    check_routes(&servers, &nodes, sticky.as_ref(), problems);
    if sticky.is_some() && !nodes.is_empty() && nodes.iter().all(|node| node.route.is_none()) {
        group.error(problems, "sticky", "needs servers with routes: write route = \"node1\"; in each of servers");
    }
    let cluster = Cluster {
        name,
        nodes: nodes.into(),
        balance: group.word("balance", &values::BALANCES).unwrap_or_default(),
        sticky,
        health,
        keepalive_max: group.number("keepalive").unwrap_or(UPSTREAM_KEEPALIVE_MAX.default),
        keepalive_ms: group.number("keepalive-ms").unwrap_or(UPSTREAM_KEEPALIVE_MS.default),
        idle: Count::default(),
        turn: Default::default(),
    };
    let tls = tls_files(group, &cluster.name, problems);
    Named {
        location: group.location,
        path: group.path_of("").trim_end_matches('.').to_owned(),
        cluster: Arc::new(cluster),
        tls,
        tls_set: group.location_of("tls").map(|location| (location, group.path_of("tls"))),
        has_plain_links: false,
        has_tls_links: false,
    }
}

/// Reports routes that two nodes have, and those in which a session's route would not be found.
fn check_routes(servers: &[Group<'_>], nodes: &[Arc<Node>], sticky: Option<&Sticky>, problems: &mut Problems) {
    let mut routes = HashSet::new();
    for group in servers {
        let Some(route) = group.text("route") else { continue };
        if !routes.insert(route) {
            let sentence = format_args!("{route:?} is the route of another server too: give it another one");
            group.error(problems, "route", sentence);
        }
        let has_separator = |sticky: &&Sticky| route.contains(sticky.route_separator);
        if let Some(sticky) = sticky.filter(|sticky| !nodes.is_empty() && has_separator(sticky)) {
            let sentence =
                format_args!("{route:?} has the route-separator {:?} in it: leave it out", sticky.route_separator);
            group.error(problems, "route", sentence);
        }
    }
}

fn node(group: &Group<'_>, problems: &mut Problems) -> Option<Node> {
    group.require(problems, "address");
    let route = group.parsed(problems, "route", values::label);
    let place = place(group.parsed(problems, "address", values::node_address)?);
    Some(Node {
        weight: group.number("weight").unwrap_or(NODE_WEIGHT_MAX.default) as u32,
        route,
        is_backup: group.flag("backup").unwrap_or(false),
        max_fails: group.number("max-fails").unwrap_or(NODE_FAILS_MAX.default) as u32,
        fail_ms: group.number("fail-ms").unwrap_or(NODE_FAIL_MS.default),
        ..Node::new(group.text("address")?, place)
    })
}

fn sticky(group: &Group<'_>, problems: &mut Problems) -> Sticky {
    group.require(problems, "names");
    let mut names: Vec<Box<str>> = Vec::new();
    if group.has("names") {
        group.each("names", STICKY_NAMES_MAX, problems, |text| {
            let name = values::session_name(text)?;
            if names.contains(&name) {
                return Err(format!("{text:?} is listed twice: keep one of them"));
            }
            names.push(name);
            Ok(())
        });
    }
    let mut delimiter = |name, default| group.parsed(problems, name, values::delimiter).unwrap_or(default);
    Sticky {
        names,
        path_delimiter: delimiter("path-delimiter", PATH_DELIMITER),
        route_separator: delimiter("route-separator", ROUTE_SEPARATOR),
    }
}

fn health(group: &Group<'_>, problems: &mut Problems) -> Option<Health> {
    group.require(problems, "path");
    Some(Health {
        host: group.parsed(problems, "host", values::host_header),
        path: group.parsed(problems, "path", values::request_target)?,
        interval_ms: group.number("interval-ms").unwrap_or(HEALTH_MS.default),
        timeout_ms: group.number("timeout-ms").unwrap_or(HEALTH_TIMEOUT_MS.default),
        tls: None,
    })
}

/// The group `tls` of an upstream or a link. The files are not opened.
fn tls_files(group: &Group<'_>, cluster: &str, problems: &mut Problems) -> UpstreamTlsFiles {
    let group = group.group("tls", problems);
    if let Some(group) = group.as_ref().filter(|group| group.has("keyfile") && !group.means("crtfile")) {
        group.error(problems, "keyfile", "needs crtfile, its certificate: write crtfile = \"FILE\";");
    }
    let server_name = group.as_ref().and_then(|group| {
        group.parsed(problems, "servername", |text| match UpstreamTls::is_server_name(text) {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is not a name of a certificate: write a host name or an IP address")),
        })
    });
    let text = |name| group.as_ref().and_then(|group| text_setting(group, name, problems));
    let file =
        |name| text(name).map(|set: TextSetting| UpstreamFile { path: set.value.into(), place: set.place.into() });
    let identity = file("crtfile").map(|certificate| {
        let key = file("keyfile").unwrap_or_else(|| certificate.clone());
        (certificate, key)
    });
    UpstreamTlsFiles {
        cluster: cluster.into(),
        tls: Arc::new(UpstreamTls::new(server_name.as_deref(), file("cafile"), identity)),
    }
}
