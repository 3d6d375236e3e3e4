//! The daemon: parse, open, run, one line on failure.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use argh::FromArgs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use uakari::cli::{Arguments, Settings};
use uakari::driver::uring::Uring;
use uakari::driver::{Kind, Token};
use uakari::gateway::{Folders, Gateway, listener};
use uakari::limits;
use uakari::observe::log::{self, Level};
use uakari::process::privileges;
use uakari::route::docroot::open_folder;

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
    match arguments.check().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => fail(&sentence),
    }
}

fn fail(sentence: &str) -> ExitCode {
    log::event(Level::Error, format_args!("{sentence}"));
    ExitCode::FAILURE
}

fn run(settings: Settings) -> Result<(), String> {
    log::set_level(settings.log_level);
    let folder = |path: Option<&String>| path.map(|path| open_folder(path)).transpose();
    let docroot = folder(settings.docroot.as_ref()).map_err(|error| format!("--docroot: {error}"))?;
    let www = folder(settings.www.as_ref()).map_err(|error| format!("--www: {error}"))?;
    let clients_max = clients_max();
    let mut listeners: Vec<OwnedFd> = Vec::new();
    let mut bound = Vec::new();
    for address in &settings.listen {
        let (fd, address) = listener::listen(address).map_err(|error| format!("--listen: {error}"))?;
        listeners.push(fd);
        bound.push(address);
    }
    match &settings.user {
        Some(user) => {
            let keeps_binding = bound.iter().any(privileges::is_needed_to_bind);
            privileges::drop_to(user, keeps_binding).map_err(|error| format!("-u {user}: {error}"))?;
        }
        None => privileges::harden().map_err(|error| error.to_string())?,
    }
    let signals = [Signal::SIGTERM, Signal::SIGINT];
    SigSet::from_iter(signals).thread_block().map_err(|errno| format!("cannot block signals: {}", errno.desc()))?;
    let mut driver = Uring::new().map_err(|error| error.to_string())?;
    let token = Token { slot: 0, generation: 0, kind: Kind::Signal };
    driver.watch_signals(token, &signals).map_err(|errno| format!("cannot watch signals: {}", errno.desc()))?;
    let mut gateway = Gateway::new(driver, settings.site, Folders { docroot, www }, listeners, clients_max);
    log::event(
        Level::Info,
        format_args!("uakari {} on io_uring, {clients_max} clients at most", env!("CARGO_PKG_VERSION")),
    );
    for address in &bound {
        log::announce(format_args!("listening on {address}"));
    }
    let ran = gateway.run();
    bound.iter().for_each(listener::remove);
    ran.map_err(|errno| format!("the event loop failed: {}", errno.desc()))?;
    log::event(Level::Info, format_args!("stopped"));
    Ok(())
}

/// As many clients as the limits allow: each takes two file descriptors.
fn clients_max() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return limits::CLIENTS_MAX };
    let fds = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let clients = (fds.saturating_sub(limits::FDS_RESERVED) / 2) as usize;
    if clients < limits::CLIENTS_MAX {
        log::event(Level::Warn, format_args!("ulimit -n {fds} allows {clients} clients only"));
    }
    clients.clamp(1, limits::CLIENTS_MAX)
}
