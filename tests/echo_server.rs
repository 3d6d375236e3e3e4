//! The echo server: its options, its socket, and direct mode.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, program, start_echo};
use crate::handover::{give, give_and_keep, hand_over, sockaddr_in};
use crate::process::{DEADLINE, Finished, Folder, Process, close, eventually, run};
use crate::server::{Backend, Kind, connect, listener_of, listens};

fn echo(options: &[&str]) -> Finished {
    run(Command::new(program("websocket_echo")).args(options), DEADLINE)
}

fn client(path: &Path) -> Backend {
    Backend::new(connect(path, Kind::Stream).unwrap())
}

fn expect_echo(client: &mut Backend, text: &str) {
    client.send(text);
    client.expect(text);
}

#[test]
fn help() {
    for option in ["-h", "--help"] {
        let Finished { status, out, err } = echo(&[option]);
        assert!(status.success() && err.is_empty(), "{option}: {err}");
        for part in
            ["-R,", "-n,", "-u,", "-m,", "-D,", "-t,", "--mode", "--protocol", "--direct", "-h", "/var/run/websocket"]
        {
            assert!(out.contains(part), "{option}: {part} is not in\n{out}");
        }
    }
    // The reader of the pipe has closed it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(program("websocket_echo")).arg("-h").stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn usage_errors_are_one_line() {
    let folder = Folder::new();
    let root = folder.join("");
    let file = folder.join("file");
    std::fs::write(&file, "").unwrap();
    let below_file = format!("{file}/x");
    for (options, parts) in [
        (&["--nonsense"][..], &["--nonsense"][..]),
        (&["-R", &root, "-n", "a/b"], &["-n", "a/b", "without a slash"]),
        (&["-R", &root, "-n", "echo", "-m", "0"], &["-m 0", "1 or more"]),
        (&["-R", &root, "-n", "echo", "-m", "many"], &["-m", "many"]),
        (&["-R", &root, "-n", "echo", "--mode", "999"], &["--mode", "999", "660"]),
        (
            &["-R", &root, "-n", "echo", "--protocol", "udp"],
            &["--protocol", "udp", "stream, packet, lines, nul or frames"],
        ),
        (&["-R", &root, "-n", "echo", "--direct", "--protocol", "packet"], &["--direct", "leave --protocol out"]),
        (&["-R", &root, "-n", "echo", "-u", "nosuchuser"], &["-u nosuchuser", "no such user"]),
        (&["-R", &root, "-n", "file"], &["file", "not a socket is in the way"]),
        (&["-R", &below_file], &["-R", &below_file]),
    ] {
        let Finished { status, out, err } = echo(options);
        assert_eq!(status.code(), Some(1), "{options:?}: {out}{err}");
        assert_eq!(err.lines().count(), 1, "{options:?}: {err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{options:?}: {err}");
    }
}

#[test]
fn the_folder_is_created() {
    let folder = Folder::new();
    let path = folder.path().join("new/sub/echo");
    let _echo = start_echo(&path, &[]);
    expect_echo(&mut client(&path), "hello");
}

/// The line names the whole path, and is written once the server listens.
#[test]
fn each_sample_server_prints_its_socket() {
    let methods = program("libjsonsql.so");
    for (name, options) in [
        ("websocket_echo", vec!["--direct"]),
        ("websocket_echo", vec!["--protocol", "packet"]),
        ("websocket_chat", vec!["-w"]),
        ("websocket_jsonrpc", vec!["-L", methods.to_str().unwrap(), "-C", "file=db,write=1"]),
    ] {
        let folder = Folder::new();
        let mut command = Command::new(program(name));
        let process =
            Process::start(command.args(["-R", "./sub", "-n", "here"]).args(options).current_dir(folder.path()));
        let path = folder.path().canonicalize().unwrap().join("sub/here");
        assert_eq!(process.out.wait_for(&["listening"]), format!("{name}: listening on {}", path.display()));
        assert!(connect(&path, Kind::Stream).is_ok() || connect(&path, Kind::Packets).is_ok());
    }
}

