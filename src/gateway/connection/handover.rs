//! Hands the client socket over to its backend (docs/backends.md, direct mode).

use std::net::SocketAddr;

use super::Connection;
use crate::driver::{Driver, Errno, FileId, Handover, HandoverStep, Op, Segment};
use crate::exchange::{HandedOver, Input};
use crate::gateway::World;
use crate::gateway::opened::Parcel;
use crate::gateway::watches::Watched;
use crate::limits::TLS_PAYLOAD_SIZE_MAX;
use crate::transport::Transport;
use crate::types::Address;

impl<H> Connection<H> {
    /// Begins a hand-over once nothing is in flight for the client: a pending receive would consume bytes that belong
    /// to the backend.
    pub(super) fn settle_handover<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        let (address, announced) = (self.address(), self.announced_local());
        let busy = self.rare.as_deref_mut().and_then(|rare| rare.busy.as_deref_mut());
        let Some(busy) = busy.filter(|busy| busy.ending.is_none()) else { return };
        let Some(opened) = busy.opened.as_mut().filter(|opened| opened.handover.is_some()) else { return };
        if opened.handle().is_none() {
            return;
        }
        let token = world.slots.token(opened.key, Op::Connect);
        let Some(transport) = world.slots.transport_mut(self.client).filter(|client| client.may_lend()) else { return };
        let has_pipelined = self.exchange.wants().has_pipelined;
        let fits = |parcel: &Parcel| parcel.reply.len() <= TLS_PAYLOAD_SIZE_MAX;
        if !has_pipelined && opened.handover.as_ref().is_some_and(fits) && !transport.offload(&mut world.driver) {
            return;
        }
        let Some(Parcel { reply, hello }) = opened.handover.take() else { return };
        let has_kernel_tls = transport.is_offloaded();
        let is_staged = transport.is_staged();
        // What has arrived, such as the end, the backend cannot receive from the socket.
        let is_relayed = has_pipelined || is_staged || transport.has_arrivals();
        let Some(client) = transport.lend() else { return };
        // A reply that passed the stage could not be taken back if the connect fails.
        let (reply, late_reply) = if is_staged { (Box::default(), Some(reply)) } else { (reply, None) };
        opened.late_reply = late_reply;
        let mut record = sockaddr(address);
        if let Some(hello) = hello {
            let local = announced.unwrap_or_else(|| world.driver.local_address(client));
            record.extend(hello.encode(address, local, self.id.get()));
        }
        // The end of a relayed conversation is observed anyway.
        opened.is_watched = !is_relayed && opened.socket.is_some_and(|socket| world.watches.reserve(socket));
        let record = record.into();
        let handover = Handover { reply, record, is_relayed, is_watched: opened.is_watched, has_kernel_tls };
        if let Some(file) = opened.handle() {
            world.driver.hand_over(token, file, client, handover);
        }
        opened.begin_connecting();
    }

    /// Handles the result of a hand-over.
    pub(in crate::gateway) fn on_handed_over<D: Driver<Handle = H>>(
        &mut self,
        result: Result<Option<H>, (HandoverStep, Errno)>,
        world: &mut World<D>,
    ) {
        let mut has_kernel_tls = false;
        if let Some(client) = world.slots.transport_mut(self.client) {
            client.take_back();
            has_kernel_tls = client.is_offloaded();
        }
        if matches!(result, Err((HandoverStep::Room, _))) {
            // Other connections queued for the backend must not wait until this client reads.
            self.leave_queue(world);
        }
        let mut late_reply = None;
        let watched = self.opened_mut().and_then(|opened| {
            opened.end();
            late_reply = opened.late_reply.take();
            if std::mem::take(&mut opened.is_watched) { opened.socket } else { None }
        });
        if let (Some(reply), Ok(_) | Err((HandoverStep::Pass, _))) = (late_reply, &result)
            && let Some(client) = world.slots.transport_mut(self.client)
        {
            client.enqueue(Segment::heap(reply), &mut world.driver);
        }
        let result = match (result, watched) {
            (Ok(kept), Some(socket)) => {
                self.begin_watch(socket, kept, world);
                Ok(HandedOver::Away { has_kernel_tls })
            }
            (Err(failed), Some(socket)) => {
                world.watches.cancel(socket);
                Err(failed)
            }
            (Ok(Some(relay)), None) => {
                self.set_backend(Transport::new(relay), world);
                Ok(HandedOver::Relayed)
            }
            (result, None) => result.map(|_| HandedOver::Away { has_kernel_tls }),
        };
        if let (Ok(HandedOver::Away { .. }), Some(client)) = (&result, world.slots.transport_mut(self.client)) {
            client.leave_stage();
        }
        let result = result.map_err(|(step, errno)| (step, errno.into()));
        self.handle(Input::HandedOver(result), world);
    }

    /// Watches the backend connection of a hand-over. `kept` is None if that connection could not be kept.
    fn begin_watch<D: Driver<Handle = H>>(&self, socket: FileId, kept: Option<H>, world: &mut World<D>) {
        let World { watches, slots, driver, now_ms, .. } = world;
        match kept {
            Some(handle) => {
                let watched = Watched { handle, socket, id: self.id.get(), name: self.exchange.name().into() };
                watches.begin(watched, *now_ms, slots, driver);
            }
            None => watches.cancel(socket),
        }
    }
}

/// The client address in the format of accept(2): sockaddr_in (ip(7)), sockaddr_in6 (ipv6(7)), or only the family for
/// a client without an address.
fn sockaddr(address: Address) -> Vec<u8> {
    const AF_UNSPEC: u16 = 0;
    const AF_UNIX: u16 = 1;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    match address {
        Address::Tcp(SocketAddr::V4(v4)) => {
            [&AF_INET.to_ne_bytes()[..], &v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]].concat()
        }
        Address::Tcp(SocketAddr::V6(v6)) => [
            &AF_INET6.to_ne_bytes()[..],
            &v6.port().to_be_bytes(),
            &v6.flowinfo().to_ne_bytes(),
            &v6.ip().octets(),
            &v6.scope_id().to_ne_bytes(),
        ]
        .concat(),
        Address::Unix => AF_UNIX.to_ne_bytes().to_vec(),
        Address::Unknown => AF_UNSPEC.to_ne_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_byte_by_byte() {
        let tcp = |text: &str| Address::Tcp(text.parse().expect("an address"));
        let v6 = [&[10, 0, 0x1f, 0x90, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[7, 3, 0, 0, 0]].concat();
        let mapped = [&[10, 0, 0x1f, 0x90][..], &[0; 14], &[0xff, 0xff, 192, 0, 2, 1, 0, 0, 0, 0]].concat();
        for (address, bytes) in [
            (tcp("192.0.2.1:8080"), vec![2, 0, 0x1f, 0x90, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            (tcp("[2001:db8::7%3]:8080"), v6),
            // An IPv4 client on an inherited dual-stack socket (ipv6(7), IPV6_V6ONLY).
            (tcp("[::ffff:192.0.2.1]:8080"), mapped),
            (Address::Unix, vec![1, 0]),
            (Address::Unknown, vec![0, 0]),
        ] {
            assert_eq!(sockaddr(address), bytes, "{address}");
        }
    }
}
