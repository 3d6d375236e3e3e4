//! Libraries and browsers: each trusts the test authority, fetches a page and echoes a message; then the refusals of
//! either side.

use std::process::Command;

use super::{MEMBERS, Server, file, start};
use crate::daemon::{Daemon, project};
use crate::foreign::{SCRIPT_TIME, command, tool, tools};
use crate::process::{Process, run};

/// The certificates of the daemons: a good one, and those that clients refuse. `members` is a good one too, but its
/// daemon requires certificates of clients.
const SCENE: [&str; 6] = ["server", "expired", "early", "other", "selfsigned", "members"];

struct Scene {
    daemons: Vec<(&'static str, Daemon)>,
    _backends: Vec<Process>,
}

impl Scene {
    fn new() -> Scene {
        let www = project().join("www");
        let daemons = SCENE.map(|name| {
            let (websocket, www) = ("protocol = \"frames\";", www.to_str().unwrap());
            let server = Server { websocket, www, ..Server::default() };
            let server = match name {
                "members" => Server { tls: MEMBERS, ..server },
                certificate => Server { certificate, ..server },
            };
            (name, start(&[server]))
        });
        let backends = daemons.iter().map(|(_, daemon)| daemon.echo("echo", &["--protocol", "frames"])).collect();
        Scene { daemons: daemons.into(), _backends: backends }
    }

