//! The request head: from the first byte of a request to the choice of the next phase.

use ecow::EcoString;

use super::asking::{Asker, close_filtered, log_refusal};
use super::forward::{self, Forward, Shown};
use super::opening::{self, Asked};
use super::{
    Asking, Context, Draining, Effect, Ending, Full, Input, Opening, Phase, Proxied, Reply, Security, Step, over,
    refuse, refuse_with,
};
use crate::access::{self, AccessError, Admitted, Decision, Demanded, Request, Standing, Subjects};
use crate::clients::{AddressUnit, HeaderUse, forwarded};
use crate::http::body::{Body, Framing};
use crate::http::files;
use crate::http::head::{self, Head, HeadError};
use crate::http::upgrade::{self, Origins, Upgrade, UpgradeError};
use crate::limits::{HEADERS_MAX, Http};
use crate::observe::log::{Level, Quoted};
use crate::route::{Destination, Link, names};
use crate::tls::{TlsFacts, TlsFailure};
use crate::types::{Address, Demand, End, U48};

/// A request head that is incomplete.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    /// Number of input bytes already searched for the end of the head.
    scanned: u32,
    /// At least one request was answered on this connection.
    is_next: bool,
    /// All answered requests were OPTIONS.
    is_probe: bool,
    /// The client of the previous request was admitted as a user.
    was_admitted: bool,
    /// The PROXY header before the first request is incomplete.
    awaits_header: bool,
    /// One empty line preceded the request and was skipped (RFC 9112 section 2.2). A second one is refused.
    has_empty_line: bool,
    /// Arrival time of the request's first byte, the accept, or the end of the TLS handshake, in milliseconds.
    since_ms: U48,
    /// The bytes of the incomplete head.
    pub(crate) input: Vec<u8>,
}

/// How an admitted request is served.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    /// The user. None: the request did not have to be admitted.
    pub(crate) admitted: Option<Box<Admitted>>,
    /// How long a WebSocket stays admitted. None: for ever.
    pub(crate) standing: Option<Box<Standing>>,
    /// Header lines that are added to the reply.
    pub(crate) fields: String,
}

/// The client of a request: the one that a trusted proxy has given, and the address that counts.
pub(crate) type Client = (Option<Address>, Address);

impl RequestHead {
    /// Handles an input; None: process the bytes that are already buffered. True: run the returned phase at once.
    pub(crate) fn step(
        mut self,
        input: Option<Input<'_>>,
        bytes: &mut Vec<u8>,
        name: &mut EcoString,
        is_stopping: bool,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        if !self.has_empty_line && bytes.starts_with(b"\r\n") {
            bytes.drain(..2);
            (self.scanned, self.has_empty_line) = (0, true);
        }
        context.is_head = bytes.starts_with(b"HEAD ");
        match input {
            Some(Input::Overload(full)) => {
                return (refuse(503, &full.to_string(), Ending::Overload(full), context), false);
            }
            Some(Input::Deadline) if self.awaits_header => {
                return (over(Ending::TimedOut(Step::Header), context), false);
            }
            Some(Input::Deadline) if matches!(context.security, Security::Handshaking) => {
                return (over(Ending::TimedOut(Step::Tls), context), false);
            }
            Some(Input::Deadline) if bytes.is_empty() => {
                return (over(Ending::TimedOut(Step::Request), context), false);
            }
            Some(Input::Deadline) => {
                self.forget_user(context);
                disown(context);
                let sentence = "the request head was too slow";
                return (refuse(408, sentence, Ending::TimedOut(Step::Head), context), false);
            }
            _ if is_stopping => return (over(Ending::Stopping, context), false),
            Some(Input::Expecting) => {
                self.awaits_header = true;
                context.deadline_in(context.site().limits.proxy_ms);
            }
            Some(Input::Accepted) if is_filtered(context) => {
                return (close_filtered(context), false);
            }
            Some(Input::Accepted) if matches!(context.security, Security::Handshaking) => {
                self.awaits_header = false;
                context.deadline_in(context.site().limits.tls_ms);
            }
            Some(Input::Bytes(End::Client, _)) if matches!(context.security, Security::HttpOnTlsPort) => {
                let error = match head::recognize(bytes) {
                    HeadError::ProxyProtocol => HeadError::ProxyProtocol,
                    _ => HeadError::NotTls,
                };
                return (refuse_bytes(error, bytes, context), false);
            }
            // Only an error of the gateway's own could pass on bytes before the server was chosen.
            Some(Input::Bytes(End::Client, _)) if matches!(context.security, Security::Handshaking) => {
                return (over(Ending::Tls(TlsFailure::Internal), context), false);
            }
            // `head_ms` limits the whole head: from the accept or the end of the TLS handshake, or from the first byte of
            // a later request.
            Some(Input::Accepted) => {
                self.awaits_header = false;
                self.begin(context);
            }
            Some(Input::Secured) => {
                if let Security::Tls(facts) = context.security {
                    *context.site = facts.site;
                }
                self.begin(context);
            }
            Some(Input::Bytes(End::Client, _)) if self.is_next && self.scanned == 0 => self.begin(context),
            None if self.is_next && !bytes.is_empty() => self.begin(context),
            _ => {}
        }
        let end = match head::scan(bytes, self.scanned as usize) {
            Ok(end) => end,
            Err(error) => {
                self.forget_user(context);
                return (refuse_bytes(error, bytes, context), false);
            }
        };
        let Some(end) = end else {
            // Invalid data is detected in the first bytes; later bytes are checked again only when the head is complete
            // or too large.
            let limits = &context.site().limits;
            let judged = if self.scanned == 0 || bytes.len() as u64 > limits.head_size_max {
                head::check_partial(bytes, limits)
            } else {
                Ok(())
            };
            if let Err(error) = judged {
                self.forget_user(context);
                return (refuse_bytes(error, bytes, context), false);
            }
            self.scanned = bytes.len() as u32;
            context.out.push(Effect::Demand(End::Client, Demand::Once));
            return (Phase::Head(self), false);
        };
        let rest = bytes.split_off(end);
        let whole = std::mem::replace(bytes, rest);
        self.answer(whole, name, context)
    }

