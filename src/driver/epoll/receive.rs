//! Operations that read: accepts and receives. They are attempted while their descriptor is readable.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, MsgFlags, SockFlag};

use super::Epoll;
use super::sockets::{Reading, Registration, SocketKind};
use crate::driver::{Event, Receive, Received, Token, connect, descriptors};
use crate::limits::{ACCEPTS_PER_WAIT_MAX, PACKETS_PER_WAIT_MAX, POOL_HEADROOM};
use crate::types::Address;

/// What a system call received.
enum Got {
    /// Bytes. `is_all`: nothing was left, unless the peer has ended.
    Bytes { size: usize, is_all: bool },
    /// A packet, which may be empty.
    Packet { size: usize },
    /// The end of the stream.
    End,
}

impl Epoll {
    /// Begins an operation that reads. It is attempted by the next `wait`, and when the descriptor becomes readable.
    pub(super) fn arm(&mut self, token: Token, fd: &OwnedFd, reading: Reading) {
        let number = fd.as_raw_fd();
        let socket = self.sockets.at(number);
        match reading {
            // A socket that does not listen may never be readable, and is to fail at once.
            Reading::Accept => (socket.kind, socket.is_readable) = (SocketKind::Listener, true),
            Reading::Receive(Receive::Device) => socket.kind = SocketKind::Device,
            _ => {}
        }
        socket.arm(token, reading);
        self.sockets.remember(token.slot, number);
        // A connection may vanish between the event and the accept (accept(2)).
        let is_set = if reading == Reading::Accept { connect::set_blocking(fd, false) } else { Ok(()) };
        if let Err(errno) = is_set.and_then(|()| self.register(number, false)) {
            self.fail_reading(number, errno);
        } else if self.sockets.at(number).is_readable {
            self.add_due(number);
        }
    }

    fn add_due(&mut self, fd: RawFd) {
        if !std::mem::replace(&mut self.sockets.at(fd).is_due, true) {
            self.due.push(fd);
        }
    }

    /// Attempts the operation that reads a readable descriptor, up to a limit; the rest is due in the next `wait`.
    pub(super) fn try_reading(&mut self, fd: RawFd) {
        let tries = match self.sockets.at(fd).reading {
            Reading::Accept => ACCEPTS_PER_WAIT_MAX,
            Reading::Receive(Receive::Packets) => PACKETS_PER_WAIT_MAX,
            // A stream has filled its buffer, which is sent while the processor's caches have it.
            Reading::Nothing | Reading::Receive(_) => 1,
        };
        for _ in 0..tries {
            let socket = self.sockets.at(fd);
            match socket.reading {
                Reading::Accept if socket.is_readable => self.accept_one(fd),
                Reading::Receive(how) if socket.is_readable => self.receive_one(fd, how),
                _ => return,
            }
        }
        if self.sockets.at(fd).has_reading_to_do() {
            self.add_due(fd);
        }
    }

    fn accept_one(&mut self, fd: RawFd) {
        let client = match socket::accept4(fd, SockFlag::SOCK_CLOEXEC).map(descriptors::own) {
            Err(Errno::EAGAIN) => return self.sockets.at(fd).is_readable = false,
            Err(errno) => return self.fail_reading(fd, errno),
            Ok(client) => client,
        };
        let address = connect::peer_address(&client);
        let kind = if matches!(address, Address::Tcp(_)) { SocketKind::Tcp } else { SocketKind::Unix };
        self.sockets.begin(client.as_raw_fd(), kind);
        let token = self.sockets.at(fd).token();
        self.push(token, Event::Accepted { result: Ok((client, address)), more: true });
    }

