//! How an exchange ends: the closing handshake (RFC 6455 section 7), then the end of each stream. Only this module
//! decides what each end still owes and how long it is waited for.
//!
//! The gateway shuts down its sending half towards the client first and waits for the client's end of stream: closing a
//! socket that has unread bytes resets the connection and destroys bytes in transit to the client. The backend gets all
//! bytes queued for it, then the end of its input. A node that was sent a close frame is not sent the end of its input: it
//! ends first (RFC 6455 section 7.1.1), and is waited for like any backend.
//!
//! | state | input | effects | next state |
//! |---|---|---|---|
//! | LastWords: the backend still answers earlier messages; the gateway's close frame is held back | bytes of the backend | their frames to the client | LastWords |
//! | LastWords, the gateway stops | the client's close frame, or a protocol error | none: the client no longer owes a close frame | LastWords |
//! | LastWords | end or failure of the backend, deadline, last call | the rest of a message, then the close frame | the client OwesClose if the gateway stops and no close frame was received, else OwesEnd; the backend OwesEnd, or Gone |
//! | LastWords | end or failure of the client | abandon the client | the client Gone, the backend OwesEnd |
//! | the client OwesClose | its close frame, or a protocol error | finish the client | the client OwesEnd |
//! | the client OwesClose or OwesEnd | its end or failure | abandon the client | the client Gone |
//! | the backend OwesEnd | its end or failure | abandon the backend | the backend Gone |
//! | any but LastWords | deadline | over | |
//! | the client Gone and the backend Gone | | over | |

use super::ending::Leave;
use super::relay::{ClientFrames, Relay};
use super::{Chunk, Context, Effect, Ending, Input, Phase, over};
use crate::limits::{self, WebSocket};
use crate::route::{Seat, Service};
use crate::types::{Demand, End};

/// An exchange in its closing phase.
#[derive(Debug)]
pub(crate) struct Closing {
    state: State,
    ending: Ending,
}

/// Timeouts of a reply or of a close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CloseTimeouts {
    /// Start of the reply or close, in milliseconds.
    pub(crate) since_ms: u64,
    /// Time in milliseconds that a peer has from `since_ms`, or from the last byte sent.
    pub(crate) close_ms: u64,
    /// Time in milliseconds that a peer has from the last byte sent, while bytes are queued for it.
    pub(crate) stall_ms: u64,
}

/// The limits of a close.
#[derive(Clone, Copy, Debug)]
struct CloseLimits {
    timeouts: CloseTimeouts,
    /// High-water mark in bytes of each send queue.
    queue_size_max: u64,
}

impl CloseLimits {
    /// The limits of a WebSocket with these limits, from `now_ms` on.
    fn of(limits: &WebSocket, now_ms: u64) -> CloseLimits {
        CloseLimits { timeouts: CloseTimeouts::of(limits, now_ms), queue_size_max: limits.queue_size_max }
    }
}

#[derive(Debug)]
enum State {
    LastWords(LastWords),
    Ends { client: Client, backend: Backend, limits: CloseLimits },
}

/// The backend may still answer messages that the client sent before its close frame.
#[derive(Debug)]
struct LastWords {
    relay: Box<Relay>,
    /// The gateway's close frame; no frame may follow it (RFC 6455 section 5.5.1).
    frame: Box<[u8]>,
    /// The client has sent no close frame, because the gateway started the close.
    owes_close: bool,
    /// The backend received only the first part of a message. An unterminated line of the backend may answer that part
    /// and is dropped.
    is_cut: bool,
}

#[derive(Debug)]
enum Client {
    OwesClose(Box<ClientFrames>),
    OwesEnd,
    Gone,
}

#[derive(Debug)]
enum Backend {
    /// The seat is held until the backend ends, so that bytes still being written to a device do not mix with those of
    /// the next client.
    OwesEnd {
        _seat: Seat,
        /// It is a node that was sent a close frame, and that closes first.
        is_told: bool,
    },
    Gone,
}

impl CloseTimeouts {
    /// The timeouts of a WebSocket with these limits, from `now_ms` on.
    pub(crate) fn of(limits: &WebSocket, now_ms: u64) -> CloseTimeouts {
        CloseTimeouts { since_ms: now_ms, close_ms: limits.close_ms, stall_ms: limits.stall_ms }
    }
}

impl Closing {
    /// Closes a plain HTTP connection after its reply is sent.
    pub(crate) fn of_reply(ending: Ending, context: &mut Context<'_>) -> Closing {
        context.out.push(Effect::CloseFile);
        let timeouts = CloseTimeouts {
            since_ms: context.now_ms,
            close_ms: limits::CLOSE_MS.default,
            stall_ms: context.site().limits.stall_ms,
        };
        let limits = CloseLimits { timeouts, queue_size_max: limits::QUEUE_SIZE_MAX.default };
        Closing::new(Client::OwesEnd, Backend::Gone, ending, limits, context)
    }

