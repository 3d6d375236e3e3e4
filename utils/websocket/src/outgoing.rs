//! One client's sending side, without a socket of its own: frames out of what a server writes, and what the kernel
//! did not take of them.
//!
//! The caller gives each method a `send`, which is sendmsg(2) with MSG_NOSIGNAL on the client's connection: it gets
//! all that may go now in one call, and says how many bytes were taken. An error of it is the method's, and changes
//! nothing that was not taken before.

use std::io::IoSlice;
use std::ops::Range;

use nix::errno::Errno;
use rfc6455::close::CloseCode;
use rfc6455::encoder::{close_frame, control_frame};
use rfc6455::header::{self, HEADER_SIZE_MAX, Opcode};
use rfc6455::utf8::Validator;

use crate::limits::{CUT_SIZE_MAX, GATHERED_SIZE, PONGS_SIZE_MAX, WRITE_PARTS_MAX};

/// What the messages of a stream are sent as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteType {
    /// Binary.
    Binary,
    /// Text, whatever the bytes are: the server answers for it.
    UncheckedText,
    /// Text where the bytes are UTF-8, else binary.
    Auto,
    /// Text; bytes that are not UTF-8 are an error.
    Text,
}

/// What waits for the kernel.
///
/// A server uses it in one of two ways, never in both, but that messages may be gathered before a stream begins. As a
/// stream (`write`): each write is a message of its own, and of what the kernel does not take the server hears, as
/// write(2) would tell it, and writes it again. As messages (`send`): each is taken whole or not at all, and what the
/// kernel does not take of it waits here.
///
/// Pongs and the close frame go where a frame ends. A stream holds `PONGS_SIZE_MAX` and 300 bytes at most, messages
/// `kept_size_max` or one of them beside.
#[derive(Default, Debug)]
pub struct Outgoing {
    /// Bytes of frames that were begun, or gathered. They go before everything else.
    kept: Vec<u8>,
    kept_start: usize,
    /// Bytes of payload that a header has announced and a stream's next writes still bring.
    owed_size: usize,
    /// A character that the end of a stream's write cut: it goes in front of the next write's bytes.
    cut: [u8; CUT_SIZE_MAX],
    cut_size: usize,
    /// Answers to pings. Where many wait, the newest one is enough (RFC 6455 section 5.5.3).
    pong: Option<Vec<u8>>,
    /// The close frame, until the kernel takes of it.
    close: Option<Vec<u8>>,
    is_closing: bool,
}

/// What a write would announce: a header, the character that the last write cut, and behind it so many bytes.
struct Frame {
    header: [u8; HEADER_SIZE_MAX + CUT_SIZE_MAX],
    header_start: usize,
    header_end: usize,
    payload_size: usize,
}

impl Frame {
    fn new(opcode: Opcode, cut: &[u8], payload_size: usize) -> Frame {
        let mut header = [0; HEADER_SIZE_MAX + CUT_SIZE_MAX];
        let size = cut.len() + payload_size;
        let header_start = header::write_before(&mut header, HEADER_SIZE_MAX, true, opcode, size);
        let header_end = HEADER_SIZE_MAX + cut.len();
        header[HEADER_SIZE_MAX..header_end].copy_from_slice(cut);
        Frame { header, header_start, header_end, payload_size }
    }

    /// All of it that comes before the write's own bytes.
    fn header(&self) -> &[u8] {
        &self.header[self.header_start..self.header_end]
    }

    fn size(&self) -> usize {
        self.header().len() + self.payload_size
    }
}

/// What becomes of the bytes that complete no message: a frame, and a character at their end that waits.
#[derive(Default)]
struct Plan {
    frame: Option<Frame>,
    waiting_size: usize,
}

/// What sends. A pointer, so that the library has the code that uses it once.
type Send<'s> = &'s mut dyn FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>;

/// What the kernel took, handed out in order.
struct Taken(usize);

impl Taken {
    fn of(&mut self, size: usize) -> usize {
        let part = self.0.min(size);
        self.0 -= part;
        part
    }
}

impl Outgoing {
    /// A client's at the beginning of its conversation.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Whether there is something that `flush` could send: the client's connection is to be watched for POLLOUT.
    pub fn wants_to_write(&self) -> bool {
        !self.kept().is_empty() || self.owed_size == 0 && (self.pong.is_some() || self.close.is_some())
    }

