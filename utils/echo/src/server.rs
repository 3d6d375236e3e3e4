//! The server: one process, one poll(2) loop for all clients.

use std::fs;
use std::io::{Write as _, stderr, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{Backlog, MsgFlags, SockFlag, SockType, accept4, listen, recv, send};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, User, daemon, initgroups, setgid, setuid};
use websocket::Listener;
use websocket::place::listen_at;

use crate::direct;
use crate::options::{Options, Protocol};
use crate::record::Record;

/// Bytes read at once; a packet is never longer.
const READ_SIZE: usize = 64 * 1024;
/// A pause of accepting where file descriptors ran out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections waiting to be accepted.
const BACKLOG: i32 = 1024;

static IS_STOPPING: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: i32) {
    IS_STOPPING.store(true, Ordering::Relaxed);
}

/// One client: what it sent and has not got back yet. Nothing more is read from it until that is gone, so this
/// never grows beyond one read.
struct Client {
    socket: OwnedFd,
    /// What has come of its first record, where one is awaited.
    record: Option<Record>,
    /// Packets keep their borders, so that each read is an answer of its own.
    owed: Vec<u8>,
    owed_start: usize,
    owes_packet: bool,
    has_answered: bool,
}

/// Whether a client stays.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Leaves,
}

/// Where clients come in.
enum Entrance {
    Plain(OwnedFd),
    Direct(Listener),
}

impl Entrance {
    /// Takes the socket's place: a stale socket is replaced, a live one is not stolen.
    fn open(path: &Path, options: &Options) -> Result<Entrance, String> {
        let socket_type = if options.protocol == Protocol::Packet { SockType::SeqPacket } else { SockType::Stream };
        let opened = if options.is_direct {
            let message_size_max = direct::MESSAGE_SIZE_MAX;
            let how = websocket::Options { mode: options.mode, backlog: BACKLOG, message_size_max };
            Listener::bind(path, &how).map(Entrance::Direct)
        } else {
            listen_at(path, socket_type, options.mode, BACKLOG).map(Entrance::Plain)
        };
        opened.map_err(|error| error.to_string())
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Entrance::Plain(socket) => socket.as_fd(),
            Entrance::Direct(listener) => listener.socket(),
        }
    }
}

/// Serves until a signal says stop, or with `-t` until one answer was given.
pub fn run(options: &Options) -> Result<(), String> {
    raise_fd_limit();
    let path = make_folder(&options.root)?.join(&options.name);
    let entrance = Entrance::open(&path, options)?;
    if options.daemonize {
        daemon(false, false).map_err(|errno| format!("-D: {}", errno.desc()))?;
        // Once more, so that SO_PEERCRED names this process and not the parent that ended.
        start_listening(entrance.socket()).map_err(|errno| format!("-D: {}", errno.desc()))?;
    }
    if let Some(user) = &options.user {
        become_user(user)?;
    }
    stop_on_signals()?;
    match entrance {
        Entrance::Plain(listener) => {
            let result = serve(&listener, options);
            let _ = fs::remove_file(&path);
            result
        }
        Entrance::Direct(listener) => direct::serve(listener, options),
    }
}

fn serve(listener: &OwnedFd, options: &Options) -> Result<(), String> {
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; READ_SIZE];
    let mut can_accept = true;
    while !IS_STOPPING.load(Ordering::Relaxed) {
        let events = wait(listener, &clients, can_accept, options)?;
        let (accepts, ready) = (events[0], &events[1..]);
        let mut answered = false;
        let mut index = 0;
        // The events are those of the clients before any of them leaves.
        clients.retain_mut(|client| {
            let event = ready.get(index).copied().unwrap_or(PollFlags::empty());
            index += 1;
            let stays = event.is_empty() || client.turn(&mut buffer, options.protocol) == Fate::Stays;
            answered |= client.has_answered;
            stays
        });
        if options.once && answered {
            return Ok(());
        }
        can_accept = accepts.is_empty() || accept(listener, &mut clients, options.hello);
    }
    Ok(())
}

/// Waits for whatever may go on: reading where nothing is owed, writing where something is, accepting where
/// there is room.
fn wait(listener: &OwnedFd, clients: &[Client], can_accept: bool, options: &Options) -> Result<Vec<PollFlags>, String> {
    let room = if options.once { 1 } else { options.clients_max };
    let accepts = if clients.len() < room && can_accept { PollFlags::POLLIN } else { PollFlags::empty() };
    let mut fds = vec![PollFd::new(listener.as_fd(), accepts)];
    fds.extend(clients.iter().map(|client| PollFd::new(client.socket.as_fd(), client.interest())));
    let time = if can_accept { None } else { Some(TimeSpec::from(ACCEPT_PAUSE)) };
    // Signals are let in here only, so that none is lost between the look at the flag and the wait.
    match ppoll(&mut fds, time, Some(SigSet::empty())) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(format!("poll: {}", errno.desc())),
    }
    Ok(fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect())
}

