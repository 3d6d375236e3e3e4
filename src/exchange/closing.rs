//! The end of a connection: the closing handshake (RFC 6455 section 7), then each stream's own end.
//!
//! The client's half is closed first and its end awaited, since closing a socket with unread bytes would destroy
//! what is still on its way to the client. The server gets all that was sent to it, then the end.

use std::sync::Arc;

use super::relay::find_close;
use super::{Context, Demand, Effect, Ending, Input, Phase};
use crate::limits::{self, WebSocket};
use crate::route::Service;
use crate::types::End;
use crate::websocket::decoder::Decoder;

/// A connection that ends.
#[derive(Debug)]
pub struct Closing {
    client: Client,
    /// The server that has not ended. Until then the conversation counts as one of its service's, so that what is
    /// still written to a device is not mixed with the next client's.
    backend: Option<Arc<Service>>,
    ending: Ending,
    patience: Patience,
}

/// How long a reply or an end may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// When it began.
    pub since_ms: u64,
    /// From then, or from the last byte that went out, the peer has this long.
    pub close_ms: u64,
    /// Where bytes are still owed to it, it has this long from the last one.
    pub stall_ms: u64,
}

#[derive(Debug)]
enum Client {
    /// Its close frame is awaited.
    OwesClose(Box<Decoder>),
    /// Its end is awaited.
    OwesEnd,
    Gone,
}

impl Patience {
    fn of(limits: &WebSocket, context: &Context<'_>) -> Patience {
        Patience { since_ms: context.now_ms, close_ms: limits.close_ms, stall_ms: limits.stall_ms }
    }
}

impl Closing {
    /// A plain HTTP connection: the reply goes out, then the end.
    pub fn client_only(ending: Ending, context: &mut Context<'_>) -> Closing {
        context.out.push(Effect::CloseFile);
        let patience = Patience {
            since_ms: context.now_ms,
            close_ms: limits::CLOSE_MS.default,
            stall_ms: context.site().limits.stall_ms,
        };
        Closing::new(Client::OwesEnd, None, ending, patience, context)
    }

    /// Both close frames are sent, or the client broke the protocol and what it still says has no meaning. A server
    /// that has ended is forgotten.
    pub fn after_close(
        has_backend: bool,
        ending: Ending,
        service: &Arc<Service>,
        context: &mut Context<'_>,
    ) -> Closing {
        let backend = has_backend.then(|| service.clone());
        Closing::new(Client::OwesEnd, backend, ending, Patience::of(&service.limits, context), context)
    }

    /// The gateway's close frame is sent, the client's is awaited. A server that has ended is forgotten.
    pub fn after_servers_close(
        up: Decoder,
        has_backend: bool,
        ending: Ending,
        service: &Arc<Service>,
        context: &mut Context<'_>,
    ) -> Closing {
        let (client, backend) = (Client::OwesClose(Box::new(up)), has_backend.then(|| service.clone()));
        Closing::new(client, backend, ending, Patience::of(&service.limits, context), context)
    }

    /// The client is gone; the server still gets what was sent to it.
    pub fn without_client(ending: Ending, service: &Arc<Service>, context: &mut Context<'_>) -> Closing {
        context.out.push(Effect::Abandon(End::Client));
        let patience = Patience::of(&service.limits, context);
        Closing::new(Client::Gone, Some(service.clone()), ending, patience, context)
    }

    fn new(
        client: Client,
        backend: Option<Arc<Service>>,
        ending: Ending,
        patience: Patience,
        context: &mut Context<'_>,
    ) -> Closing {
        match client {
            Client::OwesEnd => {
                context.out.push(Effect::Demand(End::Client, Demand::Flow));
                context.out.push(Effect::Finish(End::Client));
            }
            // It may not have been read for a while.
            Client::OwesClose(_) => context.out.push(Effect::Demand(End::Client, Demand::Flow)),
            Client::Gone => {}
        }
        let end = if backend.is_some() { Effect::Finish(End::Backend) } else { Effect::Abandon(End::Backend) };
        context.out.push(end);
        context.deadline_in(patience.close_ms);
        Closing { client, backend, ending, patience }
    }

    /// How long it may take.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Takes an input; Some: it is over.
    pub fn handle(&mut self, input: Input<'_>, context: &mut Context<'_>) -> Option<Phase> {
        match input {
            Input::Bytes(End::Client, chunk) => {
                if let Client::OwesClose(up) = &mut self.client {
                    // A client that breaks the protocol now owes no more than one that keeps it.
                    if find_close(up, chunk, context).unwrap_or(true) {
                        self.client = Client::OwesEnd;
                        context.out.push(Effect::Finish(End::Client));
                    }
                }
            }
            Input::Ended(End::Client) | Input::Failed(End::Client, _) => {
                self.client = Client::Gone;
                context.out.push(Effect::Abandon(End::Client));
            }
            Input::Ended(End::Backend) | Input::Failed(End::Backend, _) => {
                self.backend = None;
                context.out.push(Effect::Abandon(End::Backend));
            }
            // A server that accepted when nobody waited for it any more.
            Input::Connected(Ok(())) => context.out.push(Effect::Abandon(End::Backend)),
            Input::Deadline => return Some(self.end(context)),
            _ => {}
        }
        let is_over = matches!(self.client, Client::Gone) && self.backend.is_none();
        is_over.then(|| self.end(context))
    }

    fn end(&self, context: &mut Context<'_>) -> Phase {
        context.out.push(Effect::Over(self.ending));
        Phase::Over
    }
}
