//! Certificates of `self-signed`: uakari-ca, a program beside this one, makes them and renews them. The daemon runs it at
//! a start, at a reload, daily, and when the addresses of the host change.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, User, fchown, geteuid, mkdir, read};

use super::certificates::has_usable_pair;
use super::resources::ServedAddress;
use crate::config::{Config, Server, TextSetting, TlsFiles};
use crate::driver::child::{self, NOT_EXECUTED};
use crate::limits::{AUTHORITY_END_MS, AUTHORITY_OUTPUT_SIZE_MAX, AUTHORITY_RUN_MS};
use crate::observe::log::{self, Level};
use crate::process::privileges;
use crate::tls;
use crate::types::{ListenAddress, reason_of};

/// The folder of the authority without `--tls-dir`, as the user that starts the daemon has it. None: the environment names
/// no folder of this user.
pub fn default_tls_dir() -> Option<&'static str> {
    // A reload has another user.
    static DIR: LazyLock<Option<String>> = LazyLock::new(|| {
        if privileges::is_root() {
            return Some("/var/lib/uakari/tls".to_owned());
        }
        let variable = |name| std::env::var(name).ok().filter(|value| value.starts_with('/'));
        let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")? + "/.local/state"))?;
        Some(state + "/uakari/tls")
    });
    DIR.as_deref()
}

/// What uakari-ca has done in a folder. Display is a line for the log.
pub(super) struct Issued {
    /// The folder.
    folder: String,
    /// Where the folder was set.
    place: String,
    /// `authority` of its output: the path of the authority's certificate.
    authority: String,
    /// `certificate`.
    certificate: String,
    /// `action`: kept, issued (a new certificate) or created (an authority too).
    action: String,
    /// `names`: the names and addresses of the certificate.
    names: String,
    /// What it said besides.
    notices: Vec<String>,
}

impl Issued {
    /// Whether the certificate is the one that was there before.
    fn is_kept(&self) -> bool {
        self.action == "kept"
    }

    /// Whether a server with this certificate listens on an address.
    fn is_for(&self, config: &Config, address: &ListenAddress) -> bool {
        let is_own = |server: &&Server| {
            let authority = server.tls.as_ref().and_then(|files| files.authority.as_ref());
            authority.is_some_and(|authority| authority.value == self.folder)
        };
        let is_same = |listen: &ListenAddress| match (listen, address) {
            // The kernel has chosen the port.
            (ListenAddress::Tcp(listen), ListenAddress::Tcp(served)) if listen.port() == 0 => {
                listen.ip() == served.ip()
            }
            (listen, served) => listen == served,
        };
        config.servers.iter().filter(is_own).any(|server| server.listen.iter().any(is_same))
    }

    /// The lines that it wrote to its standard error.
    fn notices(&self) -> impl Iterator<Item = String> + '_ {
        self.notices.iter().map(|notice| format!("{}: {notice}", self.place))
    }

    /// How clients trust the authority, a line for each. The server is reached at `url`.
    fn advice(&self, url: Option<&str>) -> Vec<String> {
        let Issued { authority, .. } = self;
        let fingerprint = std::fs::read(authority).ok().and_then(|pem| tls::fingerprint(&pem));
        let fingerprint = fingerprint.as_deref().unwrap_or("unknown: the file cannot be read");
        let mut lines = vec![format!(
            "trust the authority {authority} where clients run; its SHA-256 fingerprint is {fingerprint}"
        )];
        if let Some(url) = url {
            lines.push(format!(
                "browser: import {authority} as an authority for websites, or open {url}/ and accept its certificate"
            ));
            lines.push(format!("curl: curl --cacert {authority} {url}/"));
        }
        lines
    }
}

impl fmt::Display for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Issued { place, certificate, action, names, .. } = self;
        write!(f, "{place}: {certificate} was {action}, for {names}")
    }
}

