//! Unchanged servers under libwebsocket.so: the library speaks WebSocket for them.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};

use crate::client::{BINARY, Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, program, project};
use crate::foreign;
use crate::handover::{give_and_keep, give_late, hand_over, sockaddr_in, tcp_pair};
use crate::process::{DEADLINE, Folder, Process, eventually, eventually_eq, run};
use crate::server::{self, Kind};
use crate::wire::{Wire, handshake};

/// Calls of libc, one by one.
mod calls;

/// Descriptors that are closed without close(3).
mod descriptors;

/// Clients with TLS in the kernel.
mod records;

/// Servers on foreign runtimes.
mod runtimes;

/// The environment in which accept(2) waits for a slow gateway.
pub const PATIENT: (&str, &str) = ("WEBSOCKET_WAIT_MS", "60000");

/// A server under the library; the test plays the gateway.
struct Server {
    process: Process,
    path: PathBuf,
    daemon: Daemon,
}

impl Server {
    /// Starts the command for the path to listen at.
    fn start(command: impl FnOnce(&Folder, &str) -> Command) -> Server {
        Server::start_alone(|folder, path| {
            let mut command = command(folder, path);
            command.env("LD_PRELOAD", program("libwebsocket.so"));
            command
        })
    }

    /// The same without the library.
    fn start_alone(command: impl FnOnce(&Folder, &str) -> Command) -> Server {
        let daemon = Daemon::start(&["--options", "direct"]);
        let path = daemon.socket("server");
        let mut command = command(daemon.folder(), path.to_str().unwrap());
        let process = Process::start(&mut command);
        eventually("the server listens", || server::connect(&path, Kind::Stream).is_ok());
        Server { process, path, daemon }
    }

    /// Compiles a server of `tests/preload` and starts it.
    fn compiled(name: &str, more: &[&str]) -> Server {
        Server::compiled_with(name, more, &[])
    }

    /// The same for a server that tells clients by their address from accept(2), so that it waits for a slow gateway.
    fn patient(name: &str, more: &[&str]) -> Server {
        Server::compiled_with(name, more, &[PATIENT])
    }

    fn compiled_with(name: &str, more: &[&str], environment: &[(&str, &str)]) -> Server {
        Server::start(|folder, path| compile(folder, path, name, &[], more, environment))
    }

    /// The same, linked against the library.
    fn linked(name: &str, more: &[&str], environment: &[(&str, &str)]) -> Server {
        let library = program("libwebsocket.so");
        let folder = format!("-Wl,-rpath,{}", library.parent().unwrap().display());
        let libraries = ["-Wl,--no-as-needed", library.to_str().unwrap(), &folder];
        Server::start_alone(|folder, path| compile(folder, path, name, &libraries, more, environment))
    }

    fn client(&self) -> Client {
        self.daemon.connect("/server")
    }

    /// All that an echo server must do.
    fn expect_echo(&self) {
        let mut client = self.client();
        client.text("Hello");
        expect_data(&mut client, b"Hello");
        client.send(&[Frame::new(TEXT, b"one "), Frame::new(BINARY, b"two")]);
        expect_data(&mut client, b"one two");
        split_frame(&mut client);
        client.send(&[Frame::part(TEXT, b"be"), Frame::new(PING, b"?"), Frame::new(0, b"hind")]);
        assert_eq!(expect_data(&mut client, b"behind"), [Frame::new(PONG, b"?")]);
        client.send(&[Frame::new(TEXT, b"")]);
        client.send(&[Frame::new(PING, b"!")]);
        client.text("not the end");
        assert_eq!(expect_data(&mut client, b"not the end"), [Frame::new(PONG, b"!")]);
        let long: Vec<u8> = (0..100 * 1024u32).map(|number| (number % 251) as u8).collect();
        client.binary(&long);
        expect_data(&mut client, &long);
        client.finish(1000);
        self.expect_protocol_error();
        self.expect_plain_echo();
    }

    /// A client that breaks the protocol gets the close code and the end.
    fn expect_protocol_error(&self) {
        let mut client = self.client();
        client.send(&[Frame::new(TEXT, b"\xff")]);
        client.expect_close(1007);
        client.wire.expect_end();
        let mut client = self.client();
        client.wire.send(Frame::new(TEXT, b"no mask").bytes());
        client.expect_close(1002);
        client.wire.expect_end();
    }

