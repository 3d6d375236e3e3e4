//! A WebSocket handshake that waits for its backend: the backend is connected before the 101 is sent.

mod handover;

use super::asking::refuse_revoked;
use super::relay::BackendTraits;
use super::{Context, Effect, Ending, Folder, Full, Input, Phase, Relay, Security, Step, over, refuse};
use crate::access::{self, Admitted, Standing, Subjects};
use crate::driver::device::{Device, Direction};
use crate::driver::{ConnectCause, ConnectError, FileKind, OpenCause, OpenError, OpenFor, SocketType};
use crate::http::fields::single;
use crate::http::head::Head;
use crate::http::reply;
use crate::http::upgrade::{Upgrade, UpgradeError};
use crate::limits::{self, WebSocket};
use crate::observe::log::{Level, Quoted};
use crate::route::hello::Hello;
use crate::route::{Destination, Link, MessageType, Protocol, Seat, Service};
use crate::types::{Demand, End};

/// A valid handshake request.
pub(crate) struct Asked<'a> {
    /// The name in the request path.
    pub(crate) name: &'a str,
    /// The request head.
    pub(crate) head: &'a Head<'a>,
    /// Arrival time of the request, in milliseconds.
    pub(crate) since_ms: u64,
    /// The user. None: the client did not have to be admitted.
    pub(crate) admitted: Option<&'a Admitted>,
}

impl Asked<'_> {
    /// The record for the backend; the subprotocol is filled in later.
    fn hello(&self, context: &Context<'_>) -> Hello {
        let origin = single(&self.head.headers, "origin").and_then(|origin| std::str::from_utf8(origin).ok());
        Hello {
            path: format!("/{}", self.name).into(),
            query: context.site().public_query(self.name, self.head.query).into(),
            host: self.head.host.into(),
            origin: origin.unwrap_or_default().into(),
            subprotocol: "".into(),
            user: self.admitted.map_or("".into(), |admitted| admitted.user.clone()),
            groups: self.admitted.map_or("".into(), |admitted| admitted.groups.clone()),
            tls: match context.security {
                Security::Tls(facts) => Some(Box::new(facts.clone())),
                _ => None,
            },
        }
    }
}

/// A handshake in progress.
#[derive(Debug)]
pub(crate) struct Opening {
    name: Box<str>,
    upgrade: Upgrade,
    /// Index of the link that serves the name (None: a socket in docroot), and index of the address being tried.
    link: Option<usize>,
    address: usize,
    seat: Seat,
    /// The record sent to the backend first; None: no record.
    hello: Option<Box<Hello>>,
    /// Index of the offered subprotocol that is used as the name; None: the name of the path is tried.
    candidate: Option<usize>,
    /// The name is a folder: subprotocols name sockets in it.
    is_folder: bool,
    /// The request's path ended with a slash.
    has_slash: bool,
    /// At least one candidate name was denied by the rules.
    was_denied: bool,
    socket_type: SocketType,
    give_up_ms: u64,
    retry_ms: u64,
    /// The hand-over is retried at the deadline.
    is_retrying: bool,
    /// The client has not accepted earlier bytes, so a reply to this handshake cannot be sent yet.
    awaits_client: bool,
    /// A hand-over is in flight.
    is_handing_over: bool,
    /// The gateway stops; this takes effect when the hand-over completes.
    is_stopping: bool,
    /// The admission was revoked; this takes effect at the same time.
    is_revoked: bool,
    /// How long the client stays admitted. None: for ever.
    standing: Option<Box<Standing>>,
    /// Pipelined bytes after the handshake.
    pub(crate) input: Vec<u8>,
}

