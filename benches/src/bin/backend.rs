//! `backend`: an echo server on a UNIX stream socket, the backend of a proxy.
//!
//! Mode raw echoes bytes. Mode ws answers the HTTP upgrade and echoes frames while it receives
//! them, pings and close frames included. It trusts its clients, the load generator.
//! One thread, level-triggered epoll; one write for all replies to one read. A client that
//! does not read its replies is not read from.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{Backlog, listen};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use uakari_bench::args::Args;
use uakari_bench::frame::{self, Decoder, Header, Piece};
use uakari_bench::{Result, exit_code, handshake};

const USAGE: &str = "backend --unix PATH --mode raw|ws";
const BUFFER_SIZE: usize = 256 * 1024;
const EVENTS_MAX: usize = 256;
const LISTENER: u64 = u64::MAX;

fn main() -> ExitCode {
    exit_code(USAGE, run())
}

fn run() -> Result<()> {
    let args = Args::from_env(&["unix", "mode"], &[])?;
    let path = args.required("unix")?;
    let websocket = match args.required("mode")? {
        "raw" => false,
        "ws" => true,
        other => return Err(format!("mode {other}?").into()),
    };
    let mut server = Server::listen(Path::new(path), websocket)?;
    println!("listening on {path}");
    loop {
        server.turn()?;
    }
}

struct Server {
    epoll: Epoll,
    listener: UnixListener,
    websocket: bool,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    replies: Vec<u8>,
}

/// The outcome of an event for a client.
#[derive(PartialEq)]
enum Next {
    Stay,
    Watch(EpollFlags),
    Drop,
}

impl Server {
    fn listen(path: &Path, websocket: bool) -> Result<Server> {
        if path.exists() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        listen(&listener, Backlog::new(4096)?)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Server {
            epoll,
            listener,
            websocket,
            clients: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; BUFFER_SIZE],
            replies: Vec::new(),
        })
    }

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
        loop {
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
            let event = EpollEvent::new(EpollFlags::EPOLLIN, slot as u64);
            self.epoll.add(&stream, event)?;
            self.clients[slot] = Some(Client::new(stream, self.websocket));
        }
    }

    fn on_client(&mut self, slot: usize) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else {
            return Ok(());
        };
        let next = if client.waiting.is_empty() {
            client.readable(&mut self.buffer, &mut self.replies)
        } else {
            client.writable()
        };
        // An error of one connection ends only that connection.
        match next.unwrap_or(Next::Drop) {
            Next::Stay => {}
            Next::Watch(interest) => {
                let mut event = EpollEvent::new(interest, slot as u64);
                self.epoll.modify(&client.stream, &mut event)?;
            }
            Next::Drop => {
                self.clients[slot] = None;
                self.free.push(slot);
            }
        }
        Ok(())
    }
}

struct Client {
    stream: UnixStream,
    /// Replies that the socket has not taken; usually empty.
    waiting: Vec<u8>,
    /// Close the connection when these are sent.
    ending: bool,
    session: Option<Box<Session>>,
}

impl Client {
    fn new(stream: UnixStream, websocket: bool) -> Client {
        Client { stream, waiting: Vec::new(), ending: false, session: websocket.then(Box::default) }
    }

    fn readable(&mut self, buffer: &mut [u8], replies: &mut Vec<u8>) -> Result<Next> {
        let size = match self.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Stay),
            other => other?,
        };
        if size == 0 {
            return Ok(Next::Drop);
        }
        let Some(session) = &mut self.session else {
            return self.send(&buffer[..size]);
        };
        replies.clear();
        session.on_bytes(&buffer[..size], replies)?;
        self.ending = session.closed;
        self.send(replies)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<Next> {
        let sent = self.write(bytes)?;
        if sent < bytes.len() {
            self.waiting = bytes[sent..].to_vec();
            return Ok(Next::Watch(EpollFlags::EPOLLOUT));
        }
        Ok(if self.ending { Next::Drop } else { Next::Stay })
    }

    fn writable(&mut self) -> Result<Next> {
        let waiting = std::mem::take(&mut self.waiting);
        let next = self.send(&waiting)?;
        let sent = next == Next::Stay;
        Ok(if sent { Next::Watch(EpollFlags::EPOLLIN) } else { next })
    }

    /// Writes until the socket is full. Returns the number of bytes written.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(size) => sent += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }
}

/// The WebSocket side of a client.
#[derive(Default)]
struct Session {
    head: Vec<u8>,
    open: bool,
    closed: bool,
    decoder: Decoder,
    header: Header,
}

impl Session {
    fn on_bytes(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Result<()> {
        if self.open {
            return self.on_frames(bytes, replies);
        }
        self.head.extend_from_slice(bytes);
        let Some(size) = handshake::head_size(&self.head) else {
            return Ok(());
        };
        let bytes = std::mem::take(&mut self.head);
        let head = std::str::from_utf8(&bytes[..size])?;
        let key = handshake::header(head, "sec-websocket-key").ok_or("no key")?;
        replies.extend_from_slice(handshake::answer(key).as_bytes());
        self.open = true;
        self.on_frames(&bytes[size..], replies)
    }

    fn on_frames(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Result<()> {
        let mut at = 0;
        while let Some(piece) = self.decoder.next(bytes, &mut at) {
            let complete = match piece {
                Piece::Header(header) => {
                    self.on_header(header, replies)?;
                    header.length == 0
                }
                Piece::Payload { range, offset, last } => {
                    self.on_payload(&bytes[range], offset, replies);
                    last
                }
            };
            self.closed |= complete && self.header.opcode == frame::CLOSE;
        }
        Ok(())
    }

    /// The reply's header goes out before its payload is complete.
    fn on_header(&mut self, header: Header, replies: &mut Vec<u8>) -> Result<()> {
        if header.mask.is_none() || self.closed {
            return Err("an unmasked frame, or one after the close".into());
        }
        self.header = header;
        let opcode = match header.opcode {
            frame::PONG => return Ok(()),
            frame::PING => frame::PONG,
            other => other,
        };
        let reply = Header { opcode, mask: None, ..header };
        reply.append(replies);
        Ok(())
    }

    fn on_payload(&self, payload: &[u8], offset: u64, replies: &mut Vec<u8>) {
        if self.header.opcode == frame::PONG {
            return;
        }
        let begin = replies.len();
        replies.extend_from_slice(payload);
        let key = self.header.mask.unwrap_or_default();
        rfc6455::mask::apply(&mut replies[begin..], key, offset);
    }
}
