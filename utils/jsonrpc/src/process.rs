//! The processes that calls run in, as the server sees them: started, asked, ended, and killed where they do not end.

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
use crate::wire::{HEAD_SIZE, Kind, Opening, head, put};
use crate::worker;

/// How processes are started.
#[derive(Debug)]
pub struct Launcher {
    /// The library, by a path that holds in any folder.
    pub library: String,
    /// Memory that each may have for its own.
    pub memory_mib: u64,
    /// What all of them are told.
    pub opening: Opening,
}

/// A process that serves a connection.
#[derive(Debug)]
pub struct Process {
    child: Child,
    socket: UnixStream,
    /// What it is to be told, and how much of that it was.
    outgoing: Vec<u8>,
    sent_size: usize,
    incoming: Vec<u8>,
}

/// What came of a process.
#[derive(PartialEq, Eq, Debug)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// A whole message.
    Message(Kind, Vec<u8>),
    /// It has ended, or talks nonsense.
    End,
}

impl Launcher {
    /// Starts a process. It gets neither what the server opened nor what stands before the server's functions.
    pub fn launch(&self) -> io::Result<Process> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .args([worker::FLAG, &self.library, &self.memory_mib.to_string()])
            .env_remove("LD_PRELOAD")
            // What a terminal sends to the server is for the server alone.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .spawn()?;
        Ok(Process { child, socket: near, outgoing: Vec::new(), sent_size: 0, incoming: Vec::new() })
    }

    /// Has the library look at its configuration, as this user. The error is the operator's sentence.
    pub fn check(&self, user: Option<&str>) -> Result<(), String> {
        let library = &self.library;
        let mut process = self.launch().map_err(|error| format!("no process for -L {library}: {error}"))?;
        let own = Opening { user: user.map(str::to_owned), ..Opening::default() };
        process.ask(Kind::Start, &[&self.opening_for(own)]);
        let deadline = Deadline::after_ms(START_MS);
        let mut buffer = vec![0; READ_SIZE];
        loop {
            match process.turn(&mut buffer) {
                Heard::Message(Kind::LastResult, _) => return process.join().map(drop),
                Heard::Message(_, sentence) => {
                    process.join()?;
                    return Err(String::from_utf8_lossy(&sentence).into_owned());
                }
                Heard::End => {
                    let status = process.join()?;
                    return Err(format!(
                        "-L {library}: it ends its process when it starts ({status}): see what it says"
                    ));
                }
                Heard::Nothing => {}
            }
            let waited = deadline.wait(process.as_fd(), process.interest());
            if waited != Ok(true) {
                process.join()?;
                return Err(format!("-L {library}: it is not ready after {START_MS} ms: see what it waits for"));
            }
        }
    }

    /// What a process is told, with what is of its own.
    pub fn opening_for(&self, own: Opening) -> Vec<u8> {
        let Opening { config, folder, .. } = self.opening.clone();
        // Strings alone can always be written.
        serde_json::to_vec(&Opening { config, folder, ..own }).unwrap_or_default()
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Process {
    /// Tells it something, as soon as it takes it: a message whose body has these parts.
    pub fn ask(&mut self, kind: Kind, parts: &[&[u8]]) {
        put(&mut self.outgoing, kind, parts);
    }

    /// Bytes that wait for it, or have come of it.
    pub fn held_size(&self) -> usize {
        self.outgoing.len() + self.incoming.len()
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        let writes = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        PollFlags::POLLIN | writes
    }

    /// Tells it what waits, and hears what it says.
    pub fn turn(&mut self, buffer: &mut [u8]) -> Heard {
        // One that has ended may have said something before.
        let _ = self.write();
        loop {
            match (&self.socket).read(buffer) {
                Ok(0) => return Heard::End,
                Ok(size) => self.incoming.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Heard::End,
            }
            match head(&self.incoming) {
                Ok(Some((kind, size))) if self.incoming.len() == HEAD_SIZE + size => {
                    let body = self.incoming.split_off(HEAD_SIZE);
                    self.incoming = Vec::new();
                    return Heard::Message(kind, body);
                }
                Ok(Some((_, size))) if self.incoming.len() > HEAD_SIZE + size => return Heard::End,
                Ok(_) => {}
                Err(()) => return Heard::End,
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

    /// Waits for its end, which is at hand or comes by force. An error is the operator's sentence.
    fn join(mut self) -> Result<ExitStatus, String> {
        // It keeps its end of the connection as long as it lives.
        let waited = Deadline::after_ms(END_MS).wait(self.as_fd(), PollFlags::POLLIN);
        if waited != Ok(true) {
            kill(&mut self.child);
        }
        self.child.wait().map_err(|error| format!("no end of the library's process: {error}"))
    }
}

/// Processes whose connections have ended.
#[derive(Debug, Default)]
pub struct Reaper {
    ending: Vec<Ending>,
}

#[derive(Debug)]
struct Ending {
    child: Child,
    kill_at: Instant,
    is_killed: bool,
    /// What the operator is to hear of its end, whose reason goes between.
    told: Option<(String, String)>,
}

impl Reaper {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.ending.len()
    }

    /// Nothing more is wanted of it: it sees its connection end, and has this long, beside what the library may do
    /// then.
    pub fn end(&mut self, process: Process, left: Duration) {
        let kill_at = Instant::now() + left + Duration::from_millis(END_MS);
        self.ending.push(Ending { child: process.child, kill_at, is_killed: false, told: None });
    }

    /// It ended by itself, or is to end at once. Once it has, the operator hears of it: these words, its status, and
    /// those words.
    pub fn bury(&mut self, process: Process, before: String, after: String) {
        let told = Some((before, after));
        let mut ending = Ending { child: process.child, kill_at: Instant::now(), is_killed: false, told };
        if !ending.is_over() {
            self.ending.push(ending);
        }
    }

    /// Looks after all of them.
    pub fn turn(&mut self) {
        self.ending.retain_mut(|ending| !ending.is_over());
    }

    /// Has all of them end, by force after a while. Those that even that does not end are left alone.
    pub fn finish(mut self) {
        let kill_at = Instant::now() + Duration::from_millis(END_MS);
        for ending in &mut self.ending {
            ending.kill_at = ending.kill_at.min(kill_at);
        }
        while self.count() > 0 && Instant::now() < kill_at + Duration::from_millis(END_MS) {
            self.turn();
            std::thread::sleep(Duration::from_millis(REAP_MS));
        }
    }
}

/// Kills a process that was not waited for yet, with those that the library has started: they are of its group.
fn kill(child: &mut Child) {
    // It may have ended in this moment, or have left its group.
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
                if let Some((before, after)) = &self.told {
                    complain(NAME, format_args!("{before} ({status}){after}"));
                }
                true
            }
            Err(_) => true,
        }
    }
}
