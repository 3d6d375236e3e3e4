//! Clients that others wrote, a browser among them: each is a script that runs against a daemon.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, project};
use crate::process::{Folder, Process, run};

/// A script of `tests/clients`, a browser's run included.
const SCRIPT_TIME: Duration = Duration::from_secs(150);

/// The tools' folder: as told, or where `tests/install-tools` puts it.
pub fn tools() -> PathBuf {
    let told = std::env::var_os("UAKARI_TOOLS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let tools = told.unwrap_or_else(|| cache.unwrap_or_else(home).join("uakari-tools"));
    assert!(tools.is_dir(), "the folder {} is missing: run `make tools`", tools.display());
    tools
}

/// One of the tools.
pub fn tool(name: &str) -> PathBuf {
    let path = tools().join(name);
    assert!(path.exists(), "{} is missing: run `make tools`", path.display());
    path
}

/// A daemon as the scripts expect it.
pub fn start() -> (Daemon, Process) {
    let www = project().join("www");
    let daemon = Daemon::start(&["--protocol", "frames", "--deny", "^/denied", "--www", www.to_str().unwrap()]);
    let echo = daemon.echo("echo", &["--protocol", "frames", "-m", "2000"]);
    (daemon, echo)
}

/// Runs a script; it must say that something is ok, and nothing else.
fn expect_ok(program: impl AsRef<std::ffi::OsStr>, script: &str, scheme: &str, more: &[&str]) {
    let (daemon, _echo) = start();
    let mut command = Command::new(program);
    command.arg(project().join("tests/clients").join(script)).arg(format!("{scheme}://127.0.0.1:{}", daemon.port));
    command.args(more).env("UAKARI_TOOLS", tools());
    let finished = run(&mut command, SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success(), "{script} ended with {}:\n{out}\n{err}", finished.status);
    assert!(out.contains("ok - ") && !out.contains("not ok"), "{script}:\n{out}\n{err}");
}

#[test]
fn pythons_websockets() {
    expect_ok(tool("venv/bin/python"), "websockets_client.py", "ws", &[]);
}

#[test]
fn nodes_ws() {
    tool("node_modules/ws");
    expect_ok("node", "ws_client.cjs", "ws", &[]);
}

#[test]
fn raw_sockets() {
    expect_ok("python3", "raw.py", "http", &[]);
}

#[test]
fn curl() {
    expect_ok("bash", "curl.sh", "http", &[]);
}

#[test]
fn chromium() {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    expect_ok("node", "browser.mjs", "http", &[&folder.join("screenshots")]);
}