    /// Plain clients are served as without the library.
    fn expect_plain_echo(&self) {
        let mut plain = server::connect(&self.path, Kind::Stream).unwrap();
        for _ in 0..2 {
            plain.write_all(b"\x81\x02plain").unwrap();
            let mut came = [0; 7];
            plain.read_exact(&mut came).unwrap();
            assert_eq!(&came, b"\x81\x02plain");
        }
        drop(plain);
        let mut silent = server::connect(&self.path, Kind::Stream).unwrap();
        silent.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }
}

/// Compiles a server of `tests/preload`: the command that starts it.
pub fn compile(
    folder: &Folder,
    path: &str,
    name: &str,
    libraries: &[&str],
    more: &[&str],
    environment: &[(&str, &str)],
) -> Command {
    let program = folder.join(name);
    let source = project().join(format!("tests/preload/{name}.c"));
    let mut compiler = Command::new("cc");
    // With 32-bit pointers these calls have other names.
    compiler.args(["-D_FILE_OFFSET_BITS=64", "-D_TIME_BITS=64", "-O2", "-D_FORTIFY_SOURCE=2", "-Wall", "-pthread"]);
    let finished = run(compiler.args(["-o", &program]).arg(source).args(libraries), DEADLINE);
    assert!(finished.status.success(), "{}", finished.err);
    let mut command = Command::new(program);
    command.arg(path).args(more).envs(environment.iter().copied());
    command
}

/// Reads until these bytes have come. Returns the control frames in between.
fn expect_data(client: &mut Client, wanted: &[u8]) -> Vec<Frame> {
    let (mut came, mut control) = (Vec::new(), Vec::new());
    while came.len() < wanted.len() {
        let frame = client.frame();
        match frame.opcode {
            BINARY | TEXT => came.extend(frame.payload),
            _ => control.push(frame),
        }
    }
    assert!(came == wanted, "{} other bytes than the {} that were due", came.len(), wanted.len());
    control
}

/// A frame in three pieces: the server sees nothing before there is payload.
fn split_frame(client: &mut Client) {
    let bytes = Frame::new(TEXT, b"in pieces").masked().bytes();
    for piece in [&bytes[..1], &bytes[1..8], &bytes[8..]] {
        client.wire.send(piece);
    }
    expect_data(client, b"in pieces");
}

#[test]
fn select_and_blocking_sockets() {
    Server::compiled("select", &[]).expect_echo();
}

#[test]
fn epoll_and_nonblocking_sockets() {
    let server = Server::patient("epoll", &[]);
    server.expect_echo();
    server.process.out.wait_for(&["family 2 size 16 127.0.0.1"]);
}

#[test]
fn a_thread_for_each_client() {
    Server::compiled("threads", &[]).expect_echo();
}

#[test]
fn a_process_for_each_client() {
    Server::compiled("forks", &[]).expect_echo();
}

#[test]
fn the_sample_server() {
    Server::start(|folder, _| {
        let mut command = Command::new(program("websocket_echo"));
        command.arg("-R").arg(folder.join("run")).args(["-n", "server"]);
        command
    })
    .expect_echo();
}

#[test]
#[ignore = "needs python3"]
fn pythons_socket_module() {
    let server = Server::start(|_, path| {
        let mut command = foreign::command("python3");
        command.arg(project().join("tests/preload/server.py")).arg(path).envs([PATIENT]);
        command
    });
    server.expect_echo();
    server.process.out.wait_for(&["accept '' getpeername ('127.0.0.1', "]);
}

#[test]
#[ignore = "needs socat"]
fn socat() {
    Server::start(|_, path| {
        let mut command = foreign::command("socat");
        command.args([&format!("UNIX-LISTEN:{path},fork"), "EXEC:cat"]);
        command
    })
    .expect_echo();
}

#[test]
#[ignore = "needs ncat"]
fn ncat() {
    Server::start(|_, path| {
        let mut command = foreign::command("ncat");
        command.args(["-lkU", path, "--exec", "/bin/cat"]);
        command
    })
    .expect_echo();
}

