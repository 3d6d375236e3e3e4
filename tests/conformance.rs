//! Autobahn's test suite, about 300 cases, on both drivers. It needs wstest, which is slow to install, and a release
//! build: `make conformance`.

use std::process::Command;
use std::time::Duration;

use crate::daemon::project;
use crate::drivers::{NO_RING, has_io_uring};
use crate::foreign::{self, Way};
use crate::process::{Folder, run, skipped};

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_on_io_uring() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    expect_all_cases(Way::Proxied, "uring");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_on_epoll() {
    expect_all_cases(Way::Proxied, "epoll");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode_on_io_uring() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    expect_all_cases(Way::Direct, "uring");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode_on_epoll() {
    expect_all_cases(Way::Direct, "epoll");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_over_tls_on_io_uring() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    expect_all_cases(Way::ProxiedTls, "uring");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_over_tls_on_epoll() {
    expect_all_cases(Way::ProxiedTls, "epoll");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode_over_tls_on_io_uring() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    expect_all_cases(Way::DirectTls, "uring");
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_in_direct_mode_over_tls_on_epoll() {
    expect_all_cases(Way::DirectTls, "epoll");
}

/// The results of each case equal tests/conformance/expected.txt.
fn expect_all_cases(way: Way, driver: &str) {
    foreign::tool("wstest/bin/wstest");
    let (daemon, _echo) = way.start(&["--driver", driver]);
    let folder = Folder::new();
    let mut command = Command::new(project().join("tests/conformance/run"));
    command.arg(format!("{}/echo", way.url("ws", &daemon))).arg(folder.path());
    command.env("UAKARI_TOOLS", foreign::tools());
    let finished = run(&mut command, Duration::from_secs(20 * 60));
    assert!(finished.status.success(), "{}\n{}", finished.out, finished.err);
    println!("{}", finished.out);
}
