//! A client that pipelined bytes after its handshake, before its socket could be handed over: the backend gets one end
//! of a socketpair(2) in place of the socket, and the gateway copies bytes without parsing them.

use super::ending::Leave;
use super::{CloseTimeouts, Context, Effect, Ending, Input};
use crate::route::{Seat, Service};
use crate::types::{Demand, End};
use crate::upstream::NodePermit;

/// Copies raw bytes in both directions.
#[derive(Debug)]
pub(crate) struct Tunnel {
    seat: Seat,
    /// The node counts it as busy. None: the backend is not a node.
    node: Option<NodePermit>,
    has_client: bool,
    has_backend: bool,
    /// The gateway stops: further bytes of the client are discarded.
    is_stopping: bool,
    /// The time at which the backend ended, in milliseconds; None: it has not. Its client then has the usual close
    /// timeouts.
    ended_ms: Option<u64>,
}

impl Tunnel {
    /// Starts with the client's pipelined bytes.
    pub(crate) fn new(seat: Seat, pipelined: Vec<u8>, context: &mut Context<'_>) -> Tunnel {
        context.set_deadline(None);
        context.traffic.up_bytes += pipelined.len() as u64;
        context.out.push(Effect::CloseFile);
        if !pipelined.is_empty() {
            context.out.push(Effect::Send { to: End::Backend, bytes: pipelined.into() });
        }
        context.out.push(Effect::Demand(End::Client, Demand::Flow));
        context.out.push(Effect::Demand(End::Backend, Demand::Flow));
        Tunnel { seat, node: None, has_client: true, has_backend: true, is_stopping: false, ended_ms: None }
    }

    /// As `new`, to a node, of which bytes have already arrived after its 101.
    pub(crate) fn to_node(
        seat: Seat,
        node: Option<NodePermit>,
        (of_client, of_node): (Vec<u8>, Vec<u8>),
        context: &mut Context<'_>,
    ) -> Tunnel {
        let tunnel = Tunnel::new(seat, of_client, context);
        if !of_node.is_empty() {
            context.traffic.down_bytes += of_node.len() as u64;
            context.out.push(Effect::Send { to: End::Client, bytes: of_node.into() });
        }
        Tunnel { node, ..tunnel }
    }

    /// The service of the backend.
    pub(crate) fn service(&self) -> &Service {
        &self.seat
    }

    /// The seat among the clients of its service.
    pub(crate) fn into_seat(self) -> Seat {
        self.seat
    }

    /// Timeouts of the close; None: the backend has not ended.
    pub(crate) fn timeouts(&self) -> Option<CloseTimeouts> {
        self.ended_ms.map(|since_ms| CloseTimeouts::of(&self.seat.limits, since_ms))
    }

    /// Whether both ends have ended: the tunnel is finished when both send queues are empty.
    pub(crate) fn has_ended(&self) -> bool {
        !self.has_client && !self.has_backend
    }

    /// Shuts down the sending half towards the backend, which may still answer. The client is still read: closing a
    /// socket with unread bytes sends a reset, which destroys bytes in transit.
    pub(crate) fn stop(&mut self, context: &mut Context<'_>) {
        self.is_stopping = true;
        context.out.push(Effect::Finish(End::Backend));
    }

    /// Handles an input. Some: the tunnel closes.
    pub(crate) fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Leave> {
        match input {
            // A receive may complete just before the client's failure is reported.
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
            // A backend that closes with unread bytes is reported as a reset after its last bytes.
            Input::Ended(End::Backend) | Input::Failed(End::Backend, _) | Input::Broken(End::Backend, _) => {
                self.has_backend = false;
                self.ended_ms = Some(context.now_ms);
                context.out.push(Effect::Finish(End::Client));
                context.deadline_in(self.seat.limits.close_ms);
            }
            // The backend still gets the bytes that the client sent before.
            Input::Failed(End::Client, _) | Input::Broken(End::Client, _) if !self.has_backend => {
                self.has_client = false;
                context.out.push(Effect::Abandon(End::Client));
                context.out.push(Effect::Finish(End::Backend));
            }
            Input::Failed(End::Client, error) => return Some(Leave::ClientLost(Ending::ClientFailed(error))),
            Input::Broken(End::Client, error) => return Some(Leave::ClientLost(Ending::Tls(error))),
            Input::Drained | Input::Deadline => {
                let is_of_node = self.node.is_some();
                return Some(Leave::Over(if is_of_node { Ending::PassedOn } else { Ending::Tunnelled }));
            }
            // A close frame would have to go between two of the backend's.
            Input::Revoked => return Some(Leave::ClientLost(Ending::Revoked)),
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
        let mut context = Context::new(Surroundings::plain(&date, &sites), &mut facts, &mut effects);
        let seat = Seat::take(&Arc::default(), 1).unwrap();
        let mut tunnel = Tunnel::new(seat, b"early".to_vec(), &mut context);
        assert!(tunnel.handle(Input::Ended(End::Backend), &mut context).is_none());
        assert!(tunnel.handle(Input::Failed(End::Client, SystemError::BROKEN_PIPE), &mut context).is_none());
        context.out.drain().for_each(drop);
        let chunk = Chunk { buffer: &mut b"late".to_vec(), start: 0, end: 4 };
        assert!(tunnel.handle(Input::Bytes(End::Client, chunk), &mut context).is_none());
        assert_eq!(effects.drain().count(), 0, "its backend has been told its end");
        assert!(tunnel.has_ended());
    }
}
