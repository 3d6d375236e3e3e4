//! The daemon: from a configuration to listeners and folders, and what signals ask for while it runs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::config::{Config, Server};
use crate::driver::uring::Uring;
use crate::driver::{Kind, Token};
use crate::gateway::Gateway;
use crate::gateway::entrance::{Endpoint, Folders, Opening};
use crate::gateway::listener::{self, ListenAddress};
use crate::limits;
use crate::observe::log::{self, Level};
use crate::route::Sites;
use crate::route::docroot::open_folder;

/// Reads the configuration again, as at the start.
pub type Load = Arc<dyn Fn() -> Result<Config, Vec<String>> + Send + Sync>;

/// What the daemon is told from outside. SIGXFSZ is among them only to be blocked: a log that may not grow is no
/// reason to end. A loaded configuration announces itself with a signal too, so that the loop
/// has one thing to wait for.
const SIGNALS: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGXFSZ, LOADED];
const LOADED: Signal = Signal::SIGUSR2;

/// A running daemon.
pub struct Daemon {
    gateway: Gateway<Uring>,
    config: Config,
    load: Load,
    /// A configuration that is being loaded.
    loading: Option<Receiver<Result<Config, Vec<String>>>>,
    /// The addresses with the ports that the kernel chose.
    bound: Vec<ListenAddress>,
    /// When a folder that is gone was last looked for.
    looked_ms: Option<u64>,
}

impl Daemon {
    /// Takes the addresses, becomes the user, sets the ring up.
    pub fn start(
        mut config: Config,
        load: Load,
        become_user: fn(&str) -> Result<(), String>,
    ) -> Result<Daemon, String> {
        raise_descriptors(&mut config.limits);
        log::start(&config.log).map_err(|error| error.to_string())?;
        let (openings, bound) = open_all(&config, &[])?;
        if let Some(user) = &config.user {
            become_user(user)?;
        }
        // The mask is inherited by the thread that loads, so that signals reach the loop alone.
        SigSet::from_iter(SIGNALS).thread_block().map_err(|errno| format!("cannot block signals: {}", errno.desc()))?;
        let mut driver = Uring::new(config.limits.pool_buffers as u16).map_err(|error| error.to_string())?;
        let token = Token { slot: 0, generation: 0, kind: Kind::Signal };
        driver.watch_signals(token, &SIGNALS).map_err(|errno| format!("cannot watch signals: {}", errno.desc()))?;
        let mut gateway = Gateway::new(driver, config.limits.clone());
        gateway.configure(config.limits.clone(), openings);
        announce(&config, &bound);
        Ok(Daemon { gateway, config, load, loading: None, bound, looked_ms: None })
    }

    /// Serves until a signal asks it to stop and all clients have been told.
    pub fn run(&mut self) -> Result<(), String> {
        let mut completions = Vec::new();
        while !self.gateway.is_over() {
            let turned = self.gateway.turn(None, &mut completions);
            turned.map_err(|errno| format!("the event loop failed: {}", errno.desc()))?;
            for number in self.gateway.take_signals() {
                self.on_signal(number);
            }
            if self.gateway.take_lost_folder() {
                self.look_for_folders();
            }
            log::flush();
        }
        self.bound.iter().for_each(listener::remove);
        log::event(Level::Info, format_args!("stopped"));
        log::flush();
        Ok(())
    }

    fn on_signal(&mut self, number: i32) {
        match Signal::try_from(number) {
            Ok(Signal::SIGTERM | Signal::SIGINT) => {
                log::event(Level::Info, format_args!("stopping on signal {number}"));
                self.gateway.stop();
            }
            Ok(Signal::SIGHUP) => self.begin_loading(),
            Ok(LOADED) => self.end_loading(),
            Ok(Signal::SIGUSR1) => {
                if let Err(error) = log::reopen() {
                    log::event(Level::Error, format_args!("{error}"));
                }
            }
            _ => {}
        }
    }

    /// Loads in a thread: names may have to be looked up, and clients go on being served.
    fn begin_loading(&mut self) {
        if self.loading.is_some() {
            return log::event(Level::Warn, format_args!("reload: the one before is not done yet; send SIGHUP again"));
        }
        let (sender, receiver) = channel();
        let load = self.load.clone();
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            // The receiver is there as long as the daemon is.
            let _ = sender.send(load());
            let _ = kill(Pid::this(), LOADED);
        });
        match thread {
            Ok(_) => self.loading = Some(receiver),
            Err(error) => log::event(Level::Error, format_args!("reload: cannot start: {error}")),
        }
    }

    fn end_loading(&mut self) {
        let Some(loaded) = self.loading.take().and_then(|receiver| receiver.try_recv().ok()) else { return };
        let taken = loaded.and_then(|config| self.take_config(config).map_err(|sentence| vec![sentence]));
        match taken {
            Ok(()) => log::event(Level::Info, format_args!("reloaded: new connections get the new configuration")),
            Err(sentences) => {
                for sentence in sentences {
                    log::event(Level::Error, format_args!("reload: {sentence}"));
                }
                log::event(Level::Error, format_args!("reload: the old configuration stays"));
            }
        }
    }

    /// Puts a configuration in the place of the old one, or leaves all as it is.
    fn take_config(&mut self, mut config: Config) -> Result<(), String> {
        for (key, is_same) in [
            ("user", config.user == self.config.user),
            ("pid-file", config.pid_file == self.config.pid_file),
            ("limits.pool-buffers", config.limits.pool_buffers == self.config.limits.pool_buffers),
            ("limits.files", config.limits.fds_max == self.config.limits.fds_max),
        ] {
            if !is_same {
                log::event(Level::Warn, format_args!("reload: {key} takes effect at the next start"));
            }
        }
        raise_descriptors(&mut config.limits);
        let known: Vec<ListenAddress> = self.gateway.addresses().cloned().collect();
        let (openings, bound) = open_all(&config, &known)?;
        log::start(&config.log).map_err(|error| error.to_string())?;
        self.gateway.configure(config.limits.clone(), openings);
        for address in &bound {
            log::announce(format_args!("listening on {address}"));
        }
        self.bound.extend(bound);
        self.config = config;
        Ok(())
    }

    /// A folder of the configuration was removed: what has been made in its place is taken.
    fn look_for_folders(&mut self) {
        let now_ms = self.gateway.now_ms();
        if self.looked_ms.is_some_and(|ms| now_ms < ms + limits::FOLDER_RETRY_MS) {
            return;
        }
        self.looked_ms = Some(now_ms);
        match self.take_config(self.config.clone()) {
            Ok(()) => log::event(Level::Info, format_args!("a folder that was removed is there again")),
            Err(sentence) => log::event(Level::Warn, format_args!("a folder was removed: {sentence}")),
        }
    }
}

