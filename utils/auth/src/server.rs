//! Asks a UNIX server that decides, by JSON-RPC 2.0: a socket of type SOCK_SEQPACKET with a message in each packet, or of
//! type SOCK_STREAM with a message in each line. No failure of the server allows anything.

mod cache;
mod dialogue;
mod link;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use auth_wire::{Question, Verdict};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::UnixAddr;

use crate::limits::{
    SERVER_ANSWER_MS, SERVER_ANSWER_SIZE_MAX, SERVER_COMMANDS_MAX, SERVER_LAST_SIZE_MAX, SERVER_QUESTION_SIZE_MAX,
    SERVER_QUESTIONS_MAX, SERVER_RETRY_MS_MAX, SERVER_RETRY_MS_MIN,
};
use dialogue::{Asked, Dialogue, Outcome};
use link::Link;

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// The decision about a question. Each question gets exactly one, unless it is cancelled.
    Answer {
        /// The question's id.
        id: u64,
        /// The decision.
        verdict: Verdict,
    },
    /// It revoked what it allowed to a user, on whichever connection.
    Revoked {
        /// The server's path.
        server: Arc<Path>,
        /// The user.
        user: String,
    },
}

/// Why a server gives no decision. No variant holds anything of a question or an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerError {
    /// It cannot be reached.
    Connect(Errno),
    /// The connection failed recently.
    Waiting,
    /// The connection failed.
    Failed(Errno),
    /// It closed the connection.
    Closed,
    /// Too many questions without an answer.
    Full,
    /// The question is longer than `SERVER_QUESTION_SIZE_MAX`.
    QuestionTooLong,
    /// No answer in time.
    TimedOut,
    /// An answer is longer than `SERVER_ANSWER_SIZE_MAX`.
    AnswerTooLong,
    /// A message violates JSON-RPC 2.0, or has invalid members.
    Invalid(&'static str),
    /// It answered with an error of this code.
    Refused(i64),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Connect(errno) => write!(f, "the server cannot be reached: {}", errno.desc()),
            ServerError::Waiting => f.write_str("the server could not be reached a moment ago"),
            ServerError::Failed(errno) => write!(f, "the connection to the server failed: {}", errno.desc()),
            ServerError::Closed => f.write_str("the server closed the connection"),
            ServerError::Full => write!(f, "{SERVER_QUESTIONS_MAX} questions wait for the server"),
            ServerError::QuestionTooLong => {
                write!(f, "the question for the server has more than {SERVER_QUESTION_SIZE_MAX} bytes")
            }
            ServerError::TimedOut => f.write_str("the server did not answer in time"),
            ServerError::AnswerTooLong => {
                write!(f, "a message of the server has more than {SERVER_ANSWER_SIZE_MAX} bytes")
            }
            ServerError::Invalid(reason) => write!(f, "a message of the server is not valid: {reason}"),
            ServerError::Refused(code) => write!(f, "the server answered with the error {code}"),
        }
    }
}

enum Command {
    Ask(Box<Question>),
    Cancel(u64),
}

/// A server, and the thread that talks to it. The thread ends after this was dropped. It is not waited for, since it may
/// wait in `report` for the thread that drops this.
#[derive(Debug)]
pub struct Server {
    path: Arc<Path>,
    /// None only while this is dropped.
    commands: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    /// The thread forgets the answers that it has kept before it takes the next question.
    is_revoked: Arc<AtomicBool>,
}

impl Server {
    /// Whether a server can have this path.
    pub fn check(path: &Path) -> io::Result<()> {
        UnixAddr::new(path)?;
        Ok(())
    }

    /// Starts the thread. It connects at once and stays connected, as it would miss a revocation otherwise. `report` is
    /// called by the thread, which takes nothing from the server while it waits there.
    pub fn start(path: &Path, report: impl Fn(Report) + Send + 'static) -> io::Result<Server> {
        Server::start_with(path, SERVER_ANSWER_MS, report)
    }

    fn start_with(path: &Path, answer_ms: u64, report: impl Fn(Report) + Send + 'static) -> io::Result<Server> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let wake = Arc::new(wake);
        let (commands, receiver) = mpsc::channel();
        let mut conversation = Conversation::new(path, answer_ms, report)?;
        let (path, is_revoked) = (Arc::clone(&conversation.path), Arc::clone(&conversation.is_revoked));
        std::thread::Builder::new().name("server".to_owned()).spawn({
            let wake = wake.clone();
            move || conversation.run(&receiver, &wake)
        })?;
        Ok(Server { path, commands: Some(commands), wake, is_revoked })
    }

