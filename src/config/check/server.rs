//! The check of the elements of `servers`, and of conflicts between them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::group::Group;
use super::link::link;
use super::text_setting;
use crate::config::keys::{self, Limits};
use crate::config::problem::{Location, Problems};
use crate::config::syntax::{Data, Setting};
use crate::config::{Host, Server, SetByFlag, SettingPlaces, TextSetting, values};
use crate::http::authority::unbracket;
use crate::limits::{LINKS_MAX, LISTEN_MAX, PAGE_HEADERS_MAX, PAGE_HEADERS_SIZE_MAX};
use crate::permit::Count;
use crate::route::names::{Patterns, Rules};
use crate::route::{CACHE_CONTROL, MessageType, PageHeader, Protocol, Service, Site};
use crate::types::ListenAddress;

/// The servers checked so far.
#[derive(Default)]
pub(crate) struct Servers {
    all: Vec<Server>,
    /// At least one server lacks a protection that ouistiti gives it.
    pub(crate) is_unprotected: bool,
    /// Each address that a server listens on: its location, the server's index, the address.
    addresses: Vec<(Location, usize, ListenAddress)>,
}

impl Servers {
    /// Checks a server. `limits` are those of the file.
    pub(crate) fn add(&mut self, group: &Group<'_>, limits: &Limits, problems: &mut Problems) {
        let listen = addresses(group, problems);
        let number = self.all.len();
        self.addresses.extend(listen.iter().map(|(location, address)| (*location, number, address.clone())));
        self.is_unprotected |= check_guards(group, problems);
        let mut limits = limits.clone();
        let mut site = Site { hostname: hostname(group, problems), ..Site::default() };
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
        if !group.means("document") && !group.means("websocket") {
            let sentence =
                "serves nothing: write document = { docroot = \"DIR\"; }; or websocket = { docroot = \"DIR\"; };";
            group.error(problems, "", sentence);
        }
        let mut by_flag = SetByFlag { listen: is_by_flag(group, "listen"), ..SetByFlag::default() };
        let www = document(group, &mut site, &mut by_flag, problems);
        let mut hosts = Vec::new();
        let docroot = websocket(group, &mut site, &mut hosts, &mut by_flag, &limits, problems);
        site.has_www = www.is_some();
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
        self.all.push(Server { places, listen, has_freebind, www, docroot, site, hosts });
    }

