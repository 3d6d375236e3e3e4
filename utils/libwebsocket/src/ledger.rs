//! Which processes have which client, so that the last one to close it can say goodbye.
//!
//! A server may fork for each client: the parent's close is not the end then. The ledger is a file in memory, shared by
//! all processes that come of the one which made it; each holds a lock on the byte of each client that it has. These are
//! the locks of fcntl(2) that belong to a process, so that the kernel frees them where a process dies, or becomes another
//! program. A forked child takes its locks only when it runs: until then it is counted among the expected.
//!
//! The process that closes last need not be the one that read the client's close frame. So what that frame said is in
//! the ledger too: the close code belongs to the client, not to a process.

use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_short};
use uakari::websocket::close::CloseCode;

use crate::limits::{LEDGER_ENTRIES, OWN_FD_MIN};
use crate::lock::Lock;
use crate::real::{self, safe};

/// A client's entry: its byte in the file, and the ticket that tells it from the clients that had this byte before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    index: usize,
    ticket: u32,
}

struct Book {
    /// The newest ticket.
    ticket: AtomicU32,
    /// The ticket of the client that has this entry; 0: the entry is free.
    taken: [AtomicU32; LEDGER_ENTRIES],
    /// Children that are being forked with this client.
    expected: [AtomicU16; LEDGER_ENTRIES],
    /// 1: no close frame may be sent any more.
    claimed: [AtomicU16; LEDGER_ENTRIES],
    /// What the client's close frame said: its code, or `NO_CODE`; 0: none has been read.
    close_codes: [AtomicU16; LEDGER_ENTRIES],
}

/// A close frame without a code: RFC 6455 section 7.4.1 keeps this number for it.
const NO_CODE: u16 = 1005;

static FILE: AtomicI32 = AtomicI32::new(-1);
static BOOK: AtomicPtr<Book> = AtomicPtr::new(null_mut());
static MAKING: Lock<()> = Lock::new(());
/// Where the search for a free byte begins.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn book() -> Option<&'static Book> {
    // SAFETY: it is null, or was mapped for ever with the size of a book; zeros are one.
    unsafe { BOOK.load(Ordering::Acquire).as_ref() }
}

/// The ledger's file descriptor, which servers that close all there are must leave open; -1: there is none.
pub(crate) fn fd() -> RawFd {
    FILE.load(Ordering::Relaxed)
}

fn make() -> Option<&'static Book> {
    let _guard = MAKING.lock().ok()?;
    if let Some(book) = book() {
        return Some(book);
    }
    // SAFETY: the name ends with a NUL.
    let made = unsafe { libc::memfd_create(c"libwebsocket".as_ptr(), libc::MFD_CLOEXEC) };
    let made = Errno::result(made).ok()?;
    let file = match safe::control(made, libc::F_DUPFD_CLOEXEC, OWN_FD_MIN) {
        Ok(high) => {
            let _ = safe::close_fd(made);
            high
        }
        Err(_) => made,
    };
    let size = size_of::<Book>();
    // SAFETY: the file is this function's.
    Errno::result(unsafe { libc::ftruncate(file, size as libc::off_t) }).ok()?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, which replaces none.
    let mapped = unsafe { libc::mmap(null_mut(), size, protection, libc::MAP_SHARED, file, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    FILE.store(file, Ordering::Relaxed);
    BOOK.store(mapped.cast(), Ordering::Release);
    book()
}

fn set_lock(place: Place, kind: c_int) -> Result<(), Errno> {
    // SAFETY: a lock's description may be all zeros.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as c_short;
    lock.l_whence = libc::SEEK_SET as c_short;
    lock.l_start = place.index as libc::off_t;
    lock.l_len = 1;
    let argument = &raw const lock;
    // SAFETY: the command takes a pointer to a lock's description.
    Errno::result(unsafe { real::fcntl(fd(), libc::F_SETLK, argument.addr() as libc::c_ulong) }).map(drop)
}

/// A byte for a client that has just come; None where there is none left.
pub(crate) fn enter() -> Option<Place> {
    let book = book().or_else(make)?;
    let start = NEXT.fetch_add(1, Ordering::Relaxed);
    (0..LEDGER_ENTRIES).map(|turn| (start + turn) % LEDGER_ENTRIES).find_map(|index| occupy(book, index))
}

/// None: the entry is another client's, or one that a process is just leaving.
fn occupy(book: &Book, index: usize) -> Option<Place> {
    if book.taken[index].load(Ordering::Relaxed) != 0 {
        return None;
    }
    let ticket = book.ticket.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
    book.taken[index].compare_exchange(0, ticket, Ordering::AcqRel, Ordering::Relaxed).ok()?;
    book.claimed[index].store(0, Ordering::Relaxed);
    book.close_codes[index].store(0, Ordering::Relaxed);
    let place = Place { index, ticket };
    match set_lock(place, libc::F_RDLCK) {
        Ok(()) => Some(place),
        Err(_) => {
            book.taken[index].store(0, Ordering::Release);
            None
        }
    }
}

/// This process has closed the client. Does `last` where no other process has it; then none will, as the lock is this
/// one's alone.
pub(crate) fn leave(place: Place, last: impl FnOnce()) {
    let Some(book) = book() else { return };
    // Its own lock goes first: of two processes that leave at once, one at least finds the other gone.
    let _ = set_lock(place, libc::F_UNLCK);
    let is_expected = book.expected[place.index].load(Ordering::Acquire) > 0;
    if is_expected || set_lock(place, libc::F_WRLCK).is_err() {
        return;
    }
    // The other one may have been here already, and the next client may have the entry.
    if book.taken[place.index].load(Ordering::Acquire) == place.ticket {
        last();
        book.taken[place.index].store(0, Ordering::Release);
    }
    let _ = set_lock(place, libc::F_UNLCK);
}

/// Claims the last word for this process. False: another one has had it.
pub(crate) fn claim_close_frame(place: Place) -> bool {
    book().is_some_and(|book| book.claimed[place.index].swap(1, Ordering::AcqRel) == 0)
}

/// Notes what the client's close frame said, for whichever process closes last.
pub(crate) fn note_close_code(place: Place, code: Option<CloseCode>) {
    if let Some(book) = book() {
        book.close_codes[place.index].store(code.map_or(NO_CODE, |code| code.0), Ordering::Release);
    }
}

/// What the client's close frame said, whichever process has read it; None: none has been read.
pub(crate) fn close_code(place: Place) -> Option<Option<CloseCode>> {
    match book()?.close_codes[place.index].load(Ordering::Acquire) {
        0 => None,
        NO_CODE => Some(None),
        code => Some(Some(CloseCode(code))),
    }
}

/// In the parent, before a fork.
pub(crate) fn expect_child(place: Place) {
    if let Some(book) = book() {
        book.expected[place.index].fetch_add(1, Ordering::AcqRel);
    }
}

/// In the child, behind the fork.
pub(crate) fn enter_child(place: Place) {
    let Some(book) = book() else { return };
    if set_lock(place, libc::F_RDLCK).is_ok() {
        book.expected[place.index].fetch_sub(1, Ordering::AcqRel);
    }
}

/// In the child: a thread that made the ledger is not there.
pub(crate) fn lose() {
    MAKING.lose();
}
