//! What two peers said to each other through the gateway, held against what each of them should have heard.

use uakari::driver::device::Direction;
use uakari::limits::{LINE_SIZE_MAX, PACKET_SIZE_MAX, PONGS_PER_VISIT_MAX, WebSocket, WhenOver};
use uakari::route::{Destination, MessageType, Protocol};

use crate::access::Count;
use crate::gateway::{Ended, Peer, Run};
use crate::reference::{Event, Reading, Sizes, frame};
use crate::replies::Replies;

/// The head of a hello record, whose last two bytes are the size of the rest.
const HELLO_HEAD_SIZE: usize = 16;

/// A conversation that a client asked for.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// How the backend is spoken to.
    pub protocol: Protocol,
    /// What its messages are sent as.
    pub message_type: MessageType,
    /// The backend is told who its client is.
    pub has_hello: bool,
    /// How much is taken.
    pub limits: WebSocket,
    /// Where the link leads to, if there is one.
    pub destination: Option<Destination>,
    /// Bytes of the client's handshake.
    pub head_size: usize,
    /// The backend ended while messages flowed: the client has heard all that it said.
    pub is_whole: bool,
}

/// What was said and heard, as far as it is a conversation.
struct Heard {
    by_client: Reading,
    to_client: Reading,
    /// Without the hello record.
    to_backend: Vec<u8>,
    to_backend_sizes: Vec<usize>,
    /// Messages flow: all that was said was heard.
    is_relaying: bool,
}

impl Conversation {
    /// Whether messages flow, and neither end has been told to stop.
    pub fn is_relaying(&self, run: &mut Run) -> bool {
        self.read(run).is_some_and(|heard| heard.is_relaying)
    }

    /// Whether the client has heard a close frame.
    pub fn is_closed(&self, run: &mut Run) -> bool {
        self.read(run).is_some_and(|heard| close_of(&heard.to_client).is_some())
    }

    /// Whether a close frame is due when the backend leaves, or where it cannot, at once.
    pub fn must_close(&self, can_leave: bool, run: &mut Run) -> bool {
        let is_due = |heard: Heard| {
            let has_client_closed = heard.by_client.fault.is_some() || close_of(&heard.by_client).is_some();
            can_leave && heard.is_relaying || has_client_closed
        };
        self.read(run).is_some_and(is_due)
    }

    /// Compares all that was said and heard.
    pub fn check(&self, run: &mut Run) {
        let Some(frames_at) = Replies::of(&run.client).frames_at else {
            let may_miss_reply = run.client.has_left.is_some() || run.client.was_stalled || run.is_stopped;
            return assert!(
                may_miss_reply || run.backend.heard.is_empty(),
                "the backend is told something before the 101"
            );
        };
        if let Some(record) = &run.handed_over {
            assert!(record.starts_with(&1u16.to_ne_bytes()), "the client of a UNIX socket: {record:?}");
            return self.check_handed_over(frames_at, run);
        }
        let Some(heard) = self.read(run) else { return };
        self.check_close(&heard, run);
        self.check_up(&heard);
        self.check_down(&heard, run);
        if heard.is_relaying {
            run.passed = [heard.by_client.count(), heard.to_client.count()];
            let count =
                |reading: &Reading, wanted: fn(&Event) -> bool| reading.events.iter().filter(|e| wanted(e)).count();
            let pings = count(&heard.by_client, |event| matches!(event, Event::Ping(_)));
            let pongs = count(&heard.to_client, |event| matches!(event, Event::Pong));
            // Of many at once, and where the client takes nothing, some are answered by the last one's answer.
            let least = pings.min(if run.client.was_stalled { 1 } else { PONGS_PER_VISIT_MAX });
            assert!((least..=pings).contains(&pongs), "{pongs} pongs for {pings} pings");
        }
    }