#[test]
fn the_default_name_is_that_of_the_program() {
    let folder = Folder::new();
    let mut process = Process::start(Command::new(program("websocket_echo")).arg("-R").arg(folder.path()));
    let path = folder.path().join("websocket_echo");
    eventually("it listens under its own name", || connect(&path, Kind::Stream).is_ok());
    process.signal(Signal::SIGTERM);
    assert!(process.wait(DEADLINE).status.success());
    assert!(!path.exists(), "its socket goes with it");
}

/// As getopt(3) parses them, for scripts that started ouistiti's servers.
#[test]
fn short_options_may_be_combined() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let mut process = Process::start(
        Command::new(program("websocket_echo")).arg(format!("-R{}", folder.join(""))).args(["-m5", "-tn", "echo"]),
    );
    let mut only = None;
    eventually("it listens", || {
        only = connect(&path, Kind::Stream).ok();
        only.is_some()
    });
    expect_echo(&mut Backend::new(only.unwrap()), "once");
    assert!(process.wait(DEADLINE).status.success());
}

#[test]
fn clients_beyond_the_limit_wait() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let _echo = start_echo(&path, &["-m", "2"]);
    let (mut first, mut second, mut third) = (client(&path), client(&path), client(&path));
    expect_echo(&mut first, "first");
    expect_echo(&mut second, "second");
    third.send("third");
    // Two exchanges later the third is still not served.
    expect_echo(&mut first, "first again");
    expect_echo(&mut second, "second again");
    third.stream().set_nonblocking(true).unwrap();
    assert!(third.stream().read(&mut [0]).is_err(), "the third client is served too early");
    third.stream().set_nonblocking(false).unwrap();
    drop(first);
    third.expect("third");
    expect_echo(&mut second, "second still");
}

#[test]
fn test_mode_answers_once() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let mut process = Process::start(
        Command::new(program("websocket_echo")).arg("-t").arg("-R").arg(folder.path()).args(["-n", "echo"]),
    );
    eventually("it listens", || listens(&path));
    let mut only = client(&path);
    expect_echo(&mut only, "once");
    only.expect_end();
    assert!(process.wait(DEADLINE).status.success());
    assert!(!path.exists());
}

#[test]
fn the_mode_of_the_socket() {
    let folder = Folder::new();
    for (options, mode) in [(&[][..], 0o777), (&["--mode", "660"], 0o660), (&["--mode", "0700"], 0o700)] {
        let path = folder.path().join("echo");
        let _echo = start_echo(&path, options);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{options:?}");
    }
}

#[test]
fn a_stale_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    close(UnixListener::bind(&path).unwrap());
    let _echo = start_echo(&path, &[]);
    expect_echo(&mut client(&path), "hello");
}

#[test]
fn a_socket_in_use_is_not_replaced() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let _first = start_echo(&path, &[]);
    let inode = std::fs::metadata(&path).unwrap().ino();
    for protocol in ["stream", "packet"] {
        let Finished { status, err, .. } = echo(&["-R", &folder.join(""), "-n", "echo", "--protocol", protocol]);
        assert_eq!(status.code(), Some(1), "{protocol}: {err}");
        assert!(err.contains("another server listens there"), "{protocol}: {err}");
    }
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    expect_echo(&mut client(&path), "still mine");
}

#[test]
fn daemonized() {
    let folder = Folder::new();
    let Finished { status, out, err } = echo(&["-D", "-R", &folder.join(""), "-n", "echo"]);
    assert!(status.success(), "{err}");
    // The parent ended after the socket was made.
    let path = folder.path().join("echo");
    assert_eq!((out, err), (format!("websocket_echo: listening on {}", path.display()), String::new()));
    let mut client = client(&path);
    expect_echo(&mut client, "hello");
    let pid = listener_of(client.stream());
    let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(parent.contains("(websocket_echo)"), "{parent}");
    kill(pid, Signal::SIGTERM).unwrap();
    client.expect_end();
    eventually("its socket is gone", || !path.exists());
}

