//! Foreign parsers of the PROXY protocol read the record. They come with tests/install-tools.

use std::io::{Read, Write};
use std::process::Command;

use uakari::tls::ClientFacts;
use uakari::types::Address;

use super::{certificate, protected};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::foreign::tool;
use crate::process::{DEADLINE, Process, eventually, run};
use crate::proxies::programs::haproxy_defaults;
use crate::server::{Kind, Listener, connect};

/// What the log refers to.
const GLOBAL: &str = "global\n    log stdout format raw daemon\n";

/// Haproxy reads the record, and sends the client's address in version 1 to its backend.
const HAPROXY: &str = "
    log global
    log-format \"client=%ci:%cp host=%[fc_pp_authority] id=%[fc_pp_unique_id]\"
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
    std::fs::write(&file, format!("{GLOBAL}{}{text}", haproxy_defaults("tcp"))).unwrap();
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

    // It skips what it does not know of the facts of TLS.
    let mut stream = connect(&path, Kind::Stream).unwrap();
    stream.write_all(&of_tls_client(Some(certificate()))).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut server = listener.accept();
    server.expect("PROXY TCP4 192.0.2.7 192.0.2.8 12345 443\r\nhello");
    drop((server, stream));
    haproxy.out.wait_for(&["client=192.0.2.7:12345 host=gate.example id=c12"]);
}

/// The record of a client with TLS and this certificate.
fn of_tls_client(certificate: Option<ClientFacts>) -> Box<[u8]> {
    let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
    protected(certificate).encode(tcp("192.0.2.7:12345"), tcp("192.0.2.8:443"), 12)
}

/// What the Python package proxy-protocol reads in it.
const PACKAGE: &str = "
import sys
from proxyprotocol.v2 import ProxyProtocolV2
result = ProxyProtocolV2().unpack(bytes.fromhex(sys.argv[1]))
address = lambda of: '[%s]:%d' % of if of[0].version == 6 else '%s:%d' % of
print(address(result.source), address(result.dest), result.proxied, result.protocol.name)
print(result.tlv.authority, result.tlv.unique_id.decode())
for kind in range(0xe0, 0xe9):
    print(result.tlv.get(kind, b'none').decode())
ssl = result.tlv.ssl
print(result.tlv.alpn, ssl.has_ssl, ssl.has_cert_conn, ssl.has_cert_sess, ssl.verified)
print(ssl.version, ssl.cipher, ssl.cn)
";

/// What it reads in this record.
fn read_by_package(record: &[u8]) -> String {
    let hex: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
    let finished = run(Command::new(tool("venv/bin/python")).args(["-c", PACKAGE, &hex]), DEADLINE);
    assert_eq!(finished.err, "");
    finished.out
}

#[test]
#[ignore = "needs python3"]
fn the_python_package_proxy_protocol() {
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
        let expected = format!(
            "{known} True SOCK_STREAM\ngate.example c1\n/who\nq=1\nnone\nchat\nnone\nnone\nnone\nnone\nnone\n\
             None False False False False\nNone None None"
        );
        assert_eq!(read_by_package(&record), expected);
    }
    let expected = format!(
        "192.0.2.7:12345 192.0.2.8:443 True SOCK_STREAM\ngate.example c12\n/who\nnone\nnone\nnone\nnone\n\
         gate.example\nCN=J\u{fc}rgen\\, admin,O=Ex\n01ff\n{}\n\
         b'http/1.1' True True True True\nTLSv1.3 TLS_AES_128_GCM_SHA256 J\u{fc}rgen, admin",
        "ab".repeat(32)
    );
    assert_eq!(read_by_package(&of_tls_client(Some(certificate()))), expected);
    let without = read_by_package(&of_tls_client(None));
    let expected = "\nnone\nnone\nnone\nb'http/1.1' True False False False\nTLSv1.3 TLS_AES_128_GCM_SHA256 None";
    assert!(without.ends_with(expected), "{without}");
}
