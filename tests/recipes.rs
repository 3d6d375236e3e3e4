//! The blocks of docs/recipes.md, each run with its program.

use std::fs;
use std::path::Path;

use crate::client::Client;
use crate::daemon::{Daemon, project, shown_in, uakari};
use crate::foreign::{SCRIPT_TIME, command, tool, tools};
use crate::process::{Folder, Process, eventually, run};
use crate::proxies::programs::{self, start_on_free_port};
use crate::proxies::{Proxy, proxy_folder};
use crate::server::{Kind, connect};
use crate::tls::authority;
use crate::wire::{Response, Wire};

fn recipe(language: &str, part: &str) -> String {
    shown_in("docs/recipes.md", language, part)
}

/// Replaces texts; each must occur.
fn replace(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "no {from:?} in:\n{text}");
        text = text.replace(from, to);
    }
    text
}

/// A gateway as a recipe for proxies with this text configures it, with an echo server and the project's pages.
fn behind_a_proxy(part: &str) -> (Daemon, Process) {
    let www = project().join("www");
    let text = replace(
        recipe("libconfig", part),
        &[("127.0.0.1:8080", "127.0.0.1:0"), ("/srv/www", www.to_str().unwrap()), ("/run/websocket", "@/run")],
    );
    let daemon = Daemon::start_configured(&text);
    let echo = daemon.echo("echo", &[]);
    (daemon, echo)
}

/// A handshake of a client with the address 127.0.0.2, with the Origin and Host of a site of this proxy.
fn handshake(proxy: &Proxy, origin: &str) -> (Wire, Response) {
    let mut wire = proxy.wire(2);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    wire.send(format!(
        "GET /echo HTTP/1.1\r\nHost: www.example.org:{}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}\r\n\r\n",
        proxy.port
    ));
    let response = wire.response();
    (wire, response)
}

/// Every recipe for a proxy: WebSockets of the proxy's own origin alone, whose clients one of the gateways knows.
fn expect_proxied(daemons: &[&Daemon], proxy: &Proxy) {
    let (wire, response) = handshake(proxy, &format!("{}://www.example.org:{}", proxy.scheme(), proxy.port));
    assert_eq!(response.status, 101, "{response:?}");
    let mut client = Client::new(wire);
    client.text("through the proxy");
    client.expect_text("through the proxy");
    client.finish(1000);
    let (_wire, response) = handshake(proxy, &format!("{}://evil.example", proxy.scheme()));
    assert_eq!(response.status, 403, "{response:?}");
    eventually("a log has the client", || {
        let texts: String = daemons.iter().map(|daemon| daemon.log().text()).collect();
        ["status=101", "status=403"]
            .iter()
            .all(|status| texts.lines().any(|line| line.contains("end client=127.0.0.2:") && line.contains(status)))
    });
}

/// Runs the script that opens a recipe's page.
fn expect_page(port: u16, folder: &Folder, what: &str) {
    tool("node_modules/playwright-core");
    let script = project().join("tests/clients/recipes.mjs");
    let base = format!("http://127.0.0.1:{port}");
    let mut program = command("node");
    program.arg(script).args([base, folder.join("pictures"), what.to_owned()]).env("UAKARI_TOOLS", tools());
    let finished = run(&mut program, SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success() && out.contains("ok - "), "{what} ended with {}:\n{out}\n{err}", finished.status);
}

/// The configuration for proxies that tell the client in fields of requests, and for those that send PROXY headers.
const FIELDS: &str = "the proxy: it tells";
const HEADERS: &str = "every connection begins with a PROXY header";

