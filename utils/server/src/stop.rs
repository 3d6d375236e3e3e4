//! SIGTERM and SIGINT stop a server. They are blocked except while it waits, so that none is lost between the check and
//! the wait, and the socket file is removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use websocket::deadline::Deadline;

const SIGNALS: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

static IS_REQUESTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: i32) {
    IS_REQUESTED.store(true, Ordering::Relaxed);
}

/// Blocks the signals and installs their handler. The error is the operator's sentence.
pub(crate) fn block() -> Result<(), String> {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    SigSet::from_iter(SIGNALS).thread_block().map_err(|errno| format!("sigprocmask: {}", errno.desc()))?;
    for signal in SIGNALS {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.map_err(|errno| format!("sigaction: {}", errno.desc()))?;
    }
    Ok(())
}

/// Whether a signal arrived. For servers that wait with [`wait`].
pub fn is_requested() -> bool {
    IS_REQUESTED.load(Ordering::Relaxed)
}

/// A descriptor that is readable after a signal. For servers that wait with epoll(7).
pub fn descriptor() -> Result<SignalFd, Errno> {
    SignalFd::with_flags(&SigSet::from_iter(SIGNALS), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Waits with ppoll(2) for an event, a stop signal or the first deadline. Returns the events of each descriptor; after a
/// signal there are none. The error is the operator's sentence.
pub fn wait(fds: &mut [PollFd<'_>], deadlines: impl Iterator<Item = Deadline>) -> Result<Vec<PollFlags>, String> {
    let left_ms = deadlines.filter_map(|deadline| deadline.timeout().as_millis()).min();
    let timeout = left_ms.map(|left_ms| TimeSpec::from(Duration::from_millis(left_ms.into())));
    match ppoll(fds, timeout, Some(SigSet::empty())) {
        Ok(_) => Ok(fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect()),
        Err(Errno::EINTR) => Ok(vec![PollFlags::empty(); fds.len()]),
        Err(errno) => Err(format!("poll: {}", errno.desc())),
    }
}