impl Opening {
    /// Starts the lookup of the backend for a valid handshake.
    pub(crate) fn start(
        asked: &Asked<'_>,
        upgrade: Upgrade,
        standing: Option<Box<Standing>>,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        let name = asked.name;
        let (link, seat) = match take_seat(name, &upgrade, context) {
            Ok(seat) => seat,
            Err(refused) => return (refused, false),
        };
        let socket_type = match seat.protocol {
            Protocol::Packet => SocketType::SeqPacket,
            _ => SocketType::Stream,
        };
        let give_up_ms = until_ms(&seat.limits, asked.since_ms, context);
        let opening = Opening {
            name: name.into(),
            upgrade,
            link,
            address: 0,
            hello: seat.hello.then(|| Box::new(asked.hello(context))),
            seat,
            candidate: None,
            is_folder: name.is_empty(),
            has_slash: asked.head.path.ends_with('/'),
            was_denied: false,
            socket_type,
            give_up_ms,
            retry_ms: limits::CONNECT_RETRY_MS,
            is_retrying: false,
            awaits_client: false,
            is_handing_over: false,
            is_stopping: false,
            is_revoked: false,
            standing,
            input: Vec::new(),
        };
        context.out.push(Effect::Demand(End::Client, Demand::Nothing));
        context.set_deadline(Some(give_up_ms));
        match opening.link {
            Some(link) => opening.follow(link, context),
            None if opening.is_folder => return opening.try_next(context),
            None => opening.open(context),
        }
        (Phase::Opening(Box::new(opening)), false)
    }

    /// Opens or connects the destination of a link.
    fn follow(&self, link: usize, context: &mut Context<'_>) {
        let Some(Link { destination, .. }) = context.site().links.get(link) else { return };
        let (path, purpose) = match destination {
            Destination::Tcp(addresses) => return self.connect_tcp(link, addresses.len(), context),
            Destination::Unix(path) => (path, OpenFor::Connecting),
            Destination::Upstream(_) => return,
            Destination::Tty { path, baud } => (path, OpenFor::Speaking(Device::Tty { baud: *baud })),
            Destination::Fifo { path, direction } => (path, OpenFor::Speaking(Device::Fifo(*direction))),
        };
        context.out.push(Effect::open(Folder::Anywhere, path, purpose));
    }

    /// Connects to the current address of a TCP backend. The remaining time is divided by the number of remaining
    /// addresses, so that an address that never answers leaves time for the next ones.
    fn connect_tcp(&self, link: usize, addresses: usize, context: &mut Context<'_>) {
        context.out.push(Effect::ConnectTcp { link, address: self.address });
        let left_ms = self.give_up_ms.saturating_sub(context.now_ms);
        let share_ms = left_ms / (addresses - self.address).max(1) as u64;
        context.set_deadline(Some(self.give_up_ms.min(context.now_ms + share_ms.max(limits::CONNECT_SHARE_MS_MIN))));
    }

    fn is_tcp(&self, context: &Context<'_>) -> bool {
        let link = self.link.and_then(|link| context.site().links.get(link));
        link.is_some_and(|link| matches!(link.destination, Destination::Tcp(_)))
    }

    /// Connects to the next address of a TCP backend. False: there is no further address.
    fn try_next_address(&mut self, context: &mut Context<'_>) -> bool {
        let Some(link) = self.link else { return false };
        let Some(Destination::Tcp(addresses)) = context.site().links.get(link).map(|link| &link.destination) else {
            return false;
        };
        self.address += 1;
        let is_there = self.address < addresses.len();
        if is_there {
            self.connect_tcp(link, addresses.len(), context);
        }
        is_there
    }

    /// The service of the backend.
    pub(crate) fn service(&self) -> &Service {
        &self.seat
    }

    /// Heap bytes held for the request.
    pub(crate) fn held_size(&self) -> usize {
        let standing = self.standing.as_ref().map_or(0, |standing| standing.size());
        self.name.len() + standing + self.hello.as_ref().map_or(0, |hello| hello.size())
    }

