//! The first request of a connection: deadlines, hosts, redirections, and what TLS changes.

use std::sync::Arc;

use super::*;
use crate::exchange::{Chunk, Effects, Exchange, Progress, Surroundings};
use crate::http::date::Date;
use crate::http::redirect::Redirect;
use crate::limits;
use crate::route::{Site, Sites};

/// A connection to these servers.
pub(super) struct Connection {
    pub(super) exchange: Exchange,
    pub(super) sites: Sites,
    pub(super) date: Date,
    pub(super) effects: Effects,
    pub(super) client: Address,
}

impl Connection {
    pub(super) fn to(sites: Sites) -> Connection {
        let (date, effects) = (Date::default(), Effects::default());
        Connection { exchange: Exchange::default(), sites, date, effects, client: Address::Unix }
    }

    /// Handles an input; returns the effects.
    pub(super) fn handle(&mut self, now_ms: u64, security: Security<'_>, input: Input<'_>) -> Vec<Effect> {
        let (date, sites) = (&self.date, &self.sites);
        let client = self.client;
        let around = Surroundings { now_ms, since_ms: now_ms, security, client, ..Surroundings::plain(date, sites) };
        self.exchange.handle(around, input, &mut self.effects);
        self.effects.drain().collect()
    }

    /// The bytes that are sent after a request. They contain neither the name of the server nor a date.
    pub(super) fn answer(&mut self, security: Security<'_>, request: &str) -> String {
        let mut bytes = request.as_bytes().to_vec();
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        let effects = self.handle(1, security, Input::Bytes(End::Client, chunk));
        sent(&effects).replace("Server: uakari\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "")
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.exchange.wants().deadline_ms
    }

    pub(super) fn progress(&self) -> Progress {
        self.exchange.wants().progress
    }
}

pub(super) fn sent(effects: &[Effect]) -> String {
    let bytes = effects.iter().flat_map(|effect| match effect {
        Effect::Send { to: End::Client, bytes } => bytes.to_vec(),
        _ => Vec::new(),
    });
    String::from_utf8(bytes.collect()).unwrap()
}

pub(super) fn logged(effects: &[Effect]) -> Vec<&str> {
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::Log(Level::Info, line) => Some(line.as_str()),
        _ => None,
    });
    lines.collect()
}

pub(super) fn sites(all: impl IntoIterator<Item = Site>) -> Sites {
    let mut all = all.into_iter().map(Arc::new);
    Sites::new(all.next().unwrap(), all.collect())
}

pub(super) fn site(hostname: &str) -> Site {
    Site { hostname: (!hostname.is_empty()).then(|| hostname.into()), has_docroot: true, ..Site::default() }
}

pub(super) fn facts(site: u16, sni: &str) -> TlsFacts {
    TlsFacts { site, sni: sni.into(), ..TlsFacts::default() }
}

pub(super) const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn the_tls_handshake_has_a_deadline_of_its_own() {
    let limits = limits::Http { tls_ms: 700, head_ms: 300, ..limits::Http::default() };
    let mut first = site("a");
    first.limits = limits.clone();
    let mut second = site("b");
    second.limits = limits::Http { head_ms: 400, ..limits };
    let sites = sites([first, second]);

    let mut slow = Connection::to(sites.clone());
    slow.handle(1000, Security::Handshaking, Input::Accepted);
    assert_eq!(slow.deadline_ms(), Some(1700));
    let effects = slow.handle(1700, Security::Handshaking, Input::Deadline);
    assert!(matches!(effects[..], [Effect::Over(Ending::TimedOut(Step::Tls))]), "{effects:?}");

    // The head has its own time after the handshake, that of the server that SNI named.
    let (first, second) = (facts(0, "a"), facts(1, "b"));
    for (facts, deadline_ms) in [(&first, 1800), (&second, 1900)] {
        let mut client = Connection::to(sites.clone());
        client.handle(1000, Security::Handshaking, Input::Accepted);
        client.handle(1500, Security::Tls(facts), Input::Secured);
        assert_eq!(client.deadline_ms(), Some(deadline_ms));
        let effects = client.handle(deadline_ms, Security::Tls(facts), Input::Deadline);
        assert!(matches!(effects[..], [Effect::Over(Ending::TimedOut(Step::Request))]), "{effects:?}");
    }

    let mut plain = Connection::to(sites);
    plain.handle(1000, Security::Plain, Input::Accepted);
    assert_eq!(plain.deadline_ms(), Some(1300));
}

#[test]
fn plain_http_on_a_tls_port_is_400() {
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "G", "POST /x HT", "\r\n\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut client = Connection::to(sites([Site { has_hsts: true, ..site("") }]));
        client.handle(1, Security::Handshaking, Input::Accepted);
        let reply = client.answer(Security::HttpOnTlsPort, request);
        assert!(reply.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?}: {reply}");
        assert!(
            reply.ends_with("\r\n\r\n400 Bad Request: this port speaks TLS: write https:// or wss://\n"),
            "{reply}"
        );
        assert!(reply.contains("\r\nConnection: close\r\n") && !reply.contains("Strict"), "{reply}");
        assert_eq!((client.progress(), client.exchange.facts().status), (Progress::Closing, 400));
    }
}

