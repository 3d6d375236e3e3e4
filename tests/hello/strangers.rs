//! Foreign parsers of the PROXY protocol read the record. They come with tests/install-tools.

use std::io::Read;
use std::process::Command;

use crate::client::Client;
use crate::daemon::Daemon;
use crate::foreign::tool;
use crate::process::{DEADLINE, Process, eventually, run};
use crate::server::{Kind, Listener, connect};

/// Haproxy reads the record, and sends the client's address in version 1 to its backend.
const HAPROXY: &str = "
global
    log stdout format raw daemon
defaults
    mode tcp
    log global
    log-format \"client=%ci:%cp host=%[fc_pp_authority] id=%[fc_pp_unique_id]\"
    timeout connect 10s
    timeout client 20s
    timeout server 20s
listen hello
    bind unix@SOCKET accept-proxy
    server behind unix@BEHIND send-proxy
";

#[test]
#[ignore = "needs haproxy"]
fn haproxy() {
    let program = tool("bin/haproxy");
    let daemon = Daemon::start(&["--hello", "--origins", "*"]);
    let (path, file) = (daemon.socket("proxied"), daemon.folder().join("haproxy.cfg"));
    let behind = daemon.folder().path().join("behind");
    let listener = Listener::bind(&behind, Kind::Stream);
    let text = HAPROXY.replace("SOCKET", path.to_str().unwrap()).replace("BEHIND", behind.to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let haproxy = Process::start(Command::new(program).args(["-db", "-f", &file]));
    eventually("haproxy listens", || connect(&path, Kind::Stream).is_ok());

    let mut client = daemon.connect_with("/proxied?q=1", &["Origin: null", "Sec-WebSocket-Protocol: chat"]);
    client.text("hello");
    let (ours, theirs) = (client.wire.stream().local_addr().unwrap(), client.wire.stream().peer_addr().unwrap());
    let mut server = listener.accept();
    server.expect(format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello", ours.port(), theirs.port()));
    server.send("welcome");
    client.expect_text("welcome");
    client.close(1000);
    server.expect_end();
    drop(server);
    client.expect_close(1000);
    haproxy.out.wait_for(&[&format!("client={ours} host=gate.example id=c1")]);
}

/// What the Python package proxy-protocol reads in it.
const PACKAGE: &str = "
import sys
from proxyprotocol.v2 import ProxyProtocolV2
result = ProxyProtocolV2().unpack(bytes.fromhex(sys.argv[1]))
address = lambda of: '[%s]:%d' % of if of[0].version == 6 else '%s:%d' % of
print(address(result.source), address(result.dest), result.proxied, result.protocol.name)
print(result.tlv.authority, result.tlv.unique_id.decode())
for kind in range(0xe0, 0xe5):
    print(result.tlv.get(kind, b'none').decode())
";

#[test]
#[ignore = "needs python3"]
fn the_python_package_proxy_protocol() {
    let python = tool("venv/bin/python");
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        if std::net::TcpListener::bind(listen).is_err() {
            eprintln!("there is no IPv6 here; a record of a client over IPv6 was not shown");
            continue;
        }
        let daemon = Daemon::start(&["--hello", "--listen", listen]);
        let server = daemon.listen("who");
        let stream = std::net::TcpStream::connect(listen.replace(":0", &format!(":{}", daemon.port))).unwrap();
        let known = format!("{} {}", stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let mut client = Client::new(crate::wire::Wire::new(stream));
        assert_eq!(client.wire.upgrade("/who?q=1", &["Sec-WebSocket-Protocol: chat"]).status, 101);
        let backend = server.accept();
        client.finish(1000);
        let mut record = Vec::new();
        backend.stream().read_to_end(&mut record).unwrap();
        let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
        let finished = run(Command::new(&python).args(["-c", PACKAGE, &hex]), DEADLINE);
        let expected = format!("{known} True SOCK_STREAM\ngate.example c1\n/who\nq=1\nnone\nchat\nnone");
        assert_eq!((finished.out, finished.err), (expected, String::new()));
    }
}
