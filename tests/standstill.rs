//! A process that was stopped: what arrived meanwhile is handled before deadlines are judged.

use std::io::{ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{CLOSE, Client, Frame, PING, PONG, TEXT};
use crate::daemon::{Daemon, configuration};
use crate::process::{DEADLINE, eventually};
use crate::wire::{Wire, handshake, request};

/// More than one turn of the loop handles, and than the pool has buffers.
const COUNT: usize = 200;

/// Calls this while the process stands still, so that it sees everything at once.
pub fn while_stopped<T>(daemon: &Daemon, act: impl FnOnce() -> T) -> T {
    daemon.signal(Signal::SIGSTOP);
    eventually("the daemon is stopped", || daemon.process.state() == 'T');
    let result = act();
    daemon.signal(Signal::SIGCONT);
    result
}

/// Stops the process for a while. False: this time had passed before, so a deadline might have come while it ran.
fn suspend(daemon: &Daemon, (since, time): (Instant, Duration), meanwhile: impl FnOnce()) -> bool {
    while_stopped(daemon, || {
        let is_in_time = since.elapsed() < time;
        if is_in_time {
            meanwhile();
        }
        is_in_time
    })
}

/// Retries while an attempt reports that a busy machine held it up, but not for much longer than DEADLINE.
pub fn until_in_time(mut attempt: impl FnMut() -> bool) {
    let give_up = Instant::now() + 3 * DEADLINE;
    let is_in_time = |number| {
        let is_in_time = attempt();
        if !is_in_time {
            eprintln!("attempt {number} was held up");
        }
        is_in_time
    };
    let mut attempts = (1..=50).take_while(|number| *number <= 5 || Instant::now() < give_up);
    assert!(attempts.any(is_in_time), "this machine is too slow, or what is expected does not happen");
}

/// The longest pause of a peer, which a busy machine may hold up.
pub struct Pace {
    last: Instant,
    longest: Duration,
}

impl Pace {
    pub fn start() -> Pace {
        Pace { last: Instant::now(), longest: Duration::ZERO }
    }

    /// Ends a pause, and begins the next one.
    pub fn step(&mut self) {
        self.longest = self.longest();
        self.last = Instant::now();
    }

    /// The longest pause up to now.
    pub fn longest(&self) -> Duration {
        self.longest.max(self.last.elapsed())
    }
}

/// The next frame from the gateway. None: the connection has ended.
pub fn frame_or_end(mut stream: impl Read) -> Option<Frame> {
    let mut is_open = true;
    let frame = Frame::read(|size| {
        let mut bytes = vec![0; size];
        match stream.read_exact(&mut bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                is_open = false;
            }
            result => result.unwrap(),
        }
        bytes
    });
    is_open.then_some(frame)
}

#[test]
fn requests_during_a_suspension_are_answered() {
    until_in_time(|| {
        // A handshake needs some turns more after the suspension: 1.5 s of its time are left then.
        let limits = "head-ms = 1000; handshake-ms = 2400; keepalive-ms = 1500; pool-buffers = 16;";
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
        let mut last = daemon.wire();
        last.send(&page);
        if start.elapsed() >= Duration::from_millis(900) {
            return false;
        }
        assert_eq!(last.response().status, 404);
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
        let mut resumed = start;
        let is_in_time = suspend(&daemon, (start, Duration::from_millis(2_400)), || {
            // The rate that each of them may send.
            for _ in 0..3 {
                for client in &mut clients {
                    client.send(&[Frame::new(PONG, b"")]);
                    (0..12).for_each(|_| client.text("meanwhile"));
                }
                thread::sleep(Duration::from_millis(1_200));
            }
            resumed = Instant::now();
        });
        if !is_in_time {
            return false;
        }
        for (number, client) in clients.iter().enumerate() {
            for _ in 0..36 {
                let mut frame = frame_or_end(client.wire.stream());
                while frame == Some(Frame::new(PING, b"")) {
                    frame = frame_or_end(client.wire.stream());
                }
                // The echo server or this test was held up for so long that another ping has got no answer in time.
                let is_lost = frame.as_ref().is_none_or(|frame| frame.opcode == CLOSE);
                if is_lost && resumed.elapsed() >= Duration::from_millis(2_400) {
                    return false;
                }
                assert_eq!(frame, Some(Frame::new(TEXT, b"meanwhile")), "client {number}");
            }
        }
        true
    });
}
