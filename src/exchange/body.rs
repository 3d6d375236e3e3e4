//! A request body that is read and discarded: the reply and the next request wait for its end.

use super::head::refuse_head;
use super::reply::Reply;
use super::{Context, Effect, Ending, Input, Phase, Step, over, refuse};
use crate::http::body::{Body, BodyError};
use crate::http::head::HeadError;
use crate::types::{Demand, End};

/// A body that is read and discarded, and the reply to its request.
#[derive(Debug)]
pub(crate) struct Draining {
    body: Body,
    pub(crate) reply: Box<Reply>,
}

impl Draining {
    /// Starts at the first byte of the body.
    pub(crate) fn new(body: Body, reply: Box<Reply>) -> Draining {
        Draining { body, reply }
    }

    /// Handles an input; None: process the bytes that are already buffered. The deadline of the head also limits the
    /// body.
    pub(crate) fn step(
        mut self: Box<Self>,
        input: Option<Input<'_>>,
        bytes: &mut Vec<u8>,
        is_stopping: bool,
        context: &mut Context<'_>,
    ) -> Phase {
        context.is_head = self.reply.is_head();
        if matches!(input, Some(Input::Deadline)) {
            return refuse(408, "the request body was too slow", Ending::TimedOut(Step::Body), context);
        }
        if is_stopping {
            return over(Ending::Stopping, context);
        }
        match self.body.read(bytes) {
            Ok(Some(used)) => {
                bytes.drain(..used);
                self.reply.start(context)
            }
            Ok(None) => {
                bytes.clear();
                context.out.push(Effect::Demand(End::Client, Demand::Once));
                Phase::Body(self)
            }
            Err(BodyError::TooLarge) => {
                self.reply.leave_body();
                self.reply.start(context)
            }
            Err(BodyError::Malformed) => refuse_head(HeadError::Chunks, context),
        }
    }
}
