//! uakari-auth, a program beside this one that verifies passwords and tokens (docs/auth.md). The daemon runs it if a rule
//! needs it, starts it again when it ends, and lets another one read the files of a new configuration before that takes
//! effect.

use std::ffi::CString;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use auth_wire::{Decoder, ToDaemon, ToHelper, Zeroizing, encode};
use nix::errno::Errno;

use crate::config::Config;
use crate::driver::child::{Child, ChildEnd, spawn_with_socket};
use crate::driver::native::Native;
use crate::gateway::{Gateway, HelperRules};
use crate::limits::{
    AUTH_GENERATIONS_MAX, AUTH_LEAVING_MAX, AUTH_READY_MS, AUTH_RECEIVE_SIZE, AUTH_RESTART_MS, AUTH_RESTART_MS_MAX,
    AUTH_SIZE,
};
use crate::observe::log::{self, Level};

/// Why uakari-auth cannot be used. Display names the remedy.
#[derive(Debug)]
enum Failure {
    NoPath(io::Error),
    NoProgram(PathBuf),
    NotStarted(Errno),
    NotExecuted(PathBuf),
    /// It ended before it had read the rules.
    Ended(ChildEnd),
    /// It said what is no answer to rules.
    NoAnswer(String),
    TooLate,
    TooLong,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoPath(error) => {
                write!(f, "uakari-auth is not found, since the daemon's own path is not: {error}")
            }
            Failure::NoProgram(program) => {
                write!(f, "{} does not exist: install it beside uakari, which runs it", program.display())
            }
            Failure::NotStarted(errno) => write!(f, "uakari-auth cannot be started: {}: raise the limit", errno.desc()),
            Failure::NotExecuted(program) => {
                write!(f, "{} cannot be executed: let the daemon's user do so", program.display())
            }
            Failure::Ended(end) => {
                write!(f, "uakari-auth ended at its start: {end}: run uakari-auth --help to see why")
            }
            Failure::NoAnswer(what) => {
                write!(f, "uakari-auth said what is no answer ({what}): install the one that belongs to this daemon")
            }
            Failure::TooLate => {
                let seconds = AUTH_READY_MS / 1_000;
                write!(f, "uakari-auth has not read its files after {seconds} s: see that the file systems answer")
            }
            Failure::TooLong => f.write_str("the rules of auth exceed a message to uakari-auth: write fewer"),
        }
    }
}

/// The uakari-auth of the gateway. Dropped with the daemon, which ends it.
#[derive(Default)]
pub(super) struct AuthHelper {
    /// None: it is not needed, or waits for its next start.
    child: Option<Child>,
    /// Those that were killed and have not ended yet.
    leaving: Vec<Child>,
    /// When it was started, in ms.
    started_ms: u64,
    /// When it is started again, in ms. None: it runs, or is not needed.
    restart_ms: Option<u64>,
    /// The pause before the next start after that.
    pause_ms: u64,
}

impl AuthHelper {
    /// Starts it if a rule needs it and it does not run. A failure is logged, and the start tried again later.
    pub(super) fn start_for(&mut self, config: &Config, gateway: &mut Gateway<Native>) {
        if !config.auth_rules.is_empty() && self.child.is_none() && self.restart_ms.is_none() {
            self.start(gateway);
        }
    }

    /// Starts it again if its time has come, or plans this if it has ended. Called after each turn.
    pub(super) fn look_after(&mut self, gateway: &mut Gateway<Native>) {
        let now_ms = gateway.now_ms();
        if gateway.take_helper_end() {
            // The gateway has told why. It may run on, if its messages were no messages.
            if let Some(mut child) = self.child.take() {
                child.kill();
                self.leaving.push(child);
            }
            self.plan_restart(now_ms);
        }
        self.leaving.retain_mut(|child| {
            let end = child.ended();
            if let Some(end) = end {
                log::event(Level::Error, format_args!("uakari-auth: {end}: it is started again"));
            }
            end.is_none()
        });
        if self.restart_ms.is_some_and(|at_ms| at_ms <= now_ms) && self.leaving.len() < AUTH_LEAVING_MAX {
            self.start(gateway);
        }
    }

    /// How long the event loop may wait, in ms. None: any time.
    pub(super) fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        let is_full = self.leaving.len() >= AUTH_LEAVING_MAX;
        let restart_ms = self.restart_ms.filter(|_| !is_full).map(|at_ms| at_ms.saturating_sub(now_ms));
        // No event tells the end of a child.
        let look_ms = (!self.leaving.is_empty()).then_some(AUTH_RESTART_MS);
        restart_ms.into_iter().chain(look_ms).min()
    }

    fn start(&mut self, gateway: &mut Gateway<Native>) {
        self.restart_ms = None;
        self.started_ms = gateway.now_ms();
        match spawn() {
            Ok((child, socket)) => {
                self.child = Some(child);
                gateway.connect_helper(socket);
            }
            Err(failure) => {
                log::event(Level::Error, format_args!("auth: {failure}"));
                self.plan_restart(self.started_ms);
            }
        }
    }

    fn plan_restart(&mut self, now_ms: u64) {
        let has_run_long = now_ms.saturating_sub(self.started_ms) >= AUTH_RESTART_MS_MAX;
        self.pause_ms = match has_run_long {
            true => AUTH_RESTART_MS,
            false => (2 * self.pause_ms).clamp(AUTH_RESTART_MS, AUTH_RESTART_MS_MAX),
        };
        self.restart_ms = Some(now_ms + self.pause_ms);
    }
}

