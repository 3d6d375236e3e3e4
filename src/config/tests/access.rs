//! Who may come in: `auth`, `addresses`, `satisfy`, `paths`, `userfilter` and `clientfilter`.

use std::path::Path;

use auth_wire::{DigestAlgorithm, Jwt, JwtAlgorithm, JwtKey, Rule, Source};

use super::*;
use crate::access::{AccessRule, Auth, AuthKind, Satisfy};
use crate::types::Address;

/// A configuration with these settings in its server.
fn server(settings: &str) -> String {
    format!("servers = ({{ document = {{ docroot = \"/w\"; }}; {settings} }});")
}

fn errors(text: &str) -> Vec<String> {
    load_text(text, &[]).map(|loaded| loaded.config).unwrap_err()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load_text(text, &[]).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
    loaded.warnings.iter().map(Problem::to_string).collect()
}

/// The rule of uakari-auth and the rule of the server.
fn one(settings: &str) -> (Rule, Auth) {
    let mut config = good(&server(settings));
    let [rule] = &mut config.servers[0].site.access.rules[..] else { panic!("{config:#?}") };
    let [auth] = &rule.auth[..] else { panic!("{rule:#?}") };
    assert_eq!((rule.path.is_none(), auth.rule), (true, 0));
    (config.auth_rules.remove(0), auth.clone())
}

#[test]
fn a_password_file() {
    let text = server("auth = { type = \"basic\"; file = \"/etc/uakari/users\"; };");
    let config = good(&text);
    let rule = Rule { sources: vec![Source::PasswordFile("/etc/uakari/users".into())], ..Rule::default() };
    assert_eq!((config.auth_rules, config.auth_places), (vec![rule], vec!["f:1: servers[0].auth.file".to_owned()]));
    let auth = Auth::new(0, "uakari", AuthKind::Basic);
    assert_eq!(config.servers[0].site.access.rules, [AccessRule { auth: vec![auth], ..AccessRule::default() }]);
    assert!(!config.is_unprotected && config.servers[0].site.access.filter.is_none());
}