#[test]
#[ignore = "needs nginx and chromium"]
fn nginx() {
    let (daemon, _echo) = behind_a_proxy(FIELDS);
    let folder = Folder::new();
    let proxy = Proxy::plain(programs::nginx(&folder, |port| {
        let (listen, gate) = (format!("listen 127.0.0.1:{port};"), format!("127.0.0.1:{}", daemon.port));
        replace(recipe("nginx", "proxy_pass"), &[("listen 80;", &listen), ("127.0.0.1:8080", &gate)])
    }));
    expect_proxied(&[&daemon], &proxy);
    expect_page(proxy.port, &folder, "echo");
}

#[test]
#[ignore = "needs apache2 and chromium"]
fn apache() {
    let (daemon, _echo) = behind_a_proxy(FIELDS);
    let folder = Folder::new();
    let proxy = Proxy::plain(programs::apache(&folder, &["headers"], |port| {
        let (host, gate) = (format!("<VirtualHost 127.0.0.1:{port}>"), format!("127.0.0.1:{}", daemon.port));
        replace(recipe("apache", "ProxyPass"), &[("<VirtualHost *:80>", &host), ("127.0.0.1:8080", &gate)])
    }));
    expect_proxied(&[&daemon], &proxy);
    expect_page(proxy.port, &folder, "echo");
}

/// haproxy with the recipe that has this text, on a port in place of 80, before this gateway, which is checked once.
fn start_haproxy(folder: &Folder, part: &str, daemon: &Daemon) -> Proxy {
    let proxy = Proxy::plain(programs::haproxy(folder, |port| {
        let gate = format!("127.0.0.1:{}", daemon.port);
        let text = replace(
            recipe("haproxy", part),
            &[("bind :80", &format!("bind 127.0.0.1:{port}")), ("127.0.0.1:8080", &gate)],
        );
        // One check with a minute of time: a gateway that is suspended is not down.
        replace(
            text,
            &[("backend gateway", "backend gateway\n    option log-health-checks"), (" check", " inter 60s check")],
        )
    }));
    proxy.process.err.wait_for(&["Health check for server gateway/uakari succeeded"]);
    proxy
}

