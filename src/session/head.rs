//! From the first byte of a request to its answer's kind.

use super::{Action, Context, Demand, Ending, Input, Opening, Phase, Reply, Side, Step, refuse};
use crate::http::head::{self, HeadError};
use crate::route::names;
use crate::websocket::upgrade::{self, UpgradeError};

/// Before a request's end.
#[derive(Debug, Default)]
pub struct Head {
    /// So many bytes of the input have been searched for the head's end.
    scanned: usize,
    /// A request has been answered on this connection.
    pub is_next: bool,
    /// When the request began to come.
    since_ms: u64,
}

impl Head {
    /// Takes an input, or None to look at the bytes that are there already. True: the next phase wants a step.
    pub fn step(
        mut self,
        input: Option<Input<'_>>,
        bytes: &mut Vec<u8>,
        name: &mut Box<str>,
        is_stopping: bool,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        context.is_head = bytes.starts_with(b"HEAD ");
        match input {
            Some(Input::Overload(full)) => {
                return (refuse(503, &full.to_string(), Ending::Overload(full), context), false);
            }
            Some(Input::Deadline) if bytes.is_empty() => {
                return (over(Ending::TimedOut(Step::Request), context), false);
            }
            Some(Input::Deadline) => {
                let sentence = "the request head was too slow";
                return (refuse(408, sentence, Ending::TimedOut(Step::Head), context), false);
            }
            _ if is_stopping => return (over(Ending::Stopping, context), false),
            // From accept, or from a next request's first byte, the whole head has this long.
            Some(Input::Accepted) => self.begin(context),
            Some(Input::ClientBytes(_)) if self.is_next && self.scanned == 0 => self.begin(context),
            None if self.is_next && !bytes.is_empty() => self.begin(context),
            _ => {}
        }
        let Some(end) = head::end(bytes, self.scanned) else {
            // Garbage shows in the first bytes; later ones are looked at again only when the head is whole.
            let judged = if self.scanned == 0 || bytes.len() as u64 > context.site().limits.head_size_max {
                head::check_partial(bytes)
            } else {
                Ok(())
            };
            if let Err(error) = judged {
                return (refuse_head(error, context), false);
            }
            self.scanned = bytes.len();
            context.out.push(Action::Demand(Side::Client, Demand::Once));
            return (Phase::Head(self), false);
        };
        let rest = bytes.split_off(end);
        let whole = std::mem::replace(bytes, rest);
        answer(&whole, name, self.since_ms, context)
    }

    fn begin(&mut self, context: &mut Context<'_>) {
        self.since_ms = context.now_ms;
        context.deadline_in(context.site().limits.head_ms);
    }

    /// For the request behind an answered one; what came with it is looked at first.
    pub fn next() -> Head {
        Head { scanned: 0, is_next: true, since_ms: 0 }
    }
}

fn over(ending: Ending, context: &mut Context<'_>) -> Phase {
    context.out.push(Action::End(ending));
    Phase::Over
}

fn refuse_head(error: HeadError, context: &mut Context<'_>) -> Phase {
    refuse(error.status(), &error.to_string(), Ending::Head(error), context)
}

fn refuse_upgrade(error: UpgradeError, context: &mut Context<'_>) -> Phase {
    refuse(error.status(), &error.to_string(), Ending::Upgrade(error), context)
}

fn answer(bytes: &[u8], name: &mut Box<str>, since_ms: u64, context: &mut Context<'_>) -> (Phase, bool) {
    let head = match head::parse(bytes) {
        Ok(head) => head,
        Err(error) => return (refuse_head(error, context), false),
    };
    let Ok(asked) = names::from_path(head.path) else {
        return (refuse(400, &names::NameError.to_string(), Ending::Name, context), false);
    };
    *name = asked.into();
    *context.site = context.sites.of_host(head.host);
    if upgrade::is_asked(&head.headers) {
        if head.has_body {
            // Its bytes would be taken for frames.
            return (refuse_upgrade(UpgradeError::Body, context), false);
        }
        return match upgrade::check(head.method, head.http_1_1, head.host, &head.headers, &context.site().origins) {
            Ok(upgrade) => Opening::start(name, upgrade, since_ms, context),
            Err(error) => (refuse_upgrade(error, context), false),
        };
    }
    let is_head = head.method == "HEAD";
    if !is_head && head.method != "GET" {
        return (refuse(405, "only GET and HEAD are served", Ending::Method, context), false);
    }
    (Reply::start(name, head.path.ends_with('/'), is_head, head.keep_alive, context), true)
}
