//! What the benchmark programs share.
//!
//! The modules: the command line ([`args`]), both ends of the HTTP upgrade ([`handshake`]),
//! WebSocket headers, masks and an incremental decoder ([`frame`]), message contents that can
//! be checked without being kept ([`pattern`]), latencies ([`histogram`]), listening ([`listen`]).

#![forbid(unsafe_code)]

pub mod args;
pub mod frame;
pub mod handshake;
pub mod histogram;
pub mod listen;
pub mod pattern;

/// These programs end at the first error, so an error is just a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How a program ends: what went wrong is told with how the program, whose name stands first in `usage`, is called.
pub fn exit_code(usage: &str, result: Result<()>) -> std::process::ExitCode {
    let Err(error) = result else { return std::process::ExitCode::SUCCESS };
    let name = usage.split(' ').next().unwrap_or_default();
    eprintln!("{name}: {error}\nusage: {usage}");
    std::process::ExitCode::FAILURE
}
