//! A case's workbench: it submits operations, waits for their completions, and asserts that each completes once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::{BUFFERS, Family, File, Handle, Heard, Host, READ_SIZE_MAX, Scene};
use crate::driver::{
    Batch, Completion, Driver, Errno, Event, FileKind, Handover, HandoverStep, Lease, Op, OpenFor, Reach, Receive,
    Received, Rest, Segment, Sending, Share, SocketType, Token,
};
use crate::limits::{Http, POOL_HEADROOM};
use crate::types::Address;

/// Waits for one completion, and their length.
const WAITS_MAX: usize = 60;
const WAIT_MS: u64 = 1_000;
/// Looks at a far end, and the wait between two of them.
const LOOKS_MAX: usize = 12_000;
const LOOK_MS: u64 = 5;
/// The wait after a refused send: a delayed acknowledgement takes 40 ms.
const REFUSAL_MS: u64 = 20;
/// The last wait that shows that nothing completes.
const QUIET_MS: u64 = 10;
/// The wait that shows that nothing happens.
const IDLE_MS: u64 = 50;
/// Lines of the story that a failure tells.
const STORY_LINES_MAX: usize = 40;

/// What a case did and what the driver returned.
#[derive(Clone, Default)]
pub(super) struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    fn tell(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// The last lines.
    pub(super) fn tail(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = lines.len().saturating_sub(STORY_LINES_MAX);
        lines[start..].iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// The result of a receive. Its buffer was released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Got {
    Bytes(Vec<u8>),
    End,
    Failed(Errno),
}

/// How a connection comes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    TcpClient,
    UnixClient,
    UnixBackend,
    TcpBackend,
}

impl Route {
    pub(super) const ALL: [Route; 4] = [Route::TcpClient, Route::UnixClient, Route::UnixBackend, Route::TcpBackend];
    pub(super) const CLIENTS: [Route; 2] = [Route::TcpClient, Route::UnixClient];

    pub(super) fn is_tcp(self) -> bool {
        matches!(self, Route::TcpClient | Route::TcpBackend)
    }
}

/// A connection with both ends.
pub(super) struct Line<S: Scene> {
    pub(super) token: Token,
    pub(super) handle: Handle<S>,
    pub(super) far: S::Far,
}

/// A scene, and the operations in flight.
pub(super) struct Bench<S: Scene> {
    pub(super) scene: S,
    /// The scene's folder.
    pub(super) root: Handle<S>,
    slots: u32,
    /// The tokens of operations in flight, and the tokens that cancel them.
    in_flight: Vec<(Token, Token)>,
    /// Completions that the case has not taken.
    arrived: VecDeque<Completion<Handle<S>>>,
    story: Story,
    /// Whether the case has dropped the driver.
    is_dropped: bool,
}

/// Bytes that differ from offset to offset.
pub(super) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

/// A batch of one heap segment.
pub(super) fn batch(bytes: &[u8]) -> Batch {
    Batch { first: Segment::heap(bytes.into()), rest: Vec::new() }
}

impl<S: Scene> Bench<S> {
    pub(super) fn new(mut scene: S, story: Story) -> Bench<S> {
        let root = scene.folder();
        Bench { scene, root, slots: 0, in_flight: Vec::new(), arrived: VecDeque::new(), story, is_dropped: false }
    }

    pub(super) fn driver(&mut self) -> &mut S::Driver {
        self.scene.driver()
    }

    /// A token of a new slot, for all operations of a descriptor.
    pub(super) fn token(&mut self) -> Token {
        self.slots += 1;
        Token { slot: self.slots, generation: 1, op: Op::Receive }
    }

    fn begin(&mut self, token: Token, cancel_op: Op) {
        assert!(!self.is_in_flight(token, token.op), "the case submits {token:?} twice");
        self.story.tell(format!("begin {}: {:?}", token.slot, token.op));
        self.in_flight.push((token, Token { op: cancel_op, ..token }));
    }

