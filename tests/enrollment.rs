//! `uakari-ca serve`: devices enrol and renew through the gateway, and the page shows and renews the authority.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::client::{Client, Frame};
use crate::daemon::{Daemon, patient, program, project};
use crate::foreign::{SCRIPT_TIME, command, tool, tools};
use crate::jsonrpc::authrpc;
use crate::process::{DEADLINE, Finished, Folder, Process, eventually, eventually_eq, run, skipped, uninterrupted};
use crate::server::{Kind, connect, listener_of, listens};
use crate::tls::{self, authority};
use crate::wire;

/// Runs `uakari-ca` on the authority in this folder.
fn ca(folder: &Folder, arguments: &[&str]) -> Finished {
    run(Command::new(program("uakari-ca")).args(arguments).args(["--dir", &folder.join("ca")]), DEADLINE)
}

/// As `ca`; it must succeed. Returns its output without the last newline.
fn ca_well(folder: &Folder, arguments: &[&str]) -> String {
    let Finished { status, out, err } = ca(folder, arguments);
    assert!(status.success(), "{arguments:?}: {out}\n{err}");
    out.trim_end().to_owned()
}

/// A token for this name.
fn token(folder: &Folder, name: &str) -> String {
    let out = ca_well(folder, &["token", name]);
    out.lines().next().unwrap().to_owned()
}

/// The socket of a server that `start` has started.
fn socket(folder: &Folder) -> PathBuf {
    folder.path().join("run/enroll")
}

/// Starts the server on the authority in this folder, which is made if there is none.
fn start(folder: &Folder, options: &[&str]) -> Process {
    if !folder.path().join("ca").exists() {
        ca_well(folder, &["init"]);
    }
    let mut command = Command::new(program("uakari-ca"));
    command.args(["serve", "--dir", &folder.join("ca"), "-R", &folder.join("run"), "-n", "enroll"]).args(options);
    let process = Process::start(&mut command);
    process.out.wait_for(&["uakari-ca serve: listening on"]);
    process
}

/// A new key and a CSR for it. The server ignores the CSR's names.
fn csr() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

fn enrolment(token: &str) -> Value {
    json!({ "token": token, "csr": csr().1 })
}

/// A connection without the gateway.
struct Local(std::os::unix::net::UnixStream);

impl Local {
    fn new(folder: &Folder) -> Local {
        Local(connect(&socket(folder), Kind::Stream).unwrap())
    }

    /// As `new`, for a server with `--hello`: of a client with this address.
    fn of(folder: &Folder, address: [u8; 4]) -> Local {
        let mut local = Local::new(folder);
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        local.send([&head[..], &address, &[127, 0, 0, 1, 0, 9, 0, 80]].concat());
        local
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        // The server may have dismissed the client already.
        let _ = self.0.write_all(text.as_ref());
    }

    /// The next answer; None: the connection has ended.
    fn answer(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            match uninterrupted(|| self.0.read(&mut byte)) {
                Ok(1) => line.extend(byte),
                Ok(_) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer after {DEADLINE:?}: {error}"),
            }
        }
        Some(serde_json::from_slice(&line).unwrap())
    }

    fn ask(&mut self, message: &Value) -> Value {
        self.send(message.to_string());
        self.answer().unwrap_or_else(|| panic!("the connection ends instead of an answer to {message}"))
    }

    /// The code of the error, which must be the answer.
    fn refusal(&mut self, message: &Value) -> String {
        code(&self.ask(message))
    }
}

fn code(answer: &Value) -> String {
    answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {answer}")).to_owned()
}

fn pem<'a>(answer: &'a Value, key: &str) -> &'a str {
    answer[key].as_str().unwrap_or_else(|| panic!("no {key}: {answer}"))
}

/// What `openssl verify` says of a certificate for this purpose, and its subject.
fn verify(folder: &Folder, answer: &Value, purpose: &str) -> String {
    let [certificate, authority] = ["certificate", "authority"].map(|key| {
        let path = folder.join(&format!("{key}.answer"));
        fs::write(&path, pem(answer, key)).unwrap();
        path
    });
    assert_eq!(pem(answer, "authority"), fs::read_to_string(folder.join("ca/ca.pem")).unwrap());
    let mut openssl = command("openssl");
    openssl.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &authority, &certificate]);
    let verified = run(&mut openssl, DEADLINE);
    assert!(verified.status.success(), "{verified:?}");
    let text = ["x509", "-noout", "-subject", "-ext", "subjectAltName,extendedKeyUsage", "-in", &certificate];
    run(command("openssl").args(text), DEADLINE).out
}

