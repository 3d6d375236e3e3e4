//! The process: one thread with poll(2) that talks to the daemon, and `WORKERS` threads that verify. The socket is read
//! and written without waiting, and its flags are left as they are.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auth_wire::{Answer, Decoder, ToDaemon, Verdict, WireError, encode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};

use crate::dispatcher::{Dispatcher, Task};
use crate::limits::{RECEIVE_SIZE, REPORTS_MAX, SEND_QUEUE_SIZE_MAX, WORKERS};
use crate::rules::Judgement;
use crate::server::{Report, Server};

/// Why the process ends other than by the end of the stream.
#[derive(Debug)]
pub enum ServeError {
    /// Standard input is not the daemon's socket.
    NoSocket,
    /// The daemon sent what is no message.
    Wire(WireError),
    /// A system call failed.
    System {
        /// What it was to do.
        action: &'static str,
        /// The cause.
        error: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::NoSocket => formatter.write_str(
                "standard input is no stream socket: the gateway starts this program; see uakari-auth --help",
            ),
            ServeError::Wire(error) => write!(formatter, "the gateway sent what is no message: {error}"),
            ServeError::System { action, error } => write!(formatter, "{action}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> ServeError {
    move |error| ServeError::System { action, error: error.into() }
}

/// The result of a task.
#[derive(Debug)]
struct Judged {
    job: u64,
    judgement: Judgement,
}

/// What the server of a rule says.
#[derive(Debug)]
struct Reported {
    generation: u32,
    rule: u32,
    report: Report,
}

/// Wakes the main thread, after something was sent to it.
fn notify(wake: &EventFd) {
    // It fails only if the main thread is woken already.
    let _ = wake.write(1);
}

/// Serves the daemon at the other end of the socket until the daemon closes it.
pub fn serve(socket: BorrowedFd<'_>) -> Result<(), ServeError> {
    if getsockopt(&socket, sockopt::SockType) != Ok(SockType::Stream) {
        return Err(ServeError::NoSocket);
    }
    protect()?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let wake = Arc::new(EventFd::from_flags(flags).map_err(failed("eventfd"))?);
    let (results, judged) = channel();
    let tasks = start_workers(&results, &wake)?;
    let (sender, reported) = sync_channel(REPORTS_MAX);
    let wake_of_servers = Arc::clone(&wake);
    let dispatcher = Dispatcher::new(Box::new(move |path, generation, rule| {
        let (reports, wake) = (sender.clone(), Arc::clone(&wake_of_servers));
        Server::start(path, move |report| send_report(&reports, &wake, Reported { generation, rule, report }))
    }));
    let mut process = Process {
        socket,
        wake,
        judged,
        reported,
        has_reports: false,
        tasks,
        idle: WORKERS,
        decoder: Decoder::default(),
        dispatcher,
        out: VecDeque::new(),
        start: Instant::now(),
    };
    process.run()
}

/// Memory with passwords is in no core file and in no debugger of the same user. The signals that end the daemon, which a
/// terminal or a service manager sends to all its processes, are left to the daemon: it finishes its requests, and then
/// closes the socket.
fn protect() -> Result<(), ServeError> {
    set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"))?;
    set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"))?;
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1];
    signals.into_iter().collect::<SigSet>().thread_block().map_err(failed("sigprocmask"))
}

/// They end with the process.
fn start_workers(results: &Sender<Judged>, wake: &Arc<EventFd>) -> Result<Sender<Task>, ServeError> {
    let (sender, tasks) = channel::<Task>();
    let tasks = Arc::new(Mutex::new(tasks));
    for _ in 0..WORKERS {
        let (tasks, results, wake) = (Arc::clone(&tasks), results.clone(), Arc::clone(wake));
        let work = move || {
            loop {
                // A thread waits for a task with the lock; the others wait for the lock.
                let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(task) = task else { return };
                let (job, judgement) = task.judge(unix_time_s());
                // A worker has one task at a time, so that few results wait. Without the main thread the process ends.
                let _ = results.send(Judged { job, judgement });
                notify(&wake);
            }
        };
        thread::Builder::new().name("verify".to_owned()).spawn(work).map_err(failed("a thread cannot be started"))?;
    }
    Ok(sender)
}

/// Called by the thread of a server, which waits here while `REPORTS_MAX` others wait for the main thread.
fn send_report(reports: &SyncSender<Reported>, wake: &EventFd, reported: Reported) {
    // Without the main thread the process ends.
    let _ = reports.send(reported);
    notify(wake);
}

fn unix_time_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

struct Process<'a> {
    socket: BorrowedFd<'a>,
    wake: Arc<EventFd>,
    judged: Receiver<Judged>,
    reported: Receiver<Reported>,
    /// Whether there may be reports of servers that no wake-up follows.
    has_reports: bool,
    tasks: Sender<Task>,
    /// Workers without a task.
    idle: usize,
    decoder: Decoder,
    dispatcher: Dispatcher,
    /// Bytes for the daemon.
    out: VecDeque<u8>,
    start: Instant,
}

