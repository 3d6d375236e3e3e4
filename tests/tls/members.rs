//! Certificates of clients: which are asked for, refused and revoked, and what a backend learns of them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};

use super::authority::CLIENT_SERIAL;
use super::{
    ALL, MEMBERS, Server, TLS_1_2, TLS_1_3, certificate, client_config, configuration, file, shake, start,
    start_configured, wire,
};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::hello::parser::{Hello, read_hello};
use crate::process::eventually;
use crate::reload::{TAKEN, reload};
use crate::wire::{Response, TlsStream, Wire, request};

/// Fetches a page. An error is what TLS says: with TLS 1.3 a client is refused after its part of the handshake.
fn fetch(daemon: &Daemon, config: &Arc<ClientConfig>) -> Result<(Response, HandshakeKind), String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
    let mut stream: TlsStream = shake(stream, config, "127.0.0.1")?;
    let text = request("GET", "/", &["Connection: close"]);
    // The first byte of the response, or the alert.
    stream.write_all(text.as_bytes()).and_then(|()| stream.read(&mut [])).map_err(|error| error.to_string())?;
    let kind = stream.conn.handshake_kind().unwrap();
    Ok((Wire::over_tls(stream).response(), kind))
}

/// The outcome for a client with this certificate: a status, or an error of TLS.
fn outcome(daemon: &Daemon, presented: Option<&str>) -> [String; 2] {
    [TLS_1_2, TLS_1_3].map(|version| {
        let fetched = fetch(daemon, &Arc::new(client_config(daemon, version, presented)));
        fetched.map_or_else(|error| error, |(response, _)| response.status.to_string())
    })
}

#[test]
fn each_rule_for_certificates() {
    let authority = "clientca = \"@/tls/members.crt\";";
    let [ok, expired, unknown] = ["200", "CertificateExpired", "UnknownCA"].map(|text| [text; 2]);
    let [missing, revoked] = ["CertificateRequired", "CertificateRevoked"].map(|text| [text; 2]);
    for (keys, cases) in [
        ("", [ok, ok, ok, ok, ok]),
        (&format!("{authority} verify = \"none\";"), [ok, ok, ok, ok, ok]),
        (&format!("{authority} verify = \"optional\";"), [ok, ok, expired, unknown, ok]),
        (authority, [missing, ok, expired, unknown, ok]),
        (MEMBERS, [missing, ok, expired, unknown, revoked]),
        (&MEMBERS.replace("revoked.crl", "none-revoked.crl"), [missing, ok, expired, unknown, ok]),
    ] {
        let daemon = start(&[Server { tls: keys, ..Server::default() }]);
        let presented = [None, Some("client"), Some("expired-client"), Some("foreign-client"), Some("revoked-client")];
        for (presented, wanted) in presented.into_iter().zip(cases) {
            let got = outcome(&daemon, presented);
            assert!(got.iter().zip(wanted).all(|(got, wanted)| got.contains(wanted)), "{keys} {presented:?}: {got:?}");
        }
    }
}

/// The purpose of a certificate (its extended key usage) is checked.
#[test]
fn a_certificate_of_a_server_is_no_certificate_of_a_client() {
    let daemon = start(&[Server { tls: "clientca = \"@/tls/root.crt\"; verify = \"required\";", ..Server::default() }]);
    let got = outcome(&daemon, Some("server"));
    assert!(got.iter().all(|got| got.contains("received fatal alert")), "{got:?}");
}

#[test]
fn an_expired_revocation_list_is_enforced() {
    let daemon = start(&[Server { tls: &MEMBERS.replace("revoked.crl", "expired.crl"), ..Server::default() }]);
    daemon.log().wait_for(&["warn", "expired.crl", "2021"]);
    assert_eq!(outcome(&daemon, Some("client")), ["200"; 2]);
    assert!(outcome(&daemon, Some("revoked-client")).iter().all(|error| error.contains("CertificateRevoked")));
}

