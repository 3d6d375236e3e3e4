//! The gateway on a simulated kernel, with one client and the backend that it asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use uakari::driver::Completion;
use uakari::driver::sim::{Handle, Sim};
use uakari::gateway::Gateway;
use uakari::gateway::endpoint::Endpoint;
use uakari::gateway::listener::ListenerSetup;
use uakari::limits::Process;
use uakari::observe::log;

use crate::access::{AccessLine, Count};

/// Turns in which nothing completes until a kernel with a seed is taken to be at rest.
const QUIET_TURNS: usize = 12;
/// Turns after which a gateway that is left alone has to be at rest, or over.
const TURNS_MAX: usize = 50_000;
/// Bytes that one end says, which keeps a run short.
const SAID_SIZE_MAX: usize = 400_000;

/// How an end leaves its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// It sends no more.
    Finish,
    /// It sends no more and takes no more.
    Close,
    /// Its connection breaks.
    Reset,
}

/// One end of the connection: what it said and heard.
#[derive(Default, Debug)]
pub struct Peer {
    /// Its wire; None: it is not connected.
    pub wire: Option<usize>,
    /// It has the gateway's end of the client's wire.
    pub has_client: bool,
    /// What is to be said and has had no room.
    waiting: VecDeque<Vec<u8>>,
    /// All that it said.
    pub said: Vec<u8>,
    /// The sizes of the pieces that it said.
    pub said_sizes: Vec<usize>,
    /// All that it heard.
    pub heard: Vec<u8>,
    /// The sizes of the pieces that it heard.
    pub heard_sizes: Vec<usize>,
    /// It takes nothing for now.
    pub is_stalled: bool,
    /// It took nothing at some time.
    pub was_stalled: bool,
    /// It has ended.
    pub has_left: Option<Leave>,
}

impl Peer {
    /// Says this, as soon as there is room.
    pub fn say(&mut self, bytes: &[u8]) {
        if self.said.len() < SAID_SIZE_MAX {
            self.waiting.push_back(bytes.to_vec());
        }
    }

    /// Takes nothing from now on, or takes what comes again.
    pub fn stall(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
        self.was_stalled |= is_stalled;
    }

    /// Whether the gateway has read all that it said.
    pub fn is_read(&self, sim: &Sim) -> bool {
        let is_on = |wire: usize| self.has_client || sim.wires[wire].unread_size() == 0;
        self.waiting.is_empty() && self.wire.is_some_and(is_on)
    }

    /// Writes and reads what can be; whether anything was.
    fn act(&mut self, sim: &mut Sim) -> bool {
        let Some(wire) = self.wire.map(|wire| &mut sim.wires[wire]) else { return false };
        let before = (self.said_sizes.len(), self.heard_sizes.len());
        while self.has_left.is_none()
            && let Some(bytes) = self.waiting.front_mut()
        {
            let size = match self.has_client {
                true => {
                    wire.give(bytes);
                    Some(bytes.len())
                }
                false if bytes.is_empty() && !wire.has_packets() => Some(0),
                false => wire.write(bytes),
            };
            let Some(size) = size else { break };
            self.said.extend(bytes.drain(..size));
            self.said_sizes.push(size);
            if bytes.is_empty() {
                self.waiting.pop_front();
            }
        }
        while !self.is_stalled
            && let Some(bytes) = if self.has_client { wire.take() } else { wire.read() }
        {
            self.heard_sizes.push(bytes.len());
            self.heard.extend(bytes);
        }
        before != (self.said_sizes.len(), self.heard_sizes.len())
    }

    /// Leaves. What it has not said until now is not said at all.
    fn leave(&mut self, how: Leave, sim: &mut Sim) {
        self.act(sim);
        let Some(wire) = self.wire.filter(|_| self.has_left.is_none()) else { return };
        self.waiting.clear();
        self.has_left = Some(how);
        let wire = &mut sim.wires[wire];
        match how {
            _ if self.has_client => wire.close_passed(),
            Leave::Finish => wire.finish(),
            Leave::Close => wire.leave(),
            Leave::Reset => wire.reset(),
        }
    }
}

/// A gateway and what speaks with it.
pub struct Run {
    gateway: Gateway<Sim>,
    /// Every endpoint that was configured.
    endpoints: Vec<Arc<Endpoint<Handle>>>,
    completions: Vec<Completion<Handle>>,
    /// The client.
    pub client: Peer,
    /// The backend that the client asked for.
    pub backend: Peer,
    /// The client was handed over, with this record.
    pub handed_over: Option<Vec<u8>>,
    /// The gateway was told to stop.
    pub is_stopped: bool,
    /// The client was accepted before the gateway was told to stop.
    was_accepted: bool,
    /// Payload up and down when an idle relay was last checked: everything sent until then had been received.
    pub passed: [Count; 2],
    /// How the connection ended; None: it has not ended.
    pub ended: Option<Ended>,
}

/// The end of a connection.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its access line.
    pub access: AccessLine,
    /// The gateway was told to stop before the end.
    pub is_stopped: bool,
    /// The client always received what was sent to it, and had not left.
    pub is_heard: bool,
}

