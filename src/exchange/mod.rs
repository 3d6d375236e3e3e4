//! The protocol core: one connection from its first byte to its last. It performs no I/O and holds no file descriptor
//! and no clock: inputs are passed in, effects are returned, and time is an argument.
#![forbid(unsafe_code)]

mod asking;
mod body;
mod forward;
mod head;
mod opening;
mod relay;
mod reply;
mod tunnel;

mod closing;

mod effect;
mod ending;

use std::borrow::Cow;
use std::mem;

use auth_wire::Verdict;
use ecow::EcoString;

use crate::access::NonceKey;
use crate::clients::header::HeaderError;
use crate::clients::{AddressCounts, AddressUnit};
use crate::driver::{ConnectError, FileKind, HandoverStep, OpenError, SystemError};
use crate::http::date::Date;
use crate::http::redirect;
use crate::limits;
use crate::route::{Service, Site, Sites};
use crate::tls::TlsFailure;
use crate::types::{Address, End, Moment, U48};
use rfc6455::close::CloseCode;
use rfc6455::encoder;
use rfc6455::mask::MaskKeys;

pub(crate) use crate::tls::Security;
pub(crate) use closing::CloseTimeouts;
pub(crate) use effect::{Chunk, Effect, Effects, Folder};
pub(crate) use ending::{Ending, Full, Step};

use asking::Asking;
use body::Draining;
use closing::Closing;
use ending::Leave;
use forward::{Forward, Next};
use head::RequestHead;
use opening::Opening;
use relay::Relay;
use reply::Reply;
use tunnel::Tunnel;

/// An event on the connection, passed to `Exchange::handle`.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A trusted proxy was accepted, whose PROXY header comes first: `Accepted`, `Overload` or `NoHeader` follows.
    Expecting,
    /// The PROXY header of a trusted proxy is refused.
    NoHeader(HeaderError),
    /// The client was accepted, or the PROXY header before its bytes is complete.
    Accepted,
    /// The TLS handshake is complete.
    Secured,
    /// The client was accepted although this limit was reached: it is refused with a 503.
    Overload(Full),
    /// Bytes received from this end. They are decoded in place.
    Bytes(End, Chunk<'a>),
    /// This end closed its sending half (end of stream).
    Ended(End),
    /// The connection to this end failed.
    Failed(End, SystemError),
    /// The TLS connection to this end failed; its alert is queued.
    Broken(End, TlsFailure),
    /// The result of `Effect::Open`.
    Opened(Result<FileKind, OpenError>),
    /// The result of `Effect::Connect` or `Effect::ConnectTcp`.
    Connected(Result<(), ConnectError>),
    /// The result of `Effect::TakeIdle`: whether an idle connection to the node is now that of the backend.
    TookIdle(bool),
    /// In place of `Deadline` while a request is forwarded: bytes are still queued for this end.
    Stalled(End),
    /// The result of `Effect::HandOver`; an error names the step that failed.
    HandedOver(Result<HandedOver, (HandoverStep, ConnectError)>),
    /// The socket of `Effect::Open` was opened, but other clients already wait for its backlog.
    OpenedFull,
    /// The result of `Effect::Ask`.
    Answered(Verdict),
    /// In place of `Answered`: reloads have replaced the rules that the question is about.
    RulesLeft,
    /// In place of `Answered`: the question about a request was not asked, since too many others wait.
    TooManyAsked,
    /// What admitted the client (`Effect::Admitted`) was revoked.
    Revoked,
    /// The backlog may have room: retry after `Effect::AwaitBacklog`.
    Retry,
    /// Bytes of the file for `Effect::ReadFile`. An empty chunk means end of file or a failed read.
    FileBytes(Chunk<'a>),
    /// The send queue of the client is empty; at the end of a tunnel, the backend's queue too.
    Drained,
    /// `Wants::deadline_ms` has passed.
    Deadline,
    /// The deadline moves to this time, in milliseconds.
    PutOff(u64),
    /// This number of page bytes was removed from the tail of the send queue unsent. They are read from the file again
    /// when the client accepts more.
    TakenBack(u64),
    /// Reading from the client was paused for a while, so its silence does not count.
    Excused,
    /// The client is not being read, so a missing pong proves nothing. Pings are still sent, because only a send
    /// reports a broken connection.
    Unread,
    /// The gateway starts its shutdown.
    Stop,
    /// The drain time of the shutdown is over: send the final frames now.
    LastCall,
}

impl Input<'_> {
    /// Whether the input only updates state and causes no effect.
    fn is_note(&self) -> bool {
        matches!(self, Input::PutOff(_) | Input::TakenBack(_) | Input::Excused | Input::Unread)
    }
}

