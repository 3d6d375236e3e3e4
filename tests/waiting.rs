//! Resources that are missing at the start: the daemon serves everything else, reports what it waits for, and retries.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::daemon::{Daemon, START_LINE, configuration, uakari, uakari_words};
use crate::process::{DEADLINE, Finished, Folder, Process, eventually, expect_eq, run, uninterrupted};
use crate::server::{Kind, Listener};
use crate::wire::handshake;

/// An address of RFC 5737, which no machine has.
const NOWHERE: &str = "192.0.2.77";

/// A link to this host.
fn link(host: &str, port: u16) -> String {
    format!("links = ({{ origin = \"^/plc$\"; type = \"tcp\"; destination = \"{host}:{port}\"; }});")
}

/// CPU time of the daemon's main thread (proc_pid_stat(5)).
fn processor_ms(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Ticks of 10 ms.
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10
}

/// A complete server, and one whose folders are missing.
fn with_late_folders() -> String {
    let late = "}, { hostname = \"late\"; listen = \"127.0.0.1:0\"; document = { docroot = \"@/disk/www\"; };
        websocket = { docroot = \"@/disk/run\"; }; });";
    configuration("", "").replace("});", late)
}

fn check(text: &str) -> Finished {
    let folder = Folder::new();
    for name in ["run", "www"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    fs::write(folder.join("uakari.conf"), text.replace('@', folder.path().to_str().unwrap())).unwrap();
    run(uakari().arg("--check").arg("-f").arg(folder.join("uakari.conf")), DEADLINE)
}

#[test]
fn folders_created_later() {
    let checked = check(&with_late_folders());
    assert!(checked.status.success() && checked.out.ends_with("uakari.conf is good"), "{checked:?}");
    expect_eq(checked.out.matches("/disk/run cannot be opened: No such file").count(), 1, "the folder in warnings");

    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.join("notify")).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let expect_told = |part: &str| {
        let mut told = [0; 4096];
        let size = uninterrupted(|| manager.recv(&mut told)).expect("the service manager should be told something");
        let told = String::from_utf8_lossy(&told[..size]).into_owned();
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    };
    let mut command = uakari();
    command.env("NOTIFY_SOCKET", folder.join("notify"));
    let daemon = Daemon::start_configured_by(folder, &with_late_folders(), command);
    // Waiting does not delay the others.
    expect_told("READY=1\nSTATUS=serving; waiting for the folder ");
    fs::write(daemon.folder().join("www/page"), "the page").unwrap();
    let late = |path: &str| {
        let mut wire = daemon.wire();
        wire.send(handshake(path, &[], &[]).replacen("gate.example", "late", 1));
        wire.response().status
    };
    let late_page = || {
        let mut wire = daemon.wire();
        wire.send("GET /page HTTP/1.1\r\nHost: late\r\n\r\n");
        wire.response()
    };
    // The other server serves.
    expect_eq(daemon.get("/page").text(), "the page".to_owned(), "the page of the other server");
    let _echo = daemon.echo("echo", &[]);
    daemon.connect("/echo").finish(1000);
    expect_eq((late("/echo"), late_page().status), (404, 404), "what is not there yet");
    daemon.log().wait_for(&["warn", "servers[1].websocket.docroot: the folder ", "/disk/run", "waiting for it"]);
    // A reload with the same missing parts changes nothing.
    daemon.signal(Signal::SIGHUP);
    daemon.log().wait_for(&["reloaded: "]);
    expect_told("RELOADING=1");
    expect_told("READY=1\nSTATUS=serving; waiting for the folder ");

    fs::create_dir_all(daemon.folder().join("disk/run")).unwrap();
    fs::create_dir_all(daemon.folder().join("disk/www")).unwrap();
    fs::write(daemon.folder().join("disk/www/page"), "the late page").unwrap();
    let server = Listener::bind(&daemon.folder().path().join("disk/run/server"), Kind::Stream);
    eventually("the late folder is served", || late("/server") == 101);
    eventually("the late pages are served", || late_page().text() == "the late page");
    server.accept();
    daemon.log().wait_for(&["info", "the folder ", "/disk/run is available now"]);
    daemon.log().wait_for(&["info", "the folder ", "/disk/www is available now"]);
    expect_eq(daemon.log().text().matches("/disk/run cannot be opened").count(), 1, "the folder in the log");
}

/// What only the operator can repair still keeps the daemon from starting.
#[test]
fn permanent_errors_are_not_retried() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (text, said) in [
        (configuration("", "").replace("@/run", "/etc/passwd"), "the folder /etc/passwd cannot be opened: Not a dir"),
        (configuration("", "").replace("127.0.0.1:0", &taken), "cannot listen on http://127.0.0.1:"),
        (configuration("", "").replace("127.0.0.1:0", "unix:@/nowhere/socket"), "its folder does not exist"),
        (format!("user = \"no-such-user\"; {}", configuration("", "")), "there is no user \"no-such-user\""),
        (configuration("", "").replace("127.0.0.1:0", "unix:@/uakari.conf"), "in the way"),
        (format!("pid-file = \"@/www\"; {}", configuration("", "")), "pid-file: "),
        (format!("pid-file = \"@/nowhere/pid\"; {}", configuration("", "")), "pid-file: "),
        (format!("log-file = \"@/nowhere/log\"; {}", configuration("", "")), ":1: log-file"),
    ] {
        let folder = Folder::new();
        let text = text.replace('@', folder.path().to_str().unwrap());
        for name in ["run", "www"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        fs::write(folder.join("uakari.conf"), &text).unwrap();
        let started = run(uakari().arg("-f").arg(folder.join("uakari.conf")), DEADLINE);
        expect_eq(started.status.code(), Some(1), said);
        assert!(started.err.contains(said), "{said:?} is not in:\n{}", started.err);
        // `--check` binds nothing: the running daemon may have the address.
        let checked = check(&text);
        let is_address = text.contains(&taken);
        expect_eq(checked.status.code(), Some(if is_address { 0 } else { 1 }), said);
        assert!(is_address || checked.out.contains(said) && !checked.out.contains("good"), "{said:?}: {checked:?}");
    }
}

#[test]
fn an_address_of_another_machine() {
    let text = configuration("", "").replace("\"127.0.0.1:0\"", &format!("[\"{NOWHERE}:0\", \"127.0.0.1:0\"]"));
    let daemon = Daemon::start_configured(&text);
    daemon.log().wait_for(&["warn", "servers[0].listen: cannot listen on http://192.0.2.77:0", "waiting for it"]);
    expect_eq(daemon.get("/nosuch").status, 404, "the other address");
    // A start waits for its only address; a reload keeps the old one.
    let alone = text.replace(", \"127.0.0.1:0\"", "");
    daemon.configure(&alone);
    daemon.signal(Signal::SIGHUP);
    daemon.log().wait_for(&["error", "reload: ", "cannot listen on http://192.0.2.77:0"]);
    daemon.log().wait_for(&["reload: the old configuration stays"]);
    // `freebind`: bound at once, no waiting.
    for address in [&format!("{NOWHERE}:0"), "[2001:db8::77]:0"] {
        let free = configuration("", "").replace("\"127.0.0.1:0\";", &format!("\"{address}\"; freebind = true;"));
        let daemon = Daemon::start_configured(&free);
        assert!(daemon.port > 0 && !daemon.log().text().contains("waited for"), "{address}");
    }
}

/// The only address comes with the network. Only root can make the network namespace.
#[test]
fn the_only_address_is_assigned_later() {
    if !Uid::effective().is_root() || Command::new("nsenter").arg("-V").stdout(Stdio::null()).status().is_err() {
        return println!("skipped: only root with nsenter can give a machine another address");
    }
    let folder = Folder::new();
    for name in ["run", "www"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let text = configuration("", "").replace("127.0.0.1:0", "10.77.0.1:8080");
    fs::write(folder.join("uakari.conf"), text.replace('@', folder.path().to_str().unwrap())).unwrap();
    let mut command = Command::new("unshare");
    // Without any interface, every address can be bound.
    let begin = "ip link set lo up && exec \"$@\"";
    command.args(["--net", "sh", "-c", begin, "sh"]).args(uakari_words()).args(["-f", &folder.join("uakari.conf")]);
    let process = Process::start(&mut command);
    process.err.wait_for(&["warn", "cannot listen on http://10.77.0.1:8080", "waiting for it"]);
    process.err.wait_for(&[START_LINE]);
    let within = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &process.pid().to_string()]).args(words);
        command
    };
    // Another program has the port by then, which is reported once.
    let free = text.replace("10.77.0.1:8080\";", "10.77.0.1:8080\"; freebind = true;");
    fs::write(folder.join("free.conf"), free.replace('@', folder.path().to_str().unwrap())).unwrap();
    let mut holder = Process::start(within(&uakari_words()).args(["-f", &folder.join("free.conf")]));
    holder.out.wait_for(&["listening on http://10.77.0.1:8080"]);
    assert!(run(&mut within(&["ip", "addr", "add", "10.77.0.1/32", "dev", "lo"]), DEADLINE).status.success());
    process.err.wait_for(&["warn", "10.77.0.1:8080: Address already in use", "waiting for it"]);
    holder.signal(Signal::SIGTERM);
    holder.wait(DEADLINE);
    process.out.wait_for(&["listening on http://10.77.0.1:8080"]);
    process.err.wait_for(&["info", "http://10.77.0.1:8080 is available now"]);
    expect_eq(process.err.text().matches("Address already in use").count(), 1, "lines of the log");
}

