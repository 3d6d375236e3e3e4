//! Memory, and the bound that the log names. Round trips of a well-behaved client are printed: `cargo test --test main
//! memory -- --nocapture`.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::join;
use crate::client::{BINARY, Client, Frame, PING, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, IsOver, Process, eventually};
use crate::server::{Backend, Listener};

const LIMITS: &str = "clients = 1100; clients-per-address = 0; queued-size = 4194304; pool-buffers = 32;
    head-ms = 600000; handshake-ms = 600000; ping-ms = 0;";
const CROWD: usize = 1_000;
/// Round trips of one measurement.
const TRIPS: usize = 300;
/// SO_RCVBUF of a client that never reads.
const RECEIVE_SIZE: usize = 4 * 1024;

/// The daemon of a small appliance, and a well-behaved client.
struct Appliance {
    daemon: Daemon,
    _echo: Process,
    quiet: Client,
    bound_kib: u64,
    files: usize,
}

impl Appliance {
    fn start() -> Appliance {
        Appliance::start_with("frames")
    }

    fn start_with(protocol: &str) -> Appliance {
        let daemon = Daemon::start_configured(&configuration(LIMITS, &format!("protocol = \"{protocol}\";")));
        let bound_kib = daemon.bound_kib();
        let echo = daemon.echo("echo", &["--protocol", protocol, "-m", "2000"]);
        let mut appliance = Appliance { quiet: daemon.connect("/echo"), daemon, _echo: echo, bound_kib, files: 0 };
        appliance.measure("quiet");
        appliance.files = appliance.daemon.open_files();
        appliance
    }

    /// Measures round trips, and prints them with the memory.
    fn measure(&mut self, what: &str) {
        self.measure_until(what, |_| true);
    }

    /// As `measure`, until `is_there`.
    fn measure_until(&mut self, what: &str, is_there: impl Fn(&Daemon) -> bool) {
        let text = "x".repeat(100);
        let give_up = Instant::now() + DEADLINE;
        let mut times = Vec::new();
        while times.len() < TRIPS || !is_there(&self.daemon) {
            let start = Instant::now();
            assert!(start < give_up, "{what}: after {} round trips it is still not so", times.len());
            self.quiet.text(&text);
            self.quiet.expect_text(&text);
            times.push(start.elapsed());
        }
        times.sort();
        println!(
            "{what}: {} round trips, {:?} in the middle, {:?} at most; memory {} KiB, {} KiB at most, of {} KiB",
            times.len(),
            times[times.len() / 2],
            times[times.len() - 1],
            self.daemon.resident_kib(),
            self.daemon.peak_kib(),
            self.bound_kib,
        );
    }

    /// The bound held, no well-behaved client was closed, and the memory is free once the others have gone.
    fn expect_bounded(mut self, what: &str) {
        self.measure(&format!("after {what}"));
        let (bound_kib, peak_kib) = (self.bound_kib, self.daemon.peak_kib());
        assert!(peak_kib <= bound_kib, "{what}: {peak_kib} KiB where {bound_kib} KiB should be the most");
        let files = self.files;
        eventually("no file is left open", || self.daemon.open_files() <= files);
        self.quiet.finish(1000);
    }
}

fn join_many(daemon: &Daemon, server: &Listener, count: usize) -> (Vec<TcpStream>, Vec<Backend>) {
    (0..count).map(|_| (join(daemon.narrow_stream(RECEIVE_SIZE), "/server"), server.accept())).unzip()
}