    /// Handles an input. True: run the returned phase at once.
    pub(crate) fn step(
        mut self: Box<Self>,
        input: Option<Input<'_>>,
        pipelined: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        match input {
            Some(Input::OpenedFull) if self.upgrade.is_lost => return (refuse_lost(context), false),
            Some(Input::OpenedFull) => self.await_backlog(context),
            Some(Input::Retry) => self.connect(context),
            Some(Input::Opened(opened)) => return self.opened(opened, context),
            Some(Input::Connected(connected)) => return self.connected(connected, context),
            Some(Input::HandedOver(result)) => return self.handed_over(result, pipelined, context),
            // The hand-over may already have completed: its completion decides.
            Some(Input::Deadline) if self.is_handing_over && context.now_ms >= self.give_up_ms => {
                context.out.push(Effect::CancelConnect);
                context.deadline_in(limits::CONNECT_RETRY_MS_MAX);
            }
            Some(Input::Stop) if self.is_handing_over => self.is_stopping = true,
            Some(Input::Deadline) if context.now_ms >= self.give_up_ms && self.awaits_client => {
                return (over(Ending::TimedOut(Step::Reply), context), false);
            }
            Some(Input::Deadline) if context.now_ms >= self.give_up_ms => {
                let ending = Ending::TimedOut(Step::Connect);
                return (refuse(504, "the server does not accept", ending, context), false);
            }
            Some(Input::Deadline) => {
                if std::mem::take(&mut self.is_retrying) {
                    self.connect(context);
                } else if self.is_tcp(context) {
                    // The completion tries the next address.
                    context.out.push(Effect::CancelConnect);
                }
                context.set_deadline(Some(self.give_up_ms));
            }
            Some(Input::Stop) => return (stop(context), false),
            Some(Input::Revoked) if self.is_handing_over => self.is_revoked = true,
            Some(Input::Revoked) => return (refuse_revoked(context), false),
            _ => {}
        }
        (Phase::Opening(self), false)
    }

    /// The path of the candidate within docroot.
    fn path(&self) -> Box<str> {
        match self.candidate.map(|index| &self.upgrade.subprotocols[index]) {
            None => self.name.clone(),
            Some(subprotocol) if self.is_folder && !self.name.is_empty() => {
                format!("{}/{subprotocol}", self.name).into()
            }
            Some(subprotocol) => subprotocol.as_str().into(),
        }
    }

    fn open(&self, context: &mut Context<'_>) {
        context.out.push(Effect::open(Folder::Docroot, &self.path(), OpenFor::Connecting));
    }

