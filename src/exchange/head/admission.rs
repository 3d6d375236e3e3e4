//! Requests that have to be admitted: what is asked, and what follows from the answers.

use std::path::Path;
use std::sync::Arc;

use auth_wire::{Credential, DigestAlgorithm, Verdict};

use super::tests::{Connection, HANDSHAKE, facts, logged, sent, site, sites};
use super::*;
use crate::access::{Access, AccessRule, Addresses, Ask, Auth, AuthKind, ClientFilter, NonceKey, Satisfy};
use crate::clients::Networks;
use crate::driver::{FileId, FileKind, OpenCause, OpenError, SystemError};
use crate::exchange::{Chunk, Progress};
use crate::limits;
use crate::route::names::Patterns;
use crate::route::{Protocol, Service, Site, Sites};
use crate::tls::ClientFacts;

/// "ann:secret".
const ANN: &str = "Authorization: Basic YW5uOnNlY3JldA==\r\n";

fn auth(kind: AuthKind) -> Auth {
    Auth::new(7, "R", kind)
}

fn basic() -> Vec<Auth> {
    vec![auth(AuthKind::Basic)]
}

fn cookie() -> Vec<Auth> {
    vec![auth(AuthKind::Cookie { name: "token".into() })]
}

fn digest() -> Vec<Auth> {
    vec![auth(AuthKind::Digest { opaque: "".into(), algorithm: DigestAlgorithm::Sha256 })]
}

fn query() -> Vec<Auth> {
    vec![auth(AuthKind::Query { name: "token".into() })]
}

fn rule(path: &str, auth: Vec<Auth>) -> AccessRule {
    AccessRule { path: (!path.is_empty()).then(|| Patterns::parse_paths(path)), auth, ..AccessRule::default() }
}

fn with_rules(rules: Vec<AccessRule>) -> Sites {
    let access = Access::new(None, rules);
    let mut sites = sites([Site { access, has_www: true, ..site("") }]);
    sites.generation = 3;
    sites
}

/// A connection, and what it has asked.
struct Client {
    connection: Connection,
    asked: Vec<Ask>,
    cancelled: usize,
    user: Option<String>,
    log: Vec<String>,
    warnings: Vec<String>,
    opened: Vec<String>,
    hello: Vec<String>,
}

impl Client {
    fn to(sites: Sites) -> Client {
        Client {
            connection: Connection::to(sites),
            asked: Vec::new(),
            cancelled: 0,
            user: None,
            log: Vec::new(),
            warnings: Vec::new(),
            opened: Vec::new(),
            hello: Vec::new(),
        }
    }

    fn from(mut self, address: &str) -> Client {
        self.connection.client = Address::Tcp(address.parse().unwrap());
        self
    }

    fn handle(&mut self, now_ms: u64, input: Input<'_>) -> String {
        self.handle_over(Security::Plain, now_ms, input)
    }

    fn handle_over(&mut self, security: Security<'_>, now_ms: u64, input: Input<'_>) -> String {
        let effects = self.connection.handle(now_ms, security, input);
        self.log.extend(logged(&effects).into_iter().map(str::to_owned));
        let bytes = sent(&effects).replace("Server: uakari\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "");
        for effect in effects {
            match effect {
                Effect::Ask(ask) => self.asked.push(*ask),
                Effect::CancelAsk => self.cancelled += 1,
                Effect::Admitted(admitted) => self.user = admitted.map(|admitted| admitted.user.to_string()),
                Effect::Open { path, .. } => self.opened.push(path.to_string_lossy().into_owned()),
                Effect::Hello(hello) => self.hello.push(format!("{hello:?}")),
                Effect::Log(Level::Warn, line) => self.warnings.push(line),
                Effect::Over(ending) => self.log.push(ending.to_string()),
                _ => {}
            }
        }
        bytes
    }

    fn receive(&mut self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        self.handle(1, Input::Bytes(End::Client, chunk))
    }

    fn answer(&mut self, verdict: Verdict) -> String {
        self.handle(2, Input::Answered(verdict))
    }

    /// No file and no backend has the name.
    fn not_found(&mut self) -> String {
        let error = OpenError { cause: OpenCause::NotFound, error: SystemError::BROKEN_PIPE };
        self.handle(3, Input::Opened(Err(error)))
    }

    fn progress(&self) -> Progress {
        self.connection.progress()
    }
}

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

fn allow(user: &str) -> Verdict {
    Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms: None, headers: Vec::new() }
}

fn allow_with(user: &str, header: &str) -> Verdict {
    let headers = header.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms: None, headers: headers.into_iter().collect() }
}

fn unavailable() -> Verdict {
    Verdict::Unavailable { sentence: "the helper has died".to_owned() }
}

/// Whether a request to these servers has to be admitted: it gets a 401 without a credential. Such a request opens no
/// file and no socket.
fn is_protected(sites: &Sites, request: &str) -> bool {
    let mut client = Client::to(sites.clone());
    let reply = client.receive(request);
    let is_refused = reply.starts_with("HTTP/1.1 401 ");
    assert!(!is_refused || client.opened.is_empty() && client.asked.is_empty(), "{request}");
    assert!(!reply.starts_with("HTTP/1.1 400 "), "{request}");
    is_refused
}

#[test]
fn every_way_to_a_protected_name_is_protected() {
    let sites = with_rules(vec![rule("^/admin", basic())]);
    for (path, expected) in [
        ("/admin", true),
        ("/admin/", true),
        ("/admin/x.html", true),
        ("/%61dmin", true),
        ("/%61%64%6d%69%6e/x", true),
        ("//admin", true),
        ("/./admin", true),
        ("/x/../admin", true),
        ("/x/%2e%2e/admin", true),
        ("/x%2f..%2fadmin", true),
        ("/..//../admin", true),
        ("/admin/../admin", true),
        ("/admin;x", true),
        ("/admin?x", true),
        ("/admin%20", true),
        ("/administrators", true),
        ("/admin/../public", false),
        ("/Admin", false),
        ("/ADMIN", false),
        ("/;/admin", false),
        ("/x;/admin", false),
        ("/public/admin", false),
        ("/%2561dmin", false),
        ("/\\admin", false),
        ("/", false),
    ] {
        for lines in ["", HANDSHAKE] {
            assert_eq!(is_protected(&sites, &get(path, lines)), expected, "{path} {lines}");
        }
        let absolute = get(&format!("http://h{path}"), "");
        assert_eq!(is_protected(&sites, &absolute), expected, "{path}");
        for method in ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PROPFIND", "get", "TRACE"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(is_protected(&sites, &request), expected, "{request}");
        }
    }
}

#[test]
fn pages_are_protected_by_the_file_that_is_served() {
    for (path, protected, open) in [
        ("^/index.html$", "/ /index.html /%69ndex.html /index.html.gz /index.html.br", "/index.htm /a /sub/"),
        ("^/$", "/ /. //", "/index.html /a"),
        // The reply to "/sub" may be the way to "/sub/".
        ("^/sub/", "/sub/ /sub/a /sub/index.html /sub//a /sub", "/subs/ /subs"),
        ("^/sub/index.html", "/sub/ /sub/index.html", "/sub /sub/a"),
        ("^/sub$", "/sub /sub/ //sub/ /sub/.", "/sub/index.html /sub/a"),
        ("^/sub/$", "/sub/ /sub", "/sub/index.html /sub/a/ /sub/a"),
        (".html$", "/ /a.html /sub/ /a.html.gz", "/a.css"),
        ("", "/ /a /sub/", ""),
    ] {
        let sites = with_rules(vec![rule(path, basic())]);
        for (list, expected) in [(protected, true), (open, false)] {
            for target in list.split(' ').filter(|target| !target.is_empty()) {
                assert_eq!(is_protected(&sites, &get(target, "")), expected, "{path}: {target}");
            }
        }
    }
}

/// Which rule of `auth_wire` a request is asked about. None: it is not.
fn asked_rule(sites: &Sites, request: &str) -> Option<u32> {
    let mut client = Client::to(sites.clone());
    client.receive(request);
    client.asked.first().map(|ask| ask.question.rule)
}

