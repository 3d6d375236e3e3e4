//! One client: the bytes it sent, its current call, its unsent answer. One text is handled at a time and nothing is
//! read meanwhile, which limits its memory.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jsonrpc_library::abi::{INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use serde_json::value::RawValue;
use server::record::{HelloError, Record, peer_address};

use crate::Options;
use crate::limits::{ANSWER_SIZE_MAX, BATCH_MS, MESSAGE_SIZE_MAX, RESTART_MS, SHOWN_SIZE_MAX};
use crate::process::{Launcher, Process, Reaper, Received};
use crate::request::{Answer, Call, Entry, Outcome, PARSE_ERROR, Requests, error, parse};
use crate::splitter::{Found, Splitter, separator, terminator};
use crate::wire::{Connection, Kind};

/// Shared by all clients.
pub(crate) struct Shared<'o> {
    pub(crate) options: &'o Options,
    pub(crate) launcher: &'o Launcher,
    pub(crate) reaper: Reaper,
    /// Receive buffer.
    pub(crate) buffer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Stays,
    Leaves,
}

pub(crate) struct Client {
    socket: OwnedFd,
    /// The hello record until it is complete; None: it is, or none is expected.
    record: Option<Record>,
    address: Option<String>,
    id: Option<String>,
    splitter: Splitter,
    /// Received bytes, after `split_size` bytes that the splitter has consumed.
    unsplit: Vec<u8>,
    split_size: usize,
    /// The client has shut down its side.
    has_ended: bool,
    /// The connection is broken. Notifications it has sent are still run, until then.
    gone_until: Option<Instant>,
    /// It leaves once its answer is sent.
    is_last: bool,
    work: Option<Work>,
    process: Option<Process>,
    /// When another process may be started.
    restart_at: Instant,
    /// The answer, after `sent_size` bytes that were sent.
    unsent: Vec<u8>,
    sent_size: usize,
}

/// The requests of one text.
struct Work {
    /// Bytes of the text.
    size: usize,
    entries: VecDeque<Entry>,
    answer: Answer,
    give_up_at: Instant,
    call: Option<InFlight>,
}