    fn receive_one(&mut self, fd: RawFd, how: Receive) {
        let share = how.share();
        let pool = &mut self.pools[share as usize];
        let Some(mut lease) = pool.take() else { return self.fail_reading(fd, Errno::ENOBUFS) };
        let room = &mut pool.buffer(&lease)[POOL_HEADROOM..];
        let socket = self.sockets.at(fd);
        let got = match (how, socket.kind) {
            (Receive::Packets, _) => receive_packet(fd, room),
            (Receive::Device, _) => read_device(fd, room),
            (_, SocketKind::Tcp) => receive_from_tcp(fd, room),
            _ => receive_from_unix(fd, room),
        };
        if let Ok(Got::Bytes { size, .. } | Got::Packet { size }) = got {
            if let Ok(Got::Bytes { is_all: true, .. }) = got {
                socket.is_readable = socket.is_greedy;
            }
            lease.end += size as u32;
            let more = matches!(how, Receive::Multishot | Receive::Packets);
            let token = socket.token();
            if !more {
                socket.reading = Reading::Nothing;
            }
            return self.push(token, Event::Received { result: Received::Data(lease), more });
        }
        pool.release(lease);
        match got {
            Err(Errno::EAGAIN) if socket.registration != Registration::Unpollable => socket.is_readable = false,
            // The next attempt receives.
            Err(Errno::EINTR) => {}
            Err(errno) => self.fail_reading(fd, errno),
            Ok(_) => self.end_reading(fd, Received::End),
        }
    }

    /// Completes the operation that reads with an error.
    fn fail_reading(&mut self, fd: RawFd, errno: Errno) {
        self.end_reading(fd, Received::Failed(errno));
    }

    /// Completes the operation that reads for the last time.
    fn end_reading(&mut self, fd: RawFd, result: Received) {
        let socket = self.sockets.at(fd);
        let token = socket.token();
        let reading = std::mem::take(&mut socket.reading);
        let event = match (reading, result) {
            (Reading::Accept, Received::Failed(errno)) => Event::Accepted { result: Err(errno), more: false },
            (_, result) => Event::Received { result, more: false },
        };
        self.push(token, event);
    }

    /// Cancels the operation that reads with this token.
    pub(super) fn cancel_reading(&mut self, token: Token) {
        let fd = self.sockets.of_slot(token.slot);
        if let Some(fd) = fd.filter(|fd| self.sockets.at(*fd).is_read_by(token)) {
            self.fail_reading(fd, Errno::ECANCELED);
        }
    }
}

fn receive_from_tcp(fd: RawFd, room: &mut [u8]) -> Result<Got, Errno> {
    Ok(match socket::recv(fd, room, MsgFlags::MSG_DONTWAIT)? {
        0 => Got::End,
        size => Got::Bytes { size, is_all: size < room.len() },
    })
}

/// A receive from a UNIX socket ends early, after bytes that were sent with descriptors (unix(7)). Without space for the
/// descriptors the kernel closes them, and sets MSG_CTRUNC.
fn receive_from_unix(fd: RawFd, room: &mut [u8]) -> Result<Got, Errno> {
    let capacity = room.len();
    let mut parts = [IoSliceMut::new(room)];
    let message = socket::recvmsg::<()>(fd, &mut parts, None, MsgFlags::MSG_DONTWAIT)?;
    Ok(match message.bytes {
        0 => Got::End,
        size => Got::Bytes { size, is_all: size < capacity && !message.flags.contains(MsgFlags::MSG_CTRUNC) },
    })
}

/// Space for the control message of a packet, aligned as its header needs (cmsg(3)).
#[repr(align(8))]
struct Control([u8; connect::PACKET_CONTROL_SIZE]);

fn receive_packet(fd: RawFd, room: &mut [u8]) -> Result<Got, Errno> {
    let size = room.len() - connect::PACKET_PREFIX_SIZE;
    let room = &mut room[..size];
    let mut control = Control([0; connect::PACKET_CONTROL_SIZE]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let mut parts = [IoSliceMut::new(room)];
    let message = socket::recvmsg::<()>(fd, &mut parts, Some(&mut control.0), flags)?;
    // Control data that was cut was more than the timestamp, so there was a packet.
    let is_packet = message.bytes > 0 || message.cmsgs().map_or(true, |mut all| all.next().is_some());
    match (is_packet, message.flags.contains(MsgFlags::MSG_TRUNC)) {
        (false, _) => Ok(Got::End),
        (true, true) => Err(Errno::EMSGSIZE),
        (true, false) => Ok(Got::Packet { size: message.bytes }),
    }
}

/// A read of a device may be short although more is there (pipe(7), O_DIRECT; termios(3)).
fn read_device(fd: RawFd, room: &mut [u8]) -> Result<Got, Errno> {
    // SAFETY: the buffer is writable over its whole length.
    let result = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
    Ok(match Errno::result(result)? {
        0 => Got::End,
        size => Got::Bytes { size: size as usize, is_all: false },
    })
}