#[test]
fn each_name_of_a_request_counts() {
    // The index in the list is the rule that is asked about.
    let with = |paths: &[(&str, bool)]| {
        let rules = paths.iter().enumerate().map(|(index, (path, is_asked))| {
            let none = vec![auth(AuthKind::None)];
            let basic = vec![Auth { rule: index as u32, ..auth(AuthKind::Basic) }];
            rule(path, if *is_asked { basic } else { none })
        });
        with_rules(rules.collect())
    };
    for (paths, target, page, websocket) in [
        // The server's own rule, the last one here, matches each name.
        (&[(".gz$", true), ("", true)][..], "/backup.tar.gz", Some(0), Some(0)),
        (&[(".gz$", true), ("", true)], "/backup.tar", Some(1), Some(1)),
        (&[("^/admin/$", true), ("", true)], "/admin/", Some(0), Some(1)),
        (&[("^/admin/$", true)], "/admin/", Some(0), Some(0)),
        (&[("^/admin/$", true), ("", true)], "/admin", Some(1), Some(1)),
        (&[("^/admin/$", true)], "/admin", Some(0), None),
        (&[("^/admin/$", true), ("", true)], "/admin/index.html", Some(1), Some(1)),
        (&[("^/$", true), ("", true)], "/", Some(0), Some(0)),
        (&[("^/admin$", true), ("", true)], "/admin/", Some(0), Some(0)),
        (&[("^/admin$", true), ("^/x", true)], "/admin/", Some(0), Some(0)),
        (&[("^/admin/", true), ("", true)], "/admin", Some(1), Some(1)),
        // An exemption of one name is none of the others.
        (&[("^/dump$", false), ("", true)], "/dump.gz", Some(1), Some(1)),
        (&[("^/dump$", false), ("", true)], "/dump", None, None),
        (&[("^/dump", false), ("", true)], "/dump.gz", None, None),
        (&[("^/dump.gz$", false), ("", true)], "/dump.gz", Some(1), None),
        (&[("^/a/$", false), ("", true)], "/a/", Some(1), Some(1)),
        (&[("^/a/index.html$", false), ("", true)], "/a/", Some(1), Some(1)),
        (&[("^/a$", false), ("", true)], "/a/", Some(1), None),
        (&[("^/a$", false), ("^/a/", true), ("", true)], "/a/", Some(1), None),
        (&[("^/a$", false), ("^/a/", true), ("", true)], "/a", None, None),
        // What an exemption precedes does not count.
        (&[("^/a/", false), ("^/a$", true), ("", true)], "/a/", None, Some(1)),
        (&[("^/a/", false), ("", true)], "/a/", None, Some(1)),
        (&[("^/a/", false), ("*", true)], "/a/", None, Some(1)),
    ] {
        for (lines, expected) in [("", page), (HANDSHAKE, websocket)] {
            let request = get(target, &format!("{ANN}{lines}"));
            assert_eq!(asked_rule(&with(paths), &request), expected, "{paths:?} {target} {lines}");
        }
    }
    // The addresses of a rule are a need, unless nothing follows from them.
    let addresses = || Some(Addresses::default());
    let none = || vec![auth(AuthKind::None)];
    for (satisfy, auth, is_exempt) in [
        (Satisfy::All, Vec::new(), false),
        (Satisfy::All, none(), false),
        (Satisfy::Any, Vec::new(), false),
        (Satisfy::Any, none(), true),
    ] {
        let own = AccessRule { addresses: addresses(), satisfy, ..rule(".gz$", auth.clone()) };
        let sites = with_rules(vec![own, rule("", basic())]);
        let asked = asked_rule(&sites, &get("/a.gz", ANN));
        assert_eq!(asked, is_exempt.then_some(7), "{satisfy:?} {auth:?}");
    }
}

/// `auth` that asks about this rule of `auth_wire`.
fn of_rule(rule: u32) -> Vec<Auth> {
    vec![Auth { rule, ..auth(AuthKind::Basic) }]
}

/// No name that a request does not have makes its need weaker, nor does another name than that of the file.
#[test]
fn the_rule_of_the_own_name_decides() {
    for (weak, strong, target, is_websocket) in [
        ("/$", "^/admin/", "/admin/secret.txt", false),
        ("/$", "^/admin/", "/admin/", false),
        ("/$", "", "/secret.txt", false),
        ("/$", "", "/ops/", true),
        ("^/admin/$", "^/admin", "/admin/", true),
        ("^/admin/$", "", "/admin/", true),
        ("^/admin/$", "", "/admin", false),
        ("^/admin/$", "/admin$", "/admin", false),
        ("^/admin$", "^/admin/", "/admin/", false),
        (".tar$", ".gz$", "/x.tar.gz", false),
        (".tar$", ".br$", "/x.tar.br", false),
        ("^/$", "^/index.html$", "/", false),
        // Nothing else is stronger than these.
        ("", "^/admin$", "/admin/", false),
        ("", ".tar$", "/x.tar.gz", false),
        ("", "^/admin/$", "/admin/", false),
    ] {
        let rules = [rule(weak, of_rule(1)), rule(strong, of_rule(2))];
        let is_server = |rule: &AccessRule| rule.path.is_none();
        for mut rules in [rules.clone().to_vec(), rules.into_iter().rev().collect()] {
            // That of the server is always the last one.
            rules.sort_by_key(is_server);
            let lines = if is_websocket { HANDSHAKE } else { "" };
            let asked = asked_rule(&with_rules(rules.clone()), &get(target, &format!("{ANN}{lines}")));
            assert_eq!(asked, Some(2), "{rules:?} {target} {lines}");
        }
    }
}

/// The rule of a derived name, the content of a file or a folder without its slash, replaces none of the server's.
#[test]
fn the_rule_of_a_derived_name_is_one_more() {
    let mut networks = Networks::default();
    networks.add("10.0.0.0/8").unwrap();
    let local = |satisfy, auth| AccessRule {
        addresses: Some(Addresses { allow: networks.clone(), deny: Networks::default() }),
        satisfy,
        ..rule("^/a$", auth)
    };
    let (any, all) = (local(Satisfy::Any, of_rule(1)), local(Satisfy::All, Vec::new()));
    let (near, far) = ("10.0.0.1:5", "192.0.2.1:5");
    for (own, server, target, from, asked, refused) in [
        (any.clone(), of_rule(2), "/a/", near, &[2][..], ""),
        (any.clone(), of_rule(2), "/a.gz", near, &[2], ""),
        (any.clone(), of_rule(2), "/a.br", far, &[1, 2], ""),
        (any.clone(), of_rule(2), "/a/", far, &[1, 2], ""),
        // Its own name.
        (any.clone(), of_rule(2), "/a", near, &[], ""),
        (any.clone(), of_rule(2), "/a", far, &[1], ""),
        (any.clone(), Vec::new(), "/a/", near, &[], ""),
        (any, Vec::new(), "/a/", far, &[1], ""),
        (all.clone(), of_rule(2), "/a/", near, &[2], ""),
        (all, of_rule(2), "/a/", far, &[], "403"),
        (rule("^/a$", of_rule(1)), of_rule(2), "/a/", near, &[1, 2], ""),
        (rule("^/a$", vec![auth(AuthKind::None)]), of_rule(2), "/a/", near, &[2], ""),
        (rule("^/a$", of_rule(1)), cookie(), "/a/", near, &[], "401"),
        (rule("^/a$", cookie()), of_rule(2), "/a/", near, &[], "401"),
    ] {
        let what = format!("{own:?} {server:?} {target} {from}");
        let mut client = Client::to(with_rules(vec![own, rule("", server)])).from(from);
        let reply = client.receive(&get(target, ANN));
        if !refused.is_empty() {
            assert!(reply.starts_with(&format!("HTTP/1.1 {refused} ")) && client.asked.is_empty(), "{what}: {reply}");
            // Of both, since both are needed.
            assert_eq!(
                reply.matches("WWW-Authenticate").count(),
                if refused == "401" { 2 } else { 0 },
                "{what}: {reply}"
            );
            continue;
        }
        for rule in asked {
            assert!(client.opened.is_empty(), "{what}");
            assert_eq!(client.answer(allow_with(&format!("user{rule}"), "X-A: b")), "", "{what}");
        }
        let rules: Vec<u32> = client.asked.iter().map(|ask| ask.question.rule).collect();
        assert_eq!((&rules[..], client.opened.len()), (asked, 1), "{what}");
        // The user is that of the rule of the own names.
        let user = asked.last().map(|rule| format!("user{rule}"));
        assert_eq!(client.user, user, "{what}");
        let reply = client.not_found() + &client.not_found();
        assert_eq!(reply.matches("X-A: b\r\n").count(), asked.len(), "{what}: {reply}");
    }
    // Each of them refuses.
    for (verdicts, asked, status) in [
        (vec![Verdict::Deny], 1, 401),
        (vec![allow_with("ann", "X-A: b"), Verdict::Forbidden], 2, 403),
        (vec![allow_with("ann", "X-A: b"), Verdict::Deny], 2, 401),
        (vec![allow_with("ann", "X-A: b"), unavailable()], 2, 503),
    ] {
        let mut client = Client::to(with_rules(vec![rule("^/a$", of_rule(1)), rule("", of_rule(2))]));
        client.receive(&get("/a/", ANN));
        let reply: String = verdicts.iter().map(|verdict| client.answer(verdict.clone())).collect();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{verdicts:?}: {reply}");
        assert!(client.asked.len() == asked && client.opened.is_empty() && client.user.is_none(), "{verdicts:?}");
    }
    // A certificate, and a password.
    let certificate = || vec![auth(AuthKind::ClientCert { users: Vec::new() })];
    let own = ClientFacts { common_name: "cert".into(), ..ClientFacts::default() };
    let facts = TlsFacts { client: Some(own), ..facts(0, "") };
    for (path, server, user) in [(of_rule(1), certificate(), "cert"), (certificate(), of_rule(2), "ann")] {
        let mut client = Client::to(with_rules(vec![rule("^/a$", path), rule("", server)]));
        let mut bytes = get("/a/", ANN).into_bytes();
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        client.handle_over(Security::Tls(&facts), 1, Input::Bytes(End::Client, chunk));
        assert_eq!(client.handle_over(Security::Tls(&facts), 2, Input::Answered(allow("ann"))), "");
        assert_eq!((client.asked.len(), client.opened.len(), client.user.as_deref()), (1, 1, Some(user)));
    }
}

