//! The end of clients: which process sends the close frame, and when.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use rfc6455::close::CloseCode;
use server::outgoing::Outgoing;

use crate::client::{Client, flush_now};
use crate::incoming::End;
use crate::ledger;
use crate::real::safe;
use crate::table::{self, Entry};

/// Called before `fd` is closed or replaced: afterwards another thread may have got the number.
pub(crate) fn leave(fd: RawFd) {
    // A vfork(2) child shares this memory but not the parent's descriptors.
    if matches!(table::get(fd), Entry::Unknown) || table::is_vfork_child() {
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

/// The entry of `fd`, after a check of its inode: the entry of a client whose descriptor was closed without close(3) is
/// dropped. Results of the kernel need no check: a number that is no socket is an ENOTSOCK, and calls that create
/// sockets drop the entries of their numbers. Results that the library returns by itself do: an end of file, an EPIPE,
/// a close frame, a duplicate.
pub(crate) fn confirm(fd: RawFd) -> Entry {
    match table::get(fd) {
        Entry::Client(client) if !client.is_reached_by(fd) => {
            forget(fd, client);
            Entry::Unknown
        }
        entry => entry,
    }
}

/// Like `confirm`; None: `fd` is no client.
pub(crate) fn confirmed_client(fd: RawFd) -> Option<&'static Client> {
    match confirm(fd) {
        Entry::Client(client) => Some(client),
        _ => None,
    }
}

/// Drops the entry of `fd` if it is that of a client whose descriptor was closed without close(3). True: it was.
pub(crate) fn was_stale(fd: RawFd) -> bool {
    table::client(fd).is_some() && confirmed_client(fd).is_none()
}

/// Drops the entry of `fd`, which no longer refers to this client's socket: it was closed without close(3).
pub(crate) fn forget(fd: RawFd, client: &'static Client) {
    if table::is_vfork_child() || !table::remove(fd, client) {
        return;
    }
    if client.fds.fetch_sub(1, Ordering::AcqRel) == 1 {
        if let Some(place) = client.place.try_lock().and_then(|mut place| place.take()) {
            ledger::leave(place, || {});
        }
        client.release();
    }
}

/// Called for a new descriptor: an entry of its number is that of a file that was closed without close(3).
pub(crate) fn begin(fd: RawFd) {
    match table::get(fd) {
        Entry::Unknown => {}
        Entry::Client(client) => forget(fd, client),
        _ if table::is_vfork_child() => {}
        _ => drop(table::put(fd, Entry::Unknown)),
    }
}

/// Notes that `new` is a duplicate of `fd`.
pub(crate) fn copy(fd: RawFd, new: RawFd) {
    let entry = confirm(fd);
    if matches!((entry, table::get(new)), (Entry::Unknown, Entry::Unknown)) || table::is_vfork_child() {
        return;
    }
    begin(new);
    if let Entry::Client(client) = entry {
        client.fds.fetch_add(1, Ordering::AcqRel);
    }
    table::put(new, entry);
}

/// Called before the last descriptor of a client in this process is closed.
fn end(fd: RawFd, client: &Client) {
    let Some(place) = client.place() else { return };
    // After a partly written message no process can send a close frame.
    if client.outgoing_now().map_or(true, |outgoing| outgoing.owed_size() > 0) {
        ledger::claim_close_frame(place);
    }
    ledger::leave(place, || {
        if let Some(mut watches) = client.watches.try_lock() {
            watches.end();
        }
        announce_end(fd, client);
    });
    if let Some(mut place) = client.place.try_lock() {
        *place = None;
    }
}

/// Sends the close frame if none was sent, and close_notify to a TLS client, without blocking: if the socket buffer is
/// full, they are omitted.
pub(crate) fn announce_end(fd: RawFd, client: &Client) {
    let Ok(mut outgoing) = client.outgoing_now() else { return };
    send_close_frame(fd, client, &mut outgoing);
    if client.is_tls() && !outgoing.wants_to_write() {
        safe::send_close_notify(fd);
    }
}

fn send_close_frame(fd: RawFd, client: &Client, outgoing: &mut Outgoing) {
    // A child process may have sent it before.
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
    flush_now(fd, outgoing);
}

/// Called before shutdown(2) of the sending half.
pub(crate) fn end_sending(fd: RawFd) {
    let Some(client) = confirmed_client(fd) else { return };
    if client.is_handed_over() {
        announce_end(fd, client);
    } else if let Ok(mut early) = client.early.lock() {
        early.is_ended = true;
    }
}

/// At exit(3): the same as close(2) for all clients.
pub(crate) fn leave_all() {
    if table::is_vfork_child() {
        return;
    }
    for (fd, _) in table::clients() {
        leave(fd);
    }
}