/// An unknown host keeps neither its server nor another one down.
#[test]
fn a_host_that_cannot_be_resolved() {
    let text = configuration("", &link("no-such-host.invalid", 80));
    let checked = check(&text);
    assert!(checked.status.success() && checked.out.ends_with("uakari.conf is good"), "{checked:?}");
    assert!(
        checked.out.contains("warning: ") && checked.out.contains("links[0].destination: \"no-such-host.invalid\"")
    );
    let mut daemon = Daemon::start_configured(&text);
    let _echo = daemon.echo("echo", &[]);
    daemon.connect("/echo").finish(1000);
    expect_eq(daemon.upgrade("/plc", &[]).status, 502, "a host that is not known");
    daemon.log().wait_for(&["warn", "status=502", "the host of the link has not been looked up yet"]);
    daemon.log().wait_for(&["warn", "links[0].destination: \"no-such-host.invalid\" cannot be looked up: ", "502"]);
    daemon.signal(Signal::SIGHUP);
    daemon.log().wait_for(&["reloaded: "]);
    expect_eq(daemon.upgrade("/plc", &[]).status, 502, "a host that is not known after a reload");
    // Waiting keeps the loop neither awake nor from its end.
    let mut client = daemon.connect("/echo");
    let before_ms = processor_ms(&daemon);
    daemon.signal(Signal::SIGTERM);
    client.expect_close(1001);
    thread::sleep(Duration::from_millis(1_500));
    let took_ms = processor_ms(&daemon) - before_ms;
    assert!(took_ms < 200, "{took_ms} ms of the processor's time in 1500 ms");
    drop(client);
    assert!(daemon.wait(DEADLINE).status.success());
}

