//! What two peers said to each other through the gateway, held against what each of them should have heard.

use uakari::driver::device::Direction;
use uakari::exchange::Ending;
use uakari::limits::{PONGS_PER_VISIT_MAX, WebSocket};
use uakari::route::{Destination, MessageType, Protocol};

use crate::gateway::Gateway;
use crate::reference::{Event, Reading, Sizes};

/// A conversation that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// How the server is spoken to.
    pub protocol: Protocol,
    /// What its messages are sent as.
    pub message_type: MessageType,
    /// The server is told who its client is.
    pub has_hello: bool,
    /// How much is taken.
    pub limits: &'a WebSocket,
    /// Where the link leads to, if there is one.
    pub destination: Option<&'a Destination>,
    /// Messages still flow; otherwise the last ones may be on their way.
    pub is_relaying: bool,
}

impl Conversation<'_> {
    /// Compares all that was said and heard. The client's first `head_size` bytes are its handshake.
    pub fn check(self, gateway: &Gateway, head_size: usize) {
        let end = gateway.client.sent.windows(4).position(|part| part == b"\r\n\r\n").expect("the end of a 101") + 4;
        let to_client = Reading::of(&gateway.client.sent[end..], false, Sizes::ANY);
        assert_eq!(to_client.fault, None, "the gateway breaks the protocol");
        if let (Some(Event::Close(code, _)), Some(ending)) = (to_client.events.last(), gateway.ending) {
            // RFC 6455 section 7.4.1: 1005 stands for a close frame without a code. A server that closed without one is
            // logged as one that ended.
            let is_told = code.unwrap_or(1005) == ending.close_code().0;
            assert!(is_told || code.is_none() && ending == Ending::ServerClosed(None), "{code:?} for {ending}");
        }
        let closes = to_client.events.iter().filter(|event| matches!(event, Event::Close(..))).count();
        assert_eq!(closes, usize::from(gateway.client.has_last), "one close frame is the last one");
        assert_eq!(closes == 1, matches!(to_client.events.last(), Some(Event::Close(..))));
        let message_max = match self.protocol {
            Protocol::Packet => self.limits.message_size_max.min(uakari::limits::PACKET_SIZE_MAX),
            _ => self.limits.message_size_max,
        };
        let sizes = Sizes { frame_max: self.limits.frame_size_max, message_max };
        let by_client = Reading::of(&gateway.client.heard[head_size..], true, sizes);
        assert_eq!(gateway.hellos, usize::from(self.has_hello));
        self.check_up(&by_client, gateway);
        let was_amid_message = |stopped_at| {
            let until_stop = gateway.client.heard.get(head_size..stopped_at).unwrap_or_default();
            Reading::of(until_stop, true, sizes).open.is_some()
        };
        self.check_down(&to_client, gateway, gateway.stopped_at.is_some_and(was_amid_message));
        if self.is_relaying {
            let count =
                |reading: &Reading, wanted: fn(&Event) -> bool| reading.events.iter().filter(|e| wanted(e)).count();
            let pings = count(&by_client, |event| matches!(event, Event::Ping(_)));
            // Of many at once, some are answered by the last one's answer.
            let pongs = count(&to_client, |event| matches!(event, Event::Pong));
            assert!((pings.min(PONGS_PER_VISIT_MAX)..=pings).contains(&pongs), "{pongs} pongs for {pings} pings");
            let traffic = gateway.exchange.facts().traffic;
            assert_eq!(traffic.up_messages, by_client.messages().len() as u64);
            assert_eq!(traffic.up_bytes, by_client.payload().len() as u64);
            assert_eq!(traffic.down_messages, to_client.messages().len() as u64);
            assert_eq!(traffic.down_bytes, to_client.payload().len() as u64);
        }
    }

    /// From the client to the server.
    fn check_up(self, said: &Reading, gateway: &Gateway) {
        let (heard, sends) = (&gateway.backend.sent, &gateway.backend.sends);
        let delimiter: &[u8] = match self.protocol {
            _ if matches!(self.destination, Some(Destination::Fifo { direction: Direction::Read, .. })) => {
                return assert!(heard.is_empty() && gateway.hellos == 0, "it can only be read");
            }
            Protocol::Frames => return self.check_frames(said, &Reading::of(heard, false, Sizes::ANY)),
            Protocol::Packet => {
                let mut at = 0;
                let packets = sends.iter().map(|size| {
                    at += size;
                    &heard[at - size..at]
                });
                let packets: Vec<&[u8]> = packets.collect();
                let messages: Vec<&[u8]> = said.messages().into_iter().map(|(_, bytes)| bytes).collect();
                return self.check_prefix(&messages, &packets);
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
        self.check_prefix(&all, heard);
    }

    /// From the backend to the client. `is_cut`: the gateway stopped amid a message of the client's. A line that the
    /// backend has not ended may answer the part that it got, and is dropped.
    fn check_down(mut self, heard: &Reading, gateway: &Gateway, is_cut: bool) {
        let (said, receives) = (&gateway.backend.heard, &gateway.backend.receives);
        let is_whole = gateway.has_all && !gateway.client.is_abandoned;
        for (is_text, message) in heard.messages() {
            let may_be_text = std::str::from_utf8(message).is_ok();
            match (self.protocol, self.message_type) {
                (Protocol::Frames, _) => {}
                (_, MessageType::Binary) => assert!(!is_text),
                (Protocol::Stream, MessageType::Text) => {
                    assert!(is_text || message.len() < 4, "but for a cut character")
                }
                (Protocol::Stream, MessageType::Auto) => assert!(!is_text || may_be_text),
                (_, MessageType::Text) => assert!(is_text),
                (_, MessageType::Auto) => assert_eq!(is_text, may_be_text),
            }
        }
        let delimiter = match self.protocol {
            Protocol::Frames => {
                self.is_relaying |= is_whole;
                let sizes =
                    Sizes { frame_max: self.limits.message_size_max, message_max: self.limits.message_size_max };
                return self.check_frames(&Reading::of(said, false, sizes), heard);
            }
            Protocol::Stream => {
                let payload = heard.payload();
                assert!(said.starts_with(&payload), "other bytes");
                let rest = &said[payload.len()..];
                let is_cut = || std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
                assert!(!self.is_relaying || rest.is_empty() || rest.len() < 4 && is_cut(), "{rest:?} is held");
                return assert!(!is_whole || rest.is_empty(), "{rest:?} is lost");
            }
            Protocol::Packet => {
                let mut at = 0;
                let packets = receives.iter().map(|size| {
                    at += size;
                    &said[at - size..at]
                });
                let packets: Vec<&[u8]> = packets.collect();
                let messages: Vec<&[u8]> = heard.messages().into_iter().map(|(_, bytes)| bytes).collect();
                self.is_relaying |= is_whole;
                return self.check_prefix(&packets, &messages);
            }
            Protocol::Lines => b'\n',
            Protocol::Nul => 0,
        };
        let mut lines: Vec<&[u8]> = said.split(|byte| *byte == delimiter).collect();
        // Behind the last delimiter a line has only begun; the server's end ends it, if it can be a message.
        let must_be_text = self.message_type == MessageType::Text;
        let is_last_lost =
            |line: &[u8]| is_cut || line.is_empty() || must_be_text && std::str::from_utf8(line).is_err();
        if self.is_relaying || is_whole && lines.last().is_some_and(|line| is_last_lost(line)) {
            lines.pop();
        }
        self.is_relaying |= is_whole;
        if delimiter == b'\n' {
            lines.iter_mut().for_each(|line| *line = line.strip_suffix(b"\r").unwrap_or(line));
        }
        let messages: Vec<&[u8]> = heard.messages().into_iter().map(|(_, bytes)| bytes).collect();
        self.check_prefix(&lines, &messages);
    }

    /// Frames keep the types and borders of messages.
    fn check_frames(self, said: &Reading, heard: &Reading) {
        assert_eq!(heard.fault, None, "the gateway breaks the protocol");
        let (all, some) = (said.messages(), heard.messages());
        self.check_prefix(&all, &some);
        let Some((is_text, begun)) = &heard.open else {
            return assert!(!self.is_relaying || said.open.is_none(), "a message has begun");
        };
        let open = said.open.iter().map(|(is_text, bytes)| (*is_text, bytes.as_slice()));
        let Some((was_text, message)) = all.into_iter().chain(open).nth(some.len()) else { panic!("nobody said that") };
        assert_eq!(*is_text, was_text);
        assert!(message.starts_with(begun), "other bytes");
        assert!(!self.is_relaying || message.len() == begun.len(), "bytes are held");
    }

    /// What was heard is the beginning of what was said, and all of it while messages flow.
    fn check_prefix<T: PartialEq + std::fmt::Debug>(self, said: &[T], heard: &[T]) {
        let at = said.iter().zip(heard).take_while(|(said, heard)| said == heard).count();
        if at == heard.len() && (!self.is_relaying || at == said.len()) {
            return;
        }
        let [said, heard] = [said, heard].map(|all| format!("{:?}", all.get(at)));
        // Of long ones the place is shown where they begin to differ.
        let same = said.bytes().zip(heard.bytes()).take_while(|(said, heard)| said == heard).count();
        let show = |text: &str| text.chars().skip(same.saturating_sub(40)).take(200).collect::<String>();
        panic!("number {at}: said ..{}.., heard ..{}..", show(&said), show(&heard));
    }
}
