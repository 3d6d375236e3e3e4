//! One end of a connection, as far as a gateway keeps account of it.

use uakari::types::Demand;

/// A receive that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Receiving {
    #[default]
    No,
    Once,
    /// It goes on until it is cancelled, and some may come even then.
    Multishot,
}

/// One end of a connection.
#[derive(Default, Debug)]
pub struct Peer {
    /// All that it said and the exchange heard.
    pub heard: Vec<u8>,
    /// The sizes of its receives.
    pub receives: Vec<usize>,
    /// All that was sent to it.
    pub sent: Vec<u8>,
    /// The sizes of the pieces that were sent to it.
    pub sends: Vec<usize>,
    /// A last frame was sent to it.
    pub has_last: bool,
    /// It is to get the end.
    pub is_finished: bool,
    /// Nothing is wanted from it, or for it, any more.
    pub is_abandoned: bool,
    /// It is connected.
    pub is_there: bool,
    /// It is no socket.
    pub is_device: bool,
    /// It sends no more.
    pub is_ended: bool,
    /// Something sent has not been taken yet.
    pub is_queued: bool,
    /// What is wanted from it.
    pub demand: Option<Demand>,
    receiving: Receiving,
}

impl Peer {
    /// A connected one.
    pub fn connected() -> Peer {
        Peer { is_there: true, ..Peer::default() }
    }

    /// Whether a receive is in flight.
    pub fn is_read(&self) -> bool {
        self.receiving != Receiving::No && !self.is_ended
    }

    /// The end of a turn: asks for what is wanted.
    pub fn settle(&mut self) {
        let demand = self.demand.filter(|_| self.is_there && !self.is_ended && !self.is_abandoned);
        if self.receiving == Receiving::No {
            self.receiving = match demand {
                None | Some(Demand::Nothing) => Receiving::No,
                Some(Demand::Once) => Receiving::Once,
                Some(Demand::Flow) if self.is_device => Receiving::Once,
                Some(Demand::Flow | Demand::Packets) => Receiving::Multishot,
            };
        }
    }

    /// A receive has come to something.
    pub fn on_received(&mut self) {
        if self.receiving == Receiving::Once {
            self.receiving = Receiving::No;
        }
        if self.demand == Some(Demand::Once) {
            self.demand = None;
        }
    }
}
