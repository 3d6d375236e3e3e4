//! One client: the bytes it sent, its request in progress, its unsent answer. One request is handled at a time and
//! nothing is read meanwhile, which limits its memory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use server::options::Protocol;
use server::record::{HelloError, Record, has_hung_up, peer_address};
use websocket::deadline::Deadline;

use super::Options;
use super::framing::Finder;
use super::http::{self, CONTINUE, Found};
use super::limits::{CLIENT_MS, MESSAGE_SIZE_MAX};
use super::message::{Refusal, Reply, Request, answer, parse};
use super::rates::{Cost, Party};

/// What the loop has to do for a client.
pub(crate) enum Next {
    /// Nothing until there is an event.
    Wait,
    /// Forget it.
    Leave,
    /// Judge its address, which has become known.
    Known,
    /// Answer this message.
    Answer(Result<Request, Refusal>),
}

pub(crate) struct Client {
    socket: OwnedFd,
    is_packet: bool,
    /// The hello record until it is complete; None: it is, or none is expected.
    record: Option<Record>,
    /// The address in the hello record; None: unknown.
    pub(crate) address: Option<String>,
    pub(crate) party: Party,
    finder: Finder,
    /// The request over HTTP, in place of `finder`.
    http: Option<http::Finder>,
    /// Its message, until the address is judged.
    message: Option<Result<Request, Refusal>>,
    /// Received bytes, after `found_size` bytes that the finder has consumed.
    unread: Vec<u8>,
    found_size: usize,
    /// The cost of the request in progress.
    pub(crate) cost: Option<Cost>,
    /// The request in progress is a login.
    pub(crate) is_login: bool,
    /// The connection has ended during a request.
    is_gone: bool,
    /// The answer, after `sent_size` bytes that were sent.
    unsent: Vec<u8>,
    sent_size: usize,
    /// It leaves once its answer is sent.
    is_last: bool,
    deadline: Deadline,
}

impl Client {
    /// An accepted socket that does not block. `number` is never used again.
    pub(crate) fn new(socket: OwnedFd, number: u64, options: &Options) -> Client {
        let address = peer_address(socket.as_fd()).map(|address| address.to_string());
        Client {
            socket,
            is_packet: options.protocol == Protocol::Packet,
            record: options.hello.then(Record::default),
            party: party_of(address.as_deref(), number),
            address,
            finder: Finder::default(),
            http: options.own.http.then(http::Finder::default),
            message: None,
            unread: Vec::new(),
            found_size: 0,
            cost: None,
            is_login: false,
            is_gone: false,
            unsent: Vec::new(),
            sent_size: 0,
            is_last: false,
            deadline: Deadline::after_ms(CLIENT_MS),
        }
    }

