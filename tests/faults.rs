//! Faults around the daemon: no descriptors, no buffers, replaced backends and folders, peers that send random bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, ControlMessage, MsgFlags};

use crate::client::{BINARY, CLOSE, Client, Frame, TEXT};
use crate::daemon::{Daemon, UAKARI_PATH, configuration, start_echo};
use crate::drivers::{NO_RING, has_io_uring};
use crate::privileges::as_lone_user;
use crate::process::{
    DEADLINE, Finished, Folder, IsOver, Process, close, eventually, exchange_files, expect_eq, has, run, skipped,
};
use crate::server::{Kind, Listener};
use crate::standstill::while_stopped;
use crate::wire::{Wire, handshake};

/// A message and its echo.
fn expect_echo(client: &mut Client, text: &str) {
    client.text(text);
    client.expect_text(text);
}

/// The clients within the limits and those that get a 503 need more descriptors than there are.
#[test]
fn accepting_pauses_without_free_descriptors() {
    let daemon = Daemon::start_configured(&configuration("files = 84;", ""));
    let _echo = daemon.echo("echo", &[]);
    let mut clients: Vec<Client> = (0..10).map(|_| daemon.connect("/echo")).collect();
    for round in 0..3 {
        // They are accepted in one go: those that got a 503 do not make room for others.
        let crowd: Vec<_> = while_stopped(&daemon, || (0..80).map(|_| daemon.wire()).collect());
        let failures = || daemon.log().text().matches("cannot accept: Too many open files").count();
        eventually("accepting fails", || failures() > round);
        for number in 0..20 {
            clients.iter_mut().for_each(|client| expect_echo(client, &format!("message {number}")));
        }
        drop(crowd);
        clients.pop().unwrap().finish(1000);
        eventually("there is a place again", || {
            let mut wire = daemon.wire();
            let is_in = wire.upgrade("/echo", &[]).status == 101;
            clients.extend(is_in.then(|| Client::new(wire)));
            is_in
        });
    }
}

#[test]
fn a_request_without_a_free_descriptor_is_503() {
    if !has("prlimit") {
        return skipped("there is no prlimit");
    }
    let daemon = Daemon::start_configured(&configuration("", ""));
    let _echo = daemon.echo("echo", &[]);
    let limit = |fds: u64| {
        let fds = format!("--nofile={fds}:");
        let command = &mut Command::new("prlimit");
        assert!(run(command.args(["--pid", &daemon.pid().to_string(), &fds]), DEADLINE).status.success());
    };
    let mut client = daemon.connect("/echo");
    let [mut browser, mut late] = [daemon.wire(), daemon.wire()];
    fs::write(daemon.folder().join("www/page"), "the page").unwrap();
    expect_eq([browser.get("/page").status, late.get("/page").status], [200; 2], "a page");
    // Existing connections continue. A new one is not accepted on epoll; on io_uring the accept in flight has the limit
    // of its start.
    limit(3);
    expect_eq(browser.get("/page").status, 503, "a page");
    let response = late.upgrade("/echo", &[]);
    assert!(response.status == 503 && response.text().contains("out of file descriptors"), "{response:?}");
    assert_ne!(response.field("Retry-After"), "", "{response:?}");
    expect_echo(&mut client, "hello");
    limit(2_000);
    expect_eq(browser.get("/page").status, 200, "a page");
    expect_echo(&mut daemon.connect("/echo"), "hello");
}

/// A message of a size and content of its own.
fn message(client: usize, number: usize) -> Vec<u8> {
    let size = [3, 200, 7_000, 66_000, 150_000][(client + number) % 5];
    let mut bytes = format!("{client} {number} ").into_bytes();
    bytes.resize(size.max(bytes.len()), (client * 31 + number) as u8);
    bytes
}

/// More clients than buffers: receives that fail with ENOBUFS are repeated.
#[test]
fn an_empty_buffer_pool_loses_nothing() {
    let daemon = Daemon::start_configured(&configuration("pool-buffers = 16;", "protocol = \"frames\";"));
    let _echo = daemon.echo("echo", &["--protocol", "frames", "-m", "100"]);
    thread::scope(|scope| {
        for client in 0..48 {
            let mut connected = daemon.connect("/echo");
            let mut sender = connected.wire.stream().try_clone().unwrap();
            scope.spawn(move || {
                for number in 0..15 {
                    sender.write_all(&Frame::new(BINARY, &message(client, number)).masked().bytes()).unwrap();
                }
            });
            scope.spawn(move || {
                for number in 0..15 {
                    connected.expect_binary(&message(client, number));
                }
                connected.finish(1000);
            });
        }
    });
}

