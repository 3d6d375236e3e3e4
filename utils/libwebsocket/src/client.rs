//! One client: what all file descriptors of it have in common.
//!
//! A client is never freed but used again, so that a thread that still looks at one whose file descriptor another thread
//! has closed sees another client, and never memory that is something else.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;
use server::handover::ClientAddress;
use server::outgoing::{Outgoing, WriteType};
use uakari::websocket::close::CloseCode;

use crate::arrival::EarlyWrites;
use crate::cut::{self, Cut};
use crate::incoming::Incoming;
use crate::ledger::{self, Place};
use crate::lock::{Guard, Lock};
use crate::real::safe;
use crate::waiting::epoll::Watches;

/// What the reader wants to be sent. It leaves it to a thread that waits for the client.
#[derive(Default)]
struct Answers {
    pong: Option<Box<[u8]>>,
    close: Option<CloseCode>,
}

/// A client, or a connection by which one may still be handed over.
pub(crate) struct Client {
    /// How many file descriptors of this process are it.
    pub(crate) fds: AtomicUsize,
    /// It was handed over. Else it is still to be found out whether it will be.
    pub(crate) is_handed_over: AtomicBool,
    /// What messages to it are sent as: a place in `KINDS`.
    kind: AtomicU8,
    /// The inode of the socket that its file descriptors lead to; 0: none yet. No two open sockets have the same one.
    inode: AtomicUsize,
    /// The same of the socket that is being put there; 0: none is.
    next_inode: AtomicUsize,
    /// Its address, as the gateway gave it; None before the hand-over.
    pub(crate) address: Lock<Option<ClientAddress>>,
    /// What it sends.
    pub(crate) incoming: Lock<Incoming>,
    /// What is sent to it.
    pub(crate) outgoing: Lock<Outgoing>,
    /// A thread of the server waits in the kernel with `outgoing` locked, as long as the client takes nothing.
    pub(crate) is_blocked: AtomicBool,
    /// Another one was told meanwhile that it would have to wait.
    pub(crate) is_refused: AtomicBool,
    /// A character that the end of a write cut, and its time.
    pub(crate) cut: Lock<Option<Cut>>,
    /// What was written before it was here.
    pub(crate) early: Lock<EarlyWrites>,
    /// Its place in the ledger. Held for a copy alone: see `place()`.
    pub(crate) place: Lock<Option<Place>>,
    /// Who watches it.
    pub(crate) watches: Lock<Watches>,
    answers: Lock<Answers>,
}

const KINDS: [WriteType; 4] = [WriteType::Binary, WriteType::UncheckedText, WriteType::Auto, WriteType::Text];

/// Those that are not used.
static FREE: Lock<Vec<&'static Client>> = Lock::new(Vec::new());

impl Default for Client {
    fn default() -> Client {
        Client {
            fds: AtomicUsize::new(1),
            is_handed_over: AtomicBool::new(false),
            kind: AtomicU8::new(0),
            inode: AtomicUsize::new(0),
            next_inode: AtomicUsize::new(0),
            address: Lock::new(None),
            incoming: Lock::new(Incoming::default()),
            outgoing: Lock::new(Outgoing::new()),
            is_blocked: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            cut: Lock::new(None),
            early: Lock::new(EarlyWrites::default()),
            place: Lock::new(None),
            watches: Lock::new(Watches::new()),
            answers: Lock::new(Answers::default()),
        }
    }
}

