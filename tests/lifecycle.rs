//! The daemon from its start to its end: signals, files, service managers and the log.

/// Listeners opened by a service manager.
mod activation;
/// The log: files that are moved or full, pipes without a reader, JSON lines.
mod log;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use uakari::limits::LAST_WORDS_MS;

use crate::client::{CLOSE, Client, Frame, TEXT};
use crate::daemon::{Daemon, configuration, uakari};
use crate::process::{DEADLINE, Finished, Folder, eventually, expect_eq, run, uninterrupted};
use crate::server::Backend;

/// Starts a daemon that must fail. Returns its standard error.
fn fail(folder: &Folder, text: &str) -> String {
    let path = folder.join("uakari.conf");
    fs::write(&path, text.replace('@', folder.path().to_str().unwrap())).unwrap();
    let Finished { status, out, err } = run(uakari().args(["-f", &path]), DEADLINE);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    err
}

#[test]
fn the_first_lines_are_written_at_once() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    daemon.log().wait_for(&["info", "uakari", "2048 clients at most", "MiB of memory at most"]);
}

/// Requests received before the signal are answered, then the connection ends.
#[test]
fn sigterm_waits_for_answers() {
    for protocol in ["stream", "lines", "frames"] {
        // On a busy machine the backend may take long to answer.
        let limits = "drain-ms = 60000; close-ms = 60000;";
        let daemon = Daemon::start_configured(&configuration(limits, &format!("protocol = \"{protocol}\";")));
        let server = daemon.listen("server");
        let mut client = daemon.connect("/server");
        let mut backend = server.accept();
        let (question, answer) = match protocol {
            "frames" => (Frame::new(TEXT, b"question").bytes(), Frame::new(TEXT, b"answer").bytes()),
            "lines" => (b"question\n".to_vec(), b"answer\n".to_vec()),
            _ => (b"question".to_vec(), b"answer".to_vec()),
        };
        client.text("question");
        backend.expect(question);
        daemon.signal(Signal::SIGTERM);
        if protocol == "frames" {
            expect_eq(backend.frame().close_code().0, 1001, protocol);
        }
        backend.expect_end();
        // Longer than the time for the last words of a device.
        thread::sleep(Duration::from_millis(LAST_WORDS_MS + 200));
        backend.send(answer);
        drop(backend);
        client.expect_text("answer");
        client.expect_close_handshake(1001);
    }
}

/// Answers each message until the end. Returns their number.
fn answer_all(mut backend: Backend) -> u64 {
    let mut count = 0;
    loop {
        let frame = backend.frame();
        if frame.opcode == CLOSE {
            backend.expect_end();
            return count;
        }
        count += 1;
        backend.send_frame(&frame);
    }
}

/// Sends without waiting for answers. Returns the number of answers.
fn ask_all(mut client: Client) -> u64 {
    let mut sender = client.wire.stream().try_clone().unwrap();
    let message = Frame::new(TEXT, b"a message").masked().bytes();
    let asking = thread::spawn(move || while sender.write_all(&message).is_ok() {});
    let mut count = 0;
    let (code, reason) = loop {
        let frame = client.frame();
        if frame.opcode == CLOSE {
            break frame.close_code();
        }
        count += 1;
    };
    expect_eq((code, reason.as_str()), (1001, "the gateway stops"), "the close frame");
    client.wire.stream().shutdown(Shutdown::Both).unwrap();
    asking.join().unwrap();
    count
}