#[test]
#[ignore = "needs haproxy and chromium"]
fn haproxy() {
    let (daemon, _echo) = behind_a_proxy(FIELDS);
    let folder = Folder::new();
    let proxy = start_haproxy(&folder, "httpchk", &daemon);
    expect_proxied(&[&daemon], &proxy);
    expect_page(proxy.port, &folder, "echo");
    let said = proxy.process.err.text();
    assert!(!said.contains("DOWN"), "the health check fails:\n{said}");
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_that_forwards_bytes() {
    let (daemon, _echo) = behind_a_proxy(HEADERS);
    let folder = Folder::new();
    let proxy = start_haproxy(&folder, "check-send-proxy", &daemon);
    expect_proxied(&[&daemon], &proxy);
    let said = proxy.process.err.text();
    assert!(!said.contains("DOWN"), "the health check fails:\n{said}");
}

/// stunnel with this service of the recipes, which connects to `next` in place of the address in the recipe.
fn start_stunnel(folder: &Folder, service: &str, address: &str, next: u16) -> Proxy {
    let started = programs::stunnel(folder, |port| {
        replace(
            recipe("ini", service),
            &[
                ("= 443\n", &format!("= 127.0.0.1:{port}\n")),
                (address, &format!("127.0.0.1:{next}")),
                ("/etc/stunnel/www.example.org.pem", &authority::path(folder, "gate.pem")),
            ],
        )
    });
    Proxy::secure(started, folder)
}

#[test]
#[ignore = "needs stunnel"]
fn stunnel() {
    let (daemon, _echo) = behind_a_proxy(HEADERS);
    let folder = proxy_folder();
    let proxy = start_stunnel(&folder, "[web]", "127.0.0.1:8080", daemon.port);
    expect_proxied(&[&daemon], &proxy);
}

#[test]
#[ignore = "needs stunnel and haproxy"]
fn stunnel_in_front_of_haproxy() {
    let gateways = [(); 2].map(|()| behind_a_proxy(FIELDS));
    let [one, two] = gateways.each_ref().map(|(daemon, _)| daemon);
    let folders = [proxy_folder(), Folder::new()];
    let (_haproxy, port) = programs::haproxy(&folders[1], |port| {
        let [bind, one, two] = [port, one.port, two.port].map(|port| format!("127.0.0.1:{port}"));
        let addresses = [("127.0.0.1:8443", &*bind), ("127.0.0.1:8080", &one), ("127.0.0.1:8081", &two)];
        // Checked once, with a minute of time: a gateway that is suspended is not down.
        replace(replace(recipe("haproxy", "accept-proxy"), &addresses), &[(" check", " inter 60s check")])
    });
    let proxy = start_stunnel(&folders[0], "[https]", "127.0.0.1:8443", port);
    expect_proxied(&[one, two], &proxy);
}

/// The status of a page for this user and password, which the client of the recipe gets.
fn status_of_curl(daemon: &Daemon, user: &str) -> String {
    let url = format!("https://127.0.0.1:{}/page", daemon.port);
    let authority = authority::path(daemon.folder(), "root.crt");
    let mut status = String::new();
    eventually("it is decided", || {
        let mut curl = command("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &authority, "-u", user, &url]);
        status = run(&mut curl, SCRIPT_TIME).out;
        // A helper that is suspended is too late.
        status != "503"
    });
    status
}

#[test]
#[ignore = "needs htpasswd and curl"]
fn a_password_for_a_server() {
    let folder = Folder::new();
    authority::issue(&folder);
    let chain = ["server.crt", "inter.crt"].map(|name| fs::read_to_string(authority::path(&folder, name)).unwrap());
    fs::write(authority::path(&folder, "chain.crt"), chain.concat()).unwrap();
    fs::create_dir(folder.join("www")).unwrap();
    fs::write(folder.join("www/page"), "page").unwrap();
    let users = folder.join("users");
    // The second line needs root.
    let commands = recipe("sh", "htpasswd -c");
    let (first, owner) = commands.split_once('\n').unwrap();
    assert!(owner.starts_with("chown root:www-data /etc/uakari/users && chmod 640 /etc/uakari/users"), "{commands}");
    let add = |flags: &str, user: &str, password: &str| {
        let texts = [("htpasswd -c", flags), ("/etc/uakari/users", &users), ("alice", user)];
        let line = replace(first.to_owned(), &texts);
        let finished = run(command("sh").args(["-c", &format!("printf %s '{password}' | {line}")]), SCRIPT_TIME);
        assert!(finished.status.success(), "{line}: {}", finished.err);
    };
    add("htpasswd -i -c", "alice", "a secret");
    let text = replace(
        recipe("libconfig", "/etc/uakari/users"),
        &[
            ("user = \"www-data\";\n", ""),
            ("servers = ({\n", "servers = ({\n    listen = \"127.0.0.1:0\";\n"),
            ("/etc/uakari/server.crt", &authority::path(&folder, "chain.crt")),
            ("/etc/uakari/server.key", &authority::path(&folder, "server.key")),
            ("/srv/www", "@/www"),
            ("/run/websocket", "@/run"),
            ("/etc/uakari/users", &users),
        ],
    );
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    for (user, status) in [("alice:a secret", "200"), ("alice:a guess", "401"), ("bob:another", "401")] {
        assert_eq!(status_of_curl(&daemon, user), status, "{user}");
    }
    // Without -c another user is added, who may log in without a reload.
    add("htpasswd -i", "bob", "another");
    eventually("bob may log in", || status_of_curl(&daemon, "bob:another") == "200");
    assert_eq!(status_of_curl(&daemon, "alice:a secret"), "200");
}

/// A VNC server, shown by noVNC.
#[test]
#[ignore = "needs Xtigervnc, noVNC and chromium"]
fn novnc() {
    let folder = Folder::new();
    let display = folder.join("vnc");
    let (_vnc, vnc_port) = start_on_free_port("Xtigervnc", |port| {
        let mut program = command("Xtigervnc");
        // Displays above those of people; each test run has a port of its own.
        let number = format!(":{}", 1000 + port);
        program.args([&number, "-rfbport", &port.to_string(), "-localhost", "-SecurityTypes", "None"]);
        program.args(["-geometry", "640x480", "-nolisten", "tcp", "-nolisten", "local", "-desktop", &display]);
        Process::start(&mut program)
    });
    let pages = tools().join("novnc/usr/share/novnc");
    assert!(pages.is_dir(), "{} is missing: run `make tools`", pages.display());
    let text = replace(
        recipe("libconfig", "websockify"),
        &[
            ("127.0.0.1:6080", "127.0.0.1:0"),
            ("/usr/share/novnc", pages.to_str().unwrap()),
            ("127.0.0.1:5900", &format!("127.0.0.1:{vnc_port}")),
        ],
    );
    let daemon = Daemon::start_configured(&text);
    expect_page(daemon.port, &folder, "novnc");
}

#[test]
#[ignore = "needs node"]
fn an_application_with_http_and_websocket() {
    let folder = Folder::new();
    fs::write(folder.join("app.js"), recipe("js", "WebSocketServer")).unwrap();
    let (_application, port) = start_on_free_port("node", |port| {
        let mut program = command("node");
        program.arg(folder.join("app.js")).arg(port.to_string());
        Process::start(program.env("NODE_PATH", tool("node_modules")))
    });
    let www = project().join("www");
    let text = replace(
        recipe("libconfig", "uploads of 1 GiB"),
        &[
            ("127.0.0.1:8080", "127.0.0.1:0"),
            ("127.0.0.1:3000", &format!("127.0.0.1:{port}")),
            ("/srv/www", www.to_str().unwrap()),
        ],
    );
    let daemon = Daemon::start_configured(&text);
    let mut wire = Wire::connect(daemon.port);
    let response = wire.get("/api/x");
    assert_eq!((response.status, &*response.text()), (200, "GET /api/x for 127.0.0.1\n"), "{response:?}");
    assert_eq!(wire.get("/index.html").status, 200);
    let mut client = daemon.connect("/live");
    client.text("hello");
    client.expect_text("hello");
    client.finish(1000);
}

#[test]
#[ignore = "needs node"]
fn a_server_in_node() {
    let daemon = Daemon::start(&[]);
    let script = daemon.folder().join("upper.js");
    fs::write(&script, recipe("js", "toUpperCase")).unwrap();
    let path = daemon.socket("upper");
    let node = Process::start(command("node").arg(&script).arg(&path));
    node.out.wait_for(&["listening on "]);
    for text in ["hello", "again"] {
        let mut client = daemon.connect("/upper");
        client.text(text);
        client.expect_text(&text.to_uppercase());
        client.finish(1000);
    }
    expect_replaced(&path, node, &script);
}

/// The program of README.md.
#[test]
#[ignore = "needs python3"]
fn a_server_in_python() {
    let daemon = Daemon::start(&[]);
    let path = daemon.socket("upper");
    let text = replace(shown_in("README.md", "python", "upper()"), &[("/tmp/websocket/upper", path.to_str().unwrap())]);
    let _python = Process::start(command("python3").args(["-c", &text]));
    eventually("the server listens", || connect(&path, Kind::Stream).is_ok());
    let mut client = daemon.connect("/upper");
    client.text("hello");
    client.expect_text("HELLO");
    client.finish(1000);
}

/// A second start replaces the socket file of the first.
fn expect_replaced(path: &Path, first: Process, script: &str) {
    drop(first);
    assert!(path.exists(), "the first run should have left its socket file");
    let _second = Process::start(command("node").arg(script).arg(path));
    eventually("the second server listens", || connect(path, Kind::Stream).is_ok());
}