/// Writes until the peer takes no more; false: the connection has ended.
fn pour(mut to: impl Write, bytes: &[u8]) -> bool {
    loop {
        match to.write(bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Runs a load while the well-behaved client is measured, until `is_there`.
fn measure_beside(
    appliance: &mut Appliance,
    what: &str,
    is_there: impl Fn(&Daemon) -> bool,
    mut load: impl FnMut() + Send,
) {
    let flag = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_over = IsOver(&flag);
        scope.spawn(|| {
            while !flag.load(Ordering::Relaxed) {
                load();
            }
        });
        appliance.measure_until(what, is_there);
        drop(is_over);
    });
}

/// Connections were closed for the budget.
fn has_broken_off(daemon: &Daemon) -> bool {
    daemon.log().text().contains("broken off (1006): it held most")
}

#[test]
fn clients_that_never_read() {
    let mut appliance = Appliance::start();
    let server = appliance.daemon.listen("server");
    let (clients, mut backends) = join_many(&appliance.daemon, &server, CROWD);
    backends.iter().for_each(|backend| backend.stream().set_nonblocking(true).unwrap());
    let message = Frame::new(BINARY, &[7; 16 * 1024]).bytes();
    measure_beside(&mut appliance, "1000 that never read", has_broken_off, || {
        backends.retain(|backend| pour(backend.stream(), &message));
        thread::yield_now();
    });
    println!("{} of {CROWD} are left", backends.len());
    assert!(!backends.is_empty(), "all were broken off");
    drop((clients, backends));
    appliance.expect_bounded("1000 that never read");
}

#[test]
fn clients_that_send_byte_by_byte() {
    let mut appliance = Appliance::start();
    let server = appliance.daemon.listen("server");
    let (mut clients, mut backends) = join_many(&appliance.daemon, &server, CROWD);
    let message = Frame::new(TEXT, b"a message of some bytes").masked().bytes();
    for (number, byte) in message.iter().enumerate() {
        clients.iter_mut().for_each(|client| client.write_all(&[*byte]).unwrap());
        if number % 8 == 4 {
            appliance.measure(&format!("1000 that send byte {number}"));
        }
    }
    for backend in &mut backends {
        assert_eq!(backend.message(), (TEXT, b"a message of some bytes".to_vec()));
    }
    drop((clients, backends));
    appliance.expect_bounded("1000 that send byte by byte");
}

#[test]
fn handshakes_that_stay_half_open() {
    let mut appliance = Appliance::start();
    let port = appliance.daemon.port;
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    crowd.iter_mut().for_each(|client| client.write_all(b"GET /server HTTP/1.1\r\nX: ").unwrap());
    appliance.measure("1000 half-open handshakes");
    // Together over the budget. Some are closed before they are complete.
    let header = vec![b'x'; 12_000];
    let sent = crowd.iter_mut().filter_map(|client| client.write_all(&header).ok()).count();
    appliance.measure_until("1000 half-open handshakes of 12 KB", has_broken_off);
    assert!(sent > CROWD / 4, "{sent} could send their headers");
    drop(crowd);
    appliance.expect_bounded("1000 half-open handshakes");
}

#[test]
fn a_backend_that_never_reads() {
    let mut appliance = Appliance::start();
    let server = appliance.daemon.listen("server");
    let (mut clients, backends) = join_many(&appliance.daemon, &server, CROWD / 4);
    clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    let message = Frame::new(BINARY, &[7; 16 * 1024]).masked().bytes();
    measure_beside(&mut appliance, "250 before a deaf server", has_broken_off, || {
        clients.retain(|client| pour(client, &message));
        thread::yield_now();
    });
    println!("{} of {} are left", clients.len(), CROWD / 4);
    assert!(!clients.is_empty(), "all were broken off");
    drop((clients, backends));
    appliance.expect_bounded("250 before a deaf server");
}

#[test]
fn a_client_that_floods() {
    let mut appliance = Appliance::start();
    let flooding = join(appliance.daemon.narrow_stream(RECEIVE_SIZE), "/echo");
    let mut answers = flooding.try_clone().unwrap();
    let message = Frame::new(BINARY, &[7; 64 * 1024]).masked().bytes();
    thread::scope(|scope| {
        let reader = scope.spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        let sent = AtomicUsize::new(0);
        let is_flood = |_: &Daemon| sent.load(Ordering::Relaxed) >= 300;
        measure_beside(&mut appliance, "a client that floods", is_flood, || {
            (&flooding).write_all(&message).unwrap();
            sent.fetch_add(1, Ordering::Relaxed);
        });
        flooding.shutdown(std::net::Shutdown::Write).unwrap();
        let answered = reader.join().unwrap();
        println!("{answered:?} bytes came back");
    });
    drop(flooding);
    appliance.expect_bounded("a client that floods");
}

/// A kind of small messages: protocol, direction, and bytes on the wire.
struct Small {
    protocol: &'static str,
    is_from_server: bool,
    bytes: Vec<u8>,
}

/// Small messages cost far more than their bytes. The printed bound holds in either direction.
#[test]
fn small_messages() {
    let client = |opcode, payload| Frame::new(opcode, payload).masked().bytes().repeat(10_000);
    let cases = [
        Small { protocol: "packet", is_from_server: false, bytes: client(BINARY, b"") },
        Small { protocol: "packet", is_from_server: false, bytes: client(BINARY, b"x") },
        Small { protocol: "frames", is_from_server: false, bytes: client(BINARY, b"") },
        Small { protocol: "frames", is_from_server: false, bytes: client(PING, b"") },
        Small { protocol: "lines", is_from_server: false, bytes: client(BINARY, b"x") },
        Small { protocol: "lines", is_from_server: true, bytes: b"\n".repeat(60_000) },
        Small { protocol: "frames", is_from_server: true, bytes: Frame::new(BINARY, b"").bytes().repeat(10_000) },
        Small { protocol: "frames", is_from_server: true, bytes: Frame::new(PING, b"x").bytes().repeat(10_000) },
    ];
    for Small { protocol, is_from_server, bytes } in cases {
        let mut appliance = Appliance::start_with(protocol);
        let server = match protocol {
            "packet" => appliance.daemon.listen_packets("server"),
            _ => appliance.daemon.listen("server"),
        };
        let (clients, backends) = join_many(&appliance.daemon, &server, CROWD / 4);
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        backends.iter().for_each(|backend| backend.stream().set_nonblocking(true).unwrap());
        // No peer reads. In each round all write until they would block.
        for _ in 0..4 {
            for (client, backend) in clients.iter().zip(&backends) {
                if is_from_server {
                    pour(backend.stream(), &bytes)
                } else {
                    pour(client, &bytes)
                };
            }
            appliance.measure(&format!("{protocol}, {} small ones", clients.len()));
        }
        drop((clients, backends));
        appliance.expect_bounded(&format!("small messages, {protocol}, from the server: {is_from_server}"));
    }
}
