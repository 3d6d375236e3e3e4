//! Autobahn's test suite, some 300 cases: it wants a tool that is slow to install, and a release build (`make conformance`).

use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, project};
use crate::foreign;
use crate::process::{Folder, Process, run};

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn() {
    expect(foreign::start(&["--protocol", "frames"], &["--protocol", "frames"]), "expected.txt");
}

/// The server speaks for itself, with the package that it has from us.
#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode() {
    expect(foreign::start(&["--options", "direct"], &["--direct"]), "expected-direct.txt");
}

/// Each case must go as it did when the expected results were written.
fn expect((daemon, _echo): (Daemon, Process), expected: &str) {
    foreign::tool("wstest/bin/wstest");
    let folder = Folder::new();
    let mut command = Command::new(project().join("tests/conformance/run"));
    command.arg(format!("ws://127.0.0.1:{}/echo", daemon.port)).arg(folder.path()).arg(expected);
    command.env("UAKARI_TOOLS", foreign::tools());
    let finished = run(&mut command, Duration::from_secs(20 * 60));
    assert!(finished.status.success(), "{}\n{}", finished.out, finished.err);
    assert!(project().join("tests/conformance").join(expected).exists(), "there is nothing to compare with");
    println!("{}", finished.out);
}
