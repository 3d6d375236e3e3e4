//! A client that sent something right behind its handshake, before its socket could be handed over: the server has one
//! end of a socketpair(2) in the socket's place, and what goes through is none of the gateway's business.

use std::sync::Arc;

use super::{Action, Closing, Context, Demand, Ending, Input, Patience, Phase, Side, head};
use crate::route::Service;

/// Bytes each way, as they are.
#[derive(Debug)]
pub struct Tunnel {
    /// As long as it lives, the conversation counts as one of its service's.
    service: Arc<Service>,
    has_client: bool,
    has_backend: bool,
    /// The gateway stops: what the client still says goes nowhere.
    is_stopping: bool,
    /// Since when the server has ended: it leaves its client no longer than any other end does.
    ended_ms: Option<u64>,
}

impl Tunnel {
    /// Begins with what the client has sent already.
    pub fn new(service: Arc<Service>, early: Vec<u8>, context: &mut Context<'_>) -> Tunnel {
        *context.deadline_ms = None;
        context.traffic.up_bytes += early.len() as u64;
        context.out.push(Action::CloseFile);
        context.out.push(Action::Send { to: Side::Backend, bytes: early.into() });
        context.out.push(Action::Demand(Side::Client, Demand::Flow));
        context.out.push(Action::Demand(Side::Backend, Demand::Flow));
        Tunnel { service, has_client: true, has_backend: true, is_stopping: false, ended_ms: None }
    }

    /// Whose client it is.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// How long its end may take, once the server has ended.
    pub fn patience(&self) -> Option<Patience> {
        let limits = &self.service.limits;
        let (close_ms, stall_ms) = (limits.close_ms, limits.stall_ms);
        self.ended_ms.map(|since_ms| Patience { since_ms, close_ms, stall_ms })
    }

    /// Whether neither end sends any more: it is over once each has what the other one sent.
    pub fn has_ended(&self) -> bool {
        !self.has_client && !self.has_backend
    }

    /// The server sees its client leave, and says its last words. The client is read on: unread bytes would make its
    /// end a reset, which destroys them.
    pub fn stop(&mut self, context: &mut Context<'_>) {
        self.is_stopping = true;
        context.out.push(Action::Finish(Side::Backend));
    }

    /// Takes an input; Some: it is over.
    pub fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Phase> {
        match input {
            // A receive may have come to something just before the client's failure was told.
            Input::ClientBytes(_) if self.is_stopping || !self.has_client => {}
            Input::ClientBytes(chunk) => {
                context.traffic.up_bytes += (chunk.end - chunk.start) as u64;
                context.out.push(Action::Forward { to: Side::Backend, range: chunk.start..chunk.end });
            }
            Input::BackendBytes(chunk) => {
                context.traffic.down_bytes += (chunk.end - chunk.start) as u64;
                context.out.push(Action::Forward { to: Side::Client, range: chunk.start..chunk.end });
            }
            // One direction may end before the other, as on the client's own socket.
            Input::ClientEnd => {
                self.has_client = false;
                context.out.push(Action::Finish(Side::Backend));
            }
            // A server that closes with something unread is reported as a reset behind its last bytes.
            Input::BackendEnd | Input::BackendFailed(_) => {
                self.has_backend = false;
                self.ended_ms = Some(context.now_ms);
                context.out.push(Action::Finish(Side::Client));
                context.deadline_in(self.service.limits.close_ms);
            }
            // The server still gets what the client sent before.
            Input::ClientFailed(_) if !self.has_backend => {
                self.has_client = false;
                context.out.push(Action::Abandon(Side::Client));
                context.out.push(Action::Finish(Side::Backend));
            }
            Input::ClientFailed(errno) => {
                let ending = Ending::ClientFailed(errno);
                return Some(Phase::Closing(Box::new(Closing::without_client(ending, &self.service, context))));
            }
            Input::Drained | Input::Deadline => return Some(head::over(Ending::Tunnelled, context)),
            Input::Stop => self.stop(context),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Errno;
    use crate::http::date::Date;
    use crate::route::{Site, Sites};
    use crate::session::{Actions, Chunk, Facts, Surroundings};

    #[test]
    fn a_client_that_failed_says_nothing_more() {
        let (date, sites) = (Date::default(), Sites::new(Arc::new(Site::default()), Vec::new()));
        let (mut facts, mut actions) = (Facts::default(), Actions::default());
        let mut context = Context::new(
            Surroundings { now_ms: 1, since_ms: 1, date: &date, sites: &sites, tag_salt: 1 },
            &mut facts,
            &mut actions,
        );
        let mut tunnel = Tunnel::new(Arc::default(), b"early".to_vec(), &mut context);
        assert!(tunnel.handle(Input::BackendEnd, &mut context).is_none());
        assert!(tunnel.handle(Input::ClientFailed(Errno::EPIPE), &mut context).is_none());
        context.out.drain().for_each(drop);
        let chunk = Chunk { buffer: &mut b"late".to_vec(), start: 0, end: 4 };
        assert!(tunnel.handle(Input::ClientBytes(chunk), &mut context).is_none());
        assert_eq!(actions.drain().count(), 0, "its server has been told its end");
        assert!(tunnel.has_ended());
    }
}
