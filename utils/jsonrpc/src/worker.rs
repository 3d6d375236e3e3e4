//! The worker process of a connection: this program once more, which runs the library. It may crash, hang or leak
//! without any effect on other connections.

use std::fs::File;
use std::io::{self, Write, stdin};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{SysconfVar, dup2_stdin, sysconf};
use server::options::complain;
use server::start::become_user;

use crate::NAME;
use crate::library::{Library, Session};
use crate::limits::{PROCESS_FDS_MAX, PROCESS_HIGH_PERCENT, PROCESS_SPACE_FACTOR};
use crate::request::Outcome;
use crate::wire::{Connection, Kind, put, receive};

/// First argument of a worker process.
pub(crate) const FLAG: &str = "--worker";

/// Serves one connection with this library until it ends, within `memory_mib`.
pub(crate) fn run(path: &str, memory_mib: u64) -> ExitCode {
    let mut socket = match take_socket() {
        Ok(socket) => socket,
        Err(error) => {
            complain(NAME, format_args!("{FLAG} is internal: leave it out ({error})"));
            return ExitCode::FAILURE;
        }
    };
    let status = i32::from(serve(&mut socket, path, memory_mib << 20).is_err());
    // The socket is still open: its end tells the server that the process has exited, with the library's exit handlers.
    std::process::exit(status)
}

/// The connection to the server, which was standard input. Libraries find /dev/null there.
fn take_socket() -> io::Result<UnixStream> {
    let socket = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
    socket.local_addr()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket)
}

fn serve(socket: &mut UnixStream, path: &str, memory_size: u64) -> io::Result<()> {
    set_limits(memory_size)?;
    let mut session = None;
    while let Some((kind, body)) = receive(socket)? {
        match kind {
            Kind::Start => {
                let (kind, text) = match start(path, &body) {
                    Ok(()) => (Kind::LastResult, String::new()),
                    Err(sentence) => (Kind::LastError, sentence),
                };
                return answer(socket, kind, &text);
            }
            Kind::Open => session = Some(open(path, &body)),
            Kind::Call => match &mut session {
                Some(Ok(open)) => {
                    let outcome = call(open, &body);
                    drop(body);
                    let is_last = is_too_large(memory_size);
                    let (kind, text) = match &outcome {
                        Outcome::Result(text) if is_last => (Kind::LastResult, text),
                        Outcome::Result(text) => (Kind::Result, text),
                        Outcome::Error(text) if is_last => (Kind::LastError, text),
                        Outcome::Error(text) => (Kind::Error, text),
                    };
                    // After a failure the library's session is still closed.
                    if answer(socket, kind, text).is_err() || is_last {
                        break;
                    }
                }
                Some(Err(error)) => return answer(socket, Kind::LastError, error),
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            Kind::Result | Kind::Error | Kind::LastResult | Kind::LastError => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
    if let Some(Ok(session)) = session {
        session.close();
    }
    Ok(())
}

fn start(path: &str, body: &[u8]) -> Result<(), String> {
    let connection = read_connection(body);
    if let Some(user) = &connection.user {
        become_user(user)?;
    }
    prepare(&connection);
    Library::load(path)?.start(&connection)
}

/// The error is the JSON text of an error object.
fn open(path: &str, body: &[u8]) -> Result<Session, String> {
    let connection = read_connection(body);
    prepare(&connection);
    let library = Library::load(path).map_err(|sentence| {
        complain(NAME, sentence);
        crate::request::error(jsonrpc_library::abi::INTERNAL_ERROR, "", None)
    })?;
    library.open(&connection)
}

fn call(session: &mut Session, body: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(body);
    match text.split_once('\0') {
        Some((method, "")) => session.call(method, None),
        Some((method, params)) => session.call(method, Some(params)),
        None => Outcome::Error(crate::request::error(jsonrpc_library::abi::INTERNAL_ERROR, "", None)),
    }
}

fn answer(socket: &mut UnixStream, kind: Kind, text: &str) -> io::Result<()> {
    let mut bytes = Vec::new();
    put(&mut bytes, kind, &[text.as_bytes()]);
    socket.write_all(&bytes)
}

/// The server has written it, so that it is valid.
fn read_connection(body: &[u8]) -> Connection {
    serde_json::from_slice(body).unwrap_or_default()
}

fn prepare(connection: &Connection) {
    if let Some(folder) = &connection.folder {
        // Only relative paths need it. It fails where the user has no access.
        let _ = std::env::set_current_dir(folder);
    }
    // Only now, since changing the user resets it. If the server has ended before this, the socket reports it.
    let _ = set_pdeathsig(Signal::SIGKILL);
}

/// Limits memory, and crashes without a core file. Resets signals: the server blocks some, and Rust's handler of stack
/// overflows would return from SIGSEGV and SIGBUS.
#[allow(clippy::useless_conversion, reason = "rlim_t has 32 bits on some machines")]
fn set_limits(memory_size: u64) -> io::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_DATA, memory_size),
        (Resource::RLIMIT_AS, memory_size.saturating_mul(PROCESS_SPACE_FACTOR)),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, PROCESS_FDS_MAX),
    ] {
        let (_, hard) = getrlimit(resource)?;
        // A value that does not fit exceeds the address space; the maximum is RLIM_INFINITY.
        setrlimit(resource, rlim_t::try_from(most).unwrap_or(rlim_t::MAX).min(hard), hard)?;
    }
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the default action installs no function.
        unsafe { sigaction(signal, &SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty())) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Whether the memory used may not be enough for further calls.
fn is_too_large(memory_size: u64) -> bool {
    let Ok(Some(page_size)) = sysconf(SysconfVar::PAGE_SIZE) else { return false };
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    // The sixth field: what RLIMIT_DATA counts, and the stack (proc_pid_statm(5)).
    let pages: Option<u64> = statm.split(' ').nth(5).and_then(|pages| pages.parse().ok());
    pages.is_some_and(|pages| pages.saturating_mul(page_size as u64) > memory_size / 100 * PROCESS_HIGH_PERCENT)
}