/// Of io_uring alone: a ring needs locked memory, unless it is root's. The kernel counts it per user: a new user has all of it, while the
/// user of the tests may have other daemons.
#[test]
fn a_low_limit_of_locked_memory() {
    if !has_io_uring() {
        return skipped(NO_RING);
    }
    let folder = Folder::new();
    let daemon = as_lone_user(&folder);
    let is_alone = daemon.is_some();
    let daemon = daemon.unwrap_or_else(|| Command::new(UAKARI_PATH));
    let limited = |limit: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l \"$0\" && exec \"$@\"", limit]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        command
    };
    let path = folder.join("uakari.conf");
    fs::write(&path, configuration("", "").replace('@', folder.path().to_str().unwrap())).unwrap();
    ["run", "www"].iter().for_each(|name| fs::create_dir(folder.join(name)).unwrap());
    // The least amount depends on the kernel: the daemon serves, or names the limit.
    let start = |limit_kib: rlim_t| {
        let mut process = Process::start(limited(&limit_kib.to_string()).args(["--driver", "uring", "-f", &path]));
        if let Some(line) = process.out.wait(|lines| lines.first().cloned()) {
            let port = line.rsplit(':').next().unwrap().parse().unwrap();
            return Some((process, port));
        }
        let Finished { status, err, .. } = process.wait(DEADLINE);
        assert!(status.code() == Some(1) && err.contains("RLIMIT_MEMLOCK") && err.contains("ulimit -l"), "{err}");
        None
    };
    start(0);
    let hard_kib = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().1 / 1024;
    let limits = [64, 128, 256, 512, 1024, 2048, 4096, hard_kib];
    let mut limits =
        limits.into_iter().take(if is_alone { 1 } else { limits.len() }).filter(|limit| *limit <= hard_kib);
    let (_daemon, port) =
        limits.find_map(start).expect("64 KiB of a user's own, or all of a shared user's, are enough");
    let _echo = start_echo(&folder.path().join("run/echo"), &[]);
    let mut wire = Wire::connect(port);
    expect_eq(wire.upgrade("/echo", &[]).status, 101, "a handshake");
    expect_echo(&mut Client::new(wire), "hello");
}

#[test]
pub fn a_folder_that_is_created_again_is_found() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    let mut echo = daemon.echo("echo", &[]);
    let mut old = daemon.connect("/echo");
    for round in 0..2 {
        for name in ["run", "www"] {
            fs::remove_dir_all(daemon.folder().join(name)).unwrap();
        }
        expect_eq(daemon.upgrade("/echo", &[]).status, 404, "a name in a folder that is gone");
        expect_eq(daemon.get("/page").status, 404, "a page in a folder that is gone");
        expect_echo(&mut old, "hello");
        for name in ["run", "www"] {
            fs::create_dir(daemon.folder().join(name)).unwrap();
        }
        fs::write(daemon.folder().join("www/page"), format!("page {round}")).unwrap();
        let new = daemon.echo("echo", &[]);
        let start = Instant::now();
        eventually("the new folder is served", || daemon.upgrade("/echo", &[]).status == 101);
        eventually("the new pages are served", || daemon.get("/page").text() == format!("page {round}"));
        assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
        old = daemon.connect("/echo");
        expect_echo(&mut old, "hello");
        drop(std::mem::replace(&mut echo, new));
        old = daemon.connect("/echo");
    }
    for name in ["run", "www"] {
        daemon.log().wait_for(&["info", &format!("{name} is another one now, and is served")]);
    }
}

#[test]
pub fn a_replaced_backend_receives_new_clients() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    let path = daemon.socket("server");
    let old = daemon.listen("server");
    let mut old_client = daemon.connect("/server");
    let mut old_backend = old.accept();
    fs::remove_file(&path).unwrap();
    expect_eq(daemon.upgrade("/server", &[]).status, 404, "between the two");
    let new = daemon.listen("server");
    let mut new_client = daemon.connect("/server");
    let mut new_backend = new.accept();
    drop(old);
    for (client, backend) in [(&mut old_client, &mut old_backend), (&mut new_client, &mut new_backend)] {
        client.text("question");
        backend.expect("question");
        backend.send("answer");
        client.expect_text("answer");
    }
    // Its listener is closed, and the file is left.
    close(new);
    expect_eq(daemon.upgrade("/server", &[]).status, 502, "no listener");
    fs::remove_file(&path).unwrap();
}

