//! The daemon: start, reload and stop. Everything that can fail is opened before a configuration takes effect; it takes
//! effect as a whole or not at all.

mod addresses;
mod certificates;
mod examine;
mod file_events;
mod hosts;
mod kernel_tls;
mod node_certificates;
mod renewal;
mod resources;
mod retries;
mod self_signed;
mod supervision;

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, User};

use crate::config::{Config, TextSetting};
use crate::driver::native::{Native, NativeError};
use crate::driver::uring::StartError;
use crate::driver::{Op, Token};
use crate::gateway::Gateway;
use crate::limits;
use crate::observe::log::{self, Level};
use crate::process::inherited::{Inherited, inherited_listeners};
use crate::process::pid_file::PidFile;
use crate::process::privileges;
use crate::process::systemd::{Notifier, NotifyError, watchdog_interval_ms};
use crate::types::ListenAddress;
use certificates::{Certificates, needs_restart};
use hosts::{HostLookup, are_old, keep_known};
use kernel_tls::KernelTls;
use renewal::Renewal;
use resources::{Mode, OpenFolders, OpenedResources, Reusable, ServedAddress, open_all, raise_descriptors};
use retries::{Retries, wake};
use self_signed::log_run;
use supervision::{AuthHelper, examine_rules, number_rules, rules_of};

pub use examine::{Examined, examine};
pub use self_signed::default_tls_dir;

/// Loads the configuration from its file and flags.
type Load = Arc<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

/// A configuration, its opened resources and certificates.
struct LoadedConfig {
    config: Config,
    opened: OpenedResources,
    certificates: Certificates,
    /// Failures of uakari-ca that were logged.
    failures: Vec<String>,
    lookup: Option<HostLookup>,
}

/// Blocked signals, read through the driver. SIGXFSZ is ignored when read: it is blocked so that a log at RLIMIT_FSIZE
/// does not end the daemon. Threads that load or resolve send LOADED, so that the loop waits in one place.
const SIGNALS: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGXFSZ, LOADED];
const LOADED: Signal = Signal::SIGUSR2;

/// A running daemon.
pub struct Daemon {
    gateway: Gateway<Native>,
    config: Config,
    load: Load,
    /// All sockets inherited from the service manager. A reload may use one that is unused now.
    inherited: Arc<Vec<Inherited>>,
    /// The result of a load in progress.
    loading: Option<Receiver<Result<LoadedConfig, Vec<String>>>>,
    /// A reload was requested during a load: load again.
    must_load_again: bool,
    is_stopping: bool,
    /// The open folders of the configuration.
    folders: OpenFolders,
    /// The identities of its servers with TLS.
    certificates: Certificates,
    /// Their files, which may change.
    renewal: Renewal,
    /// Whether the kernel makes their records.
    kernel_tls: KernelTls,
    /// Verifies passwords and tokens.
    auth_helper: AuthHelper,
    /// Missing resources that are retried.
    retries: Retries,
    notifier: Notifier,
    /// Time of the next watchdog notification, and the interval.
    watchdog_ms: Option<(u64, u64)>,
    /// Removed at the end.
    _pid_file: Option<PidFile>,
}

