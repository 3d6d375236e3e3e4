//! Worker processes on the side of the server: started, sent messages, ended, and killed if they do not end.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use server::options::complain;
use websocket::deadline::Deadline;

use crate::NAME;
use crate::limits::{END_MS, READ_SIZE, REAP_MS, START_MS};
use crate::wire::{Connection, HEAD_SIZE, Kind, head, put};
use crate::worker;

/// Starts worker processes.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// Absolute path of the library, or a name for the dynamic linker.
    pub(crate) library: String,
    /// Private memory of each process.
    pub(crate) memory_mib: u64,
    /// The fields that are the same for all connections.
    pub(crate) connection: Connection,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    socket: UnixStream,
    /// Messages to send, after `sent_size` bytes that were sent.
    outgoing: Vec<u8>,
    sent_size: usize,
    incoming: Vec<u8>,
}

/// Result of [`Process::turn`].
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// No complete message yet.
    Nothing,
    Message(Kind, Vec<u8>),
    /// The process has ended, or sent an invalid message.
    End,
}

impl Launcher {
    /// Starts a process without the server's descriptors (they are closed on exec) and preloaded libraries.
    pub(crate) fn launch(&self) -> io::Result<Process> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .args([worker::FLAG, &self.library, &self.memory_mib.to_string()])
            .env_remove("LD_PRELOAD")
            // Signals of a terminal are for the server alone.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .spawn()?;
        Ok(Process { child, socket: near, outgoing: Vec::new(), sent_size: 0, incoming: Vec::new() })
    }

    /// Lets the library check its configuration, as this user. The error is the operator's sentence.
    pub(crate) fn check(&self, user: Option<&str>) -> Result<(), String> {
        let library = &self.library;
        let mut process = self.launch().map_err(|error| format!("no process for -L {library}: {error}"))?;
        let own = Connection { user: user.map(str::to_owned), ..Connection::default() };
        process.send(Kind::Start, &[&self.connection_body(own)]);
        let deadline = Deadline::after_ms(START_MS);
        let mut buffer = vec![0; READ_SIZE];
        loop {
            match process.turn(&mut buffer) {
                Received::Message(Kind::LastResult, _) => return process.join().map(drop),
                Received::Message(_, sentence) => {
                    process.join()?;
                    return Err(String::from_utf8_lossy(&sentence).into_owned());
                }
                Received::End => {
                    let status = process.join()?;
                    return Err(format!("-L {library}: its process exits at the start ({status}): see what it says"));
                }
                Received::Nothing => {}
            }
            let waited = deadline.wait(process.as_fd(), process.interest());
            if waited != Ok(true) {
                process.join()?;
                return Err(format!("-L {library}: it is not ready after {START_MS} ms: see what it waits for"));
            }
        }
    }

    /// Body of a message that opens a connection; `own` are the fields that differ between connections.
    pub(crate) fn connection_body(&self, own: Connection) -> Vec<u8> {
        let Connection { config, folder, .. } = self.connection.clone();
        // Serializing strings does not fail.
        serde_json::to_vec(&Connection { config, folder, ..own }).unwrap_or_default()
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Process {
    /// Queues a message whose body is these parts.
    pub(crate) fn send(&mut self, kind: Kind, parts: &[&[u8]]) {
        put(&mut self.outgoing, kind, parts);
    }

    /// Bytes of memory.
    pub(crate) fn held_size(&self) -> usize {
        self.outgoing.len() + self.incoming.len()
    }

    /// Events to wait for.
    pub(crate) fn interest(&self) -> PollFlags {
        let writes = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        PollFlags::POLLIN | writes
    }

    /// Sends what is queued, and receives.
    pub(crate) fn turn(&mut self, buffer: &mut [u8]) -> Received {
        // A process that has ended may have sent a message before.
        let _ = self.write();
        loop {
            match (&self.socket).read(buffer) {
                Ok(0) => return Received::End,
                Ok(size) => self.incoming.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Received::End,
            }
            match head(&self.incoming) {
                Ok(Some((kind, size))) if self.incoming.len() == HEAD_SIZE + size => {
                    let body = self.incoming.split_off(HEAD_SIZE);
                    self.incoming = Vec::new();
                    return Received::Message(kind, body);
                }
                Ok(Some((_, size))) if self.incoming.len() > HEAD_SIZE + size => return Received::End,
                Ok(_) => {}
                Err(()) => return Received::End,
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while self.sent_size < self.outgoing.len() {
            match (&self.socket).write(&self.outgoing[self.sent_size..]) {
                Ok(size) => self.sent_size += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.outgoing, self.sent_size) = (Vec::new(), 0);
        Ok(())
    }

    /// Waits for its end, and kills it after `END_MS`. The error is the operator's sentence.
    fn join(mut self) -> Result<ExitStatus, String> {
        // Its end of the socket stays open until it exits.
        let waited = Deadline::after_ms(END_MS).wait(self.as_fd(), PollFlags::POLLIN);
        if waited != Ok(true) {
            kill(&mut self.child);
        }
        self.child.wait().map_err(|error| format!("waiting for the library's process: {error}"))
    }
}

/// Processes that are to end.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    ending: Vec<Ending>,
}

#[derive(Debug)]
struct Ending {
    child: Child,
    kill_at: Instant,
    is_killed: bool,
    /// Message for the operator at its end: the exit status goes between the two parts.
    message: Option<(String, String)>,
}

impl Reaper {
    pub(crate) fn count(&self) -> usize {
        self.ending.len()
    }

    /// Closes the connection to a process. It is killed if it does not exit within `left` and `END_MS`.
    pub(crate) fn end(&mut self, process: Process, left: Duration) {
        let kill_at = Instant::now() + left + Duration::from_millis(END_MS);
        self.ending.push(Ending { child: process.child, kill_at, is_killed: false, message: None });
    }

    /// Kills a process, if it has not ended by itself. At its end `before`, its status and `after` are reported.
    pub(crate) fn kill(&mut self, process: Process, before: String, after: String) {
        let message = Some((before, after));
        let mut ending = Ending { child: process.child, kill_at: Instant::now(), is_killed: false, message };
        if !ending.is_over() {
            self.ending.push(ending);
        }
    }

    /// Collects exit statuses, and kills what is overdue.
    pub(crate) fn turn(&mut self) {
        self.ending.retain_mut(|ending| !ending.is_over());
    }

    /// Waits for all processes, and kills those that do not exit within `END_MS`. Gives up after twice that time.
    pub(crate) fn finish(mut self) {
        let kill_at = Instant::now() + Duration::from_millis(END_MS);
        for ending in &mut self.ending {
            ending.kill_at = ending.kill_at.min(kill_at);
        }
        let give_up = kill_at + Duration::from_millis(END_MS);
        loop {
            // If this process was suspended past `give_up`, this turn still kills.
            let is_last = Instant::now() >= give_up;
            self.turn();
            if is_last || self.count() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(REAP_MS));
        }
    }
}

/// Kills a process that was not waited for yet, and those that the library has started: its process group.
fn kill(child: &mut Child) {
    // It may have ended meanwhile, or have left its group.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.kill();
}

impl Ending {
    fn is_over(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => {
                if !self.is_killed && self.kill_at <= Instant::now() {
                    self.is_killed = true;
                    kill(&mut self.child);
                }
                false
            }
            Ok(Some(status)) => {
                if let Some((before, after)) = &self.message {
                    complain(NAME, format_args!("{before} ({status}){after}"));
                }
                true
            }
            Err(_) => true,
        }
    }
}
