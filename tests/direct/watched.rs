//! Backends that do not receive the clients' sockets: the log names them and the remedy.

use std::fs::Permissions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{DIRECT, converse, sockaddr};
use crate::client::{Client, Frame};
use crate::daemon::{Daemon, configuration};
use crate::handover::{Given, receive, take};
use crate::process::{eventually, skipped};
use crate::server::{Backend, Kind, Listener};

const ANSWERED: &str = "the backend answered the hand-over's record";
const UNREAD: &str = "the backend closed its connection before it had read all of the hand-over's record";

/// Whether the gateway still holds the connection of the hand-over.
fn is_watched(connection: &Backend) -> bool {
    let mut polled = [PollFd::new(connection.stream().as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).unwrap();
    !polled[0].any().unwrap_or_default()
}

/// As `take`, but returns the connection too.
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
fn a_backend_without_hand_over_is_reported_with_the_remedy() {
    let daemon = Daemon::start(DIRECT);
    // The result of another name of the docroot does not count.
    let files = daemon.open_files();
    let good = daemon.listen("good");
    let (mut client, mut given) = (daemon.connect("/good"), take(&good));
    converse(&mut client, &mut given);
    eventually("the hand-over to the good one was watched", || daemon.open_files() == files);
    let _plain = daemon.echo("plain", &[]);
    // On a busy machine it may take longer than a watch.
    eventually("the log names the backend", || {
        daemon.connect("/plain").wire.expect_end();
        !warnings(&daemon).is_empty()
    });
    let line = warnings(&daemon).remove(0);
    for part in ["warn  c", "\"plain\"", ANSWERED, "(1006)", "libwebsocket.so.1", "websocket.h", "direct"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn a_backend_that_closes_without_reading_is_reported() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("closes");
    eventually("the log names the backend", || {
        let mut client = daemon.connect("/closes");
        let connection = server.accept();
        connection.wait_for_input();
        drop(connection);
        client.wire.expect_end();
        !warnings(&daemon).is_empty()
    });
    daemon.log().wait_for(&["warn", "\"closes\"", UNREAD, "libwebsocket.so.1"]);
}

#[test]
fn one_success_is_enough() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let files = daemon.open_files();
    // The client is served at once, and its end is not delayed.
    let (mut client, (mut given, connection)) = (daemon.connect("/echo"), take_and_keep(&server));
    converse(&mut client, &mut given);
    daemon.log().wait_for(&["c1 end", "handed over to the backend"]);
    drop(given);
    client.wire.expect_end();
    drop(connection);
    eventually("the first receiver that closed in time is known", || {
        eventually("the watch has ended", || daemon.open_files() == files);
        let (_client, (_given, connection)) = (daemon.connect("/echo"), take_and_keep(&server));
        eventually("the gateway has let go of the client", || daemon.open_files() <= files + 1);
        !is_watched(&connection)
    });
    assert_eq!(warnings(&daemon), [""; 0]);
}

#[test]
fn one_hand_over_is_watched_at_a_time_until_a_timeout() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let files = daemon.open_files();
    let all: Vec<_> = (0..8).map(|_| (daemon.connect("/echo"), take_and_keep(&server))).collect();
    eventually("all but one are closed", || daemon.open_files() <= files + 1);
    eventually("nothing is left of the watch", || daemon.open_files() == files);
    assert!(all.iter().all(|(_, (_, connection))| !is_watched(connection)));
    // Without a result a later hand-over is watched.
    eventually("another hand-over is watched", || {
        let (_client, (_given, connection)) = (daemon.connect("/echo"), take_and_keep(&server));
        let _ = connection.stream().write(b"answer");
        !warnings(&daemon).is_empty()
    });
}

/// A new file may get the inode number of the old one, on ext4 always.
#[test]
fn a_backend_without_hand_over_that_replaces_a_correct_one_is_reported() {
    let daemon = Daemon::start(DIRECT);
    let files = daemon.open_files();
    let good = daemon.listen("server");
    eventually("the good one is known", || {
        let (_client, (_given, connection)) = (daemon.connect("/server"), take_and_keep(&good));
        drop(connection);
        eventually("the watch has ended", || daemon.open_files() == files);
        let (_client, (_given, connection)) = (daemon.connect("/server"), take_and_keep(&good));
        eventually("the gateway has let go of the client", || daemon.open_files() <= files + 1);
        !is_watched(&connection)
    });
    drop(good);
    let _plain = daemon.echo("server", &[]);
    eventually("the log names the backend", || {
        daemon.connect("/server").wire.expect_end();
        !warnings(&daemon).is_empty()
    });
}