    /// The ending if the client leaves before a request begins.
    pub(crate) fn ending(&self) -> Ending {
        match (self.is_next, self.is_probe) {
            (false, _) => Ending::SaidNothing,
            (true, true) => Ending::Probed,
            (true, false) => Ending::Served,
        }
    }

    fn begin(&mut self, context: &mut Context<'_>) {
        self.since_ms = U48::new(context.now_ms);
        context.deadline_in(context.site().limits.head_ms);
    }

    /// The state for the next request on the connection; pipelined bytes are processed first. `is_probe`: all requests
    /// so far were OPTIONS. `client`: that of the previous request, whose place is given back. `was_admitted`: as a user.
    pub(crate) fn next(
        is_probe: bool,
        client: Option<Address>,
        was_admitted: bool,
        context: &mut Context<'_>,
    ) -> RequestHead {
        if client.is_some() {
            context.out.push(Effect::NoClient);
            context.given_back = client.map(AddressUnit::of);
        }
        *context.forwarded_tls = None;
        RequestHead { is_next: true, is_probe, was_admitted, ..RequestHead::default() }
    }

    /// The user of the previous request is not that of the next one.
    fn forget_user(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.was_admitted) {
            context.out.push(Effect::Admitted(None));
        }
    }

    fn answer(mut self, mut bytes: Vec<u8>, name: &mut EcoString, context: &mut Context<'_>) -> (Phase, bool) {
        self.forget_user(context);
        let mut head = match head::parse(&mut bytes, &context.site().limits) {
            Ok(head) => head,
            Err(error) => return (refuse_bytes(error, &bytes, context), false),
        };
        let client = match identify(&mut head, context) {
            Ok(client) => client,
            Err(error) => {
                disown(context);
                return (refuse_head(error, context), false);
            }
        };
        let Ok(asked) = names::from_path(head.path) else {
            return (refuse(400, &names::NameError.to_string(), Ending::Name, context), false);
        };
        *name = asked.into();
        *context.status = 0;
        *context.site = context.sites.of_host(head.host);
        let client = match client {
            Ok(client) => client,
            Err(full) => return (refuse(503, &full.to_string(), Ending::Overload(full), context), false),
        };
        if let Security::Tls(facts) = context.security
            && facts.site != *context.site
        {
            return (refuse_misdirected(head.host, facts, context), false);
        }
        // A request of HTTP/1.0 may name no host, as the checks of some proxies do. Browsers always name one.
        if !head.host.is_empty() && !context.site().hostnames.has(head.host) {
            return (refuse_hostname(head.host, context), false);
        }
        // A target of CONNECT has no path to redirect to. Behind a proxy, what has come by https is served.
        let may_redirect = head.method != "CONNECT" && context.is_tls() != Some(true);
        let redirect = context.site().redirect.as_ref().filter(|_| may_redirect);
        let location = match redirect.map(|redirect| redirect.location(head.host, head.path, head.query)) {
            Some(None) => return (refuse_head(HeadError::Host, context), false),
            location => location.flatten(),
        };
        if let Some(location) = location {
            let mut reply = self.reply(&head, name, client, context);
            reply.redirect(head.method, location);
            return send_reply(reply, &head, context);
        }
        let upgrade = match check_upgrade(&head, context) {
            Ok(upgrade) => upgrade,
            Err(phase) => return (phase, false),
        };
        // A WebSocket would keep the rules of before for as long as it is open.
        if upgrade.is_some() && self.is_next && context.sites.are_replaced() {
            return (refuse(503, "the configuration has changed: connect again", Ending::Replaced, context), false);
        }
        match judge(&head, name, upgrade.is_some(), client, context) {
            Ok(Decision::Served) => self.serve(&head, name, upgrade, client, Passage::default(), context),
            Ok(Decision::Admitted(admitted)) => {
                let passage = Passage { admitted: Some(Box::new(admitted)), ..Passage::default() };
                self.serve(&head, name, upgrade, client, passage, context)
            }
            Ok(Decision::Asked(inquiry)) => {
                let (given, address) = client;
                let asker = Asker { request: self, host: head.host, given, address };
                match Asking::start(asker, inquiry, context) {
                    Some(mut asking) => {
                        asking.set_head(bytes);
                        (Phase::Asking(asking), false)
                    }
                    None => {
                        let error = AccessError::Unavailable;
                        (refuse(error.status(), error.sentence(), Ending::Access(error), context), false)
                    }
                }
            }
            Err(error) => self.deny(&head, name, client, error, context),
        }
    }

    /// Processes a request further after the decision about its credential. The head was valid before.
    pub(crate) fn resume(
        self,
        bytes: &mut [u8],
        host: &str,
        client: Client,
        passage: Result<Passage, AccessError>,
        name: &str,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        // The deadline was that of the answer. A body may follow.
        context.deadline_in(context.site().limits.head_ms);
        // The limits that it has passed may have been those of another server of the address.
        let limits = Http { head_size_max: u64::MAX, headers_max: HEADERS_MAX.max, ..Http::default() };
        let mut head = match head::parse(bytes, &limits) {
            Ok(head) => head,
            Err(error) => return (refuse_head(error, context), false),
        };
        head.host = host;
        match (passage, check_upgrade(&head, context)) {
            (_, Err(phase)) => (phase, false),
            (Ok(passage), Ok(upgrade)) => self.serve(&head, name, upgrade, client, passage, context),
            (Err(error), Ok(_)) => self.deny(&head, name, client, error, context),
        }
    }

    /// Answers a request that is admitted. `upgrade`: it is a handshake.
    fn serve(
        self,
        head: &Head<'_>,
        name: &str,
        upgrade: Option<Upgrade>,
        client: Client,
        passage: Passage,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        let link = context.site().link_for(name, upgrade.is_some()).filter(|_| head.has_path);
        if let Some(link) = link.filter(|link| matches!(link.destination, Destination::Upstream(_))) {
            return self.forward(head, (name, link), upgrade, client, passage, context);
        }
        let Passage { admitted, standing, fields } = passage;
        let is_admitted = admitted.is_some();
        if let Some(upgrade) = upgrade {
            let asked = Asked { name, head, since_ms: self.since_ms.get(), admitted: admitted.as_deref() };
            let opening = Opening::start(&asked, upgrade, standing, context);
            if is_admitted {
                context.out.push(Effect::Admitted(admitted));
            }
            return opening;
        }
        if is_admitted {
            context.out.push(Effect::Admitted(admitted));
        }
        let mut reply = self.reply(head, name, client, context);
        (reply.is_admitted, reply.fields) = (is_admitted, fields.into());
        let judged = demanded(head, name, false, context).ok().flatten();
        reply.retain_variants(|file| may_send_variant(judged.as_ref(), file, context));
        send_reply(reply, head, context)
    }

    /// Has a node answer a request that is admitted.
    fn forward(
        self,
        head: &Head<'_>,
        (name, link): (&str, &Link),
        upgrade: Option<Upgrade>,
        client: Client,
        passage: Passage,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        let upgrade = match upgrade {
            Some(_) if !context.site().rules.permit_node(name, head.path.ends_with('/')) => {
                return (refuse(403, "this name is not allowed", Ending::Denied, context), false);
            }
            Some(upgrade) => match opening::take_seat(name, &upgrade, context) {
                Ok((_, seat)) => Some((upgrade, seat)),
                Err(refused) => return (refused, false),
            },
            None if matches!(head.method, "CONNECT" | "TRACE") => {
                return (refuse_head(HeadError::Unforwarded, context), false);
            }
            None if !context.site().page_rules.permit_node(name, head.path.ends_with('/')) => {
                return (refuse(403, "this name is not allowed", Ending::Denied, context), false);
            }
            None => None,
        };
        let demanded = demanded(head, name, upgrade.is_some(), context).ok().flatten();
        let auths = demanded.as_ref().map(Demanded::auths).unwrap_or_default();
        let shown = Shown::of(&auths, context.site().credential_cookies());
        let asked =
            forward::ForwardedRequest { name, head, link, client, passage, shown, since_ms: self.since_ms.get() };
        Forward::start(asked, upgrade, context)
    }

    /// Refuses a request for what it shows. Handshakes end the connection, as their other errors do.
    fn deny(
        self,
        head: &Head<'_>,
        name: &str,
        client: Client,
        error: AccessError,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        log_refusal(error, client.1, context);
        let is_handshake = is_handshake(head);
        let fields = refusal_fields(head, name, is_handshake, error, context);
        if is_handshake {
            return (refuse_with(error.status(), error.sentence(), &fields, Ending::Access(error), context), false);
        }
        let mut reply = self.reply(head, name, client, context);
        reply.deny(error, fields);
        send_reply(reply, head, context)
    }

    fn reply(&self, head: &Head<'_>, name: &str, (given, _): Client, context: &Context<'_>) -> Box<Reply> {
        let mut reply = Box::new(Reply::new(head, name, self.is_probe || !self.is_next, context.site()));
        reply.client = given;
        reply
    }
}