/// False: there is no file descriptor for another client, and it would come again at once.
fn accept(listener: &OwnedFd, clients: &mut Vec<Client>, hello: bool) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match accept4(listener.as_raw_fd(), flags) {
        Ok(fd) => {
            clients.push(Client {
                socket: own(fd),
                record: hello.then(Record::new),
                owed: Vec::new(),
                owed_start: 0,
                owes_packet: false,
                has_answered: false,
            });
        }
        Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => return false,
        Err(_) => {}
    }
    true
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: accept4 has just made this fd, and nobody else has it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
}

impl Client {
    fn interest(&self) -> PollFlags {
        if self.owes() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn owes(&self) -> bool {
        self.owes_packet || self.owed_start < self.owed.len()
    }

    /// Reads if nothing is owed, then writes what is.
    fn turn(&mut self, buffer: &mut [u8], protocol: Protocol) -> Fate {
        if self.record.is_some() {
            return self.take_record(buffer, protocol);
        }
        if !self.owes() {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(0) if protocol != Protocol::Packet || has_hung_up(self.socket.as_fd()) => return Fate::Leaves,
                Ok(size) => {
                    self.owed.clear();
                    self.owed.extend_from_slice(&buffer[..size]);
                    self.owed_start = 0;
                    self.owes_packet = protocol == Protocol::Packet;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
                Err(_) => return Fate::Leaves,
            }
        }
        self.write()
    }

    /// Receives of the first record what is missing, of packets a whole one.
    fn take_record(&mut self, buffer: &mut [u8], protocol: Protocol) -> Fate {
        let Some(record) = &mut self.record else { return Fate::Stays };
        let is_packet = protocol == Protocol::Packet;
        let size = if is_packet { buffer.len() } else { record.missing_size().min(buffer.len()) };
        let size = match recv(self.socket.as_raw_fd(), &mut buffer[..size], MsgFlags::empty()) {
            Ok(size @ 1..) => size,
            Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
            Ok(0) | Err(_) => return Fate::Leaves,
        };
        match record.take(&buffer[..size]) {
            Ok(Some(whole)) => {
                // A server is no worse where nobody reads what it tells.
                let _ = writeln!(stdout(), "{whole}");
                self.record = None;
                Fate::Stays
            }
            Ok(None) if !is_packet => Fate::Stays,
            Ok(None) => Fate::Leaves,
            Err(error) => {
                let _ = writeln!(stderr(), "websocket_echo: {error}");
                Fate::Leaves
            }
        }
    }

    fn write(&mut self) -> Fate {
        while self.owes() {
            match send(self.socket.as_raw_fd(), &self.owed[self.owed_start..], MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => {
                    self.owed_start += size;
                    self.owes_packet = false;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Stays,
                Err(_) => return Fate::Leaves,
            }
        }
        self.has_answered = true;
        Fate::Stays
    }
}

/// Tells the end of the packets from an empty packet.
fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    // A packet behind the empty one tells that it was no end, whatever the peer did since.
    if !matches!(recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK), Ok(0)) {
        return false;
    }
    let peer_ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    let mut fds = [PollFd::new(socket, peer_ended)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

fn make_folder(root: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(root);
    match fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder) {
        // Absolute, since -D goes to another folder.
        Ok(()) => folder.canonicalize().map_err(|error| format!("-R {root}: {error}")),
        Err(error) => Err(format!("-R {root}: {error}: name a folder that may be made")),
    }
}

fn start_listening(listener: BorrowedFd<'_>) -> Result<(), Errno> {
    listen(&listener, Backlog::new(BACKLOG)?)
}

fn raise_fd_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it there is room for fewer clients; the others wait.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn become_user(name: &str) -> Result<(), String> {
    let failed = |errno: Errno| format!("-u {name}: {}: start as root, or leave it out", errno.desc());
    let user = User::from_name(name).map_err(failed)?.ok_or_else(|| format!("-u {name}: there is no such user"))?;
    if Uid::effective() == user.uid && Gid::effective() == user.gid {
        return Ok(());
    }
    let c_name = std::ffi::CString::new(name).map_err(|_| format!("-u {name:?} has a NUL in it"))?;
    initgroups(&c_name, user.gid).map_err(failed)?;
    setgid(user.gid).map_err(failed)?;
    setuid(user.uid).map_err(failed)
}

/// Signals end the loop at its next turn, so that the socket file is removed.
fn stop_on_signals() -> Result<(), String> {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    let signals = [Signal::SIGTERM, Signal::SIGINT];
    SigSet::from_iter(signals).thread_block().map_err(|errno| format!("sigprocmask: {}", errno.desc()))?;
    for signal in signals {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.map_err(|errno| format!("sigaction: {}", errno.desc()))?;
    }
    Ok(())
}