/// Each type, with the rule of uakari-auth.
#[test]
fn types_of_auth() {
    let file = |path: &str| Source::PasswordFile(path.into());
    let user = |user: &str, passwd: &str, groups: &[&str]| Source::User {
        user: user.to_owned(),
        passwd: passwd.into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    let rule = |sources: Vec<Source>| Rule { sources, ..Rule::default() };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let digest = |opaque: &str, algorithm| AuthKind::Digest { opaque: opaque.into(), algorithm };
    let key =
        |path: &str, id: Option<&str>, algorithm| JwtKey { path: path.into(), id: id.map(str::to_owned), algorithm };
    let jwt = |keys: Vec<JwtKey>| Source::Jwt(Jwt { keys, ..Jwt::default() });
    for (settings, expected, kind) in [
        ("type = \"Basic\"; user = \"foo\"; passwd = \"bar\";", rule(vec![user("foo", "bar", &[])]), AuthKind::Basic),
        (
            "type = \"BASIC\"; user = \"foo\"; passwd = \"$a5$x\"; group = \"a, b\"; file = \"/f\"; dbname = \"/d\";",
            rule(vec![
                user("foo", "$a5$x", &["a", "b"]),
                file("/f"),
                Source::Database { path: "/d".into(), layout: None },
            ]),
            AuthKind::Basic,
        ),
        (
            "type = \"basic\"; file = \"/f\"; users = (\"a\", \"b\"); groups = \"c, d\";",
            Rule { users: names(&["a", "b"]), groups: names(&["c", "d"]), ..rule(vec![file("/f")]) },
            AuthKind::Basic,
        ),
        (
            "type = \"Digest\"; file = \"/f\";",
            Rule { realm: "uakari".to_owned(), ..rule(vec![file("/f")]) },
            digest("", DigestAlgorithm::Sha256),
        ),
        (
            "type = \"digest\"; realm = \"a b\"; opaque = \"o\"; algorithm = \"md5\"; file = \"/f\";",
            Rule { realm: "a b".to_owned(), ..rule(vec![file("/f")]) },
            digest("o", DigestAlgorithm::Md5),
        ),
        (
            "type = \"digest\"; issuer = \"i\"; file = \"/f\";",
            Rule { realm: "i".to_owned(), ..rule(vec![file("/f")]) },
            digest("", DigestAlgorithm::Sha256),
        ),
        ("type = \"bearer\"; tokens = \"/t\";", rule(vec![Source::TokenFile("/t".into())]), AuthKind::Bearer),
        (
            "type = \"cookie\"; token = \"0123456789abcdef\"; user = \"a\"; group = \"g\";",
            rule(vec![Source::Token { token: "0123456789abcdef".into(), user: "a".to_owned(), groups: names(&["g"]) }]),
            AuthKind::Cookie { name: "token".into() },
        ),
        (
            "type = \"query\"; name = \"access token\"; key = \"/k\";",
            rule(vec![jwt(vec![key("/k", None, None)])]),
            AuthKind::Query { name: "access token".into() },
        ),
        (
            "type = \"bearer\"; key = \"/k\"; algorithm = \"HS256\"; issuer = \"i\"; audience = \"a\"; user-claim = \"user\";",
            rule(vec![Source::Jwt(Jwt {
                keys: vec![key("/k", None, Some(JwtAlgorithm::Hs256))],
                issuer: Some("i".to_owned()),
                audience: Some("a".to_owned()),
                user_claim: Some("user".to_owned()),
            })]),
            AuthKind::Bearer,
        ),
        (
            "type = \"bearer\"; keys = ({ file = \"/1\"; id = \"one\"; }, { file = \"/2\"; algorithm = \"ES256\"; });",
            rule(vec![jwt(vec![key("/1", Some("one"), None), key("/2", None, Some(JwtAlgorithm::Es256))])]),
            AuthKind::Bearer,
        ),
        (
            "type = \"unix\"; path = \"/s\"; headers = (\"Cookie\", \"x-a, x-b\");",
            rule(vec![Source::Server("/s".into())]),
            AuthKind::Unix {
                server: Path::new("/s").into(),
                headers: vec!["cookie".into(), "x-a".into(), "x-b".into()],
            },
        ),
    ] {
        let (found, auth) = one(&format!("auth = {{ {settings} }};"));
        assert_eq!((found, auth.kind), (expected, kind), "{settings}");
    }
    let (_, auth) = one(
        "hostname = \"a.example\"; auth = { type = \"basic\"; file = \"/f\"; protect = \"^/x/y\"; unprotect = \"^x/\"; \
         cache-ms = 0; recheck-ms = 1000; };",
    );
    assert_eq!((&*auth.realm, auth.cache_ms, auth.recheck_ms, auth.has_filter), ("a.example", 0, 1_000, false));
    let matches = |patterns: &Option<crate::route::names::Patterns>, path| patterns.as_ref().unwrap().matches(path);
    assert!(matches(&auth.unprotect, "/x/a") && !matches(&auth.unprotect, "/y") && matches(&auth.protect, "/x/y"));
    let (rule, _) = one("auth = { type = \"basic\"; file = \"users\"; };");
    assert_eq!(rule.sources, [Source::PasswordFile(std::path::absolute("users").unwrap())]);
    assert!(
        matches!(&rule.sources[0], Source::PasswordFile(path) if path.is_absolute() && path != Path::new("/users"))
    );
}

#[test]
fn without_uakari_auth() {
    let with_tls = |settings: &str| server(&format!("tls = {{ crtfile = \"c\"; clientca = \"a\"; }}; {settings}"));
    let config = good(&with_tls("auth = { type = \"clientcert\"; users = (\"a b\", \"c\"); };"));
    assert!(config.auth_rules.is_empty());
    let kind = &config.servers[0].site.access.rules[0].auth[0].kind;
    assert_eq!(*kind, AuthKind::ClientCert { users: vec!["a b".into(), "c".into()] });
    let config = good(&server("auth = { type = \"None\"; };"));
    assert!(config.auth_rules.is_empty());
    assert_eq!(config.servers[0].site.access.rules[0].auth[0].kind, AuthKind::None);
}

/// What a path or a link does not set is that of the server.
#[test]
fn paths_and_links() {
    let config = good(&format!(
        "servers = ({{ document = {{ docroot = \"/w\"; }}; auth = {{ type = \"basic\"; file = \"/f\"; }};
         addresses = {{ allow = \"10.0.0.0/8\"; deny = (\"10.1.0.0/16\"); }};
         paths = ({{ path = \"^/open\"; auth = {{ type = \"none\"; }}; }}, {{ path = \"^/near\"; satisfy = \"any\"; }},
                  {{ path = \"^/far\"; addresses = {{ deny = \"unix:\"; }}; }});
         websocket = {{ links = ({{ origin = \"^/a\"; type = \"unix\"; destination = \"/a\"; }},
             {{ origin = \"^/b\"; type = \"unix\"; destination = \"/b\"; auth = ({{ type = \"bearer\"; tokens = \"/t\"; }}, {}); }}); }}; }},
         {{ port = 81; document = {{ docroot = \"/w\"; }}; auth = {{ type = \"basic\"; file = \"/f\"; }}; }});",
        "{ type = \"Basic\"; file = \"/f\"; }"
    ));
    let site = &config.servers[0].site;
    let [open, near, far, own] = &site.access.rules[..] else { panic!("{site:#?}") };
    assert!(open.path.as_ref().unwrap().matches("/open/x") && own.path.is_none());
    assert_eq!((&open.auth[0].kind, &open.addresses), (&AuthKind::None, &own.addresses));
    assert_eq!((near.satisfy, &near.auth, &near.addresses), (Satisfy::Any, &own.auth, &own.addresses));
    assert_eq!((far.satisfy, &far.auth), (Satisfy::All, &own.auth));
    let address = |text: &str| Address::Tcp(text.parse().unwrap());
    let addresses = own.addresses.as_ref().unwrap();
    assert!(addresses.admit(address("10.2.0.1:1")) && !addresses.admit(address("10.1.0.1:1")));
    assert!(!addresses.admit(address("192.0.2.1:1")) && far.addresses.as_ref().unwrap().admit(address("192.0.2.1:1")));
    let [inherits, has_own] = &site.links[..] else { panic!("{site:#?}") };
    assert!(inherits.access.is_none());
    let has_own = has_own.access.as_ref().unwrap();
    assert_eq!(has_own.auth.iter().map(|auth| &auth.kind).collect::<Vec<_>>(), [&AuthKind::Bearer, &AuthKind::Basic]);
    assert_eq!(has_own.addresses, own.addresses);
    // Equal rules are one, also those of another server.
    assert_eq!((own.auth[0].rule, has_own.auth[0].rule, has_own.auth[1].rule), (0, 1, 0));
    assert_eq!((config.auth_rules.len(), config.servers[1].site.access.rules[0].auth[0].rule), (2, 0));
    assert_eq!(config.auth_places[1], "f:6: servers[0].websocket.links[1].auth[0].tokens");
}

#[test]
fn filters_of_ouistiti() {
    let text = "auth = { type = \"basic\"; file = \"/f\"; }; clientfilter = { allow = \"127.*\"; deny = \"*\"; };
        userfilter = { dbname = \"/d\"; allow = \"^trust/,.jpg$\"; superuser = \"root\"; };";
    let config = good(&server(text));
    let access = &config.servers[0].site.access;
    let filter = access.filter.as_ref().unwrap();
    let address = |text: &str| Address::Tcp(text.parse().unwrap());
    assert!(filter.admits(address("127.0.0.1:1")) && !filter.admits(address("192.0.2.1:1")));
    let [free, own] = &access.rules[..] else { panic!("{access:#?}") };
    assert!(free.path.as_ref().unwrap().matches("/trust/x") && !free.path.as_ref().unwrap().matches("/x"));
    assert_eq!((free.auth[0].has_filter, own.auth[0].has_filter), (false, true));
    assert_eq!((free.spares_filter, own.spares_filter), (true, false));
    let filter = |auth: &Auth| config.auth_rules[auth.rule as usize].filter.clone();
    assert_eq!((filter(&free.auth[0]), filter(&own.auth[0])), (None, Some("/d".into())));
}

#[test]
fn mistakes_of_access() {
    let many: Vec<String> = (0..65).map(|number| format!("\"u{number}\"")).collect();
    let many = format!("auth = {{ type = \"basic\"; file = \"/f\"; users = ({}); }};", many.join(","));
    let basic = "type = \"basic\"; file = \"/f\";";
    for (settings, said) in [
        ("auth = { };", "servers[0].auth: type is missing: write type = VALUE;"),
        ("auth = ();", "servers[0].auth: is empty: write a value, or leave it out"),
        ("auth = 1;", "servers[0].auth: is an integer: write a group { } or a list of groups ( { }, { } )"),
        (
            "auth = { type = \"ntlm\"; };",
            "servers[0].auth.type: \"ntlm\" is not known: write one of basic, digest, bearer,",
        ),
        (
            "auth = { type = \"Basic\"; };",
            "servers[0].auth.type: \"basic\" needs users: write file = \"FILE\"; of htpasswd",
        ),
        ("auth = { type = \"basic\"; user = \"a\"; };", "servers[0].auth: passwd is missing: write passwd = VALUE;"),
        (
            "auth = { type = \"bearer\"; token = \"0123456789abcdef\"; };",
            "servers[0].auth: user is missing: write user",
        ),
        ("auth = { type = \"bearer\"; };", "servers[0].auth.type: \"bearer\" needs tokens: write tokens = \"FILE\";"),
        ("auth = { type = \"unix\"; };", "servers[0].auth.type: \"unix\" needs the server that decides: write path"),
        (
            "auth = { type = \"bearer\"; secret = \"0123456789abcdef0123456789abcdef\"; };",
            "servers[0].auth.secret: is not read here: write it to a file, and write key = \"FILE\"; algorithm = \"HS256\";",
        ),
        ("auth = { type = \"bearer\"; key = \"/k\"; keys = ({ file = \"/l\"; }); };", "key: keys is set too: keep one"),
        ("auth = { type = \"bearer\"; keys = ({ }); };", "servers[0].auth.keys[0]: file is missing"),
        (
            "auth = { type = \"bearer\"; key = \"/k\"; algorithm = \"none\"; };",
            "algorithm: \"none\" is not accepted: write",
        ),
        (
            "auth = { type = \"digest\"; file = \"/f\"; algorithm = \"SHA1\"; };",
            "\"SHA1\" is not served: write \"SHA-256\"",
        ),
        (
            "auth = { type = \"basic\"; file = \"/f\"; realm = \"a\\nb\"; };",
            "servers[0].auth.realm: is not a realm: write",
        ),
        (
            "auth = { type = \"cookie\"; tokens = \"/t\"; name = \"a b\"; };",
            "name: \"a b\" is not the name of a cookie",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; headers = \"a b\"; };",
            "headers: \"a b\" is not the name of a header",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; headers = \"Authorization\"; };",
            "\"Authorization\" is not passed on",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; users = \"a\"; };",
            "users: cannot be used with type = \"unix\": leave",
        ),
        (
            "auth = { type = \"clientcert\"; };",
            "type: \"clientcert\" needs the authorities of the clients' certificates",
        ),
        (&many, "servers[0].auth.users: has more than 64 elements: leave some out"),
        (
            &format!("auth = ({{ {basic} }}, {{ type = \"none\"; }});"),
            "servers[0].auth[1].type: \"none\" admits every client, whatever the other elements are: leave it out",
        ),
        (
            &format!("auth = ({{ {basic} }}, {{ {basic} options = \"token\"; }});"),
            "servers[0].auth[1].options: is not served: ouistiti needs all elements of auth, here one of them suffices",
        ),
        (
            "auth = { type = \"basic\"; file = \"shadow\"; };",
            "auth.file: is not served: passwords of this machine's users",
        ),
        (&format!("auth = {{ {basic} authz = \"totp\"; }};"), "auth.authz: is not served: one-time passwords are not"),
        (&format!("auth = {{ {basic} status = \"x\"; }};"), "auth.status: is not served: a user has no state"),
        (
            &format!("auth = {{ {basic} options = \"home\"; }};"),
            "options: is not served: each user may request the paths",
        ),
        (
            "addresses = { };",
            "servers[0].addresses: restricts nothing: write allow = \"NETWORK\"; or deny = \"NETWORK\";",
        ),
        (
            "addresses = { allow = \"10.0.0.1/8\"; };",
            "servers[0].addresses.allow: \"10.0.0.1/8\" has bits beyond its prefix",
        ),
        (
            "satisfy = \"any\";",
            "servers[0].satisfy: satisfy = \"any\" admits every client unless both auth and addresses",
        ),
        (
            "addresses = { allow = \"::1\"; }; satisfy = \"any\";",
            "servers[0].satisfy: satisfy = \"any\" admits every client",
        ),
        ("paths = ({ path = \"^/a\"; });", "servers[0].paths[0]: restricts nothing: write auth, addresses or satisfy"),
        (
            &format!("paths = ({{ auth = {{ {basic} }}; }});"),
            "servers[0].paths[0]: path is missing: write path = VALUE;",
        ),
        (
            &format!("paths = ({{ path = \" , \"; auth = {{ {basic} }}; }});"),
            "servers[0].paths[0].path: is empty: write",
        ),
        (
            "userfilter = { dbname = \"/d\"; };",
            "servers[0].userfilter: needs auth whose credentials name a user: basic",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; }; userfilter = { dbname = \"/d\"; };",
            "servers[0].userfilter: needs auth whose credentials name a user",
        ),
        (
            &format!("auth = {{ {basic} }}; userfilter = {{ }};"),
            "servers[0].userfilter: dbname is missing: write dbname = VALUE;",
        ),
        (
            "auth = { type = \"cookie\"; tokens = \"/t\"; }; websocket = { docroot = \"/d\"; origins = \"*\"; };",
            "servers[0].auth: origins of websocket is \"*\": the pages of every site could use the cookie: list the origins",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; headers = \"Cookie\"; }; websocket = { docroot = \"/d\"; origins = \"*\"; };",
            "servers[0].auth: origins of websocket is \"*\": the pages of every site could use the cookie: list the origins",
        ),
        (
            &format!(
                "auth = {{ {basic} recheck-ms = 9000; }}; websocket = {{ docroot = \"/d\"; options = \"direct\"; }};"
            ),
            "servers[0].auth: recheck-ms cannot be used with options = \"direct\", since backends have the clients'",
        ),
        (
            &format!("auth = {{ {basic} recheck-ms = 999; }};"),
            "servers[0].auth.recheck-ms: 999 ms is too short: write 0 or at least 1000",
        ),
        ("auht = { };", "servers[0].auht: unknown key: did you mean \"auth\"?"),
    ] {
        let problems = errors(&server(settings));
        let count = problems.iter().filter(|problem| problem.contains(said)).count();
        assert_eq!(count, 1, "{settings}: {problems:#?}");
    }
}

#[test]
fn warnings_about_access() {
    let basic = "type = \"basic\"; file = \"/f\";";
    let link = "websocket = { links = ({ origin = \"^/a\"; type = \"unix\"; destination = \"/a\";";
    let filtered = format!("auth = {{ {basic} }}; userfilter = {{ dbname = \"/d\"; }};");
    for (settings, said) in [
        (format!("auth = {{ {basic} token = \"x\"; }};"), "auth.token: has no effect with type = \"basic\""),
        (
            format!("auth = {{ {basic} protect = \"^/a\"; }};"),
            "auth.protect: has no effect without unprotect: all paths",
        ),
        (format!("auth = {{ {basic} options = \"cookie\"; }};"), "options: \"cookie\" is not served: clients send the"),
        (format!("auth = {{ {basic} secret = \"x\"; }};"), "auth.secret: is not served: no tokens are issued"),
        (format!("auth = {{ {basic} signin = \"/x\"; }};"), "auth.signin: is not served: clients without a credential"),
        ("auth = { type = \"none\"; user = \"www\"; };".to_owned(), "auth.user: has no effect with type = \"none\""),
        (
            format!("auth = {{ {basic} }}; unprotected = \"auth\";"),
            "servers[0].unprotected: auth is served: leave it out",
        ),
        ("unprotected = \"clientfilter\";".to_owned(), "unprotected: clientfilter protects nothing here: leave it out"),
        ("clientfilter = { allow = \"127.*\"; };".to_owned(), "clientfilter.allow: has no effect without deny: write"),
        (
            format!("auth = {{ {basic} }}; websocket = {{ docroot = \"/d\"; origins = \"*\"; }};"),
            "servers[0].auth: origins of websocket is \"*\": the pages of every site may connect with what the browser",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; }; websocket = { docroot = \"/d\"; origins = \"*\"; };"
                .to_owned(),
            "servers[0].auth: origins of websocket is \"*\": the pages of every site may connect with what the browser",
        ),
        (
            "auth = { type = \"unix\"; path = \"/s\"; cache-ms = 9; };".to_owned(),
            "servers[0].auth.cache-ms: has no effect with type = \"unix\"",
        ),
        (
            format!(
                "auth = {{ {basic} }}; {link} addresses = {{ deny = \"::1\"; }}; }}); }}; \
                 paths = ({{ path = \"^/a\"; auth = {{ {basic} groups = \"g\"; }}; }});"
            ),
            "servers[0].websocket.links[0].addresses: decides about the names of this link instead of paths",
        ),
        (
            format!("{filtered} paths = ({{ path = \"^/a\"; auth = {{ type = \"none\"; }}; }});"),
            "servers[0].paths[0].auth: userfilter does not hold here",
        ),
        (
            format!("{filtered} {link} auth = {{ type = \"unix\"; path = \"/s\"; }}; }}); }};"),
            "servers[0].websocket.links[0].auth: userfilter does not hold here",
        ),
        (
            format!(
                "trusted = \"127.0.0.1\"; auth = {{ {basic} }}; \
                 paths = ({{ path = \"^/a\"; addresses = {{ allow = (\"127.0.0.1\", \"::1\"); }}; satisfy = \"any\"; }});"
            ),
            "servers[0].paths[0].addresses: allow has 127.0.0.1, proxies of trusted: their requests need a credential",
        ),
        (
            format!(
                "trusted = \"unix:\"; auth = {{ {basic} }}; addresses = {{ allow = \"unix:\"; }}; \
                 paths = ({{ path = \"^/a\"; auth = {{ type = \"none\"; }}; }});"
            ),
            "servers[0].addresses: allow has unix:, proxies of trusted: every client has such an address if the proxy",
        ),
        (
            "trusted = \"127.0.0.1\"; clientfilter = { allow = \"127.*\"; deny = \"*\"; };".to_owned(),
            "servers[0].clientfilter: allow has 127.0.0.1, a proxy of trusted: every client has this address if",
        ),
        (
            format!("auth = {{ {basic} }}; userfilter = {{ dbname = \"/d\"; configuri = \"^/c\"; }};"),
            "userfilter.configuri: is not served: rules are not changed over HTTP",
        ),
    ] {
        let warnings = warnings(&server(&settings));
        assert!(warnings.len() == 1 && warnings[0].contains(said), "{settings}: {warnings:#?}");
    }
}

/// What caches keep of protected pages.
#[test]
fn warnings_about_caches() {
    let basic = "auth = { type = \"basic\"; file = \"/f\";";
    let header = |path: &str, value: &str| {
        format!("headers = ({{ path = \"{path}\"; name = \"cache-control\"; value = \"{value}\"; }});")
    };
    let lan = "addresses = { allow = \"10.0.0.0/8\"; };";
    for (document, settings, sample) in [
        (header("*", "max-age=60"), format!("{basic} }};"), Some("/xxx")),
        (header("*", "max-age=60"), lan.to_owned(), Some("/xxx")),
        (header("*", "max-age=60"), String::new(), None),
        (header("*", "max-age=60, Private"), format!("{basic} }};"), None),
        (header("*", "no-cache=\\\"x\\\""), format!("{basic} }};"), None),
        (header("*", "no-store"), lan.to_owned(), None),
        // What needs nothing may be kept.
        (header("^/assets/", "max-age=60"), format!("{basic} unprotect = \"^/assets/\"; }};"), None),
        (
            header("^/assets/", "max-age=60"),
            format!("{basic} }}; paths = ({{ path = \"^/assets/\"; auth = {{ type = \"none\"; }}; }});"),
            None,
        ),
        (header("^/assets/", "max-age=60"), format!("paths = ({{ path = \"^/admin/\"; {lan} }});"), None),
        (header("*", "max-age=60"), format!("paths = ({{ path = \"^/admin/\"; {lan} }});"), Some("/admin/x")),
        (header(".js$", "max-age=60"), format!("{basic} unprotect = \"^/assets/\"; }};"), Some("/x.js")),
        // The page of a folder alone needs something.
        (header("*", "max-age=60"), format!("paths = ({{ path = \"^/$\"; {lan} }});"), Some("/")),
        (header("*", "max-age=60"), format!("paths = ({{ path = \"^/a/$\"; {lan} }});"), Some("/a/")),
        (header("index.html$", "max-age=60"), format!("paths = ({{ path = \"^/a/$\"; {lan} }});"), Some("/a/")),
        (header(".js$", "max-age=60"), format!("paths = ({{ path = \"^/a/$\"; {lan} }});"), None),
        ("cache-control = \"max-age=60\";".to_owned(), lan.to_owned(), Some("/x")),
        ("cache-control = \"private, max-age=60\";".to_owned(), lan.to_owned(), None),
    ] {
        let text = server(&settings).replace("docroot = \"/w\";", &format!("docroot = \"/w\"; {document}"));
        let said = sample.map(|sample| {
            format!("servers[0].document: Cache-Control lets caches give pages such as {sample} to others, although")
        });
        let warnings = warnings(&text);
        assert_eq!(warnings.len(), usize::from(said.is_some()), "{text}: {warnings:#?}");
        assert!(said.is_none_or(|said| warnings[0].contains(&said)), "{text}: {warnings:#?}");
    }
}

/// What `unprotected` consents to.
#[test]
fn unserved_protections() {
    for (settings, said) in [
        (
            "auth = { type = \"oAuth2\"; }; unprotected = \"auth\";",
            "auth.type: is not served, as unprotected allows: neither",
        ),
        (
            "auth = { type = \"basic\"; file = \"shadow\"; }; unprotected = \"auth\";",
            "auth.file: is not served, as unprotected allows: passwords of this machine's users",
        ),
        (
            "userfilter = { dbname = \"/d\"; }; unprotected = \"userfilter\";",
            "userfilter: is not served, and the server is unprotected: it needs auth",
        ),
    ] {
        let loaded = load_text(&server(settings), &[]).unwrap();
        assert!(loaded.config.is_unprotected && loaded.config.auth_rules.is_empty(), "{settings}");
        assert!(loaded.config.servers[0].site.access.rules.is_empty(), "{settings}");
        let warnings: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
        let admits_all = "servers[0].auth: none of it is served: every client is admitted without a credential";
        let expected = if settings.contains("auth =") { &[said, admits_all][..] } else { &[said] };
        let is_said = warnings.iter().zip(expected).all(|(warning, said)| warning.contains(said));
        assert!(warnings.len() == expected.len() && is_said, "{settings}: {warnings:#?}");
    }
}

/// What is lost of an `auth` takes nothing else away.
#[test]
fn what_is_left_of_auth() {
    let file = || Source::PasswordFile("/f".into());
    let database = || Source::Database { path: "/d".into(), layout: None };
    for (lost, left) in [
        ("user = \"a\"; passwd = \"b\"; status = \"x\"; file = \"/f\";", vec![file()]),
        ("user = \"a\"; passwd = \"b\"; authz = \"totp\"; dbname = \"/d\";", vec![database()]),
        ("file = \"shadow\"; dbname = \"/d\";", vec![database()]),
        ("authz = \"unix\"; file = \"/f\";", vec![file()]),
    ] {
        let text = server(&format!("auth = {{ type = \"basic\"; {lost} }}; unprotected = \"auth\";"));
        let Loaded { config, warnings } = load_text(&text, &[]).unwrap();
        assert!(config.is_unprotected && warnings.len() == 1, "{lost}: {warnings:#?}");
        assert_eq!((&config.auth_rules[0].sources, config.auth_rules.len()), (&left, 1), "{lost}");
        assert_eq!(config.servers[0].site.access.rules[0].auth.len(), 1, "{lost}");
    }
    // A path or a link whose auth is lost has that of the server.
    let text = server(
        "auth = { type = \"basic\"; file = \"/f\"; }; unprotected = \"auth\";
         paths = ({ path = \"^/a\"; auth = { type = \"oAuth2\"; }; });
         websocket = { links = ({ origin = \"^/b\"; type = \"unix\"; destination = \"/b\"; auth = { type = \"wwwform\"; }; }); };",
    );
    let Loaded { config, warnings } = load_text(&text, &[]).unwrap();
    let site = &config.servers[0].site;
    let [path, own] = &site.access.rules[..] else { panic!("{site:#?}") };
    assert_eq!((&path.auth, &site.links[0].access.as_ref().unwrap().auth), (&own.auth, &own.auth));
    let kept = warnings.iter().filter(|warning| warning.to_string().ends_with("that of the server holds"));
    assert_eq!((own.auth.len(), kept.count(), warnings.len()), (1, 2, 4), "{warnings:#?}");
}

/// uakari-auth accepts no more.
#[test]
fn number_of_rules() {
    let paths = |server: usize, count: usize| {
        let auth = |rule| format!("{{ type = \"basic\"; file = \"/{server}-{rule}\"; }}");
        let path = |path| {
            let all: Vec<String> = (0..8).map(|number| auth(path * 8 + number)).collect();
            format!("{{ path = \"^/{path}$\"; auth = ({}); }}", all.join(", "))
        };
        let all: Vec<String> = (0..count).map(path).collect();
        let port = 80 + server;
        format!("{{ port = {port}; document = {{ docroot = \"/w\"; }}; paths = ({}); }}", all.join(", "))
    };
    let servers = |last| format!("servers = ({}, {}, {last});", paths(0, 64), paths(1, 64));
    let plain = "{ port = 82; document = { docroot = \"/w\"; }; }";
    assert_eq!(good(&servers(plain.to_owned())).auth_rules.len(), 1024);
    assert_eq!(errors(&servers(paths(2, 1))), ["f has 1032 different elements of auth: write at most 1024"]);
}

/// A UNIX server says itself how long its answers hold.
#[test]
fn answers_of_a_unix_server_are_not_remembered() {
    let (_, auth) = one("auth = { type = \"unix\"; path = \"/s\"; };");
    assert_eq!(auth.cache_ms, 0);
    let loaded = load_text(&server("auth = { type = \"unix\"; path = \"/s\"; cache-ms = 9; };"), &[]).unwrap();
    assert_eq!(loaded.config.servers[0].site.access.rules[0].auth[0].cache_ms, 0);
}
