//! The request body, from the client to the node.

use super::{Forward, Then};
use crate::exchange::{Chunk, Context, Effect, Ending};
use crate::http::body::{BodyError, Framing};
use crate::http::head::HeadError;
use crate::http::transfer::{self, BodyPart, Transfer};
use crate::limits::POOL_HEADROOM;
use crate::types::{Demand, End};

/// A request body on its way.
#[derive(Debug)]
pub(super) struct Upload {
    /// None: the body has ended.
    transfer: Option<Transfer>,
    is_chunked: bool,
    /// No chunk was sent yet.
    is_first: bool,
    /// A part of the body has arrived.
    has_begun: bool,
}

impl Upload {
    pub(super) fn new(framing: Framing, size_max: u64) -> Result<Upload, BodyError> {
        let transfer = match framing {
            Framing::Empty => None,
            framing => Some(Transfer::new(framing, size_max)?),
        };
        Ok(Upload { transfer, is_chunked: framing == Framing::Chunked, is_first: true, has_begun: false })
    }

    /// Whether a part of the body has arrived.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether the body has ended.
    pub(super) fn is_over(&self) -> bool {
        self.transfer.is_none()
    }
}

impl Forward {
    /// Passes on what has been received of the body, once the head is sent.
    pub(super) fn begin_upload(&mut self, context: &mut Context<'_>) -> Option<Then> {
        if self.up.is_over() {
            return self.await_reply(context);
        }
        context.out.push(Effect::Demand(End::Client, Demand::Flow));
        self.wait(self.upstream.limits.body_ms, context);
        if self.input.is_empty() {
            return None;
        }
        let input = std::mem::take(&mut self.input);
        let mut buffer = vec![0; POOL_HEADROOM + input.len()];
        buffer[POOL_HEADROOM..].copy_from_slice(&input);
        let end = buffer.len();
        let before = std::mem::take(context.out);
        let then = self.upload(Chunk { buffer: &mut buffer, start: POOL_HEADROOM, end }, context);
        let mut made = std::mem::replace(context.out, before);
        made.copy_to(&buffer, context.out);
        then
    }

    /// Handles bytes of the client.
    pub(super) fn client_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Then> {
        if self.is_sent && !self.up.is_over() {
            self.timeouts.since_ms = context.now_ms;
            return self.upload(chunk, context);
        }
        // Pipelined requests, or frames before the 101: no more of them is read.
        self.input.extend_from_slice(&chunk.buffer[chunk.start..chunk.end]);
        None
    }

    fn upload(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Then> {
        let Chunk { buffer, start, end } = chunk;
        self.up.has_begun = true;
        let Upload { transfer: Some(transfer), is_chunked, is_first, .. } = &mut self.up else { return None };
        let mut at = start;
        let BodyPart { payload, is_last } = match transfer.take(buffer, &mut at, end) {
            Ok(taken) => taken,
            Err(error) => {
                let error = match error {
                    BodyError::TooLarge => HeadError::BodyTooLarge(self.upstream.limits.body_size_max),
                    BodyError::Malformed => HeadError::Chunks,
                };
                // A refusal would be read as a part of the reply.
                return Some(match self.down.has_begun() {
                    true => Then::Close(Ending::Head(error)),
                    false => Then::RefuseHead(error),
                });
            }
        };
        context.traffic.up_bytes += payload.len() as u64;
        if !payload.is_empty() {
            let mut range = payload;
            if *is_chunked {
                range.start = transfer::write_chunk_before(buffer, range.start, range.len(), *is_first);
                *is_first = false;
            }
            context.out.push(Effect::Forward { to: End::Backend, range });
        }
        if !is_last {
            return None;
        }
        if *is_chunked {
            let bytes = transfer::last_chunk(*is_first, &transfer.trailers());
            context.out.push(Effect::Send { to: End::Backend, bytes });
        }
        self.up.transfer = None;
        self.input.extend_from_slice(&buffer[at..end]);
        self.await_reply(context)
    }

    /// The request is sent. The client is still read once, so that its end is noticed.
    fn await_reply(&mut self, context: &mut Context<'_>) -> Option<Then> {
        let demand = if self.input.is_empty() { Demand::Once } else { Demand::Nothing };
        context.out.push(Effect::Demand(End::Client, demand));
        self.wait(self.upstream.limits.answer_ms, context);
        None
    }
}
