//! What the main thread knows: rules, questions, attempts, and answers that wait. It has no clock and no socket: the time
//! is an argument, in milliseconds that never go back; messages go in and come out.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth_wire::{Answer, Credential, Problem, Question, Rule, ToDaemon, ToHelper, Verdict};

use crate::attempts::{Attempt, Attempts, Shown, Unit};
use crate::limits::{DUE_MAX, FAILURE_MS, GENERATIONS_MAX, JOINED_MAX, QUEUE_MAX, SENTENCE_SIZE_MAX, SENTENCES_MAX};
use crate::rules::{Judgement, LoadedRule, Watched, server_of};
use crate::server::{Report, Server};

/// Starts the thread that talks to a server, for a rule of a generation.
pub type StartServer = Box<dyn Fn(&Path, u32, u32) -> io::Result<Server>>;

/// A credential for a thread to verify.
#[derive(Debug)]
pub struct Task {
    job: u64,
    rule: Arc<LoadedRule>,
    question: Arc<Question>,
}

impl Task {
    /// Verifies it, at a Unix time in seconds. The number and the judgement are for `Dispatcher::judged`.
    pub fn judge(&self, now_s: u64) -> (u64, Judgement) {
        (self.job, self.rule.judge(&self.question, now_s))
    }
}

/// A credential that is verified, and the questions that it answers.
#[derive(Debug)]
struct Job {
    /// The first question.
    question: Arc<Question>,
    rule: Arc<LoadedRule>,
    unit: Unit,
    attempt: Attempt,
    /// The ids of the questions without those that were cancelled, and when they came.
    asked: Vec<(u64, u64)>,
    /// Whether no thread has it yet.
    is_queued: bool,
}

/// A question that a server is to answer.
#[derive(Debug)]
struct Asked {
    id: u64,
    generation: u32,
    rule: u32,
    attempt: Attempt,
    /// Whether the server sees the credential: there is one, and it is no response to the daemon's challenge.
    is_judged: bool,
    /// The user whom the credential names.
    user: Option<String>,
    asked_ms: u64,
}

/// The rules of a configuration.
struct Generation {
    number: u32,
    rules: Vec<(Watched, Option<Server>)>,
}

/// See the module.
pub struct Dispatcher {
    start_server: StartServer,
    /// The newest last.
    generations: VecDeque<Generation>,
    attempts: Attempts,
    jobs: HashMap<u64, Job>,
    /// The last number of a job or of a question to a server.
    jobs_begun: u64,
    /// The jobs that take no time: most tokens and Digest.
    cheap: VecDeque<u64>,
    /// The jobs with passwords, and those that wait for a disk.
    dear: VecDeque<u64>,
    /// By numbers of their own, which the server's thread has in place of the ids.
    asked: HashMap<u64, Asked>,
    /// Failures: the time of each in order, its question's id, and the answer.
    due: VecDeque<(u64, u64, Verdict)>,
    out: VecDeque<ToDaemon>,
}