/// A watched connection does not count as a client.
#[test]
fn a_watched_connection_is_not_counted_as_a_client() {
    let daemon =
        Daemon::start_configured(&configuration("clients = 1;", r#"options = "direct"; limits = { clients = 1; };"#));
    let server = daemon.listen("echo");
    let mut all = Vec::new();
    for number in 1..4 {
        all.push((daemon.connect("/echo"), take_and_keep(&server)));
        daemon.log().wait_for(&[&format!("c{number} end"), "handed over to the backend"]);
    }
}

#[test]
fn shutdown_does_not_wait_for_watched_connections() {
    let mut daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let (mut client, (mut given, _connection)) = (daemon.connect("/echo"), take_and_keep(&server));
    daemon.log().wait_for(&["c1 end", "handed over to the backend"]);
    assert!(daemon.stop().status.success());
    converse(&mut client, &mut given);
    assert_eq!(warnings(&daemon), [""; 0]);
}

/// A backend that uses read(2) gets the record and the end of the stream.
#[test]
fn a_watched_backend_receives_the_end_of_file() {
    let daemon = Daemon::start(DIRECT);
    let server = daemon.listen("echo");
    let mut client: Client = daemon.connect("/echo");
    let address = client.wire.stream().local_addr().unwrap();
    let mut connection = server.accept();
    connection.expect(sockaddr(address));
    client.wire.expect_end();
    connection.expect_end();
}

/// RLIMIT_NOFILE of the gateway whose kernel refuses to pass more descriptors on.
const FILES: u32 = 128;

/// A backend that every user may connect to.
fn open_to_all(daemon: &Daemon, name: &str) -> Listener {
    let path = daemon.socket(name);
    let server = Listener::bind(&path, Kind::Stream);
    std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    server
}

/// ETOOMANYREFS: the kernel passes no more descriptors on for the gateway's user.
#[test]
fn too_many_descriptors_in_flight() {
    // The kernel counts a user's descriptors in flight, those of other tests among them, unless the user has
    // CAP_SYS_RESOURCE.
    let Some(daemon) = Daemon::start_lone_with_few_fds(FILES, DIRECT) else {
        return skipped("only root can start a daemon as a user of its own");
    };
    let (never, well) = (open_to_all(&daemon, "never"), open_to_all(&daemon, "well"));
    let (mut first, mut given) = (daemon.connect("/well"), take(&well));
    converse(&mut first, &mut given);
    // The first one over the limit has its 101 already: it gets a close frame.
    let mut waiting: Vec<Client> = Vec::new();
    eventually("one is refused", || {
        let mut wire = daemon.wire();
        let response = wire.upgrade("/never", &[]);
        match response.status {
            101 => waiting.push(Client::new(wire)),
            status => assert_eq!(status, 503, "{response:?}"),
        }
        response.status == 503
    });
    let last = waiting.last_mut().unwrap();
    assert_eq!(last.expect_close(1011), "too many clients wait for servers");
    last.wire.expect_end();
    waiting.pop();
    assert!(waiting.len() > FILES as usize / 2, "{} wait", waiting.len());
    daemon.log().wait_for(&["warn", "status=101", "not handed over (1011): too many clients"]);
    daemon.log().wait_for(&["warn", "status=503", "too many clients that backends in direct mode do not take"]);
    // All backends in direct mode are refused; existing connections continue.
    let response = daemon.upgrade("/well", &[]);
    assert!(response.status == 503 && !response.field("Retry-After").is_empty(), "{response:?}");
    converse(&mut first, &mut given);
    // Once the backend receives again, the waiting clients are served, and there is room at once.
    take(&never).client.send_frame(&Frame::close(1000, "late"));
    assert_eq!(waiting[0].expect_close(1000), "late");
    drop((take(&never), take(&never)));
    converse(&mut daemon.connect("/well"), &mut take(&well));
}