/// RFC 9110 section 15.5.20: the certificate that the client verified is not that of the server that Host names.
#[test]
fn a_host_of_another_server_than_the_sni_is_421() {
    let (first, second, none) = (facts(0, "a"), facts(1, "b"), facts(0, ""));
    for (facts, host, is_right) in [
        (&first, "a", true),
        (&first, "A:8443", true),
        // The first server answers for unknown names, as SNI and as Host.
        (&none, "192.0.2.1", true),
        (&first, "unknown", true),
        (&none, "a", true),
        (&first, "b", false),
        (&none, "b", false),
        (&second, "b", true),
        (&second, "b.:1", true),
        (&second, "a", false),
        (&second, "unknown", false),
    ] {
        for more in ["", HANDSHAKE] {
            let mut client = Connection::to(sites([site("a"), site("b")]));
            let reply = client.answer(Security::Tls(facts), &format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"));
            assert_eq!(
                reply.starts_with("HTTP/1.1 421 Misdirected Request\r\n"),
                !is_right,
                "{facts:?} {host}: {reply}"
            );
            assert_eq!(client.progress() == Progress::Closing, !is_right, "{facts:?} {host}");
        }
    }
    let mut client = Connection::to(sites([site("a"), site("b")]));
    let mut bytes = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n".to_vec();
    let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
    let effects = client.handle(1, Security::Tls(&first), Input::Bytes(End::Client, chunk));
    assert_eq!(logged(&effects), ["refused: Host is \"b\", the server name of the TLS handshake \"a\""]);
}

#[test]
fn origins_over_tls_are_those_of_https() {
    let tls = facts(0, "");
    for (security, origin, is_allowed) in [
        (Security::Plain, "http://h", true),
        (Security::Plain, "https://h", true),
        (Security::Tls(&tls), "https://h", true),
        (Security::Tls(&tls), "http://h", false),
    ] {
        let mut client = Connection::to(sites([site("")]));
        let request = format!("GET /x HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n{HANDSHAKE}\r\n");
        let reply = client.answer(security, &request);
        assert_eq!(reply.starts_with("HTTP/1.1 403 "), !is_allowed, "{security:?} {origin}: {reply}");
        assert_eq!(client.progress() == Progress::Opening, is_allowed, "{security:?} {origin}");
    }
}

/// The host and the port are tested in `http::redirect`.
#[test]
fn requests_are_redirected_to_https() {
    let redirect = |host: Option<&str>| Some(Redirect { host: host.map(Into::into), port: 8443 });
    let any = || sites([Site { redirect: redirect(None), has_www: true, ..site("") }]);
    let moved = |status, location: &str, connection| {
        format!(
            "HTTP/1.1 {status}\r\nLocation: https://{location}\r\nCache-Control: no-cache\r\n\
             Content-Length: 0\r\nConnection: {connection}\r\n\r\n"
        )
    };
    let (permanently, as_it_is) = ("301 Moved Permanently", "308 Permanent Redirect");
    for (request, fields, reply) in [
        ("GET /x?y=%2F", "", moved(permanently, "h:8443/x?y=%2F", "keep-alive")),
        ("GET /", "Connection: close\r\n", moved(permanently, "h:8443/", "close")),
        ("HEAD /healthz", "", moved(permanently, "h:8443/healthz", "keep-alive")),
        ("GET //evil.example/%2e%2e/", "", moved(permanently, "h:8443//evil.example/%2e%2e/", "keep-alive")),
        ("GET http://h:8080/a?b", "", moved(permanently, "h:8443/a?b", "keep-alive")),
        ("GET /.git", "", moved(permanently, "h:8443/.git", "keep-alive")),
        ("OPTIONS *", "", moved(as_it_is, "h:8443/", "keep-alive")),
        ("PUT /x", "", moved(as_it_is, "h:8443/x", "keep-alive")),
        ("POST /x", "Content-Length: 3\r\n", moved(as_it_is, "h:8443/x", "keep-alive")),
        ("POST /x", "Content-Length: 100000\r\n", moved(as_it_is, "h:8443/x", "close")),
        // Frames may follow, of which none is read as a request.
        ("GET /x", HANDSHAKE, moved(permanently, "h:8443/x", "close")),
        ("POST /x", HANDSHAKE, moved(as_it_is, "h:8443/x", "close")),
    ] {
        let mut client = Connection::to(any());
        let body = if fields.starts_with("Content-Length: 3") { "abc" } else { "" };
        let request = format!("{request} HTTP/1.1\r\nHost: h:8080\r\n{fields}\r\n{body}");
        assert_eq!(client.answer(Security::Plain, &request), reply, "{request}");
    }

    // A name of the server's own goes before the client's.
    let mut client = Connection::to(sites([Site { redirect: redirect(Some("own.example")), ..site("own.example") }]));
    let reply = client.answer(Security::Plain, "GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(reply, moved(permanently, "own.example:8443/x", "keep-alive"));

    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: user@h\r\n\r\n", "400 Bad Request"),
        ("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "400 Bad Request"),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: h\r\n\r\n", "405 Method Not Allowed"),
    ] {
        let reply = Connection::to(any()).answer(Security::Plain, request);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {reply}");
    }
}

/// RFC 6797 section 7.2: the field is not sent over plain HTTP.
#[test]
fn browsers_are_told_to_use_https_over_tls_only() {
    let field = "\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n";
    let tls = facts(0, "");
    for (has_hsts, security, is_sent) in
        [(true, Security::Tls(&tls), true), (true, Security::Plain, false), (false, Security::Tls(&tls), false)]
    {
        for (request, status) in [
            ("OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n", 204),
            ("PUT / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
            ("GET / HTTP/1.1\r\n\r\n", 400),
        ] {
            let mut client = Connection::to(sites([Site { has_hsts, ..site("") }]));
            let reply = client.answer(security, request);
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
            assert_eq!(reply.contains(field), is_sent, "{security:?}: {reply}");
        }
    }
}
