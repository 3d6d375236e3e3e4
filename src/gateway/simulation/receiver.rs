//! A simulated backend in direct mode, which speaks RFC 6455 itself on the descriptor handed to it.

use super::backend::check_hello;
use crate::driver::sim::{HandedOverClient, Sim};
use crate::types::Address;
use rfc6455::close::CloseCode;
use rfc6455::decoder::{Decoder, Piece, Rules};
use rfc6455::encoder;
use rfc6455::header::{self, HEADER_SIZE_MAX, Masking, Opcode, ProtocolError};

/// A client that was handed over to a backend.
pub(super) struct Receiver {
    wire: usize,
    /// Whether it received one end of a socketpair instead of the client's own socket.
    is_relayed: bool,
    name: String,
    decoder: Decoder,
    message: Vec<u8>,
    out: Vec<u8>,
    /// Bytes until it acts as its name says.
    patience: usize,
    /// Whether it has sent its close frame.
    is_closing: bool,
    is_over: bool,
}

impl Receiver {
    /// Creates the receiver of a client that was just handed over.
    pub(super) fn new(sim: &mut Sim, handed_over: HandedOverClient, has_hello: bool) -> Receiver {
        let HandedOverClient { name, wire, client, is_relayed, record } = handed_over;
        let address = sockaddr(sim.wires[client].address);
        assert!(record.starts_with(&address), "not the client's address: {record:?}");
        match has_hello {
            true => check_hello(sim, &record[address.len()..]),
            false => assert_eq!(record, address),
        }
        Receiver {
            wire,
            is_relayed,
            name,
            decoder: Decoder::default(),
            message: Vec::new(),
            out: Vec::new(),
            patience: sim.rng.below(2_000),
            is_closing: false,
            is_over: false,
        }
    }

    /// Echoes some data, or acts as its name says: `dies` and `leaves` close without a close frame, `deaf` reads
    /// nothing.
    pub(super) fn act(&mut self, sim: &mut Sim) {
        if self.is_over || self.name == "deaf" || sim.rng.one_in(3) {
            return;
        }
        let wire = &mut sim.wires[self.wire];
        let chunk = if self.is_relayed { wire.read() } else { wire.take() };
        if let Some(mut chunk) = chunk
            && !self.is_closing
        {
            self.patience = self.patience.saturating_sub(chunk.len());
            if let Err(error) = self.decode(&mut chunk) {
                self.close(Some(error.close_code()));
            }
        }
        let wire = &mut sim.wires[self.wire];
        match self.is_relayed {
            _ if self.out.is_empty() => {}
            true => drop(self.out.drain(..wire.write(&self.out).unwrap_or(0))),
            false => wire.give(&std::mem::take(&mut self.out)),
        }
        let has_left = if self.is_relayed { wire.is_at_end() } else { wire.has_client_left() };
        let has_enough = self.patience == 0 && matches!(self.name.as_str(), "dies" | "leaves");
        if has_enough || has_left || self.is_closing && self.out.is_empty() {
            match self.is_relayed {
                true => wire.leave(),
                false => wire.close_passed(),
            }
            self.is_over = true;
        }
    }

    fn decode(&mut self, chunk: &mut [u8]) -> Result<(), ProtocolError> {
        let (mut at, end) = (0, chunk.len());
        while !self.is_closing
            && let Some(piece) = self.decoder.next(&Rules::unlimited(Masking::Required), chunk, &mut at, end)?
        {
            match piece {
                Piece::Data(data) => {
                    self.message.extend_from_slice(&chunk[data.range]);
                    if data.last {
                        let message = std::mem::take(&mut self.message);
                        self.send(data.opcode, &message);
                    }
                }
                Piece::Ping(payload) => self.out.extend(encoder::control_frame(Opcode::Pong, &payload)),
                Piece::Pong => {}
                Piece::Close(code, _) => self.close(code),
            }
        }
        Ok(())
    }

    fn send(&mut self, opcode: Opcode, message: &[u8]) {
        let mut head = [0; HEADER_SIZE_MAX];
        let start = header::write_before(&mut head, HEADER_SIZE_MAX, true, opcode, message.len());
        self.out.extend_from_slice(&head[start..]);
        self.out.extend_from_slice(message);
    }

    fn close(&mut self, code: Option<CloseCode>) {
        self.out.extend(encoder::close_frame(code, ""));
        self.is_closing = true;
    }
}

/// A client address in the format of accept(2).
fn sockaddr(address: Address) -> Vec<u8> {
    match address {
        Address::Unknown => 0u16.to_ne_bytes().to_vec(),
        Address::Unix => 1u16.to_ne_bytes().to_vec(),
        Address::Tcp(std::net::SocketAddr::V4(v4)) => {
            [&2u16.to_ne_bytes()[..], &v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]].concat()
        }
        Address::Tcp(std::net::SocketAddr::V6(v6)) => {
            [&10u16.to_ne_bytes()[..], &v6.port().to_be_bytes(), &[0; 4], &v6.ip().octets(), &[0; 4]].concat()
        }
    }
}