/// The messages of a server that sends "text", then a byte that is not UTF-8.
#[test]
fn opcodes_of_messages() {
    let text = |opcode| Frame::new(opcode, b"text");
    let other = |opcode| Frame::new(opcode, b"\xff");
    let refused = Frame::close(1011, "");
    for (is_linked, more, setting, frames) in [
        (false, "types", None, [text(TEXT), other(BINARY)]),
        (false, "types", Some("binary"), [text(BINARY), other(BINARY)]),
        (false, "types", Some("text"), [text(TEXT), refused.clone()]),
        (false, "types", Some("elsewhere=binary,server=text"), [text(TEXT), refused]),
        (false, "types", Some("*/run/server=binary,text"), [text(BINARY), other(BINARY)]),
        (false, "types", Some("server=txt"), [text(TEXT), other(BINARY)]),
        (false, "types 153", None, [text(TEXT), other(TEXT)]),
        (false, "types 153", Some("binary"), [text(BINARY), other(BINARY)]),
        (true, "types", None, [text(BINARY), other(BINARY)]),
        (true, "types", Some("auto"), [text(TEXT), other(BINARY)]),
        (true, "types 153", None, [text(TEXT), other(TEXT)]),
    ] {
        let what = format!("linked: {is_linked}, {more}, {setting:?}");
        let more: Vec<&str> = more.split(' ').collect();
        let types = setting.iter().map(|value| ("WEBSOCKET_TYPE", *value));
        let environment: Vec<(&str, &str)> = types.chain([PATIENT]).collect();
        let start = if is_linked { Server::linked } else { Server::compiled_with };
        let server = start("calls", &more, &environment);
        for _ in 0..2 {
            let mut client = server.client();
            for frame in &frames {
                assert_eq!(client.frame(), *frame, "{what}");
            }
        }
        let expected = if setting == Some("server=txt") {
            "libwebsocket: WEBSOCKET_TYPE: \"txt\" is not auto, text or binary: \"server=txt\" is left out"
        } else {
            ""
        };
        // Reported once.
        eventually_eq(|| server.process.err.text().trim().to_owned(), &expected.to_owned(), what);
    }
}

/// Half a character waits for the rest, with a limit, and precedes the close frame.
#[test]
fn a_character_split_between_writes() {
    let server = Server::patient("calls", &["cut"]);
    let mut client = server.client();
    let mut said = Vec::new();
    // The server waits for its client.
    const SAID: &[u8] = b"\xe2\x82\xac gr\xc3";
    while said.len() < SAID.len() {
        let (opcode, payload) = client.message();
        assert!(opcode == BINARY || std::str::from_utf8(&payload).is_ok(), "{payload:x?} is no text");
        said.extend(payload);
    }
    assert_eq!(said, SAID);
    client.text("go on");
    client.expect_text("end ");
    client.expect_binary(b"\xc3");
    client.expect_close(1000);
    client.wire.expect_end();
}

#[test]
fn a_late_hand_over() {
    for name in ["select", "epoll", "threads", "forks"] {
        let server = Server::compiled_with(name, &[], &[("WEBSOCKET_WAIT_MS", "0")]);
        let mut client = give_late(&server.path, || {
            // The server waits for the first byte while another client is served.
            server.expect_plain_echo();
        });
        client.text("late");
        expect_data(&mut client, b"late");
        client.finish(1000);
    }
}

/// A server that sends first reaches a plain client at once, and a late client too.
#[test]
fn writes_before_the_hand_over_are_not_lost() {
    let server = Server::compiled_with("threads", &["speaks"], &[("WEBSOCKET_WAIT_MS", "0")]);
    const GREETING: &[u8] = b"hello, who is it?";
    let mut plain = server::connect(&server.path, Kind::Stream).unwrap();
    let mut said = [0; GREETING.len()];
    plain.read_exact(&mut said).unwrap();
    assert_eq!(said, GREETING);
    let (near, far) = tcp_pair();
    let connection = server::connect(&server.path, Kind::Stream).unwrap();
    eventually("the server has spoken", || {
        recv(connection.as_raw_fd(), &mut said, MsgFlags::MSG_PEEK) == Ok(GREETING.len())
    });
    hand_over(&connection, &sockaddr_in(near.local_addr().unwrap()), far.as_raw_fd());
    // As the gateway closes its copy: with nothing read.
    drop((connection, far));
    let mut client = Client::new(Wire::new(near));
    client.expect_text("hello, ");
    client.expect_text("who is it?");
    client.text("late");
    expect_data(&mut client, b"late");
    client.finish(1000);
    plain.write_all(b"it is me").unwrap();
    plain.read_exact(&mut said[..8]).unwrap();
    assert_eq!(&said[..8], b"it is me");
}

