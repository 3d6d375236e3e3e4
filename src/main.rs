//! The daemon: parse, open, run, one line on failure.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use argh::FromArgs;

use uakari::cli::Arguments;
use uakari::config::Config;
use uakari::config::problem::Problem;
use uakari::daemon::{self, Daemon};
use uakari::observe::log::{self, Level};

fn main() -> ExitCode {
    let words: Result<Vec<String>, OsString> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let words = match words {
        Ok(words) => words,
        Err(word) => return fail(&format!("{word:?} is not UTF-8: write another one")),
    };
    let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["uakari"], &arguments) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => {
            exit.output.lines().for_each(|line| log::announce(format_args!("{line}")));
            return ExitCode::SUCCESS;
        }
        Err(exit) => return fail(&format!("{}: see uakari --help", exit.output.trim_end().trim_end_matches('.'))),
    };
    if arguments.version {
        log::announce(format_args!("uakari {}", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    if arguments.check {
        let checked = arguments.check(daemon::examine);
        checked.lines.iter().for_each(|line| log::announce(format_args!("{line}")));
        return if checked.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentences) => {
            sentences.iter().for_each(|sentence| log::event(Level::Error, format_args!("{sentence}")));
            ExitCode::FAILURE
        }
    }
}

fn fail(sentence: &str) -> ExitCode {
    log::event(Level::Error, format_args!("{sentence}"));
    ExitCode::FAILURE
}

fn run(arguments: Arguments) -> Result<(), Vec<String>> {
    daemon::hold_signals().map_err(|error| vec![error])?;
    let load = move || load(&arguments);
    let config = load()?;
    let mut daemon = Daemon::start(config, Arc::new(load))?;
    daemon.run().map_err(|error| vec![error])
}

/// Warnings go to the log at once; the error is what keeps the configuration from being used.
fn load(arguments: &Arguments) -> Result<Config, Vec<String>> {
    let (loaded, problems) = match arguments.load() {
        Ok(loaded) => (Some(loaded.config), loaded.warnings),
        Err(problems) => (None, problems),
    };
    let (warnings, errors): (Vec<Problem>, Vec<Problem>) =
        problems.into_iter().partition(|problem| problem.level == Level::Warn);
    warnings.iter().for_each(|warning| log::event(Level::Warn, format_args!("{warning}")));
    loaded.ok_or_else(|| errors.iter().map(Problem::to_string).collect())
}