/// The command ends when the server is ready. Its socket names the child, whose signal handler works. On one CPU a
/// parent that does not wait ends before its child has run.
#[test]
fn daemonized_and_stopped_at_once() {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true)).unwrap()).unwrap();
    sched_setaffinity(this_thread, &one).unwrap();
    let folder = Folder::new();
    let path = folder.path().join("echo");
    for _ in 0..40 {
        let mut command = Command::new(program("websocket_echo"));
        command.args(["-D", "-R", &folder.join(""), "-n", "echo"]).stdout(Stdio::null());
        // `run` would also wait for the end of the pipes.
        assert!(command.status().unwrap().success());
        kill(listener_of(&connect(&path, Kind::Stream).unwrap()), Signal::SIGTERM).unwrap();
        eventually("its socket is gone", || !path.exists());
    }
}

/// Failures after the fork are reported as without `-D`.
#[test]
fn a_failed_start_in_the_background_is_reported() {
    let folder = Folder::new();
    let finished = echo(&["-D", "-R", &folder.join(""), "-n", "echo", "-u", "nobody-of-this-name"]);
    let expected = "websocket_echo: -u nobody-of-this-name: there is no such user";
    assert_eq!((finished.status.code(), finished.err.as_str()), (Some(1), expected));
    assert!(!folder.path().join("echo").exists());
}

#[test]
fn packets_are_echoed_one_by_one() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let _echo = start_echo(&path, &["--protocol", "packet"]);
    let mut client = Backend::new(connect(&path, Kind::Packets).unwrap());
    for text in ["one", "two", "three"] {
        client.send(text);
    }
    for text in ["one", "two", "three"] {
        assert_eq!(client.read(), text.as_bytes());
    }
}

#[test]
fn a_client_that_does_not_read_does_not_delay_others() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let _echo = start_echo(&path, &[]);
    let stuck = client(&path);
    stuck.stream().set_nonblocking(true).unwrap();
    let bytes = vec![0; 64 * 1024];
    while stuck.stream().write(&bytes).is_ok() {}
    let mut other = client(&path);
    for number in 0..10 {
        expect_echo(&mut other, &format!("number {number}"));
    }
}

#[test]
fn with_the_gateway_in_each_protocol() {
    for protocol in ["stream", "packet", "lines", "nul", "frames"] {
        let daemon = Daemon::start(&["--protocol", protocol]);
        let _echo = daemon.echo("echo", &["--protocol", protocol]);
        let mut client = daemon.connect("/echo");
        for text in ["hello", "Gr\u{fc}\u{df}e"] {
            client.text(text);
            client.expect_text(text);
        }
        client.binary(b"\xff\x01");
        client.expect_binary(b"\xff\x01");
        client.finish(1000);
    }
}

/// The server in direct mode, without the gateway.
fn start_direct(path: &Path, options: &[&str]) -> Process {
    start_direct_by(Command::new(program("websocket_echo")), path, options)
}

fn start_direct_by(mut command: Command, path: &Path, options: &[&str]) -> Process {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let process = Process::start(command.arg("--direct").arg("-R").arg(folder).arg("-n").arg(name).args(options));
    eventually("it listens", || connect(path, Kind::Stream).is_ok());
    process
}