/// What became of a client that was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandedOver {
    /// The backend has the client's own socket.
    Away {
        /// The kernel makes its TLS records.
        has_kernel_tls: bool,
    },
    /// The backend has one end of a socketpair(2), and the gateway relays the bytes.
    Relayed,
}

/// Payload bytes and messages in each direction.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    /// Payload bytes from the client to the backend.
    pub(crate) up_bytes: U48,
    /// Messages from the client to the backend.
    pub(crate) up_messages: U48,
    /// Payload bytes from the backend to the client.
    pub(crate) down_bytes: U48,
    /// Messages from the backend to the client.
    pub(crate) down_messages: U48,
}

/// The environment of one input: time and configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The current time in milliseconds. With `Input::Deadline`: all input received before this time has been handled.
    pub(crate) now_ms: u64,
    /// The earliest time, in milliseconds, at which the bytes of this input may have arrived; usually equal to
    /// `now_ms`.
    pub(crate) since_ms: u64,
    /// The wall clock, formatted for the Date field.
    pub(crate) date: &'a Date,
    /// The configured servers (virtual hosts).
    pub(crate) sites: &'a Sites,
    /// Salt for the entity tags of files whose timestamps are not reliable.
    pub(crate) tag_salt: u64,
    /// How the client's connection is protected.
    pub(crate) security: Security<'a>,
    /// The client of a connection without a trusted proxy. Not told to a conversation, which does not depend on it.
    pub(crate) client: Address,
    /// The proxy that has made the connection. None: it is not trusted. Not told to a conversation, which does not depend
    /// on it.
    pub(crate) proxied: Option<Proxied<'a>>,
    /// The key of the nonces of Digest.
    pub(crate) nonces: &'a NonceKey,
    /// The masking keys of frames to nodes.
    pub(crate) masks: &'a MaskKeys,
}

#[cfg(test)]
impl<'a> Surroundings<'a> {
    /// A client without TLS and without a proxy, at the first millisecond.
    pub(crate) fn plain(date: &'a Date, sites: &'a Sites) -> Surroundings<'a> {
        static MASKS: std::sync::LazyLock<MaskKeys> = std::sync::LazyLock::new(MaskKeys::default);
        Surroundings {
            now_ms: 1,
            since_ms: 1,
            date,
            sites,
            tag_salt: 1,
            security: Security::Plain,
            client: Address::Unknown,
            proxied: None,
            nonces: NonceKey::fixed(),
            masks: &MASKS,
        }
    }
}

/// A connection of a trusted proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxied<'a> {
    /// The peer of the socket, or the source that its PROXY header gives.
    pub(crate) peer: Address,
    /// Whether fields of its requests may give the client. Not after a PROXY header that gives none.
    pub(crate) reads_fields: bool,
    /// Whether the source of the PROXY header uses TLS. None: not known.
    pub(crate) is_tls: Option<bool>,
    /// The places of all clients.
    pub(crate) counts: &'a AddressCounts,
}

/// The state machine of one connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    phase: Phase,
    facts: Facts,
    /// The name in the latest request.
    name: EcoString,
}

