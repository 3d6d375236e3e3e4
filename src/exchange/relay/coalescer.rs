//! Coalesces the payloads of one receive within their buffer, so that they are sent with one send.

use super::super::{Context, Effect};
use crate::types::End;
use rfc6455::decoder::Data;
use rfc6455::header::{self, KEY_SIZE, Opcode};
use rfc6455::mask;

/// A range of the buffer. The output never outgrows the input: a piece is not longer than its frame, so its header is
/// not longer than the one that was received. Only frames of a client are masked for a node, and their headers have a
/// key too. The header of the first piece, which may have been received earlier, has the headroom.
#[derive(Default)]
pub(crate) struct Coalescer {
    start: usize,
    end: usize,
}

impl Coalescer {
    /// Appends the payload without a header.
    pub(crate) fn add_payload(&mut self, buffer: &mut [u8], data: Data) {
        if self.start == self.end {
            (self.start, self.end) = (data.range.start, data.range.end);
        } else {
            self.move_here(buffer, data);
        }
    }

    /// Appends the payload and, after the end of a message, the delimiter.
    pub(crate) fn add_delimited(&mut self, buffer: &mut [u8], data: Data, delimiter: u8) {
        if self.start == self.end {
            // The byte before the payload belonged to the header: shifting by one makes room for the delimiter.
            (self.start, self.end) = (data.range.start - 1, data.range.start - 1);
        }
        let is_last = data.last;
        self.move_here(buffer, data);
        if is_last {
            buffer[self.end] = delimiter;
            self.end += 1;
        }
    }

    /// Appends each piece as a frame of its own, so that a control frame may be sent between two receives. With a key,
    /// the frame is masked.
    pub(crate) fn add_frame(&mut self, buffer: &mut [u8], data: Data, key: Option<[u8; KEY_SIZE]>) {
        let size = data.range.len();
        let opcode = if data.first { data.opcode } else { Opcode::Continuation };
        let mut payload = data.range.start;
        if self.start != self.end {
            payload = self.end + header::size_of(size) + key.map_or(0, |key| key.len());
            debug_assert!(payload <= data.range.start);
            if payload != data.range.start {
                buffer.copy_within(data.range, payload);
            }
        }
        let start = match key {
            Some(key) => {
                mask::apply(&mut buffer[payload..payload + size], key, 0);
                header::write_masked_before(buffer, payload, data.last, opcode, size, key)
            }
            None => header::write_before(buffer, payload, data.last, opcode, size),
        };
        if self.start == self.end {
            self.start = start;
        }
        self.end = payload + size;
    }

    /// Sends the coalesced range unless it is empty.
    pub(crate) fn forward(&self, to: End, context: &mut Context<'_>) {
        if self.start != self.end {
            context.out.push(Effect::Forward { to, range: self.start..self.end });
        }
    }

    fn move_here(&mut self, buffer: &mut [u8], data: Data) {
        let size = data.range.len();
        buffer.copy_within(data.range, self.end);
        self.end += size;
    }
}