/// The result of a run of uakari-ca for each authority.
#[derive(Default)]
pub(super) struct Run {
    /// Where it succeeded.
    issued: Vec<Issued>,
    /// Where it failed, and the earlier certificate can be used: a line for each.
    pub(super) failures: Vec<String>,
}

/// Logs what uakari-ca has done, and how clients trust it. `addresses` are those that are served.
pub(super) fn log_run<'a>(
    run: &Run,
    config: &Config,
    addresses: impl Iterator<Item = &'a ServedAddress> + Clone,
    begin: &str,
) {
    for failure in &run.failures {
        log::event(Level::Error, format_args!("{begin}{failure}"));
    }
    for issued in &run.issued {
        let mut own = addresses.clone().filter(|served| issued.is_for(config, &served.address));
        let url = own.find_map(near_url);
        for notice in issued.notices() {
            log::event(Level::Warn, format_args!("{begin}{notice}"));
        }
        let lines = [issued.to_string()].into_iter().chain(issued.advice(url.as_deref()));
        for line in lines {
            log::event(Level::Info, format_args!("{begin}{line}"));
        }
    }
}

/// A URL of a served address at which this host reaches it. None: it is not TCP, or has no TLS.
fn near_url(served: &ServedAddress) -> Option<String> {
    let ListenAddress::Tcp(tcp) = served.address.clone() else { return None };
    let ip = match tcp.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    served.has_tls.then(|| format!("https://{}", SocketAddr::new(ip, tcp.port())))
}

/// The folders of a configuration's authorities, each of them once.
pub(super) fn authorities_of(config: &Config) -> Vec<TextSetting> {
    let mut all: Vec<TextSetting> = Vec::new();
    for authority in config.servers.iter().filter_map(|server| server.tls.as_ref()?.authority.as_ref()) {
        if all.iter().all(|other| other.value != authority.value) {
            all.push(authority.clone());
        }
    }
    all
}

/// Makes or renews the certificates of a configuration that is loaded, as its user. The error lists what is wrong where
/// there is no earlier certificate that can be used.
pub(super) fn issue_for(config: &Config) -> Result<Run, Vec<String>> {
    let authorities = authorities_of(config);
    if authorities.is_empty() {
        return Ok(Run::default());
    }
    let has_pair = |folder: &str| {
        let mut all = config.servers.iter().filter_map(|server| server.tls.as_ref());
        let is_own = |files: &&TlsFiles| files.authority.as_ref().is_some_and(|authority| authority.value == folder);
        all.find(is_own).is_some_and(has_usable_pair)
    };
    let user = config.user.as_ref().filter(|_| privileges::is_root());
    let account = user.map(|TextSetting { value, place }| {
        privileges::account(value).map_err(|error| vec![format!("{place} {value}: {error}")])
    });
    let account = account.transpose()?;
    let (mut run, mut errors) = (Run::default(), Vec::new());
    for TextSetting { value, place } in authorities {
        let made = make_folder(&value, account.as_ref());
        match made.and_then(|()| issue(&value, &place, account.as_ref())) {
            Ok(issued) => run.issued.push(issued),
            Err(error) if has_pair(&value) => run.failures.push(error.with_earlier(&place)),
            Err(error) => errors.push(error.at(&place)),
        }
    }
    if errors.is_empty() { Ok(run) } else { Err(errors) }
}

/// Renews the certificates of these authorities if that is due, while the daemon runs. Blocks for up to
/// `AUTHORITY_RUN_MS` each. Returns the failures, a line for each.
pub(super) fn renew(authorities: &[TextSetting]) -> Vec<String> {
    let mut failures = Vec::new();
    for TextSetting { value, place } in authorities {
        match issue(value, place, None) {
            Ok(issued) => {
                issued.notices().for_each(|notice| log::event(Level::Warn, format_args!("{notice}")));
                if !issued.is_kept() {
                    log::event(Level::Info, format_args!("{issued}"));
                }
            }
            Err(error) => failures.push(error.with_earlier(place)),
        }
    }
    failures
}