impl Daemon {
    /// Binds the addresses, drops privileges, sets the driver up. The error lists all that cannot be opened.
    pub fn start(mut config: Config, load: Load) -> Result<Daemon, Vec<String>> {
        // Before anything else is opened: inherited descriptors are identified by number.
        let inherited = inherited_listeners().map_err(single)?;
        let notifier = Notifier::from_env().map_err(single)?;
        raise_descriptors(&mut config.limits);
        number_rules(&mut config, &Config::default());
        let pid_file = config.pid_file.as_ref().map(|TextSetting { value, place }| {
            PidFile::create(Path::new(value)).map_err(|error| single(format_args!("{place}: {error}")))
        });
        let pid_file = pid_file.transpose()?;
        let run = self_signed::issue_for(&config)?;
        let held = Reusable { known: &[], inherited: &inherited, folders: &OpenFolders::new(), missing: &[] };
        let (certificates, mut notices) = match Certificates::load(&config, &Certificates::default()) {
            Ok(loaded) => loaded,
            Err(mut errors) => {
                errors.extend(open_all(&config, &Certificates::default(), held, Mode::Start).err().unwrap_or_default());
                return Err(errors);
            }
        };
        let opened = open_all(&config, &certificates, held, Mode::Start)?;
        let OpenedResources { setups, bound, inherited: taken, missing, folders } = opened;
        for given in inherited.iter().filter(|given| !taken.iter().any(|taken| given.is_for(&taken.address))) {
            log::event(Level::Warn, format_args!("the inherited {given} matches no server's listen, addr or port"));
        }
        let mut kernel_tls = KernelTls::default();
        kernel_tls.try_for(&config);
        become_user(&config).map_err(single)?;
        // As the daemon's user, which reads their files later on.
        notices.extend(examine_rules(&config)?);
        let unreadable = certificates.unreadable();
        notices.extend(unreadable.iter().map(|error| needs_restart(error)));
        block(&SIGNALS).map_err(single)?;
        let (mut driver, refusal) = set_up_driver(&config).map_err(single)?;
        let token = Token { slot: 0, generation: 0, op: Op::Signal };
        let watched = driver.watch_signals(token, &SIGNALS);
        watched.map_err(|errno| single(format_args!("cannot watch signals: {}", errno.desc())))?;
        // After all that can fail, so that start-up errors go to standard error.
        start_log(&config).map_err(single)?;
        if let Some(error) = refusal {
            log::event(Level::Warn, format_args!("serving with epoll, which takes more CPU per message: {error}"));
        }
        let (version, name) = (env!("CARGO_PKG_VERSION"), driver.name());
        log::event(Level::Info, format_args!("uakari {version} on {name}, {}", ProcessBounds(&config, &certificates)));
        for notice in notices {
            log::event(Level::Warn, format_args!("{notice}"));
        }
        log_run(&run, &config, bound.iter().chain(&taken), "");
        let mut gateway = Gateway::new(driver, config.limits.clone());
        kernel_tls.enable(&mut gateway);
        let mut auth_helper = AuthHelper::default();
        gateway.set_auth_rules(rules_of(&config));
        auth_helper.start_for(&config, &mut gateway);
        gateway.configure(config.limits.clone(), setups);
        if config.user.is_none() && privileges::is_root() {
            log::event(Level::Warn, format_args!("{}", privileges::STAYS_ROOT));
        }
        announce(bound.iter().chain(&taken));
        let watchdog_ms = watchdog_interval_ms().map(|interval_ms| (0, interval_ms));
        let mut daemon = Daemon {
            gateway,
            config,
            load,
            inherited: Arc::new(inherited),
            loading: None,
            must_load_again: false,
            is_stopping: false,
            folders,
            certificates,
            renewal: Renewal::default(),
            kernel_tls,
            auth_helper,
            retries: Retries::default(),
            notifier,
            watchdog_ms,
            _pid_file: pid_file,
        };
        daemon.set_missing(missing, "");
        daemon.begin_renewal(unreadable, run.failures);
        daemon.start_lookup();
        daemon.tell(daemon.notifier.ready(&daemon.retries.status()));
        Ok(daemon)
    }

