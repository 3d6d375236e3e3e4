//! `make run`: the sample servers with the gateway, and its failures.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

use crate::client::Client;
use crate::daemon::{program, project, uakari_words};
use crate::foreign::{self, SCRIPT_TIME, tool, tools};
use crate::process::{DEADLINE, Folder, Process, eventually, free_port, run, write_program};
use crate::scripts::only_these;
use crate::tls::{shake, trusting};
use crate::wire::Wire;

/// The script of `make run`, with the programs of this build.
fn show(folder: &Folder, host: &str, port: &str) -> Command {
    let release = folder.path().join("release");
    if !release.exists() {
        fs::create_dir(&release).unwrap();
        for name in
            ["uakari-ca", "websocket_echo", "websocket_chat", "websocket_jsonrpc", "libauthrpc.so", "libjsonsql.so"]
                .map(program)
        {
            symlink(&name, release.join(name.file_name().unwrap())).unwrap();
        }
        write_program(release.join("uakari"), &format!("#!/bin/sh\nexec {} \"$@\"\n", uakari_words().join(" ")));
    }
    let mut command = Command::new(project().join("utils/try"));
    command.env("CARGO_TARGET_DIR", folder.path()).env("HOST", host).env("PORT", port);
    command
}

/// `make run` as a whole, with a cargo that builds nothing.
fn make_run(folder: &Folder, port: u16, variables: &[&str]) -> Command {
    write_program(folder.join("cargo"), "#!/bin/sh\n");
    write_program(folder.join("rustc"), "#!/bin/sh\necho rustc 1.91.0\n");
    let script = show(folder, "", &port.to_string());
    let mut command = Command::new("make");
    command.arg("-C").arg(project()).args(["--no-print-directory", "run"]).args(variables);
    command.envs(script.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap()));
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(name);
    }
    command
}

/// Stopped by the signal that it passes on, also when the test fails.
struct Showing(Process);

impl Drop for Showing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.signal(Signal::SIGTERM);
            // Until it has ended.
            let _ = self.0.out.wait(|_| None::<()>);
        }
    }
}

/// Waits for the line that a server prints when it listens.
fn expect_listening(showing: &Showing, servers: &[&str]) {
    for server in servers {
        showing.0.out.wait_for(&[&format!("{server}: listening on /")]);
    }
}

#[test]
fn the_demonstration_runs_until_it_is_stopped() {
    let folder = Folder::new();
    let mut showing = Showing(Process::start(&mut make_run(&folder, free_port("127.0.0.1"), &[])));
    showing.0.out.wait_for(&["Ctrl-C stops it."]);
    expect_listening(&showing, &["websocket_echo", "websocket_chat", "websocket_jsonrpc"]);
    let Showing(process) = &mut showing;
    let text = process.out.text();
    let url = text.split("http://").nth(1).unwrap().split('/').next().unwrap();
    let port = url.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert_eq!(Wire::connect(port).get("/").status, 200, "{text}");
    let mut wire = Wire::connect(port);
    assert_eq!(wire.upgrade("/echo", &[]).status, 101);
    let mut client = Client::new(wire);
    client.text("hello");
    client.expect_text("hello");
    let sockets = text.split("websocket_echo: listening on ").nth(1).unwrap().split("/echo").next().unwrap();
    assert!(Path::new(sockets).is_dir(), "{sockets}");
    // make passes it on to the script, without a shell in between.
    process.signal(Signal::SIGTERM);
    process.wait(DEADLINE);
    eventually("nothing is left", || !Path::new(sockets).exists());
}

