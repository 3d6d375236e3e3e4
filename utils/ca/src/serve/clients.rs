//! The loop: one poll(2) for all clients and the outcomes of their requests.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags};
use server::listener::{Accepted, Listener};
use server::stop;
use websocket::deadline::Deadline;

use super::Options;
use super::client::{Client, Next};
use super::limits::{
    CONNECTIONS_OF_ADDRESS_PERCENT, LOGINS_OF_ADDRESS_MAX, MESSAGE_SIZE_MAX, MESSAGES_OF_TURN_MAX, REFUSAL_LINES_MAX,
    STOP_MS,
};
use super::message::{Refusal, Request};
use super::rates::{Cost, End, Party, Rate, Rates};
use super::worker::{Job, Outcome, Workers};

pub(crate) struct Clients<'o> {
    options: &'o Options,
    listener: Listener,
    workers: Workers,
    /// By number; a number is never used again.
    clients: BTreeMap<u64, Client>,
    newest: u64,
    /// Those whose turn has ended before they had to wait.
    eager: BTreeSet<u64>,
    rates: Rates,
    started: Instant,
    /// Lines of the log about refusals, and those left out since the last one.
    refusals: Rate,
    left_out: u64,
    /// Receive buffer. Longer than a message, so that a longer packet is noticed.
    buffer: Vec<u8>,
}