/// An `auth` that protects one name is no alternative to that of another.
#[test]
fn alternatives_of_other_names_do_not_count() {
    let protecting = |rule: u32, path: &str| Auth {
        rule,
        protect: Some(Patterns::parse_paths(path)),
        unprotect: Some(Patterns::parse_paths("*")),
        ..auth(AuthKind::Bearer)
    };
    for (weak, strong, target) in [
        ("^/dump$", "^/dump.gz$", "/dump.gz"),
        ("^/a$", "^/a/index.html$", "/a/"),
        ("^/a/$", "^/a/index.html$", "/a/"),
        ("^/a/$", "^/a$", "/a"),
    ] {
        let sites = with_rules(vec![rule("", vec![protecting(1, weak), protecting(2, strong)])]);
        assert_eq!(asked_rule(&sites, &get(target, "Authorization: Bearer x\r\n")), Some(2), "{weak} {strong}");
    }
}

/// `allow` of a userfilter is an exemption from it: each name has to match.
#[test]
fn paths_that_are_not_filtered() {
    for (paths, target, page, websocket) in [
        ("/$", "/admin/secret.txt", 2, 2),
        ("/$", "/admin", 2, 2),
        ("/$", "/admin/", 2, 2),
        ("^/$,^/index.html$", "/", 1, 1),
        ("^/pub/", "/pub/a", 1, 1),
        ("^/pub/", "/pub/", 1, 2),
        ("^/pub/", "/pub", 2, 2),
        ("^/pub$", "/pub/", 2, 1),
        (".gz$", "/x.gz", 2, 1),
        ("^/x", "/x.gz", 1, 1),
        ("^/x$", "/x.gz", 2, 2),
        ("^/own", "/own", 0, 0),
    ] {
        let spared = AccessRule { spares_filter: true, ..rule(paths, of_rule(1)) };
        let sites = with_rules(vec![rule("^/own$", of_rule(0)), spared, rule("", of_rule(2))]);
        for (lines, expected) in [("", page), (HANDSHAKE, websocket)] {
            let asked = asked_rule(&sites, &get(target, &format!("{ANN}{lines}")));
            assert_eq!(asked, Some(expected), "{paths} {target} {lines}");
        }
    }
}

/// A precompressed file is protected too if it is sent in place of a page.
#[test]
fn variants_that_need_more_are_not_sent() {
    let filtered = || vec![Auth { has_filter: true, ..auth(AuthKind::Basic) }];
    let none = || vec![auth(AuthKind::None)];
    for (rules, deny, opened) in [
        (Vec::new(), "", "db.sql.br db.sql.gz db.sql"),
        (vec![rule(".gz$", basic())], "", "db.sql.br db.sql"),
        (vec![rule(".br$", basic())], "", "db.sql.gz db.sql"),
        (vec![rule(".gz$", basic()), rule("", basic())], "", "db.sql.br db.sql"),
        (vec![rule(".gz$,.br$", basic()), rule("", basic())], "", "db.sql"),
        (vec![rule("", basic())], "", "db.sql.br db.sql.gz db.sql"),
        (vec![rule("^/db.sql", basic()), rule("", basic())], "", "db.sql.br db.sql.gz db.sql"),
        // Of their own they need what the server's rule does.
        (vec![rule("^/db.sql$", basic()), rule("", basic())], "", "db.sql"),
        (vec![rule("^/db.sql$", basic())], "", "db.sql.br db.sql.gz db.sql"),
        // An exemption of the page is none of its variants.
        (vec![rule("^/db.sql$", none()), rule("", basic())], "", "db.sql"),
        (vec![rule("^/db.sql", none()), rule("", basic())], "", "db.sql.br db.sql.gz db.sql"),
        // The decision was about the path in the request.
        (vec![rule("", filtered())], "", "db.sql"),
        (Vec::new(), ".gz$", "db.sql.br db.sql"),
        (vec![rule(".br$", basic())], ".gz$", "db.sql"),
    ] {
        let mut sites = with_rules(rules.clone());
        let mut site = Site::clone(sites.get(0));
        site.page_rules.deny = Patterns::parse_paths(deny);
        sites = Sites::new(std::sync::Arc::new(site), Vec::new());
        let mut client = Client::to(sites);
        client.receive(&get("/db.sql", &format!("Accept-Encoding: br, gzip\r\n{ANN}")));
        if client.progress() == Progress::Asking {
            client.answer(allow("ann"));
        }
        while client.not_found().is_empty() {}
        // The last look-up is that of a backend.
        assert_eq!(client.opened.join(" "), format!("{opened} db.sql"), "{rules:?} {deny}");
    }
}

