//! The client of a trusted proxy's connection: given by the PROXY header before its bytes, or by the fields of each request.

use std::net::SocketAddr;

use super::{Connection, split};
use crate::clients::header::{Announced, Header};
use crate::clients::{AddressCounts, AddressUnit, ClientPlace};
use crate::driver::Driver;
use crate::exchange::{Ending, Full, Input, Proxied};
use crate::gateway::World;
use crate::observe::log::{self, Level};
use crate::transport::Introduction;
use crate::types::Address;

/// What is known of a trusted proxy's connection. A conversation does not need it.
#[derive(Debug)]
pub(in crate::gateway) struct ProxyFacts {
    /// Where requests come from if no field says more: the peer of the socket, or the client in the PROXY header.
    peer: Address,
    /// The address that the client has connected to. None: that of the socket.
    local: Option<SocketAddr>,
    /// Whether the client uses TLS to the proxy, as the PROXY header says. None: it does not say it.
    is_tls: Option<bool>,
    /// Whether fields of requests may give the client. After a header without a client they do not: the connection is
    /// the proxy's own, or that of a client without an address.
    reads_fields: bool,
}

impl ProxyFacts {
    /// The connection of a proxy with this address.
    pub(in crate::gateway) fn new(peer: Address) -> ProxyFacts {
        ProxyFacts { peer, local: None, is_tls: None, reads_fields: true }
    }

    /// What an exchange is told.
    pub(super) fn told<'a>(&self, counts: &'a AddressCounts) -> Proxied<'a> {
        Proxied { peer: self.peer, reads_fields: self.reads_fields, is_tls: self.is_tls, counts }
    }
}

impl<H> Connection<H> {
    fn proxied_mut(&mut self) -> Option<&mut ProxyFacts> {
        self.busy_mut()?.proxied.as_deref_mut()
    }

    /// The address that the client has connected to, as the PROXY header gives it. None: that of the socket.
    pub(super) fn announced_local(&self) -> Option<Address> {
        self.busy()?.proxied.as_ref()?.local.map(Address::Tcp)
    }

    /// Handles the beginning of a trusted proxy's connection.
    pub(super) fn on_header<D: Driver<Handle = H>>(&mut self, introduction: Introduction, world: &mut World<D>) {
        let full = match introduction {
            Err(error) => return self.handle(Input::NoHeader(error), world),
            Ok(None) => None,
            Ok(Some(header)) => match *header {
                Header::Client(announced) => self.announce(&announced, world),
                Header::Own => {
                    if let Some(proxied) = self.proxied_mut() {
                        proxied.reads_fields = false;
                    }
                    None
                }
            },
        };
        // It may have been refused before.
        match self.places.full().or(full) {
            None => self.handle(Input::Accepted, world),
            Some(full) => self.refuse(full, world),
        }
    }

    /// Refuses a client that is known by its header. It does not begin a TLS handshake, for which nobody would wait.
    fn refuse<D: Driver<Handle = H>>(&mut self, full: Full, world: &mut World<D>) {
        if !self.places.refuse(full, &world.refused) {
            self.break_off(Ending::Overload(full));
        }
        if let Some(client) = world.slots.transport_mut(self.client) {
            client.refuse_handshake();
        }
        self.handle(Input::Overload(full), world);
    }

    /// Sets the client that the PROXY header gives. It takes a place of its address, unless it is a trusted proxy, too.
    /// Some: there is none.
    fn announce<D: Driver<Handle = H>>(&mut self, announced: &Announced, world: &mut World<D>) -> Option<Full> {
        let (proxy, client) = (self.address(), Address::Tcp(announced.client));
        let line = format_args!("the PROXY header of {proxy} gives the client {client}");
        log::connection_event(Level::Debug, self.id.get(), line);
        if let Some(proxied) = self.proxied_mut() {
            (proxied.peer, proxied.local, proxied.is_tls) = (client, Some(announced.local), announced.is_tls);
        }
        self.set_address(client);
        if self.places.endpoint().sites.trust.proxies.has(client) {
            return None;
        }
        let place = world.counts.take(AddressUnit::of(client));
        let full = if place.is_none() { Some(Full::Address) } else { None };
        self.places.set_client(place);
        full
    }

    /// Sets the client of a request, and its place. None: it is refused, since there is none.
    pub(super) fn set_client(&mut self, client: Address, place: Option<ClientPlace>) {
        self.places.set_client(place);
        self.set_address(client);
    }

    /// Gives back the place of the last request's client. Its address remains until the next request, for the log.
    pub(super) fn leave_place(&mut self) {
        self.places.set_client(None);
    }

    fn set_address(&mut self, address: Address) {
        let (v4, other) = split(address);
        self.address = v4;
        if other.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().address = other;
        }
    }
}