/// Sends a message through the gateway, in pieces if it goes through a stream. The answer may come in several messages.
fn ask(client: &mut Client, message: &Value, is_packet: bool) -> Value {
    let text = message.to_string();
    if is_packet {
        client.text(&text);
        return serde_json::from_slice(&client.message().1).unwrap();
    }
    let (first, rest) = text.split_at(text.len() / 2);
    client.text(first);
    client.text(rest);
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        answer.extend(client.message().1);
    }
    serde_json::from_slice(&answer).unwrap()
}

/// Keys of these kinds enrol, and renew with the same key. All names in the CSRs are ignored.
#[test]
#[ignore = "needs openssl"]
fn devices_enrol_through_the_gateway() {
    let folder = Folder::new();
    authority::issue(&folder);
    let [certificate, key] = ["server-chain.crt", "server.key"].map(|name| authority::path(&folder, name));
    let server = start(&folder, &["--hello"]);
    let _packets = {
        let mut command = Command::new(program("uakari-ca"));
        command.args(["serve", "--dir", &folder.join("ca"), "-R", &folder.join("packets"), "-n", "enroll"]);
        let process = Process::start(command.args(["--hello", "--protocol", "packet"]));
        process.out.wait_for(&["listening on"]);
        process
    };
    let plain = Daemon::start_in(Folder::new(), &["--hello", "--docroot", &folder.join("run")]);
    let packets =
        Daemon::start_in(Folder::new(), &["--hello", "--docroot", &folder.join("packets"), "--protocol", "packet"]);
    let run_folder = folder.join("run");
    let tls = Daemon::start_in(
        folder,
        &["--hello", "--docroot", &run_folder, "--tls-certificate", &certificate, "--tls-key", &key],
    );
    let folder = tls.folder();
    let over_tls = || {
        let mut wire = tls::wire(tls.port, tls::client_config(&tls, rustls::ALL_VERSIONS, None));
        assert_eq!(wire.upgrade("/enroll", &[]).status, 101);
        Client::new(wire)
    };
    let made = |algorithm: &[&str]| {
        let key = folder.join("device.key");
        let genpkey = [&["genpkey", "-quiet", "-out", &key, "-algorithm"], algorithm].concat();
        // A key of RSA takes a slow machine long.
        assert!(run(command("openssl").args(genpkey), SCRIPT_TIME).status.success());
        let subject = "/CN=root/O=evil";
        let finished = run(command("openssl").args(["req", "-new", "-key", &key, "-subj", subject]), DEADLINE);
        assert!(finished.status.success(), "{finished:?}");
        finished.out
    };
    for (number, (algorithm, way)) in [
        (&[][..], "ws"),
        (&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "wss"),
        (&["RSA", "-pkeyopt", "rsa_keygen_bits:3072"], "ws"),
        (&["ED25519"], "packet"),
        (&[], "wss"),
    ]
    .into_iter()
    .enumerate()
    {
        let csr = if algorithm.is_empty() { csr().1 } else { made(algorithm) };
        let name = format!("device-{number}");
        let token = token(folder, &name);
        let mut client = match way {
            "wss" => over_tls(),
            "packet" => packets.connect("/enroll"),
            _ => plain.connect("/enroll"),
        };
        let first = ask(&mut client, &json!({ "token": token, "csr": csr }), way == "packet");
        let renewal = json!({ "certificate": pem(&first, "certificate"), "csr": csr });
        let second = ask(&mut client, &renewal, way == "packet");
        for answer in [&first, &second] {
            let text = verify(folder, answer, "sslclient");
            assert!(text.contains(&format!("CN = {name}")) || text.contains(&format!("CN={name}")), "{text}");
            assert!(!text.contains("evil") && text.contains("TLS Web Client Authentication"), "{text}");
        }
        assert_eq!(pem(&first, "certificate"), pem(&second, "certificate"), "it is new enough");
        if way != "packet" {
            server.err.wait_for(&[&format!("enrolment of {name}: serial "), "for 127.0.0.1"]);
            server.err.wait_for(&[&format!("renewal of {name}: serial "), "for 127.0.0.1"]);
        }
        assert!(!server.err.text().contains(&token), "a token is in the log");
    }
    let mut client = plain.connect("/enroll");
    let answer = ask(&mut client, &json!({ "get": "status" }), false);
    let keys: HashSet<&str> = answer["status"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["state", "days_left", "not_after", "fingerprint"].into(), "no more than ca.pem tells");
    client.send(&[Frame::close(1000, "")]);
}