fn announce(config: &Config, bound: &[ListenAddress]) {
    let limits = &config.limits;
    log::event(
        Level::Info,
        format_args!(
            "uakari {} on io_uring, {} clients at most, {} MiB of memory at most",
            env!("CARGO_PKG_VERSION"),
            limits.clients_max,
            limits.memory_size_max().div_ceil(1024 * 1024),
        ),
    );
    for address in bound {
        log::announce(format_args!("listening on {address}"));
    }
}

/// Opens what a configuration names. Addresses that are `known` go on with the listeners that they have; the others
/// come back with the ports that they got.
fn open_all(config: &Config, known: &[ListenAddress]) -> Result<(Vec<Opening<OwnedFd>>, Vec<ListenAddress>), String> {
    // Servers with the same addresses share an endpoint.
    let mut servers_at: Vec<(&ListenAddress, Vec<usize>)> = Vec::new();
    for (index, server) in config.servers.iter().enumerate() {
        for address in &server.listen {
            match servers_at.iter_mut().find(|(other, _)| *other == address) {
                Some((_, servers)) => servers.push(index),
                None => servers_at.push((address, vec![index])),
            }
        }
    }
    let mut endpoints: BTreeMap<Vec<usize>, Arc<Endpoint<OwnedFd>>> = BTreeMap::new();
    let (mut openings, mut bound) = (Vec::new(), Vec::new());
    for (address, servers) in servers_at {
        let endpoint = match endpoints.get(&servers) {
            Some(endpoint) => endpoint.clone(),
            None => Arc::new(open_endpoint(&config.servers, &servers)?),
        };
        endpoints.insert(servers.clone(), endpoint.clone());
        let listener = if known.contains(address) {
            None
        } else {
            let place = || {
                servers.first().and_then(|first| config.servers.get(*first)).map_or("", |server| &server.places.listen)
            };
            let limits = &endpoint.sites.get(0).limits;
            let (listener, at) = listener::listen(address, limits).map_err(|error| format!("{}: {error}", place()))?;
            bound.push(at);
            Some(listener)
        };
        openings.push(Opening { address: address.clone(), listener, endpoint });
    }
    Ok((openings, bound))
}

fn open_endpoint(all: &[Server], indices: &[usize]) -> Result<Endpoint<OwnedFd>, String> {
    let servers: Vec<&Server> = indices.iter().filter_map(|index| all.get(*index)).collect();
    let open = |path: &Option<String>| path.as_ref().map(|path| open_folder(path)).transpose();
    let mut folders = Vec::new();
    for server in &servers {
        let docroot = open(&server.docroot).map_err(|error| format!("{}: {error}", server.places.docroot))?;
        let www = open(&server.www).map_err(|error| format!("{}: {error}", server.places.www))?;
        folders.push(Folders { docroot, www });
    }
    let mut sites = servers.iter().map(|server| Arc::new(server.site.fresh()));
    let first = sites.next().ok_or("there is no server")?;
    let clients_max = servers.iter().map(|server| server.site.limits.clients_max).max().unwrap_or(0);
    Ok(Endpoint { sites: Sites::new(first, sites.collect()), folders, clients_max })
}

/// Sees to it that the clients can have their file descriptors: two each, a third while they are connected. Where
/// the system allows fewer, there are fewer clients.
fn raise_descriptors(limits: &mut limits::Process) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let handshakes = limits.handshakes_max.min(limits.clients_max);
    let needed = 2 * limits.clients_max + handshakes + limits::FDS_RESERVED;
    let wanted = if limits.fds_max > 0 { limits.fds_max } else { needed };
    let fds = wanted.min(hard);
    let fds = if fds <= soft || setrlimit(Resource::RLIMIT_NOFILE, fds, hard).is_ok() { fds } else { soft };
    if fds < needed {
        let clients_max = (fds.saturating_sub(limits::FDS_RESERVED) / 2).max(1);
        if clients_max < limits.clients_max {
            log::event(
                Level::Warn,
                format_args!("{fds} file descriptors (ulimit -n) allow {clients_max} clients only"),
            );
            limits.clients_max = clients_max;
        }
    }
}
