//! Paths, methods and addresses: what no request leads around, and the order of the checks.

use super::*;
use crate::daemon::patient;
use crate::process::{expect_eq, free_port};

const ADMIN: &str = "paths = ({ path = \"^/admin\"; auth = { type = \"basic\"; file = \"@/users\"; }; });";

#[test]
fn no_way_leads_around_a_rule() {
    let daemon = start(ADMIN);
    let server = daemon.listen("admin-who");
    std::fs::create_dir(daemon.socket("admin.d")).unwrap();
    let nested = crate::server::Listener::bind(&daemon.socket("admin.d/who"), crate::server::Kind::Stream);
    for (path, is_protected) in [
        ("/admin/page", true),
        ("/admin", true),
        ("/admin/", true),
        ("/%61dmin/page", true),
        ("/admin%2fpage", true),
        ("/admin/%70age", true),
        ("//admin/page", true),
        ("/./admin/page", true),
        ("/open/../admin/page", true),
        ("/open/%2e%2e/admin/page", true),
        ("/open/..%2fadmin/page", true),
        ("/../admin/page", true),
        ("/admin//page", true),
        ("/admin/./page", true),
        ("/admin/page?x=/open", true),
        ("/admin/page;x", true),
        ("/admin/../admin/page", true),
        ("/admin-who", true),
        ("/admin.d/who", true),
        ("/%61dmin-who", true),
        ("//admin-who", true),
        ("/open/..//admin-who", true),
        ("http://gate.example/admin/page", true),
        ("http://gate.example//admin/page", true),
        ("/page", false),
        ("/open/page", false),
        ("/admin/../page", false),
        // Names of files are not compared without their case.
        ("/ADMIN/page", false),
        ("/open;/../admin/../page", false),
        ("/x/admin/page", false),
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE", "get"] {
            let (_, response) = Visitor::new(&daemon, 1).ask(&request(method, path, &[]));
            assert_eq!(response.status == 401, is_protected, "{method} {path}: {response:?}");
            assert!(!is_protected || !response.text().contains("admin"), "{method} {path}: {response:?}");
        }
        let response = Visitor::new(&daemon, 1).upgrade(path, &[]);
        assert_eq!(response.status == 401, is_protected, "{path}: {response:?}");
        for name in ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Forwarded-Prefix"] {
            let response = Visitor::new(&daemon, 1).get(path, &[&format!("{name}: /open/page")]);
            assert_eq!(response.status == 401, is_protected, "{name} {path}: {response:?}");
        }
    }
    assert!(server.is_idle() && nested.is_idle(), "a backend has a client");
    let ann = basic("ann", "secret");
    let visitor = Visitor::new(&daemon, 2);
    for (method, path, status) in [
        ("GET", "/admin/page", 200),
        ("HEAD", "/admin/page", 200),
        ("OPTIONS", "/admin/page", 204),
        ("POST", "/admin/page", 405),
        ("GET", "/%61dmin//page", 200),
        ("GET", "/admin/nosuch", 404),
    ] {
        let status_of = || visitor.ask(&request(method, path, &[&ann])).1.status;
        expect_eq(status_of(), status, format!("{method} {path}"));
    }
}

/// The rule of a folder's name or of a compressed file's content is one more than the server's for what has another name.
#[test]
fn no_rule_of_another_name_replaces_that_of_the_server() {
    let daemon = start(
        "auth = { type = \"basic\"; file = \"@/users\"; }; \
         paths = ({ path = \"^/admin$\"; addresses = { allow = \"127.1.0.1\"; }; satisfy = \"any\"; });",
    );
    std::fs::write(daemon.folder().join("www/admin.gz"), "compressed").unwrap();
    let ann = basic("ann", "secret");
    for (path, of_address, of_nobody) in [
        ("/admin", 301, 401),
        ("/admin/", 401, 401),
        ("//admin//", 401, 401),
        ("/admin.gz", 401, 401),
        ("/admin/index.html", 401, 401),
        ("/page", 401, 401),
    ] {
        for (number, status) in [(1, of_address), (2, of_nobody)] {
            expect_eq(Visitor::new(&daemon, number).get(path, &[]).status, status, (path, number));
            let wanted = if path == "/admin" { 301 } else { 200 };
            let response = Visitor::new(&daemon, number).get(path, &[&ann]);
            expect_eq(response.status, wanted, (path, number, "with a password"));
        }
    }
    // The database of users is not that of the server: a client needs a password of both.
    let folder = new_folder();
    put(&folder, "others", "eve:other:guests:\nann:other:staff:\nbob:secret:guests:\n");
    let daemon = start_in(
        folder,
        "auth = { type = \"basic\"; file = \"@/users\"; }; \
         paths = ({ path = \"^/admin$\"; auth = { type = \"basic\"; file = \"@/others\"; }; });",
    );
    for (number, user, password, path, status) in [
        (3, "eve", "other", "/admin", 301),
        (3, "eve", "other", "/admin/", 401),
        (4, "ann", "secret", "/admin/", 401),
        (4, "ann", "other", "/admin/", 401),
        (5, "bob", "secret", "/admin/", 200),
        (5, "bob", "secret", "/admin", 301),
    ] {
        let response = Visitor::new(&daemon, number).get(path, &[&basic(user, password)]);
        expect_eq(response.status, status, (user, password, path));
    }
}

