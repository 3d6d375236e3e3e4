//! A character that the end of a write cut. Its first bytes wait for the next write, as the gateway has them wait in a
//! proxied server's stream; but not for long, since the server may have nothing more to say and its client may wait.
//!
//! A server need not call anything of the library meanwhile, so that a thread looks at the clock. It is there only
//! while a character waits, has all signals blocked, and sends by a file descriptor of its own: the server may close
//! its own at any time. Where the thread cannot be had, nothing waits.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, c_void};
use nix::sys::signal::SigSet;
use server::outgoing::{Outgoing, WriteType};

use crate::client::{Client, flush_now};
use crate::leaving;
use crate::limits::{CUT_CHARACTER_MS, OWN_FD_MIN};
use crate::lock::Lock;
use crate::real::safe;

/// A character that waits.
#[derive(Debug)]
pub(crate) struct Cut {
    end: Instant,
    socket: RawFd,
    inode: Option<usize>,
}

impl Cut {
    /// Whether its file descriptor still leads to the client's socket: a server may have closed all that there are.
    fn is_open(&self) -> bool {
        self.inode.is_some() && safe::socket_inode(self.socket) == self.inode
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if self.is_open() {
            let _ = safe::close_fd(self.socket);
        }
    }
}

struct Timer {
    is_running: bool,
    clients: Vec<&'static Client>,
}

/// Held through each round of the thread, and through a fork: no child finds a client that the thread has locked.
static TIMER: Lock<Timer> = Lock::new(Timer { is_running: false, clients: Vec::new() });

/// Behind a write: where it has cut a character, its time begins.
pub(crate) fn note(fd: RawFd, client: &'static Client, outgoing: &mut Outgoing) {
    if outgoing.cut_size() > 0 && client.kind() == WriteType::Auto && watch(fd, client).is_err() {
        flush(fd, outgoing);
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
    let new = Cut { end, socket, inode: safe::socket_inode(socket) };
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

/// Sends what there is of a character.
fn flush(fd: RawFd, outgoing: &mut Outgoing) {
    outgoing.give_up_cut();
    flush_now(fd, outgoing);
}

/// This process is done with the client: what waits goes now, by whichever process it was written.
pub(crate) fn finish(client: &'static Client) {
    let Some(cut) = client.cut.try_lock().and_then(|mut cut| cut.take()) else { return };
    if let (true, Ok(mut outgoing)) = (cut.is_open(), client.outgoing_now()) {
        flush(cut.socket, &mut outgoing);
    }
}

/// A thread of its own, which no signal of the server's interrupts.
fn start() -> Result<(), Errno> {
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    // SAFETY: a thread's number may be all zeros before it is known.
    let mut thread: libc::pthread_t = unsafe { std::mem::zeroed() };
    let no_attributes = std::ptr::null();
    // SAFETY: the number may be written; the function lives as long as the library, and takes no argument.
    let error = unsafe { libc::pthread_create(&raw mut thread, no_attributes, run, std::ptr::null_mut()) };
    let _ = before.thread_set_mask();
    if error != 0 {
        return Err(Errno::from_raw(error));
    }
    // SAFETY: it was just made, and nobody joins it.
    unsafe { libc::pthread_detach(thread) };
    Ok(())
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    while let Some(next) = turn() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    std::ptr::null_mut()
}

/// Sends what has waited long enough. When to come again; None: nothing waits any more.
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

/// When this one's time is over; None: nothing waits any more.
fn look(client: &'static Client) -> Option<Instant> {
    let later = || Some(Instant::now() + Duration::from_millis(CUT_CHARACTER_MS));
    // A thread that writes may wait for this one, which holds the timer: this one does not wait for it.
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
    flush(cut.socket, &mut outgoing);
    client.send_answers(cut.socket, &mut outgoing);
    None
}

/// Before a fork: no round of the thread is under way until it is over.
pub(crate) fn before_fork() {
    if let Ok(timer) = TIMER.lock() {
        Lock::keep(timer);
    }
}

/// In the parent, behind a fork.
pub(crate) extern "C" fn after_fork_in_parent() {
    TIMER.unlock_kept();
}

/// In the child of a fork: the thread is not there, and what waits is the parent's to send. `clients` are those that the
/// child has.
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