/// A WebSocket for a name that one rule has admitted is not for a name that another rule protects.
#[test]
fn a_slash_and_a_subprotocol() {
    for (protected, path, opened) in [("^/f$", "/f/", "f"), ("^/f$", "/f", "f"), ("^/f/$", "/f/", "f f/admin")] {
        let sites = with_rules(vec![rule(protected, of_rule(1)), rule("", basic())]);
        let mut client = Client::to(sites.clone());
        client.receive(&get(path, &format!("{HANDSHAKE}Sec-WebSocket-Protocol: admin\r\n{ANN}")));
        client.answer(allow("ann"));
        client.handle(3, Input::Opened(Ok(FileKind::Folder)));
        assert_eq!(client.opened.join(" "), opened, "{protected} {path}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let none = || vec![auth(AuthKind::None)];
    let sites = with_rules(vec![rule("^/public/", none()), rule("^/open$", Vec::new()), rule("", basic())]);
    for (path, expected) in [
        ("/public/a", false),
        ("/public/../a", true),
        ("/a/../public/a", false),
        ("/public/", false),
        ("/public", true),
        ("/open", false),
        // The page of the folder is another file.
        ("/open/", true),
        ("/a", true),
    ] {
        assert_eq!(is_protected(&sites, &get(path, "")), expected, "{path}");
    }
    let sites = with_rules(vec![rule("", basic()), rule("^/public/", none())]);
    assert!(is_protected(&sites, &get("/public/a", "")), "the rule after it does not count");
}

#[test]
fn lists_of_unprotected_paths() {
    let lists = |protect: &str, unprotect: &str| {
        let list = |text: &str| (!text.is_empty()).then(|| Patterns::parse_paths(text));
        let auth = Auth { protect: list(protect), unprotect: list(unprotect), ..auth(AuthKind::Basic) };
        with_rules(vec![rule("", vec![auth])])
    };
    for (protect, unprotect, protected, open) in [
        ("", "", "/ /a", ""),
        ("^/a", "", "/ /a /b", ""),
        ("", "^/pub/", "/ /a /pub /~ann/ /~ann", "/pub/a /pub/"),
        ("^/pub/secret", "^/pub/", "/pub/secret /pub/secret/x /pub/x/../secret", "/pub/a"),
        ("", "*", "/~ann/a /~/", "/ /a"),
        ("*", "*", "/ /a", ""),
        ("^/admin$", "*", "/admin /admin/", "/admin/index.html /admin/a"),
        ("^/admin/$", "*", "/admin /admin/", "/admin/index.html /admins"),
        ("", "^/$", "/", "/x/.."),
        ("", "^/$,^/index.html$", "/a", "/"),
    ] {
        let sites = lists(protect, unprotect);
        for (list, expected) in [(protected, true), (open, false)] {
            for target in list.split(' ').filter(|target| !target.is_empty() && *target != "/x/..") {
                let found = is_protected(&sites, &get(target, ""));
                assert_eq!(found, expected, "{protect} but {unprotect}: {target}");
            }
        }
    }
}

#[test]
fn links_have_rules_of_their_own() {
    let link = |name: &str, access| crate::route::Link {
        origin: Patterns::parse(name),
        destination: crate::route::Destination::Unix("/s".into()),
        service: std::sync::Arc::default(),
        access,
    };
    let links = vec![
        link("^/own$", Some(rule("", basic()))),
        link("^/open$", Some(rule("", Vec::new()))),
        link("^/as-server$", None),
    ];
    for (rules, protected) in [(Vec::new(), "/own"), (vec![rule("", basic())], "/own /as-server")] {
        let access = Access::new(None, rules.clone());
        let sites = sites([Site { access, links: links.clone(), ..site("") }]);
        for name in ["/own", "/open", "/as-server"] {
            let expected = protected.split(' ').any(|protected| protected == name);
            assert_eq!(is_protected(&sites, &get(name, HANDSHAKE)), expected, "{name}");
            assert_eq!(is_protected(&sites, &get(name, "")), !rules.is_empty(), "a page: {name}");
        }
    }
}

/// The rules hold for the name that is served, not for that of the folder.
#[test]
fn subprotocols_lead_to_no_protected_name() {
    let unprotected = Auth { unprotect: Some(Patterns::parse_paths("^/$,^/f$")), ..auth(AuthKind::Basic) };
    let filtered = Auth { has_filter: true, ..auth(AuthKind::Basic) };
    let unix = auth(AuthKind::Unix { server: Path::new("/s").into(), headers: Vec::new() });
    for (rules, path, is_asked, opened) in [
        (Vec::new(), "/", false, "admin other"),
        (vec![rule("^/admin", basic())], "/", false, "other"),
        (vec![rule("^/admin", basic()), rule("", basic())], "/", true, "other"),
        (vec![rule("", basic())], "/", true, "admin other"),
        (vec![rule("^/$", basic())], "/", true, "admin other"),
        (vec![rule("", vec![unprotected])], "/", false, ""),
        // The decision was about the path in the request.
        (vec![rule("", vec![filtered])], "/", true, ""),
        (vec![rule("", vec![unix])], "/", true, ""),
        (vec![rule("^/f/admin", basic())], "/f", false, "f f/other"),
    ] {
        let mut client = Client::to(with_rules(rules.clone()));
        let lines = format!("{HANDSHAKE}Sec-WebSocket-Protocol: admin, other\r\n{ANN}");
        let mut reply = client.receive(&get(path, &lines));
        assert_eq!(client.progress() == Progress::Asking, is_asked, "{rules:?}");
        if is_asked {
            reply = client.answer(allow("ann"));
        }
        if path == "/f" {
            client.handle(3, Input::Opened(Ok(FileKind::Folder)));
        }
        while client.progress() == Progress::Opening {
            reply = client.not_found();
        }
        assert_eq!(client.opened.join(" "), opened, "{rules:?}");
        let is_denied = !opened.contains("admin");
        assert!(reply.starts_with(if is_denied { "HTTP/1.1 403 " } else { "HTTP/1.1 404 " }), "{rules:?}: {reply}");
    }
}

#[test]
fn a_request_goes_on_after_its_answer() {
    for lines in [HANDSHAKE, ""] {
        for is_head in [false, true] {
            if is_head && !lines.is_empty() {
                continue;
            }
            let mut client = Client::to(with_rules(vec![rule("", basic())]));
            let request = get("/a?q=1", &format!("{ANN}{lines}"));
            let request = if is_head { request.replace("GET", "HEAD") } else { request };
            // In two pieces.
            let (one, two) = request.split_at(20);
            assert_eq!(client.receive(one) + &client.receive(two), "");
            assert_eq!(client.progress(), Progress::Asking);
            let question = &client.asked[0].question;
            assert_eq!((question.generation, question.rule, &*question.host), (3, 7, "h"));
            assert_eq!((&*question.path, &*question.query, &*question.address), ("/a", "q=1", ""));
            assert_eq!(question.method, if is_head { "HEAD" } else { "GET" });
            let Credential::Password { user, password } = &question.credential else { panic!() };
            assert_eq!((&**user, password.reveal()), ("ann", "secret"));
            let shown = format!("{:?}", client.connection.exchange);
            assert!(!shown.contains("secret") && !shown.contains("YW5u"), "{shown}");
            assert!(client.opened.is_empty(), "nothing is opened before");
            assert_eq!(client.answer(allow("ann")), "");
            assert_eq!((client.user.as_deref(), client.opened.join(" ")), (Some("ann"), "a".to_owned()));
            let expected = if lines.is_empty() { Progress::Reply } else { Progress::Opening };
            assert_eq!(client.progress(), expected);
        }
    }
}

#[test]
fn answers() {
    let wait = Verdict::Limited { wait_ms: 1_001 };
    let expired = Verdict::Allow { user: "ann".to_owned(), groups: Vec::new(), until_ms: Some(0), headers: Vec::new() };
    let refused = Verdict::Refused { reason: "the token has another issuer".to_owned() };
    for lines in [HANDSHAKE, ""] {
        for (verdict, status, field) in [
            (Verdict::Deny, 401, "WWW-Authenticate: Basic realm=\"R\", charset=\"UTF-8\"\r\n"),
            (refused.clone(), 401, "WWW-Authenticate: Basic realm=\"R\", charset=\"UTF-8\"\r\n"),
            (expired.clone(), 401, "WWW-Authenticate: Basic realm=\"R\""),
            (Verdict::Forbidden, 403, ""),
            (wait.clone(), 429, "Retry-After: 2\r\n"),
            (unavailable(), 503, "Retry-After: 5\r\n"),
        ] {
            let mut client = Client::to(with_rules(vec![rule("", basic())])).from("192.0.2.1:5");
            client.receive(&get("/a", &format!("{ANN}{lines}")));
            let reply = client.answer(verdict.clone());
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")) && reply.contains(field), "{reply}");
            assert_eq!(reply.contains("WWW-Authenticate"), status == 401, "{reply}");
            assert!(client.opened.is_empty() && client.user.is_none(), "{verdict:?}");
            // A page's connection stays open, that of a handshake does not: frames may follow.
            let connection = if lines.is_empty() { "keep-alive\r\n" } else { "close\r\n" };
            assert!(reply.contains(&format!("Connection: {connection}")), "{reply}");
            let (log, verdict) = (client.log.join("\n"), format!("{verdict:?}"));
            assert!(log.contains(&format!("refused with {status}")) && log.contains("192.0.2.1"), "{log}");
            assert_eq!(log.contains("the helper has died"), verdict.contains("died"), "{log}");
            assert_eq!(log.contains("the token has another issuer"), verdict.contains("issuer"), "{log}");
            assert!(client.warnings.is_empty(), "strangers cause no warnings: {:?}", client.warnings);
            assert!(!log.contains("secret") && !log.contains("YW5u"), "{log}");
        }
    }
}

#[test]
fn a_refused_request_leaves_the_next_one_alone() {
    let mut client = Client::to(with_rules(vec![rule("^/admin", basic())]));
    // The body is not the next request.
    let body = "GET /b HTTP/1.1\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", body.len());
    let reply = client.receive(&(get("/admin", &length).replace("GET", "POST") + body + &get("/admin/2", ANN)));
    assert!(reply.starts_with("HTTP/1.1 401 ") && reply.contains("Connection: keep-alive"), "{reply}");
    assert_eq!(client.handle(2, Input::Drained), "");
    assert_eq!((client.progress(), &*client.asked[0].question.path), (Progress::Asking, "/admin/2"));
    client.answer(allow("ann"));
    assert_eq!((client.opened.join(" "), client.user.as_deref()), ("admin/2".to_owned(), Some("ann")));
    client.not_found();
    client.not_found();
    client.handle(3, Input::Drained);
    assert_eq!(client.user.as_deref(), Some("ann"), "for the log, if the connection ends here");
    client.receive(&get("/free", ""));
    assert_eq!(client.user, None, "the next request is not that of ann");
}

/// What comes after the request of a user may be that of another client.
#[test]
fn an_invalid_request_is_not_that_of_the_user_before() {
    for (text, status) in [
        ("\0", "400"),
        ("GET /b HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET /b HTTP/1.1\r\nHost : h\r\n", "400"),
        ("GET /b HT", "408"),
    ] {
        let mut client = Client::to(with_rules(vec![rule("", basic())]));
        client.receive(&get("/a", ANN));
        client.answer(allow("ann"));
        client.not_found();
        client.not_found();
        client.handle(3, Input::Drained);
        assert_eq!((client.user.as_deref(), client.progress()), (Some("ann"), Progress::Request));
        let mut reply = client.receive(text);
        if status == "408" {
            assert_eq!(client.user.as_deref(), Some("ann"), "{text}");
            let deadline_ms = client.connection.exchange.wants().deadline_ms.unwrap();
            reply = client.handle(deadline_ms, Input::Deadline);
        }
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{text}: {reply}");
        assert_eq!(client.user, None, "{text}");
    }
}

/// The time of the question was not that of the body.
#[test]
fn a_body_after_an_answer_has_its_own_time() {
    for verdict in [allow("ann"), Verdict::Deny] {
        let mut client = Client::to(with_rules(vec![rule("", basic())]));
        client.receive(&get("/a", &format!("{ANN}Content-Length: 5\r\n")).replace("GET", "POST"));
        let asked_ms = client.connection.exchange.wants().deadline_ms;
        client.handle(9_000, Input::Answered(verdict.clone()));
        let deadline_ms = client.connection.exchange.wants().deadline_ms;
        assert_eq!(asked_ms, Some(1 + limits::AUTH_MS), "{verdict:?}");
        assert_eq!(deadline_ms, Some(9_000 + limits::HEAD_MS.default), "{verdict:?}");
    }
}

#[test]
fn pipelined_requests_wait() {
    let mut client = Client::to(with_rules(vec![rule("", basic())]));
    client.receive(&(get("/1", ANN) + &get("/2", "") + "GET /3 HT"));
    assert_eq!((client.asked.len(), client.progress()), (1, Progress::Asking));
    assert_eq!(client.receive("TP/1.1\r\n"), "");
    assert_eq!(client.asked.len(), 1, "the second request is not looked at");
    client.answer(allow("ann"));
    client.not_found();
    let reply = client.not_found();
    assert!(reply.contains("404"), "{reply}");
    let reply = client.handle(4, Input::Drained);
    assert!(reply.starts_with("HTTP/1.1 401 "), "the second request has no credential: {reply}");
    assert!(client.user.is_none());
    client.handle(5, Input::Drained);
    client.receive(&format!("Host: h\r\n{ANN}\r\n"));
    assert_eq!((client.asked.len(), &*client.asked[1].question.path), (2, "/3"));
}

#[test]
fn a_body_waits_too() {
    let mut client = Client::to(with_rules(vec![rule("", basic())]));
    client.receive(&(get("/a", &format!("{ANN}Content-Length: 5\r\n")).replace("GET", "POST") + "he"));
    assert_eq!(client.progress(), Progress::Asking);
    client.receive("llo");
    let reply = client.answer(allow("ann")) + &client.receive(&get("/b", ""));
    assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
    assert!(client.handle(3, Input::Drained).starts_with("HTTP/1.1 401 "));
}

#[test]
fn ends_while_the_answer_is_awaited() {
    type Happening = fn(&mut Client) -> String;
    let happenings: [(Happening, &str, &str); 4] = [
        (|client| client.handle(2, Input::Ended(End::Client)), "", "the client left before"),
        (|client| client.handle(2, Input::Failed(End::Client, SystemError::BROKEN_PIPE)), "", "broke"),
        (|client| client.handle(1 + limits::AUTH_MS, Input::Deadline), "HTTP/1.1 503 ", "in time"),
        (|client| client.handle(2, Input::Stop), "HTTP/1.1 503 ", ""),
    ];
    for (happening, reply, line) in happenings {
        for lines in [HANDSHAKE, ""] {
            let mut client = Client::to(with_rules(vec![rule("", basic())]));
            client.receive(&get("/a", &format!("{ANN}{lines}")));
            let deadline_ms = client.connection.exchange.wants().deadline_ms;
            assert_eq!(deadline_ms, Some(1 + limits::AUTH_MS));
            let sent = happening(&mut client);
            assert!(sent.starts_with(reply) && sent.is_empty() == reply.is_empty(), "{sent}");
            assert_eq!(client.cancelled, 1, "{sent}");
            assert!(client.log.join("\n").contains(line), "{:?}", client.log);
            // The answer was on its way.
            assert_eq!(client.answer(allow("ann")), "");
            assert!(client.user.is_none() && client.opened.is_empty(), "{sent}");
        }
    }
}

/// Neither an attempt that failed nor anything that the operator has to mend: clients can cause as many as they like.
#[test]
fn too_many_others_wait() {
    for lines in [HANDSHAKE, ""] {
        let mut client = Client::to(with_rules(vec![rule("", [basic(), basic()].concat())]));
        client.receive(&get("/a", &format!("{ANN}{lines}")));
        let effects = client.connection.handle(2, Security::Plain, Input::TooManyAsked);
        assert!(sent(&effects).starts_with("HTTP/1.1 503 "), "{effects:?}");
        assert!(logged(&effects).contains(&"no decision about a request: too many passwords wait"), "{effects:?}");
        assert_eq!(client.asked.len(), 1, "the second alternative would have to wait too");
    }
    for (error, level) in [
        (AccessError::Busy, Level::Info),
        (AccessError::Limited(1), Level::Info),
        (AccessError::Unavailable, Level::Warn),
    ] {
        assert_eq!(Ending::Access(error).level(), level, "{error}");
    }
}

#[test]
fn alternatives_are_asked_one_after_the_other() {
    let two = || {
        let (mut one, mut two) = (auth(AuthKind::Basic), auth(AuthKind::Basic));
        (one.rule, two.rule) = (1, 2);
        with_rules(vec![rule("", vec![one, two, auth(AuthKind::Bearer), auth(AuthKind::Cookie { name: "c".into() })])])
    };
    for (verdicts, asked, status) in [
        (vec![allow("ann")], 1, 0),
        (vec![Verdict::Deny, allow("ann")], 2, 0),
        (vec![unavailable(), allow("ann")], 2, 0),
        (vec![Verdict::Deny, Verdict::Deny], 2, 401),
        (vec![Verdict::Forbidden, Verdict::Deny], 2, 403),
        (vec![Verdict::Deny, Verdict::Forbidden], 2, 403),
        (vec![unavailable(), Verdict::Forbidden], 2, 503),
        (vec![Verdict::Limited { wait_ms: 1 }], 1, 429),
    ] {
        let mut client = Client::to(two());
        client.receive(&get("/a", ANN));
        let reply: String = verdicts.iter().map(|verdict| client.answer(verdict.clone())).collect();
        let rules: Vec<u32> = client.asked.iter().map(|ask| ask.question.rule).collect();
        assert_eq!(rules, [1, 2][..asked], "{verdicts:?}");
        match status {
            0 => assert!(reply.is_empty() && client.user.as_deref() == Some("ann"), "{reply}"),
            status => assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}"),
        }
    }
    let mut client = Client::to(two());
    let reply = client.receive(&get("/a", ""));
    for challenge in ["Basic realm=\"R\", charset=\"UTF-8\"", "Bearer realm=\"R\"", "Cookie realm=\"R\""] {
        assert_eq!(reply.matches(&format!("WWW-Authenticate: {challenge}\r\n")).count(), 1, "{reply}");
    }
    let mut client = Client::to(two());
    client.receive(&get("/a", "Authorization: bEARER x.y\r\nCookie: c=z\r\n"));
    client.answer(Verdict::Deny);
    let reply = client.answer(Verdict::Deny);
    let tokens: Vec<_> = client.asked.iter().map(|ask| ask.question.credential.clone()).collect();
    assert_eq!(tokens, [Credential::Token("x.y".into()), Credential::Token("z".into())]);
    assert!(reply.contains("Bearer realm=\"R\", error=\"invalid_token\"\r\n"), "{reply}");
}

