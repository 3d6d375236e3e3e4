//! One client: what it sent, the call that is made for it, what it is owed. One text is dealt with at a time, and
//! nothing is read meanwhile, so that what it holds has bounds.

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
use crate::process::{Heard, Launcher, Process, Reaper};
use crate::request::{Answer, Call, Entry, Outcome, PARSE_ERROR, Requests, error, parse};
use crate::splitter::{Found, Splitter, end, separator};
use crate::wire::{Kind, Opening};

/// What all clients share.
pub struct Shared<'o> {
    /// What was typed.
    pub options: &'o Options,
    /// How processes are started.
    pub launcher: &'o Launcher,
    /// Processes that end.
    pub reaper: Reaper,
    /// What is read goes here first.
    pub buffer: Vec<u8>,
}

/// Whether a client stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It does.
    Stays,
    /// It has gone, or is to go.
    Leaves,
}

/// A client.
pub struct Client {
    socket: OwnedFd,
    /// What has come of its first record, where one is awaited.
    record: Option<Record>,
    address: Option<String>,
    id: Option<String>,
    splitter: Splitter,
    /// What was read, and how much of that was looked at.
    unread: Vec<u8>,
    looked_at: usize,
    /// Nothing more will come.
    has_ended: bool,
    /// Nobody hears its answers, and what it still asks for is done until then.
    gone_until: Option<Instant>,
    /// It leaves once it has what it is owed.
    is_last: bool,
    work: Option<Work>,
    process: Option<Process>,
    /// Until then no other process is started for it.
    restart_at: Instant,
    owed: Vec<u8>,
    owed_start: usize,
}

/// A text that is being answered.
struct Work {
    size: usize,
    entries: VecDeque<Entry>,
    answer: Answer,
    give_up_at: Instant,
    call: Option<InFlight>,
}

/// A call that the process is in.
struct InFlight {
    method: String,
    id: Option<Box<RawValue>>,
    give_up_at: Instant,
}

impl Client {
    /// A client that has just come.
    pub fn new(socket: OwnedFd, options: &Options) -> Client {
        let address = peer_address(socket.as_fd()).map(|address| address.to_canonical().to_string());
        Client {
            socket,
            record: options.hello.then(Record::default),
            address,
            id: None,
            splitter: Splitter::new(separator(options.protocol)),
            unread: Vec::new(),
            looked_at: 0,
            has_ended: false,
            gone_until: None,
            is_last: false,
            work: None,
            process: None,
            restart_at: Instant::now(),
            owed: Vec::new(),
            owed_start: 0,
        }
    }

