//! Servers in C on the functions of `websocket.h`, with clients that were handed over.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::client::{BINARY, Client, Frame, PING, PONG, TEXT};
use crate::daemon::{program, project, shown};
use crate::handover::{give, hand_over, sockaddr_in, tcp_pair};
use crate::process::{DEADLINE, Folder, Process, eventually, run};
use crate::server::{Kind, connect, listens};
use crate::wire::Wire;

/// A program of `tests/direct_api`, compiled against the header and the library.
pub fn compile(folder: &Folder, name: &str, language: &str) -> PathBuf {
    compile_source(folder, &project().join(format!("tests/direct_api/{name}.c")), language)
}

fn compile_source(folder: &Folder, source: &Path, language: &str) -> PathBuf {
    let path = folder.path().join(source.file_stem().unwrap());
    let library = program("libwebsocket.so");
    let mut command = Command::new("cc");
    command.args(["-x", language, "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-O1", "-g"]);
    command.arg("-I").arg(project().join("utils/libwebsocket/include")).arg(source).args(["-x", "none"]);
    command.arg(&library).arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display())).arg("-o").arg(&path);
    let finished = run(&mut command, DEADLINE);
    assert!(finished.status.success(), "{}", finished.err);
    path
}

/// The echo server in C, and the folder that its socket is in.
pub struct Server {
    pub process: Process,
    folder: Folder,
}

impl Server {
    /// Starts it.
    pub fn start(options: &[&str]) -> Server {
        Server::start_with(options, &[])
    }

    fn start_with(options: &[&str], environment: &[(&str, &str)]) -> Server {
        Server::start_program("echo", options, environment)
    }

    /// Starts another program.
    pub fn start_program(name: &str, options: &[&str], environment: &[(&str, &str)]) -> Server {
        let folder = Folder::new();
        let program = compile(&folder, name, "c");
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        let process = Process::start(command.arg(folder.join("socket")).args(options));
        let server = Server { process, folder };
        eventually("the server listens", || listens(&server.path()));
        server
    }

    /// Where it listens.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Waits for a line with these parts.
    pub fn says(&self, parts: &[&str]) {
        self.process.out.wait_for(parts);
    }
}

fn expect_echoes(client: &mut Client) {
    let large: String = "Gr\u{fc}\u{df}e ".repeat(100_000);
    for text in ["", "hello", &"x".repeat(126), &"y".repeat(65_536), &large] {
        client.text(text);
        client.expect_text(text);
    }
    client.binary(b"\xff\x00");
    client.expect_binary(b"\xff\x00");
    client.send(&[Frame::part(TEXT, b"in "), Frame::new(PING, b"?"), Frame::new(0, b"parts")]);
    client.expect_pong(b"?");
    client.expect_text("in parts");
}

#[test]
fn whole_messages_come_back() {
    // With the default limit, and with time for a client that is suspended.
    let server = Server::start(&["1048576", "60000"]);
    let mut clients = [give(&server.path()), give(&server.path())];
    for client in &mut clients {
        expect_echoes(client);
    }
    let [mut first, mut second] = clients;
    first.text("ping");
    assert_eq!(first.frame(), Frame::new(PING, b"?"));
    first.send(&[Frame::new(PONG, b"?")]);
    expect_echoes(&mut first);
    first.finish(4321);
    server.says(&["4321"]);
    server.says(&["end: -5001", "closed"]);
    second.text("quit");
    assert_eq!(second.expect_close(4000), "as you wish");
    second.close(4000);
    second.wire.expect_end();
    server.says(&["4000"]);
    assert!(!server.process.out.text().contains("waited: 0"));
}

#[test]
fn functions_of_libc_are_never_replaced() {
    let server = Server::start_with(&[], &[("WEBSOCKET_SOCKETS", "*")]);
    let mut client = give(&server.path());
    expect_echoes(&mut client);
    client.finish(1000);
    server.says(&["end: -5001"]);
}

#[test]
fn many_small_messages_come_back_in_order() {
    let server = Server::start(&[]);
    let mut client = give(&server.path());
    for round in 0..20 {
        let texts: Vec<String> = (0..300).map(|number| format!("{round} {number}")).collect();
        let frames: Vec<Frame> = texts.iter().map(|text| Frame::new(TEXT, text.as_bytes())).collect();
        client.send(&frames);
        for text in &texts {
            client.expect_text(text);
        }
    }
    client.finish(1000);
}

#[test]
fn the_clients_address() {
    let server = Server::start(&[]);
    let record = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x06\x05\0\x03c12";
    let (near, far) = tcp_pair();
    let message = [sockaddr_in(near.local_addr().unwrap()), record.to_vec()].concat();
    hand_over(&connect(&server.path(), Kind::Stream).unwrap(), &message, far.as_raw_fd());
    server.says(&["client 127.0.0.1, address of 16", "hello of 22", "c12"]);
    expect_echoes(&mut Client::new(Wire::new(near)));
    let unix = (nix::libc::AF_UNIX as u16).to_ne_bytes();
    let (_client, far) = tcp_pair();
    hand_over(&connect(&server.path(), Kind::Stream).unwrap(), &unix, far.as_raw_fd());
    server.says(&["client unix, address of 2", "hello of 0"]);
}

