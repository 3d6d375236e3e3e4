//! The part of `--check` that needs the system: the driver, folders, user and hosts of a configuration. It binds no
//! address and creates no file, since a daemon may be running with the same configuration.

use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::certificates::{Certificates, examine_clients, needs_restart};
use super::hosts::{HostLookup, UNKNOWN};
use super::resources::open_folder;
use super::self_signed::examine_program;
use super::set_up_driver;
use super::supervision::examine_rules;
use crate::config::problem::Problem;
use crate::config::{Config, Server, TextSetting};
use crate::limits::LOOKUP_WAIT_MS;
use crate::observe::log::Level;
use crate::process::privileges::{self, PrivilegeError};
use crate::types::{ListenAddress, reason_of};

/// The result of `examine`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Examined {
    /// Errors prevent a start. Warnings name resources that a start would retry.
    pub(crate) problems: Vec<Problem>,
    /// Only root or the configured user can start the daemon with this configuration.
    pub(crate) needs_root: bool,
}

impl Examined {
    /// Adds a problem unless an equal one was added.
    fn add(&mut self, level: Level, text: &str) {
        let problem = Problem::new(level, text);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// Checks the resources that a start would open. The process may have become the configured user afterwards.
pub fn examine(config: &Config) -> Examined {
    let mut examined = Examined::default();
    user(config.user.as_ref(), &mut examined);
    if let Err(sentence) = set_up_driver(config) {
        examined.add(Level::Error, &sentence);
    }
    if let Some(TextSetting { value, place }) = &config.pid_file {
        let other = |metadata: &Metadata| !metadata.is_file();
        in_the_way(value, place, other, "is not a regular file: name another one", &mut examined);
        parent(value, place, Level::Error, &mut examined);
    }
    if let Some(file) = &config.log.file {
        log_file(file, &config.log_place, &mut examined);
    }
    for server in &config.servers {
        folders(server, &mut examined);
    }
    let mut config = config.clone();
    self_signed(&mut config, &mut examined);
    let certificates = match Certificates::load(&config, &Certificates::default()) {
        Ok((certificates, warnings)) => {
            warnings.iter().for_each(|line| examined.add(Level::Warn, line));
            certificates
        }
        Err(errors) => {
            errors.iter().for_each(|line| examined.add(Level::Error, line));
            Certificates::default()
        }
    };
    if let Some(mut lookup) = HostLookup::begin(&config, || ()) {
        lookup.wait(&mut config, LOOKUP_WAIT_MS);
        lookup.complaints(&config, UNKNOWN).iter().for_each(|complaint| examined.add(Level::Warn, complaint));
    }
    // Last, since the rights of root do not return.
    if let Some(TextSetting { value, .. }) = &config.user
        && privileges::is_root()
        && !(certificates.is_empty() && config.auth_rules.is_empty())
        && privileges::drop_to(value, false).is_ok()
    {
        certificates.unreadable().iter().for_each(|error| examined.add(Level::Warn, &needs_restart(error)));
    }
    match examine_rules(&config) {
        Ok(warnings) => warnings.iter().for_each(|line| examined.add(Level::Warn, line)),
        // Another user may be allowed to read the files.
        Err(errors) => {
            let level = if examined.needs_root { Level::Warn } else { Level::Error };
            errors.iter().for_each(|line| examined.add(level, line));
        }
    }
    examined
}

fn user(user: Option<&TextSetting>, examined: &mut Examined) {
    let Some(TextSetting { value, place }) = user else {
        if privileges::is_root() {
            examined.add(Level::Warn, privileges::STAYS_ROOT);
        }
        return;
    };
    let Err(error) = privileges::examine(value) else { return };
    // The user that runs --check need not be the one that starts the daemon.
    let is_permission = matches!(error, PrivilegeError::NotPermitted(_));
    examined.needs_root = is_permission;
    examined.add(if is_permission { Level::Warn } else { Level::Error }, &format!("{place} {value}: {error}"));
}

/// Ignores certificates that uakari-ca would make at a start: nothing is created here.
fn self_signed(config: &mut Config, examined: &mut Examined) {
    for server in &mut config.servers {
        let Some(files) = &server.tls else { continue };
        let Some(authority) = &files.authority else { continue };
        if let Err(error) = examine_program() {
            examined.add(Level::Error, &format!("{}: {error}", authority.place));
        }
        // A missing folder would be created in the first one above it that exists.
        let mut folders = Path::new(&authority.value).ancestors().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folders.find(|folder| folder.symlink_metadata().is_ok())
            && !folder.is_dir()
        {
            let sentence = format!("{}: {} is not a folder: name another one", authority.place, folder.display());
            examined.add(Level::Error, &sentence);
        }
        if !Path::new(&files.certificate.value).exists() {
            let errors = examine_clients(files).err().unwrap_or_default();
            errors.iter().for_each(|line| examined.add(Level::Error, line));
            server.tls = None;
        }
    }
}

fn folders(server: &Server, examined: &mut Examined) {
    let places = &server.places;
    for (path, place, is_by_flag) in
        [(&server.docroot, &places.docroot, places.by_flag.docroot), (&server.www, &places.www, places.by_flag.www)]
    {
        if let Some(Err(error)) = path.as_ref().map(|path| open_folder(path)) {
            let (level, end) =
                if error.is_missing() && !is_by_flag { (Level::Warn, ": waiting for it") } else { (Level::Error, "") };
            examined.add(level, &format!("{place}: {error}{end}"));
        }
    }
    for address in &server.listen {
        if let ListenAddress::Unix(path) = address {
            let other = |metadata: &Metadata| !metadata.file_type().is_socket();
            in_the_way(path, &places.listen, other, "is in the way and is not a socket: choose another path", examined);
            // A missing folder is retried only if the server has another address to listen on.
            let may_wait = server.listen.len() > 1 && !places.by_flag.listen;
            parent(path, &places.listen, if may_wait { Level::Warn } else { Level::Error }, examined);
        }
    }
}

/// Reports a file of another type at the path of a file to be created.
fn in_the_way(path: &str, place: &str, is_other: fn(&Metadata) -> bool, what: &str, examined: &mut Examined) {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| is_other(&metadata)) {
        examined.add(Level::Error, &format!("{place}: {path} {what}"));
    }
}

/// Reports a missing parent folder.
fn parent(path: &str, place: &str, level: Level, examined: &mut Examined) {
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        examined.add(level, &format!("{place}: {path} cannot be created: its folder does not exist: create it"));
    }
}

fn log_file(path: &str, place: &str, examined: &mut Examined) {
    if !Path::new(path).exists() {
        return parent(path, place, Level::Error, examined);
    }
    // Opening a FIFO without a reader must not block.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    if let Err(error) = OpenOptions::new().append(true).custom_flags(flags).open(path) {
        let reason = reason_of(&error);
        examined.add(Level::Error, &format!("{place} {path}: cannot be opened: {reason}: name another file"));
    }
}
