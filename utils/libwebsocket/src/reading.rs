//! Reads of a client: return payload only.
//!
//! No lock is held while a read waits: it waits in recv(2) with MSG_PEEK for one byte. So signals, timeouts and
//! O_NONBLOCK work as for any socket.

use std::io::IoSliceMut;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{self, c_int};

use crate::client::Client;
use crate::incoming::{End, Incoming, Next};
use crate::limits::{EMPTY_READS_MAX, LOOK_SIZE, PEEK_SIZE_MAX};
use crate::lock::Guard;
use crate::real::safe;
use crate::table;

/// What a read would return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// At least one byte.
    Payload,
    /// EAGAIN.
    Nothing,
    /// 0, or an error.
    End,
}

/// recvmsg(2) for a client: returns the payload that was received, at least one byte. 0: end of file or close frame.
/// ECONNRESET, once: a protocol error, which was answered with a close frame. MSG_DONTWAIT, MSG_PEEK and MSG_WAITALL
/// work as in recv(2). There are no urgent bytes, so MSG_OOB is EINVAL as in tcp(7).
pub(crate) fn receive(
    fd: RawFd,
    client: &'static Client,
    mut parts: &mut [IoSliceMut<'_>],
    flags: c_int,
) -> Result<usize, Errno> {
    let wanted_size = parts.iter().map(|part| part.len()).sum();
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::EINVAL);
    }
    // recv(2) waits for bytes even with a size of 0.
    if flags & libc::MSG_PEEK != 0 || wanted_size == 0 {
        return peek(fd, client, parts, wanted_size, flags);
    }
    let (mut wait, mut received_size) = (Wait::new(flags), 0);
    loop {
        match receive_some(fd, client, parts, received_size > 0, &mut wait) {
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

/// MSG_TRUNC: drops the bytes without writing to the server's memory, as in tcp(7).
pub(crate) fn discard(fd: RawFd, client: &'static Client, wanted_size: usize, flags: c_int) -> Result<usize, Errno> {
    if flags & libc::MSG_OOB != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & libc::MSG_PEEK != 0 || wanted_size == 0 {
        return peek(fd, client, &mut [], wanted_size, flags);
    }
    let (mut wait, mut dropped_size) = (Wait::new(flags), 0);
    let mut nowhere = [0; LOOK_SIZE];
    loop {
        let room = &mut nowhere[..LOOK_SIZE.min(wanted_size - dropped_size)];
        match receive_some(fd, client, &mut [IoSliceMut::new(room)], dropped_size > 0, &mut wait) {
            Err(_) if dropped_size > 0 => return Ok(dropped_size),
            Err(errno) => return Err(errno),
            Ok(size) => {
                dropped_size += size;
                if size == 0 || dropped_size == wanted_size {
                    return Ok(dropped_size);
                }
                // After the first bytes do not wait for more, unless MSG_WAITALL is set.
                if flags & libc::MSG_WAITALL == 0 {
                    wait.flags |= libc::MSG_DONTWAIT;
                }
            }
        }
    }
}

/// One step of `receive`. `has_some`: the call already has bytes to return, so an error is kept for the next call.
fn receive_some(
    fd: RawFd,
    client: &'static Client,
    parts: &mut [IoSliceMut<'_>],
    has_some: bool,
    wait: &mut Wait,
) -> Result<usize, Errno> {
    loop {
        let mut incoming = lock(fd, client)?;
        match receive_now(fd, client, &mut incoming, parts) {
            Ok(Some(size)) => return Ok(size),
            Ok(None) => {}
            Err(errno) => {
                incoming.error = has_some.then_some(errno);
                return Err(errno);
            }
        }
        drop(incoming);
        wait.for_more(fd, client)?;
    }
}

fn lock(fd: RawFd, client: &'static Client) -> Result<Guard<'static, Incoming>, Errno> {
    let incoming = client.incoming.lock()?;
    // Another thread may have closed it.
    if table::is_at(fd, client) { Ok(incoming) } else { Err(Errno::EBADF) }
}

/// None: EAGAIN, or `EMPTY_READS_MAX` receives without payload.
fn receive_now(
    fd: RawFd,
    client: &Client,
    incoming: &mut Incoming,
    parts: &mut [IoSliceMut<'_>],
) -> Result<Option<usize>, Errno> {
    for _ in 0..EMPTY_READS_MAX {
        if let Some(errno) = incoming.error.take() {
            return Err(errno);
        }
        if incoming.end().is_some() {
            return Ok(Some(0));
        }
        match safe::receive(fd, parts, libc::MSG_DONTWAIT) {
            Ok(0) => return Ok(Some(0)),
            Ok(size) => {
                let payload_size = incoming.decode(parts, size);
                answer(fd, client, incoming);
                if payload_size > 0 {
                    // A server of edge-triggered events takes a short read for the last one before the next event.
                    if payload_size < size && size == parts.iter().map(|part| part.len()).sum() {
                        rearm(client);
                    }
                    put_nul(parts, payload_size);
                    return Ok(Some(payload_size));
                }
            }
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EIO) if client.is_tls() => take_notice(fd, client, incoming)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Receives a TLS record that is no payload, which ends the conversation.
#[cold]
fn take_notice(fd: RawFd, client: &Client, incoming: &mut Incoming) -> Result<(), Errno> {
    incoming.note(safe::receive_notice(fd)?);
    answer(fd, client, incoming);
    Ok(())
}

/// Writes a NUL after the payload if there is room: ouistiti's library did so, and servers written for it treat the
/// buffer as a C string.
fn put_nul(parts: &mut [IoSliceMut<'_>], mut size: usize) {
    for part in parts {
        match part.get_mut(size) {
            Some(byte) => return *byte = 0,
            None => size -= part.len(),
        }
    }
}

/// Handles a ping, or the end, that was just decoded.
fn answer(fd: RawFd, client: &Client, incoming: &mut Incoming) {
    if let Some(payload) = incoming.take_ping() {
        client.pong(fd, payload);
    }
    let refusal = match incoming.end() {
        None => return,
        // The server may still send messages: our close frame follows when it closes.
        Some(End::Closed(code)) => {
            client.note_close_frame(code);
            None
        }
        Some(End::Broke(error)) => Some(error.close_code()),
        Some(End::Notice(notice)) => notice.close_code(),
    };
    if let Some(code) = refusal {
        client.close(fd, code);
    }
    // From now on poll(2) reports the end of file that the next read returns.
    safe::end(fd, libc::SHUT_RD);
}

/// Waits for a byte in the mode of the call. EAGAIN: non-blocking, or SO_RCVTIMEO has passed.
pub(crate) fn wait_for_byte(fd: RawFd, flags: c_int) -> Result<(), Errno> {
    let mut byte = [0];
    let flags = libc::MSG_PEEK | flags & libc::MSG_DONTWAIT;
    match safe::receive(fd, &mut [IoSliceMut::new(&mut byte)], flags) {
        // A TLS record that is no payload is for the caller's receive.
        Ok(_) | Err(Errno::EIO) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The waits of one call. SO_RCVTIMEO limits them together: headers and control frames without payload do not restart
/// it.
struct Wait {
    flags: c_int,
    /// When the call first waited.
    start: Option<Instant>,
}

impl Wait {
    fn new(flags: c_int) -> Wait {
        Wait { flags, start: None }
    }

    /// Waits for bytes in the mode of the call. EAGAIN: non-blocking, or SO_RCVTIMEO has passed; unread bytes are
    /// possible even then.
    fn for_more(&mut self, fd: RawFd, client: &'static Client) -> Result<(), Errno> {
        match self.left(fd) {
            Some(left) => poll_for_byte(fd, left)?,
            None => wait_for_byte(fd, self.flags)?,
        }
        self.go_on(fd, client)
    }

    /// Waits until more than `size` bytes can be read.
    fn for_more_than(&mut self, fd: RawFd, client: &'static Client, size: usize) -> Result<(), Errno> {
        if self.left(fd).is_some_and(|left| left.is_zero()) {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = vec![0; size + 1];
        let flags = libc::MSG_PEEK | libc::MSG_WAITALL | self.flags & libc::MSG_DONTWAIT;
        match safe::receive(fd, &mut [IoSliceMut::new(&mut bytes)], flags)? {
            found if found > size => self.go_on(fd, client),
            // End of file, a timeout or a signal.
            _ => Err(Errno::EAGAIN),
        }
    }

    fn go_on(&self, fd: RawFd, client: &'static Client) -> Result<(), Errno> {
        if self.flags & libc::MSG_DONTWAIT == 0 && safe::is_blocking(fd) {
            return Ok(());
        }
        rearm(client);
        Err(Errno::EAGAIN)
    }

    /// The time left of SO_RCVTIMEO; None: the first wait, where the kernel applies it, or no timeout.
    fn left(&mut self, fd: RawFd) -> Option<Duration> {
        let Some(start) = self.start else {
            self.start = Some(Instant::now());
            return None;
        };
        let limit = safe::receive_limit(fd)?;
        (self.flags & libc::MSG_DONTWAIT == 0).then(|| limit.saturating_sub(start.elapsed()))
    }
}

/// EAGAIN: nothing was received in time.
fn poll_for_byte(fd: RawFd, time: Duration) -> Result<(), Errno> {
    let time_ms = i32::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
    if time.is_zero() || !safe::poll_readable(fd, time_ms)? { Err(Errno::EAGAIN) } else { Ok(()) }
}

fn rearm(client: &Client) {
    if let Ok(watches) = client.watches.lock() {
        watches.rearm();
    }
}

/// MSG_PEEK: like `receive`, but payload, end and error remain for the next read. Only headers and control frames
/// before the payload are consumed.
fn peek(
    fd: RawFd,
    client: &'static Client,
    parts: &mut [IoSliceMut<'_>],
    wanted_size: usize,
    flags: c_int,
) -> Result<usize, Errno> {
    let mut wait = Wait::new(flags);
    let mut bytes = vec![0; wanted_size.saturating_add(LOOK_SIZE).min(PEEK_SIZE_MAX)];
    loop {
        let (payload_size, raw_size) = match peek_now(fd, client, &mut bytes, wanted_size)? {
            Peeked::Payload { payload_size, raw_size } => (payload_size, raw_size),
            Peeked::End => return Ok(0),
            Peeked::Nothing => {
                wait.for_more(fd, client)?;
                continue;
            }
        };
        let is_enough = payload_size == wanted_size || flags & libc::MSG_WAITALL == 0 || raw_size == bytes.len();
        if is_enough || wait.for_more_than(fd, client, raw_size).is_err() {
            scatter(&bytes[..payload_size], parts);
            put_nul(parts, payload_size);
            return Ok(payload_size);
        }
    }
}

/// The result of `peek_now`.
enum Peeked {
    /// Bytes of payload, moved to the front, and bytes received with MSG_PEEK.
    Payload {
        payload_size: usize,
        raw_size: usize,
    },
    Nothing,
    End,
}

fn peek_now(fd: RawFd, client: &'static Client, bytes: &mut [u8], wanted_size: usize) -> Result<Peeked, Errno> {
    let mut incoming = lock(fd, client)?;
    for _ in 0..EMPTY_READS_MAX {
        if let Some(errno) = incoming.error {
            return Err(errno);
        }
        if incoming.end().is_some() {
            return Ok(Peeked::End);
        }
        let parts = &mut [IoSliceMut::new(bytes)];
        let raw_size = match safe::receive(fd, parts, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Ok(0) => return Ok(Peeked::End),
            Ok(size) => size,
            Err(Errno::EAGAIN) => return Ok(Peeked::Nothing),
            Err(Errno::EIO) if client.is_tls() => {
                take_notice(fd, client, &mut incoming)?;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        let mut copy = incoming.clone();
        let payload_size = copy.decode(parts, raw_size);
        if payload_size > 0 {
            return Ok(Peeked::Payload { payload_size: payload_size.min(wanted_size), raw_size });
        }
        match copy.end() {
            Some(End::Closed(_) | End::Notice(_)) => return Ok(Peeked::End),
            Some(End::Broke(_)) => return Err(Errno::ECONNRESET),
            None => {}
        }
        let taken_size = safe::receive(fd, &mut [IoSliceMut::new(&mut bytes[..raw_size])], libc::MSG_DONTWAIT)?;
        incoming.decode(&mut [IoSliceMut::new(bytes)], taken_size);
        answer(fd, client, &mut incoming);
    }
    Ok(Peeked::Nothing)
}

fn scatter(mut bytes: &[u8], parts: &mut [IoSliceMut<'_>]) {
    for part in parts {
        let (now, later) = bytes.split_at(bytes.len().min(part.len()));
        part[..now.len()].copy_from_slice(now);
        bytes = later;
    }
}

/// What a read would return, without waiting. Consumes headers and control frames before the payload.
pub(crate) fn look(fd: RawFd, client: &'static Client) -> Result<Found, Errno> {
    let mut incoming = lock(fd, client)?;
    for _ in 0..EMPTY_READS_MAX {
        if incoming.end().is_some() || incoming.error.is_some() {
            return Ok(Found::End);
        }
        let mut bytes = [0; LOOK_SIZE];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let size = match safe::receive(fd, &mut [IoSliceMut::new(&mut bytes)], flags) {
            Ok(0) => return Ok(Found::End),
            Ok(size) => size,
            Err(Errno::EAGAIN) => return Ok(Found::Nothing),
            Err(Errno::EIO) if client.is_tls() => {
                take_notice(fd, client, &mut incoming)?;
                return Ok(Found::End);
            }
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
    rearm(client);
    Ok(Found::Nothing)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Shutdown;
    use std::os::fd::AsRawFd as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

    use super::*;
    use crate::conversation::Conversation;
    use crate::waiting;

    /// A name, the client's bytes before its end of file, the payload, and the result after it.
    type Golden = (&'static str, Vec<u8>, &'static [u8], Result<(), Errno>);

    fn golden() -> Vec<Golden> {
        let frame = Conversation::frame;
        vec![
            (
                "messages",
                [frame(0x81, b"one"), frame(0x89, b"?"), frame(0x82, b"two\xff")].concat(),
                b"onetwo\xff",
                Ok(()),
            ),
            ("fragments", [frame(0x01, b"fr"), frame(0x00, b""), frame(0x80, b"agment")].concat(), b"fragment", Ok(())),
            ("a close", [frame(0x81, b"bye"), frame(0x88, b"\x0f\xa0"), frame(0x81, b"late")].concat(), b"bye", Ok(())),
            ("a close alone", frame(0x88, b"\x03\xe8"), b"", Ok(())),
            ("invalid text", frame(0x81, b"good\xffbad"), b"good", Err(Errno::ECONNRESET)),
            ("a text that is cut", frame(0x81, b"gr\xc3"), b"gr", Err(Errno::ECONNRESET)),
            ("invalid text alone", frame(0x81, b"\xff"), b"", Err(Errno::ECONNRESET)),
            ("no mask", [frame(0x82, b"good"), vec![0x82, 1, 7]].concat(), b"good", Err(Errno::ECONNRESET)),
            ("pings alone", [frame(0x89, b""), frame(0x8a, b"")].concat(), b"", Ok(())),
        ]
    }

    fn call(conversation: &Conversation, room: &mut [u8], flags: c_int) -> Result<usize, Errno> {
        receive(conversation.fd(), conversation.known, &mut [IoSliceMut::new(room)], flags)
    }

    /// For every split of the bytes, MSG_PEEK returns what the next read returns, and consumes no payload.
    #[test]
    fn a_look_finds_what_a_read_does() {
        for (name, bytes, payload, end) in golden() {
            for cut in 0..=bytes.len() {
                for (room, is_blocking) in [(1, true), (3, false), (100, true), (100, false)] {
                    let what = format!("{name}, cut at {cut}, room for {room}, blocking: {is_blocking}");
                    let conversation = Conversation::start(is_blocking);
                    let mut came = Vec::new();
                    for piece in [Some(&bytes[..cut]), Some(&bytes[cut..]), None] {
                        match piece {
                            Some(piece) => conversation.say(piece),
                            None => conversation.end(),
                        }
                        let result = loop {
                            let (mut seen, mut read) = (vec![b'-'; room], vec![0; room]);
                            let looked = call(&conversation, &mut seen, libc::MSG_PEEK | libc::MSG_DONTWAIT);
                            let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
                            assert_eq!(discard(conversation.fd(), conversation.known, room, flags), looked, "{what}");
                            let got = call(&conversation, &mut read, libc::MSG_DONTWAIT);
                            match (looked, got) {
                                (Ok(size @ 1..), Ok(read_size @ 1..)) => {
                                    assert!(read_size <= size, "{what}");
                                    assert_eq!(seen[..read_size], read[..read_size], "{what}");
                                    came.extend_from_slice(&read[..read_size]);
                                }
                                (looked, got) => {
                                    assert_eq!(looked, got, "{what}");
                                    break got;
                                }
                            }
                        };
                        match (piece, result) {
                            (_, Ok(0)) | (Some(_), Err(Errno::EAGAIN)) => {}
                            (_, Err(errno)) => {
                                assert_eq!(Err(errno), end, "{what}");
                                assert_eq!(conversation.read_all(), (vec![], Ok(())), "{what}: told once");
                            }
                            other => panic!("{what}: {other:?}"),
                        }
                    }
                    assert_eq!(came, payload, "{what}");
                }
            }
        }
    }

    /// tokio waits for the next event after a read that did not fill its buffer, although headers make each read shorter
    /// than what was received.
    #[test]
    fn a_short_read_of_a_server_of_edge_triggered_events() {
        for room in [1, 7, 20, 64, 1000] {
            let conversation = Conversation::start(false);
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
            epoll.add(conversation.server(), event).unwrap();
            let event = libc::epoll_event { events: event.events().bits() as u32, u64: 0 };
            waiting::epoll::note(epoll.0.as_raw_fd(), libc::EPOLL_CTL_ADD, conversation.fd(), Some(event));
            let message = [b'x'; 200];
            let bytes = [[0x02, 0x00, 0x80].map(|first| Conversation::frame(first, &message)).concat(), vec![0x89]];
            conversation.say(&bytes.concat());
            let (mut read_size, mut reads) = (0, 0);
            while read_size < 3 * message.len() {
                let count = epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).unwrap();
                assert_eq!(count, 1, "room for {room}: after {reads} reads and {read_size} bytes there is no event");
                loop {
                    let size = call(&conversation, &mut vec![0; room], 0).unwrap();
                    (read_size, reads) = (read_size + size, reads + 1);
                    if size < room || read_size == 3 * message.len() {
                        break;
                    }
                }
            }
        }
    }

    /// For every split of the bytes, MSG_WAITALL returns all payload; a protocol error is left to the next call.
    #[test]
    fn all_is_waited_for() {
        for (name, bytes, payload, end) in golden() {
            for cut in 0..=bytes.len() {
                let conversation = Conversation::start(true);
                let mut client = conversation.client.try_clone().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        client.write_all(&bytes[..cut]).unwrap();
                        thread::yield_now();
                        client.write_all(&bytes[cut..]).unwrap();
                        client.shutdown(Shutdown::Write).unwrap();
                    });
                    let what = format!("{name}, cut at {cut}");
                    let mut room = vec![0; payload.len() + 10];
                    let expected = if payload.is_empty() { end.map(|()| 0) } else { Ok(payload.len()) };
                    for flags in [libc::MSG_WAITALL | libc::MSG_PEEK, libc::MSG_WAITALL] {
                        room.fill(0);
                        assert_eq!(call(&conversation, &mut room, flags), expected, "{what}");
                        assert!(room.starts_with(payload), "{what}");
                    }
                    if !payload.is_empty() {
                        assert_eq!(call(&conversation, &mut room, 0), end.map(|()| 0), "{what}");
                    }
                    assert_eq!(call(&conversation, &mut room, libc::MSG_WAITALL), Ok(0), "{what}");
                });
            }
        }
    }

    /// Pings wake a read, but SO_RCVTIMEO limits the whole call.
    #[test]
    fn pings_do_not_prolong_a_wait() {
        for flags in [0, libc::MSG_PEEK, libc::MSG_WAITALL, libc::MSG_TRUNC] {
            let conversation = Conversation::start(true);
            let server = conversation.server();
            server.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                let pinging = scope.spawn(|| {
                    let mut client = &conversation.client;
                    while !is_over.load(Ordering::Relaxed) {
                        client.write_all(&Conversation::frame(0x89, b"")).unwrap();
                        thread::sleep(Duration::from_millis(5));
                    }
                });
                let result = if flags & libc::MSG_TRUNC == 0 {
                    call(&conversation, &mut [0; 8], flags)
                } else {
                    discard(conversation.fd(), conversation.known, 8, flags)
                };
                is_over.store(true, Ordering::Relaxed);
                // Pings that filled the socket while this thread stood still must not hold the other up.
                while !pinging.is_finished() {
                    let _ = call(&conversation, &mut [0; 8], libc::MSG_DONTWAIT);
                }
                assert_eq!(result, Err(Errno::EAGAIN), "{flags:x}");
            });
        }
    }
}