    pub(super) fn is_in_flight(&self, token: Token, op: Op) -> bool {
        self.in_flight.iter().any(|(own, _)| *own == Token { op, ..token })
    }

    pub(super) fn accept(&mut self, token: Token, listener: &Handle<S>) {
        let token = Token { op: Op::Accept, ..token };
        self.begin(token, Op::Accept);
        self.driver().accept(token, listener);
    }

    pub(super) fn receive(&mut self, token: Token, socket: &Handle<S>, how: Receive) {
        let token = Token { op: Op::Receive, ..token };
        self.begin(token, if how == Receive::Device { Op::Readable } else { Op::Receive });
        self.driver().receive(token, socket, how);
    }

    pub(super) fn send(&mut self, token: Token, socket: &Handle<S>, batch: Batch, how: Sending) {
        let token = Token { op: Op::Send, ..token };
        self.begin(token, if how == Sending::Device { Op::Writable } else { Op::Send });
        self.driver().send(token, socket, batch, how);
    }

    pub(super) fn open(&mut self, token: Token, name: &str, purpose: OpenFor) {
        let token = Token { op: Op::Open, ..token };
        self.begin(token, Op::Open);
        let path = std::ffi::CString::new(name).expect("no NUL");
        self.scene.driver().open(token, Reach::Beneath(&self.root), path, purpose);
    }

    pub(super) fn open_by(&mut self, token: Token, reach: Reach<'_, Handle<S>>, path: &std::ffi::CStr, how: OpenFor) {
        let token = Token { op: Op::Open, ..token };
        self.begin(token, Op::Open);
        self.driver().open(token, reach, path.to_owned(), how);
    }

    pub(super) fn connect(&mut self, token: Token, file: &Handle<S>, socket_type: SocketType) {
        let token = Token { op: Op::Connect, ..token };
        self.begin(token, Op::Connect);
        self.driver().connect(token, file, socket_type);
    }

    pub(super) fn connect_tcp(&mut self, token: Token, address: SocketAddr) {
        let token = Token { op: Op::Connect, ..token };
        self.begin(token, Op::Connect);
        self.driver().connect_tcp(token, address, &Http::default());
    }

    pub(super) fn hand_over(&mut self, token: Token, file: &Handle<S>, client: &Handle<S>, handover: Handover) {
        let token = Token { op: Op::Connect, ..token };
        self.begin(token, Op::Connect);
        self.driver().hand_over(token, file, client, handover);
    }

    pub(super) fn read(&mut self, token: Token, file: &Handle<S>, offset: u64) {
        let token = Token { op: Op::Read, ..token };
        self.begin(token, Op::Read);
        self.driver().read(token, file, offset);
    }

    pub(super) fn cancel(&mut self, token: Token, op: Op) {
        self.story.tell(format!("cancel {}: {op:?}", token.slot));
        self.driver().cancel(Token { op, ..token });
    }

    /// Waits once.
    pub(super) fn pump(&mut self, timeout_ms: Option<u64>) -> Rest {
        let mut completions = Vec::new();
        let rest = self.driver().wait(timeout_ms, &mut completions).expect("a wait");
        for completion in completions {
            self.on_completion(completion);
        }
        rest
    }

    fn on_completion(&mut self, completion: Completion<Handle<S>>) {
        let token = completion.token;
        let is_last = match &completion.event {
            Event::Accepted { more, .. } | Event::Received { more, .. } => !more,
            _ => true,
        };
        self.story.tell(format!("{} has {}", token.slot, describe(&completion.event)));
        let index = self.in_flight.iter().position(|(own, _)| *own == token);
        match index {
            _ if token.op == Op::Signal => {}
            Some(index) if is_last => drop(self.in_flight.remove(index)),
            Some(_) => {}
            None => panic!("nothing is in flight for {token:?}: {}", describe(&completion.event)),
        }
        self.arrived.push_back(completion);
    }

