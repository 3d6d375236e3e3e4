//! A relay whose backend is a node: the gateway is its client.

use std::collections::HashSet;
use std::sync::Arc;

use super::*;
use crate::driver::SystemError;
use crate::exchange::{Effects, Exchange, Facts, Phase, Surroundings};
use crate::http::date::Date;
use crate::route::{Site, Sites};
use rfc6455::header::{self, HEADER_SIZE_MAX, KEY_SIZE};
use rfc6455::mask;

const KEY: [u8; KEY_SIZE] = [0x12, 0xa4, 0x5f, 0x03];
const IDLE_MS: u64 = 60_000;

/// A client, a node, and what each of them was sent.
struct Peers {
    exchange: Exchange,
    sites: Sites,
    date: Date,
    /// What the exchange did, one line an effect; a frame is `END OPCODE PAYLOAD`, with + if another one follows.
    lines: Vec<String>,
    to_node: Vec<u8>,
    to_client: Vec<u8>,
}

impl Peers {
    fn new() -> Peers {
        let limits = WebSocket { idle_ms: IDLE_MS, ping_ms: 0, message_size_max: 1 << 20, ..WebSocket::default() };
        let service = Arc::new(Service { protocol: Protocol::Frames, limits, ..Service::default() });
        let (date, sites) = (Date::default(), Sites::new(Arc::new(Site::default()), Vec::new()));
        let (mut facts, mut effects) = (Facts::default(), Effects::default());
        let mut context = Context::new(Surroundings::plain(&date, &sites), &mut facts, &mut effects);
        let seat = Seat::take(&service, 1).unwrap();
        let (protocol, traits) = (Protocol::Frames, BackendTraits::Node);
        let relay = Relay::new(seat, protocol, MessageType::Auto, traits, None, &mut context);
        let exchange = Exchange { phase: Phase::Relay(relay), facts, ..Exchange::default() };
        Peers { exchange, sites, date, lines: Vec::new(), to_node: Vec::new(), to_client: Vec::new() }
    }

    /// Passes in bytes, as one receive.
    fn receive(&mut self, from: End, bytes: &[u8]) {
        let mut buffer = vec![0xa5; limits::POOL_HEADROOM];
        buffer.extend_from_slice(bytes);
        let (mut start, end) = (limits::POOL_HEADROOM, buffer.len());
        loop {
            let chunk = Chunk { buffer: &mut buffer, start, end };
            let effects = self.effects_of(Input::Bytes(from, chunk), 1);
            let later = effects.iter().find_map(|effect| match effect {
                Effect::Later { start, .. } => Some(*start),
                _ => None,
            });
            for effect in effects {
                match effect {
                    Effect::Forward { to, range } => {
                        assert!(range.start + HEADER_SIZE_MAX >= start, "no more headroom than a header is used");
                        assert!(range.end <= later.unwrap_or(end), "bytes that were not consumed are overwritten");
                        self.sent(to, &buffer[range]);
                    }
                    other => self.apply(other),
                }
            }
            match later {
                Some(later) => start = later,
                None => break,
            }
        }
        let guard = &buffer[..limits::POOL_HEADROOM - HEADER_SIZE_MAX];
        assert!(guard.iter().all(|byte| *byte == 0xa5), "the headroom is not the exchange's");
    }

    fn handle(&mut self, input: Input<'_>, now_ms: u64) {
        self.effects_of(input, now_ms).into_iter().for_each(|effect| self.apply(effect));
    }

    fn effects_of(&mut self, input: Input<'_>, now_ms: u64) -> Vec<Effect> {
        let mut effects = Effects::default();
        let around = Surroundings { now_ms, since_ms: now_ms, ..Surroundings::plain(&self.date, &self.sites) };
        self.exchange.handle(around, input, &mut effects);
        effects.drain().collect()
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } | Effect::SendLast { to, bytes } | Effect::Pong { to, bytes } => {
                self.sent(to, &bytes);
            }
            Effect::Finish(end) => self.lines.push(format!("{} finished", name(end))),
            Effect::Abandon(end) => self.lines.push(format!("{} abandoned", name(end))),
            Effect::Over(ending) => self.lines.push(format!("over: {ending}")),
            _ => {}
        }
    }

    fn sent(&mut self, to: End, bytes: &[u8]) {
        let masking = if to == End::Backend { Masking::Required } else { Masking::Forbidden };
        for (header, payload) in frames(bytes, masking) {
            let more = if header.fin { "" } else { "+" };
            let payload = match (header.opcode, payload.split_first_chunk::<2>()) {
                (Opcode::Close, Some((code, reason))) => {
                    format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
                }
                _ => String::from_utf8_lossy(&payload).into_owned(),
            };
            self.lines.push(format!("{} {:?}{more} {payload}", name(to), header.opcode));
        }
        match to {
            End::Client => self.to_client.extend_from_slice(bytes),
            End::Backend => self.to_node.extend_from_slice(bytes),
        }
    }
}

fn name(end: End) -> &'static str {
    if end == End::Client { "client" } else { "node" }
}

