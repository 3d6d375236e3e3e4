//! The sending side of one client, without I/O: makes frames of the server's writes, and keeps the bytes that did not
//! fit into the socket buffer.
//!
//! The caller passes a `send` function to each method: sendmsg(2) with MSG_NOSIGNAL on the client's connection. It is
//! called with all bytes that may be sent now and returns how many were sent. Its error is returned by the method;
//! bytes not sent remain queued.

use std::io::IoSlice;
use std::ops::Range;

use nix::errno::Errno;
use rfc6455::close::CloseCode;
use rfc6455::encoder::{close_frame, control_frame};
use rfc6455::header::{self, HEADER_SIZE_MAX, Opcode};
use rfc6455::utf8::Validator;

use crate::limits::{CUT_SIZE_MAX, GATHERED_SIZE, PONGS_SIZE_MAX, WRITE_PARTS_MAX};

/// The opcode of a stream's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteType {
    /// Always binary.
    Binary,
    /// Always text, without a check: the server guarantees UTF-8.
    UncheckedText,
    /// Text if the bytes are UTF-8, else binary.
    Auto,
    /// Always text; bytes that are not UTF-8 are an error (EILSEQ).
    Text,
}

/// The send queue of one client.
///
/// A server uses it in one of two ways. As a stream (`write`): each write becomes a message, a partial write is
/// reported as by write(2), and the server writes the rest again. As messages (`send`): each is accepted whole or not
/// at all, and bytes that did not fit are queued here. Both must not be mixed, except that `gather_write` may precede a
/// stream.
///
/// Pongs and the close frame are sent between frames. A stream queues at most `PONGS_SIZE_MAX` and 300 bytes; messages
/// queue `kept_size_max` bytes, or one message, in addition.
#[derive(Default, Debug)]
pub struct Outgoing {
    /// Rest of a partly sent frame, and gathered frames. Sent first.
    kept: Vec<u8>,
    /// Bytes at the start of `kept` that were sent.
    kept_start: usize,
    /// Payload bytes of a stream's frame whose header was sent, which the next writes must bring.
    owed_size: usize,
    /// First bytes of a UTF-8 character that the end of a stream's write cut. The next message begins with them.
    cut: [u8; CUT_SIZE_MAX],
    cut_size: usize,
    /// Pong frames. If too many wait, the newest is enough (RFC 6455 section 5.5.3).
    pong: Option<Vec<u8>>,
    /// The close frame; None: not asked for, or at least its first byte was sent.
    close: Option<Vec<u8>>,
    /// A close frame was asked for.
    is_closing: bool,
}

/// A frame of a write: a header, the cut character of the write before, and `payload_size` bytes of this write.
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

    /// The bytes before those of the write.
    fn header(&self) -> &[u8] {
        &self.header[self.header_start..self.header_end]
    }

    fn size(&self) -> usize {
        self.header().len() + self.payload_size
    }
}

/// How a write is sent: in a frame, except for an incomplete character of `waiting_size` bytes at its end.
#[derive(Default)]
struct Plan {
    frame: Option<Frame>,
    waiting_size: usize,
}

/// The caller's `send`. Dynamic dispatch, so that the code is compiled once.
type Send<'s> = &'s mut dyn FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>;

/// Bytes that were sent, to be assigned to the queued parts in order.
struct Taken(usize);

impl Taken {
    fn of(&mut self, size: usize) -> usize {
        let part = self.0.min(size);
        self.0 -= part;
        part
    }
}

impl Outgoing {
    /// An empty queue.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Whether `flush` has bytes to send: wait for POLLOUT.
    pub fn wants_to_write(&self) -> bool {
        !self.kept().is_empty() || self.owed_size == 0 && (self.pong.is_some() || self.close.is_some())
    }

    /// Payload bytes of the current frame that the server has not written yet. Until they are, no control frame can be
    /// sent.
    pub fn owed_size(&self) -> usize {
        self.owed_size
    }

    /// Whether a pong is queued.
    pub fn has_pong(&self) -> bool {
        self.pong.is_some()
    }

    /// Whether a close frame was asked for.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Queued bytes without pongs and the close frame.
    pub fn kept_size(&self) -> usize {
        self.kept().len()
    }

    /// Queues a pong, to be sent after the current frame.
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

    /// Bytes of the UTF-8 character that the last write cut.
    pub fn cut_size(&self) -> usize {
        self.cut_size
    }

    /// Stops waiting for the rest of a cut character: `flush` sends its bytes as a binary message.
    pub fn give_up_cut(&mut self) {
        let cut = self.cut;
        if let size @ 1.. = std::mem::take(&mut self.cut_size)
            && !self.is_closing
        {
            self.keep(Opcode::Binary, &cut[..size]);
        }
    }

    /// Drops a cut character: another process sends it.
    pub fn drop_cut(&mut self) {
        self.cut_size = 0;
    }

    /// Queues a close frame. Nothing is sent after it; a second call has no effect. The reason is cut to 123 bytes.
    pub fn close(&mut self, code: Option<CloseCode>, reason: &str) {
        if !self.is_closing {
            self.give_up_cut();
            self.close = Some(close_frame(code, reason).into());
            self.is_closing = true;
        }
    }