    /// Closes a WebSocket whose backend did not receive the client's descriptor; the close frame was already sent.
    pub(crate) fn without_backend(ending: Ending, limits: &WebSocket, context: &mut Context<'_>) -> Closing {
        let limits = CloseLimits::of(limits, context.now_ms);
        Closing::new(Client::OwesEnd, Backend::Gone, ending, limits, context)
    }

    /// Closes a connection whose client is gone: the backend still gets the bytes queued for it.
    pub(crate) fn without_client(ending: Ending, seat: Seat, context: &mut Context<'_>) -> Closing {
        context.out.push(Effect::Abandon(End::Client));
        let limits = CloseLimits::of(&seat.limits, context.now_ms);
        Closing::new(Client::Gone, Backend::OwesEnd { _seat: seat, is_told: false }, ending, limits, context)
    }

    /// Closes a relay, as `leave` says.
    pub(crate) fn of_relay(relay: Relay, leave: Leave, context: &mut Context<'_>) -> Phase {
        let closing = match leave {
            Leave::LastWords(frame, ending) => Closing::last_words(relay, frame, ending, context),
            Leave::CloseSent(ending) => {
                let limits = CloseLimits::of(relay.limits(), context.now_ms);
                let is_told = relay.is_node_told();
                let (up, backend) = relay.into_parts();
                let client = Client::OwesClose(Box::new(up));
                Closing::new(client, Backend::of(backend, is_told), ending, limits, context)
            }
            Leave::ClientLost(ending) => Closing::without_client(ending, relay.into_seat(), context),
            Leave::Over(ending) => return over(ending, context),
        };
        Phase::Closing(Box::new(closing))
    }

    fn last_words(relay: Relay, frame: Box<[u8]>, ending: Ending, context: &mut Context<'_>) -> Closing {
        let owes_close = ending == Ending::Stopping;
        let is_cut = owes_close && relay.is_amid_message();
        if !relay.is_node_told() {
            context.out.push(Effect::Finish(End::Backend));
        }
        context.deadline_in(if owes_close { relay.silence_ms() } else { limits::LAST_WORDS_MS });
        Closing { state: State::LastWords(LastWords { relay: Box::new(relay), frame, owes_close, is_cut }), ending }
    }

    fn new(
        client: Client,
        backend: Backend,
        ending: Ending,
        limits: CloseLimits,
        context: &mut Context<'_>,
    ) -> Closing {
        match client {
            Client::OwesEnd => {
                context.out.push(Effect::Demand(End::Client, Demand::Flow));
                context.out.push(Effect::Finish(End::Client));
            }
            // Reading may have been paused.
            Client::OwesClose(_) => context.out.push(Effect::Demand(End::Client, Demand::Flow)),
            Client::Gone => {}
        }
        match backend {
            Backend::OwesEnd { is_told: true, .. } => {}
            Backend::OwesEnd { .. } => context.out.push(Effect::Finish(End::Backend)),
            Backend::Gone => context.out.push(Effect::Abandon(End::Backend)),
        }
        context.deadline_in(limits.timeouts.close_ms);
        Closing { state: State::Ends { client, backend, limits }, ending }
    }

    /// Timeouts of the close. None: the backend still answers; that stage has its own deadline.
    pub(crate) fn timeouts(&self) -> Option<CloseTimeouts> {
        match &self.state {
            State::LastWords(_) => None,
            State::Ends { limits, .. } => Some(limits.timeouts),
        }
    }

    /// High-water mark in bytes of each send queue.
    pub(crate) fn queue_size_max(&self) -> u64 {
        match &self.state {
            State::LastWords(last) => last.relay.limits().queue_size_max,
            State::Ends { limits, .. } => limits.queue_size_max,
        }
    }

    /// The service of the backend while the backend may still answer.
    pub(crate) fn service(&self) -> Option<&Service> {
        match &self.state {
            State::LastWords(last) => Some(last.relay.service()),
            State::Ends { .. } => None,
        }
    }

    /// Heap bytes held for incomplete messages.
    pub(crate) fn held_size(&self) -> usize {
        match &self.state {
            State::LastWords(last) => last.relay.held_size(),
            State::Ends { .. } => 0,
        }
    }

    /// Handles an input and returns the next phase.
    pub(crate) fn handle(self, input: Input<'_>, context: &mut Context<'_>) -> Phase {
        let Closing { state, ending } = self;
        let next = match state {
            State::LastWords(last) => last.handle(input, ending, context),
            State::Ends { client, backend, limits } => {
                let is_due = matches!(input, Input::Deadline);
                let (client, backend) = end_of(client, backend, input, context);
                if is_due || matches!((&client, &backend), (Client::Gone, Backend::Gone)) {
                    return over(ending, context);
                }
                Closing { state: State::Ends { client, backend, limits }, ending }
            }
        };
        Phase::Closing(Box::new(next))
    }
}

