//! A process that was stopped: what arrived meanwhile is handled before deadlines are judged.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::eventually;
use crate::wire::{Wire, handshake, request};

/// More than one turn of the loop handles, and than the pool has buffers.
const COUNT: usize = 200;

/// Stops the process, unless this time has passed: a deadline might have come while it ran. Returns whether it was
/// stopped.
fn suspend(daemon: &Daemon, within: (Instant, Duration), meanwhile: impl FnOnce()) -> bool {
    daemon.signal(Signal::SIGSTOP);
    eventually("the daemon is stopped", || daemon.process.state() == 'T');
    let (since, time) = within;
    if since.elapsed() >= time {
        return false;
    }
    meanwhile();
    daemon.signal(Signal::SIGCONT);
    true
}

/// Retries if a busy machine took too long.
fn until_in_time(attempt: impl Fn() -> bool) {
    assert!((0..50).any(|_| attempt()), "this machine is too slow");
}

#[test]
fn requests_during_a_suspension_are_answered() {
    until_in_time(|| {
        let limits = "head-ms = 1000; handshake-ms = 1500; keepalive-ms = 1500; pool-buffers = 16;";
        let daemon = Daemon::start_configured(&configuration(limits, ""));
        let server = daemon.listen("server");
        let wires = || (0..COUNT).map(|_| daemon.wire()).collect::<Vec<Wire>>();
        let start = Instant::now();
        let mut kept = wires();
        let page = request("GET", "/page", &[]);
        kept.iter_mut().for_each(|wire| wire.send(&page));
        if start.elapsed() >= Duration::from_millis(900) {
            return false;
        }
        for wire in &mut kept {
            assert_eq!(wire.response().status, 404);
        }
        let upgrade = handshake("/server", &[], &[]);
        let (mut halves, mut openings) = (wires(), wires());
        halves.iter_mut().for_each(|wire| wire.send(&page[..20]));
        openings.iter_mut().for_each(|wire| wire.send(&upgrade[..20]));
        // After all those.
        assert_eq!(daemon.get("/page").status, 404);
        let is_in_time = suspend(&daemon, (start, Duration::from_millis(900)), || {
            kept.iter_mut().for_each(|wire| wire.send(&page));
            halves.iter_mut().for_each(|wire| wire.send(&page[20..]));
            openings.iter_mut().for_each(|wire| wire.send(&upgrade[20..]));
            // All deadlines pass.
            thread::sleep(Duration::from_millis(2_500));
        });
        if !is_in_time {
            return false;
        }
        for (number, wire) in kept.iter_mut().chain(&mut halves).enumerate() {
            assert_eq!(wire.response().status, 404, "request {number}");
        }
        for (number, wire) in openings.iter_mut().enumerate() {
            drop(server.accept());
            assert_eq!(wire.response_head().status, 101, "handshake {number}");
        }
        true
    });
}

#[test]
fn connections_survive_a_suspension() {
    until_in_time(|| {
        let limits = "ping-ms = 1000; pong-ms = 1500; idle-ms = 3000; messages-per-second = 20; when-over = \"close\";
            pool-buffers = 16;";
        let daemon = Daemon::start_configured(&configuration(limits, "protocol = \"frames\";"));
        let _echo = daemon.echo("echo", &["--protocol", "frames", "-m", "500"]);
        let start = Instant::now();
        let mut clients: Vec<Client> = (0..COUNT).map(|_| daemon.connect("/echo")).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.frame(), Frame::new(PING, b"")));
        let is_in_time = suspend(&daemon, (start, Duration::from_millis(2_400)), || {
            // The rate that each of them may send.
            for _ in 0..3 {
                for client in &mut clients {
                    client.send(&[Frame::new(PONG, b"")]);
                    (0..12).for_each(|_| client.text("meanwhile"));
                }
                thread::sleep(Duration::from_millis(1_200));
            }
        });
        if !is_in_time {
            return false;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for _ in 0..36 {
                let mut frame = client.frame();
                while frame.opcode == PING {
                    frame = client.frame();
                }
                assert_eq!(frame, Frame::new(TEXT, b"meanwhile"), "client {number}");
            }
        }
        true
    });
}
