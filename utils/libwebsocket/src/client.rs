//! One client: the state shared by all its file descriptors.
//!
//! A client is never freed but reused. A thread that still uses a client after another thread has closed its descriptor
//! sees another client, never freed memory.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;
use rfc6455::close::CloseCode;
use server::handover::ClientAddress;
use server::outgoing::{Outgoing, WriteType};

use crate::cut::Cut;
use crate::early_writes::EarlyWrites;
use crate::incoming::Incoming;
use crate::ledger::{self, Place};
use crate::lock::{Guard, Lock};
use crate::real::safe;
use crate::watches::Watches;

/// Control frames to be sent for what was read. If a writer is blocked in a send, that thread sends them.
#[derive(Default)]
struct Answers {
    pong: Option<Box<[u8]>>,
    close: Option<CloseCode>,
}

/// A client, or a connection on which a hand-over may still arrive.
pub(crate) struct Client {
    /// Number of file descriptors of this process that refer to it.
    pub(crate) fds: AtomicUsize,
    /// The hand-over has arrived. Else it may still arrive.
    pub(crate) is_handed_over: AtomicBool,
    /// The kernel does TLS on its socket. Set before `is_handed_over`.
    pub(crate) is_tls: AtomicBool,
    /// Message type: an index of `KINDS`.
    kind: AtomicU8,
    /// Inode of its socket, which no other open socket has; 0: not set yet.
    inode: AtomicUsize,
    /// Inode of the socket that is about to replace it; 0: none.
    next_inode: AtomicUsize,
    /// Address from the hand-over; None before it.
    pub(crate) address: Lock<Option<ClientAddress>>,
    pub(crate) incoming: Lock<Incoming>,
    pub(crate) outgoing: Lock<Outgoing>,
    /// A thread of the server is blocked in a send with `outgoing` locked.
    pub(crate) is_blocked: AtomicBool,
    /// Meanwhile, a non-blocking write of another thread failed with EAGAIN.
    pub(crate) is_refused: AtomicBool,
    /// An incomplete UTF-8 character at the end of a write, and its deadline.
    pub(crate) cut: Lock<Option<Cut>>,
    /// Writes before the hand-over.
    pub(crate) early: Lock<EarlyWrites>,
    /// Its entry in the ledger. Locked only to be copied: see `place()`.
    pub(crate) place: Lock<Option<Place>>,
    /// Epoll instances that watch it.
    pub(crate) watches: Lock<Watches>,
    answers: Lock<Answers>,
}

const KINDS: [WriteType; 4] = [WriteType::Binary, WriteType::UncheckedText, WriteType::Auto, WriteType::Text];

/// Clients to be reused.
static FREE: Lock<Vec<&'static Client>> = Lock::new(Vec::new());

