//! Servers that are connected to in the simulated kernel, and the chain of a hand-over, which may break at each link.

use super::objects::Object;
use super::*;

type HandedOver = Result<Option<Handle>, (HandoverStep, Errno)>;

impl Sim {
    /// The name of an opened socket, or why it cannot be connected to.
    fn server(&mut self, file: usize, socket_type: SocketType) -> Result<String, Errno> {
        let Object::File(name) = &self.objects[file] else { panic!("not an opened socket") };
        match self.nodes.get(name) {
            Some(Node::Narrow(other)) if *other != socket_type => Err(Errno::EPROTOTYPE),
            Some(Node::Narrow(_)) => {
                if self.rng.one_in(4) {
                    Ok(name.clone())
                } else {
                    Err(Errno::EAGAIN)
                }
            }
            Some(Node::Server(other)) if *other != socket_type => Err(Errno::EPROTOTYPE),
            Some(Node::Full(until_ms)) if self.now_ms < *until_ms => Err(Errno::EAGAIN),
            Some(Node::Server(_) | Node::Full(_)) => Ok(name.clone()),
            _ => Err(Errno::ECONNREFUSED),
        }
    }

    /// A new wire, of which the gateway has its end; and its number.
    fn connection(&mut self, packets: bool) -> (Handle, usize) {
        let capacity = 1 << (6 + self.rng.below(12));
        self.wires.push(Wire::new(capacity, packets));
        let wire = self.wires.len() - 1;
        (Handle(self.objects.insert(Object::Wire(wire))), wire)
    }

    pub(super) fn attempt_connect(&mut self, file: usize, socket_type: SocketType) -> Result<Handle, Errno> {
        let name = self.server(file, socket_type)?;
        let (handle, wire) = self.connection(socket_type == SocketType::SeqPacket);
        self.connected.push((name, wire));
        Ok(handle)
    }

    /// The connection that a client was passed on, where the gateway keeps it: the server closes it, answers, resets it,
    /// or does nothing.
    fn watched(&mut self) -> Handle {
        let (handle, wire) = self.connection(false);
        match self.rng.below(4) {
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
        handover: &Handover,
        is_cancelled: bool,
    ) -> HandedOver {
        if self.wire(client).from_gateway.size > 0 {
            return Err((HandoverStep::Room, Errno::EAGAIN));
        }
        let connected = match self.server(file, SocketType::Stream) {
            Ok(_) if is_cancelled && self.rng.one_in(2) => Err(Errno::ECANCELED),
            Ok(_) if self.rng.one_in(60) => Err(Errno::EMFILE),
            Ok(_) if self.rng.one_in(60) => Err(Errno::ETOOMANYREFS),
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
        wire.give(&handover.reply);
        if name == "dies" && self.rng.one_in(2) {
            let errno = if self.rng.one_in(2) { Errno::EPIPE } else { Errno::ETOOMANYREFS };
            return Err((HandoverStep::Pass, errno));
        }
        let Object::Wire(number) = self.objects[client] else { panic!("not a socket") };
        let (family, size) = if self.wires[number].address == Address::Unix { (1u16, 2) } else { (2, 16) };
        let is_right = handover.record.starts_with(&family.to_ne_bytes()) && handover.record.len() == size;
        assert!(is_right, "the record of a client: {:?}", handover.record);
        if handover.is_relayed {
            let (handle, far) = self.connection(false);
            self.handed_over.push((name, far, true));
            return Ok(Some(handle));
        }
        self.wires[number].is_passed = true;
        self.handed_over.push((name, number, false));
        Ok(handover.is_watched.then(|| self.watched()))
    }
}