impl Client {
    /// One that has a single file descriptor, and no socket yet: `set_socket` follows.
    pub(crate) fn new(kind: WriteType) -> &'static Client {
        let used = FREE.lock().ok().and_then(|mut free| free.pop());
        let client = used.unwrap_or_else(|| Box::leak(Box::default()));
        let place = KINDS.iter().position(|one| *one == kind).unwrap_or_default();
        client.kind.store(place as u8, Ordering::Relaxed);
        client.is_handed_over.store(false, Ordering::Relaxed);
        client.inode.store(0, Ordering::Relaxed);
        client.next_inode.store(0, Ordering::Relaxed);
        client.fds.store(1, Ordering::Release);
        client
    }

    /// Its last file descriptor in this process is gone.
    pub(crate) fn release(&'static self) {
        cut::finish(self);
        // Where a lock was lost, or is held by a thread that does not know yet, it is given up.
        let (
            Some(mut incoming),
            Ok(mut outgoing),
            Some(mut early),
            Some(mut answers),
            Some(mut watches),
            Some(mut address),
        ) = (
            self.incoming.try_lock(),
            self.outgoing_now(),
            self.early.try_lock(),
            self.answers.try_lock(),
            self.watches.try_lock(),
            self.address.try_lock(),
        )
        else {
            return;
        };
        (*incoming, *outgoing, *early, *answers) =
            (Incoming::default(), Outgoing::new(), EarlyWrites::default(), Answers::default());
        watches.clear();
        *address = None;
        drop((incoming, outgoing, early, answers, watches, address));
        if let Ok(mut free) = FREE.lock() {
            free.push(self);
        }
    }

    /// Its file descriptors are about to lead to the socket that `fd` leads to; `set_socket` follows.
    pub(crate) fn set_next_socket(&self, fd: RawFd) {
        self.next_inode.store(safe::socket_inode(fd).unwrap_or(0), Ordering::Release);
    }

    /// Its file descriptors lead to the socket that `fd` leads to.
    pub(crate) fn set_socket(&self, fd: RawFd) {
        self.inode.store(safe::socket_inode(fd).unwrap_or(0), Ordering::Release);
        self.next_inode.store(0, Ordering::Release);
    }

    /// Whether `fd` leads to its socket. A file descriptor that was closed without close(3) may be another file's.
    pub(crate) fn is_reached_by(&self, fd: RawFd) -> bool {
        let inode = safe::socket_inode(fd);
        inode.is_some_and(|inode| {
            inode == self.inode.load(Ordering::Acquire) || inode == self.next_inode.load(Ordering::Acquire)
        })
    }

    /// Whether it was handed over.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }

    /// What messages to it are sent as.
    pub(crate) fn kind(&self) -> WriteType {
        KINDS[usize::from(self.kind.load(Ordering::Relaxed)) % KINDS.len()]
    }

    /// Locks its sending side, but does not wait for a thread that waits for the client. EAGAIN: one does.
    pub(crate) fn outgoing_now(&self) -> Result<Guard<'_, Outgoing>, Errno> {
        self.outgoing.lock_while(|| !self.is_blocked.load(Ordering::SeqCst))
    }

    /// Answers a ping as soon as that can be.
    pub(crate) fn pong(&self, fd: RawFd, payload: Box<[u8]>) {
        if let Ok(mut answers) = self.answers.lock() {
            answers.pong = Some(payload);
        }
        self.settle(fd);
    }

    /// Its place in the ledger, if it has one.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place.try_lock().and_then(|place| *place)
    }

    /// Whether this process may send the close frame: none other has.
    pub(crate) fn claim_close_frame(&self) -> bool {
        self.place().is_none_or(ledger::claim_close_frame)
    }

    /// Its close frame was read, with this code.
    pub(crate) fn note_close_frame(&self, code: Option<CloseCode>) {
        if let Some(place) = self.place() {
            ledger::note_close_code(place, code);
        }
    }

    /// Closes with this code as soon as that can be.
    pub(crate) fn close(&self, fd: RawFd, code: CloseCode) {
        if !self.claim_close_frame() {
            return;
        }
        if let Ok(mut answers) = self.answers.lock() {
            answers.close = Some(code);
        }
        self.settle(fd);
    }

    /// Sends the answers that wait. Where a thread waits for the client, they are left to it: it calls this behind its
    /// write. Never waits for the kernel.
    pub(crate) fn settle(&self, fd: RawFd) {
        if let Ok(mut outgoing) = self.outgoing_now() {
            self.send_answers(fd, &mut outgoing);
        }
    }

    /// As `settle`, by who has locked the sending side.
    pub(crate) fn send_answers(&self, fd: RawFd, outgoing: &mut Outgoing) {
        // Whoever holds it adds an answer, and settles it.
        let Some(answers) = self.answers.try_lock().map(|mut answers| std::mem::take(&mut *answers)) else { return };
        if let Some(payload) = answers.pong {
            outgoing.pong(&payload);
        }
        if let Some(code) = answers.close {
            outgoing.close(Some(code), "");
        }
        flush_now(fd, outgoing);
    }

    /// In the child of a fork: what other threads held is lost.
    pub(crate) fn lose(&self) {
        self.incoming.lose();
        self.outgoing.lose();
        self.cut.lose();
        self.early.lose();
        self.place.lose();
        self.watches.lose();
        self.answers.lose();
        self.address.lose();
    }
}

/// Sends what waits, without waiting for the client. What cannot go now goes before the next write, or never; the
/// connection tells its own errors.
pub(crate) fn flush_now(fd: RawFd, outgoing: &mut Outgoing) {
    let _ = outgoing.flush(|parts| safe::send(fd, parts, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL));
}

/// In the child of a fork: the same for the list of clients.
pub(crate) fn lose() {
    FREE.lose();
}
