//! The server of JSON-RPC 2.0, with well-behaved and faulty libraries.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, configuration, program, project};
use crate::foreign::{self, SCRIPT_TIME, tool, tools};
use crate::process::{DEADLINE, Finished, Folder, Process, eventually, eventually_eq, run};
use crate::server::{Backend, Kind, connect};

/// Users and their passwords: the library authrpc.so.
pub mod authrpc;

/// Faulty libraries, and the clients that are not affected.
mod harm;

/// Queries of a database: the library jsonsql.so.
mod jsonsql;

/// The interfaces to libraries, and unusable libraries.
mod libraries;

/// Requests through the gateway and in direct mode.
mod ways;

/// The options of a server whose processes may be suspended in a call.
const PATIENT: [&str; 2] = ["--call-ms", "60000"];

/// A server and the folder of its socket and its library.
struct Server {
    process: Process,
    folder: Folder,
}

/// Compiles a library of `tests/jsonrpc`, or an example, into this folder.
fn compile(folder: &Folder, source: &str, more: &[&str]) -> String {
    let source = project().join(source);
    let path = folder.join(&format!("{}.so", source.file_stem().unwrap().display()));
    let mut command = Command::new("cc");
    command.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-I"]);
    command.arg(project().join("utils/jsonrpc/include")).arg(source).args(["-o", &path]).args(more);
    let finished = run(&mut command, DEADLINE);
    assert!(finished.status.success(), "{}", finished.err);
    path
}

fn ouistiti(folder: &Folder) -> String {
    foreign::need("libjansson-dev");
    compile(folder, "tests/jsonrpc/ouistiti.c", &["-ljansson"])
}

fn jsonrpc(options: &[&str]) -> Finished {
    run(Command::new(program("websocket_jsonrpc")).args(options), DEADLINE)
}

impl Server {
    /// With the library of ouistiti's interface.
    fn start(options: &[&str]) -> Server {
        let folder = Folder::new();
        let library = ouistiti(&folder);
        Server::start_in(folder, &library, options)
    }

    fn start_in(folder: Folder, library: &str, options: &[&str]) -> Server {
        let mut command = Command::new(program("websocket_jsonrpc"));
        command.args(["-R", &folder.join("run"), "-n", "rpc", "-L", library]).args(options);
        if !options.contains(&PATIENT[0]) {
            command.args(PATIENT);
        }
        let process = Process::start(&mut command);
        let server = Server { process, folder };
        eventually("the server listens", || connect(&server.path(), Kind::Stream).is_ok());
        server
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run/rpc")
    }

    fn client(&self) -> Client {
        Client::new(&self.path())
    }

    /// The pids of its children, one for each connection.
    fn children(&self) -> Vec<i32> {
        children(self.process.pid().as_raw())
    }
}

/// Calls until a library has released what it opened. Its process has a second for that before it is killed: only an
/// attempt that took so long is repeated.
fn until_released(mut release: impl FnMut() -> bool) {
    const TRIES: usize = 5;
    let is_released = (0..TRIES).any(|_| {
        let start = Instant::now();
        let is_released = release();
        let took = start.elapsed();
        if !is_released {
            assert!(took >= Duration::from_secs(1), "nothing was released within {took:?}");
            eprintln!("a process was killed before it released what it had opened: once more");
        }
        is_released
    });
    assert!(is_released, "nothing was released in {TRIES} tries");
}

/// The pids of living children of a process.
fn children(pid: i32) -> Vec<i32> {
    let parent = |pid: &i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        if fields.next()? == "Z" { None } else { fields.next()?.parse().ok() }
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|child| parent(child) == Some(pid)).collect()
}

