//! Incomplete UTF-8 characters at the end of a write. The first bytes wait for the next write, as in a proxied server's
//! stream, but only for `CUT_CHARACTER_MS`: the server may write nothing more.
//!
//! The server need not call the library meanwhile, so a thread sends the bytes at the deadline. It exists only while a
//! character waits, blocks all signals, and uses a duplicate of the descriptor, since the server may close its own at
//! any time. If no thread can be started, the bytes are sent at once.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, c_void};
use nix::sys::signal::SigSet;
use server::outgoing::{Outgoing, WriteType};

use crate::client::{Client, flush_cut};
use crate::cut::Cut;
use crate::leaving;
use crate::limits::{CUT_CHARACTER_MS, OWN_FD_MIN};
use crate::lock::Lock;
use crate::real::safe;

struct Timer {
    is_running: bool,
    clients: Vec<&'static Client>,
}

/// Locked during each round of the thread and during fork(2), so that no client is locked by the thread in a child.
static TIMER: Lock<Timer> = Lock::new(Timer { is_running: false, clients: Vec::new() });

/// Called after a write: starts the timer if the write ended with an incomplete character.
pub(crate) fn note(fd: RawFd, client: &'static Client, outgoing: &mut Outgoing) {
    if outgoing.cut_size() > 0 && client.kind() == WriteType::Auto && watch(fd, client).is_err() {
        flush_cut(fd, outgoing);
    }
}

fn watch(fd: RawFd, client: &'static Client) -> Result<(), Errno> {
    let mut cut = client.cut.lock()?;
    let end = Instant::now() + Duration::from_millis(CUT_CHARACTER_MS);
    if let Some(cut) = &mut *cut {
        cut.end = end;
        return Ok(());
    }
    let socket = safe::control(fd, libc::F_DUPFD_CLOEXEC, OWN_FD_MIN)?;
    leaving::begin(socket);
    let new = Cut::new(end, socket);
    let mut timer = TIMER.lock()?;
    if !timer.is_running {
        start()?;
        timer.is_running = true;
    }
    if !timer.clients.iter().any(|one| std::ptr::eq(*one, client)) {
        timer.clients.push(client);
    }
    *cut = Some(new);
    Ok(())
}

/// Starts the thread, with all signals blocked.
fn start() -> Result<(), Errno> {
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    // SAFETY: a pthread_t may be all zeros until pthread_create(3) sets it.
    let mut thread: libc::pthread_t = unsafe { std::mem::zeroed() };
    let no_attributes = std::ptr::null();
    // SAFETY: the pthread_t may be written; the function lives as long as the library, and ignores its argument.
    let error = unsafe { libc::pthread_create(&raw mut thread, no_attributes, run, std::ptr::null_mut()) };
    let _ = before.thread_set_mask();
    if error != 0 {
        return Err(Errno::from_raw(error));
    }
    // SAFETY: the thread was just created, and is never joined.
    unsafe { libc::pthread_detach(thread) };
    Ok(())
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    while let Some(next) = turn() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    std::ptr::null_mut()
}

/// Sends the characters whose deadline has passed. Returns the next deadline; None: nothing waits.
fn turn() -> Option<Instant> {
    let mut timer = TIMER.lock().ok()?;
    let mut next = None::<Instant>;
    timer.clients.retain(|client| match look(client) {
        Some(end) => {
            next = Some(next.map_or(end, |next| next.min(end)));
            true
        }
        None => false,
    });
    timer.is_running = next.is_some();
    next
}

/// Sends this client's character if its deadline has passed. Returns the deadline; None: nothing waits.
fn look(client: &'static Client) -> Option<Instant> {
    let later = || Some(Instant::now() + Duration::from_millis(CUT_CHARACTER_MS));
    // A writer may be waiting for the timer's lock, which this thread holds: do not wait for the writer.
    let Some(mut outgoing) = client.outgoing.try_lock() else { return later() };
    let Some(mut place) = client.cut.try_lock() else { return later() };
    let cut = place.as_ref()?;
    if outgoing.cut_size() > 0 && cut.end > Instant::now() {
        return Some(cut.end);
    }
    let cut = place.take()?;
    drop(place);
    if !cut.is_open() {
        return None;
    }
    flush_cut(cut.socket, &mut outgoing);
    client.send_answers(cut.socket, &mut outgoing);
    None
}

/// Before a fork: waits for the end of the thread's round, and prevents the next one.
pub(crate) fn before_fork() {
    if let Ok(timer) = TIMER.lock() {
        Lock::keep(timer);
    }
}

/// In the parent, after a fork.
pub(crate) extern "C" fn after_fork_in_parent() {
    TIMER.unlock_kept();
}

/// In the child of a fork, which has these clients: there is no thread, and the parent sends what waits.
pub(crate) fn in_child(clients: impl Iterator<Item = &'static Client>) {
    TIMER.unlock_kept();
    if let Some(mut timer) = TIMER.try_lock() {
        *timer = Timer { is_running: false, clients: Vec::new() };
    }
    for client in clients {
        if let Some(mut cut) = client.cut.try_lock() {
            *cut = None;
        }
        if let Some(mut outgoing) = client.outgoing.try_lock() {
            outgoing.drop_cut();
        }
    }
}
