//! The check of the elements of `servers`, and of conflicts between them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::access::{self, RuleTable};
use super::group::Group;
use super::guards;
use super::link::link;
use super::redirect::{self, ToTls};
use super::text_setting;
use super::tls;
use super::trust;
use super::upstream::{Upstreams, page_link};
use crate::config::keys::{DOCUMENT_GROUPS, Limits};
use crate::config::problem::{Location, Problems};
use crate::config::{Host, Server, SetByFlag, SettingPlaces, TextSetting, values};
use crate::http::authority::unbracket;
use crate::http::redirect::Redirect;
use crate::limits::{LINKS_MAX, LISTEN_MAX, PAGE_HEADERS_MAX, PAGE_HEADERS_SIZE_MAX};
use crate::permit::Count;
use crate::route::names::{Patterns, Rules};
use crate::route::{CACHE_CONTROL, MessageType, PageHeader, Protocol, Service, Site};
use crate::tls::Verify;
use crate::types::ListenAddress;

/// The realm of a server without a hostname.
const DEFAULT_REALM: &str = "uakari";

/// The port of https, at which a TLS proxy in front listens.
const HTTPS_PORT: u16 = 443;

/// The servers checked so far.
#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) all: Vec<Server>,
    /// At least one server lacks a protection that ouistiti gives it.
    pub(crate) is_unprotected: bool,
    pub(crate) auth_rules: RuleTable,
    /// Each address that a server listens on: its location, the server's index, the address.
    addresses: Vec<(Location, usize, ListenAddress)>,
    redirects: Vec<ToTls>,
}

/// Two servers that listen on the same address.
struct Shared<'a> {
    /// Where the other one names the address.
    location: Location,
    /// Index of the first server of the address.
    first: usize,
    /// Index of the other one.
    other: usize,
    address: &'a ListenAddress,
}

impl Servers {
    /// Checks a server. `limits` are those of the file.
    pub(crate) fn add(
        &mut self,
        group: &Group<'_>,
        limits: &Limits,
        upstreams: &mut Upstreams,
        problems: &mut Problems,
    ) {
        let listen = addresses(group, problems);
        let number = self.all.len();
        self.addresses.extend(listen.iter().map(|(location, address)| (*location, number, address.clone())));
        let tls = tls::tls(group, problems);
        let redirect = group.group("redirect", problems);
        let has_hsts = redirect.as_ref().is_some_and(|redirect| redirect::has_hsts(redirect, problems));
        let trust = trust::trust(group, listen.iter().map(|(_, address)| address), problems);
        // Requests that came to a proxy by https are served, the others are redirected to the proxy.
        let is_behind_tls = has_hsts && tls.is_none() && trust::knows_scheme(&trust);
        let redirects = has_hsts && tls.is_none() && !is_behind_tls;
        let uses_tls = has_hsts || tls.is_some();
        self.is_unprotected |= guards::check(group, redirect.as_ref(), redirects, uses_tls, problems);
        let mut limits = limits.clone();
        let hostname = hostname(group, problems);
        let hostnames = trust::hostnames(group, hostname.as_deref(), problems);
        let mut site = Site { hostname, hostnames, ..Site::default() };
        let own = group.limits(&mut limits, problems);
        for (name, limit) in [("maxclients", "clients"), ("keepalivetimeout", "keepalive-ms")] {
            if own.as_ref().is_some_and(|own| own.has(limit)) && group.has(name) {
                group.error(problems, name, format_args!("{limit} of limits is set too: keep one of them"));
            }
        }
        if let Some(clients) = group.number("maxclients") {
            limits.http.clients_max = clients;
        }
        if let Some(seconds) = group.number("keepalivetimeout") {
            limits.http.keepalive_ms = seconds * 1000;
        }
        site.has_hsts = has_hsts && !redirects;
        site.redirect = is_behind_tls.then(|| Redirect { host: site.hostname.clone(), port: HTTPS_PORT });
        if let Some(redirect) = redirect.as_ref().filter(|_| redirects) {
            self.redirects.push(ToTls::new(number, group, redirect));
        }
        let has_pages = DOCUMENT_GROUPS.iter().any(|name| group.means(name));
        if !redirects && !has_pages && !group.means("websocket") {
            let sentence =
                "serves nothing: write document = { docroot = \"DIR\"; }; or websocket = { docroot = \"DIR\"; };";
            group.error(problems, "", sentence);
        }
        let mut by_flag = SetByFlag { listen: is_by_flag(group, "listen"), ..SetByFlag::default() };
        let document = document_of(group, problems);
        let www = document.as_ref().and_then(|document| pages(document, &mut site, &mut by_flag, problems));
        let is_hsts = |header: &PageHeader| header.name.eq_ignore_ascii_case("Strict-Transport-Security");
        if let Some(redirect) = redirect.filter(|_| site.has_hsts && site.page_headers.iter().any(is_hsts)) {
            let sentence = "\"hsts\" sends Strict-Transport-Security, as headers of document do: keep one of them";
            redirect.error(problems, "options", sentence);
        }
        let mut hosts = Vec::new();
        let realm = site.hostname.clone().unwrap_or(DEFAULT_REALM.into());
        let has_client_certificates =
            tls.as_ref().is_some_and(|tls| tls.client_ca.is_some() && tls.verify != Verify::None);
        let mut access = access::AccessCheck::new(
            group,
            &realm,
            has_client_certificates,
            &trust.proxies,
            &mut self.auth_rules,
            problems,
        );
        if let Some(document) = &document {
            let mut limits = limits.clone();
            document.limits(&mut limits, problems);
            let links = document.groups("links", LINKS_MAX, problems);
            let links = links.iter().filter_map(|group| page_link(group, &limits, &mut access, upstreams, problems));
            site.page_links = links.collect();
        }
        let docroot =
            websocket(group, &mut site, &mut access, upstreams, &mut hosts, (&limits, &mut by_flag), problems);
        site.has_www = www.is_some();
        self.is_unprotected |= access.finish(group, &mut site, problems);
        site.has_docroot = docroot.is_some();
        site.limits = limits.http;
        let place_of = |set: &Option<TextSetting>| set.as_ref().map(|set| set.place.clone()).unwrap_or_default();
        let places = SettingPlaces {
            listen: group.describe(problems, &["listen", "addr", "port"]),
            docroot: place_of(&docroot),
            www: place_of(&www),
            by_flag,
        };
        let (www, docroot) = (www.map(|set| set.value), docroot.map(|set| set.value));
        let listen = listen.into_iter().map(|(_, address)| address).collect();
        let has_freebind = group.flag("freebind").unwrap_or(false);
        self.all.push(Server { places, listen, has_freebind, www, docroot, trust, tls, site, hosts });
    }