    /// Serves until SIGTERM or SIGINT, and then until all connections are closed.
    pub fn run(&mut self) -> Result<(), String> {
        let mut completions = Vec::new();
        // Start-up lines are written before the first wait.
        let mut is_log_flushed = log::flush();
        while !self.gateway.is_over() {
            let watchdog_ms = self.watchdog_ms.map(|(at_ms, _)| at_ms.saturating_sub(self.gateway.now_ms()));
            // Lines that could not be written are tried again, even without another event.
            let log_ms = (!is_log_flushed).then_some(limits::LOG_TELL_MS);
            let retry_ms = self.retry_wait_ms();
            let auth_ms = self.auth_helper.wait_ms(self.gateway.now_ms());
            let wait_ms = [watchdog_ms, log_ms, retry_ms, auth_ms, self.renewal_wait_ms()].into_iter().flatten().min();
            let turned = self.gateway.turn(wait_ms, &mut completions);
            turned.map_err(|errno| format!("the event loop failed: {}", errno.desc()))?;
            for number in self.gateway.take_signals() {
                self.on_signal(number);
            }
            self.auth_helper.look_after(&mut self.gateway);
            self.retry_due();
            self.renew_due();
            self.feed_watchdog();
            is_log_flushed = log::flush();
        }
        log::event(Level::Info, format_args!("stopped"));
        log::finish();
        Ok(())
    }

    fn feed_watchdog(&mut self) {
        let now_ms = self.gateway.now_ms();
        if let Some((at_ms, interval_ms)) = self.watchdog_ms
            && at_ms <= now_ms
        {
            self.watchdog_ms = Some((now_ms + interval_ms, interval_ms));
            self.tell(self.notifier.watchdog());
        }
    }

    /// A failed notification does not stop the daemon.
    fn tell(&self, told: Result<(), NotifyError>) {
        if let Err(error) = told {
            log::event(Level::Warn, format_args!("{error}"));
        }
    }

    fn on_signal(&mut self, number: i32) {
        match Signal::try_from(number) {
            Ok(Signal::SIGTERM | Signal::SIGINT) => {
                log::event(Level::Info, format_args!("stopping on signal {number}"));
                self.is_stopping = true;
                self.tell(self.notifier.stopping());
                self.gateway.stop();
            }
            Ok(Signal::SIGHUP) => self.begin_loading(),
            Ok(LOADED) => {
                self.end_loading();
                self.apply_answers();
                self.end_look();
            }
            Ok(Signal::SIGUSR1) => {
                if let Err(error) = log::reopen() {
                    log::event(Level::Error, format_args!("log-file {error}"));
                }
            }
            _ => {}
        }
    }

