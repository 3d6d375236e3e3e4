//! Flags, and failures to start: exit code 1 and one line with flag, value and remedy.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::client::Client;
use crate::daemon::{Daemon, uakari};
use crate::process::{DEADLINE, Finished, Folder, Process, close, run};
use crate::server::{Kind, Listener};
use crate::wire::{Wire, request};

fn start(flags: &[&str]) -> Finished {
    run(uakari().args(flags), DEADLINE)
}

/// Expects a failure with one line that has all these parts.
fn expect_failure(flags: &[&str], parts: &[&str]) {
    let Finished { status, out, err } = start(flags);
    assert_eq!(status.code(), Some(1), "{flags:?}: {err}");
    assert_eq!(out, "", "{flags:?}");
    // A warning about limits may precede it.
    let lines: Vec<&str> = err.lines().filter(|line| !line.contains(" warn ")).collect();
    assert_eq!(lines.len(), 1, "{flags:?}: {err}");
    assert!(lines[0].contains(" error "), "{flags:?}: {err}");
    for part in parts {
        assert!(lines[0].contains(part), "{flags:?}: {part:?} is not in {:?}", lines[0]);
    }
}

#[test]
fn version() {
    let Finished { status, out, err } = start(&["--version"]);
    assert!(status.success(), "{err}");
    assert_eq!((out.as_str(), err.as_str()), (concat!("uakari ", env!("CARGO_PKG_VERSION")), ""));
}

/// No configuration file is needed.
#[test]
fn a_daemon_with_flags_alone() {
    let folder = Folder::new();
    for name in ["run", "www"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    fs::write(folder.join("www/index.html"), "a page").unwrap();
    let server = Listener::bind(&folder.path().join("run/server"), Kind::Stream);
    let flags = ["--listen", "127.0.0.1:0", "--docroot", &folder.join("run"), "--www", &folder.join("www")];
    let daemon = Process::start(uakari().args(flags));
    let line = daemon.out.wait_for(&["listening on http://127.0.0.1:"]);
    let port = line.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(Wire::connect(port).get("/").text(), "a page");
    let mut wire = Wire::connect(port);
    assert_eq!(wire.upgrade("/server", &[]).status, 101);
    let mut client = Client::new(wire);
    client.text("hello");
    server.accept().expect("hello");
}

#[test]
fn help_shows_examples() {
    let Finished { status, out, err } = start(&["--help"]);
    assert!(status.success() && err.is_empty(), "{err}");
    for part in [
        "Usage: uakari",
        "Examples:",
        "--docroot /run/websocket",
        "--allow '^/ws_'",
        "default 127.0.0.1:8080",
        "--check",
    ] {
        assert!(out.contains(part), "{part:?} is not in:\n{out}");
    }
}

/// Mistakes that only the running program finds, and a few of those in `cli::tests`.
#[test]
fn usage_errors_name_flag_value_and_remedy() {
    let folder = Folder::new();
    let docroot = folder.join("");
    let missing = folder.join("missing");
    let file = folder.join("file");
    std::fs::write(&file, "").unwrap();
    let unix_nowhere = format!("unix:{missing}/socket");
    let unix_file = format!("unix:{file}");
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["--docroot DIR", "--www DIR", "--config FILE"]),
        (&["-f", &missing], &[&missing, "cannot be read", "name a file that this user may read"]),
        (&["-f", &docroot], &[&docroot, "is not a regular file", "name another one"]),
        (&["--docroot", &missing], &["--docroot", &missing, "create it"]),
        (&["--docroot", &file], &["--docroot", &file, "another one"]),
        (&["--www", &missing], &["--www", &missing, "create it"]),
        (&["--docroot", &docroot, "--listen", "192.0.2.1:0"], &["--listen", "192.0.2.1", "no such address"]),
        (&["--docroot", &docroot, "--listen", &unix_nowhere], &["--listen", &missing, "folder does not exist"]),
        (&["--docroot", &docroot, "--listen", &unix_file], &["--listen", &file, "not a socket is in the way"]),
        (&["--docroot", &docroot, "--listen", "127.0.0.1:0", "-u", "nosuchuser"], &["-u nosuchuser", "/etc/passwd"]),
        (
            &["--docroot", &docroot, "--protocol", "udp"],
            &["--protocol", "\"udp\"", "stream, packet, lines, nul, frames"],
        ),
        (&["--docroot", ""], &["--docroot is empty"]),
        (&["--docroot", &docroot, "--nonsense"], &["--nonsense", "--help"]),
        (&["--docroot", &docroot, "--listen"], &["--listen", "value"]),
    ];
    for (flags, parts) in cases {
        expect_failure(flags, parts);
    }
}

#[test]
fn a_port_in_use_is_an_error() {
    let folder = Folder::new();
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = owner.local_addr().unwrap().to_string();
    expect_failure(
        &["--docroot", &folder.join(""), "--listen", &address],
        &["--listen", &address, "another program listens there", "choose another address"],
    );
}

#[test]
fn port_0_selects_a_free_port_and_prints_it() {
    let daemon = Daemon::start(&[]);
    assert_ne!(daemon.port, 0);
    assert_eq!(daemon.announced().text(), format!("listening on http://127.0.0.1:{}", daemon.port));
    assert_eq!(daemon.get("/nosuch").status, 404);
}

/// Expects a 404, over any stream.
fn expect_404(mut stream: impl Read + Write) {
    stream.write_all(request("GET", "/nosuch", &["Connection: close"]).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn several_addresses_at_once() {
    let folder = Folder::new();
    let path = folder.join("gate.sock");
    let unix = format!("unix:{path}");
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let mut flags = vec!["--listen", "127.0.0.1:0", "--listen", &unix];
    if has_ipv6 {
        flags.extend(["--listen", "[::1]:0"]);
    }
    let daemon = Daemon::start_in(folder, &flags);
    expect_404(TcpStream::connect(("127.0.0.1", daemon.port)).unwrap());
    assert_eq!(daemon.announced().wait_for(&["listening on unix:"]), format!("listening on {unix}"));
    expect_404(UnixStream::connect(&path).unwrap());
    if has_ipv6 {
        let line = daemon.announced().wait_for(&["listening on http://[::1]:"]);
        let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
        let mut wire = Wire::new(TcpStream::connect(("::1", port)).unwrap());
        assert_eq!(wire.get("/nosuch").status, 404);
        drop(wire);
        daemon.log().wait_for(&["client=[::1]:", "end"]);
    }
    daemon.log().wait_for(&["client=unix", "end"]);
}

#[test]
fn a_stale_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.join("gate.sock");
    close(UnixListener::bind(&path).unwrap());
    let _daemon = Daemon::start_in(folder, &["--listen", &format!("unix:{path}")]);
    expect_404(UnixStream::connect(&path).unwrap());
}

#[test]
fn a_socket_in_use_is_not_replaced() {
    let folder = Folder::new();
    let path = folder.join("gate.sock");
    let _owner = UnixListener::bind(&path).unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    let unix = format!("unix:{path}");
    expect_failure(
        &["--docroot", &folder.join(""), "--listen", &unix],
        &["--listen", &unix, "another program listens"],
    );
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn the_log_level_is_obeyed() {
    for (level, shown) in [("error", false), ("info", true)] {
        let mut daemon = Daemon::start(&["--log-level", level]);
        assert_eq!(daemon.get("/nosuch").status, 404);
        let finished = daemon.stop();
        assert_eq!(finished.err.contains("404"), shown, "{level}: {}", finished.err);
    }
}
