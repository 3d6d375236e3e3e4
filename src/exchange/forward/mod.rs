//! A request that a node of an upstream answers: the head goes to the node, then the body is passed on while it arrives;
//! so is the reply. A WebSocket handshake goes the same way, until the node's 101.
//!
//! | the reply | input | effects | then |
//! |---|---|---|---|
//! | none, not connected | of the way to a node (`search`) | connects | the request is sent, or refused with 502, 503 or 504 |
//! | none, sent | bytes of the client | the body to the node | |
//! | none, sent | end or failure of the node | the next node, or the same one again, if the request can be repeated | refused with 502 |
//! | none, sent | an interim reply (1xx) | it goes to the client | |
//! | none, sent | its head | the head goes to the client | the body follows |
//! | none, sent | a 101 for a handshake | | a relay or a tunnel |
//! | its body | bytes of the node | they go to the client | at its end the node is left |
//! | its body | end or failure of the node | none | what has arrived is sent, and the connection is closed |
//! | whole | the client has received it | | the next request, or the connection is closed |

mod down;
mod search;
mod up;

use std::borrow::Cow;
use std::sync::Arc;

use super::asking::refuse_revoked;
use super::head::{Client, Passage, RequestHead, refuse_head};
use super::opening::stop;
use super::relay::BackendTraits;
use super::{
    CloseTimeouts, Closing, Context, Effect, Ending, Full, Input, Phase, Relay, Step, Tunnel, over, refuse, refuse_with,
};
use crate::access::{self, Auth, AuthKind, Standing};
use crate::clients::AddressUnit;
use crate::http::fields::elements;
use crate::http::forwarding::{self, RequestParts, path};
use crate::http::head::{Head, HeadError};
use crate::http::upgrade::Upgrade;
use crate::limits;
use crate::observe::log::{Level, Quoted};
use crate::route::{Destination, Link, MessageType, Protocol, Seat};
use crate::types::{Address, Demand, End};
use crate::upstream::{ClientFields, RequestPermit, Upstream, UpstreamError};
use down::Download;
use search::{NodeSearch, Reached};
use up::Upload;

/// A request to a node.
#[derive(Debug)]
pub(crate) struct Forward {
    upstream: Arc<Upstream>,
    /// A place among the requests of the link. None: it is a WebSocket, which has a seat.
    _permit: Option<RequestPermit>,
    search: NodeSearch,
    /// The request head for the node. Empty: it is no longer needed.
    head: Box<[u8]>,
    /// The method, quoted for the log.
    method: Cow<'static, str>,
    traits: RequestTraits,
    /// The client's connection persists after the reply.
    keep_alive: bool,
    has_client_ended: bool,
    is_sent: bool,
    /// A node has ended in place of a reply, and another one was tried.
    is_repeated: bool,
    up: Upload,
    down: Download,
    /// A WebSocket handshake. None: a request.
    handshake: Option<Handshake>,
    rewrite: Option<Box<Rewriting>>,
    /// Header lines that are added to the reply.
    fields: Box<str>,
    /// The client of a trusted proxy that has sent the request. None: the peer itself has.
    client: Option<Address>,
    /// It is that of an admitted user.
    is_admitted: bool,
    /// When the handshake must be complete, in milliseconds; of a request, far away.
    handshake_until_ms: u64,
    timeouts: CloseTimeouts,
    /// Pipelined bytes after the request head, then those after its body.
    pub(crate) input: Vec<u8>,
}

/// What the fields of a reply are rewritten with.
#[derive(Debug)]
struct Rewriting {
    /// The Host that was sent to the node.
    host: Box<str>,
    /// What `path` of the link has taken the place of.
    to: Box<str>,
}

/// Properties of a request.
#[derive(Clone, Copy, Debug)]
struct RequestTraits {
    is_head: bool,
    /// The client understands chunks and interim replies.
    http_1_1: bool,
    /// It can be sent a second time: its method is idempotent (RFC 9110 section 9.2.2), and it has no body.
    is_repeatable: bool,
    /// The client waits for a 100 before it sends the body.
    expects_continue: bool,
}

/// A WebSocket handshake.
#[derive(Debug)]
struct Handshake {
    upgrade: Upgrade,
    seat: Seat,
    /// How long the client stays admitted. None: for ever.
    standing: Option<Box<Standing>>,
}

