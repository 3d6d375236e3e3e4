//! `--tls-self-signed`: the certificate of a first start, what keeps it and what renews it, and its failures.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::client::Client;
use crate::daemon::{Daemon, UAKARI_PATH, driver_flags, program, uakari, uakari_words};
use crate::foreign::command;
use crate::privileges::nobody;
use crate::process::{
    DEADLINE, Finished, Folder, Process, can_unshare, eventually, make_program, run, skipped, write_program,
};
use crate::tls::{shake, trusting};
use crate::wire::Wire;

/// Starts a daemon whose authority is in the folder `tls` of this one.
fn start_in(folder: Folder, flags: &[&str]) -> Daemon {
    let dir = folder.join("tls");
    Daemon::start_in(folder, &[&["--tls-self-signed", "--tls-dir", &dir], flags].concat())
}

/// A file of the daemon's authority.
fn file(folder: &Folder, name: &str) -> String {
    folder.join(&format!("tls/{name}"))
}

/// The contents of the authority's certificate, the server's, and its key.
fn contents(folder: &Folder) -> [String; 3] {
    ["ca.pem", "issued/server.pem", "issued/server.key"].map(|name| fs::read_to_string(file(folder, name)).unwrap())
}

/// Runs uakari-ca with the daemon's authority.
fn authority(folder: &Folder, words: &[&str]) {
    let mut command = Command::new(program("uakari-ca"));
    let finished = run(command.args(words).args(["--dir", &folder.join("tls")]), DEADLINE);
    assert!(finished.status.success(), "{words:?}: {finished:?}");
}

/// A connection of a client that trusts the daemon's authority, to this name. The error is what TLS says.
fn connect(daemon: &Daemon, name: &str) -> Result<Wire, String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
    shake(stream, &trusting(file(daemon.folder(), "ca.pem")), name).map(Wire::over_tls)
}

/// wss works for a client that trusts the authority.
fn expect_service(daemon: &Daemon) {
    let _server = daemon.echo("echo", &[]);
    let mut wire = connect(daemon, "localhost").unwrap();
    assert_eq!(wire.upgrade("/echo", &[]).status, 101);
    let mut client = Client::new(wire);
    client.text("hello");
    client.expect_text("hello");
}

/// The host's own name, in lower case.
fn host() -> String {
    run(Command::new("sh").args(["-c", "uname -n"]), DEADLINE).out.trim().to_lowercase()
}

#[test]
fn a_first_start_and_a_second() {
    let mut daemon = start_in(Folder::new(), &[]);
    daemon.announced().wait_for(&["listening on https://127.0.0.1:"]);
    daemon.log().wait_for(&["--tls-dir: ", "/tls/issued/server.pem was created, for localhost,", "127.0.0.1"]);
    let ca = file(daemon.folder(), "ca.pem");
    daemon.log().wait_for(&["trust the authority", &ca, "its SHA-256 fingerprint is "]);
    daemon.log().wait_for(&["browser: import", &ca, &format!("open https://127.0.0.1:{}/", daemon.port)]);
    daemon.log().wait_for(&[&format!("curl --cacert {ca} https://127.0.0.1:{}/", daemon.port)]);
    expect_service(&daemon);
    for name in ["localhost", "127.0.0.1", "::1", &host()] {
        assert!(connect(&daemon, name).is_ok(), "{name}");
    }
    let error = connect(&daemon, "example.org").map(drop).unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
    let mode = |name: &str| fs::metadata(file(daemon.folder(), name)).unwrap().mode() & 0o777;
    assert_eq!((mode(""), mode("ca.key"), mode("issued/server.key")), (0o755, 0o600, 0o600));

    // The same folder, whose files stay as they are.
    let first = contents(daemon.folder());
    daemon.stop();
    let dir = file(daemon.folder(), "");
    let second = Daemon::start(&["--tls-self-signed", "--tls-dir", &dir]);
    second.log().wait_for(&["issued/server.pem was kept, for localhost,"]);
    assert_eq!(contents(daemon.folder()), first);
}

/// The fingerprint in the log is the one that browsers and openssl show.
#[test]
#[ignore = "needs openssl"]
fn the_fingerprint() {
    let daemon = start_in(Folder::new(), &[]);
    let ca = file(daemon.folder(), "ca.pem");
    let shown = run(command("openssl").args(["x509", "-noout", "-sha256", "-fingerprint", "-in", &ca]), DEADLINE).out;
    let fingerprint = shown.trim().split_once('=').unwrap().1;
    daemon.log().wait_for(&[&format!("its SHA-256 fingerprint is {fingerprint}")]);
}

