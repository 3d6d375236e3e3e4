//! The core: one connection from its first byte to its last. No file descriptors, no clock, no I/O: inputs come
//! in, effects go out, and time is an argument.
#![forbid(unsafe_code)]

mod body;
mod head;
mod opening;
mod relay;
mod reply;
mod tunnel;

mod closing;

mod effect;
mod ending;

use std::mem;

use crate::driver::{ConnectError, FileKind, HandoverStep, OpenError, SystemError};
use crate::http::date::Date;
use crate::limits;
use crate::route::{Service, Site, Sites};
use crate::types::{End, Moment};
use rfc6455::close::CloseCode;
use rfc6455::encoder;

pub use closing::CloseTimeouts;
pub use effect::{Chunk, Effect, Effects, Folder};
pub use ending::{Ending, Full, Step};

use body::Draining;
use closing::Closing;
use ending::Leave;
use head::Head;
use opening::Opening;
use relay::Relay;
use reply::Reply;
use tunnel::Tunnel;

/// What happened to the connection.
#[derive(Debug)]
pub enum Input<'a> {
    /// The client is there.
    Accepted,
    /// The client came when there was no room for it.
    Overload(Full),
    /// Bytes received from an end; decoded in place.
    Bytes(End, Chunk<'a>),
    /// The end of the stream from this end.
    Ended(End),
    /// The connection to this end failed.
    Failed(End, SystemError),
    /// A path was opened, as `Effect::Open` asked.
    Opened(Result<FileKind, OpenError>),
    /// The server was connected, as `Effect::Connect` asked.
    Connected(Result<(), ConnectError>),
    /// The client was handed over, as `Effect::HandOver` asked, or how far that came.
    HandedOver(Result<HandedOver, (HandoverStep, ConnectError)>),
    /// A socket was opened, as `Effect::Open` asked, and others wait for it already.
    OpenedFull,
    /// It may try again, as `Effect::AwaitBacklog` asked.
    Retry,
    /// Bytes of the file, as `Effect::ReadFile` asked; none: its end, or it could not be read.
    FileBytes(Chunk<'a>),
    /// All that was queued for the client has been sent; at the end of a tunnel, for the server too.
    Drained,
    /// The time of `Wants::deadline_ms` has come.
    Deadline,
    /// The deadline is put off to this time.
    PutOff(u64),
    /// The last so many bytes of a page that were queued are not sent: they are read again when the client takes more.
    TakenBack(u64),
    /// The client was not read for a while and could not be heard.
    Excused,
    /// The client is not read: nothing that it says can be missing. It is still asked, since only a send tells that its
    /// connection failed.
    Unread,
    /// The gateway stops.
    Stop,
    /// It does not wait any longer: what is still to be said is said now.
    LastCall,
}

impl Input<'_> {
    /// Whether it only changes what the exchange knows.
    fn is_note(&self) -> bool {
        matches!(self, Input::PutOff(_) | Input::TakenBack(_) | Input::Excused | Input::Unread)
    }
}

/// What became of a client that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandedOver {
    /// The backend has the client's own socket.
    Away,
    /// The backend has one end of a socketpair(2), and the gateway passes the bytes on.
    Relayed,
}

/// Payload bytes and messages, each way.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    /// Payload bytes from the client to the server.
    pub up_bytes: u64,
    /// Messages from the client to the server.
    pub up_messages: u64,
    /// Payload bytes from the server to the client.
    pub down_bytes: u64,
    /// Messages from the server to the client.
    pub down_messages: u64,
}

/// What an exchange finds around it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The time. With `Input::Deadline`: up to when all that came has been handed in.
    pub now_ms: u64,
    /// Since when the bytes that are handed in may have waited: usually no time before `now_ms`.
    pub since_ms: u64,
    /// The wall clock.
    pub date: &'a Date,
    /// The servers that may be meant.
    pub sites: &'a Sites,
    /// Part of the tags of files whose times tell nothing.
    pub tag_salt: u64,
}

/// One connection's life.
#[derive(Debug)]
pub struct Exchange {
    phase: Phase,
    /// Bytes of a head that is not whole, or that came behind a request and wait for their turn.
    #[expect(clippy::box_collection, reason = "an idle conversation has none")]
    input: Option<Box<Vec<u8>>>,
    facts: Facts,
    /// The name last asked for.
    name: Box<str>,
}

/// What outlives the phases.
#[derive(Default, Debug)]
pub struct Facts {
    /// Which of the sites is meant; the first one until a Host tells.
    pub site: u16,
    /// The status of the last reply, 101 of a WebSocket, 0 of none.
    pub status: u16,
    /// What was carried so far.
    pub traffic: Traffic,
    /// When `Input::Deadline` is due.
    deadline: Option<Moment>,
    is_stopping: bool,
}

