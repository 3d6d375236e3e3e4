//! `upstreams`, and links to their nodes.

use std::net::SocketAddr;

use super::*;
use crate::route::Link;
use crate::tls::UpstreamFile;
use crate::upstream::{self, Balance, Health, Node, NodePlace, Sticky, TcpPlace};

/// Each key of an upstream and of the links to it, with a value that is not its default.
const ALL_KEYS: &str = r#"
        limits = { requests = 40; answer-ms = 410; queue-size = 4200; };
        upstreams = ({
            name = "app-1";
            servers = ({ address = "127.0.0.1:8081"; weight = 2; route = "nodeID1"; max-fails = 3; fail-ms = 400; },
                { address = "[::1]:8082"; route = "nodeID2"; backup = true; }, { address = "app.example:8083"; },
                { address = "unix:/run/app.sock"; max-fails = 0; });
            balance = "ip-hash";
            sticky = { names = ("rpcid", "JSESSIONID"); path-delimiter = "!"; route-separator = "~"; };
            health = { path = "/up?a"; interval-ms = 500; timeout-ms = 600; host = "h:1"; };
            keepalive = 7;
            keepalive-ms = 800;
            tls = { cafile = "/ca"; crtfile = "/crt"; keyfile = "/key"; servername = "s.example"; };
        }, { name = "plain"; servers = ({ address = "10.0.0.1:80"; }); });
        servers = ({
            document = {
                limits = { body-ms = 430; };
                links = ({
                    origin = "^/a"; type = "https"; destination = "app-1"; route = "nodeID2"; path = "/b"; rewrite = false;
                    host = "x.example:8"; forwarded-headers = "both"; pass-credentials = true;
                    limits = { requests = 44; body-size = 45; connect-ms = 46; };
                    auth = { type = "bearer"; tokens = "/t"; };
                }, { origin = "^/c"; type = "http"; destination = "plain"; path = "/"; },
                { origin = "^/d"; type = "http"; destination = "unix:/run/d.sock"; });
            };
            websocket = {
                protocol = "packet"; hello = true;
                limits = { queue-size = 4300; };
                links = ({ origin = "^/w"; type = "ws"; destination = "plain"; upgrade = "pass"; limits = { clients = 9; }; },
                    { origin = "^/v"; type = "wss"; destination = "v.example:443"; tls = { servername = "v2.example"; }; });
            };
        });
        "#;

fn upstream(link: &Link) -> &upstream::Upstream {
    let Destination::Upstream(upstream) = &link.destination else { panic!("{link:#?}") };
    upstream
}

fn node(config: &Config, cluster: usize, node: usize) -> &Node {
    &config.upstreams[cluster].nodes[node]
}