/// A request for a link to an upstream.
pub(crate) struct ForwardedRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) head: &'a Head<'a>,
    pub(crate) link: &'a Link,
    pub(crate) client: Client,
    pub(crate) passage: Passage,
    /// The credentials that the gateway has verified.
    pub(crate) shown: Shown<'a>,
    /// Arrival time of the request, in milliseconds.
    pub(crate) since_ms: u64,
}

/// The credentials of a request, which nodes do not get.
#[derive(Default, Debug)]
pub(crate) struct Shown<'a> {
    /// Authorization.
    has_authorization: bool,
    /// The names of cookies.
    cookies: Vec<&'a str>,
}

impl<'a> Shown<'a> {
    /// The credentials that are verified for these. `cookies`: the names of those that are credentials anywhere here.
    pub(crate) fn of(auths: &[&'a Auth], cookies: Vec<&'a str>) -> Shown<'a> {
        let mut shown = Shown { cookies, ..Shown::default() };
        for auth in auths {
            match &auth.kind {
                AuthKind::Basic | AuthKind::Digest { .. } | AuthKind::Bearer | AuthKind::Unix { .. } => {
                    shown.has_authorization = true;
                }
                AuthKind::Cookie { name } => shown.cookies.push(name),
                // Tokens in a query are cut out of it.
                AuthKind::Query { .. } | AuthKind::ClientCert { .. } | AuthKind::None => {}
            }
        }
        shown
    }
}

/// What follows an input.
#[derive(Debug)]
pub(crate) enum Then {
    /// The client is refused, since no node has replied.
    Refuse(UpstreamError),
    /// The client is refused for its request.
    RefuseHead(HeadError),
    /// The client was silent in the middle of the body.
    RefuseSlow,
    /// The client's user was revoked.
    Revoked,
    /// The gateway stops.
    Stop,
    /// What is queued for the client is sent, then the connection is closed.
    Close(Ending),
    /// The connection is aborted.
    Over(Ending),
    /// The next request follows.
    Next,
    /// The node has accepted the handshake; these bytes of it follow its 101.
    Upgraded(Vec<u8>),
}

/// The phase that follows.
pub(crate) enum Next {
    Phase(Phase),
    /// The next request, of which these bytes have been received, and the client whose place is being given back.
    Request(RequestHead, Vec<u8>, Option<AddressUnit>),
    /// A relay, to which these bytes of the client and of the backend are to be passed.
    Relay(Box<Relay>, Vec<u8>, Vec<u8>),
}

