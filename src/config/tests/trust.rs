//! Trusted proxies, and the hosts that a server answers.

use super::*;
use crate::clients::Trust;
use crate::http::redirect::Redirect;
use crate::types::Address;

const DOCUMENT: &str = "document = { docroot = \"/w\"; };";

fn server(settings: &str) -> String {
    format!("servers = ({{ {DOCUMENT} {settings} }});")
}

fn servers(settings: &[&str]) -> String {
    let all: Vec<String> = settings.iter().map(|settings| format!("{{ {DOCUMENT} {settings} }}")).collect();
    format!("servers = ({});", all.join(",\n"))
}

fn trust(settings: &str) -> Trust {
    good(&server(settings)).servers.remove(0).trust
}

fn peer(address: &str) -> Address {
    Address::Tcp(address.parse().unwrap())
}

#[test]
fn trusted_proxies() {
    assert_eq!(trust(""), Trust::default());
    assert_eq!(trust("proxy = \"off\"; forwarded = \"none\";"), Trust::default());
    let all = "listen = (\"[::1]:80\", \"unix:/s\"); trusted = (\"10.0.0.0/8\", \"::1, 192.0.2.1\", \"unix:\");";
    let proxies = trust(all).proxies;
    for (address, is_trusted) in [
        (peer("10.1.2.3:4"), true),
        (peer("[::1]:5"), true),
        (peer("192.0.2.1:6"), true),
        (Address::Unix, true),
        (peer("11.0.0.1:7"), false),
        (peer("[::2]:8"), false),
        (peer("192.0.2.2:9"), false),
    ] {
        assert_eq!(proxies.has(address), is_trusted, "{address}");
    }
    let x = |for_, proto, host| ForwardedFields::XForwarded { for_, proto, host };
    for (settings, header, fields) in [
        ("", HeaderUse::Off, x(true, true, false)),
        ("proxy = \"optional\";", HeaderUse::Optional, x(true, true, false)),
        ("proxy = \"required\"; forwarded = \"none\";", HeaderUse::Required, ForwardedFields::None),
        ("forwarded = \"Forwarded\";", HeaderUse::Off, ForwardedFields::Forwarded),
        ("forwarded = (\"X-Forwarded-For\", \"x-forwarded-host\");", HeaderUse::Off, x(true, false, true)),
        ("forwarded = \"x-forwarded-proto, x-forwarded-host\";", HeaderUse::Off, x(false, true, true)),
    ] {
        let Trust { header: read, proxies, fields: believed } = trust(&format!("trusted = \"10.0.0.1\"; {settings}"));
        assert_eq!((read, believed), (header, fields), "{settings}");
        assert!(proxies.has(peer("10.0.0.1:1")) && !proxies.has(peer("10.0.0.2:1")), "{settings}");
    }
    let config = good(&format!("limits = {{ proxy-ms = 700; }}; {}", server("limits = { proxy-ms = 800; };")));
    assert_eq!(config.servers[0].site.limits.proxy_ms, 800);
}

