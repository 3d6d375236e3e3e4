//! How clients go: what is said to them at the end, and by whom.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use uakari::websocket::close::CloseCode;

use crate::client::{Client, flush_now};
use crate::incoming::End;
use crate::table::{self, Entry};
use crate::{fork, ledger};

/// `fd` is about to become another file, or none. Called before that, since the number may be another thread's then.
pub(crate) fn leave(fd: RawFd) {
    // A child that shares this memory closes what is its own alone (vfork(2)).
    if matches!(table::get(fd), Entry::Unknown) || fork::is_vfork_child() {
        return;
    }
    match confirm(fd) {
        Entry::Client(client) => {
            if table::remove(fd, client) && client.fds.fetch_sub(1, Ordering::AcqRel) == 1 {
                end(fd, client);
                client.release();
            }
        }
        _ => drop(table::put(fd, Entry::Unknown)),
    }
}

/// What `fd` is, after a look at its socket: the entry of a client whose file descriptor was closed without close(3) is
/// dropped. What the kernel answers needs no such look, since a number that leads to no socket is an ENOTSOCK, and the
/// calls that make sockets drop what was known of their numbers. What is done from memory alone does: an end, an EPIPE,
/// a close frame, a copy.
pub(crate) fn confirm(fd: RawFd) -> Entry {
    match table::get(fd) {
        Entry::Client(client) if !client.is_reached_by(fd) => {
            forget(fd, client);
            Entry::Unknown
        }
        entry => entry,
    }
}

/// As `confirm`: the client that `fd` is.
pub(crate) fn confirmed_client(fd: RawFd) -> Option<&'static Client> {
    match confirm(fd) {
        Entry::Client(client) => Some(client),
        _ => None,
    }
}

/// Whether the entry of `fd` was a client's whose file descriptor was closed without close(3). It is dropped then.
pub(crate) fn was_stale(fd: RawFd) -> bool {
    table::client(fd).is_some() && confirmed_client(fd).is_none()
}

/// `fd` leads to another file than this client's socket, or to none: it was closed without close(3).
pub(crate) fn forget(fd: RawFd, client: &'static Client) {
    if fork::is_vfork_child() || !table::remove(fd, client) {
        return;
    }
    if client.fds.fetch_sub(1, Ordering::AcqRel) == 1 {
        if let Some(place) = client.place.try_lock().and_then(|mut place| place.take()) {
            ledger::leave(place, || {});
        }
        client.release();
    }
}

/// `fd` was just made: what was known of its number is about a file that was closed without close(3).
pub(crate) fn begin(fd: RawFd) {
    match table::get(fd) {
        Entry::Unknown => {}
        Entry::Client(client) => forget(fd, client),
        _ if fork::is_vfork_child() => {}
        _ => drop(table::put(fd, Entry::Unknown)),
    }
}

/// `new` is another number of `fd` from now on.
pub(crate) fn copy(fd: RawFd, new: RawFd) {
    let entry = confirm(fd);
    if matches!((entry, table::get(new)), (Entry::Unknown, Entry::Unknown)) || fork::is_vfork_child() {
        return;
    }
    begin(new);
    if let Entry::Client(client) = entry {
        client.fds.fetch_add(1, Ordering::AcqRel);
    }
    table::put(new, entry);
}

/// This process is done with a client.
fn end(fd: RawFd, client: &Client) {
    let Some(place) = client.place() else { return };
    // Where a message was begun and not brought to its end, nothing can follow, whoever would send it.
    if client.outgoing_now().map_or(true, |outgoing| outgoing.owed_size() > 0) {
        ledger::claim_close_frame(place);
    }
    ledger::leave(place, || {
        if let Some(mut watches) = client.watches.try_lock() {
            watches.end();
        }
        send_close_frame(fd, client);
    });
    if let Some(mut place) = client.place.try_lock() {
        *place = None;
    }
}

/// The close frame, where none was sent. It is not waited for: where the client takes nothing, it is left out.
pub(crate) fn send_close_frame(fd: RawFd, client: &Client) {
    let Ok(mut outgoing) = client.outgoing_now() else { return };
    // A parent may close later than the child that said it.
    let is_first = client.claim_close_frame();
    if !is_first && !outgoing.is_closing() {
        return;
    }
    let own = match client.incoming.try_lock().and_then(|incoming| incoming.end()) {
        Some(End::Closed(code)) => Some(code),
        _ => None,
    };
    // Another process may have read the client's close frame.
    let code = own.or_else(|| client.place().and_then(ledger::close_code)).unwrap_or(Some(CloseCode::NORMAL));
    outgoing.close(code, "");
    flush_now(fd, &mut outgoing);
}

/// The server ends its sending half.
pub(crate) fn end_sending(fd: RawFd) {
    let Some(client) = confirmed_client(fd) else { return };
    if client.is_handed_over() {
        send_close_frame(fd, client);
    } else if let Ok(mut early) = client.early.lock() {
        early.is_ended = true;
    }
}

/// At exit(3): what close(2) would have done.
pub(crate) fn leave_all() {
    if fork::is_vfork_child() {
        return;
    }
    for (fd, _) in table::clients() {
        leave(fd);
    }
}
