//! The log: files that are moved or full, pipes without a reader, JSON lines.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::Frame;
use crate::daemon::{Daemon, configuration, uakari_words};
use crate::foreign;
use crate::process::{Folder, can_unshare, eventually, expect_eq, skipped};
use crate::wire::request;

fn logging_to(path: &str) -> String {
    format!("log-file = \"{path}\"; {}", configuration("", ""))
}

/// The requested names, in the order of the log.
fn names(log: &str) -> Vec<usize> {
    let lines = log.lines().filter(|line| line.contains(" end client="));
    lines.filter_map(|line| line.split("name=\"page").nth(1)?.split('"').next()?.parse().ok()).collect()
}

#[test]
fn a_log_file_is_reopened() {
    let daemon = Daemon::start_configured(&logging_to("@/log"));
    let (path, moved) = (daemon.folder().join("log"), daemon.folder().join("log.1"));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut next = 0;
    let mut ask = || {
        for number in next..next + 100 {
            expect_eq(daemon.get(&format!("/page{number}")).status, 404, number);
        }
        next += 100;
    };
    for round in 0..4 {
        ask();
        fs::rename(&path, &moved).unwrap();
        // Requests before the signal is handled are in the old file.
        ask();
        daemon.signal(Signal::SIGUSR1);
        eventually("there is a new file", || fs::exists(&path).unwrap());
        ask();
        let wanted: Vec<usize> = (round * 300..round * 300 + 300).collect();
        let both = || [names(&read(&moved)), names(&read(&path))].concat();
        eventually("all lines are there", || both().len() >= 300);
        // Connections may end in another order than they began in.
        let mut told = both();
        told.sort_unstable();
        expect_eq(told, wanted, "the names in both files");
        assert!(names(&read(&path)).len() >= 99, "{}", read(&path));
        fs::remove_file(&path).unwrap();
        daemon.signal(Signal::SIGUSR1);
        eventually("there is a new file", || fs::exists(&path).unwrap());
    }
    expect_eq(daemon.log().text(), String::new(), "standard error");
}

#[test]
fn a_full_disk_does_not_stop_the_daemon() {
    let mut daemon = Daemon::start_configured(&logging_to("/dev/full"));
    let _echo = daemon.echo("echo", &[]);
    let mut client = daemon.connect("/echo");
    for number in 0..200 {
        expect_eq(daemon.get("/nosuch").status, 404, number);
        client.text("hello");
        client.expect_text("hello");
    }
    daemon.signal(Signal::SIGUSR1);
    client.text("hello");
    client.expect_text("hello");
    client.finish(1000);
    daemon.stop();
}

/// A disk of a few pages that is full for a while.
#[test]
fn a_temporarily_full_disk_is_reported() {
    if !can_unshare(&["--mount"]) {
        return skipped("only root can mount a small disk");
    }
    let folder = Folder::new();
    fs::create_dir(folder.join("disk")).unwrap();
    let mut command = Command::new("unshare");
    let mount = "mount -t tmpfs -o size=16k none \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mount, &folder.join("disk")]).args(uakari_words());
    let daemon = Daemon::start_configured_by(folder, &logging_to("@/disk/log"), command);
    // The path of a disk in the daemon's mount namespace.
    let path = format!("/proc/{}/root{}", daemon.pid(), daemon.folder().join("disk/log"));
    let size = || fs::metadata(&path).unwrap().len();
    (0..300).for_each(|number| expect_eq(daemon.get(&format!("/page{number}")).status, 404, number));
    eventually("the disk is full", || size() >= 16 * 1024 - 4096);
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    // The next request, which must not fill the disk before the report is due.
    let mut asked = Instant::now();
    eventually("the log tells what it left out", || {
        if asked.elapsed() > Duration::from_millis(100) {
            asked = Instant::now();
            daemon.get("/nosuch");
        }
        fs::read_to_string(&path).unwrap().contains("(the log could not be written: No space left on device)")
    });
}

/// A daemon whose standard error is a pipe, and the pipe.
fn start_with_pipe() -> (Daemon, fs::File) {
    let folder = Folder::new();
    let pipe = folder.join("pipe");
    let mut command = Command::new("sh");
    command.args(["-c", "mkfifo \"$0\" && exec \"$@\" 2<>\"$0\"", &pipe]).args(uakari_words());
    let daemon = Daemon::start_configured_by(folder, &configuration("", ""), command);
    let flags = nix::libc::O_NONBLOCK;
    let pipe = fs::File::options().read(true).write(true).custom_flags(flags).open(&pipe).unwrap();
    (daemon, pipe)
}

