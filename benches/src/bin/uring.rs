//! `uring`: the same echo over TCP on io_uring: multishot accept, multishot receive from
//! provided buffers, each received buffer is sent back unchanged, one submit per turn.

#[path = "relay/buffers.rs"]
mod buffers;
#[path = "relay/ring.rs"]
mod ring;

use buffers::Buffers;
use nix::errno::Errno;
use ring::{Done, Ring, Token};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use uakari_bench::args::Args;
use uakari_bench::{Result, exit_code, listen};

const USAGE: &str = "uring --listen HOST:PORT";
/// More buffers than busy clients need would only evict cache lines.
const BUFFERS: u16 = 64;
/// The only side of an echo.
const SIDE: usize = 0;

fn main() -> ExitCode {
    exit_code(USAGE, run())
}

fn run() -> Result<()> {
    let args = Args::from_env(&["listen"], &[])?;
    let listener = listen::bind(args.required("listen")?)?;
    let mut ring = Ring::new()?;
    let buffers = Buffers::lend(&ring.inner, 0, BUFFERS)?;
    ring.accept(listener.as_fd())?;
    println!("listening on {}", listener.local_addr()?);
    let (clients, free, starving) = (Vec::new(), Vec::new(), VecDeque::new());
    let mut server = Server { ring, listener, buffers, clients, free, starving };
    let mut all = Vec::new();
    loop {
        server.ring.turn(&mut all)?;
        for done in all.drain(..) {
            server.on_done(done)?;
        }
    }
}

struct Server {
    ring: Ring,
    listener: TcpListener,
    buffers: Buffers,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    /// Slots whose receive ended with ENOBUFS.
    starving: VecDeque<usize>,
}

/// A received buffer, to be sent back.
#[derive(Clone, Copy)]
struct Chunk {
    buffer: u16,
    size: u32,
    sent: u32,
}

struct Client {
    fd: OwnedFd,
    is_receiving: bool,
    is_sending: bool,
    /// The client has ended, or its connection is broken.
    is_over: bool,
    queue: VecDeque<Chunk>,
}

impl Server {
    fn on_done(&mut self, done: Done) -> Result<()> {
        match done.token {
            Token::Close => Ok(()),
            Token::Accept => self.on_accept(done),
            Token::Receive { slot, .. } => {
                self.on_receive(slot, done)?;
                self.close_if_over(slot)
            }
            Token::Send { slot, .. } => {
                self.on_send(slot, done.result)?;
                self.close_if_over(slot)
            }
        }
    }

    fn on_accept(&mut self, done: Done) -> Result<()> {
        if done.result < 0 {
            return Err(format!("accept: {}", Errno::from_raw(-done.result)).into());
        }
        if !done.more {
            self.ring.accept(self.listener.as_fd())?;
        }
        // SAFETY: the kernel has just made this descriptor, for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(done.result) };
        let slot = self.free.pop().unwrap_or(self.clients.len());
        if slot == self.clients.len() {
            self.clients.push(None);
        }
        let queue = VecDeque::new();
        self.clients[slot] = Some(Client { fd, is_receiving: false, is_sending: false, is_over: false, queue });
        self.receive(slot)
    }

    fn receive(&mut self, slot: usize) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else { return Ok(()) };
        client.is_receiving = true;
        self.ring.receive(client.fd.as_fd(), &self.buffers, Token::Receive { slot, side: SIDE })
    }

    fn on_receive(&mut self, slot: usize, done: Done) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else { return Err("a receive for nobody".into()) };
        client.is_receiving = done.more;
        match done.buffer {
            Some(buffer) if client.is_over || done.result <= 0 => self.buffers.give_back(buffer),
            Some(buffer) => client.queue.push_back(Chunk { buffer, size: done.result as u32, sent: 0 }),
            None => {}
        }
        if !done.more && !client.is_over {
            match done.result {
                1.. => self.receive(slot)?,
                error if error == -(Errno::ENOBUFS as i32) => self.starving.push_back(slot),
                _ => client.is_over = true,
            }
        }
        self.send(slot)
    }

    /// Sends the first queued chunk, unless a send is in flight.
    fn send(&mut self, slot: usize) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else { return Ok(()) };
        let Some(chunk) = client.queue.front().filter(|_| !client.is_sending) else { return Ok(()) };
        client.is_sending = true;
        let bytes = (self.buffers.address(chunk.buffer, chunk.sent), chunk.size - chunk.sent);
        self.ring.send(client.fd.as_fd(), bytes, Token::Send { slot, side: SIDE })
    }

    fn on_send(&mut self, slot: usize, result: i32) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else { return Err("a send for nobody".into()) };
        client.is_sending = false;
        let Some(chunk) = client.queue.front_mut() else { return Err("a send of nothing".into()) };
        chunk.sent += result.max(0) as u32;
        if result <= 0 {
            client.is_over = true;
            for chunk in std::mem::take(&mut client.queue) {
                self.give_back(chunk.buffer)?;
            }
        } else if chunk.sent == chunk.size {
            let buffer = chunk.buffer;
            client.queue.pop_front();
            self.give_back(buffer)?;
        }
        self.send(slot)
    }

    /// Returns a buffer, and restarts a receive that ended with ENOBUFS.
    fn give_back(&mut self, buffer: u16) -> Result<()> {
        self.buffers.give_back(buffer);
        self.starving.pop_front().map_or(Ok(()), |slot| self.receive(slot))
    }

    fn close_if_over(&mut self, slot: usize) -> Result<()> {
        let is_done = |client: &mut Client| client.is_over && !client.is_sending && client.queue.is_empty();
        // After a failed send, the receive ends too, since the connection is broken.
        let Some(client) = self.clients[slot].take_if(|client| is_done(client) && !client.is_receiving) else {
            return Ok(());
        };
        self.starving.retain(|other| *other != slot);
        self.free.push(slot);
        self.ring.close(client.fd)
    }
}