impl Dispatcher {
    /// Without rules.
    pub fn new(start_server: StartServer) -> Dispatcher {
        Dispatcher {
            start_server,
            generations: VecDeque::new(),
            attempts: Attempts::default(),
            jobs: HashMap::new(),
            jobs_begun: 0,
            cheap: VecDeque::new(),
            dear: VecDeque::new(),
            asked: HashMap::new(),
            due: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// A message of the daemon.
    pub fn handle(&mut self, message: ToHelper, now_ms: u64) {
        match message {
            ToHelper::Rules { generation, rules, is_trial } => self.load(generation, rules, is_trial, now_ms),
            ToHelper::Ask(question) => self.ask(*question, now_ms),
            ToHelper::Cancel { id } => self.cancel(id),
        }
    }

    /// The next task for a thread that has none.
    pub fn next_task(&mut self) -> Option<Task> {
        let number = self.cheap.pop_front().or_else(|| self.dear.pop_front())?;
        let job = self.jobs.get_mut(&number)?;
        job.is_queued = false;
        Some(Task { job: number, rule: Arc::clone(&job.rule), question: Arc::clone(&job.question) })
    }

    /// The result of a task.
    pub fn judged(&mut self, number: u64, judgement: Judgement, now_ms: u64) {
        let Some(job) = self.jobs.remove(&number) else { return };
        let is_counted = judgement != Judgement::Expired;
        let verdict = judgement.verdict();
        match &verdict {
            // Only what is right is forbidden.
            Verdict::Forbidden => self.attempts.succeed(job.attempt, now_ms),
            verdict if is_counted => self.count(job.attempt, verdict, user_of(&job.question.credential), now_ms),
            _ => self.attempts.forget(job.attempt),
        }
        let wait_ms = job.rule.failure_ms();
        for (id, asked_ms) in job.asked {
            self.answer_in_time(id, verdict.clone(), asked_ms.saturating_add(wait_ms), now_ms);
        }
    }

    /// What the server of a rule says.
    pub fn reported(&mut self, generation: u32, rule: u32, report: Report, now_ms: u64) {
        match report {
            Report::Answer { id: number, verdict } => {
                let is_asked = |asked: &Asked| (asked.generation, asked.rule) == (generation, rule);
                if !self.asked.get(&number).is_some_and(is_asked) {
                    return;
                }
                let Some(asked) = self.asked.remove(&number) else { return };
                let id = asked.id;
                if !asked.is_judged {
                    self.attempts.forget(asked.attempt);
                    return self.answer(id, verdict);
                }
                match verdict {
                    // It may refuse a wrong password so. Neither a success nor a failure is proved.
                    Verdict::Forbidden => self.attempts.forget(asked.attempt),
                    _ => self.count(asked.attempt, &verdict, asked.user.as_deref(), now_ms),
                }
                self.answer_in_time(id, verdict, asked.asked_ms.saturating_add(FAILURE_MS), now_ms);
            }
            // Of a generation that is gone, too: what was allowed by it may last.
            Report::Revoked { server, user } => {
                for known in &self.generations {
                    let others =
                        (0..).zip(&known.rules).filter(|(other, _)| (known.number, *other) != (generation, rule));
                    let others = others.filter_map(|(_, (_, other))| other.as_ref());
                    others.for_each(|other| other.revoke(&server));
                }
                self.out.push_back(ToDaemon::Revoked { server: server.to_path_buf(), user });
            }
        }
    }

    /// Answers the failures whose time has come. Returns the time of the next one.
    pub fn expire(&mut self, now_ms: u64) -> Option<u64> {
        while let Some((due_ms, id, verdict)) = self.due.pop_front() {
            if due_ms > now_ms {
                self.due.push_front((due_ms, id, verdict));
                return Some(due_ms);
            }
            self.answer(id, verdict);
        }
        None
    }

    /// The next message for the daemon.
    pub fn next_message(&mut self) -> Option<ToDaemon> {
        self.out.pop_front()
    }

    fn load(&mut self, number: u32, rules: Vec<Rule>, is_trial: bool, now_ms: u64) {
        let (mut loaded, mut warnings, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        let sentence = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        for (rule, settings) in (0..).zip(rules) {
            let path = server_of(&settings).map(Path::to_owned);
            let checked =
                path.iter().try_for_each(|path| Server::check(path).map_err(|error| vec![sentence(path, error)]));
            let watched = Watched::load(settings, now_ms);
            match checked.and(watched) {
                Ok(watched) => {
                    warnings.extend(watched.warnings());
                    loaded.push((watched, path));
                }
                Err(sentences) => problems.extend(sentences.into_iter().map(|sentence| (rule, sentence))),
            }
        }
        if !problems.is_empty() {
            return self.refuse(number, problems);
        }
        if is_trial {
            return self.warn(number, warnings);
        }
        // Only now, so that no server sees connections for rules that are refused.
        let started = (0..).zip(loaded).map(|(rule, (watched, path))| {
            let start =
                |path: PathBuf| (self.start_server)(&path, number, rule).map_err(|error| sentence(&path, error));
            let server = path.map(start).transpose().map_err(|sentence| (rule, sentence))?;
            Ok((watched, server))
        });
        let rules = match started.collect() {
            Ok(rules) => rules,
            Err(problem) => return self.refuse(number, vec![problem]),
        };
        // A daemon that was told of problems may send the number again.
        let mut gone = vec![number];
        self.generations.retain(|known| known.number != number);
        self.generations.push_back(Generation { number, rules });
        while self.generations.len() > GENERATIONS_MAX {
            gone.extend(self.generations.pop_front().map(|generation| generation.number));
        }
        self.abandon(&gone);
        self.warn(number, warnings);
    }

    /// Sends why the rules cannot be used.
    fn refuse(&mut self, generation: u32, problems: Vec<(u32, String)>) {
        let left_out = problems.len().saturating_sub(SENTENCES_MAX);
        let mut problems: Vec<Problem> = problems
            .into_iter()
            .take(SENTENCES_MAX)
            .map(|(rule, sentence)| Problem { rule, sentence: cut(sentence) })
            .collect();
        if let (true, Some(rule)) = (left_out > 0, problems.last().map(|problem| problem.rule)) {
            problems.push(Problem { rule, sentence: format!("and {left_out} more problems") });
        }
        self.out.push_back(ToDaemon::Problems { generation, problems });
    }

    /// Questions that the servers of these generations cannot answer any more.
    fn abandon(&mut self, gone: &[u32]) {
        let abandoned: Vec<Asked> =
            self.asked.extract_if(|_, asked| gone.contains(&asked.generation)).map(|(_, asked)| asked).collect();
        for asked in abandoned {
            self.attempts.forget(asked.attempt);
            self.answer(asked.id, Verdict::Unavailable { sentence: "the rules have changed".to_owned() });
        }
    }

    /// Sends sentences for the log; of an empty list, that the rules are ready.
    fn warn(&mut self, generation: u32, mut sentences: Vec<String>) {
        let left_out = sentences.len().saturating_sub(SENTENCES_MAX);
        sentences.truncate(SENTENCES_MAX);
        let mut warnings: Vec<String> = sentences.into_iter().map(cut).collect();
        if left_out > 0 {
            warnings.push(format!("and {left_out} more warnings"));
        }
        self.out.push_back(ToDaemon::Ready { generation, warnings });
    }

    fn ask(&mut self, question: Question, now_ms: u64) {
        let (id, mut news) = (question.id, Vec::new());
        let generation = self.generations.iter_mut().find(|known| known.number == question.generation);
        let rule = usize::try_from(question.rule).ok();
        let Some((watched, server)) = generation.zip(rule).and_then(|(known, rule)| known.rules.get_mut(rule)) else {
            let sentence = format!("the rule {} of generation {} is not known", question.rule, question.generation);
            return self.answer(id, Verdict::Unavailable { sentence });
        };
        let (rule, has_server) = (Arc::clone(watched.current(now_ms, &mut news)), server.is_some());
        let shown = self.attempts.shown(watched.sources_hash(), &question.credential);
        if !news.is_empty() {
            self.warn(question.generation, news);
        }
        if has_server {
            self.ask_server(question, shown, now_ms);
        } else if question.credential == Credential::None {
            self.answer(id, Verdict::Deny);
        } else {
            self.begin(question, shown, rule, now_ms);
        }
    }

    fn ask_server(&mut self, question: Question, shown: Option<Shown>, now_ms: u64) {
        let is_judged = matches!(question.credential, Credential::Password { .. } | Credential::Token(_));
        let shown = shown.filter(|_| is_judged);
        let attempt = match self.attempts.begin(Unit::of(&question.address), shown, now_ms) {
            Ok(attempt) => attempt,
            Err(wait_ms) => return self.answer(question.id, Verdict::Limited { wait_ms }),
        };
        let user = user_of(&question.credential).map(str::to_owned);
        let (id, generation, rule) = (question.id, question.generation, question.rule);
        self.jobs_begun += 1;
        let number = self.jobs_begun;
        self.asked.insert(number, Asked { id, generation, rule, attempt, is_judged, user, asked_ms: now_ms });
        if let Some(server) = self.server(generation, rule) {
            server.ask(Question { id: number, ..question });
        }
    }

    /// Queues a job for a credential, unless one that is verified has the same result.
    fn begin(&mut self, question: Question, shown: Option<Shown>, rule: Arc<LoadedRule>, now_ms: u64) {
        let (id, unit) = (question.id, Unit::of(&question.address));
        if let Some(job) = self.jobs.values_mut().find(|job| job.answers(&question, unit, &rule)) {
            if job.asked.len() >= JOINED_MAX {
                let sentence = "too many equal passwords wait to be verified".to_owned();
                return self.answer(id, Verdict::Unavailable { sentence });
            }
            job.asked.push((id, now_ms));
            return;
        }
        let queue = if rule.is_dear(&question.credential) { &mut self.dear } else { &mut self.cheap };
        if queue.len() >= QUEUE_MAX {
            let sentence = "too many passwords wait to be verified".to_owned();
            return self.answer(id, Verdict::Unavailable { sentence });
        }
        match self.attempts.begin(unit, shown, now_ms) {
            Ok(attempt) => {
                self.jobs_begun += 1;
                queue.push_back(self.jobs_begun);
                let (question, asked) = (Arc::new(question), vec![(id, now_ms)]);
                self.jobs.insert(self.jobs_begun, Job { question, rule, unit, attempt, asked, is_queued: true });
            }
            Err(wait_ms) => self.answer(id, Verdict::Limited { wait_ms }),
        }
    }

    fn server(&self, generation: u32, rule: u32) -> Option<&Server> {
        let generation = self.generations.iter().find(|known| known.number == generation)?;
        generation.rules.get(usize::try_from(rule).ok()?)?.1.as_ref()
    }

    fn cancel(&mut self, id: u64) {
        self.due.retain(|(_, other, _)| *other != id);
        let number = self.asked.iter().find(|(_, asked)| asked.id == id).map(|(number, _)| *number);
        if let Some((number, asked)) = number.and_then(|number| self.asked.remove_entry(&number)) {
            self.attempts.forget(asked.attempt);
            if let Some(server) = self.server(asked.generation, asked.rule) {
                server.cancel(number);
            }
            return;
        }
        let is_asked = |job: &Job| job.asked.iter().any(|(other, _)| *other == id);
        let Some((number, job)) = self.jobs.iter_mut().find(|(_, job)| is_asked(job)) else { return };
        let number = *number;
        job.asked.retain(|(other, _)| *other != id);
        // What a thread has begun is judged and counted: leaving early is no way to try more passwords.
        if job.is_queued && job.asked.is_empty() {
            self.attempts.forget(job.attempt);
            self.jobs.remove(&number);
            self.cheap.retain(|other| *other != number);
            self.dear.retain(|other| *other != number);
        }
    }

    /// Ends the attempt with a credential of this user. Only a verdict about the same user proves that it was right: a
    /// server may allow everybody.
    fn count(&mut self, attempt: Attempt, verdict: &Verdict, user: Option<&str>, now_ms: u64) {
        match verdict {
            Verdict::Allow { user: allowed, .. } if user == Some(allowed) => self.attempts.succeed(attempt, now_ms),
            Verdict::Deny | Verdict::Refused { .. } => self.attempts.fail(attempt, now_ms),
            _ => self.attempts.forget(attempt),
        }
    }

    /// A failure is not answered before its time, so that the answer does not tell how it was found out.
    fn answer_in_time(&mut self, id: u64, verdict: Verdict, due_ms: u64, now_ms: u64) {
        let is_failure = matches!(verdict, Verdict::Deny | Verdict::Refused { .. });
        if !is_failure || due_ms <= now_ms || self.due.len() >= DUE_MAX {
            return self.answer(id, verdict);
        }
        let at = self.due.partition_point(|(other_ms, ..)| *other_ms <= due_ms);
        self.due.insert(at, (due_ms, id, verdict));
    }

    fn answer(&mut self, id: u64, mut verdict: Verdict) {
        if let Verdict::Unavailable { sentence } | Verdict::Refused { reason: sentence } = &mut verdict {
            *sentence = cut(std::mem::take(sentence));
        }
        self.out.push_back(ToDaemon::Answer(Answer { id, verdict }));
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Dispatcher({} jobs)", self.jobs.len())
    }
}

impl Job {
    /// Whether its result is also the answer to another question.
    fn answers(&self, question: &Question, unit: Unit, rule: &Arc<LoadedRule>) -> bool {
        self.unit == unit
            && Arc::ptr_eq(&self.rule, rule)
            && self.question.credential == question.credential
            && (!may_differ(rule, question)
                || (self.question.method == question.method && self.question.path == question.path))
    }
}

/// The user whose attempts are counted; None: a token has no user before it is verified.
fn user_of(credential: &Credential) -> Option<&str> {
    match credential {
        Credential::None | Credential::Token(_) => None,
        Credential::Password { user, .. } => Some(user),
        Credential::Digest(digest) => Some(&digest.user),
    }
}

/// Whether the result for a credential depends on method and path.
fn may_differ(rule: &LoadedRule, question: &Question) -> bool {
    rule.has_filter() || matches!(question.credential, Credential::Digest(_))
}

/// A sentence of bounded size, as paths and names may be long.
fn cut(mut sentence: String) -> String {
    if sentence.len() > SENTENCE_SIZE_MAX {
        sentence.truncate(sentence.floor_char_boundary(SENTENCE_SIZE_MAX - 3));
        sentence.push_str("...");
    }
    sentence
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use auth_wire::{Secret, Source};

    use super::*;
    use crate::attempts::Unit;
    use crate::limits::{LOOK_MS, PAIR_FAILURES_MAX, UNIT_PENDING_MAX};
    use crate::rules::tests::{BCRYPT, PASSWORD, write};

    fn dispatcher() -> Dispatcher {
        Dispatcher::new(Box::new(|path, _, _| Server::start(path, |_| ())))
    }

    fn user(user: &str, passwd: &str) -> Source {
        Source::User { user: user.to_owned(), passwd: passwd.into(), groups: Vec::new() }
    }

    fn rule(source: Source) -> Rule {
        Rule { sources: vec![source], ..Rule::default() }
    }

    /// With one rule, that has the user ann.
    fn ready() -> Dispatcher {
        let mut dispatcher = dispatcher();
        dispatcher
            .handle(ToHelper::Rules { generation: 1, rules: vec![rule(user("ann", PASSWORD))], is_trial: false }, 0);
        let message = dispatcher.next_message().unwrap();
        assert!(
            matches!(message, ToDaemon::Ready { generation: 1, ref warnings } if warnings.len() == 1),
            "{message:?}"
        );
        dispatcher
    }

    fn question(id: u64, user: &str, password: &str, address: &str) -> Question {
        let credential = Credential::Password { user: user.to_owned(), password: password.into() };
        Question { id, generation: 1, credential, address: address.to_owned(), ..Question::default() }
    }

    fn ask(dispatcher: &mut Dispatcher, question: Question, now_ms: u64) {
        dispatcher.handle(ToHelper::Ask(Box::new(question)), now_ms);
    }

    /// Performs all tasks.
    fn work(dispatcher: &mut Dispatcher, now_ms: u64) -> usize {
        let mut count = 0;
        while let Some(task) = dispatcher.next_task() {
            let (number, judgement) = task.judge(0);
            dispatcher.judged(number, judgement, now_ms);
            count += 1;
        }
        count
    }

    /// All answers until now: a letter for each.
    fn answers(dispatcher: &mut Dispatcher) -> Vec<(u64, char)> {
        let letter = |verdict| match verdict {
            Verdict::Allow { .. } => 'a',
            Verdict::Deny => 'd',
            Verdict::Refused { .. } => 'r',
            Verdict::Forbidden => 'f',
            Verdict::Limited { .. } => 'l',
            Verdict::Unavailable { .. } => 'u',
        };
        let messages = std::iter::from_fn(|| dispatcher.next_message());
        messages
            .map(|message| match message {
                ToDaemon::Answer(answer) => (answer.id, letter(answer.verdict)),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn failures_wait_and_successes_do_not() {
        let mut dispatcher = ready();
        ask(&mut dispatcher, question(1, "ann", PASSWORD, ""), 1_000);
        ask(&mut dispatcher, question(2, "ann", "wrong", ""), 1_000);
        ask(&mut dispatcher, question(3, "eve", PASSWORD, ""), 1_100);
        ask(&mut dispatcher, Question { id: 4, generation: 1, ..Question::default() }, 1_100);
        assert_eq!(answers(&mut dispatcher), [(4, 'd')], "without a credential there is nothing to judge");
        assert_eq!(work(&mut dispatcher, 1_120), 3);
        assert_eq!(answers(&mut dispatcher), [(1, 'a')]);
        assert_eq!(dispatcher.expire(1_249), Some(1_000 + FAILURE_MS));
        assert_eq!(answers(&mut dispatcher), []);
        assert_eq!(dispatcher.expire(1_250), Some(1_350));
        assert_eq!(answers(&mut dispatcher), [(2, 'd')]);
        assert_eq!(dispatcher.expire(9_999), None);
        assert_eq!(answers(&mut dispatcher), [(3, 'd')]);
        // What took longer anyway is answered at once.
        ask(&mut dispatcher, question(5, "ann", "wrong", ""), 2_000);
        work(&mut dispatcher, 2_000 + FAILURE_MS);
        assert_eq!(answers(&mut dispatcher), [(5, 'd')]);
    }

    #[test]
    fn equal_questions_of_an_address_are_verified_once() {
        let mut dispatcher = ready();
        for id in 0..40 {
            ask(&mut dispatcher, question(id, "ann", PASSWORD, "192.0.2.1"), 0);
        }
        ask(&mut dispatcher, question(100, "ann", "wrong", "192.0.2.1"), 0);
        ask(&mut dispatcher, question(101, "ann", PASSWORD, "192.0.2.2"), 0);
        assert_eq!(work(&mut dispatcher, 0), 3);
        let mut answers = answers(&mut dispatcher);
        answers.sort_unstable();
        let expected: Vec<(u64, char)> = (0..40).chain([101]).map(|id| (id, 'a')).collect();
        assert_eq!(answers, expected, "they are no attempts of their own");
        assert_eq!(dispatcher.expire(u64::MAX), None);
    }

    #[test]
    fn a_user_has_attempts() {
        let mut dispatcher = ready();
        for id in 0..20 {
            ask(&mut dispatcher, question(id, "ann", &format!("wrong{id}"), ""), 0);
        }
        assert_eq!(work(&mut dispatcher, 0), PAIR_FAILURES_MAX as usize);
        assert_eq!(answers(&mut dispatcher).len(), 20 - PAIR_FAILURES_MAX as usize);
        ask(&mut dispatcher, question(50, "ann", PASSWORD, ""), 999);
        assert_eq!(answers(&mut dispatcher), [(50, 'l')], "a right password has to wait too");
        ask(&mut dispatcher, question(51, "ann", PASSWORD, ""), 1_000);
        work(&mut dispatcher, 1_000);
        assert_eq!(answers(&mut dispatcher), [(51, 'a')]);
        ask(&mut dispatcher, question(52, "ann", "wrong", ""), 1_000);
        assert_eq!(answers(&mut dispatcher), [], "the count begins again");
    }

    #[test]
    fn the_queue_is_bounded_and_tokens_have_their_own() {
        let mut dispatcher = ready();
        let address = |id: u64| format!("198.51.100.{id}");
        for id in 0..QUEUE_MAX as u64 {
            ask(&mut dispatcher, question(id, "ann", PASSWORD, &address(id)), 0);
        }
        assert_eq!(answers(&mut dispatcher), []);
        ask(&mut dispatcher, question(200, "ann", PASSWORD, &address(200)), 0);
        assert_eq!(answers(&mut dispatcher), [(200, 'u')]);
        let token =
            Question { credential: Credential::Token(Secret::from("x")), ..question(201, "", "", &address(201)) };
        ask(&mut dispatcher, token, 0);
        let task = dispatcher.next_task().unwrap();
        assert_eq!(task.question.id, 201, "tokens precede passwords");
        let (number, judgement) = task.judge(0);
        dispatcher.judged(number, judgement, 0);
        assert_eq!(work(&mut dispatcher, 0), QUEUE_MAX);
        assert_eq!(answers(&mut dispatcher).len(), QUEUE_MAX);
        // One address cannot fill it.
        for id in 0..100 {
            ask(&mut dispatcher, question(id, &format!("user{id}"), PASSWORD, "192.0.2.1"), 0);
        }
        assert_eq!(answers(&mut dispatcher).len(), 100 - UNIT_PENDING_MAX as usize);
        ask(&mut dispatcher, question(300, "ann", PASSWORD, "192.0.2.2"), 0);
        work(&mut dispatcher, 0);
        assert_eq!(answers(&mut dispatcher), [(300, 'a')]);
    }

    #[test]
    fn cancelled_questions_get_no_answer() {
        let mut dispatcher = ready();
        // In the queue: it does not count.
        for id in 0..30 {
            ask(&mut dispatcher, question(id, "ann", "wrong", ""), 0);
            dispatcher.handle(ToHelper::Cancel { id }, 0);
        }
        assert!(dispatcher.next_task().is_none() && dispatcher.jobs.is_empty());
        // One of two that share a job.
        ask(&mut dispatcher, question(40, "ann", PASSWORD, ""), 0);
        ask(&mut dispatcher, question(41, "ann", PASSWORD, ""), 0);
        dispatcher.handle(ToHelper::Cancel { id: 40 }, 0);
        assert_eq!(work(&mut dispatcher, 0), 1);
        assert_eq!(answers(&mut dispatcher), [(41, 'a')]);
        // With a thread: it counts.
        for id in 50..50 + u64::from(PAIR_FAILURES_MAX) {
            ask(&mut dispatcher, question(id, "ann", "wrong", ""), 0);
            let task = dispatcher.next_task().unwrap();
            dispatcher.handle(ToHelper::Cancel { id }, 0);
            let (number, judgement) = task.judge(0);
            dispatcher.judged(number, judgement, 0);
        }
        assert_eq!((answers(&mut dispatcher), dispatcher.expire(0)), (vec![], None));
        ask(&mut dispatcher, question(60, "ann", PASSWORD, ""), 0);
        assert_eq!(answers(&mut dispatcher), [(60, 'l')]);
        // Among those that wait for their time.
        ask(&mut dispatcher, question(70, "eve", "wrong", ""), 0);
        work(&mut dispatcher, 0);
        dispatcher.handle(ToHelper::Cancel { id: 70 }, 0);
        assert_eq!((answers(&mut dispatcher), dispatcher.expire(u64::MAX)), (vec![], None));
        dispatcher.handle(ToHelper::Cancel { id: 12_345 }, 0);
    }

    #[test]
    fn two_generations_are_kept() {
        let mut dispatcher = dispatcher();
        for generation in 1..=3 {
            let rules = vec![rule(user("ann", &format!("password{generation}")))];
            dispatcher.handle(ToHelper::Rules { generation, rules, is_trial: false }, 0);
            assert!(
                matches!(dispatcher.next_message(), Some(ToDaemon::Ready { generation: g, .. }) if g == generation)
            );
        }
        for (id, generation, password, expected) in
            [(1, 1, "password1", 'u'), (2, 2, "password2", 'a'), (3, 3, "password3", 'a'), (4, 4, "password4", 'u')]
        {
            ask(&mut dispatcher, Question { generation, ..question(id, "ann", password, "") }, 0);
            work(&mut dispatcher, 0);
            assert_eq!(answers(&mut dispatcher), [(id, expected)]);
        }
        ask(&mut dispatcher, Question { generation: 3, rule: 1, ..question(5, "ann", "password3", "") }, 0);
        assert_eq!(answers(&mut dispatcher), [(5, 'u')], "there is no second rule");
        // The same number again replaces the rules.
        dispatcher.handle(ToHelper::Rules { generation: 3, rules: vec![rule(user("ann", "new"))], is_trial: false }, 0);
        assert!(dispatcher.next_message().is_some() && dispatcher.generations.len() == 2);
        ask(&mut dispatcher, Question { generation: 3, ..question(6, "ann", "new", "") }, 0);
        work(&mut dispatcher, 0);
        assert_eq!(answers(&mut dispatcher), [(6, 'a')]);
    }

    #[test]
    fn problems_keep_the_rules_before() {
        let mut dispatcher = ready();
        let rules = vec![rule(user("ann", "a")), Rule::default(), rule(user("bob", "$7$x"))];
        dispatcher.handle(ToHelper::Rules { generation: 2, rules, is_trial: false }, 0);
        let problem = |rule, sentence: &str| Problem { rule, sentence: sentence.to_owned() };
        let problems = vec![
            problem(1, "no source of users or tokens is given"),
            problem(2, "the password of bob is a hash of an unknown kind"),
        ];
        assert_eq!(dispatcher.next_message(), Some(ToDaemon::Problems { generation: 2, problems }));
        ask(&mut dispatcher, question(1, "ann", PASSWORD, ""), 0);
        work(&mut dispatcher, 0);
        assert_eq!(answers(&mut dispatcher), [(1, 'a')]);
        // A frame has room for all that is sent.
        let long = format!("/{}", "x".repeat(1_000));
        let rules = vec![rule(Source::PasswordFile(PathBuf::from(long))); 5_000];
        dispatcher.handle(ToHelper::Rules { generation: 2, rules, is_trial: false }, 0);
        let message = dispatcher.next_message().unwrap();
        auth_wire::encode(&message, &mut Vec::new()).unwrap();
        let ToDaemon::Problems { problems, .. } = message else { panic!("{message:?}") };
        assert_eq!(problems.last().unwrap().sentence, "and 4900 more problems");
    }

    #[test]
    fn changes_of_files_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write(&path, &format!("ann:{BCRYPT}\n"));
        let mut dispatcher = dispatcher();
        let rules = vec![rule(Source::PasswordFile(path.clone()))];
        dispatcher.handle(ToHelper::Rules { generation: 1, rules, is_trial: false }, 0);
        assert!(dispatcher.next_message().is_some());
        write(&path, "broken\n");
        ask(&mut dispatcher, question(1, "ann", PASSWORD, ""), LOOK_MS);
        let message = dispatcher.next_message();
        assert!(
            matches!(&message, Some(ToDaemon::Ready { generation: 1, warnings }) if warnings[0].contains("line 1")),
            "{message:?}"
        );
        work(&mut dispatcher, LOOK_MS);
        assert_eq!(answers(&mut dispatcher), [(1, 'a')]);
    }

    /// With one rule, that asks a server. What the server says is made up.
    fn with_server() -> Dispatcher {
        let mut dispatcher = dispatcher();
        let rules = vec![rule(Source::Server(PathBuf::from("/nonexistent/server")))];
        dispatcher.handle(ToHelper::Rules { generation: 1, rules, is_trial: false }, 0);
        assert_eq!(dispatcher.next_message(), Some(ToDaemon::Ready { generation: 1, warnings: vec![] }));
        dispatcher
    }

    /// The server's decision about the question with this id.
    fn decide(dispatcher: &mut Dispatcher, id: u64, verdict: Verdict, now_ms: u64) {
        let found = dispatcher.asked.iter().find(|(_, asked)| asked.id == id);
        if let Some((number, asked)) = found.map(|(number, asked)| (*number, (asked.generation, asked.rule))) {
            dispatcher.reported(asked.0, asked.1, Report::Answer { id: number, verdict }, now_ms);
        }
    }

    #[test]
    fn an_examination_connects_no_server() {
        let mut dispatcher = Dispatcher::new(Box::new(|path, _, _| panic!("{} is connected", path.display())));
        let server = |path: PathBuf| rule(Source::Server(path));
        let good = vec![server("/nonexistent/server".into()), rule(user("ann", "a"))];
        dispatcher.handle(ToHelper::Rules { generation: 1, rules: good, is_trial: true }, 0);
        let message = dispatcher.next_message();
        assert!(matches!(message, Some(ToDaemon::Ready { generation: 1, ref warnings }) if warnings.len() == 1));
        let bad = vec![server(PathBuf::from("/").join("x".repeat(200)))];
        dispatcher.handle(ToHelper::Rules { generation: 2, rules: bad, is_trial: true }, 0);
        let message = dispatcher.next_message();
        assert!(matches!(message, Some(ToDaemon::Problems { generation: 2, ref problems }) if problems[0].rule == 0));
        ask(&mut dispatcher, question(1, "ann", "a", ""), 0);
        assert_eq!(answers(&mut dispatcher), [(1, 'u')], "it decides nothing");
    }

    /// A server would see a connection and its end each time that the helper is started again.
    #[test]
    fn rules_with_problems_connect_no_server() {
        let started = Rc::new(Cell::new(0));
        let mut dispatcher = Dispatcher::new(Box::new({
            let started = Rc::clone(&started);
            move |path, _, _| {
                started.set(started.get() + 1);
                Server::start(path, |_| ())
            }
        }));
        let server = || rule(Source::Server(PathBuf::from("/nonexistent/server")));
        for (second, count) in [(rule(Source::PasswordFile("/nonexistent/users".into())), 0), (server(), 2)] {
            dispatcher.handle(ToHelper::Rules { generation: 1, rules: vec![server(), second], is_trial: false }, 0);
            let is_ready = matches!(dispatcher.next_message(), Some(ToDaemon::Ready { .. }));
            assert_eq!((is_ready, started.get()), (count > 0, count));
        }
        let mut dispatcher = Dispatcher::new(Box::new(|_, _, _| Err(io::Error::other("no thread"))));
        let rules = vec![rule(user("ann", "a")), server()];
        dispatcher.handle(ToHelper::Rules { generation: 1, rules, is_trial: false }, 0);
        let problems = vec![Problem { rule: 1, sentence: "/nonexistent/server: no thread".to_owned() }];
        assert_eq!(dispatcher.next_message(), Some(ToDaemon::Problems { generation: 1, problems }));
    }

    #[test]
    fn a_success_elsewhere_resets_no_count() {
        let sources =
            [user("ann", "secret"), user("ann", "mine"), Source::Server(PathBuf::from("/nonexistent/server"))];
        for (reset, user, judged_max) in [
            (None, "", PAIR_FAILURES_MAX),
            (Some(1), "", PAIR_FAILURES_MAX),
            (Some(2), "", PAIR_FAILURES_MAX),
            (Some(2), "ann", PAIR_FAILURES_MAX),
            (Some(0), "", u32::MAX),
        ] {
            let mut dispatcher = dispatcher();
            dispatcher.handle(
                ToHelper::Rules { generation: 1, rules: sources.clone().map(rule).to_vec(), is_trial: false },
                0,
            );
            let mut judged = 0;
            for round in 0..5 {
                for guess in 0..4 {
                    ask(&mut dispatcher, question(guess, "ann", &format!("{round} {guess}"), "192.0.2.1"), 0);
                    judged += work(&mut dispatcher, 0);
                }
                let Some(rule) = reset else { continue };
                let password = if rule == 0 { "secret" } else { "mine" };
                ask(&mut dispatcher, Question { rule, ..question(50, "ann", password, "192.0.2.1") }, 0);
                work(&mut dispatcher, 0);
                let verdict =
                    Verdict::Allow { user: user.to_owned(), groups: Vec::new(), until_ms: None, headers: Vec::new() };
                decide(&mut dispatcher, 50, verdict, 0);
            }
            assert_eq!(judged as u32, judged_max.min(20), "{reset:?} {user}");
        }
    }

    #[test]
    fn a_server_that_allows_everybody_resets_no_count() {
        for (allowed, expected) in [("", 'l'), ("bob", 'l'), ("ann", 'd')] {
            let mut dispatcher = with_server();
            let verdict = |user: &str| match allow() {
                Verdict::Allow { groups, until_ms, headers, .. } => {
                    Verdict::Allow { user: user.to_owned(), groups, until_ms, headers }
                }
                other => other,
            };
            for id in 0..u64::from(PAIR_FAILURES_MAX) {
                let said = if id == 3 { verdict(allowed) } else { Verdict::Deny };
                ask(&mut dispatcher, question(id, "ann", &format!("{id}"), "192.0.2.1"), 0);
                decide(&mut dispatcher, id, said, FAILURE_MS);
            }
            for id in [20, 21] {
                ask(&mut dispatcher, question(id, "ann", &format!("{id}"), "192.0.2.1"), 0);
                decide(&mut dispatcher, id, Verdict::Deny, FAILURE_MS);
            }
            assert_eq!(answers(&mut dispatcher).last(), Some(&(21, expected)), "{allowed:?}");
        }
    }

    #[test]
    fn equal_passwords_for_many_paths_are_one_attempt() {
        let mut dispatcher = with_server();
        let path = |id: u64| Question { path: format!("/{id}"), ..question(id, "ann", "x", "192.0.2.1") };
        (0..8).for_each(|id| ask(&mut dispatcher, path(id), 0));
        assert_eq!(answers(&mut dispatcher), []);
        (0..8).for_each(|id| decide(&mut dispatcher, id, Verdict::Deny, FAILURE_MS));
        assert_eq!(answers(&mut dispatcher).len(), 8);
        for id in 10..10 + u64::from(PAIR_FAILURES_MAX) {
            ask(&mut dispatcher, question(id, "ann", &format!("{id}"), "192.0.2.1"), 0);
            decide(&mut dispatcher, id, Verdict::Deny, FAILURE_MS);
        }
        let limited = answers(&mut dispatcher).into_iter().filter(|(_, letter)| *letter == 'l').count();
        assert_eq!(limited, 1, "all of them were one");
    }

    #[test]
    fn questions_without_a_credential_have_places() {
        let mut dispatcher = with_server();
        for id in 0..=u64::from(UNIT_PENDING_MAX) {
            let address = "192.0.2.1".to_owned();
            ask(&mut dispatcher, Question { id, generation: 1, address, ..Question::default() }, 0);
        }
        assert_eq!(answers(&mut dispatcher), [(u64::from(UNIT_PENDING_MAX), 'l')]);
        decide(&mut dispatcher, 0, Verdict::Deny, 0);
        assert_eq!(answers(&mut dispatcher), [(0, 'd')], "no failure, and answered at once");
    }

    #[test]
    fn joined_questions_are_bounded() {
        let mut dispatcher = ready();
        for id in 0..=JOINED_MAX as u64 {
            ask(&mut dispatcher, question(id, "ann", PASSWORD, ""), 0);
        }
        assert_eq!(answers(&mut dispatcher), [(JOINED_MAX as u64, 'u')]);
        assert_eq!(work(&mut dispatcher, 0), 1);
        assert_eq!(answers(&mut dispatcher).len(), JOINED_MAX);
    }

    #[test]
    fn expired_tokens_count_nothing() {
        let mut dispatcher = ready();
        for id in 0..100 {
            let credential = Credential::Token(Secret::from("a.b.c"));
            ask(&mut dispatcher, Question { credential, ..question(id, "", "", "192.0.2.1") }, 0);
            let task = dispatcher.next_task().expect("no wait");
            dispatcher.judged(task.job, Judgement::Expired, FAILURE_MS);
            assert_eq!(answers(&mut dispatcher), [(id, 'd')]);
        }
    }

    /// Any client can send such tokens: the reason belongs to the request, and is no warning.
    #[test]
    fn the_reason_of_a_refusal_is_in_its_answer() {
        let mut dispatcher = ready();
        for (id, time_ms) in [(1, 0), (2, FAILURE_MS)] {
            let credential = Credential::Token(Secret::from("a.b.c"));
            ask(&mut dispatcher, Question { credential, ..question(id, "", "", "192.0.2.1") }, 0);
            let task = dispatcher.next_task().unwrap();
            let reason = "x".repeat(SENTENCE_SIZE_MAX + 1);
            dispatcher.judged(task.job, Judgement::Wrong(Some(reason)), time_ms);
            dispatcher.expire(FAILURE_MS);
            let message = dispatcher.next_message();
            let Some(ToDaemon::Answer(Answer { id: answered, verdict: Verdict::Refused { reason } })) = message else {
                panic!("{message:?}");
            };
            assert_eq!((answered, reason.len()), (id, SENTENCE_SIZE_MAX));
            assert_eq!(dispatcher.next_message(), None);
        }
        let unit = Unit::of("192.0.2.1");
        let (credential, count) = (Credential::Token(Secret::from("x")), crate::limits::UNIT_FAILURES_MAX as u64);
        for id in 2..count {
            ask(&mut dispatcher, Question { credential: credential.clone(), ..question(id, "", "", "192.0.2.1") }, 0);
            let task = dispatcher.next_task().unwrap();
            dispatcher.judged(task.job, Judgement::Wrong(Some(String::new())), FAILURE_MS);
        }
        let shown = dispatcher.attempts.shown(1, &credential);
        assert!(dispatcher.attempts.begin(unit, shown, FAILURE_MS).is_err(), "each was a failure");
    }

    /// They have no address that could be limited.
    #[test]
    fn clients_of_unix_sockets_do_not_refuse_one_another() {
        let mut dispatcher = with_server();
        let count = 2 * u64::from(UNIT_PENDING_MAX);
        (0..count).for_each(|id| ask(&mut dispatcher, Question { id, generation: 1, ..Question::default() }, 0));
        (0..count).for_each(|id| decide(&mut dispatcher, id, allow(), 0));
        assert_eq!(answers(&mut dispatcher), (0..count).map(|id| (id, 'a')).collect::<Vec<_>>());
    }

    #[test]
    fn sentences_of_answers_are_cut() {
        let mut dispatcher = with_server();
        ask(&mut dispatcher, question(1, "ann", "x", ""), 0);
        decide(&mut dispatcher, 1, Verdict::Unavailable { sentence: "x".repeat(100_000) }, 0);
        let message = dispatcher.next_message().unwrap();
        auth_wire::encode(&message, &mut Vec::new()).unwrap();
    }

    #[test]
    fn an_answer_is_for_one_question() {
        let mut dispatcher = dispatcher();
        let server = || rule(Source::Server(PathBuf::from("/nonexistent/server")));
        dispatcher.handle(ToHelper::Rules { generation: 1, rules: vec![server(), server()], is_trial: false }, 0);
        assert!(dispatcher.next_message().is_some());
        ask(&mut dispatcher, question(1, "ann", "right", "192.0.2.1"), 0);
        let first = *dispatcher.asked.keys().next().unwrap();
        dispatcher.handle(ToHelper::Cancel { id: 1 }, 0);
        // The thread has answered before it saw that.
        ask(&mut dispatcher, Question { rule: 1, ..question(1, "eve", "wrong", "192.0.2.2") }, 0);
        dispatcher.reported(1, 0, Report::Answer { id: first, verdict: allow() }, 0);
        assert_eq!(answers(&mut dispatcher), [], "it was about another question");
        let second = *dispatcher.asked.keys().next().unwrap();
        for (generation, rule) in [(1, 0), (2, 1)] {
            dispatcher.reported(generation, rule, Report::Answer { id: second, verdict: allow() }, 0);
            assert_eq!(answers(&mut dispatcher), [], "the server of another rule");
        }
        dispatcher.reported(1, 1, Report::Answer { id: second, verdict: allow() }, 0);
        assert_eq!(answers(&mut dispatcher), [(1, 'a')]);
    }

    fn allow() -> Verdict {
        Verdict::Allow { user: "ann".to_owned(), groups: Vec::new(), until_ms: None, headers: Vec::new() }
    }

    #[test]
    fn servers_decide() {
        let mut dispatcher = with_server();
        let none = |id| Question { id, generation: 1, ..Question::default() };
        for (id, question, verdict, at_once, later) in [
            (1, none(1), allow(), Some('a'), None),
            (2, none(2), Verdict::Deny, Some('d'), None),
            (3, question(3, "ann", "x", ""), allow(), Some('a'), None),
            (4, question(4, "ann", "x", ""), Verdict::Deny, None, Some('d')),
            (5, question(5, "ann", "x", ""), Verdict::Forbidden, Some('f'), None),
            (6, question(6, "ann", "x", ""), Verdict::Limited { wait_ms: 1 }, Some('l'), None),
            (7, question(7, "ann", "x", ""), Verdict::Unavailable { sentence: String::new() }, Some('u'), None),
        ] {
            ask(&mut dispatcher, question, 0);
            assert_eq!(answers(&mut dispatcher), [], "{id}");
            decide(&mut dispatcher, id, verdict, 10);
            assert_eq!(answers(&mut dispatcher), at_once.map(|letter| (id, letter)).into_iter().collect::<Vec<_>>());
            dispatcher.expire(FAILURE_MS);
            assert_eq!(answers(&mut dispatcher), later.map(|letter| (id, letter)).into_iter().collect::<Vec<_>>());
        }
        // A second answer, and one to an unknown question.
        dispatcher.reported(1, 0, Report::Answer { id: 7, verdict: allow() }, 10);
        dispatcher.reported(1, 0, Report::Answer { id: 99, verdict: allow() }, 10);
        assert_eq!(answers(&mut dispatcher), []);
        // Also on the connection of a generation that is gone.
        for generation in [1, 7] {
            let report = Report::Revoked { server: Path::new("/decide").into(), user: "ann".to_owned() };
            dispatcher.reported(generation, 0, report, 10);
            let revoked = ToDaemon::Revoked { server: "/decide".into(), user: "ann".to_owned() };
            assert_eq!(dispatcher.next_message(), Some(revoked), "{generation}");
        }
    }

    /// Two rules, each with a connection of its own.
    #[test]
    fn a_revocation_reaches_the_other_rules_of_a_server() {
        let path = Path::new("/nonexistent/server");
        let mut dispatcher = dispatcher();
        let rules = vec![rule(Source::Server(path.into())); 2];
        dispatcher.handle(ToHelper::Rules { generation: 1, rules, is_trial: false }, 0);
        dispatcher.reported(1, 0, Report::Revoked { server: path.into(), user: "ann".to_owned() }, 0);
        let told = |rule| dispatcher.server(1, rule).map(Server::is_revoked);
        assert_eq!([told(0), told(1)], [Some(false), Some(true)]);
    }

    #[test]
    fn attempts_at_servers_count() {
        let mut dispatcher = with_server();
        for id in 0..u64::from(PAIR_FAILURES_MAX) {
            ask(&mut dispatcher, question(id, "ann", "x", ""), 0);
            decide(&mut dispatcher, id, Verdict::Deny, FAILURE_MS);
        }
        answers(&mut dispatcher);
        ask(&mut dispatcher, question(50, "ann", "x", ""), 0);
        assert_eq!(answers(&mut dispatcher), [(50, 'l')]);
        // A refusal of another kind ends no count, and does not count itself.
        for id in 0..100 {
            let verdict = if id % 25 == 24 { Verdict::Deny } else { Verdict::Forbidden };
            ask(&mut dispatcher, question(id, "cy", "x", ""), 0);
            decide(&mut dispatcher, id, verdict, FAILURE_MS);
        }
        assert_eq!(answers(&mut dispatcher).iter().filter(|(_, letter)| *letter != 'l').count(), 100);
        ask(&mut dispatcher, question(50, "cy", "x", ""), 0);
        decide(&mut dispatcher, 50, Verdict::Deny, FAILURE_MS);
        ask(&mut dispatcher, question(51, "cy", "x", ""), 0);
        assert_eq!(answers(&mut dispatcher), [(50, 'd'), (51, 'l')]);
        for id in 60..160 {
            ask(&mut dispatcher, question(id, "bob", "x", ""), 0);
            dispatcher.handle(ToHelper::Cancel { id }, 0);
        }
        assert_eq!((answers(&mut dispatcher), dispatcher.asked.len()), (vec![], 0));
    }

    #[test]
    fn questions_end_with_their_generation() {
        let mut dispatcher = with_server();
        ask(&mut dispatcher, question(1, "ann", "x", "192.0.2.1"), 0);
        for generation in 2..=3 {
            dispatcher.handle(ToHelper::Rules { generation, rules: vec![rule(user("ann", "a"))], is_trial: false }, 0);
        }
        let unavailable = Verdict::Unavailable { sentence: "the rules have changed".to_owned() };
        let messages: Vec<ToDaemon> = std::iter::from_fn(|| dispatcher.next_message()).collect();
        assert!(messages.contains(&ToDaemon::Answer(Answer { id: 1, verdict: unavailable })), "{messages:?}");
        let unit = Unit::of("192.0.2.1");
        let begun: Vec<Attempt> =
            (0..UNIT_PENDING_MAX).map(|_| dispatcher.attempts.begin(unit, None, 0).unwrap()).collect();
        assert_eq!(begun.len(), UNIT_PENDING_MAX as usize, "the attempt was given back");
    }
}