    fn daemon(&self, name: &str) -> &Daemon {
        &self.daemons.iter().find(|daemon| daemon.0 == name).unwrap().1
    }
}

/// A daemon of the scene, the certificate that the client presents, and what the client's lines for the page, the message
/// and the resumption contain.
type Case<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Runs a script of the kind of `tests/clients/tls_client.py`.
fn expect(mut script: Command, cases: &[Case]) {
    let scene = Scene::new();
    let target = |&(server, presented, _): &Case| {
        let separator = if presented.is_empty() { "" } else { ":" };
        format!("{}{separator}{presented}", scene.daemon(server).port)
    };
    script.arg(file(scene.daemon("server"), "")).args(cases.iter().map(target)).env("UAKARI_TOOLS", tools());
    let finished = run(&mut script, SCRIPT_TIME);
    assert!(finished.status.success(), "{script:?}: {finished:?}");
    for case in cases {
        for (act, wanted) in ["page", "echo", "again"].into_iter().zip(case.2) {
            let begin = format!("{} {act}: ", target(case));
            let line = finished.out.lines().find_map(|line| line.strip_prefix(&begin));
            assert!(
                line.is_some_and(|line| line.contains(wanted)),
                "{case:?}: no {wanted:?} in {line:?}: {finished:#?}"
            );
        }
    }
}

fn script(program: impl AsRef<std::ffi::OsStr>, name: &str) -> Command {
    let mut command = command(program);
    command.arg(project().join("tests/clients").join(name));
    command
}

const GOOD: &[&str] = &["200", "hello"];
const RESUMED: &[&str] = &["200", "hello", "resumed"];

#[test]
#[ignore = "needs python3"]
fn python() {
    // The library does not pass on why.
    let ended = "connection closed while reading HTTP status line";
    expect(
        script(tool("venv/bin/python"), "tls_client.py"),
        &[
            ("server", "", RESUMED),
            ("expired", "", &["certificate has expired"; 2]),
            ("early", "", &["certificate is not yet valid"; 2]),
            ("other", "", &["certificate is not valid for '127.0.0.1'"; 2]),
            ("selfsigned", "", &["self-signed certificate"; 2]),
            ("members", "client", RESUMED),
            ("members", "", &["CERTIFICATE_REQUIRED", ended]),
            ("members", "expired-client", &["CERTIFICATE_EXPIRED", ended]),
            ("members", "revoked-client", &["CERTIFICATE_REVOKED", ended]),
            ("members", "foreign-client", &["UNKNOWN_CA", ended]),
        ],
    );
}

#[test]
#[ignore = "needs node"]
fn node() {
    expect(
        script("node", "tls_client.cjs"),
        &[
            ("server", "", RESUMED),
            ("expired", "", &["CERT_HAS_EXPIRED"; 2]),
            ("early", "", &["CERT_NOT_YET_VALID"; 2]),
            ("other", "", &["ERR_TLS_CERT_ALTNAME_INVALID"; 2]),
            ("selfsigned", "", &["DEPTH_ZERO_SELF_SIGNED_CERT"; 2]),
            ("members", "client", RESUMED),
            ("members", "", &["alert certificate required"; 2]),
            ("members", "expired-client", &["alert certificate expired"; 2]),
            ("members", "revoked-client", &["alert certificate revoked"; 2]),
            ("members", "foreign-client", &["alert unknown ca"; 2]),
        ],
    );
}

#[test]
#[ignore = "needs java"]
fn java() {
    expect(
        script("java", "TlsClient.java"),
        &[
            ("server", "", GOOD),
            ("expired", "", &["CertificateExpiredException"; 2]),
            ("early", "", &["CertificateNotYetValidException"; 2]),
            ("other", "", &["No subject alternative names matching IP address 127.0.0.1 found"; 2]),
            ("selfsigned", "", &["unable to find valid certification path"; 2]),
            ("members", "client", GOOD),
            ("members", "", &["certificate_required"; 2]),
            ("members", "expired-client", &["certificate_expired"; 2]),
            ("members", "revoked-client", &["certificate_revoked"; 2]),
            // It presents only a certificate of the authorities that the gateway names.
            ("members", "foreign-client", &["certificate_required"; 2]),
        ],
    );
}

#[test]
#[ignore = "needs curl"]
fn curl() {
    let shaken = &["200", "101", "resumed"];
    expect(
        script("bash", "tls_client.sh"),
        &[
            ("server", "", shaken),
            ("expired", "", &["certificate has expired"; 2]),
            ("early", "", &["certificate is not yet valid"; 2]),
            ("other", "", &["no alternative certificate subject name matches target host name '127.0.0.1'"; 2]),
            ("selfsigned", "", &["self-signed certificate"; 2]),
            ("members", "client", shaken),
            ("members", "", &["alert certificate required"; 2]),
            ("members", "expired-client", &["alert certificate expired"; 2]),
            ("members", "revoked-client", &["alert certificate revoked"; 2]),
            ("members", "foreign-client", &["alert unknown ca"; 2]),
        ],
    );
}

#[test]
#[ignore = "needs chromium"]
fn chromium() {
    tool("node_modules/playwright-core");
    expect(
        script("node", "tls_chromium.mjs"),
        &[
            ("server", "", GOOD),
            ("expired", "", &["ERR_CERT_DATE_INVALID"; 2]),
            ("early", "", &["ERR_CERT_DATE_INVALID"; 2]),
            ("other", "", &["ERR_CERT_COMMON_NAME_INVALID"; 2]),
            ("selfsigned", "", &["ERR_CERT_AUTHORITY_INVALID"; 2]),
            // Its error depends on what it does when the alert arrives.
            ("members", "", &["net::ERR_", "closed with 1006"]),
        ],
    );
}

#[test]
#[ignore = "needs firefox and openssl"]
fn firefox() {
    tool("node_modules/ws");
    // The code of a TLS failure, which tells no reason (RFC 6455 section 7.4.1).
    let failed = "closed with 1015";
    expect(
        script("node", "tls_firefox.mjs"),
        &[
            ("server", "", GOOD),
            ("expired", "", &["SEC_ERROR_EXPIRED_CERTIFICATE", failed]),
            ("early", "", &["MOZILLA_PKIX_ERROR_NOT_YET_VALID_CERTIFICATE", failed]),
            ("other", "", &["SSL_ERROR_BAD_CERT_DOMAIN", failed]),
            ("selfsigned", "", &["MOZILLA_PKIX_ERROR_SELF_SIGNED_CERT", failed]),
            ("members", "", &["SSL_ERROR_RX_CERTIFICATE_REQUIRED_ALERT", failed]),
            ("members", "client", GOOD),
        ],
    );
}
