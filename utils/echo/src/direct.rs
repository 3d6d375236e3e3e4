//! Direct mode: the gateway hands over the clients' own connections, and the server speaks WebSocket through the package
//! `websocket`. One epoll(7) loop for all clients.

use std::collections::VecDeque;
use std::io::{Write as _, stdout};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use server::limits::CLOSE_MS;
use server::listener::{Accepted, Listener, close_all};
use server::record::{describe, parse_hello};
use server::stop;
use websocket::deadline::Deadline;
use websocket::{Buffer, Client, CloseCode, Error};

use crate::limits::EVENTS_MAX;
use crate::{Options, clients_max};

/// Tokens that are no index of a client.
const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;

struct Server<'o> {
    options: &'o Options,
    epoll: Epoll,
    listener: Listener,
    is_accepting: bool,
    /// A client's token is its index.
    clients: Vec<Option<Served>>,
    /// Free indexes.
    free: Vec<usize>,
    /// Clients in their close handshake, by deadline.
    closing: VecDeque<(Deadline, usize)>,
    buffer: Buffer,
    has_answered: bool,
}

struct Served {
    client: Box<Client>,
    /// Events that epoll watches for.
    interest: EpollFlags,
    /// Deadline of the close handshake; None: the client is served.
    close_by: Option<Deadline>,
}

/// Serves until a stop signal, or with `-t` until one answer was sent. The stop signals have to be blocked.
pub(crate) fn serve(listener: Listener, options: &Options) -> Result<(), String> {
    let failed = |errno: Errno| format!("epoll: {}", errno.desc());
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
    let signals = stop::descriptor().map_err(failed)?;
    epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS)).map_err(failed)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).map_err(failed)?;
    let mut server = Server {
        options,
        epoll,
        listener,
        is_accepting: true,
        clients: Vec::new(),
        free: Vec::new(),
        closing: VecDeque::new(),
        buffer: Buffer::new(),
        has_answered: false,
    };
    while !(options.own.once && server.has_answered) {
        if !server.turn().map_err(failed)? {
            break;
        }
    }
    let clients = server.clients.into_iter().flatten().map(|served| served.client).collect();
    close_all(clients, if options.own.once { CloseCode::NORMAL } else { CloseCode::GOING_AWAY });
    Ok(())
}

impl Server<'_> {
    /// Waits for events and handles them. False: a stop signal arrived.
    fn turn(&mut self) -> Result<bool, Errno> {
        self.set_accepting()?;
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, self.timeout()) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        for event in &events[..count] {
            match event.data() {
                SIGNALS => return Ok(false),
                LISTENER => self.accept()?,
                token => self.serve_client(token as usize)?,
            }
        }
        self.drop_overdue();
        Ok(true)
    }

    /// Drops clients that have not finished their close handshake in time.
    fn drop_overdue(&mut self) {
        while let Some((_, index)) = self.closing.front().copied().filter(|(deadline, _)| deadline.is_over()) {
            self.closing.pop_front();
            // Another client may have the index by now.
            let close_by = self.clients.get(index).and_then(Option::as_ref).and_then(|served| served.close_by);
            if close_by.is_some_and(Deadline::is_over) {
                self.remove(index);
            }
        }
    }

    /// Clients beyond the maximum wait in the backlog.
    fn set_accepting(&mut self) -> Result<(), Errno> {
        let count = self.clients.len() - self.free.len();
        let is_accepting = !self.listener.interest(count < clients_max(self.options)).is_empty();
        if is_accepting != self.is_accepting {
            self.is_accepting = is_accepting;
            let events = if is_accepting { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            self.epoll.modify(&self.listener, &mut EpollEvent::new(events, LISTENER))?;
        }
        Ok(())
    }

    /// Time to the first deadline, of a close handshake or of the pause of accepting.
    fn timeout(&self) -> EpollTimeout {
        let first = self.closing.front().map(|(deadline, _)| *deadline);
        let timeouts = first.into_iter().chain(self.listener.deadline()).map(Deadline::timeout);
        timeouts.min_by_key(|timeout| timeout.as_millis()).unwrap_or(EpollTimeout::NONE)
    }

    fn accept(&mut self) -> Result<(), Errno> {
        let Some(Accepted::Direct(client)) = self.listener.accept() else { return Ok(()) };
        if self.options.hello && !self.print_hello(client.hello()) {
            return Ok(());
        }
        let index = self.free.pop().unwrap_or(self.clients.len());
        let interest = EpollFlags::EPOLLIN;
        self.epoll.add(&client, EpollEvent::new(interest, index as u64))?;
        let served = Some(Served { client, interest, close_by: None });
        match self.clients.get_mut(index) {
            Some(slot) => *slot = served,
            None => self.clients.push(served),
        }
        Ok(())
    }

    /// Prints the client's hello record. False: there is none, or it is invalid.
    fn print_hello(&self, record: &[u8]) -> bool {
        if record.is_empty() {
            self.options.complain("no hello record: does the gateway have hello switched on?");
            return false;
        }
        match parse_hello(record) {
            // A closed standard output does not keep the server from serving.
            Ok(hello) => drop(writeln!(stdout(), "{}", describe(&hello))),
            Err(error) => {
                self.options.complain(error);
                return false;
            }
        }
        true
    }

    fn serve_client(&mut self, index: usize) -> Result<(), Errno> {
        let Some(served) = self.clients.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        match served.echo(&mut self.buffer) {
            Ok(has_answered) => self.has_answered |= has_answered,
            Err(Error::WouldBlock) => {}
            Err(Error::Closed { .. } | Error::Protocol(_)) => {
                let deadline = Deadline::after_ms(CLOSE_MS);
                served.close_by = Some(deadline);
                self.closing.push_back((deadline, index));
            }
            Err(_) => {
                self.remove(index);
                return Ok(());
            }
        }
        let interest = served.wanted_events();
        if interest != served.interest {
            served.interest = interest;
            self.epoll.modify(&served.client, &mut EpollEvent::new(interest, index as u64))?;
        }
        Ok(())
    }

    /// Closing the descriptor does not remove it from the epoll set while the gateway still has its copy.
    fn remove(&mut self, index: usize) {
        if let Some(served) = self.clients[index].take() {
            // It was added in `accept`.
            let _ = self.epoll.delete(&served.client);
            self.free.push(index);
        }
    }
}

impl Served {
    /// Sends what is queued; once that is empty, receives once and sends it back. Tells whether it sent a message.
    fn echo(&mut self, buffer: &mut Buffer) -> Result<bool, Error> {
        if self.client.wants_to_write() {
            self.client.flush()?;
        }
        let mut has_answered = false;
        let mut batch = self.client.receive(buffer)?;
        while let Some(message) = batch.take()? {
            batch.send(message.opcode, &message.payload)?;
            has_answered = true;
        }
        Ok(has_answered)
    }

    /// A client that does not read is not read from.
    fn wanted_events(&self) -> EpollFlags {
        if self.client.wants_to_write() { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
    }
}
