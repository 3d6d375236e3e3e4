//! Simulated nodes of an upstream: HTTP and WebSocket servers that answer, fail, hang, and end at random. Each checks that
//! what it receives is what one client has sent.

use crate::driver::sim::{Rng, Sim};

/// The most replies before a node's final one that the gateway accepts, and more.
const INTERIM_FLOOD: usize = 20;
/// What a node sends where no byte should be. It is no HTTP.
const GARBAGE: &[u8] = b"garbage\r\n\r\n";
/// The accept value of the key that simulated clients send (RFC 6455 section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request of a run, known to its client and to the nodes. Its index is its id.
pub(super) struct Asked {
    pub(super) method: &'static str,
    /// Bytes of its body.
    pub(super) size: usize,
    /// Whether its body is well-formed and within the limit, so that a node may receive all of it.
    pub(super) may_complete: bool,
    /// Whether the gateway may send it a second time.
    pub(super) is_repeatable: bool,
    /// The nodes that have received its request line, in order.
    pub(super) arrivals: Vec<usize>,
    /// Whether a node has failed in the middle of a reply to it.
    pub(super) was_cut: bool,
}

/// Bytes that are derived from a seed. They begin like a reply and a request, so that a reader who takes them for a head
/// finds an id that does not exist.
pub(super) fn content(seed: u64, size: usize) -> Vec<u8> {
    let trap = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nGET /p/9999999 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut rng = Rng(seed);
    let mut bytes = rng.draw().to_be_bytes().to_vec();
    if rng.one_in(2) {
        bytes.clear();
    }
    bytes.extend(trap);
    while bytes.len() < size {
        bytes.extend(rng.draw().to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Writes a body in chunks of random sizes.
pub(super) fn in_chunks(rng: &mut Rng, body: &[u8], trailer: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = 1 + rng.below(body.len().max(1));
    let size = size.max(body.len() / 40);
    for chunk in body.chunks(size.max(1)) {
        let extension = if rng.one_in(4) { ";name=\"a value\"" } else { "" };
        bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(format!("0\r\n{trailer}\r\n").bytes());
    bytes
}

/// The value of a field, the name of which has to be unique.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    let found = lines.by_ref().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    assert!(!lines.any(|(key, _)| key.eq_ignore_ascii_case(name)), "{name} twice: {head}");
    found
}

/// Removes a head from the beginning, if it is complete.
pub(super) fn take_head(received: &mut Vec<u8>) -> Option<String> {
    let at = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let rest = received.split_off(at + 4);
    let mut head = String::from_utf8(std::mem::replace(received, rest)).expect("an ASCII head");
    head.truncate(at + 2);
    Some(head)
}

/// Reads a chunked body.
#[derive(Default)]
pub(super) struct Dechunker {
    /// Bytes to come of the current chunk, with its CRLF. None: a line is next.
    left: Option<usize>,
    /// Whether the last chunk was read, so that trailers follow.
    is_last: bool,
}

impl Dechunker {
    /// Moves payload from `received` to `body`. True: the body is complete. Trailers have to be those of `id`.
    pub(super) fn take(&mut self, received: &mut Vec<u8>, id: usize, body: &mut Vec<u8>) -> bool {
        loop {
            if let Some(left) = &mut self.left {
                let size = (*left).min(received.len());
                let payload = size.min(left.saturating_sub(2));
                body.extend(&received[..payload]);
                let ending = &b"\r\n"[2 - (*left - payload).min(2)..];
                assert!(ending.starts_with(&received[payload..size]), "a chunk without its end");
                received.drain(..size);
                *left -= size;
                if *left > 0 {
                    return false;
                }
                self.left = None;
            }
            let Some(at) = received.windows(2).position(|window| window == b"\r\n") else { return false };
            let line: Vec<u8> = received.drain(..at + 2).collect();
            let line = std::str::from_utf8(&line[..at]).expect("a line of ASCII");
            match self.is_last {
                true if line.is_empty() => return true,
                true => assert_eq!(line, format!("X-Trailer: {id}"), "another trailer"),
                false => {
                    let size = usize::from_str_radix(line, 16);
                    let size = size.unwrap_or_else(|_| panic!("not the size of a chunk: {line:?}"));
                    self.is_last = size == 0;
                    self.left = (size > 0).then_some(size + 2);
                }
            }
        }
    }
}

/// What a node does with its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    /// It waits for the next request.
    Stays,
    /// It closes.
    Leaves,
    /// It resets the connection: what is in transit is lost.
    Resets,
    /// It reads, and does nothing more.
    Hangs,
}

/// A request that a node receives.
struct Arriving {
    id: usize,
    is_head: bool,
    expected: Vec<u8>,
    body: Vec<u8>,
    /// None: it has a length.
    chunks: Option<Dechunker>,
    is_whole: bool,
    is_answered: bool,
    expects_continue: bool,
}

/// A node's end of a connection.
pub(super) struct NodeEnd {
    wire: usize,
    /// Index of the node in the run.
    pub(super) node: usize,
    /// It fails only as every server may: it closes a connection that is idle.
    is_calm: bool,
    received: Vec<u8>,
    /// The request line of the next request has been noted.
    has_line: bool,
    request: Option<Arriving>,
    /// The last request that it has begun to answer.
    last_id: Option<usize>,
    out: Vec<u8>,
    after: After,
    /// Requests whose reply is written.
    pub(super) served: usize,
    /// A WebSocket is open.
    is_websocket: bool,
    pub(super) is_over: bool,
}

impl NodeEnd {
    pub(super) fn new(sim: &mut Sim, node: usize, wire: usize, is_calm: bool) -> NodeEnd {
        let mut end = NodeEnd {
            wire,
            node,
            is_calm,
            received: Vec::new(),
            has_line: false,
            request: None,
            last_id: None,
            out: Vec::new(),
            after: After::Stays,
            served: 0,
            is_websocket: false,
            is_over: false,
        };
        if !is_calm {
            match sim.rng.below(24) {
                0 => (end.out, end.after) = (GARBAGE.to_vec(), After::Leaves),
                1 => end.after = After::Leaves,
                2 => end.after = After::Resets,
                3 => end.after = After::Hangs,
                _ => {}
            }
        }
        end
    }

    /// Ends the connection as a process that dies.
    pub(super) fn die(&mut self, sim: &mut Sim, asked: &mut [Asked]) {
        if !self.is_over {
            self.end(After::Resets, sim, asked);
        }
    }

    /// Reads, answers, or ends.
    pub(super) fn act(&mut self, sim: &mut Sim, asked: &mut [Asked]) {
        if self.is_over || sim.rng.one_in(3) {
            return;
        }
        while let Some(chunk) = sim.wires[self.wire].read() {
            self.received.extend(chunk);
            if sim.rng.one_in(2) {
                break;
            }
        }
        if self.after == After::Hangs && self.out.is_empty() {
            self.received.clear();
        } else if self.is_websocket {
            self.echo();
        } else {
            while self.step(&mut sim.rng, asked) {}
        }
        let most = if sim.rng.one_in(2) { 50 } else { 100_000 };
        let most = (1 + sim.rng.below(most)).min(self.out.len());
        if most > 0
            && let Some(size) = sim.wires[self.wire].write(&self.out[..most])
        {
            self.out.drain(..size);
            if self.out.is_empty() && self.request.as_ref().is_some_and(|request| request.is_answered) {
                self.served += 1;
                if self.request.as_ref().is_some_and(|request| request.is_whole) {
                    self.request = None;
                }
            }
        }
        let is_closed = sim.wires[self.wire].is_closed;
        if is_closed || sim.wires[self.wire].is_at_end() && self.out.is_empty() {
            return self.end(After::Leaves, sim, asked);
        }
        if self.out.is_empty() && !matches!(self.after, After::Stays | After::Hangs) {
            return self.end(self.after, sim, asked);
        }
        let is_idle = self.request.is_none() && self.received.is_empty() && !self.is_websocket;
        if is_idle && self.out.is_empty() && self.served > 0 && sim.rng.one_in(40) {
            let is_read = sim.wires[self.wire].unread_size() == 0;
            self.end(if is_read && sim.rng.one_in(2) { After::Resets } else { After::Leaves }, sim, asked);
        }
    }

    fn end(&mut self, after: After, sim: &mut Sim, asked: &mut [Asked]) {
        let wire = &mut sim.wires[self.wire];
        let is_cut = !self.out.is_empty() || after == After::Resets && wire.unread_size() > 0;
        if let Some(id) = self.last_id.filter(|_| !wire.is_closed && (is_cut || self.request.is_some())) {
            asked[id].was_cut = true;
        }
        match after {
            After::Resets => wire.reset(),
            _ => wire.leave(),
        }
        self.is_over = true;
    }

    /// Handles a part of what was received. False: more is needed.
    fn step(&mut self, rng: &mut Rng, asked: &mut [Asked]) -> bool {
        let Some(request) = &mut self.request else { return self.begin(rng, asked) };
        if request.is_whole {
            assert!(self.received.is_empty(), "bytes of another request before the reply");
            return false;
        }
        let before = request.body.len();
        let is_whole = match &mut request.chunks {
            Some(chunks) => chunks.take(&mut self.received, request.id, &mut request.body),
            None => {
                let size = (request.expected.len() - before).min(self.received.len());
                request.body.extend(self.received.drain(..size));
                request.body.len() == request.expected.len()
            }
        };
        let got = &request.body[before..];
        let is_right = request.expected.get(before..).is_some_and(|rest| rest.starts_with(got));
        assert!(is_right, "request {}: other bytes after {before}", request.id);
        if !is_whole {
            return false;
        }
        request.is_whole = true;
        assert_eq!(request.body.len(), request.expected.len(), "the body of request {}", request.id);
        assert!(asked[request.id].may_complete, "request {}: its body is not good", request.id);
        match request.is_answered {
            false => self.answer(rng, asked),
            true if self.out.is_empty() => self.request = None,
            true => {}
        }
        true
    }

    /// Handles the head of a request.
    fn begin(&mut self, rng: &mut Rng, asked: &mut [Asked]) -> bool {
        if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n")
            && !std::mem::replace(&mut self.has_line, true)
        {
            let line = String::from_utf8(self.received[..at].to_vec()).expect("a request line");
            if !line.starts_with("GET /ws") {
                let id = id_of(&line);
                assert!(id < asked.len(), "nobody asks {line:?}");
                assert!(line.starts_with(asked[id].method) && line.ends_with(" HTTP/1.1"), "{line:?}");
                asked[id].arrivals.push(self.node);
            }
        }
        let Some(head) = take_head(&mut self.received) else { return false };
        self.has_line = false;
        assert!(
            self.out.is_empty() && self.after == After::Stays || !self.is_calm,
            "a request before the reply: {head}"
        );
        assert!(
            field(&head, "Host").is_some() && field(&head, "Via").is_some_and(|via| via.ends_with(" uakari")),
            "{head}"
        );
        if head.starts_with("GET /ws") {
            self.open(rng, &head);
            return true;
        }
        let id = id_of(&head);
        assert!(field(&head, "Keep-Alive").is_none() && field(&head, "X-Hop").is_none(), "{head}");
        let (length, coding) = (field(&head, "Content-Length"), field(&head, "Transfer-Encoding"));
        assert!(length.is_none() || coding.is_none(), "two lengths: {head}");
        let size = asked[id].size;
        assert!(length.is_none_or(|length| length == size.to_string()), "{head}");
        assert!(size == 0 || length.is_some() || coding == Some("chunked"), "{head}");
        let expects_continue = field(&head, "Expect").is_some();
        self.request = Some(Arriving {
            id,
            is_head: head.starts_with("HEAD "),
            expected: content(id as u64, size),
            body: Vec::new(),
            chunks: coding.map(|_| Dechunker::default()),
            is_whole: false,
            is_answered: false,
            expects_continue,
        });
        let has_body = size > 0 || coding.is_some();
        if has_body && rng.one_in(6) {
            self.answer(rng, asked);
        } else if expects_continue && (self.is_calm || !rng.one_in(8)) {
            self.out.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        true
    }

    /// Writes a reply, or what is none.
    fn answer(&mut self, rng: &mut Rng, asked: &mut [Asked]) {
        let Some(request) = &mut self.request else { return };
        request.is_answered = true;
        let id = request.id;
        self.last_id = Some(id);
        let is_early = !request.is_whole;
        let interims = if rng.one_in(4) { 1 + rng.below(3) } else { 0 };
        for _ in 0..interims {
            let reply = if request.expects_continue && rng.one_in(2) { "100 Continue" } else { "103 Early Hints" };
            self.out.extend(format!("HTTP/1.1 {reply}\r\nLink: </{id}>\r\n\r\n").bytes());
        }
        let status = [200, 200, 200, 200, 404, 500, 204, 304][rng.below(8)];
        let size = match rng.below(8) {
            0 => 0,
            1 => rng.below(200_000),
            _ => rng.below(3_000),
        };
        let has_body = !request.is_head && status != 204 && status != 304;
        let seed = rng.draw() >> 1;
        let mut head = format!("HTTP/1.1 {status} Some reason\r\nX-Id: {id}\r\nX-Seed: {seed}\r\nX-Body: {size}\r\n");
        head.push_str("Connection: X-Hop\r\nX-Hop: 1\r\n");
        let body = content(seed ^ id as u64, if has_body { size } else { 0 });
        let framing = rng.below(if has_body { 3 } else { 2 });
        match framing {
            // A reply without a body that announces one is in doubt.
            _ if status == 204 => {}
            0 => head.push_str(&format!("Content-Length: {size}\r\n")),
            1 => head.push_str("Transfer-Encoding: chunked\r\n"),
            _ => self.after = After::Leaves,
        }
        if framing < 2 && rng.one_in(5) {
            head.push_str("Connection: close\r\n");
            self.after = After::Leaves;
        } else if rng.one_in(8) {
            self.after = After::Leaves;
        }
        head.push_str("\r\n");
        self.out.extend(head.bytes());
        if framing == 1 && has_body {
            let trailer = if rng.one_in(3) { format!("X-Trailer: {id}\r\n") } else { String::new() };
            self.out.extend(in_chunks(rng, &body, &trailer));
        } else {
            self.out.extend(body);
        }
        // The gateway may notice that it can send no more of the body before it has received the reply.
        asked[id].was_cut |= is_early && self.after != After::Stays;
        if !self.is_calm && rng.one_in(3) {
            self.fail(rng, framing, asked);
        }
    }

    /// Spoils the reply.
    fn fail(&mut self, rng: &mut Rng, framing: usize, asked: &mut [Asked]) {
        let Some(id) = self.last_id else { return };
        let end = [After::Leaves, After::Resets, After::Hangs][rng.below(3)];
        match rng.below(8) {
            0 | 1 => self.out.truncate(rng.below(self.out.len())),
            2 => self.out = GARBAGE.to_vec(),
            // The reply itself is whole.
            3 if framing < 2 => {
                self.out.extend(GARBAGE);
                self.after = After::Leaves;
                return;
            }
            4 => self.out.clear(),
            5 => self.out = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec(),
            6 => {
                let reply = std::mem::take(&mut self.out);
                self.out = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(INTERIM_FLOOD);
                self.out.extend(reply);
            }
            _ => {
                let lines = "X: y\r\nContent-Length: 3\r\nTransfer-Encoding: chunked";
                self.out = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\n{lines}\r\n\r\nzz\r\n").into_bytes();
            }
        }
        self.after = end;
        asked[id].was_cut = true;
    }

    /// Answers a handshake.
    fn open(&mut self, rng: &mut Rng, head: &str) {
        assert_eq!(field(head, "Sec-WebSocket-Key"), Some("dGhlIHNhbXBsZSBub25jZQ=="), "{head}");
        assert!(self.received.is_empty(), "bytes of the client before the 101");
        let fate = if self.is_calm { 9 } else { rng.below(10) };
        let accept = if fate == 0 { "AAAAAAAAAAAAAAAAAAAAAAAAAAA=" } else { ACCEPT };
        match fate {
            1 => self.out.extend(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
            2 => self.after = After::Hangs,
            3 => self.after = After::Leaves,
            _ => {
                let lines = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept";
                self.out.extend(format!("HTTP/1.1 101 Yes\r\n{lines}: {accept}\r\n\r\n").bytes());
                self.is_websocket = true;
            }
        }
    }

    /// Sends the messages of a WebSocket back.
    fn echo(&mut self) {
        while let Some((first, payload)) = self.take_frame() {
            let first = match first {
                0x89 => 0x8a,
                0x8a => continue,
                other => other,
            };
            self.out.push(first);
            match payload.len() {
                size @ 0..=125 => self.out.push(size as u8),
                size @ 126..=65_535 => {
                    self.out.push(126);
                    self.out.extend((size as u16).to_be_bytes());
                }
                size => {
                    self.out.push(127);
                    self.out.extend((size as u64).to_be_bytes());
                }
            }
            self.out.extend(payload);
            if first == 0x88 {
                self.after = After::Leaves;
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        if self.after != After::Stays {
            return None;
        }
        let bytes = &self.received;
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        if second < 0x80 {
            // A client that breaks the protocol through a tunnel (RFC 6455 section 5.1).
            self.received.clear();
            return Some((0x88, 1002_u16.to_be_bytes().to_vec()));
        }
        let (size, start) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
            size => (usize::from(size), 2),
        };
        let key: [u8; 4] = *bytes.get(start..)?.first_chunk()?;
        let end = start + 4 + size;
        if bytes.len() < end {
            return None;
        }
        let masked = self.received.drain(..end).skip(start + 4);
        Some((first, masked.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()))
    }
}

/// The id of a request: the last segment of its path.
fn id_of(head: &str) -> usize {
    let target = head.split(' ').nth(1).expect("a target");
    let path = target.split('?').next().unwrap_or_default();
    let id = path.rsplit('/').next().unwrap_or_default();
    id.parse().unwrap_or_else(|_| panic!("no id: {target:?}"))
}
