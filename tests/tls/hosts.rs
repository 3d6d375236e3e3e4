//! Requests for another host than that of the certificate, and the way from http to https.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use super::{ALL, Server, client_config, configuration, file, new_folder, shake, start, start_configured, wire};
use crate::daemon::{Daemon, patient, uakari};
use crate::foreign::command;
use crate::process::{DEADLINE, expect_eq, free_port, run};
use crate::wire::Wire;

/// A server of this name, with its certificate.
fn named<'a>(keys: &'a str, certificate: &'a str) -> Server<'a> {
    Server { keys, certificate, ..Server::default() }
}

/// The Host must lead to the server whose name the handshake had (RFC 9110 section 15.5.20).
#[test]
fn another_host_is_misdirected() {
    let daemon =
        start(&[named("hostname = \"gate.example\";", "server"), named("hostname = \"other.example\";", "other")]);
    let config = Arc::new(client_config(&daemon, ALL, None));
    for (name, host, wanted) in [
        ("gate.example", "gate.example", 200),
        ("gate.example", &*format!("GATE.example.:{}", daemon.port), 200),
        ("gate.example", "other.example", 421),
        // Hosts without a server of their own are those of the first.
        ("gate.example", "none.example", 200),
        ("gate.example", "127.0.0.1", 200),
        ("other.example", "other.example", 200),
        ("other.example", "gate.example", 421),
        ("other.example", "none.example", 421),
        // No name.
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.0.0.1", "gate.example", 200),
        ("127.0.0.1", "other.example", 421),
    ] {
        for path in ["/", "/echo"] {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).unwrap();
            let mut wire = Wire::over_tls(shake(stream, &config, name).unwrap());
            wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let wanted = if path == "/echo" && wanted == 200 { 404 } else { wanted };
            expect_eq(wire.response().status, wanted, (name, host, path));
        }
    }
}