/// Replaces a file by one after the other.
fn swap(flag: &AtomicBool, place: &std::path::Path, makers: [&dyn Fn(&std::path::Path); 2]) {
    let beside = place.with_extension("beside");
    while !flag.load(Ordering::Relaxed) {
        for make in makers {
            make(&beside);
            fs::rename(&beside, place).unwrap();
        }
    }
}

/// The file that was checked is the one that is connected: a link that exists for a moment does not lead out of
/// docroot.
#[test]
pub fn swapping_the_socket_file_never_escapes_docroot() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    let (inside, outside) = (daemon.socket("inside"), daemon.folder().path().join("outside"));
    let server = Listener::bind(&inside, Kind::Stream);
    let secret = Listener::bind(&outside, Kind::Stream);
    let place = daemon.socket("server");
    fs::hard_link(&inside, &place).unwrap();
    let flag = AtomicBool::new(false);
    let mut counts = [0; 2];
    thread::scope(|scope| {
        let _is_over = IsOver(&flag);
        scope.spawn(|| {
            let link = |beside: &std::path::Path| symlink(&outside, beside).unwrap();
            swap(&flag, &place, [&link, &|beside| fs::hard_link(&inside, beside).unwrap()]);
        });
        for _ in 0..300 {
            match daemon.upgrade("/server", &[]).status {
                101 => counts[0] += 1,
                403 => counts[1] += 1,
                status => panic!("{status} after {counts:?}"),
            }
        }
    });
    println!("{counts:?} were let in and refused");
    assert!(secret.is_idle(), "a client was led out of docroot");
    (0..counts[0]).for_each(|_| drop(server.accept()));
    assert!(server.is_idle(), "more were connected than were let in");
}

/// As above, for a folder of the path and for "..": each name is a backend in docroot, and for moments a secret outside.
#[test]
pub fn swapping_a_folder_never_escapes_docroot() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    let outside = daemon.folder().path().join("outside");
    let secrets = ["outside/server", "server"].map(|name| {
        let path = daemon.folder().path().join(name);
        Listener::bind(&path, Kind::Stream)
    });
    let servers = ["folder/server", "server"].map(|name| daemon.listen(name));
    let (place, beside) = (daemon.socket("folder"), daemon.folder().path().join("beside"));
    symlink(&outside, &beside).unwrap();
    symlink("folder/../server", daemon.socket("link")).unwrap();
    let flag = AtomicBool::new(false);
    let mut statuses = BTreeMap::new();
    thread::scope(|scope| {
        let _is_over = IsOver(&flag);
        scope.spawn(|| {
            while !flag.load(Ordering::Relaxed) {
                exchange_files(&place, &beside);
            }
        });
        for number in 0..600 {
            let path = ["/folder/server", "/link"][number % 2];
            *statuses.entry((path, daemon.upgrade(path, &[]).status)).or_insert(0) += 1;
        }
    });
    println!("{statuses:?}");
    assert!(secrets.iter().all(Listener::is_idle), "a client was led out of docroot: {statuses:?}");
    assert!(statuses.keys().all(|(_, status)| [101, 403].contains(status)), "{statuses:?}");
    for (server, path) in servers.iter().zip(["/folder/server", "/link"]) {
        let count = statuses.get(&(path, 101)).copied().unwrap_or(0);
        (0..count).for_each(|_| drop(server.accept()));
        assert!(server.is_idle(), "more were connected than were let in: {statuses:?}");
    }
}