/// The call that the process is running.
struct InFlight {
    method: String,
    id: Option<Box<RawValue>>,
    give_up_at: Instant,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd, options: &Options) -> Client {
        let address = peer_address(socket.as_fd()).map(|address| address.to_canonical().to_string());
        Client {
            socket,
            record: options.hello.then(Record::default),
            address,
            id: None,
            splitter: Splitter::new(separator(options.protocol)),
            unsplit: Vec::new(),
            split_size: 0,
            has_ended: false,
            gone_until: None,
            is_last: false,
            work: None,
            process: None,
            restart_at: Instant::now(),
            unsent: Vec::new(),
            sent_size: 0,
        }
    }

    /// Its socket and the events to wait for. None: there is nothing to wait for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let events = match () {
            () if self.has_unsent() => PollFlags::POLLOUT,
            // poll(2) would report the end again and again.
            () if self.work.is_some() && self.gone_until.is_some() => return None,
            () if self.work.is_some() => PollFlags::empty(),
            () => PollFlags::POLLIN,
        };
        Some((self.socket.as_fd(), events))
    }

    /// The socket of its process and the events to wait for.
    pub(crate) fn process_interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.process.as_ref().map(|process| (process.as_fd(), process.interest()))
    }

    /// When to call `turn` without an event.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        let work = self.work.as_ref()?;
        // Without a call it waits until a process may be started.
        Some(work.call.as_ref().map_or(self.restart_at, |call| call.give_up_at))
    }

    /// Bytes of memory.
    pub(crate) fn held_size(&self) -> usize {
        let work = self.work.as_ref().map_or(0, Work::held_size);
        let process = self.process.as_ref().map_or(0, Process::held_size);
        self.splitter.held_size() + self.unsplit.len() + self.unsent.len() + work + process
    }

    /// Its name in the log, escaped since any local program may write a hello record.
    pub(crate) fn name(&self) -> String {
        self.id.as_deref().or(self.address.as_deref()).unwrap_or("a client").escape_debug().to_string()
    }

    /// Handles events and deadlines.
    pub(crate) fn turn(&mut self, events: PollFlags, process_events: PollFlags, shared: &mut Shared<'_>) -> Fate {
        if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.note_end(shared.options);
        }
        let call = self.work.as_ref().and_then(|work| work.call.as_ref());
        let is_late = call.is_some_and(|call| call.give_up_at <= Instant::now());
        if !process_events.is_empty() || is_late {
            self.receive_answer(is_late, shared);
        }
        if !events.is_empty() && !self.has_unsent() && self.work.is_none() && self.read(shared) == Fate::Leaves {
            return Fate::Leaves;
        }
        self.advance(shared)
    }

    /// Closes the connection and ends its process.
    pub(crate) fn leave(mut self, reaper: &mut Reaper) {
        if let Some(process) = self.process.take() {
            let call = self.work.and_then(|work| work.call);
            let left = call.map_or(Duration::ZERO, |call| call.give_up_at.saturating_duration_since(Instant::now()));
            reaper.end(process, left);
        }
    }

    /// Notes that the connection is broken.
    fn note_end(&mut self, options: &Options) {
        self.gone_until.get_or_insert_with(|| Instant::now() + Duration::from_millis(options.own.call_ms));
    }

    fn has_unsent(&self) -> bool {
        self.sent_size < self.unsent.len()
    }

    fn read(&mut self, shared: &mut Shared<'_>) -> Fate {
        if let Some(record) = &mut self.record {
            match record.receive(self.socket.as_fd(), false) {
                Ok(Some(hello)) => {
                    self.address = hello.client.map(|client| client.ip().to_canonical().to_string());
                    self.id = Some(hello.id).filter(|id| !id.is_empty());
                    self.record = None;
                }
                Ok(None) => {}
                Err(HelloError::Io(_)) => return Fate::Leaves,
                Err(error) => {
                    shared.options.complain(error);
                    return Fate::Leaves;
                }
            }
            return Fate::Stays;
        }
        match recv(self.socket.as_raw_fd(), &mut shared.buffer, MsgFlags::empty()) {
            Ok(0) => self.has_ended = true,
            Ok(size) => self.unsplit.extend_from_slice(&shared.buffer[..size]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Fate::Leaves,
        }
        Fate::Stays
    }

    /// Goes on until it has to wait.
    fn advance(&mut self, shared: &mut Shared<'_>) -> Fate {
        loop {
            self.write(shared.options);
            if self.has_unsent() {
                return Fate::Stays;
            }
            if self.work.as_ref().is_some_and(|work| work.call.is_some()) {
                return Fate::Stays;
            }
            if self.is_last || self.gone_until.is_some_and(|until| until <= Instant::now()) {
                return Fate::Leaves;
            }
            let Some(work) = &mut self.work else {
                match self.next_text() {
                    Some(found) => self.begin(found, shared.options),
                    None if self.has_ended => return Fate::Leaves,
                    None => return Fate::Stays,
                }
                continue;
            };
            match work.entries.pop_front() {
                Some(Entry::Invalid(id)) => {
                    work.answer.push(id.as_deref(), &Outcome::Error(error(INVALID_REQUEST, "", None)));
                }
                Some(Entry::Call(call)) => {
                    if let Some(call) = self.call(call, shared)
                        && let Some(work) = &mut self.work
                    {
                        work.entries.push_front(Entry::Call(call));
                        return Fate::Stays;
                    }
                }
                None => {
                    let answer = self.work.take().and_then(|work| work.answer.finish());
                    self.answer(answer, shared.options);
                }
            }
        }
    }

    /// The next text in the received bytes.
    fn next_text(&mut self) -> Option<Found> {
        if let Some(found) = self.splitter.next(&self.unsplit, &mut self.split_size) {
            return Some(found);
        }
        let had_bytes = !self.unsplit.is_empty();
        (self.unsplit, self.split_size) = (Vec::new(), 0);
        let paused = if had_bytes { self.splitter.end_of_read() } else { None };
        if paused.is_none() && self.has_ended { self.splitter.end() } else { paused }
    }

    fn begin(&mut self, found: Found, options: &Options) {
        let text = match found {
            Found::Text(text) => text,
            Found::Invalid => return self.answer(Some(Answer::invalid(&error(PARSE_ERROR, "", None))), options),
            Found::TooLong => {
                let data = format!("\"more than {MESSAGE_SIZE_MAX} bytes\"");
                self.is_last = true;
                return self.answer(Some(Answer::invalid(&error(INVALID_REQUEST, "", Some(&data)))), options);
            }
        };
        match parse(&text) {
            Ok(Requests { entries, is_batch }) => {
                let answer = Answer::new(is_batch, ANSWER_SIZE_MAX);
                let give_up_at = Instant::now() + Duration::from_millis(BATCH_MS.max(options.own.call_ms));
                self.work = Some(Work { size: text.len(), entries, answer, give_up_at, call: None });
            }
            Err(error) => self.answer(Some(Answer::invalid(&error)), options),
        }
    }

    /// Sends a call to the process, or answers it at once. Returns it if no process may be started yet.
    fn call(&mut self, call: Call, shared: &mut Shared<'_>) -> Option<Call> {
        let work = self.work.as_mut()?;
        let is_late = work.give_up_at <= Instant::now();
        let failure = if call.method.contains('\0') { METHOD_NOT_FOUND } else { INTERNAL_ERROR };
        if is_late || failure == METHOD_NOT_FOUND || self.gone_until.is_some() && call.id.is_some() {
            finish(work, call.id, &Outcome::Error(error(failure, "", None)));
            return None;
        }
        if self.process.is_none() {
            if Instant::now() < self.restart_at {
                return Some(call);
            }
            self.restart_at = Instant::now() + Duration::from_millis(RESTART_MS);
            match shared.launcher.launch() {
                Ok(mut process) => {
                    let (address, id) = (self.address.clone(), self.id.clone());
                    let own = Connection { address, id, ..Connection::default() };
                    process.send(Kind::Open, &[&shared.launcher.connection_body(own)]);
                    self.process = Some(process);
                }
                Err(why) => {
                    shared.options.complain(format_args!("no process for {}: {why}", self.name()));
                    let work = self.work.as_mut()?;
                    finish(work, call.id, &Outcome::Error(error(INTERNAL_ERROR, "", None)));
                    return None;
                }
            }
        }
        let (process, work) = (self.process.as_mut()?, self.work.as_mut()?);
        let params = call.params.as_deref().map_or("", RawValue::get);
        process.send(Kind::Call, &[call.method.as_bytes(), b"\0", params.as_bytes()]);
        let give_up_at = Instant::now() + Duration::from_millis(shared.options.own.call_ms);
        work.call = Some(InFlight { method: call.method, id: call.id, give_up_at });
        // Usually the socket takes it at once.
        self.receive_answer(false, shared);
        None
    }

    /// Receives from its process, and kills it if `is_late`.
    fn receive_answer(&mut self, is_late: bool, shared: &mut Shared<'_>) {
        let Some(mut process) = self.process.take() else { return };
        let received = process.turn(&mut shared.buffer);
        let call = self.work.as_mut().and_then(|work| work.call.take());
        let outcome = match (received, &call) {
            (Received::Nothing, Some(_)) if !is_late => {
                self.process = Some(process);
                if let Some(work) = &mut self.work {
                    work.call = call;
                }
                return;
            }
            (Received::Nothing, None) => return self.process = Some(process),
            (Received::Message(kind, body), Some(_)) => {
                let text = String::from_utf8_lossy(&body).into_owned();
                match kind {
                    Kind::Result | Kind::Error => self.process = Some(process),
                    _ => shared.reaper.end(process, Duration::ZERO),
                }
                match kind {
                    Kind::Result | Kind::LastResult => Outcome::Result(text),
                    _ => Outcome::Error(text),
                }
            }
            (received, _) => {
                self.kill(process, call.as_ref(), received == Received::Nothing, shared);
                Outcome::Error(error(INTERNAL_ERROR, "", None))
            }
        };
        if let (Some(work), Some(call)) = (&mut self.work, call) {
            finish(work, call.id, &outcome);
        }
    }

    /// Kills a process that is late or has ended, and reports it.
    fn kill(&self, process: Process, call: Option<&InFlight>, is_late: bool, shared: &mut Shared<'_>) {
        let (name, library, call_ms) = (self.name(), &shared.launcher.library, shared.options.own.call_ms);
        let method: String = call.map_or("no call", |call| &call.method).chars().take(SHOWN_SIZE_MAX).collect();
        let before = format!("-L {library}: the process of {name} ended in {method:?}");
        let after = if is_late { format!(": it took more than {call_ms} ms") } else { String::new() };
        shared.reaper.kill(process, before, after);
    }

    fn answer(&mut self, answer: Option<Vec<u8>>, options: &Options) {
        if let Some(mut answer) = answer {
            answer.push(terminator(options.protocol));
            (self.unsent, self.sent_size) = (answer, 0);
        }
    }

    /// Sends the answer, as far as the socket takes it. A client that has gone gets none.
    fn write(&mut self, options: &Options) {
        while self.has_unsent() {
            match send(self.socket.as_raw_fd(), &self.unsent[self.sent_size..], MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => self.sent_size += size,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.note_end(options);
                    break;
                }
            }
        }
        (self.unsent, self.sent_size) = (Vec::new(), 0);
    }
}

impl Work {
    /// Bytes of memory. The parameters of the current call are in `Process::outgoing`.
    fn held_size(&self) -> usize {
        let asked = if self.entries.is_empty() { 0 } else { self.size };
        let call = self.call.iter().map(|call| call.method.len() + call.id.as_deref().map_or(0, |id| id.get().len()));
        asked + call.sum::<usize>() + self.answer.size()
    }
}

/// Adds the outcome of a call to the answer. A notification has none.
fn finish(work: &mut Work, id: Option<Box<RawValue>>, outcome: &Outcome) {
    if id.is_some() {
        work.answer.push(id.as_deref(), outcome);
    }
}
