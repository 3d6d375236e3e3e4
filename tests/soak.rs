//! A long run of all kinds of load, against a release build (`make soak`): every answer is checked, and memory must not
//! grow.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::{Client, Frame, TEXT};
use crate::daemon::Daemon;
use crate::process::Process;
use crate::wire::handshake;

const TELL: Duration = Duration::from_secs(10);
/// Samples of memory a minute.
const MINUTE: usize = 6;
/// After this time memory must not grow.
const WARM: Duration = Duration::from_secs(60);
const PROTOCOLS: [&str; 4] = ["stream", "lines", "nul", "frames"];

/// State shared by the threads.
#[derive(Default)]
struct Run {
    is_over: AtomicBool,
    messages: AtomicU64,
    connections: AtomicU64,
}

impl Run {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

/// Pseudorandom numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

fn configuration() -> String {
    let links = PROTOCOLS.map(|protocol| {
        format!("{{ origin = \"^/{protocol}$\"; type = \"unix\"; destination = \"@/run/{protocol}\"; protocol = \"{protocol}\"; }}")
    });
    format!(
        "limits = {{ queued-size = 4194304; pool-buffers = 32; }};\n\
         servers = ({{ listen = \"127.0.0.1:0\"; document = {{ docroot = \"@/www\"; }};\n\
         websocket = {{ docroot = \"@/run\"; links = ({}); limits = {{ ping-ms = 1000; pong-ms = 60000; }}; }}; }});",
        links.join(", ")
    )
}

/// Exchanges messages of all sizes that a line may have, then closes.
fn talk(daemon: &Daemon, run: &Run, dice: &mut Dice) {
    let mut client = daemon.connect(&format!("/{}", PROTOCOLS[dice.below(PROTOCOLS.len())]));
    for _ in 0..1 + dice.below(100) {
        let size = [1, 100, 10_000, 60_000][dice.below(4)];
        let text = "x".repeat(1 + dice.below(size));
        client.text(&text);
        let mut got = String::new();
        while got.len() < text.len() {
            got.push_str(&String::from_utf8(client.message().1).unwrap());
        }
        assert!(got == text, "{} other bytes than the {} that were due", got.len(), text.len());
        run.messages.fetch_add(1, Ordering::Relaxed);
    }
    client.finish(1000);
}

/// A misbehaving client: floods without reading, sends half a request, or asks for a page.
fn violate_the_protocol(daemon: &Daemon, dice: &mut Dice) {
    let mut wire = daemon.wire();
    match dice.below(4) {
        0 => wire.send(b"GET / HTTP/1.1\r\nHost: h\r\nX-Half: "),
        1 => wire.send(handshake("/mortal", &[], &[])),
        2 => {
            let mut client = Client::new(wire);
            client.wire.send(handshake("/stream", &[], &[]));
            // The heaviest connection may be closed meanwhile.
            let text = Frame::new(TEXT, &[b'y'; 50_000]).masked().bytes();
            let _ = (0..20).try_for_each(|_| client.wire.stream().write_all(&text));
        }
        _ => assert_eq!(wire.get("/index.html").status, 200),
    }
}

fn keep(run: &Run, seed: u64, mut act: impl FnMut(&mut Dice)) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
    while run.goes_on() {
        act(&mut dice);
        run.connections.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "takes ten minutes: run `make soak`"]
fn a_day() {
    let time =
        Duration::from_secs(std::env::var("UAKARI_SOAK_SECONDS").map_or(600, |text| text.parse().expect("a number")));
    let mut daemon = Daemon::start_configured(&configuration());
    std::fs::write(daemon.folder().join("www/index.html"), "page").unwrap();
    let _echoes = PROTOCOLS.map(|protocol| daemon.echo(protocol, &["--protocol", protocol]));
    let run = Run::default();
    let (sizes, began) = (&mut Vec::new(), Instant::now());
    thread::scope(|scope| {
        let (daemon, run) = (&daemon, &run);
        for seed in 1..7 {
            scope.spawn(move || keep(run, seed, |dice| talk(daemon, run, dice)));
        }
        for seed in 7..10 {
            scope.spawn(move || keep(run, seed, |dice| violate_the_protocol(daemon, dice)));
        }
        // A server that is killed and restarted, and reloads, all the time.
        let mut mortal: Option<Process> = None;
        while began.elapsed() < time {
            drop(mortal.take());
            mortal = Some(daemon.echo("mortal", &[]));
            thread::sleep(TELL.min(time));
            daemon.signal(Signal::SIGHUP);
            let (size, fds) = (daemon.resident_kib(), daemon.open_files());
            let (messages, connections) =
                (run.messages.load(Ordering::Relaxed), run.connections.load(Ordering::Relaxed));
            println!("{:?}: {size} KiB, {fds} fds, {connections} connections, {messages} messages", began.elapsed());
            sizes.push((began.elapsed(), size));
        }
        run.is_over.store(true, Ordering::Relaxed);
    });
    let warm: Vec<u64> = sizes.iter().filter(|(at, _)| *at > WARM).map(|(_, size)| *size).collect();
    let (rises, minutes) = rises(&warm);
    assert!(minutes < 4 || rises * 2 < minutes, "memory grew in {rises} of {minutes} minutes: {sizes:?}");
    daemon.stop();
}

/// The minutes in which memory was above all before, and all minutes. A larger crowd is a step, and then no other for
/// long; a leak has one nearly every minute.
fn rises(sizes: &[u64]) -> (usize, usize) {
    let minutes: Vec<u64> = sizes.chunks_exact(MINUTE).filter_map(|minute| minute.iter().min().copied()).collect();
    let is_rise = |(at, size): &(usize, &u64)| *at > 0 && minutes[..*at].iter().all(|before| before < *size);
    let rises = minutes.iter().enumerate().filter(is_rise).count();
    (rises, minutes.len())
}

#[test]
fn steps_are_distinguished_from_leaks() {
    let flat = [[5_444; 20], [6_536; 20]].concat();
    assert_eq!(rises(&flat), (1, 6));
    let leak: Vec<u64> = (0..54).map(|at| 5_000 + at * 4 + 300 * (at % 3)).collect();
    assert_eq!(rises(&leak), (8, 9));
}