    /// Asks, without waiting.
    pub fn ask(&self, question: Question) {
        self.send(Command::Ask(Box::new(question)));
    }

    /// Forgets all answers of the server, if it is the one at this path, which has revoked something on another connection:
    /// any number of revocations takes no room here.
    pub(crate) fn revoke(&self, server: &Path) {
        if *self.path == *server {
            // The channel puts it before the questions that follow.
            self.is_revoked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the next question makes the thread forget.
    #[cfg(test)]
    pub(crate) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::Relaxed)
    }

    /// Drops a question: it gets no answer, unless that was reported already.
    pub fn cancel(&self, id: u64) {
        self.send(Command::Cancel(id));
    }

    fn send(&self, command: Command) {
        // The thread lives as long as this, so that there is a receiver.
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        self.wake();
    }

    /// A full counter wakes the thread as well.
    fn wake(&self) {
        let _ = self.wake.write(1);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
    }
}

/// When the next connection may be made.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
    not_before_ms: u64,
}

impl Retry {
    fn fail(&mut self, now_ms: u64) {
        let wait_ms = SERVER_RETRY_MS_MIN << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = now_ms + wait_ms.min(SERVER_RETRY_MS_MAX);
    }

    /// The server answered: the next connection may be made at once.
    fn succeed(&mut self) {
        *self = Retry::default();
    }
}

/// The thread.
struct Conversation {
    path: Arc<Path>,
    address: UnixAddr,
    report: Box<dyn Fn(Report) + Send>,
    dialogue: Dialogue,
    link: Option<Link>,
    /// For connections that a question waits for.
    retry: Retry,
    /// For connections without a question: how they end does not delay those for one.
    unasked: Retry,
    is_revoked: Arc<AtomicBool>,
    start: Instant,
}

impl Conversation {
    fn new(path: &Path, answer_ms: u64, report: impl Fn(Report) + Send + 'static) -> io::Result<Conversation> {
        Ok(Conversation {
            path: Arc::from(path),
            address: UnixAddr::new(path)?,
            report: Box::new(report),
            dialogue: Dialogue::new(answer_ms),
            link: None,
            retry: Retry::default(),
            unasked: Retry::default(),
            is_revoked: Arc::default(),
            start: Instant::now(),
        })
    }

    fn run(&mut self, commands: &Receiver<Command>, wake: &EventFd) {
        while self.obey(commands, wake) {
            let now_ms = self.now_ms();
            for id in self.dialogue.expire(now_ms) {
                self.fail(id, ServerError::TimedOut);
            }
            if self.reconnect_ms().is_some_and(|at_ms| at_ms <= now_ms) {
                match Link::connect(&self.address) {
                    Ok(link) => self.link = Some(link),
                    // There is no question that could fail with it.
                    Err(_) => self.unasked.fail(now_ms),
                }
            }
            self.wait(wake);
            // Reset before the commands are read, so that no wake-up is lost.
            let _ = wake.read();
            self.exchange();
        }
        // Revocations that were sent to this connection may be on no other.
        let _ = self.take_all();
    }