impl Forward {
    /// Starts with a request that is admitted. `upgrade`: it is a handshake, with its seat.
    pub(crate) fn start(
        asked: ForwardedRequest<'_>,
        upgrade: Option<(Upgrade, Seat)>,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        let ForwardedRequest { name, head, link, client: (given, address), passage, shown, since_ms } = asked;
        let Destination::Upstream(upstream) = &link.destination else {
            return (refuse(404, "no server has this name", Ending::NoSuchBackend, context), false);
        };
        if !path::is_unambiguous(head.path) {
            return (refuse_head(HeadError::Ambiguous, context), false);
        }
        if elements(&head.headers, "connection").nth(limits::CONNECTION_OPTIONS_MAX).is_some() {
            return (refuse_head(HeadError::Connection, context), false);
        }
        if forwarding::via_count(&head.headers) > limits::VIA_MAX {
            return (refuse_head(HeadError::Loop, context), false);
        }
        let limits = &upstream.limits;
        let Ok(up) = Upload::new(head.framing, limits.body_size_max) else {
            return (refuse_head(HeadError::BodyTooLarge(limits.body_size_max), context), false);
        };
        let permit = match upgrade {
            Some(_) => None,
            None => match RequestPermit::take(upstream, limits.requests_max) {
                Some(permit) => Some(permit),
                None => {
                    let full = Full::Requests;
                    return (refuse(503, &full.to_string(), Ending::Overload(full), context), false);
                }
            },
        };
        let is_idempotent = matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE");
        let traits = RequestTraits {
            is_head: head.method == "HEAD",
            http_1_1: head.http_1_1,
            is_repeatable: is_idempotent && up.is_over(),
            expects_continue: head.expects_continue,
        };
        let query = context.site().public_query(name, head.query);
        let query = if upstream.passes_credentials { head.query } else { head.query.map(|_| &*query) };
        let replaced = link.replaced(name);
        let rewritten = match (&upstream.path, &replaced) {
            (Some(to), Some(replaced)) => Cow::Owned(path::rewritten(head.path, replaced, to)),
            _ => Cow::Borrowed(head.path),
        };
        if !path::is_unambiguous(&rewritten) {
            return (refuse_head(HeadError::Ambiguous, context), false);
        }
        let target = match query {
            Some(query) => Cow::Owned(format!("{rewritten}?{query}")),
            None => rewritten,
        };
        // A request of HTTP/1.0 may name no host.
        let named = if head.host.is_empty() { upstream.cluster.host() } else { head.host };
        let host = upstream.host.as_deref().unwrap_or(named);
        let rewrite = upstream
            .rewrites_replies
            .then(|| Box::new(Rewriting { host: host.into(), to: replaced.unwrap_or_default().into() }));
        let shown = if upstream.passes_credentials { Shown::default() } else { shown };
        let user = passage.admitted.as_deref();
        let client_ip = match address {
            Address::Tcp(_) => access::shown_ip(address),
            Address::Unix | Address::Unknown => "".into(),
        };
        let bytes = forwarding::request_head(&RequestParts {
            head,
            target: &target,
            host,
            client_host: head.host,
            client: &client_ip,
            is_tls: context.is_tls(),
            port: None,
            user: user.map_or("", |user| &*user.user),
            groups: user.map_or("", |user| &*user.groups),
            writes_x_forwarded: matches!(upstream.forwarded, ClientFields::XForwarded | ClientFields::Both),
            writes_forwarded: matches!(upstream.forwarded, ClientFields::Forwarded | ClientFields::Both),
            hides_authorization: shown.has_authorization,
            hidden_cookies: &shown.cookies,
            upgrade: upgrade.is_some(),
            passes_extensions: upstream.is_tunnel,
        });
        let sticky = upstream.cluster.sticky.as_ref();
        let route = sticky.and_then(|sticky| sticky.route(head.path, head.query, &head.headers)).map(Into::into);
        let idle_ms_max = if traits.is_repeatable { u64::MAX } else { limits::REUSE_UNSAFE_MS };
        let site_limits = &context.site().limits;
        let handshake_until_ms = match upgrade {
            Some(_) => since_ms + site_limits.handshake_ms,
            None => u64::MAX,
        };
        let give_up_ms = (context.now_ms + limits.connect_ms).min(handshake_until_ms).max(context.now_ms);
        let stall_ms = site_limits.stall_ms;
        let keep_alive = head.keep_alive && site_limits.keepalive_ms > 0 && upgrade.is_none();
        let is_admitted = passage.admitted.is_some();
        let Passage { admitted, standing, fields } = passage;
        let mut forward = Box::new(Forward {
            upstream: upstream.clone(),
            _permit: permit,
            search: NodeSearch::new(upstream.clone(), address, route, idle_ms_max, give_up_ms),
            head: bytes.into(),
            method: match head.method {
                "GET" => "GET".into(),
                "POST" => "POST".into(),
                other => Quoted(other).to_string().into(),
            },
            traits,
            keep_alive,
            has_client_ended: false,
            is_sent: false,
            is_repeated: false,
            up,
            down: Download::default(),
            handshake: upgrade.map(|(upgrade, seat)| Handshake { upgrade, seat, standing }),
            rewrite,
            fields: fields.into(),
            client: given,
            is_admitted,
            handshake_until_ms,
            timeouts: CloseTimeouts { since_ms: context.now_ms, close_ms: stall_ms, stall_ms },
            input: Vec::new(),
        });
        if is_admitted {
            context.out.push(Effect::Admitted(admitted));
        }
        context.out.push(Effect::Demand(End::Client, Demand::Nothing));
        let reached = forward.search.next_node(context);
        match forward.reached(reached, context) {
            None => (Phase::Forward(forward), true),
            Some(then) => match forward.follow(then, context) {
                Next::Phase(phase) => (phase, false),
                // No node was connected yet.
                Next::Request(..) | Next::Relay(..) => (over(Ending::Served, context), false),
            },
        }
    }

    /// Whether a node is being looked up or connected.
    pub(crate) fn is_opening(&self) -> bool {
        !self.is_sent
    }

    /// Whether the reply is whole, and the client has still to receive the end of it.
    pub(crate) fn is_finishing(&self) -> bool {
        matches!(self.down, Download::Whole)
    }

    /// The times that limit the silence of the peers. None: a node is being connected.
    pub(crate) fn timeouts(&self) -> Option<CloseTimeouts> {
        self.is_sent.then_some(self.timeouts)
    }