#[derive(Debug)]
enum Phase {
    /// Before a request's end.
    Head(Head),
    /// A request whose body is not whole.
    Body(Box<Draining>),
    /// A request that is being answered with a file or a refusal.
    Reply(Box<Reply>),
    /// A handshake that waits for its server.
    Opening(Box<Opening>),
    /// Messages each way.
    Relay(Box<Relay>),
    /// The bytes of one that was handed over as a socketpair(2).
    Tunnel(Box<Tunnel>),
    /// The end: close frames, then the streams' ends.
    Closing(Box<Closing>),
    /// Nothing more happens.
    Over,
}

impl Phase {
    /// A conversation goes over into its end.
    fn leave(self, leave: Leave, context: &mut Context<'_>) -> Phase {
        match (self, leave) {
            (Phase::Relay(relay), leave) => Closing::of_relay(relay, leave, context),
            (Phase::Tunnel(tunnel), Leave::ClientLost(ending)) => {
                Phase::Closing(Box::new(Closing::without_client(ending, tunnel.into_seat(), context)))
            }
            (_, Leave::LastWords(_, ending) | Leave::CloseSent(ending))
            | (_, Leave::ClientLost(ending) | Leave::Over(ending)) => {
                context.out.push(Effect::Over(ending));
                Phase::Over
            }
        }
    }
}

/// What a phase needs of the world, for one input.
struct Context<'a> {
    now_ms: u64,
    since_ms: u64,
    date: &'a Date,
    sites: &'a Sites,
    tag_salt: u64,
    site: &'a mut u16,
    status: &'a mut u16,
    /// The request is a HEAD: a reply to it has no body.
    is_head: bool,
    traffic: &'a mut Traffic,
    deadline: &'a mut Option<Moment>,
    out: &'a mut Effects,
}

impl<'a> Context<'a> {
    fn new(around: Surroundings<'a>, facts: &'a mut Facts, out: &'a mut Effects) -> Context<'a> {
        Context {
            now_ms: around.now_ms,
            since_ms: around.since_ms,
            date: around.date,
            sites: around.sites,
            tag_salt: around.tag_salt,
            site: &mut facts.site,
            status: &mut facts.status,
            is_head: false,
            traffic: &mut facts.traffic,
            deadline: &mut facts.deadline,
            out,
        }
    }

    fn site(&self) -> &'a Site {
        self.sites.get(*self.site)
    }

    fn deadline_in(&mut self, ms: u64) {
        self.set_deadline(Some(self.now_ms + ms));
    }

    fn set_deadline(&mut self, at_ms: Option<u64>) {
        *self.deadline = at_ms.map(Moment::at);
    }
}

impl Default for Exchange {
    fn default() -> Exchange {
        Exchange { phase: Phase::Head(Head::default()), input: None, facts: Facts::default(), name: Box::default() }
    }
}

/// What the gateway must know of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'a> {
    /// Where it is in its life.
    pub progress: Progress,
    /// When `Input::Deadline` is due; None: never.
    pub deadline_ms: Option<u64>,
    /// How long a peer may take nothing; None: the deadline alone counts.
    pub timeouts: Option<CloseTimeouts>,
    /// Of which queues `Input::Drained` tells that they are empty.
    pub drained: Drained,
    /// What was queued for the client last are bytes of a page, which can be read again (`Input::TakenBack`).
    pub is_page: bool,
    /// Bytes that it keeps of what is not whole.
    pub held_size: usize,
    /// The client has sent something after its handshake already.
    pub has_pipelined: bool,
    /// How the backend is spoken to, while one is looked for or connected.
    pub service: Option<&'a Service>,
}

/// Where an exchange is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A request comes.
    Request,
    /// A request is answered without a backend.
    Reply,
    /// A backend is looked for, or waited for.
    Opening,
    /// Messages each way.
    Relay,
    /// Bytes each way, as they are.
    Tunnel,
    /// It ends.
    Closing,
    /// It has ended.
    Over,
}

/// Whose queue is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// Nobody's.
    No,
    /// The client's.
    Client,
    /// Both, between which nothing more comes.
    Both,
}

impl Wants<'_> {
    /// Whether what comes is frames, lines or packets, of which a visit takes a limited number.
    pub fn is_conversation(&self) -> bool {
        matches!(self.progress, Progress::Relay | Progress::Closing)
    }

    /// Whether messages flow and nothing else is to be looked at.
    pub fn is_flowing(&self) -> bool {
        self.progress == Progress::Relay
    }

    /// Whether it is neither a WebSocket nor at its end.
    pub fn is_handshake(&self) -> bool {
        matches!(self.progress, Progress::Request | Progress::Reply | Progress::Opening)
    }

    /// Whether it looks for its backend, or waits for it.
    pub fn is_opening(&self) -> bool {
        self.progress == Progress::Opening
    }
}

