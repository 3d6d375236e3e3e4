//! Code shared by the benchmark programs.
//!
//! The modules: the command line ([`args`]), both sides of the HTTP upgrade ([`handshake`]),
//! WebSocket headers, masks and an incremental decoder ([`frame`]), message contents that can be
//! checked without being stored ([`pattern`]), latencies ([`histogram`]), listening ([`listen`]).

#![forbid(unsafe_code)]

pub mod args;
pub mod frame;
pub mod handshake;
pub mod histogram;
pub mod listen;
pub mod pattern;

/// These programs exit at the first error, so an error is only a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The exit code. An error is printed with `usage`, whose first word is the program's name.
pub fn exit_code(usage: &str, result: Result<()>) -> std::process::ExitCode {
    let Err(error) = result else { return std::process::ExitCode::SUCCESS };
    let name = usage.split(' ').next().unwrap_or_default();
    eprintln!("{name}: {error}\nusage: {usage}");
    std::process::ExitCode::FAILURE
}
