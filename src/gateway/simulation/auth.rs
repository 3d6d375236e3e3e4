//! Requests that need a credential, and a uakari-auth that is slow, stuck, or dead, that lies or sends garbage. Nobody is let
//! in without its permission, no request waits beyond its deadline, and nothing is counted or left at the end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use auth_wire::{Answer, Credential, Decoder, Problem, Question, Rule, ToDaemon, ToHelper, Verdict, encode};

use super::world::{endpoint, listening};
use super::*;
use crate::access::{Access, AccessRule, Auth, AuthKind};
use crate::driver::SocketType;
use crate::driver::sim::{Node, Rng};
use crate::gateway::HelperRules;
use crate::gateway::listener::ListenerSetup;
use crate::route::{Protocol, Service, Site};
use crate::transport::StageKind;
use crate::types::Address;

/// Clients of a run.
const CLIENTS_MAX: usize = 30;
/// From a request to its response, or to the end of its connection, in ms: the deadline of the question, the time of a
/// recheck, and the steps of the simulated kernel.
const ANSWER_MS_MAX: u64 = 4 * limits::AUTH_MS;
/// From one reload to the next, on average.
const RELOAD_TURNS: usize = 400;
/// Turns without a helper after one has ended.
const PAUSE_TURNS_MAX: usize = 300;
/// What the helper says about a token, which begins with one of these. The status of the response.
const FATES: [(&str, u16); 5] = [("good", 200), ("bad", 401), ("other", 403), ("often", 429), ("unclear", 503)];
/// The path of the server that decides.
const SERVER: &str = "/decide";
/// The reasons in close frames after a revocation, and after reloads.
const REVOKED: &str = "access revoked";
const OUTDATED: &str = "the configuration has changed: connect again";

/// How the helper behaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Manner {
    Honest,
    /// Many answers come after the deadline.
    Slow,
    /// It reads nothing.
    Stuck,
    /// It ends after some questions.
    Dies,
    /// It answers what was not asked, or was answered before.
    Lies,
    /// It sends bytes that are no message.
    Garbles,
    /// Its answers have characters that end a line.
    Injects,
    /// It cannot use the rules.
    Complains,
}

const MANNERS: [Manner; 8] = [
    Manner::Honest,
    Manner::Slow,
    Manner::Stuck,
    Manner::Dies,
    Manner::Lies,
    Manner::Garbles,
    Manner::Injects,
    Manner::Complains,
];

/// The helper's end of the channel.
struct Helper {
    wire: usize,
    manner: Manner,
    decoder: Decoder,
    /// Questions and the time of their answers.
    asked: VecDeque<(Question, u64)>,
    answered: Vec<u64>,
    owed: Vec<u8>,
    patience: usize,
    is_over: bool,
}

/// What all helpers of a run have said.
#[derive(Default)]
struct Said {
    /// The tokens that were let in.
    allowed: HashSet<String>,
    revoked: HashSet<String>,
    /// Configurations of the run so far, which are also the number of the newest.
    generations: u32,
}

fn token_of(question: &Question) -> String {
    match &question.credential {
        Credential::Token(token) => token.reveal().to_owned(),
        Credential::None => String::new(),
        other => panic!("the credential of the request is a token: {other:?}"),
    }
}

impl Helper {
    fn new(manner: Manner, wire: usize, rng: &mut Rng) -> Helper {
        let (asked, patience) = (VecDeque::new(), rng.below(20));
        let (answered, owed) = (Vec::new(), Vec::new());
        Helper { wire, manner, decoder: Decoder::default(), asked, answered, owed, patience, is_over: false }
    }

