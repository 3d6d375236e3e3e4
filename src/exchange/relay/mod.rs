//! Relays messages in both directions. Frames are decoded in place and forwarded from the receive buffer.
//!
//! To a node of an upstream the gateway is a client of RFC 6455: its frames are masked, those of the node may not be, and
//! neither end leaves without the closing handshake (section 7):
//!
//! | what ends a WebSocket of a node | the node is sent | the client is sent |
//! |---|---|---|
//! | the client's close frame | the code and the reason | after the node's last messages: the code |
//! | an error of the client in its frames | the code and the error | after the node's last messages: the same |
//! | the gateway stops | 1001 | after the node's last messages: 1001 |
//! | `idle-ms`, the end of the client's permission | 1001, 1008, 1012 | the code and the reason |
//! | the node's close frame | the code | the code and the reason |
//! | an error of the node in its frames | the code and the error | 1011 |
//! | the node's connection ends or fails without a close frame, which is 1006 and may not be sent | | 1011 |
//! | the client's connection ends or fails without a close frame | the end of the stream alone, which is 1006 to the node | |
//!
//! The node closes its connection first (section 7.1.1): after a close frame the sending half towards it stays open
//! until the node has ended, or `close-ms` is over.

mod coalescer;
mod down;
mod keepalive;
mod lines;
#[cfg(test)]
mod tests;

use auth_wire::Verdict;

use super::ending::Leave;
use super::{Chunk, Context, Effect, Ending, Input, send_close};
use crate::access::{Lapse, Standing};
use crate::driver::device::Direction;
use crate::limits::{self, WebSocket, WhenOver};
use crate::observe::log::Level;
use crate::route::{Destination, MessageType, Protocol, Seat, Service};
use crate::types::{Demand, End};
use crate::upstream::NodePermit;
use coalescer::Coalescer;
use keepalive::{Alarms, Due, Keepalive};
use lines::delimiter;
use rfc6455::close::CloseCode;
use rfc6455::decoder::{Data, Decoder, Piece, Rules};
use rfc6455::encoder;
use rfc6455::header::{Masking, Opcode};

/// A close frame's code and reason.
type Close = (Option<CloseCode>, Box<str>);

/// A WebSocket with its backend.
#[derive(Debug)]
pub(crate) struct Relay {
    seat: Seat,
    /// The protocol of the service, or the protocol that the type of the backend's socket implies.
    protocol: Protocol,
    /// The message type of the service, or the type that the subprotocol requires.
    message_type: MessageType,
    /// Decoder of the client's frames.
    up: Decoder,
    /// Decoder of the backend's frames, if its protocol has frames.
    down: Decoder,
    traits: BackendTraits,
    keepalive: Keepalive,
    /// None: all of it has its default value.
    extra: Option<Box<Extra>>,
}

/// State that an idle conversation does not need.
#[derive(Default, Debug)]
struct Extra {
    /// An incomplete packet of the client, or an incomplete line of the backend.
    partial: Vec<u8>,
    /// Bytes of a character that the end of the backend's last read truncated.
    cut: [u8; 3],
    cut_size: u8,
    is_backend_gone: bool,
    /// The client has closed: the backend's remaining messages are relayed.
    is_last: bool,
    /// The node was sent a close frame.
    is_node_told: bool,
    /// The node counts it as busy. None: the backend is not a node.
    node: Option<NodePermit>,
    alarms: Alarms,
    /// How long the client stays admitted. None: for ever.
    standing: Option<Box<Standing>>,
}

impl Extra {
    fn is_nothing(&self) -> bool {
        let is_flagged =
            self.is_backend_gone || self.is_last || self.is_node_told || self.standing.is_some() || self.node.is_some();
        !is_flagged && self.partial.is_empty() && self.cut_size == 0 && self.alarms.is_nothing()
    }
}