/// As `another_host_is_misdirected`, for curl.
#[test]
#[ignore = "needs curl"]
fn curl_is_misdirected() {
    let daemon =
        start(&[named("hostname = \"gate.example\";", "server"), named("hostname = \"other.example\";", "other")]);
    for (host, wanted) in [("gate.example", "200"), ("other.example", "421")] {
        let mut curl = command("curl");
        curl.args(["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]);
        curl.arg(file(&daemon, "root.crt")).args(["-H", &format!("Host: {host}")]);
        curl.args(["--connect-to", &format!("gate.example:443:127.0.0.1:{}", daemon.port), "https://gate.example/"]);
        let finished = run(&mut curl, DEADLINE);
        assert_eq!((&*finished.out, &*finished.err), (wanted, ""), "{host}");
    }
}

/// A plain server beside one with TLS. Its `redirect` names the other's port, which 0 could not be.
fn redirecting() -> Daemon {
    let port = free_port("127.0.0.1");
    let secured = Server {
        listen: &format!("127.0.0.1:{port}"),
        keys: "redirect = { options = \"hsts\"; };",
        ..Server::default()
    };
    let text = configuration("", &[secured]);
    let plain = "servers = ({ listen = \"127.0.0.1:0\"; redirect = { options = \"hsts\"; }; }, ";
    start_configured(&text.replace("servers = (", plain))
}

#[test]
#[ignore = "needs curl"]
fn curl_is_redirected() {
    let daemon = redirecting();
    let curl = |arguments: &[&str]| {
        let mut curl = command("curl");
        curl.args(["-sS", "-L", "--noproxy", "*", "-o", "/dev/null", "--cacert"]).arg(file(&daemon, "root.crt"));
        curl.args(["-w", "%{http_code} %{url_effective} %{redirect_url}%{ssl_verify_result}"]).args(arguments);
        let finished = run(&mut curl, DEADLINE);
        assert!(finished.status.success(), "{finished:#?}");
        finished.out
    };
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", daemon.port);
    let got = curl(&[&url("/index.html?a=b%20c")]);
    assert!(got.starts_with("200 https://127.0.0.1:") && got.ends_with("/index.html?a=b%20c 0"), "{got}");
    // The method stays.
    let got = curl(&["-X", "DELETE", &url("/index.html")]);
    assert!(got.starts_with("405 https://127.0.0.1:"), "{got}");
}

#[test]
fn requests_are_redirected() {
    let daemon = redirecting();
    let lines = daemon.announced().wait(|lines| (lines.len() == 2).then(|| lines.to_vec())).unwrap();
    let secured = lines.iter().find_map(|line| line.strip_prefix("listening on https://")).unwrap();
    let port: u16 = secured.rsplit(':').next().unwrap().parse().unwrap();
    for (method, target, host, status, location) in [
        ("GET", "/a/b?c=d", "gate.example", 301, "https://gate.example:PORT/a/b?c=d"),
        ("POST", "/a", "gate.example:80", 308, "https://gate.example:PORT/a"),
        ("GET", "//evil.example/", "gate.example", 301, "https://gate.example:PORT//evil.example/"),
        ("GET", "http://gate.example/", "gate.example", 301, "https://gate.example:PORT/"),
        ("GET", "http://evil.example/", "gate.example", 400, ""),
        ("GET", "/", "user@evil.example", 400, ""),
    ] {
        let mut wire = Wire::connect(daemon.port);
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
        let response = wire.response();
        let location = location.replace("PORT", &port.to_string());
        expect_eq((response.status, response.field("Location")), (status, &*location), (method, target, host));
        assert_eq!(response.field("Strict-Transport-Security"), "", "{response:?}");
    }
    // A handshake too, which clients may follow or not.
    let response = daemon.upgrade("/echo", &[]);
    expect_eq(response.status, 301, "a handshake");
    let mut wire = wire(port, client_config(&daemon, ALL, None));
    let response = wire.get("/");
    assert!(response.field("Strict-Transport-Security").starts_with("max-age="), "{response:?}");
}

/// A file as ouistiti's own samples of TLS, whose certificate has expired, with a password.
#[test]
#[ignore = "needs curl"]
fn a_sample_of_ouistiti_is_served() {
    let text = r#"servers = ({
        hostname = "www.ouistiti.local";
        addr = "127.0.0.1";
        port = PORT;
        keepalivetimeout = 5;
        version = "HTTP11";
        auth = { realm = "here"; type = "Basic"; file = "@/passwd"; unprotect = "^trust/*"; options = "cookie"; };
        document = { docroot = "@/www"; allow = ".html,.css,.js,*"; deny = "^.htaccess,.php"; options = "range,rest"; };
        openssl = {
            crtfile = "@/tls/expired.crt";
            keyfile = "@/tls/expired.key";
            cachain = "@/tls/inter.crt";
            dhmfile = "@/tls/dhparam.key";
        };
        unprotected = ("auth");
    }, {
        hostname = "www.ouistiti.local";
        listen = "127.0.0.1:0";
        keepalivetimeout = 5;
        version = "HTTP11";
        redirect = { options = "hsts"; };
        clientfilter = { deny = "192.0.2.125"; };
        unprotected = ("clientfilter");
    });"#;
    let port = free_port("127.0.0.1");
    let folder = new_folder();
    fs::write(folder.join("passwd"), "foo:bar:users:/home/foo\n").unwrap();
    let text = format!("limits = {{ {} }}; {}", patient(""), text.replace("PORT", &port.to_string()));
    let daemon = Daemon::start_configured_by(folder, &text, uakari());
    for warning in ["openssl.dhmfile: is not served", "unprotected: auth is served: leave it out", "expired on "] {
        daemon.log().wait_for(&[warning]);
    }
    let line = daemon.announced().wait_for(&["listening on http://127.0.0.1:"]);
    let plain = line.rsplit(':').next().unwrap();
    let mut curl = command("curl");
    curl.args([
        "-sSk",
        "--location-trusted",
        "-u",
        "foo:bar",
        "--noproxy",
        "*",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{url_effective}",
    ]);
    curl.args(["--connect-to", &format!("www.ouistiti.local:{port}:127.0.0.1:{port}")]);
    curl.args(["--connect-to", &format!("www.ouistiti.local:{plain}:127.0.0.1:{plain}")]);
    let finished = run(curl.arg(format!("http://www.ouistiti.local:{plain}/index.html")), DEADLINE);
    let wanted = format!("200 https://www.ouistiti.local:{port}/index.html");
    assert_eq!((&*finished.out, &*finished.err), (&*wanted, ""));
}
