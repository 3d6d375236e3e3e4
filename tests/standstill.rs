//! A process that stood still: what has come meanwhile is taken before anybody is judged by the time that has passed.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::client::{Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::eventually;
use crate::wire::{Wire, handshake, request};

/// More than one turn of the loop takes, and than the pool has buffers.
const COUNT: usize = 200;

/// The state of a process (proc(5)).
fn state(daemon: &Daemon) -> char {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    status.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap()
}

fn stand_still(daemon: &Daemon, meanwhile: impl FnOnce()) {
    daemon.signal(Signal::SIGSTOP);
    eventually("the daemon is stopped", || state(daemon) == 'T');
    meanwhile();
    daemon.signal(Signal::SIGCONT);
}

#[test]
fn requests_that_came_meanwhile_are_answered() {
    let limits = "head-ms = 1000; handshake-ms = 1500; keepalive-ms = 1500; pool-buffers = 16;";
    let daemon = Daemon::start_configured(&configuration(limits, ""));
    let server = daemon.listen("server");
    let wires = || (0..COUNT).map(|_| daemon.wire()).collect::<Vec<Wire>>();
    let mut kept = wires();
    for wire in &mut kept {
        assert_eq!(wire.get("/page").status, 404);
    }
    let (head, upgrade) = (request("GET", "/page", &[]), handshake("/server", &[], &[]));
    let (mut halves, mut openings) = (wires(), wires());
    halves.iter_mut().for_each(|wire| wire.send(&head[..20]));
    openings.iter_mut().for_each(|wire| wire.send(&upgrade[..20]));
    // Behind all those.
    assert_eq!(daemon.get("/page").status, 404);
    stand_still(&daemon, || {
        kept.iter_mut().for_each(|wire| wire.send(&head));
        halves.iter_mut().for_each(|wire| wire.send(&head[20..]));
        openings.iter_mut().for_each(|wire| wire.send(&upgrade[20..]));
        // All deadlines pass.
        thread::sleep(Duration::from_millis(2_500));
    });
    for (number, wire) in kept.iter_mut().chain(&mut halves).enumerate() {
        assert_eq!(wire.response().status, 404, "request {number}");
    }
    for (number, wire) in openings.iter_mut().enumerate() {
        drop(server.accept());
        assert_eq!(wire.response_head().status, 101, "handshake {number}");
    }
}

#[test]
fn conversations_go_on() {
    let limits = "ping-ms = 1000; pong-ms = 1500; idle-ms = 3000; messages-per-second = 20; when-over = \"close\";
        pool-buffers = 16;";
    let daemon = Daemon::start_configured(&configuration(limits, "protocol = \"frames\";"));
    let _echo = daemon.echo("echo", &["--protocol", "frames", "-m", "500"]);
    let mut clients: Vec<Client> = (0..COUNT).map(|_| daemon.connect("/echo")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.frame(), Frame::new(PING, b"")));
    stand_still(&daemon, || {
        // As much a second as each of them may send.
        for _ in 0..3 {
            for client in &mut clients {
                client.send(&[Frame::new(PONG, b"")]);
                (0..12).for_each(|_| client.text("meanwhile"));
            }
            thread::sleep(Duration::from_millis(1_200));
        }
    });
    for (number, client) in clients.iter_mut().enumerate() {
        for _ in 0..36 {
            let mut frame = client.frame();
            while frame.opcode == PING {
                frame = client.frame();
            }
            assert_eq!(frame, Frame::new(TEXT, b"meanwhile"), "client {number}");
        }
    }
}
