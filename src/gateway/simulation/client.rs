//! A simulated client and the shadow model of what it expects, derived from what it sent.

use std::collections::VecDeque;

use super::codec::Codec;
use super::pages::Answers;
use super::pipes::{Sent, source_bytes};
use super::world::{Name, World, tcp};
use crate::driver::sim::{Rng, Sim};
use crate::route::Protocol;
use crate::types::Address;

/// How a client behaves and ends its conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// Waits for all answers, closes with 1000 and waits for the close frame.
    Polite,
    /// Closes directly after its last message.
    Hasty,
    /// Aborts at a random point.
    Vanishes,
    /// Ends with an unmasked frame, a protocol error.
    Breaks,
    /// Stops reading and writing midway.
    Stalls,
    /// Continues to read, but answers no ping and never closes.
    Silent,
    /// Sends part of a request head or body and waits.
    Dawdles,
    /// Requests pages, with pipelining.
    Browses,
}

const MANNERS: [Manner; 8] = [
    Manner::Polite,
    Manner::Hasty,
    Manner::Vanishes,
    Manner::Breaks,
    Manner::Stalls,
    Manner::Silent,
    Manner::Dawdles,
    Manner::Browses,
];

/// A simulated client.
pub(super) struct Client {
    /// Index of its wire.
    pub(super) wire: usize,
    pub(super) manner: Manner,
    pub(super) name: &'static str,
    protocol: Protocol,
    out: Vec<u8>,
    written: usize,
    /// Whether the gateway may close it within a message because of what it sends.
    pub(super) may_be_cut: bool,
    /// Bytes to write before it acts as its manner says.
    patience: usize,
    received: Vec<u8>,
    /// What its bytes pass.
    codec: Codec,
    /// Status line and headers of the response, once complete.
    pub(super) head: Option<String>,
    /// Expected responses to its page requests.
    answers: Option<Answers>,
    /// Expected messages, or for a stream their bytes.
    expected: Vec<(bool, Vec<u8>)>,
    /// The expected bytes without message boundaries, and the number of them received.
    stream: Vec<u8>,
    stream_size: usize,
    messages: Vec<(bool, Vec<u8>)>,
    partial: Option<(bool, Vec<u8>)>,
    pings: VecDeque<Vec<u8>>,
    /// Whether the gateway has sent a ping.
    pub(super) was_pinged: bool,
    pub(super) close: Option<Option<u16>>,
    has_closed: bool,
    pub(super) is_over: bool,
}

impl Client {
    /// Creates a client with everything that it will send.
    pub(super) fn new(sim: &mut Sim, world: &World) -> Client {
        let manner = MANNERS[sim.rng.below(MANNERS.len())];
        // A large body must arrive within the request timeout.
        let least = if manner == Manner::Browses { 10 } else { 6 };
        let capacity = 1 << (least + sim.rng.below(18 - least));
        let port = world.ports[sim.rng.below(world.ports.len())];
        // A few hosts. Each client of a host has its own port number.
        let (host, own) = (1 + sim.rng.below(3), 1_000 + sim.wires.len());
        let address = match port {
            0 if sim.rng.one_in(20) => Address::Unknown,
            0 => Address::Unix,
            1 => tcp(&format!("127.0.0.{host}:{own}")),
            _ => tcp(&format!("[2001:db8:0:{host}::1]:{own}")),
        };
        let wire = sim.client(port, capacity, address);
        let codec = world.codec(port, &mut sim.rng);
        Client::on_wire(wire, manner, codec, sim, world)
    }

    /// Creates a client of a trunk.
    pub(super) fn on_stream(sim: &mut Sim, world: &World, address: Address) -> Client {
        let manner = MANNERS[sim.rng.below(MANNERS.len())];
        let capacity = 1 << (10 + sim.rng.below(8));
        let wire = sim.inner_wire(capacity, address);
        Client::on_wire(wire, manner, Codec::Plain, sim, world)
    }