/// What kind of backend a relay has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BackendTraits {
    /// A socket of docroot or of a link.
    Socket,
    /// A terminal line, or a pipe that is written.
    Device,
    /// A pipe that is read.
    Source,
    /// A WebSocket server: a node of an upstream. The gateway is its client.
    Node,
}

impl BackendTraits {
    /// The traits of a link's destination; None: the traits of a socket in docroot.
    pub(crate) fn of(destination: Option<&Destination>) -> BackendTraits {
        match destination {
            Some(Destination::Fifo { direction: Direction::Read, .. }) => BackendTraits::Source,
            Some(Destination::Fifo { .. } | Destination::Tty { .. }) => BackendTraits::Device,
            Some(Destination::Upstream(upstream)) if !upstream.is_tunnel => BackendTraits::Node,
            _ => BackendTraits::Socket,
        }
    }

    /// Whether the backend accepts messages.
    fn takes_messages(self) -> bool {
        self != BackendTraits::Source
    }

    /// Whether the backend sees the end of its input and ends after its last answer. No device does.
    fn ends(self) -> bool {
        matches!(self, BackendTraits::Socket | BackendTraits::Node)
    }

    /// Whether frames to the backend are masked, and a close frame is answered with one.
    fn masks(self) -> bool {
        self == BackendTraits::Node
    }
}

impl Relay {
    /// Starts a relay.
    pub(crate) fn new(
        seat: Seat,
        protocol: Protocol,
        message_type: MessageType,
        traits: BackendTraits,
        standing: Option<Box<Standing>>,
        context: &mut Context<'_>,
    ) -> Relay {
        let (up, down, keepalive) = (Decoder::default(), Decoder::default(), Keepalive::new(context.now_ms));
        let extra = Some(Box::new(Extra { alarms: Alarms::new(&seat.limits), standing, ..Extra::default() }));
        let mut relay = Relay { seat, protocol, message_type, up, down, traits, keepalive, extra };
        relay.forget_extra();
        relay.set_deadline(context);
        relay
    }

    fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Counts as busy with its node for as long as it lasts.
    pub(crate) fn hold_node(&mut self, node: Option<NodePermit>) {
        self.extra_mut().node = node;
    }

    /// Frees `extra` if it has its default value.
    fn forget_extra(&mut self) {
        self.extra.take_if(|extra| extra.is_nothing());
    }

    fn set_deadline(&self, context: &mut Context<'_>) {
        let extra = self.extra.as_ref();
        let next_ms = self.keepalive.next_ms(extra.map(|extra| &extra.alarms), &self.seat.limits);
        let standing_ms = extra.and_then(|extra| extra.standing.as_ref()?.next_ms());
        context.set_deadline(next_ms.into_iter().chain(standing_ms).min());
    }

    /// Heap bytes held for incomplete messages.
    pub(crate) fn held_size(&self) -> usize {
        self.extra
            .as_ref()
            .map_or(0, |extra| extra.partial.capacity() + extra.standing.as_ref().map_or(0, |standing| standing.size()))
    }

    /// The service of the backend.
    pub(crate) fn service(&self) -> &Service {
        &self.seat
    }

    /// The limits of this relay.
    pub(crate) fn limits(&self) -> &WebSocket {
        &self.seat.limits
    }

    /// Whether only the first part of a client's message was relayed.
    pub(crate) fn is_amid_message(&self) -> bool {
        self.up.is_amid_message()
    }

    /// Whether the backend sees the end of its input and ends after its last answer. No device does.
    pub(crate) fn ends(&self) -> bool {
        self.traits.ends()
    }

    /// The backend has ended or failed.
    pub(crate) fn on_backend_gone(&mut self) {
        self.extra_mut().is_backend_gone = true;
    }

