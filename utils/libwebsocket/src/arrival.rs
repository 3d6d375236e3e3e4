//! The hand-over of clients: in accept(2), or in a later call if the gateway was slow.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::socket::{self, SockType, UnixAddr, sockopt};
use rfc6455::close::CloseCode;
use server::handover::{ClientAddress, HandedOver, HandoverError, Received, receive};
use server::outgoing::WriteType;

use crate::client::{Client, flush_now};
use crate::limits::{GATEWAY_WAIT_MS, GATEWAYS_MAX};
use crate::real::safe;
use crate::table::{self, Entry};
use crate::{cut_timer, fork, leaving, ledger, settings};

/// The server uses `api`.
static LEAVE_ALONE: AtomicBool = AtomicBool::new(false);
/// Pids of processes that have handed over clients; 0: free.
static GATEWAYS: [AtomicI32; GATEWAYS_MAX] = [const { AtomicI32::new(0) }; _];

/// From now on only listeners named by `WEBSOCKET_SOCKETS` are served: a server that uses `api` handles its own
/// clients.
pub(crate) fn leave_alone() {
    LEAVE_ALONE.store(true, Ordering::Relaxed);
}

fn borrow(fd: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: the server keeps it open during the call; otherwise the kernel returns EBADF.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

/// The message type for clients of this listener; None: it is not served. Determined at the first accept(2), since a
/// listener may be inherited.
pub(crate) fn served(listener: RawFd) -> Option<WriteType> {
    let asks_for_text = match table::get(listener) {
        Entry::Served { kind } => return Some(kind),
        Entry::Left | Entry::Client(_) => return None,
        Entry::Unknown => false,
        Entry::Text => true,
    };
    let is_stream = socket::getsockopt(&borrow(&listener), sockopt::SockType) == Ok(SockType::Stream);
    let address = socket::getsockname::<UnixAddr>(listener).ok().filter(|_| is_stream);
    let path = address.as_ref().and_then(UnixAddr::path).map(|path| path.as_os_str().as_bytes());
    let settings = settings::get();
    let is_served = |path: &&[u8]| settings.is_served(path, !LEAVE_ALONE.load(Ordering::Relaxed));
    let kind = path.filter(is_served).map(|path| settings.write_type(path, asks_for_text));
    table::put(listener, kind.map_or(Entry::Left, |kind| Entry::Served { kind }));
    if kind.is_some() {
        settings.complain();
    }
    kind
}

/// The result of `arrive`.
pub(crate) enum Arrival {
    /// No hand-over so far: accept(2) returns the connection unchanged.
    Plain,
    /// The descriptor is now the connection of a client with this address.
    Client(ClientAddress),
}

/// Waits for a hand-over on `connection`, which was just accepted with these flags of accept4(2), and replaces it with
/// the client's.
pub(crate) fn arrive(connection: RawFd, flags: c_int, kind: WriteType) -> Arrival {
    fork::prepare();
    let peer = socket::getsockopt(&borrow(&connection), sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
    let is_gateway = peer != 0 && GATEWAYS.iter().any(|pid| pid.load(Ordering::Relaxed) == peer);
    let own_ms = settings::get().wait_ms;
    let wait_ms = if is_gateway { GATEWAY_WAIT_MS.max(own_ms) } else { own_ms };
    match receive(borrow(&connection), wait_ms) {
        Ok(Received::Client(handed)) => {
            remember(peer);
            let client = Client::new(kind);
            let address = handed.address;
            let close_on_exec = flags & libc::SOCK_CLOEXEC != 0;
            if replace(connection, &handed.socket, close_on_exec, flags & libc::SOCK_NONBLOCK != 0).is_err() {
                client.release();
                return Arrival::Plain;
            }
            begin(connection, client, address);
            table::put(connection, Entry::Client(client));
            Arrival::Client(address)
        }
        // Also after EMFILE: a descriptor may be free when the server reads.
        Ok(Received::Nothing) | Err(HandoverError::Io(_)) => {
            forget(peer);
            let client = Client::new(kind);
            client.set_socket(connection);
            table::put(connection, Entry::Client(client));
            Arrival::Plain
        }
        // The bytes of a plain client are still unread, even if it passes descriptors.
        Ok(Received::Plain) | Err(_) => Arrival::Plain,
    }
}

fn remember(peer: libc::pid_t) {
    let is_known = GATEWAYS.iter().any(|pid| pid.load(Ordering::Relaxed) == peer);
    if !is_known {
        // If all are in use, the first is replaced: that process gets the shorter wait.
        let free = GATEWAYS.iter().find(|pid| pid.load(Ordering::Relaxed) == 0).unwrap_or(&GATEWAYS[0]);
        free.store(peer, Ordering::Relaxed);
    }
}

/// The pid may belong to another process now.
fn forget(peer: libc::pid_t) {
    for gateway in GATEWAYS.iter().filter(|pid| pid.load(Ordering::Relaxed) == peer) {
        gateway.store(0, Ordering::Relaxed);
    }
}

/// Replaces the connection at `fd` with the client's socket.
fn replace(fd: RawFd, socket: &OwnedFd, close_on_exec: bool, is_non_blocking: bool) -> Result<(), Errno> {
    let number = socket.as_raw_fd();
    safe::control(number, libc::F_SETFL, if is_non_blocking { libc::O_NONBLOCK } else { 0 })?;
    safe::replace(number, fd, if close_on_exec { libc::O_CLOEXEC } else { 0 }).map(drop)
}

/// Notes that `fd` refers to this client's socket from now on.
fn begin(fd: RawFd, client: &Client, address: ClientAddress) {
    client.set_socket(fd);
    if let Ok(mut place) = client.address.lock() {
        *place = Some(address);
    }
    if let Ok(mut place) = client.place.lock() {
        *place = ledger::enter();
    }
    client.is_tls.store(safe::is_tls(fd), Ordering::Relaxed);
    client.is_handed_over.store(true, Ordering::Release);
}

/// What a connection without a hand-over at accept(2) turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// A plain client.
    Plain,
    /// A client of the gateway.
    Client,
    /// Still unknown: nothing was received.
    Open,
}

/// Checks again for a hand-over, without waiting.
pub(crate) fn decide(fd: RawFd, client: &'static Client) -> Result<Decision, Errno> {
    if !client.is_reached_by(fd) {
        leaving::forget(fd, client);
        return Ok(Decision::Plain);
    }
    let incoming = client.incoming.lock()?;
    if !table::is_at(fd, client) {
        return Ok(Decision::Plain);
    }
    if client.is_handed_over() {
        return Ok(Decision::Client);
    }
    // A duplicate that is not in the table, so that closing it has no other effect.
    let other = safe::control(fd, libc::F_DUPFD_CLOEXEC, 0)?;
    leaving::begin(other);
    // SAFETY: it was just created, and has no other owner.
    let other = unsafe { OwnedFd::from_raw_fd(other) };
    match receive(borrow(&other.as_raw_fd()), 0) {
        Ok(Received::Client(handed)) => {
            take_over(fd, client, handed)?;
            Ok(Decision::Client)
        }
        Ok(Received::Nothing) => Ok(Decision::Open),
        Err(HandoverError::Io(errno)) => Err(errno),
        Ok(Received::Plain) | Err(_) => {
            for (number, _) in table::clients().filter(|(_, other)| std::ptr::eq(*other, client)) {
                table::put(number, Entry::Unknown);
            }
            drop(incoming);
            client.release();
            Ok(Decision::Plain)
        }
    }
}

/// Replaces all descriptors of a connection, one of which is `fd`, after a late hand-over, and sends what the server
/// has written before it.
fn take_over(fd: RawFd, client: &'static Client, handed: HandedOver) -> Result<(), Errno> {
    // Writers wait for this lock, and then find the client.
    let mut outgoing = client.outgoing.lock()?;
    copy_times(&borrow(&fd), &handed.socket);
    client.set_next_socket(handed.socket.as_raw_fd());
    for (number, _) in table::clients().filter(|(_, other)| std::ptr::eq(*other, client)) {
        // The number was closed without close(3) and belongs to another file.
        if number != fd && !client.is_reached_by(number) {
            leaving::forget(number, client);
            continue;
        }
        let close_on_exec = safe::control(number, libc::F_GETFD, 0)? & libc::FD_CLOEXEC != 0;
        let mut watches = client.watches.lock();
        if let Ok(watches) = &watches {
            watches.pause(number);
        }
        replace(number, &handed.socket, close_on_exec, !safe::is_blocking(number))?;
        if let Ok(watches) = &mut watches {
            watches.resume(number);
        }
    }
    begin(fd, client, handed.address);
    let Ok(mut early) = client.early.lock() else { return Ok(()) };
    let messages = early.take();
    let mut gathered = messages.iter().map(|message| outgoing.gather_write(client.kind(), message));
    let is_refused = gathered.any(|result| result == Err(Errno::EILSEQ));
    flush_now(fd, &mut outgoing);
    cut_timer::note(fd, client, &mut outgoing);
    let is_ended = early.is_ended;
    drop((early, outgoing));
    if is_refused {
        client.close(fd, CloseCode::INTERNAL_ERROR);
    }
    if is_ended {
        leaving::announce_end(fd, client);
        safe::end(fd, libc::SHUT_WR);
    }
    Ok(())
}

/// Copies SO_RCVTIMEO and SO_SNDTIMEO, which the server may have set before the hand-over.
fn copy_times(from: &BorrowedFd<'_>, to: &OwnedFd) {
    if let Ok(time) = socket::getsockopt(from, sockopt::ReceiveTimeout) {
        let _ = socket::setsockopt(to, sockopt::ReceiveTimeout, &time);
    }
    if let Ok(time) = socket::getsockopt(from, sockopt::SendTimeout) {
        let _ = socket::setsockopt(to, sockopt::SendTimeout, &time);
    }
}
