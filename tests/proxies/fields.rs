//! X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and Forwarded (RFC 7239), in requests that the test sends as a
//! proxy does.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;

use super::{NGINX, STRANGERS, TRUSTED, gateway, hello_of, programs, wire_from};
use crate::client::Client;
use crate::daemon::{Daemon, uakari};
use crate::hello::parser::Hello;
use crate::http::put;
use crate::process::{Folder, eventually, expect_eq, free_port};
use crate::reload::{TAKEN, reload};
use crate::server::{Backend, Listener};
use crate::wire::{Response, Wire, handshake, request};

/// The proxy, and one before it.
const TWO: &str = "trusted = (\"127.0.0.1\", \"10.0.0.0/8\", \"2001:db8:ffff::/48\");";

/// The answer to a handshake with these fields from this address.
fn ask(daemon: &Daemon, last: u8, fields: &[&str]) -> (Wire, Response) {
    let mut wire = wire_from(last, daemon.port);
    wire.send(handshake("/who", &[], fields));
    let response = wire.response();
    (wire, response)
}

/// What the backend learns of a client with these fields.
fn told(daemon: &Daemon, server: &Listener, last: u8, fields: &[&str]) -> Hello {
    let (_wire, response) = ask(daemon, last, fields);
    assert_eq!(response.status, 101, "{fields:?}: {response:?}");
    hello_of(server).0
}

/// A case: the fields of a request, and the client's IP address; `SELF` is the peer.
type Case = (&'static [&'static str], &'static str);
const SELF: &str = "127.0.0.1";

/// Each case, of the proxy and of a stranger, who is the client in any case.
fn expect_clients(keys: &str, cases: &[Case]) {
    let daemon = Daemon::start_configured(&gateway("", &format!("{TWO} {keys}")));
    let server = daemon.listen("who");
    for (fields, client) in cases {
        for (last, client) in [(1, *client), (9, "127.0.0.9")] {
            let hello = told(&daemon, &server, last, fields);
            let got = hello.client.expect("an address").ip();
            expect_eq(got, client.parse::<IpAddr>().unwrap(), (fields, last));
            let shown = if client.contains(':') { format!("[{client}]") } else { client.to_owned() };
            daemon.log().wait_for(&[&format!("{} end client={shown}", hello.id), "status=101"]);
        }
    }
}