    fn act(&mut self, sim: &mut Sim, said: &mut Said) {
        if self.is_over || self.manner == Manner::Stuck {
            return;
        }
        while let Some(chunk) = sim.wires[self.wire].read() {
            self.decoder.push(&chunk);
            while let Some(message) = self.decoder.next().expect("the gateway sends messages") {
                self.take(message, sim);
            }
        }
        if self.is_over {
            return;
        }
        while let Some(at) = self.asked.iter().position(|(_, at_ms)| *at_ms <= sim.now_ms) {
            if let Some((question, _)) = self.asked.remove(at) {
                self.answer(&question, said, sim);
            }
        }
        if self.manner == Manner::Lies && !self.answered.is_empty() && sim.rng.one_in(20) {
            // An answer that was given before, or to a question that was never asked.
            let old = self.answered[sim.rng.below(self.answered.len())];
            let id = if sim.rng.one_in(4) { old + 1_000_000 } else { old };
            self.say(&ToDaemon::Answer(Answer { id, verdict: allow("liar") }));
        }
        if let Some(token) = said.allowed.iter().min().filter(|_| sim.rng.one_in(100)) {
            said.revoked.insert(token.clone());
            self.say(&ToDaemon::Revoked { server: SERVER.into(), user: token.clone() });
        }
        if let Some(size) = sim.wires[self.wire].write(&self.owed) {
            self.owed.drain(..size);
        }
    }

    fn take(&mut self, message: ToHelper, sim: &mut Sim) {
        match message {
            ToHelper::Rules { generation, .. } if self.manner == Manner::Complains => {
                let problems = vec![Problem { rule: 0, sentence: "a file is missing".to_owned() }];
                self.say(&ToDaemon::Problems { generation, problems });
            }
            ToHelper::Rules { generation, .. } => {
                self.say(&ToDaemon::Ready { generation, warnings: Vec::new() });
            }
            ToHelper::Ask(question) => {
                let most_ms = if self.manner == Manner::Slow { 2 * limits::AUTH_MS } else { 1_000 };
                let at_ms = sim.now_ms + sim.rng.below(most_ms as usize) as u64;
                assert!(self.asked.len() < limits::AUTH_QUESTIONS_MAX, "too many questions at once");
                self.asked.push_back((*question, at_ms));
                self.patience = self.patience.saturating_sub(1);
                match self.manner {
                    Manner::Dies if self.patience == 0 => {
                        if sim.rng.one_in(2) {
                            sim.wires[self.wire].reset()
                        } else {
                            sim.wires[self.wire].leave()
                        }
                        self.is_over = true;
                    }
                    Manner::Garbles if self.patience == 0 => {
                        let bytes: Vec<u8> = (0..1 + sim.rng.below(100)).map(|_| sim.rng.draw() as u8).collect();
                        self.owed.extend(bytes);
                    }
                    _ => {}
                }
            }
            ToHelper::Cancel { id } => self.asked.retain(|(question, _)| question.id != id),
        }
    }

    fn answer(&mut self, question: &Question, said: &mut Said, sim: &mut Sim) {
        let token = token_of(question);
        let unavailable = |sentence: &str| Verdict::Unavailable { sentence: sentence.to_owned() };
        let verdict = match token.split('-').next() {
            _ if self.manner == Manner::Complains => unavailable("the rule is not known"),
            Some("good") if self.manner == Manner::Injects => allow(&format!("{token}\r\nx: y")),
            Some("good") => {
                said.allowed.insert(token.clone());
                allow(&token)
            }
            Some("bad" | "") => Verdict::Deny,
            Some("other") => Verdict::Forbidden,
            Some("often") => Verdict::Limited { wait_ms: sim.rng.below(10_000) as u64 },
            _ => unavailable("it is not clear"),
        };
        self.answered.push(question.id);
        self.say(&ToDaemon::Answer(Answer { id: question.id, verdict }));
    }

    fn say(&mut self, message: &ToDaemon) {
        encode(message, &mut self.owed).expect("a short message");
    }
}

fn allow(user: &str) -> Verdict {
    Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms: None, headers: Vec::new() }
}

/// A client with some requests, one after the other or at once.
struct Visitor {
    wire: usize,
    /// The tokens of its requests. Empty: the request has none.
    tokens: Vec<String>,
    requests: Vec<u8>,
    written: usize,
    received: Vec<u8>,
    statuses: Vec<u16>,
    /// After the 101: the bytes of frames.
    frames: Vec<u8>,
    /// When it leaves whatever has come, in ms.
    leaves_ms: Option<u64>,
    began_ms: Option<u64>,
    has_closed: bool,
    is_over: bool,
}