/// Waits until these processes have ended.
fn expect_gone(pids: &[i32]) {
    for pid in pids {
        eventually("a process has ended", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

/// A client without a gateway, and the buffered answers.
struct Client(Backend, BufReader<UnixStream>);

impl Client {
    fn new(path: &Path) -> Client {
        let stream = connect(path, Kind::Stream).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Client(Backend::new(stream), reader)
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.send(text);
    }

    /// Sends a call with the id 1.
    fn call(&mut self, method: &str, params: &str) {
        let params = if params.is_empty() { String::new() } else { format!(",\"params\":{params}") };
        self.send(format!("{{\"jsonrpc\":\"2.0\",\"method\":{method:?}{params},\"id\":1}}"));
    }

    /// The next answer, which is a line.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap_or_else(|error| panic!("no answer after {DEADLINE:?}: {error}"));
        assert_eq!(line.pop(), Some('\n'), "the end came within {line}");
        line
    }

    fn expect(&mut self, answer: &str) {
        assert_eq!(self.answer(), answer);
    }

    /// The next answer must be to a call with the id 1 and have this result.
    fn expect_result(&mut self, result: &str) {
        self.expect(&format!("{{\"jsonrpc\":\"2.0\",\"result\":{result},\"id\":1}}"));
    }

    /// The next answer must be to a call with the id 1 and have this error.
    fn expect_error(&mut self, error: &str) {
        self.expect(&format!("{{\"jsonrpc\":\"2.0\",\"error\":{error},\"id\":1}}"));
    }

    /// No further answer has come.
    fn expect_nothing_else(&mut self) {
        self.call("get_data", "");
        self.expect_result("[\"hello\",5]");
    }
}

const INTERNAL: &str = r#"{"code":-32603,"message":"Internal error"}"#;

/// The examples of the specification (section 7) in order: request and answer.
const SPECIFICATION: [(&str, &str); 15] = [
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#,
        r#"{"jsonrpc": "2.0", "result": 19, "id": 1}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}"#,
        r#"{"jsonrpc": "2.0", "result": -19, "id": 2}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#,
        r#"{"jsonrpc": "2.0", "result": 19, "id": 3}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}"#,
        r#"{"jsonrpc": "2.0", "result": 19, "id": 4}"#,
    ),
    (r#"{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}"#, ""),
    (r#"{"jsonrpc": "2.0", "method": "foobar"}"#, ""),
    (
        r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse Error"}, "id": null}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}"#,
    ),
    (
        r#"[
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse Error"}, "id": null}"#,
    ),
    ("[]", r#"{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}"#),
    ("[1]", r#"[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]"#),
    (
        "[1,2,3]",
        r#"[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]"#,
    ),
    (
        r#"[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]"#,
        r#"[{"jsonrpc": "2.0", "result": 7, "id": "1"},
            {"jsonrpc": "2.0", "result": 19, "id": "2"},
            {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]"#,
    ),
    (
        r#"[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]"#,
        "",
    ),
];

/// The specification has blanks after commas and colons, and line ends; answers have none.
fn without_blanks(text: &str) -> String {
    let lines: String = text.lines().map(str::trim).collect();
    lines.replace(", ", ",").replace(": ", ":")
}

#[test]
#[ignore = "needs libjansson-dev"]
fn the_examples_of_the_specification() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (text, answer) in SPECIFICATION {
        client.send(text);
        if !answer.is_empty() {
            assert_eq!(client.answer(), without_blanks(answer), "{text}");
        }
        client.expect_nothing_else();
    }
    eventually_eq(|| server.children().len(), &1, "a client has one process, whatever it calls");
}

#[test]
#[ignore = "needs libjansson-dev"]
fn split_and_coalesced_requests() {
    let server = Server::start(&[]);
    let mut client = server.client();
    // After malformed JSON only the end of a read marks the start of the next text: these examples are left out.
    let examples: Vec<_> = SPECIFICATION.iter().filter(|(_, answer)| !answer.contains("Parse Error")).collect();
    for (text, answer) in &examples {
        for byte in text.as_bytes() {
            client.send([*byte]);
        }
        if !answer.is_empty() {
            assert_eq!(client.answer(), without_blanks(answer), "{text}");
        }
    }
    let joined: Vec<&str> = examples.iter().map(|(text, _)| *text).collect();
    client.send(joined.concat() + &joined.join("\0") + "\0");
    for _ in 0..2 {
        for (_, answer) in examples.iter().filter(|(_, answer)| !answer.is_empty()) {
            assert_eq!(client.answer(), without_blanks(answer));
        }
    }
    client.expect_nothing_else();
}

#[test]
#[ignore = "needs libjansson-dev"]
fn requests_separated_by_lines_and_nuls() {
    for (protocol, border) in [("lines", "\n"), ("nul", "\0")] {
        let server = Server::start(&["--protocol", protocol]);
        let mut client = server.client();
        client.send(format!("{{\"a\"{border}[1{border}{border}17{border}"));
        client.send(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"sum\",\"params\":[2,3],\"id\":1}}{border}"));
        let parse_error = r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse Error"},"id":null}"#;
        let invalid = r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request"},"id":null}"#;
        for answer in [parse_error, parse_error, invalid, r#"{"jsonrpc":"2.0","result":5,"id":1}"#] {
            client.0.expect(format!("{answer}{border}"));
        }
    }
}

#[test]
#[ignore = "needs libjansson-dev"]
fn large_requests_and_answers() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let params = format!("[\"{}\",[{}1]]", "\u{fc}".repeat(2_000_000), "1,".repeat(20_000));
    let mut sender = client.0.stream().try_clone().unwrap();
    let text = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{params},\"id\":1}}");
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut sender, text.as_bytes()));
    let answer = client.answer();
    assert!(answer == format!("{{\"jsonrpc\":\"2.0\",\"result\":{params},\"id\":1}}"), "{} bytes", answer.len());
    sending.join().unwrap().unwrap();
    client.expect_nothing_else();
    // A client that does not read its answers blocks no other.
    let mut stuck = server.client();
    for _ in 0..10 {
        stuck.call("repeat", "[5000000]");
    }
    client.expect_nothing_else();
    for _ in 0..10 {
        assert_eq!(stuck.answer().len(), r#"{"jsonrpc":"2.0","result":"","id":1}"#.len() + 5_000_000);
    }
    client.expect_nothing_else();
}

