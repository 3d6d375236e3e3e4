//! TCP backends with several addresses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use super::{full_listener, tcp_link, write_configuration};
use crate::daemon::uakari_words;
use crate::process::{Folder, Process, close, eventually, skipped};
use crate::wire::Wire;

/// The addresses of `two.example`. No other test uses them: a port free at one is free at the other.
const BOTH: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 82), Ipv4Addr::new(127, 0, 0, 83)];

/// A daemon with a link to `two.example`, whose addresses are in a hosts file of its own. None: this user may not mount
/// it.
fn with_two_addresses(port: u16, more: &str) -> Option<(Process, Folder, u16)> {
    let folder = Folder::new();
    let hosts = BOTH.map(|address| format!("{address} two.example\n")).concat();
    std::fs::write(folder.join("hosts"), hosts).unwrap();
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    let as_told = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", &folder.join("hosts")]).args(words);
        command
    };
    if !as_told(&["true"]).output().is_ok_and(|told| told.status.success()) {
        skipped("only root can give a name two addresses");
        return None;
    }
    let link = tcp_link("two", "two.example", &format!("port = {port}; {more}"));
    let path = write_configuration(&folder, &format!("links = ({link});"));
    let process = Process::start(as_told(&uakari_words()).args(["-f", &path, "--listen", "127.0.0.1:0"]));
    let line = process.out.wait_for(&["listening on "]);
    Some((process, folder, line.rsplit(':').next().unwrap().parse().unwrap()))
}

#[test]
fn the_next_address_is_tried_after_a_refusal() {
    for address in BOTH {
        let server = TcpListener::bind((address, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let Some((_daemon, _folder, gateway)) = with_two_addresses(port, "") else { return };
        assert_eq!(Wire::connect(gateway).upgrade("/two", &[]).status, 101, "{address}");
        server.accept().unwrap();
        close(server);
        // Both refuse.
        assert_eq!(Wire::connect(gateway).upgrade("/two", &[]).status, 502, "{address}");
    }
}

/// The first address gets its share of the time alone.
#[test]
fn the_next_address_is_tried_after_a_timeout() {
    for (silent, other) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let (_listener, address, _streams) = full_listener(silent);
        let server = TcpListener::bind((other, address.port())).unwrap();
        let limits = "limits = { connect-ms = 2000; };";
        let Some((_daemon, _folder, gateway)) = with_two_addresses(address.port(), limits) else { return };
        assert_eq!(Wire::connect(gateway).upgrade("/two", &[]).status, 101, "{silent} is silent");
        let (_stream, gateways) = server.accept().unwrap();
        eventually("the kernel asks whether the server is there", || has_keepalive(gateways));
    }
}

/// Whether a connection from this address has its keepalive timer set (proc_pid_net(5), tcp).
fn has_keepalive(local: SocketAddr) -> bool {
    let SocketAddr::V4(local) = local else { return false };
    let address = format!("{:08X}:{:04X}", u32::from(*local.ip()).swap_bytes(), local.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|words| words.get(1) == Some(&&*address) && words.get(5).is_some_and(|timer| timer.starts_with("02:")))
}