#[test]
fn all_keys_of_upstreams() {
    let config = good(ALL_KEYS);
    let [app, plain, unix, tls] = &config.upstreams[..] else { panic!("{:#?}", config.upstreams) };
    assert_eq!((&*app.name, app.balance, app.keepalive_max, app.keepalive_ms), ("app-1", Balance::IpHash, 7, 800));
    let names = vec!["rpcid".into(), "JSESSIONID".into()];
    assert_eq!(app.sticky, Some(Sticky { names, path_delimiter: '!', route_separator: '~' }));
    let files = &config.upstream_tls[0];
    let health = Health {
        path: "/up?a".into(),
        host: Some("h:1".into()),
        interval_ms: 500,
        timeout_ms: 600,
        tls: Some(files.tls.clone()),
    };
    assert_eq!(app.health, Some(health));
    let place = |host: &str, port, addresses: &[&str]| {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        NodePlace::Tcp(TcpPlace::new(host, port, &addresses))
    };
    let one = node(&config, 0, 0);
    assert_eq!((&*one.name, &one.place), ("127.0.0.1:8081", &place("127.0.0.1", 8081, &["127.0.0.1:8081"])));
    assert_eq!((one.weight, one.route.as_deref(), one.is_backup), (2, Some("nodeID1"), false));
    assert_eq!((one.max_fails, one.fail_ms), (3, 400));
    let two = node(&config, 0, 1);
    assert_eq!((&two.place, two.is_backup), (&place("::1", 8082, &["[::1]:8082"]), true));
    assert_eq!((two.weight, two.max_fails, two.fail_ms), (1, 1, 10_000));
    assert_eq!(node(&config, 0, 2).place, place("app.example", 8083, &[]));
    assert_eq!(
        (&node(&config, 0, 3).place, node(&config, 0, 3).max_fails),
        (&NodePlace::Unix("/run/app.sock".into()), 0)
    );
    assert_eq!((plain.balance, plain.keepalive_max, plain.keepalive_ms), (Balance::RoundRobin, 32, 4_000));
    assert_eq!((&plain.sticky, &plain.health, &unix.health), (&None, &None, &None));
    assert_eq!(
        (&*unix.name, unix.keepalive_max, &*tls.name, tls.keepalive_max),
        ("unix:/run/d.sock", 32, "v.example:443", 0)
    );

    let said = |path: &str, place: &str| UpstreamFile { path: path.into(), place: place.into() };
    let shown = |file: &UpstreamFile| (file.path.clone(), file.place.clone());
    let is_said = |file: &UpstreamFile, path, place| assert_eq!(shown(file), shown(&said(path, place)));
    is_said(files.tls.authorities.as_ref().unwrap(), "/ca", "f:13: upstreams[0].tls.cafile");
    let (certificate, key) = files.tls.identity.as_ref().unwrap();
    is_said(certificate, "/crt", "f:13: upstreams[0].tls.crtfile");
    is_said(key, "/key", "f:13: upstreams[0].tls.keyfile");
    assert_eq!(files.tls.server_name.as_deref(), Some("s.example"));
    assert_eq!(config.upstream_tls[1].tls.server_name.as_deref(), Some("v2.example"));
    assert_eq!((config.upstream_tls.len(), &config.upstream_tls[1].tls.identity), (2, &None));
    let limits = &config.limits;
    assert_eq!((limits.upstream_idle_max, limits.upstream_idle_tls_max), (7 + 4 + 32 + 32, 7 + 4));
    assert!(limits.has_upstream_tls && !limits.has_tls);
    links_to_nodes(&config);
}

fn links_to_nodes(config: &Config) {
    let site = &config.servers[0].site;
    let [a, c, d] = &site.page_links[..] else { panic!("{site:#?}") };
    assert!(config.servers[0].www.is_none() && a.origin.matches("/a/b") && a.access.is_some() && c.access.is_none());
    let inherited = limits::Forwarding {
        requests_max: 40,
        answer_ms: 410,
        body_ms: 430,
        queue_size_max: 4200,
        ..limits::Forwarding::default()
    };
    let own = upstream(a);
    assert!(Arc::ptr_eq(&own.cluster, &config.upstreams[0]));
    assert!(Arc::ptr_eq(own.tls.as_ref().unwrap(), &config.upstream_tls[0].tls));
    assert_eq!((own.node, own.path.as_deref(), own.host.as_deref()), (Some(1), Some("/b"), Some("x.example:8")));
    assert_eq!(own.forwarded, upstream::ClientFields::Both);
    assert!(own.passes_credentials && !own.rewrites_replies && !own.is_tunnel);
    let limits = limits::Forwarding { requests_max: 44, body_size_max: 45, connect_ms: 46, ..inherited.clone() };
    assert_eq!(own.limits, limits);
    let other = upstream(c);
    assert!(other.rewrites_replies && !other.passes_credentials && other.tls.is_none());
    assert_eq!((other.node, &other.host, other.forwarded), (None, &None, upstream::ClientFields::XForwarded));
    assert_eq!((&other.limits, upstream(d).path.as_deref()), (&inherited, None));
    assert!(!upstream(d).rewrites_replies && Arc::ptr_eq(&upstream(d).cluster, &config.upstreams[2]));

    let [w, v] = &site.links[..] else { panic!("{site:#?}") };
    assert!(Arc::ptr_eq(&upstream(w).cluster, &other.cluster) && upstream(w).is_tunnel && !upstream(v).is_tunnel);
    assert_eq!((w.service.protocol, w.service.hello, w.service.is_direct), (Protocol::Frames, false, false));
    assert_eq!((upstream(w).limits.requests_max, upstream(w).limits.queue_size_max), (9, 4300));
    assert_eq!((w.service.limits.clients_max, w.service.limits.queue_size_max), (9, 4300));
    assert!(Arc::ptr_eq(upstream(v).tls.as_ref().unwrap(), &config.upstream_tls[1].tls));
}

