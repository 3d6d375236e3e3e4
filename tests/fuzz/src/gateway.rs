//! A gateway with one connection and no kernel. It hands the exchange only what a real one could (src/gateway), and
//! checks all that the exchange asks for.

mod answers;

use std::collections::VecDeque;

use uakari::driver::{Address, Errno, FileKind, OpenFor, SocketType};
use uakari::exchange::{Chunk, CloseTimeouts, Drained, Effect, Effects, Ending, Exchange, Folder, Input, Surroundings};
use uakari::http::date::Date;
use uakari::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM};
use uakari::route::{Destination, Protocol, Service, Sites};
use uakari::types::{Demand, End};

use crate::peer::Peer;
use crate::replies::Replies;

/// What an exchange may keep: a head and a receive, or a line and a receive, in memory that grows by doubling.
const HELD_SIZE_MAX: usize = 4 * POOL_BUFFER_SIZE;
/// Steps after which a connection that is left alone has to be over.
const STEPS_MAX: usize = 100;

/// A gateway with one connection.
pub struct Gateway {
    /// The exchange under test.
    pub exchange: Exchange,
    /// The client.
    pub client: Peer,
    /// The server.
    pub backend: Peer,
    /// Why it is over.
    pub ending: Option<Ending>,
    /// Records that told the server who its client is.
    pub hellos: usize,
    /// The server ended while messages flowed: all that it said is to be heard.
    pub has_all: bool,
    /// How many bytes of the client had been heard when the gateway was told to stop, if messages flowed then.
    pub stopped_at: Option<usize>,
    /// How messages travel, once they do.
    pub protocol: Option<Protocol>,
    /// The type of the socket that was last connected.
    socket_type: SocketType,
    sites: Sites,
    date: Date,
    now_ms: u64,
    /// When a peer last took something.
    moved_ms: u64,
    effects: Effects,
    replies: Replies,
    buffer: Vec<u8>,
    /// The rest of what an exchange took in part, and where it came from.
    rest: Option<(End, Vec<u8>)>,
    opened: Option<FileKind>,
    /// What the opens in flight are for.
    opens: VecDeque<OpenFor>,
    /// Whether the connects in flight are TCP's.
    connects: VecDeque<bool>,
    /// It waits for its turn to try again.
    awaits_backlog: bool,
    /// The 101 of a hand-over in flight.
    handover: Option<Box<[u8]>>,
    /// The client was handed over, and is relayed all the same.
    is_tunnel: bool,
    reads: usize,
}

impl Gateway {
    /// A gateway to which a client has just come.
    pub fn new(sites: Sites) -> Gateway {
        Gateway {
            exchange: Exchange::default(),
            client: Peer::connected(),
            backend: Peer::default(),
            ending: None,
            hellos: 0,
            has_all: false,
            stopped_at: None,
            protocol: None,
            socket_type: SocketType::Stream,
            sites,
            date: Date::default(),
            now_ms: 1,
            moved_ms: 1,
            effects: Effects::default(),
            replies: Replies::default(),
            buffer: vec![0; POOL_BUFFER_SIZE],
            rest: None,
            opened: None,
            opens: VecDeque::new(),
            connects: VecDeque::new(),
            awaits_backlog: false,
            handover: None,
            is_tunnel: false,
            reads: 0,
        }
    }

    /// Hands in what is not bytes.
    pub fn input(&mut self, input: Input<'_>) {
        if matches!(input, Input::Stop) && self.is_relaying() {
            self.stopped_at = Some(self.client.heard.len());
        }
        let around = Surroundings {
            now_ms: self.now_ms,
            since_ms: self.now_ms,
            date: &self.date,
            sites: &self.sites,
            tag_salt: 1,
        };
        self.exchange.handle(around, input, &mut self.effects);
        self.apply(None);
        self.hand_in_rest();
    }

