//! Requests that a proxy passes on: whose they are, and what their clients have asked for.

use std::sync::Arc;

use super::tests::{Connection, HANDSHAKE, facts, logged, sent, site, sites};
use super::*;
use crate::access::{Access, AccessRule, Addresses, Auth, AuthKind, Satisfy};
use crate::clients::{AddressCounts, ClientPlace, ForwardedFields, Networks, Trust};
use crate::driver::{FileId, FileKind, OpenCause, OpenError, SystemError};
use crate::exchange::{Chunk, Progress, Proxied, Surroundings};
use crate::http::date::Date;
use crate::http::hostnames::Hostnames;
use crate::http::redirect::Redirect;
use crate::route::{Service, Site, Sites};
use crate::tls::ClientFacts;

const ALL: ForwardedFields = ForwardedFields::XForwarded { for_: true, proto: true, host: true };

/// The peer of most connections, which is trusted.
const PROXY: &str = "10.0.0.1:4711";

/// A connection that effects change as in the gateway.
struct ProxyConnection<'c> {
    connection: Connection,
    counts: &'c AddressCounts,
    peer: Address,
    reads_fields: bool,
    /// Of the PROXY header.
    is_tls: Option<bool>,
    /// That of the last request. None: no effect has set it.
    client: Option<Address>,
    place: Option<ClientPlace>,
    sent: String,
    /// All lines, and the ending.
    log: Vec<String>,
}

