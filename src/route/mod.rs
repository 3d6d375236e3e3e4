//! Routing: from a request's host and path to a site, and from a name to the backend that serves it.
#![forbid(unsafe_code)]

pub mod names;

pub mod hello;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::access::{self, Access, AccessRule, AuthKind};
use crate::clients::Trust;
use crate::driver::device::Direction;
use crate::http::authority::Authority;
use crate::http::forwarding::path::plain_name;
use crate::http::hostnames::Hostnames;
use crate::http::redirect::Redirect;
use crate::http::upgrade::Origins;
use crate::limits;
use crate::permit::{Count, Permit};
use crate::types::Address;
use crate::upstream::{Cluster, Upstream};
use names::{Patterns, Rules};

/// How messages are delimited on a backend's stream (docs/backends.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Payload without framing; each read from the backend is one message.
    Stream,
    /// SOCK_SEQPACKET: one packet is one message.
    Packet,
    /// One line is one message.
    Lines,
    /// Messages end with a NUL.
    Nul,
    /// RFC 6455 frames without masks.
    Frames,
}

/// The WebSocket message type of messages from a backend whose protocol has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageType {
    /// Text where the bytes are UTF-8, else binary.
    Auto,
    /// Always text.
    Text,
    /// Always binary.
    Binary,
}

/// The backends of a docroot or a link: protocol and limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// The framing of messages.
    pub protocol: Protocol,
    /// The type of messages to the client.
    pub message_type: MessageType,
    /// Whether the backend first receives a hello record (`hello`).
    pub hello: bool,
    /// Direct mode: whether backends receive the client's socket.
    pub is_direct: bool,
    /// The limits of each WebSocket.
    pub limits: limits::WebSocket,
    /// The open WebSockets of this docroot or link, including those in their opening or closing handshake.
    pub conversations: Count,
}

/// A permit for one WebSocket of a service (`limits.clients` of its websocket or link).
pub(crate) type Seat = Permit<Service>;

impl AsRef<Count> for Service {
    fn as_ref(&self) -> &Count {
        &self.conversations
    }
}

/// The backend of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The socket at this absolute path.
    Unix(Box<str>),
    /// The first of these addresses that accepts. Empty: the host is not resolved yet.
    Tcp(Box<[SocketAddr]>),
    /// A terminal line in raw mode.
    Tty {
        /// Its absolute path.
        path: Box<str>,
        /// Bits a second.
        baud: u32,
    },
    /// A named pipe, or a device that is read or written like one.
    Fifo {
        /// Its absolute path.
        path: Box<str>,
        /// Whether the gateway reads or writes it.
        direction: Direction,
    },
    /// HTTP or WebSocket servers.
    Upstream(Arc<Upstream>),
}

/// Names served by a backend outside docroot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The names: patterns searched for in "/" + name.
    pub origin: Patterns,
    /// Their backend.
    pub destination: Destination,
    /// Protocol and limits.
    pub service: Arc<Service>,
    /// What its WebSockets need. None: what the server's rules say.
    pub access: Option<AccessRule>,
}

/// The default Cache-Control of files: caches revalidate each time, at the cost of a 304. Without it, browsers use
/// heuristic freshness, a tenth of the page's age (RFC 9111 section 4.2.2).
pub(crate) const CACHE_CONTROL: &str = "no-cache";

/// A header field for some files (`headers` of `document`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// The files: patterns searched for in "/" + path.
    pub(crate) path: Patterns,
    pub(crate) name: Box<str>,
    /// Without control characters.
    pub(crate) value: Box<str>,
}

/// What one server (virtual host) serves.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host that selects this server among those that share an address, in normal form except for case. None:
    /// it serves as the default only.
    pub hostname: Option<Box<str>>,
    /// The hosts that requests may name; others get a 421.
    pub hostnames: Hostnames,
    /// Where requests that did not come by https are redirected to. None: they are served.
    pub redirect: Option<Redirect>,
    /// Whether browsers are told to use https only, where a reply goes over TLS (RFC 6797).
    pub has_hsts: bool,
    /// Whether files are served.
    pub has_www: bool,
    /// Which files may be requested.
    pub page_rules: Rules,
    /// The Cache-Control of files (RFC 9111 section 5.2), without control characters.
    pub cache_control: Box<str>,
    /// Further header fields of files.
    pub page_headers: Vec<PageHeader>,
    /// Names of pages that HTTP servers serve (`links` of `document`); matched before files, in this order. The
    /// destination of each is `Destination::Upstream`.
    pub page_links: Vec<Link>,
    /// Whether the backends in docroot are served.
    pub has_docroot: bool,
    /// Whether symbolic links may lead out of docroot.
    pub follows_symlinks: bool,
    /// Which names may be requested.
    pub rules: Rules,
    /// Which origins may connect.
    pub origins: Origins,
    /// Which clients may come in.
    pub access: Access,
    /// Protocol and limits of the backends in docroot.
    pub service: Arc<Service>,
    /// Matched before docroot, in this order.
    pub links: Vec<Link>,
    /// The limits of its HTTP connections.
    pub limits: limits::Http,
}

