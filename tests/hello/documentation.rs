//! The record and the examples of docs/backends.md.

use std::process::Command;

use super::parser::{Hello, parse_hello};
use crate::daemon::{Daemon, project, shown};
use crate::devices::connect_eventually;
use crate::foreign;
use crate::process::{DEADLINE, Folder, Process, run};

#[test]
fn the_record() {
    let text = std::fs::read_to_string(project().join("docs/backends.md")).unwrap();
    let rest = text.split("asked for `ws://h:80/gps?q=1`:\n\n```\n").nth(1).unwrap();
    let lines = rest.split("\n```").next().unwrap().lines();
    let bytes = lines.flat_map(|line| line.split("  ").next().unwrap().split(' '));
    let record: Vec<u8> = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let expected = Hello {
        client: Some(([192, 0, 2, 7], 12345).into()),
        local: Some(([127, 0, 0, 1], 80).into()),
        host: "h:80".into(),
        id: "c12".into(),
        path: "/gps".into(),
        query: "q=1".into(),
        ..Hello::default()
    };
    assert_eq!(parse_hello(&record).unwrap(), expected);
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
        let finished = run(&mut command, DEADLINE);
        assert!(finished.status.success(), "{command:?}: {}", finished.err);
    }
}