/// Each error is the only one of its file.
#[test]
fn mistakes_of_trust() {
    let many =
        |of: &str, count: usize| (0..count).map(|number| format!("\"{of}{number}\"")).collect::<Vec<_>>().join(", ");
    let (networks, hosts) = (many("10.0.0.", 65), many("a", 65));
    for (settings, said) in [
        ("trusted = \"10.0.0.1/8\";", "servers[0].trusted: \"10.0.0.1/8\" "),
        ("trusted = (\"::1\", \"proxy.example\");", "servers[0].trusted: \"proxy.example\" is not a network: write"),
        ("trusted = \"10.0.0.0/33\";", "servers[0].trusted: \"10.0.0.0/33\" "),
        ("trusted = \" , \";", "servers[0].trusted: is empty: write a value, or leave it out"),
        ("trusted = ();", "servers[0].trusted: is empty: write a value, or leave it out"),
        (&format!("trusted = ({networks});"), "servers[0].trusted: has more than 64 elements: leave some out"),
        (
            "proxy = \"on\"; trusted = \"::1\";",
            "servers[0].proxy: \"on\" is not known: write one of off, optional, required",
        ),
        ("proxy = \"optional\";", "servers[0].proxy: has no effect without trusted: write trusted = \"ADDRESS\";"),
        ("proxy = \"required\";", "servers[0].proxy: has no effect without trusted: write trusted"),
        ("forwarded = \"forwarded\";", "servers[0].forwarded: has no effect without trusted: write trusted"),
        (
            "forwarded = \"x-real-ip\"; trusted = \"::1\";",
            "servers[0].forwarded: \"x-real-ip\" is not read: write x-forwarded-for, x-forwarded-proto and",
        ),
        ("forwarded = \"X_Forwarded_For\"; trusted = \"::1\";", "\"X_Forwarded_For\" is not read"),
        (
            "forwarded = (\"forwarded\", \"x-forwarded-for\"); trusted = \"::1\";",
            "servers[0].forwarded: \"forwarded\" cannot be combined with other headers: write it alone",
        ),
        ("forwarded = \"x-forwarded-for, none\"; trusted = \"::1\";", "\"none\" cannot be combined with other headers"),
        ("forwarded = \"none, forwarded\"; trusted = \"::1\";", "\"forwarded\" and \"none\" are both set: keep one"),
        ("forwarded = \",\"; trusted = \"::1\";", "servers[0].forwarded: is empty: write names of headers, or none"),
        (
            "trusted = (\"10.0.0.0/8\", \"0.0.0.0/0\"); proxy = \"optional\";",
            "servers[0].trusted: lists every address, so that each client could claim another's with a PROXY header",
        ),
        ("trusted = \"::/0\"; proxy = \"optional\";", "servers[0].trusted: lists every address, so that each client"),
        ("hostnames = \"a:80\";", "servers[0].hostnames: \"a:80\" is not a host name: write one such as"),
        ("hostnames = (\"a\", \"*\");", "servers[0].hostnames: \"*\" is not a host name"),
        ("hostnames = \"a.*.example\";", "servers[0].hostnames: \"a.*.example\" is not a host name"),
        (&format!("hostnames = ({hosts});"), "servers[0].hostnames: has more than 64 elements: leave some out"),
        (
            "hostname = \"a.example\"; hostnames = \"*.a.example\";",
            "servers[0].hostnames: \"a.example\", the hostname of this server, is not listed: add it",
        ),
        ("limits = { proxy-ms = 99; };", "servers[0].limits.proxy-ms: 99 is out of bounds: write 100 to 3600000 ms"),
        ("trustd = \"::1\"; proxy = \"required\";", "servers[0].trustd: unknown key: did you mean \"trusted\"?"),
    ] {
        let problems = load_text(&server(settings), &[]).map(|loaded| loaded.config).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(said), "{settings}: {problems:?}");
    }
}

#[test]
fn warnings_about_trust() {
    for (settings, said) in [
        (
            "trusted = \"::1\"; forwarded = \"none\";",
            Some("f:1: servers[0].trusted: has no effect: proxy is \"off\", and forwarded is \"none\""),
        ),
        (
            "trusted = \"::/0\";",
            Some(
                "f:1: servers[0].trusted: lists every address: whoever reaches this server may claim another's: list the proxies only",
            ),
        ),
        (
            "trusted = \"0.0.0.0/0\"; proxy = \"required\"; forwarded = \"none\";",
            Some(
                "f:1: servers[0].trusted: lists every address: whoever reaches this server may claim another's: list the proxies only",
            ),
        ),
        (
            "listen = \"unix:/s\"; trusted = \"::1\";",
            Some("f:1: servers[0].trusted: has no effect: this server listens on unix: addresses only: add \"unix:\""),
        ),
        // Servers of other addresses may have UNIX sockets, and must have the same list.
        ("trusted = (\"::1\", \"unix:\");", None),
        ("listen = \"unix:/s\"; trusted = \"unix:\";", None),
        ("listen = \"unix:/s\"; trusted = (\"::1\", \"unix:\"); proxy = \"optional\";", None),
        ("listen = (\"[::1]:80\", \"unix:/s\"); trusted = (\"::1\");", None),
    ] {
        let warnings = load_text(&server(settings), &[]).unwrap().warnings;
        let warnings: Vec<String> = warnings.iter().map(Problem::to_string).collect();
        assert_eq!(warnings, said.into_iter().collect::<Vec<_>>(), "{settings}");
    }
}

/// A client is known before its server: servers of an address believe the same.
#[test]
fn servers_of_an_address() {
    let trusted = "trusted = (\"10.0.0.1\", \"::1\");";
    let http = "http://0.0.0.0:80";
    for (one, two, said) in [
        (trusted.to_owned(), trusted.to_owned(), None),
        (trusted.to_owned(), "trusted = (\"::1\", \"10.0.0.1\", \"::1\"); proxy = \"off\";".to_owned(), None),
        (trusted.to_owned(), "port = 81;".to_owned(), None),
        (trusted.to_owned(), String::new(), Some(("trusted", http))),
        (String::new(), trusted.to_owned(), Some(("trusted", http))),
        (trusted.to_owned(), format!("{trusted} proxy = \"required\";"), Some(("proxy", http))),
        (format!("{trusted} forwarded = \"forwarded\";"), trusted.to_owned(), Some(("forwarded", http))),
        (
            format!("listen = \"unix:/s\"; {trusted} forwarded = \"none\"; proxy = \"optional\";"),
            format!("listen = \"unix:/s\"; {trusted} forwarded = \"none\"; proxy = \"required\";"),
            Some(("proxy", "unix:/s")),
        ),
        (
            format!("tls = {{ crtfile = \"c\"; }}; {trusted}"),
            "tls = { crtfile = \"c\"; };".to_owned(),
            Some(("trusted", "https://0.0.0.0:443")),
        ),
    ] {
        let text = servers(&[&format!("hostname = \"a\"; {one}"), &format!("hostname = \"b\"; {two}")]);
        let loaded = load_text(&text, &[]);
        match (said, loaded) {
            (None, Ok(_)) => {}
            (Some((key, url)), Err(problems)) => {
                let sentence = format!("{key} is not that of servers[0] on {url}: write the same in both");
                let errors: Vec<&String> =
                    problems.iter().filter(|problem| problem.contains("is not that of")).collect();
                assert!(errors.len() == 1 && errors[0].contains("f:2: servers[1]"), "{text}: {problems:?}");
                assert!(errors[0].contains(&sentence), "{text}: {problems:?}");
            }
            (_, loaded) => panic!("{text}: {loaded:?}"),
        }
    }
}

