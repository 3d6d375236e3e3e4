//! A client that sent something right behind its handshake, before its socket could be handed over: the server has one
//! end of a socketpair(2) in the socket's place, and what goes through is none of the gateway's business.

use super::ending::Leave;
use super::{CloseTimeouts, Context, Effect, Ending, Input};
use crate::route::{Seat, Service};
use crate::types::{Demand, End};

/// Bytes each way, as they are.
#[derive(Debug)]
pub struct Tunnel {
    seat: Seat,
    has_client: bool,
    has_backend: bool,
    /// The gateway stops: what the client still says goes nowhere.
    is_stopping: bool,
    /// Since when the server has ended: it leaves its client no longer than any other end does.
    ended_ms: Option<u64>,
}

impl Tunnel {
    /// Begins with what the client has sent already.
    pub fn new(seat: Seat, pipelined: Vec<u8>, context: &mut Context<'_>) -> Tunnel {
        context.set_deadline(None);
        context.traffic.up_bytes += pipelined.len() as u64;
        context.out.push(Effect::CloseFile);
        if !pipelined.is_empty() {
            context.out.push(Effect::Send { to: End::Backend, bytes: pipelined.into() });
        }
        context.out.push(Effect::Demand(End::Client, Demand::Flow));
        context.out.push(Effect::Demand(End::Backend, Demand::Flow));
        Tunnel { seat, has_client: true, has_backend: true, is_stopping: false, ended_ms: None }
    }

    /// Whose client it is.
    pub fn service(&self) -> &Service {
        &self.seat
    }

    /// The place among its service's conversations.
    pub fn into_seat(self) -> Seat {
        self.seat
    }

    /// How long its end may take, once the server has ended.
    pub fn timeouts(&self) -> Option<CloseTimeouts> {
        self.ended_ms.map(|since_ms| CloseTimeouts::of(&self.seat.limits, since_ms))
    }

    /// Whether neither end sends any more: it is over once each has what the other one sent.
    pub fn has_ended(&self) -> bool {
        !self.has_client && !self.has_backend
    }

    /// The server sees its client leave, and says its last words. The client is read on: unread bytes would make its
    /// end a reset, which destroys them.
    pub fn stop(&mut self, context: &mut Context<'_>) {
        self.is_stopping = true;
        context.out.push(Effect::Finish(End::Backend));
    }

    /// Takes an input; Some: it goes over into its end.
    pub fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Leave> {
        match input {
            // A receive may have come to something just before the client's failure was told.
            Input::Bytes(End::Client, _) if self.is_stopping || !self.has_client => {}
            Input::Bytes(End::Client, chunk) => {
                context.traffic.up_bytes += (chunk.end - chunk.start) as u64;
                context.out.push(Effect::Forward { to: End::Backend, range: chunk.start..chunk.end });
            }
            Input::Bytes(End::Backend, chunk) => {
                context.traffic.down_bytes += (chunk.end - chunk.start) as u64;
                context.out.push(Effect::Forward { to: End::Client, range: chunk.start..chunk.end });
            }
            // One direction may end before the other, as on the client's own socket.
            Input::Ended(End::Client) => {
                self.has_client = false;
                context.out.push(Effect::Finish(End::Backend));
            }
            // A server that closes with something unread is reported as a reset behind its last bytes.
            Input::Ended(End::Backend) | Input::Failed(End::Backend, _) => {
                self.has_backend = false;
                self.ended_ms = Some(context.now_ms);
                context.out.push(Effect::Finish(End::Client));
                context.deadline_in(self.seat.limits.close_ms);
            }
            // The server still gets what the client sent before.
            Input::Failed(End::Client, _) if !self.has_backend => {
                self.has_client = false;
                context.out.push(Effect::Abandon(End::Client));
                context.out.push(Effect::Finish(End::Backend));
            }
            Input::Failed(End::Client, error) => return Some(Leave::ClientLost(Ending::ClientFailed(error))),
            Input::Drained | Input::Deadline => return Some(Leave::Over(Ending::Tunnelled)),
            Input::Stop => self.stop(context),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::driver::SystemError;
    use crate::exchange::{Chunk, Effects, Facts, Surroundings};
    use crate::http::date::Date;
    use crate::route::{Site, Sites};

    #[test]
    fn a_client_that_failed_says_nothing_more() {
        let (date, sites) = (Date::default(), Sites::new(Arc::new(Site::default()), Vec::new()));
        let (mut facts, mut effects) = (Facts::default(), Effects::default());
        let mut context = Context::new(
            Surroundings { now_ms: 1, since_ms: 1, date: &date, sites: &sites, tag_salt: 1 },
            &mut facts,
            &mut effects,
        );
        let seat = Seat::take(&Arc::default(), 1).unwrap();
        let mut tunnel = Tunnel::new(seat, b"early".to_vec(), &mut context);
        assert!(tunnel.handle(Input::Ended(End::Backend), &mut context).is_none());
        assert!(tunnel.handle(Input::Failed(End::Client, SystemError::BROKEN_PIPE), &mut context).is_none());
        context.out.drain().for_each(drop);
        let chunk = Chunk { buffer: &mut b"late".to_vec(), start: 0, end: 4 };
        assert!(tunnel.handle(Input::Bytes(End::Client, chunk), &mut context).is_none());
        assert_eq!(effects.drain().count(), 0, "its server has been told its end");
        assert!(tunnel.has_ended());
    }
}
