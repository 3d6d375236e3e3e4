//! The channel to uakari-auth, which verifies credentials (docs/auth.md): questions of the exchanges go out, and answers
//! come in. Questions without the channel, and those beyond the limits, are answered at once: it cannot be decided.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use auth_wire::{Answer, Decoder, Question, Rule, ToDaemon, ToHelper, Verdict, WireError, encode};

use super::World;
use super::slots::{Key, Slots};
use super::timers::Owner;
use crate::access::{Ask, Revocations, Verdicts};
use crate::clients::AddressUnit;
use crate::driver::{Batch, Driver, Errno, Op, Received, Segment};
use crate::exchange::Input;
use crate::limits::{
    AUTH_ADDRESS_WAIT_MS, AUTH_CACHE_ENTRY_SIZE_MAX, AUTH_GENERATIONS_MAX, AUTH_LATE_MAX, AUTH_MS, AUTH_QUESTIONS_MAX,
    AUTH_QUESTIONS_PER_ADDRESS_MAX, AUTH_QUEUE_SIZE_MAX, AUTH_RECHECKS_MAX, AUTH_RETRY_MS, AUTH_RULES_RETRY_MS,
    AUTH_SILENCE_MS, AUTH_USER_SIZE_MAX,
};
use crate::observe::log::{self, Level, Quoted};
use crate::transport::{Arrival, Opposite, SendResult, Settled, Transport};
use crate::types::Demand;

/// The rules of a configuration, for uakari-auth.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HelperRules {
    /// That of the questions about these rules; it grows.
    pub(crate) generation: u32,
    /// The rules; a question names one by its index.
    pub(crate) rules: Arc<[Rule]>,
    /// Where each rule was set, in the same order.
    pub(crate) places: Arc<[String]>,
}

impl HelperRules {
    /// The place of a rule and the sentence about it.
    pub(crate) fn line(&self, rule: u32, sentence: &str) -> String {
        let place = usize::try_from(rule).ok().and_then(|rule| self.places.get(rule));
        format!("{}: {sentence}", place.map_or("auth", String::as_str))
    }

    fn message(&self) -> ToHelper {
        ToHelper::Rules { generation: self.generation, rules: self.rules.to_vec(), is_trial: false }
    }
}

/// Why the channel is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    /// The helper has ended.
    Ended,
    /// The channel failed.
    Failed(Errno),
    /// The helper sent what is no message.
    Wire(WireError),
    /// The helper sent an answer to a question that was never asked.
    Unasked,
    /// The helper has answered nothing for a while.
    Silent,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Ended => f.write_str("has ended"),
            Broken::Failed(errno) => write!(f, "cannot be reached: {}", errno.desc()),
            Broken::Wire(error) => write!(f, "sent what is no message: {error}"),
            Broken::Unasked => f.write_str("answered a question that was not asked"),
            Broken::Silent => write!(f, "has answered nothing for {} s", AUTH_SILENCE_MS / 1_000),
        }
    }
}

/// A question without an answer.
#[derive(Debug)]
struct Asked {
    owner: Owner,
    unit: AddressUnit,
    since_ms: u64,
    ask: Box<Ask>,
}

/// What becomes of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum QuestionEnd {
    /// An answer.
    Verdict(Verdict),
    /// Its rules have left.
    RulesLeft,
    /// Too many others wait.
    TooMany,
}

impl QuestionEnd {
    /// What the exchange is told.
    pub(super) fn input(self) -> Input<'static> {
        match self {
            QuestionEnd::Verdict(verdict) => Input::Answered(verdict),
            QuestionEnd::RulesLeft => Input::RulesLeft,
            QuestionEnd::TooMany => Input::TooManyAsked,
        }
    }
}

/// The state of the channel.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// The slot of the channel. None: there is none.
    key: Option<Key>,
    /// Whether the channel is to be closed.
    is_leaving: bool,
    /// Whether a channel was closed, which the caller does not know yet.
    has_ended: bool,
    /// Whether a receive waits for a pool buffer.
    is_starved: bool,
    decoder: Decoder,
    /// Those of the configurations in use, the newest last.
    rules: VecDeque<HelperRules>,
    /// What the helper said about the newest rules, if it cannot use them. Empty: it can use all.
    problems: Vec<String>,
    /// When the newest rules are sent again after problems, in ms.
    resend_ms: Option<u64>,
    asked: BTreeMap<u64, Asked>,
    /// Admissions that are remembered.
    verdicts: Verdicts,
    /// The id of the last question.
    last_id: u64,
    /// When the helper sent the last message, or was started, in ms.
    heard_ms: u64,
    /// Questions since then that were given up without an answer at their deadline.
    late: u32,
    /// Answers that are to be passed to their exchanges.
    due: VecDeque<(Owner, QuestionEnd)>,
    revoked: Revocations,
}

