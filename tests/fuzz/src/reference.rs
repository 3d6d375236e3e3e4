//! RFC 6455, read the slow and plain way: all bytes at once, one check behind the other, no state to go wrong.

use crate::access::Count;

/// What a stream of frames says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A whole message: whether it is text, and its payload.
    Message(bool, Vec<u8>),
    /// A ping's payload.
    Ping(Vec<u8>),
    /// A pong; its payload is nobody's business.
    Pong,
    /// A close frame's code and reason.
    Close(Option<u16>, String),
}

/// All that a stream of frames says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reading {
    /// In order.
    pub events: Vec<Event>,
    /// A message that is not whole, or is wrong: whether it is text, and what came of its payload.
    pub open: Option<(bool, Vec<u8>)>,
    /// The stream ends between two messages, and within no frame.
    pub is_between: bool,
    /// The close code of what is wrong (RFC 6455 section 7.4.1); what stands behind it is not read.
    pub fault: Option<u16>,
}

/// How much is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Bytes of a frame.
    pub frame_max: u64,
    /// Bytes of a message.
    pub message_max: u64,
}

impl Sizes {
    /// Any size.
    pub const ANY: Sizes = Sizes { frame_max: u64::MAX, message_max: u64::MAX };
}

const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// What is not all there yet, or is wrong.
enum Stop {
    Short,
    Fault(u16),
}

impl Reading {
    /// Reads a stream from its beginning; a client's frames are masked, a server's are not.
    pub fn of(bytes: &[u8], is_masked: bool, sizes: Sizes) -> Reading {
        Reading::until(|_| false, bytes, is_masked, sizes)
    }

    /// As `of`, up to the first close frame: what comes after it is not heard.
    pub fn until_close(bytes: &[u8], is_masked: bool, sizes: Sizes) -> Reading {
        Reading::until(|event| matches!(event, Event::Close(..)), bytes, is_masked, sizes)
    }

    fn until(is_last: impl Fn(&Event) -> bool, bytes: &[u8], is_masked: bool, sizes: Sizes) -> Reading {
        let mut reading = Reading::default();
        let mut rest = bytes;
        while !rest.is_empty() && !reading.events.last().is_some_and(&is_last) {
            match reading.frame(rest, is_masked, sizes) {
                Ok(size) => rest = &rest[size..],
                Err(Stop::Short) => return reading,
                Err(Stop::Fault(code)) => return Reading { fault: Some(code), ..reading },
            }
        }
        reading.is_between = reading.open.is_none();
        reading
    }

    /// The payload of all messages, whole or not.
    pub fn payload(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for event in &self.events {
            if let Event::Message(_, bytes) = event {
                all.extend_from_slice(bytes);
            }
        }
        all.extend_from_slice(self.open.as_ref().map_or(&[], |(_, bytes)| bytes));
        all
    }

    /// The whole messages.
    pub fn messages(&self) -> Vec<(bool, &[u8])> {
        let message = |event| match event {
            &Event::Message(is_text, ref bytes) => Some((is_text, bytes.as_slice())),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    /// The payload bytes and the whole messages.
    pub fn count(&self) -> Count {
        Count { bytes: self.payload().len(), messages: self.messages().len() }
    }

    /// Reads one frame; how many bytes it has.
    fn frame(&mut self, bytes: &[u8], is_masked: bool, sizes: Sizes) -> Result<usize, Stop> {
        let byte = |at: usize| bytes.get(at).copied().ok_or(Stop::Short);
        let wrong = |is_wrong: bool| if is_wrong { Err(Stop::Fault(PROTOCOL_ERROR)) } else { Ok(()) };
        let (is_last, reserved, opcode) = (byte(0)? & 0x80 != 0, byte(0)? & 0x70, byte(0)? & 0x0f);
        let is_control = opcode >= 8;
        wrong(reserved != 0 || !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) || is_control && !is_last)?;
        wrong((byte(1)? & 0x80 != 0) != is_masked)?;
        let short = byte(1)? & 0x7f;
        wrong(is_control && short > 125)?;
        let number = |count: usize| (2..2 + count).try_fold(0, |sum, at| Ok(sum << 8 | u64::from(byte(at)?)));
        let (size, mut start) = match short {
            126 => (number(2)?, 4),
            127 => (number(8)?, 10),
            _ => (u64::from(short), 2),
        };
        wrong(short == 126 && size < 126 || short == 127 && !(65_536..1 << 63).contains(&size))?;
        let key = if is_masked { [byte(start)?, byte(start + 1)?, byte(start + 2)?, byte(start + 3)?] } else { [0; 4] };
        start += if is_masked { 4 } else { 0 };
        if !is_control {
            wrong((opcode == 0) != self.open.is_some())?;
            let before = self.open.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
            if size > sizes.frame_max || before + size > sizes.message_max {
                return Err(Stop::Fault(TOO_BIG));
            }
        }
        let there = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len() - start);
        let payload = unmask(&bytes[start..start + there], key);
        let is_whole = there as u64 == size;
        match (is_control, is_whole) {
            (true, true) => self.events.push(control(opcode, payload)?),
            (true, false) => {}
            // A frame of which nothing but the header is there says nothing yet.
            (false, false) if payload.is_empty() => {}
            (false, _) => self.data(opcode, &payload, is_last && is_whole)?,
        }
        if is_whole { Ok(start + there) } else { Err(Stop::Short) }
    }

    fn data(&mut self, opcode: u8, payload: &[u8], is_last: bool) -> Result<(), Stop> {
        let (is_text, mut message) = self.open.take().unwrap_or((opcode == 1, Vec::new()));
        message.extend_from_slice(payload);
        let text = std::str::from_utf8(&message);
        // A character may still get its other bytes, unless nothing more comes.
        let is_wrong = is_text && text.is_err_and(|error| is_last || error.error_len().is_some());
        if is_last && !is_wrong {
            self.events.push(Event::Message(is_text, message));
        } else {
            self.open = Some((is_text, message));
        }
        if is_wrong { Err(Stop::Fault(INVALID_PAYLOAD)) } else { Ok(()) }
    }
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Event, Stop> {
    match (opcode, &payload[..]) {
        (9, _) => Ok(Event::Ping(payload)),
        (10, _) => Ok(Event::Pong),
        (_, []) => Ok(Event::Close(None, String::new())),
        (_, [_]) => Err(Stop::Fault(PROTOCOL_ERROR)),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from(*high) << 8 | u16::from(*low);
            // RFC 6455 section 7.4.2 and what has been registered since.
            let is_known = (1000..=1014).contains(&code) && ![1004, 1005, 1006].contains(&code);
            if !is_known && !(3000..5000).contains(&code) {
                return Err(Stop::Fault(PROTOCOL_ERROR));
            }
            let reason = String::from_utf8(reason.to_vec()).map_err(|_| Stop::Fault(INVALID_PAYLOAD))?;
            Ok(Event::Close(Some(code), reason))
        }
    }
}

/// A frame as a client sends it, or as a server does. The payload is as long as it may be.
pub fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        size @ 0..126 => bytes.push(mask_bit | size as u8),
        size @ 126..65_536 => {
            bytes.push(mask_bit | 126);
            bytes.extend((size as u16).to_be_bytes());
        }
        size => {
            bytes.push(mask_bit | 127);
            bytes.extend((size as u64).to_be_bytes());
        }
    }
    bytes.extend(key.iter().flatten());
    bytes.extend(unmask(payload, key.unwrap_or_default()));
    bytes
}

fn unmask(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for part in bytes.chunks_mut(4) {
        part.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
    bytes
}