impl Visitor {
    fn new(index: usize, sim: &mut Sim) -> Visitor {
        let count = 1 + sim.rng.below(3);
        let is_websocket = sim.rng.one_in(4);
        let (mut tokens, mut requests) = (Vec::new(), Vec::new());
        for number in 0..count {
            let token = match sim.rng.one_in(8) {
                true => String::new(),
                // Some clients show the same token twice, which may be remembered.
                false => format!("{}-{index}-{}", FATES[sim.rng.below(FATES.len())].0, number / 2),
            };
            let is_last = number + 1 == count;
            let path = if is_last && is_websocket { "echo" } else { "small.html" };
            let mut request = format!("GET /{path} HTTP/1.1\r\nHost: h\r\n");
            if !token.is_empty() {
                request += &format!("Authorization: Bearer {token}\r\n");
            }
            request += match (is_last, is_websocket) {
                (true, true) => {
                    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                }
                (true, false) => "Connection: close\r\n",
                (false, _) => "",
            };
            requests.extend(format!("{request}\r\n").into_bytes());
            tokens.push(token);
        }
        let last = 1 + sim.rng.below(3) as u8;
        let address = Address::Tcp(([192, 0, 2, last], 1_000 + index as u16).into());
        let wire = sim.client(0, 1 << 16, address);
        let leaves_ms = sim.rng.one_in(6).then(|| sim.rng.below(3_000) as u64);
        Visitor {
            wire,
            tokens,
            requests,
            written: 0,
            received: Vec::new(),
            statuses: Vec::new(),
            frames: Vec::new(),
            leaves_ms,
            began_ms: None,
            has_closed: false,
            is_over: false,
        }
    }

    fn has_upgraded(&self) -> bool {
        self.statuses.last() == Some(&101)
    }

    /// `is_end`: WebSockets are closed.
    fn act(&mut self, sim: &mut Sim, said: &Said, is_end: bool) {
        if self.is_over {
            return;
        }
        let now_ms = sim.now_ms;
        let began_ms = *self.began_ms.get_or_insert(now_ms);
        if self.leaves_ms.is_some_and(|after_ms| now_ms >= began_ms + after_ms) {
            sim.wires[self.wire].reset();
            self.is_over = true;
            return;
        }
        if self.written < self.requests.len() {
            let end = self.requests.len().min(self.written + 1 + sim.rng.below(400));
            if let Some(size) = sim.wires[self.wire].write(&self.requests[self.written..end]) {
                self.written += size;
            }
        }
        while let Some(chunk) = sim.wires[self.wire].read() {
            self.received.extend(chunk);
            self.read_responses(said);
        }
        if self.has_upgraded() {
            self.frames.append(&mut self.received);
            if is_end && !std::mem::replace(&mut self.has_closed, true) {
                sim.wires[self.wire].write(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
            }
        } else {
            let answered = self.statuses.len() as u64;
            assert!(
                now_ms <= began_ms + ANSWER_MS_MAX * (1 + answered) || self.written < self.requests.len(),
                "{:?} waits since {began_ms}: {:?}",
                self.tokens,
                self.statuses
            );
        }
        if sim.wires[self.wire].is_at_end() {
            sim.wires[self.wire].finish();
            self.is_over = true;
        }
    }

    fn read_responses(&mut self, said: &Said) {
        while !self.has_upgraded()
            && let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8(self.received[..end].to_vec()).expect("a head is text");
            let status: u16 = head[9..12].parse().expect("a status");
            let size = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let size: usize = if status == 101 { 0 } else { size.map_or(0, |size| size.parse().expect("a size")) };
            if self.received.len() < end + 4 + size {
                return;
            }
            self.received.drain(..end + 4 + size);
            let token = &self.tokens[self.statuses.len()];
            let fate = FATES.iter().find(|(fate, _)| token.starts_with(fate)).map_or(401, |(_, status)| *status);
            match status {
                200 | 101 => assert!(said.allowed.contains(token), "{token} was let in: {head}"),
                // It could not be decided, or too many questions of the address wait.
                503 | 429 => {}
                status => assert_eq!(status, fate, "{token}: {head}"),
            }
            self.statuses.push(status);
        }
    }

