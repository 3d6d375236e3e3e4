//! `relay`: a raw byte relay from TCP to a UNIX stream socket, the floor of any proxy.
//!
//! One io_uring: multishot accept, multishot receive from provided buffers, each received
//! buffer sent as it is, one submit a turn. It looks at no byte.

mod buffers;
mod pair;
mod relay;
mod ring;

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use uakari_bench::Result;
use uakari_bench::args::Args;

const USAGE: &str = "relay --listen HOST:PORT --unix PATH";
/// A killed io_uring process keeps its port for a moment.
const BIND_RETRY_MAX: Duration = Duration::from_secs(2);
const BIND_PAUSE: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}\nusage: {USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = Args::from_env(&["listen", "unix"], &[])?;
    let backend = args.required("unix")?;
    let listener = bind(args.required("listen")?)?;
    let address = listener.local_addr()?;
    let mut relay = relay::Relay::new(listener, backend.into())?;
    println!("listening on {address}");
    loop {
        relay.turn()?;
    }
}

/// Listens (std sets SO_REUSEADDR), trying again while the port is busy.
fn bind(address: &str) -> Result<TcpListener> {
    let begun = Instant::now();
    let listener = loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < BIND_RETRY_MAX => {
                std::thread::sleep(BIND_PAUSE);
            }
            other => break other.map_err(|error| format!("{address}: {error}"))?,
        }
    };
    listen(&listener, Backlog::new(4096)?)?;
    // Accepted sockets inherit it.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    Ok(listener)
}