/// Updates the state of both ends after an input.
fn end_of(client: Client, backend: Backend, input: Input<'_>, context: &mut Context<'_>) -> (Client, Backend) {
    match input {
        Input::Bytes(End::Client, chunk) => (client.on_bytes(chunk, context), backend),
        Input::Ended(End::Client)
        | Input::Failed(End::Client, _)
        | Input::Broken(End::Client, _)
        | Input::NoHeader(_) => {
            context.out.push(Effect::Abandon(End::Client));
            (Client::Gone, backend)
        }
        Input::Ended(End::Backend) | Input::Failed(End::Backend, _) | Input::Broken(End::Backend, _) => {
            context.out.push(Effect::Abandon(End::Backend));
            (client, Backend::Gone)
        }
        // The connect completed after the exchange gave up.
        Input::Connected(Ok(())) => {
            context.out.push(Effect::Abandon(End::Backend));
            (client, backend)
        }
        _ => (client, backend),
    }
}

impl LastWords {
    fn handle(mut self, input: Input<'_>, ending: Ending, context: &mut Context<'_>) -> Closing {
        let is_said = match input {
            Input::Ended(End::Client) | Input::Failed(End::Client, _) | Input::Broken(End::Client, _) => {
                return Closing::without_client(ending, self.relay.into_seat(), context);
            }
            Input::Bytes(End::Client, chunk) if self.owes_close => {
                self.owes_close = !self.relay.find_close(chunk, context);
                false
            }
            Input::Bytes(End::Backend, chunk) => {
                // The backend may have many answers at a shutdown: each receive extends the deadline; the drain
                // deadline limits the total.
                if self.relay.ends() && ending == Ending::Stopping {
                    context.deadline_in(self.relay.silence_ms());
                }
                self.relay.last_words(chunk, context)
            }
            Input::Ended(End::Backend) | Input::Failed(End::Backend, _) | Input::Broken(End::Backend, _) => {
                self.relay.on_backend_gone();
                true
            }
            Input::Deadline | Input::LastCall => true,
            _ => false,
        };
        if is_said { self.end(ending, context) } else { Closing { state: State::LastWords(self), ending } }
    }

    /// Sends the close frame after the last message of the backend.
    fn end(self, ending: Ending, context: &mut Context<'_>) -> Closing {
        let LastWords { mut relay, frame, owes_close, is_cut } = self;
        relay.send_rest(is_cut, context);
        context.out.push(Effect::SendLast { to: End::Client, bytes: frame });
        let limits = CloseLimits::of(relay.limits(), context.now_ms);
        let is_told = relay.is_node_told();
        let (up, backend) = relay.into_parts();
        let client = if owes_close { Client::OwesClose(Box::new(up)) } else { Client::OwesEnd };
        Closing::new(client, Backend::of(backend, is_told), ending, limits, context)
    }
}

impl Client {
    fn on_bytes(self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Client {
        match self {
            Client::OwesClose(mut up) => {
                // A protocol error counts as the client's close frame.
                if !up.find_close(chunk, context) {
                    return Client::OwesClose(up);
                }
                context.out.push(Effect::Finish(End::Client));
                Client::OwesEnd
            }
            other => other,
        }
    }
}

impl Backend {
    /// The backend's state; None: the backend has already ended.
    fn of(seat: Option<Seat>, is_told: bool) -> Backend {
        seat.map_or(Backend::Gone, |seat| Backend::OwesEnd { _seat: seat, is_told })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::driver::{FileId, FileKind};
    use crate::exchange::{Effects, Exchange, Progress, Surroundings};
    use crate::http::date::Date;
    use crate::route::{Site, Sites};

    /// A conversation that ends with what the client has pipelined has the limits of its service all the same.
    #[test]
    fn a_pipelined_close_frame_leaves_the_service_known() {
        let site = Site { has_docroot: true, ..Site::default() };
        let (date, sites) = (Date::default(), Sites::new(Arc::new(site), Vec::new()));
        let around = Surroundings::plain(&date, &sites);
        let handshake = b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut bytes = [&handshake[..], &[0x88, 0x80, 0, 0, 0, 0]].concat();
        let (mut exchange, mut effects) = (Exchange::default(), Effects::default());
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        let opened = Input::Opened(Ok(FileKind::Socket(FileId::default())));
        for input in [Input::Bytes(End::Client, chunk), opened, Input::Connected(Ok(()))] {
            exchange.handle(around, input, &mut effects);
        }
        let wants = exchange.wants();
        assert_eq!((wants.progress, wants.service.is_some()), (Progress::Closing, true));
    }
}
