//! TLS of a server, and the redirection to it.

use super::*;
use crate::http::redirect::Redirect;
use crate::tls::{Offload, Verify};

/// A server with pages and these settings.
fn server(settings: &str) -> String {
    format!("{{ document = {{ docroot = \"/w\"; }}; {settings} }}")
}

/// A configuration with these servers, each in a line of its own.
fn servers(all: &[String]) -> String {
    format!("servers = ({});", all.join(",\n"))
}

fn errors(text: &str) -> Vec<String> {
    load_text(text, &[]).map(|loaded| loaded.config).unwrap_err()
}

fn warnings(text: &str) -> Vec<String> {
    load_text(text, &[]).unwrap().warnings.iter().map(Problem::to_string).collect()
}

#[test]
fn files_of_tls() {
    let setting =
        |value: &str, key: &str| TextSetting { value: value.to_owned(), place: format!("f:1: servers[0].{key}") };
    let text = "tls = { crtfile = \"/c\"; keyfile = \"k\"; cachain = \"/i\"; clientca = \"/a\"; crlfile = \"/r\"; \
        verify = \"optional\"; };";
    let config = good(&servers(&[server(text)]));
    assert!(config.limits.has_tls);
    assert_eq!(config.servers[0].listen, [tcp("0.0.0.0:443"), tcp("[::]:443")]);
    let files = TlsFiles {
        certificate: setting("/c", "tls.crtfile"),
        key: setting("k", "tls.keyfile"),
        chain: Some(setting("/i", "tls.cachain")),
        client_ca: Some(setting("/a", "tls.clientca")),
        crl: Some(setting("/r", "tls.crlfile")),
        verify: Verify::Optional,
        authority: None,
        offload: Offload::Direct,
    };
    assert_eq!(config.servers[0].tls, Some(files));

    // The names of ouistiti, past and present.
    for name in ["tls", "mbedtls", "openssl", "wolfssl"] {
        for (key, place) in [("keyfile = \"k\";", "keyfile"), ("pemfile = \"k\";", "pemfile"), ("", "crtfile")] {
            let config = good(&servers(&[server(&format!("port = 80; {name} = {{ crtfile = \"c\"; {key} }};"))]));
            let files = config.servers[0].tls.as_ref().unwrap();
            assert_eq!(files.certificate, setting("c", &format!("{name}.crtfile")));
            let key = if key.is_empty() { "c" } else { "k" };
            assert_eq!(files.key, setting(key, &format!("{name}.{place}")));
            assert_eq!((&files.chain, &files.client_ca, &files.crl), (&None, &None, &None));
            assert_eq!(config.servers[0].listen, [tcp("0.0.0.0:80"), tcp("[::]:80")]);
        }
    }
}

#[test]
fn whether_clients_present_a_certificate() {
    for (keys, verify) in [
        ("", Verify::None),
        ("verify = \"none\";", Verify::None),
        ("clientca = \"a\";", Verify::Required),
        ("clientca = \"a\"; verify = \"required\";", Verify::Required),
        ("clientca = \"a\"; verify = \"optional\";", Verify::Optional),
    ] {
        let config = good(&servers(&[server(&format!("tls = {{ crtfile = \"c\"; {keys} }};"))]));
        assert_eq!(config.servers[0].tls.as_ref().unwrap().verify, verify, "{keys}");
    }
    let text = servers(&[server("tls = { crtfile = \"c\"; clientca = \"a\"; verify = \"none\"; };")]);
    assert_eq!(warnings(&text), ["f:1: servers[0].tls.clientca: has no effect: verify is \"none\""]);
}

#[test]
fn whose_records_the_kernel_makes() {
    let tls = "tls = { crtfile = \"c\"; };";
    for (key, offload) in [
        ("", Offload::Direct),
        ("tls-offload = \"direct\";", Offload::Direct),
        ("tls-offload = \"all\";", Offload::All),
        ("tls-offload = \"off\";", Offload::Off),
    ] {
        let config = good(&servers(&[server(&format!("{tls} {key}"))]));
        assert_eq!(config.servers[0].tls.as_ref().unwrap().offload, offload, "{key}");
    }
    assert_eq!(
        warnings(&servers(&[server("tls-offload = \"all\";")])),
        ["f:1: servers[0].tls-offload: has no effect without tls: write tls, or leave it out"]
    );
}

