//! Listeners that a service manager opened before the start (sd_listen_fds(3)).

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::daemon::{Daemon, configuration};
use crate::process::{Folder, expect_eq};
use crate::reload::{TAKEN, expect_answer, reload};
use crate::wire::Wire;

/// A configuration with these addresses.
fn listening(addresses: &str) -> String {
    configuration("", "").replace("\"127.0.0.1:0\"", &format!("({addresses})"))
}

#[test]
fn an_inherited_tcp_socket_is_served_and_survives() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // As sockets of systemd are (systemd.socket(5)). A ring would not wait for clients.
    socket.set_nonblocking(true).unwrap();
    let mut daemon = Daemon::start_inheriting(
        socket.try_clone().unwrap().into(),
        Folder::new(),
        &listening(&format!("\"{address}\"")),
    );
    expect_eq(daemon.port, address.port(), "the port that is announced");
    expect_eq(daemon.get("/nosuch").status, 404, "an answer");
    let log = daemon.stop().err;
    assert!(!log.contains("cannot accept"), "{log}");
    // A client that connects between two daemons waits for the next one.
    let waiting = TcpStream::connect(address).unwrap();
    let daemon = Daemon::start_inheriting(socket.into(), Folder::new(), &listening(&format!("\"{address}\"")));
    expect_eq(daemon.get("/nosuch").status, 404, "an answer of the next one");
    drop(waiting);
}

#[test]
fn an_inherited_unix_socket_is_served_and_its_file_stays() {
    let folder = Folder::new();
    let path = folder.path().join("web.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mut daemon = Daemon::start_inheriting(socket.into(), folder, &listening("\"unix:@/web.sock\""));
    expect_answer(&UnixStream::connect(&path).unwrap());
    daemon.stop();
    assert!(path.exists(), "the file is the service manager's");
}

/// The service manager keeps listening: no other program can.
#[test]
fn a_reload_may_drop_and_reuse_an_inherited_socket() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let other = "\"unix:@/other.sock\"";
    let both = format!("{other}, \"{address}\"");
    let daemon = Daemon::start_inheriting(socket.into(), Folder::new(), &listening(other));
    daemon
        .log()
        .wait_for(&["warn", &format!("the inherited http://{address} (\"web.socket\") matches no server's listen")]);
    for _ in 0..2 {
        reload(&daemon, &listening(&both), TAKEN);
        daemon.announced().wait_for(&[&format!("listening on http://{address}")]);
        let answer = Wire::connect(address.port()).get("/nosuch");
        expect_eq(answer.status, 404, "an answer after a reload");
        reload(&daemon, &listening(other), TAKEN);
    }
}