    /// Bytes of payload that were announced to the client and not written yet. While there are any, neither a pong
    /// nor a close frame can go.
    pub fn owed_size(&self) -> usize {
        self.owed_size
    }

    /// Whether a ping's answer waits.
    pub fn has_pong(&self) -> bool {
        self.pong.is_some()
    }

    /// Whether a close frame was asked for.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Bytes that wait, the pong and the close frame not counted.
    pub fn kept_size(&self) -> usize {
        self.kept().len()
    }

    /// Answers a ping, as soon as a frame's end allows.
    pub fn pong(&mut self, ping_payload: &[u8]) {
        if self.is_closing {
            return;
        }
        let pongs = self.pong.get_or_insert_default();
        let frame = control_frame(Opcode::Pong, ping_payload);
        if pongs.len() + frame.len() > PONGS_SIZE_MAX {
            pongs.clear();
        }
        pongs.extend_from_slice(&frame);
    }

    /// Bytes of a character that the last write cut.
    pub fn cut_size(&self) -> usize {
        self.cut_size
    }

    /// Waits no longer for the other bytes of a cut character: `flush` sends what there is of it, as a binary message.
    pub fn give_up_cut(&mut self) {
        let cut = self.cut;
        if let size @ 1.. = std::mem::take(&mut self.cut_size)
            && !self.is_closing
        {
            self.keep(Opcode::Binary, &cut[..size]);
        }
    }

    /// Forgets a cut character, which another process sends.
    pub fn drop_cut(&mut self) {
        self.cut_size = 0;
    }

    /// Asks for a close frame. Nothing goes behind it; a second one is not sent. The reason is cut at 123 bytes.
    pub fn close(&mut self, code: Option<CloseCode>, reason: &str) {
        if !self.is_closing {
            self.give_up_cut();
            self.close = Some(close_frame(code, reason).into());
            self.is_closing = true;
        }
    }

