//! Which processes have which client open, so that the last one to close it sends the close frame.
//!
//! A server may fork for each client; then the parent's close(2) is not the end. The ledger is a memfd shared with all
//! descendants of the process that created it. Each process holds a record lock of fcntl(2) on the byte of each client
//! that it has open; the kernel releases the locks of a process that exits or calls execve(2). A forked child takes its
//! locks when it runs: until then it is counted in `expected`.
//!
//! The process that closes last need not be the one that read the client's close frame, so the ledger also has its
//! code.

use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_short};
use rfc6455::close::CloseCode;

use crate::limits::{LEDGER_ENTRIES, OWN_FD_MIN};
use crate::lock::Lock;
use crate::real::{self, safe};

/// A client's entry: its byte in the file, and a ticket that distinguishes it from earlier clients with this byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    index: usize,
    ticket: u32,
}

struct Book {
    /// The newest ticket.
    ticket: AtomicU32,
    /// The ticket of the client with this entry; 0: free.
    taken: [AtomicU32; LEDGER_ENTRIES],
    /// Forked children that have not taken their lock yet.
    expected: [AtomicU16; LEDGER_ENTRIES],
    /// 1: a process has sent the close frame, or none may.
    claimed: [AtomicU16; LEDGER_ENTRIES],
    /// Code of the client's close frame, or `NO_CODE`; 0: no close frame was read.
    close_codes: [AtomicU16; LEDGER_ENTRIES],
}

/// A close frame without a code (RFC 6455 section 7.4.1).
const NO_CODE: u16 = 1005;

static FILE: AtomicI32 = AtomicI32::new(-1);
static BOOK: AtomicPtr<Book> = AtomicPtr::new(null_mut());
static MAKING: Lock<()> = Lock::new(());
/// Where the search for a free byte begins.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn book() -> Option<&'static Book> {
    // SAFETY: it is null, or a mapping of a whole `Book` that is never removed; all zeros are valid.
    unsafe { BOOK.load(Ordering::Acquire).as_ref() }
}

/// The ledger's file descriptor, which stays open if a server closes all descriptors; -1: none.
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
    // SAFETY: the file was just created here.
    Errno::result(unsafe { libc::ftruncate(file, size as libc::off_t) }).ok()?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let mapped = unsafe { libc::mmap(null_mut(), size, protection, libc::MAP_SHARED, file, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    FILE.store(file, Ordering::Relaxed);
    BOOK.store(mapped.cast(), Ordering::Release);
    book()
}

fn set_lock(place: Place, kind: c_int) -> Result<(), Errno> {
    // SAFETY: a `struct flock` may be all zeros.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as c_short;
    lock.l_whence = libc::SEEK_SET as c_short;
    lock.l_start = place.index as libc::off_t;
    lock.l_len = 1;
    let argument = &raw const lock;
    // SAFETY: F_SETLK takes a pointer to a `struct flock`, which lives through the call.
    Errno::result(unsafe { real::fcntl(fd(), libc::F_SETLK, argument.addr() as libc::c_ulong) }).map(drop)
}

/// An entry for a new client; None: all are in use.
pub(crate) fn enter() -> Option<Place> {
    let book = book().or_else(make)?;
    let start = NEXT.fetch_add(1, Ordering::Relaxed);
    (0..LEDGER_ENTRIES).map(|turn| (start + turn) % LEDGER_ENTRIES).find_map(|index| occupy(book, index))
}

/// Takes the entry. None: it is in use, or another process is just leaving it.
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

/// Called when this process has closed the client. Calls `last` if no other process has it open; none can open it then,
/// since this process holds the write lock.
pub(crate) fn leave(place: Place, last: impl FnOnce()) {
    let Some(book) = book() else { return };
    // Release the own lock first: of two processes that leave at the same time, at least one finds no other.
    let _ = set_lock(place, libc::F_UNLCK);
    let is_expected = book.expected[place.index].load(Ordering::Acquire) > 0;
    if is_expected || set_lock(place, libc::F_WRLCK).is_err() {
        return;
    }
    // Another process may have freed the entry, and a new client may have taken it.
    if book.taken[place.index].load(Ordering::Acquire) == place.ticket {
        last();
        book.taken[place.index].store(0, Ordering::Release);
    }
    let _ = set_lock(place, libc::F_UNLCK);
}

/// Claims the close frame for this process. False: another process has claimed it.
pub(crate) fn claim_close_frame(place: Place) -> bool {
    book().is_some_and(|book| book.claimed[place.index].swap(1, Ordering::AcqRel) == 0)
}

/// Notes the code of the client's close frame, for the process that closes last.
pub(crate) fn note_close_code(place: Place, code: Option<CloseCode>) {
    if let Some(book) = book() {
        book.close_codes[place.index].store(code.map_or(NO_CODE, |code| code.0), Ordering::Release);
    }
}

/// The code of the client's close frame, whichever process read it; None: no close frame was read.
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

/// In the child, after the fork.
pub(crate) fn enter_child(place: Place) {
    let Some(book) = book() else { return };
    if set_lock(place, libc::F_RDLCK).is_ok() {
        book.expected[place.index].fetch_sub(1, Ordering::AcqRel);
    }
}

/// In the child: marks the lock as lost if another thread held it.
pub(crate) fn lose() {
    MAKING.lose();
}