    pub(super) fn on_wire(wire: usize, manner: Manner, codec: Codec, sim: &mut Sim, world: &World) -> Client {
        let rng = &mut sim.rng;
        let Name { path: name, protocol } = world.names[rng.below(world.names.len())];
        let mut client = Client {
            wire,
            manner,
            name,
            protocol,
            out: Vec::new(),
            written: 0,
            may_be_cut: world.is_tight(),
            patience: 0,
            received: Vec::new(),
            codec,
            head: None,
            answers: None,
            expected: Vec::new(),
            stream: Vec::new(),
            stream_size: 0,
            messages: Vec::new(),
            partial: None,
            pings: VecDeque::new(),
            was_pinged: false,
            close: None,
            has_closed: false,
            is_over: false,
        };
        match manner {
            Manner::Browses => client.answers = Some(Answers::draw(rng, &mut client.out)),
            Manner::Dawdles if rng.one_in(2) => client.out.extend(b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: "),
            Manner::Dawdles => client.out.extend(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab"),
            _ => client.converse(rng),
        }
        client.patience = match manner {
            Manner::Vanishes | Manner::Stalls => rng.below(client.out.len() + 1),
            _ => usize::MAX,
        };
        client
    }

    fn converse(&mut self, rng: &mut Rng) {
        let head = format!(
            "GET /{} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.name
        );
        self.out.extend(head.bytes());
        if self.name == "source" {
            // `source` accepts no messages.
            self.stream = source_bytes();
            self.ping(rng);
        } else {
            (0..rng.below(12)).for_each(|_| self.say(rng));
        }
        match self.manner {
            Manner::Hasty => self.frame(rng, 0x88, &1000u16.to_be_bytes()),
            Manner::Breaks => self.out.extend([0x81, 0x01, b'x']),
            _ => {}
        }
    }

    fn say(&mut self, rng: &mut Rng) {
        let size = match rng.below(10) {
            0 => 0,
            1 => 60_000 + rng.below(if self.has_borders() { 5_000 } else { 140_000 }),
            2..5 => 120 + rng.below(300),
            _ => rng.below(64),
        };
        let text = rng.one_in(2);
        let payload: Vec<u8> =
            (0..size).map(|_| if text { b'a' + rng.below(26) as u8 } else { rng.draw() as u8 | 0x80 }).collect();
        let opcode = if text { 0x1 } else { 0x2 };
        if rng.one_in(4) && size > 2 {
            let cut = 1 + rng.below(size - 1);
            self.frame(rng, opcode, &payload[..cut]);
            if rng.one_in(2) {
                self.ping(rng);
            }
            self.frame(rng, 0x80, &payload[cut..]);
        } else {
            self.frame(rng, 0x80 | opcode, &payload);
        }
        if rng.one_in(6) {
            self.ping(rng);
        }
        self.stream.extend_from_slice(&payload);
        self.expected.push((text, payload));
    }

    fn ping(&mut self, rng: &mut Rng) {
        let payload = rng.draw().to_be_bytes().to_vec();
        self.frame(rng, 0x89, &payload);
        self.pings.push_back(payload);
    }

    fn frame(&mut self, rng: &mut Rng, first: u8, payload: &[u8]) {
        self.masked(first, (rng.draw() as u32).to_be_bytes(), payload);
    }

    fn masked(&mut self, first: u8, key: [u8; 4], payload: &[u8]) {
        self.out.push(first);
        match payload.len() {
            size @ 0..=125 => self.out.push(0x80 | size as u8),
            size @ 126..=65_535 => {
                self.out.push(0xfe);
                self.out.extend((size as u16).to_be_bytes());
            }
            size => {
                self.out.push(0xff);
                self.out.extend((size as u64).to_be_bytes());
            }
        }
        self.out.extend(key);
        // Not by the function that unmasks it (RFC 6455 section 5.3).
        self.out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }

    /// Reads and writes some data, or nothing.
    pub(super) fn act(&mut self, sim: &mut Sim) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        if self.patience == 0 {
            if self.manner == Manner::Vanishes {
                let wire = &mut sim.wires[self.wire];
                if sim.rng.one_in(2) {
                    wire.reset()
                } else {
                    wire.leave()
                }
                self.is_over = true;
            }
            // A stalled client waits for the gateway's timeout or the end of the test.
            return;
        }
        self.write(sim);
        self.read(sim);
        if self.manner == Manner::Polite && !self.has_closed && self.has_all() {
            self.has_closed = true;
            let mut rng = Rng(sim.rng.draw());
            self.frame(&mut rng, 0x88, &1000u16.to_be_bytes());
        }
        if sim.wires[self.wire].is_at_end() {
            sim.wires[self.wire].finish();
            self.is_over = true;
        }
    }

    fn write(&mut self, sim: &mut Sim) {
        let most = (1 + sim.rng.below(100_000)).min(self.out.len() - self.written).min(self.patience);
        let bytes = &self.out[self.written..self.written + most];
        let written = self.codec.write(bytes, self.wire, sim);
        self.written += written;
        self.patience = self.patience.saturating_sub(written);
    }

    fn read(&mut self, sim: &mut Sim) {
        self.codec.read(self.wire, sim, &mut self.received);
        if let Some(answers) = &mut self.answers {
            while answers.take(&mut self.received) {}
            return;
        }
        if self.head.is_none() {
            let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let rest = self.received.split_off(at + 4);
            let head = std::mem::replace(&mut self.received, rest);
            self.head = Some(String::from_utf8(head).expect("an ASCII head"));
        }
        if self.has_opened() {
            while self.read_frame() {}
        }
    }

    /// Whether the protocol preserves message boundaries but not message types. Its messages have a
    /// maximum size.
    fn has_borders(&self) -> bool {
        matches!(self.protocol, Protocol::Packet | Protocol::Lines | Protocol::Nul)
    }

    /// Whether the opening handshake succeeded.
    pub(super) fn has_opened(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.starts_with("HTTP/1.1 101 "))
    }

