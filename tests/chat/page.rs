//! `www/webchat.html` in browsers, with a chat that ends and begins again.

use std::time::Duration;

use super::{Room, Way};
use crate::daemon::project;
use crate::foreign::{self, tool, tools};
use crate::process::{Folder, Process};

/// Two browsers and all that they do.
const SCRIPT_TIME: Duration = Duration::from_secs(240);

fn drive(way: Way, more: &[&str]) {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    // The page ends its messages with newlines, which keeps them apart where nothing else does.
    let options = if way == Way::Preloaded { &["-w", "--protocol", "lines"][..] } else { &["-w"] };
    let mut room = Room::open_with(way, options, &["--www", project().join("www").to_str().unwrap()]);
    let _plain = room.without_commands("plain");
    let mut command = foreign::command("node");
    command.arg(project().join("tests/clients/chat.mjs")).arg(format!("http://127.0.0.1:{}", room.daemon.port));
    // To be looked at by somebody.
    let shots = std::env::var("UAKARI_SCREENSHOTS").unwrap_or_else(|_| folder.join("screenshots"));
    let mut script = Process::start(command.arg(shots).args(more).env("UAKARI_TOOLS", tools()));
    let is_asked = |lines: &[String]| lines.iter().any(|line| line == "restart the chat").then_some(());
    // Else it has ended, and tells why.
    if script.out.wait_within(SCRIPT_TIME, is_asked).is_some() {
        room.restart();
    }
    let finished = script.wait(SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success(), "{way:?}: {}:\n{out}\n{err}", finished.status);
    assert!(out.contains("ok - ") && !out.contains("not ok"), "{way:?}:\n{out}\n{err}");
    room.expect_nobody_dropped();
}

#[test]
#[ignore = "needs chromium"]
fn proxied() {
    drive(Way::Proxied("packet"), &[]);
}

#[test]
#[ignore = "needs chromium"]
fn direct() {
    drive(Way::Direct, &["talk"]);
}

#[test]
#[ignore = "needs chromium"]
fn preloaded() {
    drive(Way::Preloaded, &["talk"]);
}