#[test]
fn mistakes_of_tls() {
    let tls = |keys: &str| servers(&[server(&format!("tls = {{ {keys} }};"))]);
    for (text, said) in [
        (tls(""), "f:1: servers[0].tls: crtfile is missing: write crtfile = VALUE;"),
        (tls("crtfile = \" \";"), "f:1: servers[0].tls.crtfile: is empty: write a value, or leave it out"),
        (tls("crtfle = \"c\";"), "f:1: servers[0].tls.crtfle: unknown key: did you mean \"crtfile\"?"),
        (
            tls("crtfile = \"c\"; keyfile = \"k\"; pemfile = \"k\";"),
            "f:1: servers[0].tls.pemfile: keyfile is set too: keep one of them",
        ),
        (
            tls("crtfile = \"c\"; verify = \"required\";"),
            "f:1: servers[0].tls.verify: needs clientca, the authorities of the clients' certificates: write clientca = \"FILE\";",
        ),
        (
            tls("crtfile = \"c\"; crlfile = \"r\";"),
            "f:1: servers[0].tls.crlfile: needs clientca, the authorities of the clients' certificates: write clientca = \"FILE\";",
        ),
        (
            tls("crtfile = \"c\"; verify = \"yes\";"),
            "f:1: servers[0].tls.verify: \"yes\" is not known: write one of none, optional, required",
        ),
        (servers(&[server("tls = 1;")]), "f:1: servers[0].tls: is an integer: write a group { }"),
        (
            servers(&[server("openssl = { crtfile = \"c\"; }; tls = { crtfile = \"c\"; };")]),
            "f:1: servers[0].openssl: tls is set too: keep one of them",
        ),
    ] {
        assert_eq!(errors(&text), [said], "{text}");
    }
    let said = ["f:1: servers[0].tls.dhmfile: is not served: finite-field Diffie-Hellman is not used"];
    assert_eq!(warnings(&tls("crtfile = \"c\"; dhmfile = \"d\";")), said);
}