#[test]
fn credentials_that_are_not_asked_about() {
    let long = "x".repeat(limits::CREDENTIAL_SIZE_MAX + 1);
    let (long_field, long_cookie) = (format!("Authorization: Bearer {long}\r\n"), format!("Cookie: token={long}\r\n"));
    let long_query = format!("/a?token={}", &long[..8_000]);
    let bearer = || vec![auth(AuthKind::Bearer)];
    for (auths, path, lines, status) in [
        (basic(), "/a", "", 401),
        (basic(), "/a", "Authorization: Bearer x\r\n", 401),
        (basic(), "/a", "Authorization: Basic eA==\r\n", 400),
        (basic(), "/a", "Authorization: Basic\r\n", 400),
        (basic(), "/a", "Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\n", 401),
        (basic(), "/a", "Authorization_: Basic YW5uOnNlY3JldA==\r\n", 401),
        (basic(), "/a", &format!("{ANN}{ANN}"), 400),
        (basic(), "/a", &format!("{ANN}Authorization: Bearer x\r\n"), 400),
        (bearer(), "/a", ANN, 401),
        (bearer(), "/a", "Authorization: Bearer a b\r\n", 400),
        (bearer(), "/a?access_token=x", "", 401),
        (bearer(), "/a", &long_field, 431),
        (cookie(), "/a", "", 401),
        (cookie(), "/a?token=x", "", 401),
        (cookie(), "/a", "Cookie: token=x; token=y\r\n", 400),
        (cookie(), "/a", "Cookie: token=x\r\nCookie: token=y\r\n", 400),
        (cookie(), "/a", "Cookie: token=\r\n", 401),
        (cookie(), "/a", &long_cookie, 431),
        // Only the kinds that are asked for are read.
        (cookie(), "/a", &format!("{ANN}{ANN}"), 401),
        (query(), "/a", "Cookie: token=x\r\n", 401),
        (query(), "/a?token=x&token=y", "", 400),
        (query(), "/a?Token=x", "", 401),
        (query(), "/a?x=token=x", "", 401),
        (query(), &long_query, "", 0),
        (vec![auth(AuthKind::ClientCert { users: Vec::new() })], "/a", ANN, 403),
        (vec![auth(AuthKind::Digest { opaque: "".into(), algorithm: DigestAlgorithm::Sha256 })], "/a", ANN, 401),
    ] {
        let mut client = Client::to(with_rules(vec![rule("", auths.clone())]));
        let reply = client.receive(&get(path, lines));
        match status {
            0 => assert_eq!((client.progress(), &*reply), (Progress::Asking, "")),
            status => {
                assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{auths:?} {path} {lines}: {reply}");
                assert!(client.asked.is_empty() && client.opened.is_empty());
            }
        }
    }
}

