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

mod merge;

mod values;

use std::fs::File;
use std::io::Read as _;

use crate::gateway::listener::ListenAddress;
use crate::limits;
use crate::observe::log;
use crate::route::Site;
use flags::Flag;
use problem::{Location, Problem, Problems};

/// A value and its place: `-u`, or file, line and key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TextSetting {
    /// The value.
    pub(crate) value: String,
    /// The place, as an error names it.
    pub(crate) place: String,
}

/// All that a configuration says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The user to become once the addresses are taken.
    pub(crate) user: Option<TextSetting>,
    /// The file that holds the process's number.
    pub(crate) pid_file: Option<TextSetting>,
    /// What is logged, how and where to.
    pub(crate) log: log::Settings,
    /// Where the log's file was named.
    pub(crate) log_place: String,
    /// The limits of the process.
    pub limits: limits::Process,
    /// A server does without something of ouistiti's that protected it.
    pub(crate) is_unprotected: bool,
    /// At least one.
    pub servers: Vec<Server>,
}

/// Where a server's settings were made, as an error names them: `--listen`, or file, line and key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SettingPlaces {
    /// Its addresses.
    pub listen: String,
    /// The servers' folder.
    pub docroot: String,
    /// The pages' folder.
    pub www: String,
    /// Which of them were set by flags. Their errors are reported at once, to the user at the terminal.
    pub(crate) by_flag: SetByFlag,
}

/// Settings of a server that flags have made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct SetByFlag {
    pub listen: bool,
    pub docroot: bool,
    pub www: bool,
}

/// One element of `servers`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where its settings were made.
    pub(crate) places: SettingPlaces,
    /// Where it listens; never empty.
    pub listen: Vec<ListenAddress>,
    /// Whether addresses that the machine does not have are listened on.
    pub(crate) has_freebind: bool,
    /// The pages' folder.
    pub www: Option<String>,
    /// The folder of the UNIX servers' sockets.
    pub docroot: Option<String>,
    /// What is served.
    pub site: Site,
    /// The hosts that its links name.
    pub(crate) hosts: Vec<Host>,
}

/// A host that a link names. The link's destination has no addresses before the host is looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    /// The link's number in the site.
    pub(crate) link: usize,
    /// Its name.
    pub(crate) name: Box<str>,
    /// The port of its server.
    pub(crate) port: u16,
    /// Where it was named, as an error says it.
    pub(crate) place: String,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What its author may not expect.
    pub warnings: Vec<Problem>,
}

/// Reads a file, if there is one, with all that it includes, lays flags over it and checks the whole. Nothing that it
/// names is looked at. The error is all that is wrong, and all that is worth a warning, by file and line.
pub fn load(file: Option<&str>, flags: &[Flag]) -> Result<Loaded, Vec<Problem>> {
    load_through(&mut read, &mut list, file, flags)
}

fn load_through(
    read: &mut syntax::Read<'_>,
    list: &mut merge::List<'_>,
    file: Option<&str>,
    flags: &[Flag],
) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut settings = match file {
        Some(name) => {
            let mut settings = syntax::parse(name, read, &mut problems);
            merge::merge(&mut settings, name, read, list, &mut problems);
            settings
        }
        None => {
            problems.add_source("the flags");
            Vec::new()
        }
    };
    if problems.is_broken() {
        return Err(problems.finish());
    }
    let whole = Location { source: 0, line: 0 };
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

/// The files of `config_d`, by name: those of a folder whose names end in `.conf`, or one file. A relative path is
/// looked for in the working directory, then in /, which is that of ouistiti's packages.
fn list(path: &str) -> Result<Vec<String>, String> {
    let reason = |error: std::io::Error| {
        let text = error.to_string();
        format!("cannot be read: {}", text.split(" (os error").next().unwrap_or_default())
    };
    let is_there = path.starts_with('/') || std::fs::metadata(path).is_ok();
    let path = if is_there { path.to_owned() } else { format!("/{path}") };
    if std::fs::metadata(&path).map_err(reason)?.is_file() {
        return Ok(vec![path]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(reason)? {
        let Ok(name) = entry.map_err(reason)?.file_name().into_string() else { continue };
        let file = format!("{}/{name}", path.trim_end_matches('/'));
        // An editor's lock file is a link that leads nowhere, and hidden.
        if !name.ends_with(".conf") || name.starts_with('.') {
            continue;
        }
        match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) if metadata.is_file() => files.push(file),
            Ok(_) => return Err(format!("has {name}, which is no regular file")),
            // ouistiti passes over a link that leads nowhere, too.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("has {name}, which {}", reason(error))),
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