    /// Reports servers that have both address and host name in common.
    pub(crate) fn finish(self, problems: &mut Problems) -> Vec<Server> {
        let mut owners: HashMap<(String, String), usize> = HashMap::new();
        let mut wildcards: HashMap<SocketAddr, usize> = HashMap::new();
        for (location, number, address) in &self.addresses {
            let host = self.all.get(*number).and_then(|server| server.site.hostname.as_deref()).unwrap_or("");
            match owners.insert((address.to_string(), host.to_ascii_lowercase()), *number) {
                Some(other) if other == *number => {
                    problems.error(
                        *location,
                        &path(*number),
                        format_args!("{address} is listed twice: keep one of them"),
                    );
                }
                Some(other) => {
                    let sentence = format!("{address} is used by {} too: give them different hostnames", path(other));
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
        self.all
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
    let port = group.number("port").map_or(80, |port| port as u16);
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

fn document(
    group: &Group<'_>,
    site: &mut Site,
    by_flag: &mut SetByFlag,
    problems: &mut Problems,
) -> Option<TextSetting> {
    let document = group.group("document", problems)?;
    by_flag.www = is_by_flag(&document, "docroot");
    document.require(problems, "docroot");
    site.page_rules = page_rules(&document);
    document_options(&document, problems);
    let cache_control = document.parsed(problems, "cache-control", values::header);
    site.cache_control = cache_control.unwrap_or(CACHE_CONTROL.into());
    let headers = document.groups("headers", PAGE_HEADERS_MAX, problems);
    site.page_headers = headers.iter().filter_map(|group| page_header(group, problems)).collect();
    let size = site.page_headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
    if size + site.cache_control.len() > PAGE_HEADERS_SIZE_MAX {
        let sentence = format_args!("have more than {PAGE_HEADERS_SIZE_MAX} bytes in all: write fewer or shorter ones");
        document.error(problems, "headers", sentence);
    }
    text_setting(&document, "docroot", problems)
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
    hosts: &mut Vec<Host>,
    by_flag: &mut SetByFlag,
    limits: &Limits,
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
        let Some((link, host)) = link(&group, &service, &limits, problems) else { continue };
        hosts.extend(host.map(|host| Host { link: site.links.len(), ..host }));
        site.links.push(link);
    }
    site.service = Arc::new(service);
    text_setting(&websocket, "docroot", problems)
}

/// Reports keys of ouistiti that protect the server and are not supported: an error, or a warning if `unprotected` lists
/// the key. True: a protection is missing.
fn check_guards(server: &Group<'_>, problems: &mut Problems) -> bool {
    let consented = server.texts("unprotected");
    for (location, word) in &consented {
        if keys::guards().all(|guard| guard.name != *word) {
            let known: Vec<&str> = keys::guards().map(|guard| guard.name).collect();
            let sentence = format!("{word:?} is not known: write one of {}", known.join(", "));
            problems.error(*location, &server.path_of("unprotected"), sentence);
        }
    }
    let mut is_unprotected = false;
    for guard in keys::guards() {
        let (name, meaning) = (guard.name, guard.meaning.trim_end_matches('.'));
        let loss = if server.has(name) { loss(name, meaning, server) } else { None };
        match (loss, consented.iter().find(|(_, word)| *word == name)) {
            (Some(loss), None) => server.error(
                problems,
                name,
                format_args!(
                    "is not served: {loss}: protect the server by other means, then write unprotected = (\"{name}\");"
                ),
            ),
            (Some(loss), Some(_)) => {
                is_unprotected = true;
                server.warn(problems, name, format_args!("is not served, and the server is unprotected: {loss}"));
            }
            (None, consent) => {
                server.warn(problems, name, format_args!("is not served: {meaning}"));
                if let Some((location, _)) = consent {
                    let sentence = format!("{name} protects nothing here: leave it out");
                    problems.warn(*location, &server.path_of("unprotected"), sentence);
                }
            }
        }
    }
    is_unprotected
}

/// The consequence of not serving a protecting key that is set. None: its value protects nothing.
fn loss(name: &str, meaning: &'static str, server: &Group<'_>) -> Option<&'static str> {
    match name {
        // Pages that ouistiti redirects to TLS are not served over plain HTTP by it.
        "redirect" => {
            leads_to_tls(server.data(name)?).then_some("requests that it redirects to https are served unencrypted")
        }
        "cgi" | "python" => {
            let (scripts, pages) = (docroot_of(server.data(name)?)?, docroot_of(server.data("document")?)?);
            folded(scripts).starts_with(folded(pages)).then_some("its scripts are sent as pages of document")
        }
        _ => Some(meaning),
    }
}

/// Removes empty segments and dot segments from a path. Does not resolve symbolic links.
fn folded(path: &str) -> PathBuf {
    let mut folded = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => drop(folded.pop()),
            Component::CurDir => {}
            other => folded.push(other),
        }
    }
    folded
}

/// Whether a value of `redirect` leads to https: by a destination, or by the option "hsts".
fn leads_to_tls(data: &Data) -> bool {
    match data {
        Data::Text(text) => text.trim_start().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:")),
        Data::Array(all) | Data::List(all) => all.iter().any(|one| leads_to_tls(&one.data)),
        Data::Group(settings) => settings.iter().any(|Setting { name, data, .. }| {
            let is_hsts = |text: &str| text.to_ascii_lowercase().contains("hsts");
            leads_to_tls(data) || matches!(data, Data::Text(text) if name == "options" && is_hsts(text))
        }),
        _ => false,
    }
}

fn docroot_of(group: &Data) -> Option<&str> {
    let Data::Group(settings) = group else { return None };
    settings.iter().find_map(|Setting { name, data, .. }| match data {
        Data::Text(path) if name == "docroot" => Some(path.as_str()),
        _ => None,
    })
}
