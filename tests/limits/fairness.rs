//! One address, and its effect on another.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{stream_from, wire_from};
use crate::client::{BINARY, Client, Frame, PING};
use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, expect_eq, uninterrupted};
use crate::standstill::{Pace, until_in_time};
use crate::wire::{Wire, handshake, request};

const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const MODEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// SO_RCVBUF of a client that never reads.
const RECEIVE_SIZE: usize = 4 * 1024;
/// The limits of a small appliance, and patience with those that do not read.
const LIMITS: &str = "queued-size = 1048576; pool-buffers = 16; stall-ms = 600000; ping-ms = 0;";
/// A reader that pauses for longer weighs more (HELD_UNWEIGHED_MS).
const PAUSE_MAX: Duration = Duration::from_millis(500);
const UNREAD: usize = 300;
const PAGE_SIZE: usize = 16 * 1024 * 1024;

/// A slow reader of another address, and its backend.
struct Slow {
    client: Client,
    backend: crate::server::Backend,
}

impl Slow {
    fn join(daemon: &Daemon, server: &crate::server::Listener) -> Slow {
        let mut wire = Wire::new(stream_from(MODEST, daemon.port, Some(RECEIVE_SIZE)));
        assert_eq!(wire.upgrade("/server", &[]).status, 101);
        Slow { client: Client::new(wire), backend: server.accept() }
    }

    /// Reads slowly while its backend sends without end, until `is_over` and some time more. False: a busy machine held
    /// it up, so that it read nothing for a while.
    fn read_beside(&mut self, is_over: impl Fn() -> bool) -> bool {
        let (mut client, mut backend) = (self.client.wire.stream(), self.backend.stream());
        backend.set_nonblocking(true).unwrap();
        let message = Frame::new(BINARY, &[7; 16 * 1024]).bytes();
        let give_up = Instant::now() + DEADLINE;
        let (mut pace, mut last_at) = (Pace::start(), None);
        loop {
            while backend.write(&message).is_ok() {}
            let got = uninterrupted(|| client.read(&mut [0; 64]));
            pace.step();
            if !matches!(got, Ok(1..)) {
                let is_late = got.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                assert!(!is_late && pace.longest() >= PAUSE_MAX, "the reader got nothing or was closed: {got:?}");
                return false;
            }
            match last_at {
                None if is_over() => last_at = Some(Instant::now() + Duration::from_millis(300)),
                None => assert!(Instant::now() < give_up, "what was waited for did not happen"),
                Some(at) if Instant::now() > at => return pace.longest() < PAUSE_MAX,
                Some(_) => {}
            }
            // The pause makes it slow.
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Hundreds of unread downloads take little memory: their bytes can be read from the file again. None is closed for
/// them, and each continues once it is read.
#[test]
fn clients_that_do_not_read_pages_close_no_other_connection() {
    let text = configuration(LIMITS, "protocol = \"frames\";").replace("127.0.0.1:0", "0.0.0.0:0");
    let daemon = Daemon::start_configured(&text);
    let page: Vec<u8> = (0..PAGE_SIZE).map(|at| (at % 251) as u8).collect();
    std::fs::write(daemon.folder().join("www/page"), &page).unwrap();
    let server = daemon.listen("server");
    let mut slow = Slow::join(&daemon, &server);
    let unread: Vec<TcpStream> = (0..UNREAD)
        .map(|_| {
            let mut stream = stream_from(GREEDY, daemon.port, Some(RECEIVE_SIZE));
            stream.write_all(request("GET", "/page", &["Connection: close"]).as_bytes()).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        })
        .collect();
    // Each has begun to arrive. A pause of the reader excuses no end here: see below.
    let _ = slow.read_beside(|| unread.iter().all(|stream| stream.peek(&mut [0]).is_ok_and(|size| size == 1)));
    expect_eq(daemon.log().text().matches("held most").count(), 0, "those who were broken off");
    expect_eq(daemon.log().text().matches("c1 end").count(), 0, "ends of the slow reader");
    let mut late = unread.into_iter().last().unwrap();
    let mut got = Vec::new();
    late.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&page) && got.len() < PAGE_SIZE + 1000, "{} bytes of {PAGE_SIZE}", got.len());
}

/// Over the budget, a connection of the heaviest address is closed, one that reads nothing.
#[test]
fn a_reader_is_not_closed_for_another_address() {
    let text = configuration(&format!("{LIMITS} queue-size = 262144;"), "protocol = \"frames\";");
    let text = text.replace("127.0.0.1:0", "0.0.0.0:0");
    until_in_time(|| {
        let daemon = Daemon::start_configured(&text);
        let server = daemon.listen("server");
        let mut slow = Slow::join(&daemon, &server);
        let unread: Vec<_> = (0..40)
            .map(|_| {
                let mut wire = Wire::new(stream_from(GREEDY, daemon.port, Some(RECEIVE_SIZE)));
                assert_eq!(wire.upgrade("/server", &[]).status, 101);
                (wire, server.accept())
            })
            .collect();
        // Each holds less than the one that reads.
        let message = Frame::new(BINARY, &[7; 1024]).bytes();
        unread.iter().for_each(|(_, backend)| backend.stream().set_nonblocking(true).unwrap());
        let is_steady = slow.read_beside(|| {
            for (_, backend) in &unread {
                let mut stream = backend.stream();
                (0..64).all(|_| stream.write(&message).is_ok());
            }
            daemon.log().text().matches("held most").count() > 8
        });
        let text = daemon.log().text();
        let broken: Vec<&str> = text.lines().filter(|line| line.contains("held most")).collect();
        assert!(!is_steady || broken.iter().all(|line| line.contains("client=127.0.0.2:")), "{broken:#?}");
        is_steady
    });
}

/// One address floods with pings. Prints how long a page takes another address; the promise is in
/// `src/gateway/simulation/fairness.rs`.
#[test]
#[ignore = "prints figures: `cargo test --release --test main figures_of_a_flood -- --ignored --nocapture`"]
fn figures_of_a_flood() {
    const FLOODING: usize = 300;
    let text = configuration("", "protocol = \"frames\";").replace("127.0.0.1:0", "0.0.0.0:0");
    let daemon = Daemon::start_configured(&text);
    std::fs::write(daemon.folder().join("www/page"), [b'x'; 2000]).unwrap();
    let server = daemon.listen("server");
    let pings = Frame::new(PING, b"").masked().bytes().repeat(10_000);
    let mut flooding: Vec<(TcpStream, usize, crate::server::Backend)> = (0..FLOODING)
        .map(|_| {
            let mut stream = stream_from(GREEDY, daemon.port, None);
            stream.write_all(handshake("/server", &[], &[]).as_bytes()).unwrap();
            let backend = server.accept();
            stream.set_nonblocking(true).unwrap();
            (stream, 0, backend)
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(8);
    let mut times: Vec<Duration> = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sink = vec![0; 256 * 1024];
            while Instant::now() < end {
                for (stream, at, _) in &mut flooding {
                    while stream.read(&mut sink).is_ok_and(|size| size > 0) {}
                    match stream.write(&pings[*at..]) {
                        Ok(size) => *at = (*at + size) % pings.len(),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            }
        });
        while Instant::now() < end {
            let start = Instant::now();
            let response = wire_from(MODEST, daemon.port).get("/page");
            assert_eq!((response.status, response.body.len()), (200, 2000));
            times.push(start.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
    });
    times.sort();
    println!("{} pages, {:?} in the middle, {:?} at most", times.len(), times[times.len() / 2], times[times.len() - 1]);
}