/// State that is kept across all phases.
#[derive(Default, Debug)]
pub(crate) struct Facts {
    /// Index of the server in `Surroundings::sites`; the first server until a Host field selects another.
    pub(crate) site: u16,
    /// Status code of the last reply; 101 for a WebSocket, 0 for no reply yet.
    pub(crate) status: u16,
    /// Whether the client of the request uses https, as the fields of a trusted proxy say. None: they do not.
    forwarded_tls: Option<bool>,
    /// Payload relayed so far.
    pub(crate) traffic: Traffic,
    /// Time of the next `Input::Deadline`; None: no deadline.
    deadline: Option<Moment>,
    is_stopping: bool,
}

#[derive(Debug)]
enum Phase {
    /// The request head is incomplete.
    Head(RequestHead),
    /// A request that waits for the decision about its credential.
    Asking(Box<Asking>),
    /// The request body is incomplete.
    Body(Box<Draining>),
    /// The request is answered with a file or an error reply.
    Reply(Box<Reply>),
    /// A WebSocket handshake that waits for its backend.
    Opening(Box<Opening>),
    /// A node of an upstream answers the request.
    Forward(Box<Forward>),
    /// Messages are relayed in both directions.
    Relay(Relay),
    /// Bytes are copied in both directions after a hand-over through a socketpair(2).
    Tunnel(Box<Tunnel>),
    /// The closing handshake, then the end of both streams.
    Closing(Box<Closing>),
    /// The exchange is finished; no input has an effect.
    Over,
}

impl Phase {
    /// Received bytes that are not processed yet: of an incomplete request head, or pipelined bytes after a request.
    /// None: not a phase of HTTP.
    fn input_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Phase::Head(head) => Some(&mut head.input),
            Phase::Asking(asking) => Some(&mut asking.input),
            Phase::Body(body) => Some(&mut body.reply.input),
            Phase::Reply(reply) => Some(&mut reply.input),
            Phase::Opening(opening) => Some(&mut opening.input),
            Phase::Forward(forward) => Some(&mut forward.input),
            Phase::Relay(_) | Phase::Tunnel(_) | Phase::Closing(_) | Phase::Over => None,
        }
    }

    /// Moves a relay or a tunnel into its closing phase.
    fn leave(self, leave: Leave, context: &mut Context<'_>) -> Phase {
        match (self, leave) {
            (Phase::Relay(relay), leave) => Closing::of_relay(relay, leave, context),
            (Phase::Tunnel(tunnel), Leave::ClientLost(ending)) => {
                Phase::Closing(Box::new(Closing::without_client(ending, tunnel.into_seat(), context)))
            }
            (_, Leave::LastWords(_, ending) | Leave::CloseSent(ending))
            | (_, Leave::ClientLost(ending) | Leave::Over(ending)) => over(ending, context),
        }
    }
}