/// A socket that a subprotocol or a link would lead to has the rule of its path.
#[test]
fn subprotocols_and_links() {
    let daemon = start_linked();
    let servers = ["admin", "link", "open"].map(|name| daemon.listen(name));
    let visitor = Visitor::new(&daemon, 1);
    let admin = "Sec-WebSocket-Protocol: admin";
    assert!([401, 403, 404].contains(&visitor.upgrade("/", &[admin]).status));
    assert_eq!(visitor.upgrade("/alias", &[]).status, 401);
    assert_eq!(visitor.upgrade("/alias/", &[]).status, 401);
    assert!(servers.iter().all(|server| server.is_idle()));
    let (_client, hello, _backend) = visitor.join(&servers[1], "/alias", &[&basic("bob", "secret")]);
    assert_eq!((&*hello.user, &*hello.groups), ("bob", "guests"));
    let (_client, hello, _backend) = visitor.join(&servers[2], "/open", &[&basic("bob", "secret")]);
    assert_eq!(&*hello.user, "");
}

fn start_linked() -> Daemon {
    let links = "links = ({ origin = \"^/alias\"; type = \"unix\"; destination = \"@/run/link\"; \
        auth = { type = \"basic\"; file = \"@/users\"; }; }); docroot";
    let text = gateway("", ADMIN).replacen("websocket = { docroot", &format!("websocket = {{ {links}"), 1);
    Daemon::start_configured_by(new_folder(), &text, uakari())
}

#[test]
fn addresses_and_credentials() {
    let addresses = "addresses = { allow = (\"127.1.0.0/24\", \"127.9.0.1\"); deny = (\"127.1.0.128/25\"); };";
    let auth = "auth = { type = \"basic\"; file = \"@/users\"; };";
    let (good, bad, none) = (Some("secret"), Some("wrong"), None);
    for (satisfy, cases) in [
        ("", [(1, none, 401), (1, good, 200), (1, bad, 401), (200, none, 403), (200, good, 403), (200, bad, 403)]),
        (
            "satisfy = \"any\";",
            [(1, none, 200), (1, good, 200), (1, bad, 200), (200, none, 401), (200, good, 200), (201, bad, 401)],
        ),
    ] {
        let daemon = start(&format!("{addresses} {auth} {satisfy}"));
        let server = daemon.listen("who");
        for (number, password, status) in cases {
            let what = format!("{satisfy} {number} {password:?}");
            let field = password.map(|password| basic("ann", password));
            let fields: Vec<&str> = field.iter().map(String::as_str).collect();
            let visitor = Visitor::new(&daemon, number);
            let page = visitor.get("/page", &fields);
            expect_eq((page.status, page.all("WWW-Authenticate").len()), (status, usize::from(status == 401)), &what);
            let wanted = if status == 200 { 101 } else { status };
            expect_eq(visitor.upgrade("/who", &fields).status, wanted, &what);
            if wanted == 101 {
                drop(server.accept());
            }
        }
    }
    let daemon = start(addresses);
    for (address, status) in
        [([127, 1, 0, 1], 200), ([127, 1, 0, 129], 403), ([127, 9, 0, 1], 200), ([127, 0, 0, 1], 403)]
    {
        let visitor = Visitor { daemon: &daemon, address: address.into() };
        expect_eq(visitor.get("/page", &[]).status, status, address);
    }
}