impl<'o> Clients<'o> {
    pub(crate) fn new(listener: Listener, workers: Workers, options: &'o Options) -> Clients<'o> {
        Clients {
            options,
            listener,
            workers,
            clients: BTreeMap::new(),
            newest: 0,
            eager: BTreeSet::new(),
            rates: Rates::default(),
            started: Instant::now(),
            refusals: Rate::default(),
            left_out: 0,
            buffer: vec![0; MESSAGE_SIZE_MAX + 1],
        }
    }

    /// Serves until a stop signal, and then until the requests in progress are answered. The stop signals have to be
    /// blocked.
    pub(crate) fn serve(mut self) -> Result<(), String> {
        while !stop::is_requested() {
            self.turn(true, None)?;
        }
        let deadline = Deadline::after_ms(STOP_MS);
        while self.clients.values().any(|client| client.cost.is_some()) && !deadline.is_over() {
            self.turn(false, Some(deadline))?;
        }
        Ok(())
    }

    fn turn(&mut self, accepts: bool, deadline: Option<Deadline>) -> Result<(), String> {
        let has_room = accepts && self.clients.len() < self.options.clients_max;
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), self.listener.interest(has_room)),
            PollFd::new(self.workers.ready().as_fd(), PollFlags::POLLIN),
        ];
        let watched: Vec<_> =
            self.clients.iter().filter_map(|(number, client)| Some((*number, client.interest()?))).collect();
        fds.extend(watched.iter().map(|(_, (fd, events))| PollFd::new(*fd, *events)));
        let deadlines = self.clients.values().filter_map(Client::deadline).chain(self.listener.deadline());
        let at_once = (!self.eager.is_empty()).then(|| Deadline::after_ms(0));
        let events = stop::wait(&mut fds, deadlines.chain(deadline).chain(at_once))?;
        let mut events = events.into_iter();
        let (can_accept, _) = (events.next().is_some_and(|events| !events.is_empty()), events.next());
        let mut ready: BTreeMap<u64, PollFlags> = watched.iter().map(|(number, _)| *number).zip(events).collect();
        ready.retain(|_, events| !events.is_empty());
        let due = self.clients.iter().filter(|(_, client)| client.deadline().is_some_and(Deadline::is_over));
        for number in due.map(|(number, _)| *number) {
            ready.entry(number).or_insert(PollFlags::empty());
        }
        for number in std::mem::take(&mut self.eager) {
            ready.entry(number).or_insert(PollFlags::empty());
        }
        for outcome in self.workers.outcomes() {
            self.conclude(outcome);
        }
        for (number, events) in ready {
            self.handle(number, events);
        }
        while can_accept && has_room && self.clients.len() < self.options.clients_max && self.accept() {}
        Ok(())
    }

    /// Accepts a client. False: there is none.
    fn accept(&mut self) -> bool {
        let Some(Accepted::Plain(socket)) = self.listener.accept() else { return false };
        self.newest += 1;
        self.clients.insert(self.newest, Client::new(socket, self.newest, self.options));
        true
    }

    /// Handles the events of a client, and its messages until it has to wait or others have their turn.
    fn handle(&mut self, number: u64, mut events: PollFlags) {
        let mut answered = 0;
        while answered < MESSAGES_OF_TURN_MAX {
            let Some(client) = self.clients.get_mut(&number) else { return };
            match client.turn(events, number, &mut self.buffer) {
                Next::Wait => return,
                Next::Leave => return self.remove(number),
                Next::Known => self.judge_address(number),
                Next::Answer(message) => {
                    answered += 1;
                    self.begin(number, message);
                }
            }
            events = PollFlags::empty();
        }
        self.eager.insert(number);
    }

    fn remove(&mut self, number: u64) {
        if let Some(client) = self.clients.remove(&number) {
            self.rates.forget(&client.party);
        }
    }

    /// Dismisses a client whose address has too many connections.
    fn judge_address(&mut self, number: u64) {
        let Some(party) = self.clients.get(&number).map(|client| client.party.clone()) else { return };
        let most = (self.options.clients_max * CONNECTIONS_OF_ADDRESS_PERCENT / 100).max(1);
        let count = self.clients.values().filter(|client| client.party == party).count();
        if matches!(party, Party::Address(_))
            && count > most
            && let Some(client) = self.clients.get_mut(&number)
        {
            client.dismiss(Refusal::Busy);
            let line = format!("connection refused: {} has more than {most}", client.name());
            self.log_refusal(&line);
        }
    }

    /// Begins to work on a message, or answers it at once.
    fn begin(&mut self, number: u64, message: Result<Request, Refusal>) {
        let refusal = match self.submit(number, message) {
            Ok(()) => return,
            Err(refusal) => refusal,
        };
        let Some(client) = self.clients.get_mut(&number) else { return };
        let line = format!("request of {} refused: {refusal}", client.name());
        client.answer(&Err(refusal));
        self.log_refusal(&line);
    }

    fn submit(&mut self, number: u64, message: Result<Request, Refusal>) -> Result<(), Refusal> {
        let Some(client) = self.clients.get(&number) else { return Ok(()) };
        let (party, address) = (client.party.clone(), client.address.clone());
        let cost = message.as_ref().map_or(Cost::Request, cost);
        let now_ms = self.now_ms();
        let admitted = self.rates.admit(&party, cost, now_ms);
        let request = match message {
            // The connection ends, whatever the rates say.
            Err(refusal) if refusal.is_last() => return Err(refusal),
            message => {
                admitted.map_err(|wait_ms| Refusal::Wait { wait_ms })?;
                message?
            }
        };
        let is_login = matches!(request, Request::Manage { .. });
        let logins = self.clients.values().filter(|other| other.is_login && other.party == party).count();
        let submitted = match is_login && logins >= LOGINS_OF_ADDRESS_MAX {
            true => Err(Refusal::Busy),
            false => self.workers.submit(Job { client: number, address, request }),
        };
        if submitted.is_err() {
            self.rates.settle(&party, cost, End::Failed);
        } else if let Some(client) = self.clients.get_mut(&number) {
            (client.cost, client.is_login) = (Some(cost), is_login);
        }
        submitted
    }

    /// Answers a request whose work is done.
    fn conclude(&mut self, Outcome { client: number, result, event }: Outcome) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let (cost, party) = (client.cost.take(), client.party.clone());
        client.is_login = false;
        client.answer(&result);
        let line = event.map(|event| format!("{event}, for {}", client.name()));
        if let Some(cost) = cost {
            let end = match &result {
                Ok(_) => End::Done,
                Err(Refusal::Failed) => End::Failed,
                Err(_) => End::Refused,
            };
            self.rates.settle(&party, cost, end);
        }
        match line {
            Some(line) if result.is_ok() => self.options.complain(line),
            Some(line) => self.log_refusal(&line),
            None => {}
        }
        self.handle(number, PollFlags::empty());
    }

    /// Prints a refusal, unless there were too many. Other lines are always printed: the limits of signatures and logins
    /// are theirs too.
    fn log_refusal(&mut self, line: &str) {
        let now_ms = self.now_ms();
        if !self.refusals.take(REFUSAL_LINES_MAX, now_ms) {
            self.left_out += 1;
            return;
        }
        match std::mem::take(&mut self.left_out) {
            0 => self.options.complain(line),
            left_out => self.options.complain(format_args!("{line} ({left_out} refusals before it were left out)")),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

fn cost(request: &Request) -> Cost {
    match request {
        Request::Enrol { .. } => Cost::Enrolment,
        Request::Extend { .. } => Cost::Signature,
        Request::Authority | Request::Status | Request::Manage { .. } => Cost::Request,
    }
}
