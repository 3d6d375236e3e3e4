//! Foreign clients, a browser among them: each is a script that runs against a daemon.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, project};
use crate::process::{Folder, Process, run};
use crate::tls::authority;

/// Deadline of a script of `tests/clients`, in a browser too.
pub const SCRIPT_TIME: Duration = Duration::from_secs(400);

/// Declares that a test needs a program from `tests/install-tools`. `make check` omits such tests, which have the
/// attribute `ignore` with the reason "needs NAME"; `make test` runs them all.
pub fn need(name: &str) {
    let is_bare = std::env::var_os("UAKARI_BARE").is_some();
    assert!(!is_bare, "this test needs {name}: give it the attribute #[ignore = \"needs {name}\"]");
}

/// A third-party program.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    need(&program.as_ref().display().to_string());
    Command::new(program)
}

/// The tools' folder: UAKARI_TOOLS, or the default of `tests/install-tools`.
pub fn tools() -> PathBuf {
    need("the tools");
    let configured = std::env::var_os("UAKARI_TOOLS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let tools = configured.unwrap_or_else(|| cache.unwrap_or_else(home).join("uakari-tools"));
    assert!(tools.is_dir(), "the folder {} is missing: run `make tools`", tools.display());
    tools
}

/// One of the tools.
pub fn tool(name: &str) -> PathBuf {
    let path = tools().join(name);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

/// How the clients reach the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Proxied,
    Direct,
    /// With TLS.
    ProxiedTls,
    /// With TLS, which the gateway keeps while the backend speaks WebSocket itself.
    DirectTls,
}

impl Way {
    fn has_tls(self) -> bool {
        matches!(self, Way::ProxiedTls | Way::DirectTls)
    }

    /// A daemon as the scripts expect it, with these flags more, and its echo server.
    pub fn start(self, flags: &[&str]) -> (Daemon, Process) {
        let daemon = self.start_daemon(flags);
        let echo = match self {
            Way::Proxied | Way::ProxiedTls => daemon.echo("echo", &["--protocol", "frames", "-m", "2000"]),
            Way::Direct | Way::DirectTls => daemon.echo("echo", &["--direct", "-m", "2000"]),
        };
        (daemon, echo)
    }

    /// As `start`, without a server.
    pub fn start_daemon(self, flags: &[&str]) -> Daemon {
        let own = match self {
            Way::Proxied | Way::ProxiedTls => ["--protocol", "frames"],
            Way::Direct | Way::DirectTls => ["--options", "direct"],
        };
        let (folder, www) = (Folder::new(), project().join("www"));
        let mut flags = [flags, &own, &["--deny", "^/denied", "--www", www.to_str().unwrap()]].concat();
        let [certificate, key] = ["server-chain.crt", "server.key"].map(|name| authority::path(&folder, name));
        if self.has_tls() {
            authority::issue(&folder);
            flags.extend(["--tls-certificate", &certificate, "--tls-key", &key]);
        }
        Daemon::start_in(folder, &flags)
    }

    /// The daemon's address; `scheme` is "http" or "ws".
    pub fn url(self, scheme: &str, daemon: &Daemon) -> String {
        format!("{scheme}{}://127.0.0.1:{}", if self.has_tls() { "s" } else { "" }, daemon.port)
    }
}

/// Runs a script, which must print at least one "ok" and no "not ok".
fn expect_ok(way: Way, program: impl AsRef<OsStr>, script: &str, scheme: &str, more: &[&str]) {
    let is_done = (0..5).any(|_| run_script(way, &program, script, scheme, more));
    assert!(is_done, "{script}, {way:?}: the server has refused the gateway each time");
}

/// As `expect_ok`. False: it failed, and the server has refused the gateway. In direct mode it does that to a gateway
/// that is suspended for 5 s between its connection and the hand-over.
fn run_script(way: Way, program: impl AsRef<OsStr>, script: &str, scheme: &str, more: &[&str]) -> bool {
    let (daemon, echo) = way.start(&[]);
    let mut command = command(program);
    command.arg(project().join("tests/clients").join(script)).arg(way.url(scheme, &daemon));
    command.args(more).env("UAKARI_TOOLS", tools()).env("UAKARI_TEST_TIMEOUT", "300");
    if way.has_tls() {
        // Of Python, Node and curl, and of our own scripts for browsers.
        for variable in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "UAKARI_AUTHORITY"] {
            command.env(variable, authority::path(daemon.folder(), "root.crt"));
        }
    }
    let finished = run(&mut command, SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    // The first one was the test itself, which waited for the server.
    if !finished.status.success() && echo.err.text().matches("a plain local client was refused").count() > 1 {
        eprintln!("{script}, {way:?}: the server has refused the gateway:\n{out}\n{err}");
        return false;
    }
    assert!(finished.status.success(), "{script}, {way:?}, ended with {}:\n{out}\n{err}", finished.status);
    assert!(out.contains("ok - ") && !out.contains("not ok"), "{script}, {way:?}:\n{out}\n{err}");
    true
}

#[test]
#[ignore = "needs python3"]
fn pythons_websockets() {
    expect_ok(Way::Proxied, tool("venv/bin/python"), "websockets_client.py", "ws", &[]);
}

#[test]
#[ignore = "needs python3"]
fn pythons_websockets_direct() {
    expect_ok(Way::Direct, tool("venv/bin/python"), "websockets_client.py", "ws", &[]);
}

#[test]
#[ignore = "needs python3"]
fn pythons_websockets_over_tls() {
    expect_ok(Way::ProxiedTls, tool("venv/bin/python"), "websockets_client.py", "ws", &[]);
}

#[test]
#[ignore = "needs python3"]
fn pythons_websockets_direct_over_tls() {
    expect_ok(Way::DirectTls, tool("venv/bin/python"), "websockets_client.py", "ws", &[]);
}

#[test]
#[ignore = "needs node"]
fn nodes_ws() {
    tool("node_modules/ws");
    expect_ok(Way::Proxied, "node", "ws_client.cjs", "ws", &[]);
}

#[test]
#[ignore = "needs node"]
fn nodes_ws_direct() {
    tool("node_modules/ws");
    expect_ok(Way::Direct, "node", "ws_client.cjs", "ws", &[]);
}

#[test]
#[ignore = "needs node"]
fn nodes_ws_over_tls() {
    tool("node_modules/ws");
    expect_ok(Way::ProxiedTls, "node", "ws_client.cjs", "ws", &[]);
}

#[test]
#[ignore = "needs node"]
fn nodes_ws_direct_over_tls() {
    tool("node_modules/ws");
    expect_ok(Way::DirectTls, "node", "ws_client.cjs", "ws", &[]);
}

#[test]
#[ignore = "needs curl"]
fn curl() {
    expect_ok(Way::Proxied, "bash", "curl.sh", "http", &[]);
}

#[test]
#[ignore = "needs curl"]
fn curl_over_tls() {
    expect_ok(Way::ProxiedTls, "bash", "curl.sh", "http", &[]);
}

#[test]
#[ignore = "needs chromium"]
fn chromium() {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    expect_ok(Way::Proxied, "node", "browser.mjs", "http", &[&folder.join("screenshots")]);
}

#[test]
#[ignore = "needs chromium"]
fn chromium_direct() {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    expect_ok(Way::Direct, "node", "browser.mjs", "http", &[&folder.join("screenshots")]);
}

#[test]
#[ignore = "needs chromium"]
fn chromium_over_tls() {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    expect_ok(Way::ProxiedTls, "node", "browser.mjs", "http", &[&folder.join("screenshots")]);
}