impl<'c> ProxyConnection<'c> {
    fn to(sites: Sites, counts: &'c AddressCounts) -> ProxyConnection<'c> {
        ProxyConnection {
            connection: Connection::to(sites),
            counts,
            peer: Address::Tcp(PROXY.parse().unwrap()),
            reads_fields: true,
            is_tls: None,
            client: None,
            place: None,
            sent: String::new(),
            log: Vec::new(),
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        self.handle_over(Security::Plain, input);
    }

    fn handle_over(&mut self, security: Security<'_>, input: Input<'_>) {
        let Connection { exchange, sites, date, effects, .. } = &mut self.connection;
        let proxied = Some(Proxied {
            peer: self.peer,
            reads_fields: self.reads_fields,
            is_tls: self.is_tls,
            counts: self.counts,
        });
        let around = Surroundings { security, proxied, ..Surroundings::plain(date, sites) };
        exchange.handle(around, input, effects);
        let effects: Vec<Effect> = effects.drain().collect();
        self.sent += &sent(&effects);
        for effect in effects {
            match effect {
                Effect::Client { address, place } => (self.client, self.place) = (Some(address), place),
                Effect::NoClient => assert!(self.place.take().is_some(), "there is a client whose request ends"),
                Effect::Log(_, line) => self.log.push(line),
                Effect::Over(ending) => self.log.push(ending.to_string()),
                _ => {}
            }
        }
    }

    /// Sends a request with these lines, each of which begins with a field's name.
    fn request(&mut self, line: &str, fields: &str) {
        self.bytes(&request(line, fields));
    }

    fn bytes(&mut self, bytes: &str) {
        let mut bytes = bytes.as_bytes().to_vec();
        let end = bytes.len();
        self.handle(Input::Bytes(End::Client, Chunk { start: 0, end, buffer: &mut bytes }));
    }

    /// The status of the last reply.
    fn status(&self) -> u16 {
        self.connection.exchange.facts().status
    }

    /// The client of the last request. Empty: the request is the proxy's own.
    fn client(&self) -> String {
        let client = self.client.filter(|client| *client != self.peer);
        client.map_or_else(String::new, |client| client.to_string())
    }
}

fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\n{}\r\n\r\n", fields.replace('\n', "\r\n"))
}

/// A request for a WebSocket.
fn handshake(fields: &str) -> String {
    request("GET /x", &format!("{fields}\n{}", HANDSHAKE.trim_end().replace("\r\n", "\n")))
}

fn trust(fields: ForwardedFields) -> Trust {
    let mut trust = Trust { fields, ..Trust::default() };
    ["10.0.0.0/8", "unix:"].iter().for_each(|text| trust.proxies.add(text).unwrap());
    trust
}

fn behind_proxies(fields: ForwardedFields, all: impl IntoIterator<Item = Site>) -> Sites {
    let mut sites = sites(all);
    sites.trust = trust(fields);
    sites
}

fn hostnames(list: &[&str]) -> Hostnames {
    let mut hostnames = Hostnames::default();
    list.iter().for_each(|text| hostnames.add(text).unwrap());
    hostnames
}

/// What a client can write into a request, and what a proxy makes of it.
#[test]
fn clients_that_pretend_to_be_others() {
    let unlimited = AddressCounts::new(0);
    for (fields, lines, client) in [
        (ALL, "X-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        // The first element is the client's own invention.
        (ALL, "X-Forwarded-For: 127.0.0.1, 1.2.3.4", "1.2.3.4:0"),
        (ALL, "X-Forwarded-For: 10.0.0.9, 1.2.3.4", "1.2.3.4:0"),
        (ALL, "X-Forwarded-For: 1.2.3.4, 10.0.0.2", "1.2.3.4:0"),
        // In lines of its own, before that of the proxy, in any case.
        (ALL, "x-forwarded-for: 127.0.0.1\nX-FORWARDED-FOR: 1.2.3.4", "1.2.3.4:0"),
        (ALL, "X-Forwarded-For: 127.0.0.1\nX-Forwarded-For: 1.2.3.4, 10.0.0.2", "1.2.3.4:0"),
        // A proxy that passes on Connection does not lose what it has added (RFC 9110 section 7.6.1).
        (ALL, "X-Forwarded-For: 1.2.3.4\nConnection: x-forwarded-for, keep-alive", "1.2.3.4:0"),
        // Other names of the same.
        (ALL, "X-Real-IP: 127.0.0.1\nX-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        (ALL, "X_Forwarded_For: 127.0.0.1\nX-Client-IP: 127.0.0.1\nTrue-Client-IP: 127.0.0.1", ""),
        // Both standards are never mixed.
        (ALL, "Forwarded: for=127.0.0.1\nX-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        (ALL, "Forwarded: for=127.0.0.1", ""),
        (
            ForwardedFields::Forwarded,
            "X-Forwarded-For: 127.0.0.1\nForwarded: for=\"[2001:db8::1]:7\"",
            "[2001:db8::1]:7",
        ),
        (ForwardedFields::Forwarded, "X-Forwarded-For: 127.0.0.1", ""),
        (ForwardedFields::None, "X-Forwarded-For: 127.0.0.1\nForwarded: for=127.0.0.1", ""),
        // Garbage ends the walk, and the request is that of who has sent the garbage.
        (ALL, "X-Forwarded-For: 127.0.0.1, nobody", ""),
        (ALL, "X-Forwarded-For: 127.0.0.1, , \u{e4}", ""),
        (ALL, "X-Forwarded-For: 127.0.0.1, nobody, 10.0.0.2", "10.0.0.2:0"),
        (ForwardedFields::Forwarded, "Forwarded: for=\"\nForwarded: for=1.2.3.4", "1.2.3.4:0"),
        (ForwardedFields::Forwarded, "Forwarded: for=127.0.0.1, for=unknown", ""),
    ] {
        for line in ["GET /", "OPTIONS *", "POST /x"] {
            let mut proxy = ProxyConnection::to(behind_proxies(fields, [site("")]), &unlimited);
            proxy.request(line, &format!("Host: h\n{lines}"));
            assert!(proxy.connection.progress() == Progress::Reply && proxy.client() == client, "{lines}");
        }
        let mut proxy = ProxyConnection::to(behind_proxies(fields, [site("")]), &unlimited);
        proxy.bytes(&handshake(&format!("Host: h\n{lines}")));
        assert!(proxy.connection.progress() == Progress::Opening && proxy.client() == client, "{lines}");
    }
}

#[test]
fn who_is_not_trusted_is_the_client() {
    let unlimited = AddressCounts::new(0);
    let lines = "Host: h\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil";
    let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
    for (peer, reads_fields, client) in [
        (tcp("10.0.0.1:1"), true, "1.2.3.4:0"),
        (tcp("[::ffff:10.0.0.1]:1"), true, "1.2.3.4:0"),
        (Address::Unix, true, "1.2.3.4:0"),
        // The source of a PROXY header need not be a proxy.
        (tcp("192.0.2.1:1"), true, ""),
        (Address::Unknown, true, ""),
        // A header that gives no client, as that of a proxy's own checks.
        (tcp("10.0.0.1:1"), false, ""),
    ] {
        let sites = behind_proxies(ALL, [Site { has_hsts: true, ..site("") }]);
        let mut proxy = ProxyConnection::to(sites, &unlimited);
        (proxy.peer, proxy.reads_fields) = (peer, reads_fields);
        proxy.request("OPTIONS *", lines);
        assert_eq!((proxy.status(), &*proxy.client()), (204, client), "{peer}");
        assert_eq!(proxy.sent.contains("Strict-Transport-Security"), !client.is_empty(), "{peer}");
        // The client of a PROXY header keeps its place.
        proxy.handle(Input::Drained);
        proxy.request("OPTIONS *", "Host: h");
        proxy.handle(Input::Drained);
        proxy.bytes("nonsense\r\n\r\n");
        assert_eq!(proxy.client.is_some(), !client.is_empty(), "{peer}");
    }
    // Connections of others are not told to the exchange.
    let reply = Connection::to(behind_proxies(ALL, [Site { hostnames: hostnames(&["h"]), ..site("") }]))
        .answer(Security::Plain, &request("OPTIONS *", lines));
    assert!(reply.starts_with("HTTP/1.1 204 "), "{reply}");
}

/// The limit is that of the client's address, whichever connection of the proxy its requests come over.
#[test]
fn clients_over_their_limit_are_refused_at_once() {
    let counts = AddressCounts::new(2);
    let new = || ProxyConnection::to(behind_proxies(ALL, [site("")]), &counts);
    let mut there = Vec::new();
    for (address, is_full) in [
        ("1.2.3.4", false),
        ("1.2.3.4:5678", false),
        ("1.2.3.4", true),
        ("::ffff:1.2.3.4", true),
        ("6.6.6.6, 1.2.3.4", true),
        ("1.2.3.5", false),
        ("2001:db8:0:1::1", false),
        ("[2001:db8:0:1:ffff::1]", false),
        ("2001:db8:0:1::2", true),
    ] {
        let mut proxy = new();
        proxy.bytes(&handshake(&format!("Host: h\nX-Forwarded-For: {address}")));
        let progress = if is_full { Progress::Closing } else { Progress::Opening };
        assert_eq!((proxy.connection.progress(), proxy.place.is_none()), (progress, is_full), "{address}");
        assert!(!proxy.client().is_empty(), "the log shows which client is refused");
        if is_full {
            assert!(proxy.sent.starts_with("HTTP/1.1 503 ") && proxy.sent.contains("clients-per-address"));
        }
        there.push(proxy);
    }
    // Pages are limited in the same way, and those whose client is not known are not.
    for (fields, status) in
        [("X-Forwarded-For: 1.2.3.4", 503), ("X-Forwarded-For: 7.7.7.7", 204), ("", 204), ("Via: x", 204)]
    {
        let mut proxy = new();
        proxy.request("OPTIONS *", format!("Host: h\n{fields}").trim_end());
        assert_eq!(proxy.status(), status, "{fields}");
    }
    there.remove(0);
    let mut proxy = new();
    proxy.request("OPTIONS *", "Host: h\nX-Forwarded-For: 1.2.3.4");
    assert_eq!(proxy.status(), 204);
    drop((proxy, there));
    assert!(counts.is_empty());
}

/// A client cannot make the proxy's part unreadable; if that is malformed all the same, its client is not served without a
/// limit.
#[test]
fn a_malformed_forwarded() {
    let counts = AddressCounts::new(1);
    let mut proxy = ProxyConnection::to(behind_proxies(ForwardedFields::Forwarded, [site("")]), &counts);
    for (value, status, client) in [
        ("@, for=1.1.1.1", 204, "1.1.1.1:0"),
        ("for=\", for=1.1.1.1", 204, "1.1.1.1:0"),
        ("for=1.1.1.1, for=2001:db8::1", 400, ""),
    ] {
        proxy.request("OPTIONS *", &format!("Host: h\nForwarded: {value}"));
        assert_eq!((proxy.status(), &*proxy.client()), (status, client), "{value}");
        assert_eq!(proxy.place.is_some(), status == 204, "{value}");
        proxy.handle(Input::Drained);
    }
    assert!(proxy.sent.contains("Forwarded header is malformed"), "{}", proxy.sent);
}

/// A proxy uses a kept connection for one client after the other.
#[test]
fn each_request_of_a_kept_connection_has_its_own_client() {
    let counts = AddressCounts::new(1);
    let mut proxy = ProxyConnection::to(behind_proxies(ALL, [site("")]), &counts);
    for (address, client) in [("1.1.1.1", "1.1.1.1:0"), ("1.1.1.1", "1.1.1.1:0"), ("2.2.2.2", "2.2.2.2:0"), ("", "")] {
        proxy.request("OPTIONS *", &format!("Host: h\nX-Forwarded-For: {address}"));
        assert_eq!((proxy.status(), &*proxy.client()), (204, client));
        assert_eq!(counts.is_empty(), client.is_empty(), "the place is held until the reply is sent");
        proxy.handle(Input::Drained);
        assert!(counts.is_empty(), "between requests no client has a place");
        assert_eq!(proxy.client(), client, "the log line is that of the last request");
    }
    let lines = ["1.1.1.1:0", "1.1.1.1:0", "2.2.2.2:0"].map(|client| format!("\"OPTIONS\" \"\" 204 for {client}"));
    assert_eq!(proxy.log[..3], lines);
    assert_eq!(proxy.log[3..], ["\"OPTIONS\" \"\" 204"]);
    // Scheme, host and client are not those of the request before.
    let sites = behind_proxies(ALL, [Site { has_hsts: true, ..site("") }, site("b")]);
    let mut proxy = ProxyConnection::to(sites, &counts);
    for (fields, has_hsts) in [("X-Forwarded-Proto: https\nX-Forwarded-For: 1.1.1.1", true), ("Via: x", false)] {
        proxy.request("OPTIONS *", &format!("Host: h\n{fields}"));
        assert_eq!(proxy.sent.contains("Strict-Transport-Security"), has_hsts, "{fields}");
        assert_eq!(proxy.client().is_empty(), !has_hsts);
        proxy.sent.clear();
        proxy.handle(Input::Drained);
    }
    // What is no request comes from the proxy itself.
    proxy.request("OPTIONS *", "Host: h\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https");
    proxy.handle(Input::Drained);
    proxy.sent.clear();
    proxy.bytes("nonsense\r\n\r\n");
    assert!(proxy.status() == 400 && proxy.client().is_empty() && counts.is_empty());
    assert!(!proxy.sent.contains("Strict-Transport-Security"), "{}", proxy.sent);
}

/// The place of the request before is given back for the next one, and neither one too early nor one too many is taken.
#[test]
fn pipelined_requests_have_their_own_clients() {
    let of = |address: &str| request("OPTIONS *", &format!("Host: h\nX-Forwarded-For: {address}"));
    let counts = AddressCounts::new(1);
    for (addresses, statuses) in [
        (&["1.1.1.1", "1.1.1.1", "1.1.1.1"][..], &[204, 204, 204][..]),
        (&["1.1.1.1", "2.2.2.2", "1.1.1.1", "nobody", "2.2.2.2"], &[204, 204, 204, 204, 204]),
        // Another client has the place of this one.
        (&["1.1.1.1", "9.9.9.9", "1.1.1.1"], &[204, 503]),
        (&["9.9.9.9"], &[503]),
    ] {
        let _held = counts.take(AddressUnit::of(Address::Tcp("9.9.9.9:1".parse().unwrap())));
        let mut proxy = ProxyConnection::to(behind_proxies(ALL, [site("")]), &counts);
        let all: String = addresses.iter().map(|address| of(address)).collect();
        // All at once, of which one is read after the other.
        proxy.bytes(&all);
        for (address, status) in addresses.iter().zip(statuses) {
            assert_eq!(proxy.status(), *status, "{addresses:?}");
            let shown = if *address == "nobody" { String::new() } else { format!("{address}:0") };
            assert_eq!((proxy.client(), proxy.place.is_some()), (shown, *status == 204 && *address != "nobody"));
            proxy.handle(Input::Drained);
        }
        assert!(proxy.place.is_none() || *statuses.last().unwrap() == 503);
        let count = proxy.sent.matches("HTTP/1.1 ").count();
        assert_eq!(count, statuses.len(), "{addresses:?}");
    }
    assert!(counts.is_empty());
    // With a body between two requests, which comes later.
    let mut proxy = ProxyConnection::to(behind_proxies(ALL, [site("")]), &counts);
    proxy.bytes(&(of("1.1.1.1") + &request("POST /x", "Host: h\nX-Forwarded-For: 1.1.1.1\nContent-Length: 4") + "ab"));
    proxy.handle(Input::Drained);
    assert_eq!((proxy.client(), proxy.place.is_some()), ("1.1.1.1:0".to_owned(), true));
    proxy.bytes(&("cd".to_owned() + &of("1.1.1.1")));
    assert_eq!(proxy.status(), 405);
    proxy.handle(Input::Drained);
    assert_eq!((proxy.status(), proxy.place.is_some()), (204, true));
    proxy.handle(Input::Drained);
    assert!(counts.is_empty());
}

/// A place is not held by a connection whose request is refused and which then ends, nor lost by one that goes on.
#[test]
fn refused_requests_give_their_places_back() {
    let counts = AddressCounts::new(1);
    let first = Site { hostnames: hostnames(&["h"]), ..site("") };
    for (bytes, status, is_kept) in [
        (handshake("Host: h\nX-Forwarded-For: 1.1.1.1\nOrigin: https://evil"), 403, false),
        (handshake("Host: evil\nX-Forwarded-For: 1.1.1.1"), 421, false),
        (request("GET /%zz", "Host: h\nX-Forwarded-For: 1.1.1.1"), 400, false),
        (request("PUT /x", "Host: h\nX-Forwarded-For: 1.1.1.1"), 405, true),
        (request("OPTIONS *", "Host: h\nX-Forwarded-For: 1.1.1.1"), 204, true),
        (request("OPTIONS *", "Host: h\nX-Forwarded-For: 1.1.1.1\nConnection: close"), 204, false),
    ] {
        let mut proxy = ProxyConnection::to(behind_proxies(ALL, [first.clone()]), &counts);
        proxy.bytes(&bytes);
        assert!(proxy.status() == status && proxy.client() == "1.1.1.1:0" && !counts.is_empty(), "{bytes}");
        if is_kept {
            proxy.handle(Input::Drained);
            assert!(counts.is_empty() && proxy.connection.progress() == Progress::Request, "{bytes}");
            proxy.request("OPTIONS *", "Host: h\nX-Forwarded-For: 1.1.1.1");
            assert_eq!(proxy.status(), 204);
        }
        drop(proxy);
        assert!(counts.is_empty(), "{bytes}");
    }
}

/// The page's scheme is known if the proxy tells it.
#[test]
fn origins_have_the_scheme_of_the_client() {
    let unlimited = AddressCounts::new(0);
    let own = facts(0, "");
    for (security, header, proto, http, https) in [
        (Security::Plain, None, "", true, true),
        (Security::Plain, None, "https", false, true),
        (Security::Plain, None, "wss", false, true),
        (Security::Plain, None, "http, HTTPS", false, true),
        (Security::Plain, None, "http", true, false),
        (Security::Plain, None, "https, ws", true, false),
        (Security::Plain, None, "ftp", true, true),
        (Security::Plain, Some(true), "", false, true),
        (Security::Plain, Some(false), "", true, false),
        // What the request says goes before what the connection says.
        (Security::Plain, Some(false), "https", false, true),
        (Security::Tls(&own), None, "", false, true),
        (Security::Tls(&own), None, "http", true, false),
        // A proxy that passes on the bytes of TLS has no TLS of its own.
        (Security::Tls(&own), Some(false), "", false, true),
    ] {
        for (origin, is_allowed) in [("http://h", http), ("https://h", https), ("https://evil", false), ("null", false)]
        {
            let mut proxy = ProxyConnection::to(behind_proxies(ALL, [site("")]), &unlimited);
            proxy.is_tls = header;
            let mut bytes = handshake(&format!("Host: h\nOrigin: {origin}\nX-Forwarded-Proto: {proto}")).into_bytes();
            let end = bytes.len();
            proxy.handle_over(security, Input::Bytes(End::Client, Chunk { start: 0, end, buffer: &mut bytes }));
            let expected = if is_allowed { Progress::Opening } else { Progress::Closing };
            assert_eq!(proxy.connection.progress(), expected, "{origin}, {security:?}, {header:?}, {proto:?}");
            assert!(is_allowed || proxy.status() == 403);
        }
    }
    let mut proxy = ProxyConnection::to(behind_proxies(ALL, [site("")]), &unlimited);
    proxy.bytes(&handshake("Host: h\nOrigin: https://h\nX-Forwarded-Proto: http"));
    assert_eq!(proxy.log, ["refused: Origin is \"https://h\", and not http with the Host, \"h\""]);
}

/// The host of the client is that of the proxy's field, if that is believed.
#[test]
fn the_host_of_the_client() {
    let unlimited = AddressCounts::new(0);
    let some = ForwardedFields::XForwarded { for_: true, proto: true, host: false };
    let named = || {
        let hostnames = hostnames(&["app.example"]);
        [Site { hostnames, redirect: Some(Redirect { host: None, port: 443 }), ..site("") }, site("b.example")]
    };
    for (fields, lines, status, location) in [
        (ALL, "Host: inner:80\nX-Forwarded-Host: app.example:8080", 301, "https://app.example/x"),
        (ALL, "Host: inner\nX-Forwarded-Host: evil, app.example", 301, "https://app.example/x"),
        (ALL, "Host: app.example\nX-Forwarded-Host: evil", 421, ""),
        (ALL, "Host: app.example\nX-Forwarded-Host: app.example, evil", 421, ""),
        (ALL, "Host: app.example\nX-Forwarded-Host: b.example", 404, ""),
        // One that is not valid is none.
        (ALL, "Host: app.example\nX-Forwarded-Host: evil/", 301, "https://app.example/x"),
        (ALL, "Host: app.example\nForwarded: host=evil", 301, "https://app.example/x"),
        (some, "Host: app.example\nX-Forwarded-Host: evil", 301, "https://app.example/x"),
        (some, "Host: evil\nX-Forwarded-Host: app.example", 421, ""),
        (
            ForwardedFields::Forwarded,
            "Host: inner\nForwarded: for=1.2.3.4;host=\"app.example:81\"",
            301,
            "https://app.example/x",
        ),
        (ForwardedFields::Forwarded, "Host: app.example\nX-Forwarded-Host: evil", 301, "https://app.example/x"),
        (ForwardedFields::Forwarded, "Host: app.example\nForwarded: host=evil", 421, ""),
    ] {
        let mut proxy = ProxyConnection::to(behind_proxies(fields, named()), &unlimited);
        proxy.request("GET /x", lines);
        if status == 404 {
            // A backend of this name is looked for.
            let not_found = OpenError { cause: OpenCause::NotFound, error: SystemError::BROKEN_PIPE };
            proxy.handle(Input::Opened(Err(not_found)));
        }
        assert_eq!(proxy.status(), status, "{lines}: {}", proxy.sent);
        let found = proxy.sent.split("Location: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        assert_eq!(found.unwrap_or_default(), location, "{lines}");
    }
    // The origin of the page, and the record for the backend.
    let sites = || {
        let service = Arc::new(Service { hello: true, ..Service::default() });
        behind_proxies(ALL, [Site { service, ..site("") }])
    };
    for (lines, is_allowed) in [
        ("Host: inner\nX-Forwarded-Host: h:8443\nOrigin: https://h:8443", true),
        ("Host: inner\nX-Forwarded-Host: h\nOrigin: https://inner", false),
    ] {
        let mut proxy = ProxyConnection::to(sites(), &unlimited);
        proxy.bytes(&handshake(lines));
        assert_eq!(proxy.connection.progress() == Progress::Opening, is_allowed, "{lines}");
    }
    let mut connection = Connection::to(sites());
    let mut bytes = handshake("Host: inner\nX-Forwarded-Host: h:8443").into_bytes();
    let end = bytes.len();
    let (date, sites) = (Date::default(), sites());
    let proxied = Some(Proxied { peer: Address::Unix, reads_fields: true, is_tls: None, counts: &unlimited });
    let around = Surroundings { proxied, ..Surroundings::plain(&date, &sites) };
    for input in [
        Input::Bytes(End::Client, Chunk { start: 0, end, buffer: &mut bytes }),
        Input::Opened(Ok(FileKind::Socket(FileId::default()))),
        Input::Connected(Ok(())),
    ] {
        connection.exchange.handle(around, input, &mut connection.effects);
    }
    let hosts: Vec<_> = connection
        .effects
        .drain()
        .filter_map(|effect| if let Effect::Hello(hello) = effect { Some(hello.host) } else { None })
        .collect();
    assert_eq!(hosts, ["h:8443".into()]);
}

/// Over TLS to the gateway, the server is still the one that the TLS handshake has named.
#[test]
fn a_forwarded_host_of_another_server_than_the_sni_is_421() {
    let unlimited = AddressCounts::new(0);
    let own = facts(0, "a");
    for (host, status) in [("a", 204), ("b", 421)] {
        let mut proxy = ProxyConnection::to(behind_proxies(ALL, [site("a"), site("b")]), &unlimited);
        let mut bytes = request("OPTIONS *", &format!("Host: a\nX-Forwarded-Host: {host}")).into_bytes();
        let end = bytes.len();
        proxy.handle_over(Security::Tls(&own), Input::Bytes(End::Client, Chunk { start: 0, end, buffer: &mut bytes }));
        assert_eq!(proxy.status(), status, "{host}");
    }
}

/// `redirect` with "hsts" behind a proxy that terminates TLS.
#[test]
fn what_came_by_https_is_served() {
    let unlimited = AddressCounts::new(0);
    let redirect = || Some(Redirect { host: None, port: 443 });
    for (header, fields, is_served) in [
        (None, "Via: x", false),
        (None, "X-Forwarded-Proto: http", false),
        (None, "X-Forwarded-Proto: ws", false),
        (None, "X-Forwarded-Proto: https, http", false),
        (None, "X-Forwarded-Proto: ftp", false),
        (None, "X-Forwarded-Proto: https", true),
        (None, "X-Forwarded-Proto: http\nX-Forwarded-Proto: wss", true),
        (Some(true), "Via: x", true),
        (Some(false), "Via: x", false),
        (Some(true), "X-Forwarded-Proto: http", false),
    ] {
        let sites = behind_proxies(ALL, [Site { redirect: redirect(), has_hsts: true, ..site("") }]);
        let mut proxy = ProxyConnection::to(sites.clone(), &unlimited);
        proxy.is_tls = header;
        proxy.request("OPTIONS /x", &format!("Host: h:8080\n{fields}"));
        assert_eq!(proxy.status(), if is_served { 204 } else { 308 }, "{fields}");
        assert_eq!(proxy.sent.contains("\r\nLocation: https://h/x\r\n"), !is_served, "{fields}: {}", proxy.sent);
        assert_eq!(proxy.sent.contains("\r\nStrict-Transport-Security: "), is_served, "{fields}");

        let mut proxy = ProxyConnection::to(sites, &unlimited);
        proxy.is_tls = header;
        proxy.bytes(&handshake(&format!("Host: h\n{fields}")));
        assert_eq!(proxy.connection.progress() == Progress::Opening, is_served, "{fields}");
    }
    // Nobody else opens the door with this field.
    let sites = behind_proxies(ALL, [Site { redirect: redirect(), has_hsts: true, ..site("") }]);
    let reply = Connection::to(sites).answer(Security::Plain, &request("GET /x", "Host: h\nX-Forwarded-Proto: https"));
    assert!(reply.starts_with("HTTP/1.1 301 ") && !reply.contains("Strict-Transport-Security"), "{reply}");
}

#[test]
fn other_hosts_are_421() {
    let first = || Site { hostnames: hostnames(&["app.example", "*.app.example", "[::1]"]), ..site("") };
    for (request, status) in [
        ("OPTIONS * HTTP/1.1\r\nHost: app.example\r\n\r\n", 204),
        ("OPTIONS * HTTP/1.1\r\nHost: APP.example.:8443\r\n\r\n", 204),
        ("OPTIONS * HTTP/1.1\r\nHost: a.b.app.example\r\n\r\n", 204),
        ("OPTIONS * HTTP/1.1\r\nHost: [0::1]:80\r\n\r\n", 204),
        ("OPTIONS http://app.example/ HTTP/1.1\r\nHost: app.example\r\n\r\n", 204),
        // The checks of haproxy.
        ("OPTIONS / HTTP/1.0\r\n\r\n", 204),
        ("OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("OPTIONS * HTTP/1.1\r\nHost: app.example.evil\r\n\r\n", 421),
        ("OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", 421),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        ("OPTIONS http://evil/ HTTP/1.1\r\nHost: evil\r\n\r\n", 421),
        ("OPTIONS / HTTP/1.0\r\nHost: evil\r\n\r\n", 421),
        ("OPTIONS http://evil/ HTTP/1.0\r\n\r\n", 421),
        // What is no host at all is refused before.
        ("OPTIONS * HTTP/1.1\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("OPTIONS http://app.example/ HTTP/1.1\r\nHost: evil\r\n\r\n", 400),
    ] {
        let mut client = Connection::to(sites([first()]));
        let reply = client.answer(Security::Plain, request);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {reply}");
        assert_eq!(client.progress() == Progress::Closing, status != 204, "{request}");
    }
    // The servers of an address have lists of their own, and the check comes before a redirection and before the origin.
    let second = Site { hostnames: hostnames(&["b"]), ..site("b") };
    let redirecting = Site { redirect: Some(Redirect { host: None, port: 443 }), ..first() };
    for (host, status) in [("app.example", 301), ("evil", 421), ("b", 403)] {
        let mut client = Connection::to(sites([redirecting.clone(), second.clone()]));
        let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil\r\n{HANDSHAKE}\r\n");
        let reply = client.answer(Security::Plain, &request);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {reply}");
    }
    let mut client = Connection::to(sites([first()]));
    let mut bytes = b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n".to_vec();
    let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
    let effects = client.handle(1, Security::Plain, Input::Bytes(End::Client, chunk));
    assert_eq!(logged(&effects), ["refused: Host is \"evil\", which is not one of hostnames"]);
}

/// The sentence tells whether the header is read of nobody, or of others.
#[test]
fn a_proxy_header_where_none_is_read() {
    let off = behind_proxies(ALL, [site("")]);
    let mut optional = behind_proxies(ALL, [site("")]);
    optional.trust.header = HeaderUse::Optional;
    for bytes in ["PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
        for (sites, word) in [(&off, "which is not read here"), (&optional, "that is not trusted")] {
            for security in [Security::Plain, Security::HttpOnTlsPort] {
                let reply = Connection::to(sites.clone()).answer(security, bytes);
                assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains(word), "{reply}");
            }
        }
        // A second header after that of a trusted proxy.
        let unlimited = AddressCounts::new(0);
        let mut proxy = ProxyConnection::to(optional.clone(), &unlimited);
        proxy.bytes(bytes);
        assert!(proxy.status() == 400 && proxy.sent.contains("which is not read here"), "{}", proxy.sent);
    }
}

#[test]
fn the_certificate_of_a_proxy_is_not_that_of_its_clients() {
    let counts = AddressCounts::new(9);
    let own = ClientFacts { common_name: "ann".into(), ..ClientFacts::default() };
    let facts = TlsFacts { client: Some(own), ..facts(0, "") };
    let auth = vec![Auth::new(0, "R", AuthKind::ClientCert { users: Vec::new() })];
    let access = Access::new(None, vec![AccessRule { auth, ..AccessRule::default() }]);
    let sites = behind_proxies(ALL, [Site { access, has_www: true, ..site("") }]);
    for (peer, reads_fields, is_tls, fields) in [
        (PROXY, true, None, "Host: h\nX-Forwarded-For: 192.0.2.1"),
        (PROXY, true, None, "Host: h\nX-Forwarded-For: 10.0.0.9"),
        // A proxy that encrypts again what it passes on, and adds no field.
        (PROXY, true, None, "Host: h"),
        // The source of a PROXY header: the TLS may be the proxy's own all the same.
        ("192.0.2.7:5", true, None, "Host: h\nX-Forwarded-For: 192.0.2.1"),
        ("192.0.2.7:5", true, Some(true), "Host: h"),
        ("192.0.2.7:5", true, Some(false), "Host: h"),
        // A PROXY header without a client.
        (PROXY, false, None, "Host: h"),
    ] {
        let mut proxy = ProxyConnection::to(sites.clone(), &counts);
        (proxy.peer, proxy.reads_fields, proxy.is_tls) = (Address::Tcp(peer.parse().unwrap()), reads_fields, is_tls);
        let mut bytes = request("GET /a", fields).into_bytes();
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        proxy.handle_over(Security::Tls(&facts), Input::Bytes(End::Client, chunk));
        assert_eq!(proxy.status(), 403, "{peer} {is_tls:?} {fields}: {}", proxy.sent);
    }
    // A client that no proxy has passed on.
    let mut client = Connection::to(sites);
    client.answer(Security::Tls(&facts), &request("GET /a", "Host: h\nX-Forwarded-For: 192.0.2.1"));
    assert_eq!(client.progress(), Progress::Reply, "the page is looked up");
}

/// A proxy that names no client has an address, but that of nobody who may come in without a credential.
#[test]
fn the_address_of_a_proxy_is_not_that_of_its_clients() {
    let counts = AddressCounts::new(0);
    let mut allow = Networks::default();
    ["10.0.0.0/8", "192.0.2.0/24", "unix:"].iter().for_each(|text| allow.add(text).unwrap());
    let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
    for (peer, reads_fields, fields, is_known) in [
        (tcp(PROXY), true, "Host: h", false),
        (tcp(PROXY), true, "Host: h\nX-Forwarded-For: 192.0.2.1, nobody", false),
        (tcp(PROXY), true, "Host: h\nX-Forwarded-For: 192.0.2.1, nobody, 10.0.0.2", false),
        (tcp(PROXY), true, "Host: h\nX-Forwarded-For: 10.0.0.3, 10.0.0.2", false),
        (Address::Unix, true, "Host: h", false),
        // A PROXY header without a client, and one with another proxy as its client.
        (tcp(PROXY), false, "Host: h", false),
        (tcp("10.0.0.7:5"), true, "Host: h", false),
        (tcp(PROXY), true, "Host: h\nX-Forwarded-For: 192.0.2.1", true),
        (tcp("192.0.2.7:5"), true, "Host: h", true),
    ] {
        for (satisfy, auth, status) in [
            (Satisfy::Any, vec![Auth::new(0, "R", AuthKind::Basic)], if is_known { 204 } else { 401 }),
            (Satisfy::All, Vec::new(), 204),
        ] {
            let addresses = Some(Addresses { allow: allow.clone(), deny: Networks::default() });
            let rule = AccessRule { addresses, satisfy, auth, ..AccessRule::default() };
            let access = Access::new(None, vec![rule]);
            let mut proxy = ProxyConnection::to(behind_proxies(ALL, [Site { access, ..site("") }]), &counts);
            (proxy.peer, proxy.reads_fields) = (peer, reads_fields);
            proxy.request("OPTIONS /a", fields);
            assert_eq!(proxy.status(), status, "{peer} {fields} {satisfy:?}: {}", proxy.sent);
        }
    }
}
