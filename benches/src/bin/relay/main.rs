//! `relay`: a raw byte relay from TCP to a UNIX stream socket, the lower bound for any proxy.
//!
//! One io_uring: multishot accept, multishot receive from provided buffers, each received buffer
//! is sent unchanged, one submit per turn. It does not inspect the bytes.

mod buffers;
mod pair;
mod relay;
mod ring;

use std::process::ExitCode;
use uakari_bench::args::Args;
use uakari_bench::{Result, exit_code, listen};

const USAGE: &str = "relay --listen HOST:PORT --unix PATH";

fn main() -> ExitCode {
    exit_code(USAGE, run())
}

fn run() -> Result<()> {
    let args = Args::from_env(&["listen", "unix"], &[])?;
    let backend = args.required("unix")?;
    let listener = listen::bind(args.required("listen")?)?;
    let address = listener.local_addr()?;
    let mut relay = relay::Relay::new(listener, backend.into())?;
    println!("listening on {address}");
    loop {
        relay.turn()?;
    }
}