    /// High-water mark in bytes of each send queue.
    pub(crate) fn queue_size_max(&self) -> u64 {
        self.upstream.limits.queue_size_max
    }

    /// Heap bytes held for the request and its reply.
    pub(crate) fn held_size(&self) -> usize {
        let standing = self.handshake.as_ref().and_then(|handshake| handshake.standing.as_ref());
        self.head.len()
            + self.fields.len()
            + self.input.capacity()
            + self.down.held_size()
            + self.search.held_size()
            + self.rewrite.as_ref().map_or(0, |rewrite| rewrite.host.len() + rewrite.to.len())
            + standing.map_or(0, |standing| standing.size())
    }

    /// Handles an input. Some: the phase ends.
    pub(crate) fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Then> {
        match input {
            Input::Bytes(End::Client, chunk) => return self.client_bytes(chunk, context),
            Input::Bytes(End::Backend, chunk) if self.is_sent => return self.backend_bytes(chunk, context),
            Input::Failed(End::Client, error) => return Some(Then::Over(Ending::ClientFailed(error))),
            Input::Broken(End::Client, error) => return Some(Then::Over(Ending::Tls(error))),
            Input::Ended(End::Client) if (!self.up.is_over() || self.handshake.is_some()) && !self.down.has_begun() => {
                return Some(Then::Over(Ending::HttpClientLeft));
            }
            // It may have shut down its sending half only: the reply is sent all the same.
            Input::Ended(End::Client) => self.has_client_ended = true,
            Input::Revoked if self.down.has_begun() => return Some(Then::Over(Ending::Revoked)),
            Input::Revoked => return Some(Then::Revoked),
            Input::Stop if self.handshake.is_some() && !self.down.has_begun() => return Some(Then::Stop),
            Input::Stop => self.keep_alive = false,
            Input::Drained if self.is_finishing() => return Some(Then::Next),
            input if self.is_sent => return self.on_input(input, context),
            input => {
                let reached = self.search.step(&input, context);
                return self.reached(reached, context);
            }
        }
        None
    }