/// The environment and the output of a phase for one input.
struct Context<'a> {
    now_ms: u64,
    since_ms: u64,
    date: &'a Date,
    sites: &'a Sites,
    tag_salt: u64,
    security: Security<'a>,
    client: Address,
    proxied: Option<Proxied<'a>>,
    nonces: &'a NonceKey,
    masks: &'a MaskKeys,
    forwarded_tls: &'a mut Option<bool>,
    /// The client whose place is given back by an effect of this input, so that it is still counted. None: there is no
    /// such place.
    given_back: Option<AddressUnit>,
    site: &'a mut u16,
    status: &'a mut u16,
    /// The request method is HEAD: the reply has no body.
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
            security: around.security,
            client: around.client,
            proxied: around.proxied,
            nonces: around.nonces,
            masks: around.masks,
            forwarded_tls: &mut facts.forwarded_tls,
            given_back: None,
            site: &mut facts.site,
            status: &mut facts.status,
            is_head: false,
            traffic: &mut facts.traffic,
            deadline: &mut facts.deadline,
            out,
        }
    }

    /// The wall clock as Unix time in milliseconds.
    fn unix_ms(&self) -> u64 {
        self.date.unix_s().saturating_mul(1000)
    }

    fn site(&self) -> &'a Site {
        self.sites.get(*self.site)
    }

    /// Whether the client uses https: to the first proxy that is believed, else to the gateway, whose bytes a proxy that
    /// announces a client without TLS may have passed on. None: not known, since a proxy in front may terminate TLS.
    fn is_tls(&self) -> Option<bool> {
        let own = matches!(self.security, Security::Tls(_)).then_some(true);
        (*self.forwarded_tls).or(own).or(self.proxied.and_then(|proxied| proxied.is_tls))
    }

    /// The header lines of a reply: these, and that of RFC 6797 where the server sends it.
    fn fields<'f>(&self, fields: &'f str) -> Cow<'f, str> {
        match self.site().has_hsts && self.is_tls() == Some(true) {
            true => Cow::Owned(format!("{}{fields}", redirect::HSTS)),
            false => Cow::Borrowed(fields),
        }
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
        Exchange { phase: Phase::Head(RequestHead::default()), facts: Facts::default(), name: EcoString::new() }
    }
}

/// A snapshot of the state that the gateway acts on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants<'a> {
    /// The current stage.
    pub(crate) progress: Progress,
    /// Time of the next `Input::Deadline`, in milliseconds; None: no deadline.
    pub(crate) deadline_ms: Option<u64>,
    /// How long a peer may accept no bytes; None: only the deadline applies.
    pub(crate) timeouts: Option<CloseTimeouts>,
    /// The send queues whose emptying is reported by `Input::Drained`.
    pub(crate) drained: Drained,
    /// The tail of the client's send queue is page bytes, which can be read again (`Input::TakenBack`).
    pub(crate) is_page: bool,
    /// High-water mark in bytes of each send queue.
    pub(crate) queue_size_max: u64,
    /// Heap bytes held for incomplete requests and messages.
    pub(crate) held_size: usize,
    /// The client has pipelined bytes after its handshake.
    pub(crate) has_pipelined: bool,
    /// The service of the backend; None: no backend is being opened or is connected.
    pub(crate) service: Option<&'a Service>,
}

/// The stage of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// A request is being received.
    Request,
    /// A request waits for the decision about its credential.
    Asking,
    /// A request is being answered without a backend.
    Reply,
    /// A backend is being looked up or connected.
    Opening,
    /// A node has the request.
    Forward,
    /// Messages are relayed in both directions.
    Relay,
    /// Raw bytes are copied in both directions.
    Tunnel,
    /// The connection is closing.
    Closing,
    /// The exchange is finished.
    Over,
}

/// The send queues that must be empty before `Input::Drained` is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drained {
    /// No queue: do not report.
    No,
    /// The client's queue.
    Client,
    /// Both queues; neither end sends any more.
    Both,
}

impl Wants<'_> {
    /// Whether the input is frames, lines or packets, whose number per visit is limited.
    pub(crate) fn is_conversation(&self) -> bool {
        matches!(self.progress, Progress::Relay | Progress::Closing)
    }

    /// Whether received bytes take their turn among those of other connections.
    pub(crate) fn is_streaming(&self) -> bool {
        self.is_conversation() || self.progress == Progress::Forward
    }

    /// Whether the exchange is an open relay, without a handshake or a close in progress.
    pub(crate) fn is_flowing(&self) -> bool {
        self.progress == Progress::Relay
    }

    /// Whether a node has the request.
    pub(crate) fn is_forwarding(&self) -> bool {
        self.progress == Progress::Forward
    }

    /// Whether the exchange is still in HTTP: not a WebSocket, a tunnel, or closing.
    pub(crate) fn is_handshake(&self) -> bool {
        matches!(
            self.progress,
            Progress::Request | Progress::Asking | Progress::Reply | Progress::Opening | Progress::Forward
        )
    }

    /// Whether a backend is being looked up or connected.
    pub(crate) fn is_opening(&self) -> bool {
        self.progress == Progress::Opening
    }
}

