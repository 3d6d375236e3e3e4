//! The command line of the certificate authority.

mod commands;
mod options;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::run(std::env::args_os().skip(1))
}
