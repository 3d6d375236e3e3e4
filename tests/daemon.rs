//! The daemon in a new folder, and the other programs of the workspace.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use nix::unistd::Pid;

use crate::client::Client;
use crate::privileges::as_lone_user;
use crate::process::{DEADLINE, Finished, Folder, Lines, Process};
use crate::server::{Kind, Listener};
use crate::wire::{Response, Wire};

/// The daemon that is tested.
pub const UAKARI: &str = env!("CARGO_BIN_EXE_uakari");

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
    let path = Path::new(UAKARI).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first, as `make test` does", path.display());
    path
}

/// A running daemon with a folder of its own: `run` for sockets, `www` for pages.
pub struct Daemon {
    process: Process,
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
        let mut command = Command::new(UAKARI);
        command.args(flags);
        Daemon::start_command(folder, flags, command)
    }

    /// As `start`, with RLIMIT_NOFILE.
    pub fn start_with_few_fds(fds: u32, flags: &[&str]) -> Daemon {
        Daemon::start_limited(Folder::new(), fds, flags, Command::new(UAKARI))
    }

    /// As `start_with_few_fds`, as a user with no other process. None: the tests do not run as root.
    pub fn start_lone_with_few_fds(fds: u32, flags: &[&str]) -> Option<Daemon> {
        let folder = Folder::new();
        let daemon = as_lone_user(&folder)?;
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
        Daemon::begin(folder, command)
    }

    /// Starts a daemon with a configuration file alone, in which `@` stands for its folder.
    pub fn start_configured(text: &str) -> Daemon {
        Daemon::start_configured_by(Folder::new(), text, Command::new(UAKARI))
    }

    /// As `start_configured`, by a command that ends with the daemon's path and comes into its own there.
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
        command.args(["-c", script, UAKARI, "-f", &folder.join("uakari.conf")]);
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
        Daemon { process, folder, port }
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
        self.process.status_kib("VmRSS")
    }

    /// The most kilobytes of memory it has ever had.
    pub fn peak_kib(&self) -> u64 {
        self.process.status_kib("VmHWM")
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
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
