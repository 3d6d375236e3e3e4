//! What an exchange asks for, done.

use super::Connection;
use super::handover::Parcel;
use crate::driver::{Address, Driver, Kind, Lease, Segment};
use crate::exchange::Effect;
use crate::gateway::World;
use crate::gateway::inbox::Arrival;
use crate::gateway::peer::Peer;
use crate::gateway::queue::{give_back, part_of};
use crate::limits::POOL_HEADROOM;
use crate::observe::log;
use crate::route::Destination;
use crate::types::End;

/// Where the bytes lie that an exchange may ask to forward.
pub(super) enum Source<'a> {
    Lease(Lease),
    Copy(Box<[u8]>),
    Bytes(&'a [u8]),
    Nothing,
}

/// The part of a chunk that its exchange has not taken.
struct Rest {
    from: End,
    start: usize,
}

impl<H> Connection<H> {
    pub(super) fn apply<D: Driver<Handle = H>>(&mut self, mut source: Source<'_>, world: &mut World<D>) {
        let mut effects = std::mem::take(&mut world.effects);
        let mut rest = None;
        for effect in effects.drain() {
            match effect {
                Effect::Forward { to, range } => {
                    let segment = match (std::mem::replace(&mut source, Source::Nothing), &rest) {
                        (Source::Lease(lease), None) => part_of(lease, range),
                        // The buffer stays here with the rest.
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
                        (Source::Bytes(bytes), _) => Segment::heap(bytes[range].into()),
                        (Source::Nothing, _) => continue,
                    };
                    self.peer(to).enqueue(segment, &mut world.driver);
                }
                Effect::Later { from, start } => rest = Some(Rest { from, start }),
                Effect::LaterBytes { from, buffer } => {
                    self.peer(from).put_back(Arrival::Copy(buffer), &mut world.driver);
                }
                Effect::Send { to, bytes } => self.peer(to).enqueue(Segment::heap(bytes), &mut world.driver),
                Effect::SendLast { to, bytes } => self.peer(to).enqueue_last(bytes, &mut world.driver),
                Effect::Pong { to, bytes } => self.peer(to).enqueue_pong(bytes, &mut world.driver),
                Effect::Hello(hello) => {
                    let local =
                        self.client.handle().map_or(Address::Unknown, |client| world.driver.local_address(client));
                    let record = hello.encode(self.address, local, self.id);
                    self.backend.enqueue(Segment::heap(record), &mut world.driver);
                }
                Effect::Demand(end, demand) => self.peer(end).set_demand(demand),
                Effect::Finish(end) => self.peer(end).finish(),
                Effect::Abandon(end) => {
                    if end == End::Backend {
                        self.place = None;
                    }
                    self.peer(end).abandon(&mut world.driver);
                }
                Effect::Log(level, line) => log::connection_event(level, self.id, format_args!("{line}")),
                // What ends because it was broken off does not end for another reason.
                Effect::Over(ending) => self.break_off(ending),
                Effect::AwaitBacklog => self.await_backlog(world),
                Effect::HandOver { reply, hello } => self.handover = Some(Box::new(Parcel { reply, hello })),
                Effect::CancelConnect => world.driver.cancel(self.token(Kind::Connect)),
                Effect::CloseFile => self.file.keep(false),
                file_action => self.apply_to_file(file_action, world),
            }
        }
        world.effects = effects;
        match (source, rest) {
            (Source::Lease(mut lease), Some(Rest { from, start })) => {
                lease.start = start as u32;
                self.peer(from).put_back(Arrival::Lease(lease), &mut world.driver);
            }
            (Source::Lease(lease), None) => give_back(Segment::Pool(lease), &mut world.driver),
            (Source::Copy(bytes), Some(Rest { from, start })) => {
                let buffer = [&[0; POOL_HEADROOM], &bytes[start..]].concat();
                self.peer(from).put_back(Arrival::Copy(buffer.into()), &mut world.driver);
            }
            _ => {}
        }
    }

    fn apply_to_file<D: Driver<Handle = H>>(&mut self, effect: Effect, world: &mut World<D>) {
        match (effect, self.file.handle()) {
            (Effect::Open { folder, path, purpose }, _) => {
                let Some(reach) = self.places.endpoint().reach(self.exchange.site(), folder) else { return };
                world.driver.open(self.token(Kind::Open), reach, path, purpose);
                self.file.keep(true);
                self.file.begin();
            }
            (Effect::ConnectTcp { link, address }, _) => {
                let site = self.places.endpoint().sites.get(self.exchange.site());
                let Some(Destination::Tcp(addresses)) = site.links.get(link).map(|link| &link.destination) else {
                    return;
                };
                let Some(address) = addresses.get(address) else { return };
                world.driver.connect_tcp(self.token(Kind::Connect), *address, &site.limits);
                self.file.begin_connecting();
            }
            (Effect::UseDevice, _) => {
                if let Some(handle) = self.file.take() {
                    self.backend = Peer::device(handle);
                }
            }
            (Effect::Connect(socket_type), Some(file)) => {
                world.driver.connect(self.token(Kind::Connect), file, socket_type);
                self.file.begin();
            }
            (Effect::ReadFile { offset }, _) => self.file.want_read(offset),
            _ => {}
        }
    }
}