    fn on_input(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Then> {
        match input {
            Input::Ended(End::Backend) => self.node_end(None, context),
            Input::Failed(End::Backend, error) => self.node_end(Some(UpstreamError::Failed(error)), context),
            Input::Broken(End::Backend, failure) => self.node_end(Some(UpstreamError::Tls(failure)), context),
            Input::Stalled(End::Client) => Some(Then::Over(Ending::TimedOut(Step::Reply))),
            Input::Stalled(End::Backend) => self.silent(UpstreamError::TakesNothing, context),
            Input::Deadline if self.is_finishing() => Some(Then::Over(Ending::TimedOut(Step::Reply))),
            // A client that waits for a 100 is not the one that is silent.
            Input::Deadline if self.traits.expects_continue && !self.up.has_begun() && !self.down.has_begun() => {
                self.silent(UpstreamError::Silent, context)
            }
            Input::Deadline if !self.up.is_over() && !self.down.has_begun() => Some(Then::RefuseSlow),
            Input::Deadline => self.silent(UpstreamError::Silent, context),
            _ => None,
        }
    }

    fn silent(&mut self, error: UpstreamError, context: &mut Context<'_>) -> Option<Then> {
        self.search.give_up_node(error, context);
        Some(if self.down.has_begun() { Then::Close(Ending::Upstream(error)) } else { Then::Refuse(error) })
    }

    /// The node's connection has ended, or failed with this error.
    fn node_end(&mut self, error: Option<UpstreamError>, context: &mut Context<'_>) -> Option<Then> {
        match &self.down {
            Download::Whole => None,
            Download::Body(_) if error.is_none() && self.down.is_complete_at_end() => self.end_reply(context),
            Download::Body(_) => {
                let error = UpstreamError::Cut;
                self.search.give_up_node(error, context);
                Some(Then::Close(Ending::Upstream(error)))
            }
            Download::Head { partial, .. } => {
                let error = error.unwrap_or(UpstreamError::Ended);
                let may_repeat = partial.is_empty() && self.traits.is_repeatable;
                if let Some(link) = self.search.link() {
                    context.out.push(Effect::LeaveNode { link, idle_ms: 0 });
                }
                self.search.restart(self.give_up_ms(context));
                let reached = match (may_repeat, self.search.is_reused()) {
                    // It had closed the idle connection before it received the request.
                    (true, true) => self.search.again(context),
                    // A request that ends nodes is not sent to all of them.
                    (true, false) if !std::mem::replace(&mut self.is_repeated, true) => {
                        self.search.failed(error, context)
                    }
                    _ => {
                        self.search.give_up_node(error, context);
                        Reached::Nowhere(error)
                    }
                };
                self.is_sent = false;
                self.reached(reached, context)
            }
        }
    }

    /// Sends the request once a node is connected.
    fn reached(&mut self, reached: Reached, context: &mut Context<'_>) -> Option<Then> {
        match reached {
            Reached::No => return None,
            Reached::Nowhere(error) => return Some(Then::Refuse(error)),
            Reached::Node => {}
        }
        self.is_sent = true;
        let bytes = match self.traits.is_repeatable {
            true => self.head.clone(),
            false => std::mem::take(&mut self.head),
        };
        context.out.push(Effect::Send { to: End::Backend, bytes });
        context.out.push(Effect::Demand(End::Backend, Demand::Flow));
        self.begin_upload(context)
    }

    /// When attempts to connect that begin now are given up, in milliseconds.
    fn give_up_ms(&self, context: &Context<'_>) -> u64 {
        let until_ms = context.now_ms + self.upstream.limits.connect_ms;
        until_ms.min(self.handshake_until_ms).max(context.now_ms)
    }

    /// Restarts the time that a peer may be silent.
    fn wait(&mut self, ms: u64, context: &mut Context<'_>) {
        let until_ms = (context.now_ms + ms).min(self.handshake_until_ms).max(context.now_ms);
        self.timeouts.since_ms = context.now_ms;
        self.timeouts.close_ms = until_ms - context.now_ms;
        context.set_deadline(Some(until_ms));
    }

    /// Leads to the phase that follows.
    pub(crate) fn follow(mut self: Box<Self>, then: Then, context: &mut Context<'_>) -> Next {
        context.is_head = self.traits.is_head;
        Next::Phase(match then {
            Then::Refuse(error) => {
                refuse_with(error.status(), error.sentence(), &self.fields, Ending::Upstream(error), context)
            }
            Then::RefuseHead(error) => refuse_head(error, context),
            Then::RefuseSlow => refuse(408, "the request body was too slow", Ending::TimedOut(Step::Body), context),
            Then::Revoked => refuse_revoked(context),
            Then::Stop => stop(context),
            Then::Close(ending) => Phase::Closing(Box::new(Closing::of_reply(ending, context))),
            Then::Over(ending) => over(ending, context),
            Then::Next if self.keep_alive && !self.has_client_ended => {
                context.deadline_in(context.site().limits.keepalive_ms);
                let next = RequestHead::next(false, self.client, self.is_admitted, context);
                return Next::Request(next, std::mem::take(&mut self.input), context.given_back);
            }
            // A client that has already ended is not waited for.
            Then::Next if self.has_client_ended => over(Ending::Served, context),
            Then::Next => Phase::Closing(Box::new(Closing::of_reply(Ending::Served, context))),
            Then::Upgraded(bytes) => return self.upgraded(bytes, context),
        })
    }

    /// A WebSocket that the node has accepted.
    fn upgraded(mut self: Box<Self>, bytes: Vec<u8>, context: &mut Context<'_>) -> Next {
        let Some(Handshake { seat, standing, .. }) = self.handshake.take() else {
            return Next::Phase(over(Ending::Served, context));
        };
        let (node, input) = (self.search.leave(), std::mem::take(&mut self.input));
        if self.upstream.is_tunnel {
            let tunnel = Tunnel::to_node(seat, node, (input, bytes), context);
            return Next::Phase(Phase::Tunnel(Box::new(tunnel)));
        }
        context.out.push(Effect::Demand(End::Client, Demand::Flow));
        let destination = Destination::Upstream(self.upstream.clone());
        let traits = BackendTraits::of(Some(&destination));
        let mut relay = Relay::new(seat, Protocol::Frames, MessageType::Auto, traits, standing, context);
        relay.hold_node(node);
        Next::Relay(Box::new(relay), input, bytes)
    }

    fn log_reply(&self, status: u16, context: &mut Context<'_>) {
        let client = self.client.map(|client| format!(" for {client}")).unwrap_or_default();
        let line = format!("{} {status} of node {}{client}", self.method, Quoted(self.search.name()));
        context.out.push(Effect::Log(Level::Debug, line));
    }
}

#[cfg(test)]
mod tests;