    /// Obeys some of the commands. Returns whether there will be more.
    fn obey(&mut self, commands: &Receiver<Command>, wake: &EventFd) -> bool {
        for _ in 0..SERVER_COMMANDS_MAX {
            match commands.try_recv() {
                Ok(Command::Ask(question)) => self.ask(&question),
                Ok(Command::Cancel(id)) => self.dialogue.cancel(id),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        // The wake-up for the others may be gone.
        let _ = wake.write(1);
        true
    }

    /// When to connect without a question. None: there is a connection.
    fn reconnect_ms(&self) -> Option<u64> {
        self.link.is_none().then_some(self.retry.not_before_ms.max(self.unasked.not_before_ms))
    }

    /// Waits for a command, the server, or the next deadline.
    fn wait(&self, wake: &EventFd) {
        let due_ms = self.dialogue.next_due_ms().into_iter().chain(self.reconnect_ms()).min();
        let timeout = match due_ms.map(|due_ms| due_ms.saturating_sub(self.now_ms())) {
            None => PollTimeout::NONE,
            // One millisecond more, as the deadline is over only after it.
            Some(wait_ms) => PollTimeout::try_from(wait_ms + 1).unwrap_or(PollTimeout::MAX),
        };
        let mut fds = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.link.as_ref().map(|link| PollFd::new(link.fd(), link.interest())));
        // An error is an interruption: the loop looks at everything again.
        let _ = poll(&mut fds, timeout);
    }

    fn ask(&mut self, question: &Question) {
        // Questions that were cancelled still wait for a server that does not read.
        if self.link.as_ref().is_some_and(|link| link.queued() >= SERVER_QUESTIONS_MAX) {
            return self.fail(question.id, ServerError::Full);
        }
        if self.is_revoked.swap(false, Ordering::Relaxed) {
            self.dialogue.forget();
        }
        let now_ms = self.now_ms();
        match self.dialogue.ask(question, now_ms) {
            Asked::Known(verdict) => (self.report)(Report::Answer { id: question.id, verdict }),
            Asked::Failed(error) => self.fail(question.id, error),
            Asked::Send(text) => {
                let linked = match (&self.link, now_ms >= self.retry.not_before_ms) {
                    (Some(_), _) => Ok(()),
                    (None, true) => self.connect(),
                    (None, false) => Err(ServerError::Waiting),
                };
                match (linked, &mut self.link) {
                    (Ok(()), Some(link)) => link.queue(text.reveal()),
                    (Err(error), _) => self.drop_all(error),
                    (Ok(()), None) => self.drop_all(ServerError::Closed),
                }
            }
        }
    }

    fn connect(&mut self) -> Result<(), ServerError> {
        match Link::connect(&self.address) {
            Ok(link) => {
                self.link = Some(link);
                Ok(())
            }
            Err(errno) => {
                self.retry.fail(self.now_ms());
                Err(ServerError::Connect(errno))
            }
        }
    }

    /// Writes what is queued and takes what has arrived.
    fn exchange(&mut self) {
        let Some(link) = &mut self.link else { return };
        let result = match link.write() {
            Ok(()) => self.take().map(drop),
            Err(errno) => self.take_all().and(Err(ServerError::Failed(errno))),
        };
        if let Err(error) = result {
            let now_ms = self.now_ms();
            self.link = None;
            let retry = if self.dialogue.is_idle() { &mut self.unasked } else { &mut self.retry };
            retry.fail(now_ms);
            self.drop_all(error);
        }
    }

    /// Takes what has arrived on a connection that is to end: what a server said before is still valid.
    fn take_all(&mut self) -> Result<(), ServerError> {
        let mut size = 0;
        while size < SERVER_LAST_SIZE_MAX {
            let (taken, has_more) = self.take()?;
            size += taken;
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    /// Takes some of the messages that have arrived. Returns their bytes, and whether there may be more.
    fn take(&mut self) -> Result<(usize, bool), ServerError> {
        let Some(link) = &mut self.link else { return Ok((0, false)) };
        let (messages, has_more) = link.read();
        for message in &messages {
            let outcome = self.dialogue.message(message, self.now_ms(), unix_ms())?;
            self.retry.succeed();
            self.unasked.succeed();
            self.tell(outcome);
        }
        Ok((messages.iter().map(Vec::len).sum(), has_more?))
    }

    fn tell(&self, outcome: Outcome) {
        match outcome {
            Outcome::Decided(id, verdict) => (self.report)(Report::Answer { id, verdict }),
            Outcome::Failed(id, error) => self.fail(id, error),
            Outcome::Revoked(user) => (self.report)(Report::Revoked { server: Arc::clone(&self.path), user }),
            Outcome::Nothing => {}
        }
    }

    /// All questions without an answer fail: the server that knew them is gone.
    fn drop_all(&mut self, error: ServerError) {
        for id in self.dialogue.clear() {
            self.fail(id, error);
        }
    }

    fn fail(&self, id: u64, error: ServerError) {
        let sentence = format!("{}: {error}", self.path.display());
        (self.report)(Report::Answer { id, verdict: Verdict::Unavailable { sentence } });
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The Unix time in milliseconds.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
