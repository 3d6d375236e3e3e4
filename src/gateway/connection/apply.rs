//! Applies the effects that an exchange requests.

use super::{Connection, Rare, Told};
use crate::driver::{Driver, Lease, Op, Segment};
use crate::exchange::Effect;
use crate::gateway::World;
use crate::gateway::opened::{Opened, Parcel};
use crate::observe::log;
use crate::route::Destination;
use crate::route::hello::Hello;
use crate::transport::{Arrival, Transport, give_back, part_of};
use crate::types::{Address, End};
use crate::upstream::NodePlace;

/// Storage of the bytes that an exchange may forward.
#[derive(Debug)]
pub(super) enum Source {
    /// A pool buffer.
    Lease(Lease),
    /// A heap buffer.
    Copy(Box<[u8]>),
    /// The exchange was given no bytes.
    Nothing,
    /// The bytes were forwarded.
    Gone,
}

/// The part of a chunk that the exchange did not consume.
struct Rest {
    from: End,
    start: usize,
}

impl<H> Connection<H> {
    pub(super) fn apply<D: Driver<Handle = H>>(&mut self, mut source: Source, world: &mut World<D>) {
        let mut effects = std::mem::take(&mut world.effects);
        let mut rest = None;
        for effect in effects.drain() {
            match effect {
                Effect::Forward { to, range } => {
                    let segment = match (std::mem::replace(&mut source, Source::Gone), &rest) {
                        (Source::Lease(lease), None) => part_of(lease, range),
                        // The rest keeps the pool buffer, so the forwarded range is copied.
                        (Source::Lease(lease), Some(_)) => {
                            let copy = Segment::heap(world.driver.buffer(&lease)[range].into());
                            source = Source::Lease(lease);
                            copy
                        }
                        (Source::Copy(bytes), _) => {
                            let copy = Segment::heap(bytes[range].into());
                            source = Source::Copy(bytes);
                            copy
                        }
                        (none @ (Source::Nothing | Source::Gone), _) => {
                            debug_assert!(false, "nothing to forward: {none:?}");
                            continue;
                        }
                    };
                    self.enqueue(to, segment, world);
                }
                Effect::Later { from, start } => rest = Some(Rest { from, start }),
                Effect::LaterBytes { from, buffer } => self.put_back(from, Arrival::Copy(buffer), world),
                Effect::Send { to, bytes } => self.enqueue(to, Segment::heap(bytes), world),
                Effect::Over(ending) => self.break_off(ending),
                Effect::Log(level, line) => log::connection_event(level, self.id.get(), format_args!("{line}")),
                Effect::Client { address, place } => self.set_client(address, place),
                Effect::NoClient => self.leave_place(),
                Effect::Ask(ask) => world.ask(self.owner(), self.address_unit(), ask),
                Effect::CancelAsk => world.cancel_question(self.owner()),
                Effect::Admitted(admitted) => self.rare.get_or_insert_default().admitted = admitted,
                Effect::Hello(hello) => self.send_hello(&hello, world),
                Effect::SendLast { .. }
                | Effect::Pong { .. }
                | Effect::Demand(..)
                | Effect::Finish(_)
                | Effect::Abandon(_) => self.apply_to_transport(effect, world),
                other => self.apply_to_opened(other, world),
            }
        }
        world.effects = effects;
        match (source, rest) {
            (Source::Lease(mut lease), Some(Rest { from, start })) => {
                lease.start = start as u32;
                self.put_back(from, Arrival::Lease(lease), world);
            }
            (Source::Lease(lease), None) => give_back(Segment::Pool(lease), &mut world.driver),
            (Source::Copy(bytes), Some(Rest { from, start })) => {
                self.put_back(from, Arrival::copy(&bytes[start..]), world);
            }
            (Source::Copy(_) | Source::Nothing | Source::Gone, _) => {}
        }
    }

    fn enqueue<D: Driver<Handle = H>>(&self, to: End, segment: Segment, world: &mut World<D>) {
        match world.slots.transport_mut(self.key(to)) {
            Some(transport) => transport.enqueue(segment, &mut world.driver),
            None => give_back(segment, &mut world.driver),
        }
    }

    fn put_back<D: Driver<Handle = H>>(&self, from: End, arrival: Arrival, world: &mut World<D>) {
        match (world.slots.transport_mut(self.key(from)), arrival) {
            (Some(transport), arrival) => transport.put_back(arrival, &mut world.driver),
            (None, Arrival::Lease(lease)) => give_back(Segment::Pool(lease), &mut world.driver),
            (None, _) => {}
        }
    }