impl Site {
    /// The index of the first link for WebSockets that serves a name.
    pub(crate) fn link_of(&self, name: &str) -> Option<usize> {
        position(&self.links, name)
    }

    /// The first link that serves a name: of those for pages, or for WebSockets.
    pub(crate) fn link_for(&self, name: &str, is_handshake: bool) -> Option<&Link> {
        let links = if is_handshake { &self.links } else { &self.page_links };
        links.get(position(links, name)?)
    }

    /// Whether a name that differs in the case of its letters, or in parameters of its segments, has another link with
    /// rules of its own: a node that takes the two for the same would serve what that link protects.
    pub(crate) fn is_near_protected_link(&self, name: &str, is_handshake: bool) -> bool {
        let links = if is_handshake { &self.links } else { &self.page_links };
        if links.iter().all(|link| link.access.is_none()) {
            return false;
        }
        let own = position(links, name);
        let is_of = |link: &Link, name: &str| {
            [format!("/{name}"), format!("/{name}/")].iter().any(|subject| link.origin.matches_ignoring_case(subject))
        };
        [name, &plain_name(name)].into_iter().any(|name| {
            let other = links.iter().position(|link| is_of(link, name));
            other != own && other.and_then(|other| links.get(other)).is_some_and(|link| link.access.is_some())
        })
    }

    /// The clusters of its links, in their order; a cluster may occur more than once.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.links.iter().chain(&self.page_links).filter_map(|link| match &link.destination {
            Destination::Upstream(upstream) => Some(&upstream.cluster),
            _ => None,
        })
    }

    /// The cookies that are credentials for any of the rules of the server and its links.
    pub(crate) fn credential_cookies(&self) -> Vec<&str> {
        let of_links = self.links.iter().chain(&self.page_links).filter_map(|link| link.access.as_ref());
        let auths = self.access.rules.iter().chain(of_links).flat_map(|rule| &rule.auth);
        let cookies = auths.filter_map(|auth| match &auth.kind {
            AuthKind::Cookie { name } => Some(&**name),
            _ => None,
        });
        cookies.collect()
    }

    /// A query as backends and logs get it: without tokens.
    pub(crate) fn public_query<'q>(&self, name: &str, query: Option<&'q str>) -> Cow<'q, str> {
        let links = [self.link_for(name, true), self.link_for(name, false)];
        let rules: Vec<&AccessRule> = links.into_iter().flatten().filter_map(|link| link.access.as_ref()).collect();
        let names = self.access.query_names(&rules);
        access::strip(query.unwrap_or_default(), &names)
    }

    /// The configured header lines of a file. Of several fields with one name the first is sent.
    pub(crate) fn page_fields(&self, path: &str) -> String {
        let subject = format!("/{path}");
        let mut names: Vec<&str> = Vec::new();
        let mut fields = String::new();
        let own = self.page_headers.iter().filter(|header| header.path.matches(&subject));
        let own = own.map(|header| (&*header.name, &*header.value));
        for (name, value) in own.chain([("Cache-Control", &*self.cache_control)]) {
            if names.iter().all(|known| !known.eq_ignore_ascii_case(name)) {
                names.push(name);
                fields.extend([name, ": ", value, "\r\n"]);
            }
        }
        fields
    }

    /// A copy whose counts of WebSockets start at 0.
    pub(crate) fn fresh(&self) -> Site {
        let mut site = self.clone();
        site.service = Arc::new(Service::clone(&site.service));
        for link in site.links.iter_mut().chain(&mut site.page_links) {
            link.service = Arc::new(Service::clone(&link.service));
        }
        site
    }
}

/// The clusters without repetitions, in their order.
pub(crate) fn distinct<'a>(clusters: impl Iterator<Item = &'a Arc<Cluster>>) -> Vec<&'a Arc<Cluster>> {
    let mut list: Vec<&Arc<Cluster>> = Vec::new();
    for cluster in clusters {
        if !list.iter().any(|known| Arc::ptr_eq(known, cluster)) {
            list.push(cluster);
        }
    }
    list
}

/// The index of the first link that serves a name.
fn position(links: &[Link], name: &str) -> Option<usize> {
    if links.is_empty() {
        return None;
    }
    let (plain, slashed) = (format!("/{name}"), format!("/{name}/"));
    links.iter().position(|link| match &link.destination {
        Destination::Upstream(_) => link.beginning(&plain, &slashed).is_some(),
        _ => link.origin.matches(&plain),
    })
}