#[test]
fn sigterm_under_traffic_loses_no_answer() {
    // On a busy machine the backends may take long to answer.
    let text = format!(
        "pid-file = \"@/pid\"; {}",
        configuration("drain-ms = 60000; close-ms = 60000;", "protocol = \"frames\";")
    )
    .replace("\"127.0.0.1:0\"", "(\"127.0.0.1:0\", \"unix:@/front.sock\")");
    let mut daemon = Daemon::start_configured(&text);
    let (pid, front) = (daemon.folder().path().join("pid"), daemon.folder().path().join("front.sock"));
    expect_eq(fs::read_to_string(&pid).unwrap(), format!("{}\n", daemon.pid()), "the pid file");
    let server = daemon.listen("server");
    let pairs: Vec<_> = (0..3).map(|_| (daemon.connect("/server"), server.accept())).collect();
    let (clients, backends): (Vec<Client>, Vec<Backend>) = pairs.into_iter().unzip();
    let answering: Vec<_> = backends.into_iter().map(|backend| thread::spawn(|| answer_all(backend))).collect();
    let asking: Vec<_> = clients.into_iter().map(|client| thread::spawn(|| ask_all(client))).collect();
    // Traffic flows.
    let mut probe = daemon.connect("/server");
    let mut probed = server.accept();
    for _ in 0..50 {
        probe.text("hello");
        expect_eq(probed.message().1, b"hello".to_vec(), "a message beside the traffic");
    }
    drop((probe, probed));
    daemon.signal(Signal::SIGTERM);
    let asked: Vec<u64> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();
    let answered: Vec<u64> = answering.into_iter().map(|thread| thread.join().unwrap()).collect();
    println!("{answered:?} messages were answered");
    expect_eq(asked, answered, "answers that came and answers that were given");
    let finished = daemon.wait(DEADLINE);
    expect_eq(finished.status.code(), Some(0), &finished.err);
    assert!(finished.err.contains("stopping on signal 15") && finished.err.ends_with("stopped"), "{}", finished.err);
    assert!(!pid.exists() && !front.exists(), "a file is left");
}

/// A daemon, a client and a backend that do not close.
fn stuck(limits: &str) -> (Daemon, Client, Backend) {
    let daemon = Daemon::start_configured(&configuration(limits, ""));
    let server = daemon.listen("server");
    let client = daemon.connect("/server");
    let backend = server.accept();
    (daemon, client, backend)
}

#[test]
fn the_drain_has_a_deadline() {
    for drain_ms in [0, 700] {
        // A busy machine may take longer once, but not every time.
        eventually(&format!("the drain ends before its default time, after {drain_ms} ms"), || {
            let (mut daemon, _client, _backend) = stuck(&format!("drain-ms = {drain_ms}; close-ms = 600000;"));
            let start = Instant::now();
            daemon.stop();
            let took = start.elapsed();
            assert!(took + Duration::from_millis(2) >= Duration::from_millis(drain_ms), "{took:?}");
            eprintln!("a drain of {drain_ms} ms took {took:?}");
            took < Duration::from_millis(drain_ms + 4_000)
        });
    }
}