    /// Asserts that the access line counts no more than was sent and no less than was received, and that it has the last
    /// status and close code that the client received.
    pub fn check_access(&self, Ended { access, is_stopped, is_heard }: &Ended, run: &Run) {
        let replies = Replies::of(&run.client);
        if *is_heard && !is_stopped {
            assert_eq!(access.status, replies.statuses.last().copied(), "the status that was heard last");
        }
        let to_client = match replies.frames_at {
            Some(at) if run.handed_over.is_none() => Reading::of(&run.client.heard[at..], false, Sizes::ANY),
            _ => Reading::default(),
        };
        let [up, down] = match access.status {
            Some(101) if run.handed_over.is_some() => self.tunnel_counts(replies.frames_at, run),
            Some(101) => [self.up_counts(run), self.down_counts(&to_client, run)],
            _ => Default::default(),
        };
        for (what, counted, [least, most]) in [("up", access.up, up), ("down", access.down, down)] {
            assert!(counted.covers(least), "{what}: {counted:?} are less than {least:?}, which were heard");
            assert!(most.covers(counted), "{what}: {counted:?} are more than {most:?}, which were said");
        }
        if let Some(code) = close_of(&to_client) {
            assert_eq!(access.down, to_client.count(), "all messages were heard before the close frame");
            // A close frame without a code is the client's own (1005) or the backend's (1000).
            let codes = code.map_or([1_005, 1_000], |code| [code; 2]);
            let is_right = access.code.is_some_and(|logged| codes.contains(&logged));
            assert!(is_right || *is_stopped, "{:?} is logged, {code:?} was heard", access.code);
        }
    }

    /// The least and the most that the access line may count from the client to the backend.
    fn up_counts(&self, run: &Run) -> [Count; 2] {
        if self.gives_only() {
            return Default::default();
        }
        let said = self.by_client(&run.client);
        let (bytes, sizes) = self.without_hello(&run.backend);
        let delimiter_size = match self.protocol {
            Protocol::Frames => {
                let heard = Reading::of(&bytes, false, Sizes::ANY).count();
                return [heard.max(run.passed[0]), said.count()];
            }
            Protocol::Packet => {
                let heard = Count { bytes: bytes.len(), messages: sizes.len() };
                return [heard.max(run.passed[0]), said.count()];
            }
            Protocol::Lines | Protocol::Nul => 1,
            Protocol::Stream => 0,
        };
        // A message counts once its delimiter was received. In a stream, a byte of the next message must have been
        // received: the last one may lack an empty final frame.
        let (mut end, mut heard) = (0, Count { bytes: bytes.len(), messages: 0 });
        for (_, message) in said.messages() {
            end += message.len() + delimiter_size;
            if end + 1 - delimiter_size > bytes.len() {
                break;
            }
            heard = Count { bytes: heard.bytes - delimiter_size, messages: heard.messages + 1 };
        }
        [heard.max(run.passed[0]), said.count()]
    }

    /// The least and the most that the access line may count from the backend to the client.
    fn down_counts(&self, heard: &Reading, run: &Run) -> [Count; 2] {
        if self.takes_only() {
            return Default::default();
        }
        let said = &run.backend.said;
        let most = match self.protocol {
            Protocol::Frames => Reading::until_close(said, false, self.backend_sizes()).count(),
            Protocol::Stream => Count { bytes: said.len(), messages: said.len() },
            Protocol::Packet => Count { bytes: said.len(), messages: run.backend.said_sizes.len() },
            Protocol::Lines => Count { bytes: said.len(), messages: said.split(|byte| *byte == b'\n').count() },
            Protocol::Nul => Count { bytes: said.len(), messages: said.split(|byte| *byte == 0).count() },
        };
        [heard.count().max(run.passed[1]), most]
    }

    /// As `up_counts` and `down_counts`, for a client that was handed over: the gateway counts the bytes that it relays
    /// itself, and no messages.
    fn tunnel_counts(&self, frames_at: Option<usize>, run: &Run) -> [[Count; 2]; 2] {
        if run.backend.has_client {
            return Default::default();
        }
        let of = |bytes| Count { bytes, messages: 0 };
        let (up, down) = (run.client.said.len() - self.head_size, run.backend.said.len());
        let heard = frames_at.map_or(0, |at| run.client.heard.len() - at);
        [[of(run.backend.heard.len()), of(up)], [of(heard), of(down)]]
    }

    /// What the client said after its handshake, up to its close frame.
    fn by_client(&self, client: &Peer) -> Reading {
        let message_max = match self.protocol {
            Protocol::Packet => self.limits.message_size_max.min(PACKET_SIZE_MAX),
            _ => self.limits.message_size_max,
        };
        let sizes = Sizes { frame_max: self.limits.frame_size_max, message_max };
        Reading::until_close(&client.said[self.head_size.min(client.said.len())..], true, sizes)
    }

