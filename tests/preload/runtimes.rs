//! Unchanged servers on foreign runtimes: Node, libuv, uvloop, Rust, tokio and Java.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Server, compile};
use crate::client::Client;
use crate::daemon::{program, project};
use crate::foreign::{command, need, tool};
use crate::process::{Folder, eventually};

const CLIENTS: usize = 200;
/// Clients at once.
const CROWD: usize = 16;

/// How a client goes.
fn leave(mut client: Client, number: usize) {
    match number % 3 {
        // Abruptly: a reset, or an end without a close frame.
        0 => {
            if number.is_multiple_of(2) {
                setsockopt(client.wire.stream(), sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
            }
        }
        1 => client.finish(1000),
        _ => {
            client.text("leave");
            client.expect_close(1000);
            client.wire.expect_end();
        }
    }
}

/// Clients connect and leave in three ways; for each that left the server writes a file with a descriptor that may have
/// the client's number.
fn expect_files(start: impl FnOnce(&Folder, &str, &str) -> Command) {
    let mut files = String::new();
    let server = Server::start(|folder, path| {
        files = folder.join("files");
        std::fs::create_dir(&files).unwrap();
        start(folder, path, &files)
    });
    let echo = |client: &mut Client, text: &str| {
        client.text(text);
        client.expect_text(text);
    };
    let mut there: VecDeque<(usize, Client)> = VecDeque::new();
    for number in 0..CLIENTS {
        let mut client = server.client();
        echo(&mut client, &format!("client {number}"));
        there.push_back((number, client));
        if there.len() == CROWD {
            // Neither the oldest nor the newest.
            let (number, mut client) = there.remove(number % CROWD).unwrap();
            echo(&mut client, "still here");
            leave(client, number);
        }
    }
    for (number, mut client) in there {
        echo(&mut client, "still here");
        leave(client, number);
    }
    for number in 0..CLIENTS {
        let path = Path::new(&files).join(format!("client {number}"));
        let wanted = format!("client {number} has left\n").repeat(100);
        eventually("the file is whole", || std::fs::read_to_string(&path).is_ok_and(|text| text == wanted));
    }
}

#[test]
#[ignore = "needs node"]
fn nodes_net() {
    expect_files(|_, path, files| {
        let mut command = command("node");
        command.arg(project().join("tests/preload/node.js")).args([path, files]);
        command
    });
}

#[test]
#[ignore = "needs libuv1-dev"]
fn libuv() {
    need("libuv1-dev");
    expect_files(|folder, path, files| compile(folder, path, "uv", &["-luv"], &[files], &[]));
}

#[test]
#[ignore = "needs uvloop"]
fn uvloop() {
    expect_files(|_, path, files| {
        let mut command = command(tool("venv/bin/python"));
        command.arg(project().join("tests/preload/uvloop_server.py")).args([path, files]);
        command
    });
}

/// A server that prints the address of each client from accept(2).
fn expect_unnamed(server: &Server, said: &str) {
    server.expect_echo();
    server.process.out.wait_for(&[said]);
    let text = server.process.out.text();
    assert!(text.lines().filter(|line| line.starts_with("peer ")).all(|line| line == said), "{text}");
}

#[test]
fn rusts_standard_library() {
    let server = Server::start(|_, path| {
        let mut command = Command::new(program("examples/std_echo"));
        command.arg(path);
        command
    });
    expect_unnamed(&server, "peer (unnamed)");
}

#[test]
fn tokio() {
    let server = Server::start(|_, path| {
        let mut command = Command::new(program("examples/tokio_echo"));
        command.arg(path);
        command
    });
    expect_unnamed(&server, "peer (unnamed)");
}

#[test]
#[ignore = "needs default-jdk-headless"]
fn javas_nio() {
    let server = Server::start(|_, path| {
        let mut command = command("java");
        command.arg(project().join("tests/preload/Echo.java")).arg(path);
        command
    });
    expect_unnamed(&server, "peer ''");
}