/// The backend sends without end, and its client gets the close frame all the same.
#[test]
fn a_backend_that_keeps_sending_during_the_drain() {
    for signals in [1, 2] {
        let (mut daemon, mut client, backend) = stuck(if signals == 1 { "drain-ms = 2000;" } else { "" });
        let talking = thread::spawn(move || {
            while backend.stream().write_all(b"tick").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        // Several are one message if the gateway reads late.
        assert!(client.message().1.starts_with(b"tick"));
        (0..signals).for_each(|_| daemon.signal(Signal::SIGTERM));
        let last = std::iter::repeat_with(|| client.frame()).find(|frame| frame.opcode != TEXT).unwrap();
        expect_eq((last.opcode, last.close_code().0), (CLOSE, 1001), signals);
        // A client that is slow to answer finds the connection closed.
        let _ = client.wire.stream().write_all(&Frame::close(1001, "").masked().bytes());
        expect_eq(client.wire.take_rest(), Vec::new(), "what follows the close frame");
        let finished = daemon.wait(DEADLINE);
        expect_eq(finished.status.code(), Some(0), &finished.err);
        talking.join().unwrap();
    }
}

#[test]
fn a_second_sigterm_ends_the_daemon_at_once() {
    let (mut daemon, mut client, mut backend) = stuck("drain-ms = 600000; close-ms = 600000;");
    daemon.signal(Signal::SIGTERM);
    backend.expect_end();
    backend.stream().shutdown(Shutdown::Write).unwrap();
    client.expect_close(1001);
    daemon.signal(Signal::SIGTERM);
    let finished = daemon.wait(DEADLINE);
    expect_eq(finished.status.code(), Some(0), &finished.err);
    client.wire.expect_end();
}

/// A stopping daemon accepts no client, even after SIGHUP.
#[test]
fn sighup_is_ignored_during_shutdown() {
    let (mut daemon, mut client, mut backend) = stuck("drain-ms = 600000; close-ms = 600000;");
    daemon.signal(Signal::SIGHUP);
    daemon.signal(Signal::SIGTERM);
    backend.expect_end();
    drop(backend);
    client.expect_close(1001);
    let reloads = |daemon: &Daemon| daemon.log().text().matches("reload").count();
    let before = reloads(&daemon);
    daemon.signal(Signal::SIGHUP);
    eventually("the listener is closed", || std::net::TcpStream::connect(("127.0.0.1", daemon.port)).is_err());
    client.close(1001);
    client.wire.expect_end();
    let finished = daemon.wait(DEADLINE);
    expect_eq(finished.status.code(), Some(0), &finished.err);
    assert!(reloads(&daemon) <= before + 1, "{}", finished.err);
}

#[test]
fn addresses_and_files_in_use_are_named() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    fs::create_dir(folder.join("www")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = configuration("", "").replace("127.0.0.1:0", &address);
    let said = fail(&folder, &text);
    assert!(said.contains(&format!("uakari.conf:3: servers[0].listen: cannot listen on http://{address}")), "{said}");
    assert!(said.contains("another program listens there"), "{said}");
    let _living = UnixListener::bind(folder.join("front.sock")).unwrap();
    let said = fail(&folder, &configuration("", "").replace("127.0.0.1:0", "unix:@/front.sock"));
    assert!(said.contains("front.sock: Address already in use"), "{said}");
    fs::write(folder.join("no-socket"), "").unwrap();
    let said = fail(&folder, &configuration("", "").replace("127.0.0.1:0", "unix:@/no-socket"));
    assert!(said.contains("a file that is not a socket is in the way"), "{said}");
    // The socket that was made before the failure is removed.
    let both = format!("(\"unix:@/made.sock\", \"{address}\")");
    fail(&folder, &configuration("", "").replace("\"127.0.0.1:0\"", &both));
    assert!(!folder.path().join("made.sock").exists());
}

#[test]
fn a_pid_file_has_one_owner() {
    let text = format!("pid-file = \"@/pid\"; {}", configuration("", ""));
    let folder = Folder::new();
    // The pid file of a killed daemon.
    fs::write(folder.join("pid"), "4194304999\n").unwrap();
    let mut daemon = Daemon::start_configured_by(folder, &text, uakari());
    let said = fail(daemon.folder(), &text);
    let owner = format!("pid-file: the pid file {} belongs to process {}", daemon.folder().join("pid"), daemon.pid());
    assert!(said.contains(&owner), "{said}");
    expect_eq(daemon.get("/nosuch").status, 404, "the first one serves");
    daemon.stop();
    assert!(!daemon.folder().path().join("pid").exists());
}

/// The service manager's notification socket.
pub struct Manager(UnixDatagram);

impl Manager {
    pub fn new(socket: UnixDatagram) -> Manager {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Manager(socket)
    }

    /// The next message.
    pub fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let size = uninterrupted(|| self.0.recv(&mut bytes)).expect("the daemon should tell something");
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    }
}

#[test]
fn the_service_manager_is_notified() {
    let name = format!("uakari-test-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
    let folder = Folder::new();
    let path = folder.join("notify");
    for (address, socket) in [
        (path.clone(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}"), UnixDatagram::bind_addr(&abstract_address).unwrap()),
    ] {
        let manager = Manager::new(socket);
        let mut command = uakari();
        command.env("NOTIFY_SOCKET", &address);
        let text = configuration("", "");
        let mut daemon = Daemon::start_configured_by(Folder::new(), &text, command);
        expect_eq(manager.next(), "READY=1\nSTATUS=serving\n".to_owned(), &address);
        for text in [text.as_str(), "nonsense"] {
            daemon.configure(text);
            daemon.signal(Signal::SIGHUP);
            let message = manager.next();
            assert!(message.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{message:?}");
            expect_eq(manager.next(), "READY=1\nSTATUS=serving\n".to_owned(), text);
        }
        daemon.signal(Signal::SIGTERM);
        expect_eq(manager.next(), "STOPPING=1\n".to_owned(), &address);
        daemon.wait(DEADLINE);
    }
}

/// WATCHDOG=1 comes while the daemon is idle. With other messages it might not: the socket of a manager that stands
/// still has room for ten (unix(7), max_dgram_qlen).
#[test]
fn the_watchdog_is_fed() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut command = uakari();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let _daemon = Daemon::start_configured_by(folder, &configuration("", ""), command);
    expect_eq(manager.next(), "READY=1\nSTATUS=serving\n".to_owned(), "the first message");
    // A busy machine may hold them up for a while.
    let fed = || expect_eq(manager.next(), "WATCHDOG=1\n".to_owned(), "a message");
    (0..4).for_each(|_| fed());
    eventually("one follows another within a second", || {
        let start = Instant::now();
        fed();
        start.elapsed() < Duration::from_secs(1)
    });
}