/// What counts is the client that a trusted proxy names, and nobody else's word.
#[test]
fn addresses_behind_a_proxy() {
    let keys = "trusted = \"127.1.0.9\"; addresses = { allow = \"192.0.2.0/24\"; }; \
        paths = ({ path = \"^/page\"; auth = { type = \"basic\"; file = \"@/users\"; cache-ms = 0; }; });";
    let daemon = start(keys);
    let (proxy, other) = (Visitor::new(&daemon, 9), Visitor::new(&daemon, 8));
    for (visitor, claim, status) in [
        (proxy, "192.0.2.1", 200),
        (proxy, "198.51.100.1", 403),
        (proxy, "192.0.2.1, 198.51.100.1", 403),
        (proxy, "198.51.100.1, 192.0.2.1", 200),
        (other, "192.0.2.1", 403),
    ] {
        let field = format!("X-Forwarded-For: {claim}");
        expect_eq(visitor.get("/", &[&field]).status, status, claim);
        let wanted = if status == 200 { 404 } else { status };
        expect_eq(visitor.upgrade("/nosuch", &[&field]).status, wanted, claim);
    }
    // Failures count for the client, so that the others behind the proxy still come in.
    let wrong = basic("ann", "wrong");
    let attempt = |client: &str, field: &str| {
        let claim = format!("X-Forwarded-For: {client}");
        proxy.get("/page", &[&claim, field])
    };
    let limited = (0..100).map(|_| attempt("192.0.2.1", &wrong)).find(|response| response.status != 401).unwrap();
    assert_eq!(limited.status, 429, "{limited:?}");
    expect_eq(attempt("192.0.2.2", &basic("ann", "secret")).status, 200, "another client");
}

/// Its address is that of each request whose client it does not name, and stands for no credential.
#[test]
fn a_proxy_that_names_no_client() {
    let daemon = start(
        "trusted = \"127.1.0.9\"; auth = { type = \"basic\"; file = \"@/users\"; }; satisfy = \"any\"; \
         addresses = { allow = (\"127.1.0.9\", \"127.1.0.7\", \"192.0.2.0/24\"); };",
    );
    daemon
        .log()
        .wait_for(&["warn", "servers[0].addresses: allow has 127.1.0.9, proxies of trusted: their requests need"]);
    let server = daemon.listen("who");
    let ann = basic("ann", "secret");
    for (number, fields, status) in [
        (9, &[][..], 401),
        (9, &["X-Forwarded-For: 192.0.2.1, nobody"], 401),
        (9, &["X-Forwarded-For: 127.1.0.9"], 401),
        (9, &["X-Forwarded-For: 198.51.100.1"], 401),
        (9, &["X-Forwarded-For: 192.0.2.1"], 200),
        (9, &[&*ann], 200),
        (7, &[], 200),
        (7, &["X-Forwarded-For: 198.51.100.1"], 200),
    ] {
        let visitor = Visitor::new(&daemon, number);
        expect_eq(visitor.get("/page", fields).status, status, (number, fields));
        let wanted = if status == 200 { 101 } else { status };
        expect_eq(visitor.upgrade("/who", fields).status, wanted, (number, fields));
        if wanted == 101 {
            drop(server.accept());
        }
    }
    assert!(server.is_idle());
}

#[test]
fn filters_of_clients() {
    let daemon = start("clientfilter = { allow = \"127.1.0.1\"; deny = \"127.*\"; };");
    assert_eq!(Visitor::new(&daemon, 1).get("/page", &[]).status, 200);
    let mut refused = Visitor::new(&daemon, 2).wire();
    refused.take_rest();
    assert!(["the end of the stream", "a reset"].contains(&refused.end()), "{}", refused.end());
    daemon.log().wait_for(&["127.1.0.2", "clientfilter"]);
    // Those that a proxy names.
    let daemon = start("trusted = \"127.1.0.9\"; clientfilter = { allow = \"192.0.*\"; deny = \"*\"; };");
    for (claim, status) in [("192.0.2.1", 200), ("198.51.100.1", 403)] {
        let response = Visitor::new(&daemon, 9).get("/page", &[&format!("X-Forwarded-For: {claim}")]);
        expect_eq(response.status, status, claim);
    }
}

/// Another site's page is refused before a password is asked for, and the host before the origin.
#[test]
fn the_order_of_the_checks() {
    let keys = "hostnames = \"gate.example\"; auth = { type = \"basic\"; file = \"@/users\"; };";
    let daemon = start(keys);
    let _server = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    let ann = basic("ann", "secret");
    for (host, origin, credential, status) in [
        ("gate.example", "https://evil.example", "", 403),
        ("gate.example", "https://evil.example", &*ann, 403),
        ("evil.example", "https://evil.example", &*ann, 421),
        ("evil.example", "http://evil.example", "", 421),
        ("gate.example", "http://gate.example", "", 401),
        ("gate.example", "http://gate.example", &*ann, 101),
    ] {
        let origin = format!("Origin: {origin}");
        let fields: Vec<&str> = [&*origin, credential].into_iter().filter(|field| !field.is_empty()).collect();
        let text = handshake("/who", &[], &fields).replace("gate.example\r\nUpgrade", &format!("{host}\r\nUpgrade"));
        expect_eq(visitor.ask(&text).1.status, status, (host, &fields));
    }
}