    fn read_frame(&mut self) -> bool {
        let bytes = &self.received;
        let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else { return false };
        assert!(second < 0x80, "a server's frame is masked");
        let (size, start) = match second {
            126 if bytes.len() >= 4 => (u64::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 if bytes.len() >= 10 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()), 10),
            126 | 127 => return false,
            size => (u64::from(size), 2),
        };
        let end = start + size as usize;
        if bytes.len() < end {
            return false;
        }
        let payload: Vec<u8> = self.received.drain(..end).skip(start).collect();
        assert!(self.close.is_none(), "a frame behind the close frame");
        self.on_frame(first, payload);
        true
    }

    fn on_frame(&mut self, first: u8, payload: Vec<u8>) {
        match (first & 0x0f, first & 0x80 != 0) {
            (opcode @ (1 | 2), fin) => {
                assert!(self.partial.is_none(), "a message inside another");
                self.partial = Some((opcode == 1, payload));
                self.end_message(fin);
            }
            (0, fin) => {
                self.partial.as_mut().expect("a continuation of nothing").1.extend(payload);
                self.end_message(fin);
            }
            (8, true) => {
                self.close = Some(payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code)));
            }
            (9, true) => {
                self.was_pinged = true;
                if !self.has_closed && !matches!(self.manner, Manner::Hasty | Manner::Breaks | Manner::Silent) {
                    let key = [payload.len() as u8; 4];
                    self.masked(0x8a, key, &payload);
                }
            }
            (10, true) => {
                // Pongs arrive in order; earlier ones may be omitted (RFC 6455 section 5.5.3).
                while let Some(ping) = self.pings.pop_front() {
                    if ping == payload {
                        return;
                    }
                }
                panic!("a pong that answers no ping");
            }
            other => panic!("a frame that nobody expects: {other:?}"),
        }
    }

    fn end_message(&mut self, fin: bool) {
        if fin {
            let message = self.partial.take().expect("a message");
            self.messages.push(message);
            self.check_prefix();
        }
    }

    /// Asserts that the received data is a prefix of the data sent: byte for byte and, if the protocol preserves
    /// boundaries, message for message.
    fn check_prefix(&mut self) {
        let Some(got) = self.messages.last() else { return };
        if self.protocol == Protocol::Stream {
            let rest = &self.stream[self.stream_size..];
            assert!(rest.starts_with(&got.1), "bytes lost, doubled or out of order in a stream");
            self.stream_size += got.1.len();
            return;
        }
        let index = self.messages.len() - 1;
        let sent = self.expected.get(index).expect("more messages than were sent");
        let may_end_early = self.may_be_cut || !matches!(self.name, "echo" | "unix" | "tcp");
        let is_cut = may_end_early && matches!(self.protocol, Protocol::Lines | Protocol::Nul);
        // The last line may be cut if the backend or the client's connection ended within it.
        let is_right = got.1 == sent.1 || is_cut && sent.1.starts_with(&got.1);
        assert!(is_right, "message {index} of {:?} is not what was sent", self.protocol);
        if got.1 != sent.1 {
            return;
        }
        // Packets and lines have no type: valid UTF-8 becomes text.
        let is_text = if self.has_borders() { std::str::from_utf8(&sent.1).is_ok() } else { sent.0 };
        assert_eq!(got.0, is_text, "type of message {index}");
    }

    fn has_all(&self) -> bool {
        let is_complete = match self.protocol {
            _ if self.name == "sink" => true,
            Protocol::Stream => self.stream_size == self.stream.len(),
            _ => self.messages.len() == self.expected.len(),
        };
        self.written == self.out.len() && is_complete && self.has_opened()
    }

    /// Whether its backend echoes, sends or reads everything and stays until the end.
    fn has_faithful_backend(&self) -> bool {
        matches!(self.name, "echo" | "unix" | "tcp" | "tty" | "source" | "sink" | "ws")
    }

    /// The bytes of its messages to `sink`. None: a client of another backend.
    pub(super) fn sent(&self) -> Option<Sent<'_>> {
        // `sink` does not close first, so that 1000 answers the client's own close frame.
        let is_whole = self.close == Some(Some(1_000)) && matches!(self.manner, Manner::Polite | Manner::Hasty);
        (self.name == "sink").then_some(Sent { bytes: &self.stream, is_whole })
    }

    /// Describes its progress, for failure messages.
    pub(super) fn progress(&self) -> String {
        let (written, size) = (self.written, self.out.len());
        let (back, expected) = (self.stream_size.max(self.messages.len()), self.stream.len().max(self.expected.len()));
        format!("{:?} of {:?}: {written} of {size} bytes written, {back} of {expected} back", self.manner, self.name)
    }

    /// Asserts at the end of a run everything that the gateway guarantees to this client.
    pub(super) fn check_end(&self, is_stopped: bool, was_reloaded: bool) {
        let context =
            format!("{:?} client of {:?}: head {:?} close {:?}", self.manner, self.name, self.head, self.close);
        match self.manner {
            _ if self.codec.garbles() => {}
            Manner::Browses if !is_stopped => {
                let are_complete = self.answers.as_ref().is_some_and(|answers| answers.are_complete(was_reloaded));
                assert!(are_complete, "an answer is missing; {context}");
            }
            Manner::Dawdles if !is_stopped => {
                assert!(self.head.as_ref().is_some_and(|head| head.starts_with("HTTP/1.1 408 ")), "{context}");
            }
            // A hasty client may reach the close timeout first.
            Manner::Polite | Manner::Hasty | Manner::Breaks
                if self.has_faithful_backend() && self.has_opened() && !is_stopped =>
            {
                let code = if self.manner == Manner::Breaks { 1002 } else { 1000 };
                let is_whole = self.partial.is_none() && self.has_all();
                assert!(is_whole || self.manner != Manner::Polite, "{context}");
                assert!(self.close == Some(Some(code)) || !is_whole && self.close.is_none(), "{context}");
            }
            _ => {}
        }
    }
}