#[test]
#[ignore = "needs libjansson-dev"]
fn requests_at_and_beyond_the_size_limit() {
    const SIZE_MAX: usize = 64 * 1024 * 1024;
    let server = Server::start(&["--memory-mib", "1024"]);
    for (size, answer) in [(SIZE_MAX, "Method not found"), (SIZE_MAX + 1, "more than 67108864 bytes")] {
        let mut client = server.client();
        let (begin, end) = ("{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"id\":1,\"params\":[\"", "\"]}");
        client.send(format!("{begin}{}{end}", "x".repeat(size - begin.len() - end.len())));
        let said = client.answer();
        assert!(said.contains(answer), "{said}");
    }
}

#[test]
#[ignore = "needs libjansson-dev"]
fn requests_that_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for depth in [129, 100_000] {
        client.send("[".repeat(depth) + &"]".repeat(depth));
        assert!(client.answer().contains("-32700"));
        client.expect_nothing_else();
    }
    client.send(format!("[1{}]", ",1".repeat(5_000)));
    let answer = client.answer();
    assert!(answer.contains("-32600") && answer.contains("more than 4096 requests"), "{answer}");
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"\\u0000\",\"id\":1}");
    client.expect_error(r#"{"code":-32601,"message":"Method not found"}"#);
    let mut careless = server.client();
    careless.send("{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}{\"jsonrpc\"");
    careless.0.stream().shutdown(std::net::Shutdown::Write).unwrap();
    careless.expect_result("[\"hello\",5]");
    assert!(careless.answer().contains("-32700"), "what is not whole never will be");
    careless.0.expect_end();
}