/// A reload keeps the state of upstreams that are alike, wherever they are in the file.
#[test]
fn upstreams_that_are_alike_are_adopted() {
    let old = good(ALL_KEYS);
    let moved = format!("\n\n{}", ALL_KEYS.replace("requests = 44", "requests = 47"));
    let mut new = good(&moved.replace("10.0.0.1:80", "10.0.0.2:80"));
    new.adopt(&old);
    let is_kept: Vec<bool> = new.upstreams.iter().zip(&old.upstreams).map(|(new, old)| Arc::ptr_eq(new, old)).collect();
    assert_eq!(is_kept, [true, false, true, true]);
    let is_kept = |(new, old): (&UpstreamTlsFiles, &UpstreamTlsFiles)| Arc::ptr_eq(&new.tls, &old.tls);
    assert!(new.upstream_tls.iter().zip(&old.upstream_tls).all(is_kept));
    let (site, old_site) = (&new.servers[0].site, &old.servers[0].site);
    let [a, c, d] = [0, 1, 2].map(|at| (upstream(&site.page_links[at]), upstream(&old_site.page_links[at])));
    assert!(Arc::ptr_eq(&a.0.cluster, &a.1.cluster) && Arc::ptr_eq(&d.0.cluster, &d.1.cluster));
    assert_eq!((a.0.limits.requests_max, a.1.limits.requests_max), (47, 44));
    assert!(!Arc::ptr_eq(&c.0.cluster, &c.1.cluster) && Arc::ptr_eq(&c.0.cluster, &new.upstreams[1]));
    let health = new.upstreams[0].health.as_ref().and_then(|health| health.tls.as_ref());
    assert!(health.is_some_and(|tls| Arc::ptr_eq(tls, &new.upstream_tls[0].tls)));

    // Of two that are alike, each is adopted once.
    let twice = "servers = ({ document = { links = ({ origin = \"^/a\"; type = \"http\"; destination = \"a:1\"; },
        { origin = \"^/b\"; type = \"http\"; destination = \"a:1\"; }); }; });";
    let (old, mut new) = (good(twice), good(twice));
    new.adopt(&old);
    assert!(!Arc::ptr_eq(&new.upstreams[0], &new.upstreams[1]));
    assert!(new.upstreams.iter().zip(&old.upstreams).all(|(new, old)| Arc::ptr_eq(new, old)));
}

/// Health checks use TLS if the links do, and `tls` is set or no link does without.
#[test]
fn tls_of_health_checks() {
    let link = |kind: &str| format!("{{ origin = \"^/{kind}\"; type = \"{kind}\"; destination = \"u\"; }}");
    for (tls, links, checks_tls) in [
        ("", &["http"][..], false),
        ("", &["https"], true),
        ("", &["http", "https"], false),
        ("tls = { cafile = \"/c\"; };", &["http", "https"], true),
        ("tls = { cafile = \"/c\"; };", &["https"], true),
    ] {
        let links: Vec<String> = links.iter().map(|kind| link(kind)).collect();
        let config = good(&format!(
            "upstreams = ({{ name = \"u\"; servers = ({{ address = \"a:1\"; }}); health = {{ path = \"/\"; }}; {tls} }});
            servers = ({{ document = {{ links = ({}); }}; }});",
            links.join(",")
        ));
        let health = config.upstreams[0].health.as_ref().unwrap();
        assert_eq!(health.tls.is_some(), checks_tls, "{tls} {links:?}");
        let of_link = upstream(&config.servers[0].site.page_links[0]);
        assert!(Arc::ptr_eq(&of_link.cluster, &config.upstreams[0]), "{tls} {links:?}");
    }
}

/// A configuration with this text in the upstream "app", whose other keys are good.
fn app(text: &str) -> String {
    let servers = if text.contains("servers =") { "" } else { "servers = ({ address = \"10.0.0.1:80\"; });" };
    let name = if text.contains("name =") { "" } else { "name = \"app\";" };
    page(&format!("upstreams = ({{ {name} {servers} {text} }});"), "type = \"http\"; destination = \"app\";")
}

/// A configuration with this text in a link for pages.
fn page(top: &str, text: &str) -> String {
    format!("{top} servers = ({{ document = {{ links = ({{ origin = \"^/a\"; {text} }}); }}; }});")
}

/// A configuration with this text in a link of `websocket`.
fn ws(top: &str, text: &str) -> String {
    format!("{top} servers = ({{ websocket = {{ links = ({{ origin = \"^/a\"; {text} }}); }}; }});")
}

const APP: &str = "upstreams = ({ name = \"app\"; servers = ({ address = \"a:1\"; route = \"one\"; }); });";

#[test]
fn mistakes_in_upstreams() {
    let node = |text: &str| app(&format!("servers = ({{ address = \"a:1\"; {text} }});"));
    for (text, said) in [
        (
            app("name = \"a:1\";"),
            "upstreams[0].name: \"a:1\" is not a word of letters, digits, - _ and dots: write one",
        ),
        (app("name = \"\";"), "upstreams[0].name: is empty: write a value, or leave it out"),
        (app("servers = ();"), "upstreams[0].servers: is empty: write servers = ({ address = \"HOST:PORT\"; });"),
        (
            page(
                &APP.replace("});\"", "")
                    .replace("}); });", "}); }, { name = \"app\"; servers = ({ address = \"b:1\"; }); });"),
                "type = \"http\"; destination = \"app\";",
            ),
            "upstreams[1].name: \"app\" is the name of upstreams[0] too: give it another one",
        ),
        (page("upstreams = ({});", ""), "upstreams[0]: name is missing: write name = VALUE;"),
        (page("upstreams = ({});", ""), "upstreams[0]: servers is missing: write servers = VALUE;"),
        (app("servers = ({});"), "upstreams[0].servers[0]: address is missing: write address = VALUE;"),
        (
            app("servers = ({ address = \"a\"; });"),
            "servers[0].address: \"a\" is not the address of a server: write \"127",
        ),
        (app("servers = ({ address = \"unix:a\"; });"), "\"unix:a\" is not the address of a server"),
        (app("servers = ({ address = \"/a\"; });"), "\"/a\" is not the address of a server"),
        (app("servers = ({ address = \"a:0\"; });"), "\"a:0\" has port 0, which cannot be connected to"),
        (node("route = \"a b\";"), "servers[0].route: \"a b\" is not a word of letters, digits"),
        (node("backup = true;"), "upstreams[0].servers: has backups only: leave backup out of one of them"),
        (node("weight = 0;"), "servers[0].weight: 0 is out of bounds: write 1 to 1000"),
        (node("max-fails = -1;"), "servers[0].max-fails: -1 is out of bounds: write 0 to 1000 failures"),
        (
            app("servers = ({ address = \"a:1\"; route = \"x\"; }, { address = \"a:2\"; route = \"x\"; });"),
            "servers[1].route: \"x\" is the route of another server too: give it another one",
        ),
        (
            node("route = \"x\"; }); sticky = { names = (); }; unused = ({"),
            "sticky.names: is empty: write a value, or leave it out",
        ),
        (
            node("route = \"x\"; }); sticky = { names = (\"a b\"); } ; unused = ({"),
            "\"a b\" is not the name of a cookie",
        ),
        (node("route = \"x\"; }); sticky = { names = (\"a\", \"a\"); } ; unused = ({"), "\"a\" is listed twice"),
        (node("route = \"x\"; }); sticky = { } ; unused = ({"), "sticky: names is missing: write names = VALUE;"),
        (
            node("route = \"x\"; }); sticky = { names = \"a\"; path-delimiter = \"/\"; } ; unused = ({"),
            "sticky.path-delimiter: \"/\" is not one of ! $ &",
        ),
        (
            node("route = \"x.y\"; }); sticky = { names = \"a\"; } ; unused = ({"),
            "servers[0].route: \"x.y\" has the route-separator '.' in it: leave it out",
        ),
        (app("sticky = { names = \"a\"; };"), "upstreams[0].sticky: needs servers with routes: write route"),
        (app("health = {};"), "upstreams[0].health: path is missing: write path = VALUE;"),
        (app("health = { path = \"up\"; };"), "health.path: \"up\" is not a path: write one such as \"/health\""),
        (app("health = { path = \"/\"; host = \"a b\"; };"), "health.host: \"a b\" is not a host: write one such as"),
        (app("tls = { keyfile = \"/k\"; };"), "upstreams[0].tls.keyfile: needs crtfile, its certificate"),
        (
            app("tls = { servername = \"a:1\"; };"),
            "upstreams[0].tls.servername: \"a:1\" is not a name of a certificate",
        ),
        (
            app("balance = \"random\";"),
            "balance: \"random\" is not known: write one of round-robin, ip-hash, least-busy",
        ),
        (app("ballance = \"ip-hash\";"), "upstreams[0].ballance: unknown key: did you mean \"balance\"?"),
        (app("keepalive = 10001;"), "keepalive: 10001 is out of bounds: write 0 to 10000 connections"),
    ] {
        let problems = load_text(&text, &[]).map(|loaded| loaded.config).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(said)), "{text}\n{said:?} is not in {problems:#?}");
    }
}