    /// Number of completions that the case has not taken.
    pub(super) fn arrivals(&self) -> usize {
        self.arrived.len()
    }

    /// Whether a completion of this operation has arrived.
    pub(super) fn has_arrived(&self, token: Token, op: Op) -> bool {
        self.arrived.iter().any(|completion| completion.token == Token { op, ..token })
    }

    /// The next completion of an operation.
    pub(super) fn next(&mut self, token: Token, op: Op) -> Event<Handle<S>> {
        let token = Token { op, ..token };
        for _ in 0..WAITS_MAX {
            if let Some(index) = self.arrived.iter().position(|completion| completion.token == token) {
                return self.arrived.remove(index).expect("its place").event;
            }
            assert!(op == Op::Signal || self.is_in_flight(token, op), "the case waits for {token:?}, not in flight");
            self.pump(Some(WAIT_MS));
        }
        panic!("{token:?} has not completed within {WAITS_MAX} waits");
    }

    pub(super) fn accepted(&mut self, token: Token) -> (Result<(Handle<S>, Address), Errno>, bool) {
        match self.next(token, Op::Accept) {
            Event::Accepted { result, more } => (result, more),
            other => panic!("{}", describe(&other)),
        }
    }

    /// The next received data with its buffer.
    pub(super) fn leased(&mut self, token: Token) -> (Received, bool) {
        match self.next(token, Op::Receive) {
            Event::Received { result, more } => (result, more),
            other => panic!("{}", describe(&other)),
        }
    }

    fn got_of(&mut self, received: Received) -> Got {
        match received {
            Received::Data(lease) => Got::Bytes(self.take(lease)),
            Received::End => Got::End,
            Received::Failed(errno) => Got::Failed(errno),
        }
    }

    pub(super) fn got(&mut self, token: Token) -> (Got, bool) {
        let (received, more) = self.leased(token);
        (self.got_of(received), more)
    }

    /// Copies the bytes of a buffer and releases it.
    pub(super) fn take(&mut self, lease: Lease) -> Vec<u8> {
        assert!(lease.start as usize >= POOL_HEADROOM, "no headroom: {lease:?}");
        let bytes = self.driver().buffer(&lease)[lease.range()].to_vec();
        self.driver().release(lease);
        bytes
    }

    pub(super) fn sent(&mut self, token: Token) -> (Batch, Result<usize, Errno>) {
        match self.next(token, Op::Send) {
            Event::Sent { batch, result } => (batch, result),
            other => panic!("{}", describe(&other)),
        }
    }

    pub(super) fn opened(&mut self, token: Token) -> Result<(Handle<S>, FileKind), Errno> {
        match self.next(token, Op::Open) {
            Event::Opened(result) => result,
            other => panic!("{}", describe(&other)),
        }
    }

    pub(super) fn connected(&mut self, token: Token) -> Result<Handle<S>, Errno> {
        match self.next(token, Op::Connect) {
            Event::Connected(result) => result,
            other => panic!("{}", describe(&other)),
        }
    }

    pub(super) fn handed_over(&mut self, token: Token) -> Result<Option<Handle<S>>, (HandoverStep, Errno)> {
        match self.next(token, Op::Connect) {
            Event::HandedOver(result) => result,
            other => panic!("{}", describe(&other)),
        }
    }

    pub(super) fn was_read(&mut self, token: Token) -> Got {
        match self.next(token, Op::Read) {
            Event::Received { result, more: false } => self.got_of(result),
            other => panic!("{}", describe(&other)),
        }
    }

    /// Asserts that nothing completes.
    pub(super) fn expect_quiet(&mut self) {
        for wait_ms in [0, 0, QUIET_MS] {
            self.pump(Some(wait_ms));
            assert_eq!(self.arrivals(), 0, "nothing was expected");
        }
    }

