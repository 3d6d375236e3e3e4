//! Autobahn's test suite, about 300 cases, on both drivers, and with each kind of server that receives clients with TLS.
//! It needs wstest, which is slow to install, and a release build: `make conformance`.

use std::io::stdin;
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Daemon, program, project};
use crate::direct_api;
use crate::drivers::{NO_RING, has_io_uring};
use crate::foreign::{self, Way};
use crate::preload;
use crate::process::{DEADLINE, Folder, Process, eventually, run, skipped};
use crate::server::listens;
use crate::tls::offload::kernel_sessions;

/// Groups of cases without those of speed and of compression.
const GROUPS: &str = "1 2 3 4 5 6 7";

/// Servers in direct mode that echo.
#[derive(Clone, Copy)]
enum Receiver {
    /// The sample server, on the package `websocket`.
    Package,
    /// On the functions of `websocket.h`.
    Functions,
    /// A server of bytes under libwebsocket.so.
    Preloaded,
    /// It speaks RFC 6455 itself.
    Plain,
}

impl Receiver {
    const ALL: [Receiver; 4] = [Receiver::Package, Receiver::Functions, Receiver::Preloaded, Receiver::Plain];

    /// The name of its socket.
    fn name(self) -> &'static str {
        match self {
            Receiver::Package => "package",
            Receiver::Functions => "functions",
            Receiver::Preloaded => "preloaded",
            Receiver::Plain => "plain",
        }
    }

    /// The file with the results that it must have.
    fn expected(self) -> &'static str {
        if matches!(self, Receiver::Preloaded) { "streams.txt" } else { "expected.txt" }
    }

    fn start(self, daemon: &Daemon) -> Process {
        let (folder, socket) = (daemon.folder(), daemon.socket(self.name()));
        let path = socket.to_str().unwrap();
        let mut command = match self {
            Receiver::Package => return daemon.echo(self.name(), &["--direct", "-m", "2000"]),
            Receiver::Functions => {
                let mut command = Command::new(direct_api::compile(folder, "echo", "c"));
                command.arg(path);
                command
            }
            Receiver::Preloaded => {
                let library = program("libwebsocket.so");
                preload::compile(folder, path, "epoll", &[], &[], &[("LD_PRELOAD", library.to_str().unwrap())])
            }
            Receiver::Plain => {
                let (source, program) = (project().join("tests/direct/plain.c"), folder.join("plain-server"));
                let mut compiler = Command::new("cc");
                compiler.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-o", &program]).arg(source);
                let finished = run(&mut compiler, DEADLINE);
                assert!(finished.status.success(), "{}", finished.err);
                let mut command = Command::new(program);
                command.arg(path);
                command
            }
        };
        let server = Process::start(&mut command);
        eventually("the server listens", || listens(&socket));
        server
    }
}

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

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_over_tls_with_websocket_h() {
    expect_cases_of(Receiver::Functions);
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_over_tls_with_the_preloaded_library() {
    expect_cases_of(Receiver::Preloaded);
}

#[test]
#[ignore = "wants wstest: run `make conformance`"]
fn autobahn_over_tls_with_a_server_of_its_own() {
    expect_cases_of(Receiver::Plain);
}

/// Serves the host of an emulated machine, which runs wstest there, until it writes a line: the number of its cases.
/// Each client was handed over with kernel TLS.
#[test]
#[ignore = "serves the host of an emulated machine: run `make kernels`"]
fn guest_of_autobahn() {
    let before = kernel_sessions();
    let daemon = Way::DirectTls.start_daemon(&["--listen", "10.0.2.15:443"]);
    let _servers = Receiver::ALL.map(|receiver| receiver.start(&daemon));
    for receiver in Receiver::ALL {
        println!("\nkernels: serves {} {}", receiver.name(), receiver.expected());
    }
    println!("kernels: serves all");
    let mut line = String::new();
    stdin().read_line(&mut line).unwrap();
    let cases: u64 = line.trim().parse().unwrap();
    let clients = kernel_sessions() - before;
    assert!(clients >= cases, "{clients} clients were handed over with kernel TLS in {cases} cases");
}

/// The results of each case equal tests/conformance/expected.txt.
fn expect_all_cases(way: Way, driver: &str) {
    let (daemon, _echo) = way.start(&["--driver", driver]);
    expect_cases(&format!("{}/echo", way.url("ws", &daemon)), &[]);
}

/// A server in direct mode over TLS, with the driver that the daemon chooses.
fn expect_cases_of(receiver: Receiver) {
    let daemon = Way::DirectTls.start_daemon(&[]);
    let _server = receiver.start(&daemon);
    let url = format!("{}/{}", Way::DirectTls.url("ws", &daemon), receiver.name());
    expect_cases(&url, &[receiver.expected(), GROUPS]);
}

fn expect_cases(url: &str, more: &[&str]) {
    foreign::tool("wstest/bin/wstest");
    let folder = Folder::new();
    let mut command = Command::new(project().join("tests/conformance/run"));
    command.arg(url).arg(folder.path()).args(more).env("UAKARI_TOOLS", foreign::tools());
    let finished = run(&mut command, Duration::from_secs(20 * 60));
    assert!(finished.status.success(), "{}\n{}", finished.out, finished.err);
    println!("{}", finished.out);
}