    /// None: there is no conversation, or the backend has it for itself.
    fn read(&self, run: &mut Run) -> Option<Heard> {
        let frames_at = Replies::of(&run.client).frames_at.filter(|_| run.handed_over.is_none())?;
        let by_client = self.by_client(&run.client);
        let to_client = Reading::of(&run.client.heard[frames_at..], false, Sizes::ANY);
        assert_eq!(to_client.fault, None, "the gateway breaks the protocol");
        let (to_backend, to_backend_sizes) = self.without_hello(&run.backend);
        let is_quiet = |peer: &Peer, run: &mut Run| {
            // The gateway has not ended what it sends to it.
            let is_open = peer.wire.is_some_and(|wire| !run.sim().wires[wire].is_at_end());
            peer.has_left.is_none() && !peer.is_stalled && is_open
        };
        let [client, backend] = [std::mem::take(&mut run.client), std::mem::take(&mut run.backend)];
        let has_open_ends = is_quiet(&client, run) && is_quiet(&backend, run);
        let has_read_all = client.is_read(run.sim()) && (self.takes_only() || backend.is_read(run.sim()));
        let broken = self.protocol == Protocol::Frames && {
            let said = Reading::until_close(&backend.said, false, self.backend_sizes());
            said.fault.is_some() || close_of(&said).is_some()
        };
        (run.client, run.backend) = (client, backend);
        let is_closing = by_client.fault.is_some()
            || close_of(&by_client).is_some()
            || close_of(&to_client).is_some()
            || broken
            || run.is_stopped;
        let is_device = matches!(self.destination, Some(Destination::Tty { .. } | Destination::Fifo { .. }));
        let is_too_fast = match self.limits.when_over {
            // It is not read for a while.
            WhenOver::Slow => self.limits.messages_per_second_max > 0,
            // A device is not told that its client has said its last.
            WhenOver::Close => is_device,
        };
        let is_refused = self.gives_only() && says_data(&by_client);
        let is_relaying = has_open_ends && has_read_all && !is_closing && !is_too_fast && !is_refused;
        Some(Heard { by_client, to_client, to_backend, to_backend_sizes, is_relaying })
    }

    /// Nothing comes out of the backend.
    fn takes_only(&self) -> bool {
        matches!(self.destination, Some(Destination::Fifo { direction: Direction::Write, .. }))
    }

    /// Nothing goes into the backend.
    fn gives_only(&self) -> bool {
        matches!(self.destination, Some(Destination::Fifo { direction: Direction::Read, .. }))
    }

    fn backend_sizes(&self) -> Sizes {
        Sizes { frame_max: self.limits.message_size_max, message_max: self.limits.message_size_max }
    }

    /// Whether a backend may have sent a line or a packet that is longer than one may be.
    fn has_too_long(&self, backend: &Peer) -> bool {
        match self.protocol {
            Protocol::Lines | Protocol::Nul => backend.said.len() > LINE_SIZE_MAX,
            Protocol::Packet => backend.said_sizes.iter().any(|size| *size > PACKET_SIZE_MAX as usize),
            Protocol::Stream | Protocol::Frames => false,
        }
    }

