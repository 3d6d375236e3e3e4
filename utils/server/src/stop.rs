//! SIGTERM and SIGINT ask a server to stop. They are blocked but where the server waits, so that none is lost between
//! a look and the wait, and the socket file is removed.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const SIGNALS: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

static IS_ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: i32) {
    IS_ASKED.store(true, Ordering::Relaxed);
}

/// Blocks the signals, and has them noted where they are let in. The error is the operator's sentence.
pub fn block() -> Result<(), String> {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    SigSet::from_iter(SIGNALS).thread_block().map_err(|errno| format!("sigprocmask: {}", errno.desc()))?;
    for signal in SIGNALS {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.map_err(|errno| format!("sigaction: {}", errno.desc()))?;
    }
    Ok(())
}

/// Whether one came: for servers that let them in with ppoll(2).
pub fn is_asked() -> bool {
    IS_ASKED.load(Ordering::Relaxed)
}

/// Readable once one came: for servers that wait with epoll(7).
pub fn descriptor() -> Result<SignalFd, Errno> {
    SignalFd::with_flags(&SigSet::from_iter(SIGNALS), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
