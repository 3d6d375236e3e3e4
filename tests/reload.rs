//! SIGHUP: what changes, what stays, and that connected clients notice nothing.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{BINARY, Client, Frame};
use crate::daemon::{Daemon, UAKARI_PATH, configuration, uakari};
use crate::lifecycle::Manager;
use crate::process::{DEADLINE, Folder, eventually, expect_eq, free_port, uninterrupted};
use crate::server::{Kind, Listener};
use crate::wire::request;

/// Clients that exchange numbered messages until they are stopped.
pub struct Traffic {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, Duration)>>,
}

impl Traffic {
    fn start(daemon: &Daemon, count: usize) -> Traffic {
        Traffic::of((0..count).map(|_| daemon.connect("/echo")).collect(), Duration::ZERO)
    }

    /// The traffic of these clients, each of which waits for this time after an echo.
    pub fn of(clients: Vec<Client>, pause: Duration) -> Traffic {
        let is_over = Arc::new(AtomicBool::new(false));
        let talk = |mut client: Client| {
            let is_over = is_over.clone();
            thread::spawn(move || {
                let (mut number, mut longest) = (0, Duration::ZERO);
                // One message at least: the end may come before this thread runs.
                loop {
                    let start = Instant::now();
                    client.text(&format!("message {number}"));
                    client.expect_text(&format!("message {number}"));
                    number += 1;
                    longest = longest.max(start.elapsed());
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(pause);
                }
                client.finish(1000);
                (number, longest)
            })
        };
        let threads = clients.into_iter().map(talk).collect();
        Traffic { is_over, threads }
    }

    /// Ends it: each message was echoed. Returns their number and the longest time.
    pub fn finish(self) -> (u64, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let ends = self.threads.into_iter().map(|thread| thread.join().expect("a client should lose nothing"));
        let (numbers, times): (Vec<u64>, Vec<Duration>) = ends.unzip();
        (numbers.iter().sum(), times.into_iter().max().unwrap())
    }
}

/// The number of lines with this part.
fn count(daemon: &Daemon, part: &str) -> usize {
    daemon.log().text().matches(part).count()
}

/// Writes the file, sends SIGHUP, and waits for a new line.
pub fn reload(daemon: &Daemon, text: &str, outcome: &str) {
    let before = count(daemon, outcome);
    daemon.configure(text);
    daemon.signal(Signal::SIGHUP);
    eventually(&format!("the log says once more: {outcome}"), || count(daemon, outcome) > before);
}

/// Logged when a configuration was taken.
pub const TAKEN: &str = "reloaded: new connections get the new configuration";
const KEPT: &str = "reload: the old configuration stays";

#[test]
fn reloads_lose_no_message() {
    let daemon = Daemon::start_configured(&configuration("", ""));
    let _echo = daemon.echo("echo", &[]);
    let traffic = Traffic::start(&daemon, 4);
    reload(&daemon, &configuration("", ""), TAKEN);
    let files = daemon.open_files();
    for number in 0..20 {
        let limits = format!("message-size = {}; clients = {};", 1000 + number, 100 + number);
        reload(&daemon, &configuration(&limits, "type = \"text\";"), TAKEN);
    }
    daemon.log().wait_for(&[TAKEN, "119 clients at most", "MiB of memory at most"]);
    let (messages, longest) = traffic.finish();
    println!("{messages} messages beside 20 reloads, {longest:?} at most");
    eventually("no file is left open", || daemon.open_files() <= files);
}

#[test]
fn a_reload_applies_to_new_connections_only() {
    let text = |size: u64, allow: &str, folder: &str, level: &str| {
        let websocket = format!("allow = \"{allow}\"; limits = {{ message-size = {size}; }};");
        let text = configuration("", &websocket).replace("@/run", &format!("@/{folder}"));
        format!("log-level = \"{level}\"; {text}")
    };
    let daemon = Daemon::start_configured(&text(1000, "^/server$", "run", "info"));
    let server = daemon.listen("server");
    fs::write(daemon.folder().join("www/page"), "the old page").unwrap();
    let mut old = daemon.connect("/server");
    let mut old_backend = server.accept();
    expect_eq(daemon.upgrade("/other", &[]).status, 403, "a name that is not allowed yet");
    // The same names, in another folder, under other rules.
    fs::create_dir(daemon.folder().join("run2")).unwrap();
    fs::create_dir(daemon.folder().join("www2")).unwrap();
    fs::write(daemon.folder().join("www2/page"), "the new page").unwrap();
    let mut kept_alive = daemon.wire();
    expect_eq(kept_alive.get("/page").text(), "the old page".to_owned(), "the page");
    let changed = text(10, "^/other$", "run2", "debug").replace("@/www", "@/www2");
    reload(&daemon, &changed, TAKEN);
    let other_path = daemon.folder().path().join("run2/other");
    let other = Listener::bind(&other_path, Kind::Stream);
    expect_eq(daemon.upgrade("/server", &[]).status, 403, "a name that is not allowed any more");
    expect_eq(daemon.get("/page").text(), "the new page".to_owned(), "the page");
    expect_eq(kept_alive.get("/page").text(), "the old page".to_owned(), "the page of an old connection");
    let mut new = daemon.connect("/other");
    let mut new_backend = other.accept();
    daemon.log().wait_for(&["debug", "connected to"]);
    new.binary(&[7; 10]);
    new_backend.expect([7; 10]);
    new.send(&[Frame::new(BINARY, &[7; 11])]);
    new_backend.expect_end();
    drop(new_backend);
    new.expect_close(1009);
    old.binary(&[7; 1000]);
    old_backend.expect([7; 1000]);
    old.send(&[Frame::new(BINARY, &[7; 1001])]);
    old_backend.expect_end();
    drop(old_backend);
    old.expect_close(1009);
}