    /// Whether a node was sent a close frame: it ends its connection.
    pub(crate) fn is_node_told(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_node_told)
    }

    /// The seat among the clients of its service.
    pub(crate) fn into_seat(self) -> Seat {
        self.seat
    }

    fn is_backend_gone(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_backend_gone)
    }

    /// The client's decoder with its rules, and its seat among the clients of its service; None: the backend has ended.
    pub(crate) fn into_parts(self) -> (ClientFrames, Option<Seat>) {
        let (rules, is_gone) = (rules(&self.seat.limits, self.protocol), self.is_backend_gone());
        (ClientFrames { decoder: self.up, rules }, (!is_gone).then_some(self.seat))
    }

    /// Skips the client's messages up to its close frame. True: found; a protocol error counts as a close frame.
    pub(crate) fn find_close(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
        find_close(&mut self.up, &rules(&self.seat.limits, self.protocol), chunk, context)
    }

    /// Reading from the client was paused for a while, so its silence does not count.
    pub(crate) fn excuse_client(&mut self, now_ms: u64) {
        self.heard(now_ms);
    }

    fn heard(&mut self, now_ms: u64) {
        self.keepalive.on_client(self.extra.as_mut().map(|extra| &mut extra.alarms), now_ms);
    }

    /// The client is not being read, so a missing pong proves nothing.
    pub(crate) fn on_client_unread(&mut self) {
        if let Some(extra) = &mut self.extra {
            self.keepalive.on_unread(&mut extra.alarms);
        }
    }

    /// Handles an input. Some: the relay closes.
    pub(crate) fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Leave> {
        let leave = match input {
            Input::Bytes(End::Client, chunk) => self.client_bytes(chunk, context),
            Input::Bytes(End::Backend, chunk) => self.backend_bytes(chunk, context),
            Input::Ended(End::Client) => Some(Leave::ClientLost(Ending::ClientLeft)),
            Input::Failed(End::Client, error) => Some(Leave::ClientLost(Ending::ClientFailed(error))),
            Input::Broken(End::Client, error) => Some(Leave::ClientLost(Ending::Tls(error))),
            Input::Ended(End::Backend) => Some(self.backend_end(context)),
            Input::Failed(End::Backend, error) => {
                self.on_backend_gone();
                Some(self.close_client(CloseCode::INTERNAL_ERROR, Ending::BackendFailed(error), context))
            }
            Input::Broken(End::Backend, failure) => {
                self.on_backend_gone();
                Some(self.close_client(CloseCode::INTERNAL_ERROR, Ending::BackendTls(failure), context))
            }
            Input::Deadline => self.on_deadline(context),
            Input::Answered(verdict) => self.answered(&verdict, context),
            Input::RulesLeft => Some(self.close_client(CloseCode::SERVICE_RESTART, Ending::Outdated, context)),
            Input::Revoked => Some(self.close_client(CloseCode::POLICY_VIOLATION, Ending::Revoked, context)),
            Input::Stop => {
                let code = (Some(CloseCode::GOING_AWAY), "");
                Some(self.part(code, "the gateway stops", Ending::Stopping, context))
            }
            _ => None,
        };
        if leave.is_some() {
            self.leave_standing(context);
        }
        self.forget_extra();
        leave
    }

    /// The decision about the client's credential, which was asked for again.
    fn answered(&mut self, verdict: &Verdict, context: &mut Context<'_>) -> Option<Leave> {
        let time = (context.now_ms, context.unix_ms());
        let lapse = self.extra.as_mut()?.standing.as_mut()?.answered(verdict, time);
        if let (Verdict::Unavailable { sentence }, None | Some(Lapse::Doubtful)) = (verdict, &lapse) {
            context.out.push(Effect::Log(Level::Warn, format!("no decision about an open WebSocket: {sentence}")));
        }
        if let (Verdict::Refused { reason }, Some(_)) = (verdict, &lapse) {
            context.out.push(Effect::Log(Level::Info, reason.clone()));
        }
        let leave = lapse.and_then(|lapse| self.lapse(lapse, context));
        self.set_deadline(context);
        leave
    }

    fn lapse(&mut self, lapse: Lapse, context: &mut Context<'_>) -> Option<Leave> {
        let ending = match lapse {
            Lapse::Expired => Ending::Expired,
            Lapse::Revoked => Ending::Revoked,
            Lapse::Doubtful => Ending::Doubtful,
            Lapse::Ask(ask) => {
                context.out.push(Effect::Ask(ask));
                return None;
            }
            Lapse::GiveUp => {
                context.out.push(Effect::CancelAsk);
                return None;
            }
        };
        Some(self.close_client(CloseCode::POLICY_VIOLATION, ending, context))
    }

    /// The relay ends: an answer is no longer needed.
    fn leave_standing(&mut self, context: &mut Context<'_>) {
        let standing = self.extra.as_mut().and_then(|extra| extra.standing.take());
        if standing.is_some_and(|standing| standing.is_asked()) {
            context.out.push(Effect::CancelAsk);
        }
    }

    fn client_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Leave> {
        self.heard(context.now_ms);
        let rules = rules(&self.seat.limits, self.protocol);
        let mut coalescer = Coalescer::default();
        let mut pongs = Pongs::default();
        let (mut at, mut frames, mut costly) = (chunk.start, 0, 0);
        let (mut bytes, mut messages, mut has_data) = (0, 0, false);
        let end = loop {
            if frames == limits::FRAMES_PER_VISIT_MAX && at < chunk.end {
                context.out.push(Effect::Later { from: End::Client, start: at });
                break None;
            }
            frames += 1;
            match self.up.next(&rules, chunk.buffer, &mut at, chunk.end) {
                Ok(None) => break None,
                Ok(Some(Piece::Data(_))) if !self.traits.takes_messages() => {
                    let (code, reason) = (Some(CloseCode::UNSUPPORTED_DATA), Ending::TakesNothing.to_string());
                    return Some(self.part((code, &reason), &reason, Ending::TakesNothing, context));
                }
                Ok(Some(Piece::Data(data))) => {
                    let is_short = data.fragment_size.is_some_and(|size| size < limits::FRAGMENT_SIZE_MIN);
                    costly += u64::from(data.last || is_short);
                    (bytes, messages) = (bytes + data.range.len() as u64, messages + u64::from(data.last));
                    has_data = true;
                    self.up_data(data, chunk.buffer, &mut coalescer, context);
                }
                Ok(Some(Piece::Ping(payload))) => {
                    costly += 1;
                    pongs.answer(End::Client, payload, false, context);
                }
                Ok(Some(Piece::Pong)) => costly += 1,
                Ok(Some(Piece::Close(code, reason))) => break Some(Ok((code, reason))),
                Err(error) => break Some(Err(error)),
            }
        };
        if has_data {
            self.keepalive.on_message(context.now_ms);
            context.traffic.up_bytes += bytes;
            context.traffic.up_messages += messages;
        }
        context.out.add_frames(frames);
        pongs.end(End::Client, false, context);
        coalescer.forward(End::Backend, context);
        match end {
            // A close frame is answered with the same code and no reason; a protocol error with the error's text.
            Some(Ok((code, reason))) => Some(self.part((code, &reason), "", Ending::ClientClosed(code), context)),
            Some(Err(error)) => {
                let (code, reason) = (Some(error.close_code()), error.to_string());
                Some(self.part((code, &reason), &reason, Ending::ClientProtocol(error), context))
            }
            None => self.limit_rate(costly, (at - chunk.start) as u64, context),
        }
    }

    fn limit_rate(&mut self, messages: u64, bytes: u64, context: &mut Context<'_>) -> Option<Leave> {
        let limits = &self.seat.limits;
        let time = (context.since_ms, context.now_ms);
        if !self.extra.as_mut().is_some_and(|extra| extra.alarms.is_over(messages, bytes, limits, time)) {
            return None;
        }
        match limits.when_over {
            WhenOver::Slow => {
                context.out.push(Effect::Demand(End::Client, Demand::Nothing));
                self.set_deadline(context);
                None
            }
            WhenOver::Close => {
                let reason = Ending::TooFast.to_string();
                Some(self.part((Some(CloseCode::POLICY_VIOLATION), &reason), &reason, Ending::TooFast, context))
            }
        }
    }

    /// Ends the client's direction: the backend is told, and its remaining messages are relayed.
    fn part(
        &mut self,
        (code, reason): (Option<CloseCode>, &str),
        answer: &str,
        ending: Ending,
        context: &mut Context<'_>,
    ) -> Leave {
        self.tell_backend(code, reason, context);
        Leave::LastWords(encoder::close_frame(code, answer), ending)
    }

    /// How long a backend may be silent during a shutdown, in milliseconds: `close_ms` if it sees the end of its input,
    /// but at least `LAST_WORDS_MS`.
    pub(crate) fn silence_ms(&self) -> u64 {
        if self.traits.ends() { limits::LAST_WORDS_MS.max(self.seat.limits.close_ms) } else { limits::LAST_WORDS_MS }
    }

    fn up_data(&mut self, data: Data, buffer: &mut [u8], coalescer: &mut Coalescer, context: &mut Context<'_>) {
        match (self.protocol, delimiter(self.protocol)) {
            (_, Some(delimiter)) => coalescer.add_delimited(buffer, data, delimiter),
            (Protocol::Frames, _) => {
                let key = self.traits.masks().then(|| context.masks.next());
                coalescer.add_frame(buffer, data, key);
            }
            (Protocol::Packet, _) => {
                let bytes = &buffer[data.range];
                if !data.last {
                    return self.extra_mut().partial.extend_from_slice(bytes);
                }
                let mut packet = self.extra.as_mut().map_or_else(Vec::new, |extra| std::mem::take(&mut extra.partial));
                packet.extend_from_slice(bytes);
                context.out.push(Effect::Send { to: End::Backend, bytes: packet.into() });
            }
            (_, None) => coalescer.add_payload(buffer, data),
        }
    }

    fn on_deadline(&mut self, context: &mut Context<'_>) -> Option<Leave> {
        let standing = self.extra.as_mut().and_then(|extra| extra.standing.as_mut());
        if let Some(lapse) = standing.and_then(|standing| standing.take_due(context.now_ms))
            && let Some(leave) = self.lapse(lapse, context)
        {
            return Some(leave);
        }
        loop {
            let alarms = &mut self.extra.get_or_insert_default().alarms;
            let Some(due) = self.keepalive.take_due(alarms, &self.seat.limits, context.now_ms) else { break };
            match due {
                Due::Cut => self.send_cut(context),
                Due::Resume => context.out.push(Effect::Demand(End::Client, Demand::Flow)),
                Due::Idle => return Some(self.close_client(CloseCode::GOING_AWAY, Ending::Idle, context)),
                Due::Silent => return Some(Leave::ClientLost(Ending::ClientSilent)),
                Due::Ping => {
                    let bytes = encoder::control_frame(Opcode::Ping, &[]);
                    context.out.push(Effect::Send { to: End::Client, bytes });
                }
            }
        }
        self.set_deadline(context);
        None
    }

    fn backend_end(&mut self, context: &mut Context<'_>) -> Leave {
        self.on_backend_gone();
        if !self.down.is_between_messages() {
            return self.close_client(CloseCode::INTERNAL_ERROR, Ending::BackendCutShort, context);
        }
        if self.traits.masks() {
            return self.close_client(CloseCode::INTERNAL_ERROR, Ending::BackendLeft, context);
        }
        self.send_rest(false, context);
        self.close_client(CloseCode::NORMAL, Ending::BackendClosed(None), context)
    }

    /// Starts the closing handshake on behalf of the backend or the gateway.
    fn close_client(&mut self, code: CloseCode, ending: Ending, context: &mut Context<'_>) -> Leave {
        send_close(Some(code), &ending.close_reason(), context);
        if matches!(ending, Ending::Idle | Ending::Expired | Ending::Revoked | Ending::Doubtful | Ending::Outdated) {
            self.tell_backend(Some(code), "", context);
        }
        if let Ending::BackendProtocol(error) = ending
            && self.traits.masks()
        {
            self.tell_backend(Some(error.close_code()), &error.to_string(), context);
        }
        Leave::CloseSent(ending)
    }

    /// Sends the close code and reason to a backend that speaks frames.
    fn tell_backend(&mut self, code: Option<CloseCode>, reason: &str, context: &mut Context<'_>) {
        if self.protocol == Protocol::Frames && self.traits.takes_messages() {
            let bytes = masked_if(self.traits.masks(), encoder::close_frame(code, reason), context);
            context.out.push(Effect::SendLast { to: End::Backend, bytes });
            if self.traits.masks() {
                self.extra_mut().is_node_told = true;
            }
        }
    }
}