/// A hosts file mounted by root has the host later, and then no longer.
#[test]
fn a_host_is_resolved_later_and_kept() {
    let folder = Folder::new();
    let hosts = folder.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    let as_told = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", &hosts]);
        command
    };
    if !as_told().arg("true").output().is_ok_and(|told| told.status.success()) {
        return println!("skipped: there is no mount namespace to be had");
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut command = as_told();
    command.args(uakari_words());
    let text = configuration("", &link("plc.invalid", port));
    let daemon = Daemon::start_configured_by(folder, &text, command);
    expect_eq(daemon.upgrade("/plc", &[]).status, 502, "a host that is not known");
    fs::write(&hosts, "127.0.0.1 localhost plc.invalid\n").unwrap();
    eventually("the host is found", || daemon.upgrade("/plc", &[]).status == 101);
    daemon.log().wait_for(&["info", "\"plc.invalid\" has been looked up: 127.0.0.1:"]);
    // A reload while the resolver fails keeps the addresses.
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.log().wait_for(&[
        "warn",
        "reload: ",
        "\"plc.invalid\" cannot be looked up",
        "its addresses stay as they are",
    ]);
    daemon.log().wait_for(&["reloaded: "]);
    expect_eq(daemon.upgrade("/plc", &[]).status, 101, "a host that was known before");
}

/// The user may not open again what root has opened: it stays open.
#[test]
fn folders_opened_by_root_stay_open() {
    if !Uid::effective().is_root() {
        return println!("skipped: only root can open what another user may not");
    }
    let folder = Folder::new();
    fs::create_dir_all(folder.join("secret/www")).unwrap();
    fs::write(folder.join("secret/www/page"), "the page").unwrap();
    fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
    let text = format!(
        "user = \"nobody\"; servers = ({{
            listen = \"127.0.0.1:0\"; document = {{ docroot = \"@/secret/www\"; }}; websocket = {{ {} }};
        }}, {{ hostname = \"late\"; listen = \"127.0.0.1:0\"; document = {{ docroot = \"@/late\"; }}; }});",
        link("localhost", 1)
    );
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    expect_eq(daemon.get("/page").text(), "the page".to_owned(), "after the lookup");
    fs::create_dir(daemon.folder().join("late")).unwrap();
    daemon.log().wait_for(&["info", "/late is available now"]);
    expect_eq(daemon.get("/page").text(), "the page".to_owned(), "after another folder came");
    assert!(!daemon.log().text().contains("/secret/www"), "{}", daemon.log().text());
}