/// The rules of a configuration.
pub(super) fn rules_of(config: &Config) -> HelperRules {
    HelperRules {
        generation: config.auth_generation,
        rules: config.auth_rules.clone().into(),
        places: config.auth_places.clone().into(),
    }
}

/// Numbers the rules of a new configuration: as the old ones if they are equal, else by the next number.
pub(super) fn number_rules(config: &mut Config, old: &Config) {
    let is_same = config.auth_rules == old.auth_rules;
    config.auth_generation = old.auth_generation + u32::from(!is_same);
}

/// Upper bound of the memory for uakari-auth in this process, in bytes.
pub(super) fn memory_size_max(config: &Config) -> u64 {
    if config.auth_rules.is_empty() {
        return 0;
    }
    let mut message = Zeroizing::new(Vec::new());
    let rules = ToHelper::Rules { generation: 0, rules: config.auth_rules.clone(), is_trial: false };
    // It has been sent before.
    let _ = encode(&rules, &mut message);
    // The rules of each configuration, and the message of them while it is sent.
    AUTH_SIZE + (4 * AUTH_GENERATIONS_MAX * message.len()) as u64
}

/// Lets a uakari-auth of its own read the files of all rules, as the user of this process. Returns its warnings. The errors
/// name the settings.
pub(super) fn examine_rules(config: &Config) -> Result<Vec<String>, Vec<String>> {
    if config.auth_rules.is_empty() {
        return Ok(Vec::new());
    }
    let rules = rules_of(config);
    let told = tell(&rules).map_err(|failure| vec![rules.line(0, &failure.to_string())])?;
    match told {
        Told::Ready(warnings) => Ok(warnings.into_iter().map(|warning| format!("auth: {warning}")).collect()),
        Told::Problems(problems) => Err(problems),
    }
}

/// What uakari-auth says about rules.
enum Told {
    /// It can use them. Its warnings.
    Ready(Vec<String>),
    /// It cannot: a line for each problem.
    Problems(Vec<String>),
}

fn tell(rules: &HelperRules) -> Result<Told, Failure> {
    let until = Instant::now() + Duration::from_millis(AUTH_READY_MS);
    // The rules may have passwords and tokens.
    let mut bytes = Zeroizing::new(Vec::new());
    let message = ToHelper::Rules { generation: rules.generation, rules: rules.rules.to_vec(), is_trial: true };
    encode(&message, &mut bytes).map_err(|_| Failure::TooLong)?;
    let (child, socket) = spawn()?;
    let mut stream = UnixStream::from(socket);
    let time_left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let failed = |error: io::Error, child: Child| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::TooLate,
        _ => ended(child),
    };
    let sent = stream.set_write_timeout(Some(time_left())).and_then(|()| stream.write_all(&bytes));
    if let Err(error) = sent {
        return Err(failed(error, child));
    }
    let mut decoder = Decoder::default();
    let mut buffer = [0; AUTH_RECEIVE_SIZE];
    loop {
        let received = stream.set_read_timeout(Some(time_left())).and_then(|()| stream.read(&mut buffer));
        let size = match received {
            Ok(0) => return Err(ended(child)),
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error, child)),
        };
        decoder.push(&buffer[..size]);
        match decoder.next().map_err(|error| Failure::NoAnswer(error.to_string()))? {
            None if Instant::now() >= until => return Err(Failure::TooLate),
            None => {}
            Some(ToDaemon::Ready { warnings, .. }) => return Ok(Told::Ready(warnings)),
            Some(ToDaemon::Problems { problems, .. }) => {
                let lines = problems.iter().map(|problem| rules.line(problem.rule, &problem.sentence));
                return Ok(Told::Problems(lines.collect()));
            }
            Some(_) => return Err(Failure::NoAnswer("neither ready nor problems".to_owned())),
        }
    }
}

/// A child closes its socket before it can be waited for, so the status may be that of a kill.
fn ended(child: Child) -> Failure {
    match (child.end(), program()) {
        (ChildEnd::NotExecuted, Ok(program)) => Failure::NotExecuted(program),
        (end, _) => Failure::Ended(end),
    }
}

fn program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(Failure::NoPath)?.with_file_name("uakari-auth");
    if program.exists() { Ok(program) } else { Err(Failure::NoProgram(program)) }
}

/// Starts it as the user of this process.
fn spawn() -> Result<(Child, OwnedFd), Failure> {
    let program = program()?;
    let path = CString::new(program.as_os_str().as_bytes()).map_err(|_| Failure::NotStarted(Errno::EINVAL))?;
    spawn_with_socket(&path, &[c"uakari-auth"], None).map_err(Failure::NotStarted)
}