/// The pongs of one visit: the first `PONGS_PER_VISIT_MAX` pings are answered, of the others only the last (RFC 6455
/// section 5.5.3).
#[derive(Default)]
struct Pongs {
    sent: usize,
    last: Option<Box<[u8]>>,
}

impl Pongs {
    fn answer(&mut self, to: End, payload: Box<[u8]>, is_masked: bool, context: &mut Context<'_>) {
        if self.sent < limits::PONGS_PER_VISIT_MAX {
            self.sent += 1;
            pong(to, &payload, is_masked, context);
        } else {
            self.last = Some(payload);
        }
    }

    fn end(self, to: End, is_masked: bool, context: &mut Context<'_>) {
        if let Some(payload) = self.last {
            pong(to, &payload, is_masked, context);
        }
    }
}

fn pong(to: End, payload: &[u8], is_masked: bool, context: &mut Context<'_>) {
    let bytes = masked_if(is_masked, encoder::control_frame(Opcode::Pong, payload), context);
    context.out.push(Effect::Pong { to, bytes });
}

/// A control frame, masked for a node. Its header has two bytes.
fn masked_if(is_masked: bool, frame: Box<[u8]>, context: &Context<'_>) -> Box<[u8]> {
    match is_masked {
        true => encoder::masked_frame(frame[0], &frame[2..], context.masks.next()).into(),
        false => frame,
    }
}

