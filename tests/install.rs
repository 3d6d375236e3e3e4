//! What `make install` installs, and the init script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::daemon::{program, project};
use crate::foreign::SCRIPT_TIME;
use crate::process::{DEADLINE, Finished, Folder, eventually_eq, run, write_program};

/// `make` with this target and these variables, and with the programs of this build.
fn make(target: &str, variables: &[&str]) -> Finished {
    let mut command = Command::new("make");
    command.arg("-C").arg(project()).args(["--no-print-directory", target]);
    command.arg(format!("PROGRAMS={}", program("websocket_echo").parent().unwrap().display())).args(variables);
    // Variables of an outer `make test` must not reach the inner make.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DESTDIR", "PREFIX", "SYSCONFDIR", "INIT", "TARGET"] {
        command.env_remove(name);
    }
    run(&mut command, SCRIPT_TIME)
}

/// As `make`; it must succeed.
fn make_well(target: &str, variables: &[&str]) -> String {
    let Finished { status, out, err } = make(target, variables);
    assert!(status.success(), "{target} {variables:?}: {out}\n{err}");
    out
}

/// All files below a folder with their modes, in order.
fn tree(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
                found.push((path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), mode));
            }
        }
    }
    found.sort();
    found
}

/// The installed shells among those that run init scripts.
fn shells() -> Vec<Vec<&'static str>> {
    let all = [&["sh"][..], &["dash"], &["busybox", "ash"], &["bash", "--posix"]];
    let is_there = |shell: &&[&str]| Command::new(shell[0]).args(&shell[1..]).args(["-c", ":"]).output().is_ok();
    all.into_iter().filter(is_there).map(<[_]>::to_vec).collect()
}

#[test]
fn all_files_are_installed() {
    let folder = Folder::new();
    make_well("install", &[&format!("DESTDIR={}", folder.join("")), "PREFIX=/usr"]);
    let installed = tree(folder.path());
    for (path, mode) in [
        ("etc/init.d/uakari", 0o755),
        ("etc/logrotate.d/uakari", 0o644),
        ("etc/uakari/uakari.conf", 0o644),
        ("usr/bin/uakari", 0o755),
        ("usr/bin/uakari-auth", 0o755),
        ("usr/bin/uakari-ca", 0o755),
        ("usr/bin/websocket_chat", 0o755),
        ("usr/bin/websocket_echo", 0o755),
        ("usr/lib/uakari/authrpc.so", 0o755),
        ("usr/lib/uakari/jsonsql.so", 0o755),
        ("usr/bin/websocket_jsonrpc", 0o755),
        ("usr/include/uakari_rpc.h", 0o644),
        ("usr/lib/systemd/system/uakari.service", 0o644),
        ("usr/lib/systemd/system/uakari.socket", 0o644),
        ("usr/lib/sysusers.d/uakari.conf", 0o644),
        ("usr/lib/tmpfiles.d/uakari.conf", 0o644),
        ("usr/share/uakari/certbot-deploy-hook", 0o755),
        ("usr/share/uakari/hello/hello.h", 0o644),
        ("usr/share/uakari/hello/hello.py", 0o644),
        ("usr/share/uakari/hello/hello.rs", 0o644),
        ("usr/share/uakari/www/authority.html", 0o644),
        ("usr/share/uakari/www/index.html", 0o644),
        ("usr/share/uakari/www/jsonrpc.js", 0o644),
        ("usr/share/uakari/www/uakari.css", 0o644),
        ("usr/share/uakari/www/uakari.js", 0o644),
        ("usr/share/uakari/www/uakari.svg", 0o644),
        ("usr/share/uakari/www/webchat.html", 0o644),
        ("usr/share/uakari/www/websocket.html", 0o644),
    ] {
        assert!(installed.contains(&(path.to_owned(), mode)), "{path} {mode:o} is not in {installed:?}");
    }
    for (path, _) in &installed {
        let Ok(text) = fs::read_to_string(folder.path().join(path)) else { continue };
        assert!(!text.contains(&folder.join("")), "{path} names DESTDIR");
        for line in text.lines().filter(|_| !path.contains("/www/")) {
            assert!(line.matches('@').count() < 2, "{path}: something is not filled in: {line}");
        }
    }
    let unit = fs::read_to_string(folder.join("usr/lib/systemd/system/uakari.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/uakari -f /etc/uakari/uakari.conf\n"), "{unit}");
    // /var/lib/uakari has the keys of another authority, and stays root's.
    assert!(unit.contains("\nStateDirectory=uakari/tls\nStateDirectoryMode=0755\n"), "{unit}");
}