fn is_handshake(head: &Head<'_>) -> bool {
    upgrade::is_asked(&head.headers) || upgrade::is_lost(head.method, &head.headers)
}

/// Starts a reply, after the request's body.
fn send_reply(mut reply: Box<Reply>, head: &Head<'_>, context: &mut Context<'_>) -> (Phase, bool) {
    if is_handshake(head) {
        // Frames may follow.
        reply.leave_body();
    } else if head.framing != Framing::Empty {
        // After `Expect: 100-continue` and a final reply, a client may omit the body or send it anyway: the next
        // bytes are ambiguous, so the connection is closed (RFC 9110 section 10.1.1).
        if let (Ok(body), true, false) = (Body::new(head.framing), head.keep_alive, head.expects_continue) {
            return (Phase::Body(Box::new(Draining::new(body, reply))), true);
        }
        reply.leave_body();
    }
    (reply.start(context), false)
}

/// The handshake of a request. None: it is not one. The error is the refusal.
fn check_upgrade(head: &Head<'_>, context: &mut Context<'_>) -> Result<Option<Upgrade>, Phase> {
    if !is_handshake(head) {
        return Ok(None);
    }
    if head.framing != Framing::Empty {
        // The body would be parsed as frames.
        return Err(refuse_upgrade(UpgradeError::Body, context));
    }
    let origins = &context.site().origins;
    let checked = upgrade::check(head.method, head.http_1_1, head.host, context.is_tls(), &head.headers, origins);
    checked.map(Some).map_err(|error| {
        if error == UpgradeError::Origin {
            log_origin(head, origins, context);
        }
        refuse_upgrade(error, context)
    })
}