#[test]
fn tokens_in_cookies_and_queries() {
    let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln-_";
    for (auths, path, lines, public) in [
        (cookie(), "/ws?a=1".to_owned(), format!("Cookie: a=b; token={jwt}\r\n"), "a=1"),
        (cookie(), "/ws".to_owned(), format!("Cookie: token=\"{jwt}\"\r\nCookie: token={jwt}\r\n"), ""),
        (query(), format!("/ws?a=1&token={jwt}&b=2"), String::new(), "a=1&b=2"),
        (query(), format!("/ws?%74%6Fken={jwt}"), String::new(), ""),
        (query(), format!("/ws?token={jwt}&a&token={jwt}"), String::new(), "a"),
    ] {
        let mut sites = with_rules(vec![rule("", auths)]);
        let service = crate::route::Service { hello: true, ..Default::default() };
        sites = Sites::new(Arc::new(Site { service: Arc::new(service), ..Site::clone(sites.get(0)) }), Vec::new());
        let mut client = Client::to(sites);
        client.receive(&get(&path, &format!("{HANDSHAKE}{lines}")));
        assert_eq!(client.asked[0].question.credential, Credential::Token(jwt.into()), "{path}");
        assert_eq!(client.asked[0].question.query, public, "{path}");
        client.answer(Verdict::Allow {
            user: "ann".to_owned(),
            groups: ["a", "b,c", "d"].map(str::to_owned).into(),
            until_ms: None,
            headers: Vec::new(),
        });
        let id = FileId::default();
        client.handle(3, Input::Opened(Ok(FileKind::Socket(id))));
        client.handle(3, Input::Connected(Ok(())));
        let hello = client.hello.join("");
        assert!(hello.contains(&format!("query: {public:?}")), "{hello}");
        assert!(hello.contains("user: \"ann\", groups: \"a,d\""), "{hello}");
        assert!(!hello.contains(jwt) && !client.log.join("").contains(jwt), "{hello}");
        assert_eq!(client.progress(), Progress::Relay);
    }
}

#[test]
fn a_refused_target_is_logged_without_its_token() {
    let mut client = Client::to(with_rules(vec![rule("", query())]));
    let reply = client.receive("GET /a?token=secret HTTP/1.1\r\nHost: a b\r\n\r\n");
    let log = client.log.join(" ");
    assert!(reply.starts_with("HTTP/1.1 400 ") && log.contains("the request target \"/a\""), "{reply} {log}");
    assert!(!log.contains("secret"), "{log}");
}

/// All that an entry of the table of questions holds is counted.
#[test]
fn the_size_of_what_waits() {
    let (mut one, mut two) = (auth(AuthKind::Basic), auth(AuthKind::Basic));
    (one.rule, two.rule) = (1, 2);
    let cookie = auth(AuthKind::Cookie { name: "c".into() });
    let sites = with_rules(vec![rule("", vec![one, two, cookie])]);
    let held_size = |lines: &str| {
        let mut client = Client::to(sites.clone());
        client.receive(&get("/a", lines));
        client.connection.exchange.wants().held_size
    };
    let cookie = |size: usize| format!("Cookie: c={}\r\n", "x".repeat(size));
    // The head, and the token in the question.
    assert!(held_size(&cookie(4_000)) >= held_size(&cookie(1)) + 2 * 3_999);
    assert!(held_size(&format!("{ANN}{}", cookie(4_000))) >= held_size(&format!("{ANN}{}", cookie(1))) + 2 * 3_999);
}

#[test]
fn digest_needs_a_nonce_of_ours() {
    let sites = with_rules(vec![rule("", digest())]);
    let line = |nonce: &str, uri: &str| {
        format!(
            "Authorization: Digest username=\"ann\", realm=\"R\", nonce=\"{nonce}\", uri=\"{uri}\", \
             algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"c\", response=\"0a\"\r\n"
        )
    };
    let nonce = NonceKey::fixed().nonce("R", 0);
    for (nonce, uri, expected) in [
        (&*nonce, "/a?x=1", ""),
        (&nonce, "/a", "stale-less"),
        (&nonce, "/", "stale-less"),
        ("0000000000000000", "/a?x=1", "stale=true"),
    ] {
        let mut client = Client::to(sites.clone());
        let reply = client.receive(&get("/a?x=1", &line(nonce, uri)));
        match expected {
            "" => assert!(matches!(client.asked[0].question.credential, Credential::Digest(_)), "{reply}"),
            expected => {
                assert!(reply.starts_with("HTTP/1.1 401 ") && client.asked.is_empty(), "{uri}: {reply}");
                assert_eq!(reply.contains("stale=true"), expected == "stale=true", "{reply}");
                // A browser whose nonce is too old has not failed.
                assert_eq!(client.log.join(" ").contains("refused with 401"), expected != "stale=true", "{reply}");
            }
        }
    }
}

