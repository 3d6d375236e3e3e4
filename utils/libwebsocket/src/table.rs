//! The table of file descriptors. Lookups take no lock, so that read(2) works in a signal handler.

use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use nix::libc;
use server::outgoing::WriteType;

use crate::client::Client;
use crate::limits::{FDS_MAX, TABLE_PAGE_ENTRIES};

/// A file descriptor's entry.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    /// No entry: the common case.
    Unknown,
    /// A socket created with protocol 153: its messages are text.
    Text,
    /// A listener that is not served.
    Left,
    /// A listener that is served, with this message type.
    Served { kind: WriteType },
    /// A client, or a connection on which a hand-over may still arrive.
    Client(&'static Client),
}

const TEXT: usize = 1;
const LEFT: usize = 2;
const SERVED_BINARY: usize = 3;
const SERVED_UNCHECKED_TEXT: usize = 4;
const SERVED_AUTO: usize = 5;
const SERVED_TEXT: usize = 6;
/// No `Client` has an address below this.
const CLIENT_MIN: usize = 8;

type Page = [AtomicUsize; TABLE_PAGE_ENTRIES];

/// A page is allocated when its first entry is written, and never freed.
static PAGES: [AtomicPtr<Page>; FDS_MAX / TABLE_PAGE_ENTRIES] = [const { AtomicPtr::new(null_mut()) }; _];

/// The process whose descriptors the table has; 0: no client yet.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn process() -> libc::pid_t {
    // SAFETY: getpid(2) takes no argument and cannot fail.
    unsafe { libc::getpid() }
}

/// Makes this process the owner: before its first client, and in the child of a fork(2), which has a copy of the table.
pub(crate) fn own() {
    OWNER.store(process(), Ordering::Relaxed);
}

/// Whether this is a vfork(2) child. It has descriptors of its own, but shares its parent's memory, and so must not
/// change the table.
pub(crate) fn is_vfork_child() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != process()
}

impl Entry {
    fn to_word(self) -> usize {
        match self {
            Entry::Unknown => 0,
            Entry::Text => TEXT,
            Entry::Left => LEFT,
            Entry::Served { kind: WriteType::Binary } => SERVED_BINARY,
            Entry::Served { kind: WriteType::UncheckedText } => SERVED_UNCHECKED_TEXT,
            Entry::Served { kind: WriteType::Auto } => SERVED_AUTO,
            Entry::Served { kind: WriteType::Text } => SERVED_TEXT,
            Entry::Client(client) => std::ptr::from_ref(client).expose_provenance(),
        }
    }

    fn from_word(word: usize) -> Entry {
        match word {
            0..TEXT | 7..CLIENT_MIN => Entry::Unknown,
            TEXT => Entry::Text,
            LEFT => Entry::Left,
            SERVED_BINARY => Entry::Served { kind: WriteType::Binary },
            SERVED_UNCHECKED_TEXT => Entry::Served { kind: WriteType::UncheckedText },
            SERVED_AUTO => Entry::Served { kind: WriteType::Auto },
            SERVED_TEXT => Entry::Served { kind: WriteType::Text },
            // SAFETY: `to_word` made it from a `'static` reference.
            _ => Entry::Client(unsafe { &*std::ptr::with_exposed_provenance(word) }),
        }
    }
}

fn page_of(fd: RawFd) -> Option<&'static AtomicPtr<Page>> {
    PAGES.get(usize::try_from(fd).ok()? / TABLE_PAGE_ENTRIES)
}

fn place_of(fd: RawFd) -> Option<&'static AtomicUsize> {
    let page = page_of(fd)?.load(Ordering::Acquire);
    // SAFETY: it is null, or a page, which is never freed.
    unsafe { page.as_ref() }.map(|page| &page[fd as usize % TABLE_PAGE_ENTRIES])
}

/// The entry of `fd`.
pub(crate) fn get(fd: RawFd) -> Entry {
    place_of(fd).map_or(Entry::Unknown, |place| Entry::from_word(place.load(Ordering::Acquire)))
}

/// The client of `fd`; None: no client.
pub(crate) fn client(fd: RawFd) -> Option<&'static Client> {
    match get(fd) {
        Entry::Client(client) => Some(client),
        _ => None,
    }
}

/// Whether the entry of `fd` is this client.
pub(crate) fn is_at(fd: RawFd, client: &Client) -> bool {
    self::client(fd).is_some_and(|found| std::ptr::eq(found, client))
}

/// Sets the entry of `fd` and returns the previous one. A number of `FDS_MAX` or more has no entry.
pub(crate) fn put(fd: RawFd, entry: Entry) -> Entry {
    if let (None, false) = (place_of(fd), matches!(entry, Entry::Unknown)) {
        make_page(fd);
    }
    place_of(fd).map_or(Entry::Unknown, |place| Entry::from_word(place.swap(entry.to_word(), Ordering::AcqRel)))
}

/// Removes the entry of this client. False: another thread has removed or replaced it.
pub(crate) fn remove(fd: RawFd, client: &'static Client) -> bool {
    let (word, nothing) = (Entry::Client(client).to_word(), Entry::Unknown.to_word());
    place_of(fd).is_some_and(|place| place.compare_exchange(word, nothing, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

fn make_page(fd: RawFd) {
    let Some(place) = page_of(fd) else { return };
    let page = Box::leak(Box::new([const { AtomicUsize::new(0) }; TABLE_PAGE_ENTRIES]));
    let made = std::ptr::from_mut(page);
    if place.compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: another thread has set the page first, so this one was never published.
        drop(unsafe { Box::from_raw(made) });
    }
}

/// All file descriptors with an entry.
pub(crate) fn known() -> impl Iterator<Item = RawFd> {
    let pages = PAGES.iter().enumerate().filter(|(_, page)| !page.load(Ordering::Acquire).is_null());
    let numbers = pages.flat_map(|(index, _)| index * TABLE_PAGE_ENTRIES..(index + 1) * TABLE_PAGE_ENTRIES);
    numbers.map(|number| number as RawFd).filter(|fd| !matches!(get(*fd), Entry::Unknown))
}

/// All clients with their descriptors.
pub(crate) fn clients() -> impl Iterator<Item = (RawFd, &'static Client)> {
    known().filter_map(|fd| client(fd).map(|client| (fd, client)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_their_words() {
        let client: &'static Client = Box::leak(Box::default());
        let fd = 5 * TABLE_PAGE_ENTRIES as RawFd + 3;
        assert!(matches!(get(fd), Entry::Unknown));
        let kinds = [WriteType::Binary, WriteType::UncheckedText, WriteType::Auto, WriteType::Text];
        for entry in [Entry::Text, Entry::Left].into_iter().chain(kinds.map(|kind| Entry::Served { kind })) {
            put(fd, entry);
            assert_eq!(get(fd).to_word(), entry.to_word());
        }
        for kind in kinds {
            put(fd, Entry::Served { kind });
            assert!(matches!(get(fd), Entry::Served { kind: found } if found == kind), "{kind:?}");
        }
        put(fd, Entry::Client(client));
        assert!(clients().any(|(number, found)| number == fd && std::ptr::eq(found, client)));
        assert!(!remove(fd, Box::leak(Box::default())));
        assert!(remove(fd, client) && !remove(fd, client));
        for fd in [-1, FDS_MAX as RawFd, RawFd::MAX] {
            put(fd, Entry::Text);
            assert!(matches!(get(fd), Entry::Unknown), "{fd}");
        }
    }
}
