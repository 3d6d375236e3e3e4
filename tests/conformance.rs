//! Autobahn's test suite, some 300 cases: it wants a tool that is slow to install, and a release build (`make conformance`).

use std::process::Command;
use std::time::Duration;

use crate::daemon::project;
use crate::foreign;
use crate::process::{Folder, run};

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn() {
    foreign::tool("wstest/bin/wstest");
    let (daemon, _echo) = foreign::start();
    let folder = Folder::new();
    let mut command = Command::new(project().join("tests/conformance/run"));
    command.arg(format!("ws://127.0.0.1:{}/echo", daemon.port)).arg(folder.path());
    command.env("UAKARI_TOOLS", foreign::tools());
    let finished = run(&mut command, Duration::from_secs(20 * 60));
    assert!(finished.status.success(), "{}\n{}", finished.out, finished.err);
    assert!(project().join("tests/conformance/expected.txt").exists(), "there is nothing to compare with");
    println!("{}", finished.out);
}
