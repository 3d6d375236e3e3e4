//! Autobahn's test suite, about 300 cases, on both drivers. It needs wstest, which is slow to install, and a release
//! build: `make conformance`.

use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, project};
use crate::drivers::{NO_RING, has_io_uring};
use crate::foreign;
use crate::process::{Folder, Process, run, skipped};

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_on_io_uring() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    expect_all_cases(proxied("uring"));
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_on_epoll() {
    expect_all_cases(proxied("epoll"));
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode_on_io_uring() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    expect_all_cases(direct("uring"));
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode_on_epoll() {
    expect_all_cases(direct("epoll"));
}

fn proxied(driver: &str) -> (Daemon, Process) {
    foreign::start(&["--driver", driver, "--protocol", "frames"], &["--protocol", "frames"])
}

/// The backend speaks WebSocket itself, through utils/websocket.
fn direct(driver: &str) -> (Daemon, Process) {
    foreign::start(&["--driver", driver, "--options", "direct"], &["--direct"])
}

/// The results of each case equal tests/conformance/expected.txt.
fn expect_all_cases((daemon, _echo): (Daemon, Process)) {
    foreign::tool("wstest/bin/wstest");
    let folder = Folder::new();
    let mut command = Command::new(project().join("tests/conformance/run"));
    command.arg(format!("ws://127.0.0.1:{}/echo", daemon.port)).arg(folder.path());
    command.env("UAKARI_TOOLS", foreign::tools());
    let finished = run(&mut command, Duration::from_secs(20 * 60));
    assert!(finished.status.success(), "{}\n{}", finished.out, finished.err);
    println!("{}", finished.out);
}