impl Link {
    /// What `path` of a link to an upstream takes the place of: the beginning of the request's path, which is empty if the
    /// path is kept. `plain` and `slashed` are "/" and the name, without and with a final slash: to programs and people they
    /// are the same thing. None: the link does not serve the name.
    fn beginning<'a>(&self, plain: &'a str, slashed: &'a str) -> Option<&'a str> {
        let has_path = matches!(&self.destination, Destination::Upstream(upstream) if upstream.path.is_some());
        [plain, slashed].into_iter().find_map(|subject| match has_path {
            true => self.origin.matched(subject),
            false => self.origin.matches(subject).then_some(""),
        })
    }

    /// What `path` takes the place of in a request for this name. None: the path is kept.
    pub(crate) fn replaced(&self, name: &str) -> Option<String> {
        let (plain, slashed) = (format!("/{name}"), format!("/{name}/"));
        let replaced = self.beginning(&plain, &slashed)?;
        (!replaced.is_empty()).then(|| replaced.to_owned())
    }
}

impl Default for Service {
    fn default() -> Service {
        Service {
            protocol: Protocol::Stream,
            message_type: MessageType::Auto,
            hello: false,
            is_direct: false,
            limits: limits::WebSocket::default(),
            conversations: Count::default(),
        }
    }
}

impl Default for Site {
    fn default() -> Site {
        Site {
            hostname: None,
            hostnames: Hostnames::default(),
            redirect: None,
            has_hsts: false,
            has_www: false,
            page_rules: Rules::default(),
            cache_control: CACHE_CONTROL.into(),
            page_headers: Vec::new(),
            page_links: Vec::new(),
            has_docroot: false,
            follows_symlinks: false,
            rules: Rules::default(),
            origins: Origins::Same,
            access: Access::default(),
            service: Arc::default(),
            links: Vec::new(),
            limits: limits::Http::default(),
        }
    }
}

/// The servers that share an address. The first one is the default where no hostname matches.
#[derive(Clone, Debug)]
pub struct Sites {
    first: Arc<Site>,
    others: Vec<Arc<Site>>,
    /// What all of them believe about their clients.
    pub trust: Trust,
    /// The generation of the rules that the helper has for them (`auth_wire`).
    pub generation: u32,
    /// A reload has replaced them.
    replaced: Flag,
}

/// Is set once, and not a part of what is configured: a clone is not set.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Clone for Flag {
    fn clone(&self) -> Flag {
        Flag::default()
    }
}

impl Sites {
    /// `first` is the default. No proxy is trusted.
    pub fn new(first: Arc<Site>, others: Vec<Arc<Site>>) -> Sites {
        Sites { first, others, trust: Trust::default(), generation: 0, replaced: Flag::default() }
    }

    /// The clusters of all sites, each once.
    pub(crate) fn clusters(&self) -> Vec<&Arc<Cluster>> {
        distinct(std::iter::once(&self.first).chain(&self.others).flat_map(|site| site.clusters()))
    }

    /// Tells the connections that have them: new ones get others.
    pub(crate) fn replace(&self) {
        self.replaced.0.store(true, Relaxed);
    }

    /// Whether a reload has replaced them.
    pub(crate) fn are_replaced(&self) -> bool {
        self.replaced.0.load(Relaxed)
    }

    /// The site with an index from `of_host`; the first one if the index is out of range.
    pub(crate) fn get(&self, index: u16) -> &Site {
        index.checked_sub(1).and_then(|index| self.others.get(index as usize)).unwrap_or(&self.first)
    }

    /// Whether the filters of all servers refuse clients with this address.
    pub(crate) fn filter_out(&self, client: Address) -> bool {
        let mut sites = std::iter::once(&self.first).chain(&self.others);
        sites.all(|site| site.access.filter.as_ref().is_some_and(|filter| !filter.admits(client)))
    }

    /// Whether any service has a rate limit.
    pub(crate) fn have_rates(&self) -> bool {
        let has_rate = |service: &Arc<Service>| {
            service.limits.messages_per_second_max > 0 || service.limits.bytes_per_second_max > 0
        };
        let mut sites = std::iter::once(&self.first).chain(&self.others);
        sites.any(|site| has_rate(&site.service) || site.links.iter().any(|link| has_rate(&link.service)))
    }

