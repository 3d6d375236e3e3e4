//! The daemon in a new folder, and the other programs of the workspace.

use std::cell::Cell;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use nix::unistd::Pid;

use crate::client::Client;
use crate::foreign::need;
use crate::privileges::as_lone_user;
use crate::process::{DEADLINE, Finished, Folder, Lines, Process};
use crate::server::{Kind, Listener};
use crate::wire::{Response, Wire};

/// The daemon that is tested. Tests start it with `uakari()` or `uakari_words()`, which choose its driver.
pub const UAKARI_PATH: &str = env!("CARGO_BIN_EXE_uakari");

/// The value of `--driver` for each daemon that does not choose one itself: UAKARI_DRIVER. None: the daemon's default.
static DRIVER: LazyLock<Option<String>> = LazyLock::new(|| {
    let driver = std::env::var("UAKARI_DRIVER").ok().filter(|driver| !driver.is_empty())?;
    assert!(["auto", "uring", "epoll"].contains(&&*driver), "UAKARI_DRIVER={driver}: write auto, uring or epoll");
    Some(driver)
});

/// The limits of each daemon that does not set them itself: no client or server here is slow on purpose, but on a busy
/// machine it may stand still for seconds.
const PATIENCE: [(&str, u32); 7] = [
    ("proxy-ms", 45_000),
    ("tls-ms", 45_000),
    ("head-ms", 45_000),
    ("handshake-ms", 45_000),
    ("keepalive-ms", 45_000),
    ("connect-ms", 40_000),
    ("ping-ms", 60_000),
];

/// These limits, and those of a patient daemon that are not among them.
pub fn patient(limits: &str) -> String {
    with_limits(limits, &PATIENCE)
}

/// These limits, and those of `others` that are not among them.
pub fn with_limits(limits: &str, others: &[(&str, u32)]) -> String {
    let has = |name: &str| limits.split([' ', '\n', ';', '=']).any(|word| word == name);
    let others = others.iter().filter(|(name, _)| !has(name));
    limits.to_owned() + &others.map(|(name, value)| format!(" {name} = {value};")).collect::<String>()
}

/// The beginning of the start line, which precedes the driver's name.
pub const START_LINE: &str = concat!("uakari ", env!("CARGO_PKG_VERSION"), " on ");

/// The flags that choose the driver.
pub fn driver_flags() -> Vec<&'static str> {
    DRIVER.as_deref().map_or(Vec::new(), |driver| vec!["--driver", driver])
}

/// The daemon's path and the flags that choose its driver, for a command that executes other programs.
pub fn uakari_words() -> Vec<&'static str> {
    match REFUSED.get() {
        [] => [vec![UAKARI_PATH], driver_flags()].concat(),
        refused => [&[REFUSER.as_str()], refused, &["--", UAKARI_PATH, "--driver", "epoll"]].concat(),
    }
}

/// The daemon with the driver of UAKARI_DRIVER.
pub fn uakari() -> Command {
    command_of(&uakari_words())
}

fn command_of(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Refuses system calls to a program.
static REFUSER: LazyLock<String> =
    LazyLock::new(|| project().join("tests/clients/refuse_calls.py").to_str().unwrap().to_owned());

thread_local! {
    /// The system calls that are refused to the daemons of this test.
    static REFUSED: Cell<&'static [&'static str]> = const { Cell::new(&[]) };
}

/// The daemon, which chooses its driver itself, without these system calls: `CALL=ERRNO` of
/// `tests/clients/refuse_calls.py`.
pub fn uakari_without(calls: &[&str]) -> Command {
    need("python3");
    command_of(&[&[REFUSER.as_str()], calls, &["--", UAKARI_PATH]].concat())
}

/// Runs tests once more, whose daemons are on epoll and without these system calls.
pub fn without_calls(calls: &'static [&'static str], tests: &[fn()]) {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            REFUSED.set(&[]);
        }
    }
    need("python3");
    let _restore = Restore;
    REFUSED.set(calls);
    tests.iter().for_each(|test| test());
}

/// As `uakari`, with these flags, which may choose another driver.
fn uakari_with(flags: &[&str]) -> Command {
    let mut command = if flags.contains(&"--driver") { Command::new(UAKARI_PATH) } else { uakari() };
    command.args(flags);
    command
}

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The first block of docs/backends.md in this language that contains this text.
pub fn shown(language: &str, part: &str) -> String {
    shown_in("docs/backends.md", language, part)
}

