//! Direct mode: the gateway hands the clients' own connections over, and the server speaks WebSocket with them. The
//! package `websocket` does it; here is the loop, one epoll(7) for all clients.

use std::collections::VecDeque;
use std::io::{Write as _, stderr, stdout};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use server::limits::ACCEPT_PAUSE_MS;
use server::record::Record;
use server::start::is_shortage;
use server::stop;
use websocket::deadline::Deadline;
use websocket::{AcceptError, Buffer, Client, CloseCode, Error, Listener};

use crate::limits::{END_MS, EVENTS_MAX};
use crate::options::Options;

/// Tokens that are no client's.
const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;

struct Server<'o> {
    options: &'o Options,
    epoll: Epoll,
    listener: Listener,
    is_accepting: bool,
    /// No file descriptor was left for a client: until then none is accepted.
    pause: Option<Deadline>,
    /// Each at the place that its token names.
    clients: Vec<Option<Served>>,
    free: Vec<usize>,
    /// Those who leave, in the order of their deadlines.
    leaving: VecDeque<(Deadline, usize)>,
    buffer: Buffer,
    has_answered: bool,
}

struct Served {
    client: Client,
    /// What its registration waits for.
    interest: EpollFlags,
    /// The conversation is over, and its client is given so long to end it.
    leaves: Option<Deadline>,
}

/// Serves until a signal says stop, or with `-t` until one answer was given. The signals are blocked already.
pub fn serve(mut listener: Listener, options: &Options) -> Result<(), String> {
    let failed = |errno: Errno| format!("epoll: {}", errno.desc());
    listener.set_nonblocking(true);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
    let signals = stop::descriptor().map_err(failed)?;
    epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS)).map_err(failed)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).map_err(failed)?;
    let (clients, free, leaving, buffer) = (Vec::new(), Vec::new(), VecDeque::new(), Buffer::new());
    let mut server = Server {
        options,
        epoll,
        listener,
        is_accepting: true,
        pause: None,
        clients,
        free,
        leaving,
        buffer,
        has_answered: false,
    };
    while !(options.once && server.has_answered) {
        if !server.turn().map_err(failed)? {
            break;
        }
    }
    server.end();
    Ok(())
}

impl Server<'_> {
    /// Waits, and does what there is to do. False: a signal says stop.
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
        self.drop_those_who_stay();
        Ok(true)
    }

    /// Whose conversation is over and who does not end it.
    fn drop_those_who_stay(&mut self) {
        while let Some((_, index)) = self.leaving.front().copied().filter(|(deadline, _)| deadline.is_over()) {
            self.leaving.pop_front();
            // By now the place may be another's.
            let leaves = self.clients.get(index).and_then(Option::as_ref).and_then(|served| served.leaves);
            if leaves.is_some_and(Deadline::is_over) {
                self.remove(index);
            }
        }
    }

    fn count(&self) -> usize {
        self.clients.len() - self.free.len()
    }

    /// Whoever has no room here waits in the backlog.
    fn set_accepting(&mut self) -> Result<(), Errno> {
        self.pause = self.pause.filter(|pause| !pause.is_over());
        let room = if self.options.once { 1 } else { self.options.clients_max };
        let accepts = self.count() < room && self.pause.is_none();
        if accepts != self.is_accepting {
            self.is_accepting = accepts;
            let events = if accepts { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            self.epoll.modify(&self.listener, &mut EpollEvent::new(events, LISTENER))?;
        }
        Ok(())
    }

    /// Of clients that leave, and of the pause, the first that is over.
    fn timeout(&self) -> EpollTimeout {
        let first = self.leaving.front().map(|(deadline, _)| *deadline);
        let nearest = first.into_iter().chain(self.pause).map(Deadline::timeout);
        nearest.min_by_key(|timeout| timeout.as_millis()).unwrap_or(EpollTimeout::NONE)
    }

    fn accept(&mut self) -> Result<(), Errno> {
        let mut client = match self.listener.accept() {
            Ok(client) => client,
            Err(AcceptError::WouldBlock) => return Ok(()),
            Err(AcceptError::Io(errno)) if is_shortage(errno) => {
                self.pause = Some(Deadline::after_ms(ACCEPT_PAUSE_MS));
                return Ok(());
            }
            Err(error) => {
                let _ = writeln!(stderr(), "websocket_echo: {error}");
                return Ok(());
            }
        };
        if self.options.hello && !tell(client.hello()) {
            return Ok(());
        }
        client.set_nonblocking(true);
        let index = self.free.pop().unwrap_or(self.clients.len());
        let interest = EpollFlags::EPOLLIN;
        self.epoll.add(&client, EpollEvent::new(interest, index as u64))?;
        let served = Some(Served { client, interest, leaves: None });
        match self.clients.get_mut(index) {
            Some(place) => *place = served,
            None => self.clients.push(served),
        }
        Ok(())
    }

    fn serve_client(&mut self, index: usize) -> Result<(), Errno> {
        let Some(served) = self.clients.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        match served.echo(&mut self.buffer) {
            Ok(has_answered) => self.has_answered |= has_answered,
            Err(Error::WouldBlock) => {}
            Err(Error::Closed { .. } | Error::Protocol(_)) => {
                let deadline = Deadline::after_ms(END_MS.into());
                served.leaves = Some(deadline);
                self.leaving.push_back((deadline, index));
            }
            Err(_) => {
                self.remove(index);
                return Ok(());
            }
        }
        let interest = served.wanted();
        if interest != served.interest {
            served.interest = interest;
            self.epoll.modify(&served.client, &mut EpollEvent::new(interest, index as u64))?;
        }
        Ok(())
    }

    /// Closing alone does not take it out of the epoll set, as long as the gateway has its copy of the connection.
    fn remove(&mut self, index: usize) {
        if let Some(served) = self.clients[index].take() {
            // It was added when it came.
            let _ = self.epoll.delete(&served.client);
            self.free.push(index);
        }
    }

    /// Says goodbye to all, then waits for them.
    fn end(self) {
        let deadline = Deadline::after_ms(END_MS.into());
        let mut clients: Vec<Client> = self.clients.into_iter().flatten().map(|served| served.client).collect();
        let code = if self.options.once { CloseCode::NORMAL } else { CloseCode::GOING_AWAY };
        for client in &mut clients {
            // Who has gone needs no goodbye.
            let _ = client.close(code, "");
        }
        for client in clients {
            client.finish(deadline.timeout().as_millis().unwrap_or_default());
        }
    }
}

impl Served {
    /// Sends what waits; then, where nothing waits any more, receives once and sends it back.
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

    /// Who does not take what it is sent is not heard meanwhile.
    fn wanted(&self) -> EpollFlags {
        if self.client.wants_to_write() { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
    }
}

/// Prints who a client is. False: nothing says so.
fn tell(hello: &[u8]) -> bool {
    match Record::new().take(hello) {
        // A server is no worse where nobody reads what it tells.
        Ok(Some(whole)) => drop(writeln!(stdout(), "{whole}")),
        Ok(None) => {
            let _ = writeln!(stderr(), "websocket_echo: no hello record: does the gateway have hello switched on?");
            return false;
        }
        Err(error) => {
            let _ = writeln!(stderr(), "websocket_echo: {error}");
            return false;
        }
    }
    true
}
