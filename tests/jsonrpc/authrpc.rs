//! Users and passwords, end to end. Each method is tested beside its code.

use super::*;
use crate::daemon::Daemon;

/// A server with a database that it has just made, and the password of its root.
pub fn start(folder: &Folder, name: &str, options: &[&str]) -> (Process, String) {
    let mut command = Command::new(program("websocket_jsonrpc"));
    command.args(["-R", &folder.join("run"), "-n", name, "-C", &folder.join("users.db"), "-L"]);
    let process = Process::start(command.arg(program("libauthrpc.so")).args(PATIENT).args(options));
    let line = process.err.wait_for(&["users.db is new", "root has the password"]);
    let password = line.split("password ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    eventually("the server listens", || connect(&folder.path().join("run").join(name), Kind::Stream).is_ok());
    (process, password)
}

fn login(user: &str, password: &str) -> String {
    format!("{{\"user\":{user:?},\"passwd\":{password:?}}}")
}

const ROOT: &str = r#"{"algorithm":"argon2id","group":"root","home":"/home/root","user":"root"}"#;
const NOT_FOUND: &str = r#"{"code":1,"message":"user or password not found","data":"user or password not found"}"#;
const NOT_ALLOWED: &str =
    r#"{"code":2,"message":"only the root group may do that","data":"only the root group may do that"}"#;

#[test]
fn sessions_belong_to_connections() {
    let folder = Folder::new();
    let (server, password) = start(&folder, "rpc", &[]);
    let path = folder.path().join("run/rpc");
    let (mut root, mut other) = (Client::new(&path), Client::new(&path));
    root.call("auth", &login("root", &password));
    root.expect_result(ROOT);
    other.call("adduser", &login("eve", "x"));
    other.expect_error(NOT_ALLOWED);
    root.call("adduser", &login("alice", "first"));
    root.expect_result(r#"{"message":"user added"}"#);
    other.call("auth", &login("alice", "first"));
    other.expect_result(r#"{"algorithm":"argon2id","group":"users","user":"alice"}"#);

    // A killed worker loses its login, and nothing else.
    for child in children(server.pid().as_raw()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }
    eventually("root is logged out", || {
        root.call("rmuser", r#"{"user":"nobody"}"#);
        root.answer().contains("only the root group may do that")
    });
    root.call("auth", &login("root", &password));
    root.expect_result(ROOT);
    root.call("rmuser", r#"{"user":"alice"}"#);
    root.expect_result(r#"{"message":"user removed"}"#);
}

#[test]
fn the_first_password_is_printed_once() {
    let folder = Folder::new();
    let (server, password) = start(&folder, "rpc", &[]);
    drop(server);
    let mut command = Command::new(program("websocket_jsonrpc"));
    command.args(["-R", &folder.join("run"), "-n", "rpc", "-C", &folder.join("users.db"), "-L"]);
    let server = Process::start(command.arg(program("libauthrpc.so")).args(PATIENT));
    let path = folder.path().join("run/rpc");
    eventually("the server listens", || connect(&path, Kind::Stream).is_ok());
    let mut client = Client::new(&path);
    client.call("auth", &login("root", &password));
    client.expect_result(ROOT);
    assert_eq!(server.err.text(), "");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.join("users.db")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_that_are_not_user_databases() {
    let folder = Folder::new();
    let library = program("libauthrpc.so");
    fs::write(folder.join("text"), "this is long enough to be taken for a database, and is none").unwrap();
    for (config, part) in [
        (folder.join("text"), "file is not a database"),
        (folder.join("no/such/folder/db"), "No such file or directory"),
        (String::new(), "-C names no database"),
        (format!("file={},mode=1", folder.join("db")), "\"mode\" is not known"),
    ] {
        let finished = jsonrpc(&["-R", &folder.join("run"), "-L", library.to_str().unwrap(), "-C", &config]);
        assert!(!finished.status.success() && finished.err.contains(part), "{config}: {}", finished.err);
    }
}

#[test]
fn ten_thousand_wrong_passwords() {
    const CONNECTIONS: usize = 10;
    const BATCHES: usize = 5;
    // The answer still fits in a line that the gateway passes on.
    const TRIES: usize = 200;
    let daemon = Daemon::start(&["--hello", "--protocol", "lines"]);
    let (_server, password) = start(daemon.folder(), "rpc", &["--hello", "--protocol", "lines"]);
    let (mut looked_at, mut waited) = (0, 0);
    for connection in 0..CONNECTIONS {
        // The address is the same for each connection.
        let mut client = daemon.connect("/rpc");
        for batch in 0..BATCHES {
            let call = |number| {
                let params = login("root", &format!("guess {connection} {batch} {number}"));
                format!("{{\"jsonrpc\":\"2.0\",\"method\":\"auth\",\"params\":{params},\"id\":{number}}}")
            };
            let calls: Vec<String> = (0..TRIES).map(call).collect();
            client.text(&format!("[{}]", calls.join(",")));
            let answer = String::from_utf8(client.message().1).unwrap();
            looked_at += answer.matches(NOT_FOUND).count();
            waited += answer.matches("\"message\":\"too many attempts: wait ").count();
            assert!(!answer.contains("result"), "{answer}");
        }
    }
    // Seconds pass, and some allow one more attempt.
    assert_eq!(looked_at + waited, CONNECTIONS * BATCHES * TRIES);
    assert!((5..20).contains(&looked_at), "{looked_at}");
    // Right behind wrong ones, since the wait ends at some time, and a busy machine may be as slow.
    let is_refused = |_| {
        let mut client = daemon.connect("/rpc");
        let guesses = (0..20).map(|number| format!("guess {number}"));
        let call = |password: String| {
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"auth\",\"params\":{},\"id\":1}}", login("root", &password))
        };
        let calls: Vec<String> = guesses.chain([password.clone()]).map(call).collect();
        client.text(&format!("[{}]", calls.join(",")));
        let answer = String::from_utf8(client.message().1).unwrap();
        println!("{answer}");
        answer.rsplit("\"jsonrpc\"").next().unwrap().contains("too many attempts")
    };
    assert!((0..3).any(is_refused), "the right one is not told from them either");
}
