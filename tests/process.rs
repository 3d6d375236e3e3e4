//! Child processes: their lines and their end, each with a deadline.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Uid, mkdtemp};

/// Deadline of everything that must happen; generous for busy machines.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Tells threads on drop that what they wait for is over, also when the test fails.
pub struct IsOver<'a>(pub &'a AtomicBool);

impl Drop for IsOver<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The lines of a process so far.
#[derive(Default)]
pub struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    is_ended: bool,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let shared = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                shared.change(|state| state.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            shared.change(|state| state.is_ended = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        self.state.lock().unwrap().lines.join("\n")
    }

    /// Waits for a line that has all these parts, and returns it.
    pub fn wait_for(&self, parts: &[&str]) -> String {
        self.wait(|lines| lines.iter().find(|line| parts.iter().all(|part| line.contains(part))).cloned())
            .unwrap_or_else(|| panic!("no line with {parts:?} in:\n{}", self.text()))
    }

    /// Waits until `find` returns Some. None: the lines ended, or the deadline passed.
    pub fn wait<T>(&self, find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        self.wait_within(DEADLINE, find)
    }

    /// As `wait`, with this deadline.
    pub fn wait_within<T>(&self, time: Duration, mut find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let give_up = Instant::now() + time;
        let mut state = self.state.lock().unwrap();
        loop {
            let found = find(&state.lines);
            let left = give_up.saturating_duration_since(Instant::now());
            if found.is_some() || state.is_ended || left.is_zero() {
                return found;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_for_end(&self, give_up: Instant) -> bool {
        let left = give_up.saturating_duration_since(Instant::now());
        let state = self.state.lock().unwrap();
        self.changed.wait_timeout_while(state, left, |state| !state.is_ended).unwrap().0.is_ended
    }
}

/// A field of a file of proc(5), in KiB.
fn kib_of(pid: Pid, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The most memory that a process has had, with the error of `Process::resident_kib`.
pub fn peak_kib_of(pid: Pid) -> u64 {
    kib_of(pid, "status", "VmHWM:")
}

/// A running program, killed on drop. A failing test prints its command and output.
pub struct Process {
    child: Child,
    command: String,
    /// Standard output.
    pub out: Arc<Lines>,
    /// Standard error.
    pub err: Arc<Lines>,
    is_ended: bool,
}

/// The output and status of a program that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Process {
    /// Starts a program.
    pub fn start(command: &mut Command) -> Process {
        Process::start_reading(Stdio::null(), command)
    }

    /// As `start`, with this standard input.
    pub fn start_reading(input: Stdio, command: &mut Command) -> Process {
        let shown = format!("{command:?}");
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let out = Lines::read(child.stdout.take().unwrap());
        let err = Lines::read(child.stderr.take().unwrap());
        Process { child, command: shown, out, err, is_ended: false }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end, which closes its pipes.
    pub fn wait(&mut self, time: Duration) -> Finished {
        let give_up = Instant::now() + time;
        let has_ended = self.out.wait_for_end(give_up) && self.err.wait_for_end(give_up);
        assert!(has_ended, "{} has not ended after {time:?}", self.command);
        let status = self.child.wait().unwrap();
        self.is_ended = true;
        Finished { status, out: self.out.text(), err: self.err.text() }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.is_ended |= self.child.try_wait().unwrap().is_some();
        self.is_ended
    }

    /// Its state (proc_pid_stat(5)).
    pub fn state(&self) -> char {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        status.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap()
    }

    /// The present memory, page for page. What proc_pid_status(5) calls VmRSS may be 4 MiB too small: before Linux 6.2
    /// a thread adds its pages to that sum after 64 faults, each of up to 16 pages of a file.
    pub fn resident_kib(&self) -> u64 {
        kib_of(self.pid(), "smaps_rollup", "Rss:")
    }

    /// The most memory that it has had, with the same error.
    pub fn peak_kib(&self) -> u64 {
        peak_kib_of(self.pid())
    }

    /// What its descriptors refer to (proc_pid_fd(5)).
    pub fn open_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // A descriptor may be closed meanwhile.
        files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok()).collect()
    }

    /// Whether a descriptor refers to this.
    pub fn has_open(&self, target: &str) -> bool {
        self.open_files().iter().any(|file| file == Path::new(target))
    }

    /// Descriptors in its epoll sets (proc_pid_fdinfo(5)).
    pub fn watched_files(&self) -> usize {
        let folder = std::fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        // A descriptor may be closed meanwhile.
        let texts = folder.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
        texts.map(|text| text.lines().filter(|line| line.starts_with("tfd:")).count()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let give_up = Instant::now() + Duration::from_secs(1);
            let _ = self.out.wait_for_end(give_up) && self.err.wait_for_end(give_up);
        }
        let said = self.err.text();
        if thread::panicking() {
            eprintln!("--- {}\n--- stdout:\n{}\n--- stderr:\n{said}\n---", self.command, self.out.text());
        } else {
            assert!(!said.contains("panicked at"), "{} panicked:\n{said}", self.command);
        }
    }
}

/// Runs a program to its end.
pub fn run(command: &mut Command, time: Duration) -> Finished {
    Process::start(command).wait(time)
}

/// Calls until no signal interrupts it: the kernel restarts no call that has a timeout (signal(7)).
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Polls a condition that announces itself in no other way.
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_eq(is_so, &true, what);
}

/// Polls until the value is this one. Fails with the last value.
pub fn eventually_eq<T: PartialEq + Debug>(mut get: impl FnMut() -> T, wanted: &T, what: impl Debug) {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let got = get();
        if got == *wanted {
            return;
        }
        assert!(Instant::now() < give_up, "{what:?}: after {DEADLINE:?} it is {got:?}, expected {wanted:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Fails with both values where they differ.
pub fn expect_eq<T: PartialEq + Debug>(got: T, wanted: T, what: impl Debug) {
    assert!(got == wanted, "{what:?}: got {got:?}, expected {wanted:?}");
}

/// Reports that a test was left out, since this machine or user lacks what it needs. libtest hides the output of
/// passing tests, so this bypasses it: `tests/tally` subtracts such tests and lists them.
pub fn skipped(reason: &str) {
    let thread = thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or_default());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Prints a value that a test measured, past libtest, which hides the output of passing tests.
pub fn measured(value: &str) {
    let thread = thread::current();
    let line = format!("measured: {}: {value}\n", thread.name().unwrap_or_default());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Whether this user may make new namespaces, for example `["--net"]`; a container may forbid it.
pub fn can_unshare(namespaces: &[&str]) -> bool {
    Command::new("unshare").args(namespaces).arg("true").output().is_ok_and(|output| output.status.success())
}

/// Closes a listener or a pipe's reader, and waits until no child of another test has a copy.
pub fn close<T>(it: T) {
    drop(it);
    wait_for_copies();
}

/// A TCP port of this address that is free and stays so: the kernel gives ports of this range to nobody by itself
/// (ip(7), ip_local_port_range), and no other test gets the same one.
pub fn free_port(host: &str) -> u16 {
    // Browsers refuse port 10080.
    const PORTS: Range<u16> = 11_000..20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    // Two runs of the tests begin at different ports.
    let start = std::process::id() as u16;
    for _ in PORTS {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + number % PORTS.len() as u16;
        let Some(claim) = claim(&format!("port {port}")) else { continue };
        if let Ok(listener) = TcpListener::bind((host, port)) {
            close(listener);
            CLAIMS.lock().unwrap().push(claim);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free on {host}");
}

/// Exchanges two files or folders of any kind; neither is missing for a while (renameat2(2)).
pub fn exchange_files(one: &Path, other: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
}

/// Writes a program.
pub fn write_program(path: impl AsRef<Path>, text: &str) {
    std::fs::write(&path, text).unwrap();
    make_program(path);
}

/// Makes a file that was just written executable for all.
pub fn make_program(path: impl AsRef<Path>) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    // While it is open for writing anywhere, it cannot be executed (ETXTBSY).
    wait_for_copies();
}

/// Waits until no child has a copy of a descriptor closed here: children of other tests have copies of all until exec.
fn wait_for_copies() {
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    // A thread may end meanwhile.
    let children: String = threads.filter_map(|thread| std::fs::read_to_string(thread.join("children")).ok()).collect();
    for child in children.split_whitespace() {
        let is_executed = || std::fs::read_link(format!("/proc/{child}/exe")).map_or(true, |exe| exe != own);
        eventually("a child is executed, or gone", is_executed);
    }
}

/// Claims what one test on this machine may use at a time, until drop. None: another has it.
pub fn claim(name: &str) -> Option<UnixListener> {
    // An abstract address: the kernel drops it with the process.
    let address = SocketAddr::from_abstract_name(format!("uakari-tests: {name}")).unwrap();
    UnixListener::bind_addr(&address).ok()
}

/// A temporary folder, removed on drop. Every user may enter it, regardless of umask(2) and TMPDIR, since daemons of
/// root switch users.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        // Inherited by the programs that tests start.
        umask(Mode::from_bits_truncate(0o022));
        let mut parent = std::env::temp_dir();
        if Uid::effective().is_root() && !is_open_to_all(&parent) {
            parent = PathBuf::from("/tmp");
        }
        // A pid alone is not unique: containers begin with 1.
        let path = mkdtemp(&parent.join("uakari-test-XXXXXX")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file or folder in it, as text.
    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

/// Whether every user may enter this folder and those above it.
fn is_open_to_all(folder: &Path) -> bool {
    folder.ancestors().all(|folder| std::fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & 0o001 != 0))
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
