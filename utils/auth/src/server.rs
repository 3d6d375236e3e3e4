//! Asks a UNIX server that decides, by JSON-RPC 2.0: a socket of type SOCK_SEQPACKET with a message in each packet, or of
//! type SOCK_STREAM with a message in each line. No failure of the server allows anything.

mod cache;
mod dialogue;
mod link;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use auth_wire::{Question, Verdict};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::UnixAddr;

use crate::limits::{
    SERVER_ANSWER_MS, SERVER_ANSWER_SIZE_MAX, SERVER_QUESTION_SIZE_MAX, SERVER_QUESTIONS_MAX, SERVER_RETRY_MS_MAX,
    SERVER_RETRY_MS_MIN,
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
    /// It revoked what it allowed to a user.
    Revoked {
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

/// A server, and the thread that talks to it. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// The thread is to stay connected.
    is_wanted: Cell<bool>,
    /// None only while this is dropped.
    commands: Option<Sender<Command>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread. It connects when there is a question, or at once if it `is_wanted`, and from then on stays
    /// connected, as it would miss a revocation otherwise. `report` is called by the thread, and has to return soon.
    pub fn start(path: &Path, is_wanted: bool, report: impl Fn(Report) + Send + 'static) -> io::Result<Server> {
        Server::start_with(path, is_wanted, SERVER_ANSWER_MS, report)
    }

    fn start_with(
        path: &Path,
        is_wanted: bool,
        answer_ms: u64,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Server> {
        let address = UnixAddr::new(path)?;
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let wake = Arc::new(wake);
        let (commands, receiver) = mpsc::channel();
        let mut conversation = Conversation {
            path: path.to_owned(),
            address,
            report: Box::new(report),
            dialogue: Dialogue::new(answer_ms),
            link: None,
            is_wanted,
            retry: Retry::default(),
            start: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn({
            let wake = wake.clone();
            move || conversation.run(&receiver, &wake)
        })?;
        let (path, is_wanted) = (path.to_owned(), Cell::new(is_wanted));
        Ok(Server { path, is_wanted, commands: Some(commands), wake, thread: Some(thread) })
    }

    /// Asks, without waiting.
    pub fn ask(&self, question: Question) {
        self.is_wanted.set(true);
        self.send(Command::Ask(Box::new(question)));
    }

    /// Whether what this server allowed may have to be revoked by the one at this path.
    pub(crate) fn is_wanted_at(&self, path: &Path) -> bool {
        self.is_wanted.get() && self.path == path
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
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
    path: PathBuf,
    address: UnixAddr,
    report: Box<dyn Fn(Report) + Send>,
    dialogue: Dialogue,
    link: Option<Link>,
    /// There was a question, in this generation or the one before.
    is_wanted: bool,
    retry: Retry,
    start: Instant,
}

impl Conversation {
    fn run(&mut self, commands: &Receiver<Command>, wake: &EventFd) {
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command::Ask(question)) => self.ask(&question),
                    Ok(Command::Cancel(id)) => self.dialogue.cancel(id),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let now_ms = self.now_ms();
            for id in self.dialogue.expire(now_ms) {
                self.fail(id, ServerError::TimedOut);
            }
            if self.is_wanted && self.link.is_none() && now_ms >= self.retry.not_before_ms {
                // There is no question that could fail with it.
                let _ = self.connect();
            }
            self.wait(wake);
            // Reset before the commands are read, so that no wake-up is lost.
            let _ = wake.read();
            self.exchange();
        }
    }

    /// Waits for a command, the server, or the next deadline.
    fn wait(&self, wake: &EventFd) {
        let reconnect_ms = (self.is_wanted && self.link.is_none()).then_some(self.retry.not_before_ms);
        let due_ms = self.dialogue.next_due_ms().into_iter().chain(reconnect_ms).min();
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
        let now_ms = self.now_ms();
        match self.dialogue.ask(question, now_ms) {
            Asked::Known(verdict) => (self.report)(Report::Answer { id: question.id, verdict }),
            Asked::Failed(error) => self.fail(question.id, error),
            Asked::Send(text) => {
                self.is_wanted = true;
                let linked = match (&self.link, now_ms >= self.retry.not_before_ms) {
                    (Some(_), _) => Ok(()),
                    (None, true) => self.connect(),
                    (None, false) => Err(ServerError::Waiting),
                };
                match (linked, &mut self.link) {
                    (Ok(()), Some(link)) => link.queue(&text),
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

    /// Writes what is queued and reads what has arrived.
    fn exchange(&mut self) {
        let Some(link) = &mut self.link else { return };
        let written = link.write().map_err(ServerError::Failed);
        // What a server said before it closed the connection is still valid.
        let (messages, read) = link.read();
        let mut result = read.and(written);
        for message in messages {
            match self.dialogue.message(&message, self.now_ms(), unix_ms()) {
                Ok(outcome) => {
                    self.retry.succeed();
                    self.tell(outcome);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = result {
            self.link = None;
            self.retry.fail(self.now_ms());
            self.drop_all(error);
        }
    }

    fn tell(&self, outcome: Outcome) {
        match outcome {
            Outcome::Decided(id, verdict) => (self.report)(Report::Answer { id, verdict }),
            Outcome::Failed(id, error) => self.fail(id, error),
            Outcome::Revoked(user) => (self.report)(Report::Revoked { user }),
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