/// Without `--tls-dir`.
#[test]
fn the_default_folder() {
    if Uid::effective().is_root() {
        // That of root is tested without creating it.
        let check = run(uakari().args(["--check", "--tls-self-signed", "--www", "/"]), DEADLINE);
        assert!(check.status.success(), "{check:?}");
        let Some(user) = nobody() else { return };
        let folder = Folder::new();
        let ids = [format!("--reuid={}", user.uid), format!("--regid={}", user.gid)];
        fs::create_dir(folder.join("home")).unwrap();
        std::os::unix::fs::chown(folder.join("home"), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        let mut command = Command::new("setpriv");
        let programs = copies(&folder, Some(&program("uakari-ca")));
        command.args(ids).arg("--clear-groups").arg(programs).env("HOME", folder.join("home"));
        expect_default_folder(&folder, command);
    } else {
        let folder = Folder::new();
        let mut command = Command::new(UAKARI_PATH);
        command.env("HOME", folder.join("home"));
        expect_default_folder(&folder, command);
    }
}

fn expect_default_folder(folder: &Folder, mut command: Command) {
    command.env_remove("XDG_STATE_HOME").args(["--tls-self-signed", "--www", "/", "--listen", "127.0.0.1:0"]);
    let process = Process::start(command.args(driver_flags()));
    let dir = folder.join("home/.local/state/uakari/tls");
    process.err.wait_for(&[&format!("--tls-self-signed: {dir}/issued/server.pem was created")]);
}

/// Copies the daemon, and uakari-ca beside it if there is one. Every user may run them. Returns the daemon's path.
fn copies(folder: &Folder, ca: Option<&Path>) -> String {
    fs::create_dir(folder.join("bin")).unwrap();
    let daemon = folder.join("bin/uakari");
    fs::copy(UAKARI_PATH, &daemon).unwrap();
    make_program(&daemon);
    if let Some(ca) = ca {
        fs::copy(ca, folder.join("bin/uakari-ca")).unwrap();
        make_program(folder.join("bin/uakari-ca"));
    }
    daemon
}

/// Starts a daemon that has to fail, beside a uakari-ca that is this shell script.
fn start_beside(script: Option<&str>) -> Finished {
    let folder = Folder::new();
    let daemon = copies(&folder, None);
    if let Some(script) = script {
        write_program(folder.join("bin/uakari-ca"), &format!("#!/bin/sh\n{script}\n"));
    }
    let flags = ["--www", "/", "--listen", "127.0.0.1:0", "--tls-self-signed", "--tls-dir", &folder.join("tls")];
    // It waits for uakari-ca for half of DEADLINE.
    let finished = run(Command::new(daemon).args(flags).args(driver_flags()), 2 * DEADLINE);
    assert_eq!((finished.status.code(), &*finished.out), (Some(1), ""), "{script:?}: {finished:?}");
    assert_eq!(finished.err.lines().count(), 1, "{script:?}: {finished:?}");
    finished
}

#[test]
fn failures_of_uakari_ca() {
    for (script, parts) in [
        (None, &["--tls-dir: ", "/bin/uakari-ca is missing: install it beside uakari"][..]),
        (Some("echo 'uakari-ca: the disk is full' >&2; exit 1"), &["--tls-dir: uakari-ca failed: the disk is full"]),
        (
            Some("echo 'uakari-ca: /x: choose another folder with --dir' >&2; exit 1"),
            &["--tls-dir: uakari-ca failed: /x: choose another folder with --tls-dir"],
        ),
        (Some("kill -9 $$"), &["--tls-dir: uakari-ca failed: it was ended by signal 9"]),
        (Some("exit 3"), &["--tls-dir: uakari-ca failed: it exited with status 3"]),
        (Some("exit 127"), &["uakari-ca cannot be executed"]),
        (Some("echo authority=/a; echo action=kept; echo names=n"), &["uakari-ca printed no certificate"]),
        (Some("echo hello"), &["uakari-ca printed no authority", "install the uakari-ca that belongs"]),
    ] {
        let finished = start_beside(script);
        assert!(parts.iter().all(|part| finished.err.contains(part)), "{script:?}: {finished:?}");
    }
}

/// It is killed after 30 s, whether it holds its output or has closed it.
#[test]
fn a_uakari_ca_that_hangs() {
    std::thread::scope(|scope| {
        for script in ["echo waiting; exec /bin/sleep 1000", "echo waiting; exec /bin/sleep 1000 >&- 2>&-"] {
            scope.spawn(move || {
                let finished = start_beside(Some(script));
                let sentence = "--tls-dir: uakari-ca has not ended after 30 s: run it by hand to see why: waiting";
                assert!(finished.err.contains(sentence), "{finished:?}");
            });
        }
    });
}

/// An authority whose key others may read: uakari-ca refuses it.
fn make_exposed(folder: &Folder) {
    authority(folder, &["self-signed"]);
    fs::set_permissions(folder.join("tls/ca.key"), PermissionsExt::from_mode(0o644)).unwrap();
}

/// An authority whose certificate is none.
fn make_damaged(folder: &Folder) {
    authority(folder, &["self-signed"]);
    fs::copy(file(folder, "ca.pem"), folder.join("ca.pem")).unwrap();
    fs::write(folder.join("tls/ca.pem"), "hello").unwrap();
}

/// An earlier certificate is served, whatever uakari-ca says.
#[test]
fn failures_with_an_earlier_certificate() {
    for (prepare, sentence) in
        [(make_exposed as fn(&Folder), "other users have access: run chmod 600 "), (make_damaged, "/tls/ca.pem: ")]
    {
        let folder = Folder::new();
        prepare(&folder);
        let daemon = start_in(folder, &[]);
        daemon.log().wait_for(&[" error ", "--tls-dir: uakari-ca failed: ", sentence, "old certificate stays in use"]);
        let saved = daemon.folder().join("ca.pem");
        if Path::new(&saved).exists() {
            fs::copy(saved, file(daemon.folder(), "ca.pem")).unwrap();
        }
        expect_service(&daemon);
    }
}

/// A look at changed files does not run uakari-ca, after a failure either.
#[test]
fn a_failure_is_not_tried_again_at_once() {
    let folder = Folder::new();
    let (daemon, runs) = (copies(&folder, None), folder.join("runs"));
    let ca = program("uakari-ca");
    let script = format!("#!/bin/sh\necho >>{runs}\nexec {} \"$@\"\n", ca.display());
    write_program(folder.join("bin/uakari-ca"), &script);
    let mut command = Command::new(daemon);
    command.args(["--tls-self-signed", "--tls-dir", &folder.join("tls"), "--www", "/", "--listen", "127.0.0.1:0"]);
    let process = Process::start(command.args(driver_flags()));
    process.out.wait_for(&["listening on https://"]);
    let taken_up = |count: usize| {
        let has_taken = |lines: &[String]| {
            let taken = lines.iter().filter(|line| line.contains("new handshakes use what has changed"));
            (taken.count() == count).then_some(())
        };
        assert!(process.err.wait(has_taken).is_some(), "{count}: {}", process.err.text());
    };
    let [_, first, _] = contents(&folder);
    authority(&folder, &["renew", "server"]);
    taken_up(1);
    fs::write(folder.join("tls/ca.pem"), "hello").unwrap();
    process.signal(Signal::SIGHUP);
    process.err.wait_for(&["reload: --tls-dir: uakari-ca failed: ", "the old certificate stays in use"]);
    process.err.wait_for(&["reloaded"]);
    fs::write(file(&folder, "issued/server.pem"), &first).unwrap();
    taken_up(2);
    fs::remove_file(file(&folder, "issued/server.pem")).unwrap();
    fs::write(file(&folder, "issued/server.pem"), &first).unwrap();
    // At the start and at the reload.
    assert_eq!(fs::read_to_string(runs).unwrap().lines().count(), 2, "{}", process.err.text());
    assert_eq!(process.err.text().matches("uakari-ca failed").count(), 1, "{}", process.err.text());
}

/// A daemon that is killed leaves no uakari-ca behind that holds its lock.
#[test]
fn uakari_ca_ends_with_the_daemon() {
    let folder = Folder::new();
    let (daemon, pid_file) = (copies(&folder, None), folder.join("pid"));
    write_program(folder.join("bin/uakari-ca"), &format!("#!/bin/sh\necho $$ >{pid_file}\nexec /bin/sleep 1000\n"));
    let mut command = Command::new(daemon);
    command.args(["--tls-self-signed", "--tls-dir", &folder.join("tls"), "--www", "/", "--listen", "127.0.0.1:0"]);
    let process = Process::start(command.args(driver_flags()));
    let pid = || fs::read_to_string(&pid_file).ok()?.trim().parse::<u32>().ok();
    eventually("uakari-ca runs", || pid().is_some());
    process.signal(Signal::SIGKILL);
    let has_ended = || match fs::read_to_string(format!("/proc/{}/status", pid().unwrap())) {
        Ok(status) => status.contains("State:\tZ"),
        Err(_) => true,
    };
    eventually("it has ended", has_ended);
}

/// Each authority is recommended for the address of its own server.
#[test]
fn advice_of_two_authorities() {
    let server = |ip: &str, dir: &str| {
        format!(
            "{{ listen = \"{ip}:0\"; websocket = {{ docroot = \"@/run\"; }};
            tls = {{ self-signed = true; dir = \"@/{dir}\"; }}; }}"
        )
    };
    let daemon =
        Daemon::start_configured(&format!("servers = ({}, {});", server("127.0.0.1", "a"), server("127.0.0.2", "b")));
    for (ip, dir) in [("127.0.0.1", "a"), ("127.0.0.2", "b")] {
        let ca = daemon.folder().join(&format!("{dir}/ca.pem"));
        daemon.log().wait_for(&[&format!("curl --cacert {ca} https://{ip}:")]);
    }
}

/// Starts that fail, with what they say.
#[test]
fn folders_that_cannot_be_used() {
    type Prepare = fn(&Folder);
    let cases: [(&str, Prepare, &str); 5] = [
        ("file", |folder| fs::write(folder.join("file"), "").unwrap(), "/file"),
        ("file/tls", |folder| fs::write(folder.join("file"), "").unwrap(), "/file/tls cannot be created: Not a dir"),
        ("/proc/tls", |_| (), "--tls-dir: the folder /proc/tls cannot be created: "),
        ("tls", make_exposed, "other users have access: run chmod 600 "),
        ("tls", make_damaged, "/tls/ca.pem: "),
    ];
    for (dir, prepare, sentence) in cases {
        let folder = Folder::new();
        prepare(&folder);
        // Without an earlier certificate.
        let _ = fs::remove_file(file(&folder, "issued/server.pem"));
        let dir = if dir.starts_with('/') { dir.to_owned() } else { folder.join(dir) };
        let mut command = uakari();
        command.args(["--tls-self-signed", "--tls-dir", &dir, "--www", "/", "--listen", "127.0.0.1:0"]);
        let start = run(&mut command, DEADLINE);
        assert_eq!(start.status.code(), Some(1), "{dir}: {start:?}");
        assert!(start.err.contains("--tls-dir: ") && start.err.contains(sentence), "{dir}: {sentence}: {start:?}");
    }
}

/// `--check` creates nothing, and misses uakari-ca.
#[test]
fn a_check_before_the_first_start() {
    let folder = Folder::new();
    let flags = ["--check", "--www", "/", "--tls-self-signed", "--tls-dir", &folder.join("tls")];
    let check = run(uakari().args(flags), DEADLINE);
    assert!(check.status.success() && check.out.contains("what the flags say is good"), "{check:?}");
    assert!(!Path::new(&folder.join("tls")).exists());
    let check = run(Command::new(copies(&folder, None)).args(flags), DEADLINE);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert!(check.out.contains("--tls-dir: ") && check.out.contains("/bin/uakari-ca is missing"), "{check:?}");
    // Folders that a start could not create, and files about clients.
    fs::write(folder.join("file"), "").unwrap();
    let text = "servers = ({ document = { docroot = \"/\"; };
        tls = { self-signed = true; dir = \"@/tls\"; clientca = \"@/missing\"; }; });";
    fs::write(folder.join("conf"), text.replace('@', folder.join("").trim_end_matches('/'))).unwrap();
    let (file, in_file, conf) = (folder.join("file"), folder.join("file/tls"), folder.join("conf"));
    for (flags, sentence) in [
        (&["--www", "/", "--tls-self-signed", "--tls-dir", &*file][..], "/file is not a folder: name another one"),
        (&["--www", "/", "--tls-self-signed", "--tls-dir", &*in_file], "/file is not a folder: name another one"),
        (&["-f", &*conf], "tls.clientca"),
    ] {
        let check = run(uakari().arg("--check").args(flags), DEADLINE);
        assert!(check.status.code() == Some(1) && check.out.contains(sentence), "{sentence}: {check:?}");
    }
}

/// The host has got another name or address since: the authority and the key stay.
#[test]
fn missing_names_are_added() {
    let folder = Folder::new();
    authority(&folder, &["init"]);
    authority(&folder, &["issue", "server", "--server", "--for", "old.example"]);
    let [ca, certificate, key] = contents(&folder);
    let daemon = start_in(folder, &[]);
    daemon.log().wait_for(&["issued/server.pem was issued, for localhost,"]);
    let [ca_now, certificate_now, key_now] = contents(daemon.folder());
    assert!(ca_now == ca && key_now == key && certificate_now != certificate);
    expect_service(&daemon);
}

/// A daemon that runs takes up what its authority issues, and what a reload finds missing.
#[test]
fn renewals_are_taken_up() {
    let daemon = start_in(Folder::new(), &[]);
    let [ca, certificate, _] = contents(daemon.folder());
    authority(daemon.folder(), &["renew", "server"]);
    daemon.log().wait_for(&["issued/server.pem", "new handshakes use what has changed"]);
    expect_service(&daemon);
    assert_ne!(contents(daemon.folder())[1], certificate);
    // The clients that trust the old certificate of the authority need no new one.
    fs::write(daemon.folder().join("old.pem"), ca).unwrap();
    authority(daemon.folder(), &["renew"]);
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
    assert!(shake(stream, &trusting(daemon.folder().join("old.pem")), "localhost").is_ok());

    fs::remove_file(file(daemon.folder(), "issued/server.pem")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.log().wait_for(&["reload: --tls-dir: ", "issued/server.pem was issued"]);
    daemon.log().wait_for(&["reloaded"]);
    expect_service(&daemon);
}

/// A file's server, and a reload at which uakari-ca fails: the certificate stays, and the configuration is taken.
#[test]
fn a_reload_without_uakari_ca() {
    let text = "servers = ({ listen = \"127.0.0.1:0\"; websocket = { docroot = \"@/run\"; };
        tls = { self-signed = true; dir = \"@/tls\"; }; });";
    let daemon = Daemon::start_configured(text);
    daemon.log().wait_for(&["uakari.conf:2: servers[0].tls.dir: ", "was created"]);
    expect_service(&daemon);
    let ca = fs::read(file(daemon.folder(), "ca.pem")).unwrap();
    fs::write(file(daemon.folder(), "ca.pem"), "hello").unwrap();
    daemon.signal(Signal::SIGHUP);
    let place = "uakari.conf:2: servers[0].tls.dir: uakari-ca failed: ";
    daemon.log().wait_for(&[" error ", "reload: ", place, "/tls/ca.pem", "the old certificate stays in use"]);
    daemon.log().wait_for(&["reloaded"]);
    fs::write(file(daemon.folder(), "ca.pem"), ca).unwrap();
    expect_service(&daemon);
}

/// Root starts it for another user, to whom the folder then belongs.
#[test]
fn the_folder_belongs_to_the_daemon_s_user() {
    let Some(user) = nobody() else { return };
    let folder = Folder::new();
    let dir = folder.join("state/tls");
    let programs = copies(&folder, Some(&program("uakari-ca")));
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\"", &programs]);
    command.args(driver_flags()).args(["--tls-self-signed", "--tls-dir", &dir, "-u", "nobody"]);
    command.args(["--listen", "127.0.0.1:0", "--docroot", &folder.join("")]);
    let process = Process::start(&mut command);
    process.out.wait_for(&["listening on https://"]);
    // Warnings about files precede it.
    process.err.wait_for(&["curl --cacert "]);
    for name in ["", "ca.key", "issued", "issued/server.key"] {
        let status = fs::metadata(Path::new(&dir).join(name)).unwrap();
        assert_eq!((status.uid(), status.gid()), (user.uid.as_raw(), user.gid.as_raw()), "{name}");
    }
    assert_eq!(fs::metadata(folder.join("state")).unwrap().uid(), 0);
    // Whatever the umask is.
    for name in [&folder.join("state"), &dir] {
        assert_eq!(fs::metadata(name).unwrap().mode() & 0o777, 0o755, "{name}");
    }
    assert!(!process.err.text().contains("may not read"), "{}", process.err.text());
    // It can renew its certificate.
    fs::remove_file(format!("{dir}/issued/server.pem")).unwrap();
    process.signal(Signal::SIGHUP);
    process.err.wait_for(&["reload: --tls-dir: ", "issued/server.pem was issued"]);
    process.err.wait_for(&["reloaded"]);
    drop(process);
    // A folder of root's.
    fs::create_dir(folder.join("root")).unwrap();
    fs::set_permissions(folder.join("root"), PermissionsExt::from_mode(0o700)).unwrap();
    let words: Vec<_> = command.get_args().map(|word| word.to_owned()).collect();
    let mut command = Command::new(command.get_program());
    command.args(words.iter().map(|word| if **word == *dir { folder.join("root").into() } else { word.clone() }));
    let finished = run(&mut command, DEADLINE);
    let says_why = ["ermission denied", "belongs to UID 0"].iter().any(|part| finished.err.contains(part));
    assert!(finished.err.contains("uakari-ca failed: ") && says_why, "{finished:?}");
}

/// A new address of the host is in the certificate soon.
#[test]
fn new_addresses_are_added() {
    let has_ip =
        Command::new("sh").args(["-c", "command -v ip nsenter"]).output().is_ok_and(|found| found.status.success());
    if !has_ip || !can_unshare(&["--net"]) {
        return skipped("it needs ip, nsenter, and a network of its own");
    }
    let folder = Folder::new();
    let mut command = Command::new("unshare");
    // An address of an interface that is down, which some kernels cannot have.
    let prepare = "ip link set lo up; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
        ip link add v0 type veth peer name v1 && ip address add 203.0.113.5/24 dev v0; exec \"$@\"";
    command.args(["--net", "sh", "-c", prepare, "sh"]).args(uakari_words());
    command.args(["--tls-self-signed", "--tls-dir", &folder.join("tls"), "--www", "/", "--listen", "127.0.0.1:0"]);
    let process = Process::start(&mut command);
    process.out.wait_for(&["listening on https://"]);
    eventually("the addresses are watched", || process.has_open("anon_inode:inotify"));
    let ip = |words: &str| {
        let mut ip = Command::new("nsenter");
        ip.args(["--net", "--target", &process.pid().to_string(), "ip"]).args(words.split(' '));
        run(&mut ip, DEADLINE)
    };
    let add = |address: &str| {
        let added = ip(&format!("address add {address} dev lo"));
        assert!(added.status.success(), "{added:?}");
    };
    if ip("link show v0").status.success() {
        assert!(!process.err.text().contains("203.0.113.5"), "{}", process.err.text());
        assert!(ip("link set v0 up").status.success());
        process.err.wait_for(&["issued/server.pem was issued, for localhost,", "203.0.113.5"]);
    }
    add("198.51.100.7/32");
    process.err.wait_for(&["issued/server.pem was issued, for localhost,", "198.51.100.7"]);
    process.err.wait_for(&["issued/server.pem", "new handshakes use what has changed"]);
    // uakari-ca fails: the certificate stays. The next address is another attempt.
    let ca = fs::read(folder.join("tls/ca.pem")).unwrap();
    fs::write(folder.join("tls/ca.pem"), "hello").unwrap();
    add("198.51.100.8/32");
    process.err.wait_for(&[" error ", "--tls-dir: uakari-ca failed: ", "the old certificate stays in use"]);
    fs::write(folder.join("tls/ca.pem"), ca).unwrap();
    add("198.51.100.9/32");
    process.err.wait_for(&["issued/server.pem was issued, for localhost,", "198.51.100.8", "198.51.100.9"]);
}

/// Without inotify(7) they are too.
#[test]
fn new_addresses_without_inotify() {
    let namespaces = ["--user", "--map-root-user", "--net"];
    let prepare = "ip link set lo up && echo 0 >/proc/sys/user/max_inotify_instances";
    let can = Command::new("unshare").args(namespaces).args(["sh", "-c", prepare]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skipped("it needs ip, and user and network namespaces of its own");
    }
    let folder = Folder::new();
    let mut command = Command::new("unshare");
    // The shell adds the address when its input ends.
    let script = format!("{prepare}; (read line; ip address add 198.51.100.7/32 dev lo) <&3 & exec \"$@\" 3<&-");
    command.args(namespaces).args(["sh", "-c", &format!("exec 3<&0; {script}"), "sh"]).args(uakari_words());
    command.args(["--tls-self-signed", "--tls-dir", &folder.join("tls"), "--www", "/", "--listen", "127.0.0.1:0"]);
    let (input, begin) = std::io::pipe().unwrap();
    let process = Process::start_reading(input.into(), &mut command);
    process.err.wait_for(&["certificate files cannot be watched"]);
    drop(begin);
    process.err.wait_for(&["issued/server.pem was issued, for localhost,", "198.51.100.7"]);
}