/// What a request needs, by the names of what is served: the file that has the page, the name, or the link. An error: a
/// node could take its path for another one that needs more.
fn demanded<'a>(
    head: &Head<'_>,
    name: &str,
    is_handshake: bool,
    context: &Context<'a>,
) -> Result<Option<Demanded<'a>>, AccessError> {
    let site = context.site();
    let link = site.link_for(name, is_handshake);
    let rule = link.and_then(|link| link.access.as_ref());
    if !link.is_some_and(|link| matches!(link.destination, Destination::Upstream(_))) {
        return Ok(access::demand(rule, &site.access, &subjects(head, name, is_handshake)));
    }
    if site.is_near_protected_link(name, is_handshake) {
        return Err(AccessError::Spelling);
    }
    access::demand_of_node(rule, &site.access, name, head.path.ends_with('/'))
}

/// The names by which rules know what is requested.
fn subjects(head: &Head<'_>, name: &str, is_handshake: bool) -> Subjects {
    let has_slash = head.path.ends_with('/');
    match is_handshake {
        true => Subjects::of_name(name, has_slash),
        false => Subjects::of_page(name, &files::file_of(name, has_slash), has_slash),
    }
}

/// Whether a precompressed variant may be sent in place of a page for which the client may come in: `deny` lets it pass, and
/// it needs no more than the page.
fn may_send_variant(judged: Option<&Demanded<'_>>, file: &str, context: &Context<'_>) -> bool {
    let site = context.site();
    let needed = access::demand(None, &site.access, &Subjects::of_variant(file));
    let is_covered = needed.is_none_or(|needed| judged.is_some_and(|judged| judged.covers(&needed)));
    is_covered && site.page_rules.permit_variant(file)
}

