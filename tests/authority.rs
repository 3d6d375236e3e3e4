//! `uakari-ca`: lives of certificates on its command line and at the gateway, what openssl and keytool read of its files,
//! crashes and full disks.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::unistd::{Uid, User};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::client::Client;
use crate::daemon::{Daemon, patient, program, project, uakari};
use crate::foreign::{SCRIPT_TIME, command, tools};
use crate::process::{DEADLINE, Finished, Folder, Process, can_unshare, eventually, has, run, skipped};
use crate::tls::shake;
use crate::wire::Wire;

/// A subcommand for the authority in the folder `ca`, with arguments that are separated by blanks.
fn ca(folder: &Folder, line: &str) -> Command {
    let mut command = Command::new(program("uakari-ca"));
    command.args(["--dir", &folder.join("ca")]).args(line.split_whitespace());
    command
}

/// Its exit status and output.
fn outcome(folder: &Folder, line: &str) -> (i32, String, String) {
    let Finished { status, out, err } = run(&mut ca(folder, line), DEADLINE);
    (status.code().unwrap(), out, err)
}

/// Its output; it must succeed.
fn done(folder: &Folder, line: &str) -> String {
    let (status, out, err) = outcome(folder, line);
    assert_eq!((status, &*err), (0, ""), "{line}: {out}");
    out
}

/// A folder with an authority.
fn founded() -> Folder {
    let folder = Folder::new();
    done(&folder, "init");
    folder
}

/// The output of `openssl` with these words, in which `@` stands for the folder; it must succeed.
fn openssl(folder: &Folder, line: &str) -> String {
    // A key of RSA takes a slow machine long.
    let Finished { status, out, err } = run(&mut openssl_command(folder, line), SCRIPT_TIME);
    assert!(status.success(), "openssl {line}: {out}{err}");
    out + "\n" + &err
}

fn openssl_command(folder: &Folder, line: &str) -> Command {
    let mut command = command("openssl");
    let path = folder.path().to_str().unwrap();
    command.args(line.split(' ').map(|word| word.replace('@', path)));
    command
}