/// Whether there is a listener.
fn listens(port: u16, address: &str) -> bool {
    match TcpStream::connect((address, port)) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{error}"),
    }
}

/// The connection is served.
pub fn expect_answer(mut stream: &UnixStream) {
    stream.write_all(request("HEAD", "/nosuch", &[]).as_bytes()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = vec![0; 1000];
    let size = uninterrupted(|| stream.read(&mut head)).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 404 "), "{}", head[..size].escape_ascii());
}

#[test]
fn listeners_are_added_and_removed() {
    let listening = |addresses: &str| configuration("", "").replace("\"127.0.0.1:0\"", &format!("({addresses})"));
    let daemon = Daemon::start_configured(&listening("\"127.0.0.1:0\", \"unix:@/first.sock\""));
    let _echo = daemon.echo("echo", &[]);
    let (first, second) = (daemon.folder().path().join("first.sock"), daemon.folder().path().join("second.sock"));
    let mut client = daemon.connect("/echo");
    let over_unix = UnixStream::connect(&first).unwrap();
    expect_answer(&over_unix);
    reload(&daemon, &listening("\"127.0.0.2:0\", \"unix:@/second.sock\""), TAKEN);
    let line = daemon.announced().wait_for(&["listening on http://127.0.0.2:"]);
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    daemon.announced().wait_for(&["listening on unix:", "second.sock"]);
    // New listeners serve, old ones refuse, and old connections stay.
    eventually("the listener is closed", || !listens(daemon.port, "127.0.0.1"));
    assert!(listens(port, "127.0.0.2") && UnixStream::connect(&second).is_ok());
    // A listener is closed once its accept is cancelled, after the log line.
    eventually("the file of a listener that is closed is gone", || !first.exists());
    for _ in 0..3 {
        client.text("hello");
        client.expect_text("hello");
    }
    expect_answer(&over_unix);
    client.finish(1000);
    // Back again, several times.
    for _ in 0..3 {
        reload(&daemon, &listening("\"unix:@/first.sock\""), TAKEN);
        eventually("the listener is closed", || !listens(port, "127.0.0.2"));
        assert!(UnixStream::connect(&first).is_ok());
        eventually("the second file is gone", || !second.exists());
        reload(&daemon, &listening("\"unix:@/second.sock\""), TAKEN);
        assert!(UnixStream::connect(&second).is_ok());
        eventually("the first file is gone", || !first.exists());
    }
}

/// An invalid file changes nothing; messages are still relayed.
#[test]
fn a_configuration_that_fails_to_load_changes_nothing() {
    let good = configuration("", "allow = \"^/echo$\";");
    let daemon = Daemon::start_configured(&good);
    let _echo = daemon.echo("echo", &[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().to_string();
    let link = "links = ({ origin = \"^/x$\"; type = \"tcp\"; destination = \"no-such-host.invalid:80\"; });";
    let path = daemon.folder().join("uakari.conf");
    // Once it answers, it has opened all that it keeps.
    daemon.get("/nosuch");
    let files = daemon.open_files();
    let busy = good.replace("\"127.0.0.1:0\"", &format!("(\"127.0.0.1:0\", \"unix:@/new.sock\", \"{taken_port}\")"));
    let watch = |what: &str, fail: &dyn Fn()| {
        let traffic = Traffic::start(&daemon, 2);
        let start = Instant::now();
        fail();
        let time = start.elapsed();
        let (messages, longest) = traffic.finish();
        println!("{messages} messages beside a reload that failed after {time:?}, {what}: {longest:?} at most");
    };
    for (what, text, line) in [
        ("syntax", "servers = ({\n  listen = ;\n});".to_owned(), format!("reload: {path}:2: ")),
        ("a key", configuration("head-siz = 5;", ""), format!("reload: {path}:1: limits.head-siz: ")),
        ("a folder", good.replace("@/run", "/nonexistent"), "the folder /nonexistent".to_owned()),
        ("a port", busy, format!("reload: {path}:3: servers[0].listen: cannot listen on http://{taken_port}")),
        ("a name", configuration("", link), "\"no-such-host.invalid\" cannot be looked up".to_owned()),
        ("a log file", format!("log-file = \"/nonexistent/log\"; {good}"), "log-file /nonexistent/log".to_owned()),
    ] {
        watch(what, &|| reload(&daemon, &text, KEPT));
        daemon.log().wait_for(&["error", "reload: ", &line]);
        expect_eq(daemon.upgrade("/other", &[]).status, 403, what);
        daemon.connect("/echo").finish(1000);
    }
    fs::remove_file(&path).unwrap();
    watch("no file", &|| {
        daemon.signal(Signal::SIGHUP);
        daemon.log().wait_for(&["error", &format!("reload: {path} cannot be read: No such file")]);
    });
    assert!(!daemon.folder().path().join("new.sock").exists(), "a listener that is not there has left its file");
    reload(&daemon, &good, TAKEN);
    eventually("no file is left open", || daemon.open_files() <= files);
}

/// A busy address is retried for a second: no message waits for that.
#[test]
fn messages_are_relayed_while_an_address_is_retried() {
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut command = uakari();
    command.env("NOTIFY_SOCKET", &path);
    let good = configuration("", "");
    let daemon = Daemon::start_configured_by(folder, &good, command);
    let _echo = daemon.echo("echo", &[]);
    let mut client = daemon.connect("/echo");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = good.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    let mut tries = 0;
    // A busy machine may stand still for that second, but not every time.
    eventually("messages are relayed before the reload ends", || {
        let before = count(&daemon, KEPT);
        daemon.configure(&busy);
        daemon.signal(Signal::SIGHUP);
        while !manager.next().starts_with("RELOADING=1") {}
        client.text("hello");
        client.expect_text("hello");
        // Its line in the log tells when that was.
        tries += 1;
        let page = format!("name=\"page{tries}\"");
        daemon.get(&format!("/page{tries}"));
        eventually("both are logged", || count(&daemon, KEPT) > before && count(&daemon, &page) > 0);
        let text = daemon.log().text();
        text.find(&page) < text.rfind(KEPT)
    });
}

/// The old listener stays until the new one is open, and the kernel gives the port to one of them only.
#[test]
fn an_overlapping_address_requires_a_restart() {
    let port = free_port("127.77.0.1");
    let listening = |address: &str| configuration("", "").replace("127.0.0.1:0", &format!("{address}:{port}"));
    let daemon = Daemon::start_configured(&listening("127.77.0.1"));
    reload(&daemon, &listening("0.0.0.0"), KEPT);
    let own = format!("http://0.0.0.0:{port}: this daemon listens on http://127.77.0.1:{port}: restart it");
    daemon.log().wait_for(&["error", "reload: ", "servers[0].listen: cannot listen on ", &own]);
    reload(&daemon, &listening("127.77.0.2"), TAKEN);
}

#[test]
fn settings_that_require_a_restart_are_logged() {
    let good = configuration("", "");
    // A flag would override the file's driver.
    let daemon = Daemon::start_configured_by(Folder::new(), &good, Command::new(UAKARI_PATH));
    let changed = "user = \"nobody\"; pid-file = \"@/pid\"; driver = \"epoll\";".to_owned()
        + &configuration("pool-buffers = 64; files = 5000; clients = 77;", "");
    let told = |key: &str| count(&daemon, &format!("reload: {key} takes effect at the next start"));
    let keys = ["user", "pid-file", "driver", "limits.pool-buffers", "limits.files"];
    for round in 1..=2 {
        reload(&daemon, &changed, TAKEN);
        expect_eq(keys.map(told), [round; 5], "warnings: they are still due");
    }
    // The file holds again.
    reload(&daemon, &good, TAKEN);
    expect_eq(keys.map(told), [2; 5], "warnings");
    assert!(!daemon.folder().path().join("pid").exists());
}

/// The last file written holds in the end, however fast signals came.
#[test]
fn repeated_signals() {
    let allowing = |name: &str| configuration("", &format!("allow = \"^/{name}$\";"));
    let daemon = Daemon::start_configured(&allowing("zero"));
    for number in 0..30 {
        let name = format!("name{number}");
        daemon.configure(&allowing("other"));
        daemon.signal(Signal::SIGHUP);
        daemon.configure(&allowing(&name));
        daemon.signal(Signal::SIGHUP);
        eventually("the last one holds", || daemon.upgrade(&format!("/{name}"), &[]).status == 404);
    }
}
