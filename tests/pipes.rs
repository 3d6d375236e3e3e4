//! Named pipes, and the end of a conversation with a device.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::client::{BINARY, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, uakari};
use crate::devices::{Line, SIZE, connect_eventually, is_readable};
use crate::links::{configured_in, write_configuration};
use crate::process::{DEADLINE, Folder, Process, close, eventually, run};

/// A daemon that leads /pipe to a named pipe that is there.
fn with_pipe(direction: &str, more: &str) -> (Daemon, PathBuf) {
    let folder = Folder::new();
    let path = folder.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let daemon = configured_in(
        folder,
        &format!(
            "links = ({{ origin = \"^/pipe$\"; type = \"fifo\"; destination = \"@/pipe\"; direction = \"{direction}\"; {more} }});"
        ),
    );
    (daemon, path)
}

/// A shell that writes into it or reads from it.
fn shell(script: &str, pipe: &PathBuf) -> Process {
    Process::start(Command::new("sh").args(["-c", script, "sh"]).arg(pipe))
}

#[test]
fn a_pipe_that_is_read_stays_open_between_its_writers() {
    let (daemon, path) = with_pipe("read", "");
    let mut client = daemon.connect("/pipe");
    for text in ["one", "two", "three"] {
        let mut echo = shell(&format!("printf {text} > \"$1\""), &path);
        client.expect_text(text);
        assert!(echo.wait(DEADLINE).status.success());
        // The WebSocket is open without a writer.
        client.send(&[Frame::new(PING, text.as_bytes())]);
        assert_eq!(client.frame(), Frame::new(PONG, text.as_bytes()));
    }
    client.text("into it");
    let reason = client.expect_close(1003);
    assert!(reason.contains("takes no messages"), "{reason}");
    client.wire.expect_end();
    daemon.log().wait_for(&["takes no messages", "1003"]);
    // Nothing was written into the pipe, and the next client gets what follows.
    let mut client = connect_eventually(&daemon, "/pipe");
    shell("printf next > \"$1\"", &path).wait(DEADLINE);
    client.expect_text("next");
    client.finish(1000);
}

/// A hello record written into it would be read back as a message.
#[test]
fn hello_is_refused_for_a_read_only_pipe() {
    let link =
        |more: &str| format!("links = ({{ origin = \"^/pipe$\"; type = \"fifo\"; destination = \"/pipe\"; {more} }});");
    let folder = Folder::new();
    for (more, is_good) in [
        ("hello = true;", false),
        ("hello = true; direction = \"read\";", false),
        ("hello = false;", true),
        ("hello = true; direction = \"write\";", true),
    ] {
        let path = write_configuration(&folder, &link(more));
        let finished = run(uakari().args(["--check", "-f", &path]), DEADLINE);
        assert_eq!(finished.status.success(), is_good, "{more} {}", finished.out);
        assert_eq!(finished.out.contains("links[0].hello"), !is_good, "{more} {}", finished.out);
    }
}

#[test]
fn lines_from_a_pipe() {
    let (daemon, path) = with_pipe("read", "protocol = \"lines\";");
    let mut client = daemon.connect("/pipe");
    shell("(printf 'one\\ntwo\\nth' ; printf 'ree\\n') > \"$1\"", &path).wait(DEADLINE);
    for text in ["one", "two", "three"] {
        client.expect_text(text);
    }
    // A writer that waits for room, and not for the reader.
    let count = 50_000;
    let mut writer = shell(&format!("seq {count} > \"$1\""), &path);
    for number in 1..=count {
        client.expect_text(&number.to_string());
    }
    assert!(writer.wait(DEADLINE).status.success());
    client.finish(1000);
}

#[test]
fn a_pipe_that_is_written() {
    let (daemon, path) = with_pipe("write", "protocol = \"lines\";");
    assert_eq!(daemon.upgrade("/pipe", &[]).status, 502, "no reader");
    daemon.log().wait_for(&["warn", "502", "No such device or address"]);
    let mut child = Command::new("cat").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let mut client = connect_eventually(&daemon, "/pipe");
    for number in 0..1000 {
        client.text(&number.to_string());
    }
    client.send(&[Frame::part(TEXT, b"last "), Frame::new(0, b"one"), Frame::new(PING, b"?")]);
    client.expect_pong(b"?");
    client.finish(1000);
    // The reader sees the end once the last writer has closed.
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text, expected + "last one\n");
}