    fn apply_to_transport<D: Driver<Handle = H>>(&mut self, effect: Effect, world: &mut World<D>) {
        let end = match effect {
            Effect::SendLast { to: end, .. }
            | Effect::Pong { to: end, .. }
            | Effect::Demand(end, _)
            | Effect::Finish(end)
            | Effect::Abandon(end) => end,
            _ => return,
        };
        if let (Effect::Abandon(End::Backend), Some(opened)) = (&effect, self.opened_mut()) {
            opened.place = None;
        }
        let queue_size_max = self.exchange.wants().queue_size_max as usize;
        let Some(transport) = world.slots.transport_mut(self.key(end)) else { return };
        match effect {
            Effect::SendLast { bytes, .. } => transport.enqueue_last(bytes, &mut world.driver),
            Effect::Pong { bytes, .. } => transport.enqueue_pong(bytes, queue_size_max, &mut world.driver),
            Effect::Demand(_, demand) => transport.set_demand(demand),
            Effect::Finish(_) => transport.finish(),
            Effect::Abandon(_) => transport.abandon(&mut world.driver),
            _ => {}
        }
    }

    fn send_hello<D: Driver<Handle = H>>(&mut self, hello: &Hello, world: &mut World<D>) {
        let client = world.slots.transport(self.client).and_then(Transport::handle);
        let of_socket = || client.map_or(Address::Unknown, |client| world.driver.local_address(client));
        let record = hello.encode(self.address(), self.announced_local().unwrap_or_else(of_socket), self.id.get());
        self.enqueue(End::Backend, Segment::heap(record), world);
    }

    fn apply_to_opened<D: Driver<Handle = H>>(&mut self, effect: Effect, world: &mut World<D>) {
        match effect {
            Effect::Open { folder, path, purpose } => {
                let Some(reach) = self.places.endpoint().reach(self.exchange.facts().site, folder) else { return };
                let opened = opened_of(&mut self.rare, self.slot, world);
                opened.keep(true);
                opened.begin();
                world.driver.open(world.slots.token(opened.key, Op::Open), reach, path, purpose);
            }
            Effect::ConnectTcp { link, address } => {
                let site = self.places.endpoint().sites.get(self.exchange.facts().site);
                let Some(Destination::Tcp(addresses)) = site.links.get(link).map(|link| &link.destination) else {
                    return;
                };
                let Some(address) = addresses.get(address) else { return };
                let opened = opened_of(&mut self.rare, self.slot, world);
                opened.begin_connecting();
                world.driver.connect_tcp(world.slots.token(opened.key, Op::Connect), *address, &site.limits);
            }
            Effect::ConnectNode { node, address } => {
                let NodePlace::Tcp(place) = &node.place else { return };
                let Some(address) = place.addresses().get(address).copied() else {
                    // The addresses have just become fewer.
                    self.rare.get_or_insert_default().busy.get_or_insert_default().told = Some(Told::NoAddress);
                    return;
                };
                let limits = &self.places.endpoint().sites.get(self.exchange.facts().site).limits;
                let opened = opened_of(&mut self.rare, self.slot, world);
                opened.begin_connecting();
                world.driver.connect_tcp(world.slots.token(opened.key, Op::Connect), address, limits);
            }
            Effect::TakeIdle { link, idle_ms_max } => {
                let key = match self.backend {
                    None => world.pool.take(&link, idle_ms_max, world.now_ms),
                    Some(_) => None,
                };
                if let Some(key) = key {
                    world.slots.give_to_connection(key, self.slot);
                    self.backend = Some(key);
                }
                self.busy_or_new().told = Some(Told::TookIdle(key.is_some()));
            }
            Effect::LeaveNode { link, idle_ms } => {
                if let Some(key) = self.backend.take() {
                    world.pool.put(key, (&link, idle_ms), world.now_ms, &mut world.slots, &mut world.driver);
                }
            }
            Effect::Secure(link) => {
                if let (Some(tls), Some(transport)) = (&link.upstream.tls, world.slots.transport_mut(self.backend)) {
                    transport.secure(tls, link.node.host());
                }
            }
            Effect::AwaitBacklog => self.await_backlog(world),
            Effect::UseDevice => {
                if let Some(handle) = self.opened_mut().and_then(|opened| opened.take()) {
                    self.set_backend(Transport::device(handle), world);
                }
            }
            effect => {
                let Some(opened) = self.opened_mut() else { return };
                match effect {
                    Effect::Connect(socket_type) => {
                        let Some(file) = opened.handle() else { return };
                        world.driver.connect(world.slots.token(opened.key, Op::Connect), file, socket_type);
                        opened.begin();
                    }
                    Effect::HandOver { reply, hello } => opened.handover = Some(Parcel { reply, hello }),
                    Effect::CancelConnect => world.driver.cancel(world.slots.token(opened.key, Op::Connect)),
                    Effect::CloseFile => opened.keep(false),
                    Effect::ReadFile { offset } => opened.want_read(offset),
                    _ => {}
                }
            }
        }
    }
}

/// The opened file of a connection, created if absent.
fn opened_of<'a, H, D: Driver<Handle = H>>(
    rare: &'a mut Option<Box<Rare<H>>>,
    connection: u32,
    world: &mut World<D>,
) -> &'a mut Opened<H> {
    let busy = rare.get_or_insert_default().busy.get_or_insert_default();
    busy.opened.get_or_insert_with(|| Opened::new(world.slots.insert_file(connection)))
}