    /// As a stream: makes of these bytes one text or binary message and returns how many of them were taken. Where
    /// that are fewer, the next write's bytes complete the message before they begin another. Taken are one byte at
    /// least, or the error says why none: EAGAIN where `send` would block. EPIPE: the conversation is closing.
    /// EILSEQ: these bytes are no text. A character that is cut by the end of the bytes counts as taken, and waits for
    /// the next write, `give_up_cut` or `close`: `cut_size` tells of it.
    /// No bytes are no message. Of more than `WRITE_PARTS_MAX` parts the first are taken.
    pub fn write(
        &mut self,
        kind: WriteType,
        parts: &[IoSlice<'_>],
        mut send: impl FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        self.write_by(kind, parts, &mut send)
    }

    fn write_by(&mut self, kind: WriteType, parts: &[IoSlice<'_>], send: Send<'_>) -> Result<usize, Errno> {
        let parts = &parts[..parts.len().min(WRITE_PARTS_MAX)];
        let size: usize = parts.iter().map(|part| part.len()).sum();
        if size == 0 {
            return Ok(0);
        }
        loop {
            if self.is_closing && self.owed_size == 0 {
                return Err(Errno::EPIPE);
            }
            let owed_size = size.min(self.owed_size);
            let plan = match self.plan(kind, parts, owed_size..size) {
                _ if self.is_closing => Plan::default(),
                // The end of the message before is good.
                Err(_) if owed_size > 0 => Plan::default(),
                plan => plan?,
            };
            let sent_size = owed_size + plan.frame.as_ref().map_or(0, |frame| frame.payload_size);
            let taken = if sent_size == 0 && plan.frame.is_none() {
                0
            } else {
                let taken = send_some(send, &self.offer(owed_size, plan.frame.as_ref(), parts))?;
                self.account(taken, owed_size, plan.frame.as_ref())
            };
            let has_all = self.owed_size == 0 && taken == sent_size && sent_size + plan.waiting_size == size;
            if has_all && !self.is_closing {
                self.hold(parts, size - plan.waiting_size..size);
                return Ok(size);
            }
            // Nothing of the payload: then the kernel says what is in the way.
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    /// As a stream: what `write` would make of these bytes waits until `flush`.
    pub fn gather_write(&mut self, kind: WriteType, bytes: &[u8]) -> Result<(), Errno> {
        debug_assert!(self.owed_size == 0, "a stream's message is not whole");
        if self.is_closing {
            return Err(Errno::EPIPE);
        }
        let (parts, size) = ([IoSlice::new(bytes)], bytes.len());
        let plan = self.plan(kind, &parts, 0..size)?;
        if let Some(frame) = plan.frame {
            self.kept.extend_from_slice(frame.header());
            self.kept.extend_from_slice(&bytes[..frame.payload_size]);
            self.cut_size = 0;
        }
        self.hold(&parts, size - plan.waiting_size..size);
        Ok(())
    }

    /// What the bytes of this range become, with a character before them that was cut. EILSEQ: they are no text.
    fn plan(&self, kind: WriteType, parts: &[IoSlice<'_>], range: Range<usize>) -> Result<Plan, Errno> {
        if range.is_empty() {
            return Ok(Plan::default());
        }
        let frame = |opcode, payload_size| Some(Frame::new(opcode, &self.cut[..self.cut_size], payload_size));
        let size = range.len();
        let tail = match kind {
            WriteType::Binary => None,
            WriteType::UncheckedText => Some(0),
            WriteType::Auto | WriteType::Text => self.tail(parts, range),
        };
        match tail {
            None if kind == WriteType::Text => Err(Errno::EILSEQ),
            None => Ok(Plan { frame: frame(Opcode::Binary, size), waiting_size: 0 }),
            // The character is not whole yet.
            Some(tail) if tail == self.cut_size + size => Ok(Plan { frame: None, waiting_size: size }),
            Some(tail) => Ok(Plan { frame: frame(Opcode::Text, size - tail), waiting_size: tail }),
        }
    }

    /// Bytes of the character that the end of this range cuts; None: it is not UTF-8.
    fn tail(&self, parts: &[IoSlice<'_>], range: Range<usize>) -> Option<usize> {
        let mut all = vec![IoSlice::new(&self.cut[..self.cut_size])];
        push_range(&mut all, parts, range);
        let mut validator = Validator::default();
        all.iter().try_for_each(|part| validator.feed(part)).ok()?;
        Some(validator.cut_size())
    }

    /// Lets the bytes of this range wait, behind those of the same character.
    fn hold(&mut self, parts: &[IoSlice<'_>], range: Range<usize>) {
        let mut waiting = Vec::new();
        push_range(&mut waiting, parts, range);
        for byte in waiting.iter().flat_map(|part| part.iter()) {
            self.cut[self.cut_size] = *byte;
            self.cut_size += 1;
        }
    }

    /// As messages: takes this one whole. EAGAIN: it was not taken, since with it more than `kept_size_max` bytes
    /// would wait and the kernel took nothing of it. A message that was begun waits whatever its size.
    /// EPIPE: the conversation is closing.
    pub fn send(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        kept_size_max: usize,
        mut send: impl FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        debug_assert!(self.owed_size == 0, "a stream's message is not whole");
        if self.is_closing {
            return Err(Errno::EPIPE);
        }
        let frame = Frame::new(opcode, &[], payload.len());
        let taken = match send_some(&mut send, &self.offer(0, Some(&frame), &[IoSlice::new(payload)])) {
            Err(Errno::EAGAIN) => 0,
            other => other?,
        };
        if taken > self.waiting_size() {
            let taken = self.account(taken, 0, Some(&frame));
            self.kept.extend_from_slice(&payload[taken..]);
            self.owed_size = 0;
            return Ok(());
        }
        self.account(taken, 0, None);
        if self.waiting_size() + frame.size() > kept_size_max {
            return Err(Errno::EAGAIN);
        }
        self.keep(opcode, payload);
        Ok(())
    }

    /// As messages: lets this one wait until `flush` or a `send`, so that several leave in one piece. How much may
    /// wait is the caller's to judge. `further_size`: about so many bytes are expected behind it.
    /// EPIPE: the conversation is closing.
    pub fn gather(&mut self, opcode: Opcode, payload: &[u8], further_size: usize) -> Result<(), Errno> {
        if self.is_closing {
            return Err(Errno::EPIPE);
        }
        if self.kept.is_empty() {
            let size = header::size_of(payload.len()) + payload.len() + further_size;
            self.kept.reserve(size.max(GATHERED_SIZE));
        }
        self.keep(opcode, payload);
        Ok(())
    }

    /// Sends all that may go without a byte of the server. EAGAIN: some of it waits still.
    pub fn flush(&mut self, mut send: impl FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>) -> Result<(), Errno> {
        self.flush_by(&mut send)
    }

    fn flush_by(&mut self, send: Send<'_>) -> Result<(), Errno> {
        while self.wants_to_write() {
            let taken = match (&self.pong, &self.close) {
                // The usual case needs no list.
                (None, None) => send_some(send, &[IoSlice::new(self.kept())])?,
                _ => send_some(send, &self.offer(0, None, &[]))?,
            };
            self.account(taken, 0, None);
        }
        Ok(())
    }

    /// Bytes that go before a message.
    fn waiting_size(&self) -> usize {
        self.kept_size() + self.pong.as_ref().map_or(0, |pong| pong.len())
    }

    fn kept(&self) -> &[u8] {
        &self.kept[self.kept_start..]
    }

    fn keep(&mut self, opcode: Opcode, payload: &[u8]) {
        // Before the message, so that a server which always has more to say does not hold it back.
        if let Some(pong) = self.pong.take() {
            self.kept.extend_from_slice(&pong);
        }
        // Where it stays: a header that is written and moved at once costs as much as a short message.
        let payload_start = self.kept.len() + header::size_of(payload.len());
        self.kept.extend_from_slice(&[0; HEADER_SIZE_MAX]);
        header::write_before(&mut self.kept, payload_start, true, opcode, payload.len());
        self.kept.truncate(payload_start);
        self.kept.extend_from_slice(payload);
    }

    /// All that may go now: what was kept, `owed_size` bytes of the parts, what goes between frames, then `frame`.
    fn offer<'a>(&'a self, owed_size: usize, frame: Option<&'a Frame>, parts: &'a [IoSlice<'a>]) -> Vec<IoSlice<'a>> {
        let mut all = Vec::with_capacity(parts.len() + 5);
        if !self.kept().is_empty() {
            all.push(IoSlice::new(self.kept()));
        }
        push_range(&mut all, parts, 0..owed_size);
        if owed_size == self.owed_size {
            all.extend([&self.pong, &self.close].into_iter().flatten().map(|frame| IoSlice::new(frame)));
        }
        if let Some(frame) = frame {
            all.push(IoSlice::new(frame.header()));
            push_range(&mut all, parts, owed_size..owed_size + frame.payload_size);
        }
        all
    }

    /// Notes what the kernel took of an offer. Returns how many bytes of the parts that were.
    fn account(&mut self, taken: usize, owed_size: usize, frame: Option<&Frame>) -> usize {
        let mut taken = Taken(taken);
        self.kept_start += taken.of(self.kept().len());
        if self.kept().is_empty() {
            // Who has nothing to send has no memory for it.
            (self.kept, self.kept_start) = (Vec::new(), 0);
        }
        let of_owed = taken.of(owed_size);
        self.owed_size -= of_owed;
        if self.owed_size > 0 {
            return of_owed;
        }
        begin(&mut self.pong, &mut taken, &mut self.kept);
        begin(&mut self.close, &mut taken, &mut self.kept);
        let Some(frame) = frame else { return of_owed };
        let of_header = taken.of(frame.header().len());
        if of_header == 0 {
            return of_owed;
        }
        self.cut_size = 0;
        self.kept.extend_from_slice(&frame.header()[of_header..]);
        let of_payload = taken.of(frame.payload_size);
        self.owed_size = frame.payload_size - of_payload;
        of_owed + of_payload
    }
}

/// Of a frame that was begun, the rest is kept.
fn begin(frame: &mut Option<Vec<u8>>, taken: &mut Taken, kept: &mut Vec<u8>) {
    if taken.0 > 0
        && let Some(frame) = frame.take()
    {
        kept.extend_from_slice(&frame[taken.of(frame.len())..]);
    }
}

fn send_some(send: Send<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    match send(parts) {
        // Of some bytes the kernel takes one at least; asking again for ever is no way out.
        Ok(0) => Err(Errno::EAGAIN),
        other => other,
    }
}

/// The bytes of this range, counted over all parts.
fn push_range<'a>(all: &mut Vec<IoSlice<'a>>, parts: &'a [IoSlice<'a>], range: Range<usize>) {
    let mut start = 0;
    for part in parts {
        let end = start + part.len();
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            all.push(IoSlice::new(&part[from - start..to - start]));
        }
        start = end;
    }
}

#[cfg(test)]
mod tests;
