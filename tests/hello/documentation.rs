//! The record and the examples of docs/backends.md.

use std::process::Command;

use uakari::route::hello;
use uakari::tls::{ClientFacts, TlsFacts};
use uakari::types::Address;

use super::parser::{Hello, parse_hello};
use crate::daemon::{Daemon, project, shown};
use crate::devices::connect_eventually;
use crate::foreign::{self, SCRIPT_TIME};
use crate::process::{Folder, Process, run};

/// The bytes of the record that this text introduces.
fn record_after(introduction: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(project().join("docs/backends.md")).unwrap();
    let rest = text.split(&format!("{introduction}:\n\n```\n")).nth(1).unwrap();
    let lines = rest.split("\n```").next().unwrap().lines();
    let bytes = lines.flat_map(|line| line.split("  ").next().unwrap().split(' '));
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_record() {
    let expected = Hello {
        client: Some(([192, 0, 2, 7], 12345).into()),
        local: Some(([127, 0, 0, 1], 80).into()),
        host: "h:80".into(),
        id: "c12".into(),
        path: "/gps".into(),
        query: "q=1".into(),
        ..Hello::default()
    };
    assert_eq!(parse_hello(&record_after("asked for `ws://h:80/gps?q=1`")).unwrap(), expected);
}

#[test]
fn the_record_of_a_tls_client() {
    let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
    let fingerprint = "49915e0d7d4b402e3017d010bc1c0e83cac6c797d6c16e66340fe3268693a6a1";
    let tls = TlsFacts {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        sni: "h".into(),
        alpn: "http/1.1".into(),
        client: Some(ClientFacts {
            subject: "CN=ann".into(),
            common_name: "ann".into(),
            serial: "01ff".into(),
            fingerprint: fingerprint.into(),
        }),
        ..TlsFacts::default()
    };
    let hello =
        hello::Hello { path: "/gps".into(), host: "h:443".into(), tls: Some(Box::new(tls)), ..Default::default() };
    let record = hello.encode(tcp("192.0.2.7:12345"), tcp("127.0.0.1:443"), 12);
    assert_eq!(record_after("for `wss://h:443/gps`"), *record);
    let expected = Hello {
        client: Some(([192, 0, 2, 7], 12345).into()),
        local: Some(([127, 0, 0, 1], 443).into()),
        host: "h:443".into(),
        id: "c12".into(),
        path: "/gps".into(),
        tls_version: "TLSv1.3".into(),
        tls_cipher: "TLS_AES_128_GCM_SHA256".into(),
        sni: "h".into(),
        alpn: "http/1.1".into(),
        is_verified: true,
        common_name: "ann".into(),
        subject: "CN=ann".into(),
        serial: "01ff".into(),
        fingerprint: fingerprint.into(),
        ..Hello::default()
    };
    assert_eq!(parse_hello(&record).unwrap(), expected);
}

/// The readers have the fields of the tables, by the same names.
#[test]
fn the_fields_of_the_tables() {
    let text = std::fs::read_to_string(project().join("docs/backends.md")).unwrap();
    let section = text.split("\n## Who the client is\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells =
        section.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").collect::<Vec<_>>());
    let names: Vec<&str> = cells.filter(|cells| cells.len() == 3).map(|cells| cells[1]).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names.len(), 16, "{names:?}");
    for (reader, before, after) in
        [("hello.py", "    ", ": str = "), ("hello.h", "    const char *", ";"), ("hello.rs", "    pub ", ": String,")]
    {
        let reader_text = std::fs::read_to_string(project().join("utils/hello").join(reader)).unwrap();
        let missing: Vec<&&str> =
            names.iter().filter(|name| !reader_text.contains(&format!("\n{before}{name}{after}"))).collect();
        assert!(missing.is_empty(), "{reader} lacks {missing:?}");
        assert!(reader_text.contains("is_verified"), "{reader}");
    }
}

/// A daemon, and the backend of the page that contains this text.
fn serve(part: &str, flags: &[&str]) -> (Daemon, Process) {
    let daemon = Daemon::start(flags);
    let path = daemon.socket("server");
    let names = ["/tmp/websocket/who", "/tmp/websocket/lines"];
    let text = names.iter().fold(shown("python", part), |text, name| text.replace(name, path.to_str().unwrap()));
    let mut command = foreign::command("python3");
    command.env("PYTHONPATH", project().join("utils/hello")).env("PYTHONDONTWRITEBYTECODE", "1");
    let server = Process::start(command.args(["-c", &text]));
    (daemon, server)
}

#[test]
#[ignore = "needs python3"]
fn the_documented_python_servers() {
    let (daemon, _server) = serve("read_hello(client)", &["--hello"]);
    let mut client = connect_eventually(&daemon, "/server?q=1");
    let port = client.wire.stream().local_addr().unwrap().port();
    client.expect_text(&format!("You are ('127.0.0.1', {port}) and asked for '/server', 'q=1'."));

    let (daemon, _server) = serve("you said", &["--protocol", "lines"]);
    let mut client = connect_eventually(&daemon, "/server");
    for text in ["hello", "", "again"] {
        client.text(text);
        client.expect_text(&format!("you said {text}"));
    }
}

#[test]
fn the_documented_compiled_servers() {
    let folder = Folder::new();
    let header = project().join("utils/hello");
    std::fs::write(folder.join("serve.c"), shown("c", "hello_read")).unwrap();
    std::fs::write(folder.join("serve.rs"), shown("rust", "read_hello")).unwrap();
    std::fs::copy(header.join("hello.rs"), folder.join("hello.rs")).unwrap();
    let (c, include) = (folder.join("serve.c"), format!("-I{}", header.display()));
    let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", &include];
    let rust = ["--edition", "2021", "--crate-type", "lib", "--emit", "metadata", "--allow", "dead_code"];
    let mut commands = vec![Command::new("cc"), Command::new("rustc")];
    commands[0].args(["-std=c99"]).args(warnings).arg(&c);
    commands[1].args(rust).arg(folder.join("serve.rs")).current_dir(folder.path());
    match Command::new("c++").arg("--version").output() {
        Ok(_) => {
            let mut command = Command::new("c++");
            command.args(["-std=c++11", "-x", "c++"]).args(warnings).arg(&c);
            commands.push(command);
        }
        Err(_) => eprintln!("there is no C++ compiler here; the C reader was not shown to one"),
    }
    for mut command in commands {
        let finished = run(&mut command, SCRIPT_TIME);
        assert!(finished.status.success(), "{command:?}: {}", finished.err);
    }
}
