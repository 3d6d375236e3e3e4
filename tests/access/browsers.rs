//! Real browsers: passwords, cookies and tokens of pages and WebSockets, which end while they are open.

use super::*;
use crate::daemon::{configuration, project};
use crate::foreign::{SCRIPT_TIME, command, tools};
use crate::process::{Finished, Process};

const TOKENS: &str = "0123456789abcdef:tina:guests\n";

/// Pages and echo servers for each kind of credential.
const KEYS: &str = "paths = (
    { path = \"^/basic\"; auth = { type = \"basic\"; file = \"@/users\"; realm = \"Here\"; }; },
    { path = \"^/cookie\"; auth = { type = \"cookie\"; name = \"sid\"; tokens = \"@/tokens\"; recheck-ms = 1000; }; },
    { path = \"^/query\"; auth = { type = \"query\"; tokens = \"@/tokens\"; }; });";

/// A certificate of the daemon's own authority.
const TLS: &str = "tls = { self-signed = true; dir = \"@/tls\"; };";

/// Without TLS, then with it: the browser trusts the daemon's authority.
fn expect_ok(browser: &str) {
    expect_ok_with(browser, "");
    expect_ok_with(browser, TLS);
}

fn expect_ok_with(browser: &str, tls: &str) {
    let folder = new_folder();
    put(&folder, "tokens", TOKENS);
    for page in ["basic", "cookie", "open"] {
        fs::write(folder.join(&format!("www/{page}.html")), format!("<!doctype html><title>{page}</title>")).unwrap();
    }
    let text = configuration("", "protocol = \"frames\";").replacen("document", &format!("{tls} {KEYS} document"), 1);
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    let _servers =
        ["basic", "cookie", "query"].map(|kind| daemon.echo(&format!("{kind}-echo"), &["--protocol", "frames"]));
    let mut node = command("node");
    node.arg(project().join("tests/clients/auth.mjs")).arg(browser);
    if tls.is_empty() {
        node.arg(format!("http://127.0.0.1:{}", daemon.port));
    } else {
        node.arg(format!("https://127.0.0.1:{}", daemon.port));
        node.env("UAKARI_AUTHORITY", daemon.folder().join("tls/ca.pem"));
    }
    let mut script = Process::start(node.env("UAKARI_TOOLS", tools()));
    let is_open = script.out.wait_within(SCRIPT_TIME, |lines| {
        lines.iter().find(|line| line.contains("the token may go now") || line.contains("not ok")).cloned()
    });
    assert!(is_open.is_some_and(|line| !line.contains("not ok")), "{browser}: {}", script.out.text());
    put(daemon.folder(), "tokens", "fedcba9876543210:tom\n");
    let Finished { status, out, err } = script.wait(SCRIPT_TIME);
    assert!(status.success() && out.contains("ok - ") && !out.contains("not ok"), "{browser}: {status}\n{out}\n{err}");
    let log = daemon.log();
    log.wait_for(&["name=\"basic-echo\"", "user=\"ann\""]);
    log.wait_for(&["name=\"cookie-echo\"", "user=\"tina\"", "code=1008"]);
    log.wait_for(&["name=\"query-echo\"", "user=\"tina\""]);
    assert!(!log.text().contains("0123456789abcde"), "{}", log.text());
}

#[test]
#[ignore = "needs chromium"]
fn chromium() {
    expect_ok("chromium");
}

#[test]
#[ignore = "needs firefox-esr"]
fn firefox() {
    expect_ok("firefox");
}
