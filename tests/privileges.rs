//! Privileges that are dropped. Only root has any.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{Pid, Uid, User};

use crate::daemon::{Daemon, driver_flags, program};
use crate::process::{DEADLINE, Folder, Process, claim, close, expect_eq, make_program, run, skipped};
use crate::reload::{TAKEN, reload};
use crate::supervision::{ANN, WRONG, configuration, folder, helper, status};

const CAP_NET_BIND_SERVICE: u64 = 1 << 10;

/// The text of /proc/PID/status.
struct Status(String);

impl Status {
    fn of(pid: Pid) -> Status {
        Status(fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
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

/// A copy of the daemon that every user can run, wherever it was built, and of its helper beside it.
fn reachable_program(folder: &Folder) -> String {
    for name in ["uakari", "uakari-auth"] {
        let copy = folder.join(name);
        fs::copy(program(name), &copy).unwrap();
        make_program(&copy);
    }
    folder.join("uakari")
}

/// The process runs as this user, with exactly these capabilities permitted and effective.
fn expect_rights(pid: Pid, user: &User, capabilities: u64) {
    let status = Status::of(pid);
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
    fs::write(daemon.folder().join("www/page"), "hello").unwrap();
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
    expect_rights(daemon.pid(), &user, 0);
    expect_service(&daemon);
}

#[test]
fn a_port_below_1024_keeps_cap_net_bind_service() {
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
    expect_rights(daemon.pid(), &user, CAP_NET_BIND_SERVICE);
    expect_service(&daemon);
}

#[test]
fn no_new_privs_is_set_without_a_user_switch() {
    let daemon = Daemon::start(&[]);
    let status = Status::of(daemon.pid());
    assert_eq!(status.field("NoNewPrivs"), "1");
    let mine = fs::read_to_string("/proc/self/status").unwrap();
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

/// The file of the passwords, which this user alone can read.
fn give_users(folder: &Folder, user: &User) -> String {
    let file = folder.join("users");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    file
}

/// docs/threat-model.md: what an exploited parser of passwords does not have.
#[test]
fn the_helper_has_the_users_rights_and_nothing_more() {
    let Some(user) = nobody() else { return };
    let folder = folder();
    let users = give_users(&folder, &user);
    let mut command = Command::new(reachable_program(&folder));
    command.args(driver_flags()).args(["-u", "nobody"]);
    let daemon = Daemon::start_configured_by(folder, &configuration("@/users"), command);
    for _ in 0..2 {
        expect_eq([status(&daemon, &[ANN]), status(&daemon, &[WRONG])], [200, 401], "passwords");
        let helper = helper(&daemon);
        expect_rights(helper, &user, 0);
        let of_helper = |name: &str| format!("/proc/{helper}/{name}");
        expect_eq(fs::read(of_helper("environ")).unwrap(), Vec::new(), "its environment");
        // The files of a process that is not dumpable belong to root (proc(5)).
        expect_eq(fs::metadata(of_helper("environ")).unwrap().uid(), 0, "the owner of its memory");
        let descriptors = fs::read_dir(of_helper("fd")).unwrap().map(|file| file.unwrap().path());
        let mut targets: Vec<(String, String)> = descriptors
            .map(|path| {
                let target = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
                let kind = target.replace(|letter: char| letter.is_ascii_digit(), "");
                (path.file_name().unwrap().to_str().unwrap().to_owned(), kind)
            })
            .collect();
        targets.sort_unstable();
        let expected = [("0", "socket:[]"), ("1", "/dev/null"), ("2", "pipe:[]"), ("3", "anon_inode:[eventfd]")];
        assert_eq!(targets, expected.map(|(number, target)| (number.to_owned(), target.to_owned())));
        // The daemon has the rights of this user by now.
        reload(&daemon, &configuration(&users), TAKEN);
    }
    chown(&users, Some(0), Some(0)).unwrap();
    reload(&daemon, &configuration("@/www/../users"), "reload: the old configuration stays");
    daemon.log().wait_for(&["error", "servers[0].auth.file", "users: Permission denied"]);
    expect_eq(status(&daemon, &[ANN]), 200, "the contents that were read before");
}

/// Root could read the file, its user cannot.
#[test]
fn a_file_that_the_user_cannot_read_is_an_error_at_the_start() {
    let Some(_) = nobody() else { return };
    let folder = folder();
    let text = configuration("@/users").replace('@', folder.path().to_str().unwrap());
    fs::write(folder.join("uakari.conf"), text).unwrap();
    let program = reachable_program(&folder);
    for flags in [&[][..], &["--check"]] {
        let mut command = Command::new(&program);
        command.args(driver_flags()).args(["-u", "nobody", "-f", &folder.join("uakari.conf")]).args(flags);
        let finished = run(&mut command, DEADLINE);
        assert_eq!(finished.status.code(), Some(1), "{flags:?}: {}", finished.err);
        let said = finished.err + &finished.out;
        for part in ["servers[0].auth.file", &folder.join("users"), "Permission denied"] {
            assert!(said.contains(part), "{flags:?}: {part:?} is not in {said}");
        }
    }
}

/// As utils/install/uakari.service starts the daemon.
#[test]
fn ambient_capabilities_do_not_reach_the_helper() {
    let Some(user) = nobody() else { return };
    let folder = folder();
    give_users(&folder, &user);
    let mut command = Command::new("setpriv");
    let (uid, gid) = (format!("--reuid={}", user.uid), format!("--regid={}", user.gid));
    let capabilities = ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"];
    command.args([&uid, &gid]).args(["--clear-groups", "--bounding-set=-all,+net_bind_service"]).args(capabilities);
    command.arg(reachable_program(&folder)).args(driver_flags());
    let daemon = Daemon::start_configured_by(folder, &configuration("@/users"), command);
    expect_eq(status(&daemon, &[ANN]), 200, "a password");
    for (pid, expected) in [(daemon.pid(), CAP_NET_BIND_SERVICE), (helper(&daemon), 0)] {
        let status = Status::of(pid);
        for set in ["CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status.capabilities(set), expected, "{set} in:\n{}", status.0);
        }
        assert_eq!(status.field("NoNewPrivs"), "1");
    }
}