    /// Whether its WebSocket was closed for this reason.
    fn was_closed(&self, reason: &str) -> bool {
        self.frames.windows(reason.len()).any(|window| window == reason.as_bytes())
    }

    fn check_end(&self, said: &Said) {
        let token = self.tokens.last().expect("a request");
        let was_revoked = self.was_closed(REVOKED);
        assert!(!was_revoked || said.revoked.contains(token), "{token} was not revoked: {:?}", self.frames);
        assert!(!self.was_closed(OUTDATED) || said.generations > 1, "no reload");
    }
}

/// What happened in a run.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    turns: usize,
    end_ms: u64,
    random: u64,
    statuses: Vec<u16>,
    /// WebSockets that were closed for the reasons REVOKED and OUTDATED.
    closed: [usize; 2],
}

fn run(seed: u64) -> (Manner, Outcome) {
    let seed = Seed(seed);
    let mut sim = Sim::new(seed.0, [8, limits::POOL_BUFFERS.default as usize][seed.0 as usize % 2]);
    let first_manner = MANNERS[sim.rng.below(MANNERS.len())];
    sim.trees[0].insert("echo".into(), Node::Backend(SocketType::Stream));
    pages::add_files(&mut sim);
    let service = Arc::new(Service { protocol: Protocol::Stream, ..Service::default() });
    let (cache_ms, recheck_ms) = ([0, 60_000][sim.rng.below(2)], [0, 500][sim.rng.below(2)]);
    let kind = match sim.rng.below(2) {
        0 => AuthKind::Bearer,
        _ => AuthKind::Unix { server: Path::new(SERVER).into(), headers: Vec::new() },
    };
    let auth = Auth { cache_ms, recheck_ms, ..Auth::new(0, "r", kind) };
    let rule = AccessRule { auth: vec![auth], ..AccessRule::default() };
    let access = Access::new(None, vec![rule]);
    let site = Site { has_www: true, has_docroot: true, service, access, ..Site::default() };
    let endpoint_of = |generation: u32, sim: &mut Sim| {
        let mut endpoint = endpoint(site.clone(), StageKind::Plain, sim);
        Arc::get_mut(&mut endpoint).expect("it is new").sites.generation = generation;
        endpoint
    };
    let endpoint = endpoint_of(1, &mut sim);
    let (address, socket) = listening(&mut sim, 0);
    let count = 1 + sim.rng.below(CLIENTS_MAX);
    let mut visitors: Vec<Visitor> = (0..count).map(|index| Visitor::new(index, &mut sim)).collect();
    let process = limits::Process::default();
    let mut gateway = Gateway::new(sim, process.clone());
    let rules_of =
        |generation| HelperRules { generation, rules: [Rule::default()].into(), places: ["auth".to_owned()].into() };
    gateway.set_auth_rules(rules_of(1));
    let setup = ListenerSetup { address: address.clone(), socket, file: None, endpoint };
    gateway.configure(process.clone(), vec![setup]);
    let (mut helper, mut next_at) = (None::<Helper>, Some(0));
    let (mut backends, mut said, mut completions) =
        (Vec::<Backend>::new(), Said { generations: 1, ..Said::default() }, Vec::new());
    let (mut turns, mut was_stopped) = (0, false);
    while !gateway.is_over() {
        if gateway.take_helper_end() {
            helper = None;
            next_at = Some(turns + gateway.driver_mut().rng.below(PAUSE_TURNS_MAX));
        }
        if next_at.is_some_and(|at| at <= turns) {
            let sim = gateway.driver_mut();
            let manner = match next_at {
                Some(0) => first_manner,
                _ => MANNERS[sim.rng.below(MANNERS.len())],
            };
            let capacity = 1 + sim.rng.below(100_000);
            let (handle, wire) = sim.socket_pair(capacity);
            helper = Some(Helper::new(manner, wire, &mut sim.rng));
            next_at = None;
            gateway.connect_helper(handle);
        }
        if !was_stopped && gateway.driver_mut().rng.one_in(RELOAD_TURNS) {
            said.generations += 1;
            let endpoint = endpoint_of(said.generations, gateway.driver_mut());
            gateway.set_auth_rules(rules_of(said.generations));
            let setup = ListenerSetup { address: address.clone(), socket: None, file: None, endpoint };
            gateway.configure(process.clone(), vec![setup]);
        }
        let sim = gateway.driver_mut();
        if let Some(helper) = &mut helper {
            helper.act(sim, &mut said);
        }
        let is_end = visitors.iter().all(|visitor| visitor.is_over || visitor.has_upgraded());
        visitors.iter_mut().for_each(|visitor| visitor.act(sim, &said, is_end));
        backends.iter_mut().for_each(|backend| backend.act(sim));
        for (name, wire) in std::mem::take(&mut sim.connected) {
            backends.push(Backend::new(sim, name, wire, false));
        }
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        turns += 1;
        assert!(turns < TURNS_MAX, "the run does not end");
        if visitors.iter().all(|visitor| visitor.is_over) && !std::mem::replace(&mut was_stopped, true) {
            gateway.stop();
        }
    }
    assert!(gateway.has_empty_counts(), "something is counted that is not there");
    visitors.iter().for_each(|visitor| visitor.check_end(&said));
    gateway.disconnect_helper();
    let mut looks = 0;
    while !gateway.driver_mut().leaks().is_empty() && looks < LOOK_TURNS_MAX {
        gateway.turn(None, &mut completions).expect("the simulated kernel does not fail");
        looks += 1;
    }
    log::take_access_lines();
    let sim = gateway.driver_mut();
    assert_eq!(sim.leaks(), "", "leaks");
    let statuses = visitors.iter().flat_map(|visitor| visitor.statuses.clone()).collect();
    let closed = [REVOKED, OUTDATED].map(|reason| visitors.iter().filter(|visitor| visitor.was_closed(reason)).count());
    (first_manner, Outcome { turns, end_ms: sim.now_ms, random: sim.rng.draw(), statuses, closed })
}

