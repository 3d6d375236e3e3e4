//! Certificates that change while they are served: open connections notice nothing, and new ones get the new one.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::{ALL, Server, certificate, client_config, configuration, file, start, wire};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::process::{eventually, measured};
use crate::reload::{TAKEN, Traffic, reload};

const CROWD: usize = 200;
/// The time between two messages of a client.
const PAUSE: Duration = Duration::from_millis(100);

/// The files that are served, and two pairs for them.
const SERVED: [&str; 2] = ["server.crt", "server.key"];
const FIRST: [&str; 2] = ["first.crt", "first.key"];
const RENEWED: [&str; 2] = ["renewed.crt", "renewed.key"];

fn is_served(daemon: &Daemon, pair: [&str; 2]) -> bool {
    let wanted = certificate(daemon, pair[0].strip_suffix(".crt").unwrap());
    let wire = wire(daemon.port, client_config(daemon, ALL, None));
    wire.tls().peer_certificates().unwrap()[0] == wanted
}

/// New connections get this certificate at last.
fn expect(daemon: &Daemon, pair: [&str; 2]) {
    eventually(&format!("new connections get {}", pair[0]), || is_served(daemon, pair));
}

/// Replaces a file at once.
fn replace(daemon: &Daemon, from: &str, to: &str) {
    let beside = file(daemon, "beside");
    fs::copy(file(daemon, from), &beside).unwrap();
    fs::rename(beside, file(daemon, to)).unwrap();
}

/// Turns a link, as certbot does (`storage.RenewableCert.update_link_to`).
fn turn(daemon: &Daemon, to: &str, link: &str) {
    let link = file(daemon, link);
    fs::remove_file(&link).unwrap();
    symlink(to, &link).unwrap();
}

#[test]
fn a_new_certificate_drops_no_connection() {
    let daemon = start(&[Server::default()]);
    let copy = |from, to| {
        fs::copy(file(&daemon, from), file(&daemon, to)).unwrap();
    };
    SERVED.into_iter().zip(FIRST).for_each(|(from, to)| copy(from, to));
    let _echo = daemon.echo("echo", &["-m", "1000"]);
    let config = client_config(&daemon, ALL, None);
    let join = |_| {
        let mut wire = wire(daemon.port, config.clone());
        assert_eq!(wire.upgrade("/echo", &[]).status, 101);
        Client::new(wire)
    };
    let traffic = Traffic::of((0..CROWD).map(join).collect(), PAUSE);
    assert!(is_served(&daemon, FIRST));

    // Written in place; SIGHUP reads them at once.
    RENEWED.into_iter().zip(SERVED).for_each(|(from, to)| copy(from, to));
    reload(&daemon, &configuration("", &[Server::default()]), TAKEN);
    assert!(is_served(&daemon, RENEWED));

    // Renamed, in either order, without a signal.
    FIRST.into_iter().zip(SERVED).for_each(|(from, to)| replace(&daemon, from, to));
    expect(&daemon, FIRST);
    RENEWED.into_iter().zip(SERVED).rev().for_each(|(from, to)| replace(&daemon, from, to));
    expect(&daemon, RENEWED);

    // The files become links, which are turned one by one.
    for pair in [FIRST, RENEWED, FIRST] {
        pair.into_iter().zip(SERVED).for_each(|(to, link)| turn(&daemon, to, link));
        expect(&daemon, pair);
    }
    let (messages, longest) = traffic.finish();
    measured(&format!("{messages} messages of {CROWD} clients beside 6 new certificates, {longest:?} at most"));

    // A broken file changes nothing.
    fs::write(file(&daemon, "broken"), "no certificate").unwrap();
    replace(&daemon, "broken", "server.crt");
    daemon.log().wait_for(&[" error ", "server.crt", "the old certificate stays in use"]);
    assert!(is_served(&daemon, FIRST));
}