#[test]
fn servers_of_an_address_have_tls_or_not() {
    let tls = "port = 80; tls = { crtfile = \"c\"; };";
    let (with, without) = (server(tls), server("hostname = \"a\";"));
    let fix = |first: &str, address: &str, where_: &str, number: usize| {
        format!(
            "f:{}: servers[{number}]: {first} on {address}: write tls {where_} too, or listen on another port",
            number + 1
        )
    };
    let said = [fix("servers[0] has tls", "https://0.0.0.0:80", "here", 1)];
    assert_eq!(errors(&servers(&[with.clone(), without.clone()])), said);
    let said = [fix("servers[0] has no tls", "http://0.0.0.0:80", "there", 1)];
    assert_eq!(errors(&servers(&[without.clone(), with.clone()])), said);
    let both = server(&format!("hostname = \"b\"; {tls}"));
    let config = good(&servers(&[with, both, server("port = 81;")]));
    assert_eq!(config.servers.iter().map(|server| server.tls.is_some()).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn tls_by_flags() {
    let flag = |label, scope, key, value: &str| Flag { label, scope, key, value: Value::One(value.to_owned()) };
    let flags = [
        flag("--www", Scope::Document, "docroot", "/w"),
        flag("--tls-certificate", Scope::Tls, "crtfile", "c"),
        flag("--tls-key", Scope::Tls, "keyfile", "k"),
    ];
    let said = |value: &str, place: &str| TextSetting { value: value.into(), place: place.into() };
    for text in [
        "",
        "servers = ({ port = 8080; });",
        "servers = ({ tls = { crtfile = \"/c\"; keyfile = \"/k\"; }; });",
        "servers = ({ mbedtls = { crtfile = \"/c\"; pemfile = \"/k\"; }; });",
    ] {
        let config = load_text(text, &flags).unwrap().config;
        let files = config.servers[0].tls.as_ref().unwrap();
        assert_eq!(files.certificate, said("c", "--tls-certificate"), "{text}");
        assert_eq!(files.key, said("k", "--tls-key"), "{text}");
    }
    let config = load_text("", &flags[..2]).unwrap().config;
    assert_eq!(config.servers[0].tls.as_ref().unwrap().key, said("c", "--tls-certificate"));
    assert_eq!(config.servers[0].listen, [tcp("127.0.0.1:8080")]);
    let problems = load_text("", &[flags[0].clone(), flags[2].clone()]).map(|loaded| loaded.config).unwrap_err();
    assert_eq!(problems, ["--tls-key needs --tls-certificate FILE"]);
}

#[test]
fn self_signed_certificates() {
    let setting = |value: &str, key: &str| TextSetting { value: value.to_owned(), place: key.to_owned() };
    let config = good(&servers(&[server("tls = { self-signed = true; dir = \"d\"; clientca = \"a\"; };")]));
    let files = config.servers[0].tls.as_ref().unwrap();
    let place = "f:1: servers[0].tls.dir";
    assert_eq!(files.authority, Some(setting("d", place)));
    assert_eq!(files.certificate, setting("d/issued/server.pem", place));
    assert_eq!(files.key, setting("d/issued/server.key", place));
    assert_eq!(files.verify, Verify::Required);
    let config = good(&servers(&[server("tls = { self-signed = false; crtfile = \"c\"; };")]));
    assert_eq!(config.servers[0].tls.as_ref().unwrap().authority, None);
    for (keys, said) in [
        ("self-signed = true;", "f:1: servers[0].tls: dir is missing: write dir = VALUE;"),
        ("crtfile = \"c\"; dir = \"d\";", "f:1: servers[0].tls.dir: needs self-signed = true, or --tls-self-signed"),
        (
            "self-signed = true; dir = \"d\"; crtfile = \"c\";",
            "f:1: servers[0].tls.crtfile: self-signed is set too: keep one of them",
        ),
        (
            "self-signed = true; dir = \"d\"; cachain = \"c\";",
            "f:1: servers[0].tls.cachain: self-signed is set too: keep one of them",
        ),
    ] {
        assert_eq!(errors(&servers(&[server(&format!("tls = {{ {keys} }};"))])), [said], "{keys}");
    }

    // The default folder of the flag gives way to that of the file; the flag's own does not.
    let flag = |label, key, value| Flag { label, scope: Scope::Tls, key, value };
    let switch = flag("--tls-self-signed", "self-signed", Value::On);
    let default = flag("--tls-self-signed", "dir", Value::Default("/default".to_owned()));
    let given = flag("--tls-dir", "dir", Value::One("/given".to_owned()));
    let (bare, full) = (servers(&[server("")]), servers(&[server("tls = { self-signed = true; dir = \"/file\"; };")]));
    for (text, dir, folder, place) in [
        (&bare, &default, "/default", "--tls-self-signed"),
        (&bare, &given, "/given", "--tls-dir"),
        (&full, &default, "/file", place),
        (&full, &given, "/given", "--tls-dir"),
    ] {
        let config = load_text(text, &[switch.clone(), dir.clone()]).unwrap().config;
        let files = config.servers[0].tls.as_ref().unwrap();
        assert_eq!(files.authority, Some(setting(folder, place)), "{text} {dir:?}");
    }
    let text = servers(&[server("tls = { crtfile = \"c\"; };")]);
    let problems = load_text(&text, &[switch.clone(), default.clone()]).map(|loaded| loaded.config).unwrap_err();
    assert_eq!(problems, ["f:1: servers[0].tls.crtfile: --tls-self-signed is set too: keep one of them"]);
    let two = servers(&[server("port = 1;"), server("port = 2;")]);
    let problems = load_text(&two, &[switch.clone(), default]).map(|loaded| loaded.config).unwrap_err();
    assert_eq!(problems, ["--tls-self-signed applies to one server only, and the file has 2: write it in the file"]);
    let problems = load_text(&bare, &[switch]).map(|loaded| loaded.config).unwrap_err();
    assert_eq!(problems, ["--tls-self-signed needs --tls-dir DIR: neither XDG_STATE_HOME nor HOME is set"]);
}

/// The port, and the host unless it is that of the request.
#[test]
fn redirects_to_https() {
    let to = |host: Option<&str>, port| Some(Redirect { host: host.map(Into::into), port });
    let tls = |settings: &str| server(&format!("tls = {{ crtfile = \"c\"; }}; {settings}"));
    let plain = |settings: &str| format!("{{ redirect = {{ options = \"hsts\"; }}; {settings} }}");
    let named = |port: u16, name: &str| tls(&format!("port = {port}; hostname = \"{name}\";"));
    for (all, redirect) in [
        (vec![plain(""), tls("")], to(None, 443)),
        (vec![plain(""), tls("port = 8443;"), tls("port = 8444;")], to(None, 8443)),
        (vec![plain("hostname = \"a\";"), tls("")], to(Some("a"), 443)),
        // The server of the same name, else the first without a name, else the first.
        (vec![plain("hostname = \"a\";"), tls("port = 1;"), named(2, "A")], to(Some("a"), 2)),
        (vec![plain("hostname = \"a\";"), named(2, "b"), tls("port = 1;")], to(Some("a"), 1)),
        (vec![plain("hostname = \"a\";"), named(2, "b"), named(3, "c")], to(Some("a"), 2)),
        (vec![plain(""), named(2, "b"), named(3, "c")], to(None, 2)),
        (vec![plain(""), tls("listen = [\"unix:/s\", \"[::1]:8443\", \"[::1]:1\"];")], to(None, 8443)),
        (vec![plain(""), tls("listen = \"unix:/s\"; hostname = \"a\";"), named(3, "c")], to(None, 3)),
    ] {
        let config = good(&servers(&all));
        let site = &config.servers[0].site;
        assert_eq!((&site.redirect, site.has_hsts, config.is_unprotected), (&redirect, false, false), "{all:?}");
    }
    let config = good(&servers(&[tls("redirect = { options = \"hsts\"; };"), tls("port = 1;")]));
    let of = |server: &Server| (server.site.redirect.clone(), server.site.has_hsts);
    assert_eq!(config.servers.iter().map(of).collect::<Vec<_>>(), [(None, true), (None, false)]);
}

#[test]
fn mistakes_of_redirects() {
    let tls = server("tls = { crtfile = \"c\"; };");
    let plain = |redirect: &str, settings: &str| server(&format!("redirect = {{ {redirect} }}; {settings}"));
    let hsts = |settings: &str| plain("options = \"hsts\";", settings);
    for (all, said) in [
        (vec![hsts("")], "f:1: servers[0].redirect.options: leads to no server with tls on a TCP port"),
        (
            vec!["{ redirect = { options = \"hsts\"; }; unprotected = \"redirect\"; }".to_owned()],
            "f:1: servers[0].redirect.options: leads to no server with tls on a TCP port",
        ),
        (
            vec![hsts(""), server("listen = \"unix:/s\"; tls = { crtfile = \"c\"; };")],
            "f:1: servers[0].redirect.options: leads to no server with tls on a TCP port",
        ),
        (
            vec![hsts(""), server("addr = \"::1\"; port = 0; tls = { crtfile = \"c\"; };")],
            "f:1: servers[0].redirect.options: leads to servers[1], whose port is 0: write a port there",
        ),
        (
            vec![plain("options = \"HSTS\";", ""), tls.clone()],
            "f:1: servers[0].redirect.options: \"HSTS\" is not known: write \"hsts\" or nothing",
        ),
        (vec![plain("option = \"hsts\";", "")], "redirect.option: unknown key: did you mean \"options\"?"),
        (vec!["{ redirect = { options = \"\"; }; }".to_owned()], "f:1: servers[0]: serves nothing"),
        (vec!["{ redirect = { options = \"hsts\"; }; tls = { crtfile = \"c\"; }; }".to_owned()], "serves nothing"),
        (
            vec![
                tls.replace("docroot", "headers = ({ name = \"strict-transport-security\"; value = \"x\"; }); docroot")
                    .replace("tls =", "redirect = { options = \"hsts\"; }; tls ="),
            ],
            "redirect.options: \"hsts\" sends Strict-Transport-Security, as headers of document do: keep one of them",
        ),
        (
            vec![plain("links = ({ destination = \"https://h/\"; });", "")],
            "servers[0].redirect.links: is not served: requests that it redirects to https are served unencrypted",
        ),
    ] {
        let problems = errors(&servers(&all));
        assert!(problems.len() == 1 && problems[0].contains(said), "{all:?}: {problems:?}");
    }
    for (all, said) in [
        (
            vec![hsts(""), tls.clone()],
            &["f:1: servers[0].document: has no effect: redirect leads every request to https"][..],
        ),
        (
            vec![hsts("unprotected = \"redirect\";")],
            &[
                "f:1: servers[0].redirect.options: is not served, and the server is unprotected: no server has tls on a TCP port",
            ],
        ),
        (
            vec![plain("options = \"generate_204\";", "unprotected = \"redirect\";")],
            &[
                "f:1: servers[0].redirect.options: \"generate_204\" is not served: it concerns links",
                "f:1: servers[0].unprotected: redirect protects nothing here: leave it out",
            ],
        ),
        (
            // The links lead to https as all requests do.
            vec![plain("links = ({ destination = \"https://h/\"; }); options = \"hsts\";", ""), tls.clone()],
            &[
                "f:1: servers[0].redirect.links: is not served: requests for single names are not redirected",
                "f:1: servers[0].document: has no effect: redirect leads every request to https",
            ],
        ),
        (
            vec![plain("", "unprotected = \"redirect\";")],
            &["f:1: servers[0].unprotected: redirect protects nothing here: leave it out"],
        ),
        (
            vec![tls.replace("tls =", "redirect = { links = ({ destination = \"https://h/\"; }); }; tls =")],
            &["f:1: servers[0].redirect.links: is not served: requests for single names are not redirected"],
        ),
    ] {
        let Loaded { config, warnings } = load_text(&servers(&all), &[]).unwrap();
        assert_eq!(warnings.iter().map(Problem::to_string).collect::<Vec<_>>(), said, "{all:?}");
        assert_eq!(config.is_unprotected, said[0].contains("the server is unprotected"), "{all:?}");
    }
}