    /// Whether the decision about the name in the request holds for a name in docroot that a subprotocol gives.
    fn is_admitted_to(&self, path: &str, context: &Context<'_>) -> bool {
        let access = &context.site().access;
        let demanded = |name: &str, has_slash| access::demand(None, access, &Subjects::of_name(name, has_slash));
        match (demanded(&self.name, self.has_slash), demanded(path, false)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(judged), Some(other)) => judged.covers(&other),
        }
    }

    /// Tries the next offered subprotocol whose name is allowed, or ends the search with an error reply.
    fn try_next(mut self, context: &mut Context<'_>) -> (Phase, bool) {
        let first = self.candidate.map_or(0, |index| index + 1);
        for index in first..self.upgrade.subprotocols.len() {
            self.candidate = Some(index);
            let path = self.path();
            // A token contains no slash, but it may be "." or "..".
            if path.split('/').any(|segment| segment == "." || segment == "..") {
                continue;
            }
            if !context.site().rules.permit(&path) || !self.is_admitted_to(&path, context) {
                self.was_denied = true;
                continue;
            }
            self.open(context);
            return (Phase::Opening(Box::new(self)), false);
        }
        let refused = if self.was_denied {
            refuse(403, "this name is not allowed", Ending::Denied, context)
        } else {
            refuse(404, "no server has this name", Ending::NoSuchBackend, context)
        };
        (refused, false)
    }

    fn opened(mut self: Box<Self>, opened: Result<FileKind, OpenError>, context: &mut Context<'_>) -> (Phase, bool) {
        let refused = match opened.map_err(|error| (error.cause, error)) {
            Ok(FileKind::Socket(_)) if self.upgrade.is_lost => refuse_lost(context),
            Ok(FileKind::Socket(_)) => {
                self.connect(context);
                return (Phase::Opening(self), false);
            }
            Ok(FileKind::Device(..)) => {
                context.out.push(Effect::UseDevice);
                return (self.accept(context), true);
            }
            // The device is in exclusive use, by another link's client or another program.
            Err((OpenCause::Busy, _)) if self.link.is_some() => {
                let full = Full::Name;
                refuse(503, &full.to_string(), Ending::Overload(full), context)
            }
            // The operator configures the destination of a link: a client cannot cause this error.
            Err((cause, error)) if self.link.is_some() && cause != OpenCause::NoDescriptors => {
                refuse(502, "the server cannot be connected", Ending::Refused(error.error), context)
            }
            Ok(FileKind::Folder) if self.candidate.is_none() && self.link.is_none() => {
                self.is_folder = true;
                return self.try_next(context);
            }
            Err((OpenCause::NotFound, _)) => return self.try_next(context),
            Ok(_) => refuse(404, "no server has this name", Ending::NotASocket, context),
            Err((OpenCause::NoDescriptors, _)) => no_descriptors(context),
            Err((OpenCause::Forbidden, _)) => refuse(403, "this name is not allowed", Ending::Outside, context),
            // The driver has already retried.
            Err((OpenCause::TryAgain, error)) => {
                refuse(503, "this name cannot be looked up now", Ending::NoLookUp(error), context)
            }
            Err((_, error)) => refuse(500, "this name cannot be looked up", Ending::NoLookUp(error), context),
        };
        (refused, false)
    }

    fn connected(mut self: Box<Self>, connected: Result<(), ConnectError>, context: &mut Context<'_>) -> (Phase, bool) {
        let has_stream = self.socket_type == SocketType::Stream && self.seat.protocol == Protocol::Stream;
        let may_be_packets = has_stream && !self.seat.is_direct;
        match connected.map_err(|error| (error.cause, error)) {
            Ok(()) => (self.accept(context), true),
            // The socket has the other type. Its type decides the protocol, unless the protocol requires a stream.
            Err((ConnectCause::WrongType, _)) if may_be_packets => {
                self.socket_type = SocketType::SeqPacket;
                context.out.push(Effect::Connect(self.socket_type));
                (Phase::Opening(self), false)
            }
            Err((ConnectCause::NoRoom, _)) if !self.is_tcp(context) => {
                self.await_backlog(context);
                (Phase::Opening(self), false)
            }
            Err((ConnectCause::NoDescriptors, _)) => (no_descriptors(context), false),
            Err(_) if self.try_next_address(context) => (Phase::Opening(self), false),
            Err((_, error)) => {
                (refuse(502, "the server cannot be connected", Ending::Refused(error.error), context), false)
            }
        }
    }

    /// Joins the queue for the backend's full backlog; `Input::Retry` reports when to try again.
    fn await_backlog(&mut self, context: &mut Context<'_>) {
        context.set_deadline(Some(self.give_up_ms));
        context.out.push(Effect::AwaitBacklog);
    }

    /// Schedules a retry with exponential backoff.
    fn try_later(&mut self, context: &mut Context<'_>) {
        self.is_retrying = true;
        context.set_deadline(Some((context.now_ms + self.retry_ms).min(self.give_up_ms)));
        self.retry_ms = (self.retry_ms * 2).min(limits::CONNECT_RETRY_MS_MAX);
    }

    /// The subprotocol in the 101; None: no Sec-WebSocket-Protocol field.
    fn chosen(&self) -> Option<&str> {
        match self.candidate {
            Some(index) => self.upgrade.subprotocols.get(index).map(String::as_str),
            None => self.upgrade.preferred(),
        }
    }

    /// The 101, and the record for the backend, if it gets one.
    fn answer(&self) -> (Box<[u8]>, Option<Box<Hello>>) {
        let chosen = self.chosen();
        let hello = self.hello.as_ref().map(|hello| {
            let subprotocol = chosen.unwrap_or_default().into();
            Box::new(Hello { subprotocol, ..Hello::clone(hello) })
        });
        (reply::switching_protocols(&self.upgrade.accept, chosen), hello)
    }

    fn accept(self, context: &mut Context<'_>) -> Phase {
        let (bytes, hello) = self.answer();
        let protocol = match self.socket_type {
            SocketType::SeqPacket => Protocol::Packet,
            SocketType::Stream => self.seat.protocol,
        };
        let line = format!("connected to {} ({protocol:?})", Quoted(&self.path()));
        context.out.push(Effect::Log(Level::Debug, line));
        context.out.push(Effect::CloseFile);
        if let Some(hello) = hello {
            context.out.push(Effect::Hello(hello));
        }
        context.out.push(Effect::Send { to: End::Client, bytes });
        context.out.push(Effect::Demand(End::Client, Demand::Flow));
        let demand = if protocol == Protocol::Packet { Demand::Packets } else { Demand::Flow };
        context.out.push(Effect::Demand(End::Backend, demand));
        *context.status = 101;
        let destination = self.link.and_then(|link| context.site().links.get(link)).map(|link| &link.destination);
        let traits = BackendTraits::of(destination);
        // A write-only pipe is not read.
        if matches!(destination, Some(Destination::Fifo { direction: Direction::Write, .. })) {
            context.out.push(Effect::Demand(End::Backend, Demand::Nothing));
        }
        // Clients of this subprotocol, such as noVNC, cannot read text messages.
        let message_type = match self.chosen() {
            Some("binary") => MessageType::Binary,
            _ => self.seat.message_type,
        };
        Phase::Relay(Relay::new(self.seat, protocol, message_type, traits, self.standing, context))
    }
}