/// A backend that is killed while all its clients talk to it.
#[test]
fn a_killed_backend_ends_only_its_own_clients() {
    // A client that is held up gets all the same what precedes its end.
    let limits = "queued-size = 67108864; close-ms = 60000; stall-ms = 60000;";
    let daemon = Daemon::start_configured(&configuration(limits, "protocol = \"frames\";"));
    let _other = daemon.echo("other", &["--protocol", "frames"]);
    let mut untouched = daemon.connect("/other");
    let files = daemon.open_files();
    for round in 0..3 {
        let mut echo = daemon.echo("echo", &["--protocol", "frames"]);
        let clients: Vec<Client> = (0..20).map(|_| daemon.connect("/echo")).collect();
        let bytes = Frame::new(BINARY, &[7; 50_000]).masked().bytes();
        thread::scope(|scope| {
            for mut client in clients {
                let mut sender = client.wire.stream().try_clone().unwrap();
                let bytes = &bytes;
                scope.spawn(move || while sender.write_all(bytes).is_ok() {});
                scope.spawn(move || {
                    let mut frame = client.frame();
                    while frame.opcode != CLOSE {
                        frame = client.frame();
                    }
                    let (code, _) = frame.close_code();
                    assert!([1000, 1011].contains(&code), "closed with {code}");
                    client.wire.stream().shutdown(Shutdown::Both).unwrap();
                });
            }
            (0..20).for_each(|number| expect_echo(&mut untouched, &format!("message {number}")));
            echo.signal(Signal::SIGKILL);
            echo.wait(DEADLINE);
        });
        expect_echo(&mut untouched, &format!("round {round}"));
        expect_eq(daemon.upgrade("/echo", &[]).status, 502, "a killed backend");
    }
    eventually("no file is left open", || daemon.open_files() <= files);
}

/// Random bytes of a seed.
fn garbage(seed: usize, size: usize) -> Vec<u8> {
    let mut state = seed as u32 ^ 0x9e37_79b9;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A conversation of which each byte may be followed by garbage.
#[test]
fn garbage_in_every_phase() {
    let daemon = Daemon::start_configured(&configuration("", "protocol = \"frames\";"));
    let _echo = daemon.echo("echo", &["--protocol", "frames", "-m", "500"]);
    let mut untouched = daemon.connect("/echo");
    let files = daemon.open_files();
    let mut conversation = handshake("/echo", &[], &[]).into_bytes();
    conversation.extend(Frame::new(TEXT, b"hello").masked().bytes());
    conversation.extend(Frame::part(BINARY, &[7; 200]).masked().bytes());
    conversation.extend(Frame::close(1000, "").masked().bytes());
    let (daemon, conversation) = (&daemon, &conversation);
    thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                for cut in (lane..=conversation.len()).step_by(4) {
                    let mut wire = daemon.wire();
                    wire.send([&conversation[..cut], &garbage(cut, 20 + cut % 400)].concat());
                    let _ = wire.stream().shutdown(Shutdown::Write);
                    wire.take_rest();
                }
            });
        }
        (0..20).for_each(|number| expect_echo(&mut untouched, &format!("message {number}")));
    });
    // From a backend.
    let server = daemon.listen("server");
    for seed in 0..100 {
        let mut client = daemon.connect("/server");
        let mut backend = server.accept();
        backend.send([&Frame::new(TEXT, b"hello").bytes()[..seed % 8], &garbage(seed, 1 + seed * 7)].concat());
        drop(backend);
        client.wire.stream().shutdown(Shutdown::Write).unwrap();
        client.wire.take_rest();
    }
    expect_echo(&mut untouched, "hello");
    eventually("no file is left open", || daemon.open_files() <= files);
}

/// What makes a receive end early (tcp(7), MSG_OOB; unix(7), SCM_RIGHTS) hides nothing of what follows. The daemon stands
/// still until all of it is there. With io_uring a pending signal, here SIGCONT, is an EAGAIN at the urgent byte
/// (tcp_recvmsg), after which the kernel waits for more to arrive.
#[test]
fn urgent_bytes_and_descriptors_hide_nothing() {
    let daemon = Daemon::start(&["--driver", "epoll"]);
    let listener = daemon.listen("server");
    let mut client = daemon.connect("/server");
    let mut backend = listener.accept();
    let number = client.wire.stream().as_raw_fd();
    while_stopped(&daemon, || {
        client.text("before");
        socket::send(number, b"!", MsgFlags::MSG_OOB).unwrap();
        client.text("after");
        let rights = [ControlMessage::ScmRights(&[number])];
        let parts = [IoSlice::new(b"with a descriptor")];
        let to = backend.stream().as_raw_fd();
        socket::sendmsg::<()>(to, &parts, &rights, MsgFlags::empty(), None).unwrap();
        backend.send(", and after it");
    });
    backend.expect("beforeafter");
    let mut received = String::new();
    while received != "with a descriptor, and after it" {
        received += std::str::from_utf8(&client.message().1).unwrap();
    }
    drop(backend);
    client.finish(1000);
}
