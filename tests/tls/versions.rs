//! Versions, cipher suites, sessions and names, as `openssl s_client` negotiates them.

use std::io::{PipeWriter, Write};

use super::{Server, authority, configuration, file, new_folder, start};
use crate::client::{Frame, TEXT};
use crate::daemon::{Daemon, uakari};
use crate::foreign::command;
use crate::process::{DEADLINE, Finished, Process};
use crate::wire::{handshake, request};

/// Starts `openssl s_client`, which trusts the daemon's test authority, with these arguments.
fn open(port: u16, daemon: &Daemon, arguments: &str) -> (Process, PipeWriter) {
    let (input, writer) = std::io::pipe().unwrap();
    let mut client = command("openssl");
    client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error"]);
    client.arg("-CAfile").arg(file(daemon, "root.crt")).args(arguments.split_whitespace());
    (Process::start_reading(input.into(), &mut client), writer)
}

/// As `talk_to`, to the daemon.
fn talk(daemon: &Daemon, arguments: &str, bytes: impl AsRef<[u8]>) -> Finished {
    talk_to(daemon.port, daemon, arguments, bytes)
}

/// Sends these bytes and returns all that the client prints until the server closes.
fn talk_to(port: u16, daemon: &Daemon, arguments: &str, bytes: impl AsRef<[u8]>) -> Finished {
    let (mut client, mut input) = open(port, daemon, &format!("-ign_eof {arguments}"));
    // A client whose handshake has failed reads nothing.
    let _ = input.write_all(bytes.as_ref());
    client.wait(DEADLINE)
}

/// Fetches a page; the client must print all these texts.
fn expect(daemon: &Daemon, arguments: &str, parts: &[&str]) {
    let finished = talk(daemon, arguments, request("GET", "/", &["Connection: close"]));
    let all = [&["Verify return code: 0 (ok)", "HTTP/1.1 200 "], parts].concat();
    for part in all {
        assert!(finished.out.contains(part), "{arguments}: no {part:?}: {finished:#?}");
    }
}

/// The gateway refuses the handshake with this alert.
fn expect_alert(daemon: &Daemon, arguments: &str, alert: &str) {
    let finished = talk(daemon, arguments, "");
    assert!(!finished.status.success() && finished.err.contains(alert), "{arguments}: no {alert:?}: {finished:#?}");
}

/// Daemons with a key of ECDSA and with one of RSA.
fn both_keys() -> [Daemon; 2] {
    let folder = new_folder();
    authority::issue_rsa(&folder);
    let rsa = configuration("", &[Server { certificate: "rsa", ..Server::default() }]);
    [start(&[Server::default()]), Daemon::start_configured_by(folder, &rsa, uakari())]
}

/// Any cipher suite and signature that this `openssl` has.
const ANY: &str = "-cipher ALL:@SECLEVEL=0";

#[test]
#[ignore = "needs openssl"]
fn only_current_versions_are_negotiated() {
    let daemon = start(&[Server::default()]);
    expect(&daemon, "", &["New, TLSv1.3, Cipher is TLS_"]);
    expect(&daemon, "-tls1_3", &["New, TLSv1.3, Cipher is TLS_"]);
    expect(&daemon, "-tls1_2", &["New, TLSv1.2, Cipher is ECDHE-ECDSA-", "Secure Renegotiation IS supported"]);
    // Older clients lack what is judged before the version; `hostile::old_versions_and_suites` has the others.
    for version in ["-tls1", "-tls1_1"] {
        expect_alert(&daemon, &format!("{version} {ANY}"), "alert handshake failure");
    }
}

/// Each suite of TLS 1.2 with forward secrecy and authenticated encryption, and those of TLS 1.3.
#[test]
#[ignore = "needs openssl"]
fn strong_cipher_suites_are_negotiated() {
    for (daemon, key) in both_keys().iter().zip(["ECDSA", "RSA"]) {
        for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            let suite = format!("ECDHE-{key}-{cipher}");
            expect(daemon, &format!("-tls1_2 -cipher {suite}"), &[&format!("Cipher is {suite}")]);
        }
        for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
            expect(daemon, &format!("-tls1_3 -ciphersuites {suite}"), &[&format!("Cipher is {suite}")]);
        }
    }
}

/// Suites without forward secrecy (kRSA), with CBC, without authentication, and weak groups.
#[test]
#[ignore = "needs openssl"]
fn weak_cipher_suites_are_refused() {
    for daemon in &both_keys() {
        for ciphers in ["kRSA", "SHA1", "SHA256:!AESGCM:!CHACHA20", "aNULL", "eNULL", "kDHE", "AESCCM", "CAMELLIA:ARIA"]
        {
            let arguments = format!("-tls1_2 -cipher {ciphers}:@SECLEVEL=0");
            expect_alert(daemon, &arguments, "alert handshake failure");
        }
        expect_alert(daemon, "-tls1_2 -groups ffdhe2048:P-521", "alert handshake failure");
        daemon.log().wait_for(&["the client has no cipher suite or group in common with the gateway"]);
    }
}