/// The link of a handshake (None: a socket in docroot), and a seat among the WebSockets of its service. The error is the
/// refusal.
pub(crate) fn take_seat(
    name: &str,
    upgrade: &Upgrade,
    context: &mut Context<'_>,
) -> Result<(Option<usize>, Seat), Phase> {
    let site = context.site();
    let link = site.link_of(name);
    // The root of docroot is not a backend. A socket in it that a subprotocol names is checked under that name.
    let is_search = name.is_empty() && link.is_none() && !upgrade.subprotocols.is_empty();
    if !is_search && !site.rules.permit(name) {
        return Err(refuse(403, "this name is not allowed", Ending::Denied, context));
    }
    let service = match link.and_then(|link| site.links.get(link)) {
        Some(link) => &link.service,
        None if site.has_docroot => &site.service,
        None => return Err(refuse(404, "no server has this name", Ending::NoSuchBackend, context)),
    };
    if upgrade.is_lost && link.is_some() {
        return Err(refuse_lost(context));
    }
    let destination = link.and_then(|link| site.links.get(link)).map(|link| &link.destination);
    if matches!(destination, Some(Destination::Tcp(addresses)) if addresses.is_empty()) {
        return Err(refuse(502, "the server cannot be connected", Ending::UnknownHost, context));
    }
    let Some(seat) = Seat::take(service, service.limits.clients_max) else {
        let full = Full::Name;
        return Err(refuse(503, &full.to_string(), Ending::Overload(full), context));
    };
    Ok((link, seat))
}

/// The time in milliseconds at which the connect attempt is given up.
fn until_ms(limits: &WebSocket, since_ms: u64, context: &Context<'_>) -> u64 {
    let handshake_ms = since_ms + context.site().limits.handshake_ms;
    (context.now_ms + limits.connect_ms).min(handshake_ms).max(context.now_ms)
}

pub(crate) fn stop(context: &mut Context<'_>) -> Phase {
    refuse(503, "the gateway stops", Ending::Stopping, context)
}

/// A backend has the name, but the handshake cannot be completed with a 101.
fn refuse_lost(context: &mut Context<'_>) -> Phase {
    let error = UpgradeError::Lost;
    refuse(error.status(), &error.to_string(), Ending::Upgrade(error), context)
}

fn no_descriptors(context: &mut Context<'_>) -> Phase {
    let full = Full::Descriptors;
    refuse(503, &full.to_string(), Ending::Overload(full), context)
}