    /// The peer sent this; nothing happens if it is not read. An empty piece is an empty packet.
    pub fn receive(&mut self, end: End, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(POOL_BUFFER_SIZE - POOL_HEADROOM)];
        // What comes while the connection is being closed, or behind its end, has no meaning.
        let has_meaning = self.exchange.wants().timeouts.is_none() && self.ending.is_none();
        let peer = self.peer(end);
        if !peer.is_read() || bytes.is_empty() && peer.demand != Some(Demand::Packets) {
            return;
        }
        peer.on_received();
        if has_meaning {
            peer.heard.extend(bytes);
            peer.receives.push(bytes.len());
        }
        self.bytes(Some(end), bytes);
    }

    /// The peer sends no more, or its connection broke.
    pub fn end(&mut self, end: End, failure: Option<Errno>) {
        let peer = self.peer(end);
        if !peer.is_read() {
            return;
        }
        peer.on_received();
        peer.is_ended = true;
        self.has_all |= end == End::Backend && failure.is_none() && self.service().is_some();
        self.input(match (end, failure) {
            (End::Client, None) => Input::Ended(End::Client),
            (End::Client, Some(errno)) => Input::Failed(End::Client, errno),
            (End::Backend, None) => Input::Ended(End::Backend),
            (End::Backend, Some(errno)) => Input::Failed(End::Backend, errno),
        });
    }

    /// What was queued for a peer was taken, or could not be sent.
    pub fn take(&mut self, end: End, is_failure: bool) {
        let peer = self.peer(end);
        if !std::mem::take(&mut peer.is_queued) {
            return;
        }
        let is_device = peer.is_device;
        match (end, is_failure) {
            (End::Client, true) => self.input(Input::Failed(End::Client, Errno::EPIPE)),
            (End::Backend, true) if is_device => self.input(Input::Failed(End::Backend, Errno::EIO)),
            (End::Backend, true) => self.end_tunnel(),
            (_, false) => {
                self.moved_ms = self.now_ms;
                if end == End::Client && self.exchange.wants().drained == Drained::Client {
                    self.input(Input::Drained);
                }
                self.end_tunnel();
            }
        }
    }

    /// Lets time pass; a deadline that comes is told.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let Some(deadline_ms) = self.exchange.wants().deadline_ms.filter(|at_ms| *at_ms <= self.now_ms) else { return };
        if let Some(CloseTimeouts { since_ms, close_ms, stall_ms }) = self.exchange.wants().timeouts {
            let is_owed = self.client.is_queued || self.backend.is_queued;
            let until_ms = self.moved_ms.max(since_ms) + if is_owed { stall_ms } else { close_ms };
            if self.now_ms < until_ms {
                return self.input(Input::PutOff(until_ms.min(self.now_ms + close_ms)));
            }
        }
        self.input(Input::Deadline);
        let next_ms = self.exchange.wants().deadline_ms;
        assert!(next_ms.is_none_or(|next_ms| next_ms > self.now_ms), "{deadline_ms} is due again and again");
    }

    /// Lets time pass to the next deadline, or some if there is none.
    pub fn pass_to_deadline(&mut self) {
        let ms = self.exchange.wants().deadline_ms.map_or(1_000, |at_ms| at_ms.saturating_sub(self.now_ms));
        self.pass(ms);
    }

    /// The client was not read for a while.
    pub fn excuse_client(&mut self) {
        self.input(Input::Excused);
    }

    /// Whether messages flow, and neither end has been told to stop.
    pub fn is_relaying(&self) -> bool {
        self.service().is_some() && !self.backend.is_finished && self.ending.is_none()
    }

    /// Leaves the connection alone: what is asked for fails, peers end. It has to be over soon.
    pub fn run_out(&mut self) {
        for _ in 0..STEPS_MAX {
            match () {
                () if self.ending.is_some() => return,
                () if !self.opens.is_empty() => self.answer_open(Err(Errno::ENOENT)),
                () if !self.connects.is_empty() || self.handover.is_some() || self.awaits_backlog => {
                    self.answer_connect(Err(Errno::ECONNREFUSED))
                }
                () if self.reads > 0 => self.answer_read(&[]),
                () if self.client.is_queued => self.take(End::Client, false),
                () if self.backend.is_queued => self.take(End::Backend, false),
                () if self.client.is_read() => self.end(End::Client, None),
                () if self.backend.is_read() => self.end(End::Backend, None),
                () => self.pass_to_deadline(),
            }
        }
        panic!("it does not end: {:?}", self.exchange);
    }

    fn service(&self) -> Option<&uakari::route::Service> {
        let wants = self.exchange.wants();
        wants.service.filter(|_| !wants.is_opening())
    }

    fn peer(&mut self, end: End) -> &mut Peer {
        match end {
            End::Client => &mut self.client,
            End::Backend => &mut self.backend,
        }
    }

    /// Hands in what a peer sent, or what was read of the file.
    fn bytes(&mut self, from: Option<End>, bytes: &[u8]) {
        let end = POOL_HEADROOM + bytes.len();
        self.buffer[POOL_HEADROOM..end].copy_from_slice(bytes);
        // No bytes come in a buffer that has room for nothing else.
        let size = if bytes.is_empty() { end } else { self.buffer.len() };
        let chunk = Chunk { buffer: &mut self.buffer[..size], start: POOL_HEADROOM, end };
        let around = Surroundings {
            now_ms: self.now_ms,
            since_ms: self.now_ms,
            date: &self.date,
            sites: &self.sites,
            tag_salt: 1,
        };
        let input = match from {
            Some(End::Client) => Input::Bytes(End::Client, chunk),
            Some(End::Backend) => Input::Bytes(End::Backend, chunk),
            None => Input::FileBytes(chunk),
        };
        self.exchange.handle(around, input, &mut self.effects);
        self.apply(Some(end));
        self.hand_in_rest();
    }

    /// Hands in what is left of a chunk; for a real gateway others come first.
    fn hand_in_rest(&mut self) {
        if let Some((end, rest)) = self.rest.take().filter(|_| self.ending.is_none()) {
            self.bytes(Some(end), &rest);
        }
    }

    /// Does what the exchange asks for. A part of a chunk that ends at `end` may be forwarded once.
    fn apply(&mut self, mut end: Option<usize>) {
        let effects: Vec<Effect> = self.effects.drain().collect();
        for effect in effects {
            assert!(self.ending.is_none(), "behind the end: {effect:?}");
            if let Effect::Forward { to, range } = effect {
                let end = end.take().expect("there is one chunk to forward");
                assert!(range.start < range.end && range.end <= end, "{range:?} of a chunk that ends at {end}");
                let bytes = self.buffer[range].to_vec();
                if self.protocol.is_none() && !self.is_tunnel {
                    self.replies.add_body(bytes.len());
                }
                self.send(to, &bytes);
            } else if let Effect::Later { from, start } = effect {
                let end = end.expect("it comes before what is forwarded");
                assert!(start < end && self.rest.is_none(), "{start} of a chunk that ends at {end}");
                self.rest = Some((from, self.buffer[start..end].to_vec()));
            } else {
                self.do_action(effect);
            }
        }
        self.client.settle();
        self.backend.settle();
        self.check();
        let Peer { is_device, is_queued, is_finished, is_abandoned, .. } = self.backend;
        if is_device && !is_queued && is_finished && !is_abandoned && self.exchange.wants().timeouts.is_some() {
            self.input(Input::Ended(End::Backend));
        }
        self.end_tunnel();
    }

    /// A tunnel that nothing comes into any more is over once it is empty.
    fn end_tunnel(&mut self) {
        if self.exchange.wants().drained == Drained::Both && !self.client.is_queued && !self.backend.is_queued {
            self.input(Input::Drained);
        }
    }

    fn do_action(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => {
                if to == End::Client && self.protocol.is_none() {
                    self.begin(&bytes);
                }
                self.send(to, &bytes);
            }
            Effect::SendLast { to, bytes } => {
                self.send(to, &bytes);
                self.peer(to).has_last = true;
            }
            // The answer to a ping that the server sent behind its client's end is dropped.
            Effect::Pong { to: End::Backend, .. } if self.backend.has_last || self.backend.is_finished => {}
            Effect::Pong { to, bytes } => self.send(to, &bytes),
            Effect::LaterBytes { from, buffer } => {
                assert!(buffer.len() > POOL_HEADROOM && self.rest.is_none());
                self.rest = Some((from, buffer[POOL_HEADROOM..].to_vec()));
            }
            Effect::Demand(end, demand) => self.peer(end).demand = Some(demand),
            Effect::Finish(end) => self.peer(end).is_finished = true,
            Effect::Abandon(end) => {
                let peer = self.peer(end);
                (peer.is_abandoned, peer.is_queued, peer.demand) = (true, false, None);
            }
            Effect::Log(_, line) => assert!(!line.chars().any(char::is_control), "{line:?}"),
            Effect::Over(ending) => {
                assert!(!ending.to_string().is_empty());
                self.ending = Some(ending);
            }
            effect => self.reach(effect),
        }
    }

    /// What leads to a server or a file.
    fn reach(&mut self, effect: Effect) {
        match effect {
            Effect::Open { folder, path, purpose } => {
                let path = path.to_str().expect("names are UTF-8");
                let is_inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
                assert!(is_inside || folder == Folder::Anywhere, "{path:?}");
                self.opened = None;
                self.opens.push_back(purpose);
            }
            Effect::Connect(socket_type) => {
                assert!(matches!(self.opened, Some(FileKind::Socket(_))));
                self.socket_type = socket_type;
                self.connects.push_back(false);
            }
            Effect::AwaitBacklog => self.awaits_backlog = true,
            Effect::HandOver { reply, hello: _ } => {
                assert!(matches!(self.opened, Some(FileKind::Socket(_))));
                assert!(reply.starts_with(b"HTTP/1.1 101 ") && self.handover.is_none());
                self.handover = Some(reply);
            }
            // What it is too late for is answered as it would have been.
            Effect::CancelConnect => assert!(self.handover.is_some() || self.connects.contains(&true)),
            Effect::ConnectTcp { link, address } => {
                let link = &self.sites.get(self.exchange.facts().site).links[link];
                let Destination::Tcp(addresses) = &link.destination else { panic!("no TCP server: {link:?}") };
                assert!(address < addresses.len());
                self.socket_type = SocketType::Stream;
                self.connects.push_back(true);
            }
            Effect::Hello(hello) => {
                assert!(self.backend.is_there && self.backend.sends.is_empty(), "the server was told something before");
                assert!(hello.path.starts_with('/') && !hello.encode(Address::Unix, Address::Unix, 1).is_empty());
                self.hellos += 1;
            }
            Effect::UseDevice => {
                assert!(matches!(self.opened.take(), Some(FileKind::Device(..))));
                (self.backend.is_there, self.backend.is_device) = (true, true);
            }
            Effect::ReadFile { offset } => {
                let Some(FileKind::Regular(status)) = self.opened else { panic!("no file to read") };
                assert!(offset < status.size && self.reads == 0);
                self.reads += 1;
            }
            Effect::CloseFile => self.opened = None,
            effect => unreachable!("{effect:?} needs a chunk or is done by now"),
        }
    }

    /// The first that the client hears.
    fn begin(&mut self, head: &[u8]) {
        self.replies.add_head(head);
        let is_packet = self.socket_type == SocketType::SeqPacket;
        let protocol = |service: &Service| if is_packet { Protocol::Packet } else { service.protocol };
        self.protocol = self.service().map(protocol);
    }

    fn send(&mut self, to: End, bytes: &[u8]) {
        let is_packet = to == End::Backend && self.protocol == Some(Protocol::Packet);
        let peer = self.peer(to);
        assert!(
            peer.is_there && !peer.has_last && !peer.is_finished && !peer.is_abandoned,
            "{to:?} is to hear no more"
        );
        assert!(!bytes.is_empty() || is_packet);
        peer.sent.extend(bytes);
        peer.sends.push(bytes.len());
        peer.is_queued = true;
    }

    fn check(&self) {
        let waits = self.exchange.wants().is_handshake() || self.exchange.wants().timeouts.is_some();
        let is_timed = self.exchange.wants().deadline_ms.is_some();
        assert!(self.ending.is_some() || is_timed || !waits, "it may wait for ever");
        assert!(self.ending.is_none() || !is_timed, "a deadline behind the end");
        assert!(self.exchange.wants().held_size <= HELD_SIZE_MAX, "{} bytes are held", self.exchange.wants().held_size);
    }
}
