//! Servers that take one client at a time, and many that wait for them.

use std::thread;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::daemon::{Daemon, configuration};
use crate::process::eventually;
use crate::server::{Kind, Listener};
use crate::wire::{Wire, handshake};

const WAITING: usize = 400;

/// The processor time that the daemon has used (proc(5)).
fn cpu_ms(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks * 1000 / sysconf(SysconfVar::CLK_TCK).unwrap().unwrap() as u64
}

/// Waiting costs next to nothing, and each is served when its turn has come: in direct mode too.
#[test]
fn one_tries_for_all_who_wait() {
    for options in ["", "options = \"direct\";"] {
        let daemon = Daemon::start_configured(&configuration("connect-ms = 60000; handshake-ms = 60000;", options));
        let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
        let mut wires: Vec<Wire> = (0..WAITING).map(|_| daemon.wire()).collect();
        wires.iter_mut().for_each(|wire| wire.send(handshake("/server", &[], &[])));
        // Each that tried by itself every 64 ms would make some thousand tries a second.
        let used_ms = || {
            let before_ms = cpu_ms(&daemon);
            thread::sleep(Duration::from_millis(1_000));
            cpu_ms(&daemon) - before_ms
        };
        eventually("a second of waiting takes no more than 50 ms", || used_ms() <= 50);
        // The first one came in at once; the others follow one by one.
        thread::scope(|scope| {
            scope.spawn(|| (0..WAITING).for_each(|_| drop(server.accept())));
            for (number, wire) in wires.iter_mut().enumerate() {
                assert_eq!(wire.response_head().status, 101, "{number}, {options:?}");
            }
        });
    }
}

/// Who waits has a time of its own, whatever becomes of the others.
#[test]
fn each_waits_no_longer_than_it_may() {
    let daemon = Daemon::start_configured(&configuration("connect-ms = 400;", ""));
    let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
    let _first = daemon.connect("/server");
    let mut wires: Vec<Wire> = (0..20).map(|_| daemon.wire()).collect();
    wires.iter_mut().for_each(|wire| wire.send(handshake("/server", &[], &[])));
    // A page of the same name waits for no server.
    assert_eq!(daemon.get("/server").status, 426);
    for wire in &mut wires {
        assert_eq!(wire.response().status, 504);
    }
    // Nobody is left who would keep others waiting. One that was connected at the last moment may stand in the backlog.
    eventually("there is room", || {
        if !server.is_idle() {
            drop(server.accept());
        }
        daemon.upgrade("/server", &[]).status == 101
    });
}

#[test]
fn one_that_leaves_while_it_waits_holds_nobody_up() {
    let daemon = Daemon::start_configured(&configuration("connect-ms = 60000; handshake-ms = 60000;", ""));
    let server = Listener::bind_with_backlog(&daemon.socket("server"), Kind::Stream, 0);
    let _first = daemon.connect("/server");
    let mut leaver = daemon.wire();
    leaver.send(handshake("/server", &[], &[]));
    let mut next = daemon.wire();
    next.send(handshake("/server", &[], &[]));
    drop(leaver);
    // It is seen to have left when it is connected, at the latest.
    drop((server.accept(), server.accept()));
    assert_eq!(next.response_head().status, 101);
}