impl Default for Client {
    fn default() -> Client {
        Client {
            fds: AtomicUsize::new(1),
            is_handed_over: AtomicBool::new(false),
            is_tls: AtomicBool::new(false),
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
    /// A client with one file descriptor. The caller must call `set_socket` next.
    pub(crate) fn new(kind: WriteType) -> &'static Client {
        let used = FREE.lock().ok().and_then(|mut free| free.pop());
        let client = used.unwrap_or_else(|| Box::leak(Box::default()));
        let place = KINDS.iter().position(|one| *one == kind).unwrap_or_default();
        client.kind.store(place as u8, Ordering::Relaxed);
        client.is_handed_over.store(false, Ordering::Relaxed);
        client.is_tls.store(false, Ordering::Relaxed);
        client.inode.store(0, Ordering::Relaxed);
        client.next_inode.store(0, Ordering::Relaxed);
        client.fds.store(1, Ordering::Release);
        client
    }

    /// Returns it for reuse after its last file descriptor in this process was closed.
    pub(crate) fn release(&'static self) {
        self.finish_cut();
        // If a lock was lost in a fork, or a thread still holds one, the client is leaked.
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

    /// Sends the bytes of an incomplete character now.
    fn finish_cut(&self) {
        let Some(cut) = self.cut.try_lock().and_then(|mut cut| cut.take()) else { return };
        if let (true, Ok(mut outgoing)) = (cut.is_open(), self.outgoing_now()) {
            flush_cut(cut.socket, &mut outgoing);
        }
    }

    /// Announces that its descriptors are about to refer to the socket of `fd`. `set_socket` must follow.
    pub(crate) fn set_next_socket(&self, fd: RawFd) {
        self.next_inode.store(safe::socket_inode(fd).unwrap_or(0), Ordering::Release);
    }

    /// Notes that its descriptors refer to the socket of `fd`.
    pub(crate) fn set_socket(&self, fd: RawFd) {
        self.inode.store(safe::socket_inode(fd).unwrap_or(0), Ordering::Release);
        self.next_inode.store(0, Ordering::Release);
    }

    /// Whether `fd` refers to its socket. A number that was closed without close(3) may belong to another file.
    pub(crate) fn is_reached_by(&self, fd: RawFd) -> bool {
        let inode = safe::socket_inode(fd);
        inode.is_some_and(|inode| {
            inode == self.inode.load(Ordering::Acquire) || inode == self.next_inode.load(Ordering::Acquire)
        })
    }

    /// Whether the hand-over has arrived.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }

    /// Whether the kernel does TLS on its socket.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls.load(Ordering::Relaxed)
    }

    /// The message type.
    pub(crate) fn kind(&self) -> WriteType {
        KINDS[usize::from(self.kind.load(Ordering::Relaxed)) % KINDS.len()]
    }

    /// Locks the sending side. EAGAIN: the owner of the lock is blocked in a send.
    pub(crate) fn outgoing_now(&self) -> Result<Guard<'_, Outgoing>, Errno> {
        self.outgoing.lock_while(|| !self.is_blocked.load(Ordering::SeqCst))
    }

    /// Answers a ping as soon as possible.
    pub(crate) fn pong(&self, fd: RawFd, payload: Box<[u8]>) {
        if let Ok(mut answers) = self.answers.lock() {
            answers.pong = Some(payload);
        }
        self.settle(fd);
    }

    /// Its entry in the ledger, if it has one.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place.try_lock().and_then(|place| *place)
    }

    /// Claims the close frame for this process. False: another process has sent it.
    pub(crate) fn claim_close_frame(&self) -> bool {
        self.place().is_none_or(ledger::claim_close_frame)
    }

    /// Notes that the client's close frame was read, with this code.
    pub(crate) fn note_close_frame(&self, code: Option<CloseCode>) {
        if let Some(place) = self.place() {
            ledger::note_close_code(place, code);
        }
    }

    /// Sends a close frame with this code as soon as possible.
    pub(crate) fn close(&self, fd: RawFd, code: CloseCode) {
        if !self.claim_close_frame() {
            return;
        }
        if let Ok(mut answers) = self.answers.lock() {
            answers.close = Some(code);
        }
        self.settle(fd);
    }

    /// Sends queued control frames, without blocking. If a thread is blocked in a send, it calls this after its write.
    pub(crate) fn settle(&self, fd: RawFd) {
        if let Ok(mut outgoing) = self.outgoing_now() {
            self.send_answers(fd, &mut outgoing);
        }
    }

    /// Like `settle`, for a caller that has locked the sending side.
    pub(crate) fn send_answers(&self, fd: RawFd, outgoing: &mut Outgoing) {
        // The owner of the lock is adding an answer, and calls `settle` after that.
        let Some(answers) = self.answers.try_lock().map(|mut answers| std::mem::take(&mut *answers)) else { return };
        if let Some(payload) = answers.pong {
            outgoing.pong(&payload);
        }
        if let Some(code) = answers.close {
            outgoing.close(Some(code), "");
        }
        flush_now(fd, outgoing);
    }

    /// In the child of a fork: marks locks that other threads held as lost.
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

/// Sends queued bytes without blocking. The rest is sent before the next write, if there is one. Errors are ignored:
/// the server's next call gets them from the kernel.
pub(crate) fn flush_now(fd: RawFd, outgoing: &mut Outgoing) {
    let _ = outgoing.flush(|parts| safe::send(fd, parts, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL));
}

/// Sends the bytes of an incomplete character, without blocking.
pub(crate) fn flush_cut(fd: RawFd, outgoing: &mut Outgoing) {
    outgoing.give_up_cut();
    flush_now(fd, outgoing);
}

/// In the child of a fork: the same for the list of free clients.
pub(crate) fn lose() {
    FREE.lose();
}