/// Judges what a request shows.
fn judge(
    head: &Head<'_>,
    name: &str,
    is_handshake: bool,
    (_, client): Client,
    context: &Context<'_>,
) -> Result<Decision, AccessError> {
    let site = context.site();
    if site.access.filter.as_ref().is_some_and(|filter| !filter.admits(client)) {
        return Err(AccessError::Address);
    }
    let Some(demanded) = demanded(head, name, is_handshake, context)? else { return Ok(Decision::Served) };
    // The certificate of a proxy says nothing about its clients, whether it names them or not.
    let certificate = match context.security {
        Security::Tls(facts) if context.proxied.is_none() => facts.client.as_ref(),
        _ => None,
    };
    let path = match site.link_for(name, is_handshake).map(|link| &link.destination) {
        Some(Destination::Upstream(_)) if head.path.ends_with('/') && !name.is_empty() => format!("/{name}/"),
        Some(Destination::Upstream(_)) => format!("/{name}"),
        _ => subjects(head, name, is_handshake).path().to_owned(),
    };
    demanded.judge(&Request {
        head,
        path: &path,
        query: &site.public_query(name, head.query),
        client,
        is_of_proxy: context.sites.trust.proxies.has(client),
        certificate,
        generation: context.sites.generation,
        nonces: context.nonces,
        unix_s: context.date.unix_s(),
    })
}

/// The header lines of a refusal.
fn refusal_fields(
    head: &Head<'_>,
    name: &str,
    is_handshake: bool,
    error: AccessError,
    context: &Context<'_>,
) -> String {
    match error {
        AccessError::Limited(wait_s) => format!("Retry-After: {wait_s}\r\n"),
        error if error.is_challenge() => {
            let demanded = demanded(head, name, is_handshake, context).ok().flatten();
            let auths = demanded.as_ref().map(Demanded::auths).unwrap_or_default();
            let has_bearer = access::has_bearer(&head.headers);
            access::challenges(&auths, error, has_bearer, context.nonces, context.date.unix_s())
        }
        _ => String::new(),
    }
}

/// The peer of the connection, or the source that its PROXY header gives.
fn peer(context: &Context<'_>) -> Address {
    context.proxied.map_or(context.client, |proxied| proxied.peer)
}

/// Whether no server of the address takes connections of this peer. A trusted proxy has clients with other addresses.
fn is_filtered(context: &Context<'_>) -> bool {
    let peer = peer(context);
    let is_proxy = context.proxied.is_some() && context.sites.trust.proxies.has(peer);
    !is_proxy && context.sites.filter_out(peer)
}