    /// Its socket, and what to wait for. None: for nothing, or all that is to be known of it is known.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let events = match () {
            () if self.owes() => PollFlags::POLLOUT,
            // Its end alone, which is told unasked; once.
            () if self.work.is_some() && self.gone_until.is_some() => return None,
            () if self.work.is_some() => PollFlags::empty(),
            () => PollFlags::POLLIN,
        };
        Some((self.socket.as_fd(), events))
    }

    /// The socket of its process, and what to wait for.
    pub fn process_interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.process.as_ref().map(|process| (process.as_fd(), process.interest()))
    }

    /// When to look at it whatever happens.
    pub fn wakes_at(&self) -> Option<Instant> {
        let work = self.work.as_ref()?;
        // Without a call it waits to be allowed a process.
        Some(work.call.as_ref().map_or(self.restart_at, |call| call.give_up_at))
    }

    /// Bytes that it holds.
    pub fn held_size(&self) -> usize {
        let work = self.work.as_ref().map_or(0, Work::held_size);
        let process = self.process.as_ref().map_or(0, Process::held_size);
        self.splitter.held_size() + self.unread.len() + self.owed.len() + work + process
    }

    /// Its name in the log. The gateway's record may say anything.
    pub fn name(&self) -> String {
        self.id.as_deref().or(self.address.as_deref()).unwrap_or("a client").escape_debug().to_string()
    }

    /// Does what these events allow, and what has become possible.
    pub fn turn(&mut self, events: PollFlags, process_events: PollFlags, shared: &mut Shared<'_>) -> Fate {
        if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.note_end(shared.options);
        }
        let call = self.work.as_ref().and_then(|work| work.call.as_ref());
        let is_late = call.is_some_and(|call| call.give_up_at <= Instant::now());
        if !process_events.is_empty() || is_late {
            self.hear(is_late, shared);
        }
        if !events.is_empty() && !self.owes() && self.work.is_none() && self.read(shared) == Fate::Leaves {
            return Fate::Leaves;
        }
        self.advance(shared)
    }

    /// Gives its process up.
    pub fn leave(mut self, reaper: &mut Reaper) {
        if let Some(process) = self.process.take() {
            let call = self.work.and_then(|work| work.call);
            let left = call.map_or(Duration::ZERO, |call| call.give_up_at.saturating_duration_since(Instant::now()));
            reaper.end(process, left);
        }
    }

    /// Nobody is there any more.
    fn note_end(&mut self, options: &Options) {
        self.gone_until.get_or_insert_with(|| Instant::now() + Duration::from_millis(options.own.call_ms));
    }

    fn owes(&self) -> bool {
        self.owed_start < self.owed.len()
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
            Ok(size) => self.unread.extend_from_slice(&shared.buffer[..size]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Fate::Leaves,
        }
        Fate::Stays
    }

    /// Goes on until something has to be waited for.
    fn advance(&mut self, shared: &mut Shared<'_>) -> Fate {
        loop {
            self.write(shared.options);
            if self.owes() {
                return Fate::Stays;
            }
            if self.work.as_ref().is_some_and(|work| work.call.is_some()) {
                return Fate::Stays;
            }
            if self.is_last || self.gone_until.is_some_and(|until| until <= Instant::now()) {
                return Fate::Leaves;
            }
            let Some(work) = &mut self.work else {
                match self.look() {
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
                    self.owe(answer, shared.options);
                }
            }
        }
    }

    /// The next text of what was read.
    fn look(&mut self) -> Option<Found> {
        if let Some(found) = self.splitter.next(&self.unread, &mut self.looked_at) {
            return Some(found);
        }
        let was_anything = !self.unread.is_empty();
        (self.unread, self.looked_at) = (Vec::new(), 0);
        let paused = if was_anything { self.splitter.pause() } else { None };
        if paused.is_none() && self.has_ended { self.splitter.end() } else { paused }
    }

    fn begin(&mut self, found: Found, options: &Options) {
        let text = match found {
            Found::Text(text) => text,
            Found::Fault => return self.owe(Some(Answer::fault(&error(PARSE_ERROR, "", None))), options),
            Found::TooLong => {
                let data = format!("\"more than {MESSAGE_SIZE_MAX} bytes\"");
                self.is_last = true;
                return self.owe(Some(Answer::fault(&error(INVALID_REQUEST, "", Some(&data)))), options);
            }
        };
        match parse(&text) {
            Ok(Requests { entries, is_batch }) => {
                let answer = Answer::new(is_batch, ANSWER_SIZE_MAX);
                let give_up_at = Instant::now() + Duration::from_millis(BATCH_MS.max(options.own.call_ms));
                self.work = Some(Work { size: text.len(), entries, answer, give_up_at, call: None });
            }
            Err(error) => self.owe(Some(Answer::fault(&error)), options),
        }
    }

    /// Makes a call, or answers it without. Gives it back where no process may be started yet.
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
                    let own = Opening { address, id, ..Opening::default() };
                    process.ask(Kind::Open, &[&shared.launcher.opening_for(own)]);
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
        process.ask(Kind::Call, &[call.method.as_bytes(), b"\0", params.as_bytes()]);
        let give_up_at = Instant::now() + Duration::from_millis(shared.options.own.call_ms);
        work.call = Some(InFlight { method: call.method, id: call.id, give_up_at });
        // Mostly there is room for it at once.
        self.hear(false, shared);
        None
    }

    /// Hears what its process says, and gives it up if it is late.
    fn hear(&mut self, is_late: bool, shared: &mut Shared<'_>) {
        let Some(mut process) = self.process.take() else { return };
        let heard = process.turn(&mut shared.buffer);
        let call = self.work.as_mut().and_then(|work| work.call.take());
        let outcome = match (heard, &call) {
            (Heard::Nothing, Some(_)) if !is_late => {
                self.process = Some(process);
                if let Some(work) = &mut self.work {
                    work.call = call;
                }
                return;
            }
            (Heard::Nothing, None) => return self.process = Some(process),
            (Heard::Message(kind, body), Some(_)) => {
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
            (heard, _) => {
                self.bury(process, call.as_ref(), heard == Heard::Nothing, shared);
                Outcome::Error(error(INTERNAL_ERROR, "", None))
            }
        };
        if let (Some(work), Some(call)) = (&mut self.work, call) {
            finish(work, call.id, &outcome);
        }
    }

    /// Tells the operator of a process that ended, or has to.
    fn bury(&self, process: Process, call: Option<&InFlight>, is_late: bool, shared: &mut Shared<'_>) {
        let (name, library, call_ms) = (self.name(), &shared.launcher.library, shared.options.own.call_ms);
        let method: String = call.map_or("no call", |call| &call.method).chars().take(SHOWN_SIZE_MAX).collect();
        let before = format!("-L {library}: the process of {name} ended in {method:?}");
        let after = if is_late { format!(": it took more than {call_ms} ms") } else { String::new() };
        shared.reaper.bury(process, before, after);
    }

    fn owe(&mut self, answer: Option<Vec<u8>>, options: &Options) {
        if let Some(mut answer) = answer {
            answer.push(end(options.protocol));
            (self.owed, self.owed_start) = (answer, 0);
        }
    }

    /// Writes what it is owed, as much as it takes. Who has gone is owed nothing.
    fn write(&mut self, options: &Options) {
        while self.owes() {
            match send(self.socket.as_raw_fd(), &self.owed[self.owed_start..], MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => self.owed_start += size,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.note_end(options);
                    break;
                }
            }
        }
        (self.owed, self.owed_start) = (Vec::new(), 0);
    }
}

impl Work {
    /// Bytes that it holds. What its process was asked is held there.
    fn held_size(&self) -> usize {
        let asked = if self.entries.is_empty() { 0 } else { self.size };
        let call = self.call.iter().map(|call| call.method.len() + call.id.as_deref().map_or(0, |id| id.get().len()));
        asked + call.sum::<usize>() + self.answer.size()
    }
}

/// Takes note of what came of a call; of a notification nobody hears.
fn finish(work: &mut Work, id: Option<Box<RawValue>>, outcome: &Outcome) {
    if id.is_some() {
        work.answer.push(id.as_deref(), outcome);
    }
}
