//! `relay_epoll`: the same relay with epoll, the lower bound for any proxy that does not use io_uring: one read and one
//! write for each received piece, one epoll_wait for all sockets that are ready. It does not inspect the bytes.
//!
//! One thread, level-triggered: edge-triggered epoll was measured and cost the same. All sockets share one buffer,
//! since a piece is sent before the next one is received. A side that does not take its bytes stops the reading of the
//! other side, and these bytes are kept, at most one buffer of them.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, Shutdown, SockFlag, accept4, recv, send, shutdown};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use uakari_bench::args::Args;
use uakari_bench::{Result, exit_code, listen};

const USAGE: &str = "relay_epoll --listen HOST:PORT --unix PATH";
const BUFFER_SIZE: usize = 64 * 1024;
const EVENTS_MAX: usize = 256;
const LISTENER: u64 = u64::MAX;
const CLIENT: usize = 0;
const BACKEND: usize = 1;

fn main() -> ExitCode {
    exit_code(USAGE, run())
}

fn run() -> Result<()> {
    let args = Args::from_env(&["listen", "unix"], &[])?;
    let backend = PathBuf::from(args.required("unix")?);
    let listener = listen::bind(args.required("listen")?)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    println!("listening on {}", listener.local_addr()?);
    let (pairs, free, buffer) = (Vec::new(), Vec::new(), vec![0; BUFFER_SIZE]);
    let mut relay = Relay { epoll, listener, backend, pairs, free, buffer };
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    loop {
        relay.turn(&mut events)?;
    }
}

struct Relay {
    epoll: Epoll,
    listener: TcpListener,
    backend: PathBuf,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn turn(&mut self, events: &mut [EpollEvent]) -> Result<()> {
        let count = match self.epoll.wait(events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept()?,
                bits => self.on_event((bits >> 1) as usize, (bits & 1) as usize, event.events())?,
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let fd = match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Err(Errno::EAGAIN) => return Ok(()),
                other => other.map_err(|error| format!("accept: {error}"))?,
            };
            // SAFETY: the kernel has just made this descriptor, for us alone.
            let client = unsafe { OwnedFd::from_raw_fd(fd) };
            // Blocks until the backend's listen queue has room. If the backend refuses, the client is closed.
            let Ok(backend) = UnixStream::connect(&self.backend) else { continue };
            let slot = self.free.pop().unwrap_or(self.pairs.len());
            if slot == self.pairs.len() {
                self.pairs.push(None);
            }
            let pair = Pair { sides: [client, backend.into()].map(Side::new) };
            for side in [CLIENT, BACKEND] {
                self.epoll.add(&pair.sides[side].fd, event(EpollFlags::EPOLLIN, slot, side))?;
            }
            self.pairs[slot] = Some(pair);
        }
    }

    fn on_event(&mut self, slot: usize, side: usize, flags: EpollFlags) -> Result<()> {
        let Some(pair) = self.pairs[slot].as_mut() else { return Ok(()) };
        // An error of one connection ends only its pair.
        if pair.on_event(side, flags, &mut self.buffer).is_err() || pair.is_over() {
            self.pairs[slot] = None;
            self.free.push(slot);
            return Ok(());
        }
        for side in [CLIENT, BACKEND] {
            let interest = pair.interest(side);
            let end = &mut pair.sides[side];
            if interest != end.interest {
                end.interest = interest;
                self.epoll.modify(&end.fd, &mut event(interest, slot, side))?;
            }
        }
        Ok(())
    }
}

fn event(interest: EpollFlags, slot: usize, side: usize) -> EpollEvent {
    EpollEvent::new(interest, (slot as u64) << 1 | side as u64)
}

/// A client and its backend.
struct Pair {
    sides: [Side; 2],
}

/// One end of a pair. Its socket is a blocking one, used only with MSG_DONTWAIT.
struct Side {
    fd: OwnedFd,
    /// What epoll reports of it.
    interest: EpollFlags,
    /// Bytes that the socket has not taken; usually empty.
    waiting: Vec<u8>,
    /// It has sent its end of file.
    has_ended: bool,
}

impl Pair {
    /// Handles an event. The flags may be those of an earlier pair in this slot, so they only tell what to try.
    fn on_event(&mut self, side: usize, flags: EpollFlags, buffer: &mut [u8]) -> nix::Result<()> {
        let broken = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if flags.intersects(EpollFlags::EPOLLOUT | broken) && !self.sides[side].waiting.is_empty() {
            self.send_waiting(side)?;
        }
        let may_receive = self.interest(side).contains(EpollFlags::EPOLLIN);
        if flags.intersects(EpollFlags::EPOLLIN | broken) && may_receive {
            self.relay(side, buffer)?;
        }
        Ok(())
    }

    /// Receives from `side` once and sends to the other side.
    fn relay(&mut self, side: usize, buffer: &mut [u8]) -> nix::Result<()> {
        let size = match recv(self.sides[side].fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => return Ok(()),
            other => other?,
        };
        if size == 0 {
            self.sides[side].has_ended = true;
            self.pass_end_to(1 - side);
            return Ok(());
        }
        let other = &mut self.sides[1 - side];
        let sent = other.send(&buffer[..size])?;
        other.waiting.extend_from_slice(&buffer[sent..size]);
        Ok(())
    }

    fn send_waiting(&mut self, side: usize) -> nix::Result<()> {
        let end = &mut self.sides[side];
        let sent = end.send(&end.waiting)?;
        end.waiting.drain(..sent);
        if self.sides[1 - side].has_ended {
            self.pass_end_to(side);
        }
        Ok(())
    }

    /// Passes an end of file on to `side` after its last bytes, unless both ends are about to be closed anyway.
    fn pass_end_to(&self, side: usize) {
        let end = &self.sides[side];
        if end.waiting.is_empty() && !end.has_ended {
            // Ignore an error: it may be disconnected already.
            let _ = shutdown(end.fd.as_raw_fd(), Shutdown::Write);
        }
    }

    fn is_over(&self) -> bool {
        self.sides.iter().all(|side| side.has_ended && side.waiting.is_empty())
    }

    /// What epoll is to report of this side.
    fn interest(&self, side: usize) -> EpollFlags {
        let (end, other) = (&self.sides[side], &self.sides[1 - side]);
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !end.has_ended && other.waiting.is_empty());
        interest.set(EpollFlags::EPOLLOUT, !end.waiting.is_empty());
        // A hang-up cannot be left out. Edge-triggered, it is reported only once.
        interest.set(EpollFlags::EPOLLET, interest.is_empty());
        interest
    }
}

impl Side {
    fn new(fd: OwnedFd) -> Side {
        Side { fd, interest: EpollFlags::EPOLLIN, waiting: Vec::new(), has_ended: false }
    }

    /// Sends what fits into the send buffer. Returns its size.
    fn send(&self, bytes: &[u8]) -> nix::Result<usize> {
        match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EAGAIN) => Ok(0),
            other => other,
        }
    }
}