#[test]
#[ignore = "needs openssl"]
fn echo_over_wss() {
    let daemon = start(&[Server::default()]);
    let _echo = daemon.echo("echo", &[]);
    let frames = [Frame::new(TEXT, b"hello, gateway"), Frame::close(1000, "")].map(|frame| frame.masked().bytes());
    for version in ["-tls1_2", "-tls1_3"] {
        let finished = talk(&daemon, version, [handshake("/echo", &[], &[]).as_bytes(), &frames.concat()].concat());
        assert!(finished.out.contains("HTTP/1.1 101 ") && finished.out.contains("hello, gateway"), "{finished:#?}");
    }
}

#[test]
#[ignore = "needs openssl"]
fn sessions_are_resumed() {
    let daemon = start(&[Server::default()]);
    let session = daemon.folder().join("session");
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        expect(&daemon, &format!("{flag} -sess_out {session}"), &[&format!("New, {version}")]);
        for _ in 0..2 {
            expect(&daemon, &format!("{flag} -sess_in {session}"), &[&format!("Reused, {version}")]);
        }
    }
}

/// Early data can be replayed (RFC 8446 section 8). The tickets allow none; early data by the ticket of another server is
/// skipped, and the handshake succeeds without it.
#[test]
#[ignore = "needs openssl"]
fn early_data_is_refused() {
    let daemon = start(&[Server::default()]);
    let (session, early) = (daemon.folder().join("session"), daemon.folder().join("early"));
    std::fs::write(&early, request("GET", "/nosuch", &["Connection: close"])).unwrap();
    expect(&daemon, &format!("-tls1_3 -sess_out {session}"), &["New, TLSv1.3"]);
    let resuming = format!("-tls1_3 -sess_in {session} -early_data {early}");
    expect(&daemon, &resuming, &["Reused, TLSv1.3", "Early data was not sent"]);

    let mut other = command("openssl");
    other.args(["s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-max_early_data", "16384", "-www"]);
    for (option, name) in [("-cert", "server.crt"), ("-key", "server.key"), ("-cert_chain", "inter.crt")] {
        other.arg(option).arg(file(&daemon, name));
    }
    let other = Process::start(&mut other);
    let line = other.out.wait_for(&["ACCEPT 127.0.0.1:"]);
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let taken = talk_to(port, &daemon, &format!("-tls1_3 -sess_out {session}"), "GET / HTTP/1.0\r\n\r\n");
    assert!(taken.out.contains("Max Early Data: 16384"), "{taken:#?}");
    expect(&daemon, &resuming, &["New, TLSv1.3", "Early data was rejected"]);
}

#[test]
#[ignore = "needs openssl"]
fn alpn() {
    let daemon = start(&[Server::default()]);
    expect(&daemon, "-alpn http/1.1", &["ALPN protocol: http/1.1"]);
    expect(&daemon, "-alpn h2,http/1.1", &["ALPN protocol: http/1.1"]);
    expect(&daemon, "", &["No ALPN negotiated"]);
    for version in ["-tls1_2", "-tls1_3"] {
        expect_alert(&daemon, &format!("{version} -alpn h2"), "alert no application protocol");
    }
    daemon.log().wait_for(&["the client's ALPN does not offer http/1.1"]);
}

#[test]
#[ignore = "needs openssl"]
fn each_name_has_its_certificate() {
    let daemon = start(&[
        Server { keys: "hostname = \"gate.example\";", ..Server::default() },
        Server { keys: "hostname = \"other.example\";", certificate: "other", ..Server::default() },
    ]);
    let (own, other) = ("subject=CN = server", "subject=CN = other");
    let shown = |arguments: &str| {
        let finished = talk(&daemon, arguments, request("GET", "/", &["Connection: close"]));
        assert!(finished.out.contains("Verify return code: 0 (ok)"), "{finished:#?}");
        finished.out
    };
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(shown(&format!("{version} -servername gate.example")).contains(own));
        assert!(shown(&format!("{version} -servername other.example")).contains(other));
        assert!(shown(&format!("{version} -servername OTHER.Example")).contains(other));
        // The first server has all other names.
        assert!(shown(&format!("{version} -servername none.example")).contains(own));
        assert!(shown(&format!("{version} -noservername")).contains(own));
    }
    // A session of one name is none of the other.
    let session = daemon.folder().join("session");
    assert!(shown(&format!("-servername gate.example -sess_out {session}")).contains("New, "));
    assert!(shown(&format!("-servername gate.example -sess_in {session}")).contains("Reused, "));
    assert!(shown(&format!("-servername other.example -sess_in {session}")).contains("New, "));
}

/// TLS 1.2 alone has renegotiation. A client that asks for it is refused, and the connection continues.
#[test]
#[ignore = "needs openssl"]
fn renegotiation_is_refused() {
    let daemon = start(&[Server::default()]);
    let (mut client, mut input) = open(daemon.port, &daemon, "-tls1_2");
    client.out.wait_for(&["Verify return code: 0 (ok)"]);
    input.write_all(b"R\n").unwrap();
    let finished = client.wait(DEADLINE);
    assert!(finished.err.contains("no renegotiation"), "{finished:#?}");
}

/// A client that falls back from TLS 1.3 (RFC 7507) finds the marker of a server that has it, and refuses.
#[test]
#[ignore = "needs openssl"]
fn a_downgrade_is_refused() {
    let daemon = start(&[Server::default()]);
    let finished = talk(&daemon, "-tls1_2 -fallback_scsv", "");
    assert!(!finished.status.success() && finished.err.contains("inappropriate fallback"), "{finished:#?}");
}
