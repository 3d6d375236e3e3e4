//! The inputs of the fuzz targets as the bytes of real clients: every connection ends, and nothing is left of it.

/// Of the fuzz targets, which are a workspace of their own.
#[path = "fuzz/src/choices.rs"]
#[expect(dead_code, reason = "the fuzz targets make more choices")]
mod choices;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use choices::{Choices, cut};

use crate::client::Frame;
use crate::daemon::{Daemon, project};
use crate::process::{Process, eventually};

/// Connections at a time.
const LANES: usize = 8;
const PROTOCOLS: [&str; 5] = ["stream", "packet", "lines", "nul", "frames"];
/// Bytes of one client, which keeps the test short.
const SENT_SIZE_MAX: usize = 400_000;

/// The bytes of one client.
struct Input {
    name: String,
    /// Each is sent in one write.
    pieces: Vec<Vec<u8>>,
}

/// The inputs of a target, in the order of their names.
fn inputs_of(target: &str, pieces: fn(&[u8]) -> Vec<Vec<u8>>) -> Vec<Input> {
    let files = fs::read_dir(project().join("tests/fuzz/corpus").join(target)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let input = |path| Input { name: format!("{path:?}"), pieces: pieces(&fs::read(path).unwrap()) };
    paths.iter().map(input).collect()
}

/// Of the targets `head` and `frames`: a byte that chooses a check, the sizes of the pieces, and the received bytes.
fn received(input: &[u8]) -> Vec<Vec<u8>> {
    let mut choices = Choices::new(input);
    choices.byte();
    let sizes = choices.counted();
    cut(choices.rest(), sizes).into_iter().map(<[u8]>::to_vec).collect()
}

/// Of the target `gateway`: what the client of its script sends, without the backend's part and the passing of time.
fn scripted(input: &[u8]) -> Vec<Vec<u8>> {
    let mut choices = Choices::new(input);
    // The configuration, and the handshake.
    let way = choices.bytes(4).get(3).copied().unwrap_or_default();
    let mut pieces = if way & 0x20 != 0 { vec![choices.counted().to_vec()] } else { Vec::new() };
    while !choices.is_empty() {
        match choices.byte() & 0x1f {
            0 | 1 => {
                let first = choices.first_byte();
                choices.byte();
                pieces.push(frame(first, &choices.payload()));
            }
            2 | 3 => pieces.push(choices.counted().to_vec()),
            4 | 5 => drop(choices.payload()),
            6 => {
                choices.first_byte();
                choices.payload();
            }
            7 | 14 | 15 | 18 => drop(choices.bytes(1)),
            _ => {}
        }
    }
    pieces
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 0xf);
    Frame { fin, rsv, opcode, is_masked: true, payload: payload.to_vec() }.bytes()
}

fn configuration() -> String {
    let link = |name: &str, keys: &str| {
        format!("{{ origin = \"^/{name}$\"; type = \"unix\"; destination = \"@/run/{name}\"; {keys} }}")
    };
    let mut links: Vec<String> =
        PROTOCOLS.iter().map(|protocol| link(protocol, &format!("protocol = \"{protocol}\";"))).collect();
    links.push(link("direct", "options = \"direct\";"));
    // One client is silent all the time.
    crate::daemon::configuration("ping-ms = 0;", &format!("links = ({});", links.join(", ")))
}

/// Sends one client's bytes, after a handshake if there is a path, and its end. All that it receives until the
/// connection ends.
fn converse(daemon: &Daemon, path: Option<&str>, input: &Input) -> Vec<u8> {
    let mut wire = daemon.wire();
    if let Some(path) = path {
        assert_eq!(wire.upgrade(path, &[]).status, 101, "{path}");
    }
    let stream: &TcpStream = wire.stream();
    let mut received = Vec::new();
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let mut left = SENT_SIZE_MAX;
            // The connection may end at any byte.
            let _ = input.pieces.iter().try_for_each(|piece| {
                let size = piece.len().min(left);
                left -= size;
                (&mut &*stream).write_all(&piece[..size])
            });
            let _ = stream.shutdown(Shutdown::Write);
        });
        (&mut &*stream).read_to_end(&mut received)
    });
    match result {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("{} after {path:?}: no end: {error}", input.name)
        }
        _ => received,
    }
}

/// Every input reaches a daemon as the first bytes of a connection, and as bytes after a handshake with a backend of
/// each kind.
#[test]
fn every_input_ends_its_connection() {
    let inputs = [("head", received as fn(&[u8]) -> _), ("frames", received), ("gateway", scripted)];
    let inputs: Vec<Input> = inputs.into_iter().flat_map(|(target, pieces)| inputs_of(target, pieces)).collect();
    assert!(inputs.len() > 500, "{} inputs", inputs.len());
    let daemon = Daemon::start_configured(&configuration());
    let many = ["-m", "100"];
    let echo = |protocol: &&str| daemon.echo(protocol, &[&many[..], &["--protocol", protocol]].concat());
    let _echoes: Vec<Process> = PROTOCOLS.iter().map(echo).collect();
    let _direct = daemon.echo("direct", &[&many[..], &["--direct"]].concat());
    let ways = PROTOCOLS.iter().chain(&["direct"]).map(|name| Some(format!("/{name}")));
    let ways: Vec<Option<String>> = ways.chain([None]).collect();
    let mut untouched = daemon.connect("/stream");
    let files = daemon.open_files();
    thread::scope(|scope| {
        for lane in 0..LANES {
            let (daemon, inputs, ways) = (&daemon, &inputs, &ways);
            scope.spawn(move || {
                for input in inputs.iter().skip(lane).step_by(LANES) {
                    for path in ways {
                        let received = converse(daemon, path.as_deref(), input);
                        let is_reply = received.starts_with(b"HTTP/1.1 ") || received.is_empty();
                        assert!(path.is_some() || is_reply, "{}: {}", input.name, received.escape_ascii());
                    }
                }
            });
        }
    });
    eventually("no file is left open", || daemon.open_files() <= files);
    untouched.text("hello");
    untouched.expect_text("hello");
    for path in ways.iter().flatten() {
        let mut client = daemon.connect(path);
        client.text("hello");
        assert!(client.message().1.starts_with(b"hello"), "{path}");
    }
}