#[test]
fn mistakes_in_links_to_nodes() {
    let to_app = |text: &str| page(APP, &format!("type = \"http\"; destination = \"app\"; {text}"));
    for (text, said) in [
        (page("", "destination = \"a:1\";"), "document.links[0]: type is missing: write type = VALUE;"),
        (page("", "type = \"ws\"; destination = \"a:1\";"), "type: \"ws\" is not known: write one of http, https"),
        (ws("", "type = \"http\"; destination = \"a:1\";"), "type: \"http\" is not known: write one of unix, tcp, tty"),
        (
            page(APP, "type = \"http\"; destination = \"ap\";"),
            "document.links[0].destination: there is no upstream \"ap\": did you mean \"app\"?",
        ),
        (
            page("", "type = \"http\"; destination = \"localhost\";"),
            "there is no upstream \"localhost\": write the name of an upstream, \"HOST:PORT\"",
        ),
        (page("", "type = \"http\"; destination = \"http://a\";"), "\"http://a\" is not the address of a server"),
        (
            page("", "type = \"http\"; destination = \"/run/a\";"),
            "write \"127.0.0.1:8080\", \"[::1]:8080\", \"host:8080\"",
        ),
        (to_app("route = \"two\";"), "no server of the upstream \"app\" has the route \"two\": write route = \"two\";"),
        (to_app("route = \"onne\";"), "has the route \"onne\": did you mean \"one\"?"),
        (page("", "type = \"http\"; destination = \"a:1\"; route = \"one\";"), "route: needs the name of an upstream"),
        (to_app("path = \"b\";"), "links[0].path: \"b\" is not a path: write one such as \"/app/\""),
        (to_app("path = \"/b?c\";"), "links[0].path: \"/b?c\" is not a path"),
        (to_app("path = \"/b\";").replace("^/a", "^/a*"), "path: needs patterns in origin that begin with \"^/\""),
        (to_app("path = \"/b\";").replace("^/a", "^/a, b"), "path: needs patterns in origin that begin with \"^/\""),
        (to_app("host = \"a/b\";"), "links[0].host: \"a/b\" is not a host"),
        (to_app("host = \"a\\r\\nb\";"), "is not a host"),
        (to_app("tls = {};"), "links[0].tls: is for links of type \"https\" or \"wss\": write one of them"),
        (
            to_app("tls = {};").replace("\"http\"", "\"https\""),
            "links[0].tls: belongs to upstreams[0], the upstream of this link: write it there",
        ),
        (page("", "type = \"https\"; destination = \"unix:/a\";"), "destination: TLS to a UNIX socket needs the name"),
        (
            page(&APP.replace("a:1", "unix:/a"), "type = \"https\"; destination = \"app\";"),
            "upstreams[0]: TLS to a UNIX socket needs the name of the certificate: write tls = { servername = \"NAME\"; };",
        ),
        (to_app("upgrade = \"pass\";"), "upgrade: unknown key here: it belongs in a link"),
        (to_app("forwarded-headers = \"x\";"), "\"x\" is not known: write one of x-forwarded, forwarded, both, none"),
        (to_app("limits = { requests = 0; };"), "limits.requests: 0 is out of bounds: write 1 to 1000000 requests"),
        (to_app("limits = { idle-ms = 1; };"), "limits.idle-ms: unknown key here: it belongs in the file's limits"),
        (ws("", "type = \"unix\"; destination = \"/a\"; path = \"/b\";"), "path: is for type = \"ws\" or \"wss\" only"),
        (ws("", "type = \"tcp\"; destination = \"a:1\"; tls = {};"), "tls: is for type = \"ws\" or \"wss\" only"),
        (ws("", "type = \"ws\"; destination = \"a:1\"; hello = true;"), "hello: is not for type = \"ws\" or \"wss\""),
        (ws("", "type = \"ws\"; destination = \"a:1\"; protocol = \"lines\";"), "protocol: is not for type = \"ws\""),
        (ws("", "type = \"ws\"; destination = \"a:1\"; options = \"direct\";"), "options: is not for type = \"ws\""),
        (ws("", "type = \"ws\"; destination = \"a:1\"; port = 1;"), "port: is for type = \"tcp\" only: leave it out"),
        (
            ws("", "type = \"ws\"; destination = \"a:1\"; baud = 9600;"),
            "baud: is for type = \"tty\" only: leave it out",
        ),
    ] {
        let problems = load_text(&text, &[]).map(|loaded| loaded.config).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(said)), "{text}\n{said:?} is not in {problems:#?}");
    }
}

#[test]
fn warnings_about_upstreams() {
    for (text, said) in [
        (
            format!("{APP} servers = ({{ document = {{ docroot = \"/w\"; }}; }});"),
            "f:1: upstreams[0]: no link leads to it: write its name as destination of a link, or leave it out",
        ),
        (
            app("tls = { cafile = \"/c\"; };"),
            "f:1: upstreams[0].tls: has no effect: no link of type \"https\" or \"wss\" leads to this upstream",
        ),
        (
            page(APP, "type = \"http\"; destination = \"app\"; rewrite = true;"),
            "f:1: servers[0].document.links[0].rewrite: has no effect without path, which changes nothing in requests",
        ),
    ] {
        let loaded = load_text(&text, &[]).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
        let warnings: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
        assert_eq!(warnings, [said], "{text}");
    }
}
