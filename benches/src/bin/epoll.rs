//! `epoll`: the minimum cost of a TCP echo with epoll: one read and one write per event. It does
//! not inspect the bytes, so it is the lower bound for a backend in direct mode.
//!
//! One thread, level-triggered. A client that does not read its replies is not read from.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use uakari_bench::args::Args;
use uakari_bench::{Result, exit_code, listen};

const USAGE: &str = "epoll --listen HOST:PORT";
/// A message of 64 KiB.
const BUFFER_SIZE: usize = 64 * 1024;
const EVENTS_MAX: usize = 64;
const LISTENER: u64 = u64::MAX;

fn main() -> ExitCode {
    exit_code(USAGE, run())
}

fn run() -> Result<()> {
    let args = Args::from_env(&["listen"], &[])?;
    let listener = listen::bind(args.required("listen")?)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    println!("listening on {}", listener.local_addr()?);
    let mut server = Server { epoll, listener, clients: Vec::new(), free: Vec::new(), buffer: vec![0; BUFFER_SIZE] };
    loop {
        server.turn()?;
    }
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Server {
    fn turn(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept()?,
                slot => self.on_client(slot as usize)?,
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("accept: {error}").into()),
        };
        stream.set_nonblocking(true)?;
        let slot = self.free.pop().unwrap_or(self.clients.len());
        if slot == self.clients.len() {
            self.clients.push(None);
        }
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
        self.clients[slot] = Some(Client { stream, waiting: Vec::new() });
        Ok(())
    }

    fn on_client(&mut self, slot: usize) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else { return Ok(()) };
        let was_waiting = !client.waiting.is_empty();
        // An error of one connection ends only that connection.
        if !client.echo(&mut self.buffer).unwrap_or(false) {
            self.clients[slot] = None;
            self.free.push(slot);
            return Ok(());
        }
        let is_waiting = !client.waiting.is_empty();
        if is_waiting != was_waiting {
            let interest = if is_waiting { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll.modify(&client.stream, &mut EpollEvent::new(interest, slot as u64))?;
        }
        Ok(())
    }
}

struct Client {
    stream: TcpStream,
    /// Replies that the socket has not taken; usually empty.
    waiting: Vec<u8>,
}

impl Client {
    /// One read and one write, or a write of queued replies. False: the client has ended.
    fn echo(&mut self, buffer: &mut [u8]) -> IoResult<bool> {
        if !self.waiting.is_empty() {
            let sent = self.write(&self.waiting)?;
            self.waiting.drain(..sent);
            return Ok(true);
        }
        let size = match self.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            other => other?,
        };
        let sent = self.write(&buffer[..size])?;
        self.waiting.extend_from_slice(&buffer[sent..size]);
        Ok(size > 0)
    }

    fn write(&self, bytes: &[u8]) -> IoResult<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match (&self.stream).write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}