impl Exchange {
    /// All that the gateway must know; it changes only with an input. Inlined, so that a caller pays for what it reads.
    #[inline(always)]
    pub fn wants(&self) -> Wants<'_> {
        let kept = self.input.as_ref().map_or(0, |input| input.capacity()) + self.name.len();
        let mut wants = Wants {
            progress: Progress::Over,
            deadline_ms: self.facts.deadline.map(Moment::ms),
            timeouts: None,
            drained: Drained::No,
            is_page: false,
            held_size: kept,
            has_pipelined: self.input.is_some(),
            service: None,
        };
        match &self.phase {
            Phase::Head(_) | Phase::Body(_) => wants.progress = Progress::Request,
            Phase::Reply(reply) => {
                (wants.progress, wants.drained) = (Progress::Reply, Drained::Client);
                (wants.timeouts, wants.is_page) = (Some(reply.timeouts()), reply.sends_page());
                wants.held_size += reply.held_size();
            }
            Phase::Opening(opening) => {
                (wants.progress, wants.service) = (Progress::Opening, Some(opening.service()));
                wants.held_size += opening.held_size();
            }
            Phase::Relay(relay) => {
                (wants.progress, wants.service) = (Progress::Relay, Some(relay.service()));
                wants.held_size += relay.held_size();
            }
            Phase::Tunnel(tunnel) => {
                (wants.progress, wants.service) = (Progress::Tunnel, Some(tunnel.service()));
                wants.timeouts = tunnel.timeouts();
                wants.drained = if tunnel.has_ended() { Drained::Both } else { Drained::No };
            }
            Phase::Closing(closing) => {
                (wants.progress, wants.timeouts) = (Progress::Closing, closing.timeouts());
                wants.held_size += closing.held_size();
            }
            Phase::Over => {}
        }
        wants
    }

    /// What the log tells of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The name last asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes one input. After `Effect::Over` no input changes anything.
    pub fn handle(&mut self, around: Surroundings<'_>, input: Input<'_>, out: &mut Effects) {
        // The usual case first: nothing moves while messages flow.
        let mut context = Context::new(around, &mut self.facts, out);
        let leave = match &mut self.phase {
            Phase::Relay(relay) if !input.is_note() => relay.handle(input, &mut context),
            Phase::Tunnel(tunnel) if !input.is_note() => tunnel.handle(input, &mut context),
            _ if input.is_note() => return self.note(&input, around.now_ms),
            Phase::Closing(_) => return self.close(around, input, out),
            Phase::Over => return,
            _ => return self.handle_http(around, input, out),
        };
        if let Some(leave) = leave {
            let next = self.take_phase().leave(leave, &mut Context::new(around, &mut self.facts, out));
            self.enter(next);
        }
    }

    /// Takes a note, to which nothing is done.
    fn note(&mut self, input: &Input<'_>, now_ms: u64) {
        match (input, &mut self.phase) {
            (Input::PutOff(until_ms), _) => self.facts.deadline = Some(Moment::at(*until_ms)),
            (Input::TakenBack(size), Phase::Reply(reply)) => reply.take_back(*size),
            (Input::Excused, Phase::Relay(relay)) => relay.excuse_client(now_ms),
            (Input::Unread, Phase::Relay(relay)) => relay.on_client_unread(),
            _ => {}
        }
    }

    fn close(&mut self, around: Surroundings<'_>, input: Input<'_>, out: &mut Effects) {
        if let Phase::Closing(closing) = self.take_phase() {
            let next = closing.handle(input, &mut Context::new(around, &mut self.facts, out));
            self.enter(next);
        }
    }

    fn take_phase(&mut self) -> Phase {
        mem::replace(&mut self.phase, Phase::Over)
    }

    fn enter(&mut self, phase: Phase) {
        if matches!(phase, Phase::Over) {
            self.facts.deadline = None;
        }
        self.phase = phase;
    }

    /// Before messages flow: phases follow each other as long as there is input for them.
    fn handle_http(&mut self, around: Surroundings<'_>, mut input: Input<'_>, out: &mut Effects) {
        match &mut input {
            // What is left of a body that nobody reads.
            Input::Bytes(End::Client, _) | Input::Ended(End::Client) if self.leaves_body() => {}
            Input::Bytes(End::Client, chunk) => {
                self.input.get_or_insert_default().extend_from_slice(&chunk.buffer[chunk.start..chunk.end]);
            }
            // Whoever only looks whether the gateway is there may leave by a reset.
            Input::Failed(End::Client, error) => {
                let between = self.between_requests().filter(|ending| *ending != Ending::Served);
                return self.end(between.unwrap_or(Ending::ClientFailed(*error)), out);
            }
            Input::Ended(End::Client) => {
                let between = self.between_requests();
                return self.end(between.unwrap_or(Ending::HttpClientLeft), out);
            }
            Input::Stop => self.facts.is_stopping = true,
            _ => {}
        }
        let mut input = Some(input);
        let mut bytes = self.input.take().map_or_else(Vec::new, |input| *input);
        let is_stopping = self.facts.is_stopping;
        loop {
            let phase = self.take_phase();
            let mut context = Context::new(around, &mut self.facts, out);
            let (phase, goes_on) = match phase {
                Phase::Head(head) => head.step(input.take(), &mut bytes, &mut self.name, is_stopping, &mut context),
                Phase::Body(body) => (body.step(input.take(), &mut bytes, is_stopping, &mut context), false),
                Phase::Reply(reply) => reply.step(input.take(), &mut context),
                Phase::Opening(opening) => opening.step(input.take(), &mut bytes, &mut context),
                Phase::Relay(mut relay) => match self.take_input(&mut relay, mem::take(&mut bytes), around, out) {
                    Some(leave) => {
                        let mut context = Context::new(around, &mut self.facts, out);
                        (Phase::Relay(relay).leave(leave, &mut context), false)
                    }
                    None => (Phase::Relay(relay), false),
                },
                other => (other, false),
            };
            self.enter(phase);
            if !goes_on {
                break;
            }
        }
        self.input = (!bytes.is_empty()).then(|| Box::new(bytes));
    }

    /// How the connection would end here, where no request has begun.
    fn between_requests(&self) -> Option<Ending> {
        match &self.phase {
            Phase::Head(head) if self.input.is_none() => Some(head.ending()),
            _ => None,
        }
    }

    fn leaves_body(&self) -> bool {
        matches!(&self.phase, Phase::Reply(reply) if reply.leaves_body())
    }

    /// Feeds the relay what the client sent right behind its handshake.
    fn take_input(
        &mut self,
        relay: &mut Relay,
        input: Vec<u8>,
        around: Surroundings<'_>,
        out: &mut Effects,
    ) -> Option<Leave> {
        if input.is_empty() {
            return None;
        }
        let start = limits::POOL_HEADROOM;
        let mut buffer = vec![0; start + input.len()];
        buffer[start..].copy_from_slice(&input);
        let mut effects = Effects::default();
        let mut context = Context::new(around, &mut self.facts, &mut effects);
        let end = buffer.len();
        let next = relay.handle(Input::Bytes(End::Client, Chunk { buffer: &mut buffer, start, end }), &mut context);
        out.add_frames(effects.take_frames());
        // These bytes are in no pool buffer that could be forwarded: they are sent as a copy.
        out.extend(effects.drain().map(|effect| match effect {
            Effect::Forward { to, range } => Effect::Send { to, bytes: buffer[range].into() },
            Effect::Later { from, start: rest } => {
                Effect::LaterBytes { from, buffer: [&buffer[..start], &buffer[rest..]].concat().into() }
            }
            other => other,
        }));
        next
    }

    fn end(&mut self, ending: Ending, out: &mut Effects) {
        out.push(Effect::Over(ending));
        self.enter(Phase::Over);
    }
}

/// Ends the connection without another word.
fn over(ending: Ending, context: &mut Context<'_>) -> Phase {
    context.out.push(Effect::Over(ending));
    Phase::Over
}

/// Refuses a request and ends the connection behind the reply.
fn refuse(status: u16, sentence: &str, ending: Ending, context: &mut Context<'_>) -> Phase {
    *context.status = status;
    let bytes = crate::http::reply::refusal(status, sentence, "", false, context.is_head, context.date);
    context.out.push(Effect::Send { to: End::Client, bytes });
    Phase::Closing(Box::new(Closing::of_reply(ending, context)))
}

/// Tells the client, by a close frame, that the conversation is over.
fn send_close(code: Option<CloseCode>, reason: &str, context: &mut Context<'_>) {
    context.out.push(Effect::SendLast { to: End::Client, bytes: encoder::close_frame(code, reason) });
}

/// Bytes of the part of a conversation that is allocated by itself.
#[cfg(test)]
pub(crate) const RELAY_SIZE: usize = size_of::<Relay>();