    /// Its socket and the events to wait for. None: there is nothing to wait for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let events = match () {
            // poll(2) would report the end again and again.
            () if self.is_gone => return None,
            () if self.cost.is_some() => PollFlags::empty(),
            () if self.has_unsent() => PollFlags::POLLOUT,
            () => PollFlags::POLLIN,
        };
        Some((self.socket.as_fd(), events))
    }

    /// When it leaves. A request in progress has no deadline.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.cost.is_none().then_some(self.deadline)
    }

    /// Its name in the log. The address was parsed, so that it needs no escapes.
    pub(crate) fn name(&self) -> &str {
        self.address.as_deref().unwrap_or("a client")
    }

    /// Handles events, and goes on until it has to wait. `number` is that of `new`.
    pub(crate) fn turn(&mut self, events: PollFlags, number: u64, buffer: &mut [u8]) -> Next {
        if self.cost.is_some() {
            self.is_gone |= events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            return Next::Wait;
        }
        if self.has_unsent() && !self.write() {
            return Next::Leave;
        }
        if self.has_unsent() {
            return if self.deadline.is_over() { Next::Leave } else { Next::Wait };
        }
        if self.is_last || self.is_gone {
            return Next::Leave;
        }
        if let Some(message) = self.message.take() {
            return Next::Answer(message);
        }
        if let Some(found) = self.find() {
            return Next::Answer(found);
        }
        if self.deadline.is_over() {
            return Next::Leave;
        }
        if self.record.is_some() { self.receive_record(number) } else { self.receive(number, buffer) }
    }

    /// Queues an answer.
    pub(crate) fn answer(&mut self, result: &Result<Reply, Refusal>) {
        let text = match (&self.http, self.is_packet) {
            (Some(_), _) => http::reply(result),
            (None, true) => answer(result),
            (None, false) => answer(result) + "\n",
        };
        (self.unsent, self.sent_size) = (text.into_bytes(), 0);
        self.is_last |= self.http.is_some() || result.as_ref().is_err_and(Refusal::is_last);
        self.deadline = Deadline::after_ms(CLIENT_MS);
    }

    /// Queues a refusal after which the connection ends.
    pub(crate) fn dismiss(&mut self, refusal: Refusal) {
        self.answer(&Err(refusal));
        self.is_last = true;
    }

    fn has_unsent(&self) -> bool {
        self.sent_size < self.unsent.len()
    }

    /// The next message in the received bytes.
    fn find(&mut self) -> Option<Result<Request, Refusal>> {
        let found = self.finder.next(&self.unread, &mut self.found_size);
        if found.is_none() {
            (self.unread, self.found_size) = (Vec::new(), 0);
        }
        found.map(|found| found.and_then(|text| parse(&text)))
    }

    fn receive_record(&mut self, number: u64) -> Next {
        let Some(record) = &mut self.record else { return Next::Wait };
        match record.receive(self.socket.as_fd(), self.is_packet) {
            Ok(Some(hello)) => {
                self.record = None;
                self.address = hello.client.map(|client| client.ip().to_canonical().to_string());
                self.party = party_of(self.address.as_deref(), number);
                Next::Known
            }
            Ok(None) => Next::Wait,
            Err(HelloError::Io(_)) => Next::Leave,
            // Not the gateway, or one without hello: what follows is no message either.
            Err(_) => {
                self.dismiss(Refusal::Malformed);
                Next::Known
            }
        }
    }

    fn receive(&mut self, number: u64, buffer: &mut [u8]) -> Next {
        let size = match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) if !self.is_packet || has_hung_up(self.socket.as_fd()) => return Next::Leave,
            Ok(size) => size,
            Err(Errno::EAGAIN | Errno::EINTR) => return Next::Wait,
            Err(_) => return Next::Leave,
        };
        let bytes = buffer.get(..size).unwrap_or_default();
        if self.is_packet {
            let is_long = size > MESSAGE_SIZE_MAX;
            return Next::Answer(if is_long { Err(Refusal::TooLong) } else { parse(bytes) });
        }
        if self.http.is_some() {
            let found = self.http.as_mut().and_then(|finder| finder.next(bytes));
            return found.map_or(Next::Wait, |found| self.take_request(found, number));
        }
        self.unread = bytes.to_vec();
        match self.find() {
            Some(found) => Next::Answer(found),
            None => Next::Wait,
        }
    }

    /// Takes what was found in a request over HTTP.
    fn take_request(&mut self, found: Found, number: u64) -> Next {
        match found {
            Found::Continue => {
                (self.unsent, self.sent_size) = (CONTINUE.as_bytes().to_vec(), 0);
                Next::Wait
            }
            Found::Message { address, text } => {
                if let Some(address) = address {
                    self.address = Some(address.to_string());
                    self.party = party_of(self.address.as_deref(), number);
                }
                self.message = Some(text.and_then(|text| parse(&text)));
                Next::Known
            }
        }
    }

    /// Sends the answer, as far as the socket takes it. False: the connection is broken.
    fn write(&mut self) -> bool {
        while let Some(bytes) = self.unsent.get(self.sent_size..).filter(|bytes| !bytes.is_empty()) {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
                Ok(size) => self.sent_size += size,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        (self.unsent, self.sent_size) = (Vec::new(), 0);
        true
    }
}

fn party_of(address: Option<&str>, number: u64) -> Party {
    address.map_or(Party::Connection(number), |address| Party::Address(authrpc::group(address)))
}