/// Bytes of the messages to the helper that wait.
const OPPOSITE: Opposite = Opposite { queued_size: 0, queue_size_max: usize::MAX };

impl Questions {
    /// Whether a channel is open.
    pub(super) fn is_connected(&self) -> bool {
        self.key.is_some()
    }

    /// Whether no question is without an answer.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.due.is_empty() && self.revoked.is_empty()
    }

    /// Whether a channel was closed since the last call.
    pub(super) fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.has_ended)
    }

    /// Whether answers wait for their exchanges.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty() || !self.revoked.is_empty()
    }

    /// Whether a receive waits for a pool buffer.
    pub(super) fn is_starved(&self) -> bool {
        self.is_starved
    }

    /// Removes the answers for exchanges.
    pub(super) fn take_due(&mut self) -> VecDeque<(Owner, QuestionEnd)> {
        std::mem::take(&mut self.due)
    }

    /// Removes the revocations.
    pub(super) fn take_revoked(&mut self) -> Revocations {
        std::mem::take(&mut self.revoked)
    }

    /// When the rules are sent again, in ms. None: they need not be.
    pub(super) fn resend_ms(&self) -> Option<u64> {
        self.resend_ms.filter(|_| self.is_connected())
    }

    /// Removes the question of an owner, and its answer. Questions whose time is over show whether the helper is silent.
    fn cancel<D: Driver>(&mut self, owner: Owner, now_ms: u64, slots: &mut Slots<D::Handle>, driver: &mut D) {
        self.due.retain(|(other, _)| *other != owner);
        let Some((id, asked)) = self.asked.iter().find(|(_, asked)| asked.owner == owner) else { return };
        let (id, since_ms) = (*id, asked.since_ms);
        self.asked.remove(&id);
        // It may have ended.
        let _ = self.send(&ToHelper::Cancel { id }, slots, driver);
        if since_ms >= self.heard_ms && now_ms.saturating_sub(since_ms) >= AUTH_MS {
            self.late += 1;
            if self.late >= AUTH_LATE_MAX && now_ms.saturating_sub(self.heard_ms) >= AUTH_SILENCE_MS {
                self.break_off(Broken::Silent, slots, driver);
            }
        }
    }

    /// Whether nothing has to be cancelled for any connection.
    fn has_nothing(&self) -> bool {
        self.asked.is_empty() && self.due.is_empty()
    }

    /// Sends a message, or tells why it cannot be sent.
    fn send<D: Driver>(
        &mut self,
        message: &ToHelper,
        slots: &mut Slots<D::Handle>,
        driver: &mut D,
    ) -> Result<(), &'static str> {
        let Some(transport) = slots.transport_mut(self.key.filter(|_| !self.is_leaving)) else {
            return Err("uakari-auth does not run: it is started again");
        };
        let is_rules = matches!(message, ToHelper::Rules { .. });
        let mut bytes = Vec::new();
        encode(message, &mut bytes).map_err(|_| "the request exceeds a message to uakari-auth")?;
        // Rules may be long, but there are few.
        if !is_rules && transport.queued_size() + bytes.len() > AUTH_QUEUE_SIZE_MAX {
            return Err("uakari-auth takes no questions: too many wait");
        }
        transport.enqueue(Segment::heap(bytes.into()), driver);
        Ok(())
    }

    /// Closes the channel. What was asked cannot be decided.
    fn break_off<D: Driver>(&mut self, why: Broken, slots: &mut Slots<D::Handle>, driver: &mut D) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        log::event(Level::Error, format_args!("uakari-auth {why}"));
        if let Some(transport) = slots.transport_mut(self.key) {
            transport.abandon(driver);
        }
        let sentence = format!("uakari-auth {why}");
        for asked in std::mem::take(&mut self.asked).into_values() {
            self.due.push_back((asked.owner, unavailable(&sentence)));
        }
    }
}

impl<D: Driver> World<D> {
    /// Sets the rules of the questions to come. Those before stay for the connections that have them. Equal rules may be
    /// at other places of the configuration.
    pub(super) fn set_auth_rules(&mut self, rules: HelperRules) {
        let asking = &mut self.asking;
        let is_known = asking.rules.back().is_some_and(|last| last.generation == rules.generation);
        if is_known {
            asking.rules.pop_back();
        }
        let message = rules.message();
        asking.rules.push_back(rules);
        if is_known && asking.problems.is_empty() {
            return;
        }
        while asking.rules.len() > AUTH_GENERATIONS_MAX {
            asking.rules.pop_front();
        }
        if let Some(oldest) = asking.rules.front() {
            asking.verdicts.forget_before(oldest.generation);
        }
        asking.problems.clear();
        asking.resend_ms = None;
        // Without a helper they are sent when it is there. The next turn may be long after this.
        let _ = asking.send(&message, &mut self.slots, &mut self.driver);
        self.settle_helper();
    }

