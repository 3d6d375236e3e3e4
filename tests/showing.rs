//! `make run`: the sample servers behind the gateway, and what it says where it cannot.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::client::Client;
use crate::daemon::{UAKARI, project};
use crate::process::{DEADLINE, Folder, Process, eventually, run};
use crate::scripts::only_these;
use crate::wire::Wire;

/// The script of `make run`, with the programs that the tests have.
fn show(folder: &Folder, host: &str, port: &str) -> Command {
    let release = folder.path().join("release");
    if !release.exists() {
        symlink(Path::new(UAKARI).parent().unwrap(), release).unwrap();
    }
    let mut command = Command::new(project().join("utils/try"));
    command.env("CARGO_TARGET_DIR", folder.path()).env("HOST", host).env("PORT", port);
    command
}

fn executable(path: &str, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// A port of this address that was free a moment ago.
fn free_port(host: &str) -> String {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port().to_string()
}

/// Ended by the signal that it passes on, also where the test fails.
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

#[test]
fn it_serves_until_it_is_stopped() {
    let folder = Folder::new();
    // The whole command, with a cargo that has built everything.
    executable(&folder.join("cargo"), "#!/bin/sh\n");
    executable(&folder.join("rustc"), "#!/bin/sh\necho rustc 1.91.0\n");
    let script = show(&folder, "", &free_port("127.0.0.1"));
    let mut command = Command::new("make");
    command.arg("-C").arg(project()).args(["--no-print-directory", "run"]);
    command.envs(script.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap()));
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(name);
    }
    let mut showing = Showing(Process::start(&mut command));
    let Showing(process) = &mut showing;
    process.out.wait_for(&["Ctrl-C stops it."]);
    let text = process.out.text();
    for server in ["websocket_echo", "websocket_chat", "websocket_jsonrpc"] {
        process.out.wait_for(&[&format!("{server}: listening on /")]);
    }
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
    // Make passes it on to what it runs, but not through a shell between the two.
    process.signal(Signal::SIGTERM);
    process.wait(DEADLINE);
    eventually("nothing is left behind", || !Path::new(sockets).exists());
}

#[test]
fn another_address_of_this_machine() {
    let folder = Folder::new();
    let port = free_port("127.0.0.2");
    let mut showing = Showing(Process::start(&mut show(&folder, "127.0.0.2", &port)));
    showing.0.out.wait_for(&[&format!("http://127.0.0.2:{port}/websocket.html")]);
    assert!(std::net::TcpStream::connect(format!("127.0.0.2:{port}")).is_ok());
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "only there");
    showing.0.signal(Signal::SIGTERM);
    assert!(showing.0.wait(DEADLINE).status.success());
}

/// A build takes minutes.
#[test]
fn what_is_wrong_is_told_before_the_build() {
    let folder = Folder::new();
    let (bin, built) = (only_these(&folder, &[]), folder.join("built"));
    executable(&format!("{bin}/cargo"), &format!("#!/bin/sh\necho >{built}\nexit 1\n"));
    executable(&format!("{bin}/rustc"), "#!/bin/sh\necho rustc 1.91.0\n");
    executable(&format!("{bin}/cc"), "");
    let near = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = near.local_addr().unwrap().port().to_string();
    let at_all = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let taken_at_all = at_all.local_addr().unwrap().port().to_string();
    let build = |host: &str, port: &str| run(show(&folder, host, port).arg("--build").env("PATH", &bin), DEADLINE);
    for (host, port, parts) in [
        ("", "0", ["PORT=0 is no port", "1 to 65535"]),
        ("", "65536", ["PORT=65536 is no port", "1 to 65535"]),
        ("", "18446744073709551617", ["is no port", "1 to 65535"]),
        ("", "http", ["PORT=http is no port", "1 to 65535"]),
        ("", &taken, ["is taken", "PORT=8081"]),
        ("0.0.0.0", &taken, ["is taken", "PORT=8081"]),
        ("127.0.0.3", &taken_at_all, ["is taken", "PORT=8081"]),
        ("localhost", "8080", ["HOST=localhost is no IP address", "0.0.0.0"]),
        ("127.0.0.256", "8080", ["is no IP address", "0.0.0.0"]),
        ("10.0.0.1;true", "8080", ["is no IP address", "0.0.0.0"]),
    ] {
        let finished = build(host, port);
        assert_eq!(finished.status.code(), Some(1), "{host} {port}: {finished:?}");
        assert!(parts.iter().all(|part| finished.err.contains(part)), "{host} {port}: {finished:?}");
        assert_eq!(finished.err.lines().count(), 1, "{host} {port}: {finished:?}");
        assert!(!Path::new(&built).exists(), "{host} {port}: it was built first");
    }
    // With nothing wrong it is built.
    build("", &free_port("127.0.0.1"));
    assert!(Path::new(&built).exists());
}

#[test]
fn rust_that_is_missing_or_too_old_is_told_in_a_sentence() {
    let folder = Folder::new();
    let bin = only_these(&folder, &[]);
    let build = || {
        let port = free_port("127.0.0.1");
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
    // What rustup has just installed is in the PATH of shells that start afterwards.
    fs::create_dir_all(folder.join("cargo/bin")).unwrap();
    executable(&folder.join("cargo/bin/cargo"), "#!/bin/sh\n");
    let err = build();
    assert!(err.contains("not in PATH") && err.contains(&folder.join("cargo/env")), "{err}");
    executable(&format!("{bin}/cargo"), "#!/bin/sh\nexit 1\n");
    executable(&format!("{bin}/rustc"), "#!/bin/sh\necho 'rustc 1.63.0 (4b91a6ea7 2022-08-08)'\n");
    let err = build();
    assert!(err.contains("Rust 1.63.0 is too old: get 1.91 or later") && err.contains(rustup), "{err}");
    executable(&format!("{bin}/rustc"), "#!/bin/sh\necho 'rustc 1.100.0-nightly'\n");
    let err = build();
    assert!(err.contains("no C compiler") && err.contains("build-essential"), "{err}");
}