/// Checks, without running it, whether uakari-ca is there.
pub(super) fn examine_program() -> Result<(), String> {
    program().map(drop).map_err(|error| error.to_string())
}

/// Why there is no certificate. Display is the end of a sentence for the operator.
enum Failure {
    /// The daemon's own path is unknown.
    NoPath(io::Error),
    /// There is no such program.
    NoProgram(PathBuf),
    /// It cannot be executed, or not as this user.
    NotExecuted(PathBuf),
    /// A path has a NUL, or a system call failed.
    NotStarted(Errno),
    /// The folder cannot be created.
    Folder(String, Errno),
    /// It was killed after `AUTHORITY_RUN_MS`, having said this.
    TooLong(String),
    /// It failed, having said this.
    Failed(String),
    /// It succeeded, and its output lacks this value.
    Lacks(&'static str),
}

impl Failure {
    /// A line about the folder that was set here. uakari-ca advises its own flag `--dir`, which is another one here.
    fn at(&self, place: &str) -> String {
        let key = if place.starts_with("--tls-") { "--tls-dir" } else { "dir" };
        format!("{place}: {}", self.to_string().replace("--dir", key))
    }

    /// The same while the earlier certificate is used.
    fn with_earlier(&self, place: &str) -> String {
        format!("{}: the old certificate stays in use", self.at(place))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoPath(error) => {
                write!(f, "the path of this program is unknown: {}: mount /proc", reason_of(error))
            }
            Failure::NoProgram(program) => {
                let program = program.display();
                write!(f, "{program} is missing: install it beside uakari, or name a certificate (--tls-certificate)")
            }
            Failure::NotExecuted(program) => {
                write!(f, "{} cannot be executed: let the daemon's user do so", program.display())
            }
            Failure::NotStarted(errno) => {
                write!(f, "uakari-ca cannot be started: {}: choose another folder", errno.desc())
            }
            Failure::Folder(folder, errno) => {
                write!(f, "the folder {folder} cannot be created: {}: choose another one", errno.desc())
            }
            Failure::TooLong(said) => {
                let seconds = AUTHORITY_RUN_MS / 1000;
                write!(f, "uakari-ca has not ended after {seconds} s: run it by hand to see why: {said}")
            }
            Failure::Failed(said) => write!(f, "uakari-ca failed: {said}"),
            Failure::Lacks(key) => {
                write!(f, "uakari-ca printed no {key}: install the uakari-ca that belongs to this daemon")
            }
        }
    }
}

/// Creates a folder that everybody may enter, since clients read `ca.pem` there, and the folders above it. One that exists
/// stays as it is.
fn make_folder(folder: &str, account: Option<&User>) -> Result<(), Failure> {
    let failed = |errno| Failure::Folder(folder.to_owned(), errno);
    let mut above: Vec<&Path> = Path::new(folder).ancestors().skip(1).collect();
    above.reverse();
    for above in above {
        // The last one says why.
        let _ = make_one(above);
    }
    match (make_one(Path::new(folder)), account) {
        (Ok(made), Some(account)) => fchown(made, Some(account.uid), Some(account.gid)).map_err(failed),
        (Ok(_) | Err(Errno::EEXIST), _) => Ok(()),
        (Err(errno), _) => Err(failed(errno)),
    }
}

/// Creates a folder with mode 755, whatever the umask is.
fn make_one(folder: &Path) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_bits_truncate(0o755);
    mkdir(folder, mode)?;
    // The owner of the folder above may have replaced it.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = open(folder, flags, Mode::empty())?;
    if fstat(&made)?.st_uid != geteuid().as_raw() {
        return Err(Errno::EPERM);
    }
    fchmod(&made, mode)?;
    Ok(made)
}

fn program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(Failure::NoPath)?.with_file_name("uakari-ca");
    if program.exists() { Ok(program) } else { Err(Failure::NoProgram(program)) }
}

