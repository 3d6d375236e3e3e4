//! Through the gateway, in direct mode, and in the background.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;

use super::*;
use crate::client::CLOSE;
use crate::daemon::Daemon;
use crate::preload::PATIENT as PATIENT_ACCEPT;
use crate::server::listener_of;

const COUNT: &str = r#"{"jsonrpc":"2.0","method":"count","id":1}"#;
const WHOAMI: &str = r#"{"jsonrpc":"2.0","method":"whoami","id":1}"#;

/// The example's library as a server of a gateway.
fn start(daemon: &Daemon, options: &[&str], environment: &[(&str, &OsStr)]) -> Process {
    let library = compile(daemon.folder(), "utils/jsonrpc/examples/visits.c", &[]);
    let mut command = Command::new(program("websocket_jsonrpc"));
    command.args(["-R", &daemon.folder().join("run"), "-n", "rpc", "-L", &library]).args(PATIENT).args(options);
    let process = Process::start(command.envs(environment.iter().copied()));
    eventually("the server listens", || connect(&daemon.socket("rpc"), Kind::Stream).is_ok());
    process
}

/// A text that may come in several messages.
fn expect_texts(client: &mut crate::client::Client, expected: &str) {
    let mut came = Vec::new();
    while came.len() < expected.len() {
        came.extend(client.message().1);
    }
    assert_eq!(String::from_utf8(came).unwrap(), expected);
}

#[test]
fn through_the_gateway() {
    let daemon = Daemon::start(&["--hello"]);
    let _server = start(&daemon, &["--hello", "-C", "1"], &[]);
    let mut client = daemon.connect("/rpc");
    client.text(WHOAMI);
    expect_texts(&mut client, "{\"jsonrpc\":\"2.0\",\"result\":\"127.0.0.1\",\"id\":1}\n");
    client.text(&COUNT[..10]);
    client.text(&format!("{}{COUNT}", &COUNT[10..]));
    expect_texts(
        &mut client,
        "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}\n{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":1}\n",
    );
    // The answer to the last message before a close arrives, within half a second.
    let is_answered = |_| {
        let mut other = daemon.connect("/rpc");
        other.text(COUNT);
        expect_texts(&mut other, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}\n");
        let start = Instant::now();
        other.text(COUNT);
        other.close(1000);
        let frame = other.frame();
        if frame.opcode == CLOSE && start.elapsed() >= Duration::from_millis(500) {
            eprintln!("the answer came too late: once more");
            return false;
        }
        assert_eq!(String::from_utf8(frame.payload).unwrap(), "{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":1}\n");
        true
    };
    assert!((0..20).any(is_answered), "no last message is answered");
}

#[test]
fn handed_over_to_the_preloaded_library() {
    let daemon = Daemon::start(&["--options", "direct"]);
    let preload = program("libwebsocket.so");
    let (wait, wait_ms) = PATIENT_ACCEPT;
    let server = start(&daemon, &["-C", "1"], &[("LD_PRELOAD", preload.as_os_str()), (wait, wait_ms.as_ref())]);
    let mut clients = [daemon.connect("/rpc"), daemon.connect("/rpc")];
    for client in &mut clients {
        client.text(COUNT);
        expect_texts(client, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":1}\n");
    }
    let [mut one, mut other] = clients;
    one.text(WHOAMI);
    expect_texts(&mut one, "{\"jsonrpc\":\"2.0\",\"result\":\"127.0.0.1\",\"id\":1}\n");
    let children = || super::children(server.pid().as_raw());
    eventually_eq(|| children().len(), &2, "each client has a process");
    for child in children() {
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap();
        assert!(!environment.windows(11).any(|part| part == b"LD_PRELOAD="), "{child} has it too");
        let files: Vec<PathBuf> = fs::read_dir(format!("/proc/{child}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .collect();
        let sockets = files.iter().filter(|file| file.to_string_lossy().starts_with("socket:")).count();
        assert_eq!(sockets, 1, "{child} has {files:?}");
    }
    one.finish(1000);
    eventually("its process has ended", || children().len() == 1);
    other.text(COUNT);
    expect_texts(&mut other, "{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":1}\n");
}

#[test]
#[ignore = "needs libjansson-dev"]
fn relative_paths_in_the_background() {
    let folder = Folder::new();
    ouistiti(&folder);
    let mut command = Command::new(program("websocket_jsonrpc"));
    command.args(["-D", "-R", "run", "-n", "rpc", "-L", "./ouistiti.so", "-C", "log"]).args(PATIENT);
    command.current_dir(folder.path());
    let Finished { status, out, err } = run(&mut command, DEADLINE);
    let path = folder.path().join("run/rpc");
    let said = format!("websocket_jsonrpc: listening on {}", path.display());
    assert_eq!((status.success(), out.as_str(), err.as_str()), (true, said.as_str(), ""));
    let mut client = Client::new(&path);
    client.call("count", "");
    client.expect_result("1");
    assert_eq!(fs::read_to_string(folder.join("log")).unwrap(), "init 0\ncount 1\n");
    kill(listener_of(client.0.stream()), Signal::SIGTERM).unwrap();
    client.0.expect_end();
    eventually("its socket is gone", || !path.exists());
}
