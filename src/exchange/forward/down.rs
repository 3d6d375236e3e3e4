//! The reply, from the node to the client.

use super::{Forward, Then};
use crate::exchange::{Chunk, Context, Effect, Ending};
use crate::http::forwarding::{self, BodyOut, ReplyParts, Rewrite};
use crate::http::response::{self, ResponseFraming, ResponseHead};
use crate::http::transfer::{self, BodyPart, Transfer};
use crate::limits::INTERIM_REPLIES_MAX;
use crate::types::End;
use crate::upstream::UpstreamError;

/// A reply on its way.
#[derive(Debug)]
pub(super) enum Download {
    /// Its head is incomplete.
    Head {
        /// The bytes that have arrived of it.
        partial: Vec<u8>,
        /// Interim replies before it.
        interims: u32,
    },
    Body(Box<ReplyBody>),
    /// All of it is queued for the client.
    Whole,
}

/// A reply body on its way.
#[derive(Debug)]
pub(super) struct ReplyBody {
    transfer: Transfer,
    out: BodyOut,
    /// No chunk was sent yet.
    is_first: bool,
    /// How long the node's connection may lie idle afterwards, in milliseconds. 0: it ends with the reply.
    idle_ms: u64,
}

/// What a reply head leads to.
enum Begun {
    /// The head of an interim reply was handled.
    Interim,
    /// A body follows, or none.
    Reply(Option<ReplyBody>, u64),
    /// The node has accepted the handshake.
    Upgraded,
}

impl Default for Download {
    fn default() -> Download {
        Download::Head { partial: Vec::new(), interims: 0 }
    }
}

impl Download {
    /// Whether the client has got the head.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self, Download::Head { .. })
    }

    /// Whether the end of the stream completes the body.
    pub(super) fn is_complete_at_end(&self) -> bool {
        matches!(self, Download::Body(body) if body.transfer.is_complete_at_end())
    }

    /// Heap bytes held.
    pub(super) fn held_size(&self) -> usize {
        match self {
            Download::Head { partial, .. } => partial.capacity(),
            Download::Body(_) | Download::Whole => 0,
        }
    }
}