/// Runs `uakari-ca self-signed` in a folder, as this user, or as the daemon's.
fn issue(folder: &str, place: &str, account: Option<&User>) -> Result<Issued, Failure> {
    let program = program()?;
    let word = |word: &[u8]| CString::new(word).map_err(|_| Failure::NotStarted(Errno::EINVAL));
    let (path, dir) = (word(program.as_os_str().as_bytes())?, word(folder.as_bytes())?);
    let arguments = [c"uakari-ca", c"self-signed", c"--dir", &dir];
    let account = account.map(|account| (account.uid, account.gid));
    let (child, output) = child::spawn(&path, &arguments, account).map_err(Failure::NotStarted)?;
    let (end, output) = end_of(child, &output);
    let mut results = [const { None }; 4];
    let mut said = Vec::new();
    for line in String::from_utf8_lossy(&output).lines() {
        let result = line.split_once('=');
        match result.map(|(key, value)| (RESULTS.iter().position(|name| *name == key), value)) {
            Some((Some(at), value)) => results[at] = Some(value.to_owned()),
            _ if line.starts_with("key=") => {}
            _ => said.push(line.strip_prefix("uakari-ca: ").unwrap_or(line).to_owned()),
        }
    }
    let said_or = |how: String| if said.is_empty() { how } else { said.join("; ") };
    match end {
        End::Exited(0) => {}
        End::Exited(NOT_EXECUTED) => return Err(Failure::NotExecuted(program)),
        End::Exited(status) => return Err(Failure::Failed(said_or(format!("it exited with status {status}")))),
        End::Signalled(signal) => {
            said.push(format!("it was ended by signal {}", signal as i32));
            return Err(Failure::Failed(said.join("; ")));
        }
        End::Unknown(errno) => {
            return Err(Failure::Failed(said_or(format!("its exit status is unknown: {}", errno.desc()))));
        }
        End::Killed => return Err(Failure::TooLong(said.join("; "))),
    }
    let lacking = results.iter().position(Option::is_none);
    let [Some(authority), Some(certificate), Some(action), Some(names)] = results else {
        return Err(Failure::Lacks(RESULTS[lacking.unwrap_or_default()]));
    };
    let (folder, place) = (folder.to_owned(), place.to_owned());
    Ok(Issued { folder, place, authority, certificate, action, names, notices: said })
}

/// What the output of uakari-ca has besides `key`, each as a line `NAME=VALUE`.
const RESULTS: [&str; 4] = ["authority", "certificate", "action", "names"];

/// How a program ended.
enum End {
    /// With this status.
    Exited(i32),
    /// By this signal, which another process has sent.
    Signalled(Signal),
    /// It is no longer a child of this process.
    Unknown(Errno),
    /// It was killed after `AUTHORITY_RUN_MS`.
    Killed,
}

/// Waits for the end of a program, for `AUTHORITY_RUN_MS` at most, and reads its output.
fn end_of(child: Pid, output: &OwnedFd) -> (End, Vec<u8>) {
    let give_up = Instant::now() + Duration::from_millis(AUTHORITY_RUN_MS);
    let left_ms = || give_up.saturating_duration_since(Instant::now()).as_millis() as u16;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    while left_ms() > 0 && bytes.len() < AUTHORITY_OUTPUT_SIZE_MAX {
        let is_readable = poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], left_ms());
        if !is_readable.is_ok_and(|count| count > 0) {
            continue;
        }
        match read(output, &mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    // After the end of its output the end of the program is near.
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => return (End::Exited(status), bytes),
            Ok(WaitStatus::Signaled(_, signal, _)) => return (End::Signalled(signal), bytes),
            Ok(_) if left_ms() == 0 => break,
            Ok(_) => std::thread::sleep(Duration::from_millis(AUTHORITY_END_MS)),
            // Its process id may be that of another program.
            Err(errno) => return (End::Unknown(errno), bytes),
        }
    }
    // It is a child that has not been waited for, so both calls succeed.
    let _ = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
    (End::Killed, bytes)
}
