//! Many handshakes at once, and the clients that they must not delay. Figures are printed, as the tests of a busy machine
//! can promise no times.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{ALL, Server, client_config, first_flight, shake, start};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::limits::stream_from;
use crate::process::{IsOver, Process, measured};
use crate::wire::Wire;

const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const MODEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Below clients-per-address.
const HALF_OPEN: usize = 1_000;
/// Handshakes of the flood, and the clients that make them.
const FLOOD: usize = 600;
const FLOODING: usize = 4;

fn serve() -> (Daemon, Process) {
    // The clients keep their sockets open.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let server = Server { listen: "0.0.0.0:0", ..Server::default() };
    let daemon = start(&[server]);
    let echo = daemon.echo("echo", &[]);
    (daemon, echo)
}

fn wire_from(address: Ipv4Addr, daemon: &Daemon) -> Wire {
    let config = Arc::new(client_config(daemon, ALL, None));
    Wire::over_tls(shake(stream_from(address, daemon.port, None), &config, "127.0.0.1").unwrap())
}

/// The times of a client: connecting, and each of these round trips.
fn exchange(daemon: &Daemon, is_over: impl Fn(usize) -> bool) -> (Duration, Vec<Duration>) {
    let start = Instant::now();
    let mut wire = wire_from(MODEST, daemon);
    let connected = start.elapsed();
    assert_eq!(wire.upgrade("/echo", &[]).status, 101);
    let mut client = Client::new(wire);
    let mut times = Vec::new();
    while !is_over(times.len()) {
        let start = Instant::now();
        client.text("hello");
        client.expect_text("hello");
        times.push(start.elapsed());
    }
    client.finish(1000);
    times.sort();
    (connected, times)
}

fn tell(what: &str, (connected, times): (Duration, Vec<Duration>), daemon: &Daemon) {
    measured(&format!(
        "{what}: a handshake in {connected:?}; {} round trips, {:?} in the middle, {:?} at most; memory {} KiB, {} KiB at most",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1],
        daemon.resident_kib(),
        daemon.peak_kib()
    ));
}

/// One address has half-open handshakes of each kind; another one is served.
#[test]
fn half_open_handshakes_delay_no_other_address() {
    let (daemon, _echo) = serve();
    tell("quiet", exchange(&daemon, |count| count == 300), &daemon);
    let (_, hello) = first_flight(&daemon, ALL);
    // Silent, within the ClientHello, and behind it.
    let half_open: Vec<TcpStream> = (0..HALF_OPEN)
        .map(|number| {
            let mut stream = stream_from(GREEDY, daemon.port, None);
            stream.write_all(&hello[..[0, hello.len() / 2, hello.len()][number % 3]]).unwrap();
            stream
        })
        .collect();
    tell(&format!("{HALF_OPEN} half-open handshakes"), exchange(&daemon, |count| count == 300), &daemon);
    let (bound, peak) = (daemon.bound_kib(), daemon.peak_kib());
    assert!(peak <= bound, "{peak} KiB where {bound} KiB should be the most");
    // None was closed for another.
    half_open.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    let is_open = |stream: &TcpStream| !matches!(stream.peek(&mut [0]), Ok(0));
    assert!(half_open.iter().all(is_open), "{} are open", half_open.iter().filter(|stream| is_open(stream)).count());
}

/// One address shakes hands without a pause; another one is served, and so is a conversation that goes on.
#[test]
fn a_flood_of_handshakes() {
    let (daemon, _echo) = serve();
    let (done, flag) = (AtomicUsize::new(0), AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..FLOODING {
            scope.spawn(|| {
                let _is_over = IsOver(&flag);
                while done.fetch_add(1, Ordering::Relaxed) < FLOOD {
                    drop(wire_from(GREEDY, &daemon));
                }
            });
        }
        let result = exchange(&daemon, |count| count >= 100 && flag.load(Ordering::Relaxed));
        tell(&format!("{FLOOD} handshakes in {:?}", start.elapsed()), result, &daemon);
    });
    let (bound, peak) = (daemon.bound_kib(), daemon.peak_kib());
    assert!(peak <= bound, "{peak} KiB where {bound} KiB should be the most");
}
