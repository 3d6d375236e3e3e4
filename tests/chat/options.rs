//! What the program says of itself, and how it takes its place: as the other sample servers do.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use nix::sys::signal::Signal;

use super::chat;
use crate::daemon::{program, start_sample};
use crate::process::{DEADLINE, Finished, Folder, Process, close, eventually};
use crate::server::{Backend, Kind, connect};

#[test]
fn help() {
    for option in ["-h", "--help"] {
        let Finished { status, out, err } = chat(&[option]);
        assert!(status.success() && err.is_empty(), "{option}: {err}");
        let parts = ["-R,", "-n,", "-u,", "-m,", "-D,", "-w,", "--mode", "--protocol", "--direct", "--hello"];
        for part in parts.into_iter().chain(["/var/run/websocket"]) {
            assert!(out.contains(part), "{option}: {part} is not in\n{out}");
        }
    }
}

#[test]
fn wrong_use_is_one_line() {
    let folder = Folder::new();
    let root = folder.join("");
    for (options, parts) in [
        (&["--nonsense"][..], &["--nonsense"][..]),
        (&["-R", &root, "-n", "a/b"], &["-n", "a/b", "without a slash"]),
        (&["-R", &root, "-n", "chat", "-m", "0"], &["-m 0", "1 or more"]),
        (&["-R", &root, "-n", "chat", "--mode", "999"], &["--mode", "999", "660"]),
        (&["-R", &root, "-n", "chat", "--protocol", "udp"], &["udp", "stream, packet, lines, nul or frames"]),
        (&["-R", &root, "-n", "chat", "--direct", "--protocol", "nul"], &["--direct", "leave --protocol out"]),
        (&["-R", &root, "-n", "chat", "-u", "nosuchuser"], &["-u nosuchuser", "no such user"]),
    ] {
        let Finished { status, out, err } = chat(options);
        assert_eq!(status.code(), Some(1), "{options:?}: {out}{err}");
        assert!(err.lines().count() == 1 && err.starts_with("websocket_chat: "), "{options:?}: {err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{options:?}: {err}");
    }
}

#[test]
fn its_place() {
    let folder = Folder::new();
    let path = folder.path().join("new/chat");
    let start = |options: &[&str]| start_sample(Command::new(program("websocket_chat")), &path, options);
    let mut first = start(&["--mode", "660"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let second = chat(&["-R", &folder.join("new"), "-n", "chat"]);
    assert!(second.status.code() == Some(1) && second.err.contains("another server listens there"), "{second:?}");
    // Two who connect without the gateway.
    let mut members = [(); 2].map(|()| Backend::new(connect(&path, Kind::Stream).unwrap()));
    members[0].send("hello");
    members[1].expect("hello");
    first.signal(Signal::SIGTERM);
    assert!(first.wait(DEADLINE).status.success() && !path.exists());
    close(UnixListener::bind(&path).unwrap());
    let _over_a_stale_one = start(&["--direct"]);
}

#[test]
fn its_name_is_the_programs_unless_given() {
    let folder = Folder::new();
    let _chat = Process::start(Command::new(program("websocket_chat")).arg("-R").arg(folder.path()));
    let path = folder.path().join("websocket_chat");
    eventually("it listens under its own name", || connect(&path, Kind::Stream).is_ok());
}
