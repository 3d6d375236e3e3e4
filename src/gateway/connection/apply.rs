//! What a session asks for, done.

use super::Connection;
use super::handover::Parcel;
use crate::driver::{Address, Driver, Kind, Lease, Segment};
use crate::gateway::World;
use crate::gateway::inbox::Arrival;
use crate::gateway::peer::Peer;
use crate::gateway::queue::{give_back, part_of};
use crate::limits::POOL_HEADROOM;
use crate::observe::log;
use crate::route::Destination;
use crate::session::{Action, Side};

/// Where the bytes lie that a session may ask to forward.
pub(super) enum Source<'a> {
    Lease(Lease),
    Copy(Box<[u8]>),
    Bytes(&'a [u8]),
    Nothing,
}

/// The part of a chunk that its session has not taken.
struct Rest {
    from: Side,
    start: usize,
}

impl<H> Connection<H> {
    pub(super) fn apply<D: Driver<Handle = H>>(&mut self, mut source: Source<'_>, world: &mut World<D>) {
        let mut actions = std::mem::take(&mut world.actions);
        let mut rest = None;
        for action in actions.drain() {
            match action {
                Action::Forward { to, range } => {
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
                Action::Later { from, start } => rest = Some(Rest { from, start }),
                Action::LaterBytes { from, buffer } => {
                    self.peer(from).put_back(Arrival::Copy(buffer), &mut world.driver);
                }
                Action::Send { to, bytes } => self.peer(to).enqueue(Segment::heap(bytes), &mut world.driver),
                Action::SendLast { to, bytes } => self.peer(to).enqueue_last(bytes, &mut world.driver),
                Action::Pong { to, bytes } => self.peer(to).enqueue_pong(bytes, &mut world.driver),
                Action::Hello(hello) => {
                    let local =
                        self.client.handle().map_or(Address::Unknown, |client| world.driver.local_address(client));
                    let record = hello.encode(self.address, local, self.id);
                    self.backend.enqueue(Segment::heap(record), &mut world.driver);
                }
                Action::Demand(side, demand) => self.peer(side).set_demand(demand),
                Action::Finish(side) => self.peer(side).finish(),
                Action::Abandon(side) => {
                    if side == Side::Backend {
                        self.place = None;
                    }
                    self.peer(side).abandon(&mut world.driver);
                }
                Action::Log(level, line) => log::connection_event(level, self.id, format_args!("{line}")),
                // What ends because it was broken off does not end for another reason.
                Action::End(ending) => self.break_off(ending),
                Action::AwaitBacklog => self.await_backlog(world),
                Action::HandOver { reply, hello } => self.handover = Some(Box::new(Parcel { reply, hello })),
                Action::CancelConnect => world.driver.cancel(self.token(Kind::Connect)),
                Action::CloseFile => self.file.keep(false),
                file_action => self.apply_to_file(file_action, world),
            }
        }
        world.actions = actions;
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

    fn apply_to_file<D: Driver<Handle = H>>(&mut self, action: Action, world: &mut World<D>) {
        match (action, self.file.handle()) {
            (Action::Open { folder, path, purpose }, _) => {
                let Some(reach) = self.endpoint.reach(self.session.site(), folder) else { return };
                world.driver.open(self.token(Kind::Open), reach, path, purpose);
                self.file.keep(true);
                self.file.begin();
            }
            (Action::ConnectTcp { link, address }, _) => {
                let site = self.endpoint.sites.get(self.session.site());
                let Some(Destination::Tcp(addresses)) = site.links.get(link).map(|link| &link.destination) else {
                    return;
                };
                let Some(address) = addresses.get(address) else { return };
                world.driver.connect_tcp(self.token(Kind::Connect), *address, &site.limits);
                self.file.begin_connecting();
            }
            (Action::UseDevice, _) => {
                if let Some(handle) = self.file.take() {
                    self.backend = Peer::device(handle);
                }
            }
            (Action::Connect(socket_type), Some(file)) => {
                world.driver.connect(self.token(Kind::Connect), file, socket_type);
                self.file.begin();
            }
            (Action::ReadFile { offset }, _) => self.file.want_read(offset),
            _ => {}
        }
    }
}
