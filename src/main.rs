//! The daemon: parse, open, run, one line on failure.

use std::process::ExitCode;
use std::sync::Arc;

use argh::FromArgs;

use uakari::cli::Arguments;
use uakari::daemon::Daemon;
use uakari::observe::log::{self, Level};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["uakari"], &arguments) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => {
            log::announce(format_args!("{}", exit.output));
            return ExitCode::SUCCESS;
        }
        Err(exit) => return fail(&format!("{}: see uakari --help", exit.output.trim_end().trim_end_matches('.'))),
    };
    if arguments.version {
        log::announce(format_args!("uakari {}", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => fail(&sentence),
    }
}

fn fail(sentence: &str) -> ExitCode {
    log::event(Level::Error, format_args!("{sentence}"));
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> Result<(), String> {
    let load = move || arguments.clone().check().map_err(|sentence| vec![sentence]);
    let config = load().map_err(|sentences| sentences.join("\n"))?;
    Daemon::start(config, Arc::new(load))?.run()
}
