//! From a request's path to the server that serves it.

pub mod names;

pub mod docroot;

pub mod hello;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::driver::device::Direction;
use crate::http::authority::Authority;
use crate::http::upgrade::Origins;
use crate::limits;
use crate::permit::{Count, Permit};
use names::{Patterns, Rules};

/// How messages travel to and from a server (docs/backends.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The payloads' bytes alone; one read is one message.
    Stream,
    /// SOCK_SEQPACKET: one packet is one message.
    Packet,
    /// One line is one message.
    Lines,
    /// What stands before a NUL is one message.
    Nul,
    /// RFC 6455 frames without masks.
    Frames,
}

/// What a message from a server without message types is sent as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageType {
    /// Text where the bytes are UTF-8, else binary.
    Auto,
    /// Always text.
    Text,
    /// Always binary.
    Binary,
}

/// How the servers of a docroot or a link are spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// How messages travel.
    pub protocol: Protocol,
    /// What their messages are sent as.
    pub message_type: MessageType,
    /// Whether a first record tells the server who the client is.
    pub hello: bool,
    /// Whether servers get the clients' own sockets.
    pub is_direct: bool,
    /// The limits of each conversation.
    pub limits: limits::WebSocket,
    /// The conversations of this docroot or link, those at their handshake and at their end included.
    pub conversations: Count,
}

/// A place among a service's conversations (`limits.clients` of its websocket or link).
pub type Seat = Permit<Service>;

impl AsRef<Count> for Service {
    fn as_ref(&self) -> &Count {
        &self.conversations
    }
}

/// Where a link leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The socket at this absolute path.
    Unix(Box<str>),
    /// The first of these addresses that accepts. None: its host has not been looked up yet.
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
        /// Whether messages come out of it or go into it.
        direction: Direction,
    },
}

/// Names that are served by something other than a socket in docroot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The names, as patterns that are searched for in "/" + name.
    pub origin: Patterns,
    /// What serves them.
    pub destination: Destination,
    /// How they are spoken to.
    pub service: Arc<Service>,
}

/// The Cache-Control of files for which none is set: a cache asks each time whether its copy is still the file, which
/// costs a 304. Without it, browsers keep a page for a tenth of its age (RFC 9111 section 4.2.2).
pub const CACHE_CONTROL: &str = "no-cache";

/// A header that some files are sent with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// The files, as patterns that are searched for in "/" + path.
    pub path: Patterns,
    /// Its name.
    pub name: Box<str>,
    /// Its value, without control characters.
    pub value: Box<str>,
}

/// What one server of the configuration serves.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host that it answers to, where several share an address: in normal form but for its case.
    pub hostname: Option<Box<str>>,
    /// Whether files are served.
    pub has_www: bool,
    /// Which files are sent.
    pub page_rules: Rules,
    /// What files are sent with as Cache-Control (RFC 9111 section 5.2): a header's value, so without control
    /// characters.
    pub cache_control: Box<str>,
    /// Other headers of files, by their paths.
    pub page_headers: Vec<PageHeader>,
    /// Whether UNIX servers are served.
    pub has_docroot: bool,
    /// Symbolic links in docroot may lead out of it.
    pub follows_symlinks: bool,
    /// Which names may be asked for.
    pub rules: Rules,
    /// Which pages may connect.
    pub origins: Origins,
    /// How the servers in docroot are spoken to.
    pub service: Arc<Service>,
    /// Asked before docroot, in this order.
    pub links: Vec<Link>,
    /// The limits of its HTTP connections.
    pub limits: limits::Http,
}

impl Site {
    /// The first link that serves a name.
    pub fn link_of(&self, name: &str) -> Option<usize> {
        let subject = format!("/{name}");
        self.links.iter().position(|link| link.origin.matches(&subject))
    }

    /// The header lines that a file is sent with by the configuration. Of several headers with one name the first one
    /// counts.
    pub fn page_fields(&self, path: &str) -> String {
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

    /// A copy whose links and docroot count their clients anew.
    pub fn fresh(&self) -> Site {
        let mut site = self.clone();
        site.service = Arc::new(Service::clone(&site.service));
        for link in &mut site.links {
            link.service = Arc::new(Service::clone(&link.service));
        }
        site
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
            has_www: false,
            page_rules: Rules::default(),
            cache_control: CACHE_CONTROL.into(),
            page_headers: Vec::new(),
            has_docroot: false,
            follows_symlinks: false,
            rules: Rules::default(),
            origins: Origins::Same,
            service: Arc::default(),
            links: Vec::new(),
            limits: limits::Http::default(),
        }
    }
}

/// The servers that share an address. There is always a first one, which answers where no hostname fits.
#[derive(Clone, Debug)]
pub struct Sites {
    first: Arc<Site>,
    others: Vec<Arc<Site>>,
}

impl Sites {
    /// One server, alone or before others.
    pub fn new(first: Arc<Site>, others: Vec<Arc<Site>>) -> Sites {
        Sites { first, others }
    }

    /// The site of a number that `of_host` gave.
    pub fn get(&self, index: u16) -> &Site {
        index.checked_sub(1).and_then(|index| self.others.get(index as usize)).unwrap_or(&self.first)
    }

    /// Whether the rate of some client is limited.
    pub fn have_rates(&self) -> bool {
        let has_rate = |service: &Arc<Service>| {
            service.limits.messages_per_second_max > 0 || service.limits.bytes_per_second_max > 0
        };
        let mut sites = std::iter::once(&self.first).chain(&self.others);
        sites.any(|site| has_rate(&site.service) || site.links.iter().any(|link| has_rate(&link.service)))
    }

    /// The number of the site that a Host header names, its port left aside.
    pub fn of_host(&self, host: &str) -> u16 {
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
    fn hosts() {
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
