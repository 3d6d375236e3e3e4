//! A request that waits for the decision about its credential.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::{fmt, vec};

use auth_wire::Verdict;
use ecow::EcoString;

use super::head::{Passage, RequestHead};
use super::{Context, Effect, Ending, Input, Phase, opening, over, refuse};
use crate::access::{AccessError, Admitted, Ask, Decision, Inquiry, Standing, shown_ip};
use crate::http::fields::is_token_byte;
use crate::limits;
use crate::observe::log::{Level, Quoted};
use crate::types::{Address, Demand, End};

/// A whole request head, which is processed further after the answer.
pub(crate) struct Asking {
    request: RequestHead,
    /// The request head.
    head: Vec<u8>,
    host: Box<str>,
    /// The client that a trusted proxy has given. None: the request is the peer's own.
    given: Option<Address>,
    address: Address,
    /// The question that is being asked, and those that follow if its answer admits nobody.
    asked: Ask,
    questions: vec::IntoIter<Ask>,
    /// The worst answer so far.
    worst: Option<AccessError>,
    /// What follows once an answer has admitted the client. None: the request is served.
    then: Option<Box<Decision>>,
    /// The header lines of the answers that have admitted it.
    fields: String,
    /// Pipelined bytes after the request.
    pub(crate) input: Vec<u8>,
}

// The head contains the credential.
impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asking {{ asked: {:?}, questions: {} }}", self.asked, self.questions.len())
    }
}

/// Whose request waits.
pub(crate) struct Asker<'a> {
    pub(crate) request: RequestHead,
    pub(crate) host: &'a str,
    pub(crate) given: Option<Address>,
    pub(crate) address: Address,
}

impl Asking {
    /// Asks the first question. None: there is none. The request head is still to be set.
    pub(crate) fn start(asker: Asker<'_>, inquiry: Inquiry, context: &mut Context<'_>) -> Option<Box<Asking>> {
        let Asker { request, host, given, address } = asker;
        let Inquiry { questions, worst, then } = inquiry;
        let mut questions = questions.into_iter();
        let asked = questions.next()?;
        context.out.push(Effect::Demand(End::Client, Demand::Nothing));
        context.deadline_in(limits::AUTH_MS);
        context.out.push(Effect::Ask(Box::new(asked.clone())));
        let (head, host, fields, input) = (Vec::new(), host.into(), String::new(), Vec::new());
        Some(Box::new(Asking { request, head, host, given, address, asked, questions, worst, then, fields, input }))
    }

    /// Sets the whole request head.
    pub(crate) fn set_head(&mut self, head: Vec<u8>) {
        self.head = head;
    }

    /// Heap bytes held for the request.
    pub(crate) fn held_size(&self) -> usize {
        let later: usize = self.questions.as_slice().iter().map(Ask::size).sum();
        let then = self.then.as_ref().map_or(0, |then| then.size());
        self.head.capacity() + self.host.len() + self.fields.len() + self.asked.size() + later + then
    }

    /// Handles an input. True: run the returned phase at once.
    pub(crate) fn step(
        self: Box<Self>,
        input: Option<Input<'_>>,
        name: &EcoString,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        match input {
            Some(Input::Answered(verdict)) => self.answered(verdict, name, context),
            Some(Input::RulesLeft) => {
                let line =
                    "no decision about a request: other rules have replaced those of its connection, which is closed";
                context.out.push(Effect::Log(Level::Info, line.to_owned()));
                self.deny(AccessError::Unavailable, name, context)
            }
            Some(Input::TooManyAsked) => {
                let line = "no decision about a request: too many passwords wait";
                context.out.push(Effect::Log(Level::Info, line.to_owned()));
                self.deny(AccessError::Busy, name, context)
            }
            Some(Input::Deadline) => {
                context.out.push(Effect::CancelAsk);
                self.deny(AccessError::TimedOut, name, context)
            }
            Some(Input::Stop) => {
                context.out.push(Effect::CancelAsk);
                context.is_head = self.head.starts_with(b"HEAD ");
                (opening::stop(context), false)
            }
            _ => (Phase::Asking(self), false),
        }
    }