impl Exchange {
    /// The state that the gateway acts on. It changes only with an input. Inlined so that a caller pays only for the
    /// fields it reads.
    #[inline(always)]
    pub(crate) fn wants(&self) -> Wants<'_> {
        let mut wants = Wants {
            progress: Progress::Over,
            deadline_ms: self.facts.deadline.map(Moment::ms),
            timeouts: None,
            drained: Drained::No,
            is_page: false,
            queue_size_max: limits::QUEUE_SIZE_MAX.default,
            held_size: self.name.len(),
            has_pipelined: false,
            service: None,
        };
        match &self.phase {
            Phase::Head(head) => {
                wants.progress = Progress::Request;
                wants.held_size += head.input.capacity();
            }
            Phase::Asking(asking) => {
                wants.progress = Progress::Asking;
                wants.held_size += asking.held_size() + asking.input.capacity();
            }
            Phase::Body(body) => {
                wants.progress = Progress::Request;
                wants.held_size += body.reply.input.capacity();
            }
            Phase::Reply(reply) => {
                (wants.progress, wants.drained) = (Progress::Reply, Drained::Client);
                (wants.timeouts, wants.is_page) = (Some(reply.timeouts()), reply.sends_page());
                wants.held_size += reply.held_size() + reply.input.capacity();
            }
            Phase::Opening(opening) => {
                (wants.progress, wants.service) = (Progress::Opening, Some(opening.service()));
                wants.held_size += opening.held_size() + opening.input.capacity();
                wants.has_pipelined = !opening.input.is_empty();
            }
            Phase::Forward(forward) => {
                wants.progress = if forward.is_opening() { Progress::Opening } else { Progress::Forward };
                wants.timeouts = forward.timeouts();
                wants.drained = if forward.is_finishing() { Drained::Client } else { Drained::No };
                wants.queue_size_max = forward.queue_size_max();
                wants.held_size += forward.held_size();
                wants.has_pipelined = !forward.input.is_empty();
            }
            Phase::Relay(relay) => {
                (wants.progress, wants.service) = (Progress::Relay, Some(relay.service()));
                wants.queue_size_max = relay.limits().queue_size_max;
                wants.held_size += relay.held_size();
            }
            Phase::Tunnel(tunnel) => {
                (wants.progress, wants.service) = (Progress::Tunnel, Some(tunnel.service()));
                wants.timeouts = tunnel.timeouts();
                wants.queue_size_max = tunnel.service().limits.queue_size_max;
                wants.drained = if tunnel.has_ended() { Drained::Both } else { Drained::No };
            }
            Phase::Closing(closing) => {
                (wants.progress, wants.timeouts) = (Progress::Closing, closing.timeouts());
                wants.service = closing.service();
                wants.queue_size_max = closing.queue_size_max();
                wants.held_size += closing.held_size();
            }
            Phase::Over => {}
        }
        wants
    }

    /// The facts for the log.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The name in the latest request.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Frees received bytes of requests, which nothing will read: the connection was given up.
    pub(crate) fn drop_input(&mut self) {
        if let Some(input) = self.phase.input_mut() {
            *input = Vec::new();
        }
    }

    /// Handles one input and appends the effects to `out`. After `Effect::Over` inputs are ignored.
    pub(crate) fn handle(&mut self, around: Surroundings<'_>, input: Input<'_>, out: &mut Effects) {
        if input.is_note() {
            return self.note(&input, around.now_ms);
        }
        // Fast path: an open relay or tunnel stays in its phase.
        let mut context = Context::new(around, &mut self.facts, out);
        let leave = match &mut self.phase {
            Phase::Relay(relay) => relay.handle(input, &mut context),
            Phase::Tunnel(tunnel) => tunnel.handle(input, &mut context),
            Phase::Forward(_) => return self.forward(around, input, out),
            Phase::Closing(_) => return self.close(around, input, out),
            Phase::Over => return,
            _ => return self.handle_http(around, input, out),
        };
        if let Some(leave) = leave {
            let next = self.take_phase().leave(leave, &mut Context::new(around, &mut self.facts, out));
            self.enter(next);
        }
    }

    /// Applies an input that has no effects.
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

    /// Handles an input while a node has the request.
    fn forward(&mut self, around: Surroundings<'_>, input: Input<'_>, out: &mut Effects) {
        self.facts.is_stopping |= matches!(input, Input::Stop);
        let Phase::Forward(forward) = &mut self.phase else { return };
        let then = forward.handle(input, &mut Context::new(around, &mut self.facts, out));
        let Some(then) = then else { return };
        let Phase::Forward(forward) = self.take_phase() else { return };
        let next = forward.follow(then, &mut Context::new(around, &mut self.facts, out));
        self.go_on(next, around, out);
    }

    /// Goes on after a request that was forwarded.
    fn go_on(&mut self, next: Next, around: Surroundings<'_>, out: &mut Effects) {
        match next {
            Next::Phase(phase) => self.enter(phase),
            Next::Request(head, bytes, given_back) => {
                self.enter(Phase::Head(head));
                self.run(None, (bytes, given_back), around, out);
            }
            Next::Relay(mut relay, of_client, of_backend) => {
                let leave = self
                    .take_input(&mut relay, of_backend, End::Backend, around, out)
                    .or_else(|| self.take_input(&mut relay, of_client, End::Client, around, out));
                let relay = Phase::Relay(*relay);
                let next = match leave {
                    Some(leave) => relay.leave(leave, &mut Context::new(around, &mut self.facts, out)),
                    None => relay,
                };
                self.enter(next);
            }
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

    /// Handles an input of the HTTP phases; runs one phase after another while there is input for them.
    fn handle_http(&mut self, around: Surroundings<'_>, mut input: Input<'_>, out: &mut Effects) {
        match &mut input {
            // The rest of a request body that is discarded.
            Input::Bytes(End::Client, _) | Input::Ended(End::Client) if self.leaves_body() => {}
            Input::Bytes(End::Client, chunk) => {
                if let Some(input) = self.phase.input_mut() {
                    input.extend_from_slice(&chunk.buffer[chunk.start..chunk.end]);
                }
            }
            // A health check may leave with a reset: between requests this is a normal end.
            Input::Failed(End::Client, error) => {
                let between = self.between_requests().filter(|ending| *ending != Ending::Served);
                return self.end(between.unwrap_or(Ending::ClientFailed(*error)), out);
            }
            Input::Ended(End::Client) => {
                let between = self.between_requests();
                return self.end(between.unwrap_or(Ending::HttpClientLeft), out);
            }
            Input::NoHeader(error) => return self.end(Ending::Header(*error), out),
            // A client whose handshake failed is waited for, so that it receives its alert.
            Input::Broken(End::Client, error) if !matches!(self.phase, Phase::Head(_)) => {
                return self.end(Ending::Tls(*error), out);
            }
            Input::Broken(End::Client, error) => {
                let ending = Ending::Tls(*error);
                let closing = Closing::of_reply(ending, &mut Context::new(around, &mut self.facts, out));
                return self.enter(Phase::Closing(Box::new(closing)));
            }
            Input::Stop => self.facts.is_stopping = true,
            _ => {}
        }
        let bytes = self.phase.input_mut().map_or_else(Vec::new, mem::take);
        self.run(Some(input), (bytes, None), around, out);
    }

    /// Runs one phase of HTTP after another while there is input for them; `bytes` are those received and not processed,
    /// `given_back` is that of a `Context`.
    fn run(
        &mut self,
        mut input: Option<Input<'_>>,
        (mut bytes, mut given_back): (Vec<u8>, Option<AddressUnit>),
        around: Surroundings<'_>,
        out: &mut Effects,
    ) {
        let is_stopping = self.facts.is_stopping;
        loop {
            let phase = self.take_phase();
            let mut context = Context { given_back, ..Context::new(around, &mut self.facts, out) };
            let (phase, goes_on) = match phase {
                Phase::Head(head) => head.step(input.take(), &mut bytes, &mut self.name, is_stopping, &mut context),
                Phase::Asking(asking) => asking.step(input.take(), &self.name, &mut context),
                Phase::Body(body) => (body.step(input.take(), &mut bytes, is_stopping, &mut context), false),
                Phase::Reply(reply) => {
                    let next = reply.step(input.take(), &mut context);
                    given_back = context.given_back;
                    next
                }
                Phase::Opening(opening) => opening.step(input.take(), &mut bytes, &mut context),
                Phase::Forward(mut forward) => {
                    forward.input = mem::take(&mut bytes);
                    (Phase::Forward(forward), false)
                }
                Phase::Relay(mut relay) => {
                    match self.take_input(&mut relay, mem::take(&mut bytes), End::Client, around, out) {
                        Some(leave) => {
                            let mut context = Context::new(around, &mut self.facts, out);
                            (Phase::Relay(relay).leave(leave, &mut context), false)
                        }
                        None => (Phase::Relay(relay), false),
                    }
                }
                other => (other, false),
            };
            self.enter(phase);
            if !goes_on {
                break;
            }
        }
        // An empty buffer is freed.
        if let Some(input) = self.phase.input_mut()
            && !bytes.is_empty()
        {
            *input = bytes;
        }
    }

    /// The ending if the client left now. None: a request has begun.
    fn between_requests(&self) -> Option<Ending> {
        match &self.phase {
            Phase::Head(head) if head.input.is_empty() => Some(head.ending()),
            _ => None,
        }
    }

    fn leaves_body(&self) -> bool {
        matches!(&self.phase, Phase::Reply(reply) if reply.leaves_body())
    }

    /// Passes bytes that arrived after the handshake, before the relay began, to the relay.
    fn take_input(
        &mut self,
        relay: &mut Relay,
        input: Vec<u8>,
        from: End,
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
        let next = relay.handle(Input::Bytes(from, Chunk { buffer: &mut buffer, start, end }), &mut context);
        effects.copy_to(&buffer, out);
        next
    }

    fn end(&mut self, ending: Ending, out: &mut Effects) {
        if let Phase::Asking(_) = self.phase {
            out.push(Effect::CancelAsk);
        }
        out.push(Effect::Over(ending));
        self.enter(Phase::Over);
    }
}

/// Ends the connection without sending anything.
fn over(ending: Ending, context: &mut Context<'_>) -> Phase {
    context.out.push(Effect::Over(ending));
    Phase::Over
}

/// Sends an error reply and closes the connection after it.
fn refuse(status: u16, sentence: &str, ending: Ending, context: &mut Context<'_>) -> Phase {
    refuse_with(status, sentence, "", ending, context)
}

/// As `refuse`, with further header lines.
fn refuse_with(status: u16, sentence: &str, fields: &str, ending: Ending, context: &mut Context<'_>) -> Phase {
    *context.status = status;
    let fields = context.fields(fields);
    let bytes = crate::http::reply::refusal(status, sentence, &fields, false, context.is_head, context.date);
    context.out.push(Effect::Send { to: End::Client, bytes });
    Phase::Closing(Box::new(Closing::of_reply(ending, context)))
}

/// Sends the client a close frame.
fn send_close(code: Option<CloseCode>, reason: &str, context: &mut Context<'_>) {
    context.out.push(Effect::SendLast { to: End::Client, bytes: encoder::close_frame(code, reason) });
}
