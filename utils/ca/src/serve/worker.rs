//! The slow work, in two threads: logins, and the authority's files. A login takes the time of a hash and holds up no
//! enrolment. Their queues are bounded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use authrpc::LoginError;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::Value;
use time::OffsetDateTime;

use super::limits::LOGINS_QUEUED_MAX;
use super::message::{Action, Refusal, Reply, Request};
use crate::{Authority, CaError, Renewal};

/// What a status without a login has.
const PUBLIC_KEYS: [&str; 4] = ["state", "days_left", "not_after", "fingerprint"];

/// A request of a client.
pub(crate) struct Job {
    pub(crate) client: u64,
    /// The client's address; None: unknown.
    pub(crate) address: Option<String>,
    pub(crate) request: Request,
}

/// The result of a job.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: u64,
    pub(crate) result: Result<Reply, Refusal>,
    /// What the log says of it; None: nothing.
    pub(crate) event: Option<String>,
}

/// What a job is done with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) dir: PathBuf,
    /// The database of users; None: nobody may log in.
    pub(crate) users: Option<PathBuf>,
}

/// The threads.
pub(crate) struct Workers {
    logins: SyncSender<Job>,
    files: SyncSender<Job>,
    outcomes: Receiver<Outcome>,
    /// Readable while there are outcomes.
    ready: Arc<EventFd>,
}

impl Workers {
    /// Starts the threads, with room for `jobs_max` jobs. The error is the operator's sentence.
    pub(crate) fn start(tools: &Tools, jobs_max: usize) -> Result<Workers, String> {
        let failed = |errno: Errno| format!("eventfd: {}", errno.desc());
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let ready = Arc::new(EventFd::from_value_and_flags(0, flags).map_err(failed)?);
        let (sender, outcomes) = channel();
        let spawn = |queued_max| {
            let (jobs, queue) = sync_channel(queued_max);
            let (tools, sender, ready) = (tools.clone(), sender.clone(), Arc::clone(&ready));
            let work = move || work(&tools, &queue, &sender, &ready);
            thread::Builder::new().spawn(work).map(|_| jobs).map_err(|error| format!("no thread: {error}"))
        };
        Ok(Workers { logins: spawn(LOGINS_QUEUED_MAX)?, files: spawn(jobs_max)?, outcomes, ready })
    }

    /// Queues a job. `Busy`: the queue is full.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Refusal> {
        let is_login = matches!(job.request, Request::Manage { .. });
        let queue = if is_login { &self.logins } else { &self.files };
        queue.try_send(job).map_err(|_| Refusal::Busy)
    }

    /// The descriptor that is readable while there are outcomes.
    pub(crate) fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// All outcomes so far.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        // Before the outcomes are taken, so that none is missed. EAGAIN: there is none.
        let _ = self.ready.read();
        self.outcomes.try_iter().collect()
    }
}

fn work(tools: &Tools, queue: &Receiver<Job>, outcomes: &Sender<Outcome>, ready: &EventFd) {
    while let Ok(Job { client, address, request }) = queue.recv() {
        let done = tools.perform(address.as_deref(), &request);
        let (result, event) = match done {
            Ok((reply, event)) => (Ok(reply), event),
            Err(Failure { refusal, event }) => (Err(refusal), Some(event)),
        };
        if outcomes.send(Outcome { client, result, event }).is_err() {
            return;
        }
        // It fails only if the counter overflows, and then the descriptor is readable.
        let _ = ready.write(1);
    }
}

/// Why a job failed: for the client, and for the log.
struct Failure {
    refusal: Refusal,
    event: String,
}

type Done = Result<(Reply, Option<String>), Failure>;

impl Tools {
    fn perform(&self, address: Option<&str>, request: &Request) -> Done {
        let (authority, now) = (Authority::at(&self.dir), OffsetDateTime::now_utc());
        let issued = |kind: &str, issued: Result<crate::Issued, CaError>| -> Done {
            let issued = issued.map_err(|error| failure(kind, &error))?;
            let certificate = issued.certificate_pem;
            let pem = authority.certificate_pem().map_err(|error| failure(kind, &error))?;
            let event = format!("{kind} of {}: serial {}", issued.name, issued.serial);
            Ok((Reply::Certificate { certificate, authority: pem }, Some(event)))
        };
        match request {
            Request::Enrol { token, csr } => issued("enrolment", authority.enrol(token, csr, now)),
            Request::Extend { certificate, csr } => issued("renewal", authority.extend(certificate, csr, now)),
            Request::Authority => {
                let pem = authority.certificate_pem().map_err(|error| failure("reading of ca.pem", &error))?;
                Ok((Reply::Authority(pem), None))
            }
            Request::Status => Ok((Reply::Status(public(authority.status(now).json())), None)),
            Request::Manage { action, user, password } => {
                let users = self.users.as_deref().ok_or_else(|| refused("login", Refusal::NoUsers))?;
                let user = log_in(users, address, user, password)?;
                match action {
                    Action::Status => Ok((Reply::Status(authority.status(now).json()), None)),
                    Action::Renew => {
                        let renewed = authority.renew(&Renewal::default(), now);
                        let status = renewed.map_err(|error| failure("renewal of the authority", &error))?;
                        let event = format!("renewal of the authority by {}", user.escape_debug());
                        Ok((Reply::Status(status.json()), Some(event)))
                    }
                }
            }
        }
    }
}

/// What the authority's certificate tells anyway.
fn public(status: Value) -> Value {
    let Value::Object(mut fields) = status else { return Value::Null };
    fields.retain(|key, _| PUBLIC_KEYS.contains(&key.as_str()));
    Value::Object(fields)
}

/// The name of a member of the group root.
fn log_in(users: &Path, address: Option<&str>, user: &str, password: &str) -> Result<String, Failure> {
    match authrpc::log_in(users, address, user, password) {
        Ok(login) if login.is_root => Ok(login.name),
        Ok(_) => Err(refused("login", Refusal::Forbidden)),
        Err(LoginError::Wrong) => Err(refused("login", Refusal::Login)),
        Err(LoginError::Wait { wait_ms }) => Err(refused("login", Refusal::Wait { wait_ms })),
        Err(LoginError::Failed(failure)) => {
            Err(Failure { refusal: Refusal::Failed, event: format!("login failed: {}", failure.message) })
        }
    }
}

fn refused(what: &str, refusal: Refusal) -> Failure {
    Failure { event: format!("{what} refused: {refusal}"), refusal }
}

/// Of an error of the authority. A refusal is the client's fault; it may quote what the client sent.
fn failure(what: &str, error: &CaError) -> Failure {
    let refusal = match error {
        CaError::Locked(_) => return Failure { refusal: Refusal::Busy, event: format!("{what} failed: {error}") },
        CaError::Token => Refusal::Token,
        // The operator's sentences have commands and paths.
        CaError::Taken { .. } => Refusal::Refused("the name has a valid certificate: ask the operator".to_owned()),
        CaError::KeyThere(_) => Refusal::Refused("the name has had another key: ask the operator".to_owned()),
        error if error.is_refusal() => Refusal::Refused(error.to_string()),
        error => return Failure { refusal: Refusal::Failed, event: format!("{what} failed: {error}") },
    };
    Failure { event: format!("{what} refused: {}", error.to_string().escape_debug()), refusal }
}