    /// Reports conflicts between servers, and resolves what one server says about others.
    pub(crate) fn finish(&mut self, problems: &mut Problems) {
        self.check_addresses(problems);
        self.check_tls(problems);
        self.check_trust(problems);
        for redirect in &self.redirects {
            self.is_unprotected |= !redirect.lead(&mut self.all, problems);
        }
    }

    /// Reports servers that share an address, and of which only one has TLS.
    fn check_tls(&self, problems: &mut Problems) {
        let has_tls = |number: usize| self.all[number].tls.is_some();
        for Shared { location, first, other, address } in self.shared() {
            let (url, path_of_first) = (address.url(has_tls(first)), path(first));
            let sentence = match (has_tls(first), has_tls(other)) {
                (true, false) => {
                    format!("{path_of_first} has tls on {url}: write tls here too, or listen on another port")
                }
                (false, true) => {
                    format!("{path_of_first} has no tls on {url}: write tls there too, or listen on another port")
                }
                _ => continue,
            };
            problems.error(location, &path(other), sentence);
        }
    }

    /// Reports servers that share an address, and do not believe the same proxies: a client is known before its server.
    fn check_trust(&self, problems: &mut Problems) {
        for Shared { location, first, other, address } in self.shared() {
            let (one, two) = (&self.all[first], &self.all[other]);
            let Some(key) = trust::difference(&one.trust, &two.trust) else { continue };
            let (url, path_of_first) = (address.url(one.tls.is_some()), path(first));
            let sentence = format!(
                "{key} is not that of {path_of_first} on {url}: write the same in both, or listen on another port"
            );
            problems.error(location, &path(other), sentence);
        }
    }

