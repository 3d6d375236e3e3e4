//! A handshake in direct mode: the client's socket is passed to the backend.

use super::{Opening, stop};
use crate::driver::{ConnectCause, ConnectError, HandoverStep};
use crate::exchange::asking::refuse_revoked;
use crate::exchange::tunnel::Tunnel;
use crate::exchange::{Closing, Context, Effect, Ending, Full, HandedOver, Phase, Step, over, refuse, send_close};
use rfc6455::close::CloseCode;

impl Opening {
    /// Connects to the opened socket, or hands the client over to it.
    pub(super) fn connect(&mut self, context: &mut Context<'_>) {
        if !self.seat.is_direct {
            return context.out.push(Effect::Connect(self.socket_type));
        }
        (self.is_handing_over, self.awaits_client) = (true, false);
        let (reply, hello) = self.answer();
        context.out.push(Effect::HandOver { reply, hello });
    }

    /// Handles the result of a hand-over.
    pub(super) fn handed_over(
        mut self: Box<Self>,
        result: Result<HandedOver, (HandoverStep, ConnectError)>,
        pipelined: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        self.is_handing_over = false;
        let phase = match result {
            Ok(HandedOver::Away { has_kernel_tls }) => {
                *context.status = 101;
                over(Ending::HandedOver { has_kernel_tls }, context)
            }
            Ok(HandedOver::Relayed) => {
                *context.status = 101;
                if self.is_revoked {
                    context.out.push(Effect::CloseFile);
                    let closing = Closing::without_client(Ending::Revoked, self.seat, context);
                    return (Phase::Closing(Box::new(closing)), false);
                }
                let mut tunnel = Tunnel::new(self.seat, std::mem::take(pipelined), context);
                if self.is_stopping {
                    tunnel.stop(context);
                }
                Phase::Tunnel(Box::new(tunnel))
            }
            Err((HandoverStep::Room, _)) if self.is_stopping => over(Ending::Stopping, context),
            Err((HandoverStep::Room, _)) if self.is_revoked => over(Ending::Revoked, context),
            Err((HandoverStep::Room, _)) => {
                self.awaits_client = true;
                self.try_later(context);
                Phase::Opening(self)
            }
            Err((HandoverStep::Connect, ConnectError { cause: ConnectCause::Cancelled, .. })) => {
                refuse(504, "the server does not accept", Ending::TimedOut(Step::Connect), context)
            }
            Err((HandoverStep::Connect, ConnectError { cause: ConnectCause::TooManyUntaken, .. })) => {
                // Clients may compare the body, so it keeps the word "servers" where the log says "backends".
                let body = "too many clients that servers in direct mode do not take (ulimit -n)";
                refuse(503, body, Ending::Overload(Full::Untaken), context)
            }
            Err((HandoverStep::Connect, ConnectError { cause: ConnectCause::NoRoom, .. })) if self.is_stopping => {
                stop(context)
            }
            Err((HandoverStep::Connect, _)) if self.is_revoked => refuse_revoked(context),
            Err((HandoverStep::Connect, error)) => return self.connected(Err(error), context),
            Err((HandoverStep::Reply, error))
                if matches!(error.cause, ConnectCause::Cancelled | ConnectCause::NoRoom) =>
            {
                over(Ending::TimedOut(Step::Reply), context)
            }
            Err((HandoverStep::Reply, error)) => over(Ending::ClientFailed(error.error), context),
            Err((HandoverStep::Pass, error)) => {
                *context.status = 101;
                context.out.push(Effect::CloseFile);
                let reason = match error.cause {
                    ConnectCause::TooManyUntaken => "too many clients wait for servers",
                    _ => "the server is not there",
                };
                send_close(Some(CloseCode::INTERNAL_ERROR), reason, context);
                let ending = Ending::NotTaken(error);
                Phase::Closing(Box::new(Closing::without_backend(ending, &self.seat.limits, context)))
            }
        };
        (phase, false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::driver::{FileId, FileKind, SystemError};
    use crate::exchange::{Chunk, Effects, Exchange, Input, Surroundings};
    use crate::http::date::Date;
    use crate::route::{Service, Site, Sites};
    use crate::types::End;

    const HANDSHAKE: &str = "GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// The effects after a hand-over with this result, for a client with these pipelined bytes, when this input came
    /// during the hand-over.
    fn with(
        meanwhile: Input<'_>,
        pipelined: &str,
        result: Result<HandedOver, (HandoverStep, ConnectError)>,
    ) -> Vec<Effect> {
        let service = Arc::new(Service { is_direct: true, ..Service::default() });
        let sites = Sites::new(Arc::new(Site { has_docroot: true, service, ..Site::default() }), Vec::new());
        let date = Date::default();
        let around = Surroundings::plain(&date, &sites);
        let (mut exchange, mut effects) = (Exchange::default(), Effects::default());
        let mut bytes = [HANDSHAKE, pipelined].concat().into_bytes();
        let chunk = Chunk { start: 0, end: bytes.len(), buffer: &mut bytes };
        for input in
            [Input::Bytes(End::Client, chunk), Input::Opened(Ok(FileKind::Socket(FileId::default()))), meanwhile]
        {
            exchange.handle(around, input, &mut effects);
        }
        assert!(matches!(effects.drain().last(), Some(Effect::HandOver { .. })));
        exchange.handle(around, Input::HandedOver(result), &mut effects);
        effects.drain().collect()
    }

    #[test]
    fn a_stop_that_came_meanwhile_is_not_forgotten() {
        let full = ConnectError { cause: ConnectCause::NoRoom, error: SystemError::BROKEN_PIPE };
        let effects = with(Input::Stop, "", Err((HandoverStep::Connect, full)));
        let is_503 =
            |effect: &Effect| matches!(effect, Effect::Send { bytes, .. } if bytes.starts_with(b"HTTP/1.1 503"));
        assert!(effects.iter().any(is_503), "a full backlog is not waited for: {effects:?}");
        let effects = with(Input::Stop, "early", Ok(HandedOver::Relayed));
        assert!(matches!(effects.last(), Some(Effect::Finish(End::Backend))), "{effects:?}");
        let has_kernel_tls = false;
        let effects = with(Input::Stop, "", Ok(HandedOver::Away { has_kernel_tls }));
        assert!(matches!(effects[..], [Effect::Over(Ending::HandedOver { .. })]), "{effects:?}");
    }

    #[test]
    fn a_revocation_that_came_meanwhile_is_not_forgotten() {
        for (cause, step) in [
            (ConnectCause::NoRoom, HandoverStep::Connect),
            (ConnectCause::WrongType, HandoverStep::Connect),
            (ConnectCause::NoRoom, HandoverStep::Room),
        ] {
            let failure = ConnectError { cause, error: SystemError::BROKEN_PIPE };
            let effects = with(Input::Revoked, "", Err((step, failure)));
            let is_403 =
                |effect: &Effect| matches!(effect, Effect::Send { bytes, .. } if bytes.starts_with(b"HTTP/1.1 403"));
            let is_over = |effect: &Effect| matches!(effect, Effect::Over(Ending::Revoked));
            // Without room the client cannot be sent a reply.
            let is_refused = if step == HandoverStep::Room { is_over } else { is_403 };
            assert!(effects.iter().any(is_refused), "{effects:?}");
        }
        let effects = with(Input::Revoked, "early", Ok(HandedOver::Relayed));
        let is_sent = |effect: &Effect| matches!(effect, Effect::Send { .. });
        let is_left = |effect: &Effect| matches!(effect, Effect::Abandon(End::Client));
        assert!(effects.iter().any(is_left) && !effects.iter().any(is_sent), "{effects:?}");
        // The backend has the socket.
        let effects = with(Input::Revoked, "", Ok(HandedOver::Away { has_kernel_tls: false }));
        assert!(matches!(effects[..], [Effect::Over(Ending::HandedOver { .. })]), "{effects:?}");
    }
}
