//! Writes to a client: each call sends a message.
//!
//! A blocking call waits in send(2) with the sending side locked, so that its message is complete before the next one
//! begins. Non-blocking calls do not wait for that lock.

use std::io::IoSlice;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::libc::{self, c_int};
use rfc6455::close::CloseCode;
use server::outgoing::Outgoing;

use crate::arrival::{Decision, decide};
use crate::client::Client;
use crate::limits::SENDFILE_SIZE;
use crate::lock::Guard;
use crate::real::safe;
use crate::{cut_timer, table};

/// sendmsg(2) for a client: sends all parts as one message. After a partial write, the bytes of the next calls complete
/// it. EPIPE with SIGPIPE: a close frame was sent.
pub(crate) fn send(fd: RawFd, client: &'static Client, parts: &[IoSlice<'_>], flags: c_int) -> Result<usize, Errno> {
    if !client.is_handed_over()
        && let Some(result) = send_early(fd, client, parts, flags)
    {
        return result;
    }
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    // The documented fallback: the server repeats the call without it (Documentation/networking/msg_zerocopy.rst).
    if flags & libc::MSG_ZEROCOPY != 0 {
        return Err(Errno::ENOBUFS);
    }
    let result = {
        let mut outgoing = lock(fd, client, flags)?;
        if !table::is_at(fd, client) {
            return Err(Errno::EBADF);
        }
        let mut sender = Sender::new(fd, client, flags);
        let result = outgoing.write(client.kind(), parts, |parts| sender.send(parts));
        cut_timer::note(fd, client, &mut outgoing);
        result
    };
    unlocked(client);
    if result == Err(Errno::EILSEQ) {
        // The same close code as for a proxied server.
        client.close(fd, CloseCode::INTERNAL_ERROR);
    }
    client.settle(fd);
    signal(fd, client, result, flags)
}

/// Whether a call blocks if the socket buffer is full.
fn may_wait(fd: RawFd, flags: c_int) -> bool {
    flags & libc::MSG_DONTWAIT == 0 && safe::is_blocking(fd)
}