    /// Asserts that nothing even wakes the driver up.
    pub(super) fn expect_idle(&mut self) {
        let before_ms = self.driver().now_ms();
        self.pump(Some(IDLE_MS));
        let passed_ms = self.driver().now_ms() - before_ms;
        assert_eq!(self.arrivals(), 0, "nothing was expected");
        assert!(passed_ms >= IDLE_MS / 2, "something has ended the wait after {passed_ms} ms");
    }

    /// Looks until there is a result, and lets the driver work meanwhile.
    pub(super) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut S) -> Option<T>) -> T {
        for _ in 0..LOOKS_MAX {
            if let Some(found) = look(&mut self.scene) {
                return found;
            }
            self.pump(Some(LOOK_MS));
        }
        panic!("not within {LOOKS_MAX} looks: {what}");
    }

    /// The far end writes all bytes.
    pub(super) fn tell(&mut self, far: &S::Far, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let size = self.until("room for a far end's bytes", |scene| scene.write(far, bytes));
            bytes = &bytes[size..];
        }
    }

    /// The far end reads exactly this many bytes.
    pub(super) fn hear(&mut self, far: &S::Far, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < size {
            match self.hear_at_most(far, size - bytes.len()) {
                Heard::Bytes(more) => bytes.extend(more),
                other => panic!("the far end has {other:?} after {} of {size} bytes", bytes.len()),
            }
        }
        bytes
    }

    /// The far end reads what is there, without letting the driver work; removes it from what is expected.
    pub(super) fn hear_all_now(&mut self, far: &S::Far, expected: &mut Vec<u8>) {
        while let Heard::Bytes(bytes) = self.scene.read(far, READ_SIZE_MAX) {
            assert!(expected.starts_with(&bytes), "other bytes");
            expected.drain(..bytes.len());
        }
    }

    /// What a far end has next.
    pub(super) fn hear_next(&mut self, far: &S::Far) -> Heard {
        self.hear_at_most(far, READ_SIZE_MAX)
    }

    fn hear_at_most(&mut self, far: &S::Far, size_max: usize) -> Heard {
        self.until("anything at the far end", |scene| {
            Some(scene.read(far, size_max)).filter(|heard| *heard != Heard::Nothing)
        })
    }

    /// Receives this many bytes; a receive is submitted whenever none is in flight.
    pub(super) fn gather(&mut self, line: &Line<S>, how: Receive, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < size {
            match self.receive_next(line, how) {
                Got::Bytes(more) => bytes.extend(more),
                other => panic!("{other:?} after {} of {size} bytes", bytes.len()),
            }
        }
        assert_eq!(bytes.len(), size, "more was received");
        bytes
    }

    /// The next result of a receive, which is submitted if none is in flight.
    pub(super) fn receive_next(&mut self, line: &Line<S>, how: Receive) -> Got {
        loop {
            if !self.is_in_flight(line.token, Op::Receive) && !self.has_arrived(line.token, Op::Receive) {
                self.receive(line.token, &line.handle, how);
            }
            match self.got(line.token).0 {
                // A device may wake a receive up for nothing.
                Got::Failed(Errno::EAGAIN) if how == Receive::Device => {}
                got => return got,
            }
        }
    }

    /// Sends all bytes.
    pub(super) fn send_all(&mut self, line: &Line<S>, bytes: &[u8], how: Sending) {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.send(line.token, &line.handle, batch(rest), how);
            let (_, result) = self.sent(line.token);
            rest = &rest[result.expect("a send")..];
        }
    }

    /// Sends until nothing more fits; returns what was sent.
    pub(super) fn fill(&mut self, line: &Line<S>) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut refusals = 0;
        // The far end's kernel may acknowledge bytes late, and take some more then.
        let is_tcp = self.is_tcp(line);
        while refusals < if is_tcp { 4 } else { 1 } {
            let bytes = pattern(50_000);
            self.send(line.token, &line.handle, batch(&bytes), Sending::Now);
            match self.sent(line.token).1 {
                Ok(size) => {
                    sent.extend(&bytes[..size]);
                    refusals = 0;
                }
                Err(Errno::EAGAIN) => {
                    refusals += 1;
                    self.pump(Some(REFUSAL_MS));
                }
                Err(errno) => panic!("{errno}"),
            }
        }
        sent
    }

    /// Lets a send of these bytes wait for space; returns what was sent before.
    pub(super) fn block(&mut self, line: &Line<S>, bytes: &[u8]) -> Vec<u8> {
        self.block_by(line, || batch(bytes))
    }

    /// Lets a send of this batch wait for space; returns what was sent before.
    pub(super) fn block_by(&mut self, line: &Line<S>, batch: impl Fn() -> Batch) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            sent.extend(self.fill(line));
            self.send(line.token, &line.handle, batch(), Sending::Wait);
            for wait_ms in [0, QUIET_MS, REFUSAL_MS] {
                self.pump(Some(wait_ms));
            }
            if !self.has_arrived(line.token, Op::Send) {
                return sent;
            }
            // A busy machine's kernel acknowledges bytes of TCP later than `fill` waits.
            let (batch, result) = self.sent(line.token);
            let size = result.expect("a send");
            assert!(size > 0 && self.is_tcp(line), "a send that waits for space has sent {size} bytes without");
            let end = sent.len() + size;
            batch.into_segments().for_each(|segment| segment.append_to(self.driver(), &mut sent));
            sent.truncate(end);
        }
    }

    /// Whether a socket is one of TCP. UNIX sockets have room again only when the far end has read.
    fn is_tcp(&mut self, line: &Line<S>) -> bool {
        matches!(self.driver().local_address(&line.handle), Address::Tcp(_))
    }

    /// A new connection.
    pub(super) fn line(&mut self, route: Route) -> Line<S> {
        match route {
            Route::TcpClient => self.client_line(Family::Tcp),
            Route::UnixClient => self.client_line(Family::Unix),
            Route::UnixBackend => self.backend_line(SocketType::Stream),
            Route::TcpBackend => {
                let token = self.token();
                let address = self.scene.host(Host::Answering);
                self.connect_tcp(token, address);
                let handle = self.connected(token).expect("a connection");
                self.scene.keep_small(&handle);
                let far = self.until("the connection", |scene| scene.arrived(&address.to_string()));
                Line { token, handle, far }
            }
        }
    }

    /// A new connection that carries packets.
    pub(super) fn packet_line(&mut self) -> Line<S> {
        self.backend_line(SocketType::SeqPacket)
    }

    fn client_line(&mut self, family: Family) -> Line<S> {
        let (listening, token) = (self.token(), self.token());
        let (listener, port) = self.scene.listener(family);
        self.accept(listening, &listener);
        let far = self.scene.client(port);
        let (handle, _) = self.accepted(listening).0.expect("a client");
        self.close(listening, listener);
        Line { token, handle, far }
    }

    fn backend_line(&mut self, socket_type: SocketType) -> Line<S> {
        let (opening, token) = (self.token(), self.token());
        let name = format!("backend-{}", token.slot);
        self.scene.add(&name, File::Listening(socket_type));
        let file = self.socket_file(opening, &name);
        self.connect(token, &file, socket_type);
        let handle = self.connected(token).expect("a connection");
        self.close(opening, file);
        let far = self.until("the connection", |scene| scene.arrived(&name));
        Line { token, handle, far }
    }

    /// Opens a socket's file.
    pub(super) fn socket_file(&mut self, token: Token, name: &str) -> Handle<S> {
        self.open(token, name, OpenFor::Connecting);
        let (file, kind) = self.opened(token).expect("a file");
        assert!(matches!(kind, FileKind::Socket(_)), "{kind:?}");
        file
    }

    /// Cancels what is in flight for a slot, and waits for its end.
    pub(super) fn end_operations(&mut self, token: Token) {
        let is_own = |other: Token| (other.slot, other.generation) == (token.slot, token.generation);
        let own: Vec<Token> = self.in_flight.iter().filter(|(one, _)| is_own(*one)).map(|(_, by)| *by).collect();
        for by in own {
            self.driver().cancel(by);
        }
        for _ in 0..WAITS_MAX {
            if !self.in_flight.iter().any(|(one, _)| is_own(*one)) {
                break;
            }
            self.pump(Some(WAIT_MS));
        }
        assert!(!self.in_flight.iter().any(|(one, _)| is_own(*one)), "a cancelled operation has not ended");
        for Completion { token, event } in std::mem::take(&mut self.arrived) {
            if is_own(token) {
                self.discard(event);
            } else {
                self.arrived.push_back(Completion { token, event });
            }
        }
    }

    /// Releases what an event holds.
    pub(super) fn discard(&mut self, event: Event<Handle<S>>) {
        match event {
            Event::Received { result: Received::Data(lease), .. } => self.driver().release(lease),
            Event::Sent { batch, .. } => self.release_batch(batch),
            Event::Accepted { result: Ok((handle, _)), .. }
            | Event::Opened(Ok((handle, _)))
            | Event::Connected(Ok(handle))
            | Event::HandedOver(Ok(Some(handle))) => self.driver().close(handle),
            _ => {}
        }
    }

    /// Releases the buffers of a batch.
    pub(super) fn release_batch(&mut self, batch: Batch) {
        for segment in batch.into_segments() {
            if let Segment::Pool(lease) = segment {
                self.driver().release(lease);
            }
        }
    }

    /// Ends all operations of a descriptor, then closes it.
    pub(super) fn close(&mut self, token: Token, handle: Handle<S>) {
        self.end_operations(token);
        self.driver().close(handle);
    }

    /// Closes the driver's end, and drops the far end.
    pub(super) fn close_line(&mut self, line: Line<S>) {
        self.close(line.token, line.handle);
    }

    /// Drops the driver with what is in flight.
    pub(super) fn drop_driver(&mut self) {
        self.in_flight.clear();
        self.arrived.clear();
        self.scene.drop_driver();
        self.is_dropped = true;
    }

    /// Asserts that nothing is in flight, nothing has arrived, and nothing is lent.
    pub(super) fn end(mut self) {
        if self.is_dropped {
            return;
        }
        self.pump(Some(0));
        assert!(self.in_flight.is_empty(), "the case has left in flight: {:?}", self.in_flight);
        let left: Vec<String> = self.arrived.iter().map(|completion| describe(&completion.event)).collect();
        assert!(left.is_empty(), "it has completed more than once: {left:?}");
        for share in Share::ALL {
            let (free, all) = (self.driver().buffers_free(share), self.driver().buffers(share));
            assert_eq!(free, all, "buffers are lent: {share:?}");
            assert_eq!(all, share.size(BUFFERS as usize));
        }
        assert_eq!(self.scene.leaks(), "");
    }
}

/// An event in a few words.
pub(super) fn describe<H>(event: &Event<H>) -> String {
    let more_of = |more: &bool| if *more { ", more" } else { "" };
    match event {
        Event::Accepted { result: Ok((_, address)), more } => format!("accepted {address:?}{}", more_of(more)),
        Event::Accepted { result: Err(errno), more } => format!("accepted {errno:?}{}", more_of(more)),
        Event::Received { result: Received::Data(lease), more } => {
            format!("received {} bytes in {:?}{}", lease.len(), lease.share, more_of(more))
        }
        Event::Received { result, more } => format!("received {result:?}{}", more_of(more)),
        Event::Sent { batch, result } => format!("sent {result:?} of {}", batch.len()),
        Event::Opened(result) => format!("opened {:?}", result.as_ref().map(|(_, kind)| *kind)),
        Event::Connected(result) => format!("connected {:?}", result.as_ref().map(|_| ())),
        Event::HandedOver(result) => format!("handed over {:?}", result.as_ref().map(|kept| kept.is_some())),
        Event::Signal(number) => format!("signal {number}"),
        Event::FilesChanged => "files changed".to_owned(),
    }
}