#[test]
fn manual_pages_are_installed_in_the_search_path_of_man() {
    let folder = Folder::new();
    make_well("install", &[&format!("DESTDIR={}", folder.join("")), "PREFIX=/usr"]);
    let installed = tree(&folder.path().join("usr/share"));
    for (page, place) in [
        ("uakari.8", "man/man8/uakari.8"),
        ("uakari-auth.8", "man/man8/uakari-auth.8"),
        ("uakari-ca.8", "man/man8/uakari-ca.8"),
        ("uakari.conf.5", "man/man5/uakari.conf.5"),
        ("libwebsocket.7", "man/man7/libwebsocket.7"),
        ("websocket.3", "man/man3/websocket.3"),
        ("ws_listen.3", "man/man3/ws_listen.3"),
    ] {
        let is_written = project().join("docs/man").join(page).exists();
        assert_eq!(installed.contains(&(place.to_owned(), 0o644)), is_written, "{place}: {installed:?}");
    }
}

#[test]
fn an_edited_configuration_is_kept() {
    let folder = Folder::new();
    let variables = [&format!("DESTDIR={}", folder.join("")), "PREFIX=/usr"];
    let (path, new) = (folder.join("etc/uakari/uakari.conf"), folder.join("etc/uakari/uakari.conf.new"));
    make_well("install", &variables);
    let sample = fs::read_to_string(&path).unwrap();
    make_well("install", &variables);
    assert!(!Path::new(&new).exists(), "the sample itself needs no second one beside it");

    fs::write(&path, "mine").unwrap();
    let out = make_well("install", &variables);
    assert!(out.contains("is kept") && out.contains("uakari.conf.new"), "{out}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(fs::read_to_string(&new).unwrap(), sample);

    make_well("uninstall", &variables);
    assert_eq!(tree(folder.path()), [("etc/uakari/uakari.conf".to_owned(), 0o644)]);
    assert!(!folder.path().join("usr/share/uakari").exists(), "its own folders go too");
}

#[test]
fn the_output_lists_the_changes_and_the_next_steps() {
    for (init, said, not_said) in [
        ("systemd sysv", &["systemctl enable --now uakari", "update-rc.d uakari defaults"][..], "uakari enable"),
        ("systemd", &["systemd-sysusers && ", "systemctl daemon-reload && "], "init.d"),
        ("procd", &["/etc/init.d/uakari enable && /etc/init.d/uakari start"], "systemctl"),
        ("none", &["ldconfig"], "init.d"),
    ] {
        let folder = Folder::new();
        let root = folder.join("root");
        let variables = [&format!("DESTDIR={root}"), "PREFIX=/usr", &format!("INIT={init}")];
        let out = make_well("install", &variables);
        let (done, next) = out.split_once("install: next, as root, on the machine that ").expect(&out);
        for place in
            ["/usr/bin/{uakari,", "/usr/lib/libwebsocket.so.1", "/etc/uakari/uakari.conf", "/usr/share/{uakari,man}"]
        {
            assert!(done.contains(&format!("{root}{place}")), "{init}: {place}: {out}");
        }
        assert!(
            next.contains("ldconfig") && next.contains("/usr/bin/uakari --check -f /etc/uakari/uakari.conf"),
            "{out}"
        );
        assert!(said.iter().all(|part| next.contains(part)) && !out.contains(not_said), "{init}: {out}");
        let out = make_well("uninstall", &variables);
        assert!(out.contains("are removed") && out.contains("uakari.conf is kept"), "{out}");
    }
    // Without DESTDIR it concerns this machine.
    let folder = Folder::new();
    let out = make_well("install", &[&format!("PREFIX={}", folder.join("usr")), &sysconfdir(&folder)]);
    let (_, next) = out.split_once("install: next, as root:").expect(&out);
    let runs_systemd = Path::new("/run/systemd/system").exists();
    assert_eq!((next.contains("systemctl"), next.contains("update-rc.d")), (runs_systemd, !runs_systemd), "{out}");
}

#[test]
fn init_systems_are_chosen() {
    let folder = Folder::new();
    let root = format!("DESTDIR={}", folder.join(""));
    make_well("install", &[&root, "PREFIX=/usr", "INIT=procd"]);
    let script = fs::read_to_string(folder.join("etc/init.d/uakari")).unwrap();
    assert!(script.contains("USE_PROCD=1") && script.contains("DAEMON=/usr/bin/uakari\n"), "{script}");
    assert!(!folder.path().join("usr/lib/systemd").exists());
    make_well("uninstall", &[&root, "PREFIX=/usr"]);
    make_well("install", &[&root, "PREFIX=/usr", "INIT=none"]);
    assert!(!folder.path().join("etc/init.d/uakari").exists() && folder.path().join("usr/bin/uakari").exists());
}

#[test]
fn invalid_variables_are_named() {
    let folder = Folder::new();
    let root = format!("DESTDIR={}", folder.join(""));
    let empty = format!("PROGRAMS={}", folder.join(""));
    for (variable, parts) in [
        ("INIT=upstart", ["upstart", "systemd, sysv, procd or none"]),
        ("INIT=sysv procd", ["sysv procd", "one of them"]),
        ("PREFIX=usr", ["'usr'", "absolute path"]),
        ("DESTDIR=out", ["DESTDIR='out' is relative", "absolute path"]),
        ("SYSCONFDIR=/etc|x", ["/etc|x", "letters, digits"]),
        (empty.as_str(), ["PROGRAMS=", "lacks uakari: build"]),
    ] {
        let Finished { status, err, .. } = make("install", &[&root, variable]);
        assert!(!status.success() && parts.iter().all(|part| err.contains(part)), "{variable}: {err}");
        assert_eq!(tree(folder.path()), [], "{variable}");
    }
}

#[test]
fn scripts_and_units_are_well_formed() {
    for init in ["systemd sysv", "procd"] {
        let folder = Folder::new();
        make_well(
            "install",
            &[&format!("PREFIX={}", folder.join("usr")), &sysconfdir(&folder), &format!("INIT={init}")],
        );
        for shell in shells() {
            let script = folder.join("etc/init.d/uakari");
            let finished = run(Command::new(shell[0]).args(&shell[1..]).args(["-n", &script]), DEADLINE);
            assert!(finished.status.success() && finished.err.is_empty(), "{shell:?} {init}: {}", finished.err);
        }
        if init == "procd" {
            continue;
        }
        let units = folder.path().join("usr/lib/systemd/system");
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).args([units.join("uakari.service"), units.join("uakari.socket")]);
        match verify.output() {
            Ok(output) => {
                let err = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && !err.contains("uakari"), "{err}");
            }
            Err(_) => println!("skipped: there is no systemd-analyze to look at the units"),
        }
    }
}

