//! The check of an element of `links`.

use std::sync::Arc;

use super::access;
use super::group::Group;
use super::upstream::Upstreams;
use crate::config::Host;
use crate::config::keys::Limits;
use crate::config::problem::Problems;
use crate::config::values::{self, LinkKind, TcpBackend};
use crate::driver::device::{BAUD_RATES, Direction};
use crate::limits::DEVICE_CLIENTS_MAX;
use crate::permit::Count;
use crate::route::names::Patterns;
use crate::route::{Destination, Link, Protocol, Service};

/// The keys of links to nodes.
const NODE_KEYS: [&str; 8] =
    ["route", "path", "host", "forwarded-headers", "rewrite", "pass-credentials", "upgrade", "tls"];

/// Checks a link. Keys that it does not set are taken from `websocket`.
pub(crate) fn link(
    group: &Group<'_>,
    websocket: &Service,
    limits: &Limits,
    access: &mut access::AccessCheck<'_>,
    upstreams: &mut Upstreams,
    problems: &mut Problems,
) -> Option<(Link, Option<Host>)> {
    for name in ["origin", "type", "destination"] {
        group.require(problems, name);
    }
    let origin = group.parsed(problems, "origin", |list| match values::elements(list).next() {
        Some(_) => Ok(Patterns::parse(list)),
        None => Err("is empty: write patterns such as \"^/gps$\"".to_owned()),
    });
    let options = group.parsed(problems, "options", |list| match values::options(list) {
        Ok(options) if options.follow => Err("follow applies to docroot only: leave it out".to_owned()),
        other => other,
    });
    let kind = group.word("type", &values::LINKS)?;
    for (name, needed) in [("port", LinkKind::Tcp), ("baud", LinkKind::Tty), ("direction", LinkKind::Fifo)] {
        if group.has(name) && kind != needed {
            group.error(problems, name, format_args!("is for type = \"{}\" only: leave it out", name_of(needed)));
        }
    }
    match kind {
        LinkKind::Ws(_) => {
            for name in ["protocol", "message-type", "hello", "options"] {
                let sentence = "is not for type = \"ws\" or \"wss\", whose nodes speak WebSocket: leave it out";
                if group.has(name) {
                    group.error(problems, name, sentence);
                }
            }
        }
        _ => {
            for name in NODE_KEYS.into_iter().filter(|name| group.has(name)) {
                group.error(problems, name, "is for type = \"ws\" or \"wss\" only: leave it out");
            }
        }
    }
    let (mut service, own_limits) = service(group, kind, websocket, limits, problems);
    let may_be_direct = kind == LinkKind::Unix && service.protocol == Protocol::Stream;
    service.is_direct = options.map_or(websocket.is_direct, |options| options.direct) && may_be_direct;
    if options.is_some_and(|options| options.direct) && kind != LinkKind::Unix {
        group.error(problems, "options", "direct needs type = \"unix\": leave it out");
    } else if options.is_some_and(|options| options.direct) && !may_be_direct {
        group.error(problems, "protocol", values::DIRECT_PROTOCOL);
    }
    let access = access.of_link(group, service.is_direct, problems);
    if let LinkKind::Ws(scheme) = kind {
        // No connection to a node is used again after a WebSocket.
        let upstream = upstreams.of_link(group, scheme, 0, own_limits.upstream, problems)?;
        let is_rechecked = access.as_ref().is_some_and(|rule| rule.auth.iter().any(|auth| auth.recheck_ms > 0));
        if upstream.is_tunnel && is_rechecked {
            let sentence =
                "\"pass\" cannot be used with recheck-ms: an open WebSocket is not closed; leave one of them out";
            group.error(problems, "upgrade", sentence);
        }
        let destination = Destination::Upstream(Arc::new(upstream));
        return Some((Link { origin: origin?, destination, service: Arc::new(service), access }, None));
    }
    let (destination, host) = match kind {
        LinkKind::Tcp => tcp(group, problems)?,
        _ => (destination(group, kind, problems)?, None),
    };
    Some((Link { origin: origin?, destination, service: Arc::new(service), access }, host))
}

