//! What a server reads of a client: payload, and nothing else.
//!
//! Nobody waits with a lock in his hands: where nothing has come, the server waits in a look at the first byte. So its
//! signals, its timeouts and its mode, blocking or not, mean what they always mean.

use std::io::IoSliceMut;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{self, c_int};

use crate::client::Client;
use crate::incoming::{End, Incoming, Next};
use crate::limits::{EMPTY_READS_MAX, LOOK_SIZE};
use crate::lock::Guard;
use crate::real::safe;
use crate::table;

/// What a read would find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// At least one byte of payload.
    Payload,
    /// Nothing yet.
    Nothing,
    /// The end, or an error.
    End,
}

/// recvmsg(2) for a client: as many bytes of payload as have come, one at least. 0: the client has closed.
/// ECONNRESET: it broke RFC 6455, and was told so.
pub fn receive(
    fd: RawFd,
    client: &'static Client,
    mut parts: &mut [IoSliceMut<'_>],
    flags: c_int,
) -> Result<usize, Errno> {
    let wanted_size: usize = parts.iter().map(|part| part.len()).sum();
    if wanted_size == 0 {
        return Ok(0);
    }
    // There are no urgent bytes among frames.
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & libc::MSG_PEEK != 0 {
        return peek(fd, client, parts, flags);
    }
    if flags & libc::MSG_TRUNC != 0 {
        // The bytes are wanted nowhere (tcp(7)).
        let mut nowhere = [0; LOOK_SIZE];
        let size = wanted_size.min(LOOK_SIZE);
        return receive_some(fd, client, &mut [IoSliceMut::new(&mut nowhere[..size])], flags);
    }
    let mut received_size = 0;
    loop {
        match receive_some(fd, client, parts, flags) {
            Err(_) if received_size > 0 => return Ok(received_size),
            Err(errno) => return Err(errno),
            Ok(size) => {
                received_size += size;
                if size == 0 || flags & libc::MSG_WAITALL == 0 || received_size == wanted_size {
                    return Ok(received_size);
                }
                IoSliceMut::advance_slices(&mut parts, size);
            }
        }
    }
}

fn receive_some(
    fd: RawFd,
    client: &'static Client,
    parts: &mut [IoSliceMut<'_>],
    flags: c_int,
) -> Result<usize, Errno> {
    loop {
        let mut incoming = lock(fd, client)?;
        if let Some(size) = receive_now(fd, client, &mut incoming, parts)? {
            return Ok(size);
        }
        drop(incoming);
        wait_for_more(fd, client, flags)?;
    }
}

fn lock(fd: RawFd, client: &'static Client) -> Result<Guard<'static, Incoming>, Errno> {
    let incoming = client.incoming.lock()?;
    // Another thread may have closed it meanwhile.
    if table::is_at(fd, client) { Ok(incoming) } else { Err(Errno::EBADF) }
}

/// None: nothing has come, or much that was nothing.
fn receive_now(
    fd: RawFd,
    client: &Client,
    incoming: &mut Incoming,
    parts: &mut [IoSliceMut<'_>],
) -> Result<Option<usize>, Errno> {
    for _ in 0..EMPTY_READS_MAX {
        match incoming.end() {
            Some(End::Broke(_)) if !incoming.is_told => {
                incoming.is_told = true;
                return Err(Errno::ECONNRESET);
            }
            Some(_) => return Ok(Some(0)),
            None => {}
        }
        match safe::receive(fd, parts, libc::MSG_DONTWAIT) {
            Ok(0) => return Ok(Some(0)),
            Ok(size) => {
                let payload_size = incoming.decode(parts, size);
                answer(fd, client, incoming);
                if payload_size > 0 {
                    put_nul(parts, payload_size);
                    return Ok(Some(payload_size));
                }
            }
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// A NUL behind what was read, where there is room: ouistiti's library wrote one behind each text, and servers made for
/// it, its own echo first of all, take what they have read for a string of C.
fn put_nul(parts: &mut [IoSliceMut<'_>], mut size: usize) {
    for part in parts {
        match part.get_mut(size) {
            Some(byte) => return *byte = 0,
            None => size -= part.len(),
        }
    }
}

/// What is due for what was just decoded.
fn answer(fd: RawFd, client: &Client, incoming: &mut Incoming) {
    if let Some(payload) = incoming.take_ping() {
        client.pong(fd, payload);
    }
    match incoming.end() {
        None => return,
        // The server's last words come before the answer: that is sent when the server closes.
        Some(End::Closed(_)) => {}
        Some(End::Broke(error)) => client.close(fd, error.close_code()),
    }
    // From now on the kernel says what the next read will: the end.
    safe::end(fd, libc::SHUT_RD);
}

/// Waits as the server wants it: EAGAIN where it does not want to.
pub fn wait_for_byte(fd: RawFd, flags: c_int) -> Result<(), Errno> {
    let mut byte = [0];
    let flags = libc::MSG_PEEK | flags & libc::MSG_DONTWAIT;
    safe::receive(fd, &mut [IoSliceMut::new(&mut byte)], flags).map(drop)
}

/// As `wait_for_byte`, where there may be bytes that are still to be looked at: a server that does not wait is told so
/// as if there were none.
fn wait_for_more(fd: RawFd, client: &'static Client, flags: c_int) -> Result<(), Errno> {
    wait_for_byte(fd, flags)?;
    if flags & libc::MSG_DONTWAIT == 0 && safe::is_blocking(fd) {
        return Ok(());
    }
    tell_again(fd, client);
    Err(Errno::EAGAIN)
}

fn tell_again(fd: RawFd, client: &Client) {
    if let Ok(watches) = client.watches.lock() {
        watches.tell_again(fd);
    }
}

/// As `receive`, but everything stays where it is.
fn peek(fd: RawFd, client: &'static Client, parts: &mut [IoSliceMut<'_>], flags: c_int) -> Result<usize, Errno> {
    loop {
        match look(fd, client)? {
            Found::Payload => {
                let incoming = lock(fd, client)?;
                let size = safe::receive(fd, parts, libc::MSG_PEEK | libc::MSG_DONTWAIT)?;
                return Ok(Incoming::clone(&incoming).decode(parts, size));
            }
            Found::End => {
                let mut nowhere = [0];
                return receive_some(fd, client, &mut [IoSliceMut::new(&mut nowhere)], flags);
            }
            Found::Nothing => wait_for_more(fd, client, flags)?,
        }
    }
}

/// What a read would find, without waiting. Headers and control frames before it are done with.
pub fn look(fd: RawFd, client: &'static Client) -> Result<Found, Errno> {
    let mut incoming = lock(fd, client)?;
    for _ in 0..EMPTY_READS_MAX {
        if incoming.end().is_some() {
            return Ok(Found::End);
        }
        let mut bytes = [0; LOOK_SIZE];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let size = match safe::receive(fd, &mut [IoSliceMut::new(&mut bytes)], flags) {
            Ok(0) => return Ok(Found::End),
            Ok(size) => size,
            Err(Errno::EAGAIN) => return Ok(Found::Nothing),
            Err(errno) => return Err(errno),
        };
        let (skipped, found) = match incoming.look(&mut bytes[..size]) {
            Next::End => return Ok(Found::End),
            Next::Payload(skipped) => (skipped, Some(Found::Payload)),
            Next::Nothing(skipped) => (skipped, None),
        };
        if skipped > 0 {
            let parts = &mut [IoSliceMut::new(&mut bytes[..skipped])];
            let size = safe::receive(fd, parts, libc::MSG_DONTWAIT)?;
            incoming.decode(parts, size);
            answer(fd, client, &mut incoming);
        }
        if let Some(found) = found {
            return Ok(found);
        }
    }
    tell_again(fd, client);
    Ok(Found::Nothing)
}