impl Run {
    /// A gateway to which the client with this wire connects.
    pub fn new(sim: Sim, process: Process, setup: ListenerSetup<Handle>, client: usize) -> Run {
        let mut run = Run {
            gateway: Gateway::new(sim, process.clone()),
            endpoints: Vec::new(),
            completions: Vec::new(),
            client: Peer { wire: Some(client), ..Peer::default() },
            backend: Peer::default(),
            handed_over: None,
            is_stopped: false,
            was_accepted: false,
            passed: Default::default(),
            ended: None,
        };
        run.configure(process, setup);
        run
    }

    /// The kernel.
    pub fn sim(&mut self) -> &mut Sim {
        self.gateway.driver_mut()
    }

    /// One turn, which waits for `wait_ms` at most. Whether it did anything.
    pub fn turn(&mut self, wait_ms: u64) -> bool {
        let sim = self.gateway.driver_mut();
        let before = sim.completed;
        let mut is_busy = self.client.act(sim) | self.backend.act(sim);
        self.gateway.turn(Some(wait_ms), &mut self.completions).expect("the simulated kernel does not fail");
        let sim = self.gateway.driver_mut();
        for (_, wire) in std::mem::take(&mut sim.connected) {
            assert!(self.backend.wire.is_none(), "one client has one backend");
            self.backend.wire = Some(wire);
        }
        for client in std::mem::take(&mut sim.handed_over) {
            assert!(self.backend.wire.is_none(), "one client has one backend");
            (self.backend.wire, self.backend.has_client) = (Some(client.wire), !client.is_relayed);
            self.handed_over = Some(client.record);
        }
        for line in log::take_access_lines() {
            assert!(self.ended.is_none(), "one connection has a second access line: {line}");
            self.ended = Some(Ended {
                access: AccessLine::parse(&line),
                is_stopped: self.is_stopped,
                is_heard: self.client.has_left.is_none() && !self.client.was_stalled,
            });
            let is_open = |peer: &Peer| peer.wire.is_some_and(|wire| !sim.wires[wire].is_closed);
            let has_open_end = !self.backend.has_client && (is_open(&self.client) || is_open(&self.backend));
            assert!(!has_open_end, "an access line before the connection ended: {line}");
        }
        is_busy |= self.client.act(sim) | self.backend.act(sim);
        is_busy || sim.completed > before || sim.timeout_ms == Some(0)
    }

    /// Goes on until nothing happens any more without time. A few milliseconds pass.
    pub fn settle(&mut self) {
        let quiet_turns = if self.sim().is_plain { 1 } else { QUIET_TURNS };
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            quiet = if self.turn(1) { 0 } else { quiet + 1 };
            if quiet == quiet_turns || self.gateway.is_over() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, ms: u64) {
        let until_ms = self.sim().now_ms + ms;
        for _ in 0..TURNS_MAX {
            let left_ms = until_ms.saturating_sub(self.sim().now_ms);
            if left_ms == 0 || self.gateway.is_over() {
                return self.settle();
            }
            self.turn(left_ms);
        }
        panic!("time does not pass");
    }

    /// Lets time pass to the gateway's next deadline.
    pub fn pass_to_deadline(&mut self) {
        self.settle();
        // As long as it would have waited by itself. The times of a run stay below the 2^48 ms that the gateway counts.
        self.turn(1 << 32);
        self.settle();
    }

    /// The client leaves.
    pub fn leave_client(&mut self, how: Leave) {
        self.client.leave(how, self.gateway.driver_mut());
    }

    /// The backend leaves.
    pub fn leave_backend(&mut self, how: Leave) {
        self.backend.leave(how, self.gateway.driver_mut());
    }

    /// The gateway is told to stop.
    pub fn stop(&mut self) {
        if !self.is_stopped {
            self.was_accepted = !self.sim().has_waiting();
        }
        self.is_stopped = true;
        self.gateway.stop();
    }

    /// Reads the configuration, or reads the same again.
    pub fn configure(&mut self, process: Process, setup: ListenerSetup<Handle>) {
        self.endpoints.push(setup.endpoint.clone());
        self.gateway.configure(process, vec![setup]);
    }

    /// Waits until the stopped gateway is over, and asserts that it leaves nothing.
    pub fn end(&mut self) {
        assert!(self.is_stopped);
        for _ in 0..TURNS_MAX {
            if self.gateway.is_over() {
                // What is still in flight ends: a connection that is watched, an accept.
                (0..QUIET_TURNS).for_each(|_| _ = self.turn(1));
                assert!(self.gateway.has_empty_counts(), "something is counted that is not there");
                assert_eq!(self.endpoints.iter().map(|one| one.permits_held()).sum::<u64>(), 0, "permits are held");
                assert_eq!(self.ended.is_some(), self.was_accepted, "each accepted client has an access line");
                return assert_eq!(self.sim().leaks(), "");
            }
            self.turn(1_000);
        }
        panic!("it does not end");
    }
}