/// The first block of a document in this language that contains this text.
pub fn shown_in(document: &str, language: &str, part: &str) -> String {
    let text = std::fs::read_to_string(project().join(document)).unwrap();
    let begin = format!("\n```{language}\n");
    let mut blocks = text.split(&begin).skip(1).map(|rest| rest.split("\n```\n").next().unwrap());
    let block = blocks.find(|block| block.contains(part));
    block.unwrap_or_else(|| panic!("{document}: no {language} with {part:?}")).to_owned() + "\n"
}

/// A program of the workspace beside the daemon.
pub fn program(name: &str) -> PathBuf {
    let path = Path::new(UAKARI_PATH).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first, as `make test` does", path.display());
    path
}

/// A running daemon with a folder of its own: `run` for sockets, `www` for pages.
pub struct Daemon {
    pub process: Process,
    folder: Folder,
    /// The port of its first TCP address.
    pub port: u16,
}

impl Daemon {
    /// Starts a daemon with these flags. Unless they say otherwise it listens on a free port, and sockets and
    /// pages are looked for in its folder.
    pub fn start(flags: &[&str]) -> Daemon {
        Daemon::start_in(Folder::new(), flags)
    }

    /// As `start`, in a folder that has files already.
    pub fn start_in(folder: Folder, flags: &[&str]) -> Daemon {
        Daemon::start_command(folder, flags, uakari_with(flags))
    }

    /// As `start`, with RLIMIT_NOFILE.
    pub fn start_with_few_fds(fds: u32, flags: &[&str]) -> Daemon {
        Daemon::start_limited(Folder::new(), fds, flags, uakari())
    }

    /// As `start_with_few_fds`, as a user with no other process. None: the tests do not run as root.
    pub fn start_lone_with_few_fds(fds: u32, flags: &[&str]) -> Option<Daemon> {
        let folder = Folder::new();
        let mut daemon = as_lone_user(&folder)?;
        daemon.args(driver_flags());
        Some(Daemon::start_limited(folder, fds, flags, daemon))
    }