#[test]
#[ignore = "needs libjansson-dev"]
fn shutdown() {
    let folder = Folder::new();
    let (library, log) = (ouistiti(&folder), folder.join("log"));
    let server = Server::start_in(folder, &library, &["-C", &log]);
    let logged = || fs::read_to_string(&log).unwrap_or_default().replace('\n', " ").trim().to_owned();
    // Whether a client's process logs all of this until it ends, and not only the calls.
    let ends_with = |server: &Server, calls: &str, release: &str| {
        eventually("the calls are logged", || logged().contains(calls));
        eventually("its process has ended", || server.children().is_empty());
        let words = logged();
        fs::remove_file(&log).unwrap();
        assert!(words == calls || words == format!("{calls} {release}"), "{words}");
        words != calls
    };
    until_released(|| {
        let mut client = server.client();
        client.call("count", "");
        client.expect_result("1");
        drop(client);
        ends_with(&server, "init 0 count 1", "release 1")
    });
    // Notifications are executed although the client leaves.
    until_released(|| {
        let mut client = server.client();
        client.send(r#"[{"jsonrpc":"2.0","method":"count"},{"jsonrpc":"2.0","method":"count"}]"#);
        drop(client);
        ends_with(&server, "init 0 count 1 count 2", "release 2")
    });
    // A server that is stopped releases what it opened.
    until_released(|| {
        let mut server = Server::start_in(Folder::new(), &library, &["-C", &log]);
        let mut client = server.client();
        client.call("count", "");
        client.expect_result("1");
        let children = server.children();
        server.process.signal(Signal::SIGTERM);
        assert!(server.process.wait(DEADLINE).status.success());
        client.0.expect_end();
        assert!(!server.path().exists());
        expect_gone(&children);
        ends_with(&server, "init 0 count 1", "release 1")
    });
    // A call whose client has disconnected ends like others.
    until_released(|| {
        let mut server = Server::start_in(Folder::new(), &library, &["-C", &log]);
        let mut client = server.client();
        client.call("linger", "");
        eventually("it is in a call", || logged().contains("linger"));
        let children = server.children();
        server.process.signal(Signal::SIGTERM);
        assert!(server.process.wait(DEADLINE).status.success());
        expect_gone(&children);
        ends_with(&server, "init 0 linger 0", "release 0")
    });
}

/// Plays ouistiti's server for each client: one read is one request, whose last byte is dropped, and the answer has
/// several lines and a final NUL.
fn play_ouistiti(listener: UnixListener) {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 1500];
                while let Ok(size @ 1..) = client.read(&mut buffer) {
                    let request = String::from_utf8_lossy(&buffer[..size - 1]).into_owned();
                    let id: String = match request.trim_end().strip_suffix('}') {
                        Some(text) => {
                            text.split("\"id\":").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect()
                        }
                        None => "null".to_owned(),
                    };
                    let row = "    {\n      \"name\": \"ouistiti\",\n      \"type\": \"table\"\n    }";
                    let answer =
                        format!("{{\n  \"jsonrpc\": \"2.0\",\n  \"result\": [\n{row}\n  ],\n  \"id\": {id}\n}}\0");
                    if client.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
#[ignore = "needs chromium"]
fn the_pages_for_users_and_databases() {
    tool("node_modules/playwright-core");
    let www = project().join("www");
    let link =
        "links = ({ origin = \"^/ouistiti$\"; type = \"unix\"; destination = \"@/ouistiti\"; protocol = \"nul\"; });";
    let text = configuration("", link).replace("@/www", www.to_str().unwrap());
    let daemon = Daemon::start_configured(&text);
    play_ouistiti(UnixListener::bind(daemon.folder().path().join("ouistiti")).unwrap());
    let (_users, password) = authrpc::start(daemon.folder(), "auth", &[]);
    let _sql = jsonsql::start(daemon.folder(), "sql");
    let mut command = foreign::command("node");
    command.arg(project().join("tests/clients/rpc_pages.mjs")).arg(format!("http://127.0.0.1:{}", daemon.port));
    command.args([&daemon.folder().join("screenshots"), &password]).env("UAKARI_TOOLS", tools());
    let finished = run(&mut command, SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success() && out.contains("ok - ") && !out.contains("not ok"), "{out}\n{err}");
}