    fn answered(mut self: Box<Self>, verdict: Verdict, name: &EcoString, context: &mut Context<'_>) -> (Phase, bool) {
        let error = match verdict {
            Verdict::Allow { until_ms, .. } if until_ms.is_some_and(|until_ms| until_ms <= context.unix_ms()) => {
                AccessError::Wrong
            }
            Verdict::Allow { user, groups, until_ms, headers } => {
                let admitted =
                    Admitted { user: user.into(), groups: joined(&groups).into(), server: self.asked.server.clone() };
                self.fields += &fields(&headers);
                let then = match self.then.take().map(|then| *then) {
                    Some(Decision::Asked(Inquiry { questions, worst, then })) => {
                        (self.questions, self.then) = (questions.into_iter(), then);
                        return self.ask_next(worst, name, context);
                    }
                    Some(Decision::Admitted(admitted)) => Some(admitted),
                    Some(Decision::Served) | None => None,
                };
                let time = (context.now_ms, context.unix_ms());
                let standing = Standing::new(self.asked.clone(), &admitted.user, until_ms, time, self.seed(context));
                let (admitted, fields) = (then.unwrap_or(admitted), std::mem::take(&mut self.fields));
                let passage = Passage { admitted: Some(Box::new(admitted)), standing, fields };
                return self.go_on(Ok(passage), name, context);
            }
            Verdict::Deny => AccessError::Wrong,
            Verdict::Refused { reason } => {
                context.out.push(Effect::Log(Level::Info, reason));
                AccessError::Wrong
            }
            Verdict::Forbidden => AccessError::Forbidden,
            Verdict::Limited { wait_ms } => return self.deny(AccessError::limited(wait_ms), name, context),
            Verdict::Unavailable { sentence } => {
                // Not a warning: strangers can have as many of them as they like.
                context.out.push(Effect::Log(Level::Info, format!("no decision about a request: {sentence}")));
                AccessError::Unavailable
            }
        };
        let worst = self.worst.map_or(error, |worst| worst.worse(error));
        self.ask_next(Some(worst), name, context)
    }

    /// Asks the next question. Without one the worst answer so far decides.
    fn ask_next(
        mut self: Box<Self>,
        worst: Option<AccessError>,
        name: &EcoString,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        match self.questions.next() {
            Some(asked) => {
                context.out.push(Effect::Ask(Box::new(asked.clone())));
                (self.asked, self.worst) = (asked, worst);
                (Phase::Asking(self), false)
            }
            None => self.deny(worst.unwrap_or(AccessError::Unavailable), name, context),
        }
    }

    /// A number that differs between clients which were admitted at the same time.
    fn seed(&self, context: &Context<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let peer = context.proxied.map_or(context.client, |proxied| proxied.peer);
        (peer, self.address, &self.asked.question.path, context.now_ms).hash(&mut hasher);
        hasher.finish()
    }

    fn deny(self: Box<Self>, error: AccessError, name: &EcoString, context: &mut Context<'_>) -> (Phase, bool) {
        self.go_on(Err(error), name, context)
    }

    /// Processes the request further.
    fn go_on(
        self: Box<Self>,
        passage: Result<Passage, AccessError>,
        name: &EcoString,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        let Asking { request, mut head, host, given, address, .. } = *self;
        context.is_head = head.starts_with(b"HEAD ");
        request.resume(&mut head, &host, (given, address), passage, name, context)
    }
}

/// The groups, separated by commas. A group with a comma in its name would be several.
fn joined(groups: &[String]) -> String {
    let valid: Vec<&str> = groups.iter().map(String::as_str).filter(|group| !group.contains(',')).collect();
    valid.join(",")
}

/// The header lines that an answer adds to the reply: valid ones that do not concern the connection or the content.
fn fields(headers: &[(String, String)]) -> String {
    const OWN: [&str; 11] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "keep-alive",
        "server",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let is_valid = |(name, value): &&(String, String)| {
        let is_name = !name.is_empty() && name.bytes().all(is_token_byte);
        let is_value = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        is_name && is_value && !OWN.iter().any(|own| name.eq_ignore_ascii_case(own))
    };
    headers.iter().filter(is_valid).map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// Logs that a request was refused for what it shows. Its client has an own place in the line, so that a program that
/// reads the log can block it.
pub(crate) fn log_refusal(error: AccessError, address: Address, context: &mut Context<'_>) {
    if error.is_logged() {
        let ip = shown_ip(address);
        let line = format!("refused with {}: {error}; the client is {}", error.status(), Quoted(&ip));
        context.out.push(Effect::Log(Level::Info, line));
    }
}

/// Closes a connection whose address may not connect, without a reply.
pub(crate) fn close_filtered(context: &mut Context<'_>) -> Phase {
    over(Ending::Filtered, context)
}

/// Refuses the handshake of a client whose admission was revoked before the 101.
pub(crate) fn refuse_revoked(context: &mut Context<'_>) -> Phase {
    refuse(403, "the admission was revoked", Ending::Revoked, context)
}
