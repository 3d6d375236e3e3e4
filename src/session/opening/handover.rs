//! A handshake in direct mode: its client goes to the server, or stays.

use super::{Opening, stop};
use crate::driver::{Errno, HandoverStep};
use crate::session::tunnel::Tunnel;
use crate::session::{Action, Closing, Context, Ending, Full, Input, Phase, Step, head, refuse, send_close};
use crate::websocket::close::CloseCode;

impl Opening {
    /// Connects to the socket that was opened, or hands the client over to it.
    pub(super) fn connect(&mut self, context: &mut Context<'_>) {
        if !self.service.is_direct {
            return context.out.push(Action::Connect(self.socket_type));
        }
        self.is_handing_over = true;
        let (reply, hello) = self.answer();
        context.out.push(Action::HandOver { reply, hello });
    }

    /// The client was handed over, or not.
    pub(super) fn handed_over(
        mut self: Box<Self>,
        result: Result<(), (HandoverStep, Errno)>,
        early: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> (Phase, bool) {
        self.is_handing_over = false;
        let phase = match result {
            Ok(()) if early.is_empty() => {
                *context.status = 101;
                head::over(Ending::HandedOver, context)
            }
            Ok(()) => {
                *context.status = 101;
                let mut tunnel = Tunnel::new(self.service, std::mem::take(early), context);
                // It was told when there was no tunnel yet.
                let end = if self.is_stopping { tunnel.handle(Input::Stop, context) } else { None };
                end.unwrap_or_else(|| Phase::Tunnel(Box::new(tunnel)))
            }
            Err((HandoverStep::Connect, Errno::ECANCELED)) => {
                refuse(504, "the server does not accept", Ending::TimedOut(Step::Connect), context)
            }
            Err((HandoverStep::Connect, Errno::ETOOMANYREFS)) => {
                let full = Full::Untaken;
                refuse(503, &full.to_string(), Ending::Overload(full), context)
            }
            Err((HandoverStep::Connect, Errno::EAGAIN)) if self.is_stopping => stop(context),
            Err((HandoverStep::Connect, errno)) => return self.connected(Err(errno), context),
            Err((HandoverStep::Reply, Errno::ECANCELED)) => head::over(Ending::TimedOut(Step::Reply), context),
            Err((HandoverStep::Reply, errno)) => head::over(Ending::ClientFailed(errno), context),
            Err((HandoverStep::Pass, errno)) => {
                *context.status = 101;
                context.out.push(Action::CloseFile);
                let reason = match errno {
                    Errno::ETOOMANYREFS => "too many clients wait for servers",
                    _ => "the server is not there",
                };
                send_close(Some(CloseCode::INTERNAL_ERROR), reason, context);
                let ending = Ending::NotTaken(errno);
                Phase::Closing(Box::new(Closing::after_close(false, ending, &self.service, context)))
            }
        };
        (phase, false)
    }
}