    /// The index of the site whose hostname equals a Host value, without regard to the port. 0, the default,
    /// if none does.
    pub(crate) fn of_host(&self, host: &str) -> u16 {
        let Some(authority) = Authority::parse(host) else { return 0 };
        let is_named =
            |site: &Arc<Site>| site.hostname.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(authority.host()));
        if is_named(&self.first) {
            return 0;
        }
        self.others.iter().position(is_named).map_or(0, |at| at as u16 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ClientFields;

    /// A link to a node with this origin, `path`, and rules of its own.
    fn node_link(origin: &str, path: Option<&str>, is_protected: bool) -> Link {
        let upstream = Upstream {
            cluster: Arc::new(Cluster::new("one", Vec::new())),
            node: None,
            tls: None,
            path: path.map(Into::into),
            host: None,
            forwarded: ClientFields::None,
            rewrites_replies: false,
            passes_credentials: false,
            is_tunnel: false,
            limits: limits::Forwarding::default(),
            requests: Count::default(),
        };
        Link {
            origin: Patterns::parse(origin),
            destination: Destination::Upstream(Arc::new(upstream)),
            service: Arc::default(),
            access: is_protected.then(AccessRule::default),
        }
    }

    #[test]
    fn links_of_spellings() {
        let links = |links: &[(&str, Option<&str>, bool)]| {
            links.iter().map(|(origin, path, is_protected)| node_link(origin, *path, *is_protected)).collect::<Vec<_>>()
        };
        let folder = [("^/admin/", None, true), ("^/", None, false)];
        let styles = [(".css$", None, false), ("^/", None, true)];
        let segments = [("^/ws/one", Some("/ws"), false), ("^/ws", Some("/ws"), false)];
        let root = [("^/app", Some("/"), false)];
        // The links, a name, the link that serves it, and whether another one with rules could be meant.
        for (all, name, serving, is_near) in [
            (&folder[..], "admin", Some(0), false),
            (&folder, "admin/x", Some(0), false),
            (&folder, "administrator", Some(1), false),
            (&folder, "Admin/x", Some(1), true),
            (&folder, "ADMIN", Some(1), true),
            (&folder, "admin;a/x", Some(1), true),
            (&folder, "other", Some(1), false),
            (&styles, "x.css", Some(0), false),
            (&styles, "secret;.css", Some(0), true),
            (&styles, "x.css;v=1", Some(1), false),
            (&segments, "ws/one", Some(0), false),
            (&segments, "ws/one/x", Some(0), false),
            (&segments, "ws/one10", Some(1), false),
            (&segments, "ws;a=b", Some(1), false),
            (&segments, "wsx", None, false),
            (&root, "app/x", Some(0), false),
            (&root, "appadmin", None, false),
            (&root, "app../x", None, false),
        ] {
            let site = Site { page_links: links(all), ..Site::default() };
            assert_eq!(position(&site.page_links, name), serving, "{name} of {all:?}");
            assert_eq!(site.is_near_protected_link(name, false), is_near, "{name} of {all:?}");
        }
    }

    #[test]
    fn page_headers() {
        let header = |path, name: &str, value: &str| PageHeader {
            path: Patterns::parse(path),
            name: name.into(),
            value: value.into(),
        };
        let page_headers = vec![
            header("^/assets/", "cache-control", "max-age=31536000, immutable"),
            header("^/assets/,.wasm$", "X-One", "1"),
            header("*", "x-one", "2"),
        ];
        let site = Site { page_headers, ..Site::default() };
        for (path, fields) in [
            ("assets/a.js", "cache-control: max-age=31536000, immutable\r\nX-One: 1\r\n"),
            ("sub/assets/a.js", "x-one: 2\r\nCache-Control: no-cache\r\n"),
            ("a.wasm", "X-One: 1\r\nCache-Control: no-cache\r\n"),
        ] {
            assert_eq!(site.page_fields(path), fields, "{path}");
        }
        assert_eq!(Site::default().page_fields("index.html"), "Cache-Control: no-cache\r\n");
    }

    #[test]
    fn sites_of_hosts() {
        let site = |name: Option<&str>| Arc::new(Site { hostname: name.map(Into::into), ..Site::default() });
        let sites = Sites::new(site(Some("a.example")), vec![site(Some("b.example")), site(Some("[::1]"))]);
        for (host, index) in [
            ("a.example", 0),
            ("B.example:8080", 1),
            ("[::1]:80", 2),
            ("[::1]", 2),
            ("[0:0::1]:80", 2),
            ("b%2eexample:", 1),
            ("b.example.:80", 1),
            ("c.example", 0),
            ("", 0),
        ] {
            assert_eq!(sites.of_host(host), index, "{host}");
        }
        assert_eq!(sites.get(1).hostname.as_deref(), Some("b.example"));
        assert_eq!(sites.get(9).hostname.as_deref(), Some("a.example"));
    }
}