fn read(folder: &Folder, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

/// A client of TLS that trusts the authority and presents `device.pem`.
fn client_config(folder: &Folder, certificate: &str, key: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca/ca.pem")).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(folder.join(certificate)).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join(key)).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    // Each connection shows what the gateway knows now.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// Opens a WebSocket to the echo server. An error is what TLS says.
fn connect(daemon: &Daemon, config: &Arc<ClientConfig>) -> Result<Client, String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
    let mut stream = shake(stream, config, "127.0.0.1")?;
    // With TLS 1.3 a refusal arrives after the client's part of the handshake.
    let request = crate::wire::handshake("/echo", &[], &[]);
    let sent = std::io::Write::write_all(&mut stream, request.as_bytes());
    sent.and_then(|()| std::io::Read::read(&mut stream, &mut [])).map_err(|error| error.to_string())?;
    let mut wire = Wire::over_tls(stream);
    assert_eq!(wire.response().status, 101);
    let mut client = Client::new(wire);
    client.text("hello");
    client.expect_text("hello");
    Ok(client)
}

/// A gateway with a certificate of the authority in this folder, which requires one of its clients.
fn gateway(folder: Folder) -> Daemon {
    done(&folder, "issue gate --server --for localhost --for 127.0.0.1");
    let server = "servers = ({ listen = \"127.0.0.1:0\";
        tls = { crtfile = \"@/ca/issued/gate.pem\"; keyfile = \"@/ca/issued/gate.key\";
                clientca = \"@/ca/ca.pem\"; crlfile = \"@/ca/crl.pem\"; verify = \"required\"; };
        websocket = { docroot = \"@/run\"; }; });";
    let text = format!("limits = {{ {} }}; {server}", patient("ping-ms = 0;"));
    Daemon::start_configured_by(folder, &text, uakari())
}

/// The authority, the gateway that uses it, and a device, from the first command to the last one. Nothing needs a reload.
#[test]
#[ignore = "needs chromium, keytool and openssl"]
fn the_life_of_an_authority() {
    let folder = founded();
    assert!(done(&folder, "status").starts_with("valid, 365 days left\n"));
    let daemon = gateway(folder);
    let folder = daemon.folder();
    let _echo = daemon.echo("echo", &[]);
    let (_users, password) = crate::jsonrpc::authrpc::start(folder, "auth", &[]);
    let users = folder.join("users.db");
    let line = format!("serve -R {} -n enroll --users {users}", folder.join("run"));
    let serve = Process::start(&mut ca(folder, &line));
    serve.out.wait_for(&["listening on"]);
    let [docroot, certificate, key] = ["run", "ca/issued/gate.pem", "ca/issued/gate.key"].map(|name| folder.join(name));
    let flags = ["--docroot", &docroot, "--allow", "^/enroll", "--tls-certificate", &certificate, "--tls-key", &key];
    let entrance = Daemon::start(&flags);

    // The device makes its key, and enrols with a token.
    openssl(folder, "req -newkey ed25519 -nodes -subj /CN=any -keyout @/device.key -out @/device.csr");
    let token = done(folder, "token device");
    enrol(&entrance, folder, &format!("{{\"token\":\"{token}\",\"csr\":{:?}}}", read(folder, "device.csr")));
    openssl(folder, "verify -purpose sslclient -CAfile @/ca/ca.pem @/device.pem");
    openssl(folder, "verify -purpose sslserver -verify_hostname localhost -CAfile @/ca/ca.pem @/ca/issued/gate.pem");
    let config = Arc::new(client_config(folder, "device.pem", "device.key"));
    let mut first = connect(&daemon, &config).unwrap();

    // The page renews the authority's certificate, the command line that of the gateway, the device its own. The earlier
    // one is still good, with the old trust and with the new one.
    let before = read(folder, "ca/ca.pem");
    drive_page(folder, &password);
    assert!(read(folder, "ca/ca.pem") != before);
    done(folder, "renew gate");
    let renewed = CertificateDer::from_pem_file(folder.join("ca/issued/gate.pem")).unwrap();
    let is_served = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
        shake(stream, &config, "127.0.0.1").unwrap().conn.peer_certificates().unwrap()[0] == renewed
    };
    eventually("the gateway serves its renewed certificate", is_served);
    connect(&daemon, &config).unwrap();
    // The operator has renewed it already: the device gets that one.
    done(folder, "renew device");
    let [certificate, csr] = ["device.pem", "device.csr"].map(|name| read(folder, name));
    enrol(&entrance, folder, &format!("{{\"certificate\":{certificate:?},\"csr\":{csr:?}}}"));
    let second = Arc::new(client_config(folder, "device.pem", "device.key"));
    connect(&daemon, &second).unwrap();

    // The device is revoked: both of its certificates.
    let serials = done(folder, "revoke device");
    let is_refused = |config| connect(&daemon, config).is_err_and(|error| error.contains("CertificateRevoked"));
    eventually("the gateway refuses the revoked certificates", || is_refused(&config) && is_refused(&second));
    let counts = "\ncertificates: 2 valid, 0 of them for 30 days or less, 0 expired, 2 revoked\n";
    assert!(done(folder, "status").contains(counts));
    let list = openssl(folder, "crl -in @/ca/crl.pem -noout -text -CAfile @/ca/ca.pem");
    assert!(list.contains("verify OK") && serials.lines().count() == 2, "{list}");
    assert!(serials.lines().all(|serial| list.contains(&serial.to_uppercase())), "{list}");
    // A conversation that began earlier goes on.
    first.text("still here");
    first.expect_text("still here");

    done(folder, "export");
    expect_trust_stores(folder, "changeit");
}

/// Sends a message for `uakari-ca serve` through the gateway, and writes the certificate of the answer to `device.pem`.
fn enrol(entrance: &Daemon, folder: &Folder, message: &str) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca/ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut wire = crate::tls::wire(entrance.port, config);
    assert_eq!(wire.upgrade("/enroll", &[]).status, 101);
    let mut client = Client::new(wire);
    client.text(message);
    let mut answer = String::new();
    while !answer.ends_with('\n') {
        answer += std::str::from_utf8(&client.message().1).unwrap();
    }
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let certificate = answer["certificate"].as_str().unwrap_or_else(|| panic!("{message}: {answer}"));
    fs::write(folder.join("device.pem"), certificate).unwrap();
}

/// Lets Chromium download the authority's certificate and renew it.
fn drive_page(folder: &Folder, password: &str) {
    let www = project().join("www");
    let daemon = Daemon::start(&["--docroot", &folder.join("run"), "--www", www.to_str().unwrap()]);
    let mut script = command("node");
    script.arg(project().join("tests/clients/authority.mjs")).arg(format!("http://127.0.0.1:{}", daemon.port));
    script.args([&folder.join("screenshots"), password]).env("UAKARI_TOOLS", tools());
    let Finished { status, out, err } = run(&mut script, SCRIPT_TIME);
    assert!(status.success() && out.contains("ok - ") && !out.contains("not ok"), "{out}\n{err}");
}

/// A device that makes its own key and request, without `uakari-ca serve`.
#[test]
#[ignore = "needs openssl"]
fn the_life_of_a_signed_request() {
    let folder = founded();
    openssl(&folder, "req -newkey ed25519 -nodes -subj /CN=device -keyout @/device.key -out @/device.csr");
    let signed = done(&folder, &format!("sign {}", folder.join("device.csr")));
    fs::write(folder.join("device.pem"), &signed).unwrap();
    let daemon = gateway(folder);
    let folder = daemon.folder();
    let _echo = daemon.echo("echo", &[]);
    let config = Arc::new(client_config(folder, "device.pem", "device.key"));
    connect(&daemon, &config).unwrap();
    done(folder, "renew");
    connect(&daemon, &config).unwrap();
    // A new key of the authority: nothing that it has signed is trusted, until it is renewed.
    done(folder, "renew --new-key");
    let is_refused = || connect(&daemon, &config).is_err();
    eventually("the gateway refuses a certificate of the earlier key", is_refused);
    done(folder, "renew device");
    done(folder, "renew gate");
    let renewed = Arc::new(client_config(folder, "ca/issued/device.pem", "device.key"));
    eventually("the gateway takes the renewed certificates", || connect(&daemon, &renewed).is_ok());
}

/// keytool and openssl read the trust stores: one trusted entry, and no key.
fn expect_trust_stores(folder: &Folder, password: &str) {
    for kind in ["p12", "jks"] {
        let mut keytool = command("keytool");
        keytool.args(["-list", "-v", "-keystore", &folder.join(&format!("ca/ca.{kind}")), "-storepass", password]);
        let Finished { status, out, err } = run(&mut keytool, DEADLINE);
        assert!(status.success(), "{kind}: {out}{err}");
        let kind = if kind == "p12" { "PKCS12" } else { "JKS" };
        for part in [
            &format!("Keystore type: {kind}"),
            "Your keystore contains 1 entry",
            "Alias name: uakari",
            "Entry type: trustedCertEntry",
        ] {
            assert!(out.contains(part), "{kind}: no {part:?} in {out}");
        }
        let fingerprint = openssl(folder, "x509 -in @/ca/ca.pem -noout -fingerprint -sha256");
        let fingerprint = fingerprint.trim().rsplit('=').next().unwrap();
        assert!(out.contains(fingerprint), "{kind}: {out}");
        // In the same form, to be compared.
        let (_, status, _) = outcome(folder, "status");
        assert!(status.contains(fingerprint), "{status}");
    }
    let line = format!("pkcs12 -in @/ca/ca.p12 -passin pass:{password}");
    let all = openssl(folder, &format!("{line} -nodes"));
    assert!(all.contains("2.16.840.1.113894.746875.1.1") && all.contains("BEGIN CERTIFICATE"), "{all}");
    assert!(!all.contains("PRIVATE KEY"), "{all}");
}

#[test]
#[ignore = "needs keytool and openssl"]
fn java_and_openssl_read_the_trust_stores() {
    let folder = founded();
    expect_trust_stores(&folder, "changeit");
    let paths = ["ca/ca.pem", "ca/ca.p12", "ca/ca.jks"].map(|name| folder.join(name)).join("\n");
    assert_eq!(done(&folder, "export --storepass another-1"), paths);
    expect_trust_stores(&folder, "another-1");
    // A renewal keeps the password.
    done(&folder, "renew");
    expect_trust_stores(&folder, "another-1");
    done(&folder, "renew --new-key");
    expect_trust_stores(&folder, "another-1");
}

/// Requests of each kind of key, and requests for more than a certificate of a client.
#[test]
#[ignore = "needs openssl"]
fn requests_by_openssl() {
    let folder = founded();
    let sign = |arguments: &str| outcome(&folder, &format!("sign {} {arguments}", folder.join("csr")));
    for (number, key) in [
        "ec -pkeyopt ec_paramgen_curve:P-256",
        "ec -pkeyopt ec_paramgen_curve:P-384",
        "rsa:2048",
        "rsa:3072",
        "ed25519",
    ]
    .into_iter()
    .enumerate()
    {
        for form in ["PEM", "DER"] {
            let line = format!("req -newkey {key} -nodes -subj /O=x/CN=d{number}-{form} -outform {form}");
            openssl(
                &folder,
                &format!(
                    "{line} -keyout @/key -out @/csr -addext basicConstraints=critical,CA:TRUE -addext subjectAltName=DNS:evil.example"
                ),
            );
            let (status, out, err) = sign("");
            assert_eq!(status, 0, "{key} {form}: {err}");
            fs::write(folder.join("pem"), &out).unwrap();
            assert_eq!(out + "\n", read(&folder, &format!("ca/issued/d{number}-{form}.pem")));
            openssl(&folder, "verify -x509_strict -purpose sslclient -CAfile @/ca/ca.pem @/pem");
            let text = openssl(&folder, "x509 -in @/pem -noout -text");
            assert!(text.contains("CA:FALSE") && text.contains("Version: 3"), "{text}");
            assert!(!text.contains("evil.example") && !text.contains("O = x"), "{text}");
            let ours = openssl(&folder, "x509 -in @/pem -noout -pubkey");
            assert_eq!(ours, openssl(&folder, "pkey -in @/key -pubout"));
        }
    }
    openssl(
        &folder,
        "req -newkey rsa:2048 -nodes -subj /CN=gate.example -keyout @/key -out @/csr -addext subjectAltName=DNS:other.example,IP:10.0.0.1,email:a@b.example",
    );
    let (status, out, err) = sign("--server --days 10");
    assert_eq!(status, 0, "{err}");
    fs::write(folder.join("pem"), &out).unwrap();
    for host in ["-verify_hostname gate.example", "-verify_hostname other.example", "-verify_ip 10.0.0.1"] {
        openssl(&folder, &format!("verify -purpose sslserver {host} -CAfile @/ca/ca.pem @/pem"));
    }
    for (request, sentence) in [
        ("-newkey rsa:1024 -subj /CN=weak", "RSA of 2048 to 8192 bits"),
        ("-newkey rsa:2048 -sha1 -subj /CN=old", "is signed with SHA-1: sign it with SHA-256"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -subj /CN=curve", "is not P-256"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-521 -subj /CN=large", "is not P-256"),
        ("-newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -subj /CN=pss", "is not P-256"),
        ("-newkey ed25519 -subj /O=nameless", "give --name NAME"),
        ("-newkey ed25519 -subj /CN=..", "cannot name a certificate"),
        ("-newkey ed25519 -subj /CN=gate.example", "gate.example has a valid certificate, serial "),
    ] {
        openssl(&folder, &format!("req {request} -nodes -keyout @/key -out @/csr"));
        let (status, out, err) = sign("");
        assert!(status == 1 && out.is_empty() && err.contains(sentence), "{request}: {err}");
    }
    // A request that another key has signed: the key is exchanged in its DER.
    for name in ["one", "two"] {
        openssl(
            &folder,
            &format!("req -newkey ed25519 -nodes -subj /CN=a -outform DER -keyout @/{name}.key -out @/{name}"),
        );
    }
    let (mut forged, two) = (fs::read(folder.join("one")).unwrap(), fs::read(folder.join("two")).unwrap());
    let key_at = forged.windows(5).position(|part| part == [0x2b, 0x65, 0x70, 0x03, 0x21]).unwrap() + 6;
    forged[key_at..key_at + 32].copy_from_slice(&two[key_at..key_at + 32]);
    fs::write(folder.join("csr"), forged).unwrap();
    let (status, _, err) = sign("");
    assert!(status == 1 && err.contains("no good signature of its own key"), "{err}");
    fs::write(folder.join("csr"), vec![b'x'; 70_000]).unwrap();
    assert!(sign("").2.contains("has more than 65536 bytes"));
}

#[test]
fn command_lines_and_their_exit_statuses() {
    let folder = Folder::new();
    let nowhere = "run uakari-ca init first";
    for line in ["issue a", "renew", "revoke a", "token a", "export"] {
        let (status, out, err) = outcome(&folder, line);
        assert!((status, &*out) == (1, "") && err.contains(nowhere), "{line}: {err}");
    }
    let (status, out, _) = outcome(&folder, "status");
    assert!(status == 2 && out.starts_with("invalid: ") && out.contains(nowhere), "{out}");
    assert!(!Path::new(&folder.join("ca")).exists(), "commands that fail make no folder");
    done(&folder, "init --days 30 --name Gate");
    for (line, status, sentence) in [
        ("init", 1, "there is an authority already: run uakari-ca renew, or choose another folder with --dir"),
        ("--x", 64, "--x is not known: see --help"),
        ("make", 64, "make is not known: see --help"),
        ("issue", 64, "NAME is missing: see uakari-ca issue --help"),
        ("issue a b", 64, "b is too much: see uakari-ca issue --help"),
        ("status --server", 64, "--server is no flag of status"),
        ("status --days", 64, "--days"),
        ("issue a --days 0", 64, "--days 0 is not valid: write 1 to 3650"),
        ("issue a --days x", 64, "--days x is no number"),
        ("issue a --server --days 398", 64, "--days 398 is not valid: write 1 to 397"),
        ("issue a --for b", 64, "give --server too"),
        ("issue a --server --for b_c", 1, "\"b_c\" is no host"),
        ("issue a_b --server", 1, "a_b is no host: give the server's names and addresses"),
        ("issue ../a", 1, "\"../a\" cannot name a certificate"),
        ("token a --hours 721", 64, "--hours 721 is not valid: write 1 to 720"),
        ("renew a", 1, "a: no certificate of this authority has this name or serial number"),
        ("renew a --new-key", 64, "--new-key is for the authority"),
        ("revoke a", 1, "a: no certificate of this authority has this name or serial number"),
        ("withdraw a", 1, "no token with this name is outstanding"),
        ("sign /does/not/exist", 1, "/does/not/exist: No such file"),
        ("export --storepass short", 64, "write 6 to 64 printable ASCII characters"),
    ] {
        let (got, out, err) = outcome(&folder, line);
        let is_one_line = err.starts_with("uakari-ca: ") && err.lines().count() == 1;
        assert!((got, &*out) == (status, "") && is_one_line && err.contains(sentence), "{line}: {got} {err}");
    }
    let (status, out, _) = outcome(&folder, "status");
    assert!(status == 1 && out.starts_with("30 days left: run uakari-ca renew\nname: Gate\n"), "{out}");
    let (status, out, _) = outcome(&folder, "status --json");
    assert!(status == 1 && out.contains("\"state\":\"expiring\"") && out.contains("\"days_left\":30"), "{out}");
    assert!(done(&folder, "renew --days 31").contains("\nvalid, 31 days left\n"));

    // A full standard output is a failure, a closed one is none.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = ca(&folder, "token full").stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("standard output: No space left"), "{err}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(ca(&folder, "--help").stdout(writer).output().unwrap().status.code(), Some(0));

    let help = done(&folder, "--help");
    for command in ["init", "status", "renew", "issue", "sign", "token", "withdraw", "revoke", "export", "self-signed"]
    {
        assert!(help.contains(&format!("\n  {command}")), "{help}");
        assert!(done(&folder, &format!("{command} --help")).starts_with(&format!("Usage: uakari-ca {command}")));
    }
    assert_eq!(done(&folder, "--version"), concat!("uakari-ca ", env!("CARGO_PKG_VERSION")));

    let first = done(&folder, "issue a");
    assert_eq!(first, ["ca/issued/a.pem", "ca/issued/a.key"].map(|name| folder.join(name)).join("\n"));
    assert!(outcome(&folder, "issue a").2.contains("run uakari-ca renew a, or uakari-ca revoke "));
    let serial = done(&folder, "revoke a");
    let (status, _, err) = outcome(&folder, &format!("revoke {}", serial.trim()));
    assert!(status == 1 && err.contains("the certificate is revoked already"), "{err}");
    done(&folder, "issue a");
}

/// The manual page and docs/authority.md have each command and each flag.
#[test]
fn the_documents_name_each_command_and_flag() {
    let folder = Folder::new();
    let [page, document] =
        ["docs/man/uakari-ca.8", "docs/authority.md"].map(|path| fs::read_to_string(project().join(path)).unwrap());
    let help = done(&folder, "--help");
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut count = 0;
    for command in commands.lines().map(|line| line.split_whitespace().next().unwrap()) {
        assert!(page.contains(&format!(".It Cm {command}")), "the manual page lacks {command}");
        assert!(document.contains(&format!("| `{command}")), "docs/authority.md lacks {command}");
        for line in done(&folder, &format!("{command} --help")).lines().filter(|line| line.starts_with("  --")) {
            let flag = line.split_whitespace().next().unwrap();
            assert!(page.contains(&format!(".It Fl {}", &flag[1..])), "the manual page lacks {flag}");
            assert!(document.contains(flag), "docs/authority.md lacks {flag}");
            count += 1;
        }
    }
    assert!(count > 15, "{count} flags in {help}");
    let (_, status, _) = outcome(&folder, "status --json");
    let names: Vec<&str> =
        status.split("\":").filter_map(|part| part.rsplit('"').next()).filter(|name| !name.contains('}')).collect();
    assert!(names.len() > 10, "{status}");
    let missing = names.iter().find(|name| !document.contains(&format!("`{name}`")));
    assert_eq!(missing, None, "docs/authority.md lacks a name of {status}");
}

#[test]
fn only_the_owner_reads_keys() {
    use std::os::unix::fs::PermissionsExt;
    let folder = founded();
    done(&folder, "issue a");
    let path = |name: &str| folder.join(&format!("ca/{name}"));
    let public = ["ca.pem", "crl.pem", "ca.p12", "ca.jks", "issued/a.pem"].map(|name| (name, 0o644));
    let private = ["ca.key", "issued/a.key", "index", "lock"].map(|name| (name, 0o600));
    for (name, mode) in [("", 0o755), ("issued", 0o755)].into_iter().chain(public).chain(private) {
        let metadata = fs::metadata(path(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    for (name, mode, remedy) in [
        ("ca.key", 0o640, "chmod 600"),
        ("ca.key", 0o604, "chmod 600"),
        ("", 0o777, "chmod 755"),
        ("issued", 0o777, "chmod 755"),
    ] {
        let kept = fs::metadata(path(name)).unwrap().permissions();
        fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
        let (status, _, err) = outcome(&folder, "issue b");
        assert!(status == 1 && err.contains(remedy), "{err}");
        assert_eq!(outcome(&folder, "status").0, 2);
        fs::set_permissions(path(name), kept).unwrap();
    }
    done(&folder, "issue b");
}

/// Root acts as the owner of the folder, whose files they stay. Another user is told whose it is.
#[test]
fn a_folder_of_another_user() {
    use std::os::unix::fs::{MetadataExt, chown};
    use std::os::unix::process::CommandExt;
    if !Uid::effective().is_root() {
        return skipped("only root has files of other users");
    }
    let nobody = User::from_name("nobody").unwrap().expect("there is nobody");
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let folder = founded();
    done(&folder, "issue a");
    let all = || {
        let listed = ["ca", "ca/issued"].map(|part| fs::read_dir(folder.join(part)).unwrap());
        listed.into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    all().iter().chain([&folder.path().join("ca")]).for_each(|path| chown(path, Some(uid), Some(gid)).unwrap());
    let as_nobody = |line: &str| run(ca(&folder, line).uid(uid).gid(gid), DEADLINE);
    for line in ["token b", "issue b", "renew --new-key", "renew b", "revoke b", "self-signed", "export", "status"] {
        done(&folder, line);
        let finished = as_nobody("token c");
        assert!(finished.status.success(), "after {line}: {finished:?}");
    }
    let owners: Vec<_> = all().into_iter().map(|path| (fs::metadata(&path).unwrap().uid(), path)).collect();
    assert!(owners.len() > 10 && owners.iter().all(|(owner, _)| *owner == uid), "{owners:?}");
    for part in ["ca/issued", "ca"] {
        chown(folder.join(part), Some(0), Some(0)).unwrap();
        let (path, finished) = (folder.join(part), as_nobody("token d"));
        let sentence = format!("{path}: it belongs to UID 0: run it as that user");
        assert!(!finished.status.success() && finished.err.contains(&sentence), "{finished:?}");
    }
}

#[test]
fn twenty_at_once() {
    let folder = founded();
    let start = |line: String| Process::start(&mut ca(&folder, &line));
    let all: Vec<Process> = (0..20).map(|number| start(format!("issue n{number}"))).collect();
    let all: Vec<Finished> = all.into_iter().map(|mut process| process.wait(DEADLINE)).collect();
    for (number, finished) in all.into_iter().enumerate() {
        // Others may have had the lock for long, if the machine is slow.
        if finished.err.contains("another process has locked it for") {
            eprintln!("n{number} is tried again: {finished:?}");
            done(&folder, &format!("issue n{number}"));
        } else {
            assert!(finished.status.success(), "{finished:?}");
        }
    }
    let index = read(&folder, "ca/index");
    let serials: HashSet<&str> =
        index.lines().filter_map(|line| line.strip_prefix("certificate ")).map(|line| &line[..32]).collect();
    assert_eq!(serials.len(), 20, "{index}");
    // One of those that want the same name gets it.
    let same: Vec<Process> = (0..8).map(|_| start("issue same".to_owned())).collect();
    let codes: Vec<_> = same.into_iter().map(|mut process| process.wait(DEADLINE).status.code().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    // Two first starts of the gateway.
    let fresh = Folder::new();
    let both = [0, 1].map(|_| Process::start(&mut ca(&fresh, "self-signed")));
    let outs = both.map(|mut process| process.wait(DEADLINE).out);
    let created = outs.iter().filter(|out| out.contains("\naction=created\n")).count();
    let kept = outs.iter().filter(|out| out.contains("\naction=kept\n")).count();
    assert_eq!((created, kept), (1, 1), "{outs:?}");
    assert!(outs.iter().all(|out| out.lines().count() == 5 && out.contains("\nnames=localhost,")), "{outs:?}");
}

/// The authority works, whatever has happened.
fn expect_working(folder: &Folder, what: &str) {
    let (status, out, err) = outcome(folder, "issue probe");
    assert_eq!(status, 0, "{what}: {err}");
    done(folder, "revoke probe");
    assert_eq!(outcome(folder, "status").0, 0, "{what}: {out}");
}

/// Copies an authority.
fn copy(from: &Folder, to: &Folder) {
    for part in ["ca", "ca/issued"] {
        fs::create_dir(to.join(part)).unwrap();
        fs::set_permissions(to.join(part), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(from.join(part)).unwrap() {
            let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
            if path.is_file() {
                fs::copy(path, Path::new(&to.join(part)).join(name)).unwrap();
            }
        }
    }
}

/// Changes of an authority that has given out `phone`.
const CHANGES: [&str; 7] =
    ["issue new", "renew", "renew --new-key", "renew phone", "revoke phone", "token t", "export --storepass another"];

/// The calls that rename, of which some machines have the last ones only.
const RENAME: &str = "?rename,?renameat,renameat2";

/// The kernel kills the program, or refuses the call, at the n-th call of each kind that changes files.
#[test]
fn killed_or_refused_at_each_system_call() {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skipped("strace cannot be used");
    }
    let model = founded();
    done(&model, "issue phone");
    for line in CHANGES {
        let mut failures = 0;
        for (fault, calls) in
            [("signal=KILL", "fsync"), ("signal=KILL", RENAME), ("error=ENOSPC", "write"), ("error=ENOSPC", "fsync")]
        {
            for number in 1.. {
                let what = format!("{line}, {calls} {number}: {fault}");
                let folder = Folder::new();
                copy(&model, &folder);
                let mut traced = Command::new("strace");
                traced.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={calls}:{fault}:when={number}")]);
                let finished = run(
                    traced.arg(program("uakari-ca")).args(["--dir", &folder.join("ca")]).args(line.split(' ')),
                    DEADLINE,
                );
                expect_working(&folder, &what);
                if finished.status.success() {
                    break;
                }
                let is_of_output = finished.err.starts_with("uakari-ca: standard output: ");
                if fault.contains("ENOSPC") && calls == "write" && !is_of_output {
                    assert!(finished.err.contains("make room and try again"), "{what}: {}", finished.err);
                    assert_eq!(read(&folder, "ca/ca.pem"), read(&model, "ca/ca.pem"), "{what}");
                }
                failures += 1;
            }
        }
        assert!(failures > 4, "{line} failed {failures} times only");
    }
}

/// A file system of a few pages, which is filled up to each size.
#[test]
fn a_full_disk_changes_nothing() {
    if !can_unshare(&["--user", "--map-root-user", "--mount"]) {
        return skipped("no mount namespace can be made");
    }
    let folder = Folder::new();
    fs::create_dir(folder.join("disk")).unwrap();
    let script = r#"
        ca=$1 disk=$2
        mount -t tmpfs -o size=256k,mode=700 tmpfs "$disk" || exit 9
        "$ca" --dir "$disk/ca" init >/dev/null && "$ca" --dir "$disk/ca" issue phone >/dev/null || exit 8
        pages=0
        while head -c 4096 /dev/zero >"$disk/fill.$pages" 2>/dev/null; do pages=$((pages + 1)); done
        rm -f "$disk/fill.$pages"
        failures=0 number=0
        while [ $pages -gt 0 ]; do
            for command in "issue n$number" "token t$number" renew "renew --new-key" export; do
                before=$(cat "$disk/ca/ca.pem" "$disk/ca/index" | cksum)
                if ! "$ca" --dir "$disk/ca" $command >/dev/null 2>&3; then
                    failures=$((failures + 1))
                    [ "$before" = "$(cat "$disk/ca/ca.pem" "$disk/ca/index" | cksum)" ] || { echo "$command changed files"; exit 7; }
                fi
                "$ca" --dir "$disk/ca" status >/dev/null || { echo "after $command:"; "$ca" --dir "$disk/ca" status; exit 6; }
            done
            pages=$((pages - 1)) number=$((number + 1))
            rm -f "$disk/fill.$pages"
        done
        "$ca" --dir "$disk/ca" revoke phone >/dev/null || exit 5
        echo "failures: $failures"
    "#;
    let mut shell = Command::new("unshare");
    shell.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &format!("exec 3>{}; {script}", folder.join("errors")),
    ]);
    // It runs hundreds of commands.
    let finished = run(shell.arg("sh").arg(program("uakari-ca")).arg(folder.join("disk")), SCRIPT_TIME);
    assert!(finished.status.success(), "{finished:?}");
    let failures: usize = finished.out.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let errors = read(&folder, "errors");
    assert_eq!(errors.lines().count(), failures, "{errors}");
    assert!(failures > 2 && errors.lines().all(|line| line.ends_with("make room and try again")), "{errors}");
    assert!(has("unshare"));
}

/// Nothing in an index is trusted.
#[test]
fn a_broken_index_is_reported() {
    let folder = founded();
    done(&folder, "issue a");
    let good = read(&folder, "ca/index");
    let certificate = good.lines().find(|line| line.starts_with("certificate ")).unwrap();
    for (text, reason) in [
        (String::new(), "ends within a line"),
        (good[..good.len() - 1].to_owned(), "ends within a line"),
        (good.replacen("uakari-ca index 1", "uakari-ca index 2", 1), "does not begin with the line"),
        (good.replacen("crl 1", "crl -1", 1), "line 2 that is not understood"),
        (good.replacen("storepass changeit\n", "", 1), "lacks the line storepass"),
        (good.replacen(" client a ", " client ../a ", 1), "is not understood"),
        (good.replacen(" client a ", " root a ", 1), "is not understood"),
        (good.replacen(" valid", " invalid", 1), "is not understood"),
        (good.replacen("Z valid", ".5Z valid", 1), "is not understood"),
        (format!("{good}revoked 00\n"), "is not understood"),
        (format!("{good}x\n"), "is not understood"),
        (format!("{good}\n"), "is not understood"),
        (format!("{good}{}\n", certificate.replacen("certificate ", "certificate 0", 1)), "is not understood"),
        (format!("{good}\u{0}\n"), "is not understood"),
    ] {
        fs::write(folder.join("ca/index"), text).unwrap();
        for line in ["issue b", "renew", "revoke a", "token b"] {
            let (status, _, err) = outcome(&folder, line);
            assert!(status == 1 && err.contains(reason) && err.contains("restore it from a backup"), "{line}: {err}");
        }
        let (status, out, _) = outcome(&folder, "status");
        assert!(status == 2 && out.contains(reason), "{out}");
    }
    fs::write(folder.join("ca/index"), good).unwrap();
    expect_working(&folder, "restored");
}