/// A ticket dies with the list, the authorities and the rule that it was issued under, and with nothing else.
#[test]
fn a_changed_rule_ends_sessions() {
    let text = |certificate: &str, keys: &str| {
        configuration("", &[Server { certificate, tls: &MEMBERS.replace("revoked.crl", keys), ..Server::default() }])
    };
    let daemon = start_configured(&text("server", "none-revoked.crl"));
    let configs = [TLS_1_2, TLS_1_3].map(|version| Arc::new(client_config(&daemon, version, Some("revoked-client"))));
    let kinds = || configs.each_ref().map(|config| fetch(&daemon, config).map(|(_, kind)| kind));
    let expect = |kind: HandshakeKind| assert_eq!(kinds(), [Ok(kind), Ok(kind)]);
    expect(HandshakeKind::Full);
    expect(HandshakeKind::Resumed);
    // Neither a reload nor another certificate of the server changes one of the three.
    for certificate in ["server", "renewed"] {
        reload(&daemon, &text(certificate, "none-revoked.crl"), TAKEN);
        expect(HandshakeKind::Resumed);
    }
    let both = ["members.crt", "foreign.crt"].map(|name| fs::read_to_string(file(&daemon, name)).unwrap());
    fs::write(file(&daemon, "both.crt"), both.concat()).unwrap();
    fs::copy(file(&daemon, "none-revoked.crl"), file(&daemon, "list")).unwrap();
    let rule = text("server", "list");
    let authorities = rule.replace("members.crt", "both.crt");
    for changed in [&authorities, &rule, &rule.replace("required", "optional"), &rule] {
        reload(&daemon, changed, TAKEN);
        expect(HandshakeKind::Full);
        expect(HandshakeKind::Resumed);
    }
    // The list is replaced, and found without a reload.
    fs::rename(file(&daemon, "revoked.crl"), file(&daemon, "list")).unwrap();
    let is_refused = |error: &String| error.contains("CertificateRevoked");
    eventually("the client is revoked", || kinds().iter().all(|kind| kind.as_ref().is_err_and(is_refused)));
}

/// A session that is resumed has the certificate of its first connection.
#[test]
fn a_backend_learns_the_certificate() {
    let daemon = start(&[Server { tls: MEMBERS, websocket: "hello = true;", ..Server::default() }]);
    let server = daemon.listen("who");
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate(&daemon, "client"));
    let fingerprint: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (version, name) in [(TLS_1_2, "TLSv1.2"), (TLS_1_3, "TLSv1.3")] {
        let mut config = client_config(&daemon, version, Some("client"));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut wire = wire(daemon.port, config.clone());
            assert_eq!(wire.upgrade("/who", &[]).status, 101);
            assert_eq!(wire.tls().handshake_kind(), Some(kind));
            let backend = server.accept();
            let who: Hello = read_hello(&mut backend.stream()).unwrap();
            let suite = wire.tls().negotiated_cipher_suite().unwrap().suite();
            // The library's names differ from those of IANA.
            let suite = suite.as_str().unwrap().replace("TLS13_", "TLS_");
            assert_eq!((&*who.tls_version, who.tls_cipher), (name, suite));
            assert_eq!((&*who.alpn, who.is_verified), ("http/1.1", true));
            assert_eq!((&*who.subject, &*who.common_name), ("CN=client", "client"));
            assert_eq!(who.serial.trim_start_matches('0'), format!("{CLIENT_SERIAL:x}"));
            assert_eq!(who.fingerprint, fingerprint);
            drop(backend);
            Client::new(wire).expect_close_handshake(1000);
        }
    }
    // The log tells it too.
    daemon.log().wait_for(&["CN=client"]);
}

#[test]
fn a_backend_learns_the_name() {
    let daemon = start(&[Server { websocket: "hello = true;", ..Server::default() }]);
    let server = daemon.listen("who");
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
    let config = Arc::new(client_config(&daemon, ALL, None));
    let mut wire = Wire::over_tls(shake(stream, &config, "gate.example").unwrap());
    assert_eq!(wire.upgrade("/who", &[]).status, 101);
    let who = read_hello(&mut server.accept().stream()).unwrap();
    assert_eq!((&*who.sni, &*who.tls_version, &*who.alpn), ("gate.example", "TLSv1.3", ""));
    assert_eq!((&*who.subject, &*who.common_name, &*who.serial, who.is_verified), ("", "", "", false));
}
