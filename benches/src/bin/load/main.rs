//! `load`: clients that send messages to an echo server, check every byte and measure.
//!
//! One thread with epoll. Prints one line of `key=value`. Any wrong, missing or extra byte
//! causes exit code 1.

mod client;
mod connection;
mod report;
mod secure;
mod swarm;

use secure::Security;
use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use swarm::{Goal, Swarm};
use uakari_bench::Result;
use uakari_bench::args::Args;

const USAGE: &str = "load --addr HOST:PORT [--path /echo] [--clients N] [--size BYTES] \
[--inflight K]
     [--seconds S] [--warmup S] [--raw | --stream] [--idle | --connects N] [--cpu PID[,PID...]]
     [--tls FILE [--resume] [--handshakes]]

  --raw       plain bytes, no WebSocket: blocks of BYTES bytes, the same number back
  --stream    the same bytes back, in whatever messages: the server does not see their borders
  --idle      one message each, then print `ready` and hold all clients open until stdin ends
  --connects  N times connect, upgrade, one echo, close, CLIENTS at once; latencies are theirs
  --tls       wss to a server with this certificate, in a PEM file
  --resume    with --connects: every TLS handshake after the first CLIENTS resumes a session
  --handshakes  with --connects: end each connection after its TLS handshake
  --cpu       also print the CPU microseconds a message of these processes, as cpu_us=A,B,...";

const VALUED: &[&str] = &["addr", "path", "clients", "size", "inflight", "seconds", "warmup", "connects", "cpu", "tls"];

/// The parsed command line.
struct Options {
    address: SocketAddr,
    host: String,
    path: String,
    clients: usize,
    size: usize,
    inflight: u64,
    seconds: Duration,
    warmup: Duration,
    raw: bool,
    stream: bool,
    idle: bool,
    connects: usize,
    /// None: plain.
    tls: Option<Security>,
    resume: bool,
    handshakes: bool,
    cpu_pids: Vec<i32>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("load: {error}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let args = Args::from_env(VALUED, &["raw", "stream", "idle", "resume", "handshakes"])?;
    let host = args.required("addr")?.to_owned();
    let options = Options {
        address: host.parse().map_err(|error| format!("{host}: {error}"))?,
        host,
        path: args.value("path").unwrap_or("/echo").to_owned(),
        clients: args.number("clients", 1)?,
        size: args.number("size", 64)?,
        inflight: args.number("inflight", 1)?,
        seconds: seconds(&args, "seconds", 3.0)?,
        warmup: seconds(&args, "warmup", 0.5)?,
        raw: args.flag("raw"),
        stream: args.flag("stream"),
        idle: args.flag("idle"),
        connects: args.number("connects", 0)?,
        tls: args.value("tls").map(|file| Security::new(file, args.flag("resume"))).transpose()?,
        resume: args.flag("resume"),
        handshakes: args.flag("handshakes"),
        cpu_pids: pids(args.value("cpu").unwrap_or(""))?,
    };
    let has_borders = !options.raw && !options.stream;
    if options.clients == 0 || options.inflight == 0 || !has_borders && options.size == 0 {
        return Err("clients, inflight and a raw or stream's size must be at least 1".into());
    }
    Ok(options)
}

fn seconds(args: &Args, name: &str, default: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(args.number(name, default)?).map_err(|error| format!("--{name}: {error}").into())
}

fn pids(list: &str) -> Result<Vec<i32>> {
    list.split(',')
        .filter(|pid| !pid.is_empty())
        .map(|pid| pid.parse().map_err(|_| format!("--cpu {pid}?").into()))
        .collect()
}

fn run(options: &Options) -> Result<()> {
    if options.connects > 0 {
        connects(options)
    } else if options.idle {
        idle(options)
    } else {
        echo(options)
    }
}

/// All clients send messages for the warm-up and then for the measured time.
fn echo(options: &Options) -> Result<()> {
    let mut swarm = Swarm::new(options, Goal::Open, options.clients)?;
    swarm.settle(options.clients)?;
    swarm.talk()?;
    swarm.run_until(Instant::now() + options.warmup)?;
    swarm.report.begin(&options.cpu_pids)?;
    swarm.run_until(Instant::now() + options.seconds)?;
    let line = swarm.report.finish(&options.cpu_pids)?;
    swarm.drain()?;
    println!("{line}");
    Ok(())
}

/// Connections one after the other; the first tenth is the warm-up.
fn connects(options: &Options) -> Result<()> {
    let warmup = options.connects / 10;
    let mut swarm = Swarm::new(options, Goal::Close, options.connects + warmup)?;
    swarm.settle(warmup)?;
    swarm.report.begin(&options.cpu_pids)?;
    swarm.settle(warmup + options.connects)?;
    println!("{}", swarm.report.finish(&options.cpu_pids)?);
    Ok(())
}

/// Holds idle clients open until stdin ends.
fn idle(options: &Options) -> Result<()> {
    let mut swarm = Swarm::new(options, Goal::Echo, options.clients)?;
    swarm.settle(options.clients)?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