    /// Stream mode: sends the bytes as one text or binary message and returns how many were accepted. If fewer than
    /// all, the bytes of the next write first complete this message. At least one byte is accepted, else the result is
    /// an error: EAGAIN if `send` would block, EPIPE after `close`, EILSEQ if the bytes are no text.
    ///
    /// An incomplete UTF-8 character at the end counts as accepted, and waits for the next write, `give_up_cut` or
    /// `close`; see `cut_size`. Zero bytes send no message. Only the first `WRITE_PARTS_MAX` parts are used.
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
                // The bytes that complete the message before are sent anyway.
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
            // Only queued bytes were sent: the next turn sends payload or returns the error.
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    /// Stream mode: queues the message that `write` would send, for `flush`.
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

    /// The frame for the bytes of `range`, after the cut character if there is one. EILSEQ: they are no text.
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
            // The character is still incomplete.
            Some(tail) if tail == self.cut_size + size => Ok(Plan { frame: None, waiting_size: size }),
            Some(tail) => Ok(Plan { frame: frame(Opcode::Text, size - tail), waiting_size: tail }),
        }
    }

    /// Bytes of an incomplete character at the end of `range`; None: not UTF-8.
    fn tail(&self, parts: &[IoSlice<'_>], range: Range<usize>) -> Option<usize> {
        let mut all = vec![IoSlice::new(&self.cut[..self.cut_size])];
        push_range(&mut all, parts, range);
        let mut validator = Validator::default();
        all.iter().try_for_each(|part| validator.feed(part)).ok()?;
        Some(validator.cut_size())
    }

    /// Appends the bytes of `range` to the cut character.
    fn hold(&mut self, parts: &[IoSlice<'_>], range: Range<usize>) {
        let mut waiting = Vec::new();
        push_range(&mut waiting, parts, range);
        for byte in waiting.iter().flat_map(|part| part.iter()) {
            self.cut[self.cut_size] = *byte;
            self.cut_size += 1;
        }
    }

    /// Message mode: sends a whole message. EAGAIN: not accepted, because none of it was sent and more than
    /// `kept_size_max` bytes would be queued. The rest of a partly sent message is queued whatever its size.
    /// EPIPE: after `close`.
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

    /// Message mode: queues a message for the next `send` or `flush`. The caller limits the queue. `further_size`: an
    /// estimate of the bytes that will be gathered after it. EPIPE: after `close`.
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

    /// Sends all that needs no more bytes of the server. EAGAIN: some bytes are still queued.
    pub fn flush(&mut self, mut send: impl FnMut(&[IoSlice<'_>]) -> Result<usize, Errno>) -> Result<(), Errno> {
        self.flush_by(&mut send)
    }

    fn flush_by(&mut self, send: Send<'_>) -> Result<(), Errno> {
        while self.wants_to_write() {
            let taken = match (&self.pong, &self.close) {
                // The common case needs no list of parts.
                (None, None) => send_some(send, &[IoSlice::new(self.kept())])?,
                _ => send_some(send, &self.offer(0, None, &[]))?,
            };
            self.account(taken, 0, None);
        }
        Ok(())
    }

    /// Queued bytes that are sent before a message.
    fn waiting_size(&self) -> usize {
        self.kept_size() + self.pong.as_ref().map_or(0, |pong| pong.len())
    }

    fn kept(&self) -> &[u8] {
        &self.kept[self.kept_start..]
    }

    fn keep(&mut self, opcode: Opcode, payload: &[u8]) {
        // The pong goes before the message, so that a busy server does not delay it.
        if let Some(pong) = self.pong.take() {
            self.kept.extend_from_slice(&pong);
        }
        // Written in place: moving the header would cost as much as a short message.
        let payload_start = self.kept.len() + header::size_of(payload.len());
        self.kept.extend_from_slice(&[0; HEADER_SIZE_MAX]);
        header::write_before(&mut self.kept, payload_start, true, opcode, payload.len());
        self.kept.truncate(payload_start);
        self.kept.extend_from_slice(payload);
    }

    /// All that may be sent now: kept bytes, `owed_size` bytes of `parts`, control frames, then `frame`.
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

    /// Updates the queue after `taken` bytes of an offer were sent. Returns how many bytes of the parts that were.
    fn account(&mut self, taken: usize, owed_size: usize, frame: Option<&Frame>) -> usize {
        let mut taken = Taken(taken);
        self.kept_start += taken.of(self.kept().len());
        if self.kept().is_empty() {
            // An idle client keeps no memory.
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

/// Moves the rest of a partly sent frame to `kept`.
fn begin(frame: &mut Option<Vec<u8>>, taken: &mut Taken, kept: &mut Vec<u8>) {
    if taken.0 > 0
        && let Some(frame) = frame.take()
    {
        kept.extend_from_slice(&frame[taken.of(frame.len())..]);
    }
}

fn send_some(send: Send<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    match send(parts) {
        // send(2) never returns 0 for a non-empty buffer; do not loop for ever.
        Ok(0) => Err(Errno::EAGAIN),
        other => other,
    }
}

/// Appends the bytes of `range`, which counts over all parts.
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