/// An installation in a folder, with a stand-in for the daemon.
struct Service {
    folder: Folder,
    shell: Vec<&'static str>,
}

/// Logs its signals, and rejects a configuration that contains "faulty".
const STAND_IN: &str = "#!/bin/sh
case $1 in --check) ! grep -q faulty \"$3\" || { echo 'line 1: faulty'; exit 1; }; exit 0 ;; esac
trap 'echo reloaded >>\"$2.heard\"' HUP
trap 'echo stopped >>\"$2.heard\"; kill $!; exit 0' TERM
echo started >>\"$2.heard\"
sleep 1000 &
while :; do wait; done
";

fn sysconfdir(folder: &Folder) -> String {
    format!("SYSCONFDIR={}", folder.join("etc"))
}

impl Service {
    /// `account` is the user where the configuration names none.
    fn new(shell: Vec<&'static str>, account: &str) -> Service {
        let folder = Folder::new();
        make_well("install", &[&format!("PREFIX={}", folder.join("usr")), &sysconfdir(&folder), "INIT=sysv"]);
        // The name of a script's process is that of its file.
        write_program(folder.join("usr/bin/uakari"), STAND_IN);
        fs::create_dir(folder.join("etc/default")).unwrap();
        // The tests make no users.
        let places = format!("PIDFILE={}\nDOCROOT={}\n", folder.join("pid"), folder.join("run/websocket"));
        // A stand-in that is killed does not tell that it was stopped.
        let settings = format!("{places}ACCOUNT={account}\nSTOP_SECONDS=60\n");
        fs::write(folder.join("etc/default/uakari"), settings).unwrap();
        Service { folder, shell }
    }