/// Applies what the fields of a trusted proxy say about the request: its client, which takes a place of its address,
/// the scheme and the host. No client: the request is the peer's own; `Full`: its client has no place.
fn identify(head: &mut Head<'_>, context: &mut Context<'_>) -> Result<Result<Client, Full>, HeadError> {
    let own = (None, peer(context));
    let Some(proxied) = sender(context) else { return Ok(Ok(own)) };
    let trust = &context.sites.trust;
    let read = forwarded::read(trust.fields, &trust.proxies, proxied.peer, &head.headers)?;
    *context.forwarded_tls = read.is_tls;
    head.host = read.host.unwrap_or(head.host);
    let Some(address) = read.client.map(Address::Tcp) else {
        disown(context);
        return Ok(Ok(own));
    };
    let place = proxied.counts.take_after(context.given_back, AddressUnit::of(address));
    let is_full = place.is_none();
    context.out.push(Effect::Client { address, place });
    Ok(if is_full { Err(Full::Address) } else { Ok((Some(address), address)) })
}

/// The trusted proxy that has sent the request. None: the connection is that of one client.
fn sender<'a>(context: &Context<'a>) -> Option<Proxied<'a>> {
    let is_trusted = |proxied: &Proxied<'_>| context.sites.trust.proxies.has(proxied.peer);
    context.proxied.filter(|proxied| proxied.reads_fields).filter(is_trusted)
}

/// A request that names no client is not that of the client before.
fn disown(context: &mut Context<'_>) {
    if let Some(proxied) = sender(context) {
        context.out.push(Effect::Client { address: proxied.peer, place: None });
    }
}

/// As `refuse_head`, for bytes that may not be HTTP.
fn refuse_bytes(error: HeadError, bytes: &[u8], context: &mut Context<'_>) -> Phase {
    disown(context);
    if matches!(error, HeadError::Host | HeadError::OtherHost) {
        let (hosts, target) = head::shown_hosts(bytes);
        let line = format!("refused: Host is {}, the request target {}", Quoted(&hosts), Quoted(&target));
        context.out.push(Effect::Log(Level::Info, line));
    }
    let error = match error {
        HeadError::NotHttp => head::recognize(bytes),
        error => error,
    };
    let is_read_of_others = context.sites.trust.header != HeaderUse::Off && context.proxied.is_none();
    match error {
        HeadError::ProxyProtocol if is_read_of_others => refuse_head(HeadError::UntrustedProxy, context),
        error => refuse_head(error, context),
    }
}

/// Refuses a request for a host that is not one of the server's.
fn refuse_hostname(host: &str, context: &mut Context<'_>) -> Phase {
    let line = format!("refused: Host is {}, which is not one of hostnames", Quoted(host));
    context.out.push(Effect::Log(Level::Info, line));
    refuse_head(HeadError::OtherHostname, context)
}

/// Refuses a request for another server than the one whose certificate the client has verified (RFC 9110 section 15.5.20).
fn refuse_misdirected(host: &str, facts: &TlsFacts, context: &mut Context<'_>) -> Phase {
    let line =
        format!("refused: Host is {}, the server name of the TLS handshake {}", Quoted(host), Quoted(&facts.sni));
    context.out.push(Effect::Log(Level::Info, line));
    refuse_head(HeadError::Misdirected, context)
}

/// Logs the refused Origin and the values it was compared with.
fn log_origin(head: &Head<'_>, origins: &Origins, context: &mut Context<'_>) {
    let (origin, host) = (upgrade::shown_origin(&head.headers), Quoted(head.host));
    let line = match origins {
        Origins::List(_) => {
            format!("refused: Origin is {}, which is not one of origins; Host is {host}", Quoted(&origin))
        }
        _ if context.is_tls().is_some() => {
            let scheme = if context.is_tls() == Some(true) { "https" } else { "http" };
            format!("refused: Origin is {}, and not {scheme} with the Host, {host}", Quoted(&origin))
        }
        _ => format!("refused: Origin is {}, and not that of the Host, {host}", Quoted(&origin)),
    };
    context.out.push(Effect::Log(Level::Info, line));
}

/// Refuses a request with an invalid head.
pub(crate) fn refuse_head(error: HeadError, context: &mut Context<'_>) -> Phase {
    refuse(error.status(), &error.to_string(), Ending::Head(error), context)
}

fn refuse_upgrade(error: UpgradeError, context: &mut Context<'_>) -> Phase {
    refuse(error.status(), &error.to_string(), Ending::Upgrade(error), context)
}

#[cfg(test)]
mod admission;
#[cfg(test)]
mod proxied;
#[cfg(test)]
mod tests;
