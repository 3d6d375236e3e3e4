//! The daemon and its helper process, uakari-auth: start, end, reload, and limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::{Daemon, patient, uakari};
use crate::process::{DEADLINE, Folder, eventually, expect_eq, run};
use crate::reload::{TAKEN, reload};
use crate::wire::{Response, Wire, handshake, request};

/// The user ann with the password "secret", as htpasswd -s writes it.
const USERS: &str = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
pub const ANN: &str = "Authorization: Basic YW5uOnNlY3JldA==";
/// The password "wrong".
pub const WRONG: &str = "Authorization: Basic YW5uOndyb25n";
/// Questions of one address that wait at a time.
const OF_ADDRESS_MAX: usize = 16;

/// A configuration whose pages need a password, but for those whose names begin with "open".
pub fn configuration(file: &str) -> String {
    format!(
        "limits = {{ {} }};
         servers = ({{
             listen = \"127.0.0.1:0\";
             document = {{ docroot = \"@/www\"; }};
             websocket = {{ docroot = \"@/run\"; }};
             auth = {{ type = \"Basic\"; file = \"{file}\"; cache-ms = 0; }};
             paths = ({{ path = \"^/open\"; auth = {{ type = \"none\"; }}; }});
         }});",
        patient("")
    )
}

/// A folder with pages and the file of the users.
pub fn folder() -> Folder {
    let folder = Folder::new();
    fs::create_dir_all(folder.join("www")).unwrap();
    for page in ["page", "open"] {
        fs::write(folder.join("www/") + page, page).unwrap();
    }
    write_users(&folder, USERS);
    folder
}

/// Writes the file of the users, as an editor does.
fn write_users(folder: &Folder, text: &str) {
    fs::write(folder.join("users.new"), text).unwrap();
    fs::set_permissions(folder.join("users.new"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(folder.join("users.new"), folder.join("users")).unwrap();
}

fn start() -> Daemon {
    Daemon::start_configured_by(folder(), &configuration("@/users"), uakari())
}

fn get(daemon: &Daemon, path: &str, fields: &[&str]) -> Response {
    let mut wire = daemon.wire();
    wire.send(request("GET", path, fields));
    wire.response()
}

/// The status of a page that needs a password.
pub fn status(daemon: &Daemon, fields: &[&str]) -> u16 {
    get(daemon, "/page", fields).status
}

/// The children of the daemon that are uakari-auth.
pub fn helpers(daemon: &Daemon) -> Vec<Pid> {
    let is_helper = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (name, rest) = status.rsplit_once(") ").unwrap_or_default();
        let parent = rest.split(' ').nth(1).and_then(|parent| parent.parse().ok());
        name.ends_with("(uakari-auth") && !rest.starts_with('Z') && parent == Some(daemon.pid().as_raw())
    };
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(|pid| is_helper(*pid)).map(Pid::from_raw).collect()
}

/// The one that runs. At the start of the daemon another one has read the files before it, and ends.
pub fn helper(daemon: &Daemon) -> Pid {
    let mut all = Vec::new();
    eventually("one uakari-auth runs", || {
        all = helpers(daemon);
        all.len() == 1
    });
    all[0]
}

#[test]
fn passwords_are_verified() {
    let mut daemon = start();
    let challenge = get(&daemon, "/page", &[]);
    assert_eq!((challenge.status, challenge.field("WWW-Authenticate").starts_with("Basic realm=")), (401, true));
    expect_eq(status(&daemon, &[WRONG]), 401, "a wrong password");
    let page = get(&daemon, "/page", &[ANN]);
    assert_eq!((page.status, page.text()), (200, "page".to_owned()));
    expect_eq(get(&daemon, "/open", &[]).status, 200, "a path that needs no password");
    let helper = helper(&daemon);
    daemon.stop();
    // It ends with the daemon, which waits for it.
    assert!(!fs::exists(format!("/proc/{helper}")).unwrap(), "it runs on");
    assert!(!daemon.log().text().contains("YW5u"), "{}", daemon.log().text());
}

#[test]
fn a_helper_that_is_not_needed_does_not_run() {
    let daemon = Daemon::start_configured(&crate::daemon::configuration("", ""));
    assert_eq!(helpers(&daemon), []);
}

#[test]
fn a_helper_that_is_killed_is_started_again() {
    let daemon = start();
    let _echo = daemon.echo("open_echo", &[]);
    let mut client = daemon.connect("/open_echo");
    for _ in 0..2 {
        expect_eq(status(&daemon, &[ANN]), 200, "before");
        let before = helper(&daemon);
        // Stopped, it holds the question until it is killed.
        kill(before, Signal::SIGSTOP).unwrap();
        let mut wire = daemon.wire();
        wire.send(request("GET", "/page", &[ANN]));
        expect_eq(get(&daemon, "/open", &[]).status, 200, "another client");
        kill(before, Signal::SIGKILL).unwrap();
        expect_eq(wire.response().status, 503, "without a helper nothing is decided");
        client.text("still here");
        client.expect_text("still here");
        eventually("passwords are verified again", || status(&daemon, &[ANN]) == 200);
        assert!(helper(&daemon) != before);
    }
    daemon.log().wait_for(&["error", "uakari-auth: it was ended by signal 9: it is started again"]);
    client.finish(1000);
}

#[test]
fn many_passwords_at_once() {
    let daemon = start();
    let _echo = daemon.echo("open_echo", &[]);
    let mut client = daemon.connect("/open_echo");
    let helper = helper(&daemon);
    kill(helper, Signal::SIGSTOP).unwrap();
    let mut wires: Vec<Wire> = (0..2 * OF_ADDRESS_MAX).map(|_| daemon.wire()).collect();
    wires.iter_mut().for_each(|wire| wire.send(request("GET", "/page", &[ANN])));
    // Others are not affected.
    expect_eq(get(&daemon, "/open", &[]).status, 200, "another client");
    client.text("still here");
    client.expect_text("still here");
    daemon.log().wait_for(&["refused with 429: too many attempts"]);
    kill(helper, Signal::SIGCONT).unwrap();
    let statuses: Vec<u16> = wires.iter_mut().map(|wire| wire.response().status).collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(
        refused >= OF_ADDRESS_MAX && statuses.iter().all(|status| [200, 429, 503].contains(status)),
        "{statuses:?}"
    );
    eventually("passwords are verified again", || status(&daemon, &[ANN]) == 200);
    client.finish(1000);
}

#[test]
fn a_reload_with_a_file_that_cannot_be_used() {
    let daemon = start();
    let helper = helper(&daemon);
    let kept = "reload: the old configuration stays";
    reload(&daemon, &configuration("@/missing"), kept);
    daemon.log().wait_for(&["error", "reload: ", "uakari.conf:", "servers[0].auth.file", "missing"]);
    expect_eq(status(&daemon, &[ANN]), 200, "the old configuration");
    fs::write(daemon.folder().join("broken"), "ann:$2x$10$abc\n").unwrap();
    reload(&daemon, &configuration("@/broken"), kept);
    expect_eq(status(&daemon, &[ANN]), 200, "the old configuration");
    fs::write(daemon.folder().join("others"), USERS.replace("ann", "bob")).unwrap();
    reload(&daemon, &configuration("@/others"), TAKEN);
    expect_eq(status(&daemon, &[ANN]), 401, "the new configuration does not know the user");
    expect_eq(status(&daemon, &["Authorization: Basic Ym9iOnNlY3JldA=="]), 200, "the new user");
    reload(&daemon, &configuration("@/users"), TAKEN);
    expect_eq(status(&daemon, &[ANN]), 200, "the first configuration again");
    assert_eq!(self::helper(&daemon), helper, "one helper serves all configurations");
}

/// New rules hold for all clients soon: a connection that is kept open is closed after its next reply.
#[test]
fn connections_that_are_older_than_a_reload() {
    let daemon = start();
    let get_on = |wire: &mut Wire, fields: &[&str]| {
        wire.send(request("GET", "/page", fields));
        let response = wire.response();
        (response.status, response.field("Connection").to_owned())
    };
    let _server = daemon.listen("who");
    let mut wires: Vec<Wire> = (0..3).map(|_| daemon.wire()).collect();
    for wire in &mut wires {
        assert_eq!(get_on(wire, &[ANN]), (200, "keep-alive".to_owned()));
    }
    fs::write(daemon.folder().join("others"), USERS.replace("ann", "bob")).unwrap();
    reload(&daemon, &configuration("@/others"), TAKEN);
    assert_eq!(get_on(&mut wires[0], &[ANN]), (200, "close".to_owned()), "the rules before are kept");
    wires[0].expect_end();
    // A WebSocket would keep them.
    wires[2].send(handshake("/who", &[], &[ANN]));
    let response = wires[2].response();
    assert_eq!((response.status, response.field("Connection")), (503, "close"), "{response:?}");
    fs::write(daemon.folder().join("more"), USERS.replace("ann", "eve")).unwrap();
    reload(&daemon, &configuration("@/more"), TAKEN);
    assert_eq!(get_on(&mut wires[1], &[ANN]), (503, "close".to_owned()), "they have left");
    wires[1].expect_end();
    expect_eq(status(&daemon, &[ANN]), 401, "a new connection");
}

#[test]
fn a_file_that_changes() {
    let daemon = start();
    expect_eq(status(&daemon, &[ANN]), 200, "before");
    write_users(daemon.folder(), &USERS.replace("ann", "bob"));
    eventually("the user is gone", || status(&daemon, &[ANN]) == 401);
}

#[test]
fn a_start_that_fails_names_file_and_key() {
    let folder = folder();
    for (file, cause) in [("@/missing", "missing"), ("@/www", "www")] {
        let text = configuration(file).replace('@', folder.path().to_str().unwrap());
        fs::write(folder.join("uakari.conf"), text).unwrap();
        for check in [&[][..], &["--check"]] {
            let finished = run(uakari().arg("-f").arg(folder.join("uakari.conf")).args(check), DEADLINE);
            assert!(!finished.status.success(), "{file}");
            let said = finished.err + &finished.out;
            for part in ["uakari.conf:", "servers[0].auth.file", cause] {
                assert!(said.contains(part), "{file} {check:?}: {part:?} is not in {said}");
            }
        }
    }
}
