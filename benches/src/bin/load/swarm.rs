//! All clients and their event loop.

use crate::Options;
use crate::client::{Client, Context, Stage};
use crate::report::Report;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::time::{Duration, Instant};
use uakari_bench::Result;
use uakari_bench::pattern::{Pattern, Random};

const EVENTS_MAX: usize = 256;
const BUFFER_SIZE: usize = 256 * 1024;
/// Longer than any server is silent, so that a lost message does not hang the benchmark.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Maximum number of clients that connect at once: below the size of a listen queue.
const OPENING_MAX: usize = 64;

/// The event after which a client counts as settled and the next one starts.
#[derive(Clone, Copy, PartialEq)]
pub enum Goal {
    /// The handshake is complete.
    Open,
    /// Its only message is answered.
    Echo,
    /// Its only message is answered and the connection is closed.
    Close,
}

/// The clients of one run.
pub struct Swarm<'a> {
    /// The measurement.
    pub report: Report,
    epoll: Epoll,
    clients: Vec<Option<Client>>,
    context: Context<'a>,
    goal: Goal,
    opening_max: usize,
    begun: usize,
    begun_max: usize,
    settled: usize,
    talking: bool,
    buffer: Vec<u8>,
}

impl<'a> Swarm<'a> {
    /// A run with `total` clients, of which none has started.
    pub fn new(options: &'a Options, goal: Goal, total: usize) -> Result<Swarm<'a>> {
        let context = Context {
            options,
            pattern: Pattern::new(options.size),
            random: Random::new(u64::from(std::process::id())),
            latencies: Vec::new(),
            now: Instant::now(),
        };
        let at_once = options.clients;
        Ok(Swarm {
            report: Report::default(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            clients: (0..at_once).map(|_| None).collect(),
            context,
            goal,
            opening_max: at_once.min(OPENING_MAX),
            begun: 0,
            begun_max: total,
            settled: 0,
            talking: false,
            buffer: vec![0; BUFFER_SIZE],
        })
    }

    /// Runs until this number of clients are settled.
    pub fn settle(&mut self, count: usize) -> Result<()> {
        for slot in 0..self.opening_max.saturating_sub(self.begun - self.settled) {
            self.begin_next(slot)?;
        }
        while self.settled < count {
            self.turn(SILENCE_MAX)?;
        }
        Ok(())
    }

    /// Lets all clients send without limit.
    pub fn talk(&mut self) -> Result<()> {
        self.talking = true;
        for client in self.clients.iter_mut().flatten() {
            client.limit = u64::MAX;
            client.send_due(&mut self.context)?;
        }
        Ok(())
    }

    /// Runs until this time.
    pub fn run_until(&mut self, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// Starts no new messages and runs until the last one is answered: none may be lost.
    pub fn drain(&mut self) -> Result<()> {
        let clients = self.clients.iter_mut().flatten();
        clients.for_each(Client::stop_sending);
        while self.clients.iter().flatten().any(Client::is_waiting) {
            self.turn(SILENCE_MAX)?;
        }
        Ok(())
    }

    /// Waits for events and handles them; fails after [`SILENCE_MAX`] without any.
    fn turn(&mut self, wait_max: Duration) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let milliseconds = wait_max.min(SILENCE_MAX).as_millis() as u16 + 1;
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(milliseconds)) {
            Ok(count) => count,
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if count == 0 && wait_max >= SILENCE_MAX {
            return Err(format!("the server is silent; {} settled", self.settled).into());
        }
        for event in &events[..count] {
            self.on_event(event.data() as usize, event.events())?;
        }
        Ok(())
    }

    fn on_event(&mut self, slot: usize, flags: EpollFlags) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else {
            return Ok(());
        };
        client.ready(flags, &mut self.buffer, &mut self.context)?;
        for latency in self.context.latencies.drain(..) {
            if self.goal == Goal::Open {
                self.report.record(latency);
            }
        }
        if self.talking {
            return Ok(());
        }
        self.advance(slot)
    }

    /// Advances one client; when it is settled, starts the next one.
    fn advance(&mut self, slot: usize) -> Result<()> {
        let Some(client) = self.clients[slot].as_mut() else {
            return Ok(());
        };
        let echoed = client.answered == 1;
        let settled = match self.goal {
            Goal::Open => client.stage == Stage::Open,
            Goal::Echo => echoed,
            Goal::Close if client.stage == Stage::Open && echoed => {
                client.close(&mut self.context)?;
                false
            }
            Goal::Close => client.stage == Stage::Closed,
        };
        if !settled || client.settled {
            return Ok(());
        }
        client.settled = true;
        self.settled += 1;
        if self.goal != Goal::Close {
            return self.begin_next(self.begun);
        }
        self.report.record(client.born.elapsed().as_nanos() as u64);
        self.clients[slot] = None;
        self.begin_next(slot)
    }

    fn begin_next(&mut self, slot: usize) -> Result<()> {
        if self.begun == self.begun_max {
            return Ok(());
        }
        let limit = if self.goal == Goal::Open { 0 } else { 1 };
        let client = Client::begin(self.begun as u32, limit, &mut self.context)?;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let event = EpollEvent::new(interest, slot as u64);
        self.epoll.add(client.connection(), event)?;
        self.clients[slot] = Some(client);
        self.begun += 1;
        Ok(())
    }
}
