//! Backends with a full backlog, and many clients that wait for them.

use std::thread;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::daemon::{Daemon, configuration};
use crate::process::eventually;
use crate::server::{Kind, Listener};
use crate::wire::{Wire, handshake};

const WAITING: usize = 400;
/// Clients that wait for long.
const LONG_WAITS: &str = "head-ms = 600000; connect-ms = 600000; handshake-ms = 600000;";

/// The processor time that the daemon has used (proc(5)).
fn cpu_ms(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks * 1000 / sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as u64
}

/// Waiting costs next to no CPU, and the clients are served one after the other; in direct mode too.
#[test]
fn waiting_clients_cost_no_cpu() {
    for options in ["", "options = \"direct\";"] {
        let daemon = Daemon::start_configured(&configuration(LONG_WAITS, options));
        let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
        let mut wires: Vec<Wire> = (0..WAITING).map(|_| daemon.wire()).collect();
        wires.iter_mut().for_each(|wire| wire.send(handshake("/server", &[], &[])));
        // If each retried by itself every 64 ms, there would be thousands of attempts a second.
        let used_ms = || {
            let before_ms = cpu_ms(&daemon);
            thread::sleep(Duration::from_millis(1_000));
            cpu_ms(&daemon) - before_ms
        };
        eventually("a second of waiting takes no more than 50 ms", || used_ms() <= 50);
        // The first one was accepted at once; the others follow one by one.
        thread::scope(|scope| {
            scope.spawn(|| (0..WAITING).for_each(|_| drop(server.accept())));
            for (number, wire) in wires.iter_mut().enumerate() {
                assert_eq!(wire.response_head().status, 101, "{number}, {options:?}");
            }
        });
    }
}

/// connect-ms runs for each waiting client by itself.
#[test]
fn each_waiting_client_has_its_own_timeout() {
    let daemon = Daemon::start_configured(&configuration("connect-ms = 400;", ""));
    let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
    let _first = daemon.connect("/server");
    let mut wires: Vec<Wire> = (0..20).map(|_| daemon.wire()).collect();
    wires.iter_mut().for_each(|wire| wire.send(handshake("/server", &[], &[])));
    // A plain GET of the same name does not wait for the backend.
    assert_eq!(daemon.get("/server").status, 426);
    for wire in &mut wires {
        assert_eq!(wire.response().status, 504);
    }
    // No client waits any more. The backlog may hold one that was connected at the last moment.
    eventually("there is room", || {
        if !server.is_idle() {
            drop(server.accept());
        }
        daemon.upgrade("/server", &[]).status == 101
    });
}

#[test]
fn a_client_that_disconnects_while_it_waits_does_not_delay_others() {
    let daemon = Daemon::start_configured(&configuration(LONG_WAITS, ""));
    let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
    let _first = daemon.connect("/server");
    let mut leaver = daemon.wire();
    leaver.send(handshake("/server", &[], &[]));
    let mut next = daemon.wire();
    next.send(handshake("/server", &[], &[]));
    drop(leaver);
    // Its close is noticed when it is connected, at the latest.
    drop((server.accept(), server.accept()));
    assert_eq!(next.response_head().status, 101);
}