/// What a relay accepts from its client.
fn rules(limits: &WebSocket, protocol: Protocol) -> Rules {
    let message_size_max = match protocol {
        Protocol::Packet => limits.message_size_max.min(limits::PACKET_SIZE_MAX),
        _ => limits.message_size_max,
    };
    Rules { masking: Masking::Required, frame_size_max: limits.frame_size_max, message_size_max }
}

/// The frames of a client whose relay is over.
#[derive(Debug)]
pub(crate) struct ClientFrames {
    decoder: Decoder,
    rules: Rules,
}

impl ClientFrames {
    /// Skips the client's messages up to its close frame. True: found; a protocol error counts as a close frame.
    pub(crate) fn find_close(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
        find_close(&mut self.decoder, &self.rules, chunk, context)
    }
}

fn find_close(up: &mut Decoder, rules: &Rules, chunk: Chunk<'_>, context: &mut Context<'_>) -> bool {
    let (mut at, mut frames) = (chunk.start, 0);
    loop {
        if frames == limits::FRAMES_PER_VISIT_MAX && at < chunk.end {
            context.out.add_frames(frames);
            context.out.push(Effect::Later { from: End::Client, start: at });
            return false;
        }
        frames += 1;
        match up.next(rules, chunk.buffer, &mut at, chunk.end) {
            Err(_) | Ok(Some(Piece::Close(..))) => return true,
            Ok(Some(_)) => {}
            Ok(None) => {
                context.out.add_frames(frames);
                return false;
            }
        }
    }
}