    /// Runs the script; its status must be this one. Returns its output.
    fn expect(&self, action: &str, status: i32) -> String {
        // A shell cannot trap a signal that was ignored when it started, as SIGHUP is below nohup(1).
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP").args(&self.shell).args([&self.folder.join("etc/init.d/uakari"), action]);
        let finished = run(&mut command, SCRIPT_TIME);
        let said = format!("{}{}", finished.out, finished.err);
        assert_eq!(finished.status.code(), Some(status), "{:?} {action}: {said}", self.shell);
        said
    }

    fn pid(&self) -> Option<Pid> {
        fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok().map(Pid::from_raw)
    }

    fn wait_for_log(&self, lines: &[&str]) {
        let heard = || fs::read_to_string(self.folder.join("etc/uakari/uakari.conf.heard")).unwrap_or_default();
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        eventually_eq(heard, &lines, ("the daemon heard", &self.shell));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

#[test]
fn the_init_script_works_in_every_shell() {
    for shell in shells() {
        let service = Service::new(shell, "");
        service.expect("status", 3);
        service.expect("reload", 7);
        assert!(service.expect("stop", 0).contains("not running"));

        assert!(service.expect("start", 0).contains("started"));
        let pid = service.pid().expect("the number is there as soon as start is over");
        service.wait_for_log(&["started"]);
        assert!(service.expect("status", 0).contains(&format!("process {pid}")));
        assert!(service.expect("start", 0).contains("already running"));
        assert!(service.folder.path().join("run/websocket").is_dir());

        service.expect("reload", 0);
        service.wait_for_log(&["started", "reloaded"]);
        fs::write(service.folder.join("etc/uakari/uakari.conf"), "faulty").unwrap();
        for action in ["reload", "restart", "force-reload"] {
            assert!(service.expect(action, 6).contains("line 1: faulty"));
        }
        assert_eq!(service.pid(), Some(pid), "a faulty configuration stops nothing");

        service.expect("stop", 0);
        service.wait_for_log(&["started", "reloaded", "stopped"]);
        assert_eq!(service.pid(), None);
        service.expect("status", 3);

        // The pid of a killed daemon may belong to another program.
        fs::write(service.folder.join("pid"), format!("{}\n", std::process::id())).unwrap();
        service.expect("status", 1);
        service.expect("stop", 0);
        service.expect("nonsense", 2);
    }
}

/// The sample configuration names a user; if a configuration names none, the init script does.
#[test]
fn the_daemon_does_not_stay_root() {
    let sample = fs::read_to_string(project().join("utils/install/uakari.conf")).unwrap();
    assert!(sample.contains("\nuser = \"uakari\";\n"), "{sample}");
    if !Uid::effective().is_root() {
        return println!("skipped: the script names a user to root only");
    }
    for shell in shells().into_iter().take(1) {
        let service = Service::new(shell, "nobody");
        let configuration = service.folder.join("etc/uakari/uakari.conf");
        let mut heard = Vec::new();
        for (text, flags) in
            [("# user = \"x\";\n", "\0-u\0nobody"), ("user=\"daemon\"\n", ""), (" user : \"nobody\";", "")]
        {
            fs::write(&configuration, text).unwrap();
            service.expect("start", 0);
            heard.push("started");
            service.wait_for_log(&heard);
            let command = fs::read_to_string(format!("/proc/{}/cmdline", service.pid().unwrap())).unwrap();
            assert!(command.ends_with(&format!("\0-f\0{configuration}{flags}\0")), "{text}: {command:?}");
            service.expect("stop", 0);
            heard.push("stopped");
            service.wait_for_log(&heard);
        }
    }
}