#[test]
fn handed_over_by_the_gateway() {
    let daemon = Daemon::start(&["--options", "direct", "--hello"]);
    let echo = daemon.echo("echo", &["--direct", "--hello"]);
    let mut clients: Vec<Client> = (0..3).map(|number| daemon.connect(&format!("/echo?{number}"))).collect();
    for client in &mut clients {
        for text in ["hello", "", "Gr\u{fc}\u{df}e", &"x".repeat(200_000)] {
            client.text(text);
            client.expect_text(text);
        }
        client.binary(b"\xff\x01");
        client.expect_binary(b"\xff\x01");
        client.send(&[Frame::part(TEXT, b"in "), Frame::new(PING, b"?"), Frame::new(0, b"parts")]);
        assert_eq!((client.frame(), client.frame()), (Frame::new(PONG, b"?"), Frame::new(TEXT, b"in parts")));
    }
    for number in 0..3 {
        echo.out.wait_for(&["client=127.0.0.1:", "path=\"/echo\"", &format!("query=\"{number}\"")]);
    }
    clients.remove(0).finish(4000);
    clients[0].send(&[Frame::new(TEXT, b"\xff")]);
    assert!(clients[0].expect_close(1007).contains("UTF-8"));
    clients[0].wire.expect_end();
    echo.signal(Signal::SIGTERM);
    clients[1].expect_close_handshake(1001);
}

#[test]
fn handed_over_and_served_once() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let mut process = start_direct(&path, &["-t"]);
    let (mut only, mut other) = (give(&path), give(&path));
    only.text("once");
    only.expect_text("once");
    only.expect_close_handshake(1000);
    assert!(process.wait(DEADLINE).status.success());
    assert!(!path.exists());
    assert!(!other.wire.fill(), "it was served");
}

#[test]
fn descriptors_that_are_not_connections_are_ignored() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let echo = start_direct(&path, &[]);
    let file = std::fs::File::open("/dev/null").unwrap();
    hand_over(&UnixStream::connect(&path).unwrap(), &sockaddr_in(([127, 0, 0, 1], 1).into()), file.as_raw_fd());
    echo.err.wait_for(&["websocket_echo: the descriptor handed over is not a connection"]);
    let mut client = give(&path);
    client.text("still there");
    client.expect_text("still there");
}

#[test]
fn handed_over_beyond_the_limit() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let _echo = start_direct(&path, &["-m", "2"]);
    let (mut first, mut second, mut third) = (give(&path), give(&path), give(&path));
    for text in ["one", "two"] {
        for client in [&mut first, &mut second] {
            client.text(text);
            client.expect_text(text);
        }
    }
    third.text("third");
    third.wire.stream().set_nonblocking(true).unwrap();
    let early = third.wire.stream().read(&mut [0]);
    assert!(early.is_err(), "the third client is served too early");
    third.wire.stream().set_nonblocking(false).unwrap();
    first.finish(1000);
    third.expect_text("third");
}

#[test]
fn handed_over_and_closed_while_the_gateway_has_a_copy() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let echo = start_direct(&path, &[]);
    let (mut client, _copy) = give_and_keep(&path);
    client.text("one");
    client.expect_text("one");
    // The server watches its listener by now.
    let without_client = echo.watched_files() - 1;
    client.close(1000);
    client.expect_close(1000);
    drop(client);
    eventually("nothing is watched that was closed", || echo.watched_files() == without_client);
}

#[test]
fn handed_over_without_a_hello_record() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let echo = start_direct(&path, &["--hello"]);
    let mut client = give(&path);
    assert!(!client.wire.fill());
    echo.err.wait_for(&["no hello record"]);
    let mut plain = connect(&path, Kind::Stream).unwrap();
    plain.write_all(b"hello").unwrap();
    assert!(plain.read(&mut [0]).is_err(), "closed with bytes unread");
    echo.err.wait_for(&["a plain local client was refused"]);
}

#[test]
fn handed_over_without_a_free_descriptor() {
    let folder = Folder::new();
    let path = folder.path().join("echo");
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 14 && exec \"$@\"", "sh"]).arg(program("websocket_echo"));
    let _echo = start_direct_by(few, &path, &[]);
    for mut client in (0..30).map(|_| give(&path)).collect::<Vec<Client>>() {
        client.text("at last");
        client.expect_text("at last");
        client.finish(1000);
    }
}