/// A made-up nonce hides no guess of another credential.
#[test]
fn a_wrong_token_beside_an_old_nonce() {
    let auths = [digest(), cookie()].concat();
    let mut client = Client::to(with_rules(vec![rule("", auths)]));
    let response = "Authorization: Digest username=\"ann\", realm=\"R\", nonce=\"0000000000000000\", uri=\"/a\", \
                    algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"c\", response=\"0a\"\r\n";
    client.receive(&get("/a", &format!("{response}Cookie: token=guess\r\n")));
    assert_eq!(client.asked.len(), 1);
    let reply = client.answer(Verdict::Deny);
    assert!(reply.starts_with("HTTP/1.1 401 ") && reply.contains("stale=true"), "{reply}");
    assert!(client.log.join(" ").contains("refused with 401: the credential is not valid; the client is"));
}

#[test]
fn certificates() {
    let kind = |users: &[&str]| AuthKind::ClientCert { users: users.iter().map(|user| (*user).into()).collect() };
    let certificate = |name: &str| ClientFacts { common_name: name.into(), ..ClientFacts::default() };
    for (users, client, user) in [
        (&[][..], Some("ann"), Some("ann")),
        (&["ann", "bob"], Some("bob"), Some("bob")),
        (&["bob"], Some("ann"), None),
        (&["ann"], Some("ann\0"), None),
        (&[], Some(""), Some("")),
        (&[""], Some(""), None),
        (&[], None, None),
    ] {
        let sites = with_rules(vec![rule("", vec![auth(kind(users))])]);
        let facts = TlsFacts { client: client.map(certificate), ..facts(0, "") };
        let mut client = Client::to(sites);
        let mut bytes = get("/a", "").into_bytes();
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        let reply = client.handle_over(Security::Tls(&facts), 1, Input::Bytes(End::Client, chunk));
        assert_eq!(client.user.as_deref(), user, "{users:?} {facts:?}");
        assert_eq!(reply.starts_with("HTTP/1.1 403 "), user.is_none(), "{reply}");
        assert!(client.asked.is_empty());
        // Only who has shown something is logged, with the status of the reply.
        let is_logged = user.is_none() && facts.client.is_some();
        assert_eq!(client.log.join(" ").contains("refused with 403: this user may not"), is_logged, "{:?}", client.log);
        assert!(!client.log.join(" ").contains("401"), "{:?}", client.log);
    }
    // Beside another credential, for which a client can be asked.
    let sites = with_rules(vec![rule("", [vec![auth(kind(&["bob"]))], basic()].concat())]);
    let facts = TlsFacts { client: Some(certificate("ann")), ..facts(0, "") };
    let mut bytes = get("/a", HANDSHAKE).into_bytes();
    let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
    let mut client = Client::to(sites);
    let reply = client.handle_over(Security::Tls(&facts), 1, Input::Bytes(End::Client, chunk));
    assert!(reply.starts_with("HTTP/1.1 401 ") && client.log.join(" ").contains("refused with 401"), "{reply}");
}

/// The line and the ending have the status of the reply.
#[test]
fn handshakes_without_a_certificate() {
    let sites = with_rules(vec![rule("", vec![auth(AuthKind::ClientCert { users: Vec::new() })])]);
    let mut client = Client::to(sites);
    let reply = client.receive(&get("/a", HANDSHAKE));
    client.handle(2, Input::Ended(End::Client));
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    assert_eq!(client.log, ["refused with 403: a certificate of the client is needed"]);
}

#[test]
fn addresses_and_credentials() {
    let mut local = Networks::default();
    local.add("10.0.0.0/8").unwrap();
    let addresses = || Some(Addresses { allow: local.clone(), deny: Networks::default() });
    for (satisfy, auth, address, lines, expected) in [
        (Satisfy::All, Vec::new(), "10.0.0.1:5", "", "served"),
        (Satisfy::All, Vec::new(), "192.0.2.1:5", "", "403"),
        (Satisfy::All, basic(), "10.0.0.1:5", "", "401"),
        (Satisfy::All, basic(), "10.0.0.1:5", ANN, "asked"),
        (Satisfy::All, basic(), "192.0.2.1:5", ANN, "403"),
        (Satisfy::Any, Vec::new(), "192.0.2.1:5", "", "403"),
        (Satisfy::Any, basic(), "10.0.0.1:5", "", "served"),
        (Satisfy::Any, basic(), "192.0.2.1:5", "", "401"),
        (Satisfy::Any, basic(), "192.0.2.1:5", ANN, "asked"),
        (Satisfy::Any, basic(), "[::ffff:10.0.0.1]:5", "", "served"),
    ] {
        for more in ["", HANDSHAKE] {
            let own = AccessRule { addresses: addresses(), satisfy, ..rule("", auth.clone()) };
            let mut client = Client::to(with_rules(vec![own])).from(address);
            let reply = client.receive(&get("/a", &format!("{lines}{more}")));
            let found = match client.progress() {
                Progress::Asking => "asked",
                _ if reply.is_empty() => "served",
                _ => reply.split(' ').nth(1).unwrap(),
            };
            assert_eq!(found, expected, "{satisfy:?} {auth:?} {address} {lines}");
        }
    }
}

#[test]
fn a_filter_closes_the_connection() {
    let filter = || Access::new(Some(ClientFilter::new("127.*", "*")), Vec::new());
    for (address, is_open) in [("127.0.0.1:5", true), ("192.0.2.1:5", false), ("[::1]:5", false)] {
        for security in [Security::Plain, Security::Handshaking] {
            let mut client = Client::to(sites([Site { access: filter(), ..site("") }])).from(address);
            assert_eq!(client.handle_over(security, 1, Input::Accepted), "");
            assert_eq!(client.progress() == Progress::Request, is_open, "{address}");
            assert_eq!(client.log.join("").contains("clientfilter"), !is_open);
        }
        // Another server of the address takes it: the name in the request decides.
        let two = sites([Site { access: filter(), ..site("a") }, site("b")]);
        for (host, is_served) in [("a", is_open), ("b", true)] {
            let mut client = Client::to(two.clone()).from(address);
            client.handle(1, Input::Accepted);
            assert_eq!(client.progress(), Progress::Request);
            let reply = client.receive(&get("/x", "").replace("Host: h", &format!("Host: {host}")));
            assert_eq!(reply.starts_with("HTTP/1.1 403 "), !is_served, "{reply}");
        }
    }
}

