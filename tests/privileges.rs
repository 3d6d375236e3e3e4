//! Privileges that are dropped. Only root has any.

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{Uid, User};

use crate::daemon::{Daemon, UAKARI_PATH, driver_flags};
use crate::process::{DEADLINE, Folder, Process, claim, close, make_program, run, skipped};

/// The text of /proc/PID/status.
struct Status(String);

impl Status {
    fn of(daemon: &Daemon) -> Status {
        Status(std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap())
    }

    /// The value of a field, with single blanks.
    fn field(&self, name: &str) -> String {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{name} in:\n{}", self.0)).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// A set of capabilities, one bit for each.
    fn capabilities(&self, name: &str) -> u64 {
        u64::from_str_radix(&self.field(name), 16).unwrap()
    }
}

/// The user to switch to; None: the tests do not run as root.
pub fn nobody() -> Option<User> {
    if !Uid::effective().is_root() {
        skipped("only root can become another user");
        return None;
    }
    Some(User::from_name("nobody").unwrap().expect("there should be a user nobody"))
}

/// Starts the daemon as a user with no other process: the kernel counts locked memory and descriptors in flight per
/// user. None: the tests do not run as root.
pub fn as_lone_user(folder: &Folder) -> Option<Command> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !Uid::effective().is_root() {
        return None;
    }
    // Containers may have no user above 65535.
    let is_free = |id: &u32| User::from_uid(Uid::from_raw(*id)).is_ok_and(|user| user.is_none());
    let ids = || Some(20_000 + (std::process::id() * 16 + NEXT.fetch_add(1, Ordering::Relaxed)) % 40_000);
    let id = std::iter::from_fn(ids).find(is_free).unwrap().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(reachable_program(folder));
    Some(command)
}

/// A copy of the daemon that every user can run, wherever it was built.
fn reachable_program(folder: &Folder) -> String {
    let program = folder.join("uakari");
    std::fs::copy(UAKARI_PATH, &program).unwrap();
    make_program(&program);
    program
}

/// The daemon runs as this user, with exactly these capabilities permitted and effective.
fn expect_rights(daemon: &Daemon, user: &User, capabilities: u64) {
    let status = Status::of(daemon);
    let four_times = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    assert_eq!(status.field("Uid"), four_times(user.uid.as_raw()));
    assert_eq!(status.field("Gid"), four_times(user.gid.as_raw()));
    let groups = run(Command::new("id").args(["-G", &user.name]), DEADLINE).out;
    let mut groups: Vec<&str> = groups.split_whitespace().collect();
    let got = status.field("Groups");
    let mut got: Vec<&str> = got.split_whitespace().collect();
    groups.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, groups);
    for (set, expected) in
        [("CapPrm", capabilities), ("CapEff", capabilities), ("CapInh", 0), ("CapAmb", 0), ("CapBnd", 0)]
    {
        assert_eq!(status.capabilities(set), expected, "{set} in:\n{}", status.0);
    }
    assert_eq!(status.field("NoNewPrivs"), "1");
}

/// A page and a WebSocket work.
pub fn expect_service(daemon: &Daemon) {
    std::fs::write(daemon.folder().join("www/page"), "hello").unwrap();
    assert_eq!(daemon.get("/page").status, 200);
    let _server = daemon.echo("echo", &[]);
    let mut client = daemon.connect("/echo");
    client.text("hello");
    client.expect_text("hello");
}

#[test]
fn switching_the_user_drops_all_capabilities() {
    let Some(user) = nobody() else { return };
    let daemon = Daemon::start(&["-u", "nobody"]);
    expect_rights(&daemon, &user, 0);
    expect_service(&daemon);
}

#[test]
fn a_port_below_1024_keeps_cap_net_bind_service() {
    const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
    let Some(user) = nobody() else { return };
    // Another run of the tests may choose the same port.
    let take = |port: u16| {
        let claim = claim(&format!("port {port}"))?;
        close(TcpListener::bind(("127.0.0.1", port)).ok()?);
        Some((port, claim))
    };
    let Some((port, _claim)) = (600..1024).rev().find_map(take) else {
        return skipped("no port below 1024 is free");
    };
    let daemon = Daemon::start(&["-u", "nobody", "--listen", &format!("127.0.0.1:{port}")]);
    expect_rights(&daemon, &user, CAP_NET_BIND_SERVICE);
    expect_service(&daemon);
}

#[test]
fn no_new_privs_is_set_without_a_user_switch() {
    let daemon = Daemon::start(&[]);
    let status = Status::of(&daemon);
    assert_eq!(status.field("NoNewPrivs"), "1");
    let mine = std::fs::read_to_string("/proc/self/status").unwrap();
    for set in ["Uid", "CapPrm", "CapEff"] {
        assert_eq!(status.field(set), Status(mine.clone()).field(set), "{set} should be what the tests have");
    }
}

#[test]
fn an_unprivileged_user_may_configure_only_itself() {
    let Some(user) = nobody() else { return };
    let folder = Folder::new();
    let program = reachable_program(&folder);
    let as_nobody = |name: &str| {
        let mut command = Command::new("setpriv");
        let (uid, gid) = (format!("--reuid={}", user.uid), format!("--regid={}", user.gid));
        command.args([&uid, &gid, "--clear-groups", &program]).args(driver_flags());
        command.args(["--listen", "127.0.0.1:0", "--docroot", &folder.join(""), "-u", name]);
        command
    };
    let finished = run(&mut as_nobody("daemon"), DEADLINE);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.err);
    assert!(finished.err.contains("-u daemon") && finished.err.contains("start it as root"), "{}", finished.err);
    let process = Process::start(&mut as_nobody("nobody"));
    process.out.wait_for(&["listening on "]);
}