/// Over HTTP, behind a link of type http: enrolment, renewal, and refusals by their statuses.
#[test]
#[ignore = "needs openssl"]
fn devices_enrol_over_http() {
    const PATH: &str = "/.well-known/uakari/enroll";
    let folder = Folder::new();
    let server = start(&folder, &["--http"]);
    let daemon = Daemon::start_configured(&format!(
        "limits = {{ {} }}; servers = ({{ listen = \"127.0.0.1:0\"; document = {{ links = (
             {{ origin = \"^{PATH}$,^/other$\"; type = \"http\"; destination = \"unix:{}\"; }}); }}; }});",
        patient(""),
        socket(&folder).display(),
    ));
    let send = |method: &str, path: &str, fields: &[&str], body: &str| {
        let mut wire = daemon.wire();
        let length = format!("Content-Length: {}", body.len());
        let fields = if fields.is_empty() { vec![&*length] } else { fields.to_vec() };
        wire.send(wire::request(method, path, &fields) + body);
        let response = wire.response();
        let answer: Value = serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("{response:?}"));
        (response, answer)
    };
    let (_, csr) = csr();
    let enrolment = json!({ "token": token(&folder, "device"), "csr": csr }).to_string();
    let (response, first) = send("POST", PATH, &[], &enrolment);
    assert_eq!((response.status, response.field("Cache-Control")), (200, "no-store"), "{response:?}");
    assert!(verify(&folder, &first, "sslclient").contains("device"));
    let renewal = json!({ "certificate": pem(&first, "certificate"), "csr": csr }).to_string();
    let (response, second) = send("POST", PATH, &[], &renewal);
    assert_eq!((response.status, pem(&second, "certificate")), (200, pem(&first, "certificate")));
    server.err.wait_for(&["enrolment of device: serial ", "for 127.0.0.1"]);
    server.err.wait_for(&["renewal of device: serial ", "for 127.0.0.1"]);
    let chunks = format!("{:x}\r\n{enrolment}\r\n0\r\n\r\n", enrolment.len());
    for (method, path, fields, body, wanted) in [
        ("POST", PATH, &[][..], &*enrolment, (403, "token")),
        ("POST", PATH, &[], "{}", (400, "invalid")),
        ("POST", PATH, &[], "garbage", (400, "malformed")),
        ("POST", PATH, &[], &"x".repeat(32 * 1024 + 1), (413, "too-long")),
        ("POST", PATH, &["Transfer-Encoding: chunked"], &chunks, (411, "length")),
        ("GET", PATH, &["Accept: */*"], "", (405, "method")),
        ("POST", "/other", &[], "{}", (404, "path")),
    ] {
        let (response, answer) = send(method, path, fields, body);
        assert_eq!((response.status, &*code(&answer)), wanted, "{method} {path} {fields:?}: {response:?}");
    }
    let (response, answer) = send("POST", PATH, &[], &json!({ "get": "authority" }).to_string());
    assert_eq!((response.status, pem(&answer, "authority")), (200, pem(&first, "authority")));
    server.err.wait_for(&["enrolment refused: the token is not valid", "for 127.0.0.1"]);
}

/// Messages that are refused, with the code, and whether the connection goes on.
#[test]
fn hostile_messages() {
    let folder = Folder::new();
    let server = start(&folder, &["-m", "4"]);
    let token = token(&folder, "device");
    let (_, good) = csr();
    let other = Folder::new();
    ca_well(&other, &["init"]);
    let foreign = fs::read_to_string(other.join("ca/ca.pem")).unwrap();
    let own = fs::read_to_string(folder.join("ca/ca.pem")).unwrap();
    let enrol = |csr: &str| json!({ "token": token, "csr": csr }).to_string();
    let renew = |certificate: &str| json!({ "certificate": certificate, "csr": good }).to_string();
    let object = |size: usize| format!("{{\"get\":\"{}\"}}", "x".repeat(size - 10));
    let flipped = |at: usize| {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for (message, code_expected, goes_on) in [
        ("garbage".to_owned(), "malformed", false),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "malformed", false),
        ("[]".to_owned(), "malformed", false),
        ("{]}".to_owned(), "malformed", false),
        (format!("{{\"get\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)), "malformed", false),
        (object(32 * 1024), "invalid", true),
        (object(32 * 1024 + 1), "too-long", false),
        ("{}".to_owned(), "invalid", true),
        (r#"{"get":"key"}"#.to_owned(), "invalid", true),
        (r#"{"get":"../ca.key"}"#.to_owned(), "invalid", true),
        (r#"{"do":"status","user":"root","passwd":"x"}"#.to_owned(), "forbidden", true),
        (r#"{"do":"revoke","user":"root","passwd":"x"}"#.to_owned(), "invalid", true),
        (json!({ "token": "", "csr": good }).to_string(), "token", true),
        (json!({ "token": format!("{token}A"), "csr": good }).to_string(), "token", true),
        (json!({ "token": "T".repeat(20_000), "csr": good }).to_string(), "token", true),
        (enrol(""), "refused", true),
        (enrol(&own), "refused", true),
        (enrol(&flipped(100)), "refused", true),
        (enrol(&flipped(good.len() - 60)), "refused", true),
        (enrol(&good[..good.len() / 2]), "refused", true),
        (renew(""), "refused", true),
        (renew(&own), "refused", true),
        (renew(&foreign), "refused", true),
        (renew(&good), "refused", true),
        (renew("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "refused", true),
    ] {
        let shown: String = message.chars().take(100).collect();
        let mut client = Local::new(&folder);
        client.send(&message);
        assert_eq!(code(&client.answer().unwrap()), code_expected, "{shown}");
        if goes_on {
            assert_eq!(pem(&client.ask(&json!({ "get": "authority" })), "authority"), own, "{shown}");
        } else {
            assert_eq!(client.answer(), None, "{shown}");
        }
    }
    // The token is not used up.
    let mut client = Local::new(&folder);
    let answer = client.ask(&json!({ "token": token, "csr": good }));
    // Another key than that of the certificate.
    let stolen = json!({ "certificate": pem(&answer, "certificate"), "csr": csr().1 });
    assert_eq!(client.refusal(&stolen), "refused");
    let renewal = json!({ "certificate": pem(&answer, "certificate"), "csr": good });
    let second = client.ask(&renewal);
    // Who repeats a request gets the same one. A revoked certificate is not renewed, nor another one of the same name.
    assert_eq!(pem(&second, "certificate"), pem(&client.ask(&renewal), "certificate"));
    // Meanwhile the server dismisses clients that say nothing, if the machine is slow.
    ca_well(&folder, &["renew", "device"]);
    let mut client = Local::new(&folder);
    let third = client.ask(&renewal);
    assert_ne!(pem(&third, "certificate"), pem(&answer, "certificate"));
    let serial = server.err.wait_for(&["enrolment of device: serial "]);
    let serial = serial.split("serial ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let revoked = ca_well(&folder, &["revoke", serial]);
    assert!(revoked.lines().count() == 2 && revoked.contains(serial), "{revoked}");
    let mut client = Local::new(&folder);
    assert_eq!(client.refusal(&renewal), "refused");
    assert_eq!(client.refusal(&json!({ "certificate": pem(&third, "certificate"), "csr": good })), "refused");
    // The device is not told the operator's commands.
    let taken = ca_well(&folder, &["token", "taken"]);
    ca_well(&folder, &["issue", "taken"]);
    let answer = Local::new(&folder).ask(&json!({ "token": taken, "csr": good }));
    assert_eq!(answer["error"]["message"], "the name has a valid certificate: ask the operator");
    let log = server.err.text();
    assert!(!log.contains(&token) && !log.contains("-----BEGIN"), "{log}");
    assert!(ca(&folder, &["status"]).status.success());
}

/// Clients that send several messages at once, one in single bytes, none at all, or half of one.
#[test]
fn split_and_coalesced_messages() {
    let folder = Folder::new();
    let _server = start(&folder, &["-m", "4"]);
    let mut client = Local::new(&folder);
    client.send("\n{\"get\":\"status\"}{\"get\":\"authority\"}\0\r\n{}{\"get\":\"status\"}");
    let answers: Vec<Value> = (0..4).map(|_| client.answer().unwrap()).collect();
    assert_eq!(answers[0]["status"]["state"], "valid");
    assert_eq!(answers[0], answers[3]);
    pem(&answers[1], "authority");
    assert_eq!(code(&answers[2]), "invalid");
    // More than are answered in a turn.
    client.send("{}".repeat(40));
    (0..40).for_each(|_| assert_eq!(code(&client.answer().unwrap()), "invalid"));
    for byte in br#"{"get":"status"}"# {
        client.send([*byte]);
    }
    assert_eq!(client.answer().unwrap(), answers[0]);
    // An end in a message, and an end of sending only.
    Local::new(&folder).send("{\"get\":");
    let mut half = Local::new(&folder);
    half.send("{\"get\":\"status\"}");
    half.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(half.answer().unwrap(), answers[0]);
    assert_eq!(half.answer(), None);
}

#[test]
fn a_token_is_used_once() {
    const CLIENTS: usize = 8;
    let folder = Folder::new();
    let server = start(&folder, &[]);
    for round in 0..3 {
        let token = token(&folder, &format!("device-{round}"));
        let barrier = Barrier::new(CLIENTS);
        let answers: Vec<Value> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Local::new(&folder);
                        let message = enrolment(&token);
                        barrier.wait();
                        client.ask(&message)
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["error"].is_null());
        assert_eq!(good.len(), 1, "{answers:?}");
        assert!(bad.iter().all(|answer| code(answer) == "token"), "{bad:?}");
        assert_eq!(Local::new(&folder).refusal(&enrolment(&token)), "token");
    }
    eventually_eq(|| server.err.text().matches("enrolment of device-").count(), &3, "enrolments in the log");
}

#[test]
fn wrong_tokens_are_limited_while_others_enrol() {
    let folder = Folder::new();
    let server = start(&folder, &["--hello"]);
    let (guesser, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let mut refused = 0;
    let mut client = (0..)
        .find_map(|attempt| {
            let late = enrolment(&token(&folder, &format!("late-{attempt}")));
            // New connections do not help.
            while Local::of(&folder, guesser).refusal(&enrolment("guess")) == "token" {
                refused += 1;
            }
            assert!(refused >= 10, "only {refused} guesses");
            // A right token waits too, unless the wait has passed meanwhile. Then the next one is longer.
            let mut client = Local::of(&folder, guesser);
            let answer = client.ask(&late);
            if answer["error"].is_null() {
                return None;
            }
            assert!(answer["error"]["wait_ms"].as_u64().is_some_and(|wait_ms| wait_ms > 0), "{answer}");
            assert_eq!(code(&answer), "wait");
            Some(client)
        })
        .unwrap();
    assert!(pem(&client.ask(&json!({ "get": "authority" })), "authority").len() > 100, "all else is answered");
    pem(&Local::of(&folder, other).ask(&enrolment(&token(&folder, "other"))), "certificate");
    server.err.wait_for(&["enrolment refused", "for 192.0.2.1"]);
    server.err.wait_for(&["enrolment of other", "for 192.0.2.2"]);
}

#[test]
fn one_address_leaves_connections_for_others() {
    let folder = Folder::new();
    let _server = start(&folder, &["--hello", "-m", "8"]);
    let status = json!({ "get": "status" });
    let mut own: Vec<Local> = (0..2).map(|_| Local::of(&folder, [192, 0, 2, 1])).collect();
    own.iter_mut().for_each(|client| assert_eq!(client.ask(&status)["status"]["state"], "valid"));
    let mut third = Local::of(&folder, [192, 0, 2, 1]);
    assert_eq!(code(&third.answer().unwrap()), "busy");
    assert_eq!(third.answer(), None);
    assert_eq!(Local::of(&folder, [192, 0, 2, 2]).ask(&status)["status"]["state"], "valid");
    drop(own.pop());
    eventually("its place is free", || {
        let mut client = Local::of(&folder, [192, 0, 2, 1]);
        client.send(status.to_string());
        client.answer().is_some_and(|answer| answer["error"].is_null())
    });
    // No record at all.
    let mut stranger = Local::new(&folder);
    stranger.send("{\"get\":\"status\"} and more");
    assert_eq!(code(&stranger.answer().unwrap()), "malformed");
    assert_eq!(stranger.answer(), None);
}

#[test]
fn requests_of_an_address_are_limited() {
    let folder = Folder::new();
    let server = start(&folder, &["--hello"]);
    let mut client = Local::of(&folder, [192, 0, 2, 1]);
    let mut answered = 0;
    let answer = loop {
        let answer = client.ask(&json!({ "get": "status" }));
        if !answer["error"].is_null() {
            break answer;
        }
        answered += 1;
    };
    assert!(answered >= 60, "{answered}");
    assert_eq!(code(&answer), "wait");
    assert_eq!(Local::of(&folder, [192, 0, 2, 2]).ask(&json!({ "get": "status" }))["status"]["state"], "valid");
    // A flood does not fill the log.
    for _ in 0..2_000 {
        client.ask(&json!({}));
    }
    let lines = server.err.text().lines().count();
    assert!(lines < 1_000, "{lines} lines");
    // What ends a connection ends it then, too.
    client.send("garbage {}");
    assert_eq!(code(&client.answer().unwrap()), "malformed");
    assert_eq!(client.answer(), None);
}

/// A server that is killed while it signs leaves an authority that knows each certificate it has given out.
#[test]
fn a_server_killed_in_a_request() {
    let folder = Folder::new();
    let mut given_out = 0;
    for round in 0..4 {
        let server = start(&folder, &[]);
        let tokens: Vec<String> = (0..8).map(|number| token(&folder, &format!("device-{round}-{number}"))).collect();
        let clients: Vec<Local> = tokens
            .iter()
            .map(|token| {
                let mut client = Local::new(&folder);
                client.send(enrolment(token).to_string());
                client
            })
            .collect();
        let mut clients = clients.into_iter();
        // In the first round after the first answer, then after more of them.
        given_out += clients.by_ref().take(1 + round).filter_map(|mut client| client.answer()).count();
        kill(server.pid(), Signal::SIGKILL).unwrap();
        given_out += clients.filter_map(|mut client| client.answer()).count();
        drop(server);
        let status: Value = serde_json::from_str(&ca_well(&folder, &["status", "--json"])).unwrap();
        assert_eq!(status["state"], "valid");
        let known = status["certificates"]["valid"].as_u64().unwrap() as usize;
        assert!(known >= given_out, "{given_out} were given out, {known} are known");
        given_out = known;
    }
    let _server = start(&folder, &[]);
    pem(&Local::new(&folder).ask(&enrolment(&token(&folder, "last"))), "certificate");
}

/// A stop signal lets requests in progress end, and removes the socket.
#[test]
fn a_stop_signal() {
    let folder = Folder::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let is_answered = |round: usize| {
            let mut server = start(&folder, &[]);
            let mut client = Local::new(&folder);
            let token = token(&folder, &format!("{signal}-{round}"));
            // A request that is in progress, since it waits for the lock.
            let lock = fs::File::open(folder.join("ca/lock")).unwrap();
            lock.lock().unwrap();
            client.send(enrolment(&token).to_string());
            eventually("the request waits for the lock", || server.has_open(&folder.join("ca/lock")));
            let start = Instant::now();
            server.signal(signal);
            drop(lock);
            let answer = client.answer();
            let time = start.elapsed();
            assert!(server.wait(DEADLINE).status.success());
            assert!(!socket(&folder).exists());
            if answer.is_none() && time >= Duration::from_secs(5) {
                eprintln!("requests have 5 s to end, and this one had {time:?}: once more");
                return false;
            }
            pem(&answer.expect("an answer"), "certificate");
            assert_eq!(client.answer(), None);
            true
        };
        assert!((0..5).any(is_answered));
    }
    // In the background, from another folder.
    let mut command = Command::new(program("uakari-ca"));
    command.current_dir(folder.path()).args(["serve", "-D", "--dir", "ca", "-R", "run", "-n", "enroll"]);
    let finished = run(&mut command, DEADLINE);
    assert!(finished.status.success(), "{finished:?}");
    let mut client = Local::new(&folder);
    assert_eq!(client.ask(&json!({ "get": "status" }))["status"]["state"], "valid");
    kill(listener_of(&client.0), Signal::SIGTERM).unwrap();
    eventually("the socket is gone", || !listens(&socket(&folder)));
}

#[test]
fn failures_to_start() {
    let folder = Folder::new();
    ca_well(&folder, &["init"]);
    fs::write(folder.join("no-users"), "").unwrap();
    let (dir, none, no_users, missing) =
        (folder.join("ca"), folder.join("none"), folder.join("no-users"), folder.join("missing.db"));
    // Not the owner of the folder.
    let other = "nobody";
    for (options, parts) in [
        (&["--dir", &none][..], &["none", "uakari-ca init"][..]),
        (&["--dir", &dir, "--users", &missing], &["--users", "missing.db"]),
        (&["--dir", &dir, "--users", &no_users], &["--users", "no-users"]),
        (&["--dir", &dir, "-u", other], &["-u ", "it belongs to UID ", "run it as that user"]),
        (&["--dir", &dir, "--direct"], &["--direct is not known"]),
        (&["--dir", &dir, "--protocol", "lines"], &["--protocol", "stream or packet"]),
    ] {
        let mut command = Command::new(program("uakari-ca"));
        command.args(["serve", "-R", &folder.join("run"), "-n", "enroll"]).args(options);
        let Finished { status, out, err } = run(&mut command, DEADLINE);
        assert!(!status.success() && out.is_empty(), "{options:?}: {status} {out}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{options:?}: {err}");
        assert!(!socket(&folder).exists(), "{options:?}");
    }
    for words in [&["serve", "--help"][..], &["--dir", "x", "serve", "--help"], &["--dir=x", "serve", "--help"]] {
        let help = run(Command::new(program("uakari-ca")).args(words), DEADLINE);
        let parts = ["--dir", "--users", "-R,", "--hello", "packet"];
        assert!(parts.iter().all(|part| help.out.contains(part)), "{words:?}: {help:?}");
    }
}

/// Root that serves the authority of another user becomes that user.
#[test]
fn an_authority_of_another_user() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !nix::unistd::Uid::effective().is_root() {
        return skipped("only root has files of other users");
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("there is nobody");
    let folder = Folder::new();
    ca_well(&folder, &["init"]);
    let owned = || {
        let listed = ["ca", "ca/issued"].map(|part| fs::read_dir(folder.join(part)).unwrap());
        listed.into_iter().flatten().map(|entry| entry.unwrap().path()).chain([folder.path().join("ca")])
    };
    owned().for_each(|path| chown(path, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap());
    for (options, name) in [(&[][..], "a"), (&["-u", "nobody"], "b")] {
        let _server = start(&folder, options);
        pem(&Local::new(&folder).ask(&enrolment(&token(&folder, name))), "certificate");
    }
    let foreign: Vec<_> = owned().filter(|path| fs::metadata(path).unwrap().uid() != nobody.uid.as_raw()).collect();
    assert!(foreign.is_empty() && owned().count() > 8, "{foreign:?}");
}

/// Only members of the group root see all and renew, with the limits of authrpc.
#[test]
fn only_the_group_root_manages() {
    let folder = Folder::new();
    let (_users, password) = authrpc::start(&folder, "auth", &[]);
    let mut rpc = connect(&folder.path().join("run/auth"), Kind::Stream).unwrap();
    for (method, params) in [
        ("auth", json!({ "user": "root", "passwd": password })),
        ("adduser", json!({ "user": "alice", "passwd": "first" })),
    ] {
        rpc.write_all(json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 1 }).to_string().as_bytes())
            .unwrap();
        let mut buffer = [0; 1_000];
        let size = uninterrupted(|| rpc.read(&mut buffer)).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..size]).contains("\"result\""), "{method}");
    }
    let server = start(&folder, &["--hello", "--users", &folder.join("users.db")]);
    let ask = |address: u8, what: &str, user: &str, passwd: &str| {
        let mut client = Local::of(&folder, [192, 0, 2, address]);
        client.ask(&json!({ "do": what, "user": user, "passwd": passwd }))
    };
    for what in ["status", "renew"] {
        assert_eq!(code(&ask(1, what, "root", "wrong-secret")), "login");
        assert_eq!(code(&ask(1, what, "nobody", &password)), "login");
        assert_eq!(code(&ask(1, what, "alice", "first")), "forbidden");
    }
    let token = token(&folder, "device");
    let (_, csr) = csr();
    let device = Local::of(&folder, [192, 0, 2, 3]).ask(&json!({ "token": token, "csr": csr }));
    let before = ask(2, "status", "root", &password)["status"].clone();
    let listed: Value = serde_json::from_str(&ca_well(&folder, &["status", "--json"])).unwrap();
    assert_eq!(before, listed, "all that the command says");
    let after = ask(2, "renew", "root", &password)["status"].clone();
    assert_eq!((&after["state"], &after["certificates"]), (&json!("valid"), &before["certificates"]));
    assert_ne!(after["fingerprint"], before["fingerprint"]);
    // The key is the same: the device's certificate is still good.
    let renewal = json!({ "certificate": pem(&device, "certificate"), "csr": csr });
    pem(&Local::of(&folder, [192, 0, 2, 3]).ask(&renewal), "certificate");
    // The guesser waits, and nobody else.
    let mut last = Value::Null;
    for _ in 0..20 {
        last = ask(1, "renew", "root", "wrong-secret");
        if code(&last) == "wait" {
            break;
        }
    }
    assert!(last["error"]["wait_ms"].as_u64().is_some_and(|wait_ms| wait_ms > 0), "{last}");
    assert_eq!(ask(2, "status", "root", &password)["status"]["state"], "valid");
    server.err.wait_for(&["renewal of the authority by root", "for 192.0.2.2"]);
    server.err.wait_for(&["login refused", "for 192.0.2.1"]);
    let log = server.err.text();
    assert!(["wrong-secret", &password, "first"].iter().all(|secret| !log.contains(secret)), "{log}");
}

/// The page in Chromium: state, download, login and renewal.
#[test]
#[ignore = "needs chromium"]
fn the_page_of_the_authority() {
    tool("node_modules/playwright-core");
    let folder = Folder::new();
    let (_users, password) = authrpc::start(&folder, "auth", &[]);
    let _server = start(&folder, &["--users", &folder.join("users.db")]);
    let (run_folder, www) = (folder.join("run"), project().join("www"));
    let daemon = Daemon::start(&["--docroot", &run_folder, "--www", www.to_str().unwrap()]);
    let before = fs::read(folder.join("ca/ca.pem")).unwrap();
    let outdir = folder.join("screenshots");
    let mut script = command("node");
    script.arg(project().join("tests/clients/authority.mjs")).arg(format!("http://127.0.0.1:{}", daemon.port));
    script.args([&outdir, &password]).env("UAKARI_TOOLS", tools());
    let finished = run(&mut script, SCRIPT_TIME);
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success() && out.contains("ok - ") && !out.contains("not ok"), "{out}\n{err}");
    // It was downloaded before the renewal and after it.
    let downloads = ["before", "after"].map(|name| Path::new(&outdir).join(format!("{name}.pem")));
    assert!(fs::read(&downloads[0]).unwrap() == before);
    assert!(fs::read(&downloads[1]).unwrap() == fs::read(folder.join("ca/ca.pem")).unwrap() && downloads[1].exists());
    for download in downloads {
        let mut openssl = command("openssl");
        openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(download);
        let printed = run(&mut openssl, DEADLINE);
        let fingerprint = printed.out.trim_end().split('=').nth(1).unwrap();
        assert!(out.contains(fingerprint), "the page did not show {fingerprint}:\n{out}");
    }
    assert!(fs::read(folder.join("ca/ca.pem")).unwrap() != before, "it is renewed");
}