impl Forward {
    /// Handles bytes of the node.
    pub(super) fn backend_bytes(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Then> {
        // A head is awaited as a whole.
        if self.down.has_begun() {
            self.timeouts.since_ms = context.now_ms;
        }
        let Chunk { buffer, start: mut at, end } = chunk;
        while let Download::Head { partial, .. } = &mut self.down {
            let mut whole = std::mem::take(partial);
            let before = whole.len();
            // Most heads arrive whole and are parsed where they are.
            let bytes = if before == 0 { &buffer[at..end] } else { append(&mut whole, &buffer[at..end]) };
            let size = match response::scan(bytes, before) {
                Ok(Some(size)) => size,
                Ok(None) => {
                    if before == 0 {
                        whole = bytes.to_vec();
                    }
                    if let Download::Head { partial, .. } = &mut self.down {
                        *partial = whole;
                    }
                    return None;
                }
                Err(error) => return self.malformed(error, context),
            };
            at += size - before;
            let head = match response::parse(&bytes[..size], self.traits.is_head) {
                Ok(head) => head,
                Err(error) => return self.malformed(error, context),
            };
            match self.begin_reply(&head, context) {
                Ok(Begun::Interim) if self.up.is_over() => self.wait(self.upstream.limits.answer_ms, context),
                Ok(Begun::Interim) => {}
                Ok(Begun::Upgraded) => return Some(Then::Upgraded(buffer[at..end].to_vec())),
                Ok(Begun::Reply(body, idle_ms)) => {
                    let Some(body) = body else {
                        return self.leave_node(if at == end { idle_ms } else { 0 }, context);
                    };
                    self.down = Download::Body(Box::new(body));
                    self.wait(self.upstream.limits.answer_ms, context);
                    break;
                }
                // What a client offers may have led to it.
                Err(error @ UpstreamError::NoHandshake) => {
                    self.search.complain(error, context);
                    return Some(Then::Refuse(error));
                }
                Err(error) => {
                    self.search.give_up_node(error, context);
                    return Some(Then::Refuse(error));
                }
            }
            if at == end {
                return None;
            }
        }
        self.pass_body(Chunk { buffer, start: at, end }, context)
    }

    fn malformed(&mut self, error: response::ResponseError, context: &mut Context<'_>) -> Option<Then> {
        let error = UpstreamError::Response(error);
        self.search.give_up_node(error, context);
        Some(Then::Refuse(error))
    }

    /// Handles a reply head.
    fn begin_reply(&mut self, head: &ResponseHead<'_>, context: &mut Context<'_>) -> Result<Begun, UpstreamError> {
        if head.status == 101 {
            return self.switch(head, context);
        }
        if head.status < 200 {
            let Download::Head { interims, .. } = &mut self.down else { return Ok(Begun::Interim) };
            *interims += 1;
            if *interims > INTERIM_REPLIES_MAX {
                return Err(UpstreamError::TooManyInterims);
            }
            // Clients of HTTP/1.0 know no interim replies (RFC 9110 section 15.2).
            if self.traits.http_1_1 && (head.status != 100 || self.traits.expects_continue) {
                context.out.push(Effect::Send {
                    to: End::Client,
                    bytes: forwarding::interim_head(head.status, head.reason, &head.headers).into(),
                });
            }
            return Ok(Begun::Interim);
        }
        // A server that does not know WebSocket answers a request for a page, which the rules have not seen.
        if self.handshake.is_some() && head.status < 300 {
            return Err(UpstreamError::NoHandshake);
        }
        self.search.answered(context);
        self.head = Box::default();
        let out = match head.framing {
            ResponseFraming::Empty => BodyOut::None,
            ResponseFraming::Sized(size) => BodyOut::Length(size),
            // Clients of HTTP/1.0 know no chunks.
            ResponseFraming::Chunked | ResponseFraming::UntilClose if !self.traits.http_1_1 => BodyOut::UntilClose,
            ResponseFraming::Chunked | ResponseFraming::UntilClose => BodyOut::Chunked,
        };
        let transfer = match head.framing {
            ResponseFraming::Empty => None,
            framing => Some(Transfer::of_reply(framing).map_err(|_| UpstreamError::Chunks)?),
        };
        // The rest of a body that the node does not want would be read as the next request.
        let is_whole = self.up.is_over();
        self.keep_alive &= is_whole && out != BodyOut::UntilClose && !context.sites.are_replaced();
        let idle_ms = match head.keep_alive && is_whole && self.handshake.is_none() {
            true => head.keep_alive_s.map_or(u64::MAX, |seconds| seconds.saturating_sub(1).saturating_mul(1000)),
            false => 0,
        };
        let fields = context.fields(&self.fields).into_owned();
        let authorities = self.authorities();
        let rewrite = self.rewrite_with(&authorities);
        let bytes = forwarding::reply_head(&ReplyParts {
            status: head.status,
            reason: head.reason,
            headers: &head.headers,
            fields: &fields,
            body: out,
            keep_alive: self.keep_alive,
            date: context.date,
            rewrite: rewrite.as_ref(),
        });
        *context.status = head.status;
        self.log_reply(head.status, context);
        context.out.push(Effect::Send { to: End::Client, bytes: bytes.into() });
        let body = transfer.map(|transfer| ReplyBody { transfer, out, is_first: true, idle_ms });
        Ok(Begun::Reply(body, idle_ms))
    }

    /// Handles a 101 (RFC 6455 section 4.1).
    fn switch(&mut self, head: &ResponseHead<'_>, context: &mut Context<'_>) -> Result<Begun, UpstreamError> {
        let Some(handshake) = &self.handshake else { return Err(UpstreamError::NoHandshake) };
        let passes_extensions = self.upstream.is_tunnel;
        if !handshake.upgrade.is_accepted_by(&head.headers, passes_extensions) {
            return Err(UpstreamError::NoHandshake);
        }
        self.search.answered(context);
        *context.status = 101;
        self.log_reply(101, context);
        let authorities = self.authorities();
        let rewrite = self.rewrite_with(&authorities);
        let bytes = forwarding::switching_head(&head.headers, passes_extensions, rewrite.as_ref());
        context.out.push(Effect::Send { to: End::Client, bytes: bytes.into() });
        Ok(Begun::Upgraded)
    }

    /// The authorities that are the node.
    fn authorities(&self) -> [&str; 2] {
        [self.search.name(), self.rewrite.as_ref().map_or("", |rewrite| &rewrite.host)]
    }

    fn rewrite_with<'a>(&'a self, authorities: &'a [&'a str]) -> Option<Rewrite<'a>> {
        let rewriting = self.rewrite.as_ref()?;
        let from = self.upstream.path.as_deref().unwrap_or_default();
        Some(Rewrite { authorities, is_tls: self.upstream.tls.is_some(), from, to: &rewriting.to })
    }

    fn pass_body(&mut self, chunk: Chunk<'_>, context: &mut Context<'_>) -> Option<Then> {
        let Chunk { buffer, start: mut at, end } = chunk;
        let Download::Body(body) = &mut self.down else {
            // Bytes after the reply.
            return None;
        };
        let Ok(BodyPart { payload, is_last }) = body.transfer.take(buffer, &mut at, end) else {
            let error = UpstreamError::Chunks;
            self.search.give_up_node(error, context);
            return Some(Then::Close(Ending::Upstream(error)));
        };
        context.traffic.down_bytes += payload.len() as u64;
        if !payload.is_empty() {
            let mut range = payload;
            if body.out == BodyOut::Chunked {
                range.start = transfer::write_chunk_before(buffer, range.start, range.len(), body.is_first);
                body.is_first = false;
            }
            context.out.push(Effect::Forward { to: End::Client, range });
        }
        if !is_last {
            return None;
        }
        if at < end {
            body.idle_ms = 0;
        }
        self.end_reply(context)
    }

    /// The body is whole.
    pub(super) fn end_reply(&mut self, context: &mut Context<'_>) -> Option<Then> {
        let Download::Body(body) = &mut self.down else { return None };
        if body.out == BodyOut::Chunked {
            let bytes = transfer::last_chunk(body.is_first, &body.transfer.trailers());
            context.out.push(Effect::Send { to: End::Client, bytes });
        }
        let (idle_ms, out) = (body.idle_ms, body.out);
        let then = self.leave_node(idle_ms, context);
        // Nothing may have been queued last, so that nothing would tell when the client has received it.
        if out == BodyOut::UntilClose { Some(Then::Close(Ending::Served)) } else { then }
    }

    /// The reply is whole: the node's connection lies idle for at most this time, or is closed.
    fn leave_node(&mut self, idle_ms: u64, context: &mut Context<'_>) -> Option<Then> {
        let idle_ms = if self.up.is_over() { idle_ms } else { 0 };
        if let Some(link) = self.search.link() {
            context.out.push(Effect::LeaveNode { link, idle_ms });
        }
        self.search.leave();
        self.down = Download::Whole;
        let stall_ms = self.timeouts.stall_ms;
        self.wait(stall_ms, context);
        None
    }
}

/// Appends bytes to those before, and returns all of them.
fn append<'a>(whole: &'a mut Vec<u8>, bytes: &[u8]) -> &'a [u8] {
    whole.extend_from_slice(bytes);
    whole
}