#[test]
fn a_pipe_whose_reader_closes() {
    let (daemon, path) = with_pipe("write", "");
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut client = daemon.connect("/pipe");
    client.text("one");
    let mut bytes = [0; 3];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"one");
    close(reader);
    client.text("two");
    let reason = client.expect_close(1011);
    assert!(reason.contains("Broken pipe"), "{reason}");
    client.close(1011);
    client.wire.expect_end();
    daemon.log().wait_for(&["warn", "1011", "Broken pipe"]);
}

/// A reader that pauses gets everything, though a pipe holds 64 KiB.
#[test]
fn a_pipe_that_is_read_slowly() {
    let (daemon, path) = with_pipe("write", "");
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut client = daemon.connect("/pipe");
    let all: Vec<u8> = (0..SIZE).map(|at| (at % 249) as u8).collect();
    let bytes = Frame::new(BINARY, &all).masked().bytes();
    let mut wire = client.wire.stream().try_clone().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(move || wire.write_all(&bytes).unwrap());
        assert!(is_readable(&reader));
        daemon.get("/nosuch");
        assert!(!writer.is_finished(), "the client's bytes went somewhere");
        let mut got = vec![0; all.len()];
        reader.read_exact(&mut got).unwrap();
        assert!(got == all);
    });
    client.finish(1000);
}

/// A device is closed with its conversation, with operations in flight, and delays no end of the daemon.
#[test]
fn a_device_is_closed_with_its_conversation() {
    let line = Line::new();
    let folder = Folder::new();
    for name in ["read", "write"] {
        mkfifo(folder.path().join(name).as_path(), Mode::S_IRWXU).unwrap();
    }
    let pipe = OpenOptions::new().read(true).write(true).open(folder.path().join("write")).unwrap();
    let mut daemon = configured_in(
        folder,
        &format!(
            "limits = {{ stall-ms = 1000; }}; links = (
                {{ origin = \"^/tty$\"; type = \"tty\"; destination = \"{}\"; }},
                {{ origin = \"^/read$\"; type = \"fifo\"; destination = \"@/read\"; }},
                {{ origin = \"^/write$\"; type = \"fifo\"; direction = \"write\"; destination = \"@/write\"; }});",
            line.path.display()
        ),
    );
    for name in ["tty", "read", "write"] {
        let mut client = daemon.connect(&format!("/{name}"));
        client.finish(1000);
        daemon.log().wait_for(&["end", &format!("name=\"{name}\""), "code=1000"]);
    }
    eventually("they are closed", || devices_of(&daemon).is_empty());
    // The devices take nothing, and are full.
    let clients = ["tty", "write"].map(|name| {
        let mut client = daemon.connect(&format!("/{name}"));
        client.binary(&vec![b'x'; 120_000]);
        client
    });
    assert!(is_readable(&line.device) && is_readable(&pipe));
    drop(clients);
    for name in ["tty", "write"] {
        daemon.log().wait_for(&["end", &format!("name=\"{name}\""), "code=1006"]);
    }
    eventually("they are closed", || devices_of(&daemon).is_empty());
    let mut last = daemon.connect("/tty");
    let since = Instant::now();
    daemon.signal(Signal::SIGTERM);
    last.expect_close_handshake(1001);
    assert!(daemon.wait(DEADLINE).status.success());
    assert!(since.elapsed() < DEADLINE / 2, "{:?}", since.elapsed());
}

/// How many descriptors the daemon has of this file.
pub fn opened(daemon: &Daemon, path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    daemon.process.open_files().iter().filter(|file| **file == path).count()
}

/// The devices that the daemon has open, without standard output and error.
fn devices_of(daemon: &Daemon) -> Vec<String> {
    let paths = daemon.process.open_files().into_iter().map(|target| target.display().to_string());
    paths.filter(|path| path.starts_with("/dev/pts") || path.ends_with("/read") || path.ends_with("/write")).collect()
}

/// The gateway writes no frames of its own into a pipe that is read: another client would receive them. Found by
/// fuzzing.
#[test]
fn frames_are_never_written_to_a_read_only_pipe() {
    let folder = Folder::new();
    let path = folder.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let mut pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let daemon = configured_in(
        folder,
        "links = ({ origin = \"^/pipe$\"; type = \"fifo\"; destination = \"@/pipe\"; protocol = \"frames\";
            limits = { clients = 2; }; });",
    );
    // Of several readers of a pipe the kernel chooses one: only one stays.
    let mut stays = daemon.connect("/pipe");
    for _ in 0..4 {
        connect_eventually(&daemon, "/pipe").finish(1000);
    }
    eventually("the others have closed it", || opened(&daemon, &path) == 1);
    pipe.write_all(b"\x81\x04text").unwrap();
    stays.expect_text("text");
    stays.finish(1000);
}