    /// Takes the gateway's end of the channel to a new helper, and sends it all rules.
    pub(super) fn connect_helper(&mut self, handle: D::Handle) {
        let mut transport = Transport::new(handle);
        transport.set_demand(Demand::Flow);
        let asking = &mut self.asking;
        debug_assert!(asking.key.is_none(), "there is one helper at a time");
        asking.key = Some(self.slots.insert_helper(transport));
        asking.is_leaving = false;
        asking.decoder = Decoder::default();
        (asking.heard_ms, asking.late) = (self.now_ms, 0);
        asking.resend_ms = None;
        let messages: Vec<ToHelper> = asking.rules.iter().map(HelperRules::message).collect();
        for message in messages {
            let _ = asking.send(&message, &mut self.slots, &mut self.driver);
        }
        // The next turn may be long after this.
        self.settle_helper();
    }

    /// Closes the channel, for the end of the process.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn disconnect_helper(&mut self) {
        self.asking.break_off(Broken::Ended, &mut self.slots, &mut self.driver);
    }

    /// Sends the newest rules again if their files could not be used, and it is time to. Others would be read again, too,
    /// and what the helper knows of them be lost.
    pub(super) fn resend_auth_rules(&mut self) {
        let asking = &mut self.asking;
        if asking.resend_ms().is_some_and(|at_ms| at_ms <= self.taken_ms) {
            asking.resend_ms = None;
            if let Some(message) = asking.rules.back().map(HelperRules::message) {
                let _ = asking.send(&message, &mut self.slots, &mut self.driver);
            }
        }
    }

    /// Answers a question of an exchange in this turn or a later one: never before its effects are applied. One that it
    /// asked before is cancelled.
    pub(super) fn ask(&mut self, owner: Owner, unit: AddressUnit, ask: Box<Ask>) {
        let (now_ms, unix_ms) = (self.now_ms, self.driver.unix_s() * 1_000);
        self.cancel_question(owner);
        let asking = &mut self.asking;
        if !asking.rules.iter().any(|rules| rules.generation == ask.question.generation) {
            return asking.due.push_back((owner, QuestionEnd::RulesLeft));
        }
        if let Some(verdict) = asking.verdicts.get(&ask, now_ms, unix_ms) {
            let decision = QuestionEnd::Verdict(verdict.clone());
            return asking.due.push_back((owner, decision));
        }
        let rechecks = asking.asked.values().filter(|asked| asked.ask.is_recheck).count();
        let is_of_address = |asked: &&Asked| asked.unit == unit && !asked.ask.is_recheck;
        let of_address = || asking.asked.values().filter(is_of_address).count();
        let limited = |wait_ms| Some(QuestionEnd::Verdict(Verdict::Limited { wait_ms }));
        let refused = if ask.is_recheck {
            if rechecks >= AUTH_RECHECKS_MAX { limited(AUTH_RETRY_MS) } else { None }
        } else if unit != AddressUnit::Unknown && of_address() >= AUTH_QUESTIONS_PER_ADDRESS_MAX {
            limited(AUTH_ADDRESS_WAIT_MS)
        } else if asking.asked.len() - rechecks >= AUTH_QUESTIONS_MAX - AUTH_RECHECKS_MAX {
            Some(QuestionEnd::TooMany)
        } else {
            None
        };
        if let Some(decision) = refused {
            return asking.due.push_back((owner, decision));
        }
        asking.last_id += 1;
        let question = Question { id: asking.last_id, ..ask.question.clone() };
        match asking.send(&ToHelper::Ask(Box::new(question)), &mut self.slots, &mut self.driver) {
            Ok(()) => drop(asking.asked.insert(asking.last_id, Asked { owner, unit, since_ms: now_ms, ask })),
            Err(sentence) => asking.due.push_back((owner, unavailable(sentence))),
        }
    }

    /// Forgets the question of a connection, which needs no answer.
    pub(super) fn cancel_question(&mut self, owner: Owner) {
        if !self.asking.has_nothing() {
            self.asking.cancel(owner, self.now_ms, &mut self.slots, &mut self.driver);
        }
    }

    /// Handles a completed receive of the channel.
    pub(super) fn on_helper_received(&mut self, result: Received, more: bool) {
        let Some(transport) = self.slots.transport_mut(self.asking.key) else { return };
        let Some(arrival) = transport.on_received(result, more, &mut self.driver) else { return };
        let broken = match arrival {
            Arrival::Lease(lease) => {
                let (start, end) = (lease.start as usize, lease.end as usize);
                if !self.asking.is_leaving {
                    self.asking.decoder.push(&self.driver.buffer(&lease)[start..end]);
                }
                self.driver.release(lease);
                self.take_messages().err()
            }
            Arrival::Failed(errno) => {
                transport.on_end();
                Some(Broken::Failed(errno))
            }
            _ => {
                transport.on_end();
                Some(Broken::Ended)
            }
        };
        if let Some(broken) = broken {
            self.asking.break_off(broken, &mut self.slots, &mut self.driver);
        }
    }

    /// Handles a completed send of the channel.
    pub(super) fn on_helper_sent(&mut self, batch: Batch, result: Result<usize, Errno>) {
        let Some(transport) = self.slots.transport_mut(self.asking.key) else { return };
        if let SendResult::Failed(errno) = transport.on_sent(batch, result, &mut self.driver) {
            let why = if errno == Errno::EPIPE { Broken::Ended } else { Broken::Failed(errno) };
            self.asking.break_off(why, &mut self.slots, &mut self.driver);
        }
    }

    /// Submits what the channel has to send and to receive. Closes it if it is to be closed.
    pub(super) fn settle_helper(&mut self) {
        let Some(key) = self.asking.key else { return };
        let token = self.slots.token(key, Op::Receive);
        let Some(transport) = self.slots.transport_mut(Some(key)) else { return };
        let settled = transport.settle(token, OPPOSITE, &mut self.driver);
        self.asking.is_starved = matches!(settled, Settled::Starved(_));
        if settled == Settled::Closable {
            if let Some(transport) = self.slots.remove_transport(key) {
                transport.close(&mut self.driver);
            }
            self.asking.key = None;
            self.asking.has_ended = true;
        }
    }

    /// Takes what has been received. Revocations are collected for one pass over the connections, since there may be very
    /// many.
    fn take_messages(&mut self) -> Result<(), Broken> {
        let asking = &mut self.asking;
        while !asking.is_leaving
            && let Some(message) = asking.decoder.next::<ToDaemon>().map_err(Broken::Wire)?
        {
            (asking.heard_ms, asking.late) = (self.now_ms, 0);
            match message {
                ToDaemon::Ready { generation, warnings } => {
                    if asking.rules.back().is_some_and(|rules| rules.generation == generation) {
                        asking.problems.clear();
                        asking.resend_ms = None;
                    }
                    for warning in warnings {
                        log::event(Level::Warn, format_args!("auth: {}", Line(&warning)));
                    }
                }
                ToDaemon::Problems { generation, problems } => {
                    let newest = asking.rules.back().map(|rules| rules.generation);
                    let Some(known) = asking.rules.iter().position(|rules| rules.generation == generation) else {
                        continue;
                    };
                    if newest != Some(generation) {
                        asking.rules.remove(known);
                        let line = "auth: uakari-auth can no longer read files of the configuration before: its clients \
                                    are asked to connect again";
                        log::event(Level::Warn, format_args!("{line}"));
                        continue;
                    }
                    let rules = &asking.rules[known];
                    let line = |problem: &auth_wire::Problem| rules.line(problem.rule, &problem.sentence);
                    let lines: Vec<String> = problems.iter().map(line).collect();
                    // They are told once.
                    if lines != asking.problems {
                        for line in &lines {
                            log::event(Level::Error, format_args!("{}", Line(line)));
                        }
                    }
                    asking.problems = lines;
                    asking.resend_ms = Some(self.now_ms + AUTH_RULES_RETRY_MS);
                }
                ToDaemon::Answer(Answer { id, .. }) if id == 0 || id > asking.last_id => return Err(Broken::Unasked),
                ToDaemon::Answer(Answer { id, verdict }) => {
                    // Others were cancelled.
                    if let Some(asked) = asking.asked.remove(&id) {
                        let verdict = checked(verdict);
                        if size_of_verdict(&verdict) <= AUTH_CACHE_ENTRY_SIZE_MAX {
                            asking.verdicts.put(&asked.ask, &verdict, self.now_ms);
                        }
                        asking.due.push_back((asked.owner, QuestionEnd::Verdict(verdict)));
                    }
                }
                ToDaemon::Revoked { server, user } => asking.revoked.add(server, user),
            }
        }
        Ok(())
    }
}