#[test]
fn clients_that_violate_the_protocol() {
    let server = Server::start(&["1000"]);
    for (frame, code, reason) in [
        (Frame::new(BINARY, &[0; 1001]), 1009, "1000 at most"),
        (Frame::new(TEXT, b"\xff"), 1007, "UTF-8"),
        (Frame { rsv: 4, ..Frame::new(TEXT, b"") }, 1002, "reserved bit"),
    ] {
        let mut client = give(&server.path());
        client.send(&[frame, Frame::new(TEXT, b"never heard")]);
        let said = client.expect_close(code);
        assert!(said.contains(reason), "{said}");
        client.wire.expect_end();
    }
    server.says(&["end: -5002", "broke the protocol"]);
    let client = give(&server.path());
    drop(client);
    server.says(&["end: -5003", "ended"]);
}

#[test]
fn plain_clients_are_refused() {
    let server = Server::start(&[]);
    // A client that is suspended for 5 s before it writes is refused because of that: it finds the end of the stream.
    eventually("one is closed with bytes unread", || {
        let mut plain = connect(&server.path(), Kind::Stream).unwrap();
        let is_sent = plain.write_all(b"hello").is_ok();
        is_sent && plain.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    });
    server.says(&["accept: -5004", "plain local client"]);
    let (_client, far) = tcp_pair();
    hand_over(&connect(&server.path(), Kind::Stream).unwrap(), b"?", far.as_raw_fd());
    server.says(&["accept: -5005", "not a client"]);
    expect_echoes(&mut give(&server.path()));
}

#[test]
fn a_client_that_does_not_read_does_not_delay_others() {
    let server = Server::start(&[]);
    let mut stuck = give(&server.path());
    let (count, mut writer) = (500, stuck.wire.stream().try_clone().unwrap());
    let message = Frame::new(BINARY, &[7; 60_000]).masked().bytes();
    let writing = std::thread::spawn(move || (0..count).try_for_each(|_| writer.write_all(&message)));
    let mut other = give(&server.path());
    for _ in 0..10 {
        expect_echoes(&mut other);
    }
    // What waits for it waits in the kernel and, within bounds, in the server.
    let size_kib = server.process.peak_kib();
    assert!(size_kib < 10_000, "{size_kib} KiB");
    for _ in 0..count {
        assert!(stuck.message() == (BINARY, vec![7; 60_000]));
    }
    writing.join().unwrap().unwrap();
    stuck.finish(1000);
}

#[test]
fn null_arguments() {
    let folder = Folder::new();
    for language in ["c", "c++"] {
        let finished = run(&mut Command::new(compile(&folder, "nulls", language)), DEADLINE);
        assert!(finished.status.success(), "{language}: {finished:?}");
    }
}

#[test]
fn shutdown() {
    let mut server = Server::start(&[]);
    let mut client = give(&server.path());
    expect_echoes(&mut client);
    let second = run(Command::new(server.folder.path().join("echo")).arg(server.path()), DEADLINE);
    assert!(second.out.contains("Address already in use"), "{second:?}");
    server.process.signal(Signal::SIGTERM);
    client.expect_close_handshake(1001);
    assert!(server.process.wait(DEADLINE).status.success());
    assert!(!Path::new(&server.path()).exists());
}

#[test]
fn the_documented_server_in_c() {
    let folder = Folder::new();
    let (path, source) = (folder.path().join("direct"), folder.path().join("shown.c"));
    let text = shown("c", "ws_listen");
    let page = std::fs::read_to_string(project().join("docs/man/websocket.3")).unwrap();
    let without_spaces = |text: &str| text.replace("\\e", "\\").replace([' ', '\n'], "");
    let in_page = page.split(".Bd -literal").nth(1).unwrap().split(".Ed").next().unwrap();
    let named = without_spaces(&text.replace("/tmp/websocket/direct", "/run/websocket/echo"));
    assert_eq!(without_spaces(in_page), named, "the pages show the same server");
    std::fs::write(&source, text.replace("/tmp/websocket/direct", path.to_str().unwrap())).unwrap();
    let server = Process::start(&mut Command::new(compile_source(&folder, &source, "c")));
    eventually("the server listens", || connect(&path, Kind::Stream).is_ok());
    server.err.wait_for(&["a plain local client was refused"]);
    for text in ["hello", "again"] {
        let mut client = give(&path);
        client.text(text);
        client.expect_text(text);
        client.finish(1000);
    }
}

#[test]
fn the_documented_server_in_rust() {
    let text = std::fs::read_to_string(project().join("utils/websocket/src/lib.rs")).unwrap();
    let lines = text.lines().skip_while(|line| *line != "//! ```no_run").skip(1).take_while(|line| *line != "//! ```");
    let tested: String =
        lines.map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start_matches(' '))).collect();
    let unindented: String =
        shown("rust", "Listener::bind").lines().map(|line| format!("{}\n", line.trim_start())).collect();
    assert_eq!(unindented, tested, "what is shown is what doc tests compile");
}

/// The functions that the header declares.
pub fn declared() -> Vec<String> {
    let header = std::fs::read_to_string(project().join("utils/libwebsocket/include/websocket.h")).unwrap();
    let lines = header.lines().filter(|line| line.ends_with(");") && !line.starts_with(' '));
    lines.filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next()).map(str::to_owned).collect()
}

#[test]
fn the_manual_names_every_function() {
    let page = std::fs::read_to_string(project().join("docs/man/websocket.3")).unwrap();
    let declared = declared();
    assert!(declared.len() > 20, "{declared:?}");
    for name in declared {
        for wanted in [format!(".Nm {name}"), format!(".Fn {name} \"")] {
            assert!(page.contains(&wanted), "websocket.3 lacks {wanted}");
        }
        let alias = std::fs::read_to_string(project().join(format!("docs/man/{name}.3"))).unwrap_or_default();
        assert_eq!(alias, ".so man3/websocket.3\n", "{name}.3");
    }
}
