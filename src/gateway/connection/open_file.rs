//! What a connection opens: a page, or the socket or device of its backend.

use super::Connection;
use crate::driver::{Driver, Errno, FileId, FileKind, Op, Received, Share};
use crate::exchange::Input;
use crate::gateway::World;
use crate::gateway::opened::Opened;
use crate::transport::Transport;
use crate::types::End;

impl<H> Connection<H> {
    /// Handles a completed file read.
    pub(in crate::gateway) fn on_read<D: Driver<Handle = H>>(&mut self, result: Received, world: &mut World<D>) {
        let is_starved = matches!(result, Received::Failed(Errno::ENOBUFS));
        if let Some(opened) = self.opened_mut() {
            opened.on_read(is_starved);
        }
        match result {
            Received::Data(lease) => self.handle_lease(lease, None, world),
            Received::Failed(Errno::ENOBUFS) => {}
            Received::End | Received::Failed(_) => self.handle_nothing(world),
        }
    }

    /// Handles the result of opening a path.
    pub(in crate::gateway) fn on_opened<D: Driver<Handle = H>>(
        &mut self,
        result: Result<(H, FileKind), Errno>,
        world: &mut World<D>,
    ) {
        let kind = result.and_then(|(handle, kind)| self.keep_opened(handle, kind, world));
        if let Some(opened) = self.opened_mut() {
            opened.end();
        }
        self.leave_queue(world);
        let socket = if let Ok(FileKind::Socket(id)) = kind { Some(id) } else { None };
        if let Some(opened) = self.opened_mut() {
            opened.socket = socket;
        }
        // A page lookup of the same name does not wait for a backend.
        let is_full = self.exchange.wants().is_opening() && socket.is_some_and(|socket| world.queues.is_full(socket));
        let input = if is_full { Input::OpenedFull } else { Input::Opened(kind.map_err(Into::into)) };
        self.handle(input, world);
    }

    fn keep_opened<D: Driver<Handle = H>>(
        &mut self,
        handle: H,
        kind: FileKind,
        world: &mut World<D>,
    ) -> Result<FileKind, Errno> {
        let wants = self.exchange.wants();
        if let (FileKind::Device(id, device), true, Some(service)) = (kind, wants.is_opening(), wants.service) {
            let place = world.devices.enter(id, service.limits.clients_max);
            let ready = place.as_ref().ok_or(Errno::EBUSY).and_then(|_| world.driver.prepare(&handle, device));
            if let Some(opened) = self.opened_mut() {
                opened.place = place;
            }
            if let Err(errno) = ready {
                world.driver.close(handle);
                return Err(errno);
            }
        }
        match self.opened_mut() {
            Some(opened) => opened.set(Some(handle), &mut world.driver),
            None => world.driver.close(handle),
        }
        Ok(kind)
    }

    /// Queues the connection because its backend's listen backlog is full.
    pub(super) fn await_backlog<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        if let Some((opened, socket)) = self.socket_mut() {
            opened.is_queued = true;
            world.queues.wait(socket, self.owner(), self.address_unit(), world.now_ms);
        }
    }

    /// Removes the connection from its backend's queue.
    pub(super) fn leave_queue<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) {
        if let Some((opened, socket)) = self.socket_mut()
            && std::mem::take(&mut opened.is_queued)
        {
            world.queues.leave(socket, self.owner(), world.now_ms);
        }
    }

    /// The opened file and its socket. None: nothing is opened, or it is not a socket.
    fn socket_mut(&mut self) -> Option<(&mut Opened<H>, FileId)> {
        let opened = self.opened_mut()?;
        let socket = opened.socket?;
        Some((opened, socket))
    }

    /// Handles the result of a connect to the backend.
    pub(in crate::gateway) fn on_connected<D: Driver<Handle = H>>(
        &mut self,
        result: Result<H, Errno>,
        world: &mut World<D>,
    ) {
        if let Some(opened) = self.opened_mut() {
            opened.end();
        }
        let connected = result.map(|handle| self.set_backend(Transport::new(handle), world));
        self.handle(Input::Connected(connected.map_err(Into::into)), world);
    }

    /// Installs the backend's transport. If the connection is ending, the backend is closed.
    pub(super) fn set_backend<D: Driver<Handle = H>>(&mut self, transport: Transport<H>, world: &mut World<D>) {
        if self.is_ending() || self.backend.is_some() {
            return transport.close(&mut world.driver);
        }
        self.backend = Some(world.slots.insert_transport(self.slot, End::Backend, transport));
    }

    pub(super) fn settle_opened<D: Driver<Handle = H>>(&mut self, world: &mut World<D>) -> Option<Share> {
        self.settle_handover(world);
        let wants = self.exchange.wants();
        let (is_handshake, is_opening) = (wants.is_handshake(), wants.is_opening());
        let is_ending = self.is_ending();
        if is_ending || !is_opening {
            self.leave_queue(world);
        }
        let has_backend = self.backend.is_some();
        let busy = self.busy_mut()?;
        if is_ending || !is_handshake {
            (busy.handshake, busy.proxied) = (None, None);
        }
        let mut starved = None;
        if let Some(opened) = &mut busy.opened {
            if is_ending && !has_backend {
                opened.place = None;
            }
            starved = opened.settle(world.slots.token(opened.key, Op::Read), &mut world.driver);
            if opened.is_over() {
                world.slots.remove(opened.key);
                busy.opened = None;
            }
        }
        self.forget_busy();
        starved
    }
}
