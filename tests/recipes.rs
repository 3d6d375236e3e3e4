//! The blocks of docs/recipes.md, each run with its program.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::client::Client;
use crate::daemon::{Daemon, project, shown_in};
use crate::foreign::{SCRIPT_TIME, command, tool, tools};
use crate::process::{Folder, Process, eventually, free_port, run};
use crate::server::{Kind, connect};
use crate::wire::{Response, Wire};

/// Free ports that are tried: one can be taken before the program binds it.
const PORTS_MAX: usize = 5;

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

/// The gateway as the recipes for proxies configure it, with an echo server and the project's pages.
fn behind_a_proxy() -> (Daemon, Process) {
    let www = project().join("www");
    let text = replace(
        recipe("libconfig", "clients-per-address = 0"),
        &[("127.0.0.1:8080", "127.0.0.1:0"), ("/srv/www", www.to_str().unwrap()), ("/run/websocket", "@/run")],
    );
    let daemon = Daemon::start_configured(&text);
    let echo = daemon.echo("echo", &[]);
    (daemon, echo)
}

/// Starts a program with a free TCP port and waits until it listens there.
fn start_on_free_port(name: &str, start: impl Fn(u16) -> Process) -> (Process, u16) {
    let mut said = String::new();
    for _ in 0..PORTS_MAX {
        let port = free_port("127.0.0.1");
        let mut process = start(port);
        let mut has_ended = false;
        eventually(name, || {
            has_ended = process.has_ended();
            has_ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if !has_ended {
            return (process, port);
        }
        said += &format!("{}{}\n", process.out.text(), process.err.text());
    }
    panic!("{name} does not start:\n{said}");
}

/// A handshake with the Origin and Host of a site on this port.
fn handshake(port: u16, origin: &str) -> (Wire, Response) {
    let mut wire = Wire::connect(port);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    wire.send(format!(
        "GET /echo HTTP/1.1\r\nHost: www.example.org:{port}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}\r\n\r\n"
    ));
    let response = wire.response();
    (wire, response)
}

/// Every recipe for a proxy: pages and WebSockets of the proxy's own origin alone.
fn expect_proxied(port: u16) {
    let (wire, response) = handshake(port, &format!("http://www.example.org:{port}"));
    assert_eq!(response.status, 101, "{response:?}");
    let mut client = Client::new(wire);
    client.text("through the proxy");
    client.expect_text("through the proxy");
    client.finish(1000);
    let (_wire, response) = handshake(port, "http://evil.example");
    assert_eq!(response.status, 403, "{response:?}");
    let folder = Folder::new();
    expect_page(port, &folder, "echo");
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

#[test]
#[ignore = "needs nginx and chromium"]
fn nginx() {
    let (daemon, _echo) = behind_a_proxy();
    let folder = Folder::new();
    let (_nginx, port) = start_on_free_port("nginx", |port| {
        let sites = replace(
            recipe("nginx", "proxy_pass"),
            &[
                ("listen 80;", &format!("listen 127.0.0.1:{port};")),
                ("127.0.0.1:8080", &format!("127.0.0.1:{}", daemon.port)),
            ],
        );
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", folder.join(name)))
            .concat();
        let text = format!(
            "daemon off; master_process off; pid {};\nevents {{}}\nhttp {{ access_log off;\n{temporary}{sites} }}\n",
            folder.join("pid")
        );
        std::fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = Command::new(tool("bin/nginx"));
        Process::start(command.args(["-e", "stderr", "-p", &folder.join(""), "-c", &folder.join("nginx.conf")]))
    });
    expect_proxied(port);
}

#[test]
#[ignore = "needs apache2 and chromium"]
fn apache() {
    let (daemon, _echo) = behind_a_proxy();
    let folder = Folder::new();
    let (_apache, port) = start_on_free_port("apache2", |port| {
        let site = replace(
            recipe("apache", "ProxyPass"),
            &[
                ("<VirtualHost *:80>", &format!("<VirtualHost 127.0.0.1:{port}>")),
                ("127.0.0.1:8080", &format!("127.0.0.1:{}", daemon.port)),
            ],
        );
        let modules: String = ["mpm_event", "authz_core", "proxy", "proxy_http"]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .concat();
        let (root, pid) = (folder.join(""), folder.join("pid"));
        let text = format!(
            "ServerRoot {root}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {pid}\nMutex pthread\n\
             ErrorLog /dev/stderr\n{modules}{site}"
        );
        std::fs::write(folder.join("apache.conf"), text).unwrap();
        // A single process: killed, it leaves no children.
        let mut program = command("/usr/sbin/apache2");
        Process::start(program.args(["-X", "-f", &folder.join("apache.conf")]))
    });
    expect_proxied(port);
}

#[test]
#[ignore = "needs haproxy and chromium"]
fn haproxy() {
    let (daemon, _echo) = behind_a_proxy();
    let folder = Folder::new();
    let (haproxy, port) = start_on_free_port("haproxy", |port| {
        let text = replace(
            recipe("haproxy", "httpchk"),
            &[
                ("bind :80", &format!("bind 127.0.0.1:{port}")),
                // One check with a minute of time: a gateway that is suspended is not down.
                ("option httpchk", "option httpchk\n    option log-health-checks"),
                ("127.0.0.1:8080 check", &format!("127.0.0.1:{} check inter 60s", daemon.port)),
            ],
        );
        std::fs::write(folder.join("haproxy.cfg"), text).unwrap();
        Process::start(Command::new(tool("bin/haproxy")).args(["-db", "-f", &folder.join("haproxy.cfg")]))
    });
    haproxy.err.wait_for(&["Health check for server gateway/uakari succeeded"]);
    expect_proxied(port);
    assert!(!haproxy.err.text().contains("DOWN"), "the health check fails:\n{}", haproxy.err.text());
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
fn a_server_in_node() {
    let daemon = Daemon::start(&[]);
    let script = daemon.folder().join("upper.js");
    std::fs::write(&script, recipe("js", "toUpperCase")).unwrap();
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