/// `make run TLS=1`: the authority is kept until the next start.
#[test]
fn the_demonstration_over_tls() {
    let folder = Folder::new();
    let mut first = None;
    // A relative folder is none: that of HOME is used.
    for (action, state) in [("created", "relative".to_owned()), ("kept", folder.join("home/.local/state"))] {
        let port = free_port("127.0.0.1");
        let mut command = make_run(&folder, port, &["TLS=1"]);
        command.env("XDG_STATE_HOME", state).env("HOME", folder.join("home"));
        let mut showing = Showing(Process::start(&mut command));
        showing.0.out.wait_for(&["Ctrl-C stops it."]);
        expect_listening(&showing, &["websocket_echo", "uakari-ca serve"]);
        let authority = folder.join("home/.local/state/uakari/run-tls/ca.pem");
        let text = showing.0.out.text();
        for part in [
            &*format!("https://127.0.0.1:{port}/websocket.html"),
            &format!("wss://127.0.0.1:{port}/echo"),
            &format!("https://127.0.0.1:{port}/authority.html"),
            &format!("curl --cacert {authority} https://127.0.0.1:{port}/"),
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        showing.0.err.wait_for(&[&format!("issued/server.pem was {action}, for localhost,")]);
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut wire = Wire::over_tls(shake(stream, &trusting(&authority), "127.0.0.1").unwrap());
        assert_eq!(wire.upgrade("/echo", &[]).status, 101);
        let mut client = Client::new(wire);
        client.text("hello");
        client.expect_text("hello");
        // The authority's own server, which its page asks.
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut wire = Wire::over_tls(shake(stream, &trusting(&authority), "localhost").unwrap());
        assert_eq!(wire.upgrade("/enroll", &[]).status, 101);
        let mut client = Client::new(wire);
        client.text("{\"get\":\"authority\"}");
        let (_, answer) = client.message();
        assert!(String::from_utf8(answer).unwrap().contains("BEGIN CERTIFICATE"));
        let bytes = fs::read(authority.replace("ca.pem", "issued/server.pem")).unwrap();
        assert_eq!(first.get_or_insert_with(|| bytes.clone()), &bytes);
        // make passes it on to the script.
        showing.0.signal(Signal::SIGTERM);
        showing.0.wait(DEADLINE);
    }
    let finished = run(show(&folder, "", "8080").env("TLS", "yes"), DEADLINE);
    assert!(finished.err.contains("TLS=yes is neither 0 nor 1"), "{finished:?}");
}

/// On a bare machine Chromium refuses the server. It trusts the authority that is downloaded, or accepts the certificate
/// of the page; wss works then.
#[test]
#[ignore = "needs chromium"]
fn chromium_meets_the_demonstration() {
    tool("node_modules/playwright-core");
    let (folder, port) = (Folder::new(), free_port("127.0.0.1"));
    let mut command = make_run(&folder, port, &["TLS=1"]);
    let mut showing = Showing(Process::start(command.env("XDG_STATE_HOME", folder.join("state"))));
    showing.0.out.wait_for(&["Ctrl-C stops it."]);
    expect_listening(&showing, &["websocket_echo", "websocket_chat", "uakari-ca serve"]);
    let mut script = foreign::command("node");
    script.arg(project().join("tests/clients/first_use.mjs")).arg(port.to_string()).arg(folder.path());
    let finished = run(script.env("UAKARI_TOOLS", tools()), SCRIPT_TIME);
    assert!(finished.status.success() && finished.out.matches("ok - two pages chat").count() == 2, "{finished:?}");
    let authority = fs::read(folder.join("state/uakari/run-tls/ca.pem")).unwrap();
    assert!(fs::read(folder.join("downloaded.pem")).unwrap() == authority);
    showing.0.signal(Signal::SIGTERM);
    showing.0.wait(DEADLINE);
}

#[test]
fn another_address_of_this_machine() {
    let folder = Folder::new();
    // The port is bound without listen(2), so that no other test takes it.
    let holder = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(holder.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(holder.as_raw_fd()).unwrap().port();
    let mut showing = Showing(Process::start(&mut show(&folder, "127.0.0.79", &port.to_string())));
    showing.0.out.wait_for(&[&format!("http://127.0.0.79:{port}/websocket.html")]);
    assert!(std::net::TcpStream::connect(format!("127.0.0.79:{port}")).is_ok());
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "only there");
    showing.0.signal(Signal::SIGTERM);
    assert!(showing.0.wait(DEADLINE).status.success());
}

/// Mistakes are reported before the build, which takes minutes.
#[test]
fn errors_are_reported_before_the_build() {
    let folder = Folder::new();
    let (bin, built) = (only_these(&folder, &[]), folder.join("built"));
    write_program(format!("{bin}/cargo"), &format!("#!/bin/sh\necho >{built}\nexit 1\n"));
    write_program(format!("{bin}/rustc"), "#!/bin/sh\necho rustc 1.91.0\n");
    write_program(format!("{bin}/cc"), "");
    let near = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = near.local_addr().unwrap().port().to_string();
    let at_all = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let taken_at_all = at_all.local_addr().unwrap().port().to_string();
    let build = |host: &str, port: &str| run(show(&folder, host, port).arg("--build").env("PATH", &bin), DEADLINE);
    for (host, port, parts) in [
        ("", "0", ["PORT=0 is not a port", "1 to 65535"]),
        ("", "65536", ["PORT=65536 is not a port", "1 to 65535"]),
        ("", "18446744073709551617", ["is not a port", "1 to 65535"]),
        ("", "http", ["PORT=http is not a port", "1 to 65535"]),
        ("", &taken, ["is in use", "PORT=8081"]),
        ("0.0.0.0", &taken, ["is in use", "PORT=8081"]),
        ("127.0.0.3", &taken_at_all, ["is in use", "PORT=8081"]),
        ("localhost", "8080", ["HOST=localhost is not an IP address", "0.0.0.0"]),
        ("127.0.0.256", "8080", ["is not an IP address", "0.0.0.0"]),
        ("10.0.0.1;true", "8080", ["is not an IP address", "0.0.0.0"]),
    ] {
        let finished = build(host, port);
        assert_eq!(finished.status.code(), Some(1), "{host} {port}: {finished:?}");
        assert!(parts.iter().all(|part| finished.err.contains(part)), "{host} {port}: {finished:?}");
        assert_eq!(finished.err.lines().count(), 1, "{host} {port}: {finished:?}");
        assert!(!Path::new(&built).exists(), "{host} {port}: it was built first");
    }
    // With nothing wrong it is built.
    build("", &free_port("127.0.0.1").to_string());
    assert!(Path::new(&built).exists());
}

#[test]
fn rust_that_is_missing_or_too_old_is_reported() {
    let folder = Folder::new();
    let bin = only_these(&folder, &[]);
    let build = || {
        let port = free_port("127.0.0.1").to_string();
        let mut command = show(&folder, "", &port);
        command.arg("--build").env("PATH", &bin).env("CARGO_HOME", folder.join("cargo"));
        let finished = run(&mut command, DEADLINE);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert_eq!(finished.err.lines().count(), 1, "{finished:?}");
        finished.err
    };
    let rustup = "https://sh.rustup.rs";
    let err = build();
    assert!(err.contains("no cargo") && err.contains("Rust 1.91 or later") && err.contains(rustup), "{err}");
    // A new shell has rustup's folder in PATH.
    fs::create_dir_all(folder.join("cargo/bin")).unwrap();
    write_program(folder.join("cargo/bin/cargo"), "#!/bin/sh\n");
    let err = build();
    assert!(err.contains("not in PATH") && err.contains(&folder.join("cargo/env")), "{err}");
    write_program(format!("{bin}/cargo"), "#!/bin/sh\nexit 1\n");
    write_program(format!("{bin}/rustc"), "#!/bin/sh\necho 'rustc 1.63.0 (4b91a6ea7 2022-08-08)'\n");
    let err = build();
    assert!(err.contains("Rust 1.63.0 is too old: get 1.91 or later") && err.contains(rustup), "{err}");
    write_program(format!("{bin}/rustc"), "#!/bin/sh\necho 'rustc 1.100.0-nightly'\n");
    let err = build();
    assert!(err.contains("no C compiler") && err.contains("build-essential"), "{err}");
}