    /// Each pair of the first server of an address and another one, once.
    fn shared(&self) -> Vec<Shared<'_>> {
        let mut firsts: HashMap<String, usize> = HashMap::new();
        let mut found = HashSet::new();
        let mut shared = Vec::new();
        for (location, other, address) in &self.addresses {
            let first = *firsts.entry(address.to_string()).or_insert(*other);
            if first != *other && found.insert((first, *other)) {
                shared.push(Shared { location: *location, first, other: *other, address });
            }
        }
        shared
    }

    /// Reports servers that have both address and host name in common.
    fn check_addresses(&self, problems: &mut Problems) {
        let mut owners: HashMap<(String, String), usize> = HashMap::new();
        let mut wildcards: HashMap<SocketAddr, usize> = HashMap::new();
        for (location, number, address) in &self.addresses {
            let server = &self.all[*number];
            let (host, url) = (server.site.hostname.as_deref().unwrap_or(""), address.url(server.tls.is_some()));
            match owners.insert((address.to_string(), host.to_ascii_lowercase()), *number) {
                Some(other) if other == *number => {
                    problems.error(*location, &path(*number), format_args!("{url} is listed twice: keep one of them"));
                }
                Some(other) => {
                    let sentence = format!("{url} is used by {} too: give them different hostnames", path(other));
                    problems.error(*location, &path(*number), sentence);
                }
                None => {}
            }
            if let ListenAddress::Tcp(tcp) = address
                && tcp.ip().is_unspecified()
                && tcp.port() != 0
            {
                wildcards.insert(*tcp, *number);
            }
        }
        for (location, number, address) in &self.addresses {
            let ListenAddress::Tcp(tcp) = address else { continue };
            let any = if tcp.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let any = SocketAddr::new(any, tcp.port());
            if let Some(other) = wildcards.get(&any).filter(|_| any != *tcp) {
                let sentence = format!("{any} of {} includes {tcp}: listen on one of them in both", path(*other));
                problems.error(*location, &path(*number), sentence);
            }
        }
    }
}

fn path(number: usize) -> String {
    format!("servers[{number}]")
}

fn addresses(group: &Group<'_>, problems: &mut Problems) -> Vec<(Location, ListenAddress)> {
    group.exclude(problems, "addr", "listen");
    group.exclude(problems, "port", "listen");
    let mut addresses = Vec::new();
    if group.has("listen") {
        for (location, text) in group.texts("listen") {
            match text.parse() {
                Ok(address) => addresses.push((location, address)),
                Err(sentence) => problems.error(location, &group.path_of("listen"), sentence),
            }
        }
        if addresses.len() > LISTEN_MAX {
            group.error(problems, "listen", format_args!("has more than {LISTEN_MAX} addresses: make several servers"));
        }
        return addresses;
    }
    let default = if tls::is_set(group) { HTTPS_PORT } else { 80 };
    let port = group.number("port").map_or(default, |port| port as u16);
    let one = group.parsed(problems, "addr", |text| {
        let bare = unbracket(text).unwrap_or(text);
        bare.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address: write one such as 192.0.2.1 or ::1"))
    });
    let all = match one {
        Some(one) => vec![one],
        None if group.has("addr") => Vec::new(),
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let location = group.location_of("addr").or(group.location_of("port")).unwrap_or(group.location);
    all.into_iter().map(|ip| (location, ListenAddress::Tcp(SocketAddr::new(ip, port)))).collect()
}

/// Whether a flag set the key. The location of a flag has line 0.
fn is_by_flag(group: &Group<'_>, name: &str) -> bool {
    group.location_of(name).is_some_and(|location| location.line == 0)
}

fn hostname(group: &Group<'_>, problems: &mut Problems) -> Option<Box<str>> {
    group.parsed(problems, "hostname", values::hostname)
}

fn document_of<'t>(group: &Group<'t>, problems: &mut Problems) -> Option<Group<'t>> {
    group.group(group.one_of(&DOCUMENT_GROUPS, problems)?, problems)
}

/// Checks the keys of `document` about files.
fn pages(
    document: &Group<'_>,
    site: &mut Site,
    by_flag: &mut SetByFlag,
    problems: &mut Problems,
) -> Option<TextSetting> {
    by_flag.www = is_by_flag(document, "docroot");
    if !document.means("docroot") && !document.means("links") {
        let sentence = "serves nothing: write docroot = \"DIR\"; or links = ( { ... } );";
        document.error(problems, "", sentence);
    }
    site.page_rules = page_rules(document);
    document_options(document, problems);
    let cache_control = document.parsed(problems, "cache-control", values::header);
    site.cache_control = cache_control.unwrap_or(CACHE_CONTROL.into());
    let headers = document.groups("headers", PAGE_HEADERS_MAX, problems);
    site.page_headers = headers.iter().filter_map(|group| page_header(group, problems)).collect();
    let size = site.page_headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
    if size + site.cache_control.len() > PAGE_HEADERS_SIZE_MAX {
        let sentence = format_args!("have more than {PAGE_HEADERS_SIZE_MAX} bytes in all: write fewer or shorter ones");
        document.error(problems, "headers", sentence);
    }
    text_setting(document, "docroot", problems)
}

