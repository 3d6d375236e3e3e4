//! Backends that do not receive the clients' sockets: the log names them, and the remedy.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use super::{DIRECT, converse, sockaddr};
use crate::client::Client;
use crate::daemon::{Daemon, configuration};
use crate::process::eventually;
use crate::receiver::{Given, receive, take};
use crate::server::{Backend, Listener};

const ANSWERED: &str = "the backend answered the hand-over's record";
const UNREAD: &str = "the backend closed its connection without receiving its client";

/// Whether the gateway still reads what the backend sends on the connection that brought its client.
fn is_watched(connection: &Backend) -> bool {
    match connection.stream().write(b"answer") {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        Err(error) => panic!("{error}"),
    }
}

/// Takes a client as `take` does, and keeps the connection that brought it.
fn take_and_keep(server: &Listener) -> (Given, Backend) {
    let connection = server.accept();
    connection.wait_for_input();
    let given = receive(&connection).unwrap().expect("a descriptor");
    (given, connection)
}

fn warnings(daemon: &Daemon) -> Vec<String> {
    let text = daemon.log().text();
    text.lines().filter(|line| line.contains(ANSWERED) || line.contains(UNREAD)).map(str::to_owned).collect()
}

#[test]
fn a_plain_server_is_named_with_the_remedy() {
    let daemon = Daemon::start(DIRECT);
    // What is known of another name of the same docroot says nothing of this one.
    let files = daemon.open_files();
    let good = daemon.listen("good");
    let (mut client, mut given) = (daemon.connect("/good"), take(&good));
    converse(&mut client, &mut given);
    eventually("the hand-over to the good one was watched", || daemon.open_files() == files);
    let _plain = daemon.echo("plain", &[]);
    for number in 2..4 {
        daemon.connect("/plain").wire.expect_end();
        let client = format!("c{number} ");
        let line = daemon.log().wait_for(&["warn", &client, "plain", ANSWERED]);
        for part in ["(1006)", "libwebsocket.so.1", "websocket.h", "direct"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
    assert_eq!(warnings(&daemon).len(), 2);
}

#[test]
fn a_server_that_closes_without_reading_is_named() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("closes");
    let mut client = daemon.connect("/closes");
    let connection = server.accept();
    connection.wait_for_input();
    drop(connection);
    client.wire.expect_end();
    daemon.log().wait_for(&["warn", "c1 ", "closes", UNREAD, "libwebsocket.so.1"]);
}

#[test]
fn one_success_is_enough() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let files = daemon.open_files();
    let (mut client, (mut given, connection)) = (daemon.connect("/echo"), take_and_keep(&server));
    // The client is the server's at once, and its end is not delayed.
    converse(&mut client, &mut given);
    daemon.log().wait_for(&["c1 end", "handed over to the server"]);
    drop(given);
    client.wire.expect_end();
    // The end of the connection without a byte is what a receiver does.
    connection.stream().shutdown(Shutdown::Both).unwrap();
    eventually("the watch has ended", || daemon.open_files() == files);
    let (_client, (_given, connection)) = (daemon.connect("/echo"), take_and_keep(&server));
    daemon.log().wait_for(&["c2 end", "handed over to the server"]);
    assert!(!is_watched(&connection), "the second hand-over is watched");
    assert_eq!(warnings(&daemon), [""; 0]);
}

#[test]
fn one_hand_over_is_watched_at_a_time_and_not_for_long() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let files = daemon.open_files();
    let all: Vec<_> = (0..8).map(|_| (daemon.connect("/echo"), take_and_keep(&server))).collect();
    eventually("all but one are closed", || daemon.open_files() <= files + 1);
    eventually("nothing is left of the watch", || daemon.open_files() == files);
    assert!(all.iter().all(|(_, (_, connection))| !is_watched(connection)));
    // Nothing was learned: the next one is watched.
    let (_client, (_given, connection)) = (daemon.connect("/echo"), take_and_keep(&server));
    assert!(is_watched(&connection));
    daemon.log().wait_for(&["warn", "c9 ", ANSWERED]);
}

/// A client that is being watched takes no other one's place.
#[test]
fn what_is_watched_is_no_client() {
    let daemon =
        Daemon::start_configured(&configuration("clients = 1;", r#"options = "direct"; limits = { clients = 1; };"#));
    let server = daemon.listen("echo");
    let mut all = Vec::new();
    for number in 1..4 {
        all.push((daemon.connect("/echo"), take_and_keep(&server)));
        daemon.log().wait_for(&[&format!("c{number} end"), "handed over to the server"]);
    }
}

#[test]
fn a_stop_waits_for_no_watch() {
    let mut daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let (mut client, (mut given, _connection)) = (daemon.connect("/echo"), take_and_keep(&server));
    daemon.log().wait_for(&["c1 end", "handed over to the server"]);
    assert!(daemon.stop().status.success());
    converse(&mut client, &mut given);
    assert_eq!(warnings(&daemon), [""; 0]);
}

/// The record reaches a server that reads it with read(2), and the end of the stream behind it.
#[test]
fn a_watched_server_sees_the_end_as_ever() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let mut client: Client = daemon.connect("/echo");
    let address = client.wire.stream().local_addr().unwrap();
    let mut connection = server.accept();
    connection.expect(sockaddr(address));
    client.wire.expect_end();
    connection.expect_end();
}