/// Complete frames, unmasked.
fn frames(mut bytes: &[u8], masking: Masking) -> Vec<(header::Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (header, size) = header::parse(bytes, masking).expect("a correct header").expect("a complete header");
        let (frame, rest) = bytes.split_at(size + header.length as usize);
        let mut payload = frame[size..].to_vec();
        mask::apply(&mut payload, header.key.unwrap_or_default(), 0);
        frames.push((header, payload));
        bytes = rest;
    }
    frames
}

/// One thing that happens at an end.
enum Step {
    /// The client sends a masked frame: its first byte and its payload.
    Client(u8, &'static [u8]),
    /// The node sends an unmasked frame.
    Node(u8, &'static [u8]),
    /// These bytes come from this end.
    Raw(End, &'static [u8]),
    Ends(End),
    Fails(End),
    Stops,
    /// The deadline passes, at this time.
    Deadline(u64),
}

use Step::*;

fn lines_of(steps: &[Step]) -> Vec<String> {
    let mut peers = Peers::new();
    for step in steps {
        match *step {
            Client(first, payload) => peers.receive(End::Client, &encoder::masked_frame(first, payload, KEY)),
            Node(first, payload) => peers.receive(End::Backend, &unmasked(first, payload)),
            Raw(from, bytes) => peers.receive(from, bytes),
            Ends(end) => peers.handle(Input::Ended(end), 1),
            Fails(end) => peers.handle(Input::Failed(end, SystemError::BROKEN_PIPE), 1),
            Stops => peers.handle(Input::Stop, 1),
            Deadline(now_ms) => peers.handle(Input::Deadline, now_ms),
        }
    }
    peers.lines
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

#[test]
fn a_node_is_spoken_to_as_by_a_client() {
    let ends = [Ends(End::Backend), Ends(End::Client)];
    let cases: Vec<(&str, Vec<Step>, Vec<&str>)> = vec![
        (
            "messages",
            vec![Client(0x81, b"hello"), Node(0x82, b"answer"), Client(0x82, b""), Node(0x81, b"")],
            vec!["node Text hello", "client Binary answer", "node Binary ", "client Text "],
        ),
        (
            "fragments with pings between them",
            vec![
                Client(0x01, b"one"),
                Client(0x89, b"a"),
                Node(0x89, b"b"),
                Client(0x80, b"two"),
                Node(0x02, b"three"),
                Node(0x8a, b"unasked"),
                Node(0x80, b"four"),
            ],
            vec![
                "node Text+ one",
                "client Pong a",
                "node Pong b",
                "node Continuation two",
                "client Binary+ three",
                "client Continuation four",
            ],
        ),
        (
            "the client closes; the node still answers, and its ping has no pong",
            [
                vec![Client(0x88, b"\x03\xe8bye"), Node(0x81, b"late"), Node(0x89, b""), Node(0x88, b"\x03\xe8")],
                ends.into(),
            ]
            .into_iter()
            .flatten()
            .collect(),
            vec![
                "node Close 1000 bye",
                "client Text late",
                "client Close 1000 ",
                "client finished",
                "node abandoned",
                "client abandoned",
                "over: the client closed with 1000",
            ],
        ),
        (
            "the client closes without a code, and the node just ends",
            vec![Client(0x88, b""), Ends(End::Backend)],
            vec!["node Close ", "client Close ", "client finished", "node abandoned"],
        ),
        (
            "the client closes, and the node answers nothing",
            vec![Client(0x88, b"\x03\xe8"), Deadline(1_000), Ends(End::Client), Deadline(100_000)],
            vec![
                "node Close 1000 ",
                "client Close 1000 ",
                "client finished",
                "client abandoned",
                "over: the client closed with 1000",
            ],
        ),
        (
            "the node closes",
            vec![Node(0x88, b"\x0f\xa0own"), Client(0x88, b"\x0f\xa0"), Ends(End::Client), Ends(End::Backend)],
            vec![
                "client Close 4000 own",
                "node Close 4000 ",
                "client finished",
                "client abandoned",
                "node abandoned",
                "over: the backend closed with 4000",
            ],
        ),
        (
            "the node closes without a code",
            vec![Node(0x88, b""), Ends(End::Backend)],
            vec!["client Close ", "node Close ", "node abandoned"],
        ),
        (
            "the node ends between messages",
            vec![Node(0x81, b"a"), Ends(End::Backend)],
            vec!["client Text a", "client Close 1011 the server left without a close frame (1011)", "node abandoned"],
        ),
        (
            "the node ends in mid-message",
            vec![Node(0x01, b"a"), Ends(End::Backend)],
            vec!["client Text+ a", "client Close 1011 the server died in mid-message (1011)", "node abandoned"],
        ),
        (
            "the node ends in mid-header",
            vec![Raw(End::Backend, &[0x81]), Ends(End::Backend)],
            vec!["client Close 1011 the server died in mid-message (1011)", "node abandoned"],
        ),
        (
            "the client ends: the node sees 1006",
            vec![Client(0x81, b"a"), Ends(End::Client), Ends(End::Backend)],
            vec![
                "node Text a",
                "client abandoned",
                "node finished",
                "node abandoned",
                "over: the client left without a close frame (1006)",
            ],
        ),
        (
            "the gateway stops",
            vec![Stops, Node(0x81, b"late"), Node(0x88, b"\x03\xe9"), Client(0x88, b"\x03\xe9")],
            vec!["node Close 1001 ", "client Text late", "client Close 1001 the gateway stops", "client finished"],
        ),
        (
            "no message for too long",
            vec![Deadline(1 + IDLE_MS), Node(0x88, b"\x03\xe9"), Client(0x88, b"\x03\xe9")],
            vec!["client Close 1001 idle for too long", "node Close 1001 ", "client finished"],
        ),
        (
            "the client does not mask",
            vec![Client(0x81, b"a"), Raw(End::Client, &[0x81, 1, b'b']), Node(0x88, b"\x03\xea")],
            vec![
                "node Text a",
                "node Close 1002 a client's frame is not masked",
                "client Close 1002 a client's frame is not masked",
                "client finished",
            ],
        ),
        (
            "the client's text is not UTF-8",
            vec![Client(0x81, b"a\xff")],
            vec!["node Text+ a", "node Close 1007 a text message is not UTF-8"],
        ),
        (
            "the node masks",
            vec![Raw(End::Backend, &[0x81, 0x81, 0, 0, 0, 0, b'a']), Client(0x88, b"\x03\xf3"), Ends(End::Backend)],
            vec![
                "client Close 1011 the server broke the frames protocol (1011): a server's frame is masked",
                "node Close 1002 a server's frame is masked",
                "client finished",
                "node abandoned",
            ],
        ),
        (
            "the node compresses",
            vec![Node(0xc1, b"a")],
            vec![
                "client Close 1011 the server broke the frames protocol (1011): \
                 a reserved bit is set and no extension was agreed",
                "node Close 1002 a reserved bit is set and no extension was agreed",
            ],
        ),
    ];
    for (what, steps, expected) in cases {
        assert_eq!(lines_of(&steps), expected, "{what}");
    }
    let lines = lines_of(&[Fails(End::Backend)]);
    assert!(lines[0].starts_with("client Close 1011 the server died (1011): "), "{lines:?}");
    assert_eq!(lines[1..], ["node abandoned"]);
}

/// Numbers that are the same in each run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % end
    }
}

/// The messages in these frames: their opcode, and their payload.
fn messages(frames: &[(header::Header, Vec<u8>)]) -> Vec<(Opcode, Vec<u8>)> {
    let (mut messages, mut open): (Vec<_>, Option<(Opcode, Vec<u8>)>) = (Vec::new(), None);
    for (header, payload) in frames.iter().filter(|(header, _)| !header.opcode.is_control()) {
        assert_eq!(header.opcode == Opcode::Continuation, open.is_some());
        let (opcode, mut message) = open.take().unwrap_or((header.opcode, Vec::new()));
        message.extend_from_slice(payload);
        match header.fin {
            true => messages.push((opcode, message)),
            false => open = Some((opcode, message)),
        }
    }
    assert!(open.is_none());
    messages
}

#[test]
fn masked_frames_never_outgrow_what_was_received() {
    const SIZES: [usize; 12] = [0, 1, 2, 3, 7, 31, 125, 126, 127, 300, 65_535, 65_536];
    for seed in 1..=300 {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (mut bytes, mut pings) = (Vec::new(), 0);
        for _ in 0..=numbers.below(12) {
            let mut opcode = [1, 2][numbers.below(2)];
            loop {
                let size = SIZES[numbers.below(if seed % 10 == 0 { SIZES.len() } else { SIZES.len() - 2 })];
                let fin = numbers.below(3) > 0;
                let payload: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
                let key = std::array::from_fn(|_| numbers.below(256) as u8);
                bytes.extend(encoder::masked_frame(u8::from(fin) << 7 | opcode, &payload, key));
                if numbers.below(4) == 0 {
                    pings += 1;
                    bytes.extend(encoder::masked_frame(0x89, b"ping", key));
                }
                opcode = 0;
                if fin {
                    break;
                }
            }
        }
        let mut peers = Peers::new();
        let mut rest = &bytes[..];
        let longest = [1, 3, 20, 200, 100_000][numbers.below(5)];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + numbers.below(longest)).min(rest.len()));
            peers.receive(End::Client, piece);
            rest = after;
        }
        let heard = frames(&peers.to_node, Masking::Required);
        assert_eq!(messages(&heard), messages(&frames(&bytes, Masking::Required)), "seed {seed}");
        assert_eq!(frames(&peers.to_client, Masking::Forbidden).len(), pings, "seed {seed}");
        let keys: HashSet<_> = heard.iter().map(|(header, _)| header.key).collect();
        // Keys are random: among many a few may be equal.
        assert!(
            keys.len() + 8 + heard.len() / 1000 > heard.len(),
            "seed {seed}: {} keys of {} frames",
            keys.len(),
            heard.len()
        );
    }
}