fn unavailable(sentence: &str) -> QuestionEnd {
    QuestionEnd::Verdict(Verdict::Unavailable { sentence: sentence.to_owned() })
}

/// A line of the helper without control characters.
struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(char::is_control) { Quoted(self.0).fmt(f) } else { f.write_str(self.0) }
    }
}

/// Bytes of the texts of a permission.
fn size_of_verdict(verdict: &Verdict) -> usize {
    let Verdict::Allow { user, groups, headers, .. } = verdict else { return 0 };
    let pairs = headers.iter().map(|(name, value)| name.len() + value.len() + 2 * size_of::<String>());
    user.len() + pairs.sum::<usize>() + groups.iter().map(|group| group.len() + size_of::<String>()).sum::<usize>()
}

/// A permission is only used if its texts can be used in header fields and log lines.
fn checked(verdict: Verdict) -> Verdict {
    let Verdict::Allow { user, groups, headers, .. } = &verdict else { return verdict };
    let is_plain = |text: &str| text.len() <= AUTH_USER_SIZE_MAX && !text.contains(char::is_control);
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let is_value = |value: &str| value.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f);
    let is_good = is_plain(user)
        && groups.iter().all(|group| is_plain(group))
        && headers.iter().all(|(name, value)| is_name(name) && is_value(value));
    match is_good {
        true => verdict,
        false => Verdict::Unavailable { sentence: "the answer of uakari-auth has control characters".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use auth_wire::{Credential, Problem};

    use super::super::Gateway;
    use super::*;
    use crate::access::Varies;
    use crate::driver::sim::Sim;
    use crate::limits;
    use crate::types::Address;

    /// A gateway and the helper's end of its channel.
    struct Channel {
        gateway: Gateway<Sim>,
        wire: usize,
        decoder: Decoder,
    }

    impl Channel {
        fn new() -> Channel {
            let mut sim = Sim::new(1, limits::POOL_BUFFERS.default as usize);
            sim.is_plain = true;
            let mut gateway = Gateway::new(sim, limits::Process::default());
            gateway.set_auth_rules(rules(1));
            let mut channel = Channel { gateway, wire: 0, decoder: Decoder::default() };
            channel.connect();
            assert!(matches!(channel.heard()[..], [ToHelper::Rules { generation: 1, .. }]));
            channel.say(&[ToDaemon::Ready { generation: 1, warnings: Vec::new() }]);
            channel
        }

        fn connect(&mut self) {
            let (handle, wire) = self.gateway.driver_mut().socket_pair(1 << 16);
            (self.wire, self.decoder) = (wire, Decoder::default());
            self.gateway.connect_helper(handle);
        }

        fn turn(&mut self) {
            for _ in 0..4 {
                self.gateway.turn(Some(0), &mut Vec::new()).unwrap();
            }
        }

        /// What the helper has received.
        fn heard(&mut self) -> Vec<ToHelper> {
            let mut heard = Vec::new();
            self.turn();
            while let Some(chunk) = self.gateway.driver_mut().wires[self.wire].read() {
                self.decoder.push(&chunk);
                while let Some(message) = self.decoder.next().unwrap() {
                    heard.push(message);
                }
                self.turn();
            }
            heard
        }

        fn say(&mut self, messages: &[ToDaemon]) {
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| encode(message, &mut bytes).unwrap());
            self.receive(&bytes);
        }

        /// As a completed receive.
        fn receive(&mut self, bytes: &[u8]) {
            let world = &mut self.gateway.world;
            world.asking.decoder.push(bytes);
            if let Err(broken) = world.take_messages() {
                world.asking.break_off(broken, &mut world.slots, &mut world.driver);
            }
        }

        fn ask(&mut self, owner: u32, address: &str) {
            self.ask_with(owner, address, ask(""));
        }

        fn ask_with(&mut self, owner: u32, address: &str, ask: Ask) {
            let unit = AddressUnit::of(address.parse().map_or(Address::Unix, Address::Tcp));
            self.gateway.world.ask(self::owner(owner), unit, Box::new(ask));
        }

        fn due(&mut self) -> Vec<(u32, Verdict)> {
            let due = self.gateway.world.asking.take_due().into_iter();
            due.map(|(owner, decision)| match decision {
                QuestionEnd::Verdict(verdict) => (owner.slot, verdict),
                other => panic!("{other:?}"),
            })
            .collect()
        }

        /// The reason for which a question cannot be decided.
        fn sentence(&mut self) -> String {
            match &self.due()[..] {
                [(_, Verdict::Unavailable { sentence })] => sentence.clone(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn rules(generation: u32) -> HelperRules {
        HelperRules { generation, rules: [Rule::default()].into(), places: ["uakari.conf:3: auth".to_owned()].into() }
    }

    fn owner(slot: u32) -> Owner {
        Owner { slot, generation: 7 }
    }

    fn ask(path: &str) -> Ask {
        let credential = Credential::Token("secret".into());
        let question = Question { generation: 1, credential, path: path.to_owned(), ..Question::default() };
        Ask { question, cache_ms: 0, recheck_ms: 0, server: None, varies: Varies::No, is_recheck: false }
    }

    fn allow(user: &str) -> Verdict {
        Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms: None, headers: Vec::new() }
    }

    fn answer(id: u64, verdict: Verdict) -> ToDaemon {
        ToDaemon::Answer(Answer { id, verdict })
    }

    #[test]
    fn limits_of_questions() {
        let mut channel = Channel::new();
        for client in 0..AUTH_QUESTIONS_PER_ADDRESS_MAX as u32 {
            channel.ask(client, "192.0.2.1:1");
        }
        assert_eq!(channel.due(), []);
        channel.ask(1_000, "192.0.2.1:2");
        assert_eq!(
            channel.due(),
            [(1_000, Verdict::Limited { wait_ms: AUTH_ADDRESS_WAIT_MS })],
            "as uakari-auth says it"
        );
        let most = AUTH_QUESTIONS_MAX - AUTH_RECHECKS_MAX;
        for client in AUTH_QUESTIONS_PER_ADDRESS_MAX..most {
            channel.ask(client as u32, "unix");
        }
        assert_eq!(channel.due(), [], "clients without an address have no limit of their own");
        let is_too_many = |channel: &mut Channel| {
            let due = channel.gateway.world.asking.take_due();
            due.iter().map(|(_, decision)| decision).eq([&QuestionEnd::TooMany])
        };
        channel.ask(1_000, "192.0.2.2:1");
        assert!(is_too_many(&mut channel));
        assert_eq!(channel.heard().len(), most);
        // A place is free after an answer, and after a question that is cancelled.
        channel.say(&[answer(1, Verdict::Deny)]);
        assert_eq!(channel.due(), [(0, Verdict::Deny)]);
        channel.gateway.world.cancel_question(owner(1));
        assert_eq!(channel.heard(), [ToHelper::Cancel { id: 2 }]);
        channel.ask(1_000, "192.0.2.2:1");
        channel.ask(1_001, "192.0.2.2:1");
        assert_eq!(channel.due(), []);
        channel.ask(1_002, "192.0.2.2:1");
        assert!(is_too_many(&mut channel));
    }

    /// Open WebSockets neither wait for passwords of others nor take their places.
    #[test]
    fn limits_of_rechecks() {
        let mut channel = Channel::new();
        let recheck = || Ask { is_recheck: true, recheck_ms: 1_000, ..ask("") };
        let most = AUTH_QUESTIONS_MAX - AUTH_RECHECKS_MAX;
        (0..most as u32).for_each(|client| channel.ask(client, "unix"));
        for client in 100..100 + AUTH_RECHECKS_MAX as u32 {
            channel.ask_with(client, "192.0.2.1:1", recheck());
        }
        assert_eq!(channel.due(), [], "also more than an address may ask otherwise");
        channel.ask_with(1_000, "192.0.2.2:1", recheck());
        assert_eq!(channel.due(), [(1_000, Verdict::Limited { wait_ms: AUTH_RETRY_MS })], "no doubt about it");
        channel.gateway.world.cancel_question(owner(0));
        channel.ask(1_001, "192.0.2.1:1");
        assert_eq!(channel.due(), [], "rechecks of an address do not count");
        assert_eq!(channel.heard().len(), AUTH_QUESTIONS_MAX + 2);
    }

    #[test]
    fn rules_that_have_left() {
        let mut channel = Channel::new();
        let left = |channel: &mut Channel| {
            channel.ask(1, "unix");
            let due = channel.gateway.world.asking.take_due();
            let has_left = matches!(due.iter().collect::<Vec<_>>()[..], [(_, QuestionEnd::RulesLeft)]);
            channel.gateway.world.cancel_question(owner(1));
            has_left
        };
        channel.gateway.set_auth_rules(rules(2));
        assert!(!left(&mut channel), "those before the newest");
        channel.gateway.set_auth_rules(rules(3));
        assert!(left(&mut channel));
        // Those before the newest whose files a new helper cannot read.
        let mut channel = Channel::new();
        channel.gateway.set_auth_rules(rules(2));
        channel.heard();
        let problems = vec![Problem { rule: 0, sentence: "it is missing".to_owned() }];
        channel.say(&[ToDaemon::Problems { generation: 1, problems: problems.clone() }]);
        assert!(left(&mut channel));
        let asking = &channel.gateway.world.asking;
        assert_eq!((asking.resend_ms(), asking.problems.len()), (None, 0), "the newest are not sent again");
        channel.say(&[ToDaemon::Problems { generation: 1, problems: problems.clone() }]);
        assert_eq!(channel.gateway.world.asking.resend_ms(), None, "they are not known");
        // Only the rules that have problems are sent again.
        channel.gateway.set_auth_rules(rules(3));
        channel.say(&[ToDaemon::Problems { generation: 3, problems }]);
        channel.heard();
        channel.gateway.world.taken_ms += AUTH_RULES_RETRY_MS;
        channel.gateway.world.resend_auth_rules();
        assert!(matches!(channel.heard()[..], [ToHelper::Rules { generation: 3, .. }]));
    }

    #[test]
    fn a_helper_that_reads_nothing() {
        let mut channel = Channel::new();
        let path = "a".repeat(60_000);
        for client in 0..AUTH_QUESTIONS_MAX as u32 {
            channel.ask_with(client, "unix", ask(&path));
            channel.gateway.world.settle_helper();
            // Cancelled questions wait too.
            channel.gateway.world.cancel_question(owner(client));
        }
        assert_eq!(channel.due().len(), 0, "they were cancelled");
        channel.ask_with(1_000, "unix", ask(&path));
        assert_eq!(channel.sentence(), "uakari-auth takes no questions: too many wait");
        let key = channel.gateway.world.asking.key;
        let queued_size = channel.gateway.world.slots.transport(key).unwrap().queued_size();
        assert!(queued_size <= AUTH_QUEUE_SIZE_MAX, "{queued_size}");
        channel.ask_with(1_000, "unix", ask(&"a".repeat(70_000)));
        assert_eq!(channel.sentence(), "the request exceeds a message to uakari-auth");
    }

    #[test]
    fn answers_and_lies() {
        let mut channel = Channel::new();
        channel.ask(1, "unix");
        channel.ask(2, "unix");
        channel.say(&[answer(2, allow("ann")), answer(2, Verdict::Deny), answer(1, Verdict::Forbidden)]);
        assert_eq!(channel.due(), [(2, allow("ann")), (1, Verdict::Forbidden)], "the second answer has no question");
        channel.ask(3, "unix");
        // The same connection asks again, after it has given up the first question.
        channel.ask(3, "unix");
        channel.say(&[answer(3, allow("ann"))]);
        assert_eq!(channel.due(), []);
        channel.say(&[answer(4, allow("ann"))]);
        assert_eq!(channel.due(), [(3, allow("ann"))]);
        for id in [0, 5, u64::MAX] {
            let mut channel = Channel::new();
            channel.ask(1, "unix");
            channel.say(&[answer(id, allow("ann")), answer(1, allow("ann"))]);
            assert_eq!(channel.sentence(), "uakari-auth answered a question that was not asked", "{id}");
        }
    }

    #[test]
    fn an_answer_is_not_passed_after_its_question_was_cancelled() {
        let mut channel = Channel::new();
        channel.ask(1, "unix");
        channel.say(&[answer(1, allow("ann"))]);
        channel.gateway.world.cancel_question(owner(1));
        assert_eq!(channel.due(), []);
        assert!(channel.gateway.world.asking.is_idle());
    }

    #[test]
    fn texts_that_are_refused() {
        for (name, user, group, header, is_good) in [
            ("good", "ann", "staff", ("Authentication-Info", "rspauth=\"1\""), true),
            ("no user", "", "", ("a", ""), true),
            ("user", "ann\n", "", ("a", ""), false),
            ("a terminal's control character", "ann\u{9b}", "", ("a", ""), false),
            ("a long user", &"a".repeat(AUTH_USER_SIZE_MAX + 1), "", ("a", ""), false),
            ("group", "ann", "\0", ("a", ""), false),
            ("name", "ann", "", ("a b", ""), false),
            ("no name", "ann", "", ("", ""), false),
            ("value", "ann", "", ("a", "b\r\nc: d"), false),
        ] {
            let headers = vec![(header.0.to_owned(), header.1.to_owned())];
            let verdict =
                Verdict::Allow { user: user.to_owned(), groups: vec![group.to_owned()], until_ms: None, headers };
            let is_unchanged = checked(verdict.clone()) == verdict;
            assert_eq!(is_unchanged, is_good, "{name}");
            assert!(is_good || matches!(checked(verdict), Verdict::Unavailable { .. }), "{name}");
        }
    }

    #[test]
    fn what_is_remembered_is_not_asked_again() {
        let mut channel = Channel::new();
        let remembered = || Ask { cache_ms: 60_000, ..ask("") };
        channel.ask_with(1, "unix", remembered());
        channel.say(&[answer(1, allow("ann"))]);
        channel.due();
        channel.heard();
        channel.ask_with(2, "unix", remembered());
        assert_eq!(channel.due(), [(2, allow("ann"))]);
        assert_eq!(channel.heard(), []);
        channel.say(&[ToDaemon::Revoked { server: "/decide".into(), user: "ann".to_owned() }]);
        let revoked = channel.gateway.world.asking.take_revoked();
        assert!(revoked.contains(Some(Path::new("/decide")), "ann"));
        // A long answer is not remembered.
        let other = || Ask { varies: Varies::Path, ..remembered() };
        channel.ask_with(2, "unix", other());
        assert_eq!(channel.heard().len(), 1);
        let long = Verdict::Allow {
            user: "ann".to_owned(),
            groups: vec!["g".repeat(200); 10],
            until_ms: None,
            headers: Vec::new(),
        };
        channel.say(&[answer(2, long)]);
        channel.due();
        channel.ask_with(2, "unix", other());
        assert_eq!(channel.heard().len(), 1);
    }

    #[test]
    fn a_helper_that_ends() {
        let mut channel = Channel::new();
        channel.ask(1, "unix");
        channel.turn();
        let wire = channel.wire;
        channel.gateway.driver_mut().wires[wire].leave();
        // The answer is passed to no connection in the turns.
        for _ in 0..4 {
            let mut completions = Vec::new();
            channel.gateway.world.driver.wait(Some(0), &mut completions).unwrap();
            for completion in completions {
                channel.gateway.on_completion(completion.token, completion.event);
            }
            channel.gateway.world.settle_helper();
        }
        assert_eq!(channel.sentence(), "uakari-auth has ended");
        assert!(channel.gateway.take_helper_end() && !channel.gateway.take_helper_end());
        channel.ask(2, "unix");
        assert_eq!(channel.sentence(), "uakari-auth does not run: it is started again");
        channel.gateway.set_auth_rules(rules(2));
        channel.gateway.set_auth_rules(rules(3));
        channel.connect();
        let generations: Vec<u32> = channel
            .heard()
            .iter()
            .map(|message| match message {
                ToHelper::Rules { generation, .. } => *generation,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(generations, [2, 3], "those of connections before the last reload, and those after it");
        let mut newest = ask("");
        newest.question.generation = 3;
        channel.ask_with(3, "unix", newest);
        assert_eq!(channel.due(), []);
    }

    #[test]
    fn rules_with_problems_are_sent_again() {
        let mut channel = Channel::new();
        channel.gateway.set_auth_rules(rules(1));
        assert_eq!(channel.heard(), [], "they are known");
        let problems = vec![Problem { rule: 0, sentence: "it is missing".to_owned() }];
        channel.say(&[ToDaemon::Problems { generation: 1, problems }]);
        assert_eq!(channel.gateway.world.asking.problems, ["uakari.conf:3: auth: it is missing"]);
        assert_eq!(channel.heard(), []);
        channel.gateway.world.taken_ms += AUTH_RULES_RETRY_MS;
        channel.gateway.world.resend_auth_rules();
        assert_eq!(channel.heard().len(), 1);
        channel.gateway.set_auth_rules(rules(1));
        assert_eq!(channel.heard().len(), 1, "a reload tries it at once");
        // Equal rules that are at another line now.
        channel.say(&[ToDaemon::Ready { generation: 1, warnings: Vec::new() }]);
        channel.gateway.set_auth_rules(HelperRules { places: ["uakari.conf:9: auth".to_owned()].into(), ..rules(1) });
        assert_eq!(channel.heard(), [], "they are known");
        let problems = vec![Problem { rule: 0, sentence: "it is missing".to_owned() }];
        channel.say(&[ToDaemon::Problems { generation: 1, problems }]);
        assert_eq!(channel.gateway.world.asking.problems, ["uakari.conf:9: auth: it is missing"]);
        channel.say(&[ToDaemon::Ready { generation: 1, warnings: Vec::new() }]);
        assert_eq!(channel.gateway.world.asking.resend_ms(), None);
    }

    #[test]
    fn a_silent_helper_is_ended() {
        let mut channel = Channel::new();
        let late = |channel: &mut Channel| {
            channel.ask(1, "unix");
            channel.gateway.world.now_ms += AUTH_MS;
            channel.gateway.world.cancel_question(owner(1));
        };
        // Clients that leave early prove nothing.
        for _ in 0..20 {
            channel.ask(1, "unix");
            channel.gateway.world.now_ms += AUTH_MS - 1;
            channel.gateway.world.cancel_question(owner(1));
        }
        assert!(!channel.gateway.world.asking.is_leaving);
        (0..AUTH_LATE_MAX - 1).for_each(|_| late(&mut channel));
        assert!(!channel.gateway.world.asking.is_leaving);
        channel.say(&[ToDaemon::Ready { generation: 1, warnings: Vec::new() }]);
        (0..AUTH_LATE_MAX).for_each(|_| late(&mut channel));
        assert!(!channel.gateway.world.asking.is_leaving, "it was silent for a short time");
        (0..AUTH_SILENCE_MS.div_ceil(AUTH_MS)).for_each(|_| late(&mut channel));
        assert!(channel.gateway.world.asking.is_leaving);
    }

    #[test]
    fn bytes_that_are_no_message() {
        for bytes in [&[0, 0, 0, 0][..], &[0, 0, 0, 1, 0x01], &[0xff; 4], b"HTTP/1.1 200 OK\r\n\r\n"] {
            let mut channel = Channel::new();
            channel.ask(1, "unix");
            channel.receive(bytes);
            let sentence = channel.sentence();
            assert!(sentence.starts_with("uakari-auth sent what is no message: "), "{sentence}");
        }
    }
}
