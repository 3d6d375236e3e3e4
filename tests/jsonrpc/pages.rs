//! The pages for users and for databases, in a browser.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;
use crate::daemon::{Daemon, configuration};
use crate::foreign::{tool, tools};

/// Plays the server of ouistiti's, for as many clients as come: one read is one request, whose last byte is dropped,
/// and the answer has several lines and a NUL behind it.
fn play_ouistiti(listener: UnixListener) {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 1500];
                while let Ok(size @ 1..) = client.read(&mut buffer) {
                    let request = String::from_utf8_lossy(&buffer[..size - 1]).into_owned();
                    let id: String = match request.trim_end().strip_suffix('}') {
                        Some(text) => {
                            text.split("\"id\":").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect()
                        }
                        None => "null".to_owned(),
                    };
                    let row = "    {\n      \"name\": \"ouistiti\",\n      \"type\": \"table\"\n    }";
                    let answer =
                        format!("{{\n  \"jsonrpc\": \"2.0\",\n  \"result\": [\n{row}\n  ],\n  \"id\": {id}\n}}\0");
                    if client.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
#[ignore = "needs chromium"]
fn users_and_their_database() {
    tool("node_modules/playwright-core");
    let www = project().join("www");
    let link =
        "links = ({ origin = \"^/ouistiti$\"; type = \"unix\"; destination = \"@/ouistiti\"; protocol = \"nul\"; });";
    let text = configuration("", link).replace("@/www", www.to_str().unwrap());
    let daemon = Daemon::start_configured(&text);
    play_ouistiti(UnixListener::bind(daemon.folder().path().join("ouistiti")).unwrap());
    let (_users, password) = authrpc::start(daemon.folder(), "auth", &[]);
    let _sql = jsonsql::start(daemon.folder(), "sql");
    let mut command = foreign::command("node");
    command.arg(project().join("tests/clients/rpc_pages.mjs")).arg(format!("http://127.0.0.1:{}", daemon.port));
    command.args([&daemon.folder().join("screenshots"), &password]).env("UAKARI_TOOLS", tools());
    let finished = run(&mut command, Duration::from_secs(150));
    let (out, err) = (&finished.out, &finished.err);
    assert!(finished.status.success() && out.contains("ok - ") && !out.contains("not ok"), "{out}\n{err}");
}