impl Process<'_> {
    fn run(&mut self) -> Result<(), ServeError> {
        let mut buffer = vec![0; RECEIVE_SIZE];
        let mut next_due_ms = None;
        loop {
            if self.wait(next_due_ms)? && !self.receive(&mut buffer)? {
                return Ok(());
            }
            let now_ms = self.now_ms();
            while let Ok(Judged { job, judgement }) = self.judged.try_recv() {
                self.idle += 1;
                self.dispatcher.judged(job, judgement, now_ms);
            }
            self.has_reports = self.take_reports(now_ms);
            next_due_ms = self.dispatcher.expire(now_ms);
            self.hand_out();
            self.encode();
            if !self.flush()? {
                return Ok(());
            }
        }
    }

    /// Takes reports of servers, as long as their messages have room. Returns whether there may be more.
    fn take_reports(&mut self, now_ms: u64) -> bool {
        for _ in 0..REPORTS_MAX {
            if self.is_full() {
                return true;
            }
            let Ok(Reported { generation, rule, report }) = self.reported.try_recv() else { return false };
            self.dispatcher.reported(generation, rule, report, now_ms);
            self.encode();
        }
        true
    }

    /// Whether the daemon has to read before anything is taken that has an answer.
    fn is_full(&self) -> bool {
        self.out.len() >= SEND_QUEUE_SIZE_MAX
    }

    /// Waits for anything to do. Returns whether the socket can be read.
    fn wait(&self, next_due_ms: Option<u64>) -> Result<bool, ServeError> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, !self.is_full());
        wanted.set(PollFlags::POLLOUT, !self.out.is_empty());
        let mut fds = [PollFd::new(self.socket, wanted), PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let timeout = match next_due_ms {
            _ if self.has_reports && !self.is_full() => PollTimeout::ZERO,
            None => PollTimeout::NONE,
            Some(due_ms) => {
                let time = Duration::from_millis(due_ms).saturating_sub(self.start.elapsed());
                // Rounded up, so that the time has come.
                PollTimeout::try_from(time.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(failed("poll")(error)),
        }
        let [socket, wake] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if !wake.is_empty() {
            // It fails only if there is nothing to read.
            let _ = self.wake.read();
        }
        Ok(socket.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Takes what the daemon has sent. Returns false at the end of the stream.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool, ServeError> {
        let size = match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(false),
            Ok(size) => size,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
            Err(error) => return Err(failed("recv")(error)),
        };
        let received = buffer.get_mut(..size).unwrap_or_default();
        self.decoder.push(received);
        received.fill(0);
        let now_ms = self.now_ms();
        while let Some(message) = self.decoder.next().map_err(ServeError::Wire)? {
            self.dispatcher.handle(message, now_ms);
            self.encode();
        }
        Ok(true)
    }

    fn hand_out(&mut self) {
        while self.idle > 0 {
            let Some(task) = self.dispatcher.next_task() else { return };
            // Workers end with the process alone.
            if self.tasks.send(task).is_ok() {
                self.idle -= 1;
            }
        }
    }

    fn encode(&mut self) {
        let mut frames = Vec::new();
        while let Some(message) = self.dispatcher.next_message() {
            if encode(&message, &mut frames).is_ok() {
                continue;
            }
            // Only the groups of an answer have no limit of their own.
            if let ToDaemon::Answer(Answer { id, .. }) = message {
                let sentence = "the user's groups exceed a message".to_owned();
                let answer = ToDaemon::Answer(Answer { id, verdict: Verdict::Unavailable { sentence } });
                // It is short.
                let _ = encode(&answer, &mut frames);
            }
        }
        self.out.extend(frames);
    }

    /// Sends what the socket takes. Returns false if the daemon has closed it.
    fn flush(&mut self) -> Result<bool, ServeError> {
        while !self.out.is_empty() {
            let (front, _) = self.out.as_slices();
            match send(self.socket.as_raw_fd(), front, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => drop(self.out.drain(..size)),
                Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(false),
                Err(error) => return Err(failed("send")(error)),
            }
        }
        Ok(true)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