/// Locks the sending side. EAGAIN: a thread is blocked in a send, and this call is non-blocking.
fn lock(fd: RawFd, client: &'static Client, flags: c_int) -> Result<Guard<'static, Outgoing>, Errno> {
    if let Some(outgoing) = client.outgoing.try_lock() {
        return Ok(outgoing);
    }
    if may_wait(fd, flags) {
        return client.outgoing.lock();
    }
    client.is_refused.store(true, Ordering::SeqCst);
    client.outgoing_now()
}

/// After a blocked send: if another write failed with EAGAIN meanwhile, edge-triggered watches (EPOLLET) are re-armed.
fn unlocked(client: &Client) {
    if client.is_refused.load(Ordering::Relaxed)
        && client.is_refused.swap(false, Ordering::SeqCst)
        && let Ok(watches) = client.watches.lock()
    {
        watches.rearm();
    }
}

/// The sends of one call.
struct Sender {
    fd: RawFd,
    client: &'static Client,
    flags: c_int,
    /// SO_SNDTIMEO has passed or a signal arrived: it does not block again.
    has_waited: bool,
}

impl Sender {
    fn new(fd: RawFd, client: &'static Client, mut flags: c_int) -> Sender {
        if client.is_tls() {
            // With MSG_MORE the record would wait for the next send without end, not 200 ms as in tcp(7). Most others,
            // which have no effect on TCP, would be an EOPNOTSUPP.
            flags &= libc::MSG_DONTWAIT;
        }
        Sender { fd, client, flags: flags | libc::MSG_NOSIGNAL, has_waited: false }
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        // A send that does not block may leave a part of a TLS record for later, which close(2) would drop.
        if self.client.is_tls() && !self.has_waited && may_wait(self.fd, self.flags) {
            return self.wait(parts, 0);
        }
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let sent = match safe::send(self.fd, parts, self.flags | libc::MSG_DONTWAIT) {
            Ok(sent) => sent,
            Err(Errno::EAGAIN) => 0,
            Err(errno) => return Err(errno),
        };
        let result = if sent < size && !self.has_waited && may_wait(self.fd, self.flags) {
            self.wait(parts, sent)
        } else {
            Err(Errno::EAGAIN)
        };
        match result {
            Ok(more) => Ok(sent + more),
            Err(errno) if sent == 0 => Err(errno),
            // A persistent error is returned by the next call.
            Err(_) => Ok(sent),
        }
    }

    /// Sends the bytes after the first `sent` in a blocking call.
    fn wait(&mut self, parts: &[IoSlice<'_>], sent: usize) -> Result<usize, Errno> {
        let mut rest = parts.to_vec();
        let mut rest = &mut rest[..];
        IoSlice::advance_slices(&mut rest, sent);
        let size: usize = rest.iter().map(|part| part.len()).sum();
        self.client.is_blocked.store(true, Ordering::SeqCst);
        let result = safe::send(self.fd, rest, self.flags);
        self.client.is_blocked.store(false, Ordering::SeqCst);
        self.has_waited = result != Ok(size);
        result
    }
}

/// Raises SIGPIPE on EPIPE, as write(2) does, unless the descriptor was closed and belongs to another file.
fn signal(fd: RawFd, client: &Client, result: Result<usize, Errno>, flags: c_int) -> Result<usize, Errno> {
    if result == Err(Errno::EPIPE) && flags & libc::MSG_NOSIGNAL == 0 && client.is_reached_by(fd) {
        // SAFETY: no memory is named.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    result
}

/// `send` before the hand-over: the bytes go to the peer of the connection, which may be a plain client. None: the
/// hand-over has arrived.
fn send_early(fd: RawFd, client: &'static Client, parts: &[IoSlice<'_>], flags: c_int) -> Option<Result<usize, Errno>> {
    // This lock delays the hand-over until the bytes are written.
    let outgoing = match lock(fd, client, flags) {
        Ok(outgoing) if !client.is_handed_over() => outgoing,
        Ok(_) => return None,
        Err(errno) => return Some(Err(errno)),
    };
    let sent = Sender::new(fd, client, flags).send(parts);
    if let (Ok(size), Ok(mut early), true) = (sent, client.early.lock(), table::is_at(fd, client)) {
        early.note(parts, size);
    }
    drop(outgoing);
    unlocked(client);
    // The gateway closes its end after the hand-over.
    if matches!(sent, Err(Errno::EPIPE | Errno::ECONNRESET)) && decide(fd, client) == Ok(Decision::Client) {
        return None;
    }
    Some(signal(fd, client, sent, flags))
}

/// sendfile(2) for a client: sends the bytes of the file at this offset as one message, at most `SENDFILE_SIZE`.
pub(crate) fn send_file(
    fd: RawFd,
    client: &'static Client,
    from: RawFd,
    offset: i64,
    size: usize,
) -> Result<usize, Errno> {
    let mut buffer = [0; SENDFILE_SIZE];
    let room = &mut buffer[..size.min(SENDFILE_SIZE)];
    // SAFETY: pointer and length are those of `room`.
    let read = unsafe { libc::pread64(from, room.as_mut_ptr().cast(), room.len(), offset) };
    let size = usize::try_from(read).map_err(|_| Errno::last())?;
    send(fd, client, &[IoSlice::new(&buffer[..size])], 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::conversation::Conversation;
    use crate::leaving;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn write(conversation: &Conversation, bytes: &[u8], flags: c_int) -> Result<usize, Errno> {
        send(conversation.fd(), conversation.known, &[IoSlice::new(bytes)], flags)
    }

    /// While a thread is blocked in a send, non-blocking writes of others fail with EAGAIN, and its message is
    /// complete.
    #[test]
    fn a_thread_that_waits_holds_up_no_other() {
        let conversation = Conversation::start(true);
        let message = vec![7; 32 << 20];
        thread::scope(|scope| {
            let writer = scope.spawn(|| write(&conversation, &message, 0));
            let start = Instant::now();
            while !conversation.known.is_blocked.load(Ordering::SeqCst) {
                assert!(start.elapsed() < TIMEOUT, "no write blocks");
                thread::yield_now();
            }
            // In a thread of its own, so that the test ends even if the write blocks.
            let other = scope.spawn(|| {
                let result = write(&conversation, b"other", libc::MSG_DONTWAIT);
                leaving::announce_end(conversation.fd(), conversation.known);
                result
            });
            while !other.is_finished() && start.elapsed() < TIMEOUT {
                thread::sleep(Duration::from_millis(1));
            }
            let was_held_up = !other.is_finished();
            let mut heard = vec![0; 10 + message.len()];
            (&conversation.client).read_exact(&mut heard).unwrap();
            assert!(heard[10..] == message, "the message is not whole");
            assert_eq!(writer.join().unwrap(), Ok(message.len()));
            assert_eq!(other.join().unwrap(), Err(Errno::EAGAIN));
            assert!(!was_held_up);
        });
        assert_eq!(write(&conversation, b"other", libc::MSG_DONTWAIT), Ok(5));
    }

    /// SO_SNDTIMEO limits the whole call.
    #[test]
    fn a_write_waits_as_long_as_the_server_wants() {
        let conversation = Conversation::start(true);
        conversation.server().set_write_timeout(Some(Duration::from_millis(30))).unwrap();
        let message = vec![7; 32 << 20];
        let mut taken = 0;
        // The kernel may free buffer space between two writes.
        let end = loop {
            match write(&conversation, &message[taken..], 0) {
                Ok(size) => taken += size,
                Err(errno) => break errno,
            }
        };
        assert!(end == Errno::EAGAIN && 0 < taken && taken < message.len(), "{end} {taken}");
        assert_eq!(conversation.known.outgoing.lock().unwrap().owed_size(), message.len() - taken);
    }
}