#[test]
fn x_forwarded_for() {
    expect_clients(
        "",
        &[
            (&[], SELF),
            (&["X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
            (&["x-forwarded-for:203.0.113.7 "], "203.0.113.7"),
            // A client sends what it wants; the proxy appends.
            (&["X-Forwarded-For: 198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            (&["X-Forwarded-For: 198.51.100.1,203.0.113.7,10.1.2.3"], "203.0.113.7"),
            (&["X-Forwarded-For: 10.9.9.9, 203.0.113.7, 10.1.2.3 , 10.4.5.6"], "203.0.113.7"),
            (&["X-Forwarded-For: 10.9.9.9, 10.1.2.3"], "10.9.9.9"),
            // Lines are one list.
            (&["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.7"], "203.0.113.7"),
            (&["X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 10.1.2.3"], "203.0.113.7"),
            (&["X-Forwarded-For: 203.0.113.7", "Accept: x", "x-FORWARDED-for: 10.1.2.3,10.1.2.4"], "203.0.113.7"),
            // What is no address ends the walk.
            (&["X-Forwarded-For: 203.0.113.7, unknown"], SELF),
            (&["X-Forwarded-For: 203.0.113.7, unknown, 10.1.2.3"], "10.1.2.3"),
            (&["X-Forwarded-For: 203.0.113.7, _hidden, 10.1.2.3"], "10.1.2.3"),
            (&["X-Forwarded-For: 203.0.113.7, 203.0.113.300"], SELF),
            (&["X-Forwarded-For: 203.0.113.7, x.example"], SELF),
            // Ports and IPv6.
            (&["X-Forwarded-For: 203.0.113.7:4711"], "203.0.113.7"),
            (&["X-Forwarded-For: 2001:db8::7"], "2001:db8::7"),
            (&["X-Forwarded-For: [2001:db8::7]:4711"], "2001:db8::7"),
            (&["X-Forwarded-For: 2001:db8::7, 2001:db8:ffff::1"], "2001:db8::7"),
            (&["X-Forwarded-For: ::ffff:203.0.113.7"], "203.0.113.7"),
            (&["X-Forwarded-For: 203.0.113.7, ::ffff:10.1.2.3"], "203.0.113.7"),
            // Other fields.
            (&["X-Real-IP: 203.0.113.7"], SELF),
            (&["X_Forwarded_For: 203.0.113.7"], SELF),
            (&["Forwarded: for=203.0.113.7"], SELF),
            (&["X-Forwarded-For: 203.0.113.7", "Forwarded: for=198.51.100.1"], "203.0.113.7"),
        ],
    );
}

/// The field may be named in Connection, which a client can cause: that makes it no less true.
#[test]
fn fields_that_connection_names() {
    let daemon = Daemon::start_configured(&gateway("", TRUSTED));
    let server = daemon.listen("who");
    let mut wire = wire_from(1, daemon.port);
    let fields = ["Connection: upgrade, x-forwarded-for, x-forwarded-proto", "X-Forwarded-For: 203.0.113.7"];
    wire.send(handshake("/who", &["Connection"], &fields));
    expect_eq(wire.response().status, 101, "a handshake");
    let client = hello_of(&server).0.client.map(|client| client.ip());
    expect_eq(client, Some("203.0.113.7".parse().unwrap()), "the client");
}

/// Only the right end of a list is read, which clients can lengthen at its left.
#[test]
fn long_lists() {
    let daemon = Daemon::start_configured(&gateway("", TWO));
    let server = daemon.listen("who");
    let long = |element: &str, count| format!("X-Forwarded-For: {}", format!("{element}, ").repeat(count));
    for (fields, client) in [
        (vec![long("198.51.100.1", 400) + "203.0.113.7"], "203.0.113.7"),
        (vec![long("198.51.100.1", 400) + "203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (vec![long("198.51.100.1", 200) + "198.51.100.2", "X-Forwarded-For: 203.0.113.7".to_owned()], "203.0.113.7"),
        (vec![format!("X-Forwarded-For: {}, 203.0.113.7", "1".repeat(5000))], "203.0.113.7"),
        (vec![format!("X-Forwarded-For: 203.0.113.7, {}", "1".repeat(5000))], SELF),
        (vec![long("10.1.2.3", 400) + "10.1.2.3"], "10.1.2.3"),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let got = told(&daemon, &server, 1, &fields).client.map(|client| client.ip());
        expect_eq(got, Some(client.parse().unwrap()), client);
    }
}

#[test]
fn forwarded() {
    expect_clients(
        "forwarded = \"forwarded\";",
        &[
            (&[], SELF),
            (&["Forwarded: for=203.0.113.7"], "203.0.113.7"),
            (&["forwarded: proto=http;For=\"203.0.113.7:4711\";by=10.1.2.3"], "203.0.113.7"),
            (&["Forwarded: for=\"[2001:db8::7]:4711\""], "2001:db8::7"),
            (&["Forwarded: for=\"[2001:db8::7]\""], "2001:db8::7"),
            (&["Forwarded: for=198.51.100.1, for=203.0.113.7"], "203.0.113.7"),
            (&["Forwarded: for=198.51.100.1, for=203.0.113.7;proto=http, for=10.1.2.3"], "203.0.113.7"),
            (&["Forwarded: for=203.0.113.7", "Forwarded: for=10.1.2.3"], "203.0.113.7"),
            (&["Forwarded: for=203.0.113.7, for=unknown"], SELF),
            (&["Forwarded: for=203.0.113.7, for=\"_hidden\", for=10.1.2.3"], "10.1.2.3"),
            // Malformed by a client.
            (&["Forwarded: for=203.0.113.7;"], "203.0.113.7"),
            (&["Forwarded: @, for=203.0.113.7"], "203.0.113.7"),
            (&["Forwarded: for=\", for=203.0.113.7"], "203.0.113.7"),
            (&["X-Forwarded-For: 203.0.113.7"], SELF),
            (&["X-Forwarded-For: 198.51.100.1", "Forwarded: for=203.0.113.7"], "203.0.113.7"),
        ],
    );
}

/// If the part of the proxy itself is malformed, its client is not served as if it were the proxy.
#[test]
fn malformed_parts_of_proxies() {
    let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} forwarded = \"forwarded\";")));
    let _server = daemon.listen("who");
    for field in [
        "Forwarded: for=203.0.113.7, for",
        "Forwarded: for=\"203.0.113.7",
        "Forwarded: for=2001:db8::7",
        "Forwarded: @",
    ] {
        expect_eq(ask(&daemon, 1, &[field]).1.status, 400, field);
        daemon.log().wait_for(&["end client=127.0.0.1:", "400", "Forwarded header is malformed"]);
    }
}

/// Only what `forwarded` lists is read.
#[test]
fn the_fields_that_are_listed() {
    let all: &[&str] = &["X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "Forwarded: for=203.0.113.8"];
    for (keys, client, http) in [
        ("forwarded = \"x-forwarded-for\";", "203.0.113.7", 101),
        ("forwarded = \"x-forwarded-proto\";", SELF, 403),
        ("forwarded = (\"X-Forwarded-Proto\", \"X-Forwarded-For\");", "203.0.113.7", 403),
        ("forwarded = \"none\";", SELF, 101),
        ("forwarded = \"forwarded\";", "203.0.113.8", 101),
    ] {
        let daemon = Daemon::start_configured(&gateway("", &format!("{TRUSTED} {keys}")));
        let server = daemon.listen("who");
        let got = told(&daemon, &server, 1, all).client.map(|client| client.ip());
        expect_eq(got, Some(client.parse().unwrap()), keys);
        let (_wire, response) = ask(&daemon, 1, &[all, &["Origin: http://gate.example"]].concat());
        expect_eq(response.status, http, keys);
    }
}

/// The scheme of the client is that of its page's origin.
#[test]
fn schemes() {
    let daemons = ["", "forwarded = \"forwarded\";"]
        .map(|keys| Daemon::start_configured(&gateway("", &format!("{TRUSTED} {keys}"))));
    let _servers = daemons.each_ref().map(|daemon| daemon.listen("who"));
    let [x_forwarded, forwarded] = &daemons;
    for (daemon, last, fields, http, https) in [
        (x_forwarded, 1, &[][..], 101, 101),
        (x_forwarded, 1, &["X-Forwarded-Proto: https"], 403, 101),
        (x_forwarded, 1, &["X-Forwarded-Proto: WSS"], 403, 101),
        (x_forwarded, 1, &["X-Forwarded-Proto: http"], 101, 403),
        (x_forwarded, 1, &["X-Forwarded-Proto: ws"], 101, 403),
        (x_forwarded, 1, &["X-Forwarded-Proto: http, https"], 403, 101),
        (x_forwarded, 1, &["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], 101, 403),
        (x_forwarded, 1, &["X-Forwarded-Proto: ftp"], 101, 101),
        (x_forwarded, 1, &["X-Forwarded-Proto: https, x"], 101, 101),
        (x_forwarded, 1, &["X-Forwarded-SSL: on", "Front-End-Https: on"], 101, 101),
        (x_forwarded, 9, &["X-Forwarded-Proto: https"], 101, 101),
        (x_forwarded, 9, &["X-Forwarded-Proto: http"], 101, 101),
        (forwarded, 1, &["Forwarded: for=203.0.113.7;proto=https"], 403, 101),
        (forwarded, 1, &["Forwarded: for=203.0.113.7;proto=http"], 101, 403),
        (forwarded, 1, &["Forwarded: for=203.0.113.7;proto=https, for=203.0.113.8"], 101, 101),
        (forwarded, 1, &["Forwarded: for=203.0.113.7;proto=https, for=203.0.113.8;proto=http"], 101, 403),
        (forwarded, 1, &["X-Forwarded-Proto: https"], 101, 101),
        (forwarded, 9, &["Forwarded: for=203.0.113.7;proto=https"], 101, 101),
    ] {
        for (scheme, wanted) in [("http", http), ("https", https)] {
            let origin = format!("Origin: {scheme}://gate.example");
            let (_wire, response) = ask(daemon, last, &[fields, &[&origin]].concat());
            expect_eq(response.status, wanted, (fields, last, scheme));
        }
    }
}

/// X-Forwarded-Host has to be listed; it is the host of origins, of the record, and of the choice of a server.
#[test]
fn hosts() {
    let listed = "forwarded = (\"x-forwarded-for\", \"x-forwarded-host\");";
    let forwarded = "forwarded = \"forwarded\";";
    for (keys, field, told_host) in [
        ("", "X-Forwarded-Host: app.example", None),
        (listed, "X-Forwarded-Host: app.example", Some("app.example")),
        (listed, "X-Forwarded-Host: other.example, app.example", Some("app.example")),
        (listed, "X-Forwarded-Host: app.example:81", Some("app.example:81")),
        (listed, "Forwarded: for=203.0.113.7;host=app.example", None),
        (forwarded, "Forwarded: for=203.0.113.7;host=app.example", Some("app.example")),
        (forwarded, "Forwarded: for=203.0.113.7;host=\"app.example:81\"", Some("app.example:81")),
        (forwarded, "X-Forwarded-Host: app.example", None),
    ] {
        let folder = Folder::new();
        std::fs::create_dir(folder.join("other")).unwrap();
        std::fs::write(folder.join("other/page"), "other").unwrap();
        // Another server of the same address has other pages.
        let keys = format!("{TRUSTED} {keys}");
        let other = format!(
            "}}, {{ hostname = \"app.example\"; listen = \"127.0.0.1:0\"; {keys}
             document = {{ docroot = \"@/other\"; }}; websocket = {{ docroot = \"@/run\"; hello = true; }}; }});"
        );
        let text = gateway("", &keys).replacen("});", &other, 1);
        let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port("127.0.0.1")));
        let daemon = Daemon::start_configured_by(folder, &text, uakari());
        put(&daemon, "page", "own");
        let server = daemon.listen("who");
        for (last, told_host) in [(1, told_host), (9, None)] {
            let host = told_host.unwrap_or("gate.example");
            for page in ["gate.example", "app.example", "app.example:81"] {
                let (_wire, response) = ask(&daemon, last, &[field, &format!("Origin: http://{page}")]);
                let wanted = if page == host { 101 } else { 403 };
                expect_eq(response.status, wanted, (&keys, field, last, page));
            }
            drop(server.accept());
            expect_eq(told(&daemon, &server, last, &[field]).host, host.to_owned(), (&keys, field, last));
            let mut wire = wire_from(last, daemon.port);
            wire.send(request("GET", "/page", &[field]));
            let page = if told_host.is_some() { "other" } else { "own" };
            expect_eq(wire.response().text(), page.to_owned(), (&keys, field, last));
        }
    }
}

/// A connection that a proxy keeps has another client for each request.
#[test]
fn requests_of_several_clients_on_one_connection() {
    let daemon = Daemon::start_configured(&gateway("clients-per-address = 1;", TRUSTED));
    put(&daemon, "page", "the page");
    let server = daemon.listen("who");
    let for_ = |client: &str| format!("X-Forwarded-For: {client}");
    let join = |client: &str| {
        let (wire, response) = ask(&daemon, 1, &[&for_(client)]);
        (response.status == 101).then(|| (wire, hello_of(&server).1))
    };
    // The address of a WebSocket has no place for a request on the connection of others.
    let member = join("203.0.113.7").expect("a place");
    let mut kept = wire_from(1, daemon.port);
    let mut get = |client: &str| {
        kept.send(request("GET", "/page", &[&for_(client)]));
        kept.response().status
    };
    expect_eq([get("203.0.113.8"), get("203.0.113.9"), get("203.0.113.8")], [200; 3], "others");
    // Answered requests take no place, also on a connection that stays.
    let others = ["203.0.113.8", "203.0.113.9"].map(|client| join(client).expect("a place"));
    expect_eq(get("203.0.113.10"), 200, "another client");
    expect_eq(get("203.0.113.7"), 503, "a client too many");
    drop(kept);
    daemon.log().wait_for(&["warn", "client=203.0.113.7", "503", "too many clients from this address"]);
    drop((member, others));
    let mut members = Vec::new();
    for client in ["203.0.113.7", "203.0.113.8", "203.0.113.9"] {
        eventually("there is a place", || {
            let joined = join(client);
            let is_in = joined.is_some();
            members.extend(joined);
            is_in
        });
    }
    // Pipelined: each request has its own client, and the last one stays.
    let mut wire = wire_from(1, daemon.port);
    let heads = [
        request("GET", "/page", &[&for_("203.0.113.20")]),
        request("GET", "/page", &[&for_("203.0.113.20")]),
        request("GET", "/page", &[&for_("203.0.113.21")]),
        handshake("/who", &[], &[&for_("203.0.113.22")]),
    ];
    wire.send(heads.concat());
    expect_eq([0; 3].map(|_| wire.response().status), [200; 3], "pipelined requests");
    expect_eq(wire.response().status, 101, "a pipelined handshake");
    let (hello, backend) = hello_of(&server);
    expect_eq(hello.client.unwrap().ip(), "203.0.113.22".parse::<IpAddr>().unwrap(), "the client");
    let free: Vec<_> = ["203.0.113.20", "203.0.113.21"].map(|client| join(client).expect("a place")).into();
    assert!(join("203.0.113.22").is_none(), "two of one address");
    drop((free, backend));
    Client::new(wire).expect_close_handshake(1000);
    daemon.log().wait_for(&[&format!("{} end client=203.0.113.22", hello.id), "status=101"]);
}

/// The line of a connection has the client of the last request.
#[test]
fn the_client_in_the_log() {
    let daemon = Daemon::start_configured(&gateway("", TRUSTED));
    put(&daemon, "page", "the page");
    let [one, other] = ["X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.8"].map(Some);
    for (number, (fields, shown)) in
        [(vec![one, other], "203.0.113.8"), (vec![other, other, one], "203.0.113.7"), (vec![one, None], SELF)]
            .into_iter()
            .enumerate()
    {
        let mut wire = wire_from(1, daemon.port);
        for field in fields {
            wire.send(request("GET", "/page", field.as_slice()));
            assert_eq!(wire.response().status, 200);
        }
        drop(wire);
        daemon.log().wait_for(&[&format!(" c{} end client={shown}:", number + 1), "status=200"]);
    }
}

/// The proxy keeps as many connections as it wants.
#[test]
fn a_proxy_has_no_limit() {
    let daemon = Daemon::start_configured(&gateway("clients-per-address = 2;", TRUSTED));
    put(&daemon, "page", "the page");
    let server = daemon.listen("who");
    let mut kept: Vec<Wire> = (0..6).map(|_| wire_from(1, daemon.port)).collect();
    for (last, wire) in kept.iter_mut().enumerate() {
        wire.send(request("GET", "/page", &[&format!("X-Forwarded-For: 203.0.113.{}", last / 2)]));
        expect_eq(wire.response().status, 200, last);
    }
    let strangers: Vec<(Wire, Response)> = (0..2).map(|_| ask(&daemon, 9, &["X-Forwarded-For: 203.0.113.7"])).collect();
    assert!(strangers.iter().all(|(_, response)| response.status == 101));
    expect_eq(ask(&daemon, 9, &["X-Forwarded-For: 203.0.113.8"]).1.status, 503, "a stranger too many");
    let clients = [7, 7, 8].map(|last| ask(&daemon, 1, &[&format!("X-Forwarded-For: 203.0.113.{last}")]));
    assert!(clients.iter().all(|(_, response)| response.status == 101));
    // Requests without a client are the proxy's own.
    let own = [(); 4].map(|()| ask(&daemon, 1, &[]));
    assert!(own.iter().all(|(_, response)| response.status == 101));
    (0..9).for_each(|_| drop(server.accept()));
    kept.iter_mut().for_each(|wire| assert_eq!(wire.get("/page").status, 200));
}

/// A server that redirects to https serves those who came by it.
#[test]
fn redirections() {
    let keys = format!("{TRUSTED} redirect = {{ options = \"hsts\"; }};");
    let daemon = Daemon::start_configured(&gateway("", &keys));
    put(&daemon, "page", "the page");
    let server = daemon.listen("who");
    for (last, fields, status) in [
        (1, &["X-Forwarded-Proto: https"][..], 200),
        (1, &["X-Forwarded-Proto: http"], 301),
        (1, &[], 301),
        (9, &["X-Forwarded-Proto: https"], 301),
    ] {
        let mut wire = wire_from(last, daemon.port);
        wire.send(request("GET", "/page?a=b", fields));
        let response = wire.response();
        expect_eq(response.status, status, (fields, last));
        let hsts = response.field("Strict-Transport-Security");
        assert_eq!(hsts.starts_with("max-age="), status == 200, "{fields:?}: {response:?}");
        let location = if status == 301 { "https://gate.example/page?a=b" } else { "" };
        expect_eq(response.field("Location"), location, (fields, last));
    }
    let claims: &[&str] = &["X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.7", "Origin: https://gate.example"];
    expect_eq(told(&daemon, &server, 1, claims).path, "/who".to_owned(), "a handshake");
    expect_eq(ask(&daemon, 9, claims).1.status, 301, "a handshake of a stranger");
}

/// A connection keeps what it was accepted with.
#[test]
fn a_reload_changes_who_is_trusted() {
    let daemon = Daemon::start_configured(&gateway("", TRUSTED));
    put(&daemon, "page", "the page");
    let server = daemon.listen("who");
    let field = "X-Forwarded-For: 203.0.113.7";
    let [client, own] = ["203.0.113.7", SELF].map(|ip| ip.parse::<IpAddr>().unwrap());
    let client_of = |wire: &mut Wire| {
        wire.send(handshake("/who", &[], &[field]));
        assert_eq!(wire.response().status, 101);
        hello_of(&server).0.client.unwrap().ip()
    };
    // The line of a page has the client that a field names.
    let expect_page_of = |wire: &mut Wire, page: &str, is_believed: bool| {
        wire.send(request("GET", page, &[field]));
        assert_eq!(wire.response().field("Connection"), "close");
        wire.expect_end();
        let line = daemon.log().wait_for(&["end client=", &format!("name={page:?}").replace('/', "")]);
        assert_eq!(line.contains("client=203.0.113.7"), is_believed, "{line}");
    };
    let connect = || {
        let mut wire = wire_from(1, daemon.port);
        assert_eq!(wire.get("/page").status, 200);
        wire
    };
    let mut old = connect();
    reload(&daemon, &gateway("", STRANGERS), TAKEN);
    let mut strange = connect();
    expect_page_of(&mut old, "/first", true);
    expect_eq(client_of(&mut connect()), own, "after the first reload");
    reload(&daemon, &gateway("", TRUSTED), TAKEN);
    expect_page_of(&mut strange, "/second", false);
    expect_eq(client_of(&mut connect()), client, "after the second reload");
    // PROXY headers too.
    let mut old = connect();
    reload(&daemon, &gateway("", &format!("{TRUSTED} proxy = \"required\";")), TAKEN);
    expect_page_of(&mut old, "/third", true);
    let mut wire = wire_from(1, daemon.port);
    wire.send(request("GET", "/page", &[]));
    expect_eq(wire.take_rest(), Vec::new(), "a new connection without a header");
}

/// Proxies on the same machine connect to a UNIX socket, whose clients have no address to trust but `unix:`.
#[test]
#[ignore = "needs nginx"]
fn clients_of_a_unix_socket() {
    for (trusted, is_trusted) in [("\"unix:\"", true), ("\"127.0.0.1\"", false), ("\"0.0.0.0/0\"", false)] {
        let text = gateway("clients-per-address = 2;", &format!("trusted = {trusted};"));
        let daemon = Daemon::start_configured(&text.replacen("127.0.0.1:0", "unix:@/gate", 1));
        let server = daemon.listen("who");
        let (folder, socket) = (Folder::new(), daemon.folder().join("gate"));
        let (_nginx, port) = programs::nginx(&folder, |port| {
            format!("server {{ listen 127.0.0.1:{port}; {NGINX} location / {{ proxy_pass http://unix:{socket}; }} }}")
        });
        let ask = |last, origin: &str| {
            let mut wire = wire_from(last, port);
            wire.send(handshake("/who", &[], &[origin]));
            (wire.response().status, wire)
        };
        let (http, https) = ("Origin: http://gate.example", "Origin: https://gate.example");
        let (status, first) = ask(2, http);
        expect_eq(status, 101, trusted);
        let (hello, backend) = hello_of(&server);
        let client = first.stream().local_addr().unwrap().ip();
        expect_eq(hello.client.map(|client| client.ip()), is_trusted.then_some(client), trusted);
        expect_eq(ask(2, https).0, if is_trusted { 403 } else { 101 }, trusted);
        drop((first, backend));
        let shown = if is_trusted { "127.0.0.2" } else { "unix" };
        daemon.log().wait_for(&[&format!("{} end client={shown}", hello.id), "status=101"]);
        if is_trusted {
            let members: Vec<(u16, Wire, Backend)> = [3, 3, 4, 4]
                .map(|last| ask(last, http))
                .into_iter()
                .map(|(status, wire)| (status, wire, server.accept()))
                .collect();
            assert!(members.iter().all(|(status, ..)| *status == 101));
            expect_eq(ask(3, http).0, 503, "a client too many");
        }
        // Another client of the socket may claim nothing that nginx would not.
        drop(UnixStream::connect(&socket).unwrap());
    }
}