/// A connection stays open after a refused page, and the next request has a credential of its own.
#[test]
fn requests_on_one_connection() {
    let daemon = start(
        "auth = { type = \"basic\"; file = \"@/users\"; }; \
        paths = ({ path = \"^/open\"; auth = { type = \"none\"; }; });",
    );
    let server = daemon.listen("who");
    let ann = basic("ann", "secret");
    let visitor = Visitor::new(&daemon, 1);
    // A remembered admission needs no question.
    expect_eq(visitor.get("/page", &[&ann]).status, 200, "before");
    let mut wire = visitor.wire();
    for (method, path, field, status) in [
        ("GET", "/page", "", 401),
        ("GET", "/page", &*ann, 200),
        ("GET", "/page", "", 401),
        ("HEAD", "/page", "", 401),
        ("HEAD", "/page", &*ann, 200),
        ("GET", "/open/page", "", 200),
        ("GET", "/nosuch", "", 401),
        ("GET", "/nosuch", &*ann, 404),
    ] {
        let fields = if field.is_empty() { vec![] } else { vec![field] };
        wire.send(request(method, path, &fields));
        let response = if method == "HEAD" { wire.response_head() } else { wire.response() };
        expect_eq((response.status, response.field("Connection")), (status, "keep-alive"), (method, path));
    }
    // All at once.
    wire.send(request("GET", "/page", &[&ann]) + &request("GET", "/page", &[]) + &request("GET", "/open/page", &[]));
    let statuses = [(); 3].map(|()| wire.response().status);
    assert_eq!(statuses, [200, 401, 200]);
    // A body is not the next request.
    let body = request("GET", "/page", &[&ann]);
    wire.send(request("POST", "/page", &[&format!("Content-Length: {}", body.len())]) + &body);
    expect_eq(wire.response().status, 401, "a POST");
    wire.send(request("GET", "/open/page", &[]));
    expect_eq(wire.response().status, 200, "the request after the POST");
    // After a refused handshake frames may follow, so that the connection ends.
    let mut refused = visitor.wire();
    let response = refused.upgrade("/who", &[]);
    expect_eq((response.status, response.field("Connection")), (401, "close"), "a handshake without a credential");
    refused.expect_end();
    assert!(server.is_idle());
    expect_eq(wire.upgrade("/who", &[&ann]).status, 101, "a handshake on the same connection");
    let backend = server.accept();
    assert_eq!(read_hello(&mut backend.stream()).unwrap().user, "ann");
    drop(backend);
    Client::new(wire).expect_close_handshake(1000);
    daemon.log().wait_for(&["end client=127.1.0.1:", "name=\"who\"", "user=\"ann\""]);
}

/// Servers that share an address have rules of their own.
#[test]
fn hosts_and_their_rules() {
    let port = free_port("127.0.0.1");
    let server = |host: &str, keys: &str| {
        format!(
            "{{ listen = \"127.0.0.1:{port}\"; hostname = \"{host}\"; {keys} document = {{ docroot = \"@/www\"; }};
                websocket = {{ docroot = \"@/run\"; }}; }}"
        )
    };
    let basic_of = |user: &str| format!("auth = {{ type = \"Basic\"; user = \"{user}\"; passwd = \"secret\"; }};");
    let servers = [
        server("open.example", ""),
        server("auth.example", &basic_of("ann")),
        server("other.example", &basic_of("bob")),
    ];
    let text = format!("limits = {{ {} }}; servers = ({});", patient(""), servers.join(", "));
    let daemon = Daemon::start_configured_by(new_folder(), &text, uakari());
    let backend = daemon.listen("who");
    let visitor = Visitor::new(&daemon, 1);
    for (host, user, status) in [
        ("open.example", "", 200),
        ("auth.example", "", 401),
        ("AUTH.example:80", "", 401),
        ("other.example", "", 401),
        ("auth.example", "ann", 200),
        ("AUTH.Example", "ann", 200),
        ("other.example", "bob", 200),
        ("other.example", "ann", 401),
        ("auth.example", "bob", 401),
    ] {
        let field = basic(user, "secret");
        let fields = if user.is_empty() { vec![] } else { vec![&*field] };
        let to_host = |text: String| text.replace("gate.example", host);
        expect_eq(visitor.ask(&to_host(request("GET", "/page", &fields))).1.status, status, (host, user));
        let absolute = to_host(request("GET", "http://gate.example/page", &fields));
        expect_eq(visitor.ask(&absolute).1.status, status, (host, user));
        let wanted = if status == 200 { 101 } else { status };
        expect_eq(visitor.ask(&to_host(handshake("/who", &[], &fields))).1.status, wanted, (host, user));
        if wanted == 101 {
            drop(backend.accept());
        }
    }
    assert!(backend.is_idle());
}
