//! Listener lifecycle (accept, pause, close) and admission of accepted clients.

use std::sync::Arc;

use super::admission::Places;
use super::connection::{Connection, ProxyFacts};
use super::endpoint::Endpoint;
use super::timers::Owner;
use super::{Gateway, list};
use crate::clients::HeaderUse;
use crate::driver::{Driver, Errno, Op};
use crate::exchange::{Full, Input};
use crate::limits;
use crate::observe::log::{self, Level};
#[cfg(any(test, feature = "sim"))]
use crate::transport::StageKind;
use crate::transport::Transport;
use crate::types::{Address, End};

impl<D: Driver> Gateway<D> {
    pub(super) fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        listener.is_paused = false;
        let token = self.world.slots.token(listener.key, Op::Accept);
        self.world.driver.accept(token, &listener.socket);
    }

    /// Closes a listener: immediately if nothing is in flight, else after its accept has completed.
    pub(super) fn leave(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        listener.is_leaving = true;
        if listener.is_paused {
            let listener = self.listeners.remove(index);
            self.world.slots.remove(listener.key);
            self.world.driver.close(listener.socket);
        } else {
            self.world.driver.cancel(self.world.slots.token(listener.key, Op::Accept));
        }
    }

    pub(super) fn on_accepted(&mut self, index: usize, result: Result<(D::Handle, Address), Errno>, more: bool) {
        let is_failure = match result {
            Ok((handle, address)) => {
                self.admit(index, handle, address);
                false
            }
            Err(Errno::ECANCELED | Errno::ECONNABORTED) => false,
            Err(errno) => {
                log::event(Level::Warn, format_args!("cannot accept: {}", errno.desc()));
                true
            }
        };
        let Some(listener) = self.listeners.get_mut(index).filter(|_| !more) else { return };
        // Paused means that no accept is in flight, so that `leave` can close the listener.
        listener.is_paused = is_failure || listener.is_leaving;
        if listener.is_leaving {
            self.leave(index);
        } else if is_failure {
            self.resume_ms = Some(self.world.now_ms + limits::ACCEPT_PAUSE_MS);
        } else {
            self.accept(index);
        }
    }

    fn admit(&mut self, index: usize, handle: D::Handle, address: Address) {
        let Some(listener) = self.listeners.get(index).filter(|_| self.give_up_ms.is_none()) else {
            return self.world.driver.close(handle);
        };
        let endpoint = listener.endpoint.clone();
        #[cfg(any(test, feature = "sim"))]
        if matches!(endpoint.stage, StageKind::Streams) {
            return self.add_carrier(handle, address, endpoint);
        }
        let trust = &endpoint.sites.trust;
        let header_use = match (trust.header, trust.proxies.has(address)) {
            (HeaderUse::Required, false) => {
                let line = format_args!("closed a connection of {address}: no PROXY header of it is trusted (trusted)");
                log::event(Level::Info, line);
                return self.world.driver.close(handle);
            }
            (_, false) => HeaderUse::Off,
            (header_use, true) => header_use,
        };
        let transport = Transport::with_stage(handle, &endpoint.stage, header_use);
        if let Err(transport) = self.begin(address, &endpoint, transport) {
            transport.close(&mut self.world.driver);
        }
    }

    /// Begins the exchange of a client, unless a limit is reached beyond which clients are not even refused: then the
    /// transport is returned. Otherwise returns the owner of the connection.
    pub(super) fn begin(
        &mut self,
        address: Address,
        endpoint: &Arc<Endpoint<D::Handle>>,
        mut transport: Transport<D::Handle>,
    ) -> Result<Owner, Transport<D::Handle>> {
        let there = self.connections.len() as u64;
        // A proxy has the connections of many clients.
        let proxied = endpoint.sites.trust.proxies.has(address).then(|| Box::new(ProxyFacts::new(address)));
        let client = if proxied.is_none() { Some(address) } else { None };
        let Some((places, handshake)) = self.admission.enter(client, &self.world.counts, endpoint, there) else {
            return Err(transport);
        };
        let input = match &places {
            Places::Refused(refusal) if refusal.full == Full::TlsHandshakes => {
                transport.refuse_handshake();
                Input::Overload(refusal.full)
            }
            // A reply cannot be sent before the header, for which a proxy that is refused has no more time than others.
            _ if transport.awaits_header() => Input::Expecting,
            Places::Admitted { .. } => Input::Accepted,
            Places::Refused(refusal) => Input::Overload(refusal.full),
        };
        let entry = self.connections.vacant_entry();
        let slot = entry.key() as u32;
        let key = self.world.slots.insert_transport(slot, End::Client, transport);
        let places = (places, handshake);
        let connection = Connection::new(self.next_id, slot, key, address, places, proxied, self.world.now_ms);
        let connection = entry.insert(connection);
        self.next_id += 1;
        connection.handle(input, &mut self.world);
        list(connection, &mut self.touched);
        Ok(connection.owner())
    }
}