#[test]
fn nobody_comes_in_without_permission() {
    log::set_level(if number("UAKARI_SEED").is_some() { Level::Debug } else { Level::Error });
    if let Some(seed) = number("UAKARI_SEED") {
        run(seed);
        return;
    }
    let seeds = number("UAKARI_SEEDS").unwrap_or(SEEDS);
    let (mut statuses, mut closed) = (HashMap::<(Manner, u16), usize>::new(), [0; 2]);
    for seed in 0..seeds {
        let (manner, outcome) = run(seed);
        outcome.statuses.iter().for_each(|status| *statuses.entry((manner, *status)).or_default() += 1);
        closed.iter_mut().zip(outcome.closed).for_each(|(sum, count)| *sum += count);
    }
    if seeds < SEEDS {
        return;
    }
    for (manner, expected) in [
        (Manner::Honest, &[101, 200, 401, 403, 429, 503][..]),
        (Manner::Slow, &[200, 401, 503]),
        (Manner::Stuck, &[401, 503]),
        (Manner::Dies, &[200, 503]),
        (Manner::Lies, &[200, 503]),
        (Manner::Garbles, &[200, 503]),
        (Manner::Injects, &[401, 503]),
        (Manner::Complains, &[503]),
    ] {
        for status in expected {
            assert!(statuses.contains_key(&(manner, *status)), "{manner:?}: no {status} in {statuses:?}");
        }
    }
    assert!(
        closed.iter().all(|count| *count > 0),
        "{closed:?} WebSockets were closed for {REVOKED:?} and {OUTDATED:?}"
    );
}

#[test]
fn a_seed_with_credentials_gives_the_same_run() {
    log::set_level(Level::Error);
    for seed in 0..8 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