#[test]
fn a_unix_server_gets_the_credential() {
    let sites =
        with_rules(vec![rule("", vec![auth(AuthKind::Unix { server: Path::new("/s").into(), headers: Vec::new() })])]);
    let password = || Credential::Password { user: "ann".to_owned(), password: "secret".into() };
    for (lines, expected) in [
        ("", Ok(Credential::None)),
        (ANN, Ok(password())),
        ("authorization: bASIC YW5uOnNlY3JldA==\r\n", Ok(password())),
        ("Authorization: Bearer x.y\r\n", Ok(Credential::Token("x.y".into()))),
        ("Authorization: Negotiate abc\r\n", Ok(Credential::None)),
        ("Authorization: Digest username=\"ann\"\r\n", Ok(Credential::None)),
        ("Authorization: Basic x\r\n", Err(400)),
        ("Authorization: Bearer a b\r\n", Err(400)),
        (&format!("{ANN}{ANN}"), Err(400)),
    ] {
        for (address, shown) in [(None, ""), (Some("192.0.2.1:5"), "192.0.2.1")] {
            let mut client = Client::to(sites.clone());
            client = if let Some(address) = address { client.from(address) } else { client };
            let reply = client.receive(&get("/a", lines));
            match &expected {
                Ok(credential) => {
                    let question = &client.asked[0].question;
                    assert_eq!((&question.credential, &*question.address), (credential, shown), "{lines}");
                }
                Err(status) => {
                    assert!(client.asked.is_empty() && reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
                }
            }
        }
    }
}

#[test]
fn a_unix_server_is_asked_without_a_credential() {
    let headers = ["authorization", "x-team"].map(Into::into).into();
    let sites = with_rules(vec![rule("", vec![auth(AuthKind::Unix { server: Path::new("/s").into(), headers })])]);
    let mut client = Client::to(sites.clone());
    client.receive(&get("/a/", "X-Team: one\r\nX-Team: two\r\nCookie: c\r\n"));
    let question = &client.asked[0].question;
    assert_eq!((&question.credential, &*question.path), (&Credential::None, "/a/index.html"));
    let headers: Vec<_> = question.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(headers, ["x-team=one", "x-team=two"]);
    let verdict = Verdict::Allow {
        user: String::new(),
        groups: Vec::new(),
        until_ms: None,
        headers: [
            ("Set-Cookie", "a=b"),
            ("X-A", "1\r\nX-B: 2"),
            ("Content-Length", "5"),
            ("transfer-encoding", "chunked"),
            ("a b", "c"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    };
    client.answer(verdict);
    client.not_found();
    let reply = client.not_found();
    assert!(reply.starts_with("HTTP/1.1 404 ") && reply.contains("\r\nSet-Cookie: a=b\r\n"), "{reply}");
    assert!(!reply.contains("X-") && !reply.contains("chunked") && !reply.contains("a b"), "{reply}");
    assert_eq!(reply.matches("Content-Length").count(), 1, "{reply}");
    let many = "X-Team: ".to_owned() + &"x".repeat(9_000) + "\r\n";
    let mut sites = sites;
    let mut own = Site::clone(sites.get(0));
    own.limits.head_size_max = 60_000;
    sites = Sites::new(Arc::new(own), Vec::new());
    let mut client = Client::to(sites);
    assert!(client.receive(&get("/a", &(many.clone() + &many))).starts_with("HTTP/1.1 431 "));
}

/// A WebSocket whose client was admitted by this answer.
fn relay(recheck_ms: u64, until_ms: Option<u64>) -> Client {
    relay_of(Protocol::Stream, recheck_ms, until_ms)
}

/// The same with a backend that speaks this protocol.
fn relay_of(protocol: Protocol, recheck_ms: u64, until_ms: Option<u64>) -> Client {
    let rules = vec![rule("", vec![Auth { recheck_ms, ..auth(AuthKind::Basic) }])];
    let access = Access::new(None, rules);
    let service = Arc::new(Service { protocol, ..Service::default() });
    let mut client = Client::to(sites([Site { access, service, ..site("") }]));
    client.receive(&get("/ws", &format!("{ANN}{HANDSHAKE}")));
    client.answer(Verdict::Allow { user: "ann".to_owned(), groups: Vec::new(), until_ms, headers: Vec::new() });
    client.handle(2, Input::Opened(Ok(FileKind::Socket(FileId::default()))));
    client.handle(2, Input::Connected(Ok(())));
    assert_eq!(client.progress(), Progress::Relay);
    client
}

/// The code and the reason of the close frame among these bytes.
fn close_frame(effects: Vec<Effect>) -> Option<(u16, String)> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::SendLast { to: End::Client, bytes } => {
            let code = u16::from_be_bytes([bytes[2], bytes[3]]);
            Some((code, String::from_utf8_lossy(&bytes[4..]).into_owned()))
        }
        _ => None,
    })
}

#[test]
fn a_websocket_is_closed_when_its_permission_ends() {
    let mut client = relay(0, Some(10_000));
    assert_eq!(client.connection.exchange.wants().deadline_ms, Some(2 + 10_000));
    let effects = client.connection.handle(2 + 10_000, Security::Plain, Input::Deadline);
    assert_eq!(close_frame(effects), Some((1008, "credentials expired".to_owned())));
    let mut client = relay(0, None);
    let deadline_ms = client.connection.exchange.wants().deadline_ms;
    assert_eq!(deadline_ms, Some(2 + limits::PING_MS.default), "only that of its pings");
    let effects = client.connection.handle(3, Security::Plain, Input::Revoked);
    assert_eq!(close_frame(effects), Some((1008, "access revoked".to_owned())));
    assert_eq!(client.progress(), Progress::Closing);
}

#[test]
fn a_websocket_is_asked_about_again() {
    for (verdict, closed) in [
        (allow("ann"), None),
        (Verdict::Deny, Some((1008, "access revoked".to_owned()))),
        (Verdict::Forbidden, Some((1008, "access revoked".to_owned()))),
        (allow("bob"), Some((1008, "access revoked".to_owned()))),
        (Verdict::Limited { wait_ms: 1 }, None),
        (unavailable(), None),
    ] {
        let (mut client, now_ms) = rechecked();
        let effects = client.connection.handle(now_ms, Security::Plain, Input::Answered(verdict.clone()));
        assert_eq!(close_frame(effects), closed, "{verdict:?}");
        let next_ms = if verdict != allow("ann") { limits::AUTH_RETRY_MS } else { 1_000 };
        if closed.is_none() {
            let deadline_ms = client.connection.exchange.wants().deadline_ms.unwrap();
            assert!(deadline_ms.abs_diff(now_ms + next_ms) <= next_ms / 5, "{deadline_ms}");
        }
        let effects = client.connection.handle(now_ms, Security::Plain, Input::Answered(Verdict::Deny));
        assert_eq!(close_frame(effects), None, "nothing was asked");
    }
    // The client leaves meanwhile.
    let (mut client, now_ms) = rechecked();
    client.handle(now_ms, Input::Ended(End::Client));
    assert_eq!(client.cancelled, 1);
}

/// A backend that speaks frames gets the code of the client's close frame.
#[test]
fn a_backend_is_told_why_its_client_is_closed() {
    let ended = |client: &mut Client, input| client.connection.handle(3, Security::Plain, input);
    let closed = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::SendLast { to: End::Backend, bytes } => Some(bytes.to_vec()),
            _ => None,
        })
    };
    for (protocol, input, code) in [
        (Protocol::Frames, Input::Revoked, Some(1008)),
        (Protocol::Frames, Input::RulesLeft, Some(1012)),
        (Protocol::Stream, Input::Revoked, None),
    ] {
        let mut client = relay_of(protocol, 0, None);
        let frame = code.map(|code: u16| [&[0x88, 2], &code.to_be_bytes()[..]].concat());
        assert_eq!(closed(ended(&mut client, input)), frame, "{code:?}");
    }
}

/// A WebSocket whose credential is being verified again, and the time.
fn rechecked() -> (Client, u64) {
    let mut client = relay(1_000, None);
    let deadline_ms = client.connection.exchange.wants().deadline_ms.unwrap();
    assert!((802..=1_202).contains(&deadline_ms), "{deadline_ms}");
    client.handle(deadline_ms, Input::Deadline);
    assert!(client.asked.len() == 2 && client.asked[1].is_recheck);
    (client, deadline_ms)
}

#[test]
fn reloads_have_replaced_the_rules() {
    let (mut client, now_ms) = rechecked();
    let effects = client.connection.handle(now_ms, Security::Plain, Input::RulesLeft);
    assert_eq!(close_frame(effects), Some((1012, "the configuration has changed: connect again".to_owned())));
    // A request: its client learns from the end of the connection that it has to connect again.
    let mut client = Client::to(with_rules(vec![rule("", basic())]));
    client.receive(&get("/a", ANN));
    assert_eq!(client.progress(), Progress::Asking);
    client.connection.sites.replace();
    let reply = client.handle(2, Input::RulesLeft);
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("\r\nConnection: close\r\n"), "{reply}");
    // A handshake on a connection that was kept open, also if it needs no credential.
    for rules in [vec![rule("", basic())], Vec::new()] {
        let mut client = Client::to(with_rules(rules));
        client.receive(&get("/a", "").replace("GET", "OPTIONS"));
        client.handle(2, Input::Drained);
        client.connection.sites.replace();
        let reply = client.receive(&get("/a", &format!("{ANN}{HANDSHAKE}")));
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("\r\nConnection: close\r\n"), "{reply}");
        assert!(client.asked.is_empty() && client.opened.is_empty(), "{reply}");
    }
    // One that is served by the rules before: also those of a page that is refused.
    for (lines, status) in [("", "401"), (ANN, "404")] {
        for is_replaced in [false, true] {
            let mut client = Client::to(with_rules(vec![rule("", basic())]));
            let mut reply = client.receive(&get("/a", lines));
            if is_replaced {
                client = Client::to(with_rules(vec![rule("", basic())]));
                client.connection.sites.replace();
                reply = client.receive(&get("/a", lines));
            }
            if status == "404" {
                client.answer(allow("ann"));
                client.not_found();
                reply = client.not_found();
            }
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
            assert_eq!(reply.contains("\r\nConnection: close\r\n"), is_replaced, "{reply}");
        }
    }
}