/// `denylast` without `allow` would make `deny` ineffective, since the default of `allow` matches every file. As in
/// ouistiti, files that `deny` matches are refused then.
fn page_rules(document: &Group<'_>) -> Rules {
    let patterns = |name, default| Patterns::parse_paths(document.text(name).unwrap_or(default));
    Rules {
        allow: patterns("allow", "*"),
        deny: patterns("deny", ""),
        deny_last: document.flag("denylast").unwrap_or(false) && document.has("allow"),
    }
}

/// Reports options of ouistiti that are not served.
fn document_options(document: &Group<'_>, problems: &mut Problems) {
    for word in document.text("options").into_iter().flat_map(values::elements) {
        let sentence = match word {
            "range" | "sendfile" => continue,
            "dirlisting" => "is not served: folders are not listed".to_owned(),
            "rest" => "is not served: clients cannot put, change or delete files".to_owned(),
            "home" => "is not served: users have no folders of their own".to_owned(),
            _ => "is not known: leave it out".to_owned(),
        };
        document.warn(problems, "options", format_args!("{word:?} {sentence}"));
    }
}

fn page_header(group: &Group<'_>, problems: &mut Problems) -> Option<PageHeader> {
    for name in ["name", "value"] {
        group.require(problems, name);
    }
    let path = group.parsed(problems, "path", |list| match values::elements(list).next() {
        Some(_) => Ok(Patterns::parse(list)),
        None => Err("is empty: write patterns such as \"^/assets/\", or leave it out".to_owned()),
    });
    let name = group.parsed(problems, "name", values::page_header_name);
    let value = group.parsed(problems, "value", values::header);
    let path = if group.has("path") { path? } else { Patterns::parse("*") };
    Some(PageHeader { path, name: name?, value: value? })
}

fn websocket(
    group: &Group<'_>,
    site: &mut Site,
    access: &mut access::AccessCheck<'_>,
    upstreams: &mut Upstreams,
    hosts: &mut Vec<Host>,
    (limits, by_flag): (&Limits, &mut SetByFlag),
    problems: &mut Problems,
) -> Option<TextSetting> {
    let websocket = group.group("websocket", problems)?;
    by_flag.docroot = is_by_flag(&websocket, "docroot");
    // Line 0: flags alone set the group, which is permitted without docroot.
    if !websocket.means("docroot") && !websocket.means("links") && websocket.location.line > 0 {
        websocket.error(problems, "", "serves nothing: write docroot = \"DIR\"; or links = ( { ... } );");
    }
    let mut limits = limits.clone();
    websocket.limits(&mut limits, problems);
    websocket.exclude(problems, "message-type", "type");
    let message_type = websocket.word("type", &values::TYPES).or(websocket.word("message-type", &values::TYPES));
    let options = websocket.parsed(problems, "options", values::options).unwrap_or_default();
    let protocol = websocket.word("protocol", &values::PROTOCOLS).unwrap_or(Protocol::Stream);
    if options.direct && protocol != Protocol::Stream {
        websocket.error(problems, "protocol", values::DIRECT_PROTOCOL);
    }
    let service = Service {
        protocol,
        is_direct: options.direct,
        message_type: message_type.unwrap_or(MessageType::Auto),
        hello: websocket.flag("hello").unwrap_or(false),
        limits: limits.websocket.clone(),
        conversations: Count::default(),
    };
    let patterns = |name, default| Patterns::parse(websocket.text(name).unwrap_or(default));
    site.rules = Rules {
        allow: patterns("allow", "*"),
        deny: patterns("deny", ""),
        deny_last: websocket.flag("denylast").unwrap_or(false),
    };
    if site.rules.deny_last && websocket.has("deny") && !websocket.has("allow") {
        let sentence = "has no effect: with denylast, allow is evaluated first, and its default matches every name";
        websocket.warn(problems, "deny", sentence);
    }
    site.follows_symlinks = options.follow;
    let origins: Vec<&str> = websocket.texts("origins").into_iter().map(|(_, text)| text).collect();
    if websocket.has("origins") && !origins.is_empty() {
        match values::origins(&origins.join(",")) {
            Ok(origins) => site.origins = origins,
            Err(sentence) => websocket.error(problems, "origins", sentence),
        }
    }
    for group in websocket.groups("links", LINKS_MAX, problems) {
        let Some((link, host)) = link(&group, &service, &limits, access, upstreams, problems) else { continue };
        hosts.extend(host.map(|host| Host { link: site.links.len(), ..host }));
        site.links.push(link);
    }
    site.service = Arc::new(service);
    text_setting(&websocket, "docroot", problems)
}