    /// Loads in a thread, since lookups and busy addresses take time: clients are served meanwhile.
    fn begin_loading(&mut self) {
        if self.loading.is_some() || self.is_stopping {
            self.must_load_again = true;
            return;
        }
        self.must_load_again = false;
        self.tell(self.notifier.reloading());
        let (sender, receiver) = channel();
        let (load, old, known) = (self.load.clone(), self.config.clone(), self.addresses());
        let (inherited, missing) = (self.inherited.clone(), self.retries.names());
        let certificates = self.certificates.clone();
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let loaded = load().and_then(|mut config| {
                config.adopt(&old);
                let run = self_signed::issue_for(&config)?;
                let (certificates, mut notices) = Certificates::load(&config, &certificates)?;
                number_rules(&mut config, &old);
                notices.extend(examine_rules(&config)?);
                for notice in notices {
                    log::event(Level::Warn, format_args!("reload: {notice}"));
                }
                let lookup = look_up(&mut config, &old)?;
                let held =
                    Reusable { known: &known, inherited: &inherited, folders: &OpenFolders::new(), missing: &missing };
                let (config, opened) = open(config, &certificates, &old, held)?;
                log_run(&run, &config, opened.bound.iter().chain(&opened.inherited), "reload: ");
                Ok(LoadedConfig { config, opened, certificates, failures: run.failures, lookup })
            });
            // The receiver lives as long as the daemon.
            let _ = sender.send(loaded);
            let _ = kill(Pid::this(), LOADED);
        });
        match thread {
            Ok(_) => self.loading = Some(receiver),
            Err(error) => {
                log::event(Level::Error, format_args!("reload: cannot start: {error}"));
                self.tell(self.notifier.ready(&self.retries.status()));
            }
        }
    }

    fn end_loading(&mut self) {
        let loaded = match self.loading.as_ref().map(Receiver::try_recv) {
            // Another process may have sent the signal.
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Err(TryRecvError::Disconnected)) => Err(vec!["loading failed".to_owned()]),
            Some(Ok(loaded)) => loaded,
        };
        self.loading = None;
        if self.is_stopping {
            return;
        }
        let taken = loaded.and_then(|loaded| self.take_config(loaded));
        match taken {
            Ok(()) => log::event(
                Level::Info,
                format_args!(
                    "reloaded: new connections get the new configuration, {}",
                    ProcessBounds(&self.config, &self.certificates)
                ),
            ),
            Err(sentences) => {
                for sentence in sentences {
                    log::event(Level::Error, format_args!("reload: {sentence}"));
                }
                log::event(Level::Error, format_args!("reload: the old configuration stays"));
                self.use_resolved();
            }
        }
        self.tell(self.notifier.ready(&self.retries.status()));
        if self.must_load_again {
            self.begin_loading();
        }
    }

    /// The addresses of all listeners.
    fn addresses(&self) -> Vec<ListenAddress> {
        self.gateway.addresses().cloned().collect()
    }

    /// Replaces the configuration, or changes nothing.
    fn take_config(&mut self, loaded: LoadedConfig) -> Result<(), Vec<String>> {
        let LoadedConfig { config, opened, certificates, failures, lookup } = loaded;
        start_log(&config).map_err(single)?;
        if self.kernel_tls.try_for(&config) {
            self.kernel_tls.enable(&mut self.gateway);
        }
        self.gateway.set_auth_rules(rules_of(&config));
        self.auth_helper.start_for(&config, &mut self.gateway);
        self.gateway.configure(config.limits.clone(), opened.setups);
        announce(opened.bound.iter().chain(&opened.inherited));
        self.config = config;
        self.folders = opened.folders;
        self.certificates = certificates;
        self.set_missing(opened.missing, "is no longer waited for");
        self.set_lookup(lookup);
        self.begin_renewal(Vec::new(), failures);
        Ok(())
    }

    /// Resolves hosts for up to LOOKUP_START_MS. The lookup continues while the daemon serves.
    fn start_lookup(&mut self) {
        let Some(mut lookup) = HostLookup::begin(&self.config, wake) else { return };
        lookup.wait(&mut self.config, limits::LOOKUP_START_MS);
        self.open_again(false);
        self.set_lookup(Some(lookup));
    }
}

/// Resolves the hosts of a new configuration. A host whose lookup fails keeps its addresses of the old configuration.
/// The error names the hosts without addresses, unless the old configuration has no addresses for them either.
fn look_up(config: &mut Config, old: &Config) -> Result<Option<HostLookup>, Vec<String>> {
    let Some(mut lookup) = HostLookup::begin(config, wake) else { return Ok(None) };
    lookup.wait(config, limits::LOOKUP_WAIT_MS);
    let mut kept = lookup.complaints(config, "its addresses stay as they are");
    keep_known(config, old);
    let unknown = lookup.complaints(config, "its addresses stay as they are");
    kept.retain(|complaint| !unknown.contains(complaint));
    for complaint in kept {
        log::event(Level::Warn, format_args!("reload: {complaint}"));
    }
    if !are_old(config, old) {
        return Err(lookup.complaints(config, "write its address, or make the name resolvable"));
    }
    Ok(Some(lookup))
}

