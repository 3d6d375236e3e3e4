//! Complete configurations, with and without flags.

mod access;

mod mistakes;

mod tls;

mod trust;

mod upstreams;

use std::sync::Arc;

use super::flags::Value;
use super::keys::Scope;
use super::*;
use crate::clients::{ForwardedFields, HeaderUse};
use crate::driver::Choice;
use crate::driver::device::Direction;
use crate::driver::sim::Rng;
use crate::http::upgrade::Origins;
use crate::limits::WhenOver;
use crate::observe::log::{Format, Level};
use crate::route::{Destination, MessageType, Protocol};

fn load_text(text: &str, flags: &[Flag]) -> Result<Loaded, Vec<String>> {
    let mut read = |_: &str| Ok(text.as_bytes().to_vec());
    load_through(&mut read, &mut |_| Err("is not read here".to_owned()), Some("f"), flags)
        .map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

fn good(text: &str) -> Config {
    let loaded = load_text(text, &[]).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(loaded.warnings, [], "{text}");
    loaded.config
}

fn tcp(address: &str) -> ListenAddress {
    ListenAddress::Tcp(address.parse().unwrap())
}

/// A reload loads in a thread.
#[test]
fn loading_in_a_thread() {
    let load = || load_text("servers = ({ document = { docroot = \"/w\"; }; });", &[]);
    let loaded = std::thread::spawn(load).join().unwrap().unwrap();
    assert_eq!(loaded.config.servers.len(), 1);
}

#[test]
fn defaults() {
    let config = good("servers = ({ document = { docroot = \"/w\"; }; websocket = { docroot = \"/d\"; }; });");
    assert_eq!((&config.user, &config.pid_file, &config.log), (&None, &None, &log::Settings::default()));
    assert_eq!((config.driver, &*config.driver_place), (Choice::Auto, "f"));
    assert_eq!(config.limits, limits::Process::default());
    let server = &config.servers[0];
    assert_eq!(server.listen, [tcp("0.0.0.0:80"), tcp("[::]:80")]);
    assert_eq!((server.www.as_deref(), server.docroot.as_deref()), (Some("/w"), Some("/d")));
    assert_eq!(server.places.listen, "f:1: servers[0]");
    assert_eq!(server.places.docroot, "f:1: servers[0].websocket.docroot");
    assert_eq!(server.places.www, "f:1: servers[0].document.docroot");
    let site = &server.site;
    assert!(site.has_www && site.has_docroot && !site.follows_symlinks && site.links.is_empty());
    assert_eq!((&site.hostname, &*site.cache_control, &site.origins), (&None, "no-cache", &Origins::Same));
    assert_eq!(site.rules, crate::route::names::Rules::default());
    assert_eq!((&*site.service, &site.limits), (&crate::route::Service::default(), &limits::Http::default()));
}

/// Every key, each with a distinct value where possible.
const ALL_KEYS: &str = r#"
        user = "www-data"; pid-file = "/p"; log-file = "/l"; log-level = "debug"; log-format = "json";
        driver = "uring";
        limits = {
            clients = 10; clients-per-address = 11; handshakes = 12; tls-handshakes = 27; queued-size = 0x100000; pool-buffers = 32;
            files = 13; drain-ms = 14; head-size = 2048; proxy-ms = 290; tls-ms = 2800; idle-ms = 15; stall-ms = 1600;
        };
        servers = ({
            hostname = "A.example"; addr = "::1"; port = 81; keepalivetimeout = 7; maxclients = 17;
            freebind = true; unprotected = ("auth"); auth = { type = "wwwform"; };
            hostnames = ("a.example", "*.a.example"); trusted = "10.0.0.0/8"; proxy = "optional"; forwarded = "forwarded";
            document = {
                docroot = "/w"; allow = ".html"; deny = "^private/"; denylast = true; options = "range";
                cache-control = "max-age=9"; headers = ({ path = "^/a/"; name = "Cache-Control"; value = "immutable"; }, { name = "X"; value = "y"; });
            };
            websocket = {
                docroot = "/d"; allow = "a"; deny = "b"; denylast = true; options = "follow"; protocol = "lines";
                type = "text"; hello = true; origins = ("https://a.example", "http://b:1");
                limits = { clients = 18; ping-ms = 19; when-over = "close"; };
                links = (
                    { origin = "^/u"; type = "unix"; destination = "/u"; protocol = "packet"; hello = false;
                      message-type = "binary"; limits = { clients = 20; pong-ms = 210; }; },
                    { origin = "^/t"; type = "tcp"; destination = "127.0.0.1:7000"; },
                    { origin = "^/s"; type = "tty"; destination = "/dev/ttyS1"; baud = "115200"; },
                    { origin = "^/f"; type = "fifo"; destination = "/f"; direction = "write"; limits = { clients = 3; }; hello = true; },
                    { origin = "^/o"; type = "tcp"; destination = "plc.example"; port = "1"; options = ""; }
                );
            };
            limits = { headers = 22; stall-ms = 2300; connect-ms = 24; };
        }, {
            hostname = "b.example"; listen = "[::1]:81"; trusted = "10.0.0.0/8"; proxy = "optional"; forwarded = "forwarded"; limits = { clients = 25; keepalive-ms = 26; };
            websocket = { docroot = "/e"; message-type = "binary"; };
        });
        "#;

#[test]
fn all_keys() {
    let Loaded { config, warnings } = load_text(ALL_KEYS, &[]).unwrap();
    let warnings: Vec<String> = warnings.iter().map(Problem::to_string).collect();
    let said = "f:10: servers[0].auth.type: is not served, as unprotected allows: neither OAuth nor a form asks clients for a password";
    let admitted = "f:10: servers[0].auth: none of it is served: every client is admitted without a credential";
    assert_eq!(warnings, [said, admitted]);
    assert!(config.is_unprotected);
    let said = |value: &str, place: &str| Some(TextSetting { value: value.into(), place: place.into() });
    assert_eq!(config.user, said("www-data", "f:2: user"));
    assert_eq!(config.pid_file, said("/p", "f:2: pid-file"));
    assert_eq!(config.log, log::Settings { level: Level::Debug, format: Format::Json, file: Some("/l".into()) });
    assert_eq!((config.driver, &*config.driver_place), (Choice::Uring, "f:3: driver"));
    let process = limits::Process {
        clients_max: 10,
        clients_per_address_max: 11,
        handshakes_max: 12,
        tls_handshakes_max: 27,
        queued_size_max: 1 << 20,
        pool_buffers: 32,
        fds_max: 13,
        drain_ms: 14,
        ..limits::Process::default()
    };
    assert_eq!(config.limits, process);

    assert_eq!(config.servers[0].places.listen, "f:9: servers[0].addr");
    let [one, two] = &config.servers[..] else { panic!("{config:#?}") };
    assert_eq!((&one.listen[..], one.site.hostname.as_deref()), (&[tcp("[::1]:81")][..], Some("A.example")));
    let pages = &one.site.page_rules;
    assert!(pages.permit_page("a.html", false, "a.html") && !pages.permit_page("a.css", false, "a.css"));
    assert!(pages.permit_page("private/a.html", false, "private/a.html") && one.has_freebind && !two.has_freebind);
    assert_eq!(&*one.site.cache_control, "max-age=9");
    let [first, second] = &one.site.page_headers[..] else { panic!("{:?}", one.site) };
    assert!(first.path.matches("/a/b") && !first.path.matches("/b") && second.path.matches("/b"));
    assert_eq!((&*first.name, &*first.value, &*second.name, &*second.value), ("Cache-Control", "immutable", "X", "y"));
    let http = limits::Http {
        clients_max: 17,
        head_size_max: 2048,
        proxy_ms: 290,
        tls_ms: 2800,
        headers_max: 22,
        keepalive_ms: 7000,
        stall_ms: 2300,
        ..limits::Http::default()
    };
    assert_eq!(one.site.limits, http);
    let hostnames = &one.site.hostnames;
    assert!(hostnames.has("x.a.example") && !hostnames.has("b.example") && two.site.hostnames.is_empty());
    assert_eq!((one.trust.header, one.trust.fields), (HeaderUse::Optional, ForwardedFields::Forwarded));
    assert!(one.trust.proxies.has_ip([10, 0, 0, 1].into()) && one.trust == two.trust);
    assert!(one.site.follows_symlinks && one.site.rules.deny_last);
    assert_eq!(one.site.origins, Origins::List(vec!["https://a.example".into(), "http://b:1".into()]));
    let websocket = limits::WebSocket {
        clients_max: 18,
        connect_ms: 24,
        idle_ms: 15,
        ping_ms: 19,
        stall_ms: 2300,
        when_over: WhenOver::Close,
        ..limits::WebSocket::default()
    };
    let service = &one.site.service;
    assert_eq!((service.protocol, service.message_type, service.hello), (Protocol::Lines, MessageType::Text, true));
    assert_eq!(service.limits, websocket);
    all_links(one, &websocket);

    assert_eq!(two.listen, [tcp("[::1]:81")]);
    let http = limits::Http {
        clients_max: 25,
        head_size_max: 2048,
        proxy_ms: 290,
        tls_ms: 2800,
        keepalive_ms: 26,
        stall_ms: 1600,
        ..limits::Http::default()
    };
    assert_eq!(two.site.limits, http);
    assert_eq!(two.site.service.message_type, MessageType::Binary);
    let inherited = &two.site.service.limits;
    assert_eq!((inherited.clients_max, inherited.idle_ms, inherited.ping_ms), (1_000_000, 15, 25_000));
}

/// The links of `all_keys`.
fn all_links(server: &Server, websocket: &limits::WebSocket) {
    let [unix, tcp, tty, fifo, old] = &server.site.links[..] else { panic!("{server:#?}") };
    assert!(unix.origin.matches("/u1") && !unix.origin.matches("/v"));
    assert_eq!(unix.destination, Destination::Unix("/u".into()));
    assert_eq!((unix.service.protocol, unix.service.hello), (Protocol::Packet, false));
    assert_eq!(unix.service.message_type, MessageType::Binary);
    assert_eq!(unix.service.limits, limits::WebSocket { clients_max: 20, pong_ms: 210, ..websocket.clone() });
    assert_eq!(tcp.destination, Destination::Tcp(["127.0.0.1:7000".parse().unwrap()].into()));
    assert_eq!(tcp.service, server.site.service);
    assert!(!Arc::ptr_eq(&tcp.service, &server.site.service), "each counts its own clients");
    assert_eq!(tty.destination, Destination::Tty { path: "/dev/ttyS1".into(), baud: 115_200 });
    assert_eq!((tty.service.limits.clients_max, tty.service.hello), (1, false));
    assert_eq!(tty.service.protocol, Protocol::Lines);
    assert_eq!(fifo.destination, Destination::Fifo { path: "/f".into(), direction: Direction::Write });
    assert_eq!((fifo.service.limits.clients_max, fifo.service.hello), (3, true));
    assert_eq!(old.destination, Destination::Tcp([].into()));
    let host = Host {
        link: 4,
        name: "plc.example".into(),
        port: 1,
        place: "f:26: servers[0].websocket.links[4].destination".into(),
    };
    assert_eq!(server.hosts, [host]);
}

#[test]
fn flags_over_files() {
    let flag = |label, scope, key, value: &str| Flag { label, scope, key, value: Value::One(value.to_owned()) };
    let listen = |address: &str| Flag {
        label: "--listen:",
        scope: Scope::Server,
        key: "listen",
        value: Value::Several(vec![address.to_owned()]),
    };
    let flags = [
        listen("127.0.0.1:1"),
        flag("--www", Scope::Document, "docroot", "/other"),
        flag("--type", Scope::WebSocket, "type", "text"),
        flag("--log-level", Scope::Top, "log-level", "warn"),
        flag("--driver", Scope::Top, "driver", "uring"),
    ];
    let text = "log-level = \"debug\"; driver = \"epoll\"; servers = ({ addr = \"::\"; port = 5; document = { docroot = \"/w\"; };
        websocket = { docroot = \"/d\"; message-type = \"binary\"; protocol = \"nul\"; }; });";
    let config = load_text(text, &flags).unwrap().config;
    let server = &config.servers[0];
    assert_eq!((&server.listen[..], server.www.as_deref()), (&[tcp("127.0.0.1:1")][..], Some("/other")));
    assert_eq!((&server.places.www[..], &server.places.docroot[..]), ("--www", "f:2: servers[0].websocket.docroot"));
    assert_eq!(server.site.service.message_type, MessageType::Text);
    assert_eq!((server.site.service.protocol, config.log.level), (Protocol::Nul, Level::Warn));
    assert_eq!((config.driver, &*config.driver_place), (Choice::Uring, "--driver"));

    // A file without servers: the flags define one, at the default address of flags.
    for more in ["", "servers = ();"] {
        let config = load_text(&format!("limits = {{ clients = 9; }}; {more}"), &flags[1..2]).unwrap().config;
        assert_eq!((config.limits.clients_max, &config.servers[0].listen[..]), (9, &[tcp("127.0.0.1:8080")][..]));
    }
    assert!(load_text("user = \"a\";", &flags[..1]).unwrap_err()[0].starts_with("f serves nothing: write document"));

    // With several servers, a flag of a server is ambiguous.
    let two =
        "servers = ({ port = 1; document = { docroot = \"/w\"; }; }, { port = 2; document = { docroot = \"/w\"; }; });";
    let said: Vec<String> = load_text(two, &flags).unwrap_err();
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[0], "--listen: applies to one server only, and the file has 2: write it in the file");
    assert!(load_text(two, &flags[3..]).is_ok());

    // A value that is not a list of groups is reported by the check.
    for odd in ["servers = 1;", "servers = (1);", "servers = ({ websocket = 1; });"] {
        assert!(load_text(odd, &flags).unwrap_err().iter().any(|problem| problem.contains("is an integer")), "{odd}");
    }
}

/// Random keys and values: loading terminates, and servers of a valid configuration have an address.
#[test]
fn noise() {
    const VALUES: [&str; 24] = [
        "0",
        "1",
        "-1",
        "80",
        "64",
        "9600",
        "70000",
        "9223372036854775807",
        "1.5",
        "true",
        "()",
        "[]",
        "{}",
        "(1, \"x\")",
        "[\"a\", \"b\"]",
        "\"\"",
        "\" , \"",
        "\"/x\"",
        "\"*\"",
        "\"same\"",
        "\"packet\"",
        "\"tcp\"",
        "\"tty\"",
        "\"::1\"",
    ];
    fn group(rng: &mut Rng, scope: Scope) -> String {
        let all: Vec<&keys::ConfigKey> = keys::of(scope).collect();
        let mut text = String::new();
        for _ in 0..rng.below(6) {
            let key = all[rng.below(all.len())];
            let value = match key.kind {
                _ if rng.one_in(8) => VALUES[rng.below(VALUES.len())].to_owned(),
                // Loading must not depend on DNS.
                _ if key.name == "destination" => ["\"/x\"", "\"[::1]:1\"", "\"127.0.0.1:1\""][rng.below(3)].to_owned(),
                keys::Kind::Group(scope) => format!("{{ {} }}", group(rng, scope)),
                keys::Kind::Groups(scope) => format!("({{ {} }}, {{ {} }})", group(rng, scope), group(rng, scope)),
                keys::Kind::OneOrMore(scope) => format!("{{ {} }}", group(rng, scope)),
                keys::Kind::Word(words) => format!("{:?}", words[rng.below(words.len())]),
                keys::Kind::Flag => "true".to_owned(),
                keys::Kind::Number(bounds) | keys::Kind::Limit(bounds, _) => bounds.min.to_string(),
                _ => VALUES[rng.below(VALUES.len())].to_owned(),
            };
            if !text.contains(&format!("{} =", key.name)) {
                text += &format!("{} = {value}; ", key.name);
            }
        }
        text
    }
    let mut good = 0;
    for seed in 0..10_000 {
        let mut rng = Rng(seed);
        let server = if rng.one_in(2) { "document = { docroot = \"/w\"; };" } else { "" };
        let text =
            format!("servers = ({{ {server} {} }}); {}", group(&mut rng, Scope::Server), group(&mut rng, Scope::Top));
        if let Ok(loaded) = load_text(&text, &[]) {
            assert!(loaded.config.servers.iter().all(|server| !server.listen.is_empty()), "seed {seed}: {text}");
            good += 1;
        }
    }
    assert!(good > 200, "{good}");
}
