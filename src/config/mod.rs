//! What the daemon is to do, checked and typed: from a configuration file, from flags, or from both.

/// The table of all keys.
pub mod keys;

/// What is said about a configuration.
pub mod problem;

/// The syntax of files.
pub mod syntax;

/// Flags over files.
pub mod flags;

mod check;

mod values;

pub use values::{PROTOCOLS, TYPE_NAMES, TYPES, word};

use std::fs::File;
use std::io::Read as _;

use crate::gateway::listener::ListenAddress;
use crate::limits;
use crate::observe::log;
use crate::route::Site;
use flags::Flag;
use problem::{Place, Problem, Problems};

/// A value and where it was said, as an error names it: `-u`, or file, line and key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// The value.
    pub value: String,
    /// Where.
    pub place: String,
}

/// All that a configuration says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The user to become once the addresses are taken.
    pub user: Option<Said>,
    /// The file that holds the process's number.
    pub pid_file: Option<Said>,
    /// What is logged, how and where to.
    pub log: log::Settings,
    /// Where the log's file was named.
    pub log_place: String,
    /// The limits of the process.
    pub limits: limits::Process,
    /// At least one.
    pub servers: Vec<Server>,
}

/// Where a server's settings were made, as an error names them: `--listen`, or file, line and key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Its addresses.
    pub listen: String,
    /// The servers' folder.
    pub docroot: String,
    /// The pages' folder.
    pub www: String,
}

/// One element of `servers`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where its settings were made.
    pub places: Places,
    /// Where it listens; never empty.
    pub listen: Vec<ListenAddress>,
    /// The pages' folder.
    pub www: Option<String>,
    /// The folder of the UNIX servers' sockets.
    pub docroot: Option<String>,
    /// What is served.
    pub site: Site,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What its author may not expect.
    pub warnings: Vec<Problem>,
}

/// Reads a file, if there is one, with all that it includes, lays flags over it and checks the whole. Names of TCP
/// servers are looked up. The error is all that is wrong, and all that is worth a warning, by file and line.
pub fn load(file: Option<&str>, flags: &[Flag]) -> Result<Loaded, Vec<Problem>> {
    load_through(&mut read, file, flags)
}

fn load_through(read: &mut syntax::Read<'_>, file: Option<&str>, flags: &[Flag]) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut settings = match file {
        Some(name) => syntax::parse(name, read, &mut problems),
        None => {
            problems.add_source("the flags");
            Vec::new()
        }
    };
    if problems.is_broken() {
        return Err(problems.finish());
    }
    let whole = Place { source: 0, line: 0 };
    flags::lay_over(&mut settings, flags, whole, &mut problems);
    let config = check::check(&settings, whole, &mut problems);
    if problems.has_errors() { Err(problems.finish()) } else { Ok(Loaded { config, warnings: problems.finish() }) }
}

/// The bytes of a file, and one more than there may be where it is too large.
fn read(name: &str) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or_default();
        format!("cannot be read: {reason}: name a file that this user may read")
    };
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(name).map_err(failed)?.is_file() {
        return Err("is no regular file: name another one".to_owned());
    }
    let mut bytes = Vec::new();
    let most = limits::CONFIG_SIZE_MAX as u64 + 1;
    File::open(name).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