/// All that was read from the pipe so far.
fn read_all(pipe: &mut fs::File, log: &mut Vec<u8>) -> String {
    match pipe.read_to_end(log) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => String::from_utf8_lossy(log).into_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pipe_without_a_reader_does_not_stop_the_daemon() {
    let (mut daemon, mut pipe) = start_with_pipe();
    let _echo = daemon.echo("echo", &[]);
    let mut client = daemon.connect("/echo");
    // Several times the size of a pipe.
    for number in 0..1_000 {
        expect_eq(daemon.get(&format!("/page{number}")).status, 404, number);
    }
    client.text("hello");
    client.expect_text("hello");
    // The reader then finds whole lines, and the number of those dropped.
    let mut log = Vec::new();
    let mut read = || read_all(&mut pipe, &mut log);
    eventually("the log tells what it left out", || {
        daemon.get("/nosuch");
        read().contains("(the log could not be written: its reader is too slow)")
    });
    let log = read();
    let is_whole =
        |line: &&str| line.starts_with("20") && [" info ", " warn "].iter().any(|level| line.contains(level));
    let broken: Vec<&str> = log.lines().filter(|line| !is_whole(line)).collect();
    assert!(broken.is_empty(), "these are no whole lines: {broken:?}");
    // Connections may end in another order than they began in.
    let mut told = names(&log);
    told.sort_unstable();
    let count = told.len();
    told.dedup();
    assert!(count > 100 && told.len() == count, "{told:?}");
    client.finish(1000);
    daemon.stop();
}

/// Without a client there is no other event.
#[test]
fn queued_lines_are_written_without_an_event() {
    let (daemon, mut pipe) = start_with_pipe();
    let mut log = Vec::new();
    eventually("it has started", || read_all(&mut pipe, &mut log).contains("info  uakari"));
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    for name in ["first.sock", "second.sock"] {
        daemon.configure(&configuration("", "").replace("127.0.0.1:0", &format!("unix:@/{name}")));
        daemon.signal(Signal::SIGHUP);
        daemon.announced().wait_for(&[name]);
    }
    // It sleeps after it has tried to write (proc(5)).
    let stat = format!("/proc/{}/stat", daemon.pid());
    eventually("it waits", || fs::read_to_string(&stat).unwrap().contains(") S "));
    // The first line was dropped when the second reload opened the log again.
    eventually("one line is there, and that the other was left out", || {
        let text = read_all(&mut pipe, &mut log);
        text.contains("info  reloaded: ") && text.contains("left out 1 line (the log could not be written: ")
    });
}

#[test]
#[ignore = "needs python3"]
fn lines_for_programs_are_json() {
    let daemon =
        Daemon::start_configured(&format!("log-format = \"json\"; log-level = \"debug\"; {}", configuration("", "")));
    let server = daemon.listen("server");
    // Names with bytes that could break a line or command a terminal.
    for name in
        ["%22%7d%0a%0d%7b", "%1b%5b2J", "%5c%5c%22", "%e2%82%ac%f0%9f%90%92", "%ff%fe", "%7f%c2%85%e2%80%a8", "a'b<c>&"]
    {
        daemon.get(&format!("/{name}"));
        daemon.upgrade(&format!("/{name}"), &["Origin: http://\"evil\\"]);
        let long = name.repeat(300);
        daemon.get(&format!("/{long}"));
    }
    let mut wire = daemon.wire();
    wire.send(request("G\"\\ET", "/x", &["X: \x07"]));
    wire.take_rest();
    let mut client = daemon.connect("/server");
    client.send(&[Frame::close(4000, "\"quoted\" and\nbroken")]);
    drop((client, server.accept()));
    eventually("all are logged", || {
        let text = daemon.log().text();
        text.contains("\"code\":4000") && text.matches("\"event\":\"end\"").count() >= 22
    });
    let text = daemon.log().text() + "\n";
    let raw: Vec<&str> = text.lines().filter(|line| line.chars().any(|c| c.is_control())).collect();
    assert!(raw.is_empty(), "lines with control characters: {raw:?}");
    let program = "import json, sys
for line in sys.stdin.buffer.read().decode('utf-8').rstrip('\\n').split('\\n'):
    line = json.loads(line)
    assert {'time', 'level', 'event', 'message'} <= line.keys(), line
    print(line['event'])";
    let mut python = foreign::command("python3");
    python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let events = String::from_utf8(output.stdout).unwrap();
    assert!(events.matches("end").count() >= 22, "{events}\n{text}");
}