/// Opens the resources of a new configuration. Settings that only a start applies keep their old values.
fn open(
    mut config: Config,
    certificates: &Certificates,
    old: &Config,
    held: Reusable<'_>,
) -> Result<(Config, OpenedResources), Vec<String>> {
    let is_same = |new: &Option<TextSetting>, old: &Option<TextSetting>| match (new, old) {
        (Some(new), Some(old)) => new.value == old.value,
        (new, old) => new.is_none() && old.is_none(),
    };
    for (key, is_same) in [
        ("user", is_same(&config.user, &old.user)),
        ("pid-file", is_same(&config.pid_file, &old.pid_file)),
        ("driver", config.driver == old.driver),
        ("limits.pool-buffers", config.limits.pool_buffers == old.limits.pool_buffers),
        ("limits.files", config.limits.fds_max == old.limits.fds_max),
    ] {
        if !is_same {
            log::event(Level::Warn, format_args!("reload: {key} takes effect at the next start"));
        }
    }
    // The next reload compares with the values in effect.
    config.user.clone_from(&old.user);
    config.pid_file.clone_from(&old.pid_file);
    config.driver = old.driver;
    config.driver_place.clone_from(&old.driver_place);
    config.limits.pool_buffers = old.limits.pool_buffers;
    config.limits.fds_max = old.limits.fds_max;
    raise_descriptors(&mut config.limits);
    let opened = open_all(&config, certificates, held, Mode::Reload)?;
    Ok((config, opened))
}

/// The driver, and why it is not io_uring although that was tried.
fn set_up_driver(config: &Config) -> Result<(Native, Option<StartError>), String> {
    let place = &config.driver_place;
    Native::new(config.driver, config.limits.pool_buffers as u16).map_err(|error| match error {
        NativeError::Uring(error) => format!("{place} uring: {error}; or write auto or epoll"),
        error => error.to_string(),
    })
}

/// A list of one error.
fn single(error: impl fmt::Display) -> Vec<String> {
    vec![error.to_string()]
}

fn start_log(config: &Config) -> Result<(), String> {
    log::start(&config.log).map_err(|error| format!("{} {error}", config.log_place))
}

/// The bounds of the process, for the log.
struct ProcessBounds<'a>(&'a Config, &'a Certificates);

impl fmt::Display for ProcessBounds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessBounds(config, certificates) = self;
        let size =
            config.limits.memory_size_max() + certificates.memory_size_max() + supervision::memory_size_max(config);
        let size_mib = size.div_ceil(1024 * 1024);
        write!(f, "{} clients at most, {size_mib} MiB of memory at most", config.limits.clients_max)
    }
}

/// Blocks signals that would end the process until the daemon handles them.
pub fn hold_signals() -> Result<(), String> {
    block(&[Signal::SIGHUP, Signal::SIGUSR1, LOADED, Signal::SIGXFSZ])
}

/// Threads inherit the mask, so that only the loop receives signals.
fn block(signals: &[Signal]) -> Result<(), String> {
    let mask = SigSet::from_iter(signals.iter().copied());
    mask.thread_block().map_err(|errno| format!("cannot block signals: {}", errno.desc()))
}

/// Switches to the configured user, and drops the privileges that serving does not need.
fn become_user(config: &Config) -> Result<(), String> {
    let Some(TextSetting { value: user, place }) = &config.user else {
        return privileges::harden().map_err(|error| error.to_string());
    };
    let mut addresses = config.servers.iter().flat_map(|server| &server.listen);
    let keeps_binding = addresses.any(privileges::is_needed_to_bind);
    if let (Some(file), Ok(Some(entry))) = (&config.log.file, User::from_name(user)) {
        // The user may lack the permission to create the file. An existing file keeps its owner: it could be a link to
        // any file.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o640).open(file);
        let _ = made.and_then(|made| fchown(&made, Some(entry.uid.as_raw()), Some(entry.gid.as_raw())));
    }
    privileges::drop_to(user, keeps_binding).map_err(|error| format!("{place} {user}: {error}"))
}

fn announce<'a>(addresses: impl Iterator<Item = &'a ServedAddress>) {
    for address in addresses {
        log::announce(format_args!("listening on {address}"));
    }
}