#[test]
#[ignore = "needs python3"]
fn socket_options_apply_to_the_handed_over_client() {
    let server = Server::start(|_, path| {
        let mut command = foreign::command("python3");
        command.arg(project().join("tests/preload/early.py")).arg(path).env("WEBSOCKET_WAIT_MS", "0");
        command
    });
    let mut client = give_late(&server.path, || {
        server.process.out.wait_for(&["spoken"]);
    });
    client.expect_text("bye");
    client.expect_close(1000);
    client.text("late");
    server.process.out.wait_for(&["heard late"]);
    server.process.out.wait_for(&["waited long enough"]);
}

#[test]
fn a_burst_of_clients_that_are_written_to_first() {
    for wait_ms in ["0", "100"] {
        let server = Server::compiled_with("threads", &["speaks"], &[("WEBSOCKET_WAIT_MS", wait_ms)]);
        let mut wires: Vec<Wire> = (0..256).map(|_| server.daemon.wire()).collect();
        for wire in &mut wires {
            wire.send(handshake("/server", &[], &[]));
        }
        for mut wire in wires {
            assert_eq!(wire.response_head().status, 101);
            let mut client = Client::new(wire);
            client.expect_text("hello, ");
            client.expect_text("who is it?");
            client.text("me");
            expect_data(&mut client, b"me");
        }
    }
}

#[test]
fn a_closed_client_leaves_epoll_while_the_gateway_has_a_copy() {
    let server = Server::patient("epoll", &[]);
    // It listens before it uses epoll, and may still have its first client.
    eventually("the listener alone is watched", || server.process.watched_files() == 1);
    let (mut client, _copy) = give_and_keep(&server.path);
    client.text("one");
    expect_data(&mut client, b"one");
    assert_eq!(server.process.watched_files(), 2);
    client.close(1000);
    client.expect_close(1000);
    drop(client);
    eventually("nothing is watched that was closed", || server.process.watched_files() == 1);
}

/// If the gateway hands nothing over, accept(2) returns after a short time.
#[test]
fn a_missing_hand_over_delays_others_briefly() {
    let server = Server::compiled("select", &[]);
    let mut client = crate::handover::give(&server.path);
    client.text("known");
    expect_data(&mut client, b"known");
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let _silent = server::connect(&server.path, Kind::Stream).unwrap();
        client.text("meanwhile");
        expect_data(&mut client, b"meanwhile");
        times.push(start.elapsed());
        if start.elapsed() < Duration::from_secs(4) {
            return;
        }
    }
    panic!("others wait each time: {times:?}");
}

#[test]
fn a_partial_frame_header_does_not_delay_others() {
    for name in ["select", "forks", "threads", "epoll"] {
        let server = Server::compiled(name, &[]);
        let mut slow = server.client();
        let bytes = Frame::new(TEXT, b"at last").masked().bytes();
        slow.send(&[Frame::new(PING, b"")]);
        slow.wire.send(&bytes[..1]);
        slow.expect_pong(b"");
        let mut other = server.client();
        other.text("meanwhile");
        expect_data(&mut other, b"meanwhile");
        slow.wire.send(&bytes[1..]);
        expect_data(&mut slow, b"at last");
    }
}

#[test]
fn other_sockets_are_unaffected() {
    let server = Server::compiled_with("select", &[], &[("WEBSOCKET_SOCKETS", "/somewhere/else:/run/*")]);
    server.expect_plain_echo();
    let mut client = server.client();
    assert_eq!(client.wire.take_rest(), b"", "the server got an address and no client");
}
