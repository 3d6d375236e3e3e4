//! The hello record: the client's address and request, for backends of each kind, read by the parsers of utils/hello
//! and foreign ones.

#[path = "../utils/hello/hello.rs"]
pub mod parser;

/// Malformed records.
mod parsers;

/// Parsers that are not ours: haproxy and a Python package.
mod strangers;

/// The examples of docs/backends.md.
mod documentation;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;

use uakari::route::hello;
use uakari::tls::{ClientFacts, TlsFacts};

use crate::client::{Client, Frame, TEXT};
use crate::daemon::{Daemon, project};
use crate::foreign;
use crate::links::configured;
use crate::process::{DEADLINE, Folder, run};
use crate::server::{Backend, Kind, Listener};
use crate::wire::{Wire, handshake};
use parser::{Hello, parse_hello, read_hello};

/// A parser as a backend for one client: it sends the record's fields, then echoes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Parser {
    Python,
    C,
    Rust,
}

const PARSERS: [Parser; 3] = [Parser::Python, Parser::C, Parser::Rust];

/// A backend process, killed on drop.
struct Serving(Option<Child>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Parser {
    /// Serves the client of this connection.
    fn serve(self, folder: &Folder, connection: impl Into<OwnedFd>, kind: Kind) -> Serving {
        let connection = connection.into();
        let (program, arguments) = match self {
            Parser::Python => {
                foreign::need("python3");
                ("python3".to_owned(), vec![project().join("utils/hello/hello.py")])
            }
            Parser::C => (compile(folder, "utils/hello/hello.h", &["-DHELLO_MAIN"]), Vec::new()),
            Parser::Rust => {
                // A File serves sockets of each family.
                let stream = std::fs::File::from(connection);
                thread::spawn(move || serve(stream, kind));
                return Serving(None);
            }
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(connection.try_clone().unwrap())).stdout(Stdio::from(connection));
        Serving(Some(command.spawn().unwrap()))
    }
}

fn serve(mut stream: std::fs::File, kind: Kind) {
    let mut buffer = vec![0; 1 << 17];
    let who = match kind {
        Kind::Stream => read_hello(&mut stream).unwrap(),
        Kind::Packets => {
            let size = stream.read(&mut buffer).unwrap();
            parse_hello(&buffer[..size]).unwrap()
        }
    };
    stream.write_all(line(&who).as_bytes()).unwrap();
    while let Ok(size @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..size]).unwrap();
    }
}

/// Compiles a C file of the project; warnings are errors.
fn compile(folder: &Folder, source: &str, flags: &[&str]) -> String {
    let (program, source) = (folder.join("program"), project().join(source));
    if std::path::Path::new(&program).exists() {
        return program;
    }
    let mut command = Command::new("cc");
    command.args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Wshadow",
        "-Wconversion",
        "-Werror",
        "-O1",
        "-x",
        "c",
    ]);
    let finished = run(command.args(flags).arg(source).args(["-o", &program]), DEADLINE);
    assert!(finished.status.success(), "{}", finished.err);
    program
}

/// All fields in a line, as the parsers' backends print it.
fn line(who: &Hello) -> String {
    let address = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let mut line = format!("client={} local={}", address(who.client), address(who.local));
    for (name, value) in [
        ("host", &who.host),
        ("id", &who.id),
        ("path", &who.path),
        ("query", &who.query),
        ("origin", &who.origin),
        ("subprotocol", &who.subprotocol),
    ] {
        line += &format!(" {name}={}", plain(value.as_bytes()));
    }
    for (name, value) in [
        ("user", &who.user),
        ("groups", &who.groups),
        ("tls_version", &who.tls_version),
        ("tls_cipher", &who.tls_cipher),
        ("sni", &who.sni),
        ("alpn", &who.alpn),
        ("common_name", &who.common_name),
        ("subject", &who.subject),
        ("serial", &who.serial),
        ("fingerprint", &who.fingerprint),
    ] {
        if !value.is_empty() {
            line += &format!(" {name}={}", plain(value.as_bytes()));
        }
    }
    if who.is_verified {
        line += " is_verified";
    }
    for (kind, value) in &who.others {
        line += &format!(" {kind:#04x}={}", plain(value));
    }
    line + "\n"
}