fn name_of(kind: LinkKind) -> &'static str {
    values::LINKS.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

fn service(
    group: &Group<'_>,
    kind: LinkKind,
    websocket: &Service,
    limits: &Limits,
    problems: &mut Problems,
) -> (Service, Limits) {
    let is_device = matches!(kind, LinkKind::Tty | LinkKind::Fifo);
    let mut limits = limits.clone();
    let own = group.limits(&mut limits, problems);
    if is_device {
        let clients = own.as_ref().and_then(|own| own.number("clients"));
        match (own, clients) {
            (Some(own), Some(clients)) if clients > DEVICE_CLIENTS_MAX.max => {
                let most = DEVICE_CLIENTS_MAX.max;
                own.error(
                    problems,
                    "clients",
                    format_args!("{clients} is too many for a tty or fifo: write 1 to {most}"),
                );
            }
            (_, Some(_)) => {}
            (_, None) => limits.websocket.clients_max = DEVICE_CLIENTS_MAX.default,
        }
    }
    if let LinkKind::Ws(_) = kind {
        limits.upstream.requests_max = limits.websocket.clients_max;
        let service = Service { protocol: Protocol::Frames, limits: limits.websocket.clone(), ..Service::default() };
        return (service, limits);
    }
    let protocol = group.word("protocol", &values::PROTOCOLS).unwrap_or(websocket.protocol);
    if protocol == Protocol::Packet && kind != LinkKind::Unix {
        group.error(problems, "protocol", "packet needs type = \"unix\": write another protocol in the link");
    }
    let service = Service {
        protocol,
        message_type: group.word("message-type", &values::TYPES).unwrap_or(websocket.message_type),
        // A device receives no hello record unless the link itself sets the key.
        hello: group.flag("hello").unwrap_or(websocket.hello && !is_device),
        is_direct: false,
        limits: limits.websocket.clone(),
        conversations: Count::default(),
    };
    (service, limits)
}

/// A TCP backend that is given by host name has no addresses until the lookup is done.
fn tcp(group: &Group<'_>, problems: &mut Problems) -> Option<(Destination, Option<Host>)> {
    let port = group.number("port").map(|port| port as u16);
    Some(match group.parsed(problems, "destination", |text| values::tcp(text, port))? {
        TcpBackend::Address(address) => (Destination::Tcp([address].into()), None),
        TcpBackend::Host(name, port) => {
            let place = group.describe(problems, &["destination"]);
            (Destination::Tcp(Box::default()), Some(Host { link: 0, name, port, place }))
        }
    })
}

fn destination(group: &Group<'_>, kind: LinkKind, problems: &mut Problems) -> Option<Destination> {
    let path = |problems: &mut Problems| group.parsed(problems, "destination", values::path);
    match kind {
        LinkKind::Unix => path(problems).map(Destination::Unix),
        LinkKind::Fifo => {
            let direction = group.word("direction", &values::DIRECTIONS).unwrap_or(Direction::Read);
            if direction == Direction::Read && group.flag("hello") == Some(true) {
                group.error(problems, "hello", "needs direction = \"write\": write that, or leave it out");
            }
            path(problems).map(|path| Destination::Fifo { path, direction })
        }
        LinkKind::Tty => {
            let baud = group.number("baud").unwrap_or(values::BAUD.default);
            let baud = BAUD_RATES.iter().map(|(bits, _)| *bits).find(|bits| u64::from(*bits) == baud).or_else(|| {
                group.error(
                    problems,
                    "baud",
                    format_args!("{baud} is not a speed of a tty: write one such as 9600 or 115200"),
                );
                None
            });
            Some(Destination::Tty { path: path(problems)?, baud: baud? })
        }
        LinkKind::Tcp | LinkKind::Ws(_) => None,
    }
}