    fn start_limited(folder: Folder, fds: u32, flags: &[&str], daemon: Command) -> Daemon {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &fds.to_string()]);
        command.arg(daemon.get_program()).args(daemon.get_args()).args(flags);
        Daemon::start_command(folder, flags, command)
    }

    fn start_command(folder: Folder, flags: &[&str], mut command: Command) -> Daemon {
        for (flag, value) in
            [("--listen", "127.0.0.1:0".to_owned()), ("--docroot", folder.join("run")), ("--www", folder.join("www"))]
        {
            if !flags.contains(&flag) {
                command.args([flag, &value]);
            }
        }
        // No flag sets limits.
        if !flags.contains(&"-f") {
            let file = folder.join("limits.conf");
            std::fs::write(&file, format!("limits = {{ {} }}; servers = ({{ }});", patient(""))).unwrap();
            command.args(["-f", &file]);
        }
        Daemon::begin(folder, command)
    }

    /// Starts a daemon with a configuration file alone, in which `@` stands for its folder.
    pub fn start_configured(text: &str) -> Daemon {
        Daemon::start_configured_by(Folder::new(), text, uakari())
    }

    /// As `start_configured`, by a command that ends with `uakari_words`.
    pub fn start_configured_by(folder: Folder, text: &str, mut command: Command) -> Daemon {
        configure(&folder, text);
        command.arg("-f").arg(folder.join("uakari.conf"));
        Daemon::begin(folder, command)
    }

    /// As `start_configured`, with a socket that a service manager has opened (sd_listen_fds(3)).
    pub fn start_inheriting(socket: OwnedFd, folder: Folder, text: &str) -> Daemon {
        configure(&folder, text);
        let mut command = Command::new("sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web.socket exec \"$0\" \"$@\" 3<&0";
        command.args(["-c", script]).args(uakari_words()).args(["-f", &folder.join("uakari.conf")]);
        Daemon::begin_reading(socket.into(), folder, command)
    }

    fn begin(folder: Folder, command: Command) -> Daemon {
        Daemon::begin_reading(Stdio::null(), folder, command)
    }

    fn begin_reading(input: Stdio, folder: Folder, mut command: Command) -> Daemon {
        for name in ["run", "www"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let process = Process::start_reading(input, &mut command);
        let line = process.out.wait_for(&["listening on "]);
        let port = line.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        let daemon = Daemon { process, folder, port };
        daemon.expect_driver(&command);
        daemon
    }

    /// The daemon has a ring exactly if its command says so.
    fn expect_driver(&self, command: &Command) {
        let words: Vec<_> = command.get_args().collect();
        let driver = words.windows(2).rfind(|pair| pair[0] == "--driver").and_then(|pair| pair[1].to_str());
        let has_ring = self.process.has_open("anon_inode:[io_uring]");
        match driver {
            Some("uring") => assert!(has_ring, "{command:?} has no ring"),
            Some("epoll") => assert!(!has_ring, "{command:?} has a ring"),
            _ => {}
        }
    }

    /// The name of its driver in the start line.
    pub fn driver(&self) -> String {
        let line = self.log().wait_for(&[START_LINE]);
        line.split(START_LINE).nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned()
    }

    /// The log, past and future lines.
    pub fn log(&self) -> &Lines {
        &self.process.err
    }

    /// Its standard output.
    pub fn announced(&self) -> &Lines {
        &self.process.out
    }

    /// Its folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A path in the folder of its sockets.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join("run").join(name)
    }

    /// A backend with this name, which the test plays.
    pub fn listen(&self, name: &str) -> Listener {
        Listener::bind(&self.socket(name), Kind::Stream)
    }

    /// As `listen`, for packets.
    pub fn listen_packets(&self, name: &str) -> Listener {
        Listener::bind(&self.socket(name), Kind::Packets)
    }

    /// The sample server, with these options besides its folder and name.
    pub fn echo(&self, name: &str, options: &[&str]) -> Process {
        start_echo(&self.socket(name), options)
    }

    /// A TCP connection.
    pub fn wire(&self) -> Wire {
        Wire::connect(self.port)
    }

    /// A TCP connection with this SO_RCVBUF.
    pub fn narrow_stream(&self, size: usize) -> TcpStream {
        let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&fd, sockopt::RcvBuf, &size).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], self.port));
        socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
        TcpStream::from(fd)
    }

    /// A WebSocket; the handshake must succeed.
    pub fn connect(&self, path: &str) -> Client {
        self.connect_with(path, &[])
    }

    /// As `connect`, with more header lines.
    pub fn connect_with(&self, path: &str, fields: &[&str]) -> Client {
        let mut wire = self.wire();
        let response = wire.upgrade(path, fields);
        assert_eq!(response.status, 101, "{path} {fields:?}: {response:?}");
        Client::new(wire)
    }

    /// The answer to a handshake.
    pub fn upgrade(&self, path: &str, fields: &[&str]) -> Response {
        self.wire().upgrade(path, fields)
    }

    /// The answer to a request.
    pub fn get(&self, path: &str) -> Response {
        self.wire().get(path)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The kilobytes of memory it has now.
    pub fn resident_kib(&self) -> u64 {
        self.process.resident_kib()
    }

    /// The most kilobytes of memory it has ever had.
    pub fn peak_kib(&self) -> u64 {
        self.process.peak_kib()
    }

    /// The most kilobytes of memory that it should have, as its log tells.
    pub fn bound_kib(&self) -> u64 {
        let line = self.log().wait_for(&["MiB of memory at most"]);
        let before = line.split(" MiB").next().unwrap();
        before.rsplit(' ').next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        self.process.open_files().len()
    }

    /// Writes another text into its configuration file.
    pub fn configure(&self, text: &str) {
        configure(&self.folder, text);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self, time: Duration) -> Finished {
        self.process.wait(time)
    }

    /// Stops it; that must succeed.
    pub fn stop(&mut self) -> Finished {
        self.signal(Signal::SIGTERM);
        let finished = self.wait(DEADLINE);
        assert!(finished.status.success(), "the daemon ended with {}", finished.status);
        finished
    }
}

fn configure(folder: &Folder, text: &str) {
    std::fs::write(folder.join("uakari.conf"), text.replace('@', folder.path().to_str().unwrap())).unwrap();
}

/// A configuration of one server on a free port, with the folders that every daemon here has, these limits, and these
/// keys of `websocket`.
pub fn configuration(limits: &str, websocket: &str) -> String {
    let limits = patient(limits);
    format!(
        "limits = {{ {limits} }};
         servers = ({{
             listen = \"127.0.0.1:0\";
             document = {{ docroot = \"@/www\"; }};
             websocket = {{ docroot = \"@/run\"; {websocket} }};
         }});"
    )
}

/// Starts the echo server at this path and waits until it listens.
pub fn start_echo(path: &Path, options: &[&str]) -> Process {
    start_sample(Command::new(program("websocket_echo")), path, options)
}

/// Starts a sample server at this path and waits until it listens.
pub fn start_sample(mut command: Command, path: &Path, options: &[&str]) -> Process {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let process = Process::start(command.arg("-R").arg(folder).arg("-n").arg(name).args(options));
    crate::process::eventually("the sample server listens", || {
        let is_packet = options.contains(&"packet");
        crate::server::connect(path, if is_packet { Kind::Packets } else { Kind::Stream }).is_ok()
    });
    process
}