/// The gateway's values for a client with TLS and this certificate.
fn protected(client: Option<ClientFacts>) -> hello::Hello {
    let tls = TlsFacts {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        sni: "gate.example".into(),
        alpn: "http/1.1".into(),
        client,
        ..TlsFacts::default()
    };
    hello::Hello { path: "/who".into(), host: "gate.example".into(), tls: Some(Box::new(tls)), ..Default::default() }
}

fn certificate() -> ClientFacts {
    ClientFacts {
        subject: "CN=J\u{fc}rgen\\, admin,O=Ex".into(),
        common_name: "J\u{fc}rgen, admin".into(),
        serial: "01ff".into(),
        fingerprint: "ab".repeat(32).into(),
    }
}

fn plain(value: &[u8]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    value
        .iter()
        .map(|byte| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

/// The two addresses of a client, as a record has them.
fn addresses(client: &TcpStream) -> String {
    format!("client={} local={}", client.local_addr().unwrap(), client.peer_addr().unwrap())
}

#[test]
#[ignore = "needs python3"]
fn each_parser_reads_every_field() {
    for parser in PARSERS {
        let daemon = Daemon::start(&["--hello", "--protocol", "lines", "--origins", "https://page.example"]);
        let server = daemon.listen("whoe");
        let fields = ["Origin: https://page.example", "Sec-WebSocket-Protocol: chat.v2, chat"];
        let mut bytes = handshake("/who%65?x=1&y=%20", &[], &fields).into_bytes();
        // A frame sent with the handshake follows the record.
        bytes.extend(Frame::new(TEXT, b"at once").masked().bytes());
        let mut wire = daemon.wire();
        wire.send(bytes);
        let _serving = parser.serve(daemon.folder(), server.accept().stream().try_clone().unwrap(), Kind::Stream);
        let response = wire.response();
        assert_eq!((response.status, response.field("Sec-WebSocket-Protocol")), (101, "chat.v2"));
        let mut client = Client::new(wire);
        let known = addresses(client.wire.stream());
        client.expect_text(&format!(
            "{known} host=gate.example id=c1 path=/whoe query=x=1&y=%2520 origin=https://page.example subprotocol=chat.v2"
        ));
        client.expect_text("at once");
        client.text("and later");
        client.expect_text("and later");
        client.finish(1000);
        // The log has the same number and address.
        daemon.log().wait_for(&["c1 end", known.split(' ').next().unwrap(), "name=\"whoe\""]);
    }
}

#[test]
#[ignore = "needs python3"]
fn missing_headers_are_omitted() {
    for parser in PARSERS {
        let daemon = configured(
            "hello = true; protocol = \"lines\"; links = ({ origin = \"*\"; type = \"unix\"; destination = \"@/any\"; });",
        );
        let server = Listener::bind(&daemon.folder().path().join("any"), Kind::Stream);
        for (asked, path, query) in [
            ("/", "/", ""),
            ("/who?", "/who", ""),
            ("/who??a", "/who", "?a"),
            ("/a%0a%20b%25/../%C3%BC//c/?%00=/?", "/%c3%bc/c", "%2500=/?"),
            ("/%0d%0a%25?a=b%20c+d", "/%0d%0a%25", "a=b%2520c+d"),
        ] {
            let mut client = daemon.connect(asked);
            let _serving = parser.serve(daemon.folder(), server.accept().stream().try_clone().unwrap(), Kind::Stream);
            let (opcode, got) = client.message();
            let (known, got) = (addresses(client.wire.stream()), String::from_utf8(got).unwrap());
            let (before, after) = got.split_once(" id=c").unwrap();
            assert_eq!((opcode, before), (TEXT, format!("{known} host=gate.example").as_str()), "{parser:?} {asked}");
            let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
            assert_eq!(after, format!(" path={path} query={query} origin= subprotocol="), "{parser:?} {asked}");
        }
    }
}

#[test]
#[ignore = "needs python3"]
fn the_addresses_of_ipv6_and_of_unix_clients() {
    for parser in PARSERS {
        let folder = Folder::new();
        let (path, tail) = (folder.join("listener"), "host=gate.example id=c1 path=/who query= origin= subprotocol=\n");
        let unix = format!("unix:{path}");
        let mut expected = Vec::new();
        for listen in [&unix, "[::1]:0"] {
            if listen == "[::1]:0" && TcpListener::bind(listen).is_err() {
                eprintln!("there is no IPv6 here; a client over IPv6 was not tried");
                continue;
            }
            let daemon = Daemon::start(&["--hello", "--listen", listen]);
            let server = daemon.listen("who");
            // Both kinds of sockets are used alike.
            let (stream, known): (OwnedFd, String) = match listen.strip_prefix("unix:") {
                Some(path) => (UnixStream::connect(path).unwrap().into(), "client= local=".to_owned()),
                None => {
                    let stream = TcpStream::connect(("::1", daemon.port)).unwrap();
                    let known = addresses(&stream);
                    (stream.into(), known)
                }
            };
            let mut client = Backend::new(UnixStream::from(stream));
            client.send(handshake("/who", &[], &[]));
            let _serving = parser.serve(daemon.folder(), server.accept().stream().try_clone().unwrap(), Kind::Stream);
            while client.take(1) != b"\n" || client.take(2) != b"\r\n" {}
            assert_eq!(String::from_utf8(client.message().1).unwrap(), format!("{known} {tail}"), "{parser:?}");
            expected.push(known);
        }
        assert!(expected[0] == "client= local=" && expected.get(1).is_none_or(|known| known.contains("=[::1]:")));
    }
}

#[test]
#[ignore = "needs python3"]
fn the_record_is_the_first_packet() {
    for parser in PARSERS {
        // A SOCK_SEQPACKET socket is detected too.
        for flags in [&["--hello", "--protocol", "packet"][..], &["--hello"]] {
            let daemon = Daemon::start(flags);
            let server = daemon.listen_packets("who");
            let mut client = daemon.connect("/who");
            client.send(&[Frame::new(TEXT, b"one"), Frame::new(TEXT, b"two")]);
            let _serving = parser.serve(daemon.folder(), server.accept().stream().try_clone().unwrap(), Kind::Packets);
            let known = addresses(client.wire.stream());
            client.expect_text(&format!("{known} host=gate.example id=c1 path=/who query= origin= subprotocol=\n"));
            client.expect_text("one");
            client.expect_text("two");
            client.finish(1000);
        }
    }
}

/// Unframed, before the first frame, line or byte; what the backend sends before it reads the record is passed on.
#[test]
fn the_record_precedes_all_bytes() {
    for (protocol, message) in
        [("stream", &b"text"[..]), ("frames", b"\x81\x04text"), ("lines", b"text\n"), ("nul", b"text\0")]
    {
        let daemon = Daemon::start(&["--hello", "--protocol", protocol]);
        let server = daemon.listen("who");
        let mut bytes = handshake("/who", &[], &[]).into_bytes();
        bytes.extend(Frame::new(TEXT, b"text").masked().bytes());
        let mut wire = daemon.wire();
        wire.send(bytes);
        let mut backend = server.accept();
        backend.send(message);
        assert_eq!(wire.response().status, 101);
        let mut client = Client::new(wire);
        client.expect_text("text");
        let who = read_hello(&mut backend.stream()).unwrap();
        assert_eq!(who.path, "/who", "{protocol}");
        backend.expect(message);
        client.finish(1000);
    }
}

/// A backend that accepts gets a record even if the client has closed.
#[test]
fn a_disconnected_client_has_a_record() {
    let daemon = Daemon::start(&["--hello"]);
    let server = daemon.listen("who");
    let client = daemon.connect("/who");
    drop(client);
    daemon.log().wait_for(&["c1 end"]);
    let mut backend = server.accept();
    assert_eq!(read_hello(&mut backend.stream()).unwrap().id, "c1");
    backend.expect_end();
}

/// A link's `hello` precedes that of `websocket`, which does not hold for devices.
#[test]
fn links_with_hello_get_a_record() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = configured(&format!(
        "docroot = \"@/run\"; hello = true; links = (
            {{ origin = \"^/tcp$\"; type = \"tcp\"; destination = \"{}\"; }},
            {{ origin = \"^/silent$\"; type = \"unix\"; destination = \"@/silent\"; hello = false; }},
            {{ origin = \"^/pipe$\"; type = \"fifo\"; direction = \"write\"; destination = \"@/pipe\"; }},
            {{ origin = \"^/told$\"; type = \"fifo\"; direction = \"write\"; destination = \"@/told\"; hello = true; }});",
        tcp.local_addr().unwrap()
    ));
    let mut client = daemon.connect("/tcp?q");
    let (mut stream, _) = tcp.accept().unwrap();
    assert_eq!(line(&read_hello(&mut stream).unwrap()).split(' ').nth(5), Some("query=q"));
    client.finish(1000);

    let docroot = daemon.listen("docroot");
    let _client = daemon.connect("/docroot");
    assert_eq!(read_hello(&mut docroot.accept().stream()).unwrap().path, "/docroot");

    let silent = Listener::bind(&daemon.folder().path().join("silent"), Kind::Stream);
    let mut client = daemon.connect("/silent");
    client.text("text");
    silent.accept().expect("text");

    for (name, is_told) in [("pipe", false), ("told", true)] {
        let path = daemon.folder().path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for reading and writing, so that open(2) does not wait.
        let mut pipe = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut client = daemon.connect(&format!("/{name}"));
        client.text("text");
        if is_told {
            assert_eq!(read_hello(&mut pipe).unwrap().path, "/told");
        }
        let mut text = [0; 4];
        pipe.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"text");
    }
}

/// A subprotocol may name the backend; the record has the path of the request.
#[test]
fn a_backend_named_by_a_subprotocol() {
    let daemon = Daemon::start(&["--hello"]);
    let server = Listener::bind(&daemon.socket("sub/chat"), Kind::Stream);
    let _client = daemon.connect_with("/sub/?q", &["Sec-WebSocket-Protocol: none, chat"]);
    let who = read_hello(&mut server.accept().stream()).unwrap();
    assert_eq!((who.path.as_str(), who.query.as_str(), who.subprotocol.as_str()), ("/sub", "q", "chat"));
}

/// The longest request fits, and its values are complete.
#[test]
#[ignore = "needs python3"]
fn the_longest_record() {
    for parser in PARSERS {
        let daemon = Daemon::start(&["--hello", "--origins", "*", "--protocol", "lines"]);
        let server = daemon.listen("who");
        let (query, origin) = ("q".repeat(8 * 1024 - 5), format!("https://{}", "o".repeat(3000)));
        let subprotocol = "s".repeat(4000);
        let fields = [format!("Origin: {origin}"), format!("Sec-WebSocket-Protocol: {subprotocol}")];
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let mut wire: Wire = daemon.wire();
        wire.send(handshake(&format!("/who?{query}"), &[], &fields));
        let _serving = parser.serve(daemon.folder(), server.accept().stream().try_clone().unwrap(), Kind::Stream);
        assert_eq!(wire.response().status, 101);
        let mut client = Client::new(wire);
        let (_, got) = client.message();
        let end = format!(" path=/who query={query} origin={origin} subprotocol={subprotocol}");
        assert!(String::from_utf8(got).unwrap().ends_with(&end), "{parser:?}");
    }
}

/// The echo backend reads a record too, on each kind of socket.
#[test]
fn the_sample_server_prints_the_records_of_its_clients() {
    for protocol in ["stream", "packet", "lines", "nul", "frames"] {
        let daemon = Daemon::start(&["--hello", "--protocol", protocol, "--origins", "*"]);
        let echo = daemon.echo("echo", &["--hello", "--protocol", protocol]);
        let mut client = daemon.connect_with("/echo?a\"b", &["Origin: null", "Sec-WebSocket-Protocol: chat"]);
        client.text("hello");
        client.expect_text("hello");
        let address = client.wire.stream().local_addr().unwrap();
        let end = "path=\"/echo\" query=\"a\\\"b\" host=\"gate.example\" origin=\"null\" subprotocol=\"chat\"";
        echo.out.wait_for(&[&format!("c1 client={address} {end}")]);
        client.finish(1000);
    }
    // A client without a record is not served.
    let daemon = Daemon::start(&[]);
    let echo = daemon.echo("echo", &["--hello"]);
    let mut client = daemon.connect("/echo");
    client.text("GET / HTTP/1.1\r\n");
    client.expect_close(1000);
    echo.err.wait_for(&["no PROXY protocol 2"]);
}