    /// What a backend heard after the hello record. A packet has one of its own.
    fn without_hello(&self, backend: &Peer) -> (Vec<u8>, Vec<usize>) {
        let mut sizes = backend.heard_sizes.clone();
        if !self.has_hello || backend.heard.is_empty() {
            return (backend.heard.clone(), sizes);
        }
        let head = backend.heard.first_chunk::<HELLO_HEAD_SIZE>().expect("a record");
        assert!(head.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21"), "no record: {}", head.escape_ascii());
        let end = HELLO_HEAD_SIZE + usize::from(u16::from_be_bytes([head[14], head[15]]));
        if self.protocol == Protocol::Packet {
            assert_eq!(sizes.remove(0), end, "a record in a packet of its own");
        }
        (backend.heard[end..].to_vec(), sizes)
    }

    /// A backend in direct mode has all that its client says after the handshake, and says what it likes.
    fn check_handed_over(&self, frames_at: usize, run: &mut Run) {
        let said = &run.client.said[self.head_size..];
        assert!(said.starts_with(&run.backend.heard), "the backend does not hear what its client said");
        let heard = &run.client.heard[frames_at..];
        // Where the gateway stops before the end, it may close for a backend that has said nothing yet.
        let is_open = run.client.has_left.is_none() && run.backend.has_left.is_none() && !run.is_stopped;
        assert!(run.backend.said.starts_with(heard), "the client does not hear what its backend said");
        let is_stalled = run.client.is_stalled || run.backend.is_stalled;
        let wires = [run.client.wire, run.backend.wire].map(|wire| wire.expect("both are connected"));
        if is_open && !is_stalled && !wires.iter().any(|wire| run.sim().wires[*wire].is_closed) {
            assert_eq!(run.client.heard.len() - frames_at, run.backend.said.len(), "bytes are held");
            assert_eq!(run.client.said.len() - self.head_size, run.backend.heard.len(), "bytes are held");
        }
    }

    /// One close frame is the last frame, and tells why the conversation ended.
    fn check_close(&self, heard: &Heard, run: &Run) {
        let closes = heard.to_client.events.iter().filter(|event| matches!(event, Event::Close(..))).count();
        assert_eq!(closes, usize::from(close_of(&heard.to_client).is_some()), "a close frame is the last frame");
        let Some(code) = close_of(&heard.to_client) else { return };
        assert!(run.client.heard.ends_with(&close_frame(&heard.to_client)), "bytes after the close frame");
        let backend = Reading::until_close(&run.backend.said, false, self.backend_sizes());
        let has_frames = self.protocol == Protocol::Frames;
        let causes = [
            (close_of(&heard.by_client).is_some(), close_of(&heard.by_client).unwrap_or_default()),
            (heard.by_client.fault.is_some(), heard.by_client.fault),
            (self.gives_only() && says_data(&heard.by_client), Some(1003)),
            (run.is_stopped, Some(1001)),
            (self.limits.idle_ms > 0, Some(1001)),
            (self.limits.when_over == WhenOver::Close, Some(1008)),
            (run.backend.has_left.is_some(), Some(1000)),
            (run.backend.has_left.is_some(), Some(1011)),
            (has_frames && close_of(&backend).is_some(), close_of(&backend).unwrap_or_default()),
            (has_frames && backend.fault.is_some(), Some(1011)),
            // What it says cannot be a message, or it takes nothing more.
            (self.message_type == MessageType::Text && !has_frames, Some(1011)),
            (self.has_too_long(&run.backend), Some(1011)),
            (run.backend.wire.is_none(), Some(1011)),
        ];
        let told: Vec<Option<u16>> = causes.iter().filter(|(is_one, _)| *is_one).map(|(_, code)| *code).collect();
        assert!(told.contains(&code), "{code:?} is none of {told:?}");
    }

    /// From the client to the backend.
    fn check_up(&self, heard: &Heard) {
        let (said, bytes) = (&heard.by_client, &heard.to_backend);
        let delimiter: &[u8] = match self.protocol {
            // The simulated kernel refuses to write to it.
            _ if self.gives_only() => return,
            Protocol::Frames => {
                return self.check_frames(said, &Reading::of(bytes, false, Sizes::ANY), heard.is_relaying);
            }
            Protocol::Packet => {
                let messages: Vec<&[u8]> = said.messages().into_iter().map(|(_, bytes)| bytes).collect();
                return check_prefix(&messages, &packets(bytes, &heard.to_backend_sizes), heard.is_relaying);
            }
            Protocol::Lines => b"\n",
            Protocol::Nul => b"\0",
            Protocol::Stream => b"",
        };
        let mut all = Vec::new();
        for (_, message) in said.messages() {
            all.extend([message, delimiter].concat());
        }
        all.extend(said.open.iter().flat_map(|(_, bytes)| bytes));
        check_prefix(&all, bytes, heard.is_relaying);
    }

    /// From the backend to the client.
    fn check_down(&self, heard: &Heard, run: &Run) {
        let said = &run.backend.said;
        let (is_relaying, is_whole) = (heard.is_relaying, self.is_whole);
        let heard = &heard.to_client;
        self.check_types(heard);
        let must_be_all = is_relaying || is_whole;
        let delimiter = match self.protocol {
            _ if self.takes_only() => return assert!(heard.messages().is_empty(), "it can only be written"),
            Protocol::Frames => {
                return self.check_frames(&Reading::until_close(said, false, self.backend_sizes()), heard, must_be_all);
            }
            Protocol::Stream => {
                let payload = heard.payload();
                assert!(said.starts_with(&payload), "other bytes");
                let rest = &said[payload.len()..];
                let is_cut = || std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
                assert!(!is_relaying || rest.is_empty() || rest.len() < 4 && is_cut(), "{rest:?} is held");
                return assert!(
                    !is_whole || rest.is_empty() || self.message_type == MessageType::Text,
                    "{rest:?} is lost"
                );
            }
            Protocol::Packet => {
                let messages: Vec<&[u8]> = heard.messages().into_iter().map(|(_, bytes)| bytes).collect();
                return check_prefix(&packets(said, &run.backend.said_sizes), &messages, must_be_all);
            }
            Protocol::Lines => b'\n',
            Protocol::Nul => 0,
        };
        let mut lines: Vec<&[u8]> = said.split(|byte| *byte == delimiter).collect();
        // After the last delimiter a line has only begun; the backend's end ends it, if it can be a message.
        let must_be_text = self.message_type == MessageType::Text;
        let is_lost = |line: &[u8]| line.is_empty() || must_be_text && std::str::from_utf8(line).is_err();
        if is_relaying || is_whole && lines.last().is_some_and(|line| is_lost(line)) {
            lines.pop();
        }
        if delimiter == b'\n' {
            lines.iter_mut().for_each(|line| *line = line.strip_suffix(b"\r").unwrap_or(line));
        }
        let messages: Vec<&[u8]> = heard.messages().into_iter().map(|(_, bytes)| bytes).collect();
        check_prefix(&lines, &messages, must_be_all);
    }

    /// Backends without frames have messages without a type.
    fn check_types(&self, heard: &Reading) {
        for (is_text, message) in heard.messages() {
            let may_be_text = std::str::from_utf8(message).is_ok();
            match (self.protocol, self.message_type) {
                (Protocol::Frames, _) => {}
                (_, MessageType::Binary) => assert!(!is_text),
                (Protocol::Stream, MessageType::Text) => {
                    assert!(is_text || message.len() < 4, "but for a cut character")
                }
                (_, MessageType::Text) => assert!(is_text),
                (_, MessageType::Auto) => assert_eq!(is_text, may_be_text),
            }
        }
    }

    /// Frames keep the types and borders of messages.
    fn check_frames(&self, said: &Reading, heard: &Reading, must_be_all: bool) {
        assert_eq!(heard.fault, None, "the gateway breaks the protocol");
        let (all, some) = (said.messages(), heard.messages());
        check_prefix(&all, &some, must_be_all);
        let Some((is_text, begun)) = &heard.open else {
            return assert!(!must_be_all || said.open.is_none(), "a message has begun");
        };
        let open = said.open.iter().map(|(is_text, bytes)| (*is_text, bytes.as_slice()));
        let Some((was_text, message)) = all.into_iter().chain(open).nth(some.len()) else { panic!("nobody said that") };
        assert_eq!(*is_text, was_text);
        assert!(message.starts_with(begun), "other bytes");
        assert!(!must_be_all || message.len() == begun.len(), "bytes are held");
    }
}

/// The code of the close frame at the end of what was said; Some(None): it has none.
fn close_of(reading: &Reading) -> Option<Option<u16>> {
    match reading.events.last() {
        Some(Event::Close(code, _)) => Some(*code),
        _ => None,
    }
}

/// Whether a message has begun; one that is too large has.
fn says_data(reading: &Reading) -> bool {
    reading.open.is_some() || reading.fault.is_some() || !reading.messages().is_empty()
}

/// The close frame at the end of what was said.
fn close_frame(reading: &Reading) -> Vec<u8> {
    let Some(Event::Close(code, reason)) = reading.events.last() else { return Vec::new() };
    let code = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
    frame(0x88, &[code, reason.clone().into_bytes()].concat(), None)
}

fn packets<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut at = 0;
    let packet = |size: &usize| {
        at += size;
        &bytes[at - size..at]
    };
    sizes.iter().map(packet).collect()
}

/// What was heard is the beginning of what was said, or all of it.
fn check_prefix<T: PartialEq + std::fmt::Debug>(said: &[T], heard: &[T], must_be_all: bool) {
    let at = said.iter().zip(heard).take_while(|(said, heard)| said == heard).count();
    if at == heard.len() && (!must_be_all || at == said.len()) {
        return;
    }
    let [said, heard] = [said, heard].map(|all| format!("{:?}", all.get(at)));
    // Of long ones the place is shown where they begin to differ.
    let same = said.bytes().zip(heard.bytes()).take_while(|(said, heard)| said == heard).count();
    let show = |text: &str| text.chars().skip(same.saturating_sub(40)).take(200).collect::<String>();
    panic!("number {at}: said ..{}.., heard ..{}..", show(&said), show(&heard));
}
