//! Backends of the simulated kernel: sockets and TCP addresses for connects, devices for opens, and the chain of a
//! hand-over, which may fail at each step.

use super::objects::Object;
use super::*;

/// Bytes that the send buffer of a client holds at least (tcp(7), tcp_wmem).
const SEND_BUFFER_SIZE_MIN: usize = 4096;

type HandedOver = Result<Option<Handle>, (HandoverStep, Errno)>;

impl Sim {
    /// The name of an opened socket, or the error of a connect to it.
    fn backend(&mut self, file: usize, socket_type: SocketType) -> Result<String, Errno> {
        let Object::File(place) = &self.objects[file] else { panic!("not an opened socket") };
        let (name, node) = (place.name(), self.node(place).cloned());
        match node {
            Some(Node::Backend(other) | Node::Narrow(other)) if other != socket_type => Err(Errno::EPROTOTYPE),
            Some(Node::Narrow(_)) if !self.is_plain && !self.rng.one_in(4) => Err(Errno::EAGAIN),
            Some(Node::Full(until_ms)) if self.now_ms < until_ms => Err(Errno::EAGAIN),
            Some(Node::Backend(_) | Node::Full(_) | Node::Narrow(_)) => Ok(name),
            _ => Err(Errno::ECONNREFUSED),
        }
    }

    /// Creates a wire and returns its number; the gateway has one end.
    pub(super) fn new_wire(&mut self, packets: bool) -> usize {
        let capacity = self.capacity.unwrap_or_else(|| 1 << (6 + self.rng.below(12)));
        self.wires.push(Wire::new(capacity, packets));
        self.wires.len() - 1
    }

    /// Creates a wire; returns the gateway's handle and the wire's number.
    fn connection(&mut self, packets: bool) -> (Handle, usize) {
        let wire = self.new_wire(packets);
        (Handle(self.objects.insert(Object::Wire(wire))), wire)
    }

    pub(super) fn attempt_connect(&mut self, file: usize, socket_type: SocketType) -> Result<Handle, Errno> {
        let name = self.backend(file, socket_type)?;
        let (handle, wire) = self.connection(socket_type == SocketType::SeqPacket);
        self.connected.push((name, wire));
        Ok(handle)
    }

    /// Attempts a connect. None: the address has not answered yet.
    pub(super) fn attempt_connect_tcp(
        &mut self,
        address: SocketAddr,
        is_cancelled: bool,
    ) -> Option<Result<Handle, Errno>> {
        if is_cancelled && (self.is_plain || self.rng.one_in(2)) {
            return Some(Err(Errno::ECANCELED));
        }
        let failed = match self.hosts.get(&address).cloned() {
            Some(Host::Silent) => return is_cancelled.then_some(Err(Errno::ECANCELED)),
            _ if self.chance(60) => Errno::EMFILE,
            Some(Host::Backend(name)) => {
                let (handle, wire) = self.connection(false);
                self.connected.push((name, wire));
                return Some(Ok(handle));
            }
            Some(Host::Refuses) => Errno::ECONNREFUSED,
            None => Errno::ENETUNREACH,
        };
        Some(Err(failed))
    }

    /// Opens a device. The program at its other end appears when the device is prepared.
    pub(super) fn attempt_open_device(
        &mut self,
        place: &Place,
        node: &Node,
        device: Device,
    ) -> Result<(Handle, FileKind), Errno> {
        node.check_device(device)?;
        let is_written_only = device == Device::Fifo(Direction::Write);
        if is_written_only && self.chance(10) {
            // fifo(7): no process has the pipe open for reading.
            return Err(Errno::ENXIO);
        }
        let id = DeviceId { file_system: 1, number: place.inode(), is_written_only };
        let (wire, name) = (self.new_wire(false), place.name());
        let object = self.objects.insert(Object::Device { wire, device, name, is_prepared: false });
        Ok((Handle(object), FileKind::Device(id, device)))
    }

    pub(super) fn prepare_device(&mut self, object: usize, device: Device) -> Result<(), Errno> {
        if self.chance(40) {
            return Err(Errno::EIO);
        }
        let Object::Device { wire, device: opened, name, is_prepared } = &mut self.objects[object] else {
            panic!("not a device")
        };
        assert!(*opened == device && !*is_prepared, "{device:?} was opened as {opened:?}");
        *is_prepared = true;
        self.connected.push((name.clone(), *wire));
        Ok(())
    }

    /// The connection that a client was passed through, if the gateway keeps it: the backend closes it, answers, resets
    /// it, or does nothing.
    fn watched(&mut self) -> Handle {
        let (handle, wire) = self.connection(false);
        match if self.is_plain { 0 } else { self.rng.below(4) } {
            0 => self.wires[wire].finish(),
            1 => drop(self.wires[wire].write(b"answer")),
            2 => self.wires[wire].reset(),
            _ => {}
        }
        handle
    }

    pub(super) fn attempt_hand_over(
        &mut self,
        file: usize,
        client: usize,
        handover: Handover,
        is_cancelled: bool,
    ) -> HandedOver {
        let pipe = &self.wire(client).from_gateway;
        if pipe.size > 0 && !pipe.broken {
            return Err((HandoverStep::Room, Errno::EAGAIN));
        }
        let connected = match self.backend(file, SocketType::Stream) {
            Ok(_) if is_cancelled && (self.is_plain || self.rng.one_in(2)) => Err(Errno::ECANCELED),
            Ok(_) if self.chance(60) => Err(Errno::EMFILE),
            Ok(_) if self.chance(60) => Err(Errno::ETOOMANYREFS),
            other => other,
        };
        let name = match connected {
            Ok(name) => name,
            Err(errno) => return Err((HandoverStep::Connect, errno)),
        };
        let wire = self.wire(client);
        if wire.from_gateway.broken || wire.from_gateway.finished {
            return Err((HandoverStep::Reply, Errno::EPIPE));
        }
        if handover.reply.len() > wire.from_gateway.capacity.max(SEND_BUFFER_SIZE_MIN) {
            return Err((HandoverStep::Reply, Errno::ECANCELED));
        }
        wire.give(&handover.reply);
        if name == "dies" && self.chance(2) {
            let errno = if self.rng.one_in(2) { Errno::EPIPE } else { Errno::ETOOMANYREFS };
            return Err((HandoverStep::Pass, errno));
        }
        let Object::Wire(number) = self.objects[client] else { panic!("not a socket") };
        let record = handover.record.into_vec();
        if handover.is_relayed {
            let (handle, far) = self.connection(false);
            self.handed_over.push(HandedOverClient { name, wire: far, client: number, is_relayed: true, record });
            return Ok(Some(handle));
        }
        self.wires[number].is_passed = true;
        self.handed_over.push(HandedOverClient { name, wire: number, client: number, is_relayed: false, record });
        Ok(handover.is_watched.then(|| self.watched()))
    }
}