#[test]
fn hosts_of_a_server() {
    let hostnames = |settings: &str| good(&server(settings)).servers.remove(0).site.hostnames;
    assert!(hostnames("").is_empty() && hostnames("hostname = \"a\";").is_empty());
    let all = hostnames(
        "hostname = \"a.example\"; hostnames = (\"A.example.\", \"b.example, *.c.example\", \"[::1]\", \"192.0.2.1\");",
    );
    for (host, is_listed) in [
        ("a.example", true),
        ("B.example:81", true),
        ("x.c.example", true),
        ("x.y.c.example:80", true),
        ("[0::1]:8080", true),
        ("192.0.2.1", true),
        ("c.example", false),
        ("x.a.example", false),
        ("xc.example", false),
        ("[::2]", false),
        ("localhost", false),
        ("", false),
    ] {
        assert_eq!(all.has(host), is_listed, "{host}");
    }
}

/// What came to a trusted proxy by https is served, the rest is redirected.
#[test]
fn redirects_behind_a_proxy() {
    let hsts = "redirect = { options = \"hsts\"; };";
    let to = |host: Option<&str>| Some(Redirect { host: host.map(Into::into), port: 443 });
    for (settings, redirect) in [
        ("trusted = \"::1\";", to(None)),
        ("trusted = \"::1\"; hostname = \"a\"; port = 8080;", to(Some("a"))),
        ("trusted = \"::1\"; forwarded = \"forwarded\";", to(None)),
        ("trusted = \"::1\"; forwarded = \"x-forwarded-proto\";", to(None)),
        ("trusted = \"::1\"; forwarded = \"none\"; proxy = \"required\";", to(None)),
        ("tls = { crtfile = \"c\"; }; trusted = \"::1\";", None),
    ] {
        let config = good(&server(&format!("{settings} {hsts}")));
        let site = &config.servers[0].site;
        assert_eq!((&site.redirect, site.has_hsts, config.is_unprotected), (&redirect, true, false), "{settings}");
    }
    // Another server with tls does not change that.
    let config = good(&servers(&[&format!("trusted = \"::1\"; {hsts}"), "port = 8443; tls = { crtfile = \"c\"; };"]));
    assert_eq!((&config.servers[0].site.redirect, config.servers[0].site.has_hsts), (&to(None), true));
    // Without the client's scheme every request would be redirected.
    let unknown = "trusted = \"::1\"; forwarded = \"x-forwarded-for\";";
    let problems = load_text(&server(&format!("{unknown} {hsts}")), &[]).map(|loaded| loaded.config).unwrap_err();
    let said = "f:1: servers[0].redirect.options: leads to no server with tls on a TCP port: write such a server; behind a \
        TLS proxy write trusted and let it send X-Forwarded-Proto, or leave";
    assert!(problems.len() == 1 && problems[0].starts_with(said), "{problems:?}");
    for (text, said) in [
        (format!("servers = ({{ trusted = \"::1\"; {hsts} }});"), "f:1: servers[0]: serves nothing: write document"),
        (
            server(&format!("trusted = \"::1\"; {hsts}")).replace(
                "docroot =",
                "headers = ({ name = \"Strict-Transport-Security\"; value = \"x\"; }); docroot =",
            ),
            "f:1: servers[0].redirect.options: \"hsts\" sends Strict-Transport-Security, as headers of document do",
        ),
    ] {
        let problems = load_text(&text, &[]).map(|loaded| loaded.config).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with(said), "{text}: {problems:?}");
    }
    let text = server(&format!("trusted = \"::1\"; unprotected = \"redirect\"; {hsts}"));
    let warnings = load_text(&text, &[]).unwrap().warnings;
    let said = ["f:1: servers[0].unprotected: redirect protects nothing here: leave it out"];
    assert_eq!(warnings.iter().map(Problem::to_string).collect::<Vec<_>>(), said);
}
